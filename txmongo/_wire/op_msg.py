"""OP_MSG, the message format of every command and every reply since MongoDB 3.6.

A :class:`Msg` is one such message with its documents still in BSON. Two functions beside it serve the usual case with
as little work as can be: :func:`encode_command` and :func:`single_body`. Kept: the OP_MSG specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import attrs
import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions

from txmongo._wire.checksum import checksum, verifiable
from txmongo._wire.header import HEADER, HEADER_SIZE, OP_MSG, Opcode, ProtocolError
from txmongo._wire.reader import Reader, to_cstring

__all__ = [
    "BODY_OFFSET",
    "CHECKSUM_PRESENT",
    "EMPTY_DOCUMENT",
    "EXHAUST_ALLOWED",
    "MORE_TO_COME",
    "SMALLEST_REPLY",
    "EncodedMsg",
    "Msg",
    "encode_command",
    "single_body",
    "size_of",
]

CHECKSUM_PRESENT: Final = 1 << 0
MORE_TO_COME: Final = 1 << 1
EXHAUST_ALLOWED: Final = 1 << 16

EMPTY_DOCUMENT: Final = b"\x05\0\0\0\0"

_REQUIRED_BITS: Final = 0xFFFF
_DEFINED_BITS: Final = CHECKSUM_PRESENT | MORE_TO_COME | EXHAUST_ALLOWED

_BODY_KIND: Final = 0
_SEQUENCE_KIND: Final = 1
_CHECKSUM_SIZE: Final = 4

_UINT32: Final = struct.Struct("<I")
_INT32: Final = struct.Struct("<i")
#: The header, the flag bits and the kind of the first section.
_COMMAND_START: Final = struct.Struct("<iiiiIB")
#: From the opcode on: the opcode, the flag bits, the kind of the first section and the length of its document.
_REPLY_START: Final = struct.Struct("<iIBi")
_REPLY_START_OFFSET: Final = 12
#: Where the document of a message with one section begins, and what such a message has at the least.
BODY_OFFSET: Final = _COMMAND_START.size
SMALLEST_REPLY: Final = BODY_OFFSET + len(EMPTY_DOCUMENT)


def encode_command(request_id: int, body: bytes, flag_bits: int = 0) -> bytes:
    """Return a whole message with one document and nothing else: what nearly every command is.

    :param body: the command in BSON.
    :param flag_bits: any but :data:`CHECKSUM_PRESENT`, for which :meth:`Msg.encode` is there.
    """
    return _COMMAND_START.pack(BODY_OFFSET + len(body), request_id, 0, OP_MSG, flag_bits, _BODY_KIND) + body


def single_body(frame: bytes) -> bytes | None:
    """Return the BSON document of a message without flags whose one section is that document, else None.

    None says that the message needs :func:`txmongo._wire.decoder.decode_message`, not that it is wrong.

    :param frame: a whole message, as :class:`txmongo._wire.decoder.Decoder` returns it.
    """
    size = len(frame)
    if size < SMALLEST_REPLY:
        return None
    start = _REPLY_START.unpack_from(frame, _REPLY_START_OFFSET)
    if start == (OP_MSG, 0, _BODY_KIND, size - BODY_OFFSET) and not frame[-1]:
        return frame[BODY_OFFSET:]
    return None


def size_of(document: bytes | None) -> str:
    """Stand for a document in a ``repr``: commands and documents never get into logs."""
    return "None" if document is None else f"<{len(document)} bytes>"


def _sizes_of(payload: Mapping[str, list[bytes]]) -> str:
    return "{" + ", ".join(f"{name!r}: <{len(documents)} documents>" for name, documents in payload.items()) + "}"


def _payload_or_empty(payload: dict[str, list[bytes]] | None) -> dict[str, list[bytes]]:
    return {} if payload is None else payload


def _encode_sequence(name: str, documents: list[bytes]) -> bytes:
    """Return a section of kind 1."""
    content = b"".join((to_cstring(name), *documents))
    return b"".join((b"\x01", _INT32.pack(4 + len(content)), content))


def _bson_array(documents: list[bytes]) -> bytes:
    """Return the BSON array of documents that are in BSON themselves."""
    elements = b"".join(b"\x03%d\0%b" % (index, document) for index, document in enumerate(documents))
    return _INT32.pack(len(EMPTY_DOCUMENT) + len(elements)) + elements + b"\0"


@attrs.define(on_setattr=attrs.setters.NO_OP)
class Msg:
    """One OP_MSG.

    :ivar request_id: the sender's number for this message.
    :ivar response_to: the request that this answers, or 0.
    :ivar body: the document of the section of kind 0, in BSON.
    :ivar flag_bits: of :data:`CHECKSUM_PRESENT`, :data:`MORE_TO_COME` and :data:`EXHAUST_ALLOWED`.
    :ivar payload: the sections of kind 1: documents in BSON under the name of the command's argument.
    :ivar user_fields: which fields of the reply hold the user's own documents, or None. Never sent.
    :ivar wire: the complete message if something else has encoded it already (the batch encoder does), or None. What
        it holds goes before ``body``, ``flag_bits`` and ``payload``.
    """

    opcode: ClassVar[Opcode] = Opcode(OP_MSG)
    #: What takes note of the reply's cluster time, so that the reply need not hold it: see :class:`EncodedMsg`.
    clock: ClassVar[Any] = None

    request_id: int = 0
    response_to: int = 0
    body: bytes = attrs.field(default=EMPTY_DOCUMENT, repr=size_of)
    flag_bits: int = 0
    payload: dict[str, list[bytes]] = attrs.field(default=None, converter=_payload_or_empty, repr=_sizes_of)
    user_fields: Mapping[str, Any] | None = attrs.field(default=None, init=False, eq=False, repr=False)
    wire: bytes | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @classmethod
    def create(
        cls,
        body: Mapping[str, Any],
        payload: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        acknowledged: bool = True,
        request_id: int = 0,
        response_to: int = 0,
    ) -> Msg:
        """Return the message for a command.

        :param body: the command, with ``$db``; its first key is the command's name.
        :param payload: arguments that are lists of documents and are better sent apart from ``body``.
        :param codec_options: how both are encoded.
        :param acknowledged: whether the server is to answer.
        :param request_id: the message's own id; 0 for one that it is given when it is sent.
        :param response_to: the id of the request that it answers.
        """
        sequences = {
            name: [bson.encode(document, codec_options=codec_options) for document in documents]
            for name, documents in (payload or {}).items()
        }
        flag_bits = 0 if acknowledged else MORE_TO_COME
        return cls(request_id, response_to, bson.encode(body, codec_options=codec_options), flag_bits, sequences)

    @classmethod
    def from_wire(cls, wire: bytes) -> Msg:
        """Return the message that ``wire`` is, without looking into its sections.

        :param wire: a whole, correct OP_MSG; it comes from an encoder, not from a peer.
        """
        _, request_id, response_to, _, flag_bits, _ = _COMMAND_START.unpack_from(wire)
        msg = cls(request_id, response_to, EMPTY_DOCUMENT, flag_bits)
        msg.wire = wire
        return msg

    @property
    def acknowledged(self) -> bool:
        """Whether this request gets a reply."""
        return not self.flag_bits & MORE_TO_COME

    @property
    def more_to_come(self) -> bool:
        """Whether another message follows this reply without being asked for."""
        return bool(self.flag_bits & MORE_TO_COME)

    def to_dict(self, codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS) -> Any:
        """Return the document that this message means: ``body``, with each sequence of ``payload`` as an array.

        :returns: an instance of the document class of ``codec_options``; a dict by default.
        :raises bson.errors.InvalidBSON: if a document is not correct inside.
        """
        if self.wire is not None:
            decoded = self.decode(self.request_id, self.response_to, OP_MSG, self.wire[HEADER_SIZE:])
            return decoded.to_dict(codec_options)
        body = self.body
        if self.payload:
            # Joined as BSON and decoded once, so that any document class will do, one that cannot be changed too.
            arrays = [b"\x04" + to_cstring(name) + _bson_array(items) for name, items in self.payload.items()]
            content = b"".join((body[4:-1], *arrays, b"\0"))
            body = _INT32.pack(4 + len(content)) + content
        return bson.decode(body, codec_options=codec_options)

    def size_in_bytes(self) -> int:
        """Return the length of the whole message, header included."""
        if self.wire is not None:
            return len(self.wire)
        size = BODY_OFFSET + len(self.body)
        if self._has_checksum():
            size += _CHECKSUM_SIZE
        for name, documents in self.payload.items():
            size += 5 + len(to_cstring(name)) + sum(map(len, documents))
        return size

    def _has_checksum(self) -> bool:
        return bool(self.flag_bits & CHECKSUM_PRESENT) and verifiable()

    def encode(self, request_id: int | None = None) -> bytes:
        """Return the whole message, ready to be sent.

        A checksum is optional, so :data:`CHECKSUM_PRESENT` is cleared where no library computes one.

        :param request_id: goes before the one of this message.
        """
        if request_id is None:
            request_id = self.request_id
        if self.wire is not None:
            return self._encode_wire(self.wire, request_id)
        flag_bits = self.flag_bits
        if not (self.payload or self.response_to or flag_bits & CHECKSUM_PRESENT):
            return encode_command(request_id, self.body, flag_bits)
        if not self._has_checksum():
            flag_bits &= ~CHECKSUM_PRESENT
        start = _COMMAND_START.pack(self.size_in_bytes(), request_id, self.response_to, OP_MSG, flag_bits, _BODY_KIND)
        sequences = (_encode_sequence(name, documents) for name, documents in self.payload.items())
        message = b"".join((start, self.body, *sequences))
        value = checksum(message) if flag_bits & CHECKSUM_PRESENT else None
        return message if value is None else message + _UINT32.pack(value)

    def _encode_wire(self, wire: bytes, request_id: int) -> bytes:
        """Return ``wire`` under ``request_id``."""
        number = _INT32.pack(request_id)
        return wire if wire[4:8] == number else b"".join((wire[:4], number, wire[8:]))

    @classmethod
    def decode(cls, request_id: int, response_to: int, opcode: int, message_data: bytes) -> Msg:
        """Return the message in ``message_data``.

        A checksum is verified if a library is there to compute it. Optional flags that are not known are dropped, so
        that they are not forwarded when the message is encoded again.

        :param request_id: and ``response_to``, ``opcode``: what the header says.
        :param message_data: all that follows the header.
        :raises ProtocolError: if it is not exactly one correct OP_MSG; also for a flag that must be understood.
        """
        if opcode != OP_MSG:
            raise ProtocolError(f"opcode {opcode} is not OP_MSG")
        reader = Reader(message_data)
        flag_bits = reader.uint32()
        if flag_bits & _REQUIRED_BITS & ~_DEFINED_BITS:
            raise ProtocolError(f"OP_MSG has unknown required flag bits: {flag_bits & _REQUIRED_BITS:#06x}")
        if flag_bits & CHECKSUM_PRESENT:
            _verify_checksum(request_id, response_to, message_data)
            reader = reader.part(reader.remaining - _CHECKSUM_SIZE)
        body, payload = _read_sections(reader)
        return cls(request_id, response_to, body, flag_bits & _DEFINED_BITS, payload)


class EncodedMsg(Msg):
    """A command of the driver's most travelled ways, made with as little work as can be.

    :ivar clock: takes the cluster time from the reply; what :meth:`MongoProtocol.send_msg
        <txmongo.protocol.MongoProtocol.send_msg>` fires with then has neither it nor ``operationTime``.
    """

    # Shared by all, in place of the slots: only what differs is set.
    response_to = 0
    body = EMPTY_DOCUMENT
    payload: dict[str, list[bytes]] = {}

    def __init__(
        self, request_id: int, wire: bytes, flag_bits: int, user_fields: Mapping[str, Any] | None, clock: Any
    ) -> None:
        self.request_id = request_id
        self.wire = wire
        self.flag_bits = flag_bits
        self.user_fields = user_fields
        self.clock = clock  # type: ignore[misc]


def _verify_checksum(request_id: int, response_to: int, message_data: bytes) -> None:
    """Raise :class:`ProtocolError` if the last four bytes are missing or not the checksum of all before them."""
    if len(message_data) < 2 * _CHECKSUM_SIZE:
        raise ProtocolError("OP_MSG is too short for its checksum")
    header = HEADER.pack(HEADER_SIZE + len(message_data), request_id, response_to, OP_MSG)
    value = checksum(header, message_data[:-_CHECKSUM_SIZE]) if verifiable() else None
    if value is not None and _UINT32.pack(value) != message_data[-_CHECKSUM_SIZE:]:
        raise ProtocolError("OP_MSG has a wrong checksum")


def _read_sections(reader: Reader) -> tuple[bytes, dict[str, list[bytes]]]:
    """Read sections up to the end; they come in any order, exactly one of them is the body."""
    body: bytes | None = None
    payload: dict[str, list[bytes]] = {}
    while reader.remaining:
        kind = reader.byte()
        if kind == _BODY_KIND:
            if body is not None:
                raise ProtocolError("OP_MSG has more than one section of kind 0")
            body = reader.document()
        elif kind == _SEQUENCE_KIND:
            name, documents = _read_sequence(reader)
            if name in payload:
                raise ProtocolError("OP_MSG has two sections of kind 1 with the same name")
            payload[name] = documents
        else:
            raise ProtocolError(f"OP_MSG has a section of unknown kind {kind}")
    if body is None:
        raise ProtocolError("OP_MSG has no section of kind 0")
    return body, payload


def _read_sequence(reader: Reader) -> tuple[str, list[bytes]]:
    """Read a section of kind 1; the documents end where the section does."""
    size = reader.int32()
    if size < 4:
        raise ProtocolError(f"section length {size} is less than the 4 bytes that hold it")
    section = reader.part(size - 4)
    return section.cstring(), section.documents()
