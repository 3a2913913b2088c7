"""``txmongo.connection``: the client's arguments, its parts and its life, on scripted servers and a fake clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks

import txmongo
from tests.unit.clients import SET_OF_ONE, ClientCase, awaited
from tests.unit.cmap.scram_server import ScramServer
from txmongo.connection import (
    ConnectionPool,
    MongoConnection,
    MongoConnectionPool,
    lazyMongoConnection,
    lazyMongoConnectionPool,
)
from txmongo.database import Database
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidName,
    InvalidOperation,
    InvalidURI,
    OperationFailure,
    ServerSelectionTimeoutError,
)
from txmongo.protocol import MongoAuthenticationError
from txmongo.sessions import ClientSession, SessionOptions, TransactionOptions
from txmongo.testing import Behaviour, FakeServer


class ArgumentTests(ClientCase):
    """What a client is told."""

    def test_default(self) -> None:
        """Without arguments it is a growing pool of the local server."""
        client: ConnectionPool[Any] = ConnectionPool(reactor=self.clock)
        self.assertEqual(client.options.seeds, (("127.0.0.1", 27017),))
        self.assertIsNone(client.options.pool_size)
        self.successResultOf(client.disconnect())

    def test_pool_size(self) -> None:
        """A pool_size that is passed makes the pool fixed, a passed 1 too."""
        for client in (self.client("mongodb://fake.example", 1), self.client(pool_size=1)):
            self.assertEqual(client.options.pool_size, 1)
        self.assertEqual(self.client(pool_size=3).options.pool_size, 3)
        self.assertRaises(ConfigurationError, self.client, pool_size=1, maxPoolSize=5)
        self.assertRaises(TypeError, self.client, pool_size="1")

    def test_pings(self) -> None:
        """TxMongo's ping_interval takes the place of heartbeatFrequencyMS if it is given, a 10 too."""
        uri = "mongodb://fake.example/?heartbeatFrequencyMS=3000"
        self.assertEqual(self.client(uri).options.heartbeat_frequency, 3)
        for client in (self.client(uri, ping_interval=10, ping_timeout=10), self.client(uri, 1, None, 10, 10)):
            self.assertEqual((client.options.heartbeat_frequency, client.options.ping_timeout), (10, 10))
        self.assertIsNone(self.client(uri).options.ping_timeout)
        self.assertRaises(ValueError, self.client, ping_timeout=-1)

    def test_wrong(self) -> None:
        """A wrong connection string, option, value or type is refused at the call, by its name."""
        for error, text, arguments, options in (
            (InvalidURI, "URI", ("http://fake.example",), {}),
            (InvalidURI, "host", ("mongodb://",), {}),
            (ConfigurationError, "nosuchoption", (), {"noSuchOption": 1}),
            (ValueError, "maxPoolSize", (), {"maxPoolSize": -1}),
            (TypeError, "uri", (5,), {}),
            (ConfigurationError, "directConnection", ("mongodb://a,b",), {"directConnection": True}),
            (ConfigurationError, "tls", (), {"tls": False, "tlsCAFile": "x"}),
        ):
            raised = self.assertRaises(error, self.client, *arguments, **options)
            self.assertIn(text.lower(), str(raised).lower())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_repr(self) -> None:
        """The repr is a status line, without secrets."""
        client = self.client("mongodb://user:secret@fake.example/?authMechanism=PLAIN")
        self.assertNotIn("secret", repr(client) + repr(client.options) + repr(client.test.things))
        self.assertTrue(repr(client).startswith("<ConnectionPool"))
        client = self.client()
        self.result(client)
        self.assertIn("fake.example:27017 Standalone", repr(client))
        client.disconnect()
        self.assertIn("closed", repr(client))

    def test_mongo_connection(self) -> None:
        """MongoConnection and its other names: host and port, and a fixed pool of one."""
        for kind in (MongoConnection, MongoConnectionPool, lazyMongoConnection, lazyMongoConnectionPool):
            client: ConnectionPool[Any] = kind(
                "fake.example", 27018, reactor=self.clock, endpoint_for=lambda _: self.server.endpoint(self.clock)
            )
            self.clients.append(client)
            self.assertEqual((client.options.seeds, client.options.pool_size), ((("fake.example", 27018),), 1))
        client = MongoConnection(
            "::1", pool_size=3, reactor=self.clock, endpoint_for=lambda _: self.server.endpoint(self.clock)
        )
        self.clients.append(client)
        self.assertEqual((client.options.seeds, client.options.pool_size), ((("::1", 27017),), 3))
        wrong: Any = MongoConnection
        self.assertRaises(TypeError, wrong, 5, reactor=self.clock)
        self.assertRaises(TypeError, wrong, "localhost", "27017", reactor=self.clock)

    def test_no_reactor(self) -> None:
        """Importing the package installs no reactor."""
        code = "import sys, txmongo; sys.exit('twisted.internet.reactor' in sys.modules)"
        folder = Path(txmongo.__file__).parent.parent
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode, 0)

    def test_modules(self) -> None:
        """Importing the package makes its modules reachable."""
        self.assertIs(txmongo.connection.ConnectionPool, ConnectionPool)
        self.assertIs(txmongo.MongoConnection, MongoConnection)


class DatabasesTests(ClientCase):
    """What a client leads to."""

    def test_names(self) -> None:
        """Attributes and items are databases."""
        client = self.client()
        for database in (client.test, client["test"], client.get_database("test")):
            self.assertIsInstance(database, Database)
            self.assertEqual((database.name, database.client), ("test", client))
        self.assertRaises(InvalidName, lambda: client["a.b"])
        self.assertRaises(TypeError, client.get_database, 5)

    def test_underscores(self) -> None:
        """An attribute with an underscore in front is no database, so that no protocol is claimed by accident."""
        client = self.client()
        self.assertIn("client['_test']", str(self.assertRaises(AttributeError, getattr, client, "_test")))
        self.assertEqual(client["_test"].name, "_test")
        self.assertRaises(TypeError, iter, client)

    def test_default(self) -> None:
        """The default database is that of the connection string."""
        client = self.client("mongodb://fake.example/base")
        concern = WriteConcern(2)
        for database in (client.get_default_database(), client.get_database(), client.get_default_database("other")):
            assert database is not None
            self.assertEqual(database.name, "base")
        database = client.get_default_database(write_concern=concern)
        assert database is not None
        self.assertEqual(database.write_concern, concern)

    def test_no_default(self) -> None:
        """Without one there is a default of the call, or None as in TxMongo."""
        client = self.client()
        self.assertIsNone(client.get_default_database())
        database = client.get_default_database("other")
        assert database is not None
        self.assertEqual(database.name, "other")
        self.assertRaises(ConfigurationError, client.get_database)

    def test_list(self) -> None:
        """Databases are listed as a cursor; of the names only those are asked for."""
        self.server.answer("listDatabases", {"databases": [{"name": "a"}, {"name": "b"}]})
        client = self.client()
        self.assertEqual(self.result(client.list_databases(comment="c", filter={})), [{"name": "a"}, {"name": "b"}])
        self.assertEqual(self.result(client.list_database_names()), ["a", "b"])
        first, second = self.server.commands("listDatabases")
        self.assertEqual((first["comment"], first["filter"], first["$db"]), ("c", {}, "admin"))
        self.assertTrue(second["nameOnly"])
        self.assertRaises(ValueError, client.list_databases, session=object())

    def test_drop(self) -> None:
        """A database is dropped by name or by itself, with the client's write concern."""
        self.server.answer("dropDatabase", {})
        client = self.client(w=1)
        self.assertIsNone(self.result(client.drop_database("test", comment="c")))
        self.assertIsNone(self.result(client.drop_database(client.test)))
        first, second = self.server.commands("dropDatabase")
        self.assertEqual((first["$db"], first["comment"], first["writeConcern"]), ("test", "c", {"w": 1}))
        self.assertEqual(second["$db"], "test")
        wrong: Any = 5
        self.assertRaises(TypeError, client.drop_database, wrong)
        self.assertRaises(InvalidName, client.drop_database, "a.b")

    def test_server_info(self) -> None:
        """server_info is what the server says of its build."""
        self.server.answer("buildinfo", {"version": "6.0"})
        self.assertEqual(self.result(self.client().server_info())["version"], "6.0")


class LifeTests(ClientCase):
    """From the first use to the end."""

    def test_lazy(self) -> None:
        """Making a client connects to nothing; the first operation does."""
        client = self.client()
        self.turn()
        self.assertEqual(self.server.accepted, 0)
        self.assertEqual(self.result(client.test.command("ping")), {"ok": 1.0})

    def test_aconnect(self) -> None:
        """aconnect has the servers looked for at once, and does not wait for them."""
        client = self.client()
        self.assertIsNone(self.successResultOf(client.aconnect()))
        self.turn()
        self.assertGreater(self.server.accepted, 0)
        self.assertEqual(client.nodes, {("fake.example", 27017)})
        self.result(client.disconnect())
        self.failureResultOf(client.aconnect(), InvalidOperation)

    def test_aclosing(self) -> None:
        """aclosing disconnects the client in the end."""

        async def use() -> ConnectionPool[Any]:
            async with aclosing(self.client()) as client:
                await client.test.command("ping")
            return client

        client = self.result(use())
        self.failureResultOf(client.test.command("ping"), InvalidOperation)

    def test_fixed(self) -> None:
        """A fixed pool opens its connections at once."""
        self.client(pool_size=3)
        self.turn()
        self.assertGreaterEqual(self.server.connections, 4)

    def test_await(self) -> None:
        """Awaiting the client fires with it once a server has answered."""
        client = self.client()
        self.assertIs(self.result(client), client)
        self.assertEqual(len(self.server.commands("ping")), 1)

    def test_yield(self) -> None:
        """Yielding the client in inlineCallbacks gives it back at once."""
        client = self.client()

        @inlineCallbacks
        def use() -> Generator[Any, Any, Any]:
            got = yield client
            return got

        self.assertIs(self.successResultOf(use()), client)

    def test_await_fails(self) -> None:
        """Awaiting a client whose server is not there fails in time, and says why."""
        self.server.refusing = True
        client = self.client(serverSelectionTimeoutMS=3000)
        waiting = Deferred.fromCoroutine(awaited(client))
        for _ in range(40):
            self.clock.advance(0.1)
        error = self.failureResultOf(waiting, ServerSelectionTimeoutError).value
        self.assertIn("fake.example:27017", str(error))
        self.assertIn("refuse", str(error))

    def test_await_wrong_password(self) -> None:
        """Awaiting a client with a wrong password fails with the server's error, and names no password."""
        self.server.answer("saslStart", {"ok": 0, "code": 18, "errmsg": "Authentication failed."})
        client = self.client("mongodb://user:hunter2@fake.example/?authMechanism=SCRAM-SHA-256")
        waiting = Deferred.fromCoroutine(awaited(client))
        self.turn()
        error = self.failureResultOf(waiting, OperationFailure).value
        self.assertEqual(error.code, 18)
        self.assertNotIn("hunter2", str(error))

    def test_block(self) -> None:
        """A block disconnects the client at its end."""
        client = self.client()

        async def use() -> None:
            async with client as same:
                self.assertIs(same, client)
                await client.test.command("ping")

        self.result(Deferred.fromCoroutine(use()))
        self.failureResultOf(client.test.command("ping"), InvalidOperation)

    def test_disconnect(self) -> None:
        """disconnect fires when no socket and no delayed call is left; later operations fail."""
        client = self.client()
        self.result(client)
        first, second = client.disconnect(), client.close()
        self.assertIsNot(first, second)
        self.turn()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.server.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(client.test.command("ping"), InvalidOperation)
        self.failureResultOf(client.test.things.find(), InvalidOperation)
        self.failureResultOf(Deferred.fromCoroutine(awaited(client)), InvalidOperation)
        self.successResultOf(client.disconnect())

    def test_disconnect_unused(self) -> None:
        """A client that did nothing is disconnected at once."""
        self.successResultOf(self.client().disconnect())

    def test_disconnect_pending(self) -> None:
        """What is pending fails: what was sent, what waits for a connection, what waits for a server."""
        self.server.answer("slow", Behaviour.FALL_SILENT)
        client = self.client()
        self.result(client)
        sent = client.test.command("slow")
        self.turn()
        nowhere = self.client("mongodb://fake.example/?replicaSet=other")
        unselected = nowhere.test.command("ping")
        self.turn()
        ended = [client.disconnect(), nowhere.disconnect()]
        self.turn()
        self.failureResultOf(sent, AutoReconnect)
        self.failureResultOf(unselected, InvalidOperation)
        for each in ended:
            self.successResultOf(each)

    def test_disconnect_while_connecting(self) -> None:
        """Disconnecting while the first connection is made ends it."""
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        self.server.answer("ismaster", Behaviour.FALL_SILENT)
        self.server.answer("hello", Behaviour.FALL_SILENT)
        client = self.client()
        pending = client.test.command("ping")
        self.turn()
        ended = client.disconnect()
        self.turn()
        self.successResultOf(ended)
        self.failureResultOf(pending, InvalidOperation)
        self.assertEqual(self.server.connections, 0)

    def test_dropped_cursor(self) -> None:
        """A cursor that is dropped is killed, by the client's end at the latest."""
        self.server.answer("find", {"cursor": {"id": 7, "ns": "test.things", "firstBatch": [{"_id": 1}]}})
        self.server.answer("killCursors", {})
        client = self.client()
        self.result(client.test.things.find().next())
        self.turn()
        self.assertEqual([command["cursors"] for command in self.server.commands("killCursors")], [[7]])
        self.result(client.test.things.find().next_batch())
        self.result(client.disconnect())
        self.assertEqual([command["cursors"] for command in self.server.commands("killCursors")], [[7], [7]])


class ReadPreferenceTests(ClientCase):
    """Which of several servers an operation goes to."""

    def test_read_preference(self) -> None:
        """A read goes where its preference says, a write to the primary."""
        client = self.set_of_two()
        self.result(client)
        self.turn()
        for server in (self.servers["a.example"], self.servers["b.example"]):
            server.answer("count", {"n": 1})
        secondary = client.get_database("test", read_preference=ReadPreference.SECONDARY)
        self.result(secondary.things.estimated_document_count())
        self.assertEqual(len(self.servers["b.example"].commands("count")), 1)
        self.assertEqual(self.servers["b.example"].commands("count")[0]["$readPreference"], {"mode": "secondary"})
        self.result(client.test.things.estimated_document_count())
        self.assertEqual(len(self.servers["a.example"].commands("count")), 1)

    def test_get_more(self) -> None:
        """getMore goes to the server that has the cursor, whatever the preference."""
        client = self.set_of_two()
        self.result(client)
        self.turn()
        self.servers["b.example"].answer("find", {"cursor": {"id": 7, "ns": "test.things", "firstBatch": [{"_id": 1}]}})
        self.servers["b.example"].answer(
            "getMore", {"cursor": {"id": 0, "ns": "test.things", "nextBatch": [{"_id": 2}]}}
        )
        things = client.get_database("test", read_preference=ReadPreference.SECONDARY).things
        self.assertEqual(self.result(things.find()), [{"_id": 1}, {"_id": 2}])


class AuthenticateTests(ClientCase):
    """Users that are named after the client was made."""

    def setUp(self) -> None:
        super().setUp()
        self.server = ScramServer()
        self.servers["fake.example"] = self.server

    def test_accepted(self) -> None:
        """Connections are authenticated from then on, on a client that is connected and on one that is not."""
        for connected in (False, True):
            client = self.client()
            if connected:
                self.result(client)
            self.server.authenticated.clear()
            self.assertIs(self.result(client.authenticate("db", "user", "pencil")), True)
            self.assertEqual(self.server.authenticated, ["SCRAM-SHA-256"])
            self.assertNotIn("pencil", repr(client))

    def test_refused(self) -> None:
        """A refusal reaches the caller; what is called afterwards is done as nobody again."""
        client = self.client()
        refused = self.started(client.fake.authenticate("user", "eraser"))
        error = self.failureResultOf(refused, MongoAuthenticationError).value
        self.assertIsInstance(error, OperationFailure)
        self.clock.pump([1] * 20)
        self.result(client)
        self.assertEqual(self.server.authenticated, [])

    def test_over_another(self) -> None:
        """A refused user of one database leaves the one of before in place."""
        client = self.client("mongodb://user:pencil@fake.example/db")
        self.result(client)
        self.failureResultOf(self.started(client.authenticate("db", "user", "eraser")), MongoAuthenticationError)
        self.clock.pump([1] * 20)
        self.server.authenticated.clear()
        self.result(client)
        self.assertEqual(self.server.authenticated, ["SCRAM-SHA-256"])

    def test_overtaken(self) -> None:
        """Another call for the same database takes the place of one that is not over, whose connection is given up."""
        client = self.client(pool_size=1)
        self.result(client)
        first = client.authenticate("db", "user", "eraser")
        second = client.authenticate("db", "user", "pencil")
        self.assertIs(self.result(second), True)
        self.assertIs(self.result(first), True)

    def test_several(self) -> None:
        """Users of two databases are both authenticated, and then no sessions are used."""
        client = self.client()
        self.result(client.authenticate("db", "user", "pencil"))
        self.server.authenticated.clear()
        self.result(client.authenticate("other", "user", "pencil", "SCRAM-SHA-1"))
        self.assertEqual(self.server.authenticated, ["SCRAM-SHA-256", "SCRAM-SHA-1"])

    def test_not_possible(self) -> None:
        """A mechanism that is gone, or that there is not, or credentials that do not fit it, fail it."""
        client = self.client()
        for mechanism in ("MONGODB-CR", "ROT13"):
            self.failureResultOf(client.authenticate("db", "user", "pencil", mechanism), MongoAuthenticationError)
        self.failureResultOf(client.authenticate("db", None, "pencil", "MONGODB-X509"), ConfigurationError)
        self.assertRaises(TypeError, client.authenticate, "db", b"user", "pencil")

    def test_users(self) -> None:
        """auth_creds tells whom connections are authenticated as."""
        self.assertEqual(self.client().auth_creds, {})
        client = self.client("mongodb://ann:pencil@fake.example/db?authMechanism=SCRAM-SHA-1")
        client.authenticate("other", "bob", "eraser").addErrback(lambda _: None)
        users = {"db": ("ann", "pencil", "SCRAM-SHA-1"), "other": ("bob", "eraser", "DEFAULT")}
        self.assertEqual(client.auth_creds, users)


class SessionTests(ClientCase):
    """Sessions, and their end with the client's."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.servers["fake.example"] = FakeServer(hello={"logicalSessionTimeoutMinutes": 30})

    def test_start(self) -> None:
        """A session is started at the call, with the options of PyMongo, and sends nothing."""
        client = self.client()
        session = client.start_session(snapshot=True, snapshot_time=Timestamp(5, 1), default_timeout_ms=7)
        self.assertIs(session.client, client)
        self.assertEqual(session.options, SessionOptions(None, None, True, Timestamp(5, 1), 7))
        self.assertTrue(client.start_session().options.causal_consistency)
        self.assertFalse(client.start_session(False).options.causal_consistency)
        self.assertEqual(self.server.received, [])

    def test_options(self) -> None:
        """All options may come in one object, as in TxMongo; not twice."""
        client = self.client()
        options = SessionOptions(snapshot=True)
        self.assertIs(client.start_session(options=options).options, options)
        self.assertIs(client.start_session(options).options, options)
        default = TransactionOptions(max_commit_time_ms=7)
        self.assertIs(client.start_session(default).options.default_transaction_options, default)
        self.assertTrue(client.start_session(default).options.causal_consistency)
        self.assertRaises(TypeError, client.start_session, default, default)
        self.assertRaises(ConfigurationError, client.start_session, snapshot=True, options=options)
        self.assertRaises(ConfigurationError, client.start_session, True, options=options)
        wrong: Any = {}
        self.assertRaises(TypeError, client.start_session, options=wrong)

    def test_inherited(self) -> None:
        """Transactions have the client's concerns and read preference, unless there are others."""
        client = self.client(w=3, readConcernLevel="majority", readPreference="nearest")
        session = client.start_session()
        session.start_transaction()
        options = session.transaction.options
        self.assertEqual(
            (options.write_concern, options.read_concern, options.read_preference),
            (WriteConcern(w=3), ReadConcern("majority"), client.read_preference),
        )

    def test_passed_on(self) -> None:
        """The client's own methods are done in a session that they are given."""
        self.server.answer("listDatabases", {"databases": []})
        self.server.answer("dropDatabase", {})
        self.server.answer("buildinfo", {})
        client = self.client()
        session = client.start_session()
        self.result(client.list_databases(session))
        self.result(client.list_database_names(session))
        self.result(client.drop_database("test", session))
        self.result(client.server_info(session))
        names = ("listDatabases", "dropDatabase", "buildinfo")
        sent = [command["lsid"] for name in names for command in self.server.commands(name)]
        self.assertEqual(sent, [session.session_id] * 4)

    def test_cluster_time(self) -> None:
        """The client keeps the highest time of the cluster that it was told."""
        client = self.client()
        self.assertIsNone(client.cluster_time)
        times = [{"clusterTime": Timestamp(seconds, 1), "signature": {}} for seconds in (5, 7, 6)]
        self.server.answer("ping", *({"$clusterTime": time} for time in times))
        for _ in times:
            self.result(client.test.command("ping"))
        self.assertEqual(client.cluster_time, times[1])

    def test_ended(self) -> None:
        """The server hears which sessions are over, in a command without one, before the client is disconnected."""
        client = self.client()
        session = client.start_session()
        self.result(client.test.command("ping", session=session))
        self.result(client.test.command("ping"))
        self.successResultOf(session.end_session())
        used = [command["lsid"] for command in self.server.commands("ping")]
        self.assertEqual(len({lsid["id"] for lsid in used}), 2)
        self.result(client.disconnect())
        [command] = self.server.commands("endSessions")
        self.assertEqual((command["endSessions"], command["$db"]), (used[::-1], "admin"))
        self.assertNotIn("lsid", command)
        self.assertRaises(InvalidOperation, client.start_session)

    def test_held(self) -> None:
        """So are those that the application has not ended, their transactions aborted, and that of an open cursor."""
        self.servers["fake.example"] = server = FakeServer(hello=SET_OF_ONE)
        client = self.client("mongodb://fake.example/?replicaSet=rs")
        server.answer("find", {"cursor": {"id": 7, "ns": "test.things", "firstBatch": [{"_id": 1}]}})
        unused, busy, ended = (client.start_session() for _ in range(3))
        busy.start_transaction()
        self.result(client.test.things.find_one({}, session=ended))
        self.result(ended.end_session())
        self.result(client.test.things.insert_one({}, session=busy).addErrback(lambda _: None))
        busy_id = busy.session_id
        cursor = client.test.things.find()
        self.result(cursor.next_batch())
        kept = server.commands("find")[-1]["lsid"]
        self.result(client.disconnect())
        [command] = server.commands("endSessions")
        self.assertCountEqual([lsid["id"] for lsid in command["endSessions"]], [busy_id["id"], kept["id"]])
        self.assertEqual([each["lsid"] for each in server.commands("abortTransaction")], [busy_id])
        self.assertTrue(busy.has_ended)
        for session in (unused, busy):
            self.assertIsNone(self.successResultOf(session.end_session()))
        self.successResultOf(cursor.close())

    def test_between_attempts(self) -> None:
        """What waits for its next attempt ends, an operation with its last error, a transaction as refused."""
        overloaded = {
            "ok": 0,
            "code": 462,
            "errmsg": "busy",
            "errorLabels": ["SystemOverloadedError", "RetryableError"],
        }
        transient = {"ok": 0, "code": 251, "errmsg": "no", "errorLabels": ["TransientTransactionError"]}
        self.servers["fake.example"] = FakeServer(
            {"insert": overloaded, "update": transient, "abortTransaction": {}},
            hello=SET_OF_ONE,
        )
        client = self.client("mongodb://fake.example/?replicaSet=rs")
        things = client.test.things
        self.patch(client._executor._random, "random", lambda: 1.0)

        async def work(session: ClientSession) -> None:
            await things.update_one({}, {"$set": {"x": 1}}, session=session)

        session = client.start_session()
        session._jitter = lambda: 1.0
        inserting, transaction = things.insert_one({}), session.with_transaction(work)
        self.turn()
        self.assertNoResult(inserting)
        self.assertNoResult(transaction)
        self.assertEqual(len(client._executor.pauses), 2)
        self.result(client.disconnect())
        self.assertEqual(self.failureResultOf(inserting, OperationFailure).value.code, 462)
        self.failureResultOf(transaction, InvalidOperation)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_further_attempt(self) -> None:
        """A transaction whose connection is closed by the client's end is not run again."""
        self.servers["fake.example"] = server = FakeServer({"insert": Behaviour.FALL_SILENT}, hello=SET_OF_ONE)
        client = self.client("mongodb://fake.example/?replicaSet=rs")

        async def work(session: ClientSession) -> None:
            await client.test.things.insert_one({}, session=session)

        transaction = self.started(client.start_session().with_transaction(work))
        self.result(client.disconnect())
        self.failureResultOf(transaction, InvalidOperation)
        self.assertEqual((self.clock.getDelayedCalls(), len(server.commands("insert"))), ([], 1))

    def test_given_up_before(self) -> None:
        """A connection that was given up before is waited for until its socket is closed."""
        client = self.client()
        self.result(client)
        [server] = client._topology.servers.values()
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        opening = client._connector.connect(server.address)
        self.turn()
        [protocol] = [each.transport.other.own for each in self.server._conversations if each._busy]
        abort = protocol.transport.abortConnection
        self.patch(protocol.transport, "abortConnection", lambda: self.clock.callLater(3, abort))
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        first, second = client.disconnect(), client.disconnect()
        self.turn()
        self.assertEqual(self.server.connections, 1)
        self.assertNoResult(first)
        self.clock.advance(3)
        self.turn()
        self.assertEqual(self.server.connections, 0)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_no_answer(self) -> None:
        """The answer is waited for no longer than a second, by everyone who asked for the end."""
        self.server.answer("endSessions", Behaviour.FALL_SILENT)
        client = self.client()
        self.result(client)
        first, second = client.disconnect(), client.disconnect()
        self.turn()
        self.assertNoResult(first)
        self.failureResultOf(client.test.command("ping"), InvalidOperation)
        self.clock.advance(1)
        self.turn()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(client.disconnect())
        self.assertEqual(self.server.connections, 0)

    def test_refused(self) -> None:
        """That the server refuses it changes nothing."""
        self.server.answer("endSessions", {"ok": 0, "code": 13, "errmsg": "no"})
        client = self.client()
        self.result(client)
        self.assertIsNone(self.result(client.disconnect()))

    def test_no_server(self) -> None:
        """Nothing is waited for when no server is known that could be told."""
        client = self.client()
        self.result(client)
        self.server.hang_up()
        gone = dict.fromkeys(("isMaster", "ismaster", "hello"), Behaviour.HANG_UP)
        self.servers["fake.example"] = FakeServer(gone)
        failed = client.test.command("ping")
        self.turn()
        self.failureResultOf(failed, AutoReconnect)
        ended = client.disconnect()
        self.turn()
        self.successResultOf(ended)
        self.assertEqual(self.server.commands("endSessions"), [])
