"""``txmongo._legacy.connection``: what a client has for TxMongo's sake."""

from __future__ import annotations

from typing import Any

from bson.codec_options import CodecOptions
from bson.son import SON
from pymongo.write_concern import WriteConcern

from tests.unit.clients import ClientCase
from txmongo._legacy.connection import parse_uri
from txmongo.errors import ConfigurationError, OperationFailure


class UriTests(ClientCase):
    """The connection string in parts."""

    def test_client(self) -> None:
        """The parts of the connection string are there as in TxMongo, always the same object."""
        client = self.client("mongodb://user:secret@fake.example:27018/base?appName=x")
        parts = client.uri
        self.assertIs(parts, client.uri)
        self.assertEqual(parts["nodelist"], [("fake.example", 27018)])
        self.assertEqual((parts["username"], parts["password"], parts["database"]), ("user", "secret", "base"))
        self.assertIsNone(self.client().uri["username"])

    def test_parse(self) -> None:
        """One is taken apart without a client; a scheme is not needed, and a namespace is cut in two."""
        parts = parse_uri("user:secret@a.example:1,b.example/db?appName=x")
        self.assertEqual(parts["nodelist"], [("a.example", 1), ("b.example", 27017)])
        self.assertEqual((parts["username"], parts["password"], parts["database"]), ("user", "secret", "db"))
        self.assertEqual((parts["collection"], parts["fqdn"]), (None, None))
        self.assertEqual(parse_uri("mongodb://a.example/db.some.things")["collection"], "some.things")
        self.assertEqual(parse_uri("mongodb+srv://a.example.com")["fqdn"], "a.example.com")
        self.assertRaises(ConfigurationError, parse_uri, "mongodb://")


class CommandTests(ClientCase):
    """``ConnectionPool.command``, which has the whole command and the client's options."""

    def test_fields(self) -> None:
        """It is sent as it is to the database that is named, with a write concern if there is one."""
        self.server.answer("ping", {})
        client = self.client(document_class=SON)
        command = {"ping": 1, "x": 2}
        self.assertIsInstance(self.result(client.command("one", command)), SON)
        concern = WriteConcern("majority")
        reply = client.command(client.two, command, write_concern=concern, codec_options=CodecOptions())
        self.assertEqual(self.result(reply), {"ok": 1.0})
        self.assertEqual(command, {"ping": 1, "x": 2})
        first, second = self.server.commands("ping")
        self.assertEqual((first["$db"], first["x"], second["$db"]), ("one", 2, "two"))
        self.assertNotIn("writeConcern", first)
        self.assertEqual(second["writeConcern"], {"w": "majority"})

    def test_errors(self) -> None:
        """An error makes it fail unless it is allowed, or errors are not looked for."""
        for _ in range(3):
            self.server.answer("ping", {"ok": 0, "errmsg": "no", "code": 8})
        client = self.client()
        self.failureResultOf(self.started(client.command("one", {"ping": 1})), OperationFailure)
        self.assertEqual(self.result(client.command("one", {"ping": 1}, check=False))["code"], 8)
        self.assertEqual(self.result(client.command("one", {"ping": 1}, allowable_errors=["no"]))["code"], 8)

    def test_arguments(self) -> None:
        """The command is a mapping, the database a name or a Database; a session needs what is acknowledged."""
        client: Any = self.client()
        self.assertRaises(TypeError, client.command, "one", "ping")
        self.assertRaises(TypeError, client.command, 1, {"ping": 1})
        self.assertRaises(TypeError, client.command, "one", {"ping": 1}, write_concern={"w": 1})
        self.assertRaises(TypeError, client.command, "one", {"ping": 1}, nothing=1)
        self.assertRaises(ConfigurationError, client.command, None, {"ping": 1})
        session = client.start_session()
        for_nothing = {"write_concern": WriteConcern(0), "session": session}
        self.assertRaises(ValueError, client.command, "one", {"ping": 1}, **for_nothing)
