"""Small things about time and Deferreds that every layer needs.

Nothing here knows MongoDB. Waiting without sharing a Deferred is :class:`Broadcast`; a point in time that is
passed down instead of kept in a context is :class:`Deadline`; a limit that can stand still is :class:`Countdown`;
pauses that a client's end cuts short are :class:`Pauses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, Protocol

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

__all__ = ["Broadcast", "Clock", "Countdown", "Deadline", "Pauses", "current_failure"]


class Clock(Protocol):
    """The part of ``IReactorTime`` that only reads the time."""

    def seconds(self) -> float:
        """The current time in seconds on this clock's own scale."""
        ...


@attrs.frozen
class Deadline:
    """A point on one clock after which waiting ends, or never.

    :ivar at: seconds on the clock that made it; ``None`` for never.
    """

    at: float | None

    never: ClassVar[Deadline]

    @classmethod
    def after(cls, clock: Clock, seconds: float | None) -> Deadline:
        """The deadline ``seconds`` from now on ``clock``; ``None`` gives :attr:`never`."""
        return cls.never if seconds is None else cls(clock.seconds() + seconds)

    def remaining(self, now: float) -> float | None:
        """Seconds left at ``now``, never below zero; ``None`` if there is no limit."""
        return None if self.at is None else max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Whether ``now`` is at or beyond it."""
        return self.at is not None and now >= self.at

    def earlier(self, other: Deadline) -> Deadline:
        """The one of the two that comes first."""
        if self.at is None:
            return other
        return self if other.at is None or self.at <= other.at else other


Deadline.never = Deadline(None)


class Broadcast:
    """Tells any number of waiters that something happened; each waits on a Deferred of its own.

    A waiter may cancel its Deferred: it alone stops waiting.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[None]:
        """Wait for the next :meth:`fire`.

        :returns: a Deferred that fires with ``None``; it fails only with ``CancelledError``, by its own ``cancel()``.
        """
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiting[waiter] = None
        return waiter

    def fire(self) -> None:
        """Wake all who wait now; who waits from here on waits for the next call."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiting.pop(waiter, None)


class Countdown:
    """A time limit that stands still while something is waited for that it is not meant for.

    :param seconds: ``None`` for no limit.
    :param on_end: called when they are over, unless it was stopped.
    """

    __slots__ = ("_call", "_clock", "_left", "_on_end")

    def __init__(self, clock: IReactorTime, seconds: float | None, on_end: Callable[[], None]) -> None:
        self._clock = clock
        self._left = seconds
        self._on_end = on_end
        self._call: IDelayedCall | None = None
        self._go_on()

    def stop(self) -> None:
        """End it; it never calls from here on."""
        call, self._call, self._left = self._call, None, None
        if call is not None:
            call.cancel()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While in this block the time does not count."""
        call, self._call = self._call, None
        if call is not None:
            self._left = call.getTime() - self._clock.seconds()
            call.cancel()
        try:
            yield
        finally:
            self._go_on()

    def _go_on(self) -> None:
        if self._left is not None:
            self._call = self._clock.callLater(max(0.0, self._left), self._end)

    def _end(self) -> None:
        self._call = self._left = None
        self._on_end()


class Pauses:
    """Waits for time to pass, of which none is left, and none begins, once they have been ended."""

    __slots__ = ("_calls", "_clock", "_refusal")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[Deferred[None], IDelayedCall] = {}
        self._refusal: Callable[[], Exception] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def wait(self, seconds: float) -> Deferred[None]:
        """Wait so long.

        :returns: a Deferred that fires with ``None``. It fails with ``CancelledError`` by its own ``cancel()``, and
            with the error of :meth:`end`, also if that was called before.
        """
        if self._refusal is not None:
            return fail(self._refusal())
        waiter: Deferred[None] = Deferred(self._forget)
        self._calls[waiter] = self._clock.callLater(seconds, partial(self._over, waiter))
        return waiter

    def end(self, error: Callable[[], Exception]) -> None:
        """Let everyone fail who waits now or would wait later.

        :param error: makes the error for one of them.
        """
        self._refusal = error
        for waiter in list(self._calls):
            if waiter in self._calls:
                self._forget(waiter)
                waiter.errback(error())

    def _over(self, waiter: Deferred[None]) -> None:
        del self._calls[waiter]
        waiter.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._calls.pop(waiter).cancel()


def current_failure() -> Failure:
    """The exception that is being handled, as a Failure."""
    return Failure()
