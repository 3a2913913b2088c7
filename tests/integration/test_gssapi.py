"""GSSAPI on a real reactor: a library that blocks; and where there is Kerberos, Kerberos."""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.integration import realm
from tests.unit.cmap.kerberos_server import OFFER, REFUSED, KerberosServer, Library
from txmongo.connection import ConnectionPool
from txmongo.errors import InvalidOperation, NetworkTimeout, OperationFailure
from txmongo.testing import FakeServer

FOUND = {"cursor": {"id": 0, "ns": "db.c", "firstBatch": [{"_id": 1}]}}


class GSSAPITestCase(TestCase):
    """A server that wants to be shown tickets."""

    timeout = 120

    async def serve(self, server: FakeServer) -> None:
        """Start one."""
        server.answer("find", FOUND)
        self.server = await server.listen(reactor)
        self.addCleanup(server.stop)

    def client(self, user: str = "user@REALM", seconds: float = 60, **properties: str) -> ConnectionPool[Any]:
        """A client of it."""
        client: ConnectionPool[Any] = ConnectionPool(
            self.server.uri,
            username=user,
            authMechanism="GSSAPI",
            authMechanismProperties=properties,
            connectTimeoutMS=seconds * 1000,
            retryReads=False,
        )
        self.addCleanup(client.disconnect)
        return client


class Blocking(Library):
    """Stands in for pykerberos; its first step waits until it may go on.

    :ivar begun: fires when it waits.
    :ivar freed: fires when a context is freed.
    :ivar thread: in which it waited.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun: Deferred[None] = Deferred()
        self.freed: Deferred[None] = Deferred()
        self.going_on = threading.Event()
        self.thread: int | None = None
        self.during["Step"] = self._wait

    def authGSSClientClean(self, context: Any) -> int:
        result = super().authGSSClientClean(context)
        reactor.callFromThread(self.freed.callback, None)  # type: ignore[attr-defined]
        return result

    def _wait(self) -> None:
        if self.thread is None:
            self.thread = threading.get_ident()
            reactor.callFromThread(self.begun.callback, None)  # type: ignore[attr-defined]
            assert self.going_on.wait(60)


class ThreadTests(GSSAPITestCase):
    """A library that blocks."""

    async def setUp(self) -> None:
        """Have it in the place of pykerberos."""
        self.library = Blocking()
        installed = patch.dict(sys.modules, {"kerberos": self.library, "winkerberos": None})
        installed.start()
        self.addCleanup(installed.stop)
        self.addCleanup(self.library.going_on.set)
        await self.serve(KerberosServer("mongodb@127.0.0.1"))

    async def test_blocking(self) -> None:
        """The reactor goes on while the library blocks in a thread: it is this test that wakes it."""
        found = self.client().db.c.find_one()
        await self.library.begun
        self.library.going_on.set()
        self.assertEqual(await found, {"_id": 1})
        self.assertNotEqual(self.library.thread, threading.get_ident())
        await self.library.freed

    async def test_given_up(self) -> None:
        """A client is closed without waiting for the thread; what that has worked on is freed when it is done."""
        client = self.client()
        found = client.db.c.find_one()
        await self.library.begun
        disconnected = client.disconnect()
        await self.assertFailure(found, InvalidOperation)
        await disconnected
        self.assertEqual(self.library.called, ["Init", "Step"])
        self.library.going_on.set()
        await self.library.freed
        self.assertEqual(self.library.called, ["Init", "Step", "Clean"])
        self.assertEqual(self.server.commands("saslStart"), [])


class Acceptor(FakeServer):
    """A fake server with the key of a service of Kerberos, in the default keytab."""

    def __init__(self) -> None:
        super().__init__()
        self.users: list[str] = []
        self._gssapi = import_module("gssapi")
        self.answer("saslStart", self._start)

    def _start(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self._context = self._gssapi.SecurityContext(usage="accept")
        self.answer("saslContinue", self._offer, self._authorize)
        return self._reply(self._context.step(base64.b64decode(command["payload"])))

    def _offer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._context.complete and command["payload"] == ""
        return self._reply(self._context.wrap(OFFER, False).message)

    def _authorize(self, command: Mapping[str, Any]) -> dict[str, Any]:
        choice = self._context.unwrap(base64.b64decode(command["payload"])).message
        user = str(self._context.initiator_name)
        if choice != b"\x01" + OFFER[1:] + user.encode():
            return REFUSED
        self.users.append(user)
        return {**self._reply(b""), "done": True}

    def _reply(self, message: bytes) -> dict[str, Any]:
        return {"conversationId": 1, "done": False, "payload": base64.b64encode(message).decode()}


class KerberosTests(GSSAPITestCase):
    """pykerberos, and tickets of a key distribution center."""

    if realm.missing():
        skip = f"no realm can be made: {realm.missing()} missing"

    async def setUp(self) -> None:
        """A realm with a user and two services."""
        self.realm = realm.Realm(reactor, self.mktemp())
        environment = patch.dict(os.environ, self.realm.environment)
        environment.start()
        self.addCleanup(environment.stop)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.realm.stop()))
        await self.realm.start()
        await self.realm.add_service("mongodb/127.0.0.1")
        await self.realm.add_service("shelf/db.example")
        await self.realm.add_user("reader")
        await self.serve(Acceptor())

    async def test_authenticated(self) -> None:
        """Who has a ticket is authenticated, by whatever name the service is known."""
        for properties in (
            {},
            {"SERVICE_REALM": realm.NAME},
            {"SERVICE_NAME": "shelf", "SERVICE_HOST": "db.example"},
            {"SERVICE_NAME": "shelf", "SERVICE_HOST": "db.example", "SERVICE_REALM": realm.NAME},
        ):
            client = self.client(f"reader@{realm.NAME}", **properties)
            self.assertEqual(await client.db.c.find_one(), {"_id": 1})
        self.assertEqual(self.server.users, [f"reader@{realm.NAME}"] * 4)

    async def test_another(self) -> None:
        """Nobody is authenticated as another."""
        failed = await self.assertFailure(self.client(f"writer@{realm.NAME}").db.c.find_one(), OperationFailure)
        self.assertEqual(failed.code, 18)

    async def test_unknown_service(self) -> None:
        """A service that is not known is named."""
        client = self.client(f"reader@{realm.NAME}", SERVICE_NAME="attic", SERVICE_HOST="db.example")
        failed = await self.assertFailure(client.db.c.find_one(), OperationFailure)
        self.assertIn("not found in Kerberos database", str(failed))
        self.assertEqual(self.server.commands("saslStart"), [])

    async def test_keytab(self) -> None:
        """The library gets tickets by itself, if there is a keytab."""
        self.realm.forget_tickets()
        os.environ["KRB5_CLIENT_KTNAME"] = self.realm.keytab("reader")
        await self.client(f"reader@{realm.NAME}").db.c.find_one()
        self.assertEqual(self.server.users, [f"reader@{realm.NAME}"])

    async def test_silent_center(self) -> None:
        """The time to connect counts that of a center that is silent; its answer is nobody's when it comes."""
        library: Any = import_module("kerberos")
        clean = library.authGSSClientClean
        freed: Deferred[None] = Deferred()

        def free(context: Any) -> Any:
            result = clean(context)
            reactor.callFromThread(freed.callback, None)  # type: ignore[attr-defined]
            return result

        self.patch(library, "authGSSClientClean", free)
        self.realm.pause()
        found = self.client(f"reader@{realm.NAME}", 1).db.c.find_one()
        failed = await self.assertFailure(found, NetworkTimeout)
        self.assertIn("authentication was not over", str(failed))
        self.assertFalse(freed.called)
        self.realm.resume()
        await freed
        self.assertEqual(self.server.commands("saslStart"), [])

    async def test_no_ticket(self) -> None:
        """Without a ticket the library says so."""
        self.realm.forget_tickets()
        failed = await self.assertFailure(self.client(f"reader@{realm.NAME}").db.c.find_one(), OperationFailure)
        self.assertIn("No Kerberos credentials available", str(failed))
