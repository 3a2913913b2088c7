"""What libmongocrypt asks the driver for: data keys from the key vault, and answers of key management services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument

from txmongo._encryption.kms import KMSRequests

if TYPE_CHECKING:
    from txmongo.collection import Collection

__all__ = ["Callbacks"]


class Callbacks:
    """The part of pymongocrypt's ``AsyncMongoCryptCallback`` that explicit encryption needs.

    :param key_vault: the collection with the data keys.
    :param kms: asks key management services.
    """

    def __init__(self, key_vault: Collection[RawBSONDocument], kms: KMSRequests) -> None:
        self._key_vault = key_vault
        self._kms = kms

    async def kms_request(self, kms_context: Any) -> None:
        """Have a key management service answer."""
        await self._kms.complete(kms_context)

    async def fetch_keys(self, filter: bytes) -> AsyncIterator[bytes]:
        """The data keys that match, in BSON."""
        # All at once: nothing is left open if libmongocrypt refuses one.
        for key in await self._key_vault.find(RawBSONDocument(filter)).to_list():
            yield bytes(key.raw)

    async def insert_data_key(self, data_key: bytes) -> Any:
        """Put a new data key into the key vault; what its ``_id`` is."""
        document = RawBSONDocument(data_key)
        await self._key_vault.insert_one(document)
        return document["_id"]

    def bson_encode(self, doc: Mapping[str, Any]) -> bytes:
        """A document in BSON."""
        return bson.encode(doc)

    async def close(self) -> None:
        """Nothing: who made the client and the requests ends them."""
