"""Something that looks like a load balancer of MongoDB's: it takes connections and leads each of them to a server.

A mongod does not answer as one of the servers behind such a balancer, so the greeting is changed on its way: what asks
for the balancer is taken out, and the answer names a service. All else passes through as it is.
"""

from __future__ import annotations

from typing import Any

import bson
from bson.objectid import ObjectId
from twisted.internet import defer, endpoints, error, protocol
from twisted.python.failure import Failure

from txmongo._wire.decoder import Decoder, Frame, decode_message
from txmongo._wire.op_msg import Msg

__all__ = ["Balancer"]


class Balancer:
    """Leads connections to servers, each to the next one in turn.

    :param reactor: the reactor.
    :param servers: the servers' addresses; each is a service with an id of its own.
    """

    def __init__(self, reactor: Any, servers: list[tuple[str, int]]) -> None:
        self.services = {server: ObjectId() for server in servers}
        self._reactor = reactor
        self._servers = servers
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

    def next_server(self) -> tuple[str, int]:
        """Whose turn it is."""
        self._turn += 1
        return self._servers[self._turn % len(self._servers)]


class _End(protocol.Protocol):
    """One of the two connections of a way."""

    def __init__(self) -> None:
        self.other: _End | None = None
        self.decoder = Decoder()
        self.lost: defer.Deferred[None] = defer.Deferred()

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
        self.lost.callback(None)


class _Front(_End):
    """The client's connection."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self.balancer = balancer
        self.greetings: set[int] = set()
        self._early: list[Frame] = []
        self._connecting: Any = None
        self.server = balancer.next_server()

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
        if next(iter(command)) != "hello":
            return frame
        self.greetings.add(message.request_id)
        command.pop("loadBalanced", None)
        return Msg.create(command).encode(message.request_id)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.balancer._ways.discard(self)
        if self.other is None:
            self._connecting.cancel()
        super().connectionLost(reason)

    def cut(self) -> defer.Deferred[Any]:
        """Close both connections."""
        ends = [self.lost] if self.other is None else [self.lost, self.other.lost]
        self.transport.abortConnection()  # type: ignore[union-attr]
        return defer.DeferredList(ends)


class _Back(_End):
    """The connection to the server."""

    def __init__(self, front: _Front) -> None:
        super().__init__()
        self.other = front
        self._front = front

    def changed(self, frame: Frame) -> Frame:
        """With the service in the answer to a greeting."""
        message = decode_message(frame)
        greetings = self._front.greetings
        if not isinstance(message, Msg) or message.response_to not in greetings:
            return frame
        greetings.discard(message.response_to)
        reply = {**bson.decode(message.body), "serviceId": self._front.balancer.services[self._front.server]}
        return Msg.create(reply, response_to=message.response_to).encode(message.request_id)
