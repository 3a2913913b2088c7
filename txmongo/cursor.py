"""Cursors: what ``find``, ``aggregate`` and the methods that list things return.

Each is three things in one. It is a Deferred that fires with the list of all documents; it is an asynchronous iterator
over them; and until it has started it can be refined by the methods named after the options. It starts on first use:
nothing is sent before somebody waits for it. How batches come and cursors end is in ``txmongo._ops.server_cursor``.

Kept: the CRUD specification, "Find", and the "Find, getMore and killCursors commands" specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from bson.code import Code
from pymongo import CursorType
from twisted.internet.defer import Deferred

from txmongo._command_cursor import CommandCursor, RawBatchCommandCursor
from txmongo._legacy.arguments import also_named
from txmongo._ops.arguments import (
    check_boolean,
    check_mapping,
    hint_value,
    index_document,
    projection_document,
)
from txmongo._ops.base import collation_document
from txmongo._ops.client_sessions import check_session
from txmongo._ops.cursor_times import CursorTimes, cursor_times
from txmongo._ops.cursors import CursorOperation
from txmongo._ops.distinct import Distinct
from txmongo._ops.explain import Explain, ExplainFind, Explanation, explain_command
from txmongo._ops.find import Find, FindOne, bounds_document, check_count, find_fields
from txmongo._ops.query_flags import (
    NO_CURSOR_TIMEOUT,
    OPLOG_REPLAY,
    PARTIAL,
    TAILABLE,
    check_cursor_type,
    check_flags,
    check_limit,
    flag_fields,
)
from txmongo._ops.raw_batches import joined, undecoded
from txmongo._ops.server_cursor import ItemT, ServerCursor
from txmongo._ops.timeouts import Timing, check_timing
from txmongo.errors import InvalidOperation
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.collection import Collection

#: More documents than a batch can hold: it ends where the server has no more, or has 16 MB.
_ALL = 2**31 - 1

CursorT = TypeVar("CursorT", bound="_FindCursor[Any]")

__all__ = ["CommandCursor", "Cursor", "CursorType", "RawBatchCommandCursor", "RawBatchCursor"]


class _FindCursor(ServerCursor[ItemT], Generic[ItemT]):
    """What cursors of ``find`` have in common, whatever they hand documents out as."""

    def __init__(
        self,
        collection: Collection[Any],
        filter: Mapping[str, Any] | None = None,
        projection: Mapping[str, Any] | Iterable[str] | None = None,
        skip: int = 0,
        limit: int = 0,
        no_cursor_timeout: bool = False,
        cursor_type: int = CursorType.NON_TAILABLE,
        sort: Any = None,
        allow_partial_results: bool = False,
        oplog_replay: bool = False,
        batch_size: int = 0,
        collation: Any = None,
        hint: Any = None,
        max_scan: int | None = None,
        max_time_ms: int | None = None,
        max: Any = None,
        min: Any = None,
        return_key: bool | None = None,
        show_record_id: bool | None = None,
        snapshot: bool | None = None,
        comment: Any = None,
        session: Any = None,
        allow_disk_use: bool | None = None,
        let: Mapping[str, Any] | None = None,
        max_await_time_ms: int | None = None,
        timeout_mode: str | None = None,
        **timing: Unpack[Timing],
    ) -> None:
        """Made by :meth:`~txmongo.collection.Collection.find`, which explains the options."""
        if timing:
            check_timing(timing)
        if filter is None:
            filter = {}
        else:
            check_mapping("filter", filter)
        client = collection.database.client
        check_session(session, client._executor.sessions)
        flags = check_cursor_type(cursor_type)
        if no_cursor_timeout is not False:
            check_boolean("no_cursor_timeout", no_cursor_timeout)
            flags |= NO_CURSOR_TIMEOUT
        if allow_partial_results is not False:
            check_boolean("allow_partial_results", allow_partial_results)
            flags |= PARTIAL
        if oplog_replay is not False:
            check_boolean("oplog_replay", oplog_replay)
            flags |= OPLOG_REPLAY
        self._filter = filter
        self._fields = find_fields(
            projection=projection,
            skip=skip,
            sort=sort,
            collation=collation,
            hint=hint,
            max_scan=max_scan,
            max_time_ms=max_time_ms,
            max=max,
            min=min,
            return_key=return_key,
            show_record_id=show_record_id,
            snapshot=snapshot,
            comment=comment,
            allow_disk_use=allow_disk_use,
            let=let,
        )
        self._comment = comment
        self._limit = check_limit(limit, flags)
        self._batch_size = check_count("batch_size", batch_size)
        self._flags = flags
        if flags:
            self._set_flags(flags)
        self._collection = collection
        super().__init__(client._executor.execute, client._leftovers, collection.codec_options, session)
        if max_await_time_ms is not None:
            self._max_await_time_ms = check_count("max_await_time_ms", max_await_time_ms)
        if timing or timeout_mode is not None or collection._timeout is not None:
            self._times = self._find_times(timing, timeout_mode)

    def _find_times(self, timing: Mapping[str, Any], timeout_mode: str | None) -> CursorTimes | None:
        collection = self._collection
        return cursor_times(
            collection.database.client._executor,
            collection._timeout,
            timing,
            timeout_mode,
            session=self._session,
            tailable=self._tailable,
            await_data=self._await_data,
            max_await_time_ms=self._max_await_time_ms,
        )

    #: The verbosity if the plan is wanted instead of the documents; ``True`` for the server's own.
    _verbosity: str | bool | None = None

    # --- the command ---

    def _command_fields(self) -> dict[str, Any]:
        """The fields of the ``find`` command after its first."""
        fields = {"filter": self._filter, **self._fields}
        limit, batch_size = self._limit, self._batch_size
        if limit:
            fields["limit"] = abs(limit)
            if limit < 0:
                # One batch, that has to hold all: else the server ended it at its own 101.
                fields["singleBatch"] = True
                batch_size = 0 if limit == -1 else -limit
            elif batch_size == limit:
                # A batch that is full when the limit is reached would leave the cursor open.
                batch_size += 1
        if batch_size:
            fields["batchSize"] = batch_size
        if self._flags:
            fields.update(flag_fields(self._flags))
        return fields

    def _explain_command(self, fields: dict[str, Any]) -> dict[str, Any]:
        verbosity = self._verbosity if isinstance(self._verbosity, str) else None
        return explain_command(self._collection.name, fields, verbosity)

    def _first_operation(self) -> CursorOperation:
        collection = self._collection
        if self._verbosity is not None:
            return ExplainFind(
                collection.database.name,
                self._explain_command(self._command_fields()),
                codec_options=collection.codec_options,
                read_preference=collection.read_preference,
                session=self._session,
            )
        fields = self._command_fields()
        if self._wants_all and self._limit >= 0 and not self._tailable:
            # The list is wanted: 101 documents first, as the server has it, would be a round trip for nothing.
            fields.setdefault("batchSize", _ALL)
        return Find(
            collection.database.name,
            collection.name,
            fields,
            collection.codec_options,
            collection.read_preference,
            collection.read_concern,
            self._session,
            reply_codec_options=self._codec_options,
        )

    def _find_one(self) -> FindOne | Explain:
        """The operation that finds the first document only, or the plan for that."""
        collection = self._collection
        if self._verbosity is not None:
            fields = {**self._command_fields(), "limit": 1, "singleBatch": True}
            return Explain(
                collection.database.name,
                self._explain_command(fields),
                codec_options=collection.codec_options,
                read_preference=collection.read_preference,
                session=self._session,
            )
        fields = {**self._fields, **flag_fields(self._flags)}
        return FindOne(
            collection.database.name,
            collection.name,
            self._filter,
            fields,
            collection.codec_options,
            collection.read_preference,
            collection.read_concern,
            self._session,
        )

    def _next_batch_size(self) -> int:
        if not self._limit:
            return self._batch_size
        left = abs(self._limit) - self._retrieved
        return min(self._batch_size, left) if self._batch_size else left

    def _has_enough(self) -> bool:
        return 0 < abs(self._limit) <= self._retrieved

    # --- options ---

    def _check_not_started(self) -> None:
        if self.started:
            raise InvalidOperation("cannot set options after executing query: the cursor has started; use clone()")

    def _set_flags(self, flags: int) -> None:
        self._flags = flags
        self._tailable = bool(flags & TAILABLE)
        self._await_data = flags & CursorType.TAILABLE_AWAIT == CursorType.TAILABLE_AWAIT
        if self._times is not None and self._tailable:
            self._times.iterate(self._await_data)

    def _set(self, name: str, value: Any) -> Self:
        """Set a field of the command, or take it away."""
        self._check_not_started()
        if value is None:
            self._fields.pop(name, None)
        else:
            self._fields[name] = value
        return self

    def projection(self, projection: Mapping[str, Any] | Iterable[str] | None) -> Self:
        """Choose the fields of the documents.

        :param projection: a mapping such as ``{"name": 1, "_id": 0}``, or names.
        :raises TypeError: it is neither.
        :raises InvalidOperation: the cursor has started.
        """
        document = None if projection is None else projection_document(projection)  # type: ignore[arg-type]
        return self._set("projection", document or None)

    @also_named(sort="key_or_list")
    def sort(self, key_or_list: Any, direction: Any = None) -> Self:
        """Choose the order of the documents.

        :param key_or_list: one key; or a list of keys and ``(key, direction)`` pairs, or a mapping.
        :param direction: of one key: ``1`` or ``-1``; ascending if it is not given.
        :raises TypeError: a key or a direction is of the wrong type.
        :raises ValueError: there is no key.
        :raises InvalidOperation: the cursor has started.
        """
        if isinstance(key_or_list, str):
            key_or_list = [(key_or_list, 1 if direction is None else direction)]
        elif direction is not None:
            raise TypeError("direction can only be given with one key")
        return self._set("sort", index_document("key_or_list", key_or_list))

    def skip(self, skip: int) -> Self:
        """Leave documents out at the start.

        :param skip: how many.
        :raises TypeError: it is not an int.
        :raises ValueError: it is negative.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("skip", check_count("skip", skip) or None)

    def limit(self, limit: int) -> Self:
        """Choose how many documents come at most.

        :param limit: 0 for all; a negative number for that many without its sign, in one batch.
        :raises TypeError: it is not an int.
        :raises InvalidOperation: the cursor has started, or is an exhaust cursor.
        """
        self._check_not_started()
        self._limit = check_limit(limit, self._flags)
        return self

    def batch_size(self, batch_size: int) -> Self:
        """Choose how many documents the server sends at once.

        :param batch_size: 0 leaves it to the server.
        :raises TypeError: it is not an int.
        :raises ValueError: it is negative.
        :raises InvalidOperation: the cursor has started.
        """
        self._check_not_started()
        self._batch_size = check_count("batch_size", batch_size)
        return self

    @also_named(hint="index")
    def hint(self, index: Any) -> Self:
        """Choose the index that the server uses.

        :param index: its name, or its keys as in :meth:`sort`; ``None`` takes an earlier hint away.
        :raises TypeError: it is neither.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("hint", hint_value(index))

    def comment(self, comment: Any) -> Self:
        """Attach a comment that the server shows in its log, profiler and ``currentOp``.

        :param comment: any value that BSON can hold.
        :raises InvalidOperation: the cursor has started.
        """
        self._set("comment", comment)
        self._comment = comment
        return self

    def collation(self, collation: Any) -> Self:
        """Choose the language's rules for comparing strings.

        :param collation: a :class:`~pymongo.collation.Collation` or a mapping; ``None`` takes an earlier one away.
        :raises TypeError: it is neither.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("collation", collation_document(collation))

    def max(self, spec: Any) -> Self:
        """Choose the upper, exclusive bound of an index; the index must be hinted at.

        :param spec: a value for each key of the index, as a mapping or as pairs.
        :raises TypeError: it is neither.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("max", bounds_document("spec", spec))

    def min(self, spec: Any) -> Self:
        """Choose the lower, inclusive bound of an index; the index must be hinted at.

        :param spec: a value for each key of the index, as a mapping or as pairs.
        :raises TypeError: it is neither.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("min", bounds_document("spec", spec))

    def max_scan(self, max_scan: int | None) -> Self:
        """Have the server look at so many documents at most; servers since MongoDB 4.2 refuse it.

        :param max_scan: how many; ``None`` for no limit.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("maxScan", max_scan)

    def where(self, code: str | Code) -> Self:
        """Add a condition in JavaScript.

        :param code: an expression or function that the server evaluates for each document; each call replaces the last.
        :raises TypeError: it is neither a string nor a :class:`~bson.code.Code`.
        :raises InvalidOperation: the cursor has started.
        """
        self._check_not_started()
        if not isinstance(code, str):
            raise TypeError(f"code must be a str or a bson.code.Code, not {type(code).__name__}")
        self._filter = {**self._filter, "$where": code if isinstance(code, Code) else Code(code)}
        return self

    def max_time_ms(self, max_time_ms: int | None) -> Self:
        """Limit the time that the server works for this cursor.

        :param max_time_ms: milliseconds; when they are over the cursor fails with
            :class:`~txmongo.errors.ExecutionTimeout`. ``None`` for no limit.
        :raises TypeError: it is not an int.
        :raises InvalidOperation: the cursor has started.
        """
        return self._set("maxTimeMS", None if max_time_ms is None else check_count("max_time_ms", max_time_ms))

    def max_await_time_ms(self, max_await_time_ms: int | None) -> Self:
        """Limit the time that the server waits for new documents of a ``TAILABLE_AWAIT`` cursor before an empty batch.

        :param max_await_time_ms: milliseconds; ``None`` leaves it to the server. Other cursors ignore it.
        :raises TypeError: it is not an int.
        :raises InvalidOperation: the cursor has started.
        """
        self._check_not_started()
        if max_await_time_ms is not None:
            check_count("max_await_time_ms", max_await_time_ms)
            if self._times is not None:
                self._times.check_await(max_await_time_ms)
        self._max_await_time_ms = max_await_time_ms
        return self

    def timeout(self, timeout: float | None) -> Self:
        """Limit the time that is waited for documents; TxMongo's.

        :param timeout: seconds, for all documents together if the cursor is used as a Deferred, else for each batch;
            when they are over the cursor fails with :class:`~txmongo.errors.TimeExceeded`. ``None`` for no limit.
        :raises TypeError: it is no number.
        :raises InvalidOperation: the cursor has started.
        """
        self._check_not_started()
        check_timing({"timeout": timeout})
        times = None
        if timeout is not None or self._collection._timeout is not None:
            times = self._find_times({"timeout": timeout}, None)
        self._times = times
        return self

    def allow_disk_use(self, allow_disk_use: bool) -> Self:
        """Allow the server, or forbid it, to sort with files when memory does not suffice.

        :param allow_disk_use: whether it may.
        :raises TypeError: it is not a bool.
        :raises InvalidOperation: the cursor has started.
        """
        check_boolean("allow_disk_use", allow_disk_use)
        return self._set("allowDiskUse", allow_disk_use)

    def allow_partial_results(self, allow_partial_results: bool = True) -> Self:
        """Take what there is when some shards of a cluster do not answer, instead of an error.

        :param allow_partial_results: whether to do so.
        :raises TypeError: it is not a bool.
        :raises InvalidOperation: the cursor has started.
        """
        check_boolean("allow_partial_results", allow_partial_results)
        return self.add_option(PARTIAL) if allow_partial_results else self.remove_option(PARTIAL)

    def add_option(self, mask: int) -> Self:
        """Set flags of the old OP_QUERY: 2 tailable, 16 no cursor timeout, 32 await data, 64 exhaust, 128 partial.

        :raises TypeError: ``mask`` is not an int.
        :raises InvalidOperation: the cursor has started; or exhaust with a limit.
        """
        self._check_not_started()
        flags = self._flags | check_flags(mask)
        check_limit(self._limit, flags)
        self._set_flags(flags)
        return self

    def remove_option(self, mask: int) -> Self:
        """Clear flags that :meth:`add_option` or ``cursor_type`` set.

        :raises TypeError: ``mask`` is not an int.
        :raises InvalidOperation: the cursor has started.
        """
        self._check_not_started()
        self._set_flags(self._flags & ~check_flags(mask))
        return self

    # --- other questions, and again ---

    @property
    def collection(self) -> Collection[Any]:
        """The collection in which it finds."""
        return self._collection

    def distinct(self, key: str) -> Deferred[list[Any]]:
        """The different values of a key in the documents that the cursor would find; it need not be started.

        :param key: its name, with dots for keys of embedded documents.
        :returns: a Deferred that fires with a list; it fails as that of
            :meth:`~txmongo.collection.Collection.distinct`.
        :raises TypeError: ``key`` is not a string.
        """
        if not isinstance(key, str):
            raise TypeError(f"key must be a str, not {type(key).__name__}")
        shared = ("collation", "hint", "maxTimeMS", "comment")
        fields: dict[str, Any] = {name: self._fields[name] for name in shared if name in self._fields}
        collection = self._collection
        return collection._begin({}, self._session)(
            Distinct(
                collection.database.name,
                collection.name,
                key,
                self._filter or None,
                fields,
                codec_options=collection.codec_options,
                read_preference=collection.read_preference,
                read_concern=collection.read_concern,
                session=self._session,
            )
        )

    def explain(self, verbosity: str | None = None) -> Deferred[Any]:
        """How the server would run this query: the plan that it chose, and those that it rejected.

        :param verbosity: ``"queryPlanner"``, ``"executionStats"`` or ``"allPlansExecution"``, the server's default, in
            which it runs the query and all plans that it might have chosen.
        :returns: a Deferred that fires with the server's document, whose item 0 is that document itself: TxMongo 26.0
            had a list of one. It is a cursor that can be refined as this one, and sends nothing before it is used. It
            fails as that of :meth:`~txmongo.database.Database.command`.
        :raises TypeError: ``verbosity`` is not a str.
        """
        if verbosity is not None and not isinstance(verbosity, str):
            raise TypeError(f"verbosity must be a str, not {type(verbosity).__name__}")
        plan = self._copy(_PlanCursor)
        plan._codec_options = self._collection.codec_options
        plan._verbosity = True if verbosity is None else verbosity
        return plan

    def clone(self) -> Self:
        """A new cursor with the same options that has not started.

        :returns: the new one; this one stays as it is.
        """
        return self._copy(type(self))

    def __copy__(self) -> Self:
        """As :meth:`clone`: a Deferred that fires twice is of no use."""
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As :meth:`clone`, with copies of the query and of all options."""
        copy = self.clone()
        copy._filter = deepcopy(self._filter, memo)
        copy._fields = deepcopy(self._fields, memo)
        copy._comment = deepcopy(self._comment, memo)
        return copy

    def _copy(self, kind: type[CursorT]) -> CursorT:
        """A cursor of that class with the options of this one."""
        copy = kind.__new__(kind)
        ServerCursor.__init__(copy, self._execute, self._leftovers, self._codec_options, self._session)
        copy._collection = self._collection
        copy._filter = self._filter
        copy._fields = dict(self._fields)
        copy._comment = self._comment
        copy._limit = self._limit
        copy._batch_size = self._batch_size
        copy._prefetch = self._prefetch
        copy._max_await_time_ms = self._max_await_time_ms
        copy._times = None if self._times is None else self._times.copy()
        copy._verbosity = self._verbosity
        copy._set_flags(self._flags)
        return copy

    def rewind(self) -> Self:
        """Make the cursor as it was before it started: iterated again, it queries again.

        :raises InvalidOperation: it was used as a Deferred, which fires once, or a batch is on its way: use
            :meth:`clone`.
        """
        self._rewind()
        return self


class Cursor(_FindCursor[DocumentType], Generic[DocumentType]):
    """The documents that a query finds, as a Deferred of their list and as an asynchronous iterator.

    .. code-block:: python

        documents = await collection.find({"x": 1}).sort("y").limit(10)     # all of them, as a list
        async for document in collection.find({"x": 1}):                     # one after another
            ...
        async for batch in collection.find({"x": 1}).batches():              # as the server sends them
            ...

    It starts on first use: a callback, ``await``, ``yield`` in ``inlineCallbacks``, being returned from a callback,
    iteration, :meth:`next_batch`, :meth:`to_list`. Until then nothing is sent and options can be set. Beware:
    ``return collection.find()`` out of a coroutine or an ``inlineCallbacks`` generator hands the cursor on as it is,
    not its documents; write ``return await collection.find()``.

    As a Deferred it fails with :class:`~txmongo.errors.OperationFailure` when the server refuses the query, with
    :class:`~txmongo.errors.AutoReconnect` when the connection is lost, with
    :class:`~txmongo.errors.ServerSelectionTimeoutError` (an ``AutoReconnect``) when no server fits in time, with
    :class:`~txmongo.errors.CursorNotFound` when the server has forgotten the cursor, and with ``CancelledError``.

    A cursor that is dropped before it is exhausted is killed at the server; :meth:`close` does so at once.
    """


class _PlanCursor(_FindCursor[Any]):
    """What :meth:`Cursor.explain` returns: the plan is its only document."""

    def callback(self, result: Any) -> None:
        """Fire with the plan, not with a list."""
        plan: Any = result[0] if result else None
        if type(plan) is dict:
            plan = Explanation(plan)
        super().callback(plan)


class RawBatchCursor(_FindCursor[bytes]):
    """The documents that a query finds, undecoded: each item is a batch, its documents in BSON one after another.

    Made by :meth:`~txmongo.collection.Collection.find_raw_batches`; otherwise as :class:`Cursor`.
    """

    def __init__(self, collection: Collection[Any], *args: Any, **options: Any) -> None:
        super().__init__(collection, *args, **options)
        self._codec_options = undecoded(self._codec_options)

    def _items(self, documents: list[Any]) -> list[bytes]:
        return joined(documents)
