"""Tests of the wait queue by itself: its order, its clocks, its events, and how its users are refused."""

from __future__ import annotations

from typing import Any

from pymongo.monitoring import ConnectionCheckOutFailedReason
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import Recorder
from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.errors import CheckOutTimeoutError
from txmongo._cmap.events import publisher_for
from txmongo._cmap.wait_queue import Crowd, Refusals, Waiter, WaitQueue
from txmongo._deferreds import Deadline
from txmongo.errors import AutoReconnect

NEVER = Deadline.never


class WaitQueueTests(SynchronousTestCase):
    """Who waits, and for how long."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.crowd = Crowd(2)
        self.recorder = Recorder()
        self.opening = 0
        #: What the pool hears: the requests that have left, and a word for each time that one has done so by itself.
        self.heard: list[Any] = []
        self.queue = self.make()

    def make(self) -> WaitQueue:
        return WaitQueue(
            self.crowd,
            self.clock,
            publisher_for([self.recorder], ("h", 1), None),
            opening=lambda: self.opening,
            time_is_up=self.time_is_up,
            left=lambda waiter: self.heard.append(waiter.request),
            given_up=lambda: self.heard.append("given up"),
        )

    def time_is_up(self) -> CheckOutTimeoutError:
        """The error, made while the one whose time is up still waits."""
        return CheckOutTimeoutError(("h", 1), max_pool_size=1, in_use=1, opening=0, waiting=len(self.queue) - 1)

    def wait(
        self, deadline: Deadline = NEVER, limit: float | None = None, *, counted: bool = True
    ) -> tuple[CheckOut, Deferred[Connection]]:
        """One that waits."""
        request = CheckOut("find")
        return request, self.queue.wait(request, self.clock.seconds(), deadline, limit, counted=counted)

    def copy(self) -> Waiter:
        """A second copy, that is not in the queue yet."""
        return Waiter(CheckOut("find"), self.clock.seconds(), original=CheckOut("find"))

    def failed(self) -> list[tuple[str, float]]:
        """Why check-outs failed, by the events, and after how many seconds."""
        return [(event.reason, event.duration) for name, event in self.recorder.events if name == "failed"]

    def nobody_left(self) -> None:
        """Nobody waits, nobody is counted, and no delayed call is left."""
        self.assertEqual((len(self.queue), self.crowd.waiting, self.clock.getDelayedCalls()), (0, 0, []))

    def test_order(self) -> None:
        """Who came first is first; second copies are before all others, in their own order, and are not told."""
        (first, _), (second, _) = self.wait(), self.wait()
        copies = [self.copy(), self.copy()]
        self.queue.push_front(copies)
        waiting = [waiter.request for waiter in self.queue.all()]
        self.assertEqual(waiting, [copies[0].request, copies[1].request, first, second])
        self.assertIs(self.queue.first(), copies[0])
        told = self.queue.first_told()
        assert told is not None
        self.assertIs(told.request, first)

    def test_copies(self) -> None:
        """A second copy that is not needed leaves, once, and its check-out has failed."""
        copy = self.copy()
        assert copy.original is not None
        self.queue.push_front([copy])
        self.clock.advance(2.0)
        for _ in range(2):
            self.queue.refuse_copy_of(copy.original)
        self.assertEqual(self.heard, [copy.request])
        self.assertEqual(self.failed(), [(ConnectionCheckOutFailedReason.CONN_ERROR, 2.0)])
        self.nobody_left()

    def test_served(self) -> None:
        """Who is served leaves without an event; the pool hears of it, to tell them itself."""
        request, waiting = self.wait(Deadline(5.0))
        waiter = self.queue.remove(request)
        assert waiter is not None and waiter.deferred is waiting
        self.assertIsNone(self.queue.remove(request))
        self.assertEqual((self.heard, self.failed()), ([request], []))
        self.assertNoResult(waiting)
        self.nobody_left()

    def test_crowd(self) -> None:
        """Those that count are counted while they wait, in all queues of the client."""
        other = self.make()
        request, _ = self.wait()
        self.assertFalse(self.crowd.full)
        other.wait(CheckOut("find"), 0.0, NEVER, None, counted=True)
        self.queue.push_front([self.copy()])
        self.wait(counted=False)
        self.assertEqual((self.crowd.waiting, self.crowd.full), (2, True))
        self.queue.remove(request)
        self.queue.remove(request)
        self.assertEqual(self.crowd.waiting, 1)

    def test_time_limit(self) -> None:
        """One waits for waitQueueTimeoutMS or until its deadline, whichever comes first; without either, for ever."""
        for deadline, limit, due in (
            (NEVER, 2.0, 2.0),
            (Deadline(5.0), 2.0, 2.0),
            (Deadline(1.0), 2.0, 1.0),
            (Deadline(1.0), None, 1.0),
            (NEVER, None, None),
        ):
            request, _ = self.wait(deadline, limit)
            calls = self.clock.getDelayedCalls()
            self.assertEqual([call.getTime() for call in calls], [] if due is None else [due])
            self.queue.remove(request)
            self.nobody_left()

    def test_opening(self) -> None:
        """Time is not up for one for whom a connection is being opened, but at its deadline it is."""
        (first, served), (second, late) = self.wait(Deadline(5.0), 2.0), self.wait(limit=2.0)
        self.opening = 1
        self.clock.advance(2.0)
        error = self.failureResultOf(late, CheckOutTimeoutError).value
        self.assertIn("operations still waiting: 1", str(error))
        self.assertEqual(self.heard, [second, "given up"])
        self.assertEqual(self.failed(), [(ConnectionCheckOutFailedReason.TIMEOUT, 2.0)])
        self.clock.pump([2.0, 1.0])
        self.failureResultOf(served, CheckOutTimeoutError)
        self.assertEqual(self.heard[2:], [first, "given up"])
        self.nobody_left()

    def test_time_is_up_when_cancelled(self) -> None:
        """One whose time is up may be cancelled by a listener that hears of it first."""
        _, waiting = self.wait(limit=2.0)
        self.recorder.connection_check_out_failed = lambda event: waiting.cancel()  # type: ignore[method-assign]
        self.clock.advance(2.0)
        self.failureResultOf(waiting, CancelledError)
        self.nobody_left()

    def test_cancel(self) -> None:
        """Who is cancelled leaves, which is told to listeners and to the pool; who has left already, does nothing."""
        request, waiting = self.wait(Deadline(5.0))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.heard, [request, "given up"])
        self.assertEqual(len(self.failed()), 1)
        self.nobody_left()
        request, waiting = self.wait()
        self.queue.remove(request)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((self.heard[2:], len(self.failed())), ([request], 1))

    def test_refuse(self) -> None:
        """Who gets no connection leaves at once, and is told by who refuses it, or soon."""
        _, waiting = self.wait()
        waiter = self.queue.first_told()
        assert waiter is not None
        self.queue.refuse(waiter, AutoReconnect("no"))
        self.assertEqual([reason for reason, _ in self.failed()], [ConnectionCheckOutFailedReason.CONN_ERROR])
        self.assertNoResult(waiting)
        self.queue.tell_soon(waiter, Failure(AutoReconnect("no")))
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.failureResultOf(waiting, AutoReconnect)
        self.nobody_left()

    def test_refuse_all(self) -> None:
        """All have left when the first event is published; each is told soon, or now, with an error of its own."""
        (first, waiting), (second, other) = self.wait(), self.wait(counted=False)
        copy = self.copy()
        self.queue.push_front([copy])
        lengths: list[int] = []
        self.recorder.connection_check_out_failed = (  # type: ignore[method-assign]
            lambda event: lengths.append(len(self.queue))
        )
        self.queue.refuse_all(lambda: AutoReconnect("cleared"))
        self.assertEqual((lengths, self.heard), ([0, 0, 0], [copy.request, first, second]))
        self.assertNoResult(waiting)
        self.queue.tell_now()
        errors = [self.failureResultOf(each, AutoReconnect).value for each in (waiting, other)]
        self.assertIsNot(*errors)
        self.nobody_left()


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
