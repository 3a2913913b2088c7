"""Collection.insert, update, save and remove of TxMongo 15.2."""

from __future__ import annotations

import contextlib
from typing import Any

from bson.objectid import ObjectId
from pymongo.write_concern import WriteConcern
from twisted.internet import defer

from tests.compat.servers import CompatTestCase, on_every_server
from txmongo.errors import AutoReconnect, BulkWriteError, DuplicateKeyError, OperationFailure, WriteConcernError

CONTINUE_ON_ERROR = 1


@on_every_server
class InsertTests(CompatTestCase):
    """Collection.insert(docs, safe=None, flags=0, **write concern)."""

    async def test_one(self) -> None:
        """A document is stored, is given an _id, and that is the result."""
        document = {"x": 1}
        result = await self.deprecated(self.things.insert, document)
        self.assertIsInstance(result, ObjectId)
        self.assertEqual(document, {"x": 1, "_id": result})
        self.assertEqual(await self.contents(), [document])
        self.assertIn("insert_one or insert_many", self.said)

    async def test_list(self) -> None:
        """A list of documents is stored, and the result is the list of their _ids."""
        result = await self.deprecated(self.things.insert, [{"_id": 1}, {"_id": 2}, {}])
        self.assertEqual(result[:2], [1, 2])
        self.assertEqual([document["_id"] for document in await self.contents()], result)

    async def test_types(self) -> None:
        """Anything else is a TypeError at the call, and nothing is sent."""
        for wrong in (None, "x", 5, ({"_id": 1},), [1], [{"_id": 1}, None], {1, 2}, []):
            self.assertRaises(TypeError, self.deprecated, self.things.insert, wrong)
        self.assertRaises(TypeError, self.deprecated, self.things.insert, {}, flags="1")
        self.assertRaises(TypeError, self.deprecated, self.things.insert, {}, ordered=False)
        self.assertEqual(self.commands.sent, [])

    async def test_duplicate(self) -> None:
        """A key that is taken is a DuplicateKeyError, for a list too, which ends there."""
        await self.deprecated(self.things.insert, {"_id": 2})
        await self.failure(self.deprecated(self.things.insert, {"_id": 2}), DuplicateKeyError)
        await self.failure(self.deprecated(self.things.insert, [{"_id": 1}, {"_id": 2}, {"_id": 3}]), DuplicateKeyError)
        self.assertEqual(await self.contents(), [{"_id": 1}, {"_id": 2}])

    async def test_continue(self) -> None:
        """With INSERT_CONTINUE_ON_ERROR the others are stored all the same."""
        await self.deprecated(self.things.insert, {"_id": 2})
        documents = [{"_id": 1}, {"_id": 2}, {"_id": 3}]
        inserting = self.deprecated(self.things.insert, documents, flags=CONTINUE_ON_ERROR)
        await self.failure(inserting, DuplicateKeyError)
        self.assertEqual(await self.contents(), [{"_id": 1}, {"_id": 2}, {"_id": 3}])

    async def test_refused(self) -> None:
        """A document that the server refuses is an OperationFailure, for a list too."""
        await self.database.create_collection("things", validator={"x": {"$type": "int"}})
        for docs in ({"x": "y"}, [{"x": 1}, {"x": "y"}]):
            error = await self.failure(self.deprecated(self.things.insert, docs), OperationFailure)
            self.assertNotIsInstance(error, BulkWriteError)
            self.assertEqual(error.code, 121)

    async def test_unacknowledged(self) -> None:
        """With safe=False or w=0 the result is the _id too, and no error is heard of."""
        client = self.fixed_client()
        things = client.txmongo_compat.things
        first = self.deprecated(things.insert, {"_id": 1}, safe=False)
        again = self.deprecated(things.insert, {"_id": 1}, safe=False)
        many = self.deprecated(things.insert, [{"_id": 1}, {"_id": 2}], w=0, flags=CONTINUE_ON_ERROR)
        self.assertEqual(await things.find(), [{"_id": 1}, {"_id": 2}])
        self.assertEqual([await first, await again, await many], [1, 1, [1, 2]])
        self.assertEqual([each["writeConcern"] for each in self.sent("insert")], [{"w": 0}] * 3)

    async def test_concerns(self) -> None:
        """The write concern is that of the keywords, else what safe says, else the collection's."""
        majority = self.things.with_options(write_concern=WriteConcern(w="majority"))
        await self.deprecated(majority.insert, {}, j=True)
        await self.deprecated(majority.insert, {}, True)
        await self.deprecated(majority.insert, {})
        await self.deprecated(self.things.with_options(write_concern=WriteConcern(w=0)).insert, {}, safe=True)
        concerns = [each.get("writeConcern") for each in self.sent("insert")]
        self.assertEqual(concerns, [{"j": True}, {"w": "majority"}, {"w": "majority"}, None])

    async def test_concern_not_kept(self) -> None:
        """A guarantee that cannot be given is an OperationFailure, and the document is stored."""
        inserting = self.deprecated(self.things.insert, [{"_id": 1}], w=3, wtimeout=50)
        error = await self.failure(inserting, OperationFailure)
        self.assertNotIsInstance(error, BulkWriteError)
        if isinstance(error, WriteConcernError):
            self.assertEqual(await self.contents(), [{"_id": 1}])


@on_every_server
class UpdateTests(CompatTestCase):
    """Collection.update(spec, document, upsert=False, multi=False, safe=None, flags=0, **write concern)."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Three documents."""
        await super().setUp()
        await self.things.insert_many([{"_id": n, "x": 1} for n in range(3)])
        self.commands.sent.clear()

    async def update(self, *args: Any, **kwargs: Any) -> Any:
        """The outcome of an update."""
        return await self.deprecated(self.things.update, *args, **kwargs)

    async def test_one(self) -> None:
        """Operators change the first document that matches; the result is what getLastError said."""
        outcome = await self.update({"x": 1}, {"$set": {"x": 2}})
        self.assertEqual(outcome, {"ok": 1.0, "err": None, "n": 1, "nModified": 1, "updatedExisting": True})
        self.assertEqual([document["x"] for document in await self.contents()], [2, 1, 1])
        self.assertIn("update_one, update_many or replace_one", self.said)

    async def test_replace(self) -> None:
        """A whole document takes the other's place."""
        await self.update({"_id": 1}, {"y": 1})
        self.assertEqual((await self.contents())[1], {"_id": 1, "y": 1})
        await self.update({"_id": 1}, {})
        self.assertEqual((await self.contents())[1], {"_id": 1})

    async def test_multi(self) -> None:
        """With multi, as an argument or a flag, all that match are changed."""
        self.assertEqual((await self.update({"x": 1}, {"$inc": {"x": 1}}, multi=True))["n"], 3)
        self.assertEqual((await self.update({"x": 2}, {"$inc": {"x": 1}}, flags=2))["n"], 3)
        self.assertEqual((await self.update({"x": 3}, {"$inc": {"x": 1}}, False, True))["n"], 3)

    async def test_upsert(self) -> None:
        """With upsert, as an argument or a flag, a document is made if none matches; the result has its _id."""
        outcome = await self.update({"_id": 7}, {"$set": {"x": 7}}, upsert=True)
        self.assertEqual(
            outcome, {"ok": 1.0, "err": None, "n": 1, "nModified": 0, "updatedExisting": False, "upserted": 7}
        )
        self.assertEqual((await self.update({"_id": 8}, {"x": 8}, flags=1))["upserted"], 8)
        self.assertEqual((await self.update({"_id": 9}, {"$set": {"x": 9}}, flags=3))["upserted"], 9)
        self.assertEqual(len(await self.contents()), 6)

    async def test_none(self) -> None:
        """Nothing matches: nothing is changed, and that is no error."""
        outcome = await self.update({"_id": 7}, {"$set": {"x": 7}})
        self.assertEqual((outcome["n"], outcome["updatedExisting"]), (0, False))
        self.assertNotIn("upserted", outcome)

    async def test_errors(self) -> None:
        """What the server refuses is an OperationFailure; a key that is taken a DuplicateKeyError."""
        await self.failure(self.deprecated(self.things.update, {}, {"$nonsense": {}}), OperationFailure)
        multi = self.deprecated(self.things.update, {}, {"whole": 1}, multi=True)
        self.assertEqual((await self.failure(multi, OperationFailure)).code, 9)
        await self.things.create_index("unique", unique=True, sparse=True)
        await self.update({"_id": 1}, {"$set": {"unique": 1}})
        updating = self.deprecated(self.things.update, {"_id": 2}, {"$set": {"unique": 1}})
        await self.failure(updating, DuplicateKeyError)

    async def test_types(self) -> None:
        """Arguments of a wrong type are TypeErrors at the call that name the argument."""
        for name, args in (
            ("spec", (None, {})),
            ("spec", ("x", {})),
            ("document", ({}, None)),
            ("document", ({}, [])),
            ("upsert", ({}, {}, 1)),
            ("multi", ({}, {}, False, "yes")),
            ("flags", ({}, {}, False, False, None, "1")),
        ):
            error = self.assertRaises(TypeError, self.deprecated, self.things.update, *args)
            self.assertIn(name, str(error))
        self.assertEqual(self.commands.sent, [])

    async def test_unacknowledged(self) -> None:
        """Without an answer the result is None."""
        client = self.fixed_client()
        updating = self.deprecated(client.txmongo_compat.things.update, {"_id": 1}, {"$set": {"x": 5}}, safe=False)
        found = client.txmongo_compat.things.find_one({"_id": 1})
        self.assertIsNone(await updating)
        self.assertEqual((await found)["x"], 5)

    async def test_concern(self) -> None:
        """The keywords are the write concern."""
        await self.update({}, {"$set": {"x": 2}}, w=1, j=True)
        self.assertEqual([each["writeConcern"] for each in self.sent("update")], [{"w": 1, "j": True}])


@on_every_server
class SaveTests(CompatTestCase):
    """Collection.save(doc, safe=None, **write concern)."""

    async def test_insert(self) -> None:
        """A document without an _id is inserted; the result is its new _id."""
        document = {"x": 1}
        result = await self.deprecated(self.things.save, document)
        self.assertEqual(await self.contents(), [{"x": 1, "_id": result}])
        self.assertEqual(document["_id"], result)
        self.assertIn("replace_one", self.said)

    async def test_replace(self) -> None:
        """A document with an _id takes the place of that with the same, or is inserted; the result is as update's."""
        outcome = await self.deprecated(self.things.save, {"_id": 0, "x": 1})
        self.assertEqual((outcome["n"], outcome["updatedExisting"], outcome["upserted"]), (1, False, 0))
        outcome = await self.deprecated(self.things.save, {"_id": 0, "y": 1})
        self.assertEqual((outcome["n"], outcome["updatedExisting"]), (1, True))
        self.assertEqual(await self.contents(), [{"_id": 0, "y": 1}])

    async def test_operators(self) -> None:
        """A field that looks like an operator is stored or refused by the server, never carried out."""
        await self.deprecated(self.things.save, {"_id": 1, "x": 1})
        with contextlib.suppress(OperationFailure):
            await self.deprecated(self.things.save, {"_id": 1, "$set": {"x": 2}})
        self.assertNotEqual(await self.things.find_one(1), {"_id": 1, "x": 2})

    async def test_types(self) -> None:
        """Anything but a document is a TypeError at the call."""
        for wrong in (None, 5, "x", [{"_id": 1}]):
            self.assertRaises(TypeError, self.deprecated, self.things.save, wrong)

    async def test_unacknowledged(self) -> None:
        """Without an answer the result is None, or the _id of what was inserted."""
        things = self.fixed_client().txmongo_compat.things
        saved = self.deprecated(things.save, {"_id": 1}, safe=False)
        inserted = self.deprecated(things.save, {"x": 1}, w=0)
        count = things.count_documents({})
        self.assertIsNone(await saved)
        self.assertIsInstance(await inserted, ObjectId)
        self.assertEqual(await count, 2)


@on_every_server
class RemoveTests(CompatTestCase):
    """Collection.remove(spec, safe=None, single=False, flags=0, **write concern)."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Three documents."""
        await super().setUp()
        await self.things.insert_many([{"_id": n, "x": 1} for n in range(3)])

    async def test_many(self) -> None:
        """All documents that match are removed; the result says how many."""
        outcome = await self.deprecated(self.things.remove, {"_id": {"$gt": 0}})
        self.assertEqual(outcome, {"ok": 1.0, "err": None, "n": 2})
        self.assertEqual(await self.contents(), [{"_id": 0, "x": 1}])
        self.assertIn("delete_one or delete_many", self.said)

    async def test_single(self) -> None:
        """With single, as an argument or a flag, one is removed."""
        self.assertEqual((await self.deprecated(self.things.remove, {"x": 1}, single=True))["n"], 1)
        self.assertEqual((await self.deprecated(self.things.remove, {"x": 1}, flags=1))["n"], 1)
        self.assertEqual(len(await self.contents()), 1)

    async def test_object_id(self) -> None:
        """An ObjectId stands for the document of that _id."""
        key = ObjectId()
        await self.things.insert_one({"_id": key})
        self.assertEqual((await self.deprecated(self.things.remove, key))["n"], 1)
        self.assertEqual(len(await self.contents()), 3)

    async def test_types(self) -> None:
        """Anything else is a TypeError at the call, and nothing is removed."""
        for wrong in (None, 5, "x", []):
            self.assertRaises(TypeError, self.deprecated, self.things.remove, wrong)
        self.assertEqual(len(await self.contents()), 3)

    async def test_unacknowledged(self) -> None:
        """Without an answer the result is None."""
        things = self.fixed_client().txmongo_compat.things
        removed = self.deprecated(things.remove, {}, safe=False)
        count = things.count_documents({})
        self.assertIsNone(await removed)
        self.assertEqual(await count, 0)

    async def test_concern(self) -> None:
        """The keywords are the write concern."""
        self.commands.sent.clear()
        await self.deprecated(self.things.remove, {}, j=True)
        self.assertEqual([each["writeConcern"] for each in self.sent("delete")], [{"j": True}])


@on_every_server
class DisconnectedTests(CompatTestCase):
    """When there is no server."""

    async def test_failures(self) -> None:
        """A write that nobody can take fails with AutoReconnect, through its Deferred."""
        client = self.fixed_client("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50")
        things = client.test.things
        for writing in (
            self.deprecated(things.insert, {}),
            self.deprecated(things.update, {}, {}),
            self.deprecated(things.save, {"_id": 1}),
            self.deprecated(things.remove, {}),
        ):
            self.assertIsInstance(writing, defer.Deferred)
            await self.failure(writing, AutoReconnect)


@on_every_server
class SafeTests(CompatTestCase):
    """The argument safe of insert, update, save and remove."""

    async def test_concerns(self) -> None:
        """Explicit options win; safe=True is the inherited concern if that is acknowledged, else the server's default;
        safe=False is w=0; None is the inherited concern."""
        majority, nothing = WriteConcern("majority"), WriteConcern(0)
        rules: list[tuple[WriteConcern, dict[str, Any], Any]] = [
            (majority, {"safe": False, "w": 1, "j": True}, {"w": 1, "j": True}),
            (majority, {"safe": False, "wtimeout": 9000}, {"wtimeout": 9000}),
            (majority, {"safe": True}, {"w": "majority"}),
            (nothing, {"safe": True}, None),
            (majority, {"safe": False}, {"w": 0}),
            (nothing, {}, {"w": 0}),
            (majority, {"safe": None}, {"w": "majority"}),
        ]
        for inherited, options, expected in rules:
            things = self.things.with_options(write_concern=inherited)
            for method, arguments, command in (
                (things.insert, ({},), "insert"),
                (things.update, ({}, {"$set": {"x": 1}}), "update"),
                (things.save, ({"_id": 1},), "update"),
                (things.remove, ({"_id": 2},), "delete"),
            ):
                self.commands.sent.clear()
                await self.deprecated(method, *arguments, **options)
                (sent,) = self.sent(command)
                self.assertEqual(sent.get("writeConcern"), expected, (method.__name__, inherited, options))
