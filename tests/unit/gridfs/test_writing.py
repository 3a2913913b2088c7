"""The smaller parts of writing: errors, indexes, turns."""

from __future__ import annotations

from typing import Any

import gridfs.errors
from bson.int64 import Int64
from bson.son import SON
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmongo._gridfs import errors
from txmongo._gridfs.indexes import CHUNKS_INDEX, FILES_INDEX, has_index
from txmongo._gridfs.turns import Turns
from txmongo._gridfs.upload import single_error
from txmongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError, WriteConcernError, WriteError


class ErrorTests(SynchronousTestCase):
    """The classes of errors."""

    def test_classes(self) -> None:
        """They are PyMongo's, and FileExists is the DuplicateKeyError as well that TxMongo has raised."""
        for name in ("NoFile", "CorruptGridFile", "GridFSError"):
            self.assertIs(getattr(errors, name), getattr(gridfs.errors, name))
        self.assertTrue(issubclass(errors.UnsupportedAPI, errors.GridFSError))
        error = errors.FileExists("there", 11000, {"a": 1})
        for kind in (gridfs.errors.FileExists, DuplicateKeyError, errors.GridFSError):
            self.assertIsInstance(error, kind)
        self.assertEqual((error.code, error.details), (11000, {"a": 1}))

    def test_single_error(self) -> None:
        """An error of many inserts becomes what an insert of one would have raised, without the chunk in it."""
        refused = {"index": 0, "code": 121, "errmsg": "no", "op": {"data": b"secret"}}
        error: Any = single_error(BulkWriteError({"writeErrors": [refused], "writeConcernErrors": []}))
        self.assertIs(type(error), WriteError)
        self.assertEqual(error.details, {"index": 0, "code": 121, "errmsg": "no"})
        duplicate = {"index": 0, "code": 11000, "errmsg": "there", "op": {}}
        error = single_error(BulkWriteError({"writeErrors": [duplicate], "writeConcernErrors": []}))
        self.assertIs(type(error), errors.FileExists)
        concern = {"code": 64, "errmsg": "late"}
        error = single_error(BulkWriteError({"writeErrors": [], "writeConcernErrors": [concern]}))
        self.assertIs(type(error), WriteConcernError)
        self.assertIsInstance(single_error(DuplicateKeyError("there", 11000, {})), errors.FileExists)
        other = PyMongoError("other")
        self.assertIs(single_error(other), other)
        nothing = BulkWriteError({"writeErrors": [], "writeConcernErrors": []})
        self.assertIs(single_error(nothing), nothing)


class IndexTests(SynchronousTestCase):
    """has_index."""

    def test_by_value(self) -> None:
        """Keys count in their order, numbers by their value."""
        for one in (1, 1.0, Int64(1)):
            self.assertTrue(has_index([{"key": SON([("filename", one), ("uploadDate", 1)])}], FILES_INDEX))
        self.assertFalse(has_index([{"key": SON([("uploadDate", 1), ("filename", 1)])}], FILES_INDEX))
        self.assertFalse(has_index([{"key": {"_id": 1}}], CHUNKS_INDEX))
        self.assertFalse(has_index([], CHUNKS_INDEX))


class TurnsTests(SynchronousTestCase):
    """Turns."""

    def setUp(self) -> None:
        """Nothing is under way."""
        self.turns = Turns()
        self.begun: list[str] = []

    async def work(self, name: str, until: Deferred[Any]) -> Any:
        """Begin, and wait."""
        self.begun.append(name)
        return await until

    def test_order(self) -> None:
        """What was asked for later begins when what was asked for before has ended, well or not."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        one, two = self.turns.take(self.work, "one", first), self.turns.take(self.work, "two", second)
        self.assertEqual((self.begun, self.turns.free), (["one"], False))
        first.errback(ValueError())
        self.failureResultOf(one, ValueError)
        self.assertEqual(self.begun, ["one", "two"])
        second.callback(2)
        self.assertEqual(self.successResultOf(two), 2)
        self.assertTrue(self.turns.free)

    def test_cancel_waiting(self) -> None:
        """What is cancelled before its turn never begins, and who comes after it is not held up."""
        first: Deferred[int] = Deferred()
        one, two = self.turns.take(self.work, "one", first), self.turns.take(self.work, "two", Deferred())
        three = self.turns.take(self.work, "three", Deferred())
        two.cancel()
        self.failureResultOf(two, CancelledError)
        first.callback(1)
        self.successResultOf(one)
        self.assertEqual(self.begun, ["one", "three"])
        three.cancel()
        self.failureResultOf(three, CancelledError)
        self.assertTrue(self.turns.free)
