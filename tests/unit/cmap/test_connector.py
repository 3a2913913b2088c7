"""Establishing a connection against scripted servers: what comes out, how long it may take, and what is left behind."""

from __future__ import annotations

import os
import struct
from typing import Any
from urllib.parse import quote

import attrs
from bson.objectid import ObjectId
from pymongo.driver_info import DriverInfo
from pymongo.server_api import ServerApi
from twisted.internet import defer, error, ssl
from twisted.internet.interfaces import IStreamClientEndpoint, IWriteDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.unit.cmap.aws_server import ACCESS_KEY, SECRET_KEY, AWSServer
from tests.unit.cmap.scram_server import ScramServer
from txmongo._auth import AuthenticationFailed, make_credentials
from txmongo._aws import KeysNotFound
from txmongo._cmap.connector import Connector
from txmongo._cmap.endpoints import _TLSEndpoint, connection_creator
from txmongo._settings import parse_settings
from txmongo._testing.memory import MemoryEndpoint
from txmongo._version import __version__
from txmongo._wire.op_msg import Msg
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    PyMongoError,
)
from txmongo.protocol import MongoAuthenticationError, MongoProtocol
from txmongo.testing import HELLO, Behaviour, CertificateAuthority, FakeServer

ADDRESS = ("db.example", 27017)
AWS_URI = f"mongodb://{ACCESS_KEY}:{quote(SECRET_KEY, safe='')}@h/?authMechanism=MONGODB-AWS"


@implementer(IStreamClientEndpoint)
class GivenEndpoint:
    """An endpoint whose connecting ends as the test says."""

    def __init__(self, connecting: defer.Deferred[Any]) -> None:
        self.connecting = connecting

    def connect(self, protocolFactory: Any) -> defer.Deferred[Any]:
        """Wait for the test."""
        return self.connecting


class ConnectorTestCase(SynchronousTestCase):
    """A clock, and connections on it."""

    def setUp(self) -> None:
        """Time stands still."""
        self.clock = Clock()

    def connector(self, server: FakeServer, uri: str = "mongodb://db.example", **keywords: Any) -> Connector:
        """A connector whose every address is this server."""
        return Connector(parse_settings(uri, **keywords), lambda _: server.endpoint(self.clock), self.clock)

    def turn(self) -> None:
        """Let all bytes that are under way arrive."""
        self.clock.pump([0] * 60)

    def connect(self, server: FakeServer, uri: str = "mongodb://db.example", **keywords: Any) -> Any:
        """A connection and its description."""
        connecting = self.connector(server, uri, **keywords).connect(ADDRESS)
        self.turn()
        return self.successResultOf(connecting)

    def failure(self, server: FakeServer, kind: type[Exception], stage: str, *args: Any, **keywords: Any) -> Any:
        """The error of connecting; nothing is left behind of the attempt."""
        connecting = self.connector(server, *args, **keywords).connect(ADDRESS)
        self.turn()
        failed = self.failureResultOf(connecting, kind).value
        self.turn()
        self.assertEqual(type(failed), kind)
        self.assertEqual(getattr(failed, "_txmongo_stage", None), stage)
        self.assertEqual(server.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return failed


class ConnectTests(ConnectorTestCase):
    """Connections for commands."""

    def test_connected(self) -> None:
        """The connection is greeted once and described by the answer; no timer stays."""
        server = FakeServer(hello={"maxWireVersion": 21, "connectionId": 5, "maxMessageSizeBytes": 1000})
        protocol, description = self.connect(server)
        self.assertIsInstance(protocol, MongoProtocol)
        self.assertEqual((protocol.min_wire_version, protocol.max_wire_version), (0, 21))
        self.assertEqual(protocol.max_message_size, 1000)
        self.assertIsNone(protocol.compressor)
        self.assertEqual((description.max_wire_version, description.server_connection_id), (21, 5))
        self.assertEqual([command.name for command in server.received], ["isMaster"])
        self.assertEqual(server.received[0].document["client"]["driver"]["name"], "txmongo")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_usable(self) -> None:
        """Commands can be sent over it."""
        protocol, _ = self.connect(FakeServer())
        pinged = protocol.command("admin", {"ping": 1})
        self.turn()
        self.assertEqual(self.successResultOf(pinged), {"ok": 1.0})

    def test_stable_api(self) -> None:
        """With the Stable API the greeting is a hello."""
        server = FakeServer()
        self.connect(server, server_api=ServerApi("1"))
        self.assertEqual([command.name for command in server.received], ["hello"])
        self.assertEqual(server.received[0].document["apiVersion"], "1")

    def test_compression(self) -> None:
        """The agreed compressor, at the wished level, is used from then on."""
        server = FakeServer(hello={"compression": ["zlib"]})
        protocol, description = self.connect(server, "mongodb://h/?compressors=zlib&zlibCompressionLevel=3")
        self.assertEqual(description.compressor, "zlib")
        self.assertEqual((protocol.compressor.compressor_id, protocol.compressor.level), (2, 3))

    def test_load_balanced(self) -> None:
        """Behind a load balancer the service is told; without one the server is refused."""
        service = ObjectId()
        _, description = self.connect(FakeServer(hello={"serviceId": service}), "mongodb://h/?loadBalanced=true")
        self.assertEqual(description.service_id, service)
        self.failure(FakeServer(), ConfigurationError, "hello", "mongodb://h/?loadBalanced=true")

    def test_service_of_a_failure(self) -> None:
        """An error after the greeting names the service that the connection went to."""
        server = ScramServer()
        service = ObjectId()
        server.answer("hello", {**HELLO, "serviceId": service})
        failed = self.failure(server, AuthenticationFailed, "auth", "mongodb://nobody:x@h/?loadBalanced=true")
        self.assertEqual(failed._txmongo_service_id, service)

    def test_appended_metadata(self) -> None:
        """A library named later stands in the greeting of connections made from then on."""
        server = FakeServer()
        connector = self.connector(server, driver=DriverInfo("one", "1"))
        connector.append_metadata(DriverInfo("two", "2"))
        connector.connect(ADDRESS)
        self.turn()
        (greeting,) = server.commands("isMaster")
        self.assertEqual(greeting["client"]["driver"], {"name": "txmongo|one|two", "version": f"{__version__}|1|2"})

    def test_monitor(self) -> None:
        """A monitor's connection is greeted without credentials; versions are not judged; the time is measured."""
        server = ScramServer()
        late: defer.Deferred[Any] = defer.Deferred()
        server.answer("isMaster", late)
        connecting = self.connector(server, "mongodb://user:pencil@h").connect_monitor(ADDRESS)
        self.turn()
        self.clock.advance(0.25)
        late.callback({"maxWireVersion": 1})
        self.turn()
        protocol, hello, seconds = self.successResultOf(connecting)
        self.assertEqual((hello["maxWireVersion"], seconds), (1, 0.25))
        self.assertIsInstance(protocol, MongoProtocol)
        self.assertNotIn("speculativeAuthenticate", server.commands("isMaster")[0])
        self.assertEqual([command.name for command in server.received], ["isMaster"])


class FailureTests(ConnectorTestCase):
    """Servers that are not there, or not what they should be."""

    def test_refused(self) -> None:
        """A server that refuses connections is named."""
        server = FakeServer()
        server.refusing = True
        self.assertIn("db.example:27017: ", str(self.failure(server, AutoReconnect, "connect")))

    def test_unknown_host(self) -> None:
        """A host name that cannot be resolved is named."""
        endpoint = GivenEndpoint(defer.fail(error.DNSLookupError("no results for hostname lookup: db.example")))
        connector = Connector(parse_settings(), lambda _: endpoint, self.clock)
        failed = self.failureResultOf(connector.connect(ADDRESS), AutoReconnect).value
        self.assertIn("db.example:27017: the host name cannot be resolved", str(failed))

    def test_connect_timeout(self) -> None:
        """The reactor's own time limit is a NetworkTimeout."""
        connector = Connector(parse_settings(), lambda _: GivenEndpoint(defer.fail(error.TimeoutError())), self.clock)
        self.failureResultOf(connector.connect(ADDRESS), NetworkTimeout)

    def test_strange_endpoint(self) -> None:
        """Whatever else an endpoint fails with is told with its kind."""
        connector = Connector(parse_settings(), lambda _: GivenEndpoint(defer.fail(OSError("odd"))), self.clock)
        failed = self.failureResultOf(connector.connect(ADDRESS), AutoReconnect).value
        self.assertEqual(str(failed), "db.example:27017: OSError: odd")

    def test_closes_at_once(self) -> None:
        """A server that hangs up on the greeting is told so, with what may be the reason."""
        failed = self.failure(FakeServer({"isMaster": Behaviour.HANG_UP}), AutoReconnect, "hello")
        self.assertIn(
            "db.example:27017: connection closed during the greeting (does the server want TLS?)", str(failed)
        )

    def test_garbage(self) -> None:
        """What is no MongoDB server is told so, and nothing more is read from it."""
        for garbage in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, struct.pack("<iiii", 16, 1, 1, 9999)):
            failed = self.failure(FakeServer({"isMaster": garbage}), AutoReconnect, "hello")
            self.assertIn("db.example:27017: not a MongoDB server?", str(failed))

    def test_wrong_kind_of_answer(self) -> None:
        """A well-formed message that is no answer to the greeting is refused."""

        def as_message(_: Any) -> bytes:
            return Msg.create({"ok": 1}, response_to=server_request(server)).encode(1)

        server = FakeServer()
        server.answer("isMaster", as_message)
        self.failure(server, AutoReconnect, "hello")

    def overload_labels(self, error: PyMongoError) -> tuple[bool, bool]:
        """Whether an error has the labels of an overloaded server's."""
        return error.has_error_label("SystemOverloadedError"), error.has_error_label("RetryableError")

    def test_overloaded(self) -> None:
        """What an overloaded server may do to those who connect is labelled, and nothing that it says, or others do."""

        def silent_after(command: str) -> PyMongoError:
            server = ScramServer()
            server.answer(command, Behaviour.FALL_SILENT)
            connecting = self.connector(server, "mongodb://user:pencil@h").connect(ADDRESS)
            self.turn()
            self.clock.advance(20)
            self.turn()
            return self.failureResultOf(connecting, NetworkTimeout).value

        def ended(reason: Exception) -> PyMongoError:
            connector = Connector(parse_settings(), lambda _: GivenEndpoint(defer.fail(reason)), self.clock)
            return self.failureResultOf(connector.connect(ADDRESS), PyMongoError).value

        def answered(answer: Any) -> PyMongoError:
            connecting = self.connector(FakeServer({"isMaster": answer})).connect(ADDRESS)
            self.turn()
            return self.failureResultOf(connecting, PyMongoError).value

        for failed in (
            silent_after("isMaster"),
            ended(error.ConnectionRefusedError()),
            ended(error.TimeoutError()),
            ended(error.ConnectionLost()),
            answered(Behaviour.HANG_UP),
        ):
            self.assertEqual(self.overload_labels(failed), (True, True), failed)
        for failed in (
            silent_after("saslContinue"),
            ended(error.DNSLookupError()),
            ended(error.UnknownHostError()),
            ended(OSError("odd")),
            answered(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            answered({"ok": 0, "errmsg": "no room", "code": 1}),
        ):
            self.assertEqual(self.overload_labels(failed), (False, False), failed)

    def test_overloaded_for_the_monitor(self) -> None:
        """A monitor's failure is not labelled: it is what tells that a server is gone."""
        server = FakeServer()
        server.refusing = True
        connecting = self.connector(server).connect_monitor(ADDRESS)
        self.turn()
        self.assertEqual(self.overload_labels(self.failureResultOf(connecting, AutoReconnect).value), (False, False))

    def test_half_a_message(self) -> None:
        """A server that stops in the middle of its answer is given up when the time is over."""
        server = FakeServer({"isMaster": struct.pack("<iiii", 100, 1, 1, 1) + b"abc"})
        connecting = self.connector(server, connectTimeoutMS=5000).connect(ADDRESS)
        self.turn()
        self.clock.advance(4.9)
        self.assertNoResult(connecting)
        self.clock.advance(0.2)
        failed = self.failureResultOf(connecting, NetworkTimeout).value
        for said in ("db.example:27017", "connectTimeoutMS (5 s)", "no whole answer to the greeting"):
            self.assertIn(said, str(failed))
        self.assertEqual(failed._txmongo_stage, "hello")
        self.turn()
        self.assertEqual(server.connections, 0)

    def test_silence(self) -> None:
        """A server that accepts and says nothing is given up when the time is over, wherever it fell silent."""
        for command, said in (("isMaster", "greeting"), ("saslContinue", "authentication")):
            server = ScramServer()
            server.answer(command, Behaviour.FALL_SILENT)
            connecting = self.connector(server, "mongodb://user:pencil@h").connect(ADDRESS)
            self.turn()
            self.clock.advance(20)
            self.assertIn(said, str(self.failureResultOf(connecting, NetworkTimeout).value))
            self.turn()
            self.assertEqual(server.connections, 0)

    def test_never_connects(self) -> None:
        """The time limit holds for connecting too, even if the endpoint has none of its own."""
        cancelled: list[Any] = []
        endpoint = GivenEndpoint(defer.Deferred(cancelled.append))
        connector = Connector(parse_settings("mongodb://h/?connectTimeoutMS=1000"), lambda _: endpoint, self.clock)
        connecting = connector.connect(ADDRESS)
        self.clock.advance(1)
        self.assertIn("still connecting", str(self.failureResultOf(connecting, NetworkTimeout).value))
        self.assertEqual(len(cancelled), 1)

    def test_no_time_limit(self) -> None:
        """With connectTimeoutMS=0 there is no timer at all."""
        server = FakeServer({"isMaster": Behaviour.FALL_SILENT})
        connecting = self.connector(server, connectTimeoutMS=0).connect(ADDRESS)
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(connecting)
        connecting.cancel()
        self.failureResultOf(connecting, defer.CancelledError)
        self.turn()

    def test_error_reply(self) -> None:
        """An error in answer to the greeting is the server's own."""
        server = FakeServer({"isMaster": {"ok": 0, "errmsg": "no room", "code": 1}})
        self.assertEqual(self.failure(server, OperationFailure, "hello").code, 1)

    def test_shutting_down(self) -> None:
        """A server that says it is shutting down is not taken for a lost connection: its code reaches the topology."""
        server = FakeServer({"isMaster": {"ok": 0, "errmsg": "going", "code": 91}})
        self.assertEqual(self.failure(server, NotPrimaryError, "hello").errors["code"], 91)

    def test_too_old(self) -> None:
        """A server before MongoDB 4.4 is refused by a ConfigurationError with its address."""
        server = FakeServer(hello={"maxWireVersion": 8})
        self.assertIn("db.example:27017", str(self.failure(server, ConfigurationError, "hello")))

    def test_cancelled(self) -> None:
        """Cancelling at any moment aborts the connection and leaves nothing behind."""
        for turns in range(12):
            server = ScramServer(speculative=False)
            connecting = self.connector(server, "mongodb://user:pencil@h").connect(ADDRESS)
            self.clock.pump([0] * turns)
            if connecting.called:
                self.successResultOf(connecting)[0].abort(Exception("the test is over"))
            else:
                connecting.cancel()
                self.failureResultOf(connecting, defer.CancelledError)
            self.turn()
            self.assertEqual(server.connections, 0)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drained(self) -> None:
        """One can wait until the sockets of given up attempts are closed; otherwise that is so at once."""
        server = FakeServer({"isMaster": Behaviour.FALL_SILENT})
        connector = self.connector(server)
        self.successResultOf(connector.drained())
        attempts = [connector.connect(ADDRESS) for _ in range(2)]
        self.turn()
        for attempt in attempts:
            attempt.cancel()
            self.failureResultOf(attempt, defer.CancelledError)
        drained = connector.drained()
        self.assertNoResult(drained)
        self.turn()
        self.successResultOf(drained)
        self.assertEqual(server.connections, 0)

    def test_cancelled_while_resolving(self) -> None:
        """A cancel is a CancelledError even if the endpoint makes another error of it."""
        resolving: defer.Deferred[Any] = defer.Deferred()
        resolving.addErrback(lambda _: defer.fail(error.DNSLookupError("cancelled")))
        connector = Connector(parse_settings(), lambda _: GivenEndpoint(resolving), self.clock)
        connecting = connector.connect(ADDRESS)
        connecting.cancel()
        self.failureResultOf(connecting, defer.CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_endpoint_that_cannot_be_cancelled(self) -> None:
        """A connection that is made in spite of the cancel is aborted."""
        made: defer.Deferred[Any] = defer.Deferred(lambda d: None)
        server = FakeServer()
        late: list[Any] = []

        class Stubborn(GivenEndpoint):
            """Connects, whatever the cancel."""

            def keep(self, protocol: Any) -> Any:
                late.append(protocol)
                return protocol

            def connect(self, protocolFactory: Any) -> defer.Deferred[Any]:
                d: defer.Deferred[Any] = server.endpoint(clock).connect(protocolFactory)
                d.addCallback(self.keep)
                kept: defer.Deferred[Any] = defer.Deferred(lambda k: k.errback(error.ConnectionDone()))
                kept.addErrback(lambda _: d)
                return kept

        clock = self.clock
        connector = Connector(parse_settings(), lambda _: Stubborn(made), self.clock)
        connecting = connector.connect(ADDRESS)
        connecting.cancel()
        self.failureResultOf(connecting, defer.CancelledError)
        self.turn()
        self.assertEqual(len(late), 1)
        self.assertEqual(server.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def server_request(server: FakeServer) -> int:
    """A request id that is not the one asked; the fake server does not tell it."""
    return 987654321 + len(server.received)


class AuthenticationTests(ConnectorTestCase):
    """Credentials."""

    def test_scram(self) -> None:
        """Each SCRAM mechanism is spoken, with and without its speculative start."""
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            for speculative, commands in ((True, ["saslContinue"]), (False, ["saslStart", "saslContinue"])):
                server = ScramServer(speculative=speculative)
                self.connect(server, f"mongodb://user:pencil@h/?authMechanism={mechanism}")
                self.assertEqual(server.authenticated, [mechanism])
                self.assertEqual([command.name for command in server.received[1:]], commands)
                self.assertEqual({command.database for command in server.received}, {"admin"})

    def test_negotiated(self) -> None:
        """Without a mechanism the strongest one that the user has is taken, and speculation is for SCRAM-SHA-256."""
        for has, speculative, taken in (
            (("SCRAM-SHA-1", "SCRAM-SHA-256"), True, "SCRAM-SHA-256"),
            (("SCRAM-SHA-256",), True, "SCRAM-SHA-256"),
            (("SCRAM-SHA-256",), False, "SCRAM-SHA-256"),
            (("SCRAM-SHA-1",), True, "SCRAM-SHA-1"),
        ):
            server = ScramServer(mechanisms=has, speculative=speculative)
            self.connect(server, "mongodb://user:pencil@h")
            self.assertEqual(server.authenticated, [taken])

    def test_database(self) -> None:
        """The user of another database is asked for, and authenticated, there."""
        server = ScramServer(speculative=False)
        self.connect(server, "mongodb://user:pencil@h/app")
        self.assertEqual(server.commands("isMaster")[0]["saslSupportedMechs"], "app.user")
        self.assertEqual({command.database for command in server.received[1:]}, {"app"})

    def test_extra_round(self) -> None:
        """A server that cannot skip the empty exchange is served it."""
        server = ScramServer(extra_round=True)
        self.connect(server, "mongodb://user:pencil@h")
        self.assertEqual(len(server.commands("saslContinue")), 2)

    def test_names_with_delimiters(self) -> None:
        """Commas and equal signs in a name are escaped as SCRAM wants it."""
        server = ScramServer(user="a=3Db=2Cc")
        self.connect(server, "mongodb://a%3Db%2Cc:pencil@h/?authMechanism=SCRAM-SHA-256")
        self.assertEqual(server.authenticated, ["SCRAM-SHA-256"])

    def test_stable_api(self) -> None:
        """The commands of the authentication name the Stable API's version too."""
        server = ScramServer(speculative=False)
        self.connect(server, "mongodb://user:pencil@h", server_api=ServerApi("1"))
        self.assertEqual([command.document["apiVersion"] for command in server.received], ["1"] * 3)

    def test_wrong_credentials(self) -> None:
        """A wrong password or an unknown user is an OperationFailure with code 18, which shows neither."""
        for who in ("user:wrongPassword", "stranger:wrongPassword"):
            for speculative in (True, False):
                failed = self.failure(
                    ScramServer(speculative=speculative), AuthenticationFailed, "auth", f"mongodb://{who}@h"
                )
                self.assertIsInstance(failed, OperationFailure)
                self.assertIsInstance(failed, MongoAuthenticationError)
                self.assertEqual(failed.code, 18)
                self.assertNotIn("wrongPassword", repr(failed) + repr(failed.details))

    def test_impostor(self) -> None:
        """A server that does not know the password is refused."""
        for fault in ("nonce", "signature", "unending"):
            failed = self.failure(
                ScramServer(fault=fault, extra_round=True), AuthenticationFailed, "auth", "mongodb://user:pencil@h"
            )
            self.assertNotIn("pencil", str(failed))

    def test_weak_hash(self) -> None:
        """Fewer than 4096 iterations are refused with each mechanism, before anything is proved to the server."""
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            server = ScramServer(fault="iterations")
            uri = f"mongodb://user:pencil@h/?authMechanism={mechanism}"
            self.failure(server, AuthenticationFailed, "auth", uri)
            self.assertEqual(server.commands("saslContinue"), [])

    def test_broken_conversation(self) -> None:
        """An answer that misses a part, or is not encoded as it should, is told as such."""
        for fault in ("payload", "base64"):
            failed = self.failure(ScramServer(fault=fault), AutoReconnect, "auth", "mongodb://user:pencil@h")
            self.assertIn("did not keep to SCRAM-SHA-256", str(failed))
            self.assertIsInstance(failed.__cause__, ProtocolError)

    def test_impossible_password(self) -> None:
        """A password with characters that SCRAM-SHA-256 forbids is refused, and not shown."""
        failed = self.failure(ScramServer(), ConfigurationError, "auth", "mongodb://user:pen%07cil@h")
        self.assertNotIn("cil", str(failed).replace("pencil", ""))
        self.assertIn("SCRAM-SHA-256", str(failed))

    def test_lost_during_authentication(self) -> None:
        """A connection that is lost while authenticating is told as such."""
        server = ScramServer()
        server.answer("saslContinue", Behaviour.HANG_UP)
        failed = self.failure(server, AutoReconnect, "auth", "mongodb://user:pencil@h")
        self.assertIn("connection closed during authentication", str(failed))

    def test_plain(self) -> None:
        """PLAIN sends name and password once, to $external."""
        server = FakeServer({"saslStart": {"done": True, "conversationId": 1, "payload": b""}})
        self.connect(server, "mongodb://user:pencil@h/?authMechanism=PLAIN")
        (command,) = server.commands("saslStart")
        self.assertEqual((command["mechanism"], command["$db"]), ("PLAIN", "$external"))
        self.assertEqual(bytes(command["payload"]), b"\x00user\x00pencil")

    def test_x509(self) -> None:
        """MONGODB-X509 is started in the greeting, and done by a command if the server did not take part."""
        server = FakeServer({"authenticate": {}})
        self.connect(server, "mongodb://CN%3Dme@h/?authMechanism=MONGODB-X509")
        expected = {"authenticate": 1, "mechanism": "MONGODB-X509", "user": "CN=me"}
        self.assertEqual(server.commands("isMaster")[0]["speculativeAuthenticate"], expected)
        self.assertEqual(server.commands("authenticate"), [{**expected, "$db": "$external"}])
        server = FakeServer(hello={"speculativeAuthenticate": {"dbname": "$external", "user": "CN=me"}})
        self.connect(server, "mongodb://h/?authMechanism=MONGODB-X509")
        self.assertEqual(server.commands("authenticate"), [])

    def test_arbiter(self) -> None:
        """Nobody authenticates at an arbiter, which has no users."""
        server = FakeServer(hello={"setName": "rs", "arbiterOnly": True})
        self.connect(server, "mongodb://user:pencil@h")
        self.assertEqual([command.name for command in server.received], ["isMaster"])

    def test_unsupported(self) -> None:
        """A mechanism that PyMongo knows and the driver does not is refused before anything is connected, by name."""
        settings = parse_settings("mongodb://u:p@h/?authMechanism=PLAIN")
        assert settings.credentials is not None
        settings = attrs.evolve(settings, credentials=settings.credentials._replace(mechanism="NEW"))
        failed = self.assertRaises(ConfigurationError, Connector, settings, None, self.clock)
        self.assertIn("NEW is not supported yet", str(failed))


class AWSTests(ConnectorTestCase):
    """MONGODB-AWS."""

    def setUp(self) -> None:
        """Keys in the environment only where a test puts them there."""
        super().setUp()
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)

    def test_keys(self) -> None:
        """A request to AWS is signed, for the region that the server names, and nothing begins in the greeting."""
        for server in (AWSServer(), AWSServer("sts.us-west-2.amazonaws.com", "us-west-2")):
            self.connect(server, AWS_URI)
            self.assertEqual(server.authenticated, 1)
            self.assertEqual([command.name for command in server.received], ["isMaster", "saslStart", "saslContinue"])
            self.assertNotIn("speculativeAuthenticate", server.received[0].document)

    def test_nonces(self) -> None:
        """Every connection has a nonce of its own."""
        server = AWSServer()
        for _ in range(2):
            self.connect(server, AWS_URI)
        one, other = (bytes(command["payload"]) for command in server.commands("saslStart"))
        self.assertNotEqual(one, other)

    def test_token(self) -> None:
        """The token of temporary keys is signed and sent."""
        server = AWSServer(token="to/ken+of==")
        self.connect(server, AWS_URI, authMechanismProperties={"AWS_SESSION_TOKEN": "to/ken+of=="})
        self.assertEqual(server.authenticated, 1)

    def test_environment(self) -> None:
        """Keys in the environment do as well; they are read for each connection."""
        server = AWSServer(token="token")
        self.environment.update(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY="guess", AWS_SESSION_TOKEN="token")
        connector = self.connector(server, "mongodb://h/?authMechanism=MONGODB-AWS")
        refused = connector.connect(ADDRESS)
        self.turn()
        self.failureResultOf(refused, AuthenticationFailed)
        self.environment["AWS_SECRET_ACCESS_KEY"] = SECRET_KEY
        connecting = connector.connect(ADDRESS)
        self.turn()
        self.successResultOf(connecting)
        self.assertEqual(server.authenticated, 1)

    def test_refused(self) -> None:
        """Wrong keys are code 18, and the secret is not shown."""
        server = AWSServer()
        server.secret = "another"
        failed = self.failure(server, AuthenticationFailed, "auth", AWS_URI)
        self.assertEqual(failed.code, 18)
        self.assertNotIn("EXAMPLEKEY", repr(failed) + repr(failed.details))

    def test_impostor(self) -> None:
        """A server that does not keep to the conversation is told as such, and gets no signature if that is in time."""
        for server, continued in (
            (AWSServer(fault="nonce"), 0),
            (AWSServer(fault="short"), 0),
            (AWSServer(fault="payload"), 0),
            (AWSServer("sts..com"), 0),
            (AWSServer(fault="unending"), 1),
        ):
            failed = self.failure(server, AutoReconnect, "auth", AWS_URI)
            self.assertIn("did not keep to MONGODB-AWS", str(failed))
            self.assertEqual(len(server.commands("saslContinue")), continued)

    def test_no_keys(self) -> None:
        """Without keys the attempt to connect fails with an error that says where they are looked for."""
        self.environment["AWS_SESSION_TOKEN"] = "hidden"
        uri = "mongodb://h/?authMechanism=MONGODB-AWS"
        failed = self.failure(AWSServer(), KeysNotFound, "auth", uri)
        self.assertIn("AWS_ACCESS_KEY_ID", str(failed))

    def test_stable_api(self) -> None:
        """The commands of the conversation name the Stable API's version."""
        server = AWSServer()
        self.connect(server, AWS_URI, server_api=ServerApi("1"))
        self.assertEqual([command.document["apiVersion"] for command in server.received], ["1"] * 3)

    def test_later(self) -> None:
        """The mechanism belongs to the client's making: ``authenticate`` refuses it by name."""
        failed = self.assertRaises(MongoAuthenticationError, make_credentials, "admin", "u", "p", "MONGODB-AWS")
        self.assertIn("when the client is made", str(failed))


@implementer(IWriteDescriptor)
class WritableTransport:
    """An in-memory transport that is flushed as a socket's is.

    :ivar taken: what was written.
    :ivar flushed: how often it was told to write now.
    """

    def __init__(self, below: Any) -> None:
        self._below = below
        self.taken: list[bytes] = []
        self.flushed = 0
        self.disconnecting = False

    @classmethod
    def put_below(cls, transport: Any) -> WritableTransport:
        """Put one between a TLS transport and the in-memory one that it writes to."""
        transport.transport = cls(transport.transport)
        return transport.transport  # type: ignore[no-any-return]

    def write(self, data: bytes) -> None:
        """Pass bytes on."""
        self.taken.append(data)
        self._below.write(data)

    def doWrite(self) -> None:
        """Count."""
        self.flushed += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


class TLSTests(ConnectorTestCase):
    """Connections that must be encrypted."""

    def setUp(self) -> None:
        """An authority."""
        super().setUp()
        self.authority = CertificateAuthority(self.mktemp())

    def secure(self, server: FakeServer, hosts: list[str], **keywords: Any) -> defer.Deferred[Any]:
        """Connect to db.example over TLS; the server's certificate is for these hosts."""
        certificate = ssl.PrivateCertificate.loadPEM(self.authority.server(hosts=hosts).read_bytes())
        context = certificate.options()

        def accept() -> Any:
            factory = Factory.forProtocol(server._accept)
            return TLSMemoryBIOFactory(context, False, factory, clock=self.clock).buildProtocol(None)

        settings = parse_settings("mongodb://db.example", tlsCAFile=str(self.authority.ca_file), **keywords)
        assert settings.tls is not None
        creator = connection_creator("db.example", settings.tls)
        endpoint = _TLSEndpoint(MemoryEndpoint(self.clock, accept), creator, self.clock)
        return Connector(settings, lambda _: endpoint, self.clock).connect(ADDRESS)

    def test_encrypted(self) -> None:
        """All of the conversation goes through TLS."""
        server = FakeServer()
        connecting = self.secure(server, ["db.example"])
        self.turn()
        protocol, _ = self.successResultOf(connecting)
        pinged = protocol.command("admin", {"ping": 1})
        self.turn()
        self.assertEqual(self.successResultOf(pinged)["ok"], 1)

    def test_at_once(self) -> None:
        """A command that is alone is encrypted and handed to the kernel inside the call, never in plain text."""
        connecting = self.secure(FakeServer(), ["db.example"])
        self.turn()
        protocol, _ = self.successResultOf(connecting)
        below = WritableTransport.put_below(protocol.transport)
        pinged = protocol.command("admin", {"ping": 1, "comment": "not for the wire"})
        self.assertEqual(below.flushed, 1)
        self.assertNotIn(b"not for the wire", b"".join(below.taken))
        behind = protocol.command("admin", {"ping": 1})
        self.assertEqual(below.flushed, 1)
        self.turn()
        self.assertEqual(self.successResultOf(pinged)["ok"], 1)
        self.assertEqual(self.successResultOf(behind)["ok"], 1)

    def test_closing(self) -> None:
        """A transport that is about to close is left to the reactor."""
        connecting = self.secure(FakeServer(), ["db.example"])
        self.turn()
        protocol, _ = self.successResultOf(connecting)
        below = WritableTransport.put_below(protocol.transport)
        below.disconnecting = True
        pinged = protocol.command("admin", {"ping": 1})
        self.assertEqual(below.flushed, 0)
        protocol.abort(AutoReconnect("the end of this test"))
        self.turn()
        self.failureResultOf(pinged, AutoReconnect)

    def test_wrong_name(self) -> None:
        """A certificate for another host is refused before anything is said; the error tells why."""
        server = FakeServer()
        connecting = self.secure(server, ["other.example"])
        self.turn()
        failed = self.failureResultOf(connecting, AutoReconnect).value
        self.assertIn("db.example:27017: TLS handshake failed: the server's certificate is not for this", str(failed))
        self.assertEqual(failed._txmongo_stage, "connect")
        self.assertEqual(server.received, [])

    def test_unknown_authority(self) -> None:
        """An unknown authority's certificate is refused before anything is said."""
        server = FakeServer()
        self.authority, known = CertificateAuthority(self.mktemp(), "other"), self.authority
        certificate = self.authority
        certificate.ca_file = known.ca_file
        connecting = self.secure(server, ["db.example"])
        self.turn()
        failed = self.failureResultOf(connecting, AutoReconnect).value
        self.assertIn("TLS handshake failed: certificate verify failed", str(failed))
        self.assertFalse(failed.has_error_label("SystemOverloadedError"))
        self.assertEqual(server.received, [])

    def test_overloaded(self) -> None:
        """A server that hangs up in the TLS handshake may be overloaded, not so one with a bad certificate."""

        class Closing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

        settings = parse_settings("mongodb://db.example/?tls=true")
        assert settings.tls is not None
        endpoint = _TLSEndpoint(
            MemoryEndpoint(self.clock, Closing), connection_creator("db.example", settings.tls), self.clock
        )
        closed = Connector(settings, lambda _: endpoint, self.clock).connect(ADDRESS)
        misnamed = self.secure(FakeServer(), ["other.example"])
        self.turn()
        found = [self.failureResultOf(connecting, AutoReconnect).value for connecting in (closed, misnamed)]
        self.assertEqual([failed.has_error_label("SystemOverloadedError") for failed in found], [True, False])
        self.assertEqual([failed._txmongo_stage for failed in found], ["connect", "connect"])

    def test_plain_server(self) -> None:
        """A server that does not speak TLS gets no command, and no time beyond the limit."""
        server = FakeServer()
        settings = parse_settings("mongodb://db.example/?tls=true&connectTimeoutMS=3000")
        assert settings.tls is not None
        creator = connection_creator("db.example", settings.tls)
        endpoint = _TLSEndpoint(server.endpoint(self.clock), creator, self.clock)
        connecting = Connector(settings, lambda _: endpoint, self.clock).connect(ADDRESS)
        self.turn()
        self.clock.advance(3)
        failed = self.failureResultOf(connecting, PyMongoError).value
        self.assertEqual(failed._txmongo_stage, "connect")
        self.assertIn("TLS", str(failed))
        self.turn()
        self.assertEqual(server.received, [])
        self.assertEqual(server.connections, 0)
