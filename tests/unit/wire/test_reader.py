"""Tests for :mod:`txmongo._wire.reader`."""

from __future__ import annotations

import bson
from pymongo.errors import ProtocolError
from twisted.trial.unittest import SynchronousTestCase

from txmongo._wire.reader import Reader, to_cstring


class ReaderTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        """Numbers are read one after another, the least significant byte first."""
        reader = Reader(b"\x07\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0\0\0\0\x80")
        self.assertEqual(reader.byte(), 7)
        self.assertEqual(reader.int32(), -1)
        self.assertEqual(reader.uint32(), 2**32 - 1)
        self.assertEqual(reader.int64(), 1 - 2**63)
        self.assertEqual(reader.remaining, 0)
        reader.finish()

    def test_numbers_cut_off(self) -> None:
        """A number whose bytes are not all there is a ProtocolError."""
        for read in (Reader.byte, Reader.int32, Reader.uint32, Reader.int64, Reader.document):
            self.assertRaises(ProtocolError, read, Reader(b""))
        for read in (Reader.int32, Reader.uint32, Reader.int64, Reader.document):
            self.assertRaises(ProtocolError, read, Reader(b"\x05\0\0"))

    def test_cstring(self) -> None:
        """A name ends at its zero and is UTF-8; an empty one is a name."""
        reader = Reader(to_cstring("dätabase.c") + b"\0rest")
        self.assertEqual(reader.cstring(), "dätabase.c")
        self.assertEqual(reader.cstring(), "")
        self.assertEqual(reader.remaining, 4)

    def test_wrong_cstring(self) -> None:
        """A name without its zero, or that is not UTF-8, is a ProtocolError."""
        self.assertRaises(ProtocolError, Reader(b"name").cstring)
        self.assertRaises(ProtocolError, Reader(b"name\0", 0, 4).cstring)
        self.assertRaises(ProtocolError, Reader(b"\xff\xfe\0").cstring)

    def test_to_cstring_refuses_a_zero(self) -> None:
        """A name with a zero inside cannot be encoded."""
        self.assertRaises(ValueError, to_cstring, "a\0b")

    def test_documents(self) -> None:
        """Documents are read up to the end, as they stand."""
        one, two = bson.encode({"a": 1}), bson.encode({})
        self.assertEqual(Reader(one + two).documents(), [one, two])
        self.assertEqual(Reader(b"").documents(), [])

    def test_wrong_document(self) -> None:
        """A document that is too short, that runs past the end, or without its closing zero, is a ProtocolError."""
        for data in (b"\x04\0\0\0", b"\xff\xff\xff\xff\0", b"\x06\0\0\0\0", b"\x05\0\0\0\x01"):
            self.assertRaises(ProtocolError, Reader(data).document)

    def test_part(self) -> None:
        """A part ends where it was told to, whatever comes after it."""
        reader = Reader(b"\x01\x02\x03\x04\x05")
        part = reader.part(2)
        self.assertEqual([part.byte(), part.byte()], [1, 2])
        self.assertRaises(ProtocolError, part.byte)
        self.assertEqual(reader.byte(), 3)
        self.assertRaises(ProtocolError, reader.part, 3)

    def test_finish_with_something_left(self) -> None:
        """Bytes that nothing has read are a ProtocolError that counts them."""
        error = self.assertRaises(ProtocolError, Reader(b"12").finish)
        self.assertIn("2 bytes", str(error))
