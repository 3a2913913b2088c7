"""The two halves of a protocol by which programs speak MongoDB's wire protocol themselves: one sends, one receives.

Their interface is TxMongo's. Both know every opcode and neither knows of requests that wait for their replies: that is
:class:`txmongo.protocol.MongoProtocol`'s, which is both.
"""

from __future__ import annotations

import abc
from collections import deque
from typing import Any

from twisted.internet.protocol import Protocol

from txmongo._legacy.messages import (
    MESSAGE_TYPES,
    Delete,
    Getmore,
    Insert,
    KillCursors,
    Msg,
    Query,
    Reply,
    Update,
)
from txmongo._wire.decoder import Decoder, Frame, decode_message
from txmongo._wire.header import OP_NAMES, next_request_id
from txmongo.errors import ProtocolError

__all__ = [
    "MongoClientProtocol",
    "MongoDecoder",
    "MongoReceiverProtocol",
    "MongoSenderProtocol",
    "MongoServerProtocol",
]

AnyMessage = Any


class MongoDecoder:
    """Bytes in, messages out: the wire format without a connection.

    :ivar dataBuffer: the bytes that were fed and not yet taken as messages.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()

    @property
    def dataBuffer(self) -> bytes:
        """The bytes of messages that nobody has taken yet, whole or not."""
        return b"".join(self._frames) + self._decoder.pending

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the network, cut anywhere.

        :param data: the bytes.
        :raises ProtocolError: they are not the MongoDB wire protocol; nothing more can be decoded.
        """
        self._frames.extend(self._decoder.feed(data))

    def __next__(self) -> AnyMessage:
        """The next whole message, or ``None`` if more bytes are needed."""
        return self.decode(self._frames.popleft()) if self._frames else None

    next = __next__

    def __iter__(self) -> MongoDecoder:
        return self

    @staticmethod
    def decode(message_data: Frame) -> AnyMessage:
        """The message that a whole frame holds.

        :param message_data: its bytes, header included.
        :returns: one of the classes of this module.
        :raises ProtocolError: the frame is not a well-formed message.
        """
        return decode_message(message_data, message_types=MESSAGE_TYPES)


class MongoReceiverProtocol(Protocol, abc.ABC):
    """Receives messages of any kind and hands each to :meth:`handle`, which subclasses define.

    A message that is not MongoDB's wire protocol closes the connection through :meth:`fail`.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()

    def dataReceived(self, data: bytes) -> None:
        """Decode ``data`` and hand each whole message to :meth:`handle`."""
        try:
            for frame in self._decoder.feed(data):
                self.handle(decode_message(frame, message_types=MESSAGE_TYPES))
        except ProtocolError as error:
            self.fail(error)

    def fail(self, reason: Any) -> None:
        """Close the connection because of ``reason``, an exception or a Failure."""
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()

    @abc.abstractmethod
    def handle(self, request: AnyMessage) -> None:
        """Take a message: one of the classes of this module."""


class MongoServerProtocol(MongoReceiverProtocol):
    """Receives messages of any kind and calls a hook for each: the base of fake servers and proxies.

    A subclass overrides the hooks it cares about; the others do nothing. Each has two names: ``handle_query``, which is
    called, and TxMongo 15.2's ``handle_QUERY``, which that calls unless it is overridden. ``request`` is the message,
    one of the classes of this module; an exception that a hook raises closes the connection and is logged by Twisted.
    """

    def handle(self, request: AnyMessage) -> None:
        """Call the hook for a message's kind."""
        hook = getattr(self, "handle_" + OP_NAMES[request.opcode].lower(), None)
        if hook is not None:
            hook(request)

    def handle_reply(self, request: Reply) -> None:
        """An OP_REPLY came; calls :meth:`handle_REPLY`."""
        self.handle_REPLY(request)

    def handle_msg(self, request: Msg) -> None:
        """An OP_MSG came; calls :meth:`handle_MSG`."""
        self.handle_MSG(request)

    def handle_update(self, request: Update) -> None:
        """An OP_UPDATE came; calls :meth:`handle_UPDATE`."""
        self.handle_UPDATE(request)

    def handle_insert(self, request: Insert) -> None:
        """An OP_INSERT came; calls :meth:`handle_INSERT`."""
        self.handle_INSERT(request)

    def handle_query(self, request: Query) -> None:
        """An OP_QUERY came; calls :meth:`handle_QUERY`."""
        self.handle_QUERY(request)

    def handle_getmore(self, request: Getmore) -> None:
        """An OP_GET_MORE came; calls :meth:`handle_GETMORE`."""
        self.handle_GETMORE(request)

    def handle_delete(self, request: Delete) -> None:
        """An OP_DELETE came; calls :meth:`handle_DELETE`."""
        self.handle_DELETE(request)

    def handle_kill_cursors(self, request: KillCursors) -> None:
        """An OP_KILL_CURSORS came; calls :meth:`handle_KILL_CURSORS`."""
        self.handle_KILL_CURSORS(request)

    def handle_REPLY(self, request: Reply) -> None:
        """An OP_REPLY came."""

    def handle_MSG(self, request: Msg) -> None:
        """An OP_MSG came."""

    def handle_UPDATE(self, request: Update) -> None:
        """An OP_UPDATE came."""

    def handle_INSERT(self, request: Insert) -> None:
        """An OP_INSERT came."""

    def handle_QUERY(self, request: Query) -> None:
        """An OP_QUERY came."""

    def handle_GETMORE(self, request: Getmore) -> None:
        """An OP_GET_MORE came."""

    def handle_DELETE(self, request: Delete) -> None:
        """An OP_DELETE came."""

    def handle_KILL_CURSORS(self, request: KillCursors) -> None:
        """An OP_KILL_CURSORS came."""


class MongoClientProtocol(Protocol):
    """Sends messages of any kind, the legacy ones included, without waiting for anything.

    ``request`` is the message, one of the classes of this module; it is sent under a new request id.
    """

    def get_request_id(self) -> int:
        """A request id that no other request of this process uses at the moment."""
        return next_request_id()

    def send(self, request: AnyMessage) -> Any:
        """Send a message by the method for its kind; returns what that returns."""
        return getattr(self, "send_" + OP_NAMES[request.opcode])(request)

    def _send(self, request: AnyMessage) -> int:
        """Encode a message under a new request id and write it; returns the id."""
        request_id = self.get_request_id()
        assert self.transport is not None
        self.transport.write(request.encode(request_id))
        return request_id

    def send_REPLY(self, request: Reply) -> int:
        """Send an OP_REPLY; returns its request id."""
        return self._send(request)

    def send_MSG(self, request: Msg) -> int:
        """Send an OP_MSG; returns its request id."""
        return self._send(request)

    def send_UPDATE(self, request: Update) -> int:
        """Send an OP_UPDATE (MongoDB up to 5.0); returns its request id."""
        return self._send(request)

    def send_INSERT(self, request: Insert) -> int:
        """Send an OP_INSERT (MongoDB up to 5.0); returns its request id."""
        return self._send(request)

    def send_QUERY(self, request: Query) -> Any:
        """Send an OP_QUERY (MongoDB up to 5.0, beyond that only a hello); returns its request id."""
        return self._send(request)

    def send_GETMORE(self, request: Getmore) -> Any:
        """Send an OP_GET_MORE (MongoDB up to 5.0); returns its request id."""
        return self._send(request)

    def send_DELETE(self, request: Delete) -> int:
        """Send an OP_DELETE (MongoDB up to 5.0); returns its request id."""
        return self._send(request)

    def send_KILL_CURSORS(self, request: KillCursors) -> int:
        """Send an OP_KILL_CURSORS (MongoDB up to 5.0); returns its request id."""
        return self._send(request)


MongoSenderProtocol = MongoClientProtocol
