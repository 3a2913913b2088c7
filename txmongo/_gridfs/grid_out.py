"""GridOut: a stored file that is being read, and the iterator over its chunks.

How its bytes come from the server is :mod:`txmongo._gridfs.download`'s. Kept: the GridFS specification, "File download"
and "Partial file retrieval".
"""

from __future__ import annotations

import datetime
import io
import os
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from twisted.internet.defer import CancelledError, Deferred, succeed

from txmongo._gridfs.collections import BucketCollections
from txmongo._gridfs.download import ChunkReader
from txmongo._gridfs.errors import NoFile
from txmongo._gridfs.layout import Layout, position_after_seek
from txmongo._gridfs.times import Times
from txmongo._gridfs.turns import Turns
from txmongo.collection import Collection
from txmongo.errors import InvalidOperation

__all__ = ["GridOut", "GridOutIterator"]

_NOWHERE = -1
#: Bytes for which room is made before they have come; a file's document may claim any length.
_ROOM_AT_ONCE = 64 * 1024 * 1024


class GridOut:
    """A stored file, for reading. :class:`GridFSBucket` and :class:`GridFS` make it.

    Calls are carried out in the order in which they are made, awaited or not. ``async for`` gives the lines that are
    left; ``async with`` closes the file at its end; ``iter()`` gives a :class:`GridOutIterator` over the chunks.

    With ``timeoutMS`` the time is for the file as a whole, from the call that has opened it to its last read.

    Every field of the file's document is an attribute, and each is read-only.

    :param root_collection: the bucket: the :class:`~txmongo.collection.Collection` of which ``files`` and ``chunks``
        are subcollections.
    :param doc: the file's document; anything but a mapping is taken for ``file_id``, PyMongo's second argument.
    :param file_id: the file's ``_id``, instead of its document; wait for :meth:`open` then.
    :param file_document: the same as ``doc``; PyMongo's name.
    :param session: a :class:`~txmongo.sessions.ClientSession` for all commands.
    :raises TypeError: an argument is not of its type.
    """

    def __init__(
        self,
        root_collection: Any,
        doc: Mapping[str, Any] | None = None,
        file_id: Any = None,
        file_document: Mapping[str, Any] | None = None,
        session: Any = None,
    ) -> None:
        if doc is not None and file_id is None and not isinstance(doc, Mapping):
            # PyMongo's second argument.
            doc, file_id = None, doc
        document = file_document if doc is None else doc
        if document is not None and not isinstance(document, Mapping):
            name = "file_document" if doc is None else "doc"
            raise TypeError(f"{name} must be a mapping, not {type(document).__name__}")
        bucket = BucketCollections.of(root_collection)
        self._begin(bucket, document, file_id, session, Times.begin(bucket.files, {}))

    @classmethod
    def _in(cls, bucket: BucketCollections, document: Any, session: Any = None, times: Times | None = None) -> Self:
        """A file of a bucket whose document was found.

        :param times: of the call that has found it, which is that of the file too.
        """
        grid_out = cls.__new__(cls)
        grid_out._begin(bucket, document, None, session, times or Times.begin(bucket.files, {}))
        return grid_out

    def _begin(self, bucket: BucketCollections, document: Any, file_id: Any, session: Any, times: Times) -> None:
        session = bucket.session_for(session)
        self._bucket = bucket
        self._file: Any = document
        self._file_id = file_id
        self._session = session
        self._times = times
        self._turns = Turns()
        self._position = 0
        self._layout: Layout | None = None
        self._reader: ChunkReader | None = None
        self._chunk = b""
        self._chunk_start = _NOWHERE
        self._closed = False

    def open(self) -> Deferred[None]:
        """Fetch the file's document, if this object was made from an ``_id``.

        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo._gridfs.errors.NoFile` if there is
            no such file, and as every operation of a :class:`~txmongo.collection.Collection`.
        """
        return self._turns.take(self._open)

    async def _open(self) -> None:
        if self._file is None:
            query = {"_id": {"$eq": self._file_id}}
            document = await self._bucket.files.find_one(query, session=self._session, **self._times.left())
            if document is None:
                raise NoFile(f"no file in gridfs with _id {self._file_id!r}")
            self._file = document

    # --- what it is ---

    def _field(self, name: str) -> Any:
        if self._file is None:
            raise InvalidOperation("the file's document is not there yet: wait for open()")
        return self._file.get(name)

    def __getattr__(self, name: str) -> Any:
        """A field of the file's document."""
        file = self.__dict__.get("_file")
        if file is not None and name in file:
            return file[name]
        raise AttributeError(f"GridOut object has no attribute {name!r}")

    @property
    def _id(self) -> Any:
        """The file's ``_id``."""
        return self._file_id if self._file is None else self._file.get("_id")

    @property
    def filename(self) -> Any:
        """The file's name."""
        return self._field("filename")

    @property
    def name(self) -> Any:
        """The file's name."""
        return self._field("filename")

    @property
    def content_type(self) -> Any:
        """The mime type of the content."""
        return self._field("contentType")

    @property
    def length(self) -> int:
        """The file's length in bytes."""
        length: int = self._field("length")
        return length

    @property
    def chunk_size(self) -> int:
        """The size of the file's chunks, in bytes."""
        size: int = self._field("chunkSize")
        return size

    @property
    def upload_date(self) -> datetime.datetime:
        """When the file was stored."""
        date: datetime.datetime = self._field("uploadDate")
        return date

    @property
    def aliases(self) -> Any:
        """The list of aliases that the file was stored with, or ``None``."""
        return self._field("aliases")

    @property
    def metadata(self) -> Any:
        """What the application stored with the file, or ``None``."""
        return self._field("metadata")

    @property
    def md5(self) -> str | None:
        """The MD5 of the content in hex, if the file was stored with one."""
        digest: str | None = self._field("md5")
        return digest

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def __repr__(self) -> str:
        # What TxMongo has always shown: the document.
        return str(self._file)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """False: a stored file cannot be changed."""
        return False

    def write(self, value: Any) -> NoReturn:
        """Refused.

        :param value: whatever it is.
        :raises OSError: always: a stored file cannot be changed. It is an ``io.UnsupportedOperation``, which is a
            :class:`ValueError` too.
        """
        raise io.UnsupportedOperation("a stored file cannot be written to")

    def writelines(self, lines: Any) -> NoReturn:
        """Refused, as :meth:`write`.

        :param lines: whatever they are.
        :raises OSError: always.
        """
        raise io.UnsupportedOperation("a stored file cannot be written to")

    def truncate(self, size: int | None = None) -> NoReturn:
        """Refused, as :meth:`write`.

        :param size: whatever it is.
        :raises OSError: always.
        """
        raise io.UnsupportedOperation("a stored file cannot be truncated")

    def fileno(self) -> NoReturn:
        """Refused.

        :raises OSError: always: a stored file is none of the operating system's.
        """
        raise io.UnsupportedOperation("a stored file has no file descriptor")

    def isatty(self) -> bool:
        """False."""
        return False

    def flush(self) -> None:
        """Nothing: a stored file is not written to."""

    # --- reading ---

    def read(self, size: int = -1) -> Deferred[bytes]:
        """Read from where the last call ended.

        :param size: how many bytes at most; all that are left if it is negative.
        :returns: a Deferred that fires with the bytes; with none at the end of the file. It fails with
            :class:`~txmongo._gridfs.errors.CorruptGridFile` if a chunk is missing or wrong, and as every read of a
            :class:`~txmongo.collection.Collection`; the position stays as it was then, and the next call tries again.
        :raises TypeError: ``size`` is not an int.
        :raises ValueError: the file is closed.
        """
        self._check_open(size)
        if self._turns.free and size >= 0:
            offset = self._position - self._chunk_start
            if self._chunk_start >= 0 and offset >= 0 and offset + size < len(self._chunk):
                self._position += size
                return succeed(self._chunk[offset : offset + size])
        return self._turns.take(self._read, size)

    def readchunk(self) -> Deferred[bytes]:
        """Read what is left of the chunk in which the position is: without copying it, if that is all of it.

        :returns: a Deferred that fires with the bytes, and fails as that of :meth:`read`.
        :raises ValueError: the file is closed.
        """
        self._check_open()
        return self._turns.take(self._read_chunk)

    def readline(self, size: int = -1) -> Deferred[bytes]:
        """Read up to the next ``b"\\\\n"``, which is part of the result.

        :param size: how many bytes at most; any number if it is negative.
        :returns: a Deferred that fires with the bytes, and fails as that of :meth:`read`.
        :raises TypeError: ``size`` is not an int.
        :raises ValueError: the file is closed.
        """
        self._check_open(size)
        return self._turns.take(self._read_line, size)

    def readlines(self, size: int = -1) -> Deferred[list[bytes]]:
        """Read lines.

        :param size: no further line is read once they have so many bytes; all if it is negative.
        :returns: a Deferred that fires with the list of lines, and fails as that of :meth:`read`.
        :raises TypeError: ``size`` is not an int.
        :raises ValueError: the file is closed.
        """
        self._check_open(size)
        return self._turns.take(self._read_lines, size)

    def to_list(self) -> Deferred[list[bytes]]:
        """Read the lines that are left.

        :returns: a Deferred that fires with the list of lines, and fails as that of :meth:`read`.
        :raises ValueError: the file is closed.
        """
        return self.readlines()

    def __aiter__(self) -> Self:
        """The lines that are left."""
        return self

    async def __anext__(self) -> bytes:
        """The next line."""
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def __iter__(self) -> GridOutIterator:
        """The chunks of the whole file, as Deferreds."""
        return GridOutIterator(self, self._bucket.chunks)

    def seek(self, pos: int, whence: int = os.SEEK_SET) -> Deferred[int]:
        """Go to a position.

        :param pos: where, in bytes; relative to what ``whence`` says. It may be behind the end, where nothing is read.
        :param whence: ``os.SEEK_SET`` for the start, ``os.SEEK_CUR`` for the current position,
            ``os.SEEK_END`` for the end of the file.
        :returns: a Deferred that fires with the new position: at once, unless a read is under way. Behind a read, where
            what comes of ``os.SEEK_CUR`` is not known yet, it fails with ``OSError`` if the position would be before
            the start.
        :raises TypeError: ``pos`` is not an int.
        :raises OSError: the position would be before the start, or ``whence`` is none of the three.
        :raises ValueError: the file is closed.
        """
        self._check_open(pos, "pos")
        if self._turns.free:
            self._position = position_after_seek(self._position, int(self._field("length") or 0), pos, whence)
            return succeed(self._position)
        if whence != os.SEEK_CUR:
            position_after_seek(0, int(self._field("length") or 0), pos, whence)
        return self._turns.take(self._seek, pos, whence)

    def tell(self) -> int:
        """The position from which :meth:`read` goes on; while one is under way, that from which it began."""
        return self._position

    def close(self) -> Deferred[None]:
        """Close the file: what is under way ends with ``CancelledError``, and the server closes its cursor.

        :returns: a Deferred that fires with ``None`` when it has; it never fails.
        """
        self._closed = True
        self._chunk, self._chunk_start = b"", _NOWHERE
        return succeed(None) if self._reader is None else self._reader.close()

    async def __aenter__(self) -> Self:
        """Use the file until the end of the block, which closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> Self:
        """Use the file until the end of the block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self, size: int = 0, argument: str = "size") -> None:
        if not isinstance(size, int):
            raise TypeError(f"{argument} must be an int, not {type(size).__name__}")
        if self._closed:
            raise ValueError("cannot read from a closed file")

    # --- in turn ---

    async def _seek(self, pos: int, whence: int) -> int:
        self._position = position_after_seek(self._position, int(self._field("length") or 0), pos, whence)
        return self._position

    async def _laid_out(self) -> Layout:
        """How the file lies in its chunks."""
        if self._layout is None:
            await self._open()
            self._layout = Layout.of(self._file)
        return self._layout

    async def _read(self, size: int) -> bytes:
        layout = await self._laid_out()
        position = self._position
        end = layout.length if size < 0 else min(layout.length, position + size)
        # Chunks are copied one by one as they come: a list of them would take the memory of the result once more.
        gathered: io.BytesIO | None = None
        piece = b""
        while position < end:
            piece = await self._from_chunk(position, end)
            position += len(piece)
            if gathered is None and position < end:
                # Room for the rest is made at once: growing would copy it again and again.
                gathered = io.BytesIO(bytes(min(end - position + len(piece), _ROOM_AT_ONCE)))
            if gathered is not None:
                gathered.write(piece)
        self._position = max(position, self._position)
        return piece if gathered is None else gathered.getvalue()

    async def _read_chunk(self) -> bytes:
        layout = await self._laid_out()
        if self._position >= layout.length:
            return b""
        piece = await self._from_chunk(self._position, layout.length)
        self._position += len(piece)
        return piece

    async def _read_line(self, size: int) -> bytes:
        layout = await self._laid_out()
        position = self._position
        end = layout.length if size < 0 else min(layout.length, position + size)
        pieces: list[bytes] = []
        while position < end:
            await self._need(position)
            offset = position - self._chunk_start
            stop = min(len(self._chunk), end - self._chunk_start)
            found = self._chunk.find(b"\n", offset, stop)
            pieces.append(self._chunk[offset : stop if found < 0 else found + 1])
            position += len(pieces[-1])
            if found >= 0:
                break
        self._position = max(position, self._position)
        return b"".join(pieces)

    async def _read_lines(self, size: int) -> list[bytes]:
        lines: list[bytes] = []
        total = 0
        while size < 0 or total < size:
            line = await self._read_line(-1)
            if not line:
                break
            lines.append(line)
            total += len(line)
        return lines

    async def _from_chunk(self, position: int, end: int) -> bytes:
        """The bytes from ``position`` to ``end``, or to the end of the chunk if that comes first."""
        await self._need(position)
        return self._chunk[position - self._chunk_start : end - self._chunk_start]

    async def _need(self, position: int) -> None:
        """See that the chunk with the byte at ``position`` is at hand."""
        start = self._chunk_start
        if start >= 0 and start <= position < start + len(self._chunk):
            return
        layout = await self._laid_out()
        reader = self._reader
        if reader is None:
            reader = ChunkReader(self._bucket.chunks, self._id, layout, self._session, self._times)
            if self._closed:
                raise CancelledError
            self._reader = reader
        number = layout.number_at(position)
        if reader.number != number:
            reader.go_to(number)
        # The old one is not needed any more, and memory is bounded.
        self._chunk, self._chunk_start = b"", _NOWHERE
        chunk = await reader.next()
        if number == layout.chunks - 1:
            await reader.check_end()
        self._chunk, self._chunk_start = chunk, layout.start_of(number)


class GridOutIterator:
    """The chunks of a file from the first to the last, each as a Deferred of bytes.

    ``next()`` and :meth:`next` give one more Deferred after the last chunk, which fires with ``None``: what programs
    written for TxMongo wait for. After that ``for`` ends. ``async for`` gives the bytes themselves, and no ``None``.

    :param grid_out: the :class:`GridOut`; its position has no part in this.
    :param chunks: the collection with the chunks.
    :raises TypeError: an argument is not of its type.
    """

    def __init__(self, grid_out: GridOut, chunks: Collection[Any]) -> None:
        if not isinstance(grid_out, GridOut):
            raise TypeError(f"grid_out must be a GridOut, not {type(grid_out).__name__}")
        if not isinstance(chunks, Collection):
            raise TypeError(f"chunks must be a Collection, not {type(chunks).__name__}")
        self._layout = Layout.of(grid_out._file or {})
        self._reader = ChunkReader(_plain(chunks), grid_out._id, self._layout, grid_out._session, grid_out._times)
        self._turns = Turns()
        self._asked = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Deferred[bytes | None]:
        """The next chunk.

        :raises StopIteration: the ``None`` after the last one was asked for already.
        """
        if self._asked > self._layout.chunks:
            raise StopIteration
        self._asked += 1
        return self.next()

    def next(self) -> Deferred[bytes | None]:
        """Read the next chunk.

        :returns: a Deferred that fires with its bytes; with ``None`` after the last one. It fails as that of
            :meth:`GridOut.read`.
        """
        return self._turns.take(self._next)

    async def _next(self) -> bytes | None:
        if self._reader.number >= self._layout.chunks:
            return None
        chunk = await self._reader.next()
        if self._reader.number == self._layout.chunks:
            await self._reader.check_end()
        return chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks themselves."""
        while (chunk := await self.next()) is not None:
            yield chunk

    def close(self) -> Deferred[None]:
        """Read no more; the server closes its cursor.

        :returns: a Deferred that fires with ``None`` when it has; it never fails.
        """
        return self._reader.close()


def _plain(chunks: Collection[Any]) -> Collection[Any]:
    """A collection whose documents are dicts, whatever the application wants its own to be."""
    return chunks.with_options(chunks.codec_options.with_options(document_class=dict, type_registry=None))
