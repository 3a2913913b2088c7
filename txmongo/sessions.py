"""Sessions and transactions as applications use them: :class:`ClientSession` and its options.

:meth:`txmongo.connection.ConnectionPool.start_session` makes one; every method that talks to a server takes it as
``session=``. What a session adds to commands is :mod:`txmongo._ops.session_state`'s, the states of a transaction are
:mod:`txmongo._ops.transaction_state`'s, retries the executor's; that a whole transaction is run again is
:mod:`txmongo._sessions.with_transaction`'s. Sessions, causal consistency, snapshot reads and transactions
specifications.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack

from bson.int64 import Int64
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmongo._deferreds import Broadcast, Pauses
from txmongo._ops.base import Operation
from txmongo._ops.bound_sessions import Binding, bind, unbind
from txmongo._ops.client_sessions import Sessions
from txmongo._ops.cluster_time import cluster_timestamp, later_cluster_time
from txmongo._ops.session_state import SessionEnded, SessionState
from txmongo._ops.timeouts import TimeLimit, Timing, check_timing, is_timeout, seconds_of, time_limit
from txmongo._ops.transaction_state import Settled, TransactionState
from txmongo._ops.transactions import (
    NO_SUCH_TRANSACTION,
    AbortNumbered,
    AbortTransaction,
    CommitTransaction,
    Supersede,
)
from txmongo._sessions.options import SessionOptions, TransactionOptions, check_acknowledged
from txmongo._sessions.with_transaction import ConvenientTransaction
from txmongo.errors import InvalidOperation, OperationFailure, PyMongoError

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool
    from txmongo.types import Address

__all__ = [
    "BindingContext",
    "ClientSession",
    "SessionOptions",
    "TransactionContext",
    "TransactionOptions",
    "TransactionState",
    "TxnState",
]

#: TxMongo 26.0's name.
TxnState = TransactionState


class _Flag(int):
    """A truth value that can also be called: a property in PyMongo, a method in TxMongo 26.0."""

    __slots__ = ()

    def __call__(self) -> bool:
        return bool(self)

    def __repr__(self) -> str:
        return repr(bool(self))


class TransactionContext:
    """What ``async with session.start_transaction():`` runs in.

    At its end the transaction is committed, or aborted if an exception leaves the block. Nothing happens if the block
    did either itself. It may be awaited first, as PyMongo's has to be.
    """

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    def __await__(self) -> Generator[Any, Any, Self]:
        return succeed(self).__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session.transaction.active:
            if kind is None:
                await self._session.commit_transaction()
            else:
                await self._session.abort_transaction()


class BindingContext:
    """What ``async with session.bind():`` runs in."""

    def __init__(self, session: ClientSession, end_session: bool) -> None:
        self._session = session
        self._end_session = end_session
        self._bindings: list[Binding] = []

    async def __aenter__(self) -> ClientSession:
        self._bindings.append(bind(self._session))
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        unbind(self._bindings.pop())
        if self._end_session:
            await self._session.__aexit__(kind, error, traceback)


class ClientSession(SessionState):
    """Operations that belong together: they see one another's effects, or are one transaction.

    ::

        async with client.start_session() as session:
            async with session.start_transaction():
                await orders.insert_one({"item": "book"}, session=session)
                await stock.update_one({"item": "book"}, {"$inc": {"count": -1}}, session=session)

    In ``inlineCallbacks``::

        session = client.start_session()
        try:
            yield session.with_transaction(callback)
        finally:
            yield session.end_session()

    A session serves one operation after the other: start the next when the one before has fired. It can only be used
    with the client that started it, not with unacknowledged writes (``w=0``), and not in another process after a fork.
    The server forgets a session that is not used for half an hour; one that is started and used only after more than a
    minute may meet that.

    An error that the server answers may end the transaction there: it is then to be aborted, and a commit is answered
    with ``NoSuchTransaction``.

    :ivar transaction: the transaction that was started last, and its state.
    """

    def __init__(
        self,
        client: ConnectionPool[Any],
        options: SessionOptions | None = None,
        *,
        sessions: Sessions,
        execute: Callable[[Operation[Any]], Deferred[Any]],
        execute_within: Callable[[Operation[Any], TimeLimit], Deferred[Any]] | None = None,
        clock: IReactorTime,
        defaults: Settled | None = None,
        timeout: float | None = None,
        pauses: Pauses | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """
        Made by :meth:`~txmongo.connection.ConnectionPool.start_session`.

        :param execute: runs an operation.
        :param execute_within: runs one whose time is limited.
        :param timeout: seconds of the client's ``timeoutMS``, 0 for no limit; ``None`` if it has none.
        :param pauses: those of the client.
        :param defaults: the client's own concerns and read preference, which transactions inherit.
        :param jitter: gives numbers from 0 to 1 by which pauses are shortened.
        """
        self._options = options = options or SessionOptions()
        super().__init__(
            sessions, sessions.pool, causally_consistent=options.causal_consistency, reads_snapshot=options.snapshot
        )
        sessions.started.add(self)
        self._snapshot_time = options.snapshot_time
        self._client = client
        self._sessions = sessions
        self._execute = execute
        self._execute_within = execute_within
        self._timeout = seconds_of(options.default_timeout_ms, timeout)
        self._clock = clock
        self._defaults = defaults or Settled()
        self._pauses = Pauses(clock) if pauses is None else pauses
        self._jitter = jitter
        self._ending = False
        #: While an abort is under way: what it ends with. It may yet have to wait for a connection.
        self._aborting: Broadcast | None = None
        #: An abort that nobody waits for.
        self._left_alone: Deferred[None] | None = None

    def __repr__(self) -> str:
        if self.ended:
            return "<ClientSession ended>"
        return f"<ClientSession {self.transaction.state.value}, {self._uses} operations under way>"

    # --- what it is ---

    @property
    def client(self) -> ConnectionPool[Any]:
        """The client that started it."""
        return self._client

    @property
    def connection(self) -> ConnectionPool[Any]:
        """The client that started it; TxMongo's name of :attr:`client`."""
        return self._client

    @property
    def options(self) -> SessionOptions:
        """The options that it was started with."""
        return self._options

    @property
    def implicit(self) -> bool:
        """Always false: sessions that the driver uses by itself are never seen."""
        return False

    @property
    def session_id(self) -> Mapping[str, Any]:
        """The document by which the server knows it.

        :raises InvalidOperation: it has ended.
        """
        self._check_open()
        return self.server_session().lsid

    @property
    def has_ended(self) -> bool:
        """Whether :meth:`end_session` was called."""
        return self.ended or self._ending

    @property
    def is_ended(self) -> bool:
        """Whether :meth:`end_session` was called; TxMongo's name of :attr:`has_ended`."""
        return self.has_ended

    @property
    def in_transaction(self) -> Any:
        """Whether a transaction was started that is neither committed nor aborted; may also be called."""
        return _Flag(self.transaction.active)

    @property
    def operation_time(self) -> Timestamp | None:
        """The server's time of the last operation in this session; ``None`` before, and where servers name none."""
        return self._operation_time

    @property
    def snapshot_time(self) -> Timestamp | None:
        """The moment that the reads of a snapshot session see; ``None`` before the first.

        :raises InvalidOperation: it is no snapshot session.
        """
        if not self._reads_snapshot:
            raise InvalidOperation("snapshot_time is only known of snapshot sessions")
        return self._snapshot_time

    def advance_cluster_time(self, cluster_time: Mapping[str, Any]) -> None:
        """Take over the :attr:`cluster_time` of another session, if it is later.

        :param cluster_time: a ``$clusterTime`` document.
        :raises TypeError: it is no mapping.
        :raises ValueError: it holds no ``clusterTime``.
        """
        if not isinstance(cluster_time, Mapping):
            raise TypeError(f"cluster_time must be a mapping, not {type(cluster_time).__name__}")
        if cluster_timestamp(cluster_time) is None:
            raise ValueError("cluster_time must be a $clusterTime document: its clusterTime is no Timestamp")
        self._cluster_time = later_cluster_time(self._cluster_time, cluster_time)

    def advance_operation_time(self, operation_time: Timestamp) -> None:
        """Take over the :attr:`operation_time` of another session, if it is later, to see what that has seen.

        :param operation_time: a :class:`~bson.timestamp.Timestamp`.
        :raises TypeError: it is no :class:`~bson.timestamp.Timestamp`.
        """
        if not isinstance(operation_time, Timestamp):
            raise TypeError(f"operation_time must be a bson.timestamp.Timestamp, not {type(operation_time).__name__}")
        self._see_operation_time(operation_time)

    # --- its end ---

    def end_session(self, **timing: Unpack[Timing]) -> Deferred[None]:
        """End it: no operation can use it any more, and a transaction in progress is aborted.

        Without a transaction in progress, and without an abort under way, it has ended when this returns. Calling it
        again has no effect.

        :returns: a Deferred that fires with ``None`` when the transaction was aborted. It fails with
            ``CancelledError`` if it is cancelled, and with a timeout if a time that was given for it (here, by
            ``default_timeout_ms`` or the client's ``timeoutMS``) is over before the server has answered; the session
            has ended then all the same.
        """
        if self.has_ended:
            return succeed(None)
        if self._aborting is not None:
            self._ending = True
            return self._aborting.wait()
        if self.transaction.state is not TransactionState.IN_PROGRESS:
            check_timing(timing)
            self.finish()
            return succeed(None)
        limited = self._limit(timing, anew=True) is not None
        aborting = self._abort(timing)
        if self._aborting is None:
            self.finish()
        else:
            self._ending = True
        aborting.addErrback(_only_timeouts if limited else _ignore_error)
        return aborting

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(PyMongoError):
            # What went wrong in the block tells more than that there was no time to say so.
            await self.end_session()

    def __copy__(self) -> NoReturn:
        # Both would end it, and each not know what the other does in it.
        raise TypeError("a ClientSession cannot be copied: start another")

    def bind(self, end_session: bool = True) -> BindingContext:
        """Have the client's operations that are given no ``session`` take this one, for a while.

        ::

            async with client.start_session() as session:
                async with session.bind(), session.start_transaction():
                    await orders.insert_one({"item": "book"})
                    await stock.update_one({"item": "book"}, {"$inc": {"count": -1}})

        That holds for what the block calls, in its own coroutine and in those that it starts meanwhile, and for no
        others; a cursor counts as called when it is first used. Callbacks that are added to a Deferred run elsewhere.
        Within the block a session that is given as an argument comes first, and so does one that is bound further in;
        those of other clients are of no account. Unacknowledged writes (``w=0``) fail with :class:`ValueError`, as with
        any session.

        :param end_session: end the session at the end of the block.
        :returns: for ``async with``, which gives the session.
        :raises InvalidOperation: it has ended.
        """
        self._check_open()
        self._sessions.begin_to_bind()
        return BindingContext(self, end_session)

    def _is_left_open(self) -> bool:
        """Whether the server has a transaction of it in progress that nothing is under way for: it would keep it."""
        in_progress = self.transaction.state is TransactionState.IN_PROGRESS
        return in_progress and not self._uses and not self.has_ended

    def _check_open(self) -> None:
        if self.has_ended:
            raise SessionEnded("Cannot use ended session")

    # --- transactions ---

    def start_transaction(
        self,
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
        read_preference: Any = None,
        max_commit_time_ms: int | None = None,
    ) -> TransactionContext:
        """Start a transaction: the operations of this session that follow are part of it, until its end.

        Nothing is sent before the first of them.

        :param read_concern: and the other arguments: see :class:`TransactionOptions`.
        :returns: for ``async with``, which commits or aborts at its end; without it call :meth:`commit_transaction` or
            :meth:`abort_transaction`.
        :raises InvalidOperation: a transaction is in progress, it is a snapshot session, or it has ended.
        :raises ConfigurationError: the write concern, or the one it inherits, is unacknowledged.
        """
        self._check_open()
        if self._reads_snapshot:
            raise InvalidOperation("Transactions are not supported in snapshot sessions")
        self.transaction.check_start()
        if self._left_alone is not None:
            # A server takes the beginning of the next transaction for the end of the one before.
            self._left_alone.cancel()
        options = self._settle(TransactionOptions(read_concern, write_concern, read_preference, max_commit_time_ms))
        self.transaction.start(options, self.server_session().next_txn_number())
        return TransactionContext(self)

    def _settle(self, given: TransactionOptions) -> Settled:
        """What holds for a transaction after all inheritance."""
        inherited = self._options.default_transaction_options or TransactionOptions()
        defaults = self._defaults

        def pick(name: str) -> Any:
            for options in (given, inherited, defaults):
                value = getattr(options, name)
                if value is not None:
                    return value
            return None

        settled = Settled(*map(pick, ("read_concern", "write_concern", "read_preference", "max_commit_time_ms")))
        check_acknowledged(settled.write_concern)
        return settled

    def _run(self, operation: Operation[Any], timing: Mapping[str, Any], *, anew: bool = False) -> Deferred[Any]:
        """Run an operation within the time of the call, or of :meth:`with_transaction`, or else the session's.

        :param anew: though :meth:`with_transaction` may have no time left.
        """
        limit = self._limit(timing, anew=anew)
        if limit is None or self._execute_within is None:
            return self._execute(operation)
        return self._execute_within(operation, limit)

    def _limit(self, timing: Mapping[str, Any], *, anew: bool = False) -> TimeLimit | None:
        check_timing(timing)
        return time_limit(self._clock, self._timeout, timing, None if anew else self.time_limit)

    def commit_transaction(self, **timing: Unpack[Timing]) -> Deferred[None]:
        """Commit the transaction. Called again, it asks the server again, now for a majority.

        Once it was called, the session's next operation is outside of the transaction, also if the commit fails.

        :returns: a Deferred that fires with ``None``. It fails with the error of the commit; if that has the label
            ``UnknownTransactionCommitResult``, calling this again may tell the outcome, with
            ``TransientTransactionError`` the whole transaction may be run again. If it is cancelled the transaction may
            have been committed or not.
        :raises InvalidOperation: no transaction was started, it was aborted, or the session has ended.
        """
        self._check_open()
        self._limit(timing)
        if not self.transaction.commit():
            return succeed(None)
        options = self.transaction.options
        return self._run(CommitTransaction(self, options.write_concern, options.max_commit_time_ms), timing)

    def abort_transaction(self, **timing: Unpack[Timing]) -> Deferred[None]:
        """Abort the transaction.

        :returns: a Deferred that fires with ``None`` when the server knows; also if it cannot be told: it will abort
            the transaction by itself. It fails with ``CancelledError`` if it is cancelled.
        :raises InvalidOperation: no transaction was started, it was committed or aborted, or the session has ended.
        """
        return self._abort(timing).addErrback(_ignore_error)

    def _abort(self, timing: Mapping[str, Any]) -> Deferred[None]:
        """:meth:`abort_transaction`, with the error if the server cannot be told. The time for it begins anew."""
        self._check_open()
        self._limit(timing, anew=True)
        if not self.transaction.abort():
            return succeed(None)
        self._aborting = Broadcast()
        transaction = self.transaction
        number, address = transaction.txn_number, transaction.pinned_address
        deferred = self._run(AbortTransaction(self, transaction.options.write_concern), timing, anew=True)
        if transaction.beginning_given_up:
            deferred.addErrback(self._not_begun_yet, number, address, timing)
        deferred.addBoth(self._aborted).addBoth(self._abort_over)
        return deferred

    def _not_begun_yet(
        self, failure: Failure, txn_number: Int64, address: Address | None, timing: Mapping[str, Any]
    ) -> Any:
        """The abort may have come to the server before the beginning, which was given up: it must not begin any more.

        The server would keep the transaction, and its locks, for a minute. If another one was started it does not.
        """
        transaction, error = self.transaction, failure.value
        namespace = transaction.namespace
        unknown = isinstance(error, OperationFailure) and error.code == NO_SUCH_TRANSACTION
        if not unknown or namespace is None or transaction.txn_number != txn_number:
            return failure
        server_session = self.server_session()
        lsid, later = server_session.lsid, server_session.next_txn_number()
        superseding = self._run(Supersede(namespace, lsid, later, address), timing, anew=True)
        return superseding.addCallback(lambda _: self._run(AbortNumbered(lsid, later, address), timing, anew=True))

    def _abort_over(self, result: Any) -> Any:
        over, self._aborting = self._aborting, None
        if self._ending:
            self.finish()
        if over is not None:
            over.fire()
        return result

    def _aborted(self, result: Any) -> Any:
        if self.transaction.state is TransactionState.ABORTED:
            self.transaction.unpin()
        return result if isinstance(result, Failure) else None

    def with_transaction(
        self,
        callback: Callable[[ClientSession], Any],
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
        read_preference: Any = None,
        max_commit_time_ms: int | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[Any]:
        """Run a function in a transaction, and commit it; again from the beginning if that may help.

        ::

            async def buy(session):
                await orders.insert_one({"item": "book"}, session=session)
                await stock.update_one({"item": "book"}, {"$inc": {"count": -1}}, session=session)

            await session.with_transaction(buy)

        **The function may be called several times**, so it must not do anything else that cannot be repeated. It must
        pass ``session`` to the operations that are to be part of the transaction, and must let errors of theirs
        through: one that it keeps to itself may have ended the transaction, which would be tried again and again. If it
        commits or aborts itself, nothing more is done. If an error leaves it, the transaction is aborted.

        For 120 s, or as long as ``timeout_ms``, the session's ``default_timeout_ms`` or the client's ``timeoutMS``
        says, the transaction is run again when an error with the label
        ``TransientTransactionError`` ends it, after a pause that grows from 5 ms to half a second, and the commit is
        repeated when its outcome is unknown.

        :param callback: called with this session; its result may be a value, a Deferred or a coroutine.
        :param read_concern: and ``write_concern``, ``read_preference``, ``max_commit_time_ms``: see
            :class:`TransactionOptions`.
        :returns: a Deferred that fires with the function's result once it is committed. It fails with the error of the
            function or of the commit; with :class:`~txmongo.errors.NetworkTimeout`, caused by the last error, when time
            is up; with ``CancelledError`` if it is cancelled: the transaction is then aborted, unless its commit was
            under way.
        :raises InvalidOperation: the session has ended.
        :raises TypeError: ``callback`` cannot be called, or an option has a value of the wrong type.
        """
        self._check_open()
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        options = TransactionOptions(read_concern, write_concern, read_preference, max_commit_time_ms)
        limit, timeout = self._limit(timing), seconds_of(timing.get("timeout_ms"), self._timeout)
        transaction = ConvenientTransaction(
            self, callback, options, limit, clock=self._clock, pauses=self._pauses, jitter=self._jitter
        )
        return Deferred.fromCoroutine(self._with_transaction(transaction, limit, timeout))

    async def _with_transaction(
        self, transaction: ConvenientTransaction, limit: TimeLimit | None, timeout: float | None
    ) -> Any:
        """Run it, with its time as the session's while that lasts."""
        before = self.time_limit, self._timeout
        self.time_limit, self._timeout = limit, timeout
        try:
            return await transaction.run()
        finally:
            self.time_limit, self._timeout = before

    def _leave_alone(self, aborting: Deferred[None]) -> None:
        """Have nobody wait for an abort that is under way, nor hear how it ends."""
        self._left_alone = aborting
        aborting.addBoth(self._forget_abort)

    def _forget_abort(self, _result: object) -> None:
        self._left_alone = None


def _ignore_error(failure: Failure) -> None:
    """Whether a transaction could be aborted interests nobody: the server does it by itself in the end."""
    failure.trap(PyMongoError)


def _only_timeouts(failure: Failure) -> Failure | None:
    return None if isinstance(failure.value, PyMongoError) and not is_timeout(failure.value) else failure
