"""The cluster time that the client has heard of and passes on with every command ("gossip").

Sessions specification, "Gossipping the cluster time". Monitors take no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.timestamp import Timestamp

__all__ = ["ClusterClock", "cluster_timestamp", "later_cluster_time"]


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

    :ivar document: the whole ``$clusterTime`` document, signature included; ``None`` while no server has named one.
    """

    __slots__ = ("_increment", "_seconds", "document")

    def __init__(self) -> None:
        self.document: Mapping[str, Any] | None = None
        self._seconds = -1
        self._increment = -1

    def advance(self, document: Any) -> None:
        """Note the ``$clusterTime`` of a server's reply if it is later than what is known.

        Only to be given what came from a server itself: a wrong time would make every later command fail.
        """
        timestamp = cluster_timestamp(document)
        if timestamp is None:
            return
        seconds = timestamp.time
        if seconds > self._seconds or (seconds == self._seconds and timestamp.inc > self._increment):
            self._seconds = seconds
            self._increment = timestamp.inc
            self.document = document

    def __repr__(self) -> str:
        return "<ClusterClock unset>" if self.document is None else f"<ClusterClock {self._seconds}:{self._increment}>"
