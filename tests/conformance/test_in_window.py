"""The server selection specification's tests of choosing by load within the latency window, through our Topology."""

from __future__ import annotations

from collections import Counter

from pymongo.read_preferences import ReadPreference
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.cases import add_cases
from tests.conformance.described import described_topology
from tests.conformance.loader import Case
from tests.conformance.polled_deployment import parse_address


class InWindowTests(SynchronousTestCase):
    """The less busy one of two picked at random."""

    def run_case(self, case: Case) -> None:
        """Select as often as the test says and compare how often each server was chosen."""
        test = case.test
        topology = described_topology(test["topology_description"])
        for state in test["mocked_topology_state"]:
            topology.servers[parse_address(state["address"])].pool.operation_count = state["operation_count"]
        chosen: Counter[object] = Counter()
        for _ in range(test["iterations"]):
            server = topology.select_server_now(ReadPreference.NEAREST)
            assert server is not None
            chosen[server.address] += 1
        outcome = test["outcome"]
        for address, expected in outcome["expected_frequencies"].items():
            actual = chosen[parse_address(address)] / test["iterations"]
            if expected in (0, 1):
                self.assertEqual(actual, expected)
            else:
                self.assertLessEqual(abs(actual - expected), outcome["tolerance"])


add_cases(InWindowTests, "server_selection/in_window", InWindowTests.run_case)
