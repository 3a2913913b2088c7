"""``txmongo._ops.arguments``: what is refused, and by which name."""

from __future__ import annotations

import re
from typing import Any

from bson import encode
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.regex import Regex
from bson.son import SON
from twisted.trial.unittest import SynchronousTestCase

from txmongo._ops import arguments
from txmongo.errors import InvalidName


class CheckTests(SynchronousTestCase):
    """The checks that return nothing."""

    def test_mapping(self) -> None:
        """Any mapping is a filter; anything else is refused by the argument's name."""
        fine: list[Any] = [{}, SON(), RawBSONDocument(encode({}))]
        for value in fine:
            arguments.check_mapping("filter", value)
        wrong: list[Any] = [None, [], "a", 1]
        for value in wrong:
            error = self.assertRaises(TypeError, arguments.check_mapping, "filter", value)
            self.assertTrue(str(error).startswith("filter must be a mapping"))

    def test_database_name(self) -> None:
        """A name that a database can have passes, that of users from elsewhere among them; others do not."""
        for name in ("$external", "ünï-code_1"):
            arguments.check_database_name(name)
        for name in ("", "a b", "a.b", "a$b", "a/b", "a\\b", 'a"b', "a\0b"):
            error = self.assertRaises(InvalidName, arguments.check_database_name, name, "the_name")
            self.assertIn("the_name", str(error))
        wrong: list[Any] = [None, 5, b"a"]
        for value in wrong:
            self.assertRaises(TypeError, arguments.check_database_name, value)

    def test_optional_mapping(self) -> None:
        """None passes where the option may be left out."""
        arguments.check_optional_mapping("let", None)
        arguments.check_optional_mapping("let", {"a": 1})
        self.assertRaises(TypeError, arguments.check_optional_mapping, "let", [])

    def test_document(self) -> None:
        """A document to be stored is a mutable mapping or raw BSON."""
        fine: list[Any] = [{}, SON(), RawBSONDocument(encode({}))]
        for value in fine:
            arguments.check_document("document", value)
        wrong: list[Any] = [None, [], [{}], "a"]
        for value in wrong:
            error = self.assertRaises(TypeError, arguments.check_document, "document", value)
            self.assertIn("document must be a mutable mapping", str(error))

    def test_replacement(self) -> None:
        """A replacement may be empty but may not start with an operator."""
        for value in ({}, {"a": 1}, {"a": 1, "$b": 1}, RawBSONDocument(encode({"$set": 1}))):
            arguments.check_replacement(value)
        self.assertRaises(ValueError, arguments.check_replacement, {"$set": {"a": 1}})
        self.assertRaises(TypeError, arguments.check_replacement, [{"$set": {}}])

    def test_update(self) -> None:
        """An update is operators or a list of stages, and not empty."""
        arguments.check_update({"$set": {"a": 1}})
        arguments.check_update([{"$set": {"a": 1}}])
        bad: list[Any] = [{}, [], {"a": 1}]
        for value in bad:
            self.assertRaises(ValueError, arguments.check_update, value)
        wrong: list[Any] = [None, "$set", ({"$set": {}},)]
        for value in wrong:
            self.assertRaises(TypeError, arguments.check_update, value)

    def test_boolean(self) -> None:
        """A flag is a bool and nothing that merely counts as one."""
        arguments.check_boolean("upsert", True)
        arguments.check_boolean("upsert", False)
        for value in (0, 1, None, "true"):
            error = self.assertRaises(TypeError, arguments.check_boolean, "upsert", value)
            self.assertIn("upsert must be True or False", str(error))

    def test_array_filters(self) -> None:
        """array_filters is a list or left out."""
        arguments.check_array_filters(None)
        arguments.check_array_filters([{"e.a": 1}])
        error = self.assertRaises(TypeError, arguments.check_array_filters, {"e.a": 1})
        self.assertIn("array_filters must be a list", str(error))


class ValueTests(SynchronousTestCase):
    """The functions that make a field of a command."""

    def test_index_document(self) -> None:
        """Keys may be a mapping, pairs, or names that are then ascending, in the caller's order."""
        for keys in ([("b", 1), ("a", -1)], ["b", ("a", -1)], (("b", 1), ["a", -1]), {"b": 1, "a": -1}):
            self.assertEqual(list(arguments.index_document("sort", keys).items()), [("b", 1), ("a", -1)])
        self.assertEqual(arguments.index_document("sort", {"a": {"$meta": "textScore"}}), {"a": {"$meta": "textScore"}})

    def test_bad_index_document(self) -> None:
        """Keys that are not keys are refused by the argument's name."""
        wrong: list[Any] = [None, 1, "a", [(1, 1)], [("a", None)], {1: 1}]
        for value in wrong:
            error = self.assertRaises(TypeError, arguments.index_document, "sort", value)
            self.assertIn("sort", str(error))
        nothing: list[Any] = [[], {}]
        for empty in nothing:
            self.assertRaises(ValueError, arguments.index_document, "sort", empty)

    def test_hint(self) -> None:
        """A hint is an index's name as it stands, or its keys as a document."""
        self.assertIsNone(arguments.hint_value(None))
        self.assertEqual(arguments.hint_value("a_1"), "a_1")
        self.assertEqual(arguments.hint_value([("a", 1)]), {"a": 1})
        self.assertRaises(TypeError, arguments.hint_value, 1)

    def test_projection(self) -> None:
        """A projection is a document, or a collection of names that are wanted."""
        given = {"a": 0}
        self.assertIs(arguments.projection_document(given), given)
        self.assertIsNone(arguments.projection_document(None))
        self.assertEqual(arguments.projection_document(["a", "b.c"]), {"a": 1, "b.c": 1})
        self.assertEqual(arguments.projection_document({"a"}), {"a": 1})
        wrong: list[Any] = ["a", 1, [1]]
        for value in wrong:
            error = self.assertRaises(TypeError, arguments.projection_document, value)
            self.assertIn("projection", str(error))

    def test_id_equality(self) -> None:
        """Only a filter that names one plain _id is known to be found at once."""
        for value in (1, "a", Int64(3), None, [1]):
            self.assertTrue(arguments.is_id_equality({"_id": value}))
        others: list[Any] = [{}, {"a": 1}, {"_id": 1, "a": 1}, {"_id": {"$in": [1]}}, {"_id": SON(a=1)}]
        for other in others:
            self.assertFalse(arguments.is_id_equality(other))
        for pattern in (Regex("a"), re.compile("a")):
            self.assertFalse(arguments.is_id_equality({"_id": pattern}))
