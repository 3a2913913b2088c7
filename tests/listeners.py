"""Event listeners that tests are made with."""

from __future__ import annotations

from typing import Any

from pymongo import monitoring


class PoolListener(monitoring.ConnectionPoolListener):
    """Hears of everything that happens in pools; a subclass defines the hooks that it wants, or :meth:`heard`."""

    def heard(self, event: Any) -> None:
        """An event came whose own hook is not defined."""

    def _hear(self, event: Any) -> None:
        self.heard(event)

    pool_created = pool_ready = pool_cleared = pool_closed = _hear
    connection_created = connection_ready = connection_closed = _hear
    connection_check_out_started = connection_check_out_failed = _hear
    connection_checked_out = connection_checked_in = _hear
