"""What the log says of the selection of a server: "Logging" of the server selection specification.

Cursors and transactions that stay with their server do not select one, and so are not spoken of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo.topology_description import TopologyDescription
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmongo._logs import ComponentLog, Template, address_fields
from txmongo._sdam.selection import describe_selector, describe_topology
from txmongo._sdam.server import Server

__all__ = ["SelectionLog"]

_FOR = (' for operation "{operation}"', " with ID {operationId}")
_WHAT = (". Selector: {selector}, topology description: {topologyDescription}",)

_STARTED = Template("Server selection started", "Server selection started", *_FOR, *_WHAT)
_SUCCEEDED = Template(
    "Server selection succeeded", "Server selection succeeded", *_FOR, ": {serverHost}", ":{serverPort}", *_WHAT
)
_WAITING = Template(
    "Waiting for suitable server to become available",
    "Waiting for suitable server to become available",
    *_FOR,
    ". Remaining time: {remainingTimeMS} ms",
    *_WHAT,
)
_FAILED = Template("Server selection failed", "Server selection failed", *_FOR, ". Failure: {failure}", *_WHAT)


class SelectionLog:
    """Follows the selections of one topology.

    :param description: gives what is known of the topology now.
    """

    def __init__(self, log: ComponentLog, description: Callable[[], TopologyDescription]) -> None:
        self._log = log
        self._description = description

    def follow(
        self, select: Callable[[], Deferred[Server]], selector: Any, operation: str, operation_id: int, remaining: float
    ) -> Deferred[Server]:
        """Have a server selected, and say how that goes.

        :param select: selects it, or begins to wait for one.
        :param operation_id: 0 for what belongs to no operation.
        :param remaining: seconds that waiting may take.
        """
        what = {
            "selector": describe_selector(selector),
            "operation": operation or None,
            "operationId": operation_id or None,
        }
        self._log.debug(_STARTED, self._fields(what))
        deferred = select()
        if not deferred.called:
            fields = {**self._fields(what), "remainingTimeMS": round(max(remaining, 0.0) * 1000)}
            self._log.info(_WAITING, fields)
        deferred.addCallbacks(self._succeeded, self._failed, callbackArgs=(what,), errbackArgs=(what,))
        return deferred

    def _succeeded(self, server: Server, what: dict[str, Any]) -> Server:
        self._log.debug(_SUCCEEDED, {**self._fields(what), **address_fields(server.address)})
        return server

    def _failed(self, failure: Failure, what: dict[str, Any]) -> Failure:
        error: Any = failure.value
        self._log.debug(_FAILED, {**self._fields(what), "failure": self._log.error(error)})
        return failure

    def _fields(self, what: dict[str, Any]) -> dict[str, Any]:
        return {**what, "topologyDescription": describe_topology(self._description())}
