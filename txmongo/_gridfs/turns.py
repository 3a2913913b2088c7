"""Calls on one file are carried out one after another, in the order in which they were made, awaited or not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock

__all__ = ["Turns"]

ResultT = TypeVar("ResultT")


class Turns:
    """Whose turn it is on one file."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = DeferredLock()

    @property
    def free(self) -> bool:
        """Whether nothing is under way: what can be done at once may be done at once."""
        return not self._lock.locked

    def take(self, function: Callable[..., Coroutine[Any, Any, ResultT]], *args: Any) -> Deferred[ResultT]:
        """Run a coroutine function when all that was asked for before has ended; at once if nothing is under way.

        :returns: a Deferred that fires as the coroutine ends. Cancelling it before its turn comes means that nothing
            is done.
        """
        return self._lock.run(_begin, function, args)


def _begin(function: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]) -> Deferred[Any]:
    return Deferred.fromCoroutine(function(*args))
