"""The collection that data keys are kept in, as the specification wants it to be read and written.

Client-side encryption specification, "Key vault collection": majority read and write concern, documents as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

if TYPE_CHECKING:
    from txmongo.collection import Collection

__all__ = ["RAW", "key_vault_of", "split_namespace"]

#: Documents in BSON, in which a UUID is a ``Binary``.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


def split_namespace(key_vault_namespace: Any) -> tuple[str, str]:
    """The names of the database and of the collection.

    :raises TypeError: it is no str.
    :raises ValueError: it does not name both.
    """
    if not isinstance(key_vault_namespace, str):
        raise TypeError(f"key_vault_namespace must be a str, not {type(key_vault_namespace).__name__}")
    database, _, collection = key_vault_namespace.partition(".")
    if not database or not collection:
        raise ValueError(f"key_vault_namespace must be 'database.collection', not {key_vault_namespace!r}")
    return database, collection


def key_vault_of(client: Any, key_vault_namespace: Any, timeout_ms: float | None = None) -> Collection[RawBSONDocument]:
    """The collection of that name.

    :param timeout_ms: milliseconds that each operation with it may last; as the client's if it is not given.
    :raises TypeError: the name is no str, or the client none of the driver's.
    :raises ValueError: it does not name a database and a collection.
    """
    if not hasattr(type(client), "get_database") or not hasattr(client, "_executor"):
        raise TypeError(f"key_vault_client must be a ConnectionPool, not {type(client).__name__}")
    database, collection = split_namespace(key_vault_namespace)
    found: Collection[RawBSONDocument] = client.get_database(database).get_collection(
        collection,
        codec_options=RAW,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority"),
        timeout_ms=timeout_ms,
    )
    return found
