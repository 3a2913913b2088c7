"""Tests of the books that a pool keeps on its connections."""

from __future__ import annotations

from bson.objectid import ObjectId
from pymongo.monitoring import ConnectionClosedReason
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.wires import Recorder
from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.events import publisher_for
from txmongo._cmap.generations import Generations
from txmongo._cmap.roster import Roster
from txmongo.errors import AutoReconnect
from txmongo.protocol import MongoProtocol

ADDRESS = ("h", 27017)


class RosterTests(SynchronousTestCase):
    """The life of a connection, as its pool puts it down."""

    def setUp(self) -> None:
        self.recorder = Recorder()
        self.generations = Generations()
        self.roster = Roster(Clock(), self.generations, publisher_for([self.recorder], ADDRESS))

    def add(self, service_id: ObjectId | None = None) -> Connection:
        """A connection that was just opened."""
        protocol = MongoProtocol()
        protocol.makeConnection(StringTransport())
        description = StreamDescription(service_id=service_id)
        connection = Connection(1, ADDRESS, 0, protocol, description, created_at=0.0, now=0.0)
        self.roster.add(connection)
        return connection

    def closed(self, connection: Connection) -> bool:
        """Whether its socket is being closed, and its socket gone from then on."""
        transport = connection.protocol.transport
        assert isinstance(transport, StringTransport)
        if transport.disconnecting:
            connection.protocol.connectionLost(Failure(ConnectionDone()))
            self.roster.gone(connection)
        return transport.disconnecting

    def test_idle(self) -> None:
        """A connection that is not in use is closed when it is retired, and the listeners hear of it and why."""
        kept, retired = self.add(), self.add()
        self.roster.idle.extend([kept, retired])
        self.roster.retire(retired, ConnectionClosedReason.IDLE)
        self.assertEqual((self.roster.usable, self.roster.idle, list(self.roster)), ([kept], [kept], [kept]))
        self.assertFalse(retired.open)
        self.assertTrue(self.closed(retired))
        self.assertFalse(self.closed(kept))
        self.assertEqual([event.reason for _, event in self.recorder.events], [ConnectionClosedReason.IDLE])

    def test_in_use(self) -> None:
        """A connection in use counts until it comes back, and is closed only then, once."""
        connection, request = self.add(), CheckOut("find")
        connection.in_flight[request] = None
        self.roster.retire(connection, ConnectionClosedReason.STALE)
        self.roster.close_drained(connection)
        self.assertEqual((self.roster.usable, list(self.roster), len(self.roster)), ([], [connection], 1))
        self.assertEqual(self.recorder.events, [])
        self.assertFalse(self.closed(connection))
        del connection.in_flight[request]
        for _ in range(2):
            self.roster.close_drained(connection)
        self.assertEqual(list(self.roster), [])
        self.assertTrue(self.closed(connection))
        self.assertEqual([event.reason for _, event in self.recorder.events], [ConnectionClosedReason.STALE])

    def test_aborted(self) -> None:
        """Those that are in use though they were retired can be closed at once, of one service or of all."""
        service_id = ObjectId()
        kept, of_pool, of_service = self.add(), self.add(), self.add(service_id)
        for connection in (kept, of_pool, of_service):
            connection.in_flight[CheckOut("find")] = None
        for connection in (of_pool, of_service):
            self.roster.retire(connection, ConnectionClosedReason.STALE)
        self.roster.abort_draining(AutoReconnect("cleared"), service_id)
        self.assertEqual([self.closed(each) for each in (kept, of_pool, of_service)], [False, False, True])
        self.roster.abort_draining(AutoReconnect("closed"))
        self.assertEqual([self.closed(each) for each in (kept, of_pool)], [False, True])

    def test_services(self) -> None:
        """A connection belongs to the generation of its service, which is forgotten with its last connection."""
        service_id = ObjectId()
        first = self.add(service_id)
        self.generations.end(service_id)
        second = self.add(service_id)
        self.assertEqual((first.generation, second.generation), (0, 1))
        self.roster.retire(first, ConnectionClosedReason.STALE)
        self.assertEqual(self.generations.current(service_id), 1)
        self.roster.retire(second, ConnectionClosedReason.STALE)
        self.assertEqual(self.generations.current(service_id), 0)

    def test_wait(self) -> None:
        """Waiting ends when the last socket is gone."""
        connection = self.add()
        self.roster.retire(connection, ConnectionClosedReason.POOL_CLOSED)
        waiting = self.roster.wait()
        self.assertNoResult(waiting)
        self.assertTrue(self.closed(connection))
        self.assertIsNone(self.successResultOf(waiting))
