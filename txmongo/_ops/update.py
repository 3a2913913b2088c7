"""The update command with one statement: update_one, update_many, replace_one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymongo.collation import Collation
from pymongo.results import UpdateResult

from txmongo._ops.arguments import (
    check_array_filters,
    check_boolean,
    check_mapping,
    hint_value,
    index_document,
    is_id_equality,
)
from txmongo._ops.base import ReplyContext, RetryKind, check_acknowledged_option, collation_document
from txmongo._ops.writes import WriteOperation, WriteTarget, check_write_reply, keep_outcome
from txmongo.errors import ConfigurationError
from txmongo.filter import _QueryFilter

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["UpdateMany", "UpdateOne", "check_unacknowledged_sort", "update_statement"]

_SORTED_UPDATE_WIRE_VERSION = 25


def update_statement(
    query: Mapping[str, Any],
    update: Any,
    *,
    multi: bool,
    upsert: bool | None = False,
    collation: Collation | Mapping[str, Any] | None = None,
    array_filters: Sequence[Mapping[str, Any]] | None = None,
    hint: Any = None,
    sort: Mapping[str, Any] | None = None,
    acknowledged: bool = True,
) -> dict[str, Any]:
    """One element of the command's ``updates``, of what the caller passed; options that are ``None`` are left out.

    :param update: operators, a pipeline or a replacement, which its caller has checked.
    :raises TypeError: another argument is of the wrong type.
    :raises ConfigurationError: an option cannot be used in an unacknowledged write.
    """
    check_mapping("filter", query)
    statement = {"q": query, "u": update, "multi": multi}
    if upsert is not None:
        check_boolean("upsert", upsert)
        statement["upsert"] = upsert
    if collation is not None:
        check_acknowledged_option("collation", collation, acknowledged)
        statement["collation"] = collation_document(collation)
    if array_filters is not None:
        check_array_filters(array_filters)
        check_acknowledged_option("array_filters", array_filters, acknowledged)
        statement["arrayFilters"] = array_filters
    if hint is not None:
        statement["hint"] = hint_value(hint)
    if sort is not None:
        check_mapping("sort", sort)
        statement["sort"] = index_document("sort", sort) if isinstance(sort, _QueryFilter) else sort
    return statement


def check_unacknowledged_sort(description: StreamDescription) -> None:
    """Refuse an unacknowledged update with ``sort`` where the server would drop it without a word.

    :raises ConfigurationError: the server is older than MongoDB 8.0.
    """
    if description.max_wire_version < _SORTED_UPDATE_WIRE_VERSION:
        raise ConfigurationError("sort in an unacknowledged update needs MongoDB 8.0 or newer")


class UpdateMany(WriteOperation[UpdateResult]):
    """One update statement; any number of documents may match.

    :ivar statement: what :func:`update_statement` made.
    """

    __slots__ = ("statement",)

    name = "update"
    statements_field = "updates"

    def __init__(
        self,
        target: WriteTarget,
        statement: dict[str, Any],
        options: dict[str, Any] | None = None,
        session: Any = None,
        *,
        bounded: bool = False,
    ) -> None:
        super().__init__(target, target.update_class, options, bounded=bounded, session=session)
        self.statement = statement

    def statements(self) -> list[Any]:
        """The statement."""
        return [self.statement]

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command.

        :raises ConfigurationError: ``sort`` without acknowledgement on a server that does not know it.
        """
        if not self.acknowledged and "sort" in self.statement:
            check_unacknowledged_sort(description)
        return super().build(description)

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> UpdateResult:
        """Counts, and the ``_id`` of a document that was upserted.

        The result's ``raw_result`` is the reply with ``updatedExisting``, and with ``upserted`` as that ``_id`` instead
        of the list, as it was before MongoDB 2.6 and as PyMongo keeps it.
        """
        if reply is None:
            return UpdateResult(None, False)
        keep_outcome(reply, context)
        check_write_reply(reply)
        raw_result = dict(reply)
        upserted = reply.get("upserted")
        raw_result["updatedExisting"] = bool(reply.get("n")) and upserted is None
        if upserted:
            raw_result["upserted"] = upserted[0]["_id"]
        return UpdateResult(raw_result, True)


class UpdateOne(UpdateMany):
    """One update or replacement statement that changes at most one document."""

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
