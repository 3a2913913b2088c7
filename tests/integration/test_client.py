"""The client on real servers: databases, deployment, first connection and end."""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from pymongo.cursor import CursorType
from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.internet import defer, reactor, task

from tests.integration.servers import CollectionTestCase, Commands, replica_set, standalone
from txmongo._ops import retry
from txmongo._testing.den import wait_until
from txmongo.connection import ConnectionPool, MongoConnection
from txmongo.errors import AutoReconnect, ConfigurationError, InvalidOperation, OperationFailure
from txmongo.protocol import MongoProtocol


class ClientTests(CollectionTestCase):
    """A client of a standalone."""

    def host_and_port(self, server: Any) -> tuple[str, int]:
        """As MongoConnection takes them."""
        return server.host, server.port

    async def test_await(self) -> None:
        """Awaiting a client gives the client, connected."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri)
        self.assertIs(await client, client)
        self.assertGreater(len(client.getprotocols()), 0)
        await client.disconnect()
        self.assertEqual(client.getprotocols(), [])

    async def test_hosts(self) -> None:
        """The server may be told as PyMongo's clients are told."""
        server = await standalone()
        host, port = self.host_and_port(server)
        ways: list[ConnectionPool[Any]] = [
            ConnectionPool(host, port=port),
            ConnectionPool([f"{host}:{port}"]),
            ConnectionPool(host=host, port=port),
            ConnectionPool(host=[host], port=port, document_class=dict, tz_aware=True, connect=False),
            ConnectionPool(host=self.uri),
            ConnectionPool(f"mongodb://{host}/?appname=x", port=port),
        ]
        for client in ways:
            self.addCleanup(client.disconnect)
            self.assertEqual(await client.address, (host, port))
        self.assertRaises(ConfigurationError, ConnectionPool, self.uri, host=self.uri)
        self.assertRaises(TypeError, ConnectionPool, port="27017")

    async def test_registered_listener(self) -> None:
        """A listener that is registered with PyMongo hears of the clients that are made from then on."""
        commands = Commands()
        monitoring.register(commands)
        self.addCleanup(monitoring._LISTENERS.command_listeners.remove, commands)
        client: ConnectionPool[Any] = ConnectionPool(self.uri)
        self.addCleanup(client.disconnect)
        await client.txmongo_tests.things.find_one()
        await self.things.find_one()
        self.assertEqual(commands.names(), ["find"])

    @defer.inlineCallbacks
    def test_old_example(self) -> Any:
        """The example of TxMongo's documentation."""
        mongo = yield ConnectionPool(self.uri)
        foo = mongo.foo
        test = foo.test
        yield test.drop()
        yield test.insert_one({"_id": 1})
        docs = yield test.find(limit=10)
        self.assertEqual(docs, [{"_id": 1}])
        yield mongo.drop_database("foo")
        yield mongo.disconnect()

    async def test_databases(self) -> None:
        """Databases are listed and dropped."""
        await self.client.txmongo_tests_b.things.insert_one({})
        names = await self.client.list_database_names()
        self.assertIn("txmongo_tests_b", names)
        [found] = await self.client.list_databases(filter={"name": "txmongo_tests_b"})
        self.assertEqual((found["name"], found["empty"]), ("txmongo_tests_b", False))
        await self.client.drop_database(self.client.txmongo_tests_b)
        self.assertNotIn("txmongo_tests_b", await self.client.list_database_names())
        await self.client.drop_database("txmongo_tests_b")

    async def test_server_info(self) -> None:
        """What the server says of itself."""
        self.assertIn("version", await self.client.server_info())

    async def test_deployment(self) -> None:
        """A standalone has an address and no members."""
        server = await standalone()
        self.assertEqual(await self.client.address, (server.host, server.port))
        self.assertEqual(self.client.nodes, {(server.host, server.port)})
        self.assertIsNone(await self.client.primary)
        self.assertEqual(await self.client.secondaries, set())
        self.assertTrue(await self.client.is_primary)
        self.assertEqual(self.client.topology_description.topology_type, TOPOLOGY_TYPE.Single)
        self.assertIn(str(server.port), repr(self.client))

    async def test_protocol(self) -> None:
        """A protocol to talk to directly."""
        protocol = await self.client.getprotocol()
        self.assertIsInstance(protocol, MongoProtocol)
        self.assertEqual(await protocol.command("admin", {"ping": 1}), {"ok": 1.0})

    async def test_end(self) -> None:
        """After disconnect nothing is left in the reactor, and operations fail."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri)
        await client.a.b.find_one()
        slow = client.a.command({"find": "b", "filter": {"$where": "sleep(3000) || true"}})
        await self.client.txmongo_tests.b.insert_one({})
        cursor = client.txmongo_tests.b.find({"$where": "sleep(3000) || true"})
        cursor.addErrback(lambda failure: failure.trap(AutoReconnect))
        slow.addErrback(lambda failure: failure.trap(AutoReconnect))
        await task.deferLater(reactor, 0.02)
        started = reactor.seconds()
        await client.disconnect()
        await cursor
        await slow
        self.assertLess(reactor.seconds() - started, 2.5)
        await self.failure(client.a.b.find_one(), InvalidOperation)
        await self.failure(client.a.b.find(), InvalidOperation)
        await client.disconnect()

    async def test_end_at_once(self) -> None:
        """A client may be disconnected before anything has come of it."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri)
        pending = client.a.b.find_one()
        ended = client.disconnect()
        await self.failure(pending, InvalidOperation)
        await ended

    async def test_block(self) -> None:
        """A block that ends disconnects."""
        made: ConnectionPool[Any] = ConnectionPool(self.uri)
        async with made as client:
            await client.a.b.find_one()
        await self.failure(client.a.b.find_one(), InvalidOperation)

    async def test_fixed(self) -> None:
        """On one fixed connection operations are carried out in the order of the calls, none of them awaited."""
        server = await standalone()
        client: MongoConnection[Any] = MongoConnection(*self.host_and_port(server))
        things = client.txmongo_tests.things
        for number in range(200):
            things.update_one({"_id": 1}, {"$set": {"n": number}}, upsert=True)
            things.update_one({"_id": 1, "n": number}, {"$push": {"seen": number}})
        found = await things.find_one(1)
        assert found is not None
        self.assertEqual(found["seen"], list(range(200)))
        self.assertEqual(len(client.getprotocols()), 1)
        await client.disconnect()

    async def test_pool_sizes(self) -> None:
        """A fixed pool has just so many connections."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, pool_size=3)
        self.addCleanup(client.disconnect)
        await client
        await wait_until(reactor, lambda: len(client.getprotocols()) == 3, 20, "there are no three connections")
        await defer.gatherResults([client.a.b.find_one() for _ in range(30)])
        self.assertEqual(len(client.getprotocols()), 3)

    async def test_many_clients(self) -> None:
        """Ten clients at once, and not a trace of them afterwards."""
        clients: list[ConnectionPool[Any]] = [ConnectionPool(self.uri) for _ in range(10)]
        await defer.gatherResults([client.a.b.find_one() for client in clients])
        await defer.gatherResults([client.disconnect() for client in clients])


class ReplicaSetTests(CollectionTestCase):
    """A client of a replica set."""

    on_replica_set = True

    async def test_deployment(self) -> None:
        """The members are known by their states."""
        members = await replica_set()
        primary = await members.primary()
        self.assertEqual(await self.client.primary, (primary.host, primary.port))
        self.assertEqual(await self.client.secondaries, set())
        self.assertEqual(self.client.topology_description.topology_type, TOPOLOGY_TYPE.ReplicaSetWithPrimary)

    async def test_discovery(self) -> None:
        """One member, without the set's name, leads to the set."""
        members = await replica_set()
        primary = await members.primary()
        client: ConnectionPool[Any] = ConnectionPool(f"mongodb://{primary.host}:{primary.port}")
        await client.txmongo_tests.things.insert_one({})
        self.assertEqual(client.topology_description.topology_type, TOPOLOGY_TYPE.ReplicaSetWithPrimary)
        await client.disconnect()

    async def test_direct(self) -> None:
        """directConnection stays with the one member."""
        members = await replica_set()
        primary = await members.primary()
        client: ConnectionPool[Any] = ConnectionPool(f"mongodb://{primary.host}:{primary.port}/?directConnection=true")
        await client.txmongo_tests.things.find_one()
        self.assertEqual(client.topology_description.topology_type, TOPOLOGY_TYPE.Single)
        await client.disconnect()

    async def test_end_in_the_midst(self) -> None:
        """Whatever a client is at, it is over with the end: calls that wait fail, and the server forgets the rest."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, appname="in the midst", maxPoolSize=20)
        self.addCleanup(client.disconnect)
        things = client.txmongo_tests.things
        await things.insert_many([{"_id": number} for number in range(10)])
        cursor = things.find(batch_size=2)
        await cursor.next_batch()
        session = client.start_session()
        session.start_transaction()
        await things.insert_one({"_id": "in a transaction"}, session=session)
        stream = await things.watch()
        await stream.try_next()
        await self.client.txmongo_tests.drop_collection("capped")
        await self.client.txmongo_tests.create_collection("capped", capped=True, size=4096)
        await self.client.txmongo_tests.capped.insert_one({"_id": 1})
        tail = client.txmongo_tests.capped.find(cursor_type=CursorType.TAILABLE_AWAIT, max_await_time_ms=5000)
        await tail.next_batch()
        labels = ["SystemOverloadedError", "RetryableError"]
        await self.fail_command("insert", errorCode=462, errorLabels=labels)
        client._executor._random.random = lambda: 1.0  # type: ignore[method-assign]
        self.patch(retry, "_BASE_BACKOFF", 5.0)

        async def work(session: Any) -> None:
            await things.find_one({"$where": "sleep(3000) || true"}, session=session)

        waiting: list[Any] = [
            things.insert_one({"_id": "later"}),
            things.find_one({"$where": "sleep(3000) || true"}),
            things.find({"$where": "sleep(3000) || true"}).to_list(),
            client.start_session().with_transaction(work),
            stream.next(),
            tail.next_batch(),
        ]
        ended: list[Any] = []
        for each in waiting:
            each.addBoth(ended.append)
        await task.deferLater(reactor, 0.2)
        self.assertEqual(ended, [])
        await client.disconnect()
        self.assertEqual(len(ended), len(waiting))
        for failure in ended:
            failure.trap(AutoReconnect, InvalidOperation, OperationFailure)
        await session.end_session()
        await cursor.close()
        await self.until_forgotten()

    async def until_forgotten(self) -> None:
        """Wait until the server has neither a transaction nor a connection of the client."""
        ops = {"$currentOp": {"allUsers": True, "idleConnections": True, "idleSessions": True}}
        pipeline: list[Any] = [ops, {"$match": {"appName": "in the midst"}}]
        for _ in range(500):
            status = await self.client.admin.command("serverStatus")
            left = await self.client.admin.aggregate(pipeline)
            if not left and not status["transactions"]["currentOpen"]:
                return
            await task.deferLater(reactor, 0.02)
        self.fail(f"left: {left}, {status['transactions']}")
