"""What all methods of a collection rest on: its names, its options, and how its operations are run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from bson.codec_options import CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmongo._ops.arguments import (
    check_collection_name,
)
from txmongo._ops.base import Execute, Operation
from txmongo._ops.timeouts import seconds_of
from txmongo._ops.writes import WriteTarget
from txmongo._pymongo import ServerMode
from txmongo.errors import OperationFailure
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool
    from txmongo.database import Database

__all__ = ["NAMESPACE_NOT_FOUND", "CollectionCore", "nothing"]

#: The server's error code for a collection that is not there.
NAMESPACE_NOT_FOUND = 26


class CollectionCore(Generic[DocumentType]):
    """A collection by name, with its options; :class:`~txmongo.collection.Collection` without what it does."""

    def __init__(
        self,
        database: Database[DocumentType],
        name: str,
        write_concern: WriteConcern | None = None,
        codec_options: CodecOptions[DocumentType] | None = None,
        read_preference: ServerMode | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> None:
        check_collection_name(name)
        self._database = database
        self._database_name = database.name
        self._name = name
        self._codec_options: CodecOptions[Any] = _option(
            "codec_options", codec_options, CodecOptions, database.codec_options
        )
        self._read_preference: Any = _option("read_preference", read_preference, ServerMode, database.read_preference)
        self._write_concern: WriteConcern = _option(
            "write_concern", write_concern, WriteConcern, database.write_concern
        )
        self._read_concern: ReadConcern = _option("read_concern", read_concern, ReadConcern, database.read_concern)
        self._write_target: WriteTarget | None = None
        self._timeout = seconds_of(timeout_ms, database._timeout)
        executor = database.client._executor
        timeout = self._timeout
        self._execute: Execute[Any] = executor.execute if timeout is None else partial(executor.execute_timed, timeout)
        self._sessions = executor.sessions

    # --- what it is ---

    @property
    def name(self) -> str:
        """The collection's name, without the database's."""
        return self._name

    @property
    def full_name(self) -> str:
        """``database.collection``."""
        return f"{self._database_name}.{self._name}"

    @property
    def database(self) -> Database[DocumentType]:
        """The :class:`~txmongo.database.Database` that it belongs to."""
        return self._database

    @property
    def connection(self) -> ConnectionPool[DocumentType]:
        """The client; ``database.client`` under the name that it has in TxMongo."""
        return self._database.client

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
        return self._database.client._executor.within(self._timeout, timing, session)

    def _execute_unless_missing(self, operation: Operation[Any], timing: Mapping[str, Any]) -> Deferred[Any]:
        """Run an operation for which it is as good if the collection does not exist; the reply says if so."""
        return self._begin(timing, operation.session)(operation).addErrback(_ignore_missing)


def _ignore_missing(failure: Failure) -> Failure | Mapping[str, Any] | None:
    error = failure.value
    if isinstance(error, OperationFailure) and error.code == NAMESPACE_NOT_FOUND:
        return error.details
    return failure


def nothing(_: Any) -> None:
    """For what the server answers without saying anything."""


def _option(name: str, value: Any, kind: type[Any], inherited: Any) -> Any:
    """An option of a collection: what was given, checked, else what the database has."""
    if value is None:
        return inherited
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be an instance of {kind.__name__.lstrip('_')}, not {type(value).__name__}")
    return value
