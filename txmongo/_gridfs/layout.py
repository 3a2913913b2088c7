"""How a file lies in its chunks: arithmetic on positions and numbers, and what is wrong with a chunk that was read.

Nothing here does I/O. Kept: the GridFS specification, "File download": every chunk is the one that was expected, and
as long as it must be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from txmongo._gridfs.errors import CorruptGridFile

__all__ = ["DEFAULT_CHUNK_SIZE", "Layout", "check_chunk_size", "chunks_of", "position_after_seek"]

#: 255 KiB: a chunk and what surrounds it stay below a power of two.
DEFAULT_CHUNK_SIZE = 255 * 1024

#: What a chunk's document takes in memory beside its data, in bytes.
_BESIDE_THE_DATA = 1024


def check_chunk_size(name: str, size: Any) -> int:
    """Refuse a chunk size that is none.

    :raises TypeError: it is not an int.
    :raises ValueError: it is less than one byte.
    """
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name} must be an int, not {type(size).__name__}")
    if size < 1:
        raise ValueError(f"{name} must be at least 1")
    return int(size)


def chunks_of(budget: int, chunk_size: int) -> int:
    """How many chunks, with what surrounds each, fit into so many bytes of memory; one at the least."""
    return max(1, budget // (chunk_size + _BESIDE_THE_DATA))


def position_after_seek(position: int, length: int, offset: int, whence: int) -> int:
    """Where a file is read from after ``seek(offset, whence)``.

    :param position: where it was read from before.
    :raises OSError: it would be before the start, or ``whence`` is not one of the three that there are.
    """
    start = {os.SEEK_SET: 0, os.SEEK_CUR: position, os.SEEK_END: length}.get(whence)
    if start is None:
        raise OSError(22, "whence must be os.SEEK_SET, os.SEEK_CUR or os.SEEK_END")
    if start + offset < 0:
        raise OSError(22, "pos: a file cannot be read from before its start")
    return start + offset


@attrs.frozen
class Layout:
    """A stored file as its document describes it.

    :ivar length: of the file, in bytes.
    :ivar chunk_size: of every chunk but the last, in bytes.
    """

    length: int
    chunk_size: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Layout:
        """What a document of the files collection says; the numbers may be of any numeric type.

        :raises CorruptGridFile: it does not say it.
        """
        try:
            length, chunk_size = int(document["length"]), int(document["chunkSize"])
        except (LookupError, TypeError, ValueError):
            raise CorruptGridFile("the file's document has no length or no chunkSize") from None
        if length < 0 or (length and chunk_size < 1):
            raise CorruptGridFile(f"the file's document is wrong: length {length}, chunkSize {chunk_size}")
        return cls(length, chunk_size)

    @property
    def chunks(self) -> int:
        """How many chunks the file has."""
        return -(-self.length // self.chunk_size) if self.length else 0

    def number_at(self, position: int) -> int:
        """The number of the chunk that holds the byte at ``position``."""
        return position // self.chunk_size

    def start_of(self, number: int) -> int:
        """The position of a chunk's first byte."""
        return number * self.chunk_size

    def size_of(self, number: int) -> int:
        """How long a chunk has to be."""
        return min(self.chunk_size, self.length - self.start_of(number))

    def data_of(self, number: int, document: Mapping[str, Any]) -> bytes:
        """The data of the document that came for a chunk.

        :raises CorruptGridFile: it is another chunk, or not as long as it must be.
        """
        found, data = document.get("n"), document.get("data")
        if found != number:
            raise CorruptGridFile(f"chunk {number} of {self.chunks} is missing: found chunk {found} in its place")
        if not isinstance(data, bytes):
            raise CorruptGridFile(f"chunk {number} holds no bytes")
        expected = self.size_of(number)
        if len(data) != expected:
            raise CorruptGridFile(f"chunk {number} has {len(data)} bytes instead of {expected}")
        return data

    def check_extra(self, document: Mapping[str, Any]) -> None:
        """Look at a chunk that came after the last one; empty ones do no harm.

        :raises CorruptGridFile: there is data in it.
        """
        if document.get("data"):
            raise CorruptGridFile(f"chunk {document.get('n')} follows the last of the {self.chunks} of the file")
