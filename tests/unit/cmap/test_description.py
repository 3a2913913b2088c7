"""Reading a connection's limits and abilities out of a ``hello`` reply."""

from __future__ import annotations

from bson.objectid import ObjectId
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._pymongo import SERVER_TYPE

PRIMARY = {
    "ok": 1,
    "isWritablePrimary": True,
    "setName": "rs",
    "minWireVersion": 0,
    "maxWireVersion": 17,
    "maxBsonObjectSize": 1000,
    "maxMessageSizeBytes": 2000,
    "maxWriteBatchSize": 30,
    "logicalSessionTimeoutMinutes": 30,
    "connectionId": 7,
    "topologyVersion": {"processId": ObjectId("0" * 24), "counter": 6},
}


class StreamDescriptionTests(SynchronousTestCase):
    """Every field, and what holds where the server is silent."""

    def test_fields(self) -> None:
        """Each limit is the one that the server named."""
        description = StreamDescription.from_hello(PRIMARY, compressor="zlib")
        self.assertEqual(
            description,
            StreamDescription(
                server_type=SERVER_TYPE.RSPrimary,
                min_wire_version=0,
                max_wire_version=17,
                max_bson_size=1000,
                max_message_size=2000,
                max_write_batch_size=30,
                logical_session_timeout_minutes=30,
                compressor="zlib",
                server_connection_id=7,
                topology_version=PRIMARY["topologyVersion"],
                hello=PRIMARY,
            ),
        )
        self.assertFalse(description.is_mongos)
        self.assertFalse(description.is_standalone)

    def test_defaults(self) -> None:
        """A reply that names nothing is a standalone with the limits of the specification."""
        description = StreamDescription.from_hello({"ok": 1})
        self.assertTrue(description.is_standalone)
        self.assertEqual(description.max_bson_size, 16 * 1024 * 1024)
        self.assertEqual(description.max_message_size, 48_000_000)
        self.assertEqual(description.max_write_batch_size, 100_000)
        self.assertIsNone(description.compressor)

    def test_mongos(self) -> None:
        """A mongos is known by its message."""
        description = StreamDescription.from_hello({"ok": 1, "msg": "isdbgrid"})
        self.assertTrue(description.is_mongos)
        self.assertFalse(description.is_standalone)

    def test_mongos_behind_a_load_balancer(self) -> None:
        """Behind a load balancer the server type is LoadBalancer, and the mongos is still told."""
        service = ObjectId()
        description = StreamDescription.from_hello(
            {"ok": 1, "msg": "isdbgrid", "serviceId": service}, load_balanced=True
        )
        self.assertEqual(description.server_type, SERVER_TYPE.LoadBalancer)
        self.assertTrue(description.is_mongos)
        self.assertTrue(description.load_balanced)
        self.assertEqual(description.service_id, service)
