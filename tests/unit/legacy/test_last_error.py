"""``txmongo._legacy.last_error``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmongo._legacy.last_error import check_last_error, last_error
from txmongo.errors import DuplicateKeyError, OperationFailure, WriteConcernError, WriteError


class LastErrorTests(SynchronousTestCase):
    """What is said of the last write."""

    def test_outcomes(self) -> None:
        """Each kind of write is told as the command told it."""
        fine = {"ok": 1.0, "err": None}
        for reply, expected in (
            (None, {"n": 0}),
            ({"ok": 1, "n": 2}, {"n": 2}),
            ({"ok": 1, "n": 2, "nModified": 1}, {"n": 2, "updatedExisting": True}),
            ({"ok": 1, "n": 0, "nModified": 0}, {"n": 0, "updatedExisting": False}),
            (
                {"ok": 1, "n": 1, "nModified": 0, "upserted": [{"index": 0, "_id": 7}]},
                {"n": 1, "updatedExisting": False, "upserted": 7},
            ),
            ({"n": 1, "updatedExisting": False, "upserted": 7}, {"n": 1, "updatedExisting": False, "upserted": 7}),
        ):
            self.assertEqual(last_error(reply), {**fine, **expected})  # type: ignore[arg-type]

    def test_errors(self) -> None:
        """What went wrong is raised as the write itself raised it."""
        for code, kind in ((11000, DuplicateKeyError), (121, WriteError)):
            reply = {"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": code, "errmsg": "no"}]}
            self.assertRaises(kind, last_error, reply)
        self.assertRaises(WriteConcernError, last_error, {"n": 1, "writeConcernError": {"code": 100, "errmsg": "few"}})

    def test_of_the_server(self) -> None:
        """The reply of a server that has the command is handed on, or raised if it says of an error."""
        self.assertEqual(check_last_error({"ok": 1, "err": None, "n": 1}), {"ok": 1, "err": None, "n": 1})
        error = self.assertRaises(DuplicateKeyError, check_last_error, {"ok": 1, "err": "E11000", "code": 11000})
        self.assertEqual(error.code, 11000)
        self.assertRaises(OperationFailure, check_last_error, {"ok": 1, "err": "other", "code": 2})
