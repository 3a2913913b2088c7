"""A throw-away replica set."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet import defer

from txmongo._testing.den import wait_until
from txmongo._testing.mongod import Mongod, TLSFiles, make_uri
from txmongo.errors import AutoReconnect, OperationFailure, PyMongoError

FIRST_ELECTION = {"electionTimeoutMillis": 200, "heartbeatIntervalMillis": 50}
HEARTBEAT_INTERVAL = 0.5

T = TypeVar("T")


class ReplicaSet:
    """A replica set of throw-away servers on the loopback interface.

    .. code-block:: python

        replica_set = await ReplicaSet(reactor, 3).start()
        client = ConnectionPool(replica_set.uri)
        ...
        await replica_set.kill(await replica_set.primary())
        ...
        await replica_set.stop()

    What holds for :class:`Mongod` holds for its members: nothing is left behind, and nothing stays in the reactor
    between two calls. Their oplogs are small and they vote for a new primary quickly (see ``election_timeout``).

    :param reactor: that runs the processes, ``twisted.internet.reactor`` as a rule.
    :param size: how many members.
    :param name: of the set.
    :param auth: require authentication (members know one another by a keyFile); a user with the role ``root`` is made
        and stands in :attr:`uri`.
    :param tls: the files that members and clients speak TLS with.
    :param election_timeout: seconds without a primary after which the others vote for a new one.
    :param binary: and ``parameters``, ``arguments``, ``cache_gb``, ``start_timeout``: as for :class:`Mongod`, for every
        member.
    """

    def __init__(
        self,
        reactor: Any,
        size: int = 3,
        *,
        name: str = "rs0",
        auth: bool = False,
        tls: TLSFiles | None = None,
        election_timeout: float = 2.0,
        binary: str | None = None,
        parameters: Mapping[str, object] | None = None,
        arguments: Sequence[str] = (),
        cache_gb: float = 0.25,
        start_timeout: float = 60.0,
    ) -> None:
        if size < 1:
            raise ValueError(f"a replica set has at least one member, not {size}")
        key = secrets.token_hex(64) if auth else None
        self.name = name
        self.tls = tls
        self.auth = auth
        #: The members, as :class:`Mongod` objects, in the order of the configuration.
        self.members = [
            Mongod(
                reactor,
                binary=binary,
                key=key,
                tls=tls,
                replica_set=name,
                parameters=parameters,
                arguments=arguments,
                cache_gb=cache_gb,
                start_timeout=start_timeout,
            )
            for _ in range(size)
        ]
        self._reactor = reactor
        self._election_timeout = election_timeout
        self._start_timeout = start_timeout
        self._frozen: set[Mongod] = set()

    def __repr__(self) -> str:
        members = ", ".join(f"{'frozen ' if member in self._frozen else ''}{member!r}" for member in self.members)
        return f"<ReplicaSet {self.name} [{members}]>"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """Name and password of the user with the role ``root``, if there is one."""
        return self.members[0].credentials

    @property
    def uri(self) -> str:
        """A connection string that names every member and the set."""
        addresses = [member.address for member in self.members]
        return make_uri(addresses, self.credentials, self.tls, {"replicaSet": self.name})

    def start(self) -> defer.Deferred[ReplicaSet]:
        """Start the members, make them a set and wait for its primary.

        :returns: a Deferred that fires with itself. It fails as that of :meth:`Mongod.start`, or with
            :class:`NotInTime`, and then leaves nothing behind.
        """
        return defer.Deferred.fromCoroutine(self._start())

    async def _start(self) -> ReplicaSet:
        try:
            await _all([member.start() for member in self.members])
            config = self._config(1, FIRST_ELECTION)
            await self.members[0].command("admin", {"replSetInitiate": config})
            primary = await self.primary()
            if self.auth:
                await primary.create_root_user()
                for member in self.members:
                    member.credentials = primary.credentials
            await self._calm_down(primary)
            await self._wait_for_members()
        except BaseException:
            await self.stop()
            raise
        return self

    def _config(self, version: int, settings: Mapping[str, int]) -> dict[str, Any]:
        hosts = [":".join(map(str, member.address)) for member in self.members]
        members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
        return {"_id": self.name, "version": version, "members": members, "settings": settings}

    async def _calm_down(self, primary: Mongod) -> None:
        """After the first election, which is wanted at once, put the timeouts where tests want them."""
        current = (await primary.command("admin", {"replSetGetConfig": 1}))["config"]
        timeout = int(self._election_timeout * 1000)
        heartbeat = int(min(HEARTBEAT_INTERVAL, self._election_timeout / 4) * 1000)
        current["settings"] |= {"electionTimeoutMillis": timeout, "heartbeatIntervalMillis": heartbeat}
        current["version"] += 1
        await primary.command("admin", {"replSetReconfig": current})

    async def _wait_for_members(self) -> None:
        """Wait until every member takes reads, so that no test begins before that."""
        for member in self.members:
            await self._until_ready(member)

    def _until_ready(self, member: Mongod) -> defer.Deferred[bool]:
        async def ready() -> bool:
            try:
                hello = await member.command("admin", {"hello": 1})
            except OperationFailure:
                return False  # the root user has not been replicated to it yet
            except AutoReconnect:
                if not member.running:
                    raise
                return False  # it closes its connections before it undoes what the others have not
            return bool(hello["isWritablePrimary"] or hello["secondary"])

        return self._wait_until(ready, f"{member!r} became neither primary nor secondary", self._start_timeout)

    def _wait_until(self, ask: Callable[[], Coroutine[Any, Any, T]], what: str, timeout: float) -> defer.Deferred[T]:
        what = f"{what} within {timeout:g} s"
        return wait_until(self._reactor, lambda: defer.Deferred.fromCoroutine(ask()), timeout, what)

    def primary(self, *, other_than: Mongod | None = None, timeout: float | None = None) -> defer.Deferred[Mongod]:
        """The member that is primary; waits for one to be elected. Frozen members are not asked.

        :param other_than: a member that is not meant, such as the one just killed.
        :param timeout: in seconds; ``start_timeout`` if not given.
        :returns: a Deferred that fires with the member; it fails with :class:`NotInTime` when time is up.
        """

        async def primary() -> Mongod | None:
            for member in self.members:
                askable = member is not other_than and member.running and member not in self._frozen
                if askable and await self._is_primary(member):
                    return member
            return None

        seconds = self._start_timeout if timeout is None else timeout
        found: defer.Deferred[Any] = self._wait_until(primary, f"{self!r} has no primary", seconds)
        return found

    async def _is_primary(self, member: Mongod) -> bool:
        try:
            return bool((await member.command("admin", {"hello": 1})).get("isWritablePrimary"))
        except PyMongoError:
            return False

    def step_down(self, seconds: int = 60) -> defer.Deferred[Mongod]:
        """Make the primary step down.

        :param seconds: for which it will not be primary again.
        :returns: a Deferred that fires with the new primary. It fails with :class:`NotInTime` if none is elected, and
            with :class:`~txmongo.errors.OperationFailure` if the primary refuses.
        """
        return defer.Deferred.fromCoroutine(self._step_down(seconds))

    async def _step_down(self, seconds: int) -> Mongod:
        old = await self.primary()
        # Not by force where it can be helped: only then does the server hand over to a secondary at once.
        patience = {"secondaryCatchUpPeriodSecs": min(10, seconds), "force": len(self.members) == 1}
        command = {"replSetStepDown": seconds, **patience}
        await old.command("admin", command)
        return await self.primary(other_than=old)

    def kill(self, member: Mongod) -> defer.Deferred[None]:
        """Kill a member (SIGKILL); its port and data stay for :meth:`restart`.

        :param member: one of :attr:`members`.
        :returns: a Deferred that fires with ``None`` when it is gone; it does not fail.
        """
        self._frozen.discard(member)
        return member.kill()

    def restart(self, member: Mongod) -> defer.Deferred[Mongod]:
        """Kill a member if it runs and start it again on its old port and data.

        :param member: one of :attr:`members`.
        :returns: a Deferred that fires with the member when it is primary or secondary again. It fails as that of
            :meth:`Mongod.start`, or with :class:`NotInTime`.
        """
        return defer.Deferred.fromCoroutine(self._restart(member))

    async def _restart(self, member: Mongod) -> Mongod:
        await self.kill(member)
        await member.start()
        await self._until_ready(member)
        return member

    def freeze(self, member: Mongod) -> None:
        """Stop a member in its tracks (SIGSTOP): its sockets stay open and nobody answers.

        :param member: one of :attr:`members`.
        """
        self._frozen.add(member)
        member.freeze()

    def thaw(self, member: Mongod) -> None:
        """Let a frozen member go on (SIGCONT).

        :param member: one of :attr:`members`.
        """
        self._frozen.discard(member)
        member.thaw()

    def stop(self) -> defer.Deferred[None]:
        """Kill the members and remove their data.

        :returns: a Deferred that fires with ``None`` when all are gone; it does not fail.
        """
        self._frozen.clear()
        return defer.Deferred.fromCoroutine(_all([member.stop() for member in self.members]))


async def _all(waiting: list[defer.Deferred[Any]]) -> None:
    """Wait for all of them, also when one fails; then fail with the first failure."""
    results = await defer.DeferredList(waiting, consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()
