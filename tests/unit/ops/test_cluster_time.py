"""``txmongo._ops.cluster_time``: the cluster time that is passed on."""

from __future__ import annotations

from typing import Any

from bson.timestamp import Timestamp
from twisted.trial.unittest import SynchronousTestCase

from txmongo._ops.cluster_time import ClusterClock, cluster_timestamp, later_cluster_time


def at(seconds: int, increment: int = 1, signature: Any = None) -> dict[str, Any]:
    """A ``$clusterTime`` document."""
    return {"clusterTime": Timestamp(seconds, increment), "signature": signature}


class ClusterTimeTests(SynchronousTestCase):
    """The client's and single documents."""

    def test_goes_forward_only(self) -> None:
        """The latest time stays, by seconds and then by increment, whatever its signature."""
        clock = ClusterClock()
        self.assertIsNone(clock.document)
        self.assertEqual(repr(clock), "<ClusterClock unset>")
        for document, expected in (
            (at(5), at(5)),
            (at(5, 1, "other"), at(5)),
            (at(4, 9), at(5)),
            (at(5, 2), at(5, 2)),
            (at(6, 0), at(6, 0)),
        ):
            clock.advance(document)
            self.assertEqual(clock.document, expected)
        self.assertEqual(repr(clock), "<ClusterClock 6:0>")

    def test_nonsense(self) -> None:
        """What is no cluster time is ignored."""
        clock = ClusterClock()
        for document in (None, 1, {}, {"clusterTime": 5}):
            clock.advance(document)
            self.assertIsNone(cluster_timestamp(document))
        self.assertIsNone(clock.document)

    def test_later(self) -> None:
        """Of two, each of which may be missing, the later one is taken."""
        self.assertIsNone(later_cluster_time(None, None))
        self.assertEqual(later_cluster_time(at(1), None), at(1))
        self.assertEqual(later_cluster_time(None, at(1)), at(1))
        self.assertEqual(later_cluster_time(at(1), at(2)), at(2))
        self.assertEqual(later_cluster_time(at(2, 1, "mine"), at(2, 1, "yours")), at(2, 1, "mine"))
