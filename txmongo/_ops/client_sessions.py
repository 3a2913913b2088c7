"""The sessions of a client as the executor uses them: which one a command carries, and when it is free again.

:class:`Sessions` is the one object that the executor asks. The fields of a command and what replies teach are
:mod:`txmongo._ops.session_state`'s, the sessions that nobody uses :mod:`txmongo._ops.server_sessions`'; whether an
operation is tried again is decided by :mod:`txmongo._ops.retry`. Sessions specification, "Sessions and Connections",
"Sending the session ID to the server on all commands", "Gossipping the cluster time".

What the executor calls, in this order. ``operation.session`` is ``None`` (an implicit session is used), a
:class:`~txmongo._ops.session_state.SessionState`, a :class:`~txmongo._ops.session_state.SessionUse` that a cursor kept,
or :data:`~txmongo._ops.transactions.NO_SESSION`.

1. Before each server selection, if ``operation.session`` is not ``None``: ``read_preference, address =
   sessions.route(operation)``. Both take the place of the operation's own, in the selection and in ``$readPreference``;
   the address is where the transaction is pinned. It raises what is refused before anything is sent.
2. After the check-out, between ``build`` and ``encode``: ``use = sessions.begin(operation, command, description,
   address, use)``. ``use`` is ``None`` in the first attempt, and what that call returned in each later one and for a
   second copy: they then carry the same session and number. It returns ``None`` where no session is used. Behind a load
   balancer, once the command was encoded, :func:`pin_transaction` has its transaction keep the connection.
3. If the command was not sent after all (``encode`` or a check of its size raised): ``sessions.unsent(use)``, then 6.
4. For each reply document with ``ok: 1``, before ``parse``: ``sessions.answered(use, reply)``, unless ``use`` is
   ``None``.
5. For each attempt that fails, in whatever way (selection, check-out, the command, ``parse``), after
   :func:`txmongo._ops.retry.add_labels` and before the next attempt: ``sessions.failed(operation, use, error)``. A
   request that was cancelled in flight has failed with ``CancelledError``. Only needed if ``use`` or
   ``operation.session`` is not ``None``.
6. Once, when the operation is over, after the check-in: ``sessions.end(use)``. An implicit session goes back to the
   pool if every command that carried it was answered, a second copy's included; else it is dirty and forgotten. A
   number that was used is never used again. No effect on what a cursor kept.

On the hot path these are ``begin``, ``answered`` and ``end``. :meth:`Sessions.begin_in_elements` is ``begin`` for
commands that are put together from BSON (:meth:`Operation.elements <txmongo._ops.base.Operation.elements>`).

Cursors: ``parse`` of a command that makes a cursor asks its context for the use. If the cursor's id is not 0, the batch
takes ``use.keep()`` along; the cursor makes it the ``session`` of its getMores and of killCursors, and calls
``release()`` on it, if it is a ``SessionUse``, as soon as the server has closed the cursor or nothing more will be
asked for.

Fronts call :func:`check_session` with the ``session`` argument before anything else, and
:func:`effective_write_concern` for an operation's write concern and what follows from it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError

from txmongo._ops.base import Operation, RetryKind
from txmongo._ops.bound_sessions import bound_to
from txmongo._ops.cluster_time import ClusterClock, later_cluster_time
from txmongo._ops.server_sessions import ServerSessionPool
from txmongo._ops.session_state import (
    CommandKind,
    NotAcknowledged,
    SessionState,
    SessionUse,
    command_kind,
    sends_txn_number,
)
from txmongo._ops.transaction_state import Transaction
from txmongo._ops.transactions import NO_SESSION, AbortTransaction, CommitTransaction
from txmongo.errors import InvalidOperation, PyMongoError

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._cmap.pinning import Pin
    from txmongo.types import Address

__all__ = ["Sessions", "check_session", "effective_write_concern", "in_transaction", "pin_of", "pin_transaction"]

_WRITE = RetryKind.WRITE
_NEVER = math.inf
#: An Int64 field in BSON, without its value.
_TXN_NUMBER = b"\x12txnNumber\0"
_pack_int64 = struct.Struct("<q").pack


class Sessions:
    """The sessions of one client; see the module's description for the calls and their order.

    :ivar pool: the server's sessions that nobody uses.
    :ivar cluster_clock: the cluster time that goes with every command.
    :ivar started: the application's sessions, as long as it has them.
    :ivar binds: a session of the client was bound, somewhere: see :meth:`bound`.
    :param seconds: the clock.
    :param retry_writes: the client's ``retryWrites``.
    :param on_bind: called when the first session is about to be bound.
    """

    def __init__(
        self, seconds: Callable[[], float], *, retry_writes: bool = True, on_bind: Callable[[], None] = lambda: None
    ) -> None:
        self.binds = False
        self._on_bind = on_bind
        self.pool = ServerSessionPool(seconds)
        self.cluster_clock = ClusterClock()
        self.started: WeakSet[Any] = WeakSet()
        self._retry_writes = retry_writes
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"<Sessions {self.pool!r} {self.cluster_clock!r}>"

    # --- sessions that are bound ---

    def begin_to_bind(self) -> None:
        """From now on look for bound sessions."""
        self.binds = True
        self._on_bind()

    def bound(self, session: Any = None) -> Any:
        """The ``session`` argument of a call; where it is ``None``, the session that is bound here, if there is one.

        The executor does this for each operation. A call that is of several operations does it first: those that follow
        are begun where nothing is bound.
        """
        return bound_to(self) if session is None and self.binds else session

    def join(self, operation: Operation[Any]) -> None:
        """Give an operation the session that is bound here, if it has none.

        :raises NotAcknowledged: it is a write that is not: nobody would hear when the session is free.
        """
        if operation.session is None:
            session = bound_to(self)
            if session is not None and not operation.acknowledged:
                raise NotAcknowledged("a bound session cannot be used with unacknowledged writes (w=0)")
            operation.session = session

    # --- 1. ---

    def route(self, operation: Operation[Any]) -> tuple[Any, Address | None]:
        """The read preference to select a server by, and the only address that will do, if there is one.

        An operation that is not part of a transaction leaves behind the one that was committed or aborted.

        :raises InvalidOperation: the session has ended or is another client's; a read in a transaction whose read
            preference is not primary.
        """
        session = operation.session
        if not isinstance(session, SessionState):
            return operation.read_preference, operation.address
        session.check_usable(self)
        transaction = session.transaction
        kind = command_kind(operation)
        if kind is CommandKind.ENDING:
            return operation.read_preference, transaction.pinned_address
        if not transaction.active:
            transaction.note_command()
            return operation.read_preference, operation.address
        read_preference = operation.read_preference
        if operation.sends_read_preference:
            if kind is not CommandKind.WRITTEN or not read_preference.mode:
                read_preference = transaction.options.read_preference
            if read_preference.mode:
                raise InvalidOperation(f"read preference in a transaction must be primary, not: {read_preference!r}")
        return read_preference, operation.address or transaction.pinned_address

    # --- 2. and 3. ---

    def begin(
        self,
        operation: Operation[Any],
        command: dict[str, Any],
        description: StreamDescription,
        address: Address,
        use: SessionUse | None = None,
    ) -> SessionUse | None:
        """Complete a command that is about to be encoded and sent.

        :param address: the server that it goes to.
        :param use: what the operation's first attempt got from here.
        :returns: the operation's use of a session; ``None`` if it uses none.
        :raises ConfigurationError: the server does not know what the session asks for.
        :raises InvalidOperation: the session has ended or is another client's.
        """
        cluster_time = self.cluster_clock.document
        session = operation.session
        if session is None:
            if use is None:
                use = self._implicit(operation, description)
            else:
                use.server_session.last_used = self._seconds()
            if use is not None:
                command["lsid"] = use.server_session.lsid
                if use.txn_number is not None:
                    command["txnNumber"] = use.txn_number
                use.in_flight += 1
        elif session is not NO_SESSION:
            use = self._begin_given(session, operation, command, description, address, use)
            if use.session is not None:
                cluster_time = later_cluster_time(cluster_time, use.session.cluster_time)
        if cluster_time is not None:
            command["$clusterTime"] = cluster_time
        return use

    def begin_in_elements(
        self, operation: Operation[Any], elements: list[bytes], description: StreamDescription, now: float
    ) -> SessionUse | None:
        """:meth:`begin` for a command whose fields are in BSON already, without a session of the application's."""
        use = self._implicit(operation, description, now)
        if use is not None:
            elements.append(use.server_session.element)
            if use.txn_number is not None:
                elements.append(_TXN_NUMBER + _pack_int64(use.txn_number))
            use.in_flight = 1
        cluster_time = self.cluster_clock.element
        if cluster_time:
            elements.append(cluster_time)
        return use

    def _implicit(
        self, operation: Operation[Any], description: StreamDescription, now: float | None = None
    ) -> SessionUse | None:
        """A session for one operation, unless none can be used: its end has to be seen."""
        timeout = description.logical_session_timeout_minutes
        if timeout is None or not operation.acknowledged:
            return None
        server_session = self.pool.acquire(_NEVER if description.load_balanced else timeout, now)
        use = SessionUse(server_session, self.pool)
        if operation.retry is _WRITE and self._retry_writes and sends_txn_number(operation, description):
            use.txn_number = server_session.next_txn_number()
        return use

    def _begin_given(
        self,
        session: SessionState | SessionUse,
        operation: Operation[Any],
        command: dict[str, Any],
        description: StreamDescription,
        address: Address,
        use: SessionUse | None,
    ) -> SessionUse:
        """:meth:`begin` with the application's session, or with an implicit one that a cursor kept."""
        if isinstance(session, SessionUse):
            use = session
        elif use is None:
            session.check_usable(self)
            use = session.take(operation, description, retry_writes=self._retry_writes)
        use.server_session.last_used = self._seconds()
        command["lsid"] = use.server_session.lsid
        if use.txn_number is not None:
            command["txnNumber"] = use.txn_number
        if use.session is not None:
            use.session.add_fields(command, operation, use, description)
            if use.transaction is not None and description.is_mongos and not description.load_balanced:
                _pin_to_mongos(use.transaction, address)
        use.in_flight += 1
        return use

    def unsent(self, use: SessionUse | None) -> None:
        """The command of the last :meth:`begin` did not go out: a transaction is as it was before."""
        if use is None:
            return
        use.in_flight -= 1
        if use.first and use.transaction is not None:
            use.transaction.retract_first()

    def refused(self, use: SessionUse | None) -> None:
        """The server has looked at who sent the command of the last :meth:`begin`, and not at it; it is sent again."""
        if use is not None:
            use.in_flight -= 1

    # --- 4. and 5. ---

    def answered(self, use: SessionUse, reply: Mapping[str, Any]) -> None:
        """A reply with ``ok: 1`` has come."""
        use.in_flight -= 1
        if "$clusterTime" in reply:
            self.cluster_clock.advance(reply["$clusterTime"])
        if use.session is not None:
            use.session.learn(reply, use)
            if use.commits and use.transaction is not None:
                use.transaction.commit_uncertain = True

    def failed(self, operation: Operation[Any], use: SessionUse | None, error: BaseException) -> None:
        """An attempt has failed, with an error that has its labels already.

        If no answer came to a command that was sent, the server's session is dirty from now on.
        """
        session = operation.session
        given = session if isinstance(session, SessionState) else None
        details = getattr(error, "details", None)
        if isinstance(details, Mapping) and details:
            self.cluster_clock.advance(details.get("$clusterTime"))
            if given is not None:
                given.learn(details, use)
        elif use is not None and use.in_flight:
            use.server_session.dirty = True
            if use.first and use.transaction is not None and isinstance(error, CancelledError):
                use.transaction.beginning_given_up = True
        if use is not None and use.in_flight:
            use.in_flight -= 1
        if given is not None:
            _note_failure(operation, given.transaction, error)

    # --- 6. ---

    def end(self, use: SessionUse | None) -> None:
        """An operation is over: its implicit session is free again, unless a cursor kept it."""
        if use is None:
            return
        if use.session is not None:
            use.session.give_up(use)
        elif not use.kept:
            if use.in_flight:
                use.server_session.dirty = True
            self.pool.release(use.server_session)


def _pin_to_mongos(transaction: Transaction, address: Address) -> None:
    """Keep a transaction at the mongos that its first command goes to; an ended one is not pinned again."""
    if transaction.active and transaction.pinned_address is None:
        transaction.pin_to(address)


def pin_transaction(use: SessionUse, address: Address, pin: Pin) -> None:
    """Keep a transaction on the connection to a load balancer on which its first command goes out."""
    transaction = use.transaction
    if transaction is not None and transaction.active and transaction.pin is None:
        transaction.pin_to(address, pin)


def pin_of(operation: Operation[Any]) -> Pin | None:
    """The connection to a load balancer that an operation has to be sent on, for its cursor or its transaction."""
    session = operation.session
    if operation.pin is not None or not isinstance(session, SessionState):
        return operation.pin
    transaction = session.transaction
    part = transaction.active or command_kind(operation) is CommandKind.ENDING
    return transaction.pin if part else None


def _note_failure(operation: Operation[Any], transaction: Transaction, error: BaseException) -> None:
    """What a failed attempt means for the transaction: "When to unpin", and the write concern of the next commit."""
    labels = error.has_error_label if isinstance(error, PyMongoError) else _no_label
    commits = isinstance(operation, CommitTransaction)
    unknown = commits and labels("UnknownTransactionCommitResult")
    if unknown or isinstance(operation, AbortTransaction) or labels("TransientTransactionError"):
        transaction.unpin()
    if commits and not (labels("SystemOverloadedError") and labels("RetryableError")):
        transaction.commit_uncertain = True


def _no_label(_label: str) -> bool:
    return False


def in_transaction(operation: Operation[Any]) -> bool:
    """Whether an operation is part of a transaction, other than its commit or abort."""
    session = operation.session
    active = isinstance(session, SessionState) and session.transaction.active
    return active and command_kind(operation) is not CommandKind.ENDING


def check_session(session: Any, sessions: Sessions, acknowledged: bool = True) -> None:
    """Check a ``session`` argument, at the call.

    :param sessions: those of the client that the operation is for.
    :param acknowledged: whether the operation's write concern is.
    :raises InvalidOperation: the session has ended or was started by another client.
    :raises ValueError: it is no session.
    :raises NotAcknowledged: the write is not: nobody would hear when the session is free.
    """
    if session is None:
        return
    if not isinstance(session, SessionState):
        raise ValueError(f"session must be a ClientSession or None, not {type(session).__name__}")
    session.check_usable(sessions)
    if not acknowledged and not session.transaction.active:
        raise NotAcknowledged("an explicit session cannot be used with unacknowledged writes (w=0)")


_SERVER_DEFAULT = WriteConcern()


def effective_write_concern(session: Any, write_concern: WriteConcern) -> WriteConcern:
    """The write concern of an operation: in a transaction only commit and abort have one, so the server's default."""
    active = isinstance(session, SessionState) and session.transaction.active
    return _SERVER_DEFAULT if active else write_concern
