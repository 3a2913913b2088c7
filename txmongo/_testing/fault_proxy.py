"""A TCP proxy that makes a network misbehave: it drops, refuses, delays, throttles, cuts and swallows."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet import defer, endpoints, interfaces, protocol
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txmongo._deferreds import Broadcast
from txmongo._testing.memory import MemoryEndpoint

#: Bytes that may wait in the proxy in each direction of a connection before nothing more is read from the sender.
_MUCH: Final = 1 << 20
#: Seconds' worth of bytes that a throttled direction lets through at once.
_SLICE: Final = 0.05


class Direction(enum.Flag):
    """Which way bytes go."""

    #: From the client to the server.
    TO_SERVER = enum.auto()
    #: From the server to the client.
    TO_CLIENT = enum.auto()
    #: Both of these.
    BOTH = TO_SERVER | TO_CLIENT


class FaultProxy:
    """A TCP proxy between a client and a server, for tests of what a driver does when the network fails.

    .. code-block:: python

        proxy = FaultProxy(reactor, "127.0.0.1", mongod.port)
        await proxy.start()
        client = ConnectionPool(proxy.uri)
        ...
        proxy.black_hole()  # from now on nothing gets through, and nobody is told
        ...
        proxy.heal()
        ...
        await proxy.stop()

    Faults add up, hold for the connections that there are and for new ones, and last until :meth:`heal`. Without any it
    passes everything on. A connection that is closed on one side is closed on the other, after the bytes that came
    before have got through, in an orderly manner or not as it was on the first.

    Bytes are never lost, but with their connection: what was held back arrives later, as TCP would do it. In each
    direction of a connection at most about 1 MiB is held; then the sender has to wait.

    A member of a replica set is known to its client by the address in the set's configuration. To have a proxy before
    it, give the proxy's address there, or give the client an ``endpoint_for`` that leads to the proxy.

    :param reactor: the reactor, or a clock for tests in memory.
    :param host: where the server is.
    :param port: where the server is.
    :param target: the server's endpoint, in place of host and port.
    """

    def __init__(
        self,
        reactor: Any,
        host: str = "127.0.0.1",
        port: int = 27017,
        *,
        target: interfaces.IStreamClientEndpoint | None = None,
    ) -> None:
        #: How many connections there have been, those refused included.
        self.accepted = 0
        self._reactor = reactor
        self._target = target or endpoints.TCP4ClientEndpoint(reactor, host, port)
        self._faults = {Direction.TO_SERVER: _Faults(), Direction.TO_CLIENT: _Faults()}
        self._refusing = False
        self._pairs: list[_Pair] = []
        self._pair_gone = Broadcast()
        self._port: Any = None
        self._address: tuple[str, int] | None = None

    def __repr__(self) -> str:
        said = [f"{len(self._pairs)} connections"]
        if self._refusing:
            said.append("refusing")
        for direction, faults in self._faults.items():
            said += (f"{direction.name} {fault}" for fault in faults.describe())
        return f"<FaultProxy {', '.join(said)}>"

    # --- its life ---

    def start(self, *, interface: str = "127.0.0.1", port: int = 0) -> defer.Deferred[FaultProxy]:
        """Listen on the loopback interface; after a :meth:`stop`, on the same port as before.

        :param interface: the address to listen on.
        :param port: a free one if not given.
        :returns: a Deferred that fires with this proxy. It fails with ``CannotListenError`` if the port is in use.
        """
        if self._address is not None:
            interface, port = self._address

        def listening(port: Any) -> FaultProxy:
            self._port = port
            there = port.getHost()
            self._address = there.host, there.port
            return self

        factory = protocol.Factory.forProtocol(self._accept)
        server = endpoints.TCP4ServerEndpoint(self._reactor, port, interface=interface)
        here: defer.Deferred[Any] = server.listen(factory)
        return here.addCallback(listening)

    def stop(self) -> defer.Deferred[None]:
        """Stop listening and cut every connection.

        :returns: a Deferred that fires with ``None`` when nothing of it is left in the reactor; it does not fail.
        """
        port, self._port = self._port, None
        stopped: defer.Deferred[Any] = defer.succeed(None)
        if port is not None:
            stopped = defer.maybeDeferred(port.stopListening)
        self.drop()
        return stopped.addCallback(lambda _: self._all_gone())

    def _all_gone(self) -> Any:
        if self._pairs:
            return self._pair_gone.wait().addCallback(lambda _: self._all_gone())
        return None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, or last did.

        :raises ValueError: it was never started.
        """
        if self._address is None:
            raise ValueError("the proxy was not started yet")
        return self._address

    @property
    def uri(self) -> str:
        """A connection string for the server behind it."""
        host, port = self.address
        return f"mongodb://{host}:{port}/"

    @property
    def connections(self) -> int:
        """How many connections there are through it, those included that are just being closed."""
        return len(self._pairs)

    def endpoint(self, clock: interfaces.IReactorTime) -> interfaces.IStreamClientEndpoint:
        """An endpoint that connects to it in memory.

        :param clock: carries the bytes.
        """
        return MemoryEndpoint(clock, self._accept)

    def _accept(self) -> protocol.Protocol:
        self.accepted += 1
        return _Pair(self).client

    # --- faults ---

    def drop(self) -> None:
        """Cut every connection at once, on both sides, with whatever is on its way; new ones are accepted."""
        for pair in list(self._pairs):
            pair.cut()

    def refuse(self) -> None:
        """Cut every new connection as soon as it is made; those that there are go on."""
        self._refusing = True

    def delay(self, seconds: float, direction: Direction = Direction.BOTH) -> None:
        """Pass everything on only after some time.

        :param seconds: how long each byte takes in each of the directions.
        :param direction: to the server, to the client, or both.
        """
        for faults in self._of(direction):
            faults.delay = seconds

    def throttle(self, bytes_per_second: float, direction: Direction = Direction.BOTH) -> None:
        """Pass bytes on slowly, through each connection and each of the directions.

        :param bytes_per_second: how many at most.
        :param direction: to the server, to the client, or both.
        """
        for faults in self._of(direction):
            faults.rate = bytes_per_second

    def black_hole(self, direction: Direction = Direction.BOTH) -> None:
        """Pass nothing on, not even that a connection was closed; connections stay open and new ones can be made.

        That is how a network looks that was cut, or a machine that lost its power.

        :param direction: to the server, to the client, or both.
        """
        for faults in self._of(direction):
            faults.held = True

    def cut_after(self, count: int, direction: Direction = Direction.TO_CLIENT, *, connections: int = 1) -> None:
        """Close a connection as soon as some bytes more have gone through it, in the middle of a message.

        :param count: how many are still let through, counted for each connection from now on.
        :param direction: in which they go.
        :param connections: how many connections meet with that, the first ones to get so far.
        """
        for faults in self._of(direction):
            faults.cut = _Cut(count, connections)

    def heal(self) -> None:
        """Undo all faults. What was held back gets through at once."""
        self._refusing = False
        for direction in self._faults:
            self._faults[direction] = _Faults()
        for pair in list(self._pairs):
            pair.heal()

    def _of(self, direction: Direction) -> Iterator[_Faults]:
        return (faults for each, faults in self._faults.items() if each in direction)


class _Cut:
    """That connections are to be cut after some bytes.

    :ivar left: how many still are.
    """

    __slots__ = ("count", "left")

    def __init__(self, count: int, connections: int) -> None:
        self.count = count
        self.left = connections


class _Faults:
    """What goes wrong in one direction."""

    __slots__ = ("cut", "delay", "held", "rate")

    def __init__(self) -> None:
        self.delay = 0.0
        self.rate: float | None = None
        self.held = False
        self.cut: _Cut | None = None

    def describe(self) -> Iterator[str]:
        """The faults in words."""
        if self.held:
            yield "black hole"
        if self.delay:
            yield f"delay {self.delay} s"
        if self.rate is not None:
            yield f"{self.rate} bytes/s"
        if self.cut is not None and self.cut.left:
            yield f"cut after {self.cut.count} bytes"


class _Side(protocol.Protocol):
    """One end of the proxied connection: the client's or the server's.

    :ivar flow: where what it receives goes.
    """

    flow: _Flow

    def __init__(self, pair: _Pair) -> None:
        self._pair = pair

    def connectionMade(self) -> None:
        self._pair.made(self)

    def dataReceived(self, data: bytes) -> None:
        self.flow.feed(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.connected = 0
        self._pair.lost(self, reason)

    def abort(self) -> None:
        """Cut it, if it is there."""
        if self.connected:
            self.transport.abortConnection()  # type: ignore[union-attr]


class _Pair:
    """A client's connection to the proxy and the proxy's to the server."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.client = _Side(self)
        self.server = _Side(self)
        self.client.flow = _Flow(self, Direction.TO_SERVER, self.client, self.server)
        self.server.flow = _Flow(self, Direction.TO_CLIENT, self.server, self.client)
        self._connecting: defer.Deferred[Any] | None = None
        #: Its end is decided: nothing is passed on any more.
        self._over = False

    def made(self, side: _Side) -> None:
        """One of the two connections was made, the client's first."""
        if side is self.server:
            self._connecting = None
            if self._over:
                side.abort()
            else:
                self.client.flow.run()
            return
        self.proxy._pairs.append(self)
        if self.proxy._refusing:
            self.cut()
            return
        factory = protocol.Factory.forProtocol(lambda: self.server)
        self._connecting = self.proxy._target.connect(factory)
        self._connecting.addErrback(self._not_connected)

    def _not_connected(self, _failure: Failure) -> None:
        self._connecting = None
        self.cut()
        self._forget_if_gone()

    def heal(self) -> None:
        """Pass on what was held back."""
        for side in (self.client, self.server):
            side.flow.hurry()

    def lost(self, side: _Side, reason: Failure) -> None:
        """One of the two is gone: the other one follows, once what came before has got through."""
        side.flow.close(orderly=reason.check(ConnectionDone) is not None)
        self._forget_if_gone()

    def cut(self) -> None:
        """Cut both at once."""
        self._over = True
        for side in (self.client, self.server):
            side.flow.stop()
            side.abort()
        if self._connecting is not None:
            self._connecting.cancel()

    def end(self, closed: _Side, other: _Side, *, orderly: bool) -> None:
        """Close the other one after the one that was closed, or of both what remains."""
        self._over = True
        for side in (self.client, self.server):
            side.flow.stop()
        closed.abort()
        if orderly and other.connected:
            other.transport.loseConnection()  # type: ignore[union-attr]
        else:
            other.abort()
        if self._connecting is not None:
            self._connecting.cancel()

    def _forget_if_gone(self) -> None:
        gone = not self.client.connected and not self.server.connected and self._connecting is None
        if gone and self in self.proxy._pairs:
            self.proxy._pairs.remove(self)
            self.proxy._pair_gone.fire()


@implementer(interfaces.IPushProducer)
class _Flow:
    """What goes one way through one connection."""

    def __init__(self, pair: _Pair, direction: Direction, source: _Side, sink: _Side) -> None:
        self._pair = pair
        self._direction = direction
        self._source = source
        self._sink = sink
        #: When something may be passed on, and what: bytes, or at last whether the sender closed in an orderly manner.
        self._queue: deque[tuple[float, bytes | bool]] = deque()
        self._waiting = 0
        self._last_due = 0.0
        self._call: interfaces.IDelayedCall | None = None
        self._cut: _Cut | None = None
        self._before_cut = 0
        self._stopped = False
        self._registered = False
        self._sink_is_full = False
        self._source_is_paused = False

    @property
    def _faults(self) -> _Faults:
        return self._pair.proxy._faults[self._direction]

    def _now(self) -> float:
        return float(self._pair.proxy._reactor.seconds())

    # --- what comes in ---

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        if self._stopped:
            return
        faults = self._faults
        if faults.rate is None:
            self._put(data, self._now() + faults.delay)
        else:
            size = max(1, int(faults.rate * _SLICE))
            for start in range(0, len(data), size):
                piece = data[start : start + size]
                earliest = max(self._now() + faults.delay, self._last_due)
                self._put(piece, earliest + len(piece) / faults.rate)
        self.run()

    def close(self, *, orderly: bool) -> None:
        """The sender is gone."""
        if self._stopped:
            return
        self._put(orderly, self._now() + self._faults.delay)
        self.run()

    def _put(self, what: bytes | bool, due: float) -> None:
        self._last_due = due = max(due, self._last_due)
        self._queue.append((due, what))
        if isinstance(what, bytes):
            self._waiting += len(what)

    # --- what goes out ---

    def hurry(self) -> None:
        """Let what waits wait no longer."""
        self._last_due = 0.0
        self._queue = deque((0.0, what) for _, what in self._queue)
        self.run()

    def run(self) -> None:
        """Pass on what is due."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        while self._queue and not self._stopped and not self._faults.held:
            due, what = self._queue[0]
            if isinstance(what, bytes) and not self._sink.connected:
                break
            wait = due - self._now()
            if wait > 0:
                self._call = self._pair.proxy._reactor.callLater(wait, self._due)
                break
            self._queue.popleft()
            if isinstance(what, bytes):
                self._waiting -= len(what)
                self._pass_on(what)
            else:
                self._pair.end(self._source, self._sink, orderly=what)
        self._pause_or_resume()

    def _due(self) -> None:
        self._call = None
        self.run()

    def _pass_on(self, data: bytes) -> None:
        self._register()
        cut = self._faults.cut
        if cut is None or not cut.left:
            self._write(data)
            return
        if cut is not self._cut:
            self._cut = cut
            self._before_cut = cut.count
        self._write(data[: self._before_cut])
        self._before_cut -= len(data)
        if self._before_cut <= 0:
            cut.left -= 1
            self._pair.end(self._source, self._sink, orderly=True)

    def _write(self, data: bytes) -> None:
        if data:
            self._sink.transport.write(data)  # type: ignore[union-attr]

    def stop(self) -> None:
        """Pass nothing on any more."""
        self._stopped = True
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._registered:
            self._registered = False
            if self._sink.connected:
                self._sink.transport.unregisterProducer()  # type: ignore[union-attr]

    # --- not too much at once ---

    def _register(self) -> None:
        """Have the receiver's transport say when it has enough; one in memory never does."""
        if not self._registered and interfaces.IConsumer.providedBy(self._sink.transport):
            self._registered = True
            self._sink.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """The receiver has enough for now."""
        self._sink_is_full = True
        self._pause_or_resume()

    def resumeProducing(self) -> None:
        """The receiver can take more."""
        self._sink_is_full = False
        self._pause_or_resume()

    def stopProducing(self) -> None:
        """The receiver is gone; that is heard of elsewhere too."""

    def _pause_or_resume(self) -> None:
        pause = self._sink_is_full or self._waiting > _MUCH
        transport: Any = self._source.transport
        if pause is self._source_is_paused or not interfaces.IPushProducer.providedBy(transport):
            return
        self._source_is_paused = pause
        if self._source.connected:
            (transport.pauseProducing if pause else transport.resumeProducing)()
