"""Key management services: asked over TLS, with what was told about it, in time, and never in the reactor's way.

The services are a stand-in that answers as AWS, Azure and Google do; its "encryption" is a prefix.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import crypto
from twisted.internet import reactor, ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests.integration.test_encryption import MASTER_KEY, RANDOM, EncryptionTestCase
from txmongo._testing.den import wait_until
from txmongo.connection import ConnectionPool
from txmongo.encryption import ClientEncryption
from txmongo.errors import AutoReconnect, ConfigurationError, EncryptionError, InvalidOperation, NetworkTimeout
from txmongo.testing import CertificateAuthority

AWS = {"accessKeyId": "somebody", "secretAccessKey": "keep this quiet"}
_SEALED = b"sealed:"

Answer = tuple[int, dict[str, Any]]


def encoded(data: bytes) -> str:
    """Base64, as AWS and Google have it."""
    return base64.b64encode(data).decode()


def url_encoded(data: bytes) -> str:
    """Base64 for URLs, as Azure has it."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def url_decoded(text: str) -> bytes:
    """What :func:`url_encoded` made."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def aws(path: str, headers: str, body: dict[str, Any]) -> Answer:
    """Encrypt and decrypt as AWS KMS."""
    if "TrentService.Encrypt" in headers:
        return 200, {"CiphertextBlob": encoded(_SEALED + base64.b64decode(body["Plaintext"])), "KeyId": body["KeyId"]}
    return 200, {"Plaintext": encoded(base64.b64decode(body["CiphertextBlob"]).removeprefix(_SEALED))}


def azure(path: str, headers: str, body: dict[str, Any]) -> Answer:
    """Give a token, encrypt and decrypt as Azure Key Vault."""
    if "/oauth2/" in path:
        return 200, {"access_token": "a token", "expires_in": 3600, "token_type": "Bearer"}
    if "Bearer a token" not in headers:
        return 401, {"error": "no token"}
    value = url_decoded(body["value"])
    value = _SEALED + value if "wrapkey" in path and "unwrapkey" not in path else value.removeprefix(_SEALED)
    return 200, {"kid": "a key", "value": url_encoded(value)}


def gcp(path: str, headers: str, body: dict[str, Any]) -> Answer:
    """Give a token, encrypt and decrypt as Google Cloud KMS."""
    if path == "/token":
        return 200, {"access_token": "a token", "expires_in": 3600, "token_type": "Bearer"}
    if "Bearer a token" not in headers:
        return 401, {"error": {"message": "no token"}}
    if ":encrypt" in path:
        return 200, {"name": "a key", "ciphertext": encoded(_SEALED + base64.b64decode(body["plaintext"]))}
    return 200, {"plaintext": encoded(base64.b64decode(body["ciphertext"]).removeprefix(_SEALED))}


class Service(Factory):
    """A key management service.

    :ivar answer: makes the status and the document of an answer; ``None`` to give none.
    :ivar requests: the first lines of the requests that came.
    :ivar open: connections.
    """

    def __init__(self, answer: Callable[[str, str, dict[str, Any]], Answer | None]) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self.open: set[Protocol] = set()
        self.arrival: Deferred[None] = Deferred()
        self.drops = 0
        self.pieces = False

    def buildProtocol(self, addr: Any) -> Protocol:
        """One connection is one request."""
        return _Conversation(self)


class _Conversation(Protocol):
    def __init__(self, service: Service) -> None:
        self.service = service
        self.received = b""

    def connectionMade(self) -> None:
        self.service.open.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.service.open.discard(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        lengths = [line for line in lines if line.lower().startswith("content-length:")]
        if blank and (not lengths or len(body) >= int(lengths[0].partition(":")[2])):
            self.received = b""
            self.respond(lines, body)

    def respond(self, lines: list[str], body: bytes) -> None:
        """Answer a request."""
        service, transport = self.service, self.transport
        assert transport is not None
        service.requests.append(lines[0])
        if service.drops:
            service.drops -= 1
            transport.loseConnection()
            return
        document = json.loads(body) if body.startswith(b"{") else {}
        answer = service.answer(lines[0].split(" ")[1], "\n".join(lines), document)
        if answer is not None:
            status, document = answer
            text = json.dumps(document).encode()
            response = b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
                status,
                len(text),
            )
            if service.pieces:
                for place in range(len(response + text)):
                    transport.write((response + text)[place : place + 1])
            else:
                transport.write(response + text)
        if not service.arrival.called:
            service.arrival.callback(None)


class KMIPService(Protocol):
    """Keeps secrets and gives them back: as much of the Key Management Interoperability Protocol as that takes.

    A message is a tree of items: three bytes of tag, one of type, four of length, and the value, filled up to eight.
    """

    secrets: ClassVar[dict[bytes, bytes]] = {}
    STRUCTURE, INTEGER, ENUMERATION, TEXT, BYTES, TIME = 1, 2, 5, 7, 8, 9
    REGISTER, GET, ACTIVATE = 3, 0xA, 0x12

    def connectionMade(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= 8 and len(self.received) == 8 + int.from_bytes(self.received[4:8]):
            items = dict(self.read(self.received))
            self.received = b""
            assert self.transport is not None
            self.transport.write(self.response(int.from_bytes(items[0x42005C]), items))

    def read(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The tags and values of a tree, without its structures."""
        while data:
            tag, kind, size = int.from_bytes(data[:3]), data[3], int.from_bytes(data[4:8])
            if kind == self.STRUCTURE:
                yield from self.read(data[8 : 8 + size])
            else:
                yield tag, data[8 : 8 + size]
            data = data[8 + size + -size % 8 :]

    def item(self, tag: int, kind: int, value: bytes) -> bytes:
        """One item."""
        return tag.to_bytes(3) + bytes([kind]) + len(value).to_bytes(4) + value + bytes(-len(value) % 8)

    def number(self, tag: int, kind: int, value: int) -> bytes:
        """An item with a number."""
        return self.item(tag, kind, value.to_bytes(8 if kind == self.TIME else 4))

    def structure(self, tag: int, *items: bytes) -> bytes:
        """An item of items."""
        return self.item(tag, self.STRUCTURE, b"".join(items))

    def response(self, operation: int, items: dict[int, bytes]) -> bytes:
        """The answer to a request."""
        if operation == self.REGISTER:
            name = b"secret-%d" % len(self.secrets)
            self.secrets[name] = items[0x420043]
        else:
            name = items[0x420094]
        payload = [self.item(0x420094, self.TEXT, name)]
        if operation == self.GET:
            material = self.structure(0x420045, self.item(0x420043, self.BYTES, self.secrets[name]))
            block = self.structure(0x420040, self.number(0x420042, self.ENUMERATION, 2), material)
            secret = self.structure(0x420085, self.number(0x420086, self.ENUMERATION, 2), block)
            payload = [self.number(0x420057, self.ENUMERATION, 7), *payload, secret]
        version = self.structure(
            0x420069, self.number(0x42006A, self.INTEGER, 1), self.number(0x42006B, self.INTEGER, 2)
        )
        header = self.structure(
            0x42007A, version, self.number(0x420092, self.TIME, 0), self.number(0x42000D, self.INTEGER, 1)
        )
        batch = self.structure(
            0x42000F,
            self.number(0x42005C, self.ENUMERATION, operation),
            self.number(0x42007F, self.ENUMERATION, 0),
            self.structure(0x42007C, *payload),
        )
        return self.structure(0x42007B, header, batch)


class ServiceTestCase(EncryptionTestCase):
    """A certificate authority, and services with its certificates."""

    async def setUp(self) -> None:
        """Make the authority."""
        await super().setUp()
        self.authority = CertificateAuthority(self.mktemp())
        self.trusted = {"tlsCAFile": str(self.authority.ca_file)}

    async def serve(
        self, answer: Callable[[str, str, dict[str, Any]], Answer | None], certificate: Any = None, **options: Any
    ) -> tuple[Service, str]:
        """Start a service; where it is."""
        service = Service(answer)
        return service, await self.listen(service, certificate, **options)

    async def listen(self, service: Factory, certificate: Any = None, **options: Any) -> str:
        """Have a service listen; where it is."""
        pem = (certificate or self.authority.server()).read_bytes()
        own = ssl.PrivateCertificate.loadPEM(pem)
        context = ssl.CertificateOptions(own.privateKey.original, own.original, **options)
        port: Any = await SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(service)
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    def asking(self, provider: str, credentials: dict[str, Any], **options: Any) -> ClientEncryption[Any]:
        """A ClientEncryption that trusts the authority."""
        options.setdefault("kms_tls_options", {provider: self.trusted})
        return self.client_encryption({provider: credentials}, **options)

    def aws_key(self, place: str) -> dict[str, Any]:
        """A master key in AWS."""
        return {"region": "us-east-1", "key": "arn:aws:kms:us-east-1:1:key/1", "endpoint": place}


class ProviderTests(ServiceTestCase):
    """Each kind of service makes a data key, and opens it for who has not seen it yet."""

    async def round_trip(self, make: Callable[[], ClientEncryption[Any]], provider: str, master_key: Any) -> None:
        """Make a data key, encrypt, and decrypt in another object."""
        first = make()
        key_id = await first.create_data_key(provider, master_key)
        secret = await first.encrypt("4711", RANDOM, key_id)
        self.assertEqual(await make().decrypt(secret), "4711")
        stored = await self.keys.find_one({"_id": key_id})
        assert stored is not None
        self.assertEqual(stored["masterKey"]["provider"], provider)

    async def test_aws(self) -> None:
        """AWS KMS, by a name of its own."""
        service, place = await self.serve(aws)
        await self.round_trip(lambda: self.asking("aws:archive", AWS), "aws:archive", self.aws_key(place))
        # The first object, too, has its new key opened once, to encrypt with it.
        self.assertEqual(service.requests, ["POST / HTTP/1.1"] * 3)
        await self.nothing_open(service)

    async def nothing_open(self, service: Service) -> None:
        """The services see the end of each connection."""
        await wait_until(reactor, lambda: not service.open, 20, "a connection is left open")

    async def test_azure(self) -> None:
        """Azure Key Vault, which wants a token first."""
        service, place = await self.serve(azure)
        credentials = {
            "tenantId": "tenant",
            "clientId": "somebody",
            "clientSecret": "keep this quiet",
            "identityPlatformEndpoint": place,
        }
        master_key = {"keyVaultEndpoint": place, "keyName": "key"}
        await self.round_trip(lambda: self.asking("azure", credentials), "azure", master_key)
        self.assertIn("POST /tenant/oauth2/v2.0/token HTTP/1.1", service.requests)

    async def test_gcp(self) -> None:
        """Google Cloud KMS, which wants a signature for a token first."""
        service, place = await self.serve(gcp)
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        credentials = {"email": "somebody@example.com", "privateKey": key, "endpoint": place}
        master_key = {"projectId": "p", "location": "global", "keyRing": "r", "keyName": "k", "endpoint": place}
        await self.round_trip(lambda: self.asking("gcp", credentials), "gcp", master_key)
        self.assertIn("POST /token HTTP/1.1", service.requests)

    async def test_kmip(self) -> None:
        """A KMIP server, which keeps a secret for the data key, and wants to see a certificate."""
        authority = crypto.load_certificate(crypto.FILETYPE_PEM, self.authority.ca_file.read_bytes())
        place = await self.listen(Factory.forProtocol(KMIPService), verify=True, caCerts=[authority])
        own = {**self.trusted, "tlsCertificateKeyFile": str(self.authority.client())}
        await self.round_trip(
            lambda: self.asking("kmip", {"endpoint": place}, kms_tls_options={"kmip": own}), "kmip", None
        )

    async def test_rewrap(self) -> None:
        """A data key goes from the application's own master key to that of a service."""
        _, place = await self.serve(aws)
        encryption = self.client_encryption(
            {"local": {"key": MASTER_KEY}, "aws": AWS}, kms_tls_options={"aws": self.trusted}
        )
        key_id = await encryption.create_data_key("local")
        secret = await encryption.encrypt("4711", RANDOM, key_id)
        await encryption.rewrap_many_data_key({}, "aws", self.aws_key(place))
        self.assertEqual(await self.asking("aws", AWS).decrypt(secret), "4711")


class TLSTests(ServiceTestCase):
    """The service's certificate, and the client's."""

    async def refused(self, encryption: ClientEncryption[Any], place: str) -> str:
        """Why a data key is not made: the service is not reached."""
        cause = await self.encryption_failure(encryption.create_data_key("aws", self.aws_key(place)))
        self.assertIsInstance(cause, AutoReconnect)
        self.assertIn(place, str(cause))
        return str(cause)

    async def test_untrusted(self) -> None:
        """A certificate of an authority that is not trusted is refused before anything is said."""
        service, place = await self.serve(aws)
        self.assertIn(
            "certificate verify failed", await self.refused(self.asking("aws", AWS, kms_tls_options={}), place)
        )
        self.assertEqual(service.requests, [])

    async def test_other_host(self) -> None:
        """A certificate for another host is refused: client-side encryption, prose test 10."""
        service, place = await self.serve(aws, self.authority.server("other", hosts=["other.example"]))
        self.assertIn("the certificate is not for this host", await self.refused(self.asking("aws", AWS), place))
        self.assertEqual(service.requests, [])

    async def test_expired(self) -> None:
        """A certificate that has expired is refused: client-side encryption, prose test 10."""
        service, place = await self.serve(aws, self.authority.server("old", expired=True))
        self.assertIn("certificate verify failed", await self.refused(self.asking("aws", AWS), place))
        self.assertEqual(service.requests, [])

    async def test_client_certificate(self) -> None:
        """A service that wants a certificate gets the one that was given for it."""
        authority = crypto.load_certificate(crypto.FILETYPE_PEM, self.authority.ca_file.read_bytes())
        _, place = await self.serve(aws, verify=True, caCerts=[authority])
        await self.refused(self.asking("aws", AWS), place)
        own = {**self.trusted, "tlsCertificateKeyFile": str(self.authority.client())}
        encryption = self.asking("aws", AWS, kms_tls_options={"aws": own})
        await encryption.create_data_key("aws", self.aws_key(place))

    async def test_no_tls(self) -> None:
        """Nothing is said to a service that does not speak TLS, and one that is not there is told by its address."""
        mongod_port = self.uri.rpartition(":")[2].strip("/")
        await self.refused(self.asking("aws", AWS), f"127.0.0.1:{mongod_port}")
        self.assertIn("refused", await self.refused(self.asking("aws", AWS), "127.0.0.1:9"))


class FailureTests(ServiceTestCase):
    """Services that are out of order."""

    async def test_again(self) -> None:
        """A request that was lost, or that the service could not answer for now, is made again."""
        service, place = await self.serve(aws)
        service.drops = 1
        encryption = self.asking("aws", AWS)
        await encryption.create_data_key("aws", self.aws_key(place))
        self.assertEqual(len(service.requests), 2)
        answers: list[Answer] = [(503, {})]
        service.answer = lambda *request: answers.pop() if answers else aws(*request)
        await encryption.create_data_key("aws", self.aws_key(place))
        self.assertEqual(len(service.requests), 4)

    async def test_given_up(self) -> None:
        """After several attempts the error says that the service closed the connection."""
        service, place = await self.serve(aws)
        service.drops = 100
        cause = await self.encryption_failure(self.asking("aws", AWS).create_data_key("aws", self.aws_key(place)))
        self.assertIsInstance(cause, AutoReconnect)
        self.assertIn("the key management service closed the connection", str(cause))
        self.assertGreater(len(service.requests), 1)

    async def test_refused(self) -> None:
        """What the service says is in the error, what it was told is not."""
        service, place = await self.serve(lambda *_: (400, {"message": "no such key"}))
        encryption = self.asking("aws", AWS)
        error = await self.failure(encryption.create_data_key("aws", self.aws_key(place)), EncryptionError)
        self.assertIn("no such key", str(error))
        self.assertNotIn("keep this quiet", str(error) + repr(encryption))
        self.assertEqual(len(service.requests), 1)

    async def test_pieces(self) -> None:
        """An answer may come byte by byte."""
        service, place = await self.serve(aws)
        service.pieces = True
        await self.asking("aws", AWS).create_data_key("aws", self.aws_key(place))

    async def test_no_answer(self) -> None:
        """A service that does not answer within connectTimeoutMS fails the call, and holds up nothing else."""
        _, place = await self.serve(lambda *_: None)
        client: ConnectionPool[Any] = ConnectionPool(self.uri, connectTimeoutMS=200)
        self.addCleanup(client.disconnect)
        creating = self.asking("aws", AWS, client=client).create_data_key("aws", self.aws_key(place))
        self.assertEqual((await self.client.admin.command("ping"))["ok"], 1)
        error = await self.failure(creating, EncryptionError)
        self.assertIsInstance(error.cause, NetworkTimeout)
        self.assertTrue(error.timeout)

    async def test_time(self) -> None:
        """A call ends when its time is up, that of its object or of the key vault's client, and so does its request."""
        service, place = await self.serve(lambda *_: None)
        client: ConnectionPool[Any] = ConnectionPool(self.uri, timeoutMS=500)
        self.addCleanup(client.disconnect)
        for encryption in (self.asking("aws", AWS, timeout_ms=500), self.asking("aws", AWS, client=client)):
            error = await self.failure(encryption.create_data_key("aws", self.aws_key(place)), EncryptionError)
            self.assertIn("not done within timeout_ms (500)", str(error))
            self.assertTrue(error.timeout)
            await encryption.close()
        await wait_until(reactor, lambda: not service.open, 20, "a connection is left open")

    async def test_cancel(self) -> None:
        """A call that waits for a service can be cancelled, and ends when its object is closed, with its connection."""
        service, place = await self.serve(lambda *_: None)
        encryption = self.asking("aws", AWS)
        creating = encryption.create_data_key("aws", self.aws_key(place))
        await service.arrival
        creating.cancel()
        await self.failure(creating, CancelledError)
        service.arrival = Deferred()
        creating = encryption.create_data_key("aws", self.aws_key(place))
        await service.arrival
        await encryption.close()
        await self.failure(creating, InvalidOperation)


class OptionTests(ServiceTestCase):
    """What is refused before anything is sent."""

    async def test_tls_options(self) -> None:
        """Options that weaken what is verified are refused, as are those that have nothing to do with TLS."""
        insecure, required = "Insecure TLS options prohibited", "TLS is required"
        for option, said in (
            ({"tlsInsecure": True}, insecure),
            ({"tlsAllowInvalidCertificates": True}, insecure),
            ({"tlsAllowInvalidHostnames": True}, insecure),
            ({"tlsDisableCertificateRevocationCheck": True}, insecure),
            ({"tls": False}, required),
            ({"TLS": "false"}, required),
            ({"tls": False, "tlsCAFile": "/nowhere/ca.pem"}, required),
            ({"maxPoolSize": 3}, "maxPoolSize cannot be given"),
            ({"tlsCAFile": "/nowhere/ca.pem"}, "tlsCAFile"),
        ):
            error = self.assertRaises(
                ConfigurationError, self.client_encryption, {"aws": AWS}, kms_tls_options={"aws": option}
            )
            self.assertIn(said, str(error))
        # Nobody is asked for revocation anyway.
        self.client_encryption({"aws": AWS}, kms_tls_options={"aws": {"tlsDisableOCSPEndpointCheck": True}})
        for wrong in ("aws", {"aws": "ca.pem"}):
            self.assertRaises(TypeError, self.client_encryption, {"aws": AWS}, kms_tls_options=wrong)

    async def test_kms_providers(self) -> None:
        """Credentials that are incomplete or wrong are refused."""
        self.assertRaises(ValueError, self.client_encryption, {"aws": {"accessKeyId": "somebody"}})
        self.assertRaises(TypeError, self.client_encryption, [])
        error = self.assertRaises(ConfigurationError, self.client_encryption, {"local": {"key": b"short"}})
        self.assertIn("libmongocrypt refuses the options", str(error))
