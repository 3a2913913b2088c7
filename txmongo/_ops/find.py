"""The ``find`` command: one document, or a cursor's first batch.

Both classes take the command's own fields ready-made; :mod:`txmongo.cursor` makes them from the user's options. Kept: the
CRUD specification, "Find", and the "Find, getMore and killCursors commands" specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from txmongo._ops.arguments import is_id_equality
from txmongo._ops.base import Operation, ReplyContext, RetryKind
from txmongo._ops.cursors import CursorOperation

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["Find", "FindOne"]

_FIND_USER_FIELDS: Mapping[str, Any] = {"cursor": {"firstBatch": 1}}


class FindOne(Operation[Any]):
    """Find one document; the result is the document, or ``None``."""

    __slots__ = ("collection", "fields", "filter", "read_concern")

    name = "find"
    retry = RetryKind.READ
    user_fields: ClassVar[Mapping[str, Any] | None] = _FIND_USER_FIELDS
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        filter: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param filter: the query, sent as it is.
        :param fields: further fields of the command under their names on the wire: ``projection``, ``sort``, ``skip``...
        :param read_concern: ``None`` for the server's default, which costs least.
        """
        # The parent's fields are set here, not by a call up: this is the driver's most travelled way.
        self.database = database
        self.collection = collection
        self.filter = filter
        self.fields = fields
        self.codec_options = self.reply_codec_options = codec_options
        self.read_preference = read_preference
        self.read_concern = read_concern
        self.session = session
        self.address = None
        self.acknowledged = True
        self.exclusive = False
        if not fields and is_id_equality(filter):
            self.bounded = True
            self.service_class = "find:id"
        else:
            self.bounded = False
            self.service_class = "find:one"

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``find`` command with ``limit: 1``."""
        command = {"find": self.collection, "filter": self.filter, "limit": 1, "singleBatch": True}
        if self.fields:
            command.update(self.fields)
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        """The document, or ``None`` if none matched."""
        assert reply is not None
        documents = reply["cursor"]["firstBatch"]
        return documents[0] if documents else None


class Find(CursorOperation):
    """Find documents; the result is the cursor's first batch."""

    __slots__ = ("collection", "fields", "read_concern")

    name = "find"
    retry = RetryKind.READ
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        fields: Mapping[str, Any],
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        session: Any = None,
        *,
        reply_codec_options: CodecOptions[Any] | None = None,
    ) -> None:
        """
        :param fields: the command's fields but the first: ``filter`` and what else was given.
        :param read_concern: ``None`` for the server's default.
        :param reply_codec_options: if the documents are to be decoded in another way than the filter is encoded.
        """
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options if reply_codec_options is None else reply_codec_options,
            read_preference=read_preference,
            session=session,
        )
        self.sent = False
        self.collection = collection
        self.fields = fields
        self.read_concern = read_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``find`` command."""
        command = {"find": self.collection, **self.fields}
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        return command
