"""``txmongo.bulk``: what the models become, and which batch is sent when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bson import encode
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo.collation import Collation
from pymongo.operations import DeleteMany, DeleteOne, IndexModel, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.writing import CONTEXT, target
from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation
from txmongo._ops.bulk_write import DeleteBatch, InsertBatch, Run, UpdateBatch, WriteBatch
from txmongo._ops.writes import WriteTarget
from txmongo.bulk import Bulk, documents_with_ids, insert_run, runs_of
from txmongo.errors import AutoReconnect, BulkWriteError, ConfigurationError, InvalidOperation, OperationFailure

ACKNOWLEDGED = WriteConcern()
UNACKNOWLEDGED = WriteConcern(w=0)


def statements(*models: Any, ordered: bool = True, write_concern: WriteConcern = ACKNOWLEDGED) -> list[Any]:
    """The statements of all runs."""
    runs = runs_of(list(models), ordered=ordered, write_concern=write_concern)
    return [statement for run in runs for statement in run.statements]


class ModelTests(SynchronousTestCase):
    """What each model becomes."""

    def test_insert(self) -> None:
        """InsertOne is its document, the caller's own, which gets an _id."""
        document: dict[str, Any] = {"a": 1}
        [statement] = statements(InsertOne(document))
        self.assertIs(statement, document)
        self.assertIsInstance(document["_id"], ObjectId)
        given = {"_id": 5}
        statements(InsertOne(given))
        self.assertEqual(given, {"_id": 5})
        raw = RawBSONDocument(encode({"a": 1}))
        self.assertIs(statements(InsertOne(raw))[0], raw)

    def test_ids(self) -> None:
        """Among other writes too, documents get their _ids in the order of the list; those that have one keep it."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        for ordered in (True, False):
            given: list[Any] = [{}, SON(), {"_id": 5}, RawBSONDocument(encode({"a": 1})), {"a": 1}]
            models = [model for document in given for model in (InsertOne(document), UpdateOne({}, update))]
            found = statements(*models, ordered=ordered)
            self.assertEqual([each for each in found if "u" not in each], given)
            made = [given[place]["_id"] for place in (0, 1, 4)]
            self.assertEqual(made, sorted(made))
            self.assertEqual({type(each) for each in made}, {ObjectId})
            self.assertEqual(given[2:4], [{"_id": 5}, RawBSONDocument(encode({"a": 1}))])

    def test_subclass(self) -> None:
        """A model of the application's own class is what it derives from."""

        class Mine(InsertOne[Any]):
            pass

        document: dict[str, Any] = {}
        self.assertIs(statements(Mine(document))[0], document)
        self.assertIsInstance(document["_id"], ObjectId)

    def test_update_one(self) -> None:
        """UpdateOne keeps every option."""
        [statement] = statements(
            UpdateOne(
                {"a": 1},
                {"$set": {"b.$[e]": 2}},
                upsert=True,
                collation=Collation("en"),
                array_filters=[{"e": 1}],
                hint=[("a", 1)],
                sort={"a": -1},
            )
        )
        expected = {
            "q": {"a": 1},
            "u": {"$set": {"b.$[e]": 2}},
            "multi": False,
            "upsert": True,
            "collation": {"locale": "en"},
            "arrayFilters": [{"e": 1}],
            "hint": {"a": 1},
            "sort": {"a": -1},
        }
        self.assertEqual(statement, expected)

    def test_update_many(self) -> None:
        """UpdateMany keeps every option, and takes a list of stages."""
        [statement] = statements(
            UpdateMany({}, [{"$set": {"b": 2}}], upsert=False, collation={"locale": "en"}, array_filters=[], hint="a_1")
        )
        expected = {
            "q": {},
            "u": [{"$set": {"b": 2}}],
            "multi": True,
            "upsert": False,
            "collation": {"locale": "en"},
            "arrayFilters": [],
            "hint": "a_1",
        }
        self.assertEqual(statement, expected)

    def test_replace_one(self) -> None:
        """ReplaceOne keeps every option."""
        [statement] = statements(
            ReplaceOne({"a": 1}, {"b": 2}, upsert=True, collation=Collation("en"), hint="a_1", sort={"a": -1})
        )
        expected = {
            "q": {"a": 1},
            "u": {"b": 2},
            "multi": False,
            "upsert": True,
            "collation": {"locale": "en"},
            "hint": "a_1",
            "sort": {"a": -1},
        }
        self.assertEqual(statement, expected)

    def test_deletes(self) -> None:
        """DeleteOne and DeleteMany keep every option."""
        found = statements(DeleteOne({"a": 1}, collation=Collation("en"), hint="a_1"), DeleteMany({}, hint=[("a", 1)]))
        one = {"q": {"a": 1}, "limit": 1, "collation": {"locale": "en"}, "hint": "a_1"}
        self.assertEqual(found, [one, {"q": {}, "limit": 0, "hint": {"a": 1}}])

    def test_what_was_not_given(self) -> None:
        """Options that a model was not given are not sent."""
        found = statements(UpdateOne({}, {"$set": {}}), ReplaceOne({}, {}), DeleteOne({}))
        for statement in found:
            self.assertFalse({"collation", "hint", "sort", "arrayFilters"} & set(statement))
            self.assertFalse(statement.get("upsert"))

    def test_kinds_and_retries(self) -> None:
        """Runs have the class of their batches and know whether a statement may change many documents."""
        models = [InsertOne({}), UpdateOne({}, {"$a": 1}), UpdateMany({}, {"$a": 1}), DeleteMany({}), DeleteOne({})]
        runs = runs_of(models, ordered=True, write_concern=ACKNOWLEDGED)
        self.assertEqual([run.batch for run in runs], [InsertBatch, UpdateBatch, DeleteBatch])
        self.assertEqual([run.retryable for run in runs], [True, False, False])
        runs = runs_of(reversed(models), ordered=False, write_concern=ACKNOWLEDGED)
        self.assertEqual([list(run.indexes) for run in runs], [[4], [2, 3], [0, 1]])

    def test_wrong_requests(self) -> None:
        """What is no list of models is refused; no document gets into the text."""
        wrong: list[Any] = [
            None,
            5,
            "InsertOne",
            {"a": InsertOne({})},
            InsertOne({}),
            [{"secret": 1}],
            [IndexModel("secret")],
        ]
        for requests in wrong:
            error = self.assertRaises(TypeError, runs_of, requests, ordered=True, write_concern=ACKNOWLEDGED)
            self.assertIn("requests", str(error))
            self.assertNotIn("secret", str(error))
        self.assertRaises(InvalidOperation, runs_of, [], ordered=True, write_concern=ACKNOWLEDGED)

    def test_wrong_arguments(self) -> None:
        """The content of a model is checked as the arguments of the single writes are, by PyMongo or by us."""
        text: Any = "text"
        wrong: list[tuple[Callable[[], Any], str]] = [
            (lambda: InsertOne(text), "document"),
            (lambda: UpdateOne(text, {"$set": {}}), "filter"),
            (lambda: UpdateOne({}, {"$set": {}}, array_filters=text), "array_filters"),
            (lambda: UpdateOne({}, {"$set": {}}, upsert=text), "upsert"),
            (lambda: UpdateOne({}, {"$set": {}}, sort=text), "sort"),
            (lambda: UpdateOne({}, {"$set": {}}, collation=text), "collation"),
            (lambda: ReplaceOne({}, text), "replacement"),
            (lambda: ReplaceOne({}, {}, upsert=text), "upsert"),
            (lambda: DeleteOne(text), "filter"),
        ]
        for model, name in wrong:
            error = self.assertRaises(TypeError, lambda model=model: statements(model()))
            self.assertIn(name, str(error))
        bad: list[Any] = [UpdateOne({}, {"a": 1}), UpdateMany({}, {}), ReplaceOne({}, {"$set": {}})]
        for value in bad:
            self.assertRaises(ValueError, statements, value)

    def test_unacknowledged(self) -> None:
        """With w=0 no collation and no array filters can be used."""
        update: dict[str, Any] = {"$set": {}}
        for model in (
            UpdateOne({}, update, collation=Collation("en")),
            UpdateOne({}, update, array_filters=[]),
            DeleteMany({}, collation=Collation("en")),
        ):
            self.assertRaises(ConfigurationError, statements, model, write_concern=UNACKNOWLEDGED)


class DocumentsTests(SynchronousTestCase):
    """The documents of an insert_many."""

    def test_ids(self) -> None:
        """Documents without an _id get one, in the caller's own objects; raw BSON stays as it is."""
        given: list[Any] = [{"a": 1}, {"_id": 5}, RawBSONDocument(encode({"_id": 7}))]
        inserted, ids = documents_with_ids(iter(given))
        self.assertEqual(ids, [given[0]["_id"], 5])
        for document, original in zip(inserted, given, strict=True):
            self.assertIs(document, original)

    def test_wrong(self) -> None:
        """Anything but a non-empty iterable of documents is refused."""
        wrong: list[Any] = [None, 1, {}, {"a": 1}, "text", [], [[]], [{}, None]]
        for documents in wrong:
            error = self.assertRaises(TypeError, documents_with_ids, documents)
            self.assertIn("document", str(error))


class Server:
    """Encodes what it is given, and answers when the test says so."""

    def __init__(self, **limits: Any) -> None:
        self.description = StreamDescription(max_wire_version=17, **limits)
        self.batches: list[WriteBatch] = []
        self.commands: list[dict[str, Any]] = []
        self.waiting: list[Deferred[Any]] = []

    def execute(self, operation: Operation[Any]) -> Deferred[Any]:
        """As the executor does it."""
        assert isinstance(operation, WriteBatch)
        command = operation.build(self.description)
        operation.encode(command, self.description)
        self.batches.append(operation)
        self.commands.append(command)
        deferred: Deferred[Any] = Deferred()
        if not operation.acknowledged:
            deferred.callback(operation.parse(None, CONTEXT))
            return deferred
        deferred.addCallback(operation.parse, CONTEXT)
        self.waiting.append(deferred)
        return deferred

    def answer(self, n: int = 0, **fields: Any) -> None:
        """Answer the oldest command."""
        self.waiting.pop(0).callback({"ok": 1, "n": n, **fields})


class SendTests(SynchronousTestCase):
    """Batches, one after another."""

    def bulk(self, server: Server, runs: list[Run], ordered: bool = True, where: WriteTarget | None = None) -> Bulk:
        """A bulk write to that server."""
        return Bulk(server.execute, target() if where is None else where, runs, ordered=ordered)

    def details(self, result: Deferred[dict[str, Any] | None]) -> dict[str, Any]:
        """The result document that is there now."""
        details = self.successResultOf(result)
        assert details is not None
        return details

    def inserts(self, count: int) -> list[Run]:
        """A run of documents."""
        return [insert_run([{"_id": number} for number in range(count)])]

    def several(self, ordered: bool = True) -> list[Run]:
        """One run of each kind."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        models = [InsertOne({"_id": 1}), UpdateOne({}, update), DeleteOne({})]
        return runs_of(models, ordered=ordered, write_concern=ACKNOWLEDGED)

    def test_one_batch(self) -> None:
        """What fits one batch is one command, written at the call, and the result is there with its reply."""
        server = Server()
        result = self.bulk(server, self.inserts(3)).send()
        self.assertEqual(len(server.commands), 1)
        self.assertNoResult(result)
        server.answer(3)
        self.assertEqual(self.details(result)["nInserted"], 3)

    def test_batches_in_turn(self) -> None:
        """A batch is sent when the one before it was answered; the counts add up."""
        server = Server(max_write_batch_size=2)
        result = self.bulk(server, self.inserts(5)).send()
        for expected in (1, 2, 3):
            self.assertEqual(len(server.commands), expected)
            server.answer(len(server.commands[-1]["documents"]))
        self.assertEqual(self.details(result)["nInserted"], 5)
        sent = [document["_id"] for command in server.commands for document in command["documents"]]
        self.assertEqual(sent, [0, 1, 2, 3, 4])

    def test_runs_in_turn(self) -> None:
        """Runs follow one another as batches do."""
        server = Server()
        result = self.bulk(server, self.several()).send()
        server.answer(1)
        server.answer(1, nModified=1)
        server.answer(1)
        self.assertEqual([next(iter(command)) for command in server.commands], ["insert", "update", "delete"])
        details = self.details(result)
        self.assertEqual([details[key] for key in ("nInserted", "nMatched", "nModified", "nRemoved")], [1, 1, 1, 1])

    def test_ordered_stops(self) -> None:
        """An ordered bulk write ends with the first write error."""
        server = Server(max_write_batch_size=2)
        result = self.bulk(server, self.inserts(6)).send()
        server.answer(2)
        server.answer(1, writeErrors=[{"index": 1, "code": 11000, "errmsg": "dup"}])
        error = self.failureResultOf(result, BulkWriteError).value
        self.assertEqual(len(server.commands), 2)
        self.assertEqual(error.details["nInserted"], 3)
        self.assertEqual(error.details["writeErrors"], [{"index": 3, "code": 11000, "errmsg": "dup", "op": {"_id": 3}}])

    def test_unordered_goes_on(self) -> None:
        """An unordered one tries everything, and lists its errors by the caller's indexes, sorted."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        models = [UpdateOne({}, update), InsertOne({"_id": 1}), InsertOne({"_id": 2})]
        server = Server()
        result = self.bulk(server, runs_of(models, ordered=False, write_concern=ACKNOWLEDGED), ordered=False).send()
        server.answer(0, writeErrors=[{"index": 0, "code": 1, "errmsg": ""}, {"index": 1, "code": 1, "errmsg": ""}])
        server.answer(0, writeErrors=[{"index": 0, "code": 1, "errmsg": ""}])
        self.assertEqual([command["ordered"] for command in server.commands], [False, False])
        error = self.failureResultOf(result, BulkWriteError).value
        self.assertEqual([entry["index"] for entry in error.details["writeErrors"]], [0, 1, 2])

    def test_write_concern_error(self) -> None:
        """A write concern error stops nothing and is told in the end."""
        server = Server(max_write_batch_size=1)
        result = self.bulk(server, self.inserts(2)).send()
        server.answer(1, writeConcernError={"code": 64, "errmsg": "late"})
        server.answer(1)
        error = self.failureResultOf(result, BulkWriteError).value
        self.assertEqual(error.details["writeConcernErrors"], [{"code": 64, "errmsg": "late"}])
        self.assertEqual(error.details["nInserted"], 2)

    def test_unconfirmed(self) -> None:
        """A write concern error of a server that steps down ends it, with what was done until then."""
        server = Server(max_write_batch_size=1)
        result = self.bulk(server, self.inserts(3)).send()
        server.answer(1)
        concern_error = {"code": 91, "errmsg": "shutting down"}
        server.answer(1, writeConcernError=concern_error, errorLabels=["RetryableWriteError"])
        error = self.failureResultOf(result, BulkWriteError).value
        self.assertEqual(len(server.commands), 2)
        self.assertEqual(error.details["nInserted"], 2)
        self.assertEqual(
            error.details["writeConcernErrors"], [{**concern_error, "errorLabels": ["RetryableWriteError"]}]
        )

    def test_failed_command(self) -> None:
        """A command that fails as a whole ends it with that error, which tells what the batches before it did."""
        for answered in (0, 1):
            server = Server(max_write_batch_size=1)
            result = self.bulk(server, self.inserts(3)).send()
            for _ in range(answered):
                server.answer(1)
            server.waiting.pop().errback(AutoReconnect("gone"))
            error: Any = self.failureResultOf(result, AutoReconnect).value
            self.assertEqual(error.partial_result.inserted_count, answered)
            self.assertEqual(len(server.commands), answered + 1)

    def test_cancelled(self) -> None:
        """Cancelling it cancels the batch under way and sends no other."""
        for answered in (0, 1):
            server = Server(max_write_batch_size=1)
            result = self.bulk(server, self.inserts(3)).send()
            for _ in range(answered):
                server.answer(1)
            result.cancel()
            self.failureResultOf(result, CancelledError)
            self.assertEqual(len(server.commands), answered + 1)

    def test_session(self) -> None:
        """Every batch is done in the session that was given."""
        session = object()
        server = Server(max_write_batch_size=1)
        Bulk(server.execute, target(), self.inserts(2), ordered=True, session=session).send()
        server.answer(1)
        self.assertEqual([batch.session for batch in server.batches], [session, session])

    def test_options(self) -> None:
        """Each command gets the options that it knows."""
        server = Server()
        bulk = Bulk(
            server.execute,
            target(),
            self.several(),
            ordered=True,
            comment="c",
            let={"v": 1},
            bypass_document_validation=True,
        )
        bulk.send()
        server.answer(1)
        server.answer(1)
        insert, update, delete = server.commands
        self.assertEqual([command["comment"] for command in server.commands], ["c", "c", "c"])
        self.assertEqual([command.get("let") for command in server.commands], [None, {"v": 1}, {"v": 1}])
        self.assertTrue(insert["bypassDocumentValidation"] and update["bypassDocumentValidation"])
        self.assertNotIn("bypassDocumentValidation", delete)

    def test_unacknowledged(self) -> None:
        """Unordered and unacknowledged, all is sent at once and there is no result document."""
        server = Server(max_write_batch_size=1)
        result = self.bulk(server, self.several(False), ordered=False, where=target(w=0)).send()
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual([batch.acknowledged for batch in server.batches], [False, False, False])
        self.assertEqual([command["writeConcern"] for command in server.commands], [{"w": 0}] * 3)

    def test_unacknowledged_and_ordered(self) -> None:
        """Ordered and unacknowledged, the end of each run but the last is waited for; an error stops it silently."""
        server = Server()
        result = self.bulk(server, self.several(), where=target(w=0)).send()
        server.answer(1)
        server.answer(1)
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual([batch.acknowledged for batch in server.batches], [True, True, False])
        server = Server()
        result = self.bulk(server, self.several(), where=target(w=0)).send()
        server.answer(0, writeErrors=[{"index": 0, "code": 1, "errmsg": ""}])
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(len(server.commands), 1)

    def test_unacknowledged_and_ordered_failure(self) -> None:
        """A command that the server refuses as a whole stops an ordered unacknowledged bulk write silently too."""
        server = Server()
        result = self.bulk(server, self.several(), where=target(w=0)).send()
        server.waiting.pop().errback(OperationFailure("no"))
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(len(server.commands), 1)
