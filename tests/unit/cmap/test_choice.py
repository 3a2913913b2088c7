"""The decisions of the pool, on plain data."""

from __future__ import annotations

import math
from collections.abc import Collection

import attrs
import hypothesis.strategies as st
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap import choice
from txmongo._cmap.choice import Limits


@attrs.frozen(eq=False)
class Ask:
    """A request."""

    service_class: str = "find"
    movable: bool = True
    bounded: bool = False


@attrs.frozen(eq=False)
class Line:
    """A connection."""

    name: str
    expected_wait: float = 0.0
    busy_since: float = 100.0
    in_flight: Collection[Ask] = ()


def shared(
    lines: list[Line],
    request: Ask | None = None,
    *,
    full: bool = False,
    now: float = 100.0,
    known: Collection[str] = ("find",),
    limits: Limits = Limits(),  # noqa: B008
) -> str | None:
    """The name of the connection that a request shares."""
    longest = math.inf if full else limits.share
    chosen = choice.choose_shared(lines, request or Ask(), limits=limits, longest_wait=longest, known=known, now=now)
    return None if chosen is None else chosen.name


class SharedChoiceTests(SynchronousTestCase):
    """Which busy connection a request is put on."""

    def test_smallest_wait(self) -> None:
        """The connection whose requests will be answered first is taken."""
        self.assertEqual(shared([Line("a", 0.0005), Line("b", 0.0002), Line("c", 0.0004)]), "b")

    def test_first_of_equals(self) -> None:
        """Of connections that wait equally long the first is taken."""
        self.assertEqual(shared([Line("a", 0.0002), Line("b", 0.0002)]), "a")

    def test_too_long_while_more_may_be_opened(self) -> None:
        """A wait of a millisecond is not taken while another connection may be opened."""
        self.assertEqual(shared([Line("a", 0.00099)]), "a")
        self.assertIsNone(shared([Line("a", 0.001)]))

    def test_any_wait_when_full(self) -> None:
        """With as many connections as are allowed, the smallest wait is taken however long it is."""
        self.assertEqual(shared([Line("a", 7.0), Line("b", 5.0)], full=True), "b")

    def test_exclusive_is_never_shared(self) -> None:
        """A connection whose wait is infinite is not taken, full or not."""
        self.assertIsNone(shared([Line("a", math.inf)]))
        self.assertIsNone(shared([Line("a", math.inf)], full=True))

    def test_stalled(self) -> None:
        """Nothing is put behind a request that the server has been at for 20 ms, even when full."""
        lines = [Line("a", 0.0001, busy_since=99.9801)]
        self.assertEqual(shared(lines), "a")
        self.assertIsNone(shared([Line("a", 0.0001, busy_since=99.98)], full=True))

    def test_depth(self) -> None:
        """No more than 64 requests are in flight on one connection."""
        deep = tuple(Ask() for _ in range(choice.MAX_DEPTH))
        self.assertEqual(shared([Line("a", 0.0001, in_flight=deep[1:])]), "a")
        self.assertIsNone(shared([Line("a", 0.0001, in_flight=deep)], full=True))

    def test_immovable_behind_bounded(self) -> None:
        """What cannot be moved goes only behind requests that are known to be short."""
        short = Line("short", 0.0005, in_flight=(Ask(bounded=True), Ask(bounded=True)))
        mixed = Line("mixed", 0.0001, in_flight=(Ask(bounded=True), Ask()))
        stays = Ask(movable=False)
        self.assertEqual(shared([mixed, short], stays), "short")
        self.assertIsNone(shared([mixed], stays))
        self.assertEqual(shared([mixed], stays, full=True), "mixed")

    def test_immovable_behind_unknown(self) -> None:
        """A kind of request that was never answered yet is not known to be short, whatever is said of it."""
        line = Line("a", 0.0001, in_flight=(Ask("aggregate", bounded=True),))
        self.assertIsNone(shared([line], Ask(movable=False)))
        self.assertEqual(shared([line], Ask(movable=False), known={"aggregate"}), "a")

    @given(
        st.lists(st.tuples(st.floats(0, 0.01), st.floats(0, 0.04), st.integers(0, 70))),
        st.booleans(),
    )
    def test_never_beyond_the_limits(self, state: list[tuple[float, float, int]], full: bool) -> None:
        """Whatever the state, the choice is one that the rules allow, and none is better."""
        lines = [
            Line(str(place), wait, busy_since=100 - age, in_flight=[Ask()] * depth)
            for place, (wait, age, depth) in enumerate(state)
        ]
        allowed = [
            line
            for line in lines
            if (full or line.expected_wait < 0.001)
            and line.busy_since > 100 - 0.02
            and len(line.in_flight) < choice.MAX_DEPTH
        ]
        name = shared(lines, full=full)
        if name is None:
            self.assertEqual(allowed, [])
        else:
            self.assertIn(lines[int(name)], allowed)
            self.assertEqual(lines[int(name)].expected_wait, min(line.expected_wait for line in allowed))


class LongestSharedWaitTests(SynchronousTestCase):
    """How long a wait is worth another connection."""

    def test_one_connection(self) -> None:
        """With one connection that is a millisecond, however quick the server."""
        self.assertEqual(choice.longest_shared_wait(Limits(), 0.0001, 1), 0.001)
        self.assertEqual(choice.longest_shared_wait(Limits(), 0.0001, 0), 0.001)

    def test_quick(self) -> None:
        """For what is quick it grows with the connections, up to half a stall."""
        waits = [choice.longest_shared_wait(Limits(), 0.00099, count) for count in (2, 3, 5, 6, 100)]
        self.assertEqual(waits, [0.003, 0.005, 0.001 * 9, 0.010, 0.010])

    def test_not_quick(self) -> None:
        """What takes the server a millisecond or more has another connection for itself."""
        self.assertEqual(choice.longest_shared_wait(Limits(), 0.001, 50), 0.001)

    def test_far_away(self) -> None:
        """For a server far away it is never below half the way there and back."""
        limits = Limits.of(0.1, 0.0)
        self.assertEqual(choice.longest_shared_wait(limits, 0.0001, 1), 0.05)
        self.assertEqual(choice.longest_shared_wait(limits, 0.0001, 100), 0.1)
        self.assertEqual(choice.longest_shared_wait(Limits.of(0.0, 0.06), 0.0001, 100), 0.03)


class LimitsTests(SynchronousTestCase):
    """What counts as short and as late."""

    def test_close_by(self) -> None:
        """For a server close by they are 1 ms and 20 ms."""
        self.assertEqual(Limits.of(0.0, 0.0), Limits(0.001, 0.020, 0.020))
        self.assertEqual(Limits.of(0.002, 0.0), Limits(0.001, 0.020, 0.020))

    def test_far_away(self) -> None:
        """For a server far away they are half the way there and back, and twice."""
        self.assertEqual(Limits.of(0.1, 0.0), Limits(0.05, 0.2, 0.2))

    def test_busy_reactor(self) -> None:
        """What the reactor needs to see a reply is a part of the way back, and allowed for up to a bound."""
        self.assertEqual(Limits.of(0.0, 0.005), Limits(0.0025, 0.020, 0.030))
        self.assertEqual(Limits.of(0.0, 0.05), Limits(0.025, 0.020, 0.040))

    def test_stalled(self) -> None:
        """A connection is stalled from the limit on, counted from when the server came to its oldest request."""
        line = Line("a", busy_since=0.0)
        self.assertFalse(choice.is_stalled(line, Limits().stall, 0.019))
        self.assertTrue(choice.is_stalled(line, Limits().stall, 0.020))


class DealTests(SynchronousTestCase):
    """Whose turn it is in a fixed pool."""

    def test_in_turn(self) -> None:
        """Connections are dealt one after the other, whatever is in flight on them."""
        lines = [Line("a", in_flight=(Ask(),) * 100), Line("b"), Line("c")]
        self.assertEqual([choice.deal(lines, turn, exclusive=False) for turn in range(4)], [0, 1, 2, 0])

    def test_exclusive_elsewhere(self) -> None:
        """One that is in exclusive use is passed over."""
        self.assertEqual(choice.deal([Line("a", math.inf), Line("b")], 0, exclusive=False), 1)
        self.assertIsNone(choice.deal([Line("a", math.inf)], 0, exclusive=False))

    def test_for_exclusive_use(self) -> None:
        """Exclusive use wants one on which nothing is in flight."""
        busy = Line("a", in_flight=(Ask(),))
        self.assertEqual(choice.deal([busy, Line("b")], 0, exclusive=True), 1)
        self.assertIsNone(choice.deal([busy], 0, exclusive=True))

    def test_none(self) -> None:
        """Of no connections none is dealt."""
        self.assertIsNone(choice.deal([], 3, exclusive=False))


class MoveTests(SynchronousTestCase):
    """What is sent again elsewhere."""

    def test_behind_the_oldest(self) -> None:
        """The movable requests behind the oldest one are moved, not the oldest itself."""
        first, second, third, fourth = Ask(), Ask(), Ask(movable=False), Ask()
        self.assertEqual(choice.to_move([first, second, third, fourth]), [second, fourth])

    def test_nothing(self) -> None:
        """With nothing in flight nothing is moved."""
        self.assertEqual(choice.to_move([]), [])


class AttemptsTests(SynchronousTestCase):
    """How many connections are opened."""

    def wanted(self, **counts: int) -> int:
        """The decision for some numbers."""
        values = {"waiting": 0, "opening": 0, "total": 0, "min_pool_size": 0, "max_pool_size": 100, "max_connecting": 2}
        return choice.attempts_wanted(**{**values, **counts})

    def test_for_those_who_wait(self) -> None:
        """One is opened for each that waits, up to maxConnecting at once."""
        self.assertEqual(self.wanted(waiting=1), 1)
        self.assertEqual(self.wanted(waiting=5), 2)
        self.assertEqual(self.wanted(waiting=5, opening=1, total=1), 1)
        self.assertEqual(self.wanted(waiting=5, opening=2, total=2), 0)

    def test_one_is_on_its_way(self) -> None:
        """None is opened for one for whom another is being opened."""
        self.assertEqual(self.wanted(waiting=1, opening=1, total=1), 0)

    def test_minimum(self) -> None:
        """minPoolSize is filled up though nobody waits."""
        self.assertEqual(self.wanted(min_pool_size=3, total=2), 1)
        self.assertEqual(self.wanted(min_pool_size=3, total=3), 0)

    def test_maximum(self) -> None:
        """maxPoolSize is never exceeded."""
        self.assertEqual(self.wanted(waiting=5, total=100), 0)
        self.assertEqual(self.wanted(waiting=5, total=3, max_pool_size=4), 1)


class AverageTests(SynchronousTestCase):
    """The moving average of service times."""

    def test_first(self) -> None:
        """The first value is the average."""
        self.assertEqual(choice.next_average(None, 0.004), 0.004)

    def test_shorter_counts_for_more(self) -> None:
        """A shorter time moves the average further than a longer one."""
        self.assertAlmostEqual(choice.next_average(0.004, 0.002), 0.0035)
        self.assertAlmostEqual(choice.next_average(0.004, 0.006), 0.00406)

    def test_floor(self) -> None:
        """What seems to have taken no time, or less, is taken for a little."""
        self.assertEqual(choice.next_average(None, -1.0), choice.LEAST_SERVICE_TIME)
        self.assertGreaterEqual(choice.next_average(choice.LEAST_SERVICE_TIME, 0.0), choice.LEAST_SERVICE_TIME)
