"""Tests of what is learned from the times of requests and replies."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.service_times import ServiceTimes
from txmongo.protocol import MongoProtocol


@attrs.define
class Delays:
    """What is not the server's time."""

    rtt: float = 0.0
    lag: float = 0.0


class ServiceTimesTests(SynchronousTestCase):
    """The averages."""

    def setUp(self) -> None:
        self.delays = Delays()
        self.times = ServiceTimes(self.delays)
        description = StreamDescription()
        self.connection = Connection(1, ("h", 1), 0, MongoProtocol(), description, created_at=0.0, now=10.0)

    def learn(self, sent: float, received: float) -> bool:
        """Learn from one request."""
        request = CheckOut("find")
        request.started_at = sent
        self.connection.protocol.last_received_at = received
        return self.times.learn(request, self.connection)

    def test_first(self) -> None:
        """The first time is the average; the next request's time begins with this reply."""
        self.assertTrue(self.learn(10.0, 10.002))
        self.assertAlmostEqual(self.times.averages["find"], 0.002)
        self.assertEqual(self.connection.busy_since, 10.002)

    def test_behind_another(self) -> None:
        """The time of a request behind another begins with the reply to that one, the way of which is none of it."""
        self.delays.rtt = 0.5
        self.connection.busy_since = 10.004
        self.learn(10.001, 10.007)
        self.assertAlmostEqual(self.times.averages["find"], 0.003)

    def test_delays(self) -> None:
        """The way there and back and what this process needs are not the server's time."""
        self.delays.rtt, self.delays.lag = 0.050, 0.007
        self.learn(10.0, 10.060)
        self.assertAlmostEqual(self.times.averages["find"], 0.003)

    def test_no_reply(self) -> None:
        """Without a reply nothing is learned."""
        self.assertFalse(self.learn(10.0, 9.9))
        self.assertEqual(self.times.averages, {})
        self.assertEqual(self.connection.busy_since, 10.0)
