"""What a client knows of its deployment: which servers there are, which of them is what, and how to talk to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.read_preferences import ReadPreference
from pymongo.server_selectors import (
    Selection,
    any_server_selector,
    arbiter_server_selector,
    secondary_server_selector,
    writable_server_selector,
)
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription
from twisted.internet.defer import Deferred

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._deferreds import Deadline
from txmongo._legacy.connection import SingleConnection
from txmongo._pymongo import SERVER_TYPE
from txmongo._sdam.server import Server
from txmongo._sdam.topology import Topology
from txmongo.errors import InvalidOperation
from txmongo.protocol import MongoProtocol
from txmongo.types import Address

if TYPE_CHECKING:
    from txmongo._settings import ClientSettings

__all__ = ["DeploymentView"]

_REPLICA_SETS = frozenset({TOPOLOGY_TYPE.ReplicaSetWithPrimary, TOPOLOGY_TYPE.ReplicaSetNoPrimary})


class DeploymentView:
    """What :class:`~txmongo.connection.ConnectionPool` inherits."""

    _topology: Topology
    _closed: bool

    if TYPE_CHECKING:

        @property
        def options(self) -> ClientSettings: ...

        @property
        def uri(self) -> dict[str, Any]: ...

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

    def getprotocol(self) -> Deferred[MongoProtocol]:
        """A connected :class:`~txmongo.protocol.MongoProtocol`, to talk to a server directly.

        It stays in the pool: what is sent on it goes between the operations of others.

        :returns: a Deferred that fires with the protocol, of the primary if there is one. It fails as every operation
            (see :class:`~txmongo.collection.Collection`).
        """
        server = self._topology.select_server(ReadPreference.PRIMARY_PREFERRED, operation="getprotocol")
        return server.addCallback(self._check_out_protocol)

    def _check_out_protocol(self, server: Server) -> Deferred[MongoProtocol]:
        request = CheckOut("getprotocol", bounded=True)

        def checked_out(connection: Connection) -> MongoProtocol:
            server.pool.check_in(request)
            return connection.protocol

        return server.pool.check_out(request, Deadline.never).addCallback(checked_out)

    def getprotocols(self) -> list[Any]:
        """The connected protocols of all pools, those that are in use included.

        As long as there are fewer than the client is to have, one or ``pool_size``, each that is missing has something
        in its place with ``uri``, ``instance``, which is ``None``, and ``notifyReady()``, which waits for a protocol.
        A client that is disconnected has none.
        """
        servers = self._topology.servers.values()
        protocols: list[Any] = [protocol for server in servers for protocol in server.pool.protocols()]
        for protocol in protocols:
            protocol.uri = self.uri
        settings = self.options
        missing = range(len(protocols), 0 if self._closed else settings.pool_size or 1)
        delays = settings.retry_delay, settings.max_delay
        return protocols + [SingleConnection(self, self.uri, number, *delays) for number in missing]

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
