"""Operations that the server answers with ReauthenticationRequired: one more conversation, and the same once more."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import bson
from twisted.internet.defer import CancelledError, Deferred, succeed

from tests.unit.cmap.aws_server import ACCESS_KEY, AWSServer
from tests.unit.cmap.kerberos_server import KerberosServer, Library
from tests.unit.cmap.oidc_server import OIDCServer
from tests.unit.cmap.scram_server import ScramServer
from tests.unit.oidc_case import Callback, OIDCCase
from tests.unit.ops.test_executor import BuildableOnce, ExecutorTestCase, Look
from tests.unit.test_connection import SET_OF_ONE
from txmongo._auth import Authentication, AuthenticationFailed
from txmongo._ops.encrypting import EncryptingExecutor
from txmongo._ops.timeouts import TimeLimit
from txmongo._reauthentication import Reauthentication
from txmongo._settings import parse_settings
from txmongo.auth_oidc import OIDCCallbackResult
from txmongo.connection import ConnectionPool
from txmongo.errors import AutoReconnect, OperationFailure
from txmongo.testing import HELLO, Behaviour, FakeServer

REQUIRED = {"ok": 0.0, "errmsg": "again", "code": 391, "codeName": "ReauthenticationRequired"}


class ReauthenticationTests(OIDCCase):
    """Clients whose token has expired."""

    def setUp(self) -> None:
        """A callback that gives one token at once, and then waits for the test."""
        super().setUp()
        self.held: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []

    def callback(self) -> Callback:
        """The callback."""
        return Callback("token1", self._hold)

    def _hold(self, _: Any) -> Deferred[Any]:
        self.held.append(Deferred(self.cancelled.append))
        return self.held[-1]

    def expired(self, **options: Any) -> ConnectionPool[Any]:
        """A client with one connection, whose token has expired."""
        client = self.machine(self.callback(), maxPoolSize=1, **options)
        self.successResultOf(self.started(client.db.c.find_one()))
        self.oidc.expire("token2")
        self.oidc.received.clear()
        return client

    def begun(self, operation: Deferred[Any]) -> Deferred[Any]:
        """An operation, until the callback is called."""
        self.turn()
        self.clock.advance(0.2)
        self.turn()
        return operation

    def give(self, token: str = "token2") -> None:
        """The callback gives its token."""
        self.held.pop(0).callback(OIDCCallbackResult(token))
        self.turn()

    def test_all_on_a_connection(self) -> None:
        """All that is refused on a connection, and all that is sent to it meanwhile, waits for one conversation."""
        client = self.expired()
        found = [client.db.c.find_one() for _ in range(5)]
        self.turn()
        found.append(client.db.c.find_one())
        self.begun(found[0])
        self.assertEqual(self.oidc.names(), ["find"] * 6)
        self.give()
        for each in found:
            self.assertIsNone(self.successResultOf(each))
        self.assertEqual(self.oidc.names(), ["find"] * 6 + ["saslStart"] + ["find"] * 6)
        self.assertEqual(self.held, [])

    def test_several_connections(self) -> None:
        """Each connection has its own conversation, and the first one's token is shown in all of them."""
        client = self.machine(self.callback(), pipelining=False, maxConnecting=3)
        for each in [client.db.c.find_one() for _ in range(3)]:
            self.successResultOf(self.started(each))
        self.oidc.expire("token2")
        found = [client.db.c.find_one() for _ in range(3)]
        self.begun(found[0])
        self.assertEqual(len(self.held), 1)
        self.give()
        for each in found:
            self.successResultOf(each)
        self.assertEqual([token for _, token in self.oidc.shown if token == "token2"], ["token2"] * 3)

    def test_write(self) -> None:
        """A write is sent again, be it one that may be retried or not."""
        client = self.expired(retryWrites=False)
        inserted = self.begun(client.db.c.insert_one({"_id": 1}))
        self.give()
        self.assertEqual(self.successResultOf(inserted).inserted_id, 1)
        self.assertEqual(self.oidc.names(), ["insert", "saslStart", "insert"])

    def test_session(self) -> None:
        """What is sent again is the same: session, number, and the beginning of a transaction."""
        self.servers["fake.example"] = self.oidc = OIDCServer(hello=SET_OF_ONE)
        client = self.expired()
        inserted = self.begun(client.db.c.insert_one({"_id": 1}))
        self.give()
        self.successResultOf(inserted)
        one, other = self.oidc.commands("insert")
        self.assertEqual((one["lsid"], one["txnNumber"]), (other["lsid"], other["txnNumber"]))
        self.successResultOf(self.started(client.db.c.find_one()))
        self.assertEqual(self.oidc.commands("find")[-1]["lsid"], one["lsid"])
        session = client.start_session()
        session.start_transaction()
        self.oidc.expire("token3")
        self.oidc.received.clear()
        inserted = self.begun(client.db.c.insert_one({"_id": 2}, session=session))
        self.give("token3")
        self.successResultOf(inserted)
        one, other = self.oidc.commands("insert")
        for name in ("lsid", "txnNumber", "startTransaction", "autocommit"):
            self.assertEqual(one[name], other[name])
        self.assertTrue(other["startTransaction"])
        self.oidc.expire("token4")
        self.oidc.received.clear()
        committed = self.begun(session.commit_transaction())
        self.give("token4")
        self.successResultOf(committed)
        one, other = self.oidc.commands("commitTransaction")
        self.assertEqual(one.get("writeConcern"), other.get("writeConcern"))
        self.successResultOf(self.started(session.end_session()))

    def test_again(self) -> None:
        """An operation is sent again once; the second time the error is its own. The next one may."""
        client = self.machine(Callback(), maxPoolSize=1)
        self.find(client)
        self.oidc.fail("find", times=2)
        error = self.refused(client, OperationFailure)
        self.assertEqual((error.code, str(error.details["errmsg"])), (391, "a fail point"))
        self.oidc.fail("find")
        self.find(client)

    def test_refused(self) -> None:
        """Where the new token is refused, each operation gets an error of its own; the next one tries again."""
        client = self.expired()
        found = [client.db.c.find_one() for _ in range(3)]
        self.begun(found[0])
        self.give("wrong")
        errors = [self.failureResultOf(each, AuthenticationFailed).value for each in found]
        self.assertEqual([error.code for error in errors], [18] * 3)
        self.assertEqual(len(set(map(id, errors))), 3)
        found = [self.begun(client.db.c.find_one())]
        self.give()
        self.successResultOf(found[0])
        self.assertEqual(self.oidc.accepted, 2)

    def test_connection_lost(self) -> None:
        """If the connection is lost meanwhile the operations hear of it, and the callback is cancelled."""
        client = self.expired()
        found = [client.db.c.find_one() for _ in range(2)]
        self.begun(found[0])
        self.oidc.hang_up()
        self.turn()
        for each in found:
            self.failureResultOf(each, AutoReconnect)
        self.assertEqual(self.cancelled, self.held)

    def test_disconnect(self) -> None:
        """If the client ends meanwhile so do the operations, and the callback."""
        client = self.expired()
        found = self.begun(client.db.c.find_one())
        self.successResultOf(self.started(client.disconnect()))
        self.failureResultOf(found, AutoReconnect)
        self.assertEqual(self.cancelled, self.held)

    def test_cancelled(self) -> None:
        """Who is cancelled leaves the others waiting; with the last one the conversation ends, not the connection."""
        client = self.expired()
        one, other = client.db.c.find_one(), client.db.c.find_one()
        self.begun(one)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.assertEqual(self.cancelled, [])
        other.cancel()
        self.failureResultOf(other, CancelledError)
        self.assertEqual(self.cancelled, self.held)
        self.held.clear()
        found = self.begun(client.db.c.find_one())
        self.give()
        self.successResultOf(found)
        self.assertEqual(self.oidc.accepted, 2)

    def test_cancelled_by_another(self) -> None:
        """Who hears of the end may cancel another who is about to hear of it, be the end what it may."""
        for end in (self.give, lambda: self.give("wrong"), self.oidc.hang_up):
            self.oidc.expire("token*")
            client = self.expired()
            one, other = client.db.c.find_one(), client.db.c.find_one()
            self.begun(one)
            one.addBoth(lambda _, other=other: other.cancel())
            end()
            self.turn()
            self.successResultOf(one)
            self.failureResultOf(other, CancelledError)
            self.successResultOf(self.started(client.disconnect()))

    def test_silent_server(self) -> None:
        """A server that does not answer in the time to connect, callbacks not counted, is cut off."""
        client = self.expired(connectTimeoutMS=5000)
        self.oidc.answer("saslStart", Behaviour.FALL_SILENT)
        found = self.begun(client.db.c.find_one())
        self.clock.advance(30)
        self.give()
        self.clock.advance(4.5)
        self.turn()
        self.assertNoResult(found)
        self.clock.advance(0.6)
        self.turn()
        self.assertIn("not authenticated again within connectTimeoutMS", str(self.failureResultOf(found).value))

    def test_time_limit(self) -> None:
        """An operation whose time is up does not wait for the rest."""
        client = self.expired(timeoutMS=1000)
        found = self.begun(client.db.c.find_one())
        self.clock.advance(0.85)
        self.turn()
        self.assertTrue(self.failureResultOf(found).value.timeout)
        self.assertEqual(self.cancelled, self.held)

    def test_socket_timeout(self) -> None:
        """The time that a callback takes is no silence of the server's."""
        client = self.expired(socketTimeoutMS=2000)
        found = self.begun(client.db.c.find_one())
        self.clock.advance(3)
        self.turn()
        self.give()
        self.successResultOf(found)

    def test_service_time(self) -> None:
        """The time that a callback takes is none that the server needs for such a command."""
        client = self.expired()
        [server] = client._topology.servers.values()
        before = server.pool.expected_service_time("find:one")
        found = self.begun(client.db.c.find_one())
        self.clock.advance(30)
        self.give()
        self.successResultOf(found)
        self.assertAlmostEqual(server.pool.expected_service_time("find:one"), before, delta=0.001)

    def test_copy(self) -> None:
        """A read that waits for a token is not sent elsewhere, though that was planned while another was slow."""
        slow: Deferred[Any] = Deferred()
        client = self.machine(self.callback(), maxPoolSize=2, retryReads=True)
        self.successResultOf(self.started(client.db.c.find_one()))
        self.oidc.expire("token2")
        batch = {"cursor": {"id": 0, "ns": "db.c", "firstBatch": []}}
        self.oidc.answer("find", slow, REQUIRED, batch)
        greeting: Deferred[Any] = Deferred()
        self.oidc.answer("isMaster", greeting)
        one, other = client.db.c.find_one(), client.db.c.find_one()
        for _ in range(10):
            self.clock.advance(0.01)
            self.turn()
        self.assertEqual(self.oidc.accepted, 3)
        slow.callback(batch)
        self.begun(other)
        self.successResultOf(one)
        self.assertEqual(len(self.held), 1)
        self.oidc.expire("token1", "token2")
        sent = len(self.oidc.commands("find"))
        greeting.callback({**HELLO, "speculativeAuthenticate": {"done": True}})
        self.turn()
        self.assertNoResult(other)
        self.assertEqual(len(self.oidc.commands("find")), sent)
        self.give()
        self.successResultOf(other)
        [server] = client._topology.servers.values()
        self.assertEqual(server.pool.operation_count, 0)


class MechanismTests(OIDCCase):
    """Mechanisms that servers do not ask for again yet."""

    def again(self, server: FakeServer, uri: str, conversation: list[str], **options: Any) -> None:
        """A find that the server wants to be authenticated for again succeeds after this conversation."""
        self.servers["fake.example"] = server
        batch = {"cursor": {"id": 0, "ns": "db.c", "firstBatch": []}}
        server.answer("find", REQUIRED, batch)
        client = self.client(uri, retryReads=False, **options)
        self.find(client)
        names = [command.name for command in server.received]
        self.assertEqual(names[names.index("find") :], ["find", *conversation, "find"])

    def test_scram(self) -> None:
        """SCRAM is done again by the mechanism that was agreed on, without another greeting."""
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            server = ScramServer(mechanisms=(mechanism,))
            self.again(server, "mongodb://user:pencil@fake.example", ["saslStart", "saslContinue"])
            self.assertEqual(server.authenticated, [mechanism] * 2)

    def test_aws(self) -> None:
        """So is MONGODB-AWS."""
        server = AWSServer()
        uri = f"mongodb://{ACCESS_KEY}@fake.example/?authMechanism=MONGODB-AWS"
        self.again(server, uri, ["saslStart", "saslContinue"], password=server.secret)
        self.assertEqual(server.authenticated, 2)

    def test_gssapi(self) -> None:
        """So is GSSAPI, by another ticket."""
        server = KerberosServer("mongodb@fake.example")
        library = Library()
        begin = self.clock.callInThreadWithCallback

        def at_once(*args: Any) -> None:
            begin(*args)
            self.clock.run_threads()

        self.patch(self.clock, "callInThreadWithCallback", at_once)
        with patch.dict(sys.modules, {"kerberos": library, "winkerberos": None}):
            self.again(
                server,
                "mongodb://user%40REALM@fake.example/?authMechanism=GSSAPI",
                ["saslStart", "saslContinue", "saslContinue"],
            )
        self.assertEqual(server.authenticated, 2)
        self.assertEqual([context.freed for context in library.contexts], [True, True])

    def test_x509(self) -> None:
        """So is a certificate."""
        server = FakeServer({"authenticate": {}})
        self.again(server, "mongodb://fake.example/?authMechanism=MONGODB-X509", ["authenticate"])

    def test_nobody(self) -> None:
        """Without credentials the answer is an error like others."""
        self.servers["fake.example"] = FakeServer({"find": REQUIRED})
        client = self.client("mongodb://fake.example", retryReads=False)
        self.assertEqual(self.refused(client, OperationFailure).code, 391)


class AttemptTests(ExecutorTestCase):
    """On the layer below clients."""

    def test_unbuildable(self) -> None:
        """A command that cannot be built a second time fails, and gives the connection back."""
        wire = self.opened()
        wire.protocol.reauthentication = Reauthentication(_plain(), wire.protocol, self.clock, None, "h:1")
        self.assertEqual(repr(wire.protocol.reauthentication), "<Reauthentication at h:1, 0 waiting>")
        looking = self.executor.execute(BuildableOnce("admin"))
        wire.read()
        wire.answer(REQUIRED)
        self.assertEqual([next(iter(command)) for command in wire.read()], ["saslStart"])
        wire.answer({"ok": 1, "done": True, "payload": b""})
        self.failureResultOf(looking, ValueError)
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 1))

    def test_encrypted(self) -> None:
        """A command that is encrypted is encrypted for the second time too, whether or not its time is limited."""
        wire = self.opened()
        wire.protocol.reauthentication = Reauthentication(_plain(), wire.protocol, self.clock, None, "h:1")
        executor = EncryptingExecutor(Marking(), self.topology, parse_settings(self.uri), self.clock)
        limit = TimeLimit.after(self.clock, 10)
        for execute in (executor.execute, lambda operation: executor.execute_within(operation, limit)):
            looking = execute(Look("admin"))
            (first,) = wire.read()
            wire.answer(REQUIRED)
            wire.read()
            wire.answer({"ok": 1, "done": True, "payload": b""})
            (second,) = wire.read()
            self.assertEqual((first["encrypted"], second["encrypted"]), (True, True))
            wire.answer({"ok": 1, "x": 1})
            self.assertEqual(self.successResultOf(looking)[0]["x"], 1)
        self.assertEqual((self.pool.operation_count, self.pool.available_count), (0, 1))
        self.clock.pump([0.1, 0])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Marking:
    """Encrypts by a mark."""

    encrypts = True

    def encrypt(self, database: str, command: bytes) -> Deferred[bytes]:
        """Put the mark on."""
        return succeed(bson.encode({**bson.decode(command), "encrypted": True}))

    def decrypt(self, reply: bytes) -> Deferred[bytes]:
        """Replies have none."""
        return succeed(reply)


def _plain() -> Authentication:
    credentials = parse_settings("mongodb://user:hidden@h/?authMechanism=PLAIN").credentials
    assert credentials is not None
    return Authentication(credentials, ("h", 1))
