"""``txmongo.testing.FaultProxy`` on the loopback interface, before a scripted server."""

from __future__ import annotations

import gc
import warnings
from typing import Any

from twisted.internet import defer, endpoints, reactor
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from txmongo._testing.fault_proxy import Direction, FaultProxy
from txmongo.errors import AutoReconnect
from txmongo.protocol import MongoProtocol
from txmongo.testing import FakeServer

HALF_MEGABYTE = "x" * 500_000


class FaultProxyTests(TestCase):
    """Commands through it."""

    timeout = 60

    async def setUp(self) -> None:
        self.server = FakeServer({"echo": lambda command: {"document": command["document"]}})
        await self.server.listen(reactor)
        self.addCleanup(self.server.stop)
        host, port = self.server.address
        self.proxy = FaultProxy(reactor, host, port)
        await self.proxy.start()
        self.addCleanup(self.proxy.stop)

    async def connect(self) -> MongoProtocol:
        """A connection through the proxy."""
        host, port = self.proxy.address
        endpoint = endpoints.TCP4ClientEndpoint(reactor, host, port)
        protocol: MongoProtocol = await endpoint.connect(Factory.forProtocol(MongoProtocol))
        self.addCleanup(protocol.abort, AutoReconnect("the test is over"))
        return protocol

    def echo(self, protocol: MongoProtocol, document: Any) -> defer.Deferred[Any]:
        """Have a document sent back."""
        deferred = protocol.command("db", {"echo": 1, "document": document})
        return deferred.addCallback(lambda reply: reply["document"])

    async def fails(self, deferred: defer.Deferred[Any]) -> None:
        """The connection is lost."""
        await self.assertFailure(deferred, AutoReconnect)

    async def pause(self) -> None:
        """A moment."""
        await deferLater(reactor, 0.1)

    async def test_passes_on(self) -> None:
        """Small and large messages get through in both directions, on several connections."""
        self.assertEqual(self.proxy.uri, "mongodb://{}:{}/".format(*self.proxy.address))
        protocols = [await self.connect() for _ in range(3)]
        for document in ("small", HALF_MEGABYTE * 8):
            echoes = await defer.gatherResults([self.echo(protocol, document) for protocol in protocols])
            self.assertEqual(echoes, [document] * 3)
        self.assertEqual((self.proxy.connections, self.proxy.accepted), (3, 3))

    async def test_drop(self) -> None:
        """Dropped connections fail at once; new ones work."""
        protocol = await self.connect()
        await self.echo(protocol, 1)
        self.proxy.black_hole()
        waiting = self.echo(protocol, 2)
        self.proxy.drop()
        await self.fails(waiting)
        self.proxy.heal()
        self.assertEqual(await self.echo(await self.connect(), 3), 3)

    async def test_refuse(self) -> None:
        """Refused connections are closed as soon as they are made."""
        self.proxy.refuse()
        await self.fails(self.echo(await self.connect(), 1))

    async def test_cut(self) -> None:
        """A reply that is cut in the middle is no reply."""
        protocol = await self.connect()
        await self.echo(protocol, 1)
        self.proxy.cut_after(100_000)
        await self.fails(self.echo(protocol, HALF_MEGABYTE))
        self.assertEqual(len(self.server.commands("echo")), 2)
        self.assertEqual(await self.echo(await self.connect(), 3), 3)

    async def test_black_hole(self) -> None:
        """What fell into a black hole comes out when it is healed, megabytes too."""
        protocol = await self.connect()
        self.proxy.black_hole(Direction.TO_CLIENT)
        echoes = [self.echo(protocol, HALF_MEGABYTE) for _ in range(8)]
        await self.pause()
        self.assertFalse(any(echo.called for echo in echoes))
        self.proxy.heal()
        self.assertEqual(await defer.gatherResults(echoes), [HALF_MEGABYTE] * 8)

    async def test_slow(self) -> None:
        """A delay and a rate make a command take its time."""
        protocol = await self.connect()
        await self.echo(protocol, 1)
        self.proxy.delay(0.1)
        started = reactor.seconds()
        await self.echo(protocol, 2)
        self.assertGreaterEqual(reactor.seconds() - started, 0.19)
        self.proxy.delay(0.0)
        self.proxy.throttle(2_000_000)
        started = reactor.seconds()
        self.assertEqual(await self.echo(protocol, HALF_MEGABYTE), HALF_MEGABYTE)
        self.assertGreaterEqual(reactor.seconds() - started, 0.45)

    async def test_stop_and_start(self) -> None:
        """A stopped proxy refuses connections; started again it is where it was."""
        address = self.proxy.address
        protocol = await self.connect()
        await self.echo(protocol, 1)
        await self.proxy.stop()
        self.assertEqual(self.proxy.connections, 0)
        await self.assertFailure(defer.Deferred.fromCoroutine(self.connect()), ConnectionRefusedError)
        await self.proxy.start()
        self.assertEqual(self.proxy.address, address)
        self.assertEqual(await self.echo(await self.connect(), 2), 2)

    async def test_port_taken(self) -> None:
        """It says so if it cannot listen."""
        other = FaultProxy(reactor)
        await self.assertFailure(other.start(port=self.proxy.address[1]), CannotListenError)
        # The oldest Twisted leaves the socket open, to be found by the garbage collector in some later test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    async def test_no_server(self) -> None:
        """Without a server the client's connection is closed."""
        await self.server.stop()
        await self.fails(self.echo(await self.connect(), 1))
