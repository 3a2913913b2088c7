"""Prose tests of the change streams specification, on a replica set.

Left out: 5, 10, 15 and 16, which were removed; 9 and 12, which are about servers older than any that is spoken to (what
the driver would do is in ``tests/unit``).
"""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer

from tests.integration.watching import WatchedCase
from txmongo.change_stream import ChangeStream
from txmongo.connection import ConnectionPool
from txmongo.errors import OperationFailure

MAJORITY = WriteConcern(w="majority")
RESUMABLE = {"errorCode": 6, "errorLabels": ["ResumableChangeStreamError"]}


class ChangeStreamTests(WatchedCase):
    """A stream of a collection, and what was said to the server for it."""

    async def watch(self, client: ConnectionPool[Any] | None = None, **options: Any) -> ChangeStream[Any]:
        """A stream that is closed in the end."""
        stream = await (client or self.watcher).txmongo_tests.things.watch(**options)
        self.addCleanup(stream.close)
        return stream

    def last_batch(self) -> Any:
        """The cursor of the last reply to an aggregate or a getMore."""
        replies = [event.reply for event in self.events.of(monitoring.CommandSucceededEvent) if "cursor" in event.reply]
        return replies[-1]["cursor"]

    def stages(self) -> list[Any]:
        """The ``$changeStream`` of each aggregate."""
        return [command["pipeline"][0]["$changeStream"] for command in self.events.started_commands("aggregate")]

    async def insert(self, *numbers: int) -> None:
        """Make changes, and see them spread: only then are they in a first batch."""
        await self.things.with_options(write_concern=MAJORITY).insert_many([{"_id": number} for number in numbers])

    async def test_tracks_1(self) -> None:
        """The token follows the changes."""
        stream = await self.watch()
        await self.insert(1, 2, 3)
        for _ in range(3):
            change = await stream.next()
            self.assertIn(stream.resume_token, (change["_id"], self.last_batch()["postBatchResumeToken"]))

    async def test_missing_2(self) -> None:
        """A change without a token is an error, the server's own."""
        stream = await self.watch(pipeline=[{"$project": {"_id": 0}}])
        await self.insert(1)
        error = await self.failure(stream.next(), OperationFailure)
        self.assertEqual(error.code, 280)
        self.assertFalse(stream.alive)
        await self.failure(stream.next(), StopAsyncIteration)

    async def test_resumes_once_3(self) -> None:
        """After an error that allows it the same is asked for once more, but for the token."""
        stream = await self.watch(
            pipeline=[{"$match": {"operationType": "insert"}}],
            full_document="updateLookup",
            batch_size=2,
            comment="why",
        )
        await self.insert(1)
        change = await stream.next()
        await self.fail_command("getMore", **RESUMABLE)
        self.events.all.clear()
        await self.insert(2)
        self.assertEqual((await stream.next())["fullDocument"], {"_id": 2})
        self.assertEqual(
            [event.command_name for event in self.events.of(monitoring.CommandStartedEvent)][:3],
            ["getMore", "killCursors", "aggregate"],
        )
        [again] = self.events.started_commands("aggregate")
        self.assertEqual(
            again["pipeline"],
            [
                {"$changeStream": {"fullDocument": "updateLookup", "resumeAfter": change["_id"]}},
                {"$match": {"operationType": "insert"}},
            ],
        )
        self.assertEqual((again["cursor"], again["comment"]), ({"batchSize": 2}, "why"))

    async def test_no_resume_of_aggregate_4(self) -> None:
        """An error of the first aggregate is the caller's; so is one of the aggregate that resumes."""
        client = self.connect(retryReads=False)
        await client
        await self.fail_command("aggregate", **RESUMABLE)
        await self.failure(client.txmongo_tests.things.watch(), OperationFailure)
        self.assertEqual(len(self.stages()), 1)
        stream = await self.watch(client)
        self.events.all.clear()
        command = {"configureFailPoint": "failCommand", "mode": {"times": 2}}
        await self.client.admin.command({**command, "data": {"failCommands": ["getMore", "aggregate"], **RESUMABLE}})
        await self.failure(stream.next(), OperationFailure)
        self.assertEqual(len(self.stages()), 1)

    async def test_selects_a_server_6(self) -> None:
        """To resume, a server is selected by the read preference that the stream was opened with."""
        asked: list[Any] = []
        watched = self.watcher.get_database("txmongo_tests", read_preference=ReadPreference.NEAREST).things
        stream = await watched.watch()
        topology: Any = self.watcher._topology
        select = topology.select_server_now

        def noting(selector: Any) -> Any:
            asked.append(selector)
            return select(selector)

        self.patch(topology, "select_server_now", noting)
        await self.fail_command("getMore", **RESUMABLE)
        await self.insert(1)
        await stream.next()
        self.assertIn(ReadPreference.NEAREST, asked)
        await stream.close()

    async def test_empty_first_batch_7(self) -> None:
        """A cursor whose first batch is empty is not closed."""
        stream = await self.watch()
        self.assertEqual(self.last_batch()["firstBatch"], [])
        self.assertNotEqual(self.last_batch()["id"], 0)
        self.assertTrue(stream.alive)
        self.assertEqual(self.events.started_commands("killCursors"), [])

    async def test_failed_kill_8(self) -> None:
        """What becomes of killCursors when the stream is resumed concerns nobody."""
        stream = await self.watch()
        await self.insert(1)
        command = {"configureFailPoint": "failCommand", "mode": {"times": 2}}
        await self.client.admin.command({**command, "data": {"failCommands": ["getMore", "killCursors"], **RESUMABLE}})
        not_killed: defer.Deferred[None] = defer.Deferred()

        def failed(event: Any) -> None:
            if event.command_name == "killCursors":
                not_killed.callback(None)

        self.events.on_failed = failed
        self.assertEqual((await stream.next())["fullDocument"], {"_id": 1})
        await not_killed

    async def test_post_batch_token_11(self) -> None:
        """At the end of a batch, or after an empty one, the token is the batch's."""
        stream = await self.watch(max_await_time_ms=20)
        self.assertEqual(stream.resume_token, self.last_batch()["postBatchResumeToken"])
        self.assertIsNone(await stream.try_next())
        self.assertEqual(stream.resume_token, self.last_batch()["postBatchResumeToken"])
        await self.insert(1)
        await stream.next()
        self.assertEqual(stream.resume_token, self.last_batch()["postBatchResumeToken"])

    async def test_within_a_batch_13(self) -> None:
        """Within a batch the token is the _id of the change that came last."""
        stream = await self.watch()
        token = stream.resume_token
        await self.insert(1, 2, 3)
        await stream.close()
        stream = await self.watch(resume_after=token)
        self.assertEqual(len(self.last_batch()["firstBatch"]), 3)
        for _ in range(2):
            change = await stream.next()
            self.assertEqual(stream.resume_token, change["_id"])

    async def test_untouched_batch_14(self) -> None:
        """Before the first change of a first batch the token is the one that was given, if any."""
        stream = await self.watch()
        token = stream.resume_token
        async with self.client.start_session() as session:
            await self.things.with_options(write_concern=MAJORITY).insert_one({"_id": 1}, session=session)
            time = session.operation_time
        for option in ("start_after", "resume_after"):
            stream = await self.watch(**{option: token})
            self.assertEqual(len(self.last_batch()["firstBatch"]), 1)
            self.assertEqual(stream.resume_token, token)
        stream = await self.watch(start_at_operation_time=time)
        self.assertEqual(len(self.last_batch()["firstBatch"]), 1)
        self.assertIsNone(stream.resume_token)

    async def start_after(self) -> ChangeStream[Any]:
        """A stream that began behind a change."""
        first = await self.watch()
        await self.insert(1)
        await first.next()
        token = first.resume_token
        stream = await self.watch(start_after=token)
        self.events.all.clear()
        return stream

    async def test_start_after_17(self) -> None:
        """One that began by startAfter and has brought nothing is resumed by startAfter."""
        stream = await self.start_after()
        await self.fail_command("getMore", **RESUMABLE)
        await self.insert(2)
        self.assertEqual((await stream.next())["fullDocument"], {"_id": 2})
        [stage] = self.stages()
        self.assertEqual(list(stage), ["startAfter"])

    async def test_start_after_and_a_change_18(self) -> None:
        """One that has brought something is resumed by resumeAfter."""
        stream = await self.start_after()
        await self.insert(2)
        change = await stream.next()
        await self.fail_command("getMore", **RESUMABLE)
        await self.insert(3)
        self.assertEqual((await stream.next())["fullDocument"], {"_id": 3})
        [stage] = self.stages()
        self.assertEqual(list(stage), ["resumeAfter"])
        self.assertNotEqual(stage["resumeAfter"], change["documentKey"])

    async def test_large_events_19(self) -> None:
        """A change that is too large for one document comes in parts, if the pipeline says so."""
        await self.needs("splitting of large events", 6, 0, 9)
        await self.things.drop()
        await self.client.txmongo_tests.create_collection("things", changeStreamPreAndPostImages={"enabled": True})
        await self.things.insert_one({"value": "q" * 10 * 1024 * 1024})
        stream = await self.watch(
            pipeline=[{"$changeStreamSplitLargeEvent": {}}], full_document_before_change="required"
        )
        await self.things.update_one({}, {"$set": {"value": "z" * 10 * 1024 * 1024}})
        parts = [(await stream.next())["splitEvent"] for _ in range(2)]
        self.assertEqual(parts, [{"fragment": 1, "of": 2}, {"fragment": 2, "of": 2}])

    async def test_network_error(self) -> None:
        """A connection that is closed is an error that allows it too."""
        stream = await self.watch()
        await self.fail_command("getMore", closeConnection=True)
        self.events.all.clear()
        waiting = stream.next()
        await self.insert(1)
        self.assertEqual((await waiting)["fullDocument"], {"_id": 1})
        self.assertEqual(self.events.of(monitoring.CommandFailedEvent)[0].command_name, "getMore")
        self.assertEqual(len(self.stages()), 1)

    async def test_at_once(self) -> None:
        """Streams that fail together are resumed each for itself."""
        streams = [await self.watch() for _ in range(3)]
        command = {"configureFailPoint": "failCommand", "mode": {"times": 3}}
        await self.client.admin.command({**command, "data": {"failCommands": ["getMore"], **RESUMABLE}})
        waiting = [stream.next() for stream in streams]
        await self.insert(1)
        for change in await defer.gatherResults(waiting):
            self.assertEqual(change["fullDocument"], {"_id": 1})
        self.assertEqual(len(self.stages()), 6)
