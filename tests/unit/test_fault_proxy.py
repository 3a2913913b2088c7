"""``txmongo.testing.FaultProxy`` in memory, on a fake clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmongo._testing.fault_proxy import Direction, FaultProxy
from txmongo._testing.memory import MemoryEndpoint


class Peer(Protocol):
    """One who talks through the proxy: a client, or a server that the tests play."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: str | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = "orderly" if reason.check(ConnectionDone) else "cut"

    def say(self, data: bytes) -> None:
        """Send something."""
        assert self.transport is not None
        self.transport.write(data)


class Distant:
    """A server that is reached only when the tests say so."""

    def __init__(self) -> None:
        self.connecting: Deferred[Any] = Deferred(self.cancelled)
        self.factory: Any = None
        self.is_cancelled = False

    def connect(self, factory: Any) -> Deferred[Any]:
        """Remember who wants to connect."""
        self.factory = factory
        return self.connecting

    def cancelled(self, _deferred: Deferred[Any]) -> None:
        """Nobody wants to any more."""
        self.is_cancelled = True


class FaultProxyTests(SynchronousTestCase):
    """What gets through."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.servers: list[Peer] = []
        self.proxy = FaultProxy(self.clock, target=MemoryEndpoint(self.clock, self.accept))

    def accept(self) -> Peer:
        """A connection reaches the server."""
        self.servers.append(Peer())
        return self.servers[-1]

    def connect(self) -> Peer:
        """A client connects."""
        connecting: Deferred[Any] = self.proxy.endpoint(self.clock).connect(Factory.forProtocol(Peer))
        self.turn()
        client: Peer = self.successResultOf(connecting)
        return client

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and what is on its way in memory arrive."""
        self.clock.advance(0)
        self.clock.advance(seconds)
        self.clock.advance(0)

    def pair(self) -> tuple[Peer, Peer]:
        """A client and the server's end of its connection."""
        client = self.connect()
        return client, self.servers[-1]

    def test_passes_on(self) -> None:
        """Without a fault all is passed on, both ways."""
        client, server = self.pair()
        client.say(b"question")
        server.say(b"answer")
        self.turn()
        self.assertEqual((server.received, client.received), (b"question", b"answer"))
        self.assertEqual((self.proxy.accepted, self.proxy.connections), (1, 1))
        self.assertEqual(repr(self.proxy), "<FaultProxy 1 connections>")

    def distant(self) -> tuple[Peer, Distant]:
        """A client whose connection has not reached the server yet."""
        server: Any = Distant()
        self.proxy = FaultProxy(self.clock, target=server)
        return self.connect(), server

    def test_speaks_first(self) -> None:
        """What a client says before the server is reached is not lost, even if it leaves then."""
        client, server = self.distant()
        client.say(b"early")
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.turn()
        transport = StringTransport()
        server.factory.buildProtocol(None).makeConnection(transport)
        self.assertEqual((transport.value(), transport.disconnecting), (b"early", True))

    def test_closed_by_either(self) -> None:
        """A close on one side reaches the other in the same manner, after the bytes before it."""
        for closer in (0, 1):
            for orderly in (True, False):
                peers = self.pair()
                transport: Any = peers[closer].transport
                if orderly:
                    peers[closer].say(b"bye")
                    transport.loseConnection()
                else:
                    transport.abortConnection()
                self.turn()
                self.assertEqual(peers[1 - closer].received, b"bye" if orderly else b"")
                self.assertEqual(peers[1 - closer].closed, "orderly" if orderly else "cut")
        self.assertEqual(self.proxy.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_server(self) -> None:
        """If the server cannot be reached the client is cut off."""
        refused = MemoryEndpoint(self.clock, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        self.proxy = FaultProxy(self.clock, target=refused)
        client = self.connect()
        self.assertEqual((client.closed, self.proxy.connections), ("cut", 0))

    def test_client_gone_early(self) -> None:
        """A client that leaves without a word before the server is reached takes the connection along."""
        for orderly in (True, False):
            client, server = self.distant()
            transport: Any = client.transport
            (transport.loseConnection if orderly else transport.abortConnection)()
            self.turn()
            self.assertEqual((server.is_cancelled, self.proxy.connections), (True, 0))

    def test_not_to_be_stopped(self) -> None:
        """A connection to the server that comes although it is not wanted any more is cut."""
        client, server = self.distant()
        server.connecting = Deferred()
        self.proxy.drop()
        transport = StringTransport()
        server.factory.buildProtocol(None).makeConnection(transport)
        self.turn()
        self.assertEqual((client.closed, transport.disconnected), ("cut", True))

    # --- faults ---

    def test_drop(self) -> None:
        """Dropping cuts both sides, with what is on its way, and lets new connections through."""
        self.proxy.delay(1.0)
        client, server = self.pair()
        client.say(b"lost")
        self.turn()
        self.proxy.drop()
        self.turn()
        self.assertEqual((client.closed, server.closed, server.received), ("cut", "cut", b""))
        self.assertEqual((self.proxy.connections, self.clock.getDelayedCalls()), (0, []))
        self.assertIsNone(self.connect().closed)

    def test_refuse(self) -> None:
        """Refusing cuts new connections only, until it is healed."""
        old, _ = self.pair()
        self.proxy.refuse()
        self.assertIn("refusing", repr(self.proxy))
        self.assertEqual(self.connect().closed, "cut")
        self.assertIsNone(old.closed)
        self.assertEqual((self.proxy.accepted, len(self.servers)), (2, 1))
        self.proxy.heal()
        self.assertIsNone(self.connect().closed)

    def test_delay(self) -> None:
        """A delay holds for each byte, in the directions that it was asked for."""
        client, server = self.pair()
        self.proxy.delay(1.0, Direction.TO_SERVER)
        self.assertIn("TO_SERVER delay 1.0 s", repr(self.proxy))
        client.say(b"one")
        server.say(b"back")
        self.turn(0.5)
        client.say(b"two")
        self.turn()
        self.assertEqual((server.received, client.received), (b"", b"back"))
        self.turn(0.5)
        self.assertEqual(server.received, b"one")
        self.turn(0.5)
        self.assertEqual(server.received, b"onetwo")

    def test_order(self) -> None:
        """A smaller delay does not let later bytes overtake earlier ones."""
        client, server = self.pair()
        self.proxy.delay(1.0)
        client.say(b"one")
        self.turn()
        self.proxy.delay(0.0)
        client.say(b"two")
        self.turn()
        self.assertEqual(server.received, b"")
        self.turn(1.0)
        self.assertEqual(server.received, b"onetwo")

    def test_delayed_close(self) -> None:
        """A close takes as long as bytes do."""
        client, server = self.pair()
        self.proxy.delay(1.0)
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.turn(0.9)
        self.assertIsNone(server.closed)
        self.turn(0.1)
        self.assertEqual(server.closed, "orderly")

    def test_throttle(self) -> None:
        """A throttled direction lets bytes through at its rate."""
        client, server = self.pair()
        self.proxy.throttle(100, Direction.TO_SERVER)
        self.assertIn("100 bytes/s", repr(self.proxy))
        client.say(b"x" * 100)
        self.turn(0.49)
        self.assertEqual(len(server.received), 45)
        self.turn(0.49)
        self.assertEqual(len(server.received), 95)
        client.say(b"y")
        self.turn(0.03)
        self.assertEqual(len(server.received), 100)
        self.turn(0.01)
        self.assertEqual(len(server.received), 101)

    def test_very_slow(self) -> None:
        """Less than a byte in a while is a byte at a time."""
        client, server = self.pair()
        self.proxy.throttle(1)
        client.say(b"ab")
        self.turn(1.0)
        self.assertEqual(server.received, b"a")
        self.turn(1.0)
        self.assertEqual(server.received, b"ab")

    def test_black_hole(self) -> None:
        """Nothing comes out of a black hole, not even a close; afterwards all of it does."""
        client, server = self.pair()
        self.proxy.black_hole()
        self.assertIn("black hole", repr(self.proxy))
        client.say(b"question")
        server.say(b"answer")
        new = self.connect()
        new.say(b"anyone?")
        new.transport.loseConnection()  # type: ignore[union-attr]
        self.turn(1000.0)
        self.assertEqual((server.received, client.received), (b"", b""))
        self.assertEqual((self.servers[1].received, self.servers[1].closed), (b"", None))
        self.proxy.heal()
        self.turn()
        self.assertEqual((server.received, client.received), (b"question", b"answer"))
        self.assertEqual((self.servers[1].received, self.servers[1].closed), (b"anyone?", "orderly"))
        self.assertEqual(repr(self.proxy), "<FaultProxy 1 connections>")

    def test_black_hole_one_way(self) -> None:
        """A black hole in one direction swallows the answers only."""
        client, server = self.pair()
        self.proxy.black_hole(Direction.TO_CLIENT)
        client.say(b"question")
        server.say(b"answer")
        self.turn()
        self.assertEqual((server.received, client.received), (b"question", b""))

    def test_black_hole_swallows_what_is_on_its_way(self) -> None:
        """What was delayed when the black hole came is in it."""
        client, server = self.pair()
        self.proxy.delay(1.0)
        client.say(b"late")
        self.turn()
        self.proxy.black_hole()
        self.turn(5.0)
        self.assertEqual(server.received, b"")
        self.proxy.heal()
        self.turn()
        self.assertEqual(server.received, b"late")

    def test_both_gone(self) -> None:
        """What was said to one who left meanwhile is dropped with the connection."""
        client, server = self.pair()
        self.proxy.black_hole()
        server.say(b"answer")
        self.turn()
        client.transport.abortConnection()  # type: ignore[union-attr]
        self.turn()
        self.assertEqual(self.proxy.connections, 1)
        self.proxy.heal()
        self.turn()
        self.assertEqual((self.proxy.connections, server.closed), (0, "cut"))

    def test_cut(self) -> None:
        """A cut lets so many bytes through and then closes the connection; the next one is not cut."""
        client, server = self.pair()
        self.proxy.cut_after(6)
        self.assertIn("TO_CLIENT cut after 6 bytes", repr(self.proxy))
        client.say(b"any number of bytes")
        server.say(b"abcd")
        self.turn()
        self.assertIsNone(client.closed)
        server.say(b"efgh")
        self.turn()
        self.assertEqual((client.received, client.closed, server.closed), (b"abcdef", "orderly", "cut"))
        client, server = self.pair()
        server.say(b"abcdefgh")
        self.turn()
        self.assertEqual((client.received, client.closed), (b"abcdefgh", None))
        self.assertEqual(repr(self.proxy), "<FaultProxy 1 connections>")

    def test_cut_several(self) -> None:
        """So many connections are cut as were asked for, each by its own count; at 0 nothing gets through."""
        pairs = [self.pair() for _ in range(3)]
        self.proxy.cut_after(0, Direction.TO_SERVER, connections=2)
        for client, _ in pairs:
            client.say(b"x")
            self.turn()
        self.assertEqual([server.received for _, server in pairs], [b"", b"", b"x"])
        self.assertEqual([server.closed for _, server in pairs], ["orderly", "orderly", None])

    # --- its life ---

    def test_stop(self) -> None:
        """Stopping waits for every connection; the address is only known after a start."""
        client, server = self.pair()
        another, _ = self.pair()
        stopping = self.proxy.stop()
        self.assertNoResult(stopping)
        self.turn()
        self.assertIsNone(self.successResultOf(stopping))
        self.assertEqual((client.closed, server.closed, another.closed), ("cut", "cut", "cut"))
        self.assertIsNone(self.successResultOf(self.proxy.stop()))
        self.assertRaises(ValueError, lambda: self.proxy.address)

    def test_stop_while_connecting(self) -> None:
        """Stopping gives up connections to the server that are being made."""
        _, server = self.distant()
        stopping = self.proxy.stop()
        self.turn()
        self.successResultOf(stopping)
        self.assertEqual((server.is_cancelled, self.clock.getDelayedCalls()), (True, []))

    def test_cancelled_connect(self) -> None:
        """A client may change its mind."""
        connecting: Deferred[Any] = self.proxy.endpoint(self.clock).connect(Factory.forProtocol(Peer))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.proxy.accepted, 0)


class BackPressureTests(SynchronousTestCase):
    """Not too much is held, with transports that can be told to wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.near, self.far = StringTransport(), StringTransport()
        self.proxy = FaultProxy(self.clock, target=self)  # type: ignore[arg-type]
        self.client: Any = self.proxy._accept()
        self.client.makeConnection(self.near)

    def connect(self, factory: Any) -> Deferred[Any]:
        """The server is reached at once."""
        self.server = factory.buildProtocol(None)
        connected: Deferred[Any] = Deferred()
        self.server.makeConnection(self.far)
        connected.callback(self.server)
        return connected

    def test_held_back(self) -> None:
        """A sender has to wait once much is held, and goes on when it is not."""
        self.proxy.black_hole()
        self.client.dataReceived(b"x" * (1 << 20))
        self.assertEqual(self.near.producerState, "producing")
        self.client.dataReceived(b"x")
        self.assertEqual(self.near.producerState, "paused")
        self.proxy.heal()
        self.assertEqual(self.near.producerState, "producing")
        self.assertEqual(len(self.far.value()), (1 << 20) + 1)

    def test_slow_receiver(self) -> None:
        """A sender has to wait while the receiver cannot take more."""
        self.client.dataReceived(b"x")
        producer: Any = self.far.producer
        producer.pauseProducing()
        self.assertEqual(self.near.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(self.near.producerState, "producing")
        producer.stopProducing()

    def test_unregistered(self) -> None:
        """Before the receiver's connection is closed nobody produces for it any more."""
        self.client.dataReceived(b"x")
        self.client.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(self.far.producer)
        self.assertTrue(self.far.disconnecting)

    def test_bytes_after_the_cut(self) -> None:
        """Bytes that come to a connection whose end is decided are nobody's."""
        self.proxy.drop()
        self.client.dataReceived(b"late")
        self.assertEqual((self.far.value(), self.far.disconnected), (b"", True))

    def test_receiver_gone(self) -> None:
        """One that is gone is not told."""
        self.client.dataReceived(b"x")
        producer: Any = self.far.producer
        self.client.connected = 0
        producer.pauseProducing()
        self.assertEqual(self.near.producerState, "producing")
        self.server.connectionLost(Failure(ConnectionDone()))
        self.assertIs(self.far.producer, producer)
