"""Connections without a network: two protocols in one process, their bytes carried by delayed calls of a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer, interfaces, main, protocol
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(interfaces.IAddress)
class MemoryAddress:
    """Where an in-memory connection goes: nowhere."""


@implementer(interfaces.ITransport)
class MemoryTransport:
    """One end of an in-memory connection.

    What is written reaches the other end in the clock's next turn, so that nothing is called back from inside a call.

    :ivar disconnecting: set once :meth:`loseConnection` was called.
    """

    def __init__(self, clock: interfaces.IReactorTime, own: protocol.Protocol) -> None:
        self.disconnecting = False
        self.own = own
        self.other: MemoryTransport | None = None
        self._clock = clock
        self._open = True

    def write(self, data: bytes) -> None:
        """Send bytes to the other end."""
        if self._open and not self.disconnecting and data:
            self._clock.callLater(0, self._deliver, bytes(data))

    def writeSequence(self, data: Any) -> None:
        """Send pieces of bytes to the other end."""
        self.write(b"".join(data))

    def _deliver(self, data: bytes) -> None:
        other = self.other
        if other is not None and other._open and not other.disconnecting:
            other.own.dataReceived(data)

    def loseConnection(self) -> None:
        """Close the connection after what was written has arrived."""
        if not self.disconnecting:
            self.disconnecting = True
            self._clock.callLater(0, self._close, main.CONNECTION_DONE)

    def abortConnection(self) -> None:
        """Close the connection at once."""
        self.disconnecting = True
        self._close(main.CONNECTION_LOST)

    def _close(self, reason: Exception) -> None:
        for end in (self, self.other):
            if end is not None and end._open:
                end._open = False
                self._clock.callLater(0, end.own.connectionLost, Failure(reason))

    def getPeer(self) -> interfaces.IAddress:
        """The address of the other end."""
        return MemoryAddress()

    def getHost(self) -> interfaces.IAddress:
        """The address of this end."""
        return MemoryAddress()


@implementer(interfaces.IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to a server in the same process.

    :param clock: carries the bytes; a :class:`twisted.internet.task.Clock` in unit tests.
    :param accept: makes the server's protocol for a new connection, or raises what the client is to fail with.
    """

    def __init__(self, clock: interfaces.IReactorTime, accept: Callable[[], protocol.Protocol]) -> None:
        self._clock = clock
        self._accept = accept

    def connect(self, protocolFactory: interfaces.IProtocolFactory) -> defer.Deferred[Any]:
        """Connect in the clock's next turn; the Deferred fires with the client's protocol."""
        call: Any = None
        connecting: defer.Deferred[Any] = defer.Deferred(lambda _: call.cancel())
        call = self._clock.callLater(0, self._connect, protocolFactory, connecting)
        return connecting

    def _connect(self, factory: interfaces.IProtocolFactory, connecting: defer.Deferred[Any]) -> None:
        try:
            theirs = self._accept()
        except Exception as error:
            connecting.errback(Failure(error))
            return
        ours: Any = factory.buildProtocol(MemoryAddress())
        near, far = MemoryTransport(self._clock, ours), MemoryTransport(self._clock, theirs)
        near.other, far.other = far, near
        theirs.makeConnection(far)
        ours.makeConnection(near)
        connecting.callback(ours)
