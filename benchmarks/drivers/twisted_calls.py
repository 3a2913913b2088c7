"""The calls and the run of a Twisted driver with TxMongo's interface: ours and txmongo 26."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from workloads import (
    DATABASE,
    MANY,
    MANY_COLLECTION,
    READ_COLLECTION,
    WRITE_COLLECTION,
    small_document,
)

from drivers.loop import Measurement, requests, respond, worker
from txmongo.connection import ConnectionPool


class TwistedCalls:
    """The calls of a task on an open client."""

    def __init__(self, client: Any) -> None:
        database = client[DATABASE]
        self._documents = database[READ_COLLECTION]
        self._many = database[MANY_COLLECTION]
        self._written = database[WRITE_COLLECTION]

    def call(self, kind: str, number: int) -> Deferred[Any]:
        """Start one call."""
        if kind == "find_one":
            return self._documents.find_one({"_id": number % 1000})
        if kind == "insert_one":
            return self._written.insert_one(small_document(number))
        if kind == "find_many":
            return self._many.find({})
        return self._written.insert_many([small_document(n) for n in range(MANY)])


async def _serve(uri: str) -> None:
    client = ConnectionPool(uri)
    calls = TwistedCalls(client)
    await calls.call("find_one", 0)
    respond(ready=True)
    lines = iter(requests())
    while True:
        request = await deferToThread(next, lines, None)
        if request is None:
            break
        measurement = Measurement(request["seconds"])
        workers = [
            ensureDeferred(worker(calls.call, request["kind"], measurement)) for _ in range(request["in_flight"])
        ]
        await gatherResults(workers, consumeErrors=True)
        respond(**measurement.result(request["documents"]))
    await client.disconnect()


def main(uri: str) -> None:
    """Serve the parent until standard input ends."""
    react(lambda _: ensureDeferred(_serve(uri)))
