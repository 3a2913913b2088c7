"""The two halves by which programs speak MongoDB's wire protocol themselves: ``txmongo._legacy.protocols``."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.transports import AbortableTransport, ping, written
from txmongo._wire.op_msg import Msg
from txmongo.protocol import (
    Delete,
    Getmore,
    Insert,
    KillCursors,
    MongoClientProtocol,
    MongoDecoder,
    MongoProtocol,
    MongoReceiverProtocol,
    MongoSenderProtocol,
    MongoServerProtocol,
    Query,
    Reply,
    Update,
)


class HookTests(SynchronousTestCase):
    """The two halves that other programs build on."""

    MESSAGES = ("REPLY", "MSG", "UPDATE", "INSERT", "QUERY", "GETMORE", "DELETE", "KILL_CURSORS")

    def messages(self) -> dict[str, Any]:
        """One message of each kind, by the name of its hook."""
        return {
            "REPLY": Reply(),
            "MSG": Msg(),
            "UPDATE": Update(collection="a.b"),
            "INSERT": Insert(collection="a.b"),
            "QUERY": Query(collection="a.b"),
            "GETMORE": Getmore(collection="a.b"),
            "DELETE": Delete(collection="a.b"),
            "KILL_CURSORS": KillCursors(cursors=[1]),
        }

    def test_round_trip(self) -> None:
        """What each send_ method writes calls the hook of its kind at the other end."""
        for kind, message in self.messages().items():
            seen: list[str] = []
            server = type(
                "Server",
                (MongoServerProtocol,),
                {f"handle_{k}": lambda self, request, k=k, seen=seen: seen.append(k) for k in self.MESSAGES},
            )()
            server.makeConnection(AbortableTransport())
            client = MongoClientProtocol()
            transport = AbortableTransport()
            client.makeConnection(transport)
            self.assertGreater(getattr(client, f"send_{kind}")(message), 0)
            server.dataReceived(transport.value())
            self.assertEqual(seen, [kind])

    def test_lower_case_hooks(self) -> None:
        """A hook by its lower-case name is called, and then the other one is not."""
        seen: list[str] = []

        class Server(MongoServerProtocol):
            def handle_query(self, request: Any) -> None:
                seen.append("query")

            def handle_QUERY(self, request: Any) -> None:
                seen.append("QUERY")

            def handle_KILL_CURSORS(self, request: Any) -> None:
                seen.append("KILL_CURSORS")

        server = Server()
        for kind in ("QUERY", "KILL_CURSORS"):
            server.dataReceived(self.messages()[kind].encode(1))
        self.assertEqual(seen, ["query", "KILL_CURSORS"])

    def test_bases(self) -> None:
        """Both names of each half are there, and the receiving half has an abstract base."""
        self.assertIs(MongoSenderProtocol, MongoClientProtocol)
        self.assertEqual(MongoProtocol.__bases__[-2:], (MongoServerProtocol, MongoClientProtocol))
        self.assertTrue(issubclass(MongoServerProtocol, MongoReceiverProtocol))
        self.assertRaises(TypeError, MongoReceiverProtocol)

    def test_send(self) -> None:
        """send() takes the method for the message's kind, each time under a new request id."""
        client = MongoClientProtocol()
        transport = AbortableTransport()
        client.makeConnection(transport)
        ids = [client.send(message) for message in self.messages().values()]
        self.assertEqual([message.request_id for message in written(transport)], ids)
        self.assertEqual(len(set(ids)), len(ids))

    def test_default_hooks(self) -> None:
        """The hooks do nothing unless they are overridden."""
        server = MongoServerProtocol()
        transport = AbortableTransport()
        server.makeConnection(transport)
        for message in self.messages().values():
            server.dataReceived(message.encode(1))
        self.assertEqual((transport.value(), transport.aborted), (b"", False))

    def test_garbage(self) -> None:
        """A server closes a connection that does not speak the protocol."""
        server = MongoServerProtocol()
        transport = AbortableTransport()
        server.makeConnection(transport)
        server.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.aborted)

    def test_unknown_message(self) -> None:
        """A message without a hook is passed over."""

        class Deaf(MongoServerProtocol):
            handle_msg = None  # type: ignore[assignment]

        Deaf().handle(Msg())

    def test_fails_before_connecting(self) -> None:
        """There is nothing to close before there is a connection."""
        MongoServerProtocol().fail(ValueError("not wanted"))

    def test_decoder(self) -> None:
        """MongoDecoder gives whole messages one at a time and None when there is no more."""
        decoder = MongoDecoder()
        data = ping().encode(1) + ping().encode(2)
        decoder.feed(data[:-1])
        self.assertEqual(decoder.dataBuffer, data[:-1])
        self.assertIs(iter(decoder), decoder)
        self.assertEqual(next(decoder).request_id, 1)
        self.assertIs(decoder.next(), None)
        decoder.feed(data[-1:])
        self.assertEqual(decoder.next().request_id, 2)
        self.assertEqual(decoder.dataBuffer, b"")
