"""The delete command with one statement: delete_one, delete_many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.collation import Collation
from pymongo.results import DeleteResult

from txmongo._ops.arguments import check_mapping, hint_value, is_id_equality
from txmongo._ops.base import ReplyContext, RetryKind, check_acknowledged_option, collation_document
from txmongo._ops.writes import WriteOperation, WriteTarget, check_write_reply, keep_outcome

__all__ = ["DeleteMany", "DeleteOne", "delete_statement"]

_ALL = 0
_ONE = 1


def delete_statement(
    query: Mapping[str, Any],
    *,
    multi: bool,
    collation: Collation | Mapping[str, Any] | None = None,
    hint: Any = None,
    acknowledged: bool = True,
) -> dict[str, Any]:
    """One element of the command's ``deletes``, of what the caller passed; options that are ``None`` are left out.

    :raises TypeError: an argument is of the wrong type.
    :raises ConfigurationError: ``collation`` in an unacknowledged write.
    """
    check_mapping("filter", query)
    statement = {"q": query, "limit": _ALL if multi else _ONE}
    if collation is not None:
        check_acknowledged_option("collation", collation, acknowledged)
        statement["collation"] = collation_document(collation)
    if hint is not None:
        statement["hint"] = hint_value(hint)
    return statement


class DeleteMany(WriteOperation[DeleteResult]):
    """Remove all documents that match.

    :ivar statement: what :func:`delete_statement` made.
    """

    __slots__ = ("statement",)

    name = "delete"
    statements_field = "deletes"

    def __init__(
        self,
        target: WriteTarget,
        statement: dict[str, Any],
        options: dict[str, Any] | None = None,
        session: Any = None,
        *,
        bounded: bool = False,
    ) -> None:
        super().__init__(target, target.delete_class, options, bounded=bounded, session=session)
        self.statement = statement

    def statements(self) -> list[Any]:
        """The statement."""
        return [self.statement]

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> DeleteResult:
        """How many were removed."""
        if reply is None:
            return DeleteResult({}, False)
        keep_outcome(reply, context)
        check_write_reply(reply)
        return DeleteResult(reply, True)


class DeleteOne(DeleteMany):
    """Remove at most one document that matches."""

    __slots__ = ()

    retry = RetryKind.WRITE

    def __init__(
        self,
        target: WriteTarget,
        statement: dict[str, Any],
        options: dict[str, Any] | None = None,
        session: Any = None,
    ) -> None:
        bounded = target.answers_soon and is_id_equality(statement["q"])
        super().__init__(target, statement, options, session, bounded=bounded)
