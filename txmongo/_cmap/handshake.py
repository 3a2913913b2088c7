"""What is said first on a connection, and what is made of the answer: the MongoDB handshake without the connection.

Lives here: the client's metadata, the first ``hello`` with all it asks for (compression, the start of authentication),
and the reading of its reply. Sending it is :mod:`txmongo._cmap.connector`'s; the rest of authentication is
:mod:`txmongo._auth`'s. Kept: the MongoDB Handshake, OP_COMPRESSED, Stable API and Load Balancer specifications.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import bson
import pymongo
import twisted
from pymongo import common
from pymongo.driver_info import DriverInfo
from pymongo.errors import ConfigurationError
from pymongo.server_api import ServerApi

from txmongo._pymongo import CLIENT_METADATA, metadata_env
from txmongo._settings import ClientSettings
from txmongo._version import __version__
from txmongo._wire.op_compressed import compressor_named

__all__ = [
    "MIN_WIRE_VERSION",
    "Hello",
    "agreed_compressor",
    "check_hello",
    "client_metadata",
    "first_hello",
    "server_api_fields",
]

#: The oldest server that the driver speaks to.
MIN_WIRE_VERSION = 9
MIN_SERVER_VERSION = "4.4"

MAX_METADATA_SIZE = 512

#: The version of the client backpressure specification that the driver keeps: handshake specification.
BACKPRESSURE = "2"

_PLATFORM = f"{CLIENT_METADATA['platform']} / Twisted {twisted.__version__} / PyMongo {pymongo.version}"


@attrs.frozen
class Hello:
    """The first command on a connection.

    :ivar command: what is sent, to the database ``admin``.
    :ivar legacy: whether it goes out as OP_QUERY, which every server understands.
    """

    command: Mapping[str, Any]
    legacy: bool


def first_hello(
    settings: ClientSettings, metadata: Mapping[str, Any], speculative: Mapping[str, Any] | None, *, monitor: bool
) -> Hello:
    """The greeting of a new connection.

    :param metadata: what :func:`client_metadata` gave.
    :param speculative: the first command of the authentication, if it may be sent along.
    :param monitor: for a monitor's connection, which neither authenticates nor compresses.
    """
    modern = settings.server_api is not None or settings.load_balanced
    command: dict[str, Any] = {"hello": 1} if modern else {"isMaster": 1, "helloOk": True}
    command |= server_api_fields(settings.server_api)
    if settings.load_balanced:
        command["loadBalanced"] = True
    command["client"] = metadata
    command["backpressure"] = BACKPRESSURE
    if not monitor:
        offered = _offered_compressors(settings)
        if offered:
            command["compression"] = offered
        credentials = settings.credentials
        if credentials is not None and credentials.mechanism == "DEFAULT":
            command["saslSupportedMechs"] = f"{credentials.source}.{credentials.username}"
        if speculative is not None:
            command["speculativeAuthenticate"] = speculative
    return Hello(command, not modern)


def check_hello(reply: Mapping[str, Any], server: str, *, load_balanced: bool) -> None:
    """Refuse a server that the driver cannot work with.

    :param reply: its answer to the greeting, with ``ok: 1``.
    :param server: its address, for the error.
    :raises ConfigurationError: its versions have none in common with the driver's; or it is no load-balanced service
        although the client was told so.
    """
    lowest = reply.get("minWireVersion", 0)
    highest = reply.get("maxWireVersion", 0)
    if highest < MIN_WIRE_VERSION:
        raise ConfigurationError(
            f"Server at {server} reports wire version {highest}, but this version of txmongo requires at least "
            f"{MIN_WIRE_VERSION} (MongoDB {MIN_SERVER_VERSION})."
        )
    if lowest > common.MAX_SUPPORTED_WIRE_VERSION:
        raise ConfigurationError(
            f"Server at {server} requires wire version {lowest}, but this version of txmongo only supports up to "
            f"{common.MAX_SUPPORTED_WIRE_VERSION}."
        )
    if load_balanced and not reply.get("serviceId"):
        raise ConfigurationError(
            "Driver attempted to initialize in load balancing mode, but the server does not support this mode "
            f"({server})"
        )


def agreed_compressor(settings: ClientSettings, reply: Mapping[str, Any]) -> str | None:
    """The first compressor of ours that the server also named, or ``None``."""
    theirs = reply.get("compression") or ()
    return next((name for name in _offered_compressors(settings) if name in theirs), None)


def server_api_fields(api: ServerApi | None) -> dict[str, Any]:
    """What the Stable API adds to a command."""
    if api is None:
        return {}
    fields: dict[str, Any] = {"apiVersion": api.version}
    if api.strict is not None:
        fields["apiStrict"] = api.strict
    if api.deprecation_errors is not None:
        fields["apiDeprecationErrors"] = api.deprecation_errors
    return fields


def _offered_compressors(settings: ClientSettings) -> list[str]:
    return [name for name in settings.compressors if compressor_named(name) is not None]


def client_metadata(app_name: str | None, wrappers: Iterable[DriverInfo]) -> dict[str, Any]:
    """Who the client is, for the server's log: at most 512 bytes of BSON.

    :param app_name: the application's name for itself.
    :param wrappers: libraries around the driver, which are named after it.
    :raises ValueError: a wrapper's name, version or platform contains the delimiter ``|``.
    """
    kept = list(dict.fromkeys(wrappers))
    for wrapper in kept:
        if any("|" in part for part in wrapper if part):
            raise ValueError(f"driver: the '|' in {tuple(wrapper)} is reserved")
    metadata = _fitting(_whole_metadata(app_name, kept))
    while kept and _excess(metadata):
        # The specification stops before this: only wrappers with very long names get here. The last one goes first.
        kept.pop()
        metadata = _fitting(_whole_metadata(app_name, kept))
    return metadata


def _whole_metadata(app_name: str | None, wrappers: Iterable[DriverInfo]) -> dict[str, Any]:
    """The metadata, however long; what a wrapper does not say of itself leaves no trace."""
    driver = [DriverInfo("txmongo", __version__, _PLATFORM), *wrappers]
    metadata: dict[str, Any] = {} if app_name is None else {"application": {"name": app_name}}
    metadata["driver"] = {
        "name": "|".join(each.name for each in driver if each.name),
        "version": "|".join(each.version for each in driver if each.version),
    }
    metadata["os"] = dict(CLIENT_METADATA["os"])
    metadata["platform"] = "|".join(each.platform for each in driver if each.platform)
    environment = metadata_env()
    if environment:
        metadata["env"] = environment
    return metadata


def _fitting(metadata: dict[str, Any]) -> dict[str, Any]:
    """Shorten the metadata step by step, in the specification's order, until it fits if it can."""
    if _excess(metadata) and "name" in metadata.get("env", {}):
        metadata["env"] = {"name": metadata["env"]["name"]}
    if _excess(metadata):
        metadata["os"] = {"type": metadata["os"]["type"]}
    if _excess(metadata):
        metadata.pop("env", None)
    if excess := _excess(metadata):
        metadata["platform"] = _cut(metadata["platform"], excess)
    return metadata


def _excess(metadata: Mapping[str, Any]) -> int:
    return max(0, len(bson.encode(metadata)) - MAX_METADATA_SIZE)


def _cut(text: str, excess: int) -> str:
    """Take bytes off the end of a text, whole characters at a time."""
    encoded = text.encode()
    return encoded[: max(0, len(encoded) - excess)].decode(errors="ignore")
