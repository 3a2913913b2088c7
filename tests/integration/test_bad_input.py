"""What is wrong with what the driver is given: clear errors, in time, and nothing left behind.

The servers here are not MongoDB, or not the one that was meant. That the reactor is clean after each case is checked by
trial.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import bson
from bson.errors import InvalidDocument
from twisted.internet import defer, endpoints, protocol, reactor
from twisted.trial.unittest import TestCase

from tests.integration.servers import replica_set, standalone
from txmongo._testing.den import wait_until
from txmongo.connection import ConnectionPool, MongoConnection
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidName,
    InvalidOperation,
    InvalidURI,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from txmongo.testing import HELLO, Behaviour, FakeServer, Mongod

HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SSH = b"SSH-2.0-OpenSSH_9.2\r\n"
REPLY_HEADER = struct.Struct("<iiii")


class Stranger(protocol.Protocol):
    """A server that is not MongoDB.

    :ivar greeting: what it sends to whoever connects.
    :ivar answer: what it sends for each piece that comes, or a function of it.
    :ivar hangs_up: whether it closes the connection after that.
    """

    greeting = b""
    answer: bytes | Callable[[bytes], bytes] = b""
    hangs_up = False

    def connectionMade(self) -> None:
        """Somebody connected."""
        self.factory.open.add(self)
        assert self.transport is not None
        self.transport.write(self.greeting)
        if self.hangs_up and not self.answer:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Something came."""
        assert self.transport is not None
        self.transport.write(self.answer(data) if callable(self.answer) else self.answer)
        if self.hangs_up:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        """They left."""
        self.factory.open.discard(self)


class StrangerFactory(protocol.Factory):
    """Makes strangers of one kind and knows which are connected."""

    def __init__(self, **behaviour: Any) -> None:
        self.open: set[Stranger] = set()
        self.behaviour = behaviour

    def buildProtocol(self, addr: Any) -> Stranger:
        """A connection."""
        stranger = Stranger()
        stranger.factory = self
        for name, value in self.behaviour.items():
            setattr(stranger, name, value)
        return stranger


class BadInputCase(TestCase):
    """Clients with little patience.

    :cvar patience_ms: for which a server is looked for; those that are none are known for what they are much sooner.
    :cvar connect_ms: that a connection may take.
    """

    timeout = 60
    patience_ms = 700
    connect_ms = 300

    def client(self, uri: str, **options: Any) -> ConnectionPool[Any]:
        """A client that is disconnected in the end."""
        options = {"serverSelectionTimeoutMS": self.patience_ms, "connectTimeoutMS": self.connect_ms, **options}
        client: ConnectionPool[Any] = ConnectionPool(uri, **options)
        self.addCleanup(client.disconnect)
        return client

    async def fails(self, client: ConnectionPool[Any], *kinds: type[Exception], late: float = 2.5) -> Any:
        """Each way to use the client fails so, in time and what a busy machine may be late; the last one's error."""
        things = client.test.things
        uses: list[Callable[[], Any]] = [
            things.find_one,
            things.find,
            lambda: things.find().next(),
            lambda: things.insert_one({}),
            lambda: client.test.command("ping"),
            lambda: defer.Deferred.fromCoroutine(awaited(client)),
        ]
        started = reactor.seconds()
        failing = [self.assertFailure(use(), *kinds) for use in uses]
        errors = await defer.gatherResults(failing)
        self.assertLess(reactor.seconds() - started, self.patience_ms / 1000 + late)
        self.assertTrue(all(isinstance(error, PyMongoError) for error in errors))
        return errors[-1]

    async def stranger(self, **behaviour: Any) -> str:
        """A server of that behaviour; its URI."""
        factory = StrangerFactory(**behaviour)
        port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        self.strangers = factory.open
        return f"mongodb://127.0.0.1:{port.getHost().port}"

    async def fake(self, server: FakeServer) -> str:
        """A scripted server; its URI."""
        await server.listen(reactor)
        self.addCleanup(server.stop)
        return server.uri


async def awaited(awaitable: Any) -> Any:
    """As a coroutine."""
    return await awaitable


class CallTests(BadInputCase):
    """What is wrong with arguments is raised at the call, naming it."""

    def test_uris(self) -> None:
        """Connection strings."""
        for uri in (
            "http://localhost",
            "mongodb://",
            "mongodb://localhost:port",
            "mongodb://localhost:99999",
            "mongodb://user@pass@localhost",
            "mongodb://localhost/?w",
            "mongodb+srv://localhost:27017",
            "mongodb://a,,b",
        ):
            error = self.assertRaises((InvalidURI, ConfigurationError, ValueError), ConnectionPool, uri)
            self.assertTrue(str(error))
            self.assertNotIn("pass@", str(error))

    def test_options(self) -> None:
        """Options by name, type and value, each named in the error."""
        for name, value, kind in (
            ("maxpoolsiz", 5, ConfigurationError),
            ("maxPoolSize", "many", (TypeError, ValueError)),
            ("maxPoolSize", -1, ValueError),
            ("serverSelectionTimeoutMS", "soon", (TypeError, ValueError)),
            ("readPreference", "mine", ValueError),
            ("w", -1, (TypeError, ValueError, ConfigurationError)),
            ("replicaSet", 5, TypeError),
            ("tls", "maybe", (TypeError, ValueError)),
            ("tlsCAFile", "/no/such/file", (ConfigurationError, ValueError, OSError)),
            ("document_class", 5, TypeError),
            ("event_listeners", [5], TypeError),
            ("pool_size", 0, ValueError),
            ("pool_size", "1", TypeError),
            ("compressors", 5, (TypeError, ValueError)),
        ):
            options: Any = {name: value}
            error = self.assertRaises(kind, ConnectionPool, "mongodb://localhost", **options)
            self.assertIn(name.lower(), str(error).lower())

    def test_contradictions(self) -> None:
        """Options that exclude one another."""
        for options in (
            {"pool_size": 2, "maxPoolSize": 5},
            {"pool_size": 2, "minPoolSize": 1},
            {"minPoolSize": 5, "maxPoolSize": 2},
            {"tls": True, "ssl": False},
            {"tlsInsecure": True, "tlsAllowInvalidCertificates": True},
            {"directConnection": True, "loadBalanced": True},
            {"loadBalanced": True, "replicaSet": "rs"},
        ):
            given: Any = options
            error = self.assertRaises((ConfigurationError, InvalidURI, ValueError), ConnectionPool, **given)
            self.assertTrue(str(error))

    def test_names(self) -> None:
        """Names of databases and collections."""
        client = self.client("mongodb://localhost")
        for name in ("", "a.b", "a b", "$x", "a/b", "a\0"):
            self.assertRaises(InvalidName, lambda name=name: client[name])
        for name in ("", "a..b", ".a", "a.", "a$b", "a\0"):
            self.assertRaises(InvalidName, lambda name=name: client.test[name])
        wrong: Any = 5
        self.assertRaises(TypeError, lambda: client[wrong])
        self.assertRaises(TypeError, lambda: client.test[wrong])
        self.assertRaises(TypeError, MongoConnection, wrong)

    def test_arguments(self) -> None:
        """Arguments of methods."""
        client = self.client("mongodb://localhost")
        things: Any = client.test.things
        database: Any = client.test
        for kind, method, arguments in (
            (TypeError, things.find, ("x",)),
            (TypeError, things.find, ({}, "x")),
            (TypeError, things.find, ({}, None, "1")),
            (ValueError, things.find, ({}, None, -1)),
            (TypeError, things.aggregate, ({},)),
            (TypeError, things.count_documents, (5,)),
            (TypeError, things.distinct, (5,)),
            (TypeError, things.insert_one, (5,)),
            (ValueError, things.update_one, ({}, {"a": 1})),
            (ValueError, things.replace_one, ({}, {"$set": {}})),
            (TypeError, things.create_indexes, (5,)),
            (TypeError, database.command, (5,)),
            (TypeError, database.drop_collection, (5,)),
            (TypeError, client.drop_database, (5,)),
        ):
            self.assertRaises(kind, method, *arguments)
        self.assertRaises(ValueError, things.find, session=object())
        self.assertRaises(TypeError, things.no_such_method)


class UnreachableTests(BadInputCase):
    """A server that is not there."""

    async def test_closed_port(self) -> None:
        """Nobody listens: the error names the server and says that it refused."""
        port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(protocol.Factory())
        number = port.getHost().port
        await port.stopListening()
        error = await self.fails(self.client(f"mongodb://127.0.0.1:{number}"), ServerSelectionTimeoutError)
        self.assertIn(f"127.0.0.1:{number}", str(error))
        self.assertIn("refused", str(error).lower())
        self.assertIsInstance(error, AutoReconnect)

    async def test_no_such_host(self) -> None:
        """A name that nobody has."""
        error = await self.fails(
            self.client("mongodb://no-such-host.invalid", connectTimeoutMS=5000), ServerSelectionTimeoutError
        )
        self.assertIn("no-such-host.invalid", str(error))

    async def test_no_such_socket(self) -> None:
        """A UNIX socket that is not there."""
        error = await self.fails(self.client("mongodb://%2Ftmp%2Fno-such-socket.sock"), ServerSelectionTimeoutError)
        self.assertIn("no-such-socket.sock", str(error))

    async def test_silent(self) -> None:
        """A server that accepts and says nothing: connectTimeoutMS."""
        error = await self.fails(self.client(await self.stranger()), ServerSelectionTimeoutError)
        self.assertIn("connectTimeoutMS", str(error))

    async def test_nothing_left(self) -> None:
        """After disconnect no connection is left at such a server."""
        client = self.client(await self.stranger())
        await self.fails(client, ServerSelectionTimeoutError)
        await client.disconnect()
        await wait_until(reactor, lambda: not self.strangers, 20, "a connection is left")


class NotMongoDBTests(BadInputCase):
    """A server that is something else."""

    async def check(self, *, mentions: str = "", **behaviour: Any) -> None:
        """Every use fails in time, and the error names the server."""
        uri = await self.stranger(**behaviour)
        error = await self.fails(self.client(uri), ServerSelectionTimeoutError)
        self.assertIn(uri.removeprefix("mongodb://"), str(error))
        self.assertIn(mentions.lower(), str(error).lower())

    async def test_http(self) -> None:
        """An HTTP server."""
        await self.check(answer=HTTP, hangs_up=True)

    async def test_ssh(self) -> None:
        """A server that speaks first."""
        await self.check(greeting=SSH)

    async def test_closes(self) -> None:
        """A server that closes at once."""
        await self.check(hangs_up=True, mentions="closed")

    async def test_closes_after_hello(self) -> None:
        """A server that closes when it is spoken to."""
        await self.check(answer=lambda _: b"", hangs_up=True, mentions="closed")

    async def test_garbage(self) -> None:
        """A server that sends noise, zeros, or a message of absurd length."""
        for garbage in (
            bytes(range(256)) * 4,
            bytes(1000),
            b"\xff" * 100,
            REPLY_HEADER.pack(2**31 - 1, 1, 1, 2013),
            REPLY_HEADER.pack(-5, 1, 1, 2013),
            REPLY_HEADER.pack(20, 1, 1, 1) + bytes(4),
            REPLY_HEADER.pack(26, 1, 1, 2013) + bytes(10),
        ):
            await self.check(answer=garbage)

    async def test_half(self) -> None:
        """A server that sends half a message and then nothing."""
        await self.check(answer=lambda _: REPLY_HEADER.pack(500, 1, 1, 1) + bytes(100), mentions="connectTimeoutMS")

    async def test_half_and_close(self) -> None:
        """A server that sends half a message and closes."""
        await self.check(answer=lambda _: REPLY_HEADER.pack(500, 1, 1, 1) + bytes(100), hangs_up=True)

    async def test_echo(self) -> None:
        """A server that sends back what it gets."""
        await self.check(answer=lambda data: data)

    async def test_other_document(self) -> None:
        """A server whose greeting is a document, but not that of a MongoDB server."""
        server = FakeServer()
        for name in ("hello", "isMaster", "ismaster"):
            server.answer(name, {"hi": "there"})
        await self.fails(self.client(await self.fake(server)), ServerSelectionTimeoutError, ConfigurationError)

    async def test_refusing_hello(self) -> None:
        """A server that answers the greeting with an error."""
        server = FakeServer()
        for name in ("hello", "isMaster", "ismaster"):
            server.answer(name, {"ok": 0, "code": 13, "errmsg": "not for you"})
        error = await self.fails(self.client(await self.fake(server)), ServerSelectionTimeoutError)
        self.assertIn("not for you", str(error))


class WrongServerTests(BadInputCase):
    """A MongoDB server, but not the right one."""

    patience_ms = 2_000
    connect_ms = 10_000

    async def test_other_set(self) -> None:
        """A member of another replica set."""
        members = await replica_set()
        primary = await members.primary()
        client = self.client(f"mongodb://{primary.host}:{primary.port}/?replicaSet=other")
        error = await self.fails(client, ServerSelectionTimeoutError)
        self.assertIn("of set 'other': no server is known", str(error))
        self.assertIn(f"{primary.host}:{primary.port} is RSPrimary of set 'rs0'", str(error))

    async def test_standalone_for_set(self) -> None:
        """A standalone where a replica set was expected."""
        server = await standalone()
        client = self.client(f"mongodb://{server.host}:{server.port}/?replicaSet=rs")
        error = await self.fails(client, ServerSelectionTimeoutError)
        self.assertIn(f"{server.host}:{server.port} is Standalone", str(error))

    async def test_too_old(self) -> None:
        """A server that is too old: at once, and the error says what is needed."""
        for version in (0, 6, 8):
            uri = await self.fake(FakeServer(hello={"maxWireVersion": version, "minWireVersion": 0}))
            error = await self.fails(self.client(uri), ConfigurationError, ServerSelectionTimeoutError)
            self.assertIn(uri.removeprefix("mongodb://").rstrip("/"), str(error))
            self.assertIn("wire version", str(error))

    async def test_too_new(self) -> None:
        """A server that has left the driver's versions behind."""
        uri = await self.fake(FakeServer(hello={"maxWireVersion": 999, "minWireVersion": 900}))
        error = await self.fails(self.client(uri), ConfigurationError, ServerSelectionTimeoutError)
        self.assertIn("wire version", str(error))

    async def test_no_tls(self) -> None:
        """With tls=true a server without TLS is not talked to in plain text."""
        server = await standalone()
        client = self.client(f"mongodb://{server.host}:{server.port}/?tls=true&tlsInsecure=true")
        error = await self.fails(client, ServerSelectionTimeoutError)
        self.assertIn(f":{server.port}", str(error))

    async def test_wrong_password(self) -> None:
        """A wrong password is code 18 for every use, at once; the error shows no password."""
        mongod = await Mongod(reactor, auth=True).start()
        self.addCleanup(mongod.stop)
        client = self.client(f"mongodb://root:hunter2@{mongod.host}:{mongod.port}", serverSelectionTimeoutMS=20_000)
        error = await self.fails(client, OperationFailure)
        self.assertEqual(error.code, 18)
        self.assertNotIn("hunter2", repr(error))

    async def test_missing_credentials(self) -> None:
        """Without credentials where they are needed, the server's error (13) is that of the operation."""
        mongod = await Mongod(reactor, auth=True).start()
        self.addCleanup(mongod.stop)
        client = self.client(f"mongodb://{mongod.host}:{mongod.port}")
        error: Any = await self.assertFailure(client.test.things.find_one(), OperationFailure)
        self.assertEqual(error.code, 13)


class MisbehavingTests(BadInputCase):
    """A server that greets as it should and then does not go on so."""

    patience_ms = 20_000
    connect_ms = 10_000

    async def answered(self, answer: Any, *kinds: type[Exception]) -> Any:
        """A find that is answered so fails so, and the client can go on."""
        server = FakeServer({"find": answer})
        client = self.client(await self.fake(server), retryReads=False)
        await client
        error = await self.assertFailure(client.test.things.find(), *kinds)
        await self.assertFailure(client.test.things.find_one(), *kinds)
        self.assertEqual(await client.test.command("ping"), {"ok": 1.0})
        return error

    async def test_closes(self) -> None:
        """It closes the connection."""
        await self.answered(Behaviour.HANG_UP, AutoReconnect)

    async def test_garbage(self) -> None:
        """It sends what is no message."""
        await self.answered(b"\xff" * 100, AutoReconnect, ProtocolError)

    async def test_wrong_request(self) -> None:
        """It answers a request that was not made."""
        body = bson.encode({"ok": 1})
        size = 21 + len(body)
        await self.answered(REPLY_HEADER.pack(size, 1, 2**30, 2013) + bytes(5) + body, AutoReconnect, ProtocolError)

    async def test_no_cursor(self) -> None:
        """Its reply lacks what belongs there."""
        await self.answered({"ok": 1}, ProtocolError, InvalidOperation)
        await self.answered({"ok": 1, "cursor": {"id": 0}}, ProtocolError)

    async def test_silent(self) -> None:
        """It never answers: socketTimeoutMS."""
        server = FakeServer({"find": Behaviour.FALL_SILENT})
        client = self.client(await self.fake(server), retryReads=False, socketTimeoutMS=200)
        await client
        started = reactor.seconds()
        await self.assertFailure(client.test.things.find_one(), AutoReconnect)
        self.assertLess(reactor.seconds() - started, 3)

    async def test_greeting_changes(self) -> None:
        """A pool connection that is greeted in another way than the monitor's fails the operation, not the client."""
        server = FakeServer()
        client = self.client(await self.fake(server))
        await client
        for name in ("hello", "isMaster", "ismaster"):
            server.answer(name, {**HELLO, "maxWireVersion": 17})
        self.assertEqual(await client.test.command("ping"), {"ok": 1.0})

    async def test_unencodable(self) -> None:
        """A document that BSON cannot hold fails before anything is sent, and the connection goes on."""
        server = await standalone()
        client = self.client(server.uri)
        await self.assertFailure(client.test.things.find_one({"x": object()}), InvalidDocument)
        await self.assertFailure(client.test.things.find({"x": object()}), InvalidDocument)
        self.assertEqual(await client.test.command("ping"), {"ok": 1.0})
