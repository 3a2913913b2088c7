"""The servers that cases run against: a replica set of three with authentication, and standalones with and without.

Each is started when a case first needs it and serves all later ones; :mod:`txmongo.testing` ends them with the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pymongocrypt
from twisted.internet import defer

from tests.conformance.control import ControlLink
from tests.conformance.unified.requirements import ServerFacts, parse_version
from tests.integration.balancer import BalancerProcess
from txmongo.testing import Mongod, ReplicaSet

__all__ = ["Deployment", "Deployments"]

#: SCRAM's least iterations that drivers accept: cases make thousands of connections, and none tests this number. And a
#: second for a lock that a transaction wants, instead of 5 ms, which a busy machine may need.
PARAMETERS = {
    "enableTestCommands": 1,
    "maxTransactionLockRequestTimeoutMillis": 1000,
    "scramIterationCount": 5000,
    "scramSHA256IterationCount": 5000,
}
CACHE_GB = 1.0
#: Seconds. Who steps down hands over at once; no other election is wanted, however busy the machine is.
ELECTION_TIMEOUT = 8.0


@attrs.define
class Deployment:
    """A running deployment.

    :ivar facts: what the cases' requirements are held against.
    :ivar uri: names every member.
    :ivar several_uri: leads to several servers of equal rank, where that is another way.
    """

    facts: ServerFacts
    uri: str
    _reactor: Any
    _servers: ReplicaSet | Mongod
    _primary: Mongod
    several_uri: str | None = None

    @property
    def direct_uri(self) -> str:
        """Names one member, without the set: the primary, as far as that is known."""
        return self.uri if self.facts.topology == "load-balanced" else self._primary.uri

    async def control(self) -> ControlLink:
        """A new connection to the primary, or to the standalone."""
        link = await self._open(self._primary)
        if isinstance(self._servers, ReplicaSet):
            hello = await link.run("admin", {"hello": 1})
            if not hello["isWritablePrimary"]:
                await link.close()
                self._primary = await self._servers.settled()
                link = await self._open(self._primary)
        return link

    async def on_every_member(self, work: Callable[[ControlLink], Awaitable[Any]]) -> None:
        """Do something over a new connection to each member."""
        members = self._servers.members if isinstance(self._servers, ReplicaSet) else [self._servers]
        for member in members:
            link = await self._open(member)
            try:
                await work(link)
            finally:
                await link.close()

    async def _open(self, member: Mongod) -> ControlLink:
        return await ControlLink.open(self._reactor, member.address, self._servers.credentials)


class Deployments:
    """Starts each deployment once; what could not be started is not tried again."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._found: dict[str, Deployment] = {}
        self._failed: dict[str, Exception] = {}

    async def all(self) -> list[Deployment]:
        """Every deployment, the one to be preferred first."""
        return [
            await self.get("replicaset"),
            await self.get("single"),
            await self.get("single", auth=True),
            await self.get("load-balanced"),
        ]

    async def get(self, topology: str, *, auth: bool = False) -> Deployment:
        """The deployment of one topology.

        :param auth: a standalone with authentication; the replica set always has it.
        """
        name = f"{topology} with authentication" if auth else topology
        if name in self._failed:
            raise self._failed[name]
        if name not in self._found:
            try:
                self._found[name] = await self._start(topology, auth)
            except Exception as error:
                self._failed[name] = error
                raise
        return self._found[name]

    async def _start(self, topology: str, auth: bool) -> Deployment:
        if topology == "load-balanced":
            return await self._balanced()
        servers: ReplicaSet | Mongod
        if topology == "replicaset":
            servers = ReplicaSet(
                self._reactor,
                3,
                auth=True,
                election_timeout=ELECTION_TIMEOUT,
                parameters=PARAMETERS,
                cache_gb=CACHE_GB,
            )
            await servers.start()
            primary = await servers.primary()
        else:
            servers = primary = Mongod(self._reactor, auth=auth, parameters=PARAMETERS, cache_gb=CACHE_GB)
            await servers.start()
        facts = await _facts(self._reactor, topology, primary, servers.credentials)
        return Deployment(facts, servers.uri, self._reactor, servers, primary)

    async def _balanced(self) -> Deployment:
        """A replica set of one behind what stands in for a load balancer, as one service and as two."""
        servers = await ReplicaSet(self._reactor, 1, parameters=PARAMETERS, cache_gb=CACHE_GB).start()
        primary = servers.members[0]
        one, two = (BalancerProcess([primary.address] * services).uri for services in (1, 2))
        facts = await _facts(self._reactor, "load-balanced", primary, None)
        return Deployment(facts, one, self._reactor, servers, primary, two)

    def stop(self) -> defer.Deferred[Any]:
        """Stop what was started; the end of the process does as much."""
        found, self._found = list(self._found.values()), {}
        return defer.gatherResults([deployment._servers.stop() for deployment in found])


async def _facts(reactor: Any, topology: str, member: Mongod, credentials: tuple[str, str] | None) -> ServerFacts:
    link = await ControlLink.open(reactor, member.address, credentials)
    try:
        build_info = await link.run("admin", {"buildInfo": 1})
        parameters = await link.run("admin", {"getParameter": "*"})
    finally:
        await link.close()
    major, minor, patch = build_info["versionArray"][:3]
    libmongocrypt = parse_version(pymongocrypt.libmongocrypt_version())
    return ServerFacts((major, minor, patch), topology, credentials is not None, parameters, libmongocrypt)
