"""What the scripts need of a driver, and the conversation with the parent process.

:mod:`drivers.scripts` is written once, as coroutines, for drivers that block, drivers on asyncio and drivers on
Twisted. What differs between them is a subclass of :class:`Driver` each.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Awaitable, Coroutine, Iterator
from importlib import metadata
from typing import Any

from pymongo import InsertOne


class Unsupported(Exception):
    """The driver cannot do this; its text says why."""


class Driver:
    """A driver with PyMongo's names whose calls return what can be awaited.

    :ivar threads: an operation in flight takes a thread.
    """

    threads = False

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}

    # --- clients ---

    def connect(self, uri: str, connections: int = 0) -> Any:
        """A new client; with ``connections``, one that opens so many and keeps them."""
        raise NotImplementedError

    async def close(self, client: Any) -> None:
        """Close a client."""
        raise NotImplementedError

    def client(self, uri: str) -> Any:
        """The client for a connection string, which stays open."""
        if uri not in self._clients:
            self._clients[uri] = self.connect(uri)
        return self._clients[uri]

    async def close_all(self) -> None:
        """Close those that stayed open."""
        for client in self._clients.values():
            await self.close(client)

    # --- calls ---

    def find_one(self, collection: Any, query: dict[str, Any]) -> Awaitable[Any]:
        """Start a find_one."""
        result: Awaitable[Any] = collection.find_one(query)
        return result

    def insert_one(self, collection: Any, document: dict[str, Any]) -> Awaitable[Any]:
        """Start an insert_one."""
        result: Awaitable[Any] = collection.insert_one(document)
        return result

    def insert_many(self, collection: Any, documents: list[Any], ordered: bool = True) -> Awaitable[Any]:
        """Start an insert_many."""
        result: Awaitable[Any] = collection.insert_many(documents, ordered=ordered)
        return result

    def find_all(self, collection: Any, query: dict[str, Any]) -> Awaitable[list[Any]]:
        """Start a find and collect all it finds."""
        raise NotImplementedError

    async def open_cursor(self, collection: Any, batch_size: int) -> Any:
        """A cursor that has fetched its first batch and is still open on the server."""
        raise NotImplementedError

    def bulk_write(self, collection: Any, requests: list[Any]) -> Awaitable[Any]:
        """Start an ordered bulk write."""
        result: Awaitable[Any] = collection.bulk_write(requests)
        return result

    def command(self, database: Any, name: str, value: Any = 1, **fields: Any) -> Awaitable[Any]:
        """Start a command."""
        result: Awaitable[Any] = database.command(name, value, **fields)
        return result

    def bucket(self, database: Any) -> Bucket:
        """GridFS in this database."""
        raise NotImplementedError

    def insert_model(self, document: dict[str, Any]) -> Any:
        """An insert as a part of a bulk write."""
        return InsertOne(document)

    # --- doing several things at once ---

    async def gather(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        """Do all of this at once."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        raise NotImplementedError

    def start(self, awaitable: Awaitable[Any]) -> Any:
        """Let a call run by itself; the result has a ``cancel()``, and nobody asks how it ended."""
        raise NotImplementedError


class Bucket:
    """GridFS: files in and out."""

    async def upload(self, name: str, content: bytes) -> Any:
        """Write a file from memory; returns its id."""
        raise NotImplementedError

    async def download(self, file_id: Any) -> bytes:
        """Read a file into memory."""
        raise NotImplementedError

    async def upload_from(self, name: str, source: Any) -> Any:
        """Write a file from an open one, without having all of it in memory; returns its id."""
        raise NotImplementedError

    async def download_to(self, file_id: Any, target: Any) -> None:
        """Read a file into an open one, without having all of it in memory."""
        raise NotImplementedError


def ready() -> dict[str, Any]:
    """The first thing that the parent is told: with which versions it talks."""
    names = ("pymongo", "motor", "twisted", "txmongo")
    versions = {name: distribution.version for name in names for distribution in metadata.distributions(name=name)}
    return {"versions": versions}


def requests() -> Iterator[dict[str, Any]]:
    """The parent's requests, one JSON document a line."""
    for line in sys.stdin:
        yield json.loads(line)


def respond(answer: dict[str, Any]) -> None:
    """Answer the parent."""
    print(json.dumps(answer), flush=True)


def failure(error: Exception) -> dict[str, Any]:
    """What the parent is told when a script failed."""
    if isinstance(error, Unsupported):
        return {"unsupported": str(error)}
    traceback.print_exc()
    return {"error": f"{type(error).__name__}: {error}"[:300]}
