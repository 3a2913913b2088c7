"""The suites in the unified test format, a test case class each, against real servers."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import defer, reactor
from twisted.trial.unittest import SkipTest, TestCase

from tests.conformance import bookkeeping
from tests.conformance.deployment import Deployment, Deployments
from tests.conformance.loader import Case, NoSuchSuite, is_pinned, load_cases
from tests.conformance.report import NOT_HERE
from tests.conformance.suites import UNIFIED, class_name
from tests.conformance.unified.entities import Makings
from tests.conformance.unified.expected_errors import is_driver_error
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.requirements import unmet
from tests.conformance.unified.runner import CaseRun
from txmongo.connection import ConnectionPool

#: Ends the names of tests that run a case of one_per_connection.toml with pipelining after all.
COMPARISON = "__pipelined"

DEPLOYMENTS = Deployments(reactor)
SKIPS = bookkeeping.skips()
ONE_PER_CONNECTION = bookkeeping.one_per_connection()


async def find_deployment(case: Case) -> Deployment:
    """The first deployment that a case may run against.

    :raises SkipTest: there is none.
    """
    reasons = []
    for deployment in await DEPLOYMENTS.all():
        reason = unmet(case, deployment.facts)
        if reason is None:
            return deployment
        reasons.append(reason)
    raise SkipTest(NOT_HERE + "; and ".join(dict.fromkeys(reasons)))


def open_selectables() -> set[Any]:
    """What the reactor reads from or writes to, but for what it uses itself."""
    found: set[Any] = {*reactor.getReaders(), *reactor.getWriters()}  # type: ignore[attr-defined]
    return found - reactor._internalReaders  # type: ignore[attr-defined]


class Clients:
    """The clients of one case."""

    def __init__(self) -> None:
        self._all: list[ConnectionPool[Any]] = []

    def connect(self, uri: str, **options: Any) -> ConnectionPool[Any]:
        """A client that looks for its servers at once, as the cases take for granted; ours waits for an operation."""
        client: ConnectionPool[Any] = ConnectionPool(uri, **options)
        client._topology.open()
        self._all.append(client)
        return client

    @property
    def sessions_in_use(self) -> int:
        """How many sessions they have not got back."""
        return sum(client._executor.sessions.pool.in_use for client in self._all)


class UnifiedTestCase(TestCase):
    """Runs cases."""

    timeout = 120
    #: Whether the cases are such as the runner has to report as failures.
    failure_expected = False

    def for_comparison(self) -> bool:
        """Whether this test only shows what a case does with pipelining that is judged without it."""
        return self._testMethodName.endswith(COMPARISON)

    def run_case(self, case: Case, pipelining: bool) -> defer.Deferred[None]:
        """Run one; what the case leaves open is a failure, even if all else went well."""
        return defer.Deferred.fromCoroutine(self._run_case(case, pipelining))

    async def _run_case(self, case: Case, pipelining: bool) -> None:
        deployment = await find_deployment(case)
        reason = bookkeeping.reason_for(case, SKIPS)
        if reason is not None:
            raise SkipTest(reason)
        before = open_selectables()
        clients = Clients()
        makings = Makings(
            clients.connect,
            deployment.uri,
            deployment.direct_uri,
            clock=reactor,
            pipelining=pipelining,
            several_uri=deployment.several_uri,
        )
        run = CaseRun(case, deployment, makings)
        if self.failure_expected:
            await self._run_to_failure(run)
        else:
            await run.run()
        left = open_selectables() - before
        self.assertEqual(left, set(), "left open")
        # The sessions specification's prose test 10.
        self.assertEqual(clients.sessions_in_use, 0, "sessions that were not given back")

    async def _run_to_failure(self, run: CaseRun) -> None:
        try:
            await run.run()
        except (FormatError, Mismatch):
            return
        except Exception as error:
            if not is_driver_error(error):
                raise
            return
        self.fail("the case has to fail, and passed")


def available(suite: str) -> list[Case]:
    """The cases of a suite; none if a tree that was named does not have it."""
    try:
        return load_cases(suite)
    except NoSuchSuite:
        if is_pinned():
            raise
        return []


def _test_class(suite: str) -> type[UnifiedTestCase]:
    """A class with one test for each case of a suite; two for those that run without pipelining."""

    class SuiteTests(UnifiedTestCase):
        failure_expected = suite.endswith("valid-fail")

    SuiteTests.__name__ = SuiteTests.__qualname__ = class_name(suite)
    SuiteTests.__doc__ = f"The suite {suite}."
    for index, case in enumerate(available(suite)):
        alone = any(entry.covers(case) for entry in ONE_PER_CONNECTION)
        _add_test(SuiteTests, f"test_{index:03}_{_slug(case)}", case, pipelining=not alone)
        if alone:
            _add_test(SuiteTests, f"test_{index:03}_{_slug(case)}{COMPARISON}", case, pipelining=True)
    return SuiteTests


def _slug(case: Case) -> str:
    return re.sub(r"\W+", "_", f"{case.file}_{case.description}").strip("_")[:150]


def _add_test(test_class: type[UnifiedTestCase], name: str, case: Case, *, pipelining: bool) -> None:
    def test(self: UnifiedTestCase) -> defer.Deferred[None]:
        return self.run_case(case, pipelining)

    test.__name__ = name
    test.__doc__ = f"{case}."
    setattr(test_class, name, test)


globals().update({class_name(suite): _test_class(suite) for suite in UNIFIED})
