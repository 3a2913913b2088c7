"""Warnings of deprecated names."""

from __future__ import annotations

import sys
import warnings

from twisted.trial.unittest import SynchronousTestCase

from txmongo._legacy.deprecation import SINCE, warn_deprecated


def old_name() -> None:
    """Deprecated."""
    warn_deprecated("old_name", "new_name")


class WarnTests(SynchronousTestCase):
    """:func:`warn_deprecated`."""

    def test_text(self) -> None:
        """The warning names the name, since when it is deprecated, and what to use, and points at the caller."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            old_name()
        (warning,) = caught
        self.assertIs(warning.category, DeprecationWarning)
        self.assertEqual(str(warning.message), f"old_name is deprecated since txmongo {SINCE}: use new_name")
        self.assertEqual(warning.filename, __file__)

    def test_once(self) -> None:
        """By the filter that shows them each line of a program is named once."""
        # Trial takes away from every module what Python remembers of its warnings.
        self.patch(sys.modules[__name__], "__warningregistry__", {})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                old_name()
            old_name()
        self.assertEqual(len(caught), 2)
