"""Large messages over a pair of sockets: ``txmongo.protocol`` receives them in large parts, and copies none."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

import bson
from bson.codec_options import CodecOptions
from twisted.internet import tcp
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmongo._transports import PART, large_parts, leave_rest
from txmongo._wire.op_msg import Msg
from txmongo.errors import AutoReconnect, ProtocolError
from txmongo.protocol import MongoProtocol

DEFAULT: CodecOptions[Any] = CodecOptions()
PING = bson.encode({"ping": 1, "$db": "admin"})
PONG = {"ok": 1.0, "pong": True}


class Connection(tcp.Connection):
    """A connected socket that the test reads from in the reactor's place."""

    def __init__(self, connected: socket.socket, protocol: MongoProtocol) -> None:
        super().__init__(connected, protocol, MemoryReactorClock())
        self.connected = 1
        self.reads = 0
        protocol.makeConnection(self)

    @property
    def low_water(self) -> int:
        """Below how many bytes the reactor hears nothing of them."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(None)

    def read(self) -> None:
        """What the reactor does with a socket for as long as it is readable."""
        while not self.disconnected and select.select([self.socket], [], [], 0)[0]:
            self.reads += 1
            result = self.doRead()
            if result is not None:
                self.connectionLost(Failure(result))


def message(document: dict[str, Any], request_id: int = 1) -> bytes:
    return Msg(1, request_id, bson.encode(document)).encode()


def batch(count: int) -> dict[str, Any]:
    documents = [{"_id": number, "content": str(number) * 400} for number in range(count)]
    return {"cursor": {"nextBatch": documents, "id": 5, "ns": "d.c"}, "ok": 1.0}


class SocketCase(SynchronousTestCase):
    """A protocol on a connected socket; the test is the server at its other end."""

    def setUp(self) -> None:
        """Connect them."""
        mine, self.server = socket.socketpair()
        self.addCleanup(mine.close)
        self.addCleanup(self.server.close)
        self.server.setblocking(False)
        self.protocol = MongoProtocol()
        self.connection = Connection(mine, self.protocol)


class LargePartTests(SocketCase):
    def setUp(self) -> None:
        """Connect a protocol with a server, that is, with a socket."""
        super().setUp()
        self.assertEqual(self.connection.low_water, 1)
        self.low_waters: set[int] = set()
        self.results: list[Any] = []
        for request_id in (1, 2):
            self.protocol.send_msg(Msg(request_id, 0, PING), DEFAULT, None).addBoth(self.results.append)
        self.server.recv(1000)

    def send(self, data: bytes) -> None:
        """The server sends as the client reads."""
        rest = memoryview(data)
        while rest:
            # Half a part: so much lies there when the protocol looks for more.
            rest = rest[self.server.send(rest[: PART // 2]) :]
            self.connection.read()
            self.low_waters.add(self.connection.low_water)

    def test_other_document(self) -> None:
        """A large reply is whole, whatever is in it; with the end of it in sight every byte counts again."""
        reply = {"ok": 1.0, "content": bytes(range(256)) * 12_000}
        self.send(message(reply) + message(PONG, 2))
        self.assertTrue(self.results == [reply, PONG])
        self.assertEqual(self.low_waters, {1, PART})
        self.assertEqual(self.connection.low_water, 1)

    def test_batch(self) -> None:
        """Its documents are decoded as they arrive, and the reactor comes round for few of the pieces."""
        reply = batch(10_000)
        data = message(reply)
        self.send(data + message(PONG, 2))
        self.assertTrue(self.results == [reply, PONG])
        self.assertLess(len(self.protocol._decoder.buffer), PART)
        # The transport alone would read twice for each piece.
        self.assertLess(self.connection.reads, 1.5 * len(data) / (PART // 2))

    def test_part_by_part(self) -> None:
        """What the socket is ready for is never more than what is still to come."""
        data = message({"ok": 1.0, "content": bytes(3 * PART)})
        for start in range(0, len(data), 1000):
            self.server.send(data[start : start + 1000])
            self.connection.read()
            self.assertLessEqual(self.connection.low_water, max(len(data) - start - 1000, 1))
        self.assertEqual(len(self.results), 1)

    def test_ordinary(self) -> None:
        """A reply that is not large is read as ever."""
        self.send(message({"ok": 1.0, "content": bytes(PART)}))
        self.assertEqual(len(self.results), 1)
        self.assertEqual(self.low_waters, {1})

    def test_end_of_stream(self) -> None:
        """A server that closes in the middle is noticed at once, and what waits fails."""
        self.send(message({"ok": 1.0, "content": bytes(4 * PART)})[: PART // 2])
        self.server.close()
        self.connection.read()
        for failure in self.results:
            failure.trap(AutoReconnect)
        self.assertEqual(len(self.results), 2)

    def test_lost_socket(self) -> None:
        """An error while reading on is left to the transport."""
        data = message({"ok": 1.0, "content": bytes(4 * PART)})
        self.connection.socket.close()
        self.protocol.dataReceived(data[:1000])
        self.assertEqual(self.results, [])

    def test_wrong_data(self) -> None:
        """Bytes that are no message end the connection as ever."""
        self.protocol.dataReceived(b"x" * 100)
        for failure in self.results:
            self.assertIsInstance(failure.value, AutoReconnect)
            self.assertIsInstance(failure.value.__cause__, ProtocolError)

    def test_every_byte_counts(self) -> None:
        """Where it matters when the last byte came, none is left to the kernel."""
        self.protocol.in_large_parts = False
        self.send(message({"ok": 1.0, "content": bytes(4 * PART)}))
        self.assertEqual(len(self.results), 1)
        self.assertEqual(self.low_waters, {1})

    def test_encrypted(self) -> None:
        """Under TLS the socket's bytes are not the message's: they come through the transport alone."""
        self.connection.TLS = True
        parts = large_parts(self.connection)
        assert parts is not None
        parts.expect(10 * PART)
        self.server.send(b"encrypted")
        self.assertEqual(self.connection.low_water, PART)
        self.assertEqual(parts.read_into(memoryview(bytearray(100))), 0)
        self.assertEqual(self.connection.socket.recv(100), b"encrypted")

    def test_no_socket(self) -> None:
        """A transport of another kind is used as it is."""
        self.assertIsNone(large_parts(StringTransport()))
        protocol = MongoProtocol()
        protocol.makeConnection(StringTransport())
        results: list[Any] = []
        protocol.send_msg(Msg(1, 0, PING), DEFAULT, None).addBoth(results.append)
        data = message({"ok": 1.0, "content": bytes(4 * PART)})
        for start in range(0, len(data), PART):
            protocol.dataReceived(data[start : start + PART])
        self.assertEqual(len(results), 1)


class MissingTests(SynchronousTestCase):
    def test_missing(self) -> None:
        """What is known to be missing: nothing before the length is known."""
        decoder = MongoProtocol()._decoder
        data = message({"content": bytes(100_000)})
        self.assertEqual(decoder.missing, 0)
        decoder.feed(data[:10])
        self.assertEqual(decoder.missing, 0)
        decoder.feed(data[10:100])
        self.assertEqual(decoder.missing, struct.unpack_from("<i", data)[0] - 100)
        self.assertEqual(len(decoder.feed(data[100:])), 1)
        self.assertEqual(decoder.missing, 0)


class LargeWriteTests(SocketCase):
    """Messages that are more than the socket takes at once."""

    def setUp(self) -> None:
        """Connect a protocol with a server that does not read yet."""
        super().setUp()
        self.wire = Msg(7, 0, bson.encode({"insert": "c", "$db": "d", "content": bytes(range(256)) * 8_000})).encode()
        msg = Msg(7, 0)
        msg.wire = self.wire
        self.reply = self.protocol.send_msg(msg, DEFAULT, None)

    def receive(self) -> bytes:
        """What the server reads while the reactor does with the socket what it does when it is writable."""
        received = b""
        writers = self.connection.reactor.getWriters()
        while select.select([self.server], [], [], 0)[0]:
            part = self.server.recv(1 << 20)
            if not part:
                break
            received += part
            if self.connection in writers:
                result = self.connection.doWrite()
                if result is not None:
                    self.connection.connectionLost(Failure(result))
            writers = self.connection.reactor.getWriters()
        return received

    def test_not_copied(self) -> None:
        """The transport is left the message itself and where to go on; what is sent next comes behind it."""
        self.assertIs(self.connection.dataBuffer, self.wire)
        self.protocol.send_msg(Msg(8, 0, PING), DEFAULT, None)
        received = self.receive()
        self.assertTrue(received == self.wire + Msg(8, 0, PING).encode())
        self.assertNoResult(self.reply)
        self.protocol.dataReceived(message(PONG, 7))
        self.assertEqual(self.successResultOf(self.reply), PONG)

    def test_closed(self) -> None:
        """A connection that is closed meanwhile sends it to its end."""
        self.protocol.close()
        self.assertTrue(self.receive() == self.wire)
        self.assertTrue(self.connection.disconnected)
        self.failureResultOf(self.reply, AutoReconnect)

    def test_lost(self) -> None:
        """If the server closes its end, the request fails as ever."""
        self.server.close()
        result = self.connection.doWrite()
        self.connection.connectionLost(Failure(result))
        self.failureResultOf(self.reply, AutoReconnect)

    def test_something_in_the_buffer(self) -> None:
        """What somebody else has left to the transport is never lost, nor is anything written to a lost one."""
        self.connection.dataBuffer = b"before"
        self.connection.offset = 0
        leave_rest(self.connection, b"12345", 3)
        self.assertEqual((self.connection.dataBuffer, self.connection._tempDataBuffer), (b"before", [b"45"]))
        self.connection.connectionLost(Failure(ConnectionLost()))
        self.connection.dataBuffer = b""
        leave_rest(self.connection, b"12345", 3)
        self.assertEqual(self.connection.dataBuffer, b"")
        self.failureResultOf(self.reply, AutoReconnect)
