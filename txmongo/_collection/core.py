"""What all methods of a collection rest on: its names, its options, and how its operations are run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmongo._ops.arguments import check_collection_name
from txmongo._ops.base import Operation
from txmongo._ops.writes import WriteTarget
from txmongo._pymongo import ServerMode
from txmongo._scope import InnerScope
from txmongo.errors import OperationFailure
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool
    from txmongo.database import Database

__all__ = ["NAMESPACE_NOT_FOUND", "CollectionCore", "nothing"]

#: The server's error code for a collection that is not there.
NAMESPACE_NOT_FOUND = 26


class CollectionCore(InnerScope[DocumentType]):
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
        super().__init__(
            database,
            database.client,
            write_concern,
            codec_options,
            read_preference,
            read_concern,
            timeout_ms,
        )
        self._database = database
        self._database_name = database.name
        self._name = name
        self._write_target: WriteTarget | None = None

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
