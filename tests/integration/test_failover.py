"""An application goes on working while its replica set loses primaries and its network.

What is acknowledged is there, once; nothing fails; and it goes on soon after there is a primary again. How long each
fault held the writers up is printed, beside how long there was no primary to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import attrs
from pymongo.monitoring import PoolClearedEvent
from twisted.internet import defer, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.integration.servers import be_patient
from tests.integration.workload import MAJORITY, PrimaryProbe, Workload, first
from tests.listeners import PoolListener
from txmongo._cmap.connector import Connector
from txmongo._cmap.pool import Pool
from txmongo._settings import parse_settings
from txmongo._testing.den import wait_until
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, NotPrimaryError, OperationFailure, PyMongoError
from txmongo.testing import FaultProxy, Mongod, ReplicaSet
from txmongo.types import Address

#: How many writes are in flight all the time, and how many reads.
WRITERS = 200
READERS = 10
#: Seconds of calm before and after each fault, and how many writes must be acknowledged in them.
CALM = 5.0
ENOUGH = 50
#: Seconds after a primary could be seen in which a write must have been acknowledged.
BAR = 1.5
FREEZE = 15.0
CUT = 4.0
STEP_DOWNS = 20
#: Seconds after which no further one begins: a busy machine takes its time for each.
STEPPING_DOWN = 150.0
#: What a primary answers when no secondary caught up with it while it waited: ExceededTimeLimit.
NOBODY_CAUGHT_UP = 262
APP_NAME = "txmongo failover test"

_running: dict[str, ReplicaSet] = {}


async def three_members() -> ReplicaSet:
    """The replica set of all cases, with every member well; it ends with the process."""
    if "set" not in _running:
        _running["set"] = await ReplicaSet(
            reactor,
            3,
            election_timeout=3.0,
            parameters={"enableTestCommands": 1, "oplogNetworkTimeoutBufferSeconds": 1},
        ).start()
    return _running["set"]


def seconds() -> float:
    """The time on the reactor's clock."""
    return float(reactor.seconds())


def sleep(duration: float) -> defer.Deferred[None]:
    """Let others work."""
    return deferLater(reactor, duration)


def until(ask: Callable[[], Any], what: str, timeout: float = 60.0) -> defer.Deferred[Any]:
    """Wait until something is so, or fail because of ``what``; a coroutine is waited for."""
    found: defer.Deferred[Any] = wait_until(reactor, lambda: _deferred(ask()), timeout, what)
    return found


def _deferred(answer: Any) -> Any:
    return defer.Deferred.fromCoroutine(answer) if isinstance(answer, Coroutine) else answer


@attrs.frozen
class Fault:
    """What was done to the set, and what is to be seen of it from outside.

    :ivar former: the member whose place another one has to take; ``None`` if the primary stays the same.
    """

    name: str
    at: float
    former: Address | None = None


class FailoverTestCase(TestCase):
    """A client under load, a probe beside it, and the account of both."""

    timeout = 480

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start the set, unless an earlier case did."""
        self.members = await three_members()
        self.addCleanup(self.heal)
        await self.everyone_is_well()

    async def heal(self) -> None:
        """Whatever a case left undone."""
        for member in self.members.members:
            if member.running:
                self.members.thaw(member)
            else:
                await self.members.restart(member)

    async def everyone_is_well(self) -> None:
        """Wait until one member is primary and the others follow, none with writes of its own from a term before.

        A former primary that went on is a secondary at first; only then it finds that it has to undo what the others
        have not, and answers no question while it does.
        """

        async def well() -> bool:
            try:
                states = [await member.command("admin", {"hello": 1}) for member in self.members.members]
            except PyMongoError:
                return False
            primaries = sum(bool(state["isWritablePrimary"]) for state in states)
            secondaries = sum(bool(state["secondary"]) for state in states)
            if primaries != 1 or secondaries != len(states) - 1:
                return False
            return len({state["lastWrite"]["opTime"]["t"] for state in states}) == 1

        await until(well, "the set did not recover")

    async def begin(self, endpoint_for: Callable[[Address], Any] | None = None) -> None:
        """Connect, and put the set to work."""
        self.client: ConnectionPool[dict[str, Any]] = ConnectionPool(
            self.members.uri, appname=APP_NAME, endpoint_for=endpoint_for
        )
        self.addCleanup(self.client.disconnect)
        self.load = Workload(self.client, reactor, writers=WRITERS, readers=READERS)
        await self.load.prepare()
        connector = Connector(parse_settings(self.members.uri), endpoint_for or _direct, reactor)
        addresses: list[Address] = [member.address for member in self.members.members]
        self.probe = PrimaryProbe(addresses, reactor, connector.connect_monitor)
        self.addCleanup(self.probe.stop)
        self.load.start()
        self.addCleanup(self.load.stop)
        await sleep(CALM)

    async def step_down(self, period: int) -> None:
        """Have the primary step down, once a secondary has caught up with it."""
        while True:
            try:
                await self.members.step_down(period)
            except OperationFailure as error:
                if error.code != NOBODY_CAUGHT_UP:
                    raise
            except NotPrimaryError:
                return  # it has stepped down by itself
            else:
                return

    def fault(self, name: str, former: Mongod | None = None) -> Fault:
        """Note that a fault begins now."""
        return Fault(name, seconds(), None if former is None else former.address)

    async def recovery(self, fault: Fault) -> float:
        """Wait until the probe and then a writer could write again; when that was."""

        def recovered() -> float:
            written = first(self.probe.writes, fault.at, other_than=fault.former)
            if written is None:
                return 0.0
            return next((at for at in reversed(self.load.acknowledged_at) if at > written.at), 0.0)

        at: float = await until(recovered, f"no write was acknowledged after {fault.name}")
        return at

    def settled(self) -> defer.Deferred[bool]:
        """Wait until no write is in flight that is in flight now."""
        now = seconds()
        return until(lambda: self.load.oldest_begun_at > now, "a write was not acknowledged")

    def report(self, fault: Fault, end: float, *, calm: bool = True) -> None:
        """Print how long it held the writers up, and see that it was not too long.

        :param end: to when the longest gap is looked for.
        :param calm: there was time before and after it in which nothing else happened.
        """
        primary = first(self.probe.primaries, fault.at, other_than=fault.former)
        written = first(self.probe.writes, fault.at, other_than=fault.former)
        assert primary is not None and written is not None
        gap_begin, gap_end = self.load.longest_gap(fault.at - 0.2, end)
        before = self.load.acknowledged_between(fault.at - CALM, fault.at)
        after = self.load.acknowledged_between(gap_end, gap_end + CALM)
        print(  # noqa: T201
            f"\n    {fault.name}: no write was acknowledged for {gap_end - gap_begin:.2f} s, until "
            f"{gap_end - fault.at:.2f} s after the fault. The probe saw a primary after {primary.at - fault.at:.2f} s "
            f"and could write to it after {written.at - fault.at:.2f} s: recovery {gap_end - primary.at:+.2f} s and "
            f"{gap_end - written.at:+.2f} s. Acknowledged in the {CALM:g} s before: {before}, after: {after}"
        )
        self.assertLessEqual(gap_end - max(primary.at, written.at), BAR, f"{fault.name}: the driver took too long")
        if calm:
            self.assertGreaterEqual(before, ENOUGH, f"before {fault.name}")
            self.assertGreaterEqual(after, ENOUGH, f"after {fault.name}")

    async def end(self) -> None:
        """Stop, and see that the books are right and nothing is left over."""
        await self.load.stop().addTimeout(30, reactor)
        await self.probe.stop()
        errors = self.load.errors
        self.assertEqual(errors, [], f"{len(errors)} errors: {errors[:5]}")
        await self.check_books()
        await self.everyone_is_well()
        await self.check_idle()
        await self.client.disconnect()
        await self.check_gone()

    async def check_books(self) -> None:
        """Every acknowledged insert is there once, every counter as often increased as was acknowledged."""
        load = self.load
        there = [document["_id"] for document in await load.inserts.find({}, {"_id": 1})]
        self.assertEqual(len(there), len(set(there)))
        self.assertEqual(set(load.inserted) - set(there), set(), "acknowledged and not there")
        self.assertEqual(set(there) - set(load.inserted) - load.unsure, set(), "there and never inserted")
        for counter in await load.counters.find():
            acknowledged, failed = load.counted[counter["_id"]], load.uncounted[counter["_id"]]
            self.assertTrue(acknowledged <= counter["count"] <= acknowledged + failed, (counter, acknowledged, failed))
        print(  # noqa: T201
            f"    {len(load.inserted)} inserts, {load.counted.total()} updates, {load.reads} reads: "
            f"{len(load.unsure) + load.uncounted.total()} writes failed"
        )

    async def check_idle(self) -> None:
        """No request, no session and no connection is in use any more."""
        sessions = self.client._executor.sessions.pool
        self.assertEqual(sessions.in_use, 0)
        self.assertLessEqual(len(sessions), WRITERS + READERS)
        for server in self.client._topology.servers.values():
            pool = server.pool
            self.assertEqual((pool.operation_count, pool.waiting_count), (0, 0), pool)
            await until(partial(_is_idle, pool), repr(pool), 20)

    async def check_gone(self) -> None:
        """The servers have closed what was the client's too."""
        stages: list[dict[str, Any]] = [
            {"$currentOp": {"allUsers": True, "idleConnections": True}},
            {"$match": {"appName": APP_NAME}},
            {"$count": "connections"},
        ]

        async def gone(member: Mongod) -> bool:
            command = {"aggregate": 1, "pipeline": stages, "cursor": {}, "$readPreference": {"mode": "nearest"}}
            try:
                reply = await member.command("admin", command)
            except PyMongoError:
                return False  # it does not answer this while it undoes what the others have not
            return not reply["cursor"]["firstBatch"]

        for member in self.members.members:
            await until(partial(gone, member), f"{member!r} has connections of the client, or does not answer", 30)


def _is_idle(pool: Pool) -> bool:
    return not pool.opening_count and pool.available_count == pool.total_count


def _direct(address: Address) -> TCP4ClientEndpoint:
    host, port = address
    assert port is not None
    return TCP4ClientEndpoint(reactor, host, port)


class FaultTests(FailoverTestCase):
    """One fault at a time."""

    async def test_step_down(self) -> None:
        """The primary steps down in an orderly way."""
        await self.begin()
        fault = self.fault("stepDown", await self.members.primary())
        await self.step_down(10)
        recovered = await self.recovery(fault)
        await sleep(CALM)
        self.report(fault, recovered)
        await self.end()

    async def test_kill(self) -> None:
        """The primary is killed, and returns later."""
        await self.begin()
        primary = await self.members.primary()
        fault = self.fault("SIGKILL", primary)
        await self.members.kill(primary)
        recovered = await self.recovery(fault)
        await sleep(CALM)
        self.report(fault, recovered)
        await self.members.restart(primary)
        await sleep(2)
        await self.end()

    async def test_freeze(self) -> None:
        """The primary freezes for a while; what it had in its sockets has been done elsewhere when it goes on."""
        await self.begin()
        primary = await self.members.primary()
        fault = self.fault("SIGSTOP", primary)
        self.members.freeze(primary)
        recovered = await self.recovery(fault)
        await sleep(fault.at + FREEZE - seconds())
        self.members.thaw(primary)
        await sleep(CALM)
        self.report(fault, recovered)
        await self.end()

    async def test_cut(self) -> None:
        """The network between client and primary goes dead, and its connections do not survive that."""
        proxies = {member.address: FaultProxy(reactor, *member.address) for member in self.members.members}
        for proxy in proxies.values():
            await proxy.start()
            self.addCleanup(proxy.stop)

        def endpoint_for(address: Address) -> TCP4ClientEndpoint:
            return _direct(proxies[address].address)  # type: ignore[index]

        await self.begin(endpoint_for)
        proxy = proxies[(await self.members.primary()).address]
        fault = self.fault("network cut")
        proxy.black_hole()
        await sleep(CUT)
        proxy.drop()
        proxy.heal()
        recovered = await self.recovery(fault)
        await sleep(CALM)
        self.report(fault, recovered)
        await self.end()

    async def test_many_step_downs(self) -> None:
        """One primary after the other steps down, each as soon as no write is under way that saw the last one go.

        That is because a write is tried a second time, but no third time.
        """
        await self.begin()
        faults: list[tuple[Fault, float]] = []
        began = seconds()
        for number in range(STEP_DOWNS):
            if faults and seconds() - began > STEPPING_DOWN:
                break
            fault = self.fault(f"stepDown {number + 1} of {STEP_DOWNS}", await self.members.primary())
            await self.step_down(2)
            faults.append((fault, await self.recovery(fault)))
            await self.settled()
        await sleep(CALM)
        for fault, recovered in faults:
            self.report(fault, recovered, calm=False)
        begin, end = faults[0][0].at, faults[-1][1]
        self.assertGreaterEqual(self.load.acknowledged_between(begin - CALM, begin), ENOUGH)
        self.assertGreaterEqual(self.load.acknowledged_between(end, end + CALM), ENOUGH)
        await self.end()


class Clearings(PoolListener):
    """Counts how often pools were cleared."""

    def __init__(self) -> None:
        self.count = 0

    def pool_cleared(self, event: PoolClearedEvent) -> None:
        """That is what is looked for."""
        self.count += 1


class SurvivalTests(FailoverTestCase):
    """Connections survive the primary's stepping down: the specification's prose tests."""

    async def connect(self) -> None:
        """A client that tries nothing twice, and its empty collection."""
        self.cleared = Clearings()
        # Often looked at, as the members know of no change after an error that is made up.
        self.client = ConnectionPool(
            self.members.uri,
            appname=APP_NAME,
            event_listeners=[self.cleared],
            retryWrites=False,
            retryReads=False,
            heartbeatFrequencyMS=500,
        )
        self.addCleanup(self.client.disconnect)
        database = self.client.txmongo_failover
        self.things = database.get_collection("step-down", write_concern=MAJORITY)
        await self.things.drop()

    async def fail_insert(self, code: int) -> None:
        """Have the primary answer the next insert with an error."""
        fail_point = {"mode": {"times": 1}, "data": {"failCommands": ["insert"], "errorCode": code}}
        await self.client.admin.command({"configureFailPoint": "failCommand", **fail_point})

    async def test_get_more(self) -> None:
        """A cursor goes on where the primary was after it has stepped down, and no pool is cleared."""
        await self.connect()
        be_patient(self)
        await self.things.insert_many([{"_id": number} for number in range(5)])
        cursor = self.things.find(batch_size=2, sort=[("_id", 1)])
        found = [document["_id"] for document in await cursor.next_batch()]
        await self.step_down(2)
        while batch := await cursor.next_batch():
            found += [document["_id"] for document in batch]
        self.assertEqual(found, [0, 1, 2, 3, 4])
        self.assertEqual(self.cleared.count, 0)

    async def test_not_primary(self) -> None:
        """An error that only says that the member is no primary keeps the pool."""
        await self.connect()
        await self.fail_insert(10107)
        error: Any = await self.assertFailure(self.things.insert_one({"_id": 1}), AutoReconnect)
        self.assertEqual(error.details["code"], 10107)
        await self.things.insert_one({"_id": 1})
        self.assertEqual(self.cleared.count, 0)

    async def test_shutdown(self) -> None:
        """Errors that say that the member shuts down clear the pool."""
        for code in (91, 11600):
            await self.connect()
            await self.fail_insert(code)
            error: Any = await self.assertFailure(self.things.insert_one({"_id": 1}), AutoReconnect)
            self.assertEqual(error.details["code"], code)
            self.assertEqual(self.cleared.count, 1)
            await self.things.insert_one({"_id": 1})
