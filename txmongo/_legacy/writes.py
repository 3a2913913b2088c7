"""What TxMongo 15.2's ``insert``, ``update``, ``save`` and ``remove`` mean in today's words: nothing is sent here.

They were messages without an answer, followed by the command getLastError, whose reply was the result. Its shape is
kept, as is how the write concern is found from ``safe`` and the keywords.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.results import DeleteResult, UpdateResult
from pymongo.write_concern import WriteConcern

from txmongo.errors import BulkWriteError, PyMongoError, write_error_from_reply

__all__ = [
    "CONTINUE_ON_ERROR",
    "SINGLE_REMOVE",
    "UPDATE_MULTI",
    "UPDATE_UPSERT",
    "checked_flags",
    "concern_for",
    "delete_spec",
    "error_of_insert",
    "has_operators",
    "outcome_of_delete",
    "outcome_of_update",
]

#: Flags of the messages that these methods were; :mod:`txmongo.protocol` has them under their long names.
CONTINUE_ON_ERROR = 1
UPDATE_UPSERT = 1
UPDATE_MULTI = 2
SINGLE_REMOVE = 1

_CONCERN_OPTIONS = frozenset({"w", "wtimeout", "j", "fsync"})


def concern_for(method: str, safe: Any, inherited: WriteConcern, options: Mapping[str, Any]) -> WriteConcern:
    """The write concern of one write.

    :param method: its name, for errors.
    :param safe: true for the inherited one, or the server's default if that is unacknowledged; false for an
        unacknowledged write; ``None`` for the inherited one.
    :param inherited: the collection's.
    :param options: ``w``, ``wtimeout``, ``j`` and ``fsync``, which win over ``safe``; ``None`` is not given.
    :raises TypeError: another keyword, or a value of the wrong type.
    """
    unknown = options.keys() - _CONCERN_OPTIONS
    if unknown:
        raise TypeError(f"{method}() got an unexpected keyword argument {min(unknown)!r}")
    explicit = WriteConcern(**options)
    if explicit.document:
        return explicit
    if safe is None:
        return inherited
    if not safe:
        return WriteConcern(w=0)
    return inherited if inherited.acknowledged else WriteConcern()


def checked_flags(flags: Any) -> int:
    """Flags of a message.

    :raises TypeError: they are not an int.
    """
    if not isinstance(flags, int) or isinstance(flags, bool):
        raise TypeError(f"flags must be an int, not {type(flags).__name__}")
    return flags


def has_operators(document: Mapping[str, Any]) -> bool:
    """Whether a document says what to change, by ``$set`` and the like; else it is a whole document."""
    return bool(document) and not isinstance(document, RawBSONDocument) and next(iter(document)).startswith("$")


def delete_spec(spec: Any) -> Mapping[str, Any]:
    """The filter for what ``remove`` takes.

    :param spec: a mapping, or an ``ObjectId``, which stands for the document of that ``_id``.
    :raises TypeError: it is neither.
    """
    if isinstance(spec, ObjectId):
        return {"_id": spec}
    if not isinstance(spec, Mapping):
        raise TypeError(f"spec must be a mapping or an ObjectId, not {type(spec).__name__}")
    return spec


def outcome_of_update(result: UpdateResult) -> dict[str, Any] | None:
    """What getLastError said after an update: ``ok``, ``n``, ``updatedExisting``, ``err`` and, if so, ``upserted``.

    :returns: ``None`` for an unacknowledged one.
    """
    if not result.acknowledged:
        return None
    raw = result.raw_result
    assert raw is not None
    outcome = {"ok": 1.0, "err": None, "n": raw.get("n", 0), "nModified": raw.get("nModified", 0)}
    outcome["updatedExisting"] = raw["updatedExisting"]
    if "upserted" in raw:
        outcome["upserted"] = raw["upserted"]
    return outcome


def outcome_of_delete(result: DeleteResult) -> dict[str, Any] | None:
    """What getLastError said after a delete: ``ok``, ``n`` and ``err``.

    :returns: ``None`` for an unacknowledged one.
    """
    return {"ok": 1.0, "err": None, "n": result.deleted_count} if result.acknowledged else None


def error_of_insert(error: BulkWriteError) -> PyMongoError:
    """The error of one document for that of an insert of many: the last, as getLastError knew no other.

    :returns: :class:`~txmongo.errors.DuplicateKeyError`, another :class:`~txmongo.errors.OperationFailure`, or
        ``error`` itself if it tells of none.
    """
    details: Mapping[str, Any] = error.details
    concern_errors = details.get("writeConcernErrors")
    reply = {
        "writeErrors": [
            {name: value for name, value in each.items() if name != "op"} for each in details.get("writeErrors", ())
        ],
        "writeConcernError": concern_errors[-1] if concern_errors else None,
        "errorLabels": details.get("errorLabels"),
    }
    return write_error_from_reply(reply) or error
