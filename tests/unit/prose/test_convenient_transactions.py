"""Prose tests of the specification of the convenient API for transactions, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

from tests.unit.sessions.case import SessionTestCase, transient, unknown
from txmongo.errors import NetworkTimeout, PyMongoError
from txmongo.sessions import ClientSession


class CustomError(Exception):
    """One that the driver knows nothing of."""


class WithTransactionTests(SessionTestCase):
    """``with_transaction``."""

    def insert(self, session: ClientSession) -> Deferred[Any]:
        """One command of the transaction."""
        return self.step(session)

    def test_custom_error(self) -> None:
        """Callback Raises a Custom Error: it comes out, and nothing is run again."""
        raised = CustomError()
        calls = 0

        def callback(session: ClientSession) -> None:
            nonlocal calls
            calls += 1
            raise raised

        failure = self.failureResultOf(self.session().with_transaction(callback), CustomError)
        self.assertIs(failure.value, raised)
        self.assertEqual(calls, 1)

    def test_value(self) -> None:
        """Callback Returns a Value: so does ``with_transaction``."""
        value = {"any": "thing"}
        self.assertIs(self.successResultOf(self.session().with_transaction(lambda session: value)), value)

    def out_of_time(self, callback: Callable[[ClientSession], Any], last: PyMongoError) -> None:
        """It fails with a timeout that has the last error as its cause, and the same labels."""
        failure = self.failureResultOf(self.session().with_transaction(callback), NetworkTimeout)
        self.assertIs(failure.value.__cause__, last)
        for label in ("TransientTransactionError", "UnknownTransactionCommitResult"):
            self.assertEqual(failure.value.has_error_label(label), last.has_error_label(label), label)

    def test_time_limit_of_callback(self) -> None:
        """Retry Timeout is Enforced: a callback that fails transiently after 120 s is not run again."""
        error = transient()

        def callback(session: ClientSession) -> Deferred[Any]:
            self.clock.advance(120.0)
            return fail(error)

        self.out_of_time(callback, error)
        self.assertEqual(self.names, [])

    def late_commit(self, error: PyMongoError) -> None:
        """A commit that fails so, after 120 s, is the last."""
        self.answers["commitTransaction"] = [error]

        def callback(session: ClientSession) -> Deferred[Any]:
            self.clock.advance(120.0)
            return self.insert(session)

        self.out_of_time(callback, error)
        self.assertEqual(self.names, ["insert", "commitTransaction"])

    def test_time_limit_of_unknown_commit(self) -> None:
        """Retry Timeout is Enforced: a commit of unknown outcome is not repeated after 120 s."""
        self.late_commit(unknown())

    def test_time_limit_of_transient_commit(self) -> None:
        """Retry Timeout is Enforced: a transaction is not repeated for its commit's sake after 120 s."""
        self.late_commit(transient())

    def seconds_of_retries(self, jitter: float) -> float:
        """How long it takes until a commit succeeds that fails 13 times."""
        self.jitter = jitter
        self.answers["commitTransaction"] = [transient() for _ in range(13)]
        began = self.clock.seconds()
        running = self.session().with_transaction(self.insert)
        while not running.called:
            # Some pauses are shorter than the step.
            self.clock.advance(0.0001)
        self.successResultOf(running)
        return self.clock.seconds() - began

    def test_back_off(self) -> None:
        """Retry Backoff is Enforced: 13 retries take 1.8 s at most, less a random part of that."""
        without = self.seconds_of_retries(0.0)
        self.assertLess(abs(self.seconds_of_retries(1.0) - (without + 1.8)), 0.5)
