"""Whether a failed operation is tried again, and what its error is labelled: pure functions over values.

The executor carries the verdict out. For each attempt that failed it calls :func:`add_labels`, tells the session of the
failure, then asks :func:`decide`, with the history that the verdict before returned. Retryable reads, retryable writes,
transactions ("Error Labels") and client backpressure specifications; of the last the version that limits retries by
``maxAdaptiveRetries`` and knows no token bucket any more.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from txmongo._cmap.errors import PoolClearedError
from txmongo._deferreds import Deadline
from txmongo._ops.base import Operation, RetryKind
from txmongo._ops.cursors import GetMore, KillCursors
from txmongo._ops.run_command import RunCommand, RunCursorCommand
from txmongo._ops.transactions import AbortTransaction, CommitTransaction
from txmongo._pymongo import SERVER_TYPE, add_error_label
from txmongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._settings import ClientSettings
    from txmongo.types import Address

__all__ = [
    "FailedAttempt",
    "Gate",
    "History",
    "RetryPolicy",
    "Stage",
    "Subject",
    "Verdict",
    "add_labels",
    "decide",
    "is_max_time_expired",
    "subject_of",
    "supports_retryable_writes",
]

RETRYABLE_WRITE: Final = "RetryableWriteError"
NO_WRITES_PERFORMED: Final = "NoWritesPerformed"
TRANSIENT_TRANSACTION: Final = "TransientTransactionError"
UNKNOWN_COMMIT: Final = "UnknownTransactionCommitResult"
OVERLOADED: Final = "SystemOverloadedError"
RETRYABLE: Final = "RetryableError"

#: Answers of a server that a read survives by being sent again: retryable reads specification, "Retryable Error".
_RETRYABLE_CODES = frozenset({6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
#: ReadConcernMajorityNotAvailableYet is nothing that a write can meet.
_RETRYABLE_HANDSHAKE_CODES = _RETRYABLE_CODES - {134}
_ILLEGAL_OPERATION = 20
_MAX_TIME_EXPIRED = 50
#: UnknownReplWriteConcern and CannotSatisfyWriteConcern: sent again, the write concern would be as wrong as before.
_WRONG_WRITE_CONCERN = frozenset({79, 100})

#: Seconds of the overload back-off: twice the first before the first retry, doubled with each, never above the second.
_BASE_BACKOFF = 0.1
_MAX_BACKOFF = 10.0

_NO_RETRYABLE_WRITES = (
    "This MongoDB deployment does not support retryable writes. Please add retryWrites=false to your connection string."
)


class Stage(enum.Enum):
    """How far an attempt got."""

    #: No server was found.
    SELECTION = "selection"
    #: No connection was had: the pool refused, or opening one failed.
    CHECK_OUT = "check out"
    #: The command could not be made for the server that was selected.
    BUILDING = "building"
    #: The command was handed to a connection.
    COMMAND = "command"


class Gate(enum.Enum):
    """Which of the client's options must be on if an overloaded server is to be asked again."""

    READS = "retryReads"
    WRITES = "retryWrites"
    #: A command that the application wrote may be either.
    BOTH = "retryReads and retryWrites"
    #: The end of a transaction does not depend on them.
    OPEN = "neither"


@attrs.frozen(kw_only=True)
class Subject:
    """What is tried.

    :ivar kind: by which specification a failure may be followed by another attempt.
    :ivar gate: the options that must be on for a retry because of overload.
    :ivar in_transaction: it is part of a transaction, other than its commit or abort.
    :ivar commits: it commits a transaction.
    """

    kind: RetryKind
    gate: Gate
    in_transaction: bool = False
    commits: bool = False

    @property
    def ends_transaction(self) -> bool:
        """Whether it commits or aborts: it is tried again whatever ``retryWrites`` says."""
        return self.gate is Gate.OPEN


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """The options of a client that matter here.

    :ivar max_adaptive_retries: retries of one operation once an overloaded server has answered.
    :ivar retarget_overload: prefer servers that did not say that they are overloaded.
    :ivar patience: seconds for which attempts that did not even get a connection do not count.
    """

    retry_reads: bool = True
    retry_writes: bool = True
    max_adaptive_retries: int = 2
    retarget_overload: bool = False
    patience: float = 30.0

    @classmethod
    def from_settings(cls, settings: ClientSettings) -> RetryPolicy:
        """Those of a client's settings."""
        return cls(
            retry_reads=settings.retry_reads,
            retry_writes=settings.retry_writes,
            max_adaptive_retries=settings.max_adaptive_retries,
            retarget_overload=settings.enable_overload_retargeting,
            patience=settings.server_selection_timeout,
        )


@attrs.frozen(kw_only=True)
class FailedAttempt:
    """One attempt and how it ended.

    :ivar address: the server that was selected, if one was.
    :ivar retryable_write: whether a write could be repeated safely: its command carried a ``txnNumber``; before there
        was a connection, whether it would have carried one at the server that was selected.
    """

    error: BaseException
    stage: Stage = Stage.COMMAND
    address: Address | None = None
    retryable_write: bool = True


@attrs.frozen(kw_only=True)
class History:
    """What an operation has been through.

    :ivar error: what to raise if there is no further attempt; ``None`` before the first failure.
    :ivar attempts: failed ones that count.
    :ivar since: when the first one failed.
    :ivar overloaded: a server said that it is overloaded; from then on another limit holds.
    :ivar deprioritized: servers to be selected only if no other one suits.
    """

    error: BaseException | None = None
    attempts: int = 0
    since: float = 0.0
    overloaded: bool = False
    deprioritized: tuple[Address, ...] = ()


@attrs.frozen(kw_only=True)
class Verdict:
    """What follows a failed attempt.

    :ivar error: what to raise if it is not tried again, or if no server, or only one without support, is found for it.
    :ivar delay: seconds after which it is tried again; ``None`` if it is not.
    :ivar history: for the next decision; its ``deprioritized`` is for the next selection.
    :ivar out_of_time: it would be tried again if there was time for it.
    """

    error: BaseException
    delay: float | None
    history: History
    out_of_time: bool = False

    @property
    def again(self) -> bool:
        """Whether it is tried again."""
        return self.delay is not None


def subject_of(operation: Operation[Any], in_transaction: bool = False) -> Subject:
    """What :func:`decide` has to know of an operation."""
    return Subject(
        kind=operation.retry,
        gate=_gate(operation),
        in_transaction=in_transaction,
        commits=isinstance(operation, CommitTransaction),
    )


def _gate(operation: Operation[Any]) -> Gate:
    if isinstance(operation, CommitTransaction | AbortTransaction):
        return Gate.OPEN
    if isinstance(operation, RunCommand | RunCursorCommand):
        return Gate.READS if operation.retry is RetryKind.READ else Gate.BOTH
    if operation.retry is RetryKind.READ or isinstance(operation, GetMore | KillCursors):
        return Gate.READS
    return Gate.WRITES


def supports_retryable_writes(description: StreamDescription) -> bool:
    """Whether a write that is tried again may be sent on such a connection; asked after the check-out."""
    return description.logical_session_timeout_minutes is not None and description.server_type != SERVER_TYPE.Standalone


# --- labels ---


def add_labels(failed: FailedAttempt, subject: Subject, policy: RetryPolicy) -> None:
    """Label an error as the specifications want it, before anybody decides by its labels."""
    error = failed.error
    if not isinstance(error, PyMongoError):
        return
    if _deserves_retryable_write(error, failed, subject, policy):
        add_error_label(error, RETRYABLE_WRITE)
    if subject.in_transaction and _is_unanswered(error, failed.stage):
        add_error_label(error, TRANSIENT_TRANSACTION)
    if subject.commits and _leaves_commit_unknown(error, failed.stage):
        add_error_label(error, UNKNOWN_COMMIT)


def _deserves_retryable_write(
    error: PyMongoError, failed: FailedAttempt, subject: Subject, policy: RetryPolicy
) -> bool:
    """Whether the driver itself says that a write may be sent again: "RetryableWriteError Labels"."""
    if subject.kind is not RetryKind.WRITE or subject.in_transaction or not failed.retryable_write:
        return False
    if not policy.retry_writes and not subject.ends_transaction:
        return False
    if failed.stage in (Stage.SELECTION, Stage.BUILDING):
        return False
    if failed.stage is Stage.CHECK_OUT:
        return _is_network_error(error) or _code(error) in _RETRYABLE_HANDSHAKE_CODES
    return _is_network_error(error)


def _is_network_error(error: BaseException) -> bool:
    """Whether the connection is to blame, and no server answered."""
    return (
        isinstance(error, AutoReconnect) and not isinstance(error, ServerSelectionTimeoutError) and not _details(error)
    )


def _is_unanswered(error: PyMongoError, stage: Stage) -> bool:
    """Whether no answer to the command came, for a reason that another try may not meet."""
    return isinstance(error, ConnectionFailure) and (stage is not Stage.COMMAND or not _details(error))


def _leaves_commit_unknown(error: PyMongoError, stage: Stage) -> bool:
    """Whether nobody knows if the transaction was committed, with the guarantee that was asked for."""
    if _is_unanswered(error, stage) or error.has_error_label(RETRYABLE_WRITE) or is_max_time_expired(error):
        return True
    if isinstance(error, WriteConcernError):
        return error.code not in _WRONG_WRITE_CONCERN
    return "writeConcernError" in _details(error)


def is_max_time_expired(error: BaseException) -> bool:
    """Whether the server gave up because of ``maxTimeMS``, wherever its reply says so."""
    nested = _details(error).get("writeConcernError")
    return _code(error) == _MAX_TIME_EXPIRED or (
        isinstance(nested, Mapping) and nested.get("code") == _MAX_TIME_EXPIRED
    )


def _details(error: BaseException) -> Mapping[str, Any]:
    """The server's reply, empty if there was none."""
    details = getattr(error, "details", None)
    return details if isinstance(details, Mapping) else {}


def _code(error: BaseException) -> Any:
    return _details(error).get("code", getattr(error, "code", None))


def _has_label(error: BaseException, label: str) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(label)


# --- the decision ---


def decide(
    failed: FailedAttempt,
    subject: Subject,
    policy: RetryPolicy,
    history: History,
    *,
    now: float,
    sharded: bool = False,
    deadline: Deadline = Deadline.never,
    unlimited: bool = False,
    jitter: float = 1.0,
) -> Verdict:
    """Decide what follows a failed attempt, whose error has its labels. Not to be asked about a cancellation.

    :param history: an empty one after the first attempt, the last verdict's after each later one.
    :param now: the time, on the clock of ``deadline``.
    :param sharded: the topology is a sharded cluster: the next attempt had better go to another mongos.
    :param deadline: when the operation's time is up.
    :param unlimited: retries are limited by the deadline alone (``timeoutMS``).
    :param jitter: a random number from 0 to 1 for this retry.
    """
    error = failed.error
    overload = _has_label(error, OVERLOADED)
    counts = not _is_free(failed, history, policy, now)
    seen = History(
        error=_to_raise(failed, history, subject),
        attempts=history.attempts + counts,
        since=history.since if history.error is not None else now,
        overloaded=history.overloaded or overload,
        deprioritized=_deprioritized(failed, history, policy, sharded, overload),
    )
    delay: float | None = None
    out_of_time = False
    if _is_retryable(failed, subject, policy) and seen.attempts <= _limit(seen, policy, unlimited):
        delay = _backoff(error, seen.attempts, jitter) if overload else 0.0
        out_of_time = deadline.passed(now + delay)
        if out_of_time:
            delay = None
    assert seen.error is not None
    return Verdict(error=seen.error, delay=delay, history=seen, out_of_time=out_of_time)


def _is_free(failed: FailedAttempt, history: History, policy: RetryPolicy, now: float) -> bool:
    """Whether an attempt does not count: the pool was cleared before a connection was had, so nothing was tried.

    For so long only as an operation may wait for a server, that it ends where a server fails and recovers for ever.
    """
    if failed.stage is not Stage.CHECK_OUT or not isinstance(failed.error, PoolClearedError):
        return False
    return history.error is None or now - history.since < policy.patience


def _limit(history: History, policy: RetryPolicy, unlimited: bool) -> float:
    """How often an operation may be tried again."""
    if history.overloaded:
        return policy.max_adaptive_retries
    return math.inf if unlimited else 1


def _is_retryable(failed: FailedAttempt, subject: Subject, policy: RetryPolicy) -> bool:
    error = failed.error
    if failed.stage in (Stage.SELECTION, Stage.BUILDING):
        return False
    if _has_label(error, OVERLOADED) and _has_label(error, RETRYABLE) and _is_open(subject.gate, policy):
        return True
    if subject.in_transaction:
        return False
    if subject.kind is RetryKind.READ:
        return policy.retry_reads and (_is_network_error(error) or _is_retryable_answer(error))
    if subject.kind is RetryKind.WRITE:
        on = policy.retry_writes or subject.ends_transaction
        return on and failed.retryable_write and _has_label(error, RETRYABLE_WRITE)
    return False


def _is_retryable_answer(error: BaseException) -> bool:
    return isinstance(error, PyMongoError) and _code(error) in _RETRYABLE_CODES


def _is_open(gate: Gate, policy: RetryPolicy) -> bool:
    """Whether the options allow an operation to be sent again to an overloaded server."""
    reads = policy.retry_reads or gate in (Gate.WRITES, Gate.OPEN)
    writes = policy.retry_writes or gate in (Gate.READS, Gate.OPEN)
    return reads and writes


def _to_raise(failed: FailedAttempt, history: History, subject: Subject) -> BaseException:
    """Which of the errors so far tells the caller most: the last one, unless it says that nothing was done or tried."""
    error = failed.error
    tells_nothing = failed.stage is not Stage.COMMAND or _has_label(error, NO_WRITES_PERFORMED)
    if history.error is not None and tells_nothing:
        return history.error
    return error if subject.in_transaction else _actionable(error)


def _actionable(error: BaseException) -> BaseException:
    """An error that says what to do, for a deployment whose storage engine has no retryable writes."""
    if isinstance(error, OperationFailure) and error.code == _ILLEGAL_OPERATION:
        message = str(_details(error).get("errmsg", ""))
        if message.startswith("Transaction numbers"):
            return OperationFailure(_NO_RETRYABLE_WRITES, error.code, error.details)
    return error


def _deprioritized(
    failed: FailedAttempt, history: History, policy: RetryPolicy, sharded: bool, overload: bool
) -> tuple[Address, ...]:
    address = failed.address
    if address is None or address in history.deprioritized:
        return history.deprioritized
    if sharded or (overload and policy.retarget_overload):
        return (*history.deprioritized, address)
    return history.deprioritized


def _backoff(error: BaseException, attempts: int, jitter: float) -> float:
    """Seconds before a retry because of overload; the server may name another beginning in ``baseBackoffMS``."""
    base = _BASE_BACKOFF
    named = _details(error).get("baseBackoffMS")
    if isinstance(named, int | float) and named > 0:
        base = named / 1000
    doublings = min(attempts, 64)
    return jitter * min(_MAX_BACKOFF, base * 2.0**doublings)
