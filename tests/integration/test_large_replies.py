"""Replies of many megabytes, over each kind of connection."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from txmongo.connection import ConnectionPool
from txmongo.testing import CertificateAuthority, Mongod, TLSFiles

#: 20 MB in more than one batch, and each document another.
DOCUMENTS = [{"_id": number, "content": f"{number:07}" * 300} for number in range(9_500)]


class LargeReplyTests(TestCase):
    timeout = 120

    async def check(self, mongod: Mongod, **options: Any) -> None:
        """Read many documents twice, with something else in flight behind them."""
        client: Any = ConnectionPool(mongod.uri, maxPoolSize=1, **options)
        self.addCleanup(client.disconnect)
        things = client.txmongo_tests.things
        await things.insert_many(DOCUMENTS)
        for _ in range(2):
            finds = [things.find(sort=[("_id", 1)]), things.find_one({"_id": 5}), things.find(sort=[("_id", 1)])]
            first, one, second = [await find for find in finds]
            self.assertTrue(first == DOCUMENTS)
            self.assertEqual(one, DOCUMENTS[5])
            self.assertTrue(second == DOCUMENTS)
        await things.drop()

    async def test_plain(self) -> None:
        """Without encryption; with a limit on silence too, for which every segment counts; compressed."""
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        await self.check(mongod)
        await self.check(mongod, socketTimeoutMS=20_000)
        await self.check(mongod, compressors="zlib")

    async def test_tls(self) -> None:
        """Encrypted."""
        authority = CertificateAuthority(self.mktemp())
        files = TLSFiles(
            certificate_key_file=authority.server(),
            ca_file=authority.ca_file,
            client_certificate_key_file=authority.client("tests' own"),
        )
        mongod = await Mongod(reactor, tls=files).start()
        self.addCleanup(mongod.stop)
        await self.check(mongod, tlsCAFile=str(authority.ca_file))
