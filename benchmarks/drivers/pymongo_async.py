"""PyMongo's AsyncMongoClient."""

from __future__ import annotations

import asyncio
from typing import Any

from gridfs.asynchronous import AsyncGridFSBucket
from pymongo import AsyncMongoClient

from drivers.asyncio_driver import AsyncioDriver


class PyMongoAsync(AsyncioDriver):
    """AsyncMongoClient."""

    bucket_class = AsyncGridFSBucket

    def connect(self, uri: str, connections: int = 0) -> Any:
        return AsyncMongoClient(uri, minPoolSize=connections) if connections else AsyncMongoClient(uri)

    async def close(self, client: Any) -> None:
        await client.close()


if __name__ == "__main__":
    asyncio.run(PyMongoAsync().serve())
