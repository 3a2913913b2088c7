"""What an operation costs in instructions of the processor: ``python benchmarks/callgrind.py [--write]``.

The same operations as in :mod:`budget`, on the same server in memory, run under valgrind's callgrind. It counts the
instructions of everything, C as well as Python, and only while the operations run: the process tells it when, by the
*client requests* that valgrind's manual describes. Counts differ by less than one percent from run to run, whatever
else the machine does; but they are those of one build of Python, which ``budget.json`` names beside them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import budget

#: A function of one argument, the address of a client request, for x86-64: the sequence of instructions does nothing
#: by itself, and valgrind knows it.
_CLIENT_REQUEST = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
_CALLGRIND = (ord("C") << 24) | (ord("T") << 16)
_ZERO_STATS, _DUMP_STATS_AT, _START_INSTRUMENTATION, _STOP_INSTRUMENTATION = (_CALLGRIND + n for n in (1, 3, 4, 5))

#: In what callgrind writes: after which request it was, and the count.
_DUMP = re.compile(r"^desc: Trigger: Client Request: (\w+)$.*^totals: (\d+)$", re.MULTILINE | re.DOTALL)


def missing() -> str | None:
    """Why nothing can be counted here, or ``None`` if it can."""
    if platform.machine() != "x86_64":
        return f"instructions are counted on x86_64, not on {platform.machine()}"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    return None


def versions() -> dict[str, str]:
    """What the counts depend on beside the driver itself: one build each."""
    build, date = platform.python_build()
    python = f"{platform.python_implementation()} {platform.python_version()} ({build}, {date})"
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, check=True, text=True).stdout.strip()
    return {
        "python": f"{python} {platform.python_compiler()}",
        "twisted": budget.twisted.__version__,
        "pymongo": budget.pymongo_version(),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind.removeprefix("valgrind-"),
    }


def count() -> dict[str, dict[str, float]]:
    """The instructions of one call of each task.

    :raises subprocess.CalledProcessError: valgrind, or what it runs, failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ["--tool=callgrind", "--instr-atstart=no", "--vgdb=no", f"--callgrind-out-file={folder}/out"]
        inside = [sys.executable, "-B", __file__, "--inside"]
        environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONPATH": str(budget.ROOT)}
        subprocess.run(["valgrind", "-q", *options, *inside], env=environment, check=True, capture_output=True)
        found = [_DUMP.search(file.read_text()) for file in pathlib.Path(folder).iterdir()]
    totals = {dump[1]: int(dump[2]) for dump in found if dump is not None}
    return {name: {"instructions": round(totals[name] / calls)} for name, (calls, _) in budget.TASKS.items()}


class _ClientRequests:
    """Talks to the callgrind that runs this process."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_CLIENT_REQUEST)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(start)

    def make(self, request: int, text: bytes = b"") -> None:
        """Make a request; its argument is a text."""
        argument = ctypes.create_string_buffer(text)
        words = (ctypes.c_uint64 * 6)(request, ctypes.addressof(argument))
        self._call(ctypes.addressof(words))


def inside() -> None:
    """Do each task, counted by itself."""
    requests = _ClientRequests()
    for name, (calls, documents) in budget.TASKS.items():
        work = getattr(budget.Tasks(documents), name)
        work(min(budget.WARM_UP, calls))
        # A collection of garbage would count where it happens to fall.
        gc.collect()
        gc.disable()
        requests.make(_ZERO_STATS)
        requests.make(_START_INSTRUMENTATION)
        work(calls)
        requests.make(_STOP_INSTRUMENTATION)
        requests.make(_DUMP_STATS_AT, name.encode())
        gc.enable()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Count the instructions that operations take.")
    parser.add_argument("--write", action="store_true", help="record the figures in budget.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        inside()
        return
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    recorded = json.loads(budget.FILE.read_text())
    before: dict[str, Any] = recorded.get("callgrind", {"versions": {}, "tasks": {}})
    counted = count()
    for name, figures in counted.items():
        was = before["tasks"].get(name, {}).get("instructions", 0)
        print(f"{name:<24}{figures['instructions']:>14,}   recorded: {was:>14,}")
    if given.write:
        budget.FILE.write_text(
            json.dumps(recorded | {"callgrind": {"versions": versions(), "tasks": counted}}, indent=2) + "\n"
        )
    else:
        reason = budget.different_versions(before["versions"], versions())
        print("\n" + (reason or "\n".join(budget.dearer(before["tasks"], counted)) or "within the recorded figures"))


if __name__ == "__main__":
    main()
