"""Tests of the requirements of cases: versions, topologies and the rest."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.unified.failures import FormatError
from tests.conformance.unified.requirements import ServerFacts, check_schema_version, parse_version, unmet
from tests.unit.conformance.cases import make_case

PARAMETERS = {"enableTestCommands": True, "limit": 5, "authenticationMechanisms": ["SCRAM-SHA-256"]}
FACTS = ServerFacts((6, 0, 5), "replicaset", True, PARAMETERS)


class RequirementTests(SynchronousTestCase):
    """One requirement against a replica set of 6.0.5 with authentication."""

    def met(self, **requirement: Any) -> bool:
        """Whether a case with this requirement may run."""
        return unmet(make_case(runOnRequirements=[requirement]), FACTS) is None

    def test_versions(self) -> None:
        """Versions are compared number by number, both bounds included."""
        self.assertTrue(self.met(minServerVersion="6.0.5"))
        self.assertTrue(self.met(maxServerVersion="6.0.5"))
        self.assertTrue(self.met(minServerVersion="4.4", maxServerVersion="6.0.99"))
        self.assertTrue(self.met(maxServerVersion="10.0"))
        self.assertFalse(self.met(minServerVersion="6.0.6"))
        self.assertFalse(self.met(maxServerVersion="6.0.4"))

    def test_topologies(self) -> None:
        """The topology is one of those named."""
        self.assertTrue(self.met(topologies=["single", "replicaset"]))
        self.assertFalse(self.met(topologies=["sharded"]))

    def test_serverless(self) -> None:
        """Only a serverless instance is something else."""
        self.assertTrue(self.met(serverless="forbid"))
        self.assertTrue(self.met(serverless="allow"))
        self.assertFalse(self.met(serverless="require"))

    def test_auth(self) -> None:
        """Authentication is wanted, unwanted or of no matter."""
        self.assertTrue(self.met(auth=True))
        self.assertFalse(self.met(auth=False))

    def test_parameters(self) -> None:
        """Server parameters are compared by value; one that is missing differs."""
        self.assertTrue(self.met(serverParameters={"enableTestCommands": True, "limit": 5.0}))
        self.assertFalse(self.met(serverParameters={"enableTestCommands": False}))
        self.assertFalse(self.met(serverParameters={"enableTestCommands": 1}))
        self.assertFalse(self.met(serverParameters={"other": True}))

    def test_mechanism(self) -> None:
        """An authentication mechanism is one of the server's, in any case."""
        self.assertTrue(self.met(authMechanism="scram-sha-256"))
        self.assertFalse(self.met(authMechanism="MONGODB-OIDC"))

    def test_encryption(self) -> None:
        """Client-side encryption is there with its library, of a version that may be asked for."""
        self.assertTrue(self.met(csfle=False))
        self.assertFalse(self.met(csfle=True))
        facts = attrs.evolve(FACTS, libmongocrypt=(1, 15, 1))
        for wanted, expected in (
            (False, False),
            (True, True),
            ({"minLibmongocryptVersion": "1.15.1"}, True),
            ({"minLibmongocryptVersion": "1.16.0"}, False),
        ):
            case = make_case(runOnRequirements=[{"csfle": wanted}])
            self.assertEqual(unmet(case, facts) is None, expected, wanted)

    def test_unknown(self) -> None:
        """An unknown requirement is an error."""
        self.assertRaises(FormatError, self.met, colour="red")


class CaseTests(SynchronousTestCase):
    """All requirements of a case."""

    def test_one_of_several(self) -> None:
        """One of the requirements in a list is enough."""
        case = make_case(runOnRequirements=[{"minServerVersion": "8.0"}, {"topologies": ["replicaset"]}])
        self.assertIsNone(unmet(case, FACTS))

    def test_file_and_test(self) -> None:
        """The file's and the test's requirements both have to be met."""
        case = make_case({"runOnRequirements": [{"minServerVersion": "8.0"}]}, runOnRequirements=[{"auth": True}])
        self.assertIn("8.0", str(unmet(case, FACTS)))
        case = make_case({"runOnRequirements": [{"auth": True}]}, runOnRequirements=[{"minServerVersion": "8.0"}])
        self.assertIn("8.0", str(unmet(case, FACTS)))

    def test_skip_reason(self) -> None:
        """What the specification itself skips cannot run, and its reason is given."""
        self.assertIn("later", str(unmet(make_case({"skipReason": "later"}), FACTS)))


class VersionTests(SynchronousTestCase):
    """Versions of servers and of the format."""

    def test_parse(self) -> None:
        """Three numbers count; missing ones are zero, the rest is dropped."""
        self.assertEqual(parse_version("4"), (4, 0, 0))
        self.assertEqual(parse_version("4.9.0-alpha4-271-g7d5cf02"), (4, 9, 0))
        self.assertRaises(FormatError, parse_version, "new")

    def test_schema(self) -> None:
        """A file of an older version of the format is read, one of a newer or of another major version is not."""
        check_schema_version({"schemaVersion": "1.0"})
        check_schema_version({"schemaVersion": "1.26"})
        for version in ("0.1", "1.999", "2.0", None):
            self.assertRaises(FormatError, check_schema_version, {"schemaVersion": version})
