"""One try of one operation on one connection: the last fields of its command, the reply, a second copy if need be.

:class:`Attempt` is the record that the pool keeps of a check-out, and the callbacks of the reply. It is told where to
go by :mod:`txmongo._ops.executor` and hands every failure back there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap.connection import CheckOut
from txmongo._deferreds import current_failure
from txmongo._ops.base import Operation, RetryKind
from txmongo._ops.client_sessions import in_transaction, pin_of, pin_transaction
from txmongo._ops.command_events import CommandEvents, SentCommand
from txmongo._ops.cursors import CursorOperation
from txmongo._ops.retry import Stage, supports_retryable_writes
from txmongo._wire.envelope import elements_of
from txmongo._wire.header import next_request_id
from txmongo._wire.op_msg import EncodedMsg
from txmongo.errors import AutoReconnect, ConfigurationError, DocumentTooLarge, NotPrimaryError, OperationFailure

if TYPE_CHECKING:
    from pymongo.server_description import ServerDescription

    from txmongo._cmap.connection import Connection
    from txmongo._cmap.description import StreamDescription
    from txmongo._cmap.pinning import Pin
    from txmongo._ops.client_sessions import Sessions
    from txmongo._ops.retry import History
    from txmongo._ops.session_state import SessionUse
    from txmongo._ops.timeouts import TimeLimit
    from txmongo._pymongo import ServerMode
    from txmongo._reauthentication import Reauthentication
    from txmongo._sdam.server import Server
    from txmongo._wire.op_msg import Msg
    from txmongo.types import Address

__all__ = ["Attempt", "check_size"]

_log = Logger(namespace="txmongo.operation")

#: ReauthenticationRequired.
_REAUTHENTICATION_REQUIRED = 391

_operation_ids = itertools.count(1)


class Owner(Protocol):
    """What an attempt needs of the executor."""

    clock: IReactorTime
    events: CommandEvents | None
    server_api: Mapping[str, Any] | None
    sessions: Sessions
    moves_reads: bool
    plain: bool

    def read_preference_document(
        self, read_preference: ServerMode, description: StreamDescription
    ) -> Mapping[str, Any] | None: ...

    def failed_on(self, server: Server, connection: Connection, error: BaseException) -> None: ...

    def kill_cursor_of(self, reply: bytes, address: Address) -> None: ...

    def after_failure(self, attempt: Attempt, failure: Failure, stage: Stage) -> Any: ...


class Attempt(CheckOut):
    """One try of one operation.

    :ivar operation: what is tried.
    :ivar read_preference: by which a server is selected, and which is sent.
    :ivar pinned_address: the only server that will do, or ``None``.
    :ivar server: the one that was selected; ``None`` before.
    :ivar server_description: what was known of it then, if a connection had to be waited for.
    :ivar use: the operation's use of a session, in all its attempts; ``None`` before the first, or without one.
    :ivar history: what the operation has been through; ``None`` in its first attempt.
    :ivar operation_id: the same for all attempts of an operation, where somebody listens to its events.
    :ivar limit: of the operation's time; ``None`` without.
    """

    # Not slots: nearly every attempt differs from these in nothing, and one is made for every operation.
    abandoned = False
    patient = False
    pin: Pin | None = None
    connection: Connection | None = None
    pinned_address: Address | None = None
    server: Server | None = None
    server_description: ServerDescription | None = None
    use: SessionUse | None = None
    history: History | None = None
    operation_id = 0
    _sent: SentCommand | None = None
    _reauthenticated = False
    _copy: Attempt | None = None
    _original: Attempt | None = None
    _outcome: Deferred[Any] | None = None
    _copy_deferred: Deferred[Any]
    _request_id: int
    limit: TimeLimit | None = None

    def __init__(self, owner: Owner, operation: Operation[Any], read_preference: Any) -> None:
        # The parent's fields are set here, not by a call up: this runs once per operation.
        self.service_class = operation.service_class
        self.exclusive = operation.exclusive
        self.movable = owner.moves_reads and operation.retry is RetryKind.READ
        self.bounded = operation.bounded
        self.unacknowledged = not operation.acknowledged
        self.operation = operation
        self.read_preference = read_preference
        self._owner = owner

    def again(self) -> Attempt:
        """A new attempt of the same operation."""
        return Attempt(self._owner, self.operation, self.read_preference)

    def following(self, history: History) -> Attempt:
        """The next attempt of the same operation."""
        attempt = self.again()
        attempt.pinned_address = self.pinned_address
        attempt.use = self.use
        attempt.operation_id = self.operation_id
        attempt.history = history
        return attempt

    def number(self) -> int:
        """The operation's id, given when it is first asked for."""
        if not self.operation_id:
            self.operation_id = next(_operation_ids)
        return self.operation_id

    def limit_time(self, command: dict[str, Any]) -> None:
        """Make a command fit the time that is left; only asked where there is a :attr:`limit`."""
        raise NotImplementedError

    # --- what Operation.parse may ask ---

    @property
    def address(self) -> Address:
        """The server that answered."""
        assert self.server is not None
        return self.server.address

    @property
    def description(self) -> StreamDescription:
        """What the handshake of the connection said."""
        assert self.connection is not None
        return self.connection.description

    # --- the ordinary way ---

    def send(self, connection: Connection) -> Deferred[Any]:
        """Write the command on the connection that was checked out; fires with the operation's result."""
        operation = self.operation
        try:
            msg = None
            if operation.template is not None and operation.session is None and self._owner.plain:
                msg = self._plain_message(connection)
            if msg is None:
                msg = self._message(connection.description)
        except Exception:
            failure = current_failure()
            self._check_in()
            return self._unsent(self._owner.after_failure(self, failure, Stage.BUILDING))
        deferred = connection.protocol.send_msg(msg, operation.reply_codec_options, operation.session)
        deferred.addCallbacks(self._succeeded, self._failed)
        return deferred

    def _unsent(self, failure: Failure) -> Deferred[Any]:
        """Tell the caller: in the next turn if it had to wait, for this may be inside another operation's callbacks."""
        if self.server_description is None:
            return fail(failure)
        return deferLater(self._owner.clock, 0, lambda: failure)

    def not_checked_out(self, failure: Failure) -> Any:
        """No connection was had."""
        # Of operations that waited together for a connection, each is to hear that the server refused the user: one of
        # them made the connection and met the refusal; what the others met is that this cleared the pool.
        cause = getattr(failure.value, "cause", None)
        if isinstance(cause, OperationFailure):
            said = (cause.details or {}).get("errmsg", str(cause))
            failure = Failure(type(cause)(said, cause.code, cause.details))
        return self._owner.after_failure(self, failure, Stage.CHECK_OUT)

    def _plain_message(self, connection: Connection) -> Msg | None:
        """:meth:`_message` for an operation that has its fields in BSON; ``None`` if it is to be made there."""
        if self.history is not None:
            return None
        operation, owner = self.operation, self._owner
        description = connection.description
        elements = operation.elements(description)
        if elements is None:
            return None
        if operation.sends_read_preference:
            read_preference = owner.read_preference_document(self.read_preference, description)
            if read_preference is not None:
                elements.append(elements_of({"$readPreference": read_preference}))
        sessions = owner.sessions
        self.use = sessions.begin_in_elements(operation, elements, description, self.started_at)
        self._request_id = request_id = next_request_id()
        wire = operation.encode_elements(request_id, elements)
        return EncodedMsg(request_id, wire, 0, None, sessions.cluster_clock)

    def _message(self, description: StreamDescription) -> Msg:
        """Complete the operation's command for this connection, encode it, and tell those who listen."""
        operation, owner = self.operation, self._owner
        command = operation.build(description)
        command["$db"] = operation.database
        if operation.sends_read_preference:
            read_preference = owner.read_preference_document(self.read_preference, description)
            if read_preference is not None:
                command["$readPreference"] = read_preference
        if owner.server_api is not None:
            command.update(owner.server_api)
        self.use = use = owner.sessions.begin(operation, command, description, self.address, self.use)
        try:
            if self.history is not None:
                _check_repetition(operation, use, description)
            if self.limit is not None:
                self.limit_time(command)
            msg = operation.encode(command, description)
            check_size(operation, msg, description)
        except Exception:
            owner.sessions.unsent(use)
            raise
        if self.pin is not None and use is not None:
            pin_transaction(use, self.address, self.pin)
        self._request_id = msg.request_id
        if owner.events is not None:
            self._publish_started(owner.events, msg, command, description)
        return msg

    def _publish_started(
        self, events: CommandEvents, msg: Msg, command: dict[str, Any], description: StreamDescription
    ) -> None:
        assert self.connection is not None
        operation = self.operation
        self._sent = SentCommand(
            operation.name,
            operation.database,
            msg.request_id,
            self.number(),
            self.address,
            description,
            self._owner.clock.seconds(),
            connection_id=self.connection.id,
        )
        events.started(self._sent, command)

    def _succeeded(self, reply: Mapping[str, Any] | None) -> Any:
        if self._copy is not None:
            self._drop_copy()
        assert self.server is not None
        use, sessions = self.use, self._owner.sessions
        result, failure = None, None
        try:
            if use is not None and reply is not None:
                sessions.answered(use, reply)
            result = self.operation.parse(reply, self)
        except Exception:
            failure = current_failure()
        else:
            sessions.end(use)
        # Only now: who has waited for the connection finds the session free that this operation used.
        self.server.pool.check_in(self, abandoned=self.abandoned)
        if self._sent is not None:
            self._publish_succeeded(reply)
        return result if failure is None else self._not_read(failure)

    def _read(self, reply: Mapping[str, Any] | None) -> Any:
        """The operation's result for a reply that is ok, from whichever connection it came."""
        sessions, use = self._owner.sessions, self.use
        if use is not None and reply is not None:
            sessions.answered(use, reply)
        result = self.operation.parse(reply, self)
        if use is not None:
            sessions.end(use)
        return result

    def _not_read(self, failure: Failure) -> Any:
        """The reply was ok, and yet says of a failure."""
        error = failure.value
        if isinstance(error, NotPrimaryError) and self.server is not None and self.connection is not None:
            # A write concern error in a reply that is ok may say that the primary stepped down.
            self._owner.failed_on(self.server, self.connection, error)
        return self._owner.after_failure(self, failure, Stage.COMMAND)

    def _answered(self, reply: Mapping[str, Any] | None) -> Any:
        """The second copy was answered after the connection of the first was lost."""
        try:
            return self._read(reply)
        except Exception:
            return self._not_read(current_failure())

    def _failed(self, failure: Failure) -> Any:
        error: Any = failure.value
        if self._copy is not None:
            if not isinstance(error, CancelledError) and not _is_answer(error):
                # The connection is gone, but the second copy may still be answered: its outcome is ours.
                self._check_in_failed(error)
                self._outcome = Deferred(self._cancel_copy)
                self._outcome.addCallbacks(self._answered, self._lost_both)
                return self._outcome
            self._drop_copy()
        if getattr(error, "code", None) == _REAUTHENTICATION_REQUIRED and not self._reauthenticated:
            assert self.connection is not None
            reauthentication = self.connection.protocol.reauthentication
            if reauthentication is not None:
                return self._reauthenticate(reauthentication, error)
        self._check_in_failed(error)
        return self._owner.after_failure(self, failure, Stage.COMMAND)

    # --- the server wants to know again who sends this: Authentication specification, "Reauthentication" ---

    def _reauthenticate(self, reauthentication: Reauthentication, error: BaseException) -> Deferred[Any]:
        """Authenticate the connection again, and send the same once more, whether or not it may be retried."""
        self._reauthenticated = True
        self._owner.sessions.refused(self.use)
        if self._sent is not None:
            self._publish_failed(error)
            self._sent = None
        # It keeps the connection, with nothing in flight on it meanwhile: no copy and no timeout is meant for it.
        self.movable, self.patient = False, True
        deferred: Deferred[Any] = reauthentication.wait()
        deferred.addCallbacks(self._send_again, self._not_reauthenticated)
        return deferred

    def _send_again(self, _: None) -> Any:
        assert self.connection is not None and self.server is not None
        # What it has waited for says nothing of how long the server takes for such a command.
        self.server.pool.begun_anew(self)
        self.patient = self.limit is not None and self.limit.csot
        return self._write_again(self.connection)

    def _write_again(self, connection: Connection) -> Any:
        """:meth:`send` once more: the time limit goes on, and what fails need not wait to be told."""
        operation = self.operation
        try:
            msg = self._message(connection.description)
        except Exception:
            failure = current_failure()
            self._check_in()
            return self._owner.after_failure(self, failure, Stage.BUILDING)
        deferred = connection.protocol.send_msg(msg, operation.reply_codec_options, operation.session)
        deferred.addCallbacks(self._succeeded, self._failed)
        return deferred

    def _not_reauthenticated(self, failure: Failure) -> Any:
        assert self.server is not None and self.connection is not None
        error: Any = failure.value
        if not isinstance(error, CancelledError):
            self._owner.failed_on(self.server, self.connection, error)
        self._check_in()
        return self._owner.after_failure(self, failure, Stage.COMMAND)

    def _lost_both(self, failure: Failure) -> Any:
        return self._owner.after_failure(self, failure, Stage.COMMAND)

    def _check_in(self) -> None:
        assert self.server is not None
        self.server.pool.check_in(self)

    def _check_in_failed(self, error: BaseException) -> None:
        """Give the connection back after a failure, and tell topology and listeners of it."""
        assert self.server is not None and self.connection is not None
        cancelled = isinstance(error, CancelledError)
        if not cancelled:
            self._owner.failed_on(self.server, self.connection, error)
        self.server.pool.check_in(self, abandoned=cancelled or self.abandoned)
        if cancelled:
            self._kill_late_cursor()
        if self._sent is not None:
            self._publish_failed(error)

    def _kill_late_cursor(self) -> None:
        """Nobody waits for the reply any more: the cursor that it may name is to be killed when it comes."""
        assert self.connection is not None
        # Behind a load balancer a cursor can only be killed on its own connection, which is closed instead.
        if isinstance(self.operation, CursorOperation) and not self.connection.description.load_balanced:
            kill = partial(self._owner.kill_cursor_of, address=self.address)
            self.connection.protocol.expect_late(self._request_id, kill)

    def _publish_succeeded(self, reply: Mapping[str, Any] | None) -> None:
        assert self._owner.events is not None and self._sent is not None
        self._owner.events.succeeded(self._sent, reply)

    def _publish_failed(self, error: BaseException) -> None:
        assert self._owner.events is not None and self._sent is not None
        self._owner.events.failed(self._sent, error)

    # --- behind a load balancer ---

    def pinned_to(self) -> Pin | None:
        """The connection that its cursor or its transaction keeps."""
        return pin_of(self.operation)

    def may_pin(self) -> bool:
        """Whether it may make a cursor, or begins a transaction."""
        return isinstance(self.operation, CursorOperation) or in_transaction(self.operation)

    # --- the second copy of a request that waited behind a stalled one: see CheckOut.duplicate ---

    def duplicate(self) -> Attempt:
        """The request for a connection for a second copy of this one; the pool checks it out and calls its resend."""
        copy = self.again()
        copy.movable = False
        copy.server = self.server
        copy.server_description = self.server_description
        copy.use = self.use
        copy.operation_id = self.operation_id
        copy._original = self
        return copy

    def resend(self, connection: Connection) -> None:
        """Send this copy on ``connection``; whichever of the two is answered first gives the operation's result."""
        original = self._original
        assert original is not None
        if original._reauthenticated:
            # It has been answered since; what became of it is sent again on its own connection.
            self._check_in()
            return
        original._copy = self
        try:
            msg = self._message(connection.description)
        except Exception:
            # The first one is in flight and goes on; that is all that its caller has to know.
            _log.failure("A request could not be made a second time")
            original._copy = None
            self._check_in()
            return
        operation = self.operation
        self._copy_deferred = connection.protocol.send_msg(msg, operation.reply_codec_options, operation.session)
        self._copy_deferred.addCallbacks(self._copy_succeeded, self._copy_failed)
        self._copy_deferred.addErrback(_log_unexpected)

    def _copy_succeeded(self, reply: Mapping[str, Any] | None) -> None:
        original = self._original
        assert original is not None and original.connection is not None
        original._copy = None
        self._check_in()
        if self._sent is not None:
            self._publish_succeeded(reply)
        if original._outcome is not None:
            original._outcome.callback(reply)
            return
        original.abandoned = True
        if original._sent is not None:
            original._publish_failed(AutoReconnect("another connection answered first"))
            original._sent = None
        original.connection.protocol.resolve(original._request_id, reply)
        original._kill_late_cursor()

    def _copy_failed(self, failure: Failure) -> None:
        original = self._original
        assert original is not None
        original._copy = None
        error: Any = failure.value
        self._check_in_failed(error)
        if original._outcome is not None and not original._outcome.called:
            original._outcome.errback(failure)

    def _drop_copy(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy._copy_deferred.cancel()

    def _cancel_copy(self, _outcome: Deferred[Any]) -> None:
        self._drop_copy()


def _is_answer(error: BaseException) -> bool:
    """Whether an error is the server's own answer, as opposed to the loss of the connection."""
    return bool(getattr(error, "details", None))


def _check_repetition(operation: Operation[Any], use: SessionUse | None, description: StreamDescription) -> None:
    """Never send a write again to a server that would carry it out a second time.

    :raises ConfigurationError: it would.
    """
    numbered = operation.retry is RetryKind.WRITE and use is not None and use.txn_number is not None
    if numbered and not supports_retryable_writes(description):
        raise ConfigurationError("the server that was found for the next attempt does not support retryable writes")


def check_size(operation: Operation[Any], msg: Msg, description: StreamDescription) -> None:
    """Refuse what the server would refuse by closing the connection.

    :raises DocumentTooLarge: the message is longer than it takes.
    """
    wire = msg.wire
    assert wire is not None
    if len(wire) > description.max_message_size:
        raise DocumentTooLarge(
            f"the {operation.name} command of {len(wire)} bytes is larger than the {description.max_message_size} "
            "bytes that the server takes in one message"
        )


def _log_unexpected(failure: Failure) -> None:
    """A fault of the driver's own where nobody waits for the result."""
    _log.failure("Unexpected error while a request was sent a second time", failure)
