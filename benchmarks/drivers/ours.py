"""This checkout."""

from __future__ import annotations

from typing import Any

from drivers.driver import Bucket
from drivers.twisted_driver import TwistedDriver, main
from txmongo.gridfs import GridFSBucket


class SpecifiedBucket(Bucket):
    """GridFS by the specification's interface, which has no MD5, as its peers."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket

    async def upload(self, name: str, content: bytes) -> Any:
        return await self._bucket.upload_from_stream(name, content)

    async def download(self, file_id: Any) -> bytes:
        stream = await self._bucket.open_download_stream(file_id)
        content: bytes = await stream.read()
        return content

    async def upload_from(self, name: str, source: Any) -> Any:
        return await self._bucket.upload_from_stream(name, source)

    async def download_to(self, file_id: Any, target: Any) -> None:
        await self._bucket.download_to_stream(file_id, target)


class Ours(TwistedDriver):
    """ConnectionPool as it is here."""

    async def open_cursor(self, collection: Any, batch_size: int) -> Any:
        cursor = collection.find({}, batch_size=batch_size)
        await cursor.__anext__()
        return cursor

    def bucket(self, database: Any) -> Bucket:
        return SpecifiedBucket(GridFSBucket(database))


if __name__ == "__main__":
    main(Ours)
