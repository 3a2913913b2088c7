"""Transactions on a sharded cluster keep to one router, and tell the next one where they were: two scripted routers."""

from __future__ import annotations

from typing import Any

from tests.unit.clients import ClientCase
from txmongo.errors import AutoReconnect, OperationFailure
from txmongo.sessions import ClientSession
from txmongo.testing import Behaviour, FakeServer

TOKENS = [{"token": 1}, {"token": 2}]


class RouterCase(ClientCase):
    """A client of two routers, and a transaction in which something was written."""

    def setUp(self) -> None:
        super().setUp()
        hello = {"msg": "isdbgrid", "logicalSessionTimeoutMinutes": 30}
        self.routers = [FakeServer(hello=hello), FakeServer(hello=hello)]
        self.servers = {"a.example": self.routers[0], "b.example": self.routers[1]}
        for router in self.routers:
            router.answer("insert", *({"n": 1, "recoveryToken": token} for token in TOKENS))
            router.answer("commitTransaction", {})
            router.answer("abortTransaction", {})
        self.made: Any = self.client("mongodb://a.example,b.example", localThresholdMS=1000)
        self.things = self.made.test.things
        self.result(self.made)
        self.turn()
        self.session: ClientSession = self.made.start_session()
        self.session.start_transaction()
        self.insert()
        self.here = next(router for router in self.routers if router.commands("insert"))
        self.there = next(router for router in self.routers if router is not self.here)

    def tearDown(self) -> None:
        """End the session."""
        self.result(self.session.end_session())
        super().tearDown()

    def insert(self) -> None:
        """Write in the transaction."""
        self.result(self.things.insert_one({}, session=self.session))

    def test_one_router(self) -> None:
        """All of it goes to the router where it began; the commit carries the last token that this one gave."""
        for _ in range(20):
            self.insert()
        self.result(self.session.commit_transaction())
        self.assertEqual(self.there.commands("insert"), [])
        [commit] = self.here.commands("commitTransaction")
        self.assertEqual(commit["recoveryToken"], TOKENS[1])

    def test_commit_elsewhere(self) -> None:
        """A commit whose router is lost is repeated at the other one, which finds the outcome by the token."""
        self.here.answer("commitTransaction", Behaviour.HANG_UP)
        self.result(self.session.commit_transaction())
        [first] = self.here.commands("commitTransaction")
        [second] = self.there.commands("commitTransaction")
        for commit in (first, second):
            self.assertEqual(commit["recoveryToken"], TOKENS[0])
        self.assertEqual((first["lsid"], first["txnNumber"]), (second["lsid"], second["txnNumber"]))
        self.assertNotIn("writeConcern", first)
        self.assertEqual(second["writeConcern"], {"w": "majority", "wtimeout": 10000})

    def test_lost(self) -> None:
        """If its router is lost in its midst it is over, and the abort, with the token, goes to the other one."""
        self.here.answer("insert", Behaviour.HANG_UP)
        error: Any = self.failureResultOf(
            self.started(self.things.insert_one({}, session=self.session)), AutoReconnect
        ).value
        self.assertTrue(error.has_error_label("TransientTransactionError"))
        self.assertIsNone(self.session.transaction.pinned_address)
        self.result(self.session.abort_transaction())
        [abort] = self.there.commands("abortTransaction")
        self.assertEqual(abort["recoveryToken"], TOKENS[0])

    def test_refused(self) -> None:
        """An error that does not end it leaves it where it is; the next transaction begins without a token."""
        self.here.answer("insert", {"ok": 0, "code": 11000, "errmsg": "there already"}, {"n": 1})
        self.failureResultOf(self.started(self.things.insert_one({}, session=self.session)), OperationFailure)
        self.insert()
        self.result(self.session.abort_transaction())
        self.assertEqual([each["recoveryToken"] for each in self.here.commands("abortTransaction")], [TOKENS[0]])
        self.assertEqual(self.there.commands("abortTransaction"), [])
        self.session.start_transaction()
        self.there.answer("insert", {"n": 1})
        self.insert()
        self.result(self.session.commit_transaction())
        [commit] = [each for router in self.routers for each in router.commands("commitTransaction")]
        self.assertNotIn("recoveryToken", commit)
