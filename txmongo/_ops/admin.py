"""Commands on collections and databases as a whole: they create, change, drop, rename and list them.

Kept: the specifications "Enumerating collections" and "Enumerating databases".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from txmongo._ops.base import REPLY_CODEC_OPTIONS, Operation, ReplyContext, RetryKind, write_concern_document
from txmongo._ops.cursors import CursorBatch, CursorOperation, malformed
from txmongo.errors import ConfigurationError, write_concern_error_from_reply

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["CollMod", "Create", "CreateEncrypted", "Drop", "DropDatabase", "ListCollections", "ListDatabases", "Rename"]

#: The wire version of MongoDB 7.0, the first whose Queryable Encryption is that of today.
_QUERYABLE_ENCRYPTION = 21


class _Change(Operation[Mapping[str, Any]]):
    """A command that changes a collection or a database as a whole; the result is the reply."""

    __slots__ = ("fields", "target", "write_concern")

    def __init__(
        self,
        database: str,
        target: Any,
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        reply_codec_options: CodecOptions[Any] = REPLY_CODEC_OPTIONS,
        write_concern: WriteConcern | None = None,
        session: Any = None,
    ) -> None:
        """
        :param target: the value of the command's first field.
        :param fields: its further fields under their names on the wire.
        """
        super().__init__(
            database, codec_options=codec_options, reply_codec_options=reply_codec_options, session=session
        )
        self.target = target
        self.fields = fields
        self.write_concern = write_concern

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command."""
        command: dict[str, Any] = {self.name: self.target}
        if self.fields:
            command.update(self.fields)
        document = None if self.write_concern is None else write_concern_document(self.write_concern)
        if document is not None:
            command["writeConcern"] = document
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Mapping[str, Any]:
        """The reply.

        :raises WriteConcernError: done, but the write concern was not satisfied.
        """
        assert reply is not None
        error = write_concern_error_from_reply(reply)
        if error is not None:
            raise error
        return reply


class Create(_Change):
    """Create the collection or view ``target``."""

    __slots__ = ()

    name = "create"


class CreateEncrypted(Create):
    """Create a collection with fields of Queryable Encryption, or one of those that keep their state."""

    __slots__ = ()

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The command.

        :raises ConfigurationError: the server is too old.
        """
        if description.max_wire_version < _QUERYABLE_ENCRYPTION:
            # The specification wants these very words.
            raise ConfigurationError(
                "Driver support of Queryable Encryption is incompatible with server. Upgrade server to use Queryable "
                "Encryption. encryptedFields need MongoDB 7.0 or later"
            )
        return super().build(description)


class CollMod(_Change):
    """Change the options of the collection or view ``target``, or of one of its indexes."""

    __slots__ = ()

    name = "collMod"


class Drop(_Change):
    """Drop the collection ``target``; servers before 7.0 answer with error 26 if it is not there."""

    __slots__ = ()

    name = "drop"


class DropDatabase(_Change):
    """Drop the database that the command is sent to."""

    __slots__ = ()

    name = "dropDatabase"

    def __init__(self, database: str, fields: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(database, 1, fields, **options)


class Rename(_Change):
    """Rename a collection, within its database or into another."""

    __slots__ = ()

    name = "renameCollection"

    def __init__(self, source: str, to: str, fields: Mapping[str, Any] | None = None, **options: Any) -> None:
        """
        :param source: ``database.collection`` as it is called now.
        :param to: ``database.collection`` as it shall be called.
        :param fields: further fields: ``dropTarget``, ``comment``.
        """
        super().__init__("admin", source, {"to": to, **(fields or {})}, **options)


class ListCollections(CursorOperation):
    """List the collections of a database; the result is the cursor's first batch."""

    __slots__ = ("batch_size", "fields")

    name = "listCollections"
    retry = RetryKind.READ
    sends_read_preference = True

    def __init__(
        self,
        database: str,
        fields: Mapping[str, Any] | None = None,
        *,
        batch_size: int | None = None,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        session: Any = None,
    ) -> None:
        """
        :param fields: further fields: ``filter``, ``nameOnly``, ``authorizedCollections``, ``comment``.
        :param batch_size: documents of the first batch; ``None`` leaves it to the server.
        """
        super().__init__(
            database,
            codec_options=codec_options,
            reply_codec_options=codec_options,
            read_preference=read_preference,
            session=session,
        )
        self.sent = False
        self.fields = fields
        self.batch_size = batch_size

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``listCollections`` command."""
        cursor = {} if self.batch_size is None else {"batchSize": self.batch_size}
        return {"listCollections": 1, "cursor": cursor, **(self.fields or {})}


class ListDatabases(CursorOperation):
    """List the databases. The reply is an array: the result is a batch that holds them all."""

    __slots__ = ("fields",)

    name = "listDatabases"
    retry = RetryKind.READ
    sends_read_preference = True

    def __init__(
        self,
        fields: Mapping[str, Any] | None = None,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        reply_codec_options: CodecOptions[Any] = REPLY_CODEC_OPTIONS,
        session: Any = None,
    ) -> None:
        """
        :param fields: further fields: ``filter``, ``nameOnly``, ``authorizedDatabases``, ``comment``.
        """
        super().__init__("admin", codec_options=codec_options, reply_codec_options=reply_codec_options, session=session)
        self.sent = False
        self.fields = fields

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``listDatabases`` command."""
        return {"listDatabases": 1, **(self.fields or {})}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> CursorBatch:
        """All databases, in one batch."""
        assert reply is not None
        databases = reply.get("databases")
        if not isinstance(databases, list):
            raise malformed("listDatabases")
        return CursorBatch(databases, 0, "admin.$cmd", context.address)
