"""Prose tests of the sessions specification for servers that have no sessions; and that 4 to 6 leave no method out."""

from __future__ import annotations

import inspect
from typing import Any

from tests.integration.test_sessions import calls
from tests.unit.clients import ClientCase
from txmongo.collection import Collection
from txmongo.connection import ConnectionPool
from txmongo.database import Database
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


#: Methods that take a session and that no server has which the tests can start, or that have such a test of their own.
ELSEWHERE = {
    "ConnectionPool.bulk_write",
    "Collection.create_search_index",
    "Collection.create_search_indexes",
    "Collection.drop_search_index",
    "Collection.list_search_indexes",
    "Collection.update_search_index",
    "Collection.watch",
    "ConnectionPool.watch",
    "Database.watch",
}


class MethodTests(ClientCase):
    """The methods that take a session."""

    def test_all_methods_4_5_6(self) -> None:
        """``tests/integration/test_sessions.py`` calls every one of them."""
        called = {getattr(method, "func", method).__func__ for method, *_ in calls(self.client())}
        left_out = {
            f"{kind.__name__}.{name}"
            for kind in (Collection, Database, ConnectionPool)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and "session" in inspect.signature(method).parameters and method not in called
        }
        self.assertEqual(left_out - ELSEWHERE, set())
