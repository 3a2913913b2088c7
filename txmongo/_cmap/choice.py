"""Which connection a request takes: plain synchronous decisions over plain data, without Twisted.

The state they read is that of :class:`Load` and :class:`Request`: numbers and collections, no protocol, no clock. The
pool (:mod:`txmongo._cmap.pool`) acts on what they return. They keep "Checking Out a Connection" of the CMAP
specification, and go beyond it where connections are shared.

A mongod carries out the requests of one connection one after another. Sharing a connection therefore pays while what is
in flight on it is short at the server, and a request behind a long one waits for nothing. So each connection counts the
time that its requests are expected to take, and one whose oldest request is overdue is *stalled*.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Sequence
from typing import Protocol, TypeVar

import attrs

__all__ = [
    "LEAST_SERVICE_TIME",
    "MAX_DEPTH",
    "UNKNOWN_SERVICE_TIME",
    "Limits",
    "Load",
    "Request",
    "attempts_wanted",
    "choose_shared",
    "deal",
    "is_bounded",
    "is_stalled",
    "longest_shared_wait",
    "next_average",
    "to_move",
]

#: Requests in flight on one connection, above which it is not shared any further.
MAX_DEPTH = 64

#: Seconds that the server is taken to need for a kind of request of which nothing is known yet.
UNKNOWN_SERVICE_TIME = 0.00025

#: Seconds, the least that is believed of a service time.
LEAST_SERVICE_TIME = 0.00005

#: What the moving average of service times gives to a new value. A shorter one counts for much more: the delays of this
#: process make a measured time longer and never shorter, and of replies that are read together only the first has one.
_WEIGHT_OF_SHORTER = 0.25
_WEIGHT_OF_LONGER = 0.03

#: Seconds of expected wait below which sharing is better than another connection, for a server close by.
_SHARE_LIMIT = 0.001

#: Seconds without an answer after which a connection is stalled, for a server close by.
_STALL_LIMIT = 0.020


class Request(Protocol):
    """What the decisions read of a request."""

    @property
    def service_class(self) -> str:
        """What kind of work it is for the server."""

    @property
    def movable(self) -> bool:
        """Whether it may be sent a second time elsewhere."""

    @property
    def bounded(self) -> bool:
        """Whether it is known to be short at the server."""


class Load(Protocol):
    """What the decisions read of a connection."""

    @property
    def in_flight(self) -> Collection[Request]:
        """The requests that the server has not answered yet, oldest first."""

    @property
    def expected_wait(self) -> float:
        """Seconds until all of them will be answered; infinite while it takes nothing more."""

    @property
    def busy_since(self) -> float:
        """When the server came to the oldest of them: when that was sent, or when the reply before its own came."""


LoadT = TypeVar("LoadT", bound=Load)
RequestT = TypeVar("RequestT", bound=Request)


@attrs.frozen
class Limits:
    """The bounds for one server, in seconds.

    :ivar share: a connection whose expected wait is below this is shared before another is opened; see
        :func:`longest_shared_wait`.
    :ivar stall: a connection is stalled when the server has been at its oldest request for this long.
    :ivar patience: the same for who cannot know whether the reply has come and was not read yet: where the reactor is
        in the midst of its work.
    """

    share: float = _SHARE_LIMIT
    stall: float = _STALL_LIMIT
    patience: float = _STALL_LIMIT

    @classmethod
    def of(cls, rtt: float, lag: float) -> Limits:
        """The bounds for a server ``rtt`` seconds away, while it takes ``lag`` seconds until the reactor sees a reply.

        What is short, or late, is so in relation to the way there and back, and the lag is a part of that. A reply may
        be two rounds of the reactor late.
        """
        stall = max(_STALL_LIMIT, rtt * 2)
        return cls(max(_SHARE_LIMIT, (rtt + lag) / 2), stall, stall + min(lag * 2, stall))


def is_stalled(connection: Load, limit: float, now: float) -> bool:
    """Whether the oldest request of a busy connection is overdue; a deep pipeline that moves on is not.

    :param limit: seconds.
    """
    return now - connection.busy_since >= limit


def is_bounded(in_flight: Iterable[Request], known: Container[str]) -> bool:
    """Whether all these requests are known to be short at the server.

    :param known: the service classes of which the pool has an average; nothing is known of another.
    """
    return all(request.bounded and request.service_class in known for request in in_flight)


def longest_shared_wait(limits: Limits, service_time: float, connections: int) -> float:
    """The expected wait in seconds above which another connection is better than sharing one of those there are.

    For what a server does in less than a millisecond, a few connections carry all that this process can send: each
    further one only makes it, and a busy server, slower. So the more there are, the longer must be the wait that is
    worth one more: ``2 n - 1`` times as long with ``n``, and half of what makes a stall at the most.

    :param service_time: seconds that the server is expected to need for such a request.
    :param connections: how many there are.
    """
    if service_time >= _SHARE_LIMIT:
        return limits.share
    return max(limits.share, min(_SHARE_LIMIT * (2 * connections - 1), limits.stall / 2))


def choose_shared(
    connections: Iterable[LoadT],
    request: Request,
    *,
    limits: Limits,
    longest_wait: float,
    known: Container[str],
    now: float,
) -> LoadT | None:
    """The connection that a request shares when none is idle: the one with the smallest expected wait.

    :param longest_wait: seconds of expected wait from which on none is shared; infinite where no further connection may
        be opened. Else a request that cannot be moved later goes only behind those that are known to be short.
    :returns: ``None`` if the request is to wait for a connection instead.
    """
    least = longest_wait
    careful = not request.movable and longest_wait != math.inf
    stalled_before = now - limits.patience
    best: LoadT | None = None
    for connection in connections:
        wait = connection.expected_wait
        if (
            wait < least
            and connection.busy_since > stalled_before
            and len(connection.in_flight) < MAX_DEPTH
            and not (careful and not is_bounded(connection.in_flight, known))
        ):
            best = connection
            least = wait
    return best


def deal(connections: Sequence[LoadT], turn: int, *, exclusive: bool) -> int | None:
    """The place of the connection of a fixed pool that is next in turn, whatever waits on it.

    :param turn: the place to begin at, counted on beyond the end.
    :param exclusive: take one on which nothing is in flight.
    :returns: ``None`` if there is none that takes it.
    """
    count = len(connections)
    for offset in range(count):
        place = (turn + offset) % count
        connection = connections[place]
        if connection.expected_wait != math.inf and not (exclusive and connection.in_flight):
            return place
    return None


def to_move(in_flight: Iterable[RequestT]) -> list[RequestT]:
    """Those requests of a stalled connection that may be sent again elsewhere: the movable ones behind the oldest."""
    waiting = iter(in_flight)
    next(waiting, None)
    return [request for request in waiting if request.movable]


def attempts_wanted(
    *, waiting: int, opening: int, total: int, min_pool_size: int, max_pool_size: int, max_connecting: int
) -> int:
    """How many connections to start opening now.

    :param waiting: requests that wait for a connection; one that is being opened serves one of them.
    :param opening: connections that are being opened.
    :param total: all connections, those being opened included.
    """
    need = max(waiting - opening, min_pool_size - total)
    room = min(max_connecting - opening, max_pool_size - total)
    return max(0, min(need, room))


def next_average(average: float | None, service: float) -> float:
    """The moving average of a kind of request after one more was answered in ``service`` seconds."""
    if service < LEAST_SERVICE_TIME:
        service = LEAST_SERVICE_TIME
    if average is None:
        return service
    return average + (service - average) * (_WEIGHT_OF_SHORTER if service < average else _WEIGHT_OF_LONGER)
