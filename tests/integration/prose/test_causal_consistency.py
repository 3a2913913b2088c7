"""Prose tests of the causal consistency specification. There is no 10 any more."""

from __future__ import annotations

from typing import Any

from pymongo import monitoring
from pymongo.operations import InsertOne
from pymongo.read_concern import ReadConcern

from tests.integration.prose.events import CommandEvents
from tests.integration.servers import CollectionTestCase
from txmongo.connection import ConnectionPool
from txmongo.errors import OperationFailure


class _Case(CollectionTestCase):
    """A client whose commands and their replies are kept, and one document."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await super().setUp()
        await self.things.insert_one({"_id": 0})
        self.events = CommandEvents()
        self.watched: Any = ConnectionPool(self.uri, event_listeners=[self.events])
        self.addCleanup(self.watched.disconnect)
        await self.watched
        self.mine: Any = self.watched.txmongo_tests.things

    def reads(self, things: Any) -> list[Any]:
        """A call of each operation that reads."""
        return [
            (things.find_one, {}),
            (things.find, {}),
            (things.aggregate, []),
            (things.count_documents, {}),
            (things.count, {}),
            (things.distinct, "_id"),
        ]

    def writes(self, things: Any) -> list[Any]:
        """A call of each operation that writes."""
        update: dict[str, Any] = {"$set": {"a": 1}}
        return [
            (things.insert_one, {}),
            (things.insert_many, [{}, {}]),
            (things.update_one, {}, update),
            (things.update_many, {}, update),
            (things.replace_one, {}, {"b": 1}),
            (things.delete_one, {"c": 1}),
            (things.delete_many, {"c": 1}),
            (things.find_one_and_update, {}, update),
            (things.find_one_and_replace, {}, {"b": 1}),
            (things.find_one_and_delete, {"c": 1}),
            (things.bulk_write, [InsertOne({})]),
        ]

    async def sent(self, method: Any, *arguments: Any, **options: Any) -> Any:
        """The first command that a call sends."""
        self.events.all.clear()
        await method(*arguments, **options)
        return self.events.started_commands()[0]


class ReplicaSetTests(_Case):
    """A deployment with cluster times."""

    on_replica_set = True

    async def test_new_1(self) -> None:
        """A new session has no operation time."""
        async with self.watched.start_session() as session:
            self.assertIsNone(session.operation_time)

    async def test_first_read_2(self) -> None:
        """The first read does not wait for anything."""
        for method, argument in self.reads(self.mine):
            async with self.watched.start_session(causal_consistency=True) as session:
                command = await self.sent(method, argument, session=session)
                self.assertNotIn("readConcern", command)

    async def test_operation_time_3(self) -> None:
        """The first operation sets the operation time to that of its reply, also if it fails."""
        for method, *arguments in self.reads(self.mine) + self.writes(self.mine):
            async with self.watched.start_session() as session:
                await self.sent(method, *arguments, session=session)
                reply = self.events.of(monitoring.CommandSucceededEvent)[0].reply
                self.assertEqual(session.operation_time, reply["operationTime"], method)
        for method, argument in ((self.mine.find_one, {"$wrong": 1}), (self.mine.aggregate, [{"$wrong": 1}])):
            async with self.watched.start_session() as session:
                self.events.all.clear()
                error = await self.failure(method(argument, session=session), OperationFailure)
                self.assertEqual(session.operation_time, error.details["operationTime"])

    async def after_find_one(self, call: Any, things: Any) -> Any:
        """The command of an operation that follows a ``find_one`` in a session, and that one's operation time."""
        method, *arguments = call
        async with self.watched.start_session(causal_consistency=True) as session:
            await things.find_one({}, session=session)
            seen = session.operation_time
            self.assertIsNotNone(seen)
            return await self.sent(method, *arguments, session=session), seen

    async def test_read_after_read_4(self) -> None:
        """Every read waits for what the read before it has seen."""
        for call in self.reads(self.mine):
            command, seen = await self.after_find_one(call, self.mine)
            self.assertEqual(command["readConcern"]["afterClusterTime"], seen, call)

    async def test_read_after_write_5(self) -> None:
        """A read waits for every write before it, also for one that failed."""
        for method, *arguments in self.writes(self.mine):
            async with self.watched.start_session(causal_consistency=True) as session:
                await method(*arguments, session=session)
                seen = session.operation_time
                command = await self.sent(self.mine.find_one, {}, session=session)
                self.assertEqual(command["readConcern"]["afterClusterTime"], seen, method)
        async with self.watched.start_session(causal_consistency=True) as session:
            failing = self.mine.update_one({}, {"$wrong": 1}, session=session)
            await self.failure(failing, OperationFailure)
            seen = session.operation_time
            command = await self.sent(self.mine.find_one, {}, session=session)
            self.assertEqual(command["readConcern"]["afterClusterTime"], seen)

    async def test_not_causal_6(self) -> None:
        """In a session that is not causally consistent nothing waits."""
        async with self.watched.start_session(causal_consistency=False) as session:
            for _ in range(2):
                for method, *arguments in self.reads(self.mine):
                    self.assertNotIn("readConcern", await self.sent(method, *arguments, session=session))

    async def test_default_concern_8(self) -> None:
        """With the server's read concern there is a time, but no level."""
        for call in self.reads(self.mine):
            command, seen = await self.after_find_one(call, self.mine)
            self.assertEqual(command["readConcern"], {"afterClusterTime": seen}, call)

    async def test_own_concern_9(self) -> None:
        """With another read concern there are both."""
        majority = self.watched.txmongo_tests.get_collection("things", read_concern=ReadConcern("majority"))
        for call in self.reads(majority):
            command, seen = await self.after_find_one(call, majority)
            self.assertEqual(command["readConcern"], {"level": "majority", "afterClusterTime": seen}, call)

    async def test_cluster_time_12(self) -> None:
        """Commands carry the cluster's time."""
        await self.mine.find_one({})
        self.assertIn("$clusterTime", await self.sent(self.mine.find_one, {}))

    async def test_write_after_read_13(self) -> None:
        """Every write waits for what the read before it has seen."""
        for call in self.writes(self.mine):
            command, seen = await self.after_find_one(call, self.mine)
            self.assertEqual(command["readConcern"], {"afterClusterTime": seen}, call)


class StandaloneTests(_Case):
    """A deployment without cluster times."""

    async def test_unsupported_7(self) -> None:
        """Nothing waits."""
        async with self.watched.start_session(causal_consistency=True) as session:
            for _ in range(2):
                for method, *arguments in self.reads(self.mine):
                    self.assertNotIn("readConcern", await self.sent(method, *arguments, session=session))

    async def test_no_cluster_time_11(self) -> None:
        """Commands carry no time of a cluster."""
        await self.mine.find_one({})
        self.assertNotIn("$clusterTime", await self.sent(self.mine.find_one, {}))
