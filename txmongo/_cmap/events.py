"""Publishing the events of a pool: "Connection Pool Monitoring" of the CMAP specification, in PyMongo's classes.

One publisher belongs to each pool; a pool without listeners has none and pays nothing. When an event happens is the
pool's to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from twisted.logger import Logger

from txmongo.types import Address

__all__ = ["PoolPublisher", "publisher_for"]

_log = Logger(namespace="txmongo.pool")


def publisher_for(listeners: Iterable[Any] | None, address: Address) -> PoolPublisher | None:
    """The publisher for those of a client's listeners that want pool events; ``None`` if there are none.

    :param listeners: listeners of any of PyMongo's kinds.
    """
    wanting = [listener for listener in listeners or () if isinstance(listener, monitoring.ConnectionPoolListener)]
    return PoolPublisher(wanting, address) if wanting else None


class PoolPublisher:
    """Tells the listeners of one pool what happens in it. A listener that raises is logged; nothing else comes of it.

    Durations are seconds.
    """

    def __init__(self, listeners: Iterable[monitoring.ConnectionPoolListener], address: Address) -> None:
        self._listeners = tuple(listeners)
        self._address = address

    def pool_created(self, options: dict[str, Any]) -> None:
        """The pool exists; ``options`` are those that differ from the defaults."""
        self._publish("pool_created", monitoring.PoolCreatedEvent(self._address, options))

    def pool_ready(self) -> None:
        """Connections may be checked out."""
        self._publish("pool_ready", monitoring.PoolReadyEvent(self._address))

    def pool_cleared(self, service_id: ObjectId | None, interrupt_in_use: bool) -> None:
        """What was connected until now is stale."""
        event = monitoring.PoolClearedEvent(self._address, service_id, interrupt_in_use)
        self._publish("pool_cleared", event)

    def pool_closed(self) -> None:
        """No connection will be checked out any more."""
        self._publish("pool_closed", monitoring.PoolClosedEvent(self._address))

    def connection_created(self, connection_id: int) -> None:
        """A connection is about to be opened."""
        self._publish("connection_created", monitoring.ConnectionCreatedEvent(self._address, connection_id))

    def connection_ready(self, connection_id: int, duration: float) -> None:
        """A connection can be used, ``duration`` after it was created."""
        self._publish("connection_ready", monitoring.ConnectionReadyEvent(self._address, connection_id, duration))

    def connection_closed(self, connection_id: int, reason: str) -> None:
        """A connection left the pool, or could not be opened."""
        self._publish("connection_closed", monitoring.ConnectionClosedEvent(self._address, connection_id, reason))

    def check_out_started(self) -> None:
        """An operation wants a connection."""
        self._publish("connection_check_out_started", monitoring.ConnectionCheckOutStartedEvent(self._address))

    def check_out_failed(self, reason: str, duration: float) -> None:
        """An operation got no connection."""
        event = monitoring.ConnectionCheckOutFailedEvent(self._address, reason, duration)
        self._publish("connection_check_out_failed", event)

    def checked_out(self, connection_id: int, duration: float) -> None:
        """An operation got a connection, which others may have got too."""
        event = monitoring.ConnectionCheckedOutEvent(self._address, connection_id, duration)
        self._publish("connection_checked_out", event)

    def checked_in(self, connection_id: int) -> None:
        """An operation is done with its connection."""
        self._publish("connection_checked_in", monitoring.ConnectionCheckedInEvent(self._address, connection_id))

    def _publish(self, hook: str, event: object) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, hook)(event)
            except Exception:
                _log.failure("A connection pool listener failed in {hook}", hook=hook)
