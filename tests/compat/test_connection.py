"""``txmongo.connection`` of TxMongo 15.2 and 26: its clients, their order, and a replica set that begins."""

from __future__ import annotations

from typing import Any

from bson.codec_options import CodecOptions
from bson.son import SON
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, task
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import ClientFactory

from tests.compat.servers import CompatTestCase, binary_of, mongod_of, on_every_server
from txmongo import utils
from txmongo._testing.mongod import free_port
from txmongo.connection import (
    ConnectionPool,
    MongoConnection,
    MongoConnectionPool,
    _Connection,
    _parse_uri,
    lazyMongoConnection,
    lazyMongoConnectionPool,
)
from txmongo.errors import AutoReconnect, InvalidOperation, OperationFailure, TimeExceeded
from txmongo.protocol import MongoAuthenticationError, MongoProtocol
from txmongo.testing import FakeServer, Mongod

reactor: Any = _reactor
AS_SON: CodecOptions[Any] = CodecOptions(SON)


@on_every_server
class ClientTests(CompatTestCase):
    """The clients by their names of old."""

    async def test_names(self) -> None:
        """Host, port and the number of connections, which are all opened at once."""
        host, port = self.server.address
        for make in (MongoConnection, MongoConnectionPool, lazyMongoConnection, lazyMongoConnectionPool):
            client: Any = make(host, port, 3)
            self.addCleanup(client.disconnect)
            self.assertIs(await client, client)
            found = await defer.gatherResults([client.txmongo_compat.things.find_one() for _ in range(9)])
            self.assertEqual(found, [None] * 9)
            while not all(each.instance for each in client.getprotocols()):
                await client.admin.command("ping")  # the others are still being opened
            self.assertEqual(len(client.getprotocols()), 3)
            self.assertIn(await client.getprotocol(), client.getprotocols())

    async def test_constructor(self) -> None:
        """ConnectionPool(uri, pool_size, ssl_context_factory, **kwargs), by position and by name, to disconnect()."""
        for client in (
            ConnectionPool(self.uri, 2, None, w=1, timeout=20, retry_delay=1, max_delay=2),
            ConnectionPool(uri=self.uri, pool_size=2, ssl_context_factory=None, write_concern=WriteConcern(1)),
        ):
            self.assertEqual(client.write_concern, WriteConcern(1))
            self.assertEqual(client["txmongo_compat"].write_concern, WriteConcern(1))
            await client.txmongo_compat.things.insert_one({})
            await client.disconnect()
            await self.failure(client.txmongo_compat.things.insert_one({}), InvalidOperation)
        self.assertEqual(await self.things.count_documents({}), 2)

    async def test_users(self) -> None:
        """auth_creds tells whom connections are authenticated as, by the database."""
        mongod = await mongod_of(self.server_version, auth=True)
        assert mongod.credentials is not None
        client: ConnectionPool[Any] = ConnectionPool(mongod.uri)
        self.addCleanup(client.disconnect)
        self.assertEqual(client.auth_creds, {"admin": (*mongod.credentials, "DEFAULT")})
        self.assertEqual(self.client.auth_creds, {})
        await client.admin.command("ping")

    async def test_default_database(self) -> None:
        """get_default_database() is the connection string's database, None if it names none."""
        host, port = self.server.address
        client = self.fixed_client(f"mongodb://{host}:{port}/txmongo_compat")
        database = client.get_default_database()
        assert database is not None
        self.assertEqual(await database.things.find(), [])
        self.assertEqual(database.name, "txmongo_compat")
        self.assertIsNone(self.fixed_client(f"mongodb://{host}:{port}").get_default_database())

    async def test_uri(self) -> None:
        """The connection string in parts, of a client and of its protocols; parsing one connects to nothing."""
        for client in (self.client, self.fixed_client()):
            (before,) = client.getprotocols()
            self.assertIs(before.uri, client.uri)
            self.assertIsInstance(await before.notifyReady(), MongoProtocol)
            (protocol,) = client.getprotocols()
            self.assertIs(protocol.uri, client.uri)
            self.assertIs(await protocol.notifyReady(), protocol)
        parts = _parse_uri("user:secret@a.example:1,b.example/db")
        self.assertEqual(parts["nodelist"], [("a.example", 1), ("b.example", 27017)])
        self.assertEqual((parts["username"], parts["password"], parts["database"]), ("user", "secret", "db"))
        self.assertIsNone(parts["collection"])
        self.assertEqual(_parse_uri("mongodb://a.example/db.some.things")["collection"], "some.things")

    async def test_call_order(self) -> None:
        """On a fixed pool of one connection 200 operations of every kind are carried out as they were called."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, pool_size=1)
        self.addCleanup(client.disconnect)
        things = client.txmongo_compat.things
        waiting: list[Any] = []
        for number in range(200):
            waiting.append(things.insert_one({"_id": number, "x": 0}))
            waiting.append(things.update_one({"_id": number}, {"$set": {"x": 1}}))
            waiting.append(things.find_one_and_update({"_id": number, "x": 1}, {"$set": {"x": 2}}))
            waiting.append(things.replace_one({"_id": number, "x": 2}, {"x": 3}))
            waiting.append(things.find_one({"_id": number}))
            waiting.append(things.count_documents({}))
            waiting.append(client.txmongo_compat.command("count", "things"))
            waiting.append(things.delete_one({"_id": number - 1}))
        done = await defer.gatherResults(waiting)
        for number in range(200):
            row = done[number * 8 : number * 8 + 8]
            self.assertEqual(row[4], {"_id": number, "x": 3})
            left = 2 if number else 1
            self.assertEqual((row[5], row[6]["n"], row[7].deleted_count), (left, left, left - 1))

    async def test_command(self) -> None:
        """command(dbname, command) gives the reply, in the client's classes; errors are checked unless they may be."""
        await self.things.insert_many([{"_id": n} for n in range(3)])
        count = {"count": "things"}
        self.assertEqual((await self.client.command("txmongo_compat", count))["n"], 3)
        self.assertEqual((await self.client.command(self.database, count, codec_options=AS_SON))["n"], 3)
        self.assertIsInstance(await self.client.command("admin", {"ping": 1}, codec_options=AS_SON), SON)
        failed = await self.failure(self.client.command("admin", {"nothing": 1}), OperationFailure)
        self.assertEqual(failed.code, 59)
        self.assertEqual((await self.client.command("admin", {"nothing": 1}, check=False))["code"], 59)
        reply = await self.client.command("admin", {"nothing": 1}, allowable_errors=["no such command: 'nothing'"])
        self.assertEqual(reply["ok"], 0)
        insert = {"insert": "things", "documents": [{"_id": 7}]}
        await self.client.command("txmongo_compat", insert, write_concern=WriteConcern(1))
        self.assertEqual(self.sent("insert")[-1]["writeConcern"], {"w": 1})
        await self.failure(self.client.command("admin", {"ping": 1}, deadline=reactor.seconds() - 1), TimeExceeded)

    async def test_timeout_decorator(self) -> None:
        """What a function decorated with utils.timeout is given can be handed on, and counts."""

        @utils.timeout
        def find(_deadline: float | None = None) -> Any:
            return self.things.find({}, _deadline=_deadline)

        @utils.timeout
        async def find_one(_deadline: float | None = None) -> Any:
            await self.things.find().next_batch(_deadline=_deadline)
            return await self.things.find_one({"$where": "sleep(5000) || true"}, _deadline=_deadline)

        await self.things.insert_one({"_id": 1})
        self.assertEqual(await find(timeout=60), [{"_id": 1}])
        self.assertEqual(await find(), [{"_id": 1}])
        await self.failure(find_one(timeout=0.2), TimeExceeded)
        past = reactor.seconds() - 1
        await self.failure(self.things.insert_one({}, _deadline=past), TimeExceeded)
        await self.failure(self.things.drop(_deadline=past), TimeExceeded)
        self.assertRaises(TypeError, self.things.insert_one, {}, _deadline="soon")


@on_every_server
class PingTests(CompatTestCase):
    """``ping_interval`` and ``ping_timeout``."""

    async def test_frozen(self) -> None:
        """A server that is frozen is noticed within both, long before the default ones are over."""
        mongod = await Mongod(reactor, binary=binary_of(self.server_version)).start()
        self.addCleanup(mongod.stop)
        client: ConnectionPool[Any] = ConnectionPool(
            mongod.uri, ping_interval=0.5, ping_timeout=0.5, serverSelectionTimeoutMS=500, retryReads=False
        )
        self.addCleanup(client.disconnect)
        await client.admin.command("ping")
        mongod.freeze()
        self.addCleanup(mongod.thaw)
        began = reactor.seconds()

        async def until_lost() -> None:
            while True:  # the signal may be slower than the first of them
                await client.admin.command("ping")

        await self.failure(defer.ensureDeferred(until_lost()), AutoReconnect)
        self.assertLess(reactor.seconds() - began, 15)


@on_every_server
class FactoryTests(CompatTestCase):
    """``_Connection(pool, uri, connection_id, initial_delay, max_delay)``, a client factory."""

    def make(self, pool: Any, *hosts: tuple[str, int], kind: Any = _Connection, **parts: Any) -> Any:
        """A factory, and the attempt to connect to its first host."""
        uri = {**_parse_uri("mongodb://a.example"), "nodelist": [*hosts], **parts}
        factory: Any = kind(pool, uri, 7, 0.01, 0.02)
        self.assertIsInstance(factory, ClientFactory)
        self.assertIs(factory.uri, uri)
        self.assertIs(factory.pool, pool)
        self.assertEqual((factory.connection_id, factory.initialDelay, factory.maxDelay), (7, 0.01, 0.02))
        connector = reactor.connectTCP(*hosts[0], factory)
        self.addCleanup(self.end, factory, connector)
        return factory

    def end(self, factory: Any, connector: Any) -> Any:
        """Give up, and wait until the connection is gone."""
        factory.stopTrying()
        gone: defer.Deferred[Any] = defer.Deferred()
        if factory.instance is None:
            return None
        factory.instance.lost_hook = lambda _: gone.callback(None)
        connector.disconnect()
        return gone

    async def test_ready(self) -> None:
        """It has a protocol that is greeted; when that is lost it makes another."""
        factory = self.make(None, self.server.address)
        self.assertIsNone(factory.instance)
        given_up = factory.notifyReady()
        given_up.cancel()
        await self.failure(given_up, defer.CancelledError)
        first = await factory.notifyReady()
        self.assertIs(factory.instance, first)
        self.assertIs(await factory.notifyReady(), first)
        self.assertGreaterEqual(first.max_wire_version, 9)
        self.assertEqual((await first.command("admin", {"ping": 1}))["ok"], 1)
        gone: defer.Deferred[Any] = defer.Deferred()
        first.lost_hook = lambda _: gone.callback(None)
        first.fail(Exception("for this test"))
        await gone
        while factory.instance is not None:  # it is told of the loss after the protocol
            await task.deferLater(reactor, 0)
        second = await factory.notifyReady()
        self.assertIsNot(second, first)
        self.assertEqual((await second.command("admin", {"ping": 1}))["ok"], 1)

    async def test_hosts(self) -> None:
        """It tries the hosts in turn, past one that is not there and one that is no primary, round and round."""
        secondary = await FakeServer(hello={"ismaster": False, "secondary": True, "setName": "rs"}).listen(reactor)
        self.addCleanup(secondary.stop)
        nobody = ("127.0.0.1", free_port("127.0.0.1"))
        factory = self.make(None, nobody, secondary.address, self.server.address)
        protocol = await factory.notifyReady()
        self.assertEqual(protocol.transport.getPeer().port, self.server.address[1])
        factory = self.make(None, secondary.address, nobody, options={"readpreference": "secondaryPreferred"})
        protocol = await factory.notifyReady()
        self.assertEqual(protocol.transport.getPeer().port, secondary.address[1])

    async def test_overridden(self) -> None:
        """A subclass may have its own protocol, and hears of each step through the methods that make it."""
        heard: list[str] = []

        class Hearing(_Connection):
            class protocol(MongoProtocol):
                pass

            def buildProtocol(self, addr: Any) -> Any:
                heard.append("buildProtocol")
                return super().buildProtocol(addr)

            def configure(self, proto: Any) -> Any:
                heard.append("configure")
                return super().configure(proto)

            def setInstance(self, instance: Any = None, reason: Any = None) -> None:
                heard.append("setInstance" if instance else "setInstance(None)")
                super().setInstance(instance, reason)

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                heard.append("clientConnectionFailed")
                super().clientConnectionFailed(connector, reason)

            def clientConnectionLost(self, connector: Any, reason: Any) -> None:
                heard.append("clientConnectionLost")
                super().clientConnectionLost(connector, reason)

            def retryNextHost(self, connector: Any = None) -> None:
                heard.append("retryNextHost")
                super().retryNextHost(connector)

        factory = self.make(None, ("127.0.0.1", free_port("127.0.0.1")), self.server.address, kind=Hearing)
        protocol = await factory.notifyReady()
        self.assertIsInstance(protocol, Hearing.protocol)
        made = ["buildProtocol", "configure", "setInstance"]
        self.assertEqual(heard, ["clientConnectionFailed", "retryNextHost", *made])
        heard.clear()
        protocol.fail(Exception("for this test"))
        while factory.instance is protocol:
            await task.deferLater(reactor, 0)
        again = await factory.notifyReady()
        self.assertIsNot(again, protocol)
        # First the host that nobody listens on, then the other.
        lost = ["clientConnectionLost", "setInstance(None)", "retryNextHost"]
        self.assertEqual(heard, [*lost, "clientConnectionFailed", "retryNextHost", *made])

    async def test_users(self) -> None:
        """It authenticates as the client's users, or as that of the connection string; a refusal ends it."""
        mongod = await mongod_of(self.server_version, auth=True)
        assert mongod.credentials is not None
        name, password = mongod.credentials
        client: ConnectionPool[Any] = ConnectionPool(mongod.uri)
        self.addCleanup(client.disconnect)
        for factory in (
            self.make(client, mongod.address),
            self.make(None, mongod.address, username=name, password=password),
            self.make(None, mongod.address, username=name, password=password, options={"authsource": "admin"}),
        ):
            protocol = await factory.notifyReady()
            status = await protocol.command("admin", {"connectionStatus": 1})
            self.assertEqual([each["user"] for each in status["authInfo"]["authenticatedUsers"]], [name])
        factory = self.make(None, mongod.address, username=name, password="eraser")
        await self.failure(factory.notifyReady(), MongoAuthenticationError)
        factory = self.make(None, mongod.address)
        self.assertIs(await factory.authenticate("admin", name, password, "SCRAM-SHA-1"), True)
        await factory.instance.command("admin", {"listDatabases": 1})


@on_every_server
class UninitiatedSetTests(CompatTestCase):
    """A member of a replica set that is not initiated yet."""

    async def test_initiated_through_the_client(self) -> None:
        """One seed and secondaryPreferred: the set's commands run on it, then it is discovered and written to."""
        mongod = await Mongod(reactor, replica_set="rs0", binary=binary_of(self.server_version)).start()
        self.addCleanup(mongod.stop)
        host, port = mongod.address
        client: ConnectionPool[Any] = ConnectionPool(f"mongodb://{host}:{port}/?readPreference=secondaryPreferred")
        self.addCleanup(client.disconnect)
        hello = await client.admin.command("ismaster")
        self.assertTrue(hello.get("isreplicaset"))
        config = {"_id": "rs0", "members": [{"_id": 0, "host": f"{host}:{port}"}]}
        self.assertEqual((await client.admin.command("replSetInitiate", config))["ok"], 1)
        self.assertEqual((await client.admin.command("replSetGetStatus"))["set"], "rs0")
        await client.txmongo_compat.things.insert_one({"_id": 1})
        self.assertEqual(await client.txmongo_compat.things.find_one(), {"_id": 1})
        self.assertEqual(await client.primary, (host, port))
