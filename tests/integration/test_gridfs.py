"""GridFS at a real server: what is stored, what is read, what fails."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor, task
from twisted.trial.unittest import SkipTest

from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.database import Database
from txmongo.errors import AutoReconnect, DuplicateKeyError, InvalidOperation, OperationFailure
from txmongo.gridfs import (
    CorruptGridFile,
    FileExists,
    GridFS,
    GridIn,
    GridOut,
    GridOutIterator,
    NoFile,
)

KILOBYTE = 1024
MEGABYTE = 1024 * KILOBYTE
TEN = b"0123456789"


class Later:
    """A file whose reads are Deferreds that fire in a later turn of the reactor."""

    def __init__(self, content: bytes, fails_after: int | None = None) -> None:
        self._file = io.BytesIO(content)
        self._fails_after = fails_after

    def read(self, size: int) -> defer.Deferred[bytes]:
        """The next bytes, later."""
        return task.deferLater(reactor, 0, self._read, size)  # type: ignore[arg-type]

    def _read(self, size: int) -> bytes:
        if self._fails_after is not None and self._file.tell() >= self._fails_after:
            raise OSError("the disk is gone")
        return self._file.read(size)


class GridFSTestCase(CollectionTestCase):
    """A bucket that is empty at first."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Drop what an earlier case left."""
        await super().setUp()
        self.db: Database[Any] = self.client.txmongo_tests
        await self.client.drop_database(self.db)
        self.fs = GridFS(self.db)
        self.commands.sent.clear()

    async def open_cursors(self) -> int:
        """How many the server has; one whose connection was lost stays with it for a while."""
        status = await self.client.admin.command("serverStatus")
        found: int = status["metrics"]["cursor"]["open"]["total"]
        return found

    async def chunks(self, file_id: Any) -> list[bytes]:
        """The data of a file's chunks."""
        found = await self.db.fs.chunks.find({"files_id": file_id}, sort=[("n", 1)])
        self.assertEqual([chunk["n"] for chunk in found], list(range(len(found))))
        return [chunk["data"] for chunk in found]

    async def file(self, file_id: Any) -> Any:
        """A file's document."""
        return await self.db.fs.files.find_one({"_id": file_id})

    def numbered(self, **fields: Any) -> defer.Deferred[Any]:
        """Store a file of ten bytes in chunks of four; the _id."""
        return self.fs.put(TEN, chunk_size=4, **fields)


class PutTests(GridFSTestCase):
    """GridFS.put: all of a file at once."""

    async def test_bytes(self) -> None:
        """Bytes are cut into chunks of the right size, and the document tells of them."""
        file_id = await self.numbered(filename="ten", contentType="text/plain", colour="red")
        self.assertEqual(await self.chunks(file_id), [b"0123", b"4567", b"89"])
        document = await self.file(file_id)
        date = document.pop("uploadDate")
        self.assertEqual(
            document,
            {
                "_id": file_id,
                "filename": "ten",
                "contentType": "text/plain",
                "colour": "red",
                "chunkSize": 4,
                "length": 10,
                "md5": hashlib.md5(TEN).hexdigest(),
            },
        )
        self.assertIsNone(date.tzinfo)

    async def test_document_first(self) -> None:
        """The file's document is stored last: nobody sees a file whose chunks are not there yet."""
        await self.numbered()
        inserted = [command["insert"] for command in self.commands.sent if "insert" in command]
        self.assertEqual(inserted, ["fs.chunks", "fs.files"])
        self.assertNotIn("filemd5", self.commands.names())

    async def test_whole_chunks(self) -> None:
        """A file that ends where a chunk ends has no empty one."""
        self.assertEqual(await self.chunks(await self.fs.put(b"01234567", chunk_size=4)), [b"0123", b"4567"])

    async def test_empty(self) -> None:
        """A file without content has a document and no chunks, and reading it asks for none."""
        file_id = await self.fs.put(b"", filename="empty")
        self.assertEqual((await self.file(file_id))["length"], 0)
        self.commands.sent.clear()
        self.assertEqual(await (await self.fs.get(file_id)).read(), b"")
        self.assertEqual([command["find"] for command in self.commands.sent], ["fs.files"])

    async def test_sources(self) -> None:
        """Text with an encoding, what can be read from, and what gives Deferreds are stored alike."""
        content = os.urandom(3000)
        sources: list[tuple[Any, dict[str, Any], bytes]] = [
            ("é" * 10, {"encoding": "utf-8"}, "é".encode() * 10),
            (io.BytesIO(content), {}, content),
            (io.StringIO("é" * 10), {"encoding": "latin-1"}, b"\xe9" * 10),
            (Later(content), {}, content),
            (bytearray(content), {}, content),
        ]
        for source, fields, expected in sources:
            file_id = await self.fs.put(source, chunk_size=700, **fields)
            self.assertEqual(await (await self.fs.get(file_id)).read(), expected)

    async def test_from_gridfs(self) -> None:
        """A stored file can be what another is read from."""
        original = await self.fs.get(await self.numbered())
        self.assertEqual(await self.chunks(await self.fs.put(original, chunk_size=3)), [b"012", b"345", b"678", b"9"])

    async def test_own_id(self) -> None:
        """An _id may be anything; one that is taken is refused, and the other file stays as it is."""
        for file_id in (1, "name", {"a": 1}, None):
            self.assertEqual(await self.numbered(_id=file_id), file_id)
            error = await self.failure(self.fs.put(b"other", _id=file_id), FileExists)
            self.assertIsInstance(error, DuplicateKeyError)
            self.assertEqual(await (await self.fs.get(file_id)).read(), TEN)

    async def test_refused(self) -> None:
        """What cannot be stored is refused at the call, and nothing is sent."""
        for wrong, fields in (
            (1, {}),
            (None, {}),
            ("text", {}),
            (b"", {"chunk_size": "4"}),
            (b"", {"encoding": 8}),
        ):
            self.assertRaises(TypeError, self.fs.put, wrong, **fields)
        self.assertRaises(ValueError, self.fs.put, b"", chunk_size=0)
        self.assertEqual(self.commands.sent, [])

    async def test_source_fails(self) -> None:
        """When the source cannot be read to its end, its error is the outcome and what was stored is deleted."""
        for fails_after in (0, 1000, 3 * MEGABYTE):
            source = Later(bytes(4 * MEGABYTE), fails_after)
            error = await self.failure(self.fs.put(source, chunk_size=100 * KILOBYTE), OSError)
            self.assertEqual(str(error), "the disk is gone")
            self.assertEqual(await self.db.fs.chunks.count_documents({}), 0)
            self.assertEqual(await self.db.fs.files.count_documents({}), 0)

    async def test_cancel(self) -> None:
        """A put that is cancelled ends at once; there is no file, and what was stored is deleted."""
        source: Any = Later(bytes(4 * MEGABYTE))
        never: defer.Deferred[bytes] = defer.Deferred()
        reads = [source.read(3 * MEGABYTE), never]
        source.read = lambda size: reads.pop(0)
        putting = self.fs.put(source)
        while reads:
            await task.deferLater(reactor, 0)  # type: ignore[arg-type]
        putting.cancel()
        self.failureResultOf(putting, defer.CancelledError)
        while await self.db.fs.chunks.count_documents({}):
            pass
        self.assertEqual(await self.db.fs.files.count_documents({}), 0)

    async def test_disable_md5(self) -> None:
        """No MD5 is computed where it is not wanted, by one file or by all."""
        for fs, fields in ((self.fs, {"disable_md5": True}), (GridFS(self.db, disable_md5=True), {})):
            document = await self.file(await fs.put(TEN, **fields))
            self.assertNotIn("md5", document)
            self.assertNotIn("disable_md5", document)
        wanted = await GridFS(self.db, disable_md5=True).put(TEN, disable_md5=False)
        self.assertIn("md5", await self.file(wanted))

    async def test_unacknowledged(self) -> None:
        """A database with w=0 has its files stored with acknowledgement all the same."""
        fs = GridFS(self.db.with_options(write_concern=WriteConcern(w=0)))
        self.assertEqual(await self.chunks(await fs.put(TEN)), [TEN])
        await self.failure(fs.put(TEN, _id=await fs.put(TEN)), FileExists)

    async def test_document_classes(self) -> None:
        """Whatever class the application wants its documents to be, files are written and read."""
        classes: list[Any] = [SON, RawBSONDocument]
        for document_class in classes:
            fs = GridFS(self.db.with_options(CodecOptions(document_class=document_class)))
            file_id = await fs.put(TEN, filename="ten", metadata={"a": 1})
            stored = await fs.get_last_version("ten")
            self.assertEqual((stored._id, await stored.read()), (file_id, TEN))
            self.assertIsInstance(stored.metadata, document_class)


class IndexTests(GridFSTestCase):
    """The indexes of a bucket."""

    def index_commands(self) -> list[str]:
        """What was sent because of indexes."""
        return [name for name in self.commands.names() if "ndexes" in name]

    async def test_made_once(self) -> None:
        """The first write makes both indexes; writes at once do not make them twice, later ones do not look."""
        await defer.gatherResults([self.numbered() for _ in range(5)])
        await self.fs.put(b"")
        self.assertEqual(self.index_commands(), ["listIndexes", "createIndexes", "listIndexes", "createIndexes"])
        files = await self.db.fs.files.index_information()
        chunks = await self.db.fs.chunks.index_information()
        self.assertEqual(files["filename_1_uploadDate_1"]["key"], [("filename", 1), ("uploadDate", 1)])
        self.assertEqual(chunks["files_id_1_n_1"]["key"], [("files_id", 1), ("n", 1)])
        self.assertTrue(chunks["files_id_1_n_1"]["unique"])

    async def test_only_when_empty(self) -> None:
        """A bucket with files in it has no index made: who runs a large one decides that."""
        await self.db.fs.files.insert_one({"filename": "old"})
        await self.numbered()
        self.assertEqual(self.index_commands(), [])

    async def test_not_by_reading(self) -> None:
        """Reading makes no index, so that it needs no right to."""
        await self.failure(self.fs.get_last_version("none"), NoFile)
        await self.failure(self.fs.get(1), NoFile)
        self.assertEqual(self.commands.names(), ["find", "find"])

    async def test_there_already(self) -> None:
        """Indexes that are there are not made again, whatever numeric type their directions have."""
        for name, keys in (("files", {"filename": 1.0, "uploadDate": 1}), ("chunks", {"files_id": Int64(1), "n": 1.0})):
            await self.db.command("createIndexes", f"fs.{name}", indexes=[{"key": keys, "name": "own"}])
        self.commands.sent.clear()
        await self.numbered()
        self.assertEqual(self.index_commands(), ["listIndexes", "listIndexes"])

    async def test_errors_reach_the_writer(self) -> None:
        """An index that cannot be made fails the write, and the next write tries again."""
        await self.fail_command("createIndexes", errorCode=8000)
        await self.failure(self.numbered(), OperationFailure)
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 0)
        await self.numbered()
        self.assertIn("files_id_1_n_1", await self.db.fs.chunks.index_information())

    async def test_indexes_created(self) -> None:
        """indexes_created makes them and tells their names; how that fails is its outcome."""
        await self.fail_command("createIndexes", errorCode=8000)
        await self.failure(self.fs.indexes_created(), OperationFailure)
        expected = [(True, "filename_1_uploadDate_1"), (True, "files_id_1_n_1")]
        self.assertEqual(await self.fs.indexes_created(), expected)
        self.commands.sent.clear()
        self.assertEqual(await self.fs.indexes_created(), expected)
        self.assertEqual(self.commands.sent, [])


class GridInTests(GridFSTestCase):
    """A file that is written."""

    async def test_attributes(self) -> None:
        """What a keyword gave can be read; what close finds out cannot, before it."""
        grid_in = self.fs.new_file(filename="a", content_type="text/plain", chunk_size=4, colour="red", length=7)
        self.assertIsInstance(grid_in._id, ObjectId)
        self.assertEqual((grid_in.filename, grid_in.name, grid_in.content_type), ("a", "a", "text/plain"))
        self.assertEqual((grid_in.chunk_size, grid_in.colour, grid_in.closed), (4, "red", False))
        for name in ("length", "upload_date", "md5", "nothing"):
            self.assertRaises(AttributeError, getattr, grid_in, name)
        await grid_in.write(b"hello")
        await grid_in.close()
        self.assertEqual((grid_in.length, grid_in.closed), (5, True))
        self.assertEqual(grid_in.md5, hashlib.md5(b"hello").hexdigest())
        self.assertIsNotNone(grid_in.upload_date.tzinfo)

    async def test_setting(self) -> None:
        """Fields can be set until the file is closed, by set() also after that; some never."""
        grid_in = self.fs.new_file(filename="a")
        grid_in.filename = "b"
        grid_in.content_type = "text/plain"
        grid_in.metadata = {"a": 1}
        await grid_in.set("colour", "red")
        for name in ("_id", "length", "chunk_size", "chunkSize", "md5", "upload_date", "closed"):
            self.assertRaises(AttributeError, setattr, grid_in, name, 1)
            self.assertRaises(AttributeError, grid_in.set, name, 1)
        await grid_in.close()
        for name in ("filename", "content_type", "colour", "length"):
            self.assertRaises(AttributeError, setattr, grid_in, name, 1)
        await grid_in.set("colour", "blue")
        await grid_in.set("content_type", "text/html")
        self.assertRaises(AttributeError, grid_in.set, "length", 1)
        document = await self.file(grid_in._id)
        found = [document[name] for name in ("filename", "contentType", "metadata", "colour")]
        self.assertEqual(found, ["b", "text/html", {"a": 1}, "blue"])
        self.assertEqual(grid_in.colour, "blue")

    async def test_pieces(self) -> None:
        """However the content is cut, the chunks are the same."""
        content = os.urandom(1000)
        for cut in (1, 3, 99, 100, 101, 250, 1000):
            grid_in = self.fs.new_file(chunk_size=100)
            for start in range(0, 1000, cut):
                await grid_in.write(content[start : start + cut])
            await grid_in.close()
            stored = await self.chunks(grid_in._id)
            self.assertEqual((b"".join(stored), {len(chunk) for chunk in stored}), (content, {100}))
            self.assertEqual(grid_in.md5, hashlib.md5(content).hexdigest())

    async def test_not_awaited(self) -> None:
        """Writes that nobody waits for are carried out in their order, and so is the close."""
        grid_in = self.fs.new_file(chunk_size=100 * KILOBYTE)
        content = os.urandom(3 * MEGABYTE)
        writes = [grid_in.write(content[:MEGABYTE]), grid_in.write(Later(content[MEGABYTE : 2 * MEGABYTE]))]
        writes.append(grid_in.writelines([content[2 * MEGABYTE : -5], content[-5:-3], io.BytesIO(content[-3:])]))
        closes = [grid_in.close(), grid_in.close()]
        self.assertRaises(ValueError, grid_in.write, b"too late")
        self.assertRaises(ValueError, grid_in.writelines, [b"too late"])
        self.assertEqual(await defer.gatherResults([*writes, *closes]), [None] * 5)
        self.assertEqual(b"".join(await self.chunks(grid_in._id)), content)

    async def test_small_writes(self) -> None:
        """A write that completes no chunk has its room at once."""
        grid_in = self.fs.new_file(chunk_size=100)
        self.assertIsNone(self.successResultOf(grid_in.write(b"x" * 99)))
        self.assertEqual(self.commands.sent, [])
        await grid_in.close()
        self.assertEqual(await self.chunks(grid_in._id), [b"x" * 99])

    async def test_text(self) -> None:
        """Text is written to a file that has an encoding, and to no other."""
        grid_in = self.fs.new_file(encoding="utf-16-le")
        await grid_in.write("aé")
        await grid_in.writelines(["b", b"!"])
        await grid_in.close()
        self.assertEqual(await self.chunks(grid_in._id), ["aéb".encode("utf-16-le") + b"!"])
        self.assertRaises(TypeError, self.fs.new_file().write, "text")
        self.assertRaises(TypeError, self.fs.new_file().write, 5)
        self.assertRaises(TypeError, self.fs.new_file().writelines, 5)
        await self.failure(self.fs.new_file().writelines([b"", 5]), TypeError)

    async def test_with(self) -> None:
        """``with`` closes the file, also if the block raises, and a close after it waits for that."""
        with self.fs.new_file() as grid_in:
            await grid_in.write(b"one")
        await grid_in.close()
        self.assertEqual(await self.chunks(grid_in._id), [b"one"])
        with self.assertRaises(KeyError), self.fs.new_file() as grid_in:
            await grid_in.write(b"two")
            raise KeyError
        await grid_in.close()
        self.assertEqual(await self.chunks(grid_in._id), [b"two"])

    async def test_async_with(self) -> None:
        """``async with`` closes the file, and gives it up if the block raises."""
        async with self.fs.new_file() as grid_in:
            await grid_in.write(b"one")
        self.assertTrue(grid_in.closed)
        self.assertEqual(await self.chunks(grid_in._id), [b"one"])
        with self.assertRaises(KeyError):
            async with self.fs.new_file(chunk_size=1) as grid_in:
                await grid_in.write(b"two")
                raise KeyError
        self.assertTrue(grid_in.closed)
        self.assertEqual((await self.chunks(grid_in._id), await self.file(grid_in._id)), ([], None))

    async def test_abort(self) -> None:
        """A file that is given up leaves nothing, and takes nothing any more; one that is stored stays."""
        grid_in = self.fs.new_file(chunk_size=1)
        await grid_in.write(bytes(3000))
        await grid_in.abort()
        await grid_in.abort()
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 0)
        self.assertRaises(ValueError, grid_in.write, b"x")
        await grid_in.close()
        self.assertIsNone(await self.file(grid_in._id))
        self.assertRaises(AttributeError, getattr, grid_in, "length")
        stored = self.fs.new_file()
        await stored.close()
        await stored.abort()
        self.assertIsNotNone(await self.file(stored._id))

    async def test_refused_chunk(self) -> None:
        """When the server refuses a chunk, what is written after it fails so too, and there is no file."""
        await self.fs.put(b"")
        await self.fail_command("insert", errorCode=8000)
        grid_in = self.fs.new_file(chunk_size=MEGABYTE)
        await self.failure(grid_in.write(bytes(20 * MEGABYTE)), OperationFailure)
        await self.failure(grid_in.write(b"more"), OperationFailure)
        await self.failure(grid_in.close(), OperationFailure)
        self.assertFalse(grid_in.closed)
        self.assertIsNone(await self.file(grid_in._id))
        await grid_in.abort()
        self.assertEqual(await self.chunks(grid_in._id), [])

    async def test_refused_from_source(self) -> None:
        """When the server refuses a chunk while a source is read, that is the outcome; nothing is deleted."""
        await self.fs.put(b"")
        await self.fail_command("insert", errorCode=8000)
        await self.failure(self.fs.put(Later(bytes(3000)), chunk_size=1), OperationFailure)
        self.assertNotIn("delete", self.commands.names())

    async def test_refused_document(self) -> None:
        """When the server refuses the file's document, closing can be tried again."""
        grid_in = self.fs.new_file(chunk_size=4)
        await grid_in.write(TEN)
        await self.fs.indexes_created()
        off = {"configureFailPoint": "failCommand", "mode": "off"}
        self.addCleanup(self.client.admin.command, off)
        data = {"failCommands": ["insert"], "errorCode": 8000}
        await self.client.admin.command({**off, "mode": {"skip": 1}, "data": data})
        await self.failure(grid_in.close(), OperationFailure)
        await self.client.admin.command(off)
        await grid_in.close()
        self.assertEqual(await (await self.fs.get(grid_in._id)).read(), TEN)

    async def test_cancelled_write(self) -> None:
        """A write that is cancelled leaves a file that cannot be closed: nobody knows how much of it is there."""
        grid_in = self.fs.new_file(chunk_size=4)
        writing = grid_in.write(TEN)
        writing.cancel()
        self.failureResultOf(writing, defer.CancelledError)
        await self.failure(grid_in.close(), InvalidOperation)
        await self.failure(grid_in.write(TEN), InvalidOperation)
        await grid_in.abort()
        self.assertEqual(await self.db.fs.chunks.count_documents({}), 0)

    async def test_constructor(self) -> None:
        """A GridIn can be made of a root collection, and of nothing else."""
        grid_in = GridIn(self.db.fs, filename="direct")
        await grid_in.write(TEN)
        await grid_in.close()
        self.assertEqual(await (await self.fs.get_last_version("direct")).read(), TEN)
        for wrong in (None, self.db, "fs"):
            self.assertRaises(TypeError, GridIn, wrong)

    async def test_kind_of_file(self) -> None:
        """It is a file that is written from start to end, and its repr tells how far it got."""
        grid_in = self.fs.new_file(_id=1)
        kinds = grid_in.writable(), grid_in.writeable(), grid_in.readable(), grid_in.seekable()
        self.assertEqual(kinds, (True, True, False, False))
        self.assertRaises(io.UnsupportedOperation, grid_in.read)
        await grid_in.write(TEN)
        self.assertEqual(repr(grid_in), "<GridIn 1: 10 bytes taken, written to>")


class GridOutTests(GridFSTestCase):
    """A file that is read."""

    async def opened(self, content: bytes = TEN, chunk_size: int = 4, **fields: Any) -> GridOut:
        """A stored file."""
        grid_out: GridOut = await self.fs.get(await self.fs.put(content, chunk_size=chunk_size, **fields))
        return grid_out

    async def test_attributes(self) -> None:
        """Every field of the document can be read and none of those that are named be set."""
        grid_out = await self.opened(filename="a", content_type="b", metadata={"c": 1}, aliases=["d"], colour="red")
        self.assertEqual((grid_out.name, grid_out.filename, grid_out.content_type), ("a", "a", "b"))
        self.assertEqual((grid_out.length, grid_out.chunk_size, grid_out.colour), (10, 4, "red"))
        self.assertEqual((grid_out.metadata, grid_out.aliases), ({"c": 1}, ["d"]))
        self.assertEqual(grid_out.md5, hashlib.md5(TEN).hexdigest())
        self.assertEqual(grid_out.upload_date, (await self.file(grid_out._id))["uploadDate"])
        self.assertRaises(AttributeError, getattr, grid_out, "nothing")
        for name in ("name", "filename", "length", "chunk_size", "_id", "md5", "upload_date", "metadata", "aliases"):
            self.assertRaises(AttributeError, setattr, grid_out, name, 1)

    async def test_missing_fields(self) -> None:
        """What the document does not say is None."""
        grid_out = GridOut(self.db.fs, {"_id": 1})
        for name in ("name", "content_type", "length", "chunk_size", "upload_date", "aliases", "metadata", "md5"):
            self.assertIsNone(getattr(grid_out, name))
        await self.failure(grid_out.read(), CorruptGridFile)

    async def test_read(self) -> None:
        """Reading goes on where it ended; nothing comes at the end."""
        for size in (1, 3, 4, 5, 8, 10, 11):
            grid_out = await self.opened()
            pieces = []
            while piece := await grid_out.read(size):
                self.assertLessEqual(len(piece), size)
                pieces.append(piece)
                self.assertEqual(grid_out.tell(), sum(map(len, pieces)))
            self.assertEqual(b"".join(pieces), TEN)
            self.assertEqual(await grid_out.read(), b"")

    async def test_read_nothing(self) -> None:
        """Reading no bytes gives none and moves nothing."""
        grid_out = await self.opened()
        self.assertEqual((await grid_out.read(0), grid_out.tell()), (b"", 0))

    async def test_seek_then_read(self) -> None:
        """Wherever one goes, the bytes are those that stand there: every pair of positions, and every size."""
        grid_out = await self.opened()
        for before in range(0, 12, 2):
            for position in range(12):
                for size in (1, 4, 6, -1):
                    await grid_out.seek(before)
                    await grid_out.read(3)
                    self.assertEqual(await grid_out.seek(position), position)
                    end = 10 if size < 0 else position + size
                    self.assertEqual(await grid_out.read(size), TEN[position:end], (before, position, size))

    async def test_seek_relative(self) -> None:
        """A position may be relative to the current one or to the end."""
        grid_out = await self.opened()
        await grid_out.read(5)
        self.assertEqual((await grid_out.seek(-2, os.SEEK_CUR), await grid_out.read(2)), (3, b"34"))
        self.assertEqual((await grid_out.seek(-2, os.SEEK_END), await grid_out.read(2)), (8, b"89"))
        for position, whence in ((-1, os.SEEK_SET), (-11, os.SEEK_CUR), (-11, os.SEEK_END), (0, 3)):
            self.assertRaises(OSError, grid_out.seek, position, whence)
        self.assertRaises(TypeError, grid_out.seek, "1")
        self.assertEqual(grid_out.tell(), 10)

    async def test_not_awaited(self) -> None:
        """Reads and seeks that nobody waits for are carried out in their order."""
        grid_out = await self.opened()
        deferreds: list[Any] = [grid_out.read(3), grid_out.seek(8), grid_out.read(1)]
        deferreds += [grid_out.seek(-2, os.SEEK_CUR), grid_out.readline(2), grid_out.seek(-1, os.SEEK_END)]
        self.assertRaises(OSError, grid_out.seek, -1)
        beyond = grid_out.seek(-11, os.SEEK_CUR)
        deferreds += [grid_out.read(), grid_out.seek(0), grid_out.readchunk()]
        await self.failure(beyond, OSError)
        outcomes = await defer.gatherResults(deferreds)
        self.assertEqual(outcomes, [b"012", 8, b"8", 7, b"78", 9, b"9", 0, b"0123"])

    async def test_forward_without_query(self) -> None:
        """Going forward within what was read ahead asks the server nothing; going back opens a new cursor."""
        grid_out = await self.opened(bytes(range(100)), 1)
        await grid_out.read(2)
        self.commands.sent.clear()
        await grid_out.seek(50)
        self.assertEqual(await grid_out.read(2), bytes([50, 51]))
        self.assertEqual(self.commands.sent, [])
        await grid_out.seek(1)
        self.assertEqual(await grid_out.read(2), bytes([1, 2]))
        (find,) = self.commands.sent
        self.assertEqual(find["filter"], {"files_id": {"$eq": grid_out._id}, "n": {"$gte": 1}})

    async def test_readchunk(self) -> None:
        """readchunk gives what is left of a chunk."""
        grid_out = await self.opened()
        await grid_out.seek(1)
        self.assertEqual([await grid_out.readchunk() for _ in range(4)], [b"123", b"4567", b"89", b""])

    async def test_lines(self) -> None:
        """Lines are found whatever chunks they lie in."""
        content = b"one\ntwo and more\n\nthree"
        lines = content.splitlines(keepends=True)
        for chunk_size in (1, 2, 4, 5, 100):
            grid_out = await self.opened(content, chunk_size)
            self.assertEqual([await grid_out.readline(), await grid_out.readline(2)], [b"one\n", b"tw"])
            self.assertEqual([line async for line in grid_out], [b"o and more\n", b"\n", b"three"])
            self.assertEqual(await grid_out.readline(), b"")
            await grid_out.seek(0)
            self.assertEqual(await grid_out.readlines(), lines)
            await grid_out.seek(0)
            self.assertEqual(await grid_out.readlines(5), lines[:2])
            await grid_out.seek(0)
            self.assertEqual([await anext(grid_out), await grid_out.to_list()], [lines[0], lines[1:]])
            self.assertIsNone(await anext(grid_out, None))

    async def test_iterator(self) -> None:
        """The iterator gives a Deferred for each chunk, then one of None, then ends."""
        grid_out = await self.opened()
        await grid_out.read(5)
        iterator = GridOutIterator(grid_out, self.db.fs.chunks)
        self.assertIs(iter(iterator), iterator)
        self.assertEqual([await deferred for deferred in iterator], [b"0123", b"4567", b"89", None])
        self.assertEqual([await deferred for deferred in list(grid_out)], [b"0123", b"4567", b"89", None])
        iterator = GridOutIterator(grid_out, self.db.fs.chunks)
        self.assertEqual([await iterator.next() for _ in range(5)], [b"0123", b"4567", b"89", None, None])
        self.assertEqual([chunk async for chunk in iter(grid_out)], [b"0123", b"4567", b"89"])
        self.assertEqual(grid_out.tell(), 5)
        self.assertRaises(TypeError, GridOutIterator, None, self.db.fs.chunks)
        self.assertRaises(TypeError, GridOutIterator, grid_out, None)
        iterator = iter(grid_out)
        waiting = iterator.next()
        await iterator.close()
        await self.failure(waiting, defer.CancelledError)

    async def corrupt(self, change: Callable[[Any], Any]) -> GridOut:
        """A file whose chunks were changed after it was stored."""
        grid_out = await self.opened()
        await change(grid_out._id)
        return grid_out

    async def test_corrupt(self) -> None:
        """A chunk that is missing, shorter, longer or one too many is found; what comes before it can be read."""
        chunks = self.db.fs.chunks

        def set_data(number: int, data: bytes) -> Callable[[Any], Any]:
            return lambda file_id: chunks.update_one({"files_id": file_id, "n": number}, {"$set": {"data": data}})

        changes: list[Callable[[Any], Any]] = [
            lambda file_id: chunks.delete_one({"files_id": file_id, "n": 1}),
            lambda file_id: chunks.delete_many({"files_id": file_id, "n": {"$gte": 1}}),
            set_data(1, b"456"),
            set_data(1, b"45678"),
        ]
        for change in changes:
            grid_out = await self.corrupt(change)
            self.assertEqual(await grid_out.read(4), b"0123")
            for _ in range(2):
                await self.failure(grid_out.read(1), CorruptGridFile)
                self.assertEqual(grid_out.tell(), 4)
            iterator = iter(grid_out)
            self.assertEqual(await iterator.next(), b"0123")
            await self.failure(iterator.next(), CorruptGridFile)
        for change in (
            set_data(2, b"8"),
            lambda file_id: chunks.insert_one({"files_id": file_id, "n": 3, "data": b"x"}),
        ):
            grid_out = await self.corrupt(change)
            self.assertEqual(await grid_out.read(8), b"01234567")
            await self.failure(grid_out.read(1), CorruptGridFile)
        grid_out = await self.corrupt(lambda file_id: chunks.insert_one({"files_id": file_id, "n": 3, "data": b""}))
        self.assertEqual(await grid_out.read(), TEN)

    async def test_error_then_again(self) -> None:
        """A read that the server refuses moves nothing, and can be tried again."""
        grid_out = await self.opened()
        await grid_out.seek(3)
        await self.fail_command("find", errorCode=8000)
        await self.failure(grid_out.read(4), OperationFailure)
        self.assertEqual((grid_out.tell(), await grid_out.read(4)), (3, b"3456"))

    async def test_lost_cursor(self) -> None:
        """A cursor that the server has dropped meanwhile is opened again where it was."""
        content = os.urandom(20 * MEGABYTE)
        grid_out = await self.opened(content, MEGABYTE)
        first = await grid_out.read(MEGABYTE)
        await self.fail_command("getMore", errorCode=43)
        self.assertEqual(first + await grid_out.read(), content)
        self.assertEqual(self.commands.names().count("find"), 1)

    async def test_lost_connection(self) -> None:
        """A read whose connection is lost fails, and can be tried again."""
        grid_out = await self.opened(bytes(20 * MEGABYTE), MEGABYTE)
        await grid_out.read(1)
        await self.fail_command("getMore", closeConnection=True)
        await self.failure(grid_out.read(), AutoReconnect)
        self.assertEqual(len(await grid_out.read()), 20 * MEGABYTE - 1)

    async def test_close(self) -> None:
        """A file that is closed reads no more; its cursor is closed, and who waits is told."""
        before = await self.open_cursors()
        grid_out = await self.opened(bytes(8 * MEGABYTE), MEGABYTE)
        await grid_out.read(1)
        reading = grid_out.read()
        await grid_out.close()
        await grid_out.close()
        await self.failure(reading, defer.CancelledError)
        self.assertTrue(grid_out.closed)
        for method in (grid_out.read, grid_out.readline, grid_out.readlines, grid_out.readchunk):
            self.assertRaises(ValueError, method)
        self.assertRaises(ValueError, grid_out.seek, 0)
        while await self.open_cursors() > before:
            pass

    async def test_with(self) -> None:
        """``async with`` and ``with`` close the file at their end."""
        async with await self.opened() as grid_out:
            self.assertEqual(await grid_out.read(), TEN)
        self.assertTrue(grid_out.closed)
        with await self.opened() as grid_out:
            self.assertEqual(await grid_out.read(), TEN)
        self.assertTrue(grid_out.closed)

    async def test_dropped(self) -> None:
        """A file that is forgotten half-read leaves no cursor on the server."""
        before = await self.open_cursors()
        grid_out: Any = await self.opened(bytes(8 * MEGABYTE), MEGABYTE)
        await grid_out.read(1)
        del grid_out
        while await self.open_cursors() > before:
            pass

    async def test_close_while_opening(self) -> None:
        """A file that is closed before its document has come reads nothing."""
        grid_out = GridOut(self.db.fs, file_id=await self.numbered())
        reading = grid_out.read()
        await grid_out.close()
        await self.failure(reading, defer.CancelledError)
        self.assertNotIn("fs.chunks", [command.get("find") for command in self.commands.sent])

    async def test_cancelled_read(self) -> None:
        """A read that is cancelled moves nothing, and the next one works."""
        grid_out = await self.opened(TEN)
        reading = grid_out.read()
        reading.cancel()
        self.failureResultOf(reading, defer.CancelledError)
        self.assertEqual((grid_out.tell(), await grid_out.read()), (0, TEN))

    async def test_open(self) -> None:
        """A GridOut can be made of an _id: it is looked up by open(), or by the first read."""
        file_id = await self.numbered(filename="ten")
        grid_out = GridOut(self.db.fs, file_id=file_id)
        self.assertEqual(grid_out._id, file_id)
        self.assertRaises(InvalidOperation, getattr, grid_out, "length")
        await grid_out.open()
        self.assertEqual((grid_out.name, grid_out.length), ("ten", 10))
        self.assertEqual(await GridOut(self.db.fs, file_id=file_id).read(), TEN)
        self.assertEqual(await GridOut(self.db.fs, file_document=await self.file(file_id)).read(), TEN)
        await self.failure(GridOut(self.db.fs, file_id=1).open(), NoFile)
        self.assertRaises(TypeError, GridOut, None, {})
        self.assertEqual(await GridOut(self.db.fs, file_id).read(), TEN)
        self.assertRaises(TypeError, GridOut, self.db.fs, 5, file_id)
        self.assertRaises(TypeError, GridOut, self.db.fs, file_document=5)

    async def test_kind_of_file(self) -> None:
        """It is a file that is read at any place and not written; its repr is the document."""
        grid_out = GridOut(self.db.fs, {"_id": 1, "length": 0})
        self.assertEqual((grid_out.readable(), grid_out.seekable(), grid_out.writable()), (True, True, False))
        for refused in (grid_out.write, grid_out.writelines, grid_out.truncate):
            self.assertRaises(io.UnsupportedOperation, refused, b"x")
        self.assertRaises(io.UnsupportedOperation, grid_out.fileno)
        self.assertFalse(grid_out.isatty())
        grid_out.flush()
        self.assertEqual(repr(grid_out), "{'_id': 1, 'length': 0}")
        self.assertRaises(TypeError, grid_out.read, "1")


class GridFSTests(GridFSTestCase):
    """The other methods of GridFS."""

    async def test_versions(self) -> None:
        """Files of one name are found by their order, from the first or from the last."""
        for content in (b"first", b"second", b"third"):
            await self.fs.put(content, filename="same")
            await task.deferLater(reactor, 0.002)  # type: ignore[arg-type]  # dates are in milliseconds
        for version, expected in ((0, b"first"), (1, b"second"), (-1, b"third"), (-3, b"first")):
            self.assertEqual(await (await self.fs.get_version("same", version)).read(), expected)
        self.assertEqual(await (await self.fs.get_version("same")).read(), b"third")
        self.assertEqual(await (await self.fs.get_last_version("same")).read(), b"third")
        for version in (3, -4):
            error = await self.failure(self.fs.get_version("same", version), NoFile)
            self.assertEqual(str(error), f"no version {version} for filename 'same'")
        await self.failure(self.fs.get_version(), NoFile)
        await self.failure(self.fs.get_last_version("other"), NoFile)
        self.assertRaises(TypeError, self.fs.get_version, "same", "1")

    async def test_get(self) -> None:
        """An _id finds its own file and never matches as a query would."""
        file_id = await self.numbered()
        self.assertEqual((await self.fs.get(file_id))._id, file_id)
        for other in (ObjectId(), {"$exists": True}, {"$gt": file_id}):
            await self.failure(self.fs.get(other), NoFile)

    async def test_find(self) -> None:
        """Files are found by the fields of their documents."""
        for name, content in (("a", b"1"), ("b", b"22"), ("c", b"333")):
            await self.fs.put(content, filename=name)
        self.assertEqual(
            [await each.read() async for each in self.fs.find().sort("filename", -1)], [b"333", b"22", b"1"]
        )
        self.assertEqual([each.filename for each in await self.fs.find({"length": {"$gt": 1}}, 1)], ["c"])
        found = await self.fs.find_one({"filename": "b"})
        self.assertEqual((await found.read(), found.length), (b"22", 2))
        self.assertEqual((await self.fs.find_one(sort=[("length", -1)])).filename, "c")
        self.assertEqual((await self.fs.find_one({}, None, 1, sort={"filename": 1})).filename, "b")
        self.assertEqual((await self.fs.find_one(found._id)).filename, "b")
        self.assertEqual([await self.fs.find_one({"filename": "d"}), await self.fs.find_one(1)], [None, None])
        self.assertRaises(TypeError, self.fs.find_one, {}, nope=1)

    async def test_exists(self) -> None:
        """Whether a file exists is asked by its _id, by a query, or by fields."""
        self.assertFalse(await self.fs.exists())
        file_id = await self.numbered(filename="ten", metadata={"pages": 1})
        self.assertTrue(await self.fs.exists())
        for there in (file_id, {"_id": file_id}, {"filename": "ten"}, {"length": {"$lt": 11}}):
            self.assertTrue(await self.fs.exists(there), there)
        for missing in (ObjectId(), "ten", {"filename": "nine"}, {"length": 9}):
            self.assertFalse(await self.fs.exists(missing), missing)
        self.assertTrue(await self.fs.exists(filename="ten", length=10))
        self.assertFalse(await self.fs.exists(filename="ten", length=9))

    async def test_versions_by_fields(self) -> None:
        """Versions are told apart by other fields than the name."""
        for name, language, content in (("same", "en", b"one"), ("same", "de", b"eins"), ("other", "en", b"1")):
            await self.fs.put(content, filename=name, language=language)
            await task.deferLater(reactor, 0.002)  # type: ignore[arg-type]  # dates are in milliseconds
        self.assertEqual(await (await self.fs.get_last_version("same", language="en")).read(), b"one")
        self.assertEqual(await (await self.fs.get_last_version(language="en")).read(), b"1")
        self.assertEqual(await (await self.fs.get_version("same", 0, language="de")).read(), b"eins")
        self.assertEqual(await (await self.fs.get_version(language="en", version=0)).read(), b"one")
        await self.failure(self.fs.get_version("same", 1, language="de"), NoFile)
        await self.failure(self.fs.get_last_version("other", language="de"), NoFile)
        await self.failure(self.fs.get_last_version(), NoFile)

    async def test_sessions(self) -> None:
        """Every method has its commands, and those of the file that it opens, sent in the session that it is given."""
        async with self.client.start_session() as session:
            file_id = await self.fs.put(TEN, filename="ten", session=session)
            opened = [
                await self.fs.get(file_id, session),
                await self.fs.get_last_version("ten", session=session),
                await self.fs.get_version("ten", session=session),
                await self.fs.find_one(file_id, session),
                *await self.fs.find({}, session=session),
            ]
            self.assertEqual([await each.read() for each in opened], [TEN] * 5)
            self.assertEqual(await self.fs.list(session), ["ten"])
            self.assertTrue(await self.fs.exists(file_id, session))
            await self.fs.delete(file_id, session)
            self.assertEqual({str(command["lsid"]) for command in self.commands.sent}, {str(session.session_id)})
            session.start_transaction()
            for refused in (self.fs.get, self.fs.delete, self.fs.exists, self.fs.find_one, self.fs.get_last_version):
                self.assertRaises(InvalidOperation, refused, "ten", session)
            self.assertRaises(InvalidOperation, self.fs.list, session)

    async def test_list_and_count(self) -> None:
        """Names are listed once each, and the files of a name counted."""
        self.assertEqual(await self.fs.list(), [])
        for name in ("a", "b", "a"):
            await self.fs.put(b"", filename=name)
        await self.fs.put(b"")
        self.assertEqual(sorted(await self.fs.list()), ["a", "b"])
        self.assertEqual([await self.fs.count(name) for name in ("a", "b", "c")], [2, 1, 0])

    async def test_delete(self) -> None:
        """A file is deleted with its chunks, the document first; that there is none is no error."""
        file_id, other = await self.numbered(), await self.numbered()
        self.commands.sent.clear()
        outcomes = await self.fs.delete(file_id)
        self.assertEqual([(done, result.deleted_count) for done, result in outcomes], [(True, 1), (True, 3)])
        self.assertEqual([command["delete"] for command in self.commands.sent], ["fs.files", "fs.chunks"])
        await self.failure(self.fs.get(file_id), NoFile)
        self.assertEqual(await (await self.fs.get(other)).read(), TEN)
        self.assertEqual([result.deleted_count for _, result in await self.fs.delete(file_id)], [0, 0])
        await self.fs.delete({"$exists": True})
        self.assertEqual(await self.db.fs.files.count_documents({}), 1)

    async def test_other_bucket(self) -> None:
        """Buckets of one database do not meet."""
        other = GridFS(self.db, "other")
        file_id = await other.put(TEN)
        await self.failure(self.fs.get(file_id), NoFile)
        self.assertEqual(await (await other.get(file_id)).read(), TEN)
        self.assertEqual(await self.db.other.chunks.count_documents({}), 1)

    async def test_constructor(self) -> None:
        """A GridFS needs a database and a name, and sends nothing at first."""
        for wrong in (None, self.db.fs, "db"):
            self.assertRaises(TypeError, GridFS, wrong)
        self.assertRaises(TypeError, GridFS, self.db, 5)
        self.assertEqual(self.commands.sent, [])

    async def test_no_transaction(self) -> None:
        """Sessions are used for every command; one in a transaction is refused."""
        session = self.client.start_session()
        self.addCleanup(session.end_session)
        grid_in = self.fs.new_file(session=session, chunk_size=MEGABYTE)
        await grid_in.write(bytes(10 * MEGABYTE))
        await grid_in.close()
        lsid = session.session_id
        self.assertTrue(all(command["lsid"] == lsid for command in self.commands.sent))
        grid_out = GridOut(self.db.fs, file_id=grid_in._id, session=session)
        self.assertEqual(len(await grid_out.read()), 10 * MEGABYTE)
        self.assertTrue(all(command["lsid"] == lsid for command in self.commands.sent))
        session.start_transaction()
        self.assertRaises(InvalidOperation, self.fs.new_file, session=session)
        self.assertRaises(InvalidOperation, GridOut, self.db.fs, {"_id": 1}, session=session)


class FixedPoolTests(GridFSTestCase):
    """GridFS on a single connection."""

    async def test_one_connection(self) -> None:
        """All of a file goes through one connection."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, pool_size=1)
        self.addCleanup(client.disconnect)
        fs = GridFS(client.txmongo_tests)
        content = os.urandom(6 * MEGABYTE)
        file_id = await fs.put(content)
        self.assertEqual(await (await fs.get(file_id)).read(), content)


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget_peak() -> None:
    """Let the peak be what is in memory now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        raise SkipTest("this system does not tell how much memory was used") from None


def peak() -> int:
    """The most bytes of this process that were in memory since."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * KILOBYTE


class Endless:
    """A source of so many bytes that are never in memory together."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        """The next ones."""
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


class MemoryTests(GridFSTestCase):
    """A file that is streamed goes through little memory, however large it is."""

    size = 64 * MEGABYTE
    #: 16 MB and two chunks.
    allowed = 16 * MEGABYTE + 2 * 255 * KILOBYTE

    async def setUp(self) -> None:  # type: ignore[override]
        """Once there and back, so that what is only made once is there; nobody keeps the commands."""
        await super().setUp()
        client: ConnectionPool[Any] = ConnectionPool(self.uri)
        self.addCleanup(client.disconnect)
        self.fs = GridFS(client.txmongo_tests)
        await (await self.fs.get(await self.fs.put(bytes(4 * MEGABYTE)))).read()
        gc.collect()
        forget_peak()
        self.before = resident()

    def check(self) -> None:
        """Look at the peak."""
        self.assertLess(peak() - self.before, self.allowed)

    async def test_in(self) -> None:
        """The peak while a file is stored is bounded."""
        await self.fs.put(Endless(self.size))
        self.check()

    async def test_out(self) -> None:
        """The peak while a file is read is bounded, by pieces of any size and by chunks."""
        file_id = await self.fs.put(Endless(self.size))
        for size in (10_000, MEGABYTE):
            grid_out = await self.fs.get(file_id)
            read = 0
            while piece := await grid_out.read(size):
                read += len(piece)
            self.assertEqual(read, self.size)
        read = 0
        async for chunk in iter(grid_out):
            read += len(chunk)
        self.assertEqual(read, self.size)
        self.check()

    async def test_slow_reader(self) -> None:
        """Who stops reading is not sent all the rest."""
        grid_out = await GridFS(self.db).get(await self.fs.put(Endless(self.size)))
        self.addCleanup(grid_out.close)
        await grid_out.read(1)
        self.commands.sent.clear()
        await task.deferLater(reactor, 0.3)  # type: ignore[arg-type]  # nothing is to happen in that time
        self.assertLess(len(self.commands.sent), 3)
        self.check()
