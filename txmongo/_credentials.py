"""Whom a client authenticates as: what each mechanism wants to be given and what it does not take.

Lives here: the checks of a client's options, at the call. The value that comes out is PyMongo's. Kept: the
Authentication specification, "MongoCredential Properties" of each mechanism, where PyMongo does not see to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.errors import ConfigurationError

from txmongo._pymongo import MongoCredential, build_credentials

__all__ = ["client_credentials"]

#: The properties of the mechanisms that refuse those of others.
_PROPERTIES = {"MONGODB-AWS": {"AWS_SESSION_TOKEN"}}
#: Mechanisms that can do without a name.
_NAMELESS = ("MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC")


def client_credentials(
    mechanism: str,
    *,
    username: str | None,
    password: str | None,
    source: str | None,
    database: str | None,
    options: Mapping[str, Any],
) -> MongoCredential:
    """Whom a client authenticates as.

    :param source: ``authSource``.
    :param database: of the connection string.
    :param options: all of the client's, under lower-case names; those of the mechanism are looked at.
    :raises ConfigurationError: an argument is missing, or does not belong to the mechanism.
    :raises ValueError: the source does not belong to the mechanism.
    """
    if not username and mechanism not in _NAMELESS:
        raise ConfigurationError(f"{mechanism} requires a username")
    properties = options.get("authmechanismproperties") or {}
    foreign = sorted(set(properties) - _PROPERTIES.get(mechanism, set(properties)))
    if foreign:
        raise ConfigurationError(
            f"authMechanismProperties: {', '.join(foreign)} cannot be given with authMechanism {mechanism}"
        )
    if mechanism == "MONGODB-AWS":
        _check_aws(username, password, properties)
    return build_credentials(mechanism, source, username or None, password or None, options, database)


def _check_aws(username: str | None, password: str | None, properties: Mapping[str, Any]) -> None:
    """All of the keys are given, or none: "Obtaining Credentials"."""
    if username and password:
        return
    if username or password:
        missing = "password" if username else "username"
        raise ConfigurationError(f"{missing} is missing: MONGODB-AWS takes both, the access key's id and its secret")
    if "AWS_SESSION_TOKEN" in properties:
        raise ConfigurationError(
            "authMechanismProperties: AWS_SESSION_TOKEN belongs to keys, so that username and password are missing"
        )
