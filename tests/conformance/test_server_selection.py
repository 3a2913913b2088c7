"""The server selection specification's tests of which servers suit an operation, run through our Topology."""

from __future__ import annotations

from pymongo.read_preferences import ReadPreference
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.cases import add_cases
from tests.conformance.described import addresses, described_topology, make_preference
from tests.conformance.loader import Case
from txmongo._sdam.selection import suitable_servers

#: So many choices among at most three servers find each of them.
_CHOICES = 50


class SelectionTests(SynchronousTestCase):
    """Topology type, read preference, tags and deprioritized servers."""

    def run_case(self, case: Case) -> None:
        """Compare suitable servers, the latency window, and what the topology chooses."""
        test = case.test
        selector = ReadPreference.PRIMARY if test["operation"] == "write" else make_preference(test["read_preference"])
        avoided = addresses(test.get("deprioritized_servers", []))
        suitable, window = addresses(test["suitable_servers"]), addresses(test["in_latency_window"])

        wide = described_topology(test["topology_description"], localThresholdMS=10**6)
        self.assertEqual(set(suitable_servers(wide.description, selector, deprioritized=avoided)), suitable)
        topology = described_topology(test["topology_description"])
        self.assertEqual(set(suitable_servers(topology.description, selector, deprioritized=avoided)), window)

        chosen = [topology.select_server_now(selector, avoided) for _ in range(_CHOICES)]
        self.assertEqual({server.address for server in chosen if server is not None}, window)
        self.assertEqual(None in chosen, not window)
        waiting = topology.select_server(selector, deprioritized=avoided)
        if window:
            self.assertIn(self.successResultOf(waiting).address, window)
        else:
            self.assertNoResult(waiting)


add_cases(SelectionTests, "server_selection/server_selection", SelectionTests.run_case)
