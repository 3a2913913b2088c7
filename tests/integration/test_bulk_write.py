"""Bulk writes at a real server, and beside PyMongo's."""

from __future__ import annotations

import copy
from typing import Any

import pymongo
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.collation import Collation
from pymongo.write_concern import WriteConcern
from twisted.internet import threads
from twisted.trial.unittest import SkipTest

from tests.integration.servers import CollectionTestCase
from txmongo.collection import Collection
from txmongo.connection import ConnectionPool
from txmongo.errors import BulkWriteError, InvalidOperation, OperationFailure

CASELESS = Collation("en", strength=2)

#: Some of everything, and errors in several places.
MIXED: list[Any] = [
    InsertOne({"_id": 1, "n": 1}),
    InsertOne({"_id": 2, "n": 1}),
    UpdateOne({"_id": 1}, {"$inc": {"n": 1}}),
    UpdateOne({"_id": "new"}, {"$set": {"n": 1}}, upsert=True),
    InsertOne({"_id": 1, "n": 2}),
    UpdateMany({"n": {"$gt": 0}}, {"$inc": {"n": 1}}),
    ReplaceOne({"_id": 7}, {"n": 7}, upsert=True),
    UpdateOne({"_id": 2}, {"$inc": {"n": "one"}}),
    DeleteOne({"_id": 2}),
    InsertOne({"_id": "new"}),
    DeleteMany({"n": {"$gt": 100}}),
]


class MixedTests(CollectionTestCase):
    """Writes of all kinds in one call."""

    async def test_result(self) -> None:
        """All is carried out in order, and counted."""
        result = await self.things.bulk_write(
            [
                InsertOne({"_id": 1, "n": 1}),
                InsertOne({"_id": 2, "n": 2}),
                UpdateOne({"_id": 1}, {"$inc": {"n": 10}}),
                UpdateMany({}, {"$inc": {"n": 100}}),
                ReplaceOne({"_id": 3}, {"n": 3}, upsert=True),
                UpdateOne({"_id": 4}, {"$set": {"n": 4}}, upsert=True),
                DeleteOne({"_id": 2}),
                DeleteMany({"n": {"$gt": 1000}}),
            ]
        )
        self.assertEqual(self.commands.names(), ["insert", "update", "delete"])
        self.assertEqual((result.inserted_count, result.matched_count, result.modified_count), (2, 3, 3))
        self.assertEqual((result.deleted_count, result.upserted_count), (1, 2))
        self.assertEqual(result.upserted_ids, {4: 3, 5: 4})
        self.assertEqual(await self.contents(), [{"_id": 1, "n": 111}, {"_id": 3, "n": 3}, {"_id": 4, "n": 4}])

    async def test_ordered_error(self) -> None:
        """An ordered bulk write stops at its first error and says what was done until then."""
        error = await self.failure(self.things.bulk_write(copy.deepcopy(MIXED)), BulkWriteError)
        self.assertEqual([entry["index"] for entry in error.details["writeErrors"]], [4])
        self.assertEqual(error.details["writeErrors"][0]["op"], {"_id": 1, "n": 2})
        self.assertEqual((error.details["nInserted"], error.details["nUpserted"]), (2, 1))
        self.assertEqual(len(await self.contents()), 3)

    async def test_unordered_errors(self) -> None:
        """An unordered one tries everything and lists its errors in the caller's order."""
        requests = copy.deepcopy(MIXED)
        error = await self.failure(self.things.bulk_write(requests, ordered=False), BulkWriteError)
        self.assertEqual([entry["index"] for entry in error.details["writeErrors"]], [4, 7])
        self.assertEqual(self.commands.names(), ["insert", "update", "delete"])
        self.assertEqual(error.details["writeErrors"][1]["op"]["u"], {"$inc": {"n": "one"}})

    async def test_as_pymongo(self) -> None:
        """Results and errors, details included, are those of PyMongo for the same writes."""
        for requests in (MIXED[:4], MIXED[5:7], MIXED[8:9], MIXED):
            for ordered in (True, False):
                ours = await outcome(self.things, requests, ordered)
                theirs = await threads.deferToThread(pymongo_outcome, self.uri, requests, ordered)
                self.assertEqual(ours, theirs)

    async def test_options(self) -> None:
        """The options of each model and of the whole do what they say."""
        await self.things.insert_many([{"_id": number, "name": name} for number, name in enumerate("aAbB")])
        await self.things.create_index("name", name="by name")
        result = await self.things.bulk_write(
            [
                UpdateMany({"name": "A"}, {"$set": {"grades": [1, 9]}}, collation=CASELESS),
                UpdateOne({"_id": 0}, {"$set": {"grades.$[g]": 0}}, array_filters=[{"g": {"$gt": 5}}], hint="_id_"),
                ReplaceOne({"name": "b"}, {"name": "replaced"}, hint=[("name", 1)]),
                DeleteOne({"name": "B"}, hint="by name"),
            ],
            comment={"why": 1},
        )
        self.assertEqual((result.modified_count, result.deleted_count), (4, 1))
        self.assertEqual({str(command.get("comment")) for command in self.commands.sent[-2:]}, {"{'why': 1}"})
        expected = [
            {"_id": 0, "name": "a", "grades": [1, 0]},
            {"_id": 1, "name": "A", "grades": [1, 9]},
            {"_id": 2, "name": "replaced"},
        ]
        self.assertEqual(await self.contents(), expected)

    async def test_let(self) -> None:
        """let gives values to the expressions of all models."""
        await self.needs("let", 5, 0)
        await self.things.insert_many([{"_id": number, "name": name} for number, name in enumerate("aAbB")])
        expression = {"$expr": {"$eq": ["$name", "$$wanted"]}}
        change = UpdateOne({"_id": 0}, [{"$set": {"let": "$$wanted"}}])
        result = await self.things.bulk_write([change, DeleteOne(expression)], let={"wanted": "B"})
        self.assertEqual((result.modified_count, result.deleted_count), (1, 1))
        self.assertEqual((await self.contents())[0], {"_id": 0, "name": "a", "let": "B"})
        self.assertEqual(await self.things.count_documents({}), 3)

    async def test_validation(self) -> None:
        """Validation is bypassed for inserts and updates if that is asked for."""
        await self.client.txmongo_tests.create_collection("things", validator={"a": {"$type": "int"}})
        requests = [InsertOne({"_id": 1, "a": "x"}), UpdateOne({}, {"$set": {"a": "y"}}), DeleteOne({"_id": 9})]
        await self.failure(self.things.bulk_write(requests), BulkWriteError)
        await self.things.bulk_write(requests, bypass_document_validation=True)
        self.assertEqual(await self.contents(), [{"_id": 1, "a": "y"}])

    async def test_failed_command(self) -> None:
        """A command that the server refuses as a whole is that error; what was done before stays."""
        requests = [InsertOne({"_id": 1}), UpdateOne({}, {"$set": {"a": 1}}), InsertOne({"_id": 2})]
        await self.fail_command("update", errorCode=8)
        error = await self.failure(self.things.bulk_write(requests), OperationFailure)
        self.assertEqual(error.code, 8)
        self.assertEqual(self.commands.names(), ["insert", "update"])
        self.assertEqual(await self.contents(), [{"_id": 1}])


class SplittingTests(CollectionTestCase):
    """What is more than the server takes in one command."""

    async def test_by_count(self) -> None:
        """No command has more than 100,000 statements; the errors' indexes are those of the whole."""
        documents: list[dict[str, Any]] = [{"_id": number} for number in range(100_002)]
        documents[100_001] = {"_id": 5}
        error = await self.failure(self.things.insert_many(documents), BulkWriteError)
        self.assertEqual([len(command["documents"]) for command in self.commands.sent], [100_000, 2])
        [entry] = error.details["writeErrors"]
        self.assertEqual((entry["index"], entry["op"]), (100_001, {"_id": 5}))
        self.assertEqual(error.details["nInserted"], 100_001)
        await self.things.drop()

    async def test_by_size(self) -> None:
        """No message is longer than the server takes."""
        filling = "x" * (11 * 1024 * 1024)
        result = await self.things.insert_many([{"_id": number, "filling": filling} for number in range(6)])
        self.assertEqual([len(command["documents"]) for command in self.commands.sent], [4, 2])
        self.assertEqual(result.inserted_ids, list(range(6)))
        self.commands.sent.clear()
        updates: list[Any] = [ReplaceOne({"_id": number}, {"filling": filling}) for number in range(5)]
        self.assertEqual((await self.things.bulk_write(updates)).matched_count, 5)
        self.assertEqual([len(command["updates"]) for command in self.commands.sent], [4, 1])
        await self.things.drop()


class UnacknowledgedTests(CollectionTestCase):
    """Bulk writes with w=0."""

    async def test_unordered(self) -> None:
        """All is tried, nothing is heard."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        result = await nothing.bulk_write([InsertOne({"_id": 1}), InsertOne({"_id": 1}), InsertOne({"_id": 2})], False)
        self.assertFalse(result.acknowledged)
        self.assertEqual(await self.contents(), [{"_id": 1}, {"_id": 2}])

    async def test_ordered(self) -> None:
        """After a write that is refused nothing more is done, and nothing is heard."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        requests = [InsertOne({"_id": 1}), UpdateOne({"_id": 1}, {"$inc": {"_id": 1}}), DeleteOne({"_id": 1})]
        result = await nothing.bulk_write(requests)
        self.assertFalse(result.acknowledged)
        self.assertEqual(self.commands.names(), ["insert", "update"])
        self.assertEqual(await self.contents(), [{"_id": 1}])


class WriteConcernTests(CollectionTestCase):
    """Bulk writes at a replica set whose write concern cannot be kept."""

    on_replica_set = True

    async def test_unsatisfiable(self) -> None:
        """All is done, and each command's write concern error is told."""
        things = self.things.with_options(write_concern=WriteConcern(w=9))
        requests = [InsertOne({"_id": 1}), UpdateOne({}, {"$set": {"a": 1}})]
        error = await self.failure(things.bulk_write(requests), BulkWriteError)
        self.assertEqual([entry["code"] for entry in error.details["writeConcernErrors"]], [100, 100])
        self.assertEqual((error.details["nInserted"], error.details["nModified"]), (1, 1))
        self.assertEqual(await self.contents(), [{"_id": 1, "a": 1}])


class UnheardTests(CollectionTestCase):
    """Bulk writes of a client without listeners, whose commands of few writes are put together in another way."""

    on_replica_set = True

    async def setUp(self) -> None:  # type: ignore[override]  # as that of all
        """Have such a client."""
        await super().setUp()
        unheard: ConnectionPool[dict[str, Any]] = ConnectionPool(self.uri)
        self.addCleanup(unheard.disconnect)
        self.unheard = unheard.txmongo_tests.things

    async def test_as_pymongo(self) -> None:
        """Results and errors, details included, are those of PyMongo for the same writes."""
        for requests in (MIXED[3:4], MIXED):
            for ordered in (True, False):
                ours = await outcome(self.unheard, requests, ordered)
                theirs = await threads.deferToThread(pymongo_outcome, self.uri, requests, ordered)
                self.assertEqual(ours, theirs)

    async def test_options(self) -> None:
        """Options and write concern go with every command."""
        things = self.unheard.with_options(write_concern=WriteConcern(w=9))
        requests = [InsertOne({"_id": 1}), UpdateOne({}, {"$set": {"a": 1}}, hint="_id_"), DeleteOne({"_id": 9})]
        error = await self.failure(things.bulk_write(requests, comment={"why": 1}), BulkWriteError)
        self.assertEqual([entry["code"] for entry in error.details["writeConcernErrors"]], [100, 100, 100])
        self.assertEqual((error.details["nInserted"], error.details["nModified"]), (1, 1))
        self.assertEqual(await self.contents(), [{"_id": 1, "a": 1}])

    async def test_sent_again(self) -> None:
        """A command whose connection was lost is sent again, and carried out once."""
        requests = [InsertOne({"_id": 1, "n": 1}), UpdateOne({"_id": 1}, {"$inc": {"n": 1}}), DeleteOne({"_id": 2})]
        for name in ("insert", "update", "delete"):
            await self.things.delete_many({})
            before = await self.failed_commands()
            await self.fail_command(name, closeConnection=True)
            result = await self.unheard.bulk_write(requests)
            self.assertEqual((result.inserted_count, result.modified_count, result.deleted_count), (1, 1, 0))
            self.assertEqual(await self.contents(), [{"_id": 1, "n": 2}])
            self.assertEqual(await self.failed_commands(), before + 1)

    async def failed_commands(self) -> int:
        """How many commands this server has failed because it was told to, since it runs; now it fails none."""
        answer = await self.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        count: int = answer["count"]
        return count

    async def test_large(self) -> None:
        """One document of several megabytes is as any other."""
        document = {"_id": 1, "content": "x" * 5_000_000}
        result = await self.unheard.bulk_write([InsertOne(document), ReplaceOne({"_id": 1}, {**document, "a": 1})])
        self.assertEqual((result.inserted_count, result.modified_count), (1, 1))
        self.assertTrue(await self.contents() == [{**document, "a": 1}])


class ClientTests(CollectionTestCase):
    """That of the client."""

    async def test_old_server(self) -> None:
        """A server that does not have it is not asked, and the caller is told which has."""
        if (await self.client.server_info())["versionArray"] >= [8]:
            raise SkipTest("this server has it")
        self.commands.sent.clear()
        models = [InsertOne({"_id": 1}, namespace="txmongo_tests.things")]
        error = await self.failure(self.client.bulk_write(models), InvalidOperation)
        self.assertIn("MongoDB 8.0", str(error))
        self.assertEqual(self.commands.names(), [])
        self.assertEqual(await self.contents(), [])


async def outcome(things: Collection[dict[str, Any]], requests: list[Any], ordered: bool) -> Any:
    """What a bulk write into a collection that is empty ends with."""
    await things.delete_many({})
    try:
        result = await things.bulk_write(copy.deepcopy(requests), ordered)
    except BulkWriteError as error:
        return str(error), error.code, error.details
    return result.bulk_api_result, result.acknowledged


def pymongo_outcome(uri: str, requests: list[Any], ordered: bool) -> Any:
    """What PyMongo's bulk write into an empty collection ends with; runs in a thread."""
    client: pymongo.MongoClient[Any] = pymongo.MongoClient(uri)
    with client:
        things = client.txmongo_tests.things
        things.delete_many({})
        try:
            result = things.bulk_write(copy.deepcopy(requests), ordered)
        except BulkWriteError as error:
            return str(error), error.code, error.details
        return result.bulk_api_result, result.acknowledged
