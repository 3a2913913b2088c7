"""``txmongo._deferreds``: deadlines and broadcasts on a clock that the test moves."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._deferreds import Broadcast, Countdown, Deadline, Pauses


class DeadlineTests(SynchronousTestCase):
    """A point in time that is passed down."""

    def test_after(self) -> None:
        """It lies so many seconds from now on its clock, and never leaves less than nothing."""
        clock = Clock()
        clock.advance(100)
        deadline = Deadline.after(clock, 2.5)
        self.assertEqual(deadline.at, 102.5)
        self.assertEqual(deadline.remaining(101), 1.5)
        self.assertEqual(deadline.remaining(110), 0)
        self.assertFalse(deadline.passed(102.4))
        self.assertTrue(deadline.passed(102.5))

    def test_never(self) -> None:
        """Without a time it never comes."""
        deadline = Deadline.after(Clock(), None)
        self.assertIs(deadline, Deadline.never)
        self.assertIs(deadline.remaining(1e9), None)
        self.assertFalse(deadline.passed(1e9))

    def test_earlier(self) -> None:
        """The earlier of two wins, and never loses to any."""
        early, late = Deadline(1.0), Deadline(2.0)
        self.assertIs(early.earlier(late), early)
        self.assertIs(late.earlier(early), early)
        self.assertIs(early.earlier(Deadline.never), early)
        self.assertIs(Deadline.never.earlier(early), early)


class PausesTests(SynchronousTestCase):
    """Waiting for time to pass."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pauses = Pauses(self.clock)

    def test_over(self) -> None:
        """A pause ends when its time has passed."""
        short, long = self.pauses.wait(1), self.pauses.wait(2)
        self.assertEqual(len(self.pauses), 2)
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(short))
        self.assertNoResult(long)
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(long))
        self.assertEqual(len(self.pauses), 0)

    def test_cancel(self) -> None:
        """One that is cancelled leaves no delayed call."""
        pause = self.pauses.wait(1)
        pause.cancel()
        self.failureResultOf(pause, CancelledError)
        self.assertEqual((len(self.pauses), self.clock.getDelayedCalls()), (0, []))

    def test_end(self) -> None:
        """Ended, all fail at once, but for those that are cancelled because another one fails; later ones too."""
        first, second = self.pauses.wait(1), self.pauses.wait(1)
        later: list[Deferred[None]] = []

        def failed(_: object) -> None:
            second.cancel()
            later.append(self.pauses.wait(1))

        first.addErrback(failed)
        self.pauses.end(ValueError)
        self.failureResultOf(second, CancelledError)
        self.failureResultOf(later[0], ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BroadcastTests(SynchronousTestCase):
    """Many waiters, none of whom shares a Deferred."""

    def test_fire(self) -> None:
        """All who wait are woken; who waits from then on waits for the next time."""
        broadcast = Broadcast()
        first, second = broadcast.wait(), broadcast.wait()
        self.assertEqual(len(broadcast), 2)
        later: list[Deferred[None]] = []
        first.addCallback(lambda _: later.append(broadcast.wait()))
        broadcast.fire()
        self.assertIs(self.successResultOf(second), None)
        self.assertNoResult(later[0])
        broadcast.fire()
        self.successResultOf(later[0])

    def test_cancel(self) -> None:
        """A waiter that gives up is forgotten and disturbs nobody."""
        broadcast = Broadcast()
        first, second = broadcast.wait(), broadcast.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(broadcast), 1)
        broadcast.fire()
        self.successResultOf(second)

    def test_cancelled_while_firing(self) -> None:
        """A waiter that another one cancels while both are being woken is passed over."""
        broadcast = Broadcast()
        first, second = broadcast.wait(), broadcast.wait()
        first.addCallback(lambda _: second.cancel())
        broadcast.fire()
        self.failureResultOf(second, CancelledError)


class CountdownTests(SynchronousTestCase):
    """A time limit that can stand still."""

    def setUp(self) -> None:
        """Nothing has ended yet."""
        self.clock = Clock()
        self.ended: list[float] = []

    def begin(self, seconds: float | None) -> Countdown:
        """One that tells when it ends."""
        return Countdown(self.clock, seconds, lambda: self.ended.append(self.clock.seconds()))

    def test_end(self) -> None:
        """It ends once, after its seconds."""
        countdown = self.begin(5)
        self.clock.advance(4.9)
        self.assertEqual(self.ended, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.ended), 1)
        countdown.stop()
        with countdown.paused():
            self.clock.advance(10)
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """Once it was stopped it does not end, nor go on after a pause."""
        countdown = self.begin(5)
        with countdown.paused():
            countdown.stop()
        countdown.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_paused(self) -> None:
        """Pauses do not count, an exception in one neither."""
        countdown = self.begin(5)
        self.clock.advance(3)
        with countdown.paused():
            self.clock.advance(100)
            self.assertEqual(self.clock.getDelayedCalls(), [])
        with self.assertRaises(KeyError), countdown.paused():
            raise KeyError
        self.clock.advance(1.9)
        self.assertEqual(self.ended, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.ended), 1)

    def test_no_limit(self) -> None:
        """Without seconds there is nothing to end."""
        countdown = self.begin(None)
        with countdown.paused():
            self.clock.advance(100)
        countdown.stop()
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([], []))
