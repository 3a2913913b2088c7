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

from pymongo import auth_oidc as pymongo_oidc
from pymongo.errors import OperationFailure
from twisted.web.client import Agent

from txmongo._metadata_services import ask_service
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
        answer = await ask_service(self._agent, uri, query, headers)
        if answer.code != 200:
            raise NoToken(f"MONGODB-OIDC: {uri} answered with status {answer.code}: {answer.shown()}")
        return answer.body


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
