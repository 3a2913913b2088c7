"""Credentials on demand: what is left open in ``kms_providers``, an empty map, is looked for when it is needed.

Client-side encryption specification, "Automatic Credentials", "Obtaining GCP Credentials" and "Obtaining an Access
Token for Azure Key Vault". No token and no key is in a repr or in the text of an error. That is why of an answer which
is not as it must be no more is told than that, where the specification would show it.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txmongo._aws import KeySource
from txmongo._deferreds import Clock
from txmongo._metadata_services import Connections, ServiceAnswer, ask_service
from txmongo.errors import ConfigurationError, NetworkTimeout

__all__ = ["ON_DEMAND", "Credentials", "CredentialsNotFound"]

#: The providers whose credentials can be looked for; those with a name behind their kind are none of them.
ON_DEMAND = ("aws", "azure", "gcp")

AZURE_SERVICE = "http://169.254.169.254"
GCP_HOST = "metadata.google.internal"

#: Of credentials, what nobody may read.
_SECRETS = ("accessToken", "clientSecret", "key", "privateKey", "secretAccessKey", "sessionToken")

#: Seconds that a caller waits for one provider's credentials.
_PATIENCE = 10.0
#: Seconds before its end from which on a token is not used any more.
_MARGIN = 60.0


class CredentialsNotFound(ConfigurationError):
    """Credentials that were left open are not to be had here."""


class Source(Protocol):
    """Where the credentials of one provider come from.

    :cvar stops: whether looking for them ends when nobody waits for it any more; a thread cannot be ended.
    """

    stops: ClassVar[bool]

    async def find(self) -> dict[str, str]:
        """The credentials.

        :raises CredentialsNotFound: there are none.
        """
        ...

    def forget(self) -> None:
        """They were refused: do not give the same ones again without asking."""
        ...


class AWSSource:
    """Keys of AWS IAM, from the environment or from where botocore finds them.

    :param reactor: whose threads botocore is called in.
    """

    stops: ClassVar[bool] = False

    def __init__(self, reactor: Any) -> None:
        self._keys = KeySource(None, reactor, "kms_providers['aws']", "the map")

    async def find(self) -> dict[str, str]:
        """The keys as they are now."""
        keys = await self._keys.keys()
        found = {"accessKeyId": keys.access_key, "secretAccessKey": keys.secret_key}
        return found if keys.session_token is None else {**found, "sessionToken": keys.session_token}

    def forget(self) -> None:
        """Have botocore look again."""
        self._keys.forget()


class TokenSource(ABC):
    """Tokens of a service of metadata, each used until a minute before its end.

    :param agent: an ``IAgent``.
    """

    stops: ClassVar[bool] = True
    #: Of kms_providers.
    provider: ClassVar[str]

    def __init__(self, agent: Any, clock: Clock) -> None:
        self._agent = agent
        self._clock = clock
        self._token: str | None = None
        self._ends_at = 0.0

    async def find(self) -> dict[str, str]:
        """A token, asked for if there is none that lasts."""
        if self._token is None or self._ends_at - self._clock.seconds() <= _MARGIN:
            self._token = None
            asked_at = self._clock.seconds()
            try:
                answer = await self._ask(self._agent)
            except CancelledError:
                raise
            except Exception as error:
                raise self._refusal(f"its service cannot be asked: {type(error).__name__}") from error
            self._token, seconds = self._read(answer)
            self._ends_at = asked_at + seconds
        return {"accessToken": self._token}

    def forget(self) -> None:
        """Ask for another one next time."""
        self._token = None

    @abstractmethod
    async def _ask(self, agent: Any) -> ServiceAnswer:
        """What the service says."""

    @abstractmethod
    def _seconds(self, document: Mapping[str, Any]) -> float:
        """How long a token lasts.

        :raises ValueError: the answer does not say so.
        """

    def _read(self, answer: ServiceAnswer) -> tuple[str, float]:
        """The token, and how many seconds it lasts."""
        if answer.code != 200:
            raise self._refusal(f"its service answered with status {answer.code}: {answer.shown()}")
        try:
            document = json.loads(answer.body)
        except ValueError:
            # What could not be read stands in that error.
            document = None
        if not isinstance(document, dict):
            raise self._refusal("its service did not answer with a JSON document")
        token = document.get("access_token")
        if not isinstance(token, str) or not token:
            raise self._refusal("its service gave no access_token")
        try:
            return token, self._seconds(document)
        except (OverflowError, TypeError, ValueError):
            pass
        raise self._refusal("its service gave no number of seconds as expires_in")

    def _refusal(self, why: str) -> CredentialsNotFound:
        return CredentialsNotFound(f"kms_providers[{self.provider!r}] is empty, and {why}")


class AzureSource(TokenSource):
    """The Azure Instance Metadata Service, of a machine that has one managed identity."""

    provider = "azure"
    #: What else is said in the request; the specification's tests tell a stand-in so what to do.
    more_headers: ClassVar[Mapping[str, str]] = {}

    async def _ask(self, agent: Any) -> ServiceAnswer:
        query = {"api-version": "2018-02-01", "resource": "https://vault.azure.net"}
        headers = {"Accept": "application/json", "Metadata": "true", **self.more_headers}
        return await ask_service(agent, f"{AZURE_SERVICE}/metadata/identity/oauth2/token", query, headers)

    def _seconds(self, document: Mapping[str, Any]) -> float:
        return int(document.get("expires_in", ""))


class GCPSource(TokenSource):
    """The metadata service of Google's virtual machines; ``GCE_METADATA_HOST`` may say where it is."""

    provider = "gcp"

    async def _ask(self, agent: Any) -> ServiceAnswer:
        host = os.environ.get("GCE_METADATA_HOST") or GCP_HOST
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        return await ask_service(agent, f"http://{host}{path}", {}, {"Metadata-Flavor": "Google"})

    def _seconds(self, document: Mapping[str, Any]) -> float:
        # Without it the token is used once: nothing in the specification says that it is given.
        return int(document.get("expires_in", 0))


class Search:
    """Looks for one provider's credentials, once for all who want them at the same time."""

    def __init__(self, provider: str, source: Source, reactor: Any) -> None:
        self._provider = provider
        self._source = source
        self._reactor = reactor
        self._waiting: dict[Deferred[dict[str, str]], None] = {}
        self._finding: Deferred[dict[str, str]] | None = None

    def result(self) -> Deferred[dict[str, str]]:
        """Wait for them.

        :returns: a Deferred that fires with the credentials. It fails with :class:`CredentialsNotFound`, or another
            :class:`~txmongo.errors.ConfigurationError`, if there are none; with
            :class:`~txmongo.errors.NetworkTimeout` if none came in time. When the last one who waits cancels it the
            search ends, if it can be ended.
        """
        waiter: Deferred[dict[str, str]] = Deferred(self._forget_waiter)
        self._waiting[waiter] = None
        if self._finding is None:
            finding = self._finding = Deferred.fromCoroutine(self._source.find())
            finding.addBoth(self._found)
        return waiter.addTimeout(_PATIENCE, self._reactor, self._late)

    def forget(self) -> None:
        """What was found was refused."""
        self._source.forget()

    def _forget_waiter(self, waiter: Deferred[dict[str, str]]) -> None:
        self._waiting.pop(waiter, None)
        if not self._waiting and self._finding is not None and self._source.stops:
            self._finding.cancel()

    def _found(self, result: dict[str, str] | Failure) -> None:
        self._finding = None
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(result)

    def _late(self, result: Any, seconds: float) -> Failure:
        what = f"kms_providers[{self._provider!r}] is empty, and no credentials came within {seconds:g} s"
        return Failure(NetworkTimeout(what))


class Credentials:
    """The credentials that one object of libmongocrypt is given on demand.

    :param kms_providers: those that are left open are looked for.
    :param reactor: with threads and TCP.
    """

    def __init__(self, kms_providers: Mapping[str, Any], reactor: Any) -> None:
        self._connections = Connections(reactor)
        self._given = {name: given for name, given in kms_providers.items() if given}
        self._found: dict[str, Any] = {}
        self._searches: dict[str, Search] = {}
        for provider in ON_DEMAND:
            if provider in kms_providers and not kms_providers[provider]:
                self._searches[provider] = Search(provider, self._source(provider, reactor), reactor)

    def __repr__(self) -> str:
        return f"<Credentials on demand: {', '.join(self._searches) or 'none'}>"

    def _source(self, provider: str, reactor: Any) -> Source:
        if provider == "aws":
            return AWSSource(reactor)
        kind = AzureSource if provider == "azure" else GCPSource
        return kind(self._connections.agent(), reactor)

    async def find(self) -> tuple[dict[str, Any], dict[str, Exception]]:
        """Whatever is to be had, and why the rest is not: perhaps it is not needed this time.

        :returns: by the provider's name, credentials and errors. If none were found, the credentials are those that
            were given.
        :raises CredentialsNotFound: there are neither; or another error of :meth:`Search.result`.
        """
        found: dict[str, Any] = {}
        errors: dict[str, Exception] = {}
        results = [(provider, search.result()) for provider, search in self._searches.items()]
        try:
            for provider, result in results:
                try:
                    found[provider] = await result
                except (ConfigurationError, NetworkTimeout) as error:
                    errors[provider] = error
        except Exception:
            # Cancelled: the rest is not waited for any more.
            for _, result in results:
                result.addErrback(lambda _: None).cancel()
            raise
        if not found and not self._given:
            raise next(iter(errors.values()))
        self._found = found
        return found or self._given, errors

    def hide(self, text: str) -> str:
        """A text without the secrets in it, which a service may have repeated."""
        for credentials in (*self._given.values(), *self._found.values()):
            for name in _SECRETS:
                secret = credentials.get(name)
                if isinstance(secret, str) and secret:
                    text = text.replace(secret, "...")
        return text

    def forget(self) -> None:
        """Some of them were refused."""
        for search in self._searches.values():
            search.forget()

    def drained(self) -> Deferred[None]:
        """Wait until no connection to a service of metadata is left.

        :returns: a Deferred that fires with ``None``; it fails only with ``CancelledError``, by its own ``cancel()``.
        """
        return self._connections.drained()
