"""The Authentication specification's tests of credentials in connection strings, run through the driver's settings."""

from __future__ import annotations

import warnings
from typing import Any

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.uri_cases import URITestCase
from txmongo._pymongo import MongoCredential
from txmongo._settings import parse_settings
from txmongo.errors import ConfigurationError


class CredentialTests(URITestCase):
    """Credentials: who is meant, where, and by which mechanism."""

    def run_case(self, case: Case) -> None:
        """Make settings, and compare the credential."""
        test = case.test
        if not test["valid"]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                self.assertRaises((ConfigurationError, ValueError), parse_settings, test["uri"])
            return
        with self.warned(False):
            credential = parse_settings(test["uri"]).credentials
        expected = test.get("credential")
        if expected is None:
            self.assertIsNone(credential)
            return
        assert credential is not None
        self.check_credential(credential, expected)

    def check_credential(self, credential: MongoCredential, expected: dict[str, Any]) -> None:
        """Every field of the credential."""
        self.assertEqual(
            (credential.username, credential.password, credential.source, credential.mechanism),
            (expected["username"], expected["password"], expected["source"], expected["mechanism"] or "DEFAULT"),
        )
        properties = expected["mechanism_properties"]
        if properties is None:
            self.assertFalse(any(credential.mechanism_properties or ()))
            return
        for name, value in properties.items():
            self.assertEqual(getattr(credential.mechanism_properties, name.lower()), value, name)


add_cases(CredentialTests, "auth/legacy", CredentialTests.run_case)
