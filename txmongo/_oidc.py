"""MONGODB-OIDC: the tokens of a client, and the conversation in which a connection shows one to the server.

Lives here: the call of whatever gives tokens (one at a time, within its time, never blocking the reactor), the cache of
a client, and the order in which a connection tries what there is. The built-in sources of tokens are in
:mod:`txmongo._oidc_environments`. Kept: the Authentication specification, "MONGODB-OIDC".

A token is in no repr and in no text of an error. Exceptions of callbacks are causes of the driver's: what stands in
their own texts is the application's affair.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import bson
from pymongo import auth_oidc as pymongo_oidc
from pymongo.errors import ConfigurationError, OperationFailure, ProtocolError
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txmongo._deferreds import Countdown, current_failure
from txmongo._oidc_environments import NoToken, environment_callback
from txmongo._pymongo import MongoCredential
from txmongo._threads import in_thread
from txmongo.auth_oidc import OIDCCallback, OIDCCallbackContext, OIDCIdPInfo
from txmongo.types import Address

__all__ = ["CallbackFailed", "OIDCConversation", "Tokens", "is_allowed"]

_VERSION = 1
_MACHINE_TIMEOUT = 60.0
_HUMAN_TIMEOUT = 300.0
#: Seconds between the end of one call and the next, and after the server has refused a token.
_REST = 0.1

AnyCallback = OIDCCallback | pymongo_oidc.OIDCCallback
Say = Callable[[Mapping[str, Any]], Deferred[dict[str, Any]]]


class CallbackFailed(OperationFailure):
    """No token was had: the callback failed, took too long, or gave something else."""


class Tokens:
    """The tokens of one client, and where the next one comes from.

    :ivar access_token: the last one, until it was refused; ``None`` if there is none.
    :ivar refresh_token: what the callback gave with it, for people only.
    :ivar human: whether a person takes part in getting one.
    :param credentials: of the mechanism MONGODB-OIDC.
    :param reactor: with threads, and with TCP if an environment's service is to be asked.
    :param timeout: seconds, the client's ``timeoutMS``; ``None`` or 0 for none. It does not count for people.
    """

    def __init__(self, credentials: MongoCredential, reactor: Any, timeout: float | None = None) -> None:
        properties = credentials.mechanism_properties
        self.access_token: str | None = None
        self.refresh_token: str | None = None
        self.human = properties.human_callback is not None
        self._idp_info: OIDCIdPInfo | None = None
        self._username: str = credentials.username or ""
        self._reactor = reactor
        self._callback: AnyCallback
        if properties.environment:
            self._callback = environment_callback(properties.environment, properties.token_resource or "", reactor)
        else:
            self._callback = properties.human_callback or properties.callback
        self._seconds = _HUMAN_TIMEOUT if self.human else min(_MACHINE_TIMEOUT, timeout or _MACHINE_TIMEOUT)
        self._allowed: Iterable[str] | None = properties.allowed_hosts if self.human else None
        self._lock = DeferredLock()
        self._not_before = reactor.seconds()

    def __repr__(self) -> str:
        return f"<Tokens, {'one' if self.access_token else 'none'} cached>"

    def allows(self, address: Address) -> bool:
        """Whether a server may see a person's token; others may be shown to any that the client connects to."""
        return self._allowed is None or is_allowed(address[0], self._allowed)

    def invalidate(self, token: str | None) -> None:
        """The server has refused a token, which may have been replaced since."""
        if token is not None and token == self.access_token:
            self.access_token = None
            self._not_before = self._reactor.seconds() + _REST

    async def get(self, idp_info: OIDCIdPInfo | None = None) -> tuple[str, bool]:
        """A token: the one that is cached, or a new one of the callback.

        :param idp_info: what the server said to begin with; without it a person's callback is given what is cached.
        :returns: the token, and whether it was cached.
        :raises CallbackFailed: there is none.
        """
        await self._lock.acquire()
        if self.access_token is not None:
            self._lock.release()
            return self.access_token, True
        if idp_info is not None:
            self._idp_info, self.refresh_token = idp_info, None
        try:
            pause = self._not_before - self._reactor.seconds()
            if pause > 0:
                await deferLater(self._reactor, pause)
        except BaseException:
            self._lock.release()
            raise
        # From here on the end of the call, whenever that is, releases the lock.
        return await self._call(), False

    def _call(self) -> Deferred[str]:
        """Call the callback, and keep what it gives."""
        context = OIDCCallbackContext(
            timeout_seconds=self._seconds,
            username=self._username,
            version=_VERSION,
            refresh_token=self.refresh_token,
            idp_info=self._idp_info,
        )
        call = _Call(self._callback, context, self._reactor)
        return call.begin(self._keep, self._ended)

    def _keep(self, result: Any) -> str:
        """Look at what the callback has given, and cache it.

        :raises CallbackFailed: it is no token.
        """
        if not isinstance(result, pymongo_oidc.OIDCCallbackResult):
            raise CallbackFailed(
                f"MONGODB-OIDC: the callback must give an OIDCCallbackResult, not {type(result).__name__}"
            )
        token, refresh, seconds = result.access_token, result.refresh_token, result.expires_in_seconds
        if not isinstance(token, str) or not token:
            raise CallbackFailed("MONGODB-OIDC: the callback must give an access_token that is a str, and not empty")
        if refresh is not None and not isinstance(refresh, str):
            raise CallbackFailed("MONGODB-OIDC: the callback must give a refresh_token that is a str or None")
        if seconds is not None and (not isinstance(seconds, int | float) or seconds < 0):
            raise CallbackFailed("MONGODB-OIDC: the callback must give expires_in_seconds that are not negative")
        self.access_token = token
        if self.human:
            self.refresh_token = refresh
        return token

    def _ended(self) -> None:
        self._not_before = self._reactor.seconds() + _REST
        self._lock.release()


class _Call:
    """One call of a callback: its end may come long after nobody waits for it, if it has a thread of its own."""

    def __init__(self, callback: AnyCallback, context: OIDCCallbackContext, reactor: Any) -> None:
        self._callback = callback
        self._context = context
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._in_thread = _may_block(callback)
        self._given_up = False
        self._working: Deferred[Any]

    def begin(self, keep: Callable[[Any], str], on_end: Callable[[], None]) -> Deferred[str]:
        """Call it.

        :param keep: makes a token of what it gives, also if that comes too late.
        :param on_end: called at its end.
        :returns: a Deferred that fires with the token; it fails with :class:`CallbackFailed`. Cancelling it cancels
            what the callback gave, if that was no thread.
        """
        waiting: Deferred[str] = Deferred(self._cancelled)

        def ended(result: Any) -> None:
            self._disarm()
            outcome: Any
            try:
                if isinstance(result, Failure):
                    error: Any = result.value
                    raise _explained(error) from error
                outcome = keep(result)
            except Exception:
                outcome = current_failure()
            on_end()
            if not waiting.called and not self._given_up:
                waiting.callback(outcome)

        def too_late() -> None:
            self._timer = None
            waiting.errback(
                CallbackFailed(f"MONGODB-OIDC: the callback gave no token in {self._context.timeout_seconds:g} s")
            )
            if not self._in_thread:
                self._working.cancel()

        self._timer = self._reactor.callLater(self._context.timeout_seconds, too_late)
        self._working = maybeDeferred(self._work)
        self._working.addBoth(ended)
        return waiting

    def _work(self) -> Deferred[Any]:
        if self._in_thread:
            return in_thread(self._reactor, self._fetch_in_thread)
        # It makes a Deferred of a coroutine too.
        return maybeDeferred(self._callback.fetch, self._context)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fetch_in_thread(self) -> Any:
        """Call it where it may block, but not go on in the reactor."""
        result: Any = self._callback.fetch(self._context)
        if inspect.iscoroutine(result):
            result.close()
        if isinstance(result, Deferred | Coroutine):
            raise CallbackFailed(
                f"MONGODB-OIDC: {type(self._callback).__name__}.fetch was called in a thread, where it may block but "
                f"not give a {type(result).__name__}: derive it from txmongo.auth_oidc.OIDCCallback"
            )
        return result

    def _cancelled(self, _: Deferred[str]) -> None:
        self._given_up = True
        self._disarm()
        if not self._in_thread:
            self._working.cancel()


def _may_block(callback: AnyCallback) -> bool:
    """Whether a callback has to be called in a thread: nothing says that it was written for a reactor."""
    if isinstance(callback, OIDCCallback):
        return False
    fetch = inspect.unwrap(callback.fetch)
    return not inspect.iscoroutinefunction(fetch) and not inspect.isgeneratorfunction(fetch)


def _explained(error: BaseException) -> CallbackFailed:
    if isinstance(error, CallbackFailed | NoToken):
        return CallbackFailed(str(error))
    return CallbackFailed(f"MONGODB-OIDC: the callback failed ({type(error).__name__})")


def is_allowed(host: str, allowed: Iterable[str]) -> bool:
    """Whether a host is one of those that are allowed, of which ``*.`` before a name stands for all below it."""
    name = host.lower().rstrip(".")
    for pattern in allowed:
        pattern = pattern.lower()
        if name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])):
            return True
    return False


class OIDCConversation:
    """The authentication of one connection.

    :param tokens: of the client.
    :param address: of the server.
    """

    def __init__(self, credentials: MongoCredential, tokens: Tokens, address: Address) -> None:
        self._username: str | None = credentials.username
        self._tokens = tokens
        self._address = address
        #: What this connection was authenticated by.
        self._token: str | None = None

    def speculative_command(self) -> dict[str, Any] | None:
        """What is said in the greeting, if there is a token."""
        token = self._tokens.access_token
        if token is None or not self._tokens.allows(self._address):
            return None
        self._token = token
        return {**_start({"jwt": token}), "db": "$external"}

    def begun_by(self, hello: Mapping[str, Any]) -> bool:
        """Whether the greeting's answer says that this was all."""
        answer = hello.get("speculativeAuthenticate")
        if self._token is not None and isinstance(answer, Mapping) and answer.get("done") is True:
            return True
        self._token = None
        return False

    def refused(self) -> None:
        """The server wants to be shown another token."""
        self._tokens.invalidate(self._token)
        self._token = None

    async def run(self, say: Say, limit: Countdown | None) -> None:
        """Show the server a token.

        :param say: sends a command to ``$external``.
        :param limit: of the whole, but for the time that callbacks take.
        :raises ConfigurationError: the server may not be shown one.
        :raises OperationFailure: it refuses the one; or there is none (:class:`CallbackFailed`).
        :raises ProtocolError: it does not keep to the conversation.
        """
        if not self._tokens.allows(self._address):
            raise ConfigurationError(
                f"MONGODB-OIDC: {self._address[0]} is none of ALLOWED_HOSTS, to which a person's token may be shown"
            )
        if self._tokens.human:
            await self._run_human(say, limit)
        else:
            await self._run_machine(say, limit)

    async def _run_machine(self, say: Say, limit: Countdown | None) -> None:
        token, cached = await self._get(limit)
        try:
            await self._show(say, token)
        except OperationFailure:
            if not cached:
                raise
            self.refused()
        else:
            return
        token, _ = await self._get(limit)
        await self._show(say, token)

    async def _run_human(self, say: Say, limit: Countdown | None) -> None:
        tokens = self._tokens
        if tokens.access_token is not None:
            try:
                await self._show(say, tokens.access_token)
            except OperationFailure:
                self.refused()
            else:
                return
        refresh = tokens.refresh_token
        if refresh is not None:
            try:
                token, _ = await self._get(limit)
                await self._show(say, token)
            except OperationFailure:
                self.refused()
                if tokens.refresh_token == refresh:
                    tokens.refresh_token = None
            else:
                return
        await self._ask_and_show(say, limit)

    async def _ask_and_show(self, say: Say, limit: Countdown | None) -> None:
        """Have the server name the identity provider, and show it what that gives: "Two-Step"."""
        name = {} if self._username is None else {"n": self._username}
        reply = await say(_start(name))
        said = bson.decode(reply["payload"])
        idp_info = OIDCIdPInfo(
            issuer=said["issuer"], clientId=said.get("clientId"), requestScopes=said.get("requestScopes")
        )
        token, _ = await self._get(limit, idp_info)
        self._token = token
        payload = bson.encode({"jwt": token})
        _check_done(await say({"saslContinue": 1, "conversationId": reply["conversationId"], "payload": payload}))

    async def _get(self, limit: Countdown | None, idp_info: OIDCIdPInfo | None = None) -> tuple[str, bool]:
        with nullcontext() if limit is None else limit.paused():
            return await self._tokens.get(idp_info)

    async def _show(self, say: Say, token: str) -> None:
        """Show a token to the server: "One-Step"."""
        self._token = token
        _check_done(await say(_start({"jwt": token})))


def _start(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {"saslStart": 1, "mechanism": "MONGODB-OIDC", "payload": bson.encode(payload)}


def _check_done(reply: Mapping[str, Any]) -> None:
    if not reply["done"]:
        raise ProtocolError("the server did not keep to MONGODB-OIDC: it does not come to an end")
