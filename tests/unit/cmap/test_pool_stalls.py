"""The pool: requests that take long, those that wait behind them, and those that nobody waits for any more."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.unit.cmap.wires import NEVER, STALL, PoolTestCase, Work, wire_of
from txmongo._cmap.connection import CheckOut, Connection
from txmongo.errors import AutoReconnect, NetworkTimeout


class MovingTests(PoolTestCase):
    """Requests that wait behind a stalled one are sent again elsewhere."""

    def stall(self, count: int = 3) -> list[Work]:
        """Reads on one connection, the first of which takes long, while the server is known to be alive."""
        work = self.movable(count)
        self.assertEqual(len(self.wires[0].unanswered), count)
        self.wait_with_signs_of_life()
        return work

    def wait_with_signs_of_life(self) -> None:
        """Let time go by until connections are stalled; meanwhile something comes from the server, but no reply."""
        self.pass_time(0.015)
        self.wires[0].protocol.dataReceived(b"")
        self.pass_time(STALL - 0.015)

    def test_moved(self) -> None:
        """What waits behind a stalled request is sent on another connection, and that answer is the result."""
        self.make()
        head, first, second = self.stall()
        self.assertEqual(len(self.wires.wires), 3)
        for wire in self.wires.wires[1:]:
            self.assertEqual(wire.received, ["find"])
            wire.reply()
        self.assertEqual([first.result, second.result, head.result], ["answered", "answered", None])
        self.assertEqual(self.pool.operation_count, 1)
        self.wires[0].reply(3)
        self.assertEqual(head.result, "answered")
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 3))

    def test_silent_server(self) -> None:
        """If the server has answered nobody of late, one request is to be sent twice; once it answers, the others."""
        self.make()
        self.movable(4)
        self.wires.at_once = False
        self.clock.pump([STALL, 0.006, 0.006])
        self.assertEqual(self.pool.waiting_count, 1)
        # That a connection could be opened is an answer.
        self.wires.open()
        self.assertEqual([len(wire.received) for wire in self.wires.wires], [4, 1])
        self.pass_time(0.006)
        self.assertEqual(self.pool.waiting_count, 2)

    def test_silence_ends_soon(self) -> None:
        """When the one request is on its way, the watch looks again soon."""
        self.make()
        self.movable(4)
        self.pass_time(STALL)
        self.assertEqual(sum(len(wire.received) for wire in self.wires.wires), 5)
        self.pass_time(0.006)
        self.assertEqual(sum(len(wire.received) for wire in self.wires.wires), 7)

    def test_server_stays_silent(self) -> None:
        """As long as it answers nobody, one more is to be sent twice now and then."""
        self.make()
        self.movable(6)
        self.wires.at_once = False
        self.clock.pump([STALL, STALL, STALL])
        self.assertEqual(self.pool.waiting_count, 3)

    def test_several_stalled_connections(self) -> None:
        """With a silent server one request is enough to find out, however many connections are stalled."""
        self.make(max_pool_size=3)
        first = self.movable(2)
        assert first[0].connection is not None
        first[0].connection.expected_wait = 1.0
        self.pool._averages["find"] = 0.01
        self.movable(3)
        self.assertEqual(sorted(len(wire.unanswered) for wire in self.wires.wires), [1, 2, 2])
        self.pass_time(STALL)
        self.assertEqual(self.pool.waiting_count, 1)

    def test_first_answer_wins(self) -> None:
        """If the first copy is answered after all, the second is dropped, and its late reply."""
        self.make()
        _, first, second = self.stall()
        self.wires[0].reply(3)
        self.assertEqual([first.results, second.results], [1, 1])
        self.assertEqual(self.pool.operation_count, 0)
        self.assertEqual(self.pool.available_count, 1)
        for wire in self.wires.wires[1:]:
            wire.reply()
        self.assertEqual([first.results, second.results], [1, 1])
        self.assertEqual(self.pool.available_count, 3)

    def test_only_idle_or_new(self) -> None:
        """A second copy goes to an idle or a new connection, never behind something else."""
        self.make(max_pool_size=2)
        self.stall(4)
        self.assertEqual([len(wire.received) for wire in self.wires.wires], [4, 1])
        self.wires[1].reply()
        self.assertEqual([len(wire.received) for wire in self.wires.wires], [4, 2])

    def test_before_those_who_wait(self) -> None:
        """A second copy is served before those who wait for a first one."""
        self.make(max_pool_size=2)
        self.stall()
        (alone,) = self.work("getMore", exclusive=True)
        self.wires[1].reply()
        self.assertEqual(self.wires[1].received, ["find", "find"])
        self.wires[1].reply()
        self.assertIs(wire_of(alone), self.wires[1])

    def test_answered_before_the_copy_is_sent(self) -> None:
        """A copy that still waits for a connection is forgotten when its original is answered."""
        self.make(max_pool_size=1, listening=True)
        _, first, _ = self.stall()
        self.assertEqual(self.pool.waiting_count, 2)
        self.wires[0].reply(2)
        self.assertEqual(first.result, "answered")
        self.assertEqual(self.pool.waiting_count, 1)
        self.wires[0].reply()
        self.assertEqual(self.pool.waiting_count, 0)
        count = self.recorder.count
        self.assertEqual((count("started"), count("checked_out"), count("checked_in"), count("failed")), (5, 3, 3, 2))

    def test_once_each(self) -> None:
        """A request is moved at most once, and its copy not at all."""
        self.make(max_pool_size=3)
        self.stall()
        for _ in range(5):
            self.wait_with_signs_of_life()
        self.assertEqual(sum(len(wire.received) for wire in self.wires.wires), 5)

    def test_immovable_stays(self) -> None:
        """What may not be sent twice stays where it is."""
        self.make(max_pool_size=1)
        self.work(count=2)
        self.assertEqual(len(self.wires[0].received), 2)
        self.pass_time(STALL)
        self.assertEqual(self.pool.waiting_count, 0)

    def test_connection_of_the_first_lost(self) -> None:
        """If the stalled connection is lost, the second copies still give the results."""
        self.make()
        head, first, second = self.stall()
        self.wires[0].hang_up()
        self.assertIsInstance(head.result, AutoReconnect)
        self.assertEqual([first.result, second.result], [None, None])
        for wire in self.wires.wires[1:]:
            wire.reply()
        self.assertEqual([first.result, second.result], ["answered", "answered"])
        self.assertEqual(self.pool.operation_count, 0)

    def test_connection_of_the_copy_lost(self) -> None:
        """If a second copy's connection is lost, the first one is waited for."""
        self.make()
        _, first, _ = self.stall()
        self.wires[1].hang_up()
        self.assertIsNone(first.result)
        self.wires[0].reply(3)
        self.assertEqual(first.result, "answered")

    def test_cancelled(self) -> None:
        """Cancelling a request that is out twice takes both copies out of count."""
        self.make()
        _, first, _ = self.stall()
        before = self.pool.operation_count
        first.cancel()
        self.assertIsInstance(first.result, CancelledError)
        self.assertEqual(self.pool.operation_count, before - 2)

    def test_resend_that_fails(self) -> None:
        """A second copy that cannot be sent is checked in, and its original goes on."""
        self.make()
        self.movable()

        class Broken(Work):
            __slots__ = ()

            def duplicate(self) -> Work:
                copy = Broken(self.pool)
                copy.original = self
                return copy

            def resend(self, connection: Connection) -> None:
                raise RuntimeError("broken")

        broken = Broken(self.pool, movable=True).start()
        self.pass_time(STALL)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.pool.operation_count, 2)
        self.wires[0].reply(2)
        self.assertEqual(broken.result, "answered")

    def test_resend_that_fails_after_its_check_in(self) -> None:
        """A second copy that was checked in before its sending failed is not checked in again."""
        self.make()
        self.movable()

        class Broken(Work):
            __slots__ = ()

            def duplicate(self) -> Work:
                return Broken(self.pool)

            def resend(self, connection: Connection) -> None:
                self.pool.check_in(self)
                raise RuntimeError("broken")

        Broken(self.pool, movable=True).start()
        self.pass_time(STALL)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.pool.operation_count, 2)

    def test_cleared_before_the_copy_is_sent(self) -> None:
        """A copy that still waits when the pool is cleared is forgotten, and its original goes on."""
        self.make(max_pool_size=1, listening=True)
        work = self.stall()
        self.pool.clear()
        self.assertEqual(self.pool.waiting_count, 0)
        self.wires[0].reply(3)
        self.assertEqual([each.result for each in work], ["answered"] * 3)
        self.assertEqual(self.recorder.count("failed"), 2)

    def test_abandoned_stays(self) -> None:
        """What was abandoned behind a stalled request is not sent again."""
        self.make()
        _, second, third = self.movable(3)
        second.cancel()
        self.pass_time(STALL)
        self.assertEqual(len(self.wires.wires), 2)
        self.wires[1].reply()
        self.assertEqual(third.result, "answered")

    def test_not_without_pipelining(self) -> None:
        """With one operation per connection nothing waits behind anything."""
        self.make(pipelining=False)
        self.movable(2)
        self.pass_time(STALL)
        self.assertEqual([len(wire.received) for wire in self.wires.wires], [1, 1])

    def test_replies_in_the_kernel(self) -> None:
        """A connection only looks stalled if its replies came while the process was busy: then nothing is moved."""
        self.make()
        work = self.movable(3)
        # The reactor reads after its delayed calls, so the replies come between two turns of the watch.
        (call,) = self.clock.getDelayedCalls()
        self.clock.rightNow = call.getTime()
        self.clock.calls.remove(call)
        call.func()
        self.wires[0].reply(3)
        self.clock.advance(0)
        self.assertEqual([each.result for each in work], ["answered"] * 3)
        self.assertEqual(len(self.wires.wires), 1)

    def test_long_round(self) -> None:
        """What was sent after a reply in a long round of the reactor is not late at its end."""
        self.make()
        self.learn("find", 0.0001)
        self.movable(3)
        (call,) = self.clock.getDelayedCalls()
        self.clock.rightNow = call.getTime()
        self.clock.calls.remove(call)
        call.func()
        self.wires[0].reply(3)
        self.movable(3)
        self.clock.advance(0.1)
        self.assertEqual(len(self.wires.wires), 1)


class AbandonTests(PoolTestCase):
    """Requests for which nobody waits any more."""

    def test_connection_lives_on(self) -> None:
        """The late reply of a cancelled request is dropped, and the connection used again."""
        self.make()
        (work,) = self.work()
        work.cancel()
        self.assertIsInstance(work.result, CancelledError)
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 0))
        self.wires[0].reply()
        self.assertEqual(self.pool.available_count, 1)
        self.work("ping")
        self.assertEqual(self.wires[0].received, ["find", "ping"])

    def test_stalled_with_nobody_left(self) -> None:
        """A connection that is stalled by a request that nobody waits for is cut: that ends it at the server."""
        self.make(listening=True)
        (work,) = self.work()
        work.cancel()
        self.pass_time(0.005)
        self.assertFalse(self.wires[0].closed)
        self.pass_time(STALL)
        self.assertTrue(self.wires[0].closed)
        self.assertEqual(self.recorder.events[-1][1].reason, "error")
        self.assertEqual(self.pool.total_count, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stalled_already(self) -> None:
        """If it is stalled when it is cancelled, the connection is cut at once."""
        self.make()
        (work,) = self.work()
        self.pass_time(STALL)
        work.cancel()
        self.assertEqual(self.pool.total_count, 0)

    def test_a_live_one_keeps_it_open(self) -> None:
        """While somebody waits for another request on it, it stays, and takes nothing new."""
        self.make(max_pool_size=1)
        slow, behind = self.work(count=2)
        slow.cancel()
        self.pass_time(STALL)
        (late,) = self.work()
        self.assertFalse(self.wires[0].closed)
        self.assertIsNone(late.connection)
        behind.cancel()
        self.assertEqual(len(self.wires.wires), 2)
        self.assertIs(wire_of(late), self.wires[1])

    def test_late_reply_frees_it(self) -> None:
        """When the late reply comes after all, the connection serves again."""
        self.make(max_pool_size=1)
        slow, behind = self.work(count=2)
        slow.cancel()
        self.pass_time(STALL)
        (late,) = self.work()
        self.wires[0].reply()
        self.assertIs(wire_of(late), self.wires[0])
        self.wires[0].reply(2)
        self.assertEqual([behind.result, late.result], ["answered"] * 2)

    def test_last_one_gives_up_unsent(self) -> None:
        """It is cut too when the last who had it never sent anything."""
        self.make(max_pool_size=1)
        (slow,) = self.work()
        unsent = CheckOut("find")
        self.successResultOf(self.pool.check_out(unsent, NEVER))
        slow.cancel()
        self.pass_time(STALL)
        self.assertEqual(self.pool.total_count, 1)
        self.pool.check_in(unsent)
        self.assertEqual(self.pool.total_count, 0)

    def test_behind_a_live_one(self) -> None:
        """A request that was abandoned behind one that is waited for does no harm."""
        self.make(max_pool_size=1)
        slow, behind = self.work(count=2)
        behind.cancel()
        self.pass_time(STALL)
        self.assertFalse(self.wires[0].closed)
        self.wires[0].reply(2)
        self.assertEqual(slow.result, "answered")
        self.assertEqual(self.pool.available_count, 1)

    def test_movable_ones_are_moved(self) -> None:
        """What waits behind an abandoned request that takes long is moved."""
        self.make()
        slow, behind = self.movable(2)
        slow.cancel()
        self.pass_time(STALL)
        self.wires[1].reply()
        self.assertEqual(behind.result, "answered")
        self.pass_time()
        self.assertTrue(self.wires[0].closed)

    def test_without_pipelining(self) -> None:
        """With one operation per connection, an abandoned one takes its connection with it."""
        self.make(pipelining=False, listening=True)
        (work,) = self.work()
        work.cancel()
        self.assertEqual(self.recorder.names()[-2:], ["checked_in", "closed"])
        self.pass_time()
        self.assertTrue(self.wires[0].closed)
        self.assertEqual(self.pool.total_count, 0)

    def test_exclusive(self) -> None:
        """Exclusive use that is abandoned takes its connection with it: who knows what is still to come."""
        self.make()
        (work,) = self.work(exclusive=True)
        work.cancel()
        self.pass_time()
        self.assertTrue(self.wires[0].closed)

    def test_stale_connection(self) -> None:
        """On a connection that is stale by now, it is closed as by any check-in."""
        self.make()
        (work,) = self.work()
        self.pool.clear()
        work.cancel()
        self.pass_time()
        self.assertTrue(self.wires[0].closed)

    def test_late_reply_that_nobody_owes(self) -> None:
        """A late reply of a request that was never abandoned to the pool is ignored."""
        self.make()
        (work,) = self.work()
        assert work.connection is not None
        hook = work.connection.protocol.late_reply_hook
        assert hook is not None
        hook()
        self.wires[0].reply()
        self.assertEqual(work.result, "answered")

    def test_other_check_ins_meanwhile(self) -> None:
        """While a late reply is owed, the others on that connection come and go."""
        self.make()
        self.learn("find", 0.0001)
        first, second, third = self.movable(3)
        second.cancel()
        self.wires[0].reply()
        self.assertEqual(first.result, "answered")
        self.wires[0].reply(2)
        self.assertEqual(third.result, "answered")
        self.assertEqual(self.pool.available_count, 1)


class WatchTests(PoolTestCase):
    """The delayed call over the busy connections."""

    def test_only_while_something_waits(self) -> None:
        """It is there while two requests are in flight, and gone soon after."""
        self.make(min_pool_size=2)
        self.work()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.work()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for wire in self.wires.wires:
            wire.reply()
        self.pass_time(STALL)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def round(self, seconds: float) -> None:
        """Let the reactor come to what the watch has planned, and need some time to come round once."""
        (call,) = self.clock.getDelayedCalls()
        self.clock.rightNow = call.getTime()
        self.clock.calls.remove(call)
        call.func()
        self.clock.advance(seconds)

    def test_lag(self) -> None:
        """What the reactor takes to come round once is known after a few rounds, and allowed for."""
        self.make(max_pool_size=1)
        self.work(count=2)
        watch = self.pool._watch
        for _ in range(20):
            self.round(0.010)
        self.assertAlmostEqual(watch.lag, 0.010, places=5)
        self.assertAlmostEqual(watch.limits.share, 0.005, places=5)
        self.assertAlmostEqual(watch.limits.patience, 0.040, places=5)

    def test_less_lag(self) -> None:
        """That the reactor got faster is believed slowly."""
        self.make(max_pool_size=1)
        self.work(count=2)
        self.pool._watch.lag = 0.010
        self.round(0.0)
        self.assertAlmostEqual(self.pool._watch.lag, 0.009)

    def test_lag_has_a_bound(self) -> None:
        """A reactor that was stopped for a minute does not make the pool patient for long."""
        self.make(max_pool_size=1)
        self.work(count=2)
        for _ in range(20):
            self.round(60)
        self.assertLessEqual(self.pool._watch.lag, 0.050)

    def test_lag_is_not_service(self) -> None:
        """What the reactor needs to see a reply is not counted as the server's time."""
        self.make(min_pool_size=1)
        self.pool._watch.lag = 0.010
        (work,) = self.work()
        self.clock.advance(0.012)
        self.wires[0].reply()
        self.assertEqual(work.result, "answered")
        self.assertAlmostEqual(self.pool.expected_service_time("find"), 0.002, places=5)

    def test_crowd(self) -> None:
        """When requests begin to wait, the lag is looked at soon, and often while they do."""
        self.make(max_pool_size=1, pipelining=False)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.work(count=2)
        (call,) = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime() - self.clock.seconds(), 0.001)
        self.round(0.0)
        (call,) = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime() - self.clock.seconds(), 0.005)

    def test_crowd_comes_later(self) -> None:
        """That holds too if the watch was going to look later."""
        self.make(max_pool_size=2, min_pool_size=2, pipelining=False)
        self.work(count=2)
        (call,) = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime(), 0.020)
        self.work(count=2)
        self.assertAlmostEqual(call.getTime(), 0.005)

    def test_one_of_two_is_stalled(self) -> None:
        """Only what is stalled is relieved."""
        self.make()
        self.learn("find", 0.0001)
        stalled = self.movable(2)
        self.pass_time(0.015)
        (fresh,) = self.work(exclusive=True)
        self.pass_time(0.006)
        self.assertEqual(len(wire_of(fresh).unanswered), 1)
        self.assertEqual(self.pool.operation_count, 4)
        self.assertEqual([each.result for each in stalled], [None, None])

    def test_cut_while_others_look_late(self) -> None:
        """What becomes idle while another connection is being relieved is left alone."""
        self.make(socket_timeout=1.0)
        first, second = self.work(count=2, exclusive=True)
        assert first.deferred is not None
        first.deferred.addCallback(lambda _: wire_of(second).reply())
        wire_of(first).abortConnection = wire_of(first).hang_up  # type: ignore[method-assign]
        self.pass_time(1.1)
        self.assertIsInstance(first.result, NetworkTimeout)
        self.assertEqual(second.result, "answered")
        self.assertEqual(self.pool.available_count, 1)
