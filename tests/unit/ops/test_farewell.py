"""``txmongo._ops.farewell``: what a server hears at the end of a client, and for how long its answer is waited for."""

from __future__ import annotations

from typing import Any

from pymongo.read_preferences import ReadPreference
from twisted.internet.defer import CancelledError, Deferred

from tests.unit.sessions.case import SessionTestCase
from txmongo._ops.farewell import Farewell
from txmongo._ops.transactions import EndSessions
from txmongo.errors import OperationFailure


class Servers:
    """What of a deployment can be reached.

    :ivar primary: whether there is a primary.
    :ivar any: whether there is a member at all.
    """

    def __init__(self) -> None:
        self.primary = self.any = True

    def select_server_now(self, selector: Any) -> object | None:
        """A server, if there is one of that kind."""
        return object() if (self.primary if selector == ReadPreference.PRIMARY else self.any) else None


class FarewellTests(SessionTestCase):
    """A client with sessions, that is closed."""

    def setUp(self) -> None:
        super().setUp()
        self.servers: Any = Servers()
        #: The test case has of an executor what is asked for: the sessions, the clock, and how operations are run.
        executor: Any = self
        self.farewell = Farewell(self.servers, executor)

    def told(self) -> list[Any]:
        """The sessions that a server was told of, for each command."""
        return [operation.lsids for operation in self.executed if isinstance(operation, EndSessions)]

    def in_transaction(self) -> Any:
        """A session whose transaction has begun at the server."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        return session

    def test_nothing(self) -> None:
        """Where no session was used nothing is said or waited for."""
        self.session()
        self.farewell.say()
        self.successResultOf(self.farewell.heard())
        self.assertEqual(self.executed, [])

    def test_sessions(self) -> None:
        """Those that are free are told, and those that the application has not ended; they are not used again."""
        free, kept, unused = self.session(), self.session(), self.session()
        for session in (free, kept):
            self.successResultOf(self.step(session))
        lsids = [session.session_id for session in (free, kept)]
        self.successResultOf(free.end_session())
        self.farewell.say()
        self.successResultOf(self.farewell.heard())
        self.assertEqual(self.told(), [lsids])
        self.assertFalse(unused.has_ended)
        self.successResultOf(kept.end_session())
        self.assertEqual(len(self.sessions.pool), 0)

    def test_transactions(self) -> None:
        """A transaction that the server has in progress is aborted first; no other one has to be."""
        left_open, committed, busy = (self.in_transaction() for _ in range(3))
        self.successResultOf(committed.commit_transaction())
        self.answers["insert"] = [Deferred()]
        self.step(busy)
        not_begun = self.session()
        not_begun.start_transaction()
        self.executed.clear()
        self.farewell.say()
        self.assertEqual(self.names, ["abortTransaction", "endSessions"])
        self.assertIs(self.executed[0].session, left_open)
        self.assertEqual([each.has_ended for each in (left_open, committed, busy, not_begun)], [True, *[False] * 3])

    def test_no_primary(self) -> None:
        """Without a primary no transaction can be aborted, but any member is told of the sessions."""
        session = self.in_transaction()
        lsid = session.session_id
        self.servers.primary = False
        self.executed.clear()
        self.farewell.say()
        self.assertEqual((self.names, self.told()), (["endSessions"], [[lsid]]))

    def test_no_server(self) -> None:
        """Without any server nothing is said or waited for; the sessions are not used again all the same."""
        session = self.session()
        self.successResultOf(self.step(session))
        self.servers.primary = self.servers.any = False
        self.executed.clear()
        self.farewell.say()
        self.successResultOf(self.farewell.heard())
        self.successResultOf(session.end_session())
        self.assertEqual((self.executed, len(self.sessions.pool)), ([], 0))

    def test_answer(self) -> None:
        """Everyone who asks waits until all was answered, be it with errors; later nothing is waited for any more."""
        self.in_transaction()
        aborted: Deferred[Any] = Deferred()
        ended: Deferred[Any] = Deferred()
        self.answers.update({"abortTransaction": [aborted], "endSessions": [ended]})
        self.farewell.say()
        first, second, third = (self.farewell.heard() for _ in range(3))
        third.cancel()
        self.failureResultOf(third, CancelledError)
        aborted.callback(None)
        self.assertNoResult(first)
        ended.callback(OperationFailure("no", 13))
        for waiter in (first, second, self.farewell.heard()):
            self.assertIsNone(self.successResultOf(waiter))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """An answer is waited for no longer than a second."""
        self.in_transaction()
        self.answers.update({"abortTransaction": [Deferred()], "endSessions": [Deferred()]})
        self.farewell.say()
        heard = self.farewell.heard()
        self.clock.advance(0.9)
        self.assertNoResult(heard)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(heard))
        self.assertEqual(self.clock.getDelayedCalls(), [])
