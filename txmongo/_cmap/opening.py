"""The connections of a pool that are being opened, and how long to wait after a failure.

How many to open and what to do with them is the pool's; how it is done the connector's. CMAP specification,
"Establishing a Connection".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from pymongo.monitoring import ConnectionClosedReason
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap.connection import Connection
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.endpoints import address_text
from txmongo._cmap.events import PoolPublisher
from txmongo.errors import AutoReconnect
from txmongo.protocol import MongoProtocol
from txmongo.types import Address

__all__ = ["BackOff", "Connect", "Openings"]

_log = Logger(namespace="txmongo.pool")

Connect = Callable[[], "Deferred[tuple[MongoProtocol, StreamDescription]]"]


@attrs.define(eq=False)
class _Opening:
    """One attempt.

    :ivar given_up: why it was cancelled, as in ``ConnectionClosedEvent``.
    """

    id: int
    generation: int
    created_at: float
    deferred: Deferred[Any] | None = None
    given_up: str | None = None


class BackOff:
    """The pauses between attempts to open connections that nobody waits for, growing from failure to failure.

    :ivar until: when the next attempt may be made.
    """

    def __init__(self, first: float, greatest: float) -> None:
        """
        :param first: seconds of the first pause; a connection that lived for longer ends the series.
        :param greatest: seconds of the greatest pause.
        """
        self.until = 0.0
        self._first = first
        self._greatest = greatest
        self._next = first

    def failed(self, now: float) -> None:
        """An attempt failed."""
        self.until = now + self._next
        self._next = min(self._next * 2, self._greatest)

    def lost(self, lived: float, now: float) -> None:
        """A connection was lost ``lived`` seconds after it was created."""
        if lived > self._first:
            self._next = self._first
        else:
            self.failed(now)


class Openings:
    """The connections that are being opened.

    Each ends in ``opened``, called with the connection and the seconds it took, or in ``failed``, called with the
    Failure and its generation after ``ConnectionClosedEvent`` was published; given up, in neither.
    """

    def __init__(
        self,
        address: Address,
        clock: IReactorTime,
        connect: Connect,
        events: PoolPublisher | None,
        *,
        opened: Callable[[Connection, float], None],
        failed: Callable[[Failure, int], None],
    ) -> None:
        self._address = address
        self._seconds = clock.seconds
        self._connect = connect
        self._events = events
        self._opened = opened
        self._failed = failed
        self._next_id = 1
        self._attempts: dict[int, _Opening] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def begin(self, generation: int) -> None:
        """Begin to open one more; it may be open, or have failed, before this returns."""
        attempt = _Opening(self._next_id, generation, self._seconds())
        self._next_id += 1
        self._attempts[attempt.id] = attempt
        if self._events is not None:
            self._events.connection_created(attempt.id)
        attempt.deferred = deferred = self._connect()
        deferred.addCallback(self._connected, attempt)
        deferred.addErrback(self._not_connected, attempt)
        deferred.addErrback(lambda failure: _log.failure("Unexpected error after opening a connection", failure))
        if attempt.given_up is not None:
            deferred.cancel()

    def give_up(self, reason: str) -> None:
        """Cancel all; ``reason`` as in ``ConnectionClosedEvent``."""
        for attempt in list(self._attempts.values()):
            attempt.given_up = reason
            if attempt.deferred is not None:
                attempt.deferred.cancel()

    def _connected(self, result: tuple[MongoProtocol, StreamDescription], attempt: _Opening) -> None:
        protocol, description = result
        if attempt.given_up is not None or not protocol.connected:
            reason = AutoReconnect(f"{address_text(self._address)}: connection closed")
            protocol.abort(reason)
            raise reason
        del self._attempts[attempt.id]
        now = self._seconds()
        created_at = attempt.created_at
        connection = Connection(
            attempt.id, self._address, attempt.generation, protocol, description, created_at=created_at, now=now
        )
        self._opened(connection, now - created_at)

    def _not_connected(self, failure: Failure, attempt: _Opening) -> Failure | None:
        if self._attempts.pop(attempt.id, None) is None:
            # It had been opened; what went wrong came after that.
            return failure
        if self._events is not None:
            reason = attempt.given_up or ConnectionClosedReason.ERROR
            self._events.connection_closed(attempt.id, reason, failure.value)
        if attempt.given_up is None:
            self._failed(failure, attempt.generation)
        return None
