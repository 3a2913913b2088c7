"""What an application does all day and a book on it: many writers and readers. And a look at the servers from outside.

:class:`Workload` keeps account of what was acknowledged and what failed, and when; :class:`PrimaryProbe` sees, past the
driver's topology and pools, which member is primary. Nothing here checks anything.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tests.integration.links import closed
from txmongo.connection import ConnectionPool
from txmongo.errors import PyMongoError
from txmongo.protocol import MongoProtocol
from txmongo.types import Address

__all__ = ["MAJORITY", "PrimaryProbe", "Sighting", "Workload", "first"]

MAJORITY = WriteConcern(w="majority")


class Workload:
    """Writers, half of which insert and half of which count up, and readers of the primary and the secondaries.

    Each of them does one operation after the other, so that so many are in flight all the time.

    :ivar acknowledged_at: when a write was acknowledged, in order.
    :ivar inserted: the ``_id`` of each insert that was acknowledged.
    :ivar unsure: the ``_id`` of each insert that failed.
    :ivar counted: by counter, how many updates were acknowledged.
    :ivar uncounted: by counter, how many failed.
    :ivar reads: how many reads have succeeded.
    :ivar errors: what writers and readers met.
    """

    def __init__(self, client: ConnectionPool[dict[str, Any]], clock: IReactorTime, *, writers: int, readers: int):
        self.acknowledged_at: list[float] = []
        self.inserted: list[int] = []
        self.unsure: set[int] = set()
        self.counted: Counter[int] = Counter()
        self.uncounted: Counter[int] = Counter()
        self.reads = 0
        self.errors: list[str] = []
        database = client.txmongo_failover
        self.inserts = database.get_collection("inserts", write_concern=MAJORITY)
        self.counters = database.get_collection("counters", write_concern=MAJORITY)
        self._anywhere = database.get_collection("counters", read_preference=ReadPreference.SECONDARY_PREFERRED)
        self._clock = clock
        self._writers = writers
        self._readers = readers
        self._ids = itertools.count()
        self._running = False
        #: By writer, when the write began that is in flight.
        self._begun: dict[int, float] = {}
        self._ended: list[defer.Deferred[None]] = []

    async def prepare(self) -> None:
        """Remove what an earlier one left, and make the counters."""
        await self.inserts.drop()
        await self.counters.drop()
        await self.counters.insert_many([{"_id": number, "count": 0} for number in range(self._writers)])

    def start(self) -> None:
        """Let everyone begin."""
        self._running = True
        half = self._writers // 2
        everyone = [self._insert(number) for number in range(half)]
        everyone += [self._count(number) for number in range(half, self._writers)]
        everyone += [self._read(self._anywhere if number % 2 else self.counters) for number in range(self._readers)]
        self._ended = [defer.Deferred.fromCoroutine(each) for each in everyone]

    def stop(self) -> defer.Deferred[Any]:
        """Let everyone finish what is in flight.

        :returns: a Deferred that fires when that is done. Cancelling it cancels what is in flight.
        """
        self._running = False
        return defer.gatherResults(self._ended, consumeErrors=True)

    async def _insert(self, writer: int) -> None:
        while self._running:
            number = next(self._ids)
            self._begun[writer] = self._clock.seconds()
            try:
                await self.inserts.insert_one({"_id": number})
            except PyMongoError as error:
                self.unsure.add(number)
                await self._failed("insert_one", error)
            else:
                self.inserted.append(number)
                self.acknowledged_at.append(self._clock.seconds())

    async def _count(self, writer: int) -> None:
        for number in itertools.count(writer):
            if not self._running:
                return
            counter = number % self._writers
            self._begun[writer] = self._clock.seconds()
            try:
                await self.counters.update_one({"_id": counter}, {"$inc": {"count": 1}})
            except PyMongoError as error:
                self.uncounted[counter] += 1
                await self._failed("update_one", error)
            else:
                self.counted[counter] += 1
                self.acknowledged_at.append(self._clock.seconds())

    async def _read(self, collection: Any) -> None:
        for number in itertools.count():
            if not self._running:
                return
            try:
                await collection.find_one({"_id": number % self._writers})
            except PyMongoError as error:
                await self._failed("find_one", error)
            else:
                self.reads += 1

    async def _failed(self, name: str, error: Exception) -> None:
        """Note a failure; who fails at once must not keep the reactor to itself."""
        self.errors.append(f"{name}: {type(error).__name__}: {error}")
        await deferLater(self._clock, 0.01)

    # --- what the book says ---

    @property
    def oldest_begun_at(self) -> float:
        """When the write began that is in flight for longest."""
        return min(self._begun.values())

    def acknowledged_between(self, begin: float, end: float) -> int:
        """How many writes were acknowledged in this time."""
        return sum(begin <= at <= end for at in self.acknowledged_at)

    def longest_gap(self, begin: float, end: float) -> tuple[float, float]:
        """The longest time without an acknowledged write that began between the two: from which write to which."""
        times = [at for at in self.acknowledged_at if at >= begin]
        gaps = [(later - earlier, earlier, later) for earlier, later in itertools.pairwise(times) if earlier <= end]
        _, earlier, later = max(gaps, default=(0.0, begin, begin))
        return earlier, later


@attrs.frozen
class Sighting:
    """A member said that it is primary and takes writes, or showed it.

    :ivar asked_at: when it was asked.
    :ivar at: when it answered.
    """

    address: Address
    asked_at: float
    at: float


def first(sightings: Iterable[Sighting], after: float, *, other_than: Address | None = None) -> Sighting | None:
    """The first answer to a question that was asked after that time."""
    for sighting in sightings:
        if sighting.asked_at >= after and sighting.address != other_than:
            return sighting
    return None


class PrimaryProbe:
    """Asks each member every 100 ms, on a connection of its own, whether it is primary; and writes to one that is.

    For some seconds after an election a primary may find nobody who confirms what it writes: the others have to notice
    first that the member is gone from which they copy. Then writes wait for the set, not for the driver.

    :param connect: opens a connection to a member; fires with a tuple, of which the first is the protocol.
    :ivar primaries: the answers of those that were primary, in order.
    :ivar writes: the answers to writes with ``w='majority'``, in order.
    """

    interval = 0.1

    def __init__(
        self, members: list[Address], clock: IReactorTime, connect: Callable[[Address], defer.Deferred[Any]]
    ) -> None:
        self.primaries: list[Sighting] = []
        self.writes: list[Sighting] = []
        self._clock = clock
        self._connect = connect
        self._watching = [
            defer.Deferred.fromCoroutine(self._watch(member, ask))
            for member in members
            for ask in (self._greet, self._write)
        ]

    async def stop(self) -> None:
        """Stop asking, and close the connections."""
        for watching in self._watching:
            watching.addErrback(lambda failure: failure.trap(defer.CancelledError) and None)
            watching.cancel()
        await defer.gatherResults(self._watching)

    async def _watch(self, member: Address, ask: Callable[[MongoProtocol, Address], Awaitable[None]]) -> None:
        protocol: MongoProtocol | None = None
        try:
            while True:
                try:
                    if protocol is None:
                        protocol = (await self._connect(member))[0]
                    await ask(protocol, member)
                except PyMongoError:
                    await self._close(protocol)
                    protocol = None
                await deferLater(self._clock, self.interval)
        finally:
            await self._close(protocol)

    async def _greet(self, protocol: MongoProtocol, member: Address) -> None:
        asked_at = self._clock.seconds()
        if (await protocol.command("admin", {"hello": 1})).get("isWritablePrimary"):
            self.primaries.append(Sighting(member, asked_at, self._clock.seconds()))

    async def _write(self, protocol: MongoProtocol, member: Address) -> None:
        if not self.primaries or self.primaries[-1].address != member:
            return
        asked_at = self._clock.seconds()
        update = {"q": {"_id": 1}, "u": {"$inc": {"count": 1}}, "upsert": True}
        command = {"update": "probe", "updates": [update], "writeConcern": {"w": "majority"}}
        await protocol.command("txmongo_failover", command)
        self.writes.append(Sighting(member, asked_at, self._clock.seconds()))

    async def _close(self, protocol: MongoProtocol | None) -> None:
        if protocol is not None:
            await closed(protocol)
