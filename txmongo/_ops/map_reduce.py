"""The ``mapReduce`` command, which MongoDB 5.0 deprecates for aggregation pipelines.

No specification describes it; what those on retries, read concerns and write concerns say in passing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bson.code import Code
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from txmongo._ops.base import Operation, ReplyContext, write_concern_document, write_service_class
from txmongo.errors import write_concern_error_from_reply

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["MapReduce", "is_inline"]


def is_inline(out: str | Mapping[str, Any]) -> bool:
    """Whether the results come in the reply; else the server stores them in a collection."""
    return isinstance(out, Mapping) and "inline" in out


class MapReduce(Operation[Mapping[str, Any]]):
    """Map and reduce the documents of a collection; the result is the reply. It is never retried."""

    __slots__ = ("collection", "fields", "map", "out", "read_concern", "reduce", "write_concern")

    name = "mapReduce"
    user_fields: ClassVar[Mapping[str, Any] | None] = {"results": 1}
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        map: Code,
        reduce: Code,
        out: str | Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param out: where the results go: ``{"inline": 1}`` into the reply.
        :param fields: further fields of the command under their names on the wire: ``query``, ``sort``, ``finalize``...
        :param read_preference: and ``read_concern``: only for what stores nothing.
        :param write_concern: only for what stores its results.
        """
        inline = is_inline(out)
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options,
            read_preference=read_preference if inline else ReadPreference.PRIMARY,
            session=session,
            service_class=None if inline else write_service_class(self.name, write_concern or WriteConcern()),
        )
        self.collection = collection
        self.map = map
        self.reduce = reduce
        self.out = out
        self.fields = fields
        self.read_concern = read_concern if inline else None
        self.write_concern = None if inline else write_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``mapReduce`` command."""
        command = {"mapReduce": self.collection, "map": self.map, "reduce": self.reduce, "out": self.out}
        if self.fields:
            command.update(self.fields)
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        document = None if self.write_concern is None else write_concern_document(self.write_concern)
        if document is not None:
            command["writeConcern"] = document
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Mapping[str, Any]:
        """The reply.

        :raises WriteConcernError: the results were stored, but the write concern was not satisfied.
        """
        assert reply is not None
        error = write_concern_error_from_reply(reply)
        if error is not None:
            raise error
        return reply
