"""A client of a load balancer: real servers behind one that stands in for MongoDB's."""

from __future__ import annotations

from typing import Any

from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.integration.balancer import Balancer
from tests.integration.servers import Commands, replica_set
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, ConfigurationError
from txmongo.sessions import ClientSession

MAJORITY = WriteConcern(w="majority")


class LoadBalancedTests(TestCase):
    """A replica set of one behind the balancer."""

    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start the balancer, and a client of it."""
        self.members = await replica_set()
        self.balancer = await Balancer(reactor, [self.members.members[0].address]).start()
        self.addCleanup(lambda: defer.Deferred.fromCoroutine(self.balancer.stop()))
        self.commands = Commands()
        self.client: ConnectionPool[dict[str, Any]] = ConnectionPool(self.balancer.uri, event_listeners=[self.commands])
        self.addCleanup(self.client.disconnect)
        self.things = self.client.txmongo_tests.get_collection("balanced", write_concern=MAJORITY)
        await self.things.drop()
        await self.things.insert_many([{"_id": number, "count": 0} for number in range(10)])

    @property
    def pool(self) -> Any:
        """The balancer's."""
        [server] = self.client._topology.servers.values()
        return server.pool

    def kept(self) -> int:
        """How many connections are in use or kept."""
        count: int = self.pool.total_count - self.pool.available_count
        return count

    async def test_topology(self) -> None:
        """It is taken for a load balancer, whatever the server says of itself."""
        self.assertEqual(self.client.topology_description.topology_type_name, "LoadBalanced")
        self.assertEqual(await self.client.address, self.pool.address)

    async def test_cursors(self) -> None:
        """Cursors keep their connections until they are read to the end, closed, or given up."""
        cursors = [self.things.find(batch_size=2) for _ in range(5)]
        for cursor in cursors:
            await cursor.next_batch()
        self.assertEqual(self.kept(), 5)
        self.assertEqual(await self.things.count_documents({}), 10)
        for cursor in cursors[:3]:
            self.assertEqual(len(await cursor), 8)
        await cursors[3].close()
        self.assertEqual(self.kept(), 1)
        waiting = cursors[4].next_batch()
        waiting.cancel()
        await self.assertFailure(waiting, defer.CancelledError)
        await cursors[4].close()
        self.assertEqual(self.commands.names().count("killCursors"), 2)
        self.assertEqual(await self.things.count_documents({}), 10)
        self.assertEqual(self.kept(), 0)
        self.assertEqual(self.client._executor.sessions.pool.in_use, 0)

    async def test_many(self) -> None:
        """Many readers and writers at once, on few connections."""
        await self.client.disconnect()
        self.client = ConnectionPool(self.balancer.uri, maxPoolSize=5)
        self.addCleanup(self.client.disconnect)
        things = self.client.txmongo_tests.get_collection("balanced", write_concern=MAJORITY)

        async def work(number: int) -> int:
            await things.update_one({"_id": number % 10}, {"$inc": {"count": 1}})
            return len(await things.find({}, batch_size=3))

        self.assertEqual(
            await defer.gatherResults(defer.Deferred.fromCoroutine(work(n)) for n in range(100)), [10] * 100
        )
        self.assertEqual({each["count"] async for each in things.find({})}, {10})
        self.assertEqual((self.kept(), self.pool.total_count <= 5), (0, True))

    async def test_transaction(self) -> None:
        """A transaction is committed where it was begun, while others write elsewhere."""

        async def work(session: ClientSession) -> None:
            await self.things.update_one({"_id": 0}, {"$inc": {"count": 1}}, session=session)
            await self.things.update_one({"_id": 2}, {"$inc": {"count": 1}})
            self.assertEqual(len(await self.things.find({"count": 1}, session=session)), 1)
            await self.things.update_one({"_id": 1}, {"$inc": {"count": 1}}, session=session)

        async with self.client.start_session() as session:
            await session.with_transaction(work)
            self.assertEqual(self.kept(), 1)
        self.assertEqual(self.kept(), 0)
        changed = await self.things.find({"count": 1}).sort("_id", 1)
        self.assertEqual([each["_id"] for each in changed], [0, 1, 2])

    async def test_cut(self) -> None:
        """If the connection of a transaction is cut, the transaction is over, and run again it is committed once."""
        calls = []

        async def work(session: ClientSession) -> None:
            calls.append(session)
            await self.things.update_one({"_id": 0}, {"$inc": {"count": 1}}, session=session)
            if len(calls) == 1:
                for way in list(self.balancer._ways):
                    await way.cut()
            await self.things.update_one({"_id": 1}, {"$inc": {"count": 1}}, session=session)

        async with self.client.start_session() as session:
            await session.with_transaction(work)
        self.assertEqual(len(calls), 2)
        self.assertEqual(await self.things.count_documents({"count": 1}), 2)
        cursor = self.things.find(batch_size=2)
        await cursor.next_batch()
        for way in list(self.balancer._ways):
            await way.cut()
        await self.assertFailure(cursor.next_batch(), AutoReconnect)
        self.assertEqual(self.kept(), 0)
        self.assertEqual(await self.things.count_documents({}), 10)

    async def test_stream(self) -> None:
        """A change stream keeps a connection, goes on with another when that is cut, and lets go of it in the end."""
        stream = await self.things.watch()
        await self.things.insert_one({"_id": 10})
        self.assertEqual((await stream.next())["fullDocument"], {"_id": 10})
        self.assertEqual(self.kept(), 1)
        for way in list(self.balancer._ways):
            await way.cut()
        await self.things.insert_one({"_id": 11})
        self.assertEqual((await stream.next())["fullDocument"], {"_id": 11})
        self.assertEqual((self.kept(), self.commands.names().count("aggregate")), (1, 2))
        await stream.close()
        self.assertEqual(self.kept(), 0)
        self.assertEqual(self.client._executor.sessions.pool.in_use, 0)

    async def test_no_balancer(self) -> None:
        """A server that is not behind one is refused."""
        uri = self.members.members[0].uri
        client: ConnectionPool[dict[str, Any]] = ConnectionPool(uri, loadBalanced=True)
        self.addCleanup(client.disconnect)
        await self.assertFailure(client.admin.command("ping"), ConfigurationError)
