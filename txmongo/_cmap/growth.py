"""How many connections a pool has: between minPoolSize and maxPoolSize, or as many as a fixed one is told to.

How many are to be opened is decided in :mod:`txmongo._cmap.choice`; here it is asked, with the sizes that the pool may
have and the pauses after failures, and done, by :mod:`~txmongo._cmap.opening`. CMAP specification, "Connection Pool
Options".
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from txmongo._cmap.choice import attempts_wanted
from txmongo._cmap.generations import Generations
from txmongo._cmap.opening import BackOff, Openings
from txmongo._cmap.roster import Roster
from txmongo._cmap.wait_queue import WaitQueue
from txmongo._settings import ClientSettings

__all__ = ["Growth"]

#: Seconds between attempts to fill up to minPoolSize while they fail.
_POPULATION_RETRY = 1.0


class Growth:
    """Has as many connections opened as are needed and allowed.

    :ivar fixed: the pool has so many connections, and neither more nor fewer.
    :ivar minimum: connections that it has even if nobody needs them.
    :ivar maximum: connections that it has at the most, those included that are being opened.
    :ivar max_connecting: connections that are being opened at the most.
    :ivar under_way: attempts are just being begun; whoever asked for a connection has not been answered yet.
    """

    def __init__(
        self,
        settings: ClientSettings,
        clock: IReactorTime,
        roster: Roster,
        generations: Generations,
        queue: WaitQueue,
        openings: Openings,
        *,
        ready: Callable[[], bool],
    ) -> None:
        """
        :param ready: whether the pool is; otherwise nothing is opened.
        """
        self.fixed = settings.pool_size is not None
        if settings.pool_size is not None:
            self.minimum = self.maximum = self.max_connecting = settings.pool_size
            self._back_off = BackOff(settings.retry_delay, settings.max_delay)
        else:
            self.minimum = settings.min_pool_size
            self.maximum = settings.max_pool_size
            self.max_connecting = settings.max_connecting
            self._back_off = BackOff(_POPULATION_RETRY, _POPULATION_RETRY)
        self.under_way = False
        self._seconds = clock.seconds
        self._roster = roster
        self._generations = generations
        self._queue = queue
        self._openings = openings
        self._ready = ready

    def grow(self) -> None:
        """Begin to open as many as are wanted; it may be asked to while it does so."""
        if self.under_way:
            return
        self.under_way = True
        try:
            while self._ready() and self._attempts_wanted():
                self._openings.begin(self._generations.pool)
        finally:
            self.under_way = False

    def _attempts_wanted(self) -> int:
        populating = self._seconds() >= self._back_off.until or (self.fixed and len(self._queue) > 0)
        return attempts_wanted(
            waiting=len(self._queue),
            opening=len(self._openings),
            total=len(self._roster) + len(self._openings),
            min_pool_size=self.minimum if populating else 0,
            max_pool_size=self.maximum,
            max_connecting=self.max_connecting,
        )

    def may_grow(self) -> bool:
        """Whether one more would not be too many."""
        return len(self._roster) + len(self._openings) < self.maximum

    def due(self, now: float) -> float:
        """When :meth:`grow` is to be called because the minimum is not reached; infinite if not by the clock."""
        if self._back_off.until > now and len(self._roster) + len(self._openings) < self.minimum:
            return self._back_off.until
        return math.inf

    def begin_anew(self) -> None:
        """The server is known to be usable again: a growing pool does not wait for the end of a pause."""
        if not self.fixed:
            self._back_off.until = 0.0

    def failed(self) -> None:
        """A connection could not be opened."""
        self._back_off.failed(self._seconds())

    def lost(self, created_at: float) -> None:
        """A connection was lost that was created then; one that did not live long is as good as one that failed."""
        now = self._seconds()
        self._back_off.lost(now - created_at, now)
