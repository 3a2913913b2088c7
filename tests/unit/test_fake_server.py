"""Tests of the scripted server and of the connections without a network that it offers."""

from __future__ import annotations

from typing import Any

import bson
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._testing.memory import MemoryAddress
from txmongo.errors import AutoReconnect, OperationFailure
from txmongo.protocol import MongoProtocol, Msg, Query
from txmongo.testing import HELLO, Behaviour, FakeServer


class FakeServerTests(SynchronousTestCase):
    """A driver's connection to a scripted server, on a fake clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer({"count": {"n": 3}})

    def turn(self) -> None:
        """Let bytes travel there and back."""
        for _ in range(4):
            self.clock.advance(0)

    def connect(self) -> MongoProtocol:
        """A connection to the server."""
        connecting = self.server.endpoint(self.clock).connect(Factory.forProtocol(MongoProtocol))
        self.assertNoResult(connecting)
        self.clock.advance(0)
        client: MongoProtocol = self.successResultOf(connecting)
        return client

    def test_hello(self) -> None:
        """hello is answered, in its old form over OP_QUERY too."""
        client = self.connect()
        answers = [
            client.command("admin", {"hello": 1}),
            client.send_query(Query(collection="admin.$cmd", query=bson.encode({"isMaster": 1}))),
        ]
        self.turn()
        self.assertEqual(self.successResultOf(answers[0]), HELLO)
        self.assertEqual(bson.decode(self.successResultOf(answers[1]).documents[0]), HELLO)

    def test_other_hello(self) -> None:
        """What the server says of itself can be replaced field by field."""
        self.server = FakeServer(hello={"maxWireVersion": 6})
        answer = self.connect().command("admin", {"hello": 1})
        self.turn()
        self.assertEqual(self.successResultOf(answer), {**HELLO, "maxWireVersion": 6})

    def test_received(self) -> None:
        """Commands are answered by name and kept with database, document and connection."""
        answer = self.connect().command("test", {"count": "c"})
        self.turn()
        self.assertEqual(self.successResultOf(answer), {"n": 3, "ok": 1.0})
        [command] = self.server.received
        self.assertEqual((command.name, command.database, command.connection), ("count", "test", 1))
        self.assertEqual(self.server.commands("count"), [{"count": "c", "$db": "test"}])
        self.assertEqual(self.server.commands("find"), [])

    def test_unknown_command(self) -> None:
        """A command without a script fails as on a server that does not know it."""
        answer = self.connect().command("test", {"nonsense": 1})
        self.turn()
        self.assertEqual(self.failureResultOf(answer, OperationFailure).value.code, 59)

    def test_script(self) -> None:
        """Several answers are used one after another, the last one for ever."""
        self.server.answer("count", {"n": 1}, {"n": 2})
        client = self.connect()
        answers = [client.command("test", {"count": "c"}) for _ in range(3)]
        self.turn()
        self.assertEqual([self.successResultOf(answer)["n"] for answer in answers], [1, 2, 2])

    def test_no_answers(self) -> None:
        """A script without answers is refused."""
        self.assertRaises(ValueError, self.server.answer, "count")

    def test_function(self) -> None:
        """An answer may be computed from the command."""
        self.server.answer("count", lambda document: {"n": len(document["query"])})
        answer = self.connect().command("test", {"count": "c", "query": {"a": 1, "b": 2}})
        self.turn()
        self.assertEqual(self.successResultOf(answer)["n"], 2)

    def test_later(self) -> None:
        """An answer may come later, and what came after it on this connection waits for it."""
        later: Deferred[dict[str, int]] = Deferred()
        self.server.answer("count", later, {"n": 2})
        client = self.connect()
        first, second = (client.command("test", {"count": "c"}) for _ in range(2))
        self.turn()
        self.assertNoResult(second)
        later.callback({"n": 1})
        self.turn()
        self.assertEqual([self.successResultOf(first)["n"], self.successResultOf(second)["n"]], [1, 2])

    def test_later_fails(self) -> None:
        """An answer that fails closes the connection."""
        later: Deferred[dict[str, int]] = Deferred()
        self.server.answer("count", later)
        answer = self.connect().command("test", {"count": "c"})
        self.turn()
        later.errback(ValueError())
        self.turn()
        self.failureResultOf(answer, AutoReconnect)

    def test_later_than_the_connection(self) -> None:
        """An answer that comes after the connection was lost goes nowhere."""
        later: Deferred[dict[str, int]] = Deferred()
        self.server.answer("count", later)
        answer = self.connect().command("test", {"count": "c"})
        self.turn()
        self.server.hang_up()
        self.turn()
        later.callback({"n": 1})
        self.failureResultOf(answer, AutoReconnect)

    def test_hang_up(self) -> None:
        """The server may close the connection instead of answering."""
        self.server.answer("count", Behaviour.HANG_UP)
        answer = self.connect().command("test", {"count": "c"})
        self.turn()
        self.failureResultOf(answer, AutoReconnect)
        self.assertEqual((self.server.connections, self.server.accepted), (0, 1))

    def test_fall_silent(self) -> None:
        """The server may never answer again on a connection."""
        self.server.answer("count", Behaviour.FALL_SILENT)
        client = self.connect()
        answers = [client.command("test", {"count": "c"}), client.command("test", {"ping": 1})]
        self.turn()
        for answer in answers:
            self.assertNoResult(answer)
        self.assertIn("1 connections", repr(self.server))

    def test_garbage(self) -> None:
        """The server may send any bytes."""
        self.server.answer("count", b"HTTP/1.1 400 Bad Request\r\n\r\n")
        answer = self.connect().command("test", {"count": "c"})
        self.turn()
        self.failureResultOf(answer, AutoReconnect)

    def test_unacknowledged(self) -> None:
        """A command that wants no answer gets none."""
        client = self.connect()
        message = Msg.create({"count": "c", "$db": "test"}, acknowledged=False)
        self.assertIsNone(self.successResultOf(client.send_msg(message, bson.DEFAULT_CODEC_OPTIONS, None)))
        answer = client.command("test", {"ping": 1})
        self.turn()
        self.successResultOf(answer)
        self.assertEqual([command.name for command in self.server.received], ["count", "ping"])

    def test_refusing(self) -> None:
        """The server may refuse connections."""
        self.server.refusing = True
        connecting = self.server.endpoint(self.clock).connect(Factory.forProtocol(MongoProtocol))
        self.clock.advance(0)
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_cancelled_connect(self) -> None:
        """Connecting in memory can be cancelled."""
        connecting = self.server.endpoint(self.clock).connect(Factory.forProtocol(MongoProtocol))
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual((self.clock.getDelayedCalls(), self.server.accepted), ([], 0))

    def test_client_closes(self) -> None:
        """When the client closes, what it wrote arrives first and both ends see the end."""
        client = self.connect()
        lost: list[object] = []
        client.lost_hook = lost.append
        client.command("test", {"ping": 1}).addErrback(lambda _: None)
        client.close()
        self.turn()
        self.assertEqual((len(self.server.received), self.server.connections, len(lost)), (1, 0, 1))

    def test_transport(self) -> None:
        """An end of a connection in memory is a transport: pieces are written, addresses can be asked for."""
        client = self.connect()
        transport: Any = client.transport
        message = Msg.create({"ping": 1, "$db": "admin"}).encode(1)
        transport.writeSequence([message[:20], message[20:]])
        self.turn()
        self.assertEqual(len(self.server.commands("ping")), 1)
        self.assertEqual((type(transport.getHost()), type(transport.getPeer())), (MemoryAddress, MemoryAddress))

    def test_stop(self) -> None:
        """stop() closes every connection."""
        self.connect()
        stopping = self.server.stop()
        self.assertNoResult(stopping)
        self.turn()
        self.successResultOf(stopping)
        self.assertEqual(self.server.connections, 0)
        self.assertEqual(self.server.uri, "mongodb://fake.example:27017/")
