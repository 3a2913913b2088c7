"""The one delayed call over the busy connections of a pool: it finds those that are stalled, and those that are silent.

What is then done about them is the pool's. It also finds how long the reactor takes to come round once: a busy one sees
a reply only when it comes to that socket, and without knowing that, the pool would take its own delay for the server's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmongo._cmap.choice import Limits, is_stalled
from txmongo._cmap.connection import Connection
from txmongo._cmap.wait_queue import WaitQueue

__all__ = ["Watch"]

#: Seconds between two looks, at the least, and at the most while requests wait for a connection or for news.
_LEAST_INTERVAL = 0.001
_CROWDED_INTERVAL = 0.005

#: What the moving average of the lag gives to a greater and to a smaller new value, and seconds, the most that is
#: believed of one. Too small a lag opens connections that nobody needs, too great a one does little harm.
_WEIGHT_OF_GREATER = 0.5
_WEIGHT_OF_SMALLER = 0.1
_GREATEST_LAG = 0.05


class Watch:
    """Looks after the busy connections while there is something to find: several requests in flight, or a time limit.

    :ivar limits: the bounds that hold for now.
    :ivar rtt: seconds for the way to the server and back, as its monitor measures it; 0 before.
    :ivar lag: seconds that the reactor takes to come round once, on average of late.
    :ivar call: the delayed call, ``None`` while none is needed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        queue: WaitQueue,
        busy: Callable[[], Collection[Connection]],
        stalled: Callable[[Connection, float, float], bool],
        silent: Callable[[Connection], None],
        socket_timeout: float | None,
    ) -> None:
        """
        :param queue: the requests that wait for a connection.
        :param busy: the connections on which something is in flight.
        :param stalled: called with each stalled one, when it was seen to be and after how many seconds it counts as
            that, as long as it does; it returns whether to look again soon.
        :param silent: called with each on which nothing came for ``socket_timeout`` seconds.
        """
        self.limits = Limits()
        self.lag = 0.0
        self.rtt = 0.0
        self._looked_at = 0.0
        self.call: IDelayedCall | None = None
        self._clock = clock
        self._queue = queue
        self._busy = busy
        self._stalled = stalled
        self._silent = silent
        self._socket_timeout = socket_timeout

    def measured(self, rtt: float) -> None:
        """The monitor has measured the way to the server and back."""
        self.rtt = rtt
        self.limits = Limits.of(rtt, self.lag)

    def arm(self, *, soon: bool = False) -> None:
        """See to it that what is in flight now is looked after; called only while ``call`` is ``None``."""
        now = self._clock.seconds()
        busy = self._busy()
        due = math.inf
        if len(busy) > 1:
            due = now + self.limits.stall
        if busy and (self._queue or soon):
            due = now + _CROWDED_INTERVAL
        for connection in busy:
            due = min(due, self._due(connection, now))
        if due != math.inf:
            self.call = self._clock.callLater(max(due - now, _LEAST_INTERVAL), self._look)

    def hurry(self) -> None:
        """Requests begin to wait for a connection: find out soon how long the reactor takes."""
        if self.call is None:
            self.call = self._clock.callLater(_LEAST_INTERVAL, self._look)
        elif self.call.getTime() > self._clock.seconds() + _CROWDED_INTERVAL:
            self.call.reset(_CROWDED_INTERVAL)

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
        if self._socket_timeout is not None and not _all_patient(connection):
            due = min(due, self._last_sign_of(connection) + self._socket_timeout)
        return due

    @staticmethod
    def _last_sign_of(connection: Connection) -> float:
        return max(connection.busy_since, connection.protocol.last_received_at)

    def _look(self) -> None:
        """Whatever is late now may have been answered, unread: judge when the reactor has come round once."""
        self._looked_at = self._clock.seconds()
        self.call = self._clock.callLater(0, self._judge)

    def _judge(self) -> None:
        self.call = None
        now = self._clock.seconds()
        more = min(now - self._looked_at, _GREATEST_LAG) - self.lag
        self.lag += more * (_WEIGHT_OF_GREATER if more > 0 else _WEIGHT_OF_SMALLER)
        self.limits = Limits.of(self.rtt, self.lag)
        soon = False
        for connection in self._busy():
            if not connection.in_flight:
                continue
            if self._is_silent(connection):
                self._silent(connection)
            elif connection.open and is_stalled(connection, self.limits.stall, self._looked_at):
                soon = self._stalled(connection, self._looked_at, self.limits.stall) or soon
        if self.call is None:
            self.arm(soon=soon)
        elif soon:
            self.hurry()

    def _is_silent(self, connection: Connection) -> bool:
        timeout = self._socket_timeout
        if timeout is None or self._looked_at - self._last_sign_of(connection) < timeout:
            return False
        return not _all_patient(connection)


def _all_patient(connection: Connection) -> bool:
    return all(request.patient for request in connection.in_flight)
