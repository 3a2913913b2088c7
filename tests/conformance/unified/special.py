"""The operations that a case asks of the runner itself (``object: testRunner``)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pymongo import monitoring
from pymongo.read_preferences import ReadPreference
from twisted.internet import defer

from tests.conformance.control import ControlLink
from tests.conformance.unified.arguments import take
from tests.conformance.unified.entities import ClientEntity, EntityMap, TopologyDescriptionEntity
from tests.conformance.unified.events import event_matches
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import Matcher
from tests.conformance.unified.waiting import settle, sleep, within

__all__ = ["SpecialContext", "run_special"]

#: Seconds, as the format says.
EVENT_TIMEOUT = 10.0


class SpecialContext(Protocol):
    """What special operations may ask of the running case."""

    @property
    def entities(self) -> EntityMap: ...

    @property
    def matcher(self) -> Matcher: ...

    @property
    def clock(self) -> Any: ...

    @property
    def control(self) -> ControlLink: ...

    @property
    def fail_points(self) -> list[str]: ...

    @property
    def keep_looping(self) -> Callable[[], bool]: ...

    async def create_entities(self, descriptions: list[Mapping[str, Any]]) -> None: ...

    async def run_operation(self, operation: Mapping[str, Any]) -> Any: ...


async def run_special(context: SpecialContext, name: str, arguments: Mapping[str, Any]) -> None:
    """Run one.

    :raises FormatError: there is none of that name, or an argument is missing or unknown.
    :raises Mismatch: what it asserts does not hold.
    """
    if name not in SPECIAL:
        raise FormatError(f"there is no special operation {name}")
    function, required, optional = SPECIAL[name]
    await function(context, take(arguments, required, optional))


async def _fail_point(context: SpecialContext, arguments: dict[str, Any]) -> None:
    """By the client under test, on the primary; remembered, to be switched off after the case."""
    client = context.entities.client(arguments["client"])
    command = arguments["failPoint"]
    context.fail_points.append(command["configureFailPoint"])
    admin = client.driver.get_database("admin")
    await settle(admin.command(command, read_preference=ReadPreference.PRIMARY))


async def _targeted_fail_point(context: SpecialContext, arguments: dict[str, Any]) -> None:
    context.entities.session(arguments["session"])
    raise FormatError("the session is not pinned to a mongos: there is none here")


async def _session_state(context: SpecialContext, arguments: dict[str, Any]) -> None:
    session = context.entities.session(arguments["session"]).driver
    state = session.transaction.state.value
    state = {"committed_empty": "committed"}.get(state, state)
    if state != arguments["state"]:
        raise Mismatch(f"the transaction is {state}, expected {arguments['state']}")


async def _session_pinned(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if context.entities.session(arguments["session"]).driver.transaction.pinned_address is None:
        raise Mismatch("the session is not pinned")


async def _session_unpinned(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if context.entities.session(arguments["session"]).driver.transaction.pinned_address is not None:
        raise Mismatch("the session is pinned")


async def _session_dirty(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if not context.entities.session(arguments["session"]).driver.server_session().dirty:
        raise Mismatch("the session is not dirty")


async def _session_not_dirty(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if context.entities.session(arguments["session"]).driver.server_session().dirty:
        raise Mismatch("the session is dirty")


def _last_two_lsids(client: ClientEntity) -> list[Any]:
    started = [event for event in client.recorder.events if isinstance(event, monitoring.CommandStartedEvent)]
    if len(started) < 2:
        raise Mismatch(f"{len(started)} commands were started, expected two at least")
    lsids = [event.command.get("lsid") for event in started[-2:]]
    if None in lsids:
        raise Mismatch(f"a command has no lsid: {lsids!r}")
    return lsids


async def _same_lsid(context: SpecialContext, arguments: dict[str, Any]) -> None:
    one, other = _last_two_lsids(context.entities.client(arguments["client"]))
    if one != other:
        raise Mismatch(f"the last two commands have different sessions: {one!r}, {other!r}")


async def _different_lsid(context: SpecialContext, arguments: dict[str, Any]) -> None:
    one, other = _last_two_lsids(context.entities.client(arguments["client"]))
    if one == other:
        raise Mismatch(f"the last two commands have the same session: {one!r}")


async def _collection_exists(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if not await _has_collection(context.control, arguments["databaseName"], arguments["collectionName"]):
        raise Mismatch(f"there is no collection {arguments['databaseName']}.{arguments['collectionName']}")


async def _collection_not_exists(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if await _has_collection(context.control, arguments["databaseName"], arguments["collectionName"]):
        raise Mismatch(f"there is a collection {arguments['databaseName']}.{arguments['collectionName']}")


async def _has_collection(control: ControlLink, database: str, collection: str) -> bool:
    reply = await control.run(database, {"listCollections": 1, "filter": {"name": collection}, "nameOnly": True})
    return bool(reply["cursor"]["firstBatch"])


async def _index_exists(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if arguments["indexName"] not in await _index_names(context.control, arguments):
        raise Mismatch(f"there is no index {arguments['indexName']}")


async def _index_not_exists(context: SpecialContext, arguments: dict[str, Any]) -> None:
    if arguments["indexName"] in await _index_names(context.control, arguments):
        raise Mismatch(f"there is an index {arguments['indexName']}")


async def _index_names(control: ControlLink, arguments: dict[str, Any]) -> list[str]:
    namespace_not_found = 26
    command = {"listIndexes": arguments["collectionName"], "cursor": {"batchSize": 1000}}
    reply = await control.run(arguments["databaseName"], command, namespace_not_found)
    return [index["name"] for index in reply.get("cursor", {}).get("firstBatch", [])]


async def _create_entities(context: SpecialContext, arguments: dict[str, Any]) -> None:
    await context.create_entities(arguments["entities"])


async def _checked_out(context: SpecialContext, arguments: dict[str, Any]) -> None:
    count = context.entities.client(arguments["client"]).recorder.checked_out
    if count != arguments["connections"]:
        raise Mismatch(f"{count} connections are checked out, expected {arguments['connections']}")


async def _run_on_thread(context: SpecialContext, arguments: dict[str, Any]) -> None:
    operation = arguments["operation"]
    context.entities.get(arguments["thread"], "thread").run(lambda: context.run_operation(operation))


async def _wait_for_thread(context: SpecialContext, arguments: dict[str, Any]) -> None:
    await context.entities.get(arguments["thread"], "thread").wait(context.clock)


def _counter(context: SpecialContext, arguments: dict[str, Any]) -> Callable[[], int]:
    """How many events of a client are as expected, so far."""
    recorder = context.entities.client(arguments["client"]).recorder
    event = arguments["event"]
    return lambda: recorder.count(lambda actual: event_matches(context.matcher, event, actual))


async def _wait_for_event(context: SpecialContext, arguments: dict[str, Any]) -> None:
    recorder = context.entities.client(arguments["client"]).recorder
    count = _counter(context, arguments)
    came: defer.Deferred[None] = defer.Deferred()

    def look() -> None:
        if not came.called and count() >= arguments["count"]:
            came.callback(None)

    stop = recorder.watch(look)
    try:
        look()
        await within(context.clock, EVENT_TIMEOUT, came, f"{arguments['count']} times {arguments['event']!r}")
    finally:
        stop()


async def _event_count(context: SpecialContext, arguments: dict[str, Any]) -> None:
    count = _counter(context, arguments)()
    if count != arguments["count"]:
        raise Mismatch(f"{count} events are {arguments['event']!r}, expected {arguments['count']}")


async def _record_topology(context: SpecialContext, arguments: dict[str, Any]) -> None:
    description = context.entities.client(arguments["client"]).recorder.topology
    context.entities.add(arguments["id"], "topologyDescription", TopologyDescriptionEntity(description))


async def _topology_type(context: SpecialContext, arguments: dict[str, Any]) -> None:
    entity = context.entities.get(arguments["topologyDescription"], "topologyDescription")
    if entity.description.topology_type_name != arguments["topologyType"]:
        raise Mismatch(f"the topology is {entity.description.topology_type_name}, expected {arguments['topologyType']}")


async def _wait_for_primary_change(context: SpecialContext, arguments: dict[str, Any]) -> None:
    recorder = context.entities.client(arguments["client"]).recorder
    old = context.entities.get(arguments["priorTopologyDescription"], "topologyDescription").primary()
    changed: defer.Deferred[None] = defer.Deferred()

    def look() -> None:
        new = TopologyDescriptionEntity(recorder.topology).primary()
        if not changed.called and new not in (None, old):
            changed.callback(None)

    stop = recorder.watch(look)
    try:
        look()
        await within(context.clock, arguments.get("timeoutMS", 10_000) / 1000, changed, "a change of the primary")
    finally:
        stop()


async def _wait(context: SpecialContext, arguments: dict[str, Any]) -> None:
    await sleep(context.clock, arguments["ms"] / 1000)


async def _loop(context: SpecialContext, arguments: dict[str, Any]) -> None:
    """Repeat operations until the runner is told to stop; each round ends with its first error or failure."""
    store = _LoopStore(context.entities, arguments)
    try:
        while context.keep_looping():
            store.iterations += 1
            try:
                for operation in arguments["operations"]:
                    await context.run_operation(operation)
                    store.successes += 1
            except Exception as error:
                if not store.keep(error):
                    raise
    finally:
        store.save()


class _LoopStore:
    """What a loop stores as entities."""

    def __init__(self, entities: EntityMap, arguments: Mapping[str, Any]) -> None:
        self.iterations = 0
        self.successes = 0
        self._entities = entities
        self._counts = {name: arguments.get(name) for name in ("storeIterationsAsEntity", "storeSuccessesAsEntity")}
        errors, failures = arguments.get("storeErrorsAsEntity"), arguments.get("storeFailuresAsEntity")
        self._errors = self._array(errors or failures)
        self._failures = self._array(failures or errors)

    def _array(self, name: str | None) -> list[Any] | None:
        if name is None:
            return None
        try:
            found = self._entities.get(name, "bson")
        except FormatError:
            found = []
            self._entities.add(name, "bson", found)
        if not isinstance(found, list):
            raise FormatError(f"entity {name} is no array")
        return found

    def keep(self, error: Exception) -> bool:
        """Store what ended a round; false if nothing is to be stored."""
        kept = self._failures if isinstance(error, AssertionError) else self._errors
        if kept is not None:
            kept.append({"error": str(error), "time": time.time()})
        return kept is not None

    def save(self) -> None:
        """Store the counts."""
        counted = {"storeIterationsAsEntity": self.iterations, "storeSuccessesAsEntity": self.successes}
        for option, name in self._counts.items():
            if name is not None:
                self._entities.add(name, "bson", counted[option])


Special = Callable[[SpecialContext, dict[str, Any]], Awaitable[None]]

#: For each operation its function, and the arguments that must and that may be there.
SPECIAL: dict[str, tuple[Special, str, str]] = {
    "failPoint": (_fail_point, "client failPoint", "session"),
    "targetedFailPoint": (_targeted_fail_point, "session failPoint", ""),
    "assertSessionTransactionState": (_session_state, "session state", ""),
    "assertSessionPinned": (_session_pinned, "session", ""),
    "assertSessionUnpinned": (_session_unpinned, "session", ""),
    "assertSessionDirty": (_session_dirty, "session", ""),
    "assertSessionNotDirty": (_session_not_dirty, "session", ""),
    "assertSameLsidOnLastTwoCommands": (_same_lsid, "client", ""),
    "assertDifferentLsidOnLastTwoCommands": (_different_lsid, "client", ""),
    "assertCollectionExists": (_collection_exists, "databaseName collectionName", ""),
    "assertCollectionNotExists": (_collection_not_exists, "databaseName collectionName", ""),
    "assertIndexExists": (_index_exists, "databaseName collectionName indexName", ""),
    "assertIndexNotExists": (_index_not_exists, "databaseName collectionName indexName", ""),
    "createEntities": (_create_entities, "entities", ""),
    "loop": (
        _loop,
        "operations",
        "storeErrorsAsEntity storeFailuresAsEntity storeSuccessesAsEntity storeIterationsAsEntity",
    ),
    "assertNumberConnectionsCheckedOut": (_checked_out, "client connections", ""),
    "runOnThread": (_run_on_thread, "thread operation", ""),
    "waitForThread": (_wait_for_thread, "thread", ""),
    "waitForEvent": (_wait_for_event, "client event count", ""),
    "assertEventCount": (_event_count, "client event count", ""),
    "recordTopologyDescription": (_record_topology, "client id", ""),
    "assertTopologyType": (_topology_type, "topologyDescription topologyType", ""),
    "waitForPrimaryChange": (_wait_for_primary_change, "client priorTopologyDescription", "timeoutMS"),
    "wait": (_wait, "ms", ""),
}
