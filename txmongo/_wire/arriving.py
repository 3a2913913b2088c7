"""The batch of a cursor, decoded while the message that holds it arrives.

A batch may have 16 MB and more. Gathered whole it needs that much memory, and then one long turn of the reactor that
decodes all of it. Instead the documents that have come are decoded whenever there is a megabyte of them, and taken out
of the message (:meth:`txmongo._wire.decoder.Decoder.take_out`). What is left when its last byte has come is a small
reply, which is read as any other; :meth:`ArrivingBatch.complete` puts the documents back into it.

The result is that of decoding the message as a whole, errors included: what does not look like the replies that servers
send stays in the message, and so does what cannot be decoded. Kept: the "Find, getMore and killCursors commands"
specification.
"""

from __future__ import annotations

import gc
import re
import struct
from collections.abc import Callable
from typing import Any, Final, Self

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions

from txmongo._wire.decoder import Decoder
from txmongo._wire.header import OP_MSG

__all__ = ["ArrivingBatch", "undisturbed"]

#: From the opcode on, the start of a message without flags whose one section is the reply of a cursor, up to the length
#: of its first document. The groups but for the name of the field are lengths.
_START: Final = re.compile(
    re.escape(struct.pack("<iIB", OP_MSG, 0, 0))
    + rb"(?P<reply>....)\x03cursor\0(?P<cursor>....)\x04(?P<field>firstBatch|nextBatch)\0(?P<batch>....)"
    + rb"\x030\0(?P<document>....)",
    re.DOTALL,
)
_OPCODE_AT: Final = 12

#: Bytes of a first document below which a batch is left alone: to step over a small document costs as much as a part of
#: decoding it.
_SMALL: Final = 256
_SMALLEST_DOCUMENT: Final = 5

#: An element of an array that holds a document, behind something that ends with a zero as documents do.
_ELEMENT: Final = re.compile(rb"\0\x03(?P<number>[0-9]{1,9})\0(?=....)", re.DOTALL)
#: Of how many documents' length the end of a batch is looked through for one of its elements.
_WINDOW: Final = 4

#: The ends of an array and of the document that it is in.
_ENDS: Final = b"\0\0"

_INT32: Final = struct.Struct("<i")
_uint32 = struct.Struct("<I").unpack_from


class ArrivingBatch:
    """The documents of a batch that arrives.

    :ivar documents: those that were taken out of the message.
    """

    __slots__ = ("_codec_options", "_field", "_given_up", "_guesses", "_lengths_at", "_start", "documents")

    def __init__(self, codec_options: CodecOptions[Any], field: str, lengths_at: tuple[int, int, int]) -> None:
        """
        :param field: the field of the cursor that holds the batch.
        :param lengths_at: where the reply, its cursor and the batch in that begin.
        """
        self.documents: list[Any] = []
        self._codec_options = codec_options
        self._field = field
        self._lengths_at = lengths_at
        self._start = lengths_at[-1] + _INT32.size
        self._given_up = False
        #: Whether what looks like an element of the batch is taken for one.
        self._guesses = True

    @classmethod
    def begin(cls, decoder: Decoder, codec_options: CodecOptions[Any]) -> Self | None:
        """Look at the message that ``decoder`` gathers.

        :returns: ``None`` if it is to be decoded as a whole.
        """
        if codec_options.document_class is not dict:
            return None
        if codec_options.type_registry != DEFAULT_CODEC_OPTIONS.type_registry:
            return None
        found = _START.match(decoder.buffer, _OPCODE_AT, decoder.filled)
        if found is None:
            return None
        lengths_at = found.start("reply"), found.start("cursor"), found.start("batch")
        reply_end, cursor_end, batch_end = (at + _uint32(decoder.buffer, at)[0] for at in lengths_at)
        if reply_end != decoder.length or cursor_end >= reply_end or batch_end >= cursor_end:
            return None
        if _uint32(found["document"])[0] < _SMALL:
            return None
        return cls(codec_options, found["field"].decode(), lengths_at)

    def take(self, decoder: Decoder) -> None:
        """Decode the documents that have come whole and take them out of the message that ``decoder`` gathers."""
        if self._given_up:
            return
        start, end = self._start, self._end_of_whole(decoder)
        if end == start:
            return
        try:
            self.documents += self._decode_up_to(end, decoder.buffer)
        except Exception:
            if self._guesses:
                self._guesses = False
                self.take(decoder)
            else:
                # The decoder of the whole message will say so, if it is of the same opinion.
                self._given_up = True
            return
        decoder.take_out(start, end)
        for position in self._lengths_at:
            length = _uint32(decoder.buffer, position)[0]
            _INT32.pack_into(decoder.buffer, position, length - (end - start))

    def _end_of_whole(self, decoder: Decoder) -> int:
        """Where the last whole document ends, if the lengths of all can be believed: decoding them will tell."""
        buffer, batch_at = decoder.buffer, self._lengths_at[-1]
        limit = min(decoder.filled - len(_ENDS), batch_at + _uint32(buffer, batch_at)[0] - 1)
        last = limit - _SMALLEST_DOCUMENT
        number, position = self._element_near(limit, buffer)
        # An element of an array is its type, its number in decimal digits, a zero, and then the document.
        while True:
            digits = len(str(number))
            before, more_digits = digits + 2, 10**digits
            while number < more_digits:
                document_at = position + before
                if document_at > last:
                    return position
                end = document_at + _uint32(buffer, document_at)[0]
                if end > limit:
                    return position
                position = end
                number += 1

    def _element_near(self, limit: int, buffer: bytearray) -> tuple[int, int]:
        """The number of an element from which to step from document to document, and where it begins.

        It is the first one, or one shortly before the limit, which saves most of the steps. What looks like that one
        may lie within a document: where documents are wrongly taken to end, decoding them fails.
        """
        first, start = len(self.documents), self._start
        document_at = start + len(str(first)) + 2
        if self._guesses and document_at < limit - _SMALLEST_DOCUMENT:
            behind = limit - _WINDOW * _uint32(buffer, document_at)[0]
            for found in _ELEMENT.finditer(buffer, max(start, behind), limit):
                number = int(found["number"]) + 1
                end = found.end() + _uint32(buffer, found.end())[0]
                if number > first + 1 and buffer.startswith(b"\x03%d\0" % number, end, limit):
                    return number, end
        return first, start

    def _decode_up_to(self, end: int, buffer: bytearray) -> list[Any]:
        """Decode the documents up to ``end`` where they lie: as if the batch, and with it the cursor, ended there.

        :raises bson.errors.InvalidBSON: if they are anything but whole documents.
        """
        _, cursor_at, batch_at = self._lengths_at
        cursor_end = end + len(_ENDS)
        before, behind = buffer[cursor_at : self._start], buffer[end:cursor_end]
        _INT32.pack_into(buffer, cursor_at, cursor_end - cursor_at)
        _INT32.pack_into(buffer, batch_at, end + 1 - batch_at)
        buffer[end:cursor_end] = _ENDS
        try:
            with memoryview(buffer)[cursor_at:cursor_end] as cursor:
                documents: list[Any] = undisturbed(bson.decode, cursor, self._codec_options)[self._field]
        finally:
            buffer[cursor_at : self._start], buffer[end:cursor_end] = before, behind
        return documents

    def complete(self, reply: dict[str, Any]) -> None:
        """Put the documents that were taken out of a reply into what was decoded of it."""
        cursor = reply["cursor"]
        self.documents += cursor[self._field]
        cursor[self._field] = self.documents


def undisturbed(decode: Callable[..., Any], *arguments: Any) -> Any:
    """Call what decodes many documents, without a collection of garbage meanwhile.

    Decoding makes no garbage, but for every 700 objects that it makes Python looks for some, at all objects there are
    as often as not: half of the time of a large result. What is put off comes after it, once.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return decode(*arguments)
    finally:
        if collects:
            gc.enable()
