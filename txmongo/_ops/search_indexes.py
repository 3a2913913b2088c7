"""createSearchIndexes, updateSearchIndex, dropSearchIndex, and the pipeline that lists search indexes.

The server hands these to a process beside it, which takes neither a read concern nor a write concern: none is ever
sent. Kept: the index management specification, "Search Indexes".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions

from txmongo._ops.aggregate import Aggregate
from txmongo._ops.base import Operation, ReplyContext
from txmongo._ops.cursors import malformed

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["CreateSearchIndexes", "DropSearchIndex", "ListSearchIndexes", "UpdateSearchIndex"]


class _SearchIndexOperation(Operation[Any]):
    """A command about the search indexes of a collection; the result is the reply unless a subclass says otherwise."""

    __slots__ = ("arguments", "collection", "fields")

    def __init__(
        self,
        database: str,
        collection: str,
        arguments: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        session: Any = None,
    ) -> None:
        """
        :param arguments: the fields that the command must have.
        :param fields: further fields under their names on the wire: ``maxTimeMS``, ``comment``.
        """
        super().__init__(database, codec_options=codec_options, session=session)
        self.collection = collection
        self.arguments = arguments
        self.fields = fields

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command."""
        return {self.name: self.collection, **self.arguments, **(self.fields or {})}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        """The reply."""
        return reply


class CreateSearchIndexes(_SearchIndexOperation):
    """Begin to build search indexes; the result is the list of their names."""

    __slots__ = ()

    name = "createSearchIndexes"

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> list[str]:
        """The names.

        :raises ProtocolError: there are not as many as there are models.
        """
        assert reply is not None
        try:
            names = [index["name"] for index in reply["indexesCreated"]]
        except (KeyError, TypeError):
            raise malformed(self.name) from None
        if len(names) != len(self.arguments["indexes"]):
            raise malformed(self.name)
        return names


class UpdateSearchIndex(_SearchIndexOperation):
    """Begin to rebuild a search index by another definition."""

    __slots__ = ()

    name = "updateSearchIndex"


class DropSearchIndex(_SearchIndexOperation):
    """Begin to remove a search index; a collection that is not there is answered with error 26."""

    __slots__ = ()

    name = "dropSearchIndex"


class ListSearchIndexes(Aggregate):
    """List search indexes by a pipeline; the result is the cursor's first batch.

    A class of its own for sessions to know it by: no other pipeline may go without what a session adds.
    """

    __slots__ = ()

    def __init__(self, database: str, collection: str, index: str | None, fields: Mapping[str, Any], **options: Any):
        """
        :param index: the name of the one that is wanted, ``None`` for all of them.
        :param fields: and ``options``: as of :class:`~txmongo._ops.aggregate.Aggregate`.
        """
        stage: Mapping[str, Any] = {} if index is None else {"name": index}
        pipeline: Sequence[Mapping[str, Any]] = [{"$listSearchIndexes": stage}]
        super().__init__(database, collection, pipeline, fields, **options)
