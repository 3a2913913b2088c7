"""The greeting and its answer, as plain values."""

from __future__ import annotations

import os
from typing import Any

import bson
from bson.objectid import ObjectId
from pymongo.driver_info import DriverInfo
from pymongo.server_api import ServerApi
from twisted.trial.unittest import SynchronousTestCase

from txmongo import _pymongo
from txmongo._cmap import handshake
from txmongo._cmap.handshake import agreed_compressor, check_hello, client_metadata, first_hello, server_api_fields
from txmongo._settings import parse_settings
from txmongo._version import __version__
from txmongo.errors import ConfigurationError

METADATA = {"driver": {"name": "x", "version": "1"}}


def hello(uri: str = "mongodb://h", *, monitor: bool = False, speculative: Any = None, **keywords: Any) -> Any:
    """The greeting for these settings."""
    return first_hello(parse_settings(uri, **keywords), METADATA, speculative, monitor=monitor)


class FirstHelloTests(SynchronousTestCase):
    """What is sent first."""

    def test_legacy(self) -> None:
        """Without Stable API and load balancer it is the legacy hello over OP_QUERY, which offers the new one."""
        greeting = hello()
        self.assertTrue(greeting.legacy)
        self.assertEqual(greeting.command, {"isMaster": 1, "helloOk": True, "client": METADATA, "backpressure": "2"})
        self.assertEqual(next(iter(greeting.command)), "isMaster")

    def test_stable_api(self) -> None:
        """With the Stable API it is hello over OP_MSG and names the version."""
        greeting = hello(server_api=ServerApi("1", strict=True))
        self.assertFalse(greeting.legacy)
        self.assertEqual(next(iter(greeting.command)), "hello")
        self.assertEqual((greeting.command["apiVersion"], greeting.command["apiStrict"]), ("1", True))

    def test_load_balanced(self) -> None:
        """Behind a load balancer it is hello over OP_MSG and says so."""
        greeting = hello("mongodb://h/?loadBalanced=true")
        self.assertFalse(greeting.legacy)
        self.assertEqual(greeting.command["hello"], 1)
        self.assertIs(greeting.command["loadBalanced"], True)

    def test_compression(self) -> None:
        """Compressors that are installed are offered, in the user's order."""
        self.assertEqual(hello("mongodb://h/?compressors=zlib").command["compression"], ["zlib"])

    def test_mechanisms(self) -> None:
        """The user's mechanisms are asked for only when none was given."""
        self.assertEqual(hello("mongodb://u:p@h/db").command["saslSupportedMechs"], "db.u")
        self.assertNotIn("saslSupportedMechs", hello("mongodb://u:p@h/?authMechanism=SCRAM-SHA-1").command)

    def test_speculative(self) -> None:
        """The start of authentication is sent along."""
        self.assertEqual(hello(speculative={"saslStart": 1}).command["speculativeAuthenticate"], {"saslStart": 1})

    def test_monitor(self) -> None:
        """A monitor says who the client is, and asks neither for compression nor for a user."""
        command = hello("mongodb://u:p@h/?compressors=zlib", monitor=True).command
        self.assertEqual(command, {"isMaster": 1, "helloOk": True, "client": METADATA, "backpressure": "2"})


class CheckHelloTests(SynchronousTestCase):
    """Servers that the driver cannot work with."""

    def refused(self, reply: dict[str, Any], load_balanced: bool = False) -> str:
        """The error's text."""
        return str(self.assertRaises(ConfigurationError, check_hello, reply, "h:1", load_balanced=load_balanced))

    def test_supported(self) -> None:
        """A server with a wire version in common is taken."""
        check_hello({"minWireVersion": 0, "maxWireVersion": 9}, "h:1", load_balanced=False)
        check_hello({"minWireVersion": 25, "maxWireVersion": 99}, "h:1", load_balanced=False)

    def test_too_old(self) -> None:
        """An old server, or something that names no version at all, is refused with both versions and its address."""
        for reply, version in (({"maxWireVersion": 8}, "8"), ({}, "0")):
            text = self.refused(reply)
            for said in ("h:1", f"wire version {version},", "at least 9", "MongoDB 4.4"):
                self.assertIn(said, text)

    def test_too_new(self) -> None:
        """A server that no longer speaks any version the driver knows is refused."""
        self.assertIn("requires wire version 999", self.refused({"minWireVersion": 999, "maxWireVersion": 1000}))

    def test_load_balanced(self) -> None:
        """Told of a load balancer, the driver refuses a server that names no service."""
        reply: dict[str, Any] = {"maxWireVersion": 17}
        self.assertIn("load balancing mode", self.refused(reply, load_balanced=True))
        check_hello({**reply, "serviceId": ObjectId()}, "h:1", load_balanced=True)


class AgreementTests(SynchronousTestCase):
    """What both sides can do."""

    def test_compressor(self) -> None:
        """The first of the client's compressors that the server has is taken; without one messages are plain."""
        settings = parse_settings("mongodb://h/?compressors=zlib")
        self.assertEqual(agreed_compressor(settings, {"compression": ["snappy", "zlib"]}), "zlib")
        replies: tuple[dict[str, Any], ...] = ({"compression": ["snappy"]}, {"compression": []}, {})
        for reply in replies:
            self.assertIsNone(agreed_compressor(settings, reply))
        self.assertIsNone(agreed_compressor(parse_settings("mongodb://h"), {"compression": ["zlib"]}))

    def test_api_fields(self) -> None:
        """Only the parts of the Stable API that were chosen are sent."""
        self.assertEqual(server_api_fields(None), {})
        self.assertEqual(server_api_fields(ServerApi("1")), {"apiVersion": "1"})
        self.assertEqual(
            server_api_fields(ServerApi("1", strict=False, deprecation_errors=True)),
            {"apiVersion": "1", "apiStrict": False, "apiDeprecationErrors": True},
        )


class MetadataTests(SynchronousTestCase):
    """Who the client says it is."""

    def setUp(self) -> None:
        """No function-as-a-service, no container."""
        self.patch(handshake, "metadata_env", dict)

    def environment(self, **fields: Any) -> None:
        """Pretend to run somewhere."""
        self.patch(handshake, "metadata_env", lambda: dict(fields))

    def test_fields(self) -> None:
        """Driver, system and platform are named; the application if it has a name."""
        metadata = client_metadata(None, [])
        self.assertEqual(metadata["driver"], {"name": "txmongo", "version": __version__})
        self.assertLessEqual({"type", "name", "architecture", "version"}, set(metadata["os"]))
        self.assertIn("Twisted", metadata["platform"])
        self.assertEqual(set(metadata), {"driver", "os", "platform"})
        self.assertEqual(client_metadata("app", [])["application"], {"name": "app"})

    def test_wrappers(self) -> None:
        """Libraries around the driver are appended, with what they say of themselves, each once."""
        wrappers = [DriverInfo("a", "1", "p"), DriverInfo("b"), DriverInfo("a", "1", "p")]
        metadata = client_metadata(None, wrappers)
        self.assertEqual(metadata["driver"], {"name": "txmongo|a|b", "version": f"{__version__}|1"})
        self.assertTrue(metadata["platform"].endswith("|p"))

    def test_delimiter(self) -> None:
        """The delimiter must not stand in what is appended."""
        # The newest PyMongo refuses it by itself; the oldest leaves that to the driver.
        self.assertRaises(ValueError, lambda: client_metadata(None, [DriverInfo("a|b", "1", "p")]))

    def test_environment(self) -> None:
        """Where the client runs is told."""
        self.environment(name="aws.lambda", region="eu", memory_mb=1024)
        self.assertEqual(client_metadata(None, [])["env"], {"name": "aws.lambda", "region": "eu", "memory_mb": 1024})

    def test_real_environment(self) -> None:
        """The environment variables of a function-as-a-service are understood."""
        self.patch(os, "environ", {"AWS_LAMBDA_RUNTIME_API": "x", "AWS_REGION": "us-east-2"})
        environment = _pymongo.metadata_env()
        self.assertEqual((environment["name"], environment["region"]), ("aws.lambda", "us-east-2"))

    def test_fits(self) -> None:
        """The document is at most 512 bytes: the environment's details go first, then the system's, and so on."""
        long = "é" * 300
        self.environment(name="aws.lambda", region=long)
        metadata = client_metadata("a" * 128, [])
        self.assertEqual(metadata["env"], {"name": "aws.lambda"})
        self.assertIn("architecture", metadata["os"])
        self.environment(name=long)
        metadata = client_metadata("a" * 128, [])
        self.assertNotIn("env", metadata)
        self.assertEqual(set(metadata["os"]), {"type"})
        self.assertIn("Twisted", metadata["platform"])
        metadata = client_metadata("a" * 128, [DriverInfo("wrapper", "1", long)])
        self.assertEqual(metadata["driver"]["name"], "txmongo|wrapper")
        self.assertNotIn(long, metadata["platform"])
        metadata = client_metadata("a" * 128, [DriverInfo("short", "1"), DriverInfo(long, long)])
        self.assertEqual(metadata["driver"], {"name": "txmongo|short", "version": f"{__version__}|1"})

    def test_never_too_long(self) -> None:
        """No length of any part gives a document that a server would refuse."""
        for length in range(0, 600, 7):
            self.environment(name="x" * (length // 2), region="y" * length)
            wrapper = DriverInfo("n" * (length // 3 + 1), "v" * length, "ü" * length)
            metadata = client_metadata("a" * min(length, 128), [wrapper])
            self.assertLessEqual(len(bson.encode(metadata)), 512, length)
            self.assertTrue(metadata["driver"]["name"].startswith("txmongo"))
