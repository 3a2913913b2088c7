"""The executor: the only place where an operation becomes I/O.

For each attempt it selects a server, checks a connection out, sends, and checks the connection in; the decisions on
that way are made by others: :mod:`txmongo._sdam` which server, :mod:`txmongo._cmap` which connection,
:mod:`txmongo._ops.client_sessions` which session, :mod:`txmongo._ops.retry` whether again. Where a server and a
connection are at hand, everything up to the write happens inside :meth:`Executor.execute`, with two callbacks on one
Deferred and no coroutine. What happens between the write and the reply is :class:`~txmongo._ops.attempt.Attempt`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import bson
from bson.errors import InvalidBSON
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo.topology_description import TOPOLOGY_TYPE
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmongo._deferreds import Deadline, Pauses, current_failure
from txmongo._ops.attempt import Attempt
from txmongo._ops.base import Execute, Operation, RetryKind
from txmongo._ops.client_sessions import Sessions, in_transaction
from txmongo._ops.command_events import CommandEvents
from txmongo._ops.cursors import KillCursors
from txmongo._ops.retry import FailedAttempt, History, RetryPolicy, Stage, Verdict, add_labels, decide, subject_of
from txmongo._ops.timed_attempt import TimedAttempt
from txmongo._ops.timeouts import TimeLimit, check_timing, time_limit
from txmongo._pymongo import SERVER_TYPE
from txmongo.errors import InvalidOperation

if TYPE_CHECKING:
    from txmongo._cmap.connection import Connection
    from txmongo._cmap.description import StreamDescription
    from txmongo._pymongo import ServerMode
    from txmongo._sdam.server import Server
    from txmongo._sdam.topology import Topology
    from txmongo._settings import ClientSettings
    from txmongo.types import Address

__all__ = ["Executor", "as_deferred"]

ResultT = TypeVar("ResultT")

_PRIMARY_PREFERRED = {"mode": "primaryPreferred"}
_NO_HISTORY = History()


class Executor:
    """Runs operations against a topology.

    :ivar events: publishes command events, ``None`` when nobody listens.
    :ivar server_api: the fields of the declared Stable API, ``None`` without.
    :ivar sessions: the client's sessions.
    :ivar pauses: before an operation, or a transaction, is tried again; they end with the client.
    :ivar plain: commands carry nothing but what the operation and its implicit session put there, and nobody listens.
    :ivar moves_reads: reads that wait behind a stalled request may be sent a second time (it counts as a retry).
    """

    def __init__(
        self,
        topology: Topology,
        settings: ClientSettings,
        clock: IReactorTime,
        *,
        events: CommandEvents | None = None,
        server_api: Mapping[str, Any] | None = None,
        random: Random | None = None,
    ) -> None:
        """
        :param random: for the jitter of back-offs.
        """
        self._topology = topology
        self._settings = settings
        self.clock = clock
        self.events = events
        self.server_api = server_api
        self.sessions = Sessions(clock.seconds, retry_writes=settings.retry_writes, on_bind=self._heed_bound_sessions)
        self.pauses = Pauses(clock)
        self._logs_selection = settings.logs.shows("serverSelection")
        self.moves_reads = settings.retry_reads and settings.pipelining and settings.pool_size is None
        self.plain = events is None and server_api is None
        self._policy = RetryPolicy.from_settings(settings)
        self._random = random or Random()
        self._closed = False
        #: Operations do not begin as usual: the client is closed, or sessions are bound.
        self._heeds = False

    def execute(self, operation: Operation[ResultT]) -> Deferred[ResultT]:
        """Run one operation, in as many attempts as the specifications allow.

        With a connection at hand the command is written before this returns.

        :returns: a Deferred that fires with what the operation makes of the server's reply. It fails with
            :class:`~txmongo.errors.ServerSelectionTimeoutError` if no server fits within ``serverSelectionTimeoutMS``,
            :class:`~txmongo.errors.WaitQueueTimeoutError` if no connection comes free within ``waitQueueTimeoutMS``,
            or at once if ``waitQueueSize`` operations of the client wait already,
            :class:`~txmongo.errors.AutoReconnect` if the connection is lost, the error that the server answered,
            ``CancelledError`` if it is cancelled (the server may then still carry the command out),
            :class:`~txmongo.errors.InvalidOperation` if the client is closed.
        """
        if self._heeds:
            refusal = self._heed(operation)
            if refusal is not None:
                return refusal
        if operation.session is None:
            read_preference, address = operation.read_preference, operation.address
        else:
            session_limit = operation.session.time_limit
            if session_limit is not None and not isinstance(operation, KillCursors):
                return self.execute_within(operation, session_limit)
            try:
                read_preference, address = self.sessions.route(operation)
            except Exception:
                return fail()
        attempt = Attempt(self, operation, read_preference)
        if address is None:
            if self._logs_selection:
                return self._select(attempt)
            server = self._topology.select_server_now(read_preference)
        else:
            attempt.pinned_address = address
            server = self._topology.servers.get(address)
        if server is not None:
            attempt.server = server
            connection = server.pool.check_out_now(attempt)
            if connection is not None:
                return attempt.send(connection)
        return self._select(attempt)

    def execute_within(self, operation: Operation[ResultT], limit: TimeLimit) -> Deferred[ResultT]:
        """Run one operation whose time is limited.

        :returns: a Deferred as that of :meth:`execute`. When the time is up it fails at once: with an error whose
            ``timeout`` is true, of which :class:`~txmongo.errors.TimeExceeded` is one, if the time was given so.
        """
        if self._heeds:
            refusal = self._heed(operation)
            if refusal is not None:
                return refusal
        attempt = TimedAttempt(self, operation, operation.read_preference, limit)
        attempt.pinned_address = operation.address
        return as_deferred(self._begin_again(attempt))

    def execute_timed(self, timeout: float, operation: Operation[ResultT]) -> Deferred[ResultT]:
        """Run one operation of an object that has a ``timeoutMS``, in seconds; that of its session comes first."""
        session = self.sessions.bound(operation.session)
        limit = None if session is None else session.time_limit
        return self.execute_within(operation, TimeLimit.after(self.clock, timeout) if limit is None else limit)

    def within(self, timeout: float | None, timing: Mapping[str, Any], session: Any = None) -> Execute[Any]:
        """How to run the operations of one call of an application, whose time begins now.

        :param timeout: seconds of the ``timeoutMS`` of the object that was called; ``None`` if it has none.
        :param timing: the call's own keywords: :class:`~txmongo._ops.timeouts.Timing`.
        :param session: the call's.
        :raises TypeError: a keyword is unknown or has no number.
        :raises ValueError: ``timeout_ms`` is negative.
        :raises InvalidOperation: ``timeout_ms`` in a session that is limited itself.
        """
        check_timing(timing)
        session = self.sessions.bound(session)
        limit = time_limit(self.clock, timeout, timing, None if session is None else session.time_limit)
        return self.execute if limit is None else partial(self.execute_within, limit=limit)

    def reaches(self, address: Address) -> bool:
        """Whether a command for a server, and for no other, can be sent now: it need not be found first."""
        server = self._topology.servers.get(address)
        return server is not None and server.description.is_server_type_known

    def close(self) -> None:
        """Refuse operations from now on, and try none again; those in flight end with the topology's connections."""
        self._closed = self._heeds = True
        self.pauses.end(_closed_error)

    def _heed_bound_sessions(self) -> None:
        self._heeds = True

    def _heed(self, operation: Operation[Any]) -> Deferred[Any] | None:
        """Look at an operation before it begins: the Deferred of why it cannot, or ``None``."""
        if self._closed:
            return fail(_closed_error())
        try:
            self.sessions.join(operation)
        except ValueError:
            return fail()
        return None

    # --- waiting for a server, then for a connection ---

    def _select(self, attempt: Attempt) -> Deferred[Any]:
        """Wait for a server; the operation keeps its place among those who wait."""
        operation = attempt.operation
        history = attempt.history
        deadline = Deadline.after(self.clock, self._settings.server_selection_timeout)
        if isinstance(attempt, TimedAttempt):
            attempt.time_to_connect = deadline = deadline.earlier(attempt.limit.deadline)
        deferred: Deferred[Any] = self._topology.select_server(
            attempt.read_preference,
            deadline,
            operation=operation.name,
            address=attempt.pinned_address,
            deprioritized=() if history is None else history.deprioritized,
            allow_ghost=operation.allow_ghost,
            operation_id=attempt.number() if self._logs_selection else 0,
            again=history is not None,
        )
        deferred.addCallbacks(self._check_out, self._not_selected, callbackArgs=(attempt,), errbackArgs=(attempt,))
        return deferred

    def _check_out(self, server: Server, attempt: Attempt) -> Deferred[Any]:
        attempt.server = server
        attempt.server_description = server.description
        deadline = self._time_to_wait(attempt)
        deferred: Deferred[Any] = server.pool.check_out(attempt, deadline, again=attempt.history is not None)
        deferred.addCallbacks(attempt.send, attempt.not_checked_out)
        return deferred

    def _time_to_wait(self, attempt: Attempt) -> Deadline:
        """Until when to wait for a connection in any case; ``waitQueueTimeoutMS`` is the pool's to keep."""
        if not isinstance(attempt, TimedAttempt):
            return Deadline.never
        return attempt.time_to_connect if attempt.limit.csot else attempt.limit.deadline

    def _not_selected(self, failure: Failure, attempt: Attempt) -> Any:
        return self.after_failure(attempt, failure, Stage.SELECTION)

    # --- after a failure ---

    def after_failure(self, attempt: Attempt, failure: Failure, stage: Stage) -> Any:
        """Decide what follows a failed attempt, which has given its connection back, and begin with it.

        :returns: the Failure for the caller, or a Deferred of the next attempt's outcome.
        """
        if isinstance(attempt, TimedAttempt):
            failure = attempt.failed_with(failure)
        error: Any = failure.value
        operation, use, limit = attempt.operation, attempt.use, attempt.limit
        with_session = use is not None or operation.session is not None
        if isinstance(error, CancelledError):
            if with_session:
                self.sessions.failed(operation, use, error)
            self.sessions.end(use)
            return failure
        failed = FailedAttempt(
            error=error,
            stage=stage,
            address=None if attempt.server is None else attempt.server.address,
            retryable_write=self._is_retryable_write(attempt),
        )
        subject = subject_of(operation, in_transaction(operation))
        add_labels(failed, subject, self._policy)
        if with_session:
            self.sessions.failed(operation, use, error)
        verdict = decide(
            failed,
            subject,
            self._policy,
            attempt.history or _NO_HISTORY,
            now=self.clock.seconds(),
            sharded=self._topology.description.topology_type == TOPOLOGY_TYPE.Sharded,
            deadline=Deadline.never if limit is None else limit.deadline,
            unlimited=limit is not None and limit.csot,
            jitter=self._random.random(),
        )
        if verdict.delay is None or self._closed:
            self.sessions.end(use)
            last = verdict.error
            if limit is not None:
                last = limit.outcome(last, error, self.clock.seconds(), out_of_time=verdict.out_of_time)
            return failure if last is error else Failure(last)
        return self._again(attempt, verdict)

    def _again(self, attempt: Attempt, verdict: Verdict) -> Any:
        """Begin the next attempt, now or after its back-off."""
        following = attempt.following(verdict.history)
        if not verdict.delay:
            return self._begin_again(following)
        deferred: Deferred[Any] = self.pauses.wait(verdict.delay)
        deferred.addCallbacks(
            lambda _: self._begin_again(following), self._given_up, errbackArgs=(following, verdict.error)
        )
        return deferred

    def _begin_again(self, attempt: Attempt) -> Any:
        if attempt.operation.session is not None:
            try:
                attempt.read_preference, attempt.pinned_address = self.sessions.route(attempt.operation)
            except Exception:
                return self.after_failure(attempt, current_failure(), Stage.SELECTION)
        return self._select(attempt)

    def _given_up(self, failure: Failure, attempt: Attempt, last: BaseException) -> Failure:
        """The operation ended in its back-off: by a cancel, or with the client, and then its last error tells more."""
        self.sessions.end(attempt.use)
        return failure if failure.check(CancelledError) else Failure(last)

    def _is_retryable_write(self, attempt: Attempt) -> bool:
        """Whether a write can be repeated safely: its command carried, or would have carried, a transaction number."""
        operation, use = attempt.operation, attempt.use
        if operation.retry is not RetryKind.WRITE:
            return False
        if use is not None:
            return use.txn_number is not None
        # What the server was when it was selected: the failure may have made it Unknown by now.
        description = attempt.server_description
        if description is None or not operation.acknowledged:
            return False
        if description.server_type == SERVER_TYPE.LoadBalancer:
            return True
        return (
            description.server_type != SERVER_TYPE.Standalone
            and description.logical_session_timeout_minutes is not None
        )

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

    def kill_cursor_of(self, reply: bytes, address: Address) -> None:
        """Kill the cursor that a reply names for which nobody waits, if it names one."""
        try:
            cursor = bson.decode(reply, DEFAULT_RAW_BSON_OPTIONS)["cursor"]
            cursor_id, namespace = int(cursor["id"]), cursor["ns"]
        except (InvalidBSON, LookupError, TypeError, ValueError):
            # It tells of an error.
            return
        if cursor_id and not self._closed:
            database, _, collection = namespace.partition(".")
            # Whether that succeeds interests nobody: the server forgets a cursor in the end.
            self.execute(KillCursors(database, collection, [cursor_id], address)).addErrback(lambda _: None)


def _closed_error() -> InvalidOperation:
    return InvalidOperation("the client is closed: disconnect() was called")


def as_deferred(outcome: Any) -> Deferred[Any]:
    """A Deferred of what an attempt began with."""
    return outcome if isinstance(outcome, Deferred) else fail(outcome)
