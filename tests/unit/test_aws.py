"""MONGODB-AWS without a connection: Signature Version 4, the two messages, and where keys come from."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from types import ModuleType
from typing import Any
from unittest.mock import patch

import attrs
import bson
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.threads import ThreadClock
from txmongo._aws import AWSKeys, KeysNotFound, KeySource, SignedRequest, first_message, region_of, second_message
from txmongo._settings import parse_settings
from txmongo.errors import ConfigurationError, ProtocolError

KEYS = AWSKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NONCE = bytes(range(32))
#: Of the published tests' post-sts-token.
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx"
    "7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d"
    "+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


class SignatureTests(SynchronousTestCase):
    """Signature Version 4."""

    def test_published(self) -> None:
        """The signatures are those of AWS's test suite: get-vanilla, post-vanilla, a form, and a session token."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for method, headers, body, names, signature in (
            ("GET", {}, b"", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", {}, b"", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "POST",
                form,
                b"Param1=value1",
                "content-type;",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "POST",
                {"X-Amz-Security-Token": TOKEN},
                b"",
                "",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ):
            headers = {"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z", **headers}
            request = SignedRequest(method, "/", headers, body, "us-east-1", "service")
            after = ";x-amz-security-token" if "X-Amz-Security-Token" in headers else ""
            self.assertEqual(
                request.authorization(KEYS),
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
                f"SignedHeaders={names}host;x-amz-date{after}, Signature={signature}",
            )

    def test_spaces(self) -> None:
        """Spaces around a header's value do not count, and several within it are one."""
        plain = {"Host": "h", "X-Amz-Date": "20150830T123600Z", "X-A": "a b"}
        spaced = {**plain, "X-A": "  a   b "}
        one, other = (SignedRequest("GET", "/", each, b"", "r", "s").authorization(KEYS) for each in (plain, spaced))
        self.assertEqual(one, other)


class MessageTests(SynchronousTestCase):
    """What the client says."""

    def second(self, keys: AWSKeys = KEYS, **answer: Any) -> dict[str, Any]:
        """The answer to a server's first message."""
        said = {"s": bytes(range(64)), "h": "sts.us-west-2.amazonaws.com", **answer}
        return bson.decode(second_message(NONCE, bson.encode(said), keys, datetime(2019, 11, 7, 0, 26, 7)))

    def test_first(self) -> None:
        """The nonce and the flag, as the specification encodes them."""
        self.assertEqual(first_message(NONCE), b"\x34\0\0\0\x05r\0\x20\0\0\0\0" + NONCE + b"\x10p\0\x6e\0\0\0\0")

    def test_second(self) -> None:
        """The signatures are those that botocore's signer makes of the same request, without and with a token."""
        scope = "AKIDEXAMPLE/20191107/us-west-2/sts/aws4_request"
        before = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=content-length;content-type;host;x-amz-date;"
        after = "x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, Signature="
        self.assertEqual(
            self.second(),
            {
                "a": before + after + "22a76a420cd80aff0fe60c7fb47a9c286251e19f855b94a768505caaf726e357",
                "d": "20191107T002607Z",
            },
        )
        self.assertEqual(
            self.second(attrs.evolve(KEYS, session_token="session+token/==")),
            {
                "a": before
                + "x-amz-security-token;"
                + after
                + "c6bed75341bf5d680680ee040591bfd5a29c1e32eed0a0aaa455910d3ff6f230",
                "d": "20191107T002607Z",
                "t": "session+token/==",
            },
        )

    def test_nonce(self) -> None:
        """A server's nonce that is too short, too long, or does not begin with the client's is refused."""
        for nonce in (NONCE, bytes(range(63)), bytes(range(65)), b"\x01" + bytes(range(1, 64)), b""):
            self.assertRaises(ProtocolError, self.second, s=nonce)

    def test_region(self) -> None:
        """Which region a host is in: the table of the specification."""
        for host, region in (
            ("sts.amazonaws.com", "us-east-1"),
            ("aws.amazonaws.com", "us-east-1"),
            ("sts.us-west-2.amazonaws.com", "us-west-2"),
            ("sts.us-west-2.amazonaws.com.ch", "us-west-2"),
            ("example.com", "com"),
            ("localhost", "us-east-1"),
            ("a" * 255, "us-east-1"),
        ):
            self.assertEqual(region_of(host), region)

    def test_no_host(self) -> None:
        """What is no host is refused."""
        for host in ("sts..com", ".amazonaws.com", "sts.amazonaws.", "", "a" * 256, "\u00e4" * 128, 5, None):
            self.assertRaises(ProtocolError, self.second, h=host)


@attrs.frozen
class Library:
    """What stands in for botocore, whose services are not there: its session, and what that finds."""

    found: list[Any]

    def get_session(self) -> Library:
        """A session."""
        return self

    def get_credentials(self) -> Any:
        """What is found next; raised, if it is an error."""
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@attrs.define
class Found:
    """Credentials of botocore's, which renew themselves."""

    now: Any

    def get_frozen_credentials(self) -> Any:
        """As they are now."""
        return self.now


@attrs.frozen
class Frozen:
    """Credentials at a moment."""

    access_key: str
    secret_key: str
    token: str | None


class KeySourceTests(SynchronousTestCase):
    """Where keys come from."""

    def setUp(self) -> None:
        """No keys in the environment, and no botocore."""
        self.clock = ThreadClock()
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)
        self.library(None)

    def library(self, library: Library | None) -> None:
        """Have this found for botocore, or nothing."""
        module: Any = None
        if library is not None:
            module = ModuleType("botocore.session")
            module.get_session = library.get_session
        package: Any = None if library is None else ModuleType("botocore")
        installed = patch.dict(sys.modules, {"botocore": package, "botocore.session": module})
        installed.start()
        self.addCleanup(installed.stop)

    def source(self, uri: str = "mongodb://h/?authMechanism=MONGODB-AWS", **keywords: Any) -> KeySource:
        """The keys of a client."""
        credentials = parse_settings(uri, **keywords).credentials
        assert credentials is not None
        return KeySource(credentials, self.clock)

    def keys(self, source: KeySource) -> Deferred[AWSKeys]:
        """Ask for them; what has to be done in a thread is done."""
        asked = Deferred.fromCoroutine(source.keys())
        self.clock.run_threads()
        return asked

    def refusal(self, source: KeySource) -> str:
        """Why there are none."""
        return str(self.failureResultOf(self.keys(source), ConfigurationError).value)

    def test_given(self) -> None:
        """Keys in the options come before those in the environment; with their token, if there is one."""
        self.environment.update(AWS_ACCESS_KEY_ID="other", AWS_SECRET_ACCESS_KEY="other", AWS_SESSION_TOKEN="other")
        uri = "mongodb://key:secret@h/?authMechanism=MONGODB-AWS"
        self.assertEqual(self.successResultOf(self.keys(self.source(uri))), AWSKeys("key", "secret"))
        token = "&authMechanismProperties=AWS_SESSION_TOKEN:to%2Bken"
        self.assertEqual(self.successResultOf(self.keys(self.source(uri + token))), AWSKeys("key", "secret", "to+ken"))

    def test_environment(self) -> None:
        """The environment is read each time: another part of the application may renew what stands there."""
        source = self.source()
        self.environment.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
        self.assertEqual(self.successResultOf(self.keys(source)), AWSKeys("key", "secret"))
        self.environment.update(AWS_SECRET_ACCESS_KEY="new", AWS_SESSION_TOKEN="token")
        self.assertEqual(self.successResultOf(self.keys(source)), AWSKeys("key", "new", "token"))

    def test_part_of_the_environment(self) -> None:
        """A part of the keys is none, and what is missing is named."""
        for part, missing in (
            ({"AWS_ACCESS_KEY_ID": "key"}, "AWS_SECRET_ACCESS_KEY missing"),
            ({"AWS_SECRET_ACCESS_KEY": "hidden"}, "AWS_ACCESS_KEY_ID missing"),
            ({"AWS_SESSION_TOKEN": "hidden"}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY missing"),
        ):
            self.environment.clear()
            self.environment.update(part)
            refusal = self.refusal(self.source())
            self.assertIn(missing, refusal)
            self.assertNotIn("hidden", refusal)

    def test_without_library(self) -> None:
        """Without keys and without botocore, the error says what to set and what to install."""
        refusal = self.refusal(self.source())
        for part in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "txmongo[aws]"):
            self.assertIn(part, refusal)

    def test_library(self) -> None:
        """What botocore finds is kept and asked again, in a thread, and goes before the environment from then on."""
        found = Found(Frozen("key", "secret", "token"))
        self.library(Library([found]))
        source = self.source()
        asked = Deferred.fromCoroutine(source.keys())
        self.assertNoResult(asked)
        self.clock.run_threads()
        self.assertEqual(self.successResultOf(asked), AWSKeys("key", "secret", "token"))
        found.now = Frozen("renewed", "secret", None)
        self.environment.update(AWS_ACCESS_KEY_ID="other", AWS_SECRET_ACCESS_KEY="other")
        self.assertEqual(self.successResultOf(self.keys(source)), AWSKeys("renewed", "secret"))

    def test_forgotten(self) -> None:
        """Keys that the server did not accept are found anew."""
        self.library(Library([Found(Frozen("one", "secret", None)), Found(Frozen("other", "secret", None))]))
        source = self.source()
        self.assertEqual(self.successResultOf(self.keys(source)).access_key, "one")
        source.forget()
        self.assertEqual(self.successResultOf(self.keys(source)).access_key, "other")

    def test_library_finds_none(self) -> None:
        """Where botocore finds nothing, or fails, the error says so; what it quotes is not in the text."""
        self.library(Library([None, OSError("hidden")]))
        source = self.source()
        self.assertIn("nor had from", self.refusal(source))
        refusal = self.failureResultOf(self.keys(source), KeysNotFound).value
        self.assertIn("botocore could not get keys (OSError)", str(refusal))
        self.assertNotIn("hidden", str(refusal))

    def test_secrets_hidden(self) -> None:
        """Neither the secret nor the token is in a text about the keys or about the request."""
        keys = AWSKeys("key", "hidden", "hidden")
        request = SignedRequest("GET", "/", {"X-Amz-Security-Token": "hidden"}, b"", "r", "s")
        self.assertNotIn("hidden", repr(keys) + repr(request))


class OptionsTests(SynchronousTestCase):
    """What a client may be told of MONGODB-AWS."""

    def refusal(self, uri: str, **keywords: Any) -> str:
        """Why settings are refused; the secrets of the tests are not in it."""
        refused = self.assertRaises(ConfigurationError, parse_settings, uri, **keywords)
        self.assertNotIn("hidden", str(refused))
        return str(refused)

    def test_parts(self) -> None:
        """A part of the keys is refused at the call, and what is missing is named."""
        self.assertIn("password", self.refusal("mongodb://key@h/?authMechanism=MONGODB-AWS"))
        self.assertIn("username", self.refusal("mongodb://h/?authMechanism=MONGODB-AWS", password="hidden"))
        token = "&authMechanismProperties=AWS_SESSION_TOKEN:hidden"
        self.assertIn("AWS_SESSION_TOKEN", self.refusal(f"mongodb://h/?authMechanism=MONGODB-AWS{token}"))

    def test_foreign(self) -> None:
        """What belongs to another mechanism, or to another database, is refused by name."""
        uri = "mongodb://key:hidden@h/?authMechanism=MONGODB-AWS"
        self.assertIn("SERVICE_NAME", self.refusal(uri, authMechanismProperties={"SERVICE_NAME": "hidden"}))
        self.assertIn("$external", self.refusal(uri, authSource="admin"))
