"""What an operation costs in counts that no other process can disturb: ``python benchmarks/budget.py [--write]``.

Counted are the opcodes that Python executes and the calls that it makes into C, in the driver and all that it stands
on (Twisted, ``bson``), for 200 calls of ``find_one`` and of ``insert_one``, for batches of 1,000 documents and for bulk
writes, on a transport in memory that answers with prepared bytes. The opcodes are printed by function, the most
expensive first.

``budget.json`` holds the figures and the versions that they were counted with. ``tests/unit/test_budget.py`` fails when
something gets more than 5 % dearer than its figure; ``--write`` records what is counted now, for the commit that is
worth it. What the C code costs that is called, :mod:`callgrind` tells.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import platform
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bson  # noqa: E402
import pymongo  # noqa: E402
import twisted  # noqa: E402
from pymongo import DeleteOne, InsertOne, ReplaceOne  # noqa: E402
from twisted.internet.defer import Deferred, succeed  # noqa: E402
from twisted.internet.task import Clock  # noqa: E402

from txmongo.connection import ConnectionPool  # noqa: E402

FILE = ROOT / "benchmarks" / "budget.json"

#: How much dearer than its figure something may get, as a factor.
ALLOWANCE = 1.05
CALLS = 200
WARM_UP = 50
BATCH = 1000
#: Replies to writes that a server has ready: more than any task asks for.
WRITES = 2000

_HEADER = struct.Struct("<iiii")
_OP_MSG, _OP_REPLY, _OP_QUERY = 2013, 1, 2004
_MEMBER = "db.example:27017"

#: What the primary of a replica set of MongoDB 6.0 says of itself; no ``topologyVersion``, so that it is not streamed.
_HELLO = {
    "helloOk": True,
    "isWritablePrimary": True,
    "ismaster": True,
    "setName": "rs0",
    "setVersion": 1,
    "secondary": False,
    "hosts": [_MEMBER],
    "me": _MEMBER,
    "primary": _MEMBER,
    "electionId": bson.ObjectId("7fffffff0000000000000001"),
    "maxBsonObjectSize": 16 * 1024 * 1024,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "connectionId": 1,
    "minWireVersion": 0,
    "maxWireVersion": 17,
    "readOnly": False,
    "ok": 1.0,
}


def pymongo_version() -> str:
    """PyMongo's version, and whether its C extension is missing: that makes all the difference."""
    return pymongo.version if bson.has_c() else f"{pymongo.version} without C extension"


def versions() -> dict[str, str]:
    """What the counts depend on beside the driver itself; what only mends faults of these does not count."""
    python = f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"
    return {
        "python": python,
        "twisted": ".".join(twisted.__version__.split(".")[:2]),
        "pymongo": re.sub(r"^(\d+\.\d+)\.\d+", r"\1", pymongo_version()),
    }


_THIS_FILE = versions.__code__.co_filename


# --- a server that costs nothing ---


def _envelope(number: int) -> dict[str, Any]:
    """What a member of a replica set adds to every reply."""
    time = bson.Timestamp(1_700_000_000, number + 1)
    signature = {"hash": bson.Binary(b"\0" * 20), "keyId": bson.Int64(0)}
    return {"ok": 1.0, "$clusterTime": {"clusterTime": time, "signature": signature}, "operationTime": time}


def _document(number: int) -> dict[str, Any]:
    return {"_id": number, "name": "somebody", "active": True, "score": 0.5, "tags": ["red", "green"]}


def _batch(documents: list[dict[str, Any]]) -> bytes:
    return bson.encode({"cursor": {"firstBatch": documents, "id": 0, "ns": "shop.orders"}, **_envelope(0)})


def _written(number: int, documents: int) -> bytes:
    election = bson.ObjectId("7fffffff0000000000000001")
    time = bson.Timestamp(1_700_000_000, number + 1)
    return bson.encode(
        {"n": documents, "electionId": election, "opTime": {"ts": time, "t": bson.Int64(1)}, **_envelope(number)}
    )


class Transport:
    """A connection to a server in memory that answers each command with prepared bytes, when told to.

    It offers the driver what a plain TCP transport offers (``writeSomeData``), so that it takes the same way.
    """

    def __init__(self, protocol: Any, bodies: dict[bytes, Iterator[bytes]]) -> None:
        self._protocol = protocol
        self._bodies = bodies
        self._replies: list[bytes] = []

    def writeSomeData(self, data: bytes) -> int:
        """Take bytes as the kernel does."""
        self.write(data)
        return len(data)

    def write(self, data: bytes) -> None:
        """Prepare the replies to the requests in ``data``."""
        while data:
            length, request_id, _, opcode = _HEADER.unpack_from(data)
            self._replies.append(self._reply(data[:length], request_id, opcode))
            data = data[length:]

    def _reply(self, request: bytes, request_id: int, opcode: int) -> bytes:
        if opcode == _OP_QUERY:
            body = struct.pack("<iqii", 8, 0, 0, 1) + next(self._bodies[b"hello"])
            return _HEADER.pack(16 + len(body), 1, request_id, _OP_REPLY) + body
        name = request[26 : request.index(0, 26)]
        body = next(self._bodies[name])
        return _HEADER.pack(21 + len(body), 1, request_id, _OP_MSG) + b"\0\0\0\0\0" + body

    def deliver(self) -> bool:
        """Hand what is to be answered to the driver, in one piece as a busy socket does; whether there was any."""
        replies, self._replies = self._replies, []
        if replies:
            self._protocol.dataReceived(b"".join(replies))
        return bool(replies)

    def loseConnection(self) -> None:
        """Nothing is left to close."""

    abortConnection = loseConnection

    def getPeer(self) -> None:
        """Nowhere."""


class Server:
    """The server: an endpoint, and all connections to it.

    :param documents: how many a ``find`` finds and an ``insert`` inserts.
    """

    def __init__(self, documents: int) -> None:
        found = _batch([_document(number) for number in range(documents)])
        written = iter([_written(number, documents) for number in range(WRITES)])
        self._bodies = {
            b"hello": itertools.repeat(bson.encode(_HELLO)),
            b"find": itertools.repeat(found),
            **dict.fromkeys((b"insert", b"update", b"delete"), written),
        }
        self._transports: list[Transport] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        """Open a connection: the one method of ``IStreamClientEndpoint``."""
        protocol = factory.buildProtocol(None)
        transport = Transport(protocol, self._bodies)
        self._transports.append(transport)
        protocol.makeConnection(transport)
        return succeed(protocol)

    def deliver(self) -> None:
        """Answer everything, and what is asked for because of it."""
        busy = True
        while busy:
            busy = False
            for transport in self._transports:
                busy |= transport.deliver()


class StoppedClock(Clock):
    """A clock that stands still; asking it costs one call, as asking a reactor does."""

    def seconds(self) -> float:
        """Always the same."""
        return 1000.0


# --- what is counted ---


class Tasks:
    """The calls, on a client of their own.

    :param documents: how many each of them moves.
    """

    def __init__(self, documents: int) -> None:
        self._server = Server(documents)
        client: Any = ConnectionPool(f"mongodb://{_MEMBER}/", reactor=StoppedClock(), endpoint_for=self._endpoint_for)
        self._orders = client.shop.orders

    def find_one(self, calls: int) -> None:
        """One at a time, a small document by its ``_id``."""
        for number in range(calls):
            self._wait(self._orders.find_one({"_id": number}))

    def find_one_100_at_once(self, calls: int) -> None:
        """A hundred in flight, all sent before the first reply."""
        for _ in range(0, calls, 100):
            self._wait(*[self._orders.find_one({"_id": number}) for number in range(100)])

    def insert_one(self, calls: int) -> None:
        """One at a time, a small document without ``_id``."""
        for number in range(calls):
            self._wait(self._orders.insert_one({"number": number, "name": "somebody"}))

    def insert_many_1000(self, calls: int) -> None:
        """1,000 small documents without ``_id`` in one insert_many."""
        for _ in range(calls):
            self._wait(self._orders.insert_many([{"number": number, "name": "somebody"} for number in range(BATCH)]))

    def bulk_write_1000(self, calls: int) -> None:
        """The same documents as models of one bulk_write."""
        for _ in range(calls):
            models = [InsertOne({"number": number, "name": "somebody"}) for number in range(BATCH)]
            self._wait(self._orders.bulk_write(models))

    def bulk_write_300_mixed(self, calls: int) -> None:
        """100 inserts, replacements and deletes in turn in one ordered bulk_write, which is 300 commands."""
        for _ in range(calls):
            models: list[Any] = []
            for number in range(100):
                models += [
                    InsertOne({"number": number, "name": "somebody"}),
                    ReplaceOne({}, {"number": number, "name": "somebody else"}),
                    DeleteOne({}),
                ]
            self._wait(self._orders.bulk_write(models))

    def find_1000(self, calls: int) -> None:
        """1,000 small documents in one batch."""
        for _ in range(calls):
            self._wait(self._orders.find({}))

    def _endpoint_for(self, _address: Any) -> Any:
        return self._server

    def _wait(self, *calls: Deferred[Any]) -> None:
        results: list[Any] = []
        for call in calls:
            call.addBoth(results.append)
        self._server.deliver()
        if len(results) != len(calls) or not all(map(_expected, results)):
            raise RuntimeError(f"{len(calls)} calls ended with {results[:3]}")


def _expected(result: Any) -> bool:
    """Whether a call did what it was to do, in as far as this server can tell."""
    if isinstance(result, list):
        return len(result) == BATCH
    return isinstance(result, dict) or bool(getattr(result, "acknowledged", False))


#: How many calls are counted of each, and how many documents each call moves.
TASKS = {
    "find_one": (CALLS, 1),
    "find_one_100_at_once": (CALLS, 1),
    "insert_one": (CALLS, 1),
    "insert_many_1000": (2, BATCH),
    "find_1000": (2, BATCH),
    "bulk_write_1000": (2, BATCH),
    "bulk_write_300_mixed": (2, 1),
}


class Counts:
    """Opcodes and calls into C by function, those of this file left out."""

    def __init__(self) -> None:
        self.opcodes: Counter[CodeType] = Counter()
        self.c_calls: Counter[CodeType] = Counter()

    def run(self, work: Callable[[int], None], calls: int) -> None:
        """Count twice over: once the opcodes, once the calls into C."""
        before = sys.gettrace()
        # Python 3.12 tells of opcodes only if some frame wanted that before.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._entered)
        try:
            work(calls)
        finally:
            sys.settrace(before)
        profiler = sys.getprofile()
        sys.setprofile(self._called)
        try:
            work(calls)
        finally:
            sys.setprofile(profiler)

    def _entered(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename == _THIS_FILE:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._executed

    def _executed(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self.opcodes[frame.f_code] += 1
        return self._executed

    def _called(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and frame.f_code.co_filename != _THIS_FILE:
            self.c_calls[frame.f_code] += 1


def count(name: str) -> Counts:
    """Count a task, in a client of its own that is warm."""
    calls, documents = TASKS[name]
    work = getattr(Tasks(documents), name)
    work(min(WARM_UP, calls))
    counts = Counts()
    counts.run(work, calls)
    return counts


def figures(counts: Counts, calls: int) -> dict[str, float]:
    """What ``budget.json`` holds of a task: opcodes and calls into C of one call."""
    return {
        "opcodes": round(counts.opcodes.total() / calls, 1),
        "c_calls": round(counts.c_calls.total() / calls, 1),
    }


def dearer(recorded: dict[str, Any], counted: dict[str, Any]) -> list[str]:
    """What costs more than the recorded figures allow, or has none; one sentence each."""
    found = []
    for task, now in counted.items():
        before = recorded.get(task)
        if before is None:
            found.append(f"{task} has no recorded figures")
            continue
        for unit, value in now.items():
            if value > before[unit] * ALLOWANCE:
                percent = (value / before[unit] - 1) * 100
                found.append(f"{task} takes {value:g} {unit}, {percent:.1f} % more than the recorded {before[unit]:g}")
    return found


def different_versions(recorded: dict[str, str], present: dict[str, str]) -> str | None:
    """Why figures cannot be compared, or ``None`` if they can."""
    if recorded == present:
        return None
    was, now = (", ".join(f"{name} {version}" for name, version in each.items()) for each in (recorded, present))
    return f"budget.json was recorded with {was}; this is {now}"


# --- the command line ---


def _place(code: CodeType) -> str:
    """A function as people know it: ``txmongo/protocol.py MongoProtocol.send_msg``."""
    path = pathlib.PurePath(code.co_filename)
    known = [index for index, part in enumerate(path.parts) if part in ("txmongo", "twisted", "bson", "pymongo")]
    file = "/".join(path.parts[known[-1] :]) if known else path.name
    return f"{file} {code.co_qualname}"


def by_function(counter: Counter[CodeType]) -> Counter[str]:
    """Counts by what :func:`_place` calls the function."""
    result: Counter[str] = Counter()
    for code, number in counter.items():
        result[_place(code)] += number
    return result


def by_module(counter: Counter[CodeType]) -> Counter[str]:
    """Counts by module."""
    result: Counter[str] = Counter()
    for code, number in counter.items():
        result[_place(code).split(" ")[0]] += number
    return result


def show(name: str, counts: Counts, rows: int, modules: bool) -> None:
    """Print where a task's opcodes go."""
    calls, _ = TASKS[name]
    total = counts.opcodes.total() / calls
    print(f"\n{name}: {total:,.1f} opcodes and {counts.c_calls.total() / calls:,.1f} calls into C each")
    group = by_module if modules else by_function
    opcodes, c_calls = group(counts.opcodes), group(counts.c_calls)
    for place, number in opcodes.most_common(rows or None):
        print(f"{number / calls:>10,.1f}{number / calls / total:>7.1%}{c_calls[place] / calls:>9,.1f}  {place}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Count what operations cost.")
    parser.add_argument("--write", action="store_true", help="record the figures in budget.json")
    parser.add_argument("--json", action="store_true", help="print only the figures and versions, as JSON")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only this; may be repeated")
    parser.add_argument("--rows", type=int, default=30, help="functions to print of each task, 0 for all")
    parser.add_argument("--modules", action="store_true", help="by module instead of by function")
    arguments = parser.parse_args()
    counted = {}
    for name in arguments.task or TASKS:
        counts = count(name)
        counted[name] = figures(counts, TASKS[name][0])
        if not arguments.json:
            show(name, counts, arguments.rows, arguments.modules)
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {"versions": versions(), "tasks": {}}
    if arguments.json:
        print(json.dumps({"versions": versions(), "tasks": counted}))
    elif arguments.write:
        figures_now = {"versions": versions(), "tasks": recorded["tasks"] | counted}
        FILE.write_text(json.dumps(recorded | figures_now, indent=2) + "\n")
    else:
        reason = different_versions(recorded["versions"], versions())
        print("\n" + (reason or "\n".join(dearer(recorded["tasks"], counted)) or "within the recorded figures"))


if __name__ == "__main__":
    main()
