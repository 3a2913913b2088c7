"""The Connection String specification's tests, run through the driver's own parser and its settings."""

from __future__ import annotations

from typing import Any

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.uri_cases import URITestCase
from txmongo._options import ParsedURI, parse_uri
from txmongo._settings import parse_settings
from txmongo.errors import ConfigurationError


class ConnectionStringTests(URITestCase):
    """Connection strings: which are valid, and what they say."""

    def run_case(self, case: Case) -> None:
        """Parse, and compare hosts, credentials and options."""
        test = case.test
        if not test["valid"]:
            self.assertRaises((ConfigurationError, ValueError), parse_uri, test["uri"])
            self.assertRaises((ConfigurationError, ValueError), parse_settings, test["uri"])
            return
        with self.warned(bool(test.get("warning"))):
            parsed = parse_uri(test["uri"])
        self.check_hosts(parsed, test.get("hosts") or [])
        self.check_auth(parsed, test.get("auth") or {})
        if self.usable(parsed):
            self.check_settings(parsed, test)

    def check_hosts(self, parsed: ParsedURI, expected: list[dict[str, Any]]) -> None:
        """The seeds are the hosts, in their order."""
        self.assertEqual([host for host, _ in parsed.seeds], [host["host"] for host in expected])
        for (_, port), host in zip(parsed.seeds, expected, strict=True):
            default = None if parsed.is_srv or host["host"].endswith(".sock") else 27017
            self.assertEqual(port, host["port"] or default)

    def check_auth(self, parsed: ParsedURI, expected: dict[str, Any]) -> None:
        """User and database; as PyMongo does, '+' is read as a space, and an empty password as none."""
        if not expected:
            return
        database = parsed.database if parsed.collection is None else f"{parsed.database}.{parsed.collection}"
        found = {"username": parsed.username, "password": parsed.password, "db": database}
        for name, value in expected.items():
            self.assertEqual(found[name], value.replace("+", " ") or None if isinstance(value, str) else value)

    def usable(self, parsed: ParsedURI) -> bool:
        """Whether a client can be made: a name without a password is a valid string, but no credential."""
        return parsed.username is None or parsed.password is not None or "authmechanism" in parsed.options

    def check_settings(self, parsed: ParsedURI, test: dict[str, Any]) -> None:
        """The same comes out of the settings."""
        try:
            with self.warned(bool(test.get("warning"))):
                settings = parse_settings(test["uri"])
        except ConfigurationError as error:
            # What was warned of and left out can be what the mechanism needs.
            self.assertTrue(test.get("warning") and "MONGODB-OIDC" in str(error), error)
            self.assertEqual(parsed.options, {"authmechanism": "MONGODB-OIDC"})
            return
        self.assertEqual(settings.seeds, parsed.seeds)
        self.assertEqual(settings.database, parsed.database)
        self.check_options(settings, test.get("options") or {})


add_cases(ConnectionStringTests, "connection_string/test", ConnectionStringTests.run_case)
