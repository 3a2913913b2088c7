"""``txmongo._client_parts``: how the parts of a client work together, on scripted servers and a fake clock."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.driver_info import DriverInfo
from pymongo.read_preferences import ReadPreference
from pymongo.server_api import ServerApi, ServerApiVersion
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.unit.clients import ClientCase
from tests.unit.cmap.scram_server import ScramServer
from txmongo._auth import make_credentials
from txmongo._client_parts import ClientParts
from txmongo._cmap.pinning import BalancedPool
from txmongo._cmap.pool import Pool
from txmongo._ops.encrypting import EncryptingExecutor
from txmongo._ops.executor import Executor
from txmongo._ops.run_command import RunCommand
from txmongo._settings import parse_settings
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, InvalidOperation, OperationFailure, WaitQueueTimeoutError
from txmongo.testing import Behaviour, FakeServer


class PartsTests(ClientCase):
    """The parts by themselves."""

    def setUp(self) -> None:
        super().setUp()
        self.made: list[ClientParts] = []

    def tearDown(self) -> None:
        """Everything is closed in the end."""
        for parts in self.made:
            parts.close()
            closed = parts.closed()
            self.turn()
            self.successResultOf(closed)
        super().tearDown()

    def parts(self, uri: str = "mongodb://fake.example", encryption: Any = None, **options: Any) -> ClientParts:
        """The parts of a client whose connections are in memory."""
        settings = parse_settings(uri, **options)
        parts = ClientParts(
            settings,
            self.clock,
            endpoint_for=lambda address: self.servers[address[0]].endpoint(self.clock),
            encryption=encryption,
        )
        self.made.append(parts)
        return parts

    def ping(self, parts: ClientParts) -> Any:
        """The reply to a command that any server answers."""
        return self.result(parts.executor.execute(RunCommand("admin", {"ping": 1})))

    def pool(self, parts: ClientParts) -> Pool:
        """The pool of the one server."""
        [server] = parts.topology.servers.values()
        return server.pool

    def test_begins(self) -> None:
        """Nothing is connected to before the first operation, unless there are to be connections at any time."""
        parts = self.parts()
        self.turn()
        self.assertEqual(self.server.connections, 0)
        self.ping(parts)
        self.assertGreater(self.server.connections, 0)
        for options in ({"pool_size": 1}, {"minPoolSize": 1}):
            self.servers["fake.example"] = server = FakeServer()
            self.parts(**options)
            self.turn()
            self.assertGreater(server.connections, 0)

    def test_pools(self) -> None:
        """Behind a load balancer there is another kind of pool."""
        parts = self.parts()
        self.ping(parts)
        self.assertIs(type(self.pool(parts)), Pool)
        self.servers["fake.example"] = FakeServer(hello={"serviceId": ObjectId(), "msg": "isdbgrid"})
        parts = self.parts("mongodb://fake.example/?loadBalanced=true")
        self.ping(parts)
        self.assertIs(type(self.pool(parts)), BalancedPool)

    def test_connect_error(self) -> None:
        """That a pool cannot connect is told to the topology, which then knows nothing of the server."""
        parts = self.parts()
        self.result(parts.topology.select_server(ReadPreference.PRIMARY))
        self.assertEqual(len(parts.topology.description.known_servers), 1)
        self.servers["fake.example"] = FakeServer({"isMaster": {"ok": 0, "code": 8, "errmsg": "no"}})
        failed = self.started(parts.executor.execute(RunCommand("admin", {"ping": 1})))
        self.failureResultOf(failed, OperationFailure)
        self.assertEqual(parts.topology.description.known_servers, [])

    def test_users(self) -> None:
        """When a user is set, or taken back, the present connections end, and new ones are made as that user."""
        self.servers["fake.example"] = server = ScramServer()
        parts = self.parts()
        self.ping(parts)
        before = self.pool(parts).protocols()
        parts.set_user("db", make_credentials("db", "user", "pencil", "DEFAULT"))
        self.ping(parts)
        between = self.pool(parts).protocols()
        self.assertEqual((server.authenticated, len(between)), (["SCRAM-SHA-256"], 1))
        parts.set_user("db", None)
        self.ping(parts)
        self.assertEqual(server.authenticated, ["SCRAM-SHA-256"])
        self.assertEqual(len({*before, *between, *self.pool(parts).protocols()}), 3)

    def test_closed(self) -> None:
        """What begins after the end is refused, what waits fails, and then no socket is left."""
        parts = self.parts()
        self.ping(parts)
        self.server.answer("ping", Behaviour.FALL_SILENT)
        waiting = self.started(parts.executor.execute(RunCommand("admin", {"ping": 1})))
        parts.close()
        self.failureResultOf(parts.executor.execute(RunCommand("admin", {"ping": 1})), InvalidOperation)
        closed = parts.closed()
        self.turn()
        self.successResultOf(closed)
        self.failureResultOf(waiting, AutoReconnect)
        self.assertEqual((self.server.connections, self.clock.getDelayedCalls()), (0, []))

    def test_encryption(self) -> None:
        """Encryption is the executor's, and is closed before the sockets are."""
        closing: Deferred[None] = Deferred()

        class Encryption:
            def close(self) -> Deferred[None]:
                return closing

        parts = self.parts("mongodb://fake.example", Encryption())
        self.assertIs(type(parts.executor), EncryptingExecutor)
        self.assertIs(type(self.parts().executor), Executor)
        self.result(parts.topology.select_server(ReadPreference.PRIMARY))
        parts.close()
        closed = parts.closed()
        self.turn()
        self.assertGreater(self.server.connections, 0)
        closing.callback(None)
        self.turn()
        self.successResultOf(closed)
        self.assertEqual(self.server.connections, 0)


class EventsAndVersionsTests(ClientCase):
    """What commands and connections are to be accompanied by."""

    def test_wire_up(self) -> None:
        """Listeners, the Stable API and names of wrapping libraries reach where they belong."""

        class Listener(monitoring.CommandListener):
            def __init__(self) -> None:
                self.names: list[str] = []

            def started(self, event: monitoring.CommandStartedEvent) -> None:
                self.names.append(event.command_name)

            def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
                pass

            def failed(self, event: monitoring.CommandFailedEvent) -> None:
                pass

        listener = Listener()
        api = ServerApi(ServerApiVersion.V1, strict=True, deprecation_errors=False)
        client = self.client(event_listeners=[listener], server_api=api)
        client.append_metadata(DriverInfo("wrapper", "1.0"))
        self.result(client.test.command("ping"))
        self.assertEqual(listener.names, ["ping"])
        [ping] = self.server.commands("ping")
        self.assertEqual((ping["apiVersion"], ping["apiStrict"], ping["apiDeprecationErrors"]), ("1", True, False))
        hellos = [command.document for command in self.server.received if "client" in command.document]
        self.assertTrue(any("wrapper" in hello["client"]["driver"]["name"] for hello in hellos))
        wrong: Any = "wrapper"
        self.assertRaises(TypeError, client.append_metadata, wrong)

    def test_plain_api(self) -> None:
        """Of the Stable API only what was declared is sent."""
        client = self.client(server_api=ServerApi(ServerApiVersion.V1))
        self.result(client.test.command("ping"))
        [ping] = self.server.commands("ping")
        self.assertEqual((ping["apiVersion"], "apiStrict" in ping), ("1", False))


class SrvTests(ClientCase):
    """A client whose servers DNS tells."""

    def test_resolved(self) -> None:
        """The servers and options that DNS tells are used, TLS by default, metadata of before included."""

        class Record:
            def __init__(self, **payload: Any) -> None:
                self.payload = type("Payload", (), payload)()
                self.type = 33 if "target" in payload else 16
                self.ttl = 60
                self.payload.ttl = 60

        class Name:
            name = b"fake.example.com"

            def __str__(self) -> str:
                return "fake.example.com"

        class Resolver:
            def lookupService(self, name: str, timeout: Any = ()) -> Deferred[Any]:
                found: Deferred[Any] = Deferred()
                found.callback(([Record(target=Name(), port=27017, priority=0, weight=0)], [], []))
                return found

            def lookupText(self, name: str, timeout: Any = ()) -> Deferred[Any]:
                found: Deferred[Any] = Deferred()
                found.callback(([Record(data=[b"authSource=other"])], [], []))
                return found

        self.servers["fake.example.com"] = self.server
        client = self.client("mongodb+srv://cluster.example.com/?tls=false", resolver=Resolver())
        client.append_metadata(DriverInfo("wrapper", "1.0"))
        self.result(client.test.command("ping"))
        self.assertEqual(client.options.seeds, (("fake.example.com", 27017),))
        hellos = [command.document for command in self.server.received if "client" in command.document]
        self.assertTrue(all("wrapper" in hello["client"]["driver"]["name"] for hello in hellos))


class WaitQueueSizeTests(ClientCase):
    """How many operations may wait, for a server and for a connection together."""

    def refused(self, operation: Deferred[Any]) -> None:
        """One that is not let in."""
        error = self.failureResultOf(operation, WaitQueueTimeoutError).value
        self.assertIn("waitQueueSize allows (", str(error))

    def test_for_a_server(self) -> None:
        """While no server answers, so many operations wait and one more fails at once; a place that is left is free."""
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        client = self.client(waitQueueSize=3)
        waiting = [client.test.command("ping"), client.test.things.find_one(), client.getprotocol()]
        for _ in range(2):
            self.refused(client.test.command("ping"))
            self.refused(client.test.things.insert_one({}))
        waiting[1].cancel()
        self.failureResultOf(waiting[1], CancelledError)
        self.assertNoResult(client.test.command("ping").addErrback(lambda _: None))
        self.refused(client.test.command("ping"))
        waiting[0].addErrback(lambda _: None)
        waiting[2].addErrback(lambda _: None)

    def test_for_a_connection(self) -> None:
        """Those that wait for a connection count, whichever server it is to, and none of those that were let in."""
        self.server.answer("ping", Behaviour.FALL_SILENT)
        client = self.client(waitQueueSize=3, maxPoolSize=1, pipelining=False)
        waiting = [client.test.command("ping") for _ in range(3)]
        self.turn()
        waiting.append(client.test.command("ping"))
        self.refused(client.test.command("ping"))
        self.assertEqual(len(self.server.commands("ping")), 1)
        for each in waiting:
            self.assertNoResult(each)
            each.addErrback(lambda _: None)

    def test_again(self) -> None:
        """An operation that is tried again waits, however many others do."""
        client = self.client(waitQueueSize=1, maxPoolSize=1, pipelining=False)
        self.result(client)
        self.server.answer("find", Behaviour.HANG_UP, {"cursor": {"id": 0, "ns": "test.things", "firstBatch": []}})
        reading, waiting = client.test.things.find_one(), client.test.command("ping")
        self.refused(client.test.command("ping"))
        self.turn()
        self.clock.advance(0.5)
        self.turn()
        self.assertIsNone(self.successResultOf(reading))
        waiting.addErrback(lambda _: None)

    def test_memory(self) -> None:
        """Refusals leave nothing behind."""
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        client = self.client(waitQueueSize=1)
        waiting = client.test.command("ping").addErrback(lambda _: None)
        self.refuse(client, 500)
        calls = len(self.clock.getDelayedCalls())
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        self.refuse(client, 5000)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 20_000)
        self.assertEqual(len(self.clock.getDelayedCalls()), calls)
        self.assertNoResult(waiting)

    def refuse(self, client: ConnectionPool[Any], count: int) -> None:
        """Begin operations that are refused."""
        refused: list[int] = [0]

        def note(failure: Failure) -> None:
            failure.trap(WaitQueueTimeoutError)
            refused[0] += 1

        for _ in range(count):
            client.test.things.update_one({}, {"$set": {"a": 1}}).addErrback(note)
        gc.collect()
        self.assertEqual(refused, [count])
