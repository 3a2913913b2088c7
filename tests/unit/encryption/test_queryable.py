"""Collections with encrypted fields, on a scripted server of a version that has them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._encryption.queryable import created
from txmongo._ops.admin import CreateEncrypted
from txmongo.errors import ConfigurationError


class CreateTests(SynchronousTestCase):
    """What is sent to create one."""

    def create(self, max_wire_version: int, fields: dict[str, Any]) -> Deferred[Any]:
        """Create a collection on a server of some version, and keep the commands."""
        description = StreamDescription.from_hello({"maxWireVersion": max_wire_version})
        self.commands: list[dict[str, Any]] = []

        async def execute(operation: Any) -> dict[str, Any]:
            self.commands.append(operation.build(description))
            return {"ok": 1, "number": len(self.commands)}

        operation = CreateEncrypted("shop", "cards", {"encryptedFields": fields, "capped": False})
        return Deferred.fromCoroutine(created(lambda op: Deferred.fromCoroutine(execute(op)), operation))

    def test_commands(self) -> None:
        """The collections for the state come first, clustered, then the collection itself, then its index."""
        fields = {"fields": [], "ecocCollection": "own"}
        reply = self.successResultOf(self.create(21, fields))
        clustered = {"clusteredIndex": {"key": {"_id": 1}, "unique": True}}
        self.assertEqual(
            self.commands,
            [
                {"create": "enxcol_.cards.esc", **clustered},
                {"create": "own", **clustered},
                {"create": "cards", "encryptedFields": fields, "capped": False},
                {
                    "createIndexes": "cards",
                    "indexes": [{"name": "__safeContent___1", "key": {"__safeContent__": 1}}],
                },
            ],
        )
        self.assertEqual(reply["number"], 3)

    def test_too_old(self) -> None:
        """A server before 7.0 is sent nothing."""
        error = self.failureResultOf(self.create(20, {"fields": []}), ConfigurationError).value
        self.assertIn("MongoDB 7.0", str(error))
        self.assertEqual(self.commands, [])
