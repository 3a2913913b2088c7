"""Those who wait for a connection, in order.

Only the order and each one's time limit live here; who is served, and with what, is the pool's. CMAP specification,
"WaitQueue": ordered, fair, and left at once when the time is up.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txmongo._cmap.connection import CheckOut, Connection

__all__ = ["WaitQueue", "Waiter"]


@attrs.define(eq=False)
class Waiter:
    """One request in the wait queue.

    :ivar deferred: what to tell; ``None`` for a second copy, which is told by its ``resend``.
    :ivar original: the request that this is the second copy of.
    :ivar time_limit: the delayed call that ends the waiting.
    """

    request: CheckOut
    started_at: float
    deferred: Deferred[Connection] | None = None
    original: CheckOut | None = None
    time_limit: IDelayedCall | None = None


class WaitQueue:
    """The waiting requests, the one to be served next first. Every way out of it stops that one's clock."""

    def __init__(self) -> None:
        self._waiters: OrderedDict[CheckOut, Waiter] = OrderedDict()
        #: A moved request -> its second copy.
        self._copies: dict[CheckOut, CheckOut] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def first(self) -> Waiter | None:
        """The one to be served next."""
        return next(iter(self._waiters.values()), None)

    def first_told(self) -> Waiter | None:
        """The first that is no second copy: the one who is told when a connection could not be opened."""
        return next((waiter for waiter in self._waiters.values() if waiter.deferred is not None), None)

    def all(self) -> list[Waiter]:
        """All, in their order."""
        return list(self._waiters.values())

    def append(self, waiter: Waiter) -> None:
        """Let one wait, after all others."""
        self._waiters[waiter.request] = waiter

    def push_front(self, waiters: list[Waiter]) -> None:
        """Let second copies wait before all others, in their order."""
        for waiter in reversed(waiters):
            assert waiter.original is not None
            self._copies[waiter.original] = waiter.request
            self._waiters[waiter.request] = waiter
            self._waiters.move_to_end(waiter.request, last=False)

    def remove(self, request: CheckOut) -> Waiter | None:
        """Take one out; ``None`` if it does not wait here."""
        waiter = self._waiters.pop(request, None)
        if waiter is None:
            return None
        if waiter.original is not None:
            del self._copies[waiter.original]
        if waiter.time_limit is not None and waiter.time_limit.active():
            waiter.time_limit.cancel()
        return waiter

    def remove_copy_of(self, original: CheckOut) -> Waiter | None:
        """Take the second copy of a request out, if it waits here."""
        copy = self._copies.get(original)
        return None if copy is None else self.remove(copy)

    def is_among_first(self, count: int, waiter: Waiter) -> bool:
        """Whether one is among the first ``count``."""
        return waiter in islice(self._waiters.values(), count)
