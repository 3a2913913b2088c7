"""Those who wait for a connection, in order; how many of a client may wait; how they are told that they wait in vain.

Only the order, each one's time limit, the count and the telling live here; who is served, and with what, is the pool's.
CMAP specification, "WaitQueue": ordered, fair, and left at once when the time is up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._deferreds import Deadline

__all__ = ["Crowd", "Refusals", "WaitQueue", "Waiter"]


@attrs.define(eq=False)
class Waiter:
    """One request in the wait queue.

    :ivar deferred: what to tell; ``None`` for a second copy, which is told by its ``resend``.
    :ivar original: the request that this is the second copy of.
    :ivar deadline: when its waiting ends in any case.
    :ivar time_limit: the delayed call that ends the waiting.
    :ivar counted: it is one of its client's :class:`Crowd`.
    """

    request: CheckOut
    started_at: float
    deferred: Deferred[Connection] | None = None
    original: CheckOut | None = None
    deadline: Deadline = Deadline.never
    time_limit: IDelayedCall | None = None
    counted: bool = False


class Crowd:
    """How many operations of one client wait, for a server or for a connection, and how many may.

    An operation that is tried again is never refused and not counted: it has been under way before. Thus one that was
    let in to wait for a server is never refused when it has to wait for a connection too.

    :ivar limit: how many may wait: ``waitQueueSize``.
    :ivar waiting: how many do.
    """

    __slots__ = ("limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.waiting >= self.limit

    def __repr__(self) -> str:
        return f"<Crowd {self.waiting} of {self.limit}>"


class WaitQueue:
    """The waiting requests, the one to be served next first. Every way out of it stops that one's clock."""

    def __init__(
        self,
        crowd: Crowd,
        clock: IReactorTime,
        *,
        opening: Callable[[], int],
        timed_out: Callable[[Waiter], None],
    ) -> None:
        """
        :param opening: how many connections are being opened; each is for one of the first who wait.
        :param timed_out: called with one whose time is up, and who is still in the queue.
        """
        self._crowd = crowd
        self._clock = clock
        self._opening = opening
        self._timed_out = timed_out
        self._waiters: OrderedDict[CheckOut, Waiter] = OrderedDict()
        #: A moved request -> its second copy.
        self._copies: dict[CheckOut, CheckOut] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def first(self) -> Waiter | None:
        """The one to be served next."""
        return next(iter(self._waiters.values()), None)

    def first_told(self) -> Waiter | None:
        """The first that is no second copy: the one who is told when a connection could not be opened."""
        return next((waiter for waiter in self._waiters.values() if waiter.deferred is not None), None)

    def all(self) -> list[Waiter]:
        """All, in their order."""
        return list(self._waiters.values())

    def append(self, waiter: Waiter) -> None:
        """Let one wait, after all others."""
        self._crowd.waiting += waiter.counted
        self._waiters[waiter.request] = waiter

    def push_front(self, waiters: list[Waiter]) -> None:
        """Let second copies wait before all others, in their order."""
        for waiter in reversed(waiters):
            assert waiter.original is not None
            self._copies[waiter.original] = waiter.request
            self._waiters[waiter.request] = waiter
            self._waiters.move_to_end(waiter.request, last=False)

    def remove(self, request: CheckOut) -> Waiter | None:
        """Take one out; ``None`` if it does not wait here."""
        waiter = self._waiters.pop(request, None)
        if waiter is None:
            return None
        self._crowd.waiting -= waiter.counted
        if waiter.original is not None:
            del self._copies[waiter.original]
        if waiter.time_limit is not None and waiter.time_limit.active():
            waiter.time_limit.cancel()
        return waiter

    def remove_copy_of(self, original: CheckOut) -> Waiter | None:
        """Take the second copy of a request out, if it waits here."""
        copy = self._copies.get(original)
        return None if copy is None else self.remove(copy)

    def limit_time(self, waiter: Waiter, wait: float | None) -> None:
        """Let one wait until its deadline, and if it is not served soon only for ``wait`` seconds.

        ``wait`` is ``waitQueueTimeoutMS``: once it is over it does not hold for one for whom a connection is being
        opened.
        """
        remaining = waiter.deadline.remaining(self._clock.seconds())
        if wait is not None and (remaining is None or wait < remaining):
            waiter.time_limit = self._clock.callLater(wait, self._waited_long, waiter, wait)
        elif remaining is not None:
            waiter.time_limit = self._clock.callLater(remaining, self._timed_out, waiter)

    def _waited_long(self, waiter: Waiter, wait: float) -> None:
        if waiter in islice(self._waiters.values(), self._opening()):
            self.limit_time(waiter, wait)
        else:
            self._timed_out(waiter)


class Refusals:
    """Failures that are told in the next turn of the reactor.

    A pool is cleared while the callbacks of the operation run that met the error. If others heard of it inside of them,
    one who then awaits that operation would get what its Deferred happens to hold between two of its callbacks.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pending: list[tuple[Deferred[Connection], Failure]] = []
        self._call: IDelayedCall | None = None

    def add(self, deferred: Deferred[Connection], failure: Failure) -> None:
        """Let one fail soon, unless it was cancelled by then."""
        self._pending.append((deferred, failure))
        if self._call is None:
            self._call = self._clock.callLater(0, self._due)

    def tell(self) -> None:
        """Tell all now; afterwards no delayed call is left."""
        if self._call is not None:
            self._call.cancel()
            self._due()

    def _due(self) -> None:
        self._call = None
        pending, self._pending = self._pending, []
        for deferred, failure in pending:
            if not deferred.called:
                deferred.errback(failure)
