"""What ``txmongo.connection`` has for TxMongo's sake: methods of the client, and one connection as a client factory."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.python.failure import Failure

from txmongo._ops.arguments import check_mapping
from txmongo._ops.timeouts import check_timing
from txmongo._settings import ClientSettings, parse_settings
from txmongo.errors import AutoReconnect, OperationFailure
from txmongo.protocol import MongoAuthenticationError, MongoProtocol

if TYPE_CHECKING:
    from txmongo._pymongo import MongoCredential

__all__ = ["LegacyClient", "SingleConnection", "parse_uri", "user_of"]

#: Database, user, password and mechanism for each database.
Users = dict[str, tuple[str | None, str | None, str]]


def user_of(credentials: MongoCredential) -> tuple[str | None, str | None, str]:
    """User, password and mechanism, as :attr:`LegacyClient.auth_creds` has them."""
    return credentials.username, credentials.password, credentials.mechanism


class LegacyClient:
    """What :class:`~txmongo.connection.ConnectionPool` inherits."""

    if TYPE_CHECKING:

        @property
        def options(self) -> ClientSettings: ...

        @property
        def codec_options(self) -> CodecOptions[Any]: ...

        def get_database(self, name: str | None = None) -> Any: ...

    _uri: dict[str, Any] | None = None

    @property
    def uri(self) -> dict[str, Any]:
        """The connection string in parts, as in TxMongo: ``nodelist``, ``username``, ``password``, ``database``..."""
        if self._uri is None:
            self._uri = _uri_parts(self.options)
        return self._uri

    def command(
        self,
        dbname: Any,
        command: Mapping[str, Any],
        *,
        allowable_errors: Container[int | str] | None = None,
        check: bool = True,
        codec_options: CodecOptions[Any] | None = None,
        write_concern: WriteConcern | None = None,
        session: Any = None,
        **timing: Any,
    ) -> Deferred[Any]:
        """Run any command of the server and get its reply, as :meth:`Database.command()
        <txmongo.database.Database.command>` does.

        :param dbname: the name of the database that it is for, or a :class:`~txmongo.database.Database`.
        :param command: the whole command, a mapping whose first key is its name; it is not changed.
        :param allowable_errors: codes and messages of errors that come as an ordinary reply.
        :param check: whether an error that the server answers makes the Deferred fail.
        :param codec_options: how the command is encoded and the reply decoded; the client's if it is not given.
        :param write_concern: a field of the command, if it is given.
        :returns: a Deferred that fires with the server's reply, and fails as that of ``Database.command()``.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the command is empty, or is to be done in a session and not to be acknowledged.
        """
        check_mapping("command", command)
        check_timing(timing)
        if write_concern is not None:
            if not isinstance(write_concern, WriteConcern):
                raise TypeError(f"write_concern must be a WriteConcern, not {type(write_concern).__name__}")
            if session is not None and not write_concern.acknowledged:
                raise ValueError("in a session every write has to be acknowledged")
            command = {**command, "writeConcern": write_concern.document}
        database = self.get_database(dbname if isinstance(dbname, str) else getattr(dbname, "name", dbname))
        reply: Deferred[Any] = database.command(
            command,
            check=check,
            allowable_errors=allowable_errors,
            codec_options=self.codec_options if codec_options is None else codec_options,
            session=session,
            **timing,
        )
        return reply


class SingleConnection(ReconnectingClientFactory):
    """One connection of a client, as a client factory for ``reactor.connectTCP``: TxMongo's ``_Connection``.

    It tries the hosts of a connection string in turn until one of them is the server to talk to: any if the read
    preference allows it, else a primary, a mongos or a server on its own. There it authenticates. When the connection
    is lost it begins anew, after a pause; ``stopTrying()`` ends that. A client does not use it: it is there for
    programs that connect by themselves.

    :param pool: the client whose users it authenticates as, or ``None`` for the one of the connection string.
    :param uri: the connection string in parts, as of ``ConnectionPool.uri``.
    :param connection_id: a number that tells it from others.
    :param initial_delay: seconds of the first pause.
    :param max_delay: seconds of the longest one.
    :ivar instance: the :class:`~txmongo.protocol.MongoProtocol` that is ready, or ``None``.
    """

    protocol: Any = MongoProtocol
    connector: Any = None
    instance: MongoProtocol | None = None
    noisy = False

    def __init__(
        self, pool: Any, uri: Mapping[str, Any], connection_id: int, initial_delay: float, max_delay: float
    ) -> None:
        self._pool = pool
        self._uri = uri
        self.connection_id = connection_id
        self.initialDelay = self.delay = initial_delay
        self.maxDelay: Any = max_delay  # Twisted's own is an int
        self._further_hosts = list(uri["nodelist"])[1:]
        self._waiting: list[Deferred[MongoProtocol]] = []

    @property
    def pool(self) -> Any:
        """The client that it was made for."""
        return self._pool

    @property
    def uri(self) -> Mapping[str, Any]:
        """The connection string in parts."""
        return self._uri

    def notifyReady(self) -> Deferred[MongoProtocol]:
        """Wait for the connection.

        :returns: a Deferred that fires with the protocol once it is connected and authenticated. It fails with
            :class:`~txmongo.protocol.MongoAuthenticationError` if the server refuses the user. While this factory is
            not used, it is one of the client's connections that is waited for.
        """
        if self.instance is not None:
            return succeed(self.instance)
        if self.connector is None and self._pool is not None:
            protocol: Deferred[MongoProtocol] = self._pool.getprotocol()
            return protocol
        waiter: Deferred[MongoProtocol] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def authenticate(self, database: str, username: str, password: str, mechanism: str) -> Deferred[bool]:
        """Authenticate the connection, once it is there, as another user: see
        :meth:`MongoProtocol.authenticate() <txmongo.protocol.MongoProtocol.authenticate>`."""
        ready = self.notifyReady()
        return ready.addCallback(lambda protocol: protocol.authenticate(database, username, password, mechanism))

    def setInstance(self, instance: MongoProtocol | None = None, reason: Any = None) -> None:
        """Note that the connection is ready, or is no longer; tell those who wait."""
        self.instance = instance
        if instance is None and reason is None:
            return
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(instance) if instance is not None else waiter.errback(reason)

    # --- what the reactor calls ---

    def startedConnecting(self, connector: Any) -> None:
        """Note that this factory is used, and by what."""
        self.connector = connector

    def buildProtocol(self, addr: Any) -> Any:
        """A protocol that greets the server, and is ready when that one is the right one."""
        protocol: Any = super().buildProtocol(addr)
        ready = protocol.connectionReady()
        ready.addCallback(lambda protocol: Deferred.fromCoroutine(self.configure(protocol)))
        ready.addCallback(lambda _: self._ready(protocol))
        ready.addErrback(self._unfit, protocol)
        return protocol

    def _ready(self, protocol: MongoProtocol) -> None:
        self.resetDelay()  # type: ignore[no-untyped-call]
        self.setInstance(protocol)

    def _unfit(self, failure: Failure, protocol: MongoProtocol) -> None:
        """The server is not the right one, refuses the user, or is lost: the end of the connection leads on."""
        if failure.check(MongoAuthenticationError, OperationFailure):
            self.stopTrying()  # type: ignore[no-untyped-call]
            self.setInstance(reason=failure)
        protocol.fail(failure)

    async def configure(self, proto: MongoProtocol) -> None:
        """Greet the server and authenticate.

        :raises AutoReconnect: it is not the server to talk to, or the connection is lost.
        :raises MongoAuthenticationError: it refuses the user.
        """
        hello = await proto.send_op_query_command("admin", {"isMaster": 1})
        proto.init_from_hello_response(hello)
        preference = str(self._uri.get("options", {}).get("readpreference", "primary")).lower()
        if preference == "primary" and not hello.get("ismaster"):
            raise AutoReconnect("the server is not the primary")
        for database, (username, password, mechanism) in self._users().items():
            await proto.authenticate(database, username, password, mechanism)

    def _users(self) -> Users:
        if self._pool is not None:
            users: Users = self._pool.auth_creds
            return users
        if self._uri.get("username") is None:
            return {}
        options = self._uri.get("options", {})
        database = options.get("authsource") or self._uri.get("database") or "admin"
        mechanism = options.get("authmechanism", "DEFAULT")
        return {database: (self._uri["username"], self._uri["password"], mechanism)}

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """A host was not reached: try the next one."""
        self.retryNextHost(connector)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        """The connection is gone: try the next host if it was not ready, else begin anew."""
        if self.instance is not None:
            self.setInstance()
            self._further_hosts = []
        self.retryNextHost(connector)

    def retryNextHost(self, connector: Any = None) -> None:
        """Connect to the next host, after the last one to the first again, and that after a pause."""
        connector = self.connector if connector is None else connector
        if not self.continueTrying:
            return
        at_once = bool(self._further_hosts)
        if not at_once:
            self._further_hosts = list(self._uri["nodelist"])
        connector.host, connector.port = self._further_hosts.pop(0)
        if at_once:
            connector.connect()
        else:
            self.retry(connector)  # type: ignore[no-untyped-call]


def parse_uri(uri: str) -> dict[str, Any]:
    """The parts of a connection string, as :attr:`LegacyClient.uri` has them. DNS is not asked."""
    return _uri_parts(parse_settings(uri))


def _uri_parts(settings: ClientSettings) -> dict[str, Any]:
    credentials = settings.credentials
    return {
        "nodelist": list(settings.seeds),
        "username": None if credentials is None else credentials.username,
        "password": None if credentials is None else credentials.password,
        "database": settings.database,
        "collection": settings.collection,
        "options": dict(settings.options),
        "fqdn": settings.fqdn,
    }
