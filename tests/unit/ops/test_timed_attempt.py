"""Operations whose time is limited, on the executor with a topology and a pool whose connections are in memory."""

from __future__ import annotations

from typing import Any

from pymongo.server_type import SERVER_TYPE
from twisted.internet.defer import CancelledError, Deferred

from tests.unit.ops.test_executor import ExecutorTestCase, Listener
from tests.unit.ops.wires import Look, Ping, Wire
from tests.unit.reading import session_of
from txmongo._cmap.description import StreamDescription
from txmongo._deferreds import Deadline
from txmongo._ops.base import RetryKind
from txmongo._ops.command_events import CommandEvents
from txmongo._ops.cursors import KillCursors
from txmongo._ops.server_sessions import ServerSessionPool
from txmongo._ops.timeouts import TimeLimit
from txmongo.errors import (
    AutoReconnect,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
    TimeExceeded,
    WaitQueueTimeoutError,
)


class Store(Ping):
    """A write."""

    __slots__ = ()
    name = "store"
    retry = RetryKind.WRITE


class TimedTestCase(ExecutorTestCase):
    """An executor, and limits on its clock."""

    def after(self, seconds: float) -> TimeLimit:
        """What timeoutMS means."""
        return TimeLimit.after(self.clock, seconds)

    def named(self, seconds: float) -> TimeLimit:
        """What TxMongo's timeout means."""
        deadline = Deadline.after(self.clock, seconds)
        return TimeLimit(deadline=deadline, csot=False, named=deadline)

    def start(self, limit: TimeLimit, operation: Any = None) -> Deferred[Any]:
        """Run an operation."""
        return self.executor.execute_within(Ping("admin") if operation is None else operation, limit)

    def assertIdle(self) -> None:
        """Nothing is out, and no time is waited for."""
        self.assertEqual(self.pool.operation_count, 0)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if "expire" in repr(call)], [])


class InFlightTests(TimedTestCase):
    """The time is up while the server works."""

    def test_in_time(self) -> None:
        """A reply in time is the result, and leaves no delayed call behind."""
        wire = self.opened()
        waiting = self.start(self.after(1))
        self.assertEqual(wire.read(), [{"ping": 1, "$db": "admin", "maxTimeMS": 1000}])
        self.clock.advance(0.9)
        wire.answer({"ok": 1})
        self.successResultOf(waiting)
        self.assertIdle()

    def test_late(self) -> None:
        """The operation ends at once; its late reply is dropped, and the connection serves the next one."""
        wire = self.opened()
        waiting = self.start(self.after(0.01))
        wire.read()
        self.clock.advance(0.01)
        error = self.failureResultOf(waiting, NetworkTimeout).value
        self.assertIn("a:27017", str(error))
        wire.answer({"ok": 1})
        following = self.start(self.after(1))
        wire.read()
        wire.answer({"ok": 1})
        self.successResultOf(following)
        self.assertEqual(len(self.wires), 1)
        self.assertIdle()

    def test_held_up(self) -> None:
        """A reply that came in time is taken, though a reactor that was held up first hears that the time is over."""
        wire = self.opened()
        waiting = self.start(self.after(0.01))
        wire.read()
        self.clock.callLater(0.01, wire.answer, {"ok": 1})  # called after what was to be called then already
        self.clock.advance(0.5)
        self.successResultOf(waiting)
        self.assertIdle()

    def test_events(self) -> None:
        """Listeners hear of the timeout, once."""
        listener = Listener()
        self.make(CommandEvents([listener], self.clock.seconds))
        waiting = self.start(self.after(1))
        self.clock.advance(1)
        self.failureResultOf(waiting, NetworkTimeout)
        self.assertEqual([event[:2] for event in listener.seen], [("started", "ping"), ("failed", "ping")])
        self.assertIn("NetworkTimeout", str(listener.seen[1][3]))

    def test_topology_unharmed(self) -> None:
        """A timeout says nothing of the server: its pool is not cleared."""
        wire = self.opened()
        self.start(self.after(1)).addErrback(lambda _: None)
        wire.read()
        self.clock.advance(1)
        self.assertEqual(self.pool.generation, 0)

    def test_cancelled(self) -> None:
        """Cancelled by the caller, it ends with CancelledError and leaves no delayed call behind."""
        wire = self.opened()
        waiting = self.start(self.after(1))
        wire.read()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        wire.answer({"ok": 1})
        self.assertIdle()

    def test_endless(self) -> None:
        """With timeoutMS=0 nothing ends it, and the server is told no time."""
        wire = self.opened()
        waiting = self.start(self.after(0))
        self.assertEqual(wire.read(), [{"ping": 1, "$db": "admin"}])
        self.clock.advance(1000)
        self.assertNoResult(waiting)
        wire.answer({"ok": 1})
        self.successResultOf(waiting)

    def test_server_error(self) -> None:
        """The server's own word that time is up is a timeout."""
        wire = self.opened()
        waiting = self.start(self.after(1))
        wire.read()
        wire.answer({"ok": 0, "code": 50, "errmsg": "operation exceeded time limit"})
        self.assertTrue(self.failureResultOf(waiting, ExecutionTimeout).value.timeout)
        self.assertIdle()

    def test_lost(self) -> None:
        """The loss of the connection ends it as ever."""
        wire = self.opened()
        waiting = self.start(self.after(1))
        wire.read()
        wire.lose()
        self.failureResultOf(waiting, AutoReconnect)
        self.assertIdle()

    def test_dirty_session(self) -> None:
        """The session of a command that was not answered is not used again."""
        self.description = StreamDescription(
            max_wire_version=17, server_type=SERVER_TYPE.Mongos, logical_session_timeout_minutes=30
        )
        wire = self.opened()
        waiting = self.start(self.after(0.01))
        [before] = wire.read()
        self.clock.advance(0.01)
        self.failureResultOf(waiting, NetworkTimeout)
        wire.answer({"ok": 1})
        self.start(self.after(1)).addErrback(lambda _: None)
        [following] = wire.read()
        self.assertNotEqual(before["lsid"], following["lsid"])
        self.assertIsInstance(self.executor.sessions.pool, ServerSessionPool)


class BeforeTests(TimedTestCase):
    """The time is up before anything was sent."""

    def test_over(self) -> None:
        """An operation whose time is over already sends nothing."""
        wire = self.opened()
        limit = self.after(1)
        self.clock.advance(1)
        waiting = self.start(limit)
        self.clock.advance(0)
        self.failureResultOf(waiting, ExecutionTimeout)
        self.assertEqual(wire.read(), [])
        self.assertIdle()

    def test_round_trip(self) -> None:
        """What the way to the server and back takes is left to the way; where that is more, nothing is sent."""
        wire = self.opened()
        [server] = self.topology.servers.values()
        server.description._min_round_trip_time = 0.3  # type: ignore[attr-defined]
        self.start(self.after(1)).addErrback(lambda _: None)
        self.assertEqual(wire.read()[0]["maxTimeMS"], 700)
        wire.answer({"ok": 1})
        waiting = self.start(self.after(0.3))
        self.clock.advance(0)
        self.failureResultOf(waiting, ExecutionTimeout)
        self.assertEqual(wire.read(), [])

    def test_selection(self) -> None:
        """No server in time is a timeout of the selection."""
        self.opened()
        waiting = self.start(self.after(1), Ping("admin", address=("gone", 1)))
        self.clock.advance(1)
        self.failureResultOf(waiting, ServerSelectionTimeoutError)
        self.assertIdle()

    def test_server_selection_timeout(self) -> None:
        """serverSelectionTimeoutMS holds where it is less, with timeoutMS=0 too."""
        self.make(serverSelectionTimeoutMS=500)
        for seconds in (1, 0):
            waiting = self.start(self.after(seconds), Ping("admin", address=("gone", 1)))
            self.clock.advance(0.5)
            self.failureResultOf(waiting, ServerSelectionTimeoutError)

    def test_check_out(self) -> None:
        """No connection in time is a timeout; waitQueueTimeoutMS does not count."""
        self.make(waitQueueTimeoutMS=50)
        self.slow_connects = True
        waiting = self.start(self.after(1))
        self.clock.advance(0.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.failureResultOf(waiting, WaitQueueTimeoutError)
        self.assertEqual(self.pool.operation_count, 0)

    def test_check_out_selection_timeout(self) -> None:
        """For server and connection together there is serverSelectionTimeoutMS where it is less."""
        self.make(serverSelectionTimeoutMS=500)
        self.slow_connects = True
        waiting = self.start(self.after(1))
        self.clock.advance(0.5)
        self.failureResultOf(waiting, WaitQueueTimeoutError)

    def test_named_wait_queue(self) -> None:
        """With TxMongo's timeout waitQueueTimeoutMS goes on counting, as ever until a connection is being opened."""
        self.make(waitQueueTimeoutMS=50, maxConnecting=1)
        self.slow_connects = True
        first, second = self.start(self.named(1)), self.start(self.named(1))
        self.clock.advance(0.06)
        self.failureResultOf(second, WaitQueueTimeoutError)
        self.assertNoResult(first)
        self.clock.advance(0.93)
        self.assertNoResult(first)
        self.clock.advance(0.01)
        self.failureResultOf(first, WaitQueueTimeoutError, TimeExceeded)

    def test_closed(self) -> None:
        """A closed executor refuses it."""
        self.executor.close()
        self.failureResultOf(self.start(self.after(1)), InvalidOperation)


class RetryTests(TimedTestCase):
    """Attempts, as long as there is time."""

    def failing(self, limit: TimeLimit, times: int, operation: Any = None) -> tuple[Deferred[Any], Wire]:
        """A read that so many answers, one every 100 ms, ask to repeat."""
        wire = self.opened()
        waiting = self.start(limit, operation or Look("admin"))
        for _ in range(times):
            wire.read()
            self.clock.advance(0.1)
            wire.answer({"ok": 0, "code": 91, "errmsg": "shutting down"})
            self.clock.advance(0)
        return waiting, wire

    def test_many(self) -> None:
        """It is tried again and again; each attempt tells the server what is left."""
        self.patch(self.topology, "handle_error", lambda *a, **k: None)
        waiting, wire = self.failing(self.after(1), 5)
        self.assertEqual(wire.read()[0]["maxTimeMS"], 500)
        wire.answer({"ok": 1})
        self.successResultOf(waiting)
        self.assertIdle()

    def test_until_it_is_over(self) -> None:
        """When the time is up a timeout comes."""
        self.patch(self.topology, "handle_error", lambda *a, **k: None)
        waiting, _wire = self.failing(self.after(1), 9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.failureResultOf(waiting, NetworkTimeout)
        self.assertIdle()

    def test_named(self) -> None:
        """TxMongo's timeout adds no attempts."""
        self.patch(self.topology, "handle_error", lambda *a, **k: None)
        waiting, _wire = self.failing(self.named(1), 2)
        self.failureResultOf(waiting, OperationFailure, AutoReconnect)

    def test_cancelled_in_the_second(self) -> None:
        """A later attempt can be cancelled as the first."""
        self.patch(self.topology, "handle_error", lambda *a, **k: None)
        waiting, wire = self.failing(self.after(1), 1)
        wire.read()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        wire.answer({"ok": 1})
        self.assertIdle()


class NamedTests(TimedTestCase):
    """TxMongo's ``timeout`` and ``deadline``."""

    def test_in_flight(self) -> None:
        """TimeExceeded comes at once, caused by the timeout; the command carries nothing of it."""
        wire = self.opened()
        waiting = self.start(self.named(0.01))
        self.assertEqual(wire.read(), [{"ping": 1, "$db": "admin"}])
        self.clock.advance(0.01)
        error = self.failureResultOf(waiting, TimeExceeded).value
        self.assertIsInstance(error.__cause__, NetworkTimeout)
        wire.answer({"ok": 1})
        self.assertIdle()

    def test_over(self) -> None:
        """A deadline of the past ends it before anything is sent."""
        wire = self.opened()
        waiting = self.start(self.named(-1))
        self.clock.advance(0)
        self.failureResultOf(waiting, TimeExceeded)
        self.assertEqual(wire.read(), [])

    def test_selection(self) -> None:
        """It ends the wait for a server."""
        self.opened()
        waiting = self.start(self.named(1), Ping("admin", address=("gone", 1)))
        self.clock.advance(1)
        error = self.failureResultOf(waiting, TimeExceeded).value
        self.assertIsInstance(error.__cause__, ServerSelectionTimeoutError)


class SocketTimeoutTests(TimedTestCase):
    """socketTimeoutMS beside a limit."""

    def pass_half_a_second(self) -> None:
        """Let time pass without a byte of the server's."""
        self.wires[0].protocol.last_received_at = self.clock.seconds()
        for _ in range(10):
            self.clock.advance(0.05)

    def silent_for(self, limit: TimeLimit) -> Deferred[Any]:
        """An operation that the server does not answer, on a client with a short socketTimeoutMS."""
        self.make(socketTimeoutMS=100)
        waiting = self.start(limit)
        self.pass_half_a_second()
        return waiting

    def test_timeout_ms(self) -> None:
        """It does not count where timeoutMS does."""
        waiting = self.silent_for(self.after(1))
        self.assertNoResult(waiting)
        self.assertFalse(self.wires[0].transport.disconnecting)
        self.clock.advance(0.5)
        self.failureResultOf(waiting, NetworkTimeout)

    def test_named(self) -> None:
        """With TxMongo's timeout it goes on counting."""
        self.silent_for(self.named(1)).addErrback(lambda _: None)
        self.assertTrue(self.wires[0].transport.disconnecting)

    def test_shared(self) -> None:
        """On a connection with an operation for which it counts, it counts."""
        self.make(socketTimeoutMS=100, maxPoolSize=1)
        self.start(self.after(1)).addErrback(lambda _: None)
        self.executor.execute(Ping("admin")).addErrback(lambda _: None)
        self.pass_half_a_second()
        self.assertTrue(self.wires[0].transport.disconnecting)


class InheritedTests(TimedTestCase):
    """How the fronts come by a limit."""

    def test_within(self) -> None:
        """All operations of a call have one deadline; without any limit they run as ever."""
        execute = self.executor.within(1.0, {})
        self.clock.advance(0.5)
        wire = self.opened()
        execute(Ping("admin")).addErrback(lambda _: None)
        self.assertEqual(wire.read()[0]["maxTimeMS"], 500)
        self.assertEqual(self.executor.within(None, {}), self.executor.execute)
        self.assertRaises(TypeError, self.executor.within, None, {"time_out": 1})

    def test_timed(self) -> None:
        """Each operation of an object with a timeoutMS has the whole of it."""
        wire = self.opened()
        self.clock.advance(0.5)
        self.executor.execute_timed(1.0, Ping("admin")).addErrback(lambda _: None)
        self.assertEqual(wire.read()[0]["maxTimeMS"], 1000)

    def test_session(self) -> None:
        """What is done in a session with a limit has that limit, but for the killing of cursors."""
        self.description = StreamDescription(
            max_wire_version=17, server_type=SERVER_TYPE.Mongos, logical_session_timeout_minutes=30
        )
        wire = self.opened()
        session = session_of(self.executor.sessions)
        session.time_limit = self.after(1)
        self.executor.execute(Ping("admin", session=session)).addErrback(lambda _: None)
        self.assertEqual(wire.read()[0]["maxTimeMS"], 1000)
        wire.answer({"ok": 1})
        self.executor.execute_timed(5.0, Ping("admin", session=session)).addErrback(lambda _: None)
        self.assertEqual(wire.read()[0]["maxTimeMS"], 1000)
        wire.answer({"ok": 1})
        killing = KillCursors("admin", "x", [1], ("a", 27017), session=session)
        self.executor.execute(killing).addErrback(lambda _: None)
        self.assertNotIn("maxTimeMS", wire.read()[0])
