"""Change streams on real replica sets: what they bring, that nothing is lost or comes twice, what the server keeps."""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any

from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import monitoring
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.integration.servers import CollectionTestCase, replica_set
from tests.integration.watching import WatchedCase
from txmongo._testing.den import wait_until
from txmongo.change_stream import ChangeStream
from txmongo.connection import ConnectionPool
from txmongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    TimeExceeded,
)
from txmongo.testing import FaultProxy, ReplicaSet

#: Milliseconds that the server waits for a change: long enough for no test to depend on it, and short where none comes.
AWAIT = 20


def kinds(changes: list[Any]) -> list[str]:
    """The types of changes."""
    return [change["operationType"] for change in changes]


def ids(changes: list[Any]) -> list[Any]:
    """The ``_id`` of each document that was changed."""
    return [change["documentKey"]["_id"] for change in changes]


async def take(stream: ChangeStream[Any], count: int) -> list[Any]:
    """So many changes."""
    return [await stream.next() for _ in range(count)]


class StreamCase(WatchedCase):
    """The streams of a collection, and waiting for what is said for them."""

    def answered(self, name: str) -> defer.Deferred[Any]:
        """Fires when a command of that name is answered."""
        fired: defer.Deferred[Any] = defer.Deferred()

        def heard(event: Any) -> None:
            if event.command_name == name and not fired.called:
                fired.callback(event)

        self.events.on_succeeded = heard
        return fired

    def names(self) -> list[str]:
        """The names of the commands that were sent."""
        return [next(iter(command)) for command in self.events.started_commands()]

    async def open_cursors(self) -> set[int]:
        """Those cursors of the client that the server has."""
        replies = [event.reply for event in self.events.of(monitoring.CommandSucceededEvent, "aggregate")]
        operations = await self.client.admin.aggregate([{"$currentOp": {"idleCursors": True, "allUsers": True}}])
        there = {each["cursor"]["cursorId"] for each in operations if "cursor" in each}
        return there & {reply["cursor"]["id"] for reply in replies}

    async def none_left(self) -> None:
        """Wait until no session is in use and the server has none of the client's cursors."""
        sessions = self.watcher._executor.sessions.pool

        async def all_gone() -> bool:
            return not sessions.in_use and not await self.open_cursors()

        await wait_until(reactor, lambda: defer.Deferred.fromCoroutine(all_gone()), 20, "cursors are left open")


class ChangesTests(StreamCase):
    """What a stream brings."""

    async def test_kinds(self) -> None:
        """Each kind of change, in order, by iteration."""
        async with await self.watched.watch(full_document="updateLookup") as stream:
            await self.things.insert_one({"_id": 1, "x": 1})
            await self.things.update_one({"_id": 1}, {"$set": {"x": 2}})
            await self.things.replace_one({"_id": 1}, {"y": 3})
            await self.things.delete_one({"_id": 1})
            changes = []
            async for change in stream:
                changes.append(change)
                if change["operationType"] == "delete":
                    break
        self.assertEqual(kinds(changes), ["insert", "update", "replace", "delete"])
        self.assertEqual(ids(changes), [1] * 4)
        self.assertEqual(changes[0]["fullDocument"], {"_id": 1, "x": 1})
        self.assertEqual(changes[1]["updateDescription"]["updatedFields"], {"x": 2})
        self.assertEqual(changes[0]["ns"], {"db": "txmongo_tests", "coll": "things"})

    async def test_inline_callbacks(self) -> None:
        """The same without coroutines."""

        @defer.inlineCallbacks
        def follow() -> Generator[defer.Deferred[Any], Any, list[Any]]:
            stream = yield self.watched.watch(max_await_time_ms=AWAIT)
            nothing = yield stream.try_next()
            yield self.things.insert_one({"_id": 1})
            change = yield stream.next()
            yield stream.close()
            return [nothing, change["fullDocument"], stream.alive]

        self.assertEqual(await follow(), [None, {"_id": 1}, False])

    async def test_levels(self) -> None:
        """A collection's stream shows that collection, a database's that database, a client's everything."""
        streams = [
            await self.watched.watch(),
            await self.watcher.txmongo_tests.watch(),
            await self.watcher.watch(),
        ]
        other = self.client.txmongo_tests_other.things
        last: dict[str, Any] = {"_id": "last"}
        for collection in (other, self.client.txmongo_tests.others, self.things):
            await collection.insert_one(last)
        seen = []
        for stream in streams:
            spaces = []
            while spaces[-1:] != ["txmongo_tests.things"]:
                change = await stream.next()
                spaces.append(f"{change['ns']['db']}.{change['ns']['coll']}")
            seen.append(spaces)
            await stream.close()
        await self.client.drop_database("txmongo_tests_other")
        await self.client.txmongo_tests.others.drop()
        own = ["txmongo_tests.things"]
        self.assertEqual(seen[0], own)
        self.assertEqual(seen[1], ["txmongo_tests.others", *own])
        self.assertEqual(seen[2], ["txmongo_tests_other.things", "txmongo_tests.others", *own])

    async def test_pipeline(self) -> None:
        """Stages of the pipeline choose and shape what comes."""
        pipeline = [{"$match": {"fullDocument.x": {"$gt": 1}}}, {"$project": {"x": "$fullDocument.x"}}]
        async with await self.watched.watch(pipeline) as stream:
            await self.things.insert_many([{"x": number} for number in range(4)])
            self.assertEqual([change["x"] for change in await take(stream, 2)], [2, 3])

    async def test_images(self) -> None:
        """Documents as they were before and after, where the collection keeps them."""
        await self.needs("images", 6, 0)
        database = self.client.txmongo_tests
        await self.things.drop()
        await database.create_collection("things", changeStreamPreAndPostImages={"enabled": True})
        await self.things.insert_one({"_id": 1, "x": 1})
        stream = await self.watched.watch(full_document="required", full_document_before_change="whenAvailable")
        async with stream:
            await self.things.update_one({"_id": 1}, {"$set": {"x": 2}})
            change = await stream.next()
        self.assertEqual(change["fullDocument"], {"_id": 1, "x": 2})
        self.assertEqual(change["fullDocumentBeforeChange"], {"_id": 1, "x": 1})

    async def test_expanded_events(self) -> None:
        """On demand there are events of indexes too."""
        await self.needs("expanded events", 6, 0)
        async with await self.watched.watch(show_expanded_events=True) as stream:
            await self.things.create_index("x")
            self.assertEqual(kinds(await take(stream, 1)), ["createIndexes"])

    async def test_options(self) -> None:
        """Comment, batch size, collation and read concern reach the server, which takes them."""
        watched = self.watched.with_options(read_concern=ReadConcern("majority"))
        stream = await watched.watch(comment={"why": 1}, batch_size=2, collation={"locale": "fr"})
        async with stream:
            await self.things.insert_many([{"_id": number} for number in range(5)])
            self.assertEqual(ids(await take(stream, 5)), list(range(5)))
        aggregate, *get_mores = self.events.started_commands()[:4]
        self.assertEqual(aggregate["cursor"], {"batchSize": 2})
        self.assertEqual(aggregate["collation"], {"locale": "fr"})
        self.assertEqual(aggregate["readConcern"], {"level": "majority"})
        for command in get_mores:
            self.assertEqual((command["batchSize"], command["comment"]), (2, {"why": 1}))

    async def test_refused_by_the_server(self) -> None:
        """What the server refuses is its own error, at the opening."""
        for watching in (
            self.watched.watch([{"$out": "other"}]),
            self.watched.watch(full_document="no such thing"),
            self.watched.watch(resume_after={"_data": "00"}),
            self.watched.watch(start_at_operation_time=Timestamp(1, 1), resume_after={"_data": "00"}),
            self.watched.with_options(read_concern=ReadConcern("local")).watch(),
        ):
            await self.failure(watching, OperationFailure)

    async def test_session(self) -> None:
        """A session that was given is that of all commands; without one they share an implicit one."""
        async with self.watcher.start_session() as session:
            async with await self.watched.watch(session=session) as stream:
                await self.things.insert_one({"_id": 1})
                await stream.next()
            self.assertEqual(
                {str(command["lsid"]) for command in self.events.started_commands()}, {str(session.session_id)}
            )
        self.events.all.clear()
        async with await self.watched.watch() as stream:
            await self.things.insert_one({"_id": 2})
            await stream.next()
        self.assertEqual(len({str(command["lsid"]) for command in self.events.started_commands()}), 1)
        self.assertEqual(self.watcher._executor.sessions.pool.in_use, 0)

    async def test_codecs(self) -> None:
        """Changes are decoded as the collection's documents are; tokens go back to the server as they came."""

        class ShoutDecoder(TypeDecoder):
            bson_type = str

            def transform_bson(self, value: Any) -> Any:
                return value.upper()

        registry: CodecOptions[Any] = CodecOptions(type_registry=TypeRegistry([ShoutDecoder()]))
        shouting = self.watched.with_options(codec_options=registry)
        raw = self.watched.with_options(codec_options=CodecOptions(document_class=RawBSONDocument))
        async with await shouting.watch() as loud, await raw.watch() as untouched:
            await self.things.insert_many([{"_id": "one"}, {"_id": "two"}])
            self.assertEqual((await loud.next())["fullDocument"], {"_id": "ONE"})
            change = await untouched.next()
            self.assertIsInstance(change, RawBSONDocument)
            self.assertEqual(change["fullDocument"]["_id"], "one")
            async with await self.watched.watch(resume_after=loud.resume_token) as again:
                self.assertEqual((await again.next())["fullDocument"], {"_id": "two"})
            async with await self.watched.watch(resume_after=untouched.resume_token) as again:
                self.assertEqual((await again.next())["fullDocument"], {"_id": "two"})


class PlaceTests(StreamCase):
    """Where a stream begins, and how it ends by itself."""

    async def test_resume_after(self) -> None:
        """Another stream goes on behind a change, or a token of an empty batch."""
        async with await self.watched.watch(max_await_time_ms=AWAIT) as stream:
            empty = stream.resume_token
            await self.things.insert_many([{"_id": number} for number in range(3)])
            first = await stream.next()
            self.assertEqual(stream.resume_token, first["_id"])
        for place, expected in ((empty, [0, 1, 2]), (first["_id"], [1, 2])):
            for option in ("resume_after", "start_after"):
                async with await self.watched.watch(**{option: place}) as stream:
                    self.assertEqual(ids(await take(stream, len(expected))), expected)

    async def test_start_at_operation_time(self) -> None:
        """It begins with the changes of a time."""
        async with self.client.start_session() as session:
            await self.things.insert_one({"_id": 1}, session=session)
            time = session.operation_time
        await self.things.insert_one({"_id": 2})
        async with await self.watched.watch(start_at_operation_time=time) as stream:
            self.assertEqual(ids(await take(stream, 2)), [1, 2])

    async def test_invalidate(self) -> None:
        """A drop ends the stream behind its last event; another one begins there by start_after only."""
        stream = await self.watched.watch()
        await self.things.insert_one({"_id": 1})
        await self.things.drop()
        changes = [change async for change in stream]
        self.assertEqual(kinds(changes), ["insert", "drop", "invalidate"])
        self.assertFalse(stream.alive)
        self.assertIsNone(await stream.try_next())
        await self.failure(stream.next(), StopAsyncIteration)
        self.assertEqual(self.watcher._executor.sessions.pool.in_use, 0)
        await self.none_left()
        await self.things.insert_one({"_id": 2})
        await self.failure(self.watched.watch(resume_after=stream.resume_token), OperationFailure)
        async with await self.watched.watch(start_after=stream.resume_token) as again:
            self.assertEqual(ids(await take(again, 1)), [2])


class WaitingTests(StreamCase):
    """Waits that are given up, or overlap."""

    async def test_cancel_and_again(self) -> None:
        """A wait that is cancelled loses nothing: neither while the server is asked, nor what comes afterwards."""
        changes = []
        async with await self.watched.watch() as stream:
            for number in range(20):
                waiting = stream.next()
                if waiting.called:
                    changes.append(await waiting)
                else:
                    waiting.cancel()
                    await self.failure(waiting, defer.CancelledError)
                await self.things.insert_one({"_id": number})
            changes += await take(stream, 20 - len(changes))
        self.assertEqual(ids(changes), list(range(20)))

    async def test_nobody_waits(self) -> None:
        """A change that comes while nobody waits is here when somebody asks; until then nothing more is fetched."""
        async with await self.watched.watch(max_await_time_ms=60_000) as stream:
            waiting = stream.next()
            waiting.cancel()
            await self.failure(waiting, defer.CancelledError)
            came = self.answered("getMore")
            await self.things.insert_one({"_id": 1})
            await came
            await self.things.insert_one({"_id": 2})
            self.assertEqual(self.names(), ["aggregate", "getMore"])
            waiting = stream.next()
            self.assertTrue(waiting.called)
            self.assertEqual(ids([await waiting]), [1])
            self.assertEqual(ids(await take(stream, 1)), [2])

    async def test_several_at_once(self) -> None:
        """Several who wait get one change each, in their order."""
        async with await self.watched.watch() as stream:
            waiting = [stream.next() for _ in range(10)]
            await self.things.insert_many([{"_id": number} for number in range(10)])
            self.assertEqual(ids(await defer.gatherResults(waiting)), list(range(10)))

    async def test_try_next(self) -> None:
        """try_next tells that there is nothing, and moves the token on all the same."""
        async with await self.watched.watch(max_await_time_ms=AWAIT) as stream:
            token = stream.resume_token
            await self.client.txmongo_tests.others.insert_one({})
            while stream.resume_token == token:
                self.assertIsNone(await stream.try_next())
            await self.client.txmongo_tests.others.drop()

    async def test_others_go_on(self) -> None:
        """While a stream waits at the server other operations have other connections."""
        async with await self.watched.watch(max_await_time_ms=60_000) as stream:
            waiting = stream.next()
            await defer.gatherResults([self.watched.find_one({}) for _ in range(50)])
            self.assertFalse(waiting.called)
            await self.watched.insert_one({"_id": 1})
            self.assertEqual(ids([await waiting]), [1])

    async def test_many_streams(self) -> None:
        """Streams beside one another each see everything."""
        streams = [await self.watched.watch() for _ in range(10)]
        following = [defer.Deferred.fromCoroutine(take(stream, 20)) for stream in streams]
        for number in range(20):
            await self.things.insert_one({"_id": number})
        for changes in await defer.gatherResults(following):
            self.assertEqual(ids(changes), list(range(20)))
        await defer.gatherResults([stream.close() for stream in streams])

    async def test_fixed_pool(self) -> None:
        """With one connection for all, a stream and the other operations take turns on it."""
        client = self.connect(pool_size=1)
        things = client.txmongo_tests.things
        async with await things.watch(max_await_time_ms=AWAIT) as stream:
            waiting = [stream.next() for _ in range(3)]
            for number in range(3):
                await things.insert_one({"_id": number})
            self.assertEqual(ids(await defer.gatherResults(waiting)), [0, 1, 2])


class EndTests(StreamCase):
    """What is left of a stream."""

    async def test_close(self) -> None:
        """Closing ends those who wait, the command under way, and the cursor."""
        stream = await self.watched.watch(max_await_time_ms=60_000)
        self.assertEqual(len(await self.open_cursors()), 1)

        async def follow() -> str:
            async for _ in stream:
                self.fail("there was a change")
            return "over"

        following = defer.Deferred.fromCoroutine(follow())
        asked = stream.try_next()
        await stream.close()
        self.assertEqual((await following, await asked), ("over", None))
        self.assertEqual(self.watcher._executor.sessions.pool.in_use, 0)
        # MongoDB looks at the oplog's next entry whether who waits for it was killed meanwhile.
        await self.things.insert_one({})
        await self.none_left()

    async def test_dropped(self) -> None:
        """Streams that are dropped, before their first change or after some, leave no cursor behind."""
        streams = [await self.watched.watch() for _ in range(5)]
        await self.things.insert_one({"_id": 1})
        for stream in streams[:3]:
            await stream.next()
        self.assertEqual(len(await self.open_cursors()), 5)
        del stream, streams
        gc.collect()
        await self.none_left()

    async def test_opening_cancelled(self) -> None:
        """Opening streams and giving that up leaves none either."""
        for _ in range(10):
            opening = self.watched.watch()
            opening.cancel()
            await self.failure(opening, defer.CancelledError)
        await self.none_left()

    async def test_disconnect(self) -> None:
        """When the client is disconnected those who wait are told, and nothing of the stream is left here."""
        stream = await self.watched.watch(max_await_time_ms=60_000)
        waiting = [stream.next(), stream.try_next()]
        await self.watcher.disconnect()
        for each in waiting:
            self.assertTrue(each.called)
            await self.failure(each, InvalidOperation)
        self.assertFalse(stream.alive)
        await self.failure(stream.next(), StopAsyncIteration)
        await self.failure(self.watched.watch(), InvalidOperation)

    async def test_disconnect_between_waits(self) -> None:
        """If nobody waited then, who asks later is told."""
        stream = await self.watched.watch()
        await self.watcher.disconnect()
        await self.failure(stream.next(), InvalidOperation)
        await self.failure(stream.next(), StopAsyncIteration)


class LimitTests(StreamCase):
    """Limits of time."""

    async def test_timeout_ms(self) -> None:
        """A wait that takes too long fails; the next one goes on where the stream stood."""
        async with await self.watched.watch(timeout_ms=1500) as stream:
            await self.things.insert_one({"_id": 1})
            await stream.next()
            error = await self.failure(stream.next(), PyMongoError)
            self.assertTrue(error.timeout)
            self.assertTrue(stream.alive)
            await self.things.insert_one({"_id": 2})
            self.assertEqual(ids(await take(stream, 1)), [2])
        self.assertEqual(self.names().count("aggregate"), 2)

    async def test_named(self) -> None:
        """TxMongo's timeout is for each wait, its deadline for all; both end in TimeExceeded."""
        async with await self.watched.watch(timeout=1.5) as stream:
            await self.failure(stream.next(), TimeExceeded)
            await self.things.insert_one({"_id": 1})
            self.assertEqual(ids(await take(stream, 1)), [1])
        async with await self.watched.watch(deadline=reactor.seconds() + 1.5) as stream:
            await self.failure(stream.next(), TimeExceeded)
            await self.failure(stream.next(), TimeExceeded)

    async def test_add_timeout(self) -> None:
        """addTimeout of Twisted ends one wait."""
        async with await self.watched.watch() as stream:
            await self.failure(stream.next().addTimeout(0.1, reactor), defer.TimeoutError)
            await self.things.insert_one({"_id": 1})
            self.assertEqual(ids(await take(stream, 1)), [1])
        self.assertEqual(self.names().count("aggregate"), 1)


class CutTests(StreamCase):
    """The network fails between a stream and its server."""

    async def test_cut(self) -> None:
        """Connections that are cut again and again cost no change, and bring none twice."""
        [member] = (await replica_set()).members
        proxy = FaultProxy(reactor, *member.address)
        await proxy.start()
        self.addCleanup(proxy.stop)
        client = self.connect(proxy.uri, directConnection=True)
        stream = await client.txmongo_tests.things.watch()
        changes: list[Any] = []

        async def follow() -> None:
            async for change in stream:
                changes.append(change)
                if len(changes) == 100:
                    return

        async def resumed(first: int) -> None:
            """Wait for the first change after the last cut: the aggregate that resumes is repeated once, not twice."""
            await wait_until(reactor, lambda: following.called or len(changes) > first, 30, "nothing comes")

        following = defer.Deferred.fromCoroutine(follow())
        for number in range(100):
            await self.things.insert_one({"_id": number})
            if number % 25 == 10:
                await resumed(number - 24)
                proxy.drop()
        await following
        self.assertEqual(ids(changes), list(range(100)))
        self.assertGreater(len(self.events.started_commands("aggregate")), 1)
        await stream.close()


class StandaloneTests(CollectionTestCase):
    """A server without an oplog."""

    async def test_refused(self) -> None:
        """It says itself that it has no change streams."""
        error = await self.failure(self.things.watch(), OperationFailure)
        self.assertEqual(error.code, 40573)


class FailoverTests(TestCase):
    """A replica set loses its primaries while changes are made and followed."""

    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.members = await ReplicaSet(reactor, 3, election_timeout=2.0).start()
        self.addCleanup(self.members.stop)
        self.client: ConnectionPool[dict[str, Any]] = ConnectionPool(self.members.uri)
        self.addCleanup(self.client.disconnect)
        self.things = self.client.test.get_collection("things", write_concern=WriteConcern(w="majority"))
        # A secondary that has not heard of this yet may still show it.
        await self.things.insert_one({"_id": "first"})

    async def test_failover(self) -> None:
        """Every change is seen once and in order, by a stream of the primary and one of a secondary."""
        secondary = self.things.with_options(read_preference=ReadPreference.SECONDARY_PREFERRED)
        streams = [await self.things.watch(), await secondary.watch()]
        seen: list[list[int]] = [[], []]
        followed = [
            defer.Deferred.fromCoroutine(self.follow(stream, numbers))
            for stream, numbers in zip(streams, seen, strict=True)
        ]
        self.count = 0
        self.writing = True
        writing = defer.Deferred.fromCoroutine(self.write())
        for lose in (self.step_down, self.kill):
            before = self.count
            await lose()

            def goes_on(before: int = before) -> Any:
                # If the writer or a stream has failed, that is what is to be told.
                ended = next((each for each in (writing, *followed) if each.called), None)
                return ended or self.count > before + 20

            await wait_until(reactor, goes_on, 60, "nothing is written")
        self.writing = False
        await writing
        await self.insert("last")
        await defer.gatherResults(followed)
        expected = list(range(self.count))
        self.assertEqual(seen, [expected, expected])
        self.assertEqual(self.client._executor.sessions.pool.in_use, 2)
        await defer.gatherResults([stream.close() for stream in streams])
        self.assertEqual(self.client._executor.sessions.pool.in_use, 0)

    async def follow(self, stream: ChangeStream[Any], numbers: list[int]) -> None:
        """Note what is inserted, up to the last."""
        async for change in stream:
            number = change["documentKey"]["_id"]
            if number == "last":
                return
            if number != "first":
                numbers.append(number)

    async def write(self) -> None:
        """Insert one number after the other."""
        while self.writing:
            await self.insert(self.count)
            self.count += 1

    async def insert(self, number: Any) -> None:
        """Insert one, however often the primary is lost meanwhile."""
        while True:
            try:
                await self.things.insert_one({"_id": number})
            except DuplicateKeyError:
                return
            except AutoReconnect:
                continue
            return

    async def step_down(self) -> None:
        """The primary hands over."""
        await self.members.step_down()

    async def kill(self) -> None:
        """The primary dies, and comes back."""
        primary = await self.members.primary()
        await self.members.kill(primary)
        await self.members.primary(other_than=primary)
        await self.members.restart(primary)
