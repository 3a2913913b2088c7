"""``txmongo._ops.writes`` and the commands with one statement: what is sent, and what a reply means."""

from __future__ import annotations

from typing import Any

from bson import encode
from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo.results import DeleteResult, InsertOneResult, UpdateResult
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.writing import CONTEXT, SERVER, sent, target
from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import REPLY_CODEC_OPTIONS, Operation, RetryKind
from txmongo._ops.delete import DeleteMany, DeleteOne, delete_statement
from txmongo._ops.find_and_modify import FindAndModify
from txmongo._ops.insert import InsertOne
from txmongo._ops.update import UpdateMany, UpdateOne, update_statement
from txmongo._ops.writes import write_options
from txmongo.errors import (
    ConfigurationError,
    DocumentTooLarge,
    DuplicateKeyError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

DUPLICATE = {"ok": 1.0, "n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "E11000", "keyValue": {"a": 1}}]}
REFUSED = {"ok": 1.0, "n": 0, "writeErrors": [{"index": 0, "code": 121, "errmsg": "no", "errInfo": {"why": 1}}]}
TIMED_OUT = {"ok": 1.0, "n": 1, "writeConcernError": {"code": 64, "errmsg": "timed out", "errInfo": {"wtimeout": True}}}
UNSATISFIED = {"ok": 1.0, "n": 1, "writeConcernError": {"code": 100, "errmsg": "not enough members"}}


def update(**options: Any) -> dict[str, Any]:
    """A statement of update_one."""
    return update_statement({"_id": 1}, {"$set": {"a": 1}}, multi=False, **options)


def delete(**options: Any) -> dict[str, Any]:
    """A statement of delete_one."""
    return delete_statement({"_id": 1}, multi=False, **options)


class CommandTests(SynchronousTestCase):
    """The command documents."""

    def test_insert(self) -> None:
        """An insert is sent with ordered and with its document, and without a write concern by default."""
        command = sent(InsertOne(target(), {"_id": 1, "a": 2}))
        self.assertEqual(
            command, {"insert": "things", "ordered": True, "documents": [{"_id": 1, "a": 2}], "$db": "test"}
        )
        self.assertEqual(next(iter(command)), "insert")

    def test_update(self) -> None:
        """An update carries what was given of its options and multi and upsert always."""
        command = sent(UpdateOne(target(), update()))
        statement = {"q": {"_id": 1}, "u": {"$set": {"a": 1}}, "multi": False, "upsert": False}
        self.assertEqual(command, {"update": "things", "ordered": True, "updates": [statement], "$db": "test"})
        options = {"collation": {"locale": "en"}, "hint": {"_id": 1}, "sort": {"a": 1}}
        statement = update(array_filters=[{"e": 1}], **options)
        self.assertEqual(statement["arrayFilters"], [{"e": 1}])
        self.assertEqual({name: statement[name] for name in options}, options)

    def test_delete(self) -> None:
        """A delete's limit is 1 or, for all, 0."""
        command = sent(DeleteOne(target(), delete(collation={"locale": "en"}, hint="a_1")))
        statement = {"q": {"_id": 1}, "limit": 1, "collation": {"locale": "en"}, "hint": "a_1"}
        self.assertEqual(command, {"delete": "things", "ordered": True, "deletes": [statement], "$db": "test"})
        command = sent(DeleteMany(target(), delete_statement({}, multi=True)))
        self.assertEqual(command["deletes"], [{"q": {}, "limit": 0}])

    def test_find_and_modify(self) -> None:
        """findAndModify carries the collection's write concern unless the caller's fields have one."""
        command = sent(FindAndModify(target(w=2), {"a": 1}, {"remove": True}))
        expected = {"findAndModify": "things", "query": {"a": 1}, "writeConcern": {"w": 2}, "remove": True}
        self.assertEqual(command, {**expected, "$db": "test"})
        command = sent(FindAndModify(target(w=2), {"a": 1}, {"remove": True, "writeConcern": {"w": 1}}))
        self.assertEqual(command["writeConcern"], {"w": 1})

    def test_options(self) -> None:
        """comment, let and bypassDocumentValidation go beside the statements, false ones too, if they were given."""
        self.assertIsNone(write_options())
        options = write_options("why", {"v": 1}, False)
        self.assertEqual(options, {"comment": "why", "let": {"v": 1}, "bypassDocumentValidation": False})
        command = sent(UpdateOne(target(w="majority", wtimeout=5), update(), options))
        self.assertEqual(command["comment"], "why")
        self.assertEqual(command["let"], {"v": 1})
        self.assertIs(command["bypassDocumentValidation"], False)
        self.assertEqual(command["writeConcern"], {"w": "majority", "wtimeout": 5})

    def test_built_twice(self) -> None:
        """Each build gives a command of its own, so that what is added to one is not in the other."""
        operation = InsertOne(target(), {"_id": 1})
        command = operation.build(SERVER)
        command["txnNumber"] = 1
        self.assertNotIn("txnNumber", operation.build(SERVER))

    def test_user_types(self) -> None:
        """Documents are encoded with the collection's options, and raw BSON goes as it is."""
        raw = RawBSONDocument(encode({"_id": 7, "x": 1}))
        self.assertEqual(sent(InsertOne(target(), raw))["documents"], [{"_id": 7, "x": 1}])
        strict = target(codec_options=CodecOptions(document_class=SON))
        self.assertEqual(strict.reply_codec_options.document_class, dict)
        self.assertIs(target().reply_codec_options, REPLY_CODEC_OPTIONS)


class SizeTests(SynchronousTestCase):
    """What is too large is refused before it is sent."""

    small = StreamDescription(max_bson_size=1000, max_wire_version=17)

    def test_acknowledged(self) -> None:
        """A command may exceed the largest document by 16 KiB; the server judges the document itself."""
        sent(InsertOne(target(), {"_id": 1, "a": "x" * 15_000}), self.small)
        error = self.assertRaises(
            DocumentTooLarge, sent, InsertOne(target(), {"_id": 1, "a": "x" * 18_000}), self.small
        )
        self.assertIn("insert: ", str(error))
        self.assertIn(f"up to {1000 + 16 * 1024} bytes", str(error))
        large = FindAndModify(target(), {"a": "x" * 18_000}, {})
        self.assertRaises(DocumentTooLarge, sent, large, self.small)

    def test_unacknowledged(self) -> None:
        """Of an unacknowledged write nobody would hear that it was too large, so the document itself is measured."""
        sent(InsertOne(target(w=0), {"_id": 1, "a": "x" * 970}), self.small)
        self.assertRaises(DocumentTooLarge, sent, InsertOne(target(w=0), {"_id": 1, "a": "x" * 1000}), self.small)
        self.assertRaises(DocumentTooLarge, sent, DeleteOne(target(w=0), delete(hint="x" * 1000)), self.small)

    def test_sort_unacknowledged(self) -> None:
        """An unacknowledged update with sort is refused where the server does not know sort."""
        operation = UpdateOne(target(w=0), update(sort={"a": 1}))
        self.assertRaises(ConfigurationError, operation.build, SERVER)
        operation.build(StreamDescription(max_wire_version=25))
        UpdateOne(target(), update(sort={"a": 1})).build(SERVER)


class ReplyTests(SynchronousTestCase):
    """What replies become."""

    def operations(self) -> list[Operation[Any]]:
        """One of each kind."""
        return [
            InsertOne(target(), {"_id": 1}),
            UpdateOne(target(), update()),
            UpdateMany(target(), update()),
            DeleteOne(target(), delete()),
            DeleteMany(target(), delete()),
        ]

    def test_inserted(self) -> None:
        """The result of an insert has the document's _id; raw BSON's is not looked at."""
        result = InsertOne(target(), {"_id": 5}).parse({"ok": 1, "n": 1}, CONTEXT)
        self.assertIsInstance(result, InsertOneResult)
        self.assertEqual((result.inserted_id, result.acknowledged), (5, True))
        raw = InsertOne(target(), RawBSONDocument(encode({"_id": 5}))).parse({"ok": 1, "n": 1}, CONTEXT)
        self.assertIsNone(raw.inserted_id)

    def test_updated(self) -> None:
        """The result of an update counts what matched and what changed."""
        reply = {"ok": 1, "n": 1, "nModified": 1}
        result = UpdateOne(target(), update()).parse(reply, CONTEXT)
        self.assertIsInstance(result, UpdateResult)
        self.assertEqual((result.matched_count, result.modified_count, result.upserted_id), (1, 1, None))
        self.assertEqual(result.raw_result, {"ok": 1, "n": 1, "nModified": 1, "updatedExisting": True})
        self.assertNotIn("updatedExisting", reply)

    def test_not_updated(self) -> None:
        """An update that matched nothing says so."""
        result = UpdateOne(target(), update()).parse({"ok": 1, "n": 0, "nModified": 0}, CONTEXT)
        self.assertEqual((result.matched_count, result.modified_count), (0, 0))
        self.assertEqual(result.raw_result, {"ok": 1, "n": 0, "nModified": 0, "updatedExisting": False})

    def test_upserted(self) -> None:
        """The result of an upsert has the new document's _id, and matched nothing."""
        new_id = ObjectId()
        reply = {"ok": 1, "n": 1, "nModified": 0, "upserted": [{"index": 0, "_id": new_id}]}
        result = UpdateOne(target(), update(upsert=True)).parse(reply, CONTEXT)
        self.assertEqual((result.upserted_id, result.matched_count, result.did_upsert), (new_id, 0, True))
        assert result.raw_result is not None
        self.assertEqual(result.raw_result["upserted"], new_id)
        self.assertIs(result.raw_result["updatedExisting"], False)

    def test_deleted(self) -> None:
        """The result of a delete counts what was removed."""
        result = DeleteMany(target(), delete()).parse({"ok": 1, "n": 3}, CONTEXT)
        self.assertIsInstance(result, DeleteResult)
        self.assertEqual((result.deleted_count, result.raw_result), (3, {"ok": 1, "n": 3}))

    def test_found_and_modified(self) -> None:
        """findAndModify gives the document, or None."""
        operation = FindAndModify(target(), {}, {})
        self.assertEqual(operation.parse({"ok": 1, "value": {"_id": 1}}, CONTEXT), {"_id": 1})
        self.assertIsNone(operation.parse({"ok": 1, "value": None}, CONTEXT))
        self.assertIsNone(operation.parse({"ok": 1}, CONTEXT))

    def test_write_errors(self) -> None:
        """A refused statement is raised, with what the server said of it."""
        for operation in self.operations():
            duplicate = self.assertRaises(DuplicateKeyError, operation.parse, DUPLICATE, CONTEXT)
            assert duplicate.details is not None
            self.assertEqual((duplicate.code, duplicate.details["keyValue"]), (11000, {"a": 1}))
            refused = self.assertRaises(WriteError, operation.parse, REFUSED, CONTEXT)
            assert refused.details is not None
            self.assertEqual(refused.details["errInfo"], {"why": 1})

    def test_write_concern_errors(self) -> None:
        """A write concern that was not kept is raised, a wtimeout by its own class."""
        for operation in (*self.operations(), FindAndModify(target(), {}, {})):
            error = self.assertRaises(WTimeoutError, operation.parse, TIMED_OUT, CONTEXT)
            self.assertTrue(error.timeout)
            unsatisfied = self.assertRaises(WriteConcernError, operation.parse, UNSATISFIED, CONTEXT)
            self.assertNotIsInstance(unsatisfied, WTimeoutError)

    def test_unacknowledged(self) -> None:
        """Without a reply the result is one that was not acknowledged."""
        nothing = target(w=0)
        inserted = InsertOne(nothing, {"_id": 5}).parse(None, CONTEXT)
        self.assertEqual((inserted.inserted_id, inserted.acknowledged), (5, False))
        self.assertFalse(UpdateOne(nothing, update()).parse(None, CONTEXT).acknowledged)
        self.assertFalse(DeleteOne(nothing, delete()).parse(None, CONTEXT).acknowledged)
        self.assertIsNone(FindAndModify(nothing, {}, {}).parse(None, CONTEXT))


class ClassTests(SynchronousTestCase):
    """What executor and pool are told of an operation."""

    def test_retries(self) -> None:
        """Only statements that change at most one document may be sent again."""
        retries = [operation.retry for operation in ReplyTests.operations(ReplyTests())]
        once, never = RetryKind.WRITE, RetryKind.NEVER
        self.assertEqual(retries, [once, once, never, once, never])
        self.assertIs(FindAndModify(target(), {}, {}).retry, once)

    def test_acknowledged(self) -> None:
        """With w=0, of the collection or among the fields of findAndModify, no reply is waited for."""
        self.assertFalse(InsertOne(target(w=0), {"_id": 1}).acknowledged)
        self.assertTrue(InsertOne(target(w=1), {"_id": 1}).acknowledged)
        self.assertFalse(FindAndModify(target(w=0), {}, {}).acknowledged)
        self.assertTrue(FindAndModify(target(w=0), {}, {"writeConcern": {"j": True}}).acknowledged)
        self.assertFalse(FindAndModify(target(), {}, {"writeConcern": {"w": 0}}).acknowledged)

    def test_service_classes(self) -> None:
        """The pool averages each command apart by the waiting that its write concern means."""
        self.assertEqual(InsertOne(target(), {"_id": 1}).service_class, "insert:default")
        self.assertEqual(UpdateOne(target(w=1, j=True), update()).service_class, "update:1:j")
        self.assertEqual(DeleteOne(target(w="majority"), delete()).service_class, "delete:majority")
        self.assertEqual(FindAndModify(target(), {}, {}).service_class, "findAndModify:default")

    def test_bounded(self) -> None:
        """A write is known to be short if it is by _id and was not told to wait for other members or the journal."""
        by_field = update_statement({"a": 1}, {"$set": {"b": 1}}, multi=False)
        self.assertTrue(InsertOne(target(w=1), {"_id": 1}).bounded)
        self.assertTrue(InsertOne(target(), {"_id": 1}).bounded)
        self.assertTrue(UpdateOne(target(w=1), update()).bounded)
        self.assertTrue(DeleteOne(target(w=1), delete()).bounded)
        self.assertTrue(FindAndModify(target(w=1), {"_id": 1}, {}).bounded)
        for operation in (
            InsertOne(target(w=2), {"_id": 1}),
            InsertOne(target(w=1, j=True), {"_id": 1}),
            UpdateOne(target(w="majority"), update()),
            UpdateOne(target(w=1), by_field),
            UpdateMany(target(w=1), update()),
            DeleteMany(target(w=1), delete()),
            FindAndModify(target(w=1), {"a": 1}, {}),
        ):
            self.assertFalse(operation.bounded)
