"""The client's view of its deployment, kept up to date, and the way from an operation to a server.

:class:`Topology` owns the servers with their pools and monitors. News (a check's outcome, an operation's error) goes
through one door, :meth:`Topology._replace`: the pure rules of ``description`` and ``errors`` say what changes, then
pools, events, monitors and those who wait are dealt with, in this order. SDAM, server selection and load balancer
specifications.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from bson.objectid import ObjectId
from pymongo.server_description import ServerDescription
from pymongo.topology_description import SRV_POLLING_TOPOLOGIES, TOPOLOGY_TYPE, TopologyDescription
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap.errors import WaitQueueFullError
from txmongo._cmap.wait_queue import Crowd
from txmongo._deferreds import Broadcast, Deadline
from txmongo._pymongo import (
    SERVER_TYPE,
    updated_topology_description,
    updated_topology_description_srv_polling,
)
from txmongo._sdam.description import (
    empty_description,
    format_address,
    initial_description,
    is_data_bearing,
    is_stale,
    load_balancer,
    same_server,
    same_topology,
    servers_of,
)
from txmongo._sdam.errors import ErrorContext, Verdict, decide
from txmongo._sdam.events import SdamEvents
from txmongo._sdam.monitor import ConnectMonitor, MonitorSettings, ServerMonitor
from txmongo._sdam.selection import choose, lone_ghost, selection_timeout, suitable_servers
from txmongo._sdam.selection_log import SelectionLog
from txmongo._sdam.selection_queue import SelectionQueue, Waiter
from txmongo._sdam.server import Server
from txmongo._sdam.srv import SrvPoller, SrvResolver
from txmongo._sdam.superseded import Probations, is_superseded
from txmongo.errors import ConfigurationError, InvalidOperation, NetworkTimeout

if TYPE_CHECKING:
    from txmongo._cmap.pool import Pool
    from txmongo._settings import ClientSettings
    from txmongo.types import Address

__all__ = ["Topology"]

_log = Logger(namespace="txmongo.sdam.topology")

#: More different read preferences than this in one state of the topology, and remembering them is given up.
_REMEMBERED = 64


def _log_unexpected(failure: Failure) -> None:
    """A fault of the driver's own where nobody waits for the result."""
    _log.failure("Unexpected error in the topology", failure)


class Topology:
    """Discovers and monitors the servers of one deployment, and selects among them.

    Nothing is connected and nothing scheduled before :meth:`open`, which the first selection calls.

    :ivar id: what SDAM events call this topology.
    :ivar description: what is known now; replaced, never changed.
    :ivar servers: the servers by address.
    :param create_pool: makes the (paused) pool of a server.
    :param connect_monitor: opens a monitoring connection: fires with protocol, hello reply and round trip in seconds.
    :param srv: finds the servers of a ``mongodb+srv`` connection string.
    :param on_resolved: told the settings that DNS completed, before any server is connected to.
    :param random: chooses between servers that suit equally well.
    :param crowd: those of the client who wait, the same that its pools have; its own if none is given.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        clock: IReactorTime,
        create_pool: Callable[[Address], Pool],
        connect_monitor: ConnectMonitor,
        srv: SrvResolver | None = None,
        on_resolved: Callable[[ClientSettings], None] | None = None,
        random: Random | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        self.id = ObjectId()
        self.servers: dict[Address, Server] = {}
        self._settings = settings
        self._clock = clock
        self._create_pool = create_pool
        self._connect_monitor = connect_monitor
        self._srv = srv
        self._on_resolved = on_resolved
        self._random = random or Random()
        self._crowd = crowd or Crowd(settings.wait_queue_size)
        self._monitor_settings = MonitorSettings.from_settings(settings)
        self._events = SdamEvents(settings.event_listeners, self.id, settings.logs.log("topology", self.id))
        selection_log = settings.logs.log("serverSelection", self.id)
        self._selection_log = None if selection_log is None else SelectionLog(selection_log, lambda: self.description)
        self._opened = False
        self._begun = False
        self._closed = False
        self._discovering: Deferred[Any] | None = None
        self._srv_poller: SrvPoller | None = None
        self.description = empty_description(settings, self.id)
        #: By the identity of the selector, which the value keeps alive: what it selects in this description.
        self._remembered: dict[int, tuple[Any, Server | None, tuple[Server, ...]]] = {}
        self._queue = SelectionQueue(self._crowd, clock, find=self._find, timed_out=self._timed_out)
        #: The last one that what it said of itself made us let go: it is of another set, or of none.
        self._dismissed: ServerDescription | None = None
        self._probations = Probations(clock=clock, connect=connect_monitor, closing=self._follow_closing)
        #: How many pools and monitors are still closing, and who waits for the last of them.
        self._closing = 0
        self._all_closed = Broadcast()

    def __repr__(self) -> str:
        if self._closed:
            return f"<Topology {self.id} closed>"
        servers = ", ".join(
            f"{format_address(each.address)} {each.server_type_name}" for each in servers_of(self.description)
        )
        return f"<Topology {self.id} {self.description.topology_type_name}: {servers or 'no servers'}>"

    # --- opening and closing ---

    def open(self) -> None:
        """Start monitoring the seeds; no effect if that was done or the topology is closed."""
        if self._begun or self._closed:
            return
        if not self._opened:
            self._opened = True
            self._events.topology_opened()
            if self._begun or self._closed:
                # A listener did that.
                return
        if self._settings.fqdn is not None:
            self._discover()
        else:
            self._begin()

    def _begin(self) -> None:
        """Go from no servers to the seeds. The topology's event comes before those of its servers here."""
        self._begun = True
        previous, self.description = self.description, initial_description(self._settings, self.id)
        self._remembered.clear()
        self._events.topology_changed(previous, self.description)
        added = self._add_servers()
        if self.description.topology_type == TOPOLOGY_TYPE.LoadBalanced:
            for server in added:
                self._learn(load_balancer(server.address))
        else:
            self._start_monitors(added)
            self._wake()

    def _discover(self) -> None:
        """Ask DNS for the seeds, unless that is being done."""
        if self._discovering is not None or self._closed:
            return
        if self._srv is None:
            self._queue.fail(
                ConfigurationError("mongodb+srv:// cannot be used here: nothing was given to ask DNS with")
            )
            return
        found: Deferred[Any] = self._srv.discover(self._settings)
        self._discovering = found
        found.addCallbacks(self._discovered, self._not_discovered)
        found.addErrback(_log_unexpected)

    def _discovered(self, found: tuple[ClientSettings, float]) -> None:
        self._discovering = None
        if self._closed:
            return
        self._settings, ttl = found
        if self._on_resolved is not None:
            self._on_resolved(self._settings)
        self._begin()
        if self._srv is not None and not self._settings.load_balanced and not self._closed:
            self._srv_poller = SrvPoller(
                self._settings,
                ttl,
                clock=self._clock,
                look_up=self._srv.look_up,
                wanted=lambda: self.description.topology_type in SRV_POLLING_TOPOLOGIES,
                on_hosts=self._rescanned,
            )

    def _not_discovered(self, failure: Failure) -> None:
        """Without seeds there is nothing to wait for: those who wait hear why; who comes next makes us ask again."""
        self._discovering = None
        if not self._closed and failure.value is not None:
            self._queue.fail(failure.value)

    def _rescanned(self, hosts: Sequence[Address]) -> None:
        """DNS was asked again for the hosts of a sharded cluster."""
        updated = updated_topology_description_srv_polling(self.description, list(hosts))
        if updated is not self.description:
            self._replace(updated)
            self._wake()

    def close(self) -> Deferred[None]:
        """Stop monitoring, close every pool, fail what waits for a server with ``InvalidOperation``.

        :returns: a Deferred that fires when no socket and no delayed call of this topology is left; it never fails.
        """
        if not self._closed:
            self._closed = True
            self._close_now()
        return self._all_closed.wait() if self._closing else succeed(None)

    def _close_now(self) -> None:
        if self._discovering is not None:
            self._discovering.cancel()
        if self._srv_poller is not None:
            self._srv_poller.stop()
        servers, self.servers = self.servers, {}
        for server in servers.values():
            self._close_server(server)
        previous, self.description = self.description, empty_description(self._settings, self.id)
        self._remembered.clear()
        if self._opened:
            self._events.topology_changed(previous, self.description)
            self._events.topology_closed()
        self._queue.fail(InvalidOperation("the client was closed while waiting for a server"))

    # --- selecting a server ---

    def select_server_now(self, selector: Any, deprioritized: Collection[Address] | None = None) -> Server | None:
        """A server for an operation, if that can be said at once; the way of nearly every operation.

        :param selector: a read preference of PyMongo's, or one of its selector functions.
        :param deprioritized: addresses of servers to be taken only if no other one suits.
        :returns: ``None`` when :meth:`select_server` must be asked: to wait, or for the reason why there is none.
        """
        if not deprioritized:
            remembered = self._remembered.get(id(selector))
            if remembered is not None:
                return remembered[1] or choose(remembered[2], self._random)
        try:
            return self._select(selector, deprioritized or ())
        except Exception:
            return None

    def select_server(
        self,
        selector: Any,
        deadline: Deadline = Deadline.never,
        *,
        operation: str = "",
        address: Address | None = None,
        deprioritized: Collection[Address] = (),
        allow_ghost: bool = False,
        operation_id: int = 0,
        again: bool = False,
    ) -> Deferred[Server]:
        """Wait for a server that suits an operation. Opens the topology.

        :param selector: a read preference of PyMongo's, or one of its selector functions.
        :param deadline: when to stop waiting; ``serverSelectionTimeoutMS`` from now at the latest.
        :param operation: its name, for the text of the error.
        :param address: the only server that will do.
        :param deprioritized: addresses of servers to be taken only if no other one suits.
        :param allow_ghost: whether a member of a replica set that was not initiated yet will do, if it is the only
            server, for clients that were configured as TxMongo's users do: one seed, no set name, and a read preference
            other than primary.
        :param operation_id: its number, for the log.
        :param again: the operation was under way before; it may wait however many others do.
        :returns: a Deferred that fires with the server; cancelling it ends the wait. It fails with
            :class:`~txmongo.errors.ServerSelectionTimeoutError` when the time is over,
            :class:`~txmongo.errors.ConfigurationError` at once when no server of this deployment can ever do,
            :class:`~txmongo.errors.WaitQueueTimeoutError` at once when ``waitQueueSize`` operations wait,
            :class:`~txmongo.errors.InvalidOperation` when the topology is or gets closed.
        """
        now = self._clock.seconds()
        limit = Deadline.after(self._clock, self._settings.server_selection_timeout).earlier(deadline)
        waiter = Waiter(selector, deprioritized, address, operation, allow_ghost, again, now)
        if self._selection_log is None or address is not None:
            return self._find_or_wait(waiter, limit)
        remaining = limit.remaining(now) or 0.0
        find = partial(self._find_or_wait, waiter, limit)
        return self._selection_log.follow(find, selector, operation, operation_id, remaining)

    def _find_or_wait(self, waiter: Waiter, limit: Deadline) -> Deferred[Server]:
        if self._closed:
            return fail(InvalidOperation("the client is closed"))
        try:
            server = self._find(waiter)
        except Exception:
            return fail()
        if server is not None:
            return succeed(server)
        if self._crowd.full and not waiter.again:
            return fail(WaitQueueFullError(self._crowd.limit))
        waiting = self._queue.wait(waiter, limit)
        self.open()
        self.request_check()
        return waiting

    def _select(self, selector: Any, deprioritized: Collection[Address]) -> Server | None:
        """Select by the rules, and remember the outcome as long as the description stays as it is."""
        custom = self._settings.server_selector
        found = suitable_servers(self.description, selector, custom=custom, deprioritized=deprioritized)
        servers = tuple(self.servers[address] for address in found if address in self.servers)
        if not servers:
            return None
        if not deprioritized and custom is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            only = servers[0] if len(servers) == 1 else None
            self._remembered[id(selector)] = (selector, only, servers)
        return choose(servers, self._random)

    def _find(self, waiter: Waiter) -> Server | None:
        """The server for one who waits, if there is one by now."""
        if waiter.address is not None:
            server = self.servers.get(waiter.address)
            return server if server is not None and server.description.is_server_type_known else None
        found = self._select(waiter.selector, waiter.deprioritized)
        if found is None and waiter.allow_ghost and self._accepts_ghosts():
            ghost = lone_ghost(self.description)
            return None if ghost is None else self.servers.get(ghost)
        return found

    def _accepts_ghosts(self) -> bool:
        """Whether the client is configured in the way in which a set was initiated through TxMongo."""
        settings = self._settings
        return (
            len(settings.seeds) == 1
            and settings.replica_set_name is None
            and not settings.direct_connection
            and not settings.load_balanced
            and bool(settings.read_preference.mode)
        )

    def _wake(self) -> None:
        """Give a server to each one who waits and for whom there is one now; have the others' servers checked again."""
        self._queue.serve()
        if self._queue:
            self.request_check()

    def _timed_out(self, waiter: Waiter) -> Exception:
        """The error for an operation that found no server in time."""
        waited = self._clock.seconds() - waiter.started
        return selection_timeout(
            self.description, waiter.selector, waiter.operation, waited, waiter.address, dismissed=self._dismissed
        )

    # --- news ---

    def request_check(self, address: Address | None = None) -> None:
        """Have one server, or every one, checked as soon as the minimum pause between two checks allows."""
        if address is None:
            for server in list(self.servers.values()):
                server.request_check()
        elif address in self.servers:
            self.servers[address].request_check()

    def handle_error(
        self,
        address: Address,
        error: BaseException,
        *,
        generation: int,
        service_id: ObjectId | None = None,
        max_wire_version: int | None = None,
        completed_handshake: bool,
    ) -> None:
        """Draw the conclusions from the failure of an operation, or of opening a connection for one.

        To be called before whoever ran the operation hears of the failure, so that a retry finds the new state. While
        connecting, which service it was is taken from the connector's error.

        :param generation: the pool's generation when the connection was begun.
        :param service_id: behind a load balancer, the service of the connection.
        :param max_wire_version: what the connection's hello said.
        :param completed_handshake: whether the connection was established, authentication included.
        """
        server = self.servers.get(address)
        if server is None:
            return
        if not completed_handshake:
            service_id = service_id or getattr(error, "_txmongo_service_id", None)
            if service_id is not None:
                # It was told by the hello of this very attempt: the generation is that of now.
                generation = server.pool.generation_for(service_id)
        context = ErrorContext(
            generation=generation,
            pool_generation=server.pool.generation_for(service_id),
            completed_handshake=completed_handshake,
            max_wire_version=max_wire_version,
            load_balanced=self.description.topology_type == TOPOLOGY_TYPE.LoadBalanced,
            has_service=service_id is not None,
        )
        verdict = decide(error, server.description, context)
        if verdict.mark_unknown and isinstance(error, Exception):
            description = ServerDescription(address, error=error)
            self._learn(description, lambda: self._carry_out(server, verdict, error, service_id))
        else:
            self._carry_out(server, verdict, error, service_id)

    @staticmethod
    def _carry_out(server: Server, verdict: Verdict, error: BaseException, service_id: ObjectId | None) -> None:
        """What a verdict asks for beyond a new description."""
        if verdict.cancel_check and server.monitor is not None:
            server.monitor.cancel_check()
        if verdict.clear_pool:
            server.pool.clear(error, service_id)
        if verdict.request_check:
            server.request_check()

    def _checked(self, description: ServerDescription) -> None:
        """A monitor reports the outcome of a check."""
        error = description.error
        server = self.servers.get(description.address)
        if server is None:
            return
        if error is None:
            self._learn(description)
        else:
            interrupt = isinstance(error, NetworkTimeout)
            self._learn(description, lambda: server.pool.clear(error, interrupt_in_use=interrupt))

    def _learn(self, news: ServerDescription, also: Callable[[], None] | None = None) -> None:
        """Take a server's new description in, unless that server is gone or something newer is known.

        :param also: what goes with it: after the description has changed, before anyone who waits hears of it.
        """
        server = self.servers.get(news.address)
        if server is not None and not is_stale(server.description, news):
            self._replace(updated_topology_description(self.description, news), news.address, also)
            if news.address not in self.servers:
                self._dismissed = news
        self._wake()

    def _replace(
        self,
        updated: TopologyDescription,
        source: Address | None = None,
        also: Callable[[], None] | None = None,
    ) -> None:
        """Go over to another description: the one place where the topology changes.

        :param source: the server whose news this is.
        """
        previous, self.description = self.description, updated
        self._remembered.clear()
        before, after = previous.server_descriptions(), updated.server_descriptions()
        for address, description in after.items():
            if address in self.servers:
                self.servers[address].description = description
                self._ready_pool(self.servers[address])
            if description.is_server_type_known:
                self._probations.end(address)
        for address, description in after.items():
            if address in before and not same_server(before[address], description):
                self._events.server_changed(before[address], description)
        self._remove_servers(after)
        added = self._add_servers()
        if not same_topology(previous, updated):
            self._events.topology_changed(previous, updated)
        if also is not None:
            also()
        self._start_monitors(added)
        self._check_former_primaries(source, before, after)

    def _ready_pool(self, server: Server) -> None:
        """Let connections be made to a server that is known to be of use; before any event can make someone try."""
        description = server.description
        single = self.description.topology_type == TOPOLOGY_TYPE.Single and description.is_server_type_known
        ghost = description.server_type == SERVER_TYPE.RSGhost and self._accepts_ghosts()
        if is_data_bearing(description) or single or ghost:
            server.pool.ready()

    def _check_former_primaries(
        self,
        source: Address | None,
        before: dict[Address, ServerDescription],
        after: dict[Address, ServerDescription],
    ) -> None:
        """A primary that another one's news made Unknown is to be looked at soon: it may be a useful secondary now.

        Or it may be out of reach, and what is in flight there waits in vain.
        """
        newer = None if source is None else after.get(source)
        for address, description in after.items():
            was_primary = address in before and before[address].server_type == SERVER_TYPE.RSPrimary
            if was_primary and address != source and not description.is_server_type_known:
                self.request_check(address)
                # A listener may have closed the topology meanwhile.
                if address in self.servers and is_superseded(before[address], description, newer):
                    self._probations.begin(self.servers[address])

    # --- servers come and go ---

    def _add_servers(self) -> list[Server]:
        """Create what the description names and is not there yet; the monitors are started by the caller."""
        added = []
        for description in servers_of(self.description):
            address = description.address
            if address in self.servers:
                continue
            pool = self._create_pool(address)
            monitor = None if self._settings.load_balanced else self._create_monitor(address, pool)
            server = self.servers[address] = Server(address, description, pool, monitor)
            added.append(server)
            self._events.server_opened(address)
        return added

    def _create_monitor(self, address: Address, pool: Pool) -> ServerMonitor:
        def set_round_trip(seconds: float) -> None:
            pool.rtt = seconds

        return ServerMonitor(
            address,
            self._monitor_settings,
            clock=self._clock,
            connect=self._connect_monitor,
            events=self._events,
            on_check=self._checked,
            on_rtt=set_round_trip,
        )

    def _start_monitors(self, servers: list[Server]) -> None:
        for server in servers:
            if server.monitor is not None and self.servers.get(server.address) is server:
                server.monitor.start()

    def _remove_servers(self, kept: Collection[Address]) -> None:
        for address in [each for each in self.servers if each not in kept]:
            self._close_server(self.servers.pop(address))
        if not kept and not self._closed:
            _log.warn("The last server of the topology was removed: none of its addresses fits the deployment")

    def _close_server(self, server: Server) -> None:
        self._probations.end(server.address)
        if server.monitor is not None:
            self._follow_closing(server.monitor.stop())
        self._follow_closing(server.pool.close())
        self._events.server_closed(server.address)

    def _follow_closing(self, closing: Deferred[None]) -> None:
        self._closing += 1
        closing.addErrback(_log_unexpected)
        closing.addCallback(self._one_closed)

    def _one_closed(self, _result: None) -> None:
        self._closing -= 1
        if not self._closing:
            self._all_closed.fire()
