"""Cursors and change streams as entities: iterated one document at a time, the first batch fetched at their making."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

from pymongo.errors import PyMongoError

from tests.conformance.unified.failures import Mismatch
from tests.conformance.unified.waiting import settle, sleep

__all__ = ["ChangeStreamEntity", "CursorEntity"]

PAUSE = 0.01


class CursorEntity:
    """A cursor of ``createFindCursor`` or ``createCommandCursor``.

    :param awaits: the server waits for data before it sends an empty batch.
    """

    def __init__(self, cursor: Any, awaits: bool = False) -> None:
        self._cursor = cursor
        self._awaits = awaits
        self._batch: deque[Any] = deque()

    async def open(self) -> None:
        """Have the server make the cursor; its first batch is kept for the first iteration."""
        self._batch.extend(await self._cursor.next_batch())

    async def next_document(self, clock: Any) -> Any:
        """The next document, however many batches it takes.

        :raises Mismatch: the cursor has ended.
        """
        if self._awaits and not self._batch:
            try:
                return await self._cursor.next(wait=True)
            except StopAsyncIteration:
                raise Mismatch("the cursor has ended before a document came") from None
        while not self._batch:
            if self._cursor.exhausted:
                raise Mismatch("the cursor has ended before a document came")
            self._batch.extend(await self._cursor.next_batch())
            if not self._batch:
                await sleep(clock, PAUSE)
        return self._batch.popleft()

    async def iterate_once(self) -> Any:
        """The next document, or ``None`` where one more batch brings none."""
        if not self._batch and not self._cursor.exhausted:
            self._batch.extend(await self._cursor.next_batch())
        return self._batch.popleft() if self._batch else None

    async def close(self, **options: Any) -> None:
        """Close the cursor; what becomes of killCursors is no matter here."""
        await _close_quietly(self._cursor, options)


class ChangeStreamEntity:
    """A change stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def next_document(self, clock: Any) -> Any:
        """The next change."""
        return await self._stream.next()

    async def iterate_once(self) -> Any:
        """The next change, or ``None`` where one more batch brings none."""
        return await self._stream.try_next()

    async def close(self, **options: Any) -> None:
        """Close the stream."""
        await _close_quietly(self._stream, options)


async def _close_quietly(closable: Any, options: dict[str, Any]) -> None:
    with contextlib.suppress(PyMongoError):
        await settle(closable.close(**options))
