"""What keeps a server-side cursor going: getMore, killCursors, and the batch that every cursor command answers with.

Kept: the "Find, getMore and killCursors commands" specification. The cursor that the user sees is
:mod:`txmongo.cursor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bson.codec_options import CodecOptions
from bson.int64 import Int64

from txmongo._cmap.pinning import Holder, Pin
from txmongo._ops.base import Operation, ReplyContext
from txmongo.errors import InvalidOperation, ProtocolError

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._wire.op_msg import Msg
    from txmongo.types import Address

__all__ = ["CursorBatch", "CursorOperation", "GetMore", "KillCursors", "malformed"]

#: Servers take a comment in getMore from this wire version on (MongoDB 4.4); it is also the oldest that is spoken to.
_COMMENT_WIRE_VERSION = 9


class CursorBatch:
    """One batch of documents and what is needed to ask for the next.

    :ivar documents: the documents, decoded.
    :ivar cursor_id: the server's id of the cursor; 0 when there is nothing more to ask for.
    :ivar namespace: ``database.collection`` as the server names the cursor.
    :ivar address: the server that has the cursor.
    :ivar post_batch_resume_token: where a change stream stands after this batch, else ``None``.
    :ivar session: of a first batch, the ``session`` of the operations that go on with the cursor.
    :ivar pin: of a first batch, the connection that the cursor keeps, behind a load balancer.
    """

    __slots__ = ("address", "cursor_id", "documents", "namespace", "pin", "post_batch_resume_token", "session")

    def __init__(
        self,
        documents: list[Any],
        cursor_id: int,
        namespace: str,
        address: Address,
        post_batch_resume_token: Mapping[str, Any] | None = None,
        session: Any = None,
    ) -> None:
        self.documents = documents
        self.cursor_id = cursor_id
        self.namespace = namespace
        self.address = address
        self.post_batch_resume_token = post_batch_resume_token
        self.session = session
        self.pin: Pin | None = None


def malformed(name: str) -> ProtocolError:
    """The error for a reply that lacks what every server puts there."""
    return ProtocolError(f"the server's reply to {name} is not one that a MongoDB server gives")


def _batch(cursor: Mapping[str, Any], key: str, context: ReplyContext) -> CursorBatch:
    """The batch in the ``cursor`` of a reply.

    :raises ProtocolError: there is none.
    """
    try:
        return CursorBatch(
            cursor[key], int(cursor["id"]), cursor["ns"], context.address, cursor.get("postBatchResumeToken")
        )
    except (AttributeError, LookupError, TypeError, ValueError):
        raise malformed("a command with a cursor") from None


class CursorOperation(Operation[CursorBatch]):
    """A command that makes a cursor; the result is its first batch.

    :ivar sent: whether the command was encoded, to be sent at once: if the caller gives up after that, the server may
        still make a cursor, which somebody has to close. It is the one thing of an operation that changes.
    """

    __slots__ = ("sent",)

    user_fields: ClassVar[Mapping[str, Any] | None] = {"cursor": {"firstBatch": 1}}

    def encode(self, command: dict[str, Any], description: StreamDescription) -> Msg:
        """The message; notes that it is :attr:`sent`."""
        message = super().encode(command, description)
        self.sent = True
        return message

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> CursorBatch:
        """The first batch.

        :raises InvalidOperation: the reply holds no cursor: the command is not one that makes them.
        """
        assert reply is not None
        cursor = reply.get("cursor")
        if cursor is None:
            raise InvalidOperation("the server's reply holds no cursor: this is not a command that makes one")
        batch = _batch(cursor, "firstBatch", context)
        if batch.cursor_id:
            # The server takes a getMore only under the session of the command that made the cursor.
            use = getattr(context, "use", None)
            batch.session = self.session if use is None else use.keep()
            pin = getattr(context, "pin", None)
            if pin is not None:
                batch.pin = pin.hold(Holder.CURSOR)
        return batch


class GetMore(Operation[CursorBatch]):
    """Ask for the next batch of a cursor, from the server that has it."""

    __slots__ = ("batch_size", "collection", "comment", "cursor_id", "max_time_ms", "pin")

    name = "getMore"
    user_fields: ClassVar[Mapping[str, Any] | None] = {"cursor": {"nextBatch": 1}}

    def __init__(
        self,
        database: str,
        collection: str,
        cursor_id: int,
        address: Address,
        codec_options: CodecOptions[Any],
        *,
        batch_size: int = 0,
        max_time_ms: int | None = None,
        comment: Any = None,
        session: Any = None,
        exclusive: bool = False,
        pin: Pin | None = None,
    ) -> None:
        """
        :param collection: the namespace that the server named, without the database.
        :param batch_size: documents; 0 leaves it to the server.
        :param max_time_ms: how long a tailable cursor waits for data at the server; only with awaitData.
        :param exclusive: the server may wait before it answers (awaitData).
        """
        super().__init__(
            database,
            reply_codec_options=codec_options,
            address=address,
            session=session,
            service_class="getMore:await" if exclusive else "getMore",
            exclusive=exclusive,
        )
        self.collection = collection
        self.cursor_id = cursor_id
        self.batch_size = batch_size
        self.max_time_ms = max_time_ms
        self.comment = comment
        self.pin = pin

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``getMore`` command."""
        command: dict[str, Any] = {"getMore": Int64(self.cursor_id), "collection": self.collection}
        if self.batch_size:
            command["batchSize"] = self.batch_size
        if self.max_time_ms is not None:
            command["maxTimeMS"] = self.max_time_ms
        if self.comment is not None and description.max_wire_version >= _COMMENT_WIRE_VERSION:
            command["comment"] = self.comment
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> CursorBatch:
        """The next batch."""
        assert reply is not None
        return _batch(reply.get("cursor", {}), "nextBatch", context)


class KillCursors(Operation[None]):
    """Have a server forget cursors; which of them it still knew does not matter."""

    __slots__ = ("collection", "cursor_ids", "pin")

    name = "killCursors"

    def __init__(
        self,
        database: str,
        collection: str,
        cursor_ids: Sequence[int],
        address: Address,
        *,
        session: Any = None,
        pin: Pin | None = None,
    ) -> None:
        super().__init__(database, address=address, session=session, bounded=True)
        self.collection = collection
        self.cursor_ids = cursor_ids
        self.pin = pin

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``killCursors`` command."""
        return {"killCursors": self.collection, "cursors": [Int64(cursor_id) for cursor_id in self.cursor_ids]}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> None:
        """Nothing: the reply's lists are ignored, as the specification says."""
