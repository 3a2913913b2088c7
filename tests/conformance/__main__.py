"""``python -m tests.conformance [SUITE ...]``: run the specification tests and say what came of them.

A suite is named by its folder or by the beginning of it: ``crud``, ``sessions``, ``unified-test-format/valid-pass``.
Prints a table and writes ``conformance.json``. Ends with 1 if a case failed or if fewer cases of a suite ran than
``floor.toml`` says. The suites ``runner/...`` test the running itself.

With ``$TXMONGO_SPECS_DIR`` the cases are those of another tree. Suites that it does not have are named. That fewer ran
than ``floor.toml`` says is told, but is no failure: the floor is that of the pinned tests.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import platform
import sys
import time
from pathlib import Path
from typing import Any, TextIO
from unittest import TestCase, TestSuite

import bson
import pymongo
import twisted
from twisted.python.failure import Failure
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader, TrialRunner

from tests.conformance import bookkeeping
from tests.conformance.loader import PINNED, NoSuchSuite, is_pinned
from tests.conformance.report import SuiteReport, as_json, as_table, below_floor, totals
from tests.conformance.suites import KINDS, MODULES, class_name

MESSAGE_LENGTH = 2000


class Collector(TestResult):
    """Sorts what trial reports by suite, and prints failures as they come."""

    def __init__(
        self, stream: TextIO, reports: dict[str, SuiteReport], suite_of: dict[str, str], verbose: bool
    ) -> None:
        super().__init__()
        self._stream = stream
        self._reports = reports
        self._suite_of = suite_of
        self._verbose = verbose
        self._outcomes: dict[str, str] = {}
        self._began = 0.0

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self._began = time.monotonic()

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self._report(test).seconds += time.monotonic() - self._began

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._note(test, "passed")

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._note(test, "skipped", str(reason))

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)
        self._note(test, "failed", _message(fail))

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._note(test, "failed", _message(error))

    def _report(self, test: Any) -> SuiteReport:
        return self._reports[self._suite_of[test.id()]]

    def _note(self, test: Any, outcome: str, text: str = "") -> None:
        """Count a test once; whatever went wrong after it passed makes it a failed one."""
        test = getattr(test, "_originalTest", test)  # trial wraps some
        report, name = self._report(test), _name(test)
        before = self._outcomes.get(test.id())
        if before == "failed":
            return
        self._outcomes[test.id()] = outcome
        if getattr(test, "for_comparison", lambda: False)():
            report.pipelined[name] = outcome if before is None else "failed"
            return
        if before == "passed":
            report.passed -= 1
        if outcome == "skipped":
            report.count_skip(text)
        elif outcome == "passed":
            report.passed += 1
        else:
            report.failed += 1
            report.failures.append((name, text[:MESSAGE_LENGTH]))
        if outcome == "failed" or self._verbose:
            seconds = time.monotonic() - self._began
            print(f"{outcome} after {seconds:.1f} s: {name}{': ' if text else ''}{text}", file=self._stream, flush=True)


def _name(test: Any) -> str:
    """A case's own name, which stands in its test's docstring."""
    document = getattr(getattr(test, test._testMethodName, None), "__doc__", None)
    return str(document).rstrip(".") if document else str(test.id())


def _message(error: Any) -> str:
    failure = error if isinstance(error, Failure) else Failure(error[1], error[0], error[2])
    brief: str = failure.getErrorMessage()
    if failure.check(AssertionError):
        return brief
    return f"{brief}\n{failure.getBriefTraceback()}"


def chosen(names: list[str]) -> list[str]:
    """The suites meant by what was given on the command line; all of them if nothing was."""
    if not names:
        return list(KINDS)
    found = [suite for suite in KINDS if any(suite == name or suite.startswith(name) for name in names)]
    unknown = [name for name in names if not any(suite.startswith(name) for suite in KINDS)]
    if unknown:
        raise SystemExit(f"no such suite: {', '.join(unknown)}; there are: {', '.join(KINDS)}")
    return found


def tests_of(suite: str) -> TestSuite:
    """The tests of a suite; none if a tree that was named does not have it."""
    try:
        return _loaded(suite)
    except NoSuchSuite:
        if is_pinned():
            raise
        return TestSuite()


def _loaded(suite: str) -> TestSuite:
    loader = TestLoader()
    if KINDS[suite] == "unified":
        module = importlib.import_module("tests.conformance.test_unified")
        loaded: TestSuite = loader.loadClass(getattr(module, class_name(suite)))
    else:
        module = importlib.import_module(MODULES[suite])
        loaded = loader.loadModule(module)
    return loaded


def ids(suite: TestSuite | TestCase) -> list[str]:
    """The ids of the tests in a suite."""
    if isinstance(suite, TestSuite):
        return [name for test in suite for name in ids(test)]
    return [suite.id()]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="folder, or the beginning of one; default: all")
    parser.add_argument("--json", type=Path, default=Path("conformance.json"), help="where to write the counts")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every case, not only those that fail")
    parser.add_argument("-k", "--only", default="", help="run only tests whose id contains this text")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run; gives the exit status."""
    options = parse(arguments)
    json_file = options.json.absolute()
    suites = {suite: tests_of(suite) for suite in chosen(options.suites)}
    absent = [suite for suite, tests in suites.items() if not tests.countTestCases()]
    if absent:
        print(f"not in this tree: {', '.join(absent)}")
        if len(absent) == len(suites):
            return 1
        suites = {suite: tests for suite, tests in suites.items() if suite not in absent}
    reports = {suite: SuiteReport(suite, KINDS[suite]) for suite in suites}
    suite_of = {name: suite for suite, tests in suites.items() for name in ids(tests)}
    everything = TestSuite(suites.values())
    if options.only:
        everything = TestSuite(_filtered(everything, options.only))
    # To look for garbage among all the cases takes a tenth of a second; some cases leave less than that to the driver.
    gc.collect()
    gc.freeze()
    runner = TrialRunner(lambda stream, *_: Collector(stream, reports, suite_of, options.verbose))
    runner.run(everything)
    found = list(reports.values())
    facts = {
        "specifications": PINNED if is_pinned() else "another tree",
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "pymongo": pymongo.version,
        "c_extensions": bson.has_c(),
    }
    json_file.write_text(as_json(found, facts), "utf-8")
    print(as_table(found))
    problems = [] if options.only else below_floor(found, bookkeeping.floors())
    for problem in problems:
        print(problem)
    passed, failed, skipped = totals(found)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or (problems and is_pinned()) else 0


def _filtered(suite: TestSuite | TestCase, text: str) -> list[Any]:
    if isinstance(suite, TestSuite):
        return [test for one in suite for test in _filtered(one, text)]
    return [suite] if text in suite.id() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
