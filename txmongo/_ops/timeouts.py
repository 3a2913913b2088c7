"""How long an operation may last: ``timeoutMS``, and TxMongo's ``timeout=`` and ``deadline=``.

A front turns what its caller gave, and what its object inherited, into one :class:`TimeLimit` when it is called; the
executor passes that down. No I/O and no clock of its own: whoever asks says what time it is. Client side operations
timeout specification, "Timeout Behavior"; how a cursor's time is dealt out is :mod:`txmongo._ops.cursor_times`'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import attrs

from txmongo._deferreds import Deadline
from txmongo._ops.base import Operation
from txmongo._ops.cursors import GetMore
from txmongo._ops.run_command import RunCommand, RunCursorCommand
from txmongo.errors import ExecutionTimeout, InvalidOperation, NetworkTimeout, PyMongoError, TimeExceeded

if TYPE_CHECKING:
    from txmongo._deferreds import Clock

__all__ = [
    "TimeLimit",
    "Timing",
    "check_milliseconds",
    "check_timing",
    "deadline_of",
    "is_timeout",
    "seconds_of",
    "take_timing",
    "time_limit",
]

_MAX_TIME_EXPIRED = 50

#: Seconds by which a clock's arithmetic may be wrong: a delayed call for a point in time may come that much early.
_ROUNDING = 1e-6


class Timing(TypedDict, total=False):
    """The keywords by which the time of one call is limited; every method takes them.

    ``timeout_ms``: milliseconds, by the rules of ``timeoutMS``; 0 for no limit. ``timeout``: seconds, and ``deadline``:
    a point on the reactor's clock; both as in TxMongo, where nothing but the time itself is changed. ``_deadline`` is
    what a function decorated with :func:`txmongo.utils.timeout` is given, to hand on.
    """

    timeout_ms: float | None
    timeout: float | None
    deadline: float | None
    _deadline: float | None


_KEYWORDS = ("timeout_ms", "timeout", "deadline", "_deadline")


def take_timing(keywords: dict[str, Any]) -> dict[str, Any]:
    """Take the keywords of :class:`Timing` out of those of a call."""
    return {name: keywords.pop(name) for name in _KEYWORDS if name in keywords}


def check_timing(timing: Mapping[str, Any]) -> None:
    """Refuse keywords and values that say no time.

    :raises TypeError: a keyword is not one of :class:`Timing`, or its value is no number.
    :raises ValueError: it is negative.
    """
    for name, value in timing.items():
        if name not in _KEYWORDS:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
        if name == "timeout_ms":
            check_milliseconds(name, value)
        elif value is not None:
            # A negative timeout, like a deadline of the past, is over already.
            _check_number(name, value)


def check_milliseconds(name: str, value: Any) -> None:
    """Refuse what is no length of time.

    :raises TypeError: it is no number.
    :raises ValueError: it is negative.
    """
    if value is not None:
        _check_number(name, value)
        if not value >= 0:
            raise ValueError(f"{name} must not be negative: {value}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number or None, not {type(value).__name__}")


def seconds_of(timeout_ms: float | None, inherited: float | None) -> float | None:
    """The ``timeout_ms`` of a client, database or collection in seconds.

    :param inherited: seconds of the object above; they hold if it is ``None``.
    :raises TypeError: it is no number.
    :raises ValueError: it is negative.
    """
    if timeout_ms is None:
        return inherited
    check_milliseconds("timeout_ms", timeout_ms)
    return timeout_ms / 1000


def is_timeout(error: BaseException) -> bool:
    """Whether an error says that time was up, as PyMongo marks those that do."""
    return isinstance(error, PyMongoError) and error.timeout


@attrs.frozen(kw_only=True)
class TimeLimit:
    """Until when one operation may last, with all its attempts and commands.

    :ivar deadline: when its time is up, whoever said so.
    :ivar csot: ``timeoutMS`` holds: the other options of time are replaced, servers are told how long they may take,
        and retries go on as long as there is time.
    :ivar named: the deadline that ``timeout=`` or ``deadline=`` gave.
    :ivar sends_max_time: whether servers are told, where ``timeoutMS`` holds.
    """

    deadline: Deadline
    csot: bool = True
    named: Deadline = Deadline.never
    sends_max_time: bool = True

    @classmethod
    def after(cls, clock: Clock, seconds: float, *, sends_max_time: bool = True) -> TimeLimit:
        """What ``timeoutMS`` means for an operation that begins now; 0 seconds are no limit."""
        return cls(deadline=Deadline.after(clock, seconds or None), sends_max_time=sends_max_time)

    # --- before a command is sent ---

    def complete(self, command: dict[str, Any], operation: Operation[Any], round_trip: float, now: float) -> None:
        """Make a command, which is about to be encoded, fit the time that is left.

        :param round_trip: the least of the last times that the way to the server and back took, in seconds.
        :raises ExecutionTimeout: there is not enough left; the command must not be sent.
        """
        remaining = self.deadline.remaining(now)
        needed = round_trip if self.csot else 0.0
        if remaining is not None and remaining <= needed:
            raise ExecutionTimeout(
                f"{operation.name} was not sent: {remaining * 1000:.3g} ms are left for it, and the way to the server "
                f"and back takes {needed * 1000:.3g} ms",
                _MAX_TIME_EXPIRED,
            )
        if not self.csot:
            return
        written = isinstance(operation, RunCommand | RunCursorCommand)
        if isinstance(operation, GetMore):
            if remaining is not None and "maxTimeMS" in command:
                # How long the server waits for data: an empty batch in time is better than none.
                left = max(1, int((remaining - needed) * 1000))
                if command["maxTimeMS"] > left:
                    command["maxTimeMS"] = left
        else:
            if remaining is not None and self.sends_max_time:
                command["maxTimeMS"] = max(1, int((remaining - needed) * 1000))
            elif not written:
                command.pop("maxTimeMS", None)
        if not written and "writeConcern" in command:
            _drop_wtimeout(command)

    # --- after a failure ---

    def outcome(self, chosen: BaseException, error: BaseException, now: float, *, out_of_time: bool) -> BaseException:
        """What to raise for an operation that is not tried again.

        :param chosen: what would be raised if there was no limit.
        :param error: the last attempt's.
        :param out_of_time: it would be tried again if there was time.
        """
        late = out_of_time or is_timeout(error)
        if self.csot and late and not is_timeout(chosen):
            chosen = caused_by(chosen, "the time of the operation is over")
        if late and self._ended_by_name(now):
            exceeded = TimeExceeded(f"the time given for the operation is over: {chosen}")
            _copy_labels(chosen, exceeded)
            exceeded.__cause__ = chosen if is_timeout(chosen) else caused_by(chosen, "the time given is over")
            return exceeded
        return chosen

    def _ended_by_name(self, now: float) -> bool:
        """Whether it was ``timeout=`` or ``deadline=`` that has ended it."""
        return self.named == self.deadline and self.named.passed(now + _ROUNDING)


def caused_by(error: BaseException, what: str) -> NetworkTimeout:
    """The timeout that ended what last failed with ``error``; it keeps the labels."""
    timeout = NetworkTimeout(f"{what}: {error}")
    _copy_labels(error, timeout)
    timeout.__cause__ = error
    return timeout


def _copy_labels(error: BaseException, to: PyMongoError) -> None:
    # PyMongo gives no public way to the labels of an error, nor to label one.
    for label in getattr(error, "_error_labels", ()):
        to._add_error_label(label)


def _drop_wtimeout(command: dict[str, Any]) -> None:
    """``wTimeoutMS`` does not count where ``timeoutMS`` does."""
    concern = command["writeConcern"]
    if "wtimeout" in concern:
        rest = {name: value for name, value in concern.items() if name != "wtimeout"}
        if rest:
            command["writeConcern"] = rest
        else:
            del command["writeConcern"]


def time_limit(
    clock: Clock,
    inherited: float | None,
    timing: Mapping[str, Any],
    session_limit: TimeLimit | None = None,
    *,
    sends_max_time: bool = True,
) -> TimeLimit | None:
    """The limit of a call that begins now.

    :param inherited: seconds of the ``timeoutMS`` of the object that is called; 0 for no limit, ``None`` if there is
        none.
    :param timing: the keywords of the call; see :func:`check_timing`.
    :param session_limit: that of the session's ``with_transaction``, which replaces ``inherited``.
    :returns: ``None`` if nothing limits it.
    :raises InvalidOperation: ``timeout_ms`` for an operation of a session that has a limit of its own.
    """
    timeout_ms = timing.get("timeout_ms")
    if timeout_ms is not None:
        if session_limit is not None and session_limit.csot:
            raise InvalidOperation("timeout_ms cannot be given inside with_transaction: the time of that one counts")
        inherited = timeout_ms / 1000
    limit = session_limit
    if limit is None and inherited is not None:
        limit = TimeLimit.after(clock, inherited, sends_max_time=sends_max_time)
    named = _named(clock, timing)
    if named is None:
        return limit
    if limit is None:
        return TimeLimit(deadline=named, csot=False, named=named)
    return attrs.evolve(limit, deadline=named.earlier(limit.deadline), named=named.earlier(limit.named))


def _named(clock: Clock, timing: Mapping[str, Any]) -> Deadline | None:
    """The deadline of ``timeout`` and ``deadline``."""
    seconds, at = timing.get("timeout"), deadline_of(timing)
    if seconds is None and at is None:
        return None
    now = clock.seconds()
    return Deadline(min(math.inf if seconds is None else now + seconds, math.inf if at is None else at))


def deadline_of(timing: Mapping[str, Any]) -> float | None:
    """The point in time that a call names; the earlier one if it names two."""
    points = [at for at in (timing.get("deadline"), timing.get("_deadline")) if at is not None]
    return min(points, default=None)
