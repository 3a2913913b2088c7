"""How long a server takes for each kind of request: learned from when requests were sent and their replies received.

What this process and the network add is taken off, as far as it is known. What the pool does with the times is decided
in :mod:`txmongo._cmap.choice`.
"""

from __future__ import annotations

from typing import Protocol

from txmongo._cmap.choice import next_average
from txmongo._cmap.connection import CheckOut, Connection

__all__ = ["ServiceTimes"]


class Delays(Protocol):
    """What is not the server's time.

    :ivar rtt: seconds for the way to the server and back.
    :ivar lag: seconds until this process comes round to a socket.
    """

    rtt: float
    lag: float


class ServiceTimes:
    """Moving averages.

    :ivar averages: seconds for each service class of which there was a reply.
    """

    def __init__(self, delays: Delays) -> None:
        self.averages: dict[str, float] = {}
        self._delays = delays

    def learn(self, request: CheckOut, connection: Connection) -> bool:
        """Learn from how long the server took for a request; returns whether there was a reply at all.

        What this process needs to come round to a socket is not the server's time. Counted as that, it would make the
        pool open ever more connections, with which the process comes round ever more slowly.
        """
        received = connection.protocol.last_received_at
        if received <= request.started_at:
            return False
        begun = connection.busy_since + self._delays.lag
        if request.started_at >= connection.busy_since:
            # Nothing was before it: the way there and back is not the server's time either.
            begun += self._delays.rtt
        connection.busy_since = received
        averages = self.averages
        service_class = request.service_class
        averages[service_class] = next_average(averages.get(service_class), received - begun)
        return True
