"""The client: what it was told, what it does for its caller, and the databases that it leads to.

What it consists of, and how that is tied together, is in :mod:`txmongo._client_parts`; the reactor is defaulted here
alone. The name is TxMongo's; the arguments are those of TxMongo 15.2 and PyMongo's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, Unpack

from bson.codec_options import CodecOptions
from bson.timestamp import Timestamp
from pymongo.driver_info import DriverInfo
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.results import ClientBulkWriteResult
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txmongo._auth import make_credentials
from txmongo._client_bulk import ClientBulk, bulk_write_concern, client_writes
from txmongo._client_parts import ClientParts
from txmongo._cmap.connector import EndpointFor
from txmongo._deployment import DeploymentView
from txmongo._dns import SystemResolver
from txmongo._encryption.automatic import AutomaticEncryption
from txmongo._legacy.connection import LegacyClient, SingleConnection, parse_uri, user_of
from txmongo._ops.admin import DropDatabase, ListDatabases
from txmongo._ops.arguments import check_boolean, check_database_name, check_optional_mapping
from txmongo._ops.base import write_concern_document
from txmongo._ops.change_streams import WatchOptions
from txmongo._ops.client_bulk_write import ClientBulkOptions
from txmongo._ops.client_sessions import check_session
from txmongo._ops.cursor_times import cursor_times
from txmongo._ops.run_command import RunCommand
from txmongo._ops.timeouts import Timing, take_timing
from txmongo._ops.transaction_state import Settled
from txmongo._ops.writes import write_options
from txmongo._options import connection_string
from txmongo._pymongo import MongoCredential, ServerMode
from txmongo._scope import Scope
from txmongo._sdam.srv import DNSResolver, SrvResolver
from txmongo._sessions.options import SessionOptions, TransactionOptions, given_options
from txmongo._settings import DEFAULT_URI, ClientSettings, parse_settings
from txmongo.change_stream import ChangeStream, open_stream
from txmongo.cursor import CommandCursor
from txmongo.database import Database
from txmongo.errors import ConfigurationError, InvalidOperation, OperationFailure
from txmongo.protocol import MongoAuthenticationError
from txmongo.sessions import ClientSession
from txmongo.types import DocumentType, Pipeline

__all__ = [
    "ConnectionPool",
    "MongoConnection",
    "MongoConnectionPool",
    "lazyMongoConnection",
    "lazyMongoConnectionPool",
]


class _Default(int):
    """A number that can be told from an equal one that somebody passed."""

    __slots__ = ()


_SIZE_NOT_GIVEN: Final = _Default(1)
_PING_NOT_GIVEN: Final = _Default(10)


def _default_reactor() -> Any:
    """The reactor that is installed, or else the platform's default."""
    from twisted.internet import reactor

    return reactor


class ConnectionPool(Scope[DocumentType], DeploymentView, LegacyClient, Generic[DocumentType]):
    """A client of one MongoDB deployment: a server, a replica set or a sharded cluster.

    ::

        client = ConnectionPool("mongodb://localhost:27017")
        document = await client.shop.orders.find_one({"_id": 7})
        await client.disconnect()

    Making one connects to nothing: the first operation does, or ``await client``, which fires with the client once a
    server has answered (``yield client`` in ``inlineCallbacks`` passes it through at once). One client serves a whole
    application; its attributes and items are the :class:`~txmongo.database.Database` objects.

    There are two kinds. By default connections are opened as they are needed, up to ``maxPoolSize``, and operations
    that were started without waiting for one another may be carried out in any order. With ``pool_size=N``, as in
    TxMongo 15.2, there are exactly N connections, opened at once and used in turn; with one of them every operation is
    carried out in the order of the calls.

    :param uri: a connection string: https://www.mongodb.com/docs/manual/reference/connection-string/. Without a scheme
        it is taken for ``mongodb://``. Or several hosts, such as ``["one", "two:27018"]``.
    :param pool_size: the number of connections of a fixed pool; it cannot be given together with ``minPoolSize`` and
        ``maxPoolSize``.
    :param ssl_context_factory: TLS by a Twisted context factory of one's own; else by the ``tls...`` options.
    :param ping_interval: seconds between two looks at each server, at least half a second: ``heartbeatFrequencyMS``
        under TxMongo's name. Without either it is 10 seconds.
    :param ping_timeout: seconds that a server has to answer such a look, beyond which it is taken for lost; if it is
        not given, those that it has to be connected to (``connectTimeoutMS``).
    :param host: PyMongo's name of ``uri``.
    :param port: the port of hosts that are named without one; else 27017.
    :param reactor: the reactor; the installed one if it is not given.
    :param endpoint_for: gives the ``IStreamClientEndpoint`` for a server's address, a tuple of host and port; for
        proxies, tunnels and tests. TLS is then its business.
    :param resolver: asks DNS for ``mongodb+srv``, as a ``twisted.names`` resolver does; the system's name servers are
        asked if it is not given.
    :param options: every option of the connection string and every keyword of PyMongo's ``AsyncMongoClient``, in its
        spelling; they win over the connection string. TxMongo's ``timeout``, ``retry_delay``, ``max_delay`` and
        ``write_concern`` too. Of the driver's own: ``log_levels``, which switches structured log messages on by
        component (``command``, ``connection``, ``serverSelection``, ``topology``, or ``all``), and
        ``log_max_document_length``, the characters of a document that they show (1000); without them the environment
        variables ``MONGODB_LOG_COMMAND`` and so on count. With ``auto_encryption_opts``, PyMongo's
        ``AutoEncryptionOpts``, values are encrypted and decrypted on their way; every operation may then also fail with
        :class:`~txmongo.errors.EncryptionError`.
    :raises ConfigurationError: an option is unknown, not supported, or contradicts another.
        :class:`~txmongo.errors.InvalidURI`, for a wrong connection string, is one of these.
    :raises TypeError: an option has a value of the wrong type.
    :raises ValueError: an option has a value that is not allowed.
    """

    def __init__(
        self,
        uri: str | Iterable[str] = DEFAULT_URI,
        pool_size: int = _SIZE_NOT_GIVEN,
        ssl_context_factory: Any = None,
        ping_interval: float = _PING_NOT_GIVEN,
        ping_timeout: float = _PING_NOT_GIVEN,
        *,
        host: str | Iterable[str] | None = None,
        port: int | None = None,
        reactor: Any = None,
        endpoint_for: EndpointFor | None = None,
        resolver: DNSResolver | None = None,
        **options: Any,
    ) -> None:
        if pool_size is not _SIZE_NOT_GIVEN:
            options["pool_size"] = pool_size
        for name, seconds in (("ping_interval", ping_interval), ("ping_timeout", ping_timeout)):
            if seconds is not _PING_NOT_GIVEN:
                options[name] = seconds
        if ssl_context_factory is not None:
            options["ssl_context_factory"] = ssl_context_factory
        if host is not None:
            if uri is not DEFAULT_URI:
                raise ConfigurationError("uri and host are the same argument under two names: give one")
            uri = host
        uri = connection_string(uri, port)
        settings = parse_settings(uri, **options)
        self._take(settings)
        self._reactor = reactor = _default_reactor() if reactor is None else reactor
        self._encryption = self._make_encryption(uri, endpoint_for, resolver, options)
        self._parts = parts = ClientParts(
            settings,
            reactor,
            endpoint_for=endpoint_for,
            srv=None if settings.fqdn is None else SrvResolver(resolver or SystemResolver(reactor)),
            encryption=self._encryption,
            on_resolved=self._take,
        )
        self._connector, self._topology = parts.connector, parts.topology
        self._executor, self._leftovers = parts.executor, parts.leftovers
        self._execute, self._sessions = self._executor.execute, self._executor.sessions
        self._closed = False

    def _make_encryption(
        self,
        uri: str,
        endpoint_for: EndpointFor | None,
        resolver: DNSResolver | None,
        options: Mapping[str, Any],
    ) -> AutomaticEncryption | None:
        """What encrypts, if anything does; with clients of its own, made as this one was."""
        opts = self._settings.auto_encryption_opts
        if opts is None:
            return None
        left_out = {"auto_encryption_opts", "minpoolsize", "pool_size"}
        same: dict[str, Any] = {name: value for name, value in options.items() if name.lower() not in left_out}
        same.update(reactor=self._reactor, endpoint_for=endpoint_for, resolver=resolver, minPoolSize=0)
        return AutomaticEncryption(
            opts,
            self._reactor,
            self._settings.connect_timeout,
            partial(ConnectionPool, uri, **same),
            partial(ConnectionPool, reactor=self._reactor),
        )

    def _take(self, settings: ClientSettings) -> None:
        """Have these settings, now or when DNS has told what a ``mongodb+srv`` connection string leaves open."""
        self._settings = settings
        self._codec_options = settings.codec_options
        self._read_preference = settings.read_preference
        self._write_concern = settings.write_concern
        self._read_concern = settings.read_concern
        self._timeout = settings.timeout

    # --- what it was told ---

    @property
    def auth_creds(self) -> dict[str, tuple[str | None, str | None, str]]:
        """Whom connections are authenticated as: user, password and mechanism, by the database that has the user."""
        return {database: user_of(user) for database, user in self._connector.users.items()}

    @property
    def options(self) -> ClientSettings:
        """All options, those that were not given included, as one value that cannot be changed."""
        return self._settings

    def append_metadata(self, driver_info: DriverInfo) -> None:
        """Name a library around the driver in what new connections tell the server about the client.

        :param driver_info: its name, version and platform.
        :raises TypeError: it is no :class:`~pymongo.driver_info.DriverInfo`.
        :raises ValueError: one of its fields contains ``|``.
        """
        if not isinstance(driver_info, DriverInfo):
            raise TypeError(f"driver_info must be a DriverInfo, not {type(driver_info).__name__}")
        self._connector.append_metadata(driver_info)

    def __repr__(self) -> str:
        state = "closed" if self._closed else repr(self._topology).strip("<>")
        return f"<ConnectionPool: {state}>"

    # --- databases ---

    def get_database(
        self,
        name: str | None = None,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> Database[Any]:
        """A database with options of its own; those that are ``None`` are the client's.

        :param name: its name; the one in the connection string if it is ``None``.
        :param codec_options: how documents are encoded and decoded.
        :param read_preference: which members of a replica set are read from.
        :param write_concern: when the server acknowledges a write.
        :param read_concern: how far what is read must have spread.
        :param timeout_ms: milliseconds that each operation may last; 0 for no limit.
        :returns: a :class:`~txmongo.database.Database`; nothing is sent.
        :raises TypeError: an argument is not of its type.
        :raises InvalidName: the name is not one that a database can have.
        :raises ConfigurationError: there is no name, not in the connection string either.
        """
        if name is None:
            name = self._settings.database
            if name is None:
                raise ConfigurationError("no name was given, and the connection string names no database")
        return Database(self, name, write_concern, codec_options, read_preference, read_concern, timeout_ms)

    def get_default_database(
        self,
        default: str | None = None,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: ServerMode | None = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> Database[Any] | None:
        """The database that the connection string names, with options of its own.

        :param default: the name to take if the connection string has none.
        :param codec_options: and the other arguments: see :meth:`get_database`.
        :returns: a :class:`~txmongo.database.Database`; ``None`` if there is no name, as in TxMongo.
        """
        name = self._settings.database or default
        if name is None:
            return None
        return Database(self, name, write_concern, codec_options, read_preference, read_concern, timeout_ms)

    def __getattr__(self, name: str) -> Database[DocumentType]:
        """The database ``name``; a name with an underscore in front needs ``client["_name"]``."""
        if name.startswith("_"):
            raise AttributeError(
                f"ConnectionPool has no attribute {name!r}; to access the {name} database, use client[{name!r}]"
            )
        return Database(self, name)

    def __getitem__(self, name: str) -> Database[DocumentType]:
        """The database ``name``."""
        return Database(self, name)

    # Items are databases without end, so iteration has to be refused.
    __iter__ = None

    def list_databases(self, session: Any = None, comment: Any = None, **kwargs: Any) -> CommandCursor[dict[str, Any]]:
        """What databases there are, and how large.

        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command: ``filter``, ``nameOnly``, ``authorizedDatabases``.
        :returns: a :class:`~txmongo.cursor.CommandCursor` over documents with ``name``, ``sizeOnDisk`` and ``empty``.
            The primary is asked. It fails as every operation (see :class:`~txmongo.collection.Collection`).
        """
        check_session(session, self._sessions)
        timing, timeout_mode = take_timing(kwargs), kwargs.pop("timeout_mode", None)
        fields = {name: value for name, value in kwargs.items() if value is not None}
        if comment is not None:
            fields["comment"] = comment
        operation = ListDatabases(fields, codec_options=self.codec_options, session=session)
        times = cursor_times(self._executor, self._timeout, timing, timeout_mode, session=session)
        return CommandCursor(self, operation, times=times)

    def list_database_names(self, session: Any = None, comment: Any = None, **kwargs: Any) -> Deferred[list[str]]:
        """The names of the databases.

        :param comment: and the other arguments: see :meth:`list_databases`.
        :returns: a Deferred that fires with a list of str; it fails as every operation (see
            :class:`~txmongo.collection.Collection`).
        """
        databases = self.list_databases(session, comment, **{"nameOnly": True, **kwargs})
        return databases.addCallback(lambda documents: [document["name"] for document in documents])

    def drop_database(
        self, name_or_database: str | Database[Any], session: Any = None, comment: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[None]:
        """Remove a database with all its collections.

        :param name_or_database: its name, or a :class:`~txmongo.database.Database`.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo.errors.WriteConcernError` if the
            write concern could not be kept, and as every operation (see :class:`~txmongo.collection.Collection`).
        :raises TypeError: it is neither.
        :raises InvalidName: the name is not one that a database can have.
        """
        check_session(session, self._sessions)
        name = name_or_database.name if isinstance(name_or_database, Database) else name_or_database
        check_database_name(name, "name_or_database")
        fields = None if comment is None else {"comment": comment}
        operation = DropDatabase(name, fields, write_concern=self.write_concern, session=session)
        return self._begin(timing, session)(operation).addCallback(_nothing)

    def bulk_write(
        self,
        models: Sequence[Any],
        session: Any = None,
        ordered: bool = True,
        verbose_results: bool = False,
        bypass_document_validation: bool | None = None,
        comment: Any = None,
        let: Mapping[str, Any] | None = None,
        write_concern: WriteConcern | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[ClientBulkWriteResult]:
        """Carry out writes of any kind to any collections in as few commands as the server's limits allow.

        ::

            result = await client.bulk_write(
                [
                    InsertOne({"_id": 1}, namespace="shop.orders"),
                    UpdateOne({"_id": 7}, {"$inc": {"count": -1}}, namespace="shop.stock"),
                ]
            )

        It needs MongoDB 8.0; :meth:`Collection.bulk_write() <txmongo.collection.Collection.bulk_write>` is the one for
        older servers, one collection at a time.

        :param models: a list of :class:`~pymongo.operations.InsertOne`, :class:`~pymongo.operations.UpdateOne`,
            :class:`~pymongo.operations.UpdateMany`, :class:`~pymongo.operations.ReplaceOne`,
            :class:`~pymongo.operations.DeleteOne` and :class:`~pymongo.operations.DeleteMany` objects, each with a
            ``namespace``: ``"database.collection"``.
        :param ordered: carry them out in this order and stop at the first that is refused; else all are tried.
        :param verbose_results: have the result of each single write in the result.
        :param bypass_document_validation: do it even if documents fail a collection's validator; not with ``w=0``.
        :param comment: any BSON value, for the server's log and profiler.
        :param let: variables for ``$$name`` in expressions.
        :param write_concern: the client's if it is not given. With ``w=0`` the writes must be neither ``ordered`` nor
            ``verbose_results``; in a transaction none may be given.
        :returns: a Deferred that fires with a :class:`~txmongo.bulk.ClientBulkWriteResult`. It fails with
            :class:`~txmongo.errors.ClientBulkWriteException` if a write is refused, the write concern could not be kept
            or an error ended it: its ``write_errors``, ``write_concern_errors`` and ``error`` tell which, and its
            ``partial_result`` what is known to have been done. It fails with
            :class:`~txmongo.errors.InvalidOperation` if the server is older than MongoDB 8.0 or a model is larger than
            it takes, and as every operation (see :class:`~txmongo.collection.Collection`) if not even the first command
            could be sent.
        :raises TypeError: ``models`` is not a list of models, or an argument of one is of the wrong type.
        :raises ValueError: a model updates without operators, or replaces with them.
        :raises InvalidOperation: there is no model, or one has no namespace; or ``write_concern`` cannot be had; or the
            client has ``auto_encryption_opts``.
        """
        if self._encryption is not None:
            raise InvalidOperation(
                "ConnectionPool.bulk_write does not currently support automatic encryption; Collection.bulk_write does"
            )
        executor = self._executor
        session = executor.sessions.bound(session)
        concern = bulk_write_concern(write_concern, self.write_concern, session, ordered, verbose_results)
        check_session(session, executor.sessions, concern.acknowledged)
        check_boolean("ordered", ordered)
        check_boolean("verbose_results", verbose_results)
        check_optional_mapping("let", let)
        writes = client_writes(models, write_concern=concern)
        if bypass_document_validation is not None and not concern.acknowledged:
            raise OperationFailure("bypass_document_validation cannot be set with an unacknowledged write concern")
        options = ClientBulkOptions(
            {
                "errorsOnly": not verbose_results,
                "ordered": ordered,
                **(write_options(comment, let, bypass_document_validation) or {}),
            },
            write_concern_document(concern),
            concern.acknowledged,
            self.codec_options,
        )
        bulk = ClientBulk(
            self._begin(timing, session),
            self._leftovers,
            writes,
            options,
            ordered=ordered,
            verbose=verbose_results,
            comment=comment,
            session=session,
        )
        return bulk.send()

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
        """Watch the changes of all databases, but for ``admin``, ``config`` and ``local``.

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
            whole_cluster=True,
        )
        return open_stream(
            self,
            "admin",
            1,
            options,
            timeout=self._timeout,
            timing=timing,
            **self._read_options(session),
        )

    def server_info(self, session: Any = None, **timing: Unpack[Timing]) -> Deferred[dict[str, Any]]:
        """What a server says of itself: version, build, libraries.

        :returns: a Deferred that fires with the reply of ``buildInfo``; it fails as every operation (see
            :class:`~txmongo.collection.Collection`).
        """
        check_session(session, self._sessions)
        operation = RunCommand(
            "admin", {"buildinfo": 1}, read_preference=ReadPreference.PRIMARY_PREFERRED, session=session
        )
        return self._begin(timing, session)(operation)

    # --- sessions ---

    def start_session(
        self,
        causal_consistency: bool | SessionOptions | TransactionOptions | None = None,
        default_transaction_options: TransactionOptions | None = None,
        snapshot: bool | None = False,
        snapshot_time: Timestamp | None = None,
        default_timeout_ms: int | None = None,
        *,
        options: SessionOptions | None = None,
    ) -> ClientSession:
        """Start a session: operations that belong together, and transactions.

        ::

            async with client.start_session() as session:
                await session.with_transaction(callback)

        Nothing is sent. Operations are done in it if they get it as ``session=``. End it when it is not needed any
        more: its end is that of the block, or :meth:`~txmongo.sessions.ClientSession.end_session`.

        :param causal_consistency: reads and writes of the session see what it has read and written before; the default,
            unless ``snapshot``. ``SessionOptions``, and what TxMongo has in this place, ``TransactionOptions``, are
            taken here too.
        :param default_transaction_options: for its transactions, instead of the client's.
        :param snapshot: all reads see the data of one moment (MongoDB 5.0).
        :param snapshot_time: that moment; that of the first read if it is not given.
        :param default_timeout_ms: milliseconds for each commit, abort, ``with_transaction`` and the end of the session.
        :param options: all of this in one object; the others must not be given then.
        :returns: a :class:`~txmongo.sessions.ClientSession`, not a Deferred.
        :raises ConfigurationError: the options contradict one another.
        :raises TypeError: an option has a value of the wrong type.
        :raises InvalidOperation: the client is closed.
        """
        if self._closed:
            raise InvalidOperation("the client is closed: disconnect() was called")
        options = given_options(
            options, causal_consistency, default_transaction_options, snapshot, snapshot_time, default_timeout_ms
        )
        executor = self._executor
        return ClientSession(
            self,
            options,
            sessions=executor.sessions,
            execute=executor.execute,
            execute_within=executor.execute_within,
            clock=self._reactor,
            defaults=Settled(self.read_concern, self.write_concern, self.read_preference),
            timeout=self._timeout,
            pauses=executor.pauses,
        )

    @property
    def cluster_time(self) -> Mapping[str, Any] | None:
        """The highest ``$clusterTime`` document that a server has sent; ``None`` if none was sent."""
        return self._executor.sessions.cluster_clock.document

    # --- authentication ---

    def authenticate(
        self, database: str, username: str | None, password: str | None, mechanism: str = "DEFAULT"
    ) -> Deferred[bool]:
        """Authenticate all connections, present and future, as a user; better give the user in the connection string.

        What is called from now on is done as that user. If the server refuses, things are again as they were before.
        A user of the same database as one before takes that one's place; users of several databases at once are
        possible with servers before MongoDB 6.0, without sessions and transactions.

        :param database: whose user it is.
        :param username: the user's name.
        :param password: the password.
        :param mechanism: ``SCRAM-SHA-256``, ``SCRAM-SHA-1``, ``PLAIN``, ``MONGODB-X509`` (name and password may be
            ``None`` then), or ``DEFAULT`` for the better SCRAM that the user has.
        :returns: a Deferred that fires with ``True`` once a server has accepted the user. It fails with
            :class:`~txmongo.protocol.MongoAuthenticationError` if the mechanism is none of these (MONGODB-CR was
            removed in MongoDB 4.0) or the server refuses (then it is an :class:`~txmongo.errors.OperationFailure` of
            code 18 too), and as every operation (see :class:`~txmongo.collection.Collection`).
        :raises TypeError: an argument is no str.
        """
        try:
            user = make_credentials(database, username, password, mechanism)
        except (MongoAuthenticationError, ConfigurationError):
            return fail()
        before = self._connector.added_user(user.source)
        self._parts.set_user(user.source, user)
        accepted: Deferred[Any] = self._ping()
        accepted.addErrback(self._refused, user, before)
        return accepted.addCallback(lambda _: True)

    def _refused(self, failure: Failure, user: MongoCredential, before: MongoCredential | None) -> Failure:
        if failure.check(MongoAuthenticationError) and self._connector.added_user(user.source) is user:
            self._parts.set_user(user.source, before)
        return failure

    # --- life ---

    def __await__(self) -> Generator[Any, None, Self]:
        """``await client``: fires with the client once a server has answered on a connection of its pool.

        It fails with :class:`~txmongo.errors.ServerSelectionTimeoutError` if none does within
        ``serverSelectionTimeoutMS``, and with :class:`~txmongo.errors.OperationFailure` (code 18) if the server refuses
        the user name or the password.
        """
        yield from self._ping()
        return self

    def _ping(self) -> Deferred[Any]:
        ping = RunCommand("admin", {"ping": 1}, read_preference=ReadPreference.NEAREST)
        done: Deferred[Any] = self._begin({})(ping)
        return done

    async def __aenter__(self) -> Self:
        """``async with ConnectionPool() as client``: the client, disconnected at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    def disconnect(self) -> Deferred[None]:
        """Close everything. What is pending fails, and so does what is asked for later:
        :class:`~txmongo.errors.AutoReconnect` if it was sent, else :class:`~txmongo.errors.InvalidOperation`.

        A server is told first which sessions are over, those included that the application has not ended, with their
        transactions and cursors; for its answer one second is waited at most.

        :returns: a Deferred that fires with ``None`` when no socket, no delayed call and no pending operation of this
            client is left. It never fails; it may be asked for more than once.
        """
        if not self._closed:
            self._closed = True
            self._parts.close()
        return self._parts.closed()

    def close(self) -> Deferred[None]:
        """Close everything: :meth:`disconnect` under PyMongo's name.

        :returns: a Deferred that fires with ``None`` and never fails, as that of :meth:`disconnect`.
        """
        return self.disconnect()

    def aclose(self) -> Deferred[None]:
        """Close everything: :meth:`disconnect` under the name that ``contextlib.aclosing`` asks for.

        :returns: a Deferred that fires with ``None`` and never fails, as that of :meth:`disconnect`.
        """
        return self.disconnect()

    def aconnect(self) -> Deferred[None]:
        """Begin to look for the servers now, not with the first operation; ``await client`` waits for one of them too.

        :returns: a Deferred that fires with ``None`` at once. It fails with
            :class:`~txmongo.errors.InvalidOperation` if the client is closed.
        """
        if self._closed:
            return fail(InvalidOperation("the client is closed: disconnect() was called"))
        self._topology.open()
        return succeed(None)


class MongoConnection(ConnectionPool[DocumentType], Generic[DocumentType]):
    """A client of one server by host and port, with a fixed pool, as in TxMongo.

    With one connection, the default, operations are carried out in the order of the calls.

    :param host: its name or address.
    :param port: its port.
    :param pool_size: the number of connections, which are opened at once.
    :param options: as of :class:`ConnectionPool`, which this is otherwise.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 27017, pool_size: int = 1, **options: Any) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host must be a str, not {type(host).__name__}")
        if not isinstance(port, int):
            raise TypeError(f"port must be an int, not {type(port).__name__}")
        name = f"[{host}]" if ":" in host else host
        super().__init__(f"mongodb://{name}:{port}", int(pool_size), **options)


_Connection = SingleConnection
_parse_uri = parse_uri

MongoConnectionPool = MongoConnection
lazyMongoConnection = MongoConnection
lazyMongoConnectionPool = MongoConnection


def _nothing(_result: object) -> None:
    return None
