"""The files that the TLS options name: what is read from them, and what is said when they are of no use."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from txmongo._settings import parse_settings
from txmongo._tls import read_client_certificate, read_revocation_lists, read_trusted
from txmongo.errors import ConfigurationError
from txmongo.testing import CertificateAuthority


def revocation_list() -> bytes:
    """An empty list, in PEM, of an authority of its own."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "revoker")])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now)
    signed = builder.next_update(now + datetime.timedelta(days=1)).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )
    return signed.public_bytes(Encoding.PEM)


class FileTests(SynchronousTestCase):
    """Reading PEM files."""

    def setUp(self) -> None:
        """Make an authority with a client's certificate."""
        self.authority = CertificateAuthority(self.mktemp())

    def write(self, content: bytes) -> str:
        """A new file with this content."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def refused(self, *arguments: object) -> str:
        """The error of reading a client certificate, which names option and file."""
        option, path, *_ = arguments
        error = str(self.assertRaises(ConfigurationError, read_client_certificate, *arguments))
        self.assertIn(str(option), error)
        self.assertIn(str(path), error)
        return error

    def test_trusted(self) -> None:
        """All certificates of a file are trusted."""
        other = CertificateAuthority(self.mktemp(), "other")
        both = self.write(self.authority.ca_file.read_bytes() + b"# comment\n" + other.ca_file.read_bytes())
        names = [certificate.subject.rfc4514_string() for certificate in read_trusted("tlsCAFile", both)]
        self.assertEqual(len(names), 2)
        self.assertIn("CN=other", names[1])

    def test_client_certificate(self) -> None:
        """Key, certificate and chain come out of one file, in whatever order they stand."""
        file = self.authority.client().read_bytes()
        split = file.index(b"-----BEGIN PRIVATE")
        for content in (
            file + self.authority.ca_file.read_bytes(),
            self.authority.ca_file.read_bytes() + file[split:] + file[:split],
        ):
            client = read_client_certificate("tlsCertificateKeyFile", self.write(content), None)
            self.assertIn("CN=client", client.certificate.subject.rfc4514_string())
            self.assertEqual(client.certificate.public_key(), client.private_key.public_key())
            self.assertEqual(len(client.chain), 1)

    def test_encrypted_key(self) -> None:
        """An encrypted key needs its password, and a password for one that is not encrypted does no harm."""
        path = str(self.authority.client(password="hunter2"))
        read_client_certificate("o", path, "hunter2")
        self.assertIn("tlsCertificateKeyFilePassword", self.refused("o", path, None))
        error = self.refused("o", path, "hunter3")
        self.assertIn("tlsCertificateKeyFilePassword", error)
        self.assertNotIn("hunter", error)
        read_client_certificate("o", str(self.authority.client("other")), "hunter2")

    def test_useless_files(self) -> None:
        """A file that is not there, empty, without its key, or with another's certificate is refused by name."""
        file = self.authority.client().read_bytes()
        split = file.index(b"-----BEGIN PRIVATE")
        other = self.authority.client("other").read_bytes()
        self.assertIn("No such file", self.refused("o", "/nonexistent/x.pem", None))
        self.assertIn("no private key", self.refused("o", self.write(b""), None))
        self.assertIn("no private key", self.refused("o", self.write(file[:split]), None))
        self.assertIn("no certificate", self.refused("o", self.write(file[split:]), None))
        self.assertIn(
            "belongs", self.refused("o", self.write(other[: other.index(b"-----BEGIN PRIV")] + file[split:]), None)
        )
        broken = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        self.assertIn("cannot be used", self.refused("o", self.write(broken), None))

    def test_useless_authority(self) -> None:
        """A certificate that is none is refused, with the option's name."""
        path = self.write(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        error = str(self.assertRaises(ConfigurationError, read_trusted, "tlsCAFile", path))
        self.assertIn("tlsCAFile", error)
        self.assertIn(path, error)

    def test_revocation_lists(self) -> None:
        """Lists of revoked certificates are read."""
        (found,) = read_revocation_lists("tlsCRLFile", self.write(revocation_list()))
        self.assertEqual(found.issuer.rfc4514_string(), "CN=revoker")


class SettingsTests(SynchronousTestCase):
    """The files by their options."""

    def test_options(self) -> None:
        """The three file options are read when the settings are made, never later."""
        authority = CertificateAuthority(self.mktemp())
        revoked = Path(self.mktemp())
        revoked.write_bytes(revocation_list())
        client = authority.client(password="hunter2")
        settings = parse_settings(
            f"mongodb://h/?tlsCAFile={authority.ca_file}&tlsCertificateKeyFile={client}",
            tlsCertificateKeyFilePassword="hunter2",
            tlsCRLFile=str(revoked),
        )
        for file in (authority.ca_file, client, revoked):
            file.unlink()
        assert settings.tls is not None and settings.tls.trusted is not None
        self.assertEqual(len(settings.tls.trusted), 1)
        self.assertIsNotNone(settings.tls.client_certificate)
        self.assertEqual(len(settings.tls.revocation_lists), 1)
        self.assertNotIn("hunter2", repr(settings))

    def test_missing_file(self) -> None:
        """A path that does not exist is an error at once that names the option."""
        for option in ("tlsCAFile", "tlsCertificateKeyFile", "tlsCRLFile"):
            error = self.assertRaises(ConfigurationError, parse_settings, f"mongodb://h/?{option}=/nonexistent/x.pem")
            self.assertIn(option, str(error))
            self.assertIn("/nonexistent/x.pem", str(error))

    def test_revocation_without_verification(self) -> None:
        """A list of revoked certificates is of no use when none is verified."""
        error = self.assertRaises(
            ConfigurationError, parse_settings, "mongodb://h/?tls=true&tlsInsecure=true&tlsCRLFile=/x"
        )
        self.assertIn("tlsCRLFile", str(error))
