"""Sort orders, hints and the like as values."""

from __future__ import annotations

import operator
from typing import Any

from bson.son import SON
from twisted.trial.unittest import SynchronousTestCase

from txmongo import filter as qf
from txmongo._ops.arguments import hint_value, index_document
from txmongo._ops.update import update_statement


class DirectionTests(SynchronousTestCase):
    """ASCENDING and its like."""

    def test_one(self) -> None:
        """A key becomes a pair."""
        for function, direction in (
            (qf.ASCENDING, 1),
            (qf.DESCENDING, -1),
            (qf.GEO2D, "2d"),
            (qf.GEO2DSPHERE, "2dsphere"),
            (qf.GEOHAYSTACK, "geoHaystack"),
            (qf.TEXT, "text"),
        ):
            self.assertEqual(function("x"), (("x", direction),))

    def test_several(self) -> None:
        """A list or a tuple of keys becomes pairs, which can be added to others."""
        self.assertEqual(qf.ASCENDING(["a", "b"]) + qf.DESCENDING(("c",)), (("a", 1), ("b", 1), ("c", -1)))

    def test_wrong(self) -> None:
        """Anything else is refused."""
        wrong: Any
        for wrong in (None, 5, [5], {"x"}, ["a", None], {"x": 1}):
            self.assertRaises(TypeError, qf.ASCENDING, wrong)


class SortTests(SynchronousTestCase):
    """sort and hint."""

    def test_forms(self) -> None:
        """Pairs in a list or a tuple, a mapping, and one pair alone say the same."""
        for keys in ([("x", -1)], (("x", -1),), ("x", -1), {"x": -1}, SON([("x", -1)]), [["x", -1]]):
            self.assertEqual(dict(qf.sort(keys)), {"orderby": (("x", -1),)})
            self.assertEqual(dict(qf.hint(keys)), {"hint": (("x", -1),)})

    def test_name(self) -> None:
        """A hint may be an index's name."""
        self.assertEqual(dict(qf.hint("x_1")), {"hint": "x_1"})

    def test_meta(self) -> None:
        """A direction may be a document."""
        self.assertEqual(qf.sort([("score", {"$meta": "textScore"})])["orderby"][0][0], "score")

    def test_wrong(self) -> None:
        """What is no list of keys is refused, naming the argument."""
        self.assertEqual(qf.sort({}), {})
        for wrong in ("x", None, 5, [], [("x",)], [("x", 3)], [(1, 1)], ["x"], [("x", "up")], [("x", None)]):
            self.assertIn("key_list", str(self.assertRaises(TypeError, qf.sort, wrong)))
        self.assertIn("index_list_or_name", str(self.assertRaises(TypeError, qf.hint, 5)))


class AddTests(SynchronousTestCase):
    """What several filters say together."""

    def test_different(self) -> None:
        """Each adds what it says, and stays as it is."""
        order = qf.sort(qf.ASCENDING("x"))
        together = order + qf.hint("x_1") + qf.comment("c") + qf.explain() + qf.snapshot()
        self.assertEqual(
            dict(together),
            {"orderby": (("x", 1),), "hint": "x_1", "comment": "c", "explain": True, "snapshot": True},
        )
        self.assertEqual(dict(order), {"orderby": (("x", 1),)})
        self.assertIsInstance(together, qf._QueryFilter)

    def test_sorts(self) -> None:
        """Sort orders follow one another."""
        together = qf.sort(qf.ASCENDING("x")) + qf.sort(qf.DESCENDING("y"))
        self.assertEqual(together["orderby"], (("x", 1), ("y", -1)))

    def test_last(self) -> None:
        """Of the rest the last counts."""
        self.assertEqual(dict(qf.comment("a") + qf.comment("b")), {"comment": "b"})
        self.assertEqual(dict(qf.hint(qf.ASCENDING("x")) + qf.hint("y_1")), {"hint": "y_1"})

    def test_dict(self) -> None:
        """A plain dict can be added too; nothing else."""
        self.assertEqual(dict(qf.comment("a") + {"maxTimeMS": 5}), {"comment": "a", "maxTimeMS": 5})
        self.assertRaises(TypeError, operator.add, qf.comment("a"), [1])

    def test_repr(self) -> None:
        """It says what it is."""
        self.assertEqual(repr(qf.comment("a")), "<mongodb QueryFilter: {'comment': 'a'}>")


class ExplainTests(SynchronousTestCase):
    """explain."""

    def test_verbosity(self) -> None:
        """Its verbosity may be given."""
        self.assertEqual(dict(qf.explain("executionStats")), {"explain": "executionStats"})
        self.assertRaises(TypeError, qf.explain, 2)


class TakenTests(SynchronousTestCase):
    """Where filters are taken for what they say."""

    def test_sort(self) -> None:
        """A sort order or the keys of an index."""
        order = qf.sort(qf.ASCENDING("x") + qf.GEO2D("y"))
        self.assertEqual(list(index_document("keys", order).items()), [("x", 1), ("y", "2d")])

    def test_hint(self) -> None:
        """A hint by keys or by name."""
        self.assertEqual(hint_value(qf.hint(qf.DESCENDING("x"))), {"x": -1})
        self.assertEqual(hint_value(qf.hint("x_1")), "x_1")

    def test_pair(self) -> None:
        """One pair is taken for what it is, and a tuple of names for names."""
        self.assertEqual(index_document("sort", ("x", -1)), {"x": -1})
        self.assertEqual(index_document("keys", ("x", "y")), {"x": 1, "y": 1})

    def test_update(self) -> None:
        """The sort order of an update."""
        statement = update_statement({}, {"$set": {"a": 1}}, multi=False, sort=qf.sort(qf.DESCENDING("x")))
        self.assertEqual(statement["sort"], {"x": -1})

    def test_more(self) -> None:
        """What says more than can be taken is refused: nothing is dropped without a word."""
        for said in (qf.comment("c"), qf.sort(qf.ASCENDING("x")) + qf.hint("x_1")):
            self.assertIn("only sort", str(self.assertRaises(TypeError, index_document, "sort", said)))
            self.assertIn("only hint", str(self.assertRaises(TypeError, hint_value, said)))
