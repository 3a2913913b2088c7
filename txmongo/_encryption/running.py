"""The work that is in progress with one object of libmongocrypt: its errors wrapped, ended before that object is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from bson.errors import BSONError
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmongo._deferreds import Broadcast
from txmongo.errors import EncryptionError, InvalidOperation, NetworkTimeout

__all__ = ["Running"]

_T = TypeVar("_T")


class Running:
    """Runs coroutines until it is closed.

    :param what: what is closed then, for the error.
    :param clock: keeps the time.
    :param seconds: that each may take; ``None`` or 0 for no limit.
    """

    def __init__(self, what: str, clock: IReactorTime | None = None, seconds: float | None = None) -> None:
        self._what = what
        self._clock = clock
        self._seconds = seconds
        self._work: set[Deferred[Any]] = set()
        self._idle = Broadcast()
        self._closed = False

    def check_open(self) -> None:
        """
        :raises InvalidOperation: it is closed.
        """
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> InvalidOperation:
        return InvalidOperation(f"the {self._what} is closed")

    def run(
        self, work: Coroutine[Any, Any, _T], wrap: Callable[[Exception], Exception] = EncryptionError
    ) -> Deferred[_T]:
        """Do some work.

        :param wrap: makes an error of one that is neither bson's nor an
            :class:`~txmongo.errors.EncryptionError` already.
        :returns: a Deferred that fires with what the coroutine returns, and fails with what it raises; with what is
            made of :class:`~txmongo.errors.NetworkTimeout` if it takes too long; with
            :class:`~txmongo.errors.InvalidOperation` if this is closed before that, or already.
        """
        if self._closed:
            # An object of libmongocrypt that has ended must not be touched.
            work.close()
            return fail(self._closed_error())
        deferred: Deferred[_T] = Deferred.fromCoroutine(self._guarded(work, wrap))
        if not deferred.called:
            self._work.add(deferred)
            deferred.addBoth(self._done, deferred)
            if self._clock is not None and self._seconds:
                deferred.addTimeout(self._seconds, self._clock, partial(_late, wrap))
        return deferred

    async def _guarded(self, work: Coroutine[Any, Any, _T], wrap: Callable[[Exception], Exception]) -> _T:
        try:
            return await work
        except CancelledError:
            self.check_open()
            raise
        except (BSONError, EncryptionError):
            raise
        except Exception as error:
            raise wrap(error) from error

    def _done(self, result: _T, deferred: Deferred[_T]) -> _T:
        self._work.discard(deferred)
        if not self._work:
            self._idle.fire()
        return result

    def close(self) -> Deferred[None]:
        """End all work; none is begun any more.

        :returns: a Deferred that fires with ``None`` when all has ended. It never fails.
        """
        self._closed = True
        for deferred in list(self._work):
            deferred.cancel()
        return self._idle.wait() if self._work else succeed(None)


def _late(wrap: Callable[[Exception], Exception], result: _T | Failure, seconds: float) -> _T:
    """What comes of work that was cancelled because its time was over."""
    if not isinstance(result, Failure):
        return result
    raise wrap(NetworkTimeout(f"not done within timeout_ms ({seconds * 1000:g})")) from result.value
