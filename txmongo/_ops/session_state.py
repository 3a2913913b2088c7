"""An application's session, and one operation's use of a session: what they put into a command and learn from replies.

No I/O and no pool: which session is used and when it comes back is :mod:`txmongo._ops.client_sessions`'; the states of
a transaction are :mod:`txmongo._ops.transaction_state`'s; the calls that an application makes are in
:mod:`txmongo.sessions`. Causal consistency, snapshot reads, retryable writes and transactions specifications, as far as
they say what a command carries.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bson.int64 import Int64
from bson.timestamp import Timestamp

from txmongo._ops.base import Operation, RetryKind, write_concern_document
from txmongo._ops.cluster_time import cluster_timestamp, later_cluster_time
from txmongo._ops.cursors import GetMore, KillCursors
from txmongo._ops.run_command import RunCommand, RunCursorCommand
from txmongo._ops.search_indexes import ListSearchIndexes
from txmongo._ops.server_sessions import ServerSession, ServerSessionPool
from txmongo._ops.transaction_state import Transaction
from txmongo._ops.transactions import AbortTransaction, CommitTransaction
from txmongo._pymongo import SERVER_TYPE
from txmongo.errors import ConfigurationError, InvalidOperation

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._ops.timeouts import TimeLimit

__all__ = ["CommandKind", "SessionState", "SessionUse", "command_kind", "sends_txn_number"]

#: The first wire version (MongoDB 5.0) whose servers read from snapshots outside of transactions.
_SNAPSHOT_READS = 13
_STANDALONE = SERVER_TYPE.Standalone

#: Commands that wait for ``readConcern.afterClusterTime``: "Causally consistent read and write commands".
_CAUSAL_COMMANDS = frozenset(
    {
        "aggregate",
        "bulkWrite",
        "count",
        "create",
        "createIndexes",
        "delete",
        "distinct",
        "drop",
        "dropDatabase",
        "dropIndexes",
        "find",
        "findAndModify",
        "insert",
        "update",
    }
)


class SessionEnded(InvalidOperation, ValueError):
    """A session is to be used after its end: PyMongo's class for that, and TxMongo's."""


class NotAcknowledged(ConfigurationError, ValueError):
    """A session is to be used for a write of which nobody hears: PyMongo's class for that, and TxMongo's."""


class CommandKind(enum.Enum):
    """What sort of command an operation is, as far as sessions treat it in a way of its own."""

    #: It can wait for a time of the cluster.
    CAUSAL = "causal"
    #: The application wrote it: nothing in it is changed.
    WRITTEN = "written"
    #: It goes on with a cursor.
    CONTINUING = "continuing"
    #: It commits or aborts.
    ENDING = "ending"
    OTHER = "other"


_KINDS: dict[type, CommandKind] = {}


def command_kind(operation: Operation[Any]) -> CommandKind:
    """The kind of an operation; the same for all of its class."""
    kind = _KINDS.get(operation.__class__)
    if kind is None:
        kind = _KINDS[operation.__class__] = _command_kind(operation)
    return kind


def _command_kind(operation: Operation[Any]) -> CommandKind:
    if isinstance(operation, CommitTransaction | AbortTransaction):
        return CommandKind.ENDING
    if isinstance(operation, RunCommand | RunCursorCommand):
        return CommandKind.WRITTEN
    if isinstance(operation, GetMore | KillCursors):
        return CommandKind.CONTINUING
    if isinstance(operation, ListSearchIndexes):
        # What answers it knows no read concern.
        return CommandKind.OTHER
    return CommandKind.CAUSAL if operation.name in _CAUSAL_COMMANDS else CommandKind.OTHER


def sends_txn_number(operation: Operation[Any], description: StreamDescription) -> bool:
    """Whether an operation outside of a transaction can be sent in such a way that a repetition does it only once.

    Asked only where sessions are supported and ``retryWrites`` is on.
    """
    return operation.retry is RetryKind.WRITE and operation.acknowledged and description.server_type != _STANDALONE


class SessionUse:
    """One operation's use of a session, in all its attempts.

    :ivar server_session: what its commands carry.
    :ivar txn_number: the number that its commands carry, of a retryable write or of a transaction; ``None`` without.
    :ivar session: the application's session; ``None`` for an implicit one.
    :ivar transaction: the transaction that its commands are part of or end, ``None`` outside of one.
    :ivar first: its command is the first of the transaction.
    :ivar commits: its command commits the transaction.
    :ivar in_flight: how many of its commands were sent and not answered.
    :ivar kept: a cursor has it; the operation's end is not its end.
    :ivar time_limit: as of a :class:`SessionState`; it never has one.
    """

    # Not slots: nearly every use differs from these in nothing, and one is made for every operation.
    txn_number: Int64 | None = None
    session: SessionState | None = None
    transaction: Transaction | None = None
    first = False
    commits = False
    in_flight = 0
    kept = False
    time_limit: Final = None

    def __init__(self, server_session: ServerSession, pool: ServerSessionPool) -> None:
        self.server_session = server_session
        self._pool = pool

    def keep(self) -> Any:
        """Hold on to the session beyond the operation, for the cursor that it made.

        :returns: the ``session`` of the cursor's further operations: the application's, or this use of an implicit one,
            which :meth:`release` must end.
        """
        if self.session is not None:
            return self.session
        self.kept = True
        self._pool.hold(self.server_session)
        return self

    def release(self) -> None:
        """End the use of an implicit session: it is free again, or forgotten if a command was not answered.

        Calling it again has no effect.
        """
        if self.in_flight:
            self.server_session.dirty = True
        self._pool.let_go(self.server_session)

    def __repr__(self) -> str:
        return f"<SessionUse of {self.server_session!r}, {self.in_flight} in flight>"


class SessionState:
    """What operations need of a session that the application holds.

    :ivar ended: no operation may use it any more.
    :ivar transaction: the one transaction of the session.
    :ivar time_limit: of ``with_transaction`` while that runs and is limited: for all that is done in the session.
    :param owner: what the operations of its client have in common with it and those of others have not.
    :param causally_consistent: its commands wait for what the session has seen.
    :param reads_snapshot: its reads all see the data of one moment.
    """

    def __init__(
        self, owner: object, pool: ServerSessionPool, *, causally_consistent: bool, reads_snapshot: bool
    ) -> None:
        self.ended = False
        self.transaction = Transaction()
        self.time_limit: TimeLimit | None = None
        self._owner = owner
        self._pool = pool
        self._causally_consistent = causally_consistent
        self._reads_snapshot = reads_snapshot
        self._server_session: ServerSession | None = None
        self._cluster_time: Mapping[str, Any] | None = None
        self._operation_time: Timestamp | None = None
        self._snapshot_time: Timestamp | None = None
        #: How many operations are under way with it.
        self._uses = 0

    @property
    def cluster_time(self) -> Mapping[str, Any] | None:
        """The highest ``$clusterTime`` document that this session has seen; ``None`` if it has seen none."""
        return self._cluster_time

    def belongs_to(self, owner: object) -> bool:
        """Whether it is of that client."""
        return self._owner is owner

    def check_usable(self, owner: object) -> None:
        """Refuse an operation of another client, and one after the end.

        :raises InvalidOperation: either.
        """
        if self.ended:
            raise SessionEnded("Cannot use ended session")
        if self._owner is not owner:
            raise InvalidOperation("Can only use session with the client that started it")

    def server_session(self, timeout_minutes: float | None = None) -> ServerSession:
        """The server's session that stands behind it, the same from the first time that it is asked for."""
        if self._server_session is None:
            self._server_session = self._pool.acquire(timeout_minutes)
            self._pool.hold(self._server_session)
        return self._server_session

    def finish(self) -> None:
        """End it: the server's session goes back once the last operation that is under way with it is over."""
        self.ended = True
        self.transaction.unpin()
        self._give_back()

    def _give_back(self) -> None:
        if self.ended and not self._uses and self._server_session is not None:
            self._pool.let_go(self._server_session)

    # --- an operation uses it ---

    def take(self, operation: Operation[Any], description: StreamDescription, *, retry_writes: bool) -> SessionUse:
        """Begin an operation's use of it.

        :raises ConfigurationError: the server knows no sessions, or no snapshot reads.
        """
        timeout = description.logical_session_timeout_minutes
        if timeout is None:
            raise ConfigurationError("Sessions are not supported by this MongoDB deployment")
        if self._reads_snapshot and description.max_wire_version < _SNAPSHOT_READS:
            raise ConfigurationError("Snapshot reads require MongoDB 5.0 or later")
        server_session = self.server_session(math.inf if description.load_balanced else timeout)
        use = SessionUse(server_session, self._pool)
        use.session = self
        transaction = self.transaction
        if command_kind(operation) is CommandKind.ENDING:
            use.transaction = transaction
            use.commits = isinstance(operation, CommitTransaction)
        else:
            use.first = transaction.note_command()
            use.transaction = transaction if transaction.active else None
        if use.transaction is not None:
            use.txn_number = transaction.txn_number
        elif retry_writes and sends_txn_number(operation, description):
            use.txn_number = use.server_session.next_txn_number()
        self._uses += 1
        return use

    def give_up(self, use: SessionUse) -> None:
        """End an operation's use of it."""
        if use.in_flight:
            use.server_session.dirty = True
        self._uses -= 1
        self._give_back()

    def add_fields(
        self, command: dict[str, Any], operation: Operation[Any], use: SessionUse, description: StreamDescription
    ) -> None:
        """Add to a command what it carries beside ``lsid`` and ``txnNumber``, and take out what it may not carry."""
        kind = command_kind(operation)
        transaction = use.transaction
        if transaction is not None:
            command["autocommit"] = False
            if kind is CommandKind.ENDING:
                _add_ending_fields(command, use.commits, transaction)
                return
            if use.first:
                command["startTransaction"] = True
                transaction.namespace = operation.database, str(command.get(operation.name))
            if kind is not CommandKind.WRITTEN:
                command.pop("writeConcern", None)
        given = command.get("readConcern")
        read_concern = self._read_concern(given, kind, use, description)
        if read_concern is not None:
            command["readConcern"] = read_concern
        elif given is not None:
            del command["readConcern"]

    def _read_concern(self, given: Any, kind: CommandKind, use: SessionUse, description: StreamDescription) -> Any:
        """The ``readConcern`` of a command that would carry ``given`` (``None`` for none) without a session."""
        if use.transaction is not None:
            if not use.first:
                return given if kind is CommandKind.WRITTEN else None
            if kind is not CommandKind.WRITTEN or given is None:
                given = use.transaction.options.read_concern.document or None
        elif self._reads_snapshot and kind is not CommandKind.CONTINUING:
            # On writes too: "This ensures that the server will return an error for invalid operations".
            at = {} if self._snapshot_time is None else {"atClusterTime": self._snapshot_time}
            return {"level": "snapshot", **at}
        elif kind is not CommandKind.CAUSAL:
            return given
        if self._causally_consistent and self._operation_time is not None and description.server_type != _STANDALONE:
            return {**(given or {}), "afterClusterTime": self._operation_time}
        return given

    # --- it learns ---

    def learn(self, reply: Mapping[str, Any], use: SessionUse | None = None) -> None:
        """Take the times, and what a transaction needs, from a server's reply, successful or not."""
        cluster_time = reply.get("$clusterTime")
        if cluster_timestamp(cluster_time) is not None:
            self._cluster_time = later_cluster_time(self._cluster_time, cluster_time)
        operation_time = reply.get("operationTime")
        if isinstance(operation_time, Timestamp):
            self._see_operation_time(operation_time)
        if use is not None and use.transaction is not None:
            token = reply.get("recoveryToken")
            if token is not None:
                use.transaction.recovery_token = token
        elif self._reads_snapshot and self._snapshot_time is None:
            self._snapshot_time = _snapshot_time(reply)

    def _see_operation_time(self, operation_time: Timestamp) -> None:
        if self._operation_time is None or operation_time > self._operation_time:
            self._operation_time = operation_time


def _add_ending_fields(command: dict[str, Any], commits: bool, transaction: Transaction) -> None:
    if commits:
        write_concern = transaction.commit_write_concern()
    else:
        write_concern = write_concern_document(transaction.options.write_concern)
    if write_concern is not None:
        command["writeConcern"] = write_concern
    if transaction.recovery_token is not None:
        command["recoveryToken"] = transaction.recovery_token


def _snapshot_time(reply: Mapping[str, Any]) -> Timestamp | None:
    """The moment whose data a find, an aggregate (both say it in ``cursor``) or a distinct saw."""
    cursor = reply.get("cursor")
    found = (cursor if isinstance(cursor, Mapping) else reply).get("atClusterTime")
    return found if isinstance(found, Timestamp) else None
