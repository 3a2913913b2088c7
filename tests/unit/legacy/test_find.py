"""What the arguments of find mean, in all three orders."""

from __future__ import annotations

from typing import Any

from bson.son import SON
from pymongo import CursorType
from twisted.trial.unittest import SynchronousTestCase

from txmongo import filter as qf
from txmongo._legacy.find import FindRequest, find_request


def request(method: str, *args: Any, **keywords: Any) -> FindRequest:
    """What a call asks for."""
    return find_request(method, args, keywords)


class PositionTests(SynchronousTestCase):
    """Positional arguments."""

    def keywords(self, method: str, *args: Any) -> dict[str, Any]:
        """Today's names of positional arguments."""
        return request(method, *args).keywords

    def test_of_15(self) -> None:
        """A second that is an int makes it the order of 15.2."""
        for method in ("find", "find_with_cursor"):
            found = request(method, {"x": 1}, 2, 3, ["y"], qf.sort(qf.ASCENDING("y")))
            self.assertEqual(
                found.keywords,
                {"filter": {"x": 1}, "skip": 2, "limit": 3, "projection": ["y"], "sort": (("y", 1),)},
            )
            self.assertEqual([new for _, new in found.deprecated], ["(filter, projection, skip, limit, sort)", "sort"])
        self.assertTrue(request("find", {}, 0, 0, None, None, True).pages)
        self.assertFalse(request("find", {}, 0, 0, None, None, False).pages)
        self.assertEqual(self.keywords("find", None, 0), {"filter": None, "skip": 0})

    def test_of_26(self) -> None:
        """A mapping, a list, a tuple or None second makes it that of 26.0."""
        for projection in ({"y": 1}, ["y"], ("y",), None):
            for method in ("find", "find_with_cursor"):
                self.assertEqual(
                    self.keywords(method, {"x": 1}, projection, 2, 3, [("y", 1)]),
                    {"filter": {"x": 1}, "projection": projection, "skip": 2, "limit": 3, "sort": [("y", 1)]},
                )
            self.assertEqual(
                self.keywords("find_one", {"x": 1}, projection, 2, [("y", 1)]),
                {"filter": {"x": 1}, "projection": projection, "skip": 2, "sort": [("y", 1)]},
            )
        self.assertEqual(self.keywords("find_with_cursor", {}, None, 0, 0, None, 7)["batch_size"], 7)

    def test_of_pymongo(self) -> None:
        """After limit PyMongo goes on with a bool, and find_one with a limit."""
        found = self.keywords("find", {}, None, 0, 3, True, CursorType.TAILABLE, [("y", 1)])
        self.assertEqual(
            found,
            {
                "filter": {},
                "projection": None,
                "skip": 0,
                "limit": 3,
                "no_cursor_timeout": True,
                "cursor_type": CursorType.TAILABLE,
                "sort": [("y", 1)],
            },
        )
        self.assertEqual(self.keywords("find", {}, None, 0, 3, False)["no_cursor_timeout"], False)
        self.assertEqual(self.keywords("find_one", {}, None, 0, 1)["limit"], 1)
        self.assertEqual(self.keywords("find_one", {}, None, 0, 1, True)["no_cursor_timeout"], True)

    def test_too_many(self) -> None:
        """More than there are is a TypeError."""
        for method, count in (("find", 24), ("find_with_cursor", 7), ("find_one", 24)):
            self.assertRaises(TypeError, find_request, method, ({}, *[None] * (count - 1)), {})
        self.assertRaises(TypeError, request, "find", {}, 0, 0, None, None, True, True)
        self.assertRaises(TypeError, request, "find_with_cursor", {}, 0, 0, None, None, True)

    def test_twice(self) -> None:
        """An argument by position and by name is a TypeError that names it."""
        for args, keywords in (
            (({}, None, 0), {"skip": 1}),
            (({}, 0, 5), {"limit": 1}),
            (({}, 0, 0, None, None), {"filter": {}}),
            (({}, None, 0, 0, None), {"sort": None}),
        ):
            (name,) = keywords
            self.assertIn(name, str(self.assertRaises(TypeError, request, "find", *args, **keywords)))


class FilterTests(SynchronousTestCase):
    """The keyword filter, which is the query or how to query."""

    def test_query(self) -> None:
        """Alone, a mapping is the query."""
        found = request("find", filter={"x": 1}, skip=1)
        self.assertEqual((found.keywords, found.deprecated), ({"filter": {"x": 1}, "skip": 1}, ()))

    def test_instance(self) -> None:
        """A filter of txmongo.filter says how to query, with a query or without."""
        order = qf.sort(qf.DESCENDING("x")) + qf.comment("c")
        said = {"sort": (("x", -1),), "comment": "c"}
        self.assertEqual(request("find", filter=order).keywords, said)
        self.assertEqual(request("find", {"y": 1}, filter=order).keywords, {"filter": {"y": 1}, **said})
        self.assertEqual(request("find", spec={"y": 1}, filter=order).keywords, {"filter": {"y": 1}, **said})
        self.assertEqual(request("find", filter=order, spec={"y": 1}).keywords, {"filter": {"y": 1}, **said})

    def test_with_query(self) -> None:
        """Beside a query a plain mapping says how to query too."""
        for name in ("orderby", "$orderby"):
            found = request("find", {"y": 1}, filter={name: SON([("x", 1)]), "$hint": "x_1", "maxTimeMS": 5})
            expected = {"filter": {"y": 1}, "sort": {"x": 1}, "hint": "x_1", "max_time_ms": 5}
            self.assertEqual(found.keywords, expected)
        self.assertEqual(request("find", None, filter=None).keywords, {"filter": None})

    def test_unknown(self) -> None:
        """What cannot be said of a query is refused, not dropped."""
        for wrong in ({"x": 1}, [("x", 1)], "x_1"):
            self.assertIn("filter", str(self.assertRaises(TypeError, request, "find", {}, filter=wrong)))
        self.assertRaises(TypeError, request, "find", qf.sort(qf.ASCENDING("x")))

    def test_as_sort(self) -> None:
        """As in 26.0, sort takes all that filters say, and that is not deprecated."""
        found = request("find", {}, sort=qf.sort(qf.ASCENDING("x")) + qf.hint("x_1") + qf.explain())
        self.assertEqual(found.keywords, {"filter": {}, "sort": (("x", 1),), "hint": "x_1"})
        self.assertEqual((found.explain, found.deprecated), (True, ()))
        self.assertEqual(request("find", {}, None, 0, 0, qf.comment("c")).keywords["comment"], "c")

    def test_contradiction(self) -> None:
        """What is said twice is refused."""
        for keywords in ({"sort": [("y", 1)]}, {"sort": qf.hint("y_1"), "hint": "z_1"}):
            self.assertRaises(TypeError, request, "find", {}, filter=qf.sort(qf.ASCENDING("x")), **keywords)

    def test_explain(self) -> None:
        """explain carries its verbosity."""
        self.assertEqual(request("find", filter=qf.explain("queryPlanner")).explain, "queryPlanner")
        self.assertIsNone(request("find", {}, filter={"$explain": False}).explain)

    def test_snapshot(self) -> None:
        """snapshot is a hint at the index on _id, unless there is another."""
        self.assertEqual(request("find", filter=qf.snapshot()).keywords, {"hint": {"_id": 1}})
        self.assertEqual(request("find", filter=qf.snapshot() + qf.hint("x_1")).keywords, {"hint": "x_1"})
        self.assertEqual(request("find", filter=qf.snapshot(), hint="x_1").keywords, {"hint": "x_1"})


class NameTests(SynchronousTestCase):
    """Other names of 15.2."""

    def test_renamed(self) -> None:
        """spec and fields are filter and projection."""
        found = request("find", spec={"x": 1}, fields=["y"])
        self.assertEqual(found.keywords, {"filter": {"x": 1}, "projection": ["y"]})
        self.assertEqual(found.deprecated, (("spec", "filter"), ("fields", "projection")))

    def test_both(self) -> None:
        """An argument under both names is refused."""
        self.assertRaises(TypeError, request, "find", {}, spec={})
        self.assertRaises(TypeError, request, "find", {}, ["x"], fields=["y"])
        self.assertRaises(TypeError, request, "find", {}, 0, 0, ["y"], projection=["x"])

    def test_cursor(self) -> None:
        """cursor=True asks for pages, of find alone."""
        self.assertTrue(request("find", cursor=True).pages)
        self.assertFalse(request("find", cursor=False).pages)
        self.assertIn("cursor", request("find_one", cursor=True).keywords)

    def test_as_class(self) -> None:
        """as_class is the class of the documents."""
        self.assertIs(request("find_one", as_class=SON).as_class, SON)
        self.assertIsNone(request("find", as_class=None).as_class)
        self.assertIn("as_class", str(self.assertRaises(TypeError, request, "find", as_class=5)))


class FlagTests(SynchronousTestCase):
    """Flags of the old query message."""

    def test_flags(self) -> None:
        """SLAVE_OK is a read preference, the others are kept."""
        found = request("find", flags=4 | 16 | 128)
        self.assertEqual((found.flags, found.slave_ok, found.tailable), (144, True, False))

    def test_tailable(self) -> None:
        """A cursor is tailable by flag or by type."""
        self.assertTrue(request("find", flags=2).tailable)
        self.assertTrue(request("find", cursor_type=CursorType.TAILABLE_AWAIT).tailable)

    def test_wrong(self) -> None:
        """Flags are an int."""
        for wrong in ("4", None, True):
            self.assertIn("flags", str(self.assertRaises(TypeError, request, "find", flags=wrong)))
