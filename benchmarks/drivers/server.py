"""A throw-away mongod: ``python -m drivers.server KIND`` prints its URI and lives until standard input ends.

Kinds: ``plain``, a replica set of one member; ``tls``, the same with TLS; ``auth``, the same with a user.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from txmongo.testing import CertificateAuthority, ReplicaSet


def _options(kind: str, folder: pathlib.Path) -> dict[str, Any]:
    # A cache in which all that is read finds room, but for the tests on the side.
    if kind == "plain":
        return {"cache_gb": 2}
    return {"auth": True} if kind == "auth" else {"tls": CertificateAuthority(folder).tls_files()}


async def _serve(clock: Any, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        replica_set = ReplicaSet(clock, 1, **_options(kind, pathlib.Path(folder)))
        await replica_set.start()
        try:
            print(replica_set.uri, flush=True)
            await deferToThread(sys.stdin.read)
        finally:
            await replica_set.stop()


if __name__ == "__main__":
    react(lambda clock: ensureDeferred(_serve(clock, sys.argv[1])))
