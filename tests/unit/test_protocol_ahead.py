"""Large batches that ``txmongo.protocol`` decodes while they arrive."""

from __future__ import annotations

import struct
from typing import Any

import bson
from bson.codec_options import CodecOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.transports import AbortableTransport
from tests.unit.wire import samples
from txmongo._wire.op_msg import Msg
from txmongo.errors import OperationFailure
from txmongo.protocol import MongoProtocol

DEFAULT: CodecOptions[Any] = CodecOptions()
FIND = bson.encode({"find": "c", "$db": "d"})
PING = bson.encode({"ping": 1, "$db": "admin"})


class Conversation:
    """A find and a ping behind it on one connection.

    :ivar results: what each request ended with.
    :ivar most: the most bytes that the connection had room for at once.
    """

    def __init__(self, protocol: MongoProtocol | None = None, room: int = 1000) -> None:
        self.protocol = MongoProtocol() if protocol is None else protocol
        self.protocol.makeConnection(AbortableTransport())
        self.protocol._decoder.room = room
        self.results: list[Any] = []
        self.most = 0
        self.find = self.protocol.send_msg(Msg(7, 0, FIND), DEFAULT, None)
        self.find.addBoth(self.results.append)
        self.protocol.send_msg(Msg(8, 0, PING), DEFAULT, None).addBoth(self.results.append)

    def receive(self, data: bytes, size: int = 100) -> None:
        """Data comes, in pieces of a size."""
        for start in range(0, len(data), size):
            self.protocol.dataReceived(data[start : start + size])
            self.most = max(self.most, len(self.protocol._decoder.buffer))

    def outcome(self) -> tuple[list[str], bool]:
        """Everything that there is to see, so that it can be compared."""
        seen = []
        for result in self.results:
            error = getattr(result, "value", None)
            if isinstance(error, bson.errors.InvalidBSON):
                # Which fault of several it tells depends on the memory behind the message.
                seen.append("InvalidBSON")
            else:
                seen.append(repr(result) if error is None else f"{error!r} {getattr(error, 'details', None)!r}")
        return seen, self.protocol.transport.aborted  # type: ignore[union-attr]


def reply_to(request_id: int, document: dict[str, Any]) -> bytes:
    return Msg(1, request_id, bson.encode(document)).encode()


def batch(count: int, **more: Any) -> dict[str, Any]:
    documents = [{"_id": number, "content": "x" * 300} for number in range(count)]
    return {"cursor": {"nextBatch": documents, "id": 5, "ns": "d.c"}, "ok": 1.0, **more}


PONG = reply_to(8, {"ok": 1.0, "pong": True})


class AheadTests(SynchronousTestCase):
    """Documents of a batch are decoded before all of it is there."""

    def test_reply(self) -> None:
        """The reply is as it was sent, and there is never room for all of it."""
        conversation = Conversation()
        conversation.receive(reply_to(7, batch(100)) + PONG)
        self.assertEqual(conversation.results, [batch(100), {"ok": 1.0, "pong": True}])
        self.assertEqual(conversation.most, 1000)

    def test_next_reply(self) -> None:
        """What was decoded of one reply has no part in the next."""
        conversation = Conversation()
        conversation.receive(reply_to(7, batch(50)) + reply_to(8, batch(60)))
        self.assertEqual(conversation.results, [batch(50), batch(60)])

    def test_error(self) -> None:
        """A reply with documents that is an error is one, and has them."""
        conversation = Conversation()
        conversation.receive(reply_to(7, batch(50, ok=0.0, errmsg="half of them", code=1)))
        [failure] = conversation.results
        self.assertIsInstance(failure.value, OperationFailure)
        self.assertEqual(failure.value.details, batch(50, ok=0.0, errmsg="half of them", code=1))

    def test_cancelled_before(self) -> None:
        """The late reply to a request that was cancelled is dropped and not decoded; the next is read."""
        conversation = Conversation()
        conversation.find.cancel()
        conversation.receive(reply_to(7, batch(100)) + PONG)
        self.assertEqual(conversation.results[1:], [{"ok": 1.0, "pong": True}])
        self.assertGreater(conversation.most, 1000)

    def test_cancelled_while_it_arrives(self) -> None:
        """A request may be cancelled while its reply arrives; the next is read."""
        conversation, data = Conversation(), reply_to(7, batch(100)) + PONG
        conversation.receive(data[:10_000])
        conversation.find.cancel()
        conversation.receive(data[10_000:])
        self.assertEqual(conversation.results[1:], [{"ok": 1.0, "pong": True}])

    def test_nobody_asked(self) -> None:
        """A batch that answers nobody, or not the oldest request, closes the connection."""
        for request_id in (8, 9):
            conversation = Conversation()
            conversation.receive(reply_to(request_id, batch(50)))
            self.assertEqual(conversation.outcome(), ([], True))
        conversation = Conversation()
        conversation.receive(reply_to(7, {"ok": 1.0}) + PONG + reply_to(9, batch(50)))
        self.assertTrue(conversation.outcome()[1])

    def test_hooks(self) -> None:
        """A subclass with hooks sees the message whole."""
        seen = []

        class Hooked(MongoProtocol):
            def handle_MSG(self, request: Any) -> None:
                seen.append(request.to_dict())
                super().handle_MSG(request)

        conversation = Conversation(Hooked())
        conversation.receive(reply_to(7, batch(50)))
        self.assertEqual((conversation.results, seen), ([batch(50)], [batch(50)]))

    def test_raw_message(self) -> None:
        """Who put another _send_raw_msg in place sees the message whole."""
        seen = []

        class Traced(MongoProtocol):
            def _send_raw_msg(self, msg: Msg) -> Any:
                return super()._send_raw_msg(msg).addCallback(lambda reply: seen.append(reply.to_dict()) or reply)

        conversation = Conversation(Traced())
        conversation.receive(reply_to(7, batch(50)))
        self.assertEqual((conversation.results, seen), ([batch(50)], [batch(50)]))


class SameTests(SynchronousTestCase):
    """The outcome does not depend on whether documents are decoded ahead."""

    def assertSame(self, data: bytes, size: int, room: int) -> None:
        """Data has the same outcome in small pieces and as a whole."""
        whole, pieces = Conversation(), Conversation(room=room)
        whole.protocol._decoder.on_full = None
        whole.receive(data, len(data))
        pieces.receive(data, size)
        self.assertEqual(pieces.outcome(), whole.outcome())

    @settings(max_examples=200)
    @given(
        st.lists(st.tuples(samples.dicts, st.sampled_from([0, 250, 700])), min_size=1, max_size=40),
        st.lists(st.tuples(st.integers(0, 120) | st.integers(0, 20_000), st.integers(0, 255)), max_size=3),
        st.integers(1, 2000),
        st.integers(50, 1500),
    )
    def test_any_bytes(
        self, parts: list[tuple[dict[str, Any], int]], changes: list[tuple[int, int]], size: int, room: int
    ) -> None:
        """However a batch is cut, and whatever bytes in it are wrong, all ends as if it had come in one piece."""
        documents = [{**document, "padding": "x" * padding} for document, padding in parts]
        data = bytearray(reply_to(7, {"cursor": {"firstBatch": documents, "id": 5, "ns": "d.c"}, "ok": 1.0}) + PONG)
        for position, value in changes:
            data[position % len(data)] = value
        self.assertSame(bytes(data), size, room)

    def test_every_byte(self) -> None:
        """The same for each byte of a batch up to its second document, and of its end, changed in one bit each."""
        data = reply_to(7, batch(12)) + PONG
        for position in (*range(400), *range(len(data) - 150, len(data))):
            for bit in (0, 3, 7):
                changed = bytearray(data)
                changed[position] ^= 1 << bit
                self.assertSame(bytes(changed), 150, 700)

    def test_number_of_an_element(self) -> None:
        """The number of an element is not looked at, whatever it says."""
        data = reply_to(7, batch(30))
        for name in (b"", b"1", b"x" * 500):
            at = data.index(b"\x0320\0")
            changed = data[:at] + b"\x03" + name + b"\0" + data[at + 4 :]
            grown = len(changed) - len(data)
            for length_at in (0, 21, 33, 48):
                [length] = struct.unpack_from("<i", changed, length_at)
                changed = changed[:length_at] + struct.pack("<i", length + grown) + changed[length_at + 4 :]
            self.assertSame(changed, 100, 700)
            conversation = Conversation()
            conversation.receive(changed)
            self.assertEqual(conversation.results, [batch(30)])
