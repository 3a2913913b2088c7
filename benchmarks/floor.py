"""What no driver can be below on this machine: ``python benchmarks/floor.py``.

The commands of one read and of one write are sent as prepared bytes over a plain blocking socket, one at a time, and
their replies are received and thrown away. What that costs is the kernel's part: sending, going to sleep, being woken.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import struct
import time

import bson
import data
from peers import Servers

_DATABASE, _COLLECTION = "floor", "documents"
_HEADER = struct.Struct("<iiiiIB")
_OP_MSG = 2013


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


def measure(connection: socket.socket, request: bytes, seconds: float) -> tuple[float, float]:
    """Microseconds of CPU, and operations per second."""
    done, cpu, began = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < began + seconds:
        exchange(connection, request)
        done += 1
    wall = time.perf_counter() - began
    return (time.process_time() - cpu) / done * 1e6, done / wall


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure prepared commands on a plain socket.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each command in each round")
    given = parser.parse_args()
    requests = {
        "find_one": message({"find": _COLLECTION, "filter": {"_id": 1}, "limit": 1, "singleBatch": True}),
        "insert_one": message({"insert": "written", "documents": [data.small_document(1)]}),
    }
    servers = Servers()
    try:
        host, port = servers.uri("plain").split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            exchange(connection, message({"insert": _COLLECTION, "documents": [data.document(1)]}))
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in requests}
            for _ in range(given.rounds):
                for name, request in requests.items():
                    found[name].append(measure(connection, request, given.seconds))
    finally:
        servers.stop()
    for name, figures in found.items():
        cpu, per_second = (statistics.median(each) for each in zip(*figures, strict=True))
        print(f"{name:<12}{cpu:>8.1f} us CPU each{per_second:>10,.0f} /s")


if __name__ == "__main__":
    main()
