"""Servers that many cases share: each is started when a case first needs it, and ends with the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)
from twisted.internet import defer, reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from txmongo._sdam import superseded
from txmongo._testing.den import wait_until
from txmongo.collection import Collection
from txmongo.connection import ConnectionPool
from txmongo.testing import Mongod, ReplicaSet

__all__ = ["CollectionTestCase", "Commands", "be_patient", "freeze", "replica_set", "standalone", "until_frozen"]

_PARAMETERS = {"enableTestCommands": 1}
_running: dict[str, Any] = {}
#: Seconds in which the server has answered what was cancelled, or was asked for by the client itself.
SETTLING_TIME = 10.0


async def standalone() -> Mongod:
    """A server on its own, with fail points."""
    if "standalone" not in _running:
        _running["standalone"] = await Mongod(reactor, parameters=_PARAMETERS).start()
    mongod: Mongod = _running["standalone"]
    return mongod


async def replica_set() -> ReplicaSet:
    """A replica set of one member, with fail points."""
    if "replica_set" not in _running:
        _running["replica_set"] = await ReplicaSet(reactor, 1, parameters=_PARAMETERS).start()
    members: ReplicaSet = _running["replica_set"]
    return members


async def freeze(members: ReplicaSet, member: Mongod) -> None:
    """Freeze a member, and wait until it is."""
    members.freeze(member)
    await until_frozen(member)


async def until_frozen(member: Mongod) -> None:
    """Wait until all threads of a server that was frozen have stopped: a busy machine takes a while for that."""
    await wait_until(reactor, lambda: all(state == "T" for state in _states(member)), 20, f"{member!r} did not freeze")


def be_patient(case: TestCase) -> None:
    """Give former primaries until the end of the test all the time that a busy machine may need to say that they live.

    It is for those that step down: with less they might be taken for dead, and their pools cleared.
    """
    case.patch(superseded, "_LEAST_PATIENCE", 30.0)
    case.patch(superseded, "_GREATEST_PATIENCE", 30.0)


def _states(member: Mongod) -> list[str]:
    """What each thread of a server does, in a letter, where the system tells."""
    tasks = Path(f"/proc/{member.pid}/task")
    stats = [(task / "stat").read_text() for task in tasks.iterdir()] if tasks.exists() else []
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


class Commands(CommandListener):
    """Keeps the commands that were sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def started(self, event: CommandStartedEvent) -> None:
        """A command is sent."""
        self.sent.append(event.command)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Not of interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Not of interest."""

    def names(self) -> list[str]:
        """The names of the commands."""
        return [next(iter(command)) for command in self.sent]


class CollectionTestCase(TestCase):
    """A client of a shared server, and a collection that does not exist at first.

    :cvar on_replica_set: whether the server is the replica set's.
    """

    timeout = 120
    on_replica_set = False

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Connect, and drop what an earlier case left."""
        server: Any = await (replica_set() if self.on_replica_set else standalone())
        self.uri: str = server.uri
        self.commands = Commands()
        self.client: ConnectionPool[dict[str, Any]] = ConnectionPool(self.uri, event_listeners=[self.commands])
        self.addCleanup(self.client.disconnect)
        self.things: Collection[dict[str, Any]] = self.client.txmongo_tests.things
        await self.things.drop()
        self.commands.sent.clear()

    async def tearDown(self) -> None:  # type: ignore[override]  # trial waits for it
        """Every session was given back when what was cancelled is over: sessions specification, prose test 10."""
        sessions = self.client._executor.sessions.pool
        give_up_at = reactor.seconds() + SETTLING_TIME  # type: ignore[attr-defined]
        while sessions.in_use and reactor.seconds() < give_up_at:  # type: ignore[attr-defined]
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.assertEqual(sessions.in_use, 0, "sessions that were not given back")

    async def fail_command(self, name: str, **data: Any) -> None:
        """Have the server fail the next command of that name; if there is none, no other test's."""
        self.addCleanup(self.client.admin.command, {"configureFailPoint": "failCommand", "mode": "off"})
        await self.client.admin.command(
            {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": {"failCommands": [name], **data}}
        )
        self.commands.sent.clear()

    async def needs(self, what: str, *version: int) -> None:
        """Skip the case on servers that are older than what it shows.

        :param what: is shown.
        :param version: that it came with.
        """
        here = (await self.client.server_info())["versionArray"]
        self.commands.sent.clear()
        if tuple(here) < version:
            came = ".".join(map(str, version))
            raise SkipTest(f"{what}: since MongoDB {came}, this is {'.'.join(map(str, here[:3]))}")

    async def failure(self, deferred: defer.Deferred[Any], *kinds: type[Exception]) -> Any:
        """The exception of one of these classes with which ``deferred`` fails."""
        return await self.assertFailure(deferred, *kinds)

    async def contents(self) -> list[Any]:
        """All documents, by ``_id``."""
        return list(await self.things.find(sort=[("_id", 1)]))
