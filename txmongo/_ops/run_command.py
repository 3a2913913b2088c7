"""Any command that the user writes: sent as it is, its reply handed back as it is.

Kept: the "Run command" specification. What it says: nothing of the client's read or write concern is added, nothing is
retried, the caller's document is never changed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_preferences import ReadPreference
from twisted.python.failure import Failure

from txmongo._ops.base import Operation, ReplyContext
from txmongo._ops.cursors import CursorOperation
from txmongo.errors import NotPrimaryError, OperationFailure

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["RunCommand", "RunCursorCommand", "allow_errors", "command_document"]

#: Commands that the server answers soon, whatever its data; by their names in lower case, as old servers take them.
_BOUNDED = frozenset(
    {"ping", "hello", "ismaster", "buildinfo", "connectionstatus", "whatsmyuri", "getparameter", "listcommands"}
)


def command_document(command: str | Mapping[str, Any], value: Any = 1, fields: Mapping[str, Any] | None = None) -> Any:
    """A new document for a command written as its name and value, or as a mapping, with ``fields`` added.

    :raises TypeError: ``command`` is neither.
    :raises ValueError: it is empty.
    """
    if isinstance(command, str):
        if not command:
            raise ValueError("command must not be empty")
        document = {command: value}
    elif isinstance(command, Mapping):
        document = dict(command)
        if not document:
            raise ValueError("command must not be empty")
    else:
        raise TypeError(f"command must be a string or a mapping, not {type(command).__name__}")
    if fields:
        document.update(fields)
    return document


class RunCommand(Operation[Any]):
    """Run a command on a database; the result is the reply, decoded with ``codec_options``."""

    __slots__ = ("command", "name")

    sends_read_preference = True
    allow_ghost = True

    def __init__(
        self,
        database: str,
        command: Mapping[str, Any],
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        session: Any = None,
    ) -> None:
        """
        :param command: the whole command, its name first; see :func:`command_document`.
        """
        self.name = name = next(iter(command))  # type: ignore[misc]  # an instance's own, unlike all others'
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options,
            read_preference=read_preference,
            session=session,
            bounded=name.lower() in _BOUNDED,
        )
        self.command = command

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """A copy of the command."""
        return dict(self.command)

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        """The reply."""
        return reply


class RunCursorCommand(CursorOperation):
    """Run a command that makes a cursor; the result is the first batch."""

    __slots__ = ("command", "name")

    sends_read_preference = True

    def __init__(
        self,
        database: str,
        command: Mapping[str, Any],
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        session: Any = None,
    ) -> None:
        """
        :param command: the whole command, its name first; see :func:`command_document`.
        """
        self.name = next(iter(command))  # type: ignore[misc]  # an instance's own, unlike all others'
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options,
            read_preference=read_preference,
            session=session,
        )
        self.sent = False
        self.command = command

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """A copy of the command."""
        return dict(self.command)


def allow_errors(
    failure: Failure, codec_options: CodecOptions[Any], allowable_errors: Container[int | str] | None = None
) -> Any:
    """An errback that makes the ordinary reply of an error that the caller wants to see as one.

    :param allowable_errors: codes and messages; ``None`` for all.
    :returns: the server's reply; the failure if it is not an answer of the server, or not one of these.
    """
    if not isinstance(failure.value, (OperationFailure, NotPrimaryError)):
        return failure
    reply: Any = failure.value.details
    if not isinstance(reply, Mapping) or "ok" not in reply:
        return failure
    if allowable_errors is not None and not (
        reply.get("code") in allowable_errors or reply.get("errmsg") in allowable_errors
    ):
        return failure
    return reply if codec_options.document_class is dict else bson.decode(bson.encode(reply), codec_options)
