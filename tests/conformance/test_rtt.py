"""The server selection specification's tests of the average round trip time."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from txmongo._sdam.rtt import RoundTripTimes


class RoundTripTests(SynchronousTestCase):
    """One more sample."""

    def run_case(self, case: Case) -> None:
        """Add the sample to the average."""
        times = RoundTripTimes()
        if case.test["avg_rtt_ms"] != "NULL":
            times.add(case.test["avg_rtt_ms"])
        times.add(case.test["new_rtt_ms"])
        assert times.average is not None
        self.assertAlmostEqual(times.average, case.test["new_avg_rtt"])


add_cases(RoundTripTests, "server_selection/rtt", RoundTripTests.run_case)
