"""``txmongo.cursor``: when a cursor starts, who gets its documents, how it ends. The executor waits for the test."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from typing import Any

from bson import encode
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo import CursorType
from pymongo.collation import Collation
from pymongo.read_preferences import Secondary
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredLock,
    FirstError,
    gatherResults,
    inlineCallbacks,
    race,
    succeed,
)
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import Clock

from tests.unit.reading import ADDRESS, Context, CursorCase, held_database, session_of
from txmongo._lazy_deferred import CALLBACKS
from txmongo._ops.distinct import Distinct
from txmongo._ops.server_sessions import ServerSessionPool
from txmongo._ops.session_state import SessionUse
from txmongo.cursor import CommandCursor, Cursor, RawBatchCommandCursor, RawBatchCursor
from txmongo.errors import AutoReconnect, CursorNotFound, ExecutionTimeout, InvalidOperation, OperationFailure

ONE, TWO, THREE = {"_id": 1}, {"_id": 2}, {"_id": 3}


class FirstUseTests(CursorCase):
    """A cursor starts when somebody waits for it, in whatever way."""

    def finds(self) -> Cursor[Any]:
        """A cursor, of which nothing was sent."""
        cursor = self.things.find()
        self.assertEqual(self.executor.commands, [])
        self.assertFalse(cursor.started)
        return cursor

    def answered(self) -> None:
        """It was sent once; the server answers."""
        self.assertEqual(self.executor.names(), ["find"])
        self.executor.first_batch(ONE, TWO)

    def test_addCallback(self) -> None:
        """addCallback starts it."""
        self.finds().addCallback(self.results.append)
        self.answered()
        self.assertEqual(self.results, [[ONE, TWO]])

    def test_addErrback(self) -> None:
        """addErrback starts it."""
        cursor = self.finds()
        cursor.addErrback(self.results.append)
        self.executor.fail(OperationFailure("no"))
        self.assertIsInstance(self.results[0].value, OperationFailure)

    def test_addBoth(self) -> None:
        """addBoth starts it."""
        self.finds().addBoth(self.results.append)
        self.answered()
        self.assertEqual(self.results, [[ONE, TWO]])

    def test_addCallbacks(self) -> None:
        """addCallbacks starts it."""
        self.finds().addCallbacks(self.results.append, self.fail)
        self.answered()
        self.assertEqual(self.results, [[ONE, TWO]])

    def test_addTimeout(self) -> None:
        """addTimeout starts it, and can end it."""
        clock = Clock()
        cursor = self.finds()
        cursor.addTimeout(5, clock)
        self.assertEqual(self.executor.names(), ["find"])
        clock.advance(5)
        self.failureResultOf(cursor, TimedOut)

    def test_chainDeferred(self) -> None:
        """chainDeferred starts it."""
        other: Deferred[Any] = Deferred()
        self.finds().chainDeferred(other)
        self.answered()
        self.assertEqual(self.successResultOf(other), [ONE, TWO])

    def test_asFuture(self) -> None:
        """asFuture starts it."""
        results = self.results

        class Future:
            def add_done_callback(self, callback: Any) -> None:
                pass

            def done(self) -> bool:
                return False

            def cancelled(self) -> bool:
                return False

            def set_result(self, result: Any) -> None:
                results.append(result)

        class Loop:
            create_future = Future

        loop: Any = Loop()
        self.finds().asFuture(loop)
        self.answered()
        self.assertEqual(self.results, [[ONE, TWO]])

    def test_await(self) -> None:
        """Awaiting starts it."""

        async def use() -> list[Any]:
            return await self.finds()

        used = Deferred.fromCoroutine(use())
        self.answered()
        self.assertEqual(self.successResultOf(used), [ONE, TWO])

    def test_await_what_is_there(self) -> None:
        """Awaiting one whose documents have all come gives those that are left, not None."""
        cursor = self.finds()
        batch = cursor.next_batch()
        self.answered()
        self.assertEqual(self.successResultOf(batch), [ONE, TWO])

        async def use() -> list[Any]:
            return await cursor

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(use())), [])

    def test_yield(self) -> None:
        """Yielding it in inlineCallbacks starts it."""

        @inlineCallbacks
        def use() -> Generator[Deferred[Any], Any, Any]:
            documents = yield self.finds()
            return documents

        used = use()
        self.answered()
        self.assertEqual(self.successResultOf(used), [ONE, TWO])

    def test_gatherResults(self) -> None:
        """gatherResults starts it."""
        gathered = gatherResults([self.finds()])
        self.answered()
        self.assertEqual(self.successResultOf(gathered), [[ONE, TWO]])

    def test_DeferredList(self) -> None:
        """DeferredList starts it."""
        listed = DeferredList([self.finds()])
        self.answered()
        self.assertEqual(self.successResultOf(listed), [(True, [ONE, TWO])])

    def test_race(self) -> None:
        """race starts it."""
        never: Deferred[Any] = Deferred()
        raced = race([self.finds(), never])
        self.answered()
        self.assertEqual(self.successResultOf(raced), (0, [ONE, TWO]))

    def test_async_for(self) -> None:
        """Iterating starts it."""

        async def use() -> list[Any]:
            return [document async for document in self.finds()]

        used = Deferred.fromCoroutine(use())
        self.answered()
        self.assertEqual(self.successResultOf(used), [ONE, TWO])

    def test_batches(self) -> None:
        """Iterating over its batches starts it."""

        async def use() -> list[Any]:
            return [batch async for batch in self.finds().batches()]

        used = Deferred.fromCoroutine(use())
        self.answered()
        self.assertEqual(self.successResultOf(used), [[ONE, TWO]])

    def test_next_batch(self) -> None:
        """next_batch starts it."""
        batch = self.finds().next_batch()
        self.answered()
        self.assertEqual(self.successResultOf(batch), [ONE, TWO])

    def test_next(self) -> None:
        """next and anext start it."""
        cursor = self.finds()
        first = cursor.next()
        self.answered()
        self.assertEqual(self.successResultOf(first), ONE)

        async def use() -> Any:
            return await anext(cursor)

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(use())), TWO)

    def test_to_list(self) -> None:
        """to_list starts it."""
        listed = self.finds().to_list()
        self.answered()
        self.assertEqual(self.successResultOf(listed), [ONE, TWO])

    def test_returned_from_callback(self) -> None:
        """Being returned from a callback starts it, though Twisted calls no method of it."""
        outer: Deferred[Any] = succeed(None)
        outer.addCallback(lambda _: self.finds())
        self.assertNoResult(outer)
        self.answered()
        self.assertEqual(self.successResultOf(outer), [ONE, TWO])

    def test_returned_from_callback_and_failed_at_once(self) -> None:
        """A cursor that fails while it starts passes that on to what it was returned to."""
        database, client = held_database()
        client.executor.execute = lambda operation: _failed()  # type: ignore[method-assign]
        outer: Deferred[Any] = Deferred()
        outer.addCallback(lambda _: Cursor(database["things"]))
        outer.addErrback(lambda failure: failure.trap(InvalidOperation))
        after: list[Any] = []
        outer.addCallback(after.append)
        outer.callback(None)
        self.assertEqual(after, [InvalidOperation])

    def test_lock(self) -> None:
        """Running find under a DeferredLock starts it, when the lock is had."""
        lock = DeferredLock()
        self.successResultOf(lock.acquire())
        held = lock.run(self.things.find)
        self.assertEqual(self.executor.names(), [])
        lock.release()
        self.answered()
        self.assertEqual(self.successResultOf(held), [ONE, TWO])

    def test_cancelled_lock(self) -> None:
        """Cancelling what waits under a DeferredLock cancels the cursor."""
        held = DeferredLock().run(self.things.find)
        held.cancel()
        self.failureResultOf(held, CancelledError)

    def test_returned_from_coroutine(self) -> None:
        """Returned from a coroutine it is handed on as it is, not started."""

        async def use() -> Any:
            return self.things.find()

        results: list[Any] = []

        async def outer() -> None:
            results.append(await use())

        self.successResultOf(Deferred.fromCoroutine(outer()))
        self.assertIsInstance(results[0], Cursor)
        self.assertEqual(self.executor.commands, [])

    def test_looking_is_no_use(self) -> None:
        """Its repr and properties do not start it."""
        cursor = self.finds()
        repr(cursor)
        self.assertEqual(
            (cursor.alive, cursor.exhausted, cursor.cursor_id, cursor.address, cursor.session, cursor.retrieved),
            (True, False, None, None, None, 0),
        )
        self.assertIs(cursor.collection, self.things)
        self.assertEqual(self.executor.commands, [])

    def test_once(self) -> None:
        """Any number of callbacks start it once."""
        cursor = self.finds()
        for _ in range(3):
            cursor.addCallback(list)
        cursor.addCallback(self.results.append)
        self.answered()
        self.assertEqual(self.results, [[ONE, TWO]])
        cursor.addCallback(self.results.append)
        self.assertEqual(self.results[1:], [None])


def _failed() -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    deferred.errback(InvalidOperation("the client is closed"))
    return deferred


class AttributeTests(CursorCase):
    """A cursor is a Deferred in every respect."""

    def test_hides_nothing(self) -> None:
        """No attribute takes the place of one of Deferred's, but for the seam and cancel, which calls its own."""
        mine = set(vars(self.things.find())) - set(vars(Deferred()))
        for kind in (Cursor, CommandCursor, RawBatchCursor, RawBatchCommandCursor):
            for base in kind.__mro__[: kind.__mro__.index(Deferred)]:
                mine |= set(vars(base))
        theirs = set(dir(Deferred)) | set(vars(Deferred()))
        hidden = {name for name in mine & theirs if not name.startswith("__") and name != "_abc_impl"}
        self.assertEqual(hidden, {CALLBACKS, "cancel"})

    def test_seam(self) -> None:
        """The seam is the list of callbacks of the Twisted that is installed."""
        self.assertIn(CALLBACKS, vars(Deferred()))


class ListTests(CursorCase):
    """The Deferred of the list."""

    def test_one_batch(self) -> None:
        """A first batch that is everything is the result, with one command and no further Deferred."""
        cursor = self.things.find()
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE, TWO)
        self.assertEqual(self.results, [[ONE, TWO]])
        self.assertEqual(self.executor.names(), ["find"])
        self.assertTrue(cursor.exhausted)
        self.assertFalse(cursor.alive)

    def test_many_batches(self) -> None:
        """The batches are asked for one after another, of the server that has the cursor."""
        cursor = self.things.find(batch_size=2, comment="c")
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual((cursor.cursor_id, cursor.address), (7, ADDRESS))
        self.executor.next_batch(cursor_id=7)
        self.executor.next_batch(TWO, cursor_id=7)
        self.executor.next_batch(THREE)
        self.assertEqual(self.results, [[ONE, TWO, THREE]])
        more = {"getMore": 7, "collection": "things", "batchSize": 2, "comment": "c"}
        self.assertEqual(self.executor.commands[1:], [more] * 3)
        self.assertEqual(self.executor.operations[1].address, ADDRESS)
        self.assertEqual(cursor.retrieved, 3)

    def test_one_large_batch(self) -> None:
        """As a list a cursor asks for all that a batch can hold, where the application has not said how many."""
        everything = {"batchSize": 2**31 - 1}
        for options, asked in (
            ({}, everything),
            ({"limit": 500}, {"limit": 500, **everything}),
            ({"batch_size": 5}, {"batchSize": 5}),
            ({"limit": 5, "batch_size": 5}, {"limit": 5, "batchSize": 6}),
            ({"limit": -5}, {"limit": 5, "singleBatch": True, "batchSize": 5}),
            ({"limit": -1}, {"limit": 1, "singleBatch": True}),
        ):
            self.things.find(**options).addCallback(self.results.append)
            self.assertEqual(self.executor.commands[-1], {"find": "things", "filter": {}, **asked})
        self.things.find().to_list()
        self.assertEqual(self.executor.commands[-1], {"find": "things", "filter": {}, **everything})
        tailing = self.things.find(cursor_type=CursorType.TAILABLE)
        tailing.addCallback(self.results.append)
        self.assertNotIn("batchSize", self.executor.commands[-1])
        explained = self.things.find().explain()
        explained.addCallback(self.results.append)
        self.assertEqual(self.executor.commands[-1]["explain"], {"find": "things", "filter": {}})

    def test_rewound_from_the_list(self) -> None:
        """Rewound, a cursor whose list was wanted begins as any other."""
        cursor = self.things.find()
        listed = cursor.to_list()
        self.executor.first_batch(ONE)
        self.assertEqual(self.successResultOf(listed), [ONE])
        first = cursor.rewind().next()
        self.assertEqual(self.executor.commands[-1], {"find": "things", "filter": {}})
        self.executor.first_batch(ONE)
        self.assertEqual(self.successResultOf(first), ONE)

    def test_one_after_another(self) -> None:
        """Otherwise the first batch is as large as the server has it."""
        uses: tuple[Callable[[Cursor[Any]], Any], ...] = (
            Cursor.next_batch,
            Cursor.next,
            lambda cursor: cursor.to_list(5),
        )
        for use in uses:
            use(self.things.find())
            self.assertEqual(self.executor.commands[-1], {"find": "things", "filter": {}})

    def test_reply_kept(self) -> None:
        """The reply is not changed by what comes later: a listener may have kept it."""
        cursor = self.things.find()
        cursor.addCallback(self.results.append)
        reply: dict[str, Any] = {"cursor": {"firstBatch": [ONE], "id": 7, "ns": "test.things"}}
        self.executor.answer(reply)
        self.executor.next_batch(TWO)
        self.assertEqual(reply["cursor"]["firstBatch"], [ONE])

    def test_namespace(self) -> None:
        """getMore goes to the namespace that the server named."""
        cursor = self.things.find()
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE, cursor_id=7, namespace="other.a.b")
        self.assertEqual(self.executor.operations[1].database, "other")
        self.assertEqual(self.executor.commands[1]["collection"], "a.b")

    def test_error(self) -> None:
        """An error of the first command is that of the Deferred."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        self.executor.fail(OperationFailure("bad query", 2))
        self.failureResultOf(cursor, OperationFailure)
        self.assertEqual(self.killed(), [])

    def test_error_later(self) -> None:
        """An error of a later command is that of the Deferred, and the cursor is killed."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        self.executor.first_batch(ONE, cursor_id=7)
        self.executor.fail(ExecutionTimeout("too long", 50))
        self.failureResultOf(cursor, ExecutionTimeout)
        self.assertEqual(self.killed(), [[7]])

    def test_gone(self) -> None:
        """A cursor that the server does not know, or that cannot be reached, is not killed."""
        for error in (CursorNotFound("gone", 43), AutoReconnect("lost")):
            cursor = self.things.find()
            self.assertNoResult(cursor)
            self.executor.first_batch(ONE, cursor_id=7)
            self.executor.fail(error)
            self.failureResultOf(cursor, type(error))
            self.assertEqual(self.killed(), [])
            self.assertTrue(cursor.exhausted)

    def test_rest(self) -> None:
        """Used as a Deferred after a document was taken, it has the others."""
        cursor = self.things.find()
        first = cursor.next()
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.assertEqual(self.successResultOf(first), ONE)
        cursor.addCallback(self.results.append)
        self.executor.next_batch(THREE)
        self.assertEqual(self.results, [[TWO, THREE]])

    def test_after_the_end(self) -> None:
        """Used as a Deferred after its end, it fires at once."""
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE)
        self.successResultOf(batch)
        self.assertEqual(self.successResultOf(cursor), [])


class CancelTests(CursorCase):
    """Giving a cursor up."""

    def test_before_the_start(self) -> None:
        """Cancelled before it starts, it says nothing to nobody, and sends nothing."""
        cursor = self.things.find()
        cursor.cancel()
        cursor.cancel()
        del cursor
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.executor.commands, [])

    def test_used_after_cancel(self) -> None:
        """Who uses a cancelled cursor is told so."""
        cursor = self.things.find()
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        cursor = self.things.find()
        cursor.cancel()
        self.failureResultOf(cursor.next_batch(), InvalidOperation)
        self.failureResultOf(cursor.next(), InvalidOperation)
        self.failureResultOf(cursor.to_list(), InvalidOperation)
        self.assertEqual(self.executor.commands, [])

    def test_not_sent(self) -> None:
        """Cancelled while it waits for a connection, its command is never sent."""
        self.executor.sends = False
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.assertTrue(self.executor.held[0].cancelled)

    def test_in_flight(self) -> None:
        """Cancelled in flight it fails at once; the cursor that the server then makes is killed."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.assertFalse(self.executor.held[0].cancelled)
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.killed(), [[7]])
        self.executor.answer()
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_in_flight_without_answer(self) -> None:
        """Cancelled in flight, its command is cancelled too when no answer comes for a while."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.client.clock.advance(1)
        self.assertTrue(self.executor.held[0].cancelled)
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_in_flight_and_held_up(self) -> None:
        """An answer that is read in the turn in which the time for it is over has come in time."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        command = self.executor.held[0]
        self.client.clock.callLater(1, self.executor.first_batch, ONE, cursor_id=7)
        self.client.clock.advance(1)
        self.assertFalse(command.cancelled)
        self.assertEqual(self.killed(), [[7]])

    def test_in_flight_and_failed(self) -> None:
        """The failure of a command that was given up is nobody's."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.executor.fail(AutoReconnect("lost"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_between_batches(self) -> None:
        """Cancelled while a further batch is on its way, the cursor is killed at once."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        self.executor.first_batch(ONE, cursor_id=7)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.assertTrue(self.executor.held[0].cancelled)
        self.assertEqual(self.killed(), [[7]])

    def test_batch(self) -> None:
        """Cancelling the only one who waits for a batch gives the cursor up, for that batch would be lost."""
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(batch)
        batch = cursor.next_batch()
        batch.cancel()
        self.failureResultOf(batch, CancelledError)
        self.assertEqual(self.killed(), [[7]])
        self.failureResultOf(cursor.next_batch(), InvalidOperation)

    def test_one_of_several(self) -> None:
        """Who cancels a wait that others share stops waiting alone."""
        cursor = self.things.find()
        first, second = cursor.next_batch(), cursor.next_batch()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.executor.first_batch(ONE)
        self.assertEqual(self.successResultOf(second), [ONE])

    def test_waiters(self) -> None:
        """Cancelling the cursor cancels those who wait for its batches."""
        cursor = self.things.find()
        batch, document = cursor.next_batch(), cursor.next()
        cursor.cancel()
        self.failureResultOf(batch, CancelledError)
        self.failureResultOf(document, CancelledError)

    def test_coroutine(self) -> None:
        """Cancelling a coroutine that iterates gives the cursor up."""

        async def use() -> None:
            async for _ in self.things.find():
                pass

        used = Deferred.fromCoroutine(use())
        self.executor.first_batch(ONE, cursor_id=7)
        used.cancel()
        self.failureResultOf(used, CancelledError)
        self.assertEqual(self.killed(), [[7]])

    def test_gathered(self) -> None:
        """A failure beside it that cancels it leaves nothing behind."""
        broken: Deferred[Any] = Deferred()
        gathered = gatherResults([self.things.find(), broken], consumeErrors=True)
        gathered.addErrback(lambda failure: failure.trap(FirstError))
        broken.errback(ValueError())
        gathered.cancel()
        self.executor.first_batch(ONE)
        self.assertEqual(self.flushLoggedErrors(), [])


class CloseTests(CursorCase):
    """Closing a cursor, and dropping it."""

    def test_close(self) -> None:
        """Closing kills the cursor and waits for the answer."""
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(batch)
        closed = cursor.close()
        self.assertNoResult(closed)
        self.assertEqual(self.executor.commands[-1], {"killCursors": "things", "cursors": [7]})
        self.assertEqual(self.executor.operations[-1].address, ADDRESS)
        self.executor.answer()
        self.successResultOf(closed)
        self.assertFalse(cursor.alive)
        self.successResultOf(cursor.close())
        self.assertEqual(self.killed(), [[7]])
        self.assertEqual(self.successResultOf(cursor.next_batch()), [])

    def test_kill_fails(self) -> None:
        """That the cursor could not be killed is no matter of the one who closes."""
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(batch)
        closed = cursor.close()
        self.executor.fail(AutoReconnect("lost"))
        self.successResultOf(closed)

    def test_kill_unanswered(self) -> None:
        """Closing does not wait for ever for a server that does not answer."""
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(batch)
        closed = cursor.close()
        self.client.clock.advance(5)
        self.successResultOf(closed)

    def test_not_started(self) -> None:
        """A cursor that is closed before it starts is empty and sends nothing."""
        cursor = self.things.find()
        self.successResultOf(cursor.close())
        self.assertEqual(self.successResultOf(cursor), [])
        self.assertEqual(self.executor.commands, [])

    def test_waiting(self) -> None:
        """Who waits for the documents of a cursor that is closed is told so."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        self.successResultOf(cursor.close())
        self.failureResultOf(cursor, CancelledError)

    def test_block(self) -> None:
        """A block closes it."""

        async def use() -> None:
            async with self.things.find() as cursor:
                await cursor.next()

        used = Deferred.fromCoroutine(use())
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.assertEqual(self.killed(), [[7]])
        self.executor.answer()
        self.successResultOf(used)

    def test_dropped(self) -> None:
        """A cursor that is dropped before its end is killed, with others of its collection in one command."""
        for cursor_id in (7, 8):
            cursor = self.things.find()
            batch = cursor.next_batch()
            self.executor.first_batch(ONE, cursor_id=cursor_id)
            self.successResultOf(batch)
            del cursor, batch
        self.client.clock.advance(0)
        self.assertEqual(self.killed(), [[7, 8]])

    def test_dropped_at_once(self) -> None:
        """Dropping is seen without the collector: nothing of a cursor refers to itself."""
        gc.disable()
        self.addCleanup(gc.enable)
        self.test_dropped()

    def test_not_dropped(self) -> None:
        """A cursor that is exhausted, closed or not started leaves nothing to kill."""
        self.things.find()
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE)
        self.successResultOf(batch)
        del cursor, batch
        gc.collect()
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_dropped_and_disconnected(self) -> None:
        """What was dropped is killed by the client's end at the latest; after it nothing is sent."""
        cursors = [self.things.find(), self.things.find()]
        for cursor, cursor_id in zip(cursors, (7, 8), strict=True):
            batch = cursor.next_batch()
            self.executor.first_batch(ONE, cursor_id=cursor_id)
            self.successResultOf(batch)
        del cursors[0]
        del cursor
        cursors.clear()
        self.client.leftovers.close()
        self.client.leftovers.close()
        self.assertEqual(self.killed(), [[7, 8]])
        self.executor.answer()
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=9)
        self.successResultOf(batch)
        del cursor, batch
        self.assertEqual(self.killed(), [[7, 8]])
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_given_up_and_disconnected(self) -> None:
        """What was given up in flight is cancelled at the client's end."""
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.client.leftovers.close()
        self.assertTrue(self.executor.held[0].cancelled)
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.assertTrue(self.executor.held[1].cancelled)
        self.assertEqual(self.client.clock.getDelayedCalls(), [])


class BatchTests(CursorCase):
    """Batches and documents, one after another."""

    def test_shared(self) -> None:
        """Five calls at once share a batch, and one command."""
        cursor = self.things.find()
        batches = [cursor.next_batch() for _ in range(5)]
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual([self.successResultOf(batch) for batch in batches], [[ONE]] * 5)
        batches = [cursor.next_batch() for _ in range(5)]
        self.executor.next_batch(TWO)
        self.assertEqual([self.successResultOf(batch) for batch in batches], [[TWO]] * 5)
        self.assertEqual(self.executor.names(), ["find", "getMore"])
        self.assertEqual(self.successResultOf(cursor.next_batch()), [])

    def test_shared_failure(self) -> None:
        """They share a failure too; after it nothing comes."""
        cursor = self.things.find()
        batches = [cursor.next_batch() for _ in range(3)]
        self.executor.fail(OperationFailure("no"))
        for batch in batches:
            self.failureResultOf(batch, OperationFailure)
        self.assertEqual(self.successResultOf(cursor.next_batch()), [])

    def test_rest_of_batch(self) -> None:
        """next_batch after a document was taken gives the others of its batch."""
        cursor = self.things.find()
        first = cursor.next()
        self.executor.first_batch(ONE, TWO, THREE)
        self.successResultOf(first)
        self.assertEqual(self.successResultOf(cursor.next_batch()), [TWO, THREE])

    def test_several_documents(self) -> None:
        """Documents that are waited for at once come in the order of the calls."""
        cursor = self.things.find()
        documents = [cursor.next() for _ in range(3)]
        self.executor.first_batch(ONE, cursor_id=7)
        self.executor.next_batch(TWO)
        self.assertEqual([self.successResultOf(document) for document in documents[:2]], [ONE, TWO])
        self.failureResultOf(documents[2], StopAsyncIteration)

    def test_to_list(self) -> None:
        """to_list takes as many as are wanted, and leaves the others."""
        cursor = self.things.find()
        listed = cursor.to_list(2)
        self.executor.first_batch(ONE, cursor_id=7)
        self.executor.next_batch(TWO, THREE)
        self.assertEqual(self.successResultOf(listed), [ONE, TWO])
        self.assertEqual(self.successResultOf(cursor.to_list(5)), [THREE])
        self.assertEqual(self.successResultOf(cursor.to_list()), [])

    def test_to_list_wrong(self) -> None:
        """A length that is none is refused."""
        wrong: Any = "5"
        self.assertRaises(TypeError, self.things.find().to_list, wrong)
        self.assertRaises(ValueError, self.things.find().to_list, 0)

    def test_iteration_over_batches(self) -> None:
        """Iteration goes on over batches, empty ones too, and may be taken up again."""
        cursor = self.things.find()

        async def use(count: int) -> list[Any]:
            found = []
            async for document in cursor:
                found.append(document)
                if len(found) == count:
                    break
            return found

        used = Deferred.fromCoroutine(use(1))
        self.executor.first_batch(cursor_id=7)
        self.executor.next_batch(ONE, TWO, cursor_id=7)
        self.assertEqual(self.successResultOf(used), [ONE])
        used = Deferred.fromCoroutine(use(9))
        self.executor.next_batch(THREE)
        self.assertEqual(self.successResultOf(used), [TWO, THREE])

    def test_iteration_fails(self) -> None:
        """An error ends the iteration."""

        async def use() -> None:
            async for _ in self.things.find():
                pass

        used = Deferred.fromCoroutine(use())
        self.executor.fail(OperationFailure("no"))
        self.failureResultOf(used, OperationFailure)

    def test_mixed(self) -> None:
        """Who waits for a batch has it before the list, which has the others."""
        cursor = self.things.find()
        batch, document = cursor.next_batch(), cursor.next()
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.successResultOf(batch), [ONE])
        self.executor.next_batch(TWO)
        self.assertEqual(self.results, [[TWO]])
        self.failureResultOf(document, StopAsyncIteration)

    def test_closed_by_waiter(self) -> None:
        """A callback of a batch may close the cursor."""
        cursor = self.things.find()
        cursor.next_batch().addCallback(lambda _: cursor.close())
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.killed(), [[7]])


class PrefetchTests(CursorCase):
    """The next batch, fetched while the application works on one."""

    def test_iteration(self) -> None:
        """It is asked for when the first document of a batch is handed out, and not before."""

        async def use() -> None:
            async for document in self.things.find().prefetch():
                self.results.append(document)
                await self.works

        self.works = Deferred[None]()
        used = Deferred.fromCoroutine(use())
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.assertEqual((self.results, self.executor.names()), ([ONE], ["find", "getMore"]))
        self.executor.next_batch(THREE, cursor_id=7)
        # A batch waits: no other is asked for.
        self.assertEqual((self.results, self.executor.names()), ([ONE], ["find", "getMore"]))
        works, self.works = self.works, Deferred()
        works.callback(None)
        self.assertEqual((self.results, self.executor.names()), ([ONE, TWO], ["find", "getMore"]))
        works, self.works = self.works, Deferred()
        works.callback(None)
        self.assertEqual((self.results, self.executor.names()), ([ONE, TWO, THREE], ["find", "getMore", "getMore"]))
        self.executor.next_batch()
        self.works.callback(None)
        self.successResultOf(used)
        self.assertEqual(len(self.executor.commands), 3)

    def test_last_document(self) -> None:
        """What comes while the application works on the last document is not yet worked on."""
        cursor = self.things.find().prefetch()
        first = cursor.next()
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.successResultOf(first), ONE)
        self.executor.next_batch(TWO, cursor_id=7)
        self.assertEqual(self.executor.names(), ["find", "getMore"])
        self.assertEqual(self.successResultOf(cursor.next()), TWO)
        self.assertEqual(self.executor.names(), ["find", "getMore", "getMore"])
        self.executor.next_batch(THREE)
        self.assertEqual(self.successResultOf(cursor.next()), THREE)
        self.failureResultOf(cursor.next(), StopAsyncIteration)

    def test_next_batch(self) -> None:
        """Who takes batches has one fetched ahead."""
        cursor = self.things.find().prefetch()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.successResultOf(batch), [ONE])
        self.executor.next_batch(TWO, cursor_id=7)
        self.assertEqual(self.executor.names(), ["find", "getMore"])
        self.assertEqual(self.successResultOf(cursor.next_batch()), [TWO])
        batch = cursor.next_batch()
        self.assertEqual(self.executor.names(), ["find", "getMore", "getMore"])
        self.executor.next_batch(THREE)
        self.assertEqual(self.successResultOf(batch), [THREE])
        self.assertEqual(len(self.executor.commands), 3)

    def test_not(self) -> None:
        """Nothing is fetched ahead unless that is chosen, beyond the limit, or in a session that was given."""
        with_session = self.things.find(session=session_of(self.executor.sessions))
        cursors = (
            self.things.find(),
            self.things.find().prefetch().prefetch(False),
            self.things.find(limit=1).prefetch(),
            with_session.prefetch(),
            self.things.find(cursor_type=CursorType.TAILABLE).prefetch(),
        )
        for cursor in cursors:
            self.executor.commands.clear()
            self.executor.held.clear()
            first = cursor.next()
            self.executor.first_batch(ONE, TWO, cursor_id=7)
            self.assertEqual(self.successResultOf(first), ONE)
            self.assertNotIn("getMore", self.executor.names())

    def test_aggregate(self) -> None:
        """The cursor of an aggregation has it too."""
        cursor = self.things.aggregate([]).prefetch()
        first = cursor.next()
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.successResultOf(first), ONE)
        self.assertEqual(self.executor.names(), ["aggregate", "getMore"])

    def test_fails(self) -> None:
        """An error is told when its batch is asked for."""
        cursor = self.things.find().prefetch()
        first = cursor.next()
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.executor.fail(OperationFailure("no"))
        self.assertEqual(self.successResultOf(first), ONE)
        self.assertEqual(self.successResultOf(cursor.next()), TWO)
        self.failureResultOf(cursor.next(), OperationFailure)

    def test_fails_and_closed(self) -> None:
        """An error is no matter when the cursor was closed before its batch was asked for."""
        cursor = self.things.find().prefetch()
        first = cursor.next()
        self.executor.first_batch(ONE, cursor_id=7)
        self.executor.fail(OperationFailure("no"))
        self.successResultOf(first)
        self.executor.answer({"ok": 1})
        self.successResultOf(cursor.close())
        self.failureResultOf(cursor.next(), StopAsyncIteration)
        del cursor
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_fails_and_dropped(self) -> None:
        """Nor when it was dropped; of a first command that fails unseen the log tells all the same."""
        cursor: Any = self.things.find().prefetch()
        first = cursor.next()
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.executor.fail(OperationFailure("no"))
        self.successResultOf(first)
        del cursor
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        written: Any = self.things.aggregate([{"$out": "others"}]).prefetch()
        self.executor.held[-1].deferred.errback(OperationFailure("not written"))
        del written
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(OperationFailure)), 1)

    def test_closed(self) -> None:
        """Closing a cursor whose next batch is on its way kills it."""
        cursor = self.things.find().prefetch()
        first = cursor.next()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(first)
        cursor.close()
        self.assertEqual(self.killed(), [[7]])

    def test_clone(self) -> None:
        """A clone has the choice too."""
        cursor = self.things.find().prefetch().clone()
        first = cursor.next()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(first)
        self.assertEqual(self.executor.names(), ["find", "getMore"])

    def test_wrong(self) -> None:
        """What is no bool is refused."""
        wrong: Any = 1
        self.assertRaisesRegex(TypeError, "prefetch must be True or False, not int", self.things.find().prefetch, wrong)


class LimitTests(CursorCase):
    """limit and batch_size in what is sent."""

    def test_first(self) -> None:
        """The first command: limits and batch sizes as the specification turns them."""
        for limit, batch_size, expected in (
            (0, 0, {}),
            (5, 0, {"limit": 5}),
            (0, 3, {"batchSize": 3}),
            (5, 3, {"limit": 5, "batchSize": 3}),
            (5, 5, {"limit": 5, "batchSize": 6}),
            (-1, 0, {"limit": 1, "singleBatch": True}),
            (-5, 2, {"limit": 5, "singleBatch": True, "batchSize": 5}),
        ):
            command = self.command_of(self.things.find(limit=limit, batch_size=batch_size))
            self.assertEqual(command, {"find": "things", "filter": {}, **expected}, (limit, batch_size))

    def test_more(self) -> None:
        """Further batches are not larger than what is left of the limit; then the cursor is killed."""
        cursor = self.things.find(limit=5, batch_size=2)
        cursor.addCallback(self.results.append)
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        self.assertEqual(self.executor.commands[-1]["batchSize"], 2)
        self.executor.next_batch(THREE, ONE, cursor_id=7)
        self.assertEqual(self.executor.commands[-1]["batchSize"], 1)
        self.executor.next_batch(TWO, cursor_id=7)
        self.assertEqual(len(self.results[0]), 5)
        self.assertEqual(self.killed(), [[7]])

    def test_more_without_batch_size(self) -> None:
        """With a limit alone the further batch is what is left."""
        cursor = self.things.find(limit=150)
        cursor.addCallback(self.results.append)
        self.executor.first_batch(*[ONE] * 101, cursor_id=7)
        self.assertEqual(self.executor.commands[-1]["batchSize"], 49)

    def test_kill_not_awaited(self) -> None:
        """The last batch does not wait until the cursor is killed."""
        cursor = self.things.find(limit=1, batch_size=1)
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertEqual(self.successResultOf(batch), [ONE])
        self.assertTrue(cursor.exhausted)
        self.assertEqual(self.killed(), [[7]])


class TailableTests(CursorCase):
    """Cursors on capped collections."""

    def test_flags(self) -> None:
        """The types of cursor are fields of the command."""
        self.assertEqual(
            self.command_of(self.things.find(cursor_type=CursorType.TAILABLE)),
            {"find": "things", "filter": {}, "tailable": True},
        )
        self.assertEqual(
            self.command_of(self.things.find(cursor_type=CursorType.TAILABLE_AWAIT, oplog_replay=True)),
            {"find": "things", "filter": {}, "tailable": True, "awaitData": True, "oplogReplay": True},
        )
        self.assertEqual(
            self.command_of(self.things.find(no_cursor_timeout=True, allow_partial_results=True)),
            {"find": "things", "filter": {}, "noCursorTimeout": True, "allowPartialResults": True},
        )
        self.assertEqual(
            self.command_of(self.things.find(cursor_type=CursorType.EXHAUST)), {"find": "things", "filter": {}}
        )

    def test_await(self) -> None:
        """getMore of an awaiting cursor has a connection alone, and the time to wait."""
        cursor = self.things.find(cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(50)
        self.assertNotIn("maxTimeMS", self.command_of(cursor))
        self.executor.first_batch(ONE, cursor_id=7)
        cursor.next_batch()
        self.assertEqual(self.executor.commands[-1]["maxTimeMS"], 50)
        self.assertTrue(self.executor.operations[-1].exclusive)
        self.executor.held.clear()
        other = self.things.find(cursor_type=CursorType.TAILABLE).max_await_time_ms(50)
        self.command_of(other)
        self.executor.first_batch(ONE, cursor_id=8)
        other.next_batch()
        self.assertNotIn("maxTimeMS", self.executor.commands[-1])
        self.assertFalse(self.executor.operations[-1].exclusive)

    def test_iteration(self) -> None:
        """Iteration ends at an empty batch; the cursor lives on and can be iterated again."""
        cursor = self.things.find(cursor_type=CursorType.TAILABLE)

        async def use() -> list[Any]:
            return [document async for document in cursor]

        used = Deferred.fromCoroutine(use())
        self.executor.first_batch(ONE, cursor_id=7)
        self.executor.next_batch(cursor_id=7)
        self.assertEqual(self.successResultOf(used), [ONE])
        self.assertTrue(cursor.alive)
        document = cursor.next()
        self.executor.next_batch(cursor_id=7)
        self.failureResultOf(document, StopAsyncIteration)
        listed = cursor.to_list()
        self.executor.next_batch(TWO, cursor_id=7)
        self.executor.next_batch(cursor_id=7)
        self.assertEqual(self.successResultOf(listed), [TWO])
        cursor.addCallback(self.results.append)
        self.executor.next_batch(THREE, cursor_id=7)
        self.executor.next_batch(cursor_id=7)
        self.assertEqual(self.results, [[THREE]])

    def test_wait(self) -> None:
        """Who waits gets the next document, after however many empty batches; or hears that the cursor has ended."""
        cursor = self.things.find(cursor_type=CursorType.TAILABLE_AWAIT)
        document = cursor.next(wait=True)
        self.executor.first_batch(cursor_id=7)
        for _ in range(3):
            self.assertNoResult(document)
            self.executor.next_batch(cursor_id=7)
        self.executor.next_batch(ONE, TWO, cursor_id=7)
        self.assertEqual(self.successResultOf(document), ONE)
        self.assertEqual(self.successResultOf(cursor.next(wait=True)), TWO)
        self.assertEqual(self.executor.held, [])
        document = cursor.next(wait=True)
        self.executor.next_batch(cursor_id=7)
        self.executor.next_batch()
        self.failureResultOf(document, StopAsyncIteration)
        self.failureResultOf(cursor.next(wait=True), StopAsyncIteration)

    def test_wait_fails(self) -> None:
        """Waiting fails as the cursor does, and can be cancelled, which ends the cursor."""
        cursor = self.things.find(cursor_type=CursorType.TAILABLE_AWAIT)
        document = cursor.next(wait=True)
        self.executor.first_batch(cursor_id=7)
        self.executor.fail(OperationFailure("no", 1))
        self.failureResultOf(document, OperationFailure)
        cursor = self.things.find(cursor_type=CursorType.TAILABLE_AWAIT)
        document = cursor.next(wait=True)
        self.executor.held.clear()
        document.cancel()
        self.failureResultOf(document, CancelledError)
        self.failureResultOf(cursor.next(wait=True), InvalidOperation)

    def test_wait_of_others(self) -> None:
        """A cursor that is not tailable does not wait for more than there is; one that does not await data cannot."""
        document = self.things.find().next(wait=True)
        self.executor.first_batch()
        self.failureResultOf(document, StopAsyncIteration)
        cursor = self.things.find(cursor_type=CursorType.TAILABLE)
        with self.assertRaises(InvalidOperation):
            cursor.next(wait=True)

    def test_overwritten(self) -> None:
        """That what it stands on was overwritten is the end of a tailable cursor, not an error."""
        cursor = self.things.find(cursor_type=CursorType.TAILABLE)
        self.command_of(cursor)
        self.executor.first_batch(ONE, cursor_id=7)
        batch = cursor.next_batch()
        self.executor.fail(OperationFailure("overwritten", 136))
        self.assertEqual(self.successResultOf(batch), [])
        self.assertFalse(cursor.alive)


class OptionTests(CursorCase):
    """Options by methods."""

    def test_everything(self) -> None:
        """Each method sets its field, and gives the cursor back."""
        cursor = (
            self.things.find({"x": 1})
            .projection(["a"])
            .sort("a", -1)
            .skip(2)
            .limit(3)
            .batch_size(4)
            .hint([("a", 1)])
            .comment("c")
            .collation({"locale": "de"})
            .max([("a", 5)])
            .min([("a", 1)])
            .max_scan(9)
            .where("true")
            .max_time_ms(100)
            .max_await_time_ms(50)
            .allow_disk_use(True)
            .allow_partial_results()
            .add_option(16)
        )
        self.assertEqual(
            self.command_of(cursor),
            {
                "find": "things",
                "filter": {"x": 1, "$where": Code("true")},
                "projection": {"a": 1},
                "sort": {"a": -1},
                "skip": 2,
                "hint": {"a": 1},
                "comment": "c",
                "collation": {"locale": "de"},
                "max": {"a": 5},
                "min": {"a": 1},
                "maxScan": 9,
                "maxTimeMS": 100,
                "allowDiskUse": True,
                "limit": 3,
                "batchSize": 4,
                "allowPartialResults": True,
                "noCursorTimeout": True,
            },
        )

    def test_taken_away(self) -> None:
        """What an option sets can be taken away again."""
        cursor = self.things.find(
            projection={"a": 1}, hint="a_1", collation=Collation("de"), max_time_ms=5, no_cursor_timeout=True, skip=1
        )
        cursor.projection(None).hint(None).collation(None).max_time_ms(None).remove_option(16).skip(0)
        cursor.comment("c").comment(None).max_await_time_ms(5).max_await_time_ms(None).allow_partial_results(False)
        self.assertEqual(self.command_of(cursor), {"find": "things", "filter": {}})

    def test_sorts(self) -> None:
        """A sort is one key, keys, pairs or a mapping; its order is kept."""
        for argument, expected in (
            (("a",), {"a": 1}),
            (("a", -1), {"a": -1}),
            (([("b", 1), "a"],), {"b": 1, "a": 1}),
            ((SON([("b", 1), ("a", -1)]),), {"b": 1, "a": -1}),
        ):
            cursor: Any = self.things.find()
            sort = self.command_of(cursor.sort(*argument))["sort"]
            self.assertEqual(list(sort.items()), list(expected.items()))

    def test_filter_kept(self) -> None:
        """The caller's filter is not changed."""
        given = {"x": 1}
        self.command_of(self.things.find(given).where(Code("true")))
        self.assertEqual(given, {"x": 1})

    def test_wrong(self) -> None:
        """A value of the wrong kind is refused at the call, naming what was wrong."""
        cursor: Any = self.things.find()
        for error, method, arguments in (
            (TypeError, cursor.projection, (5,)),
            (TypeError, cursor.sort, (5,)),
            (TypeError, cursor.sort, ([("a", 1)], -1)),
            (ValueError, cursor.sort, ([],)),
            (TypeError, cursor.skip, ("1",)),
            (ValueError, cursor.skip, (-1,)),
            (TypeError, cursor.limit, (None,)),
            (TypeError, cursor.batch_size, (1.5,)),
            (ValueError, cursor.batch_size, (-1,)),
            (TypeError, cursor.hint, (5,)),
            (TypeError, cursor.collation, ("de",)),
            (TypeError, cursor.max, ("a",)),
            (TypeError, cursor.min, (5,)),
            (TypeError, cursor.where, (5,)),
            (TypeError, cursor.max_time_ms, ("1",)),
            (TypeError, cursor.max_await_time_ms, ("1",)),
            (TypeError, cursor.allow_disk_use, (1,)),
            (TypeError, cursor.allow_partial_results, (1,)),
            (TypeError, cursor.add_option, ("16",)),
            (TypeError, cursor.remove_option, ("16",)),
            (TypeError, cursor.distinct, (5,)),
        ):
            self.assertRaises(error, method, *arguments)

    def test_wrong_at_find(self) -> None:
        """find refuses at the call too."""
        find: Any = self.things.find
        for error, options in (
            (TypeError, {"filter": 5}),
            (TypeError, {"limit": "5"}),
            (TypeError, {"limit": True}),
            (ValueError, {"cursor_type": 1}),
            (TypeError, {"no_cursor_timeout": 1}),
            (TypeError, {"allow_partial_results": None}),
            (TypeError, {"oplog_replay": 1}),
            (TypeError, {"batch_size": "5"}),
            (ValueError, {"batch_size": -5}),
            (InvalidOperation, {"cursor_type": CursorType.EXHAUST, "limit": 5}),
            (ValueError, {"session": object()}),
            (TypeError, {"no_such_option": 1}),
        ):
            self.assertRaises(error, find, **options)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_exhaust(self) -> None:
        """Exhaust and a limit exclude each other, in any order."""
        cursor = self.things.find(cursor_type=CursorType.EXHAUST)
        self.assertRaises(InvalidOperation, cursor.limit, 5)
        self.assertRaises(InvalidOperation, self.things.find(limit=5).add_option, 64)

    def test_started(self) -> None:
        """Once it has started its options are settled."""
        cursor: Any = self.things.find()
        self.command_of(cursor)
        for method, arguments in (
            ("projection", (None,)),
            ("sort", ("a",)),
            ("skip", (1,)),
            ("limit", (1,)),
            ("batch_size", (1,)),
            ("hint", ("a_1",)),
            ("comment", ("c",)),
            ("collation", (None,)),
            ("max", ([("a", 1)],)),
            ("min", ([("a", 1)],)),
            ("max_scan", (1,)),
            ("where", ("true",)),
            ("max_time_ms", (1,)),
            ("max_await_time_ms", (1,)),
            ("allow_disk_use", (True,)),
            ("allow_partial_results", (True,)),
            ("add_option", (16,)),
            ("remove_option", (16,)),
        ):
            error = self.assertRaises(InvalidOperation, getattr(cursor, method), *arguments)
            self.assertIn("cannot set options", str(error))

    def test_clone(self) -> None:
        """A clone has the options and none of the progress; each goes its own way."""
        cursor = self.things.find({"x": 1}, sort=[("a", 1)], limit=5, batch_size=2, comment="c", no_cursor_timeout=True)
        cursor.max_await_time_ms(5)
        command = self.command_of(cursor)
        clone = cursor.clone()
        self.assertFalse(clone.started)
        self.assertEqual(self.command_of(clone.clone()), command)
        clone.skip(4)
        self.assertNotIn("skip", cursor.clone()._fields)

    def test_rewind(self) -> None:
        """A rewound cursor queries again, and the old one is killed."""
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=7)
        self.successResultOf(batch)
        self.assertIs(cursor.rewind(), cursor)
        self.assertEqual(self.killed(), [[7]])
        self.executor.answer()
        self.assertEqual((cursor.started, cursor.retrieved, cursor.cursor_id), (False, 0, None))
        batch = cursor.limit(3).next_batch()
        self.executor.first_batch(TWO)
        self.assertEqual(self.successResultOf(batch), [TWO])

    def test_rewind_deferred(self) -> None:
        """A cursor that was used as a Deferred cannot be rewound, for it fires once."""
        cursor = self.things.find()
        cursor.addCallback(self.results.append)
        self.assertRaises(InvalidOperation, cursor.rewind)

    def test_rewind_loading(self) -> None:
        """A cursor cannot be rewound while a batch is on its way."""
        cursor = self.things.find()
        self.command_of(cursor)
        self.assertRaises(InvalidOperation, cursor.rewind)

    def test_distinct(self) -> None:
        """The distinct values are asked for with the cursor's filter, and it stays unused."""
        cursor = self.things.find({"x": 1}, hint="a_1", sort=[("a", 1)], comment="c")
        values = cursor.distinct("a")
        self.assertIsInstance(self.executor.operations[0], Distinct)
        self.assertEqual(
            self.executor.commands[0],
            {"distinct": "things", "key": "a", "query": {"x": 1}, "hint": "a_1", "comment": "c"},
        )
        self.executor.answer({"values": [1, 2]})
        self.assertEqual(self.successResultOf(values), [1, 2])
        self.assertFalse(cursor.started)

    def test_explain(self) -> None:
        """The plan is asked for with all of the cursor's fields, and it stays unused."""
        cursor = self.things.find({"x": 1}, limit=5)
        plan = cursor.explain()
        self.assertEqual(self.executor.commands, [])
        results: list[Any] = []
        plan.addCallback(results.append)
        self.assertEqual(self.executor.commands[0], {"explain": {"find": "things", "filter": {"x": 1}, "limit": 5}})
        self.executor.answer({"queryPlanner": {}})
        self.assertEqual(results, [{"ok": 1, "queryPlanner": {}}])
        self.assertIs(results[0][0], results[0])
        self.assertFalse(cursor.started)

    def test_limited_explain(self) -> None:
        """A time limit is that of the explaining, a verbosity stands beside it."""
        self.things.find({}, max_time_ms=50).explain("executionStats").addCallback(self.fail)
        expected = {"explain": {"find": "things", "filter": {}}, "verbosity": "executionStats", "maxTimeMS": 50}
        self.assertEqual(self.executor.commands[0], expected)

    def test_find_one(self) -> None:
        """The same options find one document."""
        found = self.things.find_one({"x": 1}, sort=[("a", -1)], allow_partial_results=True)
        self.assertEqual(
            self.executor.commands[0],
            {
                "find": "things",
                "filter": {"x": 1},
                "limit": 1,
                "singleBatch": True,
                "sort": {"a": -1},
                "allowPartialResults": True,
            },
        )
        self.executor.first_batch(ONE)
        self.assertEqual(self.successResultOf(found), ONE)

    def test_collection_options(self) -> None:
        """Codec options and read preference are those of the collection."""
        options: CodecOptions[Any] = CodecOptions(tz_aware=True)
        things = self.things.with_options(codec_options=options, read_preference=Secondary())
        self.command_of(things.find())
        operation = self.executor.operations[0]
        self.assertIs(operation.reply_codec_options, options)
        self.assertEqual(operation.read_preference, Secondary())
        cursor = things.find()
        self.executor.held.clear()
        self.command_of(cursor)
        self.executor.first_batch(ONE, cursor_id=7)
        self.command_of(cursor)
        self.assertIs(self.executor.operations[-1].reply_codec_options, options)


class ImplicitSessionTests(CursorCase):
    """A cursor goes on under the session in which it was made, and lets it go as soon as it can."""

    def setUp(self) -> None:
        super().setUp()
        self.pool = ServerSessionPool(self.client.clock.seconds)

    def opened(self, cursor_id: int = 7) -> Cursor[Any]:
        """A cursor with this id, whose find used a session."""
        use = SessionUse(self.pool.acquire(), self.pool)
        self.executor.context = Context(use)
        cursor = self.things.find()
        batch = cursor.next_batch()
        self.executor.first_batch(ONE, cursor_id=cursor_id)
        self.successResultOf(batch)
        if not use.kept:
            use.release()
        self.use = use
        return cursor

    def test_exhausted_at_once(self) -> None:
        """One batch that is everything keeps no session."""
        self.opened(cursor_id=0)
        self.assertFalse(self.use.kept)
        self.assertEqual(self.pool.in_use, 0)

    def test_get_more(self) -> None:
        """Further batches go under the session; after the last it is free."""
        cursor = self.opened()
        self.assertEqual(self.pool.in_use, 1)
        batch = cursor.next_batch()
        self.assertIs(self.executor.operations[-1].session, self.use)
        self.assertIsNone(cursor.session)
        self.executor.next_batch(TWO)
        self.successResultOf(batch)
        self.assertEqual(self.pool.in_use, 0)

    def test_close(self) -> None:
        """killCursors goes under it too; then it is free."""
        closed = self.opened().close()
        self.assertIs(self.executor.operations[-1].session, self.use)
        self.executor.answer()
        self.successResultOf(closed)
        self.assertEqual(self.pool.in_use, 0)

    def test_dropped(self) -> None:
        """So it is when the cursor is dropped."""
        self.opened()
        self.client.clock.advance(0)
        self.assertIs(self.executor.operations[-1].session, self.use)
        self.executor.answer()
        self.assertEqual(self.pool.in_use, 0)

    def test_failed(self) -> None:
        """A cursor that the server has forgotten lets it go."""
        batch = self.opened().next_batch()
        self.executor.fail(CursorNotFound("gone", 43))
        self.failureResultOf(batch, CursorNotFound)
        self.assertEqual(self.pool.in_use, 0)

    def test_given_up(self) -> None:
        """A cursor that is made after it was given up lets it go when it is killed."""
        use = SessionUse(self.pool.acquire(), self.pool)
        self.executor.context = Context(use)
        cursor = self.things.find()
        self.assertNoResult(cursor)
        cursor.cancel()
        self.failureResultOf(cursor, CancelledError)
        self.executor.first_batch(ONE, cursor_id=7)
        self.assertIs(self.executor.operations[-1].session, use)
        self.executor.answer()
        self.assertEqual(self.pool.in_use, 0)


class RawTests(CursorCase):
    """Undecoded batches."""

    def test_find(self) -> None:
        """Each item is a batch in BSON."""
        raw = [RawBSONDocument(encode(document)) for document in (ONE, TWO, THREE)]
        cursor = self.things.find_raw_batches({"x": 1}, limit=3)
        cursor.addCallback(self.results.append)
        self.assertIs(self.executor.operations[0].reply_codec_options.document_class, RawBSONDocument)
        self.executor.first_batch(*raw[:2], cursor_id=7)
        self.assertEqual(self.executor.commands[-1]["batchSize"], 1)
        self.executor.next_batch(raw[2])
        self.assertEqual(self.results, [[encode(ONE) + encode(TWO), encode(THREE)]])

    def test_clone(self) -> None:
        """A clone is undecoded too."""
        clone = self.things.find_raw_batches().clone()
        clone.addCallback(self.results.append)
        self.assertIs(self.executor.operations[0].reply_codec_options.document_class, RawBSONDocument)

    def test_empty(self) -> None:
        """An empty batch is no item."""
        cursor = self.things.find_raw_batches()
        cursor.addCallback(self.results.append)
        self.executor.first_batch()
        self.assertEqual(self.results, [[]])
