"""Which connection the next request takes, one way for each kind of pool.

A growing pool gives an idle connection, else it has the one shared that will be free soonest (:class:`LeastWait`); a
fixed one deals its connections out in turn (:class:`RoundRobin`). The decisions are the pure functions of
:mod:`txmongo._cmap.choice`; what they are asked, and what has to be minded besides, is here: idle connections that are
too old, and writes that must not be overtaken. That a request is out on its connection is put down by the pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from pymongo.monitoring import ConnectionClosedReason

from txmongo._cmap import choice
from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.roster import Roster
from txmongo._cmap.unread import UnreadWrite

__all__ = ["LeastWait", "RoundRobin"]


class Bounds(Protocol):
    """What is short, and what is late.

    :ivar limits: the bounds that hold for now.
    """

    limits: choice.Limits


class RoundRobin:
    """Deals connections out in turn, whatever waits on them."""

    def __init__(self, roster: Roster, *, pipelining: bool) -> None:
        """
        :param pipelining: whether connections are shared.
        """
        self._connections = roster.usable
        self._pipelining = pipelining
        self._turn = 0

    def choose(self, request: CheckOut, now: float, *, copy: bool = False) -> Connection | None:
        """The connection for a request; ``None`` if it has to wait. There is no second copy here."""
        exclusive = request.exclusive or not self._pipelining
        place = choice.deal(self._connections, self._turn, exclusive=exclusive)
        if place is None:
            return None
        self._turn = place + 1
        return self._connections[place]


class LeastWait:
    """Gives an idle connection, the last used first; else shares the one with the smallest expected wait."""

    def __init__(
        self,
        roster: Roster,
        unread: UnreadWrite,
        bounds: Bounds,
        averages: Mapping[str, float],
        *,
        pipelining: bool,
        max_idle: float,
        may_grow: Callable[[], bool],
        retire: Callable[[Connection, str], None],
    ) -> None:
        """
        :param averages: seconds that the server needs for each kind of request.
        :param pipelining: whether connections are shared.
        :param max_idle: seconds after which an idle connection is too old.
        :param may_grow: whether another connection may be opened.
        :param retire: closes an idle connection that is too old; the second argument is why.
        """
        self._connections = roster.usable
        self._idle = roster.idle
        self._unread = unread
        self._bounds = bounds
        self._averages = averages
        self._pipelining = pipelining
        self._max_idle = max_idle
        self._may_grow = may_grow
        self._retire = retire

    def choose(self, request: CheckOut, now: float, *, copy: bool = False) -> Connection | None:
        """The connection for a request, taken from the idle ones if it was one of them; ``None`` if it has to wait.

        :param copy: it is the second copy of a moved request and takes an idle one or none.
        """
        if self._unread.connection is not None and not copy:
            unread = self._unread.connection
            if not unread.in_flight:
                self._idle.remove(unread)
                return unread
            if self._pipelining and unread.expected_wait != math.inf:
                # What follows the write must not overtake it; exclusive use waits until the write has been read.
                return None if request.exclusive else unread
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now - connection.idle_since <= self._max_idle:
                return connection
            self._retire(connection, ConnectionClosedReason.IDLE)
        if copy or request.exclusive or not self._pipelining:
            return None
        return self._share(request, now)

    def _share(self, request: CheckOut, now: float) -> Connection | None:
        """The busy connection that a request goes on; ``None`` if it waits for another one."""
        limits, longest_wait = self._bounds.limits, math.inf
        if self._may_grow():
            service_time = self._averages.get(request.service_class, choice.UNKNOWN_SERVICE_TIME)
            longest_wait = choice.longest_shared_wait(limits, service_time, len(self._connections))
        return choice.choose_shared(
            self._connections,
            request,
            limits=limits,
            longest_wait=longest_wait,
            known=self._averages,
            now=now,
        )
