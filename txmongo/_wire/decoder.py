"""From a stream of bytes to messages.

:class:`Decoder` cuts the stream into whole messages ("frames") and looks at their headers only; :func:`decode_message`
takes one frame apart. They are two steps because most replies never need the second: see
:func:`txmongo._wire.op_msg.single_body`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
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

__all__ = ["Decoder", "Message", "decode_message"]

Message = Msg | Reply | Query | Update | Insert | GetMore | Delete | KillCursors

_MESSAGE_TYPES: Final[dict[int, type[Message]]] = {
    int(message_type.opcode): message_type
    for message_type in (Msg, Reply, Query, Update, Insert, GetMore, Delete, KillCursors)
}

#: messageLength and opCode
_LENGTH_AND_OPCODE: Final = struct.Struct("<i8xi")


class Decoder:
    """Cuts a stream into whole messages, in time linear in its bytes however they arrive.

    A message that comes in one piece is handed on as it is. One that comes in many is gathered in a ``bytearray``,
    which grows by a constant factor, and is copied out once when it is complete; what follows it is never put there.

    :ivar max_message_size: the longest message allowed, in bytes; may be set once the handshake has told it.
    :ivar buffer: what has come of a message that is not complete yet.
    :ivar before_error: after :meth:`feed` has raised: the whole messages that came in the same data before what is
        wrong.
    """

    __slots__ = ("_error", "_expected", "before_error", "buffer", "max_message_size")

    def __init__(self, max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE) -> None:
        self.max_message_size = max_message_size
        self.before_error: list[bytes] = []
        self.buffer = bytearray()
        #: The length of the message in the buffer, once its header is there.
        self._expected = 0
        self._error: ProtocolError | None = None

    @property
    def pending(self) -> bytes:
        """The bytes of a message that is not complete yet."""
        return bytes(self.buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the messages that they complete, headers included.

        :raises ProtocolError: if a header is impossible. The stream cannot be read on: every later call raises it too.
        """
        if not self.buffer and len(data) >= HEADER_SIZE and self._error is None:
            length, opcode = _LENGTH_AND_OPCODE.unpack_from(data)
            if length == len(data) and length <= self.max_message_size and opcode in KNOWN_OPCODES:
                return [data]
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> list[bytes]:
        """Do what :meth:`feed` does, for data cut anyhow."""
        if self._error is not None:
            raise self._error
        frames: list[bytes] = []
        try:
            position = self._complete_buffer(data, frames) if self.buffer else 0
            position = self._cut(data, position, frames)
        except ProtocolError as error:
            self._error, self.before_error = error, frames
            self.buffer = bytearray()
            raise
        if position < len(data):
            self.buffer += memoryview(data)[position:]
        return frames

    def _complete_buffer(self, data: bytes, frames: list[bytes]) -> int:
        """Move bytes into the buffer, at most to the end of its message; return how many were moved."""
        buffer = self.buffer
        position = 0
        if len(buffer) < HEADER_SIZE:
            position = min(HEADER_SIZE - len(buffer), len(data))
            buffer += data[:position]
            if len(buffer) < HEADER_SIZE:
                return position
            self._expected = self._message_length(buffer, 0)
        end = min(position + self._expected - len(buffer), len(data))
        buffer += memoryview(data)[position:end]
        if len(buffer) == self._expected:
            frames.append(bytes(buffer))
            self.buffer = bytearray()
        return end

    def _cut(self, data: bytes, position: int, frames: list[bytes]) -> int:
        """Take whole messages out of ``data``; return where the first one that is not whole starts."""
        if self.buffer:
            return position
        while len(data) - position >= HEADER_SIZE:
            self._expected = self._message_length(data, position)
            end = position + self._expected
            if end > len(data):
                break
            frames.append(data[position:end])
            position = end
        return position

    def _message_length(self, data: bytes | bytearray, position: int) -> int:
        """Return the length of the message whose header is at ``position``."""
        length: int
        length, opcode = _LENGTH_AND_OPCODE.unpack_from(data, position)
        check_header(length, opcode, self.max_message_size)
        return length


def decode_message(
    frame: bytes,
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
        frame = decompress(frame, max_message_size)
        _, request_id, response_to, opcode = HEADER.unpack_from(frame)
    return message_types[opcode].decode(request_id, response_to, opcode, frame[HEADER_SIZE:])
