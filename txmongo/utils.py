"""Small functions that TxMongo offers to applications."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from txmongo.connection import _default_reactor
from txmongo.errors import TimeExceeded

__all__ = ["check_deadline", "get_err", "timeout"]


def check_deadline(_deadline: float | None) -> None:
    """Raise if a point in time has passed.

    :param _deadline: on the reactor's clock; ``None`` for never.
    :raises TimeExceeded: it has passed.
    """
    if _deadline is not None and _default_reactor().seconds() >= _deadline:
        raise TimeExceeded("the time given is over")


def timeout(func: Callable[..., Any]) -> Callable[..., Deferred[Any]]:
    """Decorate a function so that it takes ``timeout``, in seconds, and ``deadline``, on the reactor's clock.

    The function gets the earlier of both as ``_deadline``, ``None`` without; the driver's methods take that too.

    :returns: a function whose Deferred fires as what ``func`` returns; when the time is over that is cancelled, and it
        fails with :class:`~txmongo.errors.TimeExceeded`.
    """

    @functools.wraps(func)
    def limited(
        *args: Any, timeout: float | None = None, deadline: float | None = None, **kwargs: Any
    ) -> Deferred[Any]:
        if timeout is None and deadline is None:
            return maybeDeferred(func, *args, _deadline=None, **kwargs)
        clock = _default_reactor()
        now = clock.seconds()
        ends = [at for at in (deadline, None if timeout is None else now + timeout) if at is not None]
        if min(ends) <= now:
            return fail(TimeExceeded("the time given is over"))
        waiting: Deferred[Any] = maybeDeferred(func, *args, _deadline=min(ends), **kwargs)
        return waiting.addTimeout(min(ends) - now, clock, _exceeded)

    return limited


def _exceeded(result: Any, _seconds: float) -> Any:
    """What was cancelled because its time is over ends with."""
    if isinstance(result, Failure) and result.check(CancelledError):
        raise TimeExceeded("the time given is over")
    return result


def get_err(document: Mapping[str, Any], default: Any = None) -> Any:
    """What a reply of the server says went wrong.

    :param document: the reply to a command or to ``getLastError``.
    :param default: what to return if it says of no error.
    :returns: the text of the error, both if there are two; its name if there is no text.
    """
    both = document.get("err"), document.get("errmsg")
    if all(both):
        return "{}: {}".format(*both)
    for field in ("err", "errmsg", "$err", "codeName"):
        error = document.get(field)
        if error:
            return error
    return default
