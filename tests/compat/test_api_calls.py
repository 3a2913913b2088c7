"""Every method of the two older APIs called as its line in the table says, on real servers.

Of each line with an example there are up to three tests: the call by position with all arguments, in the old order and
with the old defaults; the call by name; and, where it took ``timeout`` and ``deadline``, a call whose time is over.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pymongo.operations import InsertOne
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from tests.compat.api import Row, rows_of
from tests.compat.servers import CompatTestCase, on_every_server
from tests.compat.test_api import find
from txmongo.errors import TimeExceeded
from txmongo.filter import ASCENDING, sort
from txmongo.gridfs import GridFS, GridIn

reactor: Any = _reactor

#: Methods of 15.2 that have successors, and those of which some arguments have.
DEPRECATED = frozenset({"find_and_modify", "group", "insert", "remove", "save", "update"})
PARTLY_DEPRECATED = frozenset({"count", "distinct", "find", "find_one", "find_with_cursor"})

_numbers = itertools.count()
_HOUR = 3600


def positional_arguments(row: Row, given: tuple[Any, ...]) -> list[Any]:
    """What to call it with by position: the example, then the defaults of the old signature."""
    assert row.arguments is not None
    values = list(given)
    for argument in row.arguments[len(given) :]:
        if argument.kind or argument.default is ...:
            break
        values.append(argument.default)
    return values


def named_arguments(row: Row, given: tuple[Any, ...]) -> dict[str, Any]:
    """What to call it with by name; ``timeout`` and ``deadline`` have an hour instead of their defaults."""
    assert row.arguments is not None
    arguments = [each for each in row.arguments if each.kind != "**" and each.default is not ...]
    values = {argument.name: argument.default for argument in arguments}
    values.update(zip((argument.name for argument in arguments), given, strict=False))
    if "deadline" in values:
        values |= {"timeout": _HOUR, "deadline": reactor.seconds() + _HOUR}
    return values


class CallCase(CompatTestCase):
    """A collection with three documents and an index, and a file."""

    version = ""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_many([{"_id": number, "x": number} for number in range(3)])
        await self.things.create_index("x")
        self.gfs = GridFS(self.database)
        self.file_id: Any = None
        self.grid_out: Any = None

    async def prepare(self, row: Row) -> None:
        """Have a file called "a" for what is about files."""
        if not row.module.startswith("txmongo._gridfs"):
            return
        self.file_id = await self.gfs.put(b"content", filename="a")
        self.grid_out = await self.gfs.get(self.file_id)

    def fresh_name(self) -> str:
        """A name that nothing has yet."""
        return f"fresh_{next(_numbers)}"

    def example(self, row: Row) -> tuple[Any, ...]:
        """The example's values."""
        names = {
            "ASCENDING": ASCENDING,
            "InsertOne": InsertOne,
            "client": self.client,
            "database": self.database,
            "file_id": self.file_id,
            "fresh_name": self.fresh_name,
            "grid_out": self.grid_out,
            "sort": sort,
        }
        values: tuple[Any, ...] = eval(f"({row.example},)" if row.example else "()", names)
        return values

    def target(self, row: Row) -> Callable[..., Any]:
        """What is called."""
        owners = {
            "Collection": self.things,
            "ConnectionPool": self.client,
            "Cursor": self.things.find() if row.owner == "Cursor" else None,
            "Database": self.database,
            "GridFS": self.gfs,
            "GridIn": self.gfs.new_file() if row.owner == "GridIn" else None,
            "GridOut": self.grid_out,
        }
        self.owner = None if row.owner is None else owners[row.owner]
        method: Callable[..., Any] = find(row.path) if self.owner is None else getattr(self.owner, row.name)
        return method

    async def call(self, row: Row, *args: Any, **kwargs: Any) -> None:
        """Call it and wait for what it gives; what is deprecated says so once, and nothing else warns."""
        function = self.target(row)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = function(*args, **kwargs)
        # What is collected as garbage meanwhile is no matter of the call's.
        said = [str(each.message) for each in caught if each.category is not ResourceWarning]
        if self.version == "15.2" and row.name in DEPRECATED:
            self.assertEqual(len(said), 1, said)
        elif self.version == "15.2" and row.name in PARTLY_DEPRECATED:
            self.assertLessEqual(len(said), 1, said)
        else:
            self.assertEqual(said, [])
        if isinstance(result, Deferred):
            result = await result
        for each in (result, self.owner):
            if isinstance(each, GridIn):
                await each.close()

    async def by_position(self, row: Row) -> None:
        """By position."""
        await self.prepare(row)
        await self.call(row, *positional_arguments(row, self.example(row)))

    async def by_name(self, row: Row) -> None:
        """By name."""
        await self.prepare(row)
        await self.call(row, **named_arguments(row, self.example(row)))

    async def too_late(self, row: Row) -> None:
        """With a deadline that has passed, and with a timeout that has."""
        await self.prepare(row)
        for timing in ({"deadline": reactor.seconds() - 1}, {"timeout": -1}):
            method = self.target(row)
            await self.failure(method(*self.example(row), **timing), TimeExceeded)


def _tests(version: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The tests of a version by their names."""

    def test(how: str, row: Row) -> Callable[..., Any]:
        async def called(self: CallCase) -> None:
            await getattr(self, how)(row)

        called.__doc__ = f"{row.path}, {how.replace('_', ' ')}."
        return called

    for row in rows_of(version):
        if row.arguments is None or row.example == "-":
            continue
        name = f"test_{row.owner or ''}_{row.name}_"
        kinds = {argument.kind for argument in row.arguments}
        if "" in kinds:
            yield f"{name}by_position", test("by_position", row)
        if kinds & {"", "*"}:
            yield f"{name}by_name", test("by_name", row)
        else:
            yield f"{name}without_arguments", test("by_position", row)
        if "deadline" in [argument.name for argument in row.arguments]:
            yield f"{name}too_late", test("too_late", row)


Calls_15_2 = on_every_server(type("Calls_15_2", (CallCase,), {"version": "15.2", **dict(_tests("15.2"))}))
Calls_26_0 = on_every_server(type("Calls_26_0", (CallCase,), {"version": "26.0", **dict(_tests("26.0"))}))
