"""A state machine that does everything to a pool, in any order, and counts."""

from __future__ import annotations

import math
import os
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import Recorder, Wire, Wires, Work, make_pool
from txmongo._cmap.connection import Connection, ConnectionState
from txmongo._cmap.pool import Pool, PoolState
from txmongo._deferreds import Deadline
from txmongo.errors import AutoReconnect

_EXAMPLES = int(os.environ.get("TXMONGO_POOL_EXAMPLES", "60"))

_POOLS = st.fixed_dictionaries(
    {
        "max_pool_size": st.integers(1, 4),
        "max_connecting": st.integers(1, 2),
        "pipelining": st.sampled_from([True, True, True, False]),
        "max_idle_time": st.sampled_from([None, None, 0.5]),
        "wait_queue_timeout": st.sampled_from([None, None, 0.2]),
        "socket_timeout": st.sampled_from([None, None, 0.3]),
        "wait_queue_size": st.sampled_from([50_000, 3]),
    }
)
_FIXED = st.sampled_from([None, None, None, 1, 2])
_KINDS = st.fixed_dictionaries(
    {
        "exclusive": st.sampled_from([False, False, False, True]),
        "movable": st.sampled_from([True, True, False]),
        "bounded": st.booleans(),
        "unacknowledged": st.sampled_from([False, False, False, True]),
    }
)
_NAMES = st.sampled_from(["find", "find", "find", "aggregate", "insert", "unsendable"])


class WatchedWork(Work):
    """Work that looks whether it may be sent where it is sent."""

    __slots__ = ("machine",)

    def __init__(self, machine: PoolMachine, name: str, **kinds: bool) -> None:
        super().__init__(machine.pool, name, **kinds)
        self.machine = machine

    def _write(self, connection: Connection) -> Deferred[Any]:
        self.machine.sending(self, connection)
        return super()._write(connection)


class PoolMachine(RuleBasedStateMachine):
    """Check-out, check-in, stall, move, loss, clear, cancel: nothing lost or answered twice, counts back to zero."""

    pool: Pool
    listening: bool

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.wires = Wires(self.clock, at_once=False)
        self.recorder = Recorder()
        self.work: list[Work] = []
        self.sent: list[int] = []

    @initialize(
        options=_POOLS, pool_size=_FIXED, min_size=st.integers(0, 2), listening=st.booleans(), at_once=st.booleans()
    )
    def create(
        self, options: dict[str, Any], pool_size: int | None, min_size: int, listening: bool, at_once: bool
    ) -> None:
        """Any kind of pool."""
        self.listening = listening
        self.wires.at_once = at_once
        if pool_size is None:
            options["min_pool_size"] = min(min_size, options["max_pool_size"])
        self.size = pool_size or options["max_pool_size"]
        self.pool = make_pool(
            self.clock,
            self.wires,
            listener=self.recorder if listening else None,
            pool_size=pool_size,
            on_connect_error=self._connect_failed,
            **options,
        )

    def _connect_failed(self, error: Exception, generation: int) -> None:
        if generation == self.pool.generation and str(error) == "clears":
            self.pool.clear(error)

    def sending(self, work: Work, connection: Connection) -> None:
        """A fixed pool of one sends in call order; nothing overtakes an unacknowledged write of a growing pool."""
        pool = self.pool
        if pool._settings.pool_size == 1:
            self.sent.append(self.work.index(work))
            assert self.sent == sorted(self.sent)
        elif pool._settings.pipelining and not pool._fixed:
            for other in pool._connections:
                wire = other.protocol.transport
                assert isinstance(wire, Wire)
                if other is not connection and wire.write_is_unread and not wire.closed:
                    assert other.expected_wait == math.inf, (other, connection)

    # --- what may happen ---

    @rule(kinds=_KINDS, name=_NAMES, count=st.integers(1, 5), wait=st.sampled_from([None, None, 0.0, 0.1]))
    def start(self, kinds: dict[str, bool], name: str, count: int, wait: float | None) -> None:
        """Operations begin."""
        if kinds["unacknowledged"]:
            kinds = {**kinds, "movable": False, "exclusive": False}
        for _ in range(count):
            work = WatchedWork(self, name, **kinds)
            self.work.append(work)
            work.start(Deadline.after(self.clock, wait))

    @rule()
    def open_at_once(self) -> None:
        """From here on connections open, or wait for the next rule, as they did not before."""
        self.wires.at_once = not self.wires.at_once

    @precondition(lambda self: self.wires.waiting)
    @rule(data=st.data(), good=st.sampled_from([True, True, True, False]), clears=st.booleans())
    def connected(self, data: st.DataObject, good: bool, clears: bool) -> None:
        """A connection opens, or cannot be opened."""
        place = data.draw(st.integers(0, len(self.wires.waiting) - 1))
        if good:
            self.wires.open(place)
        else:
            self.wires.fail(AutoReconnect("clears" if clears else "refused"), place)

    def _wires(self, *, unanswered: bool) -> list[Wire]:
        return [wire for wire in self.wires.wires if not wire.closed and (wire.unanswered or not unanswered)]

    @precondition(lambda self: self._wires(unanswered=True))
    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        """The server answers some requests of a connection."""
        wire = data.draw(st.sampled_from(self._wires(unanswered=True)), label="wire")
        wire.reply(data.draw(st.integers(1, len(wire.unanswered))))

    @precondition(lambda self: self._wires(unanswered=False))
    @rule(data=st.data(), frozen=st.booleans())
    def lose(self, data: st.DataObject, frozen: bool) -> None:
        """The server closes a connection, or will not notice that the client does."""
        wire = data.draw(st.sampled_from(self._wires(unanswered=False)), label="wire")
        if frozen:
            wire.frozen = True
        else:
            wire.hang_up()

    @precondition(lambda self: any(work.result is None for work in self.work))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A caller gives up, waiting or in flight."""
        pending = [work for work in self.work if work.result is None]
        data.draw(st.sampled_from(pending), label="work").cancel()

    @rule(count=st.integers(2, 4))
    def queue_up(self, count: int) -> None:
        """Reads go out, one behind the other if they must, and the server does not answer in time."""
        for _ in range(count):
            work = WatchedWork(self, "find", movable=True)
            self.work.append(work)
            work.start()
        self.clock.pump([0.021, 0])

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.005, 0.021, 0.021, 0.3, 3.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.pump([0, seconds, 0])

    @rule(interrupt=st.booleans(), ready=st.booleans())
    def clear(self, interrupt: bool, ready: bool) -> None:
        """The server fails, and recovers."""
        self.pool.clear(AutoReconnect("failed"), interrupt_in_use=interrupt)
        if ready:
            self.pool.ready()

    @precondition(lambda self: self.pool.state is PoolState.PAUSED)
    @rule()
    def ready(self) -> None:
        """The server is found usable."""
        self.pool.ready()

    @rule(rtt=st.sampled_from([0.0, 0.0001, 0.05]))
    def measure(self, rtt: float) -> None:
        """The monitor reports."""
        self.pool.rtt = rtt

    # --- what must hold ---

    @invariant()
    def counts_hold(self) -> None:
        """The pool's numbers are those of what is going on."""
        pool = self.pool
        assert 0 <= pool.total_count <= self.size, pool
        assert len(pool._openings) == len(self.wires.waiting)
        established = list(pool._roster)
        live = [request for c in established for request in c.in_flight if request not in c.late]
        queued = [waiter.request for waiter in pool._queue.all() if waiter.deferred is not None]
        assert pool.operation_count == len(live) + len(queued), pool
        assert len(set(live) | set(queued)) == len(live) + len(queued)
        pending = {work for work in self.work if work.result is None}
        originals = {getattr(request, "original", None) or request for request in (*live, *queued)}
        refused = [deferred for deferred, _ in pool._queue._refusals._pending]
        assert pool._crowd.waiting == len(queued)
        assert originals == {work for work in pending if work.deferred not in refused}
        assert all(work.results <= 1 for work in self.work)
        assert pool.state is PoolState.READY or not queued
        assert repr(pool)

    @invariant()
    def connections_hold(self) -> None:
        """Each connection's numbers are those of its requests, and its protocol agrees."""
        for connection in self.pool._roster:
            assert set(connection.late) <= set(connection.in_flight)
            assert connection.late == {} or connection.protocol.late_reply_hook is not None
            assert connection.open == (connection in self.pool._connections)
            exclusive = [request for request in connection.in_flight if request.exclusive]
            assert not exclusive or len(connection.in_flight) == 1
            if connection.open and connection.protocol.connected:
                assert len(connection.in_flight) == connection.protocol.in_flight
                assert (connection in self.pool._idle) == (not connection.in_flight and not self.pool._fixed)
            if not self.pool._settings.pipelining:
                assert len(connection.in_flight) <= 1

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Who waits does so because nothing is free, and something is being done about it."""
        pool = self.pool
        first = pool._queue.first()
        if first is None:
            return
        unread = pool.last_unacknowledged
        follows_write = unread is not None and first.request.exclusive and bool(unread.in_flight)
        assert not pool._idle or follows_write
        full = pool.total_count == self.size
        assert full or pool.opening_count >= min(pool.waiting_count, pool._growth.max_connecting), pool

    @invariant()
    def events_balance(self) -> None:
        """Each event that begins something has at most one that ends it."""
        if not self.listening:
            return
        count = self.recorder.count
        live = sum(connection.live for connection in self.pool._roster)
        assert count("checked_out") - count("checked_in") == live
        assert count("started") - count("checked_out") - count("failed") == self.pool.waiting_count
        assert count("created") - count("closed") == self.pool.total_count

    def teardown(self) -> None:
        """After all is answered or closed nothing is left."""
        if not hasattr(self, "pool"):
            return
        closed: list[None] = []
        self.pool.close().addCallback(closed.append)
        self.clock.pump([0, 0, 1, 1, 0.5, 0])
        assert closed == [None]
        assert self.clock.getDelayedCalls() == []
        assert self.pool.operation_count == self.pool.total_count == self.pool.waiting_count == 0
        assert all(work.results == 1 for work in self.work), [work.result for work in self.work]
        assert all(wire.closed for wire in self.wires.wires)
        assert self.wires.waiting == []
        self.events_balance()
        ids = [event.connection_id for name, event in self.recorder.events if name == "closed"]
        assert len(ids) == len(set(ids))
        assert all(c.state is ConnectionState.CLOSED for c in self.pool._roster)


class PoolMachineTests(SynchronousTestCase):
    """The machine as a test."""

    def test_machine(self) -> None:
        """Whatever happens to a pool in whatever order, nothing is lost, answered twice or left over."""
        run_state_machine_as_test(
            PoolMachine,
            settings=settings(
                max_examples=_EXAMPLES,
                stateful_step_count=40,
                suppress_health_check=list(HealthCheck),
            ),
        )
