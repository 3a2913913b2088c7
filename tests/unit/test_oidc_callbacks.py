"""How callbacks of MONGODB-OIDC are called: in which thread, how long, how often; and what clients may be told."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pymongo import auth_oidc as pymongo_oidc
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.oidc_case import URI, Callback, OIDCCase
from txmongo._auth import AuthenticationFailed
from txmongo._oidc import CallbackFailed, Tokens, is_allowed
from txmongo._oidc_environments import _FileCallback
from txmongo._settings import parse_settings
from txmongo.auth_oidc import OIDCCallback, OIDCCallbackContext, OIDCCallbackResult, OIDCIdPInfo
from txmongo.errors import ConfigurationError


class Blocking(pymongo_oidc.OIDCCallback):
    """As programs write it for PyMongo: it may block.

    :ivar calls: how often it was called.
    """

    def __init__(self, *results: Any) -> None:
        self.calls = 0
        self._results = list(results) or [OIDCCallbackResult("token1")]

    def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> Any:
        self.calls += 1
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        return result


class Asynchronous(pymongo_oidc.OIDCCallback):
    """As programs write it for PyMongo's asynchronous client."""

    async def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> OIDCCallbackResult:  # type: ignore[override]
        return await succeed(OIDCCallbackResult("token1"))


class Inline(pymongo_oidc.OIDCCallback):
    """As programs write it that use Twisted in its old way."""

    @inlineCallbacks
    def fetch(  # type: ignore[override]
        self, context: pymongo_oidc.OIDCCallbackContext
    ) -> Generator[Deferred[Any], Any, OIDCCallbackResult]:
        token = yield succeed("token1")
        return OIDCCallbackResult(token)


class Awaiting(OIDCCallback):
    """The driver's own class, with a coroutine."""

    async def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> OIDCCallbackResult:
        return await succeed(OIDCCallbackResult("token1"))


class WaysTests(OIDCCase):
    """In which thread callbacks are called."""

    def test_in_the_reactor(self) -> None:
        """What says that it does not block is called in the reactor's thread, whatever it gives."""
        deferred = Callback(lambda _: succeed(OIDCCallbackResult("token1")))
        for callback in (Callback(), deferred, Awaiting(), Asynchronous(), Inline()):
            self.successResultOf(self.started(self.machine(callback).db.c.find_one()))
        self.assertEqual(self.clock.waiting, [])

    def test_in_a_thread(self) -> None:
        """What may block is called in a thread, and not before one is free."""
        callback = Blocking()
        found = self.started(self.machine(callback).db.c.find_one())
        self.assertEqual((callback.calls, len(self.clock.waiting)), (0, 1))
        self.clock.run_threads()
        self.turn()
        self.successResultOf(found)
        self.assertEqual(callback.calls, 1)

    def test_deferred_of_a_thread(self) -> None:
        """A Deferred or a coroutine that comes out of a thread is refused, with the advice how to do it."""

        async def coroutine() -> None:
            """Never awaited, and nothing warns of it."""

        for result, named in ((Deferred(), "Deferred"), (coroutine(), "coroutine")):
            error = self.refused(self.machine(Blocking(result)))
            self.assertIn(f"not give a {named}: derive it from txmongo.auth_oidc.OIDCCallback", str(error))
        gc.collect()

    def test_failures(self) -> None:
        """A callback's exception is the cause of the operation's; its own text is not repeated."""
        failing = Callback(lambda _: Deferred.fromCoroutine(_failing()))
        for callback in (failing, Blocking(ValueError("hidden"))):
            error = self.refused(self.machine(callback))
            self.assertIn("the callback failed (ValueError)", str(error))
            self.assertNotIn("hidden", str(error))
            self.assertIsInstance(error.__cause__, ValueError)

    def test_waiting_together(self) -> None:
        """Operations that wait for the same connection all hear why there is none."""
        held: Deferred[Any] = Deferred()
        client = self.machine(Callback(lambda _: held))
        found = [self.started(client.db.c.find_one()) for _ in range(3)]
        held.errback(ValueError("hidden"))
        self.turn()
        for each in found:
            self.assertIn("the callback failed (ValueError)", str(self.failureResultOf(each, AuthenticationFailed)))


async def _failing() -> None:
    raise ValueError("hidden")


class TimeTests(OIDCCase):
    """How long callbacks may take, and when the next one is called."""

    def held(self) -> tuple[Callback, list[Deferred[Any]]]:
        """A callback that waits for the test, and its Deferreds, call by call."""
        held: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []

        def fetch(_: Any) -> Deferred[Any]:
            held.append(Deferred(self.cancelled.append))
            return held[-1]

        return Callback(fetch), held

    def test_machine(self) -> None:
        """A program has a minute, which connectTimeoutMS does not count; then what it does is cancelled."""
        callback, held = self.held()
        found = self.started(self.machine(callback, connectTimeoutMS=5000).db.c.find_one())
        self.clock.advance(59)
        self.turn()
        self.assertNoResult(found)
        self.clock.advance(2)
        self.turn()
        self.assertIn("no token in 60 s", str(self.failureResultOf(found, AuthenticationFailed)))
        self.assertEqual(self.cancelled, held)

    def test_human(self) -> None:
        """A person has five minutes, of which timeoutMS counts for the operation alone."""
        callback, _ = self.held()
        found = self.started(self.human(callback).db.c.find_one())
        self.clock.advance(299)
        self.turn()
        self.assertNoResult(found)
        self.clock.advance(2)
        self.turn()
        self.assertIn("no token in 300 s", str(self.failureResultOf(found, AuthenticationFailed)))
        callback, _ = self.held()
        found = self.started(self.human(callback, timeoutMS=1000).db.c.find_one())
        self.clock.advance(1.5)
        self.turn()
        self.assertTrue(self.failureResultOf(found).value.timeout)
        self.assertEqual(callback.contexts[0].timeout_seconds, 300)

    def test_limited_client(self) -> None:
        """A program has no more than timeoutMS, if that is less; 0 is no limit."""
        for limit, seconds in ((2500, 2.5), (90_000, 60), (0, 60)):
            callback = Callback()
            self.successResultOf(self.started(self.machine(callback, timeoutMS=limit).db.c.find_one()))
            self.assertEqual(callback.contexts[0].timeout_seconds, seconds)

    def test_time_to_connect_goes_on(self) -> None:
        """After the callback the server has the time that was left, and no more."""
        callback, held = self.held()
        waiting: Deferred[Any] = Deferred()
        self.oidc.answer("saslStart", waiting)
        found = self.started(self.machine(callback, connectTimeoutMS=5000).db.c.find_one())
        self.clock.advance(30)
        held[0].callback(OIDCCallbackResult("token1"))
        self.turn()
        self.clock.advance(4.9)
        self.turn()
        self.assertNoResult(found)
        self.clock.advance(0.2)
        self.turn()
        self.assertIn("connectTimeoutMS", str(self.failureResultOf(found).value))

    def test_late_thread(self) -> None:
        """A thread cannot be cancelled: no other call is made before it ends, and what it gives is not lost."""
        callback = Blocking()
        client = self.machine(callback)
        found = self.started(client.db.c.find_one())
        self.clock.advance(61)
        self.turn()
        self.failureResultOf(found, AuthenticationFailed)
        found = self.started(client.db.c.find_one())
        self.clock.advance(10)
        self.turn()
        self.assertNoResult(found)
        self.assertEqual(len(self.clock.waiting), 1)
        self.clock.run_threads()
        self.turn()
        self.successResultOf(found)
        self.assertEqual(callback.calls, 1)

    def test_one_at_a_time(self) -> None:
        """Of connections that need a token at once each waits for the call before its own."""
        callback, held = self.held()
        client = self.machine(callback, pipelining=False, maxConnecting=3)
        found = [self.started(client.db.c.find_one()) for _ in range(3)]
        self.assertEqual(callback.calls, 1)
        held[0].callback(OIDCCallbackResult("token1"))
        self.turn()
        for each in found:
            self.successResultOf(each)
        self.assertEqual(callback.calls, 1)

    def test_pause(self) -> None:
        """After a call that failed, the next is not made for 100 ms."""
        callback = Callback(lambda _: 5, "token1")
        tokens = self.tokens(callback)
        self.failureResultOf(Deferred.fromCoroutine(tokens.get()), CallbackFailed)
        got = Deferred.fromCoroutine(tokens.get())
        self.clock.advance(0.09)
        self.assertEqual(callback.calls, 1)
        self.clock.advance(0.02)
        self.assertEqual(self.successResultOf(got), ("token1", False))

    def test_end_of_the_client(self) -> None:
        """Disconnecting cancels what a callback does, and the pause before one; a thread is left to its end."""
        callback, held = self.held()
        client = self.machine(callback)
        found = self.started(client.db.c.find_one())
        self.successResultOf(self.started(client.disconnect()))
        self.failureResultOf(found)
        self.assertEqual(self.cancelled, held)
        blocking = Blocking()
        client = self.machine(blocking)
        found = self.started(client.db.c.find_one())
        self.successResultOf(self.started(client.disconnect()))
        self.failureResultOf(found)
        self.clock.run_threads()
        pausing = Callback(lambda _: 5)
        client = self.machine(pausing)
        self.failureResultOf(self.started(client.db.c.find_one()))
        found = self.started(client.db.c.find_one())
        self.successResultOf(self.started(client.disconnect()))
        self.failureResultOf(found)
        self.assertEqual(pausing.calls, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_go_on(self) -> None:
        """Where one who waits for the callback is cancelled, the next one calls it."""
        callback, held = self.held()
        tokens = self.tokens(callback)
        one, other = (Deferred.fromCoroutine(tokens.get()) for _ in range(2))
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.assertEqual(self.cancelled, held)
        self.clock.advance(0.2)
        self.assertEqual(callback.calls, 2)
        held[1].callback(OIDCCallbackResult("token1"))
        self.assertEqual(self.successResultOf(other), ("token1", False))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deaf_callback(self) -> None:
        """A Deferred that does not mind being cancelled holds up the next call until its end."""
        held: Deferred[Any] = Deferred(lambda deferred: None)
        held.cancel = lambda: None  # type: ignore[method-assign]
        callback = Callback(lambda _: held)
        tokens = self.tokens(callback)
        one = Deferred.fromCoroutine(tokens.get())
        self.clock.advance(61)
        self.failureResultOf(one, CallbackFailed)
        other = Deferred.fromCoroutine(tokens.get())
        self.clock.advance(1)
        self.assertNoResult(other)
        held.callback(OIDCCallbackResult("token1"))
        self.assertEqual(self.successResultOf(other), ("token1", True))
        self.assertEqual(callback.calls, 1)

    def tokens(self, callback: Any) -> Tokens:
        """Tokens without a client."""
        credentials = parse_settings(URI, authMechanismProperties={"OIDC_CALLBACK": callback}).credentials
        assert credentials is not None
        return Tokens(credentials, self.clock)

    def test_new_conversation(self) -> None:
        """A conversation that begins anew begins without a token for a refresh."""
        callback = Callback()
        properties = {"OIDC_HUMAN_CALLBACK": callback}
        credentials = parse_settings(URI, authMechanismProperties=properties).credentials
        assert credentials is not None
        tokens = Tokens(credentials, self.clock)
        tokens.refresh_token = "refresh"
        idp_info = OIDCIdPInfo(issuer="https://issuer")
        self.successResultOf(Deferred.fromCoroutine(tokens.get(idp_info)))
        (context,) = callback.contexts
        self.assertEqual((context.idp_info, context.refresh_token), (idp_info, None))

    def test_invalidated(self) -> None:
        """A token that was refused is only taken out of the cache if it is the one in there."""
        tokens = self.tokens(Callback())
        self.successResultOf(Deferred.fromCoroutine(tokens.get()))
        for other in (None, "token0"):
            tokens.invalidate(other)
            self.assertEqual(tokens.access_token, "token1")
        tokens.invalidate("token1")
        self.assertIsNone(tokens.access_token)


class SecretTests(OIDCCase):
    """What is shown of tokens."""

    def test_reprs(self) -> None:
        """No text about what is passed to a callback, about what it gives, or about the cache has a token."""
        context = OIDCCallbackContext(timeout_seconds=60, username="me", version=1, refresh_token="hidden")
        result = OIDCCallbackResult("hidden", refresh_token="hidden")
        credentials = parse_settings(URI, authMechanismProperties={"OIDC_CALLBACK": Callback()}).credentials
        assert credentials is not None
        tokens = Tokens(credentials, self.clock)
        tokens.access_token = tokens.refresh_token = "hidden"
        texts = [repr(each) for each in (context, result, tokens, succeed(result))]
        self.assertNotIn("hidden", "".join(texts))
        shown = ["<OIDCCallbackContext version 1, 60 s>", "<OIDCCallbackResult>", "<Tokens, one cached>"]
        self.assertEqual(texts[:3], shown)

    def test_error(self) -> None:
        """The error of a refused token does not show it."""
        error = self.refused(self.machine(Callback("hidden")))
        self.assertNotIn("hidden", repr(error) + str(error.details))


class EnvironmentTests(OIDCCase):
    """Tokens of the environment, from files; those of its services are in the integration tests."""

    def setUp(self) -> None:
        """A file with a token."""
        super().setUp()
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)
        self.file = Path(self.mktemp())
        self.file.write_text("token1\n")

    def of(self, environment: str) -> Any:
        """A client in an environment."""
        uri = f"{URI}&authMechanismProperties=ENVIRONMENT:{environment}"
        return self.client(uri, retryReads=False)

    def test_test(self) -> None:
        """In that of the tests, a variable names the file; it is read in a thread, and read again when it must be."""
        self.environment["OIDC_TOKEN_FILE"] = str(self.file)
        client = self.of("test")
        found = self.started(client.db.c.find_one())
        self.assertNoResult(found)
        self.clock.run_threads()
        self.turn()
        self.successResultOf(found)
        self.file.write_text("token2")
        self.oidc.expire("token2")
        found = self.started(client.db.c.find_one())
        self.clock.advance(0.2)
        self.clock.run_threads()
        self.turn()
        self.successResultOf(found)

    def test_no_file(self) -> None:
        """Without the variable, or the file, the error names it."""
        self.assertIn("OIDC_TOKEN_FILE is not set", str(self.refused(self.of("test"))))
        self.environment["OIDC_TOKEN_FILE"] = "/nowhere/token"
        error = self.refused(self.of("test"))
        self.assertIn("/nowhere/token cannot be read: No such file", str(error))

    def test_kubernetes(self) -> None:
        """In Kubernetes it is the file that Azure or AWS names, else that of the service account."""
        names = ("AZURE_FEDERATED_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
        for set_names in (names, names[:1], names[1:]):
            self.environment.clear()
            self.environment.update(dict.fromkeys(names, "/nowhere/token"))
            self.environment.update({name: "" for name in names if name not in set_names})
            self.environment[set_names[0]] = str(self.file)
            self.find(self.of("k8s"))
        self.environment.clear()
        path = _FileCallback("k8s", self.clock)._path({})
        self.assertEqual(path, "/var/run/secrets/kubernetes.io/serviceaccount/token")


class OptionsTests(SynchronousTestCase):
    """What a client may be told."""

    def refusal(self, uri: str = URI, **properties: Any) -> str:
        """Why settings are refused."""
        keywords = {"authMechanismProperties": properties} if properties else {}
        return str(self.assertRaises(ConfigurationError, parse_settings, uri, **keywords))

    def test_ways(self) -> None:
        """There is one source of tokens and no more."""
        callback = Callback()
        self.assertIn("wants one of ENVIRONMENT, OIDC_CALLBACK and OIDC_HUMAN_CALLBACK", self.refusal())
        for properties in (
            {"OIDC_CALLBACK": callback, "OIDC_HUMAN_CALLBACK": callback},
            {"OIDC_CALLBACK": callback, "ENVIRONMENT": "k8s"},
            {"OIDC_HUMAN_CALLBACK": callback, "ENVIRONMENT": "k8s"},
        ):
            refusal = self.refusal(**properties)
            self.assertIn("cannot be given together", refusal)
            for name in properties:
                self.assertIn(name, refusal)

    def test_no_callback(self) -> None:
        """A callback is an object of PyMongo's class, or of the driver's."""
        for name in ("OIDC_CALLBACK", "OIDC_HUMAN_CALLBACK"):
            refused = self.assertRaises(
                (TypeError, ValueError), parse_settings, URI, authMechanismProperties={name: lambda context: None}
            )
            self.assertIn("authMechanismProperties", str(refused))
            self.assertIn(name, self.refusal(**{name: "callback"}))

    def test_environment(self) -> None:
        """2.4: an environment that is not known is refused, and so is a property of another mechanism."""
        self.assertIn("ENVIRONMENT must be one of azure, gcp, k8s, test", self.refusal(ENVIRONMENT="aws"))
        self.assertIn("PROVIDER_NAME", self.refusal(OIDC_CALLBACK=Callback(), PROVIDER_NAME="aws"))
        self.assertIn("AWS_SESSION_TOKEN", self.refusal(OIDC_CALLBACK=Callback(), AWS_SESSION_TOKEN="token"))

    def test_resource(self) -> None:
        """The resource is wanted by Azure and Google, and by nobody else."""
        for environment in ("azure", "gcp"):
            self.assertIn("TOKEN_RESOURCE is missing", self.refusal(ENVIRONMENT=environment))
        self.assertIn("TOKEN_RESOURCE goes only with", self.refusal(ENVIRONMENT="k8s", TOKEN_RESOURCE="x"))
        self.assertIn("TOKEN_RESOURCE goes only with", self.refusal(OIDC_CALLBACK=Callback(), TOKEN_RESOURCE="x"))

    def test_user(self) -> None:
        """A password is never wanted, a name not by the environment of the tests; the database is $external."""
        callback = {"OIDC_CALLBACK": Callback()}
        uri = "mongodb://me:hidden@h/?authMechanism=MONGODB-OIDC"
        refusal = self.refusal(uri, **callback)
        self.assertIn("password", refusal)
        self.assertNotIn("hidden", refusal)
        self.assertIn("username", self.refusal("mongodb://me@h/?authMechanism=MONGODB-OIDC", ENVIRONMENT="test"))
        self.assertIn("authSource", self.refusal(f"{URI}&authSource=admin", **callback))

    def test_allowed_hosts(self) -> None:
        """Hosts can be allowed for people only, by a list of names; without one, those of MongoDB's services are."""
        human = {"OIDC_HUMAN_CALLBACK": Callback()}
        self.assertIn("ALLOWED_HOSTS goes only", self.refusal(OIDC_CALLBACK=Callback(), ALLOWED_HOSTS=["h"]))
        self.assertIn("must be a list of str", self.refusal(ALLOWED_HOSTS="h", **human))
        self.assertIn("must be a list of str", self.refusal(ALLOWED_HOSTS=[5], **human))
        for host in ("", "*", "*.", "a*.example", "*.*.example"):
            self.assertIn(repr(host), self.refusal(ALLOWED_HOSTS=[host], **human))
        self.assertRaises(
            (TypeError, ValueError), parse_settings, URI, authMechanismProperties={**human, "ALLOWED_HOSTS": ("h",)}
        )
        credentials = parse_settings(URI, authMechanismProperties=human).credentials
        assert credentials is not None
        allowed = set(credentials.mechanism_properties.allowed_hosts)
        services = {f"*.{name}" for name in ("mongodb.net", "mongodb-qa.net", "mongodb-dev.net", "mongodbgov.net")}
        self.assertEqual(allowed, services | {"*.mongo.com", "localhost", "127.0.0.1", "::1"})

    def test_not_in_the_uri(self) -> None:
        """Hosts cannot be allowed by a connection string: who sends one would choose where the token is shown."""
        uri = f"{URI}&authMechanismProperties=ENVIRONMENT:k8s,ALLOWED_HOSTS:evil.example"
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            self.assertRaises(ConfigurationError, parse_settings, uri)
        self.assertIn("ALLOWED_HOSTS", str(seen[0].message))

    def test_is_allowed(self) -> None:
        """A pattern is a host, or all that is below a domain; case and the root's dot do not count."""
        allowed = ["*.mongodb.net", "localhost", "::1"]
        for host in ("a.mongodb.net", "A.b.MongoDB.net", "a.mongodb.net.", "localhost", "::1"):
            self.assertTrue(is_allowed(host, allowed), host)
        for host in ("mongodb.net", "evilmongodb.net", "a.mongodb.net.evil", "localhost.evil", "::11", ""):
            self.assertFalse(is_allowed(host, allowed), host)
