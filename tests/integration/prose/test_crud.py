"""Prose tests of the CRUD specification: what the server says of an error is kept, and a plan may be limited in time.

16 is in ``tests/unit/prose/test_crud.py``; the others want MongoDB 8.0 and are in ``tests/unit/test_client_bulk.py``.
"""

from __future__ import annotations

from typing import Any

from pymongo import monitoring

from tests.integration.prose.events import CommandEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import WriteConcernError, WriteError


class ErrorInfoTests(CollectionTestCase):
    """``errInfo``."""

    async def test_write_concern_error_1(self) -> None:
        """``writeConcernError.errInfo`` is in the error's details as the server sent it."""
        info = {"writeConcern": {"w": 2, "wtimeout": 0, "provenance": "clientSupplied"}}
        error = {"code": 100, "codeName": "UnsatisfiableWriteConcern", "errmsg": "Not enough data-bearing nodes"}
        await self.fail_command("insert", writeConcernError={**error, "errInfo": info})
        raised = await self.failure(self.things.insert_one({}), WriteConcernError)
        self.assertEqual((raised.code, raised.details["errInfo"]), (100, info))

    async def test_write_error_2(self) -> None:
        """``writeErrors[].errInfo`` is in the error's details as it is in the command's reply."""
        events = CommandEvents()
        client: Any = ConnectionPool(self.uri, event_listeners=[events])
        self.addCleanup(client.disconnect)
        await client.txmongo_tests.create_collection("things", validator={"x": {"$type": "string"}})
        raised = await self.failure(client.txmongo_tests.things.insert_one({"x": 1}), WriteError)
        self.assertEqual(raised.code, 121)
        [event] = events.of(monitoring.CommandSucceededEvent, "insert")
        self.assertEqual(raised.details["errInfo"], event.reply["writeErrors"][0]["errInfo"])
        self.assertIn("failingDocumentId", raised.details["errInfo"])


class ExplainTests(CollectionTestCase):
    """``explain``."""

    async def test_max_time_14(self) -> None:
        """A time limit is one of the explaining, not of what is explained."""
        await self.things.insert_one({"name": "john doe"})
        self.commands.sent.clear()
        plan = await self.things.find({"name": "john doe"}).max_time_ms(2000).explain()
        self.assertIn("queryPlanner", plan)
        [command] = self.commands.sent
        self.assertEqual(command["maxTimeMS"], 2000)
        self.assertNotIn("maxTimeMS", command["explain"])
