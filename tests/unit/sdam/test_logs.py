"""Tests of what the topology writes to the log."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo.hello import Hello
from pymongo.read_preferences import ReadPreference

from tests.unit.logged import LoggedTestCase
from tests.unit.sdam.fakes import A, Deployment, standalone
from txmongo._sdam.events import SdamEvents
from txmongo.errors import AutoReconnect, ServerSelectionTimeoutError

PRIMARY = ReadPreference.PRIMARY
POLL = {"serverMonitoringMode": "poll"}


class HeartbeatTests(LoggedTestCase):
    """Messages about checks."""

    def setUp(self) -> None:
        """Nobody but the log listens."""
        super().setUp()
        self.publisher = SdamEvents([], ObjectId(), self.log("topology"))

    def connections(self) -> list[Any]:
        """By message the numbers of the connection, the driver's and the server's."""
        return [(each["driverConnectionId"], each.get("serverConnectionId")) for each in self.taken()]

    def test_fields(self) -> None:
        """A check is told with its server, its duration and the reply."""
        self.publisher.heartbeat_started(A, False)
        self.publisher.heartbeat_succeeded(A, 0.25, Hello({"ok": 1, "connectionId": 9}), False)
        common = {"serverHost": "a", "serverPort": 27017, "driverConnectionId": 1, "awaited": False}
        self.assertEqual(
            self.taken(),
            [
                {**common, "mongodb_message": "Server heartbeat started"},
                {
                    **common,
                    "mongodb_message": "Server heartbeat succeeded",
                    "serverConnectionId": 9,
                    "durationMS": 250.0,
                    "reply": '{"ok": 1, "connectionId": 9}',
                },
            ],
        )

    def test_failure(self) -> None:
        """Of a failed check the error is told."""
        self.publisher.heartbeat_started(A, True)
        self.publisher.heartbeat_failed(A, 0.25, AutoReconnect("gone"), True)
        failed = self.taken()[-1]
        self.assertEqual((failed["failure"], failed["awaited"]), ("AutoReconnect: gone", True))

    def test_connection(self) -> None:
        """The monitor keeps a connection until a check fails; the server's number is known from its first reply."""
        hello = Hello({"ok": 1, "connectionId": 9})
        self.publisher.heartbeat_started(A, False)
        self.publisher.heartbeat_succeeded(A, 0.25, hello, False)
        self.publisher.heartbeat_started(A, True)
        self.publisher.heartbeat_failed(A, 0.25, AutoReconnect("gone"), True)
        self.publisher.heartbeat_started(A, False)
        self.assertEqual(self.connections(), [(1, None), (1, 9), (1, 9), (1, 9), (2, None)])

    def test_server(self) -> None:
        """A server that left and came back has another monitor."""
        self.publisher.heartbeat_started(A, False)
        self.publisher.server_closed(A)
        self.events.clear()
        self.publisher.heartbeat_started(A, False)
        self.assertEqual(self.connections(), [(2, None)])


class LifeTests(LoggedTestCase):
    """A topology with the log on."""

    def deployment(self, **levels: str) -> Deployment:
        """One server, not looked at yet."""
        return Deployment("mongodb://a", log_levels=levels, serverSelectionTimeoutMS=1000, **POLL)

    def messages(self) -> list[str]:
        """What the messages are, in order."""
        return [each["mongodb_message"] for each in self.taken()]

    def test_life(self) -> None:
        """The topology tells of its beginning, its servers, its changes and its end, in this order."""
        deployment = self.deployment(topology="debug")
        deployment.topology.open()
        deployment.topology.close()
        ids = {event["topologyId"] for event in self.events}
        self.assertEqual(ids, {str(deployment.topology.id)})
        told = [message for message in self.messages() if "heartbeat" not in message]
        self.assertEqual(
            told,
            [
                "Starting topology monitoring",
                "Topology description changed",
                "Starting server monitoring",
                "Stopped server monitoring",
                "Topology description changed",
                "Stopped topology monitoring",
            ],
        )

    def test_selection(self) -> None:
        """A selection that has to wait says so at info, once."""
        deployment = self.deployment(serverSelection="debug")
        waiting = deployment.topology.select_server(PRIMARY, operation="insert", operation_id=4)
        levels = [event["log_level"].name for event in self.events]
        self.assertEqual(levels, ["debug", "info"])
        started, waits = self.taken()
        self.assertEqual(started["mongodb_message"], "Server selection started")
        self.assertEqual((started["selector"], started["operation"], started["operationId"]), ("primary", "insert", 4))
        self.assertEqual(waits["remainingTimeMS"], 1000)
        deployment.connections.open(A, standalone())
        self.assertEqual(self.successResultOf(waiting).address, A)
        (succeeded,) = self.taken()
        self.assertEqual(succeeded["mongodb_message"], "Server selection succeeded")
        self.assertEqual((succeeded["serverHost"], succeeded["serverPort"]), A)
        self.assertEqual(succeeded["topologyDescription"], "Single: a:27017 is Standalone")

    def test_selection_at_once(self) -> None:
        """A selection that need not wait begins and succeeds; what is no operation has no name."""
        deployment = self.deployment(serverSelection="debug")
        deployment.topology.open()
        deployment.connections.open(A, standalone())
        self.successResultOf(deployment.topology.select_server(PRIMARY))
        started, succeeded = self.taken()
        self.assertEqual(succeeded["mongodb_message"], "Server selection succeeded")
        self.assertFalse({"operation", "operationId"} & set(started))

    def test_selection_fails(self) -> None:
        """A selection that fails says why."""
        deployment = self.deployment(serverSelection="debug")
        waiting = deployment.topology.select_server(PRIMARY, operation="insert")
        self.events.clear()
        deployment.clock.advance(1)
        self.failureResultOf(waiting, ServerSelectionTimeoutError)
        (failed,) = self.taken()
        self.assertEqual(failed["mongodb_message"], "Server selection failed")
        self.assertTrue(failed["failure"].startswith("ServerSelectionTimeoutError: No server for insert"))

    def test_given_server(self) -> None:
        """What goes to a given server selects none."""
        deployment = self.deployment(serverSelection="debug")
        deployment.topology.open()
        deployment.connections.open(A, standalone())
        self.successResultOf(deployment.topology.select_server(PRIMARY, address=A))
        self.assertEqual(self.taken(), [])
