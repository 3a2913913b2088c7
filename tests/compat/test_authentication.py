"""``authenticate`` of the client, of a database and of a protocol, at servers with users."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from tests.compat.servers import mongod_of, on_every_server
from txmongo.connection import ConnectionPool, MongoConnection
from txmongo.errors import AutoReconnect, OperationFailure
from txmongo.protocol import MongoAuthenticationError, MongoProtocol

#: Name, database, mechanisms; the password of all is "pencil".
USERS = (
    ("ann", "compat_a", ["SCRAM-SHA-1", "SCRAM-SHA-256"]),
    ("bob", "compat_a", ["SCRAM-SHA-256"]),
    ("cem", "compat_b", ["SCRAM-SHA-1"]),
)


class UsersTestCase(TestCase):
    """A server with users."""

    timeout = 120
    server_version: str | None = None

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Find the server, and make the users unless they are there."""
        self.mongod = await mongod_of(self.server_version, auth=True)
        host, port = self.mongod.address
        self.host, self.port = host, port
        self.uri = f"mongodb://{host}:{port}"
        for name, database, mechanisms in USERS:
            roles = [{"role": "readWrite", "db": database}]
            command = {"createUser": name, "pwd": "pencil", "roles": roles, "mechanisms": mechanisms}
            try:
                await self.mongod.command(database, command)
            except OperationFailure as error:
                self.assertEqual(error.code, 51003)

    def client(self, *args: Any, **keywords: Any) -> ConnectionPool[Any]:
        """A client without credentials."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, *args, **keywords)
        self.addCleanup(client.disconnect)
        return client

    async def who(self, database: Any) -> list[str]:
        """As whom commands are carried out."""
        status = await database.command("connectionStatus")
        return sorted(user["user"] for user in status["authInfo"]["authenticatedUsers"])

    async def refusal(self, deferred: defer.Deferred[Any]) -> Any:
        """The error of a refused user: both of its kinds, and without the password."""
        failed = await self.assertFailure(deferred, OperationFailure)
        self.assertIsInstance(failed, MongoAuthenticationError)
        self.assertEqual(failed.code, 18)
        self.assertNotIn("eraser", repr(failed) + repr(failed.details))
        return failed


@on_every_server
class ClientTests(UsersTestCase):
    """``ConnectionPool.authenticate`` and ``Database.authenticate``."""

    async def test_before_connecting(self) -> None:
        """Called on a new client, not waited for, it holds for what is called next."""
        client = self.client()
        done = client.authenticate("compat_a", "ann", "pencil")
        await client.compat_a.things.insert_one({"x": 1})
        self.assertIs(await done, True)
        self.assertEqual(await self.who(client.compat_a), ["ann"])

    async def test_after_connecting(self) -> None:
        """Called later, it holds for what is called from then on, on all connections."""
        client = self.client(3)
        await client.admin.command("ping")
        await self.assertFailure(client.compat_a.things.find_one(), OperationFailure)
        done = client.compat_a.authenticate("ann", "pencil")
        found = [client.compat_a.things.find_one() for _ in range(12)]
        self.assertIs(await done, True)
        await defer.gatherResults(found)
        self.assertEqual(await self.who(client.compat_a), ["ann"])

    async def test_call_order(self) -> None:
        """On a fixed pool of one connection what was called before is carried out before."""
        client = self.client(pool_size=1)
        await client.authenticate("compat_a", "ann", "pencil")
        things = client.compat_a.ordered
        inserts = [things.insert_one({"_id": number, "by": "ann"}) for number in range(50)]
        done = client.authenticate("compat_a", "bob", "pencil")
        count = things.count_documents({})
        self.assertEqual(await count, 50)
        await defer.gatherResults([*inserts, done])
        self.assertEqual(await self.who(client.compat_a), ["bob"])
        await things.drop()

    async def test_mechanisms(self) -> None:
        """A mechanism may be named; one that the user does not have is refused."""
        for name, database, mechanisms in USERS:
            client = self.client()
            for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
                if mechanism in mechanisms:
                    self.assertIs(await client.authenticate(database, name, "pencil", mechanism), True)
                else:
                    failed = client.authenticate(database, name, "pencil", mechanism)
                    await self.assertFailure(failed, MongoAuthenticationError)

    async def test_wrong_password_before_connecting(self) -> None:
        """A wrong password reaches the caller, and who comes next is nobody again."""
        client = self.client()
        await self.refusal(client.authenticate("compat_a", "ann", "eraser"))
        self.assertEqual(await self.who(client.compat_a), [])
        self.assertIs(await client.authenticate("compat_a", "ann", "pencil"), True)
        self.assertEqual(await self.who(client.compat_a), ["ann"])

    async def test_wrong_password_after_connecting(self) -> None:
        """A wrong password reaches the caller, and who comes next is who it was."""
        client = self.client()
        await client.authenticate("compat_a", "ann", "pencil")
        await self.refusal(client.compat_a.authenticate("ann", "eraser"))
        await self.refusal(client.compat_a.authenticate("stranger", "eraser"))
        self.assertEqual(await self.who(client.compat_a), ["ann"])

    async def test_over_the_uri(self) -> None:
        """Another user of the same database takes the place of the URI's; the same one changes nothing."""
        client: ConnectionPool[Any] = ConnectionPool(f"mongodb://ann:pencil@{self.host}:{self.port}/compat_a")
        self.addCleanup(client.disconnect)
        await client.compat_a.authenticate("ann", "pencil")
        self.assertEqual(await self.who(client.compat_a), ["ann"])
        await client.compat_a.authenticate("bob", "pencil")
        self.assertEqual(await self.who(client.compat_a), ["bob"])

    async def test_two_databases(self) -> None:
        """Users of two databases at once: servers before 6.0 take both, later ones say that they do not."""
        client = self.client()
        await client.compat_a.authenticate("ann", "pencil")
        if self.server_version is not None:
            await client.compat_b.authenticate("cem", "pencil")
            self.assertEqual(await self.who(client.compat_a), ["ann", "cem"])
            await defer.gatherResults([client.compat_a.both.insert_one({}), client.compat_b.both.find_one()])
        else:
            failed = await self.assertFailure(client.compat_b.authenticate("cem", "pencil"), MongoAuthenticationError)
            self.assertIn("only be authenticated once", str(failed))
            self.assertEqual(await self.who(client.compat_a), ["ann"])

    async def test_mongo_connection(self) -> None:
        """It works on the clients of old."""
        client: MongoConnection[Any] = MongoConnection(self.host, self.port)
        self.addCleanup(client.disconnect)
        done = client.compat_a.authenticate("ann", "pencil")
        self.assertIsNone(await client.compat_a.nothing.find_one())
        self.assertIs(await done, True)

    async def test_unknown_mechanism(self) -> None:
        """MONGODB-CR was removed; that, and a mechanism that there never was, reaches the caller. Nothing is sent."""
        client: ConnectionPool[Any] = ConnectionPool("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100)
        self.addCleanup(client.disconnect)
        for authenticate in (client.admin.authenticate, lambda *rest: client.authenticate("admin", *rest)):
            failed = await self.assertFailure(authenticate("ann", "pencil", "MONGODB-CR"), MongoAuthenticationError)
            self.assertIn("removed in MongoDB 4.0", str(failed))
            await self.assertFailure(authenticate("ann", "pencil", "ROT13"), MongoAuthenticationError)
        self.assertRaises(TypeError, client.authenticate, "admin", 1, "pencil")
        self.assertRaises(TypeError, client.authenticate, "admin", "ann", None)
        self.assertRaises(TypeError, client.authenticate, None, "ann", "pencil")

    async def test_no_server(self) -> None:
        """Without a server it fails as everything does, and the user is kept for when there is one."""
        client: ConnectionPool[Any] = ConnectionPool("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100)
        self.addCleanup(client.disconnect)
        await self.assertFailure(client.authenticate("compat_a", "ann", "pencil"), AutoReconnect)
        self.assertIn("compat_a", client.auth_creds)


@on_every_server
class ProtocolTests(UsersTestCase):
    """``MongoProtocol.authenticate`` and its kin: one connection, without a client."""

    async def connect(self) -> MongoProtocol:
        """A protocol without a factory, connected by hand."""
        endpoint = HostnameEndpoint(reactor, self.host, self.port)
        protocol: MongoProtocol = await connectProtocol(endpoint, MongoProtocol())
        gone: defer.Deferred[None] = defer.Deferred()
        protocol.lost_hook = lambda _: gone.callback(None)

        def close() -> defer.Deferred[None]:
            protocol.fail(Exception("the test is over"))
            return gone

        self.addCleanup(close)
        return await protocol.connectionReady()

    async def status(self, protocol: MongoProtocol) -> list[str]:
        """Who the connection is authenticated as."""
        status = await protocol.command("admin", {"connectionStatus": 1})
        return [user["user"] for user in status["authInfo"]["authenticatedUsers"]]

    async def test_authenticate(self) -> None:
        """Each mechanism, and the one that fits."""
        for name, database, mechanisms in USERS:
            for mechanism in (*mechanisms, "DEFAULT"):
                protocol = await self.connect()
                self.assertIs(await protocol.authenticate(database, name, "pencil", mechanism), True)
                self.assertEqual(await self.status(protocol), [name])

    async def test_scram_sha1(self) -> None:
        """authenticate_scram_sha1 is for users who have that."""
        protocol = await self.connect()
        self.assertIs(await protocol.authenticate_scram_sha1("compat_b", "cem", "pencil"), True)
        self.assertEqual(await self.status(protocol), ["cem"])
        protocol = await self.connect()
        failed = protocol.authenticate_scram_sha1("compat_a", "bob", "pencil")
        await self.assertFailure(failed, MongoAuthenticationError)

    async def test_refused(self) -> None:
        """A wrong password is told, and the connection lives on."""
        protocol = await self.connect()
        await self.refusal(protocol.authenticate("compat_a", "ann", "eraser", "SCRAM-SHA-256"))
        self.assertEqual(await self.status(protocol), [])
        self.assertIs(await protocol.authenticate("compat_a", "ann", "pencil"), True)

    async def test_mongo_cr(self) -> None:
        """authenticate_mongo_cr exists, and says that the server's side was removed."""
        protocol = await self.connect()
        failed = protocol.authenticate_mongo_cr("compat_a", "ann", "pencil")
        self.assertIn("removed in MongoDB 4.0", str(await self.assertFailure(failed, MongoAuthenticationError)))
