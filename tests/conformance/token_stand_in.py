"""A stand-in for a server that wants MONGODB-OIDC, as MongoDB Enterprise does, in front of one that does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bson
from pymongo import auth_oidc as pymongo_oidc
from twisted.internet import defer

from tests.conformance.stand_in import HELLO, StandIn, _FailPoint
from txmongo.auth_oidc import OIDCCallback, OIDCCallbackResult
from txmongo.testing import Behaviour, ReceivedCommand

__all__ = ["TokenCallback", "TokenStandIn"]

TOKEN = "a token"
#: What is done for nobody in particular.
FOR_ALL = HELLO | {"configureFailPoint", "endSessions"}
REFUSED = {"ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed"}
NOBODY = {"ok": 0.0, "errmsg": "command requires authentication", "code": 13, "codeName": "Unauthorized"}


class TokenCallback(OIDCCallback):
    """Gives the token that the stand-in wants."""

    def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> OIDCCallbackResult:
        return OIDCCallbackResult(TOKEN)


class TokenStandIn(StandIn):
    """Authenticates connections, and has fail points of its own for whatever is named, by application."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._app_names: dict[int, str] = {}
        self._authenticated: set[int] = set()
        self._own_fail_point: _FailPoint | None = None

    def _answer_to(self, command: ReceivedCommand) -> Any:
        connection, document = command.connection, command.document
        if command.name in HELLO and "client" in document:
            self._app_names[connection] = document["client"].get("application", {}).get("name", "")
        failing = self._failing(command)
        if failing is not None:
            self.received.append(command)
            return failing
        if command.name == "saslStart":
            self.received.append(command)
            return self._start(connection, document)
        if command.name not in FOR_ALL and connection not in self._authenticated:
            self.received.append(command)
            return NOBODY
        answer = super()._answer_to(command)
        start = document.get("speculativeAuthenticate")
        if command.name in HELLO and start is not None and isinstance(answer, defer.Deferred):
            return answer.addCallback(self._with_start, connection, start)
        return answer

    def _with_start(self, reply: Mapping[str, Any], connection: int, start: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._start(connection, start)
        return {**reply, "speculativeAuthenticate": answer} if answer.get("done") else reply

    def _start(self, connection: int, command: Mapping[str, Any]) -> dict[str, Any]:
        if command["mechanism"] != "MONGODB-OIDC" or bson.decode(command["payload"]) != {"jwt": TOKEN}:
            return REFUSED
        self._authenticated.add(connection)
        return {"conversationId": 1, "payload": b"", "done": True}

    def _is_own(self, document: Mapping[str, Any]) -> bool:
        """Take every fail point."""
        data, mode = document.get("data", {}), document["mode"]
        times = mode["times"] if isinstance(mode, Mapping) else 0
        self._own_fail_point = _FailPoint(frozenset(data.get("failCommands", ())), times, data)
        return True

    def _failing(self, command: ReceivedCommand) -> Any:
        """How a command fails, if it is to."""
        point = self._own_fail_point
        if point is None or self._app_names.get(command.connection, "") != point.data.get("appName", ""):
            return None
        if not point.hits(command.name):
            return None
        return Behaviour.HANG_UP if point.data.get("closeConnection") else point.error()
