"""``txmongo.utils``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmongo.utils import get_err


class GetErrTests(SynchronousTestCase):
    """What a reply says went wrong."""

    def test_error(self) -> None:
        """The text of the error is returned, or else its name."""
        self.assertEqual(
            get_err({"ok": 0, "errmsg": "no such command", "codeName": "CommandNotFound"}), "no such command"
        )
        self.assertEqual(get_err({"ok": 1, "err": "duplicate key", "code": 11000}), "duplicate key")
        self.assertEqual(get_err({"$err": "not primary"}), "not primary")
        self.assertEqual(get_err({"ok": 0, "codeName": "CommandNotFound"}), "CommandNotFound")

    def test_no_error(self) -> None:
        """Where nothing went wrong the default is returned."""
        self.assertIsNone(get_err({"ok": 1, "err": None}))
        self.assertEqual(get_err({}, "fine"), "fine")
