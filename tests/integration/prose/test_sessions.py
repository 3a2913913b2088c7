"""Prose tests of the sessions specification that ``tests/integration/test_sessions.py`` does not have.

There are 2 (``test_last_in_first_out``), 4, 5 and 6 (``test_every_method``; here for GridFS). 10 is checked after every
test case of a collection. 1 is in ``tests/unit/test_sessions.py``; 18 and 19 want a server without sessions, see
``tests/unit/prose/test_sessions.py``. 7 and 12 to 17 are about what this driver does not have: users that change, forks
in mid-work, OP_QUERY; but for 14.
"""

from __future__ import annotations

import inspect
import io
from typing import Any

from pymongo import monitoring
from pymongo.operations import UpdateOne
from pymongo.read_preferences import Nearest, Primary, PrimaryPreferred, Secondary, SecondaryPreferred
from twisted.internet import defer

from tests.integration.prose.events import CommandEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import InvalidOperation
from txmongo.gridfs import GridFSBucket

READ_PREFERENCES = (Primary(), PrimaryPreferred(), Secondary(), SecondaryPreferred(), Nearest())


class _Case(CollectionTestCase):
    """A client whose commands are kept."""

    def connect(self, **options: Any) -> tuple[Any, CommandEvents]:
        """Another client, and the events of its commands."""
        events = CommandEvents()
        client: Any = ConnectionPool(self.uri, event_listeners=[events, *options.pop("listeners", [])], **options)
        self.addCleanup(client.disconnect)
        return client, events

    @property
    def in_use(self) -> int:
        """How many sessions are not in the pool."""
        return self.client._executor.sessions.pool.in_use


class CursorTests(_Case):
    """The implicit sessions of cursors."""

    on_replica_set = True

    async def test_exhausted_at_once_8(self) -> None:
        """A cursor whose only batch has come has given its session back, though documents are left to be read."""
        await self.things.insert_many([{}, {}])
        cursor = self.things.find()
        await cursor.next()
        self.assertEqual((self.in_use, cursor.alive), (0, True))
        await cursor.next()

    async def test_exhausted_by_get_more_9(self) -> None:
        """A cursor whose last batch has come has given its session back before the last document is read."""
        await self.things.insert_many([{} for _ in range(5)])
        cursor = self.things.find(batch_size=3)
        await cursor.next()
        self.assertEqual(self.in_use, 1)
        for _ in range(3):
            await cursor.next()
        self.assertEqual((self.in_use, cursor.alive), (0, True))
        self.assertEqual(self.commands.names()[-2:], ["find", "getMore"])
        await cursor.next()

    async def find_and_get_more(self) -> None:
        """With each read preference find and getMore carry the same session."""
        await self.things.insert_many([{"_id": number} for number in range(3)])
        for preference in READ_PREFERENCES:
            if self.on_replica_set and preference == Secondary():
                continue  # It has none.
            client, events = self.connect()
            things = client.get_database("txmongo_tests", read_preference=preference).things
            self.assertEqual(len(await things.find(batch_size=2)), 3)
            find, get_more = events.started_commands()
            self.assertEqual((next(iter(find)), next(iter(get_more))), ("find", "getMore"))
            self.assertTrue(find["lsid"]["id"])
            self.assertEqual(find["lsid"], get_more["lsid"])

    async def test_find_and_get_more_11(self) -> None:
        """On a replica set find and getMore carry the same session."""
        await self.find_and_get_more()


class StandaloneTests(CursorTests):
    """The same on a server on its own."""

    on_replica_set = False


class ImplicitTests(_Case):
    """When a session is taken that nobody asked for."""

    on_replica_set = True

    async def test_after_check_out_14(self) -> None:
        """Operations that wait for the only connection have no session yet."""
        client, events = self.connect(maxPoolSize=1, retryWrites=True, pipelining=False)
        things = client.txmongo_tests.things
        update: dict[str, Any] = {"$set": {"a": 1}}
        counts = []
        for _ in range(5):
            events.all.clear()
            running: list[Any] = [
                things.insert_one({}),
                things.delete_one({}),
                things.update_one({}, update),
                things.bulk_write([UpdateOne({}, update)]),
                things.find_one_and_delete({}),
                things.find_one_and_update({}, update),
                things.find_one_and_replace({}, {"a": 1}),
                things.find(),
            ]
            await defer.gatherResults(running)
            counts.append(len({command["lsid"]["id"] for command in events.started_commands()}))
        self.assertLess(max(counts), 8)
        self.assertEqual(min(counts), 1)


class BucketTests(_Case):
    """The methods of GridFS that take a session; those of collections are in ``tests/integration/test_sessions.py``."""

    on_replica_set = True

    def calls(self, bucket: GridFSBucket) -> list[Any]:
        """One call of each, all of which can be made one after the other."""
        return [
            (bucket.upload_from_stream, "a", b"1"),
            (bucket.upload_from_stream_with_id, 1, "b", b"2"),
            (self.upload, bucket.open_upload_stream, "c"),
            (self.upload, bucket.open_upload_stream_with_id, 2, "d"),
            (bucket.download_to_stream, 1, io.BytesIO()),
            (bucket.download_to_stream_by_name, "a", io.BytesIO()),
            (self.download, bucket.open_download_stream, 2),
            (self.download, bucket.open_download_stream_by_name, "c"),
            (bucket.find, {}),
            (bucket.rename, 1, "e"),
            (bucket.rename_by_name, "d", "f"),
            (bucket.delete, 1),
            (bucket.delete_by_name, "f"),
            (bucket.drop,),
        ]

    async def upload(self, method: Any, *arguments: Any, session: Any) -> None:
        """Write a file."""
        stream = method(*arguments, session=session)
        await stream.write(b"3")
        await stream.close()

    async def download(self, method: Any, *arguments: Any, session: Any) -> None:
        """Read a file."""
        stream = await method(*arguments, session=session)
        self.assertEqual(await stream.read(), b"3")

    def test_all_methods(self) -> None:
        """None is left out of these calls."""
        bucket = GridFSBucket(self.client.txmongo_tests)
        called = {getattr(part, "__name__", "") for call in self.calls(bucket) for part in call}
        taking = {
            name
            for name, method in inspect.getmembers(GridFSBucket, inspect.isfunction)
            if not name.startswith("_") and "session" in inspect.signature(method).parameters
        }
        self.assertEqual(taking - called, set())

    async def test_given_4(self) -> None:
        """All that a method of a bucket does is done in the session that it is given."""
        bucket = GridFSBucket(self.client.txmongo_tests)
        async with self.client.start_session() as session:
            for method, *arguments in self.calls(bucket):
                self.commands.sent.clear()
                await method(*arguments, session=session)
                ids = {command["lsid"]["id"] for command in self.commands.sent}
                self.assertEqual(ids, {session.session_id["id"]}, (method, arguments))
        self.assertEqual(self.in_use, 0)

    async def test_foreign_and_ended_5_6(self) -> None:
        """Sessions of another client and sessions that have ended are refused, and nothing is sent."""
        bucket = GridFSBucket(self.client.txmongo_tests)
        ended = self.client.start_session()
        await ended.end_session()
        other, _ = self.connect()
        async with other.start_session() as foreign:
            for method, *arguments in self.calls(bucket):
                for session in (ended, foreign):
                    self.commands.sent.clear()
                    await self.failure(
                        defer.Deferred.fromCoroutine(_call(method, arguments, session)), InvalidOperation
                    )
                    self.assertEqual(self.commands.sent, [], (method, arguments))
        self.assertEqual(self.in_use, 0)


async def _call(method: Any, arguments: list[Any], session: Any) -> Any:
    return await method(*arguments, session=session)


class Heartbeats(monitoring.ServerHeartbeatListener):
    """Tells when a server was looked at."""

    def __init__(self) -> None:
        self.next: defer.Deferred[None] | None = None

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        """A look begins."""

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """It ended well."""
        waiting, self.next = self.next, None
        if waiting is not None:
            waiting.callback(None)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        """It did not."""

    async def beat(self) -> None:
        """Wait for the next that succeeds."""
        self.next = defer.Deferred()
        await self.next


class ClusterTimeTests(_Case):
    """``$clusterTime``."""

    on_replica_set = True

    async def test_in_commands_3(self) -> None:
        """Every command carries the time that the reply before it told."""
        client, events = self.connect(heartbeatFrequencyMS=1_000_000)
        things = client.txmongo_tests.things
        await things.insert_one({})
        for call in (
            lambda: client.txmongo_tests.command("ping"),
            lambda: things.aggregate([]),
            things.find,
            lambda: things.insert_one({}),
        ):
            events.all.clear()
            await call()
            await call()
            started = events.of(monitoring.CommandStartedEvent)
            answered = events.of(monitoring.CommandSucceededEvent)
            self.assertEqual(len(started), 2)
            self.assertIn("clusterTime", started[0].command["$clusterTime"])
            self.assertEqual(started[1].command["$clusterTime"], answered[0].reply["$clusterTime"])

    async def test_not_by_monitors_20(self) -> None:
        """What a monitor hears does not move the time that commands carry."""
        heartbeats = Heartbeats()
        client, events = self.connect(
            directConnection=True, heartbeatFrequencyMS=500, serverMonitoringMode="poll", listeners=[heartbeats]
        )
        reply = await client.admin.command("ping")
        await self.things.insert_one({"advance": "$clusterTime"})
        await heartbeats.beat()
        await heartbeats.beat()
        events.all.clear()
        await client.admin.command("ping")
        [ping] = events.started_commands("ping")
        self.assertEqual(ping["$clusterTime"]["clusterTime"], reply["$clusterTime"]["clusterTime"])
        self.assertGreater(self.client.cluster_time["clusterTime"], ping["$clusterTime"]["clusterTime"])  # type: ignore[index]
