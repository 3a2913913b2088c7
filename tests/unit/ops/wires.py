"""What the tests of the executor share: simple operations, connections in memory, and a topology with real pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import bson
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.unit.sdam.fakes import Connections
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.pool import Pool
from txmongo._ops.base import Operation, ReplyContext, RetryKind
from txmongo._sdam.topology import Topology
from txmongo._settings import ClientSettings
from txmongo._wire.decoder import Decoder, decode_message
from txmongo._wire.header import next_request_id
from txmongo._wire.op_msg import Msg
from txmongo.protocol import MongoProtocol
from txmongo.types import Address


class Ping(Operation[Any]):
    """A command with no more to it; its result is the reply and who sent it."""

    __slots__ = ()
    name = "ping"

    def build(self, description: StreamDescription) -> dict[str, Any]:
        return {"ping": 1}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        return reply, context.address, context.description.max_wire_version


class Look(Ping):
    """A read."""

    __slots__ = ()
    name = "look"
    retry = RetryKind.READ
    sends_read_preference = True


class Unbuildable(Ping):
    """Raises before anything is sent."""

    __slots__ = ()

    def build(self, description: StreamDescription) -> dict[str, Any]:
        raise ValueError("too old")


class Write(Ping):
    """A write that may be repeated."""

    __slots__ = ()
    name = "write"
    retry = RetryKind.WRITE


class Wire:
    """One connection in memory: what the driver wrote, and replies to it."""

    def __init__(self) -> None:
        self.protocol = MongoProtocol()
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self._decoder = Decoder()
        self.requests: list[Any] = []

    def read(self) -> list[dict[str, Any]]:
        """The commands that were written since the last call."""
        new = [decode_message(frame) for frame in self._decoder.feed(self.transport.value())]
        self.transport.clear()
        self.requests += new
        return [message.to_dict() for message in new]  # type: ignore[union-attr]

    def answer(self, document: dict[str, Any]) -> None:
        """Answer the oldest request that was read."""
        request = self.requests.pop(0)
        self.protocol.dataReceived(Msg(next_request_id(), request.request_id, bson.encode(document)).encode())

    def lose(self) -> None:
        """The network cuts it."""
        self.protocol.connectionLost(Failure(ConnectionLost()))


def member(document: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A reply to hello, of a set with the members A and B that has sessions."""
    return {**document, "hosts": ["a:27017", "b:27017"], "logicalSessionTimeoutMinutes": 30, **fields}


def set_topology(
    settings: ClientSettings, clock: Clock, monitors: Connections, connect: Callable[[Address], Deferred[Any]]
) -> Topology:
    """A topology with real pools, whose connections are opened by ``connect``, and monitors in memory."""
    topology = Topology(
        settings,
        clock=clock,
        create_pool=lambda address: Pool(
            address,
            settings,
            clock=clock,
            connect=lambda: connect(address),
            on_connect_error=lambda error, generation: topology.handle_error(
                address, error, generation=generation, completed_handshake=False
            ),
        ),
        connect_monitor=monitors.connect,
    )
    return topology
