"""PyMongo's MongoClient: a thread for each operation in flight."""

from __future__ import annotations

import sys
import threading
from typing import Any

from pymongo import MongoClient
from workloads import (
    DATABASE,
    MANY,
    MANY_COLLECTION,
    READ_COLLECTION,
    WRITE_COLLECTION,
    small_document,
)

from drivers.loop import Measurement, requests, respond


class SyncCalls:
    """The calls of a task on an open client."""

    def __init__(self, client: Any) -> None:
        database = client[DATABASE]
        self._documents = database[READ_COLLECTION]
        self._many = database[MANY_COLLECTION]
        self._written = database[WRITE_COLLECTION]

    def call(self, kind: str, number: int) -> Any:
        """Make one call."""
        if kind == "find_one":
            return self._documents.find_one({"_id": number % 1000})
        if kind == "insert_one":
            return self._written.insert_one(small_document(number))
        if kind == "find_many":
            return self._many.find({}).to_list()
        return self._written.insert_many([small_document(n) for n in range(MANY)])


def run(calls: SyncCalls, kind: str, in_flight: int, measurement: Measurement) -> None:
    """Call from ``in_flight`` threads until the time is over."""
    counts = [0] * in_flight

    def loop(index: int) -> None:
        while measurement.running():
            counts[index] += 1
            calls.call(kind, counts[index] * in_flight + index)

    if in_flight == 1:
        loop(0)
    else:
        threads = [threading.Thread(target=loop, args=(index,)) for index in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    measurement.done = sum(counts)


def main(uri: str) -> None:
    """Serve the parent until standard input ends."""
    client: Any = MongoClient(uri)
    calls = SyncCalls(client)
    calls.call("find_one", 0)
    respond(ready=True)
    for request in requests():
        measurement = Measurement(request["seconds"])
        run(calls, request["kind"], request["in_flight"], measurement)
        respond(**measurement.result(request["documents"]))
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
