"""``txmongo._waiters``: who waits for a reply, and how it is read for each of them."""

from __future__ import annotations

from typing import Any

import bson
from bson.codec_options import CodecOptions
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from txmongo._waiters import BatchWaiter, CommandWaiter, LateWaiter, Waiter, reply_document
from txmongo._wire.decoder import Decoder
from txmongo._wire.op_legacy import Reply
from txmongo._wire.op_msg import EncodedMsg, Msg, encode_command
from txmongo.errors import AutoReconnect, OperationFailure, ProtocolError

DEFAULT: CodecOptions[Any] = CodecOptions()
COMMAND = EncodedMsg(7, b"", 0, None, None)
REFUSED = {"ok": 0, "errmsg": "no", "code": 13}


class Line:
    """What waiters know of a connection: it can be cut."""

    def __init__(self) -> None:
        self.reasons: list[BaseException] = []

    def abort(self, reason: BaseException) -> None:
        self.reasons.append(reason)


def command_waiter(check: bool = True, allowable_errors: Any = None) -> CommandWaiter:
    """One that waits for the reply to request 7."""
    return CommandWaiter(Line(), COMMAND, 7, DEFAULT, check, allowable_errors)


def batch(response_to: int = 7, **fields: Any) -> bytes:
    """A reply with a batch of documents that take 900 kB."""
    documents = [{"_id": number, "text": "x" * 9_000} for number in range(100)]
    cursor = {"firstBatch": documents, "id": 0, "ns": "db.things"}
    return Msg(1, response_to, bson.encode({"cursor": cursor, "ok": 1, **fields})).encode()


def arriving(message: bytes) -> Decoder:
    """A decoder to which all of a message has come but its last kilobyte."""
    decoder = Decoder()
    decoder.on_full = lambda: None
    decoder.feed(message[:-1000])
    return decoder


class WaiterTests(SynchronousTestCase):
    """Whoever waits for a reply."""

    def test_takes(self) -> None:
        """A reply is taken as it is; nothing is done with one that comes too late, or arrives."""
        waiter = Waiter(Line(), 7, None)
        reply = Msg(1, 7, bson.encode({"ok": 1}))
        waiter.decode_ahead(arriving(batch()))
        waiter.drop(reply)
        self.assertIs(waiter.take(reply), reply)

    def test_cancelled(self) -> None:
        """Who gives up waits no more, and the connection lives on."""
        line = Line()
        waiter = Waiter(line, 7, None)
        assert waiter.deferred is not None
        waiting = waiter.deferred
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertIsNone(waiter.deferred)
        self.assertEqual(line.reasons, [])

    def test_cancelled_stream(self) -> None:
        """A stream of replies can be ended by cutting the connection only."""
        line = Line()
        waiter = Waiter(line, 7, lambda reply: None)
        assert waiter.deferred is not None
        waiting = waiter.deferred
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual([type(reason) for reason in line.reasons], [AutoReconnect])


class CommandWaiterTests(SynchronousTestCase):
    """Who waits for the reply to a command."""

    def test_read(self) -> None:
        """A frame and a message are read to the same document."""
        body = bson.encode({"ok": 1, "n": 5})
        self.assertEqual(command_waiter().read(encode_command(1, body)), {"ok": 1, "n": 5})
        self.assertEqual(command_waiter().take(Msg(1, 7, body)), {"ok": 1, "n": 5})

    def test_error(self) -> None:
        """A reply that says of an error raises it, unless it is not to be checked or the error is allowed."""
        frame = encode_command(1, bson.encode(REFUSED))
        self.assertRaises(OperationFailure, command_waiter().read, frame)
        self.assertEqual(command_waiter(check=False).read(frame), REFUSED)
        self.assertEqual(command_waiter(allowable_errors=[13]).read(frame), REFUSED)

    def test_other_message(self) -> None:
        """A message that is no OP_MSG is no reply to a command."""
        self.assertRaises(ProtocolError, command_waiter().take, Reply())


class DecodeAheadTests(SynchronousTestCase):
    """A batch that is decoded while it arrives."""

    def test_batch(self) -> None:
        """The documents are taken out of the message as they come, and are in what is read in the end."""
        message = batch()
        waiter = command_waiter()
        decoder = arriving(message)
        before = decoder.filled
        waiter.decode_ahead(decoder)
        self.assertIsInstance(waiter, BatchWaiter)
        self.assertLess(decoder.filled, before / 10)
        waiter.decode_ahead(decoder)
        [frame] = decoder.feed(message[-1000:])
        reply = waiter.take(Msg(1, 7, bytes(frame[21:])))
        self.assertEqual([document["_id"] for document in reply["cursor"]["firstBatch"]], list(range(100)))

    def test_error(self) -> None:
        """A batch with an error is one."""
        message = batch(**REFUSED)
        waiter = command_waiter()
        decoder = arriving(message)
        waiter.decode_ahead(decoder)
        self.assertIsInstance(waiter, BatchWaiter)
        [frame] = decoder.feed(message[-1000:])
        self.assertRaises(OperationFailure, waiter.take, Msg(1, 7, bytes(frame[21:])))

    def test_not_a_batch(self) -> None:
        """Whatever else arrives is left whole: another reply, one to another request, one that nobody waits for."""
        large = Msg(1, 7, bson.encode({"ok": 1, "text": "x" * 900_000})).encode()
        given_up = command_waiter()
        given_up.deferred = None
        for waiter, message in ((command_waiter(), large), (command_waiter(), batch(8)), (given_up, batch())):
            decoder = arriving(message)
            before = decoder.filled
            waiter.decode_ahead(decoder)
            self.assertIs(type(waiter), CommandWaiter)
            self.assertEqual(decoder.filled, before)


class LateWaiterTests(SynchronousTestCase):
    """Somebody who wants to see a reply for which nobody waits."""

    def test_shown(self) -> None:
        """The reply is shown in BSON; what is no reply to a command is not."""
        waiter = command_waiter()
        seen: list[bytes] = []
        waiter.show_late(seen.append)
        self.assertIsInstance(waiter, LateWaiter)
        waiter.drop(Reply())
        self.assertEqual(seen, [])
        body = bson.encode({"ok": 1})
        waiter.drop(Msg(1, 7, memoryview(body)))  # type: ignore[arg-type]
        self.assertEqual(seen, [body])


class ReplyDocumentTests(SynchronousTestCase):
    """What those see who wait for a command whose reply is read in a callback."""

    def test_message(self) -> None:
        """The document of a message is read and checked."""
        self.assertEqual(reply_document(Msg(1, 7, bson.encode(REFUSED)), DEFAULT, None, False, None), REFUSED)
        refused = Msg(1, 7, bson.encode(REFUSED))
        self.assertRaises(OperationFailure, reply_document, refused, DEFAULT, None, True, None)

    def test_else(self) -> None:
        """What is no message is left as it is."""
        self.assertIsNone(reply_document(None, DEFAULT, None, True, None))
