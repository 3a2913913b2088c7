"""Monitoring one server."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo.server_api import ServerApi
from pymongo.server_description import ServerDescription
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, Connections, FakeProtocol, standalone, topology_version
from tests.unit.sdam.test_events import Listener
from txmongo._sdam.events import SdamEvents
from txmongo._sdam.monitor import MonitorSettings, MonitorState, ServerMonitor
from txmongo._settings import parse_settings
from txmongo._wire.op_msg import EXHAUST_ALLOWED
from txmongo.errors import AutoReconnect, NetworkTimeout, OperationFailure, ProtocolError

STARTED, SUCCEEDED, FAILED = (f"ServerHeartbeat{outcome}Event" for outcome in ("Started", "Succeeded", "Failed"))


def streaming(counter: int = 1, **fields: Any) -> dict[str, Any]:
    """What a standalone answers that can stream."""
    return standalone(topologyVersion=topology_version(counter), **fields)


class MonitorCase(SynchronousTestCase):
    """A monitor on a fake clock."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.connections = Connections(self.clock)
        self.listener = Listener()
        self.checks: list[ServerDescription] = []
        self.round_trips: list[float] = []
        settings = parse_settings("mongodb://a", **self.options)
        self.monitor = ServerMonitor(
            A,
            MonitorSettings.from_settings(settings),
            clock=self.clock,
            connect=self.connections.connect,
            events=SdamEvents([self.listener], ObjectId()),
            on_check=self.checked,
            on_rtt=self.round_trips.append,
        )

    def checked(self, description: ServerDescription) -> None:
        self.checks.append(description)

    def types(self) -> list[str]:
        return [check.server_type_name for check in self.checks]

    def heartbeats(self) -> list[tuple[str, bool]]:
        return [(type(event).__name__, event.awaited) for event in self.listener.events]

    def stop(self) -> None:
        """Stop the monitor and see that nothing is left."""
        stopped = self.monitor.stop()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.connections.waiting(A), 0)
        for protocol in self.connections.protocols.get(A, ()):
            self.assertTrue(protocol.lost)


class PollingTests(MonitorCase):
    """A server that does not stream, or is not asked to."""

    options = {"serverMonitoringMode": "poll"}

    def test_first_check(self) -> None:
        """The handshake of the connection is the first check."""
        self.monitor.start()
        self.assertIs(self.monitor.state, MonitorState.CONNECTING)
        self.assertEqual(self.heartbeats(), [(STARTED, False)])
        self.connections.open(A, streaming(), rtt=0.25)
        self.assertEqual(self.types(), ["Standalone"])
        self.assertEqual(self.checks[0].round_trip_time, 0.25)
        self.assertEqual(self.heartbeats(), [(STARTED, False), (SUCCEEDED, False)])
        self.assertEqual(self.listener.events[1].duration, 0.25)
        self.assertIs(self.monitor.state, MonitorState.WAITING)
        self.stop()

    def test_next_check(self) -> None:
        """A heartbeat later the next hello leaves on the same connection, and its time counts as round trip."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone(), rtt=1.0)
        self.clock.advance(9.9)
        self.assertEqual(protocol.sent, [])
        self.clock.advance(0.1)
        self.assertEqual(protocol.sent, [{"hello": 1, "helloOk": True, "$db": "admin"}])
        self.clock.advance(2.0)
        protocol.answer(standalone())
        self.assertEqual(self.types(), ["Standalone"] * 2)
        self.assertAlmostEqual(self.round_trips[-1], 1.2)
        self.assertEqual(self.connections.attempts, [A])
        self.stop()

    def test_old_name(self) -> None:
        """A server that does not say helloOk is asked by the old name."""
        self.monitor.start()
        protocol = self.connections.open(A, {"ok": 1, "ismaster": True, "maxWireVersion": 9})
        self.clock.advance(10)
        self.assertEqual(protocol.sent, [{"ismaster": 1, "helloOk": True, "$db": "admin"}])
        self.stop()

    def test_no_extra_connection(self) -> None:
        """Without streaming there is no second connection for round trips."""
        self.monitor.start()
        self.connections.open(A, streaming())
        self.clock.advance(5)
        self.assertEqual(self.connections.attempts, [A])
        self.stop()

    def test_held_up(self) -> None:
        """An answer that came in time counts, though a reactor that was held up first hears that the time is over."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone())
        self.clock.advance(10)
        self.clock.callLater(20, protocol.answer, standalone())  # called after what was to be called then already
        self.clock.advance(60)
        self.assertEqual(self.types(), ["Standalone"] * 2)
        self.assertIs(self.monitor.state, MonitorState.WAITING)
        self.stop()

    def test_silent_server(self) -> None:
        """A hello without answer within connectTimeoutMS is a failed check, and the next one starts at once."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone())
        self.clock.advance(10)
        self.clock.advance(20)
        self.assertEqual(self.types(), ["Standalone", "Unknown"])
        self.assertIsInstance(self.checks[1].error, NetworkTimeout)
        self.assertIsInstance(protocol.aborted, NetworkTimeout)
        self.assertIs(self.monitor.state, MonitorState.CONNECTING)
        self.stop()

    def test_failure_of_known_server(self) -> None:
        """After a network error a server that was fine is tried again at once, but only once."""
        self.monitor.start()
        self.connections.open(A, standalone()).lose()
        self.assertEqual(self.types(), ["Standalone"])
        self.clock.advance(10)
        self.assertEqual(self.types(), ["Standalone", "Unknown"])
        self.assertIs(self.monitor.state, MonitorState.CONNECTING)
        self.connections.refuse(A)
        self.assertIs(self.monitor.state, MonitorState.WAITING)
        self.assertEqual(self.types(), ["Standalone", "Unknown", "Unknown"])
        self.clock.advance(9.9)
        self.assertEqual(self.connections.waiting(A), 0)
        self.clock.advance(0.1)
        self.assertEqual(self.connections.waiting(A), 1)
        self.stop()

    def test_refusing_server(self) -> None:
        """A server that answers with an error is not asked again at once."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone())
        self.clock.advance(10)
        protocol.answer({"ok": 0, "errmsg": "no", "code": 1})
        self.assertIsInstance(self.checks[1].error, OperationFailure)
        self.assertIsNotNone(protocol.aborted)
        self.assertIs(self.monitor.state, MonitorState.WAITING)
        self.stop()

    def test_nonsense(self) -> None:
        """A reply that is none to hello is a failed check."""
        self.monitor.start()
        self.connections.open(A, standalone(maxWireVersion="many"))
        self.assertEqual(self.types(), ["Unknown"])
        self.assertIsInstance(self.checks[0].error, ProtocolError)
        self.assertEqual(self.heartbeats(), [(STARTED, False), (FAILED, False)])
        self.stop()

    def test_round_trips_start_anew(self) -> None:
        """When a server was away, its round trip times are forgotten."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone(), rtt=5.0)
        self.clock.advance(10)
        protocol.lose()
        self.connections.open(A, standalone(), rtt=1.0)
        self.assertEqual(self.checks[-1].round_trip_time, 1.0)
        self.stop()


class RequestTests(MonitorCase):
    """Checking sooner than planned."""

    options = {"serverMonitoringMode": "poll"}

    def test_at_once(self) -> None:
        """Asked for when the last check is long ago, the next one starts at once."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone())
        self.clock.advance(5)
        self.monitor.request_check()
        self.clock.advance(0)
        self.assertEqual(len(protocol.sent), 1)
        self.stop()

    def test_minimum_pause(self) -> None:
        """Right after a check the minimum pause is kept, however often one asks."""
        self.monitor.start()
        self.connections.refuse(A)
        for _ in range(4):
            self.monitor.request_check()
            self.clock.advance(0.1)
        self.assertEqual(self.connections.waiting(A), 0)
        self.clock.advance(0.1)
        self.assertEqual(self.connections.waiting(A), 1)
        self.stop()

    def test_never_later(self) -> None:
        """Asking never moves a check that is due sooner."""
        self.monitor.start()
        protocol = self.connections.open(A, standalone())
        self.clock.advance(9.9)
        self.monitor.request_check()
        self.monitor.request_check()
        self.clock.advance(0.1)
        self.assertEqual(len(protocol.sent), 1)
        self.stop()

    def test_during_check(self) -> None:
        """While a check is in progress its outcome is news enough."""
        self.monitor.start()
        self.monitor.request_check()
        protocol = self.connections.open(A, standalone())
        self.clock.advance(1)
        self.assertEqual(protocol.sent, [])
        self.stop()

    def test_during_report(self) -> None:
        """Asked for by somebody whom the outcome does not help, the next check comes after the minimum pause."""
        self.checked = lambda description: self.monitor.request_check()  # type: ignore[method-assign]
        self.monitor._on_check = self.checked
        self.monitor.start()
        self.connections.refuse(A)
        self.clock.advance(0.5)
        self.assertEqual(self.connections.waiting(A), 1)
        self.monitor._on_check = lambda description: None
        self.stop()


class StreamingTests(MonitorCase):
    """A server that sends its replies by itself."""

    def stream(self) -> FakeProtocol:
        """Start, and let the server be streaming."""
        self.monitor.start()
        protocol = self.connections.open(A, streaming())
        self.assertIs(self.monitor.state, MonitorState.STREAMING)
        return protocol

    def test_request(self) -> None:
        """After the handshake the server is asked to stream, with the version of what is known."""
        protocol = self.stream()
        self.assertEqual(
            protocol.sent,
            [
                {
                    "hello": 1,
                    "helloOk": True,
                    "topologyVersion": topology_version(1),
                    "maxAwaitTimeMS": 10000,
                    "$db": "admin",
                }
            ],
        )
        self.assertTrue(protocol.stream_flags & EXHAUST_ALLOWED)
        self.assertEqual(self.heartbeats(), [(STARTED, False), (SUCCEEDED, False), (STARTED, True)])
        self.stop()

    def test_replies(self) -> None:
        """Each reply is a check, and none says anything about round trips."""
        protocol = self.stream()
        self.clock.advance(3)
        protocol.send(streaming(2))
        self.clock.advance(10)
        protocol.send(streaming(2))
        self.assertEqual(self.types(), ["Standalone"] * 3)
        self.assertEqual(self.round_trips, [0.001])
        self.assertEqual(self.heartbeats()[2:], [(STARTED, True), (SUCCEEDED, True)] * 2 + [(STARTED, True)])
        self.assertEqual(self.listener.events[3].duration, 3)
        self.assertEqual(len(protocol.sent), 1)
        self.stop()

    def test_stream_ends(self) -> None:
        """When the server ends the stream it is asked for another one, from what it said last."""
        protocol = self.stream()
        protocol.send(streaming(7), more=False)
        self.assertEqual(protocol.sent[1]["topologyVersion"], topology_version(7))
        self.assertIs(self.monitor.state, MonitorState.STREAMING)
        self.assertEqual(self.heartbeats()[-2:], [(SUCCEEDED, True), (STARTED, True)])
        self.stop()

    def test_server_loses_the_ability(self) -> None:
        """A server that ends the stream without a topologyVersion is polled from then on."""
        protocol = self.stream()
        protocol.send(standalone(), more=False)
        self.assertIs(self.monitor.state, MonitorState.WAITING)
        self.clock.advance(10)
        self.assertIs(self.monitor.state, MonitorState.POLLING)
        self.stop()

    def test_silence(self) -> None:
        """A server that is silent for a heartbeat and connectTimeoutMS is not there any more."""
        protocol = self.stream()
        self.clock.advance(29)
        protocol.send(streaming(1))
        self.clock.advance(29.9)
        self.assertEqual(self.types(), ["Standalone"] * 2)
        self.clock.advance(0.1)
        self.assertEqual(self.types(), ["Standalone"] * 2 + ["Unknown"])
        self.assertIsInstance(self.checks[-1].error, NetworkTimeout)
        self.assertIs(self.monitor.state, MonitorState.CONNECTING)
        self.stop()

    def test_connection_lost(self) -> None:
        """When the connection breaks, a new one is opened at once."""
        protocol = self.stream()
        protocol.lose()
        self.assertEqual(self.types(), ["Standalone", "Unknown"])
        self.assertEqual(self.heartbeats()[-2:], [(FAILED, True), (STARTED, False)])
        self.connections.refuse(A)
        self.connections.open(A, streaming())
        self.assertEqual(self.types(), ["Standalone", "Unknown", "Standalone"])
        self.stop()

    def test_error_reply(self) -> None:
        """An error in the stream ends it, and the monitor waits before it tries again."""
        protocol = self.stream()
        protocol.send({"ok": 0, "errmsg": "shutting down", "code": 91}, more=False)
        self.assertEqual(self.types(), ["Standalone", "Unknown"])
        self.assertIsNotNone(protocol.aborted)
        self.assertIs(self.monitor.state, MonitorState.WAITING)
        self.stop()

    def test_broken_reply(self) -> None:
        """A reply that is no document ends the stream."""
        protocol = self.stream()
        assert protocol.on_reply is not None
        reply = type("Reply", (), {"body": b"\x01", "more_to_come": True})()
        protocol.on_reply(reply)
        self.assertIsInstance(self.checks[-1].error, ProtocolError)
        self.stop()

    def test_request_is_ignored(self) -> None:
        """While streaming nothing needs to be asked for."""
        protocol = self.stream()
        self.monitor.request_check()
        self.clock.advance(1)
        self.assertEqual(len(protocol.sent), 1)
        self.stop()

    def test_after_stop(self) -> None:
        """What a server still sends after the end is not heard."""
        protocol = self.stream()
        on_reply = protocol.on_reply
        self.stop()
        protocol.on_reply = on_reply
        protocol.send(streaming(2))
        self.assertEqual(self.types(), ["Standalone"])


class RoundTripTests(MonitorCase):
    """Measuring round trips while streaming."""

    def test_own_connection(self) -> None:
        """A second connection is opened, its handshake measured, and then one hello each heartbeat."""
        self.monitor.start()
        self.connections.open(A, streaming(), rtt=1.0)
        self.assertEqual(self.connections.waiting(A), 1)
        second = self.connections.open(A, streaming(), rtt=2.0)
        self.clock.advance(10)
        self.assertEqual(second.sent, [{"hello": 1, "helloOk": True, "$db": "admin"}])
        self.clock.advance(3)
        second.answer(streaming())
        self.assertEqual([round(each, 2) for each in self.round_trips], [1.0, 1.2, 1.56])
        self.assertEqual(self.types(), ["Standalone"])
        self.assertEqual(len(self.heartbeats()), 3)
        self.stop()

    def test_in_description(self) -> None:
        """What was measured stands in the description from the next streamed reply on."""
        self.monitor.start()
        protocol = self.connections.open(A, streaming(), rtt=1.0)
        self.connections.open(A, streaming(), rtt=2.0)
        protocol.send(streaming(1))
        self.assertEqual(self.checks[-1].round_trip_time, 1.2000000000000002)
        self.assertEqual(self.checks[-1].min_round_trip_time, 1.0)
        self.stop()

    def test_failures_are_silent(self) -> None:
        """A failed measurement changes nothing and is repeated a heartbeat later."""
        self.monitor.start()
        self.connections.open(A, streaming())
        self.connections.refuse(A)
        self.clock.advance(10)
        second = self.connections.open(A, streaming())
        self.clock.advance(10)
        self.clock.advance(20)
        self.assertIsNotNone(second.aborted)
        self.assertEqual(self.types()[0], "Standalone")
        self.stop()

    def test_stopped_while_connecting(self) -> None:
        """A measurement in progress ends with the monitor."""
        self.monitor.start()
        self.connections.open(A, streaming())
        self.stop()


class CancelTests(MonitorCase):
    """Giving a check up because an operation found the server unreachable."""

    def test_stream(self) -> None:
        """The stream's connection is closed, the topology is told nothing, and a check follows after the pause."""
        self.monitor.start()
        protocol = self.connections.open(A, streaming())
        self.connections.open(A, streaming())
        self.monitor.cancel_check()
        self.assertIsNotNone(protocol.aborted)
        self.clock.advance(0)
        self.assertEqual(self.types(), ["Standalone"])
        self.assertEqual(self.heartbeats()[-1], (FAILED, True))
        self.monitor.request_check()
        self.clock.advance(0.5)
        self.assertIs(self.monitor.state, MonitorState.CONNECTING)
        self.stop()

    def test_connecting(self) -> None:
        """An attempt to connect is ended."""
        self.monitor.start()
        self.monitor.cancel_check()
        self.assertEqual(self.connections.waiting(A), 0)
        self.assertEqual(self.heartbeats(), [(STARTED, False), (FAILED, False)])
        self.stop()

    def test_waiting(self) -> None:
        """Between two checks only the connection is closed."""
        self.options = {}
        self.monitor.start()
        self.connections.open(A, standalone())
        self.monitor.cancel_check()
        self.assertEqual(len(self.heartbeats()), 2)
        self.stop()

    def test_not_running(self) -> None:
        """Before the start and after the end there is nothing to give up."""
        self.monitor.cancel_check()
        self.assertIs(self.monitor.state, MonitorState.IDLE)
        self.stop()
        self.monitor.cancel_check()
        self.assertIs(self.monitor.state, MonitorState.STOPPED)


class StopTests(MonitorCase):
    """Ending, at every stage."""

    def test_at_once(self) -> None:
        """A monitor that never started stops at once, and does not start after that."""
        self.stop()
        self.monitor.start()
        self.assertEqual(self.connections.attempts, [])

    def test_waits_for_sockets(self) -> None:
        """The end is told when the sockets are really gone."""
        self.monitor.start()
        self.connections.open(A, standalone())
        stopped = self.monitor.stop()
        again = self.monitor.stop()
        self.assertNoResult(stopped)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.successResultOf(again)

    def test_every_start_has_an_end(self) -> None:
        """A check that is in progress at the end is published as failed."""
        self.monitor.start()
        self.stop()
        self.assertEqual(self.heartbeats(), [(STARTED, False), (FAILED, False)])

    def test_connection_comes_too_late(self) -> None:
        """A connection that a connector brings although it was cancelled is closed."""
        protocol = FakeProtocol(self.clock)
        attempt: Deferred[Any] = Deferred(lambda self: self.callback((protocol, streaming(), 0.1)))
        self.monitor._connect = lambda address: attempt
        self.monitor.start()
        self.stop()
        self.assertTrue(protocol.lost)
        self.assertEqual(self.types(), [])

    def test_by_listener(self) -> None:
        """A listener may stop the monitor when it hears of a check."""
        self.listener._react = lambda event: self.monitor.stop() and None
        self.monitor.start()
        self.assertEqual(self.connections.attempts, [])
        self.stop()

    def test_by_listener_while_polling(self) -> None:
        """The same holds for later checks, whose hello is then not sent."""
        for document in (standalone(), streaming()):
            self.setUp()
            self.monitor.start()
            started = len(self.heartbeats())
            self.listener._react = lambda event, before=started: (
                None if len(self.heartbeats()) < before + 2 else self.monitor.stop() and None
            )
            protocol = self.connections.open(A, document)
            self.clock.advance(10)
            self.assertEqual(protocol.sent, [])
            self.assertIs(self.monitor.state, MonitorState.STOPPED)
            self.listener._react = None
            self.stop()

    def test_by_report_of_failure(self) -> None:
        """Whoever hears of a failed check may stop the monitor."""
        self.monitor._on_check = lambda description: self.monitor.stop() and None
        self.monitor.start()
        self.connections.refuse(A)
        self.stop()

    def test_by_report(self) -> None:
        """Whoever hears of the outcome of a check may stop the monitor."""
        for document in (standalone(), streaming()):
            self.setUp()
            self.monitor._on_check = lambda description: self.monitor.stop() and None
            self.monitor.start()
            self.connections.open(A, document)
            self.assertIs(self.monitor.state, MonitorState.STOPPED)
            self.stop()

    def test_by_report_of_last_reply(self) -> None:
        """Stopping at the last reply of a stream is as good as at any other."""
        for more in (True, False):
            self.setUp()
            self.monitor.start()
            protocol = self.connections.open(A, streaming())
            self.monitor._on_check = lambda description: self.monitor.stop() and None
            protocol.send(streaming(2), more=more)
            self.assertEqual(protocol.cancelled, more)
            self.stop()


class FaultTests(MonitorCase):
    """Faults of the driver's own."""

    def test_report_raises(self) -> None:
        """If taking in a check raises, that is logged and monitoring goes on."""

        def fault(_description: ServerDescription) -> None:
            raise ZeroDivisionError

        self.monitor._on_check = fault
        self.monitor.start()
        self.connections.open(A, standalone())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.monitor._on_check = self.checked
        self.clock.advance(10)
        self.connections.open(A, standalone())
        self.assertEqual(self.types(), ["Standalone"])
        self.stop()


class SettingsTests(SynchronousTestCase):
    """What monitors are told."""

    def settings(self, **options: Any) -> MonitorSettings:
        return MonitorSettings.from_settings(parse_settings("mongodb://a", **options))

    def test_modes(self) -> None:
        """Streaming is on unless polling was asked for."""
        self.assertTrue(self.settings(serverMonitoringMode="stream").streaming)
        self.assertTrue(self.settings(serverMonitoringMode="auto").streaming)
        self.assertFalse(self.settings(serverMonitoringMode="poll").streaming)

    def test_function_as_a_service(self) -> None:
        """Where processes are frozen between calls, auto means polling, and stream still streaming."""
        self.patch(__import__("os"), "environ", {"AWS_LAMBDA_RUNTIME_API": "x"})
        self.assertFalse(self.settings(serverMonitoringMode="auto").streaming)
        self.assertTrue(self.settings(serverMonitoringMode="stream").streaming)

    def test_no_time_limit(self) -> None:
        """connectTimeoutMS=0 means no limit."""
        self.assertIsNone(self.settings(connectTimeoutMS=0).answer_timeout)

    def test_answer_timeout(self) -> None:
        """A server has connectTimeoutMS to answer, or TxMongo's ping_timeout where that is given."""
        self.assertEqual(self.settings(connectTimeoutMS=4000).answer_timeout, 4)
        self.assertEqual(self.settings(connectTimeoutMS=4000, ping_timeout=7).answer_timeout, 7)
        self.assertIsNone(self.settings(ping_timeout=0).answer_timeout)

    def test_server_api(self) -> None:
        """A declared API is part of every hello, which then has its new name."""
        api = ServerApi("1", strict=True, deprecation_errors=False)
        command = self.settings(server_api=api).hello_command(False)
        self.assertEqual(
            command,
            {"hello": 1, "helloOk": True, "apiVersion": "1", "apiStrict": True, "apiDeprecationErrors": False},
        )
        command = self.settings(server_api=ServerApi("1")).hello_command(False)
        self.assertEqual(command, {"hello": 1, "helloOk": True, "apiVersion": "1"})


class UnlimitedTests(MonitorCase):
    """connectTimeoutMS=0."""

    options = {"connectTimeoutMS": 0}

    def test_stream_may_be_silent(self) -> None:
        """Without a limit for connecting there is none for streamed replies."""
        self.monitor.start()
        self.connections.open(A, streaming())
        self.clock.advance(1000)
        self.assertEqual(self.types(), ["Standalone"])
        self.stop()

    def test_round_trips_without_limit(self) -> None:
        """Nor is there one for measuring round trips."""
        self.monitor.start()
        self.connections.open(A, streaming())
        second = self.connections.open(A, streaming())
        self.clock.advance(10)
        self.clock.advance(1000)
        self.assertFalse(second.lost)
        self.stop()

    def test_lost_error(self) -> None:
        """What a lost connection is known by reaches the description."""
        self.monitor.start()
        self.connections.open(A, streaming())
        self.connections.refuse(A)
        self.connections.protocols[A][0].abort(AutoReconnect("a:27017: gone"))
        self.clock.advance(0)
        self.assertEqual(str(self.checks[-1].error), "a:27017: gone")
        self.stop()
