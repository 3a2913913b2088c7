"""The Read and Write Concern specification's tests of documents: what a client that was given a concern sends."""

from __future__ import annotations

from typing import Any

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.unit.clients import ClientCase
from txmongo.errors import ConfigurationError

#: The client's option for each word of the tests.
OPTIONS = {"w": "w", "wtimeoutMS": "wTimeoutMS", "journal": "journal", "level": "readConcernLevel"}
FOUND = {"cursor": {"id": 0, "ns": "test.things", "firstBatch": []}}


class ConcernDocumentTests(ClientCase):
    """Concerns as a server in memory hears of them."""

    def run_case(self, case: Case) -> None:
        """Make a client with the concern, have it write or read, and compare what it sent."""
        test = case.test
        name = "readConcern" if "readConcern" in test else "writeConcern"
        options = {OPTIONS[word]: value for word, value in test[name].items()}
        if not test["valid"]:
            self.assertRaises((ConfigurationError, ValueError), self.client, **options)
            return
        client = self.client(**options)
        sent = self.read(client) if name == "readConcern" else self.write(client, test["isAcknowledged"])
        self.assertEqual(name not in sent, test["isServerDefault"])
        self.assertEqual(sent.get(name, {}), test[f"{name}Document"])

    def read(self, client: Any) -> Any:
        """The command of a read."""
        self.server.answer("find", FOUND)
        self.result(client.test.things.find())
        [command] = self.server.commands("find")
        return command

    def write(self, client: Any, acknowledged: bool) -> Any:
        """The command of a write, which says rightly whether it was acknowledged."""
        self.server.answer("insert", {"n": 1})
        result = self.result(client.test.things.insert_one({}))
        self.assertEqual(result.acknowledged, acknowledged)
        [command] = self.server.commands("insert")
        return command


add_cases(ConcernDocumentTests, "read_write_concern/document", ConcernDocumentTests.run_case)
