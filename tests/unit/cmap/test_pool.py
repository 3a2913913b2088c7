"""The pool: who gets which connection. Its connections' server ends are played by the tests, its clock is theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo.errors import WaitQueueTimeoutError
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.unit.cmap.wires import ADDRESS, NEVER, STALL, PoolTestCase, Work, wire_of
from txmongo._cmap.connection import CheckOut, Connection, ConnectionState
from txmongo._cmap.errors import CheckOutTimeoutError, PoolClearedError, PoolClosedError, WaitQueueFullError
from txmongo._cmap.pool import Pool, PoolState
from txmongo._deferreds import Deadline
from txmongo._settings import ClientSettings
from txmongo.errors import AutoReconnect, InvalidOperation


class CheckOutTests(PoolTestCase):
    """Getting a connection."""

    def test_first_connection(self) -> None:
        """The first operation opens the first connection and waits for it."""
        self.wires.at_once = False
        self.make()
        (work,) = self.work()
        self.assertIsNone(work.connection)
        wire = self.wires.open()
        self.assertEqual(wire.received, ["find"])
        wire.reply()
        self.assertEqual(work.result, "answered")

    def test_written_inside_the_call(self) -> None:
        """With an idle connection a command is written before the call returns."""
        self.make()
        self.work()
        self.wires[0].reply()
        self.work("ping")
        self.assertEqual(self.wires[0].received, ["find", "ping"])

    def test_last_used_first(self) -> None:
        """Of several idle connections the one that was used last is taken."""
        self.make()
        first, second = self.work(count=2)
        wire_of(first).reply()
        wire_of(second).reply()
        (third,) = self.work()
        self.assertIs(third.connection, second.connection)

    def test_one_is_there(self) -> None:
        """check_out does not wait when there is a connection."""
        pool = self.make(min_pool_size=1)
        request = CheckOut("find")
        connection = self.successResultOf(pool.check_out(request, NEVER))
        self.assertIs(request.connection, connection)

    def test_nothing_at_once(self) -> None:
        """check_out_now leaves no trace when there is no connection."""
        self.wires.at_once = False
        pool = self.make(listening=True)
        self.recorder.events.clear()
        self.assertIsNone(pool.check_out_now(CheckOut("find")))
        self.assertEqual((pool.operation_count, pool.total_count, self.recorder.events), (0, 0, []))

    def test_paused(self) -> None:
        """A paused pool refuses with PoolClearedError, naming what it was cleared by."""
        pool = self.make()
        pool.clear(AutoReconnect("gone fishing"))
        self.assertIsNone(pool.check_out_now(CheckOut("find")))
        error = self.failureResultOf(pool.check_out(CheckOut("find"), NEVER), PoolClearedError).value
        self.assertIn("gone fishing", str(error))
        self.assertEqual(error.address, ADDRESS)
        self.assertIsInstance(error, AutoReconnect)

    def test_never_ready(self) -> None:
        """A pool that was never ready refuses too."""
        pool = Pool(ADDRESS, ClientSettings(), clock=self.clock, connect=self.wires.connect)
        self.assertIs(pool.state, PoolState.PAUSED)
        self.failureResultOf(pool.check_out(CheckOut("find"), NEVER), PoolClearedError)

    def test_closed(self) -> None:
        """A closed pool refuses with an InvalidOperation."""
        pool = self.make()
        pool.close()
        error = self.failureResultOf(pool.check_out(CheckOut("find"), NEVER), InvalidOperation).value
        self.assertIsInstance(error, PoolClosedError)

    def test_counts(self) -> None:
        """Operations are counted from when they wait until they are checked in."""
        self.wires.at_once = False
        pool = self.make()
        self.work(count=3, exclusive=True)
        self.assertEqual((pool.operation_count, pool.waiting_count, pool.opening_count), (3, 3, 2))
        self.wires.open()
        self.assertEqual((pool.operation_count, pool.waiting_count), (3, 2))
        self.wires[0].reply()
        self.assertEqual((pool.operation_count, pool.waiting_count), (2, 1))

    def test_protocols(self) -> None:
        """Those of all connections, in use or not, but for those that are given out no more."""
        pool = self.make()
        first, second = self.work(count=2)
        wire_of(first).reply()
        protocols = [work.connection.protocol for work in (first, second) if work.connection is not None]
        self.assertEqual(pool.protocols(), protocols)
        pool.clear()
        self.assertEqual(pool.protocols(), [])

    def test_check_in_of_what_is_not_out(self) -> None:
        """Checking in what was not checked out, or twice, is refused."""
        pool = self.make()
        request = CheckOut("find")
        self.assertRaises(ValueError, pool.check_in, request)
        self.successResultOf(pool.check_out(request, NEVER))
        pool.check_in(request)
        self.assertRaises(ValueError, pool.check_in, request)
        self.assertEqual(pool.operation_count, 0)

    def test_check_in_elsewhere(self) -> None:
        """Checking in to a pool that did not check out is refused, though it be busy with other things."""
        mine, other = self.make(), self.make(listening=True)
        request = CheckOut("find")
        self.successResultOf(mine.check_out(request, NEVER))
        mine.check_in(request)
        self.assertRaises(ValueError, other.check_in, request)

    def test_abandoned_twice(self) -> None:
        """What was abandoned is checked in; doing it again is refused."""
        pool = self.make()
        (work,) = self.work()
        work.cancel()
        self.assertRaises(ValueError, pool.check_in, work)

    def test_never_sent(self) -> None:
        """A request that could not be sent leaves its connection as it was, and teaches nothing."""
        self.make()
        self.clock.advance(1)
        (work,) = self.work("unsendable")
        self.assertIsInstance(work.result, ValueError)
        self.clock.advance(1)
        (again,) = self.work("unsendable")
        self.assertIsInstance(again.result, ValueError)
        self.assertEqual(self.pool.available_count, 1)
        self.assertEqual(self.pool._averages, {"unsendable": 0.00005} if "unsendable" in self.pool._averages else {})


class WaitingTests(PoolTestCase):
    """The wait queue's ways out."""

    def full(self, **options: Any) -> Deferred[Connection]:
        """One waits for the only connection there may be."""
        self.make(max_pool_size=1, pipelining=False, **options)
        self.work()
        return self.pool.check_out(CheckOut("find"), NEVER)

    def test_cancel(self) -> None:
        """Who cancels leaves the queue, and nothing is sent."""
        waiting = self.full()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.pool.waiting_count, 0)
        self.wires[0].reply()
        self.assertEqual(self.wires[0].received, ["find"])

    def test_cancel_lets_the_next_one_through(self) -> None:
        """When the first in the queue cancels, the next may be served by what the first could not use."""
        self.make(max_pool_size=1)
        self.learn("find", 0.0001)
        self.movable()
        (alone,) = self.work("getMore", exclusive=True)
        (late,) = self.movable()
        alone.cancel()
        self.assertIsNotNone(late.connection)

    def test_wait_queue_timeout(self) -> None:
        """waitQueueTimeoutMS ends the waiting with PyMongo's error, which says what was going on."""
        waiting = self.full(wait_queue_timeout=0.05)
        self.clock.advance(0.049)
        self.assertNoResult(waiting)
        self.clock.advance(0.002)
        error = self.failureResultOf(waiting, WaitQueueTimeoutError).value
        self.assertIsInstance(error, CheckOutTimeoutError)
        self.assertTrue(error.timeout)
        self.assertIn("maxPoolSize: 1, connections to db.example.com:27017 in use: 1, opening: 0", str(error))

    def test_timeout_while_opening(self) -> None:
        """waitQueueTimeoutMS does not hold while a connection is opened for the request."""
        self.wires.at_once = False
        self.make(wait_queue_timeout=0.05, max_connecting=1)
        first, second = self.work(count=2)
        self.clock.pump([0.05, 0.05, 0.05])
        self.assertIsNone(first.result)
        self.assertIsInstance(second.result, WaitQueueTimeoutError)
        self.wires.open()
        self.wires[0].reply()
        self.assertEqual(first.result, "answered")
        self.pass_time(STALL)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deadline(self) -> None:
        """A deadline holds in any case; for one who is patient, instead of waitQueueTimeoutMS."""
        self.wires.at_once = False
        self.make(wait_queue_timeout=0.02, max_connecting=1)
        deadline = Deadline.after(self.clock, 0.05)
        served, patient, other = Work(self.pool), Work(self.pool), Work(self.pool)
        patient.patient = True
        for work in (served, patient, other):
            work.start(deadline)
        self.clock.pump([0.019, 0.002])
        self.assertIsInstance(other.result, WaitQueueTimeoutError)
        self.clock.pump([0.019, 0.009])
        self.assertIsNone(served.result)
        self.assertIsNone(patient.result)
        self.clock.advance(0.002)
        for work in (served, patient):
            self.assertIsInstance(work.result, WaitQueueTimeoutError)
        self.assertEqual(self.pool.operation_count, 0)

    def test_queue_is_full(self) -> None:
        """Beyond waitQueueSize one is refused at once, but not one that was under way before."""
        waiting = self.full(wait_queue_size=1)
        error = self.failureResultOf(self.pool.check_out(CheckOut("find"), NEVER), WaitQueueFullError).value
        self.assertIn("waitQueueSize", str(error))
        self.assertNoResult(waiting)
        again = self.pool.check_out(CheckOut("find"), NEVER, again=True)
        self.assertNoResult(again)
        self.assertEqual((self.pool.waiting_count, self.pool._crowd.waiting), (2, 1))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.pool._crowd.waiting, 0)

    def test_clear(self) -> None:
        """clear() fails all who wait with PoolClearedError, in the next turn of the reactor."""
        waiting = self.full()
        cause = AutoReconnect("lost")
        self.pool.clear(cause)
        self.assertNoResult(waiting)
        self.clock.advance(0)
        error = self.failureResultOf(waiting, PoolClearedError).value
        self.assertIs(error.cause, cause)
        self.assertEqual(self.pool.operation_count, 1)

    def test_close(self) -> None:
        """close() fails all who wait with PoolClosedError."""
        waiting = self.full()
        self.pool.close()
        self.clock.advance(0)
        self.failureResultOf(waiting, PoolClosedError)

    def test_one_cancels_another(self) -> None:
        """Who is told that the pool was cleared may cancel another who was going to be told."""
        first = self.full()
        second = self.pool.check_out(CheckOut("find"), NEVER)
        first.addErrback(lambda _: second.cancel())
        self.pool.clear()
        self.clock.advance(0)
        self.failureResultOf(second, CancelledError)
        self.assertEqual((self.pool.waiting_count, self.pool.operation_count), (0, 1))

    def test_cancelled_before_it_is_told(self) -> None:
        """Between the clearing and the telling one may be cancelled: that is its end."""
        waiting = self.full()
        self.pool.clear()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.clock.advance(0)
        self.assertEqual((self.pool.waiting_count, self.pool.operation_count), (0, 1))

    def test_closed_before_they_are_told(self) -> None:
        """A pool that is closed between the clearing and the telling leaves nobody untold and nothing in the clock."""
        waiting = self.full()
        self.pool.clear()
        closing = self.pool.close()
        self.clock.pump([0, 0, 0])
        self.failureResultOf(waiting, PoolClearedError)
        self.successResultOf(closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_in_order(self) -> None:
        """A long queue is served in order."""
        self.make(max_pool_size=1, pipelining=False)
        work = self.work(count=200)
        for number, each in enumerate(work):
            self.assertIsNotNone(each.connection, number)
            self.wires[0].reply()
            self.assertEqual(each.result, "answered")

    def test_reentrance(self) -> None:
        """Who begins another operation in a callback of the check-out gets its place behind those who wait."""
        self.wires.at_once = False
        self.make(pipelining=False)
        order: list[str] = []
        first = self.pool.check_out(CheckOut("a"), NEVER)
        second = self.pool.check_out(CheckOut("b"), NEVER)

        def again(_: Connection) -> None:
            order.append("first")
            self.pool.check_out(CheckOut("c"), NEVER).addCallback(lambda _: order.append("third"))

        first.addCallback(again)
        second.addCallback(lambda _: order.append("second"))
        for _ in range(3):
            self.wires.open()
        self.assertEqual(order, ["first", "second", "third"])


class EventTests(PoolTestCase):
    """What listeners hear."""

    def test_life_of_an_operation(self) -> None:
        """The events of a first operation, in order, with what they carry."""
        self.wires.at_once = False
        self.make(listening=True)
        self.work()
        self.clock.advance(0.25)
        self.wires.open()
        self.wires[0].reply()
        self.work()
        self.wires[0].reply()
        self.assertEqual(
            self.recorder.names(),
            [
                *("pool_created", "pool_ready"),
                *("started", "created", "ready", "checked_out", "checked_in"),
                *("started", "checked_out", "checked_in"),
            ],
        )
        events = dict(self.recorder.events[:7])
        self.assertEqual({event.address for event in events.values()}, {ADDRESS})
        self.assertEqual({events[name].connection_id for name in ("created", "ready", "checked_out")}, {1})
        self.assertEqual((events["ready"].duration, events["checked_out"].duration), (0.25, 0.25))

    def test_options(self) -> None:
        """The pool's event names the options that are not the defaults, with PyMongo's units."""
        self.make(
            listening=True,
            min_pool_size=1,
            max_idle_time=1.5,
            wait_queue_timeout=0.5,
            max_pool_size=7,
            max_connecting=3,
        )
        self.assertEqual(
            self.recorder.events[0][1].options,
            {
                "minPoolSize": 1,
                "maxPoolSize": 7,
                "maxConnecting": 3,
                "maxIdleTimeMS": 1500,
                "waitQueueTimeoutMS": 500,
            },
        )

    def test_sharing(self) -> None:
        """With sharing, one connection is checked out several times."""
        self.make(listening=True)
        self.movable(2)
        ids = [event.connection_id for name, event in self.recorder.events if name == "checked_out"]
        self.assertEqual(ids, [1, 1])

    def test_reasons(self) -> None:
        """A failed check-out says why."""
        self.make(listening=True, max_pool_size=1, pipelining=False, wait_queue_timeout=0.1)
        self.work(count=2)
        self.clock.advance(0.11)
        self.work()
        self.pool.clear()
        self.pool.close()
        self.work()
        reasons = [event.reason for name, event in self.recorder.events if name == "failed"]
        self.assertEqual(reasons, ["timeout", "connectionError", "poolClosed"])

    def test_listener_that_raises(self) -> None:
        """A listener that raises is logged; nothing else comes of it."""
        pool = self.make(listening=True)
        self.recorder.connection_ready = self.raises  # type: ignore[method-assign]
        (work,) = self.work()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNotNone(work.connection)
        self.assertEqual(pool.total_count, 1)

    @staticmethod
    def raises(_: object) -> None:
        raise ZeroDivisionError

    def do_at(self, hook: str, action: Callable[[], object]) -> None:
        """Let the listener do something when it first hears of an event."""
        keep = getattr(self.recorder, hook)

        def hear(event: object) -> None:
            setattr(self.recorder, hook, keep)
            keep(event)
            action()

        setattr(self.recorder, hook, hear)

    def test_clear_when_ready(self) -> None:
        """A listener may clear the pool when a connection becomes ready: that one is stale then."""
        pool = self.make(listening=True)
        self.do_at("connection_ready", pool.clear)
        (work,) = self.work()
        self.clock.advance(0)
        self.assertIsInstance(work.result, PoolClearedError)
        self.assertEqual((pool.total_count, self.recorder.count("closed")), (0, 1))

    def test_clear_when_checked_out(self) -> None:
        """A listener may clear the pool when a connection is checked out: the operation goes on, on a stale one."""
        pool = self.make(listening=True, min_pool_size=1)
        self.do_at("connection_check_out_started", pool.clear)
        (work,) = self.work()
        self.assertEqual(pool.total_count, 1)
        self.wires[0].reply()
        self.assertEqual((work.result, pool.total_count), ("answered", 0))

    def test_cancel_when_checked_out(self) -> None:
        """A listener may cancel an operation when its connection is checked out: it is checked in, nothing is sent."""
        self.wires.at_once = False
        pool = self.make(listening=True)
        waiting = pool.check_out(CheckOut("find"), NEVER)
        self.do_at("connection_checked_out", waiting.cancel)
        self.wires.open()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((pool.operation_count, pool.available_count), (0, 1))

    def test_cancel_when_failed(self) -> None:
        """A listener may cancel an operation for which no connection could be opened."""
        self.wires.at_once = False
        pool = self.make(listening=True)
        waiting = pool.check_out(CheckOut("find"), NEVER)
        self.do_at("connection_check_out_failed", waiting.cancel)
        self.wires.fail()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(pool.operation_count, 0)

    def test_other_listeners(self) -> None:
        """Listeners of other kinds are none of the pool's."""
        pool = Pool(ADDRESS, ClientSettings(), clock=self.clock, connect=self.wires.connect, listeners=[object()])
        pool.ready()
        self.assertTrue(pool._calm)


class LookTests(PoolTestCase):
    """What a person sees."""

    def test_repr(self) -> None:
        """repr is a status line."""
        self.wires.at_once = False
        self.make()
        self.work(count=2)
        self.wires.open()
        self.assertEqual(
            repr(self.pool),
            "<Pool db.example.com:27017 ready: 2 connections (0 available, 1 opening), 1 in flight, 1 waiting, "
            "generation 0>",
        )

    def test_connection(self) -> None:
        """So is a connection's."""
        self.make()
        (work,) = self.work()
        connection = work.connection
        assert connection is not None
        self.assertEqual(repr(connection), "<Connection 1 to db.example.com:27017 in use, 1 in flight>")
        self.wires[0].reply()
        self.assertIs(connection.state, ConnectionState.AVAILABLE)
        (work,) = self.work()
        work.cancel()
        self.assertIs(connection.state, ConnectionState.IN_USE)
        self.wires[0].hang_up()
        self.assertIs(connection.state, ConnectionState.CLOSED)

    def test_seam(self) -> None:
        """A request that says it is movable has to say how."""
        request = CheckOut("find")
        self.assertRaises(NotImplementedError, request.duplicate)
        self.make()
        connection = self.successResultOf(self.pool.check_out(request, NEVER))
        self.assertRaises(NotImplementedError, request.resend, connection)

    def test_unexpected_error(self) -> None:
        """A fault of the driver's own after a connection was opened is logged, not taken for a failure to open it."""
        self.wires.at_once = False
        self.make()

        def opened(_: Connection, duration: float) -> None:
            raise ZeroDivisionError

        self.pool._openings._opened = opened
        waiting = self.pool.check_out(CheckOut("find"), NEVER)
        self.wires.open()
        self.assertNoResult(waiting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connect_error_without_a_topology(self) -> None:
        """A pool without a topology tells only who waits."""
        self.wires.at_once = False
        self.make()
        waiting = self.pool.check_out(CheckOut("find"), NEVER)
        self.wires.waiting[0].errback(Failure(AutoReconnect("no")))
        self.failureResultOf(waiting, AutoReconnect)
