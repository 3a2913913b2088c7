"""ClientEncryption without a server: what it refuses at the call, and how work ends with it."""

from __future__ import annotations

import uuid
from typing import Any

from bson.binary import Binary
from bson.codec_options import CodecOptions
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._encryption import library
from txmongo._encryption.running import Running
from txmongo.connection import ConnectionPool
from txmongo.encryption import Algorithm, ClientEncryption, RangeOpts
from txmongo.errors import (
    ConfigurationError,
    EncryptedCollectionError,
    EncryptionError,
    InvalidOperation,
    NetworkTimeout,
)

LOCAL = {"local": {"key": bytes(96)}}
RANDOM = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random
KEY_ID = Binary.from_uuid(uuid.uuid4())


class ArgumentTests(SynchronousTestCase):
    """What is wrong with arguments is raised at the call."""

    def setUp(self) -> None:
        """Make an object whose client is never connected."""
        self.client: ConnectionPool[Any] = ConnectionPool(reactor=Clock())
        self.encryption = self.make()

    def make(self, *arguments: Any, **keywords: Any) -> ClientEncryption[Any]:
        """An object that is closed at the end."""
        given = (LOCAL, "a.keys", self.client, CodecOptions())
        encryption: ClientEncryption[Any] = ClientEncryption(*arguments, *given[len(arguments) :], **keywords)
        self.addCleanup(lambda: self.successResultOf(encryption.close()))
        return encryption

    def test_constructor(self) -> None:
        """Of the object itself."""
        for arguments, kind in (
            ((None,), TypeError),
            (({},), ValueError),
            ((LOCAL, b"a.keys"), TypeError),
            ((LOCAL, "keys"), ValueError),
            ((LOCAL, "a."), ValueError),
            ((LOCAL, "a.keys", self.client, dict), TypeError),
            ((LOCAL, "a.keys", self.client.a), TypeError),
            ((LOCAL, "a.keys", None), TypeError),
            (({"local": {}},), ValueError),
        ):
            self.assertRaises(kind, self.make, *arguments)
        error = self.assertRaises(ConfigurationError, self.make, kms_connect_callback=print)
        self.assertIn("kms_connect_callback", str(error))
        self.assertRaises(TypeError, self.make, timeout_ms="1")
        self.assertRaises(ValueError, self.make, timeout_ms=-1)
        self.assertRaises(TypeError, self.make, key_expiration_ms="1")
        self.assertRaises(ValueError, self.make, key_expiration_ms=-1)
        self.assertEqual(repr(self.encryption), "<ClientEncryption: a.keys>")

    def test_create_data_key(self) -> None:
        """Of a new data key."""
        create = self.encryption.create_data_key
        for keywords in (
            {"kms_provider": None},
            {"kms_provider": "local", "master_key": "a key"},
            {"kms_provider": "local", "key_alt_names": "a name"},
            {"kms_provider": "local", "key_alt_names": {"a": 1}},
            {"kms_provider": "local", "key_alt_names": ["a", 1]},
            {"kms_provider": "local", "key_material": "96"},
        ):
            self.assertRaises(TypeError, create, **keywords)

    def test_ids_and_names(self) -> None:
        """Of the methods that take a key's id, a name, or both."""
        for wrong in (None, "id", b"i" * 16, Binary(b"i" * 16, 0)):
            self.assertRaises(TypeError, self.encryption.get_key, wrong)
            self.assertRaises(TypeError, self.encryption.delete_key, wrong)
            self.assertRaises(TypeError, self.encryption.add_key_alt_name, wrong, "a name")
            self.assertRaises(TypeError, self.encryption.remove_key_alt_name, wrong, "a name")
            self.assertRaises(TypeError, self.encryption.encrypt, 1, RANDOM, wrong or 1)
        for method in (self.encryption.add_key_alt_name, self.encryption.remove_key_alt_name):
            self.assertRaises(TypeError, method, KEY_ID, 1)
        self.assertRaises(TypeError, self.encryption.get_key_by_alt_name, KEY_ID)

    def test_rewrap(self) -> None:
        """Of keys that are to be encrypted anew."""
        rewrap = self.encryption.rewrap_many_data_key
        self.assertRaises(TypeError, rewrap, None)
        self.assertRaises(TypeError, rewrap, {}, 1)
        self.assertRaises(TypeError, rewrap, {}, "local", "a key")
        error = self.assertRaises(ConfigurationError, rewrap, {}, None, {"key": 1})
        self.assertIn("provider", str(error))

    def test_values(self) -> None:
        """Of values and conditions."""
        encrypt = self.encryption.encrypt
        self.assertRaises(ConfigurationError, encrypt, 1, RANDOM)
        self.assertRaises(ConfigurationError, encrypt, 1, RANDOM, KEY_ID, "a name")
        self.assertRaises(TypeError, encrypt, 1, 1, KEY_ID)
        self.assertRaises(TypeError, encrypt, 1, RANDOM, key_alt_name=1)
        self.assertRaises(TypeError, encrypt, 1, Algorithm.INDEXED, KEY_ID, query_type=1)
        self.assertRaises(TypeError, encrypt, 1, Algorithm.INDEXED, KEY_ID, contention_factor="1")
        for name in ("range_opts", "string_opts"):
            wrong: Any = {name: {"min": 1}}
            self.assertIn(name, str(self.assertRaises(TypeError, encrypt, 1, Algorithm.RANGE, KEY_ID, **wrong)))
        self.assertRaises(TypeError, self.encryption.encrypt_expression, [], Algorithm.RANGE, KEY_ID)
        for wrong in ("4711", b"4711", Binary(b"4711", 0)):
            self.assertRaises(TypeError, self.encryption.decrypt, wrong)

    def test_create_encrypted_collection(self) -> None:
        """Of a collection."""
        create = self.encryption.create_encrypted_collection
        self.assertRaises(TypeError, create, self.client.a, "b", [])
        self.assertRaises(TypeError, create, self.client.a, "b", {"fields": []}, 1)
        self.assertRaises(TypeError, create, self.client.a, "b", {"fields": []}, "local", "a key")
        self.assertRaises(TypeError, create, self.client.a, 1, {"fields": []})
        self.assertRaises(TypeError, create, self.client.a.c, "b", {"fields": []})

    def test_string_opts(self) -> None:
        """Options for text are refused by name where pymongocrypt does not know them."""
        self.patch(library.part_of_library("options"), "ExplicitEncryptOpts", lambda algorithm: None)
        error = self.assertRaises(
            ConfigurationError, self.encryption.encrypt, 1, RANDOM, KEY_ID, string_opts=RangeOpts(min=1)
        )
        self.assertIn("string_opts: this pymongocrypt is too old", str(error))

    def test_not_installed(self) -> None:
        """Without pymongocrypt the error names the extra."""
        self.patch(library, "first_importable", lambda *names: None)
        error = self.assertRaises(ConfigurationError, self.make)
        self.assertIn("txmongo[encryption]", str(error))


class RunningTests(SynchronousTestCase):
    """Work, and its end."""

    def test_errors(self) -> None:
        """Errors are wrapped once."""

        async def fail(error: Exception) -> None:
            raise error

        running = Running("thing")
        cause = KeyError("a")
        self.assertIs(self.failureResultOf(running.run(fail(cause)), EncryptionError).value.cause, cause)
        wrapped = EncryptionError(cause)
        self.assertIs(self.failureResultOf(running.run(fail(wrapped)), EncryptionError).value, wrapped)

    def test_time(self) -> None:
        """What takes too long ends, with an error that says so."""
        clock = Clock()
        running = Running("thing", clock, 0.5)
        fetched: Deferred[None] = Deferred()

        async def work() -> None:
            await fetched

        waiting = running.run(work())
        clock.advance(0.4)
        self.assertNoResult(waiting)
        clock.advance(0.2)
        error = self.failureResultOf(waiting, EncryptionError).value
        self.assertIsInstance(error.cause, NetworkTimeout)
        self.assertTrue(error.timeout)
        self.assertIn("timeout_ms (500)", str(error))

    def test_time_and_another_error(self) -> None:
        """It is the time that is told of, whatever error its end makes of what was under way."""
        clock = Clock()
        running = Running("thing", clock, 0.5)
        fetched: Deferred[None] = Deferred(lambda deferred: deferred.errback(KeyError("a")))

        async def work() -> None:
            await fetched

        waiting = running.run(work(), lambda error: EncryptedCollectionError(error, {"fields": []}))
        clock.advance(1)
        error = self.failureResultOf(waiting, EncryptedCollectionError).value
        self.assertIsInstance(error.cause, NetworkTimeout)
        self.assertEqual(error.encrypted_fields, {"fields": []})

    def test_in_time(self) -> None:
        """What is done, cancelled or closed in time leaves nothing on the clock; without a limit nothing is there."""
        clock = Clock()

        async def work(deferred: Deferred[None]) -> None:
            await deferred

        for seconds in (0.5, 0, None):
            fetched: list[Deferred[None]] = [Deferred() for _ in range(3)]
            running = Running("thing", clock, seconds)
            done, cancelled, closed = (running.run(work(each)) for each in fetched)
            self.assertEqual(len(clock.getDelayedCalls()), 3 if seconds else 0)
            fetched[0].callback(None)
            self.successResultOf(done)
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
            self.successResultOf(running.close())
            self.failureResultOf(closed, InvalidOperation)
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """All that is in progress ends; a caller who waits for something of his own then is left alone."""
        running = Running("thing")
        inner: list[Deferred[int]] = [Deferred(), Deferred()]

        async def work(deferred: Deferred[int]) -> int:
            return await deferred

        own: Deferred[None] = Deferred(lambda _: self.fail("cancelled"))
        done, waiting = (running.run(work(each)) for each in inner)
        done.addCallback(lambda _: own)
        inner[0].callback(1)
        closed = running.close()
        self.assertIn("thing is closed", str(self.failureResultOf(waiting, InvalidOperation).value))
        self.assertIsNone(self.successResultOf(closed))
        self.assertNoResult(done)
        self.assertRaises(InvalidOperation, running.check_open)

    def test_closed(self) -> None:
        """Work that comes later is not even begun."""
        running = Running("thing")
        self.assertIsNone(self.successResultOf(running.close()))

        async def work() -> None:
            self.fail("begun")

        self.failureResultOf(running.run(work()), InvalidOperation)

    def test_close_waits(self) -> None:
        """It is closed when the last of the work has ended, however long that minds being cancelled."""
        running = Running("thing")
        stubborn: Deferred[None] = Deferred(lambda deferred: None)
        never: Deferred[None] = Deferred()

        async def work() -> None:
            try:
                await never
            finally:
                await stubborn

        waiting = running.run(work())
        closed = running.close()
        self.assertNoResult(closed)
        stubborn.callback(None)
        self.failureResultOf(waiting, InvalidOperation)
        self.assertIsNone(self.successResultOf(closed))
