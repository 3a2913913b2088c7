"""Operations of a client whose replica set changes under them, on real topology and pools in memory."""

from __future__ import annotations

import contextlib
from typing import Any

from bson.objectid import ObjectId
from pymongo.server_type import SERVER_TYPE
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.test_executor import ExecutorTestCase
from tests.unit.ops.wires import Ping, Unbuildable, Wire, Write, member, set_topology
from tests.unit.sdam.fakes import A, B, Connections, primary, secondary
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.errors import PoolClearedError
from txmongo._ops.executor import Executor
from txmongo._settings import parse_settings
from txmongo.errors import AutoReconnect
from txmongo.types import Address

OK = {"ok": 1}
FIRST, SECOND = ObjectId("0" * 23 + "1"), ObjectId("0" * 23 + "2")


class FailoverTests(SynchronousTestCase):
    """A replica set of two; the pools' connections are opened when the test says so."""

    def setUp(self) -> None:
        """A is primary, B follows."""
        self.clock = Clock()
        self.monitors = Connections(self.clock)
        self.connecting: dict[Address, list[Deferred[Any]]] = {A: [], B: []}
        settings = parse_settings(
            "mongodb://a,b/?replicaSet=rs", serverMonitoringMode="poll", heartbeatFrequencyMS=10_000
        )
        self.topology = set_topology(settings, self.clock, self.monitors, self.connect)
        self.executor = Executor(self.topology, settings, self.clock)
        self.addCleanup(self.topology.close)
        self.topology.open()
        self.monitors.open(A, member(primary(), electionId=FIRST))
        self.monitors.open(B, member(secondary()))

    def connect(self, address: Address) -> Deferred[Any]:
        """A connection of a pool is wanted."""
        self.connecting[address].append(Deferred(lambda _: None))
        return self.connecting[address][-1]

    def open(self, address: Address) -> Wire:
        """Let the oldest attempt to connect succeed."""
        wire = Wire()
        wire.protocol.seconds = self.clock.seconds
        description = StreamDescription(
            max_wire_version=17, server_type=SERVER_TYPE.RSPrimary, logical_session_timeout_minutes=30
        )
        self.connecting[address].pop(0).callback((wire.protocol, description))
        return wire

    def elect(self, address: Address) -> None:
        """The monitor of a member hears that it is primary."""
        self.clock.advance(10)
        self.monitors.protocols[address][0].answer(member(primary(), electionId=SECOND))

    def write(self) -> Deferred[Any]:
        """Begin a write."""
        return self.executor.execute(Write("test"))

    def warm_up(self) -> Wire:
        """Have a connection to A at hand: the Deferred of what comes next is that of its reply."""
        done = self.write()
        wire = self.open(A)
        wire.read()
        wire.answer(OK)
        self.successResultOf(done)
        return wire

    def test_lost_in_flight(self) -> None:
        """A write whose connection was lost is sent to the next primary under the same session and number."""
        done = self.write()
        wire = self.open(A)
        [sent] = wire.read()
        wire.lose()
        self.assertNoResult(done)
        self.elect(B)
        wire = self.open(B)
        [again] = wire.read()
        self.assertEqual((sent["lsid"], sent["txnNumber"]), (again["lsid"], again["txnNumber"]))
        wire.answer(OK)
        self.assertEqual(self.successResultOf(done)[1], B)

    def test_waiting_for_connection(self) -> None:
        """A write that waited for a connection to the lost primary goes to the next one, however little it was sent."""
        first, second = self.write(), self.write()
        wire = self.open(A)
        wire.read()
        self.assertNoResult(second)
        wire.lose()
        self.assertNoResult(second)
        self.elect(B)
        for wire in (self.open(B), self.open(B)):
            wire.read()
            wire.answer(OK)
        self.assertEqual([self.successResultOf(done)[1] for done in (first, second)], [B, B])

    def test_waiting_and_interrupted(self) -> None:
        """The silence of a former primary ends what waits in its pool and what is in flight: both go to the new one."""
        first, second = self.write(), self.write()
        wire = self.open(A)
        [sent] = wire.read()
        wire.transport.abortConnection = wire.lose  # type: ignore[method-assign]
        self.elect(B)
        self.clock.advance(0.5)
        self.clock.advance(0)
        wires = [self.open(B), self.open(B)]
        again = [each.read()[0] for each in wires]
        self.assertIn((sent["lsid"], sent["txnNumber"]), [(each["lsid"], each["txnNumber"]) for each in again])
        for each in wires:
            each.answer(OK)
        self.assertEqual([self.successResultOf(done)[1] for done in (first, second)], [B, B])

    def test_interrupted_unrepeatable(self) -> None:
        """What may not be sent twice fails with AutoReconnect when its connection is interrupted."""
        done = self.executor.execute(Ping("test"))
        wire = self.open(A)
        wire.read()
        wire.transport.abortConnection = wire.lose  # type: ignore[method-assign]
        self.elect(B)
        self.clock.advance(0.5)
        self.clock.advance(0)
        self.failureResultOf(done, AutoReconnect)

    def test_one_ends_within_another(self) -> None:
        """Who hears that his operation failed may await another one that is being tried again: its outcome he gets."""
        wire = self.warm_up()
        first, second = self.write(), self.executor.execute(Ping("test", exclusive=True))

        async def one_then_the_other() -> Any:
            with contextlib.suppress(PoolClearedError):
                await second
            return await first

        both = Deferred.fromCoroutine(one_then_the_other())
        wire.read()
        wire.lose()
        self.clock.advance(0)
        self.assertNoResult(both)
        self.elect(B)
        wire = self.open(B)
        wire.read()
        wire.answer(OK)
        self.assertEqual(self.successResultOf(both)[1], B)

    def test_refused_within_another(self) -> None:
        """The same where the command of the one that waited cannot be made."""
        wire = self.warm_up()
        first, second = self.write(), self.executor.execute(Unbuildable("test", exclusive=True))
        self.assertNoResult(second)

        async def one_then_the_other() -> Any:
            with contextlib.suppress(ValueError):
                await second
            return await first

        both = Deferred.fromCoroutine(one_then_the_other())
        wire.read()
        wire.answer(OK)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(both)[1], A)


class LoadBalancedTests(ExecutorTestCase):
    """Behind a load balancer, of which nothing is known but that it is one."""

    def test_not_connected(self) -> None:
        """A write for which no connection could be opened is tried again."""
        self.slow_connects = True
        self.description = StreamDescription(
            max_wire_version=17, server_type=SERVER_TYPE.Mongos, logical_session_timeout_minutes=30
        )
        done = self.executor.execute(Write("test"))
        self.connecting.pop(0).errback(AutoReconnect("refused"))
        self.assertNoResult(done)
        self.connecting.pop(0).callback(self.new_wire())
        self.wires[0].read()
        self.wires[0].answer(OK)
        self.successResultOf(done)
