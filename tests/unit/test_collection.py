"""``txmongo.collection``: what each method sends for its arguments, and what it refuses. No server, no network."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from bson import encode
from bson.code import Code
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.collation import Collation
from pymongo.operations import IndexModel, InsertOne, SearchIndexModel, UpdateOne
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.writing import CONTEXT, SERVER
from tests.unit.reading import session_of
from txmongo._ops.base import Operation
from txmongo._ops.client_sessions import Sessions
from txmongo.collection import Collection
from txmongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidName,
    InvalidOperation,
    OperationFailure,
    ProtocolError,
)


class FakeLeftovers:
    """Where cursors are left that nobody finished."""

    def drop(self, namespace: str, cursor_id: int, address: Any) -> None:
        """A cursor was dropped."""


class FakeClient:
    """Builds and encodes what is executed, and answers with what the test has put there.

    It is executor and client in one.
    """

    def __init__(self) -> None:
        self._executor = self
        self._leftovers = FakeLeftovers()
        self._encryption: Any = None
        self.sessions = Sessions(Clock().seconds)
        self.operations: list[Operation[Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any] | Exception] = []

    def execute(self, operation: Operation[Any]) -> Deferred[Any]:
        """As the executor does it, with the reply at once."""
        command = operation.build(SERVER)
        operation.encode(command, SERVER)
        self.operations.append(operation)
        self.commands.append(command)
        reply = self.replies.pop(0) if self.replies else {"ok": 1, "n": 1, "nModified": 1}
        if isinstance(reply, Exception):
            return fail(reply)
        result: Deferred[Any] = succeed(reply if operation.acknowledged else None)
        return result.addCallback(operation.parse, CONTEXT)


class FakeDatabase:
    """The database ``test``, with every option at its default."""

    name = "test"
    codec_options = DEFAULT_CODEC_OPTIONS
    read_preference = ReadPreference.PRIMARY
    write_concern = WriteConcern()
    read_concern = ReadConcern()
    _timeout: float | None = None

    def __init__(self) -> None:
        self.client = FakeClient()


def batch_reply(*documents: Any, namespace: str = "test.things") -> dict[str, Any]:
    """The reply of a command that makes a cursor, with all its documents."""
    return {"ok": 1, "cursor": {"firstBatch": list(documents), "id": 0, "ns": namespace}}


class CollectionCase(SynchronousTestCase):
    """A collection over a client that answers at once."""

    def setUp(self) -> None:
        database = FakeDatabase()
        self.client = database.client
        self.database: Any = database
        self.things: Collection[dict[str, Any]] = Collection(self.database, "things")

    def sent(self, result: Deferred[Any] | None = None) -> dict[str, Any]:
        """The last command; ``result`` must have come by now."""
        if result is not None:
            self.successResultOf(result)
        return self.client.commands[-1]

    def refused(self, error: type[Exception], text: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The call itself raises, naming what is wrong, and sends nothing."""
        before = len(self.client.commands)
        self.assertIn(text, str(self.assertRaises(error, method, *args, **kwargs)))
        self.assertEqual(len(self.client.commands), before)


class IdentityTests(CollectionCase):
    """What a collection is called and where it belongs."""

    def test_names(self) -> None:
        """A collection knows its names and its database."""
        self.assertEqual((self.things.name, self.things.full_name), ("things", "test.things"))
        self.assertIs(self.things.database, self.database)
        self.assertIs(self.things.connection, self.client)
        self.assertEqual(str(self.things), "test.things")
        self.assertIn("'things'", repr(self.things))

    def test_wrong_names(self) -> None:
        """A name that no collection can have is refused."""
        for name in ("", "a..b", "a$b", ".a", "a.", "a\0b"):
            self.refused(InvalidName, "name", Collection, self.database, name)
        for name in ("oplog.$main", "$cmd.sys.inprog", "a.b", "ünïcode"):
            self.assertEqual(Collection(self.database, name).name, name)
        wrong: list[Any] = [None, 5, b"bytes"]
        for value in wrong:
            self.refused(TypeError, "name", Collection, self.database, value)

    def test_subcollections(self) -> None:
        """Attributes and items are subcollections with the same options."""
        parent = self.things.with_options(write_concern=WriteConcern(w=2))
        for child in (parent.small, parent["small"], parent("small")):
            self.assertEqual(child.name, "things.small")
            self.assertEqual(child.write_concern, WriteConcern(w=2))
        self.assertEqual(self.things["_private"].name, "things._private")

    def test_underscores(self) -> None:
        """An attribute with an underscore in front is no subcollection, so that no protocol is claimed by accident."""
        for name in ("_private", "__length_hint__", "_repr_html_"):
            error = self.assertRaises(AttributeError, getattr, self.things, name)
            self.assertIn(f"database['things.{name}']", str(error))
        self.assertFalse(hasattr(self.things, "__len__"))

    def test_call(self) -> None:
        """Calling a collection names the method that was probably meant."""
        missing: Any = self.things.insert_few
        for call in (
            lambda: missing({"a": 1}),
            lambda: missing(),
            lambda: missing(name="x"),
            lambda: missing("a", "b"),
        ):
            error = self.assertRaises(TypeError, call)
            self.assertIn("'insert_few'", str(error))

    def test_not_iterable(self) -> None:
        """A collection cannot be iterated, endless as its items are."""
        self.assertRaises(TypeError, iter, self.things)

    def test_equality(self) -> None:
        """Collections of one name and database are equal, whatever their options."""
        self.assertEqual(self.things, self.database_collection("things"))
        self.assertEqual(hash(self.things), hash(self.database_collection("things")))
        self.assertNotEqual(self.things, self.database_collection("others"))
        self.assertNotEqual(self.things, "things")

    def database_collection(self, name: str) -> Collection[dict[str, Any]]:
        """Another object for a collection."""
        return Collection(self.database, name, WriteConcern(w=3))

    def test_options(self) -> None:
        """Options are the database's unless they are given; with_options changes only what it is given."""
        self.assertEqual(self.things.codec_options, DEFAULT_CODEC_OPTIONS)
        self.assertEqual(self.things.write_concern, WriteConcern())
        self.assertEqual(self.things.read_concern, ReadConcern())
        self.assertEqual(self.things.read_preference, ReadPreference.PRIMARY)
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        other = self.things.with_options(options, ReadPreference.NEAREST, WriteConcern(w=2), ReadConcern("majority"))
        self.assertEqual(other.codec_options, options)
        self.assertEqual(other.read_preference, ReadPreference.NEAREST)
        again = other.with_options(write_concern=WriteConcern(w=3))
        self.assertEqual((again.codec_options, again.read_concern), (options, ReadConcern("majority")))
        self.assertEqual(again.write_concern, WriteConcern(w=3))

    def test_wrong_options(self) -> None:
        """An option of the wrong type is refused by its name."""
        wrong: Any = {"w": 1}
        for name in ("codec_options", "read_preference", "write_concern", "read_concern"):
            self.refused(TypeError, name, self.things.with_options, **{name: wrong})

    def test_old_constructor(self) -> None:
        """The third positional argument is the write concern, as in TxMongo 15.2."""
        self.assertEqual(Collection(self.database, "things", WriteConcern(w=2)).write_concern, WriteConcern(w=2))


class SessionTests(CollectionCase):
    """The session argument."""

    @property
    def sessions(self) -> Sessions:
        """Those of the client."""
        return self.database.client.sessions

    def calls(self, things: Any) -> list[tuple[Any, tuple[Any, ...]]]:
        """Every method that takes a session, with arguments."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        return [*self.writes(things), *self.others(things, update)]

    def writes(self, things: Any) -> list[tuple[Any, tuple[Any, ...]]]:
        """The methods that may be unacknowledged, with arguments."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        return [
            (things.insert_one, ({},)),
            (things.insert_many, ([{}],)),
            (things.update_one, ({}, update)),
            (things.update_many, ({}, update)),
            (things.replace_one, ({}, {})),
            (things.delete_one, ({},)),
            (things.delete_many, ({},)),
            (things.find_one_and_delete, ({},)),
            (things.find_one_and_replace, ({}, {})),
            (things.find_one_and_update, ({}, update)),
            (things.bulk_write, ([InsertOne({})],)),
        ]

    def others(self, things: Any, update: Any) -> list[tuple[Any, tuple[Any, ...]]]:
        """All other methods, with arguments."""
        return [
            (things.find_one, ()),
            (things.find, ()),
            (things.find_raw_batches, ()),
            (things.aggregate, ([],)),
            (things.aggregate_raw_batches, ([],)),
            (things.count_documents, ({},)),
            (things.count, ()),
            (things.distinct, ("a",)),
            (things.create_index, ("a",)),
            (things.create_indexes, ([IndexModel("a")],)),
            (things.drop_index, ("a_1",)),
            (things.drop_indexes, ()),
            (things.list_indexes, ()),
            (things.list_index_names, ()),
            (things.index_information, ()),
            (things.drop, ()),
            (things.rename, ("others",)),
            (things.options, ()),
            (things.create_search_index, ({"definition": {}},)),
            (things.create_search_indexes, ([],)),
            (things.update_search_index, ("all", {})),
            (things.drop_search_index, ("all",)),
            (things.list_search_indexes, ()),
        ]

    def test_no_session(self) -> None:
        """What is no session is refused at the call."""
        for method, args in self.calls(self.things):
            self.refused(ValueError, "session", method, *args, session=object())
        self.refused(ConfigurationError, "session", self.things.estimated_document_count, session=object())

    def test_foreign(self) -> None:
        """A session of another client, or one that has ended, is refused at the call."""
        foreign, ended = session_of(Sessions(Clock().seconds)), session_of(self.sessions)
        ended.finish()
        for method, args in self.calls(self.things):
            self.refused(InvalidOperation, "session", method, *args, session=foreign)
            self.refused(InvalidOperation, "session", method, *args, session=ended)

    def test_passed_on(self) -> None:
        """The session is the operation's."""
        session = session_of(self.sessions)
        for method, args in self.calls(self.things):
            before = len(self.client.operations)
            batch = {"cursor": {"id": 0, "ns": "test.things", "firstBatch": []}, "values": []}
            self.client.replies.append({"ok": 1, "n": 0, **batch})
            method(*args, session=session).addBoth(lambda _: None)
            sessions = [operation.session for operation in self.client.operations[before:]]
            self.assertEqual(sessions, [session], method)

    def test_unacknowledged(self) -> None:
        """A write with w=0 and a session is refused: nobody would hear when the session is free."""
        things = self.things.with_options(write_concern=WriteConcern(w=0))
        session = session_of(self.sessions)
        for method, args in self.writes(things):
            self.refused(ValueError, "w=0", method, *args, session=session)
        self.refused(ValueError, "w=0", self.things.find_one_and_delete, {}, session=session, writeConcern={"w": 0})

    def test_in_transaction(self) -> None:
        """In a transaction a write has no write concern of its own, and is acknowledged."""
        for w in (0, 3):
            things = self.things.with_options(write_concern=WriteConcern(w=w))
            session = session_of(self.sessions, in_transaction=True)
            for method, args in self.writes(things):
                method(*args, session=session).addErrback(lambda _: None)
                self.assertNotIn("writeConcern", self.client.commands[-1], method)
                self.assertTrue(self.client.operations[-1].acknowledged)
            things.find_one_and_delete({}, session=session, writeConcern={"w": w})
            self.assertNotIn("writeConcern", self.client.commands[-1])
            things.find_one_and_update({}, {"$set": {"a.$[b]": 1}}, array_filters=[{"b": 1}], session=session)
            self.assertTrue(self.client.operations[-1].acknowledged)

    def test_own_write_concern(self) -> None:
        """Outside of a transaction a write concern among the fields stays, session or not."""
        session = session_of(self.sessions)
        self.things.find_one_and_delete({}, session=session, writeConcern={"w": 3})
        self.assertEqual(self.client.commands[-1]["writeConcern"], {"w": 3})


class InsertTests(CollectionCase):
    """insert_one and insert_many."""

    def test_insert_one(self) -> None:
        """A document without an _id is given one, in the caller's object; nothing else of it changes."""
        document = {"a": 1}
        result = self.successResultOf(self.things.insert_one(document))
        self.assertIsInstance(result, InsertOneResult)
        self.assertIsInstance(result.inserted_id, ObjectId)
        self.assertEqual(document, {"a": 1, "_id": result.inserted_id})
        self.assertIs(self.sent()["documents"][0], document)

    def test_insert_one_with_id(self) -> None:
        """An _id that is there stays, whatever it is."""
        for document_id in (0, None, "", {"a": 1}):
            result = self.successResultOf(self.things.insert_one({"_id": document_id}))
            self.assertEqual(result.inserted_id, document_id)

    def test_insert_one_of_other_types(self) -> None:
        """Any mutable mapping and raw BSON can be stored, nothing else."""
        self.successResultOf(self.things.insert_one(SON(a=1)))
        raw = RawBSONDocument(encode({"a": 1}))
        self.assertIsNone(self.successResultOf(self.things.insert_one(raw)).inserted_id)
        wrong: list[Any] = [None, [{}], "text", 5]
        for value in wrong:
            self.refused(TypeError, "document", self.things.insert_one, value)

    def test_insert_one_options(self) -> None:
        """The options of an insert go into the command."""
        command = self.sent(self.things.insert_one({}, bypass_document_validation=True, comment={"why": 1}))
        self.assertEqual((command["bypassDocumentValidation"], command["comment"]), (True, {"why": 1}))

    def test_duplicate(self) -> None:
        """A duplicate key comes through the Deferred."""
        self.client.replies = [{"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "dup"}]}]
        self.failureResultOf(self.things.insert_one({}), DuplicateKeyError)

    def test_insert_many(self) -> None:
        """Documents go in one command and their ids come back."""
        documents: list[dict[str, Any]] = [{"a": 1}, {"_id": 2}]
        result = self.successResultOf(self.things.insert_many(iter(documents), ordered=False, comment="c"))
        self.assertIsInstance(result, InsertManyResult)
        self.assertEqual(result.inserted_ids, [documents[0]["_id"], 2])
        command = self.sent()
        self.assertEqual((command["documents"], command["ordered"], command["comment"]), (documents, False, "c"))
        self.assertEqual(len(self.client.commands), 1)

    def test_insert_many_refused(self) -> None:
        """What is no list of documents is refused at the call."""
        wrong: list[Any] = [None, {}, [], [{}, 5]]
        for value in wrong:
            self.refused(TypeError, "document", self.things.insert_many, value)

    def test_insert_many_fails(self) -> None:
        """Refused documents make a BulkWriteError with details."""
        error = {"index": 1, "code": 11000, "errmsg": "dup"}
        self.client.replies = [{"ok": 1, "n": 1, "writeErrors": [error]}]
        failed = self.failureResultOf(self.things.insert_many([{"_id": 1}, {"_id": 1}]), BulkWriteError).value
        self.assertEqual(failed.details["writeErrors"], [{**error, "op": {"_id": 1}}])
        self.assertEqual(failed.details["nInserted"], 1)

    def test_unacknowledged(self) -> None:
        """With w=0 there are ids but no acknowledgement."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        one = self.successResultOf(nothing.insert_one({"_id": 1}))
        self.assertEqual((one.inserted_id, one.acknowledged), (1, False))
        many = self.successResultOf(nothing.insert_many([{"_id": 1}]))
        self.assertEqual((many.inserted_ids, many.acknowledged), ([1], False))
        self.assertEqual(self.sent()["writeConcern"], {"w": 0})


class UpdateTests(CollectionCase):
    """update_one, update_many, replace_one."""

    def test_statements(self) -> None:
        """Each method has its own kind of statement."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        expected = {"q": {"x": 1}, "u": update, "multi": False, "upsert": False}
        self.assertEqual(self.sent(self.things.update_one({"x": 1}, update))["updates"], [expected])
        self.assertEqual(
            self.sent(self.things.update_many({"x": 1}, update, upsert=True))["updates"],
            [{**expected, "multi": True, "upsert": True}],
        )
        self.assertEqual(
            self.sent(self.things.replace_one({"x": 1}, {"a": 1}))["updates"], [{**expected, "u": {"a": 1}}]
        )
        pipeline: list[Any] = [{"$set": {"a": 1}}]
        self.assertEqual(self.sent(self.things.update_one({}, pipeline))["updates"][0]["u"], pipeline)

    def test_options(self) -> None:
        """Every option goes where the command has it."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        common: dict[str, Any] = {
            "upsert": True,
            "bypass_document_validation": True,
            "collation": Collation("en"),
            "hint": [("a", 1)],
            "let": {"v": 1},
            "comment": "c",
        }
        calls: list[tuple[Callable[[], Deferred[Any]], set[str]]] = [
            (
                lambda: self.things.update_one({}, update, array_filters=[{"e": 1}], sort={"a": 1}, **common),
                {"arrayFilters", "sort"},
            ),
            (lambda: self.things.update_many({}, update, array_filters=[{"e": 1}], **common), {"arrayFilters"}),
            (lambda: self.things.replace_one({}, {}, sort={"a": 1}, **common), {"sort"}),
        ]
        for call, options in calls:
            command = self.sent(call())
            self.assertEqual((command["let"], command["comment"]), ({"v": 1}, "c"))
            self.assertIs(command["bypassDocumentValidation"], True)
            [statement] = command["updates"]
            self.assertEqual(statement["collation"], {"locale": "en"})
            self.assertEqual((statement["hint"], statement["upsert"]), ({"a": 1}, True))
            self.assertEqual({"arrayFilters", "sort"} & set(statement), options)

    def test_result(self) -> None:
        """The result counts."""
        result = self.successResultOf(self.things.update_one({}, {"$set": {"a": 1}}))
        self.assertIsInstance(result, UpdateResult)
        self.assertEqual((result.matched_count, result.modified_count), (1, 1))

    def test_refused(self) -> None:
        """Wrong arguments are refused by name at the call."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        wrong: Any = "text"
        for method, second in (
            (self.things.update_one, update),
            (self.things.update_many, update),
            (self.things.replace_one, {}),
        ):
            self.refused(TypeError, "filter", method, wrong, second)
            for name in ("upsert", "collation", "let"):
                self.refused(TypeError, name, method, {}, second, **{name: wrong})
            self.refused(TypeError, "hint", method, {}, second, hint=5)
        self.refused(TypeError, "array_filters", self.things.update_one, {}, update, array_filters=wrong)
        self.refused(TypeError, "sort", self.things.update_one, {}, update, sort=wrong)
        for method in (self.things.update_one, self.things.update_many):
            self.refused(ValueError, "$ operators", method, {}, {"a": 1})
            self.refused(ValueError, "empty", method, {}, {})
            self.refused(TypeError, "update", method, {}, wrong)
        self.refused(ValueError, "$ operators", self.things.replace_one, {}, update)
        self.refused(TypeError, "replacement", self.things.replace_one, {}, wrong)

    def test_unacknowledged(self) -> None:
        """With w=0 neither collation nor array filters can be used."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        update: dict[str, Any] = {"$set": {"a": 1}}
        self.refused(ConfigurationError, "collation", nothing.update_one, {}, update, collation=Collation("en"))
        self.refused(ConfigurationError, "array_filters", nothing.update_many, {}, update, array_filters=[])
        self.refused(ConfigurationError, "collation", nothing.delete_one, {}, Collation("en"))
        self.refused(ConfigurationError, "array_filters", nothing.find_one_and_update, {}, update, array_filters=[])
        self.assertFalse(self.successResultOf(nothing.update_one({}, update)).acknowledged)
        self.assertFalse(self.successResultOf(nothing.delete_many({})).acknowledged)


class DeleteTests(CollectionCase):
    """delete_one and delete_many."""

    def test_commands(self) -> None:
        """Every option goes where the command has it."""
        options: dict[str, Any] = {"collation": Collation("en"), "hint": "a_1", "let": {"v": 1}, "comment": "c"}
        for method, limit in ((self.things.delete_one, 1), (self.things.delete_many, 0)):
            command = self.sent(method({"a": 1}, **options))
            statement = {"q": {"a": 1}, "limit": limit, "collation": {"locale": "en"}, "hint": "a_1"}
            self.assertEqual(command["deletes"], [statement])
            self.assertEqual((command["let"], command["comment"]), ({"v": 1}, "c"))

    def test_result(self) -> None:
        """The result counts."""
        self.client.replies = [{"ok": 1, "n": 4}]
        result = self.successResultOf(self.things.delete_many({}))
        self.assertIsInstance(result, DeleteResult)
        self.assertEqual(result.deleted_count, 4)

    def test_refused(self) -> None:
        """Wrong arguments are refused by name at the call."""
        wrong: Any = "text"
        for method in (self.things.delete_one, self.things.delete_many):
            self.refused(TypeError, "filter", method, wrong)
            self.refused(TypeError, "let", method, {}, let=wrong)
            self.refused(TypeError, "collation", method, {}, collation=wrong)
            self.refused(TypeError, "hint", method, {}, hint=5)


class FindAndModifyTests(CollectionCase):
    """find_one_and_delete, find_one_and_replace, find_one_and_update."""

    def test_delete(self) -> None:
        """A delete asks for removal and hands on every option, unknown ones too."""
        self.client.replies = [{"ok": 1, "value": {"_id": 1}}]
        result = self.things.find_one_and_delete(
            {"a": 1},
            ["b"],
            [("c", DESCENDING)],
            "a_1",
            let={"v": 1},
            comment="c",
            collation=Collation("en"),
            maxTimeMS=5,
        )
        self.assertEqual(self.successResultOf(result), {"_id": 1})
        expected = {
            "findAndModify": "things",
            "query": {"a": 1},
            "remove": True,
            "fields": {"b": 1},
            "sort": {"c": -1},
            "hint": "a_1",
            "let": {"v": 1},
            "comment": "c",
            "collation": {"locale": "en"},
            "maxTimeMS": 5,
        }
        self.assertEqual(self.sent(), expected)

    def test_replace(self) -> None:
        """A replacement goes as the update."""
        self.client.replies = [{"ok": 1, "value": None}]
        result = self.things.find_one_and_replace(
            {"a": 1}, {"b": 1}, {"_id": 0}, {"c": 1}, True, ReturnDocument.AFTER, [("a", 1)]
        )
        self.assertIsNone(self.successResultOf(result))
        expected = {
            "findAndModify": "things",
            "query": {"a": 1},
            "update": {"b": 1},
            "new": True,
            "upsert": True,
            "fields": {"_id": 0},
            "sort": {"c": 1},
            "hint": {"a": 1},
        }
        self.assertEqual(self.sent(), expected)

    def test_update(self) -> None:
        """An update has array filters, and by default the document before the change."""
        update: dict[str, Any] = {"$set": {"a.$[e]": 1}}
        command = self.sent(self.things.find_one_and_update({}, update, array_filters=[{"e": 1}]))
        self.assertEqual((command["update"], command["arrayFilters"]), (update, [{"e": 1}]))
        self.assertEqual((command["new"], command["upsert"]), (False, False))

    def test_refused(self) -> None:
        """Wrong arguments are refused by name at the call."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        wrong: Any = 5
        calls: list[tuple[Any, tuple[Any, ...]]] = [
            (self.things.find_one_and_delete, ()),
            (self.things.find_one_and_replace, ({},)),
            (self.things.find_one_and_update, (update,)),
        ]
        for method, args in calls:
            self.refused(TypeError, "filter", method, wrong, *args)
            for name in ("projection", "sort", "hint", "let", "collation"):
                self.refused(TypeError, name, method, {}, *args, **{name: wrong})
        for method, args in calls[1:]:
            self.refused(TypeError, "upsert", method, {}, *args, upsert=wrong)
            self.refused(TypeError, "return_document", method, {}, *args, return_document=wrong)
        self.refused(ValueError, "$ operators", self.things.find_one_and_replace, {}, update)
        self.refused(ValueError, "$ operators", self.things.find_one_and_update, {}, {"a": 1})
        self.refused(TypeError, "array_filters", self.things.find_one_and_update, {}, update, array_filters={})

    def test_unacknowledged(self) -> None:
        """With w=0 there is no document to get."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        self.assertIsNone(self.successResultOf(nothing.find_one_and_delete({})))


class BulkWriteTests(CollectionCase):
    """bulk_write; more of it in test_bulk.py."""

    def test_result(self) -> None:
        """Writes of several kinds make several commands and one result."""
        result = self.successResultOf(
            self.things.bulk_write([InsertOne({"_id": 1}), UpdateOne({}, {"$set": {"a": 1}})], comment="c")
        )
        self.assertIsInstance(result, BulkWriteResult)
        self.assertEqual((result.inserted_count, result.matched_count, result.acknowledged), (1, 1, True))
        self.assertEqual([next(iter(command)) for command in self.client.commands], ["insert", "update"])
        self.assertEqual(self.sent()["comment"], "c")

    def test_refused(self) -> None:
        """Wrong arguments are refused by name at the call."""
        self.refused(TypeError, "requests", self.things.bulk_write, [{}])
        self.refused(InvalidOperation, "requests", self.things.bulk_write, [])
        self.refused(TypeError, "let", self.things.bulk_write, [InsertOne({})], let=5)

    def test_unacknowledged(self) -> None:
        """With w=0 nothing is counted, and validation cannot be bypassed."""
        nothing = self.things.with_options(write_concern=WriteConcern(w=0))
        result = self.successResultOf(nothing.bulk_write([InsertOne({"_id": 1})]))
        self.assertFalse(result.acknowledged)
        self.refused(
            OperationFailure,
            "bypass_document_validation",
            nothing.bulk_write,
            [InsertOne({})],
            bypass_document_validation=True,
        )


class ReadTests(CollectionCase):
    """find_one, find, aggregate, and what counts."""

    def test_find_one(self) -> None:
        """find_one asks for one document and gives it, or None."""
        self.client.replies = [batch_reply({"_id": 1}), batch_reply()]
        self.assertEqual(self.successResultOf(self.things.find_one({"a": 1})), {"_id": 1})
        self.assertEqual(self.sent(), {"find": "things", "filter": {"a": 1}, "limit": 1, "singleBatch": True})
        self.assertIsNone(self.successResultOf(self.things.find_one()))
        self.assertEqual(self.sent()["filter"], {})

    def test_find_one_by_id(self) -> None:
        """Anything but a mapping is an _id."""
        for document_id in (5, "five", ObjectId()):
            self.client.replies = [batch_reply()]
            self.assertEqual(self.sent(self.things.find_one(document_id))["filter"], {"_id": document_id})

    def test_find_one_with_options(self) -> None:
        """find_one takes the options of find."""
        self.client.replies = [batch_reply({"_id": 1})]
        command = self.sent(self.things.find_one({}, ["a"], 3, sort=[("a", 1)], comment="c"))
        expected = {"projection": {"a": 1}, "skip": 3, "sort": {"a": 1}, "comment": "c", "limit": 1, "filter": {}}
        self.assertEqual({name: command[name] for name in expected}, expected)

    def test_find(self) -> None:
        """find sends nothing before it is used, and then all its options."""
        cursor = self.things.find({"a": 1}, ["b"], 2, 3, sort=[("c", 1)])
        self.assertEqual(self.client.commands, [])
        self.client.replies = [batch_reply({"_id": 1}, {"_id": 2})]
        self.assertEqual(self.successResultOf(cursor), [{"_id": 1}, {"_id": 2}])
        expected = {
            "find": "things",
            "filter": {"a": 1},
            "projection": {"b": 1},
            "skip": 2,
            "limit": 3,
            "sort": {"c": 1},
        }
        self.assertEqual({name: self.sent()[name] for name in expected}, expected)

    def test_find_raw_batches(self) -> None:
        """find_raw_batches gives the documents as they came."""
        self.client.replies = [batch_reply(RawBSONDocument(encode({"_id": 1})), RawBSONDocument(encode({"_id": 2})))]
        batches = self.successResultOf(self.things.find_raw_batches({}))
        self.assertEqual(batches, [encode({"_id": 1}) + encode({"_id": 2})])
        self.assertIs(self.client.operations[-1].reply_codec_options.document_class, RawBSONDocument)

    def test_aggregate(self) -> None:
        """aggregate sends its options as the server spells them, and gives a list."""
        self.client.replies = [batch_reply({"_id": 1})]
        cursor = self.things.aggregate(
            [{"$match": {}}],
            let={"v": 1},
            comment="c",
            allowDiskUse=True,
            batchSize=5,
            collation=Collation("en"),
            hint=[("a", 1)],
        )
        self.assertEqual(self.client.commands, [])
        self.assertEqual(self.successResultOf(cursor), [{"_id": 1}])
        expected = {
            "aggregate": "things",
            "pipeline": [{"$match": {}}],
            "cursor": {"batchSize": 5},
            "let": {"v": 1},
            "comment": "c",
            "allowDiskUse": True,
            "collation": {"locale": "en"},
            "hint": {"a": 1},
        }
        self.assertEqual(self.sent(), expected)

    def test_aggregate_that_writes(self) -> None:
        """A pipeline that stores its documents is sent at once, with the write concern."""
        durable = self.things.with_options(write_concern=WriteConcern(w=2))
        self.client.replies = [batch_reply()]
        cursor = durable.aggregate([{"$out": "others"}], batchSize=5)
        self.assertEqual(self.sent()["writeConcern"], {"w": 2})
        self.assertEqual(self.sent()["cursor"], {})
        self.assertEqual(self.successResultOf(cursor), [])

    def test_aggregate_raw_batches(self) -> None:
        """aggregate_raw_batches gives the results as they came."""
        self.client.replies = [batch_reply(RawBSONDocument(encode({"_id": 1})))]
        cursor = self.things.aggregate_raw_batches([], let={"v": 1})
        self.assertEqual(self.successResultOf(cursor), [encode({"_id": 1})])
        self.assertEqual(self.sent()["let"], {"v": 1})
        self.assertIs(self.client.operations[-1].reply_codec_options.document_class, RawBSONDocument)

    def test_aggregate_refused(self) -> None:
        """Wrong arguments are refused by name at the call."""
        self.refused(TypeError, "pipeline", self.things.aggregate, {"$match": {}})
        self.refused(TypeError, "let", self.things.aggregate, [], let=5)
        self.refused(TypeError, "batchSize", self.things.aggregate, [], batchSize="5")
        self.refused(TypeError, "collation", self.things.aggregate, [], collation="en")

    def test_count_documents(self) -> None:
        """count_documents is an aggregation; its options may be spelled in TxMongo's way."""
        self.client.replies = [batch_reply({"_id": 1, "n": 7})]
        counted = self.things.count_documents({"a": 1}, skip=1, limit=2, max_time_ms=5, hint="a_1", comment="c")
        self.assertEqual(self.successResultOf(counted), 7)
        command = self.sent()
        self.assertEqual(command["aggregate"], "things")
        expected = {"maxTimeMS": 5, "hint": "a_1", "comment": "c"}
        self.assertEqual({name: command[name] for name in expected}, expected)
        self.refused(TypeError, "filter", self.things.count_documents, None)

    def test_estimated_document_count(self) -> None:
        """estimated_document_count asks for the count without a query."""
        self.client.replies = [{"ok": 1, "n": 7}]
        self.assertEqual(self.successResultOf(self.things.estimated_document_count("c", maxTimeMS=5)), 7)
        self.assertEqual(self.sent(), {"count": "things", "comment": "c", "maxTimeMS": 5})

    def test_count(self) -> None:
        """count sends its query."""
        self.client.replies = [{"ok": 1, "n": 7}]
        self.assertEqual(self.successResultOf(self.things.count({"a": 1}, limit=9)), 7)
        self.assertEqual(self.sent(), {"count": "things", "query": {"a": 1}, "limit": 9})
        self.refused(TypeError, "filter", self.things.count, 5)

    def test_distinct(self) -> None:
        """distinct sends key, query and options."""
        self.client.replies = [{"ok": 1, "values": [1, 2]}]
        found = self.things.distinct("a", {"b": 1}, comment="c", hint="a_1", collation=Collation("en"), maxTimeMS=5)
        self.assertEqual(self.successResultOf(found), [1, 2])
        expected = {"distinct": "things", "key": "a", "query": {"b": 1}, "comment": "c", "hint": "a_1"}
        self.assertEqual(self.sent(), {**expected, "collation": {"locale": "en"}, "maxTimeMS": 5})
        self.refused(TypeError, "key", self.things.distinct, 5)
        self.refused(TypeError, "filter", self.things.distinct, "a", 5)

    def test_map_reduce(self) -> None:
        """map_reduce sends functions and options, and gives the results or the whole reply."""
        reply = {"ok": 1, "results": [{"_id": 1, "value": 2}]}
        self.client.replies = [reply, reply]
        inline = {"inline": 1}
        results = self.things.map_reduce("f", Code("g"), out=inline, sort=[("a", -1)], max_time_ms=5, comment="c")
        self.assertEqual(self.successResultOf(results), [{"_id": 1, "value": 2}])
        expected = {"mapReduce": "things", "map": Code("f"), "reduce": Code("g"), "out": inline, "sort": {"a": -1}}
        self.assertEqual(self.sent(), {**expected, "maxTimeMS": 5, "comment": "c"})
        self.assertEqual(self.successResultOf(self.things.map_reduce("f", "g", True, out=inline)), reply)

    def test_map_reduce_into_collection(self) -> None:
        """Results that are stored come as None; the primary stores them, with the write concern."""
        elsewhere = self.things.with_options(
            read_preference=ReadPreference.SECONDARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w=2),
        )
        self.client.replies = [{"ok": 1, "result": "others"}]
        self.assertIsNone(self.successResultOf(elsewhere.map_reduce("f", "g", out="others")))
        self.assertEqual(self.sent()["writeConcern"], {"w": 2})
        self.assertNotIn("readConcern", self.sent())
        self.assertEqual(self.client.operations[-1].read_preference, ReadPreference.PRIMARY)

    def test_map_reduce_refused(self) -> None:
        """Arguments of other types are refused by name."""
        out: Any = {"inline": 1}
        wrong: Any = 5
        self.refused(TypeError, "map", self.things.map_reduce, wrong, "g", out=out)
        self.refused(TypeError, "reduce", self.things.map_reduce, "f", wrong, out=out)
        self.refused(TypeError, "out", self.things.map_reduce, "f", "g", out=wrong)
        self.refused(TypeError, "out", self.things.map_reduce, "f", "g")
        self.refused(TypeError, "full_response", self.things.map_reduce, "f", "g", out, out=out)

    def test_read_options(self) -> None:
        """Reads are done with the collection's read preference and read concern."""
        elsewhere = self.things.with_options(
            read_preference=ReadPreference.SECONDARY, read_concern=ReadConcern("majority")
        )
        reads: list[Callable[[], Deferred[Any]]] = [
            lambda: elsewhere.find_one({}),
            lambda: elsewhere.find_one({}, ["a"]),
            lambda: elsewhere.find({}),
            lambda: elsewhere.aggregate([]),
            lambda: elsewhere.count_documents({}),
            lambda: elsewhere.distinct("a"),
            lambda: elsewhere.map_reduce("f", "g", out={"inline": 1}),
        ]
        for read in reads:
            self.client.replies = [{**batch_reply(), "values": []}]
            self.assertEqual(self.sent(read())["readConcern"], {"level": "majority"})
            self.assertEqual(self.client.operations[-1].read_preference, ReadPreference.SECONDARY)


class IndexTests(CollectionCase):
    """Indexes."""

    def test_create_index(self) -> None:
        """create_index sends one index with its name and options, and gives the name."""
        created = self.things.create_index([("a", ASCENDING), ("b", DESCENDING)], comment="c", unique=True, maxTimeMS=5)
        self.assertEqual(self.successResultOf(created), "a_1_b_-1")
        index = {"name": "a_1_b_-1", "key": {"a": 1, "b": -1}, "unique": True}
        expected = {"createIndexes": "things", "indexes": [index], "comment": "c", "maxTimeMS": 5}
        self.assertEqual(self.sent(), expected)
        self.assertEqual(self.successResultOf(self.things.create_index("a", name="mine")), "mine")

    def test_create_indexes(self) -> None:
        """create_indexes sends several at once."""
        names = self.things.create_indexes([IndexModel("a"), IndexModel([("b", -1)])], commitQuorum=1)
        self.assertEqual(self.successResultOf(names), ["a_1", "b_-1"])
        self.assertEqual(self.sent()["commitQuorum"], 1)
        wrong: list[Any] = [None, IndexModel("a"), [{"a": 1}]]
        for value in wrong:
            self.refused(TypeError, "indexes", self.things.create_indexes, value)

    def test_drop_index(self) -> None:
        """An index is dropped by its name or by its keys."""
        reply = self.successResultOf(self.things.drop_index("a_1", comment="c", maxTimeMS=5))
        self.assertEqual(reply["ok"], 1)
        self.assertEqual(self.sent(), {"dropIndexes": "things", "index": "a_1", "comment": "c", "maxTimeMS": 5})
        self.assertEqual(self.sent(self.things.drop_index([("a", 1), ("b", -1)]))["index"], "a_1_b_-1")
        self.assertEqual(self.sent(self.things.drop_indexes())["index"], "*")
        self.refused(TypeError, "index_or_name", self.things.drop_index, 5)

    def test_drop_index_of_nothing(self) -> None:
        """That the collection does not exist is no error; that the index does not is one."""
        self.client.replies = [OperationFailure("ns not found", 26, {"ok": 0, "code": 26})]
        self.assertEqual(self.successResultOf(self.things.drop_index("a_1")), {"ok": 0, "code": 26})
        self.client.replies = [OperationFailure("index not found", 27)]
        self.failureResultOf(self.things.drop_index("a_1"), OperationFailure)

    def test_list_indexes(self) -> None:
        """list_indexes gives the server's documents."""
        index = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
        self.client.replies = [batch_reply(index)]
        self.assertEqual(self.successResultOf(self.things.list_indexes(comment="c")), [index])
        self.assertEqual(self.sent(), {"listIndexes": "things", "cursor": {}, "comment": "c"})

    def test_list_indexes_in_batches(self) -> None:
        """The batch size of list_indexes is that of each batch, and has to be a number of documents."""
        self.client.replies = [
            {"cursor": {"id": 5, "ns": "test.things", "firstBatch": [{"name": "a"}]}},
            {"cursor": {"id": 0, "ns": "test.things", "nextBatch": [{"name": "b"}]}},
        ]
        found = self.successResultOf(self.things.list_indexes(batch_size=1))
        self.assertEqual([index["name"] for index in found], ["a", "b"])
        self.assertEqual(self.sent(), {"getMore": 5, "collection": "things", "batchSize": 1})
        self.assertEqual(self.client.commands[-2], {"listIndexes": "things", "cursor": {"batchSize": 1}})
        wrong: Any
        for wrong, error in (("1", TypeError), (-1, ValueError)):
            with self.assertRaises(error):
                self.things.list_indexes(batch_size=wrong)

    def test_list_indexes_of_nothing(self) -> None:
        """A collection that does not exist has no indexes."""
        self.client.replies = [OperationFailure("ns not found", 26)]
        self.assertEqual(self.successResultOf(self.things.list_indexes()), [])

    def test_list_index_names(self) -> None:
        """list_index_names gives the names alone."""
        self.client.replies = [batch_reply({"v": 2, "key": {"_id": 1}, "name": "_id_"})]
        self.assertEqual(self.successResultOf(self.things.list_index_names(comment="c")), ["_id_"])
        self.assertEqual(self.sent(), {"listIndexes": "things", "cursor": {}, "comment": "c"})

    def test_index_information(self) -> None:
        """index_information is by name, with pairs for keys, which can be read as a mapping."""
        self.client.replies = [batch_reply({"v": 2, "key": {"a": 1, "b": -1}, "name": "mine", "unique": True})]
        information = self.successResultOf(self.things.index_information())
        described = {"v": 2, "key": [("a", 1), ("b", -1)], "name": "mine", "unique": True}
        self.assertEqual(information, {"mine": described})
        self.assertEqual(information["mine"]["key"]["b"], -1)


class SearchIndexTests(CollectionCase):
    """Search indexes: what is sent for them, and that it never has a concern."""

    definition = {"mappings": {"dynamic": True}}

    def setUp(self) -> None:
        super().setUp()
        self.things = self.things.with_options(
            write_concern=WriteConcern("majority"), read_concern=ReadConcern("majority")
        )

    def test_create_one(self) -> None:
        """create_search_index sends one model and gives its name; a mapping stands for a model."""
        command = {"createSearchIndexes": "things", "indexes": [{"name": "all", "definition": self.definition}]}
        self.client.replies = [{"ok": 1, "indexesCreated": [{"id": "1", "name": "all"}]}] * 2
        model = SearchIndexModel(self.definition, "all")
        self.assertEqual(self.successResultOf(self.things.create_search_index(model)), "all")
        self.assertEqual(self.sent(), command)
        model_as_mapping = {"definition": self.definition, "name": "all"}
        created = self.things.create_search_index(model_as_mapping, comment="c", maxTimeMS=5)
        self.assertEqual(self.successResultOf(created), "all")
        self.assertEqual(self.sent(), command | {"comment": "c", "maxTimeMS": 5})

    def test_create_several(self) -> None:
        """create_search_indexes sends all models with what they say, and leaves it to the server to want one."""
        self.client.replies = [
            {"ok": 1, "indexesCreated": [{"id": "1", "name": "default"}, {"id": "2", "name": "v"}]},
            {"ok": 1, "indexesCreated": []},
        ]
        models = [SearchIndexModel(self.definition), SearchIndexModel(self.definition, "v", "vectorSearch", more=1)]
        self.assertEqual(self.successResultOf(self.things.create_search_indexes(models)), ["default", "v"])
        second = {"name": "v", "definition": self.definition, "type": "vectorSearch", "more": 1}
        indexes = [{"definition": self.definition}, second]
        self.assertEqual(self.sent(), {"createSearchIndexes": "things", "indexes": indexes})
        self.assertEqual(self.successResultOf(self.things.create_search_indexes([])), [])
        self.assertEqual(self.sent(), {"createSearchIndexes": "things", "indexes": []})

    def test_wrong_models(self) -> None:
        """What is no model is refused."""
        wrong: list[Any] = [None, SearchIndexModel({}), [{"definition": {}}], [IndexModel("a")]]
        for value in wrong:
            self.refused(TypeError, "models", self.things.create_search_indexes, value)
        self.refused(TypeError, "model ", self.things.create_search_index, [SearchIndexModel({})])
        self.refused(TypeError, "definition", self.things.create_search_index, {"name": "all"})

    def test_update(self) -> None:
        """update_search_index sends name and definition."""
        updated = self.things.update_search_index("all", self.definition, comment="c", maxTimeMS=5)
        self.assertIsNone(self.successResultOf(updated))
        expected = {"updateSearchIndex": "things", "name": "all", "definition": self.definition}
        self.assertEqual(self.sent(), expected | {"comment": "c", "maxTimeMS": 5})
        self.refused(TypeError, "name", self.things.update_search_index, self.definition, self.definition)
        self.refused(TypeError, "definition", self.things.update_search_index, "all", "all")

    def test_drop(self) -> None:
        """drop_search_index sends the name."""
        self.assertIsNone(self.successResultOf(self.things.drop_search_index("all", comment="c", maxTimeMS=5)))
        self.assertEqual(self.sent(), {"dropSearchIndex": "things", "name": "all", "comment": "c", "maxTimeMS": 5})
        self.refused(TypeError, "name", self.things.drop_search_index, None)

    def test_missing_collection(self) -> None:
        """That the collection does not exist is no error to drop_search_index, and one to the others."""
        self.client.replies = [OperationFailure("ns not found", 26)]
        self.assertIsNone(self.successResultOf(self.things.drop_search_index("all")))
        self.client.replies = [OperationFailure("no such index", 27)]
        self.failureResultOf(self.things.drop_search_index("all"), OperationFailure)
        for method, arguments in (
            (self.things.create_search_index, ({"definition": {}},)),
            (self.things.update_search_index, ("all", {})),
            (self.things.list_search_indexes, ()),
        ):
            self.client.replies = [OperationFailure("ns not found", 26)]
            self.failureResultOf(method(*arguments), OperationFailure)

    def test_list(self) -> None:
        """list_search_indexes is a pipeline with the options of one, and gives the server's documents."""
        index = {"id": "1", "name": "all", "status": "READY", "queryable": True}
        self.client.replies = [batch_reply(index)]
        self.assertEqual(
            self.successResultOf(self.things.list_search_indexes("all", comment="c", batchSize=10)), [index]
        )
        expected = {
            "aggregate": "things",
            "pipeline": [{"$listSearchIndexes": {"name": "all"}}],
            "cursor": {"batchSize": 10},
            "comment": "c",
        }
        self.assertEqual(self.sent(), expected)
        self.client.replies = [batch_reply()]
        self.assertEqual(self.successResultOf(self.things.list_search_indexes()), [])
        self.assertEqual(self.sent()["pipeline"], [{"$listSearchIndexes": {}}])
        self.refused(TypeError, "name", self.things.list_search_indexes, {})
        self.refused(TypeError, "batchSize", self.things.list_search_indexes, batchSize="many")

    def test_malformed_reply(self) -> None:
        """A reply without a name for each model is not one of MongoDB's."""
        for reply in ({}, {"indexesCreated": None}, {"indexesCreated": []}, {"indexesCreated": [{"id": "1"}]}):
            self.client.replies = [{"ok": 1, **reply}]
            self.failureResultOf(self.things.create_search_index({"definition": {}}), ProtocolError)


class ManagementTests(CollectionCase):
    """drop, rename, options."""

    def test_drop(self) -> None:
        """drop sends the write concern and comment."""
        durable = self.things.with_options(write_concern=WriteConcern(w=2))
        self.assertEqual(self.successResultOf(durable.drop(comment="c"))["ok"], 1)
        self.assertEqual(self.sent(), {"drop": "things", "comment": "c", "writeConcern": {"w": 2}})

    def test_drop_of_nothing(self) -> None:
        """To drop what does not exist is no error; other errors are."""
        missing = OperationFailure("ns not found", 26, {"ok": 0, "code": 26})
        self.client.replies = [missing, OperationFailure("no", 13)]
        self.assertEqual(self.successResultOf(self.things.drop()), {"ok": 0, "code": 26})
        self.failureResultOf(self.things.drop(), OperationFailure)

    def test_rename(self) -> None:
        """rename is a command of the admin database, with full names."""
        reply = self.successResultOf(self.things.rename("others", dropTarget=True, comment="c"))
        self.assertEqual(reply["ok"], 1)
        expected = {"renameCollection": "test.things", "to": "test.others", "dropTarget": True, "comment": "c"}
        self.assertEqual(self.sent(), expected)
        self.assertEqual(self.client.operations[-1].database, "admin")
        self.refused(InvalidName, "new_name", self.things.rename, "a..b")
        self.refused(TypeError, "new_name", self.things.rename, self.things)

    def test_options(self) -> None:
        """options are those that the server lists, or none."""
        self.client.replies = [batch_reply({"name": "things", "options": {"capped": True}}), batch_reply()]
        self.assertEqual(self.successResultOf(self.things.options()), {"capped": True})
        self.assertEqual(self.sent()["filter"], {"name": "things"})
        self.assertEqual(self.successResultOf(self.things.options()), {})

    def test_no_unhandled_errors(self) -> None:
        """Nothing that a test left behind complains when it is collected."""
        self.client.replies = [OperationFailure("no", 1)]
        self.failureResultOf(self.things.insert_one({}), OperationFailure)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
