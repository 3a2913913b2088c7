"""Prose tests of the retryable writes specification: which error the caller hears of after several.

Number 2 is in ``tests/integration/test_retries.py``; 4 and 5 want a sharded cluster.
"""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from twisted.internet import defer

from tests.integration.prose.events import CommandEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import NotPrimaryError, PyMongoError

OVERLOAD = ["RetryableError", "SystemOverloadedError"]
NOTHING_WRITTEN = "NoWritesPerformed"


class ErrorTests(CollectionTestCase):
    """A first error, and others from the moment on at which the client is told of it."""

    on_replica_set = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        self.events = CommandEvents()
        # Often looked at, as the server itself knows of no change: the errors are made up.
        self.tried: Any = ConnectionPool(
            self.uri, event_listeners=[self.events], retryWrites=True, heartbeatFrequencyMS=500
        )
        self.addCleanup(self.tried.disconnect)
        self.addCleanup(self.fail_point, mode="off")
        await self.tried.admin.command("ping")
        self.changes: list[defer.Deferred[Any]] = []
        self.select = self.tried._topology.select_server

    def fail_point(self, mode: Any, **data: Any) -> defer.Deferred[Any]:
        """Have inserts fail, or no longer."""
        command: dict[str, Any] = {"configureFailPoint": "failCommand", "mode": mode}
        if data:
            command["data"] = {"failCommands": ["insert"], **data}
        return self.client.admin.command(command)

    def then(self, mode: Any, **data: Any) -> Any:
        """A listener that sets another fail point after the first failed insert; the retry waits for that."""

        def listener(event: Any) -> None:
            if event.command_name == "insert" and not self.changes:
                self.changes.append(self.fail_point(mode, **data))
                self.patch(self.tried._topology, "select_server", self.select_after_change)

        return listener

    def select_after_change(self, *arguments: Any, **options: Any) -> defer.Deferred[Any]:
        """A server, when the fail point of the second error is in place."""
        selected: defer.Deferred[Any] = defer.Deferred()

        def changed(result: Any) -> Any:
            self.select(*arguments, **options).chainDeferred(selected)
            return result

        self.changes[0].addBoth(changed)
        return selected

    async def error(self) -> Any:
        """The error that an insert fails with in the end."""
        error = await self.failure(self.tried.txmongo_tests.things.insert_one({}), PyMongoError)
        self.assertEqual(len(self.changes), 1)
        await self.changes[0]
        self.assertGreaterEqual(len(self.events.of(monitoring.CommandStartedEvent, "insert")), 2)
        return error

    async def test_original_error_3(self) -> None:
        """A write concern error that may be retried is what remains if the retry wrote nothing."""
        labels = ["RetryableWriteError", NOTHING_WRITTEN]
        self.events.on_succeeded = self.then({"times": 1}, errorCode=10107, errorLabels=labels)
        await self.fail_point({"times": 1}, errorLabels=["RetryableWriteError"], writeConcernError={"code": 91})
        error = await self.error()
        self.assertEqual((error.details["ok"], error.details["writeConcernError"]["code"]), (1, 91))

    async def test_without_label_6_1(self) -> None:
        """Of errors that may all have written something the last one is heard of."""
        self.events.on_failed = self.then("alwaysOn", errorCode=10107, errorLabels=OVERLOAD)
        await self.fail_point({"times": 1}, errorCode=91, errorLabels=OVERLOAD)
        error = await self.error()
        self.assertIsInstance(error, NotPrimaryError)
        self.assertEqual(error.details["code"], 10107)

    async def test_all_with_label_6_2(self) -> None:
        """Of errors that all wrote nothing the first one is heard of."""
        labels = [*OVERLOAD, NOTHING_WRITTEN]
        self.events.on_failed = self.then("alwaysOn", errorCode=10107, errorLabels=labels)
        await self.fail_point({"times": 1}, errorCode=91, errorLabels=labels)
        self.assertEqual((await self.error()).details["code"], 91)

    async def test_some_with_label_6_3(self) -> None:
        """An error that may have written something is heard of rather than later ones that wrote nothing."""
        self.events.on_failed = self.then("alwaysOn", errorCode=91, errorLabels=[*OVERLOAD, NOTHING_WRITTEN])
        await self.fail_point({"times": 1}, errorCode=91, errorLabels=OVERLOAD)
        error = await self.error()
        self.assertEqual(error.details["code"], 91)
        self.assertFalse(error.has_error_label(NOTHING_WRITTEN))
