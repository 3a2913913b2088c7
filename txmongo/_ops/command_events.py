"""Command events: the one place that publishes what was sent, what came back and what failed.

Command Logging and Monitoring specification. The events are PyMongo's (:mod:`pymongo.monitoring`), which leave the
content of sensitive commands out themselves; the log is written from the same events. There is no
:class:`CommandEvents` when nobody listens and the log is off.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from bson.objectid import ObjectId
from pymongo.errors import OperationFailure
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)
from twisted.logger import Logger

from txmongo._logs import ComponentLog, Template, address_fields, milliseconds

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo.types import Address

__all__ = ["CommandEvents", "SentCommand"]

_log = Logger(namespace="txmongo.command.events")

EventT = TypeVar("EventT")

_CONNECTION = (
    " using a connection with driver-generated ID {driverConnectionId}",
    " and server-generated ID {serverConnectionId}",
    " to {serverHost}",
    ":{serverPort}",
    " with service ID {serviceId}",
    ". The requestID is {requestId} and the operation ID is {operationId}. ",
)
_STARTED = Template(
    "Command started",
    'Command "{commandName}" started on database "{databaseName}"',
    *_CONNECTION,
    "Command: {command}",
)
_SUCCEEDED = Template(
    "Command succeeded",
    'Command "{commandName}" succeeded on database "{databaseName}" in {durationMS} ms',
    *_CONNECTION,
    "Command reply: {reply}",
)
_FAILED = Template(
    "Command failed",
    'Command "{commandName}" failed on database "{databaseName}" in {durationMS} ms',
    *_CONNECTION,
    "Error: {failure}",
)

#: What may be shown of the server's error to a sensitive command.
_HARMLESS = ("code", "codeName", "errorLabels")


class SentCommand:
    """What the later events of a command repeat from its first."""

    __slots__ = (
        "address",
        "connection_id",
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
        *,
        connection_id: int | None = None,
    ) -> None:
        self.name = name
        self.connection_id = connection_id
        self.database = database
        self.request_id = request_id
        self.operation_id = operation_id
        self.address: Any = address
        self.service_id: ObjectId | None = description.service_id
        self.server_connection_id = description.server_connection_id
        self.started_at = started_at
        self.redacted = False


class CommandEvents:
    """Publishes the events of commands to those who listen.

    :param log: where the same is written to.
    """

    def __init__(
        self, listeners: Iterable[CommandListener], seconds: Callable[[], float], log: ComponentLog | None = None
    ) -> None:
        self._listeners = tuple(listeners)
        self._seconds = seconds
        self._log = log

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
        if self._log is not None:
            self._log.debug(_STARTED, {**_common(sent), "command": self._log.document(event.command)})
        self._publish("started", event)

    def succeeded(self, sent: SentCommand, reply: Any) -> None:
        """The server answered with ``ok: 1``, or (``reply`` is ``None``) will not answer an unacknowledged command."""
        duration = self._seconds() - sent.started_at
        content = {} if sent.redacted else {"ok": 1} if reply is None else reply
        event = _ended(CommandSucceededEvent, sent, duration, content)
        if self._log is not None:
            outcome = {"durationMS": milliseconds(duration), "reply": self._log.document(event.reply)}
            self._log.debug(_SUCCEEDED, {**_common(sent), **outcome})
        self._publish("succeeded", event)

    def failed(self, sent: SentCommand, error: BaseException) -> None:
        """The server answered with an error, or no answer will come."""
        duration = self._seconds() - sent.started_at
        event = _ended(CommandFailedEvent, sent, duration, failure_document(error, redacted=sent.redacted))
        if self._log is not None:
            outcome = {"durationMS": milliseconds(duration), "failure": self._log.document(event.failure)}
            self._log.debug(_FAILED, {**_common(sent), **outcome})
        self._publish("failed", event)

    def _publish(self, method: str, event: Any) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, method)(event)
            except Exception:
                _log.failure("A command listener raised: {listener}", listener=type(listener).__name__)


def _common(sent: SentCommand) -> dict[str, Any]:
    """The fields of all messages about a command."""
    return {
        "commandName": sent.name,
        "databaseName": sent.database,
        "requestId": sent.request_id,
        "operationId": sent.operation_id,
        "driverConnectionId": sent.connection_id,
        "serverConnectionId": sent.server_connection_id,
        "serviceId": None if sent.service_id is None else str(sent.service_id),
        **address_fields(sent.address),
    }


def _ended(kind: Callable[..., EventT], sent: SentCommand, duration: float, content: Any) -> EventT:
    """The event of the end of a command.

    :param content: the reply, or what is shown of the error.
    """
    return kind(
        datetime.timedelta(seconds=duration),
        content,
        sent.name,
        sent.request_id,
        sent.address,
        sent.operation_id,
        service_id=sent.service_id,
        database_name=sent.database,
        server_connection_id=sent.server_connection_id,
    )


def failure_document(error: BaseException, *, redacted: bool = False) -> Any:
    """What a failed event shows of an error: the server's reply if there was one, else its text and type.

    :param redacted: the command is sensitive, and so may be what the server says of it.
    """
    reply = _reply(error)
    if reply is None:
        return {"errmsg": str(error), "errtype": type(error).__name__}
    return {name: reply[name] for name in _HARMLESS if name in reply} if redacted else reply


def _reply(error: BaseException) -> Any:
    """The server's reply that an error stands for."""
    if isinstance(error, OperationFailure) and error.details:
        return error.details
    details = getattr(error, "_details", None) or getattr(error, "errors", None)
    return details if isinstance(details, Mapping) and details else None
