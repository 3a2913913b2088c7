"""MONGODB-OIDC on a real reactor: threads that block, the services of environments; reauthentication by mongod."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from pymongo import auth_oidc as pymongo_oidc
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.unit.cmap.oidc_server import OIDCServer
from txmongo import _oidc_environments as environments
from txmongo._deferreds import Broadcast
from txmongo._metadata_services import AnswerBody
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, InvalidOperation, OperationFailure
from txmongo.testing import Mongod


class Blocking(pymongo_oidc.OIDCCallback):
    """Blocks until the reactor's thread, which it must not hold up, lets it go on.

    :ivar threads: in which it was called.
    """

    def __init__(self, going_on: threading.Event) -> None:
        self.threads: list[int] = []
        self._going_on = going_on

    def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> pymongo_oidc.OIDCCallbackResult:
        self.threads.append(threading.get_ident())
        assert self._going_on.wait(context.timeout_seconds)
        return pymongo_oidc.OIDCCallbackResult("token1")


class OIDCTestCase(TestCase):
    """A server that checks tokens."""

    timeout = 120

    async def setUp(self) -> None:
        """Start it."""
        self.server = await OIDCServer().listen(reactor)
        self.addCleanup(self.server.stop)

    def client(self, properties: Any, name: str = "") -> ConnectionPool[Any]:
        """A client of it."""
        client: ConnectionPool[Any] = ConnectionPool(
            self.server.uri,
            username=name,
            authMechanism="MONGODB-OIDC",
            authMechanismProperties=properties,
            retryReads=False,
        )
        self.addCleanup(client.disconnect)
        return client


class ThreadTests(OIDCTestCase):
    """Callbacks that block."""

    async def test_blocking(self) -> None:
        """The reactor goes on while a callback blocks in a thread: it is this test that wakes it."""
        going_on = threading.Event()
        callback = Blocking(going_on)
        client = self.client({"OIDC_CALLBACK": callback})
        found = client.db.c.find_one()
        reactor.callLater(0.01, going_on.set)  # type: ignore[attr-defined]
        await found
        self.assertEqual(len(callback.threads), 1)
        self.assertNotEqual(callback.threads[0], threading.get_ident())


class Service(Resource):
    """A service of metadata: it answers what it is told to, and keeps what it was asked.

    :ivar asked: path and query of each request, and its headers.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.code = 200
        self.body = b""
        #: How much of the body is sent before it falls silent, if it does.
        self.sent: int | None = None
        #: Called when it has fallen silent, and with what it fell silent in.
        self.on_silence: Callable[[Any], None] = lambda request: None

    def render_GET(self, request: Any) -> bytes | int:
        """Answer a request."""
        headers = {key.decode(): value.decode() for key, value in request.getAllHeaders().items()}
        self.asked.append((request.uri.decode(), headers))
        request.setResponseCode(self.code)
        if self.sent is None:
            return self.body
        if self.sent:
            request.setHeader(b"content-length", str(len(self.body)).encode())
            request.write(self.body[: self.sent])
        # It hears of the end of the connection, which is no error of the test's.
        request.notifyFinish().addErrback(lambda _: None)
        self.on_silence(request)
        return NOT_DONE_YET


class Counting(WrappingFactory):
    """Knows when the last connection to a service is closed."""

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        self._all_closed = Broadcast()

    def unregisterProtocol(self, p: Any) -> None:
        """One is closed."""
        super().unregisterProtocol(p)
        if not self.protocols:
            self._all_closed.fire()

    def closed(self) -> Deferred[None]:
        """Fires when none is open."""
        return self._all_closed.wait() if self.protocols else succeed(None)


class ServiceTests(OIDCTestCase):
    """Tokens of the services of Azure and Google, played by a local one."""

    async def setUp(self) -> None:
        """Start the service."""
        await super().setUp()
        self.service = Service()
        site = Counting(Site(self.service))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        self.addCleanup(site.closed)
        address = f"http://127.0.0.1:{port.getHost().port}"
        self.patch(environments, "AZURE_SERVICE", address)
        self.patch(environments, "GCP_SERVICE", address)

    async def test_azure(self) -> None:
        """Azure is asked for the resource, as the user if there is one, and answers in JSON."""
        self.service.body = json.dumps({"access_token": "token1", "expires_in": "3599", "resource": "r"}).encode()
        properties = {"ENVIRONMENT": "azure", "TOKEN_RESOURCE": "mongodb://a,b"}
        await self.client(properties).db.c.find_one()
        await self.client(properties, "my id").db.c.find_one()
        (plain, headers), (named, _) = self.service.asked
        path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=mongodb%3A%2F%2Fa%2Cb"
        self.assertEqual((plain, named), (path, f"{path}&client_id=my+id"))
        self.assertEqual((headers["accept"], headers["metadata"]), ("application/json", "true"))
        self.assertEqual({token for _, token in self.server.shown}, {"token1"})

    async def test_gcp(self) -> None:
        """Google is asked for the audience, and answers with the token itself."""
        self.service.body = b"token1\n"
        await self.client({"ENVIRONMENT": "gcp", "TOKEN_RESOURCE": "a b"}).db.c.find_one()
        ((path, headers),) = self.service.asked
        self.assertEqual(path, "/computeMetadata/v1/instance/service-accounts/default/identity?audience=a+b")
        self.assertEqual(headers["metadata-flavor"], "Google")
        self.assertEqual(self.server.shown, [("saslStart", "token1")])

    async def test_refused(self) -> None:
        """What a service says with another status is in the error."""
        self.service.code, self.service.body = 403, b"no such audience"
        for environment in ("azure", "gcp"):
            client = self.client({"ENVIRONMENT": environment, "TOKEN_RESOURCE": "r"})
            failed = await self.assertFailure(client.db.c.find_one(), OperationFailure)
            self.assertIn("answered with status 403: no such audience", str(failed))

    async def test_silent(self) -> None:
        """Of a service that does not answer nothing is left when the client ends."""
        silent: Deferred[Any] = Deferred()
        self.service.sent, self.service.on_silence = 0, silent.callback
        await self.ended_after(silent)

    def begun(self) -> Deferred[Any]:
        """Fires when a part of an answer has come, which the service does not end."""
        begun: Deferred[Any] = Deferred()
        received = AnswerBody.dataReceived

        def data_received(body: Any, data: bytes) -> None:
            received(body, data)
            if not begun.called:
                begun.callback(None)

        self.patch(AnswerBody, "dataReceived", data_received)
        self.service.body, self.service.sent = b"token1", 3
        return begun

    async def test_unfinished(self) -> None:
        """Nor is it of one that does not end its answer."""
        await self.ended_after(self.begun())

    async def ended_after(self, event: Deferred[Any]) -> None:
        """A client ends, after this, while it waits for a token."""
        client = self.client({"ENVIRONMENT": "gcp", "TOKEN_RESOURCE": "r"})
        found = client.db.c.find_one()
        await event
        await client.disconnect()
        await self.assertFailure(found, AutoReconnect, InvalidOperation)

    async def test_cut(self) -> None:
        """A service that breaks off in its answer has not given a token."""
        requests: list[Any] = []
        self.service.on_silence = requests.append
        begun = self.begun()
        found = self.client({"ENVIRONMENT": "gcp", "TOKEN_RESOURCE": "r"}).db.c.find_one()
        await begun
        requests[0].transport.abortConnection()
        failed = await self.assertFailure(found, OperationFailure)
        self.assertIn("the callback failed (", str(failed))

    async def test_no_token(self) -> None:
        """An answer of Azure's without a token is an error that does not repeat it."""
        for body in (b'{"access": "hidden"}', b"hidden", b'{"access_token": "", "expires_in": "1"}'):
            self.service.body = body
            client = self.client({"ENVIRONMENT": "azure", "TOKEN_RESOURCE": "r"})
            failed = await self.assertFailure(client.db.c.find_one(), OperationFailure)
            self.assertNotIn("hidden", str(failed))


class ReauthenticationTests(TestCase):
    """What a server that speaks SCRAM makes of being authenticated at again."""

    timeout = 120

    async def test_scram(self) -> None:
        """A write and a read that a fail point answers so succeed, at the second try."""
        mongod = await Mongod(reactor, auth=True, parameters={"enableTestCommands": 1}).start()
        self.addCleanup(mongod.stop)
        client: ConnectionPool[Any] = ConnectionPool(
            mongod.uri, retryReads=False, retryWrites=False, appName="reauthentication", maxPoolSize=1
        )
        self.addCleanup(client.disconnect)
        await client.db.c.insert_one({"_id": 0})
        operations: list[tuple[str, Callable[[], Deferred[Any]]]] = [
            ("insert", lambda: client.db.c.insert_one({"_id": 1})),
            ("find", lambda: client.db.c.find_one({"_id": 1})),
        ]
        for count, (name, operation) in enumerate(operations, 1):
            fail_point = {
                "configureFailPoint": "failCommand",
                "mode": {"times": 1},
                "data": {"failCommands": [name], "errorCode": 391, "appName": "reauthentication"},
            }
            await mongod.command("admin", fail_point)
            result = await operation()
            status = await mongod.command("admin", {"configureFailPoint": "failCommand", "mode": "off"})
            self.assertEqual(status["count"], count)
        self.assertEqual(result, {"_id": 1})
