"""The insert command with one document. Several documents are :mod:`txmongo._ops.bulk_write`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.results import InsertOneResult

from txmongo._ops.base import ReplyContext, RetryKind
from txmongo._ops.writes import WriteOperation, WriteTarget, check_write_reply

__all__ = ["InsertOne"]


class InsertOne(WriteOperation[InsertOneResult]):
    """Store one document, which has its ``_id`` already unless it is raw BSON.

    :ivar document: the caller's document itself.
    :ivar inserted_id: its ``_id`` at the call, ``None`` for raw BSON.
    """

    __slots__ = ("document", "inserted_id")

    name = "insert"
    statements_field = "documents"
    retry = RetryKind.WRITE

    def __init__(
        self,
        target: WriteTarget,
        document: Mapping[str, Any],
        options: dict[str, Any] | None = None,
        session: Any = None,
    ) -> None:
        super().__init__(target, target.insert_class, options, bounded=target.answers_soon, session=session)
        self.document = document
        self.inserted_id = None if isinstance(document, RawBSONDocument) else document["_id"]

    def statements(self) -> list[Any]:
        """The document."""
        return [self.document]

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> InsertOneResult:
        """The document's ``_id``."""
        if reply is not None:
            check_write_reply(reply)
        return InsertOneResult(self.inserted_id, reply is not None)
