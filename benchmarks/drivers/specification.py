"""The tasks of the driver benchmark specification: what is done before an iteration, and the iteration itself.

The specification: https://github.com/mongodb/specifications/blob/master/source/benchmarking/benchmarking.md. An
iteration is timed as a whole; its size in megabytes divided by the median time of many is the task's score.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import data
from pymongo import DeleteOne, InsertOne, ReplaceOne

from drivers.driver import Bucket, Driver
from drivers.filling import DOWNLOADS, SPECIFICATION

__all__ = [
    "bulk_insert",
    "bulk_mixed",
    "find_all",
    "find_by_id",
    "gridfs_download",
    "gridfs_multi_download",
    "gridfs_multi_upload",
    "gridfs_upload",
    "insert_each",
    "insert_many",
    "json_export",
    "json_import",
    "run_command",
]

#: Iterations at most, as the specification wants it.
ITERATIONS = 100
#: Files that the parallel tasks work on at once.
AT_ONCE = 8


class Iterations:
    """The iterations of one task in one round.

    :param seconds: end after the iteration with which they have taken this long.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.times: list[float] = []
        self._cpu: list[float] = []
        self._seconds = request["seconds"]
        self._megabytes = request["operations"] * request["operation_bytes"] / 1e6
        self._began = 0.0, 0.0

    def more(self) -> bool:
        """Whether there is to be another one."""
        return not self.times or (sum(self.times) < self._seconds and len(self.times) < ITERATIONS)

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, error: Any, *_: Any) -> None:
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        self.times.append(wall)
        self._cpu.append(cpu)

    def result(self) -> dict[str, Any]:
        """What the parent is told."""
        return {
            "times": self.times,
            "megabytes": self._megabytes,
            "mb_per_second": self._megabytes / statistics.median(self.times),
            "cpu_ms": statistics.median(self._cpu) * 1000 / self._megabytes,
        }


# --- single documents ---


async def run_command(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """``hello``, again and again."""
    database, iterations = driver.client(request["uri"])[SPECIFICATION], Iterations(request)
    while iterations.more():
        with iterations:
            for _ in range(request["operations"]):
                await driver.command(database, "hello", True)
    return iterations.result()


async def find_by_id(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Tweets, each by its ``_id``."""
    collection, iterations = driver.client(request["uri"])[SPECIFICATION].by_id, Iterations(request)
    while iterations.more():
        with iterations:
            for number in range(1, request["operations"] + 1):
                await driver.find_one(collection, {"_id": number})
    return iterations.result()


async def insert_each(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Documents, each in a call of its own."""
    iterations = Iterations(request)
    while iterations.more():
        collection, documents = await _empty_corpus(driver, request), _copies(request)
        with iterations:
            for document in documents:
                await driver.insert_one(collection, document)
    return iterations.result()


# --- many documents ---


async def find_all(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """All tweets in one find."""
    collection, iterations = driver.client(request["uri"])[SPECIFICATION].all, Iterations(request)
    while iterations.more():
        with iterations:
            found = await driver.find_all(collection, {})
        _check(len(found), request["operations"])
    return iterations.result()


async def insert_many(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """All documents in one insert_many."""
    iterations = Iterations(request)
    while iterations.more():
        collection, documents = await _empty_corpus(driver, request), _copies(request)
        with iterations:
            await driver.insert_many(collection, documents)
    return iterations.result()


async def bulk_insert(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """All documents in one bulk_write of inserts."""
    return await _bulk(driver, request, lambda: [InsertOne(document) for document in _copies(request)])


async def bulk_mixed(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """An insert, a replacement and a delete of each document, in one bulk_write."""

    def models() -> list[Any]:
        copies = iter(_copies(request))
        result: list[Any] = []
        for document in copies:
            result += [InsertOne(document), ReplaceOne({}, next(copies)), DeleteOne({})]
        return result

    return await _bulk(driver, request, models)


async def _bulk(driver: Driver, request: dict[str, Any], models: Callable[[], list[Any]]) -> dict[str, Any]:
    iterations = Iterations(request)
    while iterations.more():
        collection, writes = await _empty_corpus(driver, request), models()
        with iterations:
            await driver.bulk_write(collection, writes)
    return iterations.result()


async def _empty_corpus(driver: Driver, request: dict[str, Any]) -> Any:
    """The collection that is written to, empty and there."""
    database = driver.client(request["uri"])[SPECIFICATION]
    try:
        await driver.command(database, "drop", "corpus")
    except Exception as error:
        if "ns not found" not in str(error):
            raise
    await driver.command(database, "create", "corpus")
    return database.corpus


def _copies(request: dict[str, Any]) -> list[dict[str, Any]]:
    document = {"small": data.small, "large": data.large}[request["document"]]()
    return [dict(document) for _ in range(request["operations"])]


def _check(found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{found} were found, not {wanted}")


# --- GridFS ---


async def gridfs_upload(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """One file of 50 MB from memory."""
    content = data.large_file(pathlib.Path(request["folder"])).read_bytes()[: request["operation_bytes"]]
    iterations = Iterations(request)
    while iterations.more():
        bucket = await _empty_bucket(driver, request)
        with iterations:
            await bucket.upload("gridfstest", content)
    return iterations.result()


async def gridfs_download(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """One file of 50 MB to memory."""
    bucket, iterations = driver.bucket(driver.client(request["uri"])[DOWNLOADS]), Iterations(request)
    while iterations.more():
        with iterations:
            content = await bucket.download("large")
        _check(len(content), request["operation_bytes"])
    return iterations.result()


async def gridfs_multi_upload(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Files of 5 MB, from disk, several at once."""
    files = data.binary_files(pathlib.Path(request["folder"]), request["operations"])
    iterations = Iterations(request)
    while iterations.more():
        bucket, todo = await _empty_bucket(driver, request), list(files)

        async def work(bucket: Bucket = bucket, todo: list[pathlib.Path] = todo) -> None:
            while todo:
                file = todo.pop()
                await bucket.upload(file.name, file.read_bytes())

        with iterations:
            await driver.gather(*[work() for _ in range(AT_ONCE)])
    return iterations.result()


async def gridfs_multi_download(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Files of 5 MB, to disk, several at once."""
    bucket, iterations = driver.bucket(driver.client(request["uri"])[DOWNLOADS]), Iterations(request)
    while iterations.more():
        folder, todo = pathlib.Path(tempfile.mkdtemp()), list(range(request["operations"]))

        async def work(folder: pathlib.Path = folder, todo: list[int] = todo) -> None:
            while todo:
                number = todo.pop()
                (folder / f"{number}.bin").write_bytes(await bucket.download(number))

        try:
            with iterations:
                await driver.gather(*[work() for _ in range(AT_ONCE)])
            _check(
                sum(file.stat().st_size for file in folder.iterdir()), request["operations"] * data.GRIDFS_FILE_BYTES
            )
        finally:
            shutil.rmtree(folder)
    return iterations.result()


async def _empty_bucket(driver: Driver, request: dict[str, Any]) -> Bucket:
    """A bucket whose collections and indexes are there, with a file of one byte."""
    client = driver.client(request["uri"])
    await driver.command(client[f"{SPECIFICATION}_uploads"], "dropDatabase")
    bucket = driver.bucket(client[f"{SPECIFICATION}_uploads"])
    await bucket.upload("one byte", b"1")
    return bucket


# --- JSON lines ---


async def json_import(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Files of 5,000 JSON lines into a collection, several at once."""
    files = data.json_files(pathlib.Path(request["folder"]), request["operations"])
    iterations = Iterations(request)
    while iterations.more():
        collection, todo = await _empty_corpus(driver, request), list(files)

        async def work(collection: Any = collection, todo: list[pathlib.Path] = todo) -> None:
            while todo:
                with todo.pop().open() as lines:
                    documents = [json.loads(line) for line in lines]
                await driver.insert_many(collection, documents, ordered=False)

        with iterations:
            await driver.gather(*[work() for _ in range(AT_ONCE)])
    return iterations.result()


async def json_export(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """A collection into files of 5,000 JSON lines, several at once."""
    collection, iterations = driver.client(request["uri"])[SPECIFICATION].lines, Iterations(request)
    while iterations.more():
        folder, todo = pathlib.Path(tempfile.mkdtemp()), list(range(request["operations"]))

        async def work(folder: pathlib.Path = folder, todo: list[int] = todo) -> None:
            while todo:
                number = todo.pop()
                first = number * data.FILE_LINES
                found = await driver.find_all(collection, {"_id": {"$gte": first, "$lt": first + data.FILE_LINES}})
                _check(len(found), data.FILE_LINES)
                with (folder / f"{number}.json").open("w") as file:
                    file.writelines([json.dumps(document) + "\n" for document in found])

        try:
            with iterations:
                await driver.gather(*[work() for _ in range(AT_ONCE)])
        finally:
            shutil.rmtree(folder)
    return iterations.result()
