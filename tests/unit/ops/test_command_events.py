"""Tests of what listeners are told of commands, and what they are not."""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._ops.command_events import CommandEvents, SentCommand

HELLO = {"ok": 1, "isWritablePrimary": True, "maxWireVersion": 17}


class Listener(monitoring.CommandListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.heard.append(event)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.heard.append(event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.heard.append(event)


class RedactionTests(SynchronousTestCase):
    """Secrets in events."""

    def tell(self, command: dict[str, Any], reply: dict[str, Any]) -> tuple[Any, Any]:
        """The documents of the two events of a command that succeeded."""
        listener = Listener()
        events = CommandEvents([listener], lambda: 0.0)
        name = next(iter(command))
        sent = SentCommand(name, "admin", 1, 1, ("h", 27017), StreamDescription.from_hello(HELLO), 0.0)
        events.started(sent, command)
        events.succeeded(sent, reply)
        started, succeeded = listener.heard
        return started.command, succeeded.reply

    def test_greeting_with_credentials(self) -> None:
        """A greeting that authenticates shows neither itself nor its reply, whatever the reply holds."""
        for name in ("hello", "isMaster", "ismaster"):
            shown = self.tell({name: 1, "speculativeAuthenticate": {"saslStart": 1}}, HELLO)
            self.assertEqual(shown, ({}, {}))

    def test_greeting_without_credentials(self) -> None:
        """Any other greeting is shown."""
        self.assertEqual(self.tell({"hello": 1}, HELLO), ({"hello": 1}, HELLO))

    def test_authentication(self) -> None:
        """Commands of authentication show nothing."""
        self.assertEqual(self.tell({"saslStart": 1, "payload": b"secret"}, {"ok": 1, "payload": b"secret"}), ({}, {}))
