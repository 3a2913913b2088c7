"""GridFS: files of any size in two collections.

:mod:`txmongo.gridfs` is the public way in; the names that TxMongo 15.2 documents here stay reachable here.
"""

from __future__ import annotations

from txmongo._gridfs import errors, grid_file
from txmongo._gridfs.errors import NoFile
from txmongo._gridfs.filesystem import GridFS
from txmongo._gridfs.grid_file import GridIn, GridOut, GridOutIterator

__all__ = ["GridFS", "GridIn", "GridOut", "GridOutIterator", "NoFile", "errors", "grid_file"]
