"""Publishing SDAM events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, standalone
from txmongo._sdam.description import empty_description
from txmongo._sdam.events import SdamEvents
from txmongo._settings import parse_settings

TOPOLOGY = ObjectId()


class Listener(monitoring.TopologyListener, monitoring.ServerListener, monitoring.ServerHeartbeatListener):
    """Keeps the class names of all events, and may react to some."""

    def __init__(self, react: Callable[[Any], None] | None = None) -> None:
        self.events: list[Any] = []
        self._react = react

    def _heard(self, event: Any) -> None:
        self.events.append(event)
        if self._react is not None:
            self._react(event)

    opened = description_changed = closed = started = succeeded = failed = _heard

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class SdamEventsTests(SynchronousTestCase):
    """Who is told what."""

    def test_all(self) -> None:
        """Every event carries what PyMongo's classes promise."""
        listener = Listener()
        events = SdamEvents([listener], TOPOLOGY)
        description = empty_description(parse_settings(), TOPOLOGY)
        server = ServerDescription(A)
        events.topology_opened()
        events.topology_changed(description, description)
        events.server_opened(A)
        events.heartbeat_started(A, False)
        events.heartbeat_succeeded(A, 0.5, Hello(standalone()), False)
        events.heartbeat_failed(A, 0.25, ValueError("no"), True)
        events.server_changed(server, server)
        events.server_closed(A)
        events.topology_closed()
        self.assertEqual(
            listener.names,
            [
                "TopologyOpenedEvent",
                "TopologyDescriptionChangedEvent",
                "ServerOpeningEvent",
                "ServerHeartbeatStartedEvent",
                "ServerHeartbeatSucceededEvent",
                "ServerHeartbeatFailedEvent",
                "ServerDescriptionChangedEvent",
                "ServerClosedEvent",
                "TopologyClosedEvent",
            ],
        )
        self.assertEqual(listener.events[2].server_address, A)
        self.assertEqual(listener.events[2].topology_id, TOPOLOGY)
        self.assertEqual((listener.events[4].duration, listener.events[4].awaited), (0.5, False))
        self.assertEqual((listener.events[5].duration, listener.events[5].awaited), (0.25, True))

    def test_by_kind(self) -> None:
        """Each listener hears what its class is for, and other listeners are left alone."""

        class Servers(monitoring.ServerListener):
            def __init__(self) -> None:
                self.heard: list[Any] = []

            def opened(self, event: Any) -> None:
                self.heard.append(event)

        servers = Servers()
        events = SdamEvents([servers, monitoring.CommandListener()], TOPOLOGY)
        events.topology_opened()
        events.server_opened(A)
        events.heartbeat_started(A, False)
        self.assertEqual([type(event) for event in servers.heard], [monitoring.ServerOpeningEvent])

    def test_listener_that_raises(self) -> None:
        """A listener that raises is logged, and the others hear the event all the same."""

        def refuse(_event: Any) -> None:
            raise ValueError("listener")

        other = Listener()
        events = SdamEvents([Listener(refuse), other], TOPOLOGY)
        events.server_opened(A)
        events.server_closed(A)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.assertEqual(other.names, ["ServerOpeningEvent", "ServerClosedEvent"])

    def test_order_with_reaction(self) -> None:
        """An event that a listener causes comes after the one it reacts to, for every listener."""

        def react(event: Any) -> None:
            if isinstance(event, monitoring.ServerOpeningEvent):
                events.server_closed(A)

        first, second = Listener(react), Listener()
        events = SdamEvents([first, second], TOPOLOGY)
        events.server_opened(A)
        self.assertEqual(first.names, ["ServerOpeningEvent", "ServerClosedEvent"])
        self.assertEqual(second.names, first.names)
