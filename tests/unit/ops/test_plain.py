"""Operations that are put together from BSON send the same commands as those that are built, and learn the same."""

from __future__ import annotations

from typing import Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.errors import InvalidDocument
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import SecondaryPreferred
from pymongo.server_type import SERVER_TYPE

from tests.unit.ops.test_retrying import RetryingCase
from tests.unit.ops.wires import Ping
from tests.unit.ops.writing import target
from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation
from txmongo._ops.bulk_write import DeleteBatch, InsertBatch, UpdateBatch, WriteBatch, batch_template
from txmongo._ops.find import FindOne, find_one_template
from txmongo._ops.insert import InsertOne, insert_template
from txmongo.errors import DocumentTooLarge, DuplicateKeyError

SIGNATURE = {"hash": b"h" * 20, "keyId": Int64(5)}


def reply(seconds: int, **fields: Any) -> dict[str, Any]:
    """What a member of a replica set answers."""
    timestamp = Timestamp(seconds, 1)
    cluster_time = {"clusterTime": timestamp, "signature": SIGNATURE}
    return {**fields, "ok": 1.0, "$clusterTime": cluster_time, "operationTime": timestamp}


def find_one(query: Any, *, template: bool = True, **options: Any) -> FindOne:
    codec_options = options.pop("codec_options", DEFAULT_CODEC_OPTIONS)
    read_concern = options.pop("read_concern", None)
    made = find_one_template("db", "things", codec_options, read_concern) if template else None
    return FindOne("db", "things", query, None, codec_options, read_concern=read_concern, template=made, **options)


def insert_one(document: Any, *, template: bool = True, **write_concern: Any) -> InsertOne:
    where = target(**write_concern)
    return InsertOne(where, document, template=insert_template(where) if template else None)


def batch(
    kind: type[WriteBatch], statements: list[Any], start: int = 0, *, template: bool = True, **options: Any
) -> WriteBatch:
    where = target(**options.pop("write_concern", {}))
    return kind(where, statements, start, template=batch_template(where) if template else None, **options)


class PlainTests(RetryingCase):
    """The same operation with and without its template."""

    def command(self, operation: Operation[Any], answer: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """What was sent for it, and its result."""
        result = self.executor.execute(operation)
        command = self.sent()
        self.answer(answer)
        return command, self.successResultOf(result)

    def assert_sent_again(self) -> None:
        """What was sent last is lost with its connection, and sent with the same session, number and documents."""
        first = self.sent()
        self.wires[-1].lose()
        self.found()
        again = self.sent()
        self.assertEqual(
            (again["lsid"], again["txnNumber"], again["documents"]),
            (first["lsid"], first["txnNumber"], first["documents"]),
        )

    def test_find_one(self) -> None:
        """A find_one sends the same fields in the same order and gives the same document."""
        for seconds, options in enumerate(
            ({}, {"read_concern": ReadConcern("majority")}, {"codec_options": CodecOptions(tz_aware=True)})
        ):
            answer = reply(seconds + 1, cursor={"firstBatch": [{"_id": 1}], "id": Int64(0), "ns": "db.things"})
            plain, document = self.command(find_one({"_id": 1}, **options), answer)
            built, again = self.command(find_one({"_id": 1}, template=False, **options), answer)
            plain.pop("$clusterTime", None)
            built.pop("$clusterTime")
            self.assertEqual(list(plain.items()), list(built.items()))
            self.assertEqual((document, again), ({"_id": 1}, {"_id": 1}))
        self.idle()

    def test_read_preference(self) -> None:
        """A read preference is sent."""
        answer = reply(1, cursor={"firstBatch": [], "id": Int64(0), "ns": "db.things"})
        command, document = self.command(find_one({}, read_preference=SecondaryPreferred()), answer)
        self.assertEqual(command["$readPreference"], {"mode": "secondaryPreferred"})
        self.assertIsNone(document)

    def test_insert_one(self) -> None:
        """An insert_one sends the same fields in the same order, numbered on."""
        for write_concern in ({}, {"w": "majority"}):
            answer = reply(1, n=1, electionId=ObjectId(), opTime={"ts": Timestamp(1, 1), "t": Int64(1)})
            plain, result = self.command(insert_one({"_id": 1, "x": "y"}, **write_concern), answer)
            built, again = self.command(insert_one({"_id": 1, "x": "y"}, template=False, **write_concern), answer)
            number = plain.pop("txnNumber")
            self.assertEqual(built.pop("txnNumber"), number + 1)
            self.assertEqual(plain.pop("$clusterTime", built["$clusterTime"]), built.pop("$clusterTime"))
            self.assertEqual(list(plain.items()), list(built.items()))
            self.assertEqual((result.inserted_id, again.inserted_id), (1, 1))
        self.idle()

    def test_batch(self) -> None:
        """A batch of few statements sends the same fields and statements, numbered on, and gives the counts."""
        update: dict[str, Any] = {"q": {}, "u": {"$set": {"x": 1}}, "multi": False}
        delete: dict[str, Any] = {"q": {}, "limit": 1}
        kinds: list[tuple[type[WriteBatch], list[Any], dict[str, Any]]] = [
            (InsertBatch, [{"x": "y", "_id": 1}], {}),
            (InsertBatch, [{"x": "y" * number, "_id": number} for number in range(5)], {"ordered": False}),
            (UpdateBatch, [update, {**update, "upsert": True}], {"options": {"let": {"a": 1}, "comment": "c"}}),
            (DeleteBatch, [delete], {"write_concern": {"w": "majority"}}),
        ]
        for kind, statements, options in kinds:
            answer = reply(1, n=len(statements), electionId=ObjectId(), opTime={"ts": Timestamp(1, 1), "t": Int64(1)})
            made = [batch(kind, statements, template=template, **options) for template in (True, False)]
            plain, result = self.command(made[0], answer)
            built, _ = self.command(made[1], answer)
            number = plain.pop("txnNumber")
            self.assertEqual(built.pop("txnNumber"), number + 1)
            self.assertEqual(plain.pop("$clusterTime", built["$clusterTime"]), built.pop("$clusterTime"))
            self.assertEqual(plain, built)
            self.assertEqual([each.count for each in made], [len(statements)] * 2)
            # Without what has been taken off already: this way was gone.
            self.assertEqual(result, {"n": len(statements), "ok": 1.0})
        self.idle()

    def test_batch_of_many(self) -> None:
        """The batch encoder makes what is of many statements, of several large ones, or not the first of its run."""
        answer = reply(1, n=1)
        large = {"x": b"x" * 40_000}
        for made, count in (
            (batch(InsertBatch, [{} for _ in range(6)]), 6),
            (batch(InsertBatch, [{}, {}], 1), 1),
            (batch(InsertBatch, [large, large]), 2),
            (batch(UpdateBatch, [{"q": {}, "u": {"x": b"x" * (17 * 1024 * 1024)}}]), 1),
            (batch(DeleteBatch, [{"q": {}, "limit": 1}], options={"comment": "x" * (16 * 1024 * 1024)}), 1),
        ):
            command, result = self.command(made, answer)
            self.assertEqual((len(command[made.statements_field]), made.count), (count, count))
            self.assertIn("operationTime", result)
        self.description = StreamDescription(max_write_batch_size=1)
        self.assertIsNone(batch(InsertBatch, [{}, {}]).elements(self.description))
        self.idle()

    def test_large_batch(self) -> None:
        """One large statement is sent as ever."""
        document = {"_id": 1, "x": b"x" * 1_000_000}
        command, result = self.command(batch(InsertBatch, [document]), reply(1, n=1))
        self.assertEqual((command["documents"], result), ([document], {"n": 1, "ok": 1.0}))

    def test_batch_again(self) -> None:
        """The next attempt carries the same session, number and statements."""
        result = self.executor.execute(batch(InsertBatch, [{"_id": 1}, {"_id": 2}]))
        self.assert_sent_again()
        self.answer(reply(1, n=2))
        self.assertEqual(self.successResultOf(result)["n"], 2)

    def test_cluster_time(self) -> None:
        """The highest cluster time of the replies goes with the next command, byte for byte."""
        found = {"cursor": {"firstBatch": [], "id": Int64(0), "ns": "db.things"}}
        first, _ = self.command(find_one({}), reply(5, **found))
        self.assertNotIn("$clusterTime", first)
        expected = {"clusterTime": Timestamp(5, 1), "signature": SIGNATURE}
        for seconds in (4, 5, 9):
            command, _ = self.command(find_one({}), reply(seconds, **found))
            self.assertEqual(command["$clusterTime"], expected)
        self.assertEqual(self.executor.sessions.cluster_clock.document, {**expected, "clusterTime": Timestamp(9, 1)})

    def test_write_error(self) -> None:
        """What a reply says of the document is raised."""
        result = self.executor.execute(insert_one({"_id": 1}))
        self.sent()
        self.answer(reply(1, n=0, writeErrors=[{"index": 0, "code": 11000, "errmsg": "there already"}]))
        self.failureResultOf(result, DuplicateKeyError)
        self.idle()

    def test_cannot_be_encoded(self) -> None:
        """A value that BSON cannot hold fails the operation, and nothing is sent or left out."""
        for operation in (
            find_one({"x": object()}),
            insert_one({"_id": object()}),
            batch(InsertBatch, [{}, {"_id": object()}]),
            batch(DeleteBatch, [{"q": {}, "limit": 1}], options={"comment": object()}),
        ):
            result = self.executor.execute(operation)
            self.clock.advance(0)
            self.failureResultOf(result, InvalidDocument)
        self.assertEqual(self.wires[-1].read(), [])
        self.idle(sessions=0)

    def test_too_large(self) -> None:
        """A document that the server cannot take is refused as ever."""
        huge = {"_id": 1, "x": b"x" * (17 * 1024 * 1024)}
        refused = self.executor.execute(insert_one(huge))
        self.clock.advance(0)
        self.failureResultOf(refused, DocumentTooLarge)
        result = self.executor.execute(find_one(huge))
        self.assertEqual(self.sent()["find"], "things")
        self.answer(reply(1, cursor={"firstBatch": [], "id": Int64(0), "ns": "db.things"}))
        self.assertIsNone(self.successResultOf(result))

    def test_again(self) -> None:
        """The next attempt carries the same session and number."""
        result = self.executor.execute(insert_one({"_id": 1}))
        self.assert_sent_again()
        self.answer(reply(1, n=1))
        self.assertEqual(self.successResultOf(result).inserted_id, 1)

    def test_standalone(self) -> None:
        """Without sessions and times the reply is decoded as a whole."""
        self.server_type = SERVER_TYPE.Standalone
        self.make()
        command, document = self.command(
            find_one({"_id": 1}), {"cursor": {"firstBatch": [{"_id": 1}], "id": Int64(0), "ns": "db.things"}, "ok": 1.0}
        )
        self.assertEqual((document, "lsid" in command), ({"_id": 1}, False))

    def test_no_template(self) -> None:
        """Where replies are to be decoded in the user's way, or none comes, there is no template."""
        for document_class in (SON, RawBSONDocument):
            options: CodecOptions[Any] = CodecOptions(document_class=document_class)
            self.assertIsNone(find_one_template("db", "things", options, None))
            self.assertIsNone(insert_template(target(codec_options=options)))
            self.assertIsNone(batch_template(target(codec_options=options)))
        self.assertIsNone(insert_template(target(w=0)))
        self.assertIsNone(batch_template(target(w=0)))
        self.assertIsNone(Ping("db").elements(StreamDescription()))
