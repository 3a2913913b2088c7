"""``txmongo._ops.retry``: labels and verdicts."""

from __future__ import annotations

from typing import Any

import attrs
from pymongo.server_type import SERVER_TYPE
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._cmap.errors import PoolClearedError
from txmongo._deferreds import Deadline
from txmongo._ops.base import Operation, RetryKind
from txmongo._ops.cursors import GetMore, KillCursors
from txmongo._ops.explain import Explain
from txmongo._ops.retry import (
    FailedAttempt,
    Gate,
    History,
    RetryPolicy,
    Stage,
    Subject,
    Verdict,
    add_labels,
    decide,
    is_max_time_expired,
    subject_of,
    supports_retryable_writes,
)
from txmongo._ops.run_command import RunCommand, RunCursorCommand
from txmongo._ops.transactions import AbortTransaction, CommitTransaction
from txmongo._settings import parse_settings
from txmongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    error_from_reply,
    write_concern_error_from_reply,
)

A, B = ("a", 27017), ("b", 27017)
OVERLOAD = ["SystemOverloadedError", "RetryableError"]
READ = Subject(kind=RetryKind.READ, gate=Gate.READS)
WRITE = Subject(kind=RetryKind.WRITE, gate=Gate.WRITES)
OTHER_WRITE = Subject(kind=RetryKind.NEVER, gate=Gate.WRITES)
COMMIT = Subject(kind=RetryKind.WRITE, gate=Gate.OPEN, commits=True)
ABORT = Subject(kind=RetryKind.WRITE, gate=Gate.OPEN)
READ_INSIDE = Subject(kind=RetryKind.READ, gate=Gate.READS, in_transaction=True)
WRITE_INSIDE = Subject(kind=RetryKind.WRITE, gate=Gate.WRITES, in_transaction=True)
POLICY = RetryPolicy()
LABELS = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")


def answer(code: int, *labels: str, **fields: Any) -> PyMongoError:
    """The error for a server's answer."""
    error = error_from_reply({"ok": 0, "errmsg": "no", "code": code, "errorLabels": list(labels), **fields})
    assert error is not None
    return error


def concern(code: int, *labels: str) -> PyMongoError:
    """The error for an answer with a write concern error."""
    reply: dict[str, Any] = {"ok": 1, "writeConcernError": {"code": code, "errmsg": "no"}}
    if labels:
        reply["errorLabels"] = list(labels)
    error = write_concern_error_from_reply(reply)
    assert error is not None
    return error


def judge(
    error: BaseException,
    subject: Subject,
    history: History | None = None,
    *,
    policy: RetryPolicy = POLICY,
    stage: Stage = Stage.COMMAND,
    address: tuple[str, int] | None = A,
    retryable_write: bool = True,
    now: float = 0.0,
    **options: Any,
) -> Verdict:
    """Label an error and decide."""
    failed = FailedAttempt(error=error, stage=stage, address=address, retryable_write=retryable_write)
    add_labels(failed, subject, policy)
    return decide(failed, subject, policy, history or History(), now=now, **options)


class LabelTests(SynchronousTestCase):
    """What the driver itself adds to an error."""

    def labels(
        self,
        error: BaseException,
        subject: Subject,
        stage: Stage = Stage.COMMAND,
        policy: RetryPolicy = POLICY,
        retryable_write: bool = True,
    ) -> set[str]:
        """The labels that an error then has."""
        add_labels(FailedAttempt(error=error, stage=stage, retryable_write=retryable_write), subject, policy)
        assert isinstance(error, PyMongoError)
        return {label for label in LABELS if error.has_error_label(label)}

    def test_network_error_of_a_write(self) -> None:
        """A retryable write whose connection is lost may be retried, at check-out as well as later."""
        for stage in (Stage.CHECK_OUT, Stage.COMMAND):
            self.assertEqual(self.labels(AutoReconnect("lost"), WRITE, stage), {"RetryableWriteError"})
            self.assertEqual(self.labels(NetworkTimeout("late"), WRITE, stage), {"RetryableWriteError"})
            self.assertEqual(self.labels(PoolClearedError("cleared"), WRITE, stage), {"RetryableWriteError"})

    def test_not_retryable(self) -> None:
        """Nothing is added for other operations, with retryWrites off, or if the command carried no number."""
        self.assertEqual(self.labels(AutoReconnect("lost"), READ), set())
        self.assertEqual(self.labels(AutoReconnect("lost"), OTHER_WRITE), set())
        self.assertEqual(self.labels(AutoReconnect("lost"), WRITE, policy=RetryPolicy(retry_writes=False)), set())
        self.assertEqual(self.labels(AutoReconnect("lost"), WRITE, retryable_write=False), set())
        self.assertEqual(self.labels(WaitQueueTimeoutError("full"), WRITE, Stage.CHECK_OUT), set())

    def test_selection(self) -> None:
        """That no server was found is no reason for a retry by the driver."""
        self.assertEqual(self.labels(ServerSelectionTimeoutError("none"), WRITE, Stage.SELECTION), set())
        self.assertEqual(self.labels(AutoReconnect("odd"), WRITE, Stage.BUILDING), set())

    def test_servers_answers_are_left(self) -> None:
        """A server labels its answers to commands itself."""
        self.assertEqual(self.labels(answer(91), WRITE), set())
        self.assertEqual(self.labels(answer(91, "RetryableWriteError"), WRITE), {"RetryableWriteError"})

    def test_handshake_answers(self) -> None:
        """A server that shuts down while it greets a new connection is as good as a lost connection."""
        self.assertEqual(self.labels(answer(91), WRITE, Stage.CHECK_OUT), {"RetryableWriteError"})
        self.assertEqual(self.labels(answer(18), WRITE, Stage.CHECK_OUT), set())

    def test_in_transaction(self) -> None:
        """In a transaction what was not answered makes the whole of it worth another try, and no single write."""
        for subject in (READ_INSIDE, WRITE_INSIDE):
            for error in (AutoReconnect("lost"), PoolClearedError("cleared"), WaitQueueTimeoutError("full")):
                self.assertEqual(self.labels(error, subject), {"TransientTransactionError"})
            error = ServerSelectionTimeoutError("none")
            self.assertEqual(self.labels(error, subject, Stage.SELECTION), {"TransientTransactionError"})
            self.assertEqual(self.labels(answer(91), subject, Stage.CHECK_OUT), {"TransientTransactionError"})
            self.assertEqual(self.labels(answer(91), subject), set())
            self.assertEqual(self.labels(answer(11000), subject), set())

    def test_commit(self) -> None:
        """A commit that was not answered, or not within its time, leaves its outcome unknown."""
        unknown = {"UnknownTransactionCommitResult"}
        self.assertEqual(self.labels(AutoReconnect("lost"), COMMIT), {*unknown, "RetryableWriteError"})
        self.assertEqual(self.labels(ServerSelectionTimeoutError("none"), COMMIT, Stage.SELECTION), unknown)
        self.assertEqual(self.labels(answer(50), COMMIT), unknown)
        labelled = answer(11602, "RetryableWriteError")
        self.assertEqual(self.labels(labelled, COMMIT), {*unknown, "RetryableWriteError"})
        self.assertEqual(self.labels(answer(11601), COMMIT), set())

    def test_commit_regardless_of_retry_writes(self) -> None:
        """A commit is a retryable write even with retryWrites off."""
        labels = self.labels(AutoReconnect("lost"), COMMIT, policy=RetryPolicy(retry_writes=False))
        self.assertIn("RetryableWriteError", labels)

    def test_commit_and_write_concern(self) -> None:
        """A write concern that failed leaves it unknown, unless it can never be satisfied."""
        unknown = {"UnknownTransactionCommitResult"}
        self.assertEqual(self.labels(concern(64), COMMIT), unknown)
        self.assertEqual(self.labels(concern(50), COMMIT), unknown)
        self.assertEqual(self.labels(concern(91), COMMIT), unknown)
        self.assertEqual(self.labels(concern(79), COMMIT), set())
        self.assertEqual(self.labels(concern(100), COMMIT), set())

    def test_abort(self) -> None:
        """An abort is retried like a write."""
        self.assertEqual(self.labels(AutoReconnect("lost"), ABORT), {"RetryableWriteError"})

    def test_foreign_errors(self) -> None:
        """What is no error of PyMongo's has no labels."""
        add_labels(FailedAttempt(error=ValueError()), WRITE, POLICY)


class ReadTests(SynchronousTestCase):
    """Retryable reads."""

    def test_retried_once(self) -> None:
        """A read whose connection is lost is tried again at once; if that fails too, its error is raised."""
        first, second = AutoReconnect("one"), AutoReconnect("two")
        verdict = judge(first, READ)
        self.assertEqual((verdict.again, verdict.delay, verdict.error), (True, 0.0, first))
        verdict = judge(second, READ, verdict.history)
        self.assertEqual((verdict.again, verdict.error), (False, second))

    def test_codes(self) -> None:
        """Answers that tell of a change of state, and of a majority not there yet, are retried; others are not."""
        for code in (6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436):
            self.assertTrue(judge(answer(code), READ).again, code)
        for code in (1, 20, 50, 11601, 11000):
            self.assertFalse(judge(answer(code), READ).again, code)

    def test_not_retried(self) -> None:
        """Nothing is retried with retryReads off, in a transaction, without a server, or after a fault of our own."""
        self.assertFalse(judge(AutoReconnect("lost"), READ, policy=RetryPolicy(retry_reads=False)).again)
        self.assertFalse(judge(AutoReconnect("lost"), READ_INSIDE).again)
        self.assertFalse(judge(ServerSelectionTimeoutError("none"), READ, stage=Stage.SELECTION).again)
        self.assertFalse(judge(AutoReconnect("odd"), READ, stage=Stage.BUILDING).again)
        self.assertFalse(judge(WaitQueueTimeoutError("full"), READ, stage=Stage.CHECK_OUT).again)
        self.assertFalse(judge(ValueError("ours"), READ).again)

    def test_other_operations(self) -> None:
        """What belongs to neither specification is not retried."""
        self.assertFalse(judge(AutoReconnect("lost"), OTHER_WRITE).again)

    def test_previous_error(self) -> None:
        """If the retry did not get as far as the server, the error of the attempt before it is raised."""
        first = AutoReconnect("one")
        history = judge(first, READ).history
        for stage, error in (
            (Stage.SELECTION, ServerSelectionTimeoutError("none")),
            (Stage.CHECK_OUT, WaitQueueTimeoutError("full")),
            (Stage.BUILDING, ValueError("too old")),
        ):
            verdict = judge(error, READ, history, stage=stage)
            self.assertEqual((verdict.again, verdict.error), (False, first))

    def test_pool_cleared(self) -> None:
        """Waiting for a connection in vain does not use the retry up, as long as one may wait for a server."""
        cleared, lost = PoolClearedError("cleared"), AutoReconnect("lost")
        verdict = judge(cleared, READ, stage=Stage.CHECK_OUT, now=100.0)
        self.assertTrue(verdict.again)
        verdict = judge(PoolClearedError("again"), READ, verdict.history, stage=Stage.CHECK_OUT, now=129.0)
        self.assertEqual((verdict.again, verdict.error), (True, cleared))
        self.assertEqual(judge(lost, READ, verdict.history, now=129.5).delay, 0.0)
        for now in (130.0, 131.0):
            verdict = judge(PoolClearedError("again"), READ, verdict.history, stage=Stage.CHECK_OUT, now=now)
        self.assertEqual((verdict.again, verdict.error), (False, cleared))

    def test_pool_cleared_in_flight(self) -> None:
        """A connection that was cut because its pool was cleared is an attempt like any other."""
        verdict = judge(PoolClearedError("interrupted"), READ)
        self.assertEqual((verdict.again, verdict.history.attempts), (True, 1))


class WriteTests(SynchronousTestCase):
    """Retryable writes."""

    def test_by_label(self) -> None:
        """The label alone decides."""
        self.assertTrue(judge(AutoReconnect("lost"), WRITE).again)
        self.assertTrue(judge(answer(91, "RetryableWriteError"), WRITE).again)
        self.assertTrue(judge(concern(91, "RetryableWriteError"), WRITE).again)
        self.assertFalse(judge(answer(91), WRITE).again)

    def test_once(self) -> None:
        """There is one retry."""
        history = judge(AutoReconnect("one"), WRITE).history
        self.assertFalse(judge(AutoReconnect("two"), WRITE, history).again)

    def test_not_retried(self) -> None:
        """Nothing is retried with retryWrites off, without a number, or in a transaction."""
        error = answer(91, "RetryableWriteError")
        self.assertFalse(judge(error, WRITE, policy=RetryPolicy(retry_writes=False)).again)
        self.assertFalse(judge(error, WRITE, retryable_write=False).again)
        self.assertFalse(judge(error, WRITE_INSIDE).again)

    def test_commit_and_abort(self) -> None:
        """The end of a transaction is retried whatever retryWrites says."""
        for subject in (COMMIT, ABORT):
            self.assertTrue(judge(AutoReconnect("lost"), subject, policy=RetryPolicy(retry_writes=False)).again)

    def test_no_writes_performed(self) -> None:
        """An error that says that nothing was written gives way to the one before it, however many there are."""
        both = ("RetryableWriteError", "NoWritesPerformed")
        shutdown, not_primary = answer(91, "RetryableWriteError"), answer(10107, *both)
        verdict = judge(not_primary, WRITE, judge(shutdown, WRITE).history)
        self.assertIs(verdict.error, shutdown)
        only = answer(91, *both)
        self.assertIs(judge(not_primary, WRITE, judge(only, WRITE).history).error, only)
        history = judge(only, WRITE).history
        self.assertIs(judge(shutdown, WRITE, history).error, shutdown)

    def test_unlimited(self) -> None:
        """With timeoutMS there is no limit but the deadline."""
        deadline = Deadline(10.0)
        history = History()
        for now in range(10):
            verdict = judge(AutoReconnect("lost"), WRITE, history, now=float(now), unlimited=True, deadline=deadline)
            history = verdict.history
            self.assertTrue(verdict.again)
        self.assertFalse(judge(AutoReconnect("x"), WRITE, history, now=10.0, unlimited=True, deadline=deadline).again)

    def test_deadline(self) -> None:
        """Nothing is tried again when time is up, not even the first time."""
        self.assertFalse(judge(AutoReconnect("lost"), WRITE, now=5.0, deadline=Deadline(5.0)).again)

    def test_old_storage_engine(self) -> None:
        """A deployment without retryable writes is met with advice, but not one without transactions."""
        error = error_from_reply({"ok": 0, "code": 20, "errmsg": "Transaction numbers are only allowed on..."})
        assert error is not None
        raised: Any = judge(error, WRITE).error
        self.assertIn("retryWrites=false", str(raised))
        self.assertEqual((raised.code, raised.details["ok"]), (20, 0))
        in_transaction = Subject(kind=RetryKind.WRITE, gate=Gate.WRITES, in_transaction=True)
        self.assertIs(judge(error, in_transaction).error, error)
        other = answer(20)
        self.assertIs(judge(other, WRITE).error, other)


class DeprioritizedTests(SynchronousTestCase):
    """Which servers the next attempt had better avoid."""

    def test_replica_set(self) -> None:
        """A replica set has its own ways: the same server may be taken again."""
        self.assertEqual(judge(AutoReconnect("lost"), READ).history.deprioritized, ())

    def test_sharded(self) -> None:
        """In a sharded cluster every mongos that failed is avoided."""
        verdict = judge(AutoReconnect("one"), READ, sharded=True)
        self.assertEqual(verdict.history.deprioritized, (A,))
        verdict = judge(AutoReconnect("two"), READ, verdict.history, sharded=True, address=B)
        self.assertEqual(verdict.history.deprioritized, (A, B))
        verdict = judge(AutoReconnect("three"), READ, verdict.history, sharded=True, address=A)
        self.assertEqual(verdict.history.deprioritized, (A, B))
        verdict = judge(AutoReconnect("none"), READ, sharded=True, address=None)
        self.assertEqual(verdict.history.deprioritized, ())

    def test_retargeting(self) -> None:
        """An overloaded member is avoided where the client was told to."""
        policy = RetryPolicy(retarget_overload=True)
        self.assertEqual(judge(answer(462, *OVERLOAD), READ, policy=policy).history.deprioritized, (A,))
        self.assertEqual(judge(answer(462, *OVERLOAD), READ).history.deprioritized, ())
        self.assertEqual(judge(answer(91), READ, policy=policy).history.deprioritized, ())


class OverloadTests(SynchronousTestCase):
    """Client backpressure."""

    def test_any_operation(self) -> None:
        """Every operation is retried, with a pause that doubles, as often as maxAdaptiveRetries says."""
        for subject in (READ, WRITE, OTHER_WRITE, COMMIT, ABORT, READ_INSIDE, WRITE_INSIDE):
            verdict = judge(answer(462, *OVERLOAD), subject, retryable_write=False)
            self.assertAlmostEqual(verdict.delay or 0, 0.2)
            verdict = judge(answer(462, *OVERLOAD), subject, verdict.history, jitter=0.5)
            self.assertAlmostEqual(verdict.delay or 0, 0.2)
            self.assertFalse(judge(answer(462, *OVERLOAD), subject, verdict.history).again)

    def test_both_labels(self) -> None:
        """An overload that is not said to be retryable is none of a reason."""
        self.assertFalse(judge(answer(462, "SystemOverloadedError"), OTHER_WRITE).again)
        self.assertFalse(judge(answer(462, "RetryableError"), OTHER_WRITE).again)

    def test_gates(self) -> None:
        """retryReads and retryWrites hold here too, for each operation the one that fits it."""
        no_reads, no_writes = RetryPolicy(retry_reads=False), RetryPolicy(retry_writes=False)
        expected = {
            Gate.READS: (False, True),
            Gate.WRITES: (True, False),
            Gate.BOTH: (False, False),
            Gate.OPEN: (True, True),
        }
        for gate, allowed in expected.items():
            subject = Subject(kind=RetryKind.NEVER, gate=gate)
            found = tuple(
                judge(answer(462, *OVERLOAD), subject, policy=policy).again for policy in (no_reads, no_writes)
            )
            self.assertEqual(found, allowed, gate)

    def test_retryable_read_or_write_waits_too(self) -> None:
        """Where another rule allows the retry, an overloaded server is given its pause as well."""
        self.assertGreater(judge(answer(91, "SystemOverloadedError"), READ).delay or 0, 0)

    def test_limit_holds_for_all_that_follows(self) -> None:
        """Once a server was overloaded, its limit holds for other errors of the operation; they wait for nothing."""
        history = judge(answer(462, *OVERLOAD), READ).history
        verdict = judge(AutoReconnect("lost"), READ, history)
        self.assertEqual((verdict.delay, verdict.history.attempts), (0.0, 2))
        self.assertFalse(judge(AutoReconnect("lost"), READ, verdict.history).again)
        history = judge(AutoReconnect("lost"), READ).history
        verdict = judge(answer(462, *OVERLOAD), READ, history)
        self.assertAlmostEqual(verdict.delay or 0, 0.4)

    def test_limit_and_deadline(self) -> None:
        """It limits an operation with timeoutMS as well."""
        history = History()
        for _ in range(2):
            verdict = judge(answer(462, *OVERLOAD), READ, history, unlimited=True)
            self.assertTrue(verdict.again)
            history = verdict.history
        self.assertFalse(judge(answer(462, *OVERLOAD), READ, history, unlimited=True).again)

    def test_no_adaptive_retries(self) -> None:
        """maxAdaptiveRetries=0 turns them off."""
        self.assertFalse(judge(answer(462, *OVERLOAD), READ, policy=RetryPolicy(max_adaptive_retries=0)).again)

    def test_pause_beyond_deadline(self) -> None:
        """A pause that would go beyond the deadline is not begun."""
        self.assertFalse(judge(answer(462, *OVERLOAD), READ, now=1.0, deadline=Deadline(1.1)).again)
        self.assertTrue(judge(answer(462, *OVERLOAD), READ, now=1.0, deadline=Deadline(1.3)).again)

    def test_servers_own_beginning(self) -> None:
        """The server may name the pause to begin with; nonsense is ignored."""
        for base, delay in ((50, 0.1), (0, 0.2), (-5, 0.2), ("x", 0.2), (10_000_000, 10.0)):
            verdict = judge(answer(462, *OVERLOAD, baseBackoffMS=base), READ)
            self.assertAlmostEqual(verdict.delay or 0, delay)

    def test_greatest_pause(self) -> None:
        """No pause is longer than 10 s, however many went before."""
        policy = RetryPolicy(max_adaptive_retries=10_000)
        history = History(error=AutoReconnect("x"), attempts=5_000)
        self.assertEqual(judge(answer(462, *OVERLOAD), READ, history, policy=policy).delay, 10.0)

    def test_which_error(self) -> None:
        """Of several overloads the last one is raised, unless it says that nothing was written."""
        first, last = answer(91, *OVERLOAD), answer(10107, *OVERLOAD)
        self.assertIs(judge(last, WRITE, judge(first, WRITE).history).error, last)
        silent = answer(10107, *OVERLOAD, "NoWritesPerformed")
        self.assertIs(judge(silent, WRITE, judge(first, WRITE).history).error, first)


class SubjectTests(SynchronousTestCase):
    """What is asked of operations, settings, connections and errors."""

    def operation(self, kind: RetryKind) -> Operation[Any]:
        """An operation of a kind."""

        class Sample(Operation[Any]):
            name = "sample"
            retry = kind

        return Sample("db")

    def test_gates(self) -> None:
        """Each operation is behind the option that fits it."""
        commit = CommitTransaction(None, WriteConcern())
        cases = [
            (self.operation(RetryKind.READ), Gate.READS),
            (self.operation(RetryKind.WRITE), Gate.WRITES),
            (self.operation(RetryKind.NEVER), Gate.WRITES),
            (GetMore("db", "c", 1, A, self.operation(RetryKind.READ).codec_options), Gate.READS),
            (KillCursors("db", "c", [1], A), Gate.READS),
            (RunCommand("db", {"ping": 1}), Gate.BOTH),
            (RunCursorCommand("db", {"find": "c"}), Gate.BOTH),
            (Explain("db", {"explain": {}}), Gate.READS),
            (commit, Gate.OPEN),
            (AbortTransaction(None, WriteConcern()), Gate.OPEN),
        ]
        for operation, gate in cases:
            self.assertIs(subject_of(operation).gate, gate, operation)
        self.assertEqual(subject_of(commit), COMMIT)
        self.assertEqual(subject_of(self.operation(RetryKind.READ), in_transaction=True), READ_INSIDE)

    def test_policy(self) -> None:
        """The options are those of the client."""
        settings = parse_settings(
            "mongodb://a/?retryReads=false&maxAdaptiveRetries=7&enableOverloadRetargeting=true",
            serverSelectionTimeoutMS=5000,
        )
        self.assertEqual(
            RetryPolicy.from_settings(settings),
            RetryPolicy(retry_reads=False, max_adaptive_retries=7, retarget_overload=True, patience=5.0),
        )

    def test_support(self) -> None:
        """Retryable writes need sessions and a server that is no standalone."""
        description = StreamDescription(server_type=SERVER_TYPE.RSPrimary, logical_session_timeout_minutes=30)
        self.assertTrue(supports_retryable_writes(description))
        self.assertFalse(supports_retryable_writes(attrs.evolve(description, logical_session_timeout_minutes=None)))
        self.assertFalse(supports_retryable_writes(attrs.evolve(description, server_type=SERVER_TYPE.Standalone)))

    def test_max_time_expired(self) -> None:
        """It is recognised at the top of a reply and in a write concern error."""
        self.assertTrue(is_max_time_expired(answer(50)))
        self.assertIsInstance(answer(50), ExecutionTimeout)
        self.assertTrue(is_max_time_expired(concern(50)))
        self.assertTrue(is_max_time_expired(answer(91, writeConcernError={"code": 50})))
        for error in (answer(51), ConnectionFailure("x"), ValueError(), WriteConcernError("x"), OperationFailure("x")):
            self.assertFalse(is_max_time_expired(error))
        self.assertIsInstance(answer(91), NotPrimaryError)
