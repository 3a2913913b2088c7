"""Collection's other methods and arguments of TxMongo 15.2 and 26.0."""

from __future__ import annotations

from typing import Any

from bson.code import Code
from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from bson.son import SON
from pymongo import ReturnDocument
from pymongo.write_concern import WriteConcern

from tests.compat.servers import CompatTestCase, on_every_server
from txmongo import filter as qf
from txmongo.collection import Collection
from txmongo.database import Database
from txmongo.errors import CollectionInvalid, DuplicateKeyError, InvalidOperation, OperationFailure


class TenCase(CompatTestCase):
    """Ten documents."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": n, "x": n % 3} for n in range(10)])
        self.commands.sent.clear()


@on_every_server
class FindAndModifyTests(TenCase):
    """find_and_modify(query=None, update=None, upsert=False, **kwargs)."""

    async def modify(self, *args: Any, **kwargs: Any) -> Any:
        """What it finds."""
        return await self.deprecated(self.things.find_and_modify, *args, **kwargs)

    async def test_update(self) -> None:
        """Operators change the document; the old one is found, or with new=True the new one."""
        self.assertEqual(await self.modify({"_id": 1}, {"$set": {"x": 7}}), {"_id": 1, "x": 1})
        self.assertEqual(await self.modify({"_id": 1}, {"$inc": {"x": 1}}, new=True), {"_id": 1, "x": 8})
        self.assertIn("find_one_and_update", self.said)

    async def test_replace(self) -> None:
        """A whole document takes the other's place."""
        self.assertEqual(await self.modify({"_id": 1}, {"y": 1}, new=True), {"_id": 1, "y": 1})

    async def test_pipeline(self) -> None:
        """Stages change the document."""
        self.assertEqual(await self.modify({"_id": 1}, [{"$set": {"x": "$_id"}}], new=True), {"_id": 1, "x": 1})

    async def test_remove(self) -> None:
        """remove=True removes it."""
        self.assertEqual(await self.modify({"_id": 1}, remove=True), {"_id": 1, "x": 1})
        self.assertIsNone(await self.modify({"_id": 1}, remove=True))

    async def test_upsert(self) -> None:
        """upsert inserts one if none matches."""
        self.assertIsNone(await self.modify({"_id": 77}, {"$set": {"x": 1}}))
        self.assertIsNone(await self.modify({"_id": 77}, {"$set": {"x": 1}}, True))
        self.assertEqual(await self.modify({"_id": 78}, {"x": 1}, upsert=True, new=True), {"_id": 78, "x": 1})

    async def test_sort_fields(self) -> None:
        """sort and fields are documents as the server takes them; filters and pairs will do as well."""
        for sort in ({"_id": -1}, SON([("_id", -1)]), qf.sort(qf.DESCENDING("_id")), [("_id", -1)]):
            found = await self.modify({"x": 0}, {"$set": {"y": 1}}, sort=sort, fields={"_id": 1})
            self.assertEqual(found, {"_id": 9})
        self.assertEqual(await self.modify(sort={"_id": -1}, remove=True, fields=["x"]), {"_id": 9, "x": 0})

    async def test_further(self) -> None:
        """Other keywords are fields of the command."""
        await self.modify({"_id": 1}, {"$set": {"x": 7}}, maxTimeMS=5000, bypassDocumentValidation=True)
        (command,) = self.sent("findAndModify")
        self.assertEqual((command["maxTimeMS"], command["bypassDocumentValidation"]), (5000, True))

    async def test_which(self) -> None:
        """Neither or both of update and remove is a ValueError at the call."""
        for kwargs in ({}, {"update": {}}, {"remove": False}, {"update": {"$set": {"x": 1}}, "remove": True}):
            self.assertRaises(ValueError, self.deprecated, self.things.find_and_modify, {"_id": 1}, **kwargs)
        self.assertRaises(TypeError, self.deprecated, self.things.find_and_modify, 5, {"$set": {"x": 1}})
        self.assertEqual(self.commands.sent, [])


@on_every_server
class GroupTests(TenCase):
    """group(keys, initial, reduce, condition=None, finalize=None)."""

    reduce = "function(document, value) { value.count += 1; value.sum += document._id; }"

    async def group(self, *args: Any, **kwargs: Any) -> Any:
        """The result, its groups in an order that can be compared."""
        result = await self.deprecated(self.things.group, *args, **kwargs)
        result["retval"].sort(key=str)
        return result

    async def test_group(self) -> None:
        """Each group's value starts with its keys and what was given; the result is as the command's was."""
        result = await self.group(["x"], {"count": 0, "sum": 0}, self.reduce)
        groups = [{"x": 0, "count": 4, "sum": 18}, {"x": 1, "count": 3, "sum": 12}, {"x": 2, "count": 3, "sum": 15}]
        self.assertEqual(result, {"retval": groups, "count": 10, "keys": 3, "ok": 1.0})
        self.assertEqual([list(group) for group in result["retval"]], [["x", "count", "sum"]] * 3)
        self.assertIn("aggregate", self.said)

    async def test_keys(self) -> None:
        """Keys may be a mapping, and fields of embedded documents; a field that is missing counts as null."""
        await self.things.insert_many([{"_id": 50, "a": {"b": 5}}, {"_id": 51, "a": {"b": None}}, {"_id": 52}])
        result = await self.group({"a.b": True}, {"count": 0}, "function(d, v) { v.count++; }", {"_id": {"$gte": 50}})
        self.assertEqual(result["retval"], [{"a.b": 5, "count": 1}, {"a.b": None, "count": 2}])

    async def test_key_function(self) -> None:
        """A function may make the keys of a document."""
        for function in ("function(d) { return {even: d._id % 2 == 0, x: d.x}; }", Code("function(d) { return {}; }")):
            result = await self.group(function, {"count": 0}, "function(d, v) { v.count++; }", {"_id": {"$lt": 6}})
            self.assertEqual(result["count"], 6)
            if isinstance(function, Code):
                self.assertEqual(result["retval"], [{"count": 6}])
            else:
                groups = [{"even": even, "x": x, "count": 1} for even in (False, True) for x in (0, 1, 2)]
                self.assertEqual(result["retval"], groups)
        scoped = Code("function(d) { return {n: n}; }", {"n": 1})
        self.assertRaises(ValueError, self.deprecated, self.things.group, scoped, {}, "function() {}")

    async def test_one_group(self) -> None:
        """Without keys all documents are one group; without documents there is none."""
        result = await self.group([], {"count": 0}, Code("function(d, v) { v.count++; }"), {"x": 0})
        self.assertEqual((result["retval"], result["keys"]), ([{"count": 4}], 1))
        result = await self.group([], {"count": 0}, "function(d, v) { v.count++; }", {"x": 77})
        self.assertEqual(result, {"retval": [], "count": 0, "keys": 0, "ok": 1.0})

    async def test_finalize(self) -> None:
        """finalize changes the value, or returns another."""
        changes = await self.group(["x"], {"sum": 0, "count": 0}, self.reduce, {"x": 0}, "function(v) { v.sum = -1; }")
        self.assertEqual(changes["retval"], [{"x": 0, "sum": -1, "count": 4}])
        returns = await self.group(
            ["x"], {"sum": 0, "count": 0}, self.reduce, {"x": 0}, "function(v) { return v.sum; }"
        )
        self.assertEqual(returns["retval"], [18])

    async def test_lists(self) -> None:
        """A value may hold lists, which groups do not share."""
        result = await self.group(["x"], {"ids": []}, "function(d, v) { v.ids.push(d._id); }", {"_id": {"$lt": 5}})
        self.assertEqual([group["ids"] for group in result["retval"]], [[0, 3], [1, 4], [2]])

    async def test_wrong(self) -> None:
        """Wrong types are TypeErrors, a function with a scope is a ValueError, a broken one the server's error."""
        for args in ((5, {}, "f"), ([1], {}, "f"), (["x"], [], "f"), (["x"], {}, 5), (["x"], {}, "f", 5)):
            self.assertRaises(TypeError, self.deprecated, self.things.group, *args)
        scoped = Code("function(d, v) { v.n = n; }", {"n": 1})
        self.assertRaises(ValueError, self.deprecated, self.things.group, ["x"], {}, scoped)
        await self.failure(self.deprecated(self.things.group, ["x"], {}, "this is no function"), OperationFailure)


@on_every_server
class CountTests(TenCase):
    """count(spec=None, fields=None), and distinct(key, spec=None)."""

    async def test_count(self) -> None:
        """By position, and under both names."""
        self.assertEqual(await self.things.count(), 10)
        self.assertEqual(await self.things.count({"x": 0}), 4)
        self.assertEqual(await self.things.count(filter={"x": 1}), 3)
        self.assertEqual(await self.deprecated(self.things.count, spec={"x": 1}), 3)
        self.assertIn("argument spec of Collection.count is deprecated", self.said)
        self.assertRaises(TypeError, self.deprecated, self.things.count, {}, spec={})

    async def test_fields(self) -> None:
        """fields has no effect, and is said to be deprecated."""
        self.assertEqual(await self.deprecated(self.things.count, {"x": 0}, ["nothing"]), 4)
        self.assertEqual(await self.deprecated(self.things.count, fields=["nothing"]), 10)

    async def test_options(self) -> None:
        """skip, limit and hint are the command's."""
        self.assertEqual(await self.things.count({}, skip=3, limit=5), 5)
        self.assertEqual(await self.things.count({}, hint=qf.hint("_id_")), 10)
        self.assertEqual(await self.things.count_documents({"x": 0}, hint=qf.hint(qf.ASCENDING("_id")), skip=1), 3)
        self.assertEqual(await self.things.estimated_document_count(max_time_ms=5000), 10)

    async def test_distinct(self) -> None:
        """By position, and under both names."""
        self.assertEqual(await self.things.distinct("x"), [0, 1, 2])
        self.assertEqual(await self.things.distinct("x", {"_id": {"$lt": 2}}), [0, 1])
        self.assertEqual(await self.deprecated(self.things.distinct, "x", spec={"_id": 2}), [2])

    async def test_missing(self) -> None:
        """Of a collection that does not exist there is nothing."""
        self.assertEqual(await self.database.nothing.count(), 0)
        self.assertEqual(await self.database.nothing.distinct("x"), [])


@on_every_server
class AggregateTests(TenCase):
    """aggregate(pipeline, full_response=False), map_reduce(map, reduce, full_response=False, **kwargs)."""

    pipeline = [{"$group": {"_id": "$x", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
    groups = [{"_id": 0, "n": 4}, {"_id": 1, "n": 3}, {"_id": 2, "n": 3}]

    async def test_list(self) -> None:
        """The result is a list of documents."""
        self.assertEqual(await self.things.aggregate(self.pipeline), self.groups)
        self.assertEqual(await self.things.aggregate(self.pipeline, False), self.groups)
        self.assertEqual(await self.things.aggregate(self.pipeline, full_response=False), self.groups)

    async def test_full_response(self) -> None:
        """With full_response it is a reply with that list."""
        for reply in (
            await self.things.aggregate(self.pipeline, True),
            await self.things.aggregate(self.pipeline, full_response=True),
        ):
            self.assertEqual((reply["result"], reply["ok"]), (self.groups, 1.0))

    async def test_batches(self) -> None:
        """initial_batch_size is that of the first batch; all batches are in the result."""
        await self.things.aggregate([], False, 4)
        reply = await self.things.aggregate([], full_response=True, initial_batch_size=4)
        self.assertEqual(len(reply["result"]), 10)
        self.assertEqual([each["cursor"] for each in self.sent("aggregate")], [{"batchSize": 4}] * 2)
        self.assertRaises(TypeError, self.things.aggregate, [], True, 1, 2)
        self.assertRaises(TypeError, self.things.aggregate, [], True, full_response=True)

    async def test_options(self) -> None:
        """hint, comment and max_time_ms are taken."""
        found = await self.things.aggregate([], hint=qf.hint("_id_"), comment="why", max_time_ms=5000)
        self.assertEqual(len(found), 10)
        (command,) = self.sent("aggregate")
        self.assertEqual((command["hint"], command["comment"], command["maxTimeMS"]), ("_id_", "why", 5000))

    async def test_map_reduce(self) -> None:
        """The result is a list of documents, or the whole reply."""
        functions = Code("function() { emit(this.x, 1) }"), "function(key, values) { return Array.sum(values) }"
        results = await self.things.map_reduce(*functions, out={"inline": 1}, sort={"x": 1}, query={"x": 0})
        self.assertEqual(results, [{"_id": 0, "value": 4}])
        reply = await self.things.map_reduce(*functions, True, out={"inline": 1})
        self.assertEqual((len(reply["results"]), reply["ok"]), (3, 1.0))
        await self.things.map_reduce(*functions, full_response=False, out="mapped")
        self.assertEqual(await self.database.mapped.count(), 3)


@on_every_server
class FindOneAndTests(TenCase):
    """find_one_and_delete, find_one_and_replace and find_one_and_update."""

    async def test_update(self) -> None:
        """By position, and with sort as a filter, a mapping, or pairs."""
        found = await self.things.find_one_and_update({"x": 0}, {"$set": {"y": 1}}, ["_id"], qf.sort(("_id", -1)))
        self.assertEqual(found, {"_id": 9})
        for sort in (qf.sort(qf.DESCENDING("_id")), {"_id": -1}, ("_id", -1), [("_id", -1)]):
            found = await self.things.find_one_and_update(
                {"x": 0}, {"$inc": {"y": 1}}, {"_id": 1}, sort, False, ReturnDocument.AFTER
            )
            self.assertEqual(found, {"_id": 9})

    async def test_replace(self) -> None:
        """By position, with upsert and the new document."""
        found = await self.things.find_one_and_replace({"_id": 77}, {"x": 5}, None, None, True, True)
        self.assertEqual(found, {"_id": 77, "x": 5})

    async def test_delete(self) -> None:
        """By position."""
        found = await self.things.find_one_and_delete({"x": 0}, {"x": 0}, qf.sort(qf.DESCENDING("_id")))
        self.assertEqual(found, {"_id": 9})

    async def test_further(self) -> None:
        """Unknown keywords are fields of the command."""
        await self.things.find_one_and_update({"_id": 1}, {"$set": {"y": 1}}, maxTimeMS=5000)
        await self.things.find_one_and_delete({"_id": 1}, maxTimeMS=5001)
        await self.things.find_one_and_replace({"_id": 2}, {}, maxTimeMS=5002)
        self.assertEqual([each["maxTimeMS"] for each in self.sent("findAndModify")], [5000, 5001, 5002])


@on_every_server
class WriteTests(TenCase):
    """The methods with one and many in their names."""

    async def test_inserts(self) -> None:
        """insert_one(document) and insert_many(documents, ordered=True)."""
        self.assertEqual((await self.things.insert_one({"_id": 50})).inserted_id, 50)
        result = await self.things.insert_many([{"_id": 51}, {"_id": 52}], False)
        self.assertEqual(result.inserted_ids, [51, 52])
        for kind in (InvalidOperation, TypeError):
            self.assertRaises(kind, self.things.insert_many, [])
        await self.failure(self.things.insert_one({"_id": 50}), DuplicateKeyError)

    async def test_updates(self) -> None:
        """update_one, update_many and replace_one, with upsert third."""
        self.assertEqual((await self.things.update_one({"x": 0}, {"$set": {"y": 1}})).modified_count, 1)
        self.assertEqual((await self.things.update_many({"x": 0}, {"$set": {"y": 2}}, False)).matched_count, 4)
        self.assertEqual((await self.things.replace_one({"_id": 77}, {"y": 1}, True)).upserted_id, 77)

    async def test_sorted_update(self) -> None:
        """update_one's sort may be a filter; servers before MongoDB 8.0 do not know it."""
        updating = self.things.update_one({"x": 0}, {"$set": {"y": 1}}, sort=qf.sort(qf.DESCENDING("_id")))
        await self.failure(updating, OperationFailure)
        (command,) = self.sent("update")
        self.assertEqual(command["updates"][0]["sort"], {"_id": -1})

    async def test_deletes(self) -> None:
        """delete_one(filter, let=None) and delete_many(filter, let=None)."""
        self.assertEqual((await self.things.delete_one({"x": 0})).deleted_count, 1)
        self.assertEqual((await self.things.delete_many({"x": 0})).deleted_count, 3)
        if self.server_version != "4.4":
            query = {"$expr": {"$eq": ["$_id", "$$wanted"]}}
            self.assertEqual((await self.things.delete_one(query, {"wanted": 1})).deleted_count, 1)
            self.assertEqual((await self.things.delete_many(query, {"wanted": 2})).deleted_count, 1)

    async def test_collation(self) -> None:
        """A collation is one by its locale."""
        await self.things.insert_one({"_id": "A"})
        result = await self.things.delete_one({"_id": "a"}, {"locale": "en", "strength": 2})
        self.assertEqual(result.deleted_count, 1)
        self.assertRaises(TypeError, self.things.delete_one, {}, {"a": 1}, let={})


@on_every_server
class IndexTests(TenCase):
    """create_index, ensure_index, drop_index, drop_indexes and index_information."""

    async def test_create(self) -> None:
        """Keys are a sort order of txmongo.filter, under 15.2's name too; the result is the index's name."""
        self.assertEqual(await self.things.create_index(qf.sort(qf.ASCENDING("x"))), "x_1")
        keys = qf.sort(qf.ASCENDING("x") + qf.DESCENDING("y"))
        self.assertEqual(await self.things.create_index(sort_fields=keys, name="both", sparse=True), "both")
        self.assertEqual(await self.things.create_index(qf.DESCENDING("z")), "z_-1")
        self.assertEqual(await self.things.create_index(("w", -1)), "w_-1")
        information = await self.things.index_information()
        for keys in ([("x", 1), ("y", -1)], {"x": 1, "y": -1}, SON([("x", 1), ("y", -1)])):
            self.assertEqual(information["both"]["key"], keys)
        self.assertEqual((information["both"]["name"], information["both"]["key"]["y"]), ("both", -1))
        self.assertTrue(information["both"]["sparse"])
        self.assertEqual(information["_id_"]["key"], [("_id", 1)])

    async def test_kinds(self) -> None:
        """Indexes of other kinds."""
        self.assertEqual(await self.things.create_index(qf.sort(qf.GEO2D("place")), min=-10, max=10), "place_2d")
        self.assertEqual(await self.things.create_index(qf.sort(qf.GEO2DSPHERE("globe"))), "globe_2dsphere")
        self.assertEqual(await self.things.create_index(qf.sort(qf.TEXT(["t", "u"]))), "t_text_u_text")
        haystack = qf.sort(qf.GEOHAYSTACK("loc") + qf.ASCENDING("kind"))
        creating = self.things.create_index(haystack, bucket_size=5)
        if self.server_version == "4.4":
            self.assertEqual(await creating, "loc_geoHaystack_kind_1")
            self.assertEqual((await self.things.index_information())["loc_geoHaystack_kind_1"]["bucketSize"], 5)
        else:
            await self.failure(creating, OperationFailure)

    async def test_unique(self) -> None:
        """A unique index."""
        await self.things.create_index(qf.sort(qf.ASCENDING("u")), unique=True, sparse=True)
        await self.things.insert_one({"u": 1})
        await self.failure(self.things.insert_one({"u": 1}), DuplicateKeyError)

    async def test_drop_dups(self) -> None:
        """drop_dups is taken and ignored, with a warning."""
        for name in ("drop_dups", "dropDups"):
            creating = self.deprecated(self.things.create_index, qf.sort(qf.ASCENDING("d")), **{name: True})
            self.assertEqual(await creating, "d_1")
            self.assertIn(f"argument {name} of Collection.create_index", self.said)
        await self.deprecated(self.things.ensure_index, "e", drop_dups=True)

    async def test_ensure(self) -> None:
        """ensure_index is another name of create_index."""
        self.assertEqual(await self.things.ensure_index(qf.sort(qf.ASCENDING("x")), unique=False), "x_1")
        self.assertEqual(await self.things.ensure_index(sort_fields=qf.sort(qf.ASCENDING("x")), unique=False), "x_1")

    async def test_drop(self) -> None:
        """drop_index takes a name or keys; drop_indexes drops all but that on _id."""
        for keys in ("a", "b", "c", "d"):
            await self.things.create_index(keys)
        self.assertEqual((await self.things.drop_index("a_1"))["nIndexesWas"], 5)
        await self.things.drop_index(qf.sort(qf.ASCENDING("b")))
        await self.things.drop_index(index_identifier="c_1")
        self.assertEqual(sorted(await self.things.index_information()), ["_id_", "d_1"])
        self.assertEqual((await self.things.drop_indexes())["ok"], 1)
        self.assertEqual(sorted(await self.things.index_information()), ["_id_"])

    async def test_missing(self) -> None:
        """Dropping an index that is not there is an error; of a collection that is not there it is none."""
        await self.failure(self.things.drop_index("nothing"), OperationFailure)
        await self.database.nothing.drop_index("nothing")
        await self.database.nothing.drop_indexes()
        self.assertEqual(await self.database.nothing.index_information(), {})

    async def test_types(self) -> None:
        """Wrong types are TypeErrors at the call."""
        for wrong in (5, None, qf.hint("x"), {1: 1}):
            self.assertRaises(TypeError, self.things.create_index, wrong)
            self.assertRaises(TypeError, self.things.drop_index, wrong)
        self.assertRaises(TypeError, self.things.create_index, "x", sort_fields="x")


@on_every_server
class WholeTests(TenCase):
    """The collection as a whole."""

    async def test_names(self) -> None:
        """name, full_name, database, connection, write_concern, codec_options."""
        self.assertEqual((self.things.name, self.things.full_name), ("things", "txmongo_compat.things"))
        self.assertEqual(str(self.things), "txmongo_compat.things")
        self.assertIs(self.things.database, self.database)
        self.assertIs(self.things.connection, self.client)
        self.assertIs(self.database.connection, self.client)
        self.assertEqual(self.things.write_concern, WriteConcern())
        self.assertIsInstance(self.things.codec_options, CodecOptions)

    async def test_constructors(self) -> None:
        """Database(factory, database_name, write_concern) and Collection(database, name, write_concern)."""
        database: Database[Any] = Database(self.client, "txmongo_compat", WriteConcern(w=1))
        collection: Collection[Any] = Collection(database, "things")
        self.assertEqual(collection.write_concern, WriteConcern(w=1))
        self.assertEqual(Collection(database, "things", WriteConcern(w=0)).write_concern, WriteConcern(w=0))
        self.assertEqual(await collection.count(), 10)
        self.assertEqual(collection, self.things)
        named: Collection[Any] = Collection(database=database, name="things", write_concern=None)
        self.assertEqual(named.write_concern, WriteConcern(w=1))
        self.assertEqual(Database(factory=self.client, database_name="x", write_concern=None).name, "x")

    async def test_with_options(self) -> None:
        """with_options(**kwargs) is a clone with other settings."""
        clone = self.things.with_options(write_concern=WriteConcern(w=1, j=True))
        self.assertEqual((clone.name, clone.write_concern), ("things", WriteConcern(w=1, j=True)))
        self.assertEqual(self.things.write_concern, WriteConcern())
        self.assertRaises(TypeError, self.things.with_options, nonsense=1)

    async def test_subcollections(self) -> None:
        """Attributes and items are subcollections; so is a call with a name."""
        for sub in (self.things.sub, self.things["sub"], self.things("sub"), self.things.__call__("sub")):
            self.assertEqual(sub.full_name, "txmongo_compat.things.sub")
        self.assertRaises(AttributeError, lambda: self.things._private)
        self.assertEqual(self.things["_private"].name, "things._private")

    async def test_no_method(self) -> None:
        """A method that there is none of is a TypeError that names it."""
        error = self.assertRaises(TypeError, self.things.inzert, {"x": 1})
        self.assertIn("inzert", str(error))

    async def test_options(self) -> None:
        """options() is what the collection was created with."""
        await self.database.drop_collection("capped")
        await self.database.create_collection("capped", {"capped": True, "size": 4096})
        options = await self.database.capped.options()
        self.assertTrue(options["capped"])
        self.assertEqual(await self.database.nothing.options(), {})

    async def test_rename(self) -> None:
        """rename(new_name)."""
        await self.database.renamed.drop()
        await self.things.rename("renamed")
        self.assertEqual(await self.database.renamed.count(), 10)
        await self.failure(self.things.rename("renamed"), OperationFailure)
        self.assertRaises(TypeError, self.things.rename, 5)

    async def test_drop(self) -> None:
        """drop(), of what is there and what is not."""
        self.assertEqual((await self.things.drop())["ns"], "txmongo_compat.things")
        self.assertIn("ok", await self.things.drop())
        self.assertEqual(await self.things.count(), 0)

    async def test_filemd5(self) -> None:
        """filemd5(spec) is computed by the server over the chunks of a bucket."""
        bucket = self.database["bucket"]
        key = ObjectId()
        await bucket.chunks.drop()
        await bucket.chunks.create_index([("files_id", 1), ("n", 1)], unique=True)
        await bucket.chunks.insert_one({"files_id": key, "n": 0, "data": b"hello"})
        self.assertEqual(await bucket.filemd5(key), "5d41402abc4b2a76b9719d911017c592")
        self.assertRaises(TypeError, bucket.filemd5, "x")


@on_every_server
class DatabaseTests(TenCase):
    """Database's methods."""

    async def test_command(self) -> None:
        """command(command, value=1, check=True, allowable_errors=None, **kwargs)."""
        self.assertEqual((await self.database.command("ping"))["ok"], 1.0)
        self.assertEqual((await self.database.command("count", "things"))["n"], 10)
        self.assertEqual((await self.database.command("count", "things", query={"x": 0}))["n"], 4)
        command = SON([("count", "things"), ("query", {"x": 0})])
        self.assertEqual((await self.database.command(command))["n"], 4)
        self.assertEqual(command, SON([("count", "things"), ("query", {"x": 0})]))

    async def test_errors(self) -> None:
        """An error is an OperationFailure, unless it is allowed or nothing is checked."""
        wrong = ("drop", "nothing_at_all")
        nonsense = await self.failure(self.database.command("nonsense"), OperationFailure)
        self.assertEqual(nonsense.code, 59)
        self.assertEqual((await self.database.command("nonsense", 1, False))["ok"], 0)
        self.assertEqual((await self.database.command("nonsense", check=False))["code"], 59)
        self.assertEqual((await self.database.command(*wrong, allowable_errors=["ns not found"]))["ok"], 0)
        self.assertEqual((await self.database.command(*wrong, True, ["ns not found"]))["ok"], 0)
        await self.failure(self.database.command(*wrong, allowable_errors=["something else"]), OperationFailure)
        self.assertRaises(TypeError, self.database.command, 5)

    async def test_codec_options(self) -> None:
        """codec_options are fifth, as in 26.0."""
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        self.assertIs(type(await self.database.command("ping", 1, True, None, options)), SON)

    async def test_collection_names(self) -> None:
        """collection_names() lists them."""
        self.assertIn("things", await self.database.collection_names())
        self.assertIn("things", await self.database.collection_names(batch_size=1))

    async def test_create(self) -> None:
        """create_collection(name, options=None) fires with the collection."""
        await self.database.drop_collection("made")
        made = await self.database.create_collection("made")
        self.assertEqual(made, self.database.made)
        await self.database.drop_collection(made)
        made = await self.database.create_collection("made", {"capped": True, "size": 4096}, WriteConcern(w=1))
        self.assertEqual(made.write_concern, WriteConcern(w=1))
        self.assertTrue((await made.options())["capped"])
        await made.drop()
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        made = await self.database.create_collection("made", None, None, options)
        self.assertEqual(made.codec_options, options)
        await made.drop()
        made = await self.database.create_collection("made", None, WriteConcern(w=1), options)
        self.assertEqual((made.write_concern, made.codec_options), (WriteConcern(w=1), options))

    async def test_create_again(self) -> None:
        """One that is there is an error of both kinds that programs expect: the server's, and PyMongo's."""
        error = await self.failure(self.database.create_collection("things"), OperationFailure)
        self.assertIsInstance(error, CollectionInvalid)
        self.assertEqual(error.code, 48)

    async def test_create_wrong(self) -> None:
        """Wrong options are the server's error, and of a wrong type a TypeError at the call."""
        creating = self.database.create_collection("wrong", {"nonsense": True})
        await self.failure(creating, OperationFailure)
        self.assertRaises(TypeError, self.database.create_collection, "wrong", "capped")
        self.assertRaises(TypeError, self.database.create_collection, 5)

    async def test_drop(self) -> None:
        """drop_collection takes a name or a Collection."""
        await self.database.drop_collection("things")
        await self.database.drop_collection(self.things)
        self.assertRaises(TypeError, self.database.drop_collection, 5)
        self.assertNotIn("things", await self.database.collection_names())

    async def test_names(self) -> None:
        """name, write_concern, and collections by attribute, item and call."""
        self.assertEqual((self.database.name, str(self.database)), ("txmongo_compat", "txmongo_compat"))
        self.assertEqual(self.database.write_concern, WriteConcern())
        self.assertEqual(self.database.codec_options, self.client.codec_options)
        for collection in (self.database.things, self.database["things"], self.database("things")):
            self.assertEqual(collection, self.things)
        self.assertRaises(AttributeError, lambda: self.database._private)
