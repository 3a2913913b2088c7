"""What a client consists of: its connector, pools, topology and executor, and who of them tells whom of what.

The layers below know nothing of those above them; here they are given what they are to call. What a caller may do with
a client, and where what is not given comes from, is :class:`~txmongo.connection.ConnectionPool`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pymongo.monitoring import CommandListener
from twisted.internet.defer import Deferred

from txmongo._cmap.connector import EndpointFor
from txmongo._cmap.current_connector import CurrentConnector
from txmongo._cmap.handshake import server_api_fields
from txmongo._cmap.pinning import BalancedPool
from txmongo._cmap.pool import Pool
from txmongo._cmap.wait_queue import Crowd
from txmongo._encryption.automatic import AutomaticEncryption
from txmongo._ops.command_events import CommandEvents
from txmongo._ops.encrypting import EncryptingExecutor
from txmongo._ops.executor import Executor
from txmongo._ops.farewell import Farewell
from txmongo._ops.leftovers import Leftovers
from txmongo._pymongo import MongoCredential
from txmongo._sdam.srv import SrvResolver
from txmongo._sdam.topology import Topology
from txmongo._settings import ClientSettings
from txmongo.types import Address

__all__ = ["ClientParts"]


class ClientParts:
    """The parts of one client, which are closed together.

    :param settings: what the client was told.
    :param reactor: makes the connections, and is the clock.
    :param endpoint_for: where an address is reached; if it is not given the settings say it.
    :param srv: asks DNS for the servers, if that is to be asked.
    :param encryption: encrypts what is sent, if anything does.
    :param on_resolved: is told the settings once DNS has named the rest of them.
    :ivar connector: makes the connections.
    :ivar crowd: the operations that wait, for a server or for a connection.
    :ivar topology: knows the servers.
    :ivar executor: runs operations.
    :ivar leftovers: ends what nobody wants any more.
    :raises ConfigurationError: the mechanism of the credentials is not supported.
    """

    def __init__(
        self,
        settings: ClientSettings,
        reactor: Any,
        *,
        endpoint_for: EndpointFor | None = None,
        srv: SrvResolver | None = None,
        encryption: AutomaticEncryption | None = None,
        on_resolved: Callable[[ClientSettings], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._encryption = encryption
        self._on_resolved = on_resolved
        self.connector = CurrentConnector(settings, reactor, endpoint_for)
        self.crowd = Crowd(settings.wait_queue_size)
        self.topology = Topology(
            settings,
            clock=reactor,
            create_pool=self._create_pool,
            connect_monitor=self.connector.connect_monitor,
            srv=srv,
            on_resolved=self._resolved,
            crowd=self.crowd,
        )
        listeners = [each for each in settings.event_listeners if isinstance(each, CommandListener)]
        command_log = settings.logs.log("command", self.topology.id)
        make_executor: Any = Executor if encryption is None else partial(EncryptingExecutor, encryption)
        self.executor: Executor = make_executor(
            self.topology,
            settings,
            reactor,
            events=CommandEvents(listeners, reactor.seconds, command_log) if listeners or command_log else None,
            server_api=server_api_fields(settings.server_api) or None,
        )
        self.leftovers = Leftovers(self.executor.execute, reactor, self.executor.execute_within)
        self._farewell = Farewell(self.topology, self.executor)
        if settings.pool_size is not None or settings.min_pool_size:
            self.topology.open()

    def _create_pool(self, address: Address) -> Pool:
        """The pool of a server that the topology discovered."""

        def failed(error: Exception, generation: int) -> None:
            self.topology.handle_error(
                address,
                error,
                generation=generation,
                service_id=getattr(error, "_txmongo_service_id", None),
                completed_handshake=False,
            )

        make_pool = BalancedPool if self._settings.load_balanced else Pool
        return make_pool(
            address,
            self._settings,
            clock=self._reactor,
            connect=partial(self.connector.connect, address),
            listeners=self._settings.event_listeners,
            log=self._settings.logs.log("connection", self.topology.id),
            on_connect_error=failed,
            crowd=self.crowd,
        )

    def _resolved(self, settings: ClientSettings) -> None:
        """DNS has told what a ``mongodb+srv`` connection string leaves open."""
        self._settings = settings
        self.connector.use(settings)
        self._on_resolved(settings)

    def set_user(self, database: str, user: MongoCredential | None) -> None:
        """Have new connections authenticated as this user of a database, and let the present ones end.

        :param user: ``None`` for the one of the settings, or nobody.
        """
        self.connector.set_user(database, user)
        if self._encryption is not None:
            self._encryption.set_user(database, user)
        for server in list(self.topology.servers.values()):
            server.pool.renew()

    def close(self) -> None:
        """Let nothing begin any more, end what waits, and tell a server which sessions are over."""
        self.leftovers.close()
        self._farewell.say()
        self.executor.close()

    def closed(self) -> Deferred[None]:
        """Close all sockets once a server has heard it.

        :returns: a Deferred that fires with ``None`` when they are closed, those too that were given up before that. It
            never fails but with ``CancelledError``, by its own ``cancel()``.
        """
        return self._farewell.heard().addCallback(lambda _: self._close_sockets())

    def _close_sockets(self) -> Deferred[None]:
        if self._encryption is None:
            return self._close_topology()
        return self._encryption.close().addCallback(lambda _: self._close_topology())

    def _close_topology(self) -> Deferred[None]:
        return self.topology.close().addCallback(lambda _: self.connector.drained())
