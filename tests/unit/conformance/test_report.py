"""Tests of the table and of its JSON."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.report import NOT_HERE, SuiteReport, as_json, as_table, below_floor, totals


def report() -> SuiteReport:
    """Three cases that ran, two skipped, one that cannot run."""
    found = SuiteReport("crud/unified", "unified", passed=2, failed=1, failures=[("case", "message")], seconds=1.25)
    for reason in ("later", "later", NOT_HERE + "wants server 8.0"):
        found.count_skip(reason)
    return found


class ReportTests(SynchronousTestCase):
    """What is said of a run."""

    def test_skips(self) -> None:
        """What the servers cannot run is counted apart from what we do not run."""
        self.assertEqual((report().skipped, report().not_here, report().ran), ({"later": 2}, 1, 3))

    def test_totals(self) -> None:
        """Passed, failed and skipped are added up."""
        self.assertEqual(totals([report(), SuiteReport("csot", "unified", passed=5)]), (7, 1, 2))

    def test_floor(self) -> None:
        """A suite below its floor is named; one without a floor has none."""
        self.assertEqual(below_floor([report()], {"crud/unified": 3, "csot": 9}), [])
        self.assertEqual(len(below_floor([report()], {"crud/unified": 4})), 1)
        self.assertEqual(below_floor([report()], {}), [])

    def test_table(self) -> None:
        """The table has a line for each suite, each reason, each run for comparison, and the sum."""
        found = report()
        found.pipelined["case"] = "failed"
        lines = as_table([found]).splitlines()
        self.assertEqual(lines[2].split(), ["crud/unified", "3", "2", "1", "2", "1", "1.2"])
        self.assertEqual(lines[3].strip(), "2 skipped: later")
        self.assertEqual(lines[4].strip(), "with pipelining failed: case")
        self.assertEqual(lines[-1].split(), ["all", "3", "2", "1", "2", "1", "1.2"])

    def test_json(self) -> None:
        """The JSON holds the same, the failures and the facts given."""
        document = json.loads(as_json([report()], {"python": "3.11"}))
        self.assertEqual((document["python"], document["passed"], document["skipped"]), ("3.11", 2, 2))
        self.assertEqual(document["suites"][0]["failures"], [{"case": "case", "message": "message"}])
