"""Writes the table of ``docs/conformance.rst``: ``python -m tests.conformance.page conformance.json``.

Several JSON files may be given, for runs of some suites each: of a suite that is in more than one the last counts. The
table goes to ``docs/conformance_table.inc``, which is committed; ``tests/unit/conformance/test_page.py`` holds it to
the suites that there are.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.conformance.suites import KINDS, OF_THE_RUNNER

__all__ = ["PYMONGO", "TABLE", "as_rst", "main", "merged"]

TABLE = Path(__file__).parents[2] / "docs" / "conformance_table.inc"

#: How many cases of the unified suites PyMongo 4.20's asynchronous client passes on a replica set and a standalone of
#: MongoDB 6.0.5. A number stands at the first of the suites that it is about.
PYMONGO = {
    "crud/unified": 307,
    "retryable_reads/unified": 307,
    "retryable_writes/unified": 127,
    "transactions/unified": 153,
    "transactions-convenient-api/unified": 29,
    "csot": 315,
    "client-backpressure": 97,
    "change_streams/unified": 65,
    "sessions": 31,
    "causal_consistency": 17,
    "command_monitoring": 33,
    "command_logging": 29,
    "connection_logging": 5,
    "server_selection_logging": 6,
    "discovery_and_monitoring/unified": 32,
    "gridfs": 45,
    "versioned-api": 39,
    "read_write_concern/operation": 36,
    "run_command/unified": 18,
    "collection_management": 6,
    "index_management": 0,
    "handshake/unified": 1,
    "load_balancer": 2,
    "unified-test-format/valid-pass": 74,
    "unified-test-format/valid-fail": 26,
}

#: Suites without a number of their own: in PyMongo's count one with that before it, or not counted.
_WITHOUT_NUMBER = {
    "client-side-encryption/spec/unified": "not counted",
    "read_write_concern/write-concern-errors": "as above",
}

_HEADINGS = {
    "unified": "Cases in the unified format",
    "own format": "Cases in formats of their own, for the driver's own code",
    "stand-in": "Cases of commands of MongoDB 7.0 and 8.0, and of tokens, against one of 6.0 that stands in for it",
    "reuse": "Cases for what PyMongo's modules decide, which the driver uses: they show that it does",
}


def merged(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One document of several: the facts of the last, and of each suite the last that ran."""
    facts: dict[str, Any] = {}
    suites: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        facts |= {name: value for name, value in document.items() if name != "suites"}
        suites |= {suite["suite"]: suite for suite in document["suites"]}
    return {**facts, "suites": [suites[suite] for suite in KINDS if suite in suites]}


def as_rst(document: Mapping[str, Any]) -> str:
    """The tables, below them the reasons of the skips."""
    found = [suite for suite in document["suites"] if suite["suite"] not in OF_THE_RUNNER]
    lines = [
        ".. Written by python -m tests.conformance.page; not to be edited.",
        "",
        f"Specification tests of {document['specifications']}, run with Python {document['python']}, "
        f"Twisted {document['twisted']} and PyMongo {document['pymongo']}.",
        "",
    ]
    for kind, heading in _HEADINGS.items():
        lines += _table(heading, [suite for suite in found if suite["kind"] == kind], pymongo=kind == "unified")
    reasons: Counter[str] = Counter()
    for suite in found:
        reasons.update(suite["skipped"])
    if reasons:
        lines += ["Skipped are:", ""]
        lines += [
            f"- {count} {'case' if count == 1 else 'cases'}: {reason}" for reason, count in sorted(reasons.items())
        ]
    return "\n".join(lines) + "\n"


def _table(heading: str, suites: list[Mapping[str, Any]], *, pymongo: bool) -> Iterator[str]:
    columns = ["passed", "failed", "skipped", *(["PyMongo passes"] if pymongo else [])]
    yield f".. list-table:: {heading}"
    yield "   :header-rows: 1"
    yield f"   :widths: 44 {' '.join('14' for _ in columns)}"
    yield ""
    yield from _row(["suite", *columns])
    for suite in suites:
        name, skipped = suite["suite"], sum(suite["skipped"].values())
        cells = [f"``{name}``", suite["passed"], suite["failed"], skipped]
        yield from _row([*cells, PYMONGO.get(name, _WITHOUT_NUMBER.get(name, ""))] if pymongo else cells)
    counts = [sum(suite[column] for suite in suites) for column in ("passed", "failed")]
    skipped = sum(sum(suite["skipped"].values()) for suite in suites)
    names = {suite["suite"] for suite in suites}
    theirs = sum(number for name, number in PYMONGO.items() if name in names)
    yield from _row(["all", *counts, skipped, *([theirs] if pymongo else [])])
    yield ""


def _row(cells: Iterable[Any]) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield f"   {'  -' if number else '* -'} {cell}".rstrip()


def main(arguments: list[str]) -> int:
    """Write the table; gives the exit status."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    documents = [json.loads(Path(name).read_text("utf-8")) for name in arguments]
    TABLE.write_text(as_rst(merged(documents)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
