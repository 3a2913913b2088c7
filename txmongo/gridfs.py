"""GridFS: files of any size in a database, cut into chunks, streamed in and out.

:class:`GridFSBucket` has the methods of the GridFS specification, with PyMongo's names and arguments. :class:`GridFS`
has the methods that TxMongo has always had: ``put``, ``get``, ``get_last_version``, ``delete``. They store the same
files: one that is written is a :class:`GridIn`, one that is read a :class:`GridOut`.
"""

from __future__ import annotations

from txmongo._gridfs import errors, grid_file
from txmongo._gridfs.bucket import GridFSBucket
from txmongo._gridfs.errors import CorruptGridFile, FileExists, GridFSError, NoFile, UnsupportedAPI
from txmongo._gridfs.filesystem import GridFS
from txmongo._gridfs.finding import GridOutCursor
from txmongo._gridfs.grid_in import GridIn
from txmongo._gridfs.grid_out import GridOut, GridOutIterator

__all__ = [
    "CorruptGridFile",
    "FileExists",
    "GridFS",
    "GridFSBucket",
    "GridFSError",
    "GridIn",
    "GridOut",
    "GridOutCursor",
    "GridOutIterator",
    "NoFile",
    "UnsupportedAPI",
    "errors",
    "grid_file",
]
