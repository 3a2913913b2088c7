"""The names of TxMongo 15.2 and 26.0: each is there, takes what it took, and is shown at work by a test."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import txmongo
from tests.compat.api import Argument, Row, rows_of

HERE = Path(__file__).parent


def find(path: str) -> Any:
    """The thing that a dotted path leads to from the package, as a program that imports that alone gets there."""
    _, *rest = path.split(".")
    return attrgetter(".".join(rest))(txmongo) if rest else txmongo


def owner_of(row: Row) -> Any:
    """The class in whose namespace a member stands."""
    owner = find(f"{row.module}.{row.owner}")
    return next((kind for kind in owner.__mro__ if row.name in vars(kind)), owner)


def parameters_of(row: Row) -> list[inspect.Parameter]:
    """The arguments of today's callable, without ``self``."""
    if row.owner is None:
        return list(inspect.signature(find(row.path)).parameters.values())
    member = inspect.getattr_static(owner_of(row), row.name)
    parameters = list(inspect.signature(getattr(member, "__func__", member)).parameters.values())
    return parameters if isinstance(member, staticmethod) else parameters[1:]


def differences(row: Row) -> Iterator[str]:
    """Where a callable's arguments are not what they were."""
    assert row.arguments is not None
    parameters = parameters_of(row)
    today = {parameter.name: parameter for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    for index, argument in enumerate(row.arguments):
        name = row.renamed.get(argument.name, argument.name)
        if argument.kind == "**":
            if not takes_any and argument.name not in row.understood:
                yield "takes no further keywords"
        elif argument.name in row.understood or (name not in today and takes_any and argument.kind == "*"):
            continue
        elif name not in today:
            yield f"has no argument {name}"
        else:
            yield from _different(argument, today[name])
            if argument.kind == "" and "order" not in row.understood and positional[index : index + 1] != [name]:
                yield f"has {name} in another place than as argument {index + 1}"
    known = {row.renamed.get(argument.name, argument.name) for argument in row.arguments} | row.understood
    for parameter in parameters:
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and parameter.name not in known and not variable:
            yield f"requires {parameter.name}"


def _different(argument: Argument, parameter: inspect.Parameter) -> Iterator[str]:
    if argument.required or argument.default is ...:
        return
    if parameter.default is parameter.empty:
        yield f"requires {parameter.name}"
    elif parameter.default != argument.default:
        yield f"has {parameter.default!r} as default of {parameter.name}, not {argument.default!r}"


@cache
def module_of(name: str) -> ast.Module:
    """The syntax tree of a module of these tests."""
    return ast.parse((HERE / f"{name}.py").read_text())


def names_used_by(test: str) -> set[str]:
    """Every name, attribute, keyword and text in a test's method, and in the methods of its class that it calls.

    :param test: module, class and method.
    :raises LookupError: there is no such test.
    """
    module, case, method = test.split(".")
    classes = {node.name: node for node in ast.walk(module_of(module)) if isinstance(node, ast.ClassDef)}
    methods: dict[str, ast.AST] = {}
    pending = [case]
    while pending:
        node = classes.get(pending.pop())
        if node is not None:
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    methods.setdefault(each.name, each)
            pending += [base.id for base in node.bases if isinstance(base, ast.Name)]
    if case not in classes or method not in methods or not method.startswith("test"):
        raise LookupError(f"there is no test {test}")
    used = _names_in(methods[method])
    for helper in used & methods.keys():
        used |= _names_in(methods[helper])
    return used


def _names_in(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) if node is not tree:
                found.add(name)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)) | ast.Constant(str(name)):
                found.add(name)
    return found


class ApiCase(SynchronousTestCase):
    """The names of one version."""

    version = ""

    def rows(self) -> Iterator[Row]:
        """The lines of the table."""
        return rows_of(self.version)

    def report(self, problems: list[str]) -> None:
        """Fail with all of them, if there are any."""
        self.assertEqual(problems, [], "\n" + "\n".join(problems))


class ApiTests(ApiCase):
    """TxMongo 15.2."""

    version = "15.2"

    def test_there(self) -> None:
        """Every name is found under its path, and is what it was: a class of those classes, a property, a constant."""
        problems = []
        for row in self.rows():
            if "instances" in row.understood:
                continue
            try:
                thing = find(row.path)
            except AttributeError:
                problems.append(f"{row.path} is not there")
                continue
            if row.is_class:
                wanted = [find(base) if base.startswith("txmongo.") else _outside(base) for base in row.bases]
                if not isinstance(thing, type) or not all(issubclass(thing, base) for base in wanted):
                    problems.append(f"{row.path} is not a class of {row.bases}")
            elif row.same_as is not None:
                if thing is not find(row.same_as):
                    problems.append(f"{row.path} is not {row.same_as}")
            elif row.value is not None:
                if thing != ast.literal_eval(row.value):
                    problems.append(f"{row.path} is {thing!r}, not {row.value}")
            elif row.arguments is not None and not callable(thing) and "instances" not in row.understood:
                problems.append(f"{row.path} cannot be called")
        self.report(problems)

    def test_signatures(self) -> None:
        """Every callable takes the arguments that it took, in their order, with their defaults."""
        rows = [row for row in self.rows() if row.arguments is not None and "instances" not in row.understood]
        self.report([f"{row.path} {problem}" for row in rows for problem in differences(row)])

    def test_shown(self) -> None:
        """Every name is used in the tests that its line names, and every line names one."""
        problems = []
        for row in self.rows():
            if not row.tests:
                problems.append(f"{row.path} is shown by no test")
            for test in row.tests:
                try:
                    used = names_used_by(test)
                except (LookupError, OSError) as error:
                    problems.append(f"{row.path}: {error}")
                else:
                    if row.name not in used:
                        problems.append(f"{row.path} does not occur in {test}")
        self.report(problems)

    def test_reachable(self) -> None:
        """A program that imports the package alone reaches every module, and no reactor is installed by that."""
        modules = sorted({row.module for row in self.rows()})
        program = (
            "import sys, txmongo\n"
            f"for path in {modules!r}:\n"
            "    thing = txmongo\n"
            "    for name in path.split('.')[1:]: thing = getattr(thing, name)\n"
            "    assert thing.__name__ == path, (thing, path)\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, cwd=HERE.parent.parent)


class Api26Tests(ApiTests):
    """TxMongo 26.0."""

    version = "26.0"


def _outside(path: str) -> Any:
    """A class of somebody else's, by its path; a builtin one by its name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module or "builtins"), name)


class RuleTests(SynchronousTestCase):
    """The comparison itself notices what it is there for."""

    def row(self, **fields: Any) -> Row:
        """A line for Collection.find_one_and_delete(filter, projection=None, sort=None, ...)."""
        line: dict[str, Any] = {"module": "txmongo.collection", "owner": "Collection", "name": "find_one_and_delete"}
        return Row(**{**line, "line": 1, **fields})

    def problems(self, *arguments: Argument, **fields: Any) -> list[str]:
        """What is said of these arguments."""
        return list(differences(self.row(arguments=arguments, **fields)))

    def test_arguments(self) -> None:
        """Another name, another place, another default, an argument that is not there."""
        first, second = Argument("filter", required=True), Argument("projection")
        self.assertEqual(self.problems(first, second), [])
        self.assertEqual(len(self.problems(second, first)), 2)
        self.assertEqual(self.problems(second, first, understood=frozenset({"order"})), [])
        self.assertEqual(self.problems(first, Argument("projection", 1))[0].partition(" has ")[2], "")
        self.assertEqual(len(self.problems(first, Argument("projection", 1))), 1)
        self.assertIn("has no argument spec", self.problems(Argument("spec", required=True)))
        self.assertEqual(self.problems(Argument("spec", required=True), renamed={"spec": "filter"}), [])
        self.assertEqual(self.problems(second, understood=frozenset({"order"})), ["requires filter"])
        self.assertEqual(self.problems(first, Argument("kwargs", kind="**")), [])
        self.assertEqual(self.problems(first, Argument("session", kind="*")), [])
        self.assertEqual(len(self.problems(Argument("kwargs", kind="**"), name="rename", owner="Collection")), 1)

    def test_names(self) -> None:
        """A name is found in the test and in the helpers that it calls; a test that does not exist is noticed."""
        self.assertIn("find_with_cursor", names_used_by("test_collection_finds.PageTests.test_pages"))
        self.assertNotIn("find_with_cursor", names_used_by("test_collection_finds.FindOneTests.test_found"))
        for test in ("test_collection_finds.PageTests.test_nothing", "test_collection_finds.Nothing.test_pages"):
            self.assertRaises(LookupError, names_used_by, test)
