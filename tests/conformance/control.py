"""A plain connection of the runner's own, for what must not disturb the clients under test.

The unified test format calls it the internal MongoClient. It is none of this driver, so that a fault of the driver
cannot spoil the preparation of a case or the check of its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet import defer, endpoints, protocol

from txmongo._testing.link import CommandFailed, Link

__all__ = ["CommandFailed", "ControlLink"]


class ControlLink(Link):
    """A connection that runs one command at a time and says when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self._closed: defer.Deferred[None] = defer.Deferred()

    @classmethod
    async def open(
        cls, reactor: Any, address: tuple[str, int], credentials: tuple[str, str] | None = None
    ) -> ControlLink:
        """Connect and, if asked to, authenticate."""
        endpoint = endpoints.TCP4ClientEndpoint(reactor, *address, timeout=10)
        link: ControlLink = await endpoints.connectProtocol(endpoint, cls())
        try:
            if credentials is not None:
                await link.authenticate(*credentials)
        except BaseException:
            await link.close()
            raise
        return link

    async def run(self, database: str, command: Mapping[str, Any], *ignored_codes: int) -> dict[str, Any]:
        """The reply to a command; an error with one of some codes gives its reply too."""
        try:
            return await self.command(database, command)
        except CommandFailed as error:
            if error.code not in ignored_codes:
                raise
            return dict(error.reply)

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        super().connectionLost(reason)
        self._closed.callback(None)

    async def close(self) -> None:
        """Close the connection and wait until it is."""
        if not self._closed.called:
            self.transport.abortConnection()  # type: ignore[union-attr]
            await self._closed
