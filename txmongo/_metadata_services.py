"""The services that tell a program in a cloud who it is: asked over HTTP, by Twisted's agent.

What they are asked for is :mod:`txmongo._oidc_environments`' and :mod:`txmongo._encryption.credentials`' to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from txmongo._deferreds import Broadcast

__all__ = ["AnswerBody", "Connections", "ServiceAnswer", "ask_service"]

#: How much of an answer is shown.
_SHOWN = 1000


@attrs.frozen
class ServiceAnswer:
    """What a service said, which may be a secret.

    :ivar code: the status.
    """

    code: int
    body: bytes = attrs.field(repr=False)

    def shown(self) -> str:
        """The beginning of it, for an error: of an answer that refuses."""
        return self.body[:_SHOWN].decode(errors="replace")


async def ask_service(agent: Any, uri: str, query: Mapping[str, str], headers: Mapping[str, str]) -> ServiceAnswer:
    """Ask a service.

    :param agent: an ``IAgent``.
    :returns: its answer, whatever the status is.
    """
    wanted = Headers({name: [value] for name, value in headers.items()})
    uri = f"{uri}?{urlencode(query)}" if query else uri
    response = await agent.request(b"GET", uri.encode(), wanted)
    return ServiceAnswer(response.code, await AnswerBody.of(response))


class AnswerBody(Protocol):
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


@implementer(IAgentEndpointFactory)
class Connections:
    """Connects to services, and knows when the last connection is closed.

    :param reactor: with TCP.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._open = 0
        self._all_gone = Broadcast()

    def agent(self) -> Agent:
        """An agent whose connections are these."""
        agent: Agent = Agent.usingEndpointFactory(self._reactor, self)
        return agent

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Where an agent is to connect to: ``IAgentEndpointFactory``."""
        return _CountedEndpoint(HostnameEndpoint(self._reactor, uri.host, uri.port), self)

    def opened(self) -> None:
        """One more is open."""
        self._open += 1

    def gone(self) -> None:
        """One is closed."""
        self._open -= 1
        if not self._open:
            self._all_gone.fire()

    def drained(self) -> Deferred[None]:
        """Wait until none is left.

        :returns: a Deferred that fires with ``None``; it fails only with ``CancelledError``, by its own ``cancel()``.
        """
        return self._all_gone.wait() if self._open else succeed(None)


@implementer(IStreamClientEndpoint)
class _CountedEndpoint:
    """An endpoint whose connections are counted."""

    def __init__(self, endpoint: IStreamClientEndpoint, connections: Connections) -> None:
        self._endpoint = endpoint
        self._connections = connections

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect; the Deferred fires with the factory's protocol."""
        counting = _CountingFactory(protocolFactory, self._connections)
        connected: Deferred[Any] = self._endpoint.connect(counting)
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


class _CountingFactory(WrappingFactory):
    """Tells when a protocol is connected, and when it is not any more."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, connections: Connections) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self._connections = connections

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        self._connections.opened()

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._connections.gone()
