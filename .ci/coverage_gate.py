"""Refuse too little branch coverage: ``coverage_gate.py REPORT.json [TESTS...]``.

The wire layer, the protocol and the pure decisions of pool and retry are covered whole; everything together to 95 %.
When only some of the tests were run (any TESTS given), their coverage says nothing and nothing is refused.
"""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch
from typing import Any

WHOLE = (
    "txmongo/_wire/*",
    "txmongo/protocol.py",
    "txmongo/_waiters.py",
    "txmongo/_legacy/protocol_methods.py",
    "txmongo/_cmap/choice.py",
    "txmongo/_ops/retry.py",
)
OVERALL = 95.0


def shortcomings(report: dict[str, Any]) -> list[str]:
    """What of the report does not suffice."""
    found = []
    for name, file in sorted(report["files"].items()):
        percent = file["summary"]["percent_covered"]
        if percent < 100 and any(fnmatch(name, pattern) for pattern in WHOLE):
            branches = [f"{start}->{end}" for start, end in file["missing_branches"]]
            missing = ", ".join(map(str, file["missing_lines"] + branches))
            found.append(f"{name}: {percent:.1f} % of 100 %; missing {missing}")
    for pattern in WHOLE:
        if not any(fnmatch(name, pattern) for name in report["files"]):
            found.append(f"{pattern}: no such file was measured")
    overall = report["totals"]["percent_covered"]
    if overall < OVERALL:
        found.append(f"all together: {overall:.1f} % of {OVERALL:g} %")
    return found


def main(file: str, *tests: str) -> int:
    """Print what does not suffice; 1 if anything."""
    if tests:
        print("coverage: only some of the tests ran, not judged")
        return 0
    with open(file) as stream:
        report = json.load(stream)
    found = shortcomings(report)
    print("\n".join(found) or f"coverage: {report['totals']['percent_covered']:.1f} % of lines and branches")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
