"""``txmongo._cmap.current_connector``: as whom, and in whose name, new connections are made as things change."""

from __future__ import annotations

from typing import Any

from pymongo.driver_info import DriverInfo
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.scram_server import ScramServer
from txmongo._auth import make_credentials
from txmongo._cmap.current_connector import CurrentConnector
from txmongo._settings import parse_settings
from txmongo.errors import OperationFailure
from txmongo.testing import Behaviour

ADDRESS = ("db.example", 27017)
URI = "mongodb://user:pencil@db.example/db"


class CurrentConnectorTests(SynchronousTestCase):
    """Connections to a server that has one user."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = ScramServer()

    def connector(self, uri: str = "mongodb://db.example") -> CurrentConnector:
        """A connector whose every address is this server."""
        return CurrentConnector(parse_settings(uri), self.clock, lambda _: self.server.endpoint(self.clock))

    def turn(self) -> None:
        """Let all bytes that are under way arrive."""
        self.clock.pump([0] * 60)

    def connect(self, connector: CurrentConnector) -> list[str]:
        """With which mechanisms a new connection was authenticated."""
        self.server.authenticated.clear()
        connecting = connector.connect(ADDRESS)
        self.turn()
        self.successResultOf(connecting)
        return [*self.server.authenticated]

    def hello(self) -> dict[str, Any]:
        """What the last connection was greeted with."""
        return [command.document for command in self.server.received if "client" in command.document][-1]

    def test_settings(self) -> None:
        """Connections are made as the settings say, and those for monitoring as nobody."""
        connector = self.connector(URI)
        self.assertEqual(self.connect(connector), ["SCRAM-SHA-256"])
        self.assertEqual(list(connector.users), ["db"])
        self.server.authenticated.clear()
        connecting = connector.connect_monitor(ADDRESS)
        self.turn()
        _, reply, _ = self.successResultOf(connecting)
        self.assertEqual((reply["ok"], self.server.authenticated), (1.0, []))

    def test_users(self) -> None:
        """Users of several databases are all authenticated, that of the settings first; each may be another one."""
        connector = self.connector(URI)
        connector.set_user("other", make_credentials("other", "user", "pencil", "SCRAM-SHA-1"))
        self.assertEqual(self.connect(connector), ["SCRAM-SHA-256", "SCRAM-SHA-1"])
        user = make_credentials("db", "user", "pencil", "SCRAM-SHA-1")
        connector.set_user("db", user)
        self.assertEqual(self.connect(connector), ["SCRAM-SHA-1"] * 2)
        self.assertEqual(list(connector.users), ["db", "other"])
        self.assertIs(connector.users["db"], user)

    def test_taken_back(self) -> None:
        """A user that is taken back leaves the one of the settings, or nobody."""
        for uri, before in ((URI, ["SCRAM-SHA-256"]), ("mongodb://db.example", [])):
            connector = self.connector(uri)
            self.assertIsNone(connector.added_user("db"))
            user = make_credentials("db", "user", "eraser", "DEFAULT")
            connector.set_user("db", user)
            self.assertIs(connector.added_user("db"), user)
            connecting = connector.connect(ADDRESS)
            self.turn()
            self.failureResultOf(connecting, OperationFailure)
            connector.set_user("db", None)
            self.assertEqual(self.connect(connector), before)
            self.assertIsNone(connector.added_user("db"))

    def test_wrappers(self) -> None:
        """Libraries that named themselves are named whatever else changes."""
        connector = self.connector()
        connector.append_metadata(DriverInfo("one"))
        connector.set_user("db", make_credentials("db", "user", "pencil", "DEFAULT"))
        connector.append_metadata(DriverInfo("two"))
        self.assertRaises(ValueError, connector.append_metadata, DriverInfo._make(("three|", None, None)))
        connector.use(parse_settings("mongodb://db.example/?appName=late"))
        self.connect(connector)
        client = self.hello()["client"]
        self.assertEqual((client["driver"]["name"], client["application"]["name"]), ("txmongo|one|two", "late"))

    def test_use(self) -> None:
        """Of settings that are known late the user is taken, beside those that were added."""
        connector = self.connector()
        connector.set_user("other", make_credentials("other", "user", "pencil", "SCRAM-SHA-1"))
        settings = parse_settings(URI)
        connector.use(settings)
        self.assertEqual(self.connect(connector), ["SCRAM-SHA-256", "SCRAM-SHA-1"])
        self.assertIs(connector.users["db"], settings.credentials)

    def test_drained(self) -> None:
        """What was given up is waited for, though another connector was made meanwhile."""
        connector = self.connector()
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        connecting = connector.connect(ADDRESS).addErrback(lambda _: None)
        self.turn()
        [protocol] = [each.transport.other.own for each in self.server._conversations]
        abort = protocol.transport.abortConnection
        self.patch(protocol.transport, "abortConnection", lambda: self.clock.callLater(3, abort))
        connecting.cancel()
        connector.use(parse_settings(URI))
        drained = connector.drained()
        self.assertNoResult(drained)
        self.clock.advance(3)
        self.turn()
        self.assertIsNone(self.successResultOf(drained))
        self.assertIsNone(self.successResultOf(connector.drained()))

    def test_endpoints(self) -> None:
        """Where no endpoints are given the settings say how servers are reached, also those that are known late."""
        reactor = MemoryReactorClock()
        connector = CurrentConnector(parse_settings("mongodb://127.0.0.1/?connectTimeoutMS=5000"), reactor)
        given_up = [connector.connect(("127.0.0.1", 1))]
        connector.use(parse_settings("mongodb://127.0.0.1/?connectTimeoutMS=7000"))
        given_up.append(connector.connect(("127.0.0.1", 2)))
        self.assertEqual([(port, timeout) for _, port, _, timeout, _ in reactor.tcpClients], [(1, 5.0), (2, 7.0)])
        for connecting in given_up:
            connecting.cancel()
            self.failureResultOf(connecting, CancelledError)
        self.assertEqual(reactor.getDelayedCalls(), [])
