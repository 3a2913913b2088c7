"""From a stream of bytes to messages.

:class:`Decoder` cuts the stream into whole messages ("frames") and looks at their headers only; :func:`decode_message`
takes one frame apart. They are two steps because most replies never need the second: see
:func:`txmongo._wire.op_msg.single_body`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from txmongo._wire.header import (
    DEFAULT_MAX_MESSAGE_SIZE,
    HEADER,
    HEADER_SIZE,
    KNOWN_OPCODES,
    OP_COMPRESSED,
    ProtocolError,
    check_header,
)
from txmongo._wire.op_compressed import decompress
from txmongo._wire.op_legacy import Delete, GetMore, Insert, KillCursors, Query, Reply, Update
from txmongo._wire.op_msg import Msg

__all__ = ["ROOM", "Decoder", "Frame", "Message", "decode_message"]

Message = Msg | Reply | Query | Update | Insert | GetMore | Delete | KillCursors

_MESSAGE_TYPES: Final[dict[int, type[Message]]] = {
    int(message_type.opcode): message_type
    for message_type in (Msg, Reply, Query, Update, Insert, GetMore, Delete, KillCursors)
}

_LENGTH: Final = struct.Struct("<i")
#: messageLength and opCode
_LENGTH_AND_OPCODE: Final = struct.Struct("<i8xi")


#: A whole message, header included.
Frame = bytes | bytearray

#: Bytes of a message that came in pieces above which it is not copied into a ``bytes`` of its own.
_LARGE: Final = 64 * 1024

#: Bytes of a message for which room is made at once. Measured with 16 MB of documents of 1.6 KB that are decoded
#: whenever it is full, and no garbage looked for meanwhile: 512 KiB take 1.07 times as long as 1 MiB, 2 MiB no less.
ROOM: Final = 1024 * 1024


class Decoder:
    """Cuts a stream into whole messages, in time linear in its bytes however they arrive.

    A message that comes in one piece is handed on as it is. One that comes in many is gathered in a ``bytearray``; a
    large one is handed on as that, for another copy of it would cost as much again.

    Of a very large one, parts may be taken out while it arrives. Room is made for its first part only, and twice as
    much each time that it is full: what nobody takes out is there when it is complete.

    :ivar max_message_size: the longest message allowed, in bytes; may be set once the handshake has told it.
    :ivar room: bytes for which room is made at first.
    :ivar on_full: called when the room is full and the message is not complete: the time for :meth:`take_out`.
    :ivar buffer: where a message that is not complete yet is gathered, of which :attr:`filled` bytes have come; empty
        if there is none.
    :ivar filled: how much of the message is there.
    :ivar length: how long it will be, once its header has come; what was taken out does not count.
    :ivar before_error: after :meth:`feed` has raised: the whole messages that came in the same data before what is
        wrong.
    """

    __slots__ = ("_error", "before_error", "buffer", "filled", "length", "max_message_size", "on_full", "room")

    def __init__(self, max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE, room: int = ROOM) -> None:
        self.max_message_size = max_message_size
        self.room = room
        self.on_full: Callable[[], None] | None = None
        self.before_error: list[Frame] = []
        self.buffer = bytearray()
        self.filled = 0
        self.length = 0
        self._error: ProtocolError | None = None

    @property
    def pending(self) -> bytes:
        """The bytes of a message that is not complete yet."""
        return bytes(self.buffer[: self.filled])

    @property
    def missing(self) -> int:
        """How many bytes of a message are still to come; 0 if none has begun, or only a part of its header has come."""
        return self.length - self.filled if self.filled >= HEADER_SIZE else 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream and return the messages that they complete, headers included.

        :raises ProtocolError: if a header is impossible. The stream cannot be read on: every later call raises it too.
        """
        if not self.buffer and len(data) >= HEADER_SIZE and self._error is None:
            length, opcode = _LENGTH_AND_OPCODE.unpack_from(data)
            if length == len(data) and length <= self.max_message_size and opcode in KNOWN_OPCODES:
                return [data]
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> list[Frame]:
        """Do what :meth:`feed` does, for data cut anyhow."""
        if self._error is not None:
            raise self._error
        frames: list[Frame] = []
        try:
            position = self._complete_buffer(data, frames) if self.buffer else 0
            if not self.buffer:
                position = self._cut(data, position, frames)
                self._gather(data[position:])
        except ProtocolError as error:
            self._error, self.before_error = error, frames
            self.buffer = bytearray()
            self.filled = 0
            raise
        return frames

    def _gather(self, start: bytes) -> None:
        """Begin to gather a message."""
        self.filled = len(start)
        if len(start) < HEADER_SIZE:
            self.buffer = bytearray(start)
        else:
            self.length = self._message_length(start, 0)
            self.buffer = bytearray(min(self.length, max(self.room, len(start))))
            self.buffer[: len(start)] = start

    def _complete_buffer(self, data: bytes, frames: list[Frame]) -> int:
        """Move bytes into the buffer, at most to the end of its message; return how many were moved."""
        position = 0
        if self.filled < HEADER_SIZE:
            position = min(HEADER_SIZE - self.filled, len(data))
            self._gather(bytes(self.buffer) + data[:position])
            if self.filled < HEADER_SIZE:
                return position
        while True:
            buffer, filled = self.buffer, self.filled
            end = min(position + len(buffer) - filled, len(data))
            self.filled = filled + end - position
            buffer[filled : self.filled] = memoryview(data)[position:end]
            position = end
            if self.filled < len(buffer):
                return position
            if self.filled == self.length:
                frames.append(buffer if len(buffer) > _LARGE else bytes(buffer))
                self.buffer = bytearray()
                self.filled = 0
                return position
            self._make_room()

    def _make_room(self) -> None:
        """Have something taken out of a message for which there is no room, or else make more."""
        if self.on_full is not None:
            self.on_full()
        size = len(self.buffer)
        if self.filled == size:
            self.buffer.extend(bytes(min(size, self.length - size)))

    def room_before(self, end: int) -> memoryview:
        """Where the next bytes of the message that arrives belong, for :meth:`written`; they are not looked at.

        :param end: how many of its last bytes there is no room for: the message is completed by :meth:`feed` alone.
        """
        return memoryview(self.buffer)[self.filled : min(len(self.buffer), self.length - end)]

    def written(self, count: int) -> bool:
        """Bytes were written to where they belong.

        :returns: whether the room was full, and :attr:`on_full` called.
        """
        self.filled += count
        full = self.filled == len(self.buffer)
        if full:
            self._make_room()
        return full

    def take_out(self, start: int, end: int) -> None:
        """Take bytes out of the message that arrives: it gets so much shorter, as its header then says.

        :param start: behind the header.
        :param end: at most :attr:`filled`.
        """
        buffer = self.buffer
        rest = buffer[end : self.filled]
        self.filled = start + len(rest)
        buffer[start : self.filled] = rest
        self.length -= end - start
        _LENGTH.pack_into(buffer, 0, self.length)
        del buffer[self.length :]

    def _cut(self, data: bytes, position: int, frames: list[Frame]) -> int:
        """Take whole messages out of ``data``; return where the first one that is not whole starts."""
        while len(data) - position >= HEADER_SIZE:
            end = position + self._message_length(data, position)
            if end > len(data):
                break
            frames.append(data[position:end])
            position = end
        return position

    def _message_length(self, data: bytes, position: int) -> int:
        """Return the length of the message whose header is at ``position``."""
        length: int
        length, opcode = _LENGTH_AND_OPCODE.unpack_from(data, position)
        check_header(length, opcode, self.max_message_size)
        return length


def decode_message(
    frame: Frame,
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
    message_types: Mapping[int, type[Message]] = _MESSAGE_TYPES,
) -> Message:
    """Return the message in ``frame``, taken out of an OP_COMPRESSED if it is in one.

    :param frame: a whole message, header included.
    :param max_message_size: bytes that it may have, compressed or not.
    :param message_types: what to make of it, by opcode.
    :raises ProtocolError: if it is anything but one correct message.
    """
    if len(frame) < HEADER_SIZE:
        raise ProtocolError("message is shorter than a header")
    length, request_id, response_to, opcode = HEADER.unpack_from(frame)
    check_header(length, opcode, max_message_size)
    if length != len(frame):
        raise ProtocolError(f"message length {length} in a message of {len(frame)} bytes")
    if opcode == OP_COMPRESSED:
        frame = decompress(bytes(frame), max_message_size)
        _, request_id, response_to, opcode = HEADER.unpack_from(frame)
    data = bytes(memoryview(frame)[HEADER_SIZE:])
    return message_types[opcode].decode(request_id, response_to, opcode, data)
