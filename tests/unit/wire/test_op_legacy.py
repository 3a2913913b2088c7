"""Tests for :mod:`txmongo._wire.op_legacy`."""

from __future__ import annotations

import struct
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS
from hypothesis import given
from pymongo import message as pymongo_message
from pymongo.errors import ProtocolError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.unit.wire import samples
from txmongo._wire.decoder import decode_message
from txmongo._wire.op_legacy import Delete, GetMore, Insert, KillCursors, Query, Reply, Update

A = bson.encode({"a": 1})
B = bson.encode({"b": 1})


def joined(*parts: bytes) -> bytes:
    return b"".join(parts)


#: Each message with what follows its header, field by field as the tables of the wire protocol have it.
LAYOUTS: list[tuple[Any, int, bytes]] = [
    (
        Reply(1, 2, 8, 2**40, 5, [A, B]),
        1,
        joined(b"\x08\0\0\0", b"\0\0\0\0\0\x01\0\0", b"\x05\0\0\0", b"\x02\0\0\0", A, B),
    ),
    (Update(1, 2, "d.c", 3, A, B), 2001, joined(b"\0\0\0\0", b"d.c\0", b"\x03\0\0\0", A, B)),
    (Insert(1, 2, 1, "d.c", [A, B]), 2002, joined(b"\x01\0\0\0", b"d.c\0", A, B)),
    (Query(1, 2, 4, "d.c", 6, 7, A), 2004, joined(b"\x04\0\0\0", b"d.c\0", b"\x06\0\0\0", b"\x07\0\0\0", A)),
    (Query(1, 2, 4, "d.c", 6, 7, A, B), 2004, joined(b"\x04\0\0\0", b"d.c\0", b"\x06\0\0\0", b"\x07\0\0\0", A, B)),
    (
        GetMore(1, 2, "d.c", 9, 2**40),
        2005,
        joined(b"\0\0\0\0", b"d.c\0", b"\x09\0\0\0", b"\0\0\0\0\0\x01\0\0"),
    ),
    (Delete(1, 2, "d.c", 1, A), 2006, joined(b"\0\0\0\0", b"d.c\0", b"\x01\0\0\0", A)),
    (
        KillCursors(1, 2, [1, 2**40]),
        2007,
        joined(b"\0\0\0\0", b"\x02\0\0\0", b"\x01\0\0\0\0\0\0\0", b"\0\0\0\0\0\x01\0\0"),
    ),
]


class LayoutTests(SynchronousTestCase):
    def test_layout(self) -> None:
        """Each opcode has the layout that the wire protocol gives it, in both directions."""
        for message, opcode, content in LAYOUTS:
            expected = struct.pack("<iiii", 16 + len(content), 1, 2, opcode) + content
            self.assertEqual(message.encode(), expected)
            self.assertEqual(decode_message(expected), message)
            self.assertEqual(message.opcode, opcode)
            self.assertEqual(message.opcode(), opcode)

    def test_query_of_pymongo(self) -> None:
        """A query is encoded as the PyMongo releases encode it that still can."""
        encode = getattr(pymongo_message, "_query", None)
        if encode is None:
            raise SkipTest("this PyMongo does not encode OP_QUERY")
        request_id, expected, _ = encode(4, "admin.$cmd", 0, -1, {"ismaster": 1}, None, DEFAULT_CODEC_OPTIONS)
        query = Query(flags=4, collection="admin.$cmd", query=bson.encode({"ismaster": 1}))
        self.assertEqual(query.encode(request_id), expected)

    def test_get_more_of_pymongo(self) -> None:
        """An OP_GET_MORE is encoded as the PyMongo releases encode it that still can."""
        encode = getattr(pymongo_message, "_get_more", None)
        if encode is None:
            raise SkipTest("this PyMongo does not encode OP_GET_MORE")
        request_id, expected = encode("d.c", 100, 2**50)
        self.assertEqual(GetMore(0, 0, "d.c", 100, 2**50).encode(request_id), expected)


class ValueTests(SynchronousTestCase):
    @samples.brief
    @given(samples.messages)
    def test_round_trip(self, message: Any) -> None:
        """Every message decodes to itself."""
        self.assertEqual(decode_message(message.encode()), message)

    @samples.brief
    @given(samples.messages, samples.int32s)
    def test_other_request_id(self, message: Any, request_id: int) -> None:
        """The request id given to ``encode`` goes before the message's own and changes nothing else."""
        decoded = decode_message(message.encode(request_id))
        self.assertEqual(decoded.request_id, request_id)
        decoded.request_id = message.request_id
        self.assertEqual(decoded, message)

    def test_defaults(self) -> None:
        """Each message made of nothing decodes to itself."""
        for message_type in (Reply, Query, Update, Insert, GetMore, Delete, KillCursors):
            self.assertEqual(decode_message(message_type().encode()), message_type())

    def test_counts(self) -> None:
        """A reply and an OP_KILL_CURSORS tell how much is in them."""
        self.assertEqual(Reply(documents=[A, B]).n_returned, 2)
        self.assertEqual(KillCursors(cursors=[1, 2, 3]).n_cursors, 3)

    def test_repr_shows_no_document(self) -> None:
        """A message in a log shows nothing of what its documents hold."""
        secret = bson.encode({"key": "secret"})
        for message in (
            Reply(documents=[secret]),
            Query(query=secret, fields=secret),
            Update(selector=secret, update=secret),
            Insert(documents=[secret]),
            Delete(selector=secret),
        ):
            self.assertNotIn("secret", repr(message))
        self.assertIn("fields=None", repr(Query()))

    def test_collection_with_a_zero(self) -> None:
        """A collection whose name has a zero inside is refused."""
        self.assertRaises(ValueError, Query(collection="a\0b").encode)


class WrongMessageTests(SynchronousTestCase):
    def test_cut_off(self) -> None:
        """A message cut off anywhere, or with something behind it, is a ProtocolError."""
        for message, opcode, content in LAYOUTS:
            decode = type(message).decode
            # Where a list of documents, or an optional one, ends early there is nothing to tell.
            whole = {len(content) - len(B), len(content) - len(A + B)} if isinstance(message, Insert) else set()
            if isinstance(message, Query):
                whole = {len(content) - len(B)}
            for size in set(range(len(content))) - whole:
                self.assertRaises(ProtocolError, decode, 1, 2, opcode, content[:size])
            self.assertRaises(ProtocolError, decode, 1, 2, opcode, content + b"\0")

    def test_other_opcode(self) -> None:
        """A message is decoded as what its opcode says only."""
        for message, _, content in LAYOUTS:
            self.assertRaises(ProtocolError, type(message).decode, 1, 2, 2013, content)

    def test_wrong_count(self) -> None:
        """A reply or an OP_KILL_CURSORS that announces another number than it holds is a ProtocolError."""
        for count in (-1, 0, 1, 3, 2**31 - 1):
            reply = struct.pack("<iqii", 0, 0, 0, count) + A + B
            self.assertRaises(ProtocolError, Reply.decode, 1, 2, 1, reply)
            kill = struct.pack("<iiqq", 0, count, 1, 2)
            self.assertRaises(ProtocolError, KillCursors.decode, 1, 2, 2007, kill)
