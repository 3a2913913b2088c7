"""Collects what the driver writes to the log, for tests."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txmongo._logs import ComponentLog, log_settings

__all__ = ["TOPOLOGY", "LoggedTestCase"]

TOPOLOGY = ObjectId("000000000000000000000001")


class LoggedTestCase(SynchronousTestCase):
    """A test that reads the log.

    :ivar events: the structured messages.
    """

    def setUp(self) -> None:
        """Begin to collect."""
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: LogEvent) -> None:
        if "mongodb_component" in event:
            self.events.append(event)

    def log(self, component: str, level: int = 8, length: int = 1000) -> ComponentLog:
        """A component's log; level 7 is that of informational messages, 8 of debug messages."""
        options = {"log_levels": {component: level}, "log_max_document_length": length}
        log = log_settings(options, {}).log(component, TOPOLOGY)
        assert log is not None
        return log

    def taken(self) -> list[dict[str, Any]]:
        """The specification's fields of the messages since the last call."""
        events, self.events = self.events, []
        return [{name: event[name] for name in event if name[0].islower() and not self._own(name)} for event in events]

    def _own(self, name: str) -> bool:
        others = ("message", "topologyId", "format", "time", "isError", "system")
        return name.startswith("log_") or name in others or name == "mongodb_component"

    def sentences(self) -> list[str]:
        """The messages as people read them."""
        return [formatEvent(event) for event in self.events]
