"""``ClientSession.bind``: who takes the session, and who never does. Against servers in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from pymongo.operations import InsertOne, UpdateOne
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, inlineCallbacks

from tests.unit.clients import SET_OF_ONE, ClientCase
from txmongo._ops.bound_sessions import bind, bound_to, unbind
from txmongo.connection import ConnectionPool
from txmongo.errors import InvalidOperation
from txmongo.sessions import ClientSession
from txmongo.testing import FakeServer

NO_DOCUMENTS = {"cursor": {"id": 0, "ns": "test.things", "firstBatch": []}}


class BindTests(ClientCase):
    """A client of a replica set of one."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.servers["fake.example"] = self.new_server()
        self.mongo = self.client()
        self.things = self.mongo.test.things

    def new_server(self) -> FakeServer:
        """A server that takes everything that is sent here."""
        server = FakeServer(hello=SET_OF_ONE)
        for name in ("insert", "update", "delete"):
            server.answer(name, {"n": 1, "nModified": 1})
        for name in ("find", "aggregate"):
            server.answer(name, NO_DOCUMENTS)
        for name in ("commitTransaction", "abortTransaction"):
            server.answer(name, {})
        return server

    def run_now(self, *functions: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Start coroutines, each in a context of its own, and run them to their ends."""
        running = [Deferred.fromCoroutine(function()) for function in functions]
        self.turn()
        return [self.successResultOf(each) for each in running]

    def sessions_of(self, name: str, server: FakeServer | None = None) -> list[Any]:
        """The sessions of the commands of one name."""
        return [command.get("lsid") for command in (server or self.server).commands(name)]

    def test_inside_and_outside(self) -> None:
        """What is called in the block is done in the session, and nothing before or after."""

        async def run() -> Any:
            async with self.mongo.start_session() as session:
                lsid = session.session_id
                await self.things.insert_one({})
                async with session.bind(end_session=False) as bound:
                    self.assertIs(bound, session)
                    await self.things.insert_one({})
                    await self.things.find_one()
                    await self.things.update_one({}, {"$set": {"a": 1}})
                await self.things.insert_one({})
                self.assertFalse(session.has_ended)
            return lsid

        (lsid,) = self.run_now(run)
        before, inside, after = self.sessions_of("insert")
        self.assertEqual((inside, self.sessions_of("find"), self.sessions_of("update")), (lsid, [lsid], [lsid]))
        self.assertNotIn(lsid, (before, after))

    def test_ends_session(self) -> None:
        """The session is over at the end of the block unless that is not wanted, also if an error leaves it."""

        async def run(**options: bool) -> ClientSession:
            session = self.mongo.start_session()
            with self.assertRaises(LookupError):
                async with session.bind(**options):
                    await self.things.insert_one({})
                    raise LookupError
            return session

        ended, kept = self.run_now(run, lambda: run(end_session=False))
        self.assertEqual((ended.has_ended, kept.has_ended), (True, False))
        self.assertRaises(InvalidOperation, ended.bind)
        self.successResultOf(kept.end_session())

    def test_aborts(self) -> None:
        """The end of the session aborts what it left undone."""

        async def run() -> None:
            async with self.mongo.start_session().bind() as session:
                session.start_transaction()
                await self.things.insert_one({})

        self.run_now(run)
        self.assertEqual(len(self.server.commands("abortTransaction")), 1)

    def test_transaction(self) -> None:
        """In a transaction every command of a call is part of it, whatever the collection's write concern."""

        async def run() -> None:
            async with self.mongo.start_session().bind() as session, session.start_transaction():
                for w in (0, 1):
                    things = self.things.with_options(write_concern=WriteConcern(w=w))
                    await things.update_one({}, {"$set": {"a": 1}})
                    await things.bulk_write([InsertOne({}), UpdateOne({}, {"$set": {"a": 1}}), InsertOne({})])

        self.run_now(run)
        sent = [each.document for each in self.server.received if each.name in ("insert", "update")]
        self.assertEqual(len(sent), 8)
        self.assertEqual({command.get("txnNumber") for command in sent}, {1})
        self.assertEqual([command for command in sent if "writeConcern" in command], [])
        self.assertEqual(len(self.server.commands("commitTransaction")), 1)

    def test_other_coroutines(self) -> None:
        """Coroutines that run at the same time have their own sessions, or none."""
        sessions = [self.mongo.start_session() for _ in range(2)]

        def bound(number: int) -> Callable[[], Coroutine[Any, Any, None]]:
            async def run() -> None:
                async with sessions[number].bind(end_session=False):
                    for _ in range(3):
                        await self.things.insert_one({"who": number})

            return run

        async def unbound() -> None:
            for _ in range(3):
                await self.things.insert_one({"who": None})

        self.run_now(bound(0), unbound, bound(1), unbound)
        whose: dict[Any, set[Any]] = {}
        for command in self.server.commands("insert"):
            whose.setdefault(command["documents"][0]["who"], set()).add(command["lsid"]["id"])
        self.assertEqual(whose[0], {sessions[0].session_id["id"]})
        self.assertEqual(whose[1], {sessions[1].session_id["id"]})
        self.assertFalse(whose[None] & (whose[0] | whose[1]))
        for session in sessions:
            self.successResultOf(session.end_session())

    def test_started_inside(self) -> None:
        """Coroutines and generators that the block starts take the session, those after it do not."""

        @inlineCallbacks
        def generator() -> Any:
            yield self.things.insert_one({})
            yield self.things.insert_one({})

        async def coroutine() -> None:
            await self.things.insert_one({})

        async def run() -> Any:
            async with self.mongo.start_session() as session:
                async with session.bind(end_session=False):
                    await generator()
                    await coroutine()
                    await Deferred.fromCoroutine(coroutine())
                await generator()
                return session.session_id

        (lsid,) = self.run_now(run)
        self.assertEqual([found == lsid for found in self.sessions_of("insert")], [True] * 4 + [False] * 2)

    def test_outlives_block(self) -> None:
        """A coroutine that was started in the block and outlives it is told that the session has ended."""
        released: Deferred[None] = Deferred()
        late: list[Deferred[Any]] = []

        async def wait() -> None:
            await released
            await self.things.insert_one({})

        async def run() -> None:
            async with self.mongo.start_session().bind():
                late.append(Deferred.fromCoroutine(wait()))

        self.run_now(run)
        released.callback(None)
        self.failureResultOf(late[0], InvalidOperation)

    def test_nested(self) -> None:
        """The innermost counts, an argument before it; each comes back when what is in it is over."""

        async def run() -> list[Any]:
            outer, inner, given = (self.mongo.start_session() for _ in range(3))
            lsids = [session.session_id for session in (outer, inner, given)]
            async with outer.bind(), given:
                await self.things.insert_one({})
                async with inner.bind():
                    await self.things.insert_one({})
                    await self.things.insert_one({}, session=given)
                await self.things.insert_one({})
            return lsids

        ((outer, inner, given),) = self.run_now(run)
        self.assertEqual(self.sessions_of("insert"), [outer, inner, given, outer])

    def test_same_context_twice(self) -> None:
        """One context can be entered again within itself."""

        async def run() -> None:
            context = self.mongo.start_session().bind(end_session=False)
            async with context as session:
                async with context:
                    await self.things.insert_one({})
                await self.things.insert_one({})
            await session.end_session()

        self.run_now(run)
        first, second = self.sessions_of("insert")
        self.assertEqual(first, second)

    def test_two_clients(self) -> None:
        """Each client takes its own, and one of which nothing is bound is as ever."""
        self.servers.update({name: self.new_server() for name in ("b.example", "c.example")})
        second, third = (self.client(f"mongodb://{name}/?directConnection=true") for name in ("b.example", "c.example"))

        async def run() -> list[Any]:
            async with self.mongo.start_session().bind() as first, second.start_session().bind() as other:
                for client in (self.mongo, second, third):
                    await client.test.things.insert_one({})
                return [first.session_id, other.session_id]

        ((first_lsid, second_lsid),) = self.run_now(run)
        self.assertEqual(self.sessions_of("insert"), [first_lsid])
        self.assertEqual(self.sessions_of("insert", self.servers["b.example"]), [second_lsid])
        self.assertNotIn(self.sessions_of("insert", self.servers["c.example"])[0], (first_lsid, second_lsid))

    def test_cursor(self) -> None:
        """A cursor takes the session that is bound where it is first used, and keeps it."""
        self.server.answer("find", {"cursor": {"id": 7, "ns": "test.things", "firstBatch": [{}]}})
        self.server.answer("getMore", {"cursor": {"id": 0, "ns": "test.things", "nextBatch": [{}]}})

        async def run() -> Any:
            made_outside = self.things.find()
            async with self.mongo.start_session() as session:
                lsid = session.session_id
                async with session.bind(end_session=False):
                    await made_outside.next_batch()
                    made_inside = self.things.find()
                await made_outside.next_batch()
                await made_inside
            return lsid

        (lsid,) = self.run_now(run)
        self.assertEqual([found == lsid for found in self.sessions_of("find")], [True, False])
        self.assertEqual([found == lsid for found in self.sessions_of("getMore")], [True, False])

    def test_unacknowledged(self) -> None:
        """A write that nobody hears the end of is refused, as with any session."""
        things = self.things.with_options(write_concern=WriteConcern(w=0))

        async def run() -> None:
            async with self.mongo.start_session().bind():
                for write in (lambda: things.insert_one({}), lambda: things.delete_one({})):
                    with self.assertRaisesRegex(ValueError, "w=0"):
                        await write()
            await things.insert_one({})

        self.run_now(run)
        self.assertEqual((len(self.server.commands("insert")), self.server.commands("delete")), (1, []))

    def test_time(self) -> None:
        """Operations with a time limit take the session too, and the limit of a transaction that is limited."""
        timed = self.mongo.get_database("test", timeout_ms=60_000).things

        async def run() -> None:
            async with self.mongo.start_session() as session:

                async def callback(session: ClientSession) -> None:
                    async with session.bind(end_session=False):
                        await self.things.insert_one({})
                        await timed.insert_one({})
                        with self.assertRaisesRegex(InvalidOperation, "timeout_ms"):
                            self.things.insert_one({}, timeout_ms=5)

                await session.with_transaction(callback, timeout_ms=50_000)

        self.run_now(run)
        sent = self.server.commands("insert")
        self.assertEqual([command["txnNumber"] for command in sent], [1, 1])
        self.assertTrue(all(49_000 < command["maxTimeMS"] <= 50_000 for command in sent))

    def test_closed(self) -> None:
        """A client that is disconnected says so first."""
        client: ConnectionPool[Any] = self.client()

        async def run() -> None:
            async with client.start_session().bind():
                await client.disconnect()
                with self.assertRaisesRegex(InvalidOperation, "closed"):
                    await client.test.things.insert_one({})

        self.run_now(run)

    def test_abandoned(self) -> None:
        """A coroutine that is thrown away in the block binds nothing where it is collected."""
        unfinished: Deferred[None] = Deferred()

        async def run() -> None:
            async with self.mongo.start_session().bind():
                await unfinished

        context = copy_context()
        coroutine = run()
        context.run(coroutine.send, None)
        del coroutine
        gc.collect()
        self.result(self.things.insert_one({}))
        self.assertEqual(len(self.server.commands("insert")), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unused(self) -> None:
        """As long as no session of a client was bound it does not look for one."""
        self.result(self.things.insert_one({}))
        self.assertFalse(self.mongo._executor._heeds)
        self.assertFalse(self.mongo._executor.sessions.binds)

    def test_where_bound(self) -> None:
        """What is bound in a context is bound there alone; to undo it elsewhere changes nothing."""
        session = self.mongo.start_session()
        owner = self.mongo._executor.sessions
        context = copy_context()
        binding = context.run(bind, session)
        self.assertIs(context.run(bound_to, owner), session)
        self.assertIsNone(context.run(bound_to, object()))
        self.assertIsNone(bound_to(owner))
        unbind(binding)
        self.assertIs(context.run(bound_to, owner), session)
        context.run(unbind, binding)
        self.assertIsNone(context.run(bound_to, owner))
