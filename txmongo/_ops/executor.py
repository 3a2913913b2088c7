"""The executor: the only place where an operation becomes I/O.

For each try it selects a server, checks a connection out, sends, and checks the connection in; the decisions on that
way are made by others: :mod:`txmongo._sdam` which server, :mod:`txmongo._cmap` which connection,
:mod:`txmongo._ops.retry` whether again. Where a server and a connection are at hand, everything up to the write happens
inside :meth:`Executor.execute`, with two callbacks on one Deferred and no coroutine.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap.connection import CheckOut
from txmongo._deferreds import Deadline, current_failure
from txmongo._ops.base import Operation, RetryKind
from txmongo._ops.command_events import CommandEvents, SentCommand
from txmongo.errors import AutoReconnect, DocumentTooLarge, InvalidOperation, NotPrimaryError, OperationFailure

if TYPE_CHECKING:
    from txmongo._cmap.connection import Connection
    from txmongo._cmap.description import StreamDescription
    from txmongo._pymongo import ServerMode
    from txmongo._sdam.server import Server
    from txmongo._sdam.topology import Topology
    from txmongo._settings import ClientSettings
    from txmongo._wire.op_msg import Msg
    from txmongo.types import Address

__all__ = ["Attempt", "Executor"]

ResultT = TypeVar("ResultT")

_operation_ids = itertools.count(1)

_PRIMARY_PREFERRED = {"mode": "primaryPreferred"}

_log = Logger(namespace="txmongo.executor")


def _log_unexpected(failure: Failure) -> None:
    """A fault of the driver's own where nobody waits for the result."""
    _log.failure("Unexpected error while a request was sent a second time", failure)


def _refused(failure: Failure) -> Failure:
    """Of operations that waited together for a connection, let each hear that the server refused the user.

    One of them made the connection and met the refusal; what the others met is that this cleared the pool.
    """
    cause = getattr(failure.value, "cause", None)
    if isinstance(cause, OperationFailure):
        return Failure(OperationFailure(str(cause), cause.code, cause.details))
    return failure


class Attempt(CheckOut):
    """One try of one operation on one server: what the pool counts, and the callbacks of its reply."""

    __slots__ = (
        "_copy",
        "_copy_deferred",
        "_executor",
        "_operation",
        "_original",
        "_outcome",
        "_request_id",
        "_sent",
        "_server",
    )

    def __init__(self, executor: Executor, operation: Operation[Any], server: Server) -> None:
        # The parent's fields are set here, not by a call up: this runs once per operation.
        self.service_class = operation.service_class
        self.exclusive = operation.exclusive
        self.movable = executor.moves_reads and operation.retry is RetryKind.READ
        self.bounded = operation.bounded
        self.unacknowledged = not operation.acknowledged
        self.abandoned = False
        self.connection = None
        self._executor = executor
        self._operation = operation
        self._server = server
        self._sent: SentCommand | None = None
        self._copy: Attempt | None = None
        self._original: Attempt | None = None
        self._outcome: Deferred[Any] | None = None

    # --- what Operation.parse may ask ---

    @property
    def address(self) -> Address:
        """The server that answered."""
        return self._server.address

    @property
    def description(self) -> StreamDescription:
        """What the handshake of the connection said."""
        assert self.connection is not None
        return self.connection.description

    # --- the ordinary way ---

    def send(self, connection: Connection) -> Deferred[Any]:
        """Write the command on the connection that was checked out; fires with the operation's result."""
        try:
            msg = self._message(connection)
        except Exception:
            self._server.pool.check_in(self)
            return fail()
        operation = self._operation
        deferred = connection.protocol.send_msg(msg, operation.reply_codec_options, operation.session)
        deferred.addCallbacks(self._succeeded, self._failed)
        return deferred

    def _message(self, connection: Connection) -> Msg:
        """Complete the operation's command for this connection, encode it, and tell those who listen."""
        operation = self._operation
        description = connection.description
        command = operation.build(description)
        command["$db"] = operation.database
        if operation.sends_read_preference:
            read_preference = self._executor.read_preference_document(operation.read_preference, description)
            if read_preference is not None:
                command["$readPreference"] = read_preference
        server_api = self._executor.server_api
        if server_api is not None:
            command.update(server_api)
        msg = operation.encode(command, description)
        wire = msg.wire
        assert wire is not None
        if len(wire) > description.max_message_size:
            raise DocumentTooLarge(
                f"the {operation.name} command of {len(wire)} bytes is larger than the {description.max_message_size} "
                "bytes that the server takes in one message"
            )
        self._request_id = msg.request_id
        events = self._executor.events
        if events is not None:
            self._sent = sent = SentCommand(
                operation.name,
                operation.database,
                msg.request_id,
                next(_operation_ids),
                self._server.address,
                description,
                self._executor.clock.seconds(),
            )
            events.started(sent, command)
        return msg

    def _succeeded(self, reply: Mapping[str, Any] | None) -> Any:
        if self._copy is not None:
            self._drop_copy()
        self._server.pool.check_in(self, abandoned=self.abandoned)
        if self._sent is not None:
            self._executor.succeeded(self._sent, reply)
        try:
            return self._operation.parse(reply, self)
        except NotPrimaryError as error:
            # A write concern error in a reply that is ok may say that the primary stepped down.
            assert self.connection is not None
            self._executor.failed_on(self._server, self.connection, error)
            raise

    def _failed(self, failure: Failure) -> Any:
        error: Any = failure.value
        cancelled = isinstance(error, CancelledError)
        if self._copy is not None:
            if not cancelled and not self.answered(error):
                # The connection is gone, but the second copy may still be answered: its outcome is ours.
                self._check_in_failed(error)
                self._outcome = Deferred(self._cancel_copy)
                return self._outcome
            self._drop_copy()
        self._check_in_failed(error)
        return failure

    def _check_in_failed(self, error: BaseException) -> None:
        """Give the connection back after a failure, and tell topology and listeners of it."""
        connection = self.connection
        assert connection is not None
        cancelled = isinstance(error, CancelledError)
        if not cancelled:
            self._executor.failed_on(self._server, connection, error)
        self._server.pool.check_in(self, abandoned=cancelled or self.abandoned)
        if self._sent is not None:
            self._executor.failed(self._sent, error)

    @staticmethod
    def answered(error: BaseException) -> bool:
        """Whether an error is the server's own answer, as opposed to the loss of the connection."""
        return bool(getattr(error, "details", None))

    # --- the second copy of a request that waited behind a stalled one (ARCHITECTURE: shared check-out) ---

    def duplicate(self) -> Attempt:
        """The request for a connection for a second copy of this one; the pool checks it out and calls its resend."""
        copy = Attempt(self._executor, self._operation, self._server)
        copy.movable = False
        copy._original = self
        return copy

    def resend(self, connection: Connection) -> None:
        """Send this copy on ``connection``; whichever of the two is answered first gives the operation's result."""
        original = self._original
        assert original is not None
        original._copy = self
        try:
            msg = self._message(connection)
        except Exception:
            original._copy = None
            self._server.pool.check_in(self)
            return
        operation = self._operation
        self._copy_deferred = connection.protocol.send_msg(msg, operation.reply_codec_options, operation.session)
        self._copy_deferred.addCallbacks(self._copy_succeeded, self._copy_failed)
        self._copy_deferred.addErrback(_log_unexpected)

    def _copy_succeeded(self, reply: Mapping[str, Any] | None) -> None:
        original = self._original
        assert original is not None and original.connection is not None
        original._copy = None
        self._server.pool.check_in(self)
        if self._sent is not None:
            self._executor.succeeded(self._sent, reply)
        outcome = original._outcome
        if outcome is not None:
            outcome.callback(self._parse(reply))
        else:
            original.abandoned = True
            sent, original._sent = original._sent, None
            if sent is not None:
                self._executor.failed(sent, AutoReconnect("another connection answered first"))
            original.connection.protocol.resolve(original._request_id, reply)

    def _copy_failed(self, failure: Failure) -> None:
        original = self._original
        assert original is not None
        original._copy = None
        error: Any = failure.value
        self._check_in_failed(error)
        if original._outcome is not None and not original._outcome.called:
            original._outcome.errback(failure)

    def _parse(self, reply: Mapping[str, Any] | None) -> Any:
        try:
            return self._operation.parse(reply, self)
        except Exception:
            return current_failure()

    def _drop_copy(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy._copy_deferred.cancel()

    def _cancel_copy(self, _outcome: Deferred[Any]) -> None:
        self._drop_copy()


class Executor:
    """Runs operations against a topology.

    :ivar events: publishes command events, ``None`` when nobody listens.
    :ivar server_api: the fields of the declared Stable API, ``None`` without.
    """

    def __init__(
        self,
        topology: Topology,
        settings: ClientSettings,
        clock: IReactorTime,
        *,
        events: CommandEvents | None = None,
        server_api: Mapping[str, Any] | None = None,
    ) -> None:
        self._topology = topology
        self._settings = settings
        self.clock = clock
        self.events = events
        self.server_api = server_api
        #: Reads that wait behind a stalled request may be sent a second time (it counts as a retry).
        self.moves_reads = settings.retry_reads and settings.pipelining and settings.pool_size is None
        self._closed = False

    def execute(self, operation: Operation[ResultT]) -> Deferred[ResultT]:
        """Run one operation.

        With a connection at hand the command is written before this returns.

        :returns: a Deferred that fires with what the operation makes of the server's reply. It fails with
            :class:`~txmongo.errors.ServerSelectionTimeoutError` if no server fits within ``serverSelectionTimeoutMS``,
            :class:`~txmongo.errors.WaitQueueTimeoutError` if no connection comes free within ``waitQueueTimeoutMS``,
            :class:`~txmongo.errors.AutoReconnect` if the connection is lost, the error that the server answered,
            ``CancelledError`` if it is cancelled (the server may then still carry the command out),
            :class:`~txmongo.errors.InvalidOperation` if the client is closed.
        """
        if self._closed:
            return fail(InvalidOperation("the client is closed: disconnect() was called"))
        address = operation.address
        if address is None:
            server = self._topology.select_server_now(operation.read_preference)
        else:
            server = self._topology.servers.get(address)
        if server is not None:
            attempt = Attempt(self, operation, server)
            connection = server.pool.check_out_now(attempt)
            if connection is not None:
                return attempt.send(connection)
        return self._execute_waiting(operation)

    def _execute_waiting(self, operation: Operation[Any]) -> Deferred[Any]:
        """Wait for a server, then for a connection; the operation keeps its place among those who wait."""
        deadline = Deadline.after(self.clock, self._settings.server_selection_timeout)
        deferred: Deferred[Any] = self._topology.select_server(
            operation.read_preference,
            deadline,
            operation=operation.name,
            address=operation.address,
            allow_ghost=operation.allow_ghost,
        )
        deferred.addCallback(self._check_out, operation)
        return deferred

    def _check_out(self, server: Server, operation: Operation[Any]) -> Deferred[Any]:
        attempt = Attempt(self, operation, server)
        deadline = Deadline.after(self.clock, self._settings.wait_queue_timeout)
        deferred: Deferred[Any] = server.pool.check_out(attempt, deadline)
        deferred.addCallbacks(attempt.send, _refused)
        return deferred

    def close(self) -> None:
        """Refuse operations from now on; those in flight end with their connections, which the topology closes."""
        self._closed = True

    # --- what an attempt asks and reports ---

    def read_preference_document(
        self, read_preference: ServerMode, description: StreamDescription
    ) -> Mapping[str, Any] | None:
        """The ``$readPreference`` of a read, by "Passing read preference" of the server selection specification.

        Connected directly to a member of a replica set, a read for the primary says ``primaryPreferred``: else a
        secondary refused it. A standalone needs none.
        """
        if read_preference.mode:
            return None if description.is_standalone else read_preference.document
        if self._topology.description.topology_type != TOPOLOGY_TYPE.Single:
            return None
        if description.is_standalone or description.is_mongos:
            return None
        return _PRIMARY_PREFERRED

    def failed_on(self, server: Server, connection: Connection, error: BaseException) -> None:
        """Let the topology draw its conclusions from an operation's failure (SDAM specification, error handling)."""
        self._topology.handle_error(
            server.address,
            error,
            generation=connection.generation,
            service_id=connection.description.service_id,
            max_wire_version=connection.description.max_wire_version,
            completed_handshake=True,
        )

    def succeeded(self, sent: SentCommand, reply: Mapping[str, Any] | None) -> None:
        """Publish that a command succeeded."""
        if self.events is not None:
            self.events.succeeded(sent, reply)

    def failed(self, sent: SentCommand, error: BaseException) -> None:
        """Publish that a command failed."""
        if self.events is not None:
            self.events.failed(sent, error)
