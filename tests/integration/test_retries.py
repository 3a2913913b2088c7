"""What the driver tries again on a real server, beyond the specifications' own cases."""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from twisted.internet import defer

from tests.integration.prose.events import PoolEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect


class ClearedTests(CollectionTestCase):
    """Two operations want the one connection of a client when its pool is cleared."""

    on_replica_set = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_one({"_id": 0})
        self.pool = PoolEvents()
        # Often looked at, as the server itself knows of no change: the errors are made up.
        self.one: Any = ConnectionPool(
            self.uri,
            maxPoolSize=1,
            pipelining=False,
            heartbeatFrequencyMS=500,
            event_listeners=[self.commands, self.pool],
        )
        self.addCleanup(self.one.disconnect)
        await self.one
        self.pool.all.clear()

    def check_pool(self) -> None:
        """One had the connection, the pool was cleared, then the other one failed to get it; once each."""
        kinds = (
            monitoring.ConnectionCheckedOutEvent,
            monitoring.PoolClearedEvent,
            monitoring.ConnectionCheckOutFailedEvent,
        )
        heard = [event for event in self.pool.all if isinstance(event, kinds)]
        self.assertEqual([type(event) for event in heard[:3]], list(kinds))
        self.assertEqual(heard[2].reason, "connectionError")
        self.assertEqual([len(self.pool.of(kind)) for kind in kinds[1:]], [1, 1])

    async def fail_slowly(self, name: str, **data: Any) -> None:
        """Have the server fail the next command of that name after half a second."""
        await self.fail_command(name, blockConnection=True, blockTimeMS=500, **data)

    async def test_read(self) -> None:
        """Retryable reads, "PoolClearedError Retryability Test": both are tried again."""
        await self.fail_slowly("find", errorCode=91)
        things = self.one.txmongo_tests.things
        found = await defer.gatherResults([things.find_one(), things.find_one()])
        self.assertEqual(found, [{"_id": 0}] * 2)
        self.check_pool()
        self.assertEqual(self.commands.names().count("find"), 3)

    async def test_write(self) -> None:
        """Retryable writes, "PoolClearedError Retryability Test": both are tried again, and done once."""
        await self.fail_slowly("update", errorCode=91, errorLabels=["RetryableWriteError"])
        things = self.one.txmongo_tests.things
        await defer.gatherResults([things.update_one({}, {"$inc": {"n": 1}}) for _ in range(2)])
        self.assertEqual(await self.things.find_one(), {"_id": 0, "n": 2})
        self.check_pool()
        self.assertEqual(self.commands.names().count("update"), 3)

    async def test_in_transaction(self) -> None:
        """Transactions, "TransientTransactionError on PoolClearedError": the one that waited may begin again."""
        await self.fail_slowly("find", closeConnection=True)
        things = self.one.txmongo_tests.things
        async with self.one.start_session() as session:
            session.start_transaction()
            other, waiting = things.find_one({"_id": 0}), things.find_one({}, session=session)
            (found, document), (succeeded, failure) = await defer.DeferredList([other, waiting], consumeErrors=True)
            self.assertEqual((found, document, succeeded), (True, {"_id": 0}, False))
            self.assertIsInstance(failure.value, AutoReconnect)
            self.assertTrue(failure.value.has_error_label("TransientTransactionError"))
            await session.abort_transaction()
            self.check_pool()
        sessions = self.one._executor.sessions.pool
        self.assertEqual(sessions.in_use, 0)
