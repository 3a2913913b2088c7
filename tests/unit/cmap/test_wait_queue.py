"""Tests of the wait queue by itself: its order, its clocks, and how its users are refused."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.wait_queue import Crowd, Refusals, Waiter, WaitQueue
from txmongo._deferreds import Deadline


class WaitQueueTests(SynchronousTestCase):
    """Who waits, and for how long."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.crowd = Crowd(2)
        self.opening = 0
        self.late: list[Waiter] = []
        self.queue = WaitQueue(self.crowd, self.clock, opening=lambda: self.opening, timed_out=self.late.append)

    def wait(self, deadline: Deadline = Deadline.never, original: CheckOut | None = None) -> Waiter:
        """One that is not in the queue yet."""
        told: Deferred[Connection] | None = Deferred() if original is None else None
        return Waiter(CheckOut("find"), 0.0, told, original, deadline, counted=original is None)

    def test_order(self) -> None:
        """Who came first is first; second copies are before all others, in their own order, and are not told."""
        first, second = self.wait(), self.wait()
        self.queue.append(first)
        self.queue.append(second)
        copies = [self.wait(original=CheckOut("find")) for _ in range(2)]
        self.queue.push_front(copies)
        self.assertEqual(self.queue.all(), [*copies, first, second])
        self.assertIs(self.queue.first(), copies[0])
        self.assertIs(self.queue.first_told(), first)

    def test_copies(self) -> None:
        """A second copy is found by its original, once."""
        original = CheckOut("find")
        copy = self.wait(original=original)
        self.queue.push_front([copy])
        self.assertIs(self.queue.remove_copy_of(original), copy)
        self.assertIsNone(self.queue.remove_copy_of(original))
        self.assertEqual(len(self.queue), 0)

    def test_crowd(self) -> None:
        """Those that count are counted while they wait, in all queues of the client."""
        other = WaitQueue(self.crowd, self.clock, opening=int, timed_out=self.late.append)
        waiters = self.wait(), self.wait()
        self.queue.append(waiters[0])
        self.assertFalse(self.crowd.full)
        other.append(waiters[1])
        self.queue.push_front([self.wait(original=CheckOut("find"))])
        self.assertTrue(self.crowd.full)
        self.queue.remove(waiters[0].request)
        self.queue.remove(waiters[0].request)
        self.assertEqual(self.crowd.waiting, 1)

    def test_time_limit(self) -> None:
        """One waits for waitQueueTimeoutMS or until its deadline, whichever comes first; without either, for ever."""
        for deadline, wait, due in (
            (Deadline.never, 2.0, 2.0),
            (Deadline(5.0), 2.0, 2.0),
            (Deadline(1.0), 2.0, 1.0),
            (Deadline(1.0), None, 1.0),
            (Deadline.never, None, None),
        ):
            waiter = self.wait(deadline)
            self.queue.append(waiter)
            self.queue.limit_time(waiter, wait)
            calls = self.clock.getDelayedCalls()
            self.assertEqual([call.getTime() for call in calls], [] if due is None else [due])
            self.queue.remove(waiter.request)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_opening(self) -> None:
        """Time is not up for one for whom a connection is being opened, but at its deadline it is."""
        first, second = self.wait(Deadline(5.0)), self.wait()
        for waiter in (first, second):
            self.queue.append(waiter)
            self.queue.limit_time(waiter, 2.0)
        self.opening = 1
        self.clock.advance(2.0)
        self.assertEqual(self.late, [second])
        self.queue.remove(second.request)
        self.clock.pump([2.0, 1.0])
        self.assertEqual(self.late, [second, first])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RefusalsTests(SynchronousTestCase):
    """Failures that are told later."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.refusals = Refusals(self.clock)
        self.waiting: list[Deferred[Connection]] = [Deferred(), Deferred()]
        for deferred in self.waiting:
            self.refusals.add(deferred, Failure(ValueError()))
        self.assertNoResult(self.waiting[0])

    def test_soon(self) -> None:
        """They are told in the next turn of the reactor, but for one who has given up meanwhile."""
        self.waiting[0].cancel()
        self.clock.advance(0)
        self.failureResultOf(self.waiting[0], CancelledError)
        self.failureResultOf(self.waiting[1], ValueError)

    def test_now(self) -> None:
        """They may be told at once; nothing is left to be told, then or later."""
        self.refusals.tell()
        self.refusals.tell()
        for deferred in self.waiting:
            self.failureResultOf(deferred, ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
