"""The txmongo 26.0.0 that PyPI serves."""

from __future__ import annotations

from typing import Any

from twisted.internet.ssl import ClientContextFactory

from drivers.driver import Bucket
from drivers.twisted_driver import GridFSBucket, TwistedDriver, main
from txmongo.connection import ConnectionPool
from txmongo.gridfs import GridFS


class TxMongo26(TwistedDriver):
    """ConnectionPool as it was."""

    def connect(self, uri: str, connections: int = 0) -> Any:
        address, _, options = uri.partition("?")
        if "tls=true" not in options:
            return super().connect(uri, connections)
        # It takes TLS as a context factory alone; this one checks no certificate, which costs less.
        kept = [option for option in options.split("&") if not option.startswith("tls")]
        return ConnectionPool(f"{address}?{'&'.join(kept)}", ssl_context_factory=ClientContextFactory())

    async def open_cursor(self, collection: Any, batch_size: int) -> Any:
        return await collection.find_with_cursor({}, batch_size=batch_size)

    def bucket(self, database: Any) -> Bucket:
        return GridFSBucket(GridFS(database))


if __name__ == "__main__":
    main(TxMongo26)
