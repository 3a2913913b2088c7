"""What operations cost in instructions, counted by valgrind: ``benchmarks/callgrind.py``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import txmongo

FOLDER = str(Path(txmongo.__file__).parent.parent / "benchmarks")


def load(name: str) -> Any:
    """A script as a module; scripts find each other as they do when they are run."""
    sys.path.insert(0, FOLDER)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(FOLDER)


callgrind, budget = load("callgrind"), load("budget")


class InstructionTests(SynchronousTestCase):
    """What operations cost today."""

    def test_figures(self) -> None:
        """Nothing takes 5 % more instructions than its figure in budget.json."""
        recorded = json.loads(budget.FILE.read_text())["callgrind"]
        reason = callgrind.missing() or budget.different_versions(recorded["versions"], callgrind.versions())
        if reason is not None:
            raise SkipTest(reason)
        self.assertEqual(budget.dearer(recorded["tasks"], callgrind.count()), [])

    def test_tasks(self) -> None:
        """Every task has its figure."""
        self.assertEqual(list(json.loads(budget.FILE.read_text())["callgrind"]["tasks"]), list(budget.TASKS))
