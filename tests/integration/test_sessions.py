"""Sessions on real servers: which one a command carries, what it sees, and what is left in the end."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from bson.dbref import DBRef
from pymongo.operations import IndexModel, InsertOne, UpdateOne
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.integration.servers import CollectionTestCase, Commands
from txmongo.connection import ConnectionPool
from txmongo.errors import CollectionInvalid, ConfigurationError, InvalidOperation, OperationFailure
from txmongo.gridfs import GridFSBucket
from txmongo.sessions import SessionOptions
from txmongo.testing import ReplicaSet


def calls(client: Any) -> list[Any]:
    """One call of each method that takes a session, all of which can be made one after the other."""
    database = client.txmongo_tests
    things = database.things
    update: dict[str, Any] = {"$set": {"a": 1}}
    return [
        (things.insert_one, {"_id": 1}),
        (things.insert_many, [{"_id": 2}, {"_id": 3}]),
        (things.update_one, {}, update),
        (things.update_many, {}, update),
        (things.replace_one, {}, {"b": 1}),
        (things.delete_one, {"_id": 1}),
        (things.delete_many, {"_id": 3}),
        (things.find_one_and_update, {}, update),
        (things.find_one_and_replace, {}, {"c": 1}),
        (things.find_one_and_delete, {}),
        (things.bulk_write, [InsertOne({}), InsertOne({})]),
        (things.find_one, {}),
        (things.find, {}),
        (things.find_raw_batches, {}),
        (things.aggregate, []),
        (things.aggregate_raw_batches, []),
        (things.count_documents, {}),
        (things.count, {}),
        (things.distinct, "a"),
        (partial(things.map_reduce, out={"inline": 1}), "function() { emit(1, 1) }", "function() { return 1 }"),
        (database.dereference, DBRef("things", 2)),
        (things.create_index, "a"),
        (things.ensure_index, "c"),
        (things.create_indexes, [IndexModel("b")]),
        (things.list_indexes,),
        (things.index_information,),
        (things.list_index_names,),
        (things.drop_index, "a_1"),
        (things.drop_indexes,),
        (things.options,),
        (things.rename, "others"),
        (database.others.drop,),
        (database.create_collection, "made"),
        (database.validate_collection, "made"),
        (database.modify_collection, "made"),
        (database.drop_collection, "made"),
        (database.list_collections,),
        (database.list_collection_names,),
        (database.command, "ping"),
        (database.cursor_command, {"find": "things"}),
        (client.admin.aggregate, [{"$listLocalSessions": {}}]),
        (client.command, "txmongo_tests", {"ping": 1}),
        (client.list_databases,),
        (client.list_database_names,),
        (client.server_info,),
        (client.drop_database, "txmongo_tests_of_sessions"),
    ]


class SessionCase(CollectionTestCase):
    """A client of a replica set of one."""

    on_replica_set = True

    def lsids(self) -> list[Any]:
        """The ids of the sessions of the commands that were sent; ``None`` for one without."""
        return [(command.get("lsid") or {}).get("id") for command in self.commands.sent]

    @property
    def pool(self) -> Any:
        """The client's sessions that nobody uses."""
        return self.client._executor.sessions.pool


class ImplicitTests(SessionCase):
    """Sessions that nobody asked for."""

    async def test_one_after_another(self) -> None:
        """Operations that follow one another use the same one, cursors included, and give it back at once."""
        await self.things.insert_many([{"_id": number} for number in range(5)])
        self.assertEqual(len(await self.things.find(batch_size=2)), 5)
        await self.things.update_one({"_id": 1}, {"$set": {"x": 1}})
        [document async for document in self.things.aggregate([], batchSize=2)]
        await self.things.count_documents({})
        self.assertEqual(len(set(self.lsids())), 1, self.commands.names())
        self.assertNotIn(None, self.lsids())
        self.assertEqual((self.pool.in_use, len(self.pool)), (0, 1))

    async def test_open_cursor(self) -> None:
        """A cursor keeps its session until it is exhausted or closed; others take another one."""
        await self.things.insert_many([{"_id": number} for number in range(5)])
        cursor = self.things.find(batch_size=2)
        await cursor.next_batch()
        self.assertEqual(self.pool.in_use, 1)
        await self.things.find_one()
        self.assertNotEqual(self.lsids()[-1], self.lsids()[-2])
        await cursor.close()
        self.assertEqual(self.commands.names()[-1], "killCursors")
        self.assertEqual(self.lsids()[-1], self.lsids()[-3])
        self.assertEqual((self.pool.in_use, len(self.pool)), (0, 2))

    async def test_no_more_than_connections(self) -> None:
        """They are taken when there is a connection: many operations on one connection at a time need few."""
        client: Any = ConnectionPool(self.uri, maxPoolSize=1, pipelining=False, event_listeners=[self.commands])
        self.addCleanup(client.disconnect)
        things = client.txmongo_tests.things
        running = [
            *(things.insert_one({"_id": number}) for number in range(3)),
            things.delete_one({}),
            things.update_one({}, {"$set": {"x": 1}}),
            things.bulk_write([InsertOne({})]),
            things.find_one_and_delete({}),
            things.find(),
            client.txmongo_tests.command("ping"),
        ]
        await defer.gatherResults(running)
        self.assertEqual(len(set(self.lsids())), 1)

    async def test_unacknowledged(self) -> None:
        """A write that nobody hears the end of has none."""
        things = self.client.get_database("txmongo_tests", write_concern=WriteConcern(w=0)).things
        await things.insert_one({"_id": 1})
        self.assertEqual(self.lsids(), [None])
        self.assertEqual(self.pool.in_use, 0)
        async with self.client.start_session() as session:
            # TxMongo's class for that, and PyMongo's.
            for kind in (ValueError, ConfigurationError):
                self.assertRaises(kind, things.insert_one, {}, session=session)
                self.assertRaises(kind, things.bulk_write, [InsertOne({})], session=session)

    async def test_copied(self) -> None:
        """A session is not copied, for the server would take both for one."""
        async with self.client.start_session() as session:
            self.assertRaises(TypeError, copy.copy, session)

    async def test_cancelled(self) -> None:
        """The session of an operation that was cancelled in flight is used for nothing else."""
        await self.things.find_one()
        cancelled = self.things.find_one({"$where": "sleep(200) || true"})
        cancelled.cancel()
        await self.failure(cancelled, defer.CancelledError)
        self.assertEqual((self.pool.in_use, len(self.pool)), (0, 0))
        await self.things.find_one()
        self.assertEqual(len(set(self.lsids())), 2)

    async def test_goodbye(self) -> None:
        """When the client is disconnected the server hears which sessions are over."""
        await self.things.find_one()
        used = self.lsids()
        await self.client.disconnect()
        ended = self.commands.sent[-1]
        self.assertEqual([lsid["id"] for lsid in ended["endSessions"]], used)
        self.assertNotIn("lsid", ended)


class GivenTests(SessionCase):
    """Sessions that are started by the application."""

    async def test_every_method(self) -> None:
        """Every method does its commands in the session that it is given, and refuses it once it has ended."""
        session = self.client.start_session()
        for method, *arguments in calls(self.client):
            self.commands.sent.clear()
            await method(*arguments, session=session)
            self.assertEqual(set(self.lsids()), {session.session_id["id"]}, method)
        await session.end_session()
        self.assertEqual(self.pool.in_use, 0)
        other = ConnectionPool[dict[str, Any]](self.uri)
        self.addCleanup(other.disconnect)
        for method, *arguments in calls(self.client):
            for refused in (session, other.start_session()):
                with self.assertRaises(InvalidOperation):
                    method(*arguments, session=refused)

    async def test_every_method_bound(self) -> None:
        """Every method does all its commands in the session that is bound, and after that in another."""
        session = self.client.start_session()
        async with session.bind(end_session=False):
            lsid = session.session_id["id"]
            for method, *arguments in calls(self.client):
                self.commands.sent.clear()
                await method(*arguments)
                self.assertEqual(set(self.lsids()), {lsid}, method)
        await self.things.insert_one({})
        self.assertNotEqual(self.lsids()[-1], lsid)
        await session.end_session()
        self.assertEqual(self.pool.in_use, 0)

    async def test_bound_beyond_first_command(self) -> None:
        """What a bulk write, a change stream and GridFS send after their first command is in the bound session too."""
        bucket = GridFSBucket(self.client.txmongo_tests)
        await bucket.drop()
        self.commands.sent.clear()
        session = self.client.start_session()
        async with session.bind():
            lsid = session.session_id["id"]
            await self.things.bulk_write([InsertOne({"_id": 1}), UpdateOne({}, {"$set": {"a": 1}}), InsertOne({})])
            grid_in = bucket.open_upload_stream("a file", chunk_size_bytes=1024)
            await grid_in.write(bytes(100_000))
            await grid_in.close()
            (found,) = await bucket.find({"filename": "a file"})
            self.assertEqual(len(await found.read()), 100_000)
            await bucket.delete_by_name("a file")
            stream = await self.things.watch()
            await self.client.admin.command("ping")
            changed = stream.next()
            await self.things.insert_one({"_id": "seen"})
            self.assertEqual((await changed)["documentKey"], {"_id": "seen"})
            await stream.close()
        self.assertGreater(len(self.lsids()), 15)
        self.assertEqual(set(self.lsids()), {lsid}, self.commands.names())

    async def test_bound_transaction(self) -> None:
        """A transaction of a bound session takes in what it is not named to, and nothing of other coroutines."""
        await self.client.txmongo_tests.create_collection("things")

        async def transact() -> None:
            async with self.client.start_session().bind() as session, session.start_transaction():
                await self.things.insert_one({"_id": 1})
                await self.things.insert_many([{"_id": 2}, {"_id": 3}])
                self.assertEqual(await self.things.count_documents({}), 3)
                self.assertEqual(await defer.Deferred.fromCoroutine(elsewhere), 0)

        async def count() -> int:
            await started
            return int(await self.things.count_documents({}))

        started: defer.Deferred[None] = defer.Deferred()
        outside = defer.Deferred.fromCoroutine(count())

        async def wait() -> Any:
            started.callback(None)
            return await outside

        elsewhere = wait()
        await transact()
        self.assertEqual(await self.things.count_documents({}), 3)

    async def test_cursors(self) -> None:
        """A cursor is read to its end in the session, and closed in it."""
        await self.things.insert_many([{"_id": number} for number in range(5)])
        self.commands.sent.clear()
        async with self.client.start_session() as session:
            lsid = session.session_id["id"]
            await self.things.find(batch_size=2, session=session)
            cursor = self.things.find(batch_size=2, session=session)
            await cursor.next()
            await cursor.close()
        self.assertEqual(self.commands.names(), ["find", "getMore", "getMore", "find", "killCursors"])
        self.assertEqual(self.lsids(), [lsid] * 5)

    async def test_last_in_first_out(self) -> None:
        """Of the sessions that are free the one that was given back last is used next."""
        first, second = self.client.start_session(), self.client.start_session()
        ids = [each.session_id for each in (first, second)]
        await first.end_session()
        await second.end_session()
        third, fourth = self.client.start_session(), self.client.start_session(options=SessionOptions())
        self.assertEqual([each.session_id for each in (third, fourth)], ids[::-1])
        await third.end_session()
        await fourth.end_session()

    async def test_errors_of_methods(self) -> None:
        """A collection that is there is found in the session too."""
        await self.things.insert_one({})
        async with self.client.start_session() as session:
            creating = self.client.txmongo_tests.create_collection("things", session=session)
            await self.failure(creating, CollectionInvalid)

    async def test_causal(self) -> None:
        """What is read waits for what the session has seen, but not in the first read, nor if that is not wanted."""
        for options, expected in (({}, True), ({"causal_consistency": False}, False)):
            async with self.client.start_session(**options) as session:
                self.commands.sent.clear()
                await self.things.find_one(session=session)
                await self.things.update_one({}, {"$set": {"x": 1}}, session=session)
                seen = session.operation_time
                await self.things.find_one(session=session)
                first, _, last = self.commands.sent
                self.assertNotIn("readConcern", first)
                self.assertEqual(last.get("readConcern"), {"afterClusterTime": seen} if expected else None)

    async def test_snapshot(self) -> None:
        """All reads of a snapshot session see the moment of the first, and it can only read."""
        await self.needs("snapshot sessions", 5, 0)
        await self.things.insert_one({"_id": 1, "x": 1})
        async with self.client.start_session(snapshot=True) as session:
            self.assertEqual(await self.things.distinct("x", session=session), [1])
            await self.things.update_one({}, {"$set": {"x": 2}})
            self.assertEqual(await self.things.distinct("x"), [2])
            self.assertEqual(await self.things.find({}, {"_id": 0}, session=session), [{"x": 1}])
            self.assertEqual(await self.things.aggregate([{"$project": {"_id": 0}}], session=session), [{"x": 1}])
            await self.failure(self.things.insert_one({}, session=session), OperationFailure)
            async with self.client.start_session(snapshot=True, snapshot_time=session.snapshot_time) as same:
                self.assertEqual(await self.things.distinct("x", session=same), [1])

    async def test_cluster_time(self) -> None:
        """Every command says the highest time of the cluster that the client was told."""
        await self.things.insert_one({})
        seen = self.client.cluster_time
        await self.things.find_one()
        self.assertEqual(self.commands.sent[-1]["$clusterTime"], seen)


class ManyMembersTests(TestCase):
    """Sessions on a replica set of three."""

    timeout = 180

    async def test_read_own_writes(self) -> None:
        """In a session a secondary shows what was written through the primary just before."""
        members = await ReplicaSet(reactor, 3).start()
        self.addCleanup(members.stop)
        commands = Commands()
        client: Any = ConnectionPool(members.uri, event_listeners=[commands], w="majority", readConcernLevel="majority")
        self.addCleanup(client.disconnect)
        things = client.txmongo_tests.things
        secondary = things.with_options(read_preference=ReadPreference.SECONDARY)
        async with client.start_session() as session:
            for number in range(50):
                await things.insert_one({"_id": number}, session=session)
                self.assertEqual(await secondary.find_one(number, session=session), {"_id": number})
            async with client.start_session() as other:
                other.advance_cluster_time(session.cluster_time)
                other.advance_operation_time(session.operation_time)
                self.assertEqual(await secondary.count_documents({}, session=other), 50)
