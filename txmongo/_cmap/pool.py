"""The pool of connections to one server: Connection Monitoring And Pooling specification.

Lives here: the check-out and check-in of connections, and when each is retired. Not here: which connection a request
takes (:mod:`txmongo._cmap.scheduling`, by the rules of :mod:`~txmongo._cmap.choice`), which connections there are
(:mod:`~txmongo._cmap.roster`), when more are opened (:mod:`~txmongo._cmap.growth`, :mod:`~txmongo._cmap.opening`),
those who wait for one (:mod:`~txmongo._cmap.wait_queue`), how long the server takes
(:mod:`~txmongo._cmap.service_times`), the look-out for stalled connections (:mod:`~txmongo._cmap.watch`) and for idle
ones (:mod:`~txmongo._cmap.maintenance`), what is done about stalled ones (:mod:`~txmongo._cmap.stalls`), and what the
topology concludes from an error: it is told by a callback.

Unlike the specification's, a connection may be *shared*: several requests may be out on it at once, in flight one
behind the other. With ``pipelining=False`` it is used as the specification says. There are two kinds of pool. The
growing one opens connections as they are needed. The fixed one (``pool_size``) keeps just so many open, deals them out
in turn and lets everything be sent in the order of the calls.

Inside, two rules keep re-entrance harmless. Deferreds are fired, listeners called and requests sent again only when the
pool's state is complete. And who waits hears of another's error only when that one's callbacks are over.

The module is longer than others because these two rules hold for the class as a whole: to give out, to take back, to
open, to retire and to clear are steps that end in one another. What could be taken out of them has modules of its own.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from bson.objectid import ObjectId
from pymongo.monitoring import ConnectionClosedReason
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap import choice
from txmongo._cmap.connection import CheckOut, Connection, ConnectionState
from txmongo._cmap.endpoints import address_text
from txmongo._cmap.errors import (
    CheckOutTimeoutError,
    PinnedConnections,
    PoolClearedError,
    PoolClosedError,
    WaitQueueFullError,
)
from txmongo._cmap.events import options_of, publisher_for
from txmongo._cmap.generations import Generations
from txmongo._cmap.growth import Growth
from txmongo._cmap.maintenance import Maintenance
from txmongo._cmap.opening import Connect, Openings
from txmongo._cmap.roster import Roster
from txmongo._cmap.scheduling import LeastWait, RoundRobin
from txmongo._cmap.service_times import ServiceTimes
from txmongo._cmap.stalls import Stalls
from txmongo._cmap.unread import UnreadWrite
from txmongo._cmap.wait_queue import Crowd, Waiter, WaitQueue
from txmongo._cmap.watch import Watch
from txmongo._deferreds import Deadline
from txmongo._logs import ComponentLog
from txmongo._settings import ClientSettings
from txmongo.errors import AutoReconnect, NetworkTimeout
from txmongo.protocol import MongoProtocol
from txmongo.types import Address

__all__ = ["CheckOut", "Connection", "ConnectionState", "Pool", "PoolState"]

_log = Logger(namespace="txmongo.pool")


class PoolState(enum.Enum):
    """A pool's states: from PAUSED to READY by ``ready()``, back by ``clear()``, from any to CLOSED by ``close()``."""

    PAUSED = "paused"
    READY = "ready"
    CLOSED = "closed"


class Pool:
    """The connections to one server. It begins paused.

    :ivar address: the server's.
    :ivar state: whether connections may be checked out.
    :ivar operation_count: requests that have a connection or wait for one, for load-based server selection.
    """

    def __init__(
        self,
        address: Address,
        settings: ClientSettings,
        *,
        clock: IReactorTime,
        connect: Connect,
        listeners: Iterable[Any] | None = None,
        log: ComponentLog | None = None,
        on_connect_error: Callable[[Exception, int], None] | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        """
        :param connect: opens and authenticates a connection; cancelling its Deferred closes the socket.
        :param listeners: event listeners; those that are no ``ConnectionPoolListener`` are ignored.
        :param log: where the same is written to.
        :param on_connect_error: told of each failure to open a connection, with the generation it was opened in, before
            the operation that waits for it.
        :param crowd: those who wait, of all pools of the client; its own if none is given.
        """
        self.address = address
        self.state = PoolState.PAUSED
        self.operation_count = 0
        self._settings = settings
        self._clock = clock
        self._seconds = clock.seconds
        self._on_connect_error = on_connect_error
        self._events = publisher_for(listeners, address, log)
        self._generations = Generations()
        self._roster = Roster(clock, self._generations, self._events)
        # Looked at with every check-out.
        self._connections = self._roster.usable
        self._idle = self._roster.idle
        self._crowd = crowd or Crowd(settings.wait_queue_size)
        self._queue = WaitQueue(
            self._crowd,
            clock,
            self._events,
            opening=lambda: len(self._openings),
            time_is_up=self._time_is_up,
            left=self._left,
            given_up=self._serve,
        )
        self._openings = Openings(
            address,
            clock,
            connect,
            self._events,
            opened=self._opened,
            failed=self._open_failed,
        )
        self._growth = Growth(
            settings,
            clock,
            self._roster,
            self._generations,
            self._queue,
            self._openings,
            ready=self._is_ready,
        )
        self._fixed = self._growth.fixed
        self._max_idle = math.inf if self._fixed else settings.max_idle_time or math.inf
        self._maintenance = Maintenance(
            clock, self._idle, self._growth, max_idle=self._max_idle, ready=self._is_ready, retire=self._retire
        )
        self._unread = UnreadWrite(self._set_calm)
        self._stalls = Stalls(
            clock,
            self._roster,
            self._queue,
            self._unread,
            moves=settings.pipelining and not self._fixed,
            cut=self._cut,
            moved=self._moved,
        )
        self._watch = Watch(
            clock,
            queue=self._queue,
            busy=self._busy,
            stalled=self._stalls.relieve,
            silent=self._silent,
            socket_timeout=settings.socket_timeout,
        )
        self._watches_all = settings.socket_timeout is not None
        service_times = ServiceTimes(self._watch)
        self._averages = service_times.averages
        self._learn = service_times.learn
        self._choose = self._scheduler().choose
        self._serving = False
        self._cleared_by: BaseException | None = None
        #: Whether a check-out has nothing to mind but the idle connections, and a check-in nothing but the averages:
        #: ready, growing, nobody waits, no listener, no unread write.
        self._calm = False
        if self._events is not None:
            self._events.pool_created(options_of(settings))

    def _scheduler(self) -> LeastWait | RoundRobin:
        if self._fixed:
            return RoundRobin(self._roster, pipelining=self._settings.pipelining)
        return LeastWait(
            self._roster,
            self._unread,
            self._watch,
            self._averages,
            pipelining=self._settings.pipelining,
            max_idle=self._max_idle,
            may_grow=self._growth.may_grow,
            retire=self._retire,
        )

    # --- what others ask ---

    @property
    def rtt(self) -> float:
        """The way to the server and back in seconds, as its monitor measures it; 0 before."""
        return self._watch.rtt

    @rtt.setter
    def rtt(self, seconds: float) -> None:
        self._watch.measured(seconds)

    @property
    def total_count(self) -> int:
        """Connections, those included that are being opened and those that are closed once they come back."""
        return len(self._roster) + len(self._openings)

    @property
    def opening_count(self) -> int:
        """Connections that are being opened."""
        return len(self._openings)

    @property
    def available_count(self) -> int:
        """Connections on which nothing is in flight."""
        return sum(1 for connection in self._connections if not connection.in_flight)

    @property
    def waiting_count(self) -> int:
        """Requests in the wait queue."""
        return len(self._queue)

    @property
    def last_unacknowledged(self) -> Connection | None:
        """The connection of the last unacknowledged write, while the server may not have read it."""
        return self._unread.connection

    @property
    def generation(self) -> int:
        """How often the pool was cleared; a connection of another generation is stale."""
        return self._generations.pool

    def generation_for(self, service_id: ObjectId | None) -> int:
        """The current generation of a service behind a load balancer; without one, the pool's."""
        return self._generations.current(service_id)

    def protocols(self) -> list[MongoProtocol]:
        """Those of the connections that are given out, in use or not."""
        return [connection.protocol for connection in self._connections]

    def begun_anew(self, request: CheckOut) -> None:
        """A request is about to be sent again on its connection, on which the server was not busy with it so far."""
        assert request.connection is not None
        request.started_at = request.connection.busy_since = self._seconds()

    def expected_service_time(self, service_class: str) -> float:
        """How many seconds the server is expected to need for a kind of request."""
        return self._averages.get(service_class, choice.UNKNOWN_SERVICE_TIME)

    def __repr__(self) -> str:
        in_flight = sum(connection.live for connection in self._roster)
        return (
            f"<Pool {address_text(self.address)} {self.state.value}: {self.total_count} connections "
            f"({self.available_count} available, {self.opening_count} opening), {in_flight} in flight, "
            f"{self.waiting_count} waiting, generation {self.generation}>"
        )

    # --- checking out ---

    def check_out_now(self, request: CheckOut) -> Connection | None:
        """Check a connection out if one can be had at once.

        :returns: the connection, or ``None``: then nothing has happened, and :meth:`check_out` is to be called.
        """
        if self._calm and self._idle:
            connection = self._idle.pop()
            now = self._seconds()
            if now - connection.idle_since <= self._max_idle:
                connection.busy_since = request.started_at = now
                connection.in_flight[request] = None
                request.connection = connection
                request.abandoned = False
                request.expected = expected = self._averages.get(request.service_class, choice.UNKNOWN_SERVICE_TIME)
                connection.expected_wait = math.inf if request.exclusive else expected
                self.operation_count += 1
                if self._watch.call is None and (self.operation_count > 1 or self._watches_all):
                    self._watch.arm()
                return connection
            self._idle.append(connection)
        return self._check_out_minding(request)

    def _check_out_minding(self, request: CheckOut) -> Connection | None:
        """:meth:`check_out_now` where there is more to mind than the idle connections."""
        if self.state is not PoolState.READY or self._queue:
            return None
        now = self._seconds()
        connection = self._choose(request, now)
        if connection is None:
            return None
        self._register(request, connection, now)
        if self._events is not None:
            self._events.check_out_started()
            self._events.checked_out(connection.id, 0.0)
        return connection

    def check_out(self, request: CheckOut, deadline: Deadline, *, again: bool = False) -> Deferred[Connection]:
        """Check a connection out, waiting for one if need be.

        :param deadline: when waiting ends in any case. Unless the request is ``patient``, ``waitQueueTimeoutMS`` limits
            the time until the opening of a connection for it begins.
        :param again: the operation was under way before; it may wait however many others do.
        :returns: a Deferred that fires with the connection. It fails with :class:`PoolClearedError` if the pool is
            paused or gets cleared, :class:`PoolClosedError` if it is or gets closed, :class:`CheckOutTimeoutError` if
            the time is up, :class:`WaitQueueFullError` if too many of the client wait, the connector's error if a
            connection could not be opened for it, ``CancelledError`` if it is cancelled.
        """
        connection = self.check_out_now(request)
        if connection is not None:
            return succeed(connection)
        now = self._seconds()
        if self._events is not None:
            self._events.check_out_started()
        refusal = self._refusal(again)
        if refusal is not None:
            if self._events is not None:
                self._events.check_out_failed(refusal, self._seconds() - now)
            return fail(refusal)
        self.operation_count += 1
        if not self._queue:
            self._watch.hurry()
        limit = None if request.patient else self._settings.wait_queue_timeout
        waiting = self._queue.wait(request, now, deadline, limit, counted=not again)
        self._set_calm()
        self._serve()
        return waiting

    def _refusal(self, again: bool) -> Exception | None:
        """Why nobody may wait for a connection now."""
        if self.state is PoolState.CLOSED:
            return PoolClosedError(self.address)
        if self.state is PoolState.PAUSED:
            return PoolClearedError.waiting(self.address, self._cleared_by)
        if self._crowd.full and not again:
            return WaitQueueFullError(self._crowd.limit)
        return None

    def _register(self, request: CheckOut, connection: Connection, now: float) -> None:
        """Note that a request is out on a connection."""
        if not connection.in_flight:
            connection.busy_since = now
        connection.in_flight[request] = None
        request.connection = connection
        request.started_at = now
        request.abandoned = False
        request.expected = expected = self.expected_service_time(request.service_class)
        connection.expected_wait = math.inf if request.exclusive else connection.expected_wait + expected
        self.operation_count += 1
        if self._watch.call is None and (self.operation_count > 1 or self._watches_all):
            self._watch.arm()

    # --- the wait queue ---

    def _serve(self) -> None:
        """Give connections to those who wait, in their order, and open more if some are left waiting."""
        if self._serving:
            return
        self._serving = True
        try:
            while self.state is PoolState.READY:
                waiter = self._queue.first()
                if waiter is None:
                    break
                now = self._seconds()
                connection = self._choose(waiter.request, now, copy=waiter.deferred is None)
                if connection is None:
                    break
                self._queue.remove(waiter.request)
                self._register(waiter.request, connection, now)
                self._grant(waiter, connection, now)
        finally:
            self._serving = False
        self._growth.grow()

    def _grant(self, waiter: Waiter, connection: Connection, now: float) -> None:
        if self._events is not None:
            self._events.checked_out(connection.id, now - waiter.started_at)
        if waiter.deferred is not None:
            if waiter.deferred.called:
                # A listener has cancelled it.
                self.check_in(waiter.request)
            else:
                waiter.deferred.callback(connection)
            return
        try:
            waiter.request.resend(connection)
        except Exception:
            _log.failure("A request could not be sent a second time")
            if waiter.request in connection.in_flight:
                self.check_in(waiter.request)

    def _left(self, waiter: Waiter) -> None:
        """One has left the queue; it is served or fails next."""
        if waiter.deferred is not None:
            self.operation_count -= 1
        self._set_calm()

    def _time_is_up(self) -> Exception:
        return CheckOutTimeoutError(
            self.address,
            max_pool_size=self._growth.maximum,
            in_use=len(self._roster) - self.available_count,
            opening=len(self._openings),
            waiting=len(self._queue) - 1,
            pinned=self._pinned(),
        )

    def _pinned(self) -> PinnedConnections | None:
        """How many connections are kept; ``None`` where that cannot be."""
        return None

    def _is_ready(self) -> bool:
        return self.state is PoolState.READY

    def _set_calm(self) -> None:
        """Recompute ``_calm``, after a change of what it depends on."""
        self._calm = (
            self.state is PoolState.READY
            and not self._queue
            and not self._fixed
            and self._events is None
            and self._unread.connection is None
        )

    # --- checking in ---

    def check_in(self, request: CheckOut, *, abandoned: bool = False) -> None:
        """Give a connection back after a request was answered, failed, was sent unacknowledged, or was never sent.

        :param abandoned: the request was sent and nobody waits for it any more, but its reply has not come. The
            connection goes on being used, and counts the request until the late reply; with ``pipelining=False``, or
            after exclusive use, it is closed.
        :raises ValueError: the request has no connection of this pool.
        """
        connection = request.connection
        if (
            abandoned
            or not self._calm
            or connection is None
            or not connection.open
            or connection.late
            or request.unacknowledged
            or not connection.protocol.connected
        ):
            self._check_in_minding(request, abandoned)
            return
        in_flight = connection.in_flight
        try:
            del in_flight[request]
        except KeyError:
            raise ValueError(f"{request!r} has no connection of {self!r}") from None
        self.operation_count -= 1
        self._learn(request, connection)
        if in_flight:
            connection.expected_wait -= request.expected
            return
        connection.expected_wait = 0.0
        connection.idle_since = connection.busy_since
        self._idle.append(connection)
        if self._max_idle != math.inf and self._maintenance.call is None:
            self._maintenance.plan()

    def _check_in_minding(self, request: CheckOut, abandoned: bool) -> None:
        """:meth:`check_in` where there is more to mind than the averages and the idle connections."""
        connection = request.connection
        if connection is None or request not in connection.in_flight or request in connection.late:
            raise ValueError(f"{request!r} has no connection of {self!r}")
        self.operation_count -= 1
        if self._events is not None:
            self._events.checked_in(connection.id)
        self._queue.refuse_copy_of(request)
        if connection.open and not connection.protocol.connected:
            # Its loss is being told to those who waited; the pool's turn comes last.
            self._retire(connection, ConnectionClosedReason.ERROR)
        if abandoned and connection.open:
            self._abandon(request, connection)
            return
        self._settle(request, connection)
        if request.unacknowledged and connection.open and not self._fixed:
            self._unread.sent(connection)
        self._returned(connection)

    def _abandon(self, request: CheckOut, connection: Connection) -> None:
        """Nobody waits any more for a request that is in flight."""
        request.abandoned = True
        if request.exclusive or not self._settings.pipelining:
            del connection.in_flight[request]
            self._cut(connection, AutoReconnect("the request that had this connection alone was abandoned"))
            return
        connection.late[request] = None
        if not self._gives_up_if_stalled(connection) and self._watch.call is None:
            self._watch.arm()

    def _late_reply(self, connection: Connection) -> None:
        """The reply of an abandoned request has come."""
        request = connection.oldest_late()
        if request is not None:
            del connection.late[request]
            self._settle(request, connection)
            self._returned(connection)

    def _settle(self, request: CheckOut, connection: Connection) -> None:
        """Take a request off its connection."""
        del connection.in_flight[request]
        if not request.unacknowledged and self._learn(request, connection) and connection is self._unread.connection:
            self._unread.replied()
        connection.expect_less(request)

    def _returned(self, connection: Connection) -> None:
        """A connection has one request fewer."""
        if not connection.open:
            self._roster.close_drained(connection)
            self._serve()
            return
        if connection.late and self._gives_up_if_stalled(connection):
            return
        if not connection.in_flight:
            self._make_available(connection, connection.busy_since)
        if self._queue:
            self._serve()

    def _make_available(self, connection: Connection, now: float) -> None:
        connection.idle_since = now
        if not self._fixed:
            self._idle.append(connection)
            if self._max_idle != math.inf and self._maintenance.call is None:
                self._maintenance.plan()

    # --- opening connections ---

    def _opened(self, connection: Connection, duration: float) -> None:
        """A connection can be used from now on."""
        connection.protocol.lost_hook = partial(self._lost, connection)
        connection.protocol.late_reply_hook = partial(self._late_reply, connection)
        # socketTimeoutMS counts from the last byte.
        connection.protocol.in_large_parts = not self._watches_all
        self._roster.add(connection)
        if self._events is not None:
            self._events.connection_ready(connection.id, duration)
        if connection.open:
            self._make_available(connection, self._seconds())
            self._serve()

    def _open_failed(self, failure: Failure, generation: int) -> None:
        """A connection could not be opened: the topology is told, then the one who waited for it first."""
        self._growth.failed()
        error = failure.value or CancelledError()
        waiter = self._queue.first_told()
        if waiter is not None:
            self._queue.refuse(waiter, error)
        if self._on_connect_error is not None and isinstance(error, Exception):
            self._on_connect_error(error, generation)
        if waiter is not None and waiter.deferred is not None:
            if self._growth.under_way:
                # It was found while the pool was asked.
                self._queue.tell_soon(waiter, failure)
            elif not waiter.deferred.called:
                waiter.deferred.errback(failure)
        self._serve()
        self._maintenance.plan()

    # --- losing and closing connections ---

    def _lost(self, connection: Connection, reason: Failure) -> None:
        """A connection's socket is closed, whoever wanted it; its requests were told."""
        for request in connection.late:
            del connection.in_flight[request]
        connection.late.clear()
        if connection.open:
            connection.close_error = reason.value
            self._retire(connection, ConnectionClosedReason.ERROR)
            self._serve()
        self._roster.gone(connection)

    def _retire(self, connection: Connection, reason: str) -> None:
        """Give a connection out no more; close it once it is not in use."""
        if connection is self._unread.connection:
            self._unread.forget()
        self._roster.retire(connection, reason)
        if reason == ConnectionClosedReason.ERROR and self._growth.minimum:
            self._growth.lost(connection.created_at)
            self._maintenance.plan()

    def _cut(self, connection: Connection, error: Exception) -> None:
        """Close a connection at once, whatever waits on it; that also ends what the server does for it."""
        if connection.open:
            connection.close_error = error
            self._retire(connection, ConnectionClosedReason.ERROR)
        connection.protocol.abort(error)
        self._serve()

    # --- stalled connections ---

    def _busy(self) -> list[Connection]:
        return [connection for connection in self._roster if connection.in_flight]

    def _silent(self, connection: Connection) -> None:
        """Nothing came on a connection for ``socketTimeoutMS``."""
        self._cut(connection, NetworkTimeout(f"{address_text(self.address)}: timed out"))

    def _gives_up_if_stalled(self, connection: Connection) -> bool:
        stalled = choice.is_stalled(connection, self._watch.limits.patience, self._seconds())
        return stalled and self._stalls.gives_up(connection)

    def _moved(self, count: int) -> None:
        """Second copies of so many requests wait for a connection from now on."""
        self._set_calm()
        if self._events is not None:
            for _ in range(count):
                self._events.check_out_started()
        self._serve()

    # --- the pool's own life ---

    def ready(self) -> None:
        """The server is known to be usable: connections may be checked out, and are opened up to ``minPoolSize``."""
        if self.state is not PoolState.PAUSED:
            return
        self.state = PoolState.READY
        self._cleared_by = None
        self._growth.begin_anew()
        self._set_calm()
        if self._events is not None:
            self._events.pool_ready()
        self._growth.grow()
        self._maintenance.plan()

    def clear(
        self, cause: BaseException | None = None, service_id: ObjectId | None = None, interrupt_in_use: bool = False
    ) -> None:
        """Make all connections stale. Idle ones and those being opened are closed, those in use when they come back.

        Without ``service_id`` the pool is paused, and all who wait fail with :class:`PoolClearedError`.

        :param cause: the error that says the server is not usable.
        :param service_id: the one service behind a load balancer whose connections are meant.
        :param interrupt_in_use: cut those in use too: the server does not answer its monitor.
        """
        if self.state is PoolState.CLOSED:
            return
        was_ready = self.state is PoolState.READY
        self._generations.end(service_id)
        if service_id is None:
            self.state = PoolState.PAUSED
            self._cleared_by = cause
            self._set_calm()
        if self._events is not None and was_ready:
            self._events.pool_cleared(service_id, interrupt_in_use)
        self._retire_all(ConnectionClosedReason.STALE, service_id)
        if interrupt_in_use:
            self._roster.abort_draining(PoolClearedError.interrupted(self.address), service_id)
        if service_id is None:
            self._openings.give_up(ConnectionClosedReason.STALE)
            self._maintenance.plan()
            self._queue.refuse_all(partial(PoolClearedError.waiting, self.address, cause))
        else:
            self._serve()

    def renew(self) -> None:
        """Use the present connections for nothing new, nor those that are being opened: new ones are different."""
        if self.state is PoolState.CLOSED:
            return
        self._generations.end(None)
        self._retire_all(ConnectionClosedReason.STALE)
        self._openings.give_up(ConnectionClosedReason.STALE)
        self._serve()

    def _retire_all(self, reason: str, service_id: ObjectId | None = None) -> None:
        for connection in list(self._connections):
            if connection.open and (service_id is None or connection.service_id == service_id):
                # One that was just lost, for which the pool is cleared, is not closed because it is stale.
                lost = not connection.protocol.connected
                self._retire(connection, ConnectionClosedReason.ERROR if lost else reason)

    def close(self) -> Deferred[None]:
        """Close all connections; requests in flight fail, those who wait fail with :class:`PoolClosedError`.

        :returns: a Deferred that fires with ``None`` when every socket is closed and no delayed call is left.
        """
        if self.state is not PoolState.CLOSED:
            self.state = PoolState.CLOSED
            self._set_calm()
            self._retire_all(ConnectionClosedReason.POOL_CLOSED)
            self._openings.give_up(ConnectionClosedReason.POOL_CLOSED)
            if self._events is not None:
                self._events.pool_closed()
            self._roster.abort_draining(PoolClosedError(self.address))
            self._maintenance.plan()
            self._queue.refuse_all(partial(PoolClosedError, self.address))
            self._watch.stop()
        # A connection that could not be opened, or was given up, takes a turn of the reactor to be gone.
        return deferLater(self._clock, 0).addCallback(self._closed)

    def _closed(self, _: None) -> Deferred[None]:
        self._queue.tell_now()
        return self._roster.wait()
