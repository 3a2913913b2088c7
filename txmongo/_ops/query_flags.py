"""The flags of OP_QUERY, by which the types of cursors are told to this day, and the fields of ``find`` they became.

Kept: the "Find, getMore and killCursors commands" specification.
"""

from __future__ import annotations

from typing import Any

from pymongo import CursorType

from txmongo.errors import InvalidOperation

__all__ = [
    "AWAIT_DATA",
    "EXHAUST",
    "NO_CURSOR_TIMEOUT",
    "OPLOG_REPLAY",
    "PARTIAL",
    "TAILABLE",
    "check_cursor_type",
    "check_flags",
    "check_limit",
    "flag_fields",
]

TAILABLE = 2
OPLOG_REPLAY = 8
NO_CURSOR_TIMEOUT = 16
AWAIT_DATA = 32
EXHAUST = 64
PARTIAL = 128

_FIELDS = {
    TAILABLE: "tailable",
    OPLOG_REPLAY: "oplogReplay",
    NO_CURSOR_TIMEOUT: "noCursorTimeout",
    AWAIT_DATA: "awaitData",
    PARTIAL: "allowPartialResults",
}

_CURSOR_TYPES = frozenset({CursorType.NON_TAILABLE, CursorType.TAILABLE, CursorType.TAILABLE_AWAIT, CursorType.EXHAUST})


def flag_fields(flags: int) -> dict[str, Any]:
    """The fields of ``find`` for some flags; there is none for exhaust, which is a matter of how replies are read."""
    return {name: True for flag, name in _FIELDS.items() if flags & flag}


def check_cursor_type(cursor_type: int) -> int:
    """The flags that a ``cursor_type`` stands for.

    :raises ValueError: it is not one of ``CursorType``.
    """
    if cursor_type not in _CURSOR_TYPES:
        raise ValueError("cursor_type must be one of the constants of CursorType")
    return cursor_type


def check_flags(mask: int) -> int:
    """Refuse flags that are no number.

    :raises TypeError: they are not an int.
    """
    if not isinstance(mask, int):
        raise TypeError(f"mask must be an int, not {type(mask).__name__}")
    return mask


def check_limit(limit: int, flags: int) -> int:
    """Refuse a limit that is none, or none for a cursor with these flags.

    :raises TypeError: it is not an int.
    :raises InvalidOperation: the cursor is an exhaust cursor, for which there is no limit.
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit must be an int, not {type(limit).__name__}")
    if limit and flags & EXHAUST:
        raise InvalidOperation("limit and exhaust cannot be used together")
    return limit
