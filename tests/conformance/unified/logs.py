"""Collects a client's structured log messages and compares them with expected ones.

The driver's messages are events of :mod:`twisted.logger`. A message of the MongoDB logging specification carries its
component in ``mongodb_component``, its fields in ``mongodb_data`` and the id of its topology in ``topology_id``, by
which a client's messages are told from another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import Matcher

__all__ = ["LogCollector", "LogMessage", "match_messages", "message_from_event"]

#: From the most to the least severe.
LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug", "trace")
COMPONENTS = ("command", "connection", "serverSelection", "topology", "client")
TWISTED_LEVELS = {
    LogLevel.critical: "critical",
    LogLevel.error: "error",
    LogLevel.warn: "warning",
    LogLevel.info: "info",
    LogLevel.debug: "debug",
}
#: What stands in the place of an error that was taken out.
REDACTED = "{}"


@attrs.frozen
class LogMessage:
    """One structured message."""

    level: str
    component: str
    data: Mapping[str, Any]
    topology_id: Any = None


def message_from_event(event: LogEvent) -> LogMessage | None:
    """The structured message that a log event is, if it is one of the driver's."""
    component = event.get("mongodb_component")
    if component not in COMPONENTS:
        return None
    level = TWISTED_LEVELS[event["log_level"]]
    return LogMessage(level, component, event.get("mongodb_data", {}), event.get("topology_id"))


@implementer(ILogObserver)
class LogCollector:
    """Collects the messages of one client; an observer of :mod:`twisted.logger`.

    :param levels: for each component to be observed the least severe level.
    :param is_ours: whether a topology id is the client's.
    """

    def __init__(self, levels: Mapping[str, str], is_ours: Callable[[Any], bool]) -> None:
        unknown = (set(levels) - set(COMPONENTS)) | (set(levels.values()) - set(LEVELS))
        if unknown:
            raise FormatError(f"unknown log components or levels: {', '.join(sorted(unknown))}")
        self._levels = levels
        self._is_ours = is_ours
        self.messages: list[LogMessage] = []

    def __call__(self, event: LogEvent) -> None:
        message = message_from_event(event)
        if message is None or message.component not in self._levels or not self._is_ours(message.topology_id):
            return
        if LEVELS.index(message.level) <= LEVELS.index(self._levels[message.component]):
            self.messages.append(message)


def match_messages(matcher: Matcher, expected: Mapping[str, Any], messages: list[LogMessage]) -> None:
    """Compare a client's messages with ``expectLogMessages``' entry for it.

    :raises Mismatch: they differ.
    """
    ignored = expected.get("ignoreMessages", [])
    actual = [message for message in messages if not any(_matches(matcher, one, message) for one in ignored)]
    wanted = expected["messages"]
    path = f"{expected['client']} log message"
    if len(actual) < len(wanted) or (len(actual) > len(wanted) and not expected.get("ignoreExtraMessages")):
        raise Mismatch(f"{path}s: {len(actual)}, expected {len(wanted)}: {actual!r}")
    for index, one in enumerate(wanted):
        _match_message(matcher, one, actual[index], f"{path} {index}")


def _matches(matcher: Matcher, expected: Mapping[str, Any], message: LogMessage) -> bool:
    try:
        _match_message(matcher, expected, message, "log message")
    except Mismatch:
        return False
    return True


def _match_message(matcher: Matcher, expected: Mapping[str, Any], message: LogMessage, path: str) -> None:
    unknown = set(expected) - {"level", "component", "data", "failureIsRedacted"}
    if unknown:
        raise FormatError(f"{path}: no field {', '.join(sorted(unknown))}")
    for field in ("level", "component"):
        if field in expected and expected[field] != getattr(message, field):
            raise Mismatch(f"{path}: {field} is {getattr(message, field)}, expected {expected[field]}")
    if "failureIsRedacted" in expected:
        _match_redaction(expected["failureIsRedacted"], message, path)
    matcher.match(expected["data"], message.data, f"{path} data", root=True)


def _match_redaction(redacted: bool, message: LogMessage, path: str) -> None:
    failure = message.data.get("failure")
    if not failure:
        raise Mismatch(f"{path}: no failure in {message.data!r}")
    without_text = REDACTED in str(failure) or "errmsg" not in str(failure)
    if redacted != without_text:
        raise Mismatch(f"{path}: failure is {failure!r}, expected it {'' if redacted else 'not '}to be redacted")
