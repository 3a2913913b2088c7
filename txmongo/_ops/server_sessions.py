"""The server's sessions as the driver keeps them: which are free, which are too old, which must not be used again.

Nothing here does I/O or knows what a command looks like; :mod:`txmongo._ops.session_state` puts sessions into commands.
Sessions specification, "ServerSession" and "Server Session Pool".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4
from weakref import WeakSet

from bson.binary import UUID_SUBTYPE, Binary
from bson.int64 import Int64

from txmongo._wire.envelope import elements_of

__all__ = ["ServerSession", "ServerSessionPool"]

#: Minutes after which servers forget an unused session, if nothing was heard of another value.
_DEFAULT_TIMEOUT = 30
#: How many sessions one ``endSessions`` command may name.
_BATCH_SIZE: Final = 10_000


class ServerSession:
    """One session of a server, used by one operation or one application's session at a time.

    :ivar lsid: its id as commands carry it, made once.
    :ivar element: the ``lsid`` field of commands in BSON.
    :ivar last_used: when its id was last sent, on the pool's clock.
    :ivar txn_number: the last number that was used for a retryable write or a transaction.
    :ivar dirty: an operation on it may still be running at the server: it is never used for anything else again.
    :ivar in_use: somebody has it.
    :ivar generation: the pool's when it was made.
    """

    __slots__ = ("__weakref__", "dirty", "element", "generation", "in_use", "last_used", "lsid", "txn_number")

    def __init__(self, now: float, generation: int = 0) -> None:
        self.lsid: dict[str, Any] = {"id": Binary(uuid4().bytes, UUID_SUBTYPE)}
        self.element = elements_of({"lsid": self.lsid})
        self.last_used = now
        self.txn_number = 0
        self.dirty = False
        self.in_use = False
        self.generation = generation

    def next_txn_number(self) -> Int64:
        """A number higher than any that was used with this session: the server takes a used one for a repetition."""
        self.txn_number += 1
        return Int64(self.txn_number)

    def __repr__(self) -> str:
        flags = [name for name in ("in_use", "dirty") if getattr(self, name)]
        return f"<ServerSession {self.lsid['id'].hex()} txn {self.txn_number}{''.join(f' {flag}' for flag in flags)}>"


class ServerSessionPool:
    """The sessions of one client that nobody uses: the one used last is given out first.

    :ivar in_use: how many were given out and not given back.
    :param seconds: the clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._idle: deque[ServerSession] = deque()
        self._generation = 0
        self._timeout_minutes: float | None = None
        #: Seconds for which an unused session may be used again: up to a minute before the server forgets it.
        self._lifetime = 0.0
        #: Those that stay out from one operation to the next, as long as somebody has them.
        self._held: WeakSet[ServerSession] = WeakSet()
        self._set_timeout(_DEFAULT_TIMEOUT)
        self.in_use = 0

    def _set_timeout(self, minutes: float) -> None:
        self._timeout_minutes = minutes
        self._lifetime = (minutes - 1) * 60.0

    def __len__(self) -> int:
        return len(self._idle)

    def __repr__(self) -> str:
        return f"<ServerSessionPool {len(self._idle)} idle, {self.in_use} in use>"

    def acquire(self, timeout_minutes: float | None = None, now: float | None = None) -> ServerSession:
        """Take a session for use; its :attr:`~ServerSession.last_used` is now.

        :param timeout_minutes: the server's ``logicalSessionTimeoutMinutes``, infinite behind a load balancer, where
            nobody knows the one that holds; without it the last that was named.
        :param now: the time, if it is known.
        """
        if timeout_minutes is not None and timeout_minutes != self._timeout_minutes:
            self._set_timeout(timeout_minutes)
        if now is None:
            now = self._seconds()
        idle = self._idle
        while idle:
            session = idle.pop()
            if now - session.last_used <= self._lifetime:
                break
        else:
            session = ServerSession(now, self._generation)
        session.last_used = now
        session.in_use = True
        self.in_use += 1
        return session

    def hold(self, session: ServerSession) -> None:
        """Note that a session that was given out is kept, by the application or for a cursor, until :meth:`let_go`."""
        self._held.add(session)

    def let_go(self, session: ServerSession) -> None:
        """:meth:`release` one that was held."""
        self._held.discard(session)
        self.release(session)

    def release(self, session: ServerSession) -> None:
        """Take a session back; a dirty or old one is forgotten. Giving it back again has no effect."""
        if not session.in_use:
            return
        session.in_use = False
        self.in_use -= 1
        oldest = self._seconds() - self._lifetime
        idle = self._idle
        while idle and idle[0].last_used < oldest:
            idle.popleft()
        if not session.dirty and session.last_used >= oldest and session.generation == self._generation:
            idle.append(session)

    def clear(self) -> None:
        """Forget every session, those in use included, and tell no server.

        For the child process after a fork: the sessions remain the parent's.
        """
        self._idle.clear()
        self._held.clear()
        self._generation += 1

    def end_all(self) -> list[list[dict[str, Any]]]:
        """Forget all sessions but those of single operations that are under way, as a client does that closes.

        :returns: their ids in batches, one for each ``endSessions`` command.
        """
        lsids = [session.lsid for session in (*self._idle, *self._held)]
        self._idle.clear()
        self._held.clear()
        self._generation += 1
        return [lsids[start : start + _BATCH_SIZE] for start in range(0, len(lsids), _BATCH_SIZE)]
