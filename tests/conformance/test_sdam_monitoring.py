"""The SDAM specification's tests of the events that listeners are told, run through our Topology."""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TopologyDescription
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.polled_deployment import PolledDeployment, parse_address
from txmongo._sdam.description import format_address

_NAMES = {
    monitoring.TopologyOpenedEvent: "topology_opening_event",
    monitoring.TopologyDescriptionChangedEvent: "topology_description_changed_event",
    monitoring.TopologyClosedEvent: "topology_closed_event",
    monitoring.ServerOpeningEvent: "server_opening_event",
    monitoring.ServerDescriptionChangedEvent: "server_description_changed_event",
    monitoring.ServerClosedEvent: "server_closed_event",
}


class Recorder(monitoring.TopologyListener, monitoring.ServerListener):
    """Keeps every event of topology and servers in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def opened(self, event: Any) -> None:
        self.events.append(event)

    def description_changed(self, event: Any) -> None:
        self.events.append(event)

    def closed(self, event: Any) -> None:
        self.events.append(event)


def server_document(description: ServerDescription) -> dict[str, Any]:
    """A server's description in the tests' notation; hosts, passives and arbiters are one set in PyMongo's."""
    document = {
        "address": format_address(description.address),
        "type": description.server_type_name,
        "members": sorted(format_address(each) for each in description.all_hosts),
    }
    if description.primary is not None:
        document["primary"] = format_address(description.primary)
    if description.replica_set_name is not None:
        document["setName"] = description.replica_set_name
    return document


def topology_document(description: TopologyDescription) -> dict[str, Any]:
    """A topology's description in the tests' notation."""
    servers = description.server_descriptions()
    document: dict[str, Any] = {
        "topologyType": description.topology_type_name,
        "servers": [server_document(servers[address]) for address in sorted(servers)],
    }
    if description.replica_set_name is not None:
        document["setName"] = description.replica_set_name
    return document


def event_document(event: Any) -> dict[str, Any]:
    """An event in the tests' notation."""
    document: dict[str, Any] = {}
    if isinstance(event, monitoring._ServerEvent):
        document["address"] = format_address(event.server_address)
    if isinstance(event, monitoring.ServerDescriptionChangedEvent):
        document["previousDescription"] = server_document(event.previous_description)
        document["newDescription"] = server_document(event.new_description)
    if isinstance(event, monitoring.TopologyDescriptionChangedEvent):
        document["previousDescription"] = topology_document(event.previous_description)
        document["newDescription"] = topology_document(event.new_description)
    return {_NAMES[type(event)]: document}


def normalize(expected: dict[str, Any]) -> dict[str, Any]:
    """An expected event without the topology's id, its lists of members as one."""
    ((name, fields),) = expected.items()
    document = {key: value for key, value in fields.items() if key != "topologyId"}
    for key in ("previousDescription", "newDescription"):
        if key in document:
            document[key] = _normalize_description(document[key])
    return {name: document}


def _normalize_description(description: dict[str, Any]) -> dict[str, Any]:
    result = dict(description)
    if result.get("type") == "PossiblePrimary":
        # For clients that check their servers in parallel another word for Unknown.
        result["type"] = "Unknown"
    if "servers" in result:
        servers = [_normalize_description(server) for server in result["servers"]]
        result["servers"] = sorted(servers, key=lambda server: str(server["address"]))
        return result
    members = [result.pop(kind) for kind in ("hosts", "passives", "arbiters")]
    result["members"] = sorted(format_address(parse_address(each)) for kind in members for each in kind)
    return result


class EventTests(SynchronousTestCase):
    """Which events are published, and in which order."""

    maxDiff = None

    def run_case(self, case: Case) -> None:
        """Feed each phase's replies and compare what the listener heard."""
        recorder = Recorder()
        deployment = PolledDeployment(case.test["uri"], event_listeners=[recorder])
        deployment.open()
        for phase in case.test["phases"]:
            for address, document in phase.get("responses", ()):
                deployment.respond(parse_address(address), document)
            events, recorder.events = recorder.events, []
            self.assertEqual({event.topology_id for event in events} - {deployment.topology.id}, set())
            expected = [normalize(each) for each in phase["outcome"]["events"]]
            self.assertEqual([event_document(each) for each in events], expected)
        deployment.close()


add_cases(EventTests, "sdam_monitoring", EventTests.run_case)
