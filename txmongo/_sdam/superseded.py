"""A primary that another one took the place of: does it still live, or do its operations wait in vain?

A member that steps down in an orderly way answers, and what is in flight on its connections is answered too. One that
was frozen, or cut off from the network, leaves everything that was sent to it without an answer until the network gives
up, which may take minutes; yet a newer primary is there to take the operations. So the former primary is asked at once,
on a new connection, and gets little time to answer; if it does not, what is in flight there fails. Which primary is to
be asked is the topology's to find (:mod:`txmongo._sdam.topology`), by the rule that is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmongo._deferreds import Broadcast
from txmongo._pymongo import SERVER_TYPE
from txmongo._sdam.description import format_address
from txmongo.errors import AutoReconnect, NetworkTimeout

if TYPE_CHECKING:
    from pymongo.server_description import ServerDescription

    from txmongo._sdam.monitor import ConnectMonitor
    from txmongo._sdam.server import Server
    from txmongo.protocol import MongoProtocol
    from txmongo.types import Address

__all__ = ["Probation", "Probations", "is_superseded", "patience"]

#: A connection takes two to four round trips until hello is answered over it.
_ROUND_TRIPS = 5
#: Seconds. What round trips of less than a millisecond add up to says nothing: a server that lives may have to wait for
#: a processor for longer than that.
_LEAST_PATIENCE = 0.05
_GREATEST_PATIENCE = 0.5


def patience(rtt: float) -> float:
    """How many seconds a former primary has to answer, by its round trip time; 0 if that was never measured."""
    if rtt <= 0:
        return _GREATEST_PATIENCE
    return min(_GREATEST_PATIENCE, max(_LEAST_PATIENCE, _ROUND_TRIPS * rtt))


def is_superseded(before: ServerDescription, after: ServerDescription, source: ServerDescription | None) -> bool:
    """Whether the news of ``source`` made a primary Unknown because ``source`` is one, of a later election.

    :param before: the server in question as it was known before the news.
    :param after: as it is known now.
    """
    return (
        before.server_type == SERVER_TYPE.RSPrimary
        and not after.is_server_type_known
        and source is not None
        and source.address != after.address
        and source.server_type == SERVER_TYPE.RSPrimary
    )


class Probation:
    """The short time that a former primary has to answer.

    It begins at once. ``on_silence`` is called if it ends without an answer, unless it was stopped.

    :param limit: seconds.
    :param connect: opens a connection for monitoring, whose hello is the answer.
    """

    def __init__(
        self,
        address: Address,
        limit: float,
        *,
        clock: IReactorTime,
        connect: ConnectMonitor,
        on_silence: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._on_silence = on_silence
        self._closing = False
        self._gone = Broadcast()
        self._timer: IDelayedCall | None = clock.callLater(limit, self._due)
        self._connecting = connect(address)
        self._connecting.addCallbacks(self._answered, self._not_answered)

    def stop(self) -> Deferred[None]:
        """End it without a result.

        :returns: a Deferred that fires when no socket and no delayed call is left; it never fails.
        """
        self._end()
        return self._gone.wait() if self._closing else succeed(None)

    def _end(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._connecting.cancel()

    def _answered(self, opened: tuple[MongoProtocol, Mapping[str, Any], float]) -> None:
        protocol = opened[0]
        self._closing = True
        protocol.lost_hook = self._lost
        protocol.abort(AutoReconnect("this connection is not needed any more"))
        self._end()

    def _lost(self, _reason: Failure) -> None:
        self._closing = False
        self._gone.fire()

    def _not_answered(self, _failure: Failure) -> None:
        """A refusal is no answer; until the time is over, what is in flight may hear of the server's end by itself."""

    def _due(self) -> None:
        """An answer may have come and be unread: judge when the reactor has come round once."""
        self._timer = self._clock.callLater(0, self._judge)

    def _judge(self) -> None:
        self._end()
        self._on_silence()


class Probations:
    """The former primaries of one topology that have been asked whether they live; each may be asked once at a time.

    :param connect: opens a connection for monitoring, whose hello is the answer.
    :param closing: given, when a question is taken back, the Deferred that fires when nothing of it is left.
    """

    def __init__(
        self, *, clock: IReactorTime, connect: ConnectMonitor, closing: Callable[[Deferred[None]], None]
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._closing = closing
        self._asked: dict[Address, Probation] = {}

    def begin(self, server: Server) -> None:
        """Ask a former primary, anew if it is being asked."""
        self.end(server.address)
        self._asked[server.address] = Probation(
            server.address,
            patience(server.pool.rtt),
            clock=self._clock,
            connect=self._connect,
            on_silence=partial(self._let_go, server),
        )

    def end(self, address: Address) -> None:
        """Take the question back, if one was asked: the server has shown that it lives, or is not needed any more."""
        probation = self._asked.pop(address, None)
        if probation is not None:
            self._closing(probation.stop())

    def _let_go(self, server: Server) -> None:
        """A former primary does not answer: what is in flight there fails, and is tried again where it may be."""
        self._asked.pop(server.address, None)
        error = NetworkTimeout(
            f"{format_address(server.address)} did not answer hello after another member had become primary"
        )
        server.pool.clear(error, interrupt_in_use=True)
