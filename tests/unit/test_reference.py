"""What the reference says of each public name: that it is documented, in which fields, and how its Deferred ends.

That every name stands on a page is checked when the documentation is built (docs/conf.py).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.test_exports import EXPORTS
from txmongo._ops.session_state import SessionState

#: Explained once, in the docstring of the class.
COMMON = {"self", "cls", "session", "comment", "timing"}
#: Of the opcodes' hooks, ``request`` is explained in the docstrings of the protocols.
HOOK = re.compile(r"(handle|send)(_[A-Z_a-z]+)?$")
#: Twisted's own, which it explains.
OF_TWISTED = {"callbacks", "connectionMade", "connectionLost", "dataReceived"}
#: One line stands for arguments that are explained elsewhere.
ELSEWHERE = re.compile(r":param \w+: and [^:]*: *(see|as of|as PyMongo's|for the)|:param \w+: and the result: as of")


@attrs.frozen
class Documented:
    """A public function, class, method or property of ours."""

    name: str
    value: Any

    @property
    def docstring(self) -> str:
        """What it says, properly indented."""
        return inspect.getdoc(self.value) or ""

    @property
    def signature(self) -> inspect.Signature:
        """Its parameters and what it returns."""
        return inspect.signature(self.value.fget if isinstance(self.value, property) else self.value)

    @property
    def returns_deferred(self) -> bool:
        """Whether somebody waits for its result."""
        return not inspect.isclass(self.value) and re.search("Deferred|Cursor", str(self.signature.return_annotation))


def members(owner: type, name: str) -> Iterator[Documented]:
    """What a class has of its own, and of ours that it inherits but does not show."""
    for base in owner.__mro__:
        if not base.__module__.startswith("txmongo") or base is SessionState:
            continue
        for attribute, value in vars(base).items():
            function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if not attribute.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                yield Documented(f"{name}.{attribute}", function)


def everything() -> Iterator[Documented]:
    """Every public name that is ours; PyMongo's are documented by their own."""
    for module_name in sorted(EXPORTS):
        for name in sorted(EXPORTS[module_name]):
            value = getattr(importlib.import_module(module_name), name)
            ours = str(getattr(value, "__module__", "")).startswith("txmongo")
            if ours and (inspect.isclass(value) or inspect.isfunction(value)):
                yield Documented(f"{module_name}.{name}", value)
                if inspect.isclass(value):
                    yield from members(value, f"{module_name}.{name}")


def undocumented_parameters(item: Documented) -> list[str]:
    """Parameters of a function or method of which its docstring does not speak."""
    text, last = item.docstring, item.name.rpartition(".")[2]
    if inspect.isclass(item.value) or last in OF_TWISTED or ELSEWHERE.search(text):
        return []
    common = COMMON | ({"request"} if HOOK.match(last) else set())
    return [
        name
        for name in item.signature.parameters
        if name not in common and not re.search(rf":param {name}:|``{name}``", text)
    ]


def untold_end(item: Documented) -> bool:
    """Whether it returns a Deferred without a word of what that fires with or of how it fails."""
    said = re.search(r":returns: (?:.|\n  )*", item.docstring)
    if not item.returns_deferred:
        return False
    return (
        said is None
        or not re.search("fires|Cursor|Deferred that fails", said[0])
        or not re.search("fail|cancel", said[0])
    )


class ReferenceTests(SynchronousTestCase):
    """The docstrings of what is public."""

    def test_docstrings(self) -> None:
        """Everything public has one."""
        silent = [item.name for item in everything() if not item.docstring]
        self.assertEqual([name for name in silent if name.rpartition(".")[2] not in OF_TWISTED], [])

    def test_parameters(self) -> None:
        """Of functions and methods every parameter is explained, if need be by naming where."""
        missing = {item.name: undocumented_parameters(item) for item in everything()}
        self.assertEqual({name: parameters for name, parameters in missing.items() if parameters}, {})

    def test_deferreds(self) -> None:
        """Of every Deferred it is said what it fires with and how it fails."""
        self.assertEqual([item.name for item in everything() if untold_end(item)], [])

    def test_fields(self) -> None:
        """A field explains a parameter that there is."""
        wrong = []
        for item in everything():
            if inspect.isclass(item.value) or isinstance(item.value, property):
                continue
            parameters = item.signature.parameters
            open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
            named = re.findall(r":param (\w+):", item.docstring)
            wrong += [f"{item.name}: {name}" for name in named if name not in parameters and not open_ended]
        self.assertEqual(wrong, [])

    def test_counts(self) -> None:
        """The whole of it is looked at."""
        names = {item.name for item in everything()}
        self.assertGreater(len(names), 500)
        for name in ("collection.Collection.insert", "cursor.Cursor.next_batch", "testing.Mongod.start"):
            self.assertIn(f"txmongo.{name}", names)

    def test_rules(self) -> None:
        """Docstrings that say too little are found."""

        def find(query: Any, session: Any = None) -> Any:
            """Find things.

            :param limit: how many.
            :returns: a Deferred.
            """

        find.__annotations__["return"] = "Deferred[int]"
        item = Documented("txmongo.find", find)
        self.assertEqual(undocumented_parameters(item), ["query"])
        self.assertTrue(untold_end(item))
        self.assertFalse(untold_end(Documented("txmongo.mongod", find.__class__)))
