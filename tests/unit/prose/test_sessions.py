"""Prose tests of the sessions specification for servers that have no sessions."""

from __future__ import annotations

from typing import Any

from tests.unit.test_connection import ClientCase
from txmongo.errors import ConfigurationError

FOUND = {"cursor": {"id": 0, "ns": "test.things", "firstBatch": []}}


class UnsupportedTests(ClientCase):
    """The server's hello names no ``logicalSessionTimeoutMinutes``."""

    def setUp(self) -> None:
        super().setUp()
        self.server.answer("find", FOUND)
        self.server.answer("insert", {"n": 1})

    def operations(self, **options: Any) -> list[Any]:
        """A read and a write, started."""
        things = self.client().test.things
        return [things.find_one({}, **options), things.insert_one({}, **options)]

    def test_implicit_18(self) -> None:
        """Commands carry no session."""
        for operation in self.operations():
            self.result(operation)
        [find], [insert] = self.server.commands("find"), self.server.commands("insert")
        self.assertNotIn("lsid", find)
        self.assertNotIn("lsid", insert)

    def test_explicit_19(self) -> None:
        """A session can be started; using it is an error of the client's own."""
        client = self.client()
        session = client.start_session()
        things = client.test.things
        for operation in (things.find_one({}, session=session), things.insert_one({}, session=session)):
            self.turn()
            error = self.failureResultOf(operation, ConfigurationError).value
            self.assertIn("Sessions are not supported", str(error))
        self.assertEqual(self.server.commands("find") + self.server.commands("insert"), [])
