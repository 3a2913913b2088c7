"""What insert, update, save and remove of TxMongo 15.2 mean."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo.results import DeleteResult, UpdateResult
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from txmongo._legacy.writes import (
    checked_flags,
    concern_for,
    delete_spec,
    error_of_insert,
    has_operators,
    outcome_of_delete,
    outcome_of_update,
)
from txmongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteConcernError, WTimeoutError

MAJORITY = WriteConcern(w="majority")
UNACKNOWLEDGED = WriteConcern(w=0)


class ConcernTests(SynchronousTestCase):
    """:func:`concern_for`."""

    def test_inherited(self) -> None:
        """Without anything said the collection's counts, whatever it is."""
        for inherited in (WriteConcern(), MAJORITY, UNACKNOWLEDGED):
            self.assertIs(concern_for("insert", None, inherited, {}), inherited)

    def test_safe(self) -> None:
        """safe=True is the inherited one if that is acknowledged, else the server's default."""
        self.assertIs(concern_for("insert", True, MAJORITY, {}), MAJORITY)
        self.assertEqual(concern_for("insert", True, UNACKNOWLEDGED, {}), WriteConcern())

    def test_not_safe(self) -> None:
        """safe=False waits for no answer."""
        self.assertEqual(concern_for("insert", False, MAJORITY, {}), UNACKNOWLEDGED)

    def test_explicit(self) -> None:
        """w, wtimeout, j and fsync win over safe and over the collection's."""
        for options in ({"w": 0}, {"w": 2, "wtimeout": 5}, {"j": True}, {"fsync": True}, {"w": "majority"}):
            for safe in (None, True, False):
                self.assertEqual(concern_for("insert", safe, MAJORITY, options), WriteConcern(**options))

    def test_nothing_explicit(self) -> None:
        """A keyword that is None says nothing."""
        self.assertIs(concern_for("insert", None, MAJORITY, {"w": None, "j": None}), MAJORITY)

    def test_unknown(self) -> None:
        """Another keyword is refused by its name."""
        error = self.assertRaises(TypeError, concern_for, "remove", None, MAJORITY, {"mutli": True, "w": 1})
        self.assertEqual(str(error), "remove() got an unexpected keyword argument 'mutli'")


class ArgumentTests(SynchronousTestCase):
    """The other arguments."""

    def test_flags(self) -> None:
        """Flags are an int."""
        self.assertEqual(checked_flags(3), 3)
        for wrong in ("1", None, True):
            self.assertIn("flags", str(self.assertRaises(TypeError, checked_flags, wrong)))

    def test_operators(self) -> None:
        """The first key tells operators from a document."""
        self.assertTrue(has_operators({"$set": {"a": 1}}))
        for document in ({}, {"a": 1}, {"a": 1, "$set": {}}, RawBSONDocument(b"\x05\0\0\0\0")):
            self.assertFalse(has_operators(document))

    def test_delete_spec(self) -> None:
        """remove takes a mapping or an ObjectId."""
        key = ObjectId()
        self.assertEqual(delete_spec(key), {"_id": key})
        spec = SON(a=1)
        self.assertIs(delete_spec(spec), spec)
        for wrong in (None, 5, "x", []):
            self.assertIn("spec", str(self.assertRaises(TypeError, delete_spec, wrong)))


class OutcomeTests(SynchronousTestCase):
    """What getLastError would have said."""

    def test_update(self) -> None:
        """Of an update: how many matched, and that they were there before."""
        raw = {"n": 2, "nModified": 1, "ok": 1.0, "updatedExisting": True, "$clusterTime": {}}
        self.assertEqual(
            outcome_of_update(UpdateResult(raw, True)),
            {"ok": 1.0, "err": None, "n": 2, "nModified": 1, "updatedExisting": True},
        )

    def test_upsert(self) -> None:
        """Of an upsert: its _id, also where that is false."""
        raw = {"n": 1, "nModified": 0, "ok": 1.0, "updatedExisting": False, "upserted": 0}
        outcome = outcome_of_update(UpdateResult(raw, True))
        self.assertEqual(
            outcome, {"ok": 1.0, "err": None, "n": 1, "nModified": 0, "updatedExisting": False, "upserted": 0}
        )

    def test_delete(self) -> None:
        """Of a delete: how many are gone."""
        self.assertEqual(outcome_of_delete(DeleteResult({"n": 3, "ok": 1}, True)), {"ok": 1.0, "err": None, "n": 3})

    def test_unacknowledged(self) -> None:
        """Nothing, if nothing was asked for."""
        self.assertIsNone(outcome_of_update(UpdateResult(None, False)))
        self.assertIsNone(outcome_of_delete(DeleteResult({}, False)))


class InsertErrorTests(SynchronousTestCase):
    """:func:`error_of_insert`."""

    def error(self, **details: Any) -> Any:
        """The error for a BulkWriteError with these details."""
        return error_of_insert(BulkWriteError({"writeErrors": [], "writeConcernErrors": [], **details}))

    def test_duplicate(self) -> None:
        """A key that is taken is a DuplicateKeyError, without the document."""
        found = self.error(writeErrors=[{"index": 1, "code": 11000, "errmsg": "E11000", "op": {"password": "x"}}])
        self.assertIs(type(found), DuplicateKeyError)
        self.assertEqual(found.code, 11000)
        self.assertNotIn("op", found.details)

    def test_last(self) -> None:
        """Of several errors the last one counts."""
        errors = [{"index": 0, "code": 11000, "errmsg": "first"}, {"index": 2, "code": 121, "errmsg": "last"}]
        found = self.error(writeErrors=errors)
        self.assertIsInstance(found, OperationFailure)
        self.assertNotIsInstance(found, (DuplicateKeyError, BulkWriteError))
        self.assertEqual((found.code, str(found).partition(",")[0]), (121, "last"))

    def test_concern(self) -> None:
        """A write concern that was not kept has its own errors."""
        concern_error = {"code": 100, "errmsg": "not enough members", "errorLabels": ["L"]}
        found = self.error(writeConcernErrors=[concern_error])
        self.assertIs(type(found), WriteConcernError)
        self.assertTrue(found.has_error_label("L"))
        late = {"code": 64, "errmsg": "waiting timed out", "errInfo": {"wtimeout": True}}
        self.assertIs(type(self.error(writeConcernErrors=[late])), WTimeoutError)

    def test_nothing(self) -> None:
        """An error that tells of nothing stays as it is."""
        self.assertIs(type(self.error()), BulkWriteError)
