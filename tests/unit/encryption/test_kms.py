"""Requests to key management services, with a fake libmongocrypt and no network."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmongo._encryption.kms import _address_of, _Request
from txmongo.errors import AutoReconnect


class Context:
    """Wants some bytes."""

    message = b"a request"

    def __init__(self, wanted: int, refusal: Exception | None = None) -> None:
        self.bytes_needed = wanted
        self.fed: list[bytes] = []
        self.refusal = refusal

    def feed(self, data: bytes) -> None:
        """Take no more than are wanted."""
        assert len(data) <= self.bytes_needed
        if self.refusal is not None:
            raise self.refusal
        self.fed.append(data)
        self.bytes_needed -= len(data)


class RequestTests(SynchronousTestCase):
    """One request on one connection."""

    def connected(self, context: Any) -> _Request:
        """A request that was sent."""
        request = _Request(context, "kms.example:443")
        self.transport = StringTransport()
        request.makeConnection(self.transport)
        self.assertEqual(self.transport.value(), b"a request")
        return request

    def test_answer(self) -> None:
        """The answer is fed as it comes, and nothing that follows it."""
        context = Context(5)
        request = self.connected(context)
        request.dataReceived(b"ab")
        self.assertNoResult(request.answered)
        request.dataReceived(b"cdefg")
        self.assertIsNone(self.successResultOf(request.answered))
        request.dataReceived(b"more")
        self.assertEqual(context.fed, [b"ab", b"cde"])

    def test_refusal(self) -> None:
        """What libmongocrypt says of the answer fails the request; the rest of it is not looked at."""
        request = self.connected(Context(5, KeyError("a")))
        request.dataReceived(b"ab")
        request.dataReceived(b"cd")
        self.failureResultOf(request.answered, KeyError)

    def test_lost(self) -> None:
        """A connection that ends before the answer does is an error that says where, one that ends later is none."""
        request = self.connected(Context(5))
        request.connectionLost(Failure(ConnectionDone()))
        error = self.failureResultOf(request.answered, AutoReconnect).value
        self.assertIn("kms.example:443: the key management service closed the connection", str(error))
        self.assertIsNone(self.successResultOf(request.gone))
        request.end()
        request = self.connected(Context(1))
        request.dataReceived(b"a")
        request.end()
        self.assertTrue(self.transport.disconnected)
        request.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(self.successResultOf(request.answered))
        self.assertIsNone(self.successResultOf(request.gone))

    def test_addresses(self) -> None:
        """A port may stand behind a name or an address, or not."""
        for endpoint, address in (
            ("kms.example", ("kms.example", 443)),
            ("kms.example:9000", ("kms.example", 9000)),
            ("[::1]", ("::1", 443)),
            ("[::1]:9000", ("::1", 9000)),
        ):
            self.assertEqual(_address_of(endpoint, 443), address)
