"""Data keys and single values: ClientEncryption on a real server, with a master key of the application's own."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from bson.binary import Binary
from bson.codec_options import CodecOptions
from bson.errors import InvalidDocument
from bson.int64 import Int64
from bson.son import SON
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.database import Database
from txmongo.encryption import Algorithm, ClientEncryption, QueryType, RangeOpts
from txmongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    EncryptedCollectionError,
    EncryptionError,
    InvalidOperation,
    ServerSelectionTimeoutError,
)
from txmongo.testing import FakeServer

MASTER_KEY = bytes(range(96))
LOCAL = {"local": {"key": MASTER_KEY}}
RANDOM = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random
DETERMINISTIC = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Deterministic


class EncryptionTestCase(CollectionTestCase):
    """A key vault whose index lets a name be that of one key only."""

    async def setUp(self) -> None:
        """Make the key vault."""
        await super().setUp()
        self.keys = self.client.txmongo_tests.data_keys
        await self.keys.drop()
        await self.keys.create_index(
            [("keyAltNames", 1)], unique=True, partialFilterExpression={"keyAltNames": {"$exists": True}}
        )
        self.encryption = self.client_encryption()
        self.commands.sent.clear()

    def client_encryption(
        self, kms_providers: Any = LOCAL, client: Any = None, **options: Any
    ) -> ClientEncryption[Any]:
        """One that is closed at the end."""
        client = client or self.client
        encryption: ClientEncryption[Any] = ClientEncryption(
            kms_providers, "txmongo_tests.data_keys", client, client.codec_options, **options
        )
        self.addCleanup(encryption.close)
        return encryption

    async def encryption_failure(self, deferred: Any) -> Any:
        """The error of libmongocrypt, of the key vault or of a service that a Deferred fails with."""
        return (await self.failure(deferred, EncryptionError)).cause


class DataKeyTests(EncryptionTestCase):
    """The keys in the key vault."""

    async def test_create(self) -> None:
        """A data key is stored with majority write concern, encrypted, under an id that is a UUID, with its names."""
        key_id = await self.encryption.create_data_key("local", key_alt_names=["ada", "lovelace"])
        self.assertEqual((type(key_id), key_id.subtype), (Binary, 4))
        self.assertEqual(self.commands.sent[-1]["writeConcern"], {"w": "majority"})
        stored = await self.keys.find_one()
        assert stored is not None
        self.assertEqual(stored["_id"], key_id)
        self.assertEqual(stored["masterKey"], {"provider": "local"})
        self.assertEqual(sorted(stored["keyAltNames"]), ["ada", "lovelace"])

    async def test_key_material(self) -> None:
        """What was encrypted with a key of given material is read with another one of the same, under the same id."""
        key_id = await self.encryption.create_data_key("local", key_material=b"m" * 96)
        secret = await self.encryption.encrypt("4711", RANDOM, key_id)
        await self.encryption.delete_key(key_id)
        other = await self.encryption.create_data_key("local", key_material=b"m" * 96)
        await self.keys.insert_one({**(await self.keys.find_one({"_id": other}) or {}), "_id": key_id})
        self.assertEqual(await self.client_encryption().decrypt(secret), "4711")

    async def test_named_provider(self) -> None:
        """A provider may have a name: its keys are not those of another of the same kind."""
        encryption = self.client_encryption({"local:a": {"key": MASTER_KEY}, "local:b": {"key": b"b" * 96}})
        key_id = await encryption.create_data_key("local:b")
        stored = await self.keys.find_one({"_id": key_id})
        assert stored is not None
        self.assertEqual(stored["masterKey"], {"provider": "local:b"})
        secret = await encryption.encrypt(1, RANDOM, key_id)
        cause = await self.encryption_failure(self.encryption.decrypt(secret))
        self.assertIn("local:b", str(cause))

    async def test_get(self) -> None:
        """Keys are found by id and by name, and all of them; one that is not there is None."""
        first = await self.encryption.create_data_key("local", key_alt_names=["first"])
        second = await self.encryption.create_data_key("local")
        for found in (
            await self.encryption.get_key(first),
            await self.encryption.get_key(first.as_uuid()),
            await self.encryption.get_key_by_alt_name("first"),
        ):
            assert found is not None
            self.assertEqual(found["_id"], first)
        self.assertEqual(self.commands.sent[-1]["readConcern"], {"level": "majority"})
        self.assertEqual([key["_id"] async for key in self.encryption.get_keys()], [first, second])
        self.assertIsNone(await self.encryption.get_key(uuid.uuid4()))
        self.assertIsNone(await self.encryption.get_key_by_alt_name("second"))

    async def test_delete(self) -> None:
        """A key that is deleted is gone, once."""
        key_id = await self.encryption.create_data_key("local")
        self.assertEqual((await self.encryption.delete_key(key_id)).deleted_count, 1)
        self.assertEqual((await self.encryption.delete_key(key_id)).deleted_count, 0)
        self.assertEqual(await self.encryption.get_keys(), [])

    async def test_names(self) -> None:
        """Names are added and removed, the answer is the key before that; the last one leaves no empty list behind."""
        key_id = await self.encryption.create_data_key("local")
        before = await self.encryption.add_key_alt_name(key_id, "$ada")
        assert before is not None
        self.assertNotIn("keyAltNames", before)
        before = await self.encryption.add_key_alt_name(key_id, "lovelace")
        assert before is not None
        self.assertEqual(before["keyAltNames"], ["$ada"])
        await self.encryption.remove_key_alt_name(key_id, "lovelace")
        self.assertEqual((await self.keys.find_one() or {})["keyAltNames"], ["$ada"])
        before = await self.encryption.remove_key_alt_name(key_id, "$ada")
        assert before is not None
        self.assertEqual(before["keyAltNames"], ["$ada"])
        self.assertNotIn("keyAltNames", await self.keys.find_one() or {})
        nobody = uuid.uuid4()
        self.assertIsNone(await self.encryption.add_key_alt_name(nobody, "a"))
        self.assertIsNone(await self.encryption.remove_key_alt_name(nobody, "a"))

    async def test_name_taken(self) -> None:
        """A name that another key has is refused by the key vault's index: client-side encryption, prose test 13."""
        key_id = await self.encryption.create_data_key("local", key_alt_names=["abc"])
        other = await self.encryption.create_data_key("local")
        again = self.encryption.create_data_key("local", key_alt_names=["abc"])
        self.assertIsInstance(await self.encryption_failure(again), DuplicateKeyError)
        await self.failure(self.encryption.add_key_alt_name(other, "abc"), DuplicateKeyError)
        unchanged = await self.encryption.add_key_alt_name(key_id, "abc")
        assert unchanged is not None
        self.assertEqual(unchanged["keyAltNames"], ["abc"])

    async def test_rewrap(self) -> None:
        """Keys that match are encrypted anew, for another provider too; what they encrypt is read as before."""
        providers = {"local": {"key": MASTER_KEY}, "local:new": {"key": b"n" * 96}}
        encryption = self.client_encryption(providers)
        key_id = await encryption.create_data_key("local", key_alt_names=["mine"])
        await encryption.create_data_key("local")
        secret = await encryption.encrypt("4711", RANDOM, key_id)
        await self.keys.update_one({"_id": key_id}, {"$set": {"updateDate": datetime(2000, 1, 1)}})
        before = await self.keys.find_one({"_id": key_id})
        result = await encryption.rewrap_many_data_key({"keyAltNames": "mine"}, "local:new")
        assert result.bulk_write_result is not None and before is not None
        self.assertEqual(result.bulk_write_result.modified_count, 1)
        after = await self.keys.find_one({"_id": key_id})
        assert after is not None
        self.assertEqual(after["masterKey"], {"provider": "local:new"})
        self.assertNotEqual(after["keyMaterial"], before["keyMaterial"])
        self.assertGreater(after["updateDate"], before["updateDate"])
        self.assertEqual(await self.client_encryption(providers).decrypt(secret), "4711")
        result = await encryption.rewrap_many_data_key({})
        assert result.bulk_write_result is not None
        self.assertEqual(result.bulk_write_result.modified_count, 2)
        self.assertEqual(await self.client_encryption(providers).decrypt(secret), "4711")
        self.assertIsNone((await encryption.rewrap_many_data_key({"_id": 7})).bulk_write_result)

    async def test_refused(self) -> None:
        """What libmongocrypt refuses, and a key vault that cannot be reached, are the cause of an EncryptionError."""
        self.assertIn("aws", str(await self.encryption_failure(self.encryption.create_data_key("aws"))))
        short = self.encryption.create_data_key("local", key_material=b"short")
        self.assertIn("96", str(await self.encryption_failure(short)))
        nowhere: ConnectionPool[Any] = ConnectionPool("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=50)
        self.addCleanup(nowhere.disconnect)
        unreached = self.client_encryption(client=nowhere).create_data_key("local")
        self.assertIsInstance(await self.encryption_failure(unreached), ServerSelectionTimeoutError)


class ValueTests(EncryptionTestCase):
    """Single values."""

    async def setUp(self) -> None:
        """Make a key."""
        await super().setUp()
        self.key_id = await self.encryption.create_data_key("local", key_alt_names=["mine"])

    async def test_round_trip(self) -> None:
        """Values of all kinds come back as they were; the server has nothing but ciphertext of them."""
        secrets = []
        for value in ("4711", 7, Int64(7), 1.5, {"a": [1, None]}, [1, "two"], b"bytes", True):
            secret = await self.encryption.encrypt(value, RANDOM, self.key_id)
            self.assertEqual((type(secret), secret.subtype), (Binary, 6))
            self.assertEqual(await self.encryption.decrypt(secret), value)
            secrets.append(secret)
        await self.things.insert_one({"_id": 1, "secrets": secrets})
        stored = await self.things.find_one()
        assert stored is not None
        self.assertEqual(await self.encryption.decrypt(stored["secrets"][0]), "4711")

    async def test_fetched_once(self) -> None:
        """A data key is fetched by who has not seen it, and remembered."""
        secret = await self.encryption.encrypt("4711", RANDOM, key_alt_name="mine")
        self.commands.sent.clear()
        other = self.client_encryption(key_expiration_ms=0)
        for _ in range(3):
            self.assertEqual(await other.decrypt(secret), "4711")
        self.assertEqual(self.commands.names(), ["find"])
        self.assertEqual(self.commands.sent[0]["readConcern"], {"level": "majority"})

    async def test_deterministic(self) -> None:
        """One algorithm makes the same of the same value, so that it can be searched for, the other does not."""
        secret = await self.encryption.encrypt("4711", DETERMINISTIC, key_alt_name="mine")
        await self.things.insert_one({"_id": 1, "card": secret})
        again = await self.encryption.encrypt("4711", DETERMINISTIC, self.key_id.as_uuid())
        self.assertEqual((await self.things.find_one({"card": again}) or {})["_id"], 1)
        random = [await self.encryption.encrypt("4711", RANDOM, self.key_id) for _ in range(2)]
        self.assertNotEqual(random[0], random[1])

    async def test_codec_options(self) -> None:
        """Values are decoded as the codec options say."""
        options: CodecOptions[Any] = CodecOptions(document_class=SON)
        encryption = ClientEncryption(LOCAL, "txmongo_tests.data_keys", self.client, options)
        self.addCleanup(encryption.close)
        secret = await encryption.encrypt(SON([("b", 1), ("a", 2)]), RANDOM, self.key_id)
        decrypted = await encryption.decrypt(secret)
        self.assertIs(type(decrypted), SON)

    async def test_queryable(self) -> None:
        """Values for Queryable Encryption, to store and to ask with, and conditions on ranges."""
        stored = await self.encryption.encrypt("4711", Algorithm.INDEXED, self.key_id, contention_factor=0)
        self.assertEqual(await self.encryption.decrypt(stored), "4711")
        asked = await self.encryption.encrypt(
            "4711", Algorithm.INDEXED, self.key_id, query_type=QueryType.EQUALITY, contention_factor=0
        )
        self.assertNotEqual(asked, stored)
        condition = await self.encryption.encrypt_expression(
            {"$and": [{"age": {"$gte": 7}}, {"age": {"$lt": 20}}]},
            Algorithm.RANGE,
            self.key_id,
            query_type=QueryType.RANGE,
            contention_factor=0,
            range_opts=RangeOpts(min=0, max=200, sparsity=1, trim_factor=1),
        )
        least = condition["$and"][0]["age"]["$gte"]
        self.assertEqual((type(least), least.subtype), (Binary, 6))

    async def test_refused(self) -> None:
        """A key that is not there, a value of which the algorithm makes nothing, and broken ciphertext are refused."""
        for refused in (
            self.encryption.encrypt("4711", RANDOM, uuid.uuid4()),
            self.encryption.encrypt("4711", RANDOM, key_alt_name="nobody's"),
            self.encryption.encrypt(1.5, DETERMINISTIC, self.key_id),
            self.encryption.encrypt(1, "no such algorithm", self.key_id),
            self.encryption.decrypt(Binary(b"\x01" + b"x" * 40, 6)),
        ):
            await self.failure(refused, EncryptionError)
        await self.failure(self.encryption.encrypt(object(), RANDOM, self.key_id), InvalidDocument)

    async def test_together(self) -> None:
        """Many values can be encrypted and decrypted at the same time."""
        other = self.client_encryption()
        secrets = [other.encrypt(number, RANDOM, self.key_id) for number in range(20)]
        decrypted = [other.decrypt(await secret) for secret in secrets]
        self.assertEqual([await each for each in decrypted], list(range(20)))


class CollectionTests(EncryptionTestCase):
    """Collections for Queryable Encryption, which this server is too old for."""

    async def test_create(self) -> None:
        """Keys are made for the fields that have none; the error tells of them, and that the server is too old."""
        given = Binary.from_uuid(uuid.uuid4())
        fields = {
            "fields": [
                {"path": "card", "bsonType": "string", "keyId": None},
                {"path": "pin", "bsonType": "string", "keyId": given},
            ]
        }
        creating = self.encryption.create_encrypted_collection(self.client.txmongo_tests, "cards", fields, "local")
        error = await self.failure(creating, EncryptedCollectionError)
        self.assertIsInstance(error.cause, ConfigurationError)
        self.assertIn("MongoDB 7.0", str(error))
        key_id, same = [field["keyId"] for field in error.encrypted_fields["fields"]]
        self.assertEqual(same, given)
        self.assertEqual([key["_id"] for key in await self.encryption.get_keys()], [key_id])
        self.assertEqual([field["keyId"] for field in fields["fields"]], [None, given])
        self.assertNotIn("create", self.commands.names())

    async def test_create_on_newer_server(self) -> None:
        """A server of MongoDB 7.0 gets all that belongs to it; the caller gets the collection and the keys' ids."""
        nothing = {"cursor": {"id": 0, "ns": "shop.$cmd.listCollections", "firstBatch": []}}
        server = FakeServer(
            {"create": {}, "createIndexes": {}, "listCollections": nothing}, hello={"maxWireVersion": 21}
        )
        await server.listen(reactor)
        self.addCleanup(server.stop)
        client: ConnectionPool[Any] = ConnectionPool(server.uri)
        self.addCleanup(client.disconnect)
        fields = {"fields": [{"path": "card", "bsonType": "string", "keyId": None}]}
        collection, complete = await self.encryption.create_encrypted_collection(client.shop, "cards", fields, "local")
        self.assertEqual(collection.full_name, "shop.cards")
        (key,) = await self.encryption.get_keys()
        self.assertEqual(complete, {"fields": [{"path": "card", "bsonType": "string", "keyId": key["_id"]}]})
        sent = server.commands("create")
        self.assertEqual([each["create"] for each in sent], ["enxcol_.cards.esc", "enxcol_.cards.ecoc", "cards"])
        self.assertEqual(sent[-1]["encryptedFields"], complete)
        self.assertEqual(server.commands("createIndexes")[0]["indexes"][0]["key"], {"__safeContent__": 1})
        for strange in ({}, {"fields": "card"}, {"fields": [7, {"path": "card", "keyId": False}]}):
            # Whether that is allowed is the server's to say: client-side encryption, prose test 21.
            _, complete = await self.encryption.create_encrypted_collection(client.shop, "cards", strange)
            self.assertEqual(server.commands("create")[-1]["encryptedFields"], complete)
            self.assertEqual(complete, strange)

    async def test_create_without_provider(self) -> None:
        """A key that has to be made needs a provider."""
        fields = {"fields": [{"path": "card", "bsonType": "string", "keyId": None}]}
        database: Database[Any] = self.client.txmongo_tests
        error = await self.failure(
            self.encryption.create_encrypted_collection(database, "cards", fields), EncryptedCollectionError
        )
        self.assertIn("kms_provider", str(error))

    async def test_drop(self) -> None:
        """Dropping a collection with its encrypted fields drops those that belong to it, by whatever name, or none."""
        database = self.client.txmongo_tests
        beside = ["enxcol_.things.esc", "own"]
        for name in ("things", *beside):
            await database.create_collection(name)
        await self.things.drop(encrypted_fields={"fields": [], "ecocCollection": "own"})
        self.assertEqual(await database.list_collection_names(filter={"name": {"$in": ["things", *beside]}}), [])
        await database.drop_collection("things", encrypted_fields={"fields": []})
        dropped = [command["drop"] for command in self.commands.sent if "drop" in command]
        self.assertEqual(dropped[-3:], ["enxcol_.things.esc", "enxcol_.things.ecoc", "things"])


class EndTests(EncryptionTestCase):
    """What is cancelled, and closed."""

    async def test_close(self) -> None:
        """What waits when it is closed fails, later calls are refused, and the client goes on."""
        waiting = self.encryption.encrypt("4711", RANDOM, key_alt_name="mine")
        await self.encryption.close()
        await self.failure(waiting, InvalidOperation)
        for call in (
            lambda: self.encryption.encrypt("4711", RANDOM, key_alt_name="mine"),
            lambda: self.encryption.create_data_key("local"),
            self.encryption.get_keys,
        ):
            self.assertRaises(InvalidOperation, call)
        await self.encryption.close()
        self.assertEqual((await self.client.admin.command("ping"))["ok"], 1)

    async def test_context(self) -> None:
        """It is closed at the end of a block."""
        async with self.encryption as encryption:
            await encryption.create_data_key("local")
        self.assertRaises(InvalidOperation, encryption.create_data_key, "local")

    async def test_cancel(self) -> None:
        """A call that is cancelled fails with CancelledError, and the next is carried out."""
        await self.encryption.create_data_key("local", key_alt_names=["mine"])
        waiting = self.encryption.encrypt("4711", RANDOM, key_alt_name="mine")
        waiting.cancel()
        await self.failure(waiting, CancelledError)
        secret = await self.encryption.encrypt("4711", RANDOM, key_alt_name="mine")
        self.assertEqual(await self.encryption.decrypt(secret), "4711")
