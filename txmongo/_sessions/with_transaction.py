"""A function that is run in a transaction until that is committed, or time is up: what ``with_transaction`` does.

The transaction itself, its commit and its abort are :class:`~txmongo.sessions.ClientSession`'s; here is what is done
again, when, and for how long. "Convenient API for transactions" specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from txmongo._deferreds import Deadline, Pauses
from txmongo._ops.retry import TRANSIENT_TRANSACTION, UNKNOWN_COMMIT, is_max_time_expired
from txmongo._ops.timeouts import TimeLimit, is_timeout
from txmongo._sessions.options import TransactionOptions
from txmongo.errors import NetworkTimeout, PyMongoError

if TYPE_CHECKING:
    from txmongo.sessions import ClientSession

__all__ = ["ConvenientTransaction"]

#: Seconds after which nothing is tried again.
_TIME_LIMIT = 120.0
#: Seconds of the pause before a transaction is run again: one and a half times the first before the first repetition,
#: one and a half times more before each further one, never more than the second.
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.5
_PAUSE_GROWTH = 1.5


class ConvenientTransaction:
    """One call of :meth:`~txmongo.sessions.ClientSession.with_transaction`. Its time begins when it is made.

    :param session: the session that it is called for.
    :param callback: the application's function.
    :param options: those of the transaction.
    :param limit: the time that the call was given, if it was given any: what is done in the session keeps to that too.
    :param pauses: make the pauses between attempts.
    :param jitter: gives numbers from 0 to 1 by which pauses are shortened.
    """

    def __init__(
        self,
        session: ClientSession,
        callback: Callable[[ClientSession], Any],
        options: TransactionOptions,
        limit: TimeLimit | None,
        *,
        clock: IReactorTime,
        pauses: Pauses,
        jitter: Callable[[], float],
    ) -> None:
        self._session = session
        self._callback = callback
        self._options = options
        self._limit = limit
        self._clock = clock
        self._pauses = pauses
        self._jitter = jitter
        self._patience = Deadline.after(clock, _TIME_LIMIT)
        if limit is not None:
            self._patience = limit.deadline if limit.csot else self._patience.earlier(limit.deadline)

    async def run(self) -> Any:
        """Run the function until the transaction is committed: "Sequence of Actions" of the specification.

        :returns: what the function returned.
        :raises NetworkTimeout: time is up; caused by the last error, with its labels.
        """
        options = self._options
        attempt = 0
        last: PyMongoError | None = None
        while True:
            self._session.start_transaction(
                options.read_concern, options.write_concern, options.read_preference, options.max_commit_time_ms
            )
            attempt += 1
            try:
                result = await self._call_back()
                if self._session.transaction.active:
                    await self._commit()
                return result
            except PyMongoError as error:
                if not error.has_error_label(TRANSIENT_TRANSACTION):
                    if last is not None and self._limit is not None and is_timeout(error):
                        # What the time was used up for tells more than that it was over.
                        late = self._out_of_time(last)
                        raise late from late.__cause__
                    raise
                last = error
                await self._pause(attempt, error)

    async def _call_back(self) -> Any:
        """Call the application's function, and abort the transaction if it fails."""
        session = self._session
        try:
            return await maybeDeferred(self._callback, session)
        except CancelledError:
            if session.transaction.active:
                # Whoever cancels does not wait; the server hears of it all the same.
                session._leave_alone(session.abort_transaction())
            raise
        except Exception:
            if session.transaction.active:
                await session.abort_transaction()
            raise

    async def _commit(self) -> None:
        """Commit, and ask again while the outcome is unknown and there is time."""
        while True:
            try:
                await self._session.commit_transaction()
                return
            except PyMongoError as error:
                if not error.has_error_label(UNKNOWN_COMMIT) or is_max_time_expired(error):
                    raise
                if self._patience.passed(self._clock.seconds()):
                    late = self._out_of_time(error)
                    raise late from late.__cause__

    async def _pause(self, attempt: int, error: PyMongoError) -> None:
        """Wait before the next attempt, if there is time for one."""
        pause = self._jitter() * min(_FIRST_PAUSE * _PAUSE_GROWTH ** min(attempt - 1, 64), _LONGEST_PAUSE)
        if self._patience.passed(self._clock.seconds() + pause):
            late = self._out_of_time(error)
            raise late from late.__cause__
        await self._pauses.wait(pause)

    def _out_of_time(self, error: PyMongoError) -> BaseException:
        """The error for when a transaction was tried for long enough; with the labels of the last error."""
        labels = [label for label in (TRANSIENT_TRANSACTION, UNKNOWN_COMMIT) if error.has_error_label(label)]
        late = NetworkTimeout(f"the time for repeating the transaction is over: {error}", {"errorLabels": labels})
        late.__cause__ = error
        if self._limit is None:
            return late
        return self._limit.outcome(late, late, self._clock.seconds(), out_of_time=True)
