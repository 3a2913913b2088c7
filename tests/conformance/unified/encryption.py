"""Client-side encryption in the format: its options, with credentials for placeholders, and its operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.encryption_options import AutoEncryptionOpts

from tests.conformance.unified import arguments
from tests.conformance.unified.failures import FormatError
from tests.conformance.unified.results import bulk_details_document
from tests.conformance.unified.waiting import settle
from txmongo.encryption import ClientEncryption

__all__ = ["auto_encryption_opts", "create_data_key", "encrypt", "make_client_encryption", "rewrap_many_data_key"]

#: What stands for placeholders. The local key is the one that the specification's data keys are encrypted with; the
#: other credentials are nobody's.
_CREDENTIALS: dict[str, dict[str, Any]] = {
    "aws": {"accessKeyId": "nobody", "secretAccessKey": "nothing", "sessionToken": "none"},
    "azure": {"tenantId": "nobody", "clientId": "nobody", "clientSecret": "nothing"},
    "gcp": {"email": "nobody@example.com", "privateKey": "bm90aGluZw=="},
    "kmip": {"endpoint": "kmip.example:5698"},
    "local": {
        "key": "Mng0NCt4ZHVUYUJCa1kxNkVyNUR1QURhZ2h2UzR2d2RrZzh0cFBwM3R6NmdWMDFB"
        "MUN3YkQ5aXRRMkhGRGdQV09wOGVNYUMxT2k3NjZKelhaQmRCZGJkTXVyZG9uSjFk"
    },
}
_ENDPOINTS = {"azure": ("identityPlatformEndpoint",), "gcp": ("endpoint",)}
_AUTOMATIC = (
    "schemaMap encryptedFieldsMap extraOptions bypassAutoEncryption bypassQueryAnalysis keyExpirationMS "
    "keyVaultNamespace"
)
_EXTRA = "mongocryptdBypassSpawn mongocryptdURI cryptSharedLibPath cryptSharedLibRequired"


def kms_providers(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The credentials, filled in.

    :raises FormatError: a provider or a field of one is unknown.
    """
    return {name: _filled(name, given) for name, given in spec.items()}


def _filled(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kind = name.partition(":")[0]
    if kind not in _CREDENTIALS:
        raise FormatError(f"there is no KMS provider {name}")
    known = _CREDENTIALS[kind]
    arguments.take(given, "", " ".join((*known, *_ENDPOINTS.get(kind, ()))))
    return {field: known[field] if _is_placeholder(value) else value for field, value in given.items()}


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, Mapping) and list(value) == ["$$placeholder"]


def auto_encryption_opts(spec: Mapping[str, Any]) -> AutoEncryptionOpts:
    """A client's ``autoEncryptOpts``."""
    options = arguments.take(spec, "kmsProviders", _AUTOMATIC)
    extra = arguments.take(options.pop("extraOptions", {}), "", _EXTRA)
    keywords = {arguments.snake_case(name): value for name, value in {**options, **extra}.items()}
    providers = kms_providers(keywords.pop("kms_providers"))
    return AutoEncryptionOpts(providers, keywords.pop("key_vault_namespace", "keyvault.datakeys"), **keywords)


def make_client_encryption(client: Any, spec: Mapping[str, Any]) -> ClientEncryption[Any]:
    """A ``clientEncryption`` entity."""
    options = arguments.take(spec, "keyVaultClient keyVaultNamespace kmsProviders", "keyExpirationMS")
    return ClientEncryption(
        kms_providers(options["kmsProviders"]),
        options["keyVaultNamespace"],
        client,
        client.codec_options,
        key_expiration_ms=options.get("keyExpirationMS"),
    )


def _with_options(keywords: dict[str, Any], known: str) -> dict[str, Any]:
    """Arguments, with those that the format has in ``opts``."""
    options = arguments.take(keywords.pop("opts", {}), "", known)
    return keywords | {arguments.snake_case(name): value for name, value in options.items()}


async def create_data_key(context: Any, encryption: Any, keywords: dict[str, Any]) -> Any:
    """``createDataKey``."""
    return await settle(encryption.create_data_key(**_with_options(keywords, "masterKey keyAltNames keyMaterial")))


async def rewrap_many_data_key(context: Any, encryption: Any, keywords: dict[str, Any]) -> Any:
    """``rewrapManyDataKey``."""
    result = await settle(encryption.rewrap_many_data_key(**_with_options(keywords, "provider masterKey")))
    found = result.bulk_write_result
    return {} if found is None else {"bulkWriteResult": bulk_details_document(found.bulk_api_result)}


async def encrypt(context: Any, encryption: Any, keywords: dict[str, Any]) -> Any:
    """``encrypt``."""
    return await settle(encryption.encrypt(**_with_options(keywords, "keyAltName keyId algorithm")))
