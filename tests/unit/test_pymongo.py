"""PyMongo's private names: each is there and takes what the driver passes, in whichever PyMongo is installed.

The suite runs with the lowest and with the newest PyMongo that are allowed; what differs between them must not stand
in ``txmongo._pymongo``.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import time
from collections.abc import Callable
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS
from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandListener
from twisted.trial.unittest import SynchronousTestCase

from tests.listeners import PoolListener
from txmongo import _pymongo

SIGNATURES: dict[str, list[str]] = {
    "ScramContext": ["credentials", "address", "mechanism"],
    "X509Context": ["credentials", "address"],
    "ZlibContext": ["level"],
    "add_error_label": ["self", "label"],
    "authenticate_plain": ["credentials", "conn"],
    "authenticate_scram": ["credentials", "conn", "mechanism"],
    "authenticate_x509": ["credentials", "conn"],
    "auto_encryption_options": ["opts"],
    "build_credentials": ["mech", "source", "user", "passwd", "extra", "database"],
    "decode_all_selective": ["data", "codec_options", "fields"],
    "do_batched_op_msg": ["namespace", "operation", "command", "docs", "opts", "ctx"],
    "metadata_env": [],
    "object_ids": ["count"],
    "parse_codec_options": ["options"],
    "registered_listeners": [],
    "saslprep": ["data", "prohibit_unassigned_code_points"],
    "updated_topology_description": ["topology_description", "server_description"],
    "updated_topology_description_srv_polling": ["topology_description", "seedlist"],
}

#: Values and classes, whose use is tried below or by the layer that uses them.
WITHOUT_SIGNATURE = {
    "CLIENT_METADATA",
    "SERVER_TYPE",
    "MongoCredential",
    "ServerMode",
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

    def test_decoding(self) -> None:
        """A reply whose user fields are decoded apart comes as a list of one document."""
        reply = bson.encode({"cursor": {"firstBatch": [{"a": 1}]}, "ok": 1.0})
        found = _pymongo.decode_all_selective(reply, DEFAULT_CODEC_OPTIONS, {"cursor": {"firstBatch": 1}})
        self.assertEqual(found, [{"cursor": {"firstBatch": [{"a": 1}]}, "ok": 1.0}])

    def test_object_ids(self) -> None:
        """Ids that are made together follow each other and those that ObjectId makes, of the same process and time."""
        ids = [ObjectId(), *_pymongo.object_ids(3), ObjectId(), *_pymongo.object_ids(0), ObjectId()]
        self.assertEqual(len({each.binary[4:9] for each in ids}), 1)
        numbers = [int.from_bytes(each.binary[9:], "big") for each in ids]
        self.assertEqual(numbers, [(numbers[0] + step) % (1 << 24) for step in range(6)])
        for each in ids:
            self.assertLess(abs(each.generation_time.timestamp() - time.time()), 30)
            same = ObjectId(each.binary)
            self.assertEqual((type(each), each, hash(each), str(each)), (ObjectId, same, hash(same), str(same)))
            self.assertEqual((pickle.loads(pickle.dumps(each)), copy.deepcopy(each)), (each, each))
            self.assertEqual(bson.encode({"a": each}), bson.encode({"a": same}))

    def test_object_ids_at_the_turn(self) -> None:
        """After the last number comes the first again."""
        self.patch(ObjectId, "_inc", (1 << 24) - 2)
        numbers = [each.binary[9:] for each in [*_pymongo.object_ids(3), ObjectId()]]
        self.assertEqual(numbers, [b"\xff\xff\xfe", b"\xff\xff\xff", b"\0\0\0", b"\0\0\1"])

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

    def test_registered_listeners(self) -> None:
        """What is registered for all clients is found once, however many kinds of events it hears, in that order."""

        class Both(CommandListener, PoolListener):
            """Hears of commands and of pools."""

        both, pools = Both(), PoolListener()
        before = _pymongo.registered_listeners()
        for listener in (both, pools):
            monitoring.register(listener)
            self.addCleanup(monitoring._LISTENERS.cmap_listeners.remove, listener)
        self.addCleanup(monitoring._LISTENERS.command_listeners.remove, both)
        self.assertEqual(_pymongo.registered_listeners(), (*before, both, pools))

    def test_labels(self) -> None:
        """A label that is added to an error is one of its labels."""
        error = PyMongoError("lost")
        _pymongo.add_error_label(error, "RetryableError")
        self.assertTrue(error.has_error_label("RetryableError"))

    def test_client_metadata(self) -> None:
        """The machine's part of the client metadata says what the handshake specification asks for."""
        self.assertIn("type", _pymongo.CLIENT_METADATA["os"])
        self.assertIsInstance(_pymongo.CLIENT_METADATA["platform"], str)
