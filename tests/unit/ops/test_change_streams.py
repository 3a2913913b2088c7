"""``txmongo._ops.change_streams``: the command of a stream, where it goes on, and after which failures. No I/O."""

from __future__ import annotations

from typing import Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS
from bson.int64 import Int64
from bson.timestamp import Timestamp
from pymongo.collation import Collation
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Secondary
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import ADDRESS, CONTEXT, sent
from txmongo._cmap.errors import PoolClearedError
from txmongo._ops.base import RetryKind
from txmongo._ops.change_streams import FirstChanges, ResumePoint, Watch, WatchOptions, is_resumable
from txmongo._ops.cursors import CursorBatch
from txmongo.errors import (
    AutoReconnect,
    CursorNotFound,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    ServerSelectionTimeoutError,
    TimeExceeded,
    WaitQueueTimeoutError,
)

NOTHING: dict[str, Any] = dict.fromkeys(
    (
        "pipeline",
        "full_document",
        "full_document_before_change",
        "resume_after",
        "start_after",
        "start_at_operation_time",
        "max_await_time_ms",
        "batch_size",
        "collation",
        "comment",
        "show_expanded_events",
    )
)
TIME, LATER = Timestamp(5, 1), Timestamp(6, 1)
ONE, TWO, THREE = {"_data": "1"}, {"_data": "2"}, {"_data": "3"}


def options(**given: Any) -> WatchOptions:
    """The options for what was given."""
    return WatchOptions.checked(**{**NOTHING, **given})


def batch(*changes: Any, token: Any = None) -> CursorBatch:
    """The reply to a getMore."""
    return CursorBatch(list(changes), 7, "test.things", ADDRESS, token)


class ResumableTests(SynchronousTestCase):
    """Which failures of a getMore a stream survives."""

    def test_no_answer(self) -> None:
        """Those in which no server answered."""
        for error in (
            AutoReconnect("gone"),
            NetworkTimeout("silent"),
            ServerSelectionTimeoutError("none"),
            WaitQueueTimeoutError("busy"),
            PoolClearedError("cleared"),
        ):
            self.assertTrue(is_resumable(error), repr(error))

    def test_answers(self) -> None:
        """A server's answer that has the label, or says that the cursor is not known; whatever else it says."""
        label = {"errorLabels": ["ResumableChangeStreamError"]}
        self.assertTrue(is_resumable(OperationFailure("x", 6, label)))
        self.assertTrue(is_resumable(NotPrimaryError("x", {"code": 10107, **label})))
        self.assertTrue(is_resumable(CursorNotFound("x", 43, {"code": 43})))
        for code in (6, 7, 89, 91, 189, 262, 9001, 11600, 11602, 63, 150, 13388, 234, 133, 136, 237, 280):
            self.assertFalse(is_resumable(OperationFailure("x", code, {"code": code})), code)
        for code in (10107, 13435, 13436):
            self.assertFalse(is_resumable(NotPrimaryError("x", {"code": code})), code)
        self.assertFalse(is_resumable(OperationFailure("x", 6, {"errorLabels": ["NonResumableChangeStreamError"]})))

    def test_others(self) -> None:
        """Not what the driver itself found wrong, what the application wants, or a fault in a reply."""
        for error in (
            InvalidOperation("closed"),
            ProtocolError("?"),
            TimeExceeded("late"),
            CancelledError(),
            KeyError(),
        ):
            self.assertFalse(is_resumable(error), repr(error))


class OptionsTests(SynchronousTestCase):
    """What the arguments of ``watch`` become."""

    def test_nothing(self) -> None:
        """What was not given is not sent."""
        self.assertEqual(options(), WatchOptions())

    def test_stage(self) -> None:
        """What belongs to the stage goes there, under the server's names; unknown values are the server's business."""
        given = options(full_document="new in 9.0", full_document_before_change="off", show_expanded_events=False)
        self.assertEqual(
            given.stage,
            {"fullDocument": "new in 9.0", "fullDocumentBeforeChange": "off", "showExpandedEvents": False},
        )
        self.assertEqual(options(whole_cluster=True).stage, {"allChangesForCluster": True})

    def test_fields(self) -> None:
        """Collation and comment belong to the command."""
        given = options(collation=Collation("fr"), comment=0)
        self.assertEqual(given.fields, {"collation": {"locale": "fr"}, "comment": 0})
        self.assertEqual(given.comment, 0)

    def test_refused(self) -> None:
        """A value of the wrong type is refused, and named."""
        for name, value in (
            ("pipeline", {"$match": {}}),
            ("full_document", 1),
            ("full_document_before_change", True),
            ("show_expanded_events", 1),
            ("resume_after", "token"),
            ("start_after", []),
            ("start_at_operation_time", 5),
            ("batch_size", "7"),
            ("max_await_time_ms", 0.5),
            ("collation", "fr"),
        ):
            error = self.assertRaises(TypeError, options, **{name: value})
            self.assertIn(name, str(error))
        self.assertRaises(ValueError, options, batch_size=-1)
        self.assertRaises(ValueError, options, max_await_time_ms=-1)


class WatchTests(SynchronousTestCase):
    """The command."""

    def watch(self, given: WatchOptions, begin: Any = None, **rest: Any) -> Watch:
        """The command for these options."""
        return Watch("test", "things", given, begin or {}, reply_codec_options=DEFAULT_CODEC_OPTIONS, **rest)

    def test_command(self) -> None:
        """The stage comes first, with where to begin; then those that were given."""
        given = options(
            pipeline=[{"$match": {"x": 1}}],
            full_document="updateLookup",
            comment="why",
            batch_size=5,
            collation={"locale": "fr"},
        )
        operation = self.watch(given, {"resumeAfter": ONE}, read_concern=ReadConcern("majority"))
        self.assertEqual(
            sent(operation),
            {
                "aggregate": "things",
                "pipeline": [
                    {"$changeStream": {"fullDocument": "updateLookup", "resumeAfter": ONE}},
                    {"$match": {"x": 1}},
                ],
                "cursor": {"batchSize": 5},
                "collation": {"locale": "fr"},
                "comment": "why",
                "readConcern": {"level": "majority"},
            },
        )

    def test_plain(self) -> None:
        """Without options there is nothing but the stage."""
        operation = self.watch(options(), read_preference=Secondary())
        self.assertEqual(sent(operation), {"aggregate": "things", "pipeline": [{"$changeStream": {}}], "cursor": {}})
        self.assertTrue(operation.exclusive)
        self.assertIs(operation.retry, RetryKind.READ)
        self.assertEqual(operation.read_preference, Secondary())

    def test_reply(self) -> None:
        """The first batch tells the time of the operation."""
        cursor = {"firstBatch": [{"_id": ONE}], "id": Int64(7), "ns": "test.things", "postBatchResumeToken": TWO}
        first = self.watch(options()).parse({"ok": 1, "cursor": cursor, "operationTime": TIME}, CONTEXT)
        self.assertEqual((first.documents, first.cursor_id, first.namespace), ([{"_id": ONE}], 7, "test.things"))
        self.assertEqual((first.address, first.post_batch_resume_token), (ADDRESS, TWO))
        self.assertEqual(first.operation_time, TIME)
        self.assertIsNone(self.watch(options()).parse({"ok": 1, "cursor": cursor}, CONTEXT).operation_time)


class ResumePointTests(SynchronousTestCase):
    """Where a stream would go on, after each thing that may have happened."""

    def began(self, *changes: Any, token: Any = None, time: Any = TIME, **given: Any) -> ResumePoint:
        """That of a stream whose first batch has come."""
        point = ResumePoint(options(**given))
        point.began(FirstChanges(batch(*changes, token=token), time))
        return point

    def test_original(self) -> None:
        """The first time all is sent that was given, be it too much: the server says so."""
        given = {"resume_after": ONE, "start_after": TWO, "start_at_operation_time": TIME}
        self.assertEqual(
            ResumePoint(options(**given)).original(),
            {"resumeAfter": ONE, "startAfter": TWO, "startAtOperationTime": TIME},
        )
        self.assertEqual(ResumePoint(options()).original(), {})

    def test_initial_token(self) -> None:
        """The token that was given is the first one; that of startAfter before that of resumeAfter."""
        self.assertIsNone(ResumePoint(options()).token)
        self.assertEqual(ResumePoint(options(resume_after=ONE)).token, ONE)
        self.assertEqual(ResumePoint(options(resume_after=ONE, start_after=TWO)).token, TWO)
        self.assertIsNone(ResumePoint(options(start_at_operation_time=TIME)).token)

    def test_untouched_batch(self) -> None:
        """Of a first batch that nobody has looked at nothing is known but what was given."""
        self.assertIsNone(self.began({"_id": ONE}, token=TWO).token)
        self.assertEqual(self.began({"_id": TWO}, token=THREE, resume_after=ONE).token, ONE)
        self.assertEqual(self.began({"_id": TWO}, token=THREE, start_after=ONE).token, ONE)

    def test_empty_batch(self) -> None:
        """An empty batch brings its own token, if it has one."""
        point = self.began(token=ONE)
        self.assertEqual(point.token, ONE)
        point.arrived(batch(token=TWO))
        self.assertEqual(point.token, TWO)
        point.arrived(batch())
        self.assertEqual(point.token, TWO)

    def test_within_a_batch(self) -> None:
        """Up to the last but one it is the change's _id; with the last one it is the batch's token."""
        point = self.began(token=ONE)
        point.arrived(batch({"_id": TWO}, {"_id": THREE}, token={"_data": "4"}))
        self.assertEqual(point.token, ONE)
        point.handed_out({"_id": TWO}, last=False)
        self.assertEqual(point.token, TWO)
        point.handed_out({"_id": THREE}, last=True)
        self.assertEqual(point.token, {"_data": "4"})

    def test_without_batch_tokens(self) -> None:
        """Where batches have no token it is the _id of the last change."""
        point = self.began(token=ONE)
        point.arrived(batch({"_id": TWO}))
        point.handed_out({"_id": TWO}, last=True)
        self.assertEqual(point.token, TWO)

    def test_missing(self) -> None:
        """A change without a token is an error, and changes nothing."""
        point = self.began(token=ONE)
        error = self.assertRaises(InvalidOperation, point.handed_out, {"x": 1}, last=True)
        self.assertIn("the resume token is missing", str(error))
        self.assertEqual(point.token, ONE)

    def test_resume_after(self) -> None:
        """With a token nothing else says where to go on."""
        for given in ({}, {"resume_after": ONE}, {"start_at_operation_time": TIME}):
            point = self.began(token=TWO, **given)
            self.assertEqual(point.resumed(), {"resumeAfter": TWO}, given)

    def test_start_after(self) -> None:
        """A stream that began by startAfter goes on so until a change was given out."""
        point = self.began(start_after=ONE)
        self.assertEqual(point.resumed(), {"startAfter": ONE})
        point.arrived(batch(token=TWO))
        self.assertEqual(point.resumed(), {"startAfter": TWO})
        point.arrived(batch({"_id": THREE}, {"_id": ONE}, token=ONE))
        self.assertEqual(point.resumed(), {"startAfter": TWO})
        point.handed_out({"_id": THREE}, last=False)
        self.assertEqual(point.resumed(), {"resumeAfter": THREE})

    def test_operation_time(self) -> None:
        """Without any token it goes on from the time of the first answer, or the one that was given."""
        self.assertEqual(self.began().resumed(), {"startAtOperationTime": TIME})
        self.assertEqual(self.began(start_at_operation_time=LATER).resumed(), {"startAtOperationTime": LATER})
        self.assertEqual(self.began(time=None).resumed(), {})
        self.assertEqual(self.began({"_id": ONE}).resumed(), {})

    def test_operation_time_is_kept(self) -> None:
        """The first answer's time stays, however often the stream is resumed without news."""
        point = self.began()
        point.began(FirstChanges(batch(), LATER))
        self.assertEqual(point.resumed(), {"startAtOperationTime": TIME})
        point.began(FirstChanges(batch(token=ONE), LATER))
        self.assertEqual(point.resumed(), {"resumeAfter": ONE})
