"""What a client knows of its deployment: which servers there are, and which of them is what."""

from __future__ import annotations

from typing import Any

from pymongo.server_selectors import (
    Selection,
    any_server_selector,
    arbiter_server_selector,
    secondary_server_selector,
    writable_server_selector,
)
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription
from twisted.internet.defer import Deferred

from txmongo._pymongo import SERVER_TYPE
from txmongo._sdam.server import Server
from txmongo._sdam.topology import Topology
from txmongo.errors import InvalidOperation
from txmongo.types import Address

__all__ = ["DeploymentView"]

_REPLICA_SETS = frozenset({TOPOLOGY_TYPE.ReplicaSetWithPrimary, TOPOLOGY_TYPE.ReplicaSetNoPrimary})


class DeploymentView:
    """What :class:`~txmongo.connection.ConnectionPool` inherits."""

    _topology: Topology

    @property
    def topology_description(self) -> TopologyDescription:
        """What is known of the deployment at the moment."""
        return self._topology.description

    @property
    def nodes(self) -> frozenset[Address]:
        """The addresses of the servers that are known at the moment."""
        description = self._topology.description
        return frozenset(server.address for server in description.known_servers)

    @property
    def address(self) -> Deferred[Address | None]:
        """The address of the one server, or of the primary.

        :returns: a Deferred that fires with host and port, as soon as there is a server to write to. It fails with
            :class:`~txmongo.errors.InvalidOperation` on a cluster with several mongos,
            :class:`~txmongo.errors.ServerSelectionTimeoutError` if there is none within ``serverSelectionTimeoutMS``.
        """
        return self._writable().addCallback(self._only_address)

    def _only_address(self, server: Server) -> Address:
        description = self._topology.description
        if description.topology_type == TOPOLOGY_TYPE.Sharded and len(description.server_descriptions()) > 1:
            raise InvalidOperation("there is no one address: the client uses several mongos")
        return server.address

    @property
    def primary(self) -> Deferred[Address | None]:
        """The address of the primary of a replica set.

        :returns: a Deferred that fires with host and port; with ``None`` if this is no replica set or it has no primary
            at the moment. It waits for the first answer of a server and fails as :attr:`address`.
        """
        members = self._known().addCallback(self._members, writable_server_selector)
        return members.addCallback(lambda addresses: next(iter(addresses), None))

    @property
    def secondaries(self) -> Deferred[set[Address]]:
        """The addresses of the secondaries of a replica set; none if this is no replica set.

        :returns: a Deferred that fires with a set. It waits for the first answer of a server and fails as
            :attr:`address`.
        """
        return self._known().addCallback(self._members, secondary_server_selector)

    @property
    def arbiters(self) -> Deferred[set[Address]]:
        """The addresses of the arbiters of a replica set; none if this is no replica set.

        :returns: a Deferred that fires with a set. It waits for the first answer of a server and fails as
            :attr:`address`.
        """
        return self._known().addCallback(self._members, arbiter_server_selector)

    @property
    def is_primary(self) -> Deferred[bool]:
        """Whether the server can be written to: a standalone, a primary or a mongos.

        :returns: a Deferred that fires with a bool; it fails as :attr:`address`.
        """
        return self._writable().addCallback(lambda server: server.description.is_writable)

    @property
    def is_mongos(self) -> Deferred[bool]:
        """Whether this is a sharded cluster.

        :returns: a Deferred that fires with a bool; it fails as :attr:`address`.
        """
        return self._writable().addCallback(lambda server: server.description.server_type == SERVER_TYPE.Mongos)

    def _writable(self) -> Deferred[Server]:
        return self._topology.select_server(writable_server_selector, operation="finding the server to write to")

    def _known(self) -> Deferred[Server]:
        """Wait until any server has answered."""
        return self._topology.select_server(any_server_selector, operation="finding the servers")

    def _members(self, _known: Server, selector: Any) -> set[Address]:
        """The addresses of those members of a replica set that a selector of PyMongo's takes."""
        description = self._topology.description
        if description.topology_type not in _REPLICA_SETS:
            return set()
        selection = selector(Selection.from_topology_description(description))
        return {server.address for server in selection.server_descriptions}
