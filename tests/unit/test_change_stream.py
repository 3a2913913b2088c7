"""``txmongo.change_stream``: who gets which change, how a stream goes on and ends. The executor waits for the test."""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any

import bson
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Secondary
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import Context, held_database, session_of
from txmongo._ops.server_sessions import ServerSessionPool
from txmongo._ops.session_state import SessionUse
from txmongo.change_stream import ChangeStream
from txmongo.connection import ConnectionPool
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    CursorNotFound,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
)

GONE = AutoReconnect("the connection is gone")
LABELLED = OperationFailure("stepping down", 11602, {"code": 11602, "errorLabels": ["ResumableChangeStreamError"]})
FATAL = OperationFailure("no", 280, {"code": 280, "errorLabels": ["NonResumableChangeStreamError"]})
LATE = NetworkTimeout("the time is up")


def token(number: int) -> dict[str, Any]:
    """A resume token."""
    return {"_data": str(number)}


def change(number: int) -> dict[str, Any]:
    """A change."""
    return {"_id": token(number), "operationType": "insert", "fullDocument": {"_id": number}}


class StreamCase(SynchronousTestCase):
    """A collection over an executor that waits for the test to answer."""

    def setUp(self) -> None:
        self.database, self.client = held_database()
        self.executor = self.client.executor
        self.things = self.database["things"]

    def stream(
        self, *changes: Any, batch_token: int | None = 0, cursor_id: int = 7, **options: Any
    ) -> ChangeStream[Any]:
        """A stream whose first batch has come."""
        opening = self.things.watch(**options)
        self.made(*changes, batch_token=batch_token, cursor_id=cursor_id)
        return self.successResultOf(opening)

    def in_session(self) -> ServerSessionPool:
        """Give what is made from now on a session; return the pool to which that goes back."""
        sessions = ServerSessionPool(self.client.clock.seconds)
        self.executor.context = Context(SessionUse(sessions.acquire(), sessions))
        return sessions

    def unwanted(self) -> ChangeStream[Any]:
        """A stream that lost its cursor and that nobody wants a change of: it waits with resuming."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.executor.fail(CursorNotFound("x", 43, {"code": 43}))
        return stream

    def made(self, *changes: Any, batch_token: int | None = 0, cursor_id: int = 7, **reply: Any) -> None:
        """The oldest command, an aggregate, is answered."""
        self._answer("firstBatch", changes, batch_token, cursor_id, reply)

    def arrives(self, *changes: Any, batch_token: int | None = None, cursor_id: int = 7) -> None:
        """The oldest command, a getMore, is answered."""
        if batch_token is None and changes:
            batch_token = int(changes[-1]["_id"]["_data"])
        self._answer("nextBatch", changes, batch_token, cursor_id, {})

    def _answer(self, key: str, changes: Any, batch_token: int | None, cursor_id: int, reply: Any) -> None:
        cursor: dict[str, Any] = {key: list(changes), "id": Int64(cursor_id), "ns": "test.things"}
        if batch_token is not None:
            cursor["postBatchResumeToken"] = token(batch_token)
        self.executor.answer({"cursor": cursor, **reply})

    def last(self) -> dict[str, Any]:
        """The last command."""
        return self.executor.commands[-1]

    def stage(self) -> Any:
        """The ``$changeStream`` of the last command, an aggregate."""
        return self.last()["pipeline"][0]["$changeStream"]

    def killed(self) -> list[list[int]]:
        """The ids of each killCursors so far."""
        return [command["cursors"] for command in self.executor.commands if "killCursors" in command]

    def kill_is_answered(self) -> None:
        """The server has killed a cursor."""
        [held] = [held for held in self.executor.held if "killCursors" in held.command]
        self.executor.held.remove(held)
        held.deferred.callback(None)

    def resumed(self, *changes: Any, batch_token: int | None = 0) -> None:
        """The cursor is killed and another one made."""
        self.assertEqual(self.executor.names()[-2:], ["killCursors", "aggregate"])
        self.kill_is_answered()
        self.made(*changes, batch_token=batch_token, cursor_id=8)


class OpeningTests(StreamCase):
    """The Deferred of ``watch``."""

    def test_opens(self) -> None:
        """It fires with the stream when the server watches, and no sooner."""
        opening = self.things.watch()
        self.assertNoResult(opening)
        self.assertEqual(self.executor.names(), ["aggregate"])
        self.made()
        stream = self.successResultOf(opening)
        self.assertIsInstance(stream, ChangeStream)
        self.assertTrue(stream.alive)
        self.assertIsNone(stream.session)
        self.assertEqual(repr(stream), "<ChangeStream: open, 0 changes here, 0 waiting>")
        self.assertEqual(self.executor.names(), ["aggregate"])

    def test_collection(self) -> None:
        """That of a collection sends the collection's options and those of the call."""
        things = self.things.with_options(read_preference=Secondary(), read_concern=ReadConcern("majority"))
        things.watch([{"$match": {"x": 1}}], "updateLookup", batch_size=3, comment="why")
        self.assertEqual(
            self.last(),
            {
                "aggregate": "things",
                "pipeline": [{"$changeStream": {"fullDocument": "updateLookup"}}, {"$match": {"x": 1}}],
                "cursor": {"batchSize": 3},
                "comment": "why",
                "readConcern": {"level": "majority"},
            },
        )
        [operation] = self.executor.operations
        self.assertEqual((operation.database, operation.read_preference), ("test", Secondary()))
        self.assertTrue(operation.exclusive)

    def test_database(self) -> None:
        """That of a database is for no collection."""
        self.database.watch(show_expanded_events=True)
        self.assertEqual((self.last()["aggregate"], self.stage()), (1, {"showExpandedEvents": True}))
        self.assertEqual(self.executor.operations[0].database, "test")

    def test_client(self) -> None:
        """That of a client is for everything, and goes to admin."""
        client: Any = self.client
        ConnectionPool.watch(client, full_document_before_change="required")
        self.assertEqual(self.last()["aggregate"], 1)
        self.assertEqual(self.stage(), {"fullDocumentBeforeChange": "required", "allChangesForCluster": True})
        self.assertEqual(self.executor.operations[0].database, "admin")

    def test_options_of_get_more(self) -> None:
        """The getMores carry what concerns them, and have their connection alone."""
        stream = self.stream(batch_size=3, comment="why", max_await_time_ms=50)
        stream.next()
        self.assertEqual(
            self.last(),
            {"getMore": 7, "collection": "things", "batchSize": 3, "maxTimeMS": 50, "comment": "why"},
        )
        self.assertTrue(self.executor.operations[-1].exclusive)

    def test_namespace(self) -> None:
        """The getMores name what the server named."""
        opening = self.database.watch()
        cursor = {"firstBatch": [], "id": 7, "ns": "other.$cmd.aggregate"}
        self.executor.answer({"cursor": cursor})
        self.successResultOf(opening).next()
        self.assertEqual(self.last(), {"getMore": 7, "collection": "$cmd.aggregate"})
        self.assertEqual(self.executor.operations[-1].database, "other")

    def test_refused(self) -> None:
        """What is wrong with the arguments is raised at the call, and nothing is sent."""
        watch: Any = self.things.watch
        self.assertRaises(TypeError, watch, {"$match": {}})
        self.assertRaises(TypeError, watch, timeout_mode="iteration")
        self.assertRaises(TypeError, watch, timeout_ms="5")
        self.assertRaises(ValueError, watch, session=object())
        self.assertRaises(ValueError, self.database.watch, session=object())
        client: Any = self.client
        self.assertRaises(ValueError, ConnectionPool.watch, client, session=object())
        for await_ms in (10, 11):
            self.assertRaises(ConfigurationError, watch, timeout_ms=10, max_await_time_ms=await_ms)
        self.assertEqual(self.executor.commands, [])

    def test_fails(self) -> None:
        """A failure of the first command is the caller's, whatever it is: nothing is resumed."""
        for error in (GONE, LABELLED, FATAL, CursorNotFound("x", 43, {"code": 43})):
            opening = self.things.watch()
            self.executor.fail(error)
            self.assertIs(self.failureResultOf(opening).value, error)
        self.assertEqual(self.executor.names(), ["aggregate"] * 4)

    def test_fails_at_once(self) -> None:
        """So is one that is there at once."""
        executor: Any = self.executor
        executor.execute = lambda operation: fail(GONE)
        self.failureResultOf(self.things.watch(), AutoReconnect)

    def test_cancelled(self) -> None:
        """Cancelled before it was sent, nothing is left; cancelled later, the cursor that may be made is killed."""
        self.executor.sends = False
        opening = self.things.watch()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertTrue(self.executor.held.pop().cancelled)
        self.executor.sends = True
        opening = self.things.watch()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertFalse(self.executor.held[0].cancelled)
        self.made()
        self.assertEqual(self.killed(), [[7]])
        self.kill_is_answered()
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_cancelled_and_slow(self) -> None:
        """A cancelled one that is not answered soon is given up."""
        opening = self.things.watch()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.client.clock.advance(1)
        self.assertTrue(self.executor.held[0].cancelled)
        self.assertEqual(self.killed(), [])

    def test_dropped(self) -> None:
        """A stream that is dropped has its cursor killed."""
        opening = self.things.watch()
        self.made()
        del opening
        gc.collect()
        self.client.clock.advance(0)
        self.assertEqual(self.killed(), [[7]])


class ServingTests(StreamCase):
    """Who gets which change."""

    def test_first_batch(self) -> None:
        """Changes that are here are given out at once; nothing is asked for while there are some."""
        stream = self.stream(change(1), change(2))
        self.assertEqual(self.successResultOf(stream.next()), change(1))
        self.assertEqual(self.successResultOf(stream.try_next()), change(2))
        self.assertEqual(self.executor.names(), ["aggregate"])

    def test_waits(self) -> None:
        """next goes on through empty batches until a change comes; nothing is asked for afterwards."""
        stream = self.stream()
        waiting = stream.next()
        self.arrives(batch_token=1)
        self.arrives(batch_token=2)
        self.assertNoResult(waiting)
        self.arrives(change(3))
        self.assertEqual(self.successResultOf(waiting), change(3))
        self.assertEqual(self.executor.names(), ["aggregate", "getMore", "getMore", "getMore"])

    def test_in_order(self) -> None:
        """Those who wait are served in the order in which they asked, by one command at a time."""
        stream = self.stream()
        waiting = [stream.next() for _ in range(3)]
        self.assertEqual(self.executor.names(), ["aggregate", "getMore"])
        self.arrives(change(1), change(2))
        self.assertEqual([self.successResultOf(each) for each in waiting[:2]], [change(1), change(2)])
        self.assertNoResult(waiting[2])
        self.arrives(change(3), change(4))
        self.assertEqual(self.successResultOf(waiting[2]), change(3))
        self.assertEqual(repr(stream), "<ChangeStream: open, 1 changes here, 0 waiting>")

    def test_asked_in_a_callback(self) -> None:
        """Who asks in the callback of a change comes behind those who wait already."""
        stream = self.stream()
        got: list[Any] = []

        def again(first: Any) -> None:
            got.append(("one", first))
            stream.next().addCallback(lambda second: got.append(("three", second)))

        stream.next().addCallback(again)
        stream.next().addCallback(lambda each: got.append(("two", each)))
        self.arrives(change(1), change(2), change(3))
        self.assertEqual(got, [("one", change(1)), ("two", change(2)), ("three", change(3))])

    def test_cancel_loses_nothing(self) -> None:
        """What a cancelled wait would have got is for who asks next, even if it comes meanwhile."""
        stream = self.stream()
        waiting = stream.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.executor.held[0].cancelled)
        again = stream.next()
        self.assertEqual(self.executor.names(), ["aggregate", "getMore"])
        self.arrives(change(1))
        self.assertEqual(self.successResultOf(again), change(1))

    def test_nobody_waits(self) -> None:
        """A change that comes while nobody waits is kept, and nothing more is asked for."""
        stream = self.stream()
        waiting = stream.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.arrives(change(1))
        self.assertEqual(self.executor.held, [])
        self.assertTrue(stream.alive)
        self.assertEqual(self.successResultOf(stream.next()), change(1))

    def test_cancel_one_of_two(self) -> None:
        """The other one gets the change."""
        stream = self.stream()
        one, two = stream.next(), stream.next()
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.arrives(change(1))
        self.assertEqual(self.successResultOf(two), change(1))

    def test_timeout(self) -> None:
        """addTimeout ends the wait and nothing else."""
        stream = self.stream()
        waiting = stream.next().addTimeout(5, self.client.clock)
        self.client.clock.advance(5)
        self.failureResultOf(waiting, TimedOut)
        self.arrives(change(1))
        self.assertEqual(self.successResultOf(stream.try_next()), change(1))

    def test_try_next(self) -> None:
        """try_next asks once."""
        stream = self.stream()
        waiting = stream.try_next()
        self.arrives(batch_token=1)
        self.assertIsNone(self.successResultOf(waiting))
        waiting = stream.try_next()
        self.arrives(change(2))
        self.assertEqual(self.successResultOf(waiting), change(2))
        self.assertEqual(self.executor.names(), ["aggregate", "getMore", "getMore"])

    def test_try_next_beside_next(self) -> None:
        """Of one change the first to ask gets it; try_next goes away empty-handed, next stays."""
        stream = self.stream()
        first, second, third = stream.next(), stream.try_next(), stream.next()
        self.arrives(change(1))
        self.assertEqual(self.successResultOf(first), change(1))
        self.assertIsNone(self.successResultOf(second))
        self.arrives(change(2))
        self.assertEqual(self.successResultOf(third), change(2))

    def test_try_next_in_a_callback(self) -> None:
        """One who asks in a callback is not told of the batch before; one who is cancelled in it is not told at all."""
        stream = self.stream()
        later: list[Deferred[Any]] = []

        def called(_change: Any) -> None:
            later.append(stream.try_next())
            two.cancel()

        stream.next().addCallback(called)
        two = stream.try_next()
        self.arrives(change(1))
        self.failureResultOf(two, CancelledError)
        self.assertNoResult(later[0])
        self.arrives(batch_token=2)
        self.assertIsNone(self.successResultOf(later[0]))

    def test_async_for(self) -> None:
        """Iteration gives change after change, and ends when the stream is closed."""
        stream = self.stream(change(1))
        got: list[Any] = []

        async def follow() -> str:
            async for each in stream:
                got.append(each)
            return "over"

        following = Deferred.fromCoroutine(follow())
        self.arrives(change(2), change(3))
        self.assertEqual(got, [change(1), change(2), change(3)])
        stream.close()
        self.assertEqual(self.successResultOf(following), "over")

    def test_inline_callbacks(self) -> None:
        """The same without coroutines."""

        @inlineCallbacks
        def follow() -> Generator[Deferred[Any], Any, list[Any]]:
            stream = yield self.things.watch()
            got = []
            while stream.alive and len(got) < 2:
                got.append((yield stream.try_next()))
            yield stream.close()
            return got

        following = follow()
        self.made()
        self.arrives(change(1))
        self.arrives(batch_token=2)
        self.kill_is_answered()
        self.assertEqual(self.successResultOf(following), [change(1), None])

    def test_codecs(self) -> None:
        """With codecs of the application changes are decoded by them, and tokens go back as they came."""

        class ShoutDecoder(TypeDecoder):
            bson_type = str

            def transform_bson(self, value: Any) -> Any:
                return value.upper()

        options: CodecOptions[Any] = CodecOptions(type_registry=TypeRegistry([ShoutDecoder()]))
        self.things = self.things.with_options(codec_options=options)
        raw = RawBSONDocument(bson.encode({"_id": {"_data": "abc"}, "word": "quiet"}))
        stream = self.stream(raw, batch_token=None)
        [operation] = self.executor.operations
        self.assertIs(operation.reply_codec_options.document_class, RawBSONDocument)
        self.assertEqual(self.successResultOf(stream.next()), {"_id": {"_data": "ABC"}, "word": "QUIET"})
        self.assertEqual(dict(stream.resume_token or {}), {"_data": "abc"})
        stream.next()
        self.assertIs(self.executor.operations[-1].reply_codec_options.document_class, RawBSONDocument)
        self.executor.fail(GONE)
        self.assertEqual(dict(self.stage()["resumeAfter"]), {"_data": "abc"})


class TokenTests(StreamCase):
    """``resume_token``: prose tests 1, 11, 13 and 14."""

    def test_tracked(self) -> None:
        """It follows the changes that are given out, and empty batches."""
        stream = self.stream(batch_token=None)
        self.assertIsNone(stream.resume_token)
        stream.next()
        self.arrives(batch_token=1)
        self.assertEqual(stream.resume_token, token(1))
        self.arrives(change(2), change(3), batch_token=4)
        self.assertEqual(stream.resume_token, token(2))
        self.successResultOf(stream.next())
        self.assertEqual(stream.resume_token, token(4))

    def test_untouched(self) -> None:
        """Before the first change it is what was given."""
        self.assertIsNone(self.stream(change(1), batch_token=1).resume_token)
        self.assertEqual(self.stream(change(5), batch_token=5, resume_after=token(4)).resume_token, token(4))
        self.assertEqual(self.stream(change(5), batch_token=5, start_after=token(3)).resume_token, token(3))

    def test_copy(self) -> None:
        """What the caller does to it changes nothing."""
        stream = self.stream(batch_token=1)
        taken: Any = stream.resume_token
        taken["_data"] = "other"
        self.assertEqual(stream.resume_token, token(1))

    def test_missing(self) -> None:
        """A change without a token ends the stream with an error for all who wait: prose test 2."""
        stream = self.stream()
        one, two = stream.next(), stream.try_next()
        self.executor.answer({"cursor": {"nextBatch": [{"x": 1}, change(2)], "id": 7, "ns": "test.things"}})
        for waiting in (one, two):
            self.assertIn("resume token is missing", str(self.failureResultOf(waiting, InvalidOperation).value))
        self.assertFalse(stream.alive)
        self.assertEqual(self.killed(), [[7]])
        self.failureResultOf(stream.next(), StopAsyncIteration)

    def test_missing_and_asked_again(self) -> None:
        """Who asks again in an errback is told that it is over."""
        stream = self.stream({"x": 1})
        again = stream.next().addErrback(lambda _: stream.next())
        self.failureResultOf(again, StopAsyncIteration)


class ResumingTests(StreamCase):
    """How a stream goes on."""

    def test_resumes(self) -> None:
        """After a failure that allows it the same is asked for again, from the token: prose tests 3 and 6."""
        for error in (GONE, LABELLED, ServerSelectionTimeoutError("none", [Exception("x")])):
            self.executor.commands.clear()
            things = self.things.with_options(read_preference=Secondary())
            opening = things.watch([{"$match": {"x": 1}}], "updateLookup", batch_size=3, collation={"locale": "fr"})
            self.made(batch_token=1)
            stream = self.successResultOf(opening)
            waiting = stream.next()
            self.executor.fail(error)
            self.assertEqual(self.executor.names(), ["aggregate", "getMore", "killCursors", "aggregate"])
            self.assertEqual(self.executor.commands[2], {"killCursors": "things", "cursors": [7]})
            first, again = self.executor.commands[0], self.executor.commands[3]
            self.assertEqual(
                again["pipeline"][0], {"$changeStream": {"fullDocument": "updateLookup", "resumeAfter": token(1)}}
            )
            self.assertEqual({**again, "pipeline": None}, {**first, "pipeline": None})
            self.assertEqual(again["pipeline"][1:], first["pipeline"][1:])
            self.assertEqual(self.executor.operations[-1].read_preference, Secondary())
            self.resumed(batch_token=2)
            self.assertEqual(self.last()["getMore"], 8)
            self.arrives(change(3), cursor_id=8)
            self.assertEqual(self.successResultOf(waiting), change(3))

    def test_cursor_not_found(self) -> None:
        """A cursor that the server does not know is not killed."""
        stream = self.stream(batch_token=1)
        stream.next()
        self.executor.fail(CursorNotFound("x", 43, {"code": 43}))
        self.assertEqual(self.executor.names(), ["aggregate", "getMore", "aggregate"])
        self.assertEqual(self.stage(), {"resumeAfter": token(1)})

    def test_failed_kill(self) -> None:
        """What becomes of killCursors is no matter: prose test 8."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        self.executor.fail(LABELLED)
        self.executor.fail(OperationFailure("no such cursor"))
        self.made(change(2), cursor_id=8)
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_again_and_again(self) -> None:
        """Each failure is followed by one attempt, also if nothing has come since the last."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        for _ in range(3):
            self.executor.fail(GONE)
            self.assertEqual(self.stage(), {"resumeAfter": token(1)})
            self.resumed(batch_token=None)
        self.arrives(change(2))
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_failure_to_resume(self) -> None:
        """If that attempt meets a failure of the same kind all who wait get that; the next one to ask has it tried."""
        stream = self.stream(batch_token=1)
        one, two = stream.next(), stream.try_next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        self.executor.fail(LABELLED)
        for waiting in (one, two):
            self.assertIs(self.failureResultOf(waiting).value, LABELLED)
        self.assertEqual(self.executor.held, [])
        self.assertTrue(stream.alive)
        self.assertIn("to be resumed", repr(stream))
        waiting = stream.next()
        self.assertEqual(self.stage(), {"resumeAfter": token(1)})
        self.made(change(2), cursor_id=8)
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_fatal_failure_to_resume(self) -> None:
        """Any other failure of it ends the stream: prose test 4."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        self.executor.fail(FATAL)
        self.assertIs(self.failureResultOf(waiting).value, FATAL)
        self.assertFalse(stream.alive)
        self.assertEqual(self.killed(), [[7]])

    def test_fatal(self) -> None:
        """A failure that does not allow it ends the stream; all who wait get it, and those who ask later the end."""
        stream = self.stream()
        one, two = stream.next(), stream.try_next()
        self.executor.fail(FATAL)
        for waiting in (one, two):
            self.assertIs(self.failureResultOf(waiting).value, FATAL)
        self.assertEqual(self.executor.names(), ["aggregate", "getMore", "killCursors"])
        self.assertFalse(stream.alive)
        self.failureResultOf(stream.next(), StopAsyncIteration)
        self.assertIsNone(self.successResultOf(stream.try_next()))

    def test_cancelled_in_an_errback(self) -> None:
        """One who is cancelled in the errback of another is told that."""
        stream = self.stream()
        stream.next().addErrback(lambda _: two.cancel())
        two = stream.next()
        self.executor.fail(FATAL)
        self.failureResultOf(two, CancelledError)

    def test_failure_without_waiters(self) -> None:
        """A failure while nobody waits is for who asks next: resumed then, or given to that one."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.executor.fail(GONE)
        self.assertEqual(self.executor.names(), ["aggregate", "getMore", "killCursors"])
        self.kill_is_answered()
        waiting = stream.next()
        self.made(change(2), cursor_id=8)
        self.assertEqual(self.successResultOf(waiting), change(2))
        waiting = stream.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.executor.fail(FATAL)
        self.assertFalse(stream.alive)
        self.assertIs(self.failureResultOf(stream.next()).value, FATAL)
        self.failureResultOf(stream.next(), StopAsyncIteration)

    def test_resumed_without_waiters(self) -> None:
        """A resumption that ends while nobody waits keeps what it brought."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.made(change(2), cursor_id=8)
        self.assertEqual(self.executor.held, [])
        self.assertEqual(self.successResultOf(stream.next()), change(2))

    def test_unseen_failure(self) -> None:
        """A failure that nobody came to hear of is logged."""
        stream = self.stream()
        waiting = stream.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.executor.fail(FATAL)
        self.kill_is_answered()
        del stream, waiting
        gc.collect()
        self.assertEqual([failure.value for failure in self.flushLoggedErrors(OperationFailure)], [FATAL])

    def test_try_next_resumes(self) -> None:
        """try_next takes the resumption and one batch more."""
        stream = self.stream(batch_token=1)
        waiting = stream.try_next()
        self.executor.fail(GONE)
        self.resumed(batch_token=2)
        self.assertNoResult(waiting)
        self.arrives(batch_token=3, cursor_id=8)
        self.assertIsNone(self.successResultOf(waiting))

    def test_unreachable(self) -> None:
        """If the cursor's server is not to be reached when somebody asks, the stream goes on elsewhere at once."""
        stream = self.stream(batch_token=1)
        self.executor.reachable = False
        waiting = stream.next()
        self.resumed(change(2))
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_start_after(self) -> None:
        """It goes on by startAfter until a change was given out, then by resumeAfter: prose tests 17 and 18."""
        stream = self.stream(batch_token=2, start_after=token(1))
        self.assertEqual(self.stage(), {"startAfter": token(1)})
        waiting = stream.next()
        self.executor.fail(GONE)
        self.assertEqual(self.stage(), {"startAfter": token(2)})
        self.resumed(change(3), batch_token=3)
        self.successResultOf(waiting)
        stream.next()
        self.executor.fail(GONE)
        self.assertEqual(self.stage(), {"resumeAfter": token(3)})

    def test_operation_time(self) -> None:
        """Without a token it goes on from the time of its first answer: prose test 9."""
        opening = self.things.watch()
        self.made(batch_token=None, operationTime=Timestamp(5, 1))
        stream = self.successResultOf(opening)
        stream.next()
        self.executor.fail(GONE)
        self.assertEqual(self.stage(), {"startAtOperationTime": Timestamp(5, 1)})

    def test_session_is_kept(self) -> None:
        """The implicit session goes through all commands, a resumption included, and is free at the end."""
        sessions = ServerSessionPool(self.client.clock.seconds)
        use = SessionUse(sessions.acquire(), sessions)
        self.executor.context = Context(use)
        stream = self.stream(batch_token=1)
        stream.next().addErrback(lambda failure: failure.trap(StopAsyncIteration))
        self.executor.fail(GONE)
        self.resumed()
        self.assertEqual(sessions.in_use, 1)
        for operation in self.executor.operations[1:]:
            self.assertIs(operation.session, use)
        stream.close()
        self.kill_is_answered()
        self.assertEqual(sessions.in_use, 0)

    def test_session_given(self) -> None:
        """A session of the application's is used for all, and stays the application's."""
        session = session_of(self.executor.sessions)
        stream = self.stream(batch_token=1, session=session)
        self.assertIs(stream.session, session)
        stream.next()
        self.executor.fail(GONE)
        self.resumed()
        self.assertEqual({id(operation.session) for operation in self.executor.operations}, {id(session)})


class EndTests(StreamCase):
    """How a stream ends."""

    def test_close(self) -> None:
        """Who waits is told that it is over; the Deferred fires when the server has killed the cursor."""
        stream = self.stream(change(1), change(2))
        self.successResultOf(stream.next())
        closing = stream.close()
        self.assertFalse(stream.alive)
        self.assertEqual(self.killed(), [[7]])
        self.assertNoResult(closing)
        again = stream.close()
        self.kill_is_answered()
        self.assertIsNone(self.successResultOf(closing))
        self.assertIsNone(self.successResultOf(again))
        self.assertIsNone(self.successResultOf(stream.close()))
        self.failureResultOf(stream.next(), StopAsyncIteration)
        self.assertIsNone(self.successResultOf(stream.try_next()))
        self.assertEqual(self.killed(), [[7]])

    def test_close_while_waiting(self) -> None:
        """The command under way is given up."""
        stream = self.stream()
        one, two = stream.next(), stream.try_next()
        stream.close()
        self.failureResultOf(one, StopAsyncIteration)
        self.assertIsNone(self.successResultOf(two))
        self.assertTrue(self.executor.held[0].cancelled)
        self.assertEqual(self.killed(), [[7]])

    def test_close_in_a_callback(self) -> None:
        """The rest of the batch is dropped, and those who wait for it are told."""
        stream = self.stream()
        stream.next().addCallback(lambda _: stream.close())
        two = stream.next()
        self.arrives(change(1), change(2))
        self.failureResultOf(two, StopAsyncIteration)
        self.assertEqual(self.killed(), [[7]])

    def test_close_while_resuming(self) -> None:
        """The cursor that is being made is killed when it is known."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        self.assertIsNone(self.successResultOf(stream.close()))
        self.failureResultOf(waiting, StopAsyncIteration)
        self.made(cursor_id=8)
        self.assertEqual(self.killed(), [[7], [8]])

    def test_close_while_resuming_fails(self) -> None:
        """If none is made, the session is free at once."""
        sessions = self.in_session()
        stream = self.stream(batch_token=1)
        stream.next().addErrback(lambda failure: failure.trap(StopAsyncIteration))
        self.executor.fail(GONE)
        self.kill_is_answered()
        stream.close()
        self.assertEqual(sessions.in_use, 1)
        self.executor.fail(GONE)
        self.assertEqual(sessions.in_use, 0)
        self.assertEqual(self.killed(), [[7]])

    def test_close_before_resuming(self) -> None:
        """A stream that waits to be resumed has nothing to be killed."""
        sessions = self.in_session()
        stream = self.unwanted()
        self.assertIsNone(self.successResultOf(stream.close()))
        self.assertEqual(self.killed(), [])
        self.assertEqual(sessions.in_use, 0)

    def test_dropped_before_resuming(self) -> None:
        """One that is dropped then gives its session back."""
        sessions = self.in_session()
        stream = self.unwanted()
        del stream
        gc.collect()
        self.client.clock.advance(0)
        self.assertEqual(sessions.in_use, 0)
        self.assertEqual(self.killed(), [])

    def test_dropped_after_the_client(self) -> None:
        """One that is dropped when the client is closed sends nothing, and gives its session back."""
        sessions = self.in_session()
        stream = self.stream()
        self.client.leftovers.close()
        del stream
        gc.collect()
        self.assertEqual(sessions.in_use, 0)
        self.assertEqual((self.killed(), self.client.clock.getDelayedCalls()), ([], []))

    def test_async_with(self) -> None:
        """The end of the block closes the stream."""
        stream = self.stream()

        async def use() -> None:
            async with stream as same:
                self.assertIs(same, stream)

        using = Deferred.fromCoroutine(use())
        self.assertNoResult(using)
        self.kill_is_answered()
        self.successResultOf(using)

    def test_server_ends_it(self) -> None:
        """When the server has ended the stream its last changes are still given out, then it is over."""
        sessions = self.in_session()
        stream = self.stream()
        one, two, three = stream.next(), stream.next(), stream.try_next()
        self.arrives(change(1), cursor_id=0)
        self.assertEqual(self.successResultOf(one), change(1))
        self.failureResultOf(two, StopAsyncIteration)
        self.assertIsNone(self.successResultOf(three))
        self.assertFalse(stream.alive)
        self.assertEqual(sessions.in_use, 0)
        self.assertEqual(self.executor.names(), ["aggregate", "getMore"])

    def test_ended_at_once(self) -> None:
        """So it is where the first answer is the last."""
        stream = self.stream(change(1), cursor_id=0)
        self.assertTrue(stream.alive)
        self.assertEqual(self.successResultOf(stream.next()), change(1))
        self.assertFalse(stream.alive)
        self.failureResultOf(stream.next(), StopAsyncIteration)

    def test_closed_after_its_end(self) -> None:
        """Closing drops what was not given out."""
        stream = self.stream(change(1), cursor_id=0)
        self.successResultOf(stream.close())
        self.assertFalse(stream.alive)
        self.failureResultOf(stream.next(), StopAsyncIteration)

    def test_client_is_closed(self) -> None:
        """When the client is disconnected those who wait are told so, by the failure of the attempt to resume."""
        stream = self.stream()
        waiting = stream.next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        self.executor.fail(InvalidOperation("the client is closed"))
        self.failureResultOf(waiting, InvalidOperation)
        self.assertFalse(stream.alive)


class TimeTests(StreamCase):
    """Limits of time; the executor of this test keeps them to itself and fails when it is told to."""

    def deadline(self) -> float | None:
        """When the time of the last limited command is up."""
        return self.executor.limits[-1].deadline.at

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.client.clock.advance(seconds)

    def test_unlimited(self) -> None:
        """Without any there is none."""
        self.stream().next()
        self.assertEqual(self.executor.limits, [])

    def test_each_wait(self) -> None:
        """The opening and each wait have all of it; the server is told of the opening's."""
        stream = self.stream(timeout_ms=2000)
        self.assertEqual(self.deadline(), 2)
        self.assertTrue(self.executor.limits[-1].sends_max_time)
        self.advance(5)
        stream.next()
        self.assertEqual(self.deadline(), 7)
        self.advance(1)
        self.arrives(batch_token=1)
        self.assertEqual(self.deadline(), 7)
        self.advance(0.5)
        self.executor.fail(GONE)
        self.assertEqual(self.last()["aggregate"], "things")
        self.assertEqual(self.deadline(), 7)

    def test_inherited(self) -> None:
        """timeout_ms of the collection, the database and the client holds."""
        self.things = self.things.with_options(timeout_ms=3000)
        self.stream()
        self.assertEqual(self.deadline(), 3)
        self.database.with_options(timeout_ms=4000).watch()
        self.assertEqual(self.deadline(), 4)
        client: Any = self.client
        client._timeout = 5.0
        ConnectionPool.watch(client)
        self.assertEqual(self.deadline(), 5)

    def test_timeout_and_deadline(self) -> None:
        """TxMongo's timeout is for each wait, its deadline for all."""
        stream = self.stream(timeout=2, deadline=9)
        self.advance(5)
        stream.next()
        self.assertEqual(self.deadline(), 7)
        self.arrives(change(1))
        self.advance(3)
        stream.next()
        self.assertEqual(self.deadline(), 9)

    def test_resumes_after_a_timeout(self) -> None:
        """A wait whose time is up fails; the stream lives on, and the next wait has it resumed."""
        stream = self.stream(timeout_ms=2000, batch_token=1)
        for error, passed in ((LATE, 2.0), (ExecutionTimeout("not sent", 50), 1.9)):
            waiting = stream.next()
            self.advance(passed)
            self.executor.fail(error)
            self.assertIs(self.failureResultOf(waiting).value, error)
            self.assertEqual(self.executor.names()[-1], "killCursors")
            self.kill_is_answered()
            self.assertEqual(self.executor.held, [])
            self.assertTrue(stream.alive)
            waiting = stream.next()
            self.assertEqual(self.stage(), {"resumeAfter": token(1)})
            self.made(change(2), batch_token=1)
            self.assertEqual(self.successResultOf(waiting), change(2))

    def test_no_time_to_resume(self) -> None:
        """So it is when the time is up during a resumption."""
        stream = self.stream(timeout_ms=2000, batch_token=1)
        waiting = stream.next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        self.executor.fail(ExecutionTimeout("too slow", 50, {"code": 50}))
        self.failureResultOf(waiting, ExecutionTimeout)
        self.assertEqual(self.executor.held, [])
        waiting = stream.next()
        self.made(change(2))
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_two_waits(self) -> None:
        """When the time of the first wait is up the second one goes on in its own, through a resumption."""
        stream = self.stream(timeout_ms=2000, batch_token=1)
        one = stream.next()
        self.advance(1)
        two = stream.next()
        self.assertEqual(self.deadline(), 2)
        self.advance(1)
        self.executor.fail(LATE)
        self.failureResultOf(one, NetworkTimeout)
        self.assertNoResult(two)
        self.assertEqual(self.deadline(), 3)
        self.advance(1)
        self.kill_is_answered()
        self.executor.fail(LATE)
        self.failureResultOf(two, NetworkTimeout)

    def test_two_waits_while_resuming(self) -> None:
        """The same if it was up during a resumption."""
        stream = self.stream(timeout_ms=2000, batch_token=1)
        one = stream.next()
        self.advance(1)
        two = stream.next()
        self.executor.fail(GONE)
        self.kill_is_answered()
        self.advance(1)
        self.executor.fail(LATE)
        self.failureResultOf(one, NetworkTimeout)
        self.assertEqual((self.stage(), self.deadline()), ({"resumeAfter": token(1)}, 3))
        self.made(change(2))
        self.assertEqual(self.successResultOf(two), change(2))

    def test_socket_timeout(self) -> None:
        """Where nothing limits the wait, a timeout of the connection is a failure like others."""
        stream = self.stream(batch_token=1)
        waiting = stream.next()
        self.executor.fail(LATE)
        self.resumed(change(2))
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_other_timeouts(self) -> None:
        """Nor is a timeout of something else the end of a wait that has time left; all who wait go on with that."""
        stream = self.stream(timeout_ms=60_000, batch_token=1)
        waiting = stream.next()
        for error in (LATE, ServerSelectionTimeoutError("not found again")):
            self.advance(10)
            self.executor.fail(error)
            self.assertEqual((self.stage(), self.deadline()), ({"resumeAfter": token(1)}, 60))
            self.resumed(batch_token=1)
        self.arrives(change(2))
        self.assertEqual(self.successResultOf(waiting), change(2))

    def test_opening(self) -> None:
        """If its time is up at the opening that fails."""
        opening = self.things.watch(timeout_ms=2000)
        self.executor.fail(LATE)
        self.failureResultOf(opening, NetworkTimeout)

    def test_close(self) -> None:
        """To be closed the stream has all its time again, or that of the call."""
        stream = self.stream(timeout_ms=2000)
        self.advance(5)
        stream.close()
        self.assertEqual(self.deadline(), 7)
        self.kill_is_answered()
        self.stream(timeout_ms=2000).close(timeout_ms=500)
        self.assertEqual(self.deadline(), 5.5)
        self.assertRaises(ValueError, stream.close, timeout_ms=-1)
        self.assertRaises(TypeError, stream.close, timeout_ms="5")
