"""``txmongo.protocol`` of TxMongo 15.2, live: the old opcodes at servers that understand them, and the rest at all."""

from __future__ import annotations

import struct
from typing import Any

from bson import BSON, ObjectId
from twisted.internet import defer, reactor
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.trial.unittest import TestCase

from tests.compat.servers import CompatTestCase, on_every_server, on_old_servers
from txmongo import protocol as wire
from txmongo.errors import AutoReconnect, CursorNotFound, DuplicateKeyError, OperationFailure, ProtocolError
from txmongo.protocol import (
    Delete,
    Getmore,
    Insert,
    KillCursors,
    MongoClientProtocol,
    MongoDecoder,
    MongoProtocol,
    MongoServerProtocol,
    Msg,
    Query,
    Reply,
    Update,
)

NAMESPACE = "txmongo_compat.things"


class ProtocolTestCase(CompatTestCase):
    """Protocols that no client and no factory has made."""

    async def connect(self, protocol: MongoProtocol | None = None) -> MongoProtocol:
        """One that is connected to the server, until the test is over."""
        protocol = protocol or MongoProtocol()
        endpoint = HostnameEndpoint(reactor, *self.server.address)
        gone: defer.Deferred[None] = defer.Deferred()
        protocol.lost_hook = lambda _: gone.callback(None)
        await connectProtocol(endpoint, protocol)

        def close() -> defer.Deferred[None]:
            protocol.fail(Exception("the test is over"))
            return gone

        self.addCleanup(close)
        return await protocol.connectionReady()


@on_old_servers
class OpcodeTests(ProtocolTestCase):
    """The opcodes that servers up to 5.0 take."""

    async def test_insert(self) -> None:
        """OP_INSERT stores its documents, dicts or BSON, in order up to the first error."""
        protocol = await self.connect()
        protocol.send_INSERT(Insert(collection=NAMESPACE, documents=[{"_id": 1}, BSON.encode({"_id": 2})]))
        self.assertEqual((await protocol.get_last_error("txmongo_compat"))["err"], None)
        self.assertEqual(await self.contents(), [{"_id": 1}, {"_id": 2}])
        protocol.send(Insert(0, 0, 0, wire.OP_INSERT, 0, NAMESPACE, [{"_id": 2}, {"_id": 3}]))
        error = await self.failure(protocol.get_last_error(NAMESPACE, w=1), DuplicateKeyError)
        self.assertEqual(error.code, 11000)
        self.assertEqual(len(await self.contents()), 2)

    async def test_continue_on_error(self) -> None:
        """With INSERT_CONTINUE_ON_ERROR the documents behind one that fails are stored."""
        protocol = await self.connect()
        documents = [{"_id": 1}, {"_id": 1}, {"_id": 2}]
        flags = wire.INSERT_CONTINUE_ON_ERROR
        protocol.send_INSERT(Insert(flags=flags, collection=NAMESPACE, documents=documents))
        await self.failure(protocol.get_last_error("txmongo_compat"), DuplicateKeyError)
        self.assertEqual(await self.contents(), [{"_id": 1}, {"_id": 2}])

    async def test_update(self) -> None:
        """OP_UPDATE changes one document, all with UPDATE_MULTI, and stores one with UPDATE_UPSERT."""
        await self.things.insert_many([{"_id": n, "x": 0} for n in range(3)])
        protocol = await self.connect()
        change = {"$inc": {"x": 1}}
        protocol.send_UPDATE(Update(collection=NAMESPACE, selector={}, update=change))
        outcome = await protocol.get_last_error("txmongo_compat")
        self.assertEqual((outcome["n"], outcome["updatedExisting"]), (1, True))
        protocol.send_UPDATE(Update(collection=NAMESPACE, flags=wire.UPDATE_MULTI, selector={}, update=change))
        self.assertEqual((await protocol.get_last_error("txmongo_compat"))["n"], 3)
        self.assertEqual(sorted(each["x"] for each in await self.contents()), [1, 1, 2])
        upsert = Update(collection=NAMESPACE, flags=wire.UPDATE_UPSERT, selector={"_id": 7}, update={"y": 1})
        protocol.send_UPDATE(upsert)
        outcome = await protocol.get_last_error("txmongo_compat")
        self.assertEqual((outcome["upserted"], outcome["updatedExisting"]), (7, False))

    async def test_delete(self) -> None:
        """OP_DELETE removes all documents that match, one with DELETE_SINGLE_REMOVE."""
        await self.things.insert_many([{"_id": n} for n in range(4)])
        protocol = await self.connect()
        protocol.send_DELETE(Delete(collection=NAMESPACE, flags=wire.DELETE_SINGLE_REMOVE, selector={}))
        self.assertEqual((await protocol.get_last_error("txmongo_compat"))["n"], 1)
        protocol.send_DELETE(Delete(collection=NAMESPACE, selector={"_id": {"$gt": 1}}))
        self.assertEqual((await protocol.get_last_error("txmongo_compat"))["n"], 2)
        self.assertEqual(await self.contents(), [{"_id": 1}])

    async def test_query_and_get_more(self) -> None:
        """OP_QUERY fires with the first page, OP_GET_MORE with the next ones; the last one has no cursor."""
        await self.things.insert_many([{"_id": n, "x": n} for n in range(10)])
        protocol = await self.connect()
        query = Query(collection=NAMESPACE, n_to_skip=1, n_to_return=4, query={"_id": {"$lt": 9}}, fields={"x": 0})
        reply = await protocol.send_QUERY(query)
        self.assertIsInstance(reply, Reply)
        self.assertEqual((reply.n_returned, reply.starting_from), (4, 0))
        self.assertEqual(reply.response_flags, wire.REPLY_AWAIT_CAPABLE)
        self.assertEqual([each.decode() for each in reply.documents], [{"_id": n} for n in range(1, 5)])
        self.assertNotEqual(reply.cursor_id, 0)
        more = Getmore(collection=NAMESPACE, n_to_return=10, cursor_id=reply.cursor_id)
        reply = await protocol.send_GETMORE(more)
        self.assertEqual([each.decode()["_id"] for each in reply.documents], [5, 6, 7, 8])
        self.assertEqual((reply.cursor_id, reply.starting_from), (0, 4))

    async def test_kill_cursors(self) -> None:
        """After OP_KILL_CURSORS the server does not know the cursor."""
        await self.things.insert_many([{"_id": n} for n in range(10)])
        protocol = await self.connect()
        reply = await protocol.send_QUERY(Query(collection=NAMESPACE, n_to_return=2))
        protocol.send_KILL_CURSORS(KillCursors(cursors=[reply.cursor_id]))
        more = Getmore(collection=NAMESPACE, n_to_return=2, cursor_id=reply.cursor_id)
        await self.failure(protocol.send_GETMORE(more), CursorNotFound)
        self.assertEqual(protocol.inflight(), 0)

    async def test_failed_query(self) -> None:
        """A query that the server refuses fails, and the connection lives on."""
        protocol = await self.connect()
        error = await self.failure(
            protocol.send_QUERY(Query(collection=NAMESPACE, query={"$query": {"$nothing": 1}})), OperationFailure
        )
        self.assertIn("$nothing", str(error))
        reply = await protocol.send_QUERY(Query(collection=NAMESPACE))
        self.assertEqual(reply.n_returned, 0)

    async def test_pipelined(self) -> None:
        """Old and new messages go one behind the other on one connection, each answered in its turn."""
        protocol = await self.connect()
        counts = []
        for number in range(50):
            protocol.send_INSERT(Insert(collection=NAMESPACE, documents=[{"_id": number}]))
            counts.append(protocol.send_QUERY(Query(collection=NAMESPACE, n_to_return=-100, fields={"_id": 1})))
            counts.append(protocol.command("txmongo_compat", {"count": "things"}))
        self.assertEqual(protocol.inflight(), 100)
        replies = await defer.gatherResults(counts)
        self.assertEqual([reply.n_returned for reply in replies[::2]], list(range(1, 51)))
        self.assertEqual([reply["n"] for reply in replies[1::2]], list(range(1, 51)))

    async def test_command_by_query(self) -> None:
        """Commands may be sent as queries, too."""
        protocol = await self.connect()
        self.assertEqual((await protocol.send_op_query_command("admin", {"ping": 1}))["ok"], 1)
        reply = await protocol.send_QUERY(Query(collection="admin.$cmd", n_to_return=-1, query={"ping": 1}))
        self.assertEqual(reply.documents[0].decode()["ok"], 1)

    async def test_last_error_of_the_driver(self) -> None:
        """get_last_error tells of the driver's own writes on that connection, those without an answer included."""
        client = self.client
        protocol = await client.getprotocol()
        await self.things.insert_one({"_id": 1})
        self.assertIsNone((await protocol.get_last_error("txmongo_compat"))["err"])


class Recorder(MongoServerProtocol, MongoClientProtocol):
    """Both ends of a conversation, as a small server or proxy of old is written; it keeps what its hooks are given."""

    def __init__(self) -> None:
        super().__init__()
        self.received: defer.DeferredQueue[tuple[str, Any]] = defer.DeferredQueue()
        self.lost: defer.Deferred[None] = defer.Deferred()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.lost.callback(None)

    def handle_REPLY(self, request: Any) -> None:
        self.received.put(("handle_REPLY", request))

    def handle_MSG(self, request: Any) -> None:
        self.received.put(("handle_MSG", request))

    def handle_UPDATE(self, request: Any) -> None:
        self.received.put(("handle_UPDATE", request))

    def handle_INSERT(self, request: Any) -> None:
        self.received.put(("handle_INSERT", request))

    def handle_QUERY(self, request: Any) -> None:
        self.received.put(("handle_QUERY", request))

    def handle_GETMORE(self, request: Any) -> None:
        self.received.put(("handle_GETMORE", request))

    def handle_DELETE(self, request: Any) -> None:
        self.received.put(("handle_DELETE", request))

    def handle_KILL_CURSORS(self, request: Any) -> None:
        self.received.put(("handle_KILL_CURSORS", request))


class HookTests(TestCase):
    """A server made of MongoServerProtocol's hooks, and a client made of MongoClientProtocol, over a socket."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Connect the two."""
        accepted: defer.Deferred[Recorder] = defer.Deferred()

        class Server(Recorder):
            def connectionMade(self) -> None:
                accepted.callback(self)

        factory = Factory.forProtocol(Server)
        factory.noisy = False
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)
        self.client = await connectProtocol(endpoint, Recorder())
        self.server = await accepted
        self.addCleanup(self.end)

    async def end(self) -> None:
        """Close the connection, and wait for both ends of it."""
        self.client.fail(None)
        await self.client.lost
        await self.server.lost

    async def arrived(self, hook: str, opcode: int, kind: type[Any], *fields: Any) -> Any:
        """The message that came to the server by this hook; it has the request id that was sent last, and these fields.

        :param fields: all that follow the header.
        """
        called, message = await self.server.received.get()
        self.assertEqual((called, message.opcode), (hook, opcode))
        self.assertIsInstance(message, kind)
        self.assertEqual(tuple(message)[4:], fields)
        return message

    async def test_update(self) -> None:
        """OP_UPDATE arrives as it was sent, under the request id that sending gave."""
        request_id = self.client.send_UPDATE(Update(collection="a.b", flags=3, selector={"x": 1}, update={"y": 2}))
        expected = (0, "a.b", 3, BSON.encode({"x": 1}), BSON.encode({"y": 2}))
        message = await self.arrived("handle_UPDATE", wire.OP_UPDATE, Update, *expected)
        self.assertEqual(message.request_id, request_id)

    async def test_insert(self) -> None:
        """OP_INSERT."""
        self.client.send_INSERT(Insert(flags=1, collection="a.b", documents=[{"x": 1}, {"x": 2}]))
        documents = [BSON.encode({"x": 1}), BSON.encode({"x": 2})]
        await self.arrived("handle_INSERT", wire.OP_INSERT, Insert, 1, "a.b", documents)

    async def test_query(self) -> None:
        """OP_QUERY."""
        self.client.send_QUERY(Query(flags=4, collection="a.b", n_to_skip=5, n_to_return=6, query={}, fields={"x": 1}))
        expected = (4, "a.b", 5, 6, BSON.encode({}), BSON.encode({"x": 1}))
        await self.arrived("handle_QUERY", wire.OP_QUERY, Query, *expected)

    async def test_getmore(self) -> None:
        """OP_GET_MORE."""
        self.client.send_GETMORE(Getmore(collection="a.b", n_to_return=5, cursor_id=77))
        await self.arrived("handle_GETMORE", wire.OP_GETMORE, Getmore, 0, "a.b", 5, 77)

    async def test_delete(self) -> None:
        """OP_DELETE."""
        self.client.send_DELETE(Delete(collection="a.b", flags=1, selector={"x": 1}))
        await self.arrived("handle_DELETE", wire.OP_DELETE, Delete, 0, "a.b", 1, BSON.encode({"x": 1}))

    async def test_kill_cursors(self) -> None:
        """OP_KILL_CURSORS."""
        self.client.send_KILL_CURSORS(KillCursors(cursors=[77, 78]))
        await self.arrived("handle_KILL_CURSORS", wire.OP_KILL_CURSORS, KillCursors, 0, 2, [77, 78])

    async def test_reply(self) -> None:
        """OP_REPLY, the server's answer to a query, which names the request that it answers."""
        request_id = self.client.send_QUERY(Query(collection="a.b"))
        _, query = await self.server.received.get()
        flags = wire.REPLY_CURSOR_NOT_FOUND | wire.REPLY_QUERY_FAILURE
        flags |= wire.REPLY_SHARD_CONFIG_STALE | wire.REPLY_AWAIT_CAPABLE
        answer = Reply(response_to=query.request_id, response_flags=flags, cursor_id=7, documents=[{"x": 1}])
        self.server.send_REPLY(answer)
        hook, reply = await self.client.received.get()
        self.assertEqual((hook, reply.opcode, reply.response_to), ("handle_REPLY", wire.OP_REPLY, request_id))
        self.assertEqual((reply.response_flags, reply.cursor_id, reply.n_returned), (flags, 7, 1))
        self.assertEqual(reply.documents[0].decode(), {"x": 1})

    async def test_msg(self) -> None:
        """OP_MSG there and back."""
        request_id = self.client.send_MSG(Msg.create({"ping": 1, "$db": "admin"}))
        hook, message = await self.server.received.get()
        self.assertEqual((hook, message.opcode, message.request_id), ("handle_MSG", wire.OP_MSG, request_id))
        self.assertEqual(message.to_dict(), {"ping": 1, "$db": "admin"})
        self.assertIsInstance(self.client, MongoClientProtocol)
        self.assertIsInstance(self.server, MongoServerProtocol)
        self.server.send_MSG(Msg.create({"ok": 1}, response_to=message.request_id))
        hook, reply = await self.client.received.get()
        self.assertEqual((hook, reply.response_to, reply.to_dict()), ("handle_MSG", request_id, {"ok": 1}))

    async def test_old_msg(self) -> None:
        """The message of opcode 1000, which 15.2 called Msg: it is written, though no server reads it."""
        message = Msg(0, 5, 6, wire.OP_MSG_LEGACY, "hello")
        self.assertIsInstance(message, Msg)
        self.assertEqual(tuple(message), (0, 5, 6, 1000, "hello"))
        self.assertEqual((message.len, message.request_id, message.response_to), (0, 5, 6))
        self.assertEqual((message.opcode, message.message), (wire.OP_MSG_LEGACY, "hello"))
        seen: defer.Deferred[bytes] = defer.Deferred()
        self.server.dataReceived = seen.callback  # type: ignore[method-assign]
        request_id = self.client.send_MSG(message)
        self.assertEqual(await seen, struct.pack("<iiii", 22, request_id, 6, 1000) + b"hello\0")

    async def test_send(self) -> None:
        """send() takes the method for the kind of the message."""
        kinds = (Insert, Update, Delete, Query, Getmore, KillCursors, Reply)
        for kind in kinds:
            self.client.send(kind())
        self.client.send(Msg.create({"ping": 1}))
        came = [(await self.server.received.get()) for _ in range(8)]
        self.assertEqual([hook for hook, _ in came], [f"handle_{wire.OP_NAMES[each.opcode]}" for _, each in came])
        self.assertEqual([type(each) for _, each in came[:7]], [*kinds])

    async def test_handle(self) -> None:
        """dataReceived() hands each whole message to handle(), which a proxy may take the place of."""
        seen: list[Any] = []
        self.server.handle = seen.append  # type: ignore[method-assign]
        data = Query(collection="a.b").encode(1) + Getmore(collection="a.b").encode(2)
        self.server.dataReceived(data[:20])
        self.server.dataReceived(data[20:-1])
        self.assertEqual([each.request_id for each in seen], [1])
        self.server.dataReceived(data[-1:])
        self.assertEqual([type(each) for each in seen], [Query, Getmore])


@on_every_server
class ProtocolTests(ProtocolTestCase):
    """What every server takes."""

    async def test_without_factory(self) -> None:
        """A protocol by itself is ready once connected, greets by OP_QUERY, and sends commands."""
        protocol = await self.connect()
        self.assertIs(await protocol.connectionReady(), protocol)
        hello = await protocol.send_op_query_command("admin", {"isMaster": 1})
        protocol.init_from_hello_response(hello)
        self.assertEqual(protocol.max_wire_version, hello["maxWireVersion"])
        self.assertEqual(protocol.min_wire_version, 0)
        self.assertEqual(protocol.max_bson_size, 16 * 1024 * 1024)
        reply = await protocol.send_query(Query(collection="admin.$cmd", n_to_return=-1, query={"ismaster": 1}))
        self.assertEqual(reply.documents[0].decode()["ok"], 1)

    async def test_send_msg(self) -> None:
        """send_msg fires with the reply's document, _send_raw_msg with the reply."""
        protocol = await self.connect()
        msg = Msg.create({"insert": "things", "$db": "txmongo_compat"}, {"documents": [{"_id": 1}, {"_id": 2}]})
        reply = await protocol.send_msg(msg, self.client.codec_options, None)
        self.assertEqual(reply["n"], 2)
        raw = await protocol._send_raw_msg(Msg.create({"count": "things", "$db": "txmongo_compat"}))
        self.assertIsInstance(raw, Msg)
        self.assertEqual(raw.to_dict()["n"], 2)
        self.assertEqual(raw.opcode(), wire.OP_MSG)

    async def test_unacknowledged(self) -> None:
        """A Msg that is not to be answered fires with None at once and is carried out."""
        protocol = await self.connect()
        msg = Msg.create(
            {"insert": "things", "$db": "txmongo_compat", "writeConcern": {"w": 0}},
            {"documents": [{"_id": 1}]},
            acknowledged=False,
        )
        self.assertIsNone(await protocol.send_msg(msg, self.client.codec_options, None))
        self.assertEqual((await protocol.command("txmongo_compat", {"count": "things"}))["n"], 1)

    async def test_send_without_waiting(self) -> None:
        """send_MSG writes and gives the request id; the reply comes to the hook that overrides handle_msg."""
        seen: list[Any] = []

        class Listening(MongoProtocol):
            def handle_msg(self, request: Any) -> None:
                seen.append(request)
                came.callback(None)

        came: defer.Deferred[None] = defer.Deferred()
        protocol = await self.connect(Listening())
        request_id = protocol.send_MSG(Msg.create({"ping": 1, "$db": "admin"}))
        await came
        self.assertEqual((seen[0].response_to, seen[0].to_dict()["ok"]), (request_id, 1))
        self.assertGreater(protocol.get_request_id(), request_id)

    async def test_hooks_see_every_reply(self) -> None:
        """A subclass with handle_MSG sees what comes, and passes it on."""
        seen: list[Any] = []

        class Seeing(MongoProtocol):
            def handle_MSG(self, request: Any) -> None:
                seen.append(request.to_dict())
                super().handle_MSG(request)

        protocol = await self.connect(Seeing())
        for _ in range(3):
            await protocol.command("admin", {"ping": 1})
        self.assertEqual([each["ok"] for each in seen], [1, 1, 1])

    async def test_reply_hook(self) -> None:
        """A subclass with handle_REPLY sees the reply to a query, and passes it on."""
        seen: list[Any] = []

        class Seeing(MongoProtocol):
            def handle_REPLY(self, request: Any) -> None:
                seen.append(request)
                super().handle_REPLY(request)

        protocol = await self.connect(Seeing())
        reply = await protocol.send_QUERY(Query(collection="admin.$cmd", n_to_return=-1, query={"ismaster": 1}))
        self.assertEqual(seen, [reply])

    async def test_life(self) -> None:
        """A subclass with connectionMade and connectionLost hears of both; versions may be noted by hand."""
        heard: list[str] = []

        class Hearing(MongoProtocol):
            def connectionMade(self) -> None:
                heard.append("made")
                super().connectionMade()

            def connectionLost(self, reason: Any = connectionDone) -> None:
                heard.append(reason.type.__name__)
                super().connectionLost(reason)

        protocol = await self.connect(Hearing())
        protocol.set_wire_versions(2, 3)
        self.assertEqual((protocol.min_wire_version, protocol.max_wire_version), (2, 3))
        gone: defer.Deferred[None] = defer.Deferred()
        hook = protocol.lost_hook

        def lost(reason: Any) -> None:
            assert hook is not None
            hook(reason)
            gone.callback(None)

        protocol.lost_hook = lost
        protocol.fail(ProtocolError("enough"))
        await gone
        self.assertEqual(heard, ["made", "ConnectionAborted"])

    async def test_fail(self) -> None:
        """fail() closes the connection; what was sent fails, and so does what is sent later."""
        protocol = await self.connect()
        slow = protocol.command("admin", {"ping": 1})
        self.assertEqual(protocol.inflight(), 1)
        protocol.fail(ProtocolError("enough"))
        await self.failure(slow, AutoReconnect)
        self.assertEqual(protocol.inflight(), 0)
        await self.failure(protocol.command("admin", {"ping": 1}), AutoReconnect)
        await self.failure(protocol.connectionReady(), AutoReconnect)

    async def test_decoder(self) -> None:
        """What a server sends is taken apart by a MongoDecoder, however it was cut."""
        data: list[bytes] = []

        class Recording(MongoProtocol):
            def dataReceived(self, piece: bytes) -> None:
                data.append(piece)
                super().dataReceived(piece)

        protocol = await self.connect(Recording())
        for _ in range(3):
            await protocol.command("admin", {"ping": 1})
        decoder = MongoDecoder()
        whole = b"".join(data)
        for start in range(0, len(whole), 7):
            decoder.feed(whole[start : start + 7])
        messages = [decoder.next() for _ in range(4)]
        self.assertIsNone(messages.pop())
        self.assertEqual([each.to_dict()["ok"] for each in messages], [1, 1, 1])
        self.assertEqual(decoder.dataBuffer, b"")
        (length,) = struct.unpack_from("<i", whole)
        self.assertEqual(MongoDecoder.decode(whole[:length]).to_dict(), messages[0].to_dict())

    async def test_last_error(self) -> None:
        """get_last_error tells how the last write of a client's connection ended."""
        client = self.client
        await client.disconnect()
        from txmongo.connection import MongoConnection

        host, port = self.server.address
        client = MongoConnection(host, port)
        self.addCleanup(client.disconnect)
        things = client.txmongo_compat.things
        protocol = await client.getprotocol()
        outcome = await protocol.get_last_error("txmongo_compat")
        self.assertEqual((outcome["err"], outcome["n"]), (None, 0))
        await things.insert_many([{"_id": n} for n in range(3)])
        await things.update_many({}, {"$set": {"x": 1}})
        outcome = await protocol.get_last_error("txmongo_compat")
        self.assertEqual((outcome["n"], outcome["updatedExisting"], outcome["err"]), (3, True, None))
        new_id = ObjectId()
        await things.update_one({"_id": new_id}, {"$set": {"x": 1}}, upsert=True)
        outcome = await protocol.get_last_error("txmongo_compat.things")
        self.assertEqual((outcome["n"], outcome["updatedExisting"], outcome["upserted"]), (1, False, new_id))
        await things.delete_many({"x": 1})
        self.assertEqual((await protocol.get_last_error("txmongo_compat"))["n"], 4)
        await things.insert_one({"_id": 1})
        await self.failure(things.insert_one({"_id": 1}), DuplicateKeyError)
        await self.failure(protocol.get_last_error("txmongo_compat"), DuplicateKeyError)
        await things.find_one_and_update({"_id": 1}, {"$set": {"y": 1}})
        outcome = await protocol.get_last_error("txmongo_compat")
        self.assertEqual((outcome["n"], outcome["updatedExisting"]), (1, True))
