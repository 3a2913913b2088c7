"""Changes one expected value of a case, to see whether the runner notices. Pure.

Changed are values of ``expectResult``, ``expectError``, ``expectEvents``, ``expectLogMessages`` and ``outcome``, also
those of nested operations. Left alone is what says where to look rather than what to find (the client of events), what
a change could make true by design (labels to be missing, optional ids of inserted documents), and names of entities.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from bson.int64 import Int64

from tests.conformance.loader import Case

__all__ = ["Mutation", "mutations"]

Path = tuple[Any, ...]

UNTOUCHED = frozenset(
    {
        "$$matchesEntity",
        "$$sessionLsid",
        "client",
        "errorLabelsOmit",
        "eventType",
        "ignoreExtraEvents",
        "ignoreExtraMessages",
        "ignoreMessages",
        "insertedIds",
        "isError",
    }
)
NESTED = ("callback", "operations")


@attrs.frozen
class Mutation:
    """A case with one expected value changed."""

    case: Case
    path: Path
    before: Any
    after: Any

    def __str__(self) -> str:
        place = ".".join(map(str, self.path))
        return f"{self.case}: {place}: {self.before!r} changed to {self.after!r}"


def mutations(case: Case) -> list[Mutation]:
    """Every mutation of a case."""
    return [_mutate(case, path) for path in _expected(case.test)]


def _mutate(case: Case, path: Path) -> Mutation:
    test = copy.deepcopy(case.test)
    holder: Any = test
    for step in path[:-1]:
        holder = holder[step]
    before = holder[path[-1]]
    holder[path[-1]] = after = _changed(before, path[-1])
    return Mutation(attrs.evolve(case, test=test), path, before, after)


def _changed(value: Any, key: Any) -> Any:
    """Another value than the one given."""
    if key == "$$type":
        return "regex"
    if key == "$$lte":
        return -1
    if key == "$$matchesHexBytes":
        return f"{value}00"
    match value:
        case bool():
            return not value
        case Int64() | int() | float():
            return value + 12345
        case str():
            return f"{value}-changed"
        case []:
            return ["changed"]
        case {}:
            return {"changed": 1}
        case _:
            return "changed"


def _expected(test: Mapping[str, Any]) -> Iterator[Path]:
    """The paths of the expected values of a test."""
    yield from _of_operations(test.get("operations", []), ("operations",))
    for index, expected in enumerate(test.get("expectEvents", [])):
        yield from _leaves(expected["events"], ("expectEvents", index, "events"))
    for index, expected in enumerate(test.get("expectLogMessages", [])):
        yield from _leaves(expected["messages"], ("expectLogMessages", index, "messages"))
    for index, expected in enumerate(test.get("outcome", [])):
        yield from _leaves(expected["documents"], ("outcome", index, "documents"))


def _of_operations(operations: list[Mapping[str, Any]], path: Path) -> Iterator[Path]:
    for index, operation in enumerate(operations):
        yield from _of_operation(operation, (*path, index))


def _of_operation(operation: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for field in ("expectResult", "expectError"):
        if field in operation:
            yield from _leaves(operation[field], (*path, field))
    arguments = operation.get("arguments") or {}
    for field in NESTED:
        if field in arguments:
            yield from _of_operations(arguments[field], (*path, "arguments", field))
    if "operation" in arguments:
        yield from _of_operation(arguments["operation"], (*path, "arguments", "operation"))


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    """The paths of the values that hold no others."""
    if isinstance(value, Mapping) and value and "$$type" not in value:
        for key, inner in value.items():
            if key not in UNTOUCHED:
                yield from _leaves(inner, (*path, key))
    elif isinstance(value, Mapping) and value:
        yield (*path, "$$type")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif value != {} or not str(path[-1]).endswith("Event"):  # of such an event nothing is expected but that it comes
        yield path
