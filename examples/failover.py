"""An application that goes on while its replica set loses one primary after the other.

It starts a throw-away replica set of three members. Forty writers count up and insert, all the time. Meanwhile the
primary steps down, then the next one is killed. At the end the books are compared: what was acknowledged is there, and
nothing was done twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, task

from txmongo import ConnectionPool
from txmongo.errors import PyMongoError
from txmongo.testing import ReplicaSet

DATABASE = "txmongo_failover_example"
WRITERS = 40


class Writers:
    """Insert and count up until they are told to stop; nothing in here knows of elections."""

    def __init__(self, reactor: Any, client: ConnectionPool[dict[str, Any]]) -> None:
        self.acknowledged: list[int] = []
        self.failed: list[PyMongoError] = []
        self.pauses: list[float] = []
        self._orders = client[DATABASE].orders
        self._totals = client[DATABASE].totals
        self._seconds: Callable[[], float] = reactor.seconds
        self._last = reactor.seconds()
        self._numbers = itertools.count(1)
        self._stopped = False
        self._running: list[defer.Deferred[None]] = []

    def start(self) -> None:
        """Begin."""
        self._running = [defer.Deferred.fromCoroutine(self._write()) for _ in range(WRITERS)]

    async def stop(self) -> None:
        """Finish what is in flight."""
        self._stopped = True
        await defer.gatherResults(self._running)

    async def _write(self) -> None:
        while not self._stopped:
            number = next(self._numbers)
            try:
                await self._orders.insert_one({"_id": number})
                await self._totals.update_one({"_id": "orders"}, {"$inc": {"count": 1}})
            except PyMongoError as error:
                self.failed.append(error)
            else:
                self.acknowledged.append(number)
                now = self._seconds()
                self.pauses.append(now - self._last)
                self._last = now

    def report(self, what: str) -> None:
        """Print what the longest pause was since the last report."""
        print(f"{what}: the longest pause was {max(self.pauses):.2f} s, {len(self.failed)} operations failed")
        self.pauses.clear()


async def main(reactor: Any) -> None:
    """Start the set, let it fail, compare the books."""
    print("Starting a throw-away replica set")
    members = await ReplicaSet(reactor, 3).start()
    try:
        await run(reactor, members)
    finally:
        await members.stop()
    print("The throw-away replica set is gone")


async def run(reactor: Any, members: ReplicaSet) -> None:
    """Write while primaries come and go."""
    client: ConnectionPool[dict[str, Any]] = ConnectionPool(members.uri, w="majority")
    try:
        await client[DATABASE].totals.insert_one({"_id": "orders", "count": 0})
        writers = Writers(reactor, client)
        writers.start()
        await task.deferLater(reactor, 1)
        writers.report("While nothing happened")

        await members.step_down(10)
        await task.deferLater(reactor, 2)
        writers.report("When the primary stepped down")

        primary = await members.primary()
        await members.kill(primary)
        await members.primary(other_than=primary)
        await task.deferLater(reactor, 2)
        writers.report("When the next primary was killed")

        await members.restart(primary)
        await writers.stop()
        await compare(client, writers)
    finally:
        await client.disconnect()


async def compare(client: ConnectionPool[dict[str, Any]], writers: Writers) -> None:
    """Compare what the writers know with what the server has."""
    there = {order["_id"] for order in await client[DATABASE].orders.find()}
    total = await client[DATABASE].totals.find_one({"_id": "orders"})
    assert total is not None
    acknowledged = len(writers.acknowledged)
    print(f"Lost: {len(set(writers.acknowledged) - there)}")
    print(f"Done twice: {max(0, total['count'] - acknowledged - len(writers.failed))}")
    print(f"Acknowledged: {acknowledged} orders")


if __name__ == "__main__":
    task.react(main)
