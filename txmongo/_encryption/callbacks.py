"""What libmongocrypt asks the driver for: data keys from the key vault, and answers of key management services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument
from twisted.internet.defer import CancelledError

from txmongo._encryption.credentials import Credentials
from txmongo._encryption.kms import KMSRequests
from txmongo.errors import ConnectionFailure

if TYPE_CHECKING:
    from txmongo.collection import Collection

__all__ = ["Callbacks"]


class Callbacks:
    """What explicit encryption needs.

    :param key_vault: the collection with the data keys.
    :param kms: asks key management services.
    :param credentials: finds what was left open.
    """

    def __init__(self, key_vault: Collection[RawBSONDocument], kms: KMSRequests, credentials: Credentials) -> None:
        self._key_vault = key_vault
        self._kms = kms
        self._credentials = credentials

    async def kms_request(self, kms_context: Any) -> None:
        """Have a key management service answer."""
        try:
            await self._kms.complete(kms_context)
        except (CancelledError, ConnectionFailure):
            raise
        except Exception:
            self._credentials.forget()
            raise

    async def credentials(self) -> tuple[dict[str, Any], dict[str, Exception]]:
        """The credentials that were left open, and why those that are not there are not."""
        return await self._credentials.find()

    def hide(self, text: str) -> str:
        """A text without the secrets in it."""
        return self._credentials.hide(text)

    async def data_keys(self, filter: bytes) -> list[bytes]:
        """The data keys that match, in BSON."""
        return [bytes(key.raw) for key in await self._key_vault.find(RawBSONDocument(filter)).to_list()]

    async def insert_data_key(self, data_key: bytes) -> Any:
        """Put a new data key into the key vault; what its ``_id`` is."""
        document = RawBSONDocument(data_key)
        await self._key_vault.insert_one(document)
        return document["_id"]

    def bson_encode(self, doc: Mapping[str, Any]) -> bytes:
        """A document in BSON."""
        return bson.encode(doc)
