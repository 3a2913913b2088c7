"""Collections with fields of Queryable Encryption: those beside them that keep the state of the encryption.

Client-side encryption specification, "Create Collection Helper" and "Drop Collection Helper".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pymongo.operations import IndexModel
from twisted.internet.defer import Deferred

from txmongo._ops.admin import CreateEncrypted, Drop
from txmongo._ops.base import Execute
from txmongo._ops.indexes import CreateIndexes

__all__ = ["created", "dropped"]


def _state_collections(name: str, encrypted_fields: Mapping[str, Any]) -> list[str]:
    """The collections that keep the state of a collection's encrypted fields."""
    return [encrypted_fields.get(f"{kind}Collection", f"enxcol_.{name}.{kind}") for kind in ("esc", "ecoc")]


async def created(execute: Execute[Any], operation: CreateEncrypted) -> Any:
    """Create a collection with encrypted fields, and what belongs to it; the reply.

    :raises ConfigurationError: the server is older than MongoDB 7.0.
    """
    assert operation.fields is not None
    for name in _state_collections(operation.target, operation.fields["encryptedFields"]):
        fields = {"clusteredIndex": {"key": {"_id": 1}, "unique": True}}
        options = {"write_concern": operation.write_concern, "session": operation.session}
        await execute(CreateEncrypted(operation.database, name, fields, **options))
    reply = await execute(operation)
    indexes = [IndexModel([("__safeContent__", 1)]).document]
    await execute(
        CreateIndexes(
            operation.database,
            operation.target,
            indexes,
            write_concern=operation.write_concern,
            session=operation.session,
        )
    )
    return reply


async def dropped(drop: Callable[[Drop], Deferred[Any]], operation: Drop, encrypted_fields: Mapping[str, Any]) -> Any:
    """Drop a collection with encrypted fields, and what belongs to it; the reply.

    :param drop: drops one; that it is not there is no error.
    """
    for name in _state_collections(operation.target, encrypted_fields):
        options = {"write_concern": operation.write_concern, "session": operation.session}
        await drop(Drop(operation.database, name, **options))
    return await drop(operation)
