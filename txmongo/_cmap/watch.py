"""The one delayed call over the busy connections of a pool: it finds those that are stalled, and those that are silent.

What is then done about them is the pool's.
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


class Watch:
    """Looks after the busy connections while there is something to find: requests behind others, or a time limit.

    :ivar limits: when a connection is stalled.
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
        :param stalled: called with each stalled one, and the time, as long as it is. A connection is looked at twice,
            with a turn of the reactor between: a reply that lies in the kernel because this process was busy has been read
            by then.
        :param silent: called with each on which nothing came for ``socket_timeout`` seconds.
        """
        self.limits = Limits()
        self.call: IDelayedCall | None = None
        self._clock = clock
        self._busy = busy
        self._stalled = stalled
        self._silent = silent
        self._socket_timeout = socket_timeout

    def arm(self) -> None:
        """See to it that what is in flight now is looked after; called only while ``call`` is ``None``."""
        now = self._clock.seconds()
        due = min((self._due(connection, now) for connection in self._busy()), default=math.inf)
        if due != math.inf:
            self.call = self._clock.callLater(max(due - now, _LEAST_INTERVAL), self._look)

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
        now = self._clock.seconds()
        suspects = [each for each in self._busy() if each.open and is_stalled(each, self.limits, now)]
        if suspects or self._socket_timeout is not None:
            self.call = self._clock.callLater(0, self._look_again, [(each, each.busy_since) for each in suspects])
        else:
            self.call = None
            self.arm()

    def _look_again(self, suspects: list[tuple[Connection, float]]) -> None:
        self.call = None
        now = self._clock.seconds()
        for connection, busy_since in suspects:
            if connection.open and connection.in_flight and connection.busy_since == busy_since:
                self._stalled(connection, now)
        if self._socket_timeout is not None:
            for connection in self._busy():
                if now - self._last_sign_of(connection) >= self._socket_timeout:
                    self._silent(connection)
        if self.call is None:
            self.arm()
