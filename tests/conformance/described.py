"""A topology that believes what a test of server selection describes, without ever having checked a server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any

from bson.objectid import ObjectId
from pymongo.hello import Hello
from pymongo.read_preferences import ReadPreference, make_read_preference, read_pref_mode_from_name
from pymongo.server_description import ServerDescription
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from tests.conformance.polled_deployment import PolledDeployment, parse_address
from txmongo._sdam.topology import Topology
from txmongo.types import Address

__all__ = ["addresses", "described_topology", "make_preference"]

_HELLO: dict[str, dict[str, Any]] = {
    "Standalone": {},
    "Mongos": {"msg": "isdbgrid"},
    "RSPrimary": {"setName": "rs", "isWritablePrimary": True},
    "RSSecondary": {"setName": "rs", "secondary": True},
    "RSArbiter": {"setName": "rs", "arbiterOnly": True},
    "RSOther": {"setName": "rs", "hidden": True},
    "RSGhost": {"isreplicaset": True},
    "LoadBalancer": {"serviceId": ObjectId()},
}


def described_topology(document: Mapping[str, Any], **keywords: Any) -> Topology:
    """An open topology that believes the given ``topology_description``.

    :param keywords: options of the client.
    """
    servers = [_describe(server) for server in document["servers"]]
    hosts = ",".join(server["address"] for server in document["servers"]) or "nowhere"
    if document["type"] in ("Single", "LoadBalanced"):
        keywords["directConnection" if document["type"] == "Single" else "loadBalanced"] = True
    topology = PolledDeployment(f"mongodb://{hosts}", **keywords).open()
    # Reproducible choices.
    topology._random = Random(1)
    description = TopologyDescription(
        getattr(TOPOLOGY_TYPE, document["type"]),
        {server.address: server for server in servers},
        "rs" if document["type"].startswith("ReplicaSet") else None,
        None,
        None,
        topology.description._topology_settings,
    )
    topology._replace(description)
    return topology


def _describe(server: Mapping[str, Any]) -> ServerDescription:
    address = parse_address(server["address"])
    if server["type"] in ("Unknown", "PossiblePrimary"):
        return ServerDescription(address)
    hello = {"ok": 1, "minWireVersion": 0, "maxWireVersion": server.get("maxWireVersion", 21), **_HELLO[server["type"]]}
    hello["tags"] = server.get("tags", {})
    if "lastWrite" in server:
        milliseconds = server["lastWrite"]["lastWriteDate"]
        hello["lastWrite"] = {"lastWriteDate": _naive_datetime(milliseconds)}
    description = ServerDescription(address, Hello(hello), round_trip_time=server["avg_rtt_ms"] / 1000)
    if "lastUpdateTime" in server:
        description._last_update_time = server["lastUpdateTime"] / 1000
    return description


def _naive_datetime(milliseconds: int) -> Any:
    """A moment as bson decodes it by default."""
    return datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds)


def make_preference(document: Mapping[str, Any] | None) -> Any:
    """The read preference that a test describes."""
    if not document:
        return ReadPreference.PRIMARY
    mode = document.get("mode", "Primary")
    number = read_pref_mode_from_name(mode[0].lower() + mode[1:])
    tag_sets = document.get("tag_sets")
    if tag_sets in ([], [{}]):
        tag_sets = None
    return make_read_preference(number, tag_sets, document.get("maxStalenessSeconds", -1))


def addresses(servers: list[dict[str, Any]]) -> set[Address]:
    """The addresses of servers that a test lists."""
    return {parse_address(server["address"]) for server in servers}
