"""How the collections of a database come to be, and go: what is looked up before, and what belongs to encrypted fields.

The commands are :mod:`txmongo._ops.admin`'s; those for the collections that Queryable Encryption keeps beside one are
:mod:`txmongo._encryption.queryable`'s. Client-side encryption specification, "Create Collection Helper" and "Drop
Collection Helper": where encrypted fields are looked for.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txmongo._encryption.queryable import created, dropped
from txmongo._ops.admin import Create, CreateEncrypted, Drop, ListCollections
from txmongo._ops.arguments import check_mapping
from txmongo._ops.base import REPLY_CODEC_OPTIONS, Execute, collation_document
from txmongo._ops.cursors import CursorBatch
from txmongo._ops.run_command import allow_errors
from txmongo.errors import CollectionExists

if TYPE_CHECKING:
    from txmongo._encryption.automatic import AutomaticEncryption

__all__ = ["create", "creation", "drop"]

#: What a server before 7.0 answers when a collection that is not there is dropped.
_NOT_FOUND: Container[int | str] = frozenset({26, "ns not found"})


def creation(
    database: str, name: str, fields: Mapping[str, Any], encryption: AutomaticEncryption | None, **options: Any
) -> Create:
    """The operation that creates a collection.

    :param fields: those of the command; what is ``None`` is left out.
    :param encryption: the client's, if it has any: it may know which fields are encrypted.
    :param options: further arguments of the operation.
    :raises TypeError: ``collation`` or ``encryptedFields`` is not of its type.
    """
    fields = dict(fields)
    if fields.get("collation") is not None:
        fields["collation"] = collation_document(fields["collation"])
    encrypted_fields = fields.get("encryptedFields")
    if encrypted_fields is not None:
        check_mapping("encryptedFields", encrypted_fields)
    elif encryption is not None:
        encrypted_fields = encryption.encrypted_fields(f"{database}.{name}")
        fields["encryptedFields"] = encrypted_fields
    given = {field: value for field, value in fields.items() if value is not None}
    return (Create if encrypted_fields is None else CreateEncrypted)(database, name, given, **options)


def create(execute: Execute[Any], operation: Create, *, check_exists: bool) -> Deferred[Any]:
    """Create a collection, and what belongs to it if it has encrypted fields.

    :param check_exists: look first whether it is there. Not in a transaction, in which servers list no collections.
    :returns: a Deferred that fires with the server's reply. It fails with :class:`~txmongo.errors.CollectionExists` if
        the collection was found, and as ``execute`` does.
    """

    def run() -> Deferred[Any]:
        if isinstance(operation, CreateEncrypted):
            return Deferred.fromCoroutine(created(execute, operation))
        return execute(operation)

    def run_unless_found(batch: CursorBatch) -> Deferred[Any]:
        if batch.documents:
            raise CollectionExists(f"collection {operation.target} already exists", 48)
        return run()

    session = operation.session
    if not check_exists or (session is not None and session.transaction.active):
        return run()
    by_name = {"filter": {"name": operation.target}, "nameOnly": True}
    listing = ListCollections(operation.database, by_name, session=session)
    return execute(listing).addCallback(run_unless_found)


def drop(
    execute: Execute[Any],
    operation: Drop,
    encrypted_fields: Mapping[str, Any] | None,
    encryption: AutomaticEncryption | None,
) -> Deferred[Mapping[str, Any]]:
    """Drop a collection, and what belongs to it if it has encrypted fields. One that is not there is no error.

    :param encrypted_fields: if they are not given, a client with an ``encrypted_fields_map`` looks there, and then asks
        the server.
    :param encryption: the client's, if it has any.
    :returns: a Deferred that fires with the server's reply, and fails as ``execute`` does.
    :raises TypeError: ``encrypted_fields`` is no mapping.
    """

    def drop_one(operation: Drop) -> Deferred[Mapping[str, Any]]:
        return execute(operation).addErrback(allow_errors, REPLY_CODEC_OPTIONS, _NOT_FOUND)

    async def drop_encrypted(encrypted_fields: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Drop a collection of which only the server may know that it has encrypted fields."""
        if encrypted_fields is None:
            by_name = {"filter": {"name": operation.target}}
            listing = ListCollections(operation.database, by_name, session=operation.session)
            for found in (await execute(listing)).documents:
                encrypted_fields = found.get("options", {}).get("encryptedFields")
        if encrypted_fields is None:
            return await drop_one(operation)
        reply: Mapping[str, Any] = await dropped(drop_one, operation, encrypted_fields)
        return reply

    if encrypted_fields is not None:
        check_mapping("encrypted_fields", encrypted_fields)
    elif encryption is None or not encryption.knows_encrypted_fields:
        return drop_one(operation)
    else:
        encrypted_fields = encryption.encrypted_fields(f"{operation.database}.{operation.target}")
    return Deferred.fromCoroutine(drop_encrypted(encrypted_fields))
