"""Connections in memory for tests of the protocol: the transports, and what goes over them."""

from __future__ import annotations

from typing import Any

import bson
from twisted.internet.testing import StringTransport

from txmongo._legacy.messages import Reply as LegacyReply
from txmongo._wire.decoder import Decoder, decode_message
from txmongo._wire.header import next_request_id
from txmongo._wire.op_msg import Msg
from txmongo.protocol import MongoProtocol


class AbortableTransport(StringTransport):
    """A transport that notes whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Gentle:
    """A transport that cannot be aborted."""

    disconnecting = False

    def write(self, data: bytes) -> None:
        """Into the void."""

    def loseConnection(self) -> None:
        self.disconnecting = True


class DirectTransport(AbortableTransport):
    """A transport that can be written to at once, as TCP can; it takes ``room`` bytes of each such write."""

    room: Any = 1 << 30

    def __init__(self) -> None:
        super().__init__()
        self.direct: list[bytes] = []

    def writeSomeData(self, data: bytes) -> Any:
        if not isinstance(self.room, int):
            return self.room
        part = bytes(data[: self.room])
        if part:
            self.direct.append(part)
        return len(part)


class FillingTransport(DirectTransport):
    """A transport that takes so many bytes of each direct write, one number or error for each."""

    def __init__(self, rooms: list[Any]) -> None:
        super().__init__()
        self.rooms = rooms

    def writeSomeData(self, data: bytes) -> Any:
        self.room = self.rooms.pop(0)
        return super().writeSomeData(data)


def connected(transport: Any = None) -> tuple[MongoProtocol, Any]:
    """A protocol on a transport in memory."""
    protocol = MongoProtocol()
    transport = AbortableTransport() if transport is None else transport
    protocol.makeConnection(transport)
    return protocol, transport


def ping() -> Msg:
    """A command."""
    return Msg(body=bson.encode({"ping": 1, "$db": "admin"}))


def written(transport: StringTransport) -> list[Any]:
    """The messages that were written since the last call."""
    frames = Decoder().feed(transport.value())
    transport.clear()
    return [decode_message(frame) for frame in frames]


def answer(request: Any, document: dict[str, Any], flag_bits: int = 0) -> bytes:
    """The reply to ``request``, under a new id."""
    return Msg(next_request_id(), request.request_id, bson.encode(document), flag_bits).encode()


def reply_to(request: Any, **fields: Any) -> bytes:
    """An OP_REPLY to a request."""
    return LegacyReply(response_to=request.request_id, **fields).encode(next_request_id())
