"""The server's side of MONGODB-OIDC: which tokens are valid, and who has shown one on which connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import attrs
import bson

from txmongo.testing import HELLO, Behaviour, FakeServer

REFUSED = {"ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed"}
EXPIRED = {"ok": 0.0, "errmsg": "the token has expired", "code": 391, "codeName": "ReauthenticationRequired"}
NOBODY = {"ok": 0.0, "errmsg": "command requires authentication", "code": 13, "codeName": "Unauthorized"}
#: What the one identity provider is.
IDP_INFO = {"issuer": "https://issuer", "clientId": "abcd", "requestScopes": ["a", "b"]}
CONVERSATION = 9


@attrs.define
class FailPoint:
    """Commands that fail, as with the server's failCommand."""

    commands: frozenset[str]
    times: int
    answer: Any


class OIDCServer(FakeServer):
    """A fake server that wants valid tokens, for which it does ``find`` and ``insert``.

    :ivar valid: the tokens that it takes; all whose name begins so, if one ends in ``*``.
    :ivar shown: by ``saslStart``, ``saslContinue`` or ``hello``, which token it was shown.
    :param providers: the identity providers, by the principal's name; ``None`` stands for no name.
    :param speculative: whether the server takes part in speculative authentication.
    :param fault: what it does wrong: ``"unending"``, ``"payload"``, or nothing.
    """

    def __init__(
        self,
        *valid: str,
        providers: Mapping[str | None, Mapping[str, Any]] | None = None,
        speculative: bool = True,
        fault: str = "",
        hello: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.valid = set(valid or ("token*",))
        self.shown: list[tuple[str, str]] = []
        self._providers = {None: IDP_INFO} if providers is None else providers
        self._speculative = speculative
        self._fault = fault
        self._hello = {**HELLO, **(hello or {})}
        self._tokens: dict[int, str] = {}
        self._fail_points: list[FailPoint] = []
        for name in ("isMaster", "hello"):
            self.answer(name, self._greet)
        self.answer("saslStart", self._start)
        self.answer("saslContinue", self._continue)
        self.answer("find", partial(self._work, {"cursor": {"id": 0, "ns": "db.c", "firstBatch": []}}))
        self.answer("insert", partial(self._work, {"n": 1}))
        self.answer("commitTransaction", partial(self._work, {}))

    def fail(self, *commands: str, times: int = 1, code: int = 391) -> None:
        """Have commands fail; code 0 closes the connection."""
        answer: Any = {"ok": 0.0, "errmsg": "a fail point", "code": code} if code else Behaviour.HANG_UP
        self._fail_points.append(FailPoint(frozenset(commands), times, answer))

    def expire(self, *valid: str) -> None:
        """From now on only these tokens are valid."""
        self.valid = set(valid)

    def names(self) -> list[str]:
        """The commands that came, without the endings of sessions."""
        return [command.name for command in self.received if command.name != "endSessions"]

    def _is_valid(self, token: str) -> bool:
        return any(token == valid or (valid[-1] == "*" and token.startswith(valid[:-1])) for valid in self.valid)

    def _failing(self, name: str) -> Any:
        for point in self._fail_points:
            if name in point.commands and point.times > 0:
                point.times -= 1
                return point.answer
        return None

    def _show(self, token: str, by: str) -> dict[str, Any]:
        self.shown.append((by, token))
        if not self._is_valid(token):
            return REFUSED
        self._tokens[self.received[-1].connection] = token
        return {"conversationId": CONVERSATION, "payload": b"", "done": self._fault != "unending"}

    def _greet(self, command: Mapping[str, Any]) -> dict[str, Any]:
        reply = dict(self._hello)
        start = command.get("speculativeAuthenticate")
        if start is not None:
            assert start["db"] == "$external"
            answer = self._show(_token(start, {"saslStart", "mechanism", "payload", "db"}), "hello")
            if self._speculative and answer.get("ok", 1):
                reply["speculativeAuthenticate"] = answer
        return reply

    def _start(self, command: Mapping[str, Any]) -> Any:
        assert command["$db"] == "$external"
        failing = self._failing("saslStart")
        if failing is not None:
            return failing
        payload = _payload(command, {"saslStart", "mechanism", "payload", "$db"})
        if "jwt" in payload:
            return self._show(_token(command, {"saslStart", "mechanism", "payload", "$db"}), "saslStart")
        assert list(payload) in ([], ["n"])
        provider = self._providers.get(payload.get("n"))
        if provider is None:
            return REFUSED
        reply = {"conversationId": CONVERSATION, "payload": bson.encode(provider), "done": False}
        if self._fault == "payload":
            del reply["payload"]
        return reply

    def _continue(self, command: Mapping[str, Any]) -> Any:
        assert command["$db"] == "$external"
        assert command["conversationId"] == CONVERSATION
        keys = {"saslContinue", "conversationId", "payload", "$db"}
        return self._show(_token(command, keys), "saslContinue")

    def _work(self, reply: Mapping[str, Any], command: Mapping[str, Any]) -> Any:
        failing = self._failing(next(iter(command)))
        if failing is not None:
            return failing
        token = self._tokens.get(self.received[-1].connection)
        if token is None:
            return NOBODY
        return reply if self._is_valid(token) else EXPIRED


def _payload(command: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    assert set(command) - {"apiVersion"} == set(keys), command
    assert command.get("mechanism", "MONGODB-OIDC") == "MONGODB-OIDC"
    assert type(command["payload"]) is bytes
    return bson.decode(command["payload"])


def _token(command: Mapping[str, Any], keys: Iterable[str]) -> str:
    payload = _payload(command, keys)
    assert list(payload) == ["jwt"], payload
    token: str = payload["jwt"]
    return token
