"""Scripts of our own: operations in flight, a slow one beside fast ones, connecting, cancelling, one large reply."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import bson
import data
import figures

from drivers.driver import Driver
from drivers.filling import MANY, MICRO

__all__ = ["big_reply", "cancel", "connect", "rate", "slow_beside_fast", "wire"]


def caller(driver: Driver, request: dict[str, Any]) -> Callable[[int], Awaitable[Any]]:
    """The call of a kind, as a function of a number that counts up."""
    database = driver.client(request["uri"])[MICRO]
    documents, many, written = database.documents, database.many, database.written
    calls: dict[str, Callable[[int], Awaitable[Any]]] = {
        "find_one": lambda number: driver.find_one(documents, {"_id": number % 1000}),
        "insert_one": lambda number: driver.insert_one(written, data.small_document(number)),
        "find_many": lambda number: driver.find_all(many, {}),
        "insert_many": lambda number: driver.insert_many(written, [data.small_document(n) for n in range(MANY)]),
    }
    return calls[request["kind"]]


async def _worker(call: Callable[[int], Awaitable[Any]], first: int, step: int, end: float) -> int:
    """Call again and again until the time is over; returns how often that was."""
    clock, number = time.perf_counter, first
    while clock() < end:
        await call(number)
        number += step
    return (number - first) // step


async def rate(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Operations per second and CPU microseconds each, ``in_flight`` at once, for ``seconds``."""
    call, in_flight = caller(driver, request), request.get("in_flight", 1)
    wall, cpu = time.perf_counter(), time.process_time()
    end = wall + request["seconds"]
    done = await driver.gather(*[_worker(call, index, in_flight, end) for index in range(in_flight)])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    operations = sum(done) * request.get("documents", 1)
    return {"per_second": operations / wall, "cpu_us": cpu / operations * 1e6}


async def wire(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Some calls, one after another, while the parent counts the bytes."""
    call = caller(driver, request)
    for number in range(request["calls"]):
        await call(number)
    return {}


async def connect(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """New clients, each reading once: connecting, handshake and authentication."""
    wall, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < wall + request["seconds"]:
        client = driver.connect(request["uri"])
        # A ping would be answered without authentication.
        await driver.find_one(client[MICRO].documents, {})
        await driver.close(client)
        done += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_second": done / wall, "cpu_us": cpu / done * 1e6}


# --- a slow query beside fast ones ---


async def slow_beside_fast(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """How long fast reads take while one slow one runs, and without it."""
    collection, slow_ms = driver.client(request["uri"])[MICRO].documents, request["slow_ms"]
    await _latencies(driver, collection, request["readers"], 0.2)

    async def slow() -> list[float]:
        await driver.sleep(0.1)
        await driver.find_one(collection, {"_id": 1, "$where": f"sleep({slow_ms}) || true"})
        return []

    alone = await _latencies(driver, collection, request["readers"], min(slow_ms / 1000, 5 * request["seconds"]))
    beside = await _latencies(driver, collection, request["readers"], slow_ms / 1000, slow())
    p99, p99_alone = figures.percentile(beside, 99), figures.percentile(alone, 99)
    return {
        "p50_ms": figures.percentile(beside, 50) * 1000,
        "p50_alone_ms": figures.percentile(alone, 50) * 1000,
        "p99_ms": p99 * 1000,
        "p99_alone_ms": p99_alone * 1000,
        "p99_ratio": p99 / p99_alone,
        "max_ms": max(beside) * 1000,
        "max_alone_ms": max(alone) * 1000,
    }


async def _latencies(driver: Driver, collection: Any, readers: int, seconds: float, *others: Any) -> list[float]:
    """The time in seconds of each read that ``readers`` readers make."""
    end = time.perf_counter() + seconds

    async def reader(number: int) -> list[float]:
        times = []
        while (began := time.perf_counter()) < end:
            await driver.find_one(collection, {"_id": number})
            times.append(time.perf_counter() - began)
        return times

    lists = await driver.gather(*map(reader, range(readers)), *others)
    return [each for times in lists for each in times]


# --- many operations cancelled ---


async def cancel(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Cancel many operations in flight: when does the client answer again, and what is left behind?"""
    client = driver.connect(request["uri"])
    await driver.command(client["admin"], "ping")
    collection = client[MICRO].documents
    queries = ({"_id": number % 1000, "$where": "sleep(1) || true"} for number in range(request["count"]))
    calls = [driver.start(driver.find_one(collection, query)) for query in queries]
    await driver.sleep(0.2)
    for call in calls:
        call.cancel()
    began = time.perf_counter()
    await driver.command(client["admin"], "ping")
    measured = {"ping_ms": (time.perf_counter() - began) * 1000, "connections": _sockets()}
    measured["operations"] = await _running(driver, client)
    await driver.close(client)
    # What is left must not fall on the next one.
    watcher = driver.client(request["uri"])
    end = time.perf_counter() + 60
    while await _running(driver, watcher) and time.perf_counter() < end:
        await driver.sleep(0.1)
    return measured


async def _running(driver: Driver, client: Any) -> int:
    """How many operations run on the server."""
    answer = await driver.command(client["admin"], "currentOp", ns=f"{MICRO}.documents")
    return len(answer["inprog"])


def _sockets() -> int:
    """How many connections to a server this process holds."""
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count - _SOCKETS_AT_START[0]


_SOCKETS_AT_START = [0]
_SOCKETS_AT_START[0] = _sockets()


# --- one large reply ---


async def big_reply(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """The time of a find whose reply comes in small pieces, and of decoding the same bytes alone."""
    documents = b"".join(map(bson.encode, data.big_reply_documents()))
    collection = driver.client(request["uri"])[MICRO].big
    await driver.command(driver.client(request["uri"])["admin"], "ping")
    wall, cpu = await _timed(lambda: _decode(documents))
    find_wall, find_cpu = await _timed(lambda: driver.find_all(collection, {}))
    return {"ms": find_wall * 1000, "ratio": find_wall / wall, "cpu_ratio": find_cpu / cpu}


async def _decode(documents: bytes) -> list[Any]:
    return bson.decode_all(documents)


async def _timed(work: Callable[[], Awaitable[list[Any]]]) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = await work()
    times = time.perf_counter() - wall, time.process_time() - cpu
    if len(result) != 20_000:
        raise RuntimeError(f"the reply had {len(result)} documents")
    return times
