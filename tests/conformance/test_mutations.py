"""Tests that the runner notices a wrong expectation: of seeded changes of expected values it has to fail nearly all."""

from __future__ import annotations

import random

from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.conformance import bookkeeping
from tests.conformance.loader import Case, is_pinned
from tests.conformance.mutations import Mutation, mutations
from tests.conformance.suites import UNIFIED
from tests.conformance.test_bookkeeping import runs
from tests.conformance.test_unified import DEPLOYMENTS, Clients, available
from tests.conformance.unified.entities import Makings
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.requirements import unmet
from tests.conformance.unified.runner import CaseRun

COUNT = 200
SEED = 20_240_601
LEAST_NOTICED = 0.98


class MutationTests(TestCase):
    """The runner, put to the test itself."""

    timeout = 1200

    def test_mutations(self) -> defer.Deferred[None]:
        """Of 200 cases with one expected value changed the runner fails 98 % at least."""
        return defer.Deferred.fromCoroutine(self._test_mutations())

    async def _test_mutations(self) -> None:
        chosen = await choose(COUNT)
        survivors = [str(mutation) for mutation in chosen if not await noticed(mutation)]
        for survivor in survivors:
            print(f"not noticed: {survivor}")
        if is_pinned():
            self.assertEqual(len(chosen), COUNT)
        self.assertLessEqual(len(survivors), len(chosen) * (1 - LEAST_NOTICED), "\n".join(survivors))


async def choose(count: int) -> list[Mutation]:
    """One mutation for each of some cases that run."""
    facts = [deployment.facts for deployment in await DEPLOYMENTS.all()]
    skips = bookkeeping.skips()
    seeded = random.Random(SEED)
    cases: list[Case] = [
        case
        for suite in UNIFIED
        if not suite.endswith("valid-fail")
        for case in available(suite)
        if runs(case, facts, skips)
    ]
    seeded.shuffle(cases)
    found: list[Mutation] = []
    for case in cases:
        possible = mutations(case)
        if possible and len(found) < count:
            found.append(seeded.choice(possible))
    return found


async def noticed(mutation: Mutation) -> bool:
    """Whether the runner fails a case that was changed."""
    deployment = next(one for one in await DEPLOYMENTS.all() if unmet(mutation.case, one.facts) is None)
    pipelining = not any(entry.covers(mutation.case) for entry in bookkeeping.one_per_connection())
    makings = Makings(
        Clients().connect,
        deployment.uri,
        deployment.direct_uri,
        clock=reactor,
        pipelining=pipelining,
        several_uri=deployment.several_uri,
    )
    try:
        await CaseRun(mutation.case, deployment, makings).run()
    except (FormatError, Mismatch):
        return True
    return False
