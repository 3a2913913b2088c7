"""What the driver does with Twisted's transports beyond their interface: shortcuts for those that have them.

A transport that has none is used as any other.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.protocols.policies import ProtocolWrapper

__all__ = ["PART", "LargeParts", "direct_write", "large_parts", "leave_rest", "write_on"]

#: Bytes of a large message that are waited for and read at once; with less than twice that to come it is read as ever.
#: TLS may hold back a record of what it has received: that much must be left over.
PART: Final = 256 * 1024


def direct_write(transport: Any) -> Callable[[bytes], Any] | None:
    """The method by which a transport can be written to at once; ``None`` for one that has none of its own.

    It is looked for on the transport's class alone: a TLS transport lends the attributes of the one below it, and what
    is written there leaves in plain text.
    """
    if not hasattr(type(transport), "writeSomeData") or getattr(transport, "TLS", False):
        return None
    write_some: Callable[[bytes], Any] = transport.writeSomeData
    return write_some


def write_on(write_some: Callable[[bytes], Any], data: bytes, written: Any) -> int:
    """Go on handing a large message to the kernel while it takes some: Twisted offers it no more than 128 KiB at once.

    :param written: how much the first call has written, or the error that it met.
    :returns: how much is written in all; after an error too, which the transport will meet again and report itself.
    """
    view = memoryview(data)
    start = 0
    while isinstance(written, int) and written > 0:
        start += written
        # It looks at it through a view anyway.
        written = write_some(view[start:]) if start < len(data) else 0  # type: ignore[arg-type]
    return start


def leave_rest(transport: Any, data: bytes, start: int) -> None:
    """Leave to a transport whose buffer is empty what the kernel did not take of a message.

    What Twisted buffers for a socket is a bytes object and how much of it was sent: that may be the whole message. To
    copy what is left of 48 MB would take ten milliseconds and more.
    """
    if isinstance(transport, FileDescriptor) and transport.connected and not transport.dataBuffer:
        transport.dataBuffer = data
        transport.offset = start
        transport.startWriting()
    else:
        transport.write(data[start:])


class LargeParts:
    """Has a large message received in large parts, where otherwise the reactor would come round for each segment.

    The kernel is told to report the socket as readable only when so much is there (``SO_RCVLOWAT``). It does that for
    the end of the stream and for errors all the same, and where its own buffer is smaller.

    :ivar expected: whether a large part is what comes next.
    """

    __slots__ = ("_plain", "_socket", "expected")

    def __init__(self, connection: tcp.Connection, *, plain: bool) -> None:
        """
        :param plain: what comes from the socket are the message's bytes as they are.
        """
        self.expected = False
        self._socket = connection.getHandle()
        self._plain = plain

    def expect(self, size: int) -> None:
        """Be ready for the rest of a message.

        :param size: its bytes; 0 if the next message may be of any size.
        """
        expected = size >= 2 * PART
        if expected is not self.expected:
            self.expected = expected
            # The socket may be closed by now.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, PART if expected else 1)

    def read_into(self, room: memoryview) -> int:
        """Take what is there of a large part from the socket, past the transport, which would copy it.

        :returns: how many bytes; 0 where the transport has to find out itself why there are none.
        """
        if not self._plain or not self.expected:
            return 0
        try:
            return self._socket.recv_into(room)
        except OSError:
            return 0


def large_parts(transport: Any) -> LargeParts | None:
    """What receives large messages from a transport in large parts; ``None`` for one that is not over a socket."""
    connection = transport
    while isinstance(connection, ProtocolWrapper):
        connection = connection.transport
    if not isinstance(connection, tcp.Connection):
        return None
    return LargeParts(connection, plain=connection is transport and not connection.TLS)
