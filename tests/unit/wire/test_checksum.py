"""Tests for :mod:`txmongo._wire.checksum`."""

from __future__ import annotations

import types
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.unit.wire import samples
from txmongo._wire import checksum as module
from txmongo._wire.checksum import checksum, choose_extend, verifiable
from txmongo._wire.optional import first_importable

#: The check value that every description of CRC-32C gives.
CHECK_DATA, CHECK_VALUE = b"123456789", 0xE3069283

google: Any = types.SimpleNamespace(implementation="c", extend=samples.crc32c)
slow_google: Any = types.SimpleNamespace(implementation="python", extend=samples.crc32c)
other: Any = types.SimpleNamespace(crc32c=lambda data, value=0: samples.crc32c(value, data))


class ChecksumTests(SynchronousTestCase):
    def test_reference(self) -> None:
        """The CRC-32C that these tests compare with gives the published check value."""
        self.assertEqual(samples.crc32c(0, CHECK_DATA), CHECK_VALUE)

    def test_either_library_will_do(self) -> None:
        """Each of the two libraries gives the CRC-32C, whatever order its arguments have."""
        for libraries in ((google, None), (None, other), (google, other), (slow_google, other)):
            extend = choose_extend(*libraries)
            assert extend is not None
            self.assertEqual(extend(extend(0, CHECK_DATA[:4]), CHECK_DATA[4:]), CHECK_VALUE)

    def test_no_library(self) -> None:
        """Without a library, or with a slow one only, there is no CRC-32C."""
        self.assertIsNone(choose_extend(None, None))
        self.assertIsNone(choose_extend(slow_google, None))

    def test_chunks(self) -> None:
        """The checksum of chunks is that of all of them in one."""
        self.patch(module, "_extend", samples.crc32c)
        self.assertTrue(verifiable())
        self.assertEqual(checksum(b"1234", b"", b"56789"), CHECK_VALUE)

    def test_chunks_without_library(self) -> None:
        """Without a library the checksum is None."""
        self.patch(module, "_extend", None)
        self.assertFalse(verifiable())
        self.assertIsNone(checksum(CHECK_DATA))

    def test_installed_google_crc32c(self) -> None:
        """The ``google_crc32c`` library gives the check value."""
        self._check_installed(first_importable("google_crc32c"), None)

    def test_installed_crc32c(self) -> None:
        """The ``crc32c`` library gives the check value."""
        self._check_installed(None, first_importable("crc32c"))

    def _check_installed(self, *libraries: types.ModuleType | None) -> None:
        extend = choose_extend(*libraries)
        if extend is None:
            raise SkipTest("the library is not installed")
        self.assertEqual(extend(extend(0, CHECK_DATA[:4]), CHECK_DATA[4:]), CHECK_VALUE)
