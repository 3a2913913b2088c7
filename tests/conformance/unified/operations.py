"""Calls the driver for the operations of the format on clients, databases, collections, sessions, cursors and buckets.

Most operations are one line of a table: the driver's method and its arguments. Those that take more stand below it as
functions. A missing or unknown argument is an error of the case, before anything is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs
from pymongo.cursor_shared import CursorType
from pymongo.driver_info import DriverInfo
from pymongo.operations import SearchIndexModel

from tests.conformance.unified import encryption
from tests.conformance.unified.arguments import convert, convert_for_update, hex_bytes, snake_case, take
from tests.conformance.unified.cursors import ChangeStreamEntity, CursorEntity
from tests.conformance.unified.entities import ClientEntity, DriverObject, EntityMap, SessionEntity
from tests.conformance.unified.failures import FormatError
from tests.conformance.unified.results import result_document
from tests.conformance.unified.waiting import settle

__all__ = ["OperationContext", "call_operation", "prepare", "returns_root_documents"]


class OperationContext(Protocol):
    """What operations may ask of the running case."""

    @property
    def entities(self) -> EntityMap: ...

    @property
    def clock(self) -> Any: ...

    async def run_operations(self, operations: list[Mapping[str, Any]], *, in_callback: bool = False) -> None:
        """Run operations one after another; in a callback their errors also reach the caller."""
        ...


@attrs.frozen
class Method:
    """A driver's method.

    :ivar name: the method; empty for an operation with a function of its own.
    :ivar required: the format's arguments that must be there.
    :ivar optional: those that may be.
    :ivar as_is: those that keep their name: they are options of the server's command.
    :ivar renamed: the driver's names where they are not the format's in snake_case.
    :ivar convert: turns values into the driver's.
    :ivar roots: the result is an array of root-level documents.
    :ivar function: called instead of the method.
    """

    name: str
    required: str = ""
    optional: str = ""
    as_is: str = ""
    renamed: Mapping[str, str] = attrs.field(factory=dict)
    convert: Callable[[str, Any], Any] = convert
    roots: bool = False
    function: Callable[[OperationContext, Any, dict[str, Any]], Awaitable[Any]] | None = None

    def keywords(self, entities: EntityMap, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The driver's keywords for the format's arguments."""
        found = take(arguments, self.required, f"{self.optional} {self.as_is} timeoutMS")
        keywords = {}
        for name, value in found.items():
            keyword = name if name in self.as_is.split() else self.renamed.get(name, snake_case(name))
            keywords[keyword] = entities.session(value).driver if name == "session" else self.convert(name, value)
        return keywords


FIND = (
    "sort skip limit batchSize collation comment hint let max min projection returnKey showRecordId allowDiskUse "
    "session cursorType maxAwaitTimeMS maxTimeMS timeoutMode allowPartialResults noCursorTimeout oplogReplay"
)
BUCKET_FIND = "allowDiskUse batchSize limit maxTimeMS noCursorTimeout skip sort"
CHANGE_STREAM = (
    "fullDocument fullDocumentBeforeChange resumeAfter startAfter startAtOperationTime batchSize collation comment "
    "session showExpandedEvents maxAwaitTimeMS"
)
FIND_AND_MODIFY_AS_IS = "bypassDocumentValidation collation maxTimeMS"
CURSOR_COMMAND = "readPreference session batchSize maxTimeMS comment cursorType timeoutMode"
TRANSACTION = "readConcern writeConcern readPreference maxCommitTimeMS"


async def _create_find_cursor(context: OperationContext, collection: Any, keywords: dict[str, Any]) -> Any:
    cursor = CursorEntity(collection.find(**keywords), keywords.get("cursor_type") == CursorType.TAILABLE_AWAIT)
    await cursor.open()
    return cursor


async def _watch(context: OperationContext, watched: Any, keywords: dict[str, Any]) -> Any:
    stream = watched.watch(**keywords)
    if hasattr(stream, "addCallbacks"):
        stream = await stream
    return ChangeStreamEntity(stream)


async def _create_collection(context: OperationContext, database: Any, keywords: dict[str, Any]) -> DriverObject:
    # The look whether it is there would be one more command than the cases expect.
    return DriverObject("collection", await settle(database.create_collection(check_exists=False, **keywords)))


async def _create_index(context: OperationContext, collection: Any, keywords: dict[str, Any]) -> Any:
    return await settle(collection.create_index(keywords.pop("keys"), **keywords))


def _as_is(name: str, value: Any) -> Any:
    return value


async def _create_search_indexes(context: OperationContext, collection: Any, keywords: dict[str, Any]) -> Any:
    models = [SearchIndexModel(**model) for model in keywords["models"]]
    return await settle(collection.create_search_indexes(models))


async def _list_search_indexes(context: OperationContext, collection: Any, keywords: dict[str, Any]) -> Any:
    options = keywords.pop("aggregation_options", {})
    return await settle(collection.list_search_indexes(**keywords, **options))


async def _create_command_cursor(context: OperationContext, database: Any, keywords: dict[str, Any]) -> Any:
    awaits = keywords.get("cursor_type") == CursorType.TAILABLE_AWAIT
    entity = CursorEntity(await _cursor_command(database, keywords), awaits)
    await entity.open()
    return entity


async def _run_cursor_command(context: OperationContext, database: Any, keywords: dict[str, Any]) -> Any:
    return await settle(await _cursor_command(database, keywords))


async def _cursor_command(database: Any, keywords: dict[str, Any]) -> Any:
    """The cursor of a command; batch size, time limit and comment are those of its getMores."""
    keywords.pop("command_name", None)
    keywords.pop("cursor_type", None)  # the command says it too
    batch_size = keywords.pop("batch_size", None)
    if "max_time_ms" in keywords:
        keywords["max_await_time_ms"] = keywords.pop("max_time_ms")
    cursor = database.cursor_command(keywords.pop("command"), **keywords)
    return cursor if batch_size is None else cursor.batch_size(batch_size)


async def _run_command(context: OperationContext, database: Any, keywords: dict[str, Any]) -> Any:
    keywords.pop("command_name", None)
    return await settle(database.command(keywords.pop("command"), **keywords))


async def _close_client(context: OperationContext, client: ClientEntity, keywords: dict[str, Any]) -> None:
    await client.close()


async def _append_metadata(context: OperationContext, client: ClientEntity, keywords: dict[str, Any]) -> None:
    info = take(keywords["driver_info_options"], "name", "version platform")
    await settle(client.driver.append_metadata(DriverInfo(**info)))


async def _end_session(context: OperationContext, session: SessionEntity, keywords: dict[str, Any]) -> None:
    await session.end()


async def _with_transaction(context: OperationContext, session: SessionEntity, keywords: dict[str, Any]) -> None:
    operations = keywords.pop("callback")

    async def callback(_session: Any) -> None:
        await context.run_operations(operations, in_callback=True)

    await settle(session.driver.with_transaction(callback, **keywords))


async def _iterate_until_document(context: OperationContext, cursor: Any, keywords: dict[str, Any]) -> Any:
    return await cursor.next_document(context.clock)


async def _iterate_once(context: OperationContext, cursor: Any, keywords: dict[str, Any]) -> Any:
    return await cursor.iterate_once()


async def _close_cursor(context: OperationContext, cursor: Any, keywords: dict[str, Any]) -> None:
    await cursor.close(**keywords)


async def _upload(context: OperationContext, bucket: Any, keywords: dict[str, Any]) -> Any:
    source = hex_bytes(keywords.pop("source"))
    keywords.pop("disable_md5", None)
    if "id" in keywords:
        keywords["file_id"] = keywords.pop("id")
        return await settle(bucket.upload_from_stream_with_id(source=source, **keywords))
    return await settle(bucket.upload_from_stream(source=source, **keywords))


async def _download(context: OperationContext, bucket: Any, keywords: dict[str, Any]) -> bytes:
    stream = await bucket.open_download_stream(**keywords)
    return bytes(await settle(stream.read()))


async def _download_by_name(context: OperationContext, bucket: Any, keywords: dict[str, Any]) -> bytes:
    stream = await bucket.open_download_stream_by_name(**keywords)
    return bytes(await settle(stream.read()))


async def _find_files(context: OperationContext, bucket: Any, keywords: dict[str, Any]) -> list[Any]:
    # The format compares documents; the driver gives the files themselves.
    return [grid_out._file for grid_out in await settle(bucket.find(**keywords))]


AGGREGATE = Method(
    "aggregate",
    "pipeline",
    "session let comment timeoutMode",
    "allowDiskUse batchSize bypassDocumentValidation collation hint maxTimeMS maxAwaitTimeMS",
    roots=True,
)

CLIENT: dict[str, Method] = {
    "appendMetadata": Method("", "driverInfoOptions", function=_append_metadata),
    "clientBulkWrite": Method(
        "bulk_write",
        "models",
        "session ordered bypassDocumentValidation comment let writeConcern verboseResults",
    ),
    "close": Method("", function=_close_client),
    "createChangeStream": Method("", "pipeline", CHANGE_STREAM, function=_watch),
    "dropDatabase": Method("drop_database", "database", "session comment", renamed={"database": "name_or_database"}),
    "listDatabaseNames": Method("list_database_names", "", "session comment", "filter nameOnly authorizedDatabases"),
    "listDatabaseObjects": Method("list_databases", "", "session comment", "filter", roots=True),
    "listDatabases": Method("list_databases", "", "session comment", "filter nameOnly authorizedDatabases", roots=True),
}

DATABASE: dict[str, Method] = {
    "aggregate": AGGREGATE,
    "createChangeStream": Method("", "pipeline", CHANGE_STREAM, function=_watch),
    "createCollection": Method(
        "",
        "collection",
        "session",
        "capped size max viewOn pipeline validator collation clusteredIndex changeStreamPreAndPostImages "
        "expireAfterSeconds timeseries comment",
        {"collection": "name"},
        function=_create_collection,
    ),
    "createCommandCursor": Method("", "command", f"commandName {CURSOR_COMMAND}", function=_create_command_cursor),
    "dropCollection": Method(
        "drop_collection", "collection", "session comment", renamed={"collection": "name_or_collection"}
    ),
    "listCollectionNames": Method("list_collection_names", "", "session comment filter"),
    "listCollectionObjects": Method("list_collections", "", "session comment filter", roots=True),
    "listCollections": Method("list_collections", "", "session comment filter timeoutMode", "batchSize", roots=True),
    "modifyCollection": Method(
        "modify_collection", "collection", "session", "validator", {"collection": "name_or_collection"}
    ),
    "runCommand": Method("", "command", "commandName readPreference session", function=_run_command),
    "runCursorCommand": Method(
        "", "command", f"commandName {CURSOR_COMMAND}", roots=True, function=_run_cursor_command
    ),
}

COLLECTION: dict[str, Method] = {
    "aggregate": AGGREGATE,
    "bulkWrite": Method("bulk_write", "requests", "ordered bypassDocumentValidation comment let session"),
    "count": Method("count", "filter", "session", "skip limit collation hint maxTimeMS"),
    "countDocuments": Method("count_documents", "filter", "session comment", "skip limit collation hint maxTimeMS"),
    "createChangeStream": Method("", "pipeline", CHANGE_STREAM, function=_watch),
    "createFindCursor": Method("", "filter", FIND, function=_create_find_cursor),
    "createIndex": Method("", "keys", "session comment", "name unique maxTimeMS", function=_create_index),
    "createSearchIndex": Method("create_search_index", "model"),
    "createSearchIndexes": Method("", "models", convert=_as_is, function=_create_search_indexes),
    "deleteMany": Method("delete_many", "filter", "collation comment hint let session"),
    "deleteOne": Method("delete_one", "filter", "collation comment hint let session"),
    "distinct": Method(
        "distinct", "fieldName filter", "comment hint session", "collation maxTimeMS", {"fieldName": "key"}
    ),
    "dropIndex": Method("drop_index", "name", "session comment", "maxTimeMS", {"name": "index_or_name"}),
    "dropSearchIndex": Method("drop_search_index", "name"),
    "dropIndexes": Method("drop_indexes", "", "session comment", "maxTimeMS"),
    "estimatedDocumentCount": Method("estimated_document_count", "", "comment", "maxTimeMS"),
    "find": Method("find", "filter", FIND, roots=True),
    "findOne": Method("find_one", "filter", FIND),
    "findOneAndDelete": Method(
        "find_one_and_delete", "filter", "projection sort hint let comment session", FIND_AND_MODIFY_AS_IS
    ),
    "findOneAndReplace": Method(
        "find_one_and_replace",
        "filter replacement",
        "projection sort hint let comment session upsert returnDocument",
        FIND_AND_MODIFY_AS_IS,
    ),
    "findOneAndUpdate": Method(
        "find_one_and_update",
        "filter update",
        "projection sort hint let comment session upsert returnDocument arrayFilters",
        FIND_AND_MODIFY_AS_IS,
    ),
    "insertMany": Method("insert_many", "documents", "ordered bypassDocumentValidation comment session"),
    "insertOne": Method("insert_one", "document", "bypassDocumentValidation comment session"),
    "listIndexNames": Method("list_index_names", "", "session comment"),
    "listIndexes": Method("list_indexes", "", "session comment timeoutMode batchSize", roots=True),
    "listSearchIndexes": Method("", "", "name aggregationOptions", function=_list_search_indexes, roots=True),
    "mapReduce": Method("map_reduce", "map reduce out", "session", roots=True),
    "rename": Method("rename", "to", "session comment", "dropTarget", {"to": "new_name"}),
    "replaceOne": Method(
        "replace_one",
        "filter replacement",
        "upsert bypassDocumentValidation collation comment hint let sort session",
        convert=convert_for_update,
    ),
    "updateMany": Method(
        "update_many",
        "filter update",
        "upsert bypassDocumentValidation arrayFilters collation comment hint let session",
    ),
    "updateSearchIndex": Method("update_search_index", "name definition"),
    "updateOne": Method(
        "update_one",
        "filter update",
        "upsert bypassDocumentValidation arrayFilters collation comment hint let sort session",
        convert=convert_for_update,
    ),
}

SESSION: dict[str, Method] = {
    "abortTransaction": Method("abort_transaction"),
    "commitTransaction": Method("commit_transaction"),
    "endSession": Method("", function=_end_session),
    "startTransaction": Method("start_transaction", "", TRANSACTION),
    "withTransaction": Method("", "callback", TRANSACTION, function=_with_transaction),
}

CURSOR: dict[str, Method] = {
    "close": Method("", function=_close_cursor),
    "iterateOnce": Method("", function=_iterate_once),
    "iterateUntilDocumentOrError": Method("", function=_iterate_until_document),
}

BUCKET: dict[str, Method] = {
    "delete": Method("delete", "id", renamed={"id": "file_id"}),
    "deleteByName": Method("delete_by_name", "filename"),
    "download": Method("", "id", renamed={"id": "file_id"}, function=_download),
    "downloadByName": Method("", "filename", "revision", function=_download_by_name),
    "drop": Method("drop"),
    "find": Method("", "filter", BUCKET_FIND, roots=True, function=_find_files),
    "rename": Method("rename", "id newFilename", renamed={"id": "file_id"}),
    "renameByName": Method("rename_by_name", "filename newFilename"),
    "upload": Method(
        "",
        "filename source",
        "chunkSizeBytes disableMD5 metadata",
        renamed={"disableMD5": "disable_md5"},
        function=_upload,
    ),
    "uploadWithId": Method(
        "",
        "id filename source",
        "chunkSizeBytes disableMD5 metadata",
        renamed={"disableMD5": "disable_md5"},
        function=_upload,
    ),
}

CLIENT_ENCRYPTION = {
    "addKeyAltName": Method("add_key_alt_name", "id keyAltName"),
    "createDataKey": Method("", "kmsProvider", "opts", function=encryption.create_data_key),
    "decrypt": Method("decrypt", "value"),
    "deleteKey": Method("delete_key", "id"),
    "encrypt": Method("", "value opts", convert=_as_is, function=encryption.encrypt),
    "getKey": Method("get_key", "id"),
    "getKeyByAltName": Method("get_key_by_alt_name", "keyAltName"),
    "getKeys": Method("get_keys", roots=True),
    "removeKeyAltName": Method("remove_key_alt_name", "id keyAltName"),
    "rewrapManyDataKey": Method("", "filter", "opts", function=encryption.rewrap_many_data_key),
}

#: The operations of each kind of entity.
OPERATIONS: dict[str, dict[str, Method]] = {
    "client": CLIENT,
    "database": DATABASE,
    "collection": COLLECTION,
    "session": SESSION,
    "cursor": CURSOR,
    "changeStream": CURSOR,
    "bucket": BUCKET,
    "clientEncryption": CLIENT_ENCRYPTION,
}

#: Operations whose target is the entity, not the driver's object within it.
WRAPPED = (SessionEntity, ClientEntity)


def _find(kind: str, name: str) -> Method:
    method = OPERATIONS.get(kind, {}).get(name)
    if method is None:
        raise FormatError(f"there is no operation {name} of a {kind}")
    return method


def returns_root_documents(kind: str, name: str) -> bool:
    """Whether an operation's result is an array of root-level documents."""
    return _find(kind, name).roots


def prepare(context: OperationContext, operation: Mapping[str, Any]) -> Callable[[], Awaitable[Any]]:
    """Look an operation up and check its arguments; what comes back calls the driver and gives the result as documents.

    :raises FormatError: the entity, the operation or an argument is unknown.
    """
    target_name, name = operation["object"], operation["name"]
    kind = context.entities.kind(target_name)
    method = _find(kind, name)
    target = context.entities.get(target_name, kind)
    keywords = method.keywords(context.entities, operation.get("arguments") or {})
    return lambda: call_operation(context, method, target, keywords)


async def call_operation(context: OperationContext, method: Method, target: Any, keywords: dict[str, Any]) -> Any:
    """Call the driver."""
    if method.function is not None:
        watched = target.driver if isinstance(target, ClientEntity) and method.function is _watch else target
        return result_document(await method.function(context, watched, keywords))
    driver = target.driver if isinstance(target, WRAPPED) else target
    return result_document(await settle(getattr(driver, method.name)(**keywords)))
