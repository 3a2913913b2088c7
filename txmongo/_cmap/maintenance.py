"""What a pool does unasked: it closes connections that were idle for too long, and fills up to minPoolSize.

CMAP specification, "Background Thread". Instead of a thread there is one delayed call, for when the next thing is due,
and none while nothing will be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pymongo.monitoring import ConnectionClosedReason
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmongo._cmap.connection import Connection
from txmongo._cmap.growth import Growth

__all__ = ["Maintenance"]

#: Seconds between two runs, at the least.
_LEAST_INTERVAL = 0.001


class Maintenance:
    """Runs when something is due.

    :ivar call: the delayed call, ``None`` while there is none.
    """

    def __init__(
        self,
        clock: IReactorTime,
        idle: Sequence[Connection],
        growth: Growth,
        *,
        max_idle: float,
        ready: Callable[[], bool],
        retire: Callable[[Connection, str], None],
    ) -> None:
        """
        :param idle: the idle connections, the last used last.
        :param max_idle: seconds after which an idle connection is to be closed.
        :param ready: whether the pool is; otherwise nothing is due.
        :param retire: does so, and takes it out of ``idle``; the second argument is why.
        """
        self.call: IDelayedCall | None = None
        self._clock = clock
        self._idle = idle
        self._growth = growth
        self._max_idle = max_idle
        self._ready = ready
        self._retire = retire

    def plan(self) -> None:
        """What is due may have changed: arm the delayed call anew, if there is something to wait for."""
        if self.call is not None:
            self.call.cancel()
            self.call = None
        if not self._ready():
            return
        now = self._clock.seconds()
        due = self._growth.due(now)
        if self._idle:
            due = min(due, self._idle[0].idle_since + self._max_idle)
        if due != math.inf:
            self.call = self._clock.callLater(max(due - now, _LEAST_INTERVAL), self._run)

    def _run(self) -> None:
        self.call = None
        now = self._clock.seconds()
        while self._idle and now - self._idle[0].idle_since >= self._max_idle:
            self._retire(self._idle[0], ConnectionClosedReason.IDLE)
        self._growth.grow()
        self.plan()
