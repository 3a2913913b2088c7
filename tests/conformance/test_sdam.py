"""The SDAM specification's tests of what a topology makes of its servers' replies, run through our Topology."""

from __future__ import annotations

from typing import Any

from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.polled_deployment import PolledDeployment, parse_address
from txmongo._pymongo import SERVER_TYPE
from txmongo._sdam.description import incompatibility

#: Expected fields of a server, and where they stand in its description.
_SERVER_FIELDS = {
    "setName": "replica_set_name",
    "setVersion": "set_version",
    "electionId": "election_id",
    "logicalSessionTimeoutMinutes": "logical_session_timeout_minutes",
    "minWireVersion": "min_wire_version",
    "maxWireVersion": "max_wire_version",
    "topologyVersion": "topology_version",
}


class OutcomeChecks(SynchronousTestCase):
    """Compares a topology with the outcome that a test expects."""

    def check_outcome(self, deployment: PolledDeployment, outcome: dict[str, Any]) -> None:
        """Every field of an outcome that is not about events."""
        description = deployment.topology.description
        known = {"topologyType", "setName", "servers", "logicalSessionTimeoutMinutes"}
        known |= {"maxSetVersion", "maxElectionId", "compatible"}
        self.assertEqual(set(outcome) - known, set())
        self.assertEqual(description.topology_type, getattr(TOPOLOGY_TYPE, outcome["topologyType"]))
        self.assertEqual(description.replica_set_name, outcome.get("setName"))
        self.assertEqual(description.logical_session_timeout_minutes, outcome.get("logicalSessionTimeoutMinutes"))
        if "maxSetVersion" in outcome:
            self.assertEqual(description.max_set_version, outcome["maxSetVersion"])
        if "maxElectionId" in outcome:
            self.assertEqual(description.max_election_id, outcome["maxElectionId"])
        if "compatible" in outcome:
            self.assertEqual(incompatibility(description) is None, outcome["compatible"])
        self.check_servers(deployment, outcome["servers"])

    def check_servers(self, deployment: PolledDeployment, servers: dict[str, dict[str, Any]]) -> None:
        """The servers are these and look like that, in the description and as servers."""
        descriptions = deployment.topology.description.server_descriptions()
        expected = {parse_address(address): fields for address, fields in servers.items()}
        self.assertEqual(set(descriptions), set(expected))
        self.assertEqual(set(deployment.topology.servers), set(expected))
        for address, fields in expected.items():
            self.assertIs(deployment.topology.servers[address].description, descriptions[address])
            self.check_server(deployment, descriptions[address], dict(fields))

    def check_server(self, deployment: PolledDeployment, description: Any, fields: dict[str, Any]) -> None:
        """One server's description and pool."""
        server_type = fields.pop("type")
        wanted = SERVER_TYPE.Unknown if server_type == "PossiblePrimary" else getattr(SERVER_TYPE, server_type)
        self.assertEqual(description.server_type, wanted)
        pool = fields.pop("pool", None)
        if pool is not None:
            self.assertEqual(deployment.topology.servers[description.address].pool.generation, pool["generation"])
        error = fields.pop("error", None)
        if error is not None:
            self.assertIn(error, str(description.error))
        for field, value in fields.items():
            # Where the specification says "null or 0", PyMongo's descriptions say 0.
            wanted = 0 if value is None and field.endswith("WireVersion") else value
            self.assertEqual(getattr(description, _SERVER_FIELDS[field]), wanted, field)

    def run_case(self, case: Case) -> None:
        """Feed each phase's replies to the monitors, let operations fail as it says, and compare."""
        deployment = PolledDeployment(case.test["uri"])
        deployment.open()
        for phase in case.test["phases"]:
            for address, document in phase.get("responses", ()):
                deployment.respond(parse_address(address), document)
            for fields in phase.get("applicationErrors", ()):
                self.fail_operation(deployment, fields)
            self.check_outcome(deployment, phase["outcome"])
        deployment.close()

    def fail_operation(self, deployment: PolledDeployment, fields: dict[str, Any]) -> None:
        """Let an operation fail as a test says."""
        raise NotImplementedError


class TopologyTests(OutcomeChecks):
    """Discovery: replica sets, sharded clusters, single servers, load balancers."""


for _folder in ("rs", "sharded", "single", "load-balanced"):
    add_cases(TopologyTests, f"discovery_and_monitoring/{_folder}", TopologyTests.run_case)
