"""One command at a time to a server that is being set up: just enough OP_MSG and SCRAM-SHA-256 for tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import struct
from collections.abc import Mapping
from typing import Any

import bson
from twisted.internet import defer, endpoints, interfaces, protocol

HEADER = struct.Struct("<iiiiIb")
OP_MSG = 2013


class CommandFailed(Exception):
    """The server answered ``ok: 0``; ``code`` and ``reply`` say more."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        super().__init__(f"{reply.get('codeName')}: {reply.get('errmsg')}")
        self.code = reply.get("code")
        self.reply = reply


class Link(protocol.Protocol):
    """A connection that carries one command at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._waiting: defer.Deferred[dict[str, Any]] | None = None

    def command(self, database: str, command: Mapping[str, Any]) -> defer.Deferred[dict[str, Any]]:
        """Send a command; the Deferred fires with its reply or fails with CommandFailed."""
        body = bson.encode({**command, "$db": database})
        self._waiting = defer.Deferred(lambda _: self.transport.abortConnection())  # type: ignore[union-attr]
        self.transport.write(HEADER.pack(HEADER.size + len(body), 1, 0, OP_MSG, 0, 0) + body)  # type: ignore[union-attr]
        return self._waiting

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < 4 or len(self._received) < struct.unpack_from("<i", self._received)[0]:
            return
        reply, self._received = bson.decode(self._received[HEADER.size :]), b""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and reply["ok"] == 1:
            waiting.callback(reply)
        elif waiting is not None:
            waiting.errback(CommandFailed(reply))

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(reason)

    async def authenticate(self, name: str, password: str) -> None:
        """SCRAM-SHA-256; the server is not asked to prove itself, we have just started it."""
        nonce = base64.b64encode(os.urandom(24)).decode()
        first_bare = f"n={name},r={nonce}"
        start = {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,," + first_bare.encode()}
        reply = await self.command("admin", {**start, "options": {"skipEmptyExchange": True}})
        server_first = reply["payload"].decode()
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        message = f"{first_bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        last = f"{without_proof},p={proof}".encode()
        await self.command("admin", {"saslContinue": 1, "conversationId": reply["conversationId"], "payload": last})


async def run_command(
    endpoint: interfaces.IStreamClientEndpoint,
    credentials: tuple[str, str] | None,
    database: str,
    command: Mapping[str, Any],
) -> dict[str, Any]:
    """Connect, authenticate if asked to, run one command, close."""
    link: Link = await endpoints.connectProtocol(endpoint, Link())
    try:
        if credentials is not None:
            await link.authenticate(*credentials)
        return await link.command(database, command)
    finally:
        link.transport.abortConnection()  # type: ignore[union-attr]
