"""Behaviour of the older versions that applications lean on, beyond names and arguments."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from typing import Any

from bson.code import Code
from pymongo.operations import InsertOne, UpdateOne
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, task
from twisted.internet import reactor as _reactor
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.compat.servers import CompatTestCase, binary_of, on_every_server
from tests.integration.servers import freeze
from txmongo import filter as qf
from txmongo._testing.mongod import free_port
from txmongo.connection import ConnectionPool, MongoConnection
from txmongo.errors import (
    AutoReconnect,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
)
from txmongo.testing import Mongod, ReplicaSet

reactor: Any = _reactor

ROUNDS = 200


@on_every_server
class CallOrderTests(CompatTestCase):
    """Operations that nobody waits for, on clients with one connection."""

    timeout = 300

    def writes(self, things: Any, number: int) -> list[Callable[[], Any]]:
        """One operation of each kind that writes; each finds what the one before has left, or changes nothing.

        :param number: what the document has before the first of them.
        """
        after = itertools.count(number + 1)

        def step(make: Callable[[dict[str, Any], dict[str, Any], int], Any]) -> Callable[[], Any]:
            new = next(after)
            return lambda: make({"_id": 0, "n": new - 1}, {"$set": {"n": new}}, new)

        database = things.database
        update = "update_one"
        return [
            step(lambda query, change, new: getattr(things, update)(query, change)),
            step(lambda query, change, new: things.update_many(query, change)),
            step(lambda query, change, new: things.replace_one(query, {"n": new})),
            step(lambda query, change, new: things.find_one_and_update(query, change)),
            step(lambda query, change, new: things.find_one_and_replace(query, {"n": new})),
            step(lambda query, change, new: things.bulk_write([UpdateOne(query, change)])),
            step(lambda query, change, new: things.update(query, change)),
            step(lambda query, change, new: things.find_and_modify(query, change)),
            step(lambda query, change, new: things.save({"_id": 0, "n": new})),
            step(lambda query, change, new: database.command("update", "things", updates=[{"q": query, "u": change}])),
            step(
                lambda query, change, new: things.database.client.command(
                    database.name, {"findAndModify": "things", "query": query, "update": change}
                )
            ),
            step(
                lambda query, change, new: things.with_options(write_concern=WriteConcern(0)).update_one(query, change)
            ),
            step(lambda query, change, new: things.update(query, change, safe=False)),
        ]

    def others(self, things: Any, number: int) -> list[tuple[Callable[[], Any], Any]]:
        """One operation of each kind that does not change that document, and what it is to say.

        :param number: what the document has by now.
        """
        other, query = {"_id": f"other {number}"}, {"_id": 0}
        count = [{"$match": query}, {"$group": {"_id": "$n"}}]
        functions = Code("function() { emit(this._id, this.n) }"), Code("function(key, values) { return values[0] }")
        reduce = "function(document, value) { value.n = document.n }"
        return [
            (lambda: things.insert_one(other).addCallback(lambda result: result.inserted_id), other["_id"]),
            (lambda: things.find_one(other), other),
            (lambda: things.delete_one(other).addCallback(lambda result: result.deleted_count), 1),
            (lambda: things.insert_many([other]).addCallback(lambda result: result.inserted_ids), [other["_id"]]),
            (lambda: things.find_one_and_delete(other), other),
            (lambda: things.insert(other), other["_id"]),
            (lambda: things.remove(other).addCallback(lambda result: result["n"]), 1),
            (lambda: things.bulk_write([InsertOne(other)]).addCallback(lambda result: result.inserted_count), 1),
            (lambda: things.delete_many(other).addCallback(lambda result: result.deleted_count), 1),
            (lambda: things.find_one(query), {"_id": 0, "n": number}),
            (lambda: things.find(query).addCallback(list), [{"_id": 0, "n": number}]),
            (lambda: things.find_with_cursor(query).addCallback(lambda page: page[0]), [{"_id": 0, "n": number}]),
            (lambda: things.count_documents({"n": number}), 1),
            (lambda: things.count({"n": number}), 1),
            (lambda: things.estimated_document_count(), 1),
            (lambda: things.distinct("n"), [number]),
            (lambda: things.aggregate(count).addCallback(list), [{"_id": number}]),
            (lambda: things.map_reduce(*functions, out={"inline": 1}), [{"_id": 0, "value": number}]),
            (
                lambda: things.group([], {}, reduce).addCallback(lambda result: result["retval"]),
                [{"n": number}],
            ),
            (lambda: things.database.command("count", "things").addCallback(lambda reply: reply["n"]), 1),
        ]

    async def run_in_order(self, client: ConnectionPool[Any]) -> None:
        """Start two hundred operations of every kind before the first is answered, and look at what each one saw."""
        things = client.txmongo_compat.things
        waiting: list[Any] = [things.insert_one({"_id": 0, "n": 0})]
        expected: list[Any] = []
        started: list[Any] = []
        number = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(ROUNDS):
                writes = self.writes(things, number)
                waiting += [write() for write in writes]
                number += len(writes)
                for ask, said in self.others(things, number):
                    started.append(ask())
                    expected.append(said)
        await defer.gatherResults(waiting)
        self.assertEqual(await defer.gatherResults(started), expected)
        self.assertEqual(await things.find_one(), {"_id": 0, "n": number})

    async def test_pool_size_1(self) -> None:
        """With pool_size=1 everything is done in the order of the calls."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, pool_size=1)
        self.addCleanup(client.disconnect)
        await self.run_in_order(client)

    async def test_mongo_connection(self) -> None:
        """On a MongoConnection too, from before its first connection on."""
        client: Any = MongoConnection(*self.server.address)
        self.addCleanup(client.disconnect)
        await self.run_in_order(client)

    async def test_written_inside_the_call(self) -> None:
        """On a connection that is ready a command is sent inside the call: a cancel does not take it back."""
        client = self.fixed_client()
        await client
        inserting = client.txmongo_compat.things.insert_one({"_id": 1})
        inserting.cancel()
        await self.failure(inserting, defer.CancelledError)
        self.assertEqual(await client.txmongo_compat.things.find(), [{"_id": 1}])

    async def test_cancelled_before_the_first_connection(self) -> None:
        """Before the first connection a cancel sends nothing."""
        client = self.fixed_client()
        inserting = client.txmongo_compat.things.insert_one({"_id": 1})
        inserting.cancel()
        await self.failure(inserting, defer.CancelledError)
        self.assertEqual(await client.txmongo_compat.things.find(), [])
        self.assertEqual(self.sent("insert"), [])


@on_every_server
class CursorTests(CompatTestCase):
    """Cursors."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": number} for number in range(10)])
        self.commands.sent.clear()

    async def test_five_ask_for_the_next_batch(self) -> None:
        """Five next_batch() at once share a batch, the first one as any later one."""
        cursor = self.things.find({}, batch_size=4, sort=[("_id", 1)])
        for expected in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9]):
            batches = await defer.gatherResults([cursor.next_batch() for _ in range(5)])
            self.assertEqual([[each["_id"] for each in batch] for batch in batches], [expected] * 5)
        self.assertEqual(self.commands.names(), ["find", "getMore", "getMore"])

    async def test_close_ends_the_session(self) -> None:
        """close(), which nobody waits for, ends the cursor's own session: it is used again; there is no third one."""
        client = self.fixed_client()
        things = client.txmongo_compat.things
        cursor = things.find({}, batch_size=2)
        await cursor.next_batch()
        cursor.close()
        await things.find_one()  # answered after killCursors
        await defer.gatherResults([things.find_one(), things.find_one()])
        self.assertEqual(self.commands.names(), ["find", "killCursors", "find", "find", "find"])
        of_cursor, killing, other, *again = [command["lsid"]["id"] for command in self.commands.sent]
        self.assertEqual(killing, of_cursor)
        self.assertEqual({*again}, {of_cursor, other})


@on_every_server
class SessionTests(CompatTestCase):
    """Sessions that nobody has asked for."""

    async def test_sequential_operations_share_one(self) -> None:
        """What is done one after another is done in one server session; sessions are taken last in, first out."""
        for _ in range(5):
            await self.things.insert_one({})
        one = self.sent("insert")[0]["lsid"]
        self.assertEqual([each["lsid"] for each in self.sent("insert")], [one] * 5)
        first, second = self.client.start_session(), self.client.start_session()
        await self.things.find_one(session=first)
        await self.things.find_one(session=second)
        self.assertEqual(first.session_id, one)
        last = second.session_id
        await first.end_session()
        await second.end_session()
        await self.things.count()
        self.assertEqual(self.sent("count")[0]["lsid"], last)

    async def test_unacknowledged(self) -> None:
        """A write that is not acknowledged cannot be done in a session that was asked for: a ValueError at the call."""
        things = self.things.with_options(write_concern=WriteConcern(0))
        session = self.client.start_session()
        for write in (
            lambda: things.insert_one({}, session=session),
            lambda: things.insert_many([{}], session=session),
            lambda: things.update_one({}, {"$set": {"x": 1}}, session=session),
            lambda: things.replace_one({}, {}, session=session),
            lambda: things.delete_many({}, session=session),
            lambda: things.bulk_write([InsertOne({})], session=session),
        ):
            self.assertRaises(ValueError, write)
        await session.end_session()
        self.assertEqual(self.commands.sent, [])


@on_every_server
class ErrorTests(CompatTestCase):
    """How things fail."""

    on_replica_set = True

    async def test_not_primary(self) -> None:
        """What a member says that is no primary (any more) is a NotPrimaryError, which is an AutoReconnect."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, retryWrites=False)
        self.addCleanup(client.disconnect)
        data = {"failCommands": ["insert"], "errorCode": 10107}
        await client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
        error = await self.failure(client.txmongo_compat.things.insert_one({}), NotPrimaryError)
        self.assertIsInstance(error, AutoReconnect)
        self.assertTrue(issubclass(ServerSelectionTimeoutError, AutoReconnect))

    async def test_raised_at_the_call(self) -> None:
        """What is wrong with the arguments is raised at the call, and nothing is sent."""
        things = self.things
        wrong: list[tuple[Any, ...]] = [
            (things.insert_one, 5),
            (things.insert_many, []),
            (things.update_one, {}, {"x": 1}),
            (things.replace_one, {}, {"$set": {}}),
            (things.delete_one, 5),
            (things.find, 5),
            (things.find_one_and_update, {}, {"x": 1}),
            (things.aggregate, 5),
            (things.bulk_write, [5]),
            (things.create_index, 5),
            (things.rename, ""),
            (self.database.command, 5),
            (self.database.create_collection, ""),
            (self.client.start_session, 5, 5),
        ]
        for method, *arguments in wrong:
            with self.assertRaises((TypeError, ValueError, OperationFailure.__mro__[1])):
                method(*arguments)
        self.assertEqual(self.commands.sent, [])

    async def test_nothing_is_logged_as_a_failure(self) -> None:
        """What an application is told by its Deferreds is not logged: errors, servers that are not there, cancels."""
        events: list[Any] = []

        def observe(event: Any) -> None:
            if event.get("log_level", LogLevel.info) >= LogLevel.warn or event.get("isError"):
                events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        await self.failure(self.database.command("nonsense"), OperationFailure)
        nobody: ConnectionPool[Any] = ConnectionPool(
            f"mongodb://127.0.0.1:{free_port('127.0.0.1')}", serverSelectionTimeoutMS=300
        )
        self.addCleanup(nobody.disconnect)
        await self.failure(nobody.test.things.find_one(), AutoReconnect)
        cancelled = nobody.test.things.find_one()
        cancelled.cancel()
        await self.failure(cancelled, defer.CancelledError)
        protocol = await self.client.getprotocol()
        protocol.fail(Exception("for this test"))
        await self.things.find_one()
        await nobody.disconnect()
        self.assertEqual(events, [])


@on_every_server
class FailoverTests(TestCase):
    """Servers that go away."""

    timeout = 180
    server_version: str | None = None

    async def test_frozen(self) -> None:
        """A primary that is frozen fails what is asked of it with AutoReconnect, in time, under way or not."""
        members = await ReplicaSet(reactor, 1, binary=binary_of(self.server_version)).start()
        self.addCleanup(members.stop)
        client: ConnectionPool[Any] = ConnectionPool(
            members.uri, serverSelectionTimeoutMS=2000, heartbeatFrequencyMS=500, connectTimeoutMS=1000
        )
        self.addCleanup(client.disconnect)
        things = client.test.things
        await things.insert_one({"_id": 0})
        await freeze(members, members.members[0])
        began = reactor.seconds()
        with_retries = [things.insert_one({}), things.update_one({}, {"$set": {"x": 1}}), things.find_one()]
        without = [client.test.command("ping"), things.update_many({}, {"$set": {"x": 1}})]
        outcomes = await defer.DeferredList([*with_retries, *without], consumeErrors=True)
        took = reactor.seconds() - began
        self.assertEqual([success for success, _ in outcomes], [False] * 5)
        self.assertEqual([failure.value for _, failure in outcomes if not failure.check(AutoReconnect)], [])
        later = await self.assertFailure(things.find_one(), AutoReconnect)
        self.assertIsInstance(later, ServerSelectionTimeoutError)
        # The heartbeat that is under way, one more that is tried at once, and then the time for finding a server.
        self.assertLess(took, 20)
        members.thaw(members.members[0])

    async def test_set_that_begins(self) -> None:
        """A set initiated through a URI that names one who becomes a secondary: the same client goes on to the primary,
        and to the next one after that."""
        binary = binary_of(self.server_version)
        servers = [Mongod(reactor, replica_set="rs0", binary=binary) for _ in range(3)]
        for each in servers:
            await each.start()
            self.addCleanup(each.stop)
        named = servers[0]
        host, port = named.address
        client: ConnectionPool[Any] = ConnectionPool(
            f"mongodb://{host}:{port}/?readPreference=secondaryPreferred&serverSelectionTimeoutMS=60000"
        )
        self.addCleanup(client.disconnect)
        hello = await client.admin.command("ismaster")
        self.assertTrue(hello["isreplicaset"])
        # In the end the last one is primary; without it the others are equals, so that one election is enough.
        members = [
            {"_id": number, "host": "{}:{}".format(*each.address), "priority": priority}
            for number, (each, priority) in enumerate(zip(servers, (1, 1, 2), strict=True))
        ]
        timeouts = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 200}
        config = {"_id": "rs0", "members": members, "settings": timeouts}
        self.assertEqual((await client.admin.command("replSetInitiate", config))["ok"], 1)
        self.assertEqual((await client.admin.command("replSetGetStatus"))["set"], "rs0")
        # A secondary may be behind the majority that a write waits for.
        things = client.test.get_collection("things", None, ReadPreference.PRIMARY, WriteConcern("majority"))
        await things.insert_one({"_id": 1})
        # Whoever is elected first, in the end it is the one with the highest priority.
        while await client.primary != servers[2].address:
            await task.deferLater(reactor, 0.05)
        await things.insert_one({"_id": 2})
        self.assertEqual(await things.find(sort=[("_id", 1)]), [{"_id": 1}, {"_id": 2}])
        await servers[2].kill()
        await things.insert_one({"_id": 3})
        self.assertIn(await client.primary, [named.address, servers[1].address])
        self.assertEqual(await things.count_documents({}), 3)


@on_every_server
class DeprecationTests(CompatTestCase):
    """What has a successor says so."""

    def calls(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any], str]]:
        """Everything deprecated: method, arguments, and what is to be used instead."""
        things = self.things
        order = qf.sort(qf.ASCENDING("x"))
        change = {"$set": {"x": 1}}
        return [
            (things.insert, ({},), {}, "insert_one or insert_many"),
            (things.update, ({}, change), {}, "update_one, update_many or replace_one"),
            (things.save, ({},), {}, "replace_one with upsert=True, or insert_one"),
            (things.remove, ({},), {}, "delete_one or delete_many"),
            (
                things.find_and_modify,
                ({}, change),
                {},
                "find_one_and_update, find_one_and_replace or find_one_and_delete",
            ),
            (things.group, (["x"], {}, "function() {}"), {}, "aggregate with $group"),
            (things.count, (), {"spec": {}}, "filter"),
            (things.count, ({}, ["x"]), {}, "nothing in its place"),
            (things.distinct, ("x",), {"spec": {}}, "filter"),
            (things.find, (), {"spec": {}}, "filter"),
            (things.find, ({},), {"fields": ["x"]}, "projection"),
            (things.find, ({}, 1), {}, "(filter, projection, skip, limit, sort)"),
            (things.find, ({},), {"filter": order}, "sort"),
            (things.find, (), {"cursor": True}, "find_with_cursor"),
            (things.find, (), {"as_class": dict}, "with_options(codec_options=CodecOptions(document_class=...))"),
            (things.find_one, (), {"spec": {}}, "filter"),
            (things.find_one, ({},), {"fields": ["x"]}, "projection"),
            (things.find_with_cursor, (), {"spec": {}}, "filter"),
            (things.find_with_cursor, ({}, 0, 1), {}, "(filter, projection, skip, limit, sort)"),
            (things.create_index, (order,), {"drop_dups": True}, "nothing in its place"),
        ]

    async def test_text(self) -> None:
        """It says what is deprecated, since when, and what to use instead; it warns once, of the line that calls it."""
        for method, arguments, keywords, instead in self.calls():
            await self.deprecated(method, *arguments, **keywords)
            self.assertRegex(self.said, r"^(the argument )?\w+.* is deprecated since txmongo \d+\.\d+\.\d+: use ")
            self.assertIn(f"use {instead}", self.said)
            self.assertIn(f"Collection.{method.__name__}", self.said)

    async def test_once_for_each_line(self) -> None:
        """By Python's default filter each line that uses such a name is told once, however often it runs."""
        waiting: list[Any] = []
        # Where Python notes which lines were told; trial takes it away, so that tests hear of everything.
        self.patch(sys.modules[__name__], "__warningregistry__", {})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                waiting.append(self.things.insert({}))
                waiting.append(self.things.insert({}))
        told = [each.lineno for each in caught if each.category is DeprecationWarning]
        self.assertEqual((len(told), len({*told})), (2, 2))
        await defer.gatherResults(waiting)
