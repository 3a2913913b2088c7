"""Counting documents: by an aggregation, and by the ``count`` command.

Kept: the CRUD specification, "Count API Details".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from txmongo._ops.base import REPLY_CODEC_OPTIONS, Operation, ReplyContext, RetryKind
from txmongo._ops.cursors import malformed

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["Count", "CountDocuments", "EstimatedDocumentCount"]


class _Counting(Operation[int]):
    """What the ways to count have in common."""

    __slots__ = ("collection", "fields", "filter", "read_concern")

    retry = RetryKind.READ
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        filter: Mapping[str, Any] | None,
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param fields: further fields under their names on the wire: ``skip``, ``limit``, ``hint``, ``maxTimeMS``...
        :param read_concern: ``None`` for the server's default.
        """
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=REPLY_CODEC_OPTIONS,
            read_preference=read_preference,
            session=session,
        )
        self.collection = collection
        self.filter = filter
        self.fields = fields
        self.read_concern = read_concern

    def _complete(self, command: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        command.update(fields)
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        return command


class CountDocuments(_Counting):
    """Count the documents that match a filter, by an aggregation.

    Of the fields ``skip`` and ``limit`` become stages; the others go into the command.
    """

    __slots__ = ()

    name = "aggregate"

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``aggregate`` command."""
        fields = dict(self.fields or {})
        pipeline: list[dict[str, Any]] = [{"$match": self.filter or {}}]
        if "skip" in fields:
            pipeline.append({"$skip": fields.pop("skip")})
        if "limit" in fields:
            pipeline.append({"$limit": fields.pop("limit")})
        pipeline.append({"$group": {"_id": 1, "n": {"$sum": 1}}})
        return self._complete({"aggregate": self.collection, "pipeline": pipeline, "cursor": {}}, fields)

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> int:
        """How many documents match; no group means none."""
        assert reply is not None
        try:
            documents = reply["cursor"]["firstBatch"]
            return int(documents[0]["n"]) if documents else 0
        except (LookupError, TypeError, ValueError):
            raise malformed("aggregate") from None


class Count(_Counting):
    """Count documents by the ``count`` command, which may be wrong on a sharded cluster and after a crash."""

    __slots__ = ()

    name = "count"

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``count`` command."""
        command: dict[str, Any] = {"count": self.collection}
        if self.filter:
            command["query"] = self.filter
        return self._complete(command, self.fields or {})

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> int:
        """The server's count."""
        assert reply is not None
        return int(reply.get("n", 0))


class EstimatedDocumentCount(Count):
    """How many documents the collection has by its metadata: no document is looked at."""

    __slots__ = ()

    def __init__(self, database: str, collection: str, fields: Mapping[str, Any] | None = None, **options: Any) -> None:
        """
        :param options: as of :class:`Count`.
        """
        super().__init__(database, collection, None, fields, **options)
        self.bounded = True
        self.service_class = "count:estimated"
