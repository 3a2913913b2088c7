"""What can go wrong with files in GridFS.

The classes are PyMongo's wherever it has one, so that ``except`` clauses written for it hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridfs.errors import CorruptGridFile, GridFSError, NoFile
from gridfs.errors import FileExists as _FileExists

from txmongo.errors import DuplicateKeyError

__all__ = ["CorruptGridFile", "FileExists", "GridFSError", "NoFile", "UnsupportedAPI"]


class FileExists(_FileExists, DuplicateKeyError):
    """There is a file with this ``_id`` already, or what is left of one: the unique index refused the new one.

    It is PyMongo's ``gridfs.errors.FileExists``, and the :class:`~txmongo.errors.DuplicateKeyError` that TxMongo has
    always raised.
    """

    def __init__(self, error: str, code: int | None = None, details: Mapping[str, Any] | None = None) -> None:
        DuplicateKeyError.__init__(self, error, code, details)


class UnsupportedAPI(GridFSError):
    """A construct of the GridFS API that PyMongo had before its version 1.6 was used.

    Nothing raises it any more; it is here for ``except`` clauses that name it.
    """
