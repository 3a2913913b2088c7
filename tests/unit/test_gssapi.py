"""GSSAPI: what the library is asked for, what is said with it, and what is left of it afterwards."""

from __future__ import annotations

import base64
import sys
from typing import Any
from unittest.mock import patch

from pymongo.server_api import ServerApi
from twisted.internet.defer import Deferred, succeed
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cmap.kerberos_server import KerberosServer, KrbError, Library, wrapped
from tests.unit.cmap.test_connector import ADDRESS, ConnectorTestCase
from tests.unit.threads import ThreadClock
from txmongo._auth import AuthenticationFailed, make_credentials
from txmongo._dns import SystemResolver
from txmongo._gssapi import Kerberos
from txmongo._settings import parse_settings
from txmongo.errors import AutoReconnect, ConfigurationError, NetworkTimeout
from txmongo.protocol import MongoAuthenticationError
from txmongo.testing import Behaviour, FakeServer
from txmongo.types import Address

URI = "mongodb://user%40REALM@h/?authMechanism=GSSAPI"
WHOLE = ["Init", "Step", "Step", "Unwrap", "Wrap", "Clean"]


class GSSAPITestCase(ConnectorTestCase):
    """A clock with threads, and what stands in for the library."""

    def setUp(self) -> None:
        """pykerberos is installed."""
        super().setUp()
        self.clock: ThreadClock = ThreadClock()
        self.library = self.install("kerberos")

    def install(self, name: str | None) -> Library:
        """Have one library, or none."""
        library = Library(name or "")
        modules: dict[str, Any] = {"kerberos": None, "winkerberos": None}
        if name is not None:
            modules[name] = library
        installed = patch.dict(sys.modules, modules)
        installed.start()
        self.addCleanup(installed.stop)
        return library

    def turn(self) -> None:
        """Let all bytes arrive, and every thread come to its end."""
        for _ in range(20):
            super().turn()
            self.clock.run_threads()
        self.assertEqual(self.clock.waiting, [])

    def freed(self) -> None:
        """Every context of the library was freed, once."""
        self.assertNotEqual(self.library.contexts, [])
        self.assertEqual([context.freed for context in self.library.contexts], [True] * len(self.library.contexts))
        self.assertEqual(self.library.called.count("Clean"), len(self.library.contexts))


class ConversationTests(GSSAPITestCase):
    """What is said."""

    def test_authenticated(self) -> None:
        """Client and server show each other who they are, without a security layer, and nothing in the greeting."""
        server = KerberosServer()
        self.connect(server, URI)
        self.assertEqual(server.authenticated, 1)
        names = ["isMaster", "saslStart", "saslContinue", "saslContinue"]
        self.assertEqual([command.name for command in server.received], names)
        self.assertNotIn("speculativeAuthenticate", server.received[0].document)
        self.assertEqual(self.library.called, WHOLE)
        self.assertIsNone(self.library.contexts[0].principal)
        self.freed()

    def test_bytes(self) -> None:
        """Messages of the server may be bytes as well as base64."""
        server = KerberosServer(fault="bytes")
        self.connect(server, URI)
        self.assertEqual(server.authenticated, 1)

    def test_stable_api(self) -> None:
        """The commands of the conversation name the Stable API's version."""
        server = KerberosServer()
        self.connect(server, URI, server_api=ServerApi("1"))
        self.assertEqual([command.document["apiVersion"] for command in server.received], ["1"] * 4)

    def test_several_steps(self) -> None:
        """The library may want more than one message of the server."""
        server = KerberosServer()
        results = [None, 0, 0, None]
        self.library.during["Step"] = lambda: results.pop(0)
        server.answer("saslStart", {"conversationId": 7, "done": False, "payload": ""})
        more = {"conversationId": 7, "done": False, "payload": ""}
        last = {"conversationId": 7, "done": False, "payload": base64.b64encode(wrapped(b"it is me")).decode()}
        server.answer("saslContinue", more, last, server.go_on)
        self.connect(server, URI)
        self.assertEqual(self.library.called, ["Init", *["Step"] * 4, "Unwrap", "Wrap", "Clean"])

    def test_refused(self) -> None:
        """A user that the server does not know is code 18."""
        failed = self.failure(KerberosServer(user="another@REALM"), AuthenticationFailed, "auth", URI)
        self.assertEqual(failed.code, 18)
        self.freed()

    def test_faults(self) -> None:
        """A server that does not keep to the conversation is told as such."""
        for server in (
            KerberosServer(fault="payload"),
            KerberosServer(fault="number"),
            KerberosServer(fault="base64"),
            KerberosServer(fault="unending"),
            KerberosServer(offer=wrapped(b"\x06\x00\xff\xff")),
            KerberosServer(offer=wrapped(b"\x01\x00\xff")),
            KerberosServer(offer=wrapped(b"")),
        ):
            failed = self.failure(server, AutoReconnect, "auth", URI)
            self.assertIn("did not keep to GSSAPI", str(failed))
            self.freed()
            self.assertEqual(server.commands("saslContinue")[2:], [])

    def test_no_end(self) -> None:
        """After ten steps of the library an end is made."""
        results = [None]
        self.library.during["Step"] = lambda: results.pop() if results else 0
        server = KerberosServer()
        server.answer("saslContinue", {"conversationId": 7, "done": False, "payload": ""})
        failed = self.failure(server, AutoReconnect, "auth", URI)
        self.assertIn("does not come to an end", str(failed))
        self.assertEqual(len(server.commands("saslContinue")), 10)
        self.freed()

    def test_impostor(self) -> None:
        """To a server that the library does not trust nothing more is said."""
        server = KerberosServer(fault="impostor")
        failed = self.failure(server, AuthenticationFailed, "auth", URI)
        self.assertEqual(str(failed), "GSSAPI: A token was invalid: Message stream modified")
        self.assertEqual(server.commands("saslContinue"), [])
        self.freed()

    def test_later(self) -> None:
        """The mechanism belongs to the client's making: ``authenticate`` refuses it by name."""
        failed = self.assertRaises(MongoAuthenticationError, make_credentials, "$external", "u", "p", "GSSAPI")
        self.assertIn("when the client is made", str(failed))


class ServiceTests(GSSAPITestCase):
    """What the server is called."""

    def service(self, properties: str, address: Address = ADDRESS, resolver: Any = None) -> str:
        """The name under which its ticket is got."""
        credentials = parse_settings(f"{URI}&authMechanismProperties={properties}").credentials
        assert credentials is not None
        kerberos = Kerberos(credentials, self.clock, resolver)
        said = Deferred.fromCoroutine(kerberos.converse(lambda _: Deferred(), address))
        self.turn()
        self.assertNoResult(said)
        said.cancel()
        self.turn()
        self.failureResultOf(said)
        return self.library.contexts[-1].service

    def test_names(self) -> None:
        """It is a service on a host; a realm makes the name one of Kerberos in full."""
        for properties, service in (
            ("SERVICE_NAME:mongo", "mongo@db.example"),
            ("SERVICE_HOST:other.example", "mongodb@other.example"),
            ("SERVICE_REALM:REALM", "mongodb/db.example@REALM"),
            ("SERVICE_NAME:m,SERVICE_HOST:h,SERVICE_REALM:R,CANONICALIZE_HOST_NAME:none", "m/h@R"),
        ):
            self.assertEqual(self.service(properties), service)
        self.freed()

    def test_canonical(self) -> None:
        """The name of the host may be looked up."""

        class Resolver(SystemResolver):
            def _look_up(self, method: str, name: str, timeout: Any) -> Deferred[Any]:
                records = {
                    "lookupAddress": dns.Record_A("192.0.2.1"),
                    "lookupPointer": dns.Record_PTR("Back.Example"),
                }
                alias = dns.RRHeader(name, dns.CNAME, dns.IN, 60, dns.Record_CNAME("Alias.Example"))
                record = records[method]
                return succeed(([alias, dns.RRHeader(name, record.TYPE, dns.IN, 60, record)], [], []))

        resolver = Resolver(self.clock)
        for mode, service in (
            ("none", "mongodb@db.example"),
            ("false", "mongodb@db.example"),
            ("forward", "mongodb@alias.example"),
            ("forwardAndReverse", "mongodb@back.example"),
            ("true", "mongodb@back.example"),
        ):
            self.assertEqual(self.service(f"CANONICALIZE_HOST_NAME:{mode}", ADDRESS, resolver), service)

    def test_unix_socket(self) -> None:
        """At a UNIX socket there is no host to name."""
        path = ("/tmp/mongodb-27017.sock", None)
        self.assertEqual(self.service("SERVICE_HOST:db.example", path), "mongodb@db.example")
        self.assertEqual(self.library.called, ["Init", "Step", "Clean"])
        connecting = self.connector(KerberosServer(), URI).connect(path)
        self.turn()
        self.assertIn("SERVICE_HOST", str(self.failureResultOf(connecting, ConfigurationError).value))


class LibraryTests(GSSAPITestCase):
    """What the library is given, and what it fails with."""

    def test_none(self) -> None:
        """Without a library the error says what to install."""
        self.install(None)
        failed = self.failure(KerberosServer(), ConfigurationError, "auth", URI)
        self.assertIn("txmongo[gssapi]", str(failed))

    def test_password(self) -> None:
        """pykerberos takes no password, and none is shown."""
        failed = self.failure(KerberosServer(), ConfigurationError, "auth", URI, password="hidden")
        self.assertIn("kinit", str(failed))
        self.assertNotIn("hidden", repr(failed))
        self.assertEqual(self.library.called, [])

    def test_windows(self) -> None:
        """winkerberos is given name and password, quoted; without a password it takes those of who is logged in."""
        self.library = self.install("winkerberos")
        self.connect(KerberosServer(), URI, password="pass w/:rd+")
        self.assertEqual(self.library.contexts[0].principal, "user%40REALM:pass%20w%2F%3Ard%2B")
        self.connect(KerberosServer(), URI)
        self.assertIsNone(self.library.contexts[1].principal)
        self.freed()

    def test_long_name(self) -> None:
        """A name for which pykerberos has no room is refused."""
        failed = self.failure(KerberosServer(), ConfigurationError, "auth", URI, username="u" * 4001)
        self.assertIn("4000", str(failed))
        self.assertEqual(self.library.called, [])

    def test_errors(self) -> None:
        """What the library says is in the error; what others say, or a result says, is not."""

        def fail(error: Exception) -> Any:
            raise error

        for function in ("Init", "Step", "Unwrap", "Wrap"):
            for during, text in (
                (lambda: fail(KrbError(("No Kerberos credentials available", -1765328243))), "No Kerberos credentials"),
                (lambda: fail(KrbError("The logon attempt failed")), "GSSAPI: The logon attempt failed"),
                (lambda: fail(TypeError("hidden")), "GSSAPI: TypeError"),
                (lambda: -1, "does not say why"),
            ):
                self.library = self.install("kerberos")
                self.library.during[function] = during
                failed = self.failure(KerberosServer(), AuthenticationFailed, "auth", URI)
                self.assertIn(text, str(failed))
                self.assertNotIn("hidden", repr(failed) + repr(failed.__cause__))
                self.assertEqual(self.library.called[-2 if function != "Init" else 0], function)
                self.assertEqual(self.library.called.count("Clean"), 0 if self.init_raised(function, text) else 1)

    def test_error_of_a_later_step(self) -> None:
        """The answer to the server may be an error that is returned as well."""
        results = [None, -1]
        self.library.during["Step"] = lambda: results.pop(0)
        server = KerberosServer()
        failed = self.failure(server, AuthenticationFailed, "auth", URI)
        self.assertIn("does not say why", str(failed))
        self.assertEqual(server.commands("saslContinue"), [])
        self.freed()

    def init_raised(self, function: str, text: str) -> bool:
        """Then there is no context to free."""
        return function == "Init" and "does not say" not in text


class ThreadTests(GSSAPITestCase):
    """The library may block, and go on when nobody waits for it any more."""

    def begin(self, server: FakeServer) -> Deferred[Any]:
        """Connect, up to the first call of a thread."""
        connecting = self.connector(server, f"{URI}&connectTimeoutMS=5000").connect(ADDRESS)
        ConnectorTestCase.turn(self)
        self.assertEqual(self.library.called, [])
        return connecting

    def clean(self, server: FakeServer) -> None:
        """Nothing is left, and nothing more was said to the server."""
        said = len(server.received)
        self.turn()
        self.assertEqual((server.connections, len(server.received)), (0, said))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_before(self) -> None:
        """A call that no thread had taken up when the attempt was cancelled is not made."""
        for threads in range(4):
            self.library = self.install("kerberos")
            server = KerberosServer()
            connecting = self.begin(server)
            for _ in range(threads):
                self.clock.run_threads()
                ConnectorTestCase.turn(self)
            called = list(self.library.called)
            connecting.cancel()
            self.failureResultOf(connecting)
            self.clean(server)
            self.assertEqual(self.library.called, [*called, *(["Clean"] if called else [])])

    def test_cancelled_during(self) -> None:
        """What a thread works on is freed when it is done, and its result is nobody's."""
        for function, called in (
            ("Init", ["Init", "Step", "Clean"]),
            ("Step", ["Init", "Step", "Clean"]),
            ("Unwrap", ["Init", "Step", "Step", "Unwrap", "Wrap", "Clean"]),
            ("Wrap", ["Init", "Step", "Step", "Unwrap", "Wrap", "Clean"]),
        ):
            self.library = self.install("kerberos")
            server = KerberosServer()
            connecting = self.begin(server)
            self.library.during[function] = connecting.cancel
            self.turn()
            self.failureResultOf(connecting)
            self.clean(server)
            self.assertEqual(self.library.called, called)
            self.assertEqual(server.authenticated, 0)

    def test_too_late(self) -> None:
        """The time to connect counts that of the library."""
        server = KerberosServer()
        connecting = self.begin(server)
        self.library.during["Step"] = lambda: self.clock.advance(5)
        self.turn()
        failed = self.failureResultOf(connecting, NetworkTimeout).value
        self.assertIn("authentication was not over", str(failed))
        self.clean(server)
        self.assertEqual(self.library.called, ["Init", "Step", "Clean"])

    def test_error_too_late(self) -> None:
        """Nor is an error of the library anybody's then."""
        server = KerberosServer()
        connecting = self.begin(server)

        def fail() -> None:
            connecting.cancel()
            raise KrbError("too late")

        self.library.during["Step"] = fail
        self.turn()
        self.failureResultOf(connecting)
        self.clean(server)
        self.freed()

    def test_lost_meanwhile(self) -> None:
        """A connection that is lost while a thread works is told as such, when the thread is done."""
        server = KerberosServer()
        connecting = self.begin(server)
        server.hang_up()
        self.turn()
        self.failureResultOf(connecting, AutoReconnect)
        self.clean(server)
        self.freed()

    def test_lost_by_the_server(self) -> None:
        """So is one that the server closes instead of answering."""
        server = KerberosServer()
        server.answer("saslContinue", Behaviour.HANG_UP)
        failed = self.failure(server, AutoReconnect, "auth", URI)
        self.assertIn("closed during authentication", str(failed))
        self.freed()


class OptionsTests(SynchronousTestCase):
    """What a client may be told of GSSAPI."""

    def refusal(self, uri: str, kind: type[Exception] = ConfigurationError, **keywords: Any) -> str:
        """Why settings are refused."""
        refused = self.assertRaises(kind, parse_settings, uri, **keywords)
        self.assertNotIn("hidden", str(refused))
        return str(refused)

    def test_missing(self) -> None:
        """There must be a name."""
        self.assertIn("username", self.refusal("mongodb://h/?authMechanism=GSSAPI"))

    def test_foreign(self) -> None:
        """What belongs to another mechanism, or to another database, is refused by name."""
        properties = {"AWS_SESSION_TOKEN": "hidden"}
        self.assertIn("AWS_SESSION_TOKEN", self.refusal(URI, authMechanismProperties=properties))
        self.assertIn("$external", self.refusal(URI, ValueError, authSource="admin"))
        self.assertIn(
            "CANONICALIZE_HOST_NAME",
            self.refusal(f"{URI}&authMechanismProperties=CANONICALIZE_HOST_NAME:x", ValueError),
        )

    def test_hidden(self) -> None:
        """No text about settings shows the password."""
        self.assertNotIn("hidden", repr(parse_settings(URI, password="hidden")))
