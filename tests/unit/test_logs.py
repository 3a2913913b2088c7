"""Tests of what switches log messages on, and of how they show things."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from bson.binary import Binary
from bson.objectid import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.logged import TOPOLOGY, LoggedTestCase
from txmongo._logs import LogSettings, Template, address_fields, document_text, log_settings
from txmongo._settings import parse_settings

COMPONENTS = ("command", "topology", "serverSelection", "connection")


def shown(settings: LogSettings) -> list[str]:
    """The components that say anything."""
    return [component for component in COMPONENTS if settings.shows(component)]


class SwitchTests(SynchronousTestCase):
    """Options and environment variables."""

    def test_default(self) -> None:
        """Nothing is logged, and there is nothing that could log."""
        found = log_settings(parse_settings().options, {})
        self.assertEqual(found, LogSettings())
        self.assertEqual([found.log(component, TOPOLOGY) for component in COMPONENTS], [None] * 4)

    def test_variables(self) -> None:
        """Each component has a variable; its value may be written in any case."""
        for component, name in zip(COMPONENTS, ("COMMAND", "TOPOLOGY", "SERVER_SELECTION", "CONNECTION"), strict=True):
            self.assertEqual(shown(log_settings({}, {f"MONGODB_LOG_{name}": "Debug"})), [component])

    def test_variable_for_all(self) -> None:
        """MONGODB_LOG_ALL stands for those that are not set."""
        self.assertEqual(shown(log_settings({}, {"MONGODB_LOG_ALL": "trace"})), list(COMPONENTS))
        some = {"MONGODB_LOG_ALL": "debug", "MONGODB_LOG_COMMAND": "off", "MONGODB_LOG_TOPOLOGY": "error"}
        self.assertEqual(shown(log_settings({}, some)), ["serverSelection", "connection"])

    def test_info(self) -> None:
        """At info only the selection of servers has something to say, and no debug messages."""
        found = log_settings({}, {"MONGODB_LOG_ALL": "info"})
        self.assertEqual(shown(found), ["serverSelection"])
        log = found.log("serverSelection", TOPOLOGY)
        assert log is not None
        self.assertFalse(log.debugs)

    def test_wrong_variables(self) -> None:
        """A variable that cannot be understood counts as not set."""
        wrong = {"MONGODB_LOG_COMMAND": "loud", "MONGODB_LOG_ALL": "", "MONGODB_LOG_MAX_DOCUMENT_LENGTH": "long"}
        self.assertEqual(log_settings({}, wrong), LogSettings())
        self.assertEqual(log_settings({}, {"MONGODB_LOG_MAX_DOCUMENT_LENGTH": "-1"}), LogSettings())

    def test_options_win(self) -> None:
        """An option is stronger than the variable, for the component or for all."""
        loud = {"MONGODB_LOG_ALL": "debug", "MONGODB_LOG_COMMAND": "debug", "MONGODB_LOG_MAX_DOCUMENT_LENGTH": "5"}
        self.assertEqual(shown(log_settings(parse_settings(log_levels={"all": "off"}).options, loud)), [])
        quieter = log_settings(parse_settings(log_levels={"command": "off"}).options, loud)
        self.assertEqual(shown(quieter), list(COMPONENTS[1:]))
        self.assertEqual(quieter.max_document_length, 5)
        self.assertEqual(log_settings({"log_max_document_length": 7}, loud).max_document_length, 7)

    def test_options(self) -> None:
        """Levels are names or Twisted's; components that are not named follow "all"."""
        found = parse_settings(log_levels={"command": LogLevel.debug, "topology": "DEBUG"}).logs
        self.assertEqual(shown(found), ["command", "topology"])
        found = parse_settings(log_levels={"all": "debug", "topology": LogLevel.warn}).logs
        self.assertEqual(shown(found), ["command", "serverSelection", "connection"])

    def test_wrong_options(self) -> None:
        """A wrong option is refused when the client is made."""
        for levels in ("debug", {"command": 7}):
            self.assertRaises(TypeError, parse_settings, log_levels=levels)
        for levels in ({"commands": "debug"}, {"command": "loud"}):
            self.assertRaises(ValueError, parse_settings, log_levels=levels)
        self.assertRaises(TypeError, parse_settings, log_max_document_length="10")
        self.assertRaises(TypeError, parse_settings, log_max_document_length=True)
        self.assertRaises(ValueError, parse_settings, log_max_document_length=-1)

    def test_not_given(self) -> None:
        """None stands for the default."""
        options = parse_settings(log_levels=None, log_max_document_length=None).options
        self.assertEqual(log_settings(options, {}), LogSettings())


class Endless(Mapping[str, Any]):
    """A document that must not be read to its end."""

    def __getitem__(self, key: str) -> Any:
        return 1

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[str]:
        for number in range(10_000):
            yield f"key{number}"
        raise AssertionError("too much was read")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary() | st.builds(ObjectId),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class DocumentTests(SynchronousTestCase):
    """Documents in messages."""

    def test_relaxed(self) -> None:
        """Documents are relaxed extended JSON."""
        when = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)
        text = document_text({"a": 1, "b": 2.5, "when": when, "name": "Zoë"}, 1000)
        self.assertEqual(text, '{"a": 1, "b": 2.5, "when": {"$date": "2024-01-02T00:00:00Z"}, "name": "Zoë"}')

    def test_limit(self) -> None:
        """What is longer than the limit is cut there, and an ellipsis follows that does not count."""
        text = document_text({"a": "x" * 2000}, 1000)
        self.assertEqual(len(text), 1003)
        self.assertTrue(text.endswith("x..."))
        whole = document_text({"a": "xyz"}, 1000)
        self.assertEqual(document_text({"a": "xyz"}, len(whole)), whole)
        self.assertEqual(document_text({"a": "xyz"}, len(whole) - 1), whole[:-1] + "...")
        self.assertEqual(document_text({"a": 1}, 0), "...")

    def test_characters(self) -> None:
        """The limit counts characters: none is torn apart."""
        self.assertEqual(document_text({"a": "𝄞" * 100}, 10), '{"a": "𝄞𝄞𝄞...')

    def test_no_more_than_needed(self) -> None:
        """Of a long document only the beginning is looked at."""
        self.assertEqual(len(document_text(Endless(), 1000)), 1003)
        self.assertEqual(len(document_text({"a": Endless(), "b": [1] * 10**6}, 500)), 503)

    def test_bytes(self) -> None:
        """Long binary values are cut before they are converted; a UUID is not."""
        for value in (b"\0" * 10**6, Binary(b"\0" * 10**6, 128)):
            self.assertTrue(document_text({"a": value}, 50).startswith('{"a": {"$binary": {"base64": "AAAA'))
        for uuid in (UUID(int=5), Binary.from_uuid(UUID(int=5))):
            self.assertIn("AAAAAAAAAAAAAAAAAAAABQ==", document_text({"a": uuid}, 60))

    def test_strange_values(self) -> None:
        """What extended JSON does not know is shown by its repr; what cannot be shown does no harm."""

        class Strange:
            def __repr__(self) -> str:
                return "<strange>"

        class Broken:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        self.assertEqual(document_text({"a": Strange()}, 100), '{"a": "<strange>"}')
        self.assertEqual(document_text({"a": Broken()}, 100), "<a document that cannot be shown: ZeroDivisionError>")

    @settings(max_examples=50)
    @given(document=st.dictionaries(st.text(), VALUES), limit=st.integers(0, 200))
    def test_beginning(self, document: dict[str, Any], limit: int) -> None:
        """What is shown of a document is the beginning of the whole."""
        whole = document_text(document, 10**9)
        json.loads(whole)
        expected = whole if len(whole) <= limit else whole[:limit] + "..."
        self.assertEqual(document_text(document, limit), expected)


class MessageTests(LoggedTestCase):
    """The events of twisted.logger."""

    template = Template("It happened", "It happened", " to {serverHost}", ":{serverPort}", " for {why}", ". Yes")

    def test_event(self) -> None:
        """An event has the fields as keys, its component as namespace, and the client's topology."""
        self.log("command").debug(self.template, {**address_fields(("h", 1)), "why": "x"})
        (event,) = self.events
        self.assertEqual((event["log_namespace"], event["log_level"]), ("txmongo.command", LogLevel.debug))
        self.assertEqual((event["mongodb_component"], event["mongodb_message"]), ("command", "It happened"))
        self.assertEqual((event["serverHost"], event["serverPort"], event["why"]), ("h", 1, "x"))
        self.assertEqual(event["topologyId"], str(TOPOLOGY))
        self.assertEqual(self.sentences(), ["It happened to h:1 for x. Yes"])

    def test_missing_fields(self) -> None:
        """A field that is not there is missing, from the event and from the sentence."""
        self.log("command").debug(self.template, {**address_fields(("/s.sock", None)), "why": None})
        self.assertNotIn("serverPort", self.events[0])
        self.assertNotIn("why", self.events[0])
        self.assertEqual(self.sentences(), ["It happened to /s.sock. Yes"])

    def test_levels(self) -> None:
        """Where info is wanted, debug messages are not written."""
        log = self.log("serverSelection", level=7)
        log.debug(self.template, {})
        log.info(self.template, {})
        self.assertEqual([event["log_level"] for event in self.events], [LogLevel.info])

    def test_errors(self) -> None:
        """An error is its type and text, cut like a document."""
        log = self.log("command", length=12)
        self.assertEqual(log.error(ValueError("")), "ValueError")
        self.assertEqual(log.error(ValueError("long text")), "ValueError: ...")
        self.assertEqual(log.error(KeyError()), "KeyError")

    def test_braces(self) -> None:
        """Braces in a value are no format."""
        self.log("command").debug(self.template, {"why": "{serverHost}"})
        self.assertEqual(self.sentences(), ["It happened for {serverHost}. Yes"])
