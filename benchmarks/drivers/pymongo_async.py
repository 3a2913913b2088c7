"""PyMongo's AsyncMongoClient."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pymongo import AsyncMongoClient
from workloads import (
    DATABASE,
    MANY,
    MANY_COLLECTION,
    READ_COLLECTION,
    WRITE_COLLECTION,
    small_document,
)

from drivers.loop import Measurement, requests, respond, worker


class AsyncCalls:
    """The calls of a task on an open client."""

    def __init__(self, client: Any) -> None:
        database = client[DATABASE]
        self._documents = database[READ_COLLECTION]
        self._many = database[MANY_COLLECTION]
        self._written = database[WRITE_COLLECTION]

    def call(self, kind: str, number: int) -> Any:
        """Start one call."""
        if kind == "find_one":
            return self._documents.find_one({"_id": number % 1000})
        if kind == "insert_one":
            return self._written.insert_one(small_document(number))
        if kind == "find_many":
            return self._many.find({}).to_list()
        return self._written.insert_many([small_document(n) for n in range(MANY)])


async def main(uri: str) -> None:
    """Serve the parent until standard input ends."""
    client: Any = AsyncMongoClient(uri)
    calls = AsyncCalls(client)
    await calls.call("find_one", 0)
    respond(ready=True)
    lines = iter(requests())
    while (request := await asyncio.to_thread(next, lines, None)) is not None:
        measurement = Measurement(request["seconds"])
        await asyncio.gather(*(worker(calls.call, request["kind"], measurement) for _ in range(request["in_flight"])))
        respond(**measurement.result(request["documents"]))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
