"""find, find_one and find_with_cursor as TxMongo 15.2 and 26.0 have them, and the filters of txmongo.filter."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from bson.son import SON
from pymongo.read_preferences import ReadPreference
from twisted.internet import defer, reactor, task

from tests.compat.servers import CompatTestCase, on_every_server
from txmongo import filter as qf
from txmongo import protocol as wire
from txmongo.collection import Cursor
from txmongo.errors import InvalidOperation, OperationFailure


class FindCase(CompatTestCase):
    """Ten documents."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": n, "x": n % 3, "y": -n} for n in range(10)])
        self.commands.sent.clear()

    async def ids(self, cursor: Any) -> list[Any]:
        """The _ids of what is found."""
        return [document["_id"] for document in await cursor]


@on_every_server
class Find15Tests(FindCase):
    """find(spec=None, skip=0, limit=0, fields=None, filter=None, cursor=False, **kwargs)."""

    async def test_nothing(self) -> None:
        """Without arguments all documents are found, and nothing is deprecated."""
        self.assertEqual(len(await self.things.find()), 10)
        self.assertEqual(len(await self.things.find({"x": 0})), 4)
        self.assertEqual(len(await self.things.find(None)), 10)

    async def test_positions(self) -> None:
        """Positional arguments are in the order of 15.2 if the second is an int."""
        order = qf.sort(qf.DESCENDING("_id"))
        found = await self.deprecated(self.things.find, {"x": 0}, 1, 2, ["y"], order)
        self.assertEqual(found, [{"_id": 6, "y": -6}, {"_id": 3, "y": -3}])
        self.assertEqual(await self.ids(self.deprecated(self.things.find, {"x": 0}, 3)), [9])
        self.assertIn("Collection.find with the order (spec, skip, limit, fields, filter) is deprecated", self.said)
        self.assertIn("use (filter, projection, skip, limit, sort)", self.said)
        self.assertEqual(len(await self.deprecated(self.things.find, {}, 0, 4)), 4)
        self.assertEqual(len(await self.deprecated(self.things.find, {}, 0, 0, None, None, False)), 10)

    async def test_names(self) -> None:
        """spec and fields are names of the query and of the projection."""
        found = await self.deprecated(self.things.find, spec={"_id": 3}, fields={"x": 1, "_id": 0})
        self.assertEqual(found, [{"x": 0}])
        self.assertIn("Collection.find with spec, fields is deprecated", self.said)
        self.assertIn("use filter, projection", self.said)
        found = await self.deprecated(self.things.find, spec={"_id": 3}, skip=0, limit=1, fields=["y"])
        self.assertEqual(found, [{"_id": 3, "y": -3}])
        self.assertEqual(await self.deprecated(self.things.find, {"_id": 3}, fields=[]), [{"_id": 3}])
        self.assertEqual(await self.deprecated(self.things.find, {"_id": 3}, fields=("y",)), [{"_id": 3, "y": -3}])

    async def test_filter(self) -> None:
        """filter says how to query beside a query, and without one if it is a filter of txmongo.filter."""
        order = qf.sort(qf.DESCENDING("_id"))
        self.assertEqual(await self.ids(self.deprecated(self.things.find, {"x": 0}, filter=order)), [9, 6, 3, 0])
        self.assertEqual(await self.ids(self.deprecated(self.things.find, spec={"x": 0}, filter=order)), [9, 6, 3, 0])
        self.assertEqual((await self.ids(self.deprecated(self.things.find, filter=order)))[0], 9)
        plain = {"orderby": SON([("_id", -1)])}
        self.assertEqual((await self.ids(self.deprecated(self.things.find, {}, filter=plain)))[0], 9)

    async def test_filter_is_query(self) -> None:
        """filter alone is the query, as in 26.0."""
        self.assertEqual(await self.ids(self.things.find(filter={"x": 0}, sort=[("_id", 1)])), [0, 3, 6, 9])

    async def test_skip_limit(self) -> None:
        """skip and limit hold; a negative limit is one batch."""
        self.assertEqual(await self.ids(self.things.find({}, skip=8)), [8, 9])
        self.assertEqual(await self.ids(self.things.find({}, skip=2, limit=3)), [2, 3, 4])
        self.assertEqual(await self.ids(self.things.find({}, limit=-3)), [0, 1, 2])

    async def test_types(self) -> None:
        """Wrong types are TypeErrors at the call, whatever the order."""
        for args, keywords in (
            (("x",), {}),
            ((5,), {}),
            (({}, "y"), {}),
            (({}, None, "1"), {}),
            (({}, None, 0, "1"), {}),
            (({},), {"skip": "1"}),
            (({},), {"limit": None}),
            (({},), {"sort": "x"}),
            (({},), {"nonsense": 1}),
        ):
            self.assertRaises(TypeError, self.things.find, *args, **keywords)
        for args, keywords in (
            (({}, 0, {"x": 1}), {}),
            (({}, 0, 0, 5), {}),
            (({}, 0, 0, None, "x"), {}),
            (({},), {"fields": 5}),
            (({},), {"filter": "x_1"}),
            (({},), {"filter": {"x": 1}}),
            (({},), {"as_class": 5}),
        ):
            with self.assertRaises(TypeError):
                self.deprecated(self.things.find, *args, **keywords)
        self.assertEqual(self.commands.sent, [])

    async def test_cursor(self) -> None:
        """cursor=True gives page after page, as find_with_cursor."""
        documents, following = await self.deprecated(self.things.find, {}, limit=5, batch_size=3, cursor=True)
        self.assertEqual([document["_id"] for document in documents], [0, 1, 2])
        self.assertIn("find_with_cursor", self.said)
        documents, following = await following
        self.assertEqual([document["_id"] for document in documents], [3, 4])
        self.assertEqual(await following, ([], None))
        documents, _ = await self.deprecated(self.things.find, {"_id": 1}, 0, 0, None, None, True)
        self.assertEqual(len(documents), 1)

    async def test_as_class(self) -> None:
        """as_class is the class of the documents."""
        (found,) = await self.deprecated(self.things.find, {"_id": 1}, as_class=SON)
        self.assertIs(type(found), SON)
        found = await self.deprecated(self.things.find_one, {"_id": 1}, as_class=SON)
        self.assertIs(type(found), SON)

    async def test_flags(self) -> None:
        """Flags of the query message become the options of today's command."""
        await self.things.find({}, flags=wire.QUERY_NO_CURSOR_TIMEOUT | wire.QUERY_PARTIAL)
        (command,) = self.sent("find")
        self.assertTrue(command["noCursorTimeout"])
        self.assertTrue(command["allowPartialResults"])
        self.assertEqual(len(await self.things.find({}, flags=wire.QUERY_EXHAUST, batch_size=3)), 10)
        self.assertIn("getMore", self.commands.names())
        # Servers since 4.4 know oplogReplay by themselves, and refuse tailable cursors of what is not capped.
        self.assertEqual(len(await self.things.find({}, flags=wire.QUERY_OPLOG_REPLAY)), 10)
        flags = wire.QUERY_TAILABLE_CURSOR | wire.QUERY_AWAIT_DATA
        await self.failure(self.things.find({}, flags=flags), OperationFailure)
        command = self.sent("find")[-1]
        self.assertTrue(command["tailable"])
        self.assertTrue(command["awaitData"])

    async def test_tailable(self) -> None:
        """A tailable cursor, and one that waits for data."""
        await self.things.drop()
        await self.database.create_collection("things", capped=True, size=4096)
        await self.things.insert_one({"_id": 1})
        for flags in (2, 2 | 32):
            cursor = self.things.find({}, flags=flags)
            self.assertEqual(await cursor.next_batch(), [{"_id": 1}])
            self.assertTrue(cursor.alive)
            await cursor.close()

    async def test_dates(self) -> None:
        """A query takes what BSON takes, and documents come back as they were stored."""
        key = ObjectId()
        await self.things.insert_one({"_id": key, "n": None, "l": [1, {"a": b"b"}]})
        self.assertEqual(await self.things.find({"_id": key}), [{"_id": key, "n": None, "l": [1, {"a": b"b"}]}])


@on_every_server
class Find26Tests(FindCase):
    """find(filter=None, projection=None, skip=0, limit=0, sort=None, *, ...) and the Cursor that it returns."""

    async def test_positions(self) -> None:
        """Positional arguments are in the order of 26.0 if the second is a projection or None."""
        found = await self.things.find({"x": 0}, ["y"], 1, 2, qf.sort(qf.DESCENDING("_id")))
        self.assertEqual(found, [{"_id": 6, "y": -6}, {"_id": 3, "y": -3}])
        self.assertEqual(await self.ids(self.things.find({"x": 0}, None, 0, 0, [("_id", -1)])), [9, 6, 3, 0])

    async def test_sorts(self) -> None:
        """sort is a filter, a mapping, pairs, or one pair."""
        for sort in (
            qf.sort(qf.DESCENDING("_id")),
            {"_id": -1},
            [("_id", -1)],
            (("_id", -1),),
            ("_id", -1),
            qf.DESCENDING("_id"),
        ):
            self.assertEqual(await self.ids(self.things.find({"x": 0}, sort=sort)), [9, 6, 3, 0])
            self.assertEqual(await self.ids(self.things.find({"x": 0}).sort(sort)), [9, 6, 3, 0])
            self.assertEqual((await self.things.find_one({"x": 0}, sort=sort))["_id"], 9)

    async def test_all_in_sort(self) -> None:
        """sort takes hints, comments and explain too."""
        await self.things.create_index("x")
        self.commands.sent.clear()
        said = qf.sort(qf.ASCENDING("y")) + qf.hint(qf.ASCENDING("x")) + qf.comment("why")
        self.assertEqual(await self.ids(self.things.find({"x": 0}, sort=said)), [9, 6, 3, 0])
        (command,) = self.sent("find")
        self.assertEqual((command["hint"], command["comment"]), ({"x": 1}, "why"))
        (plan,) = await self.things.find({"x": 0}, sort=said + qf.explain())
        self.assertIn("queryPlanner", plan)

    async def test_options(self) -> None:
        """batch_size, allow_partial_results, flags and session are keywords."""
        session = self.client.start_session()
        found = await self.things.find({}, batch_size=3, allow_partial_results=True, flags=4, session=session)
        self.assertEqual(len(found), 10)
        self.assertEqual([each.get("batchSize") for each in self.commands.sent], [3] * 4)
        await session.end_session()

    async def test_chain(self) -> None:
        """The cursor is refined by the methods named after the options."""
        await self.things.create_index([("x", 1)], name="by_x")
        self.commands.sent.clear()
        cursor = self.things.find({"x": 0}).projection(["y"]).sort({"_id": -1}).skip(1).limit(2).batch_size(5)
        found = await cursor.hint("by_x").comment("why").allow_partial_results()
        self.assertEqual(found, [{"_id": 6, "y": -6}, {"_id": 3, "y": -3}])
        (command,) = self.sent("find")
        for name, value in (("hint", "by_x"), ("comment", "why"), ("skip", 1), ("limit", 2), ("batchSize", 5)):
            self.assertEqual(command[name], value)

    async def test_hints(self) -> None:
        """A cursor's hint is a name, keys, or a filter."""
        await self.things.create_index([("x", 1)], name="by_x")
        for hint in ("by_x", {"x": 1}, [("x", 1)], ("x", 1), qf.hint("by_x"), qf.hint(qf.ASCENDING("x"))):
            self.assertEqual(await self.ids(self.things.find({"x": 0}).hint(hint).sort({"_id": 1})), [0, 3, 6, 9])

    async def test_explain(self) -> None:
        """explain() leads to the plan, which 26.0 has in a list; it can be refined further."""
        plan = await self.things.find({"x": 0}).explain()
        self.assertIn("queryPlanner", plan)
        self.assertIn("queryPlanner", plan[0])
        plan = await self.things.find({"x": 0}).explain().limit(1)
        self.assertIn("executionStats", plan[0])
        (batch,) = await self.things.find().explain().next_batch()
        self.assertIn("queryPlanner", batch)

    async def test_batches(self) -> None:
        """next_batch, batches, exhausted and cursor_id."""
        cursor = self.things.find({}, batch_size=4)
        self.assertIsNone(cursor.cursor_id)
        self.assertEqual(len(await cursor.next_batch()), 4)
        self.assertTrue(cursor.cursor_id)
        self.assertFalse(cursor.exhausted)
        self.assertEqual([len(batch) async for batch in cursor.batches()], [4, 2])
        self.assertTrue(cursor.exhausted)
        self.assertEqual(await cursor.next_batch(), [])

    async def test_shared_batch(self) -> None:
        """Five that ask for the next batch at once get the same one, for one request."""
        cursor = self.things.find({}, batch_size=4)
        batches = await defer.gatherResults([cursor.next_batch() for _ in range(5)])
        self.assertEqual([len(batch) for batch in batches], [4] * 5)
        self.assertEqual(self.commands.names(), ["find"])

    async def test_settled(self) -> None:
        """After the first batch every option raises InvalidOperation."""
        cursor = self.things.find({}, batch_size=2)
        await cursor.next_batch()
        for method, argument in (
            (cursor.projection, ["x"]),
            (cursor.sort, {"x": 1}),
            (cursor.hint, "x_1"),
            (cursor.comment, "c"),
            (cursor.skip, 1),
            (cursor.limit, 1),
            (cursor.batch_size, 1),
            (cursor.allow_partial_results, True),
        ):
            self.assertRaises(InvalidOperation, method, argument)
        await cursor.close()

    async def test_close(self) -> None:
        """close() kills the cursor at the server; nothing more comes."""
        cursor = self.things.find({}, batch_size=2)
        await cursor.next_batch()
        await cursor.close()
        self.assertEqual(self.commands.names(), ["find", "killCursors"])
        self.assertTrue(cursor.exhausted)

    async def test_what_it_is(self) -> None:
        """The cursor is a Deferred and an asynchronous iterator, of the class that the module of collections has."""
        cursor = self.things.find({"x": 0})
        self.assertIsInstance(cursor, Cursor)
        self.assertIsInstance(cursor, defer.Deferred)
        self.assertIs(cursor.collection, self.things)
        self.assertIsNone(cursor.session)
        self.assertEqual([document["_id"] async for document in cursor], [0, 3, 6, 9])

    async def test_no_projection(self) -> None:
        """An empty list of names asks for the _id alone; an empty mapping for everything."""
        self.assertEqual(await self.things.find({"_id": 1}, []), [{"_id": 1}])
        self.assertEqual(await self.things.find_one({"_id": 1}, []), {"_id": 1})
        self.assertEqual(await self.things.find({"_id": 1}).projection([]), [{"_id": 1}])
        self.assertEqual(await self.things.find({"_id": 1}, {}), [{"_id": 1, "x": 1, "y": -1}])


@on_every_server
class FindOneTests(FindCase):
    """find_one(spec=None, fields=None, **kwargs) and find_one(filter=None, projection=None, skip=0, sort=None)."""

    async def test_found(self) -> None:
        """One document, or None."""
        self.assertEqual(await self.things.find_one({"_id": 3}), {"_id": 3, "x": 0, "y": -3})
        self.assertIsNone(await self.things.find_one({"_id": 77}))
        self.assertEqual((await self.things.find_one())["_id"], 0)
        self.assertEqual((await self.things.find_one(filter={"x": 2}))["_id"], 2)

    async def test_id(self) -> None:
        """Anything but a mapping stands for an _id."""
        key = ObjectId()
        await self.things.insert_one({"_id": key})
        self.assertEqual(await self.things.find_one(key), {"_id": key})
        self.assertEqual((await self.things.find_one(3, ["x"])), {"_id": 3, "x": 0})

    async def test_of_15(self) -> None:
        """spec, fields and filter are as of find."""
        order = qf.sort(qf.DESCENDING("_id"))
        self.assertEqual((await self.deprecated(self.things.find_one, {"x": 0}, filter=order))["_id"], 9)
        found = await self.deprecated(self.things.find_one, spec={"x": 0}, fields=["y"], filter=order)
        self.assertEqual(found, {"_id": 9, "y": -9})
        self.assertIn("Collection.find_one", self.said)
        found = await self.deprecated(self.things.find_one, {"_id": 3}, fields={"_id": 0, "y": 1}, skip=0)
        self.assertEqual(found, {"y": -3})

    async def test_of_26(self) -> None:
        """The fourth positional argument is the sort order."""
        self.assertEqual((await self.things.find_one({"x": 0}, None, 1, [("_id", -1)]))["_id"], 6)
        self.assertEqual((await self.things.find_one({"x": 0}, None, 0, qf.sort(qf.DESCENDING("_id"))))["_id"], 9)
        self.assertEqual((await self.things.find_one({"x": 0}, ["x"], skip=2, flags=4))["_id"], 6)

    async def test_explain(self) -> None:
        """explain gives the plan."""
        plan = await self.deprecated(self.things.find_one, {"x": 0}, filter=qf.explain("queryPlanner"))
        self.assertIn("queryPlanner", plan)
        self.assertNotIn("executionStats", plan)

    async def test_types(self) -> None:
        """Wrong types are TypeErrors at the call."""
        self.assertRaises(TypeError, self.things.find_one, {}, "y")
        self.assertRaises(TypeError, self.things.find_one, {}, sort="y")
        self.assertRaises(TypeError, self.things.find_one, {}, None, 0, 0, False, 0, None, False, False, 0, bad=1)


@on_every_server
class FilterTests(FindCase):
    """txmongo.filter's classes on find, find_one and find_with_cursor."""

    async def ways(self, said: Any) -> list[Any]:
        """What each of the methods finds, by the name of 15.2 and by that of 26.0."""
        pages = await self.things.find_with_cursor({"x": 0}, sort=said)
        old_pages = await self.deprecated(self.things.find_with_cursor, {"x": 0}, filter=said)
        return [
            await self.things.find({"x": 0}, sort=said),
            await self.deprecated(self.things.find, {"x": 0}, filter=said),
            pages[0],
            old_pages[0],
            [await self.things.find_one({"x": 0}, sort=said)],
            [await self.deprecated(self.things.find_one, {"x": 0}, filter=said)],
        ]

    async def test_sort(self) -> None:
        """sort."""
        for found in await self.ways(qf.sort(qf.ASCENDING("x") + qf.DESCENDING("_id"))):
            self.assertEqual(found[0]["_id"], 9)

    async def test_no_order(self) -> None:
        """sort of an empty mapping is no order, which an index has to have."""
        self.assertEqual([len(found) for found in await self.ways(qf.sort({}))], [4, 4, 4, 4, 1, 1])
        changed = await self.things.find_one_and_update({"_id": 3}, {"$set": {"z": 1}}, ["_id"], qf.sort({}))
        self.assertEqual(changed, {"_id": 3})
        self.assertNotIn("sort", self.sent("findAndModify")[0])
        self.assertRaises(TypeError, self.things.create_index, qf.sort({}))

    async def test_hint(self) -> None:
        """hint, by name and by keys; one at no index is the server's error."""
        await self.things.create_index("y")
        for hint in (qf.hint("y_1"), qf.hint(qf.ASCENDING("y"))):
            for found in await self.ways(hint):
                self.assertEqual(found[0]["_id"], 9)
        await self.failure(self.things.find({}, sort=qf.hint("nothing")), OperationFailure)

    async def test_comment(self) -> None:
        """comment."""
        for found in await self.ways(qf.comment("why")):
            self.assertEqual(found[0]["_id"], 0)
        self.assertEqual([command["comment"] for command in self.sent("find")], ["why"] * 6)

    async def test_snapshot(self) -> None:
        """snapshot, which servers do not know any more, goes along the index on _id."""
        for found in await self.ways(qf.snapshot()):
            self.assertEqual(found[0]["_id"], 0)
        self.assertEqual([command["hint"] for command in self.sent("find")], [{"_id": 1}] * 6)

    async def test_explain(self) -> None:
        """explain, by the command of that name, whose verbosity may be chosen."""
        for found in await self.ways(qf.explain()):
            (plan,) = found
            self.assertIn("allPlansExecution", plan["executionStats"])
        for found in await self.ways(qf.explain("queryPlanner")):
            self.assertNotIn("executionStats", found[0])
        self.assertEqual(self.commands.names(), ["explain"] * 12)

    async def test_together(self) -> None:
        """Several, added."""
        await self.things.create_index("x")
        said = qf.sort(qf.DESCENDING("_id")) + qf.hint("x_1") + qf.comment("why")
        for found in await self.ways(said):
            self.assertEqual(found[0]["_id"], 9)
        (plan,) = await self.things.find({"x": 0}, sort=said + qf.explain("queryPlanner"))
        self.assertIn("x_1", str(plan["queryPlanner"]["winningPlan"]))


@on_every_server
class PageTests(FindCase):
    """find_with_cursor(spec=None, skip=0, limit=0, fields=None, filter=None, **kwargs) and 26.0's."""

    async def pages(self, first: Any) -> list[list[Any]]:
        """The _ids page by page, as a program of old reads them."""
        pages = []
        documents, following = await first
        while documents:
            pages.append([document["_id"] for document in documents])
            documents, following = await following
        self.assertEqual((documents, following), ([], None))
        return pages

    async def test_pages(self) -> None:
        """Page after page, and at the end ([], None)."""
        pages = await self.pages(self.things.find_with_cursor({}, batch_size=4))
        self.assertEqual(pages, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])
        self.assertEqual(await self.pages(self.things.find_with_cursor()), [list(range(10))])
        self.assertEqual(await self.pages(self.things.find_with_cursor({"x": 77})), [])

    async def test_yield(self) -> None:
        """In inlineCallbacks."""

        @defer.inlineCallbacks
        def count() -> Any:
            total = 0
            documents, following = yield self.things.find_with_cursor({}, batch_size=3)
            while documents:
                total += len(documents)
                documents, following = yield following
            return total

        self.assertEqual(await count(), 10)

    async def test_positions(self) -> None:
        """Both orders of positional arguments."""
        order = qf.sort(qf.DESCENDING("_id"))
        pages = await self.pages(self.deprecated(self.things.find_with_cursor, {"x": 0}, 1, 2, ["x"], order))
        self.assertEqual(pages, [[6, 3]])
        pages = await self.pages(self.things.find_with_cursor({"x": 0}, ["x"], 1, 3, order, 2))
        self.assertEqual(pages, [[6, 3], [0]])

    async def test_limit(self) -> None:
        """limit holds over the pages."""
        pages = await self.pages(self.things.find_with_cursor({}, limit=5, batch_size=2))
        self.assertEqual(pages, [[0, 1], [2, 3], [4]])

    async def test_stop(self) -> None:
        """Who stops after a page leaves no cursor at the server."""
        documents, following = await self.things.find_with_cursor({}, batch_size=2)
        self.assertEqual(len(documents), 2)
        del following
        while not self.sent("killCursors"):
            await task.deferLater(reactor, 0.02)
        self.assertEqual(self.commands.names(), ["find", "killCursors"])

    async def test_error(self) -> None:
        """A query that the server refuses is the failure of the first page."""
        await self.failure(self.things.find_with_cursor({"$nonsense": 1}), OperationFailure)


@on_every_server
class SlaveOkTests(FindCase):
    """The flag SLAVE_OK."""

    on_replica_set = True

    async def test_preference(self) -> None:
        """Other members than the primary may be asked, unless the collection says which."""
        await self.things.find({}, flags=wire.QUERY_SLAVE_OK)
        await self.things.find_one({}, flags=wire.QUERY_SLAVE_OK)
        nearest = self.things.with_options(read_preference=ReadPreference.NEAREST)
        await nearest.find({}, flags=wire.QUERY_SLAVE_OK)
        modes = [command["$readPreference"]["mode"] for command in self.sent("find")]
        self.assertEqual(modes, ["secondaryPreferred", "secondaryPreferred", "nearest"])
