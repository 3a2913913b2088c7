"""Tells the user's listeners what happens to the topology: the one place from which SDAM events leave.

The event and listener classes are PyMongo's (``pymongo.monitoring``). Events leave in the order in which they happen,
also when a listener's reaction causes more of them; a listener that raises is logged and stops nobody else. The same
is written to the log, if the component ``topology`` is wanted there. Where nobody listens nothing is built. SDAM
logging and monitoring specification, "Events API" and "Log Messages".
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bson.objectid import ObjectId
from pymongo.hello import Hello
from pymongo.monitoring import (
    ServerClosedEvent,
    ServerDescriptionChangedEvent,
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
    ServerListener,
    ServerOpeningEvent,
    TopologyClosedEvent,
    TopologyDescriptionChangedEvent,
    TopologyListener,
    TopologyOpenedEvent,
)
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TopologyDescription
from twisted.logger import Logger

from txmongo._logs import Template, address_fields, milliseconds
from txmongo._sdam.selection import describe_topology

if TYPE_CHECKING:
    from txmongo._logs import ComponentLog
    from txmongo.types import Address

__all__ = ["SdamEvents"]

_log = Logger(namespace="txmongo.sdam.events")

_ID = " with ID {topologyId}"
_IN_TOPOLOGY = " in topology" + _ID
_SERVER = (" for {serverHost}", ":{serverPort}")
_CONNECTION = (
    " on connection with driver-generated ID {driverConnectionId}",
    " and server-generated ID {serverConnectionId}",
    _IN_TOPOLOGY,
    ". Awaited: {awaited}",
)
_TOPOLOGY_OPENED = Template("Starting topology monitoring", "Starting monitoring for topology", _ID)
_TOPOLOGY_CHANGED = Template(
    "Topology description changed",
    f"Description changed for topology{_ID}. "
    "Previous description: {previousDescription}. New description: {newDescription}",
)
_TOPOLOGY_CLOSED = Template("Stopped topology monitoring", "Stopped monitoring for topology", _ID)
_SERVER_OPENED = Template(
    "Starting server monitoring", "Starting monitoring for server {serverHost}", ":{serverPort}", _IN_TOPOLOGY
)
_SERVER_CLOSED = Template(
    "Stopped server monitoring", "Stopped monitoring for server {serverHost}", ":{serverPort}", _IN_TOPOLOGY
)
_HEARTBEAT_STARTED = Template("Server heartbeat started", "Heartbeat started", *_SERVER, *_CONNECTION)
_HEARTBEAT_SUCCEEDED = Template(
    "Server heartbeat succeeded", "Heartbeat succeeded in {durationMS} ms", *_SERVER, *_CONNECTION, ". Reply: {reply}"
)
_HEARTBEAT_FAILED = Template(
    "Server heartbeat failed", "Heartbeat failed in {durationMS} ms", *_SERVER, *_CONNECTION, ". Failure: {failure}"
)


class SdamEvents:
    """Publishes the events of one topology.

    :param listeners: the client's listeners of any kind; those for topologies, servers and heartbeats are taken.
    :param log: where the same is written to.
    """

    def __init__(self, listeners: Iterable[Any], topology_id: ObjectId, log: ComponentLog | None = None) -> None:
        listeners = tuple(listeners)
        self._topology_id = topology_id
        self._topology = tuple(each for each in listeners if isinstance(each, TopologyListener))
        self._server = tuple(each for each in listeners if isinstance(each, ServerListener))
        self._heartbeat = tuple(each for each in listeners if isinstance(each, ServerHeartbeatListener))
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._publishing = False
        self._log = log
        #: By server the fields that name the connection of its monitor. It lives from its first heartbeat to its first
        #: failed one.
        self._connections: dict[Address, dict[str, Any]] = {}
        self._connection_ids = itertools.count(1)

    def topology_opened(self) -> None:
        """The first event of all."""
        if self._log is not None:
            self._log.debug(_TOPOLOGY_OPENED, {})
        if self._topology:
            self._publish(self._topology, "opened", TopologyOpenedEvent(self._topology_id))

    def topology_changed(self, previous: TopologyDescription, new: TopologyDescription) -> None:
        """The description of the deployment is another one."""
        if self._log is not None:
            descriptions = {
                "previousDescription": describe_topology(previous),
                "newDescription": describe_topology(new),
            }
            self._log.debug(_TOPOLOGY_CHANGED, descriptions)
        if self._topology:
            event = TopologyDescriptionChangedEvent(previous, new, self._topology_id)
            self._publish(self._topology, "description_changed", event)

    def topology_closed(self) -> None:
        """The last event of all."""
        if self._log is not None:
            self._log.debug(_TOPOLOGY_CLOSED, {})
        if self._topology:
            self._publish(self._topology, "closed", TopologyClosedEvent(self._topology_id))

    def server_opened(self, address: Address) -> None:
        """A server became part of the topology; its monitor is not started yet."""
        if self._log is not None:
            self._log.debug(_SERVER_OPENED, address_fields(address))
        if self._server:
            self._publish(self._server, "opened", ServerOpeningEvent(address, self._topology_id))

    def server_changed(self, previous: ServerDescription, new: ServerDescription) -> None:
        """The description of a server is another one, its round trip time aside."""
        if self._server:
            event = ServerDescriptionChangedEvent(previous, new, new.address, self._topology_id)
            self._publish(self._server, "description_changed", event)

    def server_closed(self, address: Address) -> None:
        """A server is no part of the topology any more and its monitor has ended."""
        if self._log is not None:
            self._log.debug(_SERVER_CLOSED, address_fields(address))
            self._connections.pop(address, None)
        if self._server:
            self._publish(self._server, "closed", ServerClosedEvent(address, self._topology_id))

    def heartbeat_started(self, address: Address, awaited: bool) -> None:
        """A check begins: before its connection is opened, its hello sent or the next streamed reply awaited."""
        if self._log is not None:
            self._log.debug(_HEARTBEAT_STARTED, self._heartbeat_fields(address, awaited))
        if self._heartbeat:
            self._publish(self._heartbeat, "started", ServerHeartbeatStartedEvent(address, awaited))

    def heartbeat_succeeded(
        self, address: Address, duration: float, reply: Hello[dict[str, Any]], awaited: bool
    ) -> None:
        """A check succeeded after ``duration`` seconds."""
        if self._log is not None:
            fields = self._heartbeat_fields(address, awaited)
            document = reply.document
            self._connections[address]["serverConnectionId"] = document.get("connectionId")
            fields["serverConnectionId"] = document.get("connectionId")
            outcome = {"durationMS": milliseconds(duration), "reply": self._log.document(document)}
            self._log.debug(_HEARTBEAT_SUCCEEDED, {**fields, **outcome})
        if self._heartbeat:
            event = ServerHeartbeatSucceededEvent(duration, reply, address, awaited)
            self._publish(self._heartbeat, "succeeded", event)

    def heartbeat_failed(self, address: Address, duration: float, error: Exception, awaited: bool) -> None:
        """A check failed, or was given up, after ``duration`` seconds."""
        if self._log is not None:
            fields = self._heartbeat_fields(address, awaited)
            outcome = {"durationMS": milliseconds(duration), "failure": self._log.error(error)}
            self._log.debug(_HEARTBEAT_FAILED, {**fields, **outcome})
            self._connections.pop(address, None)
        if self._heartbeat:
            event = ServerHeartbeatFailedEvent(duration, error, address, awaited)
            self._publish(self._heartbeat, "failed", event)

    def _heartbeat_fields(self, address: Address, awaited: bool) -> dict[str, Any]:
        """Fields of all messages about a check."""
        connection = self._connections.get(address)
        if connection is None:
            connection = self._connections[address] = {"driverConnectionId": next(self._connection_ids)}
        return {**address_fields(address), **connection, "awaited": awaited}

    def _publish(self, listeners: Iterable[Any], method: str, event: Any) -> None:
        for listener in listeners:
            self._queue.append((getattr(listener, method), event))
        if self._publishing:
            return
        self._publishing = True
        try:
            while self._queue:
                call, queued = self._queue.popleft()
                try:
                    call(queued)
                except Exception:
                    _log.failure("A listener failed on {event}", event=type(queued).__name__)
        finally:
            self._publishing = False
