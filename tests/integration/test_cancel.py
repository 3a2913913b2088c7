"""Cancelling at each stage, on a real server: it ends at once, and client and server go on as if nothing had been."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, endpoints, protocol, reactor
from twisted.internet.task import deferLater

from tests.integration.servers import CollectionTestCase, freeze, replica_set
from tests.listeners import PoolListener
from txmongo.connection import ConnectionPool
from txmongo.errors import PyMongoError

#: Milliseconds for which the server sits on a command; long enough that it is not over before the test cancels.
BLOCKED = 600


class Connections(PoolListener):
    """Counts the connections that were made."""

    def __init__(self) -> None:
        self.created = 0

    def connection_created(self, event: object) -> None:
        """One is being opened."""
        self.created += 1


class CancelTests(CollectionTestCase):
    """A client of its own in each test, of a replica set of one."""

    on_replica_set = True

    async def make(self, uri: str | None = None, *, warm: bool = True, **options: Any) -> None:
        """The client that things happen to, connected unless ``warm`` says otherwise."""
        self.connections = Connections()
        self.other: ConnectionPool[dict[str, Any]] = ConnectionPool(
            uri or self.uri, event_listeners=[self.connections], **options
        )
        self.addCleanup(self.other.disconnect)
        self.coll = self.other.txmongo_tests.things
        if warm:
            await self.other.admin.command("ping")

    async def block(self, *names: str, **data: Any) -> None:
        """Have the server sit on commands from now on, until the end of the test or :meth:`unblock`."""
        await self.client.admin.command(
            {
                "configureFailPoint": "failCommand",
                "mode": "alwaysOn",
                "data": {"failCommands": list(names), **(data or {"blockConnection": True, "blockTimeMS": BLOCKED})},
            }
        )
        self.addCleanup(self.unblock)

    async def unblock(self) -> None:
        """Let the server answer at once again."""
        await self.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    async def ends(self, operation: defer.Deferred[Any], after: float = 0.05) -> None:
        """Let an operation get as far as it gets, and cancel it: it ends before anything else happens."""
        await deferLater(reactor, after)
        ended: list[Any] = []
        operation.addErrback(lambda failure: ended.append(failure.trap(defer.CancelledError)))
        self.assertEqual(ended, [], "it was over before it could be cancelled")
        operation.cancel()
        self.assertEqual(ended, [defer.CancelledError])
        self.clean()

    def clean(self) -> None:
        """Nobody waits, nothing is checked out, no session is in use."""
        pools = [server.pool for server in self.other._topology.servers.values()]
        self.assertEqual(sum(pool.operation_count for pool in pools), 0)
        self.assertEqual(self.other._parts.crowd.waiting, 0)
        self.assertEqual(self.other._executor.sessions.pool.in_use, 0)

    async def works(self) -> None:
        """The client goes on serving others, and everything that was in flight is over."""
        await self.coll.insert_one({"works": True})
        self.assertEqual(await self.coll.count_documents({"works": True}), 1)
        self.clean()

    async def test_waiting_for_a_server(self) -> None:
        """Where nothing listens."""
        port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(protocol.Factory())
        number = port.getHost().port
        await port.stopListening()
        await self.make(f"mongodb://127.0.0.1:{number}", warm=False)
        await self.ends(self.coll.insert_one({}))

    async def test_waiting_for_a_connection(self) -> None:
        """While another operation has the only one."""
        await self.make(maxPoolSize=1, pipelining=False)
        await self.block("find")
        busy = self.coll.find_one()
        await self.ends_waiting(self.coll.insert_one({"cancelled": True}))
        await busy
        self.assertEqual(await self.coll.count_documents({"cancelled": True}), 0)
        await self.works()

    async def ends_waiting(self, operation: defer.Deferred[Any]) -> None:
        """As :meth:`ends`, while one other operation is in flight."""
        [pool] = [server.pool for server in self.other._topology.servers.values()]
        self.assertEqual((pool.operation_count, pool.waiting_count), (2, 1))
        operation.cancel()
        await self.assertFailure(operation, defer.CancelledError)
        self.assertEqual((pool.operation_count, pool.waiting_count), (1, 0))

    async def test_connecting(self) -> None:
        """While the greeting of its connection is not answered; the connection is there for the next."""
        await self.make(warm=False)
        await self.other.address
        await self.block("hello", "isMaster", "ismaster")
        await self.ends(self.coll.insert_one({"cancelled": True}))
        await self.unblock()
        await self.works()
        self.assertEqual(await self.coll.count_documents({"cancelled": True}), 0)
        self.assertEqual(self.connections.created, 1)

    async def test_authenticating(self) -> None:
        """While the user is authenticated on its connection."""
        admin = self.client.admin
        await admin.command({"createUser": "canceller", "pwd": "secret", "roles": ["root"]})
        self.addCleanup(admin.command, {"dropUser": "canceller"})
        await self.make(self.uri.replace("mongodb://", "mongodb://canceller:secret@"), warm=False)
        await self.other.address
        await self.block("saslContinue", "saslStart")
        await self.ends(self.coll.insert_one({"cancelled": True}))
        await self.unblock()
        await self.works()
        self.assertEqual(await self.coll.count_documents({"cancelled": True}), 0)

    async def test_in_flight(self) -> None:
        """On a shared connection: its late reply is dropped, those around it get theirs, and it stays the only one."""
        await self.make(pool_size=1)
        await self.block("insert")
        before = self.coll.count_documents({"number": 1})
        operation = self.coll.insert_one({"number": 1})
        after = [self.coll.count_documents({"number": 1}) for _ in range(5)]
        await deferLater(reactor, 0.05)
        operation.cancel()
        await self.assertFailure(operation, defer.CancelledError)
        self.assertEqual([await before, *[await each for each in after]], [0, 1, 1, 1, 1, 1])
        await self.unblock()
        await self.works()
        self.assertEqual(self.connections.created, 1)

    async def test_in_flight_alone(self) -> None:
        """With one operation per connection, that connection is closed."""
        await self.make(maxPoolSize=1, pipelining=False)
        await self.block("insert")
        await self.ends(self.coll.insert_one({}))
        await self.unblock()
        await self.works()
        self.assertEqual(self.connections.created, 2)

    async def test_frozen_server(self) -> None:
        """While the server does not answer at all; when it does again, the client has it."""
        await self.make()
        await self.coll.insert_one({"_id": 0})
        session, whole = self.other.start_session(), self.other.start_session()
        session.start_transaction()
        await self.coll.update_one({"_id": 0}, {"$set": {"x": 1}}, session=session)
        cursor = self.coll.find(batch_size=1)
        members = await replica_set()
        self.addCleanup(members.thaw, members.members[0])
        await freeze(members, members.members[0])
        operations = [
            self.coll.insert_one({}),
            self.coll.find_one({}),
            cursor.next_batch(),
            self.coll.update_many({}, {"$set": {"y": 1}}),
            self.other.admin.command("ping"),
            self.coll.insert_one({}, session=session),
            whole.with_transaction(lambda each: self.coll.insert_one({}, session=each)),
        ]
        await deferLater(reactor, 0.1)
        for operation in operations:
            operation.cancel()
            await self.assertFailure(operation, defer.CancelledError)
        pools = [server.pool for server in self.other._topology.servers.values()]
        self.assertEqual((sum(pool.operation_count for pool in pools), self.other._parts.crowd.waiting), (0, 0))
        members.thaw(members.members[0])
        await session.abort_transaction()
        for each in (session, whole):
            await each.end_session()
        await self.works()
        # The server may have found the beginning of the second transaction after its abort.
        self.assertEqual(await self.open_transactions(), 0)

    async def test_long_query(self) -> None:
        """A query on which nobody waits is ended at the server, with its connection."""
        await self.make()
        await self.coll.insert_many([{} for _ in range(100)])
        await self.ends(self.coll.find_one({"$where": "sleep(100); return false"}))
        for _ in range(500):
            if not await self.running_queries():
                break
            await deferLater(reactor, 0.02)
        self.assertEqual(await self.running_queries(), [])
        await self.works()

    async def running_queries(self) -> list[Any]:
        """The server's queries of this test that run."""
        pipeline = [{"$currentOp": {}}, {"$match": {"command.find": "things", "command.filter.$where": {"$exists": 1}}}]
        return list(await self.client.admin.aggregate(pipeline))

    async def test_between_batches(self) -> None:
        """A cursor is forgotten by the server, whether its first or a later batch was cancelled, or it was closed."""
        await self.make()
        others = await self.open_cursors()
        await self.coll.insert_many([{"_id": number} for number in range(300)])
        # A cursor that is given up while it is made is killed if it is there within a second: it is, long before.
        await self.block("find", blockConnection=True, blockTimeMS=150)
        reading = self.coll.find(batch_size=2).to_list()
        await deferLater(reactor, 0.05)
        reading.cancel()
        await self.assertFailure(reading, defer.CancelledError)
        await self.unblock()
        await self.block("getMore")
        reading = self.coll.find(batch_size=2).to_list()
        await deferLater(reactor, 0.05)
        reading.cancel()
        await self.assertFailure(reading, defer.CancelledError)
        await self.unblock()
        cursor = self.coll.find(batch_size=2)
        await cursor.next_batch()
        await cursor.close()
        for _ in range(500):
            if await self.open_cursors() <= others:
                break
            await deferLater(reactor, 0.02)
        self.assertLessEqual(await self.open_cursors(), others)
        await self.works()

    async def open_cursors(self) -> set[int]:
        """The cursors of queries on the collection that the server has; a client that is closed leaves its own."""
        pipeline = [
            {"$currentOp": {"idleCursors": True}},
            {"$match": {"type": "idleCursor", "cursor.originatingCommand.find": "things"}},
        ]
        return {each["cursor"]["cursorId"] for each in await self.client.admin.aggregate(pipeline)}

    async def test_backing_off(self) -> None:
        """Before it is sent again to a server that said that it is overloaded."""
        await self.make(maxAdaptiveRetries=5)
        self.other._executor._random.random = lambda: 1.0  # type: ignore[method-assign]
        labels = ["SystemOverloadedError", "RetryableError"]
        await self.block("insert", errorCode=462, errorLabels=labels)
        await self.ends(self.coll.insert_one({"cancelled": True}))
        await self.unblock()
        await deferLater(reactor, 0.5)
        self.assertEqual(await self.coll.count_documents({"cancelled": True}), 0)
        await self.works()

    async def test_in_a_transaction(self) -> None:
        """An operation of a transaction: the session can still abort it, and the server has none open."""
        await self.make()
        await self.coll.insert_one({"_id": 0})
        async with self.other.start_session() as session:
            session.start_transaction()
            await self.coll.insert_one({"_id": 1}, session=session)
            await self.block("insert")
            operation = self.coll.insert_one({"_id": 2}, session=session)
            await deferLater(reactor, 0.05)
            operation.cancel()
            await self.assertFailure(operation, defer.CancelledError)
            await self.unblock()
            self.assertTrue(session.in_transaction)
            await session.abort_transaction()
        self.clean()
        self.assertEqual(await self.coll.count_documents({}), 1)
        self.assertEqual(await self.open_transactions(), 0)
        await self.works()

    async def test_with_transaction(self) -> None:
        """A function that runs in a transaction: nothing of it stays."""
        await self.make()
        await self.coll.insert_one({"_id": 0})
        await self.block("update")

        async def work(session: Any) -> None:
            await self.coll.insert_one({"_id": 1}, session=session)
            await self.coll.update_one({"_id": 0}, {"$set": {"x": 1}}, session=session)

        session = self.other.start_session()
        running = session.with_transaction(work)
        await deferLater(reactor, 0.2)
        running.cancel()
        await self.assertFailure(running, defer.CancelledError)
        self.assertFalse(session.in_transaction)
        await session.end_session()
        await self.unblock()
        for _ in range(500):
            if not await self.open_transactions():
                break
            await deferLater(reactor, 0.02)
        self.assertEqual(await self.open_transactions(), 0)
        self.assertEqual(await self.coll.find().to_list(), [{"_id": 0}])
        await self.works()

    async def test_commit(self) -> None:
        """A commit: asked again, it tells what became of it."""
        await self.make()
        await self.coll.insert_one({"_id": 0})
        async with self.other.start_session() as session:
            session.start_transaction()
            await self.coll.insert_one({"_id": 1}, session=session)
            await self.block("commitTransaction")
            commit = session.commit_transaction()
            await deferLater(reactor, 0.05)
            commit.cancel()
            await self.assertFailure(commit, defer.CancelledError)
            await self.unblock()
            await session.commit_transaction()
        self.assertEqual(await self.coll.count_documents({}), 2)
        await self.works()

    async def open_transactions(self) -> int:
        """How many the server has."""
        status = await self.client.admin.command("serverStatus")
        count: int = status["transactions"]["currentOpen"]
        return count

    async def test_everything_at_once(self) -> None:
        """Operations without end, of which every second one is cancelled at any moment: nothing is left over."""
        await self.make(maxPoolSize=5)
        outcomes: list[str] = []
        for number in range(300):
            operation = self.coll.update_one({"_id": number % 7}, {"$inc": {"n": 1}}, upsert=True)
            operation.addCallbacks(
                lambda _: outcomes.append("done"),
                lambda failure: outcomes.append(failure.trap(defer.CancelledError, PyMongoError).__name__),
            )
            if number % 2:
                reactor.callLater((number % 13) / 1000, operation.cancel)  # type: ignore[attr-defined]
            if number % 10 == 0:
                await deferLater(reactor, 0.002)
        while len(outcomes) < 300:
            await deferLater(reactor, 0.01)
        self.assertEqual(set(outcomes) - {"done", "CancelledError"}, set())
        self.assertGreaterEqual(outcomes.count("done"), 150)
        self.clean()
        total = sum([document["n"] async for document in self.coll.find()])
        self.assertGreaterEqual(total, outcomes.count("done"))
        self.assertLessEqual(total, 300)
        await self.works()
