"""Add up what test runs said of themselves: ``sum_tests.py LOG...`` prints ``N passed, N failed, N skipped``.

Read are the closing lines of trial (``FAILED (failures=1, successes=2)``) and lines of the very form that is printed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

TRIAL = re.compile(r"^(?:PASSED|FAILED)(?: \((?P<counts>[\w=, ]+)\))?$", re.MULTILINE)
PLAIN = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)
KINDS = {
    "successes": "passed",
    "expectedFailures": "passed",
    "failures": "failed",
    "errors": "failed",
    "unexpectedSuccesses": "failed",
    "skips": "skipped",
}


def counts(log: str) -> Counter[str]:
    """Passed, failed and skipped tests of one log."""
    total: Counter[str] = Counter()
    for line in TRIAL.finditer(log):
        for kind, number in re.findall(r"(\w+)=(\d+)", line["counts"] or ""):
            total[KINDS[kind]] += int(number)
    for passed, failed, skipped in PLAIN.findall(log):
        total.update(passed=int(passed), failed=int(failed), skipped=int(skipped or 0))
    return total


def main(*files: str) -> None:
    """Print the sum of all logs."""
    total: Counter[str] = Counter()
    for file in files:
        total += counts(Path(file).read_text(errors="replace"))
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")


if __name__ == "__main__":
    main(*sys.argv[1:])
