"""Faults that drivers of this kind have had, one test for each, named after it: none of them may come back.

Many of them are tested in more detail where the code is that could have them.
"""

from __future__ import annotations

import gc
import hmac
import inspect
import socket
import time
import tracemalloc
from typing import Any
from urllib.parse import quote_plus

import bson
from pymongo.operations import DeleteOne, ReplaceOne, UpdateMany, UpdateOne
from twisted.internet import defer, endpoints, task
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import globalLogPublisher
from twisted.names.dns import Record_SRV, RRHeader
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.compat.servers import CompatTestCase, mongod_of, on_every_server
from tests.unit.clients import ClientCase
from tests.unit.cmap.scram_server import ScramServer
from txmongo._wire.decoder import Decoder
from txmongo._wire.op_msg import Msg
from txmongo.connection import ConnectionPool
from txmongo.cursor import Cursor
from txmongo.errors import (
    AutoReconnect,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)
from txmongo.gridfs import GridFS
from txmongo.protocol import MongoAuthenticationError
from txmongo.testing import HELLO, Behaviour, FakeServer

reactor: Any = _reactor

#: What begins a TLS connection: a handshake record.
_TLS_HANDSHAKE = 22


@implementer(IHostnameResolver)
class Hosts:
    """Says of every name that it is this machine."""

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any) -> Any:
        resolutionReceiver.resolutionBegan(None)
        resolutionReceiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        resolutionReceiver.resolutionComplete()
        return None


class Records:
    """DNS that knows the members of every cluster."""

    def __init__(self, port: int, *targets: str) -> None:
        self.asked: list[str] = []
        self._answers = [RRHeader(name, 33, payload=Record_SRV(0, 0, port, name), ttl=60) for name in targets]

    def lookupService(self, name: str, timeout: Any = ()) -> defer.Deferred[Any]:
        """The members."""
        self.asked.append(name)
        return defer.succeed((self._answers, [], []))

    def lookupText(self, name: str, timeout: Any = ()) -> defer.Deferred[Any]:
        """No options."""
        return defer.succeed(([], [], []))


class FirstBytesTests(TestCase):
    """What a client says first to who listens."""

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Listen, under any name."""
        self.heard: list[bytes] = []
        self.enough: defer.Deferred[None] = defer.Deferred()
        self.wanted = 1
        case = self
        self.ends: list[defer.Deferred[None]] = []

        class Listener(Protocol):
            def connectionMade(self) -> None:
                self.end: defer.Deferred[None] = defer.Deferred()
                case.ends.append(self.end)

            def connectionLost(self, reason: Any = connectionDone) -> None:
                self.end.callback(None)

            def dataReceived(self, data: bytes) -> None:
                case.heard.append(data)
                if len(case.heard) == case.wanted:
                    case.enough.callback(None)
                self.transport.abortConnection()  # type: ignore[union-attr]

        factory = Factory.forProtocol(Listener)
        factory.noisy = False
        self.port: Any = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(defer.gatherResults, self.ends)
        self.addCleanup(self.port.stopListening)
        self.number: int = self.port.getHost().port
        self.addCleanup(reactor.installNameResolver, reactor.installNameResolver(Hosts()))

    async def say(self, uri: str, **options: Any) -> list[bytes]:
        """What a client says with this connection string."""
        client: ConnectionPool[Any] = ConnectionPool(uri, serverSelectionTimeoutMS=5000, **options)
        asking = client.test.things.find_one().addErrback(lambda _: None)
        await self.enough
        await client.disconnect()
        await asking
        return self.heard

    async def test_tls_true_connecting_in_plain_text(self) -> None:
        """With tls=true the first thing said is a TLS handshake."""
        for data in await self.say(f"mongodb://user:secret@localhost:{self.number}/?tls=true"):
            self.assertEqual(data[0], _TLS_HANDSHAKE)
            self.assertNotIn(b"isMaster", data)

    async def test_mongodb_srv_connecting_in_plain_text(self) -> None:
        """With mongodb+srv TLS is on without being asked for."""
        resolver = Records(self.number, "a.fake.example")
        for data in await self.say("mongodb+srv://cluster.fake.example/", resolver=resolver):
            self.assertEqual(data[0], _TLS_HANDSHAKE)

    async def test_one_tls_context_without_sni_for_all_hosts(self) -> None:
        """Each host is told its own name in the handshake."""
        self.wanted = 8
        resolver = Records(self.number, "a.fake.example", "b.fake.example")
        said = await self.say("mongodb+srv://cluster.fake.example/", resolver=resolver)
        names = {name for data in said for name in (b"a.fake.example", b"b.fake.example") if name in data}
        self.assertEqual(names, {b"a.fake.example", b"b.fake.example"})
        self.assertFalse([data for data in said if b"a.fake.example" in data and b"b.fake.example" in data])


@on_every_server
class UserTests(TestCase):
    """Servers that let nobody in without a password."""

    timeout = 60
    server_version: str | None = None

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have a user who can SCRAM-SHA-256 alone."""
        mongod = await mongod_of(self.server_version, auth=True)
        assert mongod.credentials is not None
        self.name, self.password = mongod.credentials
        self.known = f"{quote_plus(self.name)}:{quote_plus(self.password)}"
        self.host = "{}:{}".format(*mongod.address)
        user = {"createUser": "modern", "pwd": "pencil", "roles": ["readWrite"], "mechanisms": ["SCRAM-SHA-256"]}
        try:
            await mongod.command("faults", user)
        except OperationFailure as error:
            self.assertEqual(error.code, 51003)  # it is there already

    def client(self, uri: str, **options: Any) -> ConnectionPool[Any]:
        """A client."""
        client: ConnectionPool[Any] = ConnectionPool(uri, **options)
        self.addCleanup(client.disconnect)
        return client

    async def users(self, client: ConnectionPool[Any]) -> list[str]:
        """As whom commands are carried out."""
        status = await client.admin.command("connectionStatus")
        return [user["user"] for user in status["authInfo"]["authenticatedUsers"]]

    async def test_credentials_ignored_when_the_uri_has_no_database(self) -> None:
        """Without a database the user is one of admin."""
        for end in ("", "/", "/?readPreference=nearest"):
            client = self.client(f"mongodb://{self.known}@{self.host}{end}")
            self.assertEqual(await self.users(client), [self.name])

    async def test_a_wrong_password_at_start_swallowed(self) -> None:
        """A wrong password in the connection string is what the first operation fails with, and so does the next."""
        client = self.client(f"mongodb://{quote_plus(self.name)}:eraser@{self.host}/")
        for _ in range(2):
            failed = await self.assertFailure(client.test.things.find_one(), OperationFailure)
            self.assertEqual(failed.code, 18)

    async def test_authenticate_before_connect_reporting_success(self) -> None:
        """authenticate() before the first connection fires when the server has accepted, or fails."""
        client = self.client(f"mongodb://{self.host}/")
        refused = client.authenticate("admin", self.name, "eraser")
        await self.assertFailure(refused, MongoAuthenticationError)
        self.assertIs(await client.authenticate("admin", self.name, self.password), True)

    async def test_key_error_on_a_sha_256_only_user(self) -> None:
        """A user without SCRAM-SHA-1 is authenticated, by the connection string and by authenticate()."""
        client = self.client(f"mongodb://modern:pencil@{self.host}/faults")
        self.assertEqual(await self.users(client), ["modern"])
        client = self.client(f"mongodb://{self.host}/")
        self.assertIs(await client.faults.authenticate("modern", "pencil"), True)

    async def test_a_command_with_a_password_in_an_exceptions_text(self) -> None:
        """What fails does not tell what was sent: not when the server refuses, nor when the connection is lost."""
        client = self.client(f"mongodb://{self.known}@{self.host}/")
        command = {"createUser": "new", "pwd": "hunter2-secret", "roles": ["nonsense"]}
        refused = await self.assertFailure(client.faults.command(command), OperationFailure)
        server = await FakeServer({"createUser": Behaviour.HANG_UP}).listen(reactor)
        self.addCleanup(server.stop)
        lost = await self.assertFailure(self.client(server.uri).faults.command(command), AutoReconnect)
        for error in (refused, lost):
            self.assertNotIn("hunter2", f"{error} {error!r} {error.args} {error.__cause__!r}")

    async def test_a_read_preference_in_the_uri_skipping_the_handshake(self) -> None:
        """Whatever the read preference, a connection is greeted and authenticated before anything else."""
        for mode in ("secondary", "secondaryPreferred", "nearest"):
            client = self.client(f"mongodb://{self.known}@{self.host}/?readPreference={mode}")
            self.assertIsNone(await client.faults.things.find_one())
            protocol = await client.getprotocol()
            self.assertGreaterEqual(protocol.max_wire_version, 9)
            self.assertEqual(await self.users(client), [self.name])


class ScramTests(ClientCase):
    """A server that is not the one it should be."""

    def test_scram_without_an_iteration_floor(self) -> None:
        """A server that asks for fewer than 4096 rounds, to guess passwords by, gets no proof."""
        server = self.servers["fake.example"] = ScramServer(fault="iterations")
        client = self.client("mongodb://user:pencil@fake.example/?serverSelectionTimeoutMS=1")
        failed = client.test.things.find_one()
        self.turn()
        self.clock.advance(1)
        self.failureResultOf(self.started(failed), PyMongoError)
        self.assertEqual(server.authenticated, [])
        self.assertEqual(server.commands("saslContinue"), [])

    def test_scram_compared_in_variable_time(self) -> None:
        """The server's signature is compared in a time that tells nothing about it."""
        compared: list[int] = []
        compare = hmac.compare_digest

        def watched(one: bytes, other: bytes) -> bool:
            compared.append(len(one))
            return compare(one, other)

        self.patch(hmac, "compare_digest", watched)
        server = self.servers["fake.example"] = ScramServer()
        server.answer("ping", {})
        self.result(self.client("mongodb://user:pencil@fake.example/").test.command("ping"))
        self.assertEqual(len(server.authenticated), 1)
        self.assertEqual(len(compared), 1)


@on_every_server
class OperationTests(CompatTestCase):
    """Operations on real servers."""

    async def test_get_more_without_its_session(self) -> None:
        """Every batch of a cursor is asked for in its session, one that was given or its own."""
        await self.things.insert_many([{"_id": number} for number in range(10)])
        session = self.client.start_session()
        for given in (session, None):
            self.commands.sent.clear()
            await self.things.find({}, batch_size=2, session=given)
            sent = [command["lsid"] for command in self.commands.sent]
            self.assertGreaterEqual(len(sent), 5)
            self.assertEqual(sent, [sent[0]] * len(sent))
            self.assertEqual(given is None, sent[0] != session.session_id)
        await session.end_session()

    async def test_removed_methods_silently_doing_nothing(self) -> None:
        """A method that does not exist is an error that names it, on everything that gives names to what it has."""
        for thing in (self.things, self.database, self.client, self.things.sub):
            error = self.assertRaises(TypeError, thing.put_away, {"x": 1})
            self.assertIn("put_away", str(error))
        self.assertRaises(AttributeError, getattr, self.things.find(), "put_away")
        self.assertEqual(await self.contents(), [])

    async def test_bulk_write_dropping_array_filters_collation_hint(self) -> None:
        """What a request of a bulk write says beside its query takes effect."""
        await self.things.insert_many([{"_id": 1, "name": "A", "l": [1, 5]}, {"_id": 2, "name": "b", "l": [5]}])
        collation = {"locale": "en", "strength": 2}
        await self.things.bulk_write(
            [
                UpdateOne({"name": "a"}, {"$set": {"l.$[each]": 0}}, array_filters=[{"each": 5}], collation=collation),
                UpdateMany({"_id": 2}, {"$set": {"l.$[each]": 0}}, array_filters=[{"each": 5}], hint="_id_"),
                ReplaceOne({"name": "B"}, {"name": "c"}, collation=collation),
            ]
        )
        self.assertEqual(await self.contents(), [{"_id": 1, "name": "A", "l": [1, 0]}, {"_id": 2, "name": "c"}])
        for request in (UpdateOne({}, {"$set": {"x": 1}}, hint="none"), DeleteOne({}, hint="none")):
            error = await self.failure(self.things.bulk_write([request]), OperationFailure)
            self.assertIn("hint", str(error.details))

    async def test_bulk_write_dropping_sort(self) -> None:
        """The order in which one document is chosen is sent; servers before MongoDB 8.0 refuse it."""
        for request in (
            UpdateOne({}, {"$set": {"x": 1}}, sort={"_id": -1}),
            ReplaceOne({}, {"x": 1}, sort={"_id": -1}),
        ):
            await self.failure(self.things.bulk_write([request]), OperationFailure)
            (statement,) = self.sent("update")[-1]["updates"]
            self.assertEqual(statement["sort"], {"_id": -1})

    async def test_the_callers_command_dict_changed(self) -> None:
        """What is passed for a command, a query, a pipeline or an update is as it was afterwards."""
        given: list[Any] = [
            {"ping": 1},
            {"x": 1},
            [{"$match": {"x": 1}}],
            {"$set": {"y": 1}},
            {"count": "things", "query": {}},
        ]
        before = [bson.encode({"": each}) for each in given]
        command, query, pipeline, update, count = given
        await self.database.command(command, comment="more")
        await self.client.command("txmongo_compat", count, timeout=60)
        await self.things.find(query, sort=[("x", 1)], hint="_id_")
        await self.things.find_one(query)
        await self.things.aggregate(pipeline)
        await self.things.update_one(query, update, upsert=True)
        await self.things.find_one_and_update(query, update)
        await self.things.delete_many(query)
        await self.things.count_documents(query)
        self.assertEqual([bson.encode({"": each}) for each in given], before)

    async def test_a_timed_out_operation_going_on_at_the_server(self) -> None:
        """When timeoutMS is over the server has been told to stop, and has."""
        await self.things.insert_one({"_id": 1})
        slow = {"$where": "sleep(60000) || true"}
        failed = await self.failure(
            self.things.find_one(slow, comment="timed out", timeout_ms=300), NetworkTimeout, ExecutionTimeout
        )
        self.assertTrue(failed.timeout)
        self.assertIn("maxTimeMS", self.sent("find")[0])
        running = [{"$currentOp": {}}, {"$match": {"command.comment": "timed out"}}]
        while await self.client.admin.aggregate(running):
            await task.deferLater(reactor, 0.05)  # until the case's own time is over, long before that of the query

    async def test_abandoned_cursors_left_open_on_the_server(self) -> None:
        """A cursor that nobody has any more is killed."""
        await self.things.insert_many([{"_id": number} for number in range(10)])
        cursor = self.things.find({}, batch_size=2)
        await cursor.next_batch()
        abandoned = cursor.cursor_id
        listed = [{"$currentOp": {"idleCursors": True}}, {"$match": {"cursor.cursorId": abandoned}}]
        self.assertEqual(len(await self.client.admin.aggregate(listed)), 1)
        del cursor
        gc.collect()
        while await self.client.admin.aggregate(listed):
            await task.deferLater(reactor, 0.05)
        self.assertIn([abandoned], [command["cursors"] for command in self.sent("killCursors")])

    async def test_a_slow_query_holding_up_the_pool(self) -> None:
        """A hundred pings are answered while a slow query runs on a client of the default kind."""
        await self.things.insert_one({"_id": 1})
        hold = {"configureFailPoint": "waitInFindBeforeMakingBatch"}
        go_on = {**hold, "mode": "off"}
        await self.server.command("admin", {**hold, "mode": "alwaysOn", "data": {"nss": self.things.full_name}})
        self.addCleanup(self.server.command, "admin", go_on)
        slow = self.things.find_one()
        for _ in range(10):
            await defer.gatherResults([self.database.command("ping") for _ in range(10)])
        self.assertNoResult(slow)
        await self.server.command("admin", go_on)
        self.assertEqual(await slow, {"_id": 1})


@on_every_server
class TransactionTests(CompatTestCase):
    """Transactions on a replica set."""

    on_replica_set = True

    async def fail_next(self, command: str, **how: Any) -> None:
        """Have the server fail a command once."""
        data = {"failCommands": [command], **how}
        await self.client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
        off = {"configureFailPoint": "failCommand", "mode": "off"}
        self.addCleanup(self.server.members[0].command, "admin", off)

    async def test_lost_labels_in_transactions(self) -> None:
        """An error in a transaction says whether it may be run again, whoever noticed it: the server or the driver."""
        await self.database.create_collection("things")
        for how in ({"errorCode": 112}, {"closeConnection": True}):
            session = self.client.start_session()
            session.start_transaction()
            await self.fail_next("insert", **how)
            failed = await self.failure(self.things.insert_one({}, session=session), PyMongoError)
            self.assertTrue(failed.has_error_label("TransientTransactionError"), how)
            await session.abort_transaction()
            session.start_transaction()
            await self.things.insert_one({}, session=session)
            await self.fail_next("commitTransaction", errorCode=50)
            failed = await self.failure(session.commit_transaction(), PyMongoError)
            self.assertTrue(failed.has_error_label("UnknownTransactionCommitResult"), how)
            await session.commit_transaction()
            await session.end_session()
        self.assertEqual(len(await self.contents()), 2)


@on_every_server
class GridFSTests(CompatTestCase):
    """Files."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.client.drop_database(self.database)

    async def test_gridfs_seek_then_read_giving_wrong_bytes(self) -> None:
        """What is read after seek() is what stands there, within a chunk, over several, and at the end."""
        content = bytes(number % 251 for number in range(1000))
        file_id = await GridFS(self.database).put(content, chunk_size=64)
        grid_out = await GridFS(self.database).get(file_id)
        for start in (0, 1, 63, 64, 65, 500, 128, 999, 960, 1000, 3):
            for size in (1, 63, 64, 65, 300, -1):
                grid_out.seek(start)
                expected = content[start:] if size < 0 else content[start : start + size]
                self.assertEqual(await grid_out.read(size), expected, (start, size))
                self.assertEqual(grid_out.tell(), start + len(expected))

    async def test_gridfs_index_creation_errors_lost(self) -> None:
        """An index that cannot be made is what the write fails with."""
        for name, keys in (("fs.chunks", {"files_id": 1, "n": 1}), ("fs.files", {"filename": 1, "uploadDate": 1})):
            await self.client.drop_database(self.database)
            taken = {"key": {"other": 1}, "name": "_".join(f"{key}_{way}" for key, way in keys.items())}
            await self.database.command("createIndexes", name, indexes=[taken])
            await self.failure(GridFS(self.database).put(b"content"), OperationFailure)


class FakeServerTests(ClientCase):
    """What servers cannot be made to do at will, on a fake clock."""

    def test_operations_pending_for_ever_after_disconnect(self) -> None:
        """What waits when a client is disconnected fails, sent or not, and what is asked for later is refused."""
        self.server.answer("find", Behaviour.FALL_SILENT)
        client = self.client(maxPoolSize=2)
        self.result(client)
        sent = [client.test.things.find_one({"x": number}) for number in range(50)]
        self.turn()
        unreachable = self.client("mongodb://silent.example")
        self.servers["silent.example"] = FakeServer()
        self.servers["silent.example"].answer("isMaster", Behaviour.FALL_SILENT)
        unsent = [unreachable.test.things.insert_one({}) for _ in range(50)]
        self.turn()
        gone = [each.disconnect() for each in (client, unreachable)]
        self.turn()
        for each in gone:
            self.successResultOf(each)
        for each in sent:
            self.failureResultOf(each, AutoReconnect)
        for each in unsent:
            self.failureResultOf(each, InvalidOperation, AutoReconnect)
        self.failureResultOf(client.test.things.find_one(), InvalidOperation)

    def test_memory_growing_without_bound_while_disconnected(self) -> None:
        """While no server is there waitQueueSize operations wait; the others fail at once and leave nothing."""
        self.server.refusing = True
        client = self.client(waitQueueSize=10, serverSelectionTimeoutMS=3_600_000)
        waiting = [client.test.things.find_one() for _ in range(10)]
        refused: list[Any] = []

        def refuse(count: int) -> None:
            for _ in range(count):
                failed = client.test.things.insert_one({"x": "y" * 100})
                refused.append(self.failureResultOf(failed, WaitQueueTimeoutError).type)
            refused.clear()
            self.clock.advance(0.1)
            gc.collect()

        refuse(200)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        refuse(2000)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 50_000)
        for each in waiting:
            self.assertNoResult(each)
            each.addErrback(lambda _: None)

    def test_one_second_handshake_limit(self) -> None:
        """A server may take its time to greet, nearly as long as connectTimeoutMS says."""
        self.server.answer("isMaster", lambda _: task.deferLater(self.clock, 15, lambda: HELLO))
        client = self.client("mongodb://fake.example/?connectTimeoutMS=20000&serverSelectionTimeoutMS=60000")
        waiting = client.test.command("ping")
        for _ in range(40):
            self.clock.advance(1)
            self.turn()
        self.assertEqual(self.successResultOf(waiting), {"ok": 1.0})

    def test_max_idle_time_ms_ignored(self) -> None:
        """A connection that nothing was done on for maxIdleTimeMS is not used again."""
        client = self.client("mongodb://fake.example/?maxIdleTimeMS=5000")
        self.result(client.test.command("ping"))
        first = self.result(client.getprotocol())
        self.clock.advance(4)
        self.result(client.test.command("ping"))
        self.assertIs(self.result(client.getprotocol()), first)
        for _ in range(6):
            self.clock.advance(1)
            self.turn()
        self.assertIsNone(first.instance)
        self.result(client.test.command("ping"))
        self.assertIsNot(self.result(client.getprotocol()), first)

    def test_a_blocking_dns_lookup_in_a_constructor(self) -> None:
        """Making a client asks for no name, neither the system nor a resolver."""

        def blocks(*_: Any, **__: Any) -> Any:
            raise AssertionError("a name was looked up")

        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "getfqdn"):
            self.patch(socket, name, blocks)
        records = Records(27017, "fake.example.com")
        self.servers["fake.example.com"] = self.server
        client = self.client("mongodb+srv://cluster.example.com/?tls=false", resolver=records)
        self.client("mongodb://nowhere.example,elsewhere.example")
        self.assertEqual(records.asked, [])
        self.result(client.test.command("ping"))
        self.assertEqual(records.asked, ["_mongodb._tcp.cluster.example.com"])

    def test_log_lines_that_do_not_say_who_speaks(self) -> None:
        """Every line names the part of the driver that it comes from, and those of a server its address."""
        events: list[dict[str, Any]] = []

        def observe(event: Any) -> None:
            events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        client = self.client(log_levels={"all": "debug"})
        self.result(client.test.command("ping"))
        self.server.answer("ping", Behaviour.HANG_UP)
        self.failureResultOf(self.started(client.test.command("ping")), AutoReconnect)
        self.result(client.disconnect())
        self.assertGreater(len(events), 10)
        self.assertEqual([event for event in events if not event["log_namespace"].startswith("txmongo.")], [])
        commands = [event for event in events if event["log_namespace"].endswith(".command")]
        self.assertGreaterEqual(len(commands), 4)
        self.assertEqual([event for event in commands if event.get("serverHost") != "fake.example"], [])


class PureTests(SynchronousTestCase):
    """What needs no server at all."""

    def test_quadratic_decoding(self) -> None:
        """A large message costs time in proportion to its bytes, however small the pieces in which it comes."""
        message = Msg(1, 0, bson.encode({"data": bytes(16_000_000)})).encode()
        decoder = Decoder()
        frames: list[Any] = []
        began = time.process_time()
        for at in range(0, len(message), 4096):
            frames += decoder.feed(message[at : at + 4096])
        # In proportion it is some 0.05 s; to copy what is there for each piece would be 32 GB and take many seconds.
        self.assertLess(time.process_time() - began, 2)
        self.assertEqual([len(frame) for frame in frames], [len(message)])

    def test_a_cursor_that_shadows_deferreds_own_attributes(self) -> None:
        """What a Deferred has a cursor has as it is there: with the same arguments, and as a method where it is one."""
        for name in sorted(name for name in dir(defer.Deferred) if not name.startswith("_") and name != "callbacks"):
            own, there = (inspect.getattr_static(kind, name) for kind in (Cursor, defer.Deferred))
            if own is not there:
                arguments = [[*inspect.signature(method).parameters] for method in (own, there)]
                self.assertEqual(arguments[0], arguments[1], name)
        # Those that a Deferred gets when it is made, or when it fires: no class of ours has any of them.
        for name in ("result", "debug", "called", "paused"):
            self.assertIs(
                inspect.getattr_static(Cursor, name, None), inspect.getattr_static(defer.Deferred, name, None), name
            )
