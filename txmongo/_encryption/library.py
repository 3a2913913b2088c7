"""libmongocrypt, by way of the ``pymongocrypt`` package, which is imported when a first object needs it.

Client-side encryption specification, "libmongocrypt": that library decides, encrypts and decrypts; whatever has to be
fetched for it, the driver fetches: :mod:`txmongo._encryption.crypt`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import bson

from txmongo._wire.optional import first_importable
from txmongo.errors import ConfigurationError

__all__ = [
    "check_kms_providers",
    "crypt_options",
    "encoded_map",
    "library_object",
    "part_of_library",
    "takes_string_opts",
]


def part_of_library(module: str) -> Any:
    """A module of pymongocrypt.

    :raises ConfigurationError: it is not installed.
    """
    found = first_importable(f"pymongocrypt.{module}")
    if found is None:
        raise ConfigurationError("client-side encryption needs pymongocrypt: pip install 'txmongo[encryption]'")
    return found


def check_kms_providers(kms_providers: Any) -> dict[str, Any]:
    """The credentials for key management services, as libmongocrypt takes them.

    :raises TypeError: it is no mapping.
    """
    if not isinstance(kms_providers, Mapping):
        raise TypeError(f"kms_providers must be a mapping, not {type(kms_providers).__name__}")
    return {name: dict(each) if isinstance(each, Mapping) else each for name, each in kms_providers.items()}


def crypt_options(kms_providers: Any, **options: Any) -> Any:
    """Options of libmongocrypt.

    :raises ConfigurationError: pymongocrypt is not installed.
    :raises TypeError: an option has a value of the wrong type.
    :raises ValueError: credentials are incomplete, or an option has a value that is not allowed.
    """
    return part_of_library("mongocrypt").MongoCryptOptions(check_kms_providers(kms_providers), **options)


def takes_string_opts() -> bool:
    """Whether pymongocrypt knows how to encrypt text that is to be searched in."""
    return "string_opts" in inspect.signature(part_of_library("options").ExplicitEncryptOpts).parameters


def library_object(options: Any, callbacks: Any) -> Any:
    """An object of libmongocrypt.

    :param callbacks: encode documents for it.

    :raises ConfigurationError: libmongocrypt does not take the options.
    """
    part_of_library("asynchronous.state_machine").AsyncMongoCryptCallback.register(type(callbacks))
    refusal: type[Exception] = part_of_library("errors").MongoCryptError
    try:
        return part_of_library("mongocrypt").MongoCrypt(options, callbacks)
    except refusal as error:
        raise ConfigurationError(f"libmongocrypt refuses the options: {error}") from None


def encoded_map(name: str, documents: Any) -> bytes | None:
    """A map of namespaces to documents as libmongocrypt takes it.

    :raises TypeError: it is no mapping.
    """
    if documents is None:
        return None
    if not isinstance(documents, Mapping):
        raise TypeError(f"{name} must be a mapping, not {type(documents).__name__}")
    return bson.encode(documents)
