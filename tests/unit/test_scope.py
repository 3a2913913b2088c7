"""``txmongo._scope``: the options of clients, databases and collections, and the time of what is done through them."""

from __future__ import annotations

from functools import partial
from typing import Any

from bson.codec_options import CodecOptions
from bson.son import SON
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, ReadPreference
from pymongo.write_concern import WriteConcern

from tests.unit.clients import ClientCase
from txmongo._scope import option
from txmongo.errors import PyMongoError, TimeExceeded
from txmongo.testing import Behaviour


def options_of(scope: Any) -> tuple[Any, ...]:
    """All options of a client, database or collection."""
    return scope.write_concern, scope.codec_options, scope.read_preference, scope.read_concern, scope.timeout_ms


class ScopeTests(ClientCase):
    """Clients, databases and collections."""

    def test_inherited(self) -> None:
        """Each object has the options of the one above, unless it is given its own."""
        client = self.client(
            w=2, document_class=SON, readPreference="nearest", readConcernLevel="local", timeoutMS=7000
        )
        above = (WriteConcern(2), CodecOptions(SON), Nearest(), ReadConcern("local"), 7000)
        for scope in (client, client.test, client.test.things, client.test.things.inner):
            self.assertEqual(options_of(scope), above)
        own = (WriteConcern(3), CodecOptions(dict), ReadPreference.PRIMARY, ReadConcern("majority"), 0)
        names = ("write_concern", "codec_options", "read_preference", "read_concern", "timeout_ms")
        given: dict[str, Any] = dict(zip(names, own, strict=True))
        database = client.get_database("test", **given)
        for scope in (
            database,
            database.things,
            client.test.with_options(**given),
            client.test.things.with_options(**given),
        ):
            self.assertEqual(options_of(scope), own)
        self.assertEqual(options_of(client.test.things), above)

    def test_none(self) -> None:
        """Where no time is given there is no limit to be told of."""
        for scope in (self.client(), self.client().test, self.client().test.things):
            self.assertIsNone(scope.timeout_ms)

    def test_time(self) -> None:
        """What is done through each of them takes no longer than its own time, or that of the call."""
        for name in ("buildinfo", "collMod", "drop"):
            self.server.answer(name, Behaviour.FALL_SILENT)
        for options, timing, error in (({"timeoutMS": 2000}, {}, PyMongoError), ({}, {"timeout": 2}, TimeExceeded)):
            client = self.client(**options)
            self.result(client)
            for method in (
                client.server_info,
                partial(client.test.modify_collection, "things"),
                client.test.things.drop,
            ):
                late = self.started(method(**timing))
                self.clock.advance(1.9)
                self.assertNoResult(late)
                self.clock.advance(0.2)
                self.assertTrue(self.failureResultOf(late, error).value.timeout)
                self.turn()

    def test_option(self) -> None:
        """An option that is not of its type is refused by its name; the one above is not looked at."""
        self.assertEqual(option("write_concern", None, WriteConcern, 5), 5)
        given = WriteConcern(3)
        self.assertIs(option("write_concern", given, WriteConcern, 5), given)
        error = self.assertRaises(TypeError, option, "write_concern", {"w": 1}, WriteConcern, 5)
        self.assertIn("write_concern must be an instance of WriteConcern", str(error))
