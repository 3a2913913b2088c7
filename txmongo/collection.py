"""Collection: the methods that read and write documents, and those that manage the collection itself.

A method checks its arguments, makes an operation (:mod:`txmongo._ops`) and has the client's executor run it. Names,
arguments, defaults and results are those of PyMongo's ``AsyncCollection``. Kept: the CRUD, index management and
enumerating indexes specifications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from bson.code import Code
from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collation import Collation
from pymongo.operations import IndexModel
from pymongo.read_concern import ReadConcern
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmongo._legacy.arguments import also_named, formerly, index_arguments, takes_full_response, takes_let_second
from txmongo._legacy.collection import LegacyCollection, takes_old_arguments
from txmongo._legacy.deprecation import warn_deprecated
from txmongo._ops import admin, find_and_modify, insert
from txmongo._ops.aggregate import Aggregate, writes
from txmongo._ops.arguments import (
    check_array_filters,
    check_boolean,
    check_collection_name,
    check_document,
    check_mapping,
    check_optional_mapping,
    check_replacement,
    check_update,
    hint_value,
    index_document,
    index_name,
    projection_document,
    read_fields,
    with_comment,
)
from txmongo._ops.base import Execute, Operation, check_acknowledged_option, collation_document
from txmongo._ops.client_sessions import check_session, effective_write_concern
from txmongo._ops.count import Count, CountDocuments, EstimatedDocumentCount
from txmongo._ops.cursor_times import cursor_times
from txmongo._ops.delete import DeleteMany, DeleteOne, delete_statement
from txmongo._ops.distinct import Distinct
from txmongo._ops.find import FindOne, check_count, find_one_template
from txmongo._ops.indexes import CreateIndexes, DropIndexes, ListIndexes
from txmongo._ops.map_reduce import MapReduce
from txmongo._ops.timeouts import Timing, seconds_of, take_timing
from txmongo._ops.update import UpdateMany, UpdateOne, update_statement
from txmongo._ops.writes import WriteTarget, write_options
from txmongo._pymongo import ServerMode
from txmongo.bulk import Bulk, documents_with_ids, insert_run, runs_of
from txmongo.cursor import CommandCursor, Cursor, RawBatchCommandCursor, RawBatchCursor
from txmongo.errors import ConfigurationError, OperationFailure
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool
    from txmongo.database import Database
    from txmongo.types import IndexKeys, Pipeline

__all__ = ["Collection"]

CursorT = TypeVar("CursorT")

_NAMESPACE_NOT_FOUND = 26


class Collection(LegacyCollection, Generic[DocumentType]):
    """A collection of a database, with the options for what is done through this object.

    Get one by ``database.name`` or ``database["name"]``; a collection's attributes and items are its subcollections. It
    costs nothing and says nothing about whether the server has such a collection.

    Every method that talks to the server returns a Deferred (or a cursor, which is one). What is wrong with the
    arguments is raised at the call: :class:`TypeError`, :class:`ValueError`, :class:`~txmongo.errors.InvalidName`,
    :class:`~txmongo.errors.ConfigurationError`. Beside what a method's own description says, every Deferred can fail
    with:

    - :class:`~txmongo.errors.ServerSelectionTimeoutError`: no suitable server within ``serverSelectionTimeoutMS``;
    - :class:`~txmongo.errors.WaitQueueTimeoutError`: no connection came free within ``waitQueueTimeoutMS``, or
      ``waitQueueSize`` operations of the client were waiting already;
    - :class:`~txmongo.errors.AutoReconnect`, :class:`~txmongo.errors.NetworkTimeout` or
      :class:`~txmongo.errors.NotPrimaryError`: the connection or the primary was lost. A write may have been carried
      out;
    - :class:`~txmongo.errors.OperationFailure`: the server refused the command (or ran out of time for it:
      :class:`~txmongo.errors.ExecutionTimeout`);
    - :class:`bson.errors.InvalidDocument` or :class:`~txmongo.errors.DocumentTooLarge`: a document that BSON cannot
      hold or the server does not take;
    - :class:`~txmongo.errors.InvalidOperation`: the client was disconnected;
    - ``CancelledError``: the Deferred was cancelled. **A cancelled write may still be carried out**: it was sent,
      unless no connection was ready.

    Nearly all take ``session``, a :class:`~txmongo.sessions.ClientSession` of the same client, in which the operation
    is then done; it is part of the session's transaction if there is one. At the call
    :class:`~txmongo.errors.InvalidOperation` is raised if the session has ended or is another client's, and
    :class:`ValueError` if it is no session or the write is unacknowledged (``w=0``).

    All take ``timeout_ms``, in milliseconds, and TxMongo's ``timeout``, in seconds, and ``deadline``, a point on
    ``reactor.seconds()``: how long this one call may take, see :doc:`/timeouts`. When that is over the Deferred fails
    with an error whose ``timeout`` is true; after ``timeout`` and ``deadline`` with
    :class:`~txmongo.errors.TimeExceeded`.

    :param database: the :class:`~txmongo.database.Database`.
    :param name: the collection's name.
    :param write_concern: and the other options: those of the database unless they are given.
    :raises TypeError: an argument is not of its type.
    :raises InvalidName: the name is not one that a collection can have.
    """

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

    def with_options(
        self,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> Collection[Any]:
        """The same collection with other options; those that are ``None`` stay as they are.

        :param codec_options: how documents are encoded and decoded.
        :param read_preference: which members of a replica set are read from.
        :param write_concern: when the server acknowledges a write.
        :param read_concern: how far what is read must have spread.
        :param timeout_ms: milliseconds that each operation may last; 0 for no limit.
        :returns: a new :class:`Collection`; nothing is sent.
        """
        return Collection(
            self._database,
            self._name,
            self._write_concern if write_concern is None else write_concern,
            self._codec_options if codec_options is None else codec_options,
            self._read_preference if read_preference is None else read_preference,
            self._read_concern if read_concern is None else read_concern,
            self.timeout_ms if timeout_ms is None else timeout_ms,
        )

    def __getattr__(self, name: str) -> Collection[DocumentType]:
        """The subcollection ``name``; a name with an underscore in front needs ``collection["_name"]``."""
        if name.startswith("_"):
            full_name = f"{self.__dict__.get('_name', 'collection')}.{name}"
            raise AttributeError(
                f"Collection has no attribute {name!r}; the collection {full_name} is database[{full_name!r}]"
            )
        return self[name]

    def __getitem__(self, name: str) -> Collection[DocumentType]:
        """The subcollection ``name``, with the same options."""
        return Collection(
            self._database,
            f"{self._name}.{name}",
            self._write_concern,
            self._codec_options,
            self._read_preference,
            self._read_concern,
            self.timeout_ms,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Collection[DocumentType]:
        """The subcollection of that name, as in TxMongo 15.2.

        :raises TypeError: for anything else than one str: most likely a method was meant that does not exist.
        """
        if len(args) == 1 and not kwargs and isinstance(args[0], str):
            return self[args[0]]
        method = self._name.rpartition(".")[2]
        raise TypeError(
            f"'Collection' object is not callable: if a method {method!r} was meant, a Collection has none of that name"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Collection):
            return bool(self._database == other._database) and self._name == other._name
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._database, self._name))

    # Items are subcollections without end, so iteration has to be refused.
    __iter__ = None

    def __str__(self) -> str:
        return self.full_name

    def __repr__(self) -> str:
        return f"Collection({self._database!r}, {self._name!r})"

    @cached_property
    def _find_one_template(self) -> tuple[bytes, bytes] | None:
        return find_one_template(self._database_name, self._name, self._codec_options, self._read_concern)

    @cached_property
    def _insert_template(self) -> tuple[bytes, bytes] | None:
        return insert.insert_template(self._target)

    def _begin(self, timing: Mapping[str, Any], session: Any = None) -> Execute[Any]:
        """How the operations of one call are run; if their time is limited it begins now, for all of them together."""
        if not timing and self._timeout is None:
            return self._execute
        return self._database.client._executor.within(self._timeout, timing, session)

    @property
    def _target(self) -> WriteTarget:
        """What write operations need to know of this collection; made at the first one."""
        target = self._write_target
        if target is None:
            target = self._write_target = WriteTarget.create(
                self._database_name, self._name, self._codec_options, self._write_concern
            )
        return target

    def _target_in(self, session: Any) -> WriteTarget:
        """The target of a write in a session; in a transaction it has no write concern of its own.

        :raises InvalidOperation: the session has ended or is another client's.
        :raises ValueError: it is no session, or the write is unacknowledged.
        """
        if session is None:
            return self._target
        own = self._write_concern
        check_session(session, self._sessions, own.acknowledged)
        write_concern = effective_write_concern(session, own)
        if write_concern is own:
            return self._target
        return WriteTarget.create(self._database_name, self._name, self._codec_options, write_concern)

    # --- inserting ---

    def insert_one(
        self,
        document: Any,
        bypass_document_validation: bool | None = None,
        session: Any = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[InsertOneResult]:
        """Store one document.

        :param document: a mutable mapping, which is given an ``_id`` if it has none, or raw BSON.
        :param bypass_document_validation: store it even if it fails the collection's validator.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with an :class:`~pymongo.results.InsertOneResult`. It fails with
            :class:`~txmongo.errors.DuplicateKeyError` if a unique index has such a key already,
            :class:`~txmongo.errors.WriteError` if the document is refused,
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was stored but
            the write concern could not be kept, and as every operation (see the class).
        """
        target = self._target if session is None else self._target_in(session)
        # Asking an abstract class about every document would cost more than all that is done with most of them here.
        if type(document) is not dict:
            check_document("document", document)
        if (type(document) is dict or not isinstance(document, RawBSONDocument)) and "_id" not in document:
            document["_id"] = ObjectId()
        options = write_options(comment, None, bypass_document_validation)
        execute = self._begin(timing, session) if timing else self._execute
        return execute(
            insert.InsertOne(target, document, options, session, self._insert_template if options is None else None)
        )

    def insert_many(
        self,
        documents: Iterable[Any],
        ordered: bool = True,
        bypass_document_validation: bool | None = None,
        session: Any = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[InsertManyResult]:
        """Store documents, in as few commands as the server's limits allow.

        :param documents: as for :meth:`insert_one`; any iterable that is not empty.
        :param ordered: stop at the first document that is refused; else the others are stored all the same.
        :param bypass_document_validation: store them even if they fail the collection's validator.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with an :class:`~pymongo.results.InsertManyResult`. It fails with
            :class:`~txmongo.errors.BulkWriteError`, whose ``details`` tell what was stored, if a document is refused or
            the write concern could not be kept, and as every operation (see the class).
        """
        target = self._target_in(session)
        inserted, ids = documents_with_ids(documents)
        bulk = Bulk(
            self._begin(timing, session),
            target,
            [insert_run(inserted)],
            ordered=ordered,
            comment=comment,
            bypass_document_validation=bypass_document_validation,
            session=session,
        )
        return bulk.send().addCallback(lambda result: InsertManyResult(ids, result is not None))

    # --- updating ---

    def replace_one(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        upsert: bool = False,
        bypass_document_validation: bool | None = None,
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        sort: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[UpdateResult]:
        """Replace one document that matches.

        :param filter: which document.
        :param replacement: the new document, without operators; ``_id`` stays the same.
        :param upsert: insert it if no document matches.
        :param sort: which document of those that match comes first (MongoDB 8.0).
        :param bypass_document_validation: and the other arguments: see :meth:`update_one`.
        :returns: a Deferred that fires, and fails, as that of :meth:`update_one`.
        """
        check_replacement(replacement)
        return self._update(
            UpdateOne,
            filter,
            replacement,
            session,
            comment,
            let,
            bypass_document_validation,
            timing,
            upsert=upsert,
            collation=collation,
            hint=hint,
            sort=sort,
        )

    def update_one(
        self,
        filter: Mapping[str, Any],
        update: Mapping[str, Any] | Pipeline,
        upsert: bool = False,
        bypass_document_validation: bool | None = None,
        collation: Collation | Mapping[str, Any] | None = None,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        sort: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[UpdateResult]:
        """Change one document that matches.

        :param filter: which document.
        :param update: operators such as ``{"$set": {...}}``, or a list of stages.
        :param upsert: insert a document made of ``filter`` and ``update`` if none matches.
        :param bypass_document_validation: do it even if the result fails the collection's validator.
        :param collation: the language's rules for comparing strings; not with ``w=0``.
        :param array_filters: which array elements ``$[name]`` stands for; not with ``w=0``.
        :param hint: the name or the keys of the index to use.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param sort: which document of those that match comes first (MongoDB 8.0).
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with an :class:`~pymongo.results.UpdateResult`. It fails with
            :class:`~txmongo.errors.DuplicateKeyError` if the result would break a unique index,
            :class:`~txmongo.errors.WriteError` if the update is refused,
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was carried out
            but the write concern could not be kept, and as every operation (see the class).
        """
        check_update(update)
        return self._update(
            UpdateOne,
            filter,
            update,
            session,
            comment,
            let,
            bypass_document_validation,
            timing,
            upsert=upsert,
            collation=collation,
            array_filters=array_filters,
            hint=hint,
            sort=sort,
        )

    def update_many(
        self,
        filter: Mapping[str, Any],
        update: Mapping[str, Any] | Pipeline,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        bypass_document_validation: bool | None = None,
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[UpdateResult]:
        """Change all documents that match; never retried, for it may have been carried out in part.

        :param filter: which documents.
        :param update: and the other arguments: see :meth:`update_one`.
        :returns: a Deferred that fires, and fails, as that of :meth:`update_one`.
        """
        check_update(update)
        return self._update(
            UpdateMany,
            filter,
            update,
            session,
            comment,
            let,
            bypass_document_validation,
            timing,
            upsert=upsert,
            collation=collation,
            array_filters=array_filters,
            hint=hint,
        )

    def _update(
        self,
        operation: type[UpdateMany],
        filter: Any,
        update: Any,
        session: Any,
        comment: Any,
        let: Any,
        bypass_document_validation: Any,
        timing: Timing,
        **options: Any,
    ) -> Deferred[UpdateResult]:
        target = self._target_in(session)
        check_optional_mapping("let", let)
        statement = update_statement(
            filter, update, multi=operation is UpdateMany, acknowledged=target.acknowledged, **options
        )
        fields = write_options(comment, let, bypass_document_validation)
        return self._begin(timing, session)(operation(target, statement, fields, session))

    # --- deleting ---

    @takes_let_second
    def delete_one(
        self,
        filter: Mapping[str, Any],
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[DeleteResult]:
        """Remove one document that matches.

        :param filter: which document.
        :param collation: the language's rules for comparing strings; not with ``w=0``.
        :param hint: the name or the keys of the index to use.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a :class:`~pymongo.results.DeleteResult`. It fails with
            :class:`~txmongo.errors.WriteError` if the server refuses it,
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was carried out
            but the write concern could not be kept, and as every operation (see the class).
        """
        return self._delete(DeleteOne, False, filter, collation, hint, session, let, comment, timing)

    @takes_let_second
    def delete_many(
        self,
        filter: Mapping[str, Any],
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[DeleteResult]:
        """Remove all documents that match; never retried, for it may have been carried out in part.

        :param filter: which documents; ``{}`` removes them all.
        :param collation: and the other arguments: see :meth:`delete_one`.
        :returns: a Deferred that fires, and fails, as that of :meth:`delete_one`.
        """
        return self._delete(DeleteMany, True, filter, collation, hint, session, let, comment, timing)

    def _delete(
        self,
        operation: type[DeleteMany],
        multi: bool,
        filter: Any,
        collation: Any,
        hint: Any,
        session: Any,
        let: Any,
        comment: Any,
        timing: Timing,
    ) -> Deferred[DeleteResult]:
        target = self._target_in(session)
        check_optional_mapping("let", let)
        statement = delete_statement(
            filter, multi=multi, collation=collation, hint=hint, acknowledged=target.acknowledged
        )
        return self._begin(timing, session)(operation(target, statement, write_options(comment, let), session))

    # --- finding and changing in one step ---

    def find_one_and_delete(
        self,
        filter: Mapping[str, Any],
        projection: Mapping[str, Any] | Sequence[str] | None = None,
        sort: IndexKeys | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[DocumentType | None]:
        """Remove one document that matches, and get it.

        :param filter: which document.
        :param projection: which of its fields.
        :param sort: which document of those that match comes first.
        :param hint: the name or the keys of the index to use.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the ``findAndModify`` command, such as ``collation`` and ``maxTimeMS``.
        :returns: a Deferred that fires with the document, or ``None`` if none matched or with ``w=0``. It fails with
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was carried out
            but the write concern could not be kept, and as every operation (see the class).
        """
        timing = take_timing(kwargs)
        fields = {"remove": True, **kwargs}
        return self._find_and_modify(filter, fields, projection, sort, hint, session, let, comment, timing)

    def find_one_and_replace(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        projection: Mapping[str, Any] | Sequence[str] | None = None,
        sort: IndexKeys | None = None,
        upsert: bool = False,
        return_document: bool = False,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[DocumentType | None]:
        """Replace one document that matches, and get it.

        :param replacement: the new document, without operators; ``_id`` stays the same.
        :param upsert: insert it if no document matches.
        :param return_document: ``ReturnDocument.AFTER`` for the new document; the default is the old one.
        :param filter: and the other arguments: see :meth:`find_one_and_delete`.
        :returns: a Deferred that fires with the document, or ``None`` if none matched (with ``upsert`` and without
            ``AFTER``: if none was there before). It fails with :class:`~txmongo.errors.DuplicateKeyError` if the result
            would break a unique index, and as that of :meth:`find_one_and_delete`.
        """
        check_replacement(replacement)
        timing = take_timing(kwargs)
        fields = self._changing_fields(replacement, upsert, return_document, kwargs)
        return self._find_and_modify(filter, fields, projection, sort, hint, session, let, comment, timing)

    def find_one_and_update(
        self,
        filter: Mapping[str, Any],
        update: Mapping[str, Any] | Pipeline,
        projection: Mapping[str, Any] | Sequence[str] | None = None,
        sort: IndexKeys | None = None,
        upsert: bool = False,
        return_document: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[DocumentType | None]:
        """Change one document that matches, and get it.

        :param update: operators such as ``{"$inc": {"n": 1}}``, or a list of stages.
        :param upsert: insert a document made of ``filter`` and ``update`` if none matches.
        :param return_document: ``ReturnDocument.AFTER`` for the document after the change; the default is before.
        :param array_filters: which array elements ``$[name]`` stands for; not with ``w=0``.
        :param filter: and the other arguments: see :meth:`find_one_and_delete`.
        :returns: a Deferred that fires, and fails, as that of :meth:`find_one_and_replace`.
        """
        check_update(update)
        check_array_filters(array_filters)
        check_acknowledged_option("array_filters", array_filters, self._target_in(session).acknowledged)
        timing = take_timing(kwargs)
        fields = self._changing_fields(update, upsert, return_document, kwargs)
        if array_filters is not None:
            fields["arrayFilters"] = array_filters
        return self._find_and_modify(filter, fields, projection, sort, hint, session, let, comment, timing)

    @staticmethod
    def _changing_fields(update: Any, upsert: Any, return_document: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        check_boolean("upsert", upsert)
        if not isinstance(return_document, bool):
            raise TypeError(
                "return_document must be ReturnDocument.BEFORE or ReturnDocument.AFTER, "
                f"not {type(return_document).__name__}"
            )
        return {"update": update, "new": return_document, "upsert": upsert, **kwargs}

    def _find_and_modify(
        self,
        filter: Any,
        fields: dict[str, Any],
        projection: Any,
        sort: Any,
        hint: Any,
        session: Any,
        let: Any,
        comment: Any,
        timing: dict[str, Any],
    ) -> Deferred[Any]:
        target = self._target_in(session)
        if session is not None:
            self._check_own_write_concern(session, fields)
        check_mapping("filter", filter)
        check_optional_mapping("let", let)
        given = {
            "fields": projection_document(projection),
            "sort": None if sort is None else index_document("sort", sort),
            "hint": hint_value(hint),
            "let": let,
            "comment": comment,
            "collation": collation_document(fields.pop("collation", None)),
        }
        fields.update((name, value) for name, value in given.items() if value is not None)
        return self._begin(timing, session)(find_and_modify.FindAndModify(target, filter, fields, session))

    def _check_own_write_concern(self, session: Any, fields: dict[str, Any]) -> None:
        """Treat a ``writeConcern`` among the fields of a command as the collection's is treated in a session."""
        own = fields.get("writeConcern")
        if own is not None:
            check_session(session, self._sessions, own.get("w", 1) != 0)
            if session.transaction.active:
                del fields["writeConcern"]

    # --- many writes of several kinds ---

    def bulk_write(
        self,
        requests: Sequence[Any],
        ordered: bool = True,
        bypass_document_validation: bool | None = None,
        session: Any = None,
        comment: Any = None,
        let: Mapping[str, Any] | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[BulkWriteResult]:
        """Carry out writes of any kind in as few commands as their order and the server's limits allow.

        ::

            result = await collection.bulk_write([InsertOne({"_id": 1}), UpdateOne({"_id": 2}, {"$set": {"a": 1}})])

        :param requests: :class:`~pymongo.operations.InsertOne`, :class:`~pymongo.operations.UpdateOne`,
            :class:`~pymongo.operations.UpdateMany`, :class:`~pymongo.operations.ReplaceOne`,
            :class:`~pymongo.operations.DeleteOne` and :class:`~pymongo.operations.DeleteMany` objects.
        :param ordered: carry them out in this order and stop at the first that is refused; else the server may see them
            in another order, and all are tried.
        :param bypass_document_validation: do it even if documents fail the collection's validator; not with ``w=0``.
        :param let: variables for ``$$name`` in expressions of updates and deletes (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a :class:`~pymongo.results.BulkWriteResult`. It fails with
            :class:`~txmongo.errors.BulkWriteError`, whose ``details`` tell what was done and what was not, if a write
            is refused or the write concern could not be kept, and as every operation (see the class): also then earlier
            commands of it may have been carried out. What is known to have been done is the ``partial_result`` of such
            an error, a :class:`~pymongo.results.BulkWriteResult`.
        """
        target = self._target_in(session)
        check_optional_mapping("let", let)
        write_concern = effective_write_concern(session, self._write_concern)
        runs = runs_of(requests, ordered=ordered, write_concern=write_concern)
        if bypass_document_validation is not None and not write_concern.acknowledged:
            raise OperationFailure("bypass_document_validation cannot be set with an unacknowledged write concern")
        bulk = Bulk(
            self._begin(timing, session),
            target,
            runs,
            ordered=ordered,
            comment=comment,
            let=let,
            bypass_document_validation=bypass_document_validation,
            session=session,
        )
        return bulk.send().addCallback(lambda result: BulkWriteResult(result or {}, result is not None))

    # --- finding ---

    def find_one(self, filter: Any = None, /, *args: Any, **kwargs: Any) -> Deferred[DocumentType | None]:
        """Find one document.

        :param filter: which document; anything but a mapping is taken for an ``_id``.
        :param args: and ``kwargs``: further arguments of :meth:`find`, such as ``projection`` and ``sort``.
        :returns: a Deferred that fires with the document, or ``None`` if none matches. It fails as every operation (see
            the class).
        """
        if args or kwargs:
            given = () if filter is None and not args else (filter, *args)
            timing = take_timing(kwargs)
            find_one = self._find_one_as_asked(given, kwargs)._find_one()
            return self._begin(timing, find_one.session)(find_one)
        if filter is None:
            filter = {}
        elif not isinstance(filter, (dict, Mapping)):
            filter = {"_id": filter}
        return self._execute(
            FindOne(
                self._database_name,
                self._name,
                filter,
                None,
                self._codec_options,
                self._read_preference,
                self._read_concern,
                None,
                self._find_one_template,
            )
        )

    @takes_old_arguments
    def find(
        self,
        filter: Mapping[str, Any] | None = None,
        projection: Mapping[str, Any] | Iterable[str] | None = None,
        skip: int = 0,
        limit: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> Cursor[DocumentType]:
        """Find documents.

        ::

            documents = await collection.find({"x": {"$gt": 1}}, sort=[("x", -1)], limit=10)
            async for document in collection.find().sort("x"):
                ...

        :param filter: which documents; all of them if it is not given.
        :param projection: which of their fields: a mapping, or a list of names.
        :param skip: how many documents to leave out at the start.
        :param limit: how many documents at most; 0 for all.
        :param args: the arguments that follow by position, in this order; better by name.
        :param kwargs: those that follow by name, and those of TxMongo 15.2 (see :doc:`/migrating_15`).
        :param no_cursor_timeout: the server keeps the cursor however long it is not used. Default false.
        :param cursor_type: a constant of :class:`pymongo.CursorType`; default ``NON_TAILABLE``.
        :param sort: a list of ``(key, direction)`` pairs, or a mapping.
        :param allow_partial_results: take what there is when shards of a cluster do not answer. Default false.
        :param oplog_replay: no effect on servers of today. Default false.
        :param batch_size: how many documents the server sends at once; 0 leaves it to the server.
        :param collation: the language's rules for comparing strings.
        :param hint: the name or the keys of the index to use.
        :param max_scan: no server of today takes it.
        :param max_time_ms: milliseconds that the server may work; then :class:`~txmongo.errors.ExecutionTimeout`.
        :param max: the exclusive upper bound of the hinted index; a list of pairs.
        :param min: the inclusive lower bound of the hinted index; a list of pairs.
        :param return_key: get the index keys instead of the documents.
        :param show_record_id: add the storage's own id to each document, as ``$recordId``.
        :param snapshot: no server of today takes it.
        :param comment: any BSON value, for the server's log and profiler.
        :param session: see the class.
        :param allow_disk_use: the server may sort with files when memory does not suffice.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param max_await_time_ms: milliseconds that the server waits for more in each batch of a ``TAILABLE_AWAIT``
            cursor.
        :param timeout_mode: what ``timeoutMS`` limits: ``"cursorLifetime"``, the default, all commands of the cursor
            together; ``"iteration"``, the only one for tailable cursors, each wait for more documents.
        :returns: a :class:`~txmongo.cursor.Cursor`, which is a Deferred of the list and more; nothing is sent before it
            is used. It fails as every operation (see the class).
        """
        return Cursor(self, filter, projection, skip, limit, *args, **kwargs)

    def find_raw_batches(self, *args: Any, **kwargs: Any) -> RawBatchCursor:
        """Find documents and leave them undecoded.

        :param args: and ``kwargs``: the arguments of :meth:`find`.
        :returns: a :class:`~txmongo.cursor.RawBatchCursor`, each item of which is a batch: BSON as bytes. It fails as
            every operation (see the class).
        """
        return RawBatchCursor(self, *args, **kwargs)

    @takes_full_response
    def aggregate(
        self,
        pipeline: Pipeline,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> CommandCursor[DocumentType]:
        """Run an aggregation pipeline.

        :param pipeline: the list of stages. One that ends with ``$out`` or ``$merge`` is sent at once.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: TxMongo's ``full_response`` and ``initial_batch_size`` (another name of ``batchSize``), which may
            be second and third. With ``full_response=True`` the Deferred fires with ``{"result": [...], "ok": 1.0}``.
            Further fields of the command: ``allowDiskUse``, ``maxTimeMS``, ``batchSize``, ``collation``,
            ``hint``, ``bypassDocumentValidation``, and ``maxAwaitTimeMS`` for pipelines that wait for data; and
            ``timeout_mode`` as of :meth:`find`.
        :returns: a :class:`~txmongo.cursor.CommandCursor`, which is a Deferred of the list of results and more. It
            fails with :class:`~txmongo.errors.WriteConcernError` if ``$out`` or ``$merge`` was carried out but the
            write concern could not be kept, and as every operation (see the class).
        """
        return self._aggregate(CommandCursor, pipeline, session, let, comment, kwargs)

    def aggregate_raw_batches(
        self, pipeline: Pipeline, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> RawBatchCommandCursor:
        """Run an aggregation pipeline and leave the results undecoded.

        :param pipeline: and the other arguments: see :meth:`aggregate`.
        :returns: a :class:`~txmongo.cursor.RawBatchCommandCursor`, each item of which is a batch: BSON as bytes. It
            fails as that of :meth:`aggregate`.
        """
        return self._aggregate(RawBatchCommandCursor, pipeline, session, None, comment, kwargs)

    def _aggregate(
        self,
        cursor: Callable[..., CursorT],
        pipeline: Any,
        session: Any,
        let: Any,
        comment: Any,
        kwargs: dict[str, Any],
    ) -> CursorT:
        check_session(session, self._sessions)
        if not isinstance(pipeline, list):
            raise TypeError(f"pipeline must be a list of stages, not {type(pipeline).__name__}")
        check_optional_mapping("let", let)
        timing, timeout_mode = take_timing(kwargs), kwargs.pop("timeout_mode", None)
        batch_size = kwargs.pop("batchSize", None)
        if batch_size is not None:
            check_count("batchSize", batch_size)
        max_await_time_ms = kwargs.pop("maxAwaitTimeMS", None)
        reply_codec_options = self._codec_options
        if cursor == RawBatchCommandCursor:
            reply_codec_options = reply_codec_options.with_options(document_class=RawBSONDocument, type_registry=None)
        operation = Aggregate(
            self._database_name,
            self._name,
            pipeline,
            read_fields({**kwargs, "let": let}, comment),
            batch_size=batch_size,
            reply_codec_options=reply_codec_options,
            write_concern=self._write_concern,
            **self._read_options(session),
        )
        return cursor(
            self._database.client,
            operation,
            batch_size=batch_size or 0,
            max_await_time_ms=max_await_time_ms,
            comment=comment,
            at_once=writes(pipeline),
            times=cursor_times(
                self._database.client._executor,
                self._timeout,
                timing,
                timeout_mode,
                session=session,
                writes=writes(pipeline),
                max_await_time_ms=max_await_time_ms,
            ),
        )

    # --- counting ---

    def count_documents(
        self, filter: Mapping[str, Any], session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[int]:
        """Count the documents that match, by looking at them.

        :param filter: which documents; ``{}`` counts all.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: ``skip``, ``limit``, ``maxTimeMS`` (or ``max_time_ms``), ``collation`` and ``hint``.
        :returns: a Deferred that fires with the number. It fails as every operation (see the class).
        """
        check_session(session, self._sessions)
        check_mapping("filter", filter)
        timing = take_timing(kwargs)
        fields = read_fields(kwargs, comment)
        options = self._read_options(session)
        return self._begin(timing, session)(CountDocuments(self._database_name, self._name, filter, fields, **options))

    def estimated_document_count(self, comment: Any = None, **kwargs: Any) -> Deferred[int]:
        """How many documents there are according to the collection's metadata: fast, and not exact after a crash.

        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: ``maxTimeMS`` (or ``max_time_ms``).
        :returns: a Deferred that fires with the number. It fails as every operation (see the class).
        """
        if "session" in kwargs:
            raise ConfigurationError("session: estimated_document_count does not support sessions")
        timing = take_timing(kwargs)
        fields = read_fields(kwargs, comment)
        return self._begin(timing)(
            EstimatedDocumentCount(self._database_name, self._name, fields, **self._read_options())
        )

    @formerly(spec="filter")
    def count(
        self, filter: Mapping[str, Any] | None = None, fields: Any = None, session: Any = None, **kwargs: Any
    ) -> Deferred[int]:
        """Count documents by the ``count`` command, which may be wrong on a sharded cluster.

        Use :meth:`count_documents` or :meth:`estimated_document_count`; this one is TxMongo's.

        :param filter: which documents; all of them if it is not given.
        :param fields: without effect, as ever; deprecated.
        :param kwargs: as of :meth:`count_documents`.
        :returns: a Deferred that fires with the number. It fails as every operation (see the class).
        """
        if fields is not None:
            warn_deprecated(
                "the argument fields of Collection.count", "nothing in its place: it has no effect", stacklevel=3
            )
        check_session(session, self._sessions)
        check_optional_mapping("filter", filter)
        timing = take_timing(kwargs)
        fields = read_fields(kwargs, None)
        return self._begin(timing, session)(
            Count(self._database_name, self._name, filter, fields, **self._read_options(session))
        )

    @formerly(spec="filter")
    def distinct(
        self,
        key: str,
        filter: Mapping[str, Any] | None = None,
        session: Any = None,
        comment: Any = None,
        hint: IndexKeys | None = None,
        **kwargs: Any,
    ) -> Deferred[list[Any]]:
        """The different values that a key has.

        :param key: its name, with dots for keys of embedded documents; elements of arrays count one by one.
        :param filter: in which documents; in all of them if it is not given.
        :param hint: the name or the keys of the index to use (MongoDB 7.1).
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: ``maxTimeMS`` (or ``max_time_ms``) and ``collation``.
        :returns: a Deferred that fires with a list of the values. It fails as every operation (see the class).
        """
        check_session(session, self._sessions)
        if not isinstance(key, str):
            raise TypeError(f"key must be a str, not {type(key).__name__}")
        check_optional_mapping("filter", filter)
        timing = take_timing(kwargs)
        fields = read_fields({**kwargs, "hint": hint}, comment)
        options = self._read_options(session)
        return self._begin(timing, session)(Distinct(self._database_name, self._name, key, filter, fields, **options))

    def map_reduce(
        self,
        map: str | Code,
        reduce: str | Code,
        full_response: bool = False,
        *,
        out: str | Mapping[str, Any],
        session: Any = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[Any]:
        """Map documents to keys and values and reduce the values of each key, by functions in JavaScript.

        ::

            await collection.map_reduce(
                "function() { emit(this.colour, this.count) }",
                "function(key, values) { return Array.sum(values) }",
                out={"inline": 1},
            )

        MongoDB 5.0 deprecates it: :meth:`aggregate` does the same faster. It is sent once, whatever becomes of it.

        :param map: emits keys and values for the document that is ``this``.
        :param reduce: makes one value of the array of values of a key.
        :param full_response: whether the Deferred fires with the server's whole reply.
        :param out: ``{"inline": 1}`` for the results; or where the server stores them: the name of a collection, whose
            documents they replace, or a document such as ``{"merge": "name"}``.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command: ``query``, ``sort``, ``limit``, ``finalize``, ``scope``,
            ``verbose``, ``bypassDocumentValidation``, ``collation``, ``maxTimeMS`` (or ``max_time_ms``).
        :returns: a Deferred that fires with the list of results, documents with ``_id`` and ``value``; with ``None`` if
            they are stored. It fails with :class:`~txmongo.errors.WriteConcernError` if they were stored but the write
            concern could not be kept, and as every operation (see the class).
        """
        check_session(session, self._sessions)
        check_boolean("full_response", full_response)
        if not isinstance(out, (str, Mapping)):
            raise TypeError(f"out must be a str or a mapping, not {type(out).__name__}")
        timing = take_timing(kwargs)
        fields = read_fields(kwargs, comment)
        if "sort" in fields:
            fields["sort"] = index_document("sort", fields["sort"])
        operation = MapReduce(
            self._database_name,
            self._name,
            _javascript("map", map),
            _javascript("reduce", reduce),
            out,
            fields,
            write_concern=self._write_concern,
            **self._read_options(session),
        )
        reply = self._begin(timing, session)(operation)
        return reply if full_response else reply.addCallback(_results)

    def _read_options(self, session: Any = None) -> dict[str, Any]:
        return {
            "session": session,
            "codec_options": self._codec_options,
            "read_preference": self._read_preference,
            "read_concern": self._read_concern,
        }

    # --- indexes ---

    @also_named(sort_fields="keys")
    def create_index(self, keys: IndexKeys, session: Any = None, comment: Any = None, **kwargs: Any) -> Deferred[str]:
        """Create an index; nothing is changed if there is such a one.

        ::

            await collection.create_index([("name", ASCENDING), ("age", DESCENDING)], unique=True)

        :param keys: a key, or a list of keys and ``(key, direction)`` pairs, or a mapping; or a sort order of
            :mod:`txmongo.filter`.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: ``name``, ``unique``, ``sparse``, ``expireAfterSeconds``, ``partialFilterExpression``,
            ``collation``, ``hidden``, ``wildcardProjection`` and what else the server has; ``maxTimeMS`` and
            ``commitQuorum`` are the command's.
        :returns: a Deferred that fires with the index's name. It fails with
            :class:`~txmongo.errors.WriteConcernError` if the write concern could not be kept, and as every operation
            (see the class).
        """
        options = {name: kwargs.pop(name) for name in ("maxTimeMS", "commitQuorum") if name in kwargs} | take_timing(
            kwargs
        )
        keys, kwargs = index_arguments(keys, kwargs)
        created = self.create_indexes([IndexModel(keys, **kwargs)], session, comment, **options)
        return created.addCallback(lambda names: names[0])

    ensure_index = create_index

    def create_indexes(
        self, indexes: Sequence[IndexModel], session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[list[str]]:
        """Create indexes in one command.

        :param indexes: :class:`~pymongo.operations.IndexModel` objects.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``commitQuorum`` and ``maxTimeMS``.
        :returns: a Deferred that fires with the list of their names. It fails as that of :meth:`create_index`.
        """
        check_session(session, self._sessions)
        if not isinstance(indexes, list):
            raise TypeError(f"indexes must be a list, not {type(indexes).__name__}")
        for index in indexes:
            if not isinstance(index, IndexModel):
                raise TypeError(f"indexes must be a list of IndexModel objects, not of {type(index).__name__}")
        timing = take_timing(kwargs)
        return self._begin(timing, session)(
            CreateIndexes(
                self._database_name,
                self._name,
                [index.document for index in indexes],
                with_comment(kwargs, comment),
                codec_options=self._codec_options,
                write_concern=self._write_concern,
                session=session,
            )
        )

    @also_named(index_identifier="index_or_name")
    def drop_index(
        self, index_or_name: IndexKeys, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[None]:
        """Drop an index; that the collection does not exist is no error.

        :param index_or_name: the index's name, or its keys as given to :meth:`create_index` without a name.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo.errors.OperationFailure` (code 27)
            if there is no such index, and as that of :meth:`create_index`.
        """
        check_session(session, self._sessions)
        name = index_or_name
        if not isinstance(name, str):
            name = index_name(index_document("index_or_name", name))
        timing = take_timing(kwargs)
        operation = DropIndexes(
            self._database_name,
            self._name,
            name,
            with_comment(kwargs, comment),
            write_concern=self._write_concern,
            session=session,
        )
        return self._execute_unless_missing(operation, timing).addCallback(_nothing)

    def drop_indexes(self, session: Any = None, comment: Any = None, **kwargs: Any) -> Deferred[None]:
        """Drop all indexes but that on ``_id``; that the collection does not exist is no error.

        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with ``None``. It fails as that of :meth:`create_index`.
        """
        return self.drop_index("*", session, comment, **kwargs)

    def list_indexes(
        self, session: Any = None, comment: Any = None, *, timeout_mode: str | None = None, **timing: Unpack[Timing]
    ) -> CommandCursor[MutableMapping[str, Any]]:
        """The indexes as the server describes them; none if the collection does not exist.

        :param comment: any BSON value, for the server's log and profiler.
        :param timeout_mode: as of :meth:`find`.
        :returns: a :class:`~txmongo.cursor.CommandCursor`, which is a Deferred of the list and more. It fails as every
            operation (see the class).
        """
        check_session(session, self._sessions)
        operation = ListIndexes(
            self._database_name,
            self._name,
            with_comment({}, comment),
            codec_options=self._codec_options,
            session=session,
        )
        client = self._database.client
        times = cursor_times(client._executor, self._timeout, timing, timeout_mode, session=session)
        return CommandCursor(client, operation, comment=comment, empty_on=(_NAMESPACE_NOT_FOUND,), times=times)

    def list_index_names(
        self, session: Any = None, comment: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[list[str]]:
        """The names of the indexes; none if the collection does not exist.

        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a list of str. It fails as every operation (see the class).
        """
        return self.list_indexes(session, comment, **timing).addCallback(_names)

    def index_information(
        self, session: Any = None, comment: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[dict[str, Any]]:
        """The indexes by name, their keys as lists of ``(key, direction)`` pairs.

        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a dict such as ``{"_id_": {"v": 2, "key": [("_id", 1)]}}``. It fails as
            every operation (see the class).
        """
        return self.list_indexes(session, comment, **timing).addCallback(_information)

    # --- the collection as a whole ---

    def drop(
        self,
        session: Any = None,
        comment: Any = None,
        encrypted_fields: Mapping[str, Any] | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[None]:
        """Drop the collection with its indexes; that it does not exist is no error.

        :param comment: any BSON value, for the server's log and profiler.
        :param encrypted_fields: not supported: :class:`~txmongo.errors.ConfigurationError` if it is given.
        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo.errors.WriteConcernError` if the
            write concern could not be kept, and as every operation (see the class).
        """
        check_session(session, self._sessions)
        if encrypted_fields is not None:
            raise ConfigurationError("encrypted_fields: client-side field level encryption is not supported")
        operation = admin.Drop(
            self._database_name,
            self._name,
            with_comment({}, comment),
            write_concern=self._write_concern,
            session=session,
        )
        return self._execute_unless_missing(operation, timing).addCallback(_nothing)

    def rename(
        self, new_name: str, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[Mapping[str, Any]]:
        """Give the collection another name; this object keeps the old one.

        :param new_name: the new name, within the same database.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command: ``dropTarget=True`` replaces a collection of the new name.
        :returns: a Deferred that fires with the server's reply. It fails with
            :class:`~txmongo.errors.OperationFailure` (code 26) if the collection does not exist or (code 48) if the new
            name is taken, and as that of :meth:`drop`.
        """
        check_session(session, self._sessions)
        check_collection_name(new_name, "new_name")
        timing = take_timing(kwargs)
        return self._begin(timing, session)(
            admin.Rename(
                self.full_name,
                f"{self._database_name}.{new_name}",
                with_comment(kwargs, comment),
                write_concern=self._write_concern,
                session=session,
            )
        )

    def options(self, session: Any = None, comment: Any = None, **timing: Unpack[Timing]) -> Deferred[dict[str, Any]]:
        """The options with which the collection was created: ``capped``, ``validator`` and so on.

        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a dict, empty if the collection does not exist. It fails as every operation
            (see the class).
        """
        check_session(session, self._sessions)
        fields = with_comment({"filter": {"name": self._name}}, comment)
        operation = admin.ListCollections(
            self._database_name, fields, codec_options=self._codec_options, session=session
        )
        return self._begin(timing, session)(operation).addCallback(
            lambda batch: batch.documents[0].get("options", {}) if batch.documents else {}
        )

    def _execute_unless_missing(self, operation: Operation[Any], timing: Mapping[str, Any]) -> Deferred[Any]:
        """Run an operation for which it is as good if the collection does not exist."""
        return self._begin(timing, operation.session)(operation).addErrback(_ignore_missing)


def _javascript(name: str, value: Any) -> Code:
    """A function for the server; one without a scope, which servers do not take any more."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or a bson.code.Code, not {type(value).__name__}")
    return value if isinstance(value, Code) else Code(value)


def _results(reply: Mapping[str, Any]) -> Any:
    return reply.get("results")


def _names(indexes: list[MutableMapping[str, Any]]) -> list[str]:
    return [index["name"] for index in indexes]


def _information(indexes: list[MutableMapping[str, Any]]) -> dict[str, Any]:
    information = {}
    for index in indexes:
        description = dict(index)
        description["key"] = list(description["key"].items())
        information[description.pop("name")] = description
    return information


def _ignore_missing(failure: Failure) -> Failure | None:
    error = failure.value
    missing = isinstance(error, OperationFailure) and error.code == _NAMESPACE_NOT_FOUND
    return None if missing else failure


def _nothing(_: Any) -> None:
    """For what the server answers without saying anything."""


def _option(name: str, value: Any, kind: type[Any], inherited: Any) -> Any:
    """An option of a collection: what was given, checked, else what the database has."""
    if value is None:
        return inherited
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be an instance of {kind.__name__.lstrip('_')}, not {type(value).__name__}")
    return value
