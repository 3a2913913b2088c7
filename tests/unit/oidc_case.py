"""What tests of MONGODB-OIDC have in common: callbacks, and clients of a server that checks tokens."""

from __future__ import annotations

from typing import Any

from pymongo import auth_oidc as pymongo_oidc
from pymongo import monitoring
from twisted.internet.defer import Deferred

from tests.unit.cmap.oidc_server import OIDCServer
from tests.unit.test_connection import ClientCase
from tests.unit.threads import ThreadClock
from txmongo._auth import AuthenticationFailed
from txmongo.auth_oidc import OIDCCallback, OIDCCallbackResult
from txmongo.connection import ConnectionPool

__all__ = ["URI", "Callback", "Listener", "OIDCCase"]

URI = "mongodb://fake.example/?authMechanism=MONGODB-OIDC"


class Callback(OIDCCallback):
    """Gives tokens as they are wanted: ``token1``, ``token2`` and so on, if it is told of nothing else.

    :ivar contexts: what it was told, call by call.
    :param results: what it gives, one after another, the last one for ever: an access token, something else, or a
        function of the context.
    """

    def __init__(self, *results: Any, refresh: str | None = None) -> None:
        self.contexts: list[pymongo_oidc.OIDCCallbackContext] = []
        self._results = list(results)
        self._refresh = refresh

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.contexts)

    def fetch(self, context: pymongo_oidc.OIDCCallbackContext) -> Any:
        self.contexts.append(context)
        if not self._results:
            return self.result(f"token{self.calls}")
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if callable(result):
            return result(context)
        return self.result(result) if isinstance(result, str) else result

    def result(self, token: str) -> OIDCCallbackResult:
        """What it gives."""
        return OIDCCallbackResult(token, refresh_token=self._refresh)


class Listener(monitoring.CommandListener):
    """Keeps what is told of commands."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.texts = ""

    def _note(self, kind: str, event: Any) -> None:
        self.seen.append((kind, event.command_name))
        self.texts += repr(vars(event) if hasattr(event, "__dict__") else event) + str(getattr(event, "command", ""))

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """A command was sent."""
        self._note("started", event)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """It was answered."""
        self._note("succeeded", event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """It failed."""
        self._note("failed", event)


class OIDCCase(ClientCase):
    """A server that checks tokens, and clients of it."""

    def setUp(self) -> None:
        """The server takes all that the callbacks above give."""
        super().setUp()
        self.clock: ThreadClock = ThreadClock()
        self.oidc = OIDCServer()
        self.servers["fake.example"] = self.oidc

    def machine(self, callback: Any, uri: str = URI, **options: Any) -> ConnectionPool[Any]:
        """A client whose tokens a program gets."""
        options.setdefault("retryReads", False)
        return self.client(uri, authMechanismProperties={"OIDC_CALLBACK": callback}, **options)

    def human(
        self, callback: Any, uri: str = URI, hosts: list[str] | None = None, **options: Any
    ) -> ConnectionPool[Any]:
        """A client whose tokens a person gets."""
        options.setdefault("retryReads", False)
        properties = {"OIDC_HUMAN_CALLBACK": callback, "ALLOWED_HOSTS": ["fake.example"] if hosts is None else hosts}
        return self.client(uri, authMechanismProperties=properties, **options)

    def find(self, client: ConnectionPool[Any]) -> None:
        """A find that succeeds, if need be with a pause before the callback."""
        found = self.found(client)
        self.assertIsNone(self.successResultOf(found))

    def found(self, client: ConnectionPool[Any]) -> Deferred[Any]:
        """A find, after all that comes within a second."""
        found = self.started(client.db.c.find_one())
        self.clock.run_threads()
        self.turn()
        for _ in range(10):
            self.clock.advance(0.1)
            self.turn()
        return found

    def refused(self, client: ConnectionPool[Any], kind: type[Exception] = AuthenticationFailed) -> Any:
        """The error of a find that fails."""
        return self.failureResultOf(self.found(client), kind).value
