"""The commands that find, count, list and administer: what is sent, and what a reply means. No I/O."""

from __future__ import annotations

from typing import Any

from bson.code import Code
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.son import SON
from pymongo.collation import Collation
from pymongo.hello import Hello
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, ReadPreference, Secondary
from pymongo.server_description import ServerDescription
from pymongo.server_selectors import Selection
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription
from pymongo.write_concern import WriteConcern
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import ADDRESS, CONTEXT, SERVER, sent
from txmongo._cmap.description import StreamDescription
from txmongo._ops.admin import CollMod, Create, Drop, DropDatabase, ListCollections, ListDatabases, Rename
from txmongo._ops.aggregate import Aggregate, WritingPipelinePreference, writes
from txmongo._ops.base import RetryKind
from txmongo._ops.count import Count, CountDocuments, EstimatedDocumentCount
from txmongo._ops.cursors import GetMore, KillCursors
from txmongo._ops.distinct import Distinct
from txmongo._ops.find import Find, FindOne, bounds_document, check_count, find_fields
from txmongo._ops.indexes import CreateIndexes, DropIndexes, ListIndexes
from txmongo._ops.map_reduce import MapReduce
from txmongo._ops.run_command import RunCommand, RunCursorCommand, allow_errors, command_document
from txmongo.errors import (
    AutoReconnect,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    WriteConcernError,
    error_from_reply,
)

LOCAL = ReadConcern("local")
MAJORITY = WriteConcern(w="majority")
UNSATISFIED = {"ok": 1, "writeConcernError": {"code": 79, "errmsg": "unknown mode"}}


def cursor_reply(*documents: Any, cursor_id: int = 0, key: str = "firstBatch") -> dict[str, Any]:
    """A reply with a cursor."""
    return {"ok": 1, "cursor": {key: list(documents), "id": Int64(cursor_id), "ns": "test.things"}}


class FindTests(SynchronousTestCase):
    """find: one document, or a first batch."""

    def test_find_one(self) -> None:
        """One document is asked for with a limit of 1, so that no cursor is left."""
        operation = FindOne("test", "things", {"x": 1})
        self.assertEqual(sent(operation), {"find": "things", "filter": {"x": 1}, "limit": 1, "singleBatch": True})
        self.assertEqual(operation.parse(cursor_reply({"_id": 1}), CONTEXT), {"_id": 1})
        self.assertIsNone(operation.parse(cursor_reply(), CONTEXT))

    def test_find_one_options(self) -> None:
        """Further fields and the read concern go with it."""
        operation = FindOne("test", "things", {}, {"sort": {"a": 1}}, read_concern=LOCAL)
        command = sent(operation)
        self.assertEqual(command["sort"], {"a": 1})
        self.assertEqual(command["readConcern"], {"level": "local"})
        self.assertNotIn("readConcern", sent(FindOne("test", "things", {}, read_concern=ReadConcern())))

    def test_bounded(self) -> None:
        """Only a lookup of one _id is known to be short."""
        self.assertTrue(FindOne("test", "things", {"_id": 5}).bounded)
        self.assertEqual(FindOne("test", "things", {"_id": 5}).service_class, "find:id")
        for filter in ({"_id": {"$gt": 5}}, {"x": 5}, {}, {"_id": 5, "x": 1}):
            self.assertFalse(FindOne("test", "things", filter).bounded)
        self.assertFalse(FindOne("test", "things", {"_id": 5}, {"hint": "x_1"}).bounded)

    def test_find(self) -> None:
        """The fields are sent as they are given, and the first batch is the result."""
        operation = Find("test", "things", {"filter": {}, "batchSize": 2}, read_concern=LOCAL)
        self.assertFalse(operation.sent)
        self.assertEqual(
            sent(operation),
            {"find": "things", "filter": {}, "batchSize": 2, "readConcern": {"level": "local"}},
        )
        self.assertTrue(operation.sent)
        batch = operation.parse(cursor_reply({"_id": 1}, cursor_id=7), CONTEXT)
        self.assertEqual((batch.documents, batch.cursor_id, batch.namespace), ([{"_id": 1}], 7, "test.things"))
        self.assertEqual(batch.address, ADDRESS)
        self.assertIs(operation.retry, RetryKind.READ)

    def test_reply_codec_options(self) -> None:
        """Documents may be decoded otherwise than the filter is encoded."""
        decoded: CodecOptions[Any] = CodecOptions(document_class=SON)
        operation = Find("test", "things", {}, reply_codec_options=decoded)
        self.assertIs(operation.reply_codec_options, decoded)
        self.assertIsNot(operation.codec_options, decoded)


class FindFieldsTests(SynchronousTestCase):
    """The options of find under their names on the wire."""

    def test_nothing(self) -> None:
        """What was not given is not sent."""
        self.assertEqual(find_fields(), {})
        self.assertEqual(find_fields(sort=[], projection={}), {})
        self.assertEqual(find_fields(projection=[]), {"projection": {"_id": 1}})

    def test_everything(self) -> None:
        """Each option has its field."""
        fields = find_fields(
            projection=["a", "b"],
            skip=3,
            sort=[("a", -1), "b"],
            collation=Collation("de"),
            hint=[("a", 1)],
            max_scan=9,
            max_time_ms=100,
            max=[("a", 5)],
            min={"a": 1},
            return_key=True,
            show_record_id=False,
            snapshot=True,
            comment={"who": "me"},
            allow_disk_use=True,
            let={"x": 1},
        )
        self.assertEqual(
            fields,
            {
                "projection": {"a": 1, "b": 1},
                "skip": 3,
                "sort": {"a": -1, "b": 1},
                "collation": {"locale": "de"},
                "hint": {"a": 1},
                "maxScan": 9,
                "maxTimeMS": 100,
                "max": {"a": 5},
                "min": {"a": 1},
                "returnKey": True,
                "showRecordId": False,
                "snapshot": True,
                "comment": {"who": "me"},
                "allowDiskUse": True,
                "let": {"x": 1},
            },
        )
        self.assertEqual(list(fields["sort"]), ["a", "b"])

    def test_wrong_types(self) -> None:
        """A value of the wrong type is refused with the option's name."""
        wrong: list[tuple[str, Any]] = [
            ("projection", 5),
            ("skip", "1"),
            ("skip", None),
            ("sort", 5),
            ("collation", 5),
            ("hint", 5),
            ("max_time_ms", "soon"),
            ("max", 5),
            ("min", "a"),
            ("return_key", 1),
            ("show_record_id", 1),
            ("snapshot", 1),
            ("allow_disk_use", 1),
            ("let", 5),
        ]
        for name, value in wrong:
            error = self.assertRaises(TypeError, find_fields, **{name: value})
            self.assertIn(name, str(error))

    def test_wrong_values(self) -> None:
        """Counts are not negative."""
        self.assertIn("skip", str(self.assertRaises(ValueError, find_fields, skip=-1)))
        self.assertRaises(TypeError, check_count, "n", True)

    def test_bounds(self) -> None:
        """The bounds of an index may be of any type, which its directions may not."""
        self.assertEqual(bounds_document("max", [("a", None), ("b", 1.5)]), {"a": None, "b": 1.5})


class CursorCommandTests(SynchronousTestCase):
    """getMore and killCursors."""

    def test_get_more(self) -> None:
        """A batch is asked for by the cursor's id, on the server that has it."""
        options: CodecOptions[Any] = CodecOptions()
        operation = GetMore("test", "things", 7, ADDRESS, options)
        self.assertEqual(sent(operation), {"getMore": 7, "collection": "things"})
        self.assertIsInstance(operation.build(SERVER)["getMore"], Int64)
        self.assertEqual(operation.address, ADDRESS)
        self.assertIs(operation.retry, RetryKind.NEVER)
        batch = operation.parse(cursor_reply({"_id": 2}, key="nextBatch"), CONTEXT)
        self.assertEqual((batch.documents, batch.cursor_id), ([{"_id": 2}], 0))

    def test_get_more_options(self) -> None:
        """Batch size, time and comment go with it; a comment only to servers that take it."""
        options: CodecOptions[Any] = CodecOptions()
        operation = GetMore(
            "test", "things", 7, ADDRESS, options, batch_size=5, max_time_ms=0, comment="c", exclusive=True
        )
        self.assertEqual(
            sent(operation), {"getMore": 7, "collection": "things", "batchSize": 5, "maxTimeMS": 0, "comment": "c"}
        )
        self.assertNotIn("comment", operation.build(StreamDescription(max_wire_version=8)))
        self.assertTrue(operation.exclusive)

    def test_kill(self) -> None:
        """Cursors are killed by their ids; what the server says of them does not matter."""
        operation = KillCursors("test", "things", [1, 2], ADDRESS)
        self.assertEqual(sent(operation), {"killCursors": "things", "cursors": [1, 2]})
        operation.parse({"ok": 1, "cursorsNotFound": [1]}, CONTEXT)

    def test_no_cursor(self) -> None:
        """A reply without a cursor to a command that should make one is an error."""
        operation = RunCursorCommand("test", {"ping": 1})
        self.assertRaises(InvalidOperation, operation.parse, {"ok": 1}, CONTEXT)


class MalformedTests(SynchronousTestCase):
    """Replies that no MongoDB server gives."""

    def test_malformed(self) -> None:
        """A reply without what belongs there is a ProtocolError that names the command."""
        options: CodecOptions[Any] = CodecOptions()
        replies: list[dict[str, Any]] = [{}, {"cursor": {}}, {"cursor": 5}, {"values": 5}, {"databases": 5}]
        for reply in replies:
            operations: list[Any] = [
                FindOne("test", "t", {}),
                GetMore("test", "t", 7, ADDRESS, options),
                CountDocuments("test", "t", {}),
                Distinct("test", "t", "k"),
                ListDatabases(),
            ]
            if reply.get("cursor") is not None:
                operations.append(Find("test", "t", {}))
            for operation in operations:
                self.assertRaises(ProtocolError, operation.parse, {"ok": 1, **reply}, CONTEXT)


class AggregateTests(SynchronousTestCase):
    """aggregate."""

    def test_reading(self) -> None:
        """A pipeline that reads is sent with its fields and may be retried."""
        operation = Aggregate(
            "test",
            "things",
            [{"$match": {}}],
            {"allowDiskUse": True},
            batch_size=0,
            read_concern=LOCAL,
            write_concern=MAJORITY,
        )
        self.assertEqual(
            sent(operation),
            {
                "aggregate": "things",
                "pipeline": [{"$match": {}}],
                "cursor": {"batchSize": 0},
                "allowDiskUse": True,
                "readConcern": {"level": "local"},
            },
        )
        self.assertIs(operation.retry, RetryKind.READ)
        self.assertEqual(operation.parse(cursor_reply(1), CONTEXT).documents, [1])

    def test_writing(self) -> None:
        """A pipeline that writes carries the write concern, no batch size, and is not retried."""
        for stage in ({"$out": "other"}, {"$merge": "other"}):
            operation = Aggregate("test", 1, [stage], batch_size=5, write_concern=MAJORITY)
            self.assertEqual(
                sent(operation),
                {"aggregate": 1, "pipeline": [stage], "cursor": {}, "writeConcern": {"w": "majority"}},
            )
            self.assertIs(operation.retry, RetryKind.NEVER)
            self.assertRaises(WriteConcernError, operation.parse, {**cursor_reply(), **UNSATISFIED}, CONTEXT)
            self.assertEqual(operation.parse(cursor_reply(), CONTEXT).documents, [])
        self.assertNotIn("writeConcern", sent(Aggregate("test", 1, [{"$out": "x"}], write_concern=WriteConcern())))

    def test_writes(self) -> None:
        """Only the last stage stores."""
        self.assertFalse(writes([]))
        self.assertFalse(writes([{"$match": {}}]))
        self.assertTrue(writes([{"$match": {}}, {"$merge": {}}]))

    def test_preference(self) -> None:
        """A pipeline that writes goes to the primary as long as any server is older than MongoDB 5.0."""
        for version, expected in ((9, "a"), (13, "b")):
            servers = [
                ServerDescription((host, 1), Hello({"ok": 1, "setName": "s", "hosts": ["a:1", "b:1"], **state}))
                for host, state in (
                    ("a", {"isWritablePrimary": True, "minWireVersion": 0, "maxWireVersion": version}),
                    ("b", {"secondary": True, "minWireVersion": 0, "maxWireVersion": 17}),
                )
            ]
            topology = TopologyDescription(
                TOPOLOGY_TYPE.ReplicaSetWithPrimary,
                {server.address: server for server in servers},
                "s",
                None,
                None,
                None,
            )
            operation = Aggregate("test", "things", [{"$out": "x"}], read_preference=Secondary())
            chosen = operation.read_preference(Selection.from_topology_description(topology))
            self.assertEqual([server.address[0] for server in chosen.server_descriptions], [expected])

    def test_preference_value(self) -> None:
        """The preference of a pipeline that writes can stand where the one in it could."""
        preference = WritingPipelinePreference(Nearest())
        self.assertEqual(preference.mode, Nearest().mode)
        self.assertEqual(preference, WritingPipelinePreference(Nearest()))
        self.assertEqual(hash(preference), hash(WritingPipelinePreference(Nearest())))
        self.assertNotEqual(preference, Nearest())
        self.assertIn("Nearest", repr(preference))
        primary = Aggregate("test", "things", [{"$out": "x"}]).read_preference
        self.assertEqual(primary, ReadPreference.PRIMARY)


class CountTests(SynchronousTestCase):
    """Counting."""

    def test_count_documents(self) -> None:
        """Documents are counted by an aggregation; skip and limit are stages of it."""
        operation = CountDocuments(
            "test", "things", {"x": 1}, {"skip": 1, "limit": 5, "hint": "x_1"}, read_concern=LOCAL
        )
        self.assertEqual(
            sent(operation),
            {
                "aggregate": "things",
                "pipeline": [
                    {"$match": {"x": 1}},
                    {"$skip": 1},
                    {"$limit": 5},
                    {"$group": {"_id": 1, "n": {"$sum": 1}}},
                ],
                "cursor": {},
                "hint": "x_1",
                "readConcern": {"level": "local"},
            },
        )
        self.assertEqual(operation.parse(cursor_reply({"_id": 1, "n": 3}), CONTEXT), 3)
        self.assertEqual(operation.parse(cursor_reply(), CONTEXT), 0)

    def test_count(self) -> None:
        """The count command has the filter as its query."""
        self.assertEqual(
            sent(Count("test", "things", {"x": 1}, {"limit": 2})), {"count": "things", "query": {"x": 1}, "limit": 2}
        )
        self.assertEqual(Count("test", "things", None).parse({"ok": 1, "n": 4.0}, CONTEXT), 4)

    def test_estimate(self) -> None:
        """The estimate asks for no more than the metadata, which is short at the server."""
        operation = EstimatedDocumentCount("test", "things", {"comment": "c"})
        self.assertEqual(sent(operation), {"count": "things", "comment": "c"})
        self.assertTrue(operation.bounded)


class DistinctTests(SynchronousTestCase):
    """distinct."""

    def test_distinct(self) -> None:
        """The values are the result, in the user's types."""
        operation = Distinct("test", "things", "a.b", {"x": 1}, {"comment": "c"}, read_concern=LOCAL)
        self.assertEqual(
            sent(operation),
            {
                "distinct": "things",
                "key": "a.b",
                "query": {"x": 1},
                "comment": "c",
                "readConcern": {"level": "local"},
            },
        )
        self.assertEqual(operation.parse({"ok": 1, "values": [1, "a"]}, CONTEXT), [1, "a"])
        self.assertEqual(sent(Distinct("test", "things", "a")), {"distinct": "things", "key": "a"})


class MapReduceTests(SynchronousTestCase):
    """mapReduce."""

    functions = (Code("f"), Code("g"))

    def test_inline(self) -> None:
        """What comes in the reply is read with the user's preference, concern and types, and only once."""
        operation = MapReduce(
            "test",
            "things",
            *self.functions,
            {"inline": 1},
            {"query": {"x": 1}},
            read_preference=Secondary(),
            read_concern=LOCAL,
            write_concern=MAJORITY,
        )
        self.assertEqual(
            sent(operation),
            {
                "mapReduce": "things",
                "map": Code("f"),
                "reduce": Code("g"),
                "out": {"inline": 1},
                "query": {"x": 1},
                "readConcern": {"level": "local"},
            },
        )
        self.assertEqual((operation.read_preference, operation.retry), (Secondary(), RetryKind.NEVER))
        self.assertEqual(operation.user_fields, {"results": 1})
        self.assertEqual(operation.parse({"ok": 1, "results": []}, CONTEXT), {"ok": 1, "results": []})

    def test_stored(self) -> None:
        """What is stored is written on the primary, and the write concern may fail."""
        for out in ("others", {"merge": "others"}):
            operation = MapReduce(
                "test",
                "things",
                *self.functions,
                out,
                read_preference=Secondary(),
                read_concern=LOCAL,
                write_concern=MAJORITY,
            )
            command = sent(operation)
            self.assertEqual((command["out"], command["writeConcern"]), (out, {"w": "majority"}))
            self.assertNotIn("readConcern", command)
            self.assertEqual(operation.read_preference, ReadPreference.PRIMARY)
            self.assertEqual(operation.service_class, "mapReduce:majority")
            self.assertRaises(WriteConcernError, operation.parse, UNSATISFIED, CONTEXT)
        self.assertNotIn("writeConcern", sent(MapReduce("test", "things", *self.functions, "others")))


class IndexTests(SynchronousTestCase):
    """createIndexes, dropIndexes, listIndexes."""

    def test_create(self) -> None:
        """The names of the indexes are the result; an unsatisfied write concern is an error."""
        index = {"name": "a_1", "key": {"a": 1}}
        operation = CreateIndexes("test", "things", [index], {"commitQuorum": 1}, write_concern=MAJORITY)
        self.assertEqual(
            sent(operation),
            {
                "createIndexes": "things",
                "indexes": [index],
                "commitQuorum": 1,
                "writeConcern": {"w": "majority"},
            },
        )
        self.assertEqual(operation.parse({"ok": 1}, CONTEXT), ["a_1"])
        self.assertRaises(WriteConcernError, operation.parse, UNSATISFIED, CONTEXT)

    def test_drop(self) -> None:
        """An index is dropped by name."""
        operation = DropIndexes("test", "things", "a_1")
        self.assertEqual(sent(operation), {"dropIndexes": "things", "index": "a_1"})
        self.assertEqual(operation.parse({"ok": 1, "nIndexesWas": 2}, CONTEXT), {"ok": 1, "nIndexesWas": 2})
        self.assertRaises(WriteConcernError, operation.parse, UNSATISFIED, CONTEXT)

    def test_list(self) -> None:
        """Indexes come as a cursor."""
        self.assertEqual(sent(ListIndexes("test", "things")), {"listIndexes": "things", "cursor": {}})
        operation = ListIndexes("test", "things", {"comment": "c"}, batch_size=3)
        self.assertEqual(sent(operation), {"listIndexes": "things", "cursor": {"batchSize": 3}, "comment": "c"})
        self.assertEqual(operation.parse(cursor_reply(1), CONTEXT).documents, [1])


class AdminTests(SynchronousTestCase):
    """Collections and databases as a whole."""

    def test_create(self) -> None:
        """A collection is created with the write concern, and without it where the server's default is meant."""
        operation = Create("test", "things", {"capped": True}, write_concern=MAJORITY)
        self.assertEqual(sent(operation), {"create": "things", "capped": True, "writeConcern": {"w": "majority"}})
        self.assertEqual(sent(Create("test", "things", write_concern=WriteConcern())), {"create": "things"})
        self.assertEqual(operation.parse({"ok": 1}, CONTEXT), {"ok": 1})
        self.assertRaises(WriteConcernError, operation.parse, UNSATISFIED, CONTEXT)

    def test_modify(self) -> None:
        """A collection's options are changed with the write concern."""
        operation = CollMod("test", "things", {"validationLevel": "off"}, write_concern=MAJORITY)
        expected = {"collMod": "things", "validationLevel": "off", "writeConcern": {"w": "majority"}}
        self.assertEqual(sent(operation), expected)

    def test_drop(self) -> None:
        """Collections and databases are dropped by the commands of that name."""
        self.assertEqual(sent(Drop("test", "things")), {"drop": "things"})
        self.assertEqual(sent(DropDatabase("test", {"comment": "c"})), {"dropDatabase": 1, "comment": "c"})

    def test_rename(self) -> None:
        """A rename goes to the admin database."""
        operation = Rename("test.a", "test.b", {"dropTarget": True})
        self.assertEqual(sent(operation), {"renameCollection": "test.a", "to": "test.b", "dropTarget": True})
        self.assertEqual(operation.database, "admin")

    def test_list_collections(self) -> None:
        """Collections come as a cursor."""
        self.assertEqual(sent(ListCollections("test")), {"listCollections": 1, "cursor": {}})
        operation = ListCollections("test", {"nameOnly": True}, batch_size=2)
        self.assertEqual(sent(operation), {"listCollections": 1, "cursor": {"batchSize": 2}, "nameOnly": True})

    def test_list_databases(self) -> None:
        """Databases come as a list, which is taken for a cursor's only batch."""
        operation = ListDatabases({"nameOnly": True})
        self.assertEqual((sent(operation), operation.database), ({"listDatabases": 1, "nameOnly": True}, "admin"))
        batch = operation.parse({"ok": 1, "databases": [{"name": "a"}]}, CONTEXT)
        self.assertEqual((batch.documents, batch.cursor_id), ([{"name": "a"}], 0))


class RunCommandTests(SynchronousTestCase):
    """Commands that the user writes."""

    def test_document(self) -> None:
        """A command is a name with a value or a mapping; the mapping is copied and its order kept."""
        self.assertEqual(command_document("ping"), {"ping": 1})
        self.assertEqual(command_document("collStats", "things", {"scale": 5}), {"collStats": "things", "scale": 5})
        given = SON([("b", 1), ("a", 2)])
        made = command_document(given, fields={"c": 3})
        self.assertEqual((list(made), list(given)), (["b", "a", "c"], ["b", "a"]))

    def test_wrong(self) -> None:
        """What is no command is refused."""
        self.assertRaises(TypeError, command_document, 5)
        self.assertRaises(ValueError, command_document, "")
        self.assertRaises(ValueError, command_document, {})

    def test_run(self) -> None:
        """The reply is the result; the command's name is the operation's."""
        operation = RunCommand("test", {"ping": 1})
        self.assertEqual((operation.name, sent(operation)), ("ping", {"ping": 1}))
        self.assertEqual(operation.parse({"ok": 1}, CONTEXT), {"ok": 1})
        self.assertIs(operation.retry, RetryKind.NEVER)
        self.assertTrue(operation.allow_ghost)

    def test_bounded(self) -> None:
        """Commands that are short whatever the data are known, by any spelling."""
        for name in ("ping", "hello", "isMaster", "buildInfo"):
            self.assertTrue(RunCommand("admin", {name: 1}).bounded, name)
        self.assertFalse(RunCommand("admin", {"find": "things"}).bounded)

    def test_cursor_command(self) -> None:
        """A command that makes a cursor is sent as it is, and gives the first batch."""
        operation = RunCursorCommand("test", {"checkMetadataConsistency": 1})
        self.assertEqual((operation.name, sent(operation)["checkMetadataConsistency"]), ("checkMetadataConsistency", 1))
        self.assertEqual(operation.parse(cursor_reply(5, cursor_id=2), CONTEXT).cursor_id, 2)


class AllowErrorsTests(SynchronousTestCase):
    """Errors that the caller wants as a reply."""

    plain: CodecOptions[Any] = CodecOptions()

    def failure(self, **reply: Any) -> Failure:
        """What the protocol makes of an error."""
        error = error_from_reply({"ok": 0, **reply})
        assert error is not None
        return Failure(error)

    def test_all(self) -> None:
        """Without a list every error of the server is a reply."""
        failure = self.failure(code=59, errmsg="no such command")
        self.assertEqual(allow_errors(failure, self.plain), {"ok": 0, "code": 59, "errmsg": "no such command"})
        failure = self.failure(code=10107, errmsg="not primary")
        self.assertIsInstance(failure.value, NotPrimaryError)
        self.assertEqual(allow_errors(failure, self.plain)["code"], 10107)

    def test_some(self) -> None:
        """Only those are a reply whose code or message is in the list."""
        failure = self.failure(code=26, errmsg="ns not found")
        self.assertEqual(allow_errors(failure, self.plain, [26])["code"], 26)
        self.assertEqual(allow_errors(failure, self.plain, ["ns not found"])["code"], 26)
        self.assertIs(allow_errors(failure, self.plain, [27, "other"]), failure)

    def test_other_failures(self) -> None:
        """What is not the server's answer stays an error."""
        for error in (AutoReconnect("lost"), ValueError("wrong"), OperationFailure("no reply")):
            failure = Failure(error)
            self.assertIs(allow_errors(failure, self.plain), failure)

    def test_document_class(self) -> None:
        """The reply is of the class that was asked for."""
        reply = allow_errors(self.failure(code=1, errmsg="x"), CodecOptions(document_class=SON))
        self.assertIsInstance(reply, SON)


class UserFieldsTests(SynchronousTestCase):
    """Which part of a reply is the user's."""

    def test_fields(self) -> None:
        """Documents of cursors and distinct values are decoded with the user's type registry."""
        first = {"cursor": {"firstBatch": 1}}
        for operation in (Find("test", "t", {}), FindOne("test", "t", {}), Aggregate("test", "t", [])):
            self.assertEqual(operation.user_fields, first)
        self.assertEqual(Distinct("test", "t", "k").user_fields, {"values": 1})
        message = Find("test", "t", {"filter": {"$where": Code("true")}}).encode({"find": "t"}, SERVER)
        self.assertEqual(message.user_fields, first)
