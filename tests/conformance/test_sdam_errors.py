"""The SDAM specification's tests of what an application's error does to the topology, through our Topology and Pool."""

from __future__ import annotations

from typing import Any

from tests.conformance.cases import add_cases
from tests.conformance.polled_deployment import PolledDeployment, parse_address
from tests.conformance.test_sdam import OutcomeChecks
from txmongo.errors import AutoReconnect, NetworkTimeout, PyMongoError, error_from_reply, write_error_from_reply

#: What the pool marks errors with that come while a connection is being established: CMAP specification.
_OVERLOADED = {"errorLabels": ["SystemOverloadedError", "RetryableError"]}


def make_error(fields: dict[str, Any]) -> PyMongoError:
    """The exception that our driver would raise for an ``applicationError`` of a test."""
    kind = fields["type"]
    labels = _OVERLOADED if fields["when"] == "beforeHandshakeCompletes" else None
    if kind == "network":
        return AutoReconnect("network error", labels)
    if kind == "timeout":
        return NetworkTimeout("network timeout", labels)
    assert kind == "command", kind
    error = error_from_reply(fields["response"]) or write_error_from_reply(fields["response"])
    assert error is not None
    return error


class ErrorTests(OutcomeChecks):
    """Errors of operations and of opening connections."""

    def fail_operation(self, deployment: PolledDeployment, fields: dict[str, Any]) -> None:
        """Let an operation fail as a test says."""
        address = parse_address(fields["address"])
        pool = deployment.topology.servers[address].pool
        deployment.topology.handle_error(
            address,
            make_error(fields),
            generation=fields.get("generation", pool.generation),
            max_wire_version=fields["maxWireVersion"],
            completed_handshake=fields["when"] == "afterHandshakeCompletes",
        )


add_cases(ErrorTests, "discovery_and_monitoring/errors", ErrorTests.run_case)
