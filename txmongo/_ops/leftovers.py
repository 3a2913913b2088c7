"""Server-side cursors that nobody wants any more: closed, dropped without a word, or given up before they were known.

A cursor that is not exhausted costs the server memory until it is killed or ten minutes have passed. Here they are
killed without anybody waiting. Kept: the "Find, getMore and killCursors commands" specification, "killCursors".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmongo._cmap.pinning import Holder, Pin
from txmongo._ops.cursors import KillCursors
from txmongo._ops.session_state import SessionUse
from txmongo._ops.timeouts import TimeLimit, check_milliseconds, check_timing, time_limit
from txmongo.errors import NetworkTimeout, TimeExceeded

if TYPE_CHECKING:
    from txmongo.types import Address

__all__ = ["Leftovers"]

#: Seconds that an operation may go on after its caller gave it up, so that the cursor it may make can be killed.
_GRACE = 1.0
#: Seconds that are waited for the answer to killCursors: it changes nothing any more.
_PATIENCE = 5.0


def _end(_result: object, session: Any, pin: Pin | None) -> None:
    """Whether a cursor could be killed interests nobody: the server forgets it in the end. What it kept is free."""
    if isinstance(session, SessionUse):
        session.release()
    if pin is not None:
        pin.release(Holder.CURSOR)


def _time_exceeded(result: Any, _seconds: float) -> Any:
    """What a wait that was cancelled because of the time ends with."""
    if isinstance(result, Failure) and result.check(CancelledError):
        error = TimeExceeded("the time given for the next batch is over")
        raise error from NetworkTimeout("the next batch did not come in time")
    return result


class Leftovers:
    """Kills the cursors of one client that nobody wants any more."""

    def __init__(
        self,
        execute: Callable[[Any], Deferred[Any]],
        clock: IReactorTime,
        execute_within: Callable[[Any, TimeLimit], Deferred[Any]] | None = None,
    ) -> None:
        """
        :param execute_within: runs an operation whose time is limited.
        """
        self._execute = execute
        self._execute_within = execute_within
        self._clock = clock
        self._dropped: deque[tuple[Address | None, str, Any, Pin | None, int]] = deque()
        self._waking: IDelayedCall | bool = False
        self._abandoned: dict[Deferred[Any], IDelayedCall] = {}
        self._closed = False

    def limit(self, timeout_ms: float) -> TimeLimit:
        """The limit for killing cursors from now on.

        :raises TypeError: ``timeout_ms`` is no number.
        :raises ValueError: it is negative.
        """
        check_milliseconds("timeout_ms", timeout_ms)
        return TimeLimit.after(self._clock, timeout_ms / 1000)

    def end_waiting(self, waiter: Deferred[Any], timing: Mapping[str, Any]) -> None:
        """Cancel what waits for a batch when the time that it was given is over.

        :raises TypeError: ``timing`` has a value that is no number.
        """
        check_timing(timing)
        limit = time_limit(self._clock, None, timing)
        remaining = None if limit is None else limit.deadline.remaining(self._clock.seconds())
        if remaining is not None and not waiter.called:
            waiter.addTimeout(remaining, self._clock, _time_exceeded)

    def kill(
        self,
        namespace: str,
        cursor_ids: list[int],
        address: Address,
        session: Any = None,
        limit: TimeLimit | None = None,
        pin: Pin | None = None,
        *,
        keeps_session: bool = False,
    ) -> Deferred[None]:
        """Kill cursors now.

        :param session: of the cursors; if they kept an implicit one, it is released.
        :param limit: of the time for it.
        :param pin: the connection that they keep behind a load balancer; it is released.
        :param keeps_session: the session goes on being used: it is not released.
        :returns: a Deferred that fires with ``None`` when that is done or has failed; it never fails.
        """
        database, _, collection = namespace.partition(".")
        operation = KillCursors(database, collection, cursor_ids, address, session=session, pin=pin)
        killing: Deferred[Any]
        if limit is None or self._execute_within is None:
            killing = self._execute(operation)
        else:
            killing = self._execute_within(operation, limit)
        return killing.addTimeout(_PATIENCE, self._clock).addBoth(_end, None if keeps_session else session, pin)

    def drop(
        self, namespace: str, cursor_id: int, address: Address | None, session: Any = None, pin: Pin | None = None
    ) -> None:
        """Kill a cursor soon. May be called by the garbage collector, at any moment and in any thread.

        :param cursor_id: 0 if there is no cursor, but its session is to be released.
        """
        if self._closed:
            _end(None, session, pin)
            return
        self._dropped.append((address, namespace, session, pin, cursor_id))
        if not self._waking:
            self._waking = True
            from_thread = getattr(self._clock, "callFromThread", None)
            if from_thread is not None:
                from_thread(self._kill_dropped)
            else:
                self._waking = self._clock.callLater(0, self._kill_dropped)

    def abandon(self, operation: Deferred[Any]) -> None:
        """Let an operation whose callbacks kill what it makes go on for a moment, then cancel it."""
        if self._closed:
            operation.cancel()
            return
        self._abandoned[operation] = self._clock.callLater(_GRACE, self._grace_is_over, operation)
        operation.addBoth(self._ended, operation)

    def _grace_is_over(self, operation: Deferred[Any]) -> None:
        """A reply may have come while the reactor was held up, and is read in its next turn."""
        self._abandoned[operation] = self._clock.callLater(0, operation.cancel)

    def _ended(self, _result: object, operation: Deferred[Any]) -> None:
        waiting = self._abandoned.pop(operation, None)
        if waiting is not None and waiting.active():
            waiting.cancel()

    def _kill_dropped(self) -> None:
        self._waking = False
        cursors: dict[tuple[Address, str, Any, Pin | None], list[int]] = {}
        while self._dropped:
            address, namespace, session, pin, cursor_id = self._dropped.popleft()
            if not cursor_id or address is None:
                _end(None, session, pin)
                continue
            cursors.setdefault((address, namespace, session, pin), []).append(cursor_id)
        for (known, namespace, session, pin), cursor_ids in cursors.items():
            self.kill(namespace, cursor_ids, known, session, pin=pin)

    def close(self) -> None:
        """Send what is still to be sent; afterwards no delayed call is left here."""
        if self._closed:
            return
        waking = self._waking
        if waking and not isinstance(waking, bool) and waking.active():
            waking.cancel()
        self._kill_dropped()
        self._closed = True
        for operation in list(self._abandoned):
            operation.cancel()
