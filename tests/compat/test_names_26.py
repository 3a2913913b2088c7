"""What TxMongo 26.0 has beside 15.2, at work: sessions, bulk writes, limits, and the messages of the wire protocol."""

from __future__ import annotations

from typing import Any

from bson import BSON, SON
from bson.codec_options import CodecOptions
from pymongo.operations import DeleteOne, InsertOne, UpdateMany
from pymongo.write_concern import WriteConcern
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase

import txmongo
from tests.compat.servers import CompatTestCase, on_every_server
from tests.compat.test_protocol import ProtocolTestCase
from txmongo import protocol as wire
from txmongo import utils
from txmongo.connection import ConnectionPool
from txmongo.errors import BulkWriteError, InvalidOperation, TimeExceeded
from txmongo.protocol import (
    BaseMessage,
    MongoDecoder,
    MongoProtocol,
    MongoReceiverProtocol,
    MongoSenderProtocol,
    Msg,
    Query,
    Reply,
)
from txmongo.sessions import ClientSession, SessionOptions, TransactionOptions

reactor: Any = _reactor
A = BSON.encode({"a": 1})


@on_every_server
class PackageTests(CompatTestCase):
    """What the package itself offers."""

    async def test_names(self) -> None:
        """Clients, Database, MongoProtocol and Query are reached from the package; types.Document is a type of them."""
        host, port = self.server.address
        for make in (
            txmongo.MongoConnection,
            txmongo.MongoConnectionPool,
            txmongo.lazyMongoConnection,
            txmongo.lazyMongoConnectionPool,
        ):
            client: Any = make(host, port)
            self.addCleanup(client.disconnect)
            self.assertIsInstance(client.txmongo_compat, txmongo.Database)
            protocol = await client.getprotocol()
            self.assertIsInstance(protocol, txmongo.MongoProtocol)
            query = txmongo.Query(collection="admin.$cmd", n_to_return=-1, query={"ismaster": 1})
            self.assertEqual((await protocol.send_query(query)).documents[0].decode()["ok"], 1)
        self.assertIsNotNone(txmongo.types.Document)


@on_every_server
class ClientTests(CompatTestCase):
    """``txmongo.connection.ConnectionPool``."""

    async def test_codec_options(self) -> None:
        """The client's codec_options are those of its databases and collections."""
        client: ConnectionPool[Any] = ConnectionPool(self.uri, codec_options=CodecOptions(SON))
        self.addCleanup(client.disconnect)
        self.assertIs(client.codec_options.document_class, SON)
        await self.things.insert_one({"_id": 1})
        found = await client.txmongo_compat.things.find_one()
        self.assertIs(type(found), SON)

    async def test_drop_database(self) -> None:
        """drop_database takes a name or a Database."""
        for database in ("txmongo_dropped", self.client.txmongo_dropped):
            await self.client.txmongo_dropped.things.insert_one({})
            self.assertIn("txmongo_dropped", await self.client.list_database_names())
            await self.client.drop_database(database)
            self.assertNotIn("txmongo_dropped", await self.client.list_database_names())


@on_every_server
class DatabaseTests(CompatTestCase):
    """``txmongo.database.Database``."""

    async def test_call(self) -> None:
        """Calling a database by __call__ with a name gives a collection; with anything else it says what is wrong."""
        self.assertEqual(self.database.__call__("things"), self.things)
        self.assertEqual(await self.database("things").find(), [])
        error = self.assertRaises(TypeError, self.client.nothing, 1)
        self.assertIn("nothing", str(error))


@on_every_server
class CollectionTests(CompatTestCase):
    """``txmongo.collection.Collection``."""

    async def test_bulk_write(self) -> None:
        """bulk_write(requests, ordered=True) does several writes, in order or not; its options are kept."""
        requests = [InsertOne({"_id": 1, "l": [1, 2]}), InsertOne({"_id": 2}), DeleteOne({"_id": 2})]
        result = await self.things.bulk_write(requests)
        self.assertEqual((result.inserted_count, result.deleted_count), (2, 1))
        update = UpdateMany({}, {"$set": {"l.$[each]": 7}}, array_filters=[{"each": 2}], hint={"_id": 1})
        self.assertEqual((await self.things.bulk_write([update], False)).modified_count, 1)
        self.assertEqual(await self.contents(), [{"_id": 1, "l": [1, 7]}])
        twice = [InsertOne({"_id": 1}), InsertOne({"_id": 3})]
        await self.failure(self.things.bulk_write(twice), BulkWriteError)
        self.assertEqual(len(await self.contents()), 1)
        await self.failure(self.things.bulk_write(twice, ordered=False), BulkWriteError)
        self.assertEqual(len(await self.contents()), 2)


@on_every_server
class CursorTests(CompatTestCase):
    """``txmongo.collection.Cursor``."""

    async def test_properties(self) -> None:
        """A cursor knows its collection and the session that it was given."""
        session = self.client.start_session()
        cursor = self.things.find({}, session=session)
        self.assertIs(cursor.collection, self.things)
        self.assertIs(cursor.session, session)
        self.assertIsNone(self.things.find().session)
        self.assertEqual(await cursor, [])
        await session.end_session()

    async def test_timeout(self) -> None:
        """timeout() limits the time of a cursor that has not started."""
        await self.things.insert_one({"_id": 1})
        self.assertEqual(await self.things.find().timeout(60), [{"_id": 1}])
        await self.failure(self.things.find({"$where": "sleep(5000) || true"}).timeout(0.2), TimeExceeded)
        cursor = self.things.find()
        await cursor.next_batch()
        self.assertRaises(InvalidOperation, cursor.timeout, 1)


@on_every_server
class SessionTests(CompatTestCase):
    """``txmongo.sessions``."""

    on_replica_set = True

    async def test_options(self) -> None:
        """Options by position, in 26.0's order, and by name; what is not given is inherited."""
        majority = WriteConcern("majority")
        for options in (TransactionOptions(majority, 5000), TransactionOptions(write_concern=majority)):
            self.assertEqual(options.write_concern, majority)
        self.assertEqual(TransactionOptions(None, 5000).max_commit_time_ms, 5000)
        defaults = TransactionOptions(majority, max_commit_time_ms=5000)
        for each in (SessionOptions(defaults), SessionOptions(default_transaction_options=defaults)):
            self.assertIs(each.default_transaction_options, defaults)
        session = self.client.start_session(defaults)
        session.start_transaction()
        await self.things.insert_one({}, session=session)
        await session.commit_transaction()
        (commit,) = self.sent("commitTransaction")
        self.assertEqual((commit["writeConcern"]["w"], commit["maxTimeMS"]), ("majority", 5000))
        await session.end_session()

    async def test_start_session(self) -> None:
        """A session has an id once it is used, belongs to its client, and is over when it is ended."""
        session = self.client.start_session()
        self.assertIsInstance(session, ClientSession)
        self.assertIs(session.connection, self.client)
        self.assertFalse(session.implicit)
        self.assertFalse(session.is_ended)
        await self.things.insert_one({"_id": 1}, session=session)
        self.assertEqual(self.sent("insert")[0]["lsid"], session.session_id)
        self.assertEqual(await self.things.find({}, session=session), [{"_id": 1}])
        self.assertEqual(self.sent("find")[0]["lsid"], session.session_id)
        await session.end_session()
        self.assertTrue(session.is_ended)
        for kind in (InvalidOperation, ValueError):
            self.assertRaises(kind, self.things.insert_one, {}, session=session)
            self.assertRaises(kind, session.start_transaction)

    async def test_transactions(self) -> None:
        """start_transaction, by itself or as a context; commit_transaction, abort_transaction; in_transaction()."""
        await self.database.create_collection("things")
        async with self.client.start_session() as session:
            session.start_transaction(write_concern=WriteConcern("majority"), max_commit_time_ms=5000)
            self.assertTrue(session.in_transaction())
            self.assertTrue(session.in_transaction)
            await self.things.insert_one({"_id": 1}, session=session)
            await session.abort_transaction()
            self.assertFalse(session.in_transaction())
            self.assertEqual(await self.contents(), [])
            session.start_transaction()
            await self.things.insert_one({"_id": 2}, session=session)
            await session.commit_transaction()
            async with session.start_transaction():
                await self.things.insert_one({"_id": 3}, session=session)
            with self.assertRaises(ZeroDivisionError):
                async with session.start_transaction():
                    await self.things.insert_one({"_id": 4}, session=session)
                    raise ZeroDivisionError
        self.assertEqual(await self.contents(), [{"_id": 2}, {"_id": 3}])

    async def test_cluster_time(self) -> None:
        """The client and the session know the cluster's time; a session can be told a later one."""
        session = self.client.start_session()
        await self.things.insert_one({}, session=session)
        seen: Any = session.cluster_time
        self.assertEqual(seen["clusterTime"], self.client.cluster_time["clusterTime"])  # type: ignore[index]
        other = self.client.start_session()
        self.assertIsNone(other.cluster_time)
        other.advance_cluster_time(seen)
        self.assertEqual(other.cluster_time, seen)
        await session.end_session()
        await other.end_session()


@on_every_server
class UtilityTests(CompatTestCase):
    """``txmongo.utils``."""

    async def test_timeout(self) -> None:
        """timeout() makes a function take timeout and deadline; check_deadline() raises TimeExceeded, an Exception."""
        seen: list[Any] = []

        @utils.timeout
        def work(collection: Any, _deadline: float | None = None) -> Any:
            seen.append(_deadline)
            utils.check_deadline(_deadline)
            return collection.count_documents({}, _deadline=_deadline)

        self.assertEqual(await work(self.things, timeout=60), 0)
        self.assertEqual(await work(self.things, deadline=reactor.seconds() + 60), 0)
        self.assertEqual(await work(self.things), 0)
        self.assertEqual([each is None for each in seen], [False, False, True])
        await self.failure(work(self.things, deadline=reactor.seconds() - 1), TimeExceeded)
        self.assertRaises(TimeExceeded, utils.check_deadline, reactor.seconds() - 1)

    async def test_get_err(self) -> None:
        """get_err() finds what a reply says of an error."""
        reply = await self.database.command("nonsense", check=False)
        self.assertIn("no such command", utils.get_err(reply))
        reply = await self.database.command("ping")
        self.assertIsNone(utils.get_err(reply))
        self.assertEqual(utils.get_err(reply, default="none"), "none")
        self.assertEqual(utils.get_err({"err": "one", "errmsg": "two"}), "one: two")


@on_every_server
class ProtocolTests(ProtocolTestCase):
    """``txmongo.protocol.MongoProtocol``."""

    async def test_limits(self) -> None:
        """The server's limits are known after its hello; constants say what holds without."""
        protocol = await self.connect()
        self.assertIsNone(protocol.max_write_batch_size)
        protocol.init_from_hello_response({})
        self.assertEqual(protocol.max_bson_size, wire.DEFAULT_MAX_BSON_SIZE)
        self.assertEqual(protocol.max_message_size, wire.DEFAULT_MAX_MESSAGE_SIZE)
        self.assertEqual(protocol.max_write_batch_size, wire.DEFAULT_MAX_WRITE_BATCH_SIZE)
        protocol.init_from_hello_response(await protocol.send_op_query_command("admin", {"isMaster": 1}))
        self.assertEqual(protocol.max_message_size, 48_000_000)
        self.assertEqual(protocol.max_write_batch_size, 100_000)
        self.assertLess(protocol.get_request_id(), wire.INT_MAX)

    async def test_hooks(self) -> None:
        """handle_reply and handle of a subclass see what comes, and pass it on."""
        seen: list[Any] = []

        class Seeing(MongoProtocol):
            def handle(self, request: Any) -> None:
                seen.append(type(request).__name__)
                super().handle(request)

            def handle_reply(self, request: Any) -> None:
                seen.append("handle_reply")
                super().handle_reply(request)

        protocol = await self.connect(Seeing())
        reply = await protocol.send_op_query_command("admin", {"isMaster": 1})
        self.assertEqual((reply["ok"], seen), (1, ["Reply", "handle_reply"]))
        await protocol.command("admin", {"ping": 1})
        self.assertEqual(seen[2:], ["Msg"])


class MessageTests(SynchronousTestCase):
    """The messages of ``txmongo.protocol`` as 26.0 makes them, and what reads and writes them."""

    def test_numbers(self) -> None:
        """Opcodes and flags are those of the messages."""
        self.assertEqual(
            (Query().opcode(), Reply().opcode(), Msg().opcode()), (wire.OP_QUERY, wire.OP_REPLY, wire.OP_MSG)
        )
        self.assertEqual(Msg.create({"ping": 1}, acknowledged=False).flag_bits, wire.OP_MSG_MORE_TO_COME)
        plain = Msg(flag_bits=wire.OP_MSG_EXHAUST_ALLOWED).encode(1)
        self.assertEqual(MongoDecoder.decode(plain).flag_bits, wire.OP_MSG_EXHAUST_ALLOWED)
        # A checksum is there if a library is installed that computes one.
        summed = Msg(flag_bits=wire.OP_MSG_EXHAUST_ALLOWED | wire.OP_MSG_CHECKSUM_PRESENT).encode(1)
        self.assertEqual(len(summed), len(plain) + 4 * (summed[16] & wire.OP_MSG_CHECKSUM_PRESENT))
        self.assertEqual(MongoDecoder.decode(summed), MongoDecoder.decode(plain))
        self.assertEqual(wire.OP_COMPRESSED, 2012)

    def test_base(self) -> None:
        """Every message is a BaseMessage, which has encode(request_id)."""
        for message in (Query(), Reply(), Msg()):
            self.assertIsInstance(message, BaseMessage)
            self.assertTrue(issubclass(type(message), BaseMessage))
            self.assertEqual(BSON(message.encode(7))[4:8], b"\7\0\0\0")

    def test_msg(self) -> None:
        """Msg(request_id, response_to, body, flag_bits, payload): by position, by name, by create(), from bytes."""
        message = Msg(1, 2, A, 0, {"documents": [A]})
        self.assertEqual(message, Msg(request_id=1, response_to=2, body=A, flag_bits=0, payload={"documents": [A]}))
        self.assertEqual(message.to_dict(), {"a": 1, "documents": [{"a": 1}]})
        self.assertTrue(message.acknowledged)
        data = message.encode(5)
        self.assertEqual(message.size_in_bytes(), len(data))
        again = Msg.decode(5, 2, wire.OP_MSG, data[16:])
        self.assertEqual((again.body, again.payload, again.flag_bits), (A, {"documents": [A]}, 0))
        created = Msg.create({"a": 1}, {"documents": [{"a": 1}]}, acknowledged=False, request_id=1, response_to=2)
        self.assertEqual(created.flag_bits, Msg.create_flag_bits(False))
        self.assertFalse(created.acknowledged)
        self.assertEqual(created.to_dict(CodecOptions(SON)), SON([("a", 1), ("documents", [SON([("a", 1)])])]))
        self.assertEqual(created.opcode(), 2013)

    def test_query(self) -> None:
        """Query(request_id, response_to, flags, collection, n_to_skip, n_to_return, query, fields)."""
        message = Query(1, 2, 4, "a.b", 5, 6, A, A)
        named = Query(
            request_id=1, response_to=2, flags=4, collection="a.b", n_to_skip=5, n_to_return=6, query=A, fields=A
        )
        self.assertEqual(message, named)
        again = Query.decode(1, 2, wire.OP_QUERY, message.encode(1)[16:])
        self.assertEqual(again, message)
        self.assertEqual(again.opcode(), wire.OP_QUERY)
        self.assertEqual((Query().n_to_return, Query().query, Query().fields), (-1, BSON.encode({}), None))

    def test_reply(self) -> None:
        """Reply(request_id, response_to, response_flags, cursor_id, starting_from, documents)."""
        message = Reply(1, 2, 8, 77, 3, [A])
        named = Reply(request_id=1, response_to=2, response_flags=8, cursor_id=77, starting_from=3, documents=[A])
        self.assertEqual(message, named)
        again = Reply.decode(1, 2, wire.OP_REPLY, message.encode(1)[16:])
        self.assertEqual((again, again.opcode()), (message, wire.OP_REPLY))

    def test_decoder(self) -> None:
        """A MongoDecoder's __next__ gives a message when it is whole, else None."""
        decoder = MongoDecoder()
        data = Query().encode(1) + Msg().encode(2)
        decoder.feed(data[:-1])
        self.assertIsInstance(decoder.__next__(), Query)
        self.assertIsNone(next(decoder))
        decoder.feed(data[-1:])
        self.assertIsInstance(next(decoder), Msg)

    def test_receiver(self) -> None:
        """MongoReceiverProtocol's dataReceived() gives each message to handle(), and what is none to fail()."""
        seen: list[Any] = []

        class Receiver(MongoReceiverProtocol):
            def handle(self, request: Any) -> None:
                seen.append(request)

            def fail(self, reason: Any) -> None:
                seen.append(reason)

        self.assertRaises(TypeError, MongoReceiverProtocol)
        receiver = Receiver()
        receiver.dataReceived(Query().encode(1))
        receiver.dataReceived(b"\0" * 16)
        self.assertIsInstance(seen[0], Query)
        self.assertIsInstance(seen[1], Exception)

    def test_sender(self) -> None:
        """MongoSenderProtocol gives out request ids."""
        sender = MongoSenderProtocol()
        self.assertNotEqual(sender.get_request_id(), sender.get_request_id())
