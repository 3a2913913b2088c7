"""``txmongo.protocol`` over an in-memory transport: which reply belongs to which request, and what a loss does."""

from __future__ import annotations

import gc
from typing import Any

import bson
from bson.binary import Binary
from bson.codec_options import CodecOptions, TypeRegistry
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from bson.timestamp import Timestamp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.transports import (
    AbortableTransport,
    DirectTransport,
    FillingTransport,
    Gentle,
    answer,
    connected,
    ping,
    reply_to,
    written,
)
from txmongo._pymongo import ZlibContext
from txmongo._wire.decoder import Decoder, decode_message
from txmongo._wire.envelope import encode_elements
from txmongo._wire.header import OP_COMPRESSED, next_request_id
from txmongo._wire.op_compressed import Zlib, compress
from txmongo._wire.op_legacy import Query, Reply
from txmongo._wire.op_msg import EXHAUST_ALLOWED, MORE_TO_COME, EncodedMsg, Msg, encode_command
from txmongo.errors import AutoReconnect, InvalidOperation, OperationFailure, ProtocolError
from txmongo.protocol import (
    OP_INSERT,
    OP_MSG,
    OP_MSG_EXHAUST_ALLOWED,
    OP_QUERY,
    QUERY_EXHAUST,
    REPLY_QUERY_FAILURE,
    Insert,
    KillCursors,
    MongoProtocol,
    MongoServerProtocol,
)
from txmongo.protocol import Query as TheirQuery
from txmongo.protocol import Reply as TheirReply

DEFAULT: CodecOptions[Any] = CodecOptions()


class ReplyTests(SynchronousTestCase):
    """Each reply goes to its request."""

    def test_reply_document(self) -> None:
        """send_msg fires with the reply's document."""
        protocol, transport = connected()
        reply = protocol.send_msg(ping(), DEFAULT, None)
        self.assertNoResult(reply)
        [request] = written(transport)
        self.assertEqual(request.to_dict(), {"ping": 1, "$db": "admin"})
        protocol.dataReceived(answer(request, {"ok": 1, "x": "y"}))
        self.assertEqual(self.successResultOf(reply), {"ok": 1, "x": "y"})

    def test_pipelined(self) -> None:
        """Several requests are in flight at once; each fires with its own reply, even when all come in one piece."""
        protocol, transport = connected()
        replies = [protocol.send_msg(ping(), DEFAULT, None) for _ in range(5)]
        requests = written(transport)
        self.assertEqual(len(requests), 5)
        self.assertEqual((protocol.in_flight, protocol.inflight()), (5, 5))
        protocol.dataReceived(b"".join(answer(r, {"ok": 1, "n": n}) for n, r in enumerate(requests)))
        self.assertEqual([self.successResultOf(reply)["n"] for reply in replies], [0, 1, 2, 3, 4])
        self.assertEqual(protocol.in_flight, 0)

    def test_codec_options(self) -> None:
        """The reply is decoded by the caller's codec options."""
        protocol, transport = connected()
        reply = protocol.send_msg(ping(), CodecOptions(document_class=SON), None)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1}))
        self.assertIsInstance(self.successResultOf(reply), SON)

    def test_user_fields(self) -> None:
        """With user_fields only the user's documents are decoded by the user's codec options."""
        protocol, transport = connected()
        msg = ping()
        msg.user_fields = {"cursor": {"firstBatch": 1}}
        reply = protocol.send_msg(msg, DEFAULT, None)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1, "cursor": {"firstBatch": [{"a": 1}]}}))
        self.assertEqual(self.successResultOf(reply)["cursor"], {"firstBatch": [{"a": 1}]})

    def test_large_reply(self) -> None:
        """A large reply in pieces is decoded by any codec options."""
        document = {"cursor": {"firstBatch": [{"a": "x" * 100_000}], "id": 0}, "ok": 1}
        registry = TypeRegistry(fallback_encoder=str)
        for options in (
            DEFAULT,
            CodecOptions(document_class=SON),
            CodecOptions(document_class=RawBSONDocument),
            CodecOptions(type_registry=registry),
        ):
            protocol, transport = connected()
            msg = ping()
            msg.user_fields = {"cursor": {"firstBatch": 1}}
            reply = protocol.send_msg(msg, options, None)
            data = answer(written(transport)[0], document)
            for at in range(0, len(data), 16_384):
                protocol.dataReceived(data[at : at + 16_384])
            found = self.successResultOf(reply)["cursor"]["firstBatch"][0]
            self.assertEqual(found["a"], "x" * 100_000)

    def test_error_reply(self) -> None:
        """A reply that is not ok fails the request with OperationFailure and its details."""
        protocol, transport = connected()
        reply = protocol.send_msg(ping(), DEFAULT, None)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 0, "code": 59, "errmsg": "no such command"}))
        error = self.failureResultOf(reply, OperationFailure).value
        self.assertEqual((error.code, error.details["errmsg"]), (59, "no such command"))

    def test_unchecked(self) -> None:
        """With check=False, or an error that is allowed, the error reply is an ordinary one."""
        for arguments in ({"check": False}, {"allowable_errors": [59]}, {"allowable_errors": ["no such command"]}):
            protocol, transport = connected()
            reply = protocol.send_msg(ping(), DEFAULT, None, **arguments)  # type: ignore[arg-type]
            protocol.dataReceived(answer(written(transport)[0], {"ok": 0, "code": 59, "errmsg": "no such command"}))
            self.assertEqual(self.successResultOf(reply)["code"], 59)

    def test_unacknowledged(self) -> None:
        """An unacknowledged command fires with None at once and waits for nothing."""
        protocol, transport = connected()
        msg = Msg(body=bson.encode({"insert": "c", "$db": "d"}), flag_bits=MORE_TO_COME)
        self.assertIs(self.successResultOf(protocol.send_msg(msg, DEFAULT, None)), None)
        self.assertEqual(protocol.in_flight, 0)
        self.assertTrue(written(transport)[0].more_to_come)

    def test_ready_made_message(self) -> None:
        """A message that is already encoded is written as it is."""
        protocol, transport = connected()
        msg = Msg.from_wire(ping().encode(7))
        protocol.send_msg(msg, DEFAULT, None)
        self.assertEqual(written(transport)[0].request_id, 7)

    def test_command(self) -> None:
        """command() names the database and leaves the caller's document alone."""
        protocol, transport = connected()
        command = {"hello": 1}
        reply = protocol.command("admin", command)
        [request] = written(transport)
        self.assertEqual(request.to_dict(), {"hello": 1, "$db": "admin"})
        self.assertEqual(command, {"hello": 1})
        protocol.dataReceived(answer(request, {"ok": 1}))
        self.assertEqual(self.successResultOf(reply), {"ok": 1})

    def test_query(self) -> None:
        """send_query fires with the OP_REPLY."""
        protocol, transport = connected()
        reply = protocol.send_query(Query(collection="admin.$cmd", query=bson.encode({"isMaster": 1})))
        [request] = written(transport)
        data = Reply(response_to=request.request_id, documents=[bson.encode({"ok": 1})]).encode(next_request_id())
        protocol.dataReceived(data)
        self.assertEqual(bson.decode(self.successResultOf(reply).documents[0]), {"ok": 1})

    def test_compression(self) -> None:
        """With a compressor, commands are compressed, but not those that must stay readable."""
        protocol, transport = connected()
        protocol.compressor = ZlibContext(-1)
        reply = protocol.send_msg(ping(), DEFAULT, None)
        data = transport.value()
        self.assertEqual(int.from_bytes(data[12:16], "little"), OP_COMPRESSED)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1}))
        self.assertEqual(self.successResultOf(reply), {"ok": 1})
        protocol.send_msg(Msg(body=bson.encode({"saslStart": 1, "$db": "admin"})), DEFAULT, None)
        self.assertNotEqual(int.from_bytes(transport.value()[12:16], "little"), OP_COMPRESSED)

    def test_compression_of_encoded(self) -> None:
        """The driver's own commands, of which there are only the bytes, are compressed by the same rule."""
        for name, compressed in (("ping", True), ("saslStart", False)):
            protocol, transport = connected()
            protocol.compressor = ZlibContext(-1)
            wire = encode_command(next_request_id(), bson.encode({name: 1, "$db": "admin"}))
            protocol.send_msg(EncodedMsg(int.from_bytes(wire[4:8], "little"), wire, 0, None, None), DEFAULT, None)
            self.assertEqual(int.from_bytes(transport.value()[12:16], "little") == OP_COMPRESSED, compressed)
            self.assertEqual(written(transport)[0].to_dict(), {name: 1, "$db": "admin"})

    def test_resolve(self) -> None:
        """A request can be answered from elsewhere; its own reply is dropped when it comes, and told of."""
        protocol, transport = connected()
        late: list[bool] = []
        protocol.late_reply_hook = lambda: late.append(True)
        first = protocol.send_msg(ping(), DEFAULT, None)
        second = protocol.send_msg(ping(), DEFAULT, None)
        requests = written(transport)
        protocol.resolve(requests[1].request_id, {"ok": 1, "from": "elsewhere"})
        protocol.resolve(12345, {"ok": 1})
        self.assertEqual(self.successResultOf(second)["from"], "elsewhere")
        protocol.resolve(requests[1].request_id, {"ok": 1, "from": "a third place"})
        protocol.dataReceived(answer(requests[0], {"ok": 1}) + answer(requests[1], {"ok": 1}))
        self.assertEqual(self.successResultOf(first), {"ok": 1})
        self.assertEqual(late, [True])


class DirectWriteTests(SynchronousTestCase):
    """A request that is alone on a plain connection is handed to the kernel at once."""

    def test_alone(self) -> None:
        """The first request skips the transport's buffer; one behind it does not, until its reply has come."""
        transport = DirectTransport()
        protocol, _ = connected(transport)
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual((len(transport.direct), transport.value()), (1, b""))
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(len(transport.direct), 1)
        requests = [decode_message(transport.direct[0]), *written(transport)]
        protocol.dataReceived(answer(requests[0], {"ok": 1}))
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(len(transport.direct), 1)
        protocol.dataReceived(answer(requests[1], {"ok": 1}) + answer(written(transport)[0], {"ok": 1}))
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(len(transport.direct), 2)

    def test_piece_by_piece(self) -> None:
        """The kernel is offered more as long as it takes some."""
        transport = DirectTransport()
        transport.room = 10
        protocol, _ = connected(transport)
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(transport.value(), b"")
        self.assertGreater(len(transport.direct), 3)
        [frame] = Decoder().feed(b"".join(transport.direct))
        self.assertEqual(decode_message(frame).to_dict(), {"ping": 1, "$db": "admin"})  # type: ignore[union-attr]

    def test_partly(self) -> None:
        """What the kernel did not take, or what is left after an error, goes through the buffer, in order."""
        for number, rooms in ((1, [10, 0]), (2, [10, 10, ConnectionLost()])):
            transport = FillingTransport(rooms)
            protocol, _ = connected(transport)
            protocol.send_msg(ping(), DEFAULT, None)
            self.assertEqual([len(part) for part in transport.direct], [10] * number)
            [frame] = Decoder().feed(b"".join(transport.direct) + transport.value())
            self.assertEqual(decode_message(frame).to_dict(), {"ping": 1, "$db": "admin"})  # type: ignore[union-attr]

    def test_not_at_all(self) -> None:
        """After an error, or with a full kernel buffer, all is left to the transport, which meets the error itself."""
        for room in (ConnectionLost(), 0):
            transport = DirectTransport()
            transport.room = room
            protocol, _ = connected(transport)
            protocol.send_msg(ping(), DEFAULT, None)
            self.assertEqual(written(transport)[0].to_dict(), {"ping": 1, "$db": "admin"})

    def test_never_below_tls(self) -> None:
        """A transport that only lends writeSomeData from the one below it, as TLS does, is never bypassed."""

        class Wrapper(AbortableTransport):
            below = DirectTransport()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.below, name)

        transport = Wrapper()
        protocol, _ = connected(transport)
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(transport.below.direct, [])
        self.assertEqual(len(written(transport)), 1)
        started_tls = DirectTransport()
        started_tls.TLS = True  # type: ignore[attr-defined]
        protocol, _ = connected(started_tls)
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(started_tls.direct, [])

    def test_behind_unacknowledged(self) -> None:
        """A request never overtakes an unacknowledged one that is still in the buffer."""
        transport = DirectTransport()
        protocol, _ = connected(transport)
        msg = Msg(body=bson.encode({"insert": "c", "$db": "d"}), flag_bits=MORE_TO_COME)
        protocol.send_msg(msg, DEFAULT, None)
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(transport.direct, [])
        self.assertEqual([next(iter(m.to_dict())) for m in written(transport)], ["insert", "ping"])

    def test_behind_old_opcodes(self) -> None:
        """Nor one of the messages that are sent without waiting for anything."""
        transport = DirectTransport()
        protocol, _ = connected(transport)
        protocol.send_INSERT(Insert(collection="a.b"))
        protocol.send_QUERY(TheirQuery(collection="a.b"))
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertEqual(transport.direct, [])
        self.assertEqual([m.opcode for m in written(transport)], [OP_INSERT, OP_QUERY, OP_MSG])


class CancelTests(SynchronousTestCase):
    """A request that nobody waits for any more leaves the connection as it was."""

    def test_late_reply_is_dropped(self) -> None:
        """After a cancel the reply is discarded, the hook is told, and the next request gets its own reply."""
        protocol, transport = connected()
        late: list[bool] = []
        protocol.late_reply_hook = lambda: late.append(True)
        cancelled = protocol.send_msg(ping(), DEFAULT, None)
        other = protocol.send_msg(ping(), DEFAULT, None)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual((protocol.in_flight, protocol.inflight()), (2, 1))
        requests = written(transport)
        protocol.dataReceived(answer(requests[0], {"ok": 0, "errmsg": "late"}) + answer(requests[1], {"ok": 1}))
        self.assertEqual(self.successResultOf(other), {"ok": 1})
        self.assertEqual(late, [True])
        self.assertFalse(transport.aborted)

    def test_without_hook(self) -> None:
        """A late reply without a hook is just dropped."""
        protocol, transport = connected()
        cancelled = protocol.send_msg(ping(), DEFAULT, None)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1}))
        self.assertEqual(protocol.in_flight, 0)


class LateReplyTests(SynchronousTestCase):
    """Somebody may see the reply of a request for which nobody waits any more."""

    def setUp(self) -> None:
        """A request that was cancelled while another one is in flight."""
        self.protocol, self.transport = connected()
        self.late: list[Any] = []
        cancelled = self.protocol.send_msg(ping(), DEFAULT, None)
        self.other = self.protocol.send_msg(ping(), DEFAULT, None)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.requests = written(self.transport)
        self.protocol.expect_late(self.requests[0].request_id, lambda body: self.late.append(bson.decode(body)))

    def test_shown(self) -> None:
        """It gets the document, after the hook was told, and the other request its own reply."""
        self.protocol.late_reply_hook = lambda: self.late.append("hook")
        self.protocol.dataReceived(answer(self.requests[0], {"ok": 0, "x": 1}) + answer(self.requests[1], {"ok": 1}))
        self.assertEqual(self.late, ["hook", {"ok": 0, "x": 1}])
        self.assertEqual(self.successResultOf(self.other), {"ok": 1})

    def test_not_a_reply(self) -> None:
        """What is not the reply to a command is not shown."""
        reply = TheirReply(response_to=self.requests[0].request_id, documents=[{"ok": 1}])
        self.protocol.dataReceived(reply.encode(7))
        self.assertEqual(self.late, [])

    def test_lost(self) -> None:
        """With the connection the reply is lost too."""
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.other, AutoReconnect)
        self.assertEqual(self.late, [])

    def test_unknown(self) -> None:
        """A request that was answered, or is not one of send_msg's, is of no account."""
        self.protocol.expect_late(12345, self.late.append)
        command = self.protocol.command("admin", {"ping": 1})
        request = written(self.transport)[0]
        self.protocol.expect_late(request.request_id, self.late.append)
        for each in (*self.requests, request):
            self.protocol.dataReceived(answer(each, {"ok": 1}))
        self.successResultOf(command)
        self.successResultOf(self.other)
        self.assertEqual(self.late, [{"ok": 1}])


class StreamTests(SynchronousTestCase):
    """Commands that are answered more than once."""

    def stream(self) -> tuple[MongoProtocol, Any, Any, list[Any], Deferred[None]]:
        """A stream that was just started."""
        protocol, transport = connected()
        seen: list[Any] = []
        msg = Msg(body=bson.encode({"hello": 1, "$db": "admin"}), flag_bits=EXHAUST_ALLOWED)
        ended = protocol.stream(msg, lambda reply: seen.append(reply.to_dict()))
        return protocol, transport, written(transport)[0], seen, ended

    def test_replies(self) -> None:
        """Each reply answers the one before it; the one without moreToCome is the last."""
        protocol, _, request, seen, ended = self.stream()
        first = Msg(1001, request.request_id, bson.encode({"n": 1}), MORE_TO_COME)
        second = Msg(1002, 1001, bson.encode({"n": 2}), MORE_TO_COME)
        last = Msg(1003, 1002, bson.encode({"n": 3}))
        protocol.dataReceived(first.encode(1001) + second.encode(1002))
        self.assertEqual(seen, [{"n": 1}, {"n": 2}])
        self.assertNoResult(ended)
        protocol.dataReceived(last.encode(1003))
        self.assertEqual(seen[-1], {"n": 3})
        self.assertIs(self.successResultOf(ended), None)

    def test_nothing_behind(self) -> None:
        """Nothing is sent behind a stream, and no stream is started behind anything."""
        protocol, transport, _, _, _ = self.stream()
        self.failureResultOf(protocol.send_msg(ping(), DEFAULT, None), InvalidOperation)
        self.assertEqual(written(transport), [])
        protocol, _ = connected()
        protocol.send_msg(ping(), DEFAULT, None)
        self.assertRaises(InvalidOperation, protocol.stream, ping(), lambda reply: None)

    def test_cancel(self) -> None:
        """Cancelling a stream cuts the connection: nothing else stops the server."""
        _, transport, _, _, ended = self.stream()
        ended.cancel()
        self.failureResultOf(ended, CancelledError)
        self.assertTrue(transport.aborted)

    def test_after_loss(self) -> None:
        """A stream on a lost connection is refused."""
        protocol, _ = connected()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(protocol.stream(ping(), lambda reply: None), AutoReconnect)

    def test_unasked(self) -> None:
        """moreToCome in the reply to an ordinary request is a protocol error."""
        protocol, transport = connected()
        reply = protocol.send_msg(ping(), DEFAULT, None)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1}, MORE_TO_COME))
        self.assertTrue(transport.aborted)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(reply, AutoReconnect)


class Clock:
    """Takes the cluster time of replies."""

    def __init__(self) -> None:
        self.latest = -1

    def take(self, cluster_time: int, element: bytes) -> None:
        self.latest = cluster_time


class EncodedMsgTests(SynchronousTestCase):
    """Commands of the driver's most travelled ways."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.protocol, self.transport = connected()

    def send(self, options: CodecOptions[Any] = DEFAULT) -> Deferred[Any]:
        request_id = next_request_id()
        wire = encode_elements(request_id, [bson.encode({"find": "c", "$db": "d"})[4:-1]])
        return self.protocol.send_msg(EncodedMsg(request_id, wire, 0, None, self.clock), options, None)

    def test_times_are_taken(self) -> None:
        """The reply comes without the times, and the clock has the cluster time."""
        reply = self.send()
        [request] = written(self.transport)
        self.assertEqual(request.to_dict(), {"find": "c", "$db": "d"})
        signature = {"hash": Binary(b"h" * 20), "keyId": Int64(1)}
        times = {
            "$clusterTime": {"clusterTime": Timestamp(5, 6), "signature": signature},
            "operationTime": Timestamp(5, 6),
        }
        self.protocol.dataReceived(answer(request, {"x": 1, "ok": 1.0, **times}))
        self.assertEqual(self.successResultOf(reply), {"x": 1, "ok": 1.0})
        self.assertEqual(self.clock.latest, 5 << 32 | 6)

    def test_other_reply(self) -> None:
        """A reply that is not so is decoded as a whole and checked."""
        replies = [self.send() for _ in range(2)]
        first, second = written(self.transport)
        self.protocol.dataReceived(answer(first, {"x": 1, "ok": 1.0}) + answer(second, {"ok": 0.0, "errmsg": "no"}))
        self.assertEqual(self.successResultOf(replies[0]), {"x": 1, "ok": 1.0})
        self.failureResultOf(replies[1], OperationFailure)

    def test_compressed_reply(self) -> None:
        """A reply that is compressed is read and checked; a late one is dropped."""
        replies = [self.send() for _ in range(3)]
        late: list[None] = []
        replies[1].cancel()
        replies[2].cancel()
        self.failureResultOf(replies[1], CancelledError)
        self.failureResultOf(replies[2], CancelledError)
        for request, told in zip(written(self.transport), (0, 0, 1), strict=True):
            if told:
                self.protocol.late_reply_hook = lambda: late.append(None)
            self.protocol.dataReceived(compress(answer(request, {"x": 1, "ok": 1.0}), Zlib(-1)))
            self.assertEqual(len(late), told)
        self.assertEqual(self.successResultOf(replies[0]), {"x": 1, "ok": 1.0})
        self.assertEqual(self.protocol.in_flight, 0)

    def test_large_reply(self) -> None:
        """One that has to be decoded in one piece is so without a collection of garbage, compressed or not."""
        collected: list[bool] = []

        class Document(dict[str, Any]):
            def __setitem__(self, key: str, value: Any) -> None:
                collected.append(gc.isenabled())
                super().__setitem__(key, value)

        documents = [{"_id": number} for number in range(10_000)]
        for wrap in (lambda data: data, lambda data: compress(data, Zlib(-1))):
            reply = self.send(CodecOptions(document_class=Document))
            request = written(self.transport)[-1]
            self.protocol.dataReceived(wrap(answer(request, {"documents": documents, "ok": 1.0})))
            self.assertEqual(self.successResultOf(reply), {"documents": documents, "ok": 1.0})
        self.assertEqual(len(collected), 2 * 10_002)
        self.assertEqual(set(collected), {False})
        self.assertTrue(gc.isenabled())

    def test_other_kind_of_message(self) -> None:
        """A command that is answered by anything but an OP_MSG fails."""
        reply = self.send()
        [request] = written(self.transport)
        legacy = Reply(response_to=request.request_id, documents=[bson.encode({"ok": 1})])
        self.protocol.dataReceived(legacy.encode(next_request_id()))
        self.failureResultOf(reply, ProtocolError)


class SeamTests(SynchronousTestCase):
    """Programs put a _send_raw_msg of their own in the place of the protocol's."""

    def seen(self, protocol: MongoProtocol, transport: Any, messages: list[Msg], replies: list[Any]) -> None:
        reply = protocol.send_msg(ping(), DEFAULT, None)
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1, "x": 2}))
        self.assertEqual(self.successResultOf(reply), {"ok": 1, "x": 2})
        self.assertEqual(
            [message.to_dict() for message in [*messages, *replies]], [ping().to_dict(), {"ok": 1, "x": 2}]
        )

    def test_on_the_class(self) -> None:
        """One on a subclass sees each message and its reply."""
        messages: list[Msg] = []
        replies: list[Any] = []

        class Traced(MongoProtocol):
            def _send_raw_msg(self, msg: Msg) -> Deferred[Any]:
                messages.append(msg)
                return super()._send_raw_msg(msg).addCallback(self.note)

            def note(self, reply: Any) -> Any:
                replies.append(reply)
                return reply

        protocol, transport = Traced(), AbortableTransport()
        protocol.makeConnection(transport)
        self.seen(protocol, transport, messages, replies)

    def test_on_the_instance(self) -> None:
        """One on an instance sees each message; a request that is answered elsewhere passes it too."""
        messages: list[Msg] = []
        protocol, transport = connected()
        original = protocol._send_raw_msg

        def traced(msg: Msg) -> Deferred[Any]:
            messages.append(msg)
            return original(msg)

        self.patch(protocol, "_send_raw_msg", traced)
        self.seen(protocol, transport, messages, [Msg(body=bson.encode({"ok": 1, "x": 2}))])
        moved = protocol.send_msg(ping(), DEFAULT, None)
        protocol.resolve(written(transport)[0].request_id, {"ok": 1, "y": 3})
        self.assertEqual(self.successResultOf(moved), {"ok": 1, "y": 3})

    def test_raw(self) -> None:
        """It may be called itself, and fires with the reply as a message, or with None at once for no reply."""
        protocol, transport = connected()
        reply = protocol._send_raw_msg(ping())
        protocol.dataReceived(answer(written(transport)[0], {"ok": 1}))
        self.assertEqual(self.successResultOf(reply).to_dict(), {"ok": 1})
        unacknowledged = Msg(body=ping().body, flag_bits=MORE_TO_COME)
        self.assertIsNone(self.successResultOf(protocol._send_raw_msg(unacknowledged)))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(protocol._send_raw_msg(ping()), AutoReconnect)


class LossTests(SynchronousTestCase):
    """The end of a connection reaches everybody once."""

    def test_all_waiters_fail(self) -> None:
        """Every waiter fails with an AutoReconnect of its own, then the hook is called, once."""
        protocol, _ = connected()
        calls: list[Failure] = []
        protocol.lost_hook = calls.append
        replies = [protocol.send_msg(ping(), DEFAULT, None) for _ in range(3)]
        replies[1].cancel()
        self.failureResultOf(replies[1], CancelledError)
        protocol.connectionLost(Failure(ConnectionLost()))
        protocol.connectionLost(Failure(ConnectionLost()))
        errors = [self.failureResultOf(replies[n], AutoReconnect).value for n in (0, 2)]
        self.assertIsNot(errors[0], errors[1])
        self.assertEqual(len(calls), 1)

    def test_refused_afterwards(self) -> None:
        """After a loss every kind of request is refused with AutoReconnect."""
        protocol, _ = connected()
        protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(protocol.send_msg(ping(), DEFAULT, None), AutoReconnect)
        self.failureResultOf(protocol.command("admin", {"ping": 1}), AutoReconnect)
        self.failureResultOf(protocol.send_query(Query()), AutoReconnect)
        self.failureResultOf(protocol.connectionReady(), AutoReconnect)

    def test_abort_keeps_its_reason(self) -> None:
        """What waits when a connection is aborted fails with the reason that was given, of its own class."""

        class StepDown(AutoReconnect):
            pass

        protocol, transport = connected()
        reply = protocol.send_msg(ping(), DEFAULT, None)
        reason = StepDown("the primary let go")
        protocol.abort(reason)
        protocol.abort(AutoReconnect("too late"))
        self.assertTrue(transport.aborted)
        protocol.connectionLost(Failure(ConnectionDone()))
        error = self.failureResultOf(reply, StepDown).value
        self.assertIsNot(error, reason)
        self.assertIs(error.__cause__, reason)

    def test_fail_takes_a_failure(self) -> None:
        """fail() takes a Failure or an exception."""
        for reason in (Failure(ValueError("x")), ValueError("x")):
            protocol, _ = connected()
            protocol.fail(reason)
            self.failureResultOf(protocol.send_msg(ping(), DEFAULT, None), AutoReconnect)

    def test_close(self) -> None:
        """close() lets what was written leave, and refuses more."""
        protocol, transport = connected()
        protocol.close()
        self.assertTrue(transport.disconnecting)
        self.failureResultOf(protocol.send_msg(ping(), DEFAULT, None), AutoReconnect)
        MongoProtocol().close()

    def test_abort_gently(self) -> None:
        """A transport that cannot be aborted is closed; a protocol without one only notes the reason."""
        protocol = MongoProtocol()
        transport: Any = Gentle()
        protocol.makeConnection(transport)
        protocol.abort(ValueError("the end"))
        self.assertTrue(transport.disconnecting)
        unconnected = MongoProtocol()
        unconnected.abort(ValueError("the end"))
        self.assertIn("the end", str(self.failureResultOf(unconnected.send_query(Query()), AutoReconnect).value))

    def test_close_after_abort(self) -> None:
        """The first reason stands."""
        protocol, _ = connected()
        protocol.abort(ValueError("the first"))
        protocol.close()
        self.assertIn("the first", str(self.failureResultOf(protocol.send_query(Query()), AutoReconnect).value))

    def test_garbage(self) -> None:
        """Bytes that are not the protocol cut the connection; whole replies before them still count."""
        protocol, transport = connected()
        first = protocol.send_msg(ping(), DEFAULT, None)
        second = protocol.send_msg(ping(), DEFAULT, None)
        requests = written(transport)
        protocol.dataReceived(answer(requests[0], {"ok": 1}) + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertEqual(self.successResultOf(first), {"ok": 1})
        self.assertTrue(transport.aborted)
        protocol.connectionLost(Failure(ConnectionDone()))
        error = self.failureResultOf(second, AutoReconnect).value
        self.assertIsInstance(error.__cause__, ProtocolError)

    def test_garbage_after_a_wrong_reply(self) -> None:
        """If a reply before the garbage is wrong itself, that is the reason."""
        protocol, transport = connected()
        reply = protocol.send_msg(ping(), DEFAULT, None)
        [request] = written(transport)
        protocol.dataReceived(Msg(1, request.request_id + 1).encode() + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertTrue(transport.aborted)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIn("not the oldest", str(self.failureResultOf(reply, AutoReconnect).value))

    def test_wrong_order(self) -> None:
        """A reply that is not for the oldest request in flight is a protocol error."""
        for wrong in ("second", "unknown", "none"):
            protocol, transport = connected()
            replies = [protocol.send_msg(ping(), DEFAULT, None) for _ in range(2)] if wrong != "none" else []
            requests = written(transport) if replies else [ping()]
            request = requests[1] if wrong == "second" else Msg(request_id=99)
            protocol.dataReceived(answer(request, {"ok": 1}))
            self.assertTrue(transport.aborted)
            protocol.connectionLost(Failure(ConnectionDone()))
            for reply in replies:
                self.failureResultOf(reply, AutoReconnect)

    def test_too_long(self) -> None:
        """A message above max_message_size is refused by its header."""
        protocol, transport = connected()
        protocol.max_message_size = 100
        self.assertEqual(protocol.max_message_size, 100)
        protocol.dataReceived((101).to_bytes(4, "little") + bytes(8) + (2013).to_bytes(4, "little"))
        self.assertTrue(transport.aborted)

    def test_before_connecting(self) -> None:
        """A protocol that was aborted before it was connected refuses requests for that reason."""
        protocol = MongoProtocol()
        protocol.abort(ValueError("not wanted"))
        self.assertIn("not wanted", str(self.failureResultOf(protocol.command("admin", {}), AutoReconnect).value))


class ReadyTests(SynchronousTestCase):
    """connectionReady tells each waiter."""

    def test_before_and_after(self) -> None:
        """It fires once the transport is there, and at once when it already is."""
        protocol = MongoProtocol()
        waiting = [protocol.connectionReady() for _ in range(2)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.assertNoResult(waiting[1])
        protocol.makeConnection(AbortableTransport())
        self.assertIs(self.successResultOf(waiting[1]), protocol)
        self.assertIs(self.successResultOf(protocol.connectionReady()), protocol)

    def test_never(self) -> None:
        """It fails when the connection is lost before it was made."""
        protocol = MongoProtocol()
        waiting = protocol.connectionReady()
        protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(waiting, AutoReconnect)

    def test_instance(self) -> None:
        """Under TxMongo's names it is its own instance, while it is connected."""
        protocol = MongoProtocol()
        self.assertIsNone(protocol.instance)
        waiting = protocol.notifyReady()
        protocol.makeConnection(AbortableTransport())
        self.assertIs(self.successResultOf(waiting), protocol)
        self.assertIs(protocol.instance, protocol)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIsNone(protocol.instance)

    def test_wire_versions(self) -> None:
        """set_wire_versions notes both."""
        protocol = MongoProtocol()
        protocol.set_wire_versions(0, 17)
        self.assertEqual((protocol.min_wire_version, protocol.max_wire_version), (0, 17))

    def test_peer_in_errors(self) -> None:
        """The error of a lost connection names the peer where there is one."""
        protocol, transport = connected()
        transport.getPeer = lambda: type("Address", (), {"host": "db.example", "port": 27017})()
        reply = protocol.send_msg(ping(), DEFAULT, None)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIn("db.example:27017", str(self.failureResultOf(reply, AutoReconnect).value))


class OldOpcodeTests(SynchronousTestCase):
    """What becomes of the old opcodes on a connection, and of replies where a subclass wants to see them."""

    def test_failure(self) -> None:
        """A reply that says of a failure fails the request alone."""
        protocol, transport = connected()
        waiting = protocol.send_QUERY(TheirQuery(collection="a.b"))
        [request] = written(transport)
        document = {"$err": "bad query", "code": 2}
        protocol.dataReceived(reply_to(request, response_flags=REPLY_QUERY_FAILURE, documents=[document]))
        self.assertEqual(self.failureResultOf(waiting, OperationFailure).value.code, 2)
        self.assertFalse(transport.aborted)

    def test_exhaust(self) -> None:
        """A query for a stream of replies is refused."""
        protocol, _ = connected()
        self.assertRaises(InvalidOperation, protocol.send_QUERY, TheirQuery(flags=QUERY_EXHAUST))

    def test_send(self) -> None:
        """What is no write leaves the outcome of the last one as it is."""
        protocol, transport = connected()
        before = protocol.last_write
        protocol.send_KILL_CURSORS(KillCursors(cursors=[5]))
        self.assertEqual(len(written(transport)), 1)
        self.assertIs(protocol.last_write, before)

    def test_overridden_hooks(self) -> None:
        """A subclass that overrides a hook sees each reply before the one who waits for it, by either name."""
        for hook in ("handle", "handle_msg", "handle_MSG", "handle_reply", "handle_REPLY"):
            seen: list[Any] = []

            def override(self: Any, request: Any, hook: str = hook, seen: list[Any] = seen) -> None:
                seen.append(request)
                getattr(MongoProtocol, hook)(self, request)

            protocol = type("Seeing", (MongoProtocol,), {hook: override})()
            transport = AbortableTransport()
            protocol.makeConnection(transport)
            command = protocol.send_msg(ping(), DEFAULT, None)
            query = protocol.send_QUERY(TheirQuery())
            requests = written(transport)
            protocol.dataReceived(answer(requests[0], {"ok": 1, "n": 1}))
            protocol.dataReceived(reply_to(requests[1], documents=[{"ok": 1}]))
            self.assertEqual(self.successResultOf(command), {"ok": 1, "n": 1})
            self.assertEqual(self.successResultOf(query).n_returned, 1)
            self.assertEqual(len(seen), 2 if hook == "handle" else 1, hook)

    def test_hooks_and_wrong_order(self) -> None:
        """A reply out of order is a protocol error for such a subclass too."""
        seeing = type("Seeing", (MongoProtocol,), {"handle_reply": MongoServerProtocol.handle_msg})()
        transport = AbortableTransport()
        seeing.makeConnection(transport)
        seeing.dataReceived(answer(Msg(request_id=99), {"ok": 1}))
        self.assertTrue(transport.aborted)

    def test_constants(self) -> None:
        """The flags of OP_MSG are those of the wire layer."""
        self.assertEqual(OP_MSG_EXHAUST_ALLOWED, EXHAUST_ALLOWED)
