"""How the time of a cursor is dealt out to its commands: ``timeoutMS``, ``timeoutMode``, ``timeout=``, ``deadline=``.

Client side operations timeout specification, "Cursors". A cursor without any limit has nothing of this. What a limit
means for one command is :mod:`txmongo._ops.timeouts`'.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txmongo._deferreds import Clock, Deadline
from txmongo._ops.base import Operation
from txmongo._ops.timeouts import TimeLimit, check_timing, deadline_of, time_limit
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
    """Limits the commands of one cursor. Its time begins with its first command.

    :ivar timeout: seconds of ``timeoutMS``; 0 for no limit, ``None`` where it is not used.
    :ivar seconds: of TxMongo's ``timeout``: for all documents, if the cursor is used as a Deferred, else for each wait.
    :ivar at: TxMongo's ``deadline``.
    :ivar tells_server: in iteration mode, the first command still says how long the server may take.
    """

    execute_within: ExecuteWithin
    clock: Clock
    timeout: float | None
    seconds: float | None = None
    at: Deadline = Deadline.never
    mode: TimeoutMode = TimeoutMode.LIFETIME
    tells_server: bool = False
    session: Any = None
    _began: float | None = attrs.field(default=None, init=False)
    _turn_began: float | None = attrs.field(default=None, init=False)

    def execute(self, operation: Operation[Any], *, whole: bool) -> Deferred[Any]:
        """Run a command of the cursor within the time that it has.

        :param whole: somebody waits for all documents.
        """
        now = self.clock.seconds()
        if self._began is None:
            self._began = now
        if self._turn_began is None:
            self._turn_began = now
        return self.execute_within(operation, self._limit(self._began, self._turn_began, whole))

    def execute_since(self, operation: Operation[Any], began: float) -> Deferred[Any]:
        """Run a command on behalf of a wait of its own that began at that time; the cursor has no other times then."""
        return self.execute_within(operation, self._limit(began, began, False))

    def is_over(self, began: float) -> bool:
        """Whether the time of such a wait is up."""
        return self._limit(began, began, False).deadline.passed(self.clock.seconds())

    def _limit(self, began: float, turn_began: float, whole: bool) -> TimeLimit:
        limit = self._limit_of_timeout_ms(began, turn_began)
        named = self.at
        if self.seconds is not None:
            named = named.earlier(Deadline((began if whole else turn_began) + self.seconds))
        if limit is None:
            return TimeLimit(deadline=named, csot=False, named=named)
        named = named.earlier(limit.named)
        return attrs.evolve(limit, deadline=named.earlier(limit.deadline), named=named)

    def _limit_of_timeout_ms(self, began: float, turn_began: float) -> TimeLimit | None:
        limit: TimeLimit | None = None if self.session is None else self.session.time_limit
        if limit is not None or self.timeout is None:
            return limit
        lives = self.mode is TimeoutMode.LIFETIME
        deadline = Deadline((began if lives else turn_began) + self.timeout) if self.timeout else Deadline.never
        return TimeLimit(deadline=deadline, sends_max_time=lives or self.tells_server)

    def turn_over(self) -> None:
        """Somebody got what was waited for: the next wait has its own time."""
        self._turn_began = None

    def limit_for_close(self) -> TimeLimit | None:
        """The limit of ``killCursors``: the time begins anew, or else the server kept a cursor that has timed out."""
        return None if self.timeout is None else TimeLimit.after(self.clock, self.timeout)

    def iterate(self, await_data: bool) -> None:
        """The cursor was made a tailable one."""
        self.mode = TimeoutMode.ITERATION
        self.tells_server = await_data

    def check_await(self, max_await_time_ms: int) -> None:
        """Refuse a time for which the server waits for data that is not less than the cursor's.

        :raises ConfigurationError: it is so.
        """
        if self.timeout and max_await_time_ms >= self.timeout * 1000:
            raise ConfigurationError("max_await_time_ms must be less than timeout_ms")

    def copy(self) -> CursorTimes:
        """For the same cursor from its start."""
        return attrs.evolve(self)


def cursor_times(
    executor: Any,
    inherited: float | None,
    timing: Mapping[str, Any],
    timeout_mode: str | None = None,
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
    :param timing: the keywords of the call: :class:`~txmongo._ops.timeouts.Timing`.
    :param writes: it is a pipeline with ``$out`` or ``$merge``.
    :returns: ``None`` if it is not limited.
    :raises TypeError: a keyword is unknown or has no number.
    :raises ValueError: ``timeout_ms`` is negative.
    :raises ConfigurationError: ``timeout_mode`` without ``timeoutMS``, or one that such a cursor cannot have; a
        ``max_await_time_ms`` that is not less than ``timeoutMS``.
    :raises InvalidOperation: ``timeout_ms`` in a session that is limited itself.
    """
    if inherited is None and not timing and timeout_mode is None:
        return None
    check_timing(timing)
    # Only for what it refuses.
    time_limit(executor.clock, inherited, timing, None if session is None else session.time_limit)
    timeout_ms, seconds, at = timing.get("timeout_ms"), timing.get("timeout"), deadline_of(timing)
    timeout = inherited if timeout_ms is None else timeout_ms / 1000
    mode = _mode(timeout_mode, timeout, tailable=tailable, writes=writes)
    if timeout is None and seconds is None and at is None:
        return None
    times = CursorTimes(
        executor.execute_within,
        executor.clock,
        timeout,
        seconds,
        Deadline(at),
        mode,
        tells_server=tailable and await_data,
        session=session,
    )
    if max_await_time_ms is not None:
        times.check_await(max_await_time_ms)
    return times


def _mode(given: str | None, timeout: float | None, *, tailable: bool, writes: bool) -> TimeoutMode:
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
