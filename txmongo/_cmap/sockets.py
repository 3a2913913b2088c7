"""The sockets of a pool's connections, until each is known to be closed.

Why and when a connection is closed is the pool's; that it then does get closed, though the other end may be frozen, is
seen to here.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmongo._cmap.connection import Connection
from txmongo.errors import AutoReconnect

__all__ = ["Sockets"]

#: Seconds that a connection gets to send what was written and close in an orderly manner.
_GRACE = 2.0


class Sockets:
    """Closes sockets, and tells when none is left."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._open: set[Connection] = set()
        self._closing: set[Connection] = set()
        self._grace_call: IDelayedCall | None = None
        self._waiters: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open) + len(self._closing)

    def add(self, connection: Connection) -> None:
        """A connection was opened."""
        self._open.add(connection)

    def close(self, connection: Connection) -> None:
        """Close a connection after what was written has left; nothing is done if its socket is gone."""
        if connection not in self._open or not connection.protocol.connected:
            return
        self._open.remove(connection)
        self._closing.add(connection)
        connection.protocol.close()
        if self._closing and self._grace_call is None:
            self._grace_call = self._clock.callLater(_GRACE, self._out_of_patience)

    def gone(self, connection: Connection) -> None:
        """A connection's socket is closed, whoever wanted it."""
        self._open.discard(connection)
        self._closing.discard(connection)
        if not self._closing and self._grace_call is not None:
            self._grace_call.cancel()
            self._grace_call = None
        if not len(self):
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def wait(self) -> Deferred[None]:
        """Wait until no socket is left; the Deferred fires with ``None``, at once if there is none."""
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        if len(self):
            self._waiters.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def _out_of_patience(self) -> None:
        """Cut what did not close in an orderly manner."""
        self._grace_call = None
        for connection in list(self._closing):
            connection.protocol.abort(AutoReconnect("closing the connection took too long"))
