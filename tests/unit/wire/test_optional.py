"""Tests for :mod:`txmongo._wire.optional`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txmongo._wire.optional import first_importable


class FirstImportableTests(SynchronousTestCase):
    def test_first_that_is_there(self) -> None:
        """A module that is missing is passed over for the next."""
        self.assertIs(first_importable("txmongo_no_such_module", "json", "bson"), json)

    def test_none_there(self) -> None:
        """Without any of the modules there is None."""
        self.assertIsNone(first_importable("txmongo_no_such_module", "txmongo.no_such_module"))

    def test_warnings_of_the_library(self) -> None:
        """A library that warns while it is imported neither warns the user nor fails where warnings are errors."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "txmongo_warns_on_import.py").write_text("import warnings\nwarnings.warn('slow', RuntimeWarning)\n")
        self.patch(sys, "path", [str(folder), *sys.path])
        self.addCleanup(sys.modules.pop, "txmongo_warns_on_import", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertIsNotNone(first_importable("txmongo_warns_on_import"))
        self.assertEqual(self.flushWarnings(), [])
