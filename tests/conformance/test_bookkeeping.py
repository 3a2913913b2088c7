"""Tests that the lists of cases are true: each entry covers a case, and each suite runs as many cases as it has to."""

from __future__ import annotations

from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.conformance import bookkeeping
from tests.conformance.loader import Case, is_pinned, load_cases
from tests.conformance.suites import KINDS, UNIFIED
from tests.conformance.test_unified import DEPLOYMENTS
from tests.conformance.unified.requirements import ServerFacts, unmet

OF_PINNED = None if is_pinned() else "the lists are about the pinned tests, not about those of another tree"


class EntryTests(SynchronousTestCase):
    """The entries of the lists."""

    skip = OF_PINNED

    def check(self, entries: list[bookkeeping.Entry]) -> None:
        """Every entry covers a case."""
        cases = [case for suite in UNIFIED for case in load_cases(suite)]
        self.assertEqual(bookkeeping.without_cases(entries, cases), [])

    def test_skips(self) -> None:
        """Every entry of skips.toml covers a case."""
        self.check(bookkeeping.skips())

    def test_one_per_connection(self) -> None:
        """Every entry of one_per_connection.toml covers a case."""
        self.check(bookkeeping.one_per_connection())


class FloorTests(TestCase):
    """How many cases run."""

    skip = OF_PINNED
    timeout = 120

    def test_floors(self) -> defer.Deferred[None]:
        """No suite runs fewer cases than were recorded."""
        return defer.Deferred.fromCoroutine(self._test_floors())

    async def _test_floors(self) -> None:
        facts = [deployment.facts for deployment in await DEPLOYMENTS.all()]
        skips = bookkeeping.skips()
        floors = bookkeeping.floors()
        counts = {suite: sum(runs(case, facts, skips) for case in load_cases(suite)) for suite in UNIFIED}
        below = {suite: (count, floors.get(suite)) for suite, count in counts.items() if count < floors.get(suite, 0)}
        self.assertEqual(below, {})
        self.assertEqual(set(floors) - set(KINDS), set())


def runs(case: Case, facts: list[ServerFacts], skips: list[bookkeeping.Entry]) -> bool:
    """Whether a case is run."""
    return any(unmet(case, one) is None for one in facts) and bookkeeping.reason_for(case, skips) is None
