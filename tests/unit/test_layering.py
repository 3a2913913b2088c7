"""The rules of who may import what, kept by reading the source.

Imports go one way: fronts, ``_ops``, ``_sdam``, ``_cmap``, ``protocol``, ``_wire``; leaves may be imported by all and
import only one another; ``testing`` is above everything and imported by nothing. See docs/architecture.rst.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

import txmongo

ROOT = Path(txmongo.__file__).parent
LEAF, WIRE, PROTOCOL, CMAP, SDAM, OPS, FRONT, TESTING = range(8)
PACKAGES = {"_wire": WIRE, "_cmap": CMAP, "_sdam": SDAM, "_ops": OPS, "_testing": TESTING}
MODULES = {"protocol": PROTOCOL, "_waiters": PROTOCOL, "testing": TESTING}
#: The old opcodes belong to those of today, and what the protocol offers to the protocol.
LEGACY = {"_legacy": LEAF, "_legacy.last_error": LEAF, "_legacy.messages": WIRE}
LEGACY |= {"_legacy.protocol_methods": PROTOCOL, "_legacy.protocols": PROTOCOL}
FRONTS = {"", "bulk", "change_stream", "collection", "connection", "cursor", "database", "gridfs", "sessions"}
FRONTS |= {
    "_client_bulk",
    "_client_parts",
    "_collection",
    "_command_cursor",
    "_create_drop",
    "_deployment",
    "_encryption",
    "encryption",
    "_gridfs",
    "_legacy",
    "_scope",
    "_sessions",
    "utils",
}
PROCESSES = {"ctypes", "multiprocessing", "subprocess"}
PYMONGO = {"bson", "gridfs", "pymongo"}


@attrs.frozen
class Import:
    """One imported name: ``from module import name``, or ``import module`` where the name is empty."""

    module: str
    name: str
    line: int
    in_function: bool
    for_types: bool


def imports_of(tree: ast.AST, in_function: bool = False, for_types: bool = False) -> Iterator[Import]:
    """Every import in a module, however deep."""
    for node in ast.iter_child_nodes(tree):
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno, inside, types)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            for alias in node.names:
                yield Import(dots + (node.module or ""), alias.name, node.lineno, inside, types)
        else:
            yield from imports_of(node, inside, types)


def layer(module: str) -> int:
    """Which layer a module of ours belongs to."""
    inner = module.removeprefix("txmongo").removeprefix(".")
    first = inner.split(".")[0]
    if inner in LEGACY:
        return LEGACY[inner]
    if first in PACKAGES:
        return PACKAGES[first]
    return MODULES.get(first, FRONT if first in FRONTS else LEAF)


def target(imported: Import, modules: Collection[str]) -> str | None:
    """The module of ours that an import names, if it names one."""
    whole = f"{imported.module}.{imported.name}"
    if whole in modules:
        return whole
    return imported.module if imported.module in modules else None


def upward(module: str, tree: ast.AST, modules: Collection[str]) -> Iterator[str]:
    """Imports of a higher layer, and relative ones, whose target the reader has to work out."""
    for imported in imports_of(tree):
        if imported.module.startswith("."):
            yield f"{module}:{imported.line} imports relatively"
            continue
        there = target(imported, modules)
        if there is not None and layer(there) > layer(module):
            yield f"{module}:{imported.line} imports {there}, which is above it"


def cycles(graph: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Circles of modules that import one another when they run."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> Iterator[str]:
        if module in path:
            yield " -> ".join([*path[path.index(module) :], module])
        elif module not in done:
            for imported in sorted(graph[module]):
                yield from visit(imported, [*path, module])
            done.add(module)

    for module in sorted(graph):
        yield from visit(module, [])


def in_functions(module: str, tree: ast.AST) -> Iterator[str]:
    """Imports inside a function, but for the one place that defaults the reactor."""
    for imported in imports_of(tree):
        the_default = (module, imported.module, imported.name) == ("txmongo.connection", "twisted.internet", "reactor")
        if imported.in_function and not the_default:
            yield f"{module}:{imported.line} imports {imported.module} inside a function"


def reactors(module: str, tree: ast.AST) -> Iterator[str]:
    """Imports of the global reactor at module level, which would install one."""
    for imported in imports_of(tree):
        names = f"{imported.module}.{imported.name}".startswith("twisted.internet.reactor")
        if names and not imported.in_function and not imported.for_types:
            yield f"{module}:{imported.line} imports the global reactor"


def strangers(module: str, tree: ast.AST) -> Iterator[str]:
    """asyncio anywhere, and what starts processes outside the testing package."""
    for imported in imports_of(tree):
        package = imported.module.split(".")[0]
        if package == "asyncio" or imported.name == "asyncio":
            yield f"{module}:{imported.line} imports asyncio"
        if package in PROCESSES and layer(module) != TESTING:
            yield f"{module}:{imported.line} imports {package}"


def private_names(module: str, tree: ast.AST) -> Iterator[str]:
    """Private names of PyMongo outside the module that gathers them."""
    if module == "txmongo._pymongo":
        return
    known: set[str] = set()
    for imported in imports_of(tree):
        path = [*imported.module.split("."), *filter(None, [imported.name])]
        if path[0] not in PYMONGO:
            continue
        known.add(path[-1] if imported.name else path[0])
        if any(is_private(part) for part in path):
            yield f"{module}:{imported.line} imports {'.'.join(path)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            base = ast.unparse(node.value)
            if base in known or base.split(".")[0] in PYMONGO & known:
                yield f"{module}:{node.lineno} names {base}.{node.attr}"


def is_private(name: str) -> bool:
    """Whether a name starts with an underscore and is not a special one."""
    return name.startswith("_") and not name.endswith("__")


def own_modules() -> dict[str, ast.AST]:
    """The syntax tree of every module of ours, by dotted name."""
    trees: dict[str, ast.AST] = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = ("txmongo", *file.relative_to(ROOT).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(file.read_text(), filename=str(file))
    return trees


def graph_of(trees: Mapping[str, ast.AST]) -> dict[str, set[str]]:
    """Who imports whom when run."""
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        found = {target(imported, trees) for imported in imports_of(tree) if not imported.for_types}
        graph[module] = {there for there in found if there is not None} - {module}
    return graph


class LayeringTests(SynchronousTestCase):
    """The package as it is."""

    def setUp(self) -> None:
        self.trees = own_modules()

    def test_modules_found(self) -> None:
        """The walk sees the modules of every layer."""
        self.assertLessEqual({LEAF, WIRE, PROTOCOL, CMAP, SDAM, OPS, FRONT, TESTING}, set(map(layer, self.trees)))

    def test_upward(self) -> None:
        """No module imports one of a layer above its own."""
        self.assertEqual([p for name, tree in self.trees.items() for p in upward(name, tree, self.trees)], [])

    def test_cycles(self) -> None:
        """No modules import one another in a circle."""
        self.assertEqual(list(cycles(graph_of(self.trees))), [])

    def test_in_functions(self) -> None:
        """No function imports, but for the default of the reactor in connection.py."""
        self.assertEqual([p for name, tree in self.trees.items() for p in in_functions(name, tree)], [])

    def test_reactors(self) -> None:
        """Importing any module installs no reactor."""
        self.assertEqual([p for name, tree in self.trees.items() for p in reactors(name, tree)], [])

    def test_strangers(self) -> None:
        """Nothing uses asyncio, and only the testing package starts processes by other means than the reactor's."""
        self.assertEqual([p for name, tree in self.trees.items() for p in strangers(name, tree)], [])

    def test_private_names(self) -> None:
        """Only _pymongo names PyMongo's private names."""
        self.assertEqual([p for name, tree in self.trees.items() for p in private_names(name, tree)], [])

    def test_tour(self) -> None:
        """The tour of the code, docs/architecture.rst, comes past every module."""
        tour = (ROOT.parent / "docs" / "architecture.rst").read_text()
        named = {name for quoted in re.findall(r"``([\w.]+)``", tour) for name in quoted.split(".")}
        stems = {name.rpartition(".")[2] for name in self.trees}
        self.assertEqual(sorted(stems - named - {"_version"}), [])


class RuleTests(SynchronousTestCase):
    """The rules themselves, on samples that break them."""

    modules = ("txmongo", "txmongo.protocol", "txmongo._cmap", "txmongo._cmap.pool", "txmongo._sdam.topology")

    def test_upward(self) -> None:
        """A child that imports its parent is found, also where the import is only for types; the other way is fine."""
        for source in (
            "from txmongo._sdam.topology import Topology",
            "import txmongo._sdam.topology",
            "if TYPE_CHECKING:\n    from txmongo._sdam import topology",
            "from .._sdam import topology",
        ):
            self.assertEqual(len(list(upward("txmongo._cmap.pool", ast.parse(source), self.modules))), 1, source)
        fine = ast.parse("from txmongo._cmap.pool import Pool\nfrom txmongo import protocol\nimport attrs")
        self.assertEqual(list(upward("txmongo._sdam.topology", fine, self.modules)), [])

    def test_leaves(self) -> None:
        """A leaf may import leaves alone."""
        tree = ast.parse("from txmongo import _pymongo, protocol")
        found = list(upward("txmongo._settings", tree, [*self.modules, "txmongo._pymongo"]))
        self.assertEqual(found, ["txmongo._settings:1 imports txmongo.protocol, which is above it"])

    def test_cycles(self) -> None:
        """A circle is found and shown; imports for types alone make none."""
        trees = {
            "a": ast.parse("import b"),
            "b": ast.parse("import c"),
            "c": ast.parse("import b\nif TYPE_CHECKING:\n    import a"),
        }
        self.assertEqual(list(cycles(graph_of(trees))), ["b -> c -> b"])

    def test_in_functions(self) -> None:
        """An import inside a function is found; the default of the reactor is allowed in connection.py alone."""
        tree = ast.parse("def f():\n    from twisted.internet import reactor\nclass C:\n    import json")
        self.assertEqual(len(list(in_functions("txmongo.cursor", tree))), 1)
        self.assertEqual(list(in_functions("txmongo.connection", tree)), [])

    def test_reactors(self) -> None:
        """The global reactor is found however it is imported."""
        for source in ("from twisted.internet import defer, reactor", "import twisted.internet.reactor"):
            self.assertEqual(len(list(reactors("txmongo.cursor", ast.parse(source)))), 1, source)

    def test_strangers(self) -> None:
        """asyncio is found everywhere, subprocess outside the testing package."""
        tree = ast.parse("import subprocess\nfrom asyncio import Future")
        self.assertEqual(len(list(strangers("txmongo.cursor", tree))), 2)
        self.assertEqual(len(list(strangers("txmongo._testing.guard", tree))), 1)

    def test_private_names(self) -> None:
        """A private name of PyMongo is found as an import and as an attribute; special names are fine."""
        for source in (
            "from pymongo.message import _op_msg",
            "import bson._helpers",
            "from pymongo import message\nmessage._op_msg()",
            "import pymongo.message\npymongo.message._op_msg()",
        ):
            self.assertEqual(len(list(private_names("txmongo.cursor", ast.parse(source)))), 1, source)
            self.assertEqual(list(private_names("txmongo._pymongo", ast.parse(source))), [])
        fine = ast.parse("import pymongo\npymongo.__version__\nself._sessions._pool")
        self.assertEqual(list(private_names("txmongo.cursor", fine)), [])
