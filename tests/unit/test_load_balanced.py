"""Clients of a load balancer, which keep connections for cursors and transactions, on scripted servers."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping
from typing import Any

from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo.monitoring import PoolClearedEvent
from pymongo.operations import InsertOne
from twisted.internet.defer import CancelledError, Deferred

from tests.listeners import PoolListener
from tests.unit.clients import ClientCase
from txmongo.connection import ConnectionPool
from txmongo.errors import (
    AutoReconnect,
    ClientBulkWriteException,
    ConfigurationError,
    CursorNotFound,
    OperationFailure,
    WaitQueueTimeoutError,
)
from txmongo.sessions import ClientSession
from txmongo.testing import Behaviour, FakeServer

MONGOS = {"msg": "isdbgrid", "logicalSessionTimeoutMinutes": 30}
TOKEN = {"token": 7}


def batch(cursor_id: int, *numbers: int, key: str = "firstBatch") -> dict[str, Any]:
    """A reply with a cursor."""
    return {"cursor": {"id": cursor_id, "ns": "test.things", key: [{"_id": number} for number in numbers]}}


def refusal(code: int, *labels: str) -> dict[str, Any]:
    """A reply that says no."""
    return {"ok": 0, "code": code, "errmsg": "no", "errorLabels": list(labels)}


class Cleared(PoolListener):
    """Notes the services whose connections were cleared."""

    def __init__(self) -> None:
        self.services: list[Any] = []

    def pool_cleared(self, event: PoolClearedEvent) -> None:
        self.services.append(event.service_id)


class LoadBalancedCase(ClientCase):
    """A load balancer with two services behind it, to which connections lead in turn."""

    def setUp(self) -> None:
        super().setUp()
        self.services = [ObjectId(), ObjectId()]
        turn = itertools.cycle(self.services)

        def hello(_command: Mapping[str, Any]) -> dict[str, Any]:
            return {"isWritablePrimary": True, "maxWireVersion": 17, "serviceId": next(turn), **MONGOS}

        self.server = self.servers["fake.example"] = FakeServer(
            {
                "find": batch(7, 1, 2),
                "getMore": batch(0, 3, key="nextBatch"),
                "killCursors": {},
                "insert": {"n": 1, "recoveryToken": TOKEN},
                "commitTransaction": {},
                "abortTransaction": {},
            }
        )
        self.server.answer("hello", hello)
        self.cleared = Cleared()
        self.balanced()

    def balanced(self, **options: Any) -> None:
        """A client."""
        self.made: ConnectionPool[Any] = self.client(
            "mongodb://fake.example/?loadBalanced=true", event_listeners=[self.cleared], **options
        )
        self.things = self.made.test.things

    @property
    def pool(self) -> Any:
        """The load balancer's."""
        [server] = self.made._topology.servers.values()
        return server.pool

    def free(self) -> tuple[int, int]:
        """How many connections there are, and how many of them are free."""
        return self.pool.total_count, self.pool.available_count

    def ways(self, *names: str) -> list[int]:
        """The connections on which these commands came, in order."""
        return [command.connection for command in self.server.received if command.name in names]

    def fails(self, awaitable: Any, *errors: type[Exception]) -> Any:
        """What something fails with, without time passing."""
        return self.failureResultOf(self.started(Deferred.fromCoroutine(_awaited(awaitable))), *errors).value

    def insert(self, session: ClientSession | None = None) -> None:
        """Insert a document."""
        self.result(self.things.insert_one({}, session=session))

    def begin(self) -> ClientSession:
        """A session with a transaction in which something was written."""
        session = self.made.start_session()
        session.start_transaction()
        self.insert(session)
        return session


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class CursorTests(LoadBalancedCase):
    """A cursor is read on the connection that it was made on."""

    def test_read(self) -> None:
        """While the server has the cursor nothing else goes there; then it is free."""
        cursor = self.things.find(batch_size=2)
        self.assertEqual(len(self.result(cursor.next_batch())), 2)
        self.assertEqual(self.free(), (1, 0))
        self.insert()
        self.assertEqual(self.free(), (2, 1))
        self.assertEqual(self.result(cursor), [{"_id": 3}])
        self.assertEqual(self.free(), (2, 2))
        self.assertEqual((self.ways("find", "getMore"), self.ways("insert")), ([1, 1], [2]))

    def test_other_pools(self) -> None:
        """It is the same in a pool of so many connections, and in one that is not shared."""
        for options in ({"pool_size": 3}, {"pipelining": False}):
            self.server.received.clear()
            self.balanced(**options)
            cursors = [self.things.find() for _ in range(2)]
            for cursor in cursors:
                self.result(cursor.next_batch())
            session = self.begin()
            for cursor in cursors:
                self.result(cursor)
            self.result(session.commit_transaction())
            self.assertEqual(self.ways("find"), self.ways("getMore"))
            self.assertEqual(self.ways("insert"), self.ways("commitTransaction"))
            self.assertEqual(len(set(self.ways("find", "insert"))), 3)
            self.assertEqual(self.free(), (3, 2))
            self.result(session.end_session())
            self.assertEqual(self.free(), (3, 3))

    def test_tried_again(self) -> None:
        """If the connection is lost while it is made, it is made on another one, and stays there."""
        self.server.answer("find", Behaviour.HANG_UP, batch(7, 1, 2))
        self.assertEqual(len(self.result(self.things.find())), 3)
        self.assertEqual(self.ways("find", "getMore"), [1, 2, 2])
        self.assertEqual(self.free(), (1, 1))

    def test_one_batch(self) -> None:
        """One that the server does not keep keeps nothing."""
        self.server.answer("find", batch(0, 1))
        self.assertEqual(len(self.result(self.things.find())), 1)
        self.assertEqual(self.free(), (1, 1))

    def test_several(self) -> None:
        """Each has a connection of its own, at the same time."""
        cursors = [self.things.find() for _ in range(3)]
        for cursor in cursors:
            self.result(cursor.next_batch())
        for cursor in cursors:
            self.result(cursor)
        self.assertEqual(self.ways("find"), [1, 2, 3])
        self.assertEqual(self.ways("getMore"), [1, 2, 3])
        self.assertEqual(self.free(), (3, 3))

    def test_close(self) -> None:
        """Closed, it is killed there; refused or not answered, the connection is let go all the same."""
        for answer in ({}, refusal(13), Behaviour.HANG_UP):
            self.server.answer("killCursors", answer)
            cursor = self.things.find()
            self.result(cursor.next_batch())
            self.result(cursor.close())
        self.turn()
        self.assertEqual(self.ways("find", "killCursors"), [1, 1, 1, 1, 1, 1])
        self.assertEqual(self.free(), (0, 0))

    def test_dropped(self) -> None:
        """Those that are dropped are killed where they were made, each on its own."""
        cursors = [self.things.find() for _ in range(2)]
        for cursor in cursors:
            self.result(cursor.next_batch())
        del cursor, cursors
        gc.collect()
        self.turn()
        self.assertEqual(sorted(self.ways("killCursors")), [1, 2])
        self.assertEqual(self.free(), (2, 2))

    def test_lost(self) -> None:
        """If its connection is lost there is nothing to be killed, and only that service is cleared."""
        self.server.answer("getMore", Behaviour.HANG_UP)
        kept = self.things.find()
        self.result(kept.next_batch())
        self.insert()
        self.fails(self.things.find(), AutoReconnect)
        self.assertEqual(self.cleared.services, [self.services[1]])
        self.assertEqual(self.ways("killCursors"), [])
        self.assertEqual(self.free(), (1, 0))
        self.server.answer("getMore", batch(0, 3, key="nextBatch"))
        self.assertEqual(self.result(kept), [{"_id": 3}])
        self.assertEqual(self.free(), (1, 1))

    def test_refused(self) -> None:
        """If a batch is refused it is killed, unless the server says that it has it no more."""
        for code, kills in ((2, 1), (43, 0)):
            self.server.answer("getMore", refusal(code))
            self.server.received.clear()
            self.fails(self.things.find(), CursorNotFound if code == 43 else OperationFailure)
            self.assertEqual(self.ways("killCursors"), [1] * kills)
            self.assertEqual(self.free(), (1, 1))

    def test_cancelled(self) -> None:
        """Cancelled between batches, it is killed there, after the reply that nobody waits for."""
        answer: Deferred[Any] = Deferred()
        self.server.answer("getMore", answer)
        reading = self.things.find().to_list()
        self.turn()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.turn()
        self.assertEqual(self.free(), (1, 0))
        answer.callback(batch(7, 3, key="nextBatch"))
        self.turn()
        self.assertEqual(self.ways("getMore", "killCursors"), [1, 1])
        self.assertEqual(self.free(), (1, 1))

    def test_limited(self) -> None:
        """It is the same with a limit of time; when the time is up the cursor is killed."""
        self.server.answer("getMore", Deferred(), {})
        reading = self.started(self.things.find(timeout_ms=1000).to_list())
        self.clock.advance(1)
        self.assertTrue(self.failureResultOf(reading).value.timeout)
        self.clock.advance(1)
        self.turn()
        self.assertEqual(self.ways("getMore"), [1])
        self.assertEqual(self.free(), (0, 0))

    def test_wait_queue(self) -> None:
        """Who waits in vain for a connection is told that cursors and transactions keep them."""
        self.balanced(maxPoolSize=2, waitQueueTimeoutMS=500)
        cursor = self.things.find()
        self.result(cursor.next_batch())
        session = self.begin()
        waiting = self.things.insert_one({})
        self.turn()
        self.clock.advance(0.5)
        error = self.failureResultOf(waiting, WaitQueueTimeoutError).value
        self.assertIn("in use by cursors: 1, connections in use by transactions: 1", str(error))
        self.result(session.abort_transaction())
        self.insert()


class BulkWriteTests(LoadBalancedCase):
    """The results of a client's bulk write are read on the connection of its command."""

    def setUp(self) -> None:
        super().setUp()
        greeting = {"isWritablePrimary": True, "maxWireVersion": 25, "serviceId": self.services[0], **MONGOS}
        self.server.answer("hello", greeting)
        results = [{"ok": 1.0, "idx": 0, "n": 1}]
        cursor = {"id": Int64(7), "ns": "admin.$cmd.bulkWrite", "firstBatch": results}
        self.server.answer("bulkWrite", {"cursor": cursor, "nErrors": 0, "nInserted": 2})
        self.models = [InsertOne({"_id": number}, namespace="test.things") for number in range(2)]

    def test_read(self) -> None:
        """The connection is kept until the last of them, then it is free."""
        last: Deferred[Any] = Deferred()
        self.server.answer("getMore", last)
        writing = self.started(self.made.bulk_write(self.models, verbose_results=True))
        self.assertEqual(self.free(), (1, 0))
        self.insert()
        results = [{"ok": 1.0, "idx": 1, "n": 1}]
        last.callback({"cursor": {"id": Int64(0), "ns": "admin.$cmd.bulkWrite", "nextBatch": results}})
        self.assertEqual(len(self.result(writing).insert_results), 2)
        self.assertEqual(self.free(), (2, 2))
        self.assertEqual((self.ways("bulkWrite", "getMore"), self.ways("insert")), ([1, 1], [2]))

    def test_refused(self) -> None:
        """It is kept until the cursor is killed, if it cannot be read on."""
        self.server.answer("getMore", refusal(8))
        self.fails(self.made.bulk_write(self.models), ClientBulkWriteException)
        self.turn()
        self.assertEqual(self.ways("bulkWrite", "getMore", "killCursors"), [1, 1, 1])
        self.assertEqual(self.free(), (1, 1))


class StreamTests(LoadBalancedCase):
    """So is a change stream, as long as it has that cursor."""

    def setUp(self) -> None:
        super().setUp()
        self.server.answer("aggregate", batch(7), batch(8))

    def test_close(self) -> None:
        """It keeps its connection between the waits, and is killed on it."""
        stream = self.result(self.things.watch())
        self.assertEqual(self.free(), (1, 0))
        self.insert()
        self.server.answer("getMore", batch(7, 1, key="nextBatch"))
        self.assertEqual(self.result(stream.next()), {"_id": 1})
        self.assertEqual((self.ways("aggregate", "getMore"), self.free()), ([1, 1], (2, 1)))
        self.result(stream.close())
        self.assertEqual((self.ways("killCursors"), self.free()), ([1], (2, 2)))

    def test_ended(self) -> None:
        """When the server has ended it the connection is free."""
        stream = self.result(self.things.watch())
        self.server.answer("getMore", batch(0, 1, key="nextBatch"))
        self.assertEqual(self.result(stream.next()), {"_id": 1})
        self.assertEqual(self.free(), (1, 1))

    def test_dropped(self) -> None:
        """Dropped, it is killed on its connection."""
        stream = self.result(self.things.watch())
        self.insert()
        del stream
        gc.collect()
        self.turn()
        self.assertEqual((self.ways("killCursors"), self.free()), ([1], (2, 2)))

    def test_resumed(self) -> None:
        """Resumed, it keeps the connection of its new cursor, and the old one no longer."""
        for answer, kills in (
            (refusal(43), 0),
            (refusal(11602, "ResumableChangeStreamError"), 1),
            (Behaviour.HANG_UP, 0),
        ):
            self.server.received.clear()
            self.server.answer("aggregate", batch(7), batch(8))
            self.server.answer("getMore", answer, batch(8, 1, key="nextBatch"))
            stream = self.result(self.things.watch())
            self.assertEqual(self.result(stream.next()), {"_id": 1})
            total, free = self.free()
            self.assertEqual((len(self.ways("killCursors")), total - free), (kills, 1))
            self.assertEqual(self.server.commands("getMore")[-1]["getMore"], 8)
            self.assertEqual(self.ways("aggregate")[-1:], self.ways("getMore")[-1:])
            self.result(stream.close())
            total, free = self.free()
            self.assertEqual(total, free)


class TransactionTests(LoadBalancedCase):
    """A transaction goes on on the connection on which it began."""

    def test_commit(self) -> None:
        """Its commands and the commit, as often as that is asked for, with the token; others go elsewhere."""
        session = self.begin()
        self.insert()
        self.insert(session)
        for _ in range(2):
            self.result(session.commit_transaction())
        self.assertEqual(self.ways("insert", "commitTransaction"), [1, 2, 1, 1, 1])
        self.assertEqual([each["recoveryToken"] for each in self.server.commands("commitTransaction")], [TOKEN] * 2)
        self.assertEqual(self.free(), (2, 1))
        self.result(session.end_session())
        self.assertEqual(self.free(), (2, 2))

    def test_let_go(self) -> None:
        """After the commit it is kept until the session is used for something else, or begins another one."""
        for follows in (lambda each: self.insert(each), lambda each: each.start_transaction()):
            session = self.begin()
            self.result(session.commit_transaction())
            self.assertEqual(self.free(), (1, 0))
            follows(session)
            self.assertEqual(self.free(), (1, 1))
            self.result(session.end_session())

    def test_abort(self) -> None:
        """An abort lets it go, whatever comes of it."""
        for answer in ({}, refusal(251), refusal(13)):
            self.server.answer("abortTransaction", answer, {})
            session = self.begin()
            self.result(session.abort_transaction())
            self.assertEqual(self.free(), (1, 1))

    def test_nothing_sent(self) -> None:
        """A transaction in which nothing was done keeps nothing, nor one whose first command cannot be made."""
        session = self.made.start_session()
        session.start_transaction()
        self.result(session.abort_transaction())
        session.start_transaction()
        self.fails(self.things.insert_one({"x": object()}, session=session))
        self.assertIsNone(session.transaction.pin)
        self.assertEqual(self.free(), (1, 1))

    def test_transient(self) -> None:
        """An error that ends the transaction lets it go; one that does not, does not."""
        session = self.begin()
        self.server.answer("insert", refusal(11000), refusal(251, "TransientTransactionError"))
        self.fails(self.things.insert_one({}, session=session), OperationFailure)
        self.assertEqual(self.free(), (1, 0))
        self.fails(self.things.insert_one({}, session=session), OperationFailure)
        self.assertEqual(self.free(), (1, 1))
        self.result(session.abort_transaction())
        self.assertEqual(self.ways("abortTransaction"), [1])

    def test_lost(self) -> None:
        """If its connection is lost the transaction is over; the abort goes on any other one."""
        session = self.begin()
        self.server.answer("insert", Behaviour.HANG_UP)
        error: Any = self.fails(self.things.insert_one({}, session=session))
        self.assertTrue(error.has_error_label("TransientTransactionError"))
        self.assertEqual(self.cleared.services, [self.services[0]])
        self.assertEqual(self.free(), (0, 0))
        self.result(session.abort_transaction())
        self.assertEqual(self.ways("abortTransaction"), [2])

    def test_commit_lost(self) -> None:
        """A commit whose connection is lost is repeated on another one, which is not kept."""
        session = self.begin()
        self.server.answer("commitTransaction", Behaviour.HANG_UP, {})
        self.result(session.commit_transaction())
        self.assertEqual(self.ways("commitTransaction"), [1, 2])
        self.assertEqual(self.free(), (1, 1))

    def test_cursor(self) -> None:
        """A cursor of a transaction shares its connection, and keeps it if the transaction ends first."""
        session = self.begin()
        cursor = self.things.find(session=session)
        self.result(cursor.next_batch())
        self.result(session.abort_transaction())
        self.assertEqual(self.free(), (1, 0))
        self.result(cursor.close())
        self.assertEqual(self.ways("insert", "find", "abortTransaction", "killCursors"), [1, 1, 1, 1])
        self.assertEqual(self.free(), (1, 1))

    def test_begins_with_cursor(self) -> None:
        """One that begins with a read that makes no cursor keeps its connection, one that makes one as well."""
        for answer in (batch(0, 1), batch(7, 1)):
            self.server.answer("find", answer)
            session = self.made.start_session()
            session.start_transaction()
            self.result(self.things.find(session=session))
            self.assertEqual(self.free(), (1, 0))
            self.result(session.abort_transaction())
            self.assertEqual(self.free(), (1, 1))

    def test_with_transaction(self) -> None:
        """Run again, it may go another way; with a limit of time too."""
        self.server.answer("insert", refusal(112, "TransientTransactionError"), {"n": 1})

        async def work(session: ClientSession) -> None:
            await self.things.insert_one({}, session=session)

        session = self.made.start_session()
        session._jitter = lambda: 0.0
        self.result(session.with_transaction(work, timeout_ms=1000))
        self.assertEqual(len(self.ways("insert", "commitTransaction")), 3)
        self.assertEqual(self.free(), (1, 0))

    def test_disconnect(self) -> None:
        """Disconnecting with connections that are kept leaves nothing behind; ending them later does no harm."""
        session, cursor = self.begin(), self.things.find()
        self.result(cursor.next_batch())
        self.result(self.made.disconnect())
        self.assertEqual(self.server.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.result(session.end_session())
        self.result(cursor.close())


class ServiceTests(LoadBalancedCase):
    """What is behind the load balancer."""

    def test_none(self) -> None:
        """A server that is no load balancer is refused, and the client remains usable."""
        self.servers["fake.example"] = FakeServer(hello=MONGOS)
        error = self.fails(self.things.insert_one({}), ConfigurationError)
        self.assertIn("load balancing mode", str(error))
        self.assertEqual(self.cleared.services, [])
        self.servers["fake.example"] = self.server
        self.insert()

    def test_shuts_down(self) -> None:
        """A service that says that it shuts down is cleared, others are not; nothing is marked unknown."""
        session = self.begin()
        self.insert()
        self.server.answer("insert", refusal(91, "RetryableWriteError"), {"n": 1})
        self.insert()
        self.assertEqual(self.cleared.services, [self.services[1]])
        self.result(session.commit_transaction())
        self.assertEqual(self.ways("insert", "commitTransaction"), [1, 2, 2, 3, 1])
        self.assertEqual(self.made.topology_description.topology_type_name, "LoadBalanced")

    def test_stale(self) -> None:
        """What a connection of an earlier generation of its service meets says nothing new."""
        one, other = self.begin(), None
        self.insert()
        other = self.begin()
        self.assertEqual(self.ways("insert"), [1, 2, 2])
        third = self.things.find()
        self.result(third.next_batch())
        self.assertEqual(self.ways("find"), [3])
        self.server.answer("insert", Behaviour.HANG_UP)
        for session in (one, other):
            self.fails(self.things.insert_one({}, session=session), AutoReconnect)
        self.server.answer("getMore", Behaviour.HANG_UP)
        self.fails(third, AutoReconnect)
        self.assertEqual(self.cleared.services, self.services)
