"""``txmongo.sessions``: what applications do with sessions, with an executor that the tests play."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Secondary
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks

from tests.unit.sessions.case import PRIMARY, A, SessionTestCase, transient, unknown
from txmongo._ops.transaction_state import Settled
from txmongo._ops.transactions import CommitTransaction
from txmongo.errors import AutoReconnect, ConfigurationError, InvalidOperation, OperationFailure
from txmongo.sessions import ClientSession, SessionOptions, TransactionOptions, TransactionState, TxnState


class SessionTests(SessionTestCase):
    """What a session is and what it has seen."""

    def test_attributes(self) -> None:
        """It tells its client, its options and that nothing has happened yet, under PyMongo's and TxMongo's names."""
        session = self.session(causal_consistency=False)
        self.assertIs(session.client, self.client)
        self.assertIs(session.connection, self.client)
        self.assertEqual(session.options, SessionOptions(causal_consistency=False))
        self.assertEqual((session.cluster_time, session.operation_time, session.implicit), (None, None, False))
        self.assertEqual((session.has_ended, session.is_ended), (False, False))
        self.assertEqual(repr(session), "<ClientSession none, 0 operations under way>")
        default = ClientSession(self.client, sessions=self.sessions, execute=self.execute, clock=self.clock)
        self.assertEqual(default.options, SessionOptions())

    def test_name_of_26(self) -> None:
        """The states of a transaction have TxMongo 26.0's name too."""
        self.assertIs(TxnState, TransactionState)

    def test_session_id(self) -> None:
        """Its id stays the same, is taken when it is first needed, and is gone with its end."""
        session = self.session()
        self.assertEqual(self.sessions.pool.in_use, 0)
        self.assertEqual(session.session_id, session.session_id)
        self.assertEqual(self.sessions.pool.in_use, 1)
        self.successResultOf(session.end_session())
        self.assertRaises(InvalidOperation, lambda: session.session_id)
        self.assertEqual(repr(session), "<ClientSession ended>")

    def test_last_in_first_out(self) -> None:
        """The id that was given back last is used first."""
        a, b = self.session(), self.session()
        id_a, id_b = a.session_id, b.session_id
        a.end_session()
        b.end_session()
        self.assertEqual(self.session().session_id, id_b)
        self.assertEqual(self.session().session_id, id_a)

    def test_in_transaction(self) -> None:
        """in_transaction can be looked at and called."""
        session = self.session()
        self.assertFalse(session.in_transaction)
        self.assertIs(session.in_transaction(), False)
        session.start_transaction()
        self.assertTrue(session.in_transaction)
        self.assertIs(session.in_transaction(), True)
        self.assertEqual((session.in_transaction, repr(session.in_transaction)), (True, "True"))

    def test_advance_cluster_time(self) -> None:
        """Another session's cluster time is taken over if it is later, and is not the client's."""
        session = self.session()
        early, late = ({"clusterTime": Timestamp(time, 1)} for time in (1, 2))
        session.advance_cluster_time(late)
        session.advance_cluster_time(early)
        self.assertEqual(session.cluster_time, late)
        self.assertIsNone(self.sessions.cluster_clock.document)
        self.assertRaises(TypeError, session.advance_cluster_time, 5)
        self.assertRaises(ValueError, session.advance_cluster_time, {"clusterTime": 5})

    def test_advance_operation_time(self) -> None:
        """So is another session's operation time."""
        session = self.session()
        session.advance_operation_time(Timestamp(2, 1))
        session.advance_operation_time(Timestamp(1, 1))
        self.assertEqual(session.operation_time, Timestamp(2, 1))
        self.assertRaises(TypeError, session.advance_operation_time, 5)

    def test_snapshot_time(self) -> None:
        """The time of a snapshot session is the one it was given or that of its first read; others have none."""
        self.assertEqual(self.session(snapshot=True, snapshot_time=Timestamp(5, 1)).snapshot_time, Timestamp(5, 1))
        session = self.session(snapshot=True)
        self.assertIsNone(session.snapshot_time)
        session.learn({"atClusterTime": Timestamp(6, 1)})
        self.assertEqual(session.snapshot_time, Timestamp(6, 1))
        self.assertRaises(InvalidOperation, lambda: self.session().snapshot_time)


class EndTests(SessionTestCase):
    """The end of a session."""

    def test_end(self) -> None:
        """It ends at once, and only once."""
        session = self.session()
        self.successResultOf(self.step(session))
        session.end_session()
        self.assertTrue(session.has_ended)
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 1))
        self.successResultOf(session.end_session())
        self.assertRaises(InvalidOperation, session.start_transaction)
        self.assertRaises(InvalidOperation, session.with_transaction, lambda session: None)

    def test_aborts(self) -> None:
        """A transaction in progress is aborted first; meanwhile the session cannot be used for more."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        waiting: Deferred[Any] = Deferred()
        self.answers["abortTransaction"] = [waiting]
        ending = session.end_session()
        self.assertTrue(session.has_ended)
        self.assertRaises(InvalidOperation, session.start_transaction)
        self.successResultOf(session.end_session())
        self.assertNoResult(ending)
        waiting.errback(AutoReconnect("lost"))
        self.assertIsNone(self.successResultOf(ending))
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 0))

    def test_nothing_to_abort(self) -> None:
        """A transaction of which the server knows nothing needs no abort."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(session.end_session())
        self.assertEqual(self.names, [])

    def test_cancelled(self) -> None:
        """Cancelled, it has ended all the same."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        self.answers["abortTransaction"] = [Deferred()]
        ending = session.end_session()
        ending.cancel()
        self.failureResultOf(ending, CancelledError)
        self.assertTrue(session.ended)
        self.assertEqual(self.sessions.pool.in_use, 0)

    def test_async_with(self) -> None:
        """A block ends it, with an exception too."""

        async def block(error: Exception | None) -> ClientSession:
            async with self.session() as session:
                if error is not None:
                    raise error
            return session

        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(block(None))).has_ended)
        self.failureResultOf(Deferred.fromCoroutine(block(KeyError())), KeyError)


class TransactionTests(SessionTestCase):
    """Transactions step by step."""

    def test_commit(self) -> None:
        """A transaction runs its commands and commits; the next one has another number."""
        session = self.session()
        for number in (1, 2):
            session.start_transaction(write_concern=WriteConcern("majority"), max_commit_time_ms=500)
            self.assertIs(session.transaction.state, TransactionState.STARTING)
            self.successResultOf(self.step(session))
            self.assertIsNone(self.successResultOf(session.commit_transaction()))
            self.assertIs(session.transaction.state, TransactionState.COMMITTED)
            self.assertEqual(self.commands[-1]["txnNumber"], number)
            self.assertEqual(self.commands[-1]["writeConcern"], {"w": "majority"})
        commit: Any = self.executed[-1]
        self.assertIsInstance(commit, CommitTransaction)
        self.assertEqual((commit.max_time_ms, commit.session), (500, session))

    def test_commit_nothing(self) -> None:
        """A transaction without commands is committed without one, again too; its number is used up."""
        session = self.session()
        session.start_transaction()
        for _ in range(2):
            self.assertIsNone(self.successResultOf(session.commit_transaction()))
        self.assertEqual(self.names, [])
        session.start_transaction()
        self.successResultOf(self.step(session))
        self.assertEqual(self.commands[0]["txnNumber"], 2)

    def test_commit_again(self) -> None:
        """Another commit asks the server again, for a majority."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        self.answers["commitTransaction"] = [unknown()]
        self.failureResultOf(session.commit_transaction(), OperationFailure)
        self.assertFalse(session.in_transaction)
        self.successResultOf(session.commit_transaction())
        self.assertEqual(self.commands[-1]["writeConcern"], {"w": "majority", "wtimeout": 10_000})

    def test_abort(self) -> None:
        """An abort is told to the server; what the server says to it is not told."""
        for answer in (None, AutoReconnect("lost"), OperationFailure("no", 1, {"ok": 0})):
            session = self.session()
            session.start_transaction()
            self.successResultOf(self.step(session))
            session.transaction.pin_to(A)
            self.answers["abortTransaction"] = [answer]
            self.assertIsNone(self.successResultOf(session.abort_transaction()))
            self.assertEqual(self.names[-1], "abortTransaction")
            self.assertIs(session.transaction.state, TransactionState.ABORTED)
            self.assertIsNone(session.transaction.pinned_address)

    def test_abort_nothing(self) -> None:
        """A transaction without commands is aborted without one."""
        session = self.session()
        session.start_transaction()
        self.assertIsNone(self.successResultOf(session.abort_transaction()))
        self.assertEqual(self.names, [])

    def test_abort_late(self) -> None:
        """An abort that ends after the next transaction has begun leaves that one where it is pinned."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        waiting: Deferred[Any] = Deferred()
        self.answers["abortTransaction"] = [waiting]
        aborting = session.abort_transaction()
        session.start_transaction()
        session.transaction.pin_to(A)
        waiting.callback(None)
        self.successResultOf(aborting)
        self.assertEqual(session.transaction.pinned_address, A)

    def test_abort_cancelled(self) -> None:
        """A cancelled abort says so."""
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        self.answers["abortTransaction"] = [Deferred()]
        aborting = session.abort_transaction()
        aborting.cancel()
        self.failureResultOf(aborting, CancelledError)

    def given_up(self) -> ClientSession:
        """A session whose transaction was begun by a command that was cancelled before it was answered."""
        session = self.session()
        session.start_transaction()
        self.answers["insert"] = [Deferred()]
        beginning = self.step(session)
        beginning.cancel()
        self.failureResultOf(beginning, CancelledError)
        return session

    def test_abort_before_beginning(self) -> None:
        """If the server knows of no transaction yet, it is kept from beginning it by another one, which is aborted."""
        session = self.given_up()
        session.transaction.pin_to(A)
        self.answers["abortTransaction"] = [transient()]
        self.assertIsNone(self.successResultOf(session.abort_transaction()))
        self.assertEqual(self.names, ["insert", "abortTransaction", "find", "abortTransaction"])
        find, abort = (operation.build(PRIMARY) for operation in self.executed[2:])
        for command in (find, abort):
            self.assertEqual((command["lsid"], command["txnNumber"]), (session.session_id, 2))
        self.assertEqual([operation.address for operation in self.executed[2:]], [A, A])
        self.assertEqual((self.commands[0]["txnNumber"], find["startTransaction"]), (1, True))
        session.start_transaction()
        self.assertEqual(session.transaction.txn_number, 3)

    def test_end_before_beginning(self) -> None:
        """The same at the end of the session, and of a function that was cancelled."""
        self.answers["abortTransaction"] = [transient()]
        self.assertIsNone(self.successResultOf(self.given_up().end_session()))
        self.answers = {"insert": [Deferred()], "abortTransaction": [transient()]}
        session = self.session()
        running = session.with_transaction(self.step)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        session.end_session()
        self.assertEqual(self.names, ["insert", "abortTransaction", "find", "abortTransaction"] * 2)
        self.assertEqual(self.sessions.pool.in_use, 0)

    def test_abort_of_what_is_over(self) -> None:
        """Nothing more is sent if the abort ends otherwise, the beginning was answered, or another one has begun."""
        for answer in (None, AutoReconnect("lost"), OperationFailure("no", 1, {"ok": 0})):
            session = self.given_up()
            self.answers["abortTransaction"] = [answer]
            self.successResultOf(session.abort_transaction())
        session = self.session()
        session.start_transaction()
        self.successResultOf(self.step(session))
        self.answers["abortTransaction"] = [transient()]
        self.successResultOf(session.abort_transaction())
        session, waiting = self.given_up(), Deferred[Any]()
        self.answers["abortTransaction"] = [waiting]
        aborting = session.abort_transaction()
        session.start_transaction()
        waiting.callback(transient())
        self.successResultOf(aborting)
        self.assertEqual(set(self.names), {"insert", "abortTransaction"})
        self.assertIs(session.transaction.state, TransactionState.STARTING)

    def test_refused(self) -> None:
        """What makes no sense is refused at the call."""
        session = self.session()
        self.assertRaises(InvalidOperation, session.commit_transaction)
        self.assertRaises(InvalidOperation, session.abort_transaction)
        session.start_transaction()
        self.assertRaises(InvalidOperation, session.start_transaction)
        session.end_session()
        self.assertRaises(InvalidOperation, session.commit_transaction)
        self.assertRaises(InvalidOperation, session.abort_transaction)
        error = self.assertRaises(InvalidOperation, self.session(snapshot=True).start_transaction)
        self.assertIn("Transactions are not supported in snapshot sessions", str(error))

    def test_inheritance(self) -> None:
        """Each option is the transaction's own, else the session's, else the client's."""
        defaults = Settled(ReadConcern("local"), WriteConcern(1), Secondary())
        session = self.session(
            defaults=defaults,
            default_transaction_options=TransactionOptions(ReadConcern("majority"), WriteConcern(2)),
        )
        session.start_transaction(read_concern=ReadConcern("snapshot"))
        self.assertEqual(
            session.transaction.options, Settled(ReadConcern("snapshot"), WriteConcern(2), Secondary(), None)
        )

    def test_unacknowledged_client(self) -> None:
        """An unacknowledged write concern is refused from wherever it comes."""
        session = self.session(defaults=Settled(write_concern=WriteConcern(w=0)))
        self.assertRaises(ConfigurationError, session.start_transaction)
        self.assertIs(session.transaction.state, TransactionState.NONE)

    def block(self, session: ClientSession, *, error: Exception | None = None, end: str = "") -> Deferred[None]:
        """A transaction in a block."""

        async def block() -> None:
            async with session.start_transaction():
                await self.step(session)
                if end:
                    await getattr(session, end)()
                if error is not None:
                    raise error

        return Deferred.fromCoroutine(block())

    def test_async_with(self) -> None:
        """A block commits at its end, or aborts if an exception leaves it."""
        self.successResultOf(self.block(self.session()))
        self.failureResultOf(self.block(self.session(), error=KeyError()), KeyError)
        self.assertEqual(self.names, ["insert", "commitTransaction", "insert", "abortTransaction"])

    def test_awaited(self) -> None:
        """What begins a transaction may be awaited first, as PyMongo's must be."""
        session = self.session()

        async def block() -> None:
            async with await session.start_transaction():
                await self.step(session)

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.assertEqual(self.names, ["insert", "commitTransaction"])

    def test_ended_in_block(self) -> None:
        """A block in which it was ended does nothing more."""
        self.successResultOf(self.block(self.session(), end="commit_transaction"))
        self.failureResultOf(self.block(self.session(), end="abort_transaction", error=KeyError()), KeyError)
        self.assertEqual(self.names, ["insert", "commitTransaction", "insert", "abortTransaction"])

    def test_yield(self) -> None:
        """All of it can be waited for with yield."""

        @inlineCallbacks
        def run() -> Generator[Any, Any, None]:
            session = yield self.session()
            session.start_transaction()
            yield self.step(session)
            yield session.commit_transaction()
            yield session.end_session()

        self.successResultOf(run())
        self.assertEqual(self.names, ["insert", "commitTransaction"])
