"""Topology, monitors and pools against real servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pymongo import monitoring
from pymongo.read_preferences import ReadPreference
from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.integration.servers import be_patient
from tests.listeners import PoolListener
from txmongo._cmap.connector import Connector
from txmongo._cmap.endpoints import Endpoints
from txmongo._cmap.pool import CheckOut, Pool
from txmongo._deferreds import Deadline
from txmongo._sdam.server import Server
from txmongo._sdam.topology import Topology
from txmongo._settings import parse_settings
from txmongo.errors import AutoReconnect, InvalidOperation, ServerSelectionTimeoutError
from txmongo.testing import Mongod, ReplicaSet
from txmongo.types import Address

PRIMARY = ReadPreference.PRIMARY


class Recorder(
    monitoring.TopologyListener,
    monitoring.ServerListener,
    monitoring.ServerHeartbeatListener,
    PoolListener,
):
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def heard(self, event: Any) -> None:
        self.events.append(event)

    opened = description_changed = closed = started = succeeded = failed = heard

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class TopologyTestCase(TestCase):
    """Makes topologies with real pools and connections, and closes them with the test."""

    timeout = 120

    def topology(self, uri: str, **keywords: Any) -> Topology:
        """A topology that is not opened yet."""
        settings = parse_settings(uri, **keywords)
        connector = Connector(settings, Endpoints(reactor, settings), reactor)

        def create_pool(address: Address) -> Pool:
            return Pool(
                address,
                settings,
                clock=reactor,
                connect=partial(connector.connect, address),
                listeners=settings.event_listeners,
                on_connect_error=lambda error, generation: topology.handle_error(
                    address, error, generation=generation, completed_handshake=False
                ),
            )

        topology = Topology(settings, clock=reactor, create_pool=create_pool, connect_monitor=connector.connect_monitor)
        self.addCleanup(topology.close)
        return topology

    async def run_command(self, topology: Topology, server: Server, command: dict[str, Any]) -> dict[str, Any]:
        """A command on a connection of a server's pool, with errors reported as an operation's."""
        request = CheckOut("command")
        connection = await server.pool.check_out(request, Deadline.never)
        try:
            return await connection.protocol.command("admin", command)
        except AutoReconnect as error:
            topology.handle_error(
                server.address, error, generation=connection.generation, max_wire_version=17, completed_handshake=True
            )
            raise
        finally:
            server.pool.check_in(request)

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> float:
        """Wait for a condition; returns how long it took."""
        clock: Any = reactor
        started: float = clock.seconds()
        while not condition():
            assert clock.seconds() - started < seconds, "it did not happen in time"
            await deferLater(clock, 0.02)
        return clock.seconds() - started


class StandaloneTests(TopologyTestCase):
    """One server."""

    async def test_streaming(self) -> None:
        """The server is discovered, streams its replies, its round trips are measured, and the end leaves nothing."""
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        recorder = Recorder()
        topology = self.topology(mongod.uri, heartbeatFrequencyMS=500, event_listeners=[recorder])
        server = await topology.select_server(PRIMARY)
        self.assertEqual(server.description.server_type_name, "Standalone")
        self.assertEqual(topology.description.topology_type, TOPOLOGY_TYPE.Single)
        self.assertEqual((await self.run_command(topology, server, {"ping": 1}))["ok"], 1)
        await self.until(lambda: recorder.names.count("ServerHeartbeatSucceededEvent") >= 4)
        heartbeats = [event.awaited for event in recorder.events if "HeartbeatSucceeded" in type(event).__name__]
        self.assertEqual(heartbeats[:4], [False, True, True, True])
        names = recorder.names
        self.assertLess(names.index("ServerHeartbeatSucceededEvent"), names.index("PoolReadyEvent"))
        self.assertGreater(server.pool.rtt, 0)
        self.assertGreater(topology.servers[server.address].description.min_round_trip_time, 0)
        await topology.close()
        self.assertEqual(recorder.names[-1], "TopologyClosedEvent")
        self.assertEqual(
            recorder.names.count("ServerHeartbeatStartedEvent"),
            recorder.names.count("ServerHeartbeatSucceededEvent") + recorder.names.count("ServerHeartbeatFailedEvent"),
        )

    async def test_minimum_pause_and_pool(self) -> None:
        """Failing checks are repeated each half second, not faster; the pool is cleared, and ready again after that."""
        mongod = await Mongod(reactor, parameters={"enableTestCommands": 1}).start()
        self.addCleanup(mongod.stop)
        fail = {"failCommands": ["hello", "isMaster"], "errorCode": 1234, "appName": "pauseTest"}
        await mongod.command("admin", {"configureFailPoint": "failCommand", "mode": {"times": 5}, "data": fail})
        recorder = Recorder()
        topology = self.topology(mongod.uri, directConnection=True, appName="pauseTest", event_listeners=[recorder])
        clock: Any = reactor
        started = clock.seconds()
        server = await topology.select_server(PRIMARY)
        # Much less than the ten seconds between two checks that nobody wants sooner.
        self.assertTrue(2.0 <= clock.seconds() - started <= 7.0, clock.seconds() - started)
        self.assertEqual(recorder.names.count("ServerHeartbeatFailedEvent"), 5)
        self.assertEqual((await self.run_command(topology, server, {"ping": 1}))["ok"], 1)

        await mongod.kill()
        await self.until(lambda: "PoolClearedEvent" in recorder.names)
        self.assertFalse(server.description.is_server_type_known)
        await mongod.start()
        again = await topology.select_server(PRIMARY)
        self.assertIs(again, server)
        self.assertEqual((await self.run_command(topology, server, {"ping": 1}))["ok"], 1)

    async def test_nobody_there(self) -> None:
        """Where nothing listens, the error comes in time and says so."""
        topology = self.topology("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=700)
        error = await self.assertFailure(topology.select_server(PRIMARY, operation="ping"), ServerSelectionTimeoutError)
        self.assertIn("No server for ping within 0.7", str(error))
        self.assertIn("127.0.0.1:9 is Unknown (AutoReconnect: ", str(error))

    async def test_event_before_socket(self) -> None:
        """A heartbeat is published as started before its connection is opened."""
        journal: list[str] = []

        class Listener(monitoring.ServerHeartbeatListener):
            def started(self, event: Any) -> None:
                journal.append("started")

            def failed(self, event: Any) -> None:
                journal.append("failed")

        class Server(Protocol):
            def connectionMade(self) -> None:
                journal.append("client connected")

            def dataReceived(self, data: bytes) -> None:
                journal.append("client hello received")
                assert self.transport is not None
                self.transport.loseConnection()

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Server))
        self.addCleanup(port.stopListening)
        topology = self.topology(f"mongodb://127.0.0.1:{port.getHost().port}", event_listeners=[Listener()])
        selecting = topology.select_server(PRIMARY)
        await self.until(lambda: "failed" in journal)
        await topology.close()
        await self.assertFailure(selecting, InvalidOperation)
        self.assertEqual(journal[:4], ["started", "client connected", "client hello received", "failed"])


class ReplicaSetTests(TopologyTestCase):
    """Three servers."""

    async def start(self) -> ReplicaSet:
        replica_set = await ReplicaSet(reactor, 3).start()
        self.addCleanup(replica_set.stop)
        return replica_set

    def ready(self, topology: Topology) -> bool:
        """Whether the primary and both secondaries are known."""
        types = sorted(server.description.server_type_name for server in topology.servers.values())
        return types == ["RSPrimary", "RSSecondary", "RSSecondary"]

    async def test_failover(self) -> None:
        """From one secondary's address the set is found; step-down, death and a frozen primary are noticed."""
        replica_set = await self.start()
        primary = await replica_set.primary()
        secondary = next(member for member in replica_set.members if member is not primary)
        host, port = secondary.address
        be_patient(self)
        topology = self.topology(f"mongodb://{host}:{port}", connectTimeoutMS=3000, heartbeatFrequencyMS=500)
        server = await topology.select_server(PRIMARY)
        self.assertEqual(server.address, primary.address)
        await self.until(lambda: self.ready(topology))

        await replica_set.step_down()
        successor = await self.next_primary(topology, server.address)
        self.assertEqual(topology.servers[primary.address].pool.generation, 0)

        member = next(each for each in replica_set.members if each.address == successor.address)
        await replica_set.kill(member)
        third = await self.next_primary(topology, successor.address)
        self.assertEqual((await self.run_command(topology, third, {"ping": 1}))["ok"], 1)
        await member.start()
        await self.until(lambda: self.ready(topology))

        frozen = next(each for each in replica_set.members if each.address == third.address)
        replica_set.freeze(frozen)
        fourth = await self.next_primary(topology, third.address)
        self.assertEqual((await self.run_command(topology, fourth, {"ping": 1}))["ok"], 1)
        self.assertEqual(topology.servers[third.address].description.server_type_name, "Unknown")
        replica_set.thaw(frozen)
        await self.until(lambda: self.ready(topology))

    async def next_primary(self, topology: Topology, former: Address) -> Server:
        """Wait until another member is known as the primary."""

        def changed() -> bool:
            server = topology.select_server_now(PRIMARY)
            return server is not None and server.address != former

        await self.until(changed)
        return await topology.select_server(PRIMARY)

    async def test_not_initiated(self) -> None:
        """A command reaches a member before there is a set; once there is one the primary is found."""
        mongod = await Mongod(reactor, replica_set="rs0").start()
        self.addCleanup(mongod.stop)
        topology = self.topology(mongod.uri.split("?")[0].rstrip("/") + "/?readPreference=secondaryPreferred")
        server = await topology.select_server(PRIMARY, allow_ghost=True)
        self.assertEqual(server.description.server_type_name, "RSGhost")
        writing: Deferred[Server] = topology.select_server(PRIMARY)
        self.assertEqual((await self.run_command(topology, server, {"ping": 1}))["ok"], 1)
        self.assertNoResult(writing)
        config = {"_id": "rs0", "members": [{"_id": 0, "host": ":".join(map(str, mongod.address))}]}
        await self.run_command(topology, server, {"replSetInitiate": config})
        self.assertEqual((await writing).description.server_type_name, "RSPrimary")
