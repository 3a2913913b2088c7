"""Tests for :mod:`txmongo._wire.decoder`."""

from __future__ import annotations

import contextlib
import struct
import time
from typing import Any

import bson
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import ProtocolError
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.wire import samples
from txmongo._wire import checksum as checksum_module
from txmongo._wire import op_compressed
from txmongo._wire.decoder import Decoder, Frame, decode_message
from txmongo._wire.op_compressed import Noop, Snappy, Zlib, Zstd, compress
from txmongo._wire.op_legacy import Query, Reply
from txmongo._wire.op_msg import CHECKSUM_PRESENT, Msg, single_body

ONE = Msg(1, 0, bson.encode({"ping": 1})).encode()
TWO = Query(2, 0, collection="admin.$cmd").encode()
GARBAGE = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def feed_all(decoder: Decoder, pieces: list[bytes]) -> tuple[list[Frame], bool]:
    """Feed ``pieces``; return all messages that came and whether the stream was refused."""
    frames: list[Frame] = []
    for piece in pieces:
        try:
            frames += decoder.feed(piece)
        except ProtocolError:
            return frames + decoder.before_error, True
    return frames, False


class CutTests(SynchronousTestCase):
    def test_whole_message(self) -> None:
        """A message that comes in one piece is handed on without a copy."""
        self.assertIs(Decoder().feed(ONE)[0], ONE)

    def test_several_messages(self) -> None:
        """Messages that come together are told apart."""
        self.assertEqual(Decoder().feed(ONE + TWO + ONE), [ONE, TWO, ONE])

    def test_nothing(self) -> None:
        """No bytes give no messages, before, in and after a message."""
        decoder = Decoder()
        self.assertEqual(decoder.feed(b""), [])
        decoder.feed(ONE[:7])
        self.assertEqual(decoder.feed(b""), [])
        self.assertEqual(decoder.feed(ONE[7:]), [ONE])
        self.assertEqual(decoder.feed(b""), [])

    def test_byte_by_byte(self) -> None:
        """A message comes out with its last byte."""
        decoder = Decoder()
        for message in (ONE, TWO):
            for offset in range(len(message) - 1):
                self.assertEqual(decoder.feed(message[offset : offset + 1]), [])
            self.assertEqual(decoder.feed(message[-1:]), [message])

    def test_message_of_a_header_only(self) -> None:
        """The shortest possible message is a header; the decoder does not wait for more."""
        header = struct.pack("<iiii", 16, 1, 0, 2013)
        self.assertEqual(Decoder().feed(header), [header])
        decoder = Decoder()
        self.assertEqual(decoder.feed(header[:5]), [])
        self.assertEqual(decoder.feed(header[5:] + ONE[:20]), [header])
        self.assertEqual(decoder.feed(ONE[20:]), [ONE])

    def test_pending(self) -> None:
        """What of a message is there so far can be seen."""
        decoder = Decoder()
        self.assertEqual(decoder.pending, b"")
        decoder.feed(ONE + TWO[:20])
        self.assertEqual(decoder.pending, TWO[:20])
        decoder.feed(TWO[20:])
        self.assertEqual(decoder.pending, b"")

    @samples.brief
    @given(st.lists(samples.messages, max_size=5), st.lists(st.integers(0, 10_000), max_size=12))
    def test_any_cut(self, messages: list[Any], cuts: list[int]) -> None:
        """However the stream is cut, the same messages come out."""
        encoded = [message.encode() for message in messages]
        frames, refused = feed_all(Decoder(), samples.pieces_of(b"".join(encoded), cuts))
        self.assertEqual(frames, encoded)
        self.assertFalse(refused)
        self.assertEqual([decode_message(frame) for frame in frames], messages)

    def test_linear(self) -> None:
        """A large message in small pieces costs time in proportion to its bytes, not to their square."""
        message = Msg(1, 0, bson.encode({"data": bytes(16_000_000)})).encode()
        decoder = Decoder()
        started = time.process_time()
        pieces = samples.pieces_of(message, list(range(0, len(message), 4096)))
        frames, _ = feed_all(decoder, pieces)
        # In proportion it is some 0.05 s; copying what is there for each piece would be 32 GB, many seconds.
        self.assertLess(time.process_time() - started, 2)
        self.assertTrue(frames == [message])


class LargeTests(SynchronousTestCase):
    """Messages that are too large to be copied once more than need be."""

    LARGE = Msg(1, 0, bson.encode({"data": b"x" * 100_000, "end": 1})).encode()

    def test_in_pieces(self) -> None:
        """A large message that comes in pieces is whole, whatever comes before and after it in the same pieces."""
        stream = ONE + self.LARGE + TWO + self.LARGE[:50]
        for size in (7, 1000, 65_536, 100_100):
            decoder = Decoder()
            frames = [frame for at in range(0, len(stream), size) for frame in decoder.feed(stream[at : at + size])]
            self.assertEqual(frames, [ONE, self.LARGE, TWO])
            self.assertEqual(decoder.pending, self.LARGE[:50])
            self.assertEqual(decode_message(frames[1]), decode_message(self.LARGE))

    def test_impossible_after_a_piece(self) -> None:
        """A header that turns out impossible once it is complete is refused, and nothing of it is kept."""
        decoder = Decoder()
        decoder.feed(GARBAGE[:9])
        self.assertEqual(decoder.pending, GARBAGE[:9])
        self.assertRaises(ProtocolError, decoder.feed, GARBAGE[9:])
        self.assertEqual(decoder.pending, b"")


class RoomTests(SynchronousTestCase):
    """Room for a large message is made as it comes, and parts of it can be taken out."""

    MESSAGE = Msg(1, 0, bson.encode({"data": bytes(range(256)) * 400})).encode()

    def test_grows(self) -> None:
        """Room is made for the first part, and twice as much each time that it is full, up to the message's length."""
        decoder = Decoder(room=1000)
        rooms = []
        for at in range(0, len(self.MESSAGE), 100):
            frames = decoder.feed(self.MESSAGE[at : at + 100])
            rooms.append(len(decoder.buffer))
        self.assertEqual(frames, [self.MESSAGE])
        sizes = [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, len(self.MESSAGE), 0]
        self.assertEqual(list(dict.fromkeys(rooms)), sizes)

    def test_larger_piece(self) -> None:
        """A first piece that is larger than the room has room."""
        decoder = Decoder(room=1000)
        self.assertEqual(decoder.feed(self.MESSAGE[:5000]), [])
        self.assertEqual((len(decoder.buffer), decoder.filled, decoder.length), (5000, 5000, len(self.MESSAGE)))
        self.assertEqual(decoder.feed(self.MESSAGE[5000:]), [self.MESSAGE])

    def test_take_out(self) -> None:
        """What is taken out is missing, the header says so, and the room is used again."""
        decoder = Decoder(room=1000)
        taken = bytearray()

        def take_out() -> None:
            self.assertEqual(decoder.filled, 1000)
            taken.extend(decoder.buffer[100:950])
            decoder.take_out(100, 950)
            self.assertEqual(decoder.filled, 150)

        decoder.on_full = take_out
        stream = ONE + self.MESSAGE + TWO
        frames = [frame for at in range(0, len(stream), 90) for frame in decoder.feed(stream[at : at + 90])]
        self.assertEqual((frames[0], frames[2]), (ONE, TWO))
        [length] = struct.unpack_from("<i", frames[1])
        self.assertEqual(length, len(frames[1]))
        self.assertEqual(frames[1][4:100] + taken + frames[1][100:], self.MESSAGE[4:])
        self.assertLess(length, 1000)

    def test_nothing_taken_out(self) -> None:
        """Who is asked for room and takes nothing out does no harm."""
        decoder = Decoder(room=1000)
        asked = []
        decoder.on_full = lambda: asked.append(decoder.filled)
        self.assertEqual(decoder.feed(self.MESSAGE[:500]), [])
        self.assertEqual(decoder.feed(self.MESSAGE[500:]), [self.MESSAGE])
        self.assertEqual(asked, [1000 << step for step in range(7)])


class WrittenTests(SynchronousTestCase):
    """Bytes that are written where they belong, without being fed."""

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=30), st.integers(1, 500))
    def test_any_mixture(self, steps: list[tuple[bool, int]], end: int) -> None:
        """Whatever part is written and whatever part fed, the message is the same."""
        message = Msg(1, 0, bson.encode({"content": bytes(range(256)) * 40})).encode()
        decoder, position = Decoder(room=512), 16
        decoder.feed(message[:position])
        for written, size in steps:
            if written:
                with decoder.room_before(end) as room:
                    part = message[position : position + min(size, len(room))]
                    room[: len(part)] = part
                decoder.written(len(part))
            else:
                part = message[position : min(position + size, len(message) - 1)]
                self.assertEqual(decoder.feed(part), [])
            position += len(part)
            self.assertEqual(decoder.missing, len(message) - position)
        self.assertEqual(decoder.feed(message[position:] + ONE), [message, ONE])

    def test_full(self) -> None:
        """It is told whether there was no more room."""
        decoder, calls = Decoder(room=100), list[int]()
        decoder.on_full = lambda: calls.append(decoder.filled)
        decoder.feed(Msg(1, 0, bson.encode({"content": bytes(1000)})).encode()[:20])
        self.assertFalse(decoder.written(79))
        self.assertTrue(decoder.written(1))
        self.assertEqual(calls, [100])


class RefusalTests(SynchronousTestCase):
    def test_length(self) -> None:
        """A length below a header or above the ceiling is refused as soon as the header is there."""
        for length in (-(2**31), -1, 0, 15, 1_001, 2**31 - 1):
            header = struct.pack("<iiii", length, 1, 0, 2013)
            self.assertRaises(ProtocolError, Decoder(1_000).feed, header)
            decoder = Decoder(1_000)
            decoder.feed(header[:15])
            self.assertRaises(ProtocolError, decoder.feed, header[15:])

    def test_ceiling(self) -> None:
        """A message as long as the ceiling is taken, one byte more is not; the ceiling may be moved."""
        decoder = Decoder(len(ONE))
        self.assertEqual(decoder.feed(ONE), [ONE])
        decoder.max_message_size -= 1
        self.assertRaises(ProtocolError, decoder.feed, ONE)

    def test_opcode(self) -> None:
        """A message of an unknown opcode is refused."""
        self.assertRaises(ProtocolError, Decoder().feed, struct.pack("<iiii", 16, 1, 0, 2010))

    def test_other_protocol(self) -> None:
        """What is not MongoDB at all is refused with its first bytes."""
        self.assertRaises(ProtocolError, Decoder().feed, GARBAGE)

    def test_refuses_for_ever(self) -> None:
        """After an impossible header even a correct message is refused, for the same reason, and nothing is kept."""
        decoder = Decoder()
        first = self.assertRaises(ProtocolError, decoder.feed, GARBAGE)
        self.assertIs(self.assertRaises(ProtocolError, decoder.feed, ONE), first)
        self.assertEqual(decoder.pending, b"")

    def test_before_error(self) -> None:
        """The whole messages that came in the same data before the impossible header are not lost."""
        decoder = Decoder()
        decoder.feed(ONE[:30])
        self.assertRaises(ProtocolError, decoder.feed, ONE[30:] + TWO + GARBAGE)
        self.assertEqual(decoder.before_error, [ONE, TWO])

    @samples.brief
    @given(st.lists(samples.messages, max_size=4), st.lists(st.integers(0, 10_000), max_size=12))
    def test_any_cut_before_garbage(self, messages: list[Any], cuts: list[int]) -> None:
        """However a stream that ends in garbage is cut, the same messages come out before it is refused."""
        encoded = [message.encode() for message in messages]
        pieces = samples.pieces_of(b"".join(encoded) + GARBAGE, cuts)
        self.assertEqual(feed_all(Decoder(), pieces), (encoded, True))


class CorruptionTests(SynchronousTestCase):
    """Whatever the bytes, there is a message or a ProtocolError: trial fails on any other exception."""

    def setUp(self) -> None:
        self.patch(op_compressed, "_snappy", samples.stand_in_snappy)
        self.patch(op_compressed, "_zstd", samples.stand_in_zstd)
        self.patch(checksum_module, "_extend", samples.crc32c)

    def take(self, data: bytes) -> None:
        """Feed ``data`` and take apart what comes of it."""
        for frame in feed_all(Decoder(), [data])[0]:
            self.assertIsInstance(single_body(frame), bytes | None)
            with contextlib.suppress(ProtocolError):
                decode_message(frame)

    @samples.brief
    @given(
        samples.messages,
        st.sampled_from([None, Noop(), Snappy(), Zlib(), Zstd()]),
        st.integers(0, 10_000),
        st.integers(1, 255),
        st.booleans(),
    )
    def test_one_byte(self, message: Any, compressor: Any, offset: int, change: int, checked: bool) -> None:
        """A message with one corrupt byte is a message or a ProtocolError."""
        if checked and isinstance(message, Msg):
            message.flag_bits |= CHECKSUM_PRESENT
        encoded = message.encode()
        data = bytearray(encoded if compressor is None else compress(encoded, compressor))
        data[offset % len(data)] ^= change
        self.take(bytes(data))
        self.take(bytes(data) + ONE)

    @samples.brief
    @given(samples.messages, st.lists(st.tuples(st.integers(16, 10_000), st.integers(0, 255)), max_size=6))
    def test_several_bytes(self, message: Any, changes: list[tuple[int, int]]) -> None:
        """A message with several corrupt bytes behind its header is a message or a ProtocolError."""
        data = bytearray(message.encode())
        for offset, value in changes:
            data[16 + offset % (len(data) - 16)] = value
        self.take(bytes(data))

    @samples.brief
    @given(st.sampled_from([1, 2001, 2002, 2004, 2005, 2006, 2007, 2012, 2013]), st.binary(max_size=200))
    def test_any_content(self, opcode: int, content: bytes) -> None:
        """A correct header with anything behind it is a message or a ProtocolError."""
        self.take(struct.pack("<iiii", 16 + len(content), 1, 0, opcode) + content)

    @samples.brief
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
    def test_anything(self, data: bytes, cuts: list[int]) -> None:
        """Anything at all is messages, a ProtocolError, or the beginning of a message."""
        feed_all(Decoder(), samples.pieces_of(data, cuts))

    def test_every_byte_of_a_checked_message(self) -> None:
        """With a checksum no corrupt byte of the sections gets through, whatever it has become."""
        message = Msg(1, 2, bson.encode({"a": "text"}), CHECKSUM_PRESENT, {"b": [bson.encode({})]}).encode()
        for offset in range(20, len(message)):
            for change in (0x01, 0x02, 0x10, 0x80, 0xFF):
                corrupt = bytearray(message)
                corrupt[offset] ^= change
                self.assertRaises(ProtocolError, decode_message, bytes(corrupt))


class DecodeMessageTests(SynchronousTestCase):
    def test_kind(self) -> None:
        """The opcode decides what a message becomes."""
        self.assertIsInstance(decode_message(ONE), Msg)
        self.assertIsInstance(decode_message(TWO), Query)
        self.assertIsInstance(decode_message(Reply().encode()), Reply)

    def test_compressed(self) -> None:
        """A compressed message becomes what is in it."""
        self.assertEqual(decode_message(compress(TWO, Zlib())), decode_message(TWO))

    def test_wrong_length(self) -> None:
        """A message that is not as long as its header says, or shorter than one, is a ProtocolError."""
        for message in (b"", ONE[:15], ONE[:-1], ONE + b"\0"):
            self.assertRaises(ProtocolError, decode_message, message)

    def test_ceiling(self) -> None:
        """A message above the ceiling is a ProtocolError, also if it is so only once it is inflated."""
        self.assertEqual(decode_message(ONE, len(ONE)), decode_message(ONE))
        self.assertRaises(ProtocolError, decode_message, ONE, len(ONE) - 1)
        large = Msg(1, 0, bson.encode({"data": bytes(50_000)})).encode()
        compressed = compress(large, Zlib())
        self.assertEqual(decode_message(compressed, len(large)), decode_message(large))
        self.assertRaises(ProtocolError, decode_message, compressed, len(large) - 1)
