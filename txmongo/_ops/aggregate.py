"""The ``aggregate`` command, on a collection or on a database, reading or writing (``$out``, ``$merge``).

Kept: the CRUD specification, "Aggregate", and its section on read preferences of pipelines that write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from txmongo._ops.base import ReplyContext, RetryKind, write_concern_document, write_service_class
from txmongo._ops.cursors import CursorBatch, CursorOperation
from txmongo.errors import write_concern_error_from_reply

if TYPE_CHECKING:
    from pymongo.server_selectors import Selection

    from txmongo._cmap.description import StreamDescription

__all__ = ["Aggregate", "WritingPipelinePreference", "writes"]

#: Secondaries take pipelines that write from this wire version on (MongoDB 5.0).
_SECONDARY_WRITES_WIRE_VERSION = 13


def writes(pipeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last stage stores its input: ``$out`` or ``$merge``."""
    if not pipeline:
        return False
    stage = pipeline[-1]
    return "$out" in stage or "$merge" in stage


class WritingPipelinePreference:
    """Selects the server of a pipeline that writes: the primary while any server is older than MongoDB 5.0.

    Otherwise it is as the read preference that it holds; it can be used in that one's place.
    """

    __slots__ = ("preference",)

    def __init__(self, preference: Any) -> None:
        self.preference = preference

    def __call__(self, selection: Selection) -> Selection:
        """The servers that fit, of those in ``selection``."""
        oldest = selection.topology_description.common_wire_version
        if oldest is not None and oldest < _SECONDARY_WRITES_WIRE_VERSION:
            return ReadPreference.PRIMARY(selection)
        result: Selection = self.preference(selection)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.preference, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WritingPipelinePreference) and other.preference == self.preference

    def __hash__(self) -> int:
        return hash((WritingPipelinePreference, self.preference.mode))

    def __repr__(self) -> str:
        return f"WritingPipelinePreference({self.preference!r})"


class Aggregate(CursorOperation):
    """Run a pipeline; the result is the cursor's first batch."""

    __slots__ = ("batch_size", "fields", "pipeline", "read_concern", "retry", "target", "write_concern")

    name = "aggregate"
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        target: str | int,
        pipeline: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any] | None = None,
        *,
        batch_size: int | None = None,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        reply_codec_options: CodecOptions[Any] | None = None,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        write_concern: WriteConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param target: the collection's name; 1 for a pipeline on the database itself.
        :param fields: further fields of the command under their names on the wire: ``allowDiskUse``, ``let``...
        :param batch_size: documents of the first batch; ``None`` leaves it to the server. Not sent to a pipeline that
            writes.
        :param write_concern: sent only with a pipeline that writes.
        """
        stores = writes(pipeline)
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options if reply_codec_options is None else reply_codec_options,
            read_preference=WritingPipelinePreference(read_preference)
            if stores and read_preference.mode
            else read_preference,
            session=session,
            service_class=write_service_class("aggregate", write_concern or WriteConcern()) if stores else None,
        )
        self.sent = False
        self.target = target
        self.pipeline = pipeline
        self.fields = fields
        self.batch_size = None if stores else batch_size
        self.read_concern = read_concern
        self.write_concern = write_concern if stores else None
        self.retry = RetryKind.NEVER if stores else RetryKind.READ

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``aggregate`` command."""
        cursor = {} if self.batch_size is None else {"batchSize": self.batch_size}
        command = {"aggregate": self.target, "pipeline": self.pipeline, "cursor": cursor}
        if self.fields:
            command.update(self.fields)
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        if self.write_concern is not None:
            document = write_concern_document(self.write_concern)
            if document is not None:
                command["writeConcern"] = document
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> CursorBatch:
        """The first batch.

        :raises WriteConcernError: the pipeline stored its documents, but not in as many places as was asked for.
        """
        assert reply is not None
        if self.write_concern is not None:
            error = write_concern_error_from_reply(reply)
            if error is not None:
                raise error
        return super().parse(reply, context)
