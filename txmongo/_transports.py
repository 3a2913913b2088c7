"""What the driver does with Twisted's transports beyond their interface: shortcuts for those that have them.

A transport that has none is used as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["direct_write", "write_on"]


def direct_write(transport: Any) -> Callable[[bytes], Any] | None:
    """The method by which a transport can be written to at once; ``None`` for one that has none of its own.

    It is looked for on the transport's class alone: a TLS transport lends the attributes of the one below it, and what
    is written there leaves in plain text.
    """
    if not hasattr(type(transport), "writeSomeData") or getattr(transport, "TLS", False):
        return None
    write_some: Callable[[bytes], Any] = transport.writeSomeData
    return write_some


def write_on(write_some: Callable[[bytes], Any], data: bytes, written: Any) -> bytes:
    """Go on handing a large message to the kernel while it takes some: Twisted offers it no more than 128 KiB at once.

    :param written: how much the first call has written, or the error that it met.
    :returns: what is left; after an error too, which the transport will meet again and report itself.
    """
    rest = memoryview(data)
    while isinstance(written, int) and written > 0:
        rest = rest[written:]
        written = write_some(rest) if rest else 0  # type: ignore[arg-type]  # it looks at it through a view anyway
    return bytes(rest)
