"""``txmongo._cmap.pinning``: connections to a load balancer that somebody keeps."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.unit.cmap.wires import ADDRESS, NEVER, PoolTestCase, Recorder, Wire, Wires, Work
from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.errors import CheckOutTimeoutError, PoolClosedError
from txmongo._cmap.pinning import BalancedPool, Holder, Pin
from txmongo._deferreds import Deadline
from txmongo._settings import ClientSettings
from txmongo.errors import AutoReconnect, NetworkTimeout


class Keeping(Work):
    """A request whose connection may be kept, or that has to have one that is kept.

    :ivar on: the pin that it has to be sent on.
    """

    on: Pin | None = None

    def pinned_to(self) -> Pin | None:
        """That one."""
        return self.on

    def may_pin(self) -> bool:
        """It may."""
        return True


class PinTests(PoolTestCase):
    """Who keeps a connection, and until when."""

    clock: Clock
    wires: Wires
    pool: BalancedPool

    def make(self, *, listening: bool = False, **options: Any) -> BalancedPool:
        """A pool of a load balancer."""
        self.recorder = Recorder()
        listeners = [self.recorder] if listening else []
        settings = ClientSettings(**options)
        self.pool = BalancedPool(ADDRESS, settings, clock=self.clock, connect=self.wires.connect, listeners=listeners)
        self.pool.ready()
        return self.pool

    def begin(self, on: Pin | None = None, deadline: Deadline = NEVER) -> Keeping:
        """Begin a request, on a pin or on what may become one."""
        work = Keeping(self.pool, "find")
        work.on = on
        work.start(deadline)
        return work

    def keep(self, holder: Holder = Holder.CURSOR) -> tuple[Pin, Wire]:
        """A connection that is kept, and on which nothing is under way."""
        work = self.begin()
        assert work.pin is not None and work.connection is not None
        pin, wire = work.pin.hold(holder), self.wire(work.connection)
        wire.reply()
        self.assertEqual(work.result, "answered")
        self.assertIsNone(work.pin)
        return pin, wire

    @staticmethod
    def wire(connection: Connection) -> Wire:
        """The server's end of a connection."""
        wire = connection.protocol.transport
        assert isinstance(wire, Wire)
        return wire

    def counts(self) -> tuple[int, int]:
        """How many connections there are, and how many of them are free."""
        return self.pool.total_count, self.pool.available_count

    def test_not_kept(self) -> None:
        """If nobody keeps it a connection is free again after the reply; until then it is for that request alone."""
        self.make()
        work = self.begin()
        (other,) = self.work()
        self.assertIsNot(other.connection, work.connection)
        for each in (work, other):
            assert each.connection is not None
            self.wire(each.connection).reply()
        self.assertEqual(self.counts(), (2, 2))
        self.assertEqual(self.pool._pins, {})

    def test_kept(self) -> None:
        """What is pinned is sent on the connection that is kept, nothing else is; without events, for it is out."""
        self.make(listening=True)
        pin, wire = self.keep()
        self.recorder.events.clear()
        (other,) = self.work()
        self.assertIsNot(other.connection, pin.connection)
        self.recorder.events.clear()
        more = self.begin(pin)
        self.assertEqual(wire.received, ["find", "find"])
        self.assertTrue(pin.in_use)
        self.assertIn("for a cursor, 1 in use", repr(pin))
        wire.reply()
        self.assertEqual(more.result, "answered")
        self.assertEqual(self.recorder.events, [])
        self.assertFalse(pin.in_use)
        pin.release(Holder.CURSOR)
        self.assertEqual(self.recorder.names(), ["checked_in"])
        self.assertEqual(self.counts(), (2, 1))

    def test_two_holders(self) -> None:
        """A transaction and a cursor of it keep the same one, until both have let it go; it counts as the former's."""
        self.make()
        pin, _ = self.keep(Holder.TRANSACTION)
        pin.hold(Holder.CURSOR)
        self.assertIs(pin.holder, Holder.TRANSACTION)
        pin.release(Holder.TRANSACTION)
        self.assertIs(pin.holder, Holder.CURSOR)
        self.assertEqual(self.counts(), (1, 0))
        pin.release(Holder.CURSOR)
        self.assertIn("for nobody, 0 in use", repr(pin))
        self.assertEqual(self.counts(), (1, 1))

    def test_released_in_use(self) -> None:
        """Released while a request is out on it, it is free after the reply."""
        self.make()
        pin, wire = self.keep()
        work = self.begin(pin)
        pin.release(Holder.CURSOR)
        self.assertEqual(self.counts(), (1, 0))
        wire.reply()
        self.assertEqual(work.result, "answered")
        self.assertEqual(self.counts(), (1, 1))

    def test_waits(self) -> None:
        """One that may pin waits for a connection like any other, and can be cancelled; one that is pinned never."""
        self.make(max_pool_size=1)
        pin, wire = self.keep()
        waiting, cancelled = self.begin(), self.begin()
        self.assertEqual(self.pool.waiting_count, 2)
        cancelled.cancel()
        self.assertIsInstance(cancelled.result, CancelledError)
        self.begin(pin)
        wire.reply()
        pin.release(Holder.CURSOR)
        wire.reply()
        self.assertEqual(waiting.result, "answered")
        self.assertEqual(self.counts(), (1, 1))

    def test_check_out_pinned(self) -> None:
        """check_out gives the kept connection at once too, and refuses to take one back twice."""
        self.make()
        pin, _ = self.keep()
        request = Keeping(self.pool)
        request.on = pin
        self.assertIs(self.successResultOf(self.pool.check_out(request, NEVER)), pin.connection)
        self.pool.check_in(request)
        self.assertRaises(ValueError, self.pool.check_in, request)
        self.assertRaises(ValueError, pin.give_back, request)

    def test_abandoned(self) -> None:
        """While it is kept a late reply is dropped; a connection on which one is still to come is closed, not free."""
        self.make()
        for late in (True, False):
            pin, wire = self.keep()
            self.begin(pin).cancel()
            more = self.begin(pin)
            wire.reply(2)
            self.assertEqual(more.result, "answered")
            self.begin(pin).cancel()
            if not late:
                wire.reply()
            pin.release(Holder.CURSOR)
            self.clock.advance(0)
            self.assertEqual(self.counts(), (0, 0) if late else (1, 1))

    def test_lost(self) -> None:
        """A request on one that was lost fails; it counts until it is let go."""
        self.make()
        pin, wire = self.keep()
        wire.hang_up()
        self.assertEqual(self.counts(), (1, 0))
        self.assertIsInstance(self.begin(pin).result, AutoReconnect)
        pin.release(Holder.CURSOR)
        self.assertEqual(self.counts(), (0, 0))

    def test_cleared(self) -> None:
        """One that is stale is used on, and closed when it is let go."""
        self.make()
        pin, wire = self.keep()
        self.pool.clear(AutoReconnect("gone"))
        work = self.begin(pin)
        wire.reply()
        self.assertEqual(work.result, "answered")
        pin.release(Holder.CURSOR)
        self.assertEqual(self.counts(), (0, 0))

    def test_timeout(self) -> None:
        """When the time to wait is over the error says for whom connections are kept."""
        self.make(max_pool_size=3, wait_queue_timeout=0.1)
        self.keep(Holder.CURSOR)
        self.keep(Holder.TRANSACTION)
        self.begin()
        waiting = self.begin()
        self.clock.advance(0.1)
        self.assertIsInstance(waiting.result, CheckOutTimeoutError)
        self.assertIn(
            "maxPoolSize: 3, connections in use by cursors: 1, connections in use by transactions: 1, "
            "connections in use by other operations: 1",
            str(waiting.result),
        )

    def test_socket_timeout(self) -> None:
        """Nothing comes on a connection that is only kept: socketTimeoutMS counts while a request is under way."""
        self.make(socket_timeout=1.0)
        pin, wire = self.keep()
        self.clock.pump([0.5] * 10)
        work = self.begin(pin)
        self.clock.pump([0.5])
        wire.reply()
        self.assertEqual(work.result, "answered")
        self.clock.pump([0.5] * 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        work = self.begin(pin)
        self.clock.pump([0.5, 0.5, 0.1, 0])
        self.assertIsInstance(work.result, NetworkTimeout)

    def test_socket_timeout_patient(self) -> None:
        """It does not count for one whose time is limited in another way, whether it pins or is pinned."""
        self.make(socket_timeout=1.0)
        work = Keeping(self.pool)
        work.patient = True
        work.start()
        self.clock.pump([0.5] * 10)
        self.assertIsNone(work.result)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        assert work.pin is not None and work.connection is not None
        pin, wire = work.pin.hold(Holder.CURSOR), self.wire(work.connection)
        wire.reply()
        work = Keeping(self.pool)
        work.patient, work.on = True, pin
        work.start()
        self.clock.pump([0.5] * 10)
        self.assertIsNone(work.result)
        wire.reply()
        self.assertEqual(work.result, "answered")

    def test_others(self) -> None:
        """Requests that never pin are shared out as ever."""
        self.make()
        self.assertIsNone(CheckOut("find").pinned_to())
        self.assertFalse(CheckOut("find").may_pin())
        (work,) = self.work()
        assert work.connection is not None
        self.wire(work.connection).reply()
        self.assertEqual(self.counts(), (1, 1))

    def test_closed(self) -> None:
        """A pool that closes cuts what is kept; who waits is refused, and letting go afterwards does no harm."""
        self.make(max_pool_size=1)
        pin, _ = self.keep()
        waiting: Deferred[Any] = self.pool.check_out(Keeping(self.pool), NEVER)
        closed = self.pool.close()
        self.clock.advance(0)
        self.failureResultOf(waiting, PoolClosedError)
        self.successResultOf(closed)
        pin.release(Holder.CURSOR)
        self.assertEqual(self.counts(), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
