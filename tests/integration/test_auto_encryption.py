"""Clients that encrypt and decrypt by themselves, on a real server.

The community's server comes without mongocryptd, which marks what is to be encrypted: a scripted server marks the field
``ssn`` in its place. All else is real, libmongocrypt too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import bson
from bson.binary import Binary
from pymongo import CursorType, encryption_options
from pymongo.encryption_options import AutoEncryptionOpts
from pymongo.monitoring import CommandSucceededEvent
from pymongo.operations import InsertOne, UpdateOne
from pymongo.write_concern import WriteConcern
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from tests.integration import mongocryptd_stand_in
from tests.integration.mongocryptd_stand_in import Marks
from tests.integration.servers import Commands
from tests.integration.test_encryption import DETERMINISTIC, LOCAL, MASTER_KEY, RANDOM, EncryptionTestCase
from txmongo._testing.den import wait_until
from txmongo.collection import Collection
from txmongo.connection import ConnectionPool
from txmongo.encryption import ClientEncryption
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    EncryptionError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from txmongo.testing import FakeServer, Mongod

_UNACKNOWLEDGED = WriteConcern(w=0)
KEY_VAULT = "txmongo_tests.data_keys"
NAMESPACE = "txmongo_tests.things"


class Heard(Commands):
    """Keeps the replies, too."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Any] = []

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """A command was answered."""
        self.replies.append(event.reply)

    def of(self, name: str) -> list[Any]:
        """The commands of one name."""
        return [command for command in self.sent if name in command]


def schema(key_id: Binary) -> dict[str, Any]:
    """The schema of the collection."""
    encrypt = {"keyId": [key_id], "bsonType": "string", "algorithm": DETERMINISTIC.value}
    return {"bsonType": "object", "properties": {"ssn": {"encrypt": encrypt}}}


class AutoEncryptionTestCase(EncryptionTestCase):
    """A data key, and clients that use it."""

    async def setUp(self) -> None:
        """Make the key."""
        await super().setUp()
        self.key_id = await self.encryption.create_data_key("local", key_alt_names=["mine"])
        self.heard = Heard()
        self.automatic_clients: list[ConnectionPool[Any]] = []

    async def tearDown(self) -> None:  # type: ignore[override]  # trial waits for it
        """The clients' sessions were given back, too."""
        for client in self.automatic_clients:
            sessions = client._executor.sessions.pool
            await wait_until(reactor, lambda pool=sessions: not pool.in_use, 20, "sessions were not given back")
        await super().tearDown()

    def automatic(
        self, uri: str = "", client_options: Mapping[str, Any] | None = None, **options: Any
    ) -> Collection[dict[str, Any]]:
        """The collection by way of a client that decrypts, and perhaps encrypts."""
        opts = AutoEncryptionOpts(options.pop("kms_providers", LOCAL), KEY_VAULT, **options)
        client: ConnectionPool[dict[str, Any]] = ConnectionPool(
            uri or self.uri, auto_encryption_opts=opts, event_listeners=[self.heard], **(client_options or {})
        )
        self.addCleanup(client.disconnect)
        self.automatic_clients.append(client)
        return client.txmongo_tests.things

    async def secret(self, value: Any) -> Binary:
        """A value that was encrypted explicitly."""
        return await self.encryption.encrypt(value, RANDOM, self.key_id)


class DecryptionTests(AutoEncryptionTestCase):
    """Replies, where commands are not encrypted."""

    async def test_reads(self) -> None:
        """Whatever has ciphertext in it comes back decrypted: from finds, from cursors, from writes that return."""
        secrets = [await self.secret({"number": number}) for number in range(5)]
        await self.things.insert_many([{"_id": number, "a": [{"s": each}]} for number, each in enumerate(secrets)])
        for bypass in ("bypass_auto_encryption", "bypass_query_analysis"):
            things = self.automatic(**{bypass: True})
            expected = [{"_id": number, "a": [{"s": {"number": number}}]} for number in range(5)]
            self.assertEqual(await things.find(sort=[("_id", 1)]), expected, bypass)
            self.assertEqual([each async for each in things.find(sort=[("_id", 1)], batch_size=2)], expected)
            exhaust = things.find(sort=[("_id", 1)], batch_size=2, cursor_type=CursorType.EXHAUST)
            self.assertEqual([each async for each in exhaust], expected)
            self.assertEqual([each async for each in things.find_raw_batches({"_id": 3})], [bson.encode(expected[3])])
            self.assertEqual(await things.find_one({"_id": 3}), expected[3])
            self.assertEqual(await things.aggregate([{"$match": {"_id": 2}}]), [expected[2]])
            self.assertEqual(await things.find_one_and_update({"_id": 1}, {"$set": {"a.1": 7}}), expected[1])
            await things.update_one({"_id": 1}, {"$unset": {"a.1": 1}})
            await self.things.update_one({"_id": 1}, {"$pop": {"a": 1}})
            found = await things.database.command("find", "things", filter={"_id": 4})
            self.assertEqual(found["cursor"]["firstBatch"], [expected[4]])

    async def test_plain_writes(self) -> None:
        """Values that are encrypted explicitly go out as they are, and so does all that is not."""
        things = self.automatic(bypass_query_analysis=True)
        await things.insert_one({"_id": 1, "secret": await self.secret("4711"), "open": "house"})
        self.assertEqual((await things.update_one({"_id": 1}, {"$set": {"more": 1}})).modified_count, 1)
        stored = await self.things.find_one()
        assert stored is not None
        self.assertEqual((stored["secret"].subtype, stored["open"], stored["more"]), (6, "house", 1))
        self.assertEqual(await things.find_one(), {"_id": 1, "secret": "4711", "open": "house", "more": 1})
        await self.failure(things.insert_one({"_id": 1}), Exception)

    async def test_events(self) -> None:
        """Who listens sees what is sent and received, which is ciphertext, and what the driver fetches for it."""
        await self.things.insert_one({"_id": 1, "secret": await self.secret("4711")})
        things = self.automatic(bypass_auto_encryption=True)
        await things.find_one()
        first, second = self.heard.of("find")
        self.assertEqual((first["find"], first["$db"], second["find"]), ("things", "txmongo_tests", "data_keys"))
        self.assertEqual(self.heard.replies[0]["cursor"]["firstBatch"][0]["secret"].subtype, 6)

    async def test_key_vault_client(self) -> None:
        """The key vault may be reached by a client of the application's own, which stays connected."""
        await self.things.insert_one({"_id": 1, "secret": await self.secret("4711")})
        things = self.automatic(bypass_auto_encryption=True, key_vault_client=self.client)
        self.commands.sent.clear()
        self.assertEqual((await things.find_one() or {})["secret"], "4711")
        self.assertEqual(self.commands.names(), ["find"])
        await things.database.client.disconnect()
        self.assertEqual((await self.client.admin.command("ping"))["ok"], 1)

    async def test_late_reply(self) -> None:
        """What is under way when the client is disconnected is decrypted or fails, whenever its reply comes."""
        await self.things.insert_one({"_id": 1, "secret": await self.secret("4711")})
        things = self.automatic(bypass_auto_encryption=True)
        self.assertEqual((await things.find_one() or {})["secret"], "4711")
        client = things.database.client
        finds = [things.find_one() for _ in range(20)]
        disconnected = client.disconnect()
        for find in finds:
            with contextlib.suppress(InvalidOperation, AutoReconnect):
                self.assertEqual((await find or {})["secret"], "4711")
        await disconnected

    async def test_undecipherable(self) -> None:
        """A reply that cannot be decrypted fails the call that it answers; the connection goes on."""
        await self.things.insert_one({"_id": 1, "secret": await self.secret("4711")})
        things = self.automatic(
            bypass_auto_encryption=True, kms_providers={"local": {"key": b"other" + MASTER_KEY[5:]}}
        )
        await self.failure(things.find_one(), EncryptionError)
        self.assertEqual(await things.count_documents({}), 1)
        self.assertEqual([next(iter(each)) for each in self.heard.sent], ["find", "find", "aggregate"])
        self.assertEqual(len(self.heard.replies), 3)
        await self.keys.drop()
        await self.failure(self.automatic(bypass_auto_encryption=True).find_one(), EncryptionError)

    async def test_unacknowledged(self) -> None:
        """Writes without acknowledgement have no reply."""
        things = self.automatic(bypass_query_analysis=True)
        unacknowledged = things.with_options(write_concern=_UNACKNOWLEDGED)
        self.assertFalse((await unacknowledged.insert_one({"_id": 1})).acknowledged)
        await self.until(lambda: self.things.find_one())

    async def until(self, ask: Any) -> None:
        """Ask until there is an answer."""
        while not await ask():
            pass


class EncryptingTestCase(AutoEncryptionTestCase):
    """Clients whose commands are encrypted as a stand-in for mongocryptd says."""

    async def setUp(self) -> None:
        """Start what marks."""
        await super().setUp()
        self.marks = FakeServer()
        self.marked = Marks(self.key_id).marked
        for name in ("insert", "update", "find", "delete", "findAndModify", "aggregate"):
            self.marks.answer(name, self.marked)
        await self.marks.listen(reactor)
        self.addCleanup(self.marks.stop)

    def encrypting(self, uri: str = "", **options: Any) -> Collection[dict[str, Any]]:
        """The collection by way of a client that encrypts by a schema of its own."""
        options.setdefault("mongocryptd_uri", self.marks.uri)
        return self.automatic(uri, schema_map={NAMESPACE: schema(self.key_id)}, **options)


class EncryptionTests(EncryptingTestCase):
    """Commands."""

    async def test_round_trip(self) -> None:
        """What is written is ciphertext, can be searched for, and is read as it was."""
        things = self.encrypting()
        await things.insert_one({"_id": 1, "ssn": "457-55-5462", "name": "Ada"})
        await things.insert_many([{"_id": 2, "ssn": "1"}, {"_id": 3}])
        stored = await self.things.find_one({"_id": 1})
        assert stored is not None
        self.assertEqual((type(stored["ssn"]), stored["ssn"].subtype, stored["name"]), (Binary, 6, "Ada"))
        self.assertEqual(await things.find_one({"ssn": "457-55-5462"}), {"_id": 1, "ssn": "457-55-5462", "name": "Ada"})
        await things.update_one({"ssn": "1"}, {"$set": {"ssn": "2"}})
        changed = await things.find_one_and_update({"ssn": "2"}, {"$set": {"n": 1}}, return_document=True)
        self.assertEqual(changed, {"_id": 2, "ssn": "2", "n": 1})
        result = await things.bulk_write(
            [InsertOne({"_id": 4, "ssn": "4"}), UpdateOne({"_id": 3}, {"$set": {"ssn": "3"}})]
        )
        self.assertEqual((result.inserted_count, result.modified_count), (1, 1))
        self.assertEqual(await self.things.count_documents({"ssn": {"$type": "binData"}}), 4)
        self.assertEqual((await things.delete_one({"ssn": "4"})).deleted_count, 1)
        self.assertEqual([each["ssn"] for each in await things.find(sort=[("_id", 1)])], ["457-55-5462", "2", "3"])

    async def test_events(self) -> None:
        """Who listens sees commands as they leave the process."""
        things = self.encrypting()
        await things.insert_one({"_id": 1, "ssn": "457-55-5462"})
        (command,) = self.heard.of("insert")
        self.assertEqual(command["documents"][0]["ssn"].subtype, 6)
        self.assertEqual((command["insert"], command["$db"]), ("things", "txmongo_tests"))
        self.assertIn("lsid", command)
        self.assertNotIn(b"457-55-5462", bson.encode(command))

    async def test_remote_schema(self) -> None:
        """Without a schema of its own the client asks the server for one, once."""
        await self.client.txmongo_tests.create_collection("things", validator={"$jsonSchema": schema(self.key_id)})
        things = self.automatic(mongocryptd_uri=self.marks.uri)
        for number in range(3):
            await things.insert_one({"_id": number, "ssn": "1"})
        self.assertEqual(len(self.heard.of("listCollections")), 1)
        self.assertEqual(self.marks.commands("insert")[0]["isRemoteSchema"], True)
        self.assertEqual(await self.things.count_documents({"ssn": {"$type": "binData"}}), 3)

    async def test_batches(self) -> None:
        """Bulk writes are sent in batches of two megabytes; a single document may be larger."""
        things = self.encrypting()
        large = "x" * (1 << 20)
        await things.insert_many([{"_id": number, "ssn": "1", "a": large} for number in range(4)])
        self.assertEqual([len(each["documents"]) for each in self.heard.of("insert")], [1, 1, 1, 1])
        self.heard.sent.clear()
        await things.insert_many([{"_id": number, "ssn": "1", "a": large[:600_000]} for number in range(10, 16)])
        self.assertEqual([len(each["documents"]) for each in self.heard.of("insert")], [3, 3])
        self.heard.sent.clear()
        await things.bulk_write(
            [InsertOne({"_id": 20}), InsertOne({"_id": 21, "a": large * 3}), InsertOne({"_id": 22})]
        )
        self.assertEqual([len(each["documents"]) for each in self.heard.of("insert")], [1, 1, 1])
        self.assertEqual(await self.things.count_documents({}), 13)
        error = await self.failure(things.insert_many([{"_id": 30, "a": large * 17}]), OperationFailure)
        self.assertEqual(error.code, 10334)

    async def test_at_once(self) -> None:
        """Many operations at once share one connection, and the fetching of one key."""
        things = self.encrypting(client_options={"maxPoolSize": 1})
        writes = [things.insert_one({"_id": number, "ssn": str(number)}) for number in range(20)]
        for write in writes:
            await write
        reads = [things.find_one({"ssn": str(number)}) for number in range(20)]
        self.assertEqual([(await read or {})["_id"] for read in reads], list(range(20)))

    async def test_not_there(self) -> None:
        """Without mongocryptd the operation fails, and says what may be done; others go on."""
        await self.marks.stop()
        uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50"
        things = self.encrypting(mongocryptd_uri=uri, mongocryptd_bypass_spawn=True)
        error = await self.failure(things.insert_one({"_id": 1, "ssn": "1"}), EncryptionError)
        self.assertIsInstance(error.cause, ServerSelectionTimeoutError)
        self.assertIn("crypt_shared_lib_path", str(error))
        self.assertTrue(error.timeout)
        self.assertEqual(self.heard.of("insert"), [])
        self.assertEqual((await things.database.command("ping"))["ok"], 1)

    async def test_crypt_shared_required(self) -> None:
        """A library that has to be there, and is not, is told of when the client is made."""
        error = self.assertRaises(
            ConfigurationError,
            self.automatic,
            crypt_shared_lib_required=True,
            crypt_shared_lib_path="/nowhere/mongo_crypt_v1.so",
        )
        self.assertIn("/nowhere/mongo_crypt_v1.so", str(error))

    async def test_marks_nothing_of_use(self) -> None:
        """What mongocryptd answers with an error fails the operation."""
        self.marks.answer("insert", {"ok": 0, "code": 51, "errmsg": "no such schema"})
        error = await self.failure(self.encrypting().insert_one({"_id": 1}), EncryptionError)
        self.assertIn("no such schema", str(error))

    async def test_cancel(self) -> None:
        """An operation that is cancelled while it is encrypted is not sent, and gives its connection back."""
        things = self.encrypting(client_options={"maxPoolSize": 1})
        asked: Deferred[None] = Deferred()

        def never(command: Mapping[str, Any]) -> Deferred[Any]:
            asked.callback(None)
            return Deferred()

        self.marks.answer("insert", never, self.marked)
        insert = things.insert_one({"_id": 1, "ssn": "1"})
        await asked
        insert.cancel()
        await self.failure(insert, CancelledError)
        self.marks.hang_up()
        await things.insert_one({"_id": 2, "ssn": "2"})
        self.assertEqual([each["_id"] for each in await self.things.find()], [2])

    async def test_time(self) -> None:
        """The time of an operation is that for encryption, too."""
        things = self.encrypting()
        await things.insert_one({"_id": 1, "ssn": "1"})
        self.marks.answer("insert", Deferred())
        error = await self.failure(things.insert_one({"_id": 2, "ssn": "2"}, timeout_ms=100), PyMongoError)
        self.assertTrue(error.timeout)
        self.assertEqual(await self.things.count_documents({}), 1)

    async def test_disconnect(self) -> None:
        """A client that is disconnected while it encrypts leaves nothing behind; later calls are refused."""
        things = self.encrypting()
        asked: Deferred[None] = Deferred()

        def never(command: Mapping[str, Any]) -> Deferred[Any]:
            asked.callback(None)
            return Deferred()

        self.marks.answer("insert", never)
        insert = things.insert_one({"_id": 1, "ssn": "1"})
        await asked
        await things.database.client.disconnect()
        await self.failure(insert, InvalidOperation, AutoReconnect, EncryptionError)
        await self.failure(things.find_one(), InvalidOperation)
        await things.database.client.disconnect()


class SpawnTests(AutoEncryptionTestCase):
    """A mongocryptd that the driver starts: a script in its place."""

    async def setUp(self) -> None:
        """Find a place for its socket, whose name must be short."""
        await super().setUp()
        self.folder = tempfile.mkdtemp(prefix="txmongo-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.socket = f"{self.folder}/mongocryptd.sock"

    async def tearDown(self) -> None:  # type: ignore[override]  # trial waits for it
        """End it."""
        await self.end()
        await super().tearDown()

    def place(self, milliseconds: int = 60_000) -> str:
        """Where it is, and how long it is looked for."""
        return f"mongodb://{quote(self.socket, safe='')}/?serverSelectionTimeoutMS={milliseconds}"

    async def ask(self, command: str) -> Any:
        """Have a client of the test's own say something to it."""
        client: ConnectionPool[Any] = ConnectionPool(self.place())
        try:
            return await client.admin.command(command)
        finally:
            await client.disconnect()

    async def end(self) -> None:
        """Have it end, if it runs."""
        if os.path.exists(self.socket):
            with contextlib.suppress(AutoReconnect):
                await self.ask("shutdown")
            await wait_until(reactor, lambda: not os.path.exists(self.socket), 60, "the stand-in does not end")

    def spawning(self, *arguments: str, **options: Any) -> Collection[dict[str, Any]]:
        """The collection by way of a client that starts it."""
        script = [mongocryptd_stand_in.__file__, f"--socket={self.socket}", f"--key={self.key_id.hex()}"]
        options.setdefault("mongocryptd_spawn_args", [*script, *arguments])
        return self.automatic(
            schema_map={NAMESPACE: schema(self.key_id)},
            mongocryptd_uri=self.place(),
            mongocryptd_spawn_path=sys.executable,
            **options,
        )

    async def test_started(self) -> None:
        """It is started when it is first needed, once for all who need it, and outlives the client."""
        things = self.spawning()
        await things.database.command("ping")
        self.assertFalse(os.path.exists(self.socket))
        for insert in [things.insert_one({"_id": number, "ssn": "1"}) for number in range(5)]:
            await insert
        self.assertEqual(await self.things.count_documents({"ssn": {"$type": "binData"}}), 5)
        await things.database.client.disconnect()
        told = await self.ask("whoAreYou")
        self.assertEqual(told["null"], [True] * 3)
        self.assertEqual(told["arguments"][-1], "--idleShutdownTimeoutSecs=60")
        other = self.spawning("--idleShutdownTimeoutSecs=50")
        self.assertEqual((await other.find_one({"ssn": "1"}) or {})["ssn"], "1")
        self.assertEqual((await self.ask("whoAreYou"))["pid"], told["pid"])

    async def test_again(self) -> None:
        """One that has ended is started again when it is next needed, with the arguments that were given."""
        things = self.spawning("--idleShutdownTimeoutSecs", "50")
        await things.insert_one({"_id": 1, "ssn": "1"})
        first = await self.ask("whoAreYou")
        await self.end()
        await things.insert_one({"_id": 2, "ssn": "2"})
        second = await self.ask("whoAreYou")
        self.assertNotEqual(first["pid"], second["pid"])
        self.assertEqual(second["arguments"][-2:], ["--idleShutdownTimeoutSecs", "50"])

    async def test_fails(self) -> None:
        """Of one that ends at once the error tells, within the time of the operation."""
        things = self.automatic(
            schema_map={NAMESPACE: schema(self.key_id)},
            mongocryptd_uri=self.place(2000),
            mongocryptd_spawn_path="false",
        )
        error = await self.failure(things.insert_one({"_id": 1, "ssn": "1"}), EncryptionError)
        self.assertIsInstance(error.cause, ServerSelectionTimeoutError)
        self.assertIn("false was started", str(error))
        missing = self.automatic(
            schema_map={NAMESPACE: schema(self.key_id)},
            mongocryptd_uri=self.place(1000),
            mongocryptd_spawn_path="/nowhere/mongocryptd",
        )
        error = await self.failure(missing.insert_one({"_id": 1, "ssn": "1"}), EncryptionError)
        self.assertIn("mongocryptd_spawn_path: there is no executable '/nowhere/mongocryptd'", str(error))

    async def test_bypassed(self) -> None:
        """It is not started where that is not wanted: client-side encryption, prose test 8."""
        for bypass in ("mongocryptd_bypass_spawn", "bypass_auto_encryption", "bypass_query_analysis"):
            things = self.spawning(
                mongocryptd_spawn_args=["-c", f"open({self.folder + '/trace'!r}, 'w')"], **{bypass: True}
            )
            if bypass == "mongocryptd_bypass_spawn":
                await self.failure(things.insert_one({"plain": 1}, timeout_ms=1000), PyMongoError)
            else:
                await things.insert_one({"plain": 1})
            self.assertFalse(os.path.exists(f"{self.folder}/trace"))


class SetTests(EncryptingTestCase):
    """The same on a replica set, where writes are retried and transactions are possible."""

    on_replica_set = True

    async def test_retry(self) -> None:
        """A write that has to be sent again is, and done once; a read too."""
        things = self.encrypting()
        await self.fail_command("insert", errorCode=134, errorLabels=["RetryableWriteError"])
        await things.insert_one({"_id": 1, "ssn": "1"})
        first, second = self.heard.of("insert")
        self.assertEqual(first["txnNumber"], second["txnNumber"])
        await self.fail_command("find", errorCode=134)
        self.assertEqual(await things.find_one({"ssn": "1"}), {"_id": 1, "ssn": "1"})
        await self.fail_command("find", errorCode=134)
        self.assertEqual(await things.find_one({"ssn": "1"}, timeout_ms=20_000), {"_id": 1, "ssn": "1"})

    async def test_limited_transaction(self) -> None:
        """The time of a transaction is that of what is done in it, and of its encryption."""
        things = self.encrypting()
        await self.client.txmongo_tests.create_collection("things")

        async def insert(session: Any) -> None:
            await things.insert_one({"_id": 1, "ssn": "1"}, session=session)

        async with things.database.client.start_session(default_timeout_ms=20_000) as session:
            await session.with_transaction(insert)
        self.assertEqual(await things.find(), [{"_id": 1, "ssn": "1"}])
        self.assertIn("maxTimeMS", self.heard.of("insert")[0])

    async def test_transaction(self) -> None:
        """What is done in a transaction is encrypted and decrypted; a failure to encrypt leaves it as it was."""
        things = self.encrypting()
        await self.client.txmongo_tests.create_collection("things")
        async with things.database.client.start_session() as session:
            session.start_transaction()
            self.marks.answer("insert", {"ok": 0, "code": 51, "errmsg": "no"}, self.marked)
            await self.failure(things.insert_one({"_id": 1, "ssn": "1"}, session=session), EncryptionError)
            await things.insert_one({"_id": 2, "ssn": "2"}, session=session)
            self.assertEqual(await things.find_one({"ssn": "2"}, session=session), {"_id": 2, "ssn": "2"})
            await session.commit_transaction()
        self.assertEqual(await things.find(), [{"_id": 2, "ssn": "2"}])
        self.assertTrue(self.heard.of("insert")[0]["startTransaction"])

    async def test_change_stream(self) -> None:
        """Changes are decrypted."""
        things = self.encrypting()
        async with await things.watch() as stream:
            await things.insert_one({"_id": 1, "ssn": "1"})
            change = await stream.next()
        self.assertEqual(change["fullDocument"], {"_id": 1, "ssn": "1"})


class UserTests(TestCase):
    """A server with users."""

    timeout = 120

    async def test_authenticated_later(self) -> None:
        """Who is authenticated by a method of the client is so for what it fetches, too."""
        mongod = await Mongod(reactor, auth=True).start()
        self.addCleanup(mongod.stop)
        assert mongod.credentials is not None
        name, password = mongod.credentials
        root: ConnectionPool[Any] = ConnectionPool(mongod.uri)
        self.addCleanup(root.disconnect)
        async with ClientEncryption(LOCAL, KEY_VAULT, root, root.codec_options) as encryption:
            secret = await encryption.encrypt("4711", RANDOM, await encryption.create_data_key("local"))
        await root.txmongo_tests.things.insert_one({"_id": 1, "secret": secret})
        host, port = mongod.address
        client: ConnectionPool[Any] = ConnectionPool(
            f"mongodb://{host}:{port}",
            auto_encryption_opts=AutoEncryptionOpts(LOCAL, KEY_VAULT, bypass_auto_encryption=True),
        )
        self.addCleanup(client.disconnect)
        things = client.txmongo_tests.things
        await self.assertFailure(client.authenticate("admin", name, "wrong"), OperationFailure)
        await self.assertFailure(things.find_one(), OperationFailure)
        await client.authenticate("admin", name, password)
        self.assertEqual(await things.find_one(), {"_id": 1, "secret": "4711"})


class CollectionTests(AutoEncryptionTestCase):
    """Collections that a map says have encrypted fields."""

    async def test_create(self) -> None:
        """They are created with them, which this server is too old for."""
        things = self.automatic(bypass_query_analysis=True, encrypted_fields_map={NAMESPACE: {"fields": []}})
        error = await self.failure(things.database.create_collection("things"), ConfigurationError)
        self.assertIn("MongoDB 7.0", str(error))
        await things.database.create_collection("others")
        await things.database.others.drop()

    async def test_drop(self) -> None:
        """They are dropped with what belongs to them, as the map says, or the server."""
        beside = [f"enxcol_.{name}.{kind}" for name in ("things", "others") for kind in ("esc", "ecoc")]
        for name in ("things", "plain", *beside):
            await self.client.txmongo_tests.create_collection(name)
        things = self.automatic(bypass_query_analysis=True, encrypted_fields_map={NAMESPACE: {"fields": []}})
        await things.drop()
        await things.database.drop_collection("plain")
        left = await self.client.txmongo_tests.list_collection_names(
            filter={"name": {"$in": ["things", "plain", *beside]}}
        )
        self.assertEqual(sorted(left), ["enxcol_.others.ecoc", "enxcol_.others.esc"])
        for name in left:
            await self.client.txmongo_tests[name].drop()


class OptionTests(AutoEncryptionTestCase):
    """What is refused."""

    async def test_options(self) -> None:
        """Options that cannot be had are refused when the client is made."""
        for options, kind in (
            ({"kms_providers": {"aws:archive": {}}}, ConfigurationError),
            ({"kms_providers": {"local": {"key": b"short"}}}, ConfigurationError),
            ({"kms_tls_options": {"aws": {"tlsInsecure": True}}}, ConfigurationError),
            ({"key_vault_client": object()}, TypeError),
            ({"schema_map": []}, TypeError),
            ({"key_expiration_ms": "1"}, TypeError),
        ):
            self.assertRaises(kind, self.automatic, **options)
        if hasattr(encryption_options, "KMSConnectContext"):
            self.assertRaises(ConfigurationError, self.automatic, kms_connect_callback=print)
        self.assertRaises(TypeError, ConnectionPool, self.uri, auto_encryption_opts={"kms_providers": LOCAL})
        self.assertRaises(ValueError, ConnectionPool, self.uri, auto_encryption_opts=AutoEncryptionOpts(LOCAL, "keys"))

    async def test_client_bulk_write(self) -> None:
        """A client's bulk write is not encrypted by anybody, and so not sent: CRUD, prose test 13."""
        client = self.automatic(bypass_auto_encryption=True).database.client
        error = self.assertRaises(InvalidOperation, client.bulk_write, [InsertOne({"_id": 1}, namespace=NAMESPACE)])
        self.assertIn("bulk_write does not currently support automatic encryption", str(error))
