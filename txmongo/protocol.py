"""The MongoDB wire protocol as Twisted Protocols: bytes to messages, a request to its Deferred, and nothing above that.

What the bytes mean is :mod:`txmongo._wire`'s; which connection a command takes, what it retries and when it times out
is decided above. :class:`MongoProtocol` *pipelines*: any number of requests may be in flight on one connection, and
since a MongoDB server answers the requests of a connection in their order, each reply belongs to the oldest request
that still waits.

The interface is that of TxMongo: :class:`MongoClientProtocol` sends, :class:`MongoServerProtocol` receives and calls a
hook for each kind of message (the base of fake servers and proxies), :class:`MongoProtocol` is both.

Who waits for a reply, and how it is read, is :mod:`txmongo._waiters`'. Much of what stands here is names: they have
been this module's since TxMongo 15.2, wherever they are defined today. The rest is one class, since what a connection
sends, receives and does when it is lost turns on the same queue of waiters.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmongo._auth import MongoAuthenticationError
from txmongo._legacy.last_error import NOT_ANSWERED
from txmongo._legacy.messages import (
    DELETE_SINGLE_REMOVE,
    INSERT_CONTINUE_ON_ERROR,
    MESSAGE_TYPES,
    OP_MSG_CHECKSUM_PRESENT,
    OP_MSG_EXHAUST_ALLOWED,
    OP_MSG_MORE_TO_COME,
    QUERY_AWAIT_DATA,
    QUERY_EXHAUST,
    QUERY_NO_CURSOR_TIMEOUT,
    QUERY_OPLOG_REPLAY,
    QUERY_PARTIAL,
    QUERY_SLAVE_OK,
    QUERY_TAILABLE_CURSOR,
    REPLY_AWAIT_CAPABLE,
    REPLY_CURSOR_NOT_FOUND,
    REPLY_QUERY_FAILURE,
    REPLY_SHARD_CONFIG_STALE,
    UPDATE_MULTI,
    UPDATE_UPSERT,
    BaseMessage,
    Delete,
    Getmore,
    Insert,
    KillCursors,
    Msg,
    Query,
    Reply,
    Update,
    check_reply,
)
from txmongo._legacy.protocol_methods import DEFAULT_MAX_BSON_SIZE, DEFAULT_MAX_WRITE_BATCH_SIZE, ProtocolMethods
from txmongo._legacy.protocols import (
    AnyMessage,
    MongoClientProtocol,
    MongoDecoder,
    MongoReceiverProtocol,
    MongoSenderProtocol,
    MongoServerProtocol,
)
from txmongo._reauthentication import Reauthentication
from txmongo._transports import PART, LargeParts, direct_write, large_parts, leave_rest, write_on
from txmongo._waiters import CommandWaiter, Waiter, reply_document
from txmongo._wire.decoder import Frame, decode_message
from txmongo._wire.header import (
    DEFAULT_MAX_MESSAGE_SIZE,
    OP_COMPRESSED,
    OP_DELETE,
    OP_GET_MORE,
    OP_INSERT,
    OP_KILL_CURSORS,
    OP_MSG,
    OP_MSG_LEGACY,
    OP_NAMES,
    OP_QUERY,
    OP_REPLY,
    OP_UPDATE,
    next_request_id,
)
from txmongo._wire.op_compressed import compress_command, decompress
from txmongo._wire.op_msg import BODY_OFFSET, MORE_TO_COME, SMALLEST_REPLY, encode_command, single_body
from txmongo._wire.op_msg import Msg as OpMsg
from txmongo.errors import (
    AutoReconnect,
    InvalidOperation,
    ProtocolError,
    PyMongoError,
)

__all__ = [
    "DEFAULT_MAX_BSON_SIZE",
    "DEFAULT_MAX_MESSAGE_SIZE",
    "DEFAULT_MAX_WRITE_BATCH_SIZE",
    "DELETE_SINGLE_REMOVE",
    "INSERT_CONTINUE_ON_ERROR",
    "INT_MAX",
    "OP_COMPRESSED",
    "OP_DELETE",
    "OP_GETMORE",
    "OP_INSERT",
    "OP_KILL_CURSORS",
    "OP_MSG",
    "OP_MSG_CHECKSUM_PRESENT",
    "OP_MSG_EXHAUST_ALLOWED",
    "OP_MSG_LEGACY",
    "OP_MSG_MORE_TO_COME",
    "OP_NAMES",
    "OP_QUERY",
    "OP_REPLY",
    "OP_UPDATE",
    "QUERY_AWAIT_DATA",
    "QUERY_EXHAUST",
    "QUERY_NO_CURSOR_TIMEOUT",
    "QUERY_OPLOG_REPLAY",
    "QUERY_PARTIAL",
    "QUERY_SLAVE_OK",
    "QUERY_TAILABLE_CURSOR",
    "REPLY_AWAIT_CAPABLE",
    "REPLY_CURSOR_NOT_FOUND",
    "REPLY_QUERY_FAILURE",
    "REPLY_SHARD_CONFIG_STALE",
    "UPDATE_MULTI",
    "UPDATE_UPSERT",
    "BaseMessage",
    "Delete",
    "Getmore",
    "Insert",
    "KillCursors",
    "MongoAuthenticationError",
    "MongoClientProtocol",
    "MongoDecoder",
    "MongoProtocol",
    "MongoReceiverProtocol",
    "MongoSenderProtocol",
    "MongoServerProtocol",
    "Msg",
    "Query",
    "Reply",
    "Update",
]

OP_GETMORE = OP_GET_MORE

INT_MAX = 2**31 - 1

_log = Logger(namespace="txmongo.protocol")

_OLD_WRITES = frozenset({OP_INSERT, OP_UPDATE, OP_DELETE})

_ids_and_opcode = struct.Struct("<iii").unpack_from
#: The length, the request that is answered, the opcode with the flag bits and the kind of the first section, and the
#: length of its document.
_start_of_reply = struct.Struct("<i4xi9si").unpack_from
_PLAIN_START = struct.pack("<iIB", OP_MSG, 0, 0)


class MongoProtocol(ProtocolMethods, MongoServerProtocol, MongoClientProtocol):
    """One connection to a MongoDB server.

    It may be used on its own, without a pool: ``connectionReady()`` tells when it is connected, :meth:`command` and
    :meth:`send_msg` send commands.

    :ivar max_message_size: bytes; a longer message from the server closes the connection.
    :ivar compressor: what the handshake agreed on, or ``None``.
    :ivar last_write: the reply to the last write command of the driver's, kept for :meth:`get_last_error`.
    :ivar uri: the connection string of its client in parts, once ``getprotocols()`` has given it out.
    :ivar seconds: the clock.
    :ivar last_received_at: when bytes last came, on that clock.
    :ivar in_large_parts: whether a large message may be received in parts of 256 KiB, each heard of when it is whole.
    :ivar reauthentication: authenticates the connection again; ``None`` if nobody was authenticated on it.
    :ivar lost_hook: called once with the Failure of ``connectionLost``, after every waiter has failed.
    :ivar late_reply_hook: called when the reply of a request comes for which nobody waits any more.
    """

    compressor: Any = None
    in_large_parts = True
    reauthentication: Reauthentication | None = None
    lost_hook: Callable[[Failure], None] | None = None
    late_reply_hook: Callable[[], None] | None = None

    def __init__(self) -> None:
        MongoServerProtocol.__init__(self)
        self.seconds: Callable[[], float] = time.monotonic
        self.last_received_at = 0.0
        self._waiters: deque[Waiter] = deque()
        self._ready: list[Deferred[MongoProtocol]] = []
        self._abort_reason: BaseException | None = None
        self._lost = False
        # The last request that was left to the transport's buffer; once it was answered the buffer is known to be
        # empty.
        self._buffered_id = 0
        self._write_some: Callable[[bytes], Any] | None = None
        self._large_parts: LargeParts | None = None
        self._decoder.on_full = self._decode_ahead

    @property
    def max_message_size(self) -> int:
        """The longest message in bytes that is taken from the server."""
        return self._decoder.max_message_size

    @max_message_size.setter
    def max_message_size(self, size: int) -> None:
        self._decoder.max_message_size = size

    @property
    def in_flight(self) -> int:
        """How many requests the server has yet to answer, those counted for which nobody waits any more."""
        return len(self._waiters)

    def inflight(self) -> int:
        """How many requests have somebody waiting for their reply; TxMongo 15.2's name."""
        return sum(1 for waiter in self._waiters if waiter.deferred is not None)

    # --- the connection's life ---

    def connectionMade(self) -> None:
        """The transport is connected: wake those who wait in :meth:`connectionReady`."""
        self.last_received_at = self.seconds()
        self._write_some = direct_write(self.transport)
        self._large_parts = large_parts(self.transport)
        ready, self._ready = self._ready, []
        for waiter in ready:
            waiter.callback(self)

    def connectionReady(self) -> Deferred[MongoProtocol]:
        """Wait until the transport is connected.

        :returns: a Deferred that fires with this protocol; it fails with :class:`~txmongo.errors.AutoReconnect` if the
            connection was or gets lost before that.
        """
        if self._lost:
            return fail(self._loss_error())
        if self.connected:
            return succeed(self)
        waiter: Deferred[MongoProtocol] = Deferred(self._forget_ready)
        self._ready.append(waiter)
        return waiter

    notifyReady = connectionReady

    @property
    def instance(self) -> MongoProtocol | None:
        """This protocol as long as it is connected, else ``None``; for what TxMongo's ``getprotocols()`` gave."""
        return self if self.connected else None

    def _forget_ready(self, waiter: Deferred[MongoProtocol]) -> None:
        self._ready.remove(waiter)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone: every waiter fails once with :class:`~txmongo.errors.AutoReconnect`."""
        if self._lost:
            return
        self._lost = True
        self.connected = 0
        self._decoder.on_full = None
        if self._abort_reason is None:
            self._abort_reason = reason.value
        ready, self._ready = self._ready, []
        waiters, self._waiters = self._waiters, deque()
        for waiting in ready:
            waiting.errback(self._loss_error())
        for waiter in waiters:
            deferred, waiter.deferred = waiter.deferred, None
            if deferred is not None:
                deferred.errback(self._loss_error())
        if self.reauthentication is not None:
            self.reauthentication.lost(self._loss_error)
        if self.lost_hook is not None:
            self.lost_hook(reason)

    def abort(self, reason: BaseException) -> None:
        """Cut the connection at once; what waits fails because of ``reason``, and new requests are refused with it."""
        if self._abort_reason is None:
            self._abort_reason = reason
        transport = self.transport
        if transport is not None:
            # Not every transport can be aborted, such as a process's.
            getattr(transport, "abortConnection", transport.loseConnection)()

    def close(self) -> None:
        """Close the connection after what was written has left; new requests are refused."""
        if self._abort_reason is None:
            self._abort_reason = ConnectionDone("closed by the client")
        if self.transport is not None:
            self.transport.loseConnection()

    def fail(self, reason: Any) -> None:
        """Cut the connection because of ``reason``, an exception or a Failure: TxMongo 15.2's name of :meth:`abort`."""
        error: Any = reason.value if isinstance(reason, Failure) else reason
        self.abort(error)

    def _loss_error(self) -> PyMongoError:
        """A new exception that says why this connection cannot be used; one each, for callers add labels to theirs."""
        reason = self._abort_reason
        if isinstance(reason, AutoReconnect):
            error: PyMongoError = type(reason)(str(reason), reason.errors)
        else:
            error = AutoReconnect(f"{self._peer()}: connection closed: {reason}")
        error.__cause__ = reason
        return error

    def _peer(self) -> str:
        peer = self.transport.getPeer() if self.transport is not None else None
        host = getattr(peer, "host", None)
        return f"{host}:{getattr(peer, 'port', '')}" if host is not None else str(getattr(peer, "name", "server"))

    # --- sending ---

    def send_msg(
        self,
        msg: OpMsg,
        codec_options: CodecOptions[Any],
        session: Any,
        *,
        check: bool = True,
        allowable_errors: Container[int | str] | None = None,
    ) -> Deferred[Any]:
        """Send an application's command: the one door through which every one of them leaves, once per try.

        It may be wrapped, to trace; the executor calls it by this name for each command.

        :param msg: the command.
        :param codec_options: how the reply is decoded.
        :param session: the session that the command carries, for those who trace; already part of ``msg``.
        :param check: make an exception of a reply whose ``ok`` is not 1.
        :param allowable_errors: codes and messages that ``check`` lets pass.
        :returns: a Deferred that fires with the reply document, or with ``None`` at once if ``msg`` is unacknowledged.
            It fails with what :func:`~txmongo.errors.error_from_reply` makes of an error reply,
            :class:`~txmongo.errors.AutoReconnect` if the connection is lost, ``CancelledError`` if it is cancelled: the
            server may then still carry the command out, its late reply is dropped and the connection lives on.
        """
        if getattr(self._send_raw_msg, "__func__", None) is not _send_raw_msg:
            # Somebody put another in its place and is to see every message.
            deferred = self._send_raw_msg(msg)
            deferred.addCallback(reply_document, codec_options, msg.user_fields, check, allowable_errors)
            return deferred
        if self._abort_reason is not None:
            return fail(self._loss_error())
        request_id, data = msg.request_id, msg.wire
        if data is None or not request_id or self.compressor is not None:
            request_id, data = self._encoded(msg)
        if msg.flag_bits & MORE_TO_COME:
            self._write_buffered(data, request_id)
            return succeed(None)
        waiter = CommandWaiter(self, msg, request_id, codec_options, check, allowable_errors)
        return self._write_request(data, waiter)

    def _send_raw_msg(self, msg: OpMsg) -> Deferred[Any]:
        """Send a command; the Deferred fires with the reply as a Msg, or with None at once if there will be none."""
        if self._abort_reason is not None:
            return fail(self._loss_error())
        request_id, data = self._encoded(msg)
        if msg.flag_bits & MORE_TO_COME:
            self._write_buffered(data, request_id)
            return succeed(None)
        return self._write_request(data, Waiter(self, request_id, None))

    def _encoded(self, msg: OpMsg) -> tuple[int, bytes]:
        """A message's request id and its bytes as they leave."""
        request_id = msg.request_id or next_request_id()
        data = msg.wire
        if data is None or msg.request_id != request_id:
            data = msg.encode(request_id)
        if self.compressor is not None:
            data = compress_command(data, self.compressor)
        return request_id, data

    def stream(self, msg: OpMsg, on_reply: Callable[[OpMsg], None]) -> Deferred[None]:
        """Send a command that is answered more than once (``exhaustAllowed``): exhaust cursors, the streaming hello.

        Nothing else may be in flight on this connection until it ends.

        :param msg: the command.
        :param on_reply: called with each reply, the last included.
        :returns: a Deferred that fires with ``None`` after the reply without ``moreToCome``. It fails with
            :class:`~txmongo.errors.AutoReconnect` if the connection is lost. Cancelling it closes the connection.
        :raises InvalidOperation: other requests are in flight.
        """
        if self._waiters:
            raise InvalidOperation("a stream of replies needs a connection on which nothing else is in flight")
        if self._abort_reason is not None:
            return fail(self._loss_error())
        request_id = next_request_id()
        return self._write_request(msg.encode(request_id), Waiter(self, request_id, on_reply))

    def command(
        self,
        database: str,
        command: Mapping[str, Any],
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
    ) -> Deferred[dict[str, Any]]:
        """Send a command of the driver's own: handshake, authentication, monitoring. It does not pass :meth:`send_msg`.

        :param database: the name of the database that it is for.
        :param command: the whole command, its name first.
        :param codec_options: how it is encoded and its reply decoded.
        :returns: a Deferred that fires with the reply document; it fails as that of :meth:`send_msg`.
        """
        if self._abort_reason is not None:
            return fail(self._loss_error())
        request_id = next_request_id()
        body = bson.encode({**command, "$db": database}, False, codec_options)
        deferred = self._write_request(encode_command(request_id, body), Waiter(self, request_id, None))
        deferred.addCallback(reply_document, codec_options, None, True, None)
        return deferred

    def send_query(self, request: AnyMessage) -> Deferred[Reply]:
        """Send an OP_QUERY and wait for its OP_REPLY; today's servers take only a hello this way.

        :param request: a :class:`Query`.
        :returns: a Deferred that fires with the :class:`Reply`. It fails with
            :class:`~txmongo.errors.OperationFailure` or :class:`~txmongo.errors.NotPrimaryError` if the server says
            that the query failed, :class:`~txmongo.errors.CursorNotFound` for a cursor that it does not know (any
            more), :class:`~txmongo.errors.AutoReconnect` if the connection is lost.
        :raises InvalidOperation: the query has ``QUERY_EXHAUST`` set: its further replies would come unasked.
        """
        if request.opcode == OP_QUERY and request.flags & QUERY_EXHAUST:
            raise InvalidOperation("QUERY_EXHAUST cannot be used: every OP_QUERY has one reply here")
        if self._abort_reason is not None:
            return fail(self._loss_error())
        request_id = next_request_id()
        deferred = self._write_request(request.encode(request_id), Waiter(self, request_id, None))
        return deferred.addCallback(check_reply)

    def resolve(self, request_id: int, document: Mapping[str, Any] | None) -> None:
        """Answer a request of :meth:`send_msg` with what came for its second copy elsewhere; its own reply is dropped.

        :param request_id: the request's.
        :param document: the reply document, decoded and checked.
        """
        for waiter in self._waiters:
            if waiter.request_id == request_id:
                deferred, waiter.deferred = waiter.deferred, None
                if deferred is not None:
                    deferred.callback(document)
                return

    def expect_late(self, request_id: int, on_late: Callable[[bytes], None]) -> None:
        """Have the reply looked at that comes for a request of :meth:`send_msg` for which nobody waits any more.

        :param request_id: its own; one that is not in flight, or that was not sent by that method, is of no account.
        :param on_late: called with the reply's document in BSON; never, if the connection is lost before.
        """
        for waiter in self._waiters:
            if waiter.request_id == request_id and isinstance(waiter, CommandWaiter):
                waiter.show_late(on_late)

    def _write_request(self, data: bytes, waiter: Waiter) -> Deferred[Any]:
        """Register the waiter, then write: a reply can never come for an unknown request."""
        waiters = self._waiters
        if waiters and waiters[-1].on_reply is not None:
            return fail(InvalidOperation("nothing can be sent behind a stream of replies"))
        deferred = waiter.deferred
        assert deferred is not None
        write_some = self._write_some
        # Alone on a connection whose buffer is empty: handing the bytes to the kernel now saves a turn of the reactor
        # and two changes of its interest in the socket. With others in flight, buffering lets many leave in one call.
        if write_some is not None and not waiters and not self._buffered_id:
            waiters.append(waiter)
            written = write_some(data)
            if written == len(data):
                return deferred
            written = write_on(write_some, data, written)
            if written < len(data):
                self._buffered_id = waiter.request_id
                leave_rest(self.transport, data, written)
        else:
            waiters.append(waiter)
            self._write_buffered(data, waiter.request_id)
        return deferred

    def _write_buffered(self, data: bytes, request_id: int) -> None:
        self._buffered_id = request_id
        assert self.transport is not None
        self.transport.write(data)

    def _send(self, request: AnyMessage) -> int:
        if request.opcode in _OLD_WRITES:
            self.last_write = NOT_ANSWERED
        request_id = self.get_request_id()
        # What is sent next must not overtake it, on its way past the transport's buffer.
        self._write_buffered(request.encode(request_id), request_id)
        return request_id

    # --- hooks ---

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Lead replies through the hooks in subclasses that override one of them, and past them in all others."""
        super().__init_subclass__(**keywords)
        if any(getattr(cls, hook) is not getattr(MongoProtocol, hook) for hook in _REPLY_HOOKS):
            cls._frame_received = MongoProtocol._frame_for_hooks  # type: ignore[method-assign]
            cls._plain_reply = MongoProtocol._leave_to_hooks  # type: ignore[method-assign]
            cls._decode_ahead = MongoProtocol._decode_nothing_ahead  # type: ignore[method-assign]

    def _leave_to_hooks(self, frame: Frame) -> bool:
        return False

    def _decode_nothing_ahead(self) -> None:
        """Hooks see messages whole."""

    def _frame_for_hooks(self, frame: Frame) -> None:
        self.handle(decode_message(frame, self._decoder.max_message_size, MESSAGE_TYPES))

    def handle_MSG(self, request: Msg) -> None:
        """Give an OP_MSG to the request that it answers. A subclass that overrides this calls it for what it lets pass.

        :raises ProtocolError: it answers another than the oldest request in flight.
        """
        MongoProtocol._frame_received(self, request.encode())

    def handle_REPLY(self, request: Reply) -> None:
        """Give an OP_REPLY to the request that it answers, as :meth:`handle_MSG`."""
        MongoProtocol._frame_received(self, request.encode())

    # --- receiving ---

    def dataReceived(self, data: bytes) -> None:
        """Fire the Deferred of each request whose reply is now complete."""
        self.last_received_at = self.seconds()
        # Mostly it is one whole reply.
        if self._decoder.buffer or self._abort_reason is not None or not self._plain_reply(data):
            self._any_data_received(data)

    def _any_data_received(self, data: bytes) -> None:
        """:meth:`dataReceived` for what is cut anyhow."""
        decoder = self._decoder
        try:
            frames = decoder.feed(data)
            if self._large_parts is not None and self.in_large_parts:
                self._read_large_part(self._large_parts)
            for frame in frames:
                self._frame_received(frame)
        except ProtocolError as error:
            self._wrong_data_received(error)

    def _read_large_part(self, parts: LargeParts) -> None:
        """If a large message arrives, read on until there is no more, or no room, for now."""
        decoder = self._decoder
        full = False
        parts.expect(decoder.missing)
        while parts.expected and not full:
            with decoder.room_before(PART) as room:
                count = parts.read_into(room)
            if not count:
                break
            full = decoder.written(count)
            parts.expect(decoder.missing)

    def _wrong_data_received(self, error: ProtocolError) -> None:
        # Whole replies that came before the bytes that are wrong are replies all the same.
        before, self._decoder.before_error = self._decoder.before_error, []
        try:
            for frame in before:
                self._frame_received(frame)
        except ProtocolError as earlier:
            error = earlier
        self.abort(error)

    def _decode_ahead(self) -> None:
        """Have documents taken out of a large reply that arrives, if they are the batch of a cursor."""
        if self._waiters:
            self._waiters[0].decode_ahead(self._decoder)

    def _plain_reply(self, frame: Frame) -> bool:
        """Answer the oldest request with a frame if it is the plain reply to a command of :meth:`send_msg`.

        :returns: false, with nothing done, if it is anything else.
        """
        size = len(frame)
        waiters = self._waiters
        if size < SMALLEST_REPLY or not waiters:
            return False
        waiter = waiters[0]
        length, response_to, start, body_size = _start_of_reply(frame)
        if (
            response_to != waiter.request_id
            or start != _PLAIN_START
            or length != size
            or body_size != size - BODY_OFFSET
            or frame[-1]
            or waiter.__class__ is not CommandWaiter
            or size > self._decoder.max_message_size
        ):
            return False
        waiters.popleft()
        if response_to == self._buffered_id:
            self._buffered_id = 0
        deferred = waiter.deferred
        if deferred is not None:
            waiter.deferred = None
            try:
                reply = waiter.read(frame)
            except Exception:
                deferred.errback()
            else:
                deferred.callback(reply)
        elif self.late_reply_hook is not None:
            self.late_reply_hook()
        return True

    def _frame_received(self, frame: Frame) -> None:
        if not MongoProtocol._plain_reply(self, frame):
            self._other_frame_received(frame)

    def _other_frame_received(self, frame: Frame) -> None:
        """:meth:`_frame_received` for all but the plain reply to a command of :meth:`send_msg`."""
        request_id, response_to, opcode = _ids_and_opcode(frame, 4)
        if opcode == OP_COMPRESSED:
            MongoProtocol._frame_received(self, decompress(frame, self._decoder.max_message_size))
            return
        frame = bytes(frame)
        waiters = self._waiters
        if not waiters or waiters[0].request_id != response_to:
            raise ProtocolError(f"the server answered request {response_to}, which is not the oldest one in flight")
        reply: Any
        body = single_body(frame) if opcode == OP_MSG else None
        if body is not None:
            reply = OpMsg(request_id, response_to, body)
        else:
            reply = decode_message(frame, self._decoder.max_message_size, MESSAGE_TYPES)
            if reply.opcode == OP_MSG and reply.more_to_come:
                self._stream_goes_on(waiters[0], reply)
                return
        waiter = waiters.popleft()
        if response_to == self._buffered_id:
            self._buffered_id = 0
        deferred = waiter.deferred
        if deferred is None:
            if self.late_reply_hook is not None:
                self.late_reply_hook()
            waiter.drop(reply)
            return
        waiter.deferred = None
        if waiter.on_reply is not None:
            waiter.on_reply(reply)
            reply = None
        try:
            reply = waiter.take(reply)
        except Exception:
            deferred.errback()
        else:
            deferred.callback(reply)

    def _stream_goes_on(self, waiter: Waiter, reply: OpMsg) -> None:
        """A reply with moreToCome: the next one will answer this one's own id."""
        if waiter.on_reply is None:
            raise ProtocolError("the server sent a stream of replies that nobody asked for")
        waiter.request_id = reply.request_id
        waiter.on_reply(reply)


#: What a subclass may override to see replies before those who wait for them.
_REPLY_HOOKS = ("handle", "handle_msg", "handle_MSG", "handle_reply", "handle_REPLY")


#: As it is here: whether somebody put another in its place is looked at with every command.
_send_raw_msg = MongoProtocol._send_raw_msg
