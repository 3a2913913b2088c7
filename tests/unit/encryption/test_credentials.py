"""Credentials on demand, with an agent whose services answer what the test says, and on a clock that it moves."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from tests.unit.threads import ThreadClock
from txmongo._encryption import credentials
from txmongo._encryption.credentials import AzureSource, Credentials, CredentialsNotFound
from txmongo.errors import ConfigurationError, NetworkTimeout

LOCAL = {"key": bytes(96)}


@attrs.frozen
class Response:
    """An answer, which comes whole."""

    code: int
    body: bytes

    def deliverBody(self, protocol: Any) -> None:
        """Give it to who asked."""
        protocol.makeConnection(None)
        protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))


class Agent:
    """Keeps requests, for the test to answer.

    :ivar requests: the address and the headers of each.
    :ivar ended: those that were cancelled.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.waiting: list[Deferred[Any]] = []
        self.ended: list[Deferred[Any]] = []

    def request(self, method: bytes, uri: bytes, headers: Headers) -> Deferred[Any]:
        """A request, which is not answered yet."""
        assert method == b"GET"
        said = {name.decode(): value.decode() for name, (value,) in headers.getAllRawHeaders()}
        self.requests.append((uri.decode(), said))
        self.waiting.append(Deferred(self.ended.append))
        return self.waiting[-1]

    def answer(self, body: Any, code: int = 200) -> None:
        """Answer the oldest request that waits."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.waiting.pop(0).callback(Response(code, data))


class CredentialsTestCase(SynchronousTestCase):
    """No environment, and an agent that only the test answers."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = ThreadClock()
        self.agent = Agent()
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)
        self.patch(credentials.Connections, "agent", lambda _: self.agent)

    def on_demand(self, *providers: str, **given: Any) -> Credentials:
        """Credentials for these providers, beside those that are given."""
        return Credentials({**given, **{name: {} for name in providers}}, self.clock)

    def find(self, found: Credentials) -> Deferred[Any]:
        """Look for them."""
        return Deferred.fromCoroutine(found.find())

    def tokens(self, deferred: Deferred[Any]) -> Any:
        """What was found, all of it."""
        found, missing = self.successResultOf(deferred)
        self.assertEqual(missing, {})
        return found

    def refusal(self, deferred: Deferred[Any], kind: type[Exception] = CredentialsNotFound) -> str:
        """Why nothing was found."""
        return str(self.failureResultOf(deferred, kind).value)


class AzureTests(CredentialsTestCase):
    """The Azure Instance Metadata Service: client-side encryption, prose test 18."""

    def test_token(self) -> None:
        """It is asked for a token for the key vault, with the headers that it wants to see."""
        finding = self.find(self.on_demand("azure"))
        self.agent.answer({"access_token": "magic-cookie", "expires_in": "70", "resource": "https://vault.azure.net"})
        self.assertEqual(self.tokens(finding), {"azure": {"accessToken": "magic-cookie"}})
        uri = (
            "http://169.254.169.254/metadata/identity/oauth2/token"
            "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net"
        )
        self.assertEqual(self.agent.requests, [(uri, {"Accept": "application/json", "Metadata": "true"})])

    def test_more_headers(self) -> None:
        """A test may say more to the service."""
        self.patch(AzureSource, "more_headers", {"X-Mongodb-Http-Testparams": "case=slow"})
        self.find(self.on_demand("azure"))
        self.assertEqual(self.agent.requests[0][1]["X-Mongodb-Http-Testparams"], "case=slow")

    def test_kept(self) -> None:
        """A token is used until a minute before its end, counted from when it was asked for."""
        azure = self.on_demand("azure")
        finding = self.find(azure)
        self.clock.advance(5)
        self.agent.answer({"access_token": "one", "expires_in": "100"})
        self.tokens(finding)
        self.clock.advance(34)
        self.assertEqual(self.tokens(self.find(azure)), {"azure": {"accessToken": "one"}})
        self.clock.advance(1)
        finding = self.find(azure)
        self.assertNoResult(finding)
        self.agent.answer({"access_token": "other", "expires_in": "100"})
        self.assertEqual(self.tokens(finding), {"azure": {"accessToken": "other"}})

    def test_forgotten(self) -> None:
        """A token that was refused is not used again."""
        azure = self.on_demand("azure")
        finding = self.find(azure)
        self.agent.answer({"access_token": "one", "expires_in": "3600"})
        self.tokens(finding)
        azure.forget()
        self.assertNoResult(self.find(azure))

    def test_no_token(self) -> None:
        """Any other answer is an error; only of one that refuses is shown what it says."""
        for body, code, said in (
            ({}, 200, "gave no access_token"),
            (b"{'hidden'", 200, "did not answer with a JSON document"),
            (b"\xff\xfe\x00hidden", 200, "did not answer with a JSON document"),
            (["hidden"], 200, "did not answer with a JSON document"),
            ({"access_token": ""}, 200, "gave no access_token"),
            ({"access_token": ["hidden"]}, 200, "gave no access_token"),
            ({"access_token": "hidden"}, 200, "gave no number of seconds"),
            ({"access_token": "hidden", "expires_in": "hidden"}, 200, "gave no number of seconds"),
            ({"access_token": "hidden", "expires_in": None}, 200, "gave no number of seconds"),
            (b'{"access_token": "hidden", "expires_in": Infinity}', 200, "gave no number of seconds"),
            (b"not found", 404, "status 404: not found"),
            (b"x" * 5000, 500, "status 500: " + "x" * 1000),
        ):
            azure = self.on_demand("azure")
            finding = self.find(azure)
            self.agent.answer(body, code)
            failure = self.failureResultOf(finding, CredentialsNotFound)
            text = failure.getErrorMessage() + failure.getTraceback() + repr(azure)
            self.assertIn(said, text)
            self.assertTrue(str(failure.value).startswith("kms_providers['azure'] is empty, and its service "))
            self.assertNotIn("hidden", text)
            self.assertLess(len(str(failure.value)), 1100)

    def test_after_failure(self) -> None:
        """After a failure it is asked again."""
        azure = self.on_demand("azure")
        finding = self.find(azure)
        self.agent.answer(b"", 500)
        self.refusal(finding)
        finding = self.find(azure)
        self.agent.answer({"access_token": "one", "expires_in": "3600"})
        self.tokens(finding)

    def test_slow(self) -> None:
        """A service that has not answered within ten seconds is given up."""
        finding = self.find(self.on_demand("azure"))
        self.clock.advance(9.9)
        self.assertNoResult(finding)
        self.clock.advance(0.1)
        self.assertIn(
            "kms_providers['azure'] is empty, and no credentials came within 10 s",
            self.refusal(finding, NetworkTimeout),
        )
        self.assertEqual(self.agent.ended, self.agent.waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_there(self) -> None:
        """A service that cannot be reached is an error that says how it failed."""
        finding = self.find(self.on_demand("azure"))
        self.agent.waiting[0].errback(ConnectionRefusedError())
        self.assertIn("its service cannot be asked: ConnectionRefusedError", self.refusal(finding))


class GCPTests(CredentialsTestCase):
    """The metadata service of Google's virtual machines."""

    def test_token(self) -> None:
        """It is asked for the machine's token, which is used as long as it says."""
        gcp = self.on_demand("gcp")
        finding = self.find(gcp)
        self.agent.answer({"access_token": "one", "expires_in": 3600, "token_type": "Bearer"})
        self.assertEqual(self.tokens(finding), {"gcp": {"accessToken": "one"}})
        uri = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
        self.assertEqual(self.agent.requests, [(uri, {"Metadata-Flavor": "Google"})])
        self.assertEqual(self.tokens(self.find(gcp)), {"gcp": {"accessToken": "one"}})

    def test_no_end(self) -> None:
        """A token of which is not said how long it lasts is used once."""
        gcp = self.on_demand("gcp")
        for token in ("one", "other"):
            finding = self.find(gcp)
            self.agent.answer({"access_token": token})
            self.assertEqual(self.tokens(finding), {"gcp": {"accessToken": token}})

    def test_elsewhere(self) -> None:
        """The environment may say where the service is."""
        self.environment["GCE_METADATA_HOST"] = "127.0.0.1:8080"
        self.find(self.on_demand("gcp"))
        self.assertTrue(self.agent.requests[0][0].startswith("http://127.0.0.1:8080/computeMetadata/v1/"))

    def test_refused(self) -> None:
        """What it says when it refuses is in the error."""
        finding = self.find(self.on_demand("gcp"))
        self.agent.answer(b"no service account", 404)
        self.assertIn("kms_providers['gcp'] is empty", self.refusal(finding))


class AWSTests(CredentialsTestCase):
    """Keys of AWS IAM, as MONGODB-AWS finds them."""

    def test_environment(self) -> None:
        """Those of the environment are taken as they are at the time."""
        aws = self.on_demand("aws")
        self.environment.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
        self.assertEqual(self.tokens(self.find(aws)), {"aws": {"accessKeyId": "key", "secretAccessKey": "secret"}})
        self.environment["AWS_SESSION_TOKEN"] = "token"
        self.assertEqual(self.tokens(self.find(aws))["aws"]["sessionToken"], "token")
        aws.forget()
        self.tokens(self.find(aws))

    def test_none(self) -> None:
        """Without any the error names the option, and what can be done: prose test 15."""
        with patch.dict("sys.modules", {"botocore.session": None}):
            finding = self.find(self.on_demand("aws"))
            self.clock.run_threads()
        text = self.refusal(finding, ConfigurationError)
        self.assertTrue(text.startswith("kms_providers['aws']: the map has no keys, nor"), text)
        for part in ("AWS_ACCESS_KEY_ID", "txmongo[aws]"):
            self.assertIn(part, text)

    def test_part(self) -> None:
        """A part of them is none, and not shown."""
        self.environment["AWS_SECRET_ACCESS_KEY"] = "hidden"
        self.assertEqual(
            self.refusal(self.find(self.on_demand("aws")), ConfigurationError),
            "kms_providers['aws']: AWS_ACCESS_KEY_ID missing in the environment",
        )

    def test_thread(self) -> None:
        """A thread that looks for them goes on when nobody waits any more, and who comes then waits for that one."""
        aws = self.on_demand("aws")
        first = self.find(aws)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = self.find(aws)
        self.assertEqual(len(self.clock.waiting), 1)
        with patch.dict("sys.modules", {"botocore.session": None}):
            self.clock.run_threads()
        self.refusal(second, ConfigurationError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SharingTests(CredentialsTestCase):
    """Several who look at once."""

    def test_shared(self) -> None:
        """Who looks for the same at the same time is given what was asked for once."""
        azure = self.on_demand("azure")
        finding = [self.find(azure) for _ in range(3)]
        self.assertEqual(len(self.agent.requests), 1)
        self.agent.answer({"access_token": "one", "expires_in": "3600"})
        self.assertEqual([self.tokens(each) for each in finding], [{"azure": {"accessToken": "one"}}] * 3)

    def test_cancelled(self) -> None:
        """One of them may give up; when all have, the request is ended, and the next one asks anew."""
        azure = self.on_demand("azure")
        first, second = self.find(azure), self.find(azure)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.agent.ended, [])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.agent.ended, [self.agent.waiting.pop(0)])
        third = self.find(azure)
        self.agent.answer({"access_token": "one", "expires_in": "3600"})
        self.tokens(third)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_by_another(self) -> None:
        """One who hears the answer may cancel another who is about to hear it."""
        azure = self.on_demand("azure")
        first, second = self.find(azure), self.find(azure)
        first.addCallback(lambda _: second.cancel())
        self.agent.answer({"access_token": "one", "expires_in": "3600"})
        self.failureResultOf(second, CancelledError)
        self.successResultOf(first)


class SeveralTests(CredentialsTestCase):
    """Several providers that were left open."""

    def search(self, answer: Callable[[], None], **given: Any) -> Deferred[Any]:
        """Look for credentials of Azure and Google at once."""
        finding = self.find(self.on_demand("azure", "gcp", **given))
        self.assertEqual(len(self.agent.requests), 2)
        answer()
        return finding

    def test_all(self) -> None:
        """All are looked for at once."""

        def answer() -> None:
            for token in ("a", "g"):
                self.agent.answer({"access_token": token, "expires_in": 3600})

        self.assertEqual(self.tokens(self.search(answer)), {"azure": {"accessToken": "a"}, "gcp": {"accessToken": "g"}})

    def test_some(self) -> None:
        """Those that are found are enough, perhaps; why others are not is told with them."""

        def answer() -> None:
            self.agent.answer(b"", 404)
            self.agent.answer({"access_token": "g", "expires_in": 3600})

        found, missing = self.successResultOf(self.search(answer))
        self.assertEqual(found, {"gcp": {"accessToken": "g"}})
        self.assertEqual(list(missing), ["azure"])

    def none(self) -> None:
        """Neither is there."""
        for _ in range(2):
            self.agent.answer(b"", 404)

    def test_none(self) -> None:
        """Where none is found, those that were given may be enough; else the first error is that of the search."""
        found, missing = self.successResultOf(self.search(self.none, local=LOCAL))
        self.assertEqual((found, list(missing)), ({"local": LOCAL}, ["azure", "gcp"]))
        self.agent.requests.clear()
        self.assertIn("kms_providers['azure']", self.refusal(self.search(self.none)))

    def test_cancelled(self) -> None:
        """A search that is cancelled ends all requests."""
        finding = self.search(lambda: None)
        finding.cancel()
        self.failureResultOf(finding, CancelledError)
        self.assertEqual(self.agent.ended, self.agent.waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed_and_cancelled(self) -> None:
        """Nor is an error left that nobody has heard of."""
        finding = self.find(self.on_demand("azure", "gcp"))
        self.agent.waiting[1].errback(ConnectionRefusedError())
        finding.cancel()
        self.failureResultOf(finding, CancelledError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_dropped(self) -> None:
        """A search that nobody has a hold on any more ends without a word."""
        self.search(lambda: None)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.agent.waiting.clear()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_names(self) -> None:
        """Only what is empty is on demand, and the repr says what, and nothing else."""
        self.assertEqual(
            repr(self.on_demand("gcp", aws={"accessKeyId": "hidden"}, local=LOCAL)), "<Credentials on demand: gcp>"
        )
        self.assertEqual(repr(self.on_demand(local=LOCAL)), "<Credentials on demand: none>")
