"""The command group as an aggregation; what the server makes of it is tested with servers."""

from __future__ import annotations

from typing import Any

from bson.code import Code
from twisted.trial.unittest import SynchronousTestCase

from txmongo._legacy.group import group_pipeline, group_result


class PipelineTests(SynchronousTestCase):
    """:func:`group_pipeline`."""

    def test_stages(self) -> None:
        """A condition is a stage of its own; the groups are found by the fields' values, null where there is none."""
        match, group = group_pipeline(["a", "b.c"], {"n": 0}, "F", {"x": 1}, "G")
        self.assertEqual(match, {"$match": {"x": 1}})
        values = [{"$ifNull": ["$a", None]}, {"$ifNull": ["$b.c", None]}]
        self.assertEqual(group["$group"]["_id"], {"k0": values[0], "k1": values[1]})
        accumulator = group["$group"]["value"]["$accumulator"]
        self.assertEqual(accumulator["initArgs"], [{"$literal": {"n": 0}}])
        self.assertEqual(accumulator["accumulateArgs"], ["$$ROOT", {"$literal": ["a", "b.c"]}, values])
        self.assertIn("(F)(document, state.value)", accumulator["accumulate"])
        self.assertIn("(G)(state.value)", accumulator["finalize"])

    def test_keys(self) -> None:
        """Keys are a list, a tuple, a mapping or one name; without any all is one group."""
        for keys in (["a"], ("a",), {"a": 1}, "a"):
            self.assertEqual(list(group_pipeline(keys, {}, "F")[0]["$group"]["_id"]), ["k0"])
        self.assertIsNone(group_pipeline([], {}, "F")[0]["$group"]["_id"])

    def test_wrong(self) -> None:
        """A wrong argument is named."""
        wrong: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("keys", (5, {}, "F")),
            ("keys", ([1], {}, "F")),
            ("initial", (["a"], [], "F")),
            ("reduce", (["a"], {}, None)),
            ("condition", (["a"], {}, "F", "x")),
            ("finalize", (["a"], {}, "F", None, 5)),
        )
        for name, args in wrong:
            self.assertIn(name, str(self.assertRaises(TypeError, group_pipeline, *args)))
        scoped = Code("F", {"n": 1})
        self.assertIn("reduce", str(self.assertRaises(ValueError, group_pipeline, ["a"], {}, scoped)))


class ResultTests(SynchronousTestCase):
    """:func:`group_result`."""

    def test_result(self) -> None:
        """The values, how many documents, how many groups."""
        groups = [{"_id": {}, "value": {"a": 1}, "count": 2}, {"_id": {}, "value": 5, "count": 3}]
        self.assertEqual(group_result(groups), {"retval": [{"a": 1}, 5], "count": 5, "keys": 2, "ok": 1.0})
        self.assertEqual(group_result([]), {"retval": [], "count": 0, "keys": 0, "ok": 1.0})
