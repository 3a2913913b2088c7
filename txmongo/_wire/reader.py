"""A position in the bytes of one message, from which integers, strings and documents are read.

Every message format but the shortest path of OP_MSG is read through it, so that each bound is checked in one place. A
document is taken as it stands: its length and its closing zero are checked, its elements are left to ``bson``.
"""

from __future__ import annotations

import struct
from typing import Final

from txmongo._wire.header import ProtocolError

__all__ = ["Reader", "to_cstring"]

_INT32: Final = struct.Struct("<i")
_UINT32: Final = struct.Struct("<I")
_INT64: Final = struct.Struct("<q")
_SMALLEST_DOCUMENT: Final = 5


def to_cstring(text: str) -> bytes:
    """Return ``text`` as zero-terminated UTF-8.

    :raises ValueError: if there is a zero inside.
    """
    data = text.encode()
    if b"\0" in data:
        raise ValueError("a name on the wire must not contain a null character")
    return data + b"\0"


class Reader:
    """Reads ``data`` from ``position`` up to ``end``; running past it is a :class:`ProtocolError`."""

    __slots__ = ("_data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self._data = data
        self.position = position
        self.end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self.end - self.position

    def _advance(self, size: int) -> int:
        """Step over ``size`` bytes; return where they start."""
        start = self.position
        if size > self.end - start:
            raise ProtocolError(f"message truncated: {size} bytes expected, {self.end - start} left")
        self.position = start + size
        return start

    def byte(self) -> int:
        return self._data[self._advance(1)]

    def int32(self) -> int:
        value: int = _INT32.unpack_from(self._data, self._advance(4))[0]
        return value

    def uint32(self) -> int:
        value: int = _UINT32.unpack_from(self._data, self._advance(4))[0]
        return value

    def int64(self) -> int:
        value: int = _INT64.unpack_from(self._data, self._advance(8))[0]
        return value

    def cstring(self) -> str:
        start = self.position
        stop = self._data.find(b"\0", start, self.end)
        if stop < 0:
            raise ProtocolError("a name in the message is not terminated")
        self.position = stop + 1
        try:
            return self._data[start:stop].decode()
        except UnicodeDecodeError:
            raise ProtocolError("a name in the message is not UTF-8") from None

    def document(self) -> bytes:
        start = self.position
        size = self.int32()
        self.position = start
        if size < _SMALLEST_DOCUMENT:
            raise ProtocolError(f"document length {size} is less than {_SMALLEST_DOCUMENT}")
        stop = self._advance(size) + size
        if self._data[stop - 1]:
            raise ProtocolError("a document in the message is not terminated")
        return self._data[start:stop]

    def documents(self) -> list[bytes]:
        """Read documents up to the end."""
        found = []
        while self.position < self.end:
            found.append(self.document())
        return found

    def part(self, size: int) -> Reader:
        """Step over the next ``size`` bytes and return a reader that is confined to them."""
        start = self._advance(size)
        return Reader(self._data, start, start + size)

    def finish(self) -> None:
        """Raise :class:`ProtocolError` if anything is left."""
        if self.remaining:
            raise ProtocolError(f"{self.remaining} bytes too many at the end of the message")
