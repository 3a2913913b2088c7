"""Tests of the choice of suites, and of trees that do not have them all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance import __main__ as command
from tests.conformance import loader
from tests.conformance.suites import MODULES

RTT = "server_selection/rtt"


class ChoiceTests(SynchronousTestCase):
    """The suites that were named."""

    def test_all(self) -> None:
        """Without names all are meant, also those that test the runner."""
        self.assertIn("crud/unified", command.chosen([]))
        self.assertIn("runner/mutations", command.chosen([]))

    def test_beginnings(self) -> None:
        """A name is a suite, or the beginning of some, which come in the order of the table."""
        self.assertEqual(command.chosen(["sessions", "crud"]), ["crud/unified", "sessions"])
        self.assertEqual(
            command.chosen(["unified-test-format"]),
            ["unified-test-format/valid-pass", "unified-test-format/valid-fail"],
        )

    def test_unknown(self) -> None:
        """A name that no suite begins with is refused."""
        error = self.assertRaises(SystemExit, command.chosen, ["crud", "crude"])
        self.assertIn("crude", str(error))


class TreeTests(SynchronousTestCase):
    """Another tree than the pinned one."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "crud/unified").mkdir(parents=True)
        self.patch(os, "environ", {**os.environ, "TXMONGO_SPECS_DIR": str(self.root)})
        # The suite's module makes its tests when it is imported: here from this tree, elsewhere from another.
        name = MODULES[RTT]
        before = sys.modules.pop(name, None)
        if before is not None:
            self.addCleanup(sys.modules.__setitem__, name, before)
        self.addCleanup(sys.modules.pop, name, None)

    def test_missing_suite(self) -> None:
        """A suite that the tree does not have has no tests."""
        self.assertEqual(command.tests_of(RTT).countTestCases(), 0)

    def test_suite(self) -> None:
        """A suite that it has consists of the tree's own cases, in whichever naming."""
        (self.root / "source/crud/tests").mkdir(parents=True)
        folder = self.root / "source/server-selection/tests/rtt"
        folder.mkdir(parents=True)
        for name in ("one", "two"):
            document = {"avg_rtt_ms": "NULL", "new_rtt_ms": 5, "new_avg_rtt": 5}
            (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
        self.patch(os, "environ", {**os.environ, "TXMONGO_SPECS_DIR": str(self.root / "source")})
        names = command.ids(command.tests_of(RTT))
        self.assertEqual([name.rsplit("_", 1)[1] for name in names], ["one", "two"])

    def test_pinned(self) -> None:
        """That a suite of the pinned tests is missing is an error."""

        def missing(suite: str) -> None:
            raise loader.NoSuchSuite(suite)

        self.patch(command, "_loaded", missing)
        self.assertEqual(command.tests_of(RTT).countTestCases(), 0)
        del os.environ["TXMONGO_SPECS_DIR"]
        self.assertRaises(loader.NoSuchSuite, command.tests_of, RTT)
