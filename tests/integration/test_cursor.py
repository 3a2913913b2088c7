"""Cursors on a real server: what arrives, and what the server is left with."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Generator
from typing import Any

from bson import decode_all
from pymongo import CursorType
from twisted.internet import defer, reactor, task

from tests.integration.servers import CollectionTestCase
from txmongo.cursor import Cursor
from txmongo.errors import CursorNotFound, ExecutionTimeout, InvalidOperation, OperationFailure

_RETRIES = 500


class CursorCase(CollectionTestCase):
    """A collection of a thousand documents."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": number, "x": number % 10} for number in range(1000)])
        self.commands.sent.clear()

    async def open_cursors(self) -> int:
        """How many cursors the server has open."""
        status = await self.client.admin.command("serverStatus")
        return int(status["metrics"]["cursor"]["open"]["total"])

    async def none_left(self, before: int) -> None:
        """Wait until the server has no more cursors than ``before``."""
        for _ in range(_RETRIES):
            if await self.open_cursors() <= before:
                return
            await task.deferLater(reactor, 0.02)
        self.fail(f"{await self.open_cursors()} cursors are open, {before} were")


class ListTests(CursorCase):
    """All of it, by whatever batches."""

    async def test_batches(self) -> None:
        """The list is complete and in order, whatever the size of the batches."""
        expected = list(range(1000))
        options: Any
        for options in ({}, {"batch_size": 7}, {"batch_size": 1000}, {"batch_size": 1, "limit": 5}):
            found = await self.things.find(sort=[("_id", 1)], **options)
            self.assertEqual([each["_id"] for each in found], expected[: options.get("limit")])

    async def test_prefetch(self) -> None:
        """Fetched ahead they are as complete and in order, and a cursor that is closed early is gone."""
        before = await self.open_cursors()
        found = [each["_id"] async for each in self.things.find(sort=[("_id", 1)]).batch_size(7).prefetch()]
        self.assertEqual(found, list(range(1000)))
        cursor = self.things.aggregate([{"$sort": {"_id": 1}}], batchSize=300).prefetch()
        batches = [await cursor.next_batch(), await cursor.next_batch()]
        self.assertEqual([each["_id"] for batch in batches for each in batch], list(range(600)))
        await cursor.close()
        await self.none_left(before)

    async def test_one_command(self) -> None:
        """A list that fits into one batch takes one command, and leaves no cursor."""
        before = await self.open_cursors()
        self.commands.sent.clear()
        self.assertEqual(len(await self.things.find(limit=100)), 100)
        self.assertEqual(len(await self.things.find(limit=500)), 500)
        self.assertEqual(len(await self.things.find()), 1000)
        self.assertEqual(self.commands.names(), ["find"] * 3)
        await self.none_left(before)

    async def test_limits(self) -> None:
        """A limit holds over batches and on one batch, and leaves no cursor."""
        before = await self.open_cursors()
        for limit, batch_size in ((5, 0), (5, 2), (5, 5), (150, 0), (-150, 0), (-5, 2), (1000, 0), (5000, 300)):
            found = await self.things.find(limit=limit, batch_size=batch_size)
            self.assertEqual(len(found), min(abs(limit), 1000), (limit, batch_size))
        await self.none_left(before)

    async def test_iteration(self) -> None:
        """Iteration gives every document once."""
        found = [each["_id"] async for each in self.things.find(batch_size=13).sort("_id")]
        self.assertEqual(found, list(range(1000)))
        sizes = [len(batch) async for batch in self.things.find(batch_size=300).batches()]
        self.assertEqual(sizes, [300, 300, 300, 100])

    async def test_next(self) -> None:
        """Documents one by one, then StopAsyncIteration."""
        cursor = self.things.find(limit=2).sort("_id", -1)
        self.assertEqual([(await cursor.next())["_id"], (await anext(cursor))["_id"]], [999, 998])
        await self.failure(cursor.next(), StopAsyncIteration)
        self.assertFalse(cursor.alive)

    async def test_to_list(self) -> None:
        """to_list takes a part, or the rest."""
        cursor = self.things.find(batch_size=10).sort("_id")
        self.assertEqual([each["_id"] for each in await cursor.to_list(25)], list(range(25)))
        self.assertEqual(len(await cursor.to_list()), 975)

    async def test_old_way(self) -> None:
        """The loop of TxMongo's documentation."""
        cursor = self.things.find(batch_size=400)
        found = 0
        while not cursor.exhausted:
            found += len(await cursor.next_batch())
        self.assertEqual(found, 1000)

    async def test_shared_batches(self) -> None:
        """Five calls of next_batch at once get one batch, by one command."""
        cursor = self.things.find(batch_size=10)
        for _ in range(2):
            batches = await defer.gatherResults([cursor.next_batch() for _ in range(5)])
            self.assertEqual(batches, [batches[0]] * 5)
        self.assertEqual(self.commands.names(), ["find", "getMore"])
        await cursor.close()

    async def test_concurrent(self) -> None:
        """Many cursors at once do not disturb one another."""
        lists = await defer.gatherResults(
            [self.things.find({"x": number}, batch_size=30).sort("_id") for number in range(10)]
        )
        for number, found in enumerate(lists):
            self.assertEqual([each["_id"] for each in found], list(range(number, 1000, 10)))

    async def test_large_batches(self) -> None:
        """Batches of several megabytes come whole and in order."""
        documents = [
            {"_id": number, "text": str(number) * 200, "numbers": [number, {"x": number}]} for number in range(9000)
        ]
        large = self.things.database.large
        await large.insert_many(documents)
        self.addCleanup(large.drop)
        self.commands.sent.clear()
        self.assertEqual(await large.find(sort=[("_id", 1)]), documents)
        self.assertEqual(self.commands.names(), ["find"])
        self.assertEqual([each async for each in large.find(sort=[("_id", 1)])], documents)
        self.assertEqual(self.commands.names(), ["find", "find", "getMore"])

    async def test_raw(self) -> None:
        """Raw batches hold the documents in BSON."""
        found = await self.things.find_raw_batches(batch_size=400).sort("_id")
        self.assertEqual([len(decode_all(batch)) for batch in found], [400, 400, 200])
        self.assertEqual(decode_all(found[0])[0], {"_id": 0, "x": 0})
        found = await self.things.aggregate_raw_batches([{"$match": {"_id": 5}}])
        self.assertEqual(decode_all(found[0]), [{"_id": 5, "x": 5}])

    async def test_empty(self) -> None:
        """Nothing found is an empty list."""
        self.assertEqual(await self.things.find({"x": "nothing"}), [])
        self.assertEqual(await self.client.txmongo_tests.missing.find(), [])


class OptionTests(CursorCase):
    """Options have their effect at the server."""

    async def test_sort_skip_projection(self) -> None:
        """Order, skip and projection."""
        found = await self.things.find({"x": 3}, {"_id": 1}).sort([("_id", -1)]).skip(1).limit(2)
        self.assertEqual(found, [{"_id": 983}, {"_id": 973}])

    async def test_where(self) -> None:
        """A condition in JavaScript."""
        self.assertEqual(len(await self.things.find({"x": 1}).where("this._id < 20")), 2)

    async def test_bounds(self) -> None:
        """Bounds of an index that is hinted at."""
        found = await self.things.find(hint=[("_id", 1)], min=[("_id", 5)], max=[("_id", 8)])
        self.assertEqual([each["_id"] for each in found], [5, 6, 7])

    async def test_collation(self) -> None:
        """A collation that takes upper and lower case for the same."""
        await self.things.insert_one({"_id": "word", "name": "Straße"})
        found = await self.things.find({"name": "STRASSE"}).collation({"locale": "de", "strength": 1})
        self.assertEqual([each["_id"] for each in found], ["word"])

    async def test_record_id(self) -> None:
        """The record's id, and keys instead of documents."""
        [found] = await self.things.find({"_id": 5}, show_record_id=True)
        self.assertIn("$recordId", found)
        self.assertEqual(await self.things.find({"_id": 5}, return_key=True), [{"_id": 5}])

    async def test_max_time(self) -> None:
        """A query that takes too long is ended by the server."""
        slow = self.things.find({"$where": "sleep(50) || true"}).max_time_ms(20)
        error = await self.failure(slow, ExecutionTimeout)
        self.assertTrue(error.timeout)

    async def test_bad_query(self) -> None:
        """A query that the server does not understand is its error, however the cursor is used."""
        bad = {"x": {"$nonsense": 1}}
        await self.failure(self.things.find(bad), OperationFailure)
        await self.failure(self.things.find(bad).next(), OperationFailure)
        await self.failure(self.things.find(bad).to_list(), OperationFailure)

    async def test_explain(self) -> None:
        """The plan names the index that is used."""
        await self.things.create_index("x")
        plan = await self.things.find({"x": 3}).limit(2).explain()
        self.assertIn("'indexName': 'x_1'", str(plan["queryPlanner"]["winningPlan"]))

    async def test_distinct(self) -> None:
        """Distinct values of what would be found."""
        self.assertEqual(await self.things.find({"x": {"$lt": 3}}).distinct("x"), [0, 1, 2])

    async def test_settled(self) -> None:
        """Once started, a cursor takes no options; a clone does."""
        cursor = self.things.find({"x": 1})
        self.assertEqual(len(await cursor), 100)
        self.assertRaises(InvalidOperation, cursor.sort, "_id")
        self.assertEqual(len(await cursor.clone().limit(3)), 3)

    async def test_copied(self) -> None:
        """A copy is a clone; a deep one keeps nothing of the query that the application may change."""
        query: dict[str, Any] = {"x": {"$in": [1]}}
        cursor = self.things.find(query, ["_id"], comment={"about": [1]}).sort("_id", -1).limit(2)
        shallow, deep = copy.copy(cursor), copy.deepcopy(cursor)
        self.assertEqual(await cursor, [{"_id": 991}, {"_id": 981}])
        query["x"]["$in"][0] = 2
        self.assertEqual(await shallow, [{"_id": 992}, {"_id": 982}])
        self.assertEqual(await deep, [{"_id": 991}, {"_id": 981}])
        self.assertEqual([command["comment"] for command in self.commands.sent], [{"about": [1]}] * 3)

    async def test_not_waited_for(self) -> None:
        """A ``for`` over a cursor, of which no documents are there, ends with a word of what was meant."""
        seen = []
        cursor = self.things.find()
        with self.assertRaisesRegex(TypeError, "use async for"):
            for document in cursor:
                seen.append(document)
        self.assertEqual(seen, [cursor])
        self.assertEqual(len(await cursor), 1000)

    async def test_iterated_after_the_list(self) -> None:
        """A cursor that was awaited has nothing to iterate over, and says so: PyMongo's methods are awaited first."""
        cursor = self.things.find({"x": 1})
        await cursor.next()
        self.assertEqual(len(await cursor.rewind()), 100)
        with self.assertRaisesRegex(InvalidOperation, "clone"):
            async for _ in cursor:
                self.fail("a document came twice")
        self.assertEqual(len([document async for document in cursor.clone()]), 100)
        listed = self.things.aggregate([{"$limit": 1}])
        await listed
        with self.assertRaises(InvalidOperation):
            async for _ in listed:
                self.fail("a document came twice")

    @defer.inlineCallbacks
    def test_yield_from(self) -> Generator[defer.Deferred[Any], Any, None]:
        """``yield from`` waits for the list, and takes the one that is there."""
        cursor = self.things.find({"x": 1})
        documents = yield from cursor
        self.assertEqual(len(documents), 100)
        cursor = self.things.find({"x": 1})
        again: list[Any] = []
        cursor.addCallback(lambda found: again.append(len(found)) or found)
        yield self.things.find_one()
        yield defer.DeferredList([cursor])
        self.assertEqual(again, [100])
        empty = self.things.find(limit=1)
        yield empty.to_list()
        self.assertEqual((yield from empty), [])

    async def test_rewind(self) -> None:
        """Rewound it begins again."""
        cursor = self.things.find(batch_size=2).sort("_id")
        self.assertEqual((await cursor.next())["_id"], 0)
        self.assertEqual((await cursor.rewind().next())["_id"], 0)
        await cursor.close()

    async def test_comment(self) -> None:
        """A comment goes with each request."""
        await self.things.find(batch_size=600, comment={"who": "me"})
        self.assertEqual([command["comment"] for command in self.commands.sent], [{"who": "me"}] * 2)


class LeftoverTests(CursorCase):
    """What the server is left with."""

    async def opened(self) -> Cursor[Any]:
        """A cursor with more to come."""
        cursor = self.things.find(batch_size=2)
        await cursor.next_batch()
        return cursor

    async def test_close(self) -> None:
        """A closed cursor is gone at the server when close fires."""
        before = await self.open_cursors()
        cursor = await self.opened()
        self.assertEqual(await self.open_cursors(), before + 1)
        await cursor.close()
        self.assertEqual(await self.open_cursors(), before)
        self.assertEqual(await cursor.next_batch(), [])

    async def test_dropped(self) -> None:
        """A dropped cursor is gone soon."""
        before = await self.open_cursors()
        await self.opened()
        await self.none_left(before)

    async def test_broken_off(self) -> None:
        """An iteration that is broken off leaves no cursor."""
        before = await self.open_cursors()

        async def use() -> None:
            async for _ in self.things.find(batch_size=2):
                break

        await use()
        await self.none_left(before)

    async def test_block(self) -> None:
        """A block leaves no cursor."""
        before = await self.open_cursors()
        async with self.things.find(batch_size=2) as cursor:
            await cursor.next()
        self.assertEqual(await self.open_cursors(), before)

    async def test_cancelled(self) -> None:
        """A list that is cancelled between its batches leaves no cursor."""
        before = await self.open_cursors()
        for delay in (0, 0.001, 0.003, 0.01):
            cursor = self.things.find(batch_size=2)
            cursor.addErrback(lambda failure: failure.trap(defer.CancelledError))
            await task.deferLater(reactor, delay)
            cursor.cancel()
            await cursor
        await self.none_left(before)
        self.assertEqual(len(await self.things.find()), 1000)

    async def test_cancelled_in_flight(self) -> None:
        """A find that is cancelled while the server works on it leaves no cursor either."""
        before = await self.open_cursors()
        cursor = self.things.find({"$where": "sleep(1) || true"}, batch_size=50)
        cursor.addErrback(lambda failure: failure.trap(defer.CancelledError))
        await task.deferLater(reactor, 0.01)
        cursor.cancel()
        await cursor
        await self.none_left(before)
        self.assertEqual(await self.client.admin.command("ping"), {"ok": 1.0})

    async def test_killed_by_another(self) -> None:
        """A cursor that the server has forgotten is an error of its own."""
        cursor = await self.opened()
        await self.client.txmongo_tests.command("killCursors", "things", cursors=[cursor.cursor_id])
        await self.failure(cursor.next_batch(), CursorNotFound)
        self.assertFalse(cursor.alive)

    async def test_collected(self) -> None:
        """Used cursors leave no objects behind."""
        listed: Any = self.things.find(batch_size=100)
        await listed
        opened: Any = await self.opened()
        cursors = [weakref.ref(listed), weakref.ref(opened)]
        del listed, opened
        await task.deferLater(reactor, 0)  # until here the stack of the last batch is below us
        gc.collect()
        self.assertEqual([cursor() for cursor in cursors], [None, None])


class TailableTests(CursorCase):
    """Capped collections."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.drop()
        self.capped = await self.client.txmongo_tests.create_collection("things", capped=True, size=100_000, max=5)
        await self.capped.insert_many([{"_id": number} for number in range(3)])

    async def test_tail(self) -> None:
        """A tailable cursor gives what is there, lives on, and gives what comes later."""
        cursor = self.capped.find(cursor_type=CursorType.TAILABLE)
        self.assertEqual([each["_id"] async for each in cursor], [0, 1, 2])
        self.assertTrue(cursor.alive)
        await self.capped.insert_one({"_id": 3})
        self.assertEqual([each["_id"] async for each in cursor], [3])
        await cursor.close()

    async def test_await(self) -> None:
        """An awaiting cursor waits at the server, while the client goes on with other things."""
        cursor = self.capped.find(cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(5000)
        self.assertEqual(len(await cursor.next_batch()), 3)
        waiting = cursor.next_batch()
        started = reactor.seconds()
        await task.deferLater(reactor, 0.05)
        await self.client.admin.command("ping")
        await self.capped.insert_one({"_id": 3})
        self.assertEqual(await waiting, [{"_id": 3}])
        self.assertLess(reactor.seconds() - started, 4)
        await cursor.close()

    async def test_await_ends(self) -> None:
        """After the time to wait an empty batch comes."""
        cursor = self.capped.find(cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(50)
        self.assertEqual(len(await cursor.next_batch()), 3)
        self.assertEqual(await cursor.next_batch(), [])
        self.assertTrue(cursor.alive)
        await cursor.close()

    async def test_overwritten(self) -> None:
        """A cursor whose position was overwritten ends."""
        cursor = self.capped.find(cursor_type=CursorType.TAILABLE, batch_size=1)
        await cursor.next_batch()
        await self.capped.insert_many([{"_id": number} for number in range(10, 30)])
        while cursor.alive:
            await cursor.next_batch()
        self.assertTrue(cursor.exhausted)

    async def test_list(self) -> None:
        """As a Deferred it fires with what is there."""
        self.assertEqual(len(await self.capped.find(cursor_type=CursorType.TAILABLE)), 3)
        self.assertEqual(len(await self.capped.find(cursor_type=CursorType.EXHAUST)), 3)
