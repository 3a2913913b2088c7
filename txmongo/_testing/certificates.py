"""A certificate authority for tests of TLS and X.509 authentication."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from txmongo._testing.mongod import TLSFiles

LOOPBACK = ("localhost", "127.0.0.1", "::1")
DAY = datetime.timedelta(days=1)


class CertificateAuthority:
    """Makes certificates, as PEM files in a folder, that it alone vouches for.

    .. code-block:: python

        authority = CertificateAuthority(self.mktemp())
        mongod = await Mongod(reactor, tls=authority.tls_files()).start()

    :param folder: where the files go; made if it is not there. Whoever made it removes it.
    :param name: common name of the authority.
    """

    def __init__(self, folder: str | Path, name: str = "txmongo test authority") -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name, "txmongo authority")
        self._certificate = self._sign(self._name, self._key.public_key(), 3650 * DAY, [])
        #: The authority's own certificate: what ``tlsCAFile`` wants.
        self.ca_file = self.folder / "ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(
        self,
        name: str = "server",
        *,
        hosts: Sequence[str] = LOOPBACK,
        password: str | None = None,
        expired: bool = False,
    ) -> Path:
        """Make a server's certificate.

        :param name: common name, and name of the file.
        :param hosts: the host names and addresses that it is valid for.
        :param password: encrypts the key.
        :param expired: make one that was valid until yesterday.
        :returns: the file with certificate and key.
        """
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # members are clients of one another
        return self._issue(name, "txmongo servers", usage, names, password, expired)

    def client(self, name: str = "client", *, password: str | None = None, expired: bool = False) -> Path:
        """Make a client's certificate: what ``tlsCertificateKeyFile`` wants.

        :param name: common name, and name of the file. The subject is ``CN=<name>,O=txmongo clients``.
        :param password: encrypts the key.
        :param expired: make one that was valid until yesterday.
        :returns: the file with certificate and key.
        """
        return self._issue(name, "txmongo clients", [ExtendedKeyUsageOID.CLIENT_AUTH], [], password, expired)

    def tls_files(self, *, require_client_certificate: bool = False) -> TLSFiles:
        """A new server certificate, and a client's, as what ``Mongod(tls=...)`` takes.

        :param require_client_certificate: have the server refuse clients that present none.
        """
        return TLSFiles(
            certificate_key_file=self.server(),
            ca_file=self.ca_file,
            client_certificate_key_file=self.client(),
            require_client_certificate=require_client_certificate,
        )

    def _issue(
        self,
        name: str,
        organization: str,
        usage: Sequence[x509.ObjectIdentifier],
        hosts: Sequence[x509.GeneralName],
        password: str | None,
        expired: bool,
    ) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: list[x509.ExtensionType] = [x509.ExtendedKeyUsage(usage)]
        if hosts:
            extensions.append(x509.SubjectAlternativeName(hosts))
        valid_for = -1 * DAY if expired else 365 * DAY
        certificate = self._sign(_name(name, organization), key.public_key(), valid_for, extensions)
        secrecy: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            secrecy = serialization.BestAvailableEncryption(password.encode())
        file = self.folder / f"{name}.pem"
        file.touch(0o600)
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
        )
        return file

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        valid_for: datetime.timedelta,
        extensions: Sequence[x509.ExtensionType],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        is_authority = subject == self._name
        usage = x509.KeyUsage(True, False, False, False, False, is_authority, is_authority, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + valid_for)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(common_name: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
