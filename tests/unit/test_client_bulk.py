"""``ConnectionPool.bulk_write``: commands, results and errors, against scripted servers of MongoDB 8.0 in memory.

The numbers in names are those of the CRUD specification's prose tests, with limits that are smaller than a server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bson
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo.collation import Collation
from pymongo.errors import ClientBulkWriteException
from pymongo.monitoring import CommandListener
from pymongo.operations import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.results import ClientBulkWriteResult
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred

from tests.unit.clients import SET_OF_ONE, ClientCase
from tests.unit.ops.writing import sent
from txmongo._cmap.description import StreamDescription
from txmongo._ops.client_bulk_write import ClientBulkOptions, ClientBulkWrite, ClientWrite
from txmongo.connection import ConnectionPool
from txmongo.errors import (
    ConfigurationError,
    DocumentTooLarge,
    InvalidOperation,
    OperationFailure,
    ProtocolError,
    ServerSelectionTimeoutError,
    TimeExceeded,
)
from txmongo.testing import FakeServer

NAMESPACE = "db.coll"
DONE = {"insert": "nInserted", "update": "nMatched", "delete": "nDeleted"}
#: An error after which a retryable write is tried again at once.
AGAIN = {"ok": 0.0, "code": 262, "errmsg": "ExceededTimeLimit", "errorLabels": ["RetryableWriteError"]}
DUPLICATE = {"code": 11000, "errmsg": "duplicate key"}


def kind_of(op: Mapping[str, Any]) -> str:
    """What an element of ``ops`` does."""
    return next(iter(op))


def insert(number: int = 0, **fields: Any) -> InsertOne[dict[str, Any]]:
    """An insert of a small document."""
    return InsertOne({"_id": number, **fields}, namespace=NAMESPACE)


def answer(
    command: Mapping[str, Any], failing: Mapping[int, Mapping[str, Any]] | None = None, **beside: Any
) -> dict[str, Any]:
    """The reply of a server that does what it is told, but for the writes that fail."""
    results: list[dict[str, Any]] = []
    counts = dict.fromkeys(("nErrors", "nInserted", "nUpserted", "nMatched", "nModified", "nDeleted"), 0)
    for index, op in enumerate(command["ops"]):
        if index in (failing or {}):
            counts["nErrors"] += 1
            results.append({"ok": 0.0, "idx": index, "n": 0, **(failing or {})[index]})
            if command["ordered"]:
                break
            continue
        counts[DONE[kind_of(op)]] += 1
        if not command["errorsOnly"]:
            changed = {"nModified": 1} if kind_of(op) == "update" else {}
            results.append({"ok": 1.0, "idx": index, "n": 1, **changed})
    cursor = {"id": Int64(0), "ns": "admin.$cmd.bulkWrite", "firstBatch": results}
    return {"cursor": cursor, **counts, **beside}


class Listener(CommandListener):
    """Keeps the commands that were started."""

    def __init__(self) -> None:
        self.started_events: list[Any] = []

    def started(self, event: Any) -> None:
        self.started_events.append(event)

    def succeeded(self, event: Any) -> None:
        """Nothing."""

    def failed(self, event: Any) -> None:
        """Nothing."""


class BulkCase(ClientCase):
    """A client of a server of MongoDB 8.0."""

    hello: Mapping[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def serve(self, **hello: Any) -> None:
        """Have a server with these limits."""
        self.server = self.servers["fake.example"] = FakeServer(
            {"bulkWrite": answer}, hello={"maxWireVersion": 25, **self.hello, **hello}
        )
        self.mongo = self.client()

    def sent(self) -> list[Any]:
        """The commands that came."""
        return self.server.commands("bulkWrite")

    def done(self, models: Any, **options: Any) -> Any:
        """The result of a bulk write."""
        return self.result(self.mongo.bulk_write(models, **options))

    def error(self, models: Any, *kinds: type[Exception], **options: Any) -> Any:
        """The error of a bulk write."""
        failing = self.started(self.mongo.bulk_write(models, **options))
        return self.failureResultOf(failing, *(kinds or (ClientBulkWriteException,))).value


class CommandTests(BulkCase):
    """What is sent."""

    def test_command(self) -> None:
        """One command of ``admin`` has all writes, and each collection once."""
        result = self.done(
            [
                InsertOne({"a": 1, "_id": 5}, namespace="db.a"),
                UpdateOne({"x": 1}, {"$set": {"y": 2}}, namespace="db.b"),
                ReplaceOne({"x": 1}, {"y": 2}, upsert=True, namespace="other.a.b"),
                DeleteMany({}, namespace="db.a"),
            ]
        )
        (command,) = self.sent()
        expected = {
            "bulkWrite": 1,
            "errorsOnly": True,
            "ordered": True,
            "$db": "admin",
            "ops": [
                {"insert": 0, "document": {"_id": 5, "a": 1}},
                {"update": 1, "filter": {"x": 1}, "updateMods": {"$set": {"y": 2}}, "multi": False},
                {"update": 2, "filter": {"x": 1}, "updateMods": {"y": 2}, "multi": False, "upsert": True},
                {"delete": 0, "filter": {}, "multi": True},
            ],
            "nsInfo": [{"ns": "db.a"}, {"ns": "db.b"}, {"ns": "other.a.b"}],
        }
        self.assertEqual(command, expected)
        self.assertIsInstance(result, ClientBulkWriteResult)
        counts = result.inserted_count, result.matched_count, result.upserted_count, result.deleted_count
        self.assertEqual((counts, result.modified_count, result.acknowledged), ((1, 2, 0, 1), 0, True))
        self.assertRaises(InvalidOperation, lambda: result.insert_results)

    def test_options(self) -> None:
        """Every option of the call and of the models goes where it belongs."""
        self.done(
            [
                UpdateMany(
                    {},
                    [{"$set": {"a": 1}}],
                    upsert=False,
                    collation=Collation("de"),
                    array_filters=[{"e": 1}],
                    hint="a_1",
                    namespace=NAMESPACE,
                ),
                UpdateOne({}, {"$set": {"a": 1}}, sort=SON([("a", -1)]), hint=[("a", 1)], namespace=NAMESPACE),
                DeleteOne({}, collation={"locale": "de"}, hint={"a": 1}, namespace=NAMESPACE),
            ],
            ordered=False,
            verbose_results=True,
            bypass_document_validation=False,
            comment="c",
            let={"v": 1},
            write_concern=WriteConcern("majority"),
        )
        (command,) = self.sent()
        for name, value in {
            "ordered": False,
            "errorsOnly": False,
            "bypassDocumentValidation": False,
            "comment": "c",
            "let": {"v": 1},
            "writeConcern": {"w": "majority"},
        }.items():
            self.assertEqual(command[name], value, name)
        first, second, third = command["ops"]
        self.assertEqual(first["collation"]["locale"], "de")
        expected = {"multi": True, "upsert": False, "arrayFilters": [{"e": 1}], "hint": "a_1"}
        self.assertEqual({name: first[name] for name in expected}, expected)
        self.assertEqual(second["sort"], {"a": -1})
        self.assertEqual(second["hint"], {"a": 1})
        self.assertNotIn("upsert", second)
        self.assertEqual((third["collation"], third["hint"]), ({"locale": "de"}, {"a": 1}))

    def test_identifiers(self) -> None:
        """A document without ``_id`` is given one, its first field; raw BSON is sent as it is."""
        document = {"x": 1}
        raw = RawBSONDocument(bson.encode({"x": 2}))
        result = self.done(
            [InsertOne(document, namespace=NAMESPACE), InsertOne(raw, namespace=NAMESPACE)], verbose_results=True
        )
        first, second = (op["document"] for op in self.sent()[0]["ops"])
        self.assertEqual((list(first), second), (["_id", "x"], {"x": 2}))
        self.assertEqual(document["_id"], first["_id"])
        inserted = [each.inserted_id for each in result.insert_results.values()]
        self.assertEqual(inserted, [first["_id"], None])

    def test_events(self) -> None:
        """Listeners are shown the command whole, as documents."""
        listener = Listener()
        self.mongo = self.client(event_listeners=[listener])
        self.done([insert(1)])
        (event,) = listener.started_events
        shown = {name: event.command[name] for name in ("ops", "nsInfo")}
        self.assertEqual(shown, {"ops": [{"insert": 0, "document": {"_id": 1}}], "nsInfo": [{"ns": NAMESPACE}]})
        self.assertEqual((event.command_name, event.database_name), ("bulkWrite", "admin"))

    def test_refused(self) -> None:
        """What is wrong with the arguments is said at the call."""
        bulk_write: Any = self.mongo.bulk_write
        for error, models, options in (
            (InvalidOperation, [], {}),
            (InvalidOperation, [InsertOne({})], {}),
            (TypeError, [InsertOne({}, namespace=5)], {}),  # type: ignore[arg-type]
            (TypeError, insert(), {}),
            (TypeError, [{}], {}),
            (ValueError, [UpdateOne({}, {"x": 1}, namespace=NAMESPACE)], {}),
            (ValueError, [ReplaceOne({}, {"$x": 1}, namespace=NAMESPACE)], {}),
            (ValueError, [insert()], {"session": object()}),
            (TypeError, [insert()], {"ordered": 1}),
            (TypeError, [insert()], {"verbose_results": "yes"}),
            (TypeError, [insert()], {"let": 1}),
            (TypeError, [insert()], {"write_concern": {"w": 1}}),
            (TypeError, [insert()], {"timeout": "soon"}),
        ):
            self.assertRaises(error, bulk_write, models, **options)
        self.turn()
        self.assertEqual(self.server.accepted, 0)

    def test_old_server(self) -> None:
        """A server before MongoDB 8.0 is not sent anything, and the error says what it would have to be."""
        self.serve(maxWireVersion=24)
        self.assertIn("MongoDB 8.0", str(self.error([insert()], InvalidOperation)))
        self.assertEqual(self.sent(), [])

    def test_no_server(self) -> None:
        """Without a server it fails as every operation."""
        self.server.refusing = True
        self.mongo = self.client(serverSelectionTimeoutMS=100)
        failing = self.started(self.mongo.bulk_write([insert()]))
        self.clock.advance(1)
        self.failureResultOf(failing, ServerSelectionTimeoutError)


class BatchTests(BulkCase):
    """Where a list is cut."""

    def sizes(self) -> list[int]:
        """How many writes each command had."""
        return [len(command["ops"]) for command in self.sent()]

    def test_many_3(self) -> None:
        """No more writes than ``maxWriteBatchSize`` are in one command, and the results are of all."""
        self.serve(maxWriteBatchSize=3)
        result = self.done([insert(number) for number in range(7)], verbose_results=True)
        self.assertEqual(self.sizes(), [3, 3, 1])
        self.assertEqual(result.inserted_count, 7)
        inserted = {index: each.inserted_id for index, each in result.insert_results.items()}
        self.assertEqual(inserted, {number: number for number in range(7)})

    def test_large_4(self) -> None:
        """No message is longer than ``maxMessageSizeBytes``."""
        self.serve(maxMessageSizeBytes=10_000)
        self.done([insert(number, text="x" * 4000) for number in range(5)])
        self.assertEqual(self.sizes(), [2, 2, 1])

    def room(self) -> int:
        """Bytes for the two sequences, by the specification's formula."""
        command = {"bulkWrite": 1, "errorsOnly": True, "ordered": True}
        return 10_000 - 1000 - len(bson.encode(command))

    def exact(self, size: int, namespace: str = NAMESPACE) -> InsertOne[dict[str, Any]]:
        """An insert whose element of ``ops`` has exactly this size."""
        empty = len(bson.encode({"insert": 0, "document": {"_id": 0, "a": ""}}))
        return InsertOne({"_id": 0, "a": "b" * (size - empty)}, namespace=namespace)

    def test_exact(self) -> None:
        """What just fits is sent, one byte more is the next command's."""
        self.serve(maxMessageSizeBytes=10_000)
        name = len(bson.encode({"ns": NAMESPACE}))
        for surplus, expected in ((0, [2]), (1, [1, 1])):
            self.server.received.clear()
            self.done([self.exact(5000), self.exact(self.room() - 5000 - name + surplus)])
            self.assertEqual(self.sizes(), expected)

    def test_namespaces_11(self) -> None:
        """Names of collections count, those alone that the command names for the first time."""
        self.serve(maxMessageSizeBytes=10_000)
        name = len(bson.encode({"ns": NAMESPACE}))
        small = len(bson.encode({"insert": 0, "document": {"_id": 0, "a": ""}}))
        full = self.exact(self.room() - name - small)
        self.done([full, self.exact(small)])
        self.done([full, self.exact(small, "db." + "c" * 50)])
        self.assertEqual(self.sizes(), [2, 1, 1])
        self.assertEqual(self.sent()[0]["nsInfo"], [{"ns": NAMESPACE}])
        self.assertEqual(self.sent()[1]["nsInfo"], [{"ns": NAMESPACE}])
        self.assertEqual(self.sent()[2]["nsInfo"], [{"ns": "db." + "c" * 50}])
        self.assertEqual(kind_of(self.sent()[2]["ops"][0]), "insert")
        self.assertEqual(self.sent()[2]["ops"][0]["insert"], 0)

    def test_no_room_12(self) -> None:
        """A write that fits no message is an error, whether its document or its namespace is too long."""
        self.serve(maxMessageSizeBytes=10_000)
        long_name = InsertOne({"_id": 0}, namespace="db." + "c" * 10_000)
        for model in (insert(0, text="x" * 10_000), long_name):
            self.assertIn("models[0]", str(self.error([model], InvalidOperation)))
        self.assertEqual(self.sent(), [])
        error = self.error([insert(1), long_name])
        self.assertIsInstance(error.error, InvalidOperation)
        self.assertIn("models[1]", str(error.error))
        self.assertEqual(error.partial_result.inserted_count, 1)

    def test_concern_errors_5(self) -> None:
        """Write concern errors end nothing, and are told of all commands together."""
        self.serve(maxWriteBatchSize=2)
        concern_error = {"code": 64, "errmsg": "waiting for replication timed out"}
        self.server.answer("bulkWrite", lambda command: answer(command, writeConcernError=concern_error))
        error = self.error([insert(number) for number in range(3)])
        self.assertEqual(error.write_concern_errors, [concern_error] * 2)
        self.assertEqual((error.partial_result.inserted_count, error.write_errors, error.error), (3, [], None))

    def test_write_errors_6(self) -> None:
        """Errors are told by the place of the model; in order the first ends it all."""
        for ordered, expected, inserted in ((False, [0, 2], 1), (True, [0], 0)):
            self.serve(maxWriteBatchSize=2)
            self.server.answer("bulkWrite", lambda command: answer(command, {0: DUPLICATE}))
            error = self.error([insert(number) for number in range(3)], ordered=ordered)
            self.assertEqual([each["idx"] for each in error.write_errors], expected)
            self.assertEqual(error.write_errors[0]["op"], {"insert": -1, "document": {"_id": 0}})
            self.assertEqual(len(self.sent()), 1 if ordered else 2)
            partial = error.partial_result
            self.assertEqual(0 if partial is None else partial.inserted_count, inserted)

    def test_partial(self) -> None:
        """There is a partial result if something is known to have been done, and only then."""
        for failing, ordered, partly in (
            ({0: DUPLICATE}, True, False),
            ({1: DUPLICATE}, True, True),
            ({0: DUPLICATE}, False, True),
            ({0: DUPLICATE, 1: DUPLICATE}, False, False),
        ):
            self.serve()
            self.server.answer("bulkWrite", lambda command, failing=failing: answer(command, failing))
            for verbose_results in (False, True):
                error = self.error([insert(0), insert(1)], ordered=ordered, verbose_results=verbose_results)
                self.assertEqual(error.partial_result is not None, partly, (failing, ordered))
                if partly and verbose_results:
                    self.assertEqual(len(error.partial_result.insert_results), 1)

    def test_verbose(self) -> None:
        """Each write has its result, of its kind."""
        self.server.answer(
            "bulkWrite",
            {
                "cursor": {
                    "id": 0,
                    "ns": "admin.$cmd.bulkWrite",
                    "firstBatch": [
                        {"ok": 1.0, "idx": 0, "n": 1},
                        {"ok": 1.0, "idx": 1, "n": 1, "nModified": 0, "upserted": {"_id": None}},
                        {"ok": 1.0, "idx": 2, "n": 3},
                    ],
                },
                "nErrors": 0,
                "nInserted": 1,
                "nUpserted": 1,
                "nMatched": 0,
                "nModified": 0,
                "nDeleted": 3,
            },
        )
        models = [
            insert(7),
            UpdateOne({}, {"$set": {"a": 1}}, upsert=True, namespace=NAMESPACE),
            DeleteMany({}, namespace=NAMESPACE),
        ]
        result = self.done(models, verbose_results=True)
        self.assertEqual(result.insert_results[0].inserted_id, 7)
        update = result.update_results[1]
        self.assertEqual((update.matched_count, update.modified_count, update.did_upsert), (1, 0, True))
        self.assertIsNone(update.upserted_id)
        self.assertEqual(result.delete_results[2].deleted_count, 3)
        self.assertEqual((result.upserted_count, result.deleted_count), (1, 3))


class CursorTests(BulkCase):
    """Results that come in several batches."""

    hello = SET_OF_ONE

    def page(self, name: str, cursor_id: int, *indexes: int) -> dict[str, Any]:
        """A batch of results of inserts."""
        results = [{"ok": 1.0, "idx": index, "n": 1} for index in indexes]
        return {"id": Int64(cursor_id), "ns": "admin.$cmd.bulkWrite", name: results}

    def first(self, *indexes: int, **counts: int) -> dict[str, Any]:
        """A reply with the first batch."""
        return {"cursor": self.page("firstBatch", 9, *indexes), "nErrors": 0, "nInserted": 3, **counts}

    def sessions(self) -> set[Any]:
        """Those of all commands."""
        return {each.document["lsid"]["id"] for each in self.server.received if "lsid" in each.document}

    def test_get_more_7(self) -> None:
        """The cursor is read to its end, in the session of the command, which is free after that."""
        self.server.answer("bulkWrite", self.first(0))
        self.server.answer(
            "getMore",
            {"cursor": self.page("nextBatch", 9, 1)},
            {"cursor": self.page("nextBatch", 0, 2)},
        )
        result = self.done([insert(number) for number in range(3)], verbose_results=True, comment="c")
        self.assertEqual(sorted(result.insert_results), [0, 1, 2])
        for command in self.server.commands("getMore"):
            self.assertEqual((command["getMore"], command["collection"]), (9, "$cmd.bulkWrite"))
            self.assertEqual((command["$db"], command["comment"]), ("admin", "c"))
        self.assertEqual(len(self.server.commands("getMore")), 2)
        self.assertEqual(len(self.sessions()), 1)
        self.assertEqual(self.mongo._executor.sessions.pool.in_use, 0)

    def test_get_more_in_transaction_8(self) -> None:
        """In a transaction all of it is part of the transaction."""
        self.server.answer("bulkWrite", self.first(0))
        self.server.answer("getMore", {"cursor": self.page("nextBatch", 0, 1, 2)})
        self.server.answer("commitTransaction", {})
        session = self.mongo.start_session()
        session.start_transaction()
        self.done([insert(number) for number in range(3)], session=session)
        self.result(session.commit_transaction())
        self.successResultOf(session.end_session())
        (command,), (get_more,) = self.sent(), self.server.commands("getMore")
        self.assertEqual((command["startTransaction"], command["autocommit"]), (True, False))
        self.assertEqual((get_more["txnNumber"], get_more["autocommit"]), (command["txnNumber"], False))
        self.assertNotIn("writeConcern", command)

    def test_get_more_fails_9(self) -> None:
        """If it cannot be read on, the error is told with what is known, and the cursor is killed."""
        self.serve(maxWriteBatchSize=3)
        self.server.answer("bulkWrite", self.first(0))
        self.server.answer("getMore", {"ok": 0.0, "code": 8, "errmsg": "unknown"})
        self.server.answer("killCursors", {})
        error = self.error([insert(number) for number in range(4)], verbose_results=True)
        self.assertIsInstance(error.error, OperationFailure)
        self.assertEqual((error.error.code, error.__cause__), (8, error.error))
        self.assertEqual(error.partial_result.inserted_count, 3)
        self.assertEqual(list(error.partial_result.insert_results), [0])
        self.turn()
        (kill,) = self.server.commands("killCursors")
        self.assertEqual((kill["killCursors"], kill["cursors"], kill["$db"]), ("$cmd.bulkWrite", [9], "admin"))
        self.assertEqual(len(self.sent()), 1)
        self.assertEqual(self.mongo._executor.sessions.pool.in_use, 0)

    def test_malformed(self) -> None:
        """Results that no server gives are an error, and the cursor is killed."""
        self.server.answer("killCursors", {})
        for wrong in ({}, {"ok": 1.0}, {"ok": 1.0, "idx": 5, "n": 1}, {"ok": 0.0, "idx": "first"}, {"idx": 0}, 5):
            cursor = {"id": Int64(9), "ns": "admin.$cmd.bulkWrite", "firstBatch": [wrong]}
            self.server.answer("bulkWrite", {"cursor": cursor, "nErrors": 1, "nInserted": 0})
            error = self.error([insert(0)], ProtocolError, verbose_results=True)
            self.assertIn("bulkWrite", str(error))
        self.turn()
        self.assertEqual(len(self.server.commands("killCursors")), 6)
        self.assertEqual(self.mongo._executor.sessions.pool.in_use, 0)

    def test_error_in_order(self) -> None:
        """After the error that ends it nothing more is read, and the cursor is killed."""
        failed = {"ok": 0.0, "idx": 0, "n": 0, **DUPLICATE}
        cursor = {"id": Int64(9), "ns": "admin.$cmd.bulkWrite", "firstBatch": [failed]}
        self.server.answer("bulkWrite", {"cursor": cursor, "nErrors": 1})
        self.server.answer("killCursors", {})
        error = self.error([insert(0), insert(1)])
        self.turn()
        self.assertEqual([each["idx"] for each in error.write_errors], [0])
        self.assertIsNone(error.partial_result)
        self.assertEqual((len(self.server.commands("killCursors")), self.server.commands("getMore")), (1, []))

    def test_cancelled(self) -> None:
        """Cancelled while it reads, it kills the cursor."""
        self.server.answer("bulkWrite", self.first(0))
        self.server.answer("getMore", Deferred())
        self.server.answer("killCursors", {})
        waiting = self.started(self.mongo.bulk_write([insert(number) for number in range(3)]))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.turn()
        self.assertEqual([len(self.server.commands(name)) for name in ("getMore", "killCursors")], [1, 1])
        self.assertEqual(self.mongo._executor.sessions.pool.in_use, 0)


class RetryTests(BulkCase):
    """What is sent again, and what errors that end it are told as."""

    hello = SET_OF_ONE

    def test_retried(self) -> None:
        """A command whose writes are of one document each is sent again, under the same number and with the same."""
        self.serve(maxWriteBatchSize=2)
        self.server.answer("bulkWrite", AGAIN, answer, answer)
        self.done([insert(number) for number in range(3)])
        first, again, second = self.sent()
        self.assertEqual((first["txnNumber"], first["ops"]), (again["txnNumber"], again["ops"]))
        self.assertEqual((len(first["ops"]), len(second["ops"])), (2, 1))
        self.assertGreater(second["txnNumber"], first["txnNumber"])

    def test_not_retried(self) -> None:
        """One with a write of many documents is sent once; the others of the same call may be repeated."""
        self.serve(maxWriteBatchSize=2)
        many = UpdateMany({}, {"$set": {"a": 1}}, namespace=NAMESPACE)
        for multi in (many, DeleteMany({}, namespace=NAMESPACE)):
            self.server.received.clear()
            self.server.answer("bulkWrite", answer, AGAIN, answer)
            error = self.error([insert(0), insert(1), multi])
            self.assertEqual(error.error.code, AGAIN["code"])
            first, second = self.sent()
            self.assertIn("txnNumber", first)
            self.assertNotIn("txnNumber", second)
            self.assertEqual(error.partial_result.inserted_count, 2)

    def test_write_concern_error(self) -> None:
        """A write concern error that asks for a retry gets one; the last is told with what was done."""
        concern_error = {"code": 91, "errmsg": "Replication is being shut down"}
        labelled = {"writeConcernError": concern_error, "errorLabels": ["RetryableWriteError"]}
        self.server.answer("bulkWrite", lambda command: answer(command, **labelled), answer)
        self.assertEqual(self.done([insert(0)]).inserted_count, 1)
        self.assertEqual(len(self.sent()), 2)
        self.server.answer("bulkWrite", lambda command: answer(command, **labelled))
        error = self.error([insert(0)])
        self.assertEqual(len(self.sent()), 4)
        self.assertEqual(error.partial_result.inserted_count, 1)
        told = {**concern_error, "errorLabels": ["RetryableWriteError"]}
        self.assertEqual(error.write_concern_errors, [told])

    def test_smaller_server(self) -> None:
        """What was sent once has to fit the server that it is sent to again; else that is an error."""
        writes = [ClientWrite("insert", NAMESPACE, {}, stored={"text": "x" * 4000})] * 3
        operation = ClientBulkWrite(writes, ClientBulkOptions({"ordered": True}))
        sizes = (10_000, 20_000, 5_000)
        large, larger, small = (StreamDescription(max_wire_version=25, max_message_size=size) for size in sizes)
        self.assertEqual(len(sent(operation, large)["ops"]), 2)
        self.assertEqual(len(sent(operation, larger)["ops"]), 2)
        self.assertRaises(DocumentTooLarge, operation.build, small)

    def test_top_level_error(self) -> None:
        """An error of the command is in the exception with its labels, and ends it; nothing else was told."""
        self.serve(maxWriteBatchSize=1)
        refused = {"ok": 0.0, "code": 8, "errmsg": "unknown", "errorLabels": ["TransientTransactionError"]}
        self.server.answer("bulkWrite", refused)
        error = self.error([insert(0), insert(1)], ordered=False)
        self.assertEqual((error.error.code, error.error.details["errmsg"]), (8, "unknown"))
        self.assertTrue(error.has_error_label("TransientTransactionError"))
        self.assertIsNone(error.partial_result)
        self.assertEqual(len(self.sent()), 1)

    def test_time(self) -> None:
        """Out of time before anything is known it fails as every operation; after that with what is known."""
        self.serve(maxWriteBatchSize=1)
        self.server.answer("bulkWrite", Deferred())
        waiting = self.started(self.mongo.bulk_write([insert(0)], timeout=5))
        self.clock.advance(6)
        self.failureResultOf(waiting, TimeExceeded)
        self.server.answer("bulkWrite", answer, Deferred())
        waiting = self.started(self.mongo.bulk_write([insert(0), insert(1)], timeout=5))
        self.clock.advance(6)
        error: Any = self.failureResultOf(waiting, ClientBulkWriteException).value
        self.assertIsInstance(error.error, TimeExceeded)
        self.assertEqual(error.partial_result.inserted_count, 1)


class UnacknowledgedTests(BulkCase):
    """``w=0``."""

    def write(self, models: list[Any], **options: Any) -> Deferred[Any]:
        """An unacknowledged bulk write."""
        return self.started(self.mongo.bulk_write(models, ordered=False, write_concern=WriteConcern(w=0), **options))

    def test_sent_15(self) -> None:
        """All commands are sent, and nothing is known of the result."""
        self.serve(maxWriteBatchSize=2)
        result = self.successResultOf(self.write([insert(number) for number in range(3)]))
        self.turn()
        self.assertFalse(result.acknowledged)
        self.assertRaises(InvalidOperation, lambda: result.inserted_count)
        self.assertEqual([len(command["ops"]) for command in self.sent()], [2, 1])
        self.assertEqual(self.sent()[0]["writeConcern"], {"w": 0})
        self.assertNotIn("lsid", self.sent()[0])

    def test_refused(self) -> None:
        """What wants to hear of the result is refused, whether the call or the client says ``w=0``."""
        client: ConnectionPool[Any] = self.client(w=0)
        unacknowledged = {"write_concern": WriteConcern(w=0)}
        session = self.mongo.start_session()
        for mongo, options in ((client, {}), (self.mongo, unacknowledged)):
            for more in ({}, {"ordered": True}, {"ordered": False, "verbose_results": True}):
                self.assertRaises(InvalidOperation, mongo.bulk_write, [insert()], **options, **more)
            with self.assertRaises(OperationFailure):
                mongo.bulk_write([insert()], ordered=False, bypass_document_validation=True, **options)
            collated = DeleteOne({}, collation=Collation("de"), namespace=NAMESPACE)
            with self.assertRaises(ConfigurationError):
                mongo.bulk_write([collated], ordered=False, **options)
        with self.assertRaises(ValueError):
            self.mongo.bulk_write([insert()], session, ordered=False, write_concern=WriteConcern(w=0))
        self.successResultOf(session.end_session())
        self.turn()
        self.assertEqual(self.sent(), [])

    def test_too_large_10(self) -> None:
        """What is too large is an error here, for the server's would not be heard."""
        self.serve(maxBsonObjectSize=2000)
        large = "x" * 2000
        for model in (insert(0, text=large), ReplaceOne({}, {"text": large}, namespace=NAMESPACE)):
            self.failureResultOf(self.write([model]), DocumentTooLarge)
        update = UpdateOne({}, {"$set": {"text": large}}, namespace=NAMESPACE)
        self.successResultOf(self.write([update]))
        very_large = "x" * (2000 + 16 * 1024)
        for model in (
            UpdateOne({}, {"$set": {"text": very_large}}, namespace=NAMESPACE),
            DeleteOne({"text": very_large}, namespace=NAMESPACE),
        ):
            self.failureResultOf(self.write([model]), DocumentTooLarge)
        self.failureResultOf(self.write([insert()], comment=very_large), DocumentTooLarge)
        self.turn()
        self.assertEqual(len(self.sent()), 1)

    def test_large_and_acknowledged(self) -> None:
        """With an answer it is the server's to refuse."""
        self.serve(maxBsonObjectSize=2000)
        self.done([insert(0, text="x" * 20_000)], comment="x" * 20_000)
        self.assertEqual(len(self.sent()), 1)


class TransactionTests(BulkCase):
    """In sessions."""

    hello = SET_OF_ONE

    def test_write_concern(self) -> None:
        """In a transaction a write concern cannot be given, and the client's does not count."""
        self.mongo = self.client(w=0)
        session = self.mongo.start_session()
        session.start_transaction(write_concern=WriteConcern(w=1))
        with self.assertRaisesRegex(InvalidOperation, "write_concern"):
            self.mongo.bulk_write([insert()], session, write_concern=WriteConcern(w=1))
        self.server.answer("abortTransaction", {})
        self.assertEqual(self.done([insert()], session=session).inserted_count, 1)
        self.assertNotIn("writeConcern", self.sent()[0])
        self.result(session.end_session())

    def test_bound(self) -> None:
        """All commands are done in the session that is bound."""
        self.serve(maxWriteBatchSize=1)

        async def run() -> Any:
            async with self.mongo.start_session() as session:
                async with session.bind(end_session=False):
                    await self.mongo.bulk_write([insert(0), insert(1)])
                return session.session_id

        lsid = self.result(Deferred.fromCoroutine(run()))
        self.assertEqual([command["lsid"] for command in self.sent()], [lsid] * 2)
