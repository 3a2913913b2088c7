"""``txmongo.connection`` of TxMongo 15.2 and 26: its clients, their order, and a replica set that begins."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, reactor

from tests.compat.servers import CompatTestCase, binary_of, on_every_server
from txmongo.connection import (
    ConnectionPool,
    MongoConnection,
    MongoConnectionPool,
    _parse_uri,
    lazyMongoConnection,
    lazyMongoConnectionPool,
)
from txmongo.testing import Mongod


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
            while len(client.getprotocols()) < 3:
                await client.admin.command("ping")  # the others are still being opened
            self.assertEqual(len(client.getprotocols()), 3)
            self.assertIn(await client.getprotocol(), client.getprotocols())

    async def test_uri(self) -> None:
        """The connection string in parts, of a client and of its protocols; parsing one connects to nothing."""
        await self.client
        self.assertIs(self.client.getprotocols()[0].uri, self.client.uri)
        parts = _parse_uri("user:secret@a.example:1,b.example/db")
        self.assertEqual(parts["nodelist"], [("a.example", 1), ("b.example", 27017)])
        self.assertEqual((parts["username"], parts["password"], parts["database"]), ("user", "secret", "db"))

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
