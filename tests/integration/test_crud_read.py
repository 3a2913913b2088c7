"""Reading on a real server: find_one, aggregate, counts and distinct values, with types and options of documents."""

from __future__ import annotations

import datetime
import re
import uuid
from typing import Any

from bson.binary import UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, TypeCodec, TypeRegistry
from bson.decimal128 import Decimal128
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer

from tests.integration.servers import CollectionTestCase
from txmongo.errors import ConfigurationError, OperationFailure, WriteConcernError


class Money:
    """A type of the user's own."""

    def __init__(self, amount: str) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.amount == self.amount


class MoneyCodec(TypeCodec):
    """How it is stored."""

    python_type = Money
    bson_type = Decimal128

    def transform_python(self, value: Any) -> Any:
        """For the server."""
        return Decimal128(value.amount)

    def transform_bson(self, value: Any) -> Any:
        """From the server."""
        return Money(str(value))


class FindOneTests(CollectionTestCase):
    """find_one."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": number, "x": number % 3} for number in range(10)])
        self.commands.sent.clear()

    async def test_find_one(self) -> None:
        """By filter, by _id, by nothing, in order, in part."""
        self.assertEqual(await self.things.find_one({"_id": 3}), {"_id": 3, "x": 0})
        self.assertEqual(await self.things.find_one(3), {"_id": 3, "x": 0})
        self.assertIsNotNone(await self.things.find_one())
        self.assertIsNone(await self.things.find_one({"_id": "missing"}))
        found = await self.things.find_one({"x": 1}, {"_id": 1}, sort=[("_id", -1)])
        self.assertEqual(found, {"_id": 7})
        found = await self.things.find_one({"x": 1}, skip=1, sort=[("_id", 1)], comment="c", hint="_id_")
        self.assertEqual(found, {"_id": 4, "x": 1})
        self.assertEqual(self.commands.names(), ["find"] * 6)

    async def test_many(self) -> None:
        """Two hundred at once, each with its own answer."""
        found = await defer.gatherResults([self.things.find_one({"_id": number % 10}) for number in range(200)])
        self.assertEqual([each["_id"] for each in found if each], [number % 10 for number in range(200)])

    async def test_error(self) -> None:
        """A filter that the server does not understand is its error."""
        error = await self.failure(self.things.find_one({"$nonsense": 1}), OperationFailure)
        self.assertEqual(error.code, 2)


class DocumentTests(CollectionTestCase):
    """What documents are decoded to."""

    async def test_types(self) -> None:
        """Values of all kinds come back as they were."""
        document = {
            "_id": ObjectId(),
            "text": "ünï\u0000\U0001f600",
            "number": 2**40,
            "float": 1.5,
            "decimal": Decimal128("1.10"),
            "bytes": b"\0\1",
            "date": datetime.datetime(2020, 1, 2, 3, 4, 5, 678000),
            "none": None,
            "list": [1, {"a": [True]}],
            "nested": {"a": {"b": {"c": 1}}},
            "pattern": re.compile("^a", re.IGNORECASE),
        }
        await self.things.insert_one(dict(document))
        found = await self.things.find_one()
        assert found is not None
        self.assertEqual(found.pop("pattern").try_compile(), document.pop("pattern"))
        self.assertEqual(found, document)

    async def test_document_class(self) -> None:
        """Documents are of the class that the codec options name, nested ones too."""
        await self.things.insert_one({"_id": 1, "nested": {"a": 1}})
        for kind in (SON, RawBSONDocument):
            options: CodecOptions[Any] = CodecOptions(document_class=kind)
            things = self.things.with_options(codec_options=options)
            found: Any
            for found in (
                await things.find_one(),
                (await things.find())[0],
                (await things.aggregate([]))[0],
                await anext(things.find(limit=1)),
            ):
                self.assertIsInstance(found, kind)
                self.assertIsInstance(found["nested"], kind)

    async def test_uuid(self) -> None:
        """UUIDs go by the representation that was chosen."""
        options: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
        things = self.things.with_options(codec_options=options)
        value = uuid.uuid4()
        await things.insert_one({"_id": value})
        self.assertEqual(await things.find_one({"_id": value}), {"_id": value})
        self.assertEqual(await things.distinct("_id"), [value])

    async def test_type_registry(self) -> None:
        """Types of the user's own are encoded in filters and decoded in documents, on every way of reading."""
        options: CodecOptions[Any] = CodecOptions(type_registry=TypeRegistry([MoneyCodec()]))
        things = self.things.with_options(codec_options=options)
        await things.insert_many([{"_id": number, "price": Money("5.10")} for number in range(3)])
        found = await things.find_one({"price": Money("5.10")})
        self.assertEqual(found, {"_id": 0, "price": Money("5.10")})
        for documents in (await things.find(batch_size=1), await things.aggregate([{"$match": {}}])):
            self.assertEqual([each["price"] for each in documents], [Money("5.10")] * 3)
        self.assertEqual(await things.distinct("price"), [Money("5.10")])
        self.assertEqual(await things.count_documents({"price": Money("5.10")}), 3)

    async def test_large(self) -> None:
        """Documents near the limit, in several batches."""
        big = "x" * 15_000_000
        await self.things.insert_many([{"_id": number, "big": big} for number in range(3)])
        found = await self.things.find()
        self.assertEqual([len(each["big"]) for each in found], [15_000_000] * 3)


class AggregateTests(CollectionTestCase):
    """aggregate."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": number, "x": number % 3} for number in range(500)])
        await self.client.txmongo_tests.other.drop()
        self.commands.sent.clear()

    async def test_list(self) -> None:
        """The list of what the pipeline gives, in as many batches as it takes."""
        pipeline: list[Any] = [{"$group": {"_id": "$x", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
        self.assertEqual(
            await self.things.aggregate(pipeline), [{"_id": 0, "n": 167}, {"_id": 1, "n": 167}, {"_id": 2, "n": 166}]
        )
        self.assertEqual(len(await self.things.aggregate([], batchSize=100)), 500)
        self.assertEqual(self.commands.names(), ["aggregate"] * 2 + ["getMore"] * 5)

    async def test_iteration(self) -> None:
        """It can be iterated over like PyMongo's cursor."""
        cursor = self.things.aggregate([{"$sort": {"_id": 1}}], batchSize=7)
        self.assertEqual([each["_id"] async for each in cursor], list(range(500)))
        self.assertFalse(cursor.alive)

    async def test_options(self) -> None:
        """Options reach the server."""
        found = await self.things.aggregate(
            [{"$match": {"_id": 5}}],
            hint="_id_",
            allowDiskUse=True,
            collation={"locale": "de"},
            maxTimeMS=10_000,
            comment="c",
        )
        self.assertEqual(found, [{"_id": 5, "x": 2}])
        plan = await self.things.aggregate([{"$match": {"_id": {"$in": [1, 2]}}}], batchSize=1)
        self.assertEqual(len(plan), 2)

    async def test_let(self) -> None:
        """let gives values to expressions."""
        await self.needs("let", 5, 0)
        pipeline = [{"$match": {"$expr": {"$eq": ["$_id", "$$wanted"]}}}]
        self.assertEqual(await self.things.aggregate(pipeline, let={"wanted": 5}), [{"_id": 5, "x": 2}])

    async def test_out(self) -> None:
        """$out and $merge store without being waited for, and fire with an empty list."""
        other = self.client.txmongo_tests.other
        self.assertEqual(await self.things.aggregate([{"$match": {"x": 1}}, {"$out": "other"}]), [])
        self.assertEqual(await other.count_documents({}), 167)
        merge = self.things.aggregate([{"$match": {"x": 2}}, {"$merge": {"into": "other"}}])
        await merge.to_list()
        self.assertEqual(await other.count_documents({}), 333)

    async def test_errors(self) -> None:
        """A stage that the server does not know, and a pipeline that is none."""
        await self.failure(self.things.aggregate([{"$nonsense": 1}]), OperationFailure)
        await self.failure(self.things.aggregate([{"$nonsense": 1}, {"$out": "x"}]).next(), OperationFailure)
        wrong: Any = {"$match": {}}
        self.assertRaises(TypeError, self.things.aggregate, wrong)
        self.assertRaises(ConfigurationError, self.things.aggregate, [], explain=True)
        self.assertRaises(ConfigurationError, self.client.admin.aggregate, [], explain=True)

    async def test_database(self) -> None:
        """A pipeline on the database itself."""
        operations = await self.client.admin.aggregate([{"$currentOp": {"localOps": True}}, {"$limit": 1}])
        self.assertEqual(len(operations), 1)


class CountTests(CollectionTestCase):
    """Counting and distinct values."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": number, "x": number % 3, "tags": ["a", "b"]} for number in range(10)])

    async def test_count_documents(self) -> None:
        """With a filter, and options."""
        self.assertEqual(await self.things.count_documents({}), 10)
        self.assertEqual(await self.things.count_documents({"x": 0}), 4)
        self.assertEqual(await self.things.count_documents({"x": 0}, skip=1, limit=2), 2)
        self.assertEqual(await self.things.count_documents({"x": 9}), 0)
        self.assertEqual(await self.things.count_documents({"x": 0}, hint="_id_", comment="c", maxTimeMS=9000), 4)

    async def test_estimate(self) -> None:
        """By metadata; nothing of a collection that is not there."""
        self.assertEqual(await self.things.estimated_document_count(), 10)
        self.assertEqual(await self.client.txmongo_tests.missing.estimated_document_count(), 0)

    async def test_count(self) -> None:
        """TxMongo's count."""
        self.assertEqual(await self.things.count(), 10)
        self.assertEqual(await self.things.count({"x": 1}), 3)

    async def test_map_reduce(self) -> None:
        """The results of functions in JavaScript, in the reply and in a collection."""
        emit, total = "function() { emit(this.x, factor) }", "function(key, values) { return Array.sum(values) }"
        options: dict[str, Any] = {"query": {"_id": {"$lt": 4}}, "scope": {"factor": 2}, "sort": {"_id": 1}}
        results = await self.things.map_reduce(emit, Code(total), out={"inline": 1}, **options)
        self.assertEqual(sorted((each["_id"], each["value"]) for each in results), [(0, 4.0), (1, 2.0), (2, 2.0)])
        reply = await self.things.map_reduce(emit, total, True, out={"inline": 1}, limit=1, **options)
        self.assertEqual(reply["results"], [{"_id": 0, "value": 2.0}])
        self.assertIsNone(await self.things.map_reduce(emit, total, out="txmongo_tests_reduced", **options))
        reduced = self.client.txmongo_tests.txmongo_tests_reduced
        self.assertEqual(await reduced.find_one({"_id": 0}), {"_id": 0, "value": 4.0})
        await reduced.drop()

    async def test_distinct(self) -> None:
        """Of values, of elements of arrays, with a filter."""
        self.assertEqual(await self.things.distinct("x"), [0, 1, 2])
        self.assertEqual(await self.things.distinct("tags"), ["a", "b"])
        self.assertEqual(await self.things.distinct("x", {"_id": {"$lt": 2}}, comment="c"), [0, 1])
        self.assertEqual(await self.things.distinct("missing"), [])


class ReplicaSetTests(CollectionTestCase):
    """What only a replica set has."""

    on_replica_set = True

    async def test_concerns(self) -> None:
        """Read concerns are sent, and a preference that is not the primary."""
        things = self.things.with_options(write_concern=WriteConcern("majority"))
        await things.insert_one({"_id": 1})
        self.commands.sent.clear()
        things = self.things.with_options(
            read_concern=ReadConcern("majority"), read_preference=ReadPreference.PRIMARY_PREFERRED
        )
        self.assertEqual(await things.find_one(1), {"_id": 1})
        self.assertEqual(await things.find(), [{"_id": 1}])
        self.assertEqual(await things.count_documents({}), 1)
        self.assertEqual(await things.distinct("_id"), [1])
        for command in self.commands.sent:
            self.assertEqual(command["readConcern"], {"level": "majority"})
            self.assertEqual(command["$readPreference"], {"mode": "primaryPreferred"})

    async def test_bad_write_concern(self) -> None:
        """$out with a write concern that cannot be kept is an error after it was done."""
        await self.things.insert_one({"_id": 1})
        things = self.things.with_options(write_concern=WriteConcern(w=5, wtimeout=100))
        await self.failure(things.aggregate([{"$out": "other"}]), WriteConcernError, OperationFailure)
