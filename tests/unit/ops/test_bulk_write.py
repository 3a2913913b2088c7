"""``txmongo._ops.bulk_write``: how statements become batches, and what the replies add up to."""

from __future__ import annotations

import copy
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.writing import CONTEXT, SERVER, sent, target
from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import RetryKind
from txmongo._ops.bulk_write import (
    BatchUnconfirmed,
    DeleteBatch,
    InsertBatch,
    Run,
    UpdateBatch,
    Write,
    empty_result,
    has_errors,
    merge_reply,
    ordered_runs,
    unordered_runs,
)
from txmongo._wire.op_msg import MORE_TO_COME
from txmongo.errors import ConfigurationError, DocumentTooLarge


def documents(count: int, size: int = 10) -> list[dict[str, Any]]:
    """Documents to insert."""
    return [{"_id": number, "filling": "x" * size} for number in range(count)]


class BatchTests(SynchronousTestCase):
    """One command with many statements."""

    def test_all(self) -> None:
        """A batch holds all statements if they fit, in their order."""
        batch = InsertBatch(target(), documents(3))
        command = sent(batch)
        self.assertEqual(command, {"insert": "things", "ordered": True, "$db": "test", "documents": documents(3)})
        self.assertEqual((batch.count, batch.end), (3, 3))

    def test_kinds(self) -> None:
        """Each kind of statement has its own command."""
        statements = [{"q": {}, "u": {"a": 1}, "multi": False}]
        self.assertEqual(sent(UpdateBatch(target(), list(statements)))["updates"], statements)
        statements = [{"q": {}, "limit": 0}]
        self.assertEqual(sent(DeleteBatch(target(), list(statements)))["deletes"], statements)

    def test_options(self) -> None:
        """Options and write concern go beside the statements."""
        batch = InsertBatch(target(w=2), documents(1), ordered=False, options={"comment": "c"})
        command = sent(batch)
        self.assertEqual((command["ordered"], command["comment"], command["writeConcern"]), (False, "c", {"w": 2}))

    def test_limit_of_statements(self) -> None:
        """No batch has more statements than the server takes; the next one goes on where it ended."""
        server = StreamDescription(max_write_batch_size=4)
        statements = documents(10)
        ends = []
        start = 0
        while start < len(statements):
            batch = InsertBatch(target(), statements, start)
            command = sent(batch, server)
            self.assertEqual(command["documents"], statements[start : batch.end])
            start = batch.end
            ends.append(start)
        self.assertEqual(ends, [4, 8, 10])

    def test_limit_of_bytes(self) -> None:
        """No batch is longer than a message may be."""
        server = StreamDescription(max_message_size=5_000, max_bson_size=2_000)
        batch = InsertBatch(target(), documents(10, 900))
        command = batch.build(server)
        message = batch.encode(command, server)
        assert message.wire is not None
        self.assertLessEqual(len(message.wire), 5_000)
        self.assertEqual(batch.count, 4)
        self.assertEqual(command["documents"], documents(4, 900))

    def test_sent_again(self) -> None:
        """A batch that is sent again holds the same statements, though the command has grown meanwhile."""
        server = StreamDescription(max_message_size=5_000, max_bson_size=2_000)
        batch = InsertBatch(target(), documents(10, 950))
        batch.encode(batch.build(server), server)
        self.assertEqual(batch.count, 4)
        command = {**batch.build(server), "$clusterTime": {"signature": b"s" * 400}}
        batch.encode(command, server)
        self.assertEqual(len(command["documents"]), 4)
        batch.encode(batch.build(SERVER), SERVER)
        self.assertEqual(batch.count, 4)

    def test_sent_again_to_a_smaller_server(self) -> None:
        """What was sent once and does not fit another server's limits is an error, not another set of statements."""
        batch = InsertBatch(target(), documents(10, 900))
        batch.encode(batch.build(SERVER), SERVER)
        small = StreamDescription(max_message_size=5_000)
        self.assertRaises(DocumentTooLarge, batch.encode, batch.build(small), small)

    def test_single_statement_too_large(self) -> None:
        """A statement that no message can hold is refused; what the server judges itself is left to it."""
        server = StreamDescription(max_message_size=5_000, max_bson_size=1_000)
        sent(InsertBatch(target(), documents(2, 2_000)), server)
        self.assertRaises(DocumentTooLarge, sent, InsertBatch(target(), documents(1, 6_000)), server)
        unacknowledged = InsertBatch(target(w=0), documents(1, 2_000), acknowledged=False)
        self.assertRaises(DocumentTooLarge, sent, unacknowledged, server)

    def test_unencodable(self) -> None:
        """A value that BSON does not know is bson's own error."""
        batch = InsertBatch(target(), [{"_id": object()}])
        self.assertRaises(bson.errors.InvalidDocument, sent, batch)

    def test_raw_bson(self) -> None:
        """Raw BSON goes as it is."""
        raw = RawBSONDocument(bson.encode({"_id": 1, "a": 2}))
        self.assertEqual(sent(InsertBatch(target(), [raw]))["documents"], [{"_id": 1, "a": 2}])

    def test_unacknowledged(self) -> None:
        """With w=0 the message asks for no answer."""
        batch = InsertBatch(target(w=0), documents(1), acknowledged=False)
        message = batch.encode(batch.build(SERVER), SERVER)
        assert message.wire is not None
        self.assertFalse(message.acknowledged)
        self.assertEqual(int.from_bytes(message.wire[16:20], "little"), MORE_TO_COME)
        self.assertIsNone(batch.parse(None, CONTEXT))

    def test_acknowledged_for_once(self) -> None:
        """A batch whose end must be known has the server's write concern, though the collection's is w=0."""
        batch = InsertBatch(target(w=0), documents(1), acknowledged=True)
        self.assertNotIn("writeConcern", batch.build(SERVER))
        self.assertTrue(batch.encode(batch.build(SERVER), SERVER).acknowledged)

    def test_message(self) -> None:
        """The message names its command and its id without being decoded, as the protocol's compression needs it."""
        batch = DeleteBatch(target(), [{"q": {}, "limit": 1}])
        message = batch.encode(batch.build(SERVER), SERVER)
        assert message.wire is not None
        self.assertEqual(bson.decode(message.body), {"delete": ""})
        self.assertEqual(int.from_bytes(message.wire[4:8], "little"), message.request_id)

    def test_sort_unacknowledged(self) -> None:
        """Unacknowledged updates with sort are refused where the server does not know sort."""
        statements = [{"q": {}, "u": {}, "multi": False, "sort": {"a": 1}}]
        batch = UpdateBatch(target(w=0), statements, acknowledged=False)
        self.assertRaises(ConfigurationError, batch.build, SERVER)
        UpdateBatch(target(), list(statements)).build(SERVER)

    def test_reply(self) -> None:
        """Errors in the reply are not raised by a batch: they belong to the result of all."""
        reply = {"ok": 1, "n": 0, "writeErrors": [{"index": 0}], "writeConcernError": {"code": 100}}
        self.assertIs(InsertBatch(target(), documents(1)).parse(reply, CONTEXT), reply)

    def test_unconfirmed(self) -> None:
        """A write concern error that a retry may heal is raised, with its label and with the reply."""
        concern_error = {"code": 91, "errmsg": "shutting down"}
        reply = {"ok": 1, "n": 1, "writeConcernError": concern_error, "errorLabels": ["RetryableWriteError"]}
        error = self.assertRaises(BatchUnconfirmed, InsertBatch(target(), documents(1)).parse, reply, CONTEXT)
        self.assertTrue(error.has_error_label("RetryableWriteError"))
        self.assertEqual((error.code, error.reply), (91, reply))

    def test_retry(self) -> None:
        """Whether a batch may be sent again is its run's to say."""
        self.assertIs(InsertBatch(target(), documents(1)).retry, RetryKind.WRITE)
        self.assertIs(UpdateBatch(target(), [], retryable=False).retry, RetryKind.NEVER)
        self.assertFalse(InsertBatch(target(w=1), documents(1)).bounded)


WRITES: list[Write] = [
    (InsertBatch, "i0", False),
    (InsertBatch, "i1", False),
    (UpdateBatch, "u2", False),
    (InsertBatch, "i3", False),
    (DeleteBatch, "d4", True),
    (UpdateBatch, "u5", True),
]


class RunTests(SynchronousTestCase):
    """How a list of writes is cut."""

    def test_ordered(self) -> None:
        """An ordered bulk write begins a new run wherever the kind changes."""
        runs = ordered_runs(WRITES)
        self.assertEqual([run.statements for run in runs], [["i0", "i1"], ["u2"], ["i3"], ["d4"], ["u5"]])
        self.assertEqual([list(run.indexes) for run in runs], [[0, 1], [2], [3], [4], [5]])
        self.assertEqual([run.retryable for run in runs], [True, True, True, False, False])

    def test_unordered(self) -> None:
        """An unordered one has one run for each kind that occurs."""
        runs = unordered_runs(WRITES)
        self.assertEqual([run.batch for run in runs], [InsertBatch, UpdateBatch, DeleteBatch])
        self.assertEqual([run.statements for run in runs], [["i0", "i1", "i3"], ["u2", "u5"], ["d4"]])
        self.assertEqual([list(run.indexes) for run in runs], [[0, 1, 3], [2, 5], [4]])
        self.assertEqual([run.retryable for run in runs], [True, False, False])
        self.assertEqual([run.batch for run in unordered_runs(WRITES[4:5])], [DeleteBatch])

    def test_nothing(self) -> None:
        """No writes are no runs."""
        self.assertEqual((ordered_runs([]), unordered_runs([])), ([], []))


class MergeTests(SynchronousTestCase):
    """What replies add up to."""

    def test_inserts_and_deletes(self) -> None:
        """Inserts and deletes are counted."""
        result = empty_result()
        merge_reply(result, Run(InsertBatch, documents(3), range(3)), 0, {"ok": 1, "n": 3})
        merge_reply(result, Run(DeleteBatch, [{}], [3]), 0, {"ok": 1, "n": 7})
        self.assertEqual(result, {**empty_result(), "nInserted": 3, "nRemoved": 7})
        self.assertFalse(has_errors(result))

    def test_updates(self) -> None:
        """What was upserted did not match; its index is that of the caller's list."""
        result = empty_result()
        reply = {"ok": 1, "n": 5, "nModified": 2, "upserted": [{"index": 1, "_id": "new"}]}
        before = copy.deepcopy(reply)
        merge_reply(result, Run(UpdateBatch, [{}] * 6, [0, 2, 4, 6, 8, 10]), 2, reply)
        self.assertEqual(result["upserted"], [{"index": 6, "_id": "new"}])
        self.assertEqual((result["nUpserted"], result["nMatched"], result["nModified"]), (1, 4, 2))
        self.assertEqual(reply, before)

    def test_write_errors(self) -> None:
        """A write error has the index of the caller's list and the statement that failed; the reply is not changed."""
        result = empty_result()
        run = Run(InsertBatch, documents(4), [1, 3, 5, 7])
        reply = {"ok": 1, "n": 1, "writeErrors": [{"index": 1, "code": 11000, "errmsg": "dup"}]}
        before = copy.deepcopy(reply)
        merge_reply(result, run, 2, reply)
        error = {"index": 7, "code": 11000, "errmsg": "dup", "op": {"_id": 3, "filling": "x" * 10}}
        self.assertEqual(result["writeErrors"], [error])
        self.assertEqual(reply, before)
        self.assertTrue(has_errors(result))

    def test_write_concern_errors(self) -> None:
        """Write concern errors are collected, each with the labels of its reply."""
        result = empty_result()
        run = Run(InsertBatch, documents(1), [0])
        merge_reply(result, run, 0, {"ok": 1, "n": 1, "writeConcernError": {"code": 100}})
        merge_reply(result, run, 0, {"ok": 1, "n": 1, "writeConcernError": {"code": 91}, "errorLabels": ["L"]})
        self.assertEqual(result["writeConcernErrors"], [{"code": 100}, {"code": 91, "errorLabels": ["L"]}])
        self.assertTrue(has_errors(result))
