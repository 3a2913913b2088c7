"""What the TLS options of a URI stand for, read and understood once.

Lives here: the files behind ``tlsCAFile``, ``tlsCertificateKeyFile`` and ``tlsCRLFile`` as certificates and keys. Which
option excludes which is decided in :mod:`txmongo._settings`; connections are made of it in ``txmongo._cmap.endpoints``.
Files are read when a client is made: a wrong path or password is an error at the call, and no connection waits for a
disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pymongo.errors import ConfigurationError

__all__ = ["ClientCertificate", "TLSSettings", "read_client_certificate", "read_revocation_lists", "read_trusted"]

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)

_T = TypeVar("_T")

#: What cryptography raises for what it cannot read.
_UNUSABLE = (ValueError, TypeError, UnsupportedAlgorithm)


@attrs.frozen
class ClientCertificate:
    """What the client shows of itself.

    :ivar private_key: the key, a cryptography private key object.
    :ivar certificate: the certificate of that key.
    :ivar chain: intermediate certificates that stood in the same file.
    """

    private_key: Any = attrs.field(repr=False)
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()


@attrs.frozen(kw_only=True)
class TLSSettings:
    """How connections are encrypted, and what is asked of the server's certificate.

    :ivar trusted: certificates of the authorities that are trusted, ``None`` for those that the platform trusts.
    :ivar client_certificate: what the client shows of itself.
    :ivar revocation_lists: lists of revoked certificates; empty: revocation is not checked.
    :ivar allow_invalid_certificates: take any certificate (``tlsAllowInvalidCertificates``).
    :ivar allow_invalid_hostnames: take a valid certificate of any name (``tlsAllowInvalidHostnames``).
    :ivar context_factory: the application's own ``ssl_context_factory``; all of the above is then up to it.
    """

    trusted: tuple[x509.Certificate, ...] | None = attrs.field(default=None, repr=False)
    client_certificate: ClientCertificate | None = attrs.field(default=None, repr=False)
    revocation_lists: tuple[x509.CertificateRevocationList, ...] = attrs.field(default=(), repr=False)
    allow_invalid_certificates: bool = False
    allow_invalid_hostnames: bool = False
    context_factory: Any = None


def read_trusted(option: str, path: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file.

    :param option: name of the option that named the file, for the error.
    :param path: the file's path.
    :raises ConfigurationError: it cannot be read, or no certificate is in it.
    """
    return tuple(_load(option, path, x509.load_pem_x509_certificate, _blocks(option, path, b"CERTIFICATE")))


def read_revocation_lists(option: str, path: str) -> tuple[x509.CertificateRevocationList, ...]:
    """The lists of revoked certificates in a PEM file; parameters and errors as :func:`read_trusted`."""
    return tuple(_load(option, path, x509.load_pem_x509_crl, _blocks(option, path, b"X509 CRL")))


def read_client_certificate(option: str, path: str, password: str | None) -> ClientCertificate:
    """A private key, its certificate and the intermediate certificates that lead to the authority, from one PEM file.

    :param password: what the key is encrypted with, ``None`` if it is not.
    :raises ConfigurationError: the file cannot be read, misses a part, the password is wrong, or the certificate is not
        the key's.
    """
    key_block = _blocks(option, path, b"PRIVATE KEY")[0]
    encrypted = b"ENCRYPTED" in key_block
    if encrypted and password is None:
        raise ConfigurationError(
            f"{option}: the private key in {path!r} is encrypted: tlsCertificateKeyFilePassword is needed"
        )
    secret = password.encode() if encrypted and password is not None else None
    try:
        key: Any = load_pem_private_key(key_block, secret)
    except _UNUSABLE as error:
        reason = "tlsCertificateKeyFilePassword does not fit" if encrypted else str(error)
        raise ConfigurationError(f"{option}: the private key in {path!r} cannot be used: {reason}") from None
    certificates = read_trusted(option, path)
    own = [certificate for certificate in certificates if certificate.public_key() == key.public_key()]
    if not own:
        raise ConfigurationError(f"{option}: no certificate in {path!r} belongs to the private key in it")
    return ClientCertificate(key, own[0], tuple(other for other in certificates if other is not own[0]))


def _blocks(option: str, path: str, kind: bytes) -> list[bytes]:
    """The PEM blocks of a file whose label ends in `kind`; at least one."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigurationError(f"{option}: cannot read {path!r}: {reason}") from None
    found = [block.group() for block in _PEM_BLOCK.finditer(content) if block.group(1).endswith(kind)]
    if not found:
        raise ConfigurationError(f"{option}: no {kind.decode().lower()} in PEM format is in {path!r}")
    return found


def _load(option: str, path: str, load: Callable[[bytes], _T], blocks: list[bytes]) -> list[_T]:
    try:
        return [load(block) for block in blocks]
    except _UNUSABLE as error:
        raise ConfigurationError(f"{option}: {path!r} cannot be used: {error}") from None
