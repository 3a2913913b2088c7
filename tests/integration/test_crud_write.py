"""Single writes at a real server: what is stored, what comes back, what fails."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import InvalidDocument
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo import ReturnDocument
from pymongo.collation import Collation
from pymongo.write_concern import WriteConcern
from twisted.internet import defer

from tests.integration.servers import CollectionTestCase
from txmongo.errors import (
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

MEGABYTE = 1024 * 1024
CASELESS = Collation("en", strength=2)


class InsertTests(CollectionTestCase):
    """insert_one and insert_many."""

    async def test_insert_one(self) -> None:
        """A document is stored under the _id that it was given."""
        document = {"a": 1, "nested": {"b": [1, 2]}}
        result = await self.things.insert_one(document)
        self.assertIsInstance(result.inserted_id, ObjectId)
        self.assertEqual(document["_id"], result.inserted_id)
        self.assertEqual(await self.contents(), [document])

    async def test_insert_raw(self) -> None:
        """Raw BSON is stored as it is; the server gives it an _id if it has none."""
        await self.things.insert_one(RawBSONDocument(bson.encode({"_id": 1, "a": 1})))
        result = await self.things.insert_many([RawBSONDocument(bson.encode({"a": 2})), {"_id": 3}])
        self.assertEqual(result.inserted_ids, [3])
        stored = await self.contents()
        self.assertEqual(sorted(document.get("a", 0) for document in stored), [0, 1, 2])
        self.assertTrue(all("_id" in document for document in stored))

    async def test_insert_duplicate(self) -> None:
        """A duplicate key is an error that tells the key and its value."""
        await self.things.insert_one({"_id": 1})
        error = await self.failure(self.things.insert_one({"_id": 1}), DuplicateKeyError)
        self.assertEqual((error.code, error.details["keyValue"]), (11000, {"_id": 1}))

    async def test_insert_many(self) -> None:
        """Ten thousand documents go in one command and come back as they were."""
        documents = [{"_id": number, "text": "x" * (number % 7)} for number in range(10_000)]
        result = await self.things.insert_many(documents)
        self.assertEqual(result.inserted_ids, list(range(10_000)))
        self.assertEqual(self.commands.names(), ["insert"])
        self.assertEqual(await self.contents(), documents)

    async def test_codec_options(self) -> None:
        """Documents and ids in results are as the codec options say."""
        options: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
        things = self.things.with_options(codec_options=options)
        first, second = uuid.uuid4(), uuid.uuid4()
        await things.insert_one({"_id": first})
        result = await things.replace_one({"_id": second}, {"a": 1}, upsert=True)
        self.assertEqual(result.upserted_id, second)
        found = await things.find_one_and_delete({"_id": first})
        self.assertEqual(found, {"_id": first})
        await self.failure(self.things.insert_one({"_id": uuid.uuid4()}), ValueError)

    async def test_not_bson(self) -> None:
        """What BSON cannot hold is bson's own error, and the next write goes well."""
        await self.failure(self.things.insert_one({"a": object()}), InvalidDocument)
        await self.failure(self.things.insert_many([{"a": 1}, {"a": object()}]), InvalidDocument)
        await self.things.insert_one({"_id": 1})
        self.assertEqual(await self.contents(), [{"_id": 1}])

    async def test_too_large(self) -> None:
        """A document that is too large is an error, and the connection goes on."""
        await self.things.insert_one({"_id": 1, "a": "x" * (16 * MEGABYTE - 100)})
        await self.failure(self.things.insert_one({"_id": 2, "a": "x" * 16 * MEGABYTE}), WriteError, OperationFailure)
        await self.failure(self.things.insert_one({"_id": 2, "a": "x" * 17 * MEGABYTE}), DocumentTooLarge)
        await self.failure(
            self.things.insert_many([{"_id": 3}, {"_id": 4, "a": "x" * 17 * MEGABYTE}]), OperationFailure
        )
        await self.things.delete_many({})

    async def test_validation(self) -> None:
        """A document that the validator refuses is a WriteError, unless validation is bypassed."""
        await self.client.txmongo_tests.create_collection("things", validator={"a": {"$type": "int"}})
        error = await self.failure(self.things.insert_one({"a": "x"}), WriteError)
        self.assertEqual(error.code, 121)
        await self.things.insert_one({"_id": 1, "a": "x"}, bypass_document_validation=True)
        await self.failure(self.things.update_one({}, {"$set": {"a": "y"}}), WriteError)
        await self.things.update_one({}, {"$set": {"a": "y"}}, bypass_document_validation=True)
        await self.failure(self.things.find_one_and_update({}, {"$set": {"a": "z"}}), OperationFailure)
        await self.things.find_one_and_update({}, {"$set": {"a": "z"}}, bypassDocumentValidation=True)
        self.assertEqual(await self.contents(), [{"_id": 1, "a": "z"}])

    async def test_reasons(self) -> None:
        """The error says which part of the validator refused the document."""
        await self.needs("reasons of a validator", 5, 0)
        await self.client.txmongo_tests.create_collection("things", validator={"a": {"$type": "int"}})
        error = await self.failure(self.things.insert_one({"a": "x"}), WriteError)
        self.assertIn("details", error.details["errInfo"])

    async def test_comments(self) -> None:
        """Every write takes a comment of any BSON type."""
        comment = {"why": [1]}
        await self.things.insert_one({"_id": 1}, comment=comment)
        await self.things.insert_many([{"_id": 2}], comment=comment)
        await self.things.update_one({}, {"$set": {"a": 1}}, comment=comment)
        await self.things.replace_one({}, {"a": 2}, comment=comment)
        await self.things.find_one_and_update({}, {"$set": {"a": 1}}, comment=comment)
        await self.things.delete_many({}, comment=comment)
        self.assertEqual([command["comment"] for command in self.commands.sent], [comment] * 6)


class UpdateTests(CollectionTestCase):
    """update_one, update_many, replace_one."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Store three documents."""
        await super().setUp()
        await self.things.insert_many([{"_id": number, "n": 0, "name": name} for number, name in enumerate("aAb")])

    async def test_update_one(self) -> None:
        """One document is changed, once."""
        update = {"$inc": {"n": 1}}
        result = await self.things.update_one({"_id": 1}, update)
        self.assertEqual((result.matched_count, result.modified_count, result.upserted_id), (1, 1, None))
        self.assertTrue(result.acknowledged)
        self.assertEqual([document["n"] for document in await self.contents()], [0, 1, 0])
        result = await self.things.update_one({"_id": 9}, update)
        self.assertEqual((result.matched_count, result.modified_count, result.did_upsert), (0, 0, False))

    async def test_update_many(self) -> None:
        """All documents that match are changed, by operators or by a pipeline."""
        result = await self.things.update_many({"_id": {"$gt": 0}}, {"$set": {"n": 5}})
        self.assertEqual((result.matched_count, result.modified_count), (2, 2))
        await self.things.update_many({}, [{"$set": {"n": {"$add": ["$n", "$_id"]}}}])
        self.assertEqual([document["n"] for document in await self.contents()], [0, 6, 7])

    async def test_replace_one(self) -> None:
        """A document is replaced as a whole but for its _id."""
        replacement = {"x": 1}
        result = await self.things.replace_one({"_id": 0}, replacement)
        self.assertEqual((result.matched_count, result.modified_count), (1, 1))
        self.assertEqual((await self.contents())[0], {"_id": 0, "x": 1})
        self.assertEqual(replacement, {"x": 1})
        await self.things.replace_one({"_id": 0}, RawBSONDocument(bson.encode({"x": 2})))
        await self.things.replace_one({"_id": 1}, {})
        self.assertEqual((await self.contents())[:2], [{"_id": 0, "x": 2}, {"_id": 1}])

    async def test_upsert(self) -> None:
        """What does not match is inserted, and the new _id comes back."""
        result = await self.things.update_one({"_id": 7}, {"$set": {"n": 1}}, upsert=True)
        self.assertEqual((result.upserted_id, result.matched_count, result.modified_count), (7, 0, 0))
        result = await self.things.replace_one({"x": 1}, {"x": 2}, upsert=True)
        self.assertIsInstance(result.upserted_id, ObjectId)
        assert result.raw_result is not None
        self.assertIs(result.raw_result["updatedExisting"], False)

    async def test_options(self) -> None:
        """collation, hint and array filters do what they say."""
        result = await self.things.update_many({"name": "A"}, {"$set": {"hit": 1}}, collation=CASELESS)
        self.assertEqual(result.modified_count, 2)
        await self.things.create_index("name", name="by name")
        for hint in ("by name", [("name", 1)], {"name": 1}):
            result = await self.things.update_one({"name": "b"}, {"$inc": {"n": 1}}, hint=hint)
            self.assertEqual(result.modified_count, 1)
        await self.failure(self.things.update_one({}, {"$inc": {"n": 1}}, hint="none"), OperationFailure)
        await self.things.update_one({"_id": 0}, {"$set": {"grades": [1, 5, 9]}})
        await self.things.update_one({"_id": 0}, {"$set": {"grades.$[g]": 0}}, array_filters=[{"g": {"$gt": 4}}])
        self.assertEqual((await self.contents())[0]["grades"], [1, 0, 0])

    async def test_let(self) -> None:
        """let gives values to expressions."""
        await self.needs("let", 5, 0)
        expression = {"$expr": {"$eq": ["$name", "$$wanted"]}}
        result = await self.things.update_many(expression, {"$set": {"let": 1}}, let={"wanted": "b"})
        self.assertEqual(result.modified_count, 1)
        given = {"v": 1}
        await self.things.update_one({"_id": 0}, {"$set": {"a": 1}}, let=given)
        await self.things.find_one_and_update({"_id": 0}, {"$set": {"a": 1}}, let=given)
        self.assertEqual(given, {"v": 1})

    async def test_sort_on_an_old_server(self) -> None:
        """Servers before 8.0 refuse sort in an update; with w=0, where they cannot, the driver does."""
        await self.failure(self.things.update_one({}, {"$inc": {"n": 1}}, sort={"_id": -1}), OperationFailure)
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        error = await self.failure(nothing.update_one({}, {"$inc": {"n": 1}}, sort={"_id": -1}), Exception)
        self.assertIn("8.0", str(error))

    async def test_refused(self) -> None:
        """What the server does not like in an update is a WriteError."""
        error = await self.failure(self.things.update_one({"_id": 0}, {"$inc": {"name": 1}}), WriteError)
        self.assertEqual(error.code, 14)
        await self.things.create_index("name", unique=True)
        await self.failure(self.things.update_one({"_id": 0}, {"$set": {"name": "b"}}), DuplicateKeyError)
        duplicate = self.things.find_one_and_update({"_id": 0}, {"$set": {"name": "b"}})
        await self.failure(duplicate, DuplicateKeyError)

    async def test_arguments_unchanged(self) -> None:
        """No argument of the caller's is changed."""
        arguments: list[dict[str, Any]] = [{"_id": 0}, {"$set": {"a": {"b": 1}}}]
        options: dict[str, Any] = {
            "collation": {"locale": "en"},
            "hint": {"_id": 1},
            "array_filters": [],
            "comment": {"c": 1},
        }
        before = copy.deepcopy((arguments, options))
        update_one: Any = self.things.update_one
        await update_one(*arguments, **options)
        find_one_and_update: Any = self.things.find_one_and_update
        await find_one_and_update(*arguments, sort={"a": 1}, projection={"a": 1}, **options)
        self.assertEqual((arguments, options), before)


class DeleteTests(CollectionTestCase):
    """delete_one and delete_many."""

    async def test_deletes(self) -> None:
        """One document is removed, or all that match."""
        await self.things.insert_many([{"_id": number, "name": name} for number, name in enumerate("aAbB")])
        self.assertEqual((await self.things.delete_one({})).deleted_count, 1)
        self.assertEqual((await self.things.delete_many({"name": "B"}, collation=CASELESS)).deleted_count, 2)
        self.assertEqual((await self.things.delete_many({"name": "none"}, hint="_id_")).deleted_count, 0)
        self.assertEqual(await self.contents(), [{"_id": 1, "name": "A"}])

    async def test_let(self) -> None:
        """let gives values to expressions."""
        await self.needs("let", 5, 0)
        await self.things.insert_many([{"_id": number, "name": name} for number, name in enumerate("aAbB")])
        expression = {"$expr": {"$eq": ["$name", "$$wanted"]}}
        self.assertEqual((await self.things.delete_one(expression, let={"wanted": "A"})).deleted_count, 1)
        self.assertEqual([document["_id"] for document in await self.contents()], [0, 2, 3])


class FindAndModifyTests(CollectionTestCase):
    """find_one_and_delete, find_one_and_replace, find_one_and_update."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Store three documents."""
        await super().setUp()
        await self.things.insert_many([{"_id": number, "n": 0, "name": name} for number, name in enumerate("aAb")])

    async def test_delete(self) -> None:
        """The document that was removed comes back, the fields that were asked for."""
        found = await self.things.find_one_and_delete({}, {"name": 1}, sort=[("_id", -1)])
        self.assertEqual(found, {"_id": 2, "name": "b"})
        self.assertEqual(await self.things.find_one_and_delete({"name": "A"}, ["_id"], collation=CASELESS), {"_id": 0})
        self.assertIsNone(await self.things.find_one_and_delete({"name": "none"}))
        self.assertEqual([document["_id"] for document in await self.contents()], [1])

    async def test_update(self) -> None:
        """The document comes back as it was before, or as it is after."""
        update = {"$inc": {"n": 1}}
        before = await self.things.find_one_and_update({"_id": 0}, update)
        assert before is not None
        self.assertEqual(before["n"], 0)
        after = await self.things.find_one_and_update({"_id": 0}, update, return_document=ReturnDocument.AFTER)
        assert after is not None
        self.assertEqual(after["n"], 2)
        self.assertIsNone(await self.things.find_one_and_update({"_id": 9}, update))

    async def test_upsert(self) -> None:
        """An upsert gives None, or with AFTER the new document."""
        self.assertIsNone(await self.things.find_one_and_update({"_id": 8}, {"$set": {"n": 1}}, upsert=True))
        new = await self.things.find_one_and_replace(
            {"_id": 9}, {"n": 1}, upsert=True, return_document=ReturnDocument.AFTER
        )
        self.assertEqual(new, {"_id": 9, "n": 1})

    async def test_options(self) -> None:
        """hint, array filters and maxTimeMS do what they say."""
        await self.things.update_one({"_id": 0}, {"$set": {"grades": [1, 5, 9]}})
        found = await self.things.find_one_and_update(
            {"name": "a"},
            {"$set": {"grades.$[g]": 0}},
            array_filters=[{"g": {"$gt": 4}}],
            hint={"_id": 1},
            projection=["grades"],
            return_document=ReturnDocument.AFTER,
            maxTimeMS=60_000,
        )
        self.assertEqual(found, {"_id": 0, "grades": [1, 0, 0]})

    async def test_let(self) -> None:
        """let gives values to expressions."""
        await self.needs("let", 5, 0)
        query = {"$expr": {"$eq": ["$name", "$$wanted"]}}
        found = await self.things.find_one_and_update(query, {"$set": {"n": 1}}, ["_id"], let={"wanted": "A"})
        self.assertEqual(found, {"_id": 1})

    async def test_document_class(self) -> None:
        """The document is of the collection's document class."""
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        found = await self.things.with_options(codec_options=options).find_one_and_delete({"_id": 0})
        self.assertIsInstance(found, SON)
        raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
        found = await self.things.with_options(codec_options=raw).find_one_and_delete({"_id": 1})
        self.assertIsInstance(found, RawBSONDocument)
        assert found is not None
        self.assertEqual(found["_id"], 1)


class UnacknowledgedTests(CollectionTestCase):
    """Writes with w=0."""

    async def test_writes(self) -> None:
        """They are carried out in their order, and a read that follows sees them."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        results: list[Any] = [
            await nothing.insert_one({"_id": 1}),
            await nothing.insert_many([{"_id": 2}, {"_id": 3}]),
            await nothing.update_one({"_id": 1}, {"$set": {"a": 1}}),
            await nothing.replace_one({"_id": 2}, {"b": 1}),
            await nothing.delete_one({"_id": 3}),
        ]
        self.assertIsNone(await nothing.find_one_and_update({"_id": 2}, {"$inc": {"b": 1}}))
        self.assertFalse(any(result.acknowledged for result in results))
        self.assertEqual(await self.contents(), [{"_id": 1, "a": 1}, {"_id": 2, "b": 2}])

    async def test_errors_are_silent(self) -> None:
        """What the server refuses is not heard of, but what the driver can see is."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        await nothing.insert_one({"_id": 1})
        await nothing.insert_one({"_id": 1})
        await self.failure(nothing.insert_one({"_id": 2, "a": "x" * 16 * MEGABYTE}), DocumentTooLarge)
        await self.failure(nothing.insert_many([{"_id": 2, "a": "x" * 16 * MEGABYTE}]), DocumentTooLarge)
        self.assertEqual(await self.contents(), [{"_id": 1}])


class WriteConcernTests(CollectionTestCase):
    """Write concerns at a replica set."""

    on_replica_set = True

    async def test_satisfied(self) -> None:
        """A write concern that can be kept changes nothing."""
        for write_concern in (WriteConcern(w=1), WriteConcern(w="majority", wtimeout=10_000), WriteConcern(j=True)):
            things = self.things.with_options(write_concern=write_concern)
            self.assertTrue((await things.insert_one({})).acknowledged)
            self.assertEqual(self.commands.sent[-1]["writeConcern"], write_concern.document)

    async def test_unsatisfiable(self) -> None:
        """A write concern that this set can never keep is an error of every write, and the write is done."""
        things = self.things.with_options(write_concern=WriteConcern(w=9))
        writes: list[Callable[[], defer.Deferred[Any]]] = [
            lambda: things.insert_one({"_id": 1}),
            lambda: things.update_one({"_id": 1}, {"$set": {"a": 1}}),
            lambda: things.find_one_and_update({"_id": 1}, {"$set": {"b": 1}}),
            lambda: things.replace_one({"_id": 2}, {}, upsert=True),
            lambda: things.delete_one({"_id": 2}),
        ]
        for write in writes:
            error = await self.failure(write(), WriteConcernError)
            self.assertEqual(error.code, 100)
        self.assertEqual(await self.contents(), [{"_id": 1, "a": 1, "b": 1}])

    async def test_timeout(self) -> None:
        """When wtimeout passes it is an error of its own class."""
        concern_error = {"code": 64, "errmsg": "waiting for replication timed out", "errInfo": {"wtimeout": True}}
        await self.fail_command("update", writeConcernError=concern_error)
        error = await self.failure(self.things.update_one({}, {"$set": {"a": 1}}), WTimeoutError)
        self.assertEqual((error.code, error.timeout, error.details["errInfo"]), (64, True, {"wtimeout": True}))

    async def test_concurrent(self) -> None:
        """A hundred writes at once are a hundred writes."""
        await defer.gatherResults([self.things.insert_one({"_id": number}) for number in range(100)])
        increments = [self.things.update_one({"_id": 5}, {"$inc": {"n": 1}}) for _ in range(100)]
        await defer.gatherResults(increments)
        self.assertEqual(await self.things.count_documents({}), 100)
        found = await self.things.find_one(5)
        assert found is not None
        self.assertEqual(found["n"], 100)


class ManagementTests(CollectionTestCase):
    """Indexes and the collection as a whole."""

    async def test_indexes(self) -> None:
        """Indexes are made, described and dropped."""
        self.assertEqual(await self.things.list_indexes(), [])
        self.assertEqual(await self.things.index_information(), {})
        await self.things.drop_index("none")
        self.assertEqual(await self.things.create_index([("a", 1), ("b", -1)], unique=True), "a_1_b_-1")
        self.assertEqual(await self.things.create_index("c", collation=CASELESS, name="mine"), "mine")
        information = await self.things.index_information()
        described = {"v": 2, "key": [("a", 1), ("b", -1)], "name": "a_1_b_-1", "unique": True}
        self.assertEqual(information["a_1_b_-1"], described)
        self.assertEqual(set(information), {"_id_", "a_1_b_-1", "mine"})
        for kind in (RawBSONDocument, SON):
            others = self.things.with_options(codec_options=CodecOptions(document_class=kind))
            self.assertEqual({type(index) for index in await others.list_indexes()}, {dict})
            self.assertEqual(await others.index_information(), information)
        await self.things.drop_index([("a", 1), ("b", -1)])
        await self.failure(self.things.drop_index("a_1_b_-1"), OperationFailure)
        await self.things.drop_indexes()
        self.assertEqual([index["name"] for index in await self.things.list_indexes()], ["_id_"])

    async def test_search_indexes(self) -> None:
        """A server without search says so itself, and the caller hears it."""
        for searching in (
            self.things.create_search_index({"definition": {"mappings": {"dynamic": True}}}),
            self.things.update_search_index("all", {"mappings": {"dynamic": True}}),
            self.things.drop_search_index("all"),
        ):
            error = await self.failure(searching, OperationFailure)
            # Not known before MongoDB 7.0; there, not for a server without a search process.
            self.assertIn(error.code, (59, 31082))
        error = await self.failure(self.things.list_search_indexes(), OperationFailure)
        self.assertIn("$listSearchIndexes", str(error))

    async def test_collection(self) -> None:
        """A collection is dropped, renamed and described."""
        await self.things.drop()
        self.assertEqual(await self.things.options(), {})
        await self.client.txmongo_tests.create_collection("things", capped=True, size=4096)
        self.assertEqual(await self.things.options(), {"capped": True, "size": 4096})
        raw = self.things.with_options(codec_options=CodecOptions(document_class=RawBSONDocument))
        self.assertIs(type(await raw.options()), dict)
        others = self.client.txmongo_tests.others
        await others.drop()
        await self.things.rename("others")
        self.assertTrue((await others.options())["capped"])
        await self.failure(self.things.rename("others"), OperationFailure)
        await others.drop()

    async def test_aggregation_that_writes(self) -> None:
        """$out and $merge store what the pipeline makes, awaited or not at all iterated."""
        others = self.client.txmongo_tests.others
        await others.drop()
        await self.things.insert_many([{"_id": number} for number in range(3)])
        self.assertEqual(await self.things.aggregate([{"$match": {"_id": 1}}, {"$out": "others"}]), [])
        self.assertEqual(await others.find(), [{"_id": 1}])
        await self.things.aggregate([{"$merge": "others"}], batchSize=0)
        self.assertEqual(await others.count_documents({}), 3)
        await others.drop()
