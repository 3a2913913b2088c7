"""Connections to a load balancer that transactions and cursors keep: load balancer specification, "Connection Pinning".

Behind a load balancer each connection may end at another server, and only the one that began a transaction or made a
cursor knows of it. So the connection of an operation that may begin such a thing is for that operation alone, and stays
checked out as long as somebody holds on to it: a :class:`Pin` counts them. Everything else is an ordinary
:class:`~txmongo._cmap.pool.Pool`'s.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, succeed

from txmongo._cmap.connection import CheckOut, Connection
from txmongo._cmap.errors import PinnedConnections
from txmongo._cmap.pool import Pool
from txmongo._deferreds import Deadline

__all__ = ["BalancedPool", "Holder", "Pin"]


class Holder(enum.Enum):
    """Who keeps a connection beyond one request."""

    TRANSACTION = "transaction"
    CURSOR = "cursor"


class Pin:
    """One check-out that several requests use one after another; it ends when none does and nobody holds it.

    :ivar connection: what is pinned. It may be lost meanwhile: a request that is sent on it then fails as ever.
    """

    def __init__(self, pool: BalancedPool, check_out: CheckOut, connection: Connection) -> None:
        self.connection = connection
        self._pool = pool
        self._check_out = check_out
        self._holders: Counter[Holder] = Counter()
        self._uses = 0

    @property
    def in_use(self) -> bool:
        """Whether a request is out on it."""
        return self._uses > 0

    @property
    def holder(self) -> Holder | None:
        """For whom it is kept; for a transaction, if a cursor of that transaction keeps it too."""
        return next((holder for holder in Holder if self._holders[holder]), None)

    def hold(self, holder: Holder) -> Pin:
        """Keep it, until :meth:`release` was called as often."""
        self._holders[holder] += 1
        return self

    def release(self, holder: Holder) -> None:
        """Keep it no longer for one holder."""
        self._holders[holder] -= 1
        self._end_unless_kept()

    def use(self, request: CheckOut, now: float) -> Connection:
        """Let a request have the connection; it is given back by the pool's ``check_in``."""
        connection = self.connection
        self._uses += 1
        self._check_out.patient = request.patient
        connection.busy_since = request.started_at = now
        request.pin = self
        request.connection = connection
        request.abandoned = False
        request.expected = 0.0
        return connection

    def give_back(self, request: CheckOut) -> None:
        """A request was answered, has failed, or nobody waits for its reply any more.

        :raises ValueError: it was not out here.
        """
        if request.pin is not self:
            raise ValueError(f"{request!r} has no connection of {self!r}")
        request.pin = None
        self._uses -= 1
        self._end_unless_kept()

    def _end_unless_kept(self) -> None:
        if self._uses or self.holder is not None:
            return
        protocol = self.connection.protocol
        # A reply that is still to come would be in the way of the next one.
        self._pool.unpin(self, self._check_out, abandoned=bool(protocol.connected and protocol.in_flight))

    def __repr__(self) -> str:
        kept = "nobody" if self.holder is None else f"a {self.holder.value}"
        return f"<Pin of {self.connection!r} for {kept}, {self._uses} in use>"


class BalancedPool(Pool):
    """The connections to a load balancer."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._pins: dict[Connection, Pin] = {}
        super().__init__(*arguments, **keywords)

    def check_out_now(self, request: CheckOut) -> Connection | None:
        """Check a connection out if one can be had at once: the one that the request is pinned to always can.

        :returns: the connection, or ``None``: then nothing has happened, and :meth:`check_out` is to be called.
        """
        pin = request.pinned_to()
        if pin is not None:
            return self._use(pin, request)
        if not request.may_pin():
            return super().check_out_now(request)
        check_out = _alone(request)
        connection = super().check_out_now(check_out)
        return None if connection is None else self._pin(check_out, request)

    def check_out(self, request: CheckOut, deadline: Deadline, *, again: bool = False) -> Deferred[Connection]:
        """Check a connection out, waiting for one if need be.

        :returns: a Deferred as that of :meth:`Pool.check_out`.
        """
        pin = request.pinned_to()
        if pin is not None:
            return succeed(self._use(pin, request))
        if not request.may_pin():
            return super().check_out(request, deadline, again=again)
        check_out = _alone(request)
        waiting = super().check_out(check_out, deadline, again=again)
        return waiting.addCallback(lambda _: self._pin(check_out, request))

    def check_in(self, request: CheckOut, *, abandoned: bool = False) -> None:
        """Give a connection back, to its pin if there is one.

        :raises ValueError: the request has no connection of this pool.
        """
        if request.pin is None:
            super().check_in(request, abandoned=abandoned)
        else:
            request.pin.give_back(request)

    def _pin(self, check_out: CheckOut, request: CheckOut) -> Connection:
        assert check_out.connection is not None
        pin = self._pins[check_out.connection] = Pin(self, check_out, check_out.connection)
        return pin.use(request, self._seconds())

    def _use(self, pin: Pin, request: CheckOut) -> Connection:
        connection = pin.use(request, self._seconds())
        if self._watch.call is None and self._watches_all:
            self._watch.arm()
        return connection

    def unpin(self, pin: Pin, check_out: CheckOut, *, abandoned: bool) -> None:
        """Nobody keeps a connection any more.

        :param abandoned: a reply is still to come on it.
        """
        del self._pins[pin.connection]
        super().check_in(check_out, abandoned=abandoned)

    def _busy(self) -> list[Connection]:
        """Those on which something is in flight: not those that are only kept."""
        pins = self._pins
        return [each for each in super()._busy() if each not in pins or pins[each].in_use]

    def _pinned(self) -> PinnedConnections:
        holders = Counter(pin.holder for pin in self._pins.values())
        return PinnedConnections(cursors=holders[Holder.CURSOR], transactions=holders[Holder.TRANSACTION])


def _alone(request: CheckOut) -> CheckOut:
    """What is checked out for a request that may pin."""
    check_out = CheckOut("pinned", exclusive=True)
    check_out.patient = request.patient
    return check_out
