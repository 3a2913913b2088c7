"""The insert command with one document. Several documents are :mod:`txmongo._ops.bulk_write`'s."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.read_preferences import ReadPreference
from pymongo.results import InsertOneResult

from txmongo._ops.base import REPLY_CODEC_OPTIONS, ReplyContext, RetryKind
from txmongo._ops.writes import WriteOperation, WriteTarget, check_write_reply, keep_outcome
from txmongo._wire.envelope import LARGE, elements_of, encode_many_elements

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["InsertOne", "insert_template"]


_start_of_array = struct.Struct("<i3s").pack


def insert_template(target: WriteTarget) -> tuple[bytes, bytes] | None:
    """The fields of :class:`InsertOne`'s command before and after its document, for one without options.

    :returns: ``None`` if there will be no reply, or one that needs more than the plain decoder.
    """
    if not target.acknowledged or target.reply_codec_options is not REPLY_CODEC_OPTIONS:
        return None
    after: dict[str, Any] = {"$db": target.database}
    if target.write_concern is not None:
        after = {"writeConcern": target.write_concern, **after}
    return elements_of({"insert": target.collection, "ordered": True}) + b"\x04documents\0", b"\0" + elements_of(after)


class InsertOne(WriteOperation[InsertOneResult]):
    """Store one document, which has its ``_id`` already unless it is raw BSON.

    :ivar document: the caller's document itself.
    :ivar inserted_id: its ``_id`` at the call, ``None`` for raw BSON.
    """

    # As in FindOne: the same for all, and no slots.
    read_preference = ReadPreference.PRIMARY
    address = None
    exclusive = False

    name = "insert"
    statements_field = "documents"
    retry = RetryKind.WRITE

    def __init__(
        self,
        target: WriteTarget,
        document: Mapping[str, Any],
        options: dict[str, Any] | None = None,
        session: Any = None,
        template: tuple[bytes, bytes] | None = None,
    ) -> None:
        """
        :param template: what :func:`insert_template` made of ``target``, if there are no ``options``.
        """
        # The parents' fields are set here, not by a call up.
        self.database = target.database
        self.codec_options = target.codec_options
        self.reply_codec_options = target.reply_codec_options
        self.session = session
        self.acknowledged = target.acknowledged
        self.service_class = target.insert_class
        self.bounded = target.answers_soon
        self.target = target
        self.options = options
        self.template = template
        self.document = document
        raw = type(document) is not dict and isinstance(document, RawBSONDocument)
        self.inserted_id = None if raw else document["_id"]

    def statements(self) -> list[Any]:
        """The document."""
        return [self.document]

    def elements(self, description: StreamDescription) -> list[bytes] | None:
        """The command in BSON."""
        document = bson.encode(self.document, False, self.codec_options)
        size = len(document)
        if size > LARGE:
            if size > description.max_bson_size:
                return None
            self.encode_elements = encode_many_elements
        before, after = self.template
        return [before, _start_of_array(size + 8, b"\x030\0"), document, after]

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> InsertOneResult:
        """The document's ``_id``."""
        if reply is not None:
            keep_outcome(reply, context)
            check_write_reply(reply)
        return InsertOneResult(self.inserted_id, reply is not None)
