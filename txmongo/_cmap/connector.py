"""Makes connections: TCP or TLS, the greeting, authentication, all within one time limit.

Lives here: the I/O of establishing a connection, for the pool and for the monitors. What is sent and how answers are
read is :mod:`~txmongo._cmap.handshake` and :mod:`txmongo._auth`; whoever asked keeps the connection afterwards.
A connection that is not handed over is aborted: nothing stays open after a failure or a cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, cast

import attrs
import bson
from OpenSSL import SSL
from pymongo.driver_info import DriverInfo
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    NetworkTimeout,
    NotPrimaryError,
    ProtocolError,
    PyMongoError,
)
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError, UnknownHostError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IHandshakeListener, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txmongo import _auth as auth
from txmongo._cmap import handshake
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.endpoints import address_text
from txmongo._deferreds import Broadcast, Countdown
from txmongo._pymongo import MongoCredential, add_error_label
from txmongo._reauthentication import Reauthentication
from txmongo._settings import ClientSettings
from txmongo._wire.op_compressed import compressor_named
from txmongo._wire.op_legacy import Query, Reply
from txmongo.errors import error_from_reply
from txmongo.protocol import MongoProtocol
from txmongo.types import Address

__all__ = ["Connector", "Discarded", "EndpointFor", "openssl_text"]

EndpointFor = Callable[[Address], IStreamClientEndpoint]

_T = TypeVar("_T")

_SECONDARY_OK = 4
_UNRESOLVED = DNSLookupError | UnknownHostError


class Discarded:
    """The connections that were not handed over, until their sockets are closed. Several connectors may share one."""

    def __init__(self) -> None:
        self._count = 0
        self._all_gone = Broadcast()

    def __len__(self) -> int:
        return self._count

    def abort(self, protocol: MongoProtocol, reason: Exception) -> None:
        """Abort a connection, and remember it until its socket is closed."""
        if protocol.connected:
            self._count += 1
            protocol.lost_hook = self._gone
            protocol.abort(reason)

    def drained(self) -> Deferred[None]:
        """Wait until none is left.

        :returns: a Deferred that fires with ``None``; it fails only with ``CancelledError``, by its own ``cancel()``.
        """
        return self._all_gone.wait() if self._count else succeed(None)

    def _gone(self, _: Failure) -> None:
        self._count -= 1
        if not self._count:
            self._all_gone.fire()


class Connector:
    """Connects to the servers of one client.

    Every failure says at which server and how far the connection got: its attribute ``_txmongo_stage`` is ``"connect"``
    (up to and including the TLS handshake), ``"hello"`` or ``"auth"``, and ``_txmongo_service_id`` the load-balanced
    service, if it was known. Where it may be that the server is overloaded, the error of a connection for commands has
    the labels ``SystemOverloadedError`` and ``RetryableError``.

    :param settings: timeouts, credentials, what to greet with.
    :param endpoint_for: where an address is reached; :class:`~txmongo._cmap.endpoints.Endpoints` as a rule.
    :param clock: for the time limit.
    :param further_users: who else each connection is authenticated as; servers from 6.0 on refuse that.
    :param discarded: where connections are left that come to nothing; its own if none is given.
    :raises ConfigurationError: the mechanism of the credentials is not supported.
    """

    def __init__(
        self,
        settings: ClientSettings,
        endpoint_for: EndpointFor,
        clock: IReactorTime,
        further_users: Sequence[MongoCredential] = (),
        discarded: Discarded | None = None,
    ) -> None:
        self._settings = settings
        self._authenticator: auth.Authenticator | None = None
        if settings.credentials is not None:
            api_fields = handshake.server_api_fields(settings.server_api)
            self._authenticator = auth.Authenticator(settings.credentials, clock, api_fields, settings.timeout)
        self._endpoint_for = endpoint_for
        self._clock = clock
        self._further_users = further_users
        self._wrappers: list[DriverInfo] = [settings.driver] if settings.driver is not None else []
        self._metadata = handshake.client_metadata(settings.app_name, self._wrappers)
        self._discarded = Discarded() if discarded is None else discarded

    def append_metadata(self, wrapper: DriverInfo) -> None:
        """Name a library around the driver in the metadata of connections made from now on.

        :raises ValueError: one of its fields contains the delimiter ``|``.
        """
        wrappers = [*self._wrappers, wrapper]
        self._metadata = handshake.client_metadata(self._settings.app_name, wrappers)
        self._wrappers = wrappers

    def connect(self, address: Address) -> Deferred[tuple[MongoProtocol, StreamDescription]]:
        """Make a connection for commands: connected, greeted and authenticated.

        :returns: a Deferred that fires with the connection and what the server said about it. It fails with
            :class:`~txmongo.errors.AutoReconnect` (not reached, closed, TLS refused, no MongoDB server),
            :class:`~txmongo.errors.NetworkTimeout` (not done within ``connectTimeoutMS``),
            :class:`~txmongo.errors.OperationFailure` (a command failed; code 18: wrong user or password) or
            :class:`~txmongo.errors.ConfigurationError` (a server that the driver cannot work with). Cancelling it
            aborts the connection.
        """
        attempt = _Attempt(self._settings, self._clock, address, self._discarded.abort)
        return attempt.within_time(self._connect(attempt))

    def connect_monitor(self, address: Address) -> Deferred[tuple[MongoProtocol, Mapping[str, Any], float]]:
        """Make a connection for monitoring: connected and greeted, nothing more.

        :returns: a Deferred that fires with the connection, the reply to the greeting and the seconds that it took. The
            server's versions are for the topology to judge. It fails as that of :meth:`connect`.
        """
        attempt = _Attempt(self._settings, self._clock, address, self._discarded.abort, monitors=True)
        return attempt.within_time(self._connect_monitor(attempt))

    def drained(self) -> Deferred[None]:
        """Wait until nothing is left in the reactor of attempts that failed or were cancelled.

        :returns: a Deferred that fires with ``None``; it fails only with ``CancelledError``, by its own ``cancel()``.
        """
        return self._discarded.drained()

    async def _connect(self, attempt: _Attempt) -> tuple[MongoProtocol, StreamDescription]:
        settings = self._settings
        protocol = await attempt.open(self._endpoint_for)
        authentication = None if self._authenticator is None else self._authenticator.begin(attempt.address)
        speculative = None if authentication is None else authentication.speculative_command()
        reply, _ = await attempt.greet(handshake.first_hello(settings, self._metadata, speculative, monitor=False))
        handshake.check_hello(reply, attempt.server, load_balanced=settings.load_balanced)
        compressor = handshake.agreed_compressor(settings, reply)
        description = StreamDescription.from_hello(reply, compressor=compressor, load_balanced=settings.load_balanced)
        if authentication is not None and _has_users(description):
            attempt.stage = "auth"
            await authentication.complete(protocol, reply, attempt.limit)
            protocol.reauthentication = Reauthentication(
                authentication, protocol, self._clock, settings.connect_timeout, attempt.server
            )
            api_fields = handshake.server_api_fields(settings.server_api)
            for user in self._further_users:
                await auth.authenticate_user(protocol, user, attempt.address, api_fields)
            if self._further_users:
                # A session belongs to one user: servers refuse commands with one on a connection that has several.
                description = attrs.evolve(description, logical_session_timeout_minutes=None)
        protocol.set_wire_versions(description.min_wire_version, description.max_wire_version)
        protocol.max_message_size = description.max_message_size
        if compressor is not None:
            protocol.compressor = compressor_named(compressor, settings.zlib_compression_level)
        return protocol, description

    async def _connect_monitor(self, attempt: _Attempt) -> tuple[MongoProtocol, Mapping[str, Any], float]:
        protocol = await attempt.open(self._endpoint_for)
        reply, seconds = await attempt.greet(handshake.first_hello(self._settings, self._metadata, None, monitor=True))
        return protocol, reply, seconds


class _Attempt:
    """One connection in the making: how far it got, and what is to be undone."""

    def __init__(
        self,
        settings: ClientSettings,
        clock: IReactorTime,
        address: Address,
        discard: Callable[[MongoProtocol, Exception], None],
        *,
        monitors: bool = False,
    ) -> None:
        self.address = address
        self.server = address_text(address)
        self.stage = "connect"
        self._settings = settings
        self._clock = clock
        self._discard = discard
        self._monitors = monitors
        self._protocol: _Establishing | None = None
        self._service_id: Any = None
        self._timed_out = False
        self._given_up = False
        self._steps: Deferred[Any]
        self.limit: Countdown

    def within_time(self, work: Coroutine[Any, Any, _T]) -> Deferred[_T]:
        """Run the steps of this attempt until they end, the time is up, or the caller cancels."""
        self.limit = limit = Countdown(self._clock, self._settings.connect_timeout, self._time_is_up)
        self._steps = steps = Deferred.fromCoroutine(self._guarded(work))
        done: Deferred[_T] = Deferred(self._cancelled)

        def ended(result: _T | Failure) -> None:
            limit.stop()
            if not done.called:
                done.callback(result)

        steps.addBoth(ended)
        return done

    def _time_is_up(self) -> None:
        self._timed_out = True
        self._steps.cancel()

    def _cancelled(self, _: Deferred[Any]) -> None:
        self._given_up = True
        self._steps.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            made = await work
            if self._given_up or self._timed_out:
                raise CancelledError  # an endpoint that went on although it was cancelled
            return made
        except Exception as error:
            reason = self._explained(error)
            if self._protocol is not None:
                self._discard(self._protocol, reason)
            if reason is error:
                raise
            raise reason from error

    async def open(self, endpoint_for: EndpointFor) -> MongoProtocol:
        """Connect, and start the TLS handshake if there is one."""
        factory = _EstablishingFactory(self._clock.seconds, self._settings.tls is not None)
        protocol = cast(_Establishing, await endpoint_for(self.address).connect(factory))
        self._protocol = protocol
        if self.address[1] is not None:
            _tune(protocol.transport)
        return protocol

    async def greet(self, hello: handshake.Hello) -> tuple[dict[str, Any], float]:
        """Send the greeting; the reply and the seconds until it came, those of a TLS handshake left out."""
        protocol = self._protocol
        assert protocol is not None
        await protocol.ready()
        self.stage = "hello"
        started = self._clock.seconds()
        if hello.legacy:
            reply = _document(await protocol.send_query(_query(hello.command)))
        else:
            reply = await protocol.command("admin", hello.command)
        self._service_id = reply.get("serviceId")
        return reply, self._clock.seconds() - started

    def _explained(self, error: Exception) -> Exception:
        """The exception that the caller gets for what went wrong: it names server and stage."""
        explained = error
        if self._given_up:
            return error if isinstance(error, CancelledError) else CancelledError()
        if self._timed_out:
            explained = NetworkTimeout(
                f"{self.server}: not connected within connectTimeoutMS "
                f"({self._settings.connect_timeout:g} s): {_WAITING_FOR[self._waiting_stage()]}"
            )
        elif isinstance(error, ConnectionFailure) and not isinstance(error, NotPrimaryError):
            if isinstance(error.__cause__, SSL.Error):
                self.stage = "connect"  # with TLS 1.3 the server may refuse the client after our side is content
            explained = AutoReconnect(f"{self.server}: {_lost(error, self.stage, self._settings.tls is not None)}")
        elif isinstance(error, ProtocolError):
            explained = AutoReconnect(f"{self.server}: {error}")
        elif isinstance(error, ConnectTimeout):
            explained = NetworkTimeout(f"{self.server}: {error}")
        elif not isinstance(error, PyMongoError):
            explained = AutoReconnect(f"{self.server}: {_unreached(error)}")
        if self._may_be_overload(explained, error):
            add_error_label(explained, "SystemOverloadedError")
            add_error_label(explained, "RetryableError")
        vars(explained)["_txmongo_stage"] = self.stage
        vars(explained)["_txmongo_service_id"] = self._service_id
        return explained

    def _may_be_overload(self, explained: Exception, error: Exception) -> TypeGuard[AutoReconnect]:
        """Whether a server that takes no more connections for now would make the attempt fail like this.

        CMAP specification, "Establishing a Connection": the network, or its slowness, until ``hello`` is answered; not
        a name that cannot be resolved, nor a certificate.
        """
        if self._monitors or self.stage == "auth" or type(explained) not in (AutoReconnect, NetworkTimeout):
            return False
        if self._timed_out or isinstance(error, ConnectTimeout):
            return True
        if isinstance(error, ConnectionFailure):
            return _is_network_loss(error.__cause__)
        return isinstance(error, ConnectError | ConnectionClosed) and not isinstance(error, _UNRESOLVED)

    def _waiting_stage(self) -> str:
        return "tls" if self.stage == "connect" and self._protocol is not None else self.stage


_WAITING_FOR = {
    "connect": "still connecting",
    "tls": "the TLS handshake was not over",
    "hello": "no whole answer to the greeting came; is it a MongoDB server?",
    "auth": "authentication was not over",
}


@implementer(IHandshakeListener)
class _Establishing(MongoProtocol):
    """A connection that tells when it may be talked on, which with TLS is not yet when it is connected."""

    def __init__(self, seconds: Callable[[], float], tls: bool) -> None:
        super().__init__()
        self.seconds = seconds
        self._tls = tls
        self._secured = not tls
        self._waiting: Deferred[None] | None = None

    def ready(self) -> Deferred[None]:
        """Wait, once, for the TLS handshake; the Deferred fails with AutoReconnect if the connection is lost first."""
        if self._abort_reason is not None:
            return fail(self._loss_error())
        if self._secured:
            return succeed(None)
        self._waiting = Deferred()
        return self._waiting

    def handshakeCompleted(self) -> None:
        """The TLS handshake is over: the server's certificate was accepted, or the connection is about to be cut.

        Older versions of Twisted verify the host's name a moment before they call this, whatever came of it.
        """
        if self.transport.disconnecting:  # type: ignore[union-attr]
            return
        self._secured = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(self._loss_error())


class _EstablishingFactory(Factory):
    """Makes the protocol of one connection, or of each address that is tried for it."""

    noisy = False

    def __init__(self, seconds: Callable[[], float], tls: bool) -> None:
        self._seconds = seconds
        self._tls = tls

    def buildProtocol(self, addr: Any) -> _Establishing:
        return _Establishing(self._seconds, self._tls)


def _has_users(description: StreamDescription) -> bool:
    """Authentication specification: an arbiter has no users, so nobody authenticates there."""
    return not description.hello.get("arbiterOnly")


def _query(command: Mapping[str, Any]) -> Query:
    return Query(flags=_SECONDARY_OK, collection="admin.$cmd", n_to_return=-1, query=bson.encode(command))


def _document(reply: Reply) -> dict[str, Any]:
    """The document of a reply to a greeting.

    :raises ProtocolError: it is no such reply.
    """
    if not isinstance(reply, Reply) or len(reply.documents) != 1:
        raise ProtocolError("the greeting was not answered by one document")
    document: dict[str, Any] = bson.decode(reply.documents[0])
    error = error_from_reply(document)
    if error is not None:
        raise error
    return document


def _tune(transport: Any) -> None:
    """Send small requests at once, and notice in the end when the other side has gone without a word."""
    for method in ("setTcpNoDelay", "setTcpKeepAlive"):
        switch = getattr(transport, method, None)
        if switch is not None:
            switch(True)


def _lost(error: ConnectionFailure, stage: str, tls: bool) -> str:
    """Why a connection went before it was ready."""
    cause = error.__cause__
    if isinstance(cause, VerificationError):
        return f"TLS handshake failed: the server's certificate is not for this host: {_mismatches(cause)}"
    if isinstance(cause, SSL.Error):
        return f"TLS handshake failed: {openssl_text(cause)}"
    if isinstance(cause, ProtocolError):
        return f"not a MongoDB server? {cause}"
    reason = cause if cause is not None else error
    if stage == "connect":
        return f"connection closed during the TLS handshake (does the server speak TLS?): {reason}"
    if stage == "hello" and not tls:
        return f"connection closed during the greeting (does the server want TLS?): {reason}"
    return f"connection closed during {'the greeting' if stage == 'hello' else 'authentication'}: {reason}"


def _is_network_loss(cause: BaseException | None) -> bool:
    """Whether a connection was closed by the other end or by the network, and not for what one of the ends said."""
    if isinstance(cause, SSL.Error):
        # How OpenSSL says that the other end closed in the middle of the handshake.
        return isinstance(cause, SSL.SysCallError) or "unexpected eof" in str(cause)
    return not isinstance(cause, VerificationError | ProtocolError)


def _mismatches(error: VerificationError) -> str:
    return ", ".join(str(mismatch) for mismatch in error.errors) or "it names no host"


def openssl_text(error: SSL.Error) -> str:
    """OpenSSL's reasons, from its list of (library, function, reason)."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(entry[-1]) for entry in entries) or str(error) or type(error).__name__


def _unreached(error: Exception) -> str:
    """Why no connection was made."""
    if isinstance(error, DNSLookupError):
        return f"the host name cannot be resolved: {error}"
    if isinstance(error, ConnectError):
        return str(error)
    return f"{type(error).__name__}: {error}"
