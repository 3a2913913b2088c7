"""What the client believes of its deployment, as values and the pure rules over them.

PyMongo's ``TopologyDescription`` and ``ServerDescription`` hold the belief and ``updated_topology_description`` is the
state machine; here is what it leaves open: where it starts, which news is stale, what counts as a change, and which
servers the driver is too old or too new for. SDAM specification, "Data structures" and "Updating the
TopologyDescription". Nothing here waits or does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from bson.objectid import ObjectId
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from txmongo._pymongo import SERVER_TYPE
from txmongo.errors import ProtocolError

if TYPE_CHECKING:
    from txmongo._settings import ClientSettings
    from txmongo.types import Address

__all__ = [
    "MAX_WIRE_VERSION",
    "MIN_SERVER_VERSION",
    "MIN_WIRE_VERSION",
    "compare_topology_versions",
    "empty_description",
    "format_address",
    "incompatibility",
    "initial_description",
    "is_data_bearing",
    "is_stale",
    "load_balancer",
    "parse_hello",
    "same_server",
    "same_topology",
    "servers_of",
]

#: The range of wire versions that the driver speaks, and the oldest server with the lower end of it.
MIN_WIRE_VERSION = 9
MIN_SERVER_VERSION = "4.4"
MAX_WIRE_VERSION = 29

_DATA_BEARING = frozenset(
    {
        SERVER_TYPE.Mongos,
        SERVER_TYPE.RSPrimary,
        SERVER_TYPE.RSSecondary,
        SERVER_TYPE.Standalone,
        SERVER_TYPE.LoadBalancer,
    }
)

_HELLO_TYPES: dict[str, type | tuple[type, ...]] = {
    "electionId": ObjectId,
    "lastWrite": Mapping,
    "logicalSessionTimeoutMinutes": (int, float),
    "maxWireVersion": int,
    "me": str,
    "minWireVersion": int,
    "primary": str,
    "setName": str,
    "setVersion": int,
    "tags": Mapping,
    "topologyVersion": Mapping,
}


@attrs.frozen
class DescriptionSettings:
    """The few settings that PyMongo's descriptions ask for, under the names that they ask by."""

    seeds: tuple[Address, ...]
    heartbeat_frequency: float
    local_threshold_ms: float
    _topology_id: ObjectId
    _srv_max_hosts: int = 0


def empty_description(settings: ClientSettings, topology_id: ObjectId) -> TopologyDescription:
    """The description before anything was opened and after all was closed: type Unknown without servers."""
    return TopologyDescription(
        TOPOLOGY_TYPE.Unknown, {}, None, None, None, _description_settings(settings, topology_id)
    )


def initial_description(settings: ClientSettings, topology_id: ObjectId) -> TopologyDescription:
    """The description with which monitoring starts: every seed is a server of type Unknown.

    SDAM specification, "Initial TopologyType".
    """
    servers = {address: ServerDescription(address) for address in settings.seeds}
    return TopologyDescription(
        _initial_type(settings),
        servers,
        settings.replica_set_name,
        None,
        None,
        _description_settings(settings, topology_id),
    )


def _initial_type(settings: ClientSettings) -> int:
    if settings.load_balanced:
        return TOPOLOGY_TYPE.LoadBalanced
    if settings.direct_connection:
        return TOPOLOGY_TYPE.Single
    if settings.replica_set_name is not None:
        return TOPOLOGY_TYPE.ReplicaSetNoPrimary
    return TOPOLOGY_TYPE.Unknown


def _description_settings(settings: ClientSettings, topology_id: ObjectId) -> DescriptionSettings:
    return DescriptionSettings(
        seeds=settings.seeds,
        heartbeat_frequency=settings.heartbeat_frequency,
        local_threshold_ms=settings.local_threshold_ms,
        topology_id=topology_id,
        srv_max_hosts=settings.srv_max_hosts or 0,
    )


def load_balancer(address: Address) -> ServerDescription:
    """The description of a load balancer, which is never checked: only its type is set."""
    hello: Hello[dict[str, Any]] = Hello({"ok": 1, "serviceId": ObjectId()})
    return ServerDescription(address, hello)


def parse_hello(
    address: Address, document: Mapping[str, Any], *, awaited: bool, rtt: float | None, minimum_rtt: float
) -> tuple[Hello[dict[str, Any]], ServerDescription]:
    """A server's description from its reply to hello.

    :param rtt: the average round trip time in seconds.
    :raises ProtocolError: the reply is not one to hello: a field that the driver relies on has another type.
    """
    try:
        _check_types(document)
        hello: Hello[dict[str, Any]] = Hello(dict(document), awaited)
        return hello, ServerDescription(address, hello, rtt, None, minimum_rtt)
    except Exception as error:
        raise ProtocolError(f"{format_address(address)} sent a reply that is none to hello: {error}") from error


def _check_types(document: Mapping[str, Any]) -> None:
    """See that the fields which are compared later on can be compared."""
    for name, expected in _HELLO_TYPES.items():
        value = document.get(name)
        if value is not None and not isinstance(value, expected):
            raise TypeError(f"{name} is of type {type(value).__name__}")
    version = document.get("topologyVersion")
    if version is not None and not isinstance(version.get("counter"), int):
        raise TypeError("topologyVersion has no counter")


def servers_of(description: TopologyDescription) -> Iterable[ServerDescription]:
    """The servers of a topology, by address."""
    servers = description.server_descriptions()
    return [servers[address] for address in sorted(servers, key=format_address)]


def is_data_bearing(description: ServerDescription) -> bool:
    """Whether application data can come from such a server; it then needs a pool that is ready."""
    return description.server_type in _DATA_BEARING


def compare_topology_versions(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> int:
    """-1, 0 or 1 as ``first`` is older than, the same as or newer than ``second``; -1 when they cannot be compared.

    SDAM specification, "topologyVersion Comparison".
    """
    if first is None or second is None or first.get("processId") != second.get("processId"):
        return -1
    one, two = first.get("counter", 0), second.get("counter", 0)
    return int(one > two) - int(one < two)


def is_stale(current: ServerDescription, news: ServerDescription) -> bool:
    """Whether ``news`` was overtaken by what is already known of that server."""
    return compare_topology_versions(current.topology_version, news.topology_version) > 0


def same_server(first: ServerDescription, second: ServerDescription) -> bool:
    """Whether going from one to the other is no news to a listener.

    SDAM specification, "Server Description Equality". Two errors are the same if they read the same: a server that is
    down is news once, not at every check.
    """
    return _compared(first) == _compared(second)


def _compared(server: ServerDescription) -> tuple[Any, ...]:
    error = server.error
    return (
        server.address,
        server.server_type,
        None if error is None else (type(error), str(error)),
        server.min_wire_version,
        server.max_wire_version,
        server.me,
        server.all_hosts,
        server.tags,
        server.replica_set_name,
        server.election_id,
        server.set_version,
        server.primary,
        server.logical_session_timeout_minutes,
        server.topology_version,
    )


def same_topology(first: TopologyDescription, second: TopologyDescription) -> bool:
    """Whether going from one to the other is no news to a listener."""
    if first.topology_type != second.topology_type or first.replica_set_name != second.replica_set_name:
        return False
    before, after = first.server_descriptions(), second.server_descriptions()
    return before.keys() == after.keys() and all(same_server(before[each], after[each]) for each in before)


def incompatibility(description: TopologyDescription) -> str | None:
    """Why the driver cannot work with this deployment at all, or ``None``: a server is too old or too new.

    SDAM specification, "Checking wire protocol compatibility". A load balancer is always compatible.
    """
    if description.topology_type == TOPOLOGY_TYPE.LoadBalanced:
        return None
    for server in servers_of(description):
        if not server.is_server_type_known:
            continue
        name = format_address(server.address)
        if server.max_wire_version < MIN_WIRE_VERSION:
            return (
                f"Server at {name} reports wire version {server.max_wire_version}, but this version of txmongo "
                f"requires at least {MIN_WIRE_VERSION} (MongoDB {MIN_SERVER_VERSION})."
            )
        if server.min_wire_version > MAX_WIRE_VERSION:
            return (
                f"Server at {name} requires wire version {server.min_wire_version}, but this version of txmongo "
                f"only supports up to {MAX_WIRE_VERSION}."
            )
    return None


def format_address(address: Address) -> str:
    """An address as people write it: ``host:port``, ``[::1]:port`` or the path of a UNIX socket."""
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
