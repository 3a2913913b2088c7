"""Tests of what listeners are told of commands, and what they are not."""

from __future__ import annotations

from typing import Any, ClassVar

from bson.objectid import ObjectId
from pymongo import monitoring
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.logged import LoggedTestCase
from txmongo._cmap.description import StreamDescription
from txmongo._ops.command_events import CommandEvents, SentCommand
from txmongo.errors import AutoReconnect, OperationFailure

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

    def test_refusal(self) -> None:
        """Of the server's error to a sensitive command only the code and labels are shown; of other errors all."""
        refused = OperationFailure("secret", 18, {"ok": 0, "errmsg": "secret", "code": 18, "codeName": "No", "x": 1})
        self.assertEqual(self.failure({"saslStart": 1}, refused), {"code": 18, "codeName": "No"})
        self.assertEqual(self.failure({"find": "c"}, refused), refused.details)
        lost = {"errmsg": "gone", "errtype": "AutoReconnect"}
        self.assertEqual(self.failure({"saslStart": 1}, AutoReconnect("gone")), lost)

    def failure(self, command: dict[str, Any], error: Exception) -> Any:
        """The failure in the event of a command that failed."""
        listener = Listener()
        events = CommandEvents([listener], lambda: 0.0)
        sent = SentCommand(next(iter(command)), "d", 1, 1, ("h", 27017), StreamDescription.from_hello(HELLO), 0.0)
        events.started(sent, command)
        events.failed(sent, error)
        return listener.heard[-1].failure


class LogTests(LoggedTestCase):
    """Messages of the component "command"."""

    common: ClassVar = {
        "commandName": "find",
        "databaseName": "d",
        "requestId": 5,
        "operationId": 6,
        "driverConnectionId": 7,
        "serverConnectionId": 8,
        "serverHost": "h",
        "serverPort": 27017,
    }

    def begin(self, command: dict[str, Any], **fields: Any) -> tuple[CommandEvents, SentCommand]:
        """A command that was sent a quarter of a second ago."""
        description = StreamDescription.from_hello({**HELLO, "connectionId": 8, **fields})
        sent = SentCommand(next(iter(command)), "d", 5, 6, ("h", 27017), description, 1.0, connection_id=7)
        events = CommandEvents([], lambda: 1.25, self.log("command"))
        events.started(sent, command)
        return events, sent

    def test_success(self) -> None:
        """A command and its reply are shown, with all that says where it went."""
        events, sent = self.begin({"find": "c"})
        events.succeeded(sent, {"ok": 1.0})
        started, succeeded = self.sentences()
        self.assertEqual(
            started,
            'Command "find" started on database "d" using a connection with driver-generated ID 7 and server-generated '
            'ID 8 to h:27017. The requestID is 5 and the operation ID is 6. Command: {"find": "c"}',
        )
        self.assertIn('succeeded on database "d" in 250.0 ms using', succeeded)
        self.assertEqual(
            self.taken(),
            [
                {**self.common, "mongodb_message": "Command started", "command": '{"find": "c"}'},
                {
                    **self.common,
                    "mongodb_message": "Command succeeded",
                    "durationMS": 250.0,
                    "reply": '{"ok": 1.0}',
                },
            ],
        )

    def test_failure(self) -> None:
        """Of a command that failed the error is shown."""
        events, sent = self.begin({"find": "c"})
        events.failed(sent, AutoReconnect("gone"))
        failed = self.taken()[-1]
        self.assertEqual(failed["failure"], '{"errmsg": "gone", "errtype": "AutoReconnect"}')
        self.assertEqual((failed["mongodb_message"], failed["durationMS"]), ("Command failed", 250.0))

    def test_service(self) -> None:
        """Behind a load balancer the service is named."""
        service = ObjectId()
        self.begin({"find": "c"}, serviceId=service)
        self.assertEqual(self.taken()[0].get("serviceId"), str(service))

    def test_secrets(self) -> None:
        """Nothing of a sensitive command is shown."""
        events, sent = self.begin({"saslStart": 1, "payload": b"secret"})
        events.succeeded(sent, {"ok": 1, "payload": b"secret"})
        started, succeeded = self.taken()
        self.assertEqual((started["command"], succeeded["reply"]), ("{}", "{}"))
