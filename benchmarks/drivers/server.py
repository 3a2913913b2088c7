"""A throw-away replica set of one member: prints its URI and lives until standard input ends."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from txmongo.testing import ReplicaSet


async def _serve(clock: Any) -> None:
    replica_set = ReplicaSet(clock, 1)
    await replica_set.start()
    try:
        print(replica_set.uri, flush=True)
        await deferToThread(sys.stdin.read)
    finally:
        await replica_set.stop()


if __name__ == "__main__":
    react(lambda clock: ensureDeferred(_serve(clock)))
