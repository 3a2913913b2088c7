"""A cursor of the server seen from here: when it starts, how its batches come, who gets them, how it ends.

:class:`ServerCursor` is what :mod:`txmongo.cursor` derives the public cursors from; it knows nothing of collections and
options. It is a ``Deferred`` of the list of all documents that starts on first use, whatever that is
(:mod:`txmongo._lazy_deferred`).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from bson.codec_options import CodecOptions
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._cmap.pinning import Holder
from txmongo._deferreds import Broadcast
from txmongo._lazy_deferred import LazyDeferred
from txmongo._ops.arguments import check_boolean
from txmongo._ops.cursors import CursorBatch, CursorOperation, GetMore
from txmongo._ops.session_state import SessionUse
from txmongo._ops.timeouts import is_timeout
from txmongo.errors import ConnectionFailure, InvalidOperation

if TYPE_CHECKING:
    from txmongo._cmap.pinning import Pin
    from txmongo._ops.cursor_times import CursorTimes
    from txmongo._ops.leftovers import Leftovers
    from txmongo._ops.timeouts import TimeLimit
    from txmongo.types import Address

__all__ = ["ServerCursor"]

ItemT = TypeVar("ItemT")

_log = Logger(namespace="txmongo.cursor")

#: Errors after which the server has no cursor any more: CursorNotFound, CappedPositionLost, QueryPlanKilled,
#: CursorKilled.
_CURSOR_IS_GONE = frozenset({43, 136, 175, 237})


class _State(enum.Enum):
    """The life of a cursor; it never goes back but by ``rewind``."""

    NEW = "nothing was sent"
    OPEN = "its batches are wanted"
    CLOSED = "closed, or failed: nothing more comes"
    CANCELLED = "given up by a cancel: whoever uses it is told so"


def _cancelled(cursor: Deferred[Any]) -> None:
    """The canceller: a function, for a bound method would make a circle and so delay the end of a dropped cursor."""
    assert isinstance(cursor, ServerCursor)
    cursor._give_up(_State.CANCELLED)


class ServerCursor(LazyDeferred["list[ItemT]"], Generic[ItemT]):
    """A ``Deferred`` of a list, an asynchronous iterator, and a source of batches, over one cursor of the server.

    Documents are handed out once, to whoever asks: as a Deferred it fires with those that are left.
    """

    _state = _State.NEW
    _cursor_id: int | None = None
    _namespace = ""
    _address: Address | None = None
    _loading: Deferred[Any] | None = None
    _first: CursorOperation | None = None
    #: Whether all documents are wanted as one list.
    _wants_all = False
    #: The documents for the Deferred's result, once it was used as one.
    _collected: list[ItemT]
    #: Why a cursor failed that was started before anybody waited for it, and whether it was for a batch ahead.
    _failure: Failure | None = None
    _failed_ahead = False
    _retrieved = 0
    #: While the server is being told to forget the cursor.
    _killing: Broadcast | None = None
    #: How its time is limited, if it is.
    _times: CursorTimes | None = None
    #: How many wait for a document whom an empty batch does not satisfy.
    _patient = 0
    #: Whether the next batch is fetched while the application works on one, and how many documents the last one had.
    _prefetch = False
    _last_batch_size = 0
    #: The session of its further operations: the one that was given, or an implicit one that it keeps.
    _kept: Any = None
    #: Behind a load balancer, the connection that it keeps while the server has it.
    _pin: Pin | None = None

    _batch_size = 0
    _comment: Any = None
    _max_await_time_ms: int | None = None
    _tailable = False
    _await_data = False
    #: Errors of the first command that mean that there is nothing: a collection that does not exist.
    _empty_on: frozenset[int] = frozenset()

    def __init__(
        self,
        execute: Callable[[Any], Deferred[Any]],
        leftovers: Leftovers,
        codec_options: CodecOptions[Any],
        session: Any = None,
    ) -> None:
        super().__init__(_cancelled)
        self._execute = execute
        self._leftovers = leftovers
        self._codec_options = codec_options
        self._session = session
        self._buffer: deque[ItemT] = deque()
        self._batch_waiters: list[Deferred[list[ItemT]]] = []
        self._more_waiters: list[Deferred[None]] = []

    # --- what a subclass says ---

    def _first_operation(self) -> CursorOperation:
        """The command that makes the cursor."""
        raise NotImplementedError

    def _items(self, documents: list[Any]) -> list[ItemT]:
        """What the documents of a batch are handed out as."""
        return documents

    def _next_batch_size(self) -> int:
        """How many documents to ask for; 0 leaves it to the server."""
        return self._batch_size

    def _has_enough(self) -> bool:
        """Whether no more is wanted, though the server may have more."""
        return False

    # --- as a Deferred ---

    def _begin(self) -> None:
        """Begin to gather the documents for the Deferred's result."""
        self._wants_all = True
        self._collected = list(self._buffer)
        self._buffer.clear()
        if self._failure is not None:
            self.errback(self._seen_failure())
        elif self._state is _State.CANCELLED:
            self.errback(CancelledError())
        elif self.exhausted:
            self.callback(self._collected)
        else:
            self._load()

    def cancel(self) -> None:
        """Give the cursor up.

        The Deferred fails with ``CancelledError``, as do those of ``next`` and ``next_batch`` that wait. On a cursor
        that was not started nothing happens but that any later use fails so. Server-side, what was begun is ended and
        the cursor killed.
        """
        if self._begun:
            super().cancel()
        elif self._state is not _State.CANCELLED:
            self._give_up(_State.CANCELLED)

    # --- loading ---

    def _load(self) -> None:
        """Ask for the next batch, unless that was done already."""
        if self._loading is not None:
            return
        operation: Any
        if self._state is _State.NEW:
            self._state = _State.OPEN
            self._first = operation = self._first_operation()
        else:
            operation = self._get_more()
        times = self._times
        loading = self._execute(operation) if times is None else times.execute(operation, whole=self._begun)
        self._loading = loading
        loading.addCallbacks(self._arrived, self._failed)

    def _get_more(self) -> GetMore:
        assert self._cursor_id is not None and self._address is not None
        database, _, collection = self._namespace.partition(".")
        return GetMore(
            database,
            collection,
            self._cursor_id,
            self._address,
            self._codec_options,
            batch_size=self._next_batch_size(),
            max_time_ms=self._max_await_time_ms if self._await_data else None,
            comment=self._comment,
            session=self._kept,
            exclusive=self._await_data,
            pin=self._pin,
        )

    def _arrived(self, batch: CursorBatch) -> None:
        self._loading = self._first = None
        if self._cursor_id is None:
            self._kept, self._pin = batch.session, batch.pin
        self._cursor_id = batch.cursor_id
        self._namespace = batch.namespace
        self._address = batch.address
        if self._state is not _State.OPEN:
            self._kill()
            return
        documents = batch.documents
        self._retrieved += len(documents)
        if self._times is not None and (documents or (self._tailable and not self._patient)):
            self._times.turn_over()
        if not batch.cursor_id or self._has_enough():
            self._kill()
        self._hand_out(self._items(documents))

    def _hand_out(self, items: list[ItemT]) -> None:
        """Give a batch to those who wait for one, else to the list, else keep it."""
        batch_waiters, self._batch_waiters = self._batch_waiters, []
        more_waiters, self._more_waiters = self._more_waiters, []
        # One of them may begin to use it as a Deferred, which then sees to the rest itself.
        begun = self._begun
        if batch_waiters:
            for waiter in batch_waiters:
                waiter.callback(items)
        elif not begun:
            self._buffer.extend(items)
        elif self._collected or self._cursor_id:
            # Never the reply's own list, which listeners to command events may have kept.
            self._collected.extend(items)
        else:
            self._collected = items
        self._last_batch_size = len(items)
        for more_waiter in more_waiters:
            more_waiter.callback(None)
        if self._prefetch and (batch_waiters or more_waiters):
            self._load_ahead()
        if begun and not self.called and self._state is _State.OPEN:
            if self._cursor_id and (items or not self._tailable):
                self._load()
            else:
                collected, self._collected = self._collected, []
                self.callback(collected)

    def _load_ahead(self) -> None:
        """Ask for the next batch if the application works on the last one that came."""
        if (
            self._cursor_id
            and self._state is _State.OPEN
            and len(self._buffer) <= self._last_batch_size
            and self._session is None
            and not self._tailable
        ):
            self._load()

    def _failed(self, failure: Failure) -> None:
        self._loading = self._first = None
        if self._state is not _State.OPEN:
            return
        error = failure.value
        code = getattr(error, "code", None)
        # Of a first command that fails unseen somebody has to hear; a batch that nobody asked for was fetched ahead.
        self._failed_ahead = self._cursor_id is not None
        if (code in self._empty_on) if self._cursor_id is None else (self._tailable and code in _CURSOR_IS_GONE):
            # A tailable cursor ends so when what it stands on was overwritten: that is its end, not an error.
            self._forget()
            self._hand_out([])
            return
        self._state = _State.CLOSED
        if code in _CURSOR_IS_GONE or (isinstance(error, ConnectionFailure) and not is_timeout(error)):
            self._forget()
        else:
            self._kill()
        if not self._fail_waiters(failure):
            self._failure = failure

    def _fail_waiters(self, failure: Failure) -> bool:
        """Fail all who wait; says whether there was somebody."""
        waiters: list[Deferred[Any]] = [*self._batch_waiters, *self._more_waiters]
        self._batch_waiters = []
        self._more_waiters = []
        for waiter in waiters:
            waiter.errback(failure)
        if self._begun and not self.called:
            self.errback(failure)
            return True
        return bool(waiters)

    def _seen_failure(self) -> Failure:
        """The failure that nobody saw, once."""
        failure, self._failure = self._failure, None
        assert failure is not None
        return failure

    # --- ending ---

    def _kill(self, limit: TimeLimit | None = None) -> None:
        """Have the server forget the cursor, if it has one; :meth:`close` waits for that.

        :param limit: of the time for that; if it is not given, the cursor's begins anew.
        """
        cursor_id = self._cursor_id
        if not cursor_id:
            self._forget()
            return
        self._cursor_id = 0
        assert self._address is not None
        kept, self._kept = self._kept, None
        pin, self._pin = self._pin, None
        if limit is None and self._times is not None:
            limit = self._times.limit_for_close()
        killing = self._leftovers.kill(self._namespace, [cursor_id], self._address, kept, limit, pin)
        self._killing = Broadcast()
        killing.addCallback(self._killed)

    def _killed(self, _result: None) -> None:
        killing, self._killing = self._killing, None
        if killing is not None:
            killing.fire()

    def _forget(self) -> None:
        """The server has no cursor any more: an implicit session is free again."""
        self._cursor_id = 0
        kept, self._kept = self._kept, None
        if isinstance(kept, SessionUse):
            kept.release()
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.release(Holder.CURSOR)

    def _give_up(self, state: _State, limit: TimeLimit | None = None) -> None:
        """Stop loading, kill the cursor, and tell those who wait for batches that they will not get them."""
        was_new = self._state is _State.NEW
        self._state = state
        self._buffer.clear()
        loading, first = self._loading, self._first
        if loading is not None and first is not None and first.sent:
            # The server may be making a cursor just now: when it is known, _arrived kills it.
            self._leftovers.abandon(loading)
        elif not was_new:
            if loading is not None:
                loading.cancel()
            self._kill(limit)
        if self._batch_waiters or self._more_waiters:
            waiters: list[Deferred[Any]] = [*self._batch_waiters, *self._more_waiters]
            self._batch_waiters = []
            self._more_waiters = []
            for waiter in waiters:
                waiter.errback(CancelledError())

    def __del__(self) -> None:
        if self._cursor_id and self._state is _State.OPEN and self._address is not None:
            self._leftovers.drop(self._namespace, self._cursor_id, self._address, self._kept, self._pin)
        if self._failure is not None and not self._failed_ahead:
            _log.failure("Unhandled error in a cursor that nobody waited for", self._failure)

    def close(self, timeout_ms: float | None = None) -> Deferred[None]:
        """Close the cursor; the server forgets it. Who waits for its documents gets ``CancelledError``.

        Closing one that is exhausted, closed or not started sends nothing.

        :param timeout_ms: milliseconds for which to wait for the server; those of the cursor, all of them, if it is not
            given.
        :returns: a Deferred that fires with ``None`` when the server has answered, or the time is up; it never fails.
        :raises TypeError: ``timeout_ms`` is no number.
        :raises ValueError: it is negative.
        """
        limit = None if timeout_ms is None else self._leftovers.limit(timeout_ms)
        if self._failed_ahead:
            self._failure = None
        if self._state not in (_State.CLOSED, _State.CANCELLED):
            self._give_up(_State.CLOSED, limit)
            if self._begun and not self.called:
                self.errback(CancelledError())
        return succeed(None) if self._killing is None else self._killing.wait()

    async def __aenter__(self) -> Self:
        """Use the cursor until the end of the block, which closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _rewind(self) -> None:
        """Back to the start.

        :raises InvalidOperation: it was used as a Deferred, which fires once; or a batch is on its way.
        """
        if self._begun:
            raise InvalidOperation("a cursor that was used as a Deferred cannot be rewound: use clone()")
        if self._loading is not None:
            raise InvalidOperation("a cursor cannot be rewound while a batch is on its way: use clone()")
        if self._state is _State.OPEN:
            self._give_up(_State.CLOSED)
        self._state = _State.NEW
        if self._times is not None:
            self._times = self._times.copy()
        self._cursor_id = self._address = self._failure = None
        self._retrieved = 0
        self._wants_all = False
        self._buffer.clear()

    # --- state ---

    @property
    def started(self) -> bool:
        """Whether it was used: its options are settled."""
        return self._state is not _State.NEW

    @property
    def alive(self) -> bool:
        """Whether there may be documents that were not handed out yet; of a tailable cursor, ever.

        True does not promise that there are any.
        """
        return bool(self._buffer) or not self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the last batch has come, or the cursor was closed: nothing more can be loaded."""
        return self._cursor_id == 0 or self._state in (_State.CLOSED, _State.CANCELLED)

    @property
    def cursor_id(self) -> int | None:
        """The server's id of the cursor: ``None`` before the first batch, 0 when the server has none any more."""
        return self._cursor_id

    @property
    def address(self) -> Address | None:
        """The server that has the cursor; ``None`` before the first batch."""
        return self._address

    @property
    def session(self) -> Any:
        """The session that was given for the cursor, or ``None``."""
        return self._session

    @property
    def retrieved(self) -> int:
        """How many documents have come from the server so far."""
        return self._retrieved

    # --- batches ---

    def prefetch(self, prefetch: bool = True) -> Self:
        """Choose whether the next batch is fetched while the application works on one.

        What it does between two batches and the way to the server and back then go on at the same time. Up to two
        batches are in memory, and the server may have sent one for nothing when the cursor is closed early. It may be
        chosen at any time. A cursor in a session that was given to it is left as it is, since a session does one thing
        at a time, and so are a tailable one and the Deferred of the list, which waits for nobody.

        :param prefetch: false to fetch a batch only when it is asked for, which is how a cursor begins.
        :raises TypeError: it is not a bool.
        """
        check_boolean("prefetch", prefetch)
        self._prefetch = prefetch
        return self

    def next_batch(
        self, *, timeout: float | None = None, deadline: float | None = None, _deadline: float | None = None
    ) -> Deferred[list[ItemT]]:
        """Wait for the next batch. Calls made while one is on its way all get that one.

        :param timeout: seconds to wait for it, at the most.
        :param deadline: when to stop waiting, on the reactor's clock. Both end in
            :class:`~txmongo.errors.TimeExceeded`, and otherwise as a cancel. ``_deadline`` is the same.
        :returns: a Deferred that fires with the list of documents, which may be empty; :attr:`exhausted` tells whether
            more can follow. It fails as that of the cursor itself. Cancelling the only one that waits gives the cursor
            up: what the server sent after that would be lost.
        """
        if self._buffer:
            items = list(self._buffer)
            self._buffer.clear()
            if self._prefetch:
                self._load_ahead()
            return succeed(items)
        if self._failure is not None:
            return fail(self._seen_failure())
        if self._state is _State.CANCELLED:
            return fail(InvalidOperation("the cursor was cancelled"))
        if self.exhausted:
            return succeed([])
        waiter: Deferred[list[ItemT]] = Deferred(self._stop_waiting)
        self._batch_waiters.append(waiter)
        self._load()
        timing = {"timeout": timeout, "deadline": deadline, "_deadline": _deadline}
        if any(each is not None for each in timing.values()):
            self._leftovers.end_waiting(waiter, timing)
        return waiter

    async def batches(self) -> AsyncIterator[list[ItemT]]:
        """Iterate over the batches: ``async for batch in cursor.batches()``.

        It ends when the cursor is exhausted; of a tailable one empty batches come too.
        """
        while self.alive:
            yield await self.next_batch()

    def _more(self) -> Deferred[None]:
        """Wait until there is news: documents in the buffer, or the cursor's end."""
        if self._failure is not None:
            return fail(self._seen_failure())
        if self._state is _State.CANCELLED:
            return fail(InvalidOperation("the cursor was cancelled"))
        if self._buffer or self.exhausted:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._stop_waiting)
        self._more_waiters.append(waiter)
        self._load()
        return waiter

    def _stop_waiting(self, waiter: Deferred[Any]) -> None:
        """A waiter was cancelled. When nobody else waits, the batch would be lost: the cursor ends."""
        for waiters in (self._batch_waiters, self._more_waiters):
            if waiter in waiters:
                waiters.remove(waiter)
        if not self._batch_waiters and not self._more_waiters and not self._begun:
            self._give_up(_State.CANCELLED)

    # --- documents ---

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        """Iterate over the documents; of a tailable cursor over those that are there: it may be repeated.

        :raises InvalidOperation: it was used as a Deferred: all documents are in the list that this fires with.
        """
        if self._begun:
            raise InvalidOperation(
                "a cursor that was awaited has its documents in that list, none to iterate: use clone()"
            )
        buffer = self._buffer
        while True:
            while buffer:
                if self._prefetch:
                    self._load_ahead()
                yield buffer.popleft()
            if self.exhausted and self._failure is None and self._state is not _State.CANCELLED:
                return
            await self._more()
            if self._tailable and not buffer:
                return

    def next(self, *, wait: bool = False) -> Deferred[ItemT]:
        """Wait for the next document.

        :param wait: if a tailable cursor has none yet, go on until there is one, through however many empty batches;
            ``timeoutMS`` is then the time for all of that. The cursor has to be one that awaits data.
        :returns: a Deferred that fires with it. It fails with ``StopAsyncIteration`` when there is none left (of a
            tailable cursor: none yet, unless it waits), else as that of the cursor itself.
        :raises InvalidOperation: ``wait`` with a tailable cursor that does not await data: it would ask all the time.
        """
        if wait and self._tailable and not self._await_data:
            raise InvalidOperation("wait=True is for tailable cursors that await data (TAILABLE_AWAIT)")
        if self._buffer:
            if self._prefetch:
                self._load_ahead()
            return succeed(self._buffer.popleft())
        if wait and self._tailable:
            return Deferred.fromCoroutine(self._wait_for_next())
        return self._more().addCallback(self._take)

    async def _wait_for_next(self) -> ItemT:
        """The next document of a tailable cursor, whenever it comes."""
        self._patient += 1
        try:
            while not self._buffer:
                await self._more()
                if not self._buffer and self.exhausted:
                    raise StopAsyncIteration
            return self._buffer.popleft()
        finally:
            self._patient -= 1

    def _try_next(self) -> Deferred[ItemT | None]:
        """The next document, or ``None`` when the next batch is empty."""
        if self._buffer:
            return succeed(self._buffer.popleft())
        return self._more().addCallback(self._take_or_none)

    def _take_or_none(self, _ignored: None) -> ItemT | None:
        return self._buffer.popleft() if self._buffer else None

    def __anext__(self) -> Deferred[ItemT]:
        return self.next()

    def _take(self, _ignored: None) -> Any:
        """The next document, or another wait for it."""
        if self._buffer:
            return self._buffer.popleft()
        if self.exhausted or self._tailable:
            raise StopAsyncIteration
        return self._more().addCallback(self._take)

    def to_list(self, length: int | None = None) -> Deferred[list[ItemT]]:
        """Wait for documents and put them in a list.

        :param length: at most that many; ``None`` for all that are left.
        :returns: a Deferred that fires with the list; it fails as that of the cursor itself.
        :raises TypeError: ``length`` is not an int.
        :raises ValueError: it is less than 1.
        """
        if length is not None:
            if not isinstance(length, int):
                raise TypeError(f"length must be an int, not {type(length).__name__}")
            if length < 1:
                raise ValueError("length must be at least 1")
        else:
            self._wants_all = True
        return Deferred.fromCoroutine(self._to_list(length))

    async def _to_list(self, length: int | None) -> list[ItemT]:
        items: list[ItemT] = []
        buffer = self._buffer
        while True:
            if length is None:
                items.extend(buffer)
                buffer.clear()
            else:
                while buffer and len(items) < length:
                    items.append(buffer.popleft())
                if len(items) == length:
                    return items
            if self.exhausted and self._failure is None and self._state is not _State.CANCELLED:
                return items
            await self._more()
            if self._tailable and not buffer:
                return items
