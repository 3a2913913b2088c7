"""Authentication of one connection.

Lives here: which mechanism is taken and what it is driven with. Some conversations are PyMongo's coroutines (SCRAM with
its iteration floor and its comparison in constant time, X.509, PLAIN), which await commands sent through
:class:`_Conversation`, as Deferreds; what is said in those of MONGODB-AWS, MONGODB-OIDC and GSSAPI is
:mod:`txmongo._aws`'s, :mod:`txmongo._oidc`'s and :mod:`txmongo._gssapi`'s. Kept: the Authentication specification.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from pymongo.errors import ConfigurationError, OperationFailure, ProtocolError, PyMongoError
from twisted.internet.defer import CancelledError, Deferred

from txmongo import _aws as aws
from txmongo._deferreds import Countdown
from txmongo._gssapi import Kerberos
from txmongo._oidc import OIDCConversation, Tokens
from txmongo._pymongo import (
    MongoCredential,
    ScramContext,
    X509Context,
    authenticate_plain,
    authenticate_scram,
    authenticate_x509,
    build_credentials,
    saslprep,
)
from txmongo.types import Address

__all__ = [
    "Authentication",
    "AuthenticationFailed",
    "Authenticator",
    "CommandSender",
    "MongoAuthenticationError",
    "authenticate_user",
    "check_mechanism",
    "make_credentials",
]

#: Mechanisms for which a name and a password, or neither, are all there is to say.
_BY_NAME = ("SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509", "PLAIN")
_SUPPORTED = (*_BY_NAME, "GSSAPI", "MONGODB-AWS", "MONGODB-OIDC")
_REMOVED = "MONGODB-CR"
_NO_FIELDS: Mapping[str, Any] = {}
#: With no mechanism given it is agreed on with the server.
_NEGOTIATED = "DEFAULT"


class MongoAuthenticationError(Exception):
    """Authentication is not possible as asked for, or the server refused it: TxMongo's exception.

    Where the server refused a user or a password it is an :class:`~txmongo.errors.OperationFailure` too.
    """


class AuthenticationFailed(OperationFailure, MongoAuthenticationError):
    """The server refused a user or a password; code 18 as a rule."""


class CommandSender(Protocol):
    """The part of :class:`~txmongo.protocol.MongoProtocol` that authentication needs."""

    def command(self, database: str, command: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """Send a command; the Deferred fires with its checked reply."""
        ...


class _Conversation:
    """What PyMongo's coroutines take for a connection: they read these attributes and await :meth:`command`."""

    def __init__(self, sender: CommandSender, address: Any, context: Any, api_fields: Mapping[str, Any]) -> None:
        self.address = address
        self.auth_ctx = context
        self._sender = sender
        self._api_fields = api_fields

    def command(self, source: str, command: Mapping[str, Any], **_: Any) -> Deferred[dict[str, Any]]:
        """Send one step; PyMongo's further arguments are about its own events."""
        return self._sender.command(source, {**command, **self._api_fields})


def check_mechanism(credentials: MongoCredential | None) -> None:
    """Refuse a mechanism that the driver does not speak, before anything is connected.

    :raises ConfigurationError: naming it and those that there are.
    """
    if credentials is not None and credentials.mechanism not in (_NEGOTIATED, *_SUPPORTED):
        raise ConfigurationError(
            f"authMechanism {credentials.mechanism} is not supported yet; supported are {', '.join(_SUPPORTED)}"
        )


def make_credentials(database: str, username: str | None, password: str | None, mechanism: str) -> MongoCredential:
    """Who somebody is, for :func:`authenticate_user`.

    :param database: whose user it is.
    :param mechanism: ``"DEFAULT"`` for what the server and the user have in common.
    :raises TypeError: an argument is no str; with MONGODB-X509 name and password may be ``None``.
    :raises MongoAuthenticationError: the mechanism was removed, or is not supported.
    :raises ConfigurationError: the arguments do not fit the mechanism.
    """
    for name, value in (("database", database), ("mechanism", mechanism)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if mechanism == _REMOVED:
        raise MongoAuthenticationError(f"{_REMOVED} was removed in MongoDB 4.0: use SCRAM-SHA-256 or SCRAM-SHA-1")
    if mechanism in _SUPPORTED and mechanism not in _BY_NAME:
        raise MongoAuthenticationError(f"mechanism {mechanism!r} can be given when the client is made only")
    if mechanism not in (_NEGOTIATED, *_BY_NAME):
        raise MongoAuthenticationError(f"mechanism {mechanism!r} is not known; known are {', '.join(_BY_NAME)}")
    without_user = mechanism == "MONGODB-X509"
    for name, part in (("username", username), ("password", password)):
        if not isinstance(part, str) and not (part is None and without_user):
            raise TypeError(f"{name} must be a str, not {type(part).__name__}")
    source = None if without_user else database
    return build_credentials(mechanism, source, username or None, password or None, {}, database)


class Authentication:
    """The authentication of one connection: by SCRAM, by certificate, or by PLAIN.

    :param address: of the server.
    :param api_fields: what the Stable API adds to each command.
    """

    def __init__(self, credentials: MongoCredential, address: Any, api_fields: Mapping[str, Any] = _NO_FIELDS) -> None:
        self._credentials = credentials
        self._address = address
        self._api_fields = api_fields
        self._mechanism: str = credentials.mechanism
        self._context: Any = None

    def speculative_command(self) -> Mapping[str, Any] | None:
        """What starts it within the greeting, or ``None`` if the mechanism has no such start."""
        # PyMongo only keeps the address; that of a UNIX socket has no port, which its types do not allow.
        credentials, mechanism = self._credentials, self._mechanism
        if mechanism == "MONGODB-X509":
            self._context = X509Context(credentials, self._address)
        elif mechanism == _NEGOTIATED or mechanism.startswith("SCRAM-"):
            scram = "SCRAM-SHA-256" if mechanism == _NEGOTIATED else mechanism
            self._context = ScramContext(credentials, self._address, scram)
        command: Mapping[str, Any] | None = None if self._context is None else self._context.speculate_command()
        return command

    async def complete(self, sender: CommandSender, hello: Mapping[str, Any], limit: Countdown | None = None) -> None:
        """Authenticate the connection.

        :param sender: sends the commands.
        :param hello: the reply to the greeting, which names the mechanisms of the user.
        :param limit: of the time for this; it does not count what an application's callbacks take.
        :raises AuthenticationFailed: code 18 if the server does not know the user or the password is another.
        :raises ConfigurationError: the credentials cannot be used with the mechanism.
        :raises ProtocolError: the server did not keep to the conversation.
        """
        if self._context is not None:
            self._context.speculative_authenticate = hello.get("speculativeAuthenticate")
        self._mechanism = _mechanism(self._credentials, hello, self._context)
        await self._guarded(self._converse(sender, limit))

    async def repeat(self, sender: CommandSender, limit: Countdown | None = None) -> None:
        """Authenticate it again, by the mechanism of the first time; errors are those of :meth:`complete`."""
        self._context = None
        await self._guarded(self._converse(sender, limit))

    async def _guarded(self, conversation: Coroutine[Any, Any, None]) -> None:
        """Wait for its end, and make of its errors those of :meth:`complete`."""
        try:
            await conversation
        except OperationFailure as error:
            raise AuthenticationFailed(_said(error), error.code, error.details) from error.__cause__
        except (PyMongoError, CancelledError):
            raise
        except Exception as error:
            # What is made of an answer that misses a field or is no base64; its text may quote the answer.
            raise ProtocolError(f"the server did not keep to {self._mechanism} ({type(error).__name__})") from None

    async def _converse(self, sender: CommandSender, limit: Countdown | None) -> None:
        mechanism, credentials = self._mechanism, self._credentials
        context = _fitting(self._context, mechanism)
        conversation: Any = _Conversation(sender, self._address, context, self._api_fields)
        if mechanism == "MONGODB-X509":
            await authenticate_x509(credentials, conversation)
        elif mechanism == "PLAIN":
            await authenticate_plain(credentials, conversation)
        else:
            _check_password(credentials, mechanism)
            await authenticate_scram(credentials, conversation, mechanism)


class _AWSAuthentication(Authentication):
    """The authentication of one connection by MONGODB-AWS, which has no speculative start."""

    def __init__(
        self, credentials: MongoCredential, address: Any, api_fields: Mapping[str, Any], source: aws.KeySource
    ) -> None:
        super().__init__(credentials, address, api_fields)
        self._source = source

    async def _converse(self, sender: CommandSender, limit: Countdown | None) -> None:
        keys = await self._source.keys()
        conversation = _Conversation(sender, self._address, None, self._api_fields)
        nonce = os.urandom(aws.NONCE_SIZE)
        start = {"saslStart": 1, "mechanism": "MONGODB-AWS", "payload": aws.first_message(nonce)}
        try:
            reply = await conversation.command("$external", start)
            payload = aws.second_message(nonce, reply["payload"], keys, aws.utc_now())
            going_on = {"saslContinue": 1, "conversationId": reply["conversationId"], "payload": payload}
            reply = await conversation.command("$external", going_on)
        except BaseException:
            self._source.forget()
            raise
        if not reply["done"]:
            raise ProtocolError("the server did not keep to MONGODB-AWS: it does not come to an end")


class _OIDCAuthentication(Authentication):
    """The authentication of one connection by MONGODB-OIDC."""

    def __init__(
        self, credentials: MongoCredential, address: Any, api_fields: Mapping[str, Any], tokens: Tokens
    ) -> None:
        super().__init__(credentials, address, api_fields)
        self._conversation = OIDCConversation(credentials, tokens, address)

    def speculative_command(self) -> Mapping[str, Any] | None:
        """What is said in the greeting, if the client has a token."""
        return self._conversation.speculative_command()

    async def complete(self, sender: CommandSender, hello: Mapping[str, Any], limit: Countdown | None = None) -> None:
        """Authenticate the connection, unless that was done in the greeting."""
        if not self._conversation.begun_by(hello):
            await super().complete(sender, hello, limit)

    async def repeat(self, sender: CommandSender, limit: Countdown | None = None) -> None:
        """Authenticate it by another token."""
        self._conversation.refused()
        await super().repeat(sender, limit)

    async def _converse(self, sender: CommandSender, limit: Countdown | None) -> None:
        conversation = _Conversation(sender, self._address, None, self._api_fields)
        await self._conversation.run(partial(conversation.command, "$external"), limit)


class _GSSAPIAuthentication(Authentication):
    """The authentication of one connection by GSSAPI, which has no speculative start."""

    def __init__(
        self, credentials: MongoCredential, address: Any, api_fields: Mapping[str, Any], kerberos: Kerberos
    ) -> None:
        super().__init__(credentials, address, api_fields)
        self._kerberos = kerberos

    async def _converse(self, sender: CommandSender, limit: Countdown | None) -> None:
        conversation = _Conversation(sender, self._address, None, self._api_fields)
        await self._kerberos.converse(partial(conversation.command, "$external"), self._address)


class Authenticator:
    """Authenticates the connections of one client as one user, and has what they have in common.

    :param credentials: who the user is.
    :param reactor: whose threads may be used.
    :param api_fields: what the Stable API adds to each command.
    :param timeout: seconds, the client's ``timeoutMS``; ``None`` or 0 for none.
    :raises ConfigurationError: the mechanism is not supported.
    """

    def __init__(
        self,
        credentials: MongoCredential,
        reactor: Any,
        api_fields: Mapping[str, Any] = _NO_FIELDS,
        timeout: float | None = None,
    ) -> None:
        check_mechanism(credentials)
        self._credentials = credentials
        self._api_fields = api_fields
        mechanism = credentials.mechanism
        self._keys = aws.KeySource(credentials, reactor) if mechanism == "MONGODB-AWS" else None
        self._tokens = Tokens(credentials, reactor, timeout) if mechanism == "MONGODB-OIDC" else None
        self._kerberos = Kerberos(credentials, reactor) if mechanism == "GSSAPI" else None

    def begin(self, address: Address) -> Authentication:
        """The authentication of a new connection.

        :param address: of its server.
        """
        if self._keys is not None:
            return _AWSAuthentication(self._credentials, address, self._api_fields, self._keys)
        if self._tokens is not None:
            return _OIDCAuthentication(self._credentials, address, self._api_fields, self._tokens)
        if self._kerberos is not None:
            return _GSSAPIAuthentication(self._credentials, address, self._api_fields, self._kerberos)
        return Authentication(self._credentials, address, self._api_fields)


def _said(error: OperationFailure) -> str:
    """What the server said; the text of PyMongo's exceptions repeats the whole reply behind it."""
    return str((error.details or {}).get("errmsg", error))


async def authenticate_user(
    sender: CommandSender,
    credentials: MongoCredential,
    address: Address | None = None,
    api_fields: Mapping[str, Any] = _NO_FIELDS,
) -> None:
    """Authenticate a connection on which the greeting is over, asking the server first what the user can do.

    Errors and further parameters are those of :class:`Authentication`.
    """
    hello: Mapping[str, Any] = {}
    if credentials.mechanism == _NEGOTIATED:
        greeting = {"hello": 1} if api_fields else {"isMaster": 1}
        user = f"{credentials.source}.{credentials.username}"
        hello = await sender.command("admin", {**greeting, **api_fields, "saslSupportedMechs": user})
    await Authentication(credentials, address, api_fields).complete(sender, hello)


def _mechanism(credentials: MongoCredential, hello: Mapping[str, Any], context: Any) -> str:
    """Without a given mechanism: SCRAM-SHA-256 if the server names it for this user, else SCRAM-SHA-1."""
    mechanism: str = credentials.mechanism
    if mechanism != _NEGOTIATED:
        return mechanism
    offered = hello.get("saslSupportedMechs") or ()
    begun = context is not None and context.speculate_succeeded()
    return "SCRAM-SHA-256" if "SCRAM-SHA-256" in offered or begun else "SCRAM-SHA-1"


def _fitting(context: Any, mechanism: str) -> Any:
    """The speculative start if it was made for the mechanism that is taken."""
    return None if getattr(context, "mechanism", mechanism) != mechanism else context


def _check_password(credentials: MongoCredential, mechanism: str) -> None:
    """RFC 4013: not every character may stand in a SCRAM-SHA-256 password."""
    if mechanism == "SCRAM-SHA-256":
        try:
            saslprep(credentials.password)
        except ValueError as error:
            raise ConfigurationError(f"the password cannot be used with SCRAM-SHA-256: {error}") from None
