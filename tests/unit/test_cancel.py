"""Cancelling an operation of a client at each stage, on scripted servers and a fake clock."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from pymongo.operations import DeleteOne, InsertOne, UpdateOne
from twisted.internet.defer import CancelledError, Deferred

from tests.unit.clients import ClientCase
from txmongo.connection import ConnectionPool
from txmongo.errors import InvalidOperation
from txmongo.testing import Behaviour, FakeServer

MONGOS = {"msg": "isdbgrid", "logicalSessionTimeoutMinutes": 30}
OVERLOADED = {"ok": 0, "code": 462, "errmsg": "busy", "errorLabels": ["SystemOverloadedError", "RetryableError"]}


def batch(cursor_id: int, *documents: Mapping[str, Any], key: str = "firstBatch") -> dict[str, Any]:
    """A reply with a cursor."""
    return {"cursor": {"id": cursor_id, "ns": "test.things", key: list(documents)}}


class CancelCase(ClientCase):
    """A client of a server that has sessions, transactions and retryable writes."""

    def setUp(self) -> None:
        """The server answers hello, ping and what a case adds."""
        super().setUp()
        self.server = self.servers["fake.example"] = FakeServer({"killCursors": {}}, hello=MONGOS)

    def make(self, *arguments: Any, **options: Any) -> None:
        """Make the client."""
        self.made: ConnectionPool[Any] = self.client(*arguments, **options)
        self.things = self.made.test.things

    def connected(self, **options: Any) -> None:
        """Make the client, and have it open its first connection."""
        self.make(**options)
        self.result(self.made)
        self.server.received.clear()

    def ends(self, deferred: Deferred[Any]) -> None:
        """Cancelled, an operation ends at once."""
        self.assertNoResult(deferred)
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)

    def clean(self, *, in_flight: int = 0) -> None:
        """Nobody waits, nothing is checked out, no session is in use.

        :param in_flight: requests whose late reply is still to come.
        """
        pools = [server.pool for server in self.made._topology.servers.values()]
        connections = [connection for pool in pools for connection in pool._connections]
        self.assertEqual(self.made._parts.crowd.waiting, 0)
        self.assertEqual(sum(pool.operation_count for pool in pools), 0)
        self.assertEqual(sum(len(connection.in_flight) for connection in connections), in_flight)
        self.assertEqual(self.made._executor.sessions.pool.in_use, 0)

    @property
    def idle_sessions(self) -> int:
        """The sessions of the server that can be used again."""
        return len(self.made._executor.sessions.pool)

    def works(self) -> None:
        """The client goes on serving others."""
        self.assertEqual(self.result(self.made.test.command("ping")), {"ok": 1.0})
        self.clean()

    def later(self, command: str) -> Deferred[Any]:
        """Have the server answer the next command of that name when the test says so, and after it as before."""
        answer: Deferred[Any] = Deferred()
        self.server.answer(command, answer, {})
        return answer


class WaitingTests(CancelCase):
    """Before anything was sent."""

    def test_for_a_server(self) -> None:
        """Waiting for a server."""
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        self.make()
        operation = self.things.insert_one({})
        self.turn()
        self.ends(operation)
        self.clean()
        self.assertEqual(len(self.made._topology._queue), 0)

    def test_for_a_connection(self) -> None:
        """Waiting until another operation gives its connection back."""
        self.connected(maxPoolSize=1, pipelining=False)
        answer = self.later("ping")
        other = self.made.test.command("ping")
        operation = self.things.insert_one({})
        self.ends(operation)
        answer.callback({"n": 1})
        self.assertEqual(self.result(other)["n"], 1)
        self.assertEqual(self.server.commands("insert"), [])
        self.works()

    def test_connecting(self) -> None:
        """Waiting while a connection is opened for it, that does not open."""
        self.make()
        endpoint, waiting = self.server.endpoint(self.clock), []

        class Slow:
            def connect(self, factory: Any) -> Deferred[Any]:
                if waiting or not ready:
                    return endpoint.connect(factory)
                waiting.append(factory)
                return Deferred()

        ready: list[bool] = []
        self.patch(self.server, "endpoint", lambda _clock: Slow())
        self.assertIsNotNone(self.result(self.made.address))
        ready.append(True)
        operation = self.things.insert_one({})
        self.turn()
        self.assertEqual(len(waiting), 1)
        self.ends(operation)
        self.clean()
        [pool] = [server.pool for server in self.made._topology.servers.values()]
        self.assertEqual((pool.opening_count, pool.waiting_count), (1, 0))
        self.clock.advance(21)
        self.turn()
        self.assertEqual(pool.opening_count, 0)
        self.works()

    def test_greeting(self) -> None:
        """Waiting while the greeting of its connection is not answered."""
        self.make()
        self.result(self.made.address)
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        operation = self.things.insert_one({})
        self.turn()
        self.ends(operation)
        self.clean()

    def test_authenticating(self) -> None:
        """Waiting while the user is authenticated on its connection."""
        self.server.answer("saslStart", Behaviour.FALL_SILENT)
        self.make("mongodb://user:secret@fake.example")
        operation = self.things.insert_one({})
        self.turn()
        self.assertEqual(len(self.server.commands("saslStart")), 1)
        self.ends(operation)
        self.clean()
        self.assertEqual(self.server.commands("insert"), [])

    def test_backing_off(self) -> None:
        """Waiting before it is sent to an overloaded server again."""
        self.connected()
        self.made._executor._random.random = lambda: 1.0  # type: ignore[method-assign]
        self.server.answer("insert", OVERLOADED)
        operation = self.things.insert_one({})
        self.turn()
        self.ends(operation)
        self.clean()
        self.assertEqual(self.idle_sessions, 1)
        self.clock.advance(10)
        self.assertEqual(len(self.server.commands("insert")), 1)
        self.works()

    def test_for_another_server(self) -> None:
        """Waiting for a server to be tried again on, after its connection was lost."""
        self.connected()
        self.server.answer("insert", Behaviour.HANG_UP)
        self.server.answer("isMaster", Behaviour.FALL_SILENT)
        self.server.answer("hello", Behaviour.FALL_SILENT)
        operation = self.things.insert_one({})
        self.turn()
        self.ends(operation)
        self.clean()
        self.assertEqual(self.idle_sessions, 0)


class InFlightTests(CancelCase):
    """After the command was sent."""

    def test_write(self) -> None:
        """The late reply is dropped, the connection goes on serving others, and the session is not used again."""
        self.connected(maxPoolSize=1)
        answer = self.later("insert")
        operation = self.things.insert_one({})
        self.turn()
        others = [self.made.test.command("ping"), self.made.test.command("ping")]
        self.ends(operation)
        self.turn()
        self.assertEqual([each.called for each in others], [False, False])
        answer.callback({"n": 1})
        self.assertEqual([self.result(each) for each in others], [{"ok": 1.0}] * 2)
        self.works()
        accepted = self.server.accepted
        self.works()
        self.assertEqual(self.server.accepted, accepted)
        [dirty] = [command["lsid"] for command in self.server.commands("insert")]
        self.assertNotIn(dirty, [command.get("lsid") for command in self.server.commands("ping")])

    def test_alone(self) -> None:
        """With one operation per connection the connection is closed, and another one serves the next."""
        self.connected(maxPoolSize=1, pipelining=False)
        self.later("insert")
        operation = self.things.insert_one({})
        self.turn()
        accepted = self.server.accepted
        self.ends(operation)
        self.works()
        self.assertEqual(self.server.accepted, accepted + 1)

    def test_middle_of_many(self) -> None:
        """Of many on one connection those around it get their own replies."""
        self.connected(pool_size=1)
        self.server.answer("count", *({"n": number} for number in range(10)))
        operations = [self.things.estimated_document_count() for _ in range(10)]
        for place in (0, 4, 9):
            self.ends(operations[place])
        kept = [number for number in range(10) if number not in (0, 4, 9)]
        self.assertEqual([self.result(operations[number]) for number in kept], kept)
        self.works()

    def test_server_never_answers(self) -> None:
        """A connection on which only given-up requests are left is cut once it is stalled, and replaced."""
        self.connected(maxPoolSize=1)
        self.server.answer("insert", Behaviour.FALL_SILENT)
        operation = self.things.insert_one({})
        self.turn()
        self.ends(operation)
        self.clean(in_flight=1)
        self.clock.pump([0.03, 0, 0])
        self.works()

    def test_between_statements(self) -> None:
        """A bulk write of several commands sends none after the one that was cancelled."""
        self.connected()
        answer = self.later("update")
        operation = self.things.bulk_write([UpdateOne({"a": 1}, {"$set": {"b": 1}}), InsertOne({}), DeleteOne({})])
        self.turn()
        self.ends(operation)
        answer.callback({"n": 1, "nModified": 1})
        self.turn()
        self.assertEqual([each.name for each in self.server.received if each.name in ("insert", "delete")], [])
        self.works()


class CursorTests(CancelCase):
    """Cursors: the server is told to forget what nobody will ask for any more."""

    def setUp(self) -> None:
        """The first batch of a cursor is there."""
        super().setUp()
        self.connected()
        self.server.answer("find", batch(7, {"_id": 1}))

    def killed(self) -> None:
        """The cursor was killed in its own session, and nothing is left of it."""
        self.turn()
        self.assertEqual([command["cursors"] for command in self.server.commands("killCursors")], [[7]])
        [found], [killed] = self.server.commands("find"), self.server.commands("killCursors")
        self.assertEqual(found["lsid"], killed["lsid"])

    def test_first_batch(self) -> None:
        """Cancelled before the first batch has come, the cursor that it makes is killed."""
        answer = self.later("find")
        cursor = self.things.find()
        reading = cursor.to_list()
        self.turn()
        self.ends(reading)
        answer.callback(batch(7, {"_id": 1}))
        self.killed()
        self.clean()

    def test_whole(self) -> None:
        """Cancelled while a further batch is on its way."""
        answer = self.later("getMore")
        reading = self.things.find().to_list()
        self.turn()
        self.assertEqual(len(self.server.commands("getMore")), 1)
        self.ends(reading)
        answer.callback(batch(7, {"_id": 2}, key="nextBatch"))
        self.killed()
        self.clean()

    def test_between_batches(self) -> None:
        """Closed between two batches."""
        cursor = self.things.find()
        self.assertEqual(self.result(cursor.next_batch()), [{"_id": 1}])
        self.result(cursor.close())
        self.killed()
        self.clean()

    def test_iteration(self) -> None:
        """A coroutine that is cancelled while it waits for a further batch."""
        answer = self.later("getMore")

        async def read() -> list[Any]:
            return [document async for document in self.things.find()]

        reading = Deferred.fromCoroutine(read())
        self.turn()
        self.ends(reading)
        answer.callback(batch(7, {"_id": 2}, key="nextBatch"))
        gc.collect()
        self.killed()
        self.clean()


class TransactionTests(CancelCase):
    """In a transaction."""

    def setUp(self) -> None:
        """A session that has sent the first command of its transaction."""
        super().setUp()
        self.server.answer("insert", {"n": 1})
        self.server.answer("abortTransaction", {})
        self.connected()
        self.session = self.made.start_session()

    def begin(self) -> None:
        """Start the transaction."""
        self.session.start_transaction()
        self.result(self.things.insert_one({}, session=self.session))

    def over(self) -> None:
        """End the session: nothing is left."""
        self.result(self.session.end_session())
        self.clean()

    def test_operation(self) -> None:
        """The transaction goes on being in progress, and is aborted with the session, whose server session is dirty."""
        self.begin()
        answer = self.later("insert")
        operation = self.things.insert_one({}, session=self.session)
        self.turn()
        self.ends(operation)
        self.assertTrue(self.session.in_transaction)
        answer.callback({"n": 1})
        self.over()
        self.assertEqual(len(self.server.commands("abortTransaction")), 1)
        self.assertEqual(self.idle_sessions, 0)

    def test_first_operation_unsent(self) -> None:
        """Cancelled before it was sent, the first operation leaves the transaction unknown to the server."""
        self.server.answer("ping", Behaviour.FALL_SILENT)
        self.make(maxPoolSize=1, pipelining=False)
        self.session = self.made.start_session()
        self.session.start_transaction()
        busy = self.made.test.command("ping")
        self.turn()
        operation = self.things.insert_one({}, session=self.session)
        self.ends(operation)
        self.result(self.session.end_session())
        self.assertEqual(self.server.commands("abortTransaction"), [])
        self.ends(busy)
        self.clean()

    def test_commit(self) -> None:
        """A commit that was sent may have had its effect; the transaction counts as committed."""
        self.begin()
        answer = self.later("commitTransaction")
        commit = self.session.commit_transaction()
        self.turn()
        self.ends(commit)
        answer.callback({})
        self.turn()
        self.server.answer("commitTransaction", {})
        self.result(self.session.commit_transaction())
        self.assertEqual(self.server.commands("commitTransaction")[1]["writeConcern"]["w"], "majority")
        self.over()

    def test_abort(self) -> None:
        """An abort."""
        self.begin()
        answer = self.later("abortTransaction")
        abort = self.session.abort_transaction()
        self.turn()
        self.ends(abort)
        answer.callback({})
        self.turn()
        self.over()

    def test_end_of_session(self) -> None:
        """The end of a session, which waits for the abort: it has ended all the same."""
        self.begin()
        answer = self.later("abortTransaction")
        ending = self.session.end_session()
        self.turn()
        self.ends(ending)
        self.assertTrue(self.session.has_ended)
        answer.callback({})
        self.turn()
        self.clean()

    def test_with_transaction(self) -> None:
        """A function that runs in a transaction: its operation ends, and the server hears of the abort."""
        answer = self.later("insert")

        async def work(session: Any) -> None:
            await self.things.insert_one({}, session=session)

        running = self.session.with_transaction(work)
        self.turn()
        self.ends(running)
        answer.callback({"n": 1})
        self.turn()
        self.assertEqual(len(self.server.commands("abortTransaction")), 1)
        self.assertFalse(self.session.in_transaction)
        self.over()

    def busy(self) -> Deferred[Any]:
        """A function is cancelled in its transaction, whose abort then waits for the only connection."""
        self.make(maxPoolSize=1, pipelining=False)
        self.session = self.made.start_session()

        async def work(session: Any) -> None:
            await self.things.insert_one({}, session=session)
            await ended

        ended: Deferred[Any] = Deferred()
        running = self.session.with_transaction(work)
        self.turn()
        answer = self.later("ping")
        other = self.made.test.command("ping")
        self.ends(running)
        other.addErrback(lambda _: None)
        return answer

    def test_session_ends_before_the_abort(self) -> None:
        """A session that is ended while the abort still waits for a connection ends with it, not before."""
        answer = self.busy()
        ending = self.session.end_session()
        self.assertTrue(self.session.has_ended)
        self.assertNoResult(ending)
        self.assertRaises(InvalidOperation, self.session.start_transaction)
        answer.callback({})
        self.result(ending)
        self.assertEqual(len(self.server.commands("abortTransaction")), 1)
        self.clean()

    def test_next_before_the_abort(self) -> None:
        """A session that is used again while the abort still waits does not abort the next transaction."""
        answer = self.busy()
        self.session.start_transaction()
        answer.callback({})
        self.result(self.things.insert_one({}, session=self.session))
        self.server.answer("commitTransaction", {})
        self.result(self.session.commit_transaction())
        self.assertEqual(self.server.commands("abortTransaction"), [])
        self.assertEqual([command["txnNumber"] for command in self.server.commands("insert")], [1, 2])
        self.over()

    def test_between_repetitions(self) -> None:
        """The pause before a transaction is run again."""
        self.server.answer("insert", {"ok": 0, "code": 112, "errorLabels": ["TransientTransactionError"]})

        async def work(session: Any) -> None:
            await self.things.insert_one({}, session=session)

        running = self.session.with_transaction(work)
        self.turn()
        sent = len(self.server.commands("insert"))
        self.ends(running)
        self.clock.advance(10)
        self.assertEqual(len(self.server.commands("insert")), sent)
        self.over()
