"""Many statements in few commands: batches as large as the server takes them, and what their replies add up to.

A bulk write is cut into *runs* of one kind of statement, a run into *batches*: each :class:`WriteBatch` is one insert,
update or delete command whose statements travel as a document sequence that PyMongo's C encoder fills up to the
server's limits, or as an array in the command where they are few and nobody listens to commands. What the replies add
up to is the document that ``BulkWriteResult.bulk_api_result`` and ``BulkWriteError.details`` hold. Sending one batch
after another is :mod:`txmongo.bulk`'s. Kept: the CRUD specification, "Bulk write".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import bson
from pymongo.read_preferences import ReadPreference

from txmongo._ops.base import REPLY_CODEC_OPTIONS, Operation, ReplyContext, RetryKind
from txmongo._ops.update import check_unacknowledged_sort
from txmongo._ops.writes import WriteTarget, keep_outcome
from txmongo._pymongo import do_batched_op_msg
from txmongo._wire.envelope import LARGE, elements_of, encode_many_elements
from txmongo._wire.op_msg import EMPTY_DOCUMENT, MORE_TO_COME, Msg
from txmongo.errors import DocumentTooLarge, WriteConcernError

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = [
    "RETRYABLE",
    "BatchUnconfirmed",
    "DeleteBatch",
    "InsertBatch",
    "Run",
    "UpdateBatch",
    "WriteBatch",
    "batch_template",
    "empty_result",
    "has_errors",
    "merge_reply",
    "ordered_runs",
    "unordered_runs",
]

#: Bytes that the first encoding of a batch leaves free, for what a later one may carry beside it ($clusterTime).
_RESERVE = 512

#: The label by which a server asks for a retry.
RETRYABLE = "RetryableWriteError"


class BatchUnconfirmed(WriteConcernError):
    """A batch was carried out, but the server says that its write concern failed in a way that a retry may heal.

    :ivar reply: the whole reply, for when there is no retry any more.
    :ivar found: what the operation makes of the reply otherwise.
    """

    def __init__(self, reply: Mapping[str, Any], found: Any = None) -> None:
        error = reply["writeConcernError"]
        details = {**error, "errorLabels": list(reply["errorLabels"])}
        super().__init__(str(error.get("errmsg", "the write concern was not satisfied")), error.get("code"), details)
        self.reply = reply
        self.found = found


#: Statements of a command that is put together here: that takes about 2 us each, and saves 10.
_FEW = 5
#: The types and names of an array's elements.
_KEYS = [b"\x03%d\0" % number for number in range(_FEW)]
_pack_int32 = struct.Struct("<i").pack


class _Uncompressed:
    """Tells the batch encoder that the protocol compresses messages itself."""

    compression_context = None


@attrs.frozen
class _Limits:
    """What the batch encoder asks about a connection."""

    max_bson_size: int
    max_write_batch_size: int
    max_message_size: int
    conn: ClassVar[type[_Uncompressed]] = _Uncompressed


class WriteBatch(Operation["Mapping[str, Any] | None"]):
    """One command with as many statements of one run as the server takes; the result is the reply as it is.

    :ivar statements: those of the whole run.
    :ivar start: the first one of this batch.
    :ivar count: how many of them this batch holds. It is ``None`` until the batch is encoded for the first time and
        never changes after: what is sent again under the same transaction number must be the same statements.
    """

    # As in FindOne: the same for all, and no slots.
    read_preference = ReadPreference.PRIMARY
    address = None
    bounded = False
    exclusive = False
    count: int | None = None

    #: The batch encoder's number for the command.
    number: ClassVar[int]
    #: The name of the document sequence, or of the array.
    statements_field: ClassVar[str]
    #: A document from which the command's name can be read without decoding the message.
    name_document: ClassVar[bytes]

    def __init__(
        self,
        target: WriteTarget,
        statements: list[Any],
        start: int = 0,
        *,
        ordered: bool = True,
        retryable: bool = True,
        acknowledged: bool = True,
        options: dict[str, Any] | None = None,
        session: Any = None,
        template: dict[str, bytes] | None = None,
    ) -> None:
        """
        :param template: what :func:`batch_template` made of ``target``, for batches with the same ``ordered`` and, if
            they are of one kind, the same ``options``.
        """
        # The parents' fields are set here, not by a call up.
        self.database = target.database
        self.codec_options = target.codec_options
        self.reply_codec_options = target.reply_codec_options
        self.session = session
        self.acknowledged = acknowledged
        self.target = target
        self.statements = statements
        self.start = start
        self.ordered = ordered
        self.retry = RetryKind.WRITE if retryable else RetryKind.NEVER
        self.options = options
        self.template = template

    @property
    def end(self) -> int:
        """The first statement after this batch; only known once it was encoded."""
        assert self.count is not None
        return self.start + self.count

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command without its statements, which :meth:`encode` adds."""
        command: dict[str, Any] = {self.name: self.target.collection, "ordered": self.ordered}
        if self.options is not None:
            command.update(self.options)
        # An acknowledged batch of an unacknowledged bulk write has the server's own default.
        if self.target.write_concern is not None and self.acknowledged == self.target.acknowledged:
            command["writeConcern"] = self.target.write_concern
        return command

    def elements(self, description: StreamDescription) -> list[bytes] | None:
        """The command in BSON if it is of few statements: with many, or large ones, the batch encoder is faster."""
        statements = self.statements
        count = len(statements)
        if count > _FEW or count > description.max_write_batch_size or self.start:
            return None
        beginning = self.template.get(self.name)
        if beginning is None:
            beginning = self.template[self.name] = self._beginning(description)
        elements = [beginning, b""]
        size = len(EMPTY_DOCUMENT)
        room = LARGE - len(beginning)
        for key, statement in zip(_KEYS, statements, strict=False):
            document = bson.encode(statement, False, self.codec_options)
            size += len(key) + len(document)
            if size > room:
                # One statement is copied once more, which takes less than to encode it once more.
                if count > 1 or size + len(beginning) > description.max_bson_size:
                    return None
                self.encode_elements = encode_many_elements
            elements += (key, document)
        elements[1] = _pack_int32(size)
        elements.append(b"\0")
        self.count = count
        return elements

    def _beginning(self, description: StreamDescription) -> bytes:
        """The fields of the command up to the array of its statements."""
        command = self.build(description)
        command["$db"] = self.database
        return elements_of(command) + b"\x04%b\0" % self.statements_field.encode()

    def encode(self, command: dict[str, Any], description: StreamDescription) -> Msg:
        """The message; adds to ``command`` the statements that are in it, for those who are shown the command.

        :raises InvalidDocument: a value that BSON cannot hold.
        :raises DocumentTooLarge: a single statement is more than the server takes; nothing was sent.
        """
        limits = self._limits(description)
        last = self.start + limits.max_write_batch_size
        statements = self.statements
        if self.start or last < len(statements):
            statements = statements[self.start : last]
        request_id, wire, sent = do_batched_op_msg(
            self.database, self.number, command, statements, self.codec_options, limits
        )
        if self.count is None:
            self.count = len(sent)
        elif len(sent) < self.count:
            raise DocumentTooLarge(f"{self.name}: what was sent once is more than another server takes in one message")
        message = Msg(request_id, 0, self.name_document, 0 if self.acknowledged else MORE_TO_COME)
        message.wire = wire
        command[self.statements_field] = sent
        return message

    def _limits(self, description: StreamDescription) -> Any:
        if self.count is None:
            return _Limits(
                description.max_bson_size,
                description.max_write_batch_size,
                description.max_message_size - _RESERVE,
            )
        return _Limits(description.max_bson_size, self.count, description.max_message_size)

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Mapping[str, Any] | None:
        """The reply, write errors and write concern errors included; ``None`` for an unacknowledged batch.

        :raises BatchUnconfirmed: the server asks for a retry.
        """
        if reply is not None:
            keep_outcome(reply, context)
        if reply is not None and "writeConcernError" in reply and RETRYABLE in reply.get("errorLabels", ()):
            raise BatchUnconfirmed(reply)
        return reply


def batch_template(target: WriteTarget) -> dict[str, bytes] | None:
    """What the batches of one bulk write share as their template: the beginnings of their commands, made as needed.

    :returns: ``None`` if there will be no reply, or one that needs more than the plain decoder.
    """
    return {} if target.acknowledged and target.reply_codec_options is REPLY_CODEC_OPTIONS else None


class InsertBatch(WriteBatch):
    """Documents to store."""

    name = "insert"
    service_class = "insert:batch"
    number = 0
    statements_field = "documents"
    name_document = bson.encode({"insert": ""})


class UpdateBatch(WriteBatch):
    """Update statements, as :func:`txmongo._ops.update.update_statement` makes them."""

    name = "update"
    service_class = "update:batch"
    number = 1
    statements_field = "updates"
    name_document = bson.encode({"update": ""})

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command.

        :raises ConfigurationError: ``sort`` without acknowledgement on a server that does not know it.
        """
        if not self.acknowledged and any("sort" in statement for statement in self.statements):
            check_unacknowledged_sort(description)
        return super().build(description)


class DeleteBatch(WriteBatch):
    """Delete statements, as :func:`txmongo._ops.delete.delete_statement` makes them."""

    name = "delete"
    service_class = "delete:batch"
    number = 2
    statements_field = "deletes"
    name_document = bson.encode({"delete": ""})


@attrs.define
class Run:
    """Statements of one kind that can go into the same commands.

    :ivar batch: the class of those commands.
    :ivar statements: the elements of their document sequence.
    :ivar indexes: the place of each statement in what the caller passed.
    :ivar retryable: no statement may change more than one document.
    """

    batch: type[WriteBatch]
    statements: list[Any] = attrs.Factory(list)
    indexes: Sequence[int] = attrs.Factory(list)
    retryable: bool = True


#: One write of the caller's list: the class of its batch, its statement, and whether it may change many documents.
Write = tuple[type[WriteBatch], Any, bool]


def ordered_runs(writes: Iterable[Write]) -> list[Run]:
    """Runs that keep the caller's order: a new one wherever the kind changes."""
    runs: list[Run] = []
    kind: type[WriteBatch] | None = None
    for batch, statement, multi in writes:
        if batch is kind:
            run = runs[-1]
            run.statements.append(statement)
            run.retryable = run.retryable and not multi
        else:
            kind = batch
            runs.append(Run(batch, [statement], (), not multi))
    first = 0
    for run in runs:
        # There may be many runs: a range is no container that is looked at for garbage.
        run.indexes = range(first, first + len(run.statements))
        first += len(run.statements)
    return runs


def unordered_runs(writes: Iterable[Write]) -> list[Run]:
    """At most one run for each kind: inserts, then updates, then deletes."""
    runs: dict[type[WriteBatch], Run] = {batch: Run(batch) for batch in (InsertBatch, UpdateBatch, DeleteBatch)}
    for index, (batch, statement, multi) in enumerate(writes):
        _add(runs[batch], index, statement, multi)
    return [run for run in runs.values() if run.statements]


def _add(run: Run, index: int, statement: Any, multi: bool) -> None:
    run.statements.append(statement)
    run.indexes.append(index)  # type: ignore[attr-defined]  # a list unless the caller gave a range
    if multi:
        run.retryable = False


def empty_result() -> dict[str, Any]:
    """The result of no writes at all."""
    return {
        "writeErrors": [],
        "writeConcernErrors": [],
        "nInserted": 0,
        "nUpserted": 0,
        "nMatched": 0,
        "nModified": 0,
        "nRemoved": 0,
        "upserted": [],
    }


def has_errors(result: Mapping[str, Any]) -> bool:
    """Whether a result has to be raised as a BulkWriteError."""
    return bool(result["writeErrors"] or result["writeConcernErrors"])


def merge_reply(result: dict[str, Any], run: Run, start: int, reply: Mapping[str, Any]) -> None:
    """Add one batch's reply to ``result``; the reply itself stays as it is.

    :param start: the batch's first statement within ``run``.
    """
    _COUNTERS[run.batch](result, run, start, reply)
    for error in reply.get("writeErrors", ()):
        place = start + error["index"]
        result["writeErrors"].append({**error, "index": run.indexes[place], "op": run.statements[place]})
    concern_error = reply.get("writeConcernError")
    if concern_error:
        labels = reply.get("errorLabels")
        result["writeConcernErrors"].append({**concern_error, "errorLabels": labels} if labels else concern_error)


def _count_inserted(result: dict[str, Any], run: Run, start: int, reply: Mapping[str, Any]) -> None:
    result["nInserted"] += reply.get("n", 0)


def _count_deleted(result: dict[str, Any], run: Run, start: int, reply: Mapping[str, Any]) -> None:
    result["nRemoved"] += reply.get("n", 0)


def _count_updated(result: dict[str, Any], run: Run, start: int, reply: Mapping[str, Any]) -> None:
    upserted = reply.get("upserted") or ()
    for document in upserted:
        result["upserted"].append({**document, "index": run.indexes[start + document["index"]]})
    result["nUpserted"] += len(upserted)
    result["nMatched"] += reply.get("n", 0) - len(upserted)
    result["nModified"] += reply.get("nModified", 0)


_COUNTERS = {InsertBatch: _count_inserted, UpdateBatch: _count_updated, DeleteBatch: _count_deleted}
