"""``txmongo._ops.server_sessions``: the pool of the server's sessions."""

from __future__ import annotations

import gc
import math

from bson.binary import UUID_SUBTYPE, Binary
from bson.int64 import Int64
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._ops.server_sessions import ServerSession, ServerSessionPool


class ServerSessionTests(SynchronousTestCase):
    """One session."""

    def test_lsid(self) -> None:
        """Its id is a document with a random UUID of version 4, another one for each."""
        first, second = ServerSession(0.0), ServerSession(0.0)
        self.assertEqual(list(first.lsid), ["id"])
        binary = first.lsid["id"]
        self.assertIsInstance(binary, Binary)
        self.assertEqual((binary.subtype, binary.as_uuid(4).version), (UUID_SUBTYPE, 4))
        self.assertNotEqual(first.lsid, second.lsid)

    def test_txn_numbers(self) -> None:
        """Its numbers are 64-bit integers from 1 upwards."""
        session = ServerSession(0.0)
        numbers = [session.next_txn_number() for _ in range(3)]
        self.assertEqual(numbers, [1, 2, 3])
        self.assertIsInstance(numbers[0], Int64)
        self.assertIn("txn 3", repr(session))


class ServerSessionPoolTests(SynchronousTestCase):
    """Which session is given out, and which is forgotten."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = ServerSessionPool(self.clock.seconds)

    def test_last_used_first(self) -> None:
        """The session that was given back last is given out first, its number as it was."""
        one, two = self.pool.acquire(30), self.pool.acquire(30)
        one.next_txn_number()
        self.pool.release(two)
        self.pool.release(one)
        self.assertEqual((len(self.pool), self.pool.in_use), (2, 0))
        self.assertIs(self.pool.acquire(30), one)
        self.assertEqual(one.txn_number, 1)
        self.assertIs(self.pool.acquire(30), two)
        self.assertEqual(repr(self.pool), "<ServerSessionPool 0 idle, 2 in use>")
        self.assertIn("in_use", repr(two))

    def test_new_when_empty(self) -> None:
        """Without one that is free a new one is made."""
        self.assertIsNot(self.pool.acquire(30), self.pool.acquire(30))
        self.assertEqual(self.pool.in_use, 2)

    def test_last_used(self) -> None:
        """Taking a session is using it."""
        session = self.pool.acquire(30)
        self.pool.release(session)
        self.clock.advance(100)
        self.assertEqual(self.pool.acquire(30).last_used, 100.0)

    def test_expiry(self) -> None:
        """A session with a minute left is used, one with less is forgotten."""
        session = self.pool.acquire(30)
        self.pool.release(session)
        self.clock.advance(29 * 60)
        self.assertIs(self.pool.acquire(30), session)
        self.pool.release(session)
        self.clock.advance(29 * 60 + 0.1)
        self.assertIsNot(self.pool.acquire(30), session)
        self.assertEqual(len(self.pool), 0)

    def test_all_expired(self) -> None:
        """One too old one after the other is passed over."""
        old = [self.pool.acquire(30) for _ in range(3)]
        for session in old:
            self.pool.release(session)
        self.clock.advance(3600)
        self.assertNotIn(self.pool.acquire(30), old)
        self.assertEqual(len(self.pool), 0)

    def test_timeout_of_the_server(self) -> None:
        """The timeout that the server named last is the one that holds."""
        session = self.pool.acquire(3)
        self.pool.release(session)
        self.clock.advance(121)
        self.assertIsNot(self.pool.acquire(), session)
        session = self.pool.acquire(2000)
        self.pool.release(session)
        self.clock.advance(3600)
        self.assertIs(self.pool.acquire(), session)

    def test_load_balancer(self) -> None:
        """Where the timeout is infinite none is ever too old."""
        session = self.pool.acquire(math.inf)
        self.pool.release(session)
        self.clock.advance(1e9)
        self.assertIs(self.pool.acquire(math.inf), session)

    def test_expired_while_used(self) -> None:
        """A session that was used for the last time too long ago is not taken back."""
        session = self.pool.acquire(30)
        self.clock.advance(29 * 60 + 1)
        self.pool.release(session)
        self.assertEqual((len(self.pool), self.pool.in_use), (0, 0))

    def test_old_ones_leave_at_the_back(self) -> None:
        """Giving one back makes the pool forget those at the back that are too old, up to the first that is not."""
        sessions = [self.pool.acquire(30) for _ in range(3)]
        for session in sessions[:2]:
            self.pool.release(session)
            self.clock.advance(15 * 60)
        sessions[2].last_used = self.clock.seconds()
        self.pool.release(sessions[2])
        self.assertEqual(len(self.pool), 1)
        sessions = [self.pool.acquire(30) for _ in range(2)]
        sessions[0].last_used = sessions[1].last_used = self.clock.seconds()
        for session in sessions:
            self.pool.release(session)
        self.assertEqual(len(self.pool), 2)

    def test_dirty(self) -> None:
        """A dirty one is forgotten."""
        session = self.pool.acquire(30)
        session.dirty = True
        self.assertIn("dirty", repr(session))
        self.pool.release(session)
        self.assertEqual((len(self.pool), self.pool.in_use), (0, 0))

    def test_released_twice(self) -> None:
        """Giving one back twice does not put it in twice."""
        session = self.pool.acquire(30)
        self.pool.release(session)
        self.pool.release(session)
        self.assertEqual((len(self.pool), self.pool.in_use), (1, 0))

    def test_clear(self) -> None:
        """After it was cleared, as in the child of a fork, nothing from before comes back or is to be ended."""
        used, idle = self.pool.acquire(30), self.pool.acquire(30)
        self.pool.release(idle)
        self.pool.clear()
        self.pool.release(used)
        self.pool.hold(self.pool.acquire(30))
        self.pool.clear()
        self.assertEqual((len(self.pool), self.pool.end_all()), (0, []))
        self.assertNotIn(self.pool.acquire(30), (used, idle))

    def test_end_all(self) -> None:
        """The ids of all idle ones come in batches of 10,000, once."""
        self.assertEqual(self.pool.end_all(), [])
        sessions = [self.pool.acquire(30) for _ in range(20_001)]
        for session in sessions:
            self.pool.release(session)
        batches = self.pool.end_all()
        self.assertEqual([len(batch) for batch in batches], [10_000, 10_000, 1])
        self.assertEqual(batches[0][0], sessions[0].lsid)
        self.assertEqual((self.pool.end_all(), len(self.pool)), ([], 0))

    def test_end_held(self) -> None:
        """Those that are held are ended too, if they still are; afterwards they are not used again."""
        held, returned, dropped, alone = (self.pool.acquire(30) for _ in range(4))
        for session in (held, returned, dropped):
            self.pool.hold(session)
        self.pool.let_go(returned)
        del dropped, session
        gc.collect()
        [ended] = self.pool.end_all()
        self.assertEqual(ended, [returned.lsid, held.lsid])
        self.assertEqual(self.pool.end_all(), [])
        for session in (held, alone):
            self.pool.let_go(session)
        self.assertEqual((len(self.pool), self.pool.in_use), (0, 1))
