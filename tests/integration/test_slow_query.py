"""A slow query holds nobody up: the default settings, fifty readers, and pings at the worst moments."""

from __future__ import annotations

import gc
import sys
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.integration.servers import standalone
from txmongo.connection import ConnectionPool

_SLOW_SECONDS = 2.0
_LIMIT_SECONDS = 0.150
#: How many times as long a read may take where reads take long anyway, before the slow query or beside it at a client
#: that has nothing to do with it: on a machine that has other things to do. There are ten times as many of the ones.
_BUSY_FACTOR = 3
_READERS = 50
_WITNESSES = 5


@attrs.define
class Reads:
    """How many there were, and the longest time that one took, in seconds."""

    count: int = 0
    longest: float = 0.0

    def took(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.longest = max(self.longest, seconds)


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
        self.client, witness = self.connect(server.uri), self.connect(server.uri)
        self.things = self.client.slow_query.things
        await self.things.drop()
        await self.things.insert_many([{"_id": number, "text": "x" * 1000} for number in range(_READERS)])
        self.reading = True
        self.begin_anew()
        readers = [self.read(self.things, "reads", number) for number in range(_READERS)]
        readers += [self.read(witness.slow_query.things, "witnessed", number) for number in range(_WITNESSES)]
        self.readers: list[Deferred[Any]] = [Deferred.fromCoroutine(reader) for reader in readers]

    def connect(self, uri: str) -> Any:
        """A client of the default settings."""
        client: Any = ConnectionPool(uri)
        self.addCleanup(client.disconnect)
        return client

    def begin_anew(self) -> None:
        """Forget how long reads took."""
        self.reads, self.witnessed = Reads(), Reads()

    async def read(self, things: Any, kept_in: str, number: int) -> None:
        """Read one document again and again, and keep the longest time that it took."""
        while self.reading:
            await self.timed(things.find_one({"_id": number}), kept_in)

    async def timed(self, operation: Deferred[Any], kept_in: str) -> None:
        """Wait for an operation that was just begun."""
        began = self.clock.seconds()
        await operation
        getattr(self, kept_in).took(self.clock.seconds() - began)

    def slow(self) -> Deferred[Any]:
        """A query that keeps the server at it for two seconds."""
        return self.things.find_one({"_id": 0, "$where": f"sleep({int(_SLOW_SECONDS * 1000)}) || true"})  # type: ignore[no-any-return]

    async def ping_after(self, milliseconds: int) -> None:
        """A slow query, and so many milliseconds later, in a turn of its own, a ping."""
        await deferLater(self.clock, 0.2)
        self.begin_anew()
        await deferLater(self.clock, _SLOW_SECONDS)
        without = self.reads.longest
        self.begin_anew()
        began = self.clock.seconds()
        slow = self.slow()
        await deferLater(self.clock, milliseconds / 1000)
        await self.timed(self.client.admin.command("ping"), "reads")
        await slow
        self.assertGreater(self.clock.seconds() - began, 0.9 * _SLOW_SECONDS)
        self.assertGreater(self.reads.count, _READERS)
        self.reading = False
        await gatherResults(self.readers)
        beside = self.witnessed.longest
        limit = max(_LIMIT_SECONDS, _BUSY_FACTOR * max(without, beside))
        where = f"{without:.3f} s without the slow query, {beside:.3f} s beside it"
        self.assertLessEqual(self.reads.longest, limit, f"of {self.reads.count} reads and a ping; {where}")

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
