"""``txmongo.database``: what each method sends for its arguments, what it refuses, and what comes of a reply."""

from __future__ import annotations

import copy
from typing import Any

from bson.codec_options import CodecOptions
from bson.dbref import DBRef
from bson.int64 import Int64
from bson.son import SON
from pymongo.collation import Collation
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, ReadPreference, Secondary
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import held_database, session_of
from txmongo._ops.transaction_state import Settled
from txmongo.collection import Collection
from txmongo.cursor import CommandCursor
from txmongo.database import Database
from txmongo.errors import (
    AutoReconnect,
    CollectionInvalid,
    InvalidName,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
)

MAJORITY = WriteConcern(w="majority")


class DatabaseCase(SynchronousTestCase):
    """A database over an executor that waits for the test to answer."""

    def setUp(self) -> None:
        self.database, self.client = held_database()
        self.executor = self.client.executor

    def sent(self) -> dict[str, Any]:
        """The last command."""
        return self.executor.commands[-1]


class IdentityTests(DatabaseCase):
    """What a database is called, and what it leads to."""

    def test_names(self) -> None:
        """A database knows its name and its client."""
        self.assertEqual((self.database.name, str(self.database)), ("test", "test"))
        self.assertIs(self.database.client, self.client)
        self.assertIs(self.database.connection, self.client)
        self.assertIn("'test'", repr(self.database))

    def test_wrong_names(self) -> None:
        """A name that no database can have is refused."""
        client: Any = self.client
        for name in ("", "a b", "a.b", "a$b", "a/b", "a\\b", 'a"b', "a\0b"):
            error = self.assertRaises(InvalidName, Database, client, name)
            self.assertIn("database_name", str(error))
        wrong: list[Any] = [None, 5, b"a"]
        for value in wrong:
            self.assertRaises(TypeError, Database, client, value)

    def test_collections(self) -> None:
        """Attributes, items and, as in TxMongo, calls are collections."""
        for things in (self.database.things, self.database["things"], self.database("things")):
            self.assertIsInstance(things, Collection)
            self.assertEqual(things.full_name, "test.things")
        self.assertEqual(self.database["_private"].name, "_private")

    def test_underscores(self) -> None:
        """An attribute with an underscore in front is no collection, so that no protocol is claimed by accident."""
        error = self.assertRaises(AttributeError, getattr, self.database, "_private")
        self.assertIn("database['_private']", str(error))
        self.assertFalse(hasattr(self.database, "__len__"))

    def test_misspelt_method(self) -> None:
        """Calling what is no method of the client says so."""
        calls: list[Any] = [lambda: self.database(), lambda: self.database(5), lambda: self.database("a", x=1)]
        for call in calls:
            self.assertIn("'test'", str(self.assertRaises(TypeError, call)))

    def test_no_iteration(self) -> None:
        """Iterating over a database, which would never end, is refused."""
        self.assertRaises(TypeError, iter, self.database)

    def test_equality(self) -> None:
        """Databases of one client and one name are equal."""
        client: Any = self.client
        same = Database(client, "test", MAJORITY)
        self.assertEqual(self.database, same)
        self.assertEqual(hash(self.database), hash(same))
        self.assertNotEqual(self.database, Database(client, "other"))
        self.assertNotEqual(self.database, "test")
        self.assertNotEqual(self.database, held_database()[0])

    def test_options(self) -> None:
        """Options that are not given are the client's; with_options and get_collection change some."""
        options: CodecOptions[Any] = CodecOptions(tz_aware=True)
        changed = self.database.with_options(options, Nearest(), MAJORITY, ReadConcern("local"))
        for target in (
            changed,
            changed.things,
            changed.with_options(),
            self.database.get_collection("things", options, Nearest(), MAJORITY, ReadConcern("local")),
        ):
            self.assertEqual(
                (target.codec_options, target.read_preference, target.write_concern, target.read_concern),
                (options, Nearest(), MAJORITY, ReadConcern("local")),
            )
        for target in (self.database, self.database.get_collection("things")):
            self.assertEqual(target.write_concern, WriteConcern())
            self.assertEqual(target.read_preference, ReadPreference.PRIMARY)

    def test_old_constructor(self) -> None:
        """TxMongo's order of arguments: the write concern follows the name."""
        client: Any = self.client
        self.assertEqual(Database(client, "test", MAJORITY).write_concern, MAJORITY)
        named = Database(factory=client, database_name="test", write_concern=MAJORITY)
        self.assertEqual((named.name, named.write_concern), ("test", MAJORITY))

    def test_wrong_options(self) -> None:
        """An option of the wrong type is refused with its name."""
        client: Any = self.client
        for name in ("write_concern", "codec_options", "read_preference", "read_concern"):
            options: Any = {name: 5}
            self.assertIn(name, str(self.assertRaises(TypeError, Database, client, "test", **options)))


class CommandTests(DatabaseCase):
    """command and cursor_command."""

    def test_name(self) -> None:
        """A command by its name, with value and fields."""
        reply = self.database.command("collStats", "things", scale=1024, comment="c")
        self.assertEqual(self.sent(), {"collStats": "things", "scale": 1024, "comment": "c"})
        self.executor.answer({"count": 3})
        self.assertEqual(self.successResultOf(reply), {"ok": 1, "count": 3})

    def test_document(self) -> None:
        """A command as a document, which is not changed."""
        given = SON([("find", "things"), ("filter", {"x": 1})])
        before = copy.deepcopy(given)
        self.database.command(given, comment="c")
        self.assertEqual(list(self.sent()), ["find", "filter", "comment"])
        self.assertEqual(given, before)

    def test_nothing_added(self) -> None:
        """Nothing of the database's concerns is added, and the primary is asked unless told otherwise."""
        database = self.database.with_options(None, Secondary(), MAJORITY, ReadConcern("local"))
        database.command("ping")
        operation = self.executor.operations[0]
        self.assertEqual((self.sent(), operation.read_preference), ({"ping": 1}, ReadPreference.PRIMARY))
        self.assertTrue(operation.bounded)
        database.command("ping", read_preference=Nearest())
        self.assertEqual(self.executor.operations[1].read_preference, Nearest())

    def test_codec_options(self) -> None:
        """Codec options are those given, in PyMongo's place or TxMongo's."""
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        self.database.command("ping", codec_options=options)
        place: Any = options
        self.database.command("ping", 1, True, None, place)
        for operation in self.executor.operations:
            self.assertIs(operation.reply_codec_options, options)

    def test_check(self) -> None:
        """With check=False an error of the server is a reply."""
        reply = self.database.command("nonsense", check=False)
        self.executor.fail(OperationFailure("no such command", 59, {"ok": 0, "code": 59}))
        self.assertEqual(self.successResultOf(reply), {"ok": 0, "code": 59})
        reply = self.database.command("nonsense", check=False)
        self.executor.fail(AutoReconnect("lost"))
        self.failureResultOf(reply, AutoReconnect)

    def test_allowable_errors(self) -> None:
        """Errors that are allowed are a reply, others are not."""
        for allowed, expected in (([26], True), (["ns not found"], True), ([27], False)):
            reply = self.database.command("drop", "things", allowable_errors=allowed)
            self.executor.fail(OperationFailure("x", 26, {"ok": 0, "code": 26, "errmsg": "ns not found"}))
            if expected:
                self.assertEqual(self.successResultOf(reply)["code"], 26)
            else:
                self.failureResultOf(reply, OperationFailure)

    def test_error(self) -> None:
        """By default an error is an error."""
        reply = self.database.command("nonsense")
        self.executor.fail(NotPrimaryError("not primary", {"ok": 0}))
        self.failureResultOf(reply, NotPrimaryError)

    def test_wrong(self) -> None:
        """What is wrong with the arguments is raised at the call."""
        wrong: list[tuple[type[Exception], Any, dict[str, Any]]] = [
            (TypeError, 5, {}),
            (TypeError, None, {}),
            (ValueError, "", {}),
            (ValueError, {}, {}),
            (TypeError, "ping", {"read_preference": 5}),
            (TypeError, "ping", {"codec_options": 5}),
            (ValueError, "ping", {"session": object()}),
        ]
        for error, command, options in wrong:
            self.assertRaises(error, self.database.command, command, **options)
            self.assertRaises(error, self.database.cursor_command, command, **options)
        self.assertEqual(self.executor.commands, [])

    def test_cursor_command(self) -> None:
        """A command that makes a cursor is a cursor; the comment is that of the requests for further batches."""
        cursor = self.database.cursor_command("find", "things", filter={}, comment="c", max_await_time_ms=5)
        self.assertIsInstance(cursor, CommandCursor)
        self.assertEqual(self.executor.commands, [])
        results: list[Any] = []
        cursor.batch_size(2).addCallback(results.append)
        self.assertEqual(self.sent(), {"find": "things", "filter": {}})
        self.executor.first_batch({"_id": 1}, cursor_id=7)
        self.assertEqual(
            self.sent(), {"getMore": 7, "collection": "things", "batchSize": 2, "maxTimeMS": 5, "comment": "c"}
        )
        self.executor.next_batch({"_id": 2})
        self.assertEqual(results, [[{"_id": 1}, {"_id": 2}]])
        soon: Any = "soon"
        self.assertRaises(TypeError, self.database.cursor_command, "find", max_await_time_ms=soon)

    def test_no_cursor(self) -> None:
        """A command that makes none fails with a clear error."""
        cursor = self.database.cursor_command("ping")
        self.assertNoResult(cursor)
        self.executor.answer()
        self.assertIn("no cursor", str(self.failureResultOf(cursor, InvalidOperation).value))

    def test_aggregate(self) -> None:
        """A pipeline on the database itself, with the database's options."""
        database = self.database.with_options(read_concern=ReadConcern("local"), write_concern=MAJORITY)
        cursor = database.aggregate(
            [{"$currentOp": {}}], batchSize=3, comment="c", allowDiskUse=True, collation=Collation("de"), let=None
        )
        cursor.next_batch()
        self.assertEqual(
            self.sent(),
            {
                "aggregate": 1,
                "pipeline": [{"$currentOp": {}}],
                "cursor": {"batchSize": 3},
                "allowDiskUse": True,
                "collation": {"locale": "de"},
                "comment": "c",
                "readConcern": {"level": "local"},
            },
        )
        wrong: Any = {"$currentOp": {}}
        self.assertRaises(TypeError, database.aggregate, wrong)
        self.assertRaises(TypeError, database.aggregate, [], let=5)
        database.aggregate([], batchSize=0).next_batch()
        self.assertEqual(self.sent()["cursor"], {"batchSize": 0})
        self.assertRaises(ValueError, database.aggregate, [], session=object())

    def test_aggregate_out(self) -> None:
        """A pipeline that stores is sent at once."""
        self.database.aggregate([{"$documents": []}, {"$out": "things"}])
        self.assertEqual(self.executor.names(), ["aggregate"])


class CollectionTests(DatabaseCase):
    """Creating, dropping and listing collections."""

    def test_create(self) -> None:
        """The options of PyMongo's method are fields of the command; the name is looked up before."""
        created = self.database.create_collection(
            "things", write_concern=MAJORITY, capped=True, size=100, collation=Collation("de"), max=None
        )
        self.assertEqual(
            self.sent(), {"listCollections": 1, "cursor": {}, "filter": {"name": "things"}, "nameOnly": True}
        )
        self.executor.first_batch(namespace="test.$cmd.listCollections")
        self.assertEqual(
            self.sent(),
            {
                "create": "things",
                "capped": True,
                "size": 100,
                "collation": {"locale": "de"},
                "writeConcern": {"w": "majority"},
            },
        )
        self.executor.answer()
        things = self.successResultOf(created)
        self.assertEqual((things.name, things.write_concern), ("things", MAJORITY))

    def test_create_unchecked(self) -> None:
        """Without the look before, the server decides."""
        created = self.database.create_collection("things", check_exists=False)
        self.assertEqual(self.sent(), {"create": "things"})
        self.executor.fail(OperationFailure("already exists", 48))
        self.failureResultOf(created, OperationFailure)

    def test_create_in_session(self) -> None:
        """In a session the look before is part of it; in a transaction the server decides."""
        session = session_of(self.executor.sessions)
        self.database.create_collection("things", session=session)
        self.executor.first_batch(namespace="test.$cmd.listCollections")
        session.transaction.start(Settled(), Int64(1))
        self.database.create_collection("others", session=session)
        self.assertEqual(self.executor.names(), ["listCollections", "create", "create"])
        self.assertEqual([operation.session for operation in self.executor.operations], [session] * 3)

    def test_create_old(self) -> None:
        """TxMongo's options come as a dict, by place or by name."""
        for arguments, keywords in ((({"capped": True},), {}), ((), {"options": {"capped": True}})):
            anything: Any = self.database.create_collection
            anything("things", *arguments, check_exists=False, **keywords)
            self.assertEqual(self.sent(), {"create": "things", "capped": True})

    def test_create_wrong(self) -> None:
        """What is wrong with the arguments is raised at the call."""
        create: Any = self.database.create_collection
        self.assertRaises(InvalidName, create, "a..b")
        self.assertRaises(TypeError, create, 5)
        self.assertRaises(TypeError, create, "things", 5)
        self.assertRaises(TypeError, create, "things", collation="de")
        self.assertRaises(ValueError, create, "things", session=object())

    def test_drop(self) -> None:
        """A collection is dropped by name or by itself."""
        database = self.database.with_options(write_concern=MAJORITY)
        for target in ("things", database.things):
            dropped = database.drop_collection(target, comment="c")
            self.assertEqual(self.sent(), {"drop": "things", "comment": "c", "writeConcern": {"w": "majority"}})
            self.executor.answer({"nIndexesWas": 1})
            self.assertEqual(self.successResultOf(dropped), {"ok": 1, "nIndexesWas": 1})
        wrong: Any = 5
        self.assertRaises(TypeError, database.drop_collection, wrong)

    def test_modify(self) -> None:
        """A collection's options are changed with the write concern; an error is the server's."""
        database = self.database.with_options(write_concern=MAJORITY)
        for target in ("things", database.things):
            modified = database.modify_collection(target, comment="c", validationLevel="off")
            expected = {"collMod": "things", "comment": "c", "validationLevel": "off"}
            self.assertEqual(self.sent(), {**expected, "writeConcern": {"w": "majority"}})
            self.executor.answer()
            self.assertEqual(self.successResultOf(modified), {"ok": 1})
        modified = database.modify_collection("things")
        self.executor.fail(OperationFailure("ns not found", 26))
        self.failureResultOf(modified, OperationFailure)
        wrong: Any = 5
        self.assertRaises(TypeError, database.modify_collection, wrong)

    def test_list(self) -> None:
        """Collections are listed with a filter, in batches, and without repeating the comment."""
        cursor = self.database.list_collections(filter={"type": "view"}, comment="c", batch_size=2)
        cursor.next_batch()
        self.assertEqual(
            self.sent(),
            {"listCollections": 1, "cursor": {"batchSize": 2}, "filter": {"type": "view"}, "comment": "c"},
        )
        self.executor.first_batch({"name": "a"}, cursor_id=7, namespace="test.$cmd.listCollections")
        cursor.next_batch()
        self.assertEqual(self.sent(), {"getMore": 7, "collection": "$cmd.listCollections", "batchSize": 2})

    def test_list_batch_size(self) -> None:
        """The size of the batches may be spelled as PyMongo's users do."""
        for options in ({"cursor": {"batchSize": 2}}, {"batchSize": 2}):
            self.database.list_collections(**options).next_batch()
            self.assertEqual(self.sent(), {"listCollections": 1, "cursor": {"batchSize": 2}})

    def test_list_names(self) -> None:
        """Only the names are asked for, unless the filter needs more."""
        for filter, name_only in ((None, True), ({}, True), ({"name": "a"}, True), ({"type": "view"}, False)):
            names = self.database.list_collection_names(filter=filter)
            self.assertEqual("nameOnly" in self.sent(), name_only)
            self.executor.first_batch({"name": "a", "type": "view"})
            self.assertEqual(self.successResultOf(names), ["a"])

    def test_collection_names(self) -> None:
        """TxMongo's name of it."""
        names = self.database.collection_names(batch_size=2)
        self.executor.first_batch({"name": "a"}, {"name": "b"})
        self.assertEqual(self.successResultOf(names), ["a", "b"])

    def test_list_wrong(self) -> None:
        """What is wrong with the arguments is raised at the call."""
        wrong: Any = 5
        self.assertRaises(TypeError, self.database.list_collections, filter=wrong)
        self.assertRaises(TypeError, self.database.list_collection_names, filter=wrong)
        self.assertRaises(ValueError, self.database.list_collections, session=object())

    def test_validate(self) -> None:
        """The server's report is the result if it finds no fault."""
        report = self.database.validate_collection(self.database.things, full=True, background=False, comment="c")
        self.assertEqual(
            self.sent(),
            {"validate": "things", "scandata": False, "full": True, "background": False, "comment": "c"},
        )
        self.executor.answer({"valid": True})
        self.assertEqual(self.successResultOf(report), {"ok": 1, "valid": True})

    def test_validate_damaged(self) -> None:
        """A report of damage, of any shard, is an error."""
        for reply in (
            {"valid": False, "errors": ["bad"]},
            {"result": "exception: bad"},
            {"result": "corrupt"},
            {"valid": True, "raw": {"shard": {"valid": False}}},
        ):
            report = self.database.validate_collection("things")
            self.executor.answer(reply)
            self.failureResultOf(report, CollectionInvalid)

    def test_dereference(self) -> None:
        """A reference leads to its document."""
        found = self.database.dereference(DBRef("things", 5), comment="c")
        self.assertEqual(self.sent()["filter"], {"_id": 5})
        self.executor.first_batch({"_id": 5})
        self.assertEqual(self.successResultOf(found), {"_id": 5})
        self.database.dereference(DBRef("things", 5, "test"))
        self.assertRaises(ValueError, self.database.dereference, DBRef("things", 5, "other"))
        wrong: Any = {"_id": 5}
        self.assertRaises(TypeError, self.database.dereference, wrong)
