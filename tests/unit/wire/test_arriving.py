"""Tests for :mod:`txmongo._wire.arriving`."""

from __future__ import annotations

import gc
import struct
from typing import Any

import bson
from bson.codec_options import CodecOptions, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.wire import samples
from txmongo._wire.arriving import ArrivingBatch
from txmongo._wire.decoder import Decoder, decode_message
from txmongo._wire.op_compressed import Zlib, compress
from txmongo._wire.op_msg import CHECKSUM_PRESENT, EXHAUST_ALLOWED, Msg

DEFAULT: CodecOptions[Any] = CodecOptions()


def batch(documents: list[Any], field: str = "firstBatch", **more: Any) -> dict[str, Any]:
    """The reply to a find or getMore."""
    return {"cursor": {field: documents, "id": 5, "ns": "db.c"}, "ok": 1.0, **more}


def documents_of(count: int, size: int = 300) -> list[dict[str, Any]]:
    """Some documents of about a size."""
    return [{"_id": number, "content": "x" * size} for number in range(count)]


def message_of(reply: dict[str, Any]) -> bytes:
    """A reply as it comes."""
    return Msg(1, 7, bson.encode(reply)).encode()


class Arrival:
    """A message that arrives in pieces.

    :ivar batch: what takes documents out of it, once it was looked at.
    :ivar most: the most bytes that there was room for at once.
    """

    def __init__(self, message: bytes, size: int = 100, room: int = 1000, options: CodecOptions[Any] = DEFAULT) -> None:
        self.batch: ArrivingBatch | None = None
        self.most = 0
        self._options = options
        self._decoder = Decoder(room=room)
        self._decoder.on_full = self._decode_ahead
        self._frames: list[Any] = []
        for start in range(0, len(message), size):
            self._frames += self._decoder.feed(message[start : start + size])
            self.most = max(self.most, len(self._decoder.buffer))

    def _decode_ahead(self) -> None:
        if self.batch is None:
            self.batch = ArrivingBatch.begin(self._decoder, self._options)
        if self.batch is not None:
            self.batch.take(self._decoder)

    @property
    def taken(self) -> int:
        """How many documents were taken out of the message."""
        return 0 if self.batch is None else len(self.batch.documents)

    def reply(self) -> Any:
        """The reply, put together."""
        [frame] = self._frames
        message = decode_message(frame)
        assert isinstance(message, Msg)
        document = message.to_dict(self._options)
        if self.batch is not None:
            self.batch.complete(document)
        return document


class BatchTests(SynchronousTestCase):
    """Documents are taken out while they arrive, and the reply is the same."""

    def test_taken(self) -> None:
        """Most documents are decoded before the message is complete, and there is never room for all of it."""
        for field in ("firstBatch", "nextBatch"):
            reply = batch(documents_of(150), field, operationTime=bson.Timestamp(1, 2))
            arrival = Arrival(message_of(reply))
            self.assertGreater(arrival.taken, 140)
            self.assertEqual(arrival.most, 1000)
            found = arrival.reply()
            self.assertEqual(found, reply)
            self.assertEqual(list(found), list(reply))

    def test_large_pieces(self) -> None:
        """Pieces that are larger than the room do no harm."""
        reply = batch(documents_of(150))
        arrival = Arrival(message_of(reply), size=7000)
        self.assertGreater(arrival.taken, 100)
        self.assertEqual(arrival.reply(), reply)

    def test_larger_than_the_room(self) -> None:
        """For a document that is larger than the room, more is made."""
        reply = batch(documents_of(5, 3000))
        arrival = Arrival(message_of(reply))
        self.assertGreater(arrival.taken, 2)
        self.assertLess(arrival.most, 8000)
        self.assertEqual(arrival.reply(), reply)

    def test_small_after_large(self) -> None:
        """It is the first document that is looked at; those after it may be of any size."""
        reply = batch([*documents_of(1, 300), *[{}] * 1200])
        arrival = Arrival(message_of(reply))
        self.assertGreater(arrival.taken, 1000)
        self.assertEqual(arrival.reply(), reply)

    def test_as_within_the_reply(self) -> None:
        """Documents are decoded as those within a reply are: by its codec options, and references to DBRefs."""
        reference = SON([("$ref", "c"), ("$id", 1), ("more", "x" * 300)])
        reply = batch([reference, *documents_of(10)], more=1)
        reply["cursor"]["firstBatch"][3]["when"] = DatetimeMS(5)
        options: CodecOptions[Any] = CodecOptions(tz_aware=True)
        arrival = Arrival(message_of(reply), options=options)
        self.assertGreater(arrival.taken, 5)
        self.assertEqual(arrival.reply(), bson.decode(bson.encode(reply), options))

    @samples.brief
    @given(
        st.lists(st.tuples(samples.dicts, st.sampled_from([0, 250, 700])), min_size=1, max_size=120),
        st.integers(1, 2000),
        st.integers(50, 1500),
        st.sampled_from(["firstBatch", "nextBatch"]),
    )
    def test_any_cut(self, parts: list[tuple[dict[str, Any], int]], size: int, room: int, field: str) -> None:
        """However a reply is cut, it is what decoding it as a whole gives."""
        documents = [{**document, "padding": "x" * padding} for document, padding in parts]
        message = message_of(batch(documents, field))
        arrival = Arrival(message, size, room)
        self.assertEqual(repr(arrival.reply()), repr(bson.decode(message[21:])))


class ElementTests(SynchronousTestCase):
    """Documents are stepped over by what looks like an element of the batch."""

    def test_within_a_document(self) -> None:
        """What looks like one within a document leads to no other result."""
        size = struct.pack("<i", 30)
        for number in (0, 5, 47, 999_999_998):
            noise = b"\0\x03%d\0%s%s\x03%d\0" % (number, size, b"x" * 26, number + 1)
            documents: list[dict[str, Any]] = [{**each, "noise": noise * 3} for each in documents_of(60)]
            documents[7]["within"] = [{"_id": each, "content": "y" * 5} for each in range(60)]
            reply = batch(documents)
            for room in (1000, 2000, 20_000):
                arrival = Arrival(message_of(reply), room=room)
                self.assertGreater(arrival.taken, 1)
                self.assertEqual(arrival.reply(), reply)

    def test_length_of_a_document(self) -> None:
        """A length that is wrong is found where decoding finds it."""
        message = bytearray(message_of(batch(documents_of(60))))
        at = message.index(b"\x0330\0") + 4
        for length in (0, 7, 2**31 - 1, -5):
            struct.pack_into("<i", message, at, length)
            whole = self.assertRaises(bson.errors.InvalidBSON, bson.decode, bytes(message[21:]))
            for room in (1000, 20_000):
                arrival = Arrival(bytes(message), room=room)
                self.assertEqual(str(self.assertRaises(bson.errors.InvalidBSON, arrival.reply)), str(whole))


class GarbageTests(SynchronousTestCase):
    """The collection of garbage waits while documents are decoded."""

    def setUp(self) -> None:
        self.addCleanup(gc.enable if gc.isenabled() else gc.disable)
        self.seen: list[bool] = []

        def decoded(document: Any) -> Any:
            self.seen.append(gc.isenabled())
            return document

        decode = bson.decode
        self.patch(bson, "decode", lambda *arguments: decoded(decode(*arguments)))

    def test_waits(self) -> None:
        """It is off meanwhile and on after that."""
        gc.enable()
        self.assertGreater(Arrival(message_of(batch(documents_of(20)))).taken, 10)
        self.assertEqual(set(self.seen), {False})
        self.assertTrue(gc.isenabled())

    def test_after_a_failure(self) -> None:
        """It is on again after documents that cannot be decoded."""
        gc.enable()
        message = message_of(batch(documents_of(20)))
        self.assertEqual(Arrival(message.replace(b"\x10_id\0", b"\x55_id\0")).taken, 0)
        self.assertTrue(gc.isenabled())

    def test_off(self) -> None:
        """Where the application has none it stays so."""
        gc.disable()
        self.assertGreater(Arrival(message_of(batch(documents_of(20)))).taken, 10)
        self.assertFalse(gc.isenabled())


class WholeTests(SynchronousTestCase):
    """What is not as servers send it is left whole."""

    def assertLeft(self, message: bytes, options: CodecOptions[Any] = DEFAULT) -> None:
        """Nothing is taken out of a message."""
        arrival = Arrival(message, options=options)
        self.assertIs(arrival.batch, None)
        whole = decode_message(message)
        assert isinstance(whole, Msg)
        self.assertEqual(arrival.reply(), whole.to_dict(options))

    def test_other_replies(self) -> None:
        """Other fields, or the same in another order."""
        documents = documents_of(20)
        self.assertLeft(message_of({"ok": 1.0, **batch(documents)}))
        self.assertLeft(message_of({"cursor": {"id": 5, "firstBatch": documents}, "ok": 1.0}))
        self.assertLeft(message_of({"cursor": documents, "ok": 1.0}))
        self.assertLeft(message_of({"values": documents, "ok": 1.0}))

    def test_other_documents(self) -> None:
        """A first element that is a small document, or none."""
        self.assertLeft(message_of(batch([{"_id": 1}, *documents_of(20)])))
        self.assertLeft(message_of(batch([5, *documents_of(20)])))
        self.assertLeft(message_of(batch([], more=documents_of(20))))

    def test_other_codec_options(self) -> None:
        """Documents of another class than dict, or with types of the application's."""
        message = message_of(batch(documents_of(20)))
        self.assertLeft(message, CodecOptions(document_class=SON))
        self.assertLeft(message, CodecOptions(document_class=RawBSONDocument))
        self.assertLeft(message, CodecOptions(type_registry=TypeRegistry(fallback_encoder=str)))

    def test_other_messages(self) -> None:
        """Flags, another section first, compression."""
        body = bson.encode(batch(documents_of(20)))
        self.assertLeft(Msg(1, 7, body, EXHAUST_ALLOWED).encode())
        self.assertLeft(Msg(1, 7, body, CHECKSUM_PRESENT | EXHAUST_ALLOWED).encode())
        noise = bson.encode(batch([{"content": bson.Binary(bytes(range(256)) * 30)}] * 9))
        self.assertLeft(compress(Msg(1, 7, noise).encode(), Zlib(1)))

    def test_lengths(self) -> None:
        """Lengths of which one does not fit into the other."""
        message = message_of(batch(documents_of(20)))
        for position in (21, 33, 49):
            right = struct.unpack_from("<i", message, position)[0]
            for wrong in (right + 100, -right, 2**31 - 1):
                arrival = Arrival(message[:position] + struct.pack("<i", wrong) + message[position + 4 :])
                self.assertIs(arrival.batch, None)

    def test_element_of_another_type(self) -> None:
        """Elements that are no documents are taken for what they are, ahead or with what is left."""
        documents = documents_of(30)
        reply = batch([*documents, None, *documents, 5.5, "x", *documents])
        for room in (1000, 3000):
            arrival = Arrival(message_of(reply), room=room)
            self.assertGreater(arrival.taken, 20)
            self.assertEqual(arrival.reply(), reply)

    def test_that_cannot_be_decoded(self) -> None:
        """The error of what cannot be decoded is that of the whole message; what comes before it was taken out."""
        message = bytearray(message_of(batch(documents_of(40, 300))))
        at = message.index(b"\x10_id\0" + struct.pack("<i", 30))
        message[at] = 0x55
        arrival = Arrival(bytes(message))
        self.assertGreater(arrival.taken, 20)
        self.assertLess(arrival.taken, 31)
        whole = self.assertRaises(bson.errors.InvalidBSON, bson.decode, bytes(message[21:]))
        self.assertEqual(str(self.assertRaises(bson.errors.InvalidBSON, arrival.reply)), str(whole))
