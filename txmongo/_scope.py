"""What a client, a database and a collection have in common: options, and how operations are run with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bson.codec_options import CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from txmongo._ops.aggregate import Aggregate, writes
from txmongo._ops.arguments import check_optional_mapping, read_fields
from txmongo._ops.base import Execute
from txmongo._ops.client_sessions import Sessions, check_session
from txmongo._ops.cursor_times import cursor_times
from txmongo._ops.executor import Executor
from txmongo._ops.find import check_count
from txmongo._ops.timeouts import seconds_of, take_timing
from txmongo._pymongo import ServerMode
from txmongo.errors import ConfigurationError
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool
    from txmongo.database import Database

__all__ = ["InnerScope", "Scope", "option"]

CursorT = TypeVar("CursorT")


class Scope(Generic[DocumentType]):
    """Options for what is done through an object."""

    _write_concern: WriteConcern
    _codec_options: CodecOptions[Any]
    _read_preference: Any
    _read_concern: ReadConcern
    #: Seconds of ``timeoutMS``, 0 for no limit; ``None`` where it is not used.
    _timeout: float | None
    _executor: Executor
    #: Runs an operation that is given no time of its own.
    _execute: Execute[Any]
    _sessions: Sessions

    @property
    def codec_options(self) -> CodecOptions[DocumentType]:
        """How documents are encoded and decoded."""
        return self._codec_options

    @property
    def read_preference(self) -> Any:
        """Which members of a replica set are read from."""
        return self._read_preference

    @property
    def write_concern(self) -> WriteConcern:
        """When the server acknowledges a write."""
        return self._write_concern

    @property
    def read_concern(self) -> ReadConcern:
        """How far what is read must have spread."""
        return self._read_concern

    @property
    def timeout_ms(self) -> float | None:
        """Milliseconds that each operation may last; 0 for no limit, ``None`` where ``timeoutMS`` is not used."""
        return None if self._timeout is None else self._timeout * 1000

    def _begin(self, timing: Mapping[str, Any], session: Any = None) -> Execute[Any]:
        """How the operations of one call are run; if their time is limited it begins now, for all of them together."""
        if not timing and self._timeout is None:
            return self._execute
        return self._executor.within(self._timeout, timing, session)

    def _read_options(self, session: Any = None) -> dict[str, Any]:
        """What every operation that reads is given."""
        return {
            "session": session,
            "codec_options": self._codec_options,
            "read_preference": self._read_preference,
            "read_concern": self._read_concern,
        }


class InnerScope(Scope[DocumentType]):
    """Options for what is done through an object within another; each that is not given is that of the object above."""

    def __init__(
        self,
        above: ConnectionPool[DocumentType] | Database[DocumentType],
        client: ConnectionPool[DocumentType],
        write_concern: WriteConcern | None,
        codec_options: CodecOptions[DocumentType] | None,
        read_preference: ServerMode | None,
        read_concern: ReadConcern | None,
        timeout_ms: float | None,
    ) -> None:
        """
        :raises TypeError: an option is not of its type.
        :raises ValueError: ``timeout_ms`` is negative.
        """
        self._write_concern = option("write_concern", write_concern, WriteConcern, above.write_concern)
        self._codec_options = option("codec_options", codec_options, CodecOptions, above.codec_options)
        self._read_preference = option("read_preference", read_preference, ServerMode, above.read_preference)
        self._read_concern = option("read_concern", read_concern, ReadConcern, above.read_concern)
        self._timeout = seconds_of(timeout_ms, above._timeout)
        timeout = self._timeout
        self._executor = executor = client._executor
        self._execute = executor.execute if timeout is None else partial(executor.execute_timed, timeout)
        self._sessions = executor.sessions

    def _aggregate(
        self,
        cursor: Callable[..., CursorT],
        client: ConnectionPool[DocumentType],
        database: str,
        target: str | int,
        pipeline: Any,
        session: Any,
        keywords: dict[str, Any],
        reply_codec_options: CodecOptions[Any] | None = None,
    ) -> CursorT:
        """The cursor of a pipeline.

        :param target: what it runs on: a collection's name, or 1 for the database itself.
        :param keywords: the other arguments, spelled as the server spells them; what is ``None`` is left out.
        :param reply_codec_options: how the results are decoded, if not as everything.
        :raises TypeError: an argument is not of its type.
        :raises ConfigurationError: it is to be explained, of which no cursor comes.
        """
        check_session(session, self._sessions)
        if not isinstance(pipeline, list):
            raise TypeError(f"pipeline must be a list of stages, not {type(pipeline).__name__}")
        check_optional_mapping("let", keywords.get("let"))
        if "explain" in keywords:
            raise ConfigurationError(
                "aggregate has no explain: Database.command('aggregate', ..., explain=True) explains"
            )
        timing, timeout_mode = take_timing(keywords), keywords.pop("timeout_mode", None)
        comment, batch_size = keywords.pop("comment", None), keywords.pop("batchSize", None)
        if batch_size is not None:
            check_count("batchSize", batch_size)
        max_await_time_ms = keywords.pop("maxAwaitTimeMS", None)
        operation = Aggregate(
            database,
            target,
            pipeline,
            read_fields(keywords, comment),
            batch_size=batch_size,
            reply_codec_options=reply_codec_options,
            write_concern=self._write_concern,
            **self._read_options(session),
        )
        return cursor(
            client,
            operation,
            batch_size=batch_size or 0,
            max_await_time_ms=max_await_time_ms,
            comment=comment,
            at_once=writes(pipeline),
            times=cursor_times(
                self._executor,
                self._timeout,
                timing,
                timeout_mode,
                session=session,
                writes=writes(pipeline),
                max_await_time_ms=max_await_time_ms,
            ),
        )


def option(name: str, value: Any, kind: type[Any], inherited: Any) -> Any:
    """An option: what was given, checked, else what is above.

    :raises TypeError: it is not of its type.
    """
    if value is None:
        return inherited
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be an instance of {kind.__name__.lstrip('_')}, not {type(value).__name__}")
    return value
