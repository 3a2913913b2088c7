"""Tests of the recording and matching of monitoring events."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.unified.events import (
    EVENT_TYPES,
    EventRecorder,
    StoredEvents,
    event_matches,
    event_name,
    match_event,
    match_events,
)
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import Matcher

ADDRESS = ("localhost", 27017)
ALL = frozenset().union(*EVENT_TYPES.values())  # type: ignore[var-annotated]


class NoEntities:
    """An empty entity map."""

    def bson_value(self, name: str) -> Any:
        raise KeyError(name)

    def session_id(self, name: str) -> Mapping[str, Any]:
        raise KeyError(name)


MATCHER = Matcher(NoEntities())


def started(
    command: dict[str, Any] | None = None, name: str = "find", request_id: int = 1, **more: Any
) -> monitoring.CommandStartedEvent:
    """A command that started; its document is {name: 1} unless given."""
    document = {name: 1} if command is None else command
    event = monitoring.CommandStartedEvent(document or {name: 1}, "db", request_id, ADDRESS, request_id, **more)
    if not document:
        event._CommandStartedEvent__cmd = {}  # type: ignore[attr-defined]
    return event


def succeeded(reply: dict[str, Any], name: str = "find", request_id: int = 1) -> monitoring.CommandSucceededEvent:
    """A command that succeeded."""
    duration = datetime.timedelta(0)
    return monitoring.CommandSucceededEvent(duration, reply, name, request_id, ADDRESS, request_id, database_name="db")


def failed(name: str = "find", request_id: int = 1) -> monitoring.CommandFailedEvent:
    """A command that failed."""
    duration = datetime.timedelta(0)
    return monitoring.CommandFailedEvent(duration, {"ok": 0}, name, request_id, ADDRESS, request_id, database_name="db")


class RecorderTests(SynchronousTestCase):
    """What an EventRecorder keeps."""

    def test_observed_only(self) -> None:
        """Only the events named are recorded."""
        recorder = EventRecorder(frozenset({"commandStartedEvent"}))
        recorder.record(started())
        recorder.record(succeeded({"ok": 1}))
        self.assertEqual([event_name(event) for event in recorder.events], ["commandStartedEvent"])

    def test_fail_points(self) -> None:
        """The setting of a fail point is never recorded."""
        recorder = EventRecorder(ALL)
        recorder.record(started(name="configureFailPoint"))
        recorder.record(succeeded({"ok": 1}, name="configureFailPoint"))
        self.assertEqual(recorder.events, [])

    def test_ignored(self) -> None:
        """Events of the commands named by the case are dropped, whatever the case of the letters."""
        recorder = EventRecorder(ALL, ignored=frozenset({"killcursors"}))
        recorder.record(started(name="killCursors"))
        recorder.record(failed(name="killCursors"))
        self.assertEqual(recorder.events, [])

    def test_sensitive(self) -> None:
        """Events of commands that hold secrets are dropped unless the case wants them."""
        secret = started(name="saslStart")
        recorder = EventRecorder(ALL)
        recorder.record(secret)
        self.assertEqual(recorder.events, [])
        recorder = EventRecorder(ALL, sensitive=True)
        recorder.record(secret)
        self.assertEqual(recorder.events, [secret])

    def test_redacted_hello(self) -> None:
        """A hello counts as secret exactly where its document was taken out, and then to its end."""
        recorder = EventRecorder(ALL)
        recorder.record(started({}, name="hello", request_id=1))
        recorder.record(failed(name="hello", request_id=1))
        self.assertEqual(recorder.events, [])
        recorder.record(started(name="hello", request_id=2))
        recorder.record(succeeded({"ok": 1}, name="hello", request_id=2))
        self.assertEqual(len(recorder.events), 2)

    def test_checked_out(self) -> None:
        """Connections that are out are counted, whether or not their events are observed."""
        recorder = EventRecorder()
        recorder.record(monitoring.ConnectionCheckedOutEvent(ADDRESS, 1, 0.0))
        recorder.record(monitoring.ConnectionCheckedOutEvent(ADDRESS, 2, 0.0))
        recorder.record(monitoring.ConnectionCheckedInEvent(ADDRESS, 1))
        self.assertEqual(recorder.checked_out, 1)

    def test_count_goes_on(self) -> None:
        """A recorder that was told to stop still counts, and records nothing."""
        recorder = EventRecorder(ALL, recording=False)
        recorder.record(monitoring.ConnectionCheckedOutEvent(ADDRESS, 1, 0.0))
        self.assertEqual((recorder.checked_out, recorder.events), (1, []))

    def test_watch(self) -> None:
        """A watcher is called after each event until it is taken off."""
        recorder = EventRecorder(ALL)
        seen: list[int] = []
        stop = recorder.watch(lambda: seen.append(len(recorder.events)))
        recorder.record(started())
        stop()
        recorder.record(started())
        self.assertEqual(seen, [1])

    def test_forget(self) -> None:
        """Events of some types are dropped, the others stay."""
        recorder = EventRecorder(ALL)
        recorder.record(started())
        recorder.record(monitoring.PoolReadyEvent(ADDRESS))
        recorder.forget("cmap", "sdam")
        self.assertEqual([event_name(event) for event in recorder.events], ["commandStartedEvent"])

    def test_stored(self) -> None:
        """Events to be stored become documents with name and time."""
        stored = StoredEvents(frozenset({"poolReadyEvent"}))
        recorder = EventRecorder(stored=[stored])
        recorder.record(monitoring.PoolReadyEvent(ADDRESS))
        self.assertEqual(stored.documents[0]["name"], "PoolReadyEvent")
        self.assertIsInstance(stored.documents[0]["observedAt"], float)

    def test_listeners(self) -> None:
        """A client gets listeners of what is observed, always of its pools and topology."""
        kinds = (
            monitoring.CommandListener,
            monitoring.ConnectionPoolListener,
            monitoring.ServerListener,
            monitoring.ServerHeartbeatListener,
            monitoring.TopologyListener,
        )

        def given(observed: frozenset[str]) -> list[bool]:
            listeners = EventRecorder(observed).listeners()
            return [any(isinstance(listener, kind) for listener in listeners) for kind in kinds]

        self.assertEqual(given(ALL), [True] * 5)
        self.assertEqual(given(frozenset()), [False, True, False, False, True])


class MatchEventTests(SynchronousTestCase):
    """One event against one expectation."""

    def refuse(self, expected: dict[str, Any], actual: Any) -> None:
        """They differ."""
        self.assertRaises(Mismatch, match_event, MATCHER, expected, actual)

    def test_kind(self) -> None:
        """An event of another kind differs."""
        match_event(MATCHER, {"commandStartedEvent": {}}, started())
        self.refuse({"commandSucceededEvent": {}}, started())

    def test_command(self) -> None:
        """The command is compared as a root document, the names exactly."""
        event = started({"find": "c", "filter": {}})
        match_event(
            MATCHER,
            {"commandStartedEvent": {"command": {"find": "c"}, "commandName": "find", "databaseName": "db"}},
            event,
        )
        self.refuse({"commandStartedEvent": {"command": {"find": "d"}}}, event)
        self.refuse({"commandStartedEvent": {"command": {"filter": {"x": 1}}}}, event)
        self.refuse({"commandStartedEvent": {"commandName": "insert"}}, event)
        self.refuse({"commandStartedEvent": {"databaseName": "other"}}, event)

    def test_reply(self) -> None:
        """The reply is compared as a root document."""
        match_event(MATCHER, {"commandSucceededEvent": {"reply": {"ok": 1}}}, succeeded({"ok": 1.0, "n": 1}))
        self.refuse({"commandSucceededEvent": {"reply": {"ok": 1, "n": 2}}}, succeeded({"ok": 1.0, "n": 1}))

    def test_reason(self) -> None:
        """The reasons of a closed connection and a failed check-out are compared."""
        closed = monitoring.ConnectionClosedEvent(ADDRESS, 1, "stale")
        match_event(MATCHER, {"connectionClosedEvent": {"reason": "stale"}}, closed)
        self.refuse({"connectionClosedEvent": {"reason": "error"}}, closed)
        check_out = monitoring.ConnectionCheckOutFailedEvent(ADDRESS, "timeout", 0.0)
        match_event(MATCHER, {"connectionCheckOutFailedEvent": {"reason": "timeout"}}, check_out)
        self.refuse({"connectionCheckOutFailedEvent": {"reason": "poolClosed"}}, check_out)

    def test_interrupted(self) -> None:
        """Whether a cleared pool interrupts what is in use is compared."""
        cleared = monitoring.PoolClearedEvent(ADDRESS, interrupt_connections=True)
        match_event(MATCHER, {"poolClearedEvent": {"interruptInUseConnections": True}}, cleared)
        self.refuse({"poolClearedEvent": {"interruptInUseConnections": False}}, cleared)

    def test_awaited(self) -> None:
        """Whether a heartbeat was awaited is compared."""
        event = monitoring.ServerHeartbeatStartedEvent(ADDRESS, True)
        match_event(MATCHER, {"serverHeartbeatStartedEvent": {"awaited": True}}, event)
        self.refuse({"serverHeartbeatStartedEvent": {"awaited": False}}, event)

    def test_server_description(self) -> None:
        """The types of a server's descriptions are compared."""
        unknown = ServerDescription(ADDRESS)
        standalone = ServerDescription(ADDRESS, Hello({"ok": 1, "maxWireVersion": 17}))
        event = monitoring.ServerDescriptionChangedEvent(unknown, standalone, ADDRESS, ObjectId())
        expected = {"previousDescription": {"type": "Unknown"}, "newDescription": {"type": "Standalone"}}
        match_event(MATCHER, {"serverDescriptionChangedEvent": expected}, event)
        self.refuse({"serverDescriptionChangedEvent": {"newDescription": {"type": "Unknown"}}}, event)
        match_event(MATCHER, {"serverDescriptionChangedEvent": {"newDescription": {}}}, event)
        self.assertRaises(
            FormatError,
            match_event,
            MATCHER,
            {"serverDescriptionChangedEvent": {"newDescription": {"tags": {}}}},
            event,
        )

    def test_topology_description(self) -> None:
        """The types of the topology's descriptions are compared."""
        old = TopologyDescription(TOPOLOGY_TYPE.Unknown, {}, None, None, None, None)  # type: ignore[arg-type]
        event = monitoring.TopologyDescriptionChangedEvent(old, old, ObjectId())
        match_event(MATCHER, {"topologyDescriptionChangedEvent": {"newDescription": {"type": "Unknown"}}}, event)
        self.refuse({"topologyDescriptionChangedEvent": {"previousDescription": {"type": "Single"}}}, event)

    def test_topology_opening(self) -> None:
        """PyMongo's opened event is the format's opening event."""
        match_event(MATCHER, {"topologyOpeningEvent": {}}, monitoring.TopologyOpenedEvent(ObjectId()))
        match_event(MATCHER, {"topologyClosedEvent": {}}, monitoring.TopologyClosedEvent(ObjectId()))

    def test_service_id(self) -> None:
        """A service id is one that is not all zeros."""
        with_id = started(service_id=ObjectId())
        match_event(MATCHER, {"commandStartedEvent": {"hasServiceId": True}}, with_id)
        self.refuse({"commandStartedEvent": {"hasServiceId": False}}, with_id)
        match_event(MATCHER, {"commandStartedEvent": {"hasServiceId": False}}, started(service_id=ObjectId(b"\0" * 12)))
        self.refuse({"commandStartedEvent": {"hasServiceId": True}}, started())

    def test_server_connection_id(self) -> None:
        """A server's connection id is a positive number."""
        match_event(MATCHER, {"commandStartedEvent": {"hasServerConnectionId": True}}, started(server_connection_id=7))
        match_event(MATCHER, {"commandStartedEvent": {"hasServerConnectionId": False}}, started())
        self.refuse({"commandStartedEvent": {"hasServerConnectionId": True}}, started())

    def test_malformed(self) -> None:
        """An unknown event, an unknown field, or two events in one are errors of the case."""
        for expected in ({"somethingEvent": {}}, {"commandStartedEvent": {"command1": 1}}, {}, {"a": {}, "b": {}}):
            self.assertRaises(FormatError, match_event, MATCHER, expected, started())

    def test_matches(self) -> None:
        """The question whether an event matches is answered by a boolean; a wrong question is still an error."""
        self.assertTrue(event_matches(MATCHER, {"commandStartedEvent": {}}, started()))
        self.assertFalse(event_matches(MATCHER, {"commandFailedEvent": {}}, started()))
        self.assertRaises(FormatError, event_matches, MATCHER, {"somethingEvent": {}}, started())


class MatchEventsTests(SynchronousTestCase):
    """The events of a client against the list expected."""

    def match(self, expected: list[dict[str, Any]], actual: list[Any], ignore_extra: bool = False) -> None:
        """Compare lists."""
        match_events(MATCHER, expected, actual, ignore_extra=ignore_extra, path="client0")

    def test_same(self) -> None:
        """The same events in the same order match."""
        self.match([{"commandStartedEvent": {}}, {"commandFailedEvent": {}}], [started(), failed()])
        self.match([], [])

    def test_order(self) -> None:
        """Another order differs."""
        expected = [{"commandFailedEvent": {}}, {"commandStartedEvent": {}}]
        self.assertRaises(Mismatch, self.match, expected, [started(), failed()])

    def test_too_few(self) -> None:
        """A missing event differs, even where extra ones are ignored."""
        self.assertRaises(Mismatch, self.match, [{"commandStartedEvent": {}}] * 2, [started()])
        self.assertRaises(Mismatch, self.match, [{"commandStartedEvent": {}}] * 2, [started()], True)

    def test_too_many(self) -> None:
        """An extra event differs, unless extra ones at the end are ignored."""
        self.assertRaises(Mismatch, self.match, [{"commandStartedEvent": {}}], [started(), failed()])
        self.assertRaises(Mismatch, self.match, [], [started()])
        self.match([{"commandStartedEvent": {}}], [started(), failed()], True)
        self.assertRaises(Mismatch, self.match, [{"commandFailedEvent": {}}], [started(), failed()], True)

    def test_message(self) -> None:
        """The message lists what was observed."""
        error = self.assertRaises(Mismatch, self.match, [], [started(name="ping")])
        self.assertIn("ping commandStarted", str(error))
