"""A clock with threads that run when the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

__all__ = ["ThreadClock"]


class ThreadClock(Clock):
    """The part of a reactor that calls functions in threads: here they wait for :meth:`run_threads`.

    :ivar waiting: the calls that were begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], None]] = []

    def getThreadPool(self) -> ThreadClock:
        """The pool of threads is this object too."""
        return self

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """Begin a call."""

        def call() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception:
                on_result(False, Failure())
            else:
                on_result(True, result)

        self.waiting.append(call)

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Come back to the reactor's thread, where all of this happens anyway."""
        function(*args, **kwargs)

    def run_threads(self) -> None:
        """Let every thread come to its end."""
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()
