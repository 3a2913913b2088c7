"""The one delayed call over the busy connections of a pool: it finds those that are stalled, and those that are silent.

What is then done about them is the pool's. It also finds how late the reactor is: a busy one sees a reply only when it
comes round to that socket, and without knowing that, the pool would take its own delay for the server's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmongo._cmap.choice import Limits, is_stalled
from txmongo._cmap.connection import Connection

__all__ = ["Watch"]

#: Seconds between two looks, at the least.
_LEAST_INTERVAL = 0.001

#: Seconds by which delayed calls are late when the reactor has nothing to do: it waits for whole milliseconds.
_TIMER_GRAIN = 0.001

#: What the moving average of the lag gives to a new value, and seconds, the most that is believed of one.
_LAG_WEIGHT = 0.2
_GREATEST_LAG = 0.05


class Watch:
    """Looks after the busy connections while there is something to find: several requests in flight, or a time limit.

    :ivar limits: the bounds that hold for now.
    :ivar lag: seconds that the reactor needs to come round, by how late this delayed call was of late.
    :ivar call: the delayed call, ``None`` while none is needed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        busy: Callable[[], Collection[Connection]],
        stalled: Callable[[Connection, float], None],
        silent: Callable[[Connection], None],
        socket_timeout: float | None,
    ) -> None:
        """
        :param busy: the connections on which something is in flight.
        :param stalled: called with each stalled one, and the time, as long as it is.
        :param silent: called with each on which nothing came for ``socket_timeout`` seconds.
        """
        self.limits = Limits()
        self.lag = 0.0
        self._rtt = 0.0
        self._due_at = 0.0
        self.call: IDelayedCall | None = None
        self._clock = clock
        self._busy = busy
        self._stalled = stalled
        self._silent = silent
        self._socket_timeout = socket_timeout

    def measured(self, rtt: float) -> None:
        """The monitor has measured the way to the server and back."""
        self._rtt = rtt
        self.limits = Limits.of(rtt, self.lag)

    def arm(self) -> None:
        """See to it that what is in flight now is looked after; called only while ``call`` is ``None``."""
        now = self._clock.seconds()
        busy = self._busy()
        due = now + self.limits.stall if len(busy) > 1 else math.inf
        for connection in busy:
            due = min(due, self._due(connection, now))
        if due != math.inf:
            wait = max(due - now, _LEAST_INTERVAL)
            self._due_at = now + wait
            self.call = self._clock.callLater(wait, self._look)

    def stop(self) -> None:
        """Leave no delayed call behind."""
        if self.call is not None:
            self.call.cancel()
            self.call = None

    def _due(self, connection: Connection, now: float) -> float:
        """When to look at a connection again."""
        due = math.inf
        if connection.open and (len(connection.in_flight) > 1 or connection.late):
            due = connection.busy_since + self.limits.stall
            if due <= now:
                due = now + self.limits.stall
        if self._socket_timeout is not None:
            due = min(due, self._last_sign_of(connection) + self._socket_timeout)
        return due

    @staticmethod
    def _last_sign_of(connection: Connection) -> float:
        return max(connection.busy_since, connection.protocol.last_received_at)

    def _look(self) -> None:
        """Whatever seems late may have been answered already, unread: judge when the reactor has come round once."""
        self.call = None
        now = self._clock.seconds()
        # The call falls anywhere into a round, so it is late by half a round on average.
        lag = 2 * max(0.0, now - self._due_at - _TIMER_GRAIN)
        self.lag += (min(lag, _GREATEST_LAG) - self.lag) * _LAG_WEIGHT
        self.limits = Limits.of(self._rtt, self.lag)
        if any(self._is_silent(each, now) or self._is_stalled(each, now) for each in self._busy()):
            self.call = self._clock.callLater(0, self._judge)
        else:
            self.arm()

    def _judge(self) -> None:
        self.call = None
        now = self._clock.seconds()
        for connection in self._busy():
            if not connection.in_flight:
                continue
            if self._is_silent(connection, now):
                self._silent(connection)
            elif self._is_stalled(connection, now):
                self._stalled(connection, now)
        if self.call is None:
            self.arm()

    def _is_silent(self, connection: Connection, now: float) -> bool:
        return self._socket_timeout is not None and now - self._last_sign_of(connection) >= self._socket_timeout

    def _is_stalled(self, connection: Connection, now: float) -> bool:
        return connection.open and is_stalled(connection, self.limits, now)
