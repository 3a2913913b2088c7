"""Tests of what operations cost in opcodes and calls into C, and of the counting: ``benchmarks/budget.py``."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.scripts import load

budget = load("benchmarks/budget.py")


class BudgetTests(SynchronousTestCase):
    """What operations cost today."""

    def test_figures(self) -> None:
        """Nothing costs 5 % more than its figure in budget.json; a change that is worth it records new figures."""
        recorded = json.loads(budget.FILE.read_text())
        reason = budget.different_versions(recorded["versions"], budget.versions())
        if reason is not None:
            raise SkipTest(reason)
        # In a process of its own: neither the tracer of coverage nor what other tests left behind is to be counted.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        counted = subprocess.run(
            [sys.executable, budget.__file__, "--json"], capture_output=True, check=True, text=True, env=environment
        )
        self.assertEqual(budget.dearer(recorded["tasks"], json.loads(counted.stdout)["tasks"]), [])

    def test_tasks(self) -> None:
        """Every task has its figures."""
        self.assertEqual(list(json.loads(budget.FILE.read_text())["tasks"]), list(budget.TASKS))


class ComparisonTests(SynchronousTestCase):
    """What is dearer than allowed."""

    def test_allowed(self) -> None:
        """Up to 5 % more is allowed, and so is any less."""
        recorded = {"find_one": {"opcodes": 1000.0, "c_calls": 40.0}}
        self.assertEqual(budget.dearer(recorded, {"find_one": {"opcodes": 1050.0, "c_calls": 3.0}}), [])

    def test_dearer(self) -> None:
        """More than that is told, of opcodes and of calls into C."""
        recorded = {"find_one": {"opcodes": 1000.0, "c_calls": 40.0}}
        self.assertEqual(
            budget.dearer(recorded, {"find_one": {"opcodes": 1051.0, "c_calls": 43.0}}),
            [
                "find_one takes 1051 opcodes, 5.1 % more than the recorded 1000",
                "find_one takes 43 c_calls, 7.5 % more than the recorded 40",
            ],
        )

    def test_not_recorded(self) -> None:
        """A task without figures is told."""
        self.assertEqual(budget.dearer({}, {"find_one": {"opcodes": 1.0}}), ["find_one has no recorded figures"])

    def test_versions(self) -> None:
        """Figures of other versions are not compared; the reason names both."""
        recorded = {"python": "CPython 3.11", "twisted": "26.10.0"}
        self.assertIs(budget.different_versions(recorded, dict(recorded)), None)
        self.assertEqual(
            budget.different_versions(recorded, {"python": "CPython 3.12", "twisted": "26.10.0"}),
            "budget.json was recorded with python CPython 3.11, twisted 26.10.0; "
            "this is python CPython 3.12, twisted 26.10.0",
        )


class CountsTests(SynchronousTestCase):
    """The counting itself."""

    def test_same(self) -> None:
        """The same work costs the same each time; all of it is the driver's, Twisted's, PyMongo's or generated code."""
        # Nor is what other tests left behind to be counted, which runs Python code when it is collected.
        gc.collect()
        self.addCleanup(gc.enable if gc.isenabled() else gc.disable)
        gc.disable()
        work = budget.Tasks(1).find_one
        work(5)
        first, second = budget.Counts(), budget.Counts()
        first.run(work, 20)
        second.run(work, 20)
        self.assertEqual(first.opcodes, second.opcodes)
        self.assertEqual(first.c_calls, second.c_calls)
        self.assertGreater(first.opcodes.total(), 20 * 500)
        self.assertEqual([place for place in budget.by_module(first.opcodes) if "budget" in place], [])

    def test_tracers(self) -> None:
        """A tracer that was at work before is at work after."""
        before = sys.gettrace(), sys.getprofile()
        budget.Counts().run(lambda calls: None, 1)
        self.assertEqual((sys.gettrace(), sys.getprofile()), before)

    def test_failed_call(self) -> None:
        """A call that does not do its work is not counted as if it had."""
        self.assertRaises(RuntimeError, budget.Tasks(1).find_1000, 1)
