"""Finding servers by DNS."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pymongo.read_preferences import ReadPreference
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import Connections, FakePool, mongos, primary
from txmongo._sdam.srv import (
    SrvHosts,
    SrvPoller,
    SrvResolver,
    allowed_domain,
    choose_hosts,
    verify_hosts,
)
from txmongo._sdam.topology import Topology
from txmongo._settings import ClientSettings, parse_settings
from txmongo.errors import ConfigurationError, InvalidOperation
from txmongo.types import Address

DB1: Address = ("db1.example.com", 27017)
DB2: Address = ("db2.example.com", 27017)
DB3: Address = ("db3.example.com", 27018)
PRIMARY = ReadPreference.PRIMARY


class Zone:
    """Answers look-ups from tables; a name that is in none does not exist.

    :ivar services: SRV records by name: target, port, seconds to live.
    :ivar texts: TXT records by name.
    """

    def __init__(self) -> None:
        self.services: dict[str, list[tuple[str, int, int]]] = {}
        self.texts: dict[str, list[list[bytes]]] = {}
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.pending: list[Deferred[Any]] | None = None

    def lookupService(self, name: str, timeout: Sequence[int] = ()) -> Deferred[Any]:
        return self._answer(
            name,
            dns.SRV,
            [(dns.Record_SRV(0, 5, port, target, ttl), ttl) for target, port, ttl in self.services.get(name, ())],
        )

    def lookupText(self, name: str, timeout: Sequence[int] = ()) -> Deferred[Any]:
        return self._answer(name, dns.TXT, [(dns.Record_TXT(*each), 60) for each in self.texts.get(name, ())])

    def _answer(self, name: str, kind: int, records: list[tuple[Any, int]]) -> Deferred[Any]:
        self.asked.append(name)
        if self.pending is not None:
            deferred: Deferred[Any] = Deferred()
            self.pending.append(deferred)
            return deferred
        if self.failure is not None:
            return fail(self.failure)
        if not records:
            return fail(DNSNameError("no such name"))
        headers = [dns.RRHeader(name, kind, dns.IN, ttl, payload) for payload, ttl in records]
        alias = dns.RRHeader(name, dns.CNAME, dns.IN, 1, dns.Record_CNAME("elsewhere"))
        return succeed(([alias, *headers], [], []))


class DomainTests(SynchronousTestCase):
    """Where hosts must lie."""

    def test_domains(self) -> None:
        """Of three or more parts the first is the name's own; fewer are all domain."""
        domains = {
            "cluster.example.com": "example.com",
            "A.Tests.Example.co.uk.": "tests.example.co.uk",
            "localhost": "localhost",
            "mongo.local": "mongo.local",
        }
        self.assertEqual({name: allowed_domain(name) for name in domains}, domains)

    def test_suffix(self) -> None:
        """The option replaces it, with or without dots around."""
        for suffix in ("example.com", ".Example.com", ".example.com."):
            self.assertEqual(allowed_domain("cluster.other.org", suffix), "example.com")
        self.assertEqual(allowed_domain("cluster.localhost", "localhost"), "localhost")

    def test_suffix_too_wide(self) -> None:
        """A suffix below which anybody may have a host is refused."""
        for suffix in (".", "com", ".CC"):
            with self.assertRaises(ConfigurationError):
                allowed_domain("cluster.example.com", suffix)

    def test_ip_address(self) -> None:
        """An IP address has no SRV records."""
        with self.assertRaises(ConfigurationError):
            allowed_domain("127.0.0.1")


class VerifyTests(SynchronousTestCase):
    """Which hosts are to be believed."""

    def good(self, domain: str, *names: str, **keywords: Any) -> list[str]:
        return [name for name, _ in verify_hosts([(name, 1) for name in names], domain, **keywords)[0]]

    def test_below_domain(self) -> None:
        """Only hosts below the domain are, not those whose names only end like it, nor the domain itself."""
        names = ("db.example.com", "a.b.example.com", "evil-example.com", "example.com", "db.evil.com")
        self.assertEqual(self.good("example.com", *names), ["db.example.com", "a.b.example.com"])

    def test_validator(self) -> None:
        """A validator decides alone, and only by true."""
        names = ("db.example.com", "db.evil.com")
        self.assertEqual(self.good("example.com", *names, validator=lambda name: "evil" in name), ["db.evil.com"])
        self.assertEqual(self.good("example.com", *names, validator=lambda name: 1), [])


class ChooseTests(SynchronousTestCase):
    """srvMaxHosts."""

    def test_all(self) -> None:
        """Without a limit, or with one that is not reached, all hosts are taken in their order."""
        for limit in (0, 3, 9):
            self.assertEqual(choose_hosts([DB3, DB1, DB2], limit, Random(1)), (DB3, DB1, DB2))

    def test_some(self) -> None:
        """With a limit so many are taken, by chance."""
        chosen = {choose_hosts([DB1, DB2, DB3], 1, Random(seed)) for seed in range(20)}
        self.assertEqual(chosen, {(DB1,), (DB2,), (DB3,)})


class DiscoverTests(SynchronousTestCase):
    """Completing settings by DNS."""

    def setUp(self) -> None:
        self.zone = Zone()
        self.zone.services["_mongodb._tcp.cluster.example.com"] = [
            ("DB1.example.com.", 27017, 86400),
            ("db3.example.com", 27018, 120),
        ]

    def discover(self, uri: str = "mongodb+srv://cluster.example.com", **keywords: Any) -> Deferred[Any]:
        return SrvResolver(self.zone).discover(parse_settings(uri, **keywords))

    def discovered(self, *arguments: Any, **keywords: Any) -> ClientSettings:
        settings: ClientSettings = self.successResultOf(self.discover(*arguments, **keywords))[0]
        return settings

    def problem(self, *arguments: Any, **keywords: Any) -> str:
        return str(self.failureResultOf(self.discover(*arguments, **keywords), ConfigurationError).value)

    def test_seeds(self) -> None:
        """The hosts of the SRV records are the seeds; they hold as long as the shortest-lived of them."""
        settings, ttl = self.successResultOf(self.discover())
        self.assertEqual(settings.seeds, (DB1, DB3))
        self.assertEqual(ttl, 120)
        self.assertIsNotNone(settings.tls)
        self.assertEqual(set(self.zone.asked), {"_mongodb._tcp.cluster.example.com", "cluster.example.com"})

    def test_service_name(self) -> None:
        """srvServiceName is what is asked for."""
        self.zone.services["_other._tcp.cluster.example.com"] = [("db2.example.com", 27017, 60)]
        self.assertEqual(self.discovered("mongodb+srv://cluster.example.com/?srvServiceName=other").seeds, (DB2,))

    def test_text(self) -> None:
        """The TXT record gives options, in pieces too; the connection string wins over it."""
        self.zone.texts["cluster.example.com"] = [[b"authSou", b"rce=users&replicaSet=rs"]]
        settings = self.discovered("mongodb+srv://user:word@cluster.example.com/?replicaSet=other")
        self.assertEqual(settings.replica_set_name, "other")
        assert settings.credentials is not None
        self.assertEqual(settings.credentials.source, "users")

    def test_refused_text(self) -> None:
        """A TXT record that says more than it may, or a second one, is refused."""
        for texts in ([[b"socketTimeoutMS=5"]], [[b"authSource"]], [[b"replicaSet=a"], [b"authSource=b"]]):
            self.zone.texts["cluster.example.com"] = texts
            self.problem()

    def test_limit_and_set(self) -> None:
        """srvMaxHosts is refused for what turns out to be a replica set."""
        self.zone.texts["cluster.example.com"] = [[b"replicaSet=rs"]]
        self.assertIn("srvMaxHosts", self.problem("mongodb+srv://cluster.example.com/?srvMaxHosts=1"))

    def test_load_balancers(self) -> None:
        """loadBalanced with more than one host is refused, also when chance would leave one."""
        self.zone.texts["cluster.example.com"] = [[b"loadBalanced=true"]]
        self.assertIn("more than one host", self.problem())

    def test_limit(self) -> None:
        """srvMaxHosts limits the seeds."""
        self.assertEqual(len(self.discovered("mongodb+srv://cluster.example.com/?srvMaxHosts=1").seeds), 1)

    def test_foreign_host(self) -> None:
        """A host elsewhere is an error that names it."""
        self.zone.services["_mongodb._tcp.cluster.example.com"].append(("db.evil.com", 1, 60))
        self.assertIn("db.evil.com:1", self.problem())
        settings = self.discovered(srv_host_validator=lambda name: True)
        self.assertEqual(settings.seeds[-1], ("db.evil.com", 1))

    def test_validator_fails(self) -> None:
        """What a validator raises is kept as the cause."""

        def validator(name: str) -> bool:
            raise ZeroDivisionError(name)

        error = self.failureResultOf(self.discover(srv_host_validator=validator), ConfigurationError).value
        assert error is not None
        self.assertIsInstance(error.__cause__, ZeroDivisionError)
        self.assertIn("does not accept", self.problem(srv_host_validator=lambda name: False))

    def test_no_records(self) -> None:
        """Without SRV records there is no client, and the reason is told."""
        self.assertIn("_mongodb._tcp.nowhere.example.com", self.problem("mongodb+srv://nowhere.example.com"))
        self.zone.services.clear()
        self.zone._answer = lambda name, kind, records: succeed(([], [], []))  # type: ignore[method-assign]
        self.assertIn("has no SRV records", self.problem())

    def test_dns_fails(self) -> None:
        """A name server that does not work is an error too."""
        self.zone.failure = DNSServerError("broken")
        self.assertIn("DNSServerError: broken", self.problem())

    def test_ip_address(self) -> None:
        """An IP address is refused before anybody is asked."""
        self.problem("mongodb+srv://127.0.0.1")
        self.assertEqual(self.zone.asked, [])

    def test_cancel(self) -> None:
        """Cancelling ends the look-ups."""
        self.zone.pending = []
        discovering = self.discover()
        discovering.cancel()
        self.failureResultOf(discovering, CancelledError)
        for deferred in self.zone.pending:
            self.assertTrue(deferred.called)


class PollerTests(SynchronousTestCase):
    """Looking again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.zone = Zone()
        self.hosts: list[list[Address]] = []
        self.wanted = True
        self.serve(("db1.example.com", 27017, 90))

    def serve(self, *records: tuple[str, int, int]) -> None:
        self.zone.services["_mongodb._tcp.cluster.example.com"] = list(records)

    def poller(self, ttl: float = 0, **keywords: Any) -> SrvPoller:
        settings = parse_settings("mongodb+srv://cluster.example.com", **keywords)
        return SrvPoller(
            settings,
            ttl,
            clock=self.clock,
            look_up=SrvResolver(self.zone).look_up,
            wanted=lambda: self.wanted,
            on_hosts=lambda hosts: self.hosts.append(list(hosts)),
        )

    def test_interval(self) -> None:
        """It looks again when the records end, but not within a minute."""
        self.poller(ttl=1)
        self.clock.advance(59)
        self.assertEqual(self.hosts, [])
        self.clock.advance(1)
        self.assertEqual(self.hosts, [[DB1]])
        self.clock.advance(89)
        self.assertEqual(len(self.hosts), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.hosts), 2)

    def test_failure(self) -> None:
        """If DNS does not answer nothing changes, and it looks again a heartbeat later."""
        self.poller()
        self.zone.failure = DNSServerError("broken")
        self.clock.advance(60)
        self.assertEqual(self.hosts, [])
        self.zone.failure = None
        self.clock.advance(10)
        self.assertEqual(self.hosts, [[DB1]])

    def test_foreign_hosts(self) -> None:
        """Hosts elsewhere are left out; if none is left nothing changes."""
        self.serve(("db1.example.com", 27017, 60), ("db.evil.com", 1, 60))
        self.poller()
        self.clock.advance(60)
        self.serve(("db.evil.com", 1, 60))
        self.clock.advance(60)
        self.clock.advance(10)
        self.assertEqual(self.hosts, [[DB1]])
        self.assertEqual(len(self.zone.asked), 3)

    def test_no_longer_wanted(self) -> None:
        """It ends for good when the deployment turned out not to be sharded."""
        self.poller()
        self.wanted = False
        self.clock.advance(60)
        self.assertEqual(self.zone.asked, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """Stopping leaves nothing, between two looks and during one."""
        self.poller().stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        poller = self.poller()
        self.zone.pending = []
        self.clock.advance(60)
        poller.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.hosts, [])


class StubResolver(SrvResolver):
    """Fires when the test says so."""

    def __init__(self) -> None:
        super().__init__(Zone())
        self.discovering: list[tuple[ClientSettings, Deferred[Any]]] = []
        self.looking: list[Deferred[SrvHosts]] = []

    def discover(self, settings: ClientSettings) -> Deferred[tuple[ClientSettings, float]]:
        deferred: Deferred[tuple[ClientSettings, float]] = Deferred()
        self.discovering.append((settings, deferred))
        return deferred

    def look_up(self, settings: ClientSettings) -> Deferred[SrvHosts]:
        deferred: Deferred[SrvHosts] = Deferred()
        self.looking.append(deferred)
        return deferred

    def found(self, *hosts: Address, text: str | None = None) -> None:
        settings, deferred = self.discovering[-1]
        deferred.callback((settings.resolved(hosts, text), 60.0))


class TopologyTests(SynchronousTestCase):
    """A topology whose seeds come from DNS."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.srv = StubResolver()
        self.connections = Connections(self.clock)
        self.resolved: list[ClientSettings] = []

    def topology(self, options: str = "", **keywords: Any) -> Topology:
        settings = parse_settings(f"mongodb+srv://cluster.example.com/{options}", serverMonitoringMode="poll")
        pools: Any = lambda address: FakePool(address, [])  # noqa: E731
        values = {"srv": self.srv, "on_resolved": self.resolved.append, **keywords}
        return Topology(
            settings, clock=self.clock, create_pool=pools, connect_monitor=self.connections.connect, **values
        )

    def close(self, topology: Topology) -> None:
        closed = topology.close()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_seeds(self) -> None:
        """Nothing is connected to before DNS has answered; then the client hears of the settings first."""
        topology = self.topology()
        waiting = topology.select_server(PRIMARY)
        topology.open()
        self.assertEqual(len(self.srv.discovering), 1)
        self.assertEqual(self.connections.attempts, [])
        self.srv.found(DB1, DB2)
        self.assertEqual([settings.seeds for settings in self.resolved], [(DB1, DB2)])
        self.assertEqual(self.connections.attempts, [DB1, DB2])
        self.connections.open(DB1, mongos())
        self.assertEqual(self.successResultOf(waiting).address, DB1)
        self.close(topology)

    def test_failure(self) -> None:
        """Who waits hears why there are no seeds; who comes next makes us ask again."""
        topology = self.topology()
        waiting = topology.select_server(PRIMARY)
        self.srv.discovering[0][1].errback(ConfigurationError("no records"))
        self.failureResultOf(waiting, ConfigurationError)
        again = topology.select_server(PRIMARY)
        self.srv.found(DB1)
        self.connections.open(DB1, mongos())
        self.successResultOf(again)
        self.close(topology)

    def test_without_resolver(self) -> None:
        """Without anything to ask DNS with there is an error, not a connection to the name itself."""
        topology = self.topology(srv=None)
        self.failureResultOf(topology.select_server(PRIMARY), ConfigurationError)
        self.close(topology)

    def test_closed_meanwhile(self) -> None:
        """Closing ends the look-up."""
        topology = self.topology()
        waiting = topology.select_server(PRIMARY)
        self.close(topology)
        self.failureResultOf(waiting, InvalidOperation)
        self.assertTrue(self.srv.discovering[0][1].called)
        self.assertEqual(self.resolved, [])

    def test_polling(self) -> None:
        """Hosts of a sharded cluster come and go with DNS; those that stay are left alone."""
        topology = self.topology()
        topology.open()
        self.srv.found(DB1, DB2)
        self.connections.open(DB2, mongos())
        server = topology.servers[DB2]
        self.clock.advance(60)
        self.srv.looking[0].callback(SrvHosts((DB2, DB3), 60.0))
        self.assertEqual(set(topology.servers), {DB2, DB3})
        self.assertIs(topology.servers[DB2], server)
        self.clock.advance(60)
        self.srv.looking[1].callback(SrvHosts((DB3, DB2), 60.0))
        self.assertIs(topology.servers[DB2], server)
        self.close(topology)

    def test_no_polling_of_sets(self) -> None:
        """For a replica set DNS is not asked again."""
        topology = self.topology()
        topology.open()
        self.srv.found(DB1)
        self.connections.open(DB1, primary("db1.example.com:27017"))
        self.clock.advance(60)
        self.assertEqual(self.srv.looking, [])
        self.close(topology)

    def test_load_balanced(self) -> None:
        """Nor for a load balancer, of which only DNS knows that it is one."""
        topology = self.topology()
        topology.open()
        self.srv.found(DB1, text="loadBalanced=true")
        server = topology.select_server_now(PRIMARY)
        assert server is not None
        self.assertIsNone(server.monitor)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.close(topology)
