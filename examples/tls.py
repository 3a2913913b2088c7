"""Documents over TLS: the example of TxMongo 15.2's documentation, on a server that wants to see a certificate.

The server is a throw-away mongod. Its certificate and the client's are made by an authority of this program's own;
files that you have already are read as here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet import defer, ssl, task

from txmongo.connection import ConnectionPool
from txmongo.testing import CertificateAuthority, Mongod


def tls_context(host: str, ca_file: Path, certificate_key_file: Path) -> Any:
    """What makes the connections to one host: it trusts one authority, checks the host's name, and shows a certificate.

    :param host: the name in the connection string.
    :param ca_file: the authority's certificate, in PEM.
    :param certificate_key_file: the client's certificate and key, in PEM.
    """
    authority = ssl.Certificate.loadPEM(ca_file.read_bytes())
    own = ssl.PrivateCertificate.loadPEM(certificate_key_file.read_bytes())
    return ssl.optionsForClientTLS(host, trustRoot=authority, clientCertificate=own)


@defer.inlineCallbacks
def example(mongodb_uri: str, tls_ctx: Any) -> Generator[Any, Any, None]:
    """Connect, store some documents and fetch some."""
    mongo = yield ConnectionPool(mongodb_uri, ssl_context_factory=tls_ctx)

    foo = mongo.foo  # `foo` database
    test = foo.test  # `test` collection
    yield test.insert_many([{"_id": number} for number in range(12)])

    # fetch some documents
    docs = yield test.find(limit=10)
    for doc in docs:
        print(doc)

    yield mongo.disconnect()


async def main(reactor: Any) -> None:
    """Start a server that speaks TLS only, and run the example on it."""
    with tempfile.TemporaryDirectory() as folder:
        authority = CertificateAuthority(folder)
        mongod = await Mongod(reactor, tls=authority.tls_files(require_client_certificate=True)).start()
        try:
            context = tls_context("localhost", authority.ca_file, authority.client())
            await example(f"mongodb://localhost:{mongod.port}", context)
        finally:
            await mongod.stop()


if __name__ == "__main__":
    task.react(main)
