"""Cursors of other commands than ``find``: of aggregations, of the commands that list things, of any that makes one.

Public in :mod:`txmongo.cursor`, beside those of ``find``. How batches come and cursors end, which is the same for all,
is in ``txmongo._ops.server_cursor``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Self

from twisted.internet.defer import Deferred

from txmongo._ops.aggregate import Aggregate
from txmongo._ops.cursor_times import CursorTimes
from txmongo._ops.cursors import CursorOperation
from txmongo._ops.find import check_count
from txmongo._ops.raw_batches import joined
from txmongo._ops.server_cursor import ItemT, ServerCursor
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool

__all__ = ["CommandCursor", "RawBatchCommandCursor"]


class _OfCommand(ServerCursor[ItemT], Generic[ItemT]):
    """What cursors of other commands than ``find`` have in common."""

    def __init__(
        self,
        client: ConnectionPool[Any],
        operation: CursorOperation,
        *,
        batch_size: int = 0,
        max_await_time_ms: int | None = None,
        comment: Any = None,
        empty_on: Iterable[int] = (),
        await_data: bool = False,
        at_once: bool = False,
        times: CursorTimes | None = None,
    ) -> None:
        """Made by the methods that run the commands.

        :param client: runs the command.
        :param operation: the command; it is sent on first use.
        :param batch_size: documents in each further batch; 0 leaves it to the server.
        :param max_await_time_ms: how long the server waits for data in each further batch.
        :param comment: goes with the requests for further batches.
        :param empty_on: codes of errors of the command that mean that there is nothing.
        :param await_data: the server may wait before it answers.
        :param at_once: send the command now: it does more than list things.
        :param times: limit its time.
        """
        super().__init__(client._executor.execute, client._leftovers, operation.reply_codec_options, operation.session)
        self._operation = operation
        self._times = times
        self._batch_size = batch_size
        self._max_await_time_ms = max_await_time_ms
        self._comment = comment
        self._await_data = await_data or max_await_time_ms is not None or _watches(operation)
        if empty_on:
            self._empty_on = frozenset(empty_on)
        if at_once:
            self._load()

    def _first_operation(self) -> CursorOperation:
        return self._operation

    def batch_size(self, batch_size: int) -> Self:
        """Choose how many documents the server sends in each further batch.

        :param batch_size: 0 leaves it to the server.
        :raises TypeError: it is not an int.
        :raises ValueError: it is negative.
        """
        self._batch_size = check_count("batch_size", batch_size)
        return self

    def try_next(self) -> Deferred[ItemT | None]:
        """The next document, if the server has one.

        :returns: a Deferred that fires with it, or with ``None`` if the next batch is empty or the cursor at its end.
            It fails as that of the cursor itself.
        """
        return self._try_next()


class CommandCursor(_OfCommand[DocumentType], Generic[DocumentType]):
    """What an aggregation or a command finds or lists, as a Deferred of the list and as an asynchronous iterator.

    It starts on first use, as :class:`~txmongo.cursor.Cursor`, and fails as that does. A pipeline that ends with
    ``$out`` or ``$merge`` is sent at once.
    """


class RawBatchCommandCursor(_OfCommand[bytes]):
    """The documents of an aggregation, undecoded: each item is a batch, its documents in BSON one after another."""

    def _items(self, documents: list[Any]) -> list[bytes]:
        return joined(documents)


def _watches(operation: CursorOperation) -> bool:
    """Whether it makes a change stream, at which the server waits for news."""
    return isinstance(operation, Aggregate) and bool(operation.pipeline) and "$changeStream" in operation.pipeline[0]
