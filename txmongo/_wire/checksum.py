"""CRC-32C, the checksum that an OP_MSG may end with, through ``google_crc32c`` or ``crc32c`` where one is installed.

There is no fallback in Python: at a megabyte or so a second it would hold the reactor for most of a minute on the
largest message, to check what TCP and TLS have checked already.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from txmongo._wire.optional import first_importable

__all__ = ["Extend", "checksum", "choose_extend", "verifiable"]

#: ``extend(value, data)``: the checksum of what gave ``value`` followed by ``data``.
Extend = Callable[[int, bytes], int]


def choose_extend(google: ModuleType | None, other: ModuleType | None) -> Extend | None:
    """Return the CRC-32C of one of two libraries, or None if neither has a fast one.

    :param google: ``google_crc32c`` if it is installed; its slow form, without the C extension, is passed over.
    :param other: ``crc32c`` if it is installed.
    """
    if google is not None and google.implementation == "c":
        extend: Extend = google.extend
        return extend
    if other is not None:
        crc32c = other.crc32c

        def extend_other(value: int, data: bytes) -> int:
            result: int = crc32c(data, value)
            return result

        return extend_other
    return None


_extend: Extend | None = choose_extend(first_importable("google_crc32c"), first_importable("crc32c"))


def verifiable() -> bool:
    """Tell whether checksums can be computed here."""
    return _extend is not None


def checksum(*chunks: bytes) -> int | None:
    """Return the CRC-32C of ``chunks`` one after another, or None where no library computes it."""
    if _extend is None:
        return None
    value = 0
    for chunk in chunks:
        value = _extend(value, chunk)
    return value
