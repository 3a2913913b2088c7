"""The conversation with the parent process and the measuring, shared by every driver's module."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Calls(Protocol):
    """A driver's calls: one method for each kind of task, ``number`` counting up over a run."""

    def call(self, kind: str, number: int) -> Any:
        """Start one call of a task's kind; the result is what the driver gives to wait for."""
        ...


def requests() -> Any:
    """The parent's requests, one JSON document a line."""
    for line in sys.stdin:
        yield json.loads(line)


def respond(**answer: Any) -> None:
    """Answer the parent."""
    print(json.dumps(answer), flush=True)


class Measurement:
    """Wall time and CPU time of this process between its making and :meth:`result`."""

    def __init__(self, seconds: float) -> None:
        self.done = 0
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self._end = self._wall + seconds

    def running(self) -> bool:
        """Whether a worker should start another call."""
        return time.perf_counter() < self._end

    def result(self, documents: int) -> dict[str, float]:
        """Operations per second and CPU microseconds an operation."""
        wall = time.perf_counter() - self._wall
        cpu = time.process_time() - self._cpu
        operations = self.done * documents
        return {
            "per_second": operations / wall,
            "cpu_us": cpu / operations * 1e6,
            "peak_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }


async def worker(call: Callable[[str, int], Awaitable[Any]], kind: str, measurement: Measurement) -> None:
    """Call again and again until the time is over."""
    while measurement.running():
        measurement.done += 1
        await call(kind, measurement.done)
