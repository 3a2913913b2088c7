"""Collection: the methods that read documents, and those that manage the collection itself.

Those that write are in :mod:`txmongo._collection.writing`, those for indexes in :mod:`txmongo._collection.indexes`.

A method checks its arguments, makes an operation (:mod:`txmongo._ops`) and has the client's executor run it. Names,
arguments, defaults and results are those of PyMongo's ``AsyncCollection``. Kept: the CRUD specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Unpack

from bson.code import Code
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred

from txmongo._collection.indexes import IndexMethods
from txmongo._collection.writing import WritingMethods
from txmongo._legacy.arguments import formerly, takes_full_response
from txmongo._legacy.collection import LegacyCollection, takes_old_arguments
from txmongo._legacy.deprecation import warn_deprecated
from txmongo._ops import admin
from txmongo._ops.arguments import (
    check_boolean,
    check_collection_name,
    check_mapping,
    check_optional_mapping,
    index_document,
    read_fields,
    with_comment,
)
from txmongo._ops.change_streams import WatchOptions
from txmongo._ops.client_sessions import check_session
from txmongo._ops.count import Count, CountDocuments, EstimatedDocumentCount
from txmongo._ops.distinct import Distinct
from txmongo._ops.find import FindOne, find_one_template
from txmongo._ops.map_reduce import MapReduce
from txmongo._ops.timeouts import Timing, take_timing
from txmongo._pymongo import ServerMode
from txmongo.change_stream import ChangeStream, open_stream
from txmongo.cursor import CommandCursor, Cursor, RawBatchCommandCursor, RawBatchCursor
from txmongo.errors import ConfigurationError
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.types import IndexKeys, Pipeline

__all__ = ["Collection"]


class Collection(WritingMethods[DocumentType], IndexMethods[DocumentType], LegacyCollection, Generic[DocumentType]):
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
        keywords = {**kwargs, "let": let, "comment": comment}
        client, database = self._database.client, self._database_name
        return self._aggregate(CommandCursor, client, database, self._name, pipeline, session, keywords)

    def aggregate_raw_batches(
        self, pipeline: Pipeline, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> RawBatchCommandCursor:
        """Run an aggregation pipeline and leave the results undecoded.

        :param pipeline: and the other arguments: see :meth:`aggregate`.
        :returns: a :class:`~txmongo.cursor.RawBatchCommandCursor`, each item of which is a batch: BSON as bytes. It
            fails as that of :meth:`aggregate`.
        """
        undecoded = self._codec_options.with_options(document_class=RawBSONDocument, type_registry=None)
        return self._aggregate(
            RawBatchCommandCursor,
            self._database.client,
            self._database_name,
            self._name,
            pipeline,
            session,
            {**kwargs, "comment": comment},
            undecoded,
        )

    # --- watching ---

    def watch(
        self,
        pipeline: Pipeline | None = None,
        full_document: str | None = None,
        resume_after: Mapping[str, Any] | None = None,
        max_await_time_ms: int | None = None,
        batch_size: int | None = None,
        collation: Any = None,
        start_at_operation_time: Timestamp | None = None,
        session: Any = None,
        start_after: Mapping[str, Any] | None = None,
        comment: Any = None,
        full_document_before_change: str | None = None,
        show_expanded_events: bool | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[ChangeStream[DocumentType]]:
        """Watch the changes of the collection, on a replica set or a sharded cluster.

        Better than an :meth:`aggregate` with ``$changeStream``: the stream goes on by itself after a failure. The
        server takes it with read concern majority, or none, only.

        :param pipeline: stages that filter or change what comes, such as ``$match`` and ``$project``; they must leave
            the changes their ``_id``.
        :param full_document: what updates bring beside the delta: ``"updateLookup"`` for the document as it is when it
            is looked up, ``"whenAvailable"`` or ``"required"`` for the document as it was after the update (MongoDB
            6.0, for collections with ``changeStreamPreAndPostImages``).
        :param resume_after: begin after the change with this token.
        :param max_await_time_ms: milliseconds for which the server waits for a change before it answers with none; a
            second if it is not given. It must be less than ``timeout_ms``.
        :param batch_size: changes in one answer of the server.
        :param collation: the rules by which stages compare strings: a :class:`~pymongo.collation.Collation` or a
            mapping.
        :param start_at_operation_time: begin with the changes of this time, a :class:`~bson.timestamp.Timestamp`.
        :param start_after: as ``resume_after``, also for the token of an ``invalidate`` event.
        :param comment: any BSON value, for the server's log and profiler.
        :param full_document_before_change: whether updates and deletes bring the document as it was before:
            ``"whenAvailable"``, ``"required"`` or ``"off"`` (MongoDB 6.0).
        :param show_expanded_events: tell also of indexes, of collections that are created and of other events (MongoDB
            6.0).
        :param timing: ``timeout_ms`` and ``timeout`` are for the opening and for each wait for a change.
        :returns: a Deferred that fires with a :class:`~txmongo.change_stream.ChangeStream` once the server watches:
            what happens from then on is seen. It fails with :class:`~txmongo.errors.OperationFailure` if the server
            refuses, and as every operation (see the class).
        :raises TypeError: an argument is not of its type.
        :raises ConfigurationError: ``max_await_time_ms`` is not less than ``timeout_ms``.
        """
        check_session(session, self._sessions)
        options = WatchOptions.checked(
            pipeline=pipeline,
            full_document=full_document,
            full_document_before_change=full_document_before_change,
            resume_after=resume_after,
            start_after=start_after,
            start_at_operation_time=start_at_operation_time,
            max_await_time_ms=max_await_time_ms,
            batch_size=batch_size,
            collation=collation,
            comment=comment,
            show_expanded_events=show_expanded_events,
        )
        return open_stream(
            self._database.client,
            self._database_name,
            self._name,
            options,
            timeout=self._timeout,
            timing=timing,
            **self._read_options(session),
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

    # --- the collection as a whole ---

    def drop(
        self,
        session: Any = None,
        comment: Any = None,
        encrypted_fields: Mapping[str, Any] | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[Mapping[str, Any]]:
        """Drop the collection with its indexes; that it does not exist is no error.

        :param comment: any BSON value, for the server's log and profiler.
        :param encrypted_fields: as of :meth:`Database.drop_collection() <txmongo.database.Database.drop_collection>`.
        :returns: a Deferred that fires with the server's reply. It fails with
            :class:`~txmongo.errors.WriteConcernError` if the write concern could not be kept, and as every operation
            (see the class).
        """
        check_session(session, self._sessions)
        if encrypted_fields is not None or self._database.client._encryption is not None:
            database = self._database.with_options(write_concern=self._write_concern, timeout_ms=self.timeout_ms)
            return database.drop_collection(self._name, session, comment, encrypted_fields, **timing)
        operation = admin.Drop(
            self._database_name,
            self._name,
            with_comment({}, comment),
            write_concern=self._write_concern,
            session=session,
        )
        return self._execute_unless_missing(operation, timing)

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
        options = self._codec_options.with_options(document_class=dict)
        operation = admin.ListCollections(self._database_name, fields, codec_options=options, session=session)
        return self._begin(timing, session)(operation).addCallback(
            lambda batch: batch.documents[0].get("options", {}) if batch.documents else {}
        )


def _javascript(name: str, value: Any) -> Code:
    """A function for the server; one without a scope, which servers do not take any more."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or a bson.code.Code, not {type(value).__name__}")
    return value if isinstance(value, Code) else Code(value)


def _results(reply: Mapping[str, Any]) -> Any:
    return reply.get("results")
