"""How many connections a pool opens, and when: by itself, and in a pool."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import ADDRESS, NEVER, PoolTestCase, lone_connection
from txmongo._cmap.connection import CheckOut
from txmongo._cmap.generations import Generations
from txmongo._cmap.growth import Growth
from txmongo._cmap.opening import Openings
from txmongo._cmap.roster import Roster
from txmongo._cmap.wait_queue import Crowd, WaitQueue
from txmongo._settings import ClientSettings
from txmongo.errors import AutoReconnect


class GrowthTests(SynchronousTestCase):
    """Without a pool: what is opened stays in the state of being opened, or fails."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.ready = True
        self.generations = Generations()
        self.roster = Roster(self.clock, self.generations, None)
        #: What becomes of an attempt at once.
        self.error: Exception | None = None
        self.failed: list[int] = []
        self.openings = Openings(ADDRESS, self.clock, self.connect, None, opened=self.fail, failed=self.open_failed)
        self.queue = WaitQueue(
            Crowd(10),
            self.clock,
            None,
            opening=lambda: len(self.openings),
            time_is_up=self.fail,
            left=self.fail,
            given_up=self.fail,
        )

    def connect(self) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        if self.error is not None:
            deferred.errback(self.error)
        return deferred

    def open_failed(self, failure: Any, generation: int) -> None:
        self.failed.append(generation)
        self.growth.failed()
        self.growth.grow()

    def make(self, **options: Any) -> Growth:
        self.growth = Growth(
            ClientSettings(**options),
            self.clock,
            self.roster,
            self.generations,
            self.queue,
            self.openings,
            ready=lambda: self.ready,
        )
        return self.growth

    def wait(self, count: int) -> None:
        """Some wait for a connection."""
        for _ in range(count):
            self.queue.wait(CheckOut("find"), self.clock.seconds(), NEVER, None, counted=True)

    def test_sizes(self) -> None:
        """A growing pool has its limits, a fixed one is always of one size and opens all of that at once."""
        growing = self.make(min_pool_size=1, max_pool_size=7, max_connecting=3)
        self.assertEqual((growing.minimum, growing.maximum, growing.max_connecting), (1, 7, 3))
        self.assertFalse(growing.fixed)
        fixed = self.make(pool_size=5)
        self.assertEqual((fixed.minimum, fixed.maximum, fixed.max_connecting), (5, 5, 5))
        self.assertTrue(fixed.fixed)

    def test_grow(self) -> None:
        """One is opened for each who waits, as many as maxConnecting at once and maxPoolSize together."""
        growth = self.make(max_pool_size=2, max_connecting=5)
        growth.grow()
        self.assertEqual(len(self.openings), 0)
        self.wait(3)
        self.assertTrue(growth.may_grow())
        growth.grow()
        self.assertEqual(len(self.openings), 2)
        self.assertFalse(growth.may_grow())

    def test_not_ready(self) -> None:
        """A pool that is not ready opens none."""
        self.ready = False
        self.make(min_pool_size=1).grow()
        self.assertEqual(len(self.openings), 0)

    def test_asked_while_it_grows(self) -> None:
        """Each attempt that fails at once is counted, and asking for more meanwhile does not begin anew."""
        growth = self.make(max_connecting=1)
        self.error = AutoReconnect("refused")
        self.wait(1)
        under_way: list[bool] = []

        def open_failed(failure: Any, generation: int) -> None:
            under_way.append(growth.under_way)
            growth.grow()
            self.ready = len(under_way) < 3

        self.openings._failed = open_failed
        growth.grow()
        self.assertEqual(under_way, [True] * 3)
        self.assertFalse(growth.under_way)

    def test_generation(self) -> None:
        """Attempts are of the generation in which they are begun."""
        self.make(min_pool_size=1)
        self.error = AutoReconnect("refused")
        self.generations.end(None)
        self.growth.grow()
        self.assertEqual(self.failed, [1])

    def test_pause(self) -> None:
        """After a failure the minimum is left for a second, after which filling up is due."""
        growth = self.make(min_pool_size=2)
        self.assertEqual(growth.due(100.0), math.inf)
        growth.failed()
        growth.grow()
        self.assertEqual((len(self.openings), growth.due(100.0)), (0, 101.0))
        self.clock.advance(1.0)
        self.assertEqual(growth.due(101.0), math.inf)
        growth.grow()
        self.assertEqual(len(self.openings), 2)

    def test_pause_of_who_is_full(self) -> None:
        """Nothing is due when the minimum is reached."""
        growth = self.make(min_pool_size=1)
        growth.failed()
        self.roster.add(lone_connection())
        self.assertEqual(growth.due(100.0), math.inf)

    def test_pause_when_somebody_waits(self) -> None:
        """Who waits does not wait for the end of the pause; a fixed pool opens all of its connections then."""
        for options, expected in (({"min_pool_size": 3}, 1), ({"pool_size": 3}, 3)):
            self.setUp()
            growth = self.make(**options)
            growth.failed()
            growth.grow()
            self.assertEqual(len(self.openings), 0)
            self.wait(1)
            growth.grow()
            self.assertEqual(len(self.openings), expected)

    def test_begin_anew(self) -> None:
        """That the server is usable ends the pause of a growing pool; a fixed one has the pause that it was told."""
        for options, expected in (({"min_pool_size": 1}, 1), ({"pool_size": 1}, 0)):
            self.setUp()
            growth = self.make(**options)
            growth.failed()
            growth.begin_anew()
            growth.grow()
            self.assertEqual(len(self.openings), expected)

    def test_lost(self) -> None:
        """A connection that did not live for long makes a pause as a failure does, one that did makes none."""
        growth = self.make(min_pool_size=1)
        growth.lost(90.0)
        self.assertEqual(growth.due(100.0), math.inf)
        growth.lost(99.9)
        self.assertEqual(growth.due(100.0), 101.0)


class SizeTests(PoolTestCase):
    """A pool that grows."""

    def test_max_connecting(self) -> None:
        """No more than maxConnecting are opened at once."""
        self.wires.at_once = False
        pool = self.make(max_connecting=2)
        self.work(count=5, exclusive=True)
        self.assertEqual(len(self.wires.waiting), 2)
        self.wires.open()
        self.assertEqual(len(self.wires.waiting), 2)
        self.assertEqual(pool.total_count, 3)

    def test_minimum(self) -> None:
        """minPoolSize connections are opened as soon as the pool is ready, and kept up."""
        pool = self.make(min_pool_size=3)
        self.assertEqual(pool.available_count, 3)
        self.clock.advance(2)
        self.wires[1].hang_up()
        self.assertEqual(pool.available_count, 3)

    def test_minimum_in_the_background(self) -> None:
        """Filling up keeps to maxConnecting, and those who wait come first."""
        self.wires.at_once = False
        pool = self.make(min_pool_size=3)
        self.assertEqual(len(self.wires.waiting), 2)
        (work,) = self.work()
        self.wires.open()
        self.assertIsNotNone(work.connection)
        self.wires.open()
        self.wires.open()
        self.assertEqual((pool.total_count, len(self.wires.waiting)), (3, 0))

    def test_minimum_after_a_failure(self) -> None:
        """Filling up that fails is tried again after a second, not at once."""
        self.wires.at_once = False
        errors: list[Exception] = []
        self.make(min_pool_size=1, on_connect_error=lambda error, _: errors.append(error))
        self.wires.fail()
        self.assertEqual(len(errors), 1)
        self.assertEqual(len(self.wires.waiting), 0)
        self.clock.advance(0.99)
        self.assertEqual(len(self.wires.waiting), 0)
        self.clock.advance(0.02)
        self.assertEqual(len(self.wires.waiting), 1)

    def test_server_that_hangs_up(self) -> None:
        """A server that closes each connection at once is not called upon without a pause."""
        self.make(min_pool_size=1)
        self.wires[0].hang_up()
        self.assertEqual(len(self.wires.wires), 1)
        self.clock.advance(1.1)
        self.assertEqual(len(self.wires.wires), 2)

    def test_operation_does_not_wait_for_the_pause(self) -> None:
        """An operation does not wait for the pause of the background."""
        self.make(min_pool_size=1)
        self.wires[0].hang_up()
        (work,) = self.work()
        self.assertIsNotNone(work.connection)
