"""The errors of the pool itself: "Connection Pool Errors" of the CMAP specification.

Each carries the specification's ``message`` and ``address``. What a connection attempt failed with is not here: one who
waits gets the connector's own error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from txmongo._cmap.endpoints import address_text
from txmongo.errors import AutoReconnect, InvalidOperation, WaitQueueTimeoutError
from txmongo.types import Address

__all__ = ["CheckOutTimeoutError", "PinnedConnections", "PoolClearedError", "PoolClosedError", "WaitQueueFullError"]


class PoolClosedError(InvalidOperation):
    """A connection was wanted from a closed pool: its client was disconnected, or its server left the topology."""

    def __init__(self, address: Address) -> None:
        self.message = "Attempted to check out a connection from closed connection pool"
        self.address = address
        super().__init__(f"{self.message} for {address_text(address)}")


class PoolClearedError(AutoReconnect):
    """The pool was cleared while an operation waited for a connection, before it came, or while it used one.

    It may be retried, and says nothing new about the server.

    :ivar cause: the error of the other operation that made the pool be cleared, if it is known.
    """

    cause: BaseException | None = None

    def __init__(
        self,
        message: str = "",
        errors: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        address: Address | None = None,
    ) -> None:
        super().__init__(message, errors)
        self.message = message
        self.address = address

    @classmethod
    def waiting(cls, address: Address, cause: BaseException | None) -> PoolClearedError:
        """For one who waited for a connection when the pool was cleared because of ``cause``, or came after that."""
        reason = "the server is not known to be usable" if cause is None else str(cause)
        error = cls(
            f"Connection pool for {address_text(address)} was cleared because another operation failed with: {reason}",
            address=address,
        )
        error.cause = error.__cause__ = cause
        return error

    @classmethod
    def interrupted(cls, address: Address) -> PoolClearedError:
        """For one whose connection was cut because the server does not answer its monitor."""
        return cls(f"Connection to {address_text(address)} interrupted due to server monitor timeout", address=address)


@attrs.frozen(kw_only=True)
class PinnedConnections:
    """How many connections to a load balancer are kept, and for whom."""

    cursors: int
    transactions: int


class CheckOutTimeoutError(WaitQueueTimeoutError):
    """No connection came free in time."""

    def __init__(
        self,
        address: Address,
        *,
        max_pool_size: int,
        in_use: int,
        opening: int,
        waiting: int,
        pinned: PinnedConnections | None = None,
    ) -> None:
        """
        :param pinned: of those in use; ``None`` where none ever is.
        """
        self.message = "Timed out while checking out a connection from connection pool"
        self.address = address
        if pinned is None:
            used = f"connections to {address_text(address)} in use: {in_use}"
        else:
            others = in_use - pinned.cursors - pinned.transactions
            used = (
                f"connections in use by cursors: {pinned.cursors}, connections in use by transactions: "
                f"{pinned.transactions}, connections in use by other operations: {others}"
            )
        super().__init__(
            f"{self.message}. maxPoolSize: {max_pool_size}, {used}, opening: {opening}, operations still waiting: "
            f"{waiting}"
        )


class WaitQueueFullError(WaitQueueTimeoutError):
    """As many operations of the client wait as ``waitQueueSize`` allows; this one was refused at once."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"as many operations as waitQueueSize allows ({size}) already wait for a server or a connection"
        )
