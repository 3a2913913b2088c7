"""Motor on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorGridFSBucket

from drivers.asyncio_driver import AsyncioDriver


class Motor(AsyncioDriver):
    """AsyncIOMotorClient."""

    bucket_class = AsyncIOMotorGridFSBucket

    def connect(self, uri: str, connections: int = 0) -> Any:
        return AsyncIOMotorClient(uri, minPoolSize=connections) if connections else AsyncIOMotorClient(uri)

    async def close(self, client: Any) -> None:
        client.close()


if __name__ == "__main__":
    asyncio.run(Motor().serve())
