"""The servers that the compatibility tests share: today's, and older ones where there are any.

A test case says which of them it runs on by a decorator::

    @on_every_server
    class CountTests(CompatTestCase):
        async def test_all(self) -> None:
            ...

Of such a class the module gets one more for each older server, ``CountTests_4_4`` and ``CountTests_5_0``. Where they
are is said by ``TXMONGO_OLD_MONGODS``; without it there is the one class only.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import defer, reactor
from twisted.trial.unittest import TestCase

from tests.integration.servers import Commands
from txmongo.collection import Collection
from txmongo.connection import ConnectionPool
from txmongo.database import Database
from txmongo.testing import Mongod, ReplicaSet

__all__ = ["OLD_VERSIONS", "CompatTestCase", "mongod_of", "on_every_server", "on_old_servers", "replica_set_of"]

VARIABLE = "TXMONGO_OLD_MONGODS"

#: The older servers that there are to test on.
OLD_VERSIONS = ("4.4", "5.0") if os.environ.get(VARIABLE) else ()

# Beside the fail points a second for a lock that a transaction wants, instead of 5 ms, which a busy machine may need.
_PARAMETERS = {"enableTestCommands": 1, "maxTransactionLockRequestTimeoutMillis": 1000}
_running: dict[tuple[str, str | None], Any] = {}

CaseT = TypeVar("CaseT", bound=type[TestCase])


def binary_of(version: str | None) -> str | None:
    """The path of an older mongod; ``None``, which stands for the one that is found, for today's."""
    return None if version is None else str(Path(os.environ[VARIABLE]) / f"mongod-{version}")


async def mongod_of(version: str | None = None, *, auth: bool = False) -> Mongod:
    """A server on its own, of that version; started once for all cases.

    :param auth: with a root user, and nobody else let in.
    """
    key = ("with auth" if auth else "standalone", version)
    if key not in _running:
        _running[key] = await Mongod(reactor, auth=auth, binary=binary_of(version), parameters=_PARAMETERS).start()
    mongod: Mongod = _running[key]
    return mongod


async def replica_set_of(version: str | None = None) -> ReplicaSet:
    """A replica set of one member, of that version; started once for all cases."""
    key = ("replica set", version)
    if key not in _running:
        _running[key] = await ReplicaSet(reactor, 1, binary=binary_of(version), parameters=_PARAMETERS).start()
    members: ReplicaSet = _running[key]
    return members


def _copy_for(case: type[TestCase], version: str) -> None:
    """Put a copy of a case that runs on an older server into its module, where trial finds it."""
    name = f"{case.__name__}_{version.replace('.', '_')}"
    copy = type(name, (case,), {"server_version": version, "__module__": case.__module__, "__doc__": case.__doc__})
    setattr(sys.modules[case.__module__], name, copy)


def on_every_server(case: CaseT) -> CaseT:
    """Run a test case on today's server and on each older one."""
    for version in OLD_VERSIONS:
        _copy_for(case, version)
    return case


def on_old_servers(case: CaseT) -> CaseT:
    """Run a test case on the older servers only; without any it is skipped."""
    for version in OLD_VERSIONS:
        _copy_for(case, version)
        sys.modules[case.__module__].__dict__[f"{case.__name__}_{version.replace('.', '_')}"].skip = None
    without = f"${VARIABLE} names no folder with older servers"
    case.skip = "for older servers only" if OLD_VERSIONS else without  # type: ignore[attr-defined]
    return case


class CompatTestCase(TestCase):
    """A client of a shared server, and a collection that does not exist at first.

    :cvar server_version: ``None`` for today's server.
    :cvar on_replica_set: whether the server is a replica set's.
    """

    timeout = 120
    server_version: str | None = None
    on_replica_set = False

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Connect, and drop what an earlier case left."""
        find = replica_set_of if self.on_replica_set else mongod_of
        self.server: Any = await find(self.server_version)  # type: ignore[operator]  # two functions of one shape
        self.uri: str = self.server.uri
        self.commands = Commands()
        self.client: ConnectionPool[dict[str, Any]] = ConnectionPool(self.uri, event_listeners=[self.commands])
        self.addCleanup(self.client.disconnect)
        self.database: Database[dict[str, Any]] = self.client.txmongo_compat
        self.things: Collection[dict[str, Any]] = self.database.things
        await self.things.drop()
        self.commands.sent.clear()

    def fixed_client(self, uri: str | None = None) -> ConnectionPool[Any]:
        """A client with one connection, on which everything is done in the order of the calls."""
        client: ConnectionPool[Any] = ConnectionPool(uri or self.uri, pool_size=1, event_listeners=[self.commands])
        self.addCleanup(client.disconnect)
        return client

    def sent(self, name: str) -> list[Any]:
        """The commands of that name that were sent."""
        return [command for command in self.commands.sent if name in command]

    async def failure(self, deferred: defer.Deferred[Any], *kinds: type[Exception]) -> Any:
        """The exception of one of these classes with which ``deferred`` fails."""
        return await self.assertFailure(deferred, *kinds)

    def deprecated(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what is deprecated; its result. It must warn once, and of the line that calls it: this one's.

        :ivar said: what the last warning said.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = function(*args, **kwargs)
        ours = [each for each in caught if each.category is DeprecationWarning]
        self.assertEqual(len(ours), 1, [str(each.message) for each in caught])
        self.assertEqual(Path(ours[0].filename).resolve(), Path(__file__).resolve(), str(ours[0].message))
        self.said = str(ours[0].message)
        return result

    async def contents(self) -> list[Any]:
        """All documents, by ``_id``."""
        return list(await self.things.find(sort=[("_id", 1)]))
