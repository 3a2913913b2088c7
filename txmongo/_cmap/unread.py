"""The last unacknowledged write of a pool, for as long as the server may not have read it.

The server does not answer it, so nobody hears when it has been read; and on another connection the next request might
be. As long as that may be so, what follows is sent on the write's own connection. It was read for certain when a reply
has come to something that was sent there after it.
"""

from __future__ import annotations

from collections.abc import Callable

from txmongo._cmap.connection import Connection

__all__ = ["UnreadWrite"]


class UnreadWrite:
    """Where the last unacknowledged write went.

    :ivar connection: its connection; ``None`` if there was no such write, or it was read, or lost with its connection.
    """

    __slots__ = ("_ahead", "_changed", "connection")

    def __init__(self, changed: Callable[[], None]) -> None:
        """
        :param changed: called when ``connection`` has become another one or none.
        """
        self.connection: Connection | None = None
        self._changed = changed
        #: How many replies are still to come to what was sent before the write.
        self._ahead = 0

    def sent(self, connection: Connection) -> None:
        """A write was sent, and is not counted among what is in flight."""
        self.connection = connection
        self._ahead = len(connection.in_flight)
        self._changed()

    def replied(self) -> None:
        """A reply has come on its connection."""
        if self._ahead:
            self._ahead -= 1
        else:
            self.forget()

    def forget(self) -> None:
        """Nothing has to follow it any more."""
        self.connection = None
        self._changed()
