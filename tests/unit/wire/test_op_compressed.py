"""Tests for :mod:`txmongo._wire.op_compressed`."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import bson
from hypothesis import given
from pymongo import compression_support
from pymongo import message as pymongo_message
from pymongo.errors import ProtocolError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.unit.wire import samples
from txmongo._wire import op_compressed
from txmongo._wire.decoder import decode_message
from txmongo._wire.op_compressed import (
    Noop,
    Snappy,
    Zlib,
    Zstd,
    compress,
    compress_command,
    compressor_named,
    decompress,
)
from txmongo._wire.op_msg import Msg, encode_command

MESSAGE = Msg(3, 4, bson.encode({"text": "abc" * 200})).encode()
CONTENT = MESSAGE[16:]
LIMIT = 100_000


def wrapped(compressor_id: int, content: bytes, size: int = len(CONTENT), opcode: int = 2013) -> bytes:
    """Return an OP_COMPRESSED made by hand, with the ids of ``MESSAGE``."""
    return struct.pack("<iiiiiiB", 25 + len(content), 3, 4, 2012, opcode, size, compressor_id) + content


class CompressorTests(SynchronousTestCase):
    """Every compressor, with stand-ins for the libraries that may not be installed."""

    def setUp(self) -> None:
        self.patch(op_compressed, "_snappy", samples.stand_in_snappy)
        self.patch(op_compressed, "_zstd", samples.stand_in_zstd)

    def test_layout(self) -> None:
        """The wrapping tells the original opcode, the size and the compressor, and keeps both ids."""
        self.assertEqual(compress(MESSAGE, Noop()), wrapped(0, CONTENT))
        self.assertEqual(compress(MESSAGE, Zlib(9)), wrapped(2, zlib.compress(CONTENT, 9)))

    def test_round_trip(self) -> None:
        """Whatever the compressor, the message comes out as it went in."""
        for compressor in (Noop(), Snappy(), Zlib(), Zstd()):
            frame = compress(MESSAGE, compressor)
            self.assertEqual(frame[24], compressor.compressor_id)
            self.assertEqual(decompress(frame, LIMIT), MESSAGE)

    @samples.brief
    @given(samples.messages)
    def test_any_message(self, message: Any) -> None:
        """Any message may be compressed, and decodes as if it had not been."""
        for compressor in (Noop(), Snappy(), Zlib(), Zstd()):
            self.assertEqual(decode_message(compress(message.encode(), compressor)), message)

    def test_commands(self) -> None:
        """The message of a command is compressed, unless the specification says that this command never is."""
        for name, readable in (("ping", False), ("hellos", False), ("h", False), ("hello", True), ("saslStart", True)):
            message = encode_command(3, bson.encode({name: "hello", "$db": "admin"}))
            self.assertEqual(compress_command(message, Zlib()), message if readable else compress(message, Zlib()))

    def test_names(self) -> None:
        """Compressors are found by the names of the handshake; the level is given to zlib."""
        self.assertEqual(compressor_named("noop"), Noop())
        self.assertEqual(compressor_named("snappy"), Snappy())
        self.assertEqual(compressor_named("zlib", 3), Zlib(3))
        self.assertEqual(compressor_named("zlib"), Zlib(-1))
        self.assertEqual(compressor_named("zstd", 3), Zstd())
        self.assertIsNone(compressor_named("lzma"))

    def test_library_missing(self) -> None:
        """Without its library a compressor is not offered, and a message compressed with it is a ProtocolError."""
        frames = [compress(MESSAGE, Snappy()), compress(MESSAGE, Zstd())]
        self.patch(op_compressed, "_snappy", None)
        self.patch(op_compressed, "_zstd", None)
        self.assertIsNone(compressor_named("snappy"))
        self.assertIsNone(compressor_named("zstd"))
        for frame, name in zip(frames, ("snappy", "zstd"), strict=True):
            error = self.assertRaises(ProtocolError, decompress, frame, LIMIT)
            self.assertIn(name, str(error))


class WrongMessageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(op_compressed, "_snappy", samples.stand_in_snappy)
        self.patch(op_compressed, "_zstd", samples.stand_in_zstd)

    def assert_refused(self, frame: bytes, max_message_size: int = LIMIT) -> None:
        self.assertRaises(ProtocolError, decompress, frame, max_message_size)

    def test_cut_off(self) -> None:
        """A message without all of its prefix is a ProtocolError."""
        frame = compress(MESSAGE, Zlib())
        for size in range(16, 25):
            self.assert_refused(frame[:size])

    def test_content_cut_off(self) -> None:
        """A message whose compressed part is cut off anywhere is a ProtocolError."""
        for compressor in (Noop(), Snappy(), Zlib(), Zstd()):
            frame = compress(MESSAGE, compressor)
            for size in range(25, len(frame)):
                self.assert_refused(frame[:size])

    def test_rubbish_behind(self) -> None:
        """Bytes behind the compressed part are a ProtocolError."""
        for compressor in (Noop(), Zlib(), Zstd()):
            self.assert_refused(compress(MESSAGE, compressor) + b"rubbish")

    def test_rubbish_instead(self) -> None:
        """What the compressor's library cannot read is a ProtocolError without its bytes in the text."""
        for compressor_id in range(4):
            error = self.assertRaises(ProtocolError, decompress, wrapped(compressor_id, b"rubbish"), LIMIT)
            self.assertNotIn("rubbish", str(error))

    def test_unknown_compressor(self) -> None:
        """A compressor that the specification does not name is a ProtocolError."""
        self.assert_refused(wrapped(4, CONTENT))
        self.assert_refused(wrapped(255, CONTENT))

    def test_original_opcode(self) -> None:
        """An original opcode that is unknown, or compressed once more, is a ProtocolError."""
        self.assert_refused(wrapped(0, CONTENT, opcode=99))
        self.assert_refused(wrapped(0, CONTENT, opcode=2012))

    def test_other_size_than_announced(self) -> None:
        """A message that does not hold exactly as much as it announces is a ProtocolError."""
        for compressor in (Noop(), Snappy(), Zlib(), Zstd()):
            content = compressor.compress(CONTENT)
            for size in (-1, 0, len(CONTENT) - 1, len(CONTENT) + 1, 2**31 - 1):
                self.assert_refused(wrapped(compressor.compressor_id, content, size))

    def test_ceiling(self) -> None:
        """The message inside may be as long as any other, header included, and not longer."""
        frame = compress(MESSAGE, Zlib())
        self.assertEqual(decompress(frame, len(MESSAGE)), MESSAGE)
        self.assert_refused(frame, len(MESSAGE) - 1)

    def test_bomb(self) -> None:
        """Of content that inflates to far more than it announces no more than that is ever inflated."""
        bomb = zlib.compress(bytes(16_000_000))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for compressor_id in (2, 3):
            for size in (1_000, 200_000_000):
                self.assert_refused(wrapped(compressor_id, bomb, size), 1_000_000)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1_000_000)

    def test_snappy_sizes(self) -> None:
        """A snappy block that announces another size, or none, is refused before the library sees it."""
        self.patch(op_compressed, "_snappy", object())
        for start in (
            b"",
            b"\x80",
            b"\xff\xff\xff\xff\xff\x01",
            samples.snappy_size(2**32 - 1),
            samples.snappy_size(1),
        ):
            error = self.assertRaises(ProtocolError, decompress, wrapped(1, start + b"x"), LIMIT)
            self.assertIn("snappy block", str(error))


class InstalledTests(SynchronousTestCase):
    """The real libraries and PyMongo's own use of them."""

    def check(self, name: str, context: Any) -> None:
        compressor = compressor_named(name)
        if compressor is None:
            raise SkipTest(f"no library for {name} is installed")
        for size in (0, 1, 1_000, 300_000):
            message = Msg(1, 0, bson.encode({"data": bytes(range(256)) * (size // 256)})).encode()
            request_id, theirs = pymongo_message._compress(2013, message[16:], context)
            self.assertEqual(decompress(theirs, 1_000_000)[16:], message[16:])
            ours = compress(Msg.from_wire(message).encode(request_id), compressor)
            self.assertEqual(ours, theirs)
            self.assertEqual(compress(Msg.from_wire(message).encode(request_id), context), theirs)
            for end in range(25, min(len(ours), 60)):
                self.assertRaises(ProtocolError, decompress, ours[:end], 1_000_000)

    def test_snappy(self) -> None:
        """Snappy gives and takes the same bytes as PyMongo."""
        self.check("snappy", compression_support.SnappyContext())

    def test_zlib(self) -> None:
        """zlib gives and takes the same bytes as PyMongo."""
        self.check("zlib", compression_support.ZlibContext(-1))

    def test_zstd(self) -> None:
        """Zstandard gives and takes the same bytes as PyMongo."""
        self.check("zstd", compression_support.ZstdContext())

    def test_zstd_bomb(self) -> None:
        """Zstandard inflates no more than a message announces, either."""
        if not Zstd.available():
            raise SkipTest("no library for zstd is installed")
        bomb = Zstd().compress(bytes(16_000_000))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertRaises(ProtocolError, decompress, wrapped(3, bomb, 1_000), LIMIT)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1_000_000)

    def test_snappy_rubbish(self) -> None:
        """What the snappy library refuses is a ProtocolError."""
        if not Snappy.available():
            raise SkipTest("no library for snappy is installed")
        content = samples.snappy_size(len(CONTENT)) + b"\xff" * 20
        self.assertRaises(ProtocolError, decompress, wrapped(1, content), LIMIT)
