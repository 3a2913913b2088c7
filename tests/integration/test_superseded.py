"""A primary that froze, and that another one took the place of, lets go of what was in flight there.

The operations are begun when it is frozen already: they wait in its sockets, and it carries out some of them when it
goes on, with their connections gone and after they were done elsewhere.
"""

from __future__ import annotations

from typing import Any

from pymongo.monitoring import PoolClearedEvent
from twisted.internet import defer

from tests.integration.servers import Commands, be_patient, freeze
from tests.integration.test_failover import APP_NAME, Clearings, FailoverTestCase
from tests.integration.workload import MAJORITY
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, PyMongoError
from txmongo.sessions import ClientSession

#: How many writes are in flight.
WRITES = 200
NO_SUCH_TRANSACTION = 251


class Interruptions(Clearings):
    """Notes which pools were cleared, and whether the connections in use were cut."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, bool]] = []

    def pool_cleared(self, event: PoolClearedEvent) -> None:
        """That is what is looked for."""
        super().pool_cleared(event)
        self.seen.append((event.address, event.interrupt_connections))


class SupersededTestCase(FailoverTestCase):
    """A client, its listeners, and a collection of counters that are 0."""

    async def connect(self, **options: Any) -> None:
        """Make them. Nobody but the rule that is tested here ends what waits: the monitor is patient."""
        options["connectTimeoutMS"] = 300_000
        self.commands, self.cleared = Commands(), Interruptions()
        self.client = ConnectionPool(
            self.members.uri, appname=APP_NAME, event_listeners=[self.commands, self.cleared], **options
        )
        self.addCleanup(self.client.disconnect)
        self.things = self.client.txmongo_failover.get_collection("superseded", write_concern=MAJORITY)
        await self.things.drop()
        await self.things.insert_many([{"_id": number, "count": 0} for number in range(WRITES)])
        self.primary = await self.members.primary()

    def pool(self) -> Any:
        """The pool of the primary that freezes."""
        return self.client._topology.servers[self.primary.address].pool

    async def counts(self) -> set[int]:
        """The values that the counters have."""
        return {document["count"] async for document in self.things.find()}

    async def end(self) -> None:
        """Let it go on, and see that nothing is left over."""
        self.members.thaw(self.primary)
        await self.everyone_is_well()
        await self.check_idle()

    async def end_client(self) -> None:
        """Nothing of the client is left either."""
        await self.client.disconnect()
        await self.check_gone()


class WriteTests(SupersededTestCase):
    """Writes that may be repeated."""

    async def count_all(self) -> list[tuple[bytes, int]]:
        """Freeze, then increase every counter; by which session and number each was sent at first."""
        await freeze(self.members, self.primary)
        self.commands.sent.clear()
        updates = [self.things.update_one({"_id": number}, {"$inc": {"count": 1}}) for number in range(WRITES)]
        sent = self.identities()
        await defer.gatherResults(updates, consumeErrors=True)
        return sent

    def identities(self) -> list[tuple[bytes, int]]:
        """Session and number of each update that was sent."""
        updates = [command for command in self.commands.sent if "update" in command]
        return [(bytes(command["lsid"]["id"]), command["txnNumber"]) for command in updates]

    async def check(self, in_flight: list[tuple[bytes, int]]) -> None:
        """Each was done once, under the identity that it had from the beginning; those interrupted are not used again.

        :param in_flight: what was sent before anything was interrupted.
        """
        self.assertEqual(self.cleared.seen, [(self.primary.address, True)])
        self.assertEqual(await self.counts(), {1})
        everything = self.identities()
        self.assertEqual(len(set(everything)), WRITES)
        self.assertEqual([identity for identity in in_flight if everything.count(identity) < 2], [])
        idle = {bytes(session.lsid["id"]) for session in self.client._executor.sessions.pool._idle}
        self.assertEqual(idle & {lsid for lsid, _ in in_flight}, set())
        await self.end()
        self.assertEqual(await self.counts(), {1})
        await self.end_client()

    async def test_all_in_flight(self) -> None:
        """Of a fixed pool, where everything is sent at once."""
        await self.connect(pool_size=10)
        sent = await self.count_all()
        self.assertEqual(len(sent), WRITES)
        await self.check(sent)

    async def test_some_waiting(self) -> None:
        """Of a pool that grows: some were sent, some wait for a connection that the frozen one does not take."""
        await self.connect(minPoolSize=20)
        await defer.gatherResults([self.client.admin.command("ping") for _ in range(100)])
        sent = await self.count_all()
        self.assertGreaterEqual(len(sent), 1)
        self.assertLess(len(sent), WRITES)
        await self.check(sent)


class OtherTests(SupersededTestCase):
    """What is not simply done elsewhere."""

    async def begin_transaction(self, number: int) -> ClientSession:
        """A session with a transaction in which a counter was increased."""
        session = self.client.start_session()
        session.start_transaction()
        await self.count(number, session)
        return session

    def count(self, number: int, session: ClientSession | None = None) -> Any:
        """Increase a counter."""
        return self.things.update_one({"_id": number}, {"$inc": {"count": 1}}, session=session)

    async def value(self, number: int) -> int:
        """What a counter says."""
        found = await self.things.find_one({"_id": number})
        assert found is not None
        count: int = found["count"]
        return count

    async def error(self, operation: Any) -> Any:
        """What an operation fails with, before the frozen primary goes on."""
        return await self.assertFailure(operation, PyMongoError)

    async def check_not_committed(self, session: ClientSession, error: Any) -> None:
        """A commit's outcome, asked for until it is known, is that the server knows of no such transaction."""
        while error.has_error_label("UnknownTransactionCommitResult"):
            error = await self.error(session.commit_transaction())
        self.assertEqual(error.code, NO_SUCH_TRANSACTION)
        self.assertTrue(error.has_error_label("TransientTransactionError"))

    async def fail_next_commit(self) -> None:
        """Have the members that may become primary hang up on the next commit."""
        others = [member for member in self.members.members if member is not self.primary]
        data = {"failCommands": ["commitTransaction"], "closeConnection": True}
        for member in others:
            command = {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data}
            await member.command("admin", command)
            self.addCleanup(member.command, "admin", {"configureFailPoint": "failCommand", "mode": "off"})

    async def test_transactions(self) -> None:
        """What is in flight in a transaction fails as transient; a commit goes on elsewhere, where nothing is known.

        ``with_transaction`` begins again.
        """
        await self.connect()
        inside, at_commit = await self.begin_transaction(0), await self.begin_transaction(1)
        in_callback = defer.Deferred[None]()
        calls = []

        async def work(session: ClientSession) -> None:
            calls.append(session)
            await self.count(2, session)
            if len(calls) == 1:
                in_callback.callback(None)
                await frozen
            await self.count(3, session)

        frozen = defer.Deferred[None]()
        session = self.client.start_session()
        whole = session.with_transaction(work)
        await in_callback
        await freeze(self.members, self.primary)
        operation, commit = self.count(0, inside), at_commit.commit_transaction()
        frozen.callback(None)
        error = await self.error(operation)
        self.assertIsInstance(error, AutoReconnect)
        self.assertTrue(error.has_error_label("TransientTransactionError"))
        await self.check_not_committed(at_commit, await self.error(commit))
        await whole
        self.assertGreaterEqual(len(calls), 2)
        self.assertEqual(self.cleared.seen, [(self.primary.address, True)])
        for each in (inside, at_commit, session):
            await each.end_session()
        await self.end()
        self.assertEqual([await self.value(number) for number in range(4)], [0, 0, 1, 1])
        await self.end_client()

    async def test_commit_unknown(self) -> None:
        """If the repetition of a commit gets no answer either its outcome is unknown; asked again, it is told."""
        await self.connect()
        session = await self.begin_transaction(0)
        await self.fail_next_commit()
        await freeze(self.members, self.primary)
        error = await self.error(session.commit_transaction())
        self.assertIsInstance(error, AutoReconnect)
        self.assertTrue(error.has_error_label("UnknownTransactionCommitResult"))
        self.assertFalse(error.has_error_label("TransientTransactionError"))
        await self.check_not_committed(session, error)
        await session.end_session()
        await self.end()
        self.assertEqual(await self.counts(), {0})
        await self.end_client()

    async def test_not_repeatable(self) -> None:
        """What may not be sent twice fails with AutoReconnect; reads are done by the new primary."""
        await self.connect(pool_size=1)
        cursor = self.things.find({}, batch_size=10)
        await cursor.next_batch()
        self.commands.sent.clear()
        await freeze(self.members, self.primary)
        written = self.things.update_many({"_id": 0}, {"$inc": {"count": 1}})
        more = cursor.next_batch()
        command = self.client.admin.command("ping")
        read = self.things.find_one({"_id": 1})
        self.assertEqual(self.commands.names(), ["update", "getMore", "ping", "find"])
        for each in (written, more, command):
            error = await self.error(each)
            self.assertIsInstance(error, AutoReconnect)
            self.assertFalse(error.has_error_label("RetryableWriteError"))
        self.assertEqual(await read, {"_id": 1, "count": 0})
        self.assertEqual(self.commands.names(), ["update", "getMore", "ping", "find", "find"])
        await self.end()
        self.assertIn(await self.value(0), (0, 1))
        await self.end_client()


class OrderlyTests(SupersededTestCase):
    """A primary that steps down and answers."""

    async def test_step_down(self) -> None:
        """What it is busy with is finished: a query in flight, and the cursor of another one."""
        await self.connect(retryReads=False)
        be_patient(self)
        cursor = self.things.find({}, batch_size=10, sort=[("_id", 1)])
        first = await cursor.next_batch()
        query = {"_id": {"$lt": 50}, "$where": "sleep(250); return true"}
        slow = self.things.find(query).to_list()
        await self.step_down(2)
        await self.things.update_one({"_id": 0}, {"$inc": {"count": 1}})
        self.assertFalse(slow.called)
        self.assertEqual(len(await slow), 50)
        self.assertEqual(len(first) + len(await cursor.to_list()), WRITES)
        self.assertEqual(self.cleared.seen, [])
        self.assertEqual(cursor.address, self.primary.address)
        await self.end()
        await self.end_client()
