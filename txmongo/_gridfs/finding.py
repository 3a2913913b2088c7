"""Finding a file: one by a query, many by a cursor that makes a GridOut of each.

Kept: the GridFS specification, "File download by filename" and "Generic find on files collection".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from twisted.internet.defer import Deferred

from txmongo._gridfs.collections import BucketCollections
from txmongo._gridfs.errors import NoFile
from txmongo._gridfs.grid_out import GridOut
from txmongo._gridfs.times import Times
from txmongo._ops.timeouts import Timing
from txmongo.cursor import CursorT, _FindCursor

__all__ = ["GridOutCursor", "find_file", "revision_order"]


def revision_order(revision: Any, argument: str) -> tuple[list[tuple[str, int]], int]:
    """How to find a revision among the files of one name: their order, and how many to skip.

    :raises TypeError: the revision is not an int.
    """
    if not isinstance(revision, int) or isinstance(revision, bool):
        raise TypeError(f"{argument} must be an int, not {type(revision).__name__}")
    if revision < 0:
        return [("uploadDate", -1)], -revision - 1
    return [("uploadDate", 1)], revision


def find_file(
    bucket: BucketCollections,
    query: Mapping[str, Any],
    missing: str,
    times: Times,
    session: Any = None,
    **options: Any,
) -> Deferred[GridOut]:
    """Open the first file that a query finds.

    :param missing: what to say if there is none.
    :param times: of the call, and then of the file.
    :param options: of ``find_one``: its order, and how many to skip.
    :returns: a Deferred that fires with the :class:`GridOut`. It fails with :class:`NoFile`, and as every operation.
    """
    session = bucket.session_for(session)

    def opened(document: Any) -> GridOut:
        if document is None:
            raise NoFile(missing)
        return GridOut._in(bucket, document, session, times)

    return bucket.files.find_one(query, session=session, **options, **times.left()).addCallback(opened)


class GridOutCursor(_FindCursor[GridOut]):
    """The files that a query finds, as a Deferred of their list and as an asynchronous iterator over them.

    It starts on first use and can be refined until then, as a :class:`~txmongo.cursor.Cursor`.
    """

    def __init__(
        self,
        bucket: BucketCollections,
        filter: Mapping[str, Any] | None = None,
        skip: int = 0,
        limit: int = 0,
        no_cursor_timeout: bool = False,
        sort: Any = None,
        batch_size: int = 0,
        session: Any = None,
        *,
        allow_disk_use: bool | None = None,
        max_time_ms: int | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> None:
        """Made by :meth:`GridFSBucket.find`, which explains the options."""
        session = bucket.session_for(session)
        self._bucket = bucket
        super().__init__(
            bucket.files,
            filter,
            None,
            skip,
            limit,
            no_cursor_timeout=no_cursor_timeout,
            sort=sort,
            batch_size=batch_size,
            session=session,
            allow_disk_use=allow_disk_use,
            max_time_ms=max_time_ms,
            comment=comment,
            **timing,
        )

    def _items(self, documents: list[Any]) -> list[GridOut]:
        return [GridOut._in(self._bucket, document, self._session) for document in documents]

    def _copy(self, kind: type[CursorT]) -> CursorT:
        copy = super()._copy(kind)
        if isinstance(copy, GridOutCursor):
            copy._bucket = self._bucket
        return copy
