"""Checks one server again and again and reports what it says of itself.

:class:`ServerMonitor` opens a connection of its own, takes its handshake as the first check, and then lets the server
stream its hello replies (MongoDB 4.4+), or asks again every ``heartbeatFrequencyMS`` where streaming is not to be had.
:class:`RttMonitor` measures round trips on another connection while streaming. What a check means for the topology and
the pool is not decided here. Server monitoring specification.

All state changes of the monitor are in this file: one :class:`MonitorState`, one timer, one connection, one attempt.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import bson
from pymongo.server_description import ServerDescription
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._deferreds import Broadcast
from txmongo._pymongo import metadata_env
from txmongo._sdam.description import format_address, parse_hello
from txmongo._sdam.errors import is_network_error
from txmongo._sdam.rtt import RoundTripTimes
from txmongo._wire.op_msg import EXHAUST_ALLOWED, Msg
from txmongo.errors import AutoReconnect, NetworkTimeout, ProtocolError, error_from_reply

if TYPE_CHECKING:
    from pymongo.server_api import ServerApi

    from txmongo._sdam.events import SdamEvents
    from txmongo._settings import ClientSettings
    from txmongo.protocol import MongoProtocol
    from txmongo.types import Address

__all__ = ["ConnectMonitor", "MonitorSettings", "MonitorState", "RttMonitor", "ServerMonitor"]

#: Opens a connection for monitoring: fires with the protocol, the hello reply and the round trip time in seconds.
ConnectMonitor = Callable[["Address"], "Deferred[tuple[MongoProtocol, Mapping[str, Any], float]]"]

_log = Logger(namespace="txmongo.sdam.monitor")


@attrs.frozen
class MonitorSettings:
    """How to monitor; times in seconds.

    :ivar heartbeat_frequency: the pause between two checks, and the longest silence of a server that streams.
    :ivar min_heartbeat_interval: the least pause between two checks, however much they are wanted.
    :ivar answer_timeout: for one hello; ``None`` for no limit.
    :ivar streaming: whether servers that can are asked to stream.
    :ivar server_api: the declared Stable API.
    """

    heartbeat_frequency: float
    min_heartbeat_interval: float
    answer_timeout: float | None
    streaming: bool
    server_api: ServerApi | None = None

    @classmethod
    def from_settings(cls, settings: ClientSettings) -> MonitorSettings:
        """Take from the client's settings what monitors need.

        ``serverMonitoringMode=auto`` polls in a function-as-a-service environment, where a process is frozen between
        two calls, and streams elsewhere.
        """
        mode = settings.server_monitoring_mode
        return cls(
            heartbeat_frequency=settings.heartbeat_frequency,
            min_heartbeat_interval=settings.min_heartbeat_interval,
            answer_timeout=(settings.connect_timeout if settings.ping_timeout is None else settings.ping_timeout)
            or None,
            streaming=mode == "stream" or (mode == "auto" and "name" not in metadata_env()),
            server_api=settings.server_api,
        )

    def hello_command(self, hello_ok: bool) -> dict[str, Any]:
        """The command of a check: hello where the server knows it, else its old name."""
        api = self.server_api
        if api is None:
            return {"hello": 1, "helloOk": True} if hello_ok else {"ismaster": 1, "helloOk": True}
        command: dict[str, Any] = {"hello": 1, "helloOk": True, "apiVersion": api.version}
        if api.strict is not None:
            command["apiStrict"] = api.strict
        if api.deprecation_errors is not None:
            command["apiDeprecationErrors"] = api.deprecation_errors
        return command


class MonitorState(enum.Enum):
    """What a monitor is doing. STOPPED is final; every other state may follow every other but IDLE."""

    IDLE = "not started"
    CONNECTING = "opening a connection, its handshake is the check"
    POLLING = "waiting for the answer to one hello"
    STREAMING = "waiting for the next reply that the server sends by itself"
    WAITING = "sleeping until the next check"
    STOPPED = "ended for good"


class _Socket:
    """The connection of a monitor: at most one at a time, and the knowledge when the last one is really gone."""

    __slots__ = ("_gone", "_open", "protocol")

    def __init__(self) -> None:
        self.protocol: MongoProtocol | None = None
        self._open = 0
        self._gone = Broadcast()

    def take(self, protocol: MongoProtocol) -> None:
        """Use a connection that was just opened."""
        self.protocol = protocol
        self._follow(protocol)

    def refuse(self, protocol: MongoProtocol) -> None:
        """Close a connection that came too late."""
        self._follow(protocol)
        protocol.abort(AutoReconnect("this connection is not needed any more"))

    def drop(self, reason: Exception) -> None:
        """Close the connection, if there is one; what waits on it fails for ``reason``."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.abort(reason)

    def gone(self) -> Deferred[None]:
        """Fires when no socket of this monitor is left."""
        return self._gone.wait() if self._open else succeed(None)

    def _follow(self, protocol: MongoProtocol) -> None:
        self._open += 1
        protocol.lost_hook = self._lost

    def _lost(self, _reason: Failure) -> None:
        self._open -= 1
        if not self._open:
            self._gone.fire()


class ServerMonitor:
    """Monitors one server until it is stopped.

    :param connect: opens a monitoring connection within ``connectTimeoutMS``.
    :param on_check: told the description that each check gave, failed ones included, before the next check begins.
    :param on_rtt: told the average round trip time whenever there is a new one.
    """

    def __init__(
        self,
        address: Address,
        settings: MonitorSettings,
        *,
        clock: IReactorTime,
        connect: ConnectMonitor,
        events: SdamEvents,
        on_check: Callable[[ServerDescription], None],
        on_rtt: Callable[[float], None],
    ) -> None:
        self.address = address
        self.state = MonitorState.IDLE
        self.rtt = RoundTripTimes()
        self._settings = settings
        self._clock = clock
        self._connect = connect
        self._events = events
        self._on_check = on_check
        self._on_rtt = on_rtt
        self._rtt_monitor = RttMonitor(address, settings, clock=clock, connect=connect, on_sample=self._add_sample)
        self._socket = _Socket()
        #: Counts checks and streams; what belongs to an older one than the current comes too late.
        self._attempt = 0
        self._pending: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._began = 0.0
        self._ended = 0.0
        self._awaited = False
        self._requested = False
        self._was_known = False
        self._hello_ok = False
        self._topology_version: Mapping[str, Any] | None = None

    # --- what the topology calls ---

    def start(self) -> None:
        """Begin with the first check."""
        if self.state is MonitorState.IDLE:
            self._check()

    def request_check(self) -> None:
        """Check as soon as allowed: at once, or when the minimum pause since the last check is over.

        While a check is in progress its outcome is news enough. Asked for while the outcome of a check is reported, the
        pause that follows is the minimum one.
        """
        self._requested = True
        if self.state is MonitorState.WAITING and self._timer is not None:
            due = self._ended + self._settings.min_heartbeat_interval
            if self._timer.getTime() > due:
                self._timer.reset(max(0.0, due - self._clock.seconds()))

    def cancel_check(self) -> None:
        """Give up the check in progress and its connection, after an operation found the server unreachable."""
        if self.state in (MonitorState.IDLE, MonitorState.STOPPED):
            return
        self._requested = False
        self._abandon(AutoReconnect(f"{format_address(self.address)}: the check was cancelled after a network error"))
        self._wait()

    def stop(self) -> Deferred[None]:
        """End for good.

        :returns: a Deferred that fires when no socket and no delayed call is left; it never fails.
        """
        if self.state is not MonitorState.STOPPED:
            self._abandon(AutoReconnect(f"{format_address(self.address)}: the monitor was stopped"))
            self.state = MonitorState.STOPPED
        stopped = self._rtt_monitor.stop()
        stopped.addCallback(lambda _: self._socket.gone())
        return stopped

    # --- one check after the other ---

    def _check(self) -> None:
        """Begin a check: on the connection that there is, else by opening one."""
        self._timer = None
        self._requested = False
        protocol = self._socket.protocol
        if protocol is None:
            if self._begin(MonitorState.CONNECTING, awaited=False):
                self._follow(self._connect(self.address), self._connected)
        elif self._begin(MonitorState.POLLING, awaited=False):
            self._limit(self._settings.answer_timeout)
            self._follow(protocol.command("admin", self._settings.hello_command(self._hello_ok)), self._polled)

    def _stream(self, protocol: MongoProtocol) -> None:
        """Ask the server to send a reply whenever it changes, and at least once a heartbeat."""
        if not self._begin(MonitorState.STREAMING, awaited=True):
            return
        self._limit(self._stream_limit())
        command = self._settings.hello_command(self._hello_ok)
        command["topologyVersion"] = self._topology_version
        command["maxAwaitTimeMS"] = bson.Int64(int(self._settings.heartbeat_frequency * 1000))
        command["$db"] = "admin"
        msg = Msg.create(command)
        msg.flag_bits |= EXHAUST_ALLOWED
        attempt = self._attempt
        self._follow(protocol.stream(msg, lambda reply: self._streamed(reply, attempt)), self._stream_ended)

    def _stream_limit(self) -> float | None:
        """How long a streamed reply may take; no limit where there is none for connecting."""
        answer_timeout = self._settings.answer_timeout
        return None if answer_timeout is None else answer_timeout + self._settings.heartbeat_frequency

    def _begin(self, state: MonitorState, awaited: bool) -> bool:
        """Enter the state of a check; returns false if a listener stopped the monitor when it heard of it."""
        self.state = state
        self._attempt += 1
        attempt = self._attempt
        self._started(awaited)
        return attempt == self._attempt

    def _started(self, awaited: bool) -> None:
        """A reply is waited for from now on."""
        self._began = self._clock.seconds()
        self._awaited = awaited
        self._events.heartbeat_started(self.address, awaited)

    def _follow(self, pending: Deferred[Any], succeeded: Callable[[Any], None]) -> None:
        """Hand the outcome on, unless something else was begun or the monitor stopped meanwhile."""
        attempt = self._attempt
        self._pending = pending

        def arrived(result: Any) -> None:
            if attempt != self._attempt:
                if isinstance(result, tuple):
                    self._socket.refuse(result[0])
                return
            self._pending = None
            succeeded(result)

        def broke(failure: Failure) -> None:
            if attempt == self._attempt:
                self._pending = None
                self._failed(_exception(failure))

        pending.addCallbacks(arrived, broke)
        pending.addErrback(self._report_fault, attempt)

    def _report_fault(self, failure: Failure, attempt: int) -> None:
        """A fault of the driver's own, or of a listener's, must not end monitoring."""
        _log.failure("Unexpected error while {address} was monitored", failure, address=format_address(self.address))
        if attempt == self._attempt and self.state is not MonitorState.STOPPED:
            self._socket.drop(AutoReconnect("the monitor failed"))
            self._wait()

    # --- outcomes ---

    def _connected(self, opened: tuple[MongoProtocol, Mapping[str, Any], float]) -> None:
        protocol, hello, round_trip = opened
        self._socket.take(protocol)
        self._add_sample(round_trip)
        if self._succeeded(hello, round_trip):
            self._go_on()

    def _polled(self, hello: Mapping[str, Any]) -> None:
        self._disarm()
        round_trip = self._clock.seconds() - self._began
        self._add_sample(round_trip)
        if self._succeeded(hello, round_trip):
            self._go_on()

    def _streamed(self, reply: Msg, attempt: int) -> None:
        """One reply of the stream; its time says nothing about the round trip."""
        if attempt != self._attempt:
            return
        self._disarm()
        if not reply.more_to_come:
            # The protocol fires the stream's Deferred right after this: it must not be cancelled any more.
            self._pending = None
        try:
            document = bson.decode(reply.body)
        except Exception as error:
            self._failed(ProtocolError(f"{format_address(self.address)} sent a hello that is no document: {error}"))
            return
        refused = error_from_reply(document)
        if refused is not None:
            self._failed(refused)
        elif self._succeeded(document, self._clock.seconds() - self._began) and reply.more_to_come:
            self._started(awaited=True)
            if attempt == self._attempt:
                self._limit(self._stream_limit())

    def _stream_ended(self, _result: None) -> None:
        """The server sent its last reply of this stream: ask for another one."""
        self._go_on()

    def _go_on(self) -> None:
        """After a successful check: stream if the server can, else sleep."""
        protocol = self._socket.protocol
        if protocol is None or not self._settings.streaming or self._topology_version is None:
            self._wait()
            return
        self._rtt_monitor.start()
        self._stream(protocol)

    def _succeeded(self, document: Mapping[str, Any], duration: float) -> bool:
        """Report a successful check.

        :returns: whether this attempt still is the current one afterwards.
        """
        attempt = self._attempt
        try:
            hello, description = parse_hello(
                self.address,
                document,
                awaited=self._awaited,
                rtt=self.rtt.average,
                minimum_rtt=self.rtt.minimum,
            )
        except ProtocolError as error:
            self._failed(error)
            return False
        self._hello_ok = bool(document.get("helloOk"))
        self._topology_version = hello.topology_version
        self._was_known = description.is_server_type_known
        self._ended = self._clock.seconds()
        self._requested = False
        self._events.heartbeat_succeeded(self.address, duration, hello, self._awaited)
        self._on_check(description)
        return attempt == self._attempt

    def _failed(self, error: Exception) -> None:
        """Report a failed check; try again at once if the server was fine until now and the network is to blame."""
        retry = self._was_known and is_network_error(error)
        attempt = self._forget_connection(error)
        self._events.heartbeat_failed(self.address, self._clock.seconds() - self._began, error, self._awaited)
        self._requested = False
        self._on_check(ServerDescription(self.address, error=error))
        if attempt != self._attempt:
            return
        if retry:
            self._check()
        else:
            self._wait()

    def _abandon(self, reason: Exception) -> None:
        """End the check in progress without reporting an outcome to the topology."""
        in_progress = self.state in (MonitorState.CONNECTING, MonitorState.POLLING, MonitorState.STREAMING)
        self._forget_connection(reason)
        if in_progress:
            self._events.heartbeat_failed(self.address, self._clock.seconds() - self._began, reason, self._awaited)

    def _forget_connection(self, reason: Exception) -> int:
        """Close the connection and forget what was learned over it; returns the number of the attempt that follows."""
        self._attempt += 1
        self._disarm()
        self.rtt.reset()
        self._was_known = False
        self._topology_version = None
        pending, self._pending = self._pending, None
        self._socket.drop(reason)
        if pending is not None:
            pending.cancel()
        self._ended = self._clock.seconds()
        return self._attempt

    def _wait(self) -> None:
        """Sleep: for a heartbeat, or the least that is allowed if a check is wanted already."""
        self.state = MonitorState.WAITING
        settings = self._settings
        pause = settings.min_heartbeat_interval if self._requested else settings.heartbeat_frequency
        self._disarm()
        self._timer = self._clock.callLater(pause, self._check)

    # --- time ---

    def _limit(self, seconds: float | None) -> None:
        """Give the reply that is waited for so much time."""
        if seconds is not None:
            self._timer = self._clock.callLater(seconds, self._timed_out, seconds)

    def _timed_out(self, seconds: float) -> None:
        """The time is over; an answer may have come while the reactor was held up, and is read in its next turn."""
        self._timer = self._clock.callLater(0, self._unanswered, seconds)

    def _unanswered(self, seconds: float) -> None:
        self._timer = None
        self._failed(NetworkTimeout(f"{format_address(self.address)} did not answer hello within {seconds:.3g} s"))

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _add_sample(self, round_trip: float) -> None:
        self.rtt.add(round_trip)
        if self.rtt.average is not None:
            self._on_rtt(self.rtt.average)


def _exception(failure: Failure) -> Exception:
    """The exception of a failed check, as descriptions and events want it."""
    error = failure.value
    return error if isinstance(error, Exception) else AutoReconnect(str(error))


class RttMonitor:
    """Measures how long a hello takes, on a connection of its own, once a heartbeat.

    What the server answers is ignored, and so are failures: the monitor proper finds out by itself. No events.

    :param on_sample: told each round trip time in seconds.
    """

    def __init__(
        self,
        address: Address,
        settings: MonitorSettings,
        *,
        clock: IReactorTime,
        connect: ConnectMonitor,
        on_sample: Callable[[float], None],
    ) -> None:
        self._address = address
        self._settings = settings
        self._clock = clock
        self._connect = connect
        self._on_sample = on_sample
        self._socket = _Socket()
        self._hello_ok = False
        self._running = False
        self._pending: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._began = 0.0

    def start(self) -> None:
        """Begin measuring; no effect once it was begun."""
        if not self._running:
            self._running = True
            self._measure()

    def stop(self) -> Deferred[None]:
        """End; fires when no socket and no delayed call is left, never fails."""
        self._running = False
        self._disarm()
        pending, self._pending = self._pending, None
        self._socket.drop(AutoReconnect("the monitor was stopped"))
        if pending is not None:
            pending.cancel()
        return self._socket.gone()

    def _measure(self) -> None:
        self._timer = None
        protocol = self._socket.protocol
        pending: Deferred[Any]
        if protocol is None:
            pending = self._pending = self._connect(self._address)
            pending.addCallback(self._connected)
        else:
            self._began = self._clock.seconds()
            limit = self._settings.answer_timeout
            if limit is not None:
                self._timer = self._clock.callLater(limit, self._timed_out)
            pending = self._pending = protocol.command("admin", self._settings.hello_command(self._hello_ok))
            pending.addCallback(self._answered)
        pending.addErrback(self._failed)

    def _connected(self, opened: tuple[MongoProtocol, Mapping[str, Any], float]) -> None:
        protocol, hello, round_trip = opened
        if not self._running:
            self._socket.refuse(protocol)
            return
        self._socket.take(protocol)
        self._hello_ok = bool(hello.get("helloOk"))
        self._sample(round_trip)

    def _answered(self, hello: Mapping[str, Any]) -> None:
        self._hello_ok = bool(hello.get("helloOk"))
        self._sample(self._clock.seconds() - self._began)

    def _sample(self, round_trip: float) -> None:
        if self._running:
            self._on_sample(round_trip)
            self._wait()

    def _failed(self, failure: Failure) -> None:
        _log.debug(
            "Measuring the round trip to {address} failed: {error}",
            address=format_address(self._address),
            error=failure.value,
        )
        self._socket.drop(AutoReconnect("measuring the round trip failed"))
        if self._running:
            self._wait()

    def _wait(self) -> None:
        self._pending = None
        self._disarm()
        self._timer = self._clock.callLater(self._settings.heartbeat_frequency, self._measure)

    def _timed_out(self) -> None:
        self._timer = None
        self._socket.drop(NetworkTimeout("no answer to hello in time"))

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
