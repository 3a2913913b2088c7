"""The queue of operations that wait for a server: who is served, who is told what, and that nothing is left of them."""

from __future__ import annotations

from typing import Any

from pymongo.server_description import ServerDescription
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, B, FakePool
from txmongo._cmap.wait_queue import Crowd
from txmongo._deferreds import Deadline
from txmongo._sdam.selection_queue import SelectionQueue, Waiter
from txmongo._sdam.server import Server
from txmongo.errors import AutoReconnect


class SelectionQueueTests(SynchronousTestCase):
    """Some wait, and servers are found or not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.crowd = Crowd(10)
        #: What is found for each selector, which is a word here: a server, or an error.
        self.found: dict[str, Server | Exception] = {}
        self.asked: list[str] = []
        self.queue = SelectionQueue(self.crowd, self.clock, find=self.find, timed_out=self.timed_out)

    def find(self, waiter: Waiter) -> Server | None:
        self.asked.append(waiter.selector)
        found = self.found.get(waiter.selector)
        if isinstance(found, Exception):
            raise found
        return found

    def timed_out(self, waiter: Waiter) -> Exception:
        return AutoReconnect(f"no server for {waiter.operation}")

    def server(self, address: Any = A) -> Server:
        pool: Any = FakePool(address, [])
        return Server(address, ServerDescription(address), pool, None)

    def wait(self, selector: str, limit: Deadline = Deadline.never, *, again: bool = False) -> Deferred[Server]:
        waiter = Waiter(selector, (), None, f"operation of {selector}", False, again, self.clock.seconds())
        return self.queue.wait(waiter, limit)

    def nobody_left(self) -> None:
        """Nobody waits, nobody is counted, and no delayed call is left."""
        self.assertEqual((len(self.queue), self.crowd.waiting, self.clock.getDelayedCalls()), (0, 0, []))

    def test_served(self) -> None:
        """Each one for whom there is a server gets it, in the order in which they came; the others go on waiting."""
        waiting = {name: self.wait(name, Deadline.after(self.clock, 5)) for name in ("first", "other", "last")}
        self.found = {"first": self.server(), "last": self.server(B)}
        self.queue.serve()
        self.assertEqual(self.asked, ["first", "other", "last"])
        self.assertIs(self.successResultOf(waiting["first"]), self.found["first"])
        self.assertIs(self.successResultOf(waiting["last"]), self.found["last"])
        self.assertNoResult(waiting["other"])
        self.assertEqual((len(self.queue), self.crowd.waiting, len(self.clock.getDelayedCalls())), (1, 1, 1))
        waiting["other"].cancel()
        self.failureResultOf(waiting["other"], CancelledError)
        self.nobody_left()

    def test_find_raises(self) -> None:
        """What is raised when a server is looked for reaches the one for whom it was, and nobody else."""
        bad, good = self.wait("bad"), self.wait("good")
        self.found = {"bad": ZeroDivisionError(), "good": self.server()}
        self.queue.serve()
        self.failureResultOf(bad, ZeroDivisionError)
        self.successResultOf(good)
        self.nobody_left()

    def test_time_limit(self) -> None:
        """Whose time is over is told so, and whose limit is later waits on."""
        short, long = (
            self.wait(name, Deadline.after(self.clock, limit)) for name, limit in (("short", 1), ("long", 2))
        )
        self.clock.advance(1)
        self.assertEqual(
            self.failureResultOf(short, AutoReconnect).getErrorMessage(), "no server for operation of short"
        )
        self.assertNoResult(long)
        self.clock.advance(1)
        self.failureResultOf(long, AutoReconnect)
        self.nobody_left()

    def test_no_time_limit(self) -> None:
        """Without a limit one waits for ever."""
        waiting = self.wait("any")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.found["any"] = self.server()
        self.queue.serve()
        self.successResultOf(waiting)

    def test_time_over_and_others(self) -> None:
        """Who hears that the time is over may end the waiting of all others, and is not told a second time."""
        first, second = self.wait("any", Deadline.after(self.clock, 1)), self.wait("any")
        first.addErrback(lambda _: self.queue.fail(AutoReconnect("closed")))
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(first))
        self.failureResultOf(second, AutoReconnect)
        self.nobody_left()

    def test_fail(self) -> None:
        """All are told; who came for another try of an operation was not counted and is told as well."""
        waiting = [self.wait("any", Deadline.after(self.clock, 5)), self.wait("any", again=True)]
        self.assertEqual(self.crowd.waiting, 1)
        self.queue.fail(AutoReconnect("closed"))
        for each in waiting:
            self.failureResultOf(each, AutoReconnect)
        self.nobody_left()

    def test_cancelled_by_another(self) -> None:
        """One who is served, or told that it was in vain, may end the waiting of the one who would be next."""
        for serves in (True, False):
            self.found = {"any": self.server()}
            first, second = self.wait("any"), self.wait("any")
            first.addBoth(lambda _, second=second: second.cancel())
            if serves:
                self.queue.serve()
            else:
                self.queue.fail(AutoReconnect("closed"))
            self.assertIsNone(self.successResultOf(first))
            self.failureResultOf(second, CancelledError)
            self.nobody_left()

    def test_newcomer(self) -> None:
        """Who begins to wait while others are served is served the next time."""
        later: list[Deferred[Server]] = []
        self.found = {"any": self.server()}
        self.wait("any").addCallback(lambda _: later.append(self.wait("any")))
        self.queue.serve()
        self.assertNoResult(later[0])
        self.queue.serve()
        self.successResultOf(later[0])
        self.nobody_left()
