"""The ``distinct`` command: the different values of one key. Kept: the CRUD specification, "Distinct"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from txmongo._ops.base import Operation, ReplyContext, RetryKind
from txmongo._ops.cursors import malformed

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["Distinct"]


class Distinct(Operation["list[Any]"]):
    """The distinct values of a key in the documents that match; the result is a list."""

    __slots__ = ("collection", "fields", "filter", "key", "read_concern")

    name = "distinct"
    retry = RetryKind.READ
    user_fields: ClassVar[Mapping[str, Any] | None] = {"values": 1}
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        key: str,
        filter: Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param fields: further fields under their names on the wire: ``collation``, ``hint``, ``maxTimeMS``...
        :param read_concern: ``None`` for the server's default.
        """
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options,
            read_preference=read_preference,
            session=session,
        )
        self.collection = collection
        self.key = key
        self.filter = filter
        self.fields = fields
        self.read_concern = read_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``distinct`` command; the server requires a string for ``key`` and says so itself."""
        command: dict[str, Any] = {"distinct": self.collection, "key": self.key}
        if self.filter is not None:
            command["query"] = self.filter
        if self.fields:
            command.update(self.fields)
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> list[Any]:
        """The values, in the server's order."""
        assert reply is not None
        try:
            return list(reply["values"])
        except (LookupError, TypeError):
            raise malformed("distinct") from None
