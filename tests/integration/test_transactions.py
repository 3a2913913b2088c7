"""Transactions on a real replica set: what is committed, what is not, and what commands carry."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pymongo.operations import InsertOne, UpdateOne
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet import defer, reactor

from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, InvalidOperation, OperationFailure
from txmongo.sessions import ClientSession, TransactionOptions


class TransactionCase(CollectionTestCase):
    """A collection with one document, and a session."""

    on_replica_set = True

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_one({"_id": 0})
        self.session: ClientSession = self.client.start_session()
        self.commands.sent.clear()

    def tearDown(self) -> defer.Deferred[None]:
        """The session ends, and nothing of the client's is left out but it was cancelled."""
        return self.session.end_session().addCallback(self.check_idle)

    def check_idle(self, _ended: None) -> None:
        """No session and no connection is out."""
        executor = self.client._executor
        self.assertEqual(executor.sessions.pool.in_use, 0)
        counts = [server.pool.operation_count for server in self.client._topology.servers.values()]
        self.assertEqual(counts, [0] * len(counts))

    async def ids(self, session: ClientSession | None = None) -> list[Any]:
        """The ids of all documents."""
        return [document["_id"] for document in await self.things.find({}, session=session).sort("_id", 1)]


class CommitTests(TransactionCase):
    """Transactions and their ends."""

    async def test_commit(self) -> None:
        """Others see what was written after the commit, and not before."""
        async with self.session.start_transaction():
            await self.things.insert_one({"_id": 1}, session=self.session)
            self.assertEqual(await self.ids(self.session), [0, 1])
            self.assertEqual(await self.ids(), [0])
        self.assertEqual(await self.ids(), [0, 1])

    async def test_abort(self) -> None:
        """What was written is gone after an abort, and after an exception that leaves the block."""
        self.session.start_transaction()
        await self.things.insert_one({"_id": 1}, session=self.session)
        await self.session.abort_transaction()
        with self.assertRaises(ZeroDivisionError):
            async with self.session.start_transaction():
                await self.things.insert_one({"_id": 2}, session=self.session)
                1 / 0  # noqa: B018
        self.assertEqual(await self.ids(), [0])
        self.assertEqual(self.commands.names().count("abortTransaction"), 2)

    async def test_nothing_done(self) -> None:
        """A transaction in which nothing was done sends nothing."""
        async with self.session.start_transaction():
            pass
        self.session.start_transaction()
        await self.session.abort_transaction()
        self.assertEqual(self.commands.sent, [])

    async def test_end_of_session(self) -> None:
        """The end of the session aborts."""
        self.session.start_transaction()
        await self.things.insert_one({"_id": 1}, session=self.session)
        await self.session.end_session()
        self.assertEqual(self.commands.names()[-1], "abortTransaction")
        self.assertEqual(await self.ids(), [0])

    async def test_commit_twice(self) -> None:
        """A commit may be repeated, then for a majority; what follows is outside of the transaction."""
        self.session.start_transaction(write_concern=WriteConcern(w=1))
        await self.things.insert_one({"_id": 1}, session=self.session)
        await self.session.commit_transaction()
        await self.session.commit_transaction()
        first, second = self.commands.sent[-2:]
        self.assertEqual((first["writeConcern"], second["writeConcern"]["w"]), ({"w": 1}, "majority"))
        await self.things.insert_one({"_id": 2}, session=self.session)
        self.assertNotIn("autocommit", self.commands.sent[-1])

    async def test_yield(self) -> None:
        """It is the same with inlineCallbacks."""

        @defer.inlineCallbacks
        def write() -> Generator[Any, Any, None]:
            self.session.start_transaction()
            yield self.things.insert_one({"_id": 1}, session=self.session)
            yield self.session.commit_transaction()
            found = yield self.things.find({}, session=self.session)
            self.assertEqual(len(found), 2)

        await write()


class CommandTests(TransactionCase):
    """What is sent."""

    async def everything(self, things: Any) -> None:
        """Read and write in every way that a transaction allows."""
        session = self.session
        await things.insert_one({"_id": 1}, session=session)
        await things.insert_many([{"_id": 2}, {"_id": 3}, {"_id": 4}], session=session)
        await things.update_one({"_id": 1}, {"$set": {"x": 1}}, session=session)
        await things.update_many({}, {"$inc": {"y": 1}}, session=session)
        await things.replace_one({"_id": 2}, {"x": 2}, session=session)
        await things.delete_one({"_id": 3}, session=session)
        await things.delete_many({"_id": 0}, session=session)
        await things.find_one_and_update({"_id": 1}, {"$inc": {"x": 4}}, session=session)
        await things.find_one_and_replace({"_id": 4}, {"x": 9}, session=session)
        await things.bulk_write([InsertOne({"_id": 5}), UpdateOne({"_id": 5}, {"$set": {"x": 7}})], session=session)
        self.assertEqual((await things.find_one_and_delete({"_id": 4}, session=session))["x"], 9)
        self.assertEqual(len(await things.find(batch_size=1, session=session)), 3)
        self.assertEqual(len(await things.aggregate([], batchSize=1, session=session)), 3)
        self.assertEqual(sorted(await things.distinct("x", session=session)), [2, 5, 7])
        self.assertEqual(await things.count_documents({}, session=session), 3)
        self.assertEqual((await things.find_one(5, session=session))["x"], 7)
        self.assertEqual((await things.database.command("find", "things", session=session))["ok"], 1)

    async def test_fields(self) -> None:
        """All commands carry the same session and number; the concerns are the transaction's alone."""
        for _ in range(2):
            await self.things.replace_one({"_id": 0}, {}, upsert=True)
            self.commands.sent.clear()
            things = self.things.with_options(write_concern=WriteConcern(w=0), read_concern=ReadConcern("local"))
            self.session.start_transaction(ReadConcern("snapshot"), WriteConcern(w="majority"), max_commit_time_ms=5000)
            await self.everything(things)
            await self.session.commit_transaction()
            sent = self.commands.sent
            lsid, number = self.session.session_id, sent[0]["txnNumber"]
            common = [(each["lsid"], each["txnNumber"], each["autocommit"]) for each in sent]
            self.assertEqual(common, [(lsid, number, False)] * len(sent))
            self.assertEqual([each.get("startTransaction") for each in sent], [True] + [None] * (len(sent) - 1))
            self.assertEqual(sent[0]["readConcern"]["level"], "snapshot")
            self.assertEqual([each.get("readConcern") for each in sent[1:]], [None] * (len(sent) - 1))
            self.assertEqual([each.get("writeConcern") for each in sent[:-1]], [None] * (len(sent) - 1))
            self.assertEqual((sent[-1]["writeConcern"], sent[-1]["maxTimeMS"]), ({"w": "majority"}, 5000))
            self.assertEqual(await self.ids(), [1, 2, 5])
            await self.things.delete_many({})

    async def test_new_collection(self) -> None:
        """Collections and indexes can be made in a transaction."""
        await self.client.txmongo_tests.made.drop()
        async with self.session.start_transaction():
            made = await self.client.txmongo_tests.create_collection("made", session=self.session)
            await made.create_index("x", session=self.session)
            await made.insert_one({"x": 1}, session=self.session)
        self.assertIn("x_1", await made.index_information())
        await made.drop()

    async def test_refused(self) -> None:
        """What a transaction cannot do fails, and leaves nothing behind."""
        self.session.start_transaction()
        self.assertRaises(InvalidOperation, self.session.start_transaction)
        secondary = self.things.with_options(read_preference=ReadPreference.SECONDARY)
        await secondary.find_one(session=self.session)
        await self.session.abort_transaction()
        self.session.start_transaction(read_preference=ReadPreference.SECONDARY)
        await self.failure(self.things.find_one(session=self.session), InvalidOperation)
        await self.session.abort_transaction()
        self.session.start_transaction()
        await self.failure(self.things.aggregate([{"$out": "others"}], session=self.session), OperationFailure)


class TroubleTests(TransactionCase):
    """Conflicts, lost connections, cancelled operations."""

    async def test_conflict(self) -> None:
        """with_transaction runs the function again until it is committed."""
        runs = 0

        async def increase(session: ClientSession) -> int:
            nonlocal runs
            runs += 1
            await self.things.update_one({"_id": 0}, {"$inc": {"n": 1}}, session=session)
            return runs

        async def run() -> int:
            async with self.client.start_session() as session:
                result: int = await session.with_transaction(increase)
                return result

        await defer.gatherResults([defer.Deferred.fromCoroutine(run()) for _ in range(10)])
        self.assertGreaterEqual(runs, 10)
        self.assertEqual(await self.things.find_one(), {"_id": 0, "n": 10})

    async def test_error_of_function(self) -> None:
        """What the function raises reaches the caller, and nothing was done."""

        async def broken(session: ClientSession) -> None:
            await self.things.insert_one({"_id": 1}, session=session)
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await self.session.with_transaction(broken)
        self.assertEqual(await self.ids(), [0])

    async def test_lost_commit(self) -> None:
        """A commit whose connection is lost is sent again, for a majority; all is done once."""
        self.session.start_transaction(write_concern=WriteConcern(w=1))
        await self.things.update_one({"_id": 0}, {"$inc": {"n": 1}}, session=self.session)
        await self.fail_command("commitTransaction", closeConnection=True)
        await self.session.commit_transaction()
        first, second = [each for each in self.commands.sent if "commitTransaction" in each]
        self.assertEqual((first["writeConcern"]["w"], second["writeConcern"]["w"]), (1, "majority"))
        self.assertEqual(await self.things.find_one(), {"_id": 0, "n": 1})

    async def test_lost_operation(self) -> None:
        """An operation of a transaction is not sent again; its error says that the whole may be tried again."""
        self.session.start_transaction()
        await self.things.insert_one({"_id": 1}, session=self.session)
        await self.fail_command("find", closeConnection=True)
        error = await self.failure(self.things.find_one(session=self.session), AutoReconnect)
        self.assertTrue(error.has_error_label("TransientTransactionError"))
        self.assertEqual(self.commands.names().count("find"), 1)
        await self.session.abort_transaction()
        self.assertEqual(await self.ids(), [0])

    async def test_lost_in_function(self) -> None:
        """with_transaction gets over lost connections."""
        await self.client.admin.command(
            {
                "configureFailPoint": "failCommand",
                "mode": {"times": 2},
                "data": {"failCommands": ["insert", "commitTransaction"], "closeConnection": True},
            }
        )

        async def write(session: ClientSession) -> None:
            await self.things.insert_one({"_id": 1}, session=session)

        await self.session.with_transaction(write)
        self.assertEqual(await self.ids(), [0, 1])

    async def test_cancelled_operation(self) -> None:
        """An operation that is cancelled in flight ends at once; the transaction can then be aborted."""
        self.session.start_transaction()
        await self.things.insert_one({"_id": 1}, session=self.session)
        slow = self.things.find_one({"$where": "sleep(300) || true"}, session=self.session)
        slow.cancel()
        await self.failure(slow, defer.CancelledError)
        await self.session.abort_transaction()
        self.assertEqual(await self.ids(), [0])

    async def test_cancelled_function(self) -> None:
        """with_transaction is cancelled in the midst of it: the transaction is aborted."""

        async def write(session: ClientSession) -> None:
            await self.things.insert_one({"_id": 1}, session=session)
            clock.callLater(0, running.cancel)
            await self.things.find_one({"$where": "sleep(300) || true"}, session=session)

        clock: Any = reactor
        running: defer.Deferred[Any] = self.session.with_transaction(write)
        await self.failure(running, defer.CancelledError)
        await self.session.end_session()
        self.assertEqual(await self.ids(), [0])

    async def test_disconnected(self) -> None:
        """A client may be disconnected in the midst of a transaction."""
        client = ConnectionPool[dict[str, Any]](self.uri)
        session = client.start_session()
        session.start_transaction()
        await client.txmongo_tests.things.insert_one({"_id": 1}, session=session)
        lsid = session.session_id
        await client.disconnect()
        await session.end_session()
        # Else the server would keep the transaction, and its locks, for a minute.
        await self.client.admin.command("killSessions", [lsid])
        await self.failure(client.txmongo_tests.things.find_one(), InvalidOperation)

    async def test_defaults(self) -> None:
        """Options come from the session's defaults where the transaction names none."""
        options = TransactionOptions(write_concern=WriteConcern(w="majority", wtimeout=5000))
        async with (
            self.client.start_session(default_transaction_options=options) as session,
            session.start_transaction(),
        ):
            await self.things.insert_one({"_id": 1}, session=session)
        self.assertEqual(self.commands.sent[-1]["writeConcern"], {"w": "majority", "wtimeout": 5000})


class StandaloneTests(CollectionTestCase):
    """A server on its own has sessions and no transactions."""

    async def test_refused(self) -> None:
        """The server says so; the session can be used further."""
        async with self.client.start_session() as session:
            session.start_transaction()
            error = await self.failure(self.things.insert_one({}, session=session), OperationFailure)
            self.assertEqual(error.code, 20)
            self.assertTrue(str(error).startswith("Transaction numbers are only allowed on a replica set"), error)
            await session.abort_transaction()
            await self.things.insert_one({}, session=session)
            self.assertNotIn("txnNumber", self.commands.sent[-1])
        self.assertEqual(self.client._executor.sessions.pool.in_use, 0)
