"""A server that a MongoDB server cannot be made to be: ``python -m drivers.fake`` prints its URI.

It says hello, answers a ping, and a ``find`` by the name of the collection: ``big`` with 20,000 documents in one reply
of 42 MB, sent in pieces of 16 KiB; ``silent`` never, or after the seconds that the filter asks for. It lives until
standard input ends. Plain sockets and a thread for each connection: no driver's code answers a driver.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import threading
from typing import Any

import bson
import data

PIECE = 16 * 1024
_HEADER = struct.Struct("<iiii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_HELLO = {
    "isWritablePrimary": True,
    "ismaster": True,
    "helloOk": True,
    "maxBsonObjectSize": 16 * 1024 * 1024,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 17,
    "readOnly": False,
    "ok": 1.0,
}


def _batch(collection: str, documents: list[dict[str, Any]]) -> bytes:
    return bson.encode({"cursor": {"firstBatch": documents, "id": 0, "ns": f"micro.{collection}"}, "ok": 1.0})


class Conversation:
    """One connection."""

    ids = itertools.count(1)

    def __init__(self, connection: socket.socket, big: bytes) -> None:
        self._connection = connection
        self._big = big
        self._writing = threading.Lock()

    def serve(self) -> None:
        """Answer until the other end closes."""
        with self._connection:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while header := self._receive(16):
                    length, request_id, _, opcode = _HEADER.unpack(header)
                    self._answer(request_id, opcode, self._receive(length - 16))
            except OSError:
                return

    def _receive(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            piece = self._connection.recv(count - len(received))
            if not piece:
                return b""
            received += piece
        return bytes(received)

    def _answer(self, request_id: int, opcode: int, request: bytes) -> None:
        if opcode == _OP_QUERY:
            self._send(_OP_REPLY, request_id, struct.pack("<iqii", 8, 0, 0, 1), bson.encode(_HELLO))
            return
        size = struct.unpack_from("<i", request, 5)[0]
        command = bson.decode(request[5 : 5 + size])
        name = next(iter(command))
        if name == "find" and command["find"] == "silent":
            seconds = command["filter"].get("answer_after")
            if seconds is not None:
                body = _batch("silent", [])
                threading.Timer(seconds, self._send, (_OP_MSG, request_id, b"\0" * 5, body)).start()
            return
        if name == "find":
            body = self._big
        else:
            body = bson.encode(_HELLO if name.lower() in ("hello", "ismaster") else {"ok": 1.0})
        self._send(_OP_MSG, request_id, b"\0" * 5, body)

    def _send(self, opcode: int, request_id: int, start: bytes, body: bytes) -> None:
        length = 16 + len(start) + len(body)
        with self._writing:
            self._connection.sendall(_HEADER.pack(length, next(self.ids), request_id, opcode) + start + body[:PIECE])
            for offset in range(PIECE, len(body), PIECE):
                self._connection.sendall(memoryview(body)[offset : offset + PIECE])


def main() -> None:
    """Listen, and serve until standard input ends."""
    big = _batch("big", data.big_reply_documents())
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"mongodb://127.0.0.1:{listener.getsockname()[1]}/", flush=True)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=Conversation(connection, big).serve, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
