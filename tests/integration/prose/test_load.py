"""Prose tests about choosing between the members of a replica set of three.

Of the server selection specification "operationCount-based selection within the latency window", with two secondaries
in place of its two routers; of the retryable reads specification number 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pymongo import monitoring
from pymongo.read_preferences import PrimaryPreferred, Secondary
from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.integration.prose.events import CommandEvents
from txmongo.connection import ConnectionPool
from txmongo.testing import Mongod, ReplicaSet

APP_NAME = "loadBalancingTest"
OVERLOAD = ["RetryableError", "SystemOverloadedError"]


async def one_after_another(things: Any, count: int) -> None:
    """So many reads."""
    for _ in range(count):
        await things.find_one({})


class MemberTests(TestCase):
    """Which member is asked."""

    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.members = await ReplicaSet(reactor, 3, parameters={"enableTestCommands": 1}).start()
        self.addCleanup(self.members.stop)
        self.events = CommandEvents()

    def connect(self, **options: Any) -> Any:
        """A client whose commands are kept."""
        client: Any = ConnectionPool(self.members.uri, event_listeners=[self.events], appName=APP_NAME, **options)
        self.addCleanup(client.disconnect)
        return client

    async def fail_find(self, member: Mongod, times: int, **data: Any) -> None:
        """Have a member do something about the client's reads."""
        data = {"failCommands": ["find"], "appName": APP_NAME, **data}
        mode = {"times": times} if times else "off"
        await member.command("admin", {"configureFailPoint": "failCommand", "mode": mode, "data": data})

    def asked(self, commands: Iterable[Any]) -> Counter[Any]:
        """How many of these commands went to each member."""
        return Counter(event.connection_id for event in commands)

    async def test_operation_count(self) -> None:
        """A slow member gets few reads; members that are equally fast get equally many."""
        client = self.connect(localThresholdMS=30_000, minPoolSize=10, maxPoolSize=10)
        await client.test.things.insert_one({})
        primary = await self.members.primary()
        slow, other = (member for member in self.members.members if member is not primary)
        things = client.get_database("test", read_preference=Secondary()).things
        await defer.gatherResults([things.find_one({}) for _ in range(200)])
        await self.fail_find(slow, 10_000, blockConnection=True, blockTimeMS=500)
        self.events.all.clear()
        tasks = [defer.Deferred.fromCoroutine(one_after_another(things, 10)) for _ in range(10)]
        await defer.gatherResults(tasks)
        asked = self.asked(self.events.of(monitoring.CommandStartedEvent, "find"))
        self.assertLess(asked[slow.address], sum(asked.values()) / 4, asked)
        for member in (slow, other):
            # As long as that a member that has to wait for a processor is not the slower one of the two.
            await self.fail_find(member, 10_000, blockConnection=True, blockTimeMS=30)
        self.events.all.clear()
        tasks = [defer.Deferred.fromCoroutine(one_after_another(things, 100)) for _ in range(10)]
        await defer.gatherResults(tasks)
        asked = self.asked(self.events.of(monitoring.CommandStartedEvent, "find"))
        total = sum(asked.values())
        for member in (slow, other):
            self.assertTrue(0.4 * total <= asked[member.address] <= 0.6 * total, asked)

    async def retried_on(self, labels: list[str], **options: Any) -> tuple[Any, Any]:
        """Where a read failed, and where it succeeded then."""
        client = self.connect(retryReads=True, **options)
        things = client.get_database("test", read_preference=PrimaryPreferred()).things
        await client.address  # The primary is known: else another member would be preferred.
        await self.fail_find(await self.members.primary(), 1, errorLabels=labels, errorCode=6)
        self.events.all.clear()
        await things.find_one({})
        [failed] = self.events.of(monitoring.CommandFailedEvent)
        [succeeded] = self.events.of(monitoring.CommandSucceededEvent)
        return failed.connection_id, succeeded.connection_id

    async def test_retargeting_3(self) -> None:
        """A read is tried again on another member only where that is wished and the first one was overloaded."""
        failed, succeeded = await self.retried_on(OVERLOAD, enableOverloadRetargeting=True)
        self.assertNotEqual(failed, succeeded)
        failed, succeeded = await self.retried_on(["RetryableError"])
        self.assertEqual(failed, succeeded)
        failed, succeeded = await self.retried_on(OVERLOAD)
        self.assertEqual(failed, succeeded)
