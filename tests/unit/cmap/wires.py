"""What the pool's tests stand on: connections whose server end the test plays, and requests as the executor makes them.

The protocol is the real one; its transport hands the requests to the test, which answers them, in order, when it wants.
"""

from __future__ import annotations

import struct
from typing import Any

import bson
from pymongo import monitoring
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.pool import Pool
from txmongo._deferreds import Deadline
from txmongo._settings import ClientSettings
from txmongo._wire.header import HEADER_SIZE, OP_MSG
from txmongo._wire.op_msg import MORE_TO_COME, Msg, encode_command
from txmongo.errors import AutoReconnect
from txmongo.protocol import MongoProtocol

ADDRESS = ("db.example.com", 27017)
NEVER = Deadline.never
#: A little more than the time after which a connection is stalled.
STALL = 0.021

_HEADER = struct.Struct("<iiii")
_FLAGS = struct.Struct("<I")


class Wire(StringTransport):
    """The transport of one connection, and the server at its other end.

    :ivar received: the command name of each request that came, in order.
    :ivar unanswered: the request ids that a reply is owed to.
    :ivar write_is_unread: nothing sent after an unacknowledged write was answered yet.
    :ivar frozen: the server takes no notice of an orderly close.
    """

    def __init__(self, clock: Clock, protocol: MongoProtocol) -> None:
        super().__init__()
        self.clock = clock
        self.protocol = protocol
        self.received: list[str] = []
        self.unanswered: list[int] = []
        self.write_is_unread = False
        self.before_write = 0
        self.frozen = False
        self.closed = False

    def write(self, data: bytes) -> None:
        """The client sends whole messages."""
        while data:
            length, request_id, _, opcode = _HEADER.unpack_from(data)
            assert opcode == OP_MSG
            (flags,) = _FLAGS.unpack_from(data, HEADER_SIZE)
            body: dict[str, Any] = bson.decode(data[HEADER_SIZE + 5 : length])
            self.received.append(next(iter(body)))
            if not flags & MORE_TO_COME:
                self.unanswered.append(request_id)
            else:
                self.write_is_unread = True
                self.before_write = len(self.unanswered)
            data = data[length:]

    def reply(self, count: int = 1) -> None:
        """Answer the oldest requests; a reply takes a little time, as all that is real does."""
        for _ in range(count):
            self.clock.rightNow += 1e-7
            request_id = self.unanswered.pop(0)
            self.write_is_unread = self.write_is_unread and self.before_write > 0
            self.before_write -= 1
            message = encode_command(1, bson.encode({"ok": 1.0}))
            self.protocol.dataReceived(message[:8] + struct.pack("<i", request_id) + message[12:])

    def loseConnection(self) -> None:
        """The client wants to close."""
        if not self.frozen:
            self._lose(ConnectionDone())

    def abortConnection(self) -> None:
        """The client closes."""
        self._lose(ConnectionLost())

    def hang_up(self) -> None:
        """The server closes."""
        self._end(ConnectionDone())

    def _lose(self, reason: Exception) -> None:
        self.clock.callLater(0, self._end, reason)

    def _end(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.unanswered.clear()
            self.protocol.connectionLost(Failure(reason))


class Wires:
    """Opens connections for a pool: each waits until the test lets it open or fail.

    :ivar at_once: open them without waiting.
    :ivar wires: those that were opened, in order.
    """

    def __init__(self, clock: Clock, *, at_once: bool = True) -> None:
        self.clock = clock
        self.at_once = at_once
        self.waiting: list[Deferred[tuple[MongoProtocol, StreamDescription]]] = []
        self.wires: list[Wire] = []
        self.description = StreamDescription()

    def connect(self) -> Deferred[tuple[MongoProtocol, StreamDescription]]:
        """The pool's ``connect``."""
        deferred: Deferred[tuple[MongoProtocol, StreamDescription]] = Deferred(self.waiting.remove)
        self.waiting.append(deferred)
        if self.at_once:
            self.open()
        return deferred

    def open(self, place: int = 0) -> Wire:
        """Let one open."""
        protocol = MongoProtocol()
        protocol.seconds = self.clock.seconds
        wire = Wire(self.clock, protocol)
        protocol.makeConnection(wire)
        self.wires.append(wire)
        self.waiting.pop(place).callback((protocol, self.description))
        return wire

    def fail(self, error: Exception | None = None, place: int = 0) -> None:
        """Let one fail."""
        self.waiting.pop(place).errback(error or AutoReconnect("refused"))

    def __getitem__(self, place: int) -> Wire:
        return self.wires[place]


class Work(CheckOut):
    """A request that does what the executor's attempt does: waits, sends, checks in, and is sent a second time.

    :ivar result: what became of it: ``"answered"`` or the exception.
    :ivar results: how often something did.
    """

    __slots__ = ("copy", "deferred", "name", "original", "outcome", "pool", "request_id", "result", "results")

    def __init__(self, pool: Pool, name: str = "find", **kinds: bool) -> None:
        super().__init__(name, **kinds)
        self.name = name
        self.pool = pool
        self.deferred: Deferred[Any] | None = None
        self.outcome: Deferred[Any] | None = None
        self.copy: Work | None = None
        self.original: Work | None = None
        self.request_id = 0
        self.result: Any = None
        self.results = 0

    def start(self, deadline: Deadline = Deadline.never) -> Work:
        """Begin; the command is sent at once if there is a connection."""
        connection = self.pool.check_out_now(self)
        if connection is not None:
            self.deferred = self.send(connection)
        else:
            self.deferred = self.pool.check_out(self, deadline)
            self.deferred.addCallback(self.send)
        self.deferred.addCallbacks(self._done, self._done)
        return self

    def cancel(self) -> None:
        """The caller gives up."""
        assert self.deferred is not None
        self.deferred.cancel()

    def _done(self, result: Any) -> None:
        self.results += 1
        self.result = result.value if isinstance(result, Failure) else "answered"

    def send(self, connection: Connection) -> Deferred[Any]:
        """Write the command; the Deferred fires once it is checked in."""
        deferred = self._write(connection)
        deferred.addCallbacks(self._succeeded, self._failed)
        return deferred

    def _write(self, connection: Connection) -> Deferred[Any]:
        if self.name == "unsendable":
            return fail(ValueError("unsendable"))
        flags = MORE_TO_COME if self.unacknowledged else 0
        msg = Msg.create({self.name: 1, "$db": "db"}, acknowledged=not flags)
        wire = msg.encode(0)
        self.request_id = connection.protocol.get_request_id()
        msg.request_id = self.request_id
        msg.wire = wire[:4] + struct.pack("<i", self.request_id) + wire[8:]
        return connection.protocol.send_msg(msg, bson.DEFAULT_CODEC_OPTIONS, None)

    def _succeeded(self, reply: Any) -> Any:
        self._drop_copy()
        self.pool.check_in(self, abandoned=self.abandoned)
        return reply

    def _failed(self, failure: Failure) -> Any:
        cancelled = failure.check(CancelledError) is not None
        if self.copy is not None:
            if not cancelled:
                self.pool.check_in(self)
                self.outcome = Deferred(lambda _: self._drop_copy())
                return self.outcome
            self._drop_copy()
        self.pool.check_in(self, abandoned=cancelled)
        return failure

    def duplicate(self) -> Work:
        """See CheckOut."""
        copy = Work(self.pool, self.name, bounded=self.bounded)
        copy.original = self
        return copy

    def resend(self, connection: Connection) -> None:
        """See CheckOut."""
        assert self.original is not None
        self.original.copy = self
        self.deferred = self._write(connection)
        self.deferred.addCallbacks(self._copy_succeeded, self._copy_failed)

    def _copy_succeeded(self, reply: Any) -> None:
        original = self.original
        assert original is not None and original.connection is not None
        original.copy = None
        self.pool.check_in(self)
        if original.outcome is not None:
            original.outcome.callback(reply)
        else:
            original.abandoned = True
            original.connection.protocol.resolve(original.request_id, reply)

    def _copy_failed(self, failure: Failure) -> None:
        original = self.original
        assert original is not None
        original.copy = None
        self.pool.check_in(self, abandoned=failure.check(CancelledError) is not None)
        if original.outcome is not None and not original.outcome.called:
            original.outcome.errback(failure)

    def _drop_copy(self) -> None:
        copy, self.copy = self.copy, None
        if copy is not None:
            assert copy.deferred is not None
            copy.deferred.cancel()


class Recorder(monitoring.ConnectionPoolListener):
    """Keeps the pool's events.

    :ivar events: each as its hook's name and the event.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def names(self) -> list[str]:
        """The hooks that were called, in order."""
        return [name for name, _ in self.events]

    def count(self, name: str) -> int:
        """How often a hook was called."""
        return self.names().count(name)

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        self.events.append(("pool_created", event))

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None:
        self.events.append(("pool_ready", event))

    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None:
        self.events.append(("pool_cleared", event))

    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None:
        self.events.append(("pool_closed", event))

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        self.events.append(("created", event))

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:
        self.events.append(("ready", event))

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        self.events.append(("closed", event))

    def connection_check_out_started(self, event: monitoring.ConnectionCheckOutStartedEvent) -> None:
        self.events.append(("started", event))

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        self.events.append(("failed", event))

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        self.events.append(("checked_out", event))

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        self.events.append(("checked_in", event))


def lone_connection() -> Connection:
    """A connection that no pool has; nothing is in flight on it."""
    protocol = MongoProtocol()
    protocol.makeConnection(StringTransport())
    return Connection(1, ADDRESS, 0, protocol, StreamDescription(), created_at=0.0, now=0.0)


def make_pool(clock: Clock, wires: Wires, *, listener: Recorder | None = None, **options: Any) -> Pool:
    """A ready pool with some settings."""
    hook = options.pop("on_connect_error", None)
    pool = Pool(
        ADDRESS,
        ClientSettings(**options),
        clock=clock,
        connect=wires.connect,
        listeners=None if listener is None else [listener],
        on_connect_error=hook,
    )
    pool.ready()
    return pool


class PoolTestCase(SynchronousTestCase):
    """Makes pools."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wires = Wires(self.clock)
        self.recorder = Recorder()

    def make(self, *, listening: bool = False, **options: Any) -> Pool:
        """A ready pool."""
        self.pool = make_pool(self.clock, self.wires, listener=self.recorder if listening else None, **options)
        return self.pool

    def work(self, name: str = "find", count: int = 1, **kinds: bool) -> list[Work]:
        """Operations that have begun."""
        return [Work(self.pool, name, **kinds).start() for _ in range(count)]

    def movable(self, count: int = 1) -> list[Work]:
        """Reads that have begun."""
        return self.work("find", count, movable=True)

    def learn(self, name: str, seconds: float) -> None:
        """Let the pool know how long a kind of request takes."""
        for wire in self.wires.wires:
            assert not wire.unanswered
        work = self.work(name, exclusive=True)[0]
        self.clock.advance(seconds)
        wire_of(work).reply()
        assert work.result == "answered"

    def pass_time(self, seconds: float = 0) -> None:
        """Let time go by, in turns."""
        self.clock.pump([0, seconds, 0, 0])


def wire_of(work: Work) -> Wire:
    """The wire that an operation was sent on."""
    assert work.connection is not None
    wire = work.connection.protocol.transport
    assert isinstance(wire, Wire)
    return wire
