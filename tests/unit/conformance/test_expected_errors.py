"""Tests of the judgement of errors."""

from __future__ import annotations

from typing import Any

from bson.errors import InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    EncryptionError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.unified.expected_errors import is_driver_error, match_error
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import Matcher
from tests.unit.conformance.test_events import NoEntities

MATCHER = Matcher(NoEntities())
REPLY = {"ok": 0, "errmsg": "Duplicate key", "code": 11000, "codeName": "DuplicateKey", "keyValue": {"_id": 2}}
BULK = {
    "nInserted": 1,
    "nRemoved": 0,
    "nMatched": 0,
    "nModified": 0,
    "nUpserted": 0,
    "upserted": [],
    "writeErrors": [{"index": 1, "code": 112, "errmsg": "Write Conflict"}],
    "writeConcernErrors": [{"code": 100, "codeName": "UnsatisfiableWriteConcern", "errmsg": "too few"}],
}


def failure(reply: dict[str, Any] | None = None) -> OperationFailure:
    """A server's error."""
    reply = REPLY if reply is None else reply
    return OperationFailure(str(reply.get("errmsg")), reply.get("code"), reply)


class ExpectedErrorTests(SynchronousTestCase):
    """Expectations against errors."""

    def accept(self, error: Exception, **expected: Any) -> None:
        """As expected."""
        match_error(MATCHER, expected, error, "operation")

    def refuse(self, error: Exception, **expected: Any) -> None:
        """Not as expected."""
        self.assertRaises(Mismatch, match_error, MATCHER, expected, error, "operation")

    def test_any(self) -> None:
        """Any error will do where nothing else is said."""
        self.accept(failure(), isError=True)
        self.accept(ValueError("no"), isError=True)

    def test_client_error(self) -> None:
        """Errors that come from a server's reply are none of the client's; a lost connection is."""
        for error in (failure(), NotPrimaryError("no", {"code": 10107}), BulkWriteError(BULK)):
            self.accept(error, isClientError=False)
            self.refuse(error, isClientError=True)
        for client_error in (AutoReconnect("lost"), InvalidOperation("no"), ValueError("no")):
            self.accept(client_error, isClientError=True)
            self.refuse(client_error, isClientError=False)

    def test_encryption(self) -> None:
        """Of an error of encryption it is the error below it that counts."""
        self.accept(EncryptionError(failure()), isClientError=False, errorCode=11000, errorContains="duplicate key")
        self.refuse(EncryptionError(failure()), errorCode=79)
        self.accept(EncryptionError(ValueError("no")), isClientError=True)

    def test_timeout(self) -> None:
        """Whether an error is a timeout, the error itself says."""
        self.accept(NetworkTimeout("late"), isTimeoutError=True)
        self.refuse(AutoReconnect("lost"), isTimeoutError=True)
        self.refuse(NetworkTimeout("late"), isTimeoutError=False)

    def test_contains(self) -> None:
        """The message contains a text, whatever the case; of a bulk write any of its messages does."""
        self.accept(failure(), errorContains="duplicate KEY")
        self.refuse(failure(), errorContains="unique")
        self.accept(BulkWriteError(BULK), errorContains="write conflict")
        self.accept(BulkWriteError(BULK), errorContains="too few")

    def test_code(self) -> None:
        """The code is that of the server's reply; of a bulk write that of one of its errors."""
        self.accept(failure(), errorCode=11000)
        self.refuse(failure(), errorCode=11001)
        self.refuse(AutoReconnect("lost"), errorCode=11000)
        self.accept(BulkWriteError(BULK), errorCode=112)
        self.refuse(BulkWriteError(BULK), errorCode=65)

    def test_code_name(self) -> None:
        """The code's name is the reply's; a write error without a name is known by its number."""
        self.accept(failure(), errorCodeName="duplicatekey")
        self.refuse(failure(), errorCodeName="WriteConflict")
        self.accept(BulkWriteError(BULK), errorCodeName="UnsatisfiableWriteConcern")
        self.accept(BulkWriteError(BULK), errorCodeName="WriteConflict")
        self.refuse(BulkWriteError(BULK), errorCodeName="Interrupted")
        self.refuse(AutoReconnect("lost"), errorCodeName="Interrupted")

    def test_code_name_of_write_concern(self) -> None:
        """The name may stand in the reply's write concern error."""
        reply = {"ok": 1, "writeConcernError": {"code": 100, "codeName": "UnsatisfiableWriteConcern"}}
        self.accept(OperationFailure("no", 100, reply), errorCodeName="UnsatisfiableWriteConcern")

    def test_labels(self) -> None:
        """Labels are there or are not; an error that knows no labels has none."""
        error = PyMongoError("no")
        error._add_error_label("Transient")
        self.accept(error, errorLabelsContain=["Transient"], errorLabelsOmit=["Unknown"])
        self.refuse(error, errorLabelsContain=["Unknown"])
        self.refuse(error, errorLabelsOmit=["Transient"])
        self.refuse(ValueError("no"), errorLabelsContain=["Transient"])
        self.accept(ValueError("no"), errorLabelsOmit=["Transient"])

    def test_response(self) -> None:
        """The reply is compared as a root document; an error without a reply has none."""
        self.accept(failure(), errorResponse={"keyValue": {"_id": 2}})
        self.refuse(failure(), errorResponse={"keyValue": {"_id": 3}})
        self.refuse(AutoReconnect("lost"), errorResponse={"code": 1})

    def test_result(self) -> None:
        """What a bulk write did before it failed is compared; other errors hold no result."""
        self.accept(BulkWriteError(BULK), expectResult={"insertedCount": 1, "upsertedIds": {}})
        self.refuse(BulkWriteError(BULK), expectResult={"insertedCount": 0})
        self.refuse(failure(), expectResult={"insertedCount": 0})
        self.accept(failure(), expectResult={"$$unsetOrMatches": {"insertedCount": 0}})

    def test_max_time(self) -> None:
        """PyMongo's execution timeout is MaxTimeMSExpired."""
        self.accept(ExecutionTimeout("late", 50, {"code": 50}), errorCodeName="MaxTimeMSExpired")

    def test_malformed(self) -> None:
        """An empty expectation, an unknown one, and isError: false are errors of the case."""
        for expected in ({}, {"isError": False}, {"errorColour": "red"}):
            self.assertRaises(FormatError, match_error, MATCHER, expected, failure(), "operation")


class DriverErrorTests(SynchronousTestCase):
    """Which exceptions are errors that a driver reports."""

    def test_errors(self) -> None:
        """PyMongo's errors, bson's errors and refused arguments are."""
        for error in (failure(), ValueError("no"), TypeError("filter must be a mapping"), InvalidDocument("no")):
            self.assertTrue(is_driver_error(error))

    def test_holes(self) -> None:
        """A method or keyword that does not exist is not, nor is a failed assertion."""
        holes = [
            AttributeError("no attribute 'watch'"),
            TypeError("find() got an unexpected keyword argument 'let'"),
            TypeError("find() takes 1 positional argument but 2 were given"),
            TypeError("'NoneType' object is not callable"),
            NotImplementedError(),
            AssertionError(),
            KeyError("n"),
        ]
        self.assertEqual([is_driver_error(error) for error in holes], [False] * len(holes))
