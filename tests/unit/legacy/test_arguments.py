"""Second names and other places of arguments."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from pymongo.collation import Collation
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import held_database
from txmongo import filter as qf
from txmongo._legacy.arguments import also_named, formerly, index_arguments, takes_let_second


@also_named(sort_fields="keys")
def named(keys: Any, **kwargs: Any) -> Any:
    """Has a second name for keys."""
    return keys, kwargs


@formerly(spec="filter")
def renamed(key: Any = None, filter: Any = None) -> Any:
    """Had another name for filter."""
    return key, filter


@takes_let_second
def delete(collection: Any, filter: Any, collation: Any = None, let: Any = None) -> Any:
    """As delete_one."""
    return collation, let


class NameTests(SynchronousTestCase):
    """:func:`also_named` and :func:`formerly`."""

    def test_second_name(self) -> None:
        """An argument may be passed by both names, but not by both at once."""
        self.assertEqual(named(sort_fields=1, x=2), (1, {"x": 2}))
        self.assertEqual(named(1), (1, {}))
        self.assertEqual(named(keys=1), (1, {}))
        self.assertRaises(TypeError, named, keys=1, sort_fields=2)
        self.assertRaises(TypeError, named, 1, sort_fields=2)

    def test_former_name(self) -> None:
        """A former name warns."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertEqual(renamed(spec=1), (None, 1))
        self.assertEqual(caught[0].filename, __file__)
        self.assertIn("argument spec of renamed", str(caught[0].message))

    def test_not_used(self) -> None:
        """Nothing warns where it is not used."""
        self.assertEqual(renamed(1, filter=2), (1, 2))

    def test_signature(self) -> None:
        """The signature is that of today."""
        self.assertEqual(list(inspect.signature(renamed).parameters), ["key", "filter"])
        self.assertEqual(renamed.__doc__, "Had another name for filter.")


class LetTests(SynchronousTestCase):
    """:func:`takes_let_second`."""

    def test_let(self) -> None:
        """A mapping without a locale is let."""
        self.assertEqual(delete(None, {}, {"a": 1}), (None, {"a": 1}))
        self.assertRaises(TypeError, delete, None, {}, {"a": 1}, let={})

    def test_collation(self) -> None:
        """One with a locale, and a Collation, is a collation."""
        for collation in ({"locale": "en"}, Collation("en"), None):
            self.assertEqual(delete(None, {}, collation), (collation, None))
        self.assertEqual(delete(None, {}, collation={"a": 1}), ({"a": 1}, None))
        self.assertEqual(delete(None, {}, None, {"a": 1}), (None, {"a": 1}))


class IndexTests(SynchronousTestCase):
    """:func:`index_arguments`."""

    def test_keys(self) -> None:
        """Sort orders and tuples become documents; what PyMongo takes stays."""
        self.assertEqual(index_arguments(qf.sort(qf.ASCENDING("x")), {}), ({"x": 1}, {}))
        self.assertEqual(index_arguments(qf.DESCENDING("x"), {}), ({"x": -1}, {}))
        self.assertEqual(index_arguments(("x", "text"), {}), ({"x": "text"}, {}))
        for keys in ("x", [("x", 1)], {"x": 1}, None):
            self.assertIs(index_arguments(keys, {})[0], keys)

    def test_bucket_size(self) -> None:
        """bucket_size gets the server's name."""
        self.assertEqual(index_arguments("x", {"bucket_size": 5})[1], {"bucketSize": 5})


class FullResponseTests(SynchronousTestCase):
    """aggregate(pipeline, full_response, initial_batch_size)."""

    def setUp(self) -> None:
        self.database, self.client = held_database()
        self.things = self.database["things"]

    def test_positions(self) -> None:
        """A second argument that is a bool is full_response."""
        whole = self.things.aggregate([{"$match": {}}], True, 5)
        self.assertEqual(self.client.executor.commands[0]["cursor"], {"batchSize": 5})
        self.client.executor.first_batch({"_id": 1})
        self.assertEqual(self.successResultOf(whole)["result"], [{"_id": 1}])

    def test_cursor(self) -> None:
        """Without it there is a cursor, which sends nothing yet."""
        cursor = self.things.aggregate([], False, 5)
        self.assertEqual(self.client.executor.commands, [])
        self.assertFalse(cursor.started)
        self.things.aggregate([], None, {"a": 1})
