"""Where a server is reached: an address becomes a Twisted endpoint, in plain TCP, TLS or over a UNIX socket.

Lives here: the choice of endpoint, and TLS contexts made of :class:`~txmongo._tls.TLSSettings`. Each host gets a TLS
context of its own, with its name in SNI and, unless that is waived, verified in the certificate. What is said over the
connection is :mod:`txmongo._cmap.handshake`'s; how long it may take is :mod:`txmongo._cmap.connector`'s.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
    IWriteDescriptor,
)
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from txmongo._settings import ClientSettings, TLSSettings
from txmongo.types import Address

__all__ = ["Endpoints", "address_text"]


def address_text(address: Address) -> str:
    """An address as it is written in a URI: ``host:port``, ``[::1]:port``, or the path of a socket."""
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Endpoints:
    """Gives the endpoint of a server; remembers the TLS context of each host.

    :param reactor: makes the connections and resolves the names.
    :param settings: says whether and how to encrypt, and how long one attempt may take.
    """

    def __init__(self, reactor: Any, settings: ClientSettings) -> None:
        self._reactor = reactor
        # None, for "no limit", is passed on to the reactor; Twisted's annotations leave it out.
        self._timeout: Any = settings.connect_timeout
        self._tls = settings.tls
        self._creators: dict[str, Any] = {}

    def __call__(self, address: Address) -> IStreamClientEndpoint:
        """The endpoint of one server.

        A host name is looked up anew for every connection, and its addresses are tried a little after one another until
        one answers (RFC 8305); literal addresses are taken as they are.
        """
        host, port = address
        if port is None:
            plain: IStreamClientEndpoint = UNIXClientEndpoint(self._reactor, host, timeout=self._timeout)
        elif isIPAddress(host):
            plain = TCP4ClientEndpoint(self._reactor, host, port, timeout=self._timeout)
        elif isIPv6Address(host):
            plain = TCP6ClientEndpoint(self._reactor, host, port, timeout=self._timeout)
        else:
            plain = HostnameEndpoint(self._reactor, host, port, timeout=self._timeout)
        if self._tls is None:
            return plain
        return _TLSEndpoint(plain, self._creator(host, self._tls), self._reactor)

    def _creator(self, host: str, tls: TLSSettings) -> Any:
        creator = self._creators.get(host)
        if creator is None:
            creator = self._creators[host] = connection_creator(host, tls)
        return creator


class PromptTLSTransport(BufferingTLSTransport):
    """A TLS transport that also has what plain ones have: a way to the kernel that does not wait for the reactor.

    ``write`` collects what is written until the reactor's next turn, and the transport below it waits for another one.
    """

    def writeSomeData(self, data: bytes) -> int:
        """Encrypt bytes and write them now; for when nothing that was written before is still collected.

        :returns: how many were taken, which is all of them: what the kernel has no room for waits below.
        """
        TLSMemoryBIOProtocol.write(self, data)
        below: Any = self.transport
        # One that is to close tells its caller when all is written: that must be the reactor.
        if not below.disconnecting and IWriteDescriptor.providedBy(below):
            # What it returns of an error the reactor will hear too, from the call that is still to come then.
            below.doWrite()
        return len(data)


class _PromptTLSFactory(TLSMemoryBIOFactory):
    protocol = PromptTLSTransport


@implementer(IStreamClientEndpoint)
class _TLSEndpoint:
    """Speaks TLS from the first byte over what another endpoint connects.

    ``wrapClientTLS`` of the oldest allowed Twisted takes no clock.
    """

    def __init__(self, plain: IStreamClientEndpoint, creator: Any, clock: Any) -> None:
        self._plain = plain
        self._creator = creator
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        factory = _PromptTLSFactory(self._creator, True, protocolFactory, clock=self._clock)
        connected: Deferred[Any] = self._plain.connect(factory)
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


def connection_creator(host: str, tls: TLSSettings) -> Any:
    """What makes the TLS connections to one host.

    :returns: an ``IOpenSSLClientConnectionCreator``, or the application's own factory of either kind.
    """
    if tls.context_factory is not None:
        return tls.context_factory
    options = _certificate_options(tls)
    if tls.allow_invalid_certificates:
        return _NameUnverified(host, ssl.CertificateOptions(**options).getContext())
    trust = ssl.platformTrust() if tls.trusted is None else _trust_in(tls)
    if tls.allow_invalid_hostnames:
        creator: Any = _NameUnverified(host, ssl.CertificateOptions(trustRoot=trust, **options).getContext())
    else:
        creator = ssl.optionsForClientTLS(host, trust, extraCertificateOptions=options)
    return _RevocationChecked(creator, tls) if tls.revocation_lists else creator


def _certificate_options(tls: TLSSettings) -> dict[str, Any]:
    own = tls.client_certificate
    if own is None:
        return {}
    return {
        "privateKey": crypto.PKey.from_cryptography_key(own.private_key),
        "certificate": crypto.X509.from_cryptography(own.certificate),
        "extraCertChain": [crypto.X509.from_cryptography(certificate) for certificate in own.chain],
    }


def _trust_in(tls: TLSSettings) -> Any:
    return ssl.trustRootFromCertificates(
        [ssl.Certificate(crypto.X509.from_cryptography(certificate)) for certificate in tls.trusted or ()]
    )


@implementer(IOpenSSLClientConnectionCreator)
class _NameUnverified:
    """Connections that say in SNI whom they want, and do not mind what the certificate is called."""

    def __init__(self, host: str, context: SSL.Context) -> None:
        self._context = context
        self._name = None if isIPAddress(host) or isIPv6Address(host) else host.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection


@implementer(IOpenSSLClientConnectionCreator)
class _RevocationChecked:
    """Connections of another creator that also refuse a server certificate which a list says is revoked."""

    def __init__(self, creator: Any, tls: TLSSettings) -> None:
        self._creator = creator
        self._tls = tls
        self._checked: SSL.Context | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        context = connection.get_context()
        if context is not self._checked:
            store = context.get_cert_store()
            assert store is not None
            for revoked in self._tls.revocation_lists:
                store.add_crl(revoked)
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
            self._checked = context
        return connection
