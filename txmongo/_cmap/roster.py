"""The connections that a pool has: which may be given out, which are idle, and which are closed when they come back.

What becomes of a connection is put down here and nowhere else, and its end is told to listeners. When and why a
connection is retired is the pool's (:mod:`txmongo._cmap.pool`); that its socket then gets closed,
:mod:`~txmongo._cmap.sockets`' business.
"""

from __future__ import annotations

from collections.abc import Iterator

from bson.objectid import ObjectId
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txmongo._cmap.connection import Connection
from txmongo._cmap.events import PoolPublisher
from txmongo._cmap.generations import Generations
from txmongo._cmap.sockets import Sockets

__all__ = ["Roster"]


class Roster:
    """Established connections; to iterate over it is to see all that count.

    :ivar usable: those that may be given out.
    :ivar idle: of these the idle ones, the last used last; the pool adds to it and takes from it.
    :ivar draining: those that may not be given out any more but are still in use: they count until they come back.
    """

    def __init__(self, clock: IReactorTime, generations: Generations, events: PoolPublisher | None) -> None:
        self.usable: list[Connection] = []
        self.idle: list[Connection] = []
        self.draining: set[Connection] = set()
        self._generations = generations
        self._events = events
        self._sockets = Sockets(clock)

    def __len__(self) -> int:
        return len(self.usable) + len(self.draining)

    def __iter__(self) -> Iterator[Connection]:
        yield from self.usable
        yield from self.draining

    def add(self, connection: Connection) -> None:
        """One was opened, and belongs to the present generation of its service if it has one."""
        if connection.service_id is not None:
            connection.generation = self._generations.opened(connection.service_id)
        self.usable.append(connection)
        self._sockets.add(connection)

    def retire(self, connection: Connection, reason: str) -> None:
        """Give one out no more; close it, now or by :meth:`close_drained`, when it is not in use.

        :param reason: as in ``ConnectionClosedEvent``.
        """
        connection.open = False
        connection.close_reason = reason
        self.usable.remove(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.live:
            self.draining.add(connection)
        else:
            self._close(connection)

    def close_drained(self, connection: Connection) -> None:
        """Close one that was retired, unless it is still in use, or closed already."""
        if not connection.live and connection in self.draining:
            self.draining.remove(connection)
            self._close(connection)

    def abort_draining(self, error: Exception, service_id: ObjectId | None = None) -> None:
        """Close at once those that were retired and are still in use; what is in flight there fails with the error.

        :param service_id: the one service behind a load balancer whose connections are meant.
        """
        for connection in list(self.draining):
            if service_id is None or connection.service_id == service_id:
                connection.protocol.abort(error)

    def gone(self, connection: Connection) -> None:
        """One's socket is closed, whoever wanted it."""
        self._sockets.gone(connection)

    def wait(self) -> Deferred[None]:
        """Wait until no socket is left; the Deferred fires with ``None``, at once if there is none."""
        return self._sockets.wait()

    def _close(self, connection: Connection) -> None:
        assert connection.close_reason is not None
        if self._events is not None:
            self._events.connection_closed(connection.id, connection.close_reason, connection.close_error)
        if connection.service_id is not None:
            self._generations.closed(connection.service_id)
        self._sockets.close(connection)
