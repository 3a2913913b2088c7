"""What is done about a connection that is stalled, because the server has been at its oldest request for long.

What waits behind that request is sent again elsewhere if that is safe; a connection that nobody waits for any more is
cut. Nothing is moved in a fixed pool or without pipelining, nor what follows a write that may be unread: each has its
own place there. That a connection is stalled is found by :mod:`~txmongo._cmap.watch`, and which requests may be sent
twice is :mod:`~txmongo._cmap.choice`'s; what the steps of moving a request are stands at
:meth:`CheckOut.duplicate() <txmongo._cmap.connection.CheckOut.duplicate>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from txmongo._cmap.choice import to_move
from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.roster import Roster
from txmongo._cmap.unread import UnreadWrite
from txmongo._cmap.wait_queue import Waiter, WaitQueue
from txmongo.errors import AutoReconnect

__all__ = ["Stalls"]


class Stalls:
    """Relieves the stalled connections of a pool."""

    def __init__(
        self,
        clock: IReactorTime,
        roster: Roster,
        queue: WaitQueue,
        unread: UnreadWrite,
        *,
        moves: bool,
        cut: Callable[[Connection, Exception], None],
        moved: Callable[[int], None],
    ) -> None:
        """
        :param moves: whether requests may be moved at all.
        :param cut: closes a connection at once.
        :param moved: called when the second copies of so many requests were put into the queue.
        """
        self._seconds = clock.seconds
        self._roster = roster
        self._queue = queue
        self._unread = unread
        self._moves = moves
        self._cut = cut
        self._moved = moved
        self._probed_at = -math.inf

    def relieve(self, connection: Connection, looked_at: float, limit: float) -> bool:
        """Do what can be done about a stalled connection.

        :param looked_at: when it was seen to be stalled.
        :param limit: seconds that make a stall.
        :returns: whether more could be done once the server is known to answer.
        """
        if self.gives_up(connection) or not self._moves or connection is self._unread.connection:
            return False
        return self._move_waiting(connection, looked_at, limit)

    def gives_up(self, connection: Connection) -> bool:
        """Cut a stalled connection whose oldest request was abandoned, as soon as nobody waits for another one.

        Until then nothing is added.
        """
        if not connection.head_is_late():
            return False
        if connection.live:
            connection.expected_wait = math.inf
            return False
        self._cut(connection, AutoReconnect("the request that this connection was busy with was abandoned"))
        return True

    def _move_waiting(self, connection: Connection, looked_at: float, limit: float) -> bool:
        """Let what waits behind a stalled connection's oldest request wait for another connection too.

        If the server has answered nobody of late, it may be the server that is stalled, and sending everything twice
        would be the last thing it needs: then one request is sent, to find out, and some are left where they are until
        that is known.
        """
        requests = [request for request in to_move(connection.in_flight) if request not in connection.late]
        allowed = len(requests)
        if requests and self._nothing_came_since(looked_at - limit):
            allowed = 1 if self._probed_at <= looked_at - limit else 0
            self._probed_at = looked_at if allowed else self._probed_at
        if allowed:
            self._move(requests[:allowed])
        return allowed < len(requests)

    def _nothing_came_since(self, moment: float) -> bool:
        return all(each.protocol.last_received_at <= moment for each in self._roster)

    def _move(self, requests: list[CheckOut]) -> None:
        now = self._seconds()
        waiters = []
        for request in requests:
            request.movable = False
            waiters.append(Waiter(request.duplicate(), now, original=request))
        self._queue.push_front(waiters)
        self._moved(len(waiters))
