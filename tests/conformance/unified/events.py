"""Records a client's monitoring events and compares them with expected ones.

The events are those of :mod:`pymongo.monitoring`; the format's names for them are the class names with a small first
letter. Which events a client observes, and which commands it ignores, the case says.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from bson.objectid import ObjectId
from pymongo import monitoring

from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import UNSET, Matcher

__all__ = ["EVENT_TYPES", "EventRecorder", "event_matches", "event_name", "match_event", "match_events"]

#: The events of each ``eventType``.
EVENT_TYPES: dict[str, frozenset[str]] = {
    "command": frozenset({"commandStartedEvent", "commandSucceededEvent", "commandFailedEvent"}),
    "cmap": frozenset(
        {
            "poolCreatedEvent",
            "poolReadyEvent",
            "poolClearedEvent",
            "poolClosedEvent",
            "connectionCreatedEvent",
            "connectionReadyEvent",
            "connectionClosedEvent",
            "connectionCheckOutStartedEvent",
            "connectionCheckOutFailedEvent",
            "connectionCheckedOutEvent",
            "connectionCheckedInEvent",
        }
    ),
    "sdam": frozenset(
        {
            "serverOpeningEvent",
            "serverClosedEvent",
            "serverDescriptionChangedEvent",
            "serverHeartbeatStartedEvent",
            "serverHeartbeatSucceededEvent",
            "serverHeartbeatFailedEvent",
            "topologyOpeningEvent",
            "topologyClosedEvent",
            "topologyDescriptionChangedEvent",
        }
    ),
}
KNOWN = frozenset[str]().union(*EVENT_TYPES.values())

#: Events whose class has another name in PyMongo.
NAMES = {"TopologyOpenedEvent": "topologyOpeningEvent"}

SENSITIVE = frozenset(
    name.lower()
    for name in (
        *("authenticate", "saslStart", "saslContinue", "getnonce", "createUser", "updateUser"),
        *("copydbgetnonce", "copydbsaslstart", "copydb"),
    )
)
SENSITIVE_IF_REDACTED = frozenset({"hello", "ismaster"})


def event_name(event: object) -> str:
    """The format's name for an event of :mod:`pymongo.monitoring`."""
    name = type(event).__name__
    return NAMES.get(name, name[0].lower() + name[1:])


@attrs.define
class StoredEvents:
    """What ``storeEventsAsEntities`` asks for: the events named, as documents."""

    names: frozenset[str]
    documents: list[dict[str, Any]] = attrs.field(factory=list)


@attrs.define(eq=False)
class EventRecorder:
    """What one client's listeners heard.

    :ivar observed: names of the events to be recorded, in the format's spelling.
    :ivar ignored: names of commands whose events are dropped, in small letters.
    :ivar sensitive: whether events of commands that hold secrets are recorded.
    :ivar stored: what ``storeEventsAsEntities`` asks for.
    :ivar events: what was recorded, in order.
    :ivar checked_out: how many connections are checked out.
    :ivar topology: the newest topology description.
    :ivar topology_ids: of the topology listened to.
    :ivar under_way: ids of the requests that were started and have not ended.
    :ivar ready: how many connections became ready, by address.
    :ivar recording: whether new events are recorded.
    """

    observed: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    sensitive: bool = False
    stored: list[StoredEvents] = attrs.field(factory=list)
    events: list[Any] = attrs.field(factory=list)
    checked_out: int = 0
    topology: Any = None
    topology_ids: set[Any] = attrs.field(factory=set)
    under_way: set[int] = attrs.field(factory=set)
    ready: Counter[Any] = attrs.field(factory=Counter)
    recording: bool = True
    _redacted: set[int] = attrs.field(factory=set)
    _watchers: list[Callable[[], None]] = attrs.field(factory=list)

    def listeners(self) -> list[Any]:
        """The client's listeners: of its pools and its topology always, of the rest where it is observed."""
        wanted = self.observed.union(*(stored.names for stored in self.stored))
        found: list[Any] = [_PoolListener(self), _TopologyListener(self)]
        if wanted & EVENT_TYPES["command"]:
            found.append(_CommandListener(self))
        if any("Heartbeat" in name for name in wanted):
            found.append(_HeartbeatListener(self))
        if any(name.startswith("server") for name in wanted):
            found.append(_ServerListener(self))
        return found

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Have a function called after each event; what is returned ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def count(self, wanted: Callable[[Any], bool]) -> int:
        """How many of the recorded events are wanted."""
        return sum(map(wanted, self.events))

    def of_type(self, event_type: str) -> list[Any]:
        """The recorded events of an ``eventType``."""
        names = EVENT_TYPES[event_type]
        return [event for event in self.events if event_name(event) in names]

    def is_topology(self, topology_id: Any) -> bool:
        """Whether a topology id is that of the client listened to."""
        return topology_id is not None and topology_id in self.topology_ids

    def pools_hold(self, size: int) -> bool:
        """Whether a server that bears data is known and each such server has had so many connections made ready."""
        servers = self.topology.server_descriptions() if self.topology is not None else {}
        bearing = [address for address, server in servers.items() if server.is_readable or server.is_writable]
        unknown = [server for server in servers.values() if not server.is_server_type_known]
        return bool(bearing) and not unknown and all(self.ready[address] >= size for address in bearing)

    def forget(self, *event_types: str) -> None:
        """Drop what was recorded of some types."""
        names = frozenset[str]().union(*(EVENT_TYPES[event_type] for event_type in event_types))
        self.events[:] = [event for event in self.events if event_name(event) not in names]

    def record(self, event: Any) -> None:
        """Take an event, if it is one to be recorded."""
        self._count(event)
        name = event_name(event)
        if self.recording and not (name in EVENT_TYPES["command"] and self._ignores(event)):
            for stored in self.stored:
                if name in stored.names:
                    stored.documents.append(_as_document(event))
            if name in self.observed:
                self.events.append(event)
        for watcher in list(self._watchers):
            watcher()

    def _count(self, event: Any) -> None:
        if isinstance(event, monitoring.TopologyOpenedEvent):
            self.topology_ids.add(event.topology_id)
        match event:
            case monitoring.CommandStartedEvent():
                self.under_way.add(event.request_id)
            case monitoring.CommandSucceededEvent() | monitoring.CommandFailedEvent():
                self.under_way.discard(event.request_id)
            case monitoring.ConnectionCheckedOutEvent():
                self.checked_out += 1
            case monitoring.ConnectionCheckedInEvent():
                self.checked_out -= 1
            case monitoring.ConnectionReadyEvent():
                self.ready[event.address] += 1
            case monitoring.TopologyDescriptionChangedEvent():
                self.topology = event.new_description

    def _ignores(self, event: Any) -> bool:
        name = event.command_name.lower()
        return (
            name == "configurefailpoint"
            or name in self.ignored
            or (not self.sensitive and self._is_secret(name, event))
        )

    def _is_secret(self, name: str, event: Any) -> bool:
        """Whether the command holds secrets; of a hello only its redaction tells, and a failed one has no document."""
        body = getattr(event, "command", getattr(event, "reply", None))
        if name in SENSITIVE_IF_REDACTED and body is not None and not body:
            self._redacted.add(event.request_id)
        return name in SENSITIVE or event.request_id in self._redacted


@attrs.define(eq=False)
class _CommandListener(monitoring.CommandListener):
    recorder: EventRecorder

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.recorder.record(event)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.recorder.record(event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.recorder.record(event)


@attrs.define(eq=False)
class _PoolListener(monitoring.ConnectionPoolListener):
    recorder: EventRecorder

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        self.recorder.record(event)

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None:
        self.recorder.record(event)

    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None:
        self.recorder.record(event)

    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None:
        self.recorder.record(event)

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        self.recorder.record(event)

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:
        self.recorder.record(event)

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        self.recorder.record(event)

    def connection_check_out_started(self, event: monitoring.ConnectionCheckOutStartedEvent) -> None:
        self.recorder.record(event)

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        self.recorder.record(event)

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        self.recorder.record(event)

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        self.recorder.record(event)


@attrs.define(eq=False)
class _HeartbeatListener(monitoring.ServerHeartbeatListener):
    recorder: EventRecorder

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        self.recorder.record(event)

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        self.recorder.record(event)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        self.recorder.record(event)


@attrs.define(eq=False)
class _ServerListener(monitoring.ServerListener):
    recorder: EventRecorder

    def opened(self, event: monitoring.ServerOpeningEvent) -> None:
        self.recorder.record(event)

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        self.recorder.record(event)

    def closed(self, event: monitoring.ServerClosedEvent) -> None:
        self.recorder.record(event)


@attrs.define(eq=False)
class _TopologyListener(monitoring.TopologyListener):
    recorder: EventRecorder

    def opened(self, event: monitoring.TopologyOpenedEvent) -> None:
        self.recorder.record(event)

    def description_changed(self, event: monitoring.TopologyDescriptionChangedEvent) -> None:
        self.recorder.record(event)

    def closed(self, event: monitoring.TopologyClosedEvent) -> None:
        self.recorder.record(event)


def match_event(matcher: Matcher, expected: Mapping[str, Any], actual: Any, path: str = "event") -> None:
    """Compare one event.

    :raises Mismatch: it is of another kind or its fields differ.
    :raises FormatError: the expectation names an unknown event or field.
    """
    name, fields = _named(expected)
    if event_name(actual) != name:
        raise Mismatch(f"{path} is a {event_name(actual)}, expected a {name}: {actual!r}")
    for field, value in fields.items():
        compare = FIELDS.get(field)
        if compare is None:
            raise FormatError(f"{path}: no field {field} of {name}")
        compare(matcher, value, actual, f"{path} {name}.{field}")


def match_events(
    matcher: Matcher, expected: Iterable[Mapping[str, Any]], actual: list[Any], *, ignore_extra: bool, path: str
) -> None:
    """Compare a client's events with the expected ones: the same, in the same order, and no others.

    :param ignore_extra: whether events may follow the last expected one.
    """
    wanted = list(expected)
    for index, one in enumerate(wanted):
        if index >= len(actual):
            raise Mismatch(
                f"{path}: {len(actual)} events, expected {len(wanted)}: no {_named(one)[0]}; {_names(actual)}"
            )
        try:
            match_event(matcher, one, actual[index], f"{path} event {index}")
        except Mismatch as mismatch:
            raise Mismatch(f"{mismatch}; {_names(actual)}") from None
    if len(actual) > len(wanted) and not ignore_extra:
        raise Mismatch(f"{path}: {len(actual)} events, expected {len(wanted)}; {_names(actual)}")


def event_matches(matcher: Matcher, expected: Mapping[str, Any], actual: Any) -> bool:
    """Whether an event is as expected."""
    try:
        match_event(matcher, expected, actual)
    except Mismatch:
        return False
    return True


def _named(expected: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if len(expected) != 1:
        raise FormatError(f"an expected event has one key: {expected!r}")
    ((name, fields),) = expected.items()
    if name not in KNOWN:
        raise FormatError(f"there is no event {name}")
    return name, fields


def _names(events: list[Any]) -> str:
    shown = [getattr(event, "command_name", "") + " " + event_name(event).removesuffix("Event") for event in events]
    return "observed: " + (", ".join(map(str.strip, shown)) or "none")


def _document(attribute: str) -> Callable[[Matcher, Any, Any, str], None]:
    def compare(matcher: Matcher, expected: Any, event: Any, path: str) -> None:
        matcher.match(expected, getattr(event, attribute), path, root=True)

    return compare


def _value(attribute: str) -> Callable[[Matcher, Any, Any, str], None]:
    def compare(matcher: Matcher, expected: Any, event: Any, path: str) -> None:
        matcher.match(expected, getattr(event, attribute, UNSET), path, root=False)

    return compare


def _description(attribute: str) -> Callable[[Matcher, Any, Any, str], None]:
    def compare(matcher: Matcher, expected: Any, event: Any, path: str) -> None:
        unknown = set(expected) - {"type"}
        if unknown:
            raise FormatError(f"{path}: no field {', '.join(sorted(unknown))} of a description")
        description = getattr(event, attribute)
        if isinstance(event, monitoring.TopologyDescriptionChangedEvent):
            actual = {"type": description.topology_type_name}
        else:
            actual = {"type": description.server_type_name}
        # What is not said of a description does not matter.
        matcher.match(expected, actual, path, root=True)

    return compare


def _has_service_id(matcher: Matcher, expected: Any, event: Any, path: str) -> None:
    service_id = event.service_id
    found = isinstance(service_id, ObjectId) and any(service_id.binary)
    if found != expected:
        raise Mismatch(f"{path}: the service id is {service_id!r}")


def _has_server_connection_id(matcher: Matcher, expected: Any, event: Any, path: str) -> None:
    identifier = event.server_connection_id
    found = isinstance(identifier, int) and identifier > 0
    if found != expected:
        raise Mismatch(f"{path}: the server's connection id is {identifier!r}")


#: How each field of an expected event is compared.
FIELDS: dict[str, Callable[[Matcher, Any, Any, str], None]] = {
    "command": _document("command"),
    "reply": _document("reply"),
    "commandName": _value("command_name"),
    "databaseName": _value("database_name"),
    "reason": _value("reason"),
    "awaited": _value("awaited"),
    "interruptInUseConnections": _value("interrupt_connections"),
    "previousDescription": _description("previous_description"),
    "newDescription": _description("new_description"),
    "hasServiceId": _has_service_id,
    "hasServerConnectionId": _has_server_connection_id,
}

DOCUMENT_FIELDS = {
    "command_name": "commandName",
    "database_name": "databaseName",
    "request_id": "requestId",
    "operation_id": "operationId",
    "connection_id": "connectionId",
    "address": "address",
    "reason": "reason",
    "duration_micros": "durationMicros",
    "failure": "failure",
}


def _as_document(event: Any) -> dict[str, Any]:
    """An event as ``storeEventsAsEntities`` wants it; command and reply may be left out."""
    name = event_name(event)
    document: dict[str, Any] = {"name": name[0].upper() + name[1:], "observedAt": time.time()}
    for attribute, field in DOCUMENT_FIELDS.items():
        value = getattr(event, attribute, UNSET)
        if value is not UNSET:
            document[field] = value if isinstance(value, (int, float, str, dict)) or value is None else str(value)
    return document
