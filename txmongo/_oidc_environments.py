"""Where MONGODB-OIDC gets tokens from by itself: files and services of the environment that a program runs in.

Each is a callback, as applications write them. Kept: the Authentication specification, "Built-in OIDC Environment
Integrations".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pymongo import auth_oidc as pymongo_oidc
from pymongo.errors import OperationFailure
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from txmongo._threads import in_thread
from txmongo.auth_oidc import OIDCCallback, OIDCCallbackResult

__all__ = ["ENVIRONMENTS", "WITH_RESOURCE", "NoToken", "environment_callback"]

#: What ``ENVIRONMENT`` may be, and where it wants a ``TOKEN_RESOURCE``.
ENVIRONMENTS = ("azure", "gcp", "k8s", "test")
WITH_RESOURCE = ("azure", "gcp")

AZURE_SERVICE = "http://169.254.169.254"
GCP_SERVICE = "http://metadata"
KUBERNETES_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
#: The variables that name a file in Kubernetes, the first that is set counts.
_KUBERNETES_VARIABLES = ("AZURE_FEDERATED_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")

#: How much of a service's answer is shown.
_SHOWN = 1000


def environment_callback(environment: str, resource: str, reactor: Any) -> OIDCCallback:
    """What gives tokens in an environment.

    :param environment: one of :data:`ENVIRONMENTS`.
    :param resource: ``TOKEN_RESOURCE``.
    :param reactor: with threads and TCP.
    """
    if environment == "azure":
        return _AzureCallback(resource, reactor)
    if environment == "gcp":
        return _GCPCallback(resource, reactor)
    return _FileCallback(environment, reactor)


class NoToken(OperationFailure):
    """The environment has none."""


class _FileCallback(OIDCCallback):
    """Reads a file, in a thread."""

    def __init__(self, environment: str, reactor: Any) -> None:
        self._environment = environment
        self._reactor = reactor

    async def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> OIDCCallbackResult:
        path = self._path(os.environ)
        try:
            token = await in_thread(self._reactor, Path(path).read_text)
        except OSError as error:
            raise NoToken(f"MONGODB-OIDC: {path} cannot be read: {error.strerror}") from error
        return OIDCCallbackResult(token.strip())

    def _path(self, variables: Mapping[str, str]) -> str:
        if self._environment == "test":
            path = variables.get("OIDC_TOKEN_FILE")
            if not path:
                raise NoToken("MONGODB-OIDC: the environment variable OIDC_TOKEN_FILE is not set")
            return path
        return next(filter(None, map(variables.get, _KUBERNETES_VARIABLES)), KUBERNETES_FILE)


class _ServiceCallback(OIDCCallback):
    """Asks a service over HTTP."""

    def __init__(self, resource: str, reactor: Any) -> None:
        self._resource = resource
        self._agent = Agent(reactor)

    async def _ask(self, uri: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        """The body of the answer.

        :raises NoToken: it is not of status 200.
        """
        wanted = Headers({name: [value] for name, value in headers.items()})
        response = await self._agent.request(b"GET", f"{uri}?{urlencode(query)}".encode(), wanted)
        body = await _Body.of(response)
        if response.code != 200:
            said = body[:_SHOWN].decode(errors="replace")
            raise NoToken(f"MONGODB-OIDC: {uri} answered with status {response.code}: {said}")
        return body


class _Body(Protocol):
    """Collects the body of an answer; other than Twisted's way to do that, it can be cancelled on every transport."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._whole: Deferred[bytes] = Deferred(self._cancelled)

    @classmethod
    def of(cls, response: IResponse) -> Deferred[bytes]:
        """The whole body of this answer."""
        body = cls()
        response.deliverBody(body)
        return body._whole

    def _cancelled(self, _: Deferred[bytes]) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self._whole.callback(b"".join(self._parts))
        else:
            self._whole.errback(reason)


class _AzureCallback(_ServiceCallback):
    """The Azure Instance Metadata Service."""

    async def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> OIDCCallbackResult:
        query = {"api-version": "2018-02-01", "resource": self._resource}
        if context.username:
            query["client_id"] = context.username
        headers = {"Accept": "application/json", "Metadata": "true"}
        body = await self._ask(f"{AZURE_SERVICE}/metadata/identity/oauth2/token", query, headers)
        answer = json.loads(body)
        return OIDCCallbackResult(answer["access_token"], expires_in_seconds=float(answer["expires_in"]))


class _GCPCallback(_ServiceCallback):
    """The metadata service of Google's virtual machines."""

    async def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> OIDCCallbackResult:
        path = f"{GCP_SERVICE}/computeMetadata/v1/instance/service-accounts/default/identity"
        body = await self._ask(path, {"audience": self._resource}, {"Metadata-Flavor": "Google"})
        return OIDCCallbackResult(body.decode().strip())
