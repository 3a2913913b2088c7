"""The ``find`` command: one document, or a cursor's first batch.

Both classes take the command's own fields ready-made; :func:`find_fields` makes them from the user's options. Kept: the
CRUD specification, "Find", and the "Find, getMore and killCursors commands" specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from txmongo._ops.arguments import (
    check_boolean,
    check_mapping,
    hint_value,
    index_document,
    is_id_equality,
    projection_document,
)
from txmongo._ops.base import Operation, ReplyContext, RetryKind, collation_document
from txmongo._ops.cursors import CursorOperation, malformed
from txmongo._wire.envelope import elements_of

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["Find", "FindOne", "bounds_document", "check_count", "find_fields", "find_one_template"]

_FIND_USER_FIELDS: Mapping[str, Any] = {"cursor": {"firstBatch": 1}}


def find_fields(
    *,
    projection: Any = None,
    skip: int = 0,
    sort: Any = None,
    collation: Any = None,
    hint: Any = None,
    max_scan: int | None = None,
    max_time_ms: int | None = None,
    max: Any = None,
    min: Any = None,
    return_key: bool | None = None,
    show_record_id: bool | None = None,
    snapshot: bool | None = None,
    comment: Any = None,
    allow_disk_use: bool | None = None,
    let: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of ``find`` for options as PyMongo's ``find`` takes them; those not given are left out.

    :raises TypeError: an option has a value of the wrong type.
    :raises ValueError: an option has a value that is not allowed.
    """
    fields: dict[str, Any] = {}
    if projection is not None:
        projection = projection_document(projection)
        if projection:
            fields["projection"] = projection
    if skip != 0:
        fields["skip"] = check_count("skip", skip)
    if sort:
        fields["sort"] = index_document("sort", sort)
    if collation is not None:
        fields["collation"] = collation_document(collation)
    if hint is not None:
        fields["hint"] = hint_value(hint)
    if max_scan is not None:
        fields["maxScan"] = max_scan
    if max_time_ms is not None:
        fields["maxTimeMS"] = check_count("max_time_ms", max_time_ms)
    if max is not None:
        fields["max"] = bounds_document("max", max)
    if min is not None:
        fields["min"] = bounds_document("min", min)
    if return_key is not None:
        check_boolean("return_key", return_key)
        fields["returnKey"] = return_key
    if show_record_id is not None:
        check_boolean("show_record_id", show_record_id)
        fields["showRecordId"] = show_record_id
    if snapshot is not None:
        check_boolean("snapshot", snapshot)
        fields["snapshot"] = snapshot
    if allow_disk_use is not None:
        check_boolean("allow_disk_use", allow_disk_use)
        fields["allowDiskUse"] = allow_disk_use
    if comment is not None:
        fields["comment"] = comment
    if let is not None:
        check_mapping("let", let)
        fields["let"] = let
    return fields


def bounds_document(name: str, bounds: Any) -> dict[str, Any]:
    """The document for ``max`` and ``min``: a value for each key of the index that is hinted at.

    :raises TypeError: it is neither a mapping nor a list of pairs.
    :raises ValueError: something in the list is not a pair.
    """
    if not isinstance(bounds, (list, tuple, Mapping)):
        raise TypeError(f"{name} must be a mapping or a list of (key, value) pairs, not {type(bounds).__name__}")
    return dict(bounds)


def check_count(name: str, value: Any) -> int:
    """Refuse a number of documents or milliseconds that is none.

    :raises TypeError: it is not an int.
    :raises ValueError: it is negative.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative")
    return value


def find_one_template(
    database: str, collection: str, codec_options: CodecOptions[Any], read_concern: ReadConcern | None
) -> tuple[bytes, bytes] | None:
    """The fields of :class:`FindOne`'s command before and after the filter's document, for one without further fields.

    :returns: ``None`` where replies need more than the plain decoder.
    """
    if codec_options.document_class is not dict or codec_options.type_registry != DEFAULT_CODEC_OPTIONS.type_registry:
        return None
    after: dict[str, Any] = {"limit": 1, "singleBatch": True}
    if read_concern is not None and read_concern.level is not None:
        after["readConcern"] = read_concern.document
    return elements_of({"find": collection}) + b"\x03filter\0", elements_of({**after, "$db": database})


class FindOne(Operation[Any]):
    """Find one document; the result is the document, or ``None``."""

    # The same for all, so not set for each: this is the driver's most travelled way. For that it has no slots.
    address = None
    acknowledged = True
    exclusive = False

    name = "find"
    retry = RetryKind.READ
    user_fields: ClassVar[Mapping[str, Any] | None] = _FIND_USER_FIELDS
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        filter: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        session: Any = None,
        template: tuple[bytes, bytes] | None = None,
    ) -> None:
        """
        :param filter: the query, sent as it is.
        :param fields: further fields of the command under their names on the wire: ``projection``, ``sort``...
        :param read_concern: ``None`` for the server's default, which costs least.
        :param template: what :func:`find_one_template` made of the other arguments.
        """
        # The parent's fields are set here, not by a call up.
        self.database = database
        self.collection = collection
        self.filter = filter
        self.fields = fields
        self.codec_options = self.reply_codec_options = codec_options
        self.read_preference = read_preference
        self.read_concern = read_concern
        self.session = session
        self.template = template
        if not fields and is_id_equality(filter):
            self.bounded = True
            self.service_class = "find:id"
        else:
            self.bounded = False
            self.service_class = "find:one"

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``find`` command with ``limit: 1``."""
        command = {"find": self.collection, "filter": self.filter, "limit": 1, "singleBatch": True}
        if self.fields:
            command.update(self.fields)
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        return command

    def elements(self, description: StreamDescription) -> list[bytes] | None:
        """The command in BSON."""
        query = bson.encode(self.filter, False, self.codec_options)
        if len(query) > description.max_bson_size:
            return None
        before, after = self.template
        return [before, query, after]

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        """The document, or ``None`` if none matched."""
        assert reply is not None
        try:
            documents = reply["cursor"]["firstBatch"]
            return documents[0] if documents else None
        except (LookupError, TypeError):
            raise malformed("find") from None


class Find(CursorOperation):
    """Find documents; the result is the cursor's first batch."""

    __slots__ = ("collection", "fields", "read_concern")

    name = "find"
    retry = RetryKind.READ
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        collection: str,
        fields: Mapping[str, Any],
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        read_concern: ReadConcern | None = None,
        session: Any = None,
        *,
        reply_codec_options: CodecOptions[Any] | None = None,
    ) -> None:
        """
        :param fields: the command's fields but the first: ``filter`` and what else was given.
        :param read_concern: ``None`` for the server's default.
        :param reply_codec_options: if the documents are to be decoded in another way than the filter is encoded.
        """
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options if reply_codec_options is None else reply_codec_options,
            read_preference=read_preference,
            session=session,
        )
        self.sent = False
        self.collection = collection
        self.fields = fields
        self.read_concern = read_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``find`` command."""
        command = {"find": self.collection, **self.fields}
        if self.read_concern is not None and self.read_concern.level is not None:
            command["readConcern"] = self.read_concern.document
        return command
