"""PyMongo's private names: each is there and takes what the driver passes, in whichever PyMongo is installed.

The suite runs with the lowest and with the newest PyMongo that are allowed; what differs between them must not stand
in ``txmongo._pymongo``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS
from pymongo.read_preferences import ReadPreference
from twisted.trial.unittest import SynchronousTestCase

from txmongo import _pymongo

SIGNATURES: dict[str, list[str]] = {
    "CompressionSettings": ["compressors", "zlib_compression_level"],
    "OpMsg": ["flags", "payload_document"],
    "ScramContext": ["credentials", "address", "mechanism"],
    "X509Context": ["credentials", "address"],
    "ZlibContext": ["level"],
    "authenticate_plain": ["credentials", "conn"],
    "authenticate_scram": ["credentials", "conn", "mechanism"],
    "authenticate_x509": ["credentials", "conn"],
    "build_credentials": ["mech", "source", "user", "passwd", "extra", "database"],
    "decode_all_selective": ["data", "codec_options", "fields"],
    "do_batched_op_msg": ["namespace", "operation", "command", "docs", "opts", "ctx"],
    "metadata_env": [],
    "op_msg": ["flags", "command", "dbname", "read_preference", "opts", "ctx"],
    "parse_codec_options": ["options"],
    "saslprep": ["data", "prohibit_unassigned_code_points"],
    "updated_topology_description": ["topology_description", "server_description"],
    "updated_topology_description_srv_polling": ["topology_description", "seedlist"],
    "validate_uri": ["uri", "default_port", "validate", "warn", "normalize", "srv_max_hosts"],
}

#: Values, classes without arguments of ours, and functions in C, whose use is tried below or by the layer that uses them.
WITHOUT_SIGNATURE = {
    "CLIENT_METADATA",
    "SERVER_TYPE",
    "CaseInsensitiveDictionary",
    "EventListener",
    "MongoCredential",
    "ServerMode",
    "SnappyContext",
    "ZstdContext",
    "bson_to_dict",
    "dict_to_bson",
}


class SignatureTests(SynchronousTestCase):
    """Names and parameters."""

    def test_every_name_is_held(self) -> None:
        """No name can be added to the module without being written down here."""
        self.assertEqual(sorted(_pymongo.__all__), sorted({*SIGNATURES, *WITHOUT_SIGNATURE}))

    def test_parameters(self) -> None:
        """Every function has exactly the parameters that the driver counts on, in that order."""
        found = {}
        for name in SIGNATURES:
            function: Callable[..., Any] = getattr(_pymongo, name)
            found[name] = list(inspect.signature(function).parameters)
        self.assertEqual(found, SIGNATURES)

    def test_authentication_is_a_coroutine(self) -> None:
        """The authentication functions can be driven by Deferreds: they are coroutine functions."""
        for function in (_pymongo.authenticate_plain, _pymongo.authenticate_scram, _pymongo.authenticate_x509):
            self.assertTrue(inspect.iscoroutinefunction(function), function)


class BehaviourTests(SynchronousTestCase):
    """What a signature cannot tell."""

    def test_credential_fields(self) -> None:
        """A credential has the fields that the handshake reads."""
        self.assertEqual(
            _pymongo.MongoCredential._fields,
            ("mechanism", "source", "username", "password", "mechanism_properties", "cache"),
        )

    def test_documents_round_trip(self) -> None:
        """The encoder takes (document, check_keys, options), the decoder (bytes, options)."""
        encoded = _pymongo.dict_to_bson({"a": 1}, False, DEFAULT_CODEC_OPTIONS)
        self.assertEqual(_pymongo.bson_to_dict(encoded, DEFAULT_CODEC_OPTIONS), {"a": 1})
        self.assertEqual(_pymongo.decode_all_selective(encoded, DEFAULT_CODEC_OPTIONS, None), [{"a": 1}])

    def test_op_msg(self) -> None:
        """A command is encoded to (request id, message, size, size of its greatest document)."""
        request_id, message, size, _ = _pymongo.op_msg(
            0, {"ping": 1}, "admin", ReadPreference.PRIMARY, DEFAULT_CODEC_OPTIONS
        )
        self.assertEqual(int.from_bytes(message[4:8], "little", signed=True), request_id)
        self.assertEqual(size, len(message) - 16 - 5)
        self.assertEqual(_pymongo.OpMsg.unpack(message[16:]).command_response(DEFAULT_CODEC_OPTIONS)["ping"], 1)

    def test_speculation(self) -> None:
        """A SCRAM context gives the first message of its conversation, and keeps what its answer is checked with."""
        credential = _pymongo.build_credentials("SCRAM-SHA-256", None, "user", "pencil", {}, None)
        context = _pymongo.ScramContext(credential, ("localhost", 27017), "SCRAM-SHA-256")
        command = context.speculate_command()
        assert command is not None
        self.assertEqual(command["saslStart"], 1)
        self.assertEqual(command["db"], "admin")
        self.assertIsNotNone(context.scram_data)
        context.speculative_authenticate = {"done": False}
        self.assertTrue(context.speculate_succeeded())

    def test_client_metadata(self) -> None:
        """The machine's part of the client metadata says what the handshake specification asks for."""
        self.assertIn("type", _pymongo.CLIENT_METADATA["os"])
        self.assertIsInstance(_pymongo.CLIENT_METADATA["platform"], str)

    def test_uri(self) -> None:
        """A parsed URI is a dictionary of these parts."""
        parsed = _pymongo.validate_uri("mongodb://user:secret@localhost/db")
        self.assertEqual(set(parsed), {"nodelist", "username", "password", "database", "collection", "options", "fqdn"})
        self.assertEqual(parsed["nodelist"], [("localhost", 27017)])
