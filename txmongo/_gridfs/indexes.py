"""The two indexes that every bucket needs, made before the first write to one that is empty.

Kept: the GridFS specification, "Indexes".
"""

from __future__ import annotations

from typing import Any

from pymongo.read_preferences import ReadPreference
from twisted.internet.defer import Deferred

from txmongo._gridfs.times import UNLIMITED, Times
from txmongo._gridfs.turns import Turns
from txmongo.collection import Collection

__all__ = ["CHUNKS_INDEX", "FILES_INDEX", "BucketIndexes", "has_index"]

FILES_INDEX = [("filename", 1), ("uploadDate", 1)]
CHUNKS_INDEX = [("files_id", 1), ("n", 1)]


def has_index(descriptions: list[Any], keys: list[tuple[str, int]]) -> bool:
    """Whether there is an index with such keys; numbers are compared by value, whatever their type."""
    return any(list(description["key"].items()) == keys for description in descriptions)


class BucketIndexes:
    """The indexes of one bucket, for all that is written through one object.

    However many writes begin at once, one of them looks and the others wait. One that fails does not count: the next
    write tries again.
    """

    def __init__(self, files: Collection[Any], chunks: Collection[Any]) -> None:
        self._files = files.with_options(read_preference=ReadPreference.PRIMARY)
        self._chunks = chunks
        self._turns = Turns()
        self.ready = False

    def ensure(self, session: Any = None, times: Times = UNLIMITED) -> Deferred[None]:
        """Make the indexes if the bucket is empty and they are not there.

        :param times: of whoever is about to write.
        :returns: a Deferred that fires with ``None``; it fails as the commands that this takes.
        """
        return self._turns.take(self._ensure, session, times)

    async def _ensure(self, session: Any, times: Times) -> None:
        if self.ready:
            return
        if await self._files.find_one({}, {"_id": 1}, session=session, **times.left()) is None:
            await self._make(self._files, FILES_INDEX, session, times)
            await self._make(self._chunks, CHUNKS_INDEX, session, times, unique=True)
        self.ready = True

    async def _make(self, collection: Collection[Any], keys: Any, session: Any, times: Times, **options: Any) -> None:
        if not has_index(await collection.list_indexes(session, **times.left()), keys):
            await collection.create_index(keys, session, **options, **times.left())
