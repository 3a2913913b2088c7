"""Whom a client authenticates as: what each mechanism wants to be given and what it does not take.

Lives here: the checks of a client's options, at the call. The value that comes out is PyMongo's. Kept: the
Authentication specification, "MongoCredential Properties" of each mechanism, where PyMongo does not see to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.auth_oidc import OIDCCallback
from pymongo.errors import ConfigurationError

from txmongo._oidc_environments import ENVIRONMENTS, WITH_RESOURCE
from txmongo._pymongo import MongoCredential, build_credentials

#: Where a person's token may be shown, if nothing else is said.
ALLOWED_HOSTS = ["*.mongodb.net", "*.mongodb-qa.net", "*.mongodb-dev.net", "*.mongodbgov.net", "*.mongo.com"]
ALLOWED_HOSTS += ["localhost", "127.0.0.1", "::1"]

__all__ = ["client_credentials"]

#: The properties of the mechanisms that refuse those of others.
_PROPERTIES = {
    "GSSAPI": {"CANONICALIZE_HOST_NAME", "SERVICE_HOST", "SERVICE_NAME", "SERVICE_REALM"},
    "MONGODB-AWS": {"AWS_SESSION_TOKEN"},
    "MONGODB-OIDC": {"ALLOWED_HOSTS", "ENVIRONMENT", "OIDC_CALLBACK", "OIDC_HUMAN_CALLBACK", "TOKEN_RESOURCE"},
}
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
    if mechanism == "MONGODB-OIDC":
        _check_oidc(username, password, source, properties)
        if "OIDC_HUMAN_CALLBACK" in properties:
            options = {**options, "authmechanismproperties": {"ALLOWED_HOSTS": ALLOWED_HOSTS, **properties}}
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


def _check_oidc(username: str | None, password: str | None, source: str | None, properties: Mapping[str, Any]) -> None:
    """ "MongoCredential Properties" of MONGODB-OIDC."""
    if password:
        raise ConfigurationError("password cannot be given with authMechanism MONGODB-OIDC")
    if source not in (None, "$external"):
        raise ConfigurationError("authSource must be $external with authMechanism MONGODB-OIDC")
    ways = [name for name in ("ENVIRONMENT", "OIDC_CALLBACK", "OIDC_HUMAN_CALLBACK") if name in properties]
    if len(ways) != 1:
        raise ConfigurationError(
            f"authMechanismProperties: {' and '.join(ways)} cannot be given together"
            if ways
            else "authMechanismProperties: authMechanism MONGODB-OIDC wants one of ENVIRONMENT, OIDC_CALLBACK and "
            "OIDC_HUMAN_CALLBACK"
        )
    if ways[0] != "ENVIRONMENT" and not isinstance(properties[ways[0]], OIDCCallback):
        raise ConfigurationError(f"authMechanismProperties: {ways[0]} must be an OIDCCallback, given by keyword")
    environment = properties.get("ENVIRONMENT")
    if environment is not None and environment not in ENVIRONMENTS:
        raise ConfigurationError(
            f"authMechanismProperties: ENVIRONMENT must be one of {', '.join(ENVIRONMENTS)}, not {environment!r}"
        )
    if environment == "test" and username:
        raise ConfigurationError("username cannot be given with ENVIRONMENT:test of MONGODB-OIDC")
    if ("TOKEN_RESOURCE" in properties) != (environment in WITH_RESOURCE):
        goes = "is missing for" if environment in WITH_RESOURCE else "goes only with"
        raise ConfigurationError(
            f"authMechanismProperties: TOKEN_RESOURCE {goes} ENVIRONMENT {' and '.join(WITH_RESOURCE)}"
        )
    _check_allowed_hosts(properties)


def _check_allowed_hosts(properties: Mapping[str, Any]) -> None:
    if "ALLOWED_HOSTS" not in properties:
        return
    if "OIDC_HUMAN_CALLBACK" not in properties:
        raise ConfigurationError("authMechanismProperties: ALLOWED_HOSTS goes only with OIDC_HUMAN_CALLBACK")
    hosts = properties["ALLOWED_HOSTS"]
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise ConfigurationError("authMechanismProperties: ALLOWED_HOSTS must be a list of str")
    for host in hosts:
        if not host.removeprefix("*.") or "*" in host.removeprefix("*."):
            raise ConfigurationError(
                f"authMechanismProperties: ALLOWED_HOSTS has {host!r}, which is neither a host nor '*.' and a domain"
            )
