"""``txmongo._create_drop``: what is sent to create and drop collections, and where encrypted fields are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.collation import Collation
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import HeldExecutor, session_of
from txmongo._cmap.description import StreamDescription
from txmongo._create_drop import create, creation, drop
from txmongo._ops.admin import Create, CreateEncrypted, Drop
from txmongo.errors import CollectionInvalid, OperationFailure, WriteConcernError

#: Fields that are encrypted, and the names of the collections beside them.
FIELDS = {"fields": [], "escCollection": "esc", "ecocCollection": "ecoc"}
MISSING = OperationFailure("ns not found", 26, {"ok": 0, "code": 26, "errmsg": "ns not found"})


class NewServerExecutor(HeldExecutor):
    """Answers when the test says so, as a server that has Queryable Encryption."""

    server = StreamDescription(max_wire_version=21)


class Encryption:
    """What creating and dropping ask a client's encryption."""

    def __init__(self, encrypted_fields_map: Mapping[str, Any] | None) -> None:
        self._map = encrypted_fields_map

    @property
    def knows_encrypted_fields(self) -> bool:
        """Whether there is a map."""
        return self._map is not None

    def encrypted_fields(self, namespace: str) -> Mapping[str, Any] | None:
        """What it says of a collection."""
        return (self._map or {}).get(namespace)


NOTHING: Any = Encryption(None)
SOME: Any = Encryption({"shop.cards": FIELDS})


class CreationTests(SynchronousTestCase):
    """The operation that creates a collection."""

    def test_fields(self) -> None:
        """The caller's mapping stays as it is; the command has its fields but for those that are None."""
        given = {"capped": True, "max": None, "collation": Collation("de")}
        before = dict(given)
        for encryption in (None, NOTHING, SOME):
            operation = creation("shop", "orders", given, encryption)
            self.assertIs(type(operation), Create)
            self.assertEqual((operation.database, operation.target), ("shop", "orders"))
            self.assertEqual(operation.fields, {"capped": True, "collation": {"locale": "de"}})
        self.assertEqual(given, before)

    def test_encrypted(self) -> None:
        """Encrypted fields are the caller's, else those of the client's map."""
        other = {"fields": []}
        for given, encryption, expected in (
            ({"encryptedFields": other}, None, other),
            ({"encryptedFields": other}, SOME, other),
            ({}, SOME, FIELDS),
            ({"encryptedFields": None}, SOME, FIELDS),
        ):
            operation = creation("shop", "cards", given, encryption)
            self.assertIs(type(operation), CreateEncrypted)
            self.assertEqual(operation.fields, {"encryptedFields": expected})

    def test_wrong(self) -> None:
        """What is not of its type is refused by its name."""
        for name, value in (("encryptedFields", []), ("collation", "de")):
            error = self.assertRaises(TypeError, creation, "shop", "cards", {name: value}, None)
            self.assertIn(name, str(error))


class CreateTests(SynchronousTestCase):
    """What is sent to create a collection."""

    def setUp(self) -> None:
        self.executor = NewServerExecutor()

    def create(self, *, check_exists: bool = True, **options: Any) -> Deferred[Any]:
        """Create a collection."""
        operation = creation("shop", "cards", options.pop("fields", {}), None, **options)
        return create(self.executor.execute, operation, check_exists=check_exists)

    def test_looked_for(self) -> None:
        """It is created if it is not found, and then the server's reply comes."""
        created = self.create()
        self.assertEqual(
            self.executor.commands,
            [{"listCollections": 1, "cursor": {}, "filter": {"name": "cards"}, "nameOnly": True}],
        )
        self.executor.first_batch(namespace="shop.$cmd.listCollections")
        self.assertEqual(self.executor.commands[1:], [{"create": "cards"}])
        self.executor.answer({"number": 7})
        self.assertEqual(self.successResultOf(created)["number"], 7)

    def test_found(self) -> None:
        """A collection that is there is not created again."""
        created = self.create()
        self.executor.first_batch({"name": "cards"}, namespace="shop.$cmd.listCollections")
        self.assertIn("cards", str(self.failureResultOf(created, CollectionInvalid).value))
        self.assertEqual(self.executor.names(), ["listCollections"])

    def test_not_looked_for(self) -> None:
        """In a transaction, or if the caller does not want it looked for, the server decides."""
        self.create(session=session_of(self.executor.sessions, in_transaction=True))
        self.create(check_exists=False)
        self.assertEqual(self.executor.names(), ["create", "create"])

    def test_encrypted(self) -> None:
        """With encrypted fields the collections beside it come before it, its index after it."""
        created = self.create(fields={"encryptedFields": FIELDS})
        self.executor.first_batch(namespace="shop.$cmd.listCollections")
        for number in range(4):
            self.executor.answer({"number": number})
        commands = [next(iter(command.items())) for command in self.executor.commands[1:]]
        self.assertEqual(
            commands, [("create", "esc"), ("create", "ecoc"), ("create", "cards"), ("createIndexes", "cards")]
        )
        self.assertEqual(self.successResultOf(created)["number"], 2)


class DropTests(SynchronousTestCase):
    """What is sent to drop a collection."""

    def setUp(self) -> None:
        self.executor = HeldExecutor()

    def drop(self, encrypted_fields: Any = None, encryption: Any = None) -> Deferred[Mapping[str, Any]]:
        """Drop a collection."""
        return drop(self.executor.execute, Drop("shop", "cards"), encrypted_fields, encryption)

    def dropped(self) -> list[Any]:
        """Of what collections that was asked for."""
        return [command["drop"] for command in self.executor.commands if "drop" in command]

    def test_missing(self) -> None:
        """One that is not there is no error; anything else is."""
        dropped = self.drop()
        self.executor.fail(MISSING)
        self.assertEqual(self.successResultOf(dropped)["code"], 26)
        dropped = self.drop()
        self.executor.fail(OperationFailure("no", 13, {"ok": 0, "code": 13}))
        self.failureResultOf(dropped, OperationFailure)
        dropped = self.drop()
        self.executor.answer({"writeConcernError": {"code": 79, "errmsg": "no"}})
        self.failureResultOf(dropped, WriteConcernError)

    def test_plain(self) -> None:
        """Without a map of encrypted fields nothing else is asked."""
        for encryption in (None, NOTHING):
            dropped = self.drop(encryption=encryption)
            self.executor.answer({"nIndexesWas": 1})
            self.assertEqual(self.successResultOf(dropped)["nIndexesWas"], 1)
        self.assertEqual(self.executor.commands, [{"drop": "cards"}] * 2)

    def test_encrypted(self) -> None:
        """The collections beside encrypted fields are dropped first, there or not; the caller's fields come first."""
        other = {"escCollection": "other_esc", "ecocCollection": "other_ecoc"}
        for given, encryption, expected in (
            (other, None, ["other_esc", "other_ecoc", "cards"]),
            (other, SOME, ["other_esc", "other_ecoc", "cards"]),
            (None, SOME, ["esc", "ecoc", "cards"]),
        ):
            self.executor.commands.clear()
            dropped = self.drop(given, encryption)
            self.executor.fail(MISSING)
            self.executor.answer()
            self.assertNoResult(dropped)
            self.executor.answer({"nIndexesWas": 2})
            self.assertEqual(self.successResultOf(dropped)["nIndexesWas"], 2)
            self.assertEqual(self.dropped(), expected)

    def test_server_knows(self) -> None:
        """Of a collection that is not in the client's map the server is asked."""
        encryption = Encryption({})
        for options, expected in (
            ({"encryptedFields": FIELDS}, ["esc", "ecoc", "cards"]),
            ({}, ["cards"]),
        ):
            self.executor.commands.clear()
            dropped = self.drop(encryption=encryption)
            self.assertEqual(
                self.executor.commands, [{"listCollections": 1, "cursor": {}, "filter": {"name": "cards"}}]
            )
            self.executor.first_batch({"name": "cards", "options": options}, namespace="shop.$cmd.listCollections")
            for _ in expected:
                self.executor.answer()
            self.successResultOf(dropped)
            self.assertEqual(self.dropped(), expected)

    def test_server_knows_none(self) -> None:
        """One that the server does not have either is dropped as any other."""
        dropped = self.drop(encryption=Encryption({}))
        self.executor.first_batch(namespace="shop.$cmd.listCollections")
        self.executor.fail(MISSING)
        self.successResultOf(dropped)
        self.assertEqual(self.dropped(), ["cards"])

    def test_wrong(self) -> None:
        """Encrypted fields that are no mapping are refused by that name."""
        error = self.assertRaises(TypeError, self.drop, [])
        self.assertIn("encrypted_fields", str(error))
