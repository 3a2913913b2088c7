"""Listeners that keep what happens, for the prose tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import monitoring

from tests.listeners import PoolListener

__all__ = ["CommandEvents", "PoolEvents"]


class CommandEvents(monitoring.CommandListener):
    """Keeps the events of commands.

    :ivar on_failed: called with each event of a failed command, ``on_succeeded`` with each of one that succeeded.
    """

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.on_succeeded: Callable[[Any], Any] | None = None
        self.on_failed: Callable[[Any], Any] | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """A command is sent."""
        self.all.append(event)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """It is answered."""
        self.all.append(event)
        if self.on_succeeded is not None:
            self.on_succeeded(event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """It is answered with an error, or not at all."""
        self.all.append(event)
        if self.on_failed is not None:
            self.on_failed(event)

    def of(self, kind: type[Any], name: str = "") -> list[Any]:
        """The events of one class, of all commands or of those of a name."""
        return [event for event in self.all if isinstance(event, kind) and name in ("", event.command_name)]

    def started_commands(self, name: str = "") -> list[Any]:
        """The commands that were sent."""
        return [event.command for event in self.of(monitoring.CommandStartedEvent, name)]


class PoolEvents(PoolListener):
    """Keeps the events of pools."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def heard(self, event: Any) -> None:
        self.all.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one class."""
        return [event for event in self.all if isinstance(event, kind)]
