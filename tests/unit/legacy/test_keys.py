"""``txmongo._legacy.keys``: the keys of an index, as pairs and as a mapping."""

from __future__ import annotations

from bson.son import SON
from twisted.trial.unittest import SynchronousTestCase

from txmongo._legacy.keys import KeyPairs


class KeyPairsTests(SynchronousTestCase):
    """Two keys."""

    keys = KeyPairs([("a", 1), ("b", -1)])

    def test_list(self) -> None:
        """It is a list of pairs."""
        self.assertEqual(self.keys, [("a", 1), ("b", -1)])
        self.assertNotEqual(self.keys, [("b", -1), ("a", 1)])
        self.assertEqual([*self.keys], [("a", 1), ("b", -1)])
        self.assertEqual((self.keys[0], self.keys[1:]), (("a", 1), [("b", -1)]))
        self.assertIn(("a", 1), self.keys)
        self.assertEqual(repr(self.keys), "[('a', 1), ('b', -1)]")

    def test_mapping(self) -> None:
        """It is read as a mapping, and equal to one; to a SON in the same order alone."""
        self.assertEqual((self.keys["b"], self.keys.get("a"), self.keys.get("c", 5)), (-1, 1, 5))
        self.assertRaises(KeyError, lambda: self.keys["c"])
        self.assertIn("a", self.keys)
        self.assertNotIn("c", self.keys)
        self.assertEqual(list(self.keys.keys()), ["a", "b"])
        self.assertEqual(list(self.keys.values()), [1, -1])
        self.assertEqual(list(self.keys.items()), [("a", 1), ("b", -1)])
        self.assertEqual(self.keys, {"b": -1, "a": 1})
        self.assertEqual(self.keys, SON([("a", 1), ("b", -1)]))
        self.assertNotEqual(self.keys, SON([("b", -1), ("a", 1)]))
        self.assertEqual(dict(self.keys), {"a": 1, "b": -1})
