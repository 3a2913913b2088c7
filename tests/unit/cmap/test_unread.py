"""The last unacknowledged write: by itself, and that nothing overtakes it in a pool."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import STALL, PoolTestCase, lone_connection, wire_of
from txmongo._cmap.connection import CheckOut
from txmongo._cmap.unread import UnreadWrite


class UnreadWriteTests(SynchronousTestCase):
    """When it was read for certain."""

    def setUp(self) -> None:
        self.connection = lone_connection()
        self.heard: list[Any] = []
        self.unread = UnreadWrite(lambda: self.heard.append(self.unread.connection))

    def test_idle(self) -> None:
        """The first reply on a connection that was idle is to what was sent after the write."""
        self.assertIsNone(self.unread.connection)
        self.unread.sent(self.connection)
        self.unread.replied()
        self.assertEqual(self.heard, [self.connection, None])

    def test_busy(self) -> None:
        """What was in flight before it is answered first, which shows nothing."""
        self.connection.in_flight.update(dict.fromkeys((CheckOut("find"), CheckOut("find"))))
        self.unread.sent(self.connection)
        for _ in range(2):
            self.unread.replied()
            self.assertIs(self.unread.connection, self.connection)
        self.unread.replied()
        self.assertIsNone(self.unread.connection)

    def test_another(self) -> None:
        """Only the last write counts, and what is before that one."""
        other = lone_connection()
        self.connection.in_flight[CheckOut("find")] = None
        self.unread.sent(self.connection)
        self.unread.sent(other)
        self.assertIs(self.unread.connection, other)
        self.unread.replied()
        self.assertEqual(self.heard, [self.connection, other, None])

    def test_lost(self) -> None:
        """One that was lost with its connection has nothing to follow it."""
        self.unread.sent(self.connection)
        self.unread.forget()
        self.assertEqual(self.heard, [self.connection, None])


class UnacknowledgedTests(PoolTestCase):
    """What follows a write that the server does not answer."""

    def setUp(self) -> None:
        super().setUp()
        self.make()
        first, second = self.work(count=2, exclusive=True)
        self.first, self.second = wire_of(first), wire_of(second)
        self.second.reply()
        self.first.reply()
        self.learn("find", 0.0001)
        # The first wire is on top of the idle ones now.

    def write(self) -> None:
        """Send a write that is not answered."""
        (work,) = self.work("insert", unacknowledged=True)
        self.assertEqual(work.result, "answered")

    def test_next_one_follows(self) -> None:
        """The next operation goes to that write's connection, though another was used since."""
        self.write()
        (busy,) = self.movable()
        self.assertIs(wire_of(busy), self.first)
        (next_one,) = self.movable()
        self.assertIs(wire_of(next_one), self.first)

    def test_until_a_reply(self) -> None:
        """A reply to what was sent after it shows that the write was read."""
        self.write()
        self.movable()
        self.assertIsNotNone(self.pool.last_unacknowledged)
        self.first.reply()
        self.assertIsNone(self.pool.last_unacknowledged)

    def test_earlier_replies_do_not_count(self) -> None:
        """A reply to what was sent before it shows nothing."""
        self.pool.clear()
        self.pool.ready()
        self.pool._growth.maximum = 1
        self.movable()
        self.write()
        wire = self.wires[-1]
        wire.reply()
        self.assertIsNotNone(self.pool.last_unacknowledged)
        self.movable()
        wire.reply()
        self.assertIsNone(self.pool.last_unacknowledged)

    def test_exclusive_waits(self) -> None:
        """Exclusive use waits until the write has been read, or its connection is free."""
        self.write()
        self.movable()
        (alone,) = self.work("getMore", exclusive=True)
        self.assertIsNone(alone.connection)
        self.first.reply()
        self.assertIs(wire_of(alone), self.first)

    def test_exclusive_follows_at_once(self) -> None:
        """With nothing else in flight, exclusive use takes the write's own connection; others need not wait for it."""
        self.write()
        (alone,) = self.work("getMore", exclusive=True)
        self.assertIs(wire_of(alone), self.first)
        (other,) = self.movable()
        self.assertIs(wire_of(other), self.second)

    def test_lost_connection(self) -> None:
        """With its connection the write is lost, and nothing follows it any more."""
        self.write()
        self.first.hang_up()
        self.assertIsNone(self.pool.last_unacknowledged)

    def test_not_moved(self) -> None:
        """What waits behind the write is not sent again elsewhere, where it could overtake it."""
        self.write()
        self.movable(3)
        self.pass_time(STALL)
        self.assertEqual(len(self.first.unanswered), 3)
        self.assertEqual(self.second.unanswered, [])

    def test_one_per_connection(self) -> None:
        """Without pipelining the write's connection is preferred while it is free."""
        self.make(pipelining=False)
        a, b = self.work(count=2)
        wire_of(a).reply()
        wire_of(b).reply()
        self.write()
        (follows,) = self.work()
        self.assertIs(wire_of(follows), wire_of(b))
        (other,) = self.work()
        self.assertIs(wire_of(other), wire_of(a))
