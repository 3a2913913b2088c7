"""From an address to an endpoint; and what a TLS connection to it asks for, shows and accepts, without a network."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import defer, ssl
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txmongo._cmap.endpoints import Endpoints, _TLSEndpoint, address_text, connection_creator
from txmongo._settings import ClientSettings, parse_settings
from txmongo._testing.memory import MemoryEndpoint
from txmongo.testing import CertificateAuthority


@implementer(IReactorPluggableNameResolver)
class ResolvingReactor(MemoryReactorClock):
    """A reactor to which every name is both of two addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.nameResolver: Any = self

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *_: Any) -> Any:
        """Resolve at once."""
        self.asked.append(hostName)
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv6Address("TCP", "::1", portNumber))
        receiver.addressResolved(IPv4Address("TCP", "10.0.0.1", portNumber))
        receiver.resolutionComplete()
        return receiver

    def installNameResolver(self, resolver: Any) -> Any:
        """Not used."""
        return resolver


class AddressTextTests(SynchronousTestCase):
    """Addresses as people read them."""

    def test_forms(self) -> None:
        """As in a URI: IPv6 in brackets, sockets by their path."""
        self.assertEqual(address_text(("h", 1)), "h:1")
        self.assertEqual(address_text(("::1", 1)), "[::1]:1")
        self.assertEqual(address_text(("/tmp/x.sock", None)), "/tmp/x.sock")


class PlainTests(SynchronousTestCase):
    """Endpoints without TLS."""

    def setUp(self) -> None:
        """A reactor that connects nowhere."""
        self.reactor = ResolvingReactor()

    def connect(self, host: str, port: int | None, **keywords: Any) -> defer.Deferred[Any]:
        """Start a connection."""
        endpoints = Endpoints(self.reactor, parse_settings("mongodb://h", **keywords))
        return endpoints((host, port)).connect(Factory.forProtocol(Protocol))

    def test_literal_addresses(self) -> None:
        """Literal addresses are connected to without asking a resolver, with the time limit of the settings."""
        self.connect("10.0.0.9", 1, connectTimeoutMS=5000)
        self.connect("::9", 2, connectTimeoutMS=5000)
        called = [(call[0], call[1], call[3]) for call in self.reactor.tcpClients]
        self.assertEqual(called, [("10.0.0.9", 1, 5), ("::9", 2, 5)])
        self.assertEqual(self.reactor.asked, [])

    def test_no_time_limit(self) -> None:
        """connectTimeoutMS=0 sets no limit at the reactor either."""
        self.connect("10.0.0.9", 1, connectTimeoutMS=0)
        self.assertIsNone(self.reactor.tcpClients[0][3])

    def test_socket(self) -> None:
        """A path is a UNIX socket."""
        self.connect("/tmp/mongodb.sock", None)
        self.assertEqual(self.reactor.unixClients[0][0], "/tmp/mongodb.sock")

    def test_name(self) -> None:
        """All addresses of a name are tried, the next one while the first has not answered."""
        failed: list[Failure] = []
        self.connect("db.example", 3).addErrback(failed.append)
        self.assertEqual(self.reactor.asked, ["db.example"])
        self.assertEqual([call[0] for call in self.reactor.tcpClients], ["::1"])
        self.reactor.advance(0.5)
        self.assertEqual([call[0] for call in self.reactor.tcpClients], ["::1", "10.0.0.1"])


class End(Protocol):
    """Keeps what it receives and why it ended."""

    def __init__(self) -> None:
        self.received = b""
        self.reason: BaseException | None = None

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep the reason."""
        self.reason = reason.value


class TLSTests(SynchronousTestCase):
    """TLS connections between two ends in memory."""

    def setUp(self) -> None:
        """An authority, and a server certificate for db.example and 10.0.0.1."""
        self.clock = Clock()
        self.authority = CertificateAuthority(self.mktemp())
        self.server_file = self.authority.server(hosts=["db.example", "10.0.0.1"])
        self.asked_for: list[bytes | None] = []
        self.client_names: list[str | None] = []

    def settings(self, **keywords: Any) -> ClientSettings:
        """Settings that trust the authority."""
        return parse_settings("mongodb://db.example", **{"tlsCAFile": str(self.authority.ca_file), **keywords})

    def server_context(self) -> Any:
        """A server's TLS, which asks for a client certificate and is content without."""
        certificate = ssl.PrivateCertificate.loadPEM(self.server_file.read_bytes())
        authority = ssl.Certificate.loadPEM(self.authority.ca_file.read_bytes())
        options = certificate.options(authority)
        options.requireCertificate = False
        context = options.getContext()
        context.set_tlsext_servername_callback(lambda c: self.asked_for.append(c.get_servername()))
        return options

    def handshake(self, host: str, settings: ClientSettings) -> tuple[End, End]:
        """Connect as to this host, say hello, and return both ends, the client's first."""
        server = End()
        context = self.server_context()

        def accept() -> Any:
            factory = Factory.forProtocol(lambda: server)
            return TLSMemoryBIOFactory(context, False, factory, clock=self.clock).buildProtocol(None)

        assert settings.tls is not None
        endpoint = _TLSEndpoint(MemoryEndpoint(self.clock, accept), connection_creator(host, settings.tls), self.clock)
        connecting = endpoint.connect(Factory.forProtocol(End))
        self.clock.pump([0] * 3)
        client: End = self.successResultOf(connecting)
        assert client.transport is not None
        client.transport.write(b"hello")
        self.clock.pump([0] * 50)
        if server.received:
            peer: Any = server.transport.getPeerCertificate()  # type: ignore[union-attr]
            self.client_names.append(None if peer is None else peer.get_subject().CN)
        return client, server

    def assertRefused(self, client: End, server: End, kind: type[BaseException]) -> None:
        """The client ended the connection, and nothing it wrote got through."""
        self.assertIsInstance(client.reason, kind)
        self.assertEqual(server.received, b"")

    def test_verified(self) -> None:
        """A certificate of the trusted authority for the right name is accepted, and the name is sent as SNI."""
        client, server = self.handshake("db.example", self.settings())
        self.assertEqual(server.received, b"hello")
        self.assertIsNone(client.reason)
        self.assertEqual(self.asked_for, [b"db.example"])
        self.assertEqual(self.client_names, [None])

    def test_address(self) -> None:
        """An address is verified as such and, as it is no name, not sent as SNI."""
        _, server = self.handshake("10.0.0.1", self.settings())
        self.assertEqual(server.received, b"hello")
        self.assertEqual(self.asked_for, [None])

    def test_wrong_name(self) -> None:
        """A certificate for other names is refused, unless tlsAllowInvalidHostnames says otherwise."""
        for host in ("other.example", "10.0.0.2"):
            client, server = self.handshake(host, self.settings())
            self.assertRefused(client, server, ssl.VerificationError)
            _, server = self.handshake(host, self.settings(tlsAllowInvalidHostnames=True))
            self.assertEqual(server.received, b"hello")
        self.assertIn(b"other.example", self.asked_for)

    def test_unknown_authority(self) -> None:
        """A certificate of an unknown authority is refused, also where any name would do."""
        other = str(CertificateAuthority(self.mktemp(), "other").ca_file)
        for keywords in (
            {"tlsCAFile": other},
            {"tlsCAFile": other, "tlsAllowInvalidHostnames": True},
            {"tlsCAFile": None},
        ):
            client, server = self.handshake("db.example", self.settings(tls=True, **keywords))
            self.assertRefused(client, server, SSL.Error)

    def test_expired(self) -> None:
        """A certificate that is no longer valid is refused."""
        self.server_file = self.authority.server("old", hosts=["db.example"], expired=True)
        client, server = self.handshake("db.example", self.settings())
        self.assertRefused(client, server, SSL.Error)

    def test_any_certificate(self) -> None:
        """tlsAllowInvalidCertificates and tlsInsecure accept whatever is shown, and still send the name."""
        self.server_file = self.authority.server("old", hosts=["x"], expired=True)
        for keywords in ({"tlsAllowInvalidCertificates": True}, {"tlsInsecure": True}):
            _, server = self.handshake("db.example", parse_settings("mongodb://h", tls=True, **keywords))
            self.assertEqual(server.received, b"hello")
        self.assertEqual(self.asked_for, [b"db.example"] * 2)

    def test_client_certificate(self) -> None:
        """The client shows its certificate, in every mode of verification, also with an encrypted key."""
        file = str(self.authority.client("me", password="hunter2"))
        for keywords in ({}, {"tlsAllowInvalidHostnames": True}, {"tlsInsecure": True}):
            settings = self.settings(tlsCertificateKeyFile=file, tlsCertificateKeyFilePassword="hunter2", **keywords)
            _, server = self.handshake("db.example", settings)
            self.assertEqual(server.received, b"hello")
        self.assertEqual(self.client_names, ["me"] * 3)

    def test_revoked(self) -> None:
        """A certificate on a revocation list is refused; the others are not."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self.revoke())
        settings = self.settings(tlsCRLFile=path)
        client, server = self.handshake("db.example", settings)
        self.assertRefused(client, server, SSL.Error)
        self.server_file = self.authority.server("new", hosts=["db.example"])
        _, server = self.handshake("db.example", settings)
        self.assertEqual(server.received, b"hello")

    def revoke(self) -> bytes:
        """A list, in PEM, with the server's certificate on it."""
        now = datetime.datetime.now(datetime.UTC)
        revoked = x509.load_pem_x509_certificate(self.server_file.read_bytes())
        authority = x509.load_pem_x509_certificate(self.authority.ca_file.read_bytes())
        entry = x509.RevokedCertificateBuilder().serial_number(revoked.serial_number).revocation_date(now).build()
        builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject).last_update(now)
        builder = builder.next_update(now + datetime.timedelta(days=1)).add_revoked_certificate(entry)
        return builder.sign(self.authority._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def test_context_factories(self) -> None:
        """The application's own factory is used as it is, whether of Twisted's new kind or of its old one."""

        class Verifying(ssl.ClientContextFactory):
            """As programs for TxMongo 15.2 have it."""

            def getContext(self) -> SSL.Context:
                context = SSL.Context(SSL.TLS_METHOD)
                return context

        new = ssl.optionsForClientTLS("db.example", ssl.Certificate.loadPEM(self.authority.ca_file.read_bytes()))
        for factory in (new, Verifying(), ssl.ClientContextFactory()):
            settings = parse_settings("mongodb://db.example", ssl_context_factory=factory)
            _, server = self.handshake("db.example", settings)
            self.assertEqual(server.received, b"hello")

    def test_one_context_a_host(self) -> None:
        """The TLS context of a host is made once, at its first connection, and is another host's never."""
        reactor = ResolvingReactor()
        endpoints = Endpoints(reactor, self.settings())
        one, again, other = (endpoints((host, 1)) for host in ("a", "a", "b"))
        assert isinstance(one, _TLSEndpoint) and isinstance(again, _TLSEndpoint) and isinstance(other, _TLSEndpoint)
        self.assertIs(one._creator, again._creator)
        self.assertIsNot(one._creator, other._creator)
