"""Time limits on real servers: ``timeoutMS`` at every level, and TxMongo's ``timeout=`` and ``deadline=``.

Kept: the prose tests of the client side operations timeout specification, by their numbers. Left out: 2 and 3 (client
side encryption), 4 (background pooling), 6 and 7 (GridFS), 11 (MongoDB 8.0).
"""

from __future__ import annotations

from typing import Any

from pymongo import CursorType
from twisted.internet import reactor

from tests.integration.servers import CollectionTestCase
from txmongo.errors import PyMongoError


class CsotCase(CollectionTestCase):
    """Clients of all kinds, and commands that the server holds up."""

    async def hold_up(self, *names: str, ms: int, times: Any = 1, **data: Any) -> None:
        """Have the server answer commands late."""
        mode = "alwaysOn" if times == "alwaysOn" else {"times": times}
        await self.fail_point({"failCommands": list(names), "blockConnection": True, "blockTimeMS": ms, **data}, mode)

    async def fail_point(self, data: dict[str, Any], mode: Any) -> None:
        """Set a fail point, which ends with the test."""
        admin = self.client.admin
        await admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        self.addCleanup(lambda: admin.command("configureFailPoint", "failCommand", mode="off"))

    async def timed_out(self, waiting: Any) -> tuple[PyMongoError, float]:
        """The timeout by which something ends, and after how many seconds."""
        began = reactor.seconds()
        try:
            result = await waiting
        except PyMongoError as error:
            self.assertTrue(error.timeout, repr(error))
            return error, reactor.seconds() - began
        self.fail(f"no timeout: {result!r}")


class CursorTests(CsotCase):
    async def test_close_after_timeout(self) -> None:
        """A cursor whose time is over is killed all the same."""
        await self.things.insert_many([{"_id": number} for number in range(3)])
        await self.hold_up("getMore", ms=250)
        cursor = self.things.find(batch_size=2, timeout_ms=200)
        self.assertEqual(len(await cursor.next_batch()), 2)
        error, waited = await self.timed_out(cursor.next_batch())
        print(repr(error), waited, cursor._killing, self.commands.names(), cursor._state, cursor._cursor_id)
        self.commands.sent.clear()
        began=reactor.seconds()
        await cursor.close()
        print(reactor.seconds()-began, self.commands.sent)
