"""The header of every wire message, the opcodes, and the numbering of requests.

Only what all message formats share lives here; each format has a module of its own. Kept: "Standard Message Header" and
"Opcodes" of the MongoDB wire protocol.
"""

from __future__ import annotations

import itertools
import struct
from typing import Final

from pymongo.errors import ProtocolError

__all__ = [
    "DEFAULT_MAX_MESSAGE_SIZE",
    "HEADER",
    "HEADER_SIZE",
    "KNOWN_OPCODES",
    "OP_COMPRESSED",
    "OP_DELETE",
    "OP_GET_MORE",
    "OP_INSERT",
    "OP_KILL_CURSORS",
    "OP_MSG",
    "OP_MSG_LEGACY",
    "OP_NAMES",
    "OP_QUERY",
    "OP_REPLY",
    "OP_UPDATE",
    "Opcode",
    "ProtocolError",
    "check_header",
    "next_request_id",
]

OP_REPLY: Final = 1
OP_MSG_LEGACY: Final = 1000
OP_UPDATE: Final = 2001
OP_INSERT: Final = 2002
OP_QUERY: Final = 2004
OP_GET_MORE: Final = 2005
OP_DELETE: Final = 2006
OP_KILL_CURSORS: Final = 2007
OP_COMPRESSED: Final = 2012
OP_MSG: Final = 2013

#: Short names, as they stand in the names of the ``handle_*`` and ``send_*`` methods of the protocols.
OP_NAMES: Final[dict[int, str]] = {
    OP_REPLY: "REPLY",
    OP_MSG_LEGACY: "MSG",
    OP_UPDATE: "UPDATE",
    OP_INSERT: "INSERT",
    OP_QUERY: "QUERY",
    OP_GET_MORE: "GETMORE",
    OP_DELETE: "DELETE",
    OP_KILL_CURSORS: "KILL_CURSORS",
    OP_COMPRESSED: "COMPRESSED",
    OP_MSG: "MSG",
}

#: What a peer may send. OP_MSG_LEGACY is a name only: no server that this driver supports knows it.
KNOWN_OPCODES: Final = frozenset(OP_NAMES) - {OP_MSG_LEGACY}

#: messageLength, requestID, responseTo, opCode
HEADER: Final = struct.Struct("<iiii")
HEADER_SIZE: Final = HEADER.size

#: Bytes; the ``maxMessageSizeBytes`` of every supported server, used until the handshake has told it.
DEFAULT_MAX_MESSAGE_SIZE: Final = 48_000_000

_MAX_REQUEST_ID: Final = 2**31 - 1
_request_counter = itertools.count()


class Opcode(int):
    """An opcode that may also be called, since programs know ``message.opcode`` as a number and as a method."""

    __slots__ = ()

    def __call__(self) -> int:
        return int(self)


def next_request_id() -> int:
    """Return the next request id of this process: 1 to 2**31 - 1, then 1 again."""
    return next(_request_counter) % _MAX_REQUEST_ID + 1


def check_header(length: int, opcode: int, max_message_size: int) -> None:
    """Raise :class:`ProtocolError` unless a message may be that long and of that kind."""
    if length < HEADER_SIZE:
        raise ProtocolError(f"message length {length} is less than the {HEADER_SIZE} bytes of a header")
    if length > max_message_size:
        raise ProtocolError(f"message length {length} is more than the {max_message_size} bytes allowed")
    if opcode not in KNOWN_OPCODES:
        raise ProtocolError(f"unknown opcode {opcode}")
