"""Puts ``initialData`` in place before a case and compares ``outcome`` after it, over the runner's own connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.conformance.control import ControlLink
from tests.conformance.unified.failures import Mismatch
from tests.conformance.unified.matcher import UNSET, type_name

__all__ = ["check_outcome", "same", "set_up_data"]

NAMESPACE_NOT_FOUND = 26


async def set_up_data(control: ControlLink, collections: list[Mapping[str, Any]]) -> None:
    """Drop each collection and make it anew, with its documents, on every member: some cases ask secondaries."""
    members = (await control.run("admin", {"hello": 1})).get("hosts", ())
    everywhere = {"writeConcern": {"w": max(1, len(members))}}
    for data in collections:
        database, name, documents = data["databaseName"], data["collectionName"], data["documents"]
        await control.run(database, {"drop": name, **everywhere}, NAMESPACE_NOT_FOUND)
        options = data.get("createOptions", {})
        if options or not documents:
            await control.run(database, {"create": name, **options, **everywhere})
        if documents:
            reply = await control.run(database, {"insert": name, "documents": documents, **everywhere})
            assert "writeErrors" not in reply and "writeConcernError" not in reply, reply
    if members and collections:
        # All members have it, but that a majority has it for good the primary may learn a little later, and reads with
        # the read concern "majority" would not see it so long. A write that changes nothing waits for that.
        nothing = {"q": {"_id": 0}, "u": {"$set": {"a": 0}}}
        wait = {"update": "nothing", "updates": [nothing], "writeConcern": {"w": "majority"}}
        await control.run("txmongo_conformance", wait)


async def check_outcome(control: ControlLink, collections: list[Mapping[str, Any]]) -> None:
    """Compare the documents of each collection, sorted by their ids, with the expected ones: exactly.

    :raises Mismatch: they differ.
    """
    for data in collections:
        actual = await _documents(control, data["databaseName"], data["collectionName"])
        if not same(data["documents"], actual):
            raise Mismatch(f"outcome of {data['collectionName']}: {actual!r}, expected {data['documents']!r}")


async def _documents(control: ControlLink, database: str, collection: str) -> list[Any]:
    command = {"find": collection, "sort": {"_id": 1}, "readConcern": {"level": "local"}, "batchSize": 10_000}
    reply = await control.run(database, command)
    cursor = reply["cursor"]
    assert cursor["id"] == 0, "an outcome of several batches"
    documents: list[Any] = cursor["firstBatch"]
    return documents


def same(expected: Any, actual: Any) -> bool:
    """Whether two values are equal in value and in type, whatever the order of a document's keys."""
    if actual is UNSET or type_name(expected) != type_name(actual):
        return False
    if isinstance(expected, Mapping):
        return len(expected) == len(actual) and all(same(one, actual.get(key, UNSET)) for key, one in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    return bool(expected == actual)
