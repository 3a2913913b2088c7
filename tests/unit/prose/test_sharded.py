"""Prose tests that want a sharded cluster: its routers are servers in memory that say that they are such.

Of the retryable reads specification 2.1 and 2.2, of the retryable writes specification 4 and 5, of the transactions
specification 1 and 2 ("Mongos Pinning").
"""

from __future__ import annotations

from typing import Any

from bson.int64 import Int64
from pymongo import monitoring

from tests.integration.prose.events import CommandEvents
from tests.unit.clients import ClientCase
from txmongo.errors import OperationFailure
from txmongo.testing import Behaviour, FakeServer

MONGOS = {"msg": "isdbgrid", "logicalSessionTimeoutMinutes": 30}
FOUND = {"cursor": {"id": Int64(0), "ns": "test.things", "firstBatch": [{"_id": 1}]}}
HOST_UNREACHABLE = {"ok": 0, "code": 6, "codeName": "HostUnreachable", "errmsg": "a host cannot be reached"}


class ShardedCase(ClientCase):
    """Two routers."""

    def setUp(self) -> None:
        super().setUp()
        self.routers = [FakeServer(hello=MONGOS), FakeServer(hello=MONGOS)]
        self.servers = {"a.example": self.routers[0], "b.example": self.routers[1]}
        for router in self.routers:
            router.answer("find", FOUND)
            for name in ("insert", "commitTransaction"):
                router.answer(name, {"n": 1})
        self.events = CommandEvents()

    def connect(self, *hosts: str, **options: Any) -> Any:
        """A client that knows these routers, and whose commands are kept."""
        client = self.client(f"mongodb://{','.join(hosts)}", event_listeners=[self.events], **options)
        self.result(client)
        self.turn()
        self.assertEqual(set(client.nodes), {(host, 27017) for host in hosts})
        self.events.all.clear()
        return client

    def addresses(self, kind: type[Any]) -> list[Any]:
        """The servers of the events of one class."""
        return [event.connection_id for event in self.events.of(kind)]


class RetryTests(ShardedCase):
    """A router that fails."""

    def test_read_elsewhere_2_1(self) -> None:
        """A read is tried again on another router."""
        for router in self.routers:
            router.answer("find", HOST_UNREACHABLE, FOUND)
        client = self.connect("a.example", "b.example", retryReads=True)
        self.turn()
        self.failed(client.test.things.find_one({}))
        self.assertEqual(set(self.addresses(monitoring.CommandFailedEvent)), set(client.nodes))
        self.assertEqual(len(self.events.all), 4)

    def test_read_again_2_2(self) -> None:
        """A read is tried again on the same router if there is no other."""
        self.routers[0].answer("find", HOST_UNREACHABLE, FOUND)
        client = self.connect("a.example", retryReads=True)
        self.assertEqual(self.result(client.test.things.find_one({})), {"_id": 1})
        self.check_once_more(client)

    def test_write_elsewhere_4(self) -> None:
        """A write is tried again on another router."""
        for router in self.routers:
            router.answer("insert", {**HOST_UNREACHABLE, "errorLabels": ["RetryableWriteError"]}, {"n": 1})
        client = self.connect("a.example", "b.example", retryWrites=True)
        self.failed(client.test.things.insert_one({}))
        self.assertEqual(set(self.addresses(monitoring.CommandFailedEvent)), set(client.nodes))
        self.assertEqual(len(self.events.all), 4)

    def test_write_again_5(self) -> None:
        """A write is tried again on the same router if there is no other, though it has hung up."""
        self.routers[0].answer("insert", Behaviour.HANG_UP, {"n": 1})
        client = self.connect("a.example", retryWrites=True)
        running = client.test.things.insert_one({})
        for _ in range(20):
            self.turn()
            self.clock.advance(0.1)
        self.assertTrue(self.successResultOf(running).acknowledged)
        self.check_once_more(client)

    def failed(self, deferred: Any) -> None:
        """It fails as the routers say."""
        self.turn()
        self.assertEqual(self.failureResultOf(deferred, OperationFailure).value.code, 6)  # type: ignore[union-attr]

    def check_once_more(self, client: Any) -> None:
        """One command failed and one succeeded, at the one router."""
        there = list(client.nodes)
        self.assertEqual(self.addresses(monitoring.CommandFailedEvent), there)
        self.assertEqual(self.addresses(monitoring.CommandSucceededEvent), there)


class PinningTests(ShardedCase):
    """Sessions that were pinned to a router by a transaction."""

    def setUp(self) -> None:
        super().setUp()
        self.client_of_both = self.connect("a.example", "b.example", localThresholdMS=1000)
        self.things = self.client_of_both.test.things
        self.session = self.client_of_both.start_session()
        self.session.start_transaction()
        self.result(self.things.insert_one({}, session=self.session))
        self.result(self.session.commit_transaction())
        self.assertIsNotNone(self.session.transaction.pinned_address)
        self.events.all.clear()

    def tearDown(self) -> None:
        """End the session."""
        self.result(self.session.end_session())
        super().tearDown()

    def test_next_transaction_1(self) -> None:
        """The next transaction may choose another router; all of it stays there."""
        for _ in range(50):
            self.events.all.clear()
            self.session.start_transaction()
            for _ in range(2):
                self.assertEqual(len(self.result(self.things.find({}, session=self.session))), 1)
            self.result(self.session.commit_transaction())
            self.assertEqual(len(set(self.addresses(monitoring.CommandStartedEvent))), 1)
        for router in self.routers:
            self.assertGreater(len(router.commands("find")), 0)

    def test_without_transaction_2(self) -> None:
        """An operation outside of transactions may choose another router."""
        for _ in range(50):
            self.assertEqual(len(self.result(self.things.find({}, session=self.session))), 1)
        self.assertEqual(set(self.addresses(monitoring.CommandStartedEvent)), set(self.client_of_both.nodes))
