"""GridFSBucket: files by the methods of the GridFS specification, with PyMongo's names and arguments.

The methods that TxMongo has always had are :mod:`txmongo._gridfs.filesystem`'s. Kept: the GridFS specification, and of
the client side operations timeout specification "GridFS API".
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Unpack

from bson.objectid import ObjectId
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred

from txmongo._gridfs.collections import BucketCollections
from txmongo._gridfs.errors import NoFile
from txmongo._gridfs.finding import GridOutCursor, find_file, revision_order
from txmongo._gridfs.grid_in import GridIn, store
from txmongo._gridfs.grid_out import GridOut
from txmongo._gridfs.layout import DEFAULT_CHUNK_SIZE, check_chunk_size
from txmongo._gridfs.sources import check_source
from txmongo._gridfs.times import Times
from txmongo._ops.arguments import check_optional_mapping
from txmongo._ops.timeouts import Timing
from txmongo._pymongo import ServerMode
from txmongo.database import Database
from txmongo.errors import ConfigurationError

__all__ = ["GridFSBucket"]


class GridFSBucket:
    """A bucket of files in a database: each has an ``_id`` and a name, of which there may be several revisions.

    ::

        bucket = GridFSBucket(client.library)
        with open("scan.pdf", "rb") as source:
            file_id = await bucket.upload_from_stream("scan.pdf", source, metadata={"pages": 12})
        with open("copy.pdf", "wb") as destination:
            await bucket.download_to_stream(file_id, destination)

    Every method that talks to the server returns a Deferred. Beside what its own description says, it can fail as those
    of :class:`~txmongo.collection.Collection`. All take ``session``, a :class:`~txmongo.sessions.ClientSession` that is
    not in a transaction, and ``timeout_ms``, ``timeout`` or ``deadline``: the time of a method that opens a file is
    that of the file as long as it is open; it does not end the wait for what an application reads from or writes to.

    Before the first write through one object the bucket's two indexes are made, if it is empty. No MD5 is computed.

    :param db: the :class:`~txmongo.database.Database`.
    :param bucket_name: the collection of which ``files`` and ``chunks`` are subcollections.
    :param chunk_size_bytes: the size of the chunks of new files.
    :param write_concern: and the other options: those of the database unless they are given.
    :param timeout_ms: milliseconds that a call, or a file that is open, may last; that of the database unless given.
    :raises TypeError: an argument is not of its type.
    :raises ValueError: the chunk size is less than one byte, or ``timeout_ms`` is negative.
    :raises ConfigurationError: writes would not be acknowledged.
    """

    def __init__(
        self,
        db: Any,
        bucket_name: str = "fs",
        chunk_size_bytes: int = DEFAULT_CHUNK_SIZE,
        write_concern: WriteConcern | None = None,
        read_preference: ServerMode | None = None,
        read_concern: ReadConcern | None = None,
        timeout_ms: float | None = None,
    ) -> None:
        if not isinstance(db, Database):
            raise TypeError(f"db must be an instance of Database, not {type(db).__name__}")
        root = db.get_collection(
            bucket_name,
            write_concern=write_concern,
            read_preference=read_preference,
            read_concern=read_concern,
            timeout_ms=timeout_ms,
        )
        if not root.write_concern.acknowledged:
            raise ConfigurationError("write_concern must be acknowledged")
        self._chunk_size = check_chunk_size("chunk_size_bytes", chunk_size_bytes)
        self._bucket = BucketCollections.of(root, disable_md5=True)

    # --- writing ---

    def open_upload_stream(
        self,
        filename: str,
        chunk_size_bytes: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        session: Any = None,
        **timing: Unpack[Timing],
    ) -> GridIn:
        """A new file to write to. It is there for others once it is closed.

        ::

            async with bucket.open_upload_stream("log.txt", metadata={"from": "sensor"}) as grid_in:
                await grid_in.write(b"first line\\n")

        :param filename: its name.
        :param chunk_size_bytes: the size of its chunks; the bucket's unless given.
        :param metadata: what the application wants to store with it.
        :returns: the :class:`GridIn` itself; nothing is sent.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the chunk size is less than one byte.
        """
        return self.open_upload_stream_with_id(ObjectId(), filename, chunk_size_bytes, metadata, session, **timing)

    def open_upload_stream_with_id(
        self,
        file_id: Any,
        filename: str,
        chunk_size_bytes: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        session: Any = None,
        **timing: Unpack[Timing],
    ) -> GridIn:
        """As :meth:`open_upload_stream`, with an ``_id`` of the application's.

        :param file_id: the file's ``_id``: of any type that BSON has but an array or a regular expression.
        :param filename: and the other arguments: see :meth:`open_upload_stream`.
        """
        _check_name("filename", filename)
        size = self._chunk_size
        if chunk_size_bytes is not None:
            size = check_chunk_size("chunk_size_bytes", chunk_size_bytes)
        check_optional_mapping("metadata", metadata)
        fields: dict[str, Any] = {"_id": file_id, "filename": filename, "chunkSize": size}
        if metadata is not None:
            fields["metadata"] = metadata
        return GridIn._in(self._bucket, session, fields, timing)

    def upload_from_stream(
        self,
        filename: str,
        source: Any,
        chunk_size_bytes: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        session: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[ObjectId]:
        """Store a file.

        :param filename: its name.
        :param source: its content: bytes, or anything with a method ``read(size)`` that gives bytes or a Deferred of
            bytes. It is read to its end and not closed.
        :param chunk_size_bytes: the size of its chunks; the bucket's unless given.
        :param metadata: what the application wants to store with it.
        :returns: a Deferred that fires with the file's ``_id``. It fails as that of :meth:`GridIn.write`. If ``source``
            cannot be read to its end, or the Deferred is cancelled, what was stored is deleted.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the chunk size is less than one byte.
        """
        check_source(source, None)
        grid_in = self.open_upload_stream(filename, chunk_size_bytes, metadata, session, **timing)
        return Deferred.fromCoroutine(store(grid_in, source))

    def upload_from_stream_with_id(
        self,
        file_id: Any,
        filename: str,
        source: Any,
        chunk_size_bytes: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        session: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[None]:
        """As :meth:`upload_from_stream`, with an ``_id`` of the application's.

        :param file_id: the file's ``_id``.
        :param filename: and the other arguments: see :meth:`upload_from_stream`.
        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo.gridfs.FileExists` if the ``_id``
            is taken, and as that of :meth:`upload_from_stream`.
        """
        check_source(source, None)
        grid_in = self.open_upload_stream_with_id(file_id, filename, chunk_size_bytes, metadata, session, **timing)
        return Deferred.fromCoroutine(store(grid_in, source)).addCallback(_nothing)

    # --- reading ---

    def open_download_stream(self, file_id: Any, session: Any = None, **timing: Unpack[Timing]) -> Deferred[GridOut]:
        """Open a file.

        :param file_id: its ``_id``.
        :returns: a Deferred that fires with the :class:`GridOut`. It fails with :class:`NoFile` if there is no such
            file.
        """
        times = Times.begin(self._bucket.files, timing)
        missing = f"no file in gridfs with _id {file_id!r}"
        return find_file(self._bucket, {"_id": {"$eq": file_id}}, missing, times, session)

    def open_download_stream_by_name(
        self, filename: str, revision: int = -1, session: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[GridOut]:
        """Open one of the files of a name.

        :param filename: the name.
        :param revision: 0 for the one that was stored first, 1 for the next; -1 for the one that was stored last, -2
            for the one before.
        :returns: a Deferred that fires with the :class:`GridOut`. It fails with :class:`NoFile` if there is no such
            revision.
        :raises TypeError: an argument is not of its type.
        """
        _check_name("filename", filename)
        order, skip = revision_order(revision, "revision")
        times = Times.begin(self._bucket.files, timing)
        missing = f"no version {revision} for filename {filename!r}"
        return find_file(self._bucket, {"filename": filename}, missing, times, session, sort=order, skip=skip)

    def download_to_stream(
        self, file_id: Any, destination: Any, session: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[None]:
        """Write the content of a file to something.

        :param file_id: its ``_id``.
        :param destination: has a method ``write(data)``; what that returns is waited for if it is a Deferred. It is not
            closed.
        :returns: a Deferred that fires with ``None`` when all is written. It fails as :meth:`open_download_stream` and
            :meth:`GridOut.read` do, or as ``write`` does.
        :raises TypeError: ``destination`` has no such method.
        """
        _check_destination(destination)
        opening = self.open_download_stream(file_id, session, **timing)
        return Deferred.fromCoroutine(_copy(opening, destination))

    def download_to_stream_by_name(
        self,
        filename: str,
        destination: Any,
        revision: int = -1,
        session: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[None]:
        """As :meth:`download_to_stream`, for one of the files of a name.

        :param filename: and ``revision``: as of :meth:`open_download_stream_by_name`.
        :param destination: as of :meth:`download_to_stream`.
        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo.gridfs.NoFile` if there is no such
            file, and as that of :meth:`download_to_stream`.
        """
        _check_destination(destination)
        opening = self.open_download_stream_by_name(filename, revision, session, **timing)
        return Deferred.fromCoroutine(_copy(opening, destination))

    def find(self, *args: Any, **kwargs: Any) -> GridOutCursor:
        """Find files.

        ::

            async for grid_out in bucket.find({"metadata.pages": {"$gt": 10}}).sort("uploadDate", -1):
                print(grid_out.filename, grid_out.length)

        :param args: and ``kwargs``: these arguments, by position in this order or by name.
        :param filter: which files, by the fields of their documents: ``filename``, ``length``, ``uploadDate`` and what
            stands in ``metadata``; all of them if it is not given.
        :param skip: how many files to leave out at the start.
        :param limit: how many files at most; 0 for all.
        :param no_cursor_timeout: the server keeps the cursor however long it is not used. Default false.
        :param sort: a list of ``(key, direction)`` pairs, or a mapping.
        :param batch_size: how many documents the server sends at once; 0 leaves it to the server.
        :param session: is that of the files, too.
        :param allow_disk_use: the server may sort with files when memory does not suffice.
        :param max_time_ms: milliseconds that the server may work.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a :class:`GridOutCursor`, which is a Deferred of a list of :class:`GridOut` and more; nothing is sent
            before it is used. It fails as every operation (see the class).
        """
        return GridOutCursor(self._bucket, *args, **kwargs)

    # --- changing and deleting ---

    def delete(self, file_id: Any, session: Any = None, **timing: Unpack[Timing]) -> Deferred[None]:
        """Delete a file. Who is reading it meanwhile finds it corrupt.

        :param file_id: its ``_id``.
        :returns: a Deferred that fires with ``None``. It fails with :class:`NoFile` if there is no such file; chunks
            that were left of it are deleted all the same.
        """
        session = self._bucket.session_for(session)
        return Deferred.fromCoroutine(self._delete(file_id, session, Times.begin(self._bucket.files, timing)))

    async def _delete(self, file_id: Any, session: Any, times: Times) -> None:
        files, chunks = self._bucket.files, self._bucket.chunks
        deleted = await files.delete_one({"_id": {"$eq": file_id}}, session=session, **times.left())
        await chunks.delete_many({"files_id": {"$eq": file_id}}, session=session, **times.left())
        if not deleted.deleted_count:
            raise NoFile(f"no file could be deleted because none matched {file_id!r}")

    def delete_by_name(self, filename: str, session: Any = None, **timing: Unpack[Timing]) -> Deferred[None]:
        """Delete all files of a name.

        :param filename: the name.
        :returns: a Deferred that fires with ``None``. It fails with :class:`NoFile` if there is none.
        :raises TypeError: ``filename`` is not a str.
        """
        _check_name("filename", filename)
        session = self._bucket.session_for(session)
        return Deferred.fromCoroutine(self._delete_by_name(filename, session, Times.begin(self._bucket.files, timing)))

    async def _delete_by_name(self, filename: str, session: Any, times: Times) -> None:
        files, chunks = self._bucket.files, self._bucket.chunks
        found = await files.find({"filename": filename}, {"_id": 1}, session=session, **times.left())
        if not found:
            raise NoFile(f"no file could be deleted because none is named {filename!r}")
        ids = {"$in": [document["_id"] for document in found]}
        await files.delete_many({"_id": ids}, session=session, **times.left())
        await chunks.delete_many({"files_id": ids}, session=session, **times.left())

    def rename(self, file_id: Any, new_filename: str, session: Any = None, **timing: Unpack[Timing]) -> Deferred[None]:
        """Give a file another name.

        :param file_id: its ``_id``.
        :param new_filename: the new name.
        :returns: a Deferred that fires with ``None``. It fails with :class:`NoFile` if there is no such file.
        :raises TypeError: ``new_filename`` is not a str.
        """
        _check_name("new_filename", new_filename)
        session = self._bucket.session_for(session)
        update = {"$set": {"filename": new_filename}}
        renamed = self._bucket.files.update_one({"_id": {"$eq": file_id}}, update, session=session, **timing)
        return renamed.addCallback(_renamed, f"no file could be renamed because none matched {file_id!r}")

    def rename_by_name(
        self, filename: str, new_filename: str, session: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[None]:
        """Give all files of a name another one.

        :param filename: the name.
        :param new_filename: the new name.
        :returns: a Deferred that fires with ``None``. It fails with :class:`NoFile` if there is none.
        :raises TypeError: an argument is not a str.
        """
        _check_name("filename", filename)
        _check_name("new_filename", new_filename)
        session = self._bucket.session_for(session)
        update = {"$set": {"filename": new_filename}}
        renamed = self._bucket.files.update_many({"filename": filename}, update, session=session, **timing)
        return renamed.addCallback(_renamed, f"no file could be renamed because none is named {filename!r}")

    def drop(self, session: Any = None, **timing: Unpack[Timing]) -> Deferred[None]:
        """Drop the bucket: both collections, with all files.

        :returns: a Deferred that fires with ``None``. It fails as every operation (see the class).
        """
        session = self._bucket.session_for(session)
        return Deferred.fromCoroutine(self._drop(session, Times.begin(self._bucket.files, timing)))

    async def _drop(self, session: Any, times: Times) -> None:
        self._bucket.indexes.ready = False
        await self._bucket.files.drop(session, **times.left())
        await self._bucket.chunks.drop(session, **times.left())


def _check_name(argument: str, name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a str, not {type(name).__name__}")


def _check_destination(destination: Any) -> None:
    if not hasattr(destination, "write"):
        raise TypeError(f"destination must have a method write, and a {type(destination).__name__} has none")


async def _copy(opening: Deferred[GridOut], destination: Any) -> None:
    """Write all of a file to ``destination``, chunk by chunk."""
    async with await opening as grid_out:
        while chunk := await grid_out.readchunk():
            written = destination.write(chunk)
            if isinstance(written, Awaitable):
                await written


def _renamed(result: Any, missing: str) -> None:
    if not result.matched_count:
        raise NoFile(missing)


def _nothing(_: Any) -> None:
    """For what says nothing when it is done."""
