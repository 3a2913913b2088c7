"""GridIn: a file that is being written.

How its bytes get to the server is :mod:`txmongo._gridfs.upload`'s. Kept: the GridFS specification, "File upload".
"""

from __future__ import annotations

import datetime
import enum
import io
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from bson.int64 import Int64
from bson.objectid import ObjectId
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._gridfs.collections import BucketCollections
from txmongo._gridfs.layout import DEFAULT_CHUNK_SIZE, check_chunk_size
from txmongo._gridfs.sources import as_bytes, check_source, is_stream, read_from
from txmongo._gridfs.times import Times
from txmongo._gridfs.turns import Turns
from txmongo._gridfs.upload import ChunkWriter, single_error
from txmongo.errors import InvalidOperation

__all__ = ["GridIn", "store"]

_log = Logger(namespace="txmongo.gridfs")

_NO_TIMING: Mapping[str, Any] = {}

#: Other names of keywords.
_KEYWORDS = {"content_type": "contentType", "chunk_size": "chunkSize"}
#: Other names of attributes.
_ALIASES = {**_KEYWORDS, "upload_date": "uploadDate", "name": "filename"}
#: What only :meth:`GridIn.close` knows.
_AT_CLOSE = frozenset({"length", "upload_date", "md5"})
_READ_ONLY = frozenset({"_id", "chunkSize", "closed", "length", "uploadDate", "md5"})


class _State(enum.Enum):
    """The life of a file that is written; a close that fails leads back to OPEN."""

    OPEN = "written to"
    CLOSING = "being closed"
    CLOSED = "stored"
    ABORTED = "given up"


class GridIn:
    """A file that is being written. :meth:`GridFSBucket.open_upload_stream` and :meth:`GridFS.new_file` make it.

    Calls are carried out in the order in which they are made, awaited or not. Wait for :meth:`write` where much is
    written: it fires when there is room again for more.

    ``async with`` closes the file, or gives it up if the block raises. ``with`` closes it in any case, without waiting:
    ``yield grid_in.close()`` after it tells how that ended.

    With ``timeoutMS`` the time is for the file as a whole, from its making to the end of :meth:`close`. It does not end
    the wait for a source that is read from.

    What a keyword has given is an attribute too, and until the file is closed any other attribute that is set becomes a
    field of the file's document.

    :param root_collection: the bucket: the :class:`~txmongo.collection.Collection` of which ``files`` and ``chunks``
        are subcollections. Writes are acknowledged even if its write concern is not.
    :param session: a :class:`~txmongo.sessions.ClientSession` for all commands; they go one after another then.
    :param kwargs: fields of the file's document: ``_id``, by default a new :class:`~bson.objectid.ObjectId`;
        ``filename``; ``contentType`` or ``content_type``; ``chunkSize`` or ``chunk_size``, in bytes, by default 255
        KiB; ``aliases``; ``metadata``; any other. ``encoding`` is one as well, and allows to write :class:`str`. Not a
        field is ``disable_md5``: true to have no MD5 computed.
    :raises TypeError: an argument is not of its type.
    :raises ValueError: the chunk size is less than one byte.
    """

    # Set past __setattr__, to which everything else is a field of the document.
    _file: dict[str, Any]
    _bucket: BucketCollections
    _session: Any
    _encoding: str | None
    _state: _State
    _turns: Turns
    _times: Times
    _prepared: bool
    _writer: ChunkWriter

    def __init__(self, root_collection: Any, session: Any = None, **kwargs: Any) -> None:
        self._begin(BucketCollections.of(root_collection), session, kwargs, {})

    @classmethod
    def _in(
        cls, bucket: BucketCollections, session: Any, fields: dict[str, Any], timing: Mapping[str, Any] = _NO_TIMING
    ) -> Self:
        """A new file in a bucket whose indexes may have been looked at already."""
        grid_in = cls.__new__(cls)
        grid_in._begin(bucket, session, fields, timing)
        return grid_in

    def _begin(
        self, bucket: BucketCollections, session: Any, fields: dict[str, Any], timing: Mapping[str, Any]
    ) -> None:
        session = bucket.session_for(session)
        times = Times.begin(bucket.files, timing)
        md5 = not fields.pop("disable_md5", bucket.disable_md5)
        for alias, name in _KEYWORDS.items():
            if alias in fields:
                fields[name] = fields.pop(alias)
        document = {"_id": fields.pop("_id") if "_id" in fields else ObjectId(), **fields}
        document["chunkSize"] = check_chunk_size("chunk_size", fields.get("chunkSize", DEFAULT_CHUNK_SIZE))
        encoding = document.get("encoding")
        if encoding is not None and not isinstance(encoding, str):
            raise TypeError(f"encoding must be a str, not {type(encoding).__name__}")
        set_own = self.__dict__.update
        set_own(_file=document, _bucket=bucket, _session=session, _encoding=encoding, _state=_State.OPEN)
        set_own(_turns=Turns(), _times=times, _prepared=False)
        set_own(_writer=ChunkWriter(bucket.chunks, document["_id"], document["chunkSize"], session, times, md5=md5))

    # --- what it is ---

    def __getattr__(self, name: str) -> Any:
        """A field of the file's document."""
        if name in _AT_CLOSE:
            # The property has refused: what a keyword said of it is no answer either.
            raise AttributeError(f"can only get {name!r} on a closed file")
        file = self.__dict__.get("_file", {})
        if name in file:
            return file[name]
        raise AttributeError(f"GridIn object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field of the file's document; what Python itself stores begins with an underscore."""
        if name in self.__dict__:
            object.__setattr__(self, name, value)
            return
        field = _ALIASES.get(name, name)
        if field in _READ_ONLY:
            raise AttributeError(f"{name!r} of a GridIn is read-only")
        if self._state in (_State.CLOSED, _State.ABORTED):
            raise AttributeError(f"cannot set {name!r} on a closed file")
        self._file[field] = value

    def _at_close(self, field: str) -> Any:
        """A field that is known when the file was closed."""
        if self._state is not _State.CLOSED:
            raise AttributeError
        return self._file.get(field)

    @property
    def _id(self) -> Any:
        """The file's ``_id``. Read-only."""
        return self._file["_id"]

    @property
    def closed(self) -> bool:
        """Whether the file was closed: stored, or given up."""
        return self._state in (_State.CLOSED, _State.ABORTED)

    @property
    def filename(self) -> Any:
        """The file's name; can be set before :meth:`close`."""
        return self._file.get("filename")

    @property
    def name(self) -> Any:
        """The same as :attr:`filename`."""
        return self._file.get("filename")

    @property
    def content_type(self) -> Any:
        """The mime type of the content; can be set before :meth:`close`."""
        return self._file.get("contentType")

    @property
    def chunk_size(self) -> int:
        """The size of the file's chunks, in bytes. Read-only."""
        size: int = self._file["chunkSize"]
        return size

    @property
    def length(self) -> int:
        """The file's length in bytes. Read-only; :exc:`AttributeError` before the file is closed."""
        length: int = self._at_close("length")
        return length

    @property
    def upload_date(self) -> datetime.datetime:
        """When the file was closed, in UTC. Read-only; :exc:`AttributeError` before the file is closed."""
        date: datetime.datetime = self._at_close("uploadDate")
        return date

    @property
    def md5(self) -> str | None:
        """The MD5 of the content in hex, computed while writing; ``None`` with ``disable_md5``. Read-only.

        :exc:`AttributeError` before the file is closed.
        """
        digest: str | None = self._at_close("md5")
        return digest

    def __repr__(self) -> str:
        return f"<GridIn {self._id!r}: {self._writer.length} bytes taken, {self._state.value}>"

    def readable(self) -> bool:
        """False: it can only be written to."""
        return False

    def seekable(self) -> bool:
        """False: it is written from its start to its end."""
        return False

    def writeable(self) -> bool:
        """True. The name is PyMongo's."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> NoReturn:
        """Refused.

        :param size: whatever it is.
        :raises OSError: always: a file that is being written cannot be read from. It is an ``io.UnsupportedOperation``,
            which is a :class:`ValueError` too.
        """
        raise io.UnsupportedOperation("a file that is being written cannot be read from")

    def set(self, name: str, value: Any) -> Deferred[None]:
        """Set a field of the file's document, also after :meth:`close`.

        :param name: its name, or that of the attribute which shows it.
        :param value: its new value: anything that BSON can hold.
        :returns: a Deferred that fires with ``None``, for a closed file when the document was updated. It fails as
            every operation of a :class:`~txmongo.collection.Collection`.
        :raises AttributeError: it is read-only.
        """
        if not self.closed:
            setattr(self, name, value)
            return succeed(None)
        field = _ALIASES.get(name, name)
        if field in _READ_ONLY:
            raise AttributeError(f"{name!r} of a GridIn is read-only")
        update = {"$set": {field: value}}
        updated = self._bucket.files.update_one({"_id": {"$eq": self._id}}, update, session=self._session)
        return updated.addCallback(lambda _: self._file.__setitem__(field, value))

    # --- writing ---

    def write(self, data: Any) -> Deferred[None]:
        """Write to the file.

        :param data: bytes; or a str if the file has an ``encoding``; or anything with a method ``read(size)`` that
            gives such, or a Deferred of such, and something empty at its end. It is read to its end and not closed.
        :returns: a Deferred that fires with ``None`` when there is room for more; what was written before is stored
            while the application goes on. It fails if the server refuses a chunk:
            :class:`~txmongo._gridfs.errors.FileExists` if there is a file with this ``_id``, else as every write of a
            :class:`~txmongo.collection.Collection`; then every later write fails so too, and so does :meth:`close`. If
            reading ``data`` fails the file is given up, as by :meth:`abort`, and the Deferred fails with that error. A
            write that is cancelled leaves a file that can only be given up.
        :raises TypeError: ``data`` is something else.
        :raises ValueError: the file is closed.
        """
        self._check_open()
        check_source(data, self._encoding)
        if is_stream(data):
            return self._turns.take(self._write_stream, data).addErrback(self._not_written)
        content = as_bytes(data, self._encoding)
        if self._turns.free and self._writer.take(content):
            return succeed(None)
        return self._turns.take(self._write, content).addErrback(self._not_written)

    def writelines(self, sequence: Iterable[Any]) -> Deferred[None]:
        """Write all of a sequence, without separators.

        :param sequence: of what :meth:`write` takes.
        :returns: a Deferred that fires with ``None`` and fails as that of :meth:`write`.
        :raises TypeError: it is no sequence.
        :raises ValueError: the file is closed.
        """
        self._check_open()
        return self._turns.take(self._write_lines, iter(sequence)).addErrback(self._not_written)

    async def _write_lines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            check_source(line, self._encoding)
            if is_stream(line):
                await self._write_stream(line)
            else:
                await self._write(as_bytes(line, self._encoding))

    async def _write(self, content: bytes) -> None:
        await self._prepare()
        await self._writer.write(content)

    def _not_written(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            self._writer.fail(InvalidOperation("a write was cancelled: the file is not complete"))
        return failure

    async def _write_stream(self, stream: Any) -> None:
        try:
            while True:
                content = await read_from(stream, self._writer.wanted, self._encoding)
                if not content:
                    return
                await self._write(content)
        except Exception as error:
            await self._give_up_because(error)
            raise

    async def _prepare(self) -> None:
        """See that the bucket has its indexes, before the first write."""
        if not self._prepared:
            await self._bucket.indexes.ensure(self._session, self._times)
            self._prepared = True

    def _check_open(self) -> None:
        if self._state is not _State.OPEN:
            raise ValueError("cannot write to a closed file")

    # --- the end ---

    def close(self) -> Deferred[None]:
        """Store what is left and the file's document, without which there is no file. Closing again does no harm.

        :returns: a Deferred that fires with ``None`` when the file is stored. It fails as that of :meth:`write`; the
            file is not closed then.
        """
        if self.closed:
            return succeed(None)
        self._state = _State.CLOSING
        return self._turns.take(self._close)

    async def _close(self) -> None:
        if self.closed:
            return
        try:
            await self._prepare()
            await self._writer.finish()
            await self._store_document()
        except BaseException:
            if not self.closed:
                self._state = _State.OPEN
            raise
        self._state = _State.CLOSED

    async def _store_document(self) -> None:
        self._file["length"] = Int64(self._writer.length)
        self._file["uploadDate"] = datetime.datetime.now(tz=datetime.UTC)
        self._file.pop("md5", None)
        digest = self._writer.digest
        if digest is not None:
            self._file["md5"] = digest
        try:
            await self._bucket.files.insert_one(self._file, session=self._session, **self._times.left())
        except Exception as error:
            raise single_error(error) from None

    def abort(self) -> Deferred[None]:
        """Give the file up: what was stored of it is deleted, and nothing can be written any more.

        :returns: a Deferred that fires with ``None`` when it is deleted; it fails as every write of a
            :class:`~txmongo.collection.Collection`. Of a file that is closed nothing is deleted.
        """
        if self.closed:
            return succeed(None)
        return self._turns.take(self._abort)

    async def _abort(self) -> None:
        if self.closed:
            return
        self._state = _State.ABORTED
        self._writer.fail(InvalidOperation("the file was given up by abort()"))
        await self._writer.settle()
        if self._prepared:
            query = {"files_id": {"$eq": self._id}}
            await self._bucket.chunks.delete_many(query, session=self._session, **self._times.left())

    async def _give_up_because(self, error: BaseException) -> None:
        """Abort; what goes wrong with that is less than what went wrong before.

        Once the server has refused a chunk nothing is deleted: most likely it would refuse that too.
        """
        if self._writer.refused:
            self._state = _State.ABORTED
            return
        aborting = Deferred.fromCoroutine(self._abort())
        aborting.addErrback(lambda failure: _log.warn("chunks of a file are left: {error}", error=failure.value))
        if not isinstance(error, CancelledError):
            await aborting

    async def __aenter__(self) -> Self:
        """Use the file until the end of the block, which closes it, or gives it up if it raises."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._turns.take(self._give_up_because, error)

    def __enter__(self) -> Self:
        """Use the file until the end of the block, which closes it without waiting, as in TxMongo 15.2."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def store(grid_in: GridIn, data: Any) -> Any:
    """Write all of a file; the outcome is its ``_id``."""
    async with grid_in:
        await grid_in.write(data)
    return grid_in._id
