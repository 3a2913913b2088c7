"""Prose tests of the client backpressure specification: how often an overloaded server is asked again.

1 and 5 are in ``tests/unit/prose/test_client_backpressure.py``; there is no 2 any more.
"""

from __future__ import annotations

from typing import Any

from tests.integration.prose.events import CommandEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import OperationFailure

OVERLOADED = {"errorCode": 462, "errorLabels": ["SystemOverloadedError", "RetryableError"]}


class MostRetriesTests(CollectionTestCase):
    """A server that is overloaded for good."""

    on_replica_set = True

    async def commands_until_failure(self, **options: Any) -> int:
        """How often a read is sent; its error has the labels."""
        events = CommandEvents()
        client: Any = ConnectionPool(self.uri, event_listeners=[events], **options)
        self.addCleanup(client.disconnect)
        fail_point = {"configureFailPoint": "failCommand"}
        self.addCleanup(self.client.admin.command, {**fail_point, "mode": "off"})
        data = {"failCommands": ["find"], **OVERLOADED}
        await self.client.admin.command({**fail_point, "mode": "alwaysOn", "data": data})
        error = await self.failure(client.txmongo_tests.things.find_one({}), OperationFailure)
        self.assertEqual(error.code, 462)
        for label in ("RetryableError", "SystemOverloadedError"):
            self.assertTrue(error.has_error_label(label))
        return len(events.started_commands("find"))

    async def test_most_retries_3(self) -> None:
        """It is asked twice more."""
        self.assertEqual(await self.commands_until_failure(), 3)

    async def test_option_4(self) -> None:
        """It is asked as often more as ``maxAdaptiveRetries`` says."""
        self.assertEqual(await self.commands_until_failure(maxAdaptiveRetries=1), 2)
