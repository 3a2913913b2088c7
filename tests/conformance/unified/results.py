"""Turns the driver's result objects into documents, as the format wants to compare them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import results

__all__ = ["bulk_details_document", "result_document"]


def result_document(result: Any) -> Any:
    """A result as documents, arrays and scalars; what is no result object stays as it is."""
    match result:
        case results.InsertOneResult():
            return {"acknowledged": result.acknowledged, "insertedId": result.inserted_id}
        case results.InsertManyResult():
            return {"acknowledged": result.acknowledged, "insertedIds": _numbered(result.inserted_ids)}
        case results.UpdateResult():
            return _update_document(result)
        case results.DeleteResult() if result.acknowledged:
            return {"acknowledged": True, "deletedCount": result.deleted_count}
        case results.BulkWriteResult() if result.acknowledged:
            return {"acknowledged": True, **bulk_details_document(result.bulk_api_result)}
        case results.ClientBulkWriteResult() if result.acknowledged:
            return {"acknowledged": True, **_client_bulk_document(result)}
        case results.DeleteResult() | results.BulkWriteResult() | results.ClientBulkWriteResult():
            return {"acknowledged": False}
        case list() | tuple():
            return [result_document(one) for one in result]
        case _:
            return result


def bulk_details_document(details: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a bulk write from PyMongo's ``details`` of it.

    The ids of inserted documents are not among them; drivers need not report those.
    """
    upserted = details.get("upserted", [])
    return {
        "insertedCount": details["nInserted"],
        "deletedCount": details["nRemoved"],
        "matchedCount": details["nMatched"],
        "modifiedCount": details["nModified"],
        "upsertedCount": details["nUpserted"],
        "upsertedIds": {str(one["index"]): one["_id"] for one in upserted},
    }


def _numbered(values: Any) -> dict[str, Any]:
    return {str(index): value for index, value in enumerate(values)}


def _update_document(result: results.UpdateResult) -> dict[str, Any]:
    if not result.acknowledged:
        return {"acknowledged": False}
    upserted = bool(result.did_upsert)
    document = {
        "acknowledged": True,
        "matchedCount": result.matched_count,
        "modifiedCount": result.modified_count,
        "upsertedCount": int(upserted),
    }
    return document | ({"upsertedId": result.upserted_id} if upserted else {})


def _client_bulk_document(result: results.ClientBulkWriteResult) -> dict[str, Any]:
    document: dict[str, Any] = {
        "insertedCount": result.inserted_count,
        "deletedCount": result.deleted_count,
        "matchedCount": result.matched_count,
        "modifiedCount": result.modified_count,
        "upsertedCount": result.upserted_count,
    }
    if result.has_verbose_results:
        document |= {
            "insertResults": _without_acknowledged(result.insert_results),
            "updateResults": _without_acknowledged(result.update_results),
            "deleteResults": _without_acknowledged(result.delete_results),
        }
    return document


def _without_acknowledged(found: Mapping[int, Any]) -> dict[str, Any]:
    """Single results by index; counts of upserts are not part of them."""
    kept = {}
    for index, result in found.items():
        document = result_document(result)
        for field in ("acknowledged", "upsertedCount"):
            document.pop(field, None)
        kept[str(index)] = document
    return kept
