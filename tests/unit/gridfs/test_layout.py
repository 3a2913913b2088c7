"""How a file lies in its chunks."""

from __future__ import annotations

import os
from typing import Any

from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmongo._gridfs.errors import CorruptGridFile
from txmongo._gridfs.layout import Layout, check_chunk_size, chunks_of, position_after_seek


class LayoutTests(SynchronousTestCase):
    """Layout."""

    def test_of(self) -> None:
        """Length and chunk size are read whatever numeric type they were stored as."""
        self.assertEqual(Layout.of({"length": Int64(10), "chunkSize": 4.0}), Layout(10, 4))

    def test_of_wrong(self) -> None:
        """A document without them, or with numbers that cannot be, is a corrupt file."""
        wrong: list[dict[str, Any]] = [
            {},
            {"length": 1},
            {"chunkSize": 1},
            {"length": "many", "chunkSize": 1},
            {"length": None, "chunkSize": 1},
            {"length": -1, "chunkSize": 1},
            {"length": 1, "chunkSize": 0},
        ]
        for document in wrong:
            self.assertRaises(CorruptGridFile, Layout.of, document)

    def test_empty(self) -> None:
        """A file without content has no chunks, whatever their size would be."""
        self.assertEqual(Layout(0, 0).chunks, 0)

    @given(st.integers(1, 10_000), st.integers(1, 300))
    def test_whole(self, length: int, chunk_size: int) -> None:
        """The chunks follow one another without a gap, and each byte is in the one that is said to hold it."""
        layout = Layout(length, chunk_size)
        position = 0
        for number in range(layout.chunks):
            self.assertEqual(layout.start_of(number), position)
            self.assertEqual(layout.number_at(position), number)
            position += layout.size_of(number)
            self.assertEqual(layout.number_at(position - 1), number)
        self.assertEqual(position, length)

    def test_data_of(self) -> None:
        """A chunk with the right number and length gives its data."""
        layout = Layout(10, 4)
        self.assertEqual(layout.data_of(2, {"n": 2.0, "data": b"89"}), b"89")

    def test_data_of_wrong(self) -> None:
        """A chunk with another number, another length or no bytes is a corrupt file, and the error says which."""
        layout = Layout(10, 4)
        for document, words in (
            ({"n": 2, "data": b"89"}, "chunk 1 of 3 is missing: found chunk 2"),
            ({"n": 1, "data": b"456"}, "chunk 1 has 3 bytes instead of 4"),
            ({"n": 1, "data": "4567"}, "chunk 1 holds no bytes"),
            ({}, "chunk 1 of 3 is missing"),
        ):
            error = self.assertRaises(CorruptGridFile, layout.data_of, 1, document)
            self.assertIn(words, str(error))

    def test_check_extra(self) -> None:
        """A chunk after the last one is a corrupt file if there is data in it."""
        layout = Layout(10, 4)
        layout.check_extra({"n": 3, "data": b""})
        error = self.assertRaises(CorruptGridFile, layout.check_extra, {"n": 3, "data": b"x"})
        self.assertEqual(str(error), "chunk 3 follows the last of the 3 of the file")


class ArithmeticTests(SynchronousTestCase):
    """The functions beside it."""

    def test_check_chunk_size(self) -> None:
        """A chunk has at least one byte."""
        self.assertEqual(check_chunk_size("size", 1), 1)
        self.assertRaises(ValueError, check_chunk_size, "size", 0)
        for wrong in (True, 1.0, "1", None):
            error = self.assertRaises(TypeError, check_chunk_size, "size", wrong)
            self.assertIn("size must be an int", str(error))

    def test_chunks_of(self) -> None:
        """At least one chunk is taken however large it is, and small ones count with what surrounds them."""
        self.assertEqual(chunks_of(1024 * 1024, 255 * 1024), 4)
        self.assertEqual(chunks_of(1024 * 1024, 16 * 1024 * 1024), 1)
        self.assertLess(chunks_of(1024 * 1024, 1), 1024)

    def test_seek(self) -> None:
        """A position is relative to the start, to the current position, or to the end."""
        self.assertEqual(position_after_seek(3, 10, 5, os.SEEK_SET), 5)
        self.assertEqual(position_after_seek(3, 10, -2, os.SEEK_CUR), 1)
        self.assertEqual(position_after_seek(3, 10, -2, os.SEEK_END), 8)
        self.assertEqual(position_after_seek(3, 10, 100, os.SEEK_SET), 100)

    def test_seek_wrong(self) -> None:
        """A position before the start is refused, and so is a fourth way to count."""
        self.assertRaises(OSError, position_after_seek, 3, 10, -1, os.SEEK_SET)
        self.assertRaises(OSError, position_after_seek, 3, 10, -4, os.SEEK_CUR)
        self.assertRaises(OSError, position_after_seek, 3, 10, -11, os.SEEK_END)
        self.assertRaises(OSError, position_after_seek, 3, 10, 0, 3)
