"""``txmongo.sessions``: what applications do with sessions, with an executor that the tests play."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference, Secondary
from pymongo.server_type import SERVER_TYPE
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation
from txmongo._ops.client_sessions import Sessions
from txmongo._ops.transaction_state import Settled
from txmongo._ops.transactions import AbortTransaction, CommitTransaction
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
)
from txmongo.sessions import ClientSession, SessionOptions, TransactionOptions, TransactionState, TxnState

A = ("a", 27017)
PRIMARY = StreamDescription(server_type=SERVER_TYPE.RSPrimary, max_wire_version=17, logical_session_timeout_minutes=30)


def transient(text: str = "again") -> OperationFailure:
    """An error after which the transaction may be run again."""
    return OperationFailure(text, 251, {"errorLabels": ["TransientTransactionError"]})


def unknown(code: int = 64) -> OperationFailure:
    """An error after which nobody knows whether it was committed."""
    return OperationFailure("who knows", code, {"errorLabels": ["UnknownTransactionCommitResult"], "code": code})


class Step(Operation[Any]):
    """A command of a transaction."""

    __slots__ = ()
    name = "insert"


class SessionTestCase(SynchronousTestCase):
    """A client whose executor the tests play."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sessions = Sessions(self.clock.seconds)
        self.client: Any = object()
        #: What was executed, and what each command of that name is answered with, one after another, then with success.
        self.executed: list[Operation[Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.answers: dict[str, list[Any]] = {}
        self.jitter = 1.0

    def session(self, *, defaults: Settled | None = None, **options: Any) -> ClientSession:
        """A new session."""
        return ClientSession(
            self.client,
            SessionOptions(**options),
            sessions=self.sessions,
            execute=self.execute,
            clock=self.clock,
            defaults=defaults,
            jitter=lambda: self.jitter,
        )

    def execute(self, operation: Operation[Any]) -> Deferred[Any]:
        """What the executor does, with an answer from the script; a Deferred is one for later."""
        self.executed.append(operation)
        self.sessions.route(operation)
        command = {operation.name: 1}
        use = self.sessions.begin(operation, command, PRIMARY, A)
        self.commands.append(command)
        answers = self.answers.get(operation.name)
        answer = answers.pop(0) if answers else None

        def done(result: Any) -> Any:
            if isinstance(result, PyMongoError):
                result = fail(result)
            return result

        def failed(failure: Any) -> Any:
            self.sessions.failed(operation, use, failure.value)
            return failure

        def answered(result: Any) -> Any:
            if use is not None:
                self.sessions.answered(use, {"ok": 1})
            return result

        def ended(result: Any) -> Any:
            self.sessions.end(use)
            return result

        deferred: Deferred[Any] = answer if isinstance(answer, Deferred) else succeed(answer)
        deferred.addCallback(done)
        deferred.addCallbacks(answered, failed)
        deferred.addBoth(ended)
        return deferred

    def step(self, session: ClientSession) -> Deferred[Any]:
        """Run a command in a session."""
        return self.execute(Step("db", session=session))

    @property
    def names(self) -> list[str]:
        """The names of what was executed."""
        return [operation.name for operation in self.executed]


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


class WithTransactionTests(SessionTestCase):
    """with_transaction."""

    def setUp(self) -> None:
        super().setUp()
        self.calls = 0

    def callback(self, session: ClientSession) -> Deferred[Any]:
        """One command; its result is 42."""
        self.calls += 1
        return self.step(session).addCallback(lambda _: 42)

    def test_value(self) -> None:
        """It fires with the function's value, whether that is plain, a Deferred or a coroutine's."""

        async def coroutine(session: ClientSession) -> int:
            return int(await self.callback(session))

        for callback in (lambda session: 42, self.callback, coroutine):
            self.assertEqual(self.successResultOf(self.session().with_transaction(callback)), 42)
        self.assertEqual(self.names, ["insert", "commitTransaction"] * 2)

    def test_options(self) -> None:
        """Its options are those of the transaction."""
        session = self.session()
        self.successResultOf(
            session.with_transaction(self.callback, ReadConcern("local"), WriteConcern(2), ReadPreference.PRIMARY, 500)
        )
        self.assertEqual(
            session.transaction.options, Settled(ReadConcern("local"), WriteConcern(2), ReadPreference.PRIMARY, 500)
        )

    def test_bad_arguments(self) -> None:
        """Wrong arguments are told at the call."""
        session: Any = self.session()
        self.assertRaises(TypeError, session.with_transaction, 5)
        self.assertRaises(TypeError, session.with_transaction, self.callback, {})

    def test_already_started(self) -> None:
        """It does not begin within a transaction."""
        session = self.session()
        session.start_transaction()
        self.failureResultOf(session.with_transaction(self.callback), InvalidOperation)
        self.assertEqual(self.calls, 0)

    def test_error(self) -> None:
        """An error of the function aborts the transaction and comes out."""
        self.answers["insert"] = [OperationFailure("duplicate", 11000, {"code": 11000})]
        self.failureResultOf(self.session().with_transaction(self.callback), OperationFailure)
        self.assertEqual((self.names, self.calls), (["insert", "abortTransaction"], 1))

        def broken(session: ClientSession) -> None:
            raise KeyError

        self.failureResultOf(self.session().with_transaction(broken), KeyError)

    def test_ended_by_callback(self) -> None:
        """If the function ends the transaction itself, nothing more is done."""
        for end, error in (
            ("commit_transaction", None),
            ("abort_transaction", None),
            ("abort_transaction", KeyError()),
        ):

            async def callback(session: ClientSession, end: str = end, error: Exception | None = error) -> str:
                await self.step(session)
                await getattr(session, end)()
                if error is not None:
                    raise error
                return "done"

            self.executed.clear()
            result = self.session().with_transaction(callback)
            if error is None:
                self.assertEqual(self.successResultOf(result), "done")
            else:
                self.failureResultOf(result, KeyError)
            self.assertEqual(len(self.executed), 2)

    def test_transient_error(self) -> None:
        """A transient error makes it run again from the beginning, after a pause."""
        self.answers["insert"] = [transient()]
        running = self.session().with_transaction(self.callback)
        self.assertEqual(self.names, ["insert", "abortTransaction"])
        self.assertNoResult(running)
        self.clock.advance(0.005)
        self.assertEqual(self.successResultOf(running), 42)
        self.assertEqual((self.calls, self.names[2:]), (2, ["insert", "commitTransaction"]))
        self.assertEqual([command["txnNumber"] for command in self.commands], [1, 1, 2, 2])

    def test_transient_commit(self) -> None:
        """So does one of the commit; nothing is aborted then."""
        self.answers["commitTransaction"] = [transient()]
        running = self.session().with_transaction(self.callback)
        self.clock.advance(0.005)
        self.assertEqual(self.successResultOf(running), 42)
        self.assertEqual(self.names, ["insert", "commitTransaction"] * 2)

    def test_unknown_commit(self) -> None:
        """A commit of unknown outcome is asked for again at once, for a majority."""
        self.answers["commitTransaction"] = [unknown(), unknown()]
        self.assertEqual(self.successResultOf(self.session().with_transaction(self.callback)), 42)
        self.assertEqual(self.names, ["insert", *["commitTransaction"] * 3])
        self.assertEqual(self.commands[-1]["writeConcern"]["w"], "majority")

    def test_commit_time_over(self) -> None:
        """A commit for which the server had no time is not asked for again, nor one that failed for good."""
        for error in (unknown(50), OperationFailure("no", 1, {"code": 1})):
            self.answers["commitTransaction"] = [error]
            failure = self.failureResultOf(self.session().with_transaction(self.callback), OperationFailure)
            self.assertIs(failure.value, error)

    def test_pauses(self) -> None:
        """The pauses grow by a half, up to half a second: 13 of them make 1.8 s at most."""
        self.answers["commitTransaction"] = [transient() for _ in range(13)]
        running = self.session().with_transaction(self.callback)
        pauses = []
        while self.clock.getDelayedCalls():
            call = self.clock.getDelayedCalls()[0]
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
        self.assertEqual(self.successResultOf(running), 42)
        self.assertAlmostEqual(pauses[0], 0.005)
        self.assertAlmostEqual(pauses[1], 0.0075)
        self.assertEqual((len(pauses), round(pauses[-1], 6), round(sum(pauses), 1)), (13, 0.5, 1.8))

    def test_jitter(self) -> None:
        """A pause is shortened at random, to nothing at the least."""
        self.jitter = 0.0
        self.answers["insert"] = [transient()]
        running = self.session().with_transaction(self.callback)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(running), 42)

    def test_time_limit_of_callback(self) -> None:
        """After 120 s nothing is run again: the error is a timeout that tells the last one and its labels."""
        last = transient("the last straw")

        def slow(session: ClientSession) -> Deferred[Any]:
            self.clock.advance(120.0)
            return fail(last)

        failure = self.failureResultOf(self.session().with_transaction(slow), NetworkTimeout)
        self.assertIs(failure.value.__cause__, last)
        self.assertIn("the last straw", str(failure.value))
        self.assertTrue(failure.value.has_error_label("TransientTransactionError"))

    def test_time_limit_before_pause(self) -> None:
        """A pause that would end after the limit is not begun."""

        def slow(session: ClientSession) -> Deferred[Any]:
            self.clock.advance(119.9999)
            return fail(transient())

        self.failureResultOf(self.session().with_transaction(slow), NetworkTimeout)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_limit_of_commit(self) -> None:
        """After 120 s no commit is asked for again."""
        waiting: Deferred[Any] = Deferred()
        last = unknown()
        self.answers["commitTransaction"] = [waiting]
        running = self.session().with_transaction(self.callback)
        self.clock.advance(120.0)
        waiting.callback(last)
        failure = self.failureResultOf(running, NetworkTimeout)
        self.assertIs(failure.value.__cause__, last)
        self.assertTrue(failure.value.has_error_label("UnknownTransactionCommitResult"))

    def test_other_errors_after_limit(self) -> None:
        """An error that would not have been met with a repetition comes out as it is."""

        def slow(session: ClientSession) -> Deferred[Any]:
            self.clock.advance(200.0)
            return fail(KeyError())

        self.failureResultOf(self.session().with_transaction(slow), KeyError)

    def test_own_timeout(self) -> None:
        """The session's own timeout takes the place of the 120 s; 0 is no limit."""

        def slow(session: ClientSession) -> Deferred[Any]:
            limit = session.time_limit
            assert limit is not None
            self.assertEqual(limit.deadline.at is None, not timeout_ms)
            self.clock.advance(1000.0)
            return fail(transient())

        timeout_ms = 500
        session = self.session(default_timeout_ms=timeout_ms)
        self.failureResultOf(session.with_transaction(slow), NetworkTimeout)
        self.assertIsNone(session.time_limit)
        timeout_ms = 0
        running = self.session(default_timeout_ms=timeout_ms).with_transaction(slow)
        self.assertNoResult(running)
        running.cancel()
        self.failureResultOf(running, CancelledError)

    def test_time_over_in_callback(self) -> None:
        """A timeout of a later attempt's command tells of the error before it, with its labels, not of itself."""
        late = ExecutionTimeout("insert was not sent", 50)
        for options, cause in (({"default_timeout_ms": 500}, True), ({}, False)):
            first = transient()
            self.answers["insert"] = [first, late]
            running = self.session(**options).with_transaction(self.callback)
            self.clock.advance(0.005)
            error = self.failureResultOf(running, PyMongoError).value
            assert isinstance(error, PyMongoError)
            self.assertTrue(error.timeout)
            self.assertIs(error.__cause__, first if cause else None)
            self.assertEqual(error.has_error_label("TransientTransactionError"), cause)

    def test_time_over_at_once(self) -> None:
        """A timeout of the first attempt comes out as it is."""
        late = ExecutionTimeout("insert was not sent", 50)
        self.answers["insert"] = [late]
        running = self.session(default_timeout_ms=500).with_transaction(self.callback)
        self.assertIs(self.failureResultOf(running, ExecutionTimeout).value, late)

    def test_cancel_in_callback(self) -> None:
        """Cancelled while the function runs, it fails at once, and the abort is sent all the same."""
        self.answers["insert"] = [Deferred()]
        waiting: Deferred[Any] = Deferred()
        self.answers["abortTransaction"] = [waiting]
        session = self.session()
        running = session.with_transaction(self.callback)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.names, ["insert", "abortTransaction"])
        waiting.errback(ValueError("nobody hears this"))
        session.end_session()
        self.assertEqual(self.sessions.pool.in_use, 0)

    def test_cancel_after_end(self) -> None:
        """Cancelled after the function has ended the transaction, nothing is sent."""

        async def callback(session: ClientSession) -> None:
            await self.step(session)
            await session.abort_transaction()
            await Deferred()

        running = self.session().with_transaction(callback)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.names, ["insert", "abortTransaction"])

    def test_cancel_in_pause(self) -> None:
        """Cancelled between two attempts, it leaves the clock clean."""
        self.answers["insert"] = [transient()]
        running = self.session().with_transaction(self.callback)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual((self.clock.getDelayedCalls(), self.calls), ([], 1))

    def test_cancel_in_commit(self) -> None:
        """Cancelled while it commits, nothing is repeated or aborted."""
        self.answers["commitTransaction"] = [Deferred()]
        running = self.session().with_transaction(self.callback)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.names, ["insert", "commitTransaction"])

    def test_abort_is_an_operation(self) -> None:
        """The abort belongs to the session."""
        self.answers["insert"] = [fail(KeyError())]
        session = self.session()
        self.failureResultOf(session.with_transaction(self.callback), KeyError)
        abort = self.executed[-1]
        self.assertIsInstance(abort, AbortTransaction)
        self.assertIs(abort.session, session)
