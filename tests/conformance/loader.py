"""Finds the specification tests and reads them as cases.

Lives here: where the JSON comes from (a pinned PyMongo source distribution, unpacked once into a cache outside the
tree, or ``$TXMONGO_SPECS_DIR``), the two ways of naming its folders, and the reading of a folder into :class:`Case`
values.
Does not live here: what a case means; each format's runner knows that. Nothing is downloaded at import.

The JSON belongs to the MongoDB specifications (Apache-2.0); it is never committed.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
from bson import json_util

__all__ = [
    "PINNED",
    "Case",
    "NoSuchSuite",
    "SpecsUnavailable",
    "is_pinned",
    "load_cases",
    "load_file",
    "read_json",
    "specs_dir",
]

PINNED = "pymongo==4.20.0"
PINNED_ARCHIVE = "pymongo-4.20.0.tar.gz"
PINNED_SHA256 = "f773b0aec28687587cdeda490463a82debc4566a4a3620dcc8dada9d2c0a1acd"

#: The sdist's folder, and the folder of the specifications repository (below ``source/``) with the same tests. The
#: longest match wins.
SPECIFICATION_FOLDERS: dict[str, str] = {
    "auth": "auth/tests",
    "bson_binary_vector": "bson-binary-vector/tests",
    "bson_corpus": "bson-corpus/tests",
    "causal_consistency": "causal-consistency/tests",
    "change_streams": "change-streams/tests",
    "client-backpressure": "client-backpressure/tests",
    "client-side-encryption/spec": "client-side-encryption/tests",
    "collection_management": "collection-management/tests",
    "command_logging": "command-logging-and-monitoring/tests/logging",
    "command_monitoring": "command-logging-and-monitoring/tests/monitoring",
    "connection_logging": "connection-monitoring-and-pooling/tests/logging",
    "connection_monitoring": "connection-monitoring-and-pooling/tests/cmap-format",
    "connection_string/test": "connection-string/tests",
    "crud": "crud/tests",
    "csot": "client-side-operations-timeout/tests",
    "discovery_and_monitoring": "server-discovery-and-monitoring/tests",
    "gridfs": "gridfs/tests",
    "handshake": "mongodb-handshake/tests",
    "index_management": "index-management/tests",
    "load_balancer": "load-balancers/tests",
    "max_staleness": "max-staleness/tests",
    "read_write_concern": "read-write-concern/tests",
    "retryable_reads": "retryable-reads/tests",
    "retryable_writes": "retryable-writes/tests",
    "run_command": "run-command/tests",
    "sdam_monitoring": "server-discovery-and-monitoring/tests/monitoring",
    "server_selection/in_window": "server-selection/tests/in_window",
    "server_selection/rtt": "server-selection/tests/rtt",
    "server_selection/server_selection": "server-selection/tests/server_selection",
    "server_selection_logging": "server-selection/tests/logging",
    "sessions": "sessions/tests",
    "srv_seedlist": "initial-dns-seedlist-discovery/tests",
    "transactions": "transactions/tests",
    "transactions-convenient-api": "transactions-convenient-api/tests",
    "unified-test-format": "unified-test-format/tests",
    "uri_options": "uri-options/tests",
    "versioned-api": "versioned-api/tests",
}


class SpecsUnavailable(Exception):
    """The specification tests could neither be found nor downloaded."""


class NoSuchSuite(SpecsUnavailable):
    """The tree has no such folder, or no test in it."""


@attrs.frozen
class Case:
    """One specification test.

    :ivar folder: the folder in the source distribution's naming, such as ``"crud/unified"``.
    :ivar file: the file's name without ``.json``.
    :ivar description: the test's own description; the file's where the file is one test; its name where it has none.
    :ivar test: the test itself: an entry of the file's ``tests``, or the whole file.
    :ivar document: the whole file.
    """

    folder: str
    file: str
    description: str
    test: dict[str, Any] = attrs.field(repr=False, eq=False)
    document: dict[str, Any] = attrs.field(repr=False, eq=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """What names this case among all others."""
        return (self.folder, self.file, self.description)

    def __str__(self) -> str:
        return " / ".join(self.key)


def load_cases(suite: str) -> list[Case]:
    """Read every case below a suite's folder, sorted by folder and file, in file order.

    :param suite: a folder in the source distribution's naming, such as ``"crud/unified"``; subfolders are included.
    :raises NoSuchSuite: there is no such folder, or it holds no test.
    :raises SpecsUnavailable: there are no specification tests at all, or two cases have one name.
    """
    folder = _suite_folder(specs_dir(), suite)
    cases = [
        case
        for path in sorted(folder.rglob("*.json"))
        for case in load_file(path, _case_folder(suite, path.parent.relative_to(folder)))
    ]
    if not cases:
        raise NoSuchSuite(f"no specification tests in {folder} (suite {suite!r})")
    _refuse_shadowing(cases)
    return cases


def load_file(path: Path, folder: str) -> list[Case]:
    """Read the cases of one file; a file without a list of ``tests`` is one case."""
    document = read_json(path)
    tests = document.get("tests")
    if not isinstance(tests, list):
        return [Case(folder, path.stem, str(document.get("description") or path.stem), document, document)]
    return [
        Case(folder, path.stem, str(test.get("description") or f"test {index}"), test, document)
        for index, test in enumerate(tests)
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Read one file of extended JSON."""
    document: dict[str, Any] = json_util.loads(path.read_text("utf-8"))
    return document


def is_pinned() -> bool:
    """Whether the tests are those of the pinned source distribution, not of a tree that was named."""
    return not os.environ.get("TXMONGO_SPECS_DIR")


def specs_dir() -> Path:
    """The folder that holds the suites, in either naming.

    ``$TXMONGO_SPECS_DIR`` may name an unpacked source distribution, its ``test`` folder, a checkout of the
    specifications repository or its ``source`` folder. Without it the pinned source distribution is downloaded once.

    :raises SpecsUnavailable: with what to do about it.
    """
    if is_pinned():
        return _cached_specs()
    root = Path(named := os.environ["TXMONGO_SPECS_DIR"])
    for candidate in (root / "test", root / "source", root):
        if _holds_suites(candidate):
            return candidate.resolve()
    raise SpecsUnavailable(f"TXMONGO_SPECS_DIR={named} holds none of the specification tests' folders")


def _holds_suites(root: Path) -> bool:
    return (root / "crud" / "unified").is_dir() or (root / "crud" / "tests").is_dir()


def _suite_folder(root: Path, suite: str) -> Path:
    """Where a suite lies below `root`, whichever naming `root` keeps."""
    for candidate in (root / suite, root / _specification_folder(suite)):
        if candidate.is_dir():
            return candidate
    raise NoSuchSuite(f"no suite {suite!r} in {root}")


def _specification_folder(suite: str) -> PurePosixPath:
    path = PurePosixPath(suite)
    for prefix in (path, *path.parents):
        found = SPECIFICATION_FOLDERS.get(str(prefix))
        if found is not None:
            return PurePosixPath(found) / path.relative_to(prefix)
    return path


def _case_folder(suite: str, below: Path) -> str:
    return str(PurePosixPath(suite) / PurePosixPath(below.as_posix()))


def _refuse_shadowing(cases: list[Case]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for case in cases:
        if case.key in seen:
            raise SpecsUnavailable(f"two cases are called {case}")
        seen.add(case.key)


@functools.cache
def _cached_specs() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "txmongo"
    unpacked = cache / f"specs-{PINNED_SHA256[:16]}"
    if not unpacked.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "specs.lock"):
            if not unpacked.is_dir():
                _fetch(unpacked)
    return unpacked


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; it goes with the process that dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(unpacked: Path) -> None:
    """Download and unpack beside the goal, then rename: what stands under the final name is whole."""
    with tempfile.TemporaryDirectory(dir=unpacked.parent, prefix="specs-") as scratch:
        archive = _download(Path(scratch))
        _check_digest(archive)
        fresh = Path(scratch) / "fresh"
        _unpack(archive, fresh)
        fresh.rename(unpacked)


def _download(folder: Path) -> Path:
    """Let pip fetch the archive from whatever index it is configured for.

    A requirement with a hash admits that one file only. pip insists on a source distribution's metadata even for a
    download, and gets the build backend for it into an environment of its own.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PINNED} --hash=sha256:{PINNED_SHA256}\n", "utf-8")
    options = ["--no-deps", "--no-binary", "pymongo", "--require-hashes", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirement), "-d", str(folder)]
    # Warnings that are errors here are pip's own business.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    archive = folder / PINNED_ARCHIVE
    if done.returncode or not archive.is_file():
        last_lines = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise SpecsUnavailable(
            f"pip could not download the source distribution of {PINNED}, which holds the specification tests; "
            f"unpack it yourself and set TXMONGO_SPECS_DIR to it. pip said:\n{last_lines}"
        )
    return archive


def _check_digest(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != PINNED_SHA256:
        raise SpecsUnavailable(f"{archive.name} has SHA-256 {digest}, expected {PINNED_SHA256}")


def _unpack(archive: Path, fresh: Path) -> None:
    """Unpack only the JSON below the distribution's ``test`` folder, without those two leading folders."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            parts = PurePosixPath(member.name).parts
            if not member.isfile() or len(parts) < 3 or parts[1] != "test" or not member.name.endswith(".json"):
                continue
            source = tar.extractfile(member)
            target = fresh.joinpath(*parts[2:])
            if source is None or not target.resolve().is_relative_to(fresh.resolve()):
                raise SpecsUnavailable(f"{archive.name} holds a member that does not belong there: {member.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read())
