"""The pure rules over descriptions."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, B, Deployment, ghost, mongos, primary, secondary, standalone, topology_version
from txmongo._pymongo import SERVER_TYPE, updated_topology_description
from txmongo._sdam import description as rules
from txmongo._settings import parse_settings
from txmongo.errors import ProtocolError


def described(document: dict[str, Any], address: Any = A, rtt: float | None = 0.01) -> ServerDescription:
    """A server's description from what it answered."""
    return rules.parse_hello(address, document, awaited=False, rtt=rtt, minimum_rtt=0.0)[1]


class InitialTests(SynchronousTestCase):
    """Where a topology starts."""

    def initial_type(self, uri: str) -> int:
        return rules.initial_description(parse_settings(uri), ObjectId()).topology_type

    def test_types(self) -> None:
        """The options decide the first type, not the number of seeds."""
        self.assertEqual(self.initial_type("mongodb://a"), TOPOLOGY_TYPE.Unknown)
        self.assertEqual(self.initial_type("mongodb://a,b"), TOPOLOGY_TYPE.Unknown)
        self.assertEqual(self.initial_type("mongodb://a/?replicaSet=rs"), TOPOLOGY_TYPE.ReplicaSetNoPrimary)
        self.assertEqual(self.initial_type("mongodb://a/?directConnection=true"), TOPOLOGY_TYPE.Single)
        self.assertEqual(self.initial_type("mongodb://a/?directConnection=true&replicaSet=rs"), TOPOLOGY_TYPE.Single)
        self.assertEqual(self.initial_type("mongodb://a/?loadBalanced=true"), TOPOLOGY_TYPE.LoadBalanced)

    def test_servers(self) -> None:
        """Every seed is a server of which nothing is known."""
        initial = rules.initial_description(parse_settings("mongodb://a,b/?localThresholdMS=7"), ObjectId())
        self.assertEqual([each.address for each in rules.servers_of(initial)], [A, B])
        self.assertEqual({each.server_type for each in rules.servers_of(initial)}, {SERVER_TYPE.Unknown})

    def test_empty(self) -> None:
        """Before opening there is no server, not even a seed."""
        empty = rules.empty_description(parse_settings("mongodb://a"), ObjectId())
        self.assertEqual((empty.topology_type, list(rules.servers_of(empty))), (TOPOLOGY_TYPE.Unknown, []))


class VersionTests(SynchronousTestCase):
    """Which news is newer."""

    def test_same_process(self) -> None:
        """In one process the counter decides."""
        one, two = topology_version(1), topology_version(2)
        compare = rules.compare_topology_versions
        self.assertEqual([compare(one, two), compare(two, one), compare(one, one)], [-1, 1, 0])

    def test_not_comparable(self) -> None:
        """Without a version, or from another process, what came last is taken for newer."""
        one, other = topology_version(2), topology_version(1, ObjectId())
        compare = rules.compare_topology_versions
        self.assertEqual([compare(None, one), compare(one, None), compare(one, other)], [-1, -1, -1])

    def test_stale(self) -> None:
        """An older reply of the same process is stale, an equal one is not."""
        current = described(standalone(topologyVersion=topology_version(2)))
        self.assertTrue(rules.is_stale(current, described(standalone(topologyVersion=topology_version(1)))))
        self.assertFalse(rules.is_stale(current, described(standalone(topologyVersion=topology_version(2)))))


class SamenessTests(SynchronousTestCase):
    """What is news to a listener."""

    def test_round_trip_is_no_news(self) -> None:
        """Another round trip time makes no other server."""
        self.assertTrue(rules.same_server(described(standalone(), rtt=1.0), described(standalone(), rtt=2.0)))

    def test_topology_version_is_news(self) -> None:
        """Another topologyVersion does."""
        first = described(standalone(topologyVersion=topology_version(1)))
        second = described(standalone(topologyVersion=topology_version(2)))
        self.assertFalse(rules.same_server(first, second))

    def test_same_error_again(self) -> None:
        """A server that fails as before is no news, one that fails otherwise is."""
        first, second = (ServerDescription(A, error=ValueError("down")) for _ in range(2))
        other = ServerDescription(A, error=ValueError("up to no good"))
        self.assertTrue(rules.same_server(first, second))
        self.assertFalse(rules.same_server(first, other))

    def test_topologies(self) -> None:
        """Topologies differ by type, set name, members, and what their members are."""
        start = rules.initial_description(parse_settings("mongodb://a,b"), ObjectId())
        known = updated_topology_description(start, described(primary("a:27017", "b:27017")))
        again = updated_topology_description(known, described(primary("a:27017", "b:27017"), rtt=9.0))
        fewer = updated_topology_description(known, described(primary("a:27017")))
        self.assertFalse(rules.same_topology(start, known))
        self.assertTrue(rules.same_topology(known, again))
        self.assertFalse(rules.same_topology(known, fewer))


class HelloTests(SynchronousTestCase):
    """Reading what a server answers."""

    def test_parsed(self) -> None:
        """The reply becomes PyMongo's Hello and a description with the times given."""
        hello, server = rules.parse_hello(A, mongos(), awaited=True, rtt=0.5, minimum_rtt=0.25)
        self.assertTrue(hello.awaitable)
        self.assertEqual(server.server_type, SERVER_TYPE.Mongos)
        self.assertEqual((server.round_trip_time, server.min_round_trip_time), (0.5, 0.25))

    def test_nonsense(self) -> None:
        """Fields of a wrong type are the server's fault, and named as that."""
        nonsense: list[dict[str, Any]] = [
            {"hosts": 7},
            {"hosts": [3]},
            {"maxWireVersion": "new"},
            {"setName": 1},
            {"tags": 5},
            {"lastWrite": {"lastWriteDate": "yesterday"}},
            {"topologyVersion": {"processId": 1}},
        ]
        for fields in nonsense:
            error = self.assertRaises(ProtocolError, described, {**primary(), **fields})
            self.assertIn("a:27017 sent a reply that is none to hello", str(error))


class CompatibilityTests(SynchronousTestCase):
    """Servers that the driver cannot work with."""

    def problem(self, document: dict[str, Any]) -> str | None:
        deployment = Deployment()
        deployment.discover(a=document)
        return rules.incompatibility(deployment.topology.description)

    def test_fits(self) -> None:
        """A server whose range meets the driver's is fine, however new it is."""
        self.assertIsNone(self.problem(standalone(maxWireVersion=9)))
        self.assertIsNone(self.problem(standalone(maxWireVersion=1000)))

    def test_too_old(self) -> None:
        """A server before MongoDB 4.4 is named with what is needed."""
        problem = self.problem(standalone(maxWireVersion=8))
        self.assertEqual(
            problem,
            "Server at a:27017 reports wire version 8, but this version of txmongo requires at least 9 (MongoDB 4.4).",
        )

    def test_too_new(self) -> None:
        """A server that wants more than the driver speaks is named."""
        problem = self.problem(standalone(minWireVersion=99, maxWireVersion=100))
        self.assertEqual(
            problem,
            "Server at a:27017 requires wire version 99, but this version of txmongo only supports up to 29.",
        )

    def test_load_balancer(self) -> None:
        """A load balancer is always compatible."""
        deployment = Deployment("mongodb://a/?loadBalanced=true")
        deployment.open()
        self.assertIsNone(rules.incompatibility(deployment.topology.description))


class SmallTests(SynchronousTestCase):
    """Helpers that everything leans on."""

    def test_data_bearing(self) -> None:
        """Data comes from standalones, primaries, secondaries and mongos."""
        for document in (standalone(), mongos(), primary(), secondary()):
            self.assertTrue(rules.is_data_bearing(described(document)))
        self.assertFalse(rules.is_data_bearing(described(ghost())))

    def test_load_balancer_only_has_a_type(self) -> None:
        """The description of a load balancer has its type and nothing else."""
        server = rules.load_balancer(A)
        self.assertEqual(server.server_type_name, "LoadBalancer")
        self.assertEqual((server.replica_set_name, server.all_hosts, server.round_trip_time), (None, set(), None))

    def test_addresses(self) -> None:
        """Addresses are written as in a connection string."""
        written = [rules.format_address(each) for each in (A, ("::1", 1), ("/tmp/mongodb-27017.sock", None))]
        self.assertEqual(written, ["a:27017", "[::1]:1", "/tmp/mongodb-27017.sock"])
