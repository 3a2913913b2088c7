"""Tests of the page about conformance: its table, and that what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance import page
from tests.conformance.suites import KINDS, OF_THE_RUNNER, UNIFIED

ROOT = Path(page.__file__).parents[2]
FACTS = {"specifications": "pymongo==1", "python": "3", "twisted": "2", "pymongo": "1"}


def suite(name: str, passed: int = 1, **skipped: int) -> dict[str, Any]:
    """A suite's part of the JSON."""
    return {"suite": name, "kind": KINDS[name], "passed": passed, "failed": 0, "skipped": skipped}


def rows(text: str) -> list[list[str]]:
    """The rows of all tables."""
    return [
        re.findall(r"^ +(?:\* )?- ?(.*)$", row, re.MULTILINE) for row in re.split(r"^(?=   \* -)", text, flags=re.M)[1:]
    ]


class TableTests(SynchronousTestCase):
    """What is made of runs."""

    def test_merged(self) -> None:
        """Of a suite that ran twice the later run counts; suites come in their order."""
        first = {**FACTS, "suites": [suite("sessions", 1), suite("csot", 2)]}
        second = {**FACTS, "pymongo": "2", "suites": [suite("crud/unified", 3), suite("sessions", 4)]}
        both = page.merged([first, second])
        self.assertEqual(both["pymongo"], "2")
        self.assertEqual(
            [(one["suite"], one["passed"]) for one in both["suites"]],
            [("crud/unified", 3), ("csot", 2), ("sessions", 4)],
        )

    def test_rows(self) -> None:
        """A suite has a row, with PyMongo's number where there is one; the runner's own tests have none."""
        suites = [suite("crud/unified", 3, later=2), suite("auth", 4), suite("runner/bookkeeping")]
        text = page.as_rst({**FACTS, "suites": suites})
        found = rows(text)
        self.assertIn(["``crud/unified``", "3", "0", "2", str(page.PYMONGO["crud/unified"])], found)
        self.assertIn(["``auth``", "4", "0", "0"], found)
        self.assertIn(["all", "3", "0", "2", str(page.PYMONGO["crud/unified"])], found)
        self.assertNotIn("runner", text)
        self.assertIn("- 2 cases: later", text)

    def test_figures(self) -> None:
        """PyMongo's numbers are about suites that there are, and about every unified one."""
        without_number = {"client-side-encryption/spec/unified", "read_write_concern/write-concern-errors"}
        self.assertEqual(set(page.PYMONGO) | without_number, set(UNIFIED))


class PageTests(SynchronousTestCase):
    """The page as it is committed."""

    def setUp(self) -> None:
        self.table = page.TABLE.read_text("utf-8")
        self.text = (ROOT / "docs" / "conformance.rst").read_text("utf-8")

    def test_suites(self) -> None:
        """Every suite has its row, in their order, and none of its cases fails."""
        found = {row[0].strip("`"): row[1:] for row in rows(self.table) if row[0].startswith("``")}
        self.assertEqual(list(found), [name for name in KINDS if name not in OF_THE_RUNNER])
        self.assertEqual({name: row for name, row in found.items() if int(row[1])}, {})

    def test_places(self) -> None:
        """The tests that the page names are there."""
        places = re.findall(r"``(tests/[\w/]+\.py)``(?:, ``([A-Z]\w+)``)?", self.text)
        self.assertGreater(len(places), 15)
        for path, name in places:
            self.assertTrue((ROOT / path).is_file(), path)
            if name:
                self.assertIn(f"\nclass {name}(", (ROOT / path).read_text("utf-8"), path)
