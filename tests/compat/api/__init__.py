"""The names of the two older APIs, as plain tables, and how a table is read.

``txmongo_15_2.txt`` and ``txmongo_26_0.txt`` have a line for every public name. Its columns are separated by ``|``::

    module txmongo.collection
    class Collection(database, name, write_concern=None) |       | database, "things" | test_collection_methods...
      .count(spec=None, fields=None)                     | spec->filter ~fields |     | test_collection_methods...
      .name                                              |       |                    | test_collection_methods...

1. The name and its arguments with their defaults as they were. ``class`` and ``module`` say what the lines below belong
   to; ``.name`` is a member of the class above, in its call or an attribute; ``NAME = value`` is a constant; ``name is
   other`` stands for two names of one thing. Behind a class and ``:`` is what it is a subclass of.
2. Where today's signature is another: ``old->new`` for an argument with another name, ``~name`` for one that is
   understood without standing in the signature (``~order``: positions are told apart by the types of the values).
3. Python values for the arguments that must be given, in an order that a call with all arguments can begin with; the
   names that may stand in them are those of :mod:`tests.compat.test_api_calls`. ``-`` where no call is made.
4. The tests that show it at work, each as the end of its id, from the module's name on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

__all__ = ["TABLES", "Argument", "Row", "rows_of"]

#: The tables, by the version that they are of.
TABLES = {"15.2": "txmongo_15_2.txt", "26.0": "txmongo_26_0.txt"}


@attrs.frozen
class Argument:
    """One argument of a callable.

    :ivar required: it has no default.
    :ivar kind: ``""``, ``"*"`` for one by keyword only, ``"**"`` for any keyword.
    """

    name: str
    default: Any = None
    required: bool = False
    kind: str = ""


@attrs.frozen
class Row:
    """A line of a table.

    :ivar arguments: ``None`` for what is not called.
    :ivar value: of a constant, as Python text; ``None`` for anything else.
    :ivar same_as: the path of the thing that it is another name of.
    :ivar renamed: today's names of arguments.
    :ivar understood: arguments that today's signature does not show, and ``order``.
    """

    module: str
    owner: str | None
    name: str
    line: int
    arguments: tuple[Argument, ...] | None = None
    value: str | None = None
    same_as: str | None = None
    bases: tuple[str, ...] = ()
    is_class: bool = False
    renamed: dict[str, str] = attrs.field(factory=dict)
    understood: frozenset[str] = frozenset()
    example: str | None = None
    tests: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The dotted path of the name."""
        return ".".join(part for part in (self.module, self.owner, self.name) if part)


def rows_of(version: str) -> Iterator[Row]:
    """The lines of the table of a version.

    :raises ValueError: a line is none; it is named.
    """
    module, owner = "", None
    file = Path(__file__).parent / TABLES[version]
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("module "):
            module, owner = line.removeprefix("module ").strip(), None
            continue
        try:
            row = _row(line, number, module, owner)
        except (SyntaxError, ValueError, IndexError) as error:
            raise ValueError(f"{file.name}:{number}: {error}: {line}") from error
        if row.owner is None:
            owner = row.name if row.is_class else None
        yield row


def _row(line: str, number: int, module: str, owner: str | None) -> Row:
    what, today, example, tests = (column.strip() for column in line.split("|"))
    renamed, understood = {}, set()
    for word in today.split():
        if word.startswith("~"):
            understood.add(word[1:])
        else:
            old, new = word.split("->")
            renamed[old] = new
    fields: dict[str, Any] = {"renamed": renamed, "understood": frozenset(understood), "example": example}
    fields["tests"] = tuple(tests.split())
    if what.startswith("."):
        what = what[1:]
        if owner is None:
            raise ValueError("a member of no class")
    else:
        owner = None
    if what.startswith("class "):
        fields["is_class"] = True
        what, _, bases = what.removeprefix("class ").partition(" : ")
        fields["bases"] = tuple(bases.split())
    if " is " in what:
        what, _, fields["same_as"] = what.partition(" is ")
    elif " = " in what:
        what, _, fields["value"] = what.partition(" = ")
    elif "(" in what:
        what, _, arguments = what.partition("(")
        fields["arguments"] = tuple(_arguments(arguments.rstrip().removesuffix(")")))
    return Row(module, owner, what.strip(), number, **fields)


def _arguments(text: str) -> Iterator[Argument]:
    function: Any = ast.parse(f"def f({text}): pass").body[0]
    found = function.args
    defaults = [None] * (len(found.args) - len(found.defaults)) + found.defaults
    for argument, default in zip(found.args, defaults, strict=True):
        yield _argument(argument, default, "")
    for argument, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        yield _argument(argument, default, "*")
    if found.kwarg is not None:
        yield Argument(found.kwarg.arg, kind="**")


def _argument(argument: ast.arg, default: ast.expr | None, kind: str) -> Argument:
    if default is None:
        return Argument(argument.arg, required=True, kind=kind)
    if isinstance(default, ast.Name):
        # A value that has no literal: any default will do.
        return Argument(argument.arg, ..., kind=kind)
    return Argument(argument.arg, ast.literal_eval(default), kind=kind)
