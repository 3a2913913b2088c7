"""Connections of the driver without a pool around them, closed with the test."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from txmongo._cmap.connector import Connector
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.endpoints import Endpoints
from txmongo._settings import parse_settings
from txmongo.protocol import MongoProtocol


class LinkTestCase(TestCase):
    """Connects, and leaves nothing behind."""

    timeout = 120

    async def connect(self, uri: str, **keywords: Any) -> tuple[MongoProtocol, StreamDescription]:
        """A connection to the first host of this URI; it is closed when the test is over."""
        settings = parse_settings(uri, **keywords)
        connector = Connector(settings, Endpoints(reactor, settings), reactor)
        protocol, description = await connector.connect(settings.seeds[0])
        self.addCleanup(closed, protocol)
        return protocol, description

    async def failure(self, kind: type[Exception], uri: str, **keywords: Any) -> Any:
        """The error of trying to connect."""
        return await self.assertFailure(defer.Deferred.fromCoroutine(self.connect(uri, **keywords)), kind)

    async def who_am_i(self, uri: str, **keywords: Any) -> list[str]:
        """The users, as ``name@database``, that a connection with this URI is authenticated as."""
        protocol, _ = await self.connect(uri, **keywords)
        status = await protocol.command("admin", {"connectionStatus": 1})
        return [f"{user['user']}@{user['db']}" for user in status["authInfo"]["authenticatedUsers"]]


def closed(protocol: MongoProtocol) -> defer.Deferred[None]:
    """Cut a connection and wait until it is gone."""
    gone: defer.Deferred[None] = defer.Deferred()
    if not protocol.connected:
        return defer.succeed(None)
    protocol.lost_hook = lambda _: gone.callback(None)
    protocol.abort(Exception("the test is over"))
    return gone
