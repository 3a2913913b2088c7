"""How operations of a client with automatic client-side encryption run: encrypted before they leave, decrypted after.

Client-side encryption specification, "Automatic encryption and decryption". Everything that it costs is here: other
clients have a plain :class:`~txmongo._ops.executor.Executor`. What is encrypted, and how, is not known here either.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from twisted.internet.defer import Deferred

from txmongo._ops.attempt import Attempt, check_size
from txmongo._ops.base import REPLY_CODEC_OPTIONS, Operation
from txmongo._ops.bulk_write import WriteBatch
from txmongo._ops.cursors import KillCursors
from txmongo._ops.executor import Executor, as_deferred
from txmongo._ops.retry import Stage
from txmongo._ops.timed_attempt import TimedAttempt
from txmongo._ops.timeouts import TimeLimit
from txmongo._waiters import reply_document
from txmongo._wire.envelope import elements_of
from txmongo._wire.op_msg import Msg, encode_command
from txmongo.errors import DocumentTooLarge

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from txmongo._cmap.connection import Connection
    from txmongo._cmap.description import StreamDescription
    from txmongo._ops.command_events import CommandEvents

__all__ = ["EncryptingExecutor"]

_pack_int32 = struct.Struct("<i").pack

ResultT = TypeVar("ResultT")

#: Bytes of statements in one command: what becomes of them in encryption has room in a message ("Size limits").
SPLIT_SIZE = 2 * 1024 * 1024

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_MS
)


class Encrypter(Protocol):
    """What encrypts commands, and decrypts replies."""

    #: Whether commands are to be encrypted at all.
    encrypts: bool

    def encrypt(self, database: str, command: bytes) -> Deferred[bytes]:
        """What is to be sent in the place of a command; both are without ``$db``."""
        ...

    def decrypt(self, reply: bytes) -> Deferred[bytes]:
        """What a reply means."""
        ...


class EncryptedAttempt(Attempt):
    """An attempt whose command is encrypted, and whose reply is decrypted.

    It holds its place on the connection meanwhile; what encryption has to fetch comes over those of other clients.
    """

    _owner: EncryptingExecutor
    #: Nothing has left so far: a failure is one to make the message.
    _unwritten = True
    #: The command as it would be without encryption.
    _plain_command: dict[str, Any]

    def again(self) -> EncryptedAttempt:
        """A new attempt of the same operation."""
        return EncryptedAttempt(self._owner, self.operation, self.read_preference)

    def send(self, connection: Connection) -> Deferred[Any]:
        """Encrypt the command, write it on the connection that was checked out, decrypt the reply.

        :returns: a Deferred that fires with the operation's result.
        """
        deferred: Deferred[Any] = Deferred.fromCoroutine(self._converse(connection))
        deferred.addCallbacks(self._succeeded, self._failed)
        return deferred

    def _write_again(self, connection: Connection) -> Any:
        """It is encrypted anew."""
        self._unwritten = True
        return EncryptedAttempt.send(self, connection)

    async def _converse(self, connection: Connection) -> Any:
        """The reply, decrypted."""
        operation = self.operation
        msg = self._message_in_parts(connection.description)
        user_fields = msg.user_fields
        try:
            if self._owner.encrypter.encrypts:
                msg = await self._encrypted(msg, connection.description)
            if self._owner.events is not None:
                self._publish(msg, connection.description)
        except BaseException:
            self._owner.sessions.unsent(self.use)
            raise
        self._unwritten = False
        reply = await connection.protocol.send_msg(msg, _RAW, operation.session, check=False)
        if reply is None:
            return None
        body = bytes(reply.raw)
        if reply.get("ok") == 1:
            if self._sent is not None:
                # Those who listen are shown what came, and that it came, also if it cannot be decrypted.
                self._publish_succeeded(bson.decode(body, REPLY_CODEC_OPTIONS))
                self._sent = None
            body = await self._owner.encrypter.decrypt(body)
        return reply_document(Msg(body=body), operation.reply_codec_options, user_fields, True, None)

    def _message_in_parts(self, description: StreamDescription) -> Msg:
        """The message without encryption; a batch is as small as it has to be for that."""
        if not self._owner.encrypter.encrypts or not isinstance(self.operation, WriteBatch):
            return self._message(description)
        try:
            return self._message(attrs.evolve(description, max_message_size=SPLIT_SIZE))
        except DocumentTooLarge:
            # A single statement may have all the room that the server gives.
            return self._message(attrs.evolve(description, max_write_batch_size=1))

    async def _encrypted(self, msg: Msg, description: StreamDescription) -> Msg:
        database = self.operation.database
        plain = {name: value for name, value in msg.to_dict(_RAW).items() if name != "$db"}
        command = await self._owner.encrypter.encrypt(database, bson.encode(plain))
        fields = command[4:-1] + elements_of({"$db": database})
        body = _pack_int32(len(fields) + 5) + fields + b"\0"
        encrypted = Msg(msg.request_id, 0, body, msg.flag_bits)
        encrypted.wire = encode_command(msg.request_id, body, msg.flag_bits)
        check_size(self.operation, encrypted, description)
        return encrypted

    def _publish_started(
        self, events: CommandEvents, msg: Msg, command: dict[str, Any], description: StreamDescription
    ) -> None:
        """Not yet: who listens sees what is sent."""
        self._plain_command = command

    def _publish(self, msg: Msg, description: StreamDescription) -> None:
        events, command = self._owner.events, self._plain_command
        assert events is not None
        if self._owner.encrypter.encrypts:
            command = bson.decode(msg.body, REPLY_CODEC_OPTIONS)
        super()._publish_started(events, msg, command, description)

    def _failed(self, failure: Failure) -> Any:
        if not self._unwritten:
            return super()._failed(failure)
        self._check_in()
        return self._owner.after_failure(self, failure, Stage.BUILDING)


class TimedEncryptedAttempt(TimedAttempt, EncryptedAttempt):
    """One whose time is limited, that for encryption included."""

    def again(self) -> TimedEncryptedAttempt:
        """A new attempt of the same operation."""
        return TimedEncryptedAttempt(self._owner, self.operation, self.read_preference, self.limit)


class EncryptingExecutor(Executor):
    """Runs operations of which each is encrypted.

    :ivar encrypter: does it.
    """

    def __init__(self, encrypter: Encrypter, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.encrypter = encrypter
        self.moves_reads = False

    def execute(self, operation: Operation[ResultT]) -> Deferred[ResultT]:
        """As :meth:`Executor.execute <txmongo._ops.executor.Executor.execute>`.

        :returns: a Deferred that also fails with :class:`~txmongo.errors.EncryptionError`.
        """
        refusal = self._heed(operation)
        if refusal is not None:
            return refusal
        if operation.session is not None:
            session_limit = operation.session.time_limit
            if session_limit is not None and not isinstance(operation, KillCursors):
                return self.execute_within(operation, session_limit)
        return self._begin(EncryptedAttempt(self, operation, operation.read_preference))

    def execute_within(self, operation: Operation[ResultT], limit: TimeLimit) -> Deferred[ResultT]:
        """As :meth:`Executor.execute_within <txmongo._ops.executor.Executor.execute_within>`.

        :returns: a Deferred that also fails with :class:`~txmongo.errors.EncryptionError`.
        """
        refusal = self._heed(operation)
        if refusal is not None:
            return refusal
        return self._begin(TimedEncryptedAttempt(self, operation, operation.read_preference, limit))

    def _begin(self, attempt: Attempt) -> Deferred[Any]:
        attempt.pinned_address = attempt.operation.address
        return as_deferred(self._begin_again(attempt))
