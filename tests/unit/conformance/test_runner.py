"""Tests of the runner of the unified test format, with a driver and a server that are made up."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pymongo import monitoring
from pymongo.errors import OperationFailure
from pymongo.hello import Hello
from pymongo.results import InsertOneResult
from pymongo.server_description import ServerDescription
from twisted.internet import defer, task
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.loader import Case
from tests.conformance.unified.entities import Makings
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.runner import CaseRun
from tests.unit.conformance.cases import make_case

ADDRESS = ("localhost", 27017)
CLIENT = {"client": {"id": "client0", "observeEvents": ["commandStartedEvent"]}}
DATABASE = {"database": {"id": "database0", "client": "client0", "databaseName": "db"}}
COLLECTION = {"collection": {"id": "collection0", "database": "database0", "collectionName": "c"}}
THREAD = {"thread": {"id": "thread0"}}


class FakeServer:
    """What the runner's own connection talks to."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.collections = ["c"]

    async def control(self) -> FakeServer:
        """Itself, as a connection."""
        return self

    async def run(self, database: str, command: Mapping[str, Any], *ignored: int) -> dict[str, Any]:
        """Answer a command."""
        self.commands.append((database, dict(command)))
        match next(iter(command)):
            case "find":
                return {"cursor": {"id": 0, "firstBatch": self.documents}}
            case "listCollections":
                return {"cursor": {"firstBatch": [one for one in self.collections if one == command["filter"]["name"]]}}
            case "hello":
                return {"isWritablePrimary": True, "hosts": ["a:1", "b:1", "c:1"]}
            case _:
                return {"ok": 1}

    async def close(self) -> None:
        """Be closed."""
        self.commands.append(("", {"close": 1}))


class FakeCollection:
    """A collection whose documents are one list."""

    def __init__(self, client: FakeClient) -> None:
        self._client = client

    def insert_one(self, document: Any, session: Any = None) -> defer.Deferred[Any]:
        """Insert, unless told to fail."""
        self._client.publish("insert", {"insert": "c", "documents": [document]})
        if self._client.error is not None:
            return defer.fail(self._client.error)
        self._client.server.documents.append(document)
        return defer.succeed(InsertOneResult(document["_id"], True))

    def find(self, filter: Any) -> defer.Deferred[Any]:
        """Every document."""
        self._client.publish("find", {"find": "c"})
        return defer.succeed(list(self._client.server.documents))

    def distinct(self, key: str, filter: Any) -> defer.Deferred[Any]:
        """Every document, as values."""
        return defer.succeed(list(self._client.server.documents))


class FakeClient:
    """A client; its databases and collections are one and the same."""

    def __init__(
        self, uri: str, *, event_listeners: list[Any], pipelining: bool, server: FakeServer, **options: Any
    ) -> None:
        self.server = server
        self.options = options
        self.listeners = event_listeners
        self.error: Exception | None = None
        self.disconnected = 0

    def publish(self, name: str, command: dict[str, Any], ends: bool = True) -> None:
        """Tell the listeners of a command, and of its end."""
        started = monitoring.CommandStartedEvent(command, "db", 1, ADDRESS, 1)
        duration = datetime.timedelta(0)
        succeeded = monitoring.CommandSucceededEvent(duration, {"ok": 1}, name, 1, ADDRESS, 1, database_name="db")
        for listener in self.listeners:
            if isinstance(listener, monitoring.CommandListener):
                listener.started(started)
                if ends:
                    listener.succeeded(succeeded)

    def get_database(self, name: str) -> FakeClient:
        """Itself."""
        return self

    def get_collection(self, name: str) -> FakeCollection:
        """The collection."""
        return FakeCollection(self)

    def command(self, command: Any, read_preference: Any = None) -> defer.Deferred[Any]:
        """Run a command."""
        self.publish(next(iter(command)), dict(command))
        self.server.commands.append(("by client", dict(command)))
        return defer.succeed({"ok": 1})

    def disconnect(self) -> defer.Deferred[None]:
        """Be disconnected."""
        self.disconnected += 1
        return defer.succeed(None)


def operation(name: str, target: str = "collection0", **more: Any) -> dict[str, Any]:
    """An operation; keywords that are no fields of operations are its arguments."""
    fields = {"expectError", "expectResult", "saveResultAsEntity", "ignoreResultAndError"}
    found: dict[str, Any] = {"name": name, "object": target}
    found["arguments"] = {key: value for key, value in more.items() if key not in fields}
    return found | {key: value for key, value in more.items() if key in fields}


def special(name: str, **arguments: Any) -> dict[str, Any]:
    """An operation of the runner's own."""
    return operation(name, "testRunner", **arguments)


INSERT = operation("insertOne", document={"_id": 1})


class RunnerTestCase(SynchronousTestCase):
    """Runs cases on a fake server and a fake clock."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.clock = task.Clock()
        self.clients: list[FakeClient] = []
        self.error: Exception | None = None
        self.rounds = 0

    def connect(self, uri: str, **options: Any) -> FakeClient:
        """Make a client."""
        client = FakeClient(uri, server=self.server, **options)
        client.error = self.error
        self.clients.append(client)
        return client

    def keep_looping(self) -> bool:
        """True while there are rounds left."""
        self.rounds -= 1
        return self.rounds >= 0

    def begin(self, case: Case) -> tuple[CaseRun, defer.Deferred[None]]:
        """Begin to run a case."""
        makings = Makings(self.connect, "mongodb://all", "mongodb://one", self.clock)
        run = CaseRun(case, self.server, makings, keep_looping=self.keep_looping)  # type: ignore[arg-type]
        return run, defer.Deferred.fromCoroutine(run.run())

    def case(self, *operations: Any, **test: Any) -> Case:
        """A case with a client, a database, a collection and a thread."""
        entities = [CLIENT, DATABASE, COLLECTION, THREAD]
        return make_case({"operations": list(operations), **test}, createEntities=entities)

    def passes(self, *operations: Any, **test: Any) -> CaseRun:
        """The case passes."""
        run, done = self.begin(self.case(*operations, **test))
        self.successResultOf(done)
        return run

    def fails(self, *operations: Any, **test: Any) -> str:
        """The case fails; gives the message."""
        failure = self.failureResultOf(self.begin(self.case(*operations, **test))[1], Mismatch)
        return failure.getErrorMessage()

    def malformed(self, *operations: Any, **test: Any) -> None:
        """The case is malformed."""
        self.failureResultOf(self.begin(self.case(*operations, **test))[1], FormatError)


class OperationTests(RunnerTestCase):
    """Operations of the driver and what is expected of them."""

    def test_result(self) -> None:
        """The result is compared."""
        self.passes({**INSERT, "expectResult": {"insertedId": 1}})
        self.fails({**INSERT, "expectResult": {"insertedId": 2}})

    def test_falsy_results(self) -> None:
        """An expected result that is empty, zero or null is compared like any other."""
        find = operation("find", filter={}, expectResult=[])
        self.passes(find)
        self.fails(INSERT, find)
        for nothing in ([], 0, None, False, ""):
            self.fails({**INSERT, "expectResult": nothing})

    def test_length(self) -> None:
        """A result of more or fewer documents than expected fails."""
        self.fails(INSERT, operation("find", filter={}, expectResult=[{"_id": 1}, {"_id": 2}]))
        self.server.documents.clear()
        self.fails(INSERT, INSERT, operation("find", filter={}, expectResult=[{"_id": 1}]))

    def test_roots(self) -> None:
        """The documents of a find are roots, those of a distinct are not."""
        self.server.documents.append({"_id": 1, "x": 1})
        self.passes(operation("find", filter={}, expectResult=[{"_id": 1}]))
        self.fails(operation("distinct", fieldName="x", filter={}, expectResult=[{"_id": 1}]))

    def test_unexpected_error(self) -> None:
        """An error that is not expected fails the case, with its text."""
        self.error = OperationFailure("no", 1, {"code": 1})
        self.assertIn("OperationFailure: no", self.fails(INSERT))

    def test_expected_error(self) -> None:
        """An expected error has to come, and to be the one expected."""
        self.fails({**INSERT, "expectError": {"isError": True}})
        self.error = OperationFailure("no", 1, {"code": 1})
        self.passes({**INSERT, "expectError": {"errorCode": 1}})
        self.fails({**INSERT, "expectError": {"errorCode": 2}})

    def test_ignored(self) -> None:
        """A result or error that is to be ignored is."""
        self.passes({**INSERT, "ignoreResultAndError": True})
        self.error = OperationFailure("no")
        self.passes({**INSERT, "ignoreResultAndError": True})

    def test_hole(self) -> None:
        """What the driver lacks is never an expected or ignored error."""
        self.error = AttributeError("no such method")
        for more in ({"expectError": {"isError": True}}, {"ignoreResultAndError": True}):
            self.failureResultOf(self.begin(self.case({**INSERT, **more}))[1], AttributeError)

    def test_saved(self) -> None:
        """A result is saved as an entity, once, and only if there is one."""
        run = self.passes({**INSERT, "saveResultAsEntity": "saved"})
        self.assertEqual(run.entities.bson_value("saved")["insertedId"], 1)
        self.malformed({**INSERT, "saveResultAsEntity": "saved"}, {**INSERT, "saveResultAsEntity": "saved"})

    def test_malformed(self) -> None:
        """Unknown entities, operations and arguments are errors, also where errors are ignored."""
        self.malformed(operation("insertOne", "collection9", document={}))
        self.malformed(operation("upsertOne"))
        self.malformed(operation("insertOne", foo="bar", ignoreResultAndError=True))
        self.malformed(operation("insertOne"))
        self.malformed({**INSERT, "colour": "red"})
        self.malformed({**INSERT, "expectError": {"isError": True}, "expectResult": 1})


class EventTests(RunnerTestCase):
    """Events of a case."""

    def test_events(self) -> None:
        """Events are compared after the operations."""
        expected = {"client": "client0", "events": [{"commandStartedEvent": {"commandName": "insert"}}]}
        self.passes(INSERT, expectEvents=[expected])
        self.fails(expectEvents=[expected])
        self.fails(INSERT, INSERT, expectEvents=[expected])
        self.passes(INSERT, INSERT, expectEvents=[{**expected, "ignoreExtraEvents": True}])

    def test_none(self) -> None:
        """An empty list of events means that there are none."""
        self.passes(expectEvents=[{"client": "client0", "events": []}])
        self.fails(INSERT, expectEvents=[{"client": "client0", "events": []}])

    def test_wait(self) -> None:
        """A wait for an event ends with the event; it fails after ten seconds."""
        wait = special("waitForEvent", client="client0", event={"commandStartedEvent": {}}, count=1)
        self.passes(INSERT, wait)
        done = self.begin(self.case(wait))[1]
        self.clients[-1].publish("find", {"find": "c"})
        self.clock.advance(0.01)
        self.successResultOf(done)
        done = self.begin(self.case(wait))[1]
        self.clock.advance(9.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.failureResultOf(done, Mismatch)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_under_way(self) -> None:
        """A command that is under way after the last operation is waited for, but not for long."""
        wait = special("wait", ms=500)
        for seconds in (0.6, 10.6):
            done = self.begin(self.case(wait))[1]
            self.clients[-1].publish("killCursors", {"killCursors": "c"}, ends=False)
            self.clock.advance(0.5)
            self.assertNoResult(done)
            if seconds < 1:
                self.clients[-1].publish("killCursors", {"killCursors": "c"})
            self.clock.pump([0.05] * round((seconds - 0.5) / 0.05))
            self.successResultOf(done)

    def test_count(self) -> None:
        """The number of events so far is compared."""
        count = special("assertEventCount", client="client0", event={"commandStartedEvent": {}}, count=1)
        self.passes(INSERT, count)
        self.fails(count)


class SpecialTests(RunnerTestCase):
    """Operations of the runner."""

    def test_fail_point(self) -> None:
        """A fail point is set by the client, unobserved, and switched off afterwards, however the case ends."""
        fail_point = special("failPoint", client="client0", failPoint={"configureFailPoint": "x", "mode": "alwaysOn"})
        off = ("admin", {"configureFailPoint": "x", "mode": "off"})
        self.passes(fail_point, expectEvents=[{"client": "client0", "events": []}])
        self.assertIn(("by client", {"configureFailPoint": "x", "mode": "alwaysOn"}), self.server.commands)
        self.assertIn(off, self.server.commands)
        self.server.commands.clear()
        self.fails(fail_point, {**INSERT, "expectResult": None})
        self.assertIn(off, self.server.commands)

    def test_quick_heartbeat(self) -> None:
        """Clients of a case with fail points find a server soon again, unless the case says how soon."""
        fail_point = special("failPoint", client="client0", failPoint={"configureFailPoint": "x", "mode": "off"})
        own = {"client": {"id": "client1", "uriOptions": {"heartbeatFrequencyMS": 10_000}}}
        self.passes(special("createEntities", entities=[own]), fail_point)
        self.assertEqual([client.options.get("heartbeatFrequencyMS") for client in self.clients], [500, 10_000])
        self.passes()
        self.assertEqual(self.clients[-1].options, {})

    def test_collection_exists(self) -> None:
        """Whether a collection exists the runner asks by itself."""
        namespace = {"databaseName": "db", "collectionName": "c"}
        self.passes(special("assertCollectionExists", **namespace))
        self.fails(special("assertCollectionNotExists", **namespace))

    def test_checked_out(self) -> None:
        """The number of connections that are out is compared; its arguments have to be there."""
        self.passes(special("assertNumberConnectionsCheckedOut", client="client0", connections=0))
        self.fails(special("assertNumberConnectionsCheckedOut", client="client0", connections=1))
        self.malformed(special("assertNumberConnectionsCheckedOut", connections=0))
        self.malformed(special("assertNumberConnectionsCheckedOut", client="client9", connections=0))

    def test_create_entities(self) -> None:
        """Entities are made on the way; a name that is taken is an error."""
        create = special("createEntities", entities=[{"thread": {"id": "thread1"}}])
        self.passes(create)
        self.malformed(create, create)

    def test_wait(self) -> None:
        """A wait takes its time."""
        done = self.begin(self.case(special("wait", ms=500)))[1]
        self.clock.advance(0.4)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.successResultOf(done)

    def test_thread(self) -> None:
        """Operations of a thread run beside the case; their failures are its failures."""
        wait = special("waitForThread", thread="thread0")
        self.passes(special("runOnThread", thread="thread0", operation=INSERT), wait)
        wrong = special("runOnThread", thread="thread0", operation={**INSERT, "expectResult": None})
        self.fails(wrong, wait)
        self.fails(wrong)

    def test_loop(self) -> None:
        """A loop goes on until told to stop and stores what it is asked to."""
        self.rounds = 3
        loop = special(
            "loop", operations=[INSERT, INSERT], storeIterationsAsEntity="rounds", storeSuccessesAsEntity="operations"
        )
        run = self.passes(loop)
        self.assertEqual((run.entities.bson_value("rounds"), run.entities.bson_value("operations")), (3, 6))

    def test_loop_failures(self) -> None:
        """A failure ends a round; it ends the loop only where it is not to be stored."""
        self.rounds = 2
        wrong = {**INSERT, "expectResult": None}
        run = self.passes(special("loop", operations=[wrong, INSERT], storeFailuresAsEntity="failures"))
        self.assertEqual(len(run.entities.bson_value("failures")), 2)
        self.rounds = 2
        self.fails(special("loop", operations=[wrong]))

    def test_unknown(self) -> None:
        """An unknown operation is an error, as is an expectation of its result."""
        self.malformed(special("assertNothing"))
        self.malformed({**special("wait", ms=0), "expectResult": None})


class PreparationTests(RunnerTestCase):
    """What comes before and after the operations."""

    def test_initial_data(self) -> None:
        """A collection is dropped and filled with its documents, on every member; one without documents is created."""
        full = {"databaseName": "db", "collectionName": "c", "documents": [{"_id": 1}]}
        empty = {"databaseName": "db", "collectionName": "d", "documents": [], "createOptions": {"capped": True}}
        self.successResultOf(self.begin(make_case(initialData=[full, empty]))[1])
        everywhere = {"writeConcern": {"w": 3}}
        expected = [
            ("admin", {"hello": 1}),
            ("db", {"drop": "c", **everywhere}),
            ("db", {"insert": "c", "documents": [{"_id": 1}], **everywhere}),
            ("db", {"drop": "d", **everywhere}),
            ("db", {"create": "d", "capped": True, **everywhere}),
        ]
        self.assertEqual(self.server.commands[:5], expected)

    def test_connects_first(self) -> None:
        """Where cases limit the time of operations, a client has a connection before, unless it says how many."""
        limited = {"client": {"id": "client0", "uriOptions": {"timeoutMS": 5}}}
        of_limits = ("csot", "file", "it")
        done = self.begin(make_case(key=of_limits, createEntities=[limited]))[1]
        client = self.clients[-1]
        self.assertEqual(client.options["minPoolSize"], 1)
        self.assertNoResult(done)
        server = ServerDescription(ADDRESS, Hello({"ok": 1, "isWritablePrimary": True, "maxWireVersion": 9}))
        recorder = client.listeners[0].recorder
        recorder.topology = SimpleNamespace(server_descriptions=lambda: {ADDRESS: server})
        recorder.record(monitoring.PoolReadyEvent(ADDRESS))
        self.assertNoResult(done)
        recorder.record(monitoring.ConnectionReadyEvent(ADDRESS, 1, 0.0))
        self.successResultOf(done)
        saying = {"client": {"id": "client0", "uriOptions": {"timeoutMS": 5, "minPoolSize": 0}}}
        without = {"client": {"id": "client0", "uriOptions": {"retryReads": False}}}
        for key, entity in ((of_limits, saying), (of_limits, without), (("crud/unified", "file", "it"), limited)):
            self.successResultOf(self.begin(make_case(key=key, createEntities=[entity]))[1])
            self.assertFalse(self.clients[-1].options.get("minPoolSize"))

    def test_outcome(self) -> None:
        """What a collection holds in the end is compared exactly, but for the order of keys."""

        def outcome(*documents: Any) -> list[Any]:
            return [{"databaseName": "db", "collectionName": "c", "documents": list(documents)}]

        self.server.documents[:] = [{"_id": 1, "x": {"a": 1, "b": 2}}]
        self.passes(outcome=outcome({"x": {"b": 2, "a": 1}, "_id": 1}))
        for wrong in ([], [{"_id": 1}], [{"_id": 1, "x": {"a": 1.0, "b": 2}}], [{"_id": 1}, {"_id": 2}]):
            self.fails(outcome=outcome(*wrong))

    def test_closed(self) -> None:
        """Clients and the runner's connection are closed, once each, however the case ends."""
        self.passes(operation("close", "client0"))
        self.fails({**INSERT, "expectResult": None})
        self.assertEqual([client.disconnected for client in self.clients], [1, 1])
        self.assertEqual(self.server.commands.count(("", {"close": 1})), 2)

    def test_entities(self) -> None:
        """An entity of an unknown kind, of an unknown field, or of another that is missing is an error."""
        for description in ({"horse": {"id": "h"}}, {"client": {"id": "c", "colour": "red"}}, DATABASE, {}):
            self.failureResultOf(self.begin(make_case(createEntities=[description]))[1], FormatError)

    def test_events(self) -> None:
        """An unknown event to be observed is an error."""
        client = {"client": {"id": "c", "observeEvents": ["somethingEvent"]}}
        self.failureResultOf(self.begin(make_case(createEntities=[client]))[1], FormatError)

    def test_schema(self) -> None:
        """A file of an unknown version of the format is not run."""
        self.failureResultOf(self.begin(make_case(schemaVersion="0.1"))[1], FormatError)
