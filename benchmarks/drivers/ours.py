"""This checkout."""

from __future__ import annotations

from typing import Any

from drivers.driver import Bucket, Unsupported
from drivers.twisted_driver import GridFSBucket, TwistedDriver, main

try:
    from txmongo.gridfs import GridFS
except ImportError:
    GridFS = None


class Ours(TwistedDriver):
    """ConnectionPool as it is here."""

    async def open_cursor(self, collection: Any, batch_size: int) -> Any:
        cursor = collection.find({}, batch_size=batch_size)
        await cursor.__anext__()
        return cursor

    def bucket(self, database: Any) -> Bucket:
        if GridFS is None:
            raise Unsupported("GridFS is still to come")
        return GridFSBucket(GridFS(database))


if __name__ == "__main__":
    main(Ours)
