"""Scripts that measure memory: what one more connection, operation or cursor adds to the process."""

from __future__ import annotations

import ctypes
import gc
import os
import pathlib
import time
from typing import Any

import data

from drivers.driver import Driver
from drivers.filling import DOWNLOADS, MICRO, SPECIFICATION
from drivers.operations import _sockets

__all__ = ["cursor_memory", "gridfs_down_memory", "gridfs_up_memory", "idle_memory", "waiting_memory"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
#: An operation that waits takes a thread with a blocking driver: fewer of them show the same.
_THREADS = 200


def _resident() -> int:
    """Bytes of memory that this process uses now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * _PAGE


async def idle_memory(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """KB an idle connection takes, of a client that keeps some."""
    first = driver.client(request["uri"])
    await driver.command(first["admin"], "ping")
    before, sockets = _resident(), _sockets()
    client = driver.connect(request["uri"], request["count"])
    await driver.command(client["admin"], "ping")
    end = time.perf_counter() + 15
    while _sockets() < sockets + request["count"] and time.perf_counter() < end:
        await driver.sleep(0.1)
    await driver.sleep(0.5)
    opened = _sockets() - sockets
    measured = {"kb": (_resident() - before) / opened / 1000, "opened": opened}
    await driver.close(client)
    return measured


async def waiting_memory(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """KB an operation takes that waits for a server which does not answer."""
    client = driver.client(request["uri"])
    await driver.command(client["admin"], "ping")
    collection = client[MICRO].silent
    if driver.threads:
        return await _waiting_threads(driver, collection)
    before = _resident()
    calls = [driver.start(driver.find_one(collection, {"_id": number})) for number in range(request["count"])]
    await driver.sleep(1)
    measured = {"kb": (_resident() - before) / len(calls) / 1000}
    for call in calls:
        call.cancel()
    return measured


async def _waiting_threads(driver: Driver, collection: Any) -> dict[str, Any]:
    """The same where each waits in a thread; the server answers after some seconds, or nothing would end."""
    before, during = _resident(), []

    async def one(number: int) -> None:
        await driver.find_one(collection, {"_id": number, "answer_after": 2})

    async def look() -> None:
        await driver.sleep(1)
        during.append(_resident())

    await driver.gather(*map(one, range(_THREADS)), look())
    return {"kb": (during[0] - before) / _THREADS / 1000}


async def cursor_memory(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """KB a cursor takes that has fetched two small documents and is open on the server."""
    collection = driver.client(request["uri"])[MICRO].cursors
    await driver.insert_many(collection, [data.small_document(number) for number in range(10)])
    cursors = [await driver.open_cursor(collection, 2) for _ in range(10)]
    before = _resident()
    cursors += [await driver.open_cursor(collection, 2) for _ in range(request["count"])]
    return {"kb": (_resident() - before) / request["count"] / 1000}


# --- GridFS ---


def _forget_peak() -> int:
    """Begin a new peak; returns the bytes that are in use now."""
    now = _resident()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return now


def _peak() -> int:
    """The most bytes that were in use since."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def gridfs_up_memory(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """MB by which a streamed upload of 52 MB raises the peak."""
    client = driver.client(request["uri"])
    bucket = driver.bucket(client[f"{SPECIFICATION}_uploads"])
    await bucket.upload("one byte", b"1")
    before = _forget_peak()
    with data.large_file(pathlib.Path(request["folder"])).open("rb") as source:
        await bucket.upload_from("large", source)
    return {"mb": (_peak() - before) / 1e6}


async def gridfs_down_memory(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """MB by which a streamed download of 52 MB raises the peak."""
    client = driver.client(request["uri"])
    bucket = driver.bucket(client[DOWNLOADS])
    await driver.command(client["admin"], "ping")
    before = _forget_peak()
    with open(os.devnull, "wb") as target:
        await bucket.download_to("large", target)
    return {"mb": (_peak() - before) / 1e6}
