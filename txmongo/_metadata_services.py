"""The services that tell a program in a cloud who it is: asked over HTTP, by Twisted's agent.

What they are asked for is :mod:`txmongo._oidc_environments`' and :mod:`txmongo._encryption.credentials`' to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

__all__ = ["AnswerBody", "ServiceAnswer", "ask_service"]

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
