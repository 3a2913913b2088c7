"""What stands in ``skips.toml``, ``one_per_connection.toml`` and ``floor.toml``, and which cases it is about.

An entry of ``skips.toml`` has a ``reason`` and says which cases it means by any of ``suite``, ``file`` and
``description`` (with ``*`` and ``?``; or a list of such) and ``uses`` (one of a case's features, see :func:`features`).
All that are given have to hold. An entry of ``one_per_connection.toml`` names one case by ``suite``, ``file`` and
``description``.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.conformance.loader import Case

__all__ = ["Entry", "features", "floors", "one_per_connection", "reason_for", "skips", "without_cases"]

HERE = Path(__file__).parent
MOST_PER_CONNECTION = 30


def _patterns(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class Entry:
    """Some cases and the reason why they are treated in their own way."""

    reason: str
    suite: tuple[str, ...] = attrs.field(default=("*",), converter=_patterns)
    file: tuple[str, ...] = attrs.field(default=("*",), converter=_patterns)
    description: tuple[str, ...] = attrs.field(default=("*",), converter=_patterns)
    uses: tuple[str, ...] = attrs.field(default=(), converter=_patterns)

    def covers(self, case: Case) -> bool:
        """Whether a case is one of those meant."""
        named = zip((self.suite, self.file, self.description), case.key, strict=True)
        if not all(any(_like(text, pattern) for pattern in patterns) for patterns, text in named):
            return False
        return not self.uses or not features(case).isdisjoint(self.uses)


def _like(text: str, pattern: str) -> bool:
    """Like fnmatch, but brackets mean themselves: descriptions are full of them."""
    return text == pattern or fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _read(name: str, folder: Path = HERE) -> dict[str, Any]:
    return tomllib.loads((folder / name).read_text("utf-8"))


def skips(folder: Path = HERE) -> list[Entry]:
    """The entries of ``skips.toml``."""
    return [Entry(**entry) for entry in _read("skips.toml", folder).get("skip", [])]


def one_per_connection(folder: Path = HERE) -> list[Entry]:
    """The entries of ``one_per_connection.toml``."""
    entries = [Entry(**entry) for entry in _read("one_per_connection.toml", folder).get("case", [])]
    if len(entries) > MOST_PER_CONNECTION:
        raise ValueError(f"{len(entries)} cases run without pipelining, at most {MOST_PER_CONNECTION} may")
    return entries


def floors(folder: Path = HERE) -> dict[str, int]:
    """For each suite how many cases have to run at least."""
    return {suite: int(count) for suite, count in _read("floor.toml", folder).get("ran", {}).items()}


def reason_for(case: Case, entries: Iterable[Entry]) -> str | None:
    """The reason of the first entry that covers a case."""
    return next((entry.reason for entry in entries if entry.covers(case)), None)


def without_cases(entries: Iterable[Entry], cases: list[Case]) -> list[Entry]:
    """The entries that cover no case."""
    return [entry for entry in entries if not any(entry.covers(case) for case in cases)]


def features(case: Case) -> frozenset[str]:
    """What a case uses: ``entity:session``, ``client:timeoutMS`` (an option of a client), ``operation:find``,
    ``argument:timeoutMS`` (of an operation), ``logs``, ``query analysis`` (for automatic encryption)."""
    found = set(_entity_features(case.document.get("createEntities", ())))
    found.update(_operation_features(case.test.get("operations", ())))
    if "expectLogMessages" in case.test:
        found.add("logs")
    if "client:encrypts" in found and not _AS_A_WHOLE.issuperset(name for name in found if name.startswith("op")):
        found.add("query analysis")
    return frozenset(found)


#: Of operations on collections as a whole no part is to be encrypted.
_AS_A_WHOLE = {f"operation:{name}" for name in ("createCollection", "dropCollection", "assertCollectionNotExists")}


def _encrypts(options: Mapping[str, Any] | None) -> bool:
    """Whether ``autoEncryptOpts`` have commands encrypted."""
    return options is not None and not (options.get("bypassAutoEncryption") or options.get("bypassQueryAnalysis"))


def _entity_features(descriptions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for description in descriptions:
        for kind, spec in description.items():
            yield f"entity:{kind}"
            options = spec.get("uriOptions", {})
            for option in (*options, *spec) if kind == "client" else ():
                yield f"client:{option}"
            if _encrypts(spec.get("autoEncryptOpts")):
                yield "client:encrypts"


def _operation_features(operations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for operation in operations:
        yield f"operation:{operation.get('name')}"
        arguments = operation.get("arguments") or {}
        if operation.get("object") != "testRunner":
            for argument in arguments:
                yield f"argument:{argument}"
        yield from _entity_features(arguments.get("entities", ()))
        for nested in ("operations", "callback"):
            yield from _operation_features(arguments.get(nested, ()))
        if "operation" in arguments:
            yield from _operation_features([arguments["operation"]])
