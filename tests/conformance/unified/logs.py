"""Collects a client's structured log messages and compares them with expected ones.

The driver's messages are events of :mod:`twisted.logger`. A message of the MongoDB logging specification carries its
component in ``mongodb_component``, its fields under their own names and the id of its topology in ``topologyId``, by
which a client's messages are told from another's. Its ``message`` is taken from ``mongodb_message``: observers of
:mod:`twisted.python.log`, of which trial is one, overwrite the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from bson.objectid import ObjectId
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import Matcher

__all__ = ["LogCollector", "LogMessage", "client_options", "match_messages", "message_from_event"]

#: From the most to the least severe.
LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug", "trace")
COMPONENTS = ("command", "connection", "serverSelection", "topology", "client")
#: Components that the driver has nothing to say of yet.
SILENT = ("client",)
#: No document that a case looks into may be cut.
DOCUMENT_LENGTH = 10_000
TWISTED_LEVELS = {
    LogLevel.critical: "critical",
    LogLevel.error: "error",
    LogLevel.warn: "warning",
    LogLevel.info: "info",
    LogLevel.debug: "debug",
}
#: What stands in the place of an error that was taken out.
REDACTED = "{}"
#: Keys of an event that are Twisted's or the driver's own: these, and what begins with "log_" or "mongodb_".
OTHER_KEYS = frozenset({"format", "isError", "message", "system", "time"})
#: The specification has this message at "info"; PyMongo, whose copy of the cases is read, lowered it. Either may be
#: expected of a message at "info".
LOWERED = "Waiting for suitable server to become available"


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
    own = {key: value for key, value in event.items() if key not in OTHER_KEYS and not _is_foreign(key)}
    return LogMessage(level, component, {**own, "message": event["mongodb_message"]}, ObjectId(event["topologyId"]))


def _is_foreign(key: str) -> bool:
    return key.startswith(("log_", "mongodb_"))


def client_options(levels: Mapping[str, str]) -> dict[str, Any]:
    """The options of a client that is to write what ``observeLogMessages`` asks for."""
    names = {"warning": "warn"}
    wanted = {name: names.get(level, level) for name, level in levels.items() if name not in SILENT}
    return {"log_levels": wanted, "log_max_document_length": DOCUMENT_LENGTH}


@implementer(ILogObserver)
class LogCollector:
    """Collects the messages of one client; an observer of :mod:`twisted.logger`.

    :param levels: for each component to be observed the least severe level.
    :param is_ours: whether a topology id is the client's; asked late, as the first message comes before that is known.
    """

    def __init__(self, levels: Mapping[str, str], is_ours: Callable[[Any], bool]) -> None:
        unknown = (set(levels) - set(COMPONENTS)) | (set(levels.values()) - set(LEVELS))
        if unknown:
            raise FormatError(f"unknown log components or levels: {', '.join(sorted(unknown))}")
        self._levels = levels
        self._is_ours = is_ours
        self._heard: list[LogMessage] = []

    @property
    def messages(self) -> list[LogMessage]:
        """The client's messages until now, in order."""
        return [message for message in self._heard if self._is_ours(message.topology_id)]

    def forget(self) -> None:
        """Drop what was collected."""
        self._heard.clear()

    def __call__(self, event: LogEvent) -> None:
        message = message_from_event(event)
        if message is None or message.component not in self._levels:
            return
        if LEVELS.index(message.level) <= LEVELS.index(self._levels[message.component]):
            self._heard.append(message)


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
        if field in expected and expected[field] not in _allowed(field, message):
            raise Mismatch(f"{path}: {field} is {getattr(message, field)}, expected {expected[field]}")
    if "failureIsRedacted" in expected:
        _match_redaction(expected["failureIsRedacted"], message, path)
    matcher.match(expected["data"], message.data, f"{path} data", root=True)


def _allowed(field: str, message: LogMessage) -> tuple[str, ...]:
    """What a case may say that a field of a message is."""
    value: str = getattr(message, field)
    if field == "level" and value == "info" and message.data.get("message") == LOWERED:
        return (value, "debug")
    return (value,)


def _match_redaction(redacted: bool, message: LogMessage, path: str) -> None:
    failure = message.data.get("failure")
    if not failure:
        raise Mismatch(f"{path}: no failure in {message.data!r}")
    without_text = REDACTED in str(failure) or "errmsg" not in str(failure)
    if redacted != without_text:
        raise Mismatch(f"{path}: failure is {failure!r}, expected it {'' if redacted else 'not '}to be redacted")
