"""What the drivers on asyncio have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from drivers import scripts
from drivers.driver import Bucket, Driver, failure, ready, requests, respond


class AsyncioBucket(Bucket):
    """GridFS by the specification's interface, as coroutines."""

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


class AsyncioDriver(Driver):
    """A driver whose calls are coroutines or futures of asyncio."""

    bucket_class: Any

    def find_all(self, collection: Any, query: dict[str, Any]) -> Awaitable[list[Any]]:
        result: Awaitable[list[Any]] = collection.find(query).to_list(None)
        return result

    async def open_cursor(self, collection: Any, batch_size: int) -> Any:
        cursor = collection.find({}, batch_size=batch_size)
        await cursor.__anext__()
        return cursor

    def bucket(self, database: Any) -> Bucket:
        return AsyncioBucket(self.bucket_class(database))

    async def gather(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        return list(await asyncio.gather(*works))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def start(self, awaitable: Awaitable[Any]) -> Any:
        future = asyncio.ensure_future(awaitable)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def serve(self) -> None:
        """Serve the parent until standard input ends."""
        respond(ready())
        lines = requests()
        while (request := await asyncio.to_thread(next, lines, None)) is not None:
            try:
                answer = await scripts.run(self, request)
            except Exception as error:
                answer = failure(error)
            respond(answer)
        await self.close_all()
