"""The opcodes from before OP_MSG, as values that can be encoded and decoded.

The driver itself sends OP_QUERY for the first greeting at most and reads OP_REPLY as its answer. The others serve fake
servers, proxies and programs that speak to an old server by themselves. Documents are held in BSON. Kept: the legacy
opcodes of the MongoDB wire protocol.
"""

from __future__ import annotations

import abc
import struct
from typing import ClassVar, Final, Self

import attrs

from txmongo._wire.header import (
    HEADER,
    HEADER_SIZE,
    OP_DELETE,
    OP_GET_MORE,
    OP_INSERT,
    OP_KILL_CURSORS,
    OP_QUERY,
    OP_REPLY,
    OP_UPDATE,
    Opcode,
    ProtocolError,
)
from txmongo._wire.op_msg import EMPTY_DOCUMENT, size_of
from txmongo._wire.reader import Reader, to_cstring

__all__ = ["Delete", "GetMore", "Insert", "KillCursors", "LegacyMessage", "Query", "Reply", "Update"]

_INT32: Final = struct.Struct("<i")
_TWO_INT32: Final = struct.Struct("<ii")
_INT32_INT64: Final = struct.Struct("<iq")
_REPLY_START: Final = struct.Struct("<iqii")
_RESERVED: Final = b"\0\0\0\0"


def _count_of(documents: list[bytes]) -> str:
    """Stand for documents in a ``repr``."""
    return f"<{len(documents)} documents>"


@attrs.define
class LegacyMessage(abc.ABC):
    """What the messages of this module share.

    :ivar request_id: the sender's number for this message.
    :ivar response_to: the request that this answers, or 0.
    """

    opcode: ClassVar[Opcode]

    request_id: int = 0
    response_to: int = 0

    def encode(self, request_id: int | None = None) -> bytes:
        """Return the whole message, header included.

        :param request_id: goes before the one of this message.
        """
        content = b"".join(self._parts())
        number = self.request_id if request_id is None else request_id
        return HEADER.pack(HEADER_SIZE + len(content), number, self.response_to, self.opcode) + content

    @classmethod
    def decode(cls, request_id: int, response_to: int, opcode: int, message_data: bytes) -> Self:
        """Return the message in ``message_data``.

        :param request_id: and ``response_to``, ``opcode``: what the header says.
        :param message_data: all that follows the header.
        :raises ProtocolError: if it is not exactly one correct message of this opcode.
        """
        if opcode != cls.opcode:
            raise ProtocolError(f"opcode {opcode} is not {cls.opcode:d}")
        reader = Reader(message_data)
        message = cls._read(request_id, response_to, reader)
        reader.finish()
        return message

    @abc.abstractmethod
    def _parts(self) -> list[bytes]:
        """Return what follows the header, in pieces."""

    @classmethod
    @abc.abstractmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        """Read what follows the header."""


@attrs.define
class Reply(LegacyMessage):
    """OP_REPLY: documents in answer to an OP_QUERY or OP_GET_MORE.

    :ivar starting_from: how many documents of the cursor came before these.
    """

    opcode: ClassVar[Opcode] = Opcode(OP_REPLY)

    response_flags: int = 0
    cursor_id: int = 0
    starting_from: int = 0
    documents: list[bytes] = attrs.field(factory=list, repr=_count_of)

    @property
    def n_returned(self) -> int:
        """How many documents there are."""
        return len(self.documents)

    def _parts(self) -> list[bytes]:
        start = _REPLY_START.pack(self.response_flags, self.cursor_id, self.starting_from, len(self.documents))
        return [start, *self.documents]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        response_flags, cursor_id, starting_from = reader.int32(), reader.int64(), reader.int32()
        count = reader.int32()
        documents = reader.documents()
        if count != len(documents):
            raise ProtocolError(f"OP_REPLY announces {count} documents and holds {len(documents)}")
        return cls(
            request_id=request_id,
            response_to=response_to,
            response_flags=response_flags,
            cursor_id=cursor_id,
            starting_from=starting_from,
            documents=documents,
        )


@attrs.define
class Query(LegacyMessage):
    """OP_QUERY: a query, or a command on the collection ``$cmd``.

    :ivar collection: with its database: ``database.collection``.
    :ivar fields: the projection, or None.
    """

    opcode: ClassVar[Opcode] = Opcode(OP_QUERY)

    flags: int = 0
    collection: str = ""
    n_to_skip: int = 0
    n_to_return: int = -1
    query: bytes = attrs.field(default=EMPTY_DOCUMENT, repr=size_of)
    fields: bytes | None = attrs.field(default=None, repr=size_of)

    def _parts(self) -> list[bytes]:
        counts = _TWO_INT32.pack(self.n_to_skip, self.n_to_return)
        return [_INT32.pack(self.flags), to_cstring(self.collection), counts, self.query, self.fields or b""]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        flags, collection, n_to_skip, n_to_return = reader.int32(), reader.cstring(), reader.int32(), reader.int32()
        query = reader.document()
        fields = reader.document() if reader.remaining else None
        return cls(
            request_id=request_id,
            response_to=response_to,
            flags=flags,
            collection=collection,
            n_to_skip=n_to_skip,
            n_to_return=n_to_return,
            query=query,
            fields=fields,
        )


@attrs.define
class Update(LegacyMessage):
    """OP_UPDATE: change or replace documents; there is no answer."""

    opcode: ClassVar[Opcode] = Opcode(OP_UPDATE)

    collection: str = ""
    flags: int = 0
    selector: bytes = attrs.field(default=EMPTY_DOCUMENT, repr=size_of)
    update: bytes = attrs.field(default=EMPTY_DOCUMENT, repr=size_of)

    def _parts(self) -> list[bytes]:
        return [_RESERVED, to_cstring(self.collection), _INT32.pack(self.flags), self.selector, self.update]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        reader.int32()
        collection, flags = reader.cstring(), reader.int32()
        return cls(
            request_id=request_id,
            response_to=response_to,
            collection=collection,
            flags=flags,
            selector=reader.document(),
            update=reader.document(),
        )


@attrs.define
class Insert(LegacyMessage):
    """OP_INSERT: insert documents; there is no answer."""

    opcode: ClassVar[Opcode] = Opcode(OP_INSERT)

    flags: int = 0
    collection: str = ""
    documents: list[bytes] = attrs.field(factory=list, repr=_count_of)

    def _parts(self) -> list[bytes]:
        return [_INT32.pack(self.flags), to_cstring(self.collection), *self.documents]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        flags, collection = reader.int32(), reader.cstring()
        return cls(
            request_id=request_id,
            response_to=response_to,
            flags=flags,
            collection=collection,
            documents=reader.documents(),
        )


@attrs.define
class GetMore(LegacyMessage):
    """OP_GET_MORE: the next documents of a cursor."""

    opcode: ClassVar[Opcode] = Opcode(OP_GET_MORE)

    collection: str = ""
    n_to_return: int = -1
    cursor_id: int = -1

    def _parts(self) -> list[bytes]:
        return [_RESERVED, to_cstring(self.collection), _INT32_INT64.pack(self.n_to_return, self.cursor_id)]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        reader.int32()
        return cls(
            request_id=request_id,
            response_to=response_to,
            collection=reader.cstring(),
            n_to_return=reader.int32(),
            cursor_id=reader.int64(),
        )


@attrs.define
class Delete(LegacyMessage):
    """OP_DELETE: remove documents; there is no answer."""

    opcode: ClassVar[Opcode] = Opcode(OP_DELETE)

    collection: str = ""
    flags: int = 0
    selector: bytes = attrs.field(default=EMPTY_DOCUMENT, repr=size_of)

    def _parts(self) -> list[bytes]:
        return [_RESERVED, to_cstring(self.collection), _INT32.pack(self.flags), self.selector]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        reader.int32()
        return cls(
            request_id=request_id,
            response_to=response_to,
            collection=reader.cstring(),
            flags=reader.int32(),
            selector=reader.document(),
        )


@attrs.define
class KillCursors(LegacyMessage):
    """OP_KILL_CURSORS: forget cursors; there is no answer."""

    opcode: ClassVar[Opcode] = Opcode(OP_KILL_CURSORS)

    cursors: list[int] = attrs.field(factory=list)

    @property
    def n_cursors(self) -> int:
        """How many cursors there are."""
        return len(self.cursors)

    def _parts(self) -> list[bytes]:
        count = len(self.cursors)
        return [_RESERVED, _INT32.pack(count), struct.pack(f"<{count}q", *self.cursors)]

    @classmethod
    def _read(cls, request_id: int, response_to: int, reader: Reader) -> Self:
        reader.int32()
        count = reader.int32()
        if count * 8 != reader.remaining:
            raise ProtocolError(f"OP_KILL_CURSORS announces {count} cursors in {reader.remaining} bytes")
        cursors = [reader.int64() for _ in range(count)]
        return cls(request_id=request_id, response_to=response_to, cursors=cursors)
