"""Which connection the next request takes: by the rules of each kind of pool, and in a pool."""

from __future__ import annotations

import math
from typing import Any

from pymongo.monitoring import ConnectionClosedReason
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import STALL, PoolTestCase, lone_connection, wire_of
from txmongo._cmap.choice import Limits
from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.generations import Generations
from txmongo._cmap.roster import Roster
from txmongo._cmap.scheduling import LeastWait, RoundRobin
from txmongo._cmap.unread import UnreadWrite

NOW = 10.0


class Bounds:
    """Those for a server close by."""

    limits = Limits()


class ScheduleTestCase(SynchronousTestCase):
    """Some connections, without a pool."""

    def setUp(self) -> None:
        self.roster = Roster(Clock(), Generations(), None)
        self.a, self.b, self.c = self.connections = [lone_connection() for _ in range(3)]
        for connection in self.connections:
            self.roster.add(connection)

    def use(self, connection: Connection, wait: float = 0.0001) -> None:
        """Have something in flight on a connection."""
        connection.in_flight[CheckOut("find", bounded=True)] = None
        connection.expected_wait += wait
        connection.busy_since = NOW
        if connection in self.roster.idle:
            self.roster.idle.remove(connection)


class RoundRobinTests(ScheduleTestCase):
    """A fixed pool."""

    def test_in_turn(self) -> None:
        """Each is dealt in its turn, whatever waits on it."""
        scheduler = RoundRobin(self.roster, pipelining=True)
        self.use(self.b, 5.0)
        dealt = [scheduler.choose(CheckOut("find"), NOW) for _ in range(4)]
        self.assertEqual(dealt, [self.a, self.b, self.c, self.a])

    def test_alone(self) -> None:
        """Who needs one alone, as everybody does without pipelining, is dealt one that is not in use, or none."""
        for pipelining, request in ((True, CheckOut("getMore", exclusive=True)), (False, CheckOut("find"))):
            scheduler = RoundRobin(self.roster, pipelining=pipelining)
            self.use(self.a)
            self.assertIs(scheduler.choose(request, NOW), self.b)
            for connection in (self.b, self.c):
                self.use(connection)
            self.assertIsNone(scheduler.choose(request, NOW))
            for connection in self.connections:
                connection.in_flight.clear()

    def test_fewer(self) -> None:
        """It goes on when one of the connections is lost."""
        scheduler = RoundRobin(self.roster, pipelining=True)
        self.assertIs(scheduler.choose(CheckOut("find"), NOW), self.a)
        self.assertIs(scheduler.choose(CheckOut("find"), NOW), self.b)
        self.roster.usable.remove(self.c)
        self.assertIs(scheduler.choose(CheckOut("find"), NOW), self.a)


class LeastWaitTests(ScheduleTestCase):
    """A growing pool."""

    def setUp(self) -> None:
        super().setUp()
        self.unread = UnreadWrite(int)
        self.retired: list[tuple[Connection, str]] = []
        self.grows = False
        self.roster.idle.extend(self.connections)
        for connection in self.connections:
            connection.idle_since = NOW - 1.0
        self.scheduler = self.make()

    def make(self, **options: Any) -> LeastWait:
        given: dict[str, Any] = {"pipelining": True, "max_idle": math.inf, **options}
        return LeastWait(
            self.roster,
            self.unread,
            Bounds(),
            {"find": 0.0001},
            may_grow=lambda: self.grows,
            retire=lambda connection, reason: self.retired.append((connection, reason)),
            **given,
        )

    def choose(self, *, copy: bool = False, **kinds: bool) -> Connection | None:
        return self.scheduler.choose(CheckOut("find", **kinds), NOW, copy=copy)

    def test_idle(self) -> None:
        """The last used of the idle ones comes first, and is idle no longer."""
        self.assertIs(self.choose(), self.c)
        self.assertEqual(self.roster.idle, [self.a, self.b])

    def test_too_old(self) -> None:
        """Idle ones that are too old are retired on the way."""
        self.scheduler = self.make(max_idle=2.0)
        for connection in (self.b, self.c):
            connection.idle_since = NOW - 2.1
        self.assertIs(self.choose(), self.a)
        idle = ConnectionClosedReason.IDLE
        self.assertEqual(self.retired, [(self.c, idle), (self.b, idle)])

    def test_shared(self) -> None:
        """If none is idle the one with the smallest expected wait is shared."""
        for connection, wait in zip(self.connections, (0.0003, 0.0001, 0.0002), strict=True):
            self.use(connection, wait)
        self.assertIs(self.choose(), self.b)

    def test_not_shared(self) -> None:
        """Not so a wait that is worth another connection while one may be opened; at maxPoolSize it is."""
        for connection in self.connections:
            self.use(connection, 0.5)
        self.grows = True
        self.assertIsNone(self.choose(movable=True))
        self.grows = False
        self.assertIs(self.choose(movable=True), self.a)

    def test_alone(self) -> None:
        """A second copy, who needs one alone, and everybody without pipelining, shares none."""
        self.assertIs(self.choose(exclusive=True), self.c)
        for connection in self.connections:
            self.use(connection)
        self.assertIsNone(self.choose(copy=True))
        self.assertIsNone(self.choose(exclusive=True))
        self.assertIs(self.choose(), self.a)
        self.scheduler = self.make(pipelining=False)
        self.assertIsNone(self.choose())

    def test_behind_a_write(self) -> None:
        """What follows an unread write goes behind it, though others are idle; who needs one alone waits."""
        self.use(self.a, 0.5)
        self.unread.sent(self.a)
        self.assertIs(self.choose(), self.a)
        self.assertIsNone(self.choose(exclusive=True))
        self.assertIs(self.choose(copy=True), self.c)

    def test_write_on_an_idle_one(self) -> None:
        """If nothing else is in flight on the write's connection, even who needs one alone takes that."""
        self.unread.sent(self.a)
        self.assertIs(self.choose(exclusive=True), self.a)
        self.assertEqual(self.roster.idle, [self.b, self.c])

    def test_write_on_one_that_takes_nothing(self) -> None:
        """A connection that takes nothing more is followed by nobody; nor is a busy one without pipelining."""
        self.use(self.a, math.inf)
        self.unread.sent(self.a)
        self.assertIs(self.choose(), self.c)
        self.a.expected_wait = 0.1
        self.scheduler = self.make(pipelining=False)
        self.assertIs(self.choose(), self.b)


class SharingTests(PoolTestCase):
    """Several operations on one connection."""

    def test_idle_comes_first(self) -> None:
        """While a connection is idle none is shared."""
        self.make()
        first, second = self.work(count=2, exclusive=True)
        wire_of(first).reply()
        wire_of(second).reply()
        a, b = self.movable(2)
        self.assertIsNot(a.connection, b.connection)

    def test_short_requests_share(self) -> None:
        """Requests that are short at the server are put one behind the other."""
        pool = self.make()
        self.learn("find", 0.0001)
        work = self.movable(5)
        self.assertEqual(pool.total_count, 1)
        self.wires[0].reply(5)
        self.assertEqual([each.result for each in work], ["answered"] * 5)
        self.assertEqual(pool.available_count, 1)

    def test_long_requests_do_not(self) -> None:
        """Requests that are long at the server are given a connection each, up to maxPoolSize, and then share."""
        pool = self.make(max_pool_size=3)
        self.learn("find", 0.005)
        self.movable(4)
        self.assertEqual(pool.total_count, 3)
        self.assertEqual(sorted(len(wire.received) - (wire is self.wires[0]) for wire in self.wires.wires), [1, 1, 2])

    def test_immovable_waits_for_an_idle_one(self) -> None:
        """What cannot be moved waits for another connection rather than behind what may be long."""
        self.make()
        self.movable()
        self.wires.at_once = False
        (ping,) = self.work("ping", bounded=True)
        self.assertIsNone(ping.connection)
        self.wires.open()
        self.assertEqual(self.wires[1].received, ["ping"])

    def test_whichever_comes_first(self) -> None:
        """While another connection is being opened, one that comes free serves whoever waits."""
        pool = self.make()
        self.movable()
        self.wires.at_once = False
        (ping,) = self.work("ping")
        self.wires[0].reply()
        self.assertEqual(self.wires[0].received, ["find", "ping"])
        self.assertEqual(pool.opening_count, 1)
        self.wires.open()
        self.assertEqual(pool.available_count, 1)
        self.assertIsNotNone(ping.connection)

    def test_immovable_behind_short_ones(self) -> None:
        """What cannot be moved shares with requests that are known to be short."""
        pool = self.make()
        self.learn("ping", 0.0001)
        self.work("ping", 3, bounded=True)
        self.assertEqual(pool.total_count, 1)

    def test_exclusive(self) -> None:
        """Nothing is put behind a request that has its connection alone, nor is that put behind another."""
        pool = self.make(max_pool_size=2)
        self.learn("find", 0.0001)
        (tail,) = self.work("getMore", exclusive=True)
        self.assertIsNone(pool.check_out_now(CheckOut("getMore", exclusive=True)))
        finds = self.movable(2)
        self.assertIs(finds[0].connection, finds[1].connection)
        self.assertIsNot(finds[0].connection, tail.connection)

    def test_order_of_those_who_wait(self) -> None:
        """Who waits is served in order, and nobody who comes later goes before."""
        pool = self.make(max_pool_size=1)
        self.learn("find", 0.0001)
        self.movable()
        (alone,) = self.work("getMore", exclusive=True)
        (late,) = self.movable()
        self.assertEqual((alone.connection, late.connection, pool.waiting_count), (None, None, 2))
        self.wires[0].reply()
        self.assertIsNone(late.connection)
        self.wires[0].reply()
        self.assertEqual(self.wires[0].received[1:], ["find", "getMore", "find"])

    def test_expected_service_time(self) -> None:
        """The pool learns how long the server takes for each kind of request."""
        pool = self.make()
        unknown = pool.expected_service_time("insert:majority")
        self.learn("insert:majority", 0.006)
        self.assertEqual(unknown, 0.00025)
        self.assertAlmostEqual(pool.expected_service_time("insert:majority"), 0.006, places=5)

    def test_way_is_not_service(self) -> None:
        """The way to the server and back does not count as its time, nor does waiting behind others."""
        pool = self.make()
        pool.rtt = 0.050
        self.assertEqual(pool.rtt, 0.050)
        self.movable(3)
        self.clock.advance(0.053)
        self.wires[0].reply()
        self.assertAlmostEqual(pool.expected_service_time("find"), 0.003, places=5)
        self.clock.advance(0.003)
        self.wires[0].reply()
        self.assertAlmostEqual(pool.expected_service_time("find"), 0.003, places=5)

    def test_expected_wait(self) -> None:
        """A connection's expected wait is the sum over what is in flight, and returns to nothing."""
        pool = self.make()
        self.learn("find", 0.0002)
        work = self.movable(3)
        connection = work[0].connection
        assert connection is not None
        self.assertAlmostEqual(connection.expected_wait, 0.0006, places=5)
        self.wires[0].reply()
        self.assertAlmostEqual(connection.expected_wait, 0.0004, places=5)
        self.wires[0].reply(2)
        self.assertEqual(connection.expected_wait, 0.0)
        self.assertEqual(pool.operation_count, 0)

    def test_stalled_is_passed_over(self) -> None:
        """Nothing is put behind a stalled request while another connection may be opened."""
        self.make()
        (slow,) = self.movable()
        self.pass_time(STALL)
        (other,) = self.movable()
        self.assertIsNot(other.connection, slow.connection)

    def test_progress_is_no_stall(self) -> None:
        """A pipeline whose replies keep coming is not stalled, however old its requests are."""
        pool = self.make(max_pool_size=1)
        self.learn("find", 0.0001)
        work = self.movable(8)
        for _ in range(8):
            self.clock.advance(0.015)
            self.wires[0].reply()
        self.assertEqual([each.result for each in work], ["answered"] * 8)
        self.assertEqual(len(self.wires[0].received), 9)
        self.assertEqual(pool.total_count, 1)

    def test_all_stalled_and_full(self) -> None:
        """With every connection stalled and no more allowed, one waits, and is served by the first reply."""
        pool = self.make(max_pool_size=1)
        self.work()
        self.pass_time(STALL)
        (late,) = self.work()
        self.assertEqual(pool.waiting_count, 1)
        self.wires[0].reply()
        self.assertIsNotNone(late.connection)
