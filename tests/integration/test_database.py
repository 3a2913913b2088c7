"""Databases on a real server: commands, and collections as a whole."""

from __future__ import annotations

from typing import Any

from bson.codec_options import CodecOptions
from bson.dbref import DBRef
from bson.son import SON
from pymongo.read_preferences import ReadPreference

from tests.integration.servers import CollectionTestCase
from txmongo.errors import CollectionInvalid, InvalidOperation, OperationFailure


class DatabaseCase(CollectionTestCase):
    """An empty database."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.client.drop_database("txmongo_tests_database")
        self.database = self.client.txmongo_tests_database
        self.commands.sent.clear()


class CommandTests(DatabaseCase):
    """command."""

    async def test_command(self) -> None:
        """By name and by document, old and new."""
        self.assertEqual(await self.database.command("ping"), {"ok": 1.0})
        self.assertEqual(await self.database.command({"ping": 1}), {"ok": 1.0})
        await self.database.things.insert_one({"_id": 1})
        stats = await self.database.command("collStats", "things", scale=1)
        self.assertEqual(stats["count"], 1)
        given = SON([("count", "things"), ("query", {})])
        self.assertEqual((await self.database.command(given))["n"], 1)
        self.assertEqual(list(given), ["count", "query"])

    async def test_errors(self) -> None:
        """An error of the server, as an error and as a reply."""
        error = await self.failure(self.database.command("nonsense"), OperationFailure)
        self.assertEqual((error.code, error.details["codeName"]), (59, "CommandNotFound"))
        self.assertEqual((await self.database.command("nonsense", check=False))["code"], 59)
        self.assertEqual((await self.database.command("nonsense", allowable_errors=[59]))["ok"], 0)

    async def test_codec_options(self) -> None:
        """The reply as another class."""
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        self.assertIsInstance(await self.database.command("ping", codec_options=options), SON)
        reply = await self.database.command("nonsense", check=False, codec_options=options)
        self.assertIsInstance(reply, SON)

    async def test_read_preference(self) -> None:
        """A preference other than primary does no harm on a standalone."""
        self.assertEqual(await self.database.command("ping", read_preference=ReadPreference.SECONDARY), {"ok": 1.0})
        self.assertNotIn("$readPreference", self.commands.sent[0])

    async def test_cursor_command(self) -> None:
        """A command that makes a cursor, over several batches."""
        await self.database.things.insert_many([{"_id": number} for number in range(250)])
        found = await self.database.cursor_command("find", "things", batchSize=100).batch_size(100)
        self.assertEqual([each["_id"] for each in found], list(range(250)))
        async for each in self.database.cursor_command({"find": "things", "limit": 1}):
            self.assertEqual(each, {"_id": 0})
        await self.failure(self.database.cursor_command("ping"), InvalidOperation)


class CollectionTests(DatabaseCase):
    """Creating, listing, dropping."""

    async def test_create(self) -> None:
        """A collection with options, and once only."""
        log = await self.database.create_collection("log", capped=True, size=10_000, comment="c")
        self.assertEqual(log.full_name, "txmongo_tests_database.log")
        self.assertTrue((await log.options())["capped"])
        await self.failure(self.database.create_collection("log"), CollectionInvalid)
        error = await self.failure(self.database.create_collection("log", check_exists=False), OperationFailure)
        self.assertEqual(error.code, 48)

    async def test_create_kinds(self) -> None:
        """Views, validators, collations, and TxMongo's options."""
        await self.database.things.insert_many([{"_id": 1, "x": 1}, {"_id": 2, "x": 2}])
        view = await self.database.create_collection("view", viewOn="things", pipeline=[{"$match": {"x": 2}}])
        self.assertEqual(await view.find(), [{"_id": 2, "x": 2}])
        checked = await self.database.create_collection("checked", validator={"x": {"$type": "int"}})
        await self.failure(checked.insert_one({"x": "a"}), OperationFailure)
        await self.database.create_collection("collated", collation={"locale": "de"})
        await self.database.create_collection("old", {"capped": True, "size": 1000})
        self.assertTrue((await self.database.old.options())["capped"])

    async def test_create_time_series(self) -> None:
        """Collections for time series."""
        await self.needs("time series", 5, 0)
        await self.database.create_collection("series", timeseries={"timeField": "t"}, expireAfterSeconds=100)
        self.assertEqual((await self.database.series.options())["timeseries"]["timeField"], "t")

    async def test_create_clustered(self) -> None:
        """Collections in the order of a key."""
        await self.needs("clustered indexes", 5, 3)
        await self.database.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
        self.assertEqual((await self.database.clustered.options())["clusteredIndex"]["key"], {"_id": 1})

    async def test_list(self) -> None:
        """The collections there are, by name and in whole."""
        self.assertEqual(await self.database.list_collection_names(), [])
        for number in range(30):
            await self.database.create_collection(f"c{number:02}", check_exists=False)
        names = [f"c{number:02}" for number in range(30)]
        self.assertEqual(sorted(await self.database.list_collection_names()), names)
        self.assertEqual(sorted(await self.database.collection_names(batch_size=7)), names)
        documents = await self.database.list_collections(filter={"name": {"$regex": "^c0"}}, batch_size=3)
        self.assertEqual(sorted(each["name"] for each in documents), names[:10])
        self.assertEqual(documents[0]["type"], "collection")
        self.assertEqual(await self.database.list_collection_names(filter={"type": "view"}), [])
        self.assertEqual(await self.database.list_collection_names(filter={"name": "c05"}), ["c05"])

    async def test_drop(self) -> None:
        """By name, by object, and again."""
        await self.database.create_collection("a")
        await self.database.create_collection("b")
        self.assertEqual((await self.database.drop_collection("a"))["ok"], 1)
        await self.database.drop_collection(self.database.b)
        self.assertEqual(await self.database.list_collection_names(), [])
        await self.database.drop_collection("b")

    async def test_modify(self) -> None:
        """A validator for a collection that is there; an error for one that is not."""
        await self.database.create_collection("things")
        reply = await self.database.modify_collection("things", validator={"x": {"$type": "string"}}, comment="c")
        self.assertEqual(reply["ok"], 1)
        self.assertEqual((await self.database.things.options())["validator"], {"x": {"$type": "string"}})
        await self.failure(self.database.things.insert_one({"x": 1}), OperationFailure)
        error = await self.failure(self.database.modify_collection("missing", validator={}), OperationFailure)
        self.assertEqual(error.code, 26)

    async def test_validate(self) -> None:
        """The report of a sound collection; an error for one that is not there."""
        await self.database.things.insert_one({})
        report = await self.database.validate_collection(self.database.things, full=True)
        self.assertEqual((report["valid"], report["nrecords"]), (True, 1))
        await self.failure(self.database.validate_collection("missing"), OperationFailure)

    async def test_dereference(self) -> None:
        """A reference from one collection to another."""
        await self.database.people.insert_one({"_id": "me"})
        await self.database.things.insert_one({"owner": DBRef("people", "me")})
        thing = await self.database.things.find_one()
        assert thing is not None
        self.assertEqual(await self.database.dereference(thing["owner"]), {"_id": "me"})
        self.assertIsNone(await self.database.dereference(DBRef("people", "you")))
