"""txmongo.gridfs and txmongo._gridfs of TxMongo 15.2 and 26.0: a test for each of their names."""

from __future__ import annotations

import datetime
import hashlib
import inspect
import io
import os
from typing import Any

from bson.objectid import ObjectId
from twisted.internet import defer

import txmongo
import txmongo.gridfs
from tests.compat.servers import CompatTestCase, on_every_server
from txmongo import _gridfs
from txmongo._gridfs import GridFS, grid_file
from txmongo._gridfs.errors import CorruptGridFile, GridFSError, NoFile, UnsupportedAPI
from txmongo._gridfs.grid_file import GridIn, GridOut, GridOutIterator

CONTENT = b"0xDEADBEEF" * 100


class GridFSCase(CompatTestCase):
    """A bucket that is empty at first."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.client.drop_database(self.database)
        self.gfs = GridFS(self.database)

    async def stored(self, **fields: Any) -> GridOut:
        """A file of a thousand bytes in chunks of three hundred."""
        file_id = await self.gfs.put(CONTENT, chunk_size=300, **fields)
        grid_out: GridOut = await self.gfs.get(file_id)
        return grid_out


class PathTests(GridFSCase):
    """Where the names are."""

    def test_paths(self) -> None:
        """Every documented path leads to the same class."""
        for name in ("GridFS", "GridIn", "GridOut", "GridOutIterator"):
            self.assertIs(getattr(_gridfs, name), getattr(txmongo.gridfs, name))
        for name in ("GridIn", "GridOut", "GridOutIterator"):
            self.assertIs(getattr(grid_file, name), getattr(txmongo.gridfs, name))
        self.assertIs(_gridfs.NoFile, NoFile)
        self.assertIs(txmongo.gridfs.errors.NoFile, NoFile)
        self.assertIs(txmongo.gridfs.grid_file, grid_file)
        self.assertIs(txmongo._gridfs, _gridfs)
        self.assertEqual(grid_file.DEFAULT_CHUNK_SIZE, 255 * 1024)

    def test_errors(self) -> None:
        """Every error is a GridFSError, which is an Exception."""
        for error in (CorruptGridFile, NoFile, UnsupportedAPI):
            self.assertTrue(issubclass(error, GridFSError))
        self.assertTrue(issubclass(GridFSError, Exception))

    def test_signatures(self) -> None:
        """Methods take the documented arguments with their defaults, in their order."""
        documented: dict[Any, dict[str, list[tuple[str, Any]]]] = {
            GridFS: {
                "__init__": [("database", None), ("collection", "fs")],
                "count": [("filename", None)],
                "delete": [("file_id", None)],
                "get": [("file_id", None)],
                "get_last_version": [("filename", None)],
                "get_version": [("filename", None), ("version", -1)],
                "indexes_created": [],
                "list": [],
                "new_file": [("kwargs", None)],
                "put": [("data", None), ("kwargs", None)],
            },
            GridIn: {
                "close": [],
                "write": [("data", None)],
                "writelines": [("sequence", None)],
            },
            GridOut: {
                "__init__": [("root_collection", None), ("doc", None)],
                "close": [],
                "read": [("size", -1)],
                "seek": [("pos", None), ("whence", 0)],
                "tell": [],
            },
            GridOutIterator: {"__init__": [("grid_out", None), ("chunks", None)], "next": []},
        }
        for kind, methods in documented.items():
            for name, expected in methods.items():
                parameters = list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
                found = [
                    (parameter.name, None if parameter.default is parameter.empty else parameter.default)
                    for parameter in parameters
                ]
                self.assertEqual(found[: len(expected)], expected, f"{kind.__name__}.{name}")
                others = parameters[len(expected) :]
                named = [each for each in others if each.kind is not each.VAR_KEYWORD]
                required = [each.name for each in named if each.default is each.empty]
                self.assertEqual(required, [], f"{kind.__name__}.{name}")
        parameters = list(inspect.signature(GridIn).parameters.values())
        self.assertEqual((parameters[0].name, parameters[-1].kind), ("root_collection", parameters[-1].VAR_KEYWORD))


@on_every_server
class GridFSTests(GridFSCase):
    """class GridFS(database, collection="fs")."""

    async def test_constructor(self) -> None:
        """It needs a Database, and a name for the collection; "fs" is the default."""
        self.assertRaises(TypeError, GridFS, None)
        file_id = await GridFS(self.database, "other").put(CONTENT)
        self.assertEqual(await self.database.other.files.distinct("_id"), [file_id])
        file_id = await GridFS(self.database, collection="third").put(CONTENT)
        self.assertEqual(await self.database.third.files.distinct("_id"), [file_id])

    async def test_put(self) -> None:
        """put(data, **kwargs) stores bytes, text and files, and fires with the _id."""
        file_id = await self.gfs.put(CONTENT, filename="a", contentType="text/plain", chunk_size=65536, extra=1)
        self.assertIsInstance(file_id, ObjectId)
        document = await self.database.fs.files.find_one({"_id": file_id})
        assert document is not None
        self.assertIsInstance(document.pop("uploadDate"), datetime.datetime)
        md5 = hashlib.md5(CONTENT).hexdigest()
        expected = {"_id": file_id, "filename": "a", "contentType": "text/plain", "chunkSize": 65536, "extra": 1}
        self.assertEqual(document, {**expected, "length": 1000, "md5": md5})
        for source, fields in ((io.BytesIO(CONTENT), {}), (CONTENT.decode(), {"encoding": "ascii"})):
            grid_out = await self.gfs.get(await self.gfs.put(source, **fields))
            self.assertEqual(await grid_out.read(), CONTENT)
        for wrong in (1, "text without an encoding"):
            self.assertRaises(TypeError, self.gfs.put, wrong)

    async def test_new_file(self) -> None:
        """new_file(**kwargs) gives a GridIn."""
        grid_in = self.gfs.new_file(filename="a", _id="own")
        self.assertIsInstance(grid_in, GridIn)
        await grid_in.write(CONTENT)
        await grid_in.close()
        self.assertEqual(await (await self.gfs.get("own")).read(), CONTENT)

    async def test_get(self) -> None:
        """get(file_id) fires with a GridOut, or fails with NoFile."""
        grid_out = await self.stored()
        self.assertIsInstance(grid_out, GridOut)
        self.assertEqual(await grid_out.read(), CONTENT)
        await self.failure(self.gfs.get(ObjectId()), NoFile)

    async def test_get_last_version(self) -> None:
        """get_last_version(filename) fires with the file of that name that was stored last, or fails with NoFile."""
        await self.gfs.put(b"old", filename="a")
        await self.database.fs.files.update_one({}, {"$set": {"uploadDate": datetime.datetime(2015, 9, 5)}})
        await self.gfs.put(b"new", filename="a")
        self.assertEqual(await (await self.gfs.get_last_version("a")).read(), b"new")
        await self.failure(self.gfs.get_last_version("b"), NoFile)

    async def test_get_version(self) -> None:
        """get_version(filename=None, version=-1) counts from the first, or from the last."""
        await self.gfs.put(b"old", filename="a")
        await self.database.fs.files.update_one({}, {"$set": {"uploadDate": datetime.datetime(2015, 9, 5)}})
        await self.gfs.put(b"new", filename="a")
        for arguments, expected in ((("a",), b"new"), (("a", 0), b"old"), (("a", 1), b"new"), (("a", -2), b"old")):
            self.assertEqual(await (await self.gfs.get_version(*arguments)).read(), expected)
        await self.failure(self.gfs.get_version("a", 2), NoFile)
        await self.gfs.put(b"nameless")
        self.assertEqual(await (await self.gfs.get_version()).read(), b"nameless")

    async def test_list(self) -> None:
        """list() fires with the names."""
        for name in ("a", "b", "a"):
            await self.gfs.put(b"", filename=name)
        self.assertEqual(sorted(await self.gfs.list()), ["a", "b"])

    async def test_count(self) -> None:
        """count(filename) fires with how many files have that name."""
        for name in ("a", "b", "a"):
            await self.gfs.put(b"", filename=name)
        self.assertEqual([await self.gfs.count(name) for name in ("a", "b", "c")], [2, 1, 0])

    async def test_delete(self) -> None:
        """delete(file_id) removes all of a file, and says so of its document and its chunks; none is no error."""
        grid_out = await self.stored()
        outcomes = await self.gfs.delete(grid_out._id)
        self.assertEqual([(success, result.deleted_count) for success, result in outcomes], [(True, 1), (True, 4)])
        self.assertEqual(await self.database.fs.chunks.count_documents({}), 0)
        await self.gfs.delete(grid_out._id)

    async def test_indexes_created(self) -> None:
        """indexes_created() fires when both indexes are there, with what a DeferredList of their names would."""
        outcomes = await self.gfs.indexes_created()
        self.assertEqual(outcomes, [(True, "filename_1_uploadDate_1"), (True, "files_id_1_n_1")])
        self.assertIn("filename_1_uploadDate_1", await self.database.fs.files.index_information())
        self.assertTrue((await self.database.fs.chunks.index_information())["files_id_1_n_1"]["unique"])

    async def test_index_for_last_version(self) -> None:
        """The index that serves get_last_version is there once there is a file."""
        await self.gfs.put(CONTENT, filename="a")
        query = {"find": "fs.files", "filter": {"filename": "a"}, "sort": {"uploadDate": -1}}
        plan = await self.database.command("explain", query)
        self.assertIn("filename_1_uploadDate_1", str(plan))


class GridInTests(GridFSCase):
    """class GridIn(root_collection, **kwargs)."""

    async def test_constructor(self) -> None:
        """It needs a Collection, the bucket's root."""
        self.assertRaises(TypeError, GridIn, None)
        grid_in = GridIn(self.database.fs, filename="a")
        await grid_in.close()
        self.assertEqual(await self.gfs.count("a"), 1)

    async def test_chunk_size(self) -> None:
        """chunk_size is read-only; 255 KiB by default."""
        self.assertEqual(self.gfs.new_file().chunk_size, 261120)
        grid_in = self.gfs.new_file(chunk_size=7)
        self.assertEqual((grid_in.chunk_size, self.gfs.new_file(chunkSize=8).chunk_size), (7, 8))
        self.assertRaises(AttributeError, setattr, grid_in, "chunk_size", 9)

    async def test_closed(self) -> None:
        """closed tells whether it was closed; closing more than once is allowed, writing after it is not."""
        grid_in = self.gfs.new_file()
        self.assertFalse(grid_in.closed)
        await grid_in.close()
        await grid_in.close()
        self.assertTrue(grid_in.closed)
        self.assertRaises(ValueError, grid_in.write, b"more")
        self.assertRaises(ValueError, grid_in.writelines, [b"more"])

    async def test_content_type_and_filename(self) -> None:
        """content_type and filename can be set before close."""
        grid_in = self.gfs.new_file(filename="a", content_type="text/plain")
        self.assertEqual((grid_in.filename, grid_in.content_type), ("a", "text/plain"))
        grid_in.filename, grid_in.content_type = "b", "text/html"
        await grid_in.close()
        self.assertEqual((grid_in.filename, grid_in.content_type), ("b", "text/html"))
        for name in ("filename", "content_type"):
            self.assertRaises(AttributeError, setattr, grid_in, name, "c")
        grid_out = await self.gfs.get_last_version("b")
        self.assertEqual(grid_out.content_type, "text/html")

    async def test_read_after_close(self) -> None:
        """length, md5 and upload_date are read-only, and only there after close."""
        grid_in = self.gfs.new_file()
        await grid_in.write(CONTENT)
        for name in ("length", "md5", "upload_date"):
            self.assertRaises(AttributeError, getattr, grid_in, name)
            self.assertRaises(AttributeError, setattr, grid_in, name, 1)
        await grid_in.close()
        self.assertEqual((grid_in.length, grid_in.md5), (1000, hashlib.md5(CONTENT).hexdigest()))
        self.assertIsInstance(grid_in.upload_date, datetime.datetime)
        for name in ("length", "md5", "upload_date"):
            self.assertRaises(AttributeError, setattr, grid_in, name, 1)

    async def test_other_fields(self) -> None:
        """Other keywords are fields of the document, and attributes; a name that is none is an AttributeError."""
        grid_in = self.gfs.new_file(colour="red")
        self.assertEqual(grid_in.colour, "red")
        self.assertRaises(AttributeError, getattr, grid_in, "nothing")
        await grid_in.close()
        self.assertEqual((await self.gfs.get(grid_in._id)).colour, "red")

    async def test_write(self) -> None:
        """write(data) takes bytes, what has a read method, and text where there is an encoding."""
        grid_in = self.gfs.new_file(chunk_size=64)
        grid_in.write(b"un-awaited ")
        self.assertIsInstance(grid_in.write(CONTENT), defer.Deferred)
        await grid_in.write(io.BytesIO(CONTENT))
        self.assertRaises(TypeError, grid_in.write, 5)
        self.assertRaises(TypeError, grid_in.write, "text")
        await grid_in.close()
        self.assertEqual(await (await self.gfs.get(grid_in._id)).read(), b"un-awaited " + CONTENT * 2)

    async def test_writelines(self) -> None:
        """writelines(sequence) adds no separators."""
        grid_in = self.gfs.new_file(encoding="utf-8")
        await grid_in.writelines([b"a", "b", io.BytesIO(b"c")])
        await grid_in.close()
        self.assertEqual(await (await self.gfs.get(grid_in._id)).read(), b"abc")

    async def test_context_manager(self) -> None:
        """``with`` closes the file and lets exceptions through."""
        with self.gfs.new_file(filename="a") as grid_in:
            await grid_in.write(CONTENT)
        await grid_in.close()
        self.assertEqual(await (await self.gfs.get_last_version("a")).read(), CONTENT)
        with self.assertRaises(ZeroDivisionError), self.gfs.new_file() as grid_in:
            raise ZeroDivisionError
        await grid_in.close()


class GridOutTests(GridFSCase):
    """class GridOut(root_collection, doc)."""

    async def test_constructor(self) -> None:
        """It needs a Collection, and takes what the document says."""
        self.assertRaises(TypeError, GridOut, None, {})
        document = {"_id": ObjectId(), "length": 1048576, "filename": "test", "chunkSize": 4096}
        grid_out = GridOut(self.database.fs, document)
        self.assertEqual((grid_out._id, grid_out.length, grid_out.name), (document["_id"], 1048576, "test"))
        self.assertEqual(repr(grid_out), repr(document))

    async def test_properties(self) -> None:
        """Every property is read-only; those that the document does not have are None, other names errors."""
        grid_out = await self.stored(filename="a", contentType="b", aliases=["c"], metadata={"d": 1}, extra=2)
        self.assertEqual((grid_out.name, grid_out.content_type, grid_out.aliases), ("a", "b", ["c"]))
        self.assertEqual((grid_out.metadata, grid_out.length, grid_out.chunk_size), ({"d": 1}, 1000, 300))
        self.assertEqual((grid_out.md5, grid_out.extra), (hashlib.md5(CONTENT).hexdigest(), 2))
        self.assertIsInstance(grid_out.upload_date, datetime.datetime)
        names = ("aliases", "chunk_size", "content_type", "length", "md5", "metadata", "name", "upload_date")
        for name in names:
            self.assertRaises(AttributeError, setattr, grid_out, name, 1)
            self.assertIsNone(getattr(GridOut(self.database.fs, {}), name))
        self.assertRaises(AttributeError, getattr, grid_out, "nothing")

    async def test_read(self) -> None:
        """read(size=-1) gives at most so many bytes, all that are left without one."""
        grid_out = await self.stored()
        self.assertEqual([await grid_out.read(450), await grid_out.read(size=5)], [CONTENT[:450], CONTENT[450:455]])
        self.assertEqual(await grid_out.read(), CONTENT[455:])
        self.assertEqual(await grid_out.read(10), b"")

    async def test_seek_and_tell(self) -> None:
        """seek(pos, whence=0) goes where it is told, and tell() says where that is."""
        grid_out = await self.stored()
        self.assertEqual(grid_out.tell(), 0)
        await grid_out.seek(301)
        self.assertEqual((grid_out.tell(), await grid_out.read(2)), (301, CONTENT[301:303]))
        grid_out.seek(-200, os.SEEK_CUR)
        self.assertEqual((grid_out.tell(), await grid_out.read(2)), (103, CONTENT[103:105]))
        grid_out.seek(-1, os.SEEK_END)
        self.assertEqual((grid_out.tell(), await grid_out.read()), (999, CONTENT[999:]))
        self.assertRaises(IOError, grid_out.seek, -1)
        self.assertRaises(IOError, grid_out.seek, 0, 3)

    async def test_close(self) -> None:
        """close() ends it, with nothing to wait for."""
        grid_out = await self.stored()
        grid_out.close()

    async def test_corrupt(self) -> None:
        """A missing chunk is a CorruptGridFile."""
        grid_out = await self.stored()
        await self.database.fs.chunks.delete_one({"files_id": grid_out._id, "n": 1})
        await self.failure(grid_out.read(), CorruptGridFile)

    async def test_inline_callbacks(self) -> None:
        """All of it can be waited for by yield."""
        await self.in_the_old_style()

    @defer.inlineCallbacks
    def in_the_old_style(self) -> Any:
        """As programs for TxMongo 15.2 are written."""
        file_id = yield self.gfs.put(CONTENT, filename="a")
        grid_out = yield self.gfs.get(file_id)
        yield grid_out.seek(10)
        data = yield grid_out.read(10)
        yield grid_out.close()
        self.assertEqual(data, CONTENT[10:20])
        grid_in = self.gfs.new_file()
        yield grid_in.write(data)
        yield grid_in.writelines([data])
        yield grid_in.close()
        stored = yield self.gfs.get(grid_in._id)
        self.assertEqual((yield stored.read()), data * 2)


class GridOutIteratorTests(GridFSCase):
    """class GridOutIterator(grid_out, chunks)."""

    async def test_next(self) -> None:
        """next() fires with one chunk after the other, then with None."""
        iterator = GridOutIterator(await self.stored(), self.database.fs.chunks)
        chunks = [CONTENT[:300], CONTENT[300:600], CONTENT[600:900], CONTENT[900:]]
        self.assertEqual([await iterator.next() for _ in range(6)], [*chunks, None, None])

    async def test_iteration(self) -> None:
        """It is its own iterator; the builtin next() gives what the method gives."""
        iterator = GridOutIterator(await self.stored(), self.database.fs.chunks)
        self.assertIs(iter(iterator), iterator)
        pieces = []
        while True:
            piece = await next(iterator)
            if piece is None:
                break
            pieces.append(piece)
        self.assertEqual(b"".join(pieces), CONTENT)
