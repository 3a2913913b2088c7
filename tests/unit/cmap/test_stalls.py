"""Tests of what is done about a stalled connection, without a pool around it."""

from __future__ import annotations

import math

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.generations import Generations
from txmongo._cmap.roster import Roster
from txmongo._cmap.stalls import Stalls
from txmongo._cmap.unread import UnreadWrite
from txmongo._cmap.wait_queue import Crowd, WaitQueue
from txmongo.errors import AutoReconnect
from txmongo.protocol import MongoProtocol

LIMIT = 0.020


class Request(CheckOut):
    """One that may be sent twice, unless it is told otherwise."""

    def __init__(self, movable: bool = True) -> None:
        super().__init__("find", movable=movable)

    def duplicate(self) -> CheckOut:
        return Request(movable=False)


class StallsTests(SynchronousTestCase):
    """Connections on which the server does not come on."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(10.0)
        self.roster = Roster(self.clock, Generations(), None)
        self.queue = WaitQueue(
            Crowd(10), self.clock, None, opening=int, time_is_up=self.fail, left=self.fail, given_up=self.fail
        )
        self.cuts: list[tuple[Connection, Exception]] = []
        self.moved: list[int] = []
        self.unread = UnreadWrite(int)
        self.stalls = self.make(moves=True)
        self.busy = self.connection()

    def make(self, *, moves: bool) -> Stalls:
        return Stalls(
            self.clock,
            self.roster,
            self.queue,
            self.unread,
            moves=moves,
            cut=lambda *which: self.cuts.append(which),
            moved=self.moved.append,
        )

    def connection(self, received_at: float = 0.0) -> Connection:
        """A connection on which something last came at a time."""
        protocol = MongoProtocol()
        protocol.makeConnection(StringTransport())
        protocol.last_received_at = received_at
        connection = Connection(1, ("h", 1), 0, protocol, StreamDescription(), created_at=0.0, now=0.0)
        self.roster.add(connection)
        return connection

    def send(self, *requests: Request) -> None:
        """Put requests on the connection that is stalled."""
        self.busy.in_flight.update(dict.fromkeys(requests))

    def move(self) -> bool:
        """Have the requests moved; tell whether some were left."""
        return self.stalls.relieve(self.busy, self.clock.seconds(), LIMIT)

    def originals(self) -> list[CheckOut | None]:
        """The requests of which second copies wait, in the order in which they are served."""
        return [waiter.original for waiter in self.queue.all()]

    def test_moved(self) -> None:
        """Second copies of what is behind the oldest request wait in its order, once; the pool hears how many."""
        self.connection(received_at=9.99)
        oldest, unsafe, first, given_up, second = Request(), Request(False), Request(), Request(), Request()
        self.send(oldest, unsafe, first, given_up, second)
        self.busy.late[given_up] = None
        self.assertFalse(self.move())
        self.assertFalse(self.move())
        self.assertEqual(self.originals(), [first, second])
        self.assertEqual(self.moved, [2])
        self.assertFalse(first.movable)

    def test_probe(self) -> None:
        """While the server answers nobody, one request is sent each time that makes a stall; then all others."""
        other = self.connection(received_at=9.0)
        requests = [Request() for _ in range(5)]
        self.send(*requests)
        self.assertTrue(self.move())
        self.assertTrue(self.move())
        self.assertEqual(self.moved, [1])
        self.clock.advance(LIMIT)
        self.assertTrue(self.move())
        self.assertEqual(self.moved, [1, 1])
        other.protocol.last_received_at = self.clock.seconds()
        self.assertFalse(self.move())
        self.assertEqual(self.moved, [1, 1, 2])
        self.assertEqual(set(self.originals()), set(requests[1:]))

    def test_nothing_to_move(self) -> None:
        """Where there is nothing to move nothing is done, and nothing left."""
        self.send(Request(), Request(False))
        self.assertFalse(self.move())
        self.assertEqual((self.originals(), self.moved), ([], []))

    def test_not_moved(self) -> None:
        """What follows a write that may be unread stays behind it, and everything where nothing is moved at all."""
        self.send(Request(), Request())
        self.unread.sent(self.busy)
        self.assertFalse(self.move())
        self.unread.forget()
        self.stalls = self.make(moves=False)
        self.assertFalse(self.move())
        self.assertEqual((self.originals(), self.moved), ([], []))

    def test_relieved_by_its_end(self) -> None:
        """From one that is given up nothing is moved: nobody waits for it any more."""
        oldest, behind = Request(), Request()
        self.send(oldest, behind)
        self.busy.late.update({oldest: None, behind: None})
        self.assertFalse(self.move())
        self.assertEqual(([connection for connection, _ in self.cuts], self.moved), ([self.busy], []))

    def test_not_given_up(self) -> None:
        """A connection whose oldest request is waited for is left alone."""
        oldest, behind = Request(), Request()
        self.send(oldest, behind)
        self.busy.late[behind] = None
        self.assertFalse(self.stalls.gives_up(self.busy))
        self.assertEqual((self.cuts, self.busy.expected_wait), ([], 0.0))

    def test_given_up(self) -> None:
        """One whose oldest request was abandoned gets nothing more, and is cut when nobody waits for the others."""
        oldest, behind = Request(), Request()
        self.send(oldest, behind)
        self.busy.late[oldest] = None
        self.assertFalse(self.stalls.gives_up(self.busy))
        self.assertEqual((self.cuts, self.busy.expected_wait), ([], math.inf))
        self.busy.late[behind] = None
        self.assertTrue(self.stalls.gives_up(self.busy))
        [(connection, error)] = self.cuts
        self.assertIs(connection, self.busy)
        self.assertIsInstance(error, AutoReconnect)
