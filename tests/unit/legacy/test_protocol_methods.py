"""What TxMongo lets programs do with one connection: ``txmongo._legacy.protocol_methods``."""

from __future__ import annotations

import bson
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.transports import answer, connected, reply_to, written
from txmongo.errors import AutoReconnect, DuplicateKeyError
from txmongo.protocol import Getmore, Insert, MongoAuthenticationError, MongoProtocol, Query, Reply


class ProtocolMethodsTests(SynchronousTestCase):
    """The methods, on a transport in memory."""

    def test_query_and_get_more(self) -> None:
        """send_QUERY and send_GETMORE, and send() with either, fire with the Reply, its documents being BSON."""
        messages = (Query(collection="a.b", query={"x": 1}), Getmore(collection="a.b", cursor_id=7))
        for message in messages:
            for send in (MongoProtocol.send, MongoProtocol.send_query):
                protocol, transport = connected()
                waiting = send(protocol, message)
                [request] = written(transport)
                self.assertEqual(protocol.inflight(), 1)
                protocol.dataReceived(reply_to(request, cursor_id=7, documents=[{"x": 1}]))
                reply = self.successResultOf(waiting)
                self.assertIsInstance(reply, Reply)
                self.assertEqual((reply.cursor_id, reply.n_returned, reply.documents[0].decode()), (7, 1, {"x": 1}))

    def test_command_by_query(self) -> None:
        """send_op_query_command asks the database's $cmd collection and gives the document."""
        protocol, transport = connected()
        waiting = protocol.send_op_query_command("admin", {"isMaster": 1})
        [request] = written(transport)
        self.assertEqual((request.collection, bson.decode(request.query)), ("admin.$cmd", {"isMaster": 1}))
        protocol.dataReceived(reply_to(request, documents=[{"ok": 1}]))
        self.assertEqual(self.successResultOf(waiting), {"ok": 1})

    def test_hello(self) -> None:
        """init_from_hello_response notes versions and limits, and what servers have that do not tell them."""
        protocol, _ = connected()
        protocol.init_from_hello_response({"maxWireVersion": 17, "maxBsonObjectSize": 1, "maxMessageSizeBytes": 99})
        self.assertEqual((protocol.min_wire_version, protocol.max_wire_version), (0, 17))
        self.assertEqual((protocol.max_bson_size, protocol.max_message_size), (1, 99))
        self.assertEqual(protocol.max_write_batch_size, 1000)

    def test_authentication(self) -> None:
        """A mechanism that is gone fails at once; a certificate's is one command, a SCRAM begins by asking for it."""
        protocol, transport = connected()
        self.failureResultOf(protocol.authenticate_mongo_cr("db", "user", "pencil"), MongoAuthenticationError)
        self.assertEqual(written(transport), [])
        done = protocol.authenticate_mongo_x509("$external", "CN=me")
        [request] = written(transport)
        command = request.to_dict()
        self.assertEqual((command["authenticate"], command["mechanism"]), (1, "MONGODB-X509"))
        protocol.dataReceived(answer(request, {"ok": 1, "dbname": "$external", "user": "CN=me"}))
        self.assertIs(self.successResultOf(done), True)
        begun = protocol.authenticate_scram_sha1("db", "user", "pencil")
        [request] = written(transport)
        self.assertEqual(request.to_dict()["saslStart"], 1)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(begun, AutoReconnect)

    def test_last_error(self) -> None:
        """Of a write command the driver tells what it was answered; of an old opcode only the server knows."""
        protocol, transport = connected()
        self.assertEqual(self.successResultOf(protocol.get_last_error("db"))["n"], 0)
        protocol.last_write = {"ok": 1, "n": 3}
        self.assertEqual(self.successResultOf(protocol.get_last_error("db"))["n"], 3)
        protocol.last_write = {"ok": 1, "n": 0, "writeErrors": [{"code": 11000, "errmsg": "no"}]}
        self.failureResultOf(protocol.get_last_error("db"), DuplicateKeyError)
        protocol.send_INSERT(Insert(collection="db.things"))
        waiting = protocol.get_last_error("db.things", w=2)
        request = written(transport)[-1]
        self.assertEqual((request.collection, bson.decode(request.query)), ("db.$cmd", {"getLastError": 1, "w": 2}))
        protocol.dataReceived(reply_to(request, documents=[{"ok": 1, "err": "E11000", "code": 11000}]))
        self.failureResultOf(waiting, DuplicateKeyError)
