"""Cases of commands that are new in MongoDB 7.0 and 8.0, and of tokens, against a stand-in for such a server."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.conformance.bookkeeping import features
from tests.conformance.control import ControlLink
from tests.conformance.deployment import CACHE_GB, PARAMETERS
from tests.conformance.loader import Case, NoSuchSuite, is_pinned, load_cases
from tests.conformance.stand_in import StandIn
from tests.conformance.test_unified import Clients, open_selectables
from tests.conformance.token_stand_in import TokenCallback, TokenStandIn
from tests.conformance.unified.entities import Makings
from tests.conformance.unified.requirements import ServerFacts, unmet
from tests.conformance.unified.runner import CaseRun
from txmongo.testing import Mongod, ReplicaSet

#: Where cases of ``bulkWrite`` and of search indexes are.
SUITES = (
    "crud/unified",
    "retryable_writes/unified",
    "transactions/unified",
    "causal_consistency",
    "command_monitoring",
    "read_write_concern/write-concern-errors",
    "index_management",
)
#: Where cases of MONGODB-OIDC are.
TOKENS = "auth/unified"
OPERATIONS = frozenset(
    f"operation:{name}"
    for name in (
        *("clientBulkWrite", "createSearchIndex", "createSearchIndexes", "updateSearchIndex", "dropSearchIndex"),
        "listSearchIndexes",
    )
)


class Behind:
    """The server behind, a replica set of one; started when it is first needed, and ended with the process."""

    def __init__(self) -> None:
        self._set = ReplicaSet(reactor, 1, parameters=PARAMETERS, cache_gb=CACHE_GB)
        self._started = False

    async def start(self) -> Mongod:
        """The server, running."""
        if not self._started:
            self._started = True
            await self._set.start()
        return await self._set.primary()

    @property
    def name(self) -> str:
        """The name of the set."""
        return self._set.name

    async def control(self) -> ControlLink:
        """A new connection to it."""
        return await ControlLink.open(reactor, self._set.members[0].address)

    async def on_every_member(self, work: Callable[[ControlLink], Awaitable[Any]]) -> None:
        """Do something over a new connection."""
        link = await self.control()
        try:
            await work(link)
        finally:
            await link.close()


AS_IT_IS = ServerFacts((6, 0, 5), "replicaset", False, {})
AS_IT_SAYS = ServerFacts((8, 0, 0), "replicaset", False, {})
#: Where clients have to show a token.
WITH_TOKENS = attrs.evolve(AS_IT_SAYS, auth=True, parameters={"authenticationMechanisms": ["MONGODB-OIDC"]})

BEHIND = Behind()


class StandInTests(TestCase):
    """One test a case."""

    timeout = 120

    def run_case(self, case: Case) -> defer.Deferred[None]:
        """Run one, against a stand-in of its own."""
        return defer.Deferred.fromCoroutine(self._run_case(case))

    async def _run_case(self, case: Case) -> None:
        mongod = await BEHIND.start()
        before = open_selectables()
        with_tokens = case.folder == TOKENS
        server = TokenStandIn(reactor, mongod) if with_tokens else StandIn(reactor, mongod)
        await server.listen(reactor)
        clients = Clients()
        try:
            uri = f"{server.uri}?replicaSet={BEHIND.name}"
            makings = Makings(clients.connect, uri, server.uri, clock=reactor)
            if with_tokens:
                callback = {"OIDC_CALLBACK": TokenCallback()}
                makings = attrs.evolve(makings, placeholders={"authMechanismProperties": callback})
            await CaseRun(case, BEHIND, makings).run()
        finally:
            await server.stop()
        self.assertEqual(open_selectables() - before, set(), "left open")
        self.assertEqual(clients.sessions_in_use, 0, "sessions that were not given back")


def cases() -> list[Case]:
    """Those that the server behind cannot run, and what stands in for it can."""
    found = []
    for suite in (*SUITES, TOKENS):
        try:
            found += load_cases(suite)
        except NoSuchSuite:
            if is_pinned():
                raise
    return [
        case
        for case in found
        if unmet(case, AS_IT_IS) is not None
        and (
            unmet(case, WITH_TOKENS) is None
            if case.folder == TOKENS
            else OPERATIONS & features(case) and unmet(case, AS_IT_SAYS) is None
        )
    ]


def _add_test(case: Case) -> None:
    def test(self: Any) -> Any:
        return self.run_case(case)

    name = "test_" + re.sub(r"\W+", "_", f"{case.folder}_{case.file}_{case.description}").strip("_")
    assert not hasattr(StandInTests, name), f"two cases are called {name}"
    test.__name__ = name
    test.__doc__ = f"{case}."
    setattr(StandInTests, name, test)


for _case in cases():
    _add_test(_case)
