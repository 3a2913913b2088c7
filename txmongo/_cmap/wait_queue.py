"""Those who wait for a connection, in order; how many of a client may wait; how they are told that they wait in vain.

Every way into the queue and out of it is here: the order, each one's time limit, the count, the telling and the events.
Who is served, and with what, is the pool's. CMAP specification, "WaitQueue": ordered, fair, and left at once when the
time is up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import islice

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.events import PoolPublisher
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
        events: PoolPublisher | None,
        *,
        opening: Callable[[], int],
        time_is_up: Callable[[], Exception],
        left: Callable[[Waiter], None],
        given_up: Callable[[], None],
    ) -> None:
        """
        :param opening: how many connections are being opened; each is for one of the first who wait.
        :param time_is_up: the error for one whose time is up, and who is still in the queue.
        :param left: called with each one that has left the queue, before anyone is told of it.
        :param given_up: called when one has left by itself: the next one may be easier to serve.
        """
        self._crowd = crowd
        self._clock = clock
        self._events = events
        self._opening = opening
        self._time_is_up = time_is_up
        self._left = left
        self._given_up = given_up
        self._refusals = Refusals(clock)
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

    def wait(
        self, request: CheckOut, now: float, deadline: Deadline, limit: float | None, *, counted: bool
    ) -> Deferred[Connection]:
        """Let one wait, after all others.

        :param now: when it began to wait.
        :param deadline: when its waiting ends in any case.
        :param limit: seconds after which it ends unless a connection is being opened for it; ``waitQueueTimeoutMS``.
        :param counted: it is one of its client's :class:`Crowd`.
        :returns: a Deferred for who serves it; cancelling it ends the wait. It fails with the error of ``time_is_up``
            when that is so, and as who serves it says.
        """
        deferred: Deferred[Connection] = Deferred(partial(self._cancelled, request))
        waiter = self._waiters[request] = Waiter(request, now, deferred, deadline=deadline, counted=counted)
        self._crowd.waiting += counted
        self._limit_time(waiter, limit)
        return deferred

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
        self._left(waiter)
        return waiter

    def refuse(self, waiter: Waiter, error: BaseException) -> None:
        """Take one out who gets no connection; to tell that one is left to do."""
        self.remove(waiter.request)
        self._publish_failure(waiter, error)

    def refuse_copy_of(self, original: CheckOut) -> None:
        """Take the second copy of a request out, if it waits here: it is not needed any more."""
        copy = self._copies.get(original)
        if copy is not None:
            self.refuse(self._waiters[copy], CancelledError())

    def refuse_all(self, reason: Callable[[], Exception]) -> None:
        """Let all leave; each is told soon, with an error of its own."""
        waiters = self.all()
        for waiter in waiters:
            self.remove(waiter.request)
        for waiter in waiters:
            error = reason()
            self._publish_failure(waiter, error)
            self.tell_soon(waiter, Failure(error))

    def tell_soon(self, waiter: Waiter, failure: Failure) -> None:
        """Tell one that has left why, in the next turn of the reactor."""
        if waiter.deferred is not None:
            self._refusals.add(waiter.deferred, failure)

    def tell_now(self) -> None:
        """Tell all that were to be told soon; afterwards nothing of that is left."""
        self._refusals.tell()

    def _publish_failure(self, waiter: Waiter, error: BaseException) -> None:
        if self._events is not None:
            self._events.check_out_failed(error, self._clock.seconds() - waiter.started_at)

    def _cancelled(self, request: CheckOut, _deferred: Deferred[Connection]) -> None:
        waiter = self._waiters.get(request)
        if waiter is not None:
            self.refuse(waiter, CancelledError())
            self._given_up()

    def _limit_time(self, waiter: Waiter, limit: float | None) -> None:
        """Let one wait until its deadline, and if it is not served soon only for ``limit`` seconds."""
        remaining = waiter.deadline.remaining(self._clock.seconds())
        if limit is not None and (remaining is None or limit < remaining):
            waiter.time_limit = self._clock.callLater(limit, self._waited_long, waiter, limit)
        elif remaining is not None:
            waiter.time_limit = self._clock.callLater(remaining, self._timed_out, waiter)

    def _waited_long(self, waiter: Waiter, limit: float) -> None:
        if waiter in islice(self._waiters.values(), self._opening()):
            self._limit_time(waiter, limit)
        else:
            self._timed_out(waiter)

    def _timed_out(self, waiter: Waiter) -> None:
        error = self._time_is_up()
        self.refuse(waiter, error)
        if waiter.deferred is not None and not waiter.deferred.called:
            waiter.deferred.errback(Failure(error))
        self._given_up()


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
