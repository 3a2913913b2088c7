"""Command events: the one place that publishes what was sent, what came back and what failed.

Command Logging and Monitoring specification. The events are PyMongo's (:mod:`pymongo.monitoring`), which leave the
content of sensitive commands out themselves. There is no :class:`CommandEvents` when nobody listens.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bson.objectid import ObjectId
from pymongo.errors import OperationFailure
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)
from twisted.logger import Logger

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo.types import Address

__all__ = ["CommandEvents", "SentCommand"]

_log = Logger(namespace="txmongo.command")


class SentCommand:
    """What the later events of a command repeat from its first."""

    __slots__ = (
        "address",
        "database",
        "name",
        "operation_id",
        "redacted",
        "request_id",
        "server_connection_id",
        "service_id",
        "started_at",
    )

    def __init__(
        self,
        name: str,
        database: str,
        request_id: int,
        operation_id: int,
        address: Address,
        description: StreamDescription,
        started_at: float,
    ) -> None:
        self.name = name
        self.database = database
        self.request_id = request_id
        self.operation_id = operation_id
        self.address: Any = address
        self.service_id: ObjectId | None = description.service_id
        self.server_connection_id = description.server_connection_id
        self.started_at = started_at
        self.redacted = False


class CommandEvents:
    """Publishes the events of commands to those who listen."""

    def __init__(self, listeners: Iterable[CommandListener], seconds: Callable[[], float]) -> None:
        self._listeners = tuple(listeners)
        self._seconds = seconds

    def started(self, sent: SentCommand, command: dict[str, Any]) -> None:
        """``command`` is about to be written."""
        event = CommandStartedEvent(
            command,
            sent.database,
            sent.request_id,
            sent.address,
            sent.operation_id,
            service_id=sent.service_id,
            server_connection_id=sent.server_connection_id,
        )
        # Of a greeting only the command says whether it holds credentials; its reply must then not be shown either.
        sent.redacted = not event.command
        self._publish("started", event)

    def succeeded(self, sent: SentCommand, reply: Any) -> None:
        """The server answered with ``ok: 1``, or (``reply`` is ``None``) will not answer an unacknowledged command."""
        event = CommandSucceededEvent(
            self._duration(sent),
            {} if sent.redacted else {"ok": 1} if reply is None else reply,
            sent.name,
            sent.request_id,
            sent.address,
            sent.operation_id,
            service_id=sent.service_id,
            database_name=sent.database,
            server_connection_id=sent.server_connection_id,
        )
        self._publish("succeeded", event)

    def failed(self, sent: SentCommand, error: BaseException) -> None:
        """The server answered with an error, or no answer will come."""
        event = CommandFailedEvent(
            self._duration(sent),
            failure_document(error),
            sent.name,
            sent.request_id,
            sent.address,
            sent.operation_id,
            service_id=sent.service_id,
            database_name=sent.database,
            server_connection_id=sent.server_connection_id,
        )
        self._publish("failed", event)

    def _duration(self, sent: SentCommand) -> datetime.timedelta:
        return datetime.timedelta(seconds=self._seconds() - sent.started_at)

    def _publish(self, method: str, event: Any) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, method)(event)
            except Exception:
                _log.failure("A command listener raised: {listener}", listener=type(listener).__name__)


def failure_document(error: BaseException) -> Any:
    """What a failed event shows of an error: the server's reply if there was one, else its text and type."""
    if isinstance(error, OperationFailure) and error.details:
        return error.details
    details = getattr(error, "_details", None) or getattr(error, "errors", None)
    if isinstance(details, Mapping) and details:
        return details
    return {"errmsg": str(error), "errtype": type(error).__name__}
