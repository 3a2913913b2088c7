"""Clients whose servers are scripted and whose network and clock are in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo.connection import ConnectionPool
from txmongo.testing import FakeServer

#: What the two members of a replica set answer.
MEMBER = {"setName": "rs", "hosts": ["a.example:27017", "b.example:27017"], "setVersion": 1}
PRIMARY = {**MEMBER, "me": "a.example:27017", "isWritablePrimary": True, "secondary": False}
SECONDARY = {**MEMBER, "me": "b.example:27017", "isWritablePrimary": False, "ismaster": False, "secondary": True}
#: What the one member of a replica set that has sessions answers to hello.
SET_OF_ONE = {
    **PRIMARY,
    "hosts": ["fake.example:27017"],
    "me": "fake.example:27017",
    "logicalSessionTimeoutMinutes": 30,
}


class ClientCase(SynchronousTestCase):
    """Clients of scripted servers, by host name."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer()
        self.servers = {"fake.example": self.server}
        self.clients: list[ConnectionPool[Any]] = []

    def tearDown(self) -> None:
        """Every client is disconnected in the end, and then no delayed call is left."""
        disconnected = [client.disconnect() for client in self.clients]
        self.turn()
        for each in disconnected:
            self.successResultOf(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def client(self, uri: str = "mongodb://fake.example", *args: Any, **options: Any) -> ConnectionPool[Any]:
        """A client whose connections are in memory."""
        client: ConnectionPool[Any] = ConnectionPool(
            uri,
            *args,
            reactor=self.clock,
            endpoint_for=lambda address: self.servers[address[0]].endpoint(self.clock),
            **options,
        )
        self.clients.append(client)
        return client

    def turn(self) -> None:
        """Let what is on its way arrive, several times there and back."""
        for _ in range(40):
            self.clock.advance(0)

    def started(self, deferred: Deferred[Any]) -> Deferred[Any]:
        """The same Deferred, after what comes without time passing."""
        self.turn()
        return deferred

    def result(self, deferred: Any) -> Any:
        """The result that comes without time passing."""
        deferred = Deferred.fromCoroutine(awaited(deferred))
        self.turn()
        return self.successResultOf(deferred)

    def set_of_two(self) -> ConnectionPool[Any]:
        """A client of a replica set with a primary and a secondary."""
        self.servers.update({"a.example": FakeServer(hello=PRIMARY), "b.example": FakeServer(hello=SECONDARY)})
        return self.client("mongodb://a.example,b.example/?replicaSet=rs")


async def awaited(awaitable: Any) -> Any:
    """What comes of something that may be awaited and is no Deferred itself."""
    return await awaitable
