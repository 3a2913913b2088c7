"""Both sides of GSSAPI without Kerberos: what stands in for the library of the client, and a server that checks it.

The messages are not those of Kerberos. Each is what only one of the two can say, and only when it is due.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import attrs

from txmongo.testing import FakeServer

KEY = b"the session's key"
REFUSED = {"ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed"}
OFFER = b"\x07\x00\xff\xff"


def wrapped(text: bytes, by: bytes = b"server") -> bytes:
    """A message with a proof of who made it."""
    return text + hmac.digest(KEY, by + text, "sha256")


def unwrapped(message: bytes, by: bytes) -> bytes | None:
    """The text of a message, if that one made it."""
    text = message[:-32]
    return text if message == wrapped(text, by) else None


class KrbError(Exception):
    """The library's error."""


class GSSError(KrbError):
    """Its error with texts and codes."""


@attrs.define
class Context:
    """A context of the library.

    :ivar trusted: whether the server has shown that it knows the key.
    """

    service: str
    principal: str | None
    response: bytes | None = None
    trusted: bool = False
    freed: bool = False
    working: bool = False


class Library(ModuleType):
    """Stands in for pykerberos, or for winkerberos: the same functions, results and errors.

    :ivar contexts: all that were made.
    :ivar called: the functions that were called, in order.
    :ivar during: what happens during the call of a function, by its name; its result, if it has one, is the function's.
    """

    AUTH_GSS_COMPLETE = 1
    AUTH_GSS_CONTINUE = 0
    GSS_C_MUTUAL_FLAG = 2
    KrbError = KrbError

    def __init__(self, name: str = "kerberos") -> None:
        super().__init__(name)
        self.contexts: list[Context] = []
        self.called: list[str] = []
        self.during: dict[str, Callable[[], Any]] = {}

    def authGSSClientInit(self, service: str, principal: str | None = None, gssflags: int = 0) -> tuple[int, Context]:
        assert gssflags == self.GSS_C_MUTUAL_FLAG
        context = Context(service, principal)
        self.contexts.append(context)
        return self._work("Init", context, lambda: 1), context

    def authGSSClientStep(self, context: Context, challenge: str) -> int:
        def step() -> int:
            message = base64.b64decode(challenge)
            if not message:
                context.response = wrapped(context.service.encode(), b"client")
                return 0
            if unwrapped(message, b"server") != b"it is me":
                raise GSSError(("A token was invalid", 589824), ("Message stream modified", -1765328343))
            context.response, context.trusted = None, True
            return 1

        return self._work("Step", context, step)

    def authGSSClientResponse(self, context: Context) -> str | None:
        assert not context.freed
        return None if context.response is None else base64.b64encode(context.response).decode()

    def authGSSClientUnwrap(self, context: Context, challenge: str) -> int:
        def unwrap() -> int:
            assert context.trusted
            context.response = unwrapped(base64.b64decode(challenge), b"server")
            return -1 if context.response is None else 1

        return self._work("Unwrap", context, unwrap)

    def authGSSClientWrap(self, context: Context, data: str, user: str) -> int:
        def wrap() -> int:
            offer = base64.b64decode(data)
            context.response = wrapped(b"\x01" + offer[1:] + user.encode(), b"client")
            return 1

        return self._work("Wrap", context, wrap)

    def authGSSClientClean(self, context: Context) -> int:
        assert not context.freed and not context.working
        self.called.append("Clean")
        context.freed = True
        return 1

    def _work(self, name: str, context: Context, function: Callable[[], int]) -> int:
        assert not context.freed and not context.working
        self.called.append(name)
        context.working = True
        try:
            result = self.during.get(name, lambda: None)()
            return function() if result is None else int(result)
        finally:
            context.working = False


class KerberosServer(FakeServer):
    """A fake server that a client may show tickets to.

    :param service: what the client must call it.
    :param fault: what it does wrong: ``"impostor"``, ``"payload"``, ``"number"``, ``"base64"``, ``"unending"``, or
        nothing; ``"bytes"`` is no fault.
    :param offer: the security layers, wrapped.
    """

    def __init__(
        self,
        service: str = "mongodb@db.example",
        user: str = "user@REALM",
        *,
        fault: str = "",
        offer: bytes = wrapped(OFFER),
    ) -> None:
        super().__init__()
        self.authenticated = 0
        self._service = service
        self._user = user
        self._fault = fault
        self._offer = offer
        self._next = self._trust
        self.answer("saslStart", self._start)
        self.answer("saslContinue", self.go_on)

    def _start(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if (
            set(command) - {"apiVersion"} != {"saslStart", "mechanism", "payload", "autoAuthorize", "$db"}
            or (command["mechanism"], command["autoAuthorize"], command["$db"]) != ("GSSAPI", 1, "$external")
            or unwrapped(base64.b64decode(command["payload"]), b"client") != self._service.encode()
        ):
            return REFUSED
        self._next = self._trust
        text = b"it is another" if self._fault == "impostor" else b"it is me"
        return self._reply(wrapped(text))

    def go_on(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to what is said next."""
        return self._next(command)

    def _trust(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The client knows the server now, and has nothing to say to that."""
        if not self._continues(command) or command["payload"] != "":
            return REFUSED
        self._next = self._authorize
        return self._reply(self._offer)

    def _authorize(self, command: Mapping[str, Any]) -> dict[str, Any]:
        choice = b"\x01" + OFFER[1:] + self._user.encode()
        if not self._continues(command) or unwrapped(base64.b64decode(command["payload"]), b"client") != choice:
            return REFUSED
        self.authenticated += 1
        return {**self._reply(b""), "done": self._fault != "unending"}

    def _continues(self, command: Mapping[str, Any]) -> bool:
        fields = set(command) - {"apiVersion"}
        return fields == {"saslContinue", "conversationId", "payload", "$db"} and (
            command["conversationId"],
            command["$db"],
        ) == (7, "$external")

    def _reply(self, message: bytes) -> dict[str, Any]:
        payload: Any = base64.b64encode(message).decode()
        if self._fault == "bytes":
            payload = message
        if self._fault == "number":
            payload = 1
        if self._fault == "base64":
            payload += "*"
        reply = {"conversationId": 7, "done": False, "payload": payload}
        if self._fault == "payload":
            del reply["payload"]
        return reply
