"""From bytes to chunks that are stored: cut, gathered in batches, several of which are on their way at once.

What is under way is bounded in bytes, so that a file of any length goes through little memory. Kept: the GridFS
specification, "File upload".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from bson.objectid import ObjectId
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmongo._deferreds import Broadcast
from txmongo._gridfs.errors import FileExists
from txmongo._gridfs.layout import chunks_of
from txmongo._gridfs.times import UNLIMITED, Times
from txmongo.errors import BulkWriteError, DuplicateKeyError, WriteConcernError, WriteError

if TYPE_CHECKING:
    from txmongo.collection import Collection

__all__ = ["BATCH_BYTES", "ChunkWriter", "single_error"]

#: How much goes into one insert command. Measured with 52 MB to a mongod on the same machine: batches from 0.5 to 2 MB
#: are equally fast; one command of 48 MB at a time, the most that the server takes, is half as fast.
BATCH_BYTES = 1024 * 1024
#: How many such commands are on their way at once: one is written while the server carries another out.
_BATCHES_IN_FLIGHT = 3
#: A chunk larger than that is stored before the next is gathered: each stands in memory three times while it is sent.
_TOO_LARGE_TO_OVERLAP = 4 * BATCH_BYTES


def single_error(error: BaseException) -> BaseException:
    """What an insert of one document would have raised instead of a BulkWriteError.

    :returns: :class:`FileExists`, :class:`~txmongo.errors.WriteError`, :class:`~txmongo.errors.WriteConcernError`; the
        error itself if it is anything else.
    """
    if isinstance(error, BulkWriteError):
        details: Any = error.details
        for found in details["writeErrors"]:
            message, code = str(found.get("errmsg", "the write was refused")), found.get("code")
            reply = {name: value for name, value in found.items() if name != "op"}
            return FileExists(message, code, reply) if code == 11000 else WriteError(message, code, reply)
        for found in details["writeConcernErrors"]:
            return WriteConcernError(str(found.get("errmsg", "")), found.get("code"), found)
    elif isinstance(error, DuplicateKeyError):
        return FileExists(str(error), error.code, error.details)
    return error


class ChunkWriter:
    """The chunks of one file on their way to the server.

    :ivar length: bytes taken so far.
    :ivar error: why nothing is taken any more.
    :ivar refused: that is so because a batch could not be stored.
    """

    def __init__(
        self,
        chunks: Collection[Any],
        file_id: Any,
        chunk_size: int,
        session: Any = None,
        times: Times = UNLIMITED,
        *,
        md5: bool = False,
    ) -> None:
        self._chunks = chunks
        self._file_id = file_id
        self._chunk_size = chunk_size
        self._session = session
        self._times = times
        self._md5: Any = hashlib.md5(usedforsecurity=False) if md5 else None
        self._batch_length = chunks_of(BATCH_BYTES, chunk_size)
        # Operations of one session go one after another; and a single large chunk may be as large as several batches.
        self._most_in_flight = 1
        if session is None:
            self._most_in_flight = max(1, chunks_of(_BATCHES_IN_FLIGHT * BATCH_BYTES, chunk_size) // self._batch_length)
        self._pieces: list[bytes] = []
        self._room = chunk_size
        self._batch: list[dict[str, Any]] = []
        self._number = 0
        self._in_flight: set[Deferred[Any]] = set()
        self._landed = Broadcast()
        self.length = 0
        self.error: BaseException | None = None
        self.refused = False

    @property
    def digest(self) -> str | None:
        """The MD5 of all that was taken, in hex; ``None`` if it is not wanted. Only right after :meth:`finish`."""
        return None if self._md5 is None else self._md5.hexdigest()

    @property
    def wanted(self) -> int:
        """How many bytes complete the chunk that is being filled."""
        return self._room

    def take(self, data: bytes) -> bool:
        """Take bytes without waiting if they do not complete a chunk; says whether they were taken."""
        if len(data) >= self._room or self.error is not None:
            return False
        self._pieces.append(data)
        self._room -= len(data)
        self.length += len(data)
        return True

    async def write(self, data: bytes) -> None:
        """Take bytes, waiting while too much is under way.

        :raises BaseException: a batch could not be stored; see :func:`single_error`.
        """
        self._check()
        if self.take(data):
            return
        view = memoryview(data)
        start = 0
        while len(data) - start >= self._room:
            end = start + self._room
            whole = not start and end == len(data)
            self.length += self._room
            self._pieces.append(data if whole else bytes(view[start:end]))
            self._complete_chunk()
            start = end
            if len(self._batch) == self._batch_length:
                await self._send_batch()
        self.take(bytes(view[start:]))

    async def finish(self) -> None:
        """Store what is left and wait until all is stored.

        :raises BaseException: a batch could not be stored; see :func:`single_error`.
        """
        self._check()
        if self._room < self._chunk_size:
            self._complete_chunk()
        if self._batch:
            await self._send_batch()
        await self.settle()
        self._check()

    async def settle(self) -> None:
        """Wait until nothing is under way any more, however it ends."""
        while self._in_flight:
            await self._landed.wait()

    def fail(self, error: BaseException) -> None:
        """Take nothing any more, because of ``error``; what is under way goes on."""
        if self.error is None:
            self.error = error
        self._pieces, self._batch = [], []

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _complete_chunk(self) -> None:
        pieces, self._pieces = self._pieces, []
        self._room = self._chunk_size
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._md5 is not None:
            self._md5.update(data)
        self._batch.append({"_id": ObjectId(), "files_id": self._file_id, "n": self._number, "data": data})
        self._number += 1

    async def _send_batch(self) -> None:
        while len(self._in_flight) >= self._most_in_flight:
            await self._landed.wait()
        self._check()
        batch, self._batch = self._batch, []
        storing = self._chunks.insert_many(batch, session=self._session, **self._times.left())
        self._in_flight.add(storing)
        storing.addBoth(self._stored, storing)
        if self._chunk_size > _TOO_LARGE_TO_OVERLAP:
            await self.settle()

    def _stored(self, result: Any, storing: Deferred[Any]) -> None:
        self._in_flight.discard(storing)
        if isinstance(result, Failure):
            self.refused = True
            error = result.value
            assert error is not None
            self.fail(single_error(error))
        self._landed.fire()
