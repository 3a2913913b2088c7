"""``txmongo.errors``: which exception a reply becomes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmongo import errors
from txmongo.errors import (
    CursorNotFound,
    DuplicateKeyError,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    WriteConcernError,
    WriteError,
    WTimeoutError,
    error_from_reply,
    write_error_from_reply,
)


class ErrorReplyTests(SynchronousTestCase):
    """Replies whose ``ok`` is not 1."""

    def error(self, **reply: Any) -> Any:
        """The exception for a reply that failed."""
        return error_from_reply({"ok": 0, "errmsg": "it failed", **reply})

    def test_success(self) -> None:
        """A reply that is ok is no error."""
        self.assertIs(error_from_reply({"ok": 1.0}), None)

    def test_classes(self) -> None:
        """The code decides on the class."""
        for code, expected in (
            (11000, DuplicateKeyError),
            (50, ExecutionTimeout),
            (43, CursorNotFound),
            (10107, NotPrimaryError),
            (13435, NotPrimaryError),
            (91, NotPrimaryError),
            (11600, NotPrimaryError),
            (59, OperationFailure),
            (None, OperationFailure),
        ):
            error = self.error(code=code) if code is not None else self.error()
            self.assertIs(type(error), expected, code)

    def test_not_primary_without_code(self) -> None:
        """Old servers say it in words only."""
        for text in ("not master", "node is recovering"):
            self.assertIsInstance(error_from_reply({"ok": 0, "errmsg": text}), NotPrimaryError)

    def test_details(self) -> None:
        """The reply is kept, labels and all."""
        error = self.error(code=59, errorLabels=["TransientTransactionError"])
        self.assertEqual(error.code, 59)
        self.assertTrue(error.has_error_label("TransientTransactionError"))
        self.assertEqual(error.details["errmsg"], "it failed")

    def test_allowed(self) -> None:
        """An error that the caller allows is an ordinary reply."""
        self.assertIs(error_from_reply({"ok": 0, "code": 59, "errmsg": "x"}, [59]), None)
        self.assertIs(error_from_reply({"ok": 0, "code": 59, "errmsg": "x"}, ["x"]), None)
        self.assertIsInstance(error_from_reply({"ok": 0, "code": 59, "errmsg": "x"}, [60]), OperationFailure)

    def test_no_message(self) -> None:
        """A reply without a message gets one."""
        self.assertIn("no message", str(error_from_reply({"ok": 0})))


class WriteReplyTests(SynchronousTestCase):
    """Replies that are ok and yet tell of a failed write."""

    def test_success(self) -> None:
        """A write that worked is no error."""
        self.assertIs(write_error_from_reply({"ok": 1, "n": 1}), None)

    def test_write_errors(self) -> None:
        """The last write error counts; a duplicate key has its own class."""
        reply = {"ok": 1, "writeErrors": [{"index": 0, "code": 2, "errmsg": "bad"}], "errorLabels": ["L"]}
        error = write_error_from_reply(reply)
        assert isinstance(error, WriteError)
        self.assertEqual((error.code, error.has_error_label("L")), (2, True))
        reply = {"ok": 1, "writeErrors": [{"code": 11000, "errmsg": "dup", "keyValue": {"a": 1}}]}
        error = write_error_from_reply(reply)
        assert isinstance(error, DuplicateKeyError)
        self.assertEqual((error.details or {})["keyValue"], {"a": 1})

    def test_write_concern_errors(self) -> None:
        """A write concern error is told apart from a timeout and from a step-down."""
        for problem, expected in (
            ({"code": 100, "errmsg": "not enough"}, WriteConcernError),
            ({"code": 64, "errmsg": "waiting for replication timed out"}, WTimeoutError),
            ({"code": 100, "errmsg": "x", "errInfo": {"wtimeout": True}}, WTimeoutError),
            ({"code": 91, "errmsg": "shutting down"}, NotPrimaryError),
        ):
            error = write_error_from_reply({"ok": 1, "writeConcernError": problem, "errorLabels": ["L"]})
            self.assertIs(type(error), expected)
            assert error is not None
            self.assertTrue(error.has_error_label("L"))

    def test_time_exceeded(self) -> None:
        """TimeExceeded is a timeout among PyMongo's errors."""
        self.assertTrue(errors.TimeExceeded("x").timeout)
