"""Tells the user's listeners what happens to the topology: the one place from which SDAM events leave.

The event and listener classes are PyMongo's (``pymongo.monitoring``). Events leave in the order in which they happen,
also when a listener's reaction causes more of them; a listener that raises is logged and stops nobody else. Where
nobody listens nothing is built. SDAM logging and monitoring specification, "Events API".
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from txmongo.types import Address

__all__ = ["SdamEvents"]

_log = Logger(namespace="txmongo.sdam.events")


class SdamEvents:
    """Publishes the events of one topology.

    :param listeners: the client's listeners of any kind; those for topologies, servers and heartbeats are taken.
    """

    def __init__(self, listeners: Iterable[Any], topology_id: ObjectId) -> None:
        listeners = tuple(listeners)
        self._topology_id = topology_id
        self._topology = tuple(each for each in listeners if isinstance(each, TopologyListener))
        self._server = tuple(each for each in listeners if isinstance(each, ServerListener))
        self._heartbeat = tuple(each for each in listeners if isinstance(each, ServerHeartbeatListener))
        self._queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._publishing = False

    def topology_opened(self) -> None:
        """The first event of all."""
        if self._topology:
            self._publish(self._topology, "opened", TopologyOpenedEvent(self._topology_id))

    def topology_changed(self, previous: TopologyDescription, new: TopologyDescription) -> None:
        """The description of the deployment is another one."""
        if self._topology:
            event = TopologyDescriptionChangedEvent(previous, new, self._topology_id)
            self._publish(self._topology, "description_changed", event)

    def topology_closed(self) -> None:
        """The last event of all."""
        if self._topology:
            self._publish(self._topology, "closed", TopologyClosedEvent(self._topology_id))

    def server_opened(self, address: Address) -> None:
        """A server became part of the topology; its monitor is not started yet."""
        if self._server:
            self._publish(self._server, "opened", ServerOpeningEvent(address, self._topology_id))

    def server_changed(self, previous: ServerDescription, new: ServerDescription) -> None:
        """The description of a server is another one, its round trip time aside."""
        if self._server:
            event = ServerDescriptionChangedEvent(previous, new, new.address, self._topology_id)
            self._publish(self._server, "description_changed", event)

    def server_closed(self, address: Address) -> None:
        """A server is no part of the topology any more and its monitor has ended."""
        if self._server:
            self._publish(self._server, "closed", ServerClosedEvent(address, self._topology_id))

    def heartbeat_started(self, address: Address, awaited: bool) -> None:
        """A check begins: before its connection is opened, its hello sent or the next streamed reply awaited."""
        if self._heartbeat:
            self._publish(self._heartbeat, "started", ServerHeartbeatStartedEvent(address, awaited))

    def heartbeat_succeeded(
        self, address: Address, duration: float, reply: Hello[dict[str, Any]], awaited: bool
    ) -> None:
        """A check succeeded after ``duration`` seconds."""
        if self._heartbeat:
            event = ServerHeartbeatSucceededEvent(duration, reply, address, awaited)
            self._publish(self._heartbeat, "succeeded", event)

    def heartbeat_failed(self, address: Address, duration: float, error: Exception, awaited: bool) -> None:
        """A check failed, or was given up, after ``duration`` seconds."""
        if self._heartbeat:
            event = ServerHeartbeatFailedEvent(duration, error, address, awaited)
            self._publish(self._heartbeat, "failed", event)

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
