"""Publishing the events of a pool: "Connection Pool Monitoring" of the CMAP specification, in PyMongo's classes.

One publisher belongs to each pool, for its listeners and for the log ("Connection Pool Logging"); a pool with neither
has none and pays nothing. When an event happens is the pool's to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from twisted.logger import Logger

from txmongo._cmap.errors import CheckOutTimeoutError, PoolClosedError
from txmongo._logs import ComponentLog, Template, address_fields, milliseconds
from txmongo._settings import ClientSettings
from txmongo.types import Address

__all__ = ["PoolPublisher", "options_of", "publisher_for"]

_log = Logger(namespace="txmongo.pool")


_SERVER = (" {serverHost}", ":{serverPort}")
_CONNECTION = (*_SERVER, ", driver-generated ID={driverConnectionId}")
_OPTIONS = (" maxIdleTimeMS", " minPoolSize", " maxPoolSize", " maxConnecting", " waitQueueTimeoutMS")

_POOL_CREATED = Template(
    "Connection pool created",
    "Connection pool created for",
    *_SERVER,
    " using options",
    *(f"{option}={{{option.strip()}}}" for option in _OPTIONS),
)
_POOL_READY = Template("Connection pool ready", "Connection pool ready for", *_SERVER)
_POOL_CLEARED = Template(
    "Connection pool cleared", "Connection pool for", *_SERVER, " cleared", " for serviceId {serviceId}"
)
_POOL_CLOSED = Template("Connection pool closed", "Connection pool closed for", *_SERVER)
_CREATED = Template("Connection created", "Connection created:", *_CONNECTION)
_READY = Template("Connection ready", "Connection ready:", *_CONNECTION, ", established in={durationMS} ms")
_CLOSED = Template("Connection closed", "Connection closed:", *_CONNECTION, ". Reason: {reason}", ". Error: {error}")
_CHECK_OUT_STARTED = Template("Connection checkout started", "Checkout started for connection to", *_SERVER)
_CHECK_OUT_FAILED = Template(
    "Connection checkout failed",
    "Checkout failed for connection to",
    *_SERVER,
    ". Reason: {reason}",
    ". Error: {error}",
    ". Duration: {durationMS} ms",
)
_CHECKED_OUT = Template("Connection checked out", "Connection checked out:", *_CONNECTION, ", duration={durationMS} ms")
_CHECKED_IN = Template("Connection checked in", "Connection checked in:", *_CONNECTION)

#: The reasons of events in the words of the log.
_CLOSED_REASONS = {
    monitoring.ConnectionClosedReason.STALE: "Connection became stale because the pool was cleared",
    monitoring.ConnectionClosedReason.IDLE: (
        "Connection has been available but unused for longer than the configured max idle time"
    ),
    monitoring.ConnectionClosedReason.ERROR: "An error occurred while using the connection",
    monitoring.ConnectionClosedReason.POOL_CLOSED: "Connection pool was closed",
}
_CHECK_OUT_FAILED_REASONS = {
    monitoring.ConnectionCheckOutFailedReason.TIMEOUT: (
        "Wait queue timeout elapsed without a connection becoming available"
    ),
    monitoring.ConnectionCheckOutFailedReason.CONN_ERROR: (
        "An error occurred while trying to establish a new connection"
    ),
    monitoring.ConnectionCheckOutFailedReason.POOL_CLOSED: "Connection pool was closed",
}


def options_of(settings: ClientSettings) -> dict[str, Any]:
    """The pool options that differ from their defaults, as ``PoolCreatedEvent`` has them."""
    values: dict[str, Any] = {
        "maxPoolSize": settings.max_pool_size,
        "minPoolSize": settings.min_pool_size,
        "maxConnecting": settings.max_connecting,
        "maxIdleTimeMS": _milliseconds(settings.max_idle_time),
        "waitQueueTimeoutMS": _milliseconds(settings.wait_queue_timeout),
    }
    defaults = {"maxPoolSize": 100, "minPoolSize": 0, "maxConnecting": 2}
    return {name: value for name, value in values.items() if value != defaults.get(name)}


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def publisher_for(
    listeners: Iterable[Any] | None, address: Address, log: ComponentLog | None = None
) -> PoolPublisher | None:
    """The publisher for those of a client's listeners that want pool events, and for the log; ``None`` without both.

    :param listeners: listeners of any of PyMongo's kinds.
    """
    wanting = [listener for listener in listeners or () if isinstance(listener, monitoring.ConnectionPoolListener)]
    return PoolPublisher(wanting, address, log) if wanting or log is not None else None


class PoolPublisher:
    """Tells the listeners of one pool, and the log, what happens in it. A listener that raises is logged; nothing else
    comes of it.

    Durations are seconds.
    """

    def __init__(
        self,
        listeners: Iterable[monitoring.ConnectionPoolListener],
        address: Address,
        log: ComponentLog | None = None,
    ) -> None:
        self._listeners = tuple(listeners)
        self._address = address
        self._log = log
        self._server = address_fields(address)

    def pool_created(self, options: dict[str, Any]) -> None:
        """The pool exists; ``options`` are those that differ from the defaults."""
        self._write(_POOL_CREATED, **options)
        self._publish("pool_created", monitoring.PoolCreatedEvent(self._address, options))

    def pool_ready(self) -> None:
        """Connections may be checked out."""
        self._write(_POOL_READY)
        self._publish("pool_ready", monitoring.PoolReadyEvent(self._address))

    def pool_cleared(self, service_id: ObjectId | None, interrupt_in_use: bool) -> None:
        """What was connected until now is stale."""
        self._write(_POOL_CLEARED, serviceId=None if service_id is None else str(service_id))
        event = monitoring.PoolClearedEvent(self._address, service_id, interrupt_in_use)
        self._publish("pool_cleared", event)

    def pool_closed(self) -> None:
        """No connection will be checked out any more."""
        self._write(_POOL_CLOSED)
        self._publish("pool_closed", monitoring.PoolClosedEvent(self._address))

    def connection_created(self, connection_id: int) -> None:
        """A connection is about to be opened."""
        self._write(_CREATED, driverConnectionId=connection_id)
        self._publish("connection_created", monitoring.ConnectionCreatedEvent(self._address, connection_id))

    def connection_ready(self, connection_id: int, duration: float) -> None:
        """A connection can be used, ``duration`` after it was created."""
        self._write(_READY, driverConnectionId=connection_id, durationMS=milliseconds(duration))
        self._publish("connection_ready", monitoring.ConnectionReadyEvent(self._address, connection_id, duration))

    def connection_closed(self, connection_id: int, reason: str, error: BaseException | None = None) -> None:
        """A connection left the pool, or could not be opened.

        :param error: what it was closed for, if that was an error.
        """
        if self._log is not None:
            shown = None
            if reason == monitoring.ConnectionClosedReason.ERROR:
                shown = "the connection was lost" if error is None else self._log.error(error)
            self._write(_CLOSED, driverConnectionId=connection_id, reason=_CLOSED_REASONS[reason], error=shown)
        self._publish("connection_closed", monitoring.ConnectionClosedEvent(self._address, connection_id, reason))

    def check_out_started(self) -> None:
        """An operation wants a connection."""
        self._write(_CHECK_OUT_STARTED)
        self._publish("connection_check_out_started", monitoring.ConnectionCheckOutStartedEvent(self._address))

    def check_out_failed(self, error: BaseException, duration: float) -> None:
        """An operation got no connection.

        :param error: what it fails with.
        """
        reason = _check_out_failed_reason(error)
        if self._log is not None:
            shown = None
            if reason == monitoring.ConnectionCheckOutFailedReason.CONN_ERROR:
                shown = self._log.error(error)
            self._write(
                _CHECK_OUT_FAILED,
                reason=_CHECK_OUT_FAILED_REASONS[reason],
                error=shown,
                durationMS=milliseconds(duration),
            )
        event = monitoring.ConnectionCheckOutFailedEvent(self._address, reason, duration)
        self._publish("connection_check_out_failed", event)

    def checked_out(self, connection_id: int, duration: float) -> None:
        """An operation got a connection, which others may have got too."""
        self._write(_CHECKED_OUT, driverConnectionId=connection_id, durationMS=milliseconds(duration))
        event = monitoring.ConnectionCheckedOutEvent(self._address, connection_id, duration)
        self._publish("connection_checked_out", event)

    def checked_in(self, connection_id: int) -> None:
        """An operation is done with its connection."""
        self._write(_CHECKED_IN, driverConnectionId=connection_id)
        self._publish("connection_checked_in", monitoring.ConnectionCheckedInEvent(self._address, connection_id))

    def _write(self, template: Template, **fields: Any) -> None:
        if self._log is not None:
            self._log.debug(template, {**self._server, **fields})

    def _publish(self, hook: str, event: object) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, hook)(event)
            except Exception:
                _log.failure("A connection pool listener failed in {hook}", hook=hook)


def _check_out_failed_reason(error: BaseException) -> str:
    if isinstance(error, PoolClosedError):
        return monitoring.ConnectionCheckOutFailedReason.POOL_CLOSED
    if isinstance(error, CheckOutTimeoutError):
        return monitoring.ConnectionCheckOutFailedReason.TIMEOUT
    return monitoring.ConnectionCheckOutFailedReason.CONN_ERROR
