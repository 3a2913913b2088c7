"""Files in GridFS, under the path at which TxMongo has always had them."""

from __future__ import annotations

from txmongo._gridfs.errors import CorruptGridFile
from txmongo._gridfs.grid_in import GridIn
from txmongo._gridfs.grid_out import GridOut, GridOutIterator
from txmongo._gridfs.layout import DEFAULT_CHUNK_SIZE

__all__ = ["DEFAULT_CHUNK_SIZE", "CorruptGridFile", "GridIn", "GridOut", "GridOutIterator"]
