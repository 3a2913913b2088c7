"""The server's side of SCRAM (RFC 5802), with faults to choose from."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from txmongo.testing import HELLO, FakeServer

SALT = b"0123456789abcdef"


class ScramServer(FakeServer):
    """A fake server with one user.

    :param mechanisms: what the user can authenticate with.
    :param speculative: whether the server takes part in speculative authentication.
    :param fault: what it does wrong: ``"iterations"``, ``"nonce"``, ``"signature"``, ``"payload"``, ``"base64"``,
        ``"unending"``, or nothing.
    """

    def __init__(
        self,
        user: str = "user",
        password: str = "pencil",
        *,
        mechanisms: tuple[str, ...] = ("SCRAM-SHA-1", "SCRAM-SHA-256"),
        speculative: bool = True,
        fault: str = "",
        extra_round: bool = False,
    ) -> None:
        super().__init__()
        self.authenticated: list[str] = []
        self._user = user
        self._password = password
        self._mechanisms = mechanisms
        self._speculative = speculative
        self._fault = fault
        self._extra_round = extra_round
        self._first = b""
        self._mechanism = ""
        for name in ("isMaster", "hello"):
            self.answer(name, self._hello)
        self.answer("saslStart", self._start)
        self.answer("saslContinue", self._continue)

    def _hello(self, command: Mapping[str, Any]) -> dict[str, Any]:
        reply = dict(HELLO)
        if "saslSupportedMechs" in command and command["saslSupportedMechs"].endswith("." + self._user):
            reply["saslSupportedMechs"] = list(self._mechanisms)
        start = command.get("speculativeAuthenticate")
        if start is not None and self._speculative:
            answer = self._start(start)
            if answer.get("ok", 1):
                reply["speculativeAuthenticate"] = answer
        return reply

    def _start(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self._mechanism = command["mechanism"]
        first_bare = bytes(command["payload"])[3:]
        fields = dict(part.split(b"=", 1) for part in first_bare.split(b","))
        if fields[b"n"].decode() != self._user or self._mechanism not in self._mechanisms:
            return {"ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed"}
        nonce = b"other" if self._fault == "nonce" else fields[b"r"] + b"server"
        iterations = b"4095" if self._fault == "iterations" else b"4096"
        salt = b"a" if self._fault == "base64" else base64.b64encode(SALT)
        self._first = first_bare + b",r=" + nonce + b",s=" + salt + b",i=" + iterations
        payload = self._first[len(first_bare) + 1 :]
        return {"conversationId": 1, "done": False, **({} if self._fault == "payload" else {"payload": payload})}

    def _continue(self, command: Mapping[str, Any]) -> dict[str, Any]:
        final = bytes(command["payload"])
        if not final:
            return {"conversationId": 1, "done": self._fault != "unending", "payload": b""}
        without_proof, _, proof = final.partition(b",p=")
        digest = hashlib.sha1 if self._mechanism == "SCRAM-SHA-1" else hashlib.sha256
        salted = hashlib.pbkdf2_hmac(digest().name, self._secret(), SALT, 4096)
        client_key = hmac.digest(salted, b"Client Key", digest)
        message = self._first + b"," + without_proof
        signature = hmac.digest(digest(client_key).digest(), message, digest)
        if base64.b64decode(proof) != bytes(a ^ b for a, b in zip(client_key, signature, strict=True)):
            return {"ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed"}
        self.authenticated.append(self._mechanism)
        server_key = b"wrong" if self._fault == "signature" else hmac.digest(salted, b"Server Key", digest)
        verifier = base64.b64encode(hmac.digest(server_key, message, digest))
        done = not self._extra_round and self._fault != "unending"
        return {"conversationId": 1, "done": done, "payload": b"v=" + verifier}

    def _secret(self) -> bytes:
        if self._mechanism == "SCRAM-SHA-256":
            return self._password.encode()
        return hashlib.md5(f"{self._user}:mongo:{self._password}".encode()).hexdigest().encode()
