"""One connection of a pool and one request's use of it: the records that the pool keeps.

Only state and its bookkeeping live here, no decision and no I/O: who takes which connection is
:mod:`txmongo._cmap.choice`, acting on it is :mod:`txmongo._cmap.pool`. CMAP specification, "Connection Pool Members".
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

from bson.objectid import ObjectId

from txmongo.types import Address

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._cmap.pinning import Pin
    from txmongo.protocol import MongoProtocol

__all__ = ["CheckOut", "Connection", "ConnectionState"]


class CheckOut:
    """One request for a connection and, once served, the record of its use.

    The executor's attempt derives from it. Its maker sets the first five fields and does not change them while it is
    checked out; the pool sets the others.

    :ivar service_class: what kind of work it is for the server (``"find"``, ``"insert:majority"``): the key under which
        the pool averages how long the server takes.
    :ivar exclusive: it needs the connection alone: a stream of replies, an awaitData getMore, a pinned transaction.
    :ivar movable: it may be sent a second time elsewhere while it waits behind a stalled one; see :meth:`duplicate`.
        The pool clears it once that was done.
    :ivar bounded: it is known to be short at the server, so that what cannot be moved may go behind it.
    :ivar unacknowledged: the server will not answer it.
    :ivar connection: the connection it was given. It stays after the check-in.
    :ivar started_at: when it was checked out, on the pool's clock.
    :ivar expected: how many seconds the server was expected to take.
    :ivar abandoned: it was checked in although its reply is still to come.
    :ivar patient: ``socketTimeoutMS`` and ``waitQueueTimeoutMS`` do not count for it: ``timeoutMS`` takes their place.
    :ivar pin: behind a load balancer, the check-out that it shares with other requests; ``None`` if it does not.
    """

    __slots__ = (
        "abandoned",
        "bounded",
        "connection",
        "exclusive",
        "expected",
        "movable",
        "patient",
        "pin",
        "service_class",
        "started_at",
        "unacknowledged",
    )

    def __init__(
        self,
        service_class: str,
        *,
        exclusive: bool = False,
        movable: bool = False,
        bounded: bool = False,
        unacknowledged: bool = False,
    ) -> None:
        self.service_class = service_class
        self.exclusive = exclusive
        self.movable = movable
        self.bounded = bounded
        self.unacknowledged = unacknowledged
        self.patient = False
        self.pin: Pin | None = None
        self.connection: Connection | None = None
        self.started_at = 0.0
        self.expected = 0.0
        self.abandoned = False

    def pinned_to(self) -> Pin | None:
        """The connection to a load balancer that it has to have, and no other."""
        return None

    def may_pin(self) -> bool:
        """Whether somebody may keep its connection to a load balancer after it."""
        return False

    def duplicate(self) -> CheckOut:
        """Make the request for a connection for a second copy of this one. *Moving* a request goes like this:

        1. The pool calls this on a movable request that waits behind a stalled one, at most once. The copy is not
           movable.
        2. The copy waits for an idle or a new connection, before all others. If the first one is checked in meanwhile,
           abandoned or not, the pool forgets the copy: nothing is owed for it.
        3. The pool checks the copy out and calls :meth:`resend` on the *copy*. From here on each of the two is owed one
           check-in.
        4. The first answer wins. The other is taken from its protocol (``MongoProtocol.resolve``, or cancelling its
           Deferred) and checked in with ``abandoned=True``: its connection counts it until its late reply comes. If one
           of them fails with its connection, it is checked in as ever and the other goes on.
        """
        raise NotImplementedError

    def resend(self, connection: Connection) -> None:
        """Send this second copy on ``connection``, to which it is checked out; called by the pool."""
        raise NotImplementedError


class ConnectionState(enum.Enum):
    """The states of an established connection; one that is being opened has no :class:`Connection` yet."""

    AVAILABLE = "available"
    IN_USE = "in use"
    CLOSED = "closed"


class Connection:
    """An established connection of a pool.

    :ivar id: the driver's number for it, counted from 1 in each pool.
    :ivar generation: the pool's, or its service's, when it was opened.
    :ivar created_at: when its opening began, on the pool's clock.
    :ivar idle_since: when it was last put to use, for an available one.
    :ivar in_flight: what the server has not answered, oldest first, the abandoned included.
    :ivar late: those of ``in_flight`` that were abandoned.
    :ivar expected_wait: seconds until all in flight will be answered; infinite while nothing may be added.
    :ivar busy_since: when the server came to the oldest request in flight.
    :ivar open: whether the pool may still give it out; never again true once false.
    :ivar close_reason: why it is not ``open`` any more, as in ``ConnectionClosedEvent``.
    :ivar close_error: the error, where that is the reason and it is known.
    """

    __slots__ = (
        "address",
        "busy_since",
        "close_error",
        "close_reason",
        "created_at",
        "description",
        "expected_wait",
        "generation",
        "id",
        "idle_since",
        "in_flight",
        "late",
        "open",
        "protocol",
    )

    def __init__(
        self,
        connection_id: int,
        address: Address,
        generation: int,
        protocol: MongoProtocol,
        description: StreamDescription,
        *,
        created_at: float,
        now: float,
    ) -> None:
        self.id = connection_id
        self.address = address
        self.generation = generation
        self.protocol = protocol
        self.description = description
        self.created_at = created_at
        self.idle_since = now
        self.busy_since = now
        self.expected_wait = 0.0
        self.in_flight: dict[CheckOut, None] = {}
        self.late: dict[CheckOut, None] = {}
        self.open = True
        self.close_reason: str | None = None
        self.close_error: BaseException | None = None

    @property
    def service_id(self) -> ObjectId | None:
        """The service behind a load balancer that it ends at."""
        return self.description.service_id

    @property
    def live(self) -> int:
        """How many requests are checked out to it."""
        return len(self.in_flight) - len(self.late)

    @property
    def state(self) -> ConnectionState:
        """What it is to the CMAP specification."""
        if self.live:
            return ConnectionState.IN_USE
        if not self.open:
            return ConnectionState.CLOSED
        return ConnectionState.IN_USE if self.in_flight else ConnectionState.AVAILABLE

    def head_is_late(self) -> bool:
        """Whether the oldest request in flight was abandoned."""
        return bool(self.late) and next(iter(self.in_flight)) in self.late

    def oldest_late(self) -> CheckOut | None:
        """The abandoned request whose reply comes next."""
        for request in self.in_flight:
            if request in self.late:
                return request
        return None

    def expect_less(self, request: CheckOut) -> None:
        """Take a request that is no longer in flight out of :attr:`expected_wait`."""
        if not self.in_flight:
            self.expected_wait = 0.0
        elif self.expected_wait == math.inf:
            # It took nothing more because of one that was abandoned; that may be over.
            self.expected_wait = sum(request.expected for request in self.in_flight)
        else:
            self.expected_wait -= request.expected

    def __repr__(self) -> str:
        count = len(self.in_flight)
        return f"<Connection {self.id} to {self.address[0]}:{self.address[1]} {self.state.value}, {count} in flight>"
