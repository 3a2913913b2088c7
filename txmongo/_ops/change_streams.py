"""What is decided for a change stream: its command, where it goes on after a failure, and after which failures it does.

Pure: no I/O and no time. The stream that users have is :mod:`txmongo.change_stream`. Kept: the change streams
specification, "Helper Method", "Resume Process" and "Updating the Cached Resume Token". Its list of error codes for
servers before MongoDB 4.4 is not here, for such servers are not spoken to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from bson.codec_options import CodecOptions
from bson.timestamp import Timestamp

from txmongo._cmap.errors import PoolClosedError
from txmongo._ops.aggregate import Aggregate
from txmongo._ops.arguments import check_boolean, check_optional_mapping, with_comment
from txmongo._ops.base import ReplyContext, collation_document
from txmongo._ops.cursors import CursorBatch
from txmongo._ops.find import check_count
from txmongo.errors import ConnectionFailure, CursorNotFound, InvalidOperation, PyMongoError

__all__ = ["FirstChanges", "ResumePoint", "Watch", "WatchOptions", "is_resumable"]

_RESUMABLE = "ResumableChangeStreamError"


def is_resumable(error: BaseException) -> bool:
    """Whether a stream may go on after such a failure of a getMore: no server answered, or the answer allows it."""
    if not isinstance(error, PyMongoError):
        return False
    if error.has_error_label(_RESUMABLE) or isinstance(error, CursorNotFound):
        return True
    details = getattr(error, "details", None)
    answered = isinstance(details, Mapping) and bool(details)
    # A closed pool: the server left the topology. If it is the client that is closed, resuming ends in the same error.
    return isinstance(error, ConnectionFailure | PoolClosedError) and not answered


@attrs.frozen(kw_only=True)
class WatchOptions:
    """What is watched, and how; :meth:`checked` makes one of what a caller gave.

    :ivar pipeline: the stages that follow ``$changeStream``.
    :ivar stage: the fields of ``$changeStream``, without those that say where to begin.
    :ivar fields: of the ``aggregate`` command.
    """

    pipeline: Sequence[Mapping[str, Any]] = attrs.field(factory=list)
    stage: Mapping[str, Any] = attrs.field(factory=dict)
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    resume_after: Mapping[str, Any] | None = None
    start_after: Mapping[str, Any] | None = None
    start_at_operation_time: Timestamp | None = None
    batch_size: int | None = None
    max_await_time_ms: int | None = None
    comment: Any = None

    @classmethod
    def checked(
        cls,
        *,
        pipeline: Any,
        full_document: Any,
        full_document_before_change: Any,
        resume_after: Any,
        start_after: Any,
        start_at_operation_time: Any,
        max_await_time_ms: Any,
        batch_size: Any,
        collation: Any,
        comment: Any,
        show_expanded_events: Any,
        whole_cluster: bool = False,
    ) -> WatchOptions:
        """The options for the arguments of ``watch``.

        Only their types are checked. What the server makes of unknown values, of stages that it does not allow, or of
        two places to begin at once, is the server's business.

        :param whole_cluster: all databases are watched.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: a number is negative.
        """
        if pipeline is not None and not isinstance(pipeline, list):
            raise TypeError(f"pipeline must be a list of stages, not {type(pipeline).__name__}")
        stage: dict[str, Any] = {}
        for name, argument, value in (
            ("fullDocument", "full_document", full_document),
            ("fullDocumentBeforeChange", "full_document_before_change", full_document_before_change),
        ):
            if value is not None:
                if not isinstance(value, str):
                    raise TypeError(f"{argument} must be a str, not {type(value).__name__}")
                stage[name] = value
        if show_expanded_events is not None:
            check_boolean("show_expanded_events", show_expanded_events)
            stage["showExpandedEvents"] = show_expanded_events
        if whole_cluster:
            stage["allChangesForCluster"] = True
        check_optional_mapping("resume_after", resume_after)
        check_optional_mapping("start_after", start_after)
        if start_at_operation_time is not None and not isinstance(start_at_operation_time, Timestamp):
            kind = type(start_at_operation_time).__name__
            raise TypeError(f"start_at_operation_time must be a bson.timestamp.Timestamp, not {kind}")
        return cls(
            pipeline=list(pipeline or ()),
            stage=stage,
            fields=with_comment({} if collation is None else {"collation": collation_document(collation)}, comment),
            resume_after=resume_after,
            start_after=start_after,
            start_at_operation_time=start_at_operation_time,
            batch_size=None if batch_size is None else check_count("batch_size", batch_size),
            max_await_time_ms=None
            if max_await_time_ms is None
            else check_count("max_await_time_ms", max_await_time_ms),
            comment=comment,
        )


class FirstChanges(CursorBatch):
    """The first batch of a stream.

    :ivar operation_time: of the reply, ``None`` if it has none.
    """

    __slots__ = ("operation_time",)

    def __init__(self, batch: CursorBatch, operation_time: Timestamp | None) -> None:
        super().__init__(
            batch.documents,
            batch.cursor_id,
            batch.namespace,
            batch.address,
            batch.post_batch_resume_token,
            batch.session,
        )
        self.pin = batch.pin
        self.operation_time = operation_time


class Watch(Aggregate):
    """The ``aggregate`` command that makes a stream, or makes it anew; the result is its first batch.

    It has a connection alone, as the stream's getMores do: the server may have to read much of its oplog, and a second
    copy of it would leave a cursor behind.
    """

    __slots__ = ()

    def __init__(
        self,
        database: str,
        target: str | int,
        options: WatchOptions,
        begin: Mapping[str, Any],
        *,
        reply_codec_options: CodecOptions[Any],
        **rest: Any,
    ) -> None:
        """
        :param target: the collection's name; 1 for more than a collection.
        :param begin: the fields of ``$changeStream`` that say where to begin.
        :param rest: as of :class:`~txmongo._ops.aggregate.Aggregate`.
        """
        super().__init__(
            database,
            target,
            [{"$changeStream": {**options.stage, **begin}}, *options.pipeline],
            options.fields,
            batch_size=options.batch_size,
            reply_codec_options=reply_codec_options,
            **rest,
        )
        self.exclusive = True

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> FirstChanges:
        """The first batch."""
        batch = super().parse(reply, context)
        assert reply is not None
        return FirstChanges(batch, reply.get("operationTime"))


class ResumePoint:
    """Where a stream stands: what it would say to go on from there.

    :ivar token: the cached resume token, ``None`` if there is none yet.
    """

    def __init__(self, options: WatchOptions) -> None:
        self.token = options.resume_after if options.start_after is None else options.start_after
        self._original = {
            name: value
            for name, value in (
                ("resumeAfter", options.resume_after),
                ("startAfter", options.start_after),
                ("startAtOperationTime", options.start_at_operation_time),
            )
            if value is not None
        }
        self._operation_time = options.start_at_operation_time
        #: Until a change was handed out; then the token is one to resume after.
        self._starts_after = options.start_after is not None
        self._post_batch_token: Mapping[str, Any] | None = None

    def original(self) -> Mapping[str, Any]:
        """The fields of ``$changeStream`` that say where to begin for the first time: as the caller gave them."""
        return self._original

    def resumed(self) -> Mapping[str, Any]:
        """Those fields for going on."""
        if self.token is not None:
            return {"startAfter" if self._starts_after else "resumeAfter": self.token}
        if self._operation_time is not None:
            return {"startAtOperationTime": self._operation_time}
        return {}

    def began(self, batch: FirstChanges) -> None:
        """The stream was made, for the first time or again."""
        told_where = bool(self._original) or bool(batch.documents) or batch.post_batch_resume_token is not None
        if self._operation_time is None and not told_where:
            self._operation_time = batch.operation_time
        self.arrived(batch)

    def arrived(self, batch: CursorBatch) -> None:
        """A batch has come."""
        self._post_batch_token = batch.post_batch_resume_token
        if not batch.documents and self._post_batch_token is not None:
            self.token = self._post_batch_token

    def handed_out(self, change: Mapping[str, Any], *, last: bool) -> None:
        """A change goes to the caller.

        :param last: the batch has no further one.
        :raises InvalidOperation: it has no resume token: a stage of the pipeline took it away.
        """
        try:
            token = change["_id"]
        except KeyError:
            raise InvalidOperation(
                "cannot provide resume functionality when the resume token is missing: a stage of the pipeline took "
                "_id from a change"
            ) from None
        if last and self._post_batch_token is not None:
            token = self._post_batch_token
        self.token = token
        self._starts_after = False
