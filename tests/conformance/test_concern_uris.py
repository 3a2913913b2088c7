"""The Read and Write Concern specification's tests of connection strings, run through the driver's settings."""

from __future__ import annotations

from typing import Any

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.uri_cases import URITestCase
from txmongo._settings import ClientSettings, parse_settings
from txmongo.errors import ConfigurationError


def concern_of(settings: ClientSettings) -> dict[str, Any]:
    """The write concern in the words of the tests."""
    words = {"w": "w", "wtimeout": "wtimeoutMS", "j": "journal"}
    return {words[name]: value for name, value in settings.write_concern.document.items()}


class ConcernURITests(URITestCase):
    """Concerns in connection strings: which are valid, and what they say."""

    def run_case(self, case: Case) -> None:
        """Make settings, and compare their concerns."""
        test = case.test
        if not test["valid"] and test["warning"] is None:
            # The URI options specification: what an option does not allow is warned of and left out.
            with self.warned(True):
                settings = parse_settings(test["uri"])
            self.assertEqual(concern_of(settings), {})
            return
        if not test["valid"]:
            self.assertRaises((ConfigurationError, ValueError), parse_settings, test["uri"])
            return
        with self.warned(bool(test["warning"])):
            settings = parse_settings(test["uri"])
        if "readConcern" in test:
            self.assertEqual(settings.read_concern.document, test["readConcern"])
        else:
            self.assertEqual(concern_of(settings), test["writeConcern"])


add_cases(ConcernURITests, "read_write_concern/connection-string", ConcernURITests.run_case)
