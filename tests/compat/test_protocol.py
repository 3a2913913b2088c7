"""``txmongo.protocol`` of TxMongo 15.2, live: the old opcodes at servers that understand them, and the rest at all."""

from __future__ import annotations

from typing import Any

from bson import BSON, ObjectId
from twisted.internet import defer, reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from tests.compat.servers import CompatTestCase, on_every_server, on_old_servers
from txmongo import protocol as wire
from txmongo.errors import AutoReconnect, CursorNotFound, DuplicateKeyError, OperationFailure, ProtocolError
from txmongo.protocol import (
    Delete,
    Getmore,
    Insert,
    KillCursors,
    MongoDecoder,
    MongoProtocol,
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
