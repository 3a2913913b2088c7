"""Small things to wait with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, task

from tests.conformance.unified.failures import Mismatch

__all__ = ["settle", "sleep", "within"]


async def settle(value: Any) -> Any:
    """The result of what the driver returned: awaited if it can be, a cursor read to its end."""
    if isinstance(value, defer.Deferred) or inspect.isawaitable(value):
        value = await value
    if hasattr(type(value), "to_list"):  # of the type: a collection has any attribute
        value = await value.to_list()
    return value


async def sleep(clock: Any, seconds: float) -> None:
    """Let time pass."""
    await task.deferLater(clock, seconds)


async def within(clock: Any, seconds: float, waiting: defer.Deferred[Any], what: str) -> Any:
    """The result of a Deferred.

    :raises Mismatch: it did not fire in time.
    """
    try:
        return await waiting.addTimeout(seconds, clock, onTimeoutCancel=_overdue(what, seconds))
    except _OverdueError as overdue:
        raise Mismatch(str(overdue)) from None


class _OverdueError(Exception):
    """Something did not happen in time."""


def _overdue(what: str, seconds: float) -> Callable[[Any, float], Any]:
    def cancelled(_result: Any, _timeout: float) -> Any:
        raise _OverdueError(f"{what} did not happen within {seconds:g} s")

    return cancelled
