"""Tests of the changes that the mutation test makes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.mutations import mutations
from tests.unit.conformance.cases import make_case


class MutationTests(SynchronousTestCase):
    """Which values are changed, and into what."""

    def changes(self, test: dict[str, Any]) -> list[tuple[str, Any, Any]]:
        """The places, old and new values."""
        return [(".".join(map(str, one.path)), one.before, one.after) for one in mutations(make_case(test))]

    def test_result(self) -> None:
        """Each value of a result is changed, in arrays and operators too; the original stays."""
        expected = {"a": [1, "x"], "b": {"$$unsetOrMatches": None}, "c": {"$$type": ["int"]}, "d": {"$$exists": True}}
        test = {"operations": [{"name": "find", "object": "c", "expectResult": expected}]}
        self.assertEqual(
            self.changes(test),
            [
                ("operations.0.expectResult.a.0", 1, 12346),
                ("operations.0.expectResult.a.1", "x", "x-changed"),
                ("operations.0.expectResult.b.$$unsetOrMatches", None, "changed"),
                ("operations.0.expectResult.c.$$type", ["int"], "regex"),
                ("operations.0.expectResult.d.$$exists", True, False),
            ],
        )
        self.assertEqual(expected["a"], [1, "x"])

    def test_empty(self) -> None:
        """Empty documents and arrays get something in them, but for events that merely have to come."""
        events = [{"poolReadyEvent": {}}, {"commandStartedEvent": {"command": {"filter": {}}}}]
        test = {"operations": [], "outcome": [{"documents": []}], "expectEvents": [{"events": events}]}
        self.assertEqual(
            self.changes(test),
            [
                ("expectEvents.0.events.1.commandStartedEvent.command.filter", {}, {"changed": 1}),
                ("outcome.0.documents", [], ["changed"]),
            ],
        )

    def test_nested(self) -> None:
        """Expectations of nested operations are changed."""
        inner = {"name": "find", "object": "c", "expectError": {"isClientError": True, "isError": True}}
        test = {"operations": [{"name": "withTransaction", "object": "s", "arguments": {"callback": [inner]}}]}
        path = "operations.0.arguments.callback.0.expectError.isClientError"
        self.assertEqual(self.changes(test), [(path, True, False)])
        test = {"operations": [{"name": "runOnThread", "object": "testRunner", "arguments": {"operation": inner}}]}
        path = "operations.0.arguments.operation.expectError.isClientError"
        self.assertEqual(self.changes(test), [(path, True, False)])

    def test_arguments(self) -> None:
        """Arguments, and what says where to look, stay as they are."""
        test = {
            "operations": [{"name": "find", "object": "c", "arguments": {"filter": {"a": 1}}}],
            "expectEvents": [{"client": "client0", "eventType": "cmap", "events": []}],
        }
        self.assertEqual([place for place, _, _ in self.changes(test)], ["expectEvents.0.events"])
