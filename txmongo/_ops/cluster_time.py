"""The cluster time that the client has heard of and passes on with every command ("gossip").

Sessions specification, "Gossipping the cluster time". Monitors take no part in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import bson
from bson.timestamp import Timestamp

from txmongo._wire.envelope import elements_of

__all__ = ["ClusterClock", "cluster_timestamp", "later_cluster_time"]

_pack_size = struct.Struct("<i").pack


def cluster_timestamp(document: Any) -> Timestamp | None:
    """The timestamp of a ``$clusterTime`` document; ``None`` if it holds none."""
    timestamp = document.get("clusterTime") if isinstance(document, Mapping) else None
    return timestamp if isinstance(timestamp, Timestamp) else None


def later_cluster_time(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The one of two ``$clusterTime`` documents that is later; either may be missing. Signatures are not compared."""
    if first is None or second is None:
        return first or second
    return second if second["clusterTime"] > first["clusterTime"] else first


class ClusterClock:
    """The highest cluster time that any server of the deployment has named to this client.

    :ivar latest: it as one number: the seconds in the upper half, the increment in the lower one; -1 while none is
        known.
    :ivar element: the ``$clusterTime`` field in BSON as commands carry it; empty while none is known.
    """

    __slots__ = ("_document", "element", "latest")

    def __init__(self) -> None:
        self.latest = -1
        self.element = b""
        self._document: Mapping[str, Any] | None = None

    @property
    def document(self) -> Mapping[str, Any] | None:
        """The whole ``$clusterTime`` document, signature included; ``None`` while no server has named one."""
        if self._document is None and self.element:
            size = len(self.element) + 5
            self._document = bson.decode(_pack_size(size) + self.element + b"\0")["$clusterTime"]
        return self._document

    def take(self, cluster_time: int, element: bytes) -> None:
        """Note a cluster time that is later than :attr:`latest`; the seam of :mod:`txmongo._wire.envelope`."""
        self.latest = cluster_time
        self.element = element
        self._document = None

    def advance(self, document: Any) -> None:
        """Note the ``$clusterTime`` of a server's reply if it is later than what is known.

        Only to be given what came from a server itself: a wrong time would make every later command fail.
        """
        timestamp = cluster_timestamp(document)
        if timestamp is None:
            return
        latest = timestamp.time << 32 | timestamp.inc
        if latest > self.latest:
            self.take(latest, elements_of({"$clusterTime": document}))

    def __repr__(self) -> str:
        if not self.element:
            return "<ClusterClock unset>"
        return f"<ClusterClock {self.latest >> 32}:{self.latest & 0xFFFFFFFF}>"
