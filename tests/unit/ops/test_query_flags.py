"""The flags of cursors: what they become in the command, and what is refused."""

from __future__ import annotations

from typing import Any

from pymongo import CursorType
from twisted.trial.unittest import SynchronousTestCase

from txmongo._ops.query_flags import (
    EXHAUST,
    NO_CURSOR_TIMEOUT,
    OPLOG_REPLAY,
    PARTIAL,
    TAILABLE,
    check_cursor_type,
    check_flags,
    check_limit,
    flag_fields,
)
from txmongo.errors import InvalidOperation


class FieldTests(SynchronousTestCase):
    """What flags become."""

    def test_each(self) -> None:
        """Each has its field; exhaust has none, nor have flags that nobody has heard of."""
        for flags, names in (
            (0, []),
            (TAILABLE, ["tailable"]),
            (OPLOG_REPLAY, ["oplogReplay"]),
            (NO_CURSOR_TIMEOUT, ["noCursorTimeout"]),
            (PARTIAL, ["allowPartialResults"]),
            (CursorType.TAILABLE_AWAIT, ["tailable", "awaitData"]),
            (EXHAUST, []),
            (1 << 9, []),
            (EXHAUST | PARTIAL | TAILABLE, ["tailable", "allowPartialResults"]),
        ):
            self.assertEqual(flag_fields(flags), dict.fromkeys(names, True))


class CheckTests(SynchronousTestCase):
    """What is let through, and what is not."""

    def test_cursor_type(self) -> None:
        """The four types are flags; other flags are no type."""
        for name in ("NON_TAILABLE", "TAILABLE", "TAILABLE_AWAIT", "EXHAUST"):
            self.assertEqual(check_cursor_type(getattr(CursorType, name)), getattr(CursorType, name))
        for wrong in (1, PARTIAL, CursorType.TAILABLE | EXHAUST, -1):
            self.assertIn("cursor_type", str(self.assertRaises(ValueError, check_cursor_type, wrong)))

    def test_flags(self) -> None:
        """Flags are a number."""
        self.assertEqual(check_flags(PARTIAL), PARTIAL)
        wrong: Any = "128"
        self.assertIn("mask must be an int, not str", str(self.assertRaises(TypeError, check_flags, wrong)))

    def test_limit(self) -> None:
        """A limit is a number, of either sign."""
        for limit in (0, 5, -5):
            self.assertEqual(check_limit(limit, TAILABLE), limit)
        wrong: Any
        for wrong in ("5", 5.0, True, None):
            self.assertIn("limit must be an int", str(self.assertRaises(TypeError, check_limit, wrong, 0)))

    def test_exhaust(self) -> None:
        """An exhaust cursor has no limit, or one that is none."""
        self.assertEqual(check_limit(0, EXHAUST), 0)
        for limit in (5, -5):
            self.assertRaises(InvalidOperation, check_limit, limit, EXHAUST | PARTIAL)
