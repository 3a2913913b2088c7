"""Prose tests of the server discovery and monitoring specification: streaming, and the measuring of round trips.

Of the heartbeats' "``ServerHeartbeatStartedEvent`` before the socket" is in ``tests/integration/test_topology.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import monitoring
from twisted.internet import defer, reactor

from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool

APP_NAME = "streamingRttTest"


class Journal(monitoring.ServerHeartbeatListener, monitoring.ServerListener):
    """Keeps heartbeats that succeeded, when they did, and what was learnt of servers; tells of each heartbeat."""

    def __init__(self) -> None:
        self.heartbeats: list[Any] = []
        self.times: list[float] = []
        self.changes: list[Any] = []
        self._waiting: list[tuple[Callable[[], bool], defer.Deferred[None]]] = []

    def until(self, condition: Callable[[], bool]) -> defer.Deferred[None]:
        """Wait until this holds after a heartbeat."""
        waiting: defer.Deferred[None] = defer.Deferred()
        self._waiting.append((condition, waiting))
        return waiting

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """A server has answered."""
        self.heartbeats.append(event)
        self.times.append(reactor.seconds())  # type: ignore[attr-defined]
        for each in list(self._waiting):
            condition, waiting = each
            if condition():
                self._waiting.remove(each)
                waiting.callback(None)

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        """A server is another."""
        self.changes.append(event)

    def started(self, event: Any) -> None:
        """Not of interest."""

    def failed(self, event: Any) -> None:
        """Not of interest."""

    def opened(self, event: Any) -> None:
        """Not of interest."""

    def closed(self, event: Any) -> None:
        """Not of interest."""


class MonitoringTests(CollectionTestCase):
    """A standalone."""

    def connect(self, **options: Any) -> tuple[Any, Journal]:
        """A client that looks at its server twice a second."""
        journal = Journal()
        client: Any = ConnectionPool(self.uri, heartbeatFrequencyMS=500, event_listeners=[journal], **options)
        self.addCleanup(client.disconnect)
        return client, journal

    async def test_frequency_1(self) -> None:
        """Streaming protocol: replies come as often as was asked for, instead of every ten seconds."""
        client, journal = self.connect()
        await client.admin.command("ping")
        await journal.until(lambda: len(journal.heartbeats) >= 6)
        self.assertTrue(all(event.awaited for event in journal.heartbeats[1:]))
        # Nearly two seconds, as far as the reactor comes round at the right time.
        took = journal.times[5] - journal.times[1]
        self.assertTrue(1.0 <= took < 10.0, took)

    async def test_round_trips_1(self) -> None:
        """Round trips are measured all the time, beside the stream."""
        client, journal = self.connect(appName=APP_NAME)
        await client.txmongo_tests.things.find_one({})
        await journal.until(lambda: len(journal.heartbeats) >= 4)
        self.assertGreater(len(journal.changes), 0)
        for event in journal.changes:
            self.assertGreater(event.new_description.round_trip_time, 0)
        data = {"failCommands": ["hello", "isMaster"], "blockConnection": True, "blockTimeMS": 500, "appName": APP_NAME}
        fail_point = {"configureFailPoint": "failCommand"}
        self.addCleanup(self.client.admin.command, {**fail_point, "mode": "off"})
        await self.client.admin.command({**fail_point, "mode": {"times": 1000}, "data": data})
        [server] = client._topology.servers.values()
        await journal.until(lambda: server.description.round_trip_time > 0.25).addTimeout(60.0, reactor)


class ReplicaSetMonitoringTests(MonitoringTests):
    """A replica set."""

    on_replica_set = True
