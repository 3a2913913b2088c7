"""``txmongo._deployment``: what a client knows of its servers, and how they are talked to directly."""

from __future__ import annotations

from pymongo.topology_description import TOPOLOGY_TYPE

from tests.unit.clients import ClientCase
from txmongo.errors import InvalidOperation
from txmongo.protocol import MongoProtocol
from txmongo.testing import FakeServer


class DeploymentTests(ClientCase):
    """What a client knows of its deployment."""

    def test_standalone(self) -> None:
        """A server on its own has an address, and nothing of a replica set."""
        client = self.client()
        self.assertEqual(client.nodes, frozenset())
        self.assertEqual(self.result(client.address), ("fake.example", 27017))
        self.assertIsNone(self.result(client.primary))
        self.assertEqual(self.result(client.secondaries), set())
        self.assertEqual(self.result(client.arbiters), set())
        self.assertTrue(self.result(client.is_primary))
        self.assertFalse(self.result(client.is_mongos))
        self.assertEqual(client.nodes, {("fake.example", 27017)})
        self.assertEqual(client.topology_description.topology_type, TOPOLOGY_TYPE.Single)

    def test_replica_set(self) -> None:
        """Of a replica set the members are known by their states."""
        client = self.set_of_two()
        self.assertEqual(self.result(client.address), ("a.example", 27017))
        self.turn()
        self.assertEqual(self.result(client.primary), ("a.example", 27017))
        self.assertEqual(self.result(client.secondaries), {("b.example", 27017)})
        self.assertEqual(self.result(client.arbiters), set())
        self.assertEqual(client.nodes, {("a.example", 27017), ("b.example", 27017)})

    def test_sharded(self) -> None:
        """Of several mongos none is the one address."""
        for name in ("a.example", "b.example"):
            self.servers[name] = FakeServer(hello={"msg": "isdbgrid"})
        client = self.client("mongodb://a.example,b.example")
        address = client.address
        self.turn()
        self.failureResultOf(address, InvalidOperation)
        self.assertTrue(self.result(client.is_mongos))


class ProtocolTests(ClientCase):
    """The protocols themselves."""

    def test_getprotocol(self) -> None:
        """A connected protocol, on which commands can be sent."""
        client = self.client()
        protocol = self.result(client.getprotocol())
        self.assertIsInstance(protocol, MongoProtocol)
        self.assertEqual(self.result(protocol.command("test", {"ping": 1})), {"ok": 1.0})
        self.assertIn(protocol, client.getprotocols())

    def test_getprotocols(self) -> None:
        """Those of all pools; before the first connection what can be waited for, and none when disconnected."""
        client = self.client()
        (missing,) = client.getprotocols()
        self.assertIs(missing.uri, client.uri)
        self.assertIs(missing.pool, client)
        self.assertIsNone(missing.instance)
        protocol = self.result(missing.notifyReady())
        self.assertEqual(client.getprotocols(), [protocol])
        self.assertIs(protocol.uri, client.uri)
        self.assertIs(protocol.instance, protocol)
        self.result(client.disconnect())
        self.assertEqual(client.getprotocols(), [])
