"""Authentication at a real server."""

from __future__ import annotations

from urllib.parse import quote

from twisted.internet import reactor

from tests.integration.links import LinkTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import ConfigurationError, OperationFailure
from txmongo.testing import Mongod

#: Name, password, database, mechanisms.
USERS = (
    ("sha1", "pencil", "admin", ["SCRAM-SHA-1"]),
    ("sha256", "pencil", "admin", ["SCRAM-SHA-256"]),
    ("both", "pencil", "admin", ["SCRAM-SHA-1", "SCRAM-SHA-256"]),
    ("of app", "p:e/n@c%il", "app", ["SCRAM-SHA-1", "SCRAM-SHA-256"]),
    # Saslprep makes the same of both spellings of a Roman nine: authentication specification, prose tests.
    ("IX", "IX", "admin", ["SCRAM-SHA-256"]),
    ("\u2168", "\u2163", "admin", ["SCRAM-SHA-256"]),
)


class AuthenticationTests(LinkTestCase):
    """Users of a server with access control."""

    async def setUp(self) -> None:
        """Start a server with users."""
        self.mongod = await Mongod(reactor, auth=True).start()
        self.addCleanup(self.mongod.stop)
        for name, password, database, mechanisms in USERS:
            command = {"createUser": name, "pwd": password, "roles": [], "mechanisms": mechanisms}
            await self.mongod.command(database, command)

    def uri(self, name: str, password: str = "pencil", rest: str = "") -> str:
        """A connection string of this user."""
        host, port = self.mongod.address
        return f"mongodb://{quote(name, safe='')}:{quote(password, safe='')}@{host}:{port}/{rest}"

    async def test_negotiated(self) -> None:
        """Users of either mechanism are authenticated without naming it, on admin if the URI names no database."""
        for name in ("sha1", "sha256", "both"):
            self.assertEqual(await self.who_am_i(self.uri(name)), [f"{name}@admin"])

    async def test_given(self) -> None:
        """A mechanism may be named by the URI or a keyword; one that the user does not have fails."""
        for name, mechanism in (
            ("sha1", "SCRAM-SHA-1"),
            ("sha256", "SCRAM-SHA-256"),
            ("both", "SCRAM-SHA-1"),
            ("both", "SCRAM-SHA-256"),
        ):
            who = await self.who_am_i(self.uri(name), authMechanism=mechanism)
            self.assertEqual(who, [f"{name}@admin"])
            who = await self.who_am_i(self.uri(name, rest=f"?authMechanism={mechanism}"))
            self.assertEqual(who, [f"{name}@admin"])
        for name, mechanism in (("sha1", "SCRAM-SHA-256"), ("sha256", "SCRAM-SHA-1")):
            failed = await self.failure(OperationFailure, self.uri(name), authMechanism=mechanism)
            self.assertEqual(failed._txmongo_stage, "auth")

    async def test_database(self) -> None:
        """The database of the URI, or else authSource, says whose user it is; escapes in the URI are undone."""
        for rest in ("app", "?authSource=app", "other?authSource=app"):
            self.assertEqual(await self.who_am_i(self.uri("of app", "p:e/n@c%il", rest)), ["of app@app"])
        failed = await self.failure(OperationFailure, self.uri("of app", "p:e/n@c%il"))
        self.assertEqual(failed.code, 18)

    async def test_wrong_credentials(self) -> None:
        """A wrong password and an unknown user are code 18; the password is not shown."""
        for name in ("sha1", "sha256", "both", "stranger"):
            failed = await self.failure(OperationFailure, self.uri(name, "wrongPassword"))
            self.assertEqual(failed.code, 18)
            self.assertNotIn("wrongPassword", repr(failed))

    async def test_saslprep(self) -> None:
        """Passwords are prepared as RFC 4013 wants, names are taken as they are: step 4 of the tests."""
        self.assertEqual(await self.who_am_i(self.uri("IX", "IX")), ["IX@admin"])
        self.assertEqual(await self.who_am_i(self.uri("IX", "I\u00adX")), ["IX@admin"])
        self.assertEqual(await self.who_am_i(self.uri("\u2168", "IV")), ["\u2168@admin"])
        self.assertEqual(await self.who_am_i(self.uri("\u2168", "I\u00adV")), ["\u2168@admin"])
        failed = await self.failure(ConfigurationError, self.uri("IX", "I\u0007X"))
        self.assertIn("SCRAM-SHA-256", str(failed))

    async def test_compressed(self) -> None:
        """Authentication works where messages are to be compressed."""
        self.assertEqual(await self.who_am_i(self.uri("both"), compressors="zlib"), ["both@admin"])

    async def test_nobody(self) -> None:
        """Without credentials a connection is made and is nobody's."""
        host, port = self.mongod.address
        self.assertEqual(await self.who_am_i(f"mongodb://{host}:{port}"), [])

    async def test_mechanism_of_another_server(self) -> None:
        """A mechanism that this server does not have is the server's error."""
        failed = await self.failure(OperationFailure, self.uri("both"), authMechanism="PLAIN")
        self.assertNotIn("pencil", repr(failed))


class ClientTests(LinkTestCase):
    """Authentication as applications meet it."""

    async def setUp(self) -> None:
        """Start a server with a root user."""
        self.mongod = await Mongod(reactor, auth=True).start()
        self.addCleanup(self.mongod.stop)

    async def test_right_password(self) -> None:
        """The user of a URI without a database is one of admin, and may do what that user may."""
        client = ConnectionPool(self.mongod.uri)
        self.addCleanup(client.disconnect)
        await client.test.things.insert_one({"_id": 1})
        self.assertEqual(await client.test.things.find_one(), {"_id": 1})

    async def test_wrong_password(self) -> None:
        """A wrong password reaches whoever operates or awaits the client, at once, as code 18."""
        host, port = self.mongod.address
        client = ConnectionPool(f"mongodb://root:wrongPassword@{host}:{port}")
        self.addCleanup(client.disconnect)
        things = client.test.things
        for operation in (things.find_one, lambda: things.insert_one({}), lambda: client.admin.command("ping")):
            failed = await self.assertFailure(operation(), OperationFailure)
            self.assertEqual(failed.code, 18)
            self.assertNotIn("wrongPassword", repr(failed))


class SocketTests(LinkTestCase):
    """Connections over a UNIX socket."""

    async def test_socket(self) -> None:
        """A server is reached, and a user authenticated, over its UNIX socket."""
        mongod = await Mongod(reactor, auth=True, unix_socket=True).start()
        self.addCleanup(mongod.stop)
        assert mongod.credentials is not None
        name, password = (quote(part, safe="") for part in mongod.credentials)
        path = quote(str(mongod.socket_path), safe="")
        self.assertEqual(await self.who_am_i(f"mongodb://{name}:{password}@{path}/"), [f"{name}@admin"])
