"""The benchmarks, ours and four peers side by side: ``python benchmarks/run.py``, or ``tox run -e bench``.

Each driver runs in a process and a virtual environment of its own. Every round does every task with every driver, in
an order that turns, so that what else the machine does hits all of them; the tables show medians over the rounds, and
the medians of the ratios within the rounds. ``--quick`` goes over everything once, with little data, in under three
minutes: it shows that all works, and its figures are rough. ``--against REVISION`` adds this driver as it was at
another commit, to see what a change is worth.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import data
import report
from peers import BEFORE, OURS, ROOT, TITLES, Peer, Servers, cache_folder
from tasks import PARTS, TASKS, Task

#: The drivers that ours is measured beside.
PEERS = [name for name in TITLES if name not in (OURS, BEFORE)]

#: Tasks whose numbers of operations are not made fewer for a quick run: few as they are.
_FEW = 10


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured.

    :ivar seconds: of each task that goes on for a time, each driver, each round.
    :ivar iteration_seconds: the same of those that are iterated, which end with the iteration that reaches it.
    :ivar scale: the part of the operations of an iteration that is done.
    """

    rounds: int
    seconds: float
    iteration_seconds: float
    scale: float

    def operations(self, full: int) -> int:
        """How many operations of a task's iteration are done."""
        return full if full <= _FEW else max(4, int(full * self.scale) // 2 * 2)

    def count(self, full: int) -> int:
        """How many connections, operations or cursors are there at once."""
        return min(full, max(50, int(full * self.scale)))


FULL = Extent(rounds=5, seconds=1.0, iteration_seconds=3.0, scale=1.0)
QUICK = Extent(rounds=1, seconds=0.15, iteration_seconds=0.1, scale=0.05)


class Run:
    """One run: its servers, its drivers, what they have measured.

    :ivar results: see :mod:`figures`.
    :ivar problems: why a driver has no result, by task and driver.
    :param before: a checkout of another revision, which is measured too.
    """

    def __init__(
        self, tasks: Sequence[Task], drivers: Sequence[str], extent: Extent, before: pathlib.Path | None = None
    ) -> None:
        self.results: dict[str, dict[str, list[Any]]] = {task.name: {name: [] for name in drivers} for task in tasks}
        self.problems: dict[str, dict[str, str]] = {}
        self._tasks = tasks
        self._extent = extent
        self._servers = Servers()
        self._before = before
        self._peers = {name: self._peer(name) for name in drivers}
        self._filler = Peer("pymongo_sync")
        self._server_version = ""

    # --- the whole of it ---

    def measure(self) -> None:
        """All rounds of all tasks."""
        self._fill()
        for peer in self._peers.values():
            self._warm_up(peer)
        for turn in range(self._extent.rounds):
            for task in self._tasks:
                if turn < task.rounds:
                    self._round(task, turn)

    def stop(self) -> None:
        """End every process."""
        for peer in (*self._peers.values(), self._filler):
            peer.stop()
        self._servers.stop()

    def document(self) -> dict[str, Any]:
        """Everything about the run, to be kept as JSON."""
        return {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
            "machine": machine(),
            "server": self._server_version,
            "revision": revision(),
            "extent": dataclasses.asdict(self._extent),
            "versions": {name: peer.versions for name, peer in self._peers.items()},
            "results": self.results,
            "problems": self.problems,
        }

    # --- its steps ---

    def _peer(self, name: str) -> Peer:
        return Peer(name, self._before if name == BEFORE else None)

    def _fill(self) -> None:
        """Write what is read: only what the chosen tasks need."""
        parts = {"micro"}
        scripts = {task.script for task in self._tasks}
        if scripts & {"find_by_id", "find_all", "json_export"}:
            parts.add("specification")
        if scripts & {"gridfs_download", "gridfs_multi_download", "gridfs_down_memory"}:
            parts.add("downloads")
        request = {
            "script": "fill",
            "parts": sorted(parts),
            "uri": self._servers.uri("plain"),
            "folder": str(cache_folder() / "data"),
            "tweets": self._extent.operations(10_000),
            "json_files": self._extent.operations(100) if "json_export" in scripts else 0,
            "binary_files": self._extent.operations(50) if "gridfs_multi_download" in scripts else 0,
            "gridfs_bytes": data.GRIDFS_BYTES,
        }
        answer = self._filler.run(request)
        if "error" in answer:
            raise SystemExit(f"the server could not be filled: {answer['error']}")
        self._server_version = answer["server"]
        if "tls" in {task.server for task in self._tasks}:
            self._filler.run({"script": "fill", "parts": ["micro"], "uri": self._servers.uri("tls")})

    def _warm_up(self, peer: Peer) -> None:
        """The code of the first operations is loaded, and connections are open, before anything is measured."""
        for kind in ("find_one", "insert_one"):
            request = {"script": "rate", "uri": self._servers.uri("plain"), "kind": kind, "in_flight": 100}
            answer = peer.run(request | {"seconds": min(0.5, self._extent.seconds)})
            if "error" in answer:
                raise SystemExit(f"{peer.name} does not run: {answer['error']}")

    def _round(self, task: Task, turn: int) -> None:
        """One task with every driver, beginning with another one each time."""
        names = list(self._peers)
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            peer = self._peer(name) if task.fresh else self._peers[name]
            began = time.perf_counter()
            answer = self._measure(task, peer)
            if task.fresh:
                peer.stop(patience=1.0)
            measured = "error" not in answer and "unsupported" not in answer
            if not measured:
                self.problems.setdefault(task.name, {})[name] = answer.get("error") or answer["unsupported"]
            self.results[task.name][name].append(answer if measured else None)
            took = time.perf_counter() - began
            print(f"round {turn + 1}  {task.name}, {TITLES[name]}: {took:.1f} s", file=sys.stderr)

    def _measure(self, task: Task, peer: Peer) -> dict[str, Any]:
        request = self._request(task)
        if task.script != "wire":
            return peer.run(request)
        peer.run({**request, "calls": 5})
        sent, received = self._servers.passed()
        answer = peer.run(request)
        now_sent, now_received = self._servers.passed()
        calls = request["calls"]
        return answer | {"sent": (now_sent - sent) / calls, "received": (now_received - received) / calls}

    def _request(self, task: Task) -> dict[str, Any]:
        parameters = dict(task.parameters)
        seconds = self._extent.seconds
        if "operations" in parameters:
            seconds = self._extent.iteration_seconds
            parameters["operations"] = self._extent.operations(parameters["operations"])
        if "count" in parameters:
            parameters["count"] = self._extent.count(parameters["count"])
        uri = self._servers.uri(task.server)
        if task.options:
            uri += ("&" if "?" in uri else "?") + "&".join(f"{name}={value}" for name, value in task.options.items())
        folder = str(cache_folder() / "data")
        return {"script": task.script, "uri": uri, "seconds": seconds, "folder": folder, **parameters}


def machine() -> str:
    """The machine, as far as figures depend on it."""
    model = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores {model}, {platform.system()} {platform.release().split('-')[0]}, {python}"


def revision() -> str:
    """Which state of this checkout was measured."""
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def checkout(revision: str, folder: str) -> pathlib.Path:
    """Put another revision of this checkout into a folder."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return pathlib.Path(folder)


def measured(
    tasks: Sequence[Task], drivers: Sequence[str], extent: Extent, against: str | None = None
) -> dict[str, Any]:
    """Run tasks with drivers; returns everything about the run.

    :param against: another revision, which is measured as one more driver.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = None if against is None else checkout(against, folder)
        run = Run(tasks, [*drivers, BEFORE] if before else drivers, extent, before)
        try:
            run.measure()
        finally:
            run.stop()
        return run.document()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare five drivers on one mongod.")
    parser.add_argument("--quick", action="store_true", help="everything once, with little data")
    parser.add_argument("--rounds", type=int, help=f"{FULL.rounds} if not given")
    parser.add_argument("--seconds", type=float, help="of each task that goes on for a time, in each round")
    parser.add_argument("--iteration-seconds", type=float, help="of each task of the specification, in each round")
    parser.add_argument("--scale", type=float, help="the part of the specification's operations that is done")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this; may be repeated")
    parser.add_argument("--task", action="append", help="only tasks whose name contains this; may be repeated")
    parser.add_argument("--driver", action="append", choices=PEERS, help="only ours and these")
    parser.add_argument("--against", metavar="REVISION", help="also ours as it was at this commit")
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("benchmark.json"), help="where it is kept")
    parser.add_argument("--chart", type=pathlib.Path, default=pathlib.Path("benchmark.png"))
    parser.add_argument(
        "--docs", action="store_true", help="also write the tables and the chart of docs/performance.rst"
    )
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    given = arguments()
    extent = QUICK if given.quick else FULL
    changes = {name: getattr(given, name) for name in ("rounds", "seconds", "iteration_seconds", "scale")}
    extent = dataclasses.replace(extent, **{name: value for name, value in changes.items() if value is not None})
    tasks = [task for task in TASKS if not given.part or task.part in given.part]
    tasks = [task for task in tasks if not given.task or any(part in task.name for part in given.task)]
    drivers = [OURS, *(name for name in PEERS if not given.driver or name in given.driver)]
    document = measured(tasks, drivers, extent, given.against)
    given.json.write_text(json.dumps(document, indent=1) + "\n")
    print(report.text(document))
    report.draw(given.json, given.chart)
    if given.docs:
        report.write_docs(document, given.json)


if __name__ == "__main__":
    main()
