"""What a server hears of a client that is closed: which of its sessions are over.

Sessions specification, "Server session pool": "endSessions" at the end of the client.
"""

from __future__ import annotations

from typing import Any

from pymongo.read_preferences import ReadPreference
from twisted.internet.defer import Deferred, DeferredList, succeed

from txmongo._deferreds import Broadcast
from txmongo._ops.executor import Executor
from txmongo._ops.transactions import EndSessions
from txmongo._sdam.topology import Topology

__all__ = ["Farewell"]

#: Seconds that the answer is waited for. In time the server forgets the sessions by itself.
_PATIENCE = 1.0


class Farewell:
    """The end of a client's sessions, those included that the application has not ended.

    :param topology: knows which servers could be told.
    :param executor: whose sessions they are, and who tells.
    """

    def __init__(self, topology: Topology, executor: Executor) -> None:
        self._topology = topology
        self._executor = executor
        #: Fires when the server has heard; ``None`` if that is not waited for.
        self._hearing: Broadcast | None = None

    def say(self) -> None:
        """Tell a server, if one is known, which sessions are over, and first that their transactions are aborted."""
        sessions = self._executor.sessions
        telling: list[Deferred[Any]] = []
        if self._topology.select_server_now(ReadPreference.PRIMARY) is not None:
            telling += [session.end_session() for session in list(sessions.started) if session._is_left_open()]
        batches = sessions.pool.end_all()
        if self._topology.select_server_now(ReadPreference.PRIMARY_PREFERRED) is not None:
            telling += [self._executor.execute(EndSessions(lsids)) for lsids in batches]
        if not telling:
            return
        for each in telling:
            each.addTimeout(_PATIENCE, self._executor.clock)
        told: Deferred[Any] = DeferredList(telling, consumeErrors=True)
        if not told.called:
            self._hearing = Broadcast()
            told.addCallback(self._told)

    def heard(self) -> Deferred[None]:
        """Wait until the server has heard.

        :returns: a Deferred that fires with ``None`` when it has answered, whatever that was, or not for a second; at
            once if it was told nothing. It fails only with ``CancelledError``, by its own ``cancel()``.
        """
        return succeed(None) if self._hearing is None else self._hearing.wait()

    def _told(self, _results: Any) -> None:
        hearing, self._hearing = self._hearing, None
        assert hearing is not None
        hearing.fire()
