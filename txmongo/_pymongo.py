"""The one door to what PyMongo and bson keep to themselves.

Every name with a leading underscore in those packages that the driver uses is imported here, and nowhere else, under a
name without one; so are the functions of modules that PyMongo does not document. Taken is only what has one signature
in the oldest and in the newest PyMongo that are allowed: ``tests/unit/test_pymongo.py`` holds each name to it.
"""

from __future__ import annotations

import itertools
import struct
import time
from typing import Any

from bson import _decode_all_selective as decode_all_selective
from bson.codec_options import _parse_codec_options as parse_codec_options
from bson.objectid import ObjectId
from pymongo.asynchronous.auth import _authenticate_plain as authenticate_plain
from pymongo.asynchronous.auth import _authenticate_scram as authenticate_scram
from pymongo.asynchronous.auth import _authenticate_x509 as authenticate_x509

# The oldest allowed PyMongo defines the two contexts in this module, the newest only imports them here.
from pymongo.asynchronous.auth import _ScramContext as ScramContext  # type: ignore[attr-defined]
from pymongo.asynchronous.auth import _X509Context as X509Context  # type: ignore[attr-defined]
from pymongo.auth_shared import MongoCredential
from pymongo.auth_shared import _build_credentials_tuple as build_credentials
from pymongo.compression_support import ZlibContext
from pymongo.errors import PyMongoError
from pymongo.message import _do_batched_op_msg as do_batched_op_msg
from pymongo.monitoring import _LISTENERS
from pymongo.pool_options import _METADATA as CLIENT_METADATA
from pymongo.pool_options import _metadata_env as metadata_env
from pymongo.read_preferences import _ServerMode as ServerMode
from pymongo.saslprep import saslprep
from pymongo.server_type import SERVER_TYPE
from pymongo.topology_description import (
    _updated_topology_description_srv_polling as updated_topology_description_srv_polling,
)
from pymongo.topology_description import updated_topology_description

#: The only way to label an error that PyMongo did not make from a reply.
add_error_label = PyMongoError._add_error_label

__all__ = [
    "CLIENT_METADATA",
    "SERVER_TYPE",
    "MongoCredential",
    "ScramContext",
    "ServerMode",
    "X509Context",
    "ZlibContext",
    "add_error_label",
    "authenticate_plain",
    "authenticate_scram",
    "authenticate_x509",
    "auto_encryption_options",
    "build_credentials",
    "decode_all_selective",
    "do_batched_op_msg",
    "metadata_env",
    "object_ids",
    "parse_codec_options",
    "registered_listeners",
    "saslprep",
    "updated_topology_description",
    "updated_topology_description_srv_polling",
]

#: What PyMongo's ``AutoEncryptionOpts`` keeps of its arguments, under their names.
_AUTO_ENCRYPTION = (
    "bypass_auto_encryption",
    "bypass_query_analysis",
    "crypt_shared_lib_path",
    "crypt_shared_lib_required",
    "encrypted_fields_map",
    "key_expiration_ms",
    "key_vault_client",
    "key_vault_namespace",
    "kms_providers",
    "kms_tls_options",
    "mongocryptd_bypass_spawn",
    "mongocryptd_spawn_args",
    "mongocryptd_spawn_path",
    "mongocryptd_uri",
    "schema_map",
)

_NUMBERS = 1 << 24
_new = object.__new__
_pack_start = struct.Struct(">I5s").pack


def auto_encryption_options(opts: Any) -> dict[str, Any]:
    """The arguments that an ``AutoEncryptionOpts`` was made with; ``kms_connect_callback`` if this PyMongo has it."""
    options = {name: getattr(opts, f"_{name}") for name in _AUTO_ENCRYPTION}
    options["kms_connect_callback"] = getattr(opts, "_kms_connect_callback", None)
    return options


def registered_listeners() -> tuple[Any, ...]:
    """The listeners that ``pymongo.monitoring.register`` was given, for all clients that are made from then on."""
    every = itertools.chain.from_iterable(_LISTENERS)
    return tuple({id(listener): listener for listener in every}.values())


def object_ids(count: int) -> list[ObjectId]:
    """The ids that so many calls of ``ObjectId()`` would make now, in a quarter of the time."""
    with ObjectId._inc_lock:
        first = ObjectId._inc
        ObjectId._inc = (first + count) % _NUMBERS
    start = _pack_start(int(time.time()), ObjectId._random())
    made = list(map(_new, itertools.repeat(ObjectId, count)))
    for each, number in zip(made, range(first, first + count), strict=True):
        each._ObjectId__id = start + (number % _NUMBERS).to_bytes(3)  # type: ignore[attr-defined]
    return made
