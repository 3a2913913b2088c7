"""MONGODB-AWS: keys of AWS IAM, and the proof that one has them: a request to AWS, signed and never sent.

Lives here: where the keys come from, the two messages of the conversation, and Signature Version 4. Kept: the
Authentication specification, "MONGODB-AWS". Nothing here waits for AWS but botocore, in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import attrs
import bson
from pymongo.errors import ConfigurationError, ProtocolError
from twisted.internet.defer import CancelledError

from txmongo._pymongo import MongoCredential
from txmongo._threads import in_thread

__all__ = ["AWSKeys", "KeySource", "KeysNotFound", "SignedRequest", "first_message", "second_message"]

NONCE_SIZE = 32
_MAX_HOST = 255
_BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
_DEFAULT_REGION = "us-east-1"
_FROM_LIBRARY = "the profile files, a web identity, ECS and EC2"


class KeysNotFound(ConfigurationError):
    """No keys were found, or botocore could not get them."""


@attrs.frozen
class AWSKeys:
    """Who one is to AWS.

    :ivar access_key: the access key's id.
    :ivar secret_key: its secret.
    :ivar session_token: that belongs to temporary keys.
    """

    access_key: str
    secret_key: str = attrs.field(repr=False)
    session_token: str | None = attrs.field(default=None, repr=False)


class KeySource:
    """Where a client's keys come from, in the specification's order; asked for each connection anew.

    :param credentials: of the mechanism MONGODB-AWS; ``None`` to look into the environment alone.
    :param reactor: whose threads botocore is called in.
    :param user: who wants them, for errors.
    :param given: where else they could have been given, for errors.
    """

    def __init__(
        self,
        credentials: MongoCredential | None,
        reactor: Any,
        user: str = "MONGODB-AWS",
        given: str = "the connection string",
    ) -> None:
        self._credentials = credentials
        self._reactor = reactor
        self._user = user
        self._given = given
        #: botocore's, which keep the keys and renew them before they are void.
        self._found: Any = None

    async def keys(self) -> AWSKeys:
        """The keys as they are now.

        :raises ConfigurationError: there are none.
        """
        given = self._credentials
        if given is not None and given.username and given.password:
            return AWSKeys(given.username, given.password, given.mechanism_properties.aws_session_token)
        if self._found is None:
            keys = self._from_environment(os.environ)
            if keys is not None:
                return keys
        try:
            return await in_thread(self._reactor, self._from_library)
        except (CancelledError, ConfigurationError):
            raise
        except Exception as error:
            # Its text is the library's, and may quote what a service answered.
            raise KeysNotFound(f"{self._user}: botocore could not get keys ({type(error).__name__})") from error

    def _from_environment(self, environment: Mapping[str, str]) -> AWSKeys | None:
        """Keys that stand in the environment, which another part of the application may have changed.

        :raises ConfigurationError: only a part of them is there.
        """
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        access_key, secret_key = (environment.get(name) for name in names)
        token = environment.get("AWS_SESSION_TOKEN")
        if access_key and secret_key:
            return AWSKeys(access_key, secret_key, token or None)
        if access_key or secret_key or token:
            missing = [name for name in names if not environment.get(name)]
            raise KeysNotFound(f"{self._user}: {' and '.join(missing)} missing in the environment")
        return None

    def forget(self) -> None:
        """The server did not accept the keys: have them found again."""
        self._found = None

    def _from_library(self) -> AWSKeys:
        """What botocore finds or has; it may ask services of AWS, and waits for their answers."""
        found = self._found
        if found is None:
            try:
                # Not imported above: whoever has botocore for other reasons would wait for it at every start.
                session = import_module("botocore.session")
            except ImportError:
                raise KeysNotFound(
                    f"{self._user}: {self._given} has no keys, nor have the environment variables "
                    f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for {_FROM_LIBRARY} install txmongo[aws]"
                ) from None
            found = session.get_session().get_credentials()
        if found is None:
            raise KeysNotFound(
                f"{self._user}: keys are neither in {self._given}, nor in the environment variables "
                f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, nor had from {_FROM_LIBRARY}"
            )
        frozen = found.get_frozen_credentials()
        self._found = found
        return AWSKeys(frozen.access_key, frozen.secret_key, frozen.token)


# --- the conversation ---


def first_message(nonce: bytes) -> bytes:
    """What the client says first.

    :param nonce: 32 random bytes.
    """
    return bson.encode({"r": nonce, "p": ord("n")})


def second_message(nonce: bytes, answer: bytes, keys: AWSKeys, now: datetime) -> bytes:
    """What the client answers to the server's first message.

    :param nonce: that of :func:`first_message`.
    :param answer: the server's payload.
    :param now: the time, in UTC.
    :raises ProtocolError: the server's nonce or host is not as it must be.
    """
    said: dict[str, Any] = bson.decode(answer)
    server_nonce, host = said["s"], said["h"]
    if len(server_nonce) != 2 * NONCE_SIZE or not hmac.compare_digest(bytes(server_nonce[:NONCE_SIZE]), nonce):
        raise ProtocolError("the server did not keep to MONGODB-AWS: its nonce is not made of the client's")
    headers = {
        "Content-Length": str(len(_BODY)),
        "Content-Type": "application/x-www-form-urlencoded",
        "Host": host,
        "X-Amz-Date": now.strftime("%Y%m%dT%H%M%SZ"),
        "X-MongoDB-GS2-CB-Flag": "n",
        "X-MongoDB-Server-Nonce": base64.b64encode(server_nonce).decode(),
    }
    if keys.session_token is not None:
        headers["X-Amz-Security-Token"] = keys.session_token
    request = SignedRequest("POST", "/", headers, _BODY, region_of(host), "sts")
    message = {"a": request.authorization(keys), "d": headers["X-Amz-Date"]}
    if keys.session_token is not None:
        message["t"] = keys.session_token
    return bson.encode(message)


def region_of(host: Any) -> str:
    """The region in a host's name: "Region Calculation".

    :raises ProtocolError: it is no name of a host.
    """
    if not isinstance(host, str) or not 0 < len(host.encode()) <= _MAX_HOST or "" in host.split("."):
        raise ProtocolError("the server did not keep to MONGODB-AWS: it names no host of AWS")
    labels = host.split(".")
    if host in ("sts.amazonaws.com", "aws.amazonaws.com") or len(labels) == 1:
        return _DEFAULT_REGION
    return labels[1]


def utc_now() -> datetime:
    """The time of day, which AWS compares with its own."""
    return datetime.now(UTC)


# --- Signature Version 4 ---


@attrs.frozen
class SignedRequest:
    """A request over HTTP as AWS signs it, all of its headers included; without a query.

    :ivar headers: ``X-Amz-Date`` must be one of them.
    :ivar region: of the service that it would go to.
    :ivar service: its name, such as ``sts``.
    """

    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes
    region: str
    service: str

    def authorization(self, keys: AWSKeys) -> str:
        """The value of the header ``Authorization``."""
        return (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{self._scope()}, "
            f"SignedHeaders={self._signed_headers()}, Signature={self._signature(keys)}"
        )

    def _lower(self) -> dict[str, str]:
        return {name.lower(): value for name, value in sorted(self.headers.items(), key=lambda item: item[0].lower())}

    def _signed_headers(self) -> str:
        return ";".join(self._lower())

    def _scope(self) -> str:
        return f"{self._lower()['x-amz-date'][:8]}/{self.region}/{self.service}/aws4_request"

    def _canonical(self) -> str:
        headers = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in self._lower().items())
        return "\n".join((self.method, self.path, "", headers, self._signed_headers(), _hash(self.body)))

    def _signature(self, keys: AWSKeys) -> str:
        key = b"AWS4" + keys.secret_key.encode()
        for part in self._scope().split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        to_sign = "\n".join(
            ("AWS4-HMAC-SHA256", self._lower()["x-amz-date"], self._scope(), _hash(self._canonical().encode()))
        )
        return hmac.digest(key, to_sign.encode(), "sha256").hex()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
