"""GridFSBucket at a real server: the methods of the specification, and what limits their time."""

from __future__ import annotations

import io
import os
from typing import Any

from bson.objectid import ObjectId
from bson.regex import Regex
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor, task

from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.database import Database
from txmongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    TimeExceeded,
)
from txmongo.gridfs import FileExists, GridFS, GridFSBucket, GridOut, GridOutCursor, NoFile

TEN = b"0123456789"
MEGABYTE = 1024 * 1024


class BucketTestCase(CollectionTestCase):
    """A bucket that is empty at first, with chunks of four bytes."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Drop what an earlier case left."""
        await super().setUp()
        self.db: Database[Any] = self.client.txmongo_tests
        await self.client.drop_database(self.db)
        self.bucket = GridFSBucket(self.db, chunk_size_bytes=4)
        self.commands.sent.clear()

    async def content(self, file_id: Any) -> bytes:
        """What is stored."""
        return await (await self.bucket.open_download_stream(file_id)).read()


class UploadTests(BucketTestCase):
    """Writing."""

    async def test_upload(self) -> None:
        """A file is stored under a new _id, with what was given and no MD5."""
        file_id = await self.bucket.upload_from_stream("ten", io.BytesIO(TEN), metadata={"a": 1})
        self.assertIsInstance(file_id, ObjectId)
        document = await self.db.fs.files.find_one({"_id": file_id})
        assert document is not None
        del document["uploadDate"]
        expected = {"_id": file_id, "filename": "ten", "chunkSize": 4, "length": 10, "metadata": {"a": 1}}
        self.assertEqual(document, expected)
        self.assertEqual(await self.content(file_id), TEN)

    async def test_upload_with_id(self) -> None:
        """A file is stored under the _id that is given, unless that is taken."""
        self.assertIsNone(await self.bucket.upload_from_stream_with_id(1, "ten", TEN, chunk_size_bytes=3))
        chunks = await self.db.fs.chunks.find(sort=[("n", 1)])
        self.assertEqual([chunk["data"] for chunk in chunks], [b"012", b"345", b"678", b"9"])
        error = await self.failure(self.bucket.upload_from_stream_with_id(1, "other", TEN), FileExists)
        self.assertIsInstance(error, DuplicateKeyError)

    async def test_streams(self) -> None:
        """A stream is written to as the application goes, and is a file once it is closed."""
        async with self.bucket.open_upload_stream("ten", metadata={"a": 1}) as grid_in:
            await grid_in.write(TEN[:7])
            self.assertIsNone(await self.db.fs.files.find_one({}))
            await grid_in.write(TEN[7:])
        self.assertEqual(await self.content(grid_in._id), TEN)
        grid_in = self.bucket.open_upload_stream_with_id("own", "ten", 3)
        self.assertEqual((grid_in._id, grid_in.chunk_size), ("own", 3))
        await grid_in.abort()

    async def test_failing_source(self) -> None:
        """When the source fails its error is the outcome, and nothing is left."""

        class Source:
            def read(self, size: int) -> bytes:
                if written:
                    raise OSError
                written.append(size)
                return bytes(size)

        written: list[int] = []
        await self.failure(self.bucket.upload_from_stream("x", Source()), OSError)
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 0)

    async def test_refused(self) -> None:
        """What cannot be stored is refused at the call, and nothing is sent."""
        bucket = self.bucket
        for arguments in ((1, TEN), ("x", 1), ("x", "text"), ("x", TEN, "4"), ("x", TEN, 4, 5)):
            self.assertRaises(TypeError, bucket.upload_from_stream, *arguments)
            self.assertRaises(TypeError, bucket.upload_from_stream_with_id, 1, *arguments)
        self.assertRaises(ValueError, bucket.open_upload_stream, "x", 0)
        self.assertRaises(TypeError, bucket.open_upload_stream, "x", colour="red")
        self.assertEqual(self.commands.sent, [])


class DownloadTests(BucketTestCase):
    """Reading."""

    async def test_by_id(self) -> None:
        """An _id finds its own file, and never matches as a query would."""
        file_id = await self.bucket.upload_from_stream("ten", TEN)
        self.assertEqual(await self.content(file_id), TEN)
        self.commands.sent.clear()
        for other in (ObjectId(), {"$exists": True}, Regex("t")):
            await self.failure(self.bucket.open_download_stream(other), NoFile)
            await self.failure(self.bucket.download_to_stream(other, io.BytesIO()), NoFile)

    async def test_by_name(self) -> None:
        """Revisions are counted from the first or from the last."""
        for content in (b"first", b"second", b"third"):
            await self.bucket.upload_from_stream("same", content)
            await task.deferLater(reactor, 0.002)  # type: ignore[arg-type]  # dates are in milliseconds
        for revision, expected in ((0, b"first"), (1, b"second"), (-1, b"third"), (-3, b"first")):
            found = await self.bucket.open_download_stream_by_name("same", revision)
            self.assertEqual(await found.read(), expected)
            copy = io.BytesIO()
            await self.bucket.download_to_stream_by_name("same", copy, revision)
            self.assertEqual(copy.getvalue(), expected)
        self.assertEqual(await (await self.bucket.open_download_stream_by_name("same")).read(), b"third")
        await self.failure(self.bucket.open_download_stream_by_name("same", 3), NoFile)
        await self.failure(self.bucket.download_to_stream_by_name("none", io.BytesIO()), NoFile)
        self.assertRaises(TypeError, self.bucket.open_download_stream_by_name, 1)
        self.assertRaises(TypeError, self.bucket.open_download_stream_by_name, "same", "1")

    async def test_to_stream(self) -> None:
        """The content is written chunk by chunk, each after the Deferred for the one before has fired."""
        file_id = await self.bucket.upload_from_stream("ten", TEN)
        copy: list[bytes] = []

        class Destination:
            busy = False

            def write(self, data: bytes) -> defer.Deferred[None]:
                assert not self.busy
                self.busy = True
                return task.deferLater(reactor, 0.01, self.wrote, data)  # type: ignore[arg-type]

            def wrote(self, data: bytes) -> None:
                self.busy = False
                copy.append(data)

        self.assertIsNone(await self.bucket.download_to_stream(file_id, Destination()))
        self.assertEqual(copy, [b"0123", b"4567", b"89"])
        self.assertRaises(TypeError, self.bucket.download_to_stream, file_id, None)
        self.assertRaises(TypeError, self.bucket.download_to_stream_by_name, "ten", None)

    async def test_failing_destination(self) -> None:
        """When the destination fails its error is the outcome, and the file is closed."""
        file_id = await self.bucket.upload_from_stream("ten", bytes(8 * MEGABYTE), chunk_size_bytes=MEGABYTE)

        class Destination:
            def write(self, data: bytes) -> None:
                raise OSError

        async def open_cursors() -> int:
            return int((await self.client.admin.command("serverStatus"))["metrics"]["cursor"]["open"]["total"])

        before = await open_cursors()
        await self.failure(self.bucket.download_to_stream(file_id, Destination()), OSError)
        while await open_cursors() > before:
            pass

    async def test_find(self) -> None:
        """Files are found by what their documents say, as a list, one by one, or refined before."""
        for number in range(5):
            await self.bucket.upload_from_stream(f"f{number}", TEN[:number], metadata={"even": number % 2 == 0})
        cursor = self.bucket.find({"metadata.even": True}, sort=[("length", -1)])
        self.assertIsInstance(cursor, GridOutCursor)
        found = await cursor
        self.assertTrue(all(isinstance(grid_out, GridOut) for grid_out in found))
        self.assertEqual([grid_out.filename for grid_out in found], ["f4", "f2", "f0"])
        self.assertEqual([await grid_out.read() for grid_out in found], [b"0123", b"01", b""])
        cursor = self.bucket.find(batch_size=2).sort("length", 1).skip(1).limit(3)
        self.assertEqual([grid_out.filename async for grid_out in cursor.clone()], ["f1", "f2", "f3"])
        self.assertEqual((await cursor.next()).filename, "f1")
        await cursor.close()
        self.assertEqual(await self.bucket.find({"nothing": 1}), [])
        plan = await self.bucket.find({"length": 1}).explain()
        self.assertIn("queryPlanner", plan)
        self.assertRaises(TypeError, self.bucket.find, 1)


class ChangeTests(BucketTestCase):
    """Renaming, deleting, dropping."""

    async def test_rename(self) -> None:
        """One file, or all of a name, get another name."""
        first, second = [await self.bucket.upload_from_stream("same", TEN) for _ in range(2)]
        await self.bucket.rename(first, "other")
        self.assertEqual((await self.bucket.open_download_stream_by_name("other"))._id, first)
        await self.bucket.rename(second, "other")
        await self.bucket.rename_by_name("other", "third")
        self.assertEqual(len(await self.bucket.find({"filename": "third"})), 2)
        await self.failure(self.bucket.rename(1, "other"), NoFile)
        await self.failure(self.bucket.rename_by_name("other", "none"), NoFile)
        for method, arguments in ((self.bucket.rename, (1, 2)), (self.bucket.rename_by_name, ("a", 2))):
            self.assertRaises(TypeError, method, *arguments)
        self.assertRaises(TypeError, self.bucket.rename_by_name, 1, "a")

    async def test_delete(self) -> None:
        """A file is deleted with its chunks; that there is none is an error."""
        first, second = [await self.bucket.upload_from_stream("same", TEN) for _ in range(2)]
        self.assertIsNone(await self.bucket.delete(first))
        await self.failure(self.bucket.delete(first), NoFile)
        await self.failure(self.bucket.delete({"$exists": True}), NoFile)
        self.assertEqual(await self.content(second), TEN)
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 3)

    async def test_delete_by_name(self) -> None:
        """All files of a name are deleted with their chunks; that there is none is an error."""
        for name in ("same", "same", "other"):
            await self.bucket.upload_from_stream(name, TEN)
        await self.bucket.delete_by_name("same")
        self.assertEqual([grid_out.filename for grid_out in await self.bucket.find()], ["other"])
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 3)
        await self.failure(self.bucket.delete_by_name("same"), NoFile)
        self.assertRaises(TypeError, self.bucket.delete_by_name, 1)

    async def test_drop(self) -> None:
        """A bucket is dropped, files first; what is stored after that has its indexes again."""
        await self.bucket.upload_from_stream("ten", TEN)
        self.commands.sent.clear()
        await self.bucket.drop()
        self.assertEqual([command["drop"] for command in self.commands.sent], ["fs.files", "fs.chunks"])
        self.assertEqual(await self.db.list_collection_names(), [])
        await self.bucket.upload_from_stream("ten", TEN)
        self.assertIn("files_id_1_n_1", await self.db.fs.chunks.index_information())


class OptionTests(BucketTestCase):
    """How a bucket is made."""

    async def test_options(self) -> None:
        """A bucket has a name and options of its own."""
        bucket = GridFSBucket(
            self.db,
            "own",
            write_concern=WriteConcern(w=1, j=True),
            read_preference=ReadPreference.SECONDARY_PREFERRED,
            read_concern=ReadConcern("local"),
        )
        file_id = await bucket.upload_from_stream("ten", TEN)
        self.assertEqual(await (await bucket.open_download_stream(file_id)).read(), TEN)
        self.assertEqual(await self.db.list_collection_names(filter={"name": Regex("^fs")}), [])
        inserts = [command for command in self.commands.sent if "insert" in command]
        self.assertTrue(all(command["writeConcern"] == {"w": 1, "j": True} for command in inserts))
        finds = [command for command in self.commands.sent if "find" in command]
        self.assertTrue(all(command["readConcern"] == {"level": "local"} for command in finds))

    async def test_refused(self) -> None:
        """Arguments of the wrong type are refused, and writes that nobody would hear of."""
        self.assertRaises(TypeError, GridFSBucket, None)
        self.assertRaises(TypeError, GridFSBucket, self.db.fs)
        self.assertRaises(TypeError, GridFSBucket, self.db, 1)
        self.assertRaises(TypeError, GridFSBucket, self.db, chunk_size_bytes="4")
        self.assertRaises(ValueError, GridFSBucket, self.db, chunk_size_bytes=0)
        self.assertRaises(TypeError, GridFSBucket, self.db, write_concern=1)
        unacknowledged = WriteConcern(w=0)
        self.assertRaises(ConfigurationError, GridFSBucket, self.db, write_concern=unacknowledged)
        self.assertRaises(ConfigurationError, GridFSBucket, self.db.with_options(write_concern=unacknowledged))

    async def test_same_files(self) -> None:
        """Files of GridFS and of a bucket are the same."""
        file_id = await GridFS(self.db).put(TEN, filename="ten")
        self.assertEqual(await self.content(file_id), TEN)
        file_id = await self.bucket.upload_from_stream("ten", TEN)
        self.assertEqual(await (await GridFS(self.db).get(file_id)).read(), TEN)

    async def test_session(self) -> None:
        """Every method uses the session that it is given, and none one that is in a transaction."""
        session = self.client.start_session()
        self.addCleanup(session.end_session)
        bucket = self.bucket

        async def everything(**options: Any) -> None:
            file_id = await bucket.upload_from_stream("ten", TEN, **options)
            await bucket.upload_from_stream_with_id(1, "other", TEN, **options)
            await bucket.rename(file_id, "same", **options)
            await bucket.rename_by_name("same", "ten", **options)
            await bucket.download_to_stream(file_id, io.BytesIO(), **options)
            await bucket.download_to_stream_by_name("ten", io.BytesIO(), **options)
            (found, _) = await bucket.find({}, **options)
            await found.read()
            await bucket.delete(file_id, **options)
            await bucket.delete_by_name("other", **options)
            await bucket.drop(**options)

        await everything(session=session)
        self.assertEqual({command["lsid"]["id"] for command in self.commands.sent}, {session.session_id["id"]})
        session.start_transaction()
        for call in (
            lambda: bucket.upload_from_stream("ten", TEN, session=session),
            lambda: bucket.rename(1, "x", session=session),
            lambda: bucket.rename_by_name("x", "y", session=session),
            lambda: bucket.open_download_stream(1, session=session),
            lambda: bucket.open_download_stream_by_name("x", session=session),
            lambda: bucket.find({}, session=session),
            lambda: bucket.delete(1, session=session),
            lambda: bucket.delete_by_name("x", session=session),
            lambda: bucket.drop(session=session),
        ):
            self.assertRaises(InvalidOperation, call)


class TimeoutTests(BucketTestCase):
    """Limits of time; most are tested by the specification's cases."""

    async def slow(self, name: str) -> None:
        """Have the server take its time with the next such command."""
        await self.fail_command(name, blockConnection=True, blockTimeMS=1500)

    async def test_whole_life(self) -> None:
        """The time of a file begins when it is opened and is over for whatever comes after."""
        file_id = await self.bucket.upload_from_stream("ten", TEN)
        grid_in = self.bucket.open_upload_stream("x", timeout_ms=500)
        grid_out = await self.bucket.open_download_stream(file_id, timeout_ms=500)
        await task.deferLater(reactor, 0.55)  # type: ignore[arg-type]  # the time that is measured is a real one
        self.commands.sent.clear()
        # A write that the server need not hear of yet takes no time.
        await grid_in.write(TEN)
        for call in (grid_in.close, grid_out.read, grid_in.abort):
            error = await self.failure(call(), PyMongoError)
            self.assertTrue(error.timeout)
        self.assertEqual(self.commands.sent, [])

    async def test_txmongo_keywords(self) -> None:
        """timeout and deadline limit the whole call, as everywhere."""
        await self.bucket.upload_from_stream("ten", TEN)
        await self.slow("insert")
        await self.failure(self.bucket.upload_from_stream("x", TEN, timeout=0.5), TimeExceeded)
        await self.slow("find")
        deadline = reactor.seconds() + 0.5  # type: ignore[attr-defined]
        await self.failure(self.bucket.open_download_stream_by_name("ten", deadline=deadline), TimeExceeded)
        self.assertRaises(ValueError, self.bucket.upload_from_stream, "x", TEN, timeout_ms=-1)

    async def test_inherited(self) -> None:
        """The client's timeoutMS is for a put of GridFS as a whole; no limit can be given instead."""
        await self.bucket.upload_from_stream("ten", TEN)
        client: ConnectionPool[Any] = ConnectionPool(self.uri, timeoutMS=500)
        self.addCleanup(client.disconnect)
        await client.admin.command("ping", timeout_ms=60_000)
        await self.slow("insert")
        error = await self.failure(GridFS(client.txmongo_tests).put(TEN), PyMongoError)
        self.assertTrue(error.timeout)
        await self.slow("insert")
        bucket = GridFSBucket(client.txmongo_tests, timeout_ms=0)
        self.assertEqual(await self.content(await bucket.upload_from_stream("x", TEN)), TEN)

    async def test_refused_in_time(self) -> None:
        """An error of the server that is no timeout stays what it is."""
        await self.bucket.upload_from_stream("ten", TEN)
        await self.fail_command("insert", errorCode=8000)
        error = await self.failure(self.bucket.upload_from_stream("x", TEN, timeout_ms=10_000), OperationFailure)
        self.assertFalse(error.timeout)


class LargeTests(BucketTestCase):
    """More than one batch."""

    async def test_there_and_back(self) -> None:
        """A file of many batches comes back as it went."""
        content = os.urandom(12 * MEGABYTE + 5)
        bucket = GridFSBucket(self.db)
        file_id = await bucket.upload_from_stream("large", io.BytesIO(content))
        copy = io.BytesIO()
        await bucket.download_to_stream(file_id, copy)
        self.assertTrue(copy.getvalue() == content)

    async def test_large_chunks(self) -> None:
        """Chunks that are larger than a batch go and come one by one."""
        content = os.urandom(12 * MEGABYTE + 5)
        file_id = await GridFSBucket(self.db).upload_from_stream("large", content, chunk_size_bytes=5 * MEGABYTE)
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 3)
        self.assertTrue(await self.content(file_id) == content)
