"""Change streams: what ``watch`` of a collection, a database and a client gives.

A stream asks the server for more only while somebody waits for a change, and goes on by itself where it stood when its
cursor is lost. What is decided on the way is in :mod:`txmongo._ops.change_streams`. Kept: the change streams
specification, and "Change Streams" of the client side operations timeout specification.
"""

from __future__ import annotations

import copy
import enum
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

import attrs
import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap.pinning import Holder
from txmongo._deferreds import Broadcast, current_failure
from txmongo._ops.change_streams import FirstChanges, ResumePoint, Watch, WatchOptions, is_resumable
from txmongo._ops.cursor_times import CursorTimes, cursor_times
from txmongo._ops.cursors import CursorBatch, GetMore
from txmongo._ops.raw_batches import undecoded
from txmongo._ops.session_state import SessionUse
from txmongo._ops.timeouts import TimeLimit, is_timeout
from txmongo.errors import CursorNotFound
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo._cmap.pinning import Pin
    from txmongo._ops.executor import Executor
    from txmongo._ops.leftovers import Leftovers

__all__ = ["ChangeStream"]

_log = Logger(namespace="txmongo.change_stream")


class _State(enum.Enum):
    """The life of a stream: OPENING, then OPEN and LOST in turn, at last ENDED."""

    OPENING = "opening"
    OPEN = "open"
    #: The cursor is gone; who waits next has it made anew, from where the stream stands.
    LOST = "to be resumed"
    #: Closed, failed, or ended by the server; changes that have come may be left.
    ENDED = "ended"


@attrs.frozen
class _Wait:
    """What somebody waits for.

    :ivar once: for what the next batch brings, be it nothing.
    :ivar since: when it began.
    """

    once: bool
    since: float


class ChangeStream(Generic[DocumentType]):
    """The changes of a collection, a database or a whole deployment, as they happen.

    Made by :meth:`Collection.watch() <txmongo.collection.Collection.watch>` and the methods of that name of databases
    and clients, whose Deferred fires with it once the server watches.

    .. code-block:: python

        async with await collection.watch() as stream:
            async for change in stream:
                ...

    Iterating, :meth:`next` and :meth:`try_next` may be used side by side and by several at once, who are served in the
    order in which they asked. Each change is handed out once. Giving up a wait (``cancel()``, ``addTimeout``) loses
    nothing: what it would have got is for who asks next. Nothing is fetched while nobody waits.

    While it waits for a change the stream has a connection of the client's pool for itself, for as long as the server
    waits for data (a second, or ``max_await_time_ms``). There should be fewer streams than ``maxPoolSize``.

    When the connection is lost, the primary steps down or the server has lost the cursor, the stream goes on by itself,
    once for each such failure, on a server that suits its read preference. Where that fails the wait fails, with
    :class:`~txmongo.errors.AutoReconnect` or one of its kind, and the next one tries again; so it is after a timeout
    (``timeoutMS``, ``timeout``). A server that times out before any change has come may need more time than it was
    given to read its oplog: then close the stream and open one with more. Any other error ends the stream.

    When what is watched is dropped or renamed the server ends the stream, after an ``invalidate`` event.
    ``start_after=stream.resume_token`` begins anew behind that.
    """

    _state = _State.OPENING
    _cursor_id = 0
    _namespace = ""
    #: The server that has the cursor; there is one from OPEN on.
    _address: Any = None
    #: The command under way, and if it is to make the cursor, its operation.
    _loading: Deferred[Any] | None = None
    _making: Watch | None = None
    #: When the wait began for which it was sent.
    _since = 0.0
    _opening: Deferred[Any] | None = None
    #: The session of its further commands: the one that was given, or an implicit one that it keeps.
    _kept: Any = None
    #: Behind a load balancer, the connection that it keeps while there is a cursor.
    _pin: Pin | None = None
    _serving = False
    #: Why it ended while nobody waited; it is for who asks next.
    _failure: Failure | None = None
    _killing: Broadcast | None = None

    def __init__(
        self,
        executor: Executor,
        leftovers: Leftovers,
        make: Callable[[Mapping[str, Any], Any], Watch],
        options: WatchOptions,
        codec_options: CodecOptions[DocumentType],
        times: CursorTimes | None,
        session: Any,
    ) -> None:
        """Made by the ``watch`` methods.

        :param make: the command that makes the stream, for a place to begin and a session.
        :param times: limit its time.
        """
        self._executor = executor
        self._leftovers = leftovers
        self._make = make
        self._options = options
        self._point = ResumePoint(options)
        self._codec_options = codec_options
        # A token goes back to the server as it came, so nothing of it may be decoded by the application's codecs.
        self._decodes = codec_options.type_registry != DEFAULT_CODEC_OPTIONS.type_registry
        self._times = times
        self._session = session
        self._buffer: deque[Any] = deque()
        self._waiting: dict[Deferred[Any], _Wait] = {}

    def __repr__(self) -> str:
        return f"<ChangeStream: {self._state.value}, {len(self._buffer)} changes here, {len(self._waiting)} waiting>"

    # --- what users see ---

    @property
    def alive(self) -> bool:
        """Whether a change may come, or has come and is left; false once it was closed, has failed or has ended."""
        return bool(self._buffer) or self._state is not _State.ENDED

    @property
    def resume_token(self) -> Mapping[str, Any] | None:
        """What ``resume_after`` or ``start_after`` of another stream takes to go on behind the last change given out.

        ``None`` if there is none yet. It moves on with empty batches too: who wants to store each looks at it after
        every :meth:`try_next`, whether that brought a change or not.
        """
        return copy.deepcopy(self._point.token)

    @property
    def session(self) -> Any:
        """The session that was given for the stream, or ``None``."""
        return self._session

    def next(self) -> Deferred[DocumentType]:
        """Wait for the next change, however long it takes.

        :returns: a Deferred that fires with it. It fails with ``StopAsyncIteration`` when the stream was closed or has
            ended, :class:`~txmongo.errors.InvalidOperation` if a stage of the pipeline took the change's ``_id`` away
            (which ends the stream), or if the client was disconnected, ``CancelledError`` if it is cancelled, and as
            the class says. After a timeout, and after a failure to resume, it may be called again.
        """
        return self._wait(once=False)

    def try_next(self) -> Deferred[DocumentType | None]:
        """The next change, if there is one.

        If none is here already the server is asked once, which waits a second for one, or ``max_await_time_ms``.

        :returns: a Deferred that fires with the change, or with ``None`` if there was none or the stream has ended. It
            fails as that of :meth:`next`, but never with ``StopAsyncIteration``.
        """
        return self._wait(once=True)

    def __aiter__(self) -> Self:
        """Iterate over the changes; that ends when the stream does."""
        return self

    def __anext__(self) -> Deferred[DocumentType]:
        return self.next()

    def close(self, timeout_ms: float | None = None) -> Deferred[None]:
        """Close the stream, for good. Who waits in :meth:`next` gets ``StopAsyncIteration``, in :meth:`try_next` None.

        :param timeout_ms: milliseconds for which to wait for the server; those of the stream, all of them, if it is not
            given.
        :returns: a Deferred that fires with ``None`` when the server has forgotten its cursor, or the time is up; it
            never fails.
        :raises TypeError: ``timeout_ms`` is no number.
        :raises ValueError: it is negative.
        """
        limit = None if timeout_ms is None else self._leftovers.limit(timeout_ms)
        self._end(limit)
        self._go_on()
        return succeed(None) if self._killing is None else self._killing.wait()

    async def __aenter__(self) -> Self:
        """Use the stream until the end of the block, which closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --- who waits ---

    def _wait(self, *, once: bool) -> Deferred[Any]:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            return fail(failure)
        waiter: Deferred[Any] = Deferred(self._stop_waiting)
        self._waiting[waiter] = _Wait(once, self._executor.clock.seconds())
        self._go_on()
        return waiter

    def _stop_waiting(self, waiter: Deferred[Any]) -> None:
        """One was cancelled. What was asked for goes on: the changes that it brings are for others."""
        self._waiting.pop(waiter, None)

    def _go_on(self) -> None:
        """Serve those who wait, as far as changes are here; for the rest ask the server."""
        if self._serving:
            return
        self._serve()
        if self._state is _State.ENDED:
            self._tell_of_the_end()
        elif self._waiting and self._loading is None:
            self._load()

    def _serve(self) -> None:
        """Give out the changes that are here; who asks while that is done comes last."""
        self._serving = True
        while self._waiting and self._buffer:
            self._serve_one()
        self._serving = False

    def _serve_one(self) -> None:
        """Give the oldest change to who has waited longest."""
        try:
            change = self._take()
        except Exception:
            self._fail(current_failure())
            return
        waiter = next(iter(self._waiting))
        del self._waiting[waiter]
        waiter.callback(change)

    def _take(self) -> Any:
        document = self._buffer.popleft()
        self._point.handed_out(document, last=not self._buffer)
        return bson.decode(document.raw, self._codec_options) if self._decodes else document

    def _tell_of_the_end(self) -> None:
        """Nothing is left for those who wait; nor is there for those who ask while they are told."""
        while self._waiting:
            waiter, wait = next(iter(self._waiting.items()))
            del self._waiting[waiter]
            if wait.once:
                waiter.callback(None)
            else:
                waiter.errback(StopAsyncIteration())

    def _fail_waiters(self, failure: Failure, until: float | None = None) -> bool:
        """Fail those who wait, or those who began to at a time or before; says whether there was anybody."""
        failed = [waiter for waiter, wait in self._waiting.items() if until is None or wait.since <= until]
        for waiter in failed:
            del self._waiting[waiter]
        for waiter in failed:
            # Another's callback may have cancelled it meanwhile.
            if not waiter.called:
                waiter.errback(failure)
        return bool(failed)

    # --- loading ---

    def _open(self) -> Deferred[Self]:
        """Have the server begin to watch; the Deferred fires with the stream."""
        opening: Deferred[Self] = Deferred(self._stop_opening)
        self._opening = opening
        self._load()
        return opening

    def _stop_opening(self, _opening: Deferred[Self]) -> None:
        self._opening = None
        self._end()

    def _load(self) -> None:
        """Send the next command, within the time of who has waited longest."""
        oldest = next(iter(self._waiting.values()), None)
        self._since = self._executor.clock.seconds() if oldest is None else oldest.since
        operation: Any
        if self._state is _State.OPEN and not self._executor.reaches(self._address):
            # Its server failed while nobody waited; to wait until it is found again would be to wait for too long.
            self._lose()
        if self._state is _State.OPEN:
            operation = self._get_more()
        else:
            place = self._point.original() if self._state is _State.OPENING else self._point.resumed()
            session = self._session if self._kept is None else self._kept
            self._making = operation = self._make(place, session)
        if self._times is None:
            loading = self._executor.execute(operation)
        else:
            loading = self._times.execute_since(operation, self._since)
        self._loading = loading
        if self._state is _State.OPEN:
            loading.addCallbacks(self._arrived, self._get_more_failed)
        else:
            loading.addCallbacks(self._made, self._make_failed)

    def _get_more(self) -> GetMore:
        database, _, collection = self._namespace.partition(".")
        options = self._options
        return GetMore(
            database,
            collection,
            self._cursor_id,
            self._address,
            undecoded(self._codec_options) if self._decodes else self._codec_options,
            batch_size=options.batch_size or 0,
            max_time_ms=options.max_await_time_ms,
            comment=options.comment,
            session=self._kept,
            exclusive=True,
            pin=self._pin,
        )

    def _made(self, batch: FirstChanges) -> None:
        """The server watches, for the first time or again."""
        self._loading = self._making = None
        self._namespace = batch.namespace
        self._address = batch.address
        self._pin = batch.pin
        if batch.cursor_id:
            self._kept = batch.session
        if self._state is _State.ENDED:
            # Closed in the meantime.
            self._cursor_id = batch.cursor_id
            self._kill()
            return
        self._state = _State.OPEN
        self._point.began(batch)
        self._keep(batch)
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.callback(self)
        self._go_on()

    def _arrived(self, batch: CursorBatch) -> None:
        """A batch has come that was asked for."""
        self._loading = None
        self._point.arrived(batch)
        self._keep(batch)
        asked = [waiter for waiter, wait in self._waiting.items() if wait.once]
        self._serve()
        for waiter in asked:
            # They asked for what one batch brings, and this was it.
            if self._waiting.pop(waiter, None) is not None:
                waiter.callback(None)
        self._go_on()

    def _keep(self, batch: CursorBatch) -> None:
        self._cursor_id = batch.cursor_id
        self._buffer.extend(batch.documents)
        if not batch.cursor_id:
            self._state = _State.ENDED
            self._forget()

    def _get_more_failed(self, failure: Failure) -> None:
        self._loading = None
        if self._state is _State.ENDED:
            return
        error: Any = failure.value
        out_of_time = self._is_out_of_time(error)
        if not out_of_time and not is_resumable(error):
            self._fail(failure)
            return
        self._lose(known=not isinstance(error, CursorNotFound))
        if out_of_time:
            self._fail_waiters(failure, until=self._since)
        self._go_on()

    def _lose(self, known: bool = True) -> None:
        """Give the cursor up: who waits, now or later, has it made anew.

        :param known: the server may still know it.
        """
        self._state = _State.LOST
        if known:
            self._kill(keeps_session=True)
        else:
            self._cursor_id = 0
            self._unpin()

    def _make_failed(self, failure: Failure) -> None:
        self._loading = self._making = None
        if self._state is _State.ENDED:
            self._forget()
            return
        error: Any = failure.value
        opening, self._opening = self._opening, None
        if opening is not None:
            self._state = _State.ENDED
            opening.errback(failure)
        elif self._is_out_of_time(error):
            self._fail_waiters(failure, until=self._since)
            self._go_on()
        elif is_resumable(error):
            # One attempt for each failure; who asks again has it tried again.
            self._fail_waiters(failure)
        else:
            self._fail(failure)

    def _is_out_of_time(self, error: BaseException) -> bool:
        """Whether it failed because the time of the wait was up: then there is none left to resume in.

        A timeout that the stream survives may be of something else: of finding the server, of the connection.
        """
        times = self._times
        if times is None or not is_timeout(error):
            return False
        return times.is_over(self._since) or not is_resumable(error)

    # --- ending ---

    def _fail(self, failure: Failure) -> None:
        """End the stream, with an error for those who wait, or else for who asks next."""
        self._end()
        if not self._fail_waiters(failure):
            self._failure = failure

    def _end(self, limit: TimeLimit | None = None) -> None:
        """Nothing more is wanted of the server."""
        self._buffer.clear()
        if self._state is _State.ENDED:
            return
        self._state = _State.ENDED
        loading, making = self._loading, self._making
        if loading is not None and making is not None and making.sent:
            # The server may be making a cursor just now: when it is known, _made kills it.
            self._leftovers.abandon(loading)
            return
        if loading is not None:
            loading.cancel()
        self._kill(limit)

    def _kill(self, limit: TimeLimit | None = None, *, keeps_session: bool = False) -> None:
        """Have the server forget the cursor, if it has one; :meth:`close` waits for that.

        :param limit: of the time for that; if it is not given, the stream's begins anew.
        :param keeps_session: the stream goes on.
        """
        cursor_id, self._cursor_id = self._cursor_id, 0
        if not cursor_id:
            self._forget()
            return
        if limit is None and self._times is not None:
            limit = self._times.limit_for_close()
        pin, self._pin = self._pin, None
        killing = self._leftovers.kill(
            self._namespace, [cursor_id], self._address, self._kept, limit, pin, keeps_session=keeps_session
        )
        if not keeps_session:
            self._kept = None
            self._killing = Broadcast()
            killing.addCallback(self._killed)

    def _killed(self, _result: None) -> None:
        killing, self._killing = self._killing, None
        assert killing is not None
        killing.fire()

    def _forget(self) -> None:
        """The server has no cursor any more, and will not get one: what the stream kept is free again."""
        kept, self._kept = self._kept, None
        if isinstance(kept, SessionUse):
            kept.release()
        self._unpin()

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.release(Holder.CURSOR)

    def __del__(self) -> None:
        if self._cursor_id or self._kept is not None:
            self._leftovers.drop(self._namespace, self._cursor_id, self._address, self._kept, self._pin)
        if self._failure is not None:
            _log.failure("Unhandled error in a change stream that nobody waited for", self._failure)


def open_stream(
    client: Any,
    database: str,
    target: str | int,
    options: WatchOptions,
    *,
    timeout: float | None,
    timing: Mapping[str, Any],
    session: Any,
    codec_options: CodecOptions[Any],
    **rest: Any,
) -> Deferred[ChangeStream[Any]]:
    """Open a stream: what the ``watch`` methods have in common.

    :param database: where the command goes.
    :param target: the collection's name; 1 for more than a collection.
    :param timeout: seconds of the ``timeoutMS`` of the object that is watched, ``None`` if it has none.
    :param timing: the call's own keywords: :class:`~txmongo._ops.timeouts.Timing`.
    :param rest: as of :class:`~txmongo._ops.aggregate.Aggregate`: the read preference and the read concern.
    """
    executor = client._executor
    # The stream goes on with it when it has to be opened again, wherever that is.
    session = executor.sessions.bound(session)
    times = cursor_times(
        executor,
        timeout,
        timing,
        session=session,
        tailable=True,
        await_data=True,
        max_await_time_ms=options.max_await_time_ms,
    )
    reply_codec_options = codec_options
    if codec_options.type_registry != DEFAULT_CODEC_OPTIONS.type_registry:
        reply_codec_options = undecoded(codec_options)

    def make(place: Mapping[str, Any], session: Any) -> Watch:
        return Watch(
            database,
            target,
            options,
            place,
            codec_options=codec_options,
            reply_codec_options=reply_codec_options,
            session=session,
            **rest,
        )

    stream: ChangeStream[Any] = ChangeStream(executor, client._leftovers, make, options, codec_options, times, session)
    return stream._open()
