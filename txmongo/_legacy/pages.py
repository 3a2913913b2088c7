"""Page after page of a cursor: what ``find_with_cursor`` gives.

A page is a tuple of documents and a Deferred of the next page; the last is ``([], None)``. Nothing is asked of the
server for a page that nobody waits for, so a program may stop after any: the cursor is then killed at the server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from txmongo._lazy_deferred import LazyDeferred
from txmongo._ops.server_cursor import ServerCursor

__all__ = ["Page", "first_page"]

Page = tuple[list[Any], "Deferred[Any] | None"]
"""Documents, and the Deferred of the next page."""


def first_page(cursor: ServerCursor[Any], tailable: bool = False) -> Deferred[Page]:
    """Ask for the first page, at once.

    :param tailable: the cursor stays open at its end: its pages may be empty and others follow.
    """
    return _page(cursor, tailable)


def _page(cursor: ServerCursor[Any], tailable: bool) -> Deferred[Any]:
    def page(documents: list[Any]) -> Any:
        if documents or (tailable and not cursor.exhausted):
            return documents, _NextPage(cursor, tailable)
        return ([], None) if cursor.exhausted else _page(cursor, tailable)

    return cursor.next_batch().addCallback(page)


def _cancelled(page: Deferred[Any]) -> None:
    """The canceller: a function, for a bound method would make a circle and so delay the end of a dropped cursor."""
    assert isinstance(page, _NextPage)
    page._loading.cancel()


class _NextPage(LazyDeferred[Any]):
    """The page after one that was given: it is asked for when somebody waits for it, however they do."""

    _loading: Deferred[Any]

    def __init__(self, cursor: ServerCursor[Any], tailable: bool) -> None:
        super().__init__(_cancelled)
        self._cursor = cursor
        self._tailable = tailable

    def _begin(self) -> None:
        self._loading = loading = _page(self._cursor, self._tailable)
        loading.addCallbacks(self.callback, self.errback)

    def cancel(self) -> None:
        """Give the page up, and the cursor with it: nothing more is wanted of it."""
        if self._begun:
            super().cancel()
        else:
            self._cursor.cancel()
