"""The max staleness specification's tests, run through our Topology."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.cases import add_cases
from tests.conformance.described import addresses, described_topology, make_preference
from tests.conformance.loader import Case
from txmongo._sdam.selection import suitable_servers
from txmongo.errors import ConfigurationError


class MaxStalenessTests(SynchronousTestCase):
    """Secondaries that lag too far behind."""

    def run_case(self, case: Case) -> None:
        """Compare suitable servers and the latency window, or see that the read preference is refused."""
        test = case.test
        keywords = {"heartbeatFrequencyMS": test.get("heartbeatFrequencyMS", 10_000)}
        if test.get("error"):
            self.check_refused(case, keywords)
            return
        selector = make_preference(test["read_preference"])
        wide = described_topology(test["topology_description"], localThresholdMS=10**6, **keywords)
        self.assertEqual(set(suitable_servers(wide.description, selector)), addresses(test["suitable_servers"]))
        topology = described_topology(test["topology_description"], **keywords)
        window = addresses(test["in_latency_window"])
        self.assertEqual(set(suitable_servers(topology.description, selector)), window)
        server = topology.select_server_now(selector)
        self.assertEqual(server is None, not window)
        if server is not None:
            self.assertIn(server.address, window)

    def check_refused(self, case: Case, keywords: dict[str, int]) -> None:
        """The read preference cannot be made, or no server is ever selected by it and nobody waits for one."""
        try:
            selector = make_preference(case.test["read_preference"])
        except (ConfigurationError, ValueError):
            return
        topology = described_topology(case.test["topology_description"], **keywords)
        self.assertIsNone(topology.select_server_now(selector))
        self.failureResultOf(topology.select_server(selector), ConfigurationError)


add_cases(MaxStalenessTests, "max_staleness", MaxStalenessTests.run_case)
