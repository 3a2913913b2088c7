"""``txmongo._ops.executor`` on a real topology and pool, whose connections are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bson
from pymongo import monitoring
from pymongo.read_preferences import Nearest, Primary, Secondary
from pymongo.server_type import SERVER_TYPE
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.wires import Look, Ping, Unbuildable, Wire
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.pool import Pool
from txmongo._ops.base import Operation, ReplyContext
from txmongo._ops.command_events import CommandEvents
from txmongo._ops.executor import Executor
from txmongo._ops.find import Find
from txmongo._sdam.topology import Topology
from txmongo._settings import parse_settings
from txmongo.errors import (
    AutoReconnect,
    DocumentTooLarge,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)


class BuildableOnce(Look):
    """A read that cannot be sent a second time."""

    __slots__ = ("built",)

    def build(self, description: StreamDescription) -> dict[str, Any]:
        if hasattr(self, "built"):
            raise ValueError("once is enough")
        self.built = True
        return {"look": 1}


class Unparsable(Look):
    """Raises when the reply is there."""

    __slots__ = ()

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        raise ValueError("bad news")


class SteppedDown(Ping):
    """Finds in the reply that the server is no primary any more."""

    __slots__ = ()

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        raise NotPrimaryError("shutting down", {"code": 91})


class Listener(monitoring.CommandListener):
    """Notes the events."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def started(self, event: Any) -> None:
        self.seen.append(("started", event.command_name, event.request_id))

    def succeeded(self, event: Any) -> None:
        self.seen.append(("succeeded", event.command_name, event.request_id))

    def failed(self, event: Any) -> None:
        self.seen.append(("failed", event.command_name, event.request_id, event.failure))


class ExecutorTestCase(SynchronousTestCase):
    """An executor for one server behind a load balancer, which needs no monitor."""

    uri = "mongodb://a:27017/?loadBalanced=true"

    def setUp(self) -> None:
        self.clock = Clock()
        self.wires: list[Wire] = []
        self.connecting: list[Deferred[Any]] = []
        self.slow_connects = False
        self.description = StreamDescription(max_wire_version=17, server_type=SERVER_TYPE.Mongos)
        self.make()

    def make(self, events: CommandEvents | None = None, **keywords: Any) -> None:
        """A new client."""
        settings = parse_settings(self.uri, **keywords)
        self.topology = Topology(
            settings,
            clock=self.clock,
            create_pool=lambda address: Pool(address, settings, clock=self.clock, connect=self.connect),
            connect_monitor=lambda address: Deferred(),
        )
        self.executor = Executor(self.topology, settings, self.clock, events=events)
        self.addCleanup(self.topology.close)

    def connect(self) -> Deferred[Any]:
        """Open a connection for the pool, at once or when the test says so."""
        if self.slow_connects:
            self.connecting.append(Deferred())
            return self.connecting[-1]
        return succeed(self.new_wire())

    def new_wire(self) -> Any:
        """What the connector gives for a new connection."""
        wire = Wire()
        wire.protocol.seconds = self.clock.seconds
        self.wires.append(wire)
        return wire.protocol, self.description

    @property
    def pool(self) -> Pool:
        """The only server's pool."""
        [server] = self.topology.servers.values()
        return server.pool

    def opened(self) -> Wire:
        """The first connection, after an operation has opened it."""
        deferred = self.executor.execute(Ping("admin"))
        self.wires[0].read()
        self.wires[0].answer({"ok": 1})
        self.successResultOf(deferred)
        return self.wires[0]


class ExecuteTests(ExecutorTestCase):
    """The ordinary way."""

    def test_first_operation_opens(self) -> None:
        """The first operation opens the topology and a connection, and is told who answered."""
        deferred = self.executor.execute(Ping("admin"))
        self.assertEqual(self.wires[0].read(), [{"ping": 1, "$db": "admin"}])
        self.wires[0].answer({"ok": 1, "x": 1})
        self.assertEqual(self.successResultOf(deferred), ({"ok": 1, "x": 1}, ("a", 27017), 17))
        self.assertEqual(self.pool.operation_count, 0)

    def test_written_inside_the_call(self) -> None:
        """On a ready connection the command is written before execute returns."""
        wire = self.opened()
        self.executor.execute(Ping("admin")).addErrback(lambda _: None)
        self.assertEqual(len(wire.read()), 1)

    def test_build_raises(self) -> None:
        """What goes wrong before the sending fails the Deferred and gives the connection back."""
        self.opened()
        self.failureResultOf(self.executor.execute(Unbuildable("admin")), ValueError)
        self.failureResultOf(self.executor.execute(Unbuildable("admin")), ValueError)
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 1))

    def test_parse_raises(self) -> None:
        """What the reply says below its top level fails the Deferred."""
        wire = self.opened()
        deferred = self.executor.execute(Unparsable("admin"))
        wire.read()
        wire.answer({"ok": 1})
        self.failureResultOf(deferred, ValueError)
        self.assertEqual(self.pool.operation_count, 0)

    def test_error_reply(self) -> None:
        """The server's error comes through; the connection lives on."""
        wire = self.opened()
        deferred = self.executor.execute(Ping("admin"))
        wire.read()
        wire.answer({"ok": 0, "code": 59, "errmsg": "no such command"})
        self.failureResultOf(deferred, OperationFailure)
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 1))

    def test_stepped_down(self) -> None:
        """The topology hears of a step-down that only the parsing of the reply brings to light."""
        seen: list[BaseException] = []
        wire = self.opened()
        handle_error = self.topology.handle_error
        self.patch(
            self.topology, "handle_error", lambda a, error, **k: (seen.append(error), handle_error(a, error, **k))
        )
        deferred = self.executor.execute(SteppedDown("admin"))
        wire.read()
        wire.answer({"ok": 1})
        error = self.failureResultOf(deferred, NotPrimaryError).value
        self.assertEqual(seen, [error])

    def test_unacknowledged(self) -> None:
        """An unacknowledged operation is done when it is written."""
        wire = self.opened()
        deferred = self.executor.execute(Ping("admin", acknowledged=False))
        self.assertEqual(self.successResultOf(deferred)[0], None)
        wire.read()
        self.assertTrue(wire.requests[0].more_to_come)

    def test_too_large(self) -> None:
        """A command that the server would refuse unread is not sent."""
        self.description = StreamDescription(max_wire_version=17, max_message_size=30)
        deferred = self.executor.execute(Ping("admin"))
        self.clock.advance(0)
        self.assertIn("ping", str(self.failureResultOf(deferred, DocumentTooLarge).value))

    def test_lost(self) -> None:
        """The loss of the connection fails the operation with AutoReconnect, and the next one opens another."""
        wire = self.opened()
        deferred = self.executor.execute(Ping("admin"))
        wire.lose()
        self.failureResultOf(deferred, AutoReconnect)
        self.assertEqual(self.pool.operation_count, 0)
        self.executor.execute(Ping("admin")).addErrback(lambda _: None)
        self.assertEqual(len(self.wires), 2)

    def test_cancelled_in_flight(self) -> None:
        """A cancelled operation ends at once; its connection serves the next one when the late reply has come."""
        wire = self.opened()
        deferred = self.executor.execute(Ping("admin"))
        wire.read()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        wire.answer({"ok": 1})
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 1))

    def test_cancelled_while_connecting(self) -> None:
        """An operation that is cancelled before its connection is open sends nothing."""
        self.slow_connects = True
        deferred = self.executor.execute(Ping("admin"))
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.assertEqual(self.pool.operation_count, 0)
        self.connecting[0].callback(self.new_wire())
        self.assertEqual(self.wires[0].read(), [])

    def test_slow_to_connect(self) -> None:
        """waitQueueTimeoutMS does not hold while a connection is opened for an operation, only for those after it."""
        self.make(waitQueueTimeoutMS=50, maxConnecting=1)
        self.slow_connects = True
        first, second = (self.executor.execute(Ping("admin")) for _ in range(2))
        self.clock.advance(0.06)
        self.failureResultOf(second, WaitQueueTimeoutError)
        self.connecting[0].callback(self.new_wire())
        self.wires[0].read()
        self.wires[0].answer({"ok": 1})
        self.successResultOf(first)

    def test_wrong_password(self) -> None:
        """Every operation that waited for the same connection hears why it was refused."""
        self.slow_connects = True
        waiting = [self.executor.execute(Ping("admin")) for _ in range(3)]
        self.pool.clear(OperationFailure("Authentication failed.", 18, {"ok": 0, "code": 18}))
        self.clock.advance(0)
        for deferred in waiting:
            self.assertEqual(self.failureResultOf(deferred, OperationFailure).value.code, 18)

    def test_cleared(self) -> None:
        """When the pool is cleared for another reason, those who waited hear of a lost connection."""
        self.slow_connects = True
        waiting = self.executor.execute(Ping("admin"))
        self.pool.clear(AutoReconnect("gone"))
        self.clock.advance(0)
        self.failureResultOf(waiting, AutoReconnect)

    def test_closed(self) -> None:
        """A closed executor refuses operations."""
        self.executor.close()
        self.failureResultOf(self.executor.execute(Ping("admin")), InvalidOperation)

    def test_unknown_address(self) -> None:
        """An operation for a server that is not there fails when its time is over."""
        self.opened()
        deferred = self.executor.execute(Ping("admin", address=("gone", 1)))
        self.clock.advance(31)
        self.failureResultOf(deferred, ServerSelectionTimeoutError)

    def test_known_address(self) -> None:
        """An operation for one server goes there."""
        wire = self.opened()
        self.executor.execute(Ping("admin", address=("a", 27017))).addErrback(lambda _: None)
        self.assertEqual(len(wire.read()), 1)

    def test_reaches(self) -> None:
        """Only a server that is known and was found can be sent a command for it alone at once."""
        self.assertFalse(self.executor.reaches(("a", 27017)))
        self.opened()
        self.assertTrue(self.executor.reaches(("a", 27017)))
        self.assertFalse(self.executor.reaches(("gone", 1)))
        self.topology.close()
        self.assertFalse(self.executor.reaches(("a", 27017)))

    def test_stable_api(self) -> None:
        """The declared API version is part of every command."""
        self.opened()
        self.executor.server_api = {"apiVersion": "1"}
        self.executor.execute(Ping("admin")).addErrback(lambda _: None)
        self.assertEqual(self.wires[0].read(), [{"ping": 1, "$db": "admin", "apiVersion": "1"}])


class ReadPreferenceTests(ExecutorTestCase):
    """What is sent as ``$readPreference``."""

    def sent(self, read_preference: Any, server_type: int) -> Any:
        """What a read with this preference sends to such a server."""
        description = StreamDescription(max_wire_version=17, server_type=server_type)
        return self.executor.read_preference_document(read_preference, description)

    def test_in_a_set(self) -> None:
        """All but primary is sent, but not to a standalone."""
        self.assertEqual(self.sent(Nearest(), SERVER_TYPE.RSSecondary), {"mode": "nearest"})
        self.assertEqual(self.sent(Nearest(), SERVER_TYPE.Mongos), {"mode": "nearest"})
        self.assertIs(self.sent(Nearest(), SERVER_TYPE.Standalone), None)
        self.assertIs(self.sent(Primary(), SERVER_TYPE.RSPrimary), None)

    def test_with_a_command(self) -> None:
        """It is part of a read, and only of a read."""
        wire = self.opened()
        for operation, expected in (
            (Look("admin", read_preference=Secondary()), {"mode": "secondary"}),
            (Look("admin"), None),
            (Ping("admin", read_preference=Secondary()), None),
        ):
            self.executor.execute(operation).addErrback(lambda _: None)
            [command] = wire.read()
            self.assertEqual(command.get("$readPreference"), expected)
            wire.answer({"ok": 1})


class DirectReadPreferenceTests(ReadPreferenceTests):
    """The same for one server that is connected to directly."""

    uri = "mongodb://a:27017/?directConnection=true"

    def test_in_a_set(self) -> None:
        """A member of a set is told that it may answer."""
        self.topology.open()
        self.assertEqual(self.sent(Primary(), SERVER_TYPE.RSSecondary), {"mode": "primaryPreferred"})
        self.assertEqual(self.sent(Nearest(), SERVER_TYPE.RSSecondary), {"mode": "nearest"})
        self.assertIs(self.sent(Primary(), SERVER_TYPE.Mongos), None)
        self.assertIs(self.sent(Primary(), SERVER_TYPE.Standalone), None)

    def test_with_a_command(self) -> None:
        """Nothing of it is sent while the server is not known."""
        self.executor.execute(Look("admin")).addErrback(lambda _: None)
        self.assertEqual(self.wires, [])


class EventTests(ExecutorTestCase):
    """Command events."""

    def setUp(self) -> None:
        super().setUp()
        self.listener = Listener()
        self.make(CommandEvents([self.listener], self.clock.seconds))

    def kinds(self) -> list[str]:
        """The kinds of events seen, in order."""
        return [event[0] for event in self.listener.seen]

    def test_succeeded(self) -> None:
        """A command that works is published when it starts and when it ends, under one request id."""
        self.opened()
        self.assertEqual(self.kinds(), ["started", "succeeded"])
        self.assertEqual(self.listener.seen[0][2], self.listener.seen[1][2])

    def test_failed(self) -> None:
        """An error reply is published with the reply, a loss with its text and type."""
        wire = self.opened()
        del self.listener.seen[:]
        deferred = self.executor.execute(Ping("admin"))
        wire.read()
        wire.answer({"ok": 0, "code": 59, "errmsg": "no such command"})
        self.failureResultOf(deferred, OperationFailure)
        deferred = self.executor.execute(Ping("admin"))
        wire.lose()
        self.failureResultOf(deferred, AutoReconnect)
        self.assertEqual(self.kinds(), ["started", "failed"] * 2)
        self.assertEqual(self.listener.seen[1][3]["code"], 59)
        self.assertEqual(self.listener.seen[3][3]["errtype"], "AutoReconnect")

    def test_unacknowledged(self) -> None:
        """An unacknowledged command succeeds when it is written."""
        self.opened()
        del self.listener.seen[:]
        self.successResultOf(self.executor.execute(Ping("admin", acknowledged=False)))
        self.assertEqual(self.kinds(), ["started", "succeeded"])

    def test_listener_raises(self) -> None:
        """A listener that raises is logged and harms nothing."""

        class Broken(Listener):
            def started(self, event: Any) -> None:
                raise ValueError("my own fault")

        self.make(CommandEvents([Broken(), self.listener], self.clock.seconds))
        deferred = self.executor.execute(Ping("admin"))
        self.wires[-1].read()
        self.wires[-1].answer({"ok": 1})
        self.successResultOf(deferred)
        self.assertEqual(self.kinds(), ["started", "succeeded"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class MoveTestCase(ExecutorTestCase):
    """A read has been sent a second time, for it waits behind a stalled request."""

    moved: Operation[Any] = Look("admin")

    def setUp(self) -> None:
        super().setUp()
        self.listener = Listener()
        self.make(CommandEvents([self.listener], self.clock.seconds))
        self.first = self.opened()
        self.slow_connects = True
        self.stalled = self.executor.execute(Ping("admin"))
        self.waiting = self.executor.execute(self.moved)
        self.assertEqual(len(self.first.read()), 2)
        for _ in range(10):
            self.clock.advance(0.005)
        self.slow_connects = False
        for connecting in self.connecting:
            connecting.callback(self.new_wire())
        self.second = self.wires[1]
        self.assertEqual(len(self.second.read()), 1)

    def counts_are_back(self) -> None:
        """Nothing is left out."""
        self.assertEqual((self.pool.operation_count, self.pool.waiting_count), (0, 0))
        started = [event[2] for event in self.listener.seen if event[0] == "started"]
        ended = [event[2] for event in self.listener.seen if event[0] != "started"]
        self.assertEqual(sorted(started), sorted(ended))


class MoveTests(MoveTestCase):
    """Of two copies of a read the first answer counts."""

    def test_copy_wins(self) -> None:
        """The answer to the copy is the result; the first one's late reply is dropped."""
        self.second.answer({"ok": 1, "from": "copy"})
        self.assertEqual(self.successResultOf(self.waiting)[0], {"ok": 1, "from": "copy"})
        self.first.answer({"ok": 1})
        self.first.answer({"ok": 1, "from": "first"})
        self.successResultOf(self.stalled)
        self.counts_are_back()
        self.assertEqual(self.pool.available_count, 2)

    def test_first_wins(self) -> None:
        """The answer to the first request is the result; the copy's late reply is dropped."""
        self.first.answer({"ok": 1})
        self.first.answer({"ok": 1, "from": "first"})
        self.successResultOf(self.stalled)
        self.assertEqual(self.successResultOf(self.waiting)[0], {"ok": 1, "from": "first"})
        self.second.answer({"ok": 1, "from": "copy"})
        self.counts_are_back()
        self.assertEqual(self.pool.available_count, 2)

    def test_first_connection_lost(self) -> None:
        """When the stalled connection is lost, the copy's answer still is the result."""
        self.first.lose()
        self.failureResultOf(self.stalled, AutoReconnect)
        self.assertNoResult(self.waiting)
        self.second.answer({"ok": 1, "from": "copy"})
        self.assertEqual(self.successResultOf(self.waiting)[0], {"ok": 1, "from": "copy"})
        self.counts_are_back()

    def test_both_lost(self) -> None:
        """When both connections are lost the operation is tried again, as a read that was lost once."""
        self.first.lose()
        self.failureResultOf(self.stalled, AutoReconnect)
        self.second.lose()
        self.assertNoResult(self.waiting)
        self.assertEqual(len(self.wires[2].read()), 1)
        self.wires[2].lose()
        self.failureResultOf(self.waiting, AutoReconnect)
        self.counts_are_back()

    def test_copy_lost(self) -> None:
        """When the copy's connection is lost, the first one's answer is the result."""
        self.second.lose()
        self.first.answer({"ok": 1})
        self.first.answer({"ok": 1, "from": "first"})
        self.successResultOf(self.stalled)
        self.assertEqual(self.successResultOf(self.waiting)[0], {"ok": 1, "from": "first"})
        self.counts_are_back()

    def test_cancelled(self) -> None:
        """A cancel ends both."""
        self.waiting.cancel()
        self.failureResultOf(self.waiting, CancelledError)
        self.first.answer({"ok": 1})
        self.first.answer({"ok": 1})
        self.second.answer({"ok": 1})
        self.successResultOf(self.stalled)
        self.counts_are_back()
        self.assertEqual(self.pool.available_count, 2)

    def test_cancelled_after_loss(self) -> None:
        """A cancel while only the copy is left ends it."""
        self.first.lose()
        self.failureResultOf(self.stalled, AutoReconnect)
        self.waiting.cancel()
        self.failureResultOf(self.waiting, CancelledError)
        self.second.answer({"ok": 1})
        self.counts_are_back()


class MovedCursorTests(MoveTestCase):
    """A copy that made a cursor which nobody will read."""

    moved = Find("db", "c", {"filter": {}})

    def reply(self, cursor_id: int) -> dict[str, Any]:
        """A first batch."""
        return {"ok": 1, "cursor": {"id": cursor_id, "ns": "db.c", "firstBatch": []}}

    def kills(self) -> list[Any]:
        """Answer what was sent to kill cursors; their ids."""
        found = []
        for wire in self.wires:
            for command in wire.read():
                self.assertEqual((command["killCursors"], command["$db"]), ("c", "db"))
                found += command["cursors"]
                wire.answer({"ok": 0, "code": 43, "errmsg": "cursor not found"})
        return found

    def test_copy_wins(self) -> None:
        """The cursor of the late reply is killed, the other one is not."""
        self.second.answer(self.reply(2))
        self.assertEqual(self.successResultOf(self.waiting).cursor_id, 2)
        self.first.answer({"ok": 1})
        self.assertEqual(self.kills(), [])
        self.first.answer(self.reply(1))
        self.assertEqual(self.kills(), [1])
        self.counts_are_back()

    def test_first_wins(self) -> None:
        """So is that of the copy."""
        self.first.answer({"ok": 1})
        self.first.answer(self.reply(1))
        self.assertEqual(self.successResultOf(self.waiting).cursor_id, 1)
        self.second.answer(self.reply(2))
        self.assertEqual(self.kills(), [2])
        self.counts_are_back()

    def test_cancelled(self) -> None:
        """Of a read that was cancelled both are killed; that this fails is of no account."""
        self.waiting.cancel()
        self.failureResultOf(self.waiting, CancelledError)
        self.first.answer({"ok": 1})
        self.first.answer(self.reply(1))
        self.second.answer(self.reply(2))
        self.assertEqual(sorted(self.kills()), [1, 2])
        self.counts_are_back()

    def test_nothing_to_kill(self) -> None:
        """A late reply without a cursor, or with one that is exhausted, or that is an error, leaves nothing to do."""
        for reply in (self.reply(0), {"ok": 1}, {"ok": 0, "code": 1, "errmsg": "no", "cursor": 3}):
            self.executor.kill_cursor_of(bson.encode(reply), ("a", 27017))
        self.executor.kill_cursor_of(b"what is this", ("a", 27017))
        self.executor.close()
        self.executor.kill_cursor_of(bson.encode(self.reply(5)), ("a", 27017))
        self.assertEqual(self.kills(), [])


class UnmadeCopyTests(ExecutorTestCase):
    """A second copy that cannot be made."""

    def test_first_goes_on(self) -> None:
        """That is logged, its connection is free again, and the first one's answer is the result."""
        first = self.opened()
        stalled, waiting = self.executor.execute(Ping("admin")), self.executor.execute(BuildableOnce("admin"))
        for _ in range(10):
            self.clock.advance(0.005)
        self.assertEqual(len(first.read()), 2)
        self.assertEqual([wire.read() for wire in self.wires[1:]], [[]])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.pool.available_count, 1)
        first.answer({"ok": 1})
        first.answer({"ok": 1})
        self.successResultOf(stalled)
        self.successResultOf(waiting)
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 2))
