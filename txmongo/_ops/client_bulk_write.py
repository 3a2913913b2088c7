"""The ``bulkWrite`` command of MongoDB 8.0: writes to any number of collections in one command.

Each :class:`ClientBulkWrite` is one command with as many writes as the server takes; the writes and the names of their
collections travel as two document sequences. The results of single writes come as a cursor, of which the reply holds
the first batch. What the replies add up to is :mod:`txmongo._ops.client_bulk_result`'s; sending one command after
another is :mod:`txmongo._client_bulk`'s. Kept: the CRUD specification, "Bulk Write".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions

from txmongo._ops.base import ReplyContext, RetryKind
from txmongo._ops.bulk_write import RETRYABLE, BatchUnconfirmed
from txmongo._ops.cursors import CursorBatch, CursorOperation
from txmongo._ops.writes import COMMAND_OVERHEAD, check_size, keep_outcome
from txmongo._wire.header import next_request_id
from txmongo._wire.op_msg import MORE_TO_COME, Msg
from txmongo.errors import DocumentTooLarge, InvalidOperation

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["BulkReply", "ClientBulkOptions", "ClientBulkWrite", "ClientWrite"]

#: MongoDB 8.0.
_BULK_WRITE_WIRE_VERSION = 25
#: Bytes of a message that are left for its header and for what every command has: the specification's number.
_MESSAGE_OVERHEAD = 1000

_int32: Final = struct.Struct("<i").pack
_INSERT: Final = b"\x10insert\0"
_DOCUMENT: Final = b"\x03document\0"


@attrs.frozen
class ClientWrite:
    """One write of the caller's list.

    :ivar kind: ``insert``, ``update`` or ``delete``.
    :ivar namespace: ``database.collection``.
    :ivar fields: the fields of its element of ``ops``, without the first, which names kind and collection.
    :ivar multi: it may change more than one document.
    :ivar stored: of an insert and of a replacement, the document that is stored.
    """

    kind: str
    namespace: str
    fields: Mapping[str, Any]
    multi: bool = False
    stored: Any = None

    def document(self, number: int) -> dict[str, Any]:
        """The element of ``ops``; ``number`` is the place of the collection in ``nsInfo``."""
        return {self.kind: number, **self.fields}

    def encode(self, number: int, codec_options: CodecOptions[Any]) -> bytes:
        """The element of ``ops`` in BSON.

        :raises InvalidDocument: a value that BSON cannot hold.
        """
        if self.kind != "insert":
            return bson.encode(self.document(number), False, codec_options)
        # Encoded by itself a document has its _id first, wherever the application has put that.
        document = bson.encode(self.stored, False, codec_options)
        content = b"".join((_INSERT, _int32(number), _DOCUMENT, document, b"\0"))
        return _int32(4 + len(content)) + content


@attrs.frozen
class ClientBulkOptions:
    """What all commands of a bulk write have in common.

    :ivar fields: of the command: ``errorsOnly``, ``ordered``, ``let``...
    :ivar write_concern: the ``writeConcern`` field, ``None`` when the server's default is meant.
    """

    fields: Mapping[str, Any]
    write_concern: Mapping[str, Any] | None = None
    acknowledged: bool = True
    codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS


@attrs.frozen
class BulkReply:
    """What a server has answered.

    :ivar document: the reply.
    :ivar results: the first batch of the results of single writes.
    """

    document: Mapping[str, Any]
    results: CursorBatch


@attrs.define
class _Filling:
    """The two sequences of a command, while writes are added."""

    codec_options: CodecOptions[Any]
    ops: list[bytes] = attrs.Factory(list)
    namespaces: dict[str, int] = attrs.Factory(dict)
    ns_info: list[bytes] = attrs.Factory(list)
    size: int = 0

    def add(self, write: ClientWrite, room: int) -> bytes | None:
        """Add a write if it leaves the sequences within ``room`` bytes; its element of ``ops``, or else ``None``."""
        number = self.namespaces.get(write.namespace, len(self.namespaces))
        element = write.encode(number, self.codec_options)
        name = b"" if number < len(self.namespaces) else bson.encode({"ns": write.namespace})
        if self.size + len(element) + len(name) > room:
            return None
        self.size += len(element) + len(name)
        self.ops.append(element)
        if name:
            self.namespaces[write.namespace] = number
            self.ns_info.append(name)
        return element


class ClientBulkWrite(CursorOperation):
    """One command with as many writes as the server takes; the result is a :class:`BulkReply`.

    It is ``None`` for unacknowledged writes.

    :ivar writes: those of the whole bulk write.
    :ivar start: the first one of this command.
    :ivar count: how many of them this command holds. It is ``None`` until the command is made for the first time and
        never changes after: what is sent again under the same transaction number must be the same writes.
    """

    __slots__ = ("_filling", "count", "options", "retry", "start", "writes")

    name = "bulkWrite"

    def __init__(
        self, writes: Sequence[ClientWrite], options: ClientBulkOptions, start: int = 0, *, session: Any = None
    ) -> None:
        codec_options = options.codec_options
        super().__init__(
            "admin",
            codec_options=codec_options,
            reply_codec_options=codec_options.with_options(document_class=dict, unicode_decode_error_handler="replace"),
            session=session,
            acknowledged=options.acknowledged,
            service_class="bulkWrite:batch",
        )
        self.sent = False
        self.writes = writes
        self.options = options
        self.start = start
        self.count: int | None = None
        # Nothing is sent before it is known which writes these are.
        self.retry = RetryKind.WRITE
        self._filling: _Filling | None = None

    @property
    def end(self) -> int:
        """The first write after this command; only known once it was made."""
        assert self.count is not None
        return self.start + self.count

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command, without the two sequences, which :meth:`encode` adds.

        :raises InvalidOperation: the server is older than MongoDB 8.0, or not even one write fits into a message.
        :raises InvalidDocument: a value that BSON cannot hold.
        :raises DocumentTooLarge: what is not acknowledged is more than the server takes: nobody would hear of it.
        """
        if description.max_wire_version < _BULK_WRITE_WIRE_VERSION:
            raise InvalidOperation("bulk_write of the client needs MongoDB 8.0; each collection has its own bulk_write")
        command: dict[str, Any] = {"bulkWrite": 1, **self.options.fields}
        if self.options.write_concern is not None:
            command["writeConcern"] = self.options.write_concern
        size = len(bson.encode(command, False, self.codec_options))
        if not self.acknowledged:
            check_size("bulkWrite", size, description.max_bson_size + COMMAND_OVERHEAD)
        self._fill(description, description.max_message_size - _MESSAGE_OVERHEAD - size)
        return command

    def _fill(self, description: StreamDescription, room: int) -> None:
        """Take as many writes as there is room for, or those of the first time."""
        filling = self._filling = _Filling(self.codec_options)
        last = self.start + (description.max_write_batch_size if self.count is None else self.count)
        for write in self.writes[self.start : last]:
            element = filling.add(write, room)
            if element is None:
                break
            if not self.acknowledged:
                self._check_unacknowledged(write, element, description)
        taken = len(filling.ops)
        if self.count is None:
            if not taken:
                raise InvalidOperation(f"models[{self.start}] is larger than the server takes in one message")
            self.count = taken
            if any(write.multi for write in self.writes[self.start : self.end]):
                self.retry = RetryKind.NEVER
        elif taken < self.count:
            raise DocumentTooLarge("bulkWrite: what was sent once is more than another server takes in one message")

    def _check_unacknowledged(self, write: ClientWrite, element: bytes, description: StreamDescription) -> None:
        check_size("bulkWrite", len(element), description.max_bson_size + COMMAND_OVERHEAD)
        if write.stored is not None and len(element) > description.max_bson_size:
            stored = bson.encode(write.stored, False, self.codec_options)
            check_size("bulkWrite", len(stored), description.max_bson_size)

    def encode(self, command: dict[str, Any], description: StreamDescription) -> Msg:
        """The message; adds to ``command`` what is in the sequences, for those who are shown the command."""
        filling, self._filling = self._filling, None
        assert filling is not None
        body = bson.encode(command, False, self.codec_options)
        payload = {"ops": filling.ops, "nsInfo": filling.ns_info}
        message = Msg(next_request_id(), 0, body, 0 if self.acknowledged else MORE_TO_COME, payload)
        message.wire = message.encode()
        message.user_fields = self.user_fields
        self.sent = True
        numbers = filling.namespaces
        command["ops"] = [write.document(numbers[write.namespace]) for write in self.writes[self.start : self.end]]
        command["nsInfo"] = [{"ns": namespace} for namespace in numbers]
        return message

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        """The reply with the first results.

        :raises BatchUnconfirmed: the server asks for a retry.
        """
        if reply is None:
            return None
        keep_outcome(reply, context)
        found = BulkReply(reply, super().parse(reply, context))
        if "writeConcernError" in reply and RETRYABLE in reply.get("errorLabels", ()) and not found.results.cursor_id:
            raise BatchUnconfirmed(reply, found)
        return found
