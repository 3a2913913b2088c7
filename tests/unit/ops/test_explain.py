"""explain: the command, and what comes of its reply. No I/O."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import ADDRESS, CONTEXT, sent
from txmongo._ops.base import RetryKind
from txmongo._ops.explain import Explain, ExplainFind, Explanation, explain_command


class CommandTests(SynchronousTestCase):
    """The command for a find."""

    def test_fields(self) -> None:
        """The whole find is explained; how much is told is the server's to choose if nobody said it."""
        command = explain_command("things", {"filter": {"x": 1}, "limit": 5}, None)
        self.assertEqual(command, {"explain": {"find": "things", "filter": {"x": 1}, "limit": 5}})
        self.assertEqual(next(iter(command["explain"])), "find")
        self.assertEqual(
            explain_command("things", {}, "queryPlanner"), {"explain": {"find": "things"}, "verbosity": "queryPlanner"}
        )

    def test_time(self) -> None:
        """A limit of the server's time is one of the explaining; the fields that were given stay as they are."""
        fields = {"filter": {}, "maxTimeMS": 50}
        self.assertEqual(
            explain_command("things", fields, None), {"explain": {"find": "things", "filter": {}}, "maxTimeMS": 50}
        )
        self.assertEqual(fields, {"filter": {}, "maxTimeMS": 50})


class OperationTests(SynchronousTestCase):
    """The operations."""

    def test_retry(self) -> None:
        """An explanation is a read, and so may be retried."""
        for kind in (Explain, ExplainFind):
            self.assertIs(kind("test", {"explain": {}}).retry, RetryKind.READ)

    def test_sent(self) -> None:
        """The command is sent as it is, and not changed."""
        command = explain_command("things", {"filter": {"x": 1}}, "executionStats")
        for kind in (Explain, ExplainFind):
            operation = kind("test", command)
            self.assertEqual(operation.name, "explain")
            self.assertEqual(sent(operation), command)
        self.assertEqual(list(command), ["explain", "verbosity"])

    def test_plan(self) -> None:
        """The plan is the reply, or the only document of the only batch."""
        reply: dict[str, Any] = {"queryPlanner": {}, "ok": 1.0}
        self.assertIs(Explain("test", {"explain": {}}).parse(reply, CONTEXT), reply)
        batch = ExplainFind("test", {"explain": {}}).parse(reply, CONTEXT)
        self.assertEqual((batch.documents, batch.cursor_id, batch.address), ([reply], 0, ADDRESS))


class ExplanationTests(SynchronousTestCase):
    """The plan as users get it."""

    def test_item(self) -> None:
        """Item 0 is the plan; otherwise it is a dict, and 0 is no key of it."""
        plan = Explanation({"ok": 1.0, "0": "text"})
        self.assertIs(plan[0], plan)
        self.assertEqual((plan["ok"], plan["0"], len(plan), 0 in plan), (1.0, "text", 2, False))
        self.assertRaises(KeyError, plan.__getitem__, 1)
        self.assertEqual(json.loads(json.dumps(plan)), {"ok": 1.0, "0": "text"})
