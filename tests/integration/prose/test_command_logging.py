"""Prose tests of the command logging specification: how long a logged document is.

3, about characters of several bytes, is in ``tests/unit/test_logs.py``.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, globalLogPublisher

from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import OperationFailure

ELLIPSIS = 3


class TruncationTests(CollectionTestCase):
    """Documents are cut."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        """Keep the messages about commands."""
        if event.get("mongodb_component") == "command":
            self.events.append(event)

    def connect(self, **options: Any) -> Any:
        """A client that logs its commands."""
        client: Any = ConnectionPool(self.uri, log_levels={"command": "debug"}, **options)
        self.addCleanup(client.disconnect)
        return client

    def logged(self, message: str, field: str) -> str:
        """A field of the newest message of this kind."""
        found = [event[field] for event in self.events if event["mongodb_message"] == message]
        return str(found[-1])

    async def test_default_1(self) -> None:
        """A document is cut after 1000 characters."""
        things = self.connect().txmongo_tests.things
        await things.insert_many([{"x": "y"} for _ in range(100)])
        self.assertEqual(len(self.logged("Command started", "command")), 1000 + ELLIPSIS)
        self.assertLessEqual(len(self.logged("Command succeeded", "reply")), 1000 + ELLIPSIS)
        await things.find()
        self.assertEqual(len(self.logged("Command succeeded", "reply")), 1000 + ELLIPSIS)

    async def test_configured_2(self) -> None:
        """It is cut after as many characters as are wished, errors of the server too."""
        admin = self.connect(log_max_document_length=5).admin
        await admin.command({"hello": True})
        self.assertEqual(len(self.logged("Command started", "command")), 5 + ELLIPSIS)
        self.assertEqual(len(self.logged("Command succeeded", "reply")), 5 + ELLIPSIS)
        await self.failure(admin.command({"notARealCommand": True}), OperationFailure)
        self.assertEqual(len(self.logged("Command failed", "failure")), 5 + ELLIPSIS)
