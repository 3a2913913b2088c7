"""``txmongo._legacy.messages``: the messages of TxMongo 15.2 and of 26, at once."""

from __future__ import annotations

import copy
import pickle
import struct
from typing import Any

import bson
from bson import BSON
from twisted.trial.unittest import SynchronousTestCase

from txmongo import protocol
from txmongo._legacy.messages import MESSAGE_TYPES
from txmongo._wire import op_msg
from txmongo._wire.decoder import decode_message
from txmongo.errors import AutoReconnect, CursorNotFound, NotPrimaryError, OperationFailure, ProtocolError
from txmongo.protocol import (
    BaseMessage,
    Delete,
    Getmore,
    Insert,
    KillCursors,
    MongoDecoder,
    Msg,
    Query,
    Reply,
    Update,
)

A = BSON.encode({"a": 1})
B = BSON.encode({"b": 1})
EMPTY = bson.encode({})

#: What each message is as a tuple if it is made of nothing.
DEFAULTS: list[tuple[Any, tuple[Any, ...]]] = [
    (Reply, (0, 0, 0, 1, 0, 0, 0, 0, [])),
    (Update, (0, 0, 0, 2001, 0, "", 0, EMPTY, EMPTY)),
    (Insert, (0, 0, 0, 2002, 0, "", [])),
    (Query, (0, 0, 0, 2004, 0, "", 0, -1, EMPTY, None)),
    (Getmore, (0, 0, 0, 2005, 0, "", -1, -1)),
    (Delete, (0, 0, 0, 2006, 0, "", 0, EMPTY)),
    (KillCursors, (0, 0, 0, 2007, 0, 0, [])),
]

#: Arguments in the order of 15.2.
OLD: list[tuple[Any, tuple[Any, ...]]] = [
    (Reply, (50, 1, 2, 1, 8, 77, 3, 2, [A, B])),
    (Update, (50, 1, 2, 2001, 0, "a.b", 3, A, B)),
    (Insert, (50, 1, 2, 2002, 1, "a.b", [A, B])),
    (Query, (50, 1, 2, 2004, 4, "a.b", 5, 6, A, B)),
    (Getmore, (50, 1, 2, 2005, 0, "a.b", 5, 77)),
    (Delete, (50, 1, 2, 2006, 0, "a.b", 1, A)),
    (KillCursors, (50, 1, 2, 2007, 0, 2, [77, 78])),
]


class OldConstructorTests(SynchronousTestCase):
    """The named tuples of 15.2."""

    def test_defaults(self) -> None:
        """Each can be made of nothing, with the defaults of old."""
        for message_type, expected in DEFAULTS:
            self.assertEqual(tuple(message_type()), expected)

    def test_order(self) -> None:
        """Arguments in the old order, positional or by name, come out as the tuple that they went in as."""
        for message_type, values in OLD:
            for message in (
                message_type(*values),
                message_type(**dict(zip(message_type._fields, values, strict=True))),
            ):
                self.assertEqual(tuple(message), values)
                self.assertEqual(message, values)
                self.assertEqual(len(message), len(values))
                self.assertEqual([message[place] for place in range(len(values))], list(values))
                self.assertEqual(message[1:3], (1, 2))
                for name, value in zip(message_type._fields, values, strict=True):
                    self.assertEqual(getattr(message, name), value)

    def test_names_of_fields(self) -> None:
        """The fields have the names of old."""
        start = ("len", "request_id", "response_to", "opcode")
        self.assertEqual(Query._fields, (*start, "flags", "collection", "n_to_skip", "n_to_return", "query", "fields"))
        self.assertEqual(
            Reply._fields, (*start, "response_flags", "cursor_id", "starting_from", "n_returned", "documents")
        )
        self.assertEqual(Update._fields, (*start, "zero", "collection", "flags", "selector", "update"))
        self.assertEqual(Insert._fields, (*start, "flags", "collection", "documents"))
        self.assertEqual(Getmore._fields, (*start, "zero", "collection", "n_to_return", "cursor_id"))
        self.assertEqual(Delete._fields, (*start, "zero", "collection", "flags", "selector"))
        self.assertEqual(KillCursors._fields, (*start, "zero", "n_cursors", "cursors"))

    def test_named_tuple(self) -> None:
        """They can be used as named tuples: unpacked, replaced, made of a sequence, searched."""
        for message_type, values in OLD:
            message = message_type(*values)
            length, request_id, *_ = message
            self.assertEqual((length, request_id), (50, 1))
            self.assertEqual(message._asdict(), dict(zip(message._fields, values, strict=True)))
            self.assertEqual(message_type._make(values), message)
            self.assertEqual(message._replace(request_id=9)[1], 9)
            self.assertEqual(message[1], 1)
            self.assertEqual(message.index(2), 2)
            self.assertEqual(message.count(50), 1)
            self.assertIn(50, message)
            self.assertRaises(ValueError, message._replace, nothing=1)
            self.assertRaises(TypeError, hash, message)

    def test_comparison(self) -> None:
        """Messages are compared by what they say; how long they were when they came does not matter."""
        self.assertEqual(Query(len=5), Query())
        self.assertNotEqual(Query(flags=4), Query())
        self.assertNotEqual(Query(), Insert())
        self.assertNotEqual(Query(), "a query")

    def test_copies(self) -> None:
        """Copies, by pickle too, are equal."""
        for message_type, values in OLD:
            message = message_type(*values)
            for twin in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
                self.assertEqual(tuple(twin), values)

    def test_documents(self) -> None:
        """Documents may be dicts or bytes, and are kept as bson.BSON, which can be decoded."""
        self.assertEqual(Query(query={"a": 1}, fields={"b": 1}), Query(query=bytes(A), fields=bytes(B)))
        update = Update(selector={"a": 1}, update=bytes(B))
        messages: list[Any] = [update.selector, update.update, Delete(selector={"a": 1}).selector]
        messages += [Query(query={"a": 1}).query, *Insert(documents=[{"a": 1}, bytes(B)]).documents]
        messages += Reply(documents=({"a": 1}, bytes(B))).documents
        for document in messages:
            self.assertIsInstance(document, BSON)
            self.assertIn(document.decode(), ({"a": 1}, {"b": 1}))

    def test_mistakes(self) -> None:
        """Too many arguments, one given twice, one unknown, or another opcode is an error that says so."""
        for message_type, values in OLD:
            self.assertRaises(TypeError, message_type, *values, 0)
            self.assertRaises(TypeError, message_type, nothing=1)
            self.assertIn(
                "2004" if message_type is not Query else "2005",
                str(self.assertRaises(ValueError, message_type, opcode=2004 if message_type is not Query else 2005)),
            )
        error = self.assertRaises(TypeError, Insert, *OLD[2][1], collection="a.b")
        self.assertIn("'collection'", str(error))


class NewConstructorTests(SynchronousTestCase):
    """The dataclasses of 26."""

    def test_order(self) -> None:
        """Query and Reply take the arguments in the order of 26 too."""
        query = Query(1, 2, 4, "a.b", 5, 6, A, B)
        self.assertEqual(query, Query(0, 1, 2, 2004, 4, "a.b", 5, 6, A, B))
        reply = Reply(1, 2, 8, 77, 3, [A])
        self.assertEqual(reply, Reply(0, 1, 2, 1, 8, 77, 3, 1, [A]))
        self.assertEqual((query.request_id, reply.response_to), (1, 2))

    def test_short(self) -> None:
        """With few arguments it is the order of 26 unless the opcode stands where it stood."""
        self.assertEqual(Query(1, 2, 4).flags, 4)
        self.assertEqual(Query(1, 2, 4, "a.b").collection, "a.b")
        self.assertEqual(Query(50, 1, 2, 2004).request_id, 1)
        self.assertEqual(Reply(1, 2, 8).response_flags, 8)
        self.assertEqual(Reply(1, 2, 8, 77).cursor_id, 77)
        self.assertEqual(Reply(50, 1, 2, 1, 8).response_flags, 8)
        self.assertEqual(Reply(50, 1, 2, 1, 8, 77).cursor_id, 77)

    def test_changeable(self) -> None:
        """Fields can be set."""
        query = Query()
        query.request_id = 5
        query.flags = 4
        self.assertEqual(query[1], 5)

    def test_opcode(self) -> None:
        """The opcode is a number that can be called, on the class and on its instances."""
        for message_type, expected in [*DEFAULTS, (Msg, (0, 0, 0, 2013))]:
            for each in (message_type, message_type()):
                self.assertEqual(each.opcode, expected[3])
                self.assertEqual(each.opcode(), expected[3])


class MsgTests(SynchronousTestCase):
    """Two messages of one name."""

    def test_of_today(self) -> None:
        """OP_MSG is made in 26's order, by name, or by create()."""
        for msg in (
            Msg(1, 2, bytes(A)),
            Msg(1, 2, bytes(A), 0, {}),
            Msg(request_id=1, response_to=2, body=bytes(A)),
            Msg.create({"a": 1}, request_id=1, response_to=2),
        ):
            self.assertIsInstance(msg, Msg)
            self.assertEqual(msg, op_msg.Msg(1, 2, bytes(A)))
            self.assertEqual(msg.opcode, protocol.OP_MSG)
            self.assertEqual(msg.to_dict(), {"a": 1})
        self.assertEqual(Msg().body, EMPTY)

    def test_of_old(self) -> None:
        """The message of 15.2 is made of five arguments with a text at the end, or by its names."""
        for msg in (
            Msg(50, 1, 2, 1000, "text"),  # type: ignore[arg-type]
            Msg(len=50, request_id=1, response_to=2, opcode=1000, message="text"),  # type: ignore[call-arg]
            Msg(50, 1, 2, message="text", opcode=protocol.OP_MSG_LEGACY),  # type: ignore[call-arg, arg-type]
        ):
            old: Any = msg
            self.assertIsInstance(old, Msg)
            self.assertIsInstance(old, tuple)
            self.assertEqual(old, (50, 1, 2, 1000, "text"))
            self.assertEqual((old.len, old.opcode, old.opcode(), old.message), (50, 1000, 1000, "text"))
            self.assertEqual(old.encode(7), struct.pack("<iiii", 21, 7, 2, 1000) + b"text\0")
            self.assertEqual(old.encode()[4:8], struct.pack("<i", 1))

    def test_others(self) -> None:
        """Nothing else is a Msg, and a body that is no BSON is refused."""
        self.assertNotIsInstance(Query(), Msg)
        self.assertNotIsInstance((50, 1, 2, 1000, "text"), Msg)
        self.assertRaises(TypeError, Msg, 1, 2, "text")

    def test_subclass(self) -> None:
        """A subclass makes instances of itself."""

        class Marked(Msg):
            mark = "mine"

        self.assertEqual(Marked(1, 2, bytes(A)).mark, "mine")
        self.assertIsInstance(Marked(), Msg)
        self.assertNotIsInstance(Msg(), Marked)

    def test_flag_bits(self) -> None:
        """create_flag_bits says whether an answer is wanted."""
        self.assertEqual(Msg.create_flag_bits(True), 0)
        self.assertEqual(Msg.create_flag_bits(False), protocol.OP_MSG_MORE_TO_COME)


class DecodingTests(SynchronousTestCase):
    """What comes from the other side."""

    def test_decoded(self) -> None:
        """The decoder gives these messages, with their length."""
        for message_type, values in OLD:
            message = message_type(*values)
            data = message.encode()
            decoded = MongoDecoder.decode(data)
            self.assertIs(type(decoded), message_type)
            self.assertEqual(decoded, message)
            self.assertEqual(decoded.len, len(data))

    def test_same_bytes(self) -> None:
        """They are encoded as the wire layer's own messages are, which decode from them."""
        for message_type, values in OLD:
            message = message_type(*values)
            plain = decode_message(message.encode())
            self.assertEqual(plain.encode(), message.encode())

    def test_decode(self) -> None:
        """decode() takes what follows the header, of its own opcode only."""
        query = Query(50, 1, 2, 2004, 4, "a.b", 5, 6, A, B)
        self.assertEqual(Query.decode(1, 2, 2004, query.encode()[16:]), query)
        self.assertRaises(ProtocolError, Query.decode, 1, 2, 2005, query.encode()[16:])


class BaseMessageTests(SynchronousTestCase):
    """What all messages are."""

    def test_instances(self) -> None:
        """Every message, of either API, is an instance of BaseMessage; other things are none."""
        messages = [kind() for kind in (Msg, Reply, Query, Update, Insert, Getmore, Delete, KillCursors)]
        messages += [Msg(0, 0, 0, 1000, "x"), decode_message(Msg().encode(), message_types=MESSAGE_TYPES)]
        for message in messages:
            self.assertIsInstance(message, BaseMessage)
        self.assertNotIsInstance(b"", BaseMessage)
        self.assertFalse(issubclass(tuple, BaseMessage))


class CheckReplyTests(SynchronousTestCase):
    """Replies that say of a failure."""

    def check(self, **fields: Any) -> Any:
        """What check_reply makes of a Reply with these fields."""
        return protocol.check_reply(Reply(**fields))

    def test_fine(self) -> None:
        """A reply without such flags is handed on."""
        self.assertEqual(self.check(response_flags=8, documents=[A]), Reply(response_flags=8, documents=[A]))

    def test_failures(self) -> None:
        """A failed query, one at a secondary and a lost cursor each have their exception."""
        failed = protocol.REPLY_QUERY_FAILURE
        error = self.assertRaises(
            OperationFailure, self.check, response_flags=failed, documents=[{"$err": "x", "code": 2}]
        )
        self.assertEqual((str(error).split(",")[0], error.code), ("x", 2))
        self.assertRaises(OperationFailure, self.check, response_flags=failed)
        not_primary = {"$err": "not master and slaveOk=false", "code": 13435}
        error = self.assertRaises(NotPrimaryError, self.check, response_flags=failed, documents=[not_primary])
        self.assertIsInstance(error, AutoReconnect)
        self.assertRaises(CursorNotFound, self.check, response_flags=protocol.REPLY_CURSOR_NOT_FOUND)
        self.assertRaises(ProtocolError, protocol.check_reply, Msg())
