"""``CommandCursor``: cursors of other commands than find. The executor waits for the test."""

from __future__ import annotations

import gc
from typing import Any

from bson import encode
from bson.raw_bson import RawBSONDocument

from tests.unit.reading import CursorCase
from txmongo._ops.admin import ListCollections
from txmongo._ops.aggregate import Aggregate
from txmongo.cursor import CommandCursor
from txmongo.errors import OperationFailure

ONE, TWO = {"_id": 1}, {"_id": 2}


class CommandCursorTests(CursorCase):
    """Cursors of other commands."""

    def cursor(self, pipeline: list[dict[str, Any]] | None = None, **options: Any) -> CommandCursor[Any]:
        """A cursor of an aggregation."""
        client: Any = self.client
        return CommandCursor(client, Aggregate("test", "things", pipeline or []), **options)

    def test_lazy(self) -> None:
        """It starts on first use and is a Deferred of the list."""
        cursor = self.cursor(batch_size=3, comment="c")
        self.assertEqual(self.executor.commands, [])
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(
            self.executor.commands[-1], {"getMore": 7, "collection": "things", "batchSize": 3, "comment": "c"}
        )
        self.executor.next_batch(TWO)
        self.assertEqual(self.results, [[ONE, TWO]])

    def test_batch_size(self) -> None:
        """The size of further batches may be set at any time."""
        cursor = self.cursor()
        first = cursor.next()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(first)
        self.assertIs(cursor.batch_size(4), cursor)
        cursor.next_batch()
        self.assertEqual(self.executor.commands[-1]["batchSize"], 4)
        wrong: Any = "4"
        self.assertRaises(TypeError, cursor.batch_size, wrong)
        self.assertRaises(ValueError, cursor.batch_size, -4)

    def test_try_next(self) -> None:
        """try_next does not wait beyond one batch."""
        cursor = self.cursor()
        document = cursor.try_next()
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.assertEqual(self.successResultOf(document), ONE)
        self.assertEqual(self.successResultOf(cursor.try_next()), TWO)
        document = cursor.try_next()
        self.executor.next_batch(cursor_id=7)
        self.assertIsNone(self.successResultOf(document))
        self.assertTrue(cursor.alive)
        document = cursor.try_next()
        self.executor.next_batch()
        self.assertIsNone(self.successResultOf(document))
        self.assertIsNone(self.successResultOf(cursor.try_next()))

    def test_awaiting(self) -> None:
        """A change stream, or a time to wait, makes getMore wait for data on a connection of its own."""
        for cursor, expected in (
            (self.cursor(max_await_time_ms=50), 50),
            (self.cursor([{"$changeStream": {}}]), None),
        ):
            batch = cursor.next_batch()
            self.executor.first_batch(cursor_id=7)
            self.successResultOf(batch)
            cursor.next_batch()
            self.assertEqual(self.executor.commands[-1].get("maxTimeMS"), expected)
            self.assertTrue(self.executor.operations[-1].exclusive)
            self.executor.held.clear()

    def test_empty_on(self) -> None:
        """Errors that mean that there is nothing give an empty list."""
        cursor = self.cursor(empty_on=[26])
        cursor.addCallback(self.results.append)
        self.executor.fail(OperationFailure("ns does not exist", 26))
        self.assertEqual(self.results, [[]])
        cursor = self.cursor(empty_on=[26])
        self.assertNoResult(cursor)
        self.executor.fail(OperationFailure("no", 13))
        self.failureResultOf(cursor, OperationFailure)

    def test_at_once(self) -> None:
        """A command that does something is sent without anybody waiting."""
        cursor = self.things.aggregate([{"$out": "other"}])
        self.assertEqual(self.executor.names(), ["aggregate"])
        self.executor.first_batch()
        self.assertEqual(self.successResultOf(cursor), [])

    def test_at_once_used_before(self) -> None:
        """It may be waited for before the answer as well."""
        cursor = self.things.aggregate([{"$out": "other"}])
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE)
        self.assertEqual(self.results, [[ONE]])

    def test_at_once_failed(self) -> None:
        """The error of such a command waits for whoever uses the cursor."""
        uses: list[Any] = [
            lambda cursor: cursor,
            lambda cursor: cursor.next_batch(),
            lambda cursor: cursor.next(),
            lambda cursor: cursor.to_list(),
        ]
        for use in uses:
            cursor = self.things.aggregate([{"$out": "other"}])
            self.executor.fail(OperationFailure("no"))
            self.failureResultOf(use(cursor), OperationFailure)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_at_once_failed_unseen(self) -> None:
        """If nobody ever uses it the error is logged."""
        cursor = self.things.aggregate([{"$out": "other"}])
        self.executor.fail(OperationFailure("no"))
        del cursor
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(OperationFailure)), 1)

    def test_other_commands(self) -> None:
        """Any command that makes a cursor will do."""
        client: Any = self.client
        cursor: CommandCursor[Any] = CommandCursor(client, ListCollections("test"))
        cursor.addCallback(self.results.append)
        self.executor.first_batch({"name": "a"}, namespace="test.$cmd.listCollections")
        self.assertEqual(self.results, [[{"name": "a"}]])


class RawTests(CursorCase):
    """Undecoded batches."""

    def test_aggregate(self) -> None:
        """An aggregation can be left undecoded as well."""
        cursor = self.things.aggregate_raw_batches([])
        cursor.addCallback(self.results.append)
        self.executor.first_batch(RawBSONDocument(encode(ONE)))
        self.assertEqual(self.results, [[encode(ONE)]])
