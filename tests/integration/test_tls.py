"""TLS between the driver and a real server: what is accepted, what is refused, and that nothing goes in plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import defer, endpoints, reactor, ssl
from twisted.internet.protocol import Factory
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from tests.integration.links import LinkTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError
from txmongo.testing import CertificateAuthority, FakeServer, Mongod, TLSFiles


class TLSTestCase(LinkTestCase):
    """An authority for certificates, and servers with them."""

    def setUp(self) -> None:
        """Make the authority."""
        self.authority = CertificateAuthority(self.mktemp())
        self.ca = str(self.authority.ca_file)

    async def mongod(self, certificate: Path | None = None, *, required: bool = False, **keywords: Any) -> Mongod:
        """Start a server that speaks TLS only."""
        files = TLSFiles(
            certificate_key_file=certificate or self.authority.server(),
            ca_file=self.authority.ca_file,
            client_certificate_key_file=self.authority.client("tests' own"),
            require_client_certificate=required,
        )
        mongod = await Mongod(reactor, tls=files, **keywords).start()
        self.addCleanup(mongod.stop)
        return mongod


class VerificationTests(TLSTestCase):
    """The server's certificate."""

    async def test_verified(self) -> None:
        """A good certificate is accepted, for a name and for an address; others are refused, saying why."""
        mongod = await self.mongod()
        for host in ("localhost", "127.0.0.1"):
            protocol, _ = await self.connect(f"mongodb://{host}:{mongod.port}", tlsCAFile=self.ca)
            self.assertEqual((await protocol.command("admin", {"ping": 1}))["ok"], 1)
        other = CertificateAuthority(self.mktemp(), "another authority").ca_file
        for keywords in ({"tlsCAFile": str(other)}, {"tls": True}):
            failed = await self.failure(AutoReconnect, f"mongodb://localhost:{mongod.port}", **keywords)
            self.assertIn(f"localhost:{mongod.port}: TLS handshake failed: certificate verify failed", str(failed))
            self.assertEqual(failed._txmongo_stage, "connect")
        await self.connect(f"mongodb://localhost:{mongod.port}/?tls=true&tlsAllowInvalidCertificates=true")
        await self.connect(f"mongodb://localhost:{mongod.port}/?tls=true&tlsInsecure=true")

    async def test_host_name(self) -> None:
        """A certificate for another host is refused, unless names are not to be verified."""
        mongod = await self.mongod(self.authority.server(hosts=["other.example"]))
        for host in ("localhost", "127.0.0.1"):
            uri = f"mongodb://{host}:{mongod.port}"
            failed = await self.failure(AutoReconnect, uri, tlsCAFile=self.ca)
            self.assertIn("the server's certificate is not for this host", str(failed))
            await self.connect(uri, tlsCAFile=self.ca, tlsAllowInvalidHostnames=True)

    async def test_expired(self) -> None:
        """An expired certificate is refused before anything is said; a mongod would not even start with it."""
        certificate = ssl.PrivateCertificate.loadPEM(self.authority.server("old", expired=True).read_bytes())
        server = FakeServer()
        endpoint = endpoints.SSL4ServerEndpoint(reactor, 0, certificate.options(), interface="127.0.0.1")
        port: Any = await endpoint.listen(Factory.forProtocol(server._accept))
        self.addCleanup(port.stopListening)
        failed = await self.failure(AutoReconnect, f"mongodb://localhost:{port.getHost().port}", tlsCAFile=self.ca)
        self.assertIn("TLS handshake failed", str(failed))
        self.assertEqual(server.received, [])

    async def test_context_factory(self) -> None:
        """The application's own context factory is used, of Twisted's old kind and of its new one."""
        mongod = await self.mongod()
        uri = f"mongodb://localhost:{mongod.port}"
        trusted = ssl.Certificate.loadPEM(self.authority.ca_file.read_bytes())
        for factory in (ssl.ClientContextFactory(), ssl.optionsForClientTLS("localhost", trusted)):
            await self.connect(uri, ssl_context_factory=factory)
        wrong = ssl.optionsForClientTLS("other.example", trusted)
        await self.failure(AutoReconnect, uri, ssl_context_factory=wrong)


class ClientCertificateTests(TLSTestCase):
    """What the client shows of itself."""

    async def test_required(self) -> None:
        """A server that wants a client certificate gets it, also from an encrypted key; without one it refuses."""
        mongod = await self.mongod(required=True)
        uri = f"mongodb://localhost:{mongod.port}"
        client = str(self.authority.client("encrypted", password="hunter2"))
        protocol, _ = await self.connect(
            uri, tlsCAFile=self.ca, tlsCertificateKeyFile=client, tlsCertificateKeyFilePassword="hunter2"
        )
        self.assertEqual((await protocol.command("admin", {"ping": 1}))["ok"], 1)
        failed = await self.failure(AutoReconnect, uri, tlsCAFile=self.ca)
        self.assertIn(f"localhost:{mongod.port}: ", str(failed))
        stranger = CertificateAuthority(self.mktemp(), "another authority").client()
        await self.failure(AutoReconnect, uri, tlsCAFile=self.ca, tlsCertificateKeyFile=str(stranger))

    async def test_x509(self) -> None:
        """MONGODB-X509 authenticates the certificate's subject, whether the URI names it or not."""
        mongod = await self.mongod(auth=True)
        subject = "CN=someone,O=txmongo clients"
        await mongod.command("$external", {"createUser": subject, "roles": []})
        own = {"tlsCAFile": self.ca, "tlsCertificateKeyFile": str(self.authority.client("someone"))}
        host = f"localhost:{mongod.port}"
        for user in ("", "CN%3Dsomeone%2CO%3Dtxmongo%20clients@"):
            who = await self.who_am_i(f"mongodb://{user}{host}/?authMechanism=MONGODB-X509", **own)
            self.assertEqual(who, [f"{subject}@$external"])
        stranger = {**own, "tlsCertificateKeyFile": str(self.authority.client("stranger"))}
        failed = await self.failure(OperationFailure, f"mongodb://{host}/?authMechanism=MONGODB-X509", **stranger)
        self.assertIn(failed.code, (11, 18))  # UserNotFound or AuthenticationFailed, by the server's version

    async def test_scram(self) -> None:
        """Users with passwords are authenticated over TLS."""
        mongod = await self.mongod(auth=True)
        assert mongod.credentials is not None
        self.assertEqual(await self.who_am_i(mongod.uri), [f"{mongod.credentials[0]}@admin"])


class ClientTests(TLSTestCase):
    """TLS as applications meet it."""

    async def test_much_at_once(self) -> None:
        """Messages of every size, and many at once, arrive whole."""
        mongod = await self.mongod(auth=True)
        client = ConnectionPool(mongod.uri)
        self.addCleanup(client.disconnect)
        texts = ["x" * size for size in (1, 1_000, 100_000, 10_000_000)]
        await client.test.things.insert_many([{"_id": number, "text": text} for number, text in enumerate(texts)])
        wanted = [number % 3 for number in range(200)] + [3]
        found = await defer.gatherResults([client.test.things.find_one({"_id": number}) for number in wanted])
        self.assertEqual([document["text"] for document in found], [texts[number] for number in wanted])

    async def test_refused(self) -> None:
        """An operation on a server whose certificate is refused fails in time, and its error says why."""
        mongod = await self.mongod()
        client = ConnectionPool(f"mongodb://localhost:{mongod.port}/?tls=true&serverSelectionTimeoutMS=1500")
        self.addCleanup(client.disconnect)
        failed = await self.assertFailure(client.test.things.find_one(), ServerSelectionTimeoutError)
        self.assertIn("certificate verify failed", str(failed))


class NeverPlainTests(TLSTestCase):
    """One side speaks TLS and the other does not."""

    async def test_plain_server(self) -> None:
        """tls=true against a server without TLS fails, and no credentials are sent to it."""
        server = await FakeServer().listen(reactor)
        self.addCleanup(server.stop)
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        for port in (server.address[1], mongod.port):
            failed = await self.failure(
                Exception, f"mongodb://user:secret@127.0.0.1:{port}/?tls=true&connectTimeoutMS=2000"
            )
            self.assertIsInstance(failed, AutoReconnect)
            self.assertIn("TLS", str(failed))
            self.assertEqual(failed._txmongo_stage, "connect")
        self.assertEqual(server.received, [])

    async def test_plain_client(self) -> None:
        """Without tls a server that wants TLS cannot be talked to, and the error says what may be the reason."""
        mongod = await self.mongod()
        failed = await self.failure(AutoReconnect, f"mongodb://127.0.0.1:{mongod.port}")
        self.assertIn("does the server want TLS?", str(failed))

    async def test_bytes_on_the_wire(self) -> None:
        """Nothing of a command is to be read on the wire, at once or later."""
        mongod = await self.mongod()
        seen: list[bytes] = []
        proxy = await listen_between(reactor, mongod.address, seen)
        self.addCleanup(proxy.stopListening)
        protocol, _ = await self.connect(f"mongodb://localhost:{proxy.getHost().port}", tlsCAFile=self.ca)
        for _ in range(3):
            await protocol.command("admin", {"ping": 1, "comment": "secret-of-this-test"})
        self.assertNotIn(b"secret-of-this-test", b"".join(seen))
        self.assertNotIn(b"isMaster", b"".join(seen))


def listen_between(clock: Any, target: tuple[str, int], seen: list[bytes]) -> defer.Deferred[Any]:
    """A proxy to a server that keeps what clients send."""

    class Reading(ProxyServer):
        def dataReceived(self, data: bytes) -> None:
            seen.append(data)
            super().dataReceived(data)

    factory = ProxyFactory(*target)
    factory.protocol = Reading
    factory.noisy = False
    return endpoints.TCP4ServerEndpoint(clock, 0, interface="127.0.0.1").listen(factory)
