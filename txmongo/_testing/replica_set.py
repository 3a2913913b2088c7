"""A throw-away replica set."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet import defer

from txmongo._testing.den import NotInTime, wait_until
from txmongo._testing.mongod import ROOT, Mongod, TLSFiles, make_uri
from txmongo.errors import AutoReconnect, NotPrimaryError, OperationFailure, PyMongoError

FIRST_ELECTION = {"electionTimeoutMillis": 200, "heartbeatIntervalMillis": 50}
HEARTBEAT_INTERVAL = 0.5
UNAUTHORIZED = 13
EXCEEDED_TIME_LIMIT = 262

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
            await self._insist(self._has_root_user, "no root user could be made")
            await self._insist(self._has_timeouts, "the first election's timeouts still hold")
            await self.settled()
        except BaseException:
            await self.stop()
            raise
        return self

    def _config(self, version: int, settings: Mapping[str, int]) -> dict[str, Any]:
        hosts = [":".join(map(str, member.address)) for member in self.members]
        members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
        return {"_id": self.name, "version": version, "members": members, "settings": settings}

    async def _insist(self, step: Callable[[], Coroutine[Any, Any, bool]], otherwise: str) -> None:
        """Take a step until it is done. While the first election's short timeouts hold, a busy machine has more
        elections than one, and each may undo what was begun before it.
        """
        last: PyMongoError | None = None

        async def done() -> bool:
            nonlocal last
            try:
                return await step()
            except PyMongoError as error:
                if not all(member.running for member in self.members):
                    raise
                last = error
                return False

        try:
            await self._wait_until(done, f"{self!r}: {otherwise}", self._start_timeout)
        except NotInTime as overdue:
            raise overdue from last

    async def _has_root_user(self) -> bool:
        """Make the root user unless there is one."""
        if self.auth:
            primary = await self.primary()
            try:
                await primary.create_root_user()
            except OperationFailure as error:
                if error.code != UNAUTHORIZED:  # once there is a user, nobody makes another without being one
                    raise
            for member in self.members:
                member.credentials = ROOT
        return True

    async def _has_timeouts(self) -> bool:
        """After the first election, which is wanted at once, put the timeouts where tests want them; whether all
        members know them.
        """
        primary = await self.primary()
        current = (await primary.command("admin", {"replSetGetConfig": 1}))["config"]
        timeout = int(self._election_timeout * 1000)
        heartbeat = int(min(HEARTBEAT_INTERVAL, self._election_timeout / 4) * 1000)
        wanted = {"electionTimeoutMillis": timeout, "heartbeatIntervalMillis": heartbeat}
        if any(current["settings"][name] != value for name, value in wanted.items()):
            current["settings"] |= wanted
            current["version"] += 1
            await primary.command("admin", {"replSetReconfig": current})
        return {hello.get("setVersion") for hello in await self._hellos()} == {current["version"]}

    async def _hellos(self) -> list[dict[str, Any]]:
        return [await member.command("admin", {"hello": 1}) for member in self.members]

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
            return _takes_reads(hello)

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

    def settled(self) -> defer.Deferred[Mongod]:
        """Wait until one member is primary and every other one is its secondary, as after an election.

        :returns: a Deferred that fires with the primary. It fails with :class:`NotInTime` after ``start_timeout``
            seconds, and with :class:`~txmongo.errors.AutoReconnect` if a member does not run. A frozen one is awaited.
        """
        return defer.Deferred.fromCoroutine(self._settled())

    async def _settled(self) -> Mongod:
        await self._insist(self._follow_one, "no primary, or not all members follow it")
        return await self.primary()

    async def _follow_one(self) -> bool:
        hellos = await self._hellos()
        writable = [hello["me"] for hello in hellos if hello.get("isWritablePrimary")]
        return all(map(_takes_reads, hellos)) and writable == list({hello.get("primary") for hello in hellos})

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

        async def stepped_down() -> bool:
            try:
                await old.command("admin", command)
            except NotPrimaryError:
                return True  # by itself
            except OperationFailure as error:
                if error.code != EXCEEDED_TIME_LIMIT:
                    raise
                return False  # no secondary was as far as the primary
            return True

        await self._wait_until(stepped_down, f"{old!r} did not step down", self._start_timeout)
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


def _takes_reads(hello: Mapping[str, Any]) -> bool:
    """Whether a member that says this is primary or secondary."""
    return bool(hello.get("isWritablePrimary") or hello.get("secondary"))


async def _all(waiting: list[defer.Deferred[Any]]) -> None:
    """Wait for all of them, also when one fails; then fail with the first failure."""
    results = await defer.DeferredList(waiting, consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()
