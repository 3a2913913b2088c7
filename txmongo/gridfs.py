"""GridFS: files of any size in a database, cut into chunks, streamed in and out.

:class:`GridFS` has the methods that TxMongo has always had: ``put``, ``get``, ``get_last_version``, ``delete``. A file
that is written is a :class:`GridIn`, one that is read a :class:`GridOut`. Kept: the GridFS specification.
"""

from __future__ import annotations

from txmongo._gridfs import errors, grid_file
from txmongo._gridfs.errors import CorruptGridFile, FileExists, GridFSError, NoFile, UnsupportedAPI
from txmongo._gridfs.filesystem import GridFS
from txmongo._gridfs.grid_in import GridIn
from txmongo._gridfs.grid_out import GridOut, GridOutIterator

__all__ = [
    "CorruptGridFile",
    "FileExists",
    "GridFS",
    "GridFSError",
    "GridIn",
    "GridOut",
    "GridOutIterator",
    "NoFile",
    "UnsupportedAPI",
    "errors",
    "grid_file",
]
