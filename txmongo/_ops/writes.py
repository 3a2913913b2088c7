"""What every write command has in common: where it writes, with which guarantee, and how large it may be.

The commands themselves are in the modules of their names: :mod:`~txmongo._ops.insert`, :mod:`~txmongo._ops.update`,
:mod:`~txmongo._ops.delete`, :mod:`~txmongo._ops.find_and_modify` with one statement each, and
:mod:`~txmongo._ops.bulk_write` with many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import attrs
import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.write_concern import WriteConcern

from txmongo._ops.base import REPLY_CODEC_OPTIONS, Operation, write_concern_document, write_service_class
from txmongo.errors import DocumentTooLarge, write_error_from_reply

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo._ops.base import ReplyContext
    from txmongo._wire.op_msg import Msg

__all__ = [
    "COMMAND_OVERHEAD",
    "WriteOperation",
    "WriteTarget",
    "check_size",
    "check_write_reply",
    "keep_outcome",
    "write_options",
]

ResultT = TypeVar("ResultT")

#: Bytes that a command may be larger than the largest document: the same on every server (BSONObjMaxInternalSize).
COMMAND_OVERHEAD = 16 * 1024


@attrs.frozen
class WriteTarget:
    """A collection as write commands see it; made once per collection object, not once per operation.

    :ivar write_concern: the ``writeConcern`` field, ``None`` when the server's default is meant.
    :ivar acknowledged: false for ``w=0``.
    :ivar answers_soon: the server was not asked to wait for other members or the disk before it answers. Its own
        default may be to wait all the same; then the pool's average for that class says so, and the pool goes by both.
    :ivar reply_codec_options: how replies are decoded: a dict, with the user's options for the ids in it.
    """

    database: str
    collection: str
    codec_options: CodecOptions[Any]
    reply_codec_options: CodecOptions[Any]
    write_concern: dict[str, Any] | None
    acknowledged: bool
    answers_soon: bool
    insert_class: str
    update_class: str
    delete_class: str
    find_and_modify_class: str

    @classmethod
    def create(
        cls, database: str, collection: str, codec_options: CodecOptions[Any], write_concern: WriteConcern
    ) -> Self:
        """The target for a collection with these options."""
        if codec_options is DEFAULT_CODEC_OPTIONS or codec_options == DEFAULT_CODEC_OPTIONS:
            reply_codec_options: CodecOptions[Any] = REPLY_CODEC_OPTIONS
        else:
            reply_codec_options = codec_options.with_options(
                document_class=dict, unicode_decode_error_handler="replace"
            )
        document = write_concern.document
        return cls(
            database=database,
            collection=collection,
            codec_options=codec_options,
            reply_codec_options=reply_codec_options,
            write_concern=write_concern_document(write_concern),
            acknowledged=write_concern.acknowledged,
            answers_soon=document.get("w", 1) in (0, 1) and not document.get("j"),
            insert_class=write_service_class("insert", write_concern),
            update_class=write_service_class("update", write_concern),
            delete_class=write_service_class("delete", write_concern),
            find_and_modify_class=write_service_class("findAndModify", write_concern),
        )


def write_options(
    comment: Any = None, let: Mapping[str, Any] | None = None, bypass_document_validation: bool | None = None
) -> dict[str, Any] | None:
    """The fields of a write command that stand beside its statements; ``None`` if none was given."""
    if comment is None and let is None and bypass_document_validation is None:
        return None
    options: dict[str, Any] = {}
    if bypass_document_validation is not None:
        options["bypassDocumentValidation"] = bypass_document_validation
    if let is not None:
        options["let"] = let
    if comment is not None:
        options["comment"] = comment
    return options


class WriteOperation(Operation[ResultT]):
    """A write command with its statements in the command document.

    :ivar target: where it writes.
    :ivar options: further fields of the command, or ``None``.
    """

    __slots__ = ("options", "target")

    #: The field that holds the statements.
    statements_field: ClassVar[str]

    def __init__(
        self,
        target: WriteTarget,
        service_class: str,
        options: dict[str, Any] | None,
        *,
        bounded: bool = False,
        session: Any = None,
    ) -> None:
        super().__init__(
            target.database,
            codec_options=target.codec_options,
            reply_codec_options=target.reply_codec_options,
            session=session,
            acknowledged=target.acknowledged,
            service_class=service_class,
            bounded=bounded,
        )
        self.target = target
        self.options = options

    def statements(self) -> list[Any]:
        """What goes into :attr:`statements_field`."""
        raise NotImplementedError

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command with its one statement."""
        target = self.target
        command: dict[str, Any] = {
            self.name: target.collection,
            "ordered": True,
            self.statements_field: self.statements(),
        }
        if self.options is not None:
            command.update(self.options)
        if target.write_concern is not None:
            command["writeConcern"] = target.write_concern
        return command

    def encode(self, command: dict[str, Any], description: StreamDescription) -> Msg:
        """The message.

        :raises InvalidDocument: a value that BSON cannot hold.
        :raises DocumentTooLarge: more than the server takes; nothing was sent.
        """
        message = super().encode(command, description)
        size = len(message.body)
        if size > description.max_bson_size:
            check_size(self.name, size, description.max_bson_size + COMMAND_OVERHEAD)
            if not self.acknowledged:
                # Nobody would hear that the server refuses the document itself.
                statement = bson.encode(command[self.statements_field][0], False, self.codec_options)
                check_size(self.name, len(statement), description.max_bson_size)
        return message


def check_size(name: str, size: int, limit: int) -> None:
    """Refuse what the server would answer with an error that says little, or not at all.

    :param size: bytes of a command, or of a document in it.
    :raises DocumentTooLarge: it is more than ``limit``.
    """
    if size > limit:
        raise DocumentTooLarge(f"{name}: {size} bytes of BSON are too large: the server takes up to {limit} bytes")


def keep_outcome(reply: Mapping[str, Any], context: ReplyContext) -> None:
    """Keep the reply to a write command for :meth:`MongoProtocol.get_last_error`."""
    if context.connection is not None:
        context.connection.protocol.last_write = reply


def check_write_reply(reply: Mapping[str, Any]) -> None:
    """Raise what the reply to a command with one statement says of that statement.

    :raises DuplicateKeyError: a unique index has the key already.
    :raises WriteError: the server refused the statement for another reason.
    :raises WTimeoutError: it was carried out, but not within ``wtimeout`` on as many members as were asked for.
    :raises WriteConcernError: it was carried out, but the guarantee could not be given for another reason.
    """
    if "writeErrors" in reply or "writeConcernError" in reply:
        error = write_error_from_reply(reply)
        if error is not None:
            raise error
