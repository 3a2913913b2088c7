"""createIndexes, dropIndexes, listIndexes. Kept: the index management specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.write_concern import WriteConcern

from txmongo._ops.base import Operation, ReplyContext, RetryKind, write_concern_document
from txmongo._ops.cursors import CursorOperation
from txmongo.errors import write_concern_error_from_reply

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["CreateIndexes", "DropIndexes", "ListIndexes"]


class CreateIndexes(Operation["list[str]"]):
    """Create indexes; the result is the list of their names."""

    __slots__ = ("collection", "fields", "indexes", "write_concern")

    name = "createIndexes"

    def __init__(
        self,
        database: str,
        collection: str,
        indexes: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        write_concern: WriteConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param indexes: the specification of each, with ``key`` and ``name``: ``IndexModel.document``.
        :param fields: further fields of the command under their names on the wire: ``commitQuorum``, ``maxTimeMS``...
        """
        super().__init__(database, codec_options=codec_options, session=session)
        self.collection = collection
        self.indexes = indexes
        self.fields = fields
        self.write_concern = write_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``createIndexes`` command."""
        command = {"createIndexes": self.collection, "indexes": list(self.indexes)}
        return _complete(command, self.fields, self.write_concern)

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> list[str]:
        """The names.

        :raises WriteConcernError: the indexes are there, but the write concern was not satisfied.
        """
        _check_write_concern(reply)
        return [index["name"] for index in self.indexes]


class DropIndexes(Operation["Mapping[str, Any] | None"]):
    """Drop one index or several; the result is the reply."""

    __slots__ = ("collection", "fields", "index", "write_concern")

    name = "dropIndexes"

    def __init__(
        self,
        database: str,
        collection: str,
        index: str | Mapping[str, Any] | Sequence[str],
        fields: Mapping[str, Any] | None = None,
        *,
        write_concern: WriteConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param index: a name, the document of its keys, a list of names, or ``*`` for all but that of ``_id``.
        :param fields: further fields of the command under their names on the wire: ``maxTimeMS``, ``comment``.
        """
        super().__init__(database, session=session)
        self.collection = collection
        self.index = index
        self.fields = fields
        self.write_concern = write_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``dropIndexes`` command."""
        return _complete({"dropIndexes": self.collection, "index": self.index}, self.fields, self.write_concern)

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Mapping[str, Any] | None:
        """The reply.

        :raises WriteConcernError: the write concern was not satisfied.
        """
        _check_write_concern(reply)
        return reply


class ListIndexes(CursorOperation):
    """List the indexes of a collection; the result is the cursor's first batch.

    A collection that is not there is answered with error 26, which the caller takes for an empty list.
    """

    __slots__ = ("batch_size", "collection", "fields")

    name = "listIndexes"
    retry = RetryKind.READ
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        fields: Mapping[str, Any] | None = None,
        *,
        batch_size: int | None = None,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        session: Any = None,
    ) -> None:
        """
        :param fields: further fields of the command: ``comment``.
        :param batch_size: documents of the first batch; ``None`` leaves it to the server.
        """
        super().__init__(database, codec_options=codec_options, reply_codec_options=codec_options, session=session)
        self.sent = False
        self.collection = collection
        self.fields = fields
        self.batch_size = batch_size

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``listIndexes`` command."""
        cursor = {} if self.batch_size is None else {"batchSize": self.batch_size}
        return {"listIndexes": self.collection, "cursor": cursor, **(self.fields or {})}


def _complete(
    command: dict[str, Any], fields: Mapping[str, Any] | None, write_concern: WriteConcern | None
) -> dict[str, Any]:
    """Add what was given to a command that writes."""
    if fields:
        command.update(fields)
    document = None if write_concern is None else write_concern_document(write_concern)
    if document is not None:
        command["writeConcern"] = document
    return command


def _check_write_concern(reply: Mapping[str, Any] | None) -> None:
    error = None if reply is None else write_concern_error_from_reply(reply)
    if error is not None:
        raise error
