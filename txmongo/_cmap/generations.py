"""Which connections are current: "Clearing a Connection Pool" and "Load Balancer Mode" of the CMAP specification.

A connection belongs to the generation of the pool, or behind a load balancer of its service, in which it was opened.
It is stale once that generation is over.
"""

from __future__ import annotations

import attrs
from bson.objectid import ObjectId

__all__ = ["Generations"]


@attrs.define
class _Service:
    generation: int = 0
    connections: int = 0


class Generations:
    """Counts the generations of a pool and of the services behind a load balancer.

    :ivar pool: that of connections without a service.
    """

    def __init__(self) -> None:
        self.pool = 0
        self._services: dict[ObjectId, _Service] = {}

    def current(self, service_id: ObjectId | None) -> int:
        """The generation of a service, of which nothing is remembered without connections; for ``None`` the pool's."""
        if service_id is None:
            return self.pool
        service = self._services.get(service_id)
        return 0 if service is None else service.generation

    def end(self, service_id: ObjectId | None) -> None:
        """Make all connections of a service stale; for ``None`` those of the pool."""
        if service_id is None:
            self.pool += 1
        elif service_id in self._services:
            self._services[service_id].generation += 1

    def opened(self, service_id: ObjectId) -> int:
        """A connection to a service was opened; returns its generation."""
        service = self._services.setdefault(service_id, _Service())
        service.connections += 1
        return service.generation

    def closed(self, service_id: ObjectId) -> None:
        """A connection to a service was closed; with the last one the service is forgotten."""
        service = self._services[service_id]
        service.connections -= 1
        if not service.connections:
            del self._services[service_id]
