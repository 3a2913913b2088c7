"""Calls that wait, made in the threads of a reactor and never in the reactor's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

__all__ = ["in_thread"]

_T = TypeVar("_T")


def in_thread(reactor: Any, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
    """Call a function in a thread.

    :param reactor: an ``IReactorThreads``.
    :returns: a Deferred that fires with what the function returns, and fails with what it raises. Cancelling it makes
        it fail with ``CancelledError``; the function goes on, and nobody hears of its end.
    """
    return deferToThreadPool(reactor, reactor.getThreadPool(), function, *args)
