"""What the tests of change streams share."""

from __future__ import annotations

from typing import Any

from tests.integration.prose.events import CommandEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool


class WatchedCase(CollectionTestCase):
    """A collection on a replica set, and a client whose commands are kept with their outcome."""

    on_replica_set = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.client.txmongo_tests.create_collection("things")
        self.events = CommandEvents()
        self.watcher = self.connect()

    def connect(self, uri: str | None = None, **options: Any) -> ConnectionPool[dict[str, Any]]:
        """A client whose commands are kept."""
        client: ConnectionPool[dict[str, Any]] = ConnectionPool(
            uri or self.uri, event_listeners=[self.events], **options
        )
        self.addCleanup(client.disconnect)
        return client

    @property
    def watched(self) -> Any:
        """The collection, of the client whose commands are kept."""
        return self.watcher.txmongo_tests.things
