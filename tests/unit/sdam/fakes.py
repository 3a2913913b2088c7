"""Stands for what lies below the topology: pools without connections, monitoring connections without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import bson
from bson.objectid import ObjectId
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txmongo._sdam.topology import Topology
from txmongo._settings import ClientSettings, parse_settings
from txmongo._wire.op_msg import MORE_TO_COME, Msg
from txmongo.errors import AutoReconnect, error_from_reply
from txmongo.types import Address

A: Address = ("a", 27017)
B: Address = ("b", 27017)
C: Address = ("c", 27017)

PROCESS = ObjectId("000000000000000000000001")


def topology_version(counter: int, process: ObjectId = PROCESS) -> dict[str, Any]:
    """A server's version of its own state."""
    return {"processId": process, "counter": bson.Int64(counter)}


def standalone(**fields: Any) -> dict[str, Any]:
    """What a standalone answers to hello."""
    return {"ok": 1, "helloOk": True, "isWritablePrimary": True, "minWireVersion": 0, "maxWireVersion": 17, **fields}


def mongos(**fields: Any) -> dict[str, Any]:
    """What a mongos answers to hello."""
    return standalone(msg="isdbgrid", **fields)


def primary(*hosts: str, **fields: Any) -> dict[str, Any]:
    """What the primary of the set ``rs`` answers to hello."""
    return standalone(setName="rs", setVersion=1, electionId=PROCESS, hosts=list(hosts or ("a:27017",)), **fields)


def secondary(*hosts: str, **fields: Any) -> dict[str, Any]:
    """What a secondary of the set ``rs`` answers to hello."""
    document = primary(*hosts, **fields)
    del document["electionId"]
    return {**document, "isWritablePrimary": False, "secondary": True}


def ghost(**fields: Any) -> dict[str, Any]:
    """What a member of a set that was not initiated answers to hello."""
    return standalone(isWritablePrimary=False, isreplicaset=True, **fields)


class FakePool:
    """A pool that only counts what it is told."""

    def __init__(self, address: Address, journal: list[tuple[Any, ...]]) -> None:
        self.address = address
        self.journal = journal
        self.generation = 0
        self.services: dict[ObjectId, int] = {}
        self.is_ready = False
        self.closed = False
        self.operation_count = 0
        self.rtt = 0.0
        self.closing: Deferred[None] = succeed(None)

    def generation_for(self, service_id: ObjectId | None) -> int:
        return self.generation if service_id is None else self.services.get(service_id, 0)

    def ready(self) -> None:
        if not self.is_ready:
            self.journal.append(("ready", self.address))
        self.is_ready = True

    def clear(
        self, cause: BaseException | None = None, service_id: ObjectId | None = None, interrupt_in_use: bool = False
    ) -> None:
        self.journal.append(("clear", self.address, service_id, interrupt_in_use))
        if service_id is not None:
            self.services[service_id] = self.services.get(service_id, 0) + 1
            return
        self.generation += 1
        self.is_ready = False

    def close(self) -> Deferred[None]:
        self.closed = True
        self.journal.append(("close", self.address))
        return self.closing


class FakeProtocol:
    """A monitoring connection whose answers the test gives; as with a real one, abort() takes a turn of the reactor."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lost = False
        self.lost_hook: Callable[[Failure], None] | None = None
        self.sent: list[dict[str, Any]] = []
        self.waiting: Deferred[Any] | None = None
        self.on_reply: Callable[[Msg], None] | None = None
        self.stream_flags = 0
        self.aborted: BaseException | None = None
        self.cancelled = False

    def command(self, database: str, command: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        self.sent.append({**command, "$db": database})
        return self._wait()

    def stream(self, msg: Msg, on_reply: Callable[[Msg], None]) -> Deferred[None]:
        self.sent.append(msg.to_dict())
        self.stream_flags = msg.flag_bits
        self.on_reply = on_reply
        return self._wait()

    def abort(self, reason: BaseException) -> None:
        if self.aborted is None and not self.lost:
            self.aborted = reason
            self._clock.callLater(0, self.lose)

    def lose(self) -> None:
        """The connection is gone: what waits fails for the reason it was aborted for, as the real one does."""
        if self.lost:
            return
        self.lost = True
        reason = self.aborted or AutoReconnect("connection closed")
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.errback(reason if isinstance(reason, AutoReconnect) else AutoReconnect(str(reason)))
        if self.lost_hook is not None:
            self.lost_hook(Failure(reason))

    def answer(self, document: Mapping[str, Any]) -> None:
        """Answer the command that waits."""
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        error = error_from_reply(document)
        if error is None:
            waiting.callback(dict(document))
        else:
            waiting.errback(error)

    def send(self, document: Mapping[str, Any], *, more: bool = True) -> None:
        """Send one reply of the stream; the last one ends it, as the real protocol does."""
        assert self.on_reply is not None
        msg = Msg(0, 0, bson.encode(document), MORE_TO_COME if more else 0)
        if more:
            self.on_reply(msg)
            return
        waiting, self.waiting = self.waiting, None
        on_reply, self.on_reply = self.on_reply, None
        assert waiting is not None and on_reply is not None
        on_reply(msg)
        waiting.callback(None)

    def _wait(self) -> Deferred[Any]:
        if self.lost:
            return fail(AutoReconnect("connection closed"))
        self.waiting = Deferred(self._cancel)
        return self.waiting

    def _cancel(self, _deferred: Deferred[Any]) -> None:
        self.cancelled = True
        self.waiting = None


class Connections:
    """Opens :class:`FakeProtocol` connections when the test says so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.pending: dict[Address, list[Deferred[Any]]] = {}
        self.attempts: list[Address] = []
        self.protocols: dict[Address, list[FakeProtocol]] = {}

    def connect(self, address: Address) -> Deferred[Any]:
        self.attempts.append(address)
        deferred: Deferred[Any] = Deferred(lambda _: self._forget(address, deferred))
        self.pending.setdefault(address, []).append(deferred)
        return deferred

    def _forget(self, address: Address, deferred: Deferred[Any]) -> None:
        self.pending[address].remove(deferred)

    def waiting(self, address: Address) -> int:
        """How many connections to a server are being opened."""
        return len(self.pending.get(address, ()))

    def open(self, address: Address, document: Mapping[str, Any], rtt: float = 0.001) -> FakeProtocol:
        """Let the oldest attempt succeed with this reply to hello."""
        protocol = FakeProtocol(self._clock)
        self.protocols.setdefault(address, []).append(protocol)
        self.pending[address].pop(0).callback((protocol, dict(document), rtt))
        return protocol

    def refuse(self, address: Address, error: Exception | None = None) -> None:
        """Let the oldest attempt fail."""
        self.pending[address].pop(0).errback(error or AutoReconnect(f"{address[0]}: connection refused"))


class Deployment:
    """A topology on a fake clock, with fake pools and fake monitoring connections.

    :ivar journal: what the pools were told, in order.
    """

    def __init__(self, uri: str = "mongodb://a", pool: Callable[[Address], Any] | None = None, **keywords: Any) -> None:
        self.clock = Clock()
        self.settings: ClientSettings = parse_settings(uri, **keywords)
        self.connections = Connections(self.clock)
        self.pools: dict[Address, Any] = {}
        self.journal: list[tuple[Any, ...]] = []
        self._pool = pool
        self.topology = Topology(
            self.settings,
            clock=self.clock,
            create_pool=self._create_pool,
            connect_monitor=self.connections.connect,
        )

    def _create_pool(self, address: Address) -> Any:
        pool = self._pool(address) if self._pool is not None else FakePool(address, self.journal)
        self.pools[address] = pool
        return pool

    def open(self) -> Topology:
        """Open the topology."""
        self.topology.open()
        return self.topology

    def close(self) -> None:
        """Close the topology, and see that nothing of it is left."""
        closed = self.topology.close()
        done: list[None] = []
        closed.addCallback(done.append)
        self.clock.advance(0)
        assert done == [None], "the topology did not close"
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()

    def discover(self, **documents: Mapping[str, Any]) -> Topology:
        """Open the topology and let each server answer its first hello."""
        self.open()
        for host, document in documents.items():
            self.connections.open((host, 27017), document)
        return self.topology
