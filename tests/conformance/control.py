"""A plain connection of the runner's own, for what must not disturb the clients under test.

The unified test format calls it the internal MongoClient. It is none of this driver and shares no code with it, so that
a fault of the driver cannot spoil the preparation of a case or the check of its outcome: OP_MSG, one command at a time,
and SCRAM-SHA-256.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import struct
from collections.abc import Mapping
from typing import Any

import bson
from twisted.internet import defer, endpoints, protocol
from twisted.python.failure import Failure

__all__ = ["CommandFailed", "ControlLink"]

#: The length of the message, its id, the id it answers, the opcode; then OP_MSG's flags and the kind of its section.
HEADER = struct.Struct("<iiiiIb")
OP_MSG = 2013


class CommandFailed(Exception):
    """The server answered ``ok: 0``; ``code`` and ``reply`` say more."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        super().__init__(f"{reply.get('codeName')}: {reply.get('errmsg')}")
        self.code = reply.get("code")
        self.reply = reply


class ControlLink(protocol.Protocol):
    """A connection that runs one command at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiting: defer.Deferred[dict[str, Any]] | None = None
        self._closed: defer.Deferred[None] = defer.Deferred()

    @classmethod
    async def open(
        cls, reactor: Any, address: tuple[str, int], credentials: tuple[str, str] | None = None
    ) -> ControlLink:
        """Connect and, if asked to, authenticate."""
        endpoint = endpoints.TCP4ClientEndpoint(reactor, *address, timeout=10)
        link: ControlLink = await endpoints.connectProtocol(endpoint, cls())
        try:
            if credentials is not None:
                await link._authenticate(*credentials)
        except BaseException:
            await link.close()
            raise
        return link

    async def run(self, database: str, command: Mapping[str, Any], *ignored_codes: int) -> dict[str, Any]:
        """The reply to a command.

        :raises CommandFailed: it failed, with another code than those to be ignored.
        """
        try:
            return await self._send(database, command)
        except CommandFailed as error:
            if error.code not in ignored_codes:
                raise
            return dict(error.reply)

    async def close(self) -> None:
        """Close the connection and wait until it is."""
        if not self._closed.called:
            self.transport.abortConnection()  # type: ignore[union-attr]
            await self._closed

    def _send(self, database: str, command: Mapping[str, Any]) -> defer.Deferred[dict[str, Any]]:
        body = bson.encode({**command, "$db": database})
        self._waiting = defer.Deferred(lambda _: self.transport.abortConnection())  # type: ignore[union-attr]
        self.transport.write(HEADER.pack(HEADER.size + len(body), 1, 0, OP_MSG, 0, 0) + body)  # type: ignore[union-attr]
        return self._waiting

    def dataReceived(self, data: bytes) -> None:
        """Gather a reply."""
        self._received += data
        if len(self._received) < 4 or len(self._received) < struct.unpack_from("<i", self._received)[0]:
            return
        reply = bson.decode(bytes(self._received[HEADER.size :]))
        self._received.clear()
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if reply["ok"] == 1:
            waiting.callback(reply)
        else:
            waiting.errback(CommandFailed(reply))

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Tell who waits for a reply, and who waits for the end."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(reason)
        self._closed.callback(None)

    async def _authenticate(self, name: str, password: str) -> None:
        """The server is not asked to prove itself: the tests have just started it."""
        nonce = base64.b64encode(os.urandom(24)).decode()
        first_bare = f"n={name},r={nonce}"
        start = {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,," + first_bare.encode()}
        reply = await self._send("admin", {**start, "options": {"skipEmptyExchange": True}})
        server_first = reply["payload"].decode()
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        client_key = hmac.digest(_salted(password, fields["s"], int(fields["i"])), b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        message = f"{first_bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        last = f"{without_proof},p={proof}".encode()
        await self._send("admin", {"saslContinue": 1, "conversationId": reply["conversationId"], "payload": last})


@functools.lru_cache
def _salted(password: str, salt: str, iterations: int) -> bytes:
    """The slow part, once per password."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), iterations)
