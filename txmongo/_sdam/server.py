"""One server of the topology: where it is, what is known of it, its pool and its monitor. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo.server_description import ServerDescription

from txmongo._sdam.description import format_address

if TYPE_CHECKING:
    from txmongo._cmap.pool import Pool
    from txmongo._sdam.monitor import ServerMonitor
    from txmongo.types import Address

__all__ = ["Server"]


class Server:
    """A server that operations may be sent to.

    :ivar address: host and port by which it is reached.
    :ivar description: what is known of it now; replaced, never changed.
    :ivar pool: its connections.
    :ivar monitor: checks it; ``None`` for a load balancer, which is never checked.
    """

    __slots__ = ("address", "description", "monitor", "pool")

    def __init__(
        self, address: Address, description: ServerDescription, pool: Pool, monitor: ServerMonitor | None
    ) -> None:
        self.address = address
        self.description = description
        self.pool = pool
        self.monitor = monitor

    def request_check(self) -> None:
        """Have it checked as soon as the minimum pause between two checks allows."""
        if self.monitor is not None:
            self.monitor.request_check()

    def __repr__(self) -> str:
        return f"<Server {format_address(self.address)} {self.description.server_type_name}>"
