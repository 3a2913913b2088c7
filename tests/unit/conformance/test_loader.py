"""Tests of the reading of specification tests: both namings of the folders, keys, and the refusal of what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from bson.int64 import Int64
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance import loader


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")


class SpecsDirTests(SynchronousTestCase):
    """Where the specification tests are looked for."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.patch(os, "environ", {"TXMONGO_SPECS_DIR": str(self.root)})

    def test_source_distribution(self) -> None:
        """The folder of an unpacked source distribution is understood."""
        write(self.root / "test/crud/unified/find.json", {"tests": [{"description": "one"}]})
        self.assertEqual(loader.specs_dir(), (self.root / "test").resolve())
        self.assertEqual([case.key for case in loader.load_cases("crud/unified")], [("crud/unified", "find", "one")])

    def test_specifications_repository(self) -> None:
        """A checkout of the specifications repository is understood, and its cases keep the other naming's keys."""
        write(self.root / "source/crud/tests/unified/find.json", {"tests": [{"description": "one"}]})
        write(self.root / "source/server-discovery-and-monitoring/tests/rs/a.json", {"description": "two"})
        write(self.root / "source/connection-monitoring-and-pooling/tests/cmap-format/b.json", {"description": "three"})
        self.assertEqual(loader.specs_dir(), (self.root / "source").resolve())
        keys = [
            case.key
            for suite in ("crud/unified", "discovery_and_monitoring/rs", "connection_monitoring")
            for case in loader.load_cases(suite)
        ]
        expected = [
            ("crud/unified", "find", "one"),
            ("discovery_and_monitoring/rs", "a", "two"),
            ("connection_monitoring", "b", "three"),
        ]
        self.assertEqual(keys, expected)

    def test_neither(self) -> None:
        """A folder without the tests is refused by name."""
        self.root.mkdir()
        error = self.assertRaises(loader.SpecsUnavailable, loader.specs_dir)
        self.assertIn(str(self.root), str(error))


class LoadCasesTests(SynchronousTestCase):
    """What becomes of the files of a suite."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "crud/unified").mkdir(parents=True)
        self.patch(os, "environ", {"TXMONGO_SPECS_DIR": str(self.root)})

    def test_file_is_the_case(self) -> None:
        """A file without a list of tests is one case, called after its description or its name."""
        write(self.root / "rtt/first.json", {"avg_rtt_ms": "NULL"})
        write(self.root / "rtt/second.json", {"description": "said", "avg_rtt_ms": 1})
        descriptions = [case.description for case in loader.load_cases("rtt")]
        self.assertEqual(descriptions, ["first", "said"])

    def test_subfolders(self) -> None:
        """Cases of subfolders are keyed by their own folder."""
        write(self.root / "selection/Single/read/a.json", {})
        self.assertEqual(loader.load_cases("selection")[0].folder, "selection/Single/read")

    def test_extended_json(self) -> None:
        """Extended JSON becomes BSON types."""
        write(self.root / "crud/unified/a.json", {"tests": [{"description": "x", "n": {"$numberLong": "7"}}]})
        self.assertIsInstance(loader.load_cases("crud/unified")[0].test["n"], Int64)

    def test_shadowed(self) -> None:
        """Two cases with one key are an error: one would shadow the other."""
        write(self.root / "crud/unified/a.json", {"tests": [{"description": "x"}, {"description": "x"}]})
        self.assertRaises(loader.SpecsUnavailable, loader.load_cases, "crud/unified")

    def test_unknown_suite(self) -> None:
        """A suite that is not there is an error."""
        self.assertRaises(loader.NoSuchSuite, loader.load_cases, "nothing")

    def test_empty_suite(self) -> None:
        """A suite without a case is an error, not a pass."""
        self.assertRaises(loader.NoSuchSuite, loader.load_cases, "crud/unified")


class ArchiveTests(SynchronousTestCase):
    """The downloaded archive's check and unpacking."""

    def archive(self, members: dict[str, bytes]) -> Path:
        """A source distribution with these members."""
        path = Path(self.mktemp())
        with tarfile.open(path, "w:gz") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    def test_only_json_of_the_tests(self) -> None:
        """Nothing but the JSON of the tests is unpacked."""
        archive = self.archive({"p/test/crud/a.json": b"{}", "p/test/crud/a.py": b"", "p/setup.json": b"{}"})
        fresh = Path(self.mktemp())
        loader._unpack(archive, fresh)
        files = [str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file()]
        self.assertEqual(files, ["crud/a.json"])

    def test_member_outside(self) -> None:
        """A member that would land outside the folder is refused."""
        archive = self.archive({"p/test/../../../out.json": b"{}"})
        self.assertRaises(loader.SpecsUnavailable, loader._unpack, archive, Path(self.mktemp()))

    def test_digest(self) -> None:
        """An archive with another digest is refused; the pinned one passes."""
        archive = self.archive({})
        self.assertRaises(loader.SpecsUnavailable, loader._check_digest, archive)
        self.patch(loader, "PINNED_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
        loader._check_digest(archive)
