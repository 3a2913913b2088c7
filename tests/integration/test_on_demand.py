"""Credentials on demand: what is left open in ``kms_providers`` comes from the environment, or from a service in it.

The services, those that keep keys and those of the clouds' metadata, are stand-ins on the loopback interface.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.server import Site

from tests.integration.test_encryption import MASTER_KEY, RANDOM
from tests.integration.test_kms import Answer, ServiceTestCase, aws, azure, gcp
from tests.integration.test_oidc import Counting
from tests.integration.test_oidc import Service as MetadataService
from txmongo._encryption import credentials
from txmongo.connection import ConnectionPool
from txmongo.encryption import AutoEncryptionOpts, ClientEncryption
from txmongo.errors import ConfigurationError, EncryptionError, InvalidOperation, NetworkTimeout, PyMongoError

LOCAL = {"key": MASTER_KEY}


class OnDemandTestCase(ServiceTestCase):
    """No credentials in the environment, and a service of metadata."""

    async def setUp(self) -> None:
        """Start the service."""
        await super().setUp()
        nowhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials", "AWS_CONFIG_FILE": "/nowhere/config"}
        self.environment: dict[str, str] = {"AWS_EC2_METADATA_DISABLED": "true", **nowhere}
        self.patch(os, "environ", self.environment)
        self.metadata = MetadataService()
        self.site = Counting(Site(self.metadata))
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.site)
        self.addCleanup(port.stopListening)
        self.addCleanup(self.site.closed)
        place = f"127.0.0.1:{port.getHost().port}"
        self.environment["GCE_METADATA_HOST"] = place
        self.patch(credentials, "AZURE_SERVICE", f"http://{place}")

    def gives(self, document: dict[str, Any], code: int = 200) -> None:
        """What the service answers."""
        self.metadata.code, self.metadata.body = code, json.dumps(document).encode()

    def falls_silent(self, after: int = 0) -> Deferred[Any]:
        """The service does not end its answer; fires when it has begun it."""
        begun: Deferred[Any] = Deferred()
        self.metadata.body, self.metadata.sent = b"{}", after
        self.metadata.on_silence = begun.callback
        return begun

    def gcp_key(self, place: str) -> dict[str, Any]:
        """A master key in Google's cloud."""
        return {"projectId": "p", "location": "global", "keyRing": "r", "keyName": "k", "endpoint": place}


class ProviderTests(OnDemandTestCase):
    """Each of the three."""

    async def test_aws(self) -> None:
        """AWS KMS sees the keys of the environment, as they are at the time, with their token: prose test 15."""
        seen: list[str] = []

        def answer(path: str, headers: str, body: dict[str, Any]) -> Answer:
            seen.append(headers)
            return aws(path, headers, body)

        _, place = await self.serve(answer)
        encryption = self.asking("aws", {})
        self.environment.update(AWS_ACCESS_KEY_ID="one", AWS_SECRET_ACCESS_KEY="keep this quiet")
        key_id = await encryption.create_data_key("aws", self.aws_key(place))
        self.assertIn("Credential=one/", seen[-1])
        self.environment.update(AWS_ACCESS_KEY_ID="other", AWS_SESSION_TOKEN="a token")
        secret = await encryption.encrypt("4711", RANDOM, key_id)
        self.assertIn("Credential=other/", seen[-1])
        self.assertIn("a token", seen[-1])
        self.assertEqual(await encryption.decrypt(secret), "4711")

    async def test_aws_without(self) -> None:
        """Without keys the call says what is missing: prose test 15."""
        _, place = await self.serve(aws)
        creating = self.asking("aws", {}).create_data_key("aws", self.aws_key(place))
        error = await self.failure(creating, EncryptionError)
        self.assertIsInstance(error.cause, ConfigurationError)
        self.assertIn("kms_providers['aws']", str(error))

    async def test_azure(self) -> None:
        """Azure Key Vault sees the token of the machine, which is asked for once: prose tests 18 and 19."""
        service, place = await self.serve(azure)
        self.gives({"access_token": "a token", "expires_in": "3600"})
        encryption = self.asking("azure", {})
        key_id = await encryption.create_data_key("azure", {"keyVaultEndpoint": place, "keyName": "key"})
        secret = await encryption.encrypt("4711", RANDOM, key_id)
        self.assertEqual(await encryption.decrypt(secret), "4711")
        self.assertEqual(len(self.metadata.asked), 1)
        self.assertNotIn("oauth2", " ".join(service.requests))

    async def test_gcp(self) -> None:
        """Google Cloud KMS sees the token of the machine: prose test 17."""
        service, place = await self.serve(gcp)
        self.gives({"access_token": "a token", "expires_in": 3600, "token_type": "Bearer"})
        encryption = self.asking("gcp", {})
        key_id = await encryption.create_data_key("gcp", self.gcp_key(place))
        self.assertEqual(await encryption.decrypt(await encryption.encrypt("4711", RANDOM, key_id)), "4711")
        self.assertNotIn("/token", " ".join(service.requests))

    async def test_refused_token(self) -> None:
        """A token that the key management service refuses is not used again, and stands in no error."""
        _, place = await self.serve(gcp)
        self.gives({"access_token": "an old token", "expires_in": 3600})
        encryption = self.asking("gcp", {})
        error = await self.failure(encryption.create_data_key("gcp", self.gcp_key(place)), EncryptionError)
        self.assertNotIn("old token", str(error))
        self.gives({"access_token": "a token", "expires_in": 3600})
        await encryption.create_data_key("gcp", self.gcp_key(place))

    async def test_repeated_secret(self) -> None:
        """A secret that a service repeats where it refuses it is not in the error, be it found or given."""
        self.environment.update(AWS_ACCESS_KEY_ID="one", AWS_SECRET_ACCESS_KEY="2", AWS_SESSION_TOKEN="keep-this-quiet")
        _, place = await self.serve(lambda *_: (400, {"message": "it should be x-amz-security-token:keep-this-quiet"}))
        given = {"accessKeyId": "one", "secretAccessKey": "other", "sessionToken": "keep-this-quiet"}
        for credentials_of in ({}, given):
            creating = self.asking("aws", credentials_of).create_data_key("aws", self.aws_key(place))
            error = await self.failure(creating, EncryptionError)
            self.assertIn("x-amz-security-token:...", str(error))
            self.assertNotIn("keep-this-quiet", str(error) + str(error.cause) + error.__class__.__name__)

    async def test_without(self) -> None:
        """A machine that has no token of Azure's or Google's is told of: prose tests 17 and 19."""
        self.gives({"error": "no identity"}, 400)
        for provider, master_key in (
            ("azure", {"keyVaultEndpoint": "vault.example", "keyName": "key"}),
            ("gcp", self.gcp_key("kms.example")),
        ):
            creating = self.asking(provider, {}, kms_tls_options={}).create_data_key(provider, master_key)
            error = await self.failure(creating, EncryptionError)
            self.assertIn(f"kms_providers['{provider}'] is empty", str(error))
            self.assertIn("no identity", str(error))

    async def test_named(self) -> None:
        """A provider with a name has to be given its credentials."""
        error = self.assertRaises(ConfigurationError, self.client_encryption, {"aws:archive": {}})
        self.assertIn("aws:archive", str(error))


class NeedTests(OnDemandTestCase):
    """Credentials are wanted where they are needed, and only there."""

    async def test_local_key(self) -> None:
        """What can be done without them is done where they are not to be had; what cannot be says why."""
        self.gives({"error": "no identity"}, 400)
        encryption = self.client_encryption({"local": LOCAL, "gcp": {}, "azure": {}})
        key_id = await encryption.create_data_key("local")
        self.assertEqual(self.metadata.asked, [])
        self.assertEqual(await encryption.decrypt(await encryption.encrypt("4711", RANDOM, key_id)), "4711")
        error = await self.failure(encryption.create_data_key("gcp", self.gcp_key("kms.example")), EncryptionError)
        self.assertIn("kms_providers['gcp'] is empty", str(error))
        azure_key = {"provider": "azure", "keyVaultEndpoint": "vault.example", "keyName": "key"}
        await self.keys.update_one({"_id": key_id}, {"$set": {"masterKey": azure_key}})
        other = self.client_encryption({"local": LOCAL, "gcp": {}, "azure": {}})
        error = await self.failure(other.encrypt("4711", RANDOM, key_id), EncryptionError)
        self.assertIn("kms_providers['azure'] is empty", str(error))
        await self.keys.update_one({"_id": key_id}, {"$unset": {"keyMaterial": 1}})
        error = await self.failure(other.encrypt("4711", RANDOM, key_id), EncryptionError)
        self.assertNotIn("is empty", str(error))

    async def test_automatic(self) -> None:
        """A client that decrypts by itself looks for them as well, within the time of the operation."""
        _, place = await self.serve(gcp)
        self.gives({"access_token": "a token", "expires_in": 3600})
        encryption = self.asking("gcp", {})
        key_id = await encryption.create_data_key("gcp", self.gcp_key(place))
        secret = await encryption.encrypt("4711", RANDOM, key_id)
        await self.things.insert_one({"_id": 1, "secret": secret})
        opts = AutoEncryptionOpts(
            {"gcp": {}}, "txmongo_tests.data_keys", bypass_auto_encryption=True, kms_tls_options={"gcp": self.trusted}
        )
        client: ConnectionPool[Any] = ConnectionPool(self.uri, auto_encryption_opts=opts)
        self.addCleanup(client.disconnect)
        things = client.txmongo_tests.things
        await client
        self.falls_silent()
        self.patch(credentials, "_PATIENCE", 1000.0)
        error = await self.failure(things.find_one(timeout_ms=500), PyMongoError)
        self.assertTrue(error.timeout)
        self.metadata.sent = None
        self.gives({"access_token": "a token", "expires_in": 3600})
        self.assertEqual(await things.find_one(), {"_id": 1, "secret": "4711"})


class EndTests(OnDemandTestCase):
    """Services that do not answer."""

    def waiting(self) -> tuple[ClientEncryption[Any], Deferred[Any]]:
        """A call that waits for credentials."""
        encryption = self.asking("gcp", {}, kms_tls_options={})
        return encryption, encryption.create_data_key("gcp", self.gcp_key("kms.example"))

    async def test_cancel(self) -> None:
        """A call that waits for a service of metadata can be cancelled; the reactor goes on meanwhile."""
        begun = self.falls_silent()
        _, creating = self.waiting()
        await begun
        self.assertEqual((await self.client.admin.command("ping"))["ok"], 1)
        creating.cancel()
        await self.failure(creating, CancelledError)
        await self.site.closed()

    async def test_close(self) -> None:
        """When the object is closed no connection to the service is left, in whatever part of the answer it is."""
        for after in (0, 1):
            begun = self.falls_silent(after)
            encryption, creating = self.waiting()
            await begun
            connections = encryption._credentials._connections
            self.assertEqual(connections._open, 1)
            closed = encryption.close()
            await self.failure(creating, InvalidOperation)
            await closed
            self.assertEqual(connections._open, 0)

    async def test_slow(self) -> None:
        """A service that does not answer in time fails the call with a timeout."""
        self.patch(credentials, "_PATIENCE", 0.2)
        self.falls_silent()
        _, creating = self.waiting()
        error = await self.failure(creating, EncryptionError)
        self.assertIsInstance(error.cause, NetworkTimeout)
        self.assertTrue(error.timeout)
