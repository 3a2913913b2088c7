"""What a pool does unasked: by itself, and in a pool."""

from __future__ import annotations

import math
from typing import Any

from pymongo.monitoring import ConnectionClosedReason
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import PoolTestCase, lone_connection, wire_of
from txmongo._cmap.connection import Connection
from txmongo._cmap.maintenance import Maintenance


class Growing:
    """Stands for how a pool grows: says when that is due, and counts how often it was asked to.

    :ivar at: when it is due.
    """

    def __init__(self) -> None:
        self.at = math.inf
        self.asked = 0

    def due(self, now: float) -> float:
        return self.at if self.at > now else math.inf

    def grow(self) -> None:
        self.asked += 1


class MaintenanceTests(SynchronousTestCase):
    """Without a pool."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.idle: list[Connection] = []
        self.retired: list[str] = []
        self.growth = Growing()
        self.ready = True
        self.maintenance = self.make(10.0)

    def make(self, max_idle: float) -> Maintenance:
        growth: Any = self.growth
        return Maintenance(
            self.clock, self.idle, growth, max_idle=max_idle, ready=lambda: self.ready, retire=self.retire
        )

    def retire(self, connection: Connection, reason: str) -> None:
        self.idle.remove(connection)
        self.retired.append(reason)

    def add_idle(self, since: float) -> None:
        connection = lone_connection()
        connection.idle_since = since
        self.idle.append(connection)

    def planned(self) -> list[float]:
        """For when something is planned."""
        return [call.getTime() for call in self.clock.getDelayedCalls()]

    def test_nothing(self) -> None:
        """Where nothing will be due there is no delayed call: none idle, or idle ones that never get too old."""
        self.maintenance.plan()
        self.assertEqual(self.planned(), [])
        self.maintenance = self.make(math.inf)
        self.add_idle(0.0)
        self.maintenance.plan()
        self.assertEqual((self.planned(), self.maintenance.call), ([], None))

    def test_idle(self) -> None:
        """Each idle connection is closed when it is too old, the others then."""
        for since in (0.0, 0.0, 4.0):
            self.add_idle(since)
        self.maintenance.plan()
        self.assertEqual(self.planned(), [10.0])
        self.clock.advance(10.0)
        self.assertEqual(self.retired, [ConnectionClosedReason.IDLE] * 2)
        self.assertEqual((self.planned(), self.growth.asked), ([14.0], 1))
        self.clock.advance(4.0)
        self.assertEqual((len(self.retired), self.planned(), self.maintenance.call), (3, [], None))

    def test_used_meanwhile(self) -> None:
        """One that was used meanwhile is left, and looked at again when it will be too old."""
        self.add_idle(0.0)
        self.maintenance.plan()
        self.idle[0].idle_since = 5.0
        self.clock.advance(10.0)
        self.assertEqual((self.retired, self.planned()), ([], [15.0]))

    def test_growth(self) -> None:
        """Filling up happens when that is due, if that is sooner."""
        self.add_idle(0.0)
        self.growth.at = 1.0
        self.maintenance.plan()
        self.assertEqual(self.planned(), [1.0])
        self.clock.advance(1.0)
        self.assertEqual((self.growth.asked, self.planned()), (1, [10.0]))

    def test_anew(self) -> None:
        """Planning again forgets what was planned before."""
        self.growth.at = 5.0
        self.maintenance.plan()
        self.growth.at = 2.0
        self.maintenance.plan()
        self.assertEqual(self.planned(), [2.0])

    def test_not_ready(self) -> None:
        """While the pool is not ready nothing is planned, and what was planned is forgotten."""
        self.add_idle(0.0)
        self.maintenance.plan()
        self.ready = False
        self.maintenance.plan()
        self.assertEqual((self.planned(), self.maintenance.call), ([], None))

    def test_overdue(self) -> None:
        """What is overdue is done soon, not at once: never while whoever plans it is at work."""
        self.clock.advance(20.0)
        self.add_idle(0.0)
        self.maintenance.plan()
        self.assertEqual(self.planned(), [20.001])
        self.assertEqual(self.retired, [])


class IdleTests(PoolTestCase):
    """maxIdleTimeMS."""

    def test_closed_in_the_background(self) -> None:
        """A connection that was idle for too long is closed, without anybody asking."""
        pool = self.make(max_idle_time=10, listening=True)
        self.work()
        self.wires[0].reply()
        self.pass_time(9)
        self.assertEqual(pool.total_count, 1)
        self.pass_time(1.1)
        self.assertEqual(pool.total_count, 0)
        self.assertEqual(self.recorder.events[-1][1].reason, "idle")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_counted_from_the_last_use(self) -> None:
        """Each use begins the time anew, and use itself is not idleness."""
        pool = self.make(max_idle_time=10)
        self.work()
        self.pass_time(8)
        self.wires[0].reply()
        self.pass_time(8)
        self.work()
        self.pass_time(30)
        self.assertEqual(pool.total_count, 1)
        self.wires[0].reply()
        self.pass_time(9)
        self.assertEqual(pool.total_count, 1)
        self.pass_time(2)
        self.assertEqual(pool.total_count, 0)

    def test_found_at_check_out(self) -> None:
        """One that is found to be too old is closed and not given out."""
        self.make(max_idle_time=10)
        self.work()
        self.wires[0].reply()
        self.clock.rightNow += 11
        (work,) = self.work()
        self.assertIs(wire_of(work), self.wires[1])

    def test_filled_up(self) -> None:
        """Below minPoolSize it is replaced."""
        pool = self.make(max_idle_time=10, min_pool_size=2)
        self.pass_time(11)
        self.assertEqual(pool.available_count, 2)
        self.assertEqual(len(self.wires.wires), 4)
