"""A slow query holds nobody up: the default settings, fifty readers, and pings at the worst moments."""

from __future__ import annotations

import gc
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.integration.servers import standalone
from txmongo.connection import ConnectionPool

_SLOW_SECONDS = 2.0
_LIMIT_SECONDS = 0.150
#: What the slow query may add where the same work takes long without it: on a machine that has other things to do.
_ADDED_SECONDS = 0.100
_READERS = 50


class SlowQueryTests(TestCase):
    """Operations that run beside a query of two seconds."""

    timeout = 120
    skip = "measures times, which coverage falsifies" if sys.gettrace() is not None else None

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Fifty documents, and readers that have made the connections they use."""
        # The garbage of the tests before this one is not what is measured here.
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        self.clock: Any = reactor
        server = await standalone()
        self.client: Any = ConnectionPool(server.uri)
        self.addCleanup(self.client.disconnect)
        self.things = self.client.slow_query.things
        await self.things.drop()
        await self.things.insert_many([{"_id": number, "text": "x" * 1000} for number in range(_READERS)])
        self.reading = True
        self.longest = 0.0
        self.reads = 0
        self.readers: list[Deferred[Any]] = [Deferred.fromCoroutine(self.read(n)) for n in range(_READERS)]

    async def read(self, number: int) -> None:
        """Read one document again and again, and keep the longest time that it took."""
        while self.reading:
            await self.timed(self.things.find_one({"_id": number}))
            self.reads += 1

    async def timed(self, operation: Deferred[Any]) -> None:
        """Wait for an operation that was just begun."""
        began = self.clock.seconds()
        await operation
        self.longest = max(self.longest, self.clock.seconds() - began)

    def slow(self) -> Deferred[Any]:
        """A query that keeps the server at it for two seconds."""
        return self.things.find_one({"_id": 0, "$where": f"sleep({int(_SLOW_SECONDS * 1000)}) || true"})  # type: ignore[no-any-return]

    async def ping_after(self, milliseconds: int) -> None:
        """A slow query, and so many milliseconds later, in a turn of its own, a ping."""
        await deferLater(self.clock, 0.2)
        self.longest = 0.0
        await deferLater(self.clock, _SLOW_SECONDS)
        without = self.longest
        self.longest = 0.0
        reads = self.reads
        began = self.clock.seconds()
        slow = self.slow()
        await deferLater(self.clock, milliseconds / 1000)
        await self.timed(self.client.admin.command("ping"))
        await slow
        self.assertGreaterEqual(self.clock.seconds() - began, _SLOW_SECONDS)
        self.assertGreater(self.reads - reads, _READERS)
        self.reading = False
        await gatherResults(self.readers)
        limit = max(_LIMIT_SECONDS, without + _ADDED_SECONDS)
        self.assertLessEqual(self.longest, limit, f"of {self.reads - reads} reads and a ping; {without:.3f} s without")

    def test_ping_at_once(self) -> Deferred[None]:
        """No read, and no ping in the same turn as the slow query, takes longer than 150 ms."""
        return Deferred.fromCoroutine(self.ping_after(0))

    def test_ping_after_1_ms(self) -> Deferred[None]:
        """No read, and no ping one millisecond after the slow query, takes longer than 150 ms."""
        return Deferred.fromCoroutine(self.ping_after(1))

    def test_ping_after_5_ms(self) -> Deferred[None]:
        """No read, and no ping five milliseconds after the slow query, takes longer than 150 ms."""
        return Deferred.fromCoroutine(self.ping_after(5))

    def test_ping_after_30_ms(self) -> Deferred[None]:
        """No read, and no ping thirty milliseconds after the slow query, takes longer than 150 ms."""
        return Deferred.fromCoroutine(self.ping_after(30))
