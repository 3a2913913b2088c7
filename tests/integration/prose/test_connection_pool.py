"""Prose tests of the connection monitoring and pooling specification, on a replica set.

4 is what every listener of these tests does. Responses that are still to come when an operation has timed out do not
cost a connection in this driver: see ``tests/unit/cmap/test_pool_stalls.py``. Nor has it exhaust cursors.
"""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from pymongo.read_preferences import Nearest
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.integration.prose.events import PoolEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect
from txmongo.testing import ReplicaSet

OPTIONS = {
    "maxPoolSize": 7,
    "minPoolSize": 1,
    "maxIdleTimeMS": 60_000,
    "maxConnecting": 3,
    "waitQueueTimeoutMS": 5_000,
}


class OptionTests(TestCase):
    """The options of pools."""

    timeout = 120

    async def test_options_1_2_3(self) -> None:
        """They are the client's, can all be given in the connection string, and are the same for each of its pools."""
        members = await ReplicaSet(reactor, 2).start()
        self.addCleanup(members.stop)
        events = PoolEvents()
        uri = f"{members.uri}&" + "&".join(f"{name}={value}" for name, value in OPTIONS.items())
        client: Any = ConnectionPool(uri, event_listeners=[events])
        self.addCleanup(client.disconnect)
        await client.get_database("admin", read_preference=Nearest()).command("ping")
        await client.secondaries
        created = events.of(monitoring.PoolCreatedEvent)
        self.assertEqual({event.address for event in created}, {member.address for member in members.members})
        expected = {**OPTIONS, "maxIdleTimeMS": 60_000, "waitQueueTimeoutMS": 5_000}
        for event in created:
            self.assertEqual({name: event.options[name] for name in expected}, expected)


class FailureTests(CollectionTestCase):
    """What listeners hear of check-outs that fail."""

    async def test_failed_set_up_5(self) -> None:
        """A connection that cannot be set up is the reason ``connectionError``."""
        events = PoolEvents()
        client: Any = ConnectionPool(
            self.uri,
            appName="failed set up",
            event_listeners=[events],
            retryReads=False,
            heartbeatFrequencyMS=1_000_000,
            # A monitor that streams opens a second connection, whose handshake could run into the fail point.
            serverMonitoringMode="poll",
        )
        self.addCleanup(client.disconnect)
        await client.txmongo_tests.command("ping")
        for server in client._topology.servers.values():
            # The next operation needs a new connection.
            server.pool.clear()
            server.pool.ready()
        data = {"failCommands": ["isMaster", "hello"], "closeConnection": True, "appName": "failed set up"}
        fail_point = {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data}
        await self.client.admin.command(fail_point)
        await self.failure(client.txmongo_tests.things.find_one(), AutoReconnect)
        [failed] = events.of(monitoring.ConnectionCheckOutFailedEvent)
        self.assertEqual(failed.reason, "connectionError")
