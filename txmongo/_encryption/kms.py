"""Requests to key management services: what libmongocrypt has written, sent over TLS, and the answer given to it.

Client-side encryption specification, "KMS provider" and "kms_tls_options". Whether and when a failed request is made
again is libmongocrypt's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError, UnknownHostError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txmongo._cmap.connector import openssl_text
from txmongo._cmap.endpoints import Endpoints
from txmongo._deferreds import Broadcast
from txmongo._settings import ClientSettings, TLSSettings, parse_settings
from txmongo.errors import AutoReconnect, ConfigurationError, NetworkTimeout
from txmongo.types import Address

__all__ = ["KMSRequests", "kms_tls_settings", "refuse_connect_callback"]

_PORT = 443
_KMIP_PORT = 5696

#: The TLS options that make sense here, by their lower-case names, and those that are for tests only.
_TLS_OPTIONS = frozenset(
    {
        "tls",
        "tlscafile",
        "tlscertificatekeyfile",
        "tlscertificatekeyfilepassword",
        "tlscrlfile",
        "tlsdisableocspendpointcheck",
    }
)
_INSECURE = frozenset(
    {"tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "tlsdisablecertificaterevocationcheck"}
)


def kms_tls_settings(kms_tls_options: Any) -> dict[str, TLSSettings]:
    """How to encrypt the connections to each provider that has options of its own.

    :param kms_tls_options: TLS options, as a client takes them, by the provider's name; ``None`` for none.
    :raises TypeError: it is no mapping of mappings.
    :raises ConfigurationError: an option is no TLS option, or weakens what is verified; a file cannot be used.
    """
    if kms_tls_options is None:
        return {}
    if not isinstance(kms_tls_options, Mapping):
        raise TypeError(f"kms_tls_options must be a mapping, not {type(kms_tls_options).__name__}")
    settings: dict[str, TLSSettings] = {}
    for provider, options in kms_tls_options.items():
        if not isinstance(options, Mapping):
            raise TypeError(f"kms_tls_options[{provider!r}] must be a mapping, not {type(options).__name__}")
        settings[provider] = _tls_settings(f"kms_tls_options[{provider!r}]", options)
    return settings


def _tls_settings(where: str, options: Mapping[str, Any]) -> TLSSettings:
    """How to encrypt the connections to one provider; where its options stand is for errors."""
    for option, value in options.items():
        name = str(option).lower()
        if name in _INSECURE:
            raise ConfigurationError(f"{where}: Insecure TLS options prohibited: {option}")
        if name not in _TLS_OPTIONS:
            raise ConfigurationError(f"{where}: {option} cannot be given")
        if name == "tls" and value in (False, "false"):
            raise ConfigurationError(f"{where}: TLS is required: a key management service is asked in no other way")
    tls = parse_settings(**{"tls": True, **options}).tls
    assert tls is not None
    return tls


def refuse_connect_callback(kms_connect_callback: Any) -> None:
    """
    :raises ConfigurationError: it is given.
    """
    if kms_connect_callback is not None:
        raise ConfigurationError("kms_connect_callback: it gives sockets, which cannot be used under Twisted")


class KMSRequests:
    """Makes the requests of one client.

    :param reactor: connects, and keeps the time.
    :param tls: how to encrypt, by the provider's name; others as the platform trusts.
    :param timeout: seconds that one request may take; ``None`` for no limit.
    """

    def __init__(self, reactor: Any, tls: Mapping[str, TLSSettings], timeout: float | None) -> None:
        self._reactor = reactor
        self._tls = tls
        self._timeout = timeout
        self._endpoints: dict[str, Endpoints] = {}
        self._open = 0
        self._all_gone = Broadcast()

    async def complete(self, context: Any) -> None:
        """Make one request, and give libmongocrypt the answer.

        Where it wants to try again it has been told of the failure when this returns.

        :param context: pymongocrypt's ``MongoCryptKmsContext``.
        :raises AutoReconnect: the service was not reached, the connection was lost, or TLS was refused.
        :raises NetworkTimeout: it was not done in time.
        """
        if context.usleep:
            await deferLater(self._reactor, context.usleep / 1e6)
        try:
            await self._within_time(self._converse(context), context.endpoint)
        except AutoReconnect as error:
            try:
                context.fail()
            except Exception:
                # No further attempt: what it met says more than that.
                raise error from None

    def drained(self) -> Deferred[None]:
        """Wait until no connection is left.

        :returns: a Deferred that fires with ``None``; it fails only with ``CancelledError``, by its own ``cancel()``.
        """
        return self._all_gone.wait() if self._open else succeed(None)

    def _within_time(self, conversation: Any, endpoint: str) -> Deferred[None]:
        done: Deferred[None] = Deferred.fromCoroutine(conversation)
        if self._timeout is None:
            return done

        def late(_result: Any, _seconds: float) -> Failure:
            return Failure(NetworkTimeout(f"{endpoint}: the key management service did not answer in time"))

        return done.addTimeout(self._timeout, self._reactor, late)

    async def _converse(self, context: Any) -> None:
        provider: str = context.kms_provider
        address = _address_of(context.endpoint, _KMIP_PORT if _type_of(provider) == "kmip" else _PORT)
        where = f"{address[0]}:{address[1]}"
        request = _Request(context, where)
        factory = Factory.forProtocol(lambda: request)
        try:
            await self._endpoints_for(provider)(address).connect(factory)
        except (ConnectError, DNSLookupError, UnknownHostError, OSError) as error:
            raise AutoReconnect(f"{where}: {error}") from error
        self._open += 1
        request.gone.addCallback(self._gone)
        try:
            await request.answered
        finally:
            request.end()
        await request.gone

    def _endpoints_for(self, provider: str) -> Endpoints:
        endpoints = self._endpoints.get(provider)
        if endpoints is None:
            tls = self._tls.get(provider, TLSSettings())
            settings = attrs.evolve(ClientSettings(), tls=tls, connect_timeout=self._timeout)
            endpoints = self._endpoints[provider] = Endpoints(self._reactor, settings)
        return endpoints

    def _gone(self, _: None) -> None:
        self._open -= 1
        if not self._open:
            self._all_gone.fire()


class _Request(Protocol):
    """One request on a connection of its own.

    :ivar answered: fires when libmongocrypt has all that it needs.
    :ivar gone: fires when the socket is closed.
    """

    def __init__(self, context: Any, where: str) -> None:
        self._context = context
        self._where = where
        self._waits = True
        self.answered: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._context.message)

    def dataReceived(self, data: bytes) -> None:
        # What comes after the answer, or after a failure, is not for libmongocrypt.
        while data and self._waits:
            needed = self._context.bytes_needed
            try:
                self._context.feed(data[:needed])
            except Exception:
                self._waits = False
                self.answered.errback()
                return
            data = data[needed:]
            if not self._context.bytes_needed:
                self._waits = False
                self.answered.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._waits:
            self._waits = False
            error = AutoReconnect(f"{self._where}: {_lost(reason.value)}")
            error.__cause__ = reason.value
            self.answered.errback(error)
        self.gone.callback(None)

    def end(self) -> None:
        """Close the connection: nobody waits for the answer any more."""
        self._waits = False
        if not self.gone.called:
            transport: Any = self.transport
            transport.abortConnection()


def _lost(reason: BaseException | None) -> str:
    """Why a connection ended before the answer was there."""
    if isinstance(reason, VerificationError):
        return "TLS handshake failed: the certificate is not for this host"
    if isinstance(reason, SSL.Error):
        return f"TLS handshake failed: {openssl_text(reason)}"
    return f"the key management service closed the connection: {reason}"


def _type_of(provider: str) -> str:
    """``kmip`` of ``kmip:name``."""
    return provider.partition(":")[0]


def _address_of(endpoint: str, port: int) -> Address:
    """Host and port of an endpoint, whose port may be left out."""
    host, colon, given = endpoint.rpartition(":")
    if not colon or given.endswith("]"):
        host, given = endpoint, ""
    return host.strip("[]"), int(given) if given else port
