"""The states of a transaction and every change of them.

A session has one :class:`Transaction`, used again for each transaction that it runs. What goes into commands is
:mod:`txmongo._ops.session_state`'s; the calls that the application makes are :mod:`txmongo.sessions`'. Transactions
specification, "ClientSession changes", "Mongos Pinning" and "recoveryToken field".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
from bson.int64 import Int64
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from txmongo._cmap.pinning import Holder
from txmongo._ops.base import write_concern_document
from txmongo.errors import InvalidOperation

if TYPE_CHECKING:
    from txmongo._cmap.pinning import Pin
    from txmongo.types import Address

__all__ = ["Settled", "Transaction", "TransactionState"]

#: Milliseconds after which a repeated commit stops waiting for a majority, unless the application named another time.
_COMMIT_WTIMEOUT = 10_000


class TransactionState(enum.Enum):
    """What the specification calls the states of a ClientSession."""

    #: None was started yet.
    NONE = "none"
    #: Started by the application; the server has heard nothing of it.
    STARTING = "starting"
    #: At least one operation was sent in it.
    IN_PROGRESS = "in_progress"
    #: The application has committed it.
    COMMITTED = "committed"
    #: Committed without a command: there was nothing to be told to the server, and nothing is to be repeated.
    COMMITTED_EMPTY = "committed_empty"
    #: The application, or a block that it left by an exception, has aborted it.
    ABORTED = "aborted"


_NONE, _STARTING, _IN_PROGRESS, _COMMITTED, _EMPTY, _ABORTED = TransactionState

#: What each call of the application makes of each state: the next state, or the text of an InvalidOperation.
_ON_START: Final[Mapping[TransactionState, TransactionState | str]] = {
    _NONE: _STARTING,
    _STARTING: "Transaction already in progress",
    _IN_PROGRESS: "Transaction already in progress",
    _COMMITTED: _STARTING,
    _EMPTY: _STARTING,
    _ABORTED: _STARTING,
}
_ON_COMMIT: Final[Mapping[TransactionState, TransactionState | str]] = {
    _NONE: "No transaction started",
    _STARTING: _EMPTY,
    _IN_PROGRESS: _COMMITTED,
    _COMMITTED: _COMMITTED,
    _EMPTY: _EMPTY,
    _ABORTED: "Cannot call commitTransaction after calling abortTransaction",
}
_ON_ABORT: Final[Mapping[TransactionState, TransactionState | str]] = {
    _NONE: "No transaction started",
    _STARTING: _ABORTED,
    _IN_PROGRESS: _ABORTED,
    _COMMITTED: "Cannot call abortTransaction after calling commitTransaction",
    _EMPTY: "Cannot call abortTransaction after calling commitTransaction",
    _ABORTED: "Cannot call abortTransaction twice",
}
#: What a command of the session does, other than those that commit or abort.
_ON_COMMAND: Final[Mapping[TransactionState, TransactionState]] = {
    _NONE: _NONE,
    _STARTING: _IN_PROGRESS,
    _IN_PROGRESS: _IN_PROGRESS,
    _COMMITTED: _NONE,
    _EMPTY: _NONE,
    _ABORTED: _NONE,
}
_ACTIVE = frozenset({_STARTING, _IN_PROGRESS})


@attrs.frozen
class Settled:
    """The options that hold for one transaction, after all inheritance.

    :ivar max_commit_time_ms: ``None`` for no limit.
    """

    read_concern: ReadConcern = attrs.field(factory=ReadConcern)
    write_concern: WriteConcern = attrs.field(factory=WriteConcern)
    read_preference: Any = ReadPreference.PRIMARY
    max_commit_time_ms: int | None = None


class Transaction:
    """The transaction of a session: its state and what belongs to it.

    :ivar state: changed by the methods of this class alone.
    :ivar options: of the transaction that was started last.
    :ivar txn_number: its number, the same in all its commands.
    :ivar recovery_token: the last one that a mongos sent; commit and abort carry it.
    :ivar pinned_address: the only server that may be sent its commands, ``None`` if that is open.
    :ivar pin: behind a load balancer, the only connection that may be sent them, which it keeps.
    :ivar commit_uncertain: a commit was tried and may have had an effect: the next one waits for a majority.
    :ivar namespace: database and collection of its first command.
    :ivar beginning_given_up: nobody waits for the answer to its first command any more: who knows when the server comes
        to it.
    """

    __slots__ = (
        "beginning_given_up",
        "commit_uncertain",
        "namespace",
        "options",
        "pin",
        "pinned_address",
        "recovery_token",
        "state",
        "txn_number",
    )

    def __init__(self) -> None:
        self.state = _NONE
        self.options = Settled()
        self.txn_number = Int64(0)
        self.recovery_token: Mapping[str, Any] | None = None
        self.pinned_address: Address | None = None
        self.pin: Pin | None = None
        self.commit_uncertain = False
        self.namespace: tuple[str, str] | None = None
        self.beginning_given_up = False

    @property
    def active(self) -> bool:
        """Whether the session's commands are part of it: it was started and neither committed nor aborted."""
        return self.state in _ACTIVE

    # --- what the application asks for ---

    def check_start(self) -> None:
        """Raise what :meth:`start` would.

        :raises InvalidOperation: there is a transaction in progress.
        """
        _next(_ON_START, self.state)

    def start(self, options: Settled, txn_number: Int64) -> None:
        """Begin another transaction.

        :raises InvalidOperation: there is one in progress.
        """
        self.state = _next(_ON_START, self.state)
        self.unpin()
        self.options = options
        self.txn_number = txn_number
        self.recovery_token = None
        self.commit_uncertain = False
        self.namespace = None
        self.beginning_given_up = False

    def commit(self) -> bool:
        """Go over to committed.

        :returns: whether a ``commitTransaction`` command is to be sent: not if no command was part of the transaction.
        :raises InvalidOperation: there is none, or it was aborted.
        """
        before = self.state
        self.state = _next(_ON_COMMIT, before)
        return self.state is _COMMITTED

    def abort(self) -> bool:
        """Go over to aborted.

        :returns: whether an ``abortTransaction`` command is to be sent.
        :raises InvalidOperation: there is none, or it was committed or aborted before.
        """
        before = self.state
        self.state = _next(_ON_ABORT, before)
        if before is _STARTING:
            self.unpin()
        return before is _IN_PROGRESS

    # --- what commands do ---

    def note_command(self) -> bool:
        """A command of the session goes out, other than commit and abort.

        :returns: whether it is the first of a transaction.
        """
        before = self.state
        self.state = _ON_COMMAND[before]
        if self.state is _NONE and before is not _NONE:
            self.unpin()
            self.recovery_token = None
        return before is _STARTING

    def retract_first(self) -> None:
        """The first command did not go out after all: the server has still heard nothing of the transaction."""
        if self.state is _IN_PROGRESS:
            self.state = _STARTING

    def commit_write_concern(self) -> dict[str, Any] | None:
        """The ``writeConcern`` of a commit: the transaction's, or a majority for one that may be a repetition."""
        write_concern = self.options.write_concern
        if not self.commit_uncertain:
            return write_concern_document(write_concern)
        return {"wtimeout": _COMMIT_WTIMEOUT, **write_concern.document, "w": "majority"}

    # --- pinning ---

    def pin_to(self, address: Address, pin: Pin | None = None) -> None:
        """Let all further commands go to one server.

        :param pin: behind a load balancer, the connection to it that they are to go on; it is kept until that ends.
        """
        self.unpin()
        self.pinned_address = address
        if pin is not None:
            self.pin = pin.hold(Holder.TRANSACTION)

    def unpin(self) -> None:
        """Let the next command go to any server."""
        self.pinned_address = None
        pin, self.pin = self.pin, None
        if pin is not None:
            pin.release(Holder.TRANSACTION)

    def __repr__(self) -> str:
        return f"<Transaction {self.txn_number} {self.state.value}>"


def _next(table: Mapping[TransactionState, TransactionState | str], state: TransactionState) -> TransactionState:
    following = table[state]
    if isinstance(following, str):
        raise InvalidOperation(following)
    return following
