"""Authentication of one connection.

Lives here: which mechanism is taken and what it is driven with. The conversations themselves are PyMongo's coroutines
(SCRAM with its iteration floor and its comparison in constant time, X.509, PLAIN), which await commands sent through
:class:`_Conversation`, as Deferreds. Kept: the Authentication specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pymongo.errors import ConfigurationError, OperationFailure, ProtocolError, PyMongoError
from twisted.internet.defer import CancelledError, Deferred

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
    "AuthenticationFailed",
    "CommandSender",
    "MongoAuthenticationError",
    "authenticate",
    "authenticate_user",
    "check_mechanism",
    "make_credentials",
    "speculative_context",
]

_SUPPORTED = ("SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509", "PLAIN")
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
    if mechanism not in (_NEGOTIATED, *_SUPPORTED):
        raise MongoAuthenticationError(f"mechanism {mechanism!r} is not known; known are {', '.join(_SUPPORTED)}")
    without_user = mechanism == "MONGODB-X509"
    for name, part in (("username", username), ("password", password)):
        if not isinstance(part, str) and not (part is None and without_user):
            raise TypeError(f"{name} must be a str, not {type(part).__name__}")
    source = None if without_user else database
    return build_credentials(mechanism, source, username or None, password or None, {}, database)


def speculative_context(credentials: MongoCredential | None, address: Any) -> Any:
    """What starts authentication within the handshake, or ``None`` if the mechanism has no such start.

    Its ``speculate_command()`` gives the command, ``speculative_authenticate`` takes the answer.
    """
    if credentials is None:
        return None
    # PyMongo only keeps the address; that of a UNIX socket has no port, which its types do not allow.
    if credentials.mechanism == "MONGODB-X509":
        return X509Context(credentials, address)
    mechanism = "SCRAM-SHA-256" if credentials.mechanism == _NEGOTIATED else credentials.mechanism
    return ScramContext(credentials, address, mechanism) if mechanism.startswith("SCRAM-") else None


async def authenticate(
    sender: CommandSender,
    credentials: MongoCredential,
    hello: Mapping[str, Any],
    context: Any,
    address: Address | None,
    api_fields: Mapping[str, Any] = _NO_FIELDS,
) -> None:
    """Authenticate a connection.

    :param sender: sends the commands.
    :param hello: the reply to the greeting, which names the mechanisms of the user.
    :param context: what :func:`speculative_context` gave before the greeting.
    :param api_fields: what the Stable API adds to each command.
    :raises AuthenticationFailed: code 18 if the server does not know the user or the password is another.
    :raises ConfigurationError: the password cannot be used with the mechanism.
    :raises ProtocolError: the server did not keep to the conversation.
    """
    if context is not None:
        context.speculative_authenticate = hello.get("speculativeAuthenticate")
    mechanism = _mechanism(credentials, hello, context)
    conversation = _Conversation(sender, address, _fitting(context, mechanism), api_fields)
    _check_password(credentials, mechanism)
    try:
        if mechanism == "MONGODB-X509":
            await authenticate_x509(credentials, conversation)  # type: ignore[arg-type]
        elif mechanism == "PLAIN":
            await authenticate_plain(credentials, conversation)  # type: ignore[arg-type]
        else:
            await authenticate_scram(credentials, conversation, mechanism)  # type: ignore[arg-type]
    except OperationFailure as error:
        raise AuthenticationFailed(_said(error), error.code, error.details) from None
    except (PyMongoError, CancelledError):
        raise
    except Exception as error:
        # What the coroutines make of an answer that misses a field or is no base64; its text may quote the answer.
        raise ProtocolError(f"the server did not keep to {mechanism} ({type(error).__name__})") from None


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

    Errors and further parameters are those of :func:`authenticate`.
    """
    hello: Mapping[str, Any] = {}
    if credentials.mechanism == _NEGOTIATED:
        greeting = {"hello": 1} if api_fields else {"isMaster": 1}
        user = f"{credentials.source}.{credentials.username}"
        hello = await sender.command("admin", {**greeting, **api_fields, "saslSupportedMechs": user})
    await authenticate(sender, credentials, hello, None, address, api_fields)


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
