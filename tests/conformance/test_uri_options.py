"""The URI Options specification's tests, run through the driver's settings."""

from __future__ import annotations

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.uri_cases import URITestCase
from txmongo._settings import parse_settings
from txmongo.errors import ConfigurationError


class OptionsTestCase(URITestCase):
    """Runs one test."""

    def setUp(self) -> None:
        """Have the files at hand that the options name."""
        self.in_folder_with_certificates()

    def run_case(self, case: Case) -> None:
        """Make settings, and compare the options."""
        test = case.test
        if not test["valid"]:
            self.assertRaises((ConfigurationError, ValueError), parse_settings, test["uri"])
            return
        self.skip_without_compressors(test)
        with self.warned(bool(test.get("warning"))):
            settings = parse_settings(test["uri"])
        self.check_options(settings, test.get("options") or {})


def is_below(case: Case) -> bool:
    """Whether a case is named after a value that is too low; "x<0" and "x=0" make one name of a method."""
    return "<" in case.description


class URIOptionsTests(OptionsTestCase):
    """Options: which are valid, which are warned of, and what they mean."""


class TooLowTests(OptionsTestCase):
    """Values below what an option allows."""


add_cases(URIOptionsTests, "uri_options", URIOptionsTests.run_case, leave_out=is_below)
add_cases(TooLowTests, "uri_options", TooLowTests.run_case, leave_out=lambda case: not is_below(case))
