"""Tests of the translation of result objects to documents."""

from __future__ import annotations

from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.unified.results import result_document

BULK = {
    "nInserted": 1,
    "nRemoved": 2,
    "nMatched": 3,
    "nModified": 4,
    "nUpserted": 1,
    "upserted": [{"index": 5, "_id": "x"}],
}


class ResultTests(SynchronousTestCase):
    """One test for each class."""

    def test_inserts(self) -> None:
        """Inserts tell their ids, several by their index."""
        self.assertEqual(result_document(InsertOneResult(7, True)), {"acknowledged": True, "insertedId": 7})
        expected = {"acknowledged": True, "insertedIds": {"0": 7, "1": 8}}
        self.assertEqual(result_document(InsertManyResult([7, 8], True)), expected)

    def test_update(self) -> None:
        """An update tells its counts, and an upserted id only where there is one, null too."""
        plain = {"acknowledged": True, "matchedCount": 1, "modifiedCount": 1, "upsertedCount": 0}
        self.assertEqual(result_document(UpdateResult({"n": 1, "nModified": 1}, True)), plain)
        upserted = result_document(UpdateResult({"n": 1, "nModified": 0, "upserted": None}, True))
        self.assertEqual((upserted["upsertedCount"], upserted["upsertedId"]), (1, None))

    def test_delete(self) -> None:
        """A deletion tells its count."""
        self.assertEqual(result_document(DeleteResult({"n": 2}, True)), {"acknowledged": True, "deletedCount": 2})

    def test_bulk(self) -> None:
        """A bulk write tells its counts and the upserted ids by index."""
        expected = {
            "acknowledged": True,
            "insertedCount": 1,
            "deletedCount": 2,
            "matchedCount": 3,
            "modifiedCount": 4,
            "upsertedCount": 1,
            "upsertedIds": {"5": "x"},
        }
        self.assertEqual(result_document(BulkWriteResult(BULK, True)), expected)

    def test_unacknowledged(self) -> None:
        """What was not acknowledged tells no counts."""
        for result in (UpdateResult({}, False), DeleteResult({}, False), BulkWriteResult({}, False)):
            self.assertEqual(result_document(result), {"acknowledged": False})

    def test_others(self) -> None:
        """Documents and scalars stay as they are, in lists too."""
        self.assertEqual(result_document([{"a": 1}, 2, None]), [{"a": 1}, 2, None])
        self.assertEqual(result_document(()), [])
