"""A former primary shows that it lives, or lets go of what is in flight on it."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo.server_description import ServerDescription
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, B, Connections, Deployment, FakePool, primary, secondary, topology_version
from txmongo._sdam.description import parse_hello
from txmongo._sdam.server import Server
from txmongo._sdam.superseded import Probations, is_superseded, patience
from txmongo.errors import AutoReconnect

POLL = {"serverMonitoringMode": "poll"}
FIRST, SECOND = ObjectId("0" * 23 + "1"), ObjectId("0" * 23 + "2")
INTERRUPTED = ("clear", A, None, True)


def described(address: Any, document: Any) -> ServerDescription:
    """A server's description by its reply to hello."""
    return parse_hello(address, document, awaited=False, rtt=None, minimum_rtt=0.0)[1]


class DecisionTests(SynchronousTestCase):
    """The pure rules."""

    def test_patience(self) -> None:
        """It is five round trips, at most half a second, and never so short that a busy server cannot answer."""
        for rtt, seconds in ((0.04, 0.2), (0.1, 0.5), (3.0, 0.5), (0.0002, 0.05), (0.0, 0.5)):
            self.assertAlmostEqual(patience(rtt), seconds, msg=str(rtt))

    def test_superseded(self) -> None:
        """A primary is superseded if another primary's news made it Unknown, and in no other case."""
        was, is_now = described(A, primary()), ServerDescription(A)
        newer = described(B, primary())
        self.assertTrue(is_superseded(was, is_now, newer))
        follower = described(A, secondary())
        others = [
            (follower, is_now, newer),
            (was, follower, newer),
            (was, is_now, None),
            (was, is_now, described(B, secondary())),
            (was, is_now, described(A, primary())),
        ]
        for each in others:
            self.assertFalse(is_superseded(*each), each)


class ProbationsTests(SynchronousTestCase):
    """Those that are being asked."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connections = Connections(self.clock)
        self.closing: list[Deferred[None]] = []
        self.journal: list[tuple[Any, ...]] = []
        self.probations = Probations(clock=self.clock, connect=self.connections.connect, closing=self.closing.append)

    def server(self, address: Any = A) -> Server:
        pool: Any = FakePool(address, self.journal)
        return Server(address, ServerDescription(address), pool, None)

    def test_silent(self) -> None:
        """What is in flight on one that does not answer fails; afterwards there is nothing to take back."""
        self.probations.begin(self.server())
        self.clock.advance(0.5)
        self.clock.advance(0)
        self.assertEqual(self.journal, [INTERRUPTED])
        self.probations.end(A)
        self.assertEqual(self.closing, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each(self) -> None:
        """Each has its own time; that the question to one is taken back means nothing for another."""
        self.probations.begin(self.server())
        self.clock.advance(0.3)
        self.probations.begin(self.server(B))
        self.probations.end(B)
        self.clock.advance(0.2)
        self.clock.advance(0)
        self.assertEqual(self.journal, [INTERRUPTED])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again(self) -> None:
        """One that is being asked when it is to be asked anew has the whole time once more, on one connection."""
        self.probations.begin(self.server())
        self.clock.advance(0.4)
        self.probations.begin(self.server())
        self.successResultOf(self.closing.pop())
        self.assertEqual(self.connections.waiting(A), 1)
        self.clock.advance(0.4)
        self.clock.advance(0)
        self.assertEqual(self.journal, [])
        self.probations.end(A)
        self.successResultOf(self.closing.pop())
        self.assertEqual((self.connections.waiting(A), self.clock.getDelayedCalls()), (0, []))

    def test_closing(self) -> None:
        """Whoever waits for the end of everything waits for the socket over which an answer came too."""
        self.probations.begin(self.server())
        self.connections.open(A, secondary("a:27017", "b:27017"))
        self.probations.end(A)
        self.assertNoResult(self.closing[0])
        self.clock.advance(0)
        self.successResultOf(self.closing[0])


class ProbationTests(SynchronousTestCase):
    """A set whose primary changes."""

    def replaced(self, **keywords: Any) -> Deployment:
        """A set of which B has just become primary, in the place of A; one round trip takes 40 ms."""
        deployment = Deployment("mongodb://a,b/?replicaSet=rs", **{**POLL, **keywords})
        deployment.open()
        deployment.connections.open(A, {**primary("a:27017", "b:27017"), "electionId": FIRST}, rtt=0.04)
        deployment.clock.advance(2)
        deployment.connections.open(B, {**primary("a:27017", "b:27017"), "electionId": SECOND})
        deployment.clock.advance(0)
        return deployment

    def test_silent(self) -> None:
        """One that does not answer in time has its pool cleared, the connections in use included; once."""
        deployment = self.replaced()
        self.assertEqual(deployment.connections.waiting(A), 1)
        deployment.clock.advance(0.199)
        self.assertNotIn(INTERRUPTED, deployment.journal)
        deployment.clock.advance(0.002)
        deployment.clock.advance(0)
        self.assertEqual(deployment.journal[-1], INTERRUPTED)
        self.assertEqual(deployment.connections.waiting(A), 0)
        deployment.clock.advance(5)
        self.assertEqual(deployment.journal.count(INTERRUPTED), 1)
        self.assertTrue(deployment.pools[B].is_ready)
        deployment.close()

    def test_answers(self) -> None:
        """One that answers keeps its connections, whatever it says of itself; that of the question is closed."""
        deployment = self.replaced()
        deployment.clock.advance(0.1)
        asked = deployment.connections.open(A, {**primary("a:27017", "b:27017"), "electionId": FIRST})
        deployment.clock.advance(3)
        self.assertTrue(asked.lost)
        self.assertNotIn(INTERRUPTED, deployment.journal)
        deployment.close()

    def test_answer_unread(self) -> None:
        """An answer that came in time but is read only after it counts."""
        deployment = self.replaced()
        deployment.clock.callLater(0.2, deployment.connections.open, A, secondary("a:27017", "b:27017"))
        deployment.clock.advance(0.201)
        deployment.clock.advance(1)
        self.assertNotIn(INTERRUPTED, deployment.journal)
        deployment.close()

    def test_refuses(self) -> None:
        """One that refuses the connection has not answered."""
        deployment = self.replaced()
        deployment.connections.refuse(A)
        self.assertNotIn(INTERRUPTED, deployment.journal)
        deployment.clock.advance(0.201)
        deployment.clock.advance(0)
        self.assertIn(INTERRUPTED, deployment.journal)
        deployment.close()

    def test_monitor_hears(self) -> None:
        """The news that it is a secondary, by its monitor, is an answer too: the question is taken back."""
        deployment = self.replaced()
        deployment.connections.protocols[A][0].answer(secondary("a:27017", "b:27017"))
        self.assertEqual(deployment.connections.waiting(A), 0)
        deployment.clock.advance(1)
        self.assertNotIn(INTERRUPTED, deployment.journal)
        deployment.close()

    def test_orderly(self) -> None:
        """One that had said before that it is a secondary now is not even asked."""
        deployment = Deployment("mongodb://a,b/?replicaSet=rs", **POLL)
        deployment.discover(a={**primary("a:27017", "b:27017"), "electionId": FIRST})
        deployment.clock.advance(10)
        deployment.connections.protocols[A][0].answer(secondary("a:27017", "b:27017"))
        deployment.connections.open(B, {**primary("a:27017", "b:27017"), "electionId": SECOND})
        self.assertEqual(deployment.connections.waiting(A), 0)
        deployment.close()

    def test_returns(self) -> None:
        """When it answers its monitor again its pool is ready again."""
        deployment = self.replaced()
        deployment.clock.advance(0.201)
        deployment.clock.advance(0)
        self.assertFalse(deployment.pools[A].is_ready)
        answer = secondary("a:27017", "b:27017", topologyVersion=topology_version(9))
        deployment.connections.protocols[A][0].answer(answer)
        self.assertTrue(deployment.pools[A].is_ready)
        deployment.close()

    def test_closed_meanwhile(self) -> None:
        """Closing the topology takes the question back; if it was answered just then, its socket is waited for."""
        self.replaced().close()
        deployment = self.replaced()
        asked = deployment.connections.open(A, secondary("a:27017", "b:27017"))
        closed = deployment.topology.close()
        asked.lose()
        deployment.clock.advance(0)
        self.successResultOf(closed)
        self.assertFalse(deployment.clock.getDelayedCalls())

    def test_again(self) -> None:
        """A member that loses its place a second time is asked a second time."""
        deployment = self.replaced()
        deployment.connections.refuse(A, AutoReconnect("no"))
        third = {**primary("a:27017", "b:27017"), "electionId": ObjectId("0" * 23 + "3")}
        deployment.connections.protocols[A][0].answer(third)
        self.assertEqual(deployment.connections.waiting(B), 1)
        deployment.clock.advance(10)
        fourth = {**primary("a:27017", "b:27017"), "electionId": ObjectId("0" * 23 + "4")}
        deployment.connections.protocols[B][0].answer(fourth)
        self.assertEqual(deployment.connections.waiting(A), 1)
        deployment.close()
