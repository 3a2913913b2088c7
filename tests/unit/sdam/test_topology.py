"""The topology: servers come and go, operations find them."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.read_preferences import Nearest, ReadPreference, SecondaryPreferred
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import (
    A,
    B,
    C,
    Deployment,
    FakePool,
    ghost,
    mongos,
    primary,
    secondary,
    standalone,
    topology_version,
)
from tests.unit.sdam.test_events import Listener
from txmongo._deferreds import Deadline
from txmongo._sdam.monitor import MonitorState
from txmongo._sdam.server import Server
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
    error_from_reply,
)

PRIMARY = ReadPreference.PRIMARY
POLL = {"serverMonitoringMode": "poll"}


def reply_error(code: int, **fields: Any) -> BaseException:
    """The error of a reply with this code."""
    error = error_from_reply({"ok": 0, "errmsg": "", "code": code, **fields})
    assert error is not None
    return error


class OpenTests(SynchronousTestCase):
    """Before, at and after the opening."""

    def test_nothing_before(self) -> None:
        """A topology that is not opened connects to nothing, schedules nothing and publishes nothing."""
        listener = Listener()
        deployment = Deployment("mongodb://a,b", event_listeners=[listener])
        self.assertEqual(deployment.connections.attempts, [])
        self.assertEqual(deployment.clock.getDelayedCalls(), [])
        self.assertIsNone(deployment.topology.select_server_now(PRIMARY))
        self.assertEqual(repr(deployment.topology), f"<Topology {deployment.topology.id} Unknown: no servers>")
        deployment.close()
        self.assertEqual(listener.events, [])

    def test_seeds(self) -> None:
        """Opening creates a paused pool and starts a monitor for each seed, once."""
        deployment = Deployment("mongodb://a,b")
        deployment.open()
        deployment.topology.open()
        self.assertEqual(deployment.connections.attempts, [A, B])
        self.assertEqual(deployment.journal, [])
        self.assertEqual(set(deployment.topology.servers), {A, B})
        deployment.close()

    def test_repr(self) -> None:
        """The status line says what is known and nothing secret."""
        deployment = Deployment("mongodb://user:secret@a,b/?replicaSet=rs")
        deployment.discover(a=primary("a:27017", "b:27017"))
        name = f"<Topology {deployment.topology.id}"
        self.assertEqual(
            repr(deployment.topology), f"{name} ReplicaSetWithPrimary: a:27017 RSPrimary, b:27017 Unknown>"
        )
        self.assertEqual(repr(deployment.topology.servers[A]), "<Server a:27017 RSPrimary>")
        deployment.close()
        self.assertEqual(repr(deployment.topology), f"{name} closed>")

    def test_opened_by_listener(self) -> None:
        """A listener that uses the topology when it hears of it opens it no second time."""
        listener = Listener(lambda event: deployment.topology.open())
        deployment = Deployment(event_listeners=[listener])
        deployment.open()
        self.assertEqual(deployment.connections.attempts, [A])
        self.assertEqual(listener.names.count("TopologyOpenedEvent"), 1)
        deployment.close()

    def test_closed_by_listener(self) -> None:
        """A listener that closes the topology when it hears of it leaves nothing behind."""
        listener = Listener(lambda event: deployment.topology.close() and None)
        deployment = Deployment(event_listeners=[listener])
        deployment.open()
        self.assertEqual(deployment.connections.attempts, [])
        deployment.close()


class CloseTests(SynchronousTestCase):
    """The end."""

    def test_events(self) -> None:
        """Servers are closed, then the topology loses them, then it is closed: the last event of all."""
        listener = Listener()
        deployment = Deployment("mongodb://a", event_listeners=[listener], **POLL)
        deployment.discover(a=standalone())
        del listener.events[:]
        deployment.close()
        self.assertEqual(
            listener.names, ["ServerClosedEvent", "TopologyDescriptionChangedEvent", "TopologyClosedEvent"]
        )
        changed = listener.events[1]
        self.assertEqual(changed.previous_description.topology_type_name, "Single")
        self.assertEqual(changed.new_description.topology_type_name, "Unknown")
        self.assertEqual(changed.new_description.server_descriptions(), {})

    def test_waits_for_all(self) -> None:
        """The Deferred fires when pools and monitors are closed, for everyone who asked."""
        closing: Deferred[None] = Deferred()

        class SlowPool(FakePool):
            def close(self) -> Deferred[None]:
                return closing

        deployment = Deployment(pool=lambda address: SlowPool(address, []))
        deployment.discover(a=standalone())
        first, second = deployment.topology.close(), deployment.topology.close()
        deployment.clock.advance(0)
        self.assertNoResult(first)
        closing.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(deployment.topology.close())

    def test_removed_servers_too(self) -> None:
        """Servers that left the topology before, and are still closing, are waited for."""
        deployment = Deployment("mongodb://a,b", **POLL)
        deployment.open()
        deployment.connections.open(B, secondary("a:27017", "b:27017"))
        self.pools_closing(deployment)
        deployment.connections.open(A, primary("a:27017"))
        self.assertEqual(set(deployment.topology.servers), {A})
        closed = deployment.topology.close()
        deployment.clock.advance(0)
        self.assertNoResult(closed)
        deployment.pools[B].closing.callback(None)
        self.successResultOf(closed)

    def pools_closing(self, deployment: Deployment) -> None:
        deployment.pools[B].closing = Deferred()

    def test_waiters(self) -> None:
        """Who waits for a server is told, and so is who comes later."""
        deployment = Deployment()
        waiting = deployment.topology.select_server(PRIMARY)
        deployment.close()
        self.failureResultOf(waiting, InvalidOperation)
        self.failureResultOf(deployment.topology.select_server(PRIMARY), InvalidOperation)
        self.assertIsNone(deployment.topology.select_server_now(PRIMARY))

    def test_late_news(self) -> None:
        """What comes in after the end changes nothing."""
        deployment = Deployment()
        deployment.discover(a=standalone())
        deployment.close()
        deployment.topology.handle_error(A, AutoReconnect(""), generation=0, completed_handshake=True)
        deployment.topology._checked(ServerDescription(A))
        deployment.topology.request_check()
        deployment.topology.open()
        self.assertEqual(deployment.topology.servers, {})


class DiscoveryTests(SynchronousTestCase):
    """Servers come and go."""

    def test_finds_members(self) -> None:
        """The members that a server names are created and monitored."""
        deployment = Deployment(**POLL)
        deployment.discover(a=secondary("a:27017", "b:27017", "c:27017"))
        self.assertEqual(set(deployment.topology.servers), {A, B, C})
        self.assertEqual(deployment.connections.attempts, [A, B, C])
        deployment.close()

    def test_removes_strangers(self) -> None:
        """A server that the primary does not name is closed, with its pool and its monitor."""
        listener = Listener()
        deployment = Deployment("mongodb://a,b", event_listeners=[listener], **POLL)
        deployment.discover(b=secondary("a:27017", "b:27017"))
        protocol = deployment.connections.protocols[B][0]
        monitor = deployment.topology.servers[B].monitor
        assert monitor is not None
        del listener.events[:]
        deployment.connections.open(A, primary("a:27017"))
        self.assertEqual(set(deployment.topology.servers), {A})
        self.assertTrue(deployment.pools[B].closed)
        self.assertIs(monitor.state, MonitorState.STOPPED)
        self.assertIsNotNone(protocol.aborted)
        self.assertEqual(
            [name for name in listener.names if "Heartbeat" not in name],
            ["ServerDescriptionChangedEvent", "ServerClosedEvent", "TopologyDescriptionChangedEvent"],
        )
        deployment.close()

    def test_last_server(self) -> None:
        """When the last server is removed, that is worth a warning."""
        warnings: list[Any] = []
        self.patch(__import__("txmongo._sdam.topology", fromlist=["_log"]), "_log", Warnings(warnings))
        deployment = Deployment("mongodb://a/?replicaSet=rs", **POLL)
        deployment.discover(a=standalone())
        self.assertEqual(deployment.topology.servers, {})
        self.assertEqual(len(warnings), 1)
        deployment.close()

    def test_pool_is_ready_before_events(self) -> None:
        """A listener that hears of a server can use it."""
        ready: list[bool] = []
        listener = Listener(lambda event: ready.append(A in deployment.pools and deployment.pools[A].is_ready))
        deployment = Deployment(event_listeners=[listener], **POLL)
        deployment.discover(a=standalone())
        self.assertEqual(ready[-2:], [True, True])
        self.assertEqual(listener.names[-1], "TopologyDescriptionChangedEvent")
        deployment.close()

    def test_pools_of_useless_servers(self) -> None:
        """A pool is not made ready for a server that holds no data, unless it was connected to directly."""
        arbiter = {**primary(), "isWritablePrimary": False, "arbiterOnly": True}
        for uri, ready in (("mongodb://a/?replicaSet=rs", False), ("mongodb://a/?directConnection=true", True)):
            deployment = Deployment(uri, **POLL)
            deployment.discover(a=arbiter)
            self.assertEqual(deployment.pools[A].is_ready, ready)
            deployment.close()

    def test_stale_primary_is_not_ready(self) -> None:
        """A primary that was replaced already gets no connections."""
        deployment = Deployment("mongodb://a,b/?replicaSet=rs", **POLL)
        newer, older = ObjectId("0" * 23 + "2"), ObjectId("0" * 23 + "1")
        deployment.discover(a={**primary("a:27017", "b:27017"), "electionId": newer})
        deployment.connections.open(B, {**primary("a:27017", "b:27017"), "electionId": older})
        self.assertFalse(deployment.pools[B].is_ready)
        self.assertEqual(deployment.topology.servers[B].description.server_type_name, "Unknown")
        deployment.close()

    def test_replaced_primary(self) -> None:
        """The former primary becomes Unknown, keeps its pool, and is looked at soon."""
        listener = Listener()
        deployment = Deployment("mongodb://a,b/?replicaSet=rs", event_listeners=[listener], **POLL)
        deployment.discover(a={**primary("a:27017", "b:27017"), "electionId": ObjectId("0" * 23 + "1")})
        deployment.clock.advance(5)
        deployment.connections.open(B, {**primary("a:27017", "b:27017"), "electionId": ObjectId("0" * 23 + "2")})
        deployment.clock.advance(0)
        self.assertEqual(deployment.topology.servers[A].description.server_type_name, "Unknown")
        self.assertEqual(deployment.journal, [("ready", A), ("ready", B)])
        self.assertEqual(len(deployment.connections.protocols[A][0].sent), 1)
        changed = [event for event in listener.events if isinstance(event, monitoring.ServerDescriptionChangedEvent)]
        self.assertEqual([event.server_address for event in changed[-2:]], [A, B])
        deployment.close()

    def test_stale_reply(self) -> None:
        """A reply that is older than what is known is ignored."""
        deployment = Deployment("mongodb://a/?replicaSet=rs", **POLL)
        deployment.discover(a=primary(topologyVersion=topology_version(5)))
        deployment.clock.advance(10)
        deployment.connections.protocols[A][0].answer(secondary(topologyVersion=topology_version(4)))
        self.assertEqual(deployment.topology.servers[A].description.server_type_name, "RSPrimary")
        deployment.close()

    def test_round_trip_reaches_pool(self) -> None:
        """The pool is told the average round trip."""
        deployment = Deployment(**POLL)
        deployment.open()
        deployment.connections.open(A, standalone(), rtt=0.25)
        self.assertEqual(deployment.pools[A].rtt, 0.25)
        deployment.close()

    def test_same_again(self) -> None:
        """A reply that says nothing new is no event, but it is taken in."""
        listener = Listener()
        deployment = Deployment(event_listeners=[listener], **POLL)
        deployment.discover(a=standalone())
        before = deployment.topology.description
        del listener.events[:]
        deployment.clock.advance(10)
        deployment.connections.protocols[A][0].answer(standalone())
        self.assertEqual(listener.names, ["ServerHeartbeatStartedEvent", "ServerHeartbeatSucceededEvent"])
        self.assertIsNot(deployment.topology.description, before)
        deployment.close()


class Warnings:
    """A logger that keeps its warnings."""

    def __init__(self, warnings: list[Any]) -> None:
        self._warnings = warnings

    def warn(self, format: str, **values: Any) -> None:
        self._warnings.append(format)


class FailedCheckTests(SynchronousTestCase):
    """What a failed check does."""

    def test_clears_pool(self) -> None:
        """The server becomes Unknown first, then its pool is cleared, then who waits is told."""
        deployment = Deployment(**POLL)
        deployment.discover(a=standalone())
        seen: list[str] = []
        pool = deployment.pools[A]
        clear = pool.clear

        def clearing(*arguments: Any, **keywords: Any) -> None:
            seen.append(deployment.topology.servers[A].description.server_type_name)
            clear(*arguments, **keywords)

        pool.clear = clearing
        deployment.connections.protocols[A][0].lose()
        deployment.clock.advance(10)
        self.assertEqual(seen, ["Unknown"])
        self.assertEqual(deployment.journal, [("ready", A), ("clear", A, None, False)])
        self.assertIsNone(deployment.topology.select_server_now(PRIMARY))
        deployment.close()

    def test_timeout_interrupts(self) -> None:
        """If the server does not answer at all, operations on it are interrupted."""
        deployment = Deployment(**POLL)
        deployment.discover(a=standalone())
        deployment.clock.advance(10)
        deployment.clock.advance(20)
        self.assertEqual(deployment.journal[-1], ("clear", A, None, True))
        deployment.close()


class HandleErrorTests(SynchronousTestCase):
    """What errors of operations do."""

    def deployment(self, **keywords: Any) -> Deployment:
        deployment = Deployment("mongodb://a/?replicaSet=rs", **keywords)
        deployment.discover(a=primary(topologyVersion=topology_version(1)))
        del deployment.journal[:]
        self.addCleanup(deployment.close)
        return deployment

    def fail_operation(self, deployment: Deployment, error: BaseException, **keywords: Any) -> None:
        values = {"generation": 0, "max_wire_version": 17, "completed_handshake": True, **keywords}
        deployment.topology.handle_error(A, error, **values)

    def server_type(self, deployment: Deployment) -> str:
        return deployment.topology.servers[A].description.server_type_name

    def test_network(self) -> None:
        """The server becomes Unknown, its pool is cleared, and the check in progress given up."""
        deployment = self.deployment()
        protocol = deployment.connections.protocols[A][0]
        self.fail_operation(deployment, AutoReconnect("broken"))
        self.assertEqual(self.server_type(deployment), "Unknown")
        self.assertEqual(deployment.topology.description.topology_type, TOPOLOGY_TYPE.ReplicaSetNoPrimary)
        self.assertEqual(deployment.journal, [("clear", A, None, False)])
        self.assertIsNotNone(protocol.aborted)
        deployment.clock.advance(1)
        self.assertEqual(deployment.connections.attempts.count(A), 2, "the monitor's and that for round trips")

    def test_network_with_waiter(self) -> None:
        """If somebody needs the server, the next check comes after the minimum pause."""
        deployment = self.deployment()
        deployment.connections.refuse(A)
        waiting = deployment.topology.select_server(SecondaryPreferred(tag_sets=[{"dc": "none"}]))
        self.assertEqual(self.successResultOf(waiting).address, A)
        waiting = deployment.topology.select_server(ReadPreference.SECONDARY)
        self.fail_operation(deployment, AutoReconnect("broken"))
        deployment.clock.advance(0.5)
        self.assertEqual(deployment.connections.waiting(A), 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_not_primary(self) -> None:
        """Not primary: Unknown with the error's version, the pool is kept, a check requested."""
        deployment = self.deployment(**POLL)
        self.fail_operation(deployment, reply_error(10107, topologyVersion=topology_version(2)))
        self.assertEqual(self.server_type(deployment), "Unknown")
        description = deployment.topology.servers[A].description
        self.assertEqual(description.topology_version, topology_version(2))
        self.assertEqual(deployment.journal, [])
        deployment.clock.advance(0.5)
        self.assertEqual(len(deployment.connections.protocols[A][0].sent), 1)

    def test_shutting_down(self) -> None:
        """A server that shuts down: its pool is cleared too."""
        deployment = self.deployment()
        self.fail_operation(deployment, reply_error(91))
        self.assertEqual(self.server_type(deployment), "Unknown")
        self.assertEqual(deployment.journal, [("clear", A, None, False)])

    def test_ignored(self) -> None:
        """Errors that say nothing about the server, or nothing new, or of servers unknown, change nothing."""
        deployment = self.deployment()
        self.fail_operation(deployment, NetworkTimeout("slow"))
        self.fail_operation(deployment, OperationFailure("no", 1, {"code": 1}))
        self.fail_operation(deployment, AutoReconnect("old"), generation=-1)
        self.fail_operation(deployment, reply_error(10107, topologyVersion=topology_version(1)))
        deployment.topology.handle_error(B, AutoReconnect(""), generation=0, completed_handshake=True)
        self.assertEqual(self.server_type(deployment), "RSPrimary")
        self.assertEqual(deployment.journal, [])

    def test_connecting(self) -> None:
        """While connecting an error counts unless it is one that an overloaded server makes."""
        for labels, server_type in ((["SystemOverloadedError"], "RSPrimary"), ([], "Unknown")):
            deployment = self.deployment()
            error = AutoReconnect("broken", {"errorLabels": labels})
            deployment.topology.handle_error(A, error, generation=0, completed_handshake=False)
            self.assertEqual(self.server_type(deployment), server_type)


class FaultTests(SynchronousTestCase):
    """Faults of the driver's own, and what nobody else sees."""

    def test_pool_fails_to_close(self) -> None:
        """If closing a pool fails, that is logged, and the topology is closed all the same."""
        deployment = Deployment()
        deployment.open()
        deployment.pools[A].closing = fail(ZeroDivisionError())
        deployment.close()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_request_check_of_one(self) -> None:
        """One server can be asked for; one that is not there cannot."""
        deployment = Deployment("mongodb://a,b", **POLL)
        deployment.discover(a=mongos(), b=mongos())
        deployment.clock.advance(1)
        deployment.topology.request_check(B)
        deployment.topology.request_check(C)
        deployment.clock.advance(0)
        self.assertEqual([len(deployment.connections.protocols[each][0].sent) for each in (A, B)], [0, 1])
        deployment.close()


class LoadBalancerTests(SynchronousTestCase):
    """Behind a load balancer."""

    SERVICE = ObjectId()

    def deployment(self) -> Deployment:
        deployment = Deployment("mongodb://a/?loadBalanced=true")
        self.addCleanup(deployment.close)
        return deployment

    def test_at_once(self) -> None:
        """The load balancer is selected at once, and never checked."""
        deployment = self.deployment()
        server = self.successResultOf(deployment.topology.select_server(ReadPreference.SECONDARY))
        self.assertEqual((server.address, server.monitor), (A, None))
        self.assertTrue(deployment.pools[A].is_ready)
        self.assertEqual(deployment.connections.attempts, [])
        deployment.topology.request_check()

    def test_errors(self) -> None:
        """Errors clear the connections to one service, by that service's generation, and nothing else."""
        deployment = self.deployment()
        deployment.open()
        handle = deployment.topology.handle_error
        for generation in (0, 0, 1):
            handle(A, AutoReconnect(""), generation=generation, service_id=self.SERVICE, completed_handshake=True)
        self.assertEqual(deployment.journal, [("ready", A), *[("clear", A, self.SERVICE, False)] * 2])
        self.assertEqual(deployment.topology.servers[A].description.server_type_name, "LoadBalancer")

    def test_errors_while_connecting(self) -> None:
        """Before the hello an error is ignored; after it the service is known and its connections are cleared."""
        deployment = self.deployment()
        deployment.open()
        deployment.pools[A].services[self.SERVICE] = 3
        error = AutoReconnect("")
        deployment.topology.handle_error(A, error, generation=0, completed_handshake=False)
        vars(error)["_txmongo_service_id"] = self.SERVICE
        deployment.topology.handle_error(A, error, generation=0, completed_handshake=False)
        self.assertEqual(deployment.journal, [("ready", A), ("clear", A, self.SERVICE, False)])


class SelectNowTests(SynchronousTestCase):
    """The way of nearly every operation."""

    def test_remembered(self) -> None:
        """The outcome is computed once for each state of the topology and read preference."""
        deployment = Deployment(**POLL)
        deployment.discover(a=primary("a:27017", "b:27017"))
        computed: list[Any] = []
        select = deployment.topology._select

        def counting(selector: Any, deprioritized: Any) -> Server | None:
            computed.append(selector)
            return select(selector, deprioritized)

        deployment.topology._select = counting  # type: ignore[method-assign]
        for _ in range(3):
            server = deployment.topology.select_server_now(PRIMARY)
            assert server is not None
            self.assertEqual(server.address, A)
        self.assertEqual(len(computed), 1)
        deployment.connections.open(B, secondary("a:27017", "b:27017"))
        deployment.topology.select_server_now(PRIMARY)
        self.assertEqual(len(computed), 2)
        deployment.close()

    def test_many_preferences(self) -> None:
        """Ever new read preferences do not fill the memory, and none is taken for another."""
        deployment = Deployment(**POLL)
        deployment.discover(a=primary("a:27017", "b:27017", tags={"n": "a"}))
        deployment.connections.open(B, secondary("a:27017", "b:27017", tags={"n": "b"}))
        for number in range(200):
            wanted = "ab"[number % 2]
            server = deployment.topology.select_server_now(Nearest(tag_sets=[{"n": wanted}]))
            assert server is not None
            self.assertEqual(server.address[0], wanted)
        self.assertLessEqual(len(deployment.topology._remembered), 64)
        deployment.close()

    def test_several(self) -> None:
        """Among several the less busy one of two is chosen anew each time."""
        deployment = Deployment("mongodb://a,b", **POLL)
        deployment.discover(a=mongos(), b=mongos())
        for busy, free in ((A, B), (B, A)):
            deployment.pools[busy].operation_count = 5
            deployment.pools[free].operation_count = 1
            for _ in range(5):
                server = deployment.topology.select_server_now(PRIMARY)
                assert server is not None
                self.assertEqual(server.address, free)
        deployment.close()

    def test_custom_selector_is_asked_each_time(self) -> None:
        """The server_selector option is called for each operation."""
        calls: list[int] = []

        def custom(servers: list[ServerDescription]) -> list[ServerDescription]:
            calls.append(len(servers))
            return servers

        deployment = Deployment("mongodb://a/?replicaSet=rs", server_selector=custom, **POLL)
        deployment.discover(a=primary())
        deployment.topology.select_server_now(PRIMARY)
        deployment.topology.select_server_now(PRIMARY)
        self.assertEqual(calls, [1, 1])
        deployment.close()

    def test_deprioritized(self) -> None:
        """Deprioritized servers are avoided and not remembered as that."""
        deployment = Deployment("mongodb://a,b", **POLL)
        deployment.discover(a=mongos(), b=mongos())
        for avoided, expected in ((A, B), (B, A)):
            server = deployment.topology.select_server_now(PRIMARY, [avoided])
            assert server is not None
            self.assertEqual(server.address, expected)
        deployment.close()

    def test_impossible(self) -> None:
        """What can never be selected is not raised here, but told by the way that waits."""
        deployment = Deployment("mongodb://a/?replicaSet=rs", **POLL)
        deployment.discover(a=primary())
        tight = SecondaryPreferred(max_staleness=1)
        self.assertIsNone(deployment.topology.select_server_now(tight))
        self.failureResultOf(deployment.topology.select_server(tight), ConfigurationError)
        deployment.close()


class SelectTests(SynchronousTestCase):
    """Waiting for a server."""

    def test_opens(self) -> None:
        """The first selection opens the topology, and gets the server once it is known."""
        deployment = Deployment(**POLL)
        waiting = deployment.topology.select_server(PRIMARY)
        self.assertNoResult(waiting)
        deployment.connections.open(A, standalone())
        self.assertEqual(self.successResultOf(waiting).address, A)
        self.assertEqual(self.successResultOf(deployment.topology.select_server(PRIMARY)).address, A)
        deployment.close()

    def test_only_who_is_served(self) -> None:
        """Each waiter gets a server when one suits it, and goes on waiting otherwise."""
        deployment = Deployment("mongodb://a,b/?replicaSet=rs", **POLL)
        write = deployment.topology.select_server(PRIMARY)
        read = deployment.topology.select_server(ReadPreference.SECONDARY)
        deployment.connections.open(A, secondary("a:27017", "b:27017"))
        self.assertEqual(self.successResultOf(read).address, A)
        self.assertNoResult(write)
        deployment.connections.open(B, primary("a:27017", "b:27017"))
        self.assertEqual(self.successResultOf(write).address, B)
        deployment.close()

    def test_checks_again_and_again(self) -> None:
        """While somebody waits, servers are checked after the minimum pause, not once a heartbeat."""
        deployment = Deployment(**POLL)
        waiting = deployment.topology.select_server(PRIMARY)
        for attempt in range(1, 6):
            self.assertEqual(deployment.connections.attempts, [A] * attempt)
            deployment.connections.refuse(A)
            deployment.clock.advance(0.5)
        deployment.connections.open(A, standalone())
        self.successResultOf(waiting)
        deployment.close()

    def test_timeout(self) -> None:
        """After serverSelectionTimeoutMS the error says for what and how long was waited, and why in vain."""
        deployment = Deployment("mongodb://a/?serverSelectionTimeoutMS=3000", **POLL)
        waiting = deployment.topology.select_server(PRIMARY, operation="insert")
        deployment.connections.refuse(A)
        deployment.clock.advance(2.9)
        self.assertNoResult(waiting)
        deployment.clock.advance(0.1)
        error = self.failureResultOf(waiting, ServerSelectionTimeoutError).value
        self.assertEqual(
            str(error),
            "No server for insert within 3 s: wanted primary, the topology is Unknown: "
            "a:27017 is Unknown (AutoReconnect: a: connection refused)",
        )
        deployment.close()

    def test_dismissed(self) -> None:
        """If no server is left that belongs to the deployment, the error names the last one and what it is."""
        for server, what in ((primary(), "RSPrimary of set 'rs'"), (standalone(), "Standalone")):
            deployment = Deployment("mongodb://a/?replicaSet=other&serverSelectionTimeoutMS=3000", **POLL)
            waiting = deployment.topology.select_server(PRIMARY)
            deployment.discover(a=server)
            deployment.clock.advance(3)
            error = self.failureResultOf(waiting, ServerSelectionTimeoutError).value
            self.assertIn(f"of set 'other': no server is known, for a:27017 is {what}", str(error))
            deployment.close()

    def test_deadline(self) -> None:
        """A deadline that comes sooner ends the wait sooner."""
        deployment = Deployment()
        waiting = deployment.topology.select_server(PRIMARY, Deadline.after(deployment.clock, 0.25))
        deployment.clock.advance(0.25)
        error = self.failureResultOf(waiting, ServerSelectionTimeoutError).value
        self.assertIn("No server within 0.25 s", str(error))
        deployment.close()

    def test_passed_deadline(self) -> None:
        """A deadline that has passed still finds what is known, and waits for nothing."""
        deployment = Deployment(**POLL)
        deployment.discover(a=standalone())
        passed = Deadline(-1.0)
        self.successResultOf(deployment.topology.select_server(PRIMARY, passed))
        waiting = deployment.topology.select_server(PRIMARY, passed, address=B)
        deployment.clock.advance(0)
        self.failureResultOf(waiting, ServerSelectionTimeoutError)
        deployment.close()

    def test_cancel(self) -> None:
        """Who cancels waits no longer and leaves nothing behind."""
        deployment = Deployment()
        waiting = deployment.topology.select_server(PRIMARY)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        deployment.close()

    def test_too_old(self) -> None:
        """A server that is too old is an error at once, for who waits and for who comes."""
        deployment = Deployment(**POLL)
        waiting = deployment.topology.select_server(PRIMARY)
        deployment.connections.open(A, standalone(maxWireVersion=6))
        self.failureResultOf(waiting, ConfigurationError)
        self.failureResultOf(deployment.topology.select_server(PRIMARY), ConfigurationError)
        self.assertIsNone(deployment.topology.select_server_now(PRIMARY))
        deployment.close()

    def test_address(self) -> None:
        """Who needs one certain server waits until that is known."""
        deployment = Deployment("mongodb://a,b", **POLL)
        waiting = deployment.topology.select_server(PRIMARY, address=B)
        deployment.connections.open(A, mongos())
        self.assertNoResult(waiting)
        deployment.connections.open(B, mongos())
        self.assertEqual(self.successResultOf(waiting).address, B)
        self.assertEqual(self.successResultOf(deployment.topology.select_server(PRIMARY, address=A)).address, A)
        deployment.close()

    def test_selector_raises(self) -> None:
        """What a custom selector raises reaches the operation."""

        def custom(servers: list[ServerDescription]) -> list[ServerDescription]:
            raise ZeroDivisionError

        deployment = Deployment("mongodb://a/?replicaSet=rs", server_selector=custom, **POLL)
        waiting = deployment.topology.select_server(PRIMARY)
        deployment.connections.open(A, primary())
        self.failureResultOf(waiting, ZeroDivisionError)
        self.failureResultOf(deployment.topology.select_server(PRIMARY), ZeroDivisionError)
        deployment.close()

    def test_waiter_changes_the_topology(self) -> None:
        """One who is served may at once report an error; the next one sees what that changed."""
        deployment = Deployment(**POLL)
        first = deployment.topology.select_server(PRIMARY)
        second = deployment.topology.select_server(PRIMARY)

        def fail_at_once(server: Server) -> None:
            deployment.topology.handle_error(
                server.address, AutoReconnect("broken"), generation=0, completed_handshake=True
            )

        first.addCallback(fail_at_once)
        deployment.connections.open(A, standalone())
        self.successResultOf(first)
        self.assertNoResult(second)
        deployment.clock.advance(0.5)
        deployment.connections.open(A, standalone())
        self.successResultOf(second)
        deployment.close()

    def test_closed_by_waiter(self) -> None:
        """One who is served may close the topology."""
        deployment = Deployment(**POLL)
        first = deployment.topology.select_server(PRIMARY)
        second = deployment.topology.select_server(PRIMARY)
        first.addCallback(lambda _: deployment.topology.close() and None)
        deployment.connections.open(A, standalone())
        self.failureResultOf(second, InvalidOperation)
        deployment.close()


class GhostTests(SynchronousTestCase):
    """A set that was not initiated yet, for programs that initiate it through their client."""

    URI = "mongodb://a/?readPreference=secondaryPreferred"

    def test_command(self) -> None:
        """A command reaches the only server although that is no member of anything yet."""
        deployment = Deployment(self.URI, **POLL)
        waiting = deployment.topology.select_server(PRIMARY, operation="ismaster", allow_ghost=True)
        deployment.connections.open(A, ghost())
        self.assertEqual(self.successResultOf(waiting).address, A)
        self.assertTrue(deployment.pools[A].is_ready)
        again = deployment.topology.select_server(PRIMARY, operation="replSetInitiate", allow_ghost=True)
        self.successResultOf(again)
        deployment.close()

    def test_others_wait(self) -> None:
        """Everything else waits until there is a set, and then goes to its primary."""
        deployment = Deployment(self.URI, **POLL)
        insert = deployment.topology.select_server(PRIMARY, operation="insert")
        deployment.connections.open(A, ghost())
        self.assertNoResult(insert)
        deployment.clock.advance(0.5)
        deployment.connections.protocols[A][0].answer(primary("b:27017", "a:27017"))
        self.assertEqual(self.successResultOf(insert).address, A)
        self.assertEqual(set(deployment.topology.servers), {A, B})
        deployment.close()

    def test_not_for_others(self) -> None:
        """Clients that are configured in any other way do not select it."""
        for uri in ("mongodb://a", "mongodb://a,b/?readPreference=nearest", self.URI + "&replicaSet=rs"):
            deployment = Deployment(uri, **POLL)
            waiting = deployment.topology.select_server(PRIMARY, allow_ghost=True)
            deployment.connections.open(A, ghost())
            self.assertNoResult(waiting)
            self.assertFalse(deployment.pools[A].is_ready)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            deployment.close()

    def test_direct(self) -> None:
        """Connected directly, everything reaches it."""
        deployment = Deployment("mongodb://a/?directConnection=true", **POLL)
        deployment.discover(a=ghost())
        self.assertIsNotNone(deployment.topology.select_server_now(PRIMARY))
        deployment.close()
