"""Round trip times."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmongo._sdam.rtt import RoundTripTimes


class RoundTripTimesTests(SynchronousTestCase):
    """Average and minimum."""

    def test_first_sample(self) -> None:
        """The first sample is the average, and the minimum is unknown until there are two."""
        times = RoundTripTimes()
        self.assertIsNone(times.average)
        times.add(0.4)
        self.assertEqual((times.average, times.minimum), (0.4, 0.0))

    def test_weight(self) -> None:
        """A further sample counts for a fifth."""
        times = RoundTripTimes()
        times.add(1.0)
        times.add(2.0)
        self.assertEqual((times.average, times.minimum), (1.2000000000000002, 1.0))

    def test_minimum_forgets(self) -> None:
        """Only the last ten samples count for the minimum."""
        times = RoundTripTimes()
        for sample in (0.1, *[0.5] * 10):
            times.add(sample)
        self.assertEqual(times.minimum, 0.5)

    def test_reset(self) -> None:
        """After a reset the next sample is the first one again."""
        times = RoundTripTimes()
        times.add(1.0)
        times.add(1.0)
        times.reset()
        self.assertEqual((times.average, times.minimum), (None, 0.0))
