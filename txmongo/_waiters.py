"""A request in flight on a connection: who waits for its reply, and how that reply is read.

In which order requests are answered, and what a reply that nobody waits for means to the connection, is
:class:`txmongo.protocol.MongoProtocol`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Protocol

import bson
from bson.codec_options import CodecOptions
from twisted.internet.defer import Deferred

from txmongo import _pymongo
from txmongo._wire.arriving import ArrivingBatch, undisturbed
from txmongo._wire.decoder import Decoder, Frame
from txmongo._wire.envelope import LARGE, take_times
from txmongo._wire.header import HEADER
from txmongo._wire.op_msg import BODY_OFFSET, Msg
from txmongo.errors import AutoReconnect, ProtocolError, error_from_reply

__all__ = ["BatchWaiter", "CommandWaiter", "LateWaiter", "Waiter", "reply_document"]


class Abortable(Protocol):
    """What a waiter needs of its connection."""

    def abort(self, reason: BaseException) -> None:
        """Cut it at once."""


class Waiter:
    """A request in flight: which reply is its, and who waits for it."""

    __slots__ = ("_protocol", "deferred", "on_reply", "request_id")

    def __init__(self, protocol: Abortable, request_id: int, on_reply: Callable[[Msg], None] | None) -> None:
        self._protocol = protocol
        self.request_id = request_id
        self.on_reply = on_reply
        #: ``None`` once nobody waits any more: the reply is still to come and will be dropped.
        self.deferred: Deferred[Any] | None = Deferred(self.cancelled)

    def take(self, reply: Any) -> Any:
        """What the Deferred fires with for a reply."""
        return reply

    def drop(self, reply: Any) -> None:
        """A reply has come, and nobody waits for it."""

    def decode_ahead(self, decoder: Decoder) -> None:
        """A large message arrives, while this request is the oldest in flight: take out of it what can be."""

    def cancelled(self, _deferred: Deferred[Any]) -> None:
        """The caller gave up; Deferred.cancel fails it with CancelledError after this returns."""
        self.deferred = None
        if self.on_reply is not None:
            # A stream has no last reply to wait for: only the end of the connection stops the server.
            self._protocol.abort(AutoReconnect("a stream of replies was cancelled"))


class CommandWaiter(Waiter):
    """A command of ``MongoProtocol.send_msg`` in flight; it reads its own reply, which saves a callback."""

    # Only BatchWaiter has a batch, only LateWaiter has on_late; the places are here so that a waiter can become one.
    __slots__ = ("allowable_errors", "batch", "check", "clock", "codec_options", "on_late", "user_fields")

    batch: ArrivingBatch
    on_late: Callable[[bytes], None]

    def __init__(
        self,
        protocol: Abortable,
        msg: Msg,
        request_id: int,
        codec_options: CodecOptions[Any],
        check: bool,
        allowable_errors: Container[int | str] | None,
    ) -> None:
        self._protocol = protocol
        self.request_id = request_id
        self.on_reply = None
        self.deferred = Deferred(self.cancelled)
        self.codec_options = codec_options
        self.user_fields = msg.user_fields
        self.clock = msg.clock
        self.check = check
        self.allowable_errors = allowable_errors

    def read(self, frame: Frame) -> Any:
        """The reply's document.

        :param frame: a message whose one section is a document.
        :raises PyMongoError: it says of an error.
        """
        if self.clock is not None:
            # A bytearray is larger than what it looks into.
            content = take_times(frame, self.clock)  # type: ignore[arg-type]
            if content is not None:
                document: Any = bson.decode(content, self.codec_options)
                document["ok"] = 1.0
                return document
        # Not sliced: of a large reply a copy costs as much as a part of the decoding.
        body = memoryview(frame)[BODY_OFFSET:]
        return _document(body, self.codec_options, self.user_fields, self.check, self.allowable_errors)

    def take(self, reply: Any) -> Any:
        """:meth:`read` for a message of any shape."""
        if not isinstance(reply, Msg):
            raise ProtocolError("the server answered a command by a message that is no OP_MSG")
        return _document(reply.body, self.codec_options, self.user_fields, self.check, self.allowable_errors)

    def decode_ahead(self, decoder: Decoder) -> None:
        """Become a :class:`BatchWaiter` if the message is the reply and a batch."""
        _, _, response_to, _ = HEADER.unpack_from(decoder.buffer)
        if self.deferred is not None and response_to == self.request_id:
            batch = ArrivingBatch.begin(decoder, self.codec_options)
            if batch is not None:
                self.batch = batch
                self.__class__ = BatchWaiter
                batch.take(decoder)

    def show_late(self, on_late: Callable[[bytes], None]) -> None:
        """Become a :class:`LateWaiter`.

        :param on_late: called with the reply's document in BSON, should it come while nobody waits for it.
        """
        self.on_late = on_late
        self.__class__ = LateWaiter


class BatchWaiter(CommandWaiter):
    """A command in flight whose reply is a batch that is decoded while it arrives."""

    __slots__ = ()

    def decode_ahead(self, decoder: Decoder) -> None:
        """Take out what has come since."""
        self.batch.take(decoder)

    def take(self, reply: Msg) -> Any:
        """What was left of the reply when all of it had come, with the documents that were taken out of it."""
        document = _document(reply.body, self.codec_options, self.user_fields, False, None)
        self.batch.complete(document)
        return _checked(document, self.check, self.allowable_errors)


class LateWaiter(CommandWaiter):
    """A command in flight for which nobody waits, but whose reply somebody is to see all the same."""

    __slots__ = ()

    def drop(self, reply: Any) -> None:
        """Show it, if it is one."""
        if isinstance(reply, Msg):
            self.on_late(bytes(reply.body))


def reply_document(
    reply: Any,
    codec_options: CodecOptions[Any],
    user_fields: Mapping[str, Any] | None,
    check: bool,
    allowable_errors: Container[int | str] | None,
) -> Any:
    """The document of a reply, checked.

    :param reply: a Msg; ``None`` for an unacknowledged command, or a document that came on another connection, are left
        as they are.
    """
    if not isinstance(reply, Msg):
        return reply
    return _document(reply.body, codec_options, user_fields, check, allowable_errors)


def _document(
    body: bytes | memoryview,
    codec_options: CodecOptions[Any],
    user_fields: Mapping[str, Any] | None,
    check: bool,
    allowable_errors: Container[int | str] | None,
) -> Any:
    """Decode the document of a reply and check it: the last step of every command."""
    if len(body) > LARGE:
        document = undisturbed(_decode, body, codec_options, user_fields)
    else:
        document = _decode(body, codec_options, user_fields)
    return _checked(document, check, allowable_errors)


def _decode(body: bytes | memoryview, codec_options: CodecOptions[Any], user_fields: Mapping[str, Any] | None) -> Any:
    """Decode the document of a reply."""
    if user_fields is None:
        return bson.decode(body, codec_options)
    return _pymongo.decode_all_selective(body, codec_options, user_fields)[0]


def _checked(document: Any, check: bool, allowable_errors: Container[int | str] | None) -> Any:
    """The document of a reply, unless it is an error that is to be raised."""
    if check and document.get("ok") != 1:
        error = error_from_reply(document, allowable_errors)
        if error is not None:
            raise error
    return document
