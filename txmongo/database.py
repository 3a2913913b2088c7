"""Database: commands, and the collections of one database.

A method checks its arguments, makes an operation (:mod:`txmongo._ops`) and has the client's executor run it. Names,
arguments and defaults are those of PyMongo's ``AsyncDatabase``, and TxMongo's where they differ in kind. What creating
and dropping a collection take beside the command is :mod:`txmongo._create_drop`'s. Kept: the specifications "Run
command", "Enumerating collections" and, for :meth:`Database.aggregate`, CRUD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.dbref import DBRef
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred

from txmongo._create_drop import create, creation, drop
from txmongo._ops.admin import CollMod, Drop, ListCollections
from txmongo._ops.arguments import check_database_name, check_mapping, with_comment
from txmongo._ops.change_streams import WatchOptions
from txmongo._ops.client_sessions import check_session
from txmongo._ops.cursor_times import cursor_times
from txmongo._ops.find import check_count
from txmongo._ops.run_command import RunCommand, RunCursorCommand, allow_errors, command_document
from txmongo._ops.timeouts import Timing, take_timing
from txmongo._pymongo import ServerMode
from txmongo._scope import InnerScope, option
from txmongo.change_stream import ChangeStream, open_stream
from txmongo.collection import Collection
from txmongo.cursor import CommandCursor
from txmongo.errors import CollectionInvalid
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool
    from txmongo.types import Pipeline

__all__ = ["Database"]


class Database(InnerScope[DocumentType]):
    """A database, with the options for what is done through this object.

    Get one by ``client.name`` or ``client["name"]``; its attributes and items are its collections. It costs nothing and
    says nothing about whether the server has such a database.

    Every method that talks to the server returns a Deferred (or a cursor, which is one). What is wrong with the
    arguments is raised at the call. Beside what a method's own description says, every Deferred can fail as those of
    :class:`~txmongo.collection.Collection`; ``session`` is explained there too.

    :param factory: the client, a :class:`~txmongo.connection.ConnectionPool`.
    :param database_name: the database's name.
    :param write_concern: and the other options: those of the client unless they are given.
    :raises TypeError: an argument is not of its type.
    :raises InvalidName: the name is not one that a database can have.
    """

    def __init__(
        self,
        factory: ConnectionPool[DocumentType],
        database_name: str,
        write_concern: WriteConcern | None = None,
        codec_options: CodecOptions[DocumentType] | None = None,
        read_preference: ServerMode | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> None:
        check_database_name(database_name, "database_name")
        super().__init__(
            factory,
            factory,
            write_concern,
            codec_options,
            read_preference,
            read_concern,
            timeout_ms,
        )
        self._client = factory
        self._name = database_name

    # --- what it is ---

    @property
    def name(self) -> str:
        """The database's name."""
        return self._name

    @property
    def client(self) -> ConnectionPool[DocumentType]:
        """The :class:`~txmongo.connection.ConnectionPool` that it belongs to."""
        return self._client

    @property
    def connection(self) -> ConnectionPool[DocumentType]:
        """The client; :attr:`client` under the name that it has in TxMongo."""
        return self._client

    def with_options(
        self,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> Database[Any]:
        """The same database with other options; those that are ``None`` stay as they are.

        :param codec_options: how documents are encoded and decoded.
        :param read_preference: which members of a replica set are read from.
        :param write_concern: when the server acknowledges a write.
        :param read_concern: how far what is read must have spread.
        :param timeout_ms: milliseconds that each operation may last; 0 for no limit.
        :returns: a new :class:`Database`; nothing is sent.
        """
        return Database(
            self._client,
            self._name,
            self._write_concern if write_concern is None else write_concern,
            self._codec_options if codec_options is None else codec_options,
            self._read_preference if read_preference is None else read_preference,
            self._read_concern if read_concern is None else read_concern,
            self.timeout_ms if timeout_ms is None else timeout_ms,
        )

    def get_collection(
        self,
        name: str,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> Collection[Any]:
        """A collection with options of its own; those that are ``None`` are the database's.

        :param name: its name.
        :param codec_options: and the other arguments: see :meth:`with_options`.
        :returns: a :class:`~txmongo.collection.Collection`; nothing is sent.
        :raises TypeError: an argument is not of its type.
        :raises InvalidName: the name is not one that a collection can have.
        """
        return Collection(self, name, write_concern, codec_options, read_preference, read_concern, timeout_ms)

    def __getattr__(self, name: str) -> Collection[DocumentType]:
        """The collection ``name``; a name with an underscore in front needs ``database["_name"]``."""
        if name.startswith("_"):
            raise AttributeError(
                f"Database has no attribute {name!r}; to access the {name} collection, use database[{name!r}]"
            )
        return Collection(self, name)

    def __getitem__(self, name: str) -> Collection[DocumentType]:
        """The collection ``name``."""
        return Collection(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Collection[DocumentType]:
        """The collection of that name, as in TxMongo.

        :raises TypeError: for anything else than one str: most likely a method was meant that does not exist.
        """
        if len(args) == 1 and not kwargs and isinstance(args[0], str):
            return self[args[0]]
        raise TypeError(
            f"'Database' object is not callable: if a method {self._name!r} of the client was meant, it has none of "
            "that name"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Database):
            return self._client == other._client and self._name == other._name
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._client, self._name))

    # Items are collections without end, so iteration has to be refused.
    __iter__ = None

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"Database({self._client!r}, {self._name!r})"

    def authenticate(self, name: str, password: str, mechanism: str = "DEFAULT") -> Deferred[bool]:
        """Authenticate all connections of the client as a user of this database.

        :param name: the user's name.
        :param password: the password.
        :param mechanism: as of :meth:`ConnectionPool.authenticate()
            <txmongo.connection.ConnectionPool.authenticate>`, which it calls.
        :returns: a Deferred that fires with ``True``, and fails, as that of the client's method.
        """
        return self._client.authenticate(self._name, name, password, mechanism)

    # --- commands ---

    def command(
        self,
        command: str | Mapping[str, Any],
        value: Any = 1,
        check: bool = True,
        allowable_errors: Sequence[str | int] | None = None,
        read_preference: ServerMode | None = None,
        codec_options: CodecOptions[Any] | None = None,
        session: Any = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[Any]:
        """Run any command of the server and get its reply.

        ::

            await database.command("ping")
            await database.command("collStats", "things", scale=1024)
            await database.command({"planCacheClear": "things"})

        It is sent as it is, once: nothing of this object's read and write concern is added, and nothing is retried.
        Not for what needs more than one reply; see :meth:`cursor_command`.

        :param command: the command's name; or the whole command, a mapping whose first key is the name, and which is
            not changed.
        :param value: the value for the name, if ``command`` is a name.
        :param check: whether an error that the server answers makes the Deferred fail.
        :param allowable_errors: codes and messages of errors that come as an ordinary reply.
        :param read_preference: which members may be asked; the primary if it is not given.
        :param codec_options: how the command is encoded and the reply decoded; as a dict if it is not given.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command.
        :returns: a Deferred that fires with the server's reply. It fails with
            :class:`~txmongo.errors.OperationFailure` if the server answers with an error, and as every operation (see
            the class).
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the command is empty.
        """
        if isinstance(read_preference, CodecOptions):
            # TxMongo's order: there it is codec_options that follow.
            read_preference, codec_options = None, read_preference
        timing = take_timing(kwargs)
        check_session(session, self._sessions)
        options = option("codec_options", codec_options, CodecOptions, DEFAULT_CODEC_OPTIONS)
        if comment is not None:
            kwargs["comment"] = comment
        operation = RunCommand(
            self._name,
            command_document(command, value, kwargs),
            codec_options=options,
            read_preference=option("read_preference", read_preference, ServerMode, ReadPreference.PRIMARY),
            session=session,
        )
        reply = self._begin(timing, session)(operation)
        if not check:
            reply.addErrback(allow_errors, options)
        elif allowable_errors is not None:
            reply.addErrback(allow_errors, options, allowable_errors)
        return reply

    def cursor_command(
        self,
        command: str | Mapping[str, Any],
        value: Any = 1,
        read_preference: ServerMode | None = None,
        codec_options: CodecOptions[Any] | None = None,
        session: Any = None,
        comment: Any = None,
        max_await_time_ms: int | None = None,
        timeout_mode: str | None = None,
        **kwargs: Any,
    ) -> CommandCursor[Any]:
        """Run any command that makes a cursor, and go through what it finds.

        :param command: and the other arguments: see :meth:`command`.
        :param comment: any BSON value, for the requests for further batches; the command's own is a field of it.
        :param max_await_time_ms: milliseconds for which the server waits for data in each further batch; for commands
            with ``tailable`` and ``awaitData``.
        :param timeout_mode: as of :meth:`Collection.find() <txmongo.collection.Collection.find>`.
        :returns: a :class:`~txmongo.cursor.CommandCursor`; the command is sent on its first use. It fails with
            :class:`~txmongo.errors.InvalidOperation` if the server's reply holds no cursor.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the command is empty.
        """
        timing = take_timing(kwargs)
        check_session(session, self._sessions)
        if max_await_time_ms is not None:
            check_count("max_await_time_ms", max_await_time_ms)
        operation = RunCursorCommand(
            self._name,
            command_document(command, value, kwargs),
            codec_options=option("codec_options", codec_options, CodecOptions, DEFAULT_CODEC_OPTIONS),
            read_preference=option("read_preference", read_preference, ServerMode, ReadPreference.PRIMARY),
            session=session,
        )
        tailable, await_data = (bool(operation.command.get(name)) for name in ("tailable", "awaitData"))
        times = cursor_times(
            self._executor,
            self._timeout,
            timing,
            timeout_mode,
            session=session,
            tailable=tailable,
            await_data=await_data,
            max_await_time_ms=max_await_time_ms,
        )
        return CommandCursor(self._client, operation, max_await_time_ms=max_await_time_ms, comment=comment, times=times)

    def aggregate(self, pipeline: Pipeline, session: Any = None, **kwargs: Any) -> CommandCursor[DocumentType]:
        """Run a pipeline that starts with a stage which needs no collection, such as ``$currentOp`` or ``$documents``.

        :param pipeline: a list of stages.
        :param kwargs: as of :meth:`Collection.aggregate() <txmongo.collection.Collection.aggregate>`.
        :returns: a :class:`~txmongo.cursor.CommandCursor`, which is a Deferred of the list of results and more. It
            fails as every operation (see the class).
        :raises TypeError: the pipeline is not a list, or an option not of its type.
        """
        return self._aggregate(CommandCursor, self._client, self._name, 1, pipeline, session, kwargs)

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
        """Watch the changes of all collections of the database, but for those of the server's own.

        :param pipeline: and the other arguments: see :meth:`Collection.watch() <txmongo.collection.Collection.watch>`.
        :returns: a Deferred that fires with a :class:`~txmongo.change_stream.ChangeStream`, or fails, as that of a
            collection.
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
            self._client,
            self._name,
            1,
            options,
            timeout=self._timeout,
            timing=timing,
            **self._read_options(session),
        )

    # --- collections ---

    def create_collection(
        self,
        name: str,
        codec_options: CodecOptions[Any] | Mapping[str, Any] | None = None,
        read_preference: ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        session: Any = None,
        check_exists: bool | None = True,
        *,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Deferred[Collection[Any]]:
        """Create a collection or a view explicitly; the first insert does it too, with default options.

        ::

            await database.create_collection("log", capped=True, size=1_000_000)

        :param name: its name.
        :param codec_options: and ``read_preference``, ``write_concern``, ``read_concern``: for the collection object
            that comes back, as of :meth:`get_collection`; ``write_concern`` is also that of the command. In this place
            TxMongo's ``options`` are taken too.
        :param check_exists: look first whether the server has the collection. Without it that is the server's error.
        :param options: fields of the ``create`` command, as TxMongo takes them.
        :param kwargs: fields of the ``create`` command: ``capped``, ``size``, ``max``, ``storageEngine``,
            ``validator``, ``validationLevel``, ``validationAction``, ``indexOptionDefaults``, ``viewOn``, ``pipeline``,
            ``collation``, ``timeseries``, ``expireAfterSeconds``, ``clusteredIndex``,
            ``changeStreamPreAndPostImages``, ``comment``... With ``encryptedFields``, which may also
            stand in the client's ``encrypted_fields_map``, the collections that Queryable Encryption needs beside it,
            and its index, are created too.
        :returns: a Deferred that fires with the :class:`~txmongo.collection.Collection`. It fails with
            :class:`~txmongo.errors.CollectionExists` if ``check_exists`` and the collection is there,
            :class:`~txmongo.errors.OperationFailure` if the server refuses the options,
            :class:`~txmongo.errors.ConfigurationError` if it is too old for ``encryptedFields`` (MongoDB 7.0), and as
            every operation (see the class).
        :raises TypeError: an argument is not of its type.
        :raises InvalidName: the name is not one that a collection can have.
        """
        session = self._sessions.bound(session)
        check_session(session, self._sessions)
        if isinstance(codec_options, Mapping):
            codec_options, options = None, codec_options
        elif codec_options is not None and not isinstance(codec_options, CodecOptions):
            raise TypeError(f"codec_options must be an instance of CodecOptions, not {type(codec_options).__name__}")
        if isinstance(write_concern, CodecOptions):
            # TxMongo's order: options, write_concern, codec_options.
            codec_options, write_concern = write_concern, None
        if isinstance(read_preference, WriteConcern):
            read_preference, write_concern = None, read_preference
        collection = self.get_collection(name, codec_options, read_preference, write_concern, read_concern)
        execute = self._begin(take_timing(kwargs), session)
        operation = creation(
            self._name,
            name,
            {**(options or {}), **kwargs},
            self._client._encryption,
            codec_options=collection.codec_options,
            write_concern=collection.write_concern,
            session=session,
        )
        return create(execute, operation, check_exists=bool(check_exists)).addCallback(lambda _reply: collection)

    def modify_collection(
        self,
        name_or_collection: str | Collection[Any],
        session: Any = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[Mapping[str, Any]]:
        """Change options of a collection or view: the ``collMod`` command.

        ::

            await database.modify_collection("things", validator={"size": {"$type": "number"}})

        :param name_or_collection: its name, or a :class:`~txmongo.collection.Collection`.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: fields of the command: ``validator``, ``validationLevel``, ``validationAction``, ``index``,
            ``expireAfterSeconds``, ``viewOn`` and ``pipeline``, ``cappedSize``, ``changeStreamPreAndPostImages``...
        :returns: a Deferred that fires with the server's reply. It fails with
            :class:`~txmongo.errors.OperationFailure` if the server refuses the options or (code 26) has no such
            collection, :class:`~txmongo.errors.WriteConcernError` if the write concern could not be kept, and as every
            operation (see the class).
        :raises TypeError: it is neither.
        """
        check_session(session, self._sessions)
        timing = take_timing(kwargs)
        operation = CollMod(
            self._name,
            self._collection_name(name_or_collection),
            with_comment(kwargs, comment),
            codec_options=self._codec_options,
            write_concern=self._write_concern,
            session=session,
        )
        return self._begin(timing, session)(operation)

    def drop_collection(
        self,
        name_or_collection: str | Collection[Any],
        session: Any = None,
        comment: Any = None,
        encrypted_fields: Mapping[str, Any] | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[Mapping[str, Any]]:
        """Remove a collection with all its documents and indexes. One that is not there is no error.

        :param name_or_collection: its name, or a :class:`~txmongo.collection.Collection`.
        :param comment: any BSON value, for the server's log and profiler.
        :param encrypted_fields: of a collection with Queryable Encryption: the collections beside it, which keep the
            state of these fields, are removed too. A client with an ``encrypted_fields_map`` looks there, and then
            asks the server.
        :returns: a Deferred that fires with the server's reply. It fails with
            :class:`~txmongo.errors.WriteConcernError` if the write concern could not be kept, and as every operation
            (see the class).
        :raises TypeError: it is neither.
        """
        check_session(session, self._sessions)
        fields = None if comment is None else {"comment": comment}
        name = self._collection_name(name_or_collection)
        operation = Drop(self._name, name, fields, write_concern=self._write_concern, session=session)
        return drop(self._begin(timing, session), operation, encrypted_fields, self._client._encryption)

    @staticmethod
    def _collection_name(name_or_collection: Any) -> str:
        if isinstance(name_or_collection, Collection):
            return name_or_collection.name
        if not isinstance(name_or_collection, str):
            raise TypeError(
                f"name_or_collection must be a str or a Collection, not {type(name_or_collection).__name__}"
            )
        return name_or_collection

    def list_collections(
        self,
        session: Any = None,
        filter: Mapping[str, Any] | None = None,
        comment: Any = None,
        *,
        batch_size: int = 0,
        timeout_mode: str | None = None,
        **kwargs: Any,
    ) -> CommandCursor[dict[str, Any]]:
        """What collections and views there are, with their options.

        :param filter: a query on the documents that describe them, such as ``{"options.capped": True}``.
        :param comment: any BSON value, for the server's log and profiler.
        :param batch_size: documents that the server sends at once; 0 leaves it to the server.
        :param timeout_mode: as of :meth:`Collection.find() <txmongo.collection.Collection.find>`.
        :param kwargs: further fields of the command: ``nameOnly``, ``authorizedCollections``.
        :returns: a :class:`~txmongo.cursor.CommandCursor` over documents with ``name``, ``type``, ``options`` and
            ``info``. The primary is asked. It fails as every operation (see the class).
        :raises TypeError: an argument is not of its type.
        """
        check_session(session, self._sessions)
        check_count("batch_size", batch_size)
        timing = take_timing(kwargs)
        cursor = kwargs.pop("cursor", None) or {}
        batch_size = batch_size or kwargs.pop("batchSize", None) or cursor.get("batchSize") or 0
        fields = dict(kwargs)
        if filter is not None:
            check_mapping("filter", filter)
            fields["filter"] = filter
        if comment is not None:
            fields["comment"] = comment
        operation = ListCollections(
            self._name,
            fields,
            batch_size=batch_size or None,
            codec_options=self._codec_options.with_options(document_class=dict),
            session=session,
        )
        # The comment stays with the cursor: the specification forbids to send it again.
        times = cursor_times(self._executor, self._timeout, timing, timeout_mode, session=session)
        return CommandCursor(self._client, operation, batch_size=batch_size, times=times)

    def list_collection_names(
        self,
        session: Any = None,
        filter: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[list[str]]:
        """The names of the collections and views.

        :param filter: and the other arguments: see :meth:`list_collections`.
        :returns: a Deferred that fires with a list of str; it fails as every operation (see the class).
        :raises TypeError: an argument is not of its type.
        """
        if filter is not None:
            check_mapping("filter", filter)
        if not filter or set(filter) == {"name"}:
            # With less to lock and less to send; the filter then sees nothing but names.
            kwargs.setdefault("nameOnly", True)
        return self.list_collections(session, filter, comment, **kwargs).addCallback(_names)

    def collection_names(self, *, batch_size: int = 0, **timing: Unpack[Timing]) -> Deferred[list[str]]:
        """The names of the collections and views: :meth:`list_collection_names` under TxMongo's name.

        :param batch_size: names that the server sends at once; 0 leaves it to the server.
        :returns: a Deferred that fires with a list of str; it fails as every operation (see the class).
        """
        return self.list_collection_names(batch_size=batch_size, **timing)

    def validate_collection(
        self,
        name_or_collection: str | Collection[Any],
        scandata: bool = False,
        full: bool = False,
        session: Any = None,
        background: bool | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[dict[str, Any]]:
        """Have the server check the structures of a collection and its indexes. On a large one that takes long.

        :param name_or_collection: its name, or a :class:`~txmongo.collection.Collection`.
        :param scandata: check the documents too, as far as ``full`` does not say more.
        :param full: check everything.
        :param background: check while the collection is used.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with the server's report. It fails with
            :class:`~txmongo.errors.CollectionInvalid` if the collection is damaged, and as every operation (see the
            class).
        :raises TypeError: it is neither.
        """
        name = self._collection_name(name_or_collection)
        command: dict[str, Any] = {"validate": name, "scandata": scandata, "full": full}
        if background is not None:
            command["background"] = background
        return self.command(command, session=session, comment=comment, **timing).addCallback(_checked_report, name)

    def dereference(
        self, dbref: DBRef, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[DocumentType | None]:
        """The document that a :class:`~bson.dbref.DBRef` refers to.

        :param dbref: its database must be this one, if it names one.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further arguments of :meth:`~txmongo.collection.Collection.find_one`.
        :returns: a Deferred that fires with the document, or ``None`` if there is none; it fails as every operation
            (see the class).
        :raises TypeError: ``dbref`` is no DBRef.
        :raises ValueError: it refers to another database.
        """
        if not isinstance(dbref, DBRef):
            raise TypeError(f"dbref must be a bson.dbref.DBRef, not {type(dbref).__name__}")
        if dbref.database is not None and dbref.database != self._name:
            raise ValueError(f"dbref refers to the database {dbref.database!r}, not to {self._name!r}")
        return self[dbref.collection].find_one({"_id": dbref.id}, session=session, comment=comment, **kwargs)


def _names(documents: list[Any]) -> list[str]:
    return [document["name"] for document in documents]


def _checked_report(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The report of ``validate`` if it finds no fault; a cluster has one for each shard."""
    for part in (report, *report.get("raw", {}).values()):
        result = part.get("result")
        damaged = isinstance(result, str) and ("exception" in result or "corrupt" in result)
        if damaged or not part.get("valid", True):
            raise CollectionInvalid(f"{name} is damaged: {part.get('errors') or result!r}")
    return report
