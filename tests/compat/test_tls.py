"""TLS as TxMongo 15.2 has it: by a context factory of the application's; and MONGODB-X509, in the URI and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from pymongo.monitoring import (
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
)
from twisted.internet import defer, endpoints, ssl
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.compat.servers import binary_of, on_every_server
from txmongo.connection import ConnectionPool, MongoConnection
from txmongo.errors import OperationFailure, ServerSelectionTimeoutError
from txmongo.protocol import MongoAuthenticationError, MongoProtocol
from txmongo.testing import CertificateAuthority, FakeServer, Mongod, TLSFiles

reactor: Any = _reactor

SUBJECT = "CN=someone,O=txmongo clients"


class FailedChecks(ServerHeartbeatListener):
    """Hears of a check of a server that failed.

    :ivar one: fires with the first.
    """

    def __init__(self) -> None:
        self.one: defer.Deferred[None] = defer.Deferred()

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """Not of interest."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """Not of interest."""

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """A check failed."""
        if not self.one.called:
            self.one.callback(None)


class TLSCase(TestCase):
    """An authority for certificates, and servers and clients with them."""

    timeout = 120
    server_version: str | None = None

    def setUp(self) -> None:
        """Make the authority."""
        self.authority = CertificateAuthority(self.mktemp())

    async def mongod(self, certificate: Path | None = None, *, required: bool = False, auth: bool = False) -> Mongod:
        """Start a server that speaks TLS only."""
        files = TLSFiles(
            certificate_key_file=certificate or self.authority.server(),
            ca_file=self.authority.ca_file,
            client_certificate_key_file=self.authority.client("tests' own"),
            require_client_certificate=required,
        )
        mongod = await Mongod(reactor, tls=files, auth=auth, binary=binary_of(self.server_version)).start()
        self.addCleanup(mongod.stop)
        return mongod

    def factory(self, host: str = "localhost", client: Path | None = None, authority: Any = None) -> Any:
        """A context factory that trusts the authority, and shows a certificate of the client's if there is one."""
        trusted = ssl.Certificate.loadPEM((authority or self.authority).ca_file.read_bytes())
        own = None if client is None else ssl.PrivateCertificate.loadPEM(client.read_bytes())
        return ssl.optionsForClientTLS(host, trusted, own)

    def client(self, port: int, factory: Any, *, options: str = "", **keywords: Any) -> ConnectionPool[Any]:
        """A client with a context factory."""
        uri = f"mongodb://localhost:{port}/?serverSelectionTimeoutMS=30000{options}"
        client: ConnectionPool[Any] = ConnectionPool(uri, ssl_context_factory=factory, **keywords)
        self.addCleanup(client.disconnect)
        return client

    async def refused(self, port: int, factory: Any) -> str:
        """What a client is told that cannot come to terms with its server, once it has tried."""
        tried = FailedChecks()
        client = self.client(port, factory, serverSelectionTimeoutMS=300, event_listeners=[tried])
        await self.assertFailure(client.test.things.find(), ServerSelectionTimeoutError)
        await tried.one
        return str(await self.assertFailure(client.test.things.find(), ServerSelectionTimeoutError))


@on_every_server
class FactoryTests(TLSCase):
    """``ssl_context_factory=``."""

    async def test_good(self) -> None:
        """A certificate of an authority that is trusted, for the host, is good; on every client of old."""
        mongod = await self.mongod()
        client = self.client(mongod.port, self.factory())
        await client.test.things.insert_one({"_id": 1})
        self.assertEqual(await client.test.things.find(limit=10), [{"_id": 1}])
        positional: ConnectionPool[Any] = ConnectionPool(f"mongodb://localhost:{mongod.port}", 1, self.factory())
        self.addCleanup(positional.disconnect)
        by_host: Any = MongoConnection("localhost", mongod.port, ssl_context_factory=self.factory())
        self.addCleanup(by_host.disconnect)
        for each in (positional, by_host):
            self.assertEqual(await each.test.things.find(), [{"_id": 1}])

    async def test_old_kind(self) -> None:
        """Factories that only give a context, as the one that the documentation of 15.2 shows, are taken too."""
        mongod = await self.mongod()
        certificate = str(self.authority.client("old"))

        class ClientTLSContext(ssl.DefaultOpenSSLContextFactory):
            def __init__(self, *args: Any, **kw: Any) -> None:
                kw["sslmethod"] = SSL.TLS_METHOD
                super().__init__(*args, **kw)

        old = ClientTLSContext(privateKeyFileName=certificate, certificateFileName=certificate)
        for factory in (old, ssl.ClientContextFactory()):
            client = self.client(mongod.port, factory)
            self.assertEqual(await client.test.things.find(limit=10), [])

    async def test_unknown_authority(self) -> None:
        """A certificate of an authority that is not trusted is refused."""
        mongod = await self.mongod()
        stranger = CertificateAuthority(self.mktemp(), "another authority")
        said = await self.refused(mongod.port, self.factory(authority=stranger))
        self.assertIn("certificate verify failed", said)

    async def test_wrong_host_name(self) -> None:
        """A certificate for another host is refused."""
        mongod = await self.mongod(self.authority.server(hosts=["other.example"]))
        self.assertIn("TLS handshake failed", await self.refused(mongod.port, self.factory()))
        mongod = await self.mongod()
        self.assertIn("TLS handshake failed", await self.refused(mongod.port, self.factory("other.example")))

    async def test_client_certificate_required(self) -> None:
        """A server that wants a client's certificate gets the factory's; without one, or a good one, it refuses."""
        mongod = await self.mongod(required=True)
        client = self.client(mongod.port, self.factory(client=self.authority.client()))
        self.assertEqual(await client.test.things.find(), [])
        await self.refused(mongod.port, self.factory())
        stranger = CertificateAuthority(self.mktemp(), "another authority").client()
        await self.refused(mongod.port, self.factory(client=stranger))


class ExpiredTests(TLSCase):
    """A certificate that was good until yesterday; a mongod would not start with it, so there is a scripted server."""

    async def listen(self, server: FakeServer, certificate: ssl.PrivateCertificate) -> None:
        """Have the server listen with TLS."""
        endpoint = endpoints.SSL4ServerEndpoint(reactor, 0, certificate.options(), interface="127.0.0.1")
        server._port = await endpoint.listen(Factory.forProtocol(server._accept))
        self.addCleanup(server.stop)

    async def test_expired(self) -> None:
        """It is refused before anything is said."""
        certificate = ssl.PrivateCertificate.loadPEM(self.authority.server("old", expired=True).read_bytes())
        server = FakeServer()
        await self.listen(server, certificate)
        said = await self.refused(server.address[1], self.factory())
        self.assertIn("TLS handshake failed", said)
        self.assertEqual(server.received, [])

    async def test_good(self) -> None:
        """The same server with a certificate that has not expired is talked to."""
        certificate = ssl.PrivateCertificate.loadPEM(self.authority.server("new").read_bytes())
        server = FakeServer({"find": {"cursor": {"id": 0, "ns": "test.things", "firstBatch": []}}})
        await self.listen(server, certificate)
        client = self.client(server.address[1], self.factory())
        self.assertEqual(await client.test.things.find(), [])


@on_every_server
class X509Tests(TLSCase):
    """The client's certificate as its user."""

    async def server(self) -> Mongod:
        """A server with users, one of them known by a certificate."""
        mongod = await self.mongod(auth=True)
        roles = [{"role": "readWrite", "db": "test"}]
        await mongod.command("$external", {"createUser": SUBJECT, "roles": roles})
        return mongod

    def own(self, name: str = "someone") -> Any:
        """A context factory with the certificate of somebody."""
        return self.factory(client=self.authority.client(name))

    async def who(self, client: ConnectionPool[Any]) -> list[str]:
        """As whom commands are carried out."""
        status = await client.admin.command("connectionStatus")
        return [user["user"] for user in status["authInfo"]["authenticatedUsers"]]

    async def test_uri(self) -> None:
        """authMechanism=MONGODB-X509 in the URI, beside a context factory, and beside tlsCertificateKeyFile."""
        mongod = await self.server()
        client = self.client(mongod.port, self.own(), options="&authMechanism=MONGODB-X509")
        self.assertEqual(await self.who(client), [SUBJECT])
        await client.test.things.insert_one({})
        client = self.client(
            mongod.port,
            None,
            options="&tls=true&authMechanism=MONGODB-X509",
            tlsCAFile=str(self.authority.ca_file),
            tlsCertificateKeyFile=str(self.authority.client("someone")),
        )
        self.assertEqual(await self.who(client), [SUBJECT])
        stranger = self.client(mongod.port, self.own("stranger"), options="&authMechanism=MONGODB-X509")
        await self.assertFailure(stranger.test.things.find(), OperationFailure)

    async def test_authenticate(self) -> None:
        """authenticate() of the client and of a database, before and after the first connection."""
        mongod = await self.server()
        client = self.client(mongod.port, self.own())
        self.assertIs(await client.authenticate("$external", None, None, "MONGODB-X509"), True)
        self.assertEqual(await self.who(client), [SUBJECT])
        await client.test.things.insert_one({})
        client = self.client(mongod.port, self.own())
        await self.assertFailure(client.test.things.find(), OperationFailure)
        done = client["$external"].authenticate(SUBJECT, None, "MONGODB-X509")  # type: ignore[arg-type]
        found = client.test.things.find()
        self.assertIs(await done, True)
        self.assertEqual(len(await found), 1)
        self.assertEqual(await self.who(client), [SUBJECT])

    async def test_refused(self) -> None:
        """A certificate of nobody, or of somebody else than is said, is told to the caller."""
        mongod = await self.server()
        for factory, name in ((self.own("stranger"), None), (self.own("stranger"), SUBJECT), (self.own(), "CN=x,O=y")):
            client = self.client(mongod.port, factory)
            failed = client.authenticate("$external", name, None, "MONGODB-X509")
            await self.assertFailure(failed, MongoAuthenticationError)
            self.assertEqual(await self.who(client), [])

    async def test_protocol(self) -> None:
        """authenticate_mongo_x509 of a protocol that was connected by hand."""
        mongod = await self.server()
        endpoint = endpoints.HostnameEndpoint(reactor, "localhost", mongod.port)
        wrapped = endpoints.wrapClientTLS(self.own(), endpoint)
        protocol: MongoProtocol = await endpoints.connectProtocol(wrapped, MongoProtocol())
        gone: defer.Deferred[None] = defer.Deferred()
        protocol.lost_hook = lambda _: gone.callback(None)
        self.assertIs(await protocol.authenticate_mongo_x509("$external", SUBJECT, ""), True)
        status = await protocol.command("admin", {"connectionStatus": 1})
        self.assertEqual([user["user"] for user in status["authInfo"]["authenticatedUsers"]], [SUBJECT])
        protocol.close()
        await gone
