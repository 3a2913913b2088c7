"""A process that runs mongod in a folder of its own and leaves neither behind.

Run as a script, with nothing but the standard library: ``python -I -S guard.py FOLDER``. It makes the folder, then
obeys its standard input, one JSON array a line, each the command line of a process to run there; on its standard output
it reports, one JSON object a line: ``{"event": "ready"}``, ``{"event": "started", "pid": 1}``,
``{"event": "exited", "code": -9}``, ``{"event": "failed", "reason": "..."}``.

When its standard input ends, it kills what it runs, removes the folder and exits. The other end of that pipe is held by
the test run and by nobody else, so however the run ends, by SIGKILL even, the kernel closes it. That is why the folder
too is gone, which PR_SET_PDEATHSIG alone could not do; this process sets it all the same for its child, for
the day somebody kills the guard. It leads a session of its own, out of reach of a signal to the run's process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import Any

LOG_NAME = "log"
PR_SET_PDEATHSIG = 1


def report(**event: Any) -> None:
    """Tell the test run; that it no longer listens is not our business."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def die_with_parent() -> None:
    """In the child, between fork and exec: be killed when the guard is (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command: list[str], folder: str) -> subprocess.Popen[bytes] | None:
    """Run a command in the folder, its output appended to the folder's log."""
    with open(os.path.join(folder, LOG_NAME), "ab") as log:
        try:
            child = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            report(event="failed", reason=str(error))
            return None
    report(event="started", pid=child.pid)
    return child


def obey(folder: str, child_signals: int) -> None:
    """Run what standard input asks for until it ends."""
    child: subprocess.Popen[bytes] | None = None
    pending = b""
    try:
        while True:
            readable, _, _ = select.select([0, child_signals], [], [])
            if child_signals in readable:
                os.read(child_signals, 4096)
            if child is not None and child.poll() is not None:
                report(event="exited", code=child.returncode)
                child = None
            if 0 in readable:
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    child = start(json.loads(line), folder)
    finally:
        if child is not None:
            child.kill()
            child.wait()


def terminate(_number: int, _frame: object) -> None:
    """A polite request to end still cleans up."""
    sys.exit(1)


def main(folder: str) -> None:
    """Make the folder, obey, remove the folder."""
    os.setsid()
    child_signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, terminate)
    os.mkdir(folder, 0o700)
    try:
        report(event="ready")
        obey(folder, child_signals)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
