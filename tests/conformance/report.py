"""What came of a run: counts by suite, as a table and as JSON. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

__all__ = ["NOT_HERE", "SuiteReport", "as_json", "as_table", "below_floor", "totals"]

#: Begins the reason of a skip that is the servers' doing, not ours: such a case is none that can run here.
NOT_HERE = "not for these servers: "


@attrs.define
class SuiteReport:
    """The counts of one suite.

    :ivar kind: ``"unified"``, ``"own format"``, ``"reuse"`` (of PyMongo's pure modules) or ``"of the runner"``.
    :ivar not_here: cases that these servers cannot run.
    :ivar skipped: other cases that were not run, by reason.
    :ivar failures: names and messages of the cases that failed.
    :ivar pipelined: for cases that run without pipelining, what came of the run with it.
    """

    suite: str
    kind: str
    passed: int = 0
    failed: int = 0
    not_here: int = 0
    skipped: Counter[str] = attrs.field(factory=Counter)
    failures: list[tuple[str, str]] = attrs.field(factory=list)
    pipelined: dict[str, str] = attrs.field(factory=dict)
    seconds: float = 0.0

    @property
    def ran(self) -> int:
        """How many cases ran."""
        return self.passed + self.failed

    def count_skip(self, reason: str) -> None:
        """Count a case that was not run."""
        if reason.startswith(NOT_HERE):
            self.not_here += 1
        else:
            self.skipped[reason] += 1


def totals(reports: Iterable[SuiteReport]) -> tuple[int, int, int]:
    """Passed, failed, skipped."""
    found = list(reports)
    return (
        sum(report.passed for report in found),
        sum(report.failed for report in found),
        sum(report.skipped.total() for report in found),
    )


def below_floor(reports: Iterable[SuiteReport], floors: Mapping[str, int]) -> list[str]:
    """For each suite of which too few cases ran, a line that says so."""
    return [
        f"{report.suite}: {report.ran} cases ran, the floor is {floors[report.suite]}"
        for report in reports
        if report.ran < floors.get(report.suite, 0)
    ]


def as_table(reports: Iterable[SuiteReport]) -> str:
    """The table: a line a suite, below it the reasons of its skips."""
    found = list(reports)
    width = max((len(report.suite) for report in found), default=5)
    head = f"{'suite':{width}}  {'ran':>5} {'passed':>6} {'failed':>6} {'skipped':>7} {'not here':>8} {'seconds':>7}"
    lines = [head, "-" * len(head)]
    for report in found:
        lines.append(_line(report.suite, report, width))
        lines += [f"  {count:>4} skipped: {reason}" for reason, count in sorted(report.skipped.items())]
        lines += [f"  with pipelining {outcome}: {case}" for case, outcome in sorted(report.pipelined.items())]
    lines += ["-" * len(head), _line("all", _sum(found), width)]
    return "\n".join(lines)


def _line(name: str, report: SuiteReport, width: int) -> str:
    counts = f"{report.ran:>5} {report.passed:>6} {report.failed:>6} {report.skipped.total():>7} {report.not_here:>8}"
    return f"{name:{width}}  {counts} {report.seconds:>7.1f}"


def _sum(reports: list[SuiteReport]) -> SuiteReport:
    total = SuiteReport("all", "")
    for report in reports:
        total.passed += report.passed
        total.failed += report.failed
        total.not_here += report.not_here
        total.seconds += report.seconds
        total.skipped += report.skipped
    return total


def as_json(reports: Iterable[SuiteReport], facts: Mapping[str, Any]) -> str:
    """The same as JSON, with facts about the run beside it."""
    found = list(reports)
    suites = [
        {
            "suite": report.suite,
            "kind": report.kind,
            "ran": report.ran,
            "passed": report.passed,
            "failed": report.failed,
            "skipped": dict(sorted(report.skipped.items())),
            "not_for_these_servers": report.not_here,
            "failures": [{"case": case, "message": message} for case, message in report.failures],
            "with_pipelining": report.pipelined,
            "seconds": round(report.seconds, 1),
        }
        for report in found
    ]
    passed, failed, skipped = totals(found)
    document = {**facts, "passed": passed, "failed": failed, "skipped": skipped, "suites": suites}
    return json.dumps(document, indent=2) + "\n"
