"""Prose tests of the client backpressure specification, on a fake clock.

3 and 4 are in ``tests/integration/prose/test_client_backpressure.py``; there is no 2 any more.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.unit.clients import ClientCase
from txmongo.errors import OperationFailure

OVERLOADED = {
    "ok": 0,
    "code": 2,
    "errmsg": "busy",
    "errorLabels": ["SystemOverloadedError", "RetryableError"],
}


class Always(Random):
    """A jitter that is always the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        """The value."""
        return self._value


class BackOffTests(ClientCase):
    """A server that is overloaded for good."""

    def seconds_until_failure(self, jitter: float) -> float:
        """How long an insert is tried; each retry comes only after its pause."""
        client = self.client()
        client._executor._random = Always(jitter)
        self.result(client)
        failures: list[Any] = []
        began = self.clock.seconds()
        client.test.things.insert_one({}).addErrback(failures.append)
        while not failures:
            self.turn()
            if not failures:
                self.clock.advance(0.01)
        self.assertTrue(failures[0].check(OperationFailure))
        return self.clock.seconds() - began

    def test_exponential_back_off_1(self) -> None:
        """Two retries wait 0.2 s and 0.4 s, less a random part of that."""
        self.server.answer("insert", OVERLOADED)
        self.assertEqual(self.seconds_until_failure(0.0), 0.0)
        self.assertLess(abs(self.seconds_until_failure(1.0) - 0.6), 0.05)
        self.assertEqual(len(self.server.commands("insert")), 6)

    def test_base_back_off_5(self) -> None:
        """A server may name another beginning than 0.1 s."""
        self.server.answer("insert", {**OVERLOADED, "code": 462, "baseBackoffMS": 50})
        self.assertLess(abs(self.seconds_until_failure(1.0) - 0.3), 0.05)
        self.assertEqual(len(self.server.commands("insert")), 3)
