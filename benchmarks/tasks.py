"""What is measured: the list of tasks; nothing here imports a driver.

A *task* is a script (:mod:`drivers.scripts`) with its parameters, the server that it runs against, and the metrics that
it yields. The same tasks run with every driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import data

MANY = 10_000

#: The parts, in the order in which they are run and shown.
PARTS = {
    "operations": "Operations",
    "driverbench": "Driver benchmark specification",
    "slow": "A slow query beside fast ones",
    "network": "TLS, compression and bytes on the wire",
    "connections": "Connections, cancelling and large replies",
    "memory": "Memory",
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number that a task yields.

    :ivar key: its name in what a driver's process answers.
    :ivar unit: as people read it.
    :ivar more_is_better: else less is.
    """

    key: str
    unit: str
    more_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """One row, or some, of the tables.

    :ivar part: the table, one of :data:`PARTS`.
    :ivar script: the function of :mod:`drivers.scripts`.
    :ivar parameters: what it is told.
    :ivar server: which server it needs: see :mod:`drivers.server`.
    :ivar options: added to the server's connection string.
    :ivar fresh: it needs a process in which nothing has run yet.
    :ivar rounds: the most rounds it is worth.
    """

    name: str
    part: str
    script: str
    metrics: tuple[Metric, ...]
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    server: str = "plain"
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fresh: bool = False
    rounds: int = 100


PER_SECOND = Metric("per_second", "/s", True)
CPU = Metric("cpu_us", "us CPU each")
DOCUMENTS_PER_SECOND = Metric("per_second", "documents/s", True)
DOCUMENT_CPU = Metric("cpu_us", "us CPU a document")
MEGABYTES = Metric("mb_per_second", "MB/s", True)
CPU_PER_MEGABYTE = Metric("cpu_ms", "ms CPU a MB")


def _operations() -> list[Task]:
    tasks = []
    for kind in ("find_one", "insert_one"):
        for in_flight in (1, 10, 100, 1000):
            name = kind if in_flight == 1 else f"{kind} x{in_flight}"
            parameters = {"kind": kind, "in_flight": in_flight}
            tasks.append(Task(name, "operations", "rate", (PER_SECOND, CPU), parameters))
    for kind, name in (("find_many", "find 10,000"), ("insert_many", "insert_many 10,000")):
        parameters = {"kind": kind, "documents": MANY}
        tasks.append(Task(name, "operations", "rate", (DOCUMENTS_PER_SECOND, DOCUMENT_CPU), parameters))
    return tasks


def _bench(name: str, script: str, operations: int, operation_bytes: int, **parameters: Any) -> Task:
    """A task of the specification: so many operations of so many bytes are one iteration."""
    parameters |= {"operations": operations, "operation_bytes": operation_bytes}
    return Task(name, "driverbench", script, (MEGABYTES, CPU_PER_MEGABYTE), parameters, options={"w": "1"})


def _driver_benchmark() -> list[Task]:
    """The 16 tasks that exercise a driver on a server without the ``bulkWrite`` command of MongoDB 8.0."""
    small, large = data.SMALL_BYTES, data.LARGE_BYTES
    return [
        _bench("Run command", "run_command", 10_000, 13),
        _bench("Find one by ID", "find_by_id", 10_000, data.TWEET_BYTES),
        _bench("Small doc insertOne", "insert_each", 10_000, small, document="small"),
        _bench("Large doc insertOne", "insert_each", 10, large, document="large"),
        _bench("Find many and empty the cursor", "find_all", 10_000, data.TWEET_BYTES),
        _bench("Small doc bulk insert", "insert_many", 10_000, small, document="small"),
        _bench("Large doc bulk insert", "insert_many", 10, large, document="large"),
        _bench("Small doc Collection BulkWrite insert", "bulk_insert", 10_000, small, document="small"),
        _bench("Large doc Collection BulkWrite insert", "bulk_insert", 10, large, document="large"),
        # The specification counts inserts and replacements, not the deletes.
        _bench("Small doc Collection BulkWrite Mixed Operations", "bulk_mixed", 20_000, small, document="small"),
        _bench("GridFS upload", "gridfs_upload", 1, data.GRIDFS_BYTES),
        _bench("GridFS download", "gridfs_download", 1, data.GRIDFS_BYTES),
        _bench("LDJSON multi-file import", "json_import", 100, data.FILE_LINES * data.LINE_BYTES),
        _bench("LDJSON multi-file export", "json_export", 100, data.FILE_LINES * data.LINE_BYTES),
        _bench("GridFS multi-file upload", "gridfs_multi_upload", 50, data.GRIDFS_FILE_BYTES),
        _bench("GridFS multi-file download", "gridfs_multi_download", 50, data.GRIDFS_FILE_BYTES),
    ]


#: The composite scores: averages of their tasks' scores. Run command is in none of them.
READ_BENCH = (
    "Find one by ID",
    "Find many and empty the cursor",
    "GridFS download",
    "LDJSON multi-file export",
    "GridFS multi-file download",
)
WRITE_BENCH = (
    "Small doc insertOne",
    "Large doc insertOne",
    "Small doc bulk insert",
    "Large doc bulk insert",
    "Small doc Collection BulkWrite insert",
    "Large doc Collection BulkWrite insert",
    "Small doc Collection BulkWrite Mixed Operations",
    "GridFS upload",
    "LDJSON multi-file import",
    "GridFS multi-file upload",
)


def _slow() -> list[Task]:
    metrics = (
        Metric("p50_ms", "ms p50"),
        Metric("p50_alone_ms", "ms p50 without it"),
        Metric("p99_ms", "ms p99"),
        Metric("p99_alone_ms", "ms p99 without it"),
        Metric("p99_ratio", "p99 with / without"),
        Metric("max_ms", "ms longest"),
        Metric("max_alone_ms", "ms longest without it"),
    )
    parameters = {"readers": 10, "slow_ms": 2000}
    return [Task("10 readers beside a 2 s query", "slow", "slow_beside_fast", metrics, parameters)]


def _network() -> list[Task]:
    tasks = []
    for in_flight in (1, 100):
        name = "find_one, TLS" if in_flight == 1 else f"find_one x{in_flight}, TLS"
        parameters = {"kind": "find_one", "in_flight": in_flight}
        tasks.append(Task(name, "network", "rate", (PER_SECOND, CPU), parameters, "tls"))
    sent, received = Metric("sent", "bytes sent"), Metric("received", "bytes received")
    for compressor in (None, "snappy", "zlib", "zstd"):
        options = {} if compressor is None else {"compressors": compressor}
        suffix = "" if compressor is None else f", {compressor}"
        for kind, name in (("find_many", "find 10,000"), ("insert_many", "insert_many 10,000")):
            if compressor is not None:
                parameters = {"kind": kind, "documents": MANY}
                metrics = (DOCUMENTS_PER_SECOND, DOCUMENT_CPU)
                tasks.append(Task(name + suffix, "network", "rate", metrics, parameters, options=options))
        for kind, name, calls in (("find_one", "find_one", 200), ("insert_one", "insert_one", 200)):
            parameters = {"kind": kind, "calls": calls}
            one = Task(name + suffix + ", on the wire", "network", "wire", (sent, received), parameters, "counted")
            tasks.append(dataclasses.replace(one, options=options, rounds=1))
    return tasks


def _connect() -> Task:
    name = "connect, handshake, SCRAM-SHA-256"
    return Task(name, "connections", "connect", (PER_SECOND, CPU), server="auth", options={"authSource": "admin"})


def _connections() -> list[Task]:
    big = (
        Metric("ms", "ms"),
        Metric("ratio", "x bson.decode_all"),
        Metric("cpu_ratio", "x its CPU"),
    )
    cancelled = (
        Metric("ping_ms", "ms until a ping answers"),
        Metric("connections", "connections after it"),
        Metric("operations", "operations left on the server"),
    )
    return [
        _connect(),
        Task("42 MB reply in 16 KiB pieces", "connections", "big_reply", big, server="fake"),
        Task("10,000 in flight cancelled", "connections", "cancel", cancelled, {"count": 10_000}, rounds=3),
    ]


def _memory() -> list[Task]:
    kilobytes = (Metric("kb", "KB each"),)
    gridfs = (Metric("mb", "MB at the peak"),)

    def task(name: str, script: str, metrics: tuple[Metric, ...], server: str, **parameters: Any) -> Task:
        return Task(name, "memory", script, metrics, parameters, server, fresh=True, rounds=3)

    return [
        task("an idle connection", "idle_memory", kilobytes, "plain", count=100),
        task("a waiting operation", "waiting_memory", kilobytes, "fake", count=10_000),
        task("an open cursor", "cursor_memory", kilobytes, "plain", count=1000),
        task("GridFS upload of 52 MB, streamed", "gridfs_up_memory", gridfs, "plain"),
        task("GridFS download of 52 MB, streamed", "gridfs_down_memory", gridfs, "plain"),
    ]


TASKS = (*_operations(), *_driver_benchmark(), *_slow(), *_network(), *_connections(), *_memory())
