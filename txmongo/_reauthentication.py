"""Authenticating an established connection again, when the server says that its credentials have expired.

All requests on a connection that are refused for that reason wait for one conversation, which is begun by the first of
them. What is sent meanwhile is refused too, before that conversation's end, and joins them: a server answers in order.
Kept: the Authentication specification, "Reauthentication".
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

from pymongo.errors import NetworkTimeout
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmongo._auth import Authentication, CommandSender
from txmongo._deferreds import Countdown

__all__ = ["Reauthentication"]


class _Connection(CommandSender, Protocol):
    """The part of :class:`~txmongo.protocol.MongoProtocol` that is needed."""

    def abort(self, reason: BaseException) -> None:
        """Cut it at once."""
        ...


class Reauthentication:
    """Authenticates one connection again, as often as it must be.

    :param authentication: by which it was authenticated first.
    :param connection: the connection.
    :param seconds: that it may take, but for what callbacks take; ``None`` for no limit.
    :param server: its address, for errors.
    """

    def __init__(
        self,
        authentication: Authentication,
        connection: _Connection,
        clock: IReactorTime,
        seconds: float | None,
        server: str,
    ) -> None:
        self._authentication = authentication
        self._connection = connection
        self._clock = clock
        self._seconds = seconds
        self._server = server
        self._waiting: dict[Deferred[None], None] = {}
        self._steps: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<Reauthentication at {self._server}, {len(self._waiting)} waiting>"

    def wait(self) -> Deferred[None]:
        """Have it done, or wait for it if it was begun.

        :returns: a Deferred that fires with ``None``. It fails as
            :meth:`Authentication.complete <txmongo._auth.Authentication.complete>` does, with
            :class:`~txmongo.errors.AutoReconnect` if the connection is lost, and with ``CancelledError`` by its own
            ``cancel()``; when nobody waits any more, the conversation is given up.
        """
        waiter: Deferred[None] = Deferred(self._left)
        self._waiting[waiter] = None
        if self._steps is None:
            self._begin()
        return waiter

    def lost(self, error: Callable[[], Exception]) -> None:
        """The connection is gone.

        :param error: makes the error for one who waits.
        """
        waiting = self._take_waiting()
        self._give_up()
        for waiter in waiting:
            if not waiter.called:
                waiter.errback(error())

    def _begin(self) -> None:
        limit = Countdown(self._clock, self._seconds, self._too_late)
        steps = self._steps = Deferred.fromCoroutine(self._authentication.repeat(self._connection, limit))

        def ended(result: Failure | None) -> None:
            limit.stop()
            if self._steps is not steps:
                # It was given up: those who wait now wait for another.
                return
            self._steps = None
            for waiter in self._take_waiting():
                if not waiter.called:
                    waiter.callback(None if result is None else Failure(copy.copy(result.value)))

        steps.addBoth(ended)

    def _take_waiting(self) -> dict[Deferred[None], None]:
        waiting, self._waiting = self._waiting, {}
        return waiting

    def _give_up(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.cancel()

    def _too_late(self) -> None:
        self._connection.abort(
            NetworkTimeout(f"{self._server}: not authenticated again within connectTimeoutMS ({self._seconds:g} s)")
        )

    def _left(self, waiter: Deferred[None]) -> None:
        if self._waiting.pop(waiter, waiter) is None and not self._waiting:
            self._give_up()
