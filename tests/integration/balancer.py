"""Something that looks like a load balancer of MongoDB's: it takes connections and leads each of them to a server.

Where nothing of it may be in the reactor between two cases it runs in a process of its own: :class:`BalancerProcess`.

A mongod does not answer as a mongos behind such a balancer does, so some messages are changed on their way. What asks
for the balancer is taken out of the greeting, whose answer names a service; answers in transactions have a
``recoveryToken``. All else passes through as it is.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from pathlib import Path
from typing import Any

import bson
from bson.objectid import ObjectId
from twisted.internet import defer, endpoints, error, protocol, reactor
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from txmongo._deferreds import Broadcast
from txmongo._wire.decoder import Decoder, Frame, decode_message
from txmongo._wire.op_msg import Msg

__all__ = ["Balancer", "BalancerProcess"]


RECOVERY_TOKEN = {"recoveryToken": {"recoveryShardId": "the only one"}}


class Balancer:
    """Leads connections to servers, each to the next one in turn.

    :param reactor: the reactor.
    :param servers: the servers' addresses; each is a service with an id of its own, also where one is named twice.
    """

    def __init__(self, reactor: Any, servers: list[tuple[str, int]]) -> None:
        self._reactor = reactor
        self._services = [(server, ObjectId()) for server in servers]
        self._turn = 0
        self._port: Any = None
        self._ways: set[_Front] = set()

    async def start(self) -> Balancer:
        """Listen on a free port."""
        here = endpoints.TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
        self._port = await here.listen(protocol.Factory.forProtocol(lambda: _Front(self)))  # type: ignore[arg-type]
        return self

    async def stop(self) -> None:
        """Cut all connections and listen no more."""
        port, self._port = self._port, None
        if port is not None:
            await defer.maybeDeferred(port.stopListening)
        await defer.gatherResults([way.cut() for way in list(self._ways)])

    @property
    def uri(self) -> str:
        """A connection string for it."""
        there = self._port.getHost()
        return f"mongodb://{there.host}:{there.port}/?loadBalanced=true"

    def next_service(self) -> tuple[tuple[str, int], ObjectId]:
        """The server whose turn it is, and its id as a service."""
        self._turn += 1
        return self._services[self._turn % len(self._services)]


class BalancerProcess:
    """One that runs by itself, until it is stopped or this process ends.

    :ivar uri: a connection string for it.
    """

    def __init__(self, servers: list[tuple[str, int]]) -> None:
        command = [sys.executable, "-m", __name__, *(f"{host}:{port}" for host, port in servers)]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.uri = self._process.stdout.readline().strip()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End it; it ends as well when its input does."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class _End(protocol.Protocol):
    """One of the two connections of a way."""

    def __init__(self) -> None:
        self.other: _End | None = None
        self.decoder = Decoder()
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        for frame in self.decoder.feed(data):
            self.pass_on(self.changed(frame))

    def pass_on(self, frame: Frame) -> None:
        """Send a message to the other side."""
        assert self.other is not None
        self.other.transport.write(bytes(frame))  # type: ignore[union-attr]

    def changed(self, frame: Frame) -> Frame:
        """A message as the other side is to see it."""
        raise NotImplementedError

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abortConnection()
        self.lost = True


class _Front(_End):
    """The client's connection."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self.balancer = balancer
        #: What is added to the answers that are still to come, by the ids of the requests.
        self.additions: dict[int, dict[str, Any]] = {}
        self._early: list[Frame] = []
        self._connecting: Any = None
        self._gone = Broadcast()
        self.server, self.service = balancer.next_service()

    def connectionMade(self) -> None:
        self.balancer._ways.add(self)
        there = endpoints.TCP4ClientEndpoint(self.balancer._reactor, *self.server)
        self._connecting = there.connect(protocol.Factory.forProtocol(lambda: _Back(self)))  # type: ignore[arg-type]
        self._connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, back: _End) -> None:
        self.other = back
        early, self._early = self._early, []
        for frame in early:
            self.pass_on(frame)

    def _not_connected(self, failure: Failure) -> None:
        failure.trap(error.ConnectError, error.ConnectingCancelledError, defer.CancelledError)
        self.transport.abortConnection()  # type: ignore[union-attr]

    def pass_on(self, frame: Frame) -> None:
        if self.other is None:
            self._early.append(frame)
        else:
            super().pass_on(frame)

    def changed(self, frame: Frame) -> Frame:
        """Without what asks for a load balancer."""
        message = decode_message(frame)
        if not isinstance(message, Msg):
            return frame
        command = bson.decode(message.body)
        if "autocommit" in command:
            self.additions[message.request_id] = RECOVERY_TOKEN
        if next(iter(command)) != "hello":
            return frame
        self.additions[message.request_id] = {"serviceId": self.service}
        command.pop("loadBalanced", None)
        return Msg.create(command).encode(message.request_id)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self.other is None:
            self._connecting.cancel()
        super().connectionLost(reason)
        self.check()

    def check(self) -> None:
        """Tell if both connections are gone."""
        if self.lost and (self.other is None or self.other.lost):
            self.balancer._ways.discard(self)
            self._gone.fire()

    def gone(self) -> defer.Deferred[None]:
        """Wait until both connections are gone."""
        return self._gone.wait()

    def cut(self) -> defer.Deferred[None]:
        """Close both connections."""
        gone = self.gone()
        self.transport.abortConnection()  # type: ignore[union-attr]
        return gone


class _Back(_End):
    """The connection to the server."""

    def __init__(self, front: _Front) -> None:
        super().__init__()
        self.other = front
        self._front = front

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        super().connectionLost(reason)
        self._front.check()

    def changed(self, frame: Frame) -> Frame:
        """With what a mongos would say beside."""
        message = decode_message(frame)
        additions = self._front.additions
        if not isinstance(message, Msg) or message.response_to not in additions:
            return frame
        reply = {**bson.decode(message.body), **additions.pop(message.response_to)}
        return Msg.create(reply, response_to=message.response_to).encode(message.request_id)


class _UntilEnd(protocol.Protocol):
    """Stops the reactor at the end of the input."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        reactor.stop()


async def _serve(servers: list[str]) -> None:
    pairs = (server.rsplit(":", 1) for server in servers)
    balancer = await Balancer(reactor, [(host, int(port)) for host, port in pairs]).start()
    print(balancer.uri, flush=True)  # noqa: T201  # that is how the other process hears of it


if __name__ == "__main__":
    StandardIO(_UntilEnd())
    defer.Deferred.fromCoroutine(_serve(sys.argv[1:]))
    reactor.run()
