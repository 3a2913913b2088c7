"""A folder and the one process that runs in it, both gone when we are: our end of :mod:`txmongo._testing.guard`.

Between two calls nothing is left in the reactor (the guard is given plain file descriptors, and its reports are polled
for while somebody waits), so that one server may serve many test cases under trial's check for a dirty reactor.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet import defer, protocol, task
from twisted.python.failure import Failure

from txmongo._testing import guard

POLL_INTERVAL = 0.01

T = TypeVar("T")


class NotInTime(Exception):
    """What was waited for did not happen in time."""


def wait_until(
    clock: Any, ask: Callable[[], T | defer.Deferred[T]], timeout: float, what: str = "not in time"
) -> defer.Deferred[T]:
    """Ask every few milliseconds until the answer is true in Python's sense.

    :param ask: gives the answer or a Deferred of it.
    :param what: the text of the error if time runs out.
    :returns: a Deferred of the answer; it fails with :class:`NotInTime` after ``timeout`` seconds, and as ``ask``
        fails.
    """
    return defer.Deferred.fromCoroutine(_ask_until(clock, ask, timeout, what))


async def _ask_until(clock: Any, ask: Callable[[], T | defer.Deferred[T]], timeout: float, what: str) -> T:
    give_up_at = clock.seconds() + timeout
    while True:
        answer: Any = await defer.maybeDeferred(ask)
        if answer:
            return cast(T, answer)
        if clock.seconds() >= give_up_at:
            raise NotInTime(what)
        await task.deferLater(clock, POLL_INTERVAL, lambda: None)


class GuardLost(OSError):
    """Somebody has killed the guard; what it ran has been killed with it."""


class _GuardProtocol(protocol.ProcessProtocol):
    """Says when the guard has ended."""

    def __init__(self) -> None:
        self.ended = False
        self._waiting: defer.Deferred[None] = defer.Deferred()

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        self._waiting.callback(None)

    def wait(self) -> defer.Deferred[None]:
        """Fires when it has; to be called once."""
        return self._waiting


class Den:
    """A folder with a process in it.

    :ivar folder: made by :meth:`open`, removed by :meth:`close` or by the end of this process.
    :ivar pid: of the process that runs, else None.
    :ivar exit_code: of the last one that ran, negative for a signal.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.folder = Path(tempfile.gettempdir()) / f"txmongo-{uuid.uuid4().hex}"
        self.log_file = self.folder / guard.LOG_NAME
        self.pid: int | None = None
        self.exit_code: int | None = None
        self._ready = False
        self._failure: str | None = None
        self._guard: _GuardProtocol | None = None
        self._orders = self._reports = -1
        self._pipes: list[int] = []  # to be closed by us
        self._unread = b""

    def open(self) -> defer.Deferred[bool]:
        """Start the guard and have it make the folder.

        :returns: a Deferred of True, once the folder is there.
        """
        theirs_in, self._orders = os.pipe()
        self._reports, theirs_out = os.pipe()
        self._pipes += [self._orders, self._reports]
        os.set_blocking(self._reports, False)
        guarding = _GuardProtocol()
        try:
            self._reactor.spawnProcess(
                guarding,
                sys.executable,
                [sys.executable, "-I", "-S", guard.__file__, str(self.folder)],
                env=None,
                childFDs={0: theirs_in, 1: theirs_out, 2: 2},
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._guard = guarding
        return wait_until(self._reactor, lambda: self.look() and self._ready, 30)

    def run(self, command: list[str]) -> defer.Deferred[int]:
        """Run a command in the folder.

        :returns: a Deferred of its process id; it fails with OSError where the command cannot be run.
        """
        self.look()
        self.exit_code = self._failure = None
        os.write(self._orders, json.dumps(command).encode() + b"\n")

        def started() -> bool:
            self.look()
            if self._failure is not None:
                raise OSError(self._failure)
            return self.pid is not None or self.exit_code is not None

        return wait_until(self._reactor, started, 30).addCallback(lambda _: self.pid or 0)

    def look(self) -> bool:
        """Take note of what the guard has reported since the last look; always true."""
        try:
            while data := os.read(self._reports, 65536):
                self._unread += data
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self._note(json.loads(line))
        if self._guard is None or self._guard.ended:
            raise GuardLost("the process that guards a test server has ended")
        return True

    def _note(self, report: dict[str, Any]) -> None:
        match report["event"]:
            case "ready":
                self._ready = True
            case "started":
                self.pid = report["pid"]
            case "exited":
                self.pid = None
                self.exit_code = report["code"]
            case "failed":
                self._failure = report["reason"]

    @property
    def running(self) -> bool:
        """Whether the process runs (frozen or not)."""
        if self._guard is None or self._guard.ended:
            return False
        self.look()
        return self.pid is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; nothing happens if it has ended."""
        if self.running and self.pid is not None:
            os.kill(self.pid, number)

    def kill(self) -> defer.Deferred[bool]:
        """Kill the process; the folder stays.

        :returns: a Deferred of True, once it is gone.
        """
        self.signal(signal.SIGKILL)
        return wait_until(self._reactor, lambda: not self.running, 30)

    def close(self) -> defer.Deferred[None]:
        """Kill the process, remove the folder.

        :returns: a Deferred of None, once both are gone.
        """
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes.clear()
        self.pid = None
        guarding, self._guard = self._guard, None
        if guarding is None:
            return defer.succeed(None)
        return guarding.wait().addCallback(lambda _: self._remove_folder())

    def _remove_folder(self) -> None:
        """The guard's work, in case that somebody has killed the guard."""
        shutil.rmtree(self.folder, ignore_errors=True)
