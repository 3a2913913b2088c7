"""MONGODB-OIDC as applications meet it: clients of a server that checks tokens, on a clock that the test moves.

The numbers are those of the Authentication specification's prose tests; ``H`` stands before those of its human flow.
"""

from __future__ import annotations

import base64
from typing import Any

from pymongo import auth_oidc as pymongo_oidc
from pymongo.server_api import ServerApi
from twisted.internet.defer import Deferred, gatherResults

from tests.unit.cmap.oidc_server import IDP_INFO, OIDCServer
from tests.unit.oidc_case import URI, Callback, Listener, OIDCCase
from txmongo._oidc import OIDCConversation, Tokens
from txmongo._settings import parse_settings
from txmongo.auth_oidc import OIDCCallbackContext, OIDCCallbackResult
from txmongo.errors import AutoReconnect, ConfigurationError


class MachineTests(OIDCCase):
    """Tokens that a program gets."""

    def test_called(self) -> None:
        """1.1: the callback is called for the first connection."""
        callback = Callback()
        self.find(self.machine(callback))
        self.assertEqual(callback.calls, 1)
        self.assertEqual(self.oidc.shown, [("saslStart", "token1")])

    def test_many_connections(self) -> None:
        """1.2: connections that are made at once and later share what one call gave."""
        held: list[Deferred[Any]] = []
        callback = Callback(lambda _: held.append(Deferred()) or held[-1])
        client = self.machine(callback, pipelining=False, maxConnecting=10)
        found = self.started(gatherResults([client.db.c.find_one() for _ in range(10)]))
        self.assertEqual(len(held), 1)
        held[0].callback(callback.result("token1"))
        self.turn()
        self.successResultOf(found)
        for _ in range(10):
            self.successResultOf(self.started(gatherResults([client.db.c.find_one() for _ in range(100)])))
        self.assertEqual(callback.calls, 1)
        self.assertEqual({token for _, token in self.oidc.shown}, {"token1"})

    def test_told(self) -> None:
        """2.1: the callback is told its time, its version and the user, and no more."""
        callback = Callback()
        self.find(self.machine(callback, "mongodb://me@fake.example/?authMechanism=MONGODB-OIDC"))
        (context,) = callback.contexts
        self.assertIsInstance(context, OIDCCallbackContext)
        self.assertEqual((context.timeout_seconds, context.version, context.username), (60, 1, "me"))
        self.assertEqual((context.refresh_token, context.idp_info), (None, None))

    def test_no_result(self) -> None:
        """2.2, 2.3: a callback that gives something else, or a part, is told so, and asked again the next time."""
        for result, named in (
            (lambda _: None, "OIDCCallbackResult, not NoneType"),
            (lambda _: {"access_token": "token"}, "not dict"),
            (lambda _: OIDCCallbackResult(""), "access_token"),
            (lambda _: OIDCCallbackResult(None), "access_token"),  # type: ignore[arg-type]
            (lambda _: OIDCCallbackResult("token", expires_in_seconds=-1), "expires_in_seconds"),
            (lambda _: OIDCCallbackResult("token", expires_in_seconds="1"), "expires_in_seconds"),  # type: ignore[arg-type]
            (lambda _: OIDCCallbackResult("token", refresh_token=5), "refresh_token"),  # type: ignore[arg-type]
        ):
            callback = Callback(result, "token1")
            client = self.machine(callback)
            self.assertIn(named, str(self.refused(client)))
            self.find(client)
            self.assertEqual(callback.calls, 2)

    def test_result(self) -> None:
        """A token whose time is known, or has no end, is taken; PyMongo's class does as well."""
        for result in (
            OIDCCallbackResult("token", expires_in_seconds=0),
            pymongo_oidc.OIDCCallbackResult("token", expires_in_seconds=3.5, refresh_token="refresh"),
        ):
            self.find(self.machine(Callback(result)))

    def test_refused_from_the_cache(self) -> None:
        """3.1: a cached token that the server does not take any more is replaced, 100 ms later."""
        callback = Callback()
        client = self.machine(callback, pipelining=False)
        self.find(client)
        self.oidc.expire("token2")
        self.oidc.hang_up()
        self.turn()
        self.clock.advance(10)
        asked = self.started(client.db.c.find_one())
        self.clock.advance(0.09)
        self.turn()
        self.assertEqual(callback.calls, 1)
        self.clock.advance(0.02)
        self.turn()
        self.successResultOf(asked)
        self.assertEqual(callback.calls, 2)
        # The greeting does not count as a refusal.
        shown = [("saslStart", "token1"), ("hello", "token1"), ("saslStart", "token1"), ("saslStart", "token2")]
        self.assertEqual(self.oidc.shown, shown)

    def test_refused(self) -> None:
        """3.2: a new token that the server does not take is the operation's error."""
        callback = Callback("wrong")
        error = self.refused(self.machine(callback))
        self.assertEqual(error.code, 18)
        self.assertEqual(callback.calls, 1)

    def test_unexpected_code(self) -> None:
        """3.3: another error than that of a wrong token leaves the token in the cache."""
        callback = Callback()
        client = self.machine(callback)
        self.oidc.fail("saslStart", code=20)
        self.assertEqual(self.refused(client).code, 20)
        self.assertEqual(callback.calls, 1)
        self.find(client)
        self.assertEqual(callback.calls, 1)

    def test_reauthentication(self) -> None:
        """4: an operation for which the server wants a new token succeeds with one, on the connection that it had."""
        callback = Callback()
        client = self.machine(callback)
        self.find(client)
        self.oidc.fail("find")
        self.find(client)
        self.assertEqual(callback.calls, 2)
        self.assertEqual(self.oidc.names()[-3:], ["find", "saslStart", "find"])
        self.assertEqual({command.connection for command in self.oidc.received[-3:]}, {2})

    def test_bytes(self) -> None:
        """The conversation of one step is what the specification shows."""
        self.oidc.valid.add("abcd1234")
        self.find(self.machine(Callback("abcd1234")))
        (start,) = self.oidc.commands("saslStart")
        self.assertEqual(base64.b64encode(start["payload"]), b"FwAAAAJqd3QACQAAAGFiY2QxMjM0AAA=")

    def test_speculative(self) -> None:
        """With a token in the cache the greeting is enough; a server without that is shown the token afterwards."""
        callback = Callback()
        for server, expected in (
            (OIDCServer(), [("saslStart", "token1"), ("hello", "token1")]),
            (OIDCServer(speculative=False), [("saslStart", "token2"), ("hello", "token2"), ("saslStart", "token2")]),
        ):
            self.servers["fake.example"] = self.oidc = server
            client = self.machine(callback)
            self.find(client)
            server.hang_up()
            self.turn()
            self.find(client)
            self.assertEqual(server.shown, expected)

    def test_impostor(self) -> None:
        """A server that does not keep to the conversation is told as such."""
        self.servers["fake.example"] = OIDCServer(fault="unending")
        self.assertIn("did not keep to MONGODB-OIDC", str(self.refused(self.machine(Callback()), AutoReconnect)))

    def test_any_host(self) -> None:
        """What a program shows may be shown to any server."""
        self.servers["elsewhere.example"] = self.oidc
        self.find(self.machine(Callback(), "mongodb://elsewhere.example/?authMechanism=MONGODB-OIDC"))

    def test_stable_api(self) -> None:
        """The commands of the conversation name the Stable API's version."""
        self.find(self.machine(Callback(), server_api=ServerApi("1")))
        self.assertEqual(self.oidc.commands("saslStart")[0]["apiVersion"], "1")


class HumanTests(OIDCCase):
    """Tokens that a person gets."""

    def test_one_provider(self) -> None:
        """H1.1, H2.1: the server names the provider, of which the callback is told, as the specification shows it."""
        self.oidc.valid.add("abcd1234")
        callback = Callback("abcd1234")
        self.find(self.human(callback))
        (context,) = callback.contexts
        info = context.idp_info
        assert info is not None
        self.assertEqual(
            {"issuer": info.issuer, "clientId": info.clientId, "requestScopes": info.requestScopes}, IDP_INFO
        )
        self.assertEqual((context.timeout_seconds, context.version), (300, 1))
        self.assertEqual((context.username, context.refresh_token), ("", None))
        start, going_on = (self.oidc.commands(name)[0] for name in ("saslStart", "saslContinue"))
        self.assertEqual(start["payload"], b"\x05\0\0\0\0")
        self.assertEqual(base64.b64encode(going_on["payload"]), b"FwAAAAJqd3QACQAAAGFiY2QxMjM0AAA=")
        self.assertEqual(self.oidc.shown, [("saslContinue", "abcd1234")])

    def test_principals(self) -> None:
        """H1.2 to H1.5: the user's name says which provider is meant; where there are several, it must be given."""
        providers = {"myidp": IDP_INFO, "other": {"issuer": "https://other"}}
        self.servers["fake.example"] = self.oidc = OIDCServer(providers=providers)
        for name in providers:
            callback = Callback()
            self.find(self.human(callback, f"mongodb://{name}@fake.example/?authMechanism=MONGODB-OIDC"))
            info = callback.contexts[0].idp_info
            assert info is not None
            self.assertEqual(info.issuer, providers[name]["issuer"])
            self.assertEqual(callback.contexts[0].username, name)
        self.assertEqual(info.clientId, None)
        payload = self.oidc.commands("saslStart")[0]["payload"]
        self.assertEqual(base64.b64encode(payload), b"EgAAAAJuAAYAAABteWlkcAAA")
        callback = Callback()
        self.assertEqual(self.refused(self.human(callback)).code, 18)
        self.assertEqual(callback.calls, 0)

    def test_allowed_hosts(self) -> None:
        """H1.6: a server that is not allowed is shown nothing, and nobody is asked."""
        callback = Callback()
        for client in (
            self.human(callback, hosts=[]),
            self.human(callback, hosts=["example.com"]),
            self.client(URI, authMechanismProperties={"OIDC_HUMAN_CALLBACK": callback}, retryReads=False),
        ):
            error = self.refused(client, ConfigurationError)
            self.assertIn("fake.example", str(error))
            self.assertIn("ALLOWED_HOSTS", str(error))
        self.assertEqual((callback.calls, self.oidc.commands("saslStart")), (0, []))

    def test_allowed_hosts_and_the_cache(self) -> None:
        """A cached token is not shown to a host that is not allowed, in the greeting neither."""
        callback = Callback()
        credentials = parse_settings(
            URI, authMechanismProperties={"OIDC_HUMAN_CALLBACK": callback, "ALLOWED_HOSTS": ["good.example"]}
        ).credentials
        assert credentials is not None
        tokens = Tokens(credentials, self.clock)
        tokens.access_token = "token1"
        self.assertIsNone(OIDCConversation(credentials, tokens, ("bad.example", 27017)).speculative_command())
        self.assertIsNotNone(OIDCConversation(credentials, tokens, ("good.example", 27017)).speculative_command())

    def test_no_result(self) -> None:
        """H2.2: a callback that gives something else is told so."""
        self.assertIn("not NoneType", str(self.refused(self.human(Callback(lambda _: None)))))

    def test_refresh(self) -> None:
        """H2.3: the token for a refresh is given to the next call, once, with what is known of the provider."""
        callback = Callback(refresh="refresh")
        client = self.human(callback)
        self.find(client)
        self.oidc.fail("find")
        self.find(client)
        self.assertEqual([context.refresh_token for context in callback.contexts], [None, "refresh"])
        self.assertIsNotNone(callback.contexts[1].idp_info)
        self.assertEqual(self.oidc.shown, [("saslContinue", "token1"), ("saslStart", "token2")])

    def test_speculative(self) -> None:
        """H3.1: with a token in the cache nothing follows on the greeting."""
        callback = Callback()
        client = self.human(callback)
        self.find(client)
        self.oidc.fail("find", code=0)
        self.refused(client, AutoReconnect)
        self.oidc.fail("saslStart", code=18)
        self.find(client)
        self.assertEqual(callback.calls, 1)

    def test_nothing_to_speculate(self) -> None:
        """H3.2: without a token in the cache the greeting says nothing of it."""
        callback = Callback()
        self.oidc.fail("saslStart", code=18)
        self.assertEqual(self.refused(self.human(callback)).code, 18)
        self.assertEqual(callback.calls, 0)

    def test_reauthentication(self) -> None:
        """H4.1: listeners see the operation fail, and succeed; nothing of the conversation, and no token."""
        callback = Callback(refresh="secretRefresh")
        listener = Listener()
        client = self.human(callback, event_listeners=[listener])
        self.find(client)
        self.assertEqual(callback.calls, 1)
        listener.seen.clear()
        self.oidc.fail("find")
        self.find(client)
        self.assertEqual(callback.calls, 2)
        expected = [("started", "find"), ("failed", "find"), ("started", "find"), ("succeeded", "find")]
        self.assertEqual(listener.seen, expected)
        for secret in ("token1", "token2", "secretRefresh"):
            self.assertNotIn(secret, listener.texts)

    def test_without_refresh(self) -> None:
        """H4.2: without a token for a refresh the whole conversation begins anew."""
        callback = Callback()
        client = self.human(callback)
        self.find(client)
        self.oidc.fail("find")
        self.find(client)
        self.assertEqual(callback.calls, 2)
        self.assertEqual(self.oidc.shown, [("saslContinue", "token1"), ("saslContinue", "token2")])

    def test_refresh_refused(self) -> None:
        """H4.3: where the refreshed token is refused, the whole conversation follows, without a refresh."""
        callback = Callback(refresh="refresh")
        client = self.human(callback)
        self.find(client)
        self.oidc.fail("find", "saslStart", times=2)
        self.find(client)
        self.assertEqual([context.refresh_token for context in callback.contexts], [None, "refresh", None])

    def test_refresh_fails(self) -> None:
        """So it is where the callback fails with the token for a refresh."""

        def fetch(context: pymongo_oidc.OIDCCallbackContext) -> Any:
            if context.refresh_token:
                raise ValueError("expired")
            return OIDCCallbackResult("token", refresh_token="refresh")

        callback = Callback(fetch)
        client = self.human(callback)
        self.find(client)
        self.oidc.fail("find")
        self.find(client)
        self.assertEqual([context.refresh_token for context in callback.contexts], [None, "refresh", None])

    def test_fails(self) -> None:
        """H4.4: where all is refused, so is the operation."""
        callback = Callback(refresh="refresh")
        client = self.human(callback)
        self.find(client)
        self.oidc.fail("find", "saslStart", times=3)
        self.assertEqual(self.refused(client).code, 391)
        self.assertEqual(callback.calls, 2)

    def test_cached_token(self) -> None:
        """A server that takes no part in that is shown the cached token after the greeting."""
        self.servers["fake.example"] = self.oidc = OIDCServer(speculative=False)
        callback = Callback()
        client = self.human(callback)
        self.find(client)
        self.oidc.hang_up()
        self.turn()
        self.find(client)
        self.assertEqual(callback.calls, 1)
        self.assertEqual(self.oidc.shown[1:], [("hello", "token1"), ("saslStart", "token1")])

    def test_cached_token_refused(self) -> None:
        """A cached token that a new connection is refused with is replaced by a refresh."""
        callback = Callback(refresh="refresh")
        client = self.human(callback)
        self.find(client)
        self.oidc.expire("token2")
        self.oidc.hang_up()
        self.turn()
        self.find(client)
        self.assertEqual([context.refresh_token for context in callback.contexts], [None, "refresh"])

    def test_impostor(self) -> None:
        """A server that does not say who the provider is does not keep to the conversation."""
        self.servers["fake.example"] = OIDCServer(fault="payload")
        self.assertIn("did not keep to MONGODB-OIDC", str(self.refused(self.human(Callback()), AutoReconnect)))
