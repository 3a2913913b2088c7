"""Tests of what decides whether a change may land: the scripts in ``.ci`` and the commands that the README names."""

from __future__ import annotations

import configparser
import io
import json
import os
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from twisted.trial.unittest import SynchronousTestCase

from tests.scripts import ROOT, load


def script(name: str) -> Any:
    """A script of ``.ci`` as a module."""
    return load(f".ci/{name}.py")


class SumTests(SynchronousTestCase):
    """Adding up what test runs said."""

    def sum_of(self, *logs: str) -> str:
        """What the script prints for these logs."""
        files = [Path(self.mktemp()) for _ in logs]
        for file, log in zip(files, logs, strict=True):
            file.write_text(log)
        printed = io.StringIO()
        with redirect_stdout(printed):
            script("sum_tests").main(*map(str, files))
        return printed.getvalue()

    def test_trial(self) -> None:
        """Trial's closing lines are added up; expected failures pass, unexpected successes fail."""
        log = (
            "Ran 9 tests in 1.0s\n\nPASSED (skips=1, expectedFailures=2, successes=6)\nother things\n"
            "FAILED (failures=1, errors=2, unexpectedSuccesses=1, successes=3)\n"
        )
        self.assertEqual(self.sum_of(log), "11 passed, 4 failed, 1 skipped\n")

    def test_plain(self) -> None:
        """Plain closing lines count, of several logs together."""
        logs = ("307 passed, 2 failed, 4 skipped\n", "PASSED (successes=1)\n", "5 passed, 0 failed\n")
        self.assertEqual(self.sum_of(*logs), "313 passed, 2 failed, 4 skipped\n")

    def test_nothing(self) -> None:
        """A log without closing lines counts nothing, whatever words are in it."""
        self.assertEqual(self.sum_of("PASSED by\n3 passed, it seems\n"), "0 passed, 0 failed, 0 skipped\n")


class CoverageGateTests(SynchronousTestCase):
    """Refusing too little coverage."""

    def judged(self, overall: float, *tests: str, **percents: float) -> tuple[int, str]:
        """What the script says of a report."""
        whole = ("_wire/header.py", "protocol.py", "_waiters.py", "_legacy/protocol_methods.py")
        whole += ("_cmap/choice.py", "_ops/retry.py")
        files: dict[str, Any] = {}
        for name in (f"txmongo/{module}" for module in (*whole, "cursor.py")):
            percent = percents.get(Path(name).stem, 100.0)
            if percent >= 0:
                summary = {"percent_covered": percent}
                files[name] = {"summary": summary, "missing_lines": [7], "missing_branches": [[8, 9]]}
        report = Path(self.mktemp())
        report.write_text(json.dumps({"files": files, "totals": {"percent_covered": overall}}))
        printed = io.StringIO()
        with redirect_stdout(printed):
            status = script("coverage_gate").main(str(report), *tests)
        return status, printed.getvalue()

    def test_enough(self) -> None:
        """95 % of all and the whole of what must be whole is enough."""
        self.assertEqual(self.judged(95.0, cursor=90.0), (0, "coverage: 95.0 % of lines and branches\n"))

    def test_not_whole(self) -> None:
        """A module that must be whole and is not is named with what is missing."""
        status, said = self.judged(99.0, retry=99.0)
        self.assertEqual((status, said), (1, "txmongo/_ops/retry.py: 99.0 % of 100 %; missing 7, 8->9\n"))

    def test_too_little(self) -> None:
        """Less than 95 % of all is refused."""
        self.assertEqual(self.judged(94.9), (1, "all together: 94.9 % of 95 %\n"))

    def test_not_measured(self) -> None:
        """A module that must be whole and was not measured at all is refused."""
        self.assertEqual(self.judged(99.0, protocol=-1.0), (1, "txmongo/protocol.py: no such file was measured\n"))

    def test_some_tests(self) -> None:
        """The coverage of some of the tests is not judged."""
        self.assertEqual(self.judged(10.0, "tests.unit.test_ci")[0], 0)


class ChanceTests(SynchronousTestCase):
    """What may not decide."""

    def test_hypothesis(self) -> None:
        """Neither chance nor a busy machine decides whether a test with examples passes."""
        self.assertEqual(
            os.environ.get("HYPOTHESIS_PROFILE", "repeatable") == "repeatable", settings.default.derandomize
        )
        self.assertIs(settings.default.deadline, None)
        self.assertIn(HealthCheck.too_slow, settings.default.suppress_health_check)


class CommandsTests(SynchronousTestCase):
    """The commands that the README names."""

    def test_environments(self) -> None:
        """Each is one line that ends in a tox environment that there is."""
        commands = re.findall(r"^    (.*tox run -e (\w+))$", (ROOT / "README.rst").read_text(), re.MULTILINE)
        tox = configparser.ConfigParser(interpolation=None)
        tox.read(ROOT / "tox.ini")
        self.assertEqual([name for _, name in commands], ["quickstart", "tests"])
        for _, name in commands:
            self.assertIn(f"testenv:{name}", tox.sections())
