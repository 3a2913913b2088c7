"""What no driver, and no driver on Twisted, can be below on this machine: ``python benchmarks/floor.py``.

The commands of one read and of one write are sent as prepared bytes, one at a time: over a plain blocking socket, where
replies are thrown away, and by a bare Twisted protocol, which decodes them. The first is the kernel's part: sending,
going to sleep, being woken. The second has the reactor's too. The driver and PyMongo stand beside them, in the same
rounds and against the same server.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import bson
import data
import pymongo
from peers import Servers
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import react

from txmongo.connection import ConnectionPool

_DATABASE, _COLLECTION, _WRITTEN = "floor", "documents", "written"
_HEADER = struct.Struct("<iiiiIB")
_OP_MSG = 2013

#: Microseconds of CPU for each operation, and operations per second.
Figures = tuple[float, float]


def message(command: dict[str, object]) -> bytes:
    """A command as it is sent."""
    body = bson.encode({**command, "$db": _DATABASE})
    return _HEADER.pack(_HEADER.size + len(body), 1, 0, _OP_MSG, 0, 0) + body


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and wait for its reply."""
    connection.sendall(request)
    reply = connection.recv(65536)
    length: int = struct.unpack_from("<i", reply)[0]
    while len(reply) < length:
        reply += connection.recv(65536)
    return reply


class Bare(Protocol):
    """Sends one request again and again, and decodes the replies."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self._received = b""

    def repeat(self, request: bytes, end: float) -> Deferred[int]:
        """Go on until ``end``; the Deferred fires with how often it was."""
        self._request, self._end, self._done = request, end, 0
        self._finished: Deferred[int] = Deferred()
        self._send()
        return self._finished

    def _send(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < struct.unpack_from("<i", self._received)[0]:
            return
        bson.decode(memoryview(self._received)[_HEADER.size :])
        self._received = b""
        self._done += 1
        if time.perf_counter() < self._end:
            self._send()
        else:
            self._finished.callback(self._done)


async def measure(work: Callable[[float], Awaitable[int]], seconds: float) -> Figures:
    """Have work done until it is over.

    :param work: called with when to end; tells how many operations it did.
    """
    cpu, began = time.process_time(), time.perf_counter()
    done = await work(began + seconds)
    return (time.process_time() - cpu) / done * 1e6, done / (time.perf_counter() - began)


def repeated(operation: Callable[[], Any]) -> Callable[[float], Awaitable[int]]:
    """Work that does a blocking operation again and again."""

    async def work(end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            operation()
            done += 1
        return done

    return work


def awaited(operation: Callable[[], Awaitable[Any]]) -> Callable[[float], Awaitable[int]]:
    """Work that awaits an operation again and again."""

    async def work(end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            await operation()
            done += 1
        return done

    return work


async def floor(reactor: Any, rounds: int, seconds: float) -> None:
    """Measure, and print the table."""
    requests = {
        "find_one": message({"find": _COLLECTION, "filter": {"_id": 1}, "limit": 1, "singleBatch": True}),
        "insert_one": message({"insert": _WRITTEN, "documents": [data.small_document(1)]}),
    }
    servers = Servers()
    try:
        uri = servers.uri("plain")
        host, port = uri.split("/")[2].split(":")
        plain = socket.create_connection((host, int(port)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange(plain, message({"insert": _COLLECTION, "documents": [data.document(1)]}))
        bare = await connectProtocol(TCP4ClientEndpoint(reactor, host, int(port)), Bare())
        ours: Any = ConnectionPool(uri)
        theirs: Any = pymongo.MongoClient(uri)

        def works(name: str) -> dict[str, Callable[[float], Awaitable[int]]]:
            request = requests[name]
            return {
                "plain socket": repeated(lambda: exchange(plain, request)),
                "Twisted protocol": lambda end: bare.repeat(request, end),
                "txmongo": awaited(operation(ours, name)),
                "PyMongo": repeated(operation(theirs, name)),
            }

        found: dict[tuple[str, str], list[Figures]] = {}
        for _ in range(rounds):
            for name in requests:
                for who, work in works(name).items():
                    found.setdefault((name, who), []).append(await measure(work, seconds))
        plain.close()
        theirs.close()
        await ours.disconnect()
    finally:
        servers.stop()
    for (name, who), figures in found.items():
        cpu, per_second = (statistics.median(each) for each in zip(*figures, strict=True))
        ratio = statistics.median(
            mine[0] / other[0] for mine, other in zip(figures, found[name, "PyMongo"], strict=True)
        )
        print(f"{name:<12}{who:<18}{cpu:>8.1f} us CPU each ({ratio:.2f}){per_second:>10,.0f} /s")


def operation(client: Any, name: str) -> Callable[[], Any]:
    """One operation of a driver, on a collection that is at hand."""
    if name == "find_one":
        collection = client[_DATABASE][_COLLECTION]
        return lambda: collection.find_one({"_id": 1})
    written = client[_DATABASE][_WRITTEN]
    return lambda: written.insert_one(data.small_document(1))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure prepared commands on a plain socket and on a bare protocol.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each command in each round")
    given = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(floor(reactor, given.rounds, given.seconds)))


if __name__ == "__main__":
    main()
