"""Which servers suit an operation, which of those takes it, and what to say when none does.

Pure functions over descriptions: PyMongo's selectors apply read preference, tags, staleness and the latency window.
Waiting is the topology's. Server selection specification, "Server Selection Algorithm".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any

from pymongo.server_description import ServerDescription
from pymongo.server_selectors import any_server_selector, readable_server_selector, writable_server_selector
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from txmongo._pymongo import SERVER_TYPE, ServerMode
from txmongo._sdam.description import format_address, incompatibility, servers_of
from txmongo._sdam.server import Server
from txmongo.errors import ConfigurationError, ServerSelectionTimeoutError
from txmongo.types import Address

__all__ = [
    "ServerSelector",
    "choose",
    "describe_selector",
    "describe_topology",
    "lone_ghost",
    "selection_timeout",
    "suitable_servers",
]

#: The ``server_selector`` option: narrows a list of suitable servers down.
ServerSelector = Callable[[list[ServerDescription]], list[ServerDescription]]

_NAMED_SELECTORS = {
    writable_server_selector: "a writable server",
    readable_server_selector: "a readable server",
    any_server_selector: "any server",
}


def suitable_servers(
    description: TopologyDescription,
    selector: Any,
    *,
    custom: ServerSelector | None = None,
    deprioritized: Collection[Address] = (),
) -> list[Address]:
    """The servers that suit, inside the latency window.

    :param selector: a read preference, or one of PyMongo's selector functions.
    :param custom: the ``server_selector`` option.
    :param deprioritized: servers to be taken only if no other one suits.
    :raises ConfigurationError: no server of this deployment will ever do: it is too old or too new for the driver, or
        ``maxStalenessSeconds`` is too small.
    """
    problem = incompatibility(description)
    if problem is not None:
        raise ConfigurationError(problem)
    avoided = None
    if deprioritized:
        servers = description.server_descriptions()
        avoided = [servers[address] for address in deprioritized if address in servers]
    found = description.apply_selector(selector, None, custom, avoided)
    return [server.address for server in found]


def choose(servers: Sequence[Server], random: Random) -> Server:
    """The one of two servers picked at random that has less to do; the only one if there is one."""
    count = len(servers)
    if count == 1:
        return servers[0]
    first = int(random.random() * count)
    second = int(random.random() * (count - 1))
    if second >= first:
        second += 1
    one, two = servers[first], servers[second]
    return one if one.pool.operation_count <= two.pool.operation_count else two


def lone_ghost(description: TopologyDescription) -> Address | None:
    """The address of the only server, if that is a member of a replica set that was not initiated yet."""
    servers = list(servers_of(description))
    if description.topology_type == TOPOLOGY_TYPE.Unknown and len(servers) == 1:
        return servers[0].address if servers[0].server_type == SERVER_TYPE.RSGhost else None
    return None


def selection_timeout(
    description: TopologyDescription,
    selector: Any,
    operation: str,
    waited: float,
    address: Address | None = None,
    *,
    dismissed: ServerDescription | None = None,
) -> ServerSelectionTimeoutError:
    """The exception for an operation that found no server in time: what it wanted, how long, and how each server is.

    :param dismissed: a server that does not belong to the deployment, to be named where none is left.
    """
    wanted = describe_selector(selector) if address is None else f"the server {format_address(address)}"
    what = f"No server for {operation}" if operation else "No server"
    topology = describe_topology(description)
    if dismissed is not None and not description.server_descriptions():
        of_set = f" of set {dismissed.replica_set_name!r}" if dismissed.replica_set_name else ""
        topology += f", for {format_address(dismissed.address)} is {dismissed.server_type_name}{of_set}"
    return ServerSelectionTimeoutError(
        f"{what} within {waited:.3g} s: wanted {wanted}, the topology is {topology}",
        [server.error for server in servers_of(description) if server.error is not None],
    )


def describe_topology(description: TopologyDescription) -> str:
    """A topology in one line: its type, and how each server is."""
    listed = "; ".join(_state(server) for server in servers_of(description)) or "no server is known"
    of_set = f" of set {description.replica_set_name!r}" if description.replica_set_name else ""
    return f"{description.topology_type_name}{of_set}: {listed}"


def _state(server: ServerDescription) -> str:
    text = f"{format_address(server.address)} is {server.server_type_name}"
    return text if server.error is None else f"{text} ({_reason(server.error)})"


def _reason(error: Exception) -> str:
    """One error in one line: its class and its text, without the server's whole reply."""
    details = getattr(error, "details", None)
    message = details.get("errmsg") if isinstance(details, dict) else None
    return f"{type(error).__name__}: {message or error}".rstrip(": ")


def describe_selector(selector: Any) -> str:
    """What an operation asks of its server, in a few words."""
    if isinstance(selector, ServerMode):
        document = dict(selector.document)
        mode = str(document.pop("mode"))
        return f"{mode} with {document}" if document else mode
    try:
        named = _NAMED_SELECTORS.get(selector)
    except TypeError:
        named = None
    return named or str(getattr(selector, "__name__", type(selector).__name__))
