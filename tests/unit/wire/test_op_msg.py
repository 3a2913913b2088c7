"""Tests for :mod:`txmongo._wire.op_msg`."""

from __future__ import annotations

import struct
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st
from pymongo import message as pymongo_message
from pymongo.errors import ProtocolError
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.wire import samples
from txmongo._wire import checksum as checksum_module
from txmongo._wire.decoder import decode_message
from txmongo._wire.op_msg import (
    CHECKSUM_PRESENT,
    EXHAUST_ALLOWED,
    MORE_TO_COME,
    Msg,
    encode_command,
    single_body,
)

PING = bson.encode({"ping": 1})


def frame(flag_bits: int, *sections: bytes) -> bytes:
    """Return an OP_MSG of ready-made sections, with request id 1."""
    content = b"".join((struct.pack("<I", flag_bits), *sections))
    return struct.pack("<iiii", 16 + len(content), 1, 0, 2013) + content


def body_section(document: bytes = PING) -> bytes:
    return b"\0" + document


def sequence_section(name: bytes, *documents: bytes) -> bytes:
    content = name + b"".join(documents)
    return b"\x01" + struct.pack("<i", 4 + len(content)) + content


def with_checksum(message: bytes) -> bytes:
    """Return ``message``, whose header counts the checksum already, with its checksum."""
    return message + struct.pack("<I", samples.crc32c(0, message))


class GoldenTests(SynchronousTestCase):
    """The same bytes as PyMongo's own encoder, and bytes that its decoder understands."""

    def test_command(self) -> None:
        """A command is encoded as PyMongo encodes it, in both ways of encoding."""
        command = {"find": "c", "filter": {"_id": 1}, "limit": 1}
        request_id, expected, *_ = pymongo_message._op_msg(0, command, "d", None, DEFAULT_CODEC_OPTIONS)
        msg = Msg.create({**command, "$db": "d"})
        self.assertEqual(msg.encode(request_id), expected)
        self.assertEqual(encode_command(request_id, msg.body), expected)

    def test_unacknowledged_insert(self) -> None:
        """An insert with its documents in a section of their own is encoded as PyMongo encodes it."""
        documents = [{"_id": 1, "a": "x"}, {"_id": 2, "b": b"y"}]
        command = {"insert": "c", "ordered": False, "writeConcern": {"w": 0}}
        request_id, expected, *_ = pymongo_message._op_msg(
            MORE_TO_COME, {**command, "documents": documents}, "d", None, DEFAULT_CODEC_OPTIONS
        )
        msg = Msg.create({**command, "$db": "d"}, {"documents": documents}, acknowledged=False)
        self.assertEqual(msg.encode(request_id), expected)

    @samples.brief
    @given(
        st.sampled_from([0, MORE_TO_COME, EXHAUST_ALLOWED]),
        samples.dicts,
        st.lists(samples.dicts, min_size=1, max_size=3),
    )
    def test_any_command(self, flag_bits: int, arguments: dict[str, Any], documents: list[dict[str, Any]]) -> None:
        """Any update command is encoded as PyMongo encodes it."""
        command = {"update": "c", **arguments}
        request_id, expected, *_ = pymongo_message._op_msg(
            flag_bits, {**command, "updates": documents}, "d", None, DEFAULT_CODEC_OPTIONS
        )
        command.pop("updates", None)
        msg = Msg.create({**command, "$db": "d"}, {"updates": documents})
        msg.flag_bits = flag_bits
        self.assertEqual(msg.encode(request_id), expected)

    @samples.brief
    @given(samples.documents)
    def test_reply(self, document: bytes) -> None:
        """PyMongo's decoder finds the document of a reply."""
        reply = Msg(3, 7, document).encode()
        self.assertEqual(pymongo_message._OpMsg.unpack(reply[16:]).payload_document, document)


class ValueTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """A message made of nothing is an empty document with no flags."""
        msg = Msg()
        self.assertEqual((msg.request_id, msg.response_to, msg.flag_bits, msg.payload), (0, 0, 0, {}))
        self.assertEqual(bson.decode(msg.body), {})
        self.assertIsNone(msg.user_fields)
        self.assertIsNone(msg.wire)
        self.assertEqual(msg.opcode, 2013)

    def test_payload_is_not_shared(self) -> None:
        """Two messages made without payload do not share one."""
        self.assertIsNot(Msg().payload, Msg().payload)

    def test_flags(self) -> None:
        """An unacknowledged request and a reply with more to come carry the same flag."""
        msg = Msg.create({"insert": "c"}, acknowledged=False, request_id=4, response_to=5)
        self.assertFalse(msg.acknowledged)
        self.assertTrue(msg.more_to_come)
        self.assertEqual((msg.request_id, msg.response_to), (4, 5))
        self.assertTrue(Msg().acknowledged)
        self.assertFalse(Msg().more_to_come)

    def test_codec_options(self) -> None:
        """Documents are encoded and decoded by the options given."""
        options = CodecOptions(document_class=bson.SON)
        document = Msg.create({"a": 1}, {"b": [{"c": 2}]}, codec_options=options).to_dict(options)
        self.assertIs(type(document), bson.SON)
        self.assertIs(type(document["b"][0]), bson.SON)

    def test_to_dict_in_an_unchangeable_class(self) -> None:
        """Sequences are joined with the body for a document class that cannot be changed, too."""
        document = Msg.create({"a": 1}, {"b": [{"c": 2}]}).to_dict(CodecOptions(document_class=RawBSONDocument))
        self.assertEqual(bson.decode(document.raw), {"a": 1, "b": [{"c": 2}]})

    def test_to_dict_without_payload(self) -> None:
        """A message without sequences is its body."""
        self.assertEqual(Msg.create({"ping": 1}).to_dict(), {"ping": 1})

    @samples.brief
    @given(samples.dicts, st.lists(samples.dicts, max_size=3), st.lists(samples.dicts, max_size=3))
    def test_to_dict(self, body: dict[str, Any], one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
        """Each sequence is an array of the document, under its name and after the body."""
        body = {name: value for name, value in body.items() if name not in ("one", "two")}
        msg = Msg.create(body, {"one": one, "two": two})
        self.assertEqual(list(msg.to_dict().items()), [*body.items(), ("one", one), ("two", two)])

    def test_repr_shows_no_document(self) -> None:
        """A message in a log shows its ids and sizes, and nothing of what the documents hold."""
        shown = repr(Msg.create({"saslStart": 1, "payload": "secret"}, {"documents": [{"secret": 1}]}, request_id=9))
        self.assertNotIn("secret", shown)
        self.assertNotIn("sasl", shown)
        self.assertIn("request_id=9", shown)
        self.assertIn("'documents': <1 documents>", shown)

    @samples.brief
    @given(samples.msgs)
    def test_round_trip(self, msg: Msg) -> None:
        """A message decodes to itself, and its size is known before it is encoded."""
        encoded = msg.encode()
        self.assertEqual(len(encoded), msg.size_in_bytes())
        self.assertEqual(decode_message(encoded), msg)

    def test_other_request_id(self) -> None:
        """The request id given to ``encode`` goes before the message's own."""
        decoded = decode_message(Msg(1, 2, PING).encode(77))
        self.assertEqual((decoded.request_id, decoded.response_to), (77, 2))

    def test_name_with_a_zero(self) -> None:
        """A sequence whose name has a zero inside is refused."""
        self.assertRaises(ValueError, Msg(payload={"a\0b": []}).encode)


class WireTests(SynchronousTestCase):
    """A message that something else has encoded."""

    def setUp(self) -> None:
        self.original = Msg.create({"insert": "c"}, {"documents": [{"a": 1}]}, acknowledged=False, request_id=5)
        self.wire = self.original.encode()
        self.msg = Msg.from_wire(self.wire)

    def test_sent_as_it_is(self) -> None:
        """Under its own request id the ready-made message is sent without a copy."""
        self.assertIs(self.msg.encode(5), self.wire)
        self.assertIs(self.msg.encode(), self.wire)

    def test_other_request_id(self) -> None:
        """Under another request id only the request id is different."""
        self.assertEqual(self.msg.encode(6), self.original.encode(6))

    def test_what_is_known_of_it(self) -> None:
        """Its ids, its flags, its size and its document are those of the message that was encoded."""
        self.assertEqual((self.msg.request_id, self.msg.response_to), (5, 0))
        self.assertFalse(self.msg.acknowledged)
        self.assertEqual(self.msg.size_in_bytes(), len(self.wire))
        self.assertEqual(self.msg.to_dict(), {"insert": "c", "documents": [{"a": 1}]})


class SectionTests(SynchronousTestCase):
    def test_body_after_sequence(self) -> None:
        """Sections come in any order."""
        message = decode_message(
            frame(0, sequence_section(b"a\0", PING, PING), body_section(), sequence_section(b"b\0"))
        )
        self.assertEqual(message, Msg(1, 0, PING, 0, {"a": [PING, PING], "b": []}))

    def test_wrong_sections(self) -> None:
        """Sections that are missing, doubled, unknown, cut off or too long are a ProtocolError."""
        for name, message in {
            "nothing": frame(0),
            "no flags": struct.pack("<iiii", 18, 1, 0, 2013) + b"\0\0",
            "no body": frame(0, sequence_section(b"a\0", PING)),
            "two bodies": frame(0, body_section(), body_section()),
            "same name twice": frame(0, body_section(), sequence_section(b"a\0"), sequence_section(b"a\0")),
            "unknown kind": frame(0, body_section(), b"\x02" + PING),
            "kind only": frame(0, body_section(), b"\0"),
            "rubbish at the end": frame(0, body_section(), b"rubbish"),
            "body cut off": frame(0, body_section(PING[:-1])),
            "body without end": frame(0, body_section(PING[:-1] + b"\x01")),
            "sequence cut off": frame(0, body_section(), sequence_section(b"a\0", PING)[:-1]),
            "sequence too short": frame(0, body_section(), b"\x01\x03\0\0\0a\0"),
            "sequence of negative length": frame(0, body_section(), b"\x01\xff\xff\xff\xffa\0"),
            "sequence longer than the message": frame(0, body_section(), b"\x01\xff\xff\xff\x7fa\0"),
            "name without end": frame(0, body_section(), sequence_section(b"abc")),
            "name not UTF-8": frame(0, body_section(), sequence_section(b"\xff\0")),
            "document beyond its section": frame(0, sequence_section(b"a\0", PING[:-1]), body_section()),
        }.items():
            error = self.assertRaises(ProtocolError, decode_message, message)
            self.assertNotIn("ping", str(error), name)

    def test_other_opcode(self) -> None:
        """Only OP_MSG is decoded as OP_MSG."""
        self.assertRaises(ProtocolError, Msg.decode, 1, 0, 2004, frame(0, body_section())[16:])

    def test_unknown_required_flag(self) -> None:
        """A flag among the low 16 bits that is not known is a ProtocolError."""
        for bit in range(2, 16):
            self.assertRaises(ProtocolError, decode_message, frame(1 << bit, body_section()))

    def test_unknown_optional_flag(self) -> None:
        """A flag among the high 16 bits that is not known is ignored and not forwarded."""
        for bit in range(17, 32):
            message = decode_message(frame(1 << bit | EXHAUST_ALLOWED, body_section()))
            self.assertEqual(message, Msg(1, 0, PING, EXHAUST_ALLOWED))


class ChecksumTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(checksum_module, "_extend", samples.crc32c)
        without = bytearray(frame(CHECKSUM_PRESENT, body_section(), sequence_section(b"a\0", PING)))
        without[:4] = struct.pack("<i", len(without) + 4)
        self.message = with_checksum(bytes(without))
        self.value = Msg(1, 0, PING, CHECKSUM_PRESENT, {"a": [PING]})

    def test_right(self) -> None:
        """The four bytes of a right checksum are not taken for a section."""
        self.assertEqual(decode_message(self.message), self.value)

    def test_wrong(self) -> None:
        """A checksum that does not fit is a ProtocolError, whichever byte has changed."""
        flags_offset = 16
        for offset in range(4, len(self.message)):
            if offset in (12, 13, 14, 15, flags_offset):
                continue
            corrupt = bytearray(self.message)
            corrupt[offset] ^= 0x10
            self.assertRaises(ProtocolError, decode_message, bytes(corrupt))

    def test_without_library(self) -> None:
        """Where it cannot be verified the checksum is left out of account, and still not taken for a section."""
        self.patch(checksum_module, "_extend", None)
        self.assertEqual(decode_message(self.message[:-4] + b"\xff\xff\xff\xff"), self.value)

    def test_missing(self) -> None:
        """A message too short to hold a checksum beside its flags is a ProtocolError."""
        for size in range(4):
            self.assertRaises(ProtocolError, decode_message, frame(CHECKSUM_PRESENT, b"\0" * size))
        self.assertRaises(ProtocolError, decode_message, frame(CHECKSUM_PRESENT, b"\0" * 4))

    def test_covers_nothing_but_sections(self) -> None:
        """A checksum that is missing is not made up from the last bytes of a section."""
        self.assertRaises(ProtocolError, decode_message, frame(CHECKSUM_PRESENT, body_section()))
        self.patch(checksum_module, "_extend", None)
        self.assertRaises(ProtocolError, decode_message, frame(CHECKSUM_PRESENT, body_section()))

    def test_encode(self) -> None:
        """A message that has the flag is encoded with its checksum, under any request id."""
        self.assertEqual(self.value.encode(), self.message)
        self.assertEqual(self.value.size_in_bytes(), len(self.message))
        self.assertEqual(decode_message(self.value.encode(8)).request_id, 8)

    def test_encode_without_library(self) -> None:
        """Where no checksum can be computed the message is encoded without it."""
        self.patch(checksum_module, "_extend", None)
        encoded = self.value.encode()
        self.assertEqual(encoded, frame(0, body_section(), sequence_section(b"a\0", PING)))
        self.assertEqual(self.value.size_in_bytes(), len(encoded))


class SingleBodyTests(SynchronousTestCase):
    def test_usual_reply(self) -> None:
        """A reply that is one document gives that document."""
        self.assertEqual(single_body(Msg(1, 2, PING).encode()), PING)
        self.assertEqual(single_body(Msg(1, 2).encode()), bson.encode({}))

    def test_any_other(self) -> None:
        """A message with flags, with another section, of another opcode or that is wrong gives None."""
        for message in (
            frame(MORE_TO_COME, body_section()),
            frame(EXHAUST_ALLOWED, body_section()),
            frame(0, body_section(), sequence_section(b"a\0")),
            frame(0, sequence_section(b"a\0", PING), body_section()),
            frame(0, body_section(), b"x"),
            frame(0, body_section(PING[:-1])),
            frame(0, body_section(PING[:-1] + b"\x01")),
            frame(0),
            struct.pack("<iiii", 16, 1, 0, 2013),
            struct.pack("<iiii", 21 + len(PING), 1, 0, 2012) + frame(0, body_section())[16:],
        ):
            self.assertIsNone(single_body(message))

    @samples.brief
    @given(samples.messages)
    def test_agrees_with_the_complete_way(self, message: Any) -> None:
        """What it finds is what decoding the whole message finds."""
        encoded = message.encode()
        body = single_body(encoded)
        if body is None:
            self.assertTrue(not isinstance(message, Msg) or message.flag_bits or message.payload)
        else:
            self.assertEqual(decode_message(encoded), Msg(message.request_id, message.response_to, body))
