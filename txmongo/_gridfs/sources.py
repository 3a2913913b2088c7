"""What may be written to a file: bytes, text if the file has an encoding, and whatever has a ``read`` method."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

__all__ = ["as_bytes", "check_source", "is_stream", "read_from"]


def is_stream(data: Any) -> bool:
    """Whether it is something to read from."""
    return not isinstance(data, (str, bytes, bytearray, memoryview)) and hasattr(data, "read")


def check_source(data: Any, encoding: str | None) -> None:
    """Refuse what cannot be written.

    :raises TypeError: it is neither bytes nor a str nor anything with a ``read`` method, or it is a str and the file
        has no encoding.
    """
    if isinstance(data, str):
        if encoding is None:
            raise TypeError("data: must specify an encoding for file in order to write str")
    elif not isinstance(data, (bytes, bytearray, memoryview)) and not hasattr(data, "read"):
        raise TypeError(f"data: can only write bytes, str or file-like objects, not {type(data).__name__}")


def as_bytes(data: Any, encoding: str | None) -> bytes:
    """The bytes that stand for data that is no stream; a copy of those that may change.

    :raises TypeError: as :func:`check_source`.
    """
    if isinstance(data, bytes):
        return data
    check_source(data, encoding)
    if isinstance(data, str):
        assert encoding is not None
        return data.encode(encoding)
    return bytes(data)


async def read_from(stream: Any, size: int, encoding: str | None) -> bytes:
    """The next bytes of a stream, whose ``read`` may give a Deferred or another awaitable; empty at its end.

    :raises TypeError: it gave something that is neither bytes nor, for a file with an encoding, a str.
    """
    data = stream.read(size)
    if isinstance(data, Awaitable):
        data = await data
    if hasattr(data, "read"):
        raise TypeError(f"data: read() gave a {type(data).__name__} instead of bytes")
    return as_bytes(data, encoding)
