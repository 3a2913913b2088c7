"""Time limits on real servers: ``timeoutMS`` at every level, and TxMongo's ``timeout=`` and ``deadline=``.

Kept: the prose tests of the client side operations timeout specification, by their numbers. Left out: 2 and 3 (client
side encryption), 4 (connections are opened without regard to the time of one operation), 11 (MongoDB 8.0).
"""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo import CursorType
from twisted.internet import defer, reactor
from twisted.internet.task import deferLater

from tests.integration.servers import CollectionTestCase, Commands
from txmongo._testing.den import wait_until
from txmongo.connection import ConnectionPool
from txmongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError, TimeExceeded
from txmongo.gridfs import GridFS, GridFSBucket
from txmongo.testing import Mongod

#: Milliseconds that something is given, and for which the server holds up what takes too long.
LIMIT = 500
HELD = 2500
#: Seconds by which a busy machine may be late: with the limit less than what the server holds something up for.
LATE = 1.5


async def warm(client: ConnectionPool[Any]) -> None:
    """Connect a client, in a time of its own."""
    await client.admin.command("ping", timeout_ms=60_000)


async def found(client: ConnectionPool[Any]) -> None:
    """Have a client find its server, in a time of its own, and make no connection for operations yet."""
    client.address.addErrback(lambda failure: failure.trap(ServerSelectionTimeoutError))
    await wait_until(reactor, lambda: client.nodes, 60, "the server was not found")


class CsotCase(CollectionTestCase):
    """Clients with limits, and commands that the server holds up."""

    def connect(self, uri: str | None = None, **options: Any) -> ConnectionPool[dict[str, Any]]:
        """A client that tells of its commands; the other one, without a limit, sets fail points."""
        client: ConnectionPool[dict[str, Any]] = ConnectionPool(
            uri or self.uri, event_listeners=[self.commands], **options
        )
        self.addCleanup(client.disconnect)
        return client

    async def hold_up(self, *names: str, ms: int, mode: Any = None, **data: Any) -> None:
        """Have the server answer commands late, until the test ends."""
        admin = self.client.admin
        data = {"failCommands": list(names), "blockConnection": True, "blockTimeMS": ms, **data}
        await admin.command("configureFailPoint", "failCommand", mode=mode or {"times": 1}, data=data)
        self.addCleanup(lambda: admin.command("configureFailPoint", "failCommand", mode="off"))
        self.commands.sent.clear()

    async def timed_out(self, waiting: Any, within: float) -> PyMongoError:
        """The timeout by which something ends, in so many seconds and what is the machine's."""
        began = reactor.seconds()
        try:
            result = await waiting
        except PyMongoError as error:
            self.assertTrue(error.timeout, repr(error))
            self.assertLess(reactor.seconds() - began, within + LATE)
            return error
        self.fail(f"no timeout: {result!r}")


class BatchTests(CsotCase):
    """1. Multi-batch inserts."""

    async def test_insert_many(self) -> None:
        """All batches have one time together, more than the specification's: 50 MB take a busy machine some of it."""
        client = self.connect(timeoutMS=6000)
        await warm(client)
        await self.hold_up("insert", ms=3100, mode={"times": 2})
        documents = [{"big": b"\0" * 1_000_000} for _ in range(50)]
        await self.timed_out(client.txmongo_tests.things.insert_many(documents), 6.0)
        self.assertEqual(self.commands.names(), ["insert", "insert"])


class IterationTests(CsotCase):
    """5. Blocking Iteration Methods."""

    on_replica_set = True

    async def two_get_mores(self, waiting: Any) -> None:
        """A wait ends with its time, during the second further batch: the first came in time, and was empty."""
        await self.timed_out(waiting, 2.0)
        self.assertEqual(self.commands.names().count("getMore"), 2)

    async def test_tailable(self) -> None:
        """The wait for the next document of a tailable cursor has one time."""
        things = await self.client.txmongo_tests.create_collection("things", capped=True, size=4096)
        await things.insert_one({"_id": 0, "x": 1})
        client = self.connect(timeoutMS=2000)
        await warm(client)
        await self.hold_up("getMore", ms=1200, mode="alwaysOn")
        cursor = client.txmongo_tests.things.find(cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(10)
        self.assertEqual(await cursor.next(wait=True), {"_id": 0, "x": 1})
        self.assertTrue(cursor.cursor_id)
        await self.two_get_mores(cursor.next(wait=True))

    async def test_change_stream(self) -> None:
        """So has the wait for the next change."""
        client = self.connect(timeoutMS=2000)
        await warm(client)
        await self.hold_up("getMore", ms=1200, mode="alwaysOn")
        stream = await client.txmongo_tests.things.watch(max_await_time_ms=10)
        await self.two_get_mores(stream.next())
        await stream.close()


class GridFSTests(CsotCase):
    """6. GridFS - Upload, and 7. GridFS - Download."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Begin without files, but with the indexes, which take a server a while."""
        await super().setUp()
        self.database = self.client.txmongo_tests
        for name in ("fs.files", "fs.chunks"):
            await self.database.drop_collection(name)
        await GridFS(self.database).indexes_created()

    async def bucket(self, **options: Any) -> GridFSBucket:
        """Of a client with a limit, which is connected."""
        client = self.connect(timeoutMS=LIMIT)
        await warm(client)
        return GridFSBucket(client.txmongo_tests, **options)

    async def test_upload(self) -> None:
        """The writing of a file may take no longer, from its beginning to its close."""
        bucket = await self.bucket()
        await self.hold_up("insert", ms=HELD)
        stream = bucket.open_upload_stream("filename")
        await stream.write(b"\x12")
        await self.timed_out(stream.close(), LIMIT / 1000)

    async def test_abort(self) -> None:
        """Nor may giving it up."""
        bucket = await self.bucket(chunk_size_bytes=2)
        await self.hold_up("delete", ms=HELD)
        stream = bucket.open_upload_stream("filename")
        await stream.write(b"\1\2\3\4")
        await self.timed_out(stream.abort(), LIMIT / 1000)

    async def test_download(self) -> None:
        """Reading a file is limited as a whole: finding it and its chunks, and what its reader does between them."""
        file_id = ObjectId("000000000000000000000005")
        document = {"_id": file_id, "length": 10, "chunkSize": 4, "filename": "length-10"}
        await self.database.fs.files.insert_one(document)
        bucket = await self.bucket()
        self.commands.sent.clear()
        stream = await bucket.open_download_stream(file_id)
        await self.hold_up("find", ms=HELD)
        await self.timed_out(stream.read(), LIMIT / 1000)
        self.assertEqual([command["find"] for command in self.commands.sent if "find" in command], ["fs.chunks"])
        stream = await (await self.bucket()).open_download_stream(file_id)
        await deferLater(reactor, LIMIT / 1000 + 0.01)
        self.commands.sent.clear()
        await self.timed_out(stream.read(), 0.0)
        self.assertEqual(self.commands.sent, [])


class HandshakeTests(CsotCase):
    """8. Server Selection, as far as a user has to be authenticated."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start a server with a user."""
        mongod = await Mongod(reactor, auth=True, parameters={"enableTestCommands": 1}).start()
        self.addCleanup(mongod.stop)
        self.uri = mongod.uri
        self.commands = Commands()
        self.client = ConnectionPool(self.uri)
        self.addCleanup(self.client.disconnect)
        await self.client

    async def test_handshake(self) -> None:
        """The lesser of timeoutMS and serverSelectionTimeoutMS holds while a connection is made."""
        for timeout, selection in ((LIMIT, 20_000), (20_000, LIMIT)):
            client = self.connect(timeoutMS=timeout, serverSelectionTimeoutMS=selection)
            await found(client)
            await self.hold_up("saslContinue", ms=HELD)
            await self.timed_out(client.txmongo_tests.things.insert_one({"x": 1}), LIMIT / 1000)
            self.assertEqual(self.commands.sent, [])
            await self.client.admin.command("configureFailPoint", "failCommand", mode="off")

    async def test_goes_on(self) -> None:
        """A connection that took too long for one operation is there for the next."""
        client = self.connect(timeoutMS=LIMIT)
        await self.hold_up("saslContinue", ms=HELD)
        await self.timed_out(client.txmongo_tests.things.insert_one({"x": 1}), LIMIT / 1000)
        await client.txmongo_tests.things.insert_one({"x": 2}, timeout_ms=20_000)
        [server] = client._topology.servers.values()
        self.assertEqual(server.pool.total_count, 1)


class SelectionTests(CsotCase):
    """8. Server Selection."""

    async def test_no_server(self) -> None:
        """The lesser of timeoutMS and serverSelectionTimeoutMS holds, also with timeoutMS=0."""
        for options in ("", "timeoutMS=20&", "timeoutMS=100000&", "timeoutMS=0&"):
            client = self.connect(f"mongodb://127.0.0.1:1/?{options}serverSelectionTimeoutMS=50")
            error = await self.timed_out(client.admin.command("ping"), 0.05)
            self.assertIsInstance(error, ServerSelectionTimeoutError)
        client = self.connect("mongodb://127.0.0.1:1/?timeoutMS=50")
        self.assertIsInstance(await self.timed_out(client.admin.command("ping"), 0.05), ServerSelectionTimeoutError)


class SessionTests(CsotCase):
    """9. endSession, and 10. Convenient Transactions."""

    on_replica_set = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """What the server is too slow to abort would keep the next case waiting for a minute: it is ended by force."""
        await super().setUp()
        self.addCleanup(lambda: self.client.admin.command("killAllSessions", []))

    async def end(self, client: ConnectionPool[Any], session_timeout_ms: int | None = None, **timing: Any) -> None:
        """End a session with a transaction that the server is slow to abort."""
        await warm(client)
        await self.hold_up("abortTransaction", ms=HELD)
        session = client.start_session(default_timeout_ms=session_timeout_ms)
        # The server would keep the transaction, and its locks, for another minute.
        self.addCleanup(self.client.admin.command, {"killSessions": [session.session_id]})
        session.start_transaction()
        await client.txmongo_tests.things.insert_one({"x": 1}, session=session)
        await self.timed_out(session.end_session(**timing), LIMIT / 1000)
        self.assertTrue(session.has_ended)

    async def test_end_session(self) -> None:
        """The end of a session takes no longer than the client, the session or the call says."""
        await self.client.txmongo_tests.create_collection("things")
        await self.end(self.connect(timeoutMS=LIMIT))
        await self.end(self.connect(), LIMIT)
        await self.end(self.connect(), timeout_ms=LIMIT)

    async def test_abort_anew(self) -> None:
        """When the function of with_transaction runs out of time, the abort has a time of its own."""
        await self.client.txmongo_tests.create_collection("things")
        client = self.connect(timeoutMS=LIMIT)
        await warm(client)
        await self.hold_up("insert", "abortTransaction", ms=HELD, mode={"times": 2})
        session = client.start_session()

        def callback(session: Any) -> defer.Deferred[Any]:
            return client.txmongo_tests.things.insert_one({"_id": 1}, session=session)

        await self.timed_out(session.with_transaction(callback), 2 * LIMIT / 1000)
        self.assertEqual(self.commands.names(), ["insert", "abortTransaction"])

    async def test_one_time_for_all_attempts(self) -> None:
        """Attempts after transient errors share one time; the last of these errors is the timeout's cause."""
        await self.client.txmongo_tests.create_collection("things")
        labels = ["TransientTransactionError"]
        await self.hold_up("insert", ms=25, mode="alwaysOn", errorCode=24, errorLabels=labels)
        client = self.connect()
        await warm(client)
        attempts = 0

        def callback(session: Any) -> defer.Deferred[Any]:
            nonlocal attempts
            attempts += 1
            return client.txmongo_tests.things.insert_one({"x": 1}, session=session)

        session = client.start_session(default_timeout_ms=1000)
        error = await self.timed_out(session.with_transaction(callback), 1.0)
        self.assertGreater(attempts, 1)
        self.assertIsInstance(error.__cause__, (OperationFailure, PyMongoError), repr(error))


class CallTests(CsotCase):
    """Limits of single calls."""

    async def test_server_stops(self) -> None:
        """With timeoutMS the server gives the work up too: it is told how long it may take."""
        await self.things.insert_one({"x": 1})
        slow = {"$where": f"sleep({HELD}) || true"}
        body = f"function() {{ sleep({HELD}); return true; }}"
        self.commands.sent.clear()
        await self.timed_out(
            self.things.count_documents(
                {"$expr": {"$function": {"body": body, "args": [], "lang": "js"}}}, timeout_ms=LIMIT
            ),
            LIMIT / 1000,
        )
        self.assertLessEqual(self.commands.sent[0]["maxTimeMS"], LIMIT)
        await self.timed_out(self.things.find_one(slow, timeout_ms=LIMIT), LIMIT / 1000)

    async def test_named(self) -> None:
        """TxMongo's timeout and deadline end in TimeExceeded, caused by the timeout; the client works on."""
        await self.things.insert_one({"_id": 1})
        timing: Any
        for timing in ({"timeout": 0.1}, {"deadline": reactor.seconds() + 0.3}, {"timeout": -1}):
            await self.hold_up("find", ms=HELD)
            error = await self.timed_out(self.things.find_one({"_id": 1}, **timing), 0.3)
            self.assertIsInstance(error, TimeExceeded)
            self.assertTrue(error.__cause__.timeout)  # type: ignore[union-attr]
        await self.client.admin.command("configureFailPoint", "failCommand", mode="off")
        self.assertEqual(await self.things.find_one({"_id": 1}, timeout=10), {"_id": 1})

    async def test_cursor_is_killed(self) -> None:
        """A cursor whose time is over is killed all the same, in a time of its own."""
        await self.things.insert_many([{"_id": number} for number in range(3)])
        await self.hold_up("getMore", ms=HELD)
        cursor = self.things.find(batch_size=2, timeout_ms=LIMIT)
        self.assertEqual(len(await cursor.next_batch()), 2)
        await self.timed_out(cursor.next_batch(), LIMIT / 1000)
        await cursor.close()
        self.assertEqual(self.commands.names(), ["find", "getMore", "killCursors"])
        self.assertLessEqual(self.commands.sent[-1]["maxTimeMS"], LIMIT)
