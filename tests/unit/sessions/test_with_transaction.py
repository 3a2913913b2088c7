"""``txmongo._sessions.with_transaction``: when a transaction is run again, and for how long."""

from __future__ import annotations

from typing import Any

from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred, fail

from tests.unit.sessions.case import SessionTestCase, transient, unknown
from txmongo._ops.transaction_state import Settled
from txmongo._ops.transactions import AbortTransaction
from txmongo.errors import ExecutionTimeout, InvalidOperation, NetworkTimeout, OperationFailure, PyMongoError
from txmongo.sessions import ClientSession


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
