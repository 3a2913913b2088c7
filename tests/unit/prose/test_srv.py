"""Prose tests of the specifications of SRV records: the seeds that they name, and looking whether they have changed.

DNS answers from tables (:class:`tests.unit.sdam.test_srv.Zone`), monitors connect when the test says so.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names.error import DNSNameError, DNSQueryTimeoutError
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import Connections, FakePool, mongos
from tests.unit.sdam.test_srv import Zone
from txmongo._sdam.srv import SrvResolver
from txmongo._sdam.topology import Topology
from txmongo._settings import ClientSettings, parse_settings
from txmongo.connection import ConnectionPool
from txmongo.errors import ConfigurationError
from txmongo.types import Address


class SeedlistTests(SynchronousTestCase):
    """Initial DNS seedlist discovery."""

    def discover(self, host: str, target: str, options: str = "", **keywords: Any) -> Deferred[Any]:
        """Look for the seeds of a host whose SRV record names this target."""
        zone = Zone()
        zone.services[f"_mongodb._tcp.{host}"] = [(target, 27017, 86400)]
        return SrvResolver(zone).discover(parse_settings(f"mongodb+srv://{host}/{options}", **keywords))

    def seeds(self, *arguments: Any, **keywords: Any) -> list[str]:
        """The host names of the seeds that are found."""
        settings: ClientSettings = self.successResultOf(self.discover(*arguments, **keywords))[0]
        return [host for host, _ in settings.seeds]

    def problem(self, *arguments: Any, **keywords: Any) -> Any:
        """The error where none can be found."""
        return self.failureResultOf(self.discover(*arguments, **keywords), ConfigurationError).value

    def test_fewer_than_three_parts_1(self) -> None:
        """A name may have fewer than three parts."""
        self.assertEqual(self.seeds("localhost", "test.localhost"), ["test.localhost"])
        self.assertEqual(self.seeds("mongo.local", "test.mongo.local"), ["test.mongo.local"])

    def test_other_domain_2(self) -> None:
        """A host that does not end with the name's domain is refused."""
        self.problem("localhost", "localhost.mongodb")
        self.problem("mongo.local", "test_1.evil.local")
        self.problem("blogs.mongodb.com", "blogs.evil.com")

    def test_identical_3(self) -> None:
        """A host that is the name itself is refused where that has fewer than three parts."""
        self.problem("localhost", "localhost")
        self.problem("mongo.local", "mongo.local")
        self.assertEqual(self.seeds("build.10gen.cc", "build.10gen.cc"), ["build.10gen.cc"])

    def test_no_dot_between_4(self) -> None:
        """A host that ends like the domain, but not below it, is refused."""
        self.problem("localhost", "test_1.cluster_1localhost")
        self.problem("mongo.local", "test_1.my_hostmongo.local")
        self.problem("blogs.mongodb.com", "cluster.testmongodb.com")

    def test_validator_accepts_5(self) -> None:
        """A validator takes the place of the look at the domain: what that would refuse may be accepted."""
        for host, target in (("blogs.mongodb.com", "blogs.evil.com"), ("mongo.local", "mongo.local")):
            self.assertEqual(self.seeds(host, target, srv_host_validator=lambda name: True), [target])

    def test_validator_refuses_6(self) -> None:
        """What the look at the domain would accept may be refused."""
        self.problem("blogs.mongodb.com", "cluster.mongodb.com", srv_host_validator=lambda name: False)

    def test_validator_gets_normal_names_7(self) -> None:
        """A validator is given names in small letters, without a dot at their end."""
        names: list[str] = []

        def validator(name: str) -> bool:
            names.append(name)
            return True

        self.seeds("blogs.mongodb.com", "CLUSTER.MONGODB.COM.", srv_host_validator=validator)
        self.assertEqual(names, ["cluster.mongodb.com"])

    def test_validator_raises_8(self) -> None:
        """What a validator raises is the cause of the driver's error."""
        raised = ZeroDivisionError("in a validator")

        def validator(name: str) -> bool:
            raise raised

        error = self.problem("blogs.mongodb.com", "cluster.mongodb.com", srv_host_validator=validator)
        self.assertIs(error.__cause__, raised)

    def test_suffix_and_validator_9(self) -> None:
        """A suffix and a validator cannot be given together."""
        with self.assertRaises(ConfigurationError):
            ConnectionPool(
                "mongodb+srv://blogs.mongodb.com/?srvAllowedHostsSuffix=.mongodb.com",
                reactor=Clock(),
                srv_host_validator=lambda name: True,
            )

    def test_capital_letters_10(self) -> None:
        """Capital letters do not matter to the suffix."""
        found = self.seeds("blogs.mongodb.com", "CLUSTER.MONGODB.COM.", "?srvAllowedHostsSuffix=.mongodb.com")
        self.assertEqual(found, ["cluster.mongodb.com"])

    def test_validator_not_callable_11(self) -> None:
        """A validator that cannot be called is refused."""
        with self.assertRaises((TypeError, ValueError)):
            ConnectionPool("mongodb+srv://blogs.mongodb.com", reactor=Clock(), srv_host_validator="notacallable")

    def test_reserved_label_12(self) -> None:
        """A single label is a suffix if it is reserved for local names."""
        found = self.seeds("cluster.localhost", "db.cluster.localhost", "?srvAllowedHostsSuffix=localhost")
        self.assertEqual(found, ["db.cluster.localhost"])

    def test_validator_without_srv_13(self) -> None:
        """A validator is refused where there are no SRV records to validate."""
        with self.assertRaises(ConfigurationError):
            ConnectionPool("mongodb://localhost:27017", reactor=Clock(), srv_host_validator=lambda name: True)


DOMAIN = "test.build.10gen.cc"
HOST = f"localhost.{DOMAIN}"
#: More than twice the least pause between two looks, in seconds.
TWICE = 125


class PollingTests(SynchronousTestCase):
    """Polling SRV records for mongos discovery."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.zone = Zone()
        self.connections = Connections(self.clock)
        self.random = Random(12)
        self.serve("test1", 27017, 27018)
        self.serve("test3", 27017)
        self.serve("test22", 27017, service="customname")

    def serve(self, name: str, *ports: int, service: str = "mongodb") -> None:
        """Have DNS name these ports of the host, for a minute."""
        self.zone.services[f"_{service}._tcp.{name}.{DOMAIN}"] = [(f"{HOST}.", port, 60) for port in ports]

    def connect(self, name: str = "test1", options: str = "") -> Topology:
        """A topology whose first server was found to be a mongos, as long as it is no load balancer."""
        pools: Any = lambda address: FakePool(address, [])  # noqa: E731
        settings = parse_settings(f"mongodb+srv://{name}.{DOMAIN}/{options}", serverMonitoringMode="poll")
        topology = Topology(
            settings,
            clock=self.clock,
            create_pool=pools,
            connect_monitor=self.connections.connect,
            srv=SrvResolver(self.zone),
            random=self.random,
        )
        topology.open()
        if not settings.load_balanced:
            for address in tuple(topology.servers):
                self.connections.open(address, mongos())
        self.topology = topology
        return topology

    def tearDown(self) -> None:
        """Close the topology."""
        self.close(self.topology)

    def close(self, topology: Topology) -> None:
        """Close it, and see that polling has ended."""
        closed = topology.close()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def after(self, topology: Topology, *ports: int) -> None:
        """After some time the topology has these servers."""
        self.clock.pump([1.0] * TWICE)
        self.assertEqual(set(topology.servers), {(HOST, port) for port in ports})

    def test_added_1(self) -> None:
        """A record more is a server more."""
        topology = self.connect()
        self.serve("test1", 27017, 27018, 27019)
        self.after(topology, 27017, 27018, 27019)

    def test_removed_2(self) -> None:
        """A record less is a server less."""
        topology = self.connect()
        self.serve("test1", 27017)
        self.after(topology, 27017)

    def test_replaced_3(self) -> None:
        """A record in another's place is a server in that one's place."""
        topology = self.connect()
        self.serve("test1", 27017, 27019)
        self.after(topology, 27017, 27019)

    def test_all_replaced_by_one_4(self) -> None:
        """All records may be replaced by one."""
        topology = self.connect()
        self.serve("test1", 27019)
        self.after(topology, 27019)

    def test_all_replaced_by_two_5(self) -> None:
        """All records may be replaced by two."""
        topology = self.connect()
        self.serve("test1", 27019, 27020)
        self.after(topology, 27019, 27020)

    def unchanged_by(self, failure: Exception) -> None:
        """If looking fails so the servers stay."""
        topology = self.connect()
        before = dict(topology.servers)
        asked = len(self.zone.asked)
        self.zone.failure = failure
        self.after(topology, 27017, 27018)
        self.assertEqual(dict(topology.servers), before)
        self.assertGreater(len(self.zone.asked), asked)

    def test_timeout_6(self) -> None:
        """DNS that does not answer in time changes nothing."""
        self.unchanged_by(DNSQueryTimeoutError("no answer"))

    def test_failure_7(self) -> None:
        """A name that is gone changes nothing."""
        self.unchanged_by(DNSNameError("no such domain"))

    def test_no_records_8(self) -> None:
        """A name without SRV records changes nothing."""
        topology = self.connect()
        self.zone._answer = lambda name, kind, records: _nothing()  # type: ignore[method-assign]
        self.after(topology, 27017, 27018)

    def test_load_balanced_9(self) -> None:
        """Behind a load balancer nobody looks again."""
        topology = self.connect("test3", "?loadBalanced=true")
        asked = len(self.zone.asked)
        self.serve("test3", 27017, 27018)
        self.after(topology, 27017)
        self.assertEqual(len(self.zone.asked), asked)

    def test_no_limit_10(self) -> None:
        """With srvMaxHosts=0 all hosts are taken."""
        topology = self.connect(options="?srvMaxHosts=0")
        self.serve("test1", 27017, 27019, 27020)
        self.after(topology, 27017, 27019, 27020)

    def test_limit_not_exceeded_11(self) -> None:
        """With srvMaxHosts that is as high as there are hosts all are taken."""
        topology = self.connect(options="?srvMaxHosts=2")
        self.serve("test1", 27019, 27020)
        self.after(topology, 27019, 27020)

    def test_limit_12(self) -> None:
        """With a lower srvMaxHosts the hosts that still are there stay, and others are taken by chance."""
        others: set[Address] = set()
        for _ in range(20):
            self.serve("test1", 27017, 27018)
            topology = self.connect(options="?srvMaxHosts=2")
            self.serve("test1", 27017, 27019, 27020)
            self.clock.pump([1.0] * TWICE)
            servers = set(topology.servers)
            self.assertEqual(len(servers), 2)
            self.assertIn((HOST, 27017), servers)
            others |= servers - {(HOST, 27017)}
            self.close(topology)
        self.assertEqual(others, {(HOST, 27019), (HOST, 27020)})

    def test_service_name_13(self) -> None:
        """The records of the service name of the options are looked at."""
        topology = self.connect("test22", "?srvServiceName=customname")
        self.serve("test22", 27019, 27020, service="customname")
        self.after(topology, 27019, 27020)


def _nothing() -> Deferred[Any]:
    answer: Deferred[Any] = Deferred()
    answer.callback(([], [], []))
    return answer
