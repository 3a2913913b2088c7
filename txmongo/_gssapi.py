"""GSSAPI: a ticket of Kerberos, shown to a server in the conversation of RFC 4752.

Lives here: what the service is called, what is asked of the library that has the tickets, and what is said with it. The
library is pykerberos, on Windows winkerberos, which have the same functions; it may wait for a key distribution center,
so that each call is made in a thread. Kept: the Authentication specification, "GSSAPI".
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from pymongo.errors import ConfigurationError, OperationFailure, ProtocolError
from twisted.internet.defer import CancelledError, Deferred

from txmongo._dns import SystemResolver, canonical_host
from txmongo._pymongo import MongoCredential
from txmongo._threads import in_thread
from txmongo.types import Address

__all__ = ["Kerberos", "KerberosFailed", "KerberosLibrary"]

#: Steps of the library until it must be content with the server; with Kerberos it is after one.
_MOST_STEPS = 10
#: Bytes; pykerberos has room for some more, and does not look.
_MAX_USERNAME = 4000
#: The server's offer: a bit for each kind of layer, and in three bytes how much it takes at once.
_OFFER_SIZE = 4
_NO_LAYER = 1
_UNENDING = "the server did not keep to GSSAPI: it does not come to an end"

_T = TypeVar("_T")

Say = Callable[[Mapping[str, Any]], Deferred[dict[str, Any]]]


class KerberosFailed(OperationFailure):
    """There is no ticket, or the library does not trust the server."""


class KerberosLibrary(Protocol):
    """What is used of ``kerberos`` and ``winkerberos``; messages are in base64."""

    AUTH_GSS_COMPLETE: int
    AUTH_GSS_CONTINUE: int
    GSS_C_MUTUAL_FLAG: int
    KrbError: type[Exception]

    def authGSSClientInit(self, service: str, principal: str | None = ..., gssflags: int = ...) -> tuple[int, Any]:
        """Make a context."""

    def authGSSClientStep(self, context: Any, challenge: str) -> int:
        """Take the server's message."""

    def authGSSClientResponse(self, context: Any) -> str | None:
        """What the last call has made of what it was given."""

    def authGSSClientUnwrap(self, context: Any, challenge: str) -> int:
        """Take what the server has wrapped."""

    def authGSSClientWrap(self, context: Any, data: str, user: str) -> int:
        """Wrap the answer to the server's offer of layers: none, and who the user is."""

    def authGSSClientClean(self, context: Any) -> int:
        """Free the context."""


class Kerberos:
    """Authenticates the connections of one client.

    :param credentials: of the mechanism GSSAPI.
    :param reactor: with threads, and with UDP and TCP if names are to be looked up.
    :param resolver: by which that is done; one of its own if none is given.
    """

    def __init__(self, credentials: MongoCredential, reactor: Any, resolver: SystemResolver | None = None) -> None:
        self._credentials = credentials
        self._reactor = reactor
        self._resolver = SystemResolver(reactor) if resolver is None else resolver

    async def converse(self, say: Say, address: Address) -> None:
        """Authenticate a connection.

        :param say: sends a command to ``$external``.
        :param address: of the server.
        :raises ConfigurationError: no library is installed, or it cannot do what is wanted.
        :raises OperationFailure: the server refuses the user; or there is no ticket (:class:`KerberosFailed`).
        :raises ProtocolError: the server does not keep to the conversation.
        """
        library, takes_password = await self._call(_find_library)
        principal = self._principal(takes_password)
        context = _SecurityContext(library, await self._service(address), principal)
        try:
            payload = await self._call(context.run, context.begin)
            reply = await say({"saslStart": 1, "mechanism": "GSSAPI", "payload": payload, "autoAuthorize": 1})
            going_on = {"saslContinue": 1, "conversationId": reply["conversationId"]}
            for _ in range(_MOST_STEPS):
                payload, trusted = await self._call(context.run, context.step, _challenge(reply))
                reply = await say({**going_on, "payload": payload})
                if trusted:
                    break
            else:
                raise ProtocolError(_UNENDING)
            username = self._credentials.username
            payload = await self._call(context.run, context.go_without_layer, _challenge(reply), username)
            reply = await say({**going_on, "payload": payload})
            if not reply["done"]:
                raise ProtocolError(_UNENDING)
        finally:
            context.end()

    def _call(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        return in_thread(self._reactor, function, *args)

    def _principal(self, takes_password: bool) -> str | None:
        """Whose ticket is wanted, with the password; ``None`` for that of whoever runs the program."""
        username, password = self._credentials.username, self._credentials.password
        if len(username.encode()) > _MAX_USERNAME:
            raise ConfigurationError(f"username must have at most {_MAX_USERNAME} bytes with GSSAPI")
        if password is None:
            return None
        if not takes_password:
            raise ConfigurationError("password goes with GSSAPI on Windows only: elsewhere kinit gets the ticket")
        return f"{quote(username, safe='')}:{quote(password, safe='')}"

    async def _service(self, address: Address) -> str:
        """What the server is called by Kerberos."""
        properties = self._credentials.mechanism_properties
        host, port = address
        if properties.service_host:
            host = properties.service_host
        elif port is None:
            raise ConfigurationError("authMechanismProperties: SERVICE_HOST is missing, a UNIX socket has no host")
        host = await canonical_host(self._resolver, host, properties.canonicalize_host_name)
        if properties.service_realm:
            # A name of Kerberos in full. After "service@" pykerberos would take all of it for the host.
            return f"{properties.service_name}/{host}@{properties.service_realm}"
        return f"{properties.service_name}@{host}"


class _SecurityContext:
    """A context of the library, whose methods are given to :meth:`run` in threads, one after another.

    What the library works on must not be freed meanwhile: whoever comes last does it, :meth:`end` or the thread.
    """

    def __init__(self, library: KerberosLibrary, service: str, principal: str | None) -> None:
        self._library = library
        self._service = service
        self._principal = principal
        self._context: Any = None
        self._guard = threading.Lock()
        self._working = False
        self._ended = False

    def run(self, method: Callable[..., _T], *args: Any) -> _T:
        """Call a method of this object.

        :raises KerberosFailed: the library failed.
        """
        with self._guard:
            if self._ended:
                raise CancelledError
            self._working = True
        try:
            return method(*args)
        except (KerberosFailed, ProtocolError):
            raise
        except Exception as error:
            known = isinstance(error, self._library.KrbError)
            raise KerberosFailed(f"GSSAPI: {_texts(error) if known else type(error).__name__}") from None
        finally:
            with self._guard:
                self._working = False
                self._free_if_over()

    def end(self) -> None:
        """Nobody needs it any more."""
        with self._guard:
            self._ended = True
            self._free_if_over()

    def _free_if_over(self) -> None:
        if self._ended and not self._working and self._context is not None:
            context, self._context = self._context, None
            self._library.authGSSClientClean(context)

    def begin(self) -> str:
        """Get a ticket; the client's first message."""
        library, flags = self._library, self._library.GSS_C_MUTUAL_FLAG
        result, self._context = library.authGSSClientInit(self._service, self._principal, gssflags=flags)
        self._check(result == library.AUTH_GSS_COMPLETE)
        self._check(library.authGSSClientStep(self._context, "") == library.AUTH_GSS_CONTINUE)
        return library.authGSSClientResponse(self._context) or ""

    def step(self, challenge: str) -> tuple[str, bool]:
        """The answer to a message of the server, and whether the two trust each other now."""
        library = self._library
        result = library.authGSSClientStep(self._context, challenge)
        self._check(result in (library.AUTH_GSS_CONTINUE, library.AUTH_GSS_COMPLETE))
        return library.authGSSClientResponse(self._context) or "", result == library.AUTH_GSS_COMPLETE

    def go_without_layer(self, challenge: str, username: str) -> str:
        """The answer to the server's offer of layers: none is wanted; and who the user is."""
        library = self._library
        self._check(library.authGSSClientUnwrap(self._context, challenge) == library.AUTH_GSS_COMPLETE)
        offer = library.authGSSClientResponse(self._context) or ""
        layers = base64.b64decode(offer)
        if len(layers) != _OFFER_SIZE or not layers[0] & _NO_LAYER:
            raise ProtocolError("the server did not keep to GSSAPI: it does not offer to go without a security layer")
        self._check(library.authGSSClientWrap(self._context, offer, username) == library.AUTH_GSS_COMPLETE)
        return library.authGSSClientResponse(self._context) or ""

    @staticmethod
    def _check(as_expected: bool) -> None:
        """The library raises errors as a rule, but may return one."""
        if not as_expected:
            raise KerberosFailed("GSSAPI: the library failed and does not say why")


def _find_library() -> tuple[KerberosLibrary, bool]:
    """What is installed, and whether it takes passwords.

    :raises ConfigurationError: nothing is.
    """
    for name, takes_password in (("winkerberos", True), ("kerberos", False)):
        try:
            # Not imported above: few have it.
            library: Any = import_module(name)
        except ImportError:
            continue
        return library, takes_password
    raise ConfigurationError("authMechanism GSSAPI needs the library of Kerberos: install txmongo[gssapi]")


def _challenge(reply: Mapping[str, Any]) -> str:
    """The server's message in base64, which it must be or else bytes."""
    payload = reply["payload"]
    text: str = base64.b64encode(payload).decode() if isinstance(payload, bytes) else payload
    base64.b64decode(text, validate=True)
    return text


def _texts(error: Exception) -> str:
    """The texts of an error, without the codes that pykerberos pairs them with."""
    return ": ".join(str(part[0] if isinstance(part, tuple) else part) for part in error.args)
