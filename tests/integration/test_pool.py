"""What only a real server shows of the pool: that it carries out what the pool meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import monitoring
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.integration.servers import standalone
from tests.listeners import PoolListener
from txmongo._testing.den import wait_until
from txmongo.connection import ConnectionPool


def until(ask: Callable[[], Any], what: str, timeout: float = 10) -> defer.Deferred[Any]:
    """Wait until something is so, or fail because of ``what``."""
    found: defer.Deferred[Any] = wait_until(reactor, ask, timeout, what)
    return found


class Opened(PoolListener):
    """Counts the connections that were opened and closed."""

    def __init__(self) -> None:
        self.created = 0
        self.ready = 0
        self.closed: list[str] = []

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        """One is being opened."""
        self.created += 1

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:
        """One more."""
        self.ready += 1

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        """One less."""
        self.closed.append(event.reason)


class PoolTests(TestCase):
    """Pools with a server at the other end."""

    timeout = 60

    async def client(self, **options: Any) -> Any:
        """A client, and its own collection with one document."""
        server = await standalone()
        self.opened = Opened()
        client: Any = ConnectionPool(server.uri, event_listeners=[self.opened], **options)
        self.addCleanup(client.disconnect)
        self.things = client.pool_tests.things
        await self.things.drop()
        await self.things.insert_one({"_id": 0})
        return client

    def slow(self, milliseconds: int, mark: str = "slow") -> defer.Deferred[Any]:
        """A query that takes the server so long."""
        query = {"$where": f"sleep({milliseconds}) || true"}
        return self.things.find_one(query, comment=mark)  # type: ignore[no-any-return]

    async def until_running(self, client: Any, mark: str, count: int) -> None:
        """Wait until the server is at so many operations with such a comment."""

        async def running() -> bool:
            reply = await client.admin.command("currentOp")
            return sum(each.get("command", {}).get("comment") == mark for each in reply["inprog"]) == count

        await until(lambda: defer.Deferred.fromCoroutine(running()), f"not {count} operations are running")

    async def test_cancelled_query_ends(self) -> None:
        """A long query that is cancelled is soon ended at the server too, with its connection."""
        client = await self.client()
        slow = self.slow(20_000, "cancelled")
        await self.until_running(client, "cancelled", 1)
        slow.cancel()
        await self.assertFailure(slow, defer.CancelledError)
        await self.until_running(client, "cancelled", 0)
        self.assertEqual(self.opened.closed, ["error"])

    async def test_moved_reads(self) -> None:
        """Reads that went out behind a slow query on the same connection do not wait for it."""
        await self.client(maxPoolSize=2)
        for _ in range(20):
            await self.things.find_one({"_id": 0})
        began = reactor.seconds()  # type: ignore[attr-defined]
        slow = self.slow(3_000)
        reads = [self.things.find_one({"_id": 0}) for _ in range(20)]
        found = await defer.gatherResults(reads)
        took = reactor.seconds() - began  # type: ignore[attr-defined]
        self.assertEqual(found, [{"_id": 0}] * 20)
        self.assertLess(took, 2.8)
        self.assertEqual(await slow, {"_id": 0})

    async def test_moved_cursors(self) -> None:
        """Of two copies of a read that were both carried out, the one that came too late leaves no cursor behind."""
        client = await self.client(maxPoolSize=2)
        await self.things.insert_many([{"_id": number} for number in range(1, 20)])

        async def open_cursors() -> int:
            status = await client.admin.command("serverStatus")
            return int(status["metrics"]["cursor"]["open"]["total"])

        before = await open_cursors()
        await defer.gatherResults([self.things.find({}, batch_size=5).to_list() for _ in range(40)])
        slow = self.slow(300)
        cursors = [self.things.find({}, batch_size=5) for _ in range(20)]
        batches = await defer.gatherResults([cursor.next_batch() for cursor in cursors])
        self.assertEqual([len(batch) for batch in batches], [5] * 20)
        await slow
        await defer.gatherResults([cursor.close() for cursor in cursors])

        async def none_left() -> bool:
            return await open_cursors() <= before

        await until(lambda: defer.Deferred.fromCoroutine(none_left()), "cursors are left open")

    async def test_unacknowledged_writes_are_seen(self) -> None:
        """A read sees the unacknowledged write before it, though other connections are idle."""
        await self.client(minPoolSize=4)
        await until(lambda: self.opened.ready >= 4, "there are no four connections")
        unacknowledged = self.things.with_options(write_concern=WriteConcern(w=0))
        for number in range(1, 200):
            unacknowledged.insert_one({"_id": number})
            self.assertEqual(await self.things.find_one({"_id": number}), {"_id": number})

    async def test_call_order(self) -> None:
        """With a fixed pool of one connection everything happens in call order, from the first call on."""
        server = await standalone()
        client: Any = ConnectionPool(server.uri, pool_size=1)
        self.addCleanup(client.disconnect)
        things = client.pool_tests.ordered
        waiting = [things.drop()]
        for number in range(200):
            waiting.append(things.insert_one({"_id": number}))
            waiting.append(things.count_documents({}))
        done = await defer.gatherResults(waiting)
        self.assertEqual(done[2::2], list(range(1, 201)))

    async def test_idle_connections_are_closed(self) -> None:
        """Connections that are idle for longer than maxIdleTimeMS are closed, and nothing else notices."""
        await self.client(maxIdleTimeMS=200, maxConnecting=5, pipelining=False)
        await defer.gatherResults([self.slow(50) for _ in range(3)])
        self.assertGreaterEqual(self.opened.created, 3)
        await until(lambda: len(self.opened.closed) == self.opened.created, "connections are left open", 5)
        self.assertEqual(set(self.opened.closed), {"idle"})
        self.assertEqual(await self.things.find_one({"_id": 0}), {"_id": 0})

    async def test_one_per_connection(self) -> None:
        """Without pipelining as many connections are opened as operations are under way at once."""
        await self.client(pipelining=False, maxConnecting=5)
        await defer.gatherResults([self.slow(300) for _ in range(5)])
        self.assertEqual(self.opened.ready, 5)
