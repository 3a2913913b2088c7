"""The pool: connections from opening to closing, and its own life."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.unit.cmap.wires import ADDRESS, NEVER, STALL, PoolTestCase, Work, wire_of
from txmongo._cmap.connection import CheckOut, ConnectionState
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.errors import PoolClearedError, PoolClosedError
from txmongo._cmap.pool import Pool, PoolState
from txmongo._settings import ClientSettings
from txmongo.errors import AutoReconnect, NetworkTimeout, OperationFailure


class OpeningTests(PoolTestCase):
    """Opening connections."""

    def test_failure_reaches_one(self) -> None:
        """A failure to open reaches the one who waits longest, and another attempt is made for the next."""
        self.wires.at_once = False
        self.make(max_connecting=1)
        first, second = self.work(count=2)
        error = OperationFailure("wrong password", 18)
        self.wires.fail(error)
        self.assertIs(first.result, error)
        self.assertIsNone(second.result)
        self.wires.open()
        self.assertIsNotNone(second.connection)

    def test_topology_is_told_first(self) -> None:
        """The topology hears of it before the one who waits, and may clear the pool: then all fail."""
        self.wires.at_once = False
        told: list[Any] = []

        def on_error(error: Exception, generation: int) -> None:
            told.append((error, generation, first.result))
            self.pool.clear(error)

        self.make(on_connect_error=on_error, listening=True)
        first, second = self.work(count=2)
        error = AutoReconnect("refused")
        self.wires.fail(error)
        self.assertEqual(told, [(error, 0, None)])
        self.assertIs(first.result, error)
        self.assertIsNone(second.result)
        self.clock.advance(0)
        self.assertIsInstance(second.result, PoolClearedError)
        names = self.recorder.names()
        self.assertLess(names.index("closed"), names.index("failed"))
        self.assertLess(names.index("failed"), names.index("pool_cleared"))

    def test_lost_before_it_is_used(self) -> None:
        """A connection that is lost while it is handed over counts as one that could not be opened."""
        self.make()

        def connect() -> Deferred[Any]:
            deferred = self.wires.connect()
            self.wires.wires[-1].hang_up()
            return deferred

        pool = Pool(ADDRESS, ClientSettings(), clock=self.clock, connect=connect)
        pool.ready()
        waiting = pool.check_out(CheckOut("find"), NEVER)
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.failureResultOf(waiting, AutoReconnect)
        self.assertEqual(pool.total_count, 0)

    def test_cancelled_operation_keeps_the_connection(self) -> None:
        """If the one for whom a connection is opened cancels, it is opened all the same and kept."""
        self.wires.at_once = False
        pool = self.make()
        (work,) = self.work()
        work.cancel()
        self.wires.open()
        self.assertEqual(pool.available_count, 1)
        self.assertEqual(self.wires[0].received, [])


class ClearTests(PoolTestCase):
    """Clearing."""

    def test_generation(self) -> None:
        """Clearing begins a new generation, whatever the state, and pauses the pool."""
        pool = self.make(listening=True)
        pool.clear()
        self.assertEqual((pool.generation, pool.state), (1, PoolState.PAUSED))
        pool.clear()
        self.assertEqual(pool.generation, 2)
        self.assertEqual(self.recorder.count("pool_cleared"), 1)

    def test_idle_ones_are_closed(self) -> None:
        """Idle connections of the old generation are closed."""
        self.make(min_pool_size=2, listening=True)
        self.pool.clear()
        self.pass_time()
        self.assertTrue(all(wire.closed for wire in self.wires.wires))
        self.assertEqual({event.reason for name, event in self.recorder.events if name == "closed"}, {"stale"})

    def test_why_they_are_closed(self) -> None:
        """The one whose loss is the reason for clearing is closed because of an error, the others because of that."""

        class Telling(Work):
            def _failed(self, failure: Failure) -> Any:
                self.pool.clear(failure.value)
                return super()._failed(failure)

        self.make(listening=True)
        first, second = Telling(self.pool).start(), Work(self.pool).start()
        wire_of(second).reply()
        wire_of(first).hang_up()
        assert first.connection is not None and second.connection is not None
        reasons = {event.connection_id: event.reason for name, event in self.recorder.events if name == "closed"}
        self.assertEqual(reasons, {first.connection.id: "error", second.connection.id: "stale"})

    def test_in_use_ones_are_closed_later(self) -> None:
        """Those in use go on, and are closed when they come back."""
        self.make()
        work = self.movable(2)
        self.pool.clear()
        self.pool.ready()
        (other,) = self.movable()
        self.assertIsNot(wire_of(other), self.wires[0])
        self.assertEqual(self.pool.total_count, 2)
        self.wires[0].reply()
        self.assertIs(work[0].connection.state if work[0].connection else None, ConnectionState.IN_USE)
        self.wires[0].reply()
        self.assertEqual(self.pool.total_count, 1)
        self.pass_time()
        self.assertTrue(self.wires[0].closed)

    def test_opening_ones_are_given_up(self) -> None:
        """Those that are being opened are given up, and nobody is blamed."""
        self.wires.at_once = False
        blamed: list[Exception] = []
        self.make(min_pool_size=2, on_connect_error=lambda error, _: blamed.append(error))
        self.pool.clear()
        self.assertEqual((self.wires.waiting, self.pool.total_count, blamed), ([], 0, []))

    def test_interrupt(self) -> None:
        """With interrupt_in_use, operations in flight fail with PoolClearedError, which says why."""
        self.make(listening=True)
        (work,) = self.work()
        self.pool.clear(NetworkTimeout("no answer"), interrupt_in_use=True)
        self.pass_time()
        self.assertIsInstance(work.result, PoolClearedError)
        self.assertIn("interrupted due to server monitor timeout", str(work.result))
        self.assertEqual(self.recorder.names()[-3:], ["pool_cleared", "checked_in", "closed"])

    def test_ready_again(self) -> None:
        """After ready() the pool serves again, on new connections."""
        self.make(min_pool_size=1)
        self.pool.clear()
        self.pool.ready()
        (work,) = self.work()
        assert work.connection is not None
        self.assertEqual(work.connection.generation, 1)

    def test_ready_twice(self) -> None:
        """ready() on a ready or closed pool does nothing."""
        pool = self.make(listening=True)
        pool.ready()
        pool.close()
        pool.ready()
        self.assertEqual((self.recorder.count("pool_ready"), pool.state), (1, PoolState.CLOSED))

    def test_clear_when_closed(self) -> None:
        """A closed pool is not cleared."""
        pool = self.make(listening=True)
        pool.close()
        pool.clear()
        self.assertEqual((pool.generation, self.recorder.count("pool_cleared")), (0, 0))

    def test_service(self) -> None:
        """Behind a load balancer one service's connections become stale, and the pool is not paused."""
        one, other = ObjectId(), ObjectId()
        pool = self.make(listening=True)
        self.wires.description = StreamDescription(service_id=one)
        (first,) = self.work()
        self.wires.description = StreamDescription(service_id=other)
        (second,) = self.work(exclusive=True)
        pool.clear(AutoReconnect("lost"), service_id=one)
        self.assertEqual((pool.generation_for(one), pool.generation_for(other), pool.generation), (1, 0, 0))
        self.assertIs(pool.state, PoolState.READY)
        self.assertEqual(self.recorder.events[-1][1].service_id, one)
        wire_of(first).reply()
        wire_of(second).reply()
        self.assertEqual((pool.total_count, pool.available_count), (1, 1))
        self.assertEqual(pool.generation_for(one), 0)

    def test_interrupted_service(self) -> None:
        """Only the connections of the service are cut."""
        one, other = ObjectId(), ObjectId()
        pool = self.make()
        self.wires.description = StreamDescription(service_id=one)
        (first,) = self.work()
        self.wires.description = StreamDescription(service_id=other)
        (second,) = self.work(exclusive=True)
        pool.clear(service_id=one, interrupt_in_use=True)
        pool.clear(service_id=ObjectId(), interrupt_in_use=True)
        self.pass_time()
        self.assertIsInstance(first.result, PoolClearedError)
        self.assertIsNone(second.result)


class RenewTests(PoolTestCase):
    """Doing without the present connections."""

    def test_idle_and_in_use(self) -> None:
        """Idle connections are closed, those in use when they come back; the pool stays ready."""
        pool = self.make(listening=True)
        first = self.movable(1)[0]
        pool.renew()
        self.assertEqual((pool.state, pool.generation), (PoolState.READY, 1))
        second = self.movable(1)[0]
        self.assertIsNot(wire_of(first), wire_of(second))
        self.assertFalse(wire_of(first).closed)
        pool.check_in(first)
        self.pass_time()
        self.assertTrue(wire_of(first).closed)
        pool.check_in(second)
        pool.renew()
        self.pass_time()
        self.assertTrue(wire_of(second).closed)
        self.assertEqual(self.recorder.count("pool_cleared"), 0)

    def test_being_opened(self) -> None:
        """A connection that is being opened is given up, and another one opened for the one who waits."""
        self.wires.at_once = False
        pool = self.make()
        work = self.work()[0]
        pool.renew()
        self.assertEqual(len(self.wires.waiting), 1)
        self.wires.open()
        self.assertIsNotNone(work.connection)

    def test_fixed(self) -> None:
        """With one connection what is called later is sent later, on the new one."""
        pool = self.make(pool_size=1)
        first = self.work("first")[0]
        pool.renew()
        second = self.work("second")[0]
        self.assertIsNone(second.connection)
        pool.check_in(first)
        self.pass_time()
        self.assertIsNotNone(second.connection)

    def test_closed(self) -> None:
        """A closed pool stays closed."""
        pool = self.make()
        pool.close()
        pool.renew()
        self.assertEqual(pool.generation, 0)


class LossTests(PoolTestCase):
    """Connections that are lost."""

    def test_idle(self) -> None:
        """An idle connection that is lost leaves the pool."""
        self.make(listening=True)
        self.work()
        self.wires[0].reply()
        self.wires[0].hang_up()
        self.assertEqual(self.pool.total_count, 0)
        self.assertEqual(self.recorder.events[-1][1].reason, "error")

    def test_in_use(self) -> None:
        """Who uses a lost connection fails, and it is closed once."""
        self.make(listening=True)
        work = self.movable(3)
        self.wires[0].hang_up()
        self.assertTrue(all(isinstance(each.result, AutoReconnect) for each in work))
        self.assertEqual(self.recorder.names()[-4:], ["checked_in", "checked_in", "checked_in", "closed"])
        self.assertEqual((self.pool.total_count, self.pool.operation_count), (0, 0))

    def test_next_operation_gets_another(self) -> None:
        """Who begins again while the loss is being told is not given the lost connection."""
        self.make()
        self.learn("find", 0.0001)
        first, _ = self.movable(2)
        again: list[Work] = []
        assert first.deferred is not None
        first.deferred.addCallback(lambda _: again.extend(self.movable()))
        self.wires[0].hang_up()
        self.assertIs(wire_of(again[0]), self.wires[1])

    def test_checked_in_later(self) -> None:
        """If the check-in comes after the loss, the connection counts until then."""
        self.make(listening=True)
        request = CheckOut("find")
        self.successResultOf(self.pool.check_out(request, NEVER))
        self.wires[0].hang_up()
        self.assertEqual((self.pool.total_count, self.recorder.count("closed")), (1, 0))
        self.pool.check_in(request)
        self.assertEqual((self.pool.total_count, self.recorder.count("closed")), (0, 1))

    def test_while_late_replies_are_owed(self) -> None:
        """Late replies that were owed are not waited for."""
        self.make()
        (work,) = self.work()
        work.cancel()
        self.wires[0].hang_up()
        self.assertEqual(self.pool.total_count, 0)

    def test_waiters_are_served(self) -> None:
        """The room that a lost connection leaves is used for those who wait."""
        self.make(max_pool_size=1, pipelining=False)
        _, waiting = self.work(count=2)
        self.wires[0].hang_up()
        self.assertIs(wire_of(waiting), self.wires[1])

    def test_silence(self) -> None:
        """After socketTimeoutMS without a byte the connection is closed for all who use it."""
        self.make(socket_timeout=1.0)
        work = self.movable()
        self.clock.advance(0.5)
        work += self.movable()
        self.pass_time(0.49)
        self.assertEqual([each.result for each in work], [None, None])
        self.pass_time(0.02)
        self.assertIsInstance(work[0].result, NetworkTimeout)

    def test_silence_of_a_stale_one(self) -> None:
        """That holds for connections that are stale too."""
        self.make(socket_timeout=1.0)
        (work,) = self.work()
        self.pool.clear()
        self.pass_time(1.1)
        self.assertIsInstance(work.result, NetworkTimeout)
        self.assertEqual(self.pool.total_count, 0)

    def test_silence_elsewhere(self) -> None:
        """A connection is not closed because another is silent."""
        self.make(socket_timeout=1.0)
        (silent,) = self.work()
        self.pass_time(0.5)
        (other,) = self.work()
        self.pass_time(0.6)
        self.assertIsInstance(silent.result, NetworkTimeout)
        self.assertIsNone(other.result)

    def test_no_silence(self) -> None:
        """Each reply begins socketTimeoutMS anew."""
        self.make(socket_timeout=1.0)
        self.learn("find", 0.0001)
        work = self.work("find", 3, exclusive=False)
        for _ in range(3):
            self.pass_time(0.9)
            for wire in self.wires.wires:
                if wire.unanswered and not wire.closed:
                    wire.reply()
        self.assertEqual([each.result for each in work], ["answered"] * 3)


class FixedPoolTests(PoolTestCase):
    """A pool of a given number of connections."""

    def test_opened_at_once(self) -> None:
        """All connections are opened when the pool is ready, maxConnecting or not."""
        self.wires.at_once = False
        self.make(pool_size=5)
        self.assertEqual(len(self.wires.waiting), 5)

    def test_in_turn(self) -> None:
        """Operations are dealt to the connections in turn."""
        self.make(pool_size=2)
        work = self.work(count=4)
        self.assertEqual([wire_of(each) for each in work], [self.wires[0], self.wires[1]] * 2)

    def test_call_order(self) -> None:
        """With one connection everything is sent in the order of the calls, what waited for the connection too."""
        self.wires.at_once = False
        self.make(pool_size=1)
        for number in range(100):
            self.work(f"c{number}", unacknowledged=number % 3 == 0, movable=number % 2 == 0)
        self.wires.open()
        for number in range(100, 200):
            self.work(f"c{number}", unacknowledged=number % 3 == 0, movable=number % 2 == 0)
        self.assertEqual(self.wires[0].received, [f"c{number}" for number in range(200)])

    def test_nothing_is_moved(self) -> None:
        """Nothing is moved, and a stalled connection is dealt like any other."""
        self.make(pool_size=2)
        self.movable(4)
        self.pass_time(STALL)
        self.movable(2)
        self.assertEqual([len(wire.received) for wire in self.wires.wires], [3, 3])

    def test_exclusive_keeps_order(self) -> None:
        """Exclusive use waits until nothing is in flight, and all that comes later waits behind it."""
        self.make(pool_size=1)
        self.work("a")
        (alone,) = self.work("b", exclusive=True)
        self.work("c")
        self.assertEqual(self.wires[0].received, ["a"])
        self.wires[0].reply()
        self.assertEqual(self.wires[0].received, ["a", "b"])
        self.wires[0].reply()
        self.assertEqual(alone.result, "answered")
        self.assertEqual(self.wires[0].received, ["a", "b", "c"])

    def test_reopened(self) -> None:
        """A connection that is lost after a while is opened again at once."""
        self.make(pool_size=2)
        self.clock.advance(5)
        self.wires[0].hang_up()
        self.assertEqual((self.pool.total_count, len(self.wires.wires)), (2, 3))

    def test_back_off(self) -> None:
        """One that is lost soon, or cannot be opened, is opened again after a pause that grows."""
        self.wires.at_once = False
        self.make(pool_size=1, retry_delay=1.0, max_delay=3.0)
        for pause in (1.0, 2.0, 3.0, 3.0):
            self.wires.fail()
            self.clock.advance(pause - 0.01)
            self.assertEqual(len(self.wires.waiting), 0)
            self.clock.advance(0.02)
            self.assertEqual(len(self.wires.waiting), 1)

    def test_back_off_ends(self) -> None:
        """A connection that lived long ends the series of pauses."""
        self.make(pool_size=1, retry_delay=1.0, max_delay=60.0)
        for _ in range(2):
            self.wires[-1].hang_up()
            self.pass_time(2.1)
        self.pass_time(5)
        self.wires[-1].hang_up()
        self.assertEqual(self.pool.available_count, 1)
        self.wires[-1].hang_up()
        self.pass_time(1.01)
        self.assertEqual(self.pool.available_count, 1)

    def test_operation_does_not_wait_for_the_pause(self) -> None:
        """An operation does not wait for the pause."""
        self.wires.at_once = False
        self.make(pool_size=1)
        self.wires.fail()
        self.work()
        self.assertEqual(len(self.wires.waiting), 1)

    def test_clear(self) -> None:
        """After clear() and ready() there are as many connections again, never more."""
        self.make(pool_size=2)
        (work,) = self.work()
        self.pool.clear()
        self.assertEqual(self.pool.total_count, 1)
        self.pool.ready()
        self.assertEqual(self.pool.total_count, 2)
        self.wires[0].reply()
        self.assertEqual(work.result, "answered")
        self.assertEqual((self.pool.total_count, self.pool.available_count), (2, 2))

    def test_abandoned(self) -> None:
        """A stalled connection that nobody waits on is cut and opened again."""
        self.make(pool_size=1)
        self.clock.advance(5)
        (work,) = self.work()
        work.cancel()
        self.pass_time(STALL)
        self.assertTrue(self.wires[0].closed)
        self.work()
        self.assertEqual(self.wires[1].received, ["find"])

    def test_one_per_connection(self) -> None:
        """Without pipelining a connection is dealt when it is free."""
        self.make(pool_size=2, pipelining=False)
        self.work(count=3)
        self.assertEqual(self.pool.waiting_count, 1)


class CloseTests(PoolTestCase):
    """The end of a pool."""

    def test_everything_ends(self) -> None:
        """close() ends idle and busy connections, those being opened, those who wait, and every delayed call."""
        self.make(max_idle_time=5, socket_timeout=60, listening=True, max_pool_size=3, wait_queue_timeout=60)
        idle, busy = self.work(count=2, exclusive=True)
        wire_of(idle).reply()
        self.work(exclusive=True)
        self.wires.at_once = False
        opening, waiting = self.work(count=2, exclusive=True)
        closed = self.pool.close()
        self.assertNoResult(closed)
        self.pass_time()
        self.successResultOf(closed)
        self.assertIsInstance(busy.result, AutoReconnect)
        self.assertIsInstance(opening.result, PoolClosedError)
        self.assertIsInstance(waiting.result, PoolClosedError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.recorder.count("created"), self.recorder.count("closed"))

    def test_twice(self) -> None:
        """Whoever closes is told; the events come once."""
        self.make(listening=True)
        first, second = self.pool.close(), self.pool.close()
        self.pass_time()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.recorder.count("pool_closed"), 1)

    def test_not_waited_for(self) -> None:
        """Who does not want to wait may cancel; the pool closes all the same."""
        self.make()
        self.work()
        self.wires[0].reply()
        self.wires[0].frozen = True
        closed = self.pool.close()
        self.clock.advance(0)
        closed.cancel()
        self.failureResultOf(closed, CancelledError)
        self.pass_time(2.1)
        self.assertTrue(self.wires[0].closed)

    def test_frozen_server(self) -> None:
        """A server that takes no notice is cut off after two seconds."""
        self.make()
        self.work()
        self.wires[0].reply()
        self.wires[0].frozen = True
        closed = self.pool.close()
        self.pass_time(1.9)
        self.assertNoResult(closed)
        self.pass_time(0.2)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_was_written_leaves(self) -> None:
        """Idle connections are closed in an orderly manner: an unacknowledged write is not cut off."""
        self.make()
        self.work("insert", unacknowledged=True)
        cut: list[None] = []
        self.wires[0].abortConnection = lambda: cut.append(None)  # type: ignore[method-assign]
        self.pool.close()
        self.pass_time()
        self.assertEqual((self.wires[0].closed, cut), (True, []))

    def test_given_up_but_opened(self) -> None:
        """A connection that was opened all the same after it was given up is closed."""
        self.make()
        late: Deferred[Any] = Deferred(lambda deferred: deferred.callback(self.opened()))
        pool = Pool(ADDRESS, ClientSettings(), clock=self.clock, connect=lambda: late)
        pool.ready()
        waiting = pool.check_out(CheckOut("find"), NEVER)
        pool.close()
        self.pass_time()
        self.failureResultOf(waiting, PoolClosedError)
        self.assertTrue(self.wires[0].closed)
        self.assertEqual(pool.total_count, 0)

    def opened(self) -> Any:
        """A connection."""
        return self.successResultOf(self.wires.connect())

    def test_closed_by_a_listener(self) -> None:
        """A listener may close the pool while a connection is about to be opened."""
        self.wires.at_once = False
        pool = self.make(listening=True)
        self.recorder.connection_created = lambda event: self.ends.append(pool.close())  # type: ignore[method-assign]
        self.ends: list[Deferred[None]] = []
        (work,) = self.work()
        self.pass_time()
        self.assertIsInstance(work.result, PoolClosedError)
        self.successResultOf(self.ends[0])
        self.assertEqual(self.wires.waiting, [])
