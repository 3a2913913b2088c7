"""Prose tests of the handshake specification: who the client says it is, as the server hears it."""

from __future__ import annotations

import os
from typing import Any

import bson
from pymongo.driver_info import DriverInfo

from tests.unit.clients import ClientCase
from txmongo.connection import ConnectionPool
from txmongo.testing import FakeServer

LIBRARY = DriverInfo("library", "1.2", "Library Platform")
LAMBDA = {
    "AWS_EXECUTION_ENV": "AWS_Lambda_java8",
    "AWS_REGION": "us-east-2",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
}
LAMBDA_METADATA = {"name": "aws.lambda", "region": "us-east-2", "memory_mb": 1024}

#: Environment variables, and ``client.env`` for them; an empty one for none.
ENVIRONMENTS: tuple[tuple[dict[str, str], dict[str, Any]], ...] = (
    (LAMBDA, LAMBDA_METADATA),
    ({"FUNCTIONS_WORKER_RUNTIME": "node"}, {"name": "azure.func"}),
    (
        {
            "K_SERVICE": "servicename",
            "FUNCTION_MEMORY_MB": "1024",
            "FUNCTION_TIMEOUT_SEC": "60",
            "FUNCTION_REGION": "us-central1",
        },
        {"name": "gcp.func", "memory_mb": 1024, "timeout_sec": 60, "region": "us-central1"},
    ),
    ({"VERCEL": "1", "VERCEL_REGION": "cdg1"}, {"name": "vercel", "region": "cdg1"}),
    ({"AWS_EXECUTION_ENV": "AWS_Lambda_java8", "FUNCTIONS_WORKER_RUNTIME": "node"}, {}),
    ({"AWS_EXECUTION_ENV": "AWS_Lambda_java8", "AWS_REGION": "a" * 512}, {"name": "aws.lambda"}),
    ({"AWS_EXECUTION_ENV": "AWS_Lambda_java8", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "big"}, {"name": "aws.lambda"}),
    ({"AWS_EXECUTION_ENV": "EC2"}, {}),
    (
        {**LAMBDA, "KUBERNETES_SERVICE_HOST": "1"},
        {**LAMBDA_METADATA, "container": {"orchestrator": "kubernetes"}},
    ),
)


def _without_docker(environment: dict[str, Any]) -> dict[str, Any]:
    """The environment less what a file in the root folder of this machine says."""
    container = {name: value for name, value in environment.get("container", {}).items() if name != "runtime"}
    rest = {name: value for name, value in environment.items() if name != "container"}
    return {**rest, "container": container} if container else rest


class HandshakeCase(ClientCase):
    """Clients whose connections idle away at once."""

    def idle_client(self, **options: Any) -> ConnectionPool[Any]:
        """A client that needs a new connection for an operation after a pause."""
        return self.client(maxIdleTimeMS=1, **options)

    def metadata(self, client: ConnectionPool[Any]) -> dict[str, Any]:
        """What the connection of a ping, after a pause, says of the client."""
        self.clock.advance(0.005)
        self.turn()
        self.result(client.test.command("ping"))
        return [dict(hello["client"]) for hello in self.server.commands("isMaster") if "client" in hello][-1]


class EnvironmentTests(HandshakeCase):
    """Where the client runs."""

    def test_environment_1(self) -> None:
        """Functions as a service and containers are named, wrong and contradictory variables are passed over."""
        for variables, expected in ENVIRONMENTS:
            self.patch(os, "environ", variables)
            metadata = self.metadata(self.client())
            self.assertEqual(_without_docker(metadata.get("env", {})), expected, variables)
            self.assertLessEqual(len(bson.encode(metadata)), 512)

    def test_unknown_mechanism_2(self) -> None:
        """A server may have mechanisms that nobody has heard of."""
        server = self.servers["fake.example"] = FakeServer(hello={"saslSupportedMechs": ["SCRAM-SHA-256", "arbitrary"]})
        self.assertEqual(self.result(self.client().test.command("ping")), {"ok": 1.0})
        self.assertEqual(len(server.commands("ping")), 1)


class UpdateTests(HandshakeCase):
    """Libraries around the driver."""

    def appended(self, before: dict[str, Any], info: DriverInfo) -> dict[str, Any]:
        """The metadata that is expected after another library named itself."""
        driver = {**before["driver"], "name": f"{before['driver']['name']}|{info.name}"}
        if info.version:
            driver["version"] += f"|{info.version}"
        platform = f"{before['platform']}|{info.platform}" if info.platform else before["platform"]
        return {**before, "driver": driver, "platform": platform}

    def frameworks(self) -> list[DriverInfo]:
        """The parameters of tests 1 and 2."""
        return [
            DriverInfo("framework", "2.0", "Framework Platform"),
            DriverInfo("framework", "2.0"),
            DriverInfo("framework", None, "Framework Platform"),
            DriverInfo("framework"),
        ]

    def test_updated_1(self) -> None:
        """A library is named behind that of the client's options, and nothing else changes."""
        for info in self.frameworks():
            client = self.idle_client(driver=LIBRARY)
            before = self.metadata(client)
            self.assertEqual(before["driver"]["name"], "txmongo|library")
            client.append_metadata(info)
            self.assertEqual(self.metadata(client), self.appended(before, info))

    def test_updated_twice_2(self) -> None:
        """A library is named behind one that was appended before."""
        for info in self.frameworks():
            client = self.idle_client()
            client.append_metadata(LIBRARY)
            before = self.metadata(client)
            client.append_metadata(info)
            self.assertEqual(self.metadata(client), self.appended(before, info))

    def test_nearly_identical_3(self) -> None:
        """A library that differs in anything is another one; the same one is not named again."""
        for name in ("library", "framework"):
            for version in ("1.2", "2.0"):
                for platform in ("Library Platform", "Framework Platform"):
                    info = DriverInfo(name, version, platform)
                    client = self.idle_client()
                    client.append_metadata(LIBRARY)
                    before = self.metadata(client)
                    client.append_metadata(info)
                    expected = before if info == LIBRARY else self.appended(before, info)
                    self.assertEqual(self.metadata(client), expected)

    def test_identical_4(self) -> None:
        """The library of the client's options is not named again."""
        client = self.idle_client(driver=LIBRARY)
        before = self.metadata(client)
        client.append_metadata(LIBRARY)
        self.assertEqual(self.metadata(client), before)
