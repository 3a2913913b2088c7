"""The findAndModify command: find_one_and_delete, find_one_and_replace, find_one_and_update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from txmongo._ops.arguments import is_id_equality
from txmongo._ops.base import Operation, ReplyContext, RetryKind
from txmongo._ops.writes import COMMAND_OVERHEAD, WriteTarget, check_size, check_write_reply, keep_outcome

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._wire.op_msg import Msg

__all__ = ["FindAndModify"]


class FindAndModify(Operation[Any]):
    """Change or remove at most one document and get it, as it was before or as it is then.

    Unacknowledged, there is no document to get.

    :ivar fields: the fields of the command after its name and ``query``.
    """

    __slots__ = ("fields", "query", "target")

    name = "findAndModify"
    retry = RetryKind.WRITE
    user_fields = {"value": 1}

    def __init__(
        self, target: WriteTarget, query: Mapping[str, Any], fields: dict[str, Any], session: Any = None
    ) -> None:
        write_concern = fields.get("writeConcern")
        super().__init__(
            target.database,
            codec_options=target.codec_options,
            reply_codec_options=target.codec_options,
            session=session,
            acknowledged=target.acknowledged if write_concern is None else write_concern.get("w", 1) != 0,
            service_class=target.find_and_modify_class,
            bounded=target.answers_soon and is_id_equality(query),
        )
        self.target = target
        self.query = query
        self.fields = fields

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command; a ``writeConcern`` among the caller's fields goes before the collection's."""
        target = self.target
        command: dict[str, Any] = {"findAndModify": target.collection, "query": self.query}
        if target.write_concern is not None:
            command["writeConcern"] = target.write_concern
        command.update(self.fields)
        return command

    def encode(self, command: dict[str, Any], description: StreamDescription) -> Msg:
        """The message.

        :raises InvalidDocument: a value that BSON cannot hold.
        :raises DocumentTooLarge: more than the server takes; nothing was sent.
        """
        message = super().encode(command, description)
        check_size(self.name, len(message.body), description.max_bson_size + COMMAND_OVERHEAD)
        return message

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        """The document; ``None`` when none matched, none was there before an upsert, or there is no reply."""
        if reply is None:
            return None
        # Not the whole reply: a document may be large, and is nobody's business any more.
        keep_outcome(reply.get("lastErrorObject", {}), context)
        check_write_reply(reply)
        return reply.get("value")
