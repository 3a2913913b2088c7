"""How the time of a cursor is dealt out to its commands: ``timeoutMS`` and ``timeoutMode``.

Client side operations timeout specification, "Cursors". A cursor without any limit has nothing of this. What a limit
means for one command is :mod:`txmongo._ops.timeouts`'.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txmongo._deferreds import Clock
from txmongo._ops.base import Operation
from txmongo._ops.timeouts import TimeLimit, check_milliseconds, time_limit
from txmongo.errors import ConfigurationError

__all__ = ["CursorTimes", "TimeoutMode", "cursor_times"]


class TimeoutMode(enum.Enum):
    """What ``timeoutMS`` limits; the values are what ``timeout_mode`` may be."""

    #: All commands of the cursor together.
    LIFETIME = "cursorLifetime"
    #: Each wait for more documents.
    ITERATION = "iteration"


ExecuteWithin = Callable[[Operation[Any], TimeLimit], "Deferred[Any]"]


@attrs.define(eq=False)
class CursorTimes:
    """Limits the commands of one cursor.

    :ivar mode: for ``timeoutMS``; what ``timeout=`` and ``deadline=`` gave limits the cursor's life in any case.
    :ivar tells_server: in iteration mode the first command still says how long the server may take.
    """

    execute_within: ExecuteWithin
    clock: Clock
    timeout: float | None
    timing: Mapping[str, Any]
    mode: TimeoutMode = TimeoutMode.LIFETIME
    tells_server: bool = False
    session: Any = None
    _life: TimeLimit | None = attrs.field(default=None, init=False)
    _turn: TimeLimit | None = attrs.field(default=None, init=False)

    def execute(self, operation: Operation[Any]) -> Deferred[Any]:
        """Run a command of the cursor within the time that it has."""
        return self.execute_within(operation, self._limit())

    def _limit(self) -> TimeLimit:
        first = self._life is None
        if self._life is None:
            sends = self.mode is TimeoutMode.LIFETIME or self.tells_server
            session_limit = None if self.session is None else self.session.time_limit
            life = time_limit(self.clock, self.timeout, self.timing, session_limit, sends_max_time=sends)
            assert life is not None
            self._life = life
        if self.mode is TimeoutMode.LIFETIME or self.timeout is None:
            return self._life
        if self._turn is None:
            if first:
                self._turn = self._life
            else:
                limit = TimeLimit.after(self.clock, self.timeout)
                named = self._life.named
                self._turn = attrs.evolve(limit, deadline=named.earlier(limit.deadline), named=named)
        return self._turn

    def turn_over(self) -> None:
        """Somebody got what was waited for: the next wait has its own time."""
        self._turn = None

    def restart(self) -> None:
        """The cursor was rewound."""
        self._life = self._turn = None

    def limit_for_close(self) -> TimeLimit | None:
        """The limit of ``killCursors``: the time begins anew, or else the server kept a cursor that has timed out."""
        return None if self.timeout is None else TimeLimit.after(self.clock, self.timeout)


def cursor_times(
    executor: Any,
    inherited: float | None,
    timing: Mapping[str, Any],
    timeout_mode: TimeoutMode | str | None = None,
    *,
    session: Any = None,
    tailable: bool = False,
    await_data: bool = False,
    writes: bool = False,
    max_await_time_ms: int | None = None,
) -> CursorTimes | None:
    """The times of a cursor that was asked for with these arguments.

    :param executor: runs its commands.
    :param inherited: seconds of the ``timeoutMS`` of the object that it comes from, ``None`` if there is none.
    :param timing: the keywords of the call, checked.
    :param writes: it is a pipeline with ``$out`` or ``$merge``.
    :returns: ``None`` if it is not limited.
    :raises ConfigurationError: ``timeout_mode`` without ``timeoutMS``, or one that such a cursor cannot have; a
        ``max_await_time_ms`` that is not less than ``timeoutMS``.
    """
    if inherited is None and not timing and timeout_mode is None:
        return None
    session_limit = None if session is None else session.time_limit
    timeout_ms = timing.get("timeout_ms")
    timeout = inherited if timeout_ms is None else timeout_ms / 1000
    if timing:
        # Only for what it refuses.
        time_limit(executor.clock, timeout, timing, session_limit)
    mode = _mode(timeout_mode, timeout, tailable=tailable, writes=writes)
    if max_await_time_ms is not None and timeout and max_await_time_ms >= timeout * 1000:
        raise ConfigurationError("max_await_time_ms must be less than timeout_ms")
    if timeout is None and all(value is None for value in timing.values()):
        return None
    named = {name: value for name, value in timing.items() if name != "timeout_ms" and value is not None}
    if "timeout" in named:
        # Its time begins with the call, not with the first use.
        at = executor.clock.seconds() + named.pop("timeout")
        named["deadline"] = min(at, named.get("deadline", at))
    return CursorTimes(
        executor.execute_within,
        executor.clock,
        timeout,
        named,
        mode,
        tells_server=tailable and await_data,
        session=session,
    )


def _mode(given: TimeoutMode | str | None, timeout: float | None, *, tailable: bool, writes: bool) -> TimeoutMode:
    if given is None:
        return TimeoutMode.ITERATION if tailable else TimeoutMode.LIFETIME
    try:
        mode = TimeoutMode(given)
    except ValueError:
        raise ConfigurationError(f"timeout_mode must be 'cursorLifetime' or 'iteration', not {given!r}") from None
    if timeout is None:
        raise ConfigurationError("timeout_mode cannot be given without timeout_ms")
    if tailable and mode is TimeoutMode.LIFETIME:
        raise ConfigurationError("timeout_mode of a tailable cursor cannot be 'cursorLifetime'")
    if writes and mode is TimeoutMode.ITERATION:
        raise ConfigurationError("timeout_mode of a pipeline with $out or $merge cannot be 'iteration'")
    return mode


def close_limit(clock: Clock, timeout_ms: Any, times: CursorTimes | None) -> TimeLimit | None:
    """The limit of an explicit close.

    :raises TypeError: ``timeout_ms`` is no number.
    :raises ValueError: it is negative.
    """
    if timeout_ms is None:
        return None if times is None else times.limit_for_close()
    check_milliseconds("timeout_ms", timeout_ms)
    return TimeLimit.after(clock, timeout_ms / 1000)
