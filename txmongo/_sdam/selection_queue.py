"""The operations that wait for a server: server selection specification, "Server Selection Algorithm".

Only that they wait, each until its time is over, and how they are told lives here. Which server suits, and that servers
are checked while somebody waits, is the topology's (:mod:`txmongo._sdam.topology`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmongo._cmap.wait_queue import Crowd
from txmongo._deferreds import Deadline
from txmongo._sdam.server import Server

if TYPE_CHECKING:
    from txmongo.types import Address

__all__ = ["SelectionQueue", "Waiter"]


class Waiter:
    """An operation that waits for a server."""

    __slots__ = (
        "address",
        "again",
        "allow_ghost",
        "deferred",
        "deprioritized",
        "operation",
        "selector",
        "started",
        "timer",
    )

    def __init__(
        self,
        selector: Any,
        deprioritized: Collection[Address],
        address: Address | None,
        operation: str,
        allow_ghost: bool,
        again: bool,
        started: float,
    ) -> None:
        self.selector = selector
        self.deprioritized = deprioritized
        self.address = address
        self.operation = operation
        self.allow_ghost = allow_ghost
        self.again = again
        self.started = started
        self.timer: IDelayedCall | None = None
        self.deferred: Deferred[Server]


class SelectionQueue:
    """Those who wait, in the order in which they came. Who is told may at once let others in, or end their waiting."""

    def __init__(
        self,
        crowd: Crowd,
        clock: IReactorTime,
        *,
        find: Callable[[Waiter], Server | None],
        timed_out: Callable[[Waiter], Exception],
    ) -> None:
        """
        :param crowd: those of the client who wait.
        :param find: the server for one who waits, if there is one by now; what it raises reaches that one.
        :param timed_out: the error for one whose time is over.
        """
        self._crowd = crowd
        self._clock = clock
        self._find = find
        self._timed_out = timed_out
        self._waiters: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def wait(self, waiter: Waiter, limit: Deadline) -> Deferred[Server]:
        """Let one wait.

        :param limit: until when; without one, for as long as it takes.
        :returns: a Deferred that fires with the server; cancelling it ends the wait. It fails with the error of
            ``timed_out`` when the time is over, with what ``find`` raises, and with that of :meth:`fail`.
        """
        remaining = limit.remaining(waiter.started)
        waiter.deferred = Deferred(partial(self._cancelled, waiter))
        self._waiters[waiter] = None
        self._crowd.waiting += not waiter.again
        if remaining is not None:
            waiter.timer = self._clock.callLater(remaining, self._give_up, waiter)
        return waiter.deferred

    def serve(self) -> None:
        """Give a server to each one for whom there is one now."""
        for waiter in list(self._waiters):
            if waiter not in self._waiters:
                continue
            try:
                server = self._find(waiter)
            except Exception:
                self._forget(waiter)
                waiter.deferred.errback(Failure())
                continue
            if server is not None:
                self._forget(waiter)
                waiter.deferred.callback(server)

    def fail(self, error: BaseException) -> None:
        """Tell everyone who waits that there will be no server."""
        for waiter in list(self._waiters):
            if self._forget(waiter):
                waiter.deferred.errback(Failure(error))

    def _give_up(self, waiter: Waiter) -> None:
        waiter.timer = None
        self._forget(waiter)
        waiter.deferred.errback(self._timed_out(waiter))

    def _cancelled(self, waiter: Waiter, _deferred: Deferred[Server]) -> None:
        self._forget(waiter)

    def _forget(self, waiter: Waiter) -> bool:
        """Take one who waits off the list; returns false if somebody did already."""
        if waiter not in self._waiters:
            return False
        del self._waiters[waiter]
        self._crowd.waiting -= not waiter.again
        timer, waiter.timer = waiter.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        return True
