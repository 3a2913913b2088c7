"""The entity map of a case, and the making of entities from their descriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from pymongo.server_api import ServerApi
from twisted.internet import defer
from twisted.logger import globalLogPublisher

from tests.conformance.unified import arguments, encryption
from tests.conformance.unified.cursors import ChangeStreamEntity, CursorEntity
from tests.conformance.unified.events import EVENT_TYPES, EventRecorder, StoredEvents
from tests.conformance.unified.failures import FormatError
from tests.conformance.unified.logs import LogCollector, client_options
from tests.conformance.unified.matcher import type_name
from tests.conformance.unified.waiting import settle, within
from txmongo.gridfs import GridFSBucket
from txmongo.sessions import TransactionOptions

__all__ = [
    "ClientEntity",
    "Connect",
    "DriverObject",
    "EntityMap",
    "Makings",
    "SessionEntity",
    "ThreadEntity",
    "create_entity",
    "event_names",
]


class Connect(Protocol):
    """Makes a client of the driver."""

    def __call__(self, uri: str, **options: Any) -> Any: ...


@attrs.define(eq=False)
class ClientEntity:
    """A client, what was heard of it, and the number of its pool's connections to wait for."""

    driver: Any
    recorder: EventRecorder
    logs: LogCollector | None = None
    closed: bool = False

    def listen(self) -> None:
        """Begin to collect log messages, if the case wants some."""
        if self.logs is not None:
            globalLogPublisher.addObserver(self.logs)

    async def close(self) -> None:
        """Disconnect, once."""
        if not self.closed:
            self.closed = True
            await settle(self.driver.disconnect())

    def stop_listening(self) -> None:
        """Record nothing more."""
        self.recorder.recording = False
        if self.logs is not None:
            globalLogPublisher.removeObserver(self.logs)


@attrs.define(eq=False)
class SessionEntity:
    """A session; its id outlives it."""

    driver: Any
    client: ClientEntity
    lsid: Mapping[str, Any]

    async def end(self) -> None:
        """End the session."""
        await settle(self.driver.end_session())


@attrs.frozen
class DriverObject:
    """A result that is an object of the driver, and its kind as an entity."""

    kind: str
    driver: Any


class ThreadEntity:
    """Runs operations one after another, beside the case's own."""

    def __init__(self) -> None:
        self._last: defer.Deferred[Any] = defer.succeed(None)

    def run(self, work: Callable[[], Any]) -> None:
        """Run a coroutine function after those before it; the first failure ends all."""
        self._last.addCallback(lambda _: defer.Deferred.fromCoroutine(work()))

    async def wait(self, clock: Any) -> None:
        """Wait for the last operation; fails as the first failed operation did."""
        last, self._last = self._last, defer.succeed(None)
        await within(clock, 10, last, "the end of a thread")


class TopologyDescriptionEntity:
    """A client's view of the deployment at one moment."""

    def __init__(self, description: Any) -> None:
        self.description = description

    def primary(self) -> Any:
        """The address of the primary, if one is known."""
        servers = self.description.server_descriptions() if self.description is not None else {}
        found = [address for address, server in servers.items() if server.server_type_name == "RSPrimary"]
        return found[0] if found else None


#: The kinds of entities by the class that stands for them; databases, collections and buckets are the driver's own.
CLASSES: dict[str, tuple[type, ...]] = {
    "client": (ClientEntity,),
    "session": (SessionEntity,),
    "thread": (ThreadEntity,),
    "cursor": (CursorEntity,),
    "changeStream": (ChangeStreamEntity,),
    "topologyDescription": (TopologyDescriptionEntity,),
}


class EntityMap:
    """Entities by name; a name is given once and asked for by kind."""

    def __init__(self) -> None:
        self._entities: dict[str, tuple[str, Any]] = {}

    def add(self, name: str, kind: str, value: Any) -> None:
        """Store an entity.

        :raises FormatError: the name is taken.
        """
        if name in self._entities:
            raise FormatError(f"there is already an entity {name}")
        self._entities[name] = (kind, value)

    def save_result(self, name: str, value: Any) -> None:
        """Store an operation's result.

        :raises FormatError: it is of no kind that may be stored.
        """
        if isinstance(value, DriverObject):
            self.add(name, value.kind, value.driver)
            return
        kind = next((kind for kind, classes in CLASSES.items() if isinstance(value, classes)), None)
        if kind is None:
            if value is None:
                raise FormatError(f"there is no result to be saved as {name}")
            type_name(value)
            kind = "bson"
        self.add(name, kind, value)

    def kind(self, name: str) -> str:
        """An entity's kind.

        :raises FormatError: there is none of that name.
        """
        return self._find(name)[0]

    def get(self, name: Any, *kinds: str) -> Any:
        """An entity.

        :raises FormatError: there is none of that name, or it is of another kind.
        """
        kind, value = self._find(name)
        if kind not in kinds:
            raise FormatError(f"entity {name} is a {kind}, expected a {' or '.join(kinds)}")
        return value

    def client(self, name: Any) -> ClientEntity:
        """A client entity."""
        found: ClientEntity = self.get(name, "client")
        return found

    def session(self, name: Any) -> SessionEntity:
        """A session entity."""
        found: SessionEntity = self.get(name, "session")
        return found

    def of_kind(self, *kinds: str) -> list[Any]:
        """Every entity of some kinds, the newest first."""
        return [value for kind, value in reversed(self._entities.values()) if kind in kinds]

    def bson_value(self, name: str) -> Any:
        """A saved BSON value."""
        return self.get(name, "bson")

    def session_id(self, name: str) -> Mapping[str, Any]:
        """The logical session id of a session entity."""
        return self.session(name).lsid

    def _find(self, name: Any) -> tuple[str, Any]:
        if not isinstance(name, str) or name not in self._entities:
            raise FormatError(f"there is no entity {name!r}")
        return self._entities[name]


@attrs.frozen
class Makings:
    """What entities are made of, beside their descriptions.

    :ivar connect: makes a client.
    :ivar uri: names every member of the deployment.
    :ivar direct_uri: names one, for direct connections.
    :ivar several_uri: for clients that are to use several servers of equal rank, where that is another way.
    :ivar pipelining: whether the clients may share their connections.
    :ivar heartbeat_frequency_ms: of clients for which the case says nothing of it.
    :ivar connects_first: whether clients with timeoutMS have a connection before they are used, as most cases of such
        limits ask for, with awaitMinPoolSizeMS: what few milliseconds are for is the operation.
    :ivar placeholders: values of the options of clients for which the case has a placeholder.
    :ivar make_bucket: makes a GridFS bucket of a database.
    :ivar make_transaction_options: makes the default options of a session's transactions.
    """

    connect: Connect
    uri: str
    direct_uri: str
    clock: Any
    pipelining: bool = True
    several_uri: str | None = None
    heartbeat_frequency_ms: int | None = None
    connects_first: bool = False
    placeholders: Mapping[str, Any] = attrs.field(factory=dict)
    make_bucket: Callable[..., Any] = GridFSBucket
    make_transaction_options: Callable[..., Any] = TransactionOptions


async def create_entity(entities: EntityMap, description: Mapping[str, Any], makings: Makings) -> None:
    """Make one entity and store it.

    :raises FormatError: the description is malformed, or asks for what this runner does not know.
    """
    if len(description) != 1:
        raise FormatError(f"an entity has one kind: {description!r}")
    ((kind, spec),) = description.items()
    make = MAKERS.get(kind)
    if make is None:
        raise FormatError(f"there is no entity kind {kind}")
    entities.add(spec["id"], kind, await make(entities, spec, makings))


def event_names(names: Any) -> frozenset[str]:
    """Names of events, checked; the format writes them with a small or a capital first letter."""
    found = frozenset(name[0].lower() + name[1:] for name in names)
    unknown = found - frozenset[str]().union(*EVENT_TYPES.values())
    if unknown:
        raise FormatError(f"there is no event {', '.join(sorted(unknown))}")
    return found


#: How long connecting first may take.
CONNECT_MS = 10_000

CLIENT_FIELDS = (
    "uriOptions useMultipleMongoses observeEvents ignoreCommandMonitoringEvents observeSensitiveCommands "
    "storeEventsAsEntities observeLogMessages serverApi awaitMinPoolSizeMS autoEncryptOpts"
)


async def _make_client(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> ClientEntity:
    arguments.take(spec, "id", CLIENT_FIELDS)
    recorder = EventRecorder(
        event_names(spec.get("observeEvents", [])),
        frozenset(name.lower() for name in spec.get("ignoreCommandMonitoringEvents", [])),
        bool(spec.get("observeSensitiveCommands")),
    )
    for store in spec.get("storeEventsAsEntities", []):
        recorder.stored.append(StoredEvents(event_names(store["events"])))
        entities.add(store["id"], "bson", recorder.stored[-1].documents)
    options = _client_options(spec, makings.placeholders)
    if makings.heartbeat_frequency_ms is not None:
        options.setdefault("heartbeatFrequencyMS", makings.heartbeat_frequency_ms)
    await_ms = spec.get("awaitMinPoolSizeMS")
    if makings.connects_first and await_ms is None and "minPoolSize" not in options and "timeoutMS" in options:
        options["minPoolSize"], await_ms = 1, CONNECT_MS
    uri = makings.direct_uri if options.get("directConnection") else makings.uri
    if spec.get("useMultipleMongoses") and makings.several_uri is not None:
        uri = makings.several_uri
    client = ClientEntity(None, recorder)
    if "observeLogMessages" in spec:
        client.logs = LogCollector(spec["observeLogMessages"], recorder.is_topology)
        client.listen()
        options.update(client_options(spec["observeLogMessages"]))
    client.driver = makings.connect(uri, event_listeners=recorder.listeners(), pipelining=makings.pipelining, **options)
    if await_ms is not None:
        await _wait_for_pools(client, options["minPoolSize"], await_ms / 1000, makings.clock)
    return client


def _client_options(spec: Mapping[str, Any], placeholders: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(spec.get("uriOptions", {}))
    for name, value in options.items():
        if isinstance(value, Mapping) and "$$placeholder" in value:
            if name not in placeholders:
                raise FormatError(f"there is no value for the placeholder {name}")
            options[name] = placeholders[name]
    if "autoEncryptOpts" in spec:
        options["auto_encryption_opts"] = encryption.auto_encryption_opts(spec["autoEncryptOpts"])
    if "readPreferenceTags" in options:
        options["readPreferenceTags"] = list(options["readPreferenceTags"])
    if "serverApi" in spec:
        api = arguments.take(spec["serverApi"], "version", "strict deprecationErrors")
        options["server_api"] = ServerApi(
            api["version"], strict=api.get("strict"), deprecation_errors=api.get("deprecationErrors")
        )
    return options


async def _wait_for_pools(client: ClientEntity, size: int, timeout: float, clock: Any) -> None:
    """Wait until every data-bearing server's pool holds so many connections; forget how it got there."""
    recorder = client.recorder
    filled: defer.Deferred[None] = defer.Deferred()

    def look() -> None:
        if not filled.called and recorder.pools_hold(size):
            filled.callback(None)

    stop = recorder.watch(look)
    look()
    try:
        await within(clock, timeout, filled, f"{size} connections in each pool")
    finally:
        stop()
    recorder.forget("cmap", "sdam")
    if client.logs is not None:
        client.logs.forget()


async def _make_database(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> Any:
    arguments.take(spec, "id client databaseName", "databaseOptions")
    client = entities.client(spec["client"])
    return client.driver.get_database(spec["databaseName"], **_options(spec.get("databaseOptions", {})))


async def _make_collection(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> Any:
    arguments.take(spec, "id database collectionName", "collectionOptions")
    database = entities.get(spec["database"], "database")
    return database.get_collection(spec["collectionName"], **_options(spec.get("collectionOptions", {})))


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a database, a collection or a transaction."""
    known = "readConcern readPreference writeConcern timeoutMS maxCommitTimeMS"
    found = arguments.take(options, "", known)
    return {arguments.snake_case(name): arguments.convert(name, value) for name, value in found.items()}


async def _make_session(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> SessionEntity:
    arguments.take(spec, "id client", "sessionOptions")
    client = entities.client(spec["client"])
    known = "causalConsistency snapshot snapshotTime defaultTransactionOptions defaultTimeoutMS"
    options = arguments.take(spec.get("sessionOptions", {}), "", known)
    keywords = {arguments.snake_case(name): value for name, value in options.items()}
    if "default_transaction_options" in keywords:
        transaction = _options(keywords["default_transaction_options"])
        keywords["default_transaction_options"] = makings.make_transaction_options(**transaction)
    if isinstance(keywords.get("snapshot_time"), str):
        keywords["snapshot_time"] = entities.bson_value(keywords["snapshot_time"])
    session = client.driver.start_session(**keywords)
    if isinstance(session, defer.Deferred):
        session = await session
    return SessionEntity(session, client, dict(session.session_id))


async def _make_bucket(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> Any:
    arguments.take(spec, "id database", "bucketOptions")
    database = entities.get(spec["database"], "database")
    options = arguments.take(
        spec.get("bucketOptions", {}), "", "bucketName chunkSizeBytes readConcern readPreference writeConcern"
    )
    keywords = {arguments.snake_case(name): arguments.convert(name, value) for name, value in options.items()}
    return makings.make_bucket(database, **keywords)


async def _make_client_encryption(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> Any:
    arguments.take(spec, "id clientEncryptionOpts")
    options = spec["clientEncryptionOpts"]
    return encryption.make_client_encryption(entities.client(options.get("keyVaultClient")).driver, options)


async def _make_thread(entities: EntityMap, spec: Mapping[str, Any], makings: Makings) -> ThreadEntity:
    arguments.take(spec, "id")
    return ThreadEntity()


MAKERS: dict[str, Callable[[EntityMap, Mapping[str, Any], Makings], Any]] = {
    "client": _make_client,
    "database": _make_database,
    "collection": _make_collection,
    "session": _make_session,
    "bucket": _make_bucket,
    "clientEncryption": _make_client_encryption,
    "thread": _make_thread,
}
