"""What an operation is: a value that says which command to send and what its reply means.

An :class:`Operation` never does I/O and never changes after it was made; the executor (:mod:`txmongo._ops.executor`)
selects a server, checks a connection out, calls :meth:`~Operation.build` and :meth:`~Operation.encode`, sends, and
hands the checked reply to :meth:`~Operation.parse`. The same operation may be built several times, for a retry or for a
second copy on another connection.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.collation import Collation
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from txmongo._wire.envelope import encode_elements
from txmongo._wire.header import next_request_id
from txmongo._wire.op_msg import MORE_TO_COME, Msg, encode_command
from txmongo.errors import ConfigurationError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from txmongo._cmap.connection import Connection
    from txmongo._cmap.description import StreamDescription
    from txmongo._cmap.pinning import Pin
    from txmongo.types import Address

__all__ = [
    "Operation",
    "ReplyContext",
    "RetryKind",
    "collation_document",
    "write_concern_document",
    "write_service_class",
]

ResultT = TypeVar("ResultT")

#: How the server's own replies are decoded where no document of the user is in them: a broken string never hides an
#: error.
REPLY_CODEC_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(unicode_decode_error_handler="replace")


class RetryKind(enum.Enum):
    """Whether and by which specification a failed operation may be sent again."""

    NEVER = "never"
    READ = "retryable read"
    WRITE = "retryable write"


class ReplyContext(Protocol):
    """What :meth:`Operation.parse` may know beside the reply: where it came from."""

    @property
    def address(self) -> Address:
        """The server that answered."""
        ...

    @property
    def description(self) -> StreamDescription:
        """What the connection's handshake said of that server."""
        ...

    @property
    def connection(self) -> Connection | None:
        """The connection that the command was sent on."""
        ...


class Operation(Generic[ResultT]):
    """One command with all that is needed to send it.

    Subclasses set the class attributes, add their own slots, and write :meth:`build` and :meth:`parse`.

    :ivar database: the name that is sent as ``$db``.
    :ivar codec_options: how the command's documents are encoded.
    :ivar reply_codec_options: how the reply is decoded: the user's for replies that hold the user's documents, else
        :data:`REPLY_CODEC_OPTIONS`.
    :ivar read_preference: selects the server; the primary for writes.
    :ivar address: the only server that can answer (a cursor's), or ``None``.
    :ivar session: the session given by the caller, or ``None``.
    :ivar acknowledged: false when no reply will come (``w=0``).
    :ivar service_class: the key under which the pool averages how long the server takes, such as ``insert:majority``.
    :ivar bounded: the server is known to answer soon, whatever the data: by ``_id``, ``ping``. Default false.
    :ivar exclusive: needs a connection that nobody shares meanwhile: awaitData, exhaust. Default false.
    :ivar pin: behind a load balancer, the connection that it has to be sent on; ``None`` if any will do.
    """

    __slots__ = (
        "acknowledged",
        "address",
        "bounded",
        "codec_options",
        "database",
        "exclusive",
        "read_preference",
        "reply_codec_options",
        "service_class",
        "session",
    )

    #: The command's name: the first key of the command document, and ``command_name`` of its events.
    name: ClassVar[str]
    #: Which rules a failure of it follows. An instance may narrow it by a property.
    retry: RetryKind = RetryKind.NEVER
    #: Reply fields that hold the user's documents, for decoding with a type registry; as PyMongo's ``user_fields``.
    user_fields: ClassVar[Mapping[str, Any] | None] = None
    #: Whether a non-primary read preference is sent as ``$readPreference``: reads, not writes and not getMore.
    sends_read_preference: ClassVar[bool] = False
    #: Whether a member of a replica set that is not initiated yet may run it: only what the user names a command.
    allow_ghost: ClassVar[bool] = False

    #: The parts of the command in BSON that are the same for many operations, ``None`` where :meth:`elements` is not to
    #: be asked. The reply of an operation that has them is decoded into a dict, by no type registry.
    template: Any = None
    #: Makes the message of what :meth:`elements` returned.
    encode_elements: Callable[[int, list[bytes]], bytes] = staticmethod(encode_elements)
    pin: Pin | None = None

    def __init__(
        self,
        database: str,
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
        reply_codec_options: CodecOptions[Any] = REPLY_CODEC_OPTIONS,
        read_preference: Any = ReadPreference.PRIMARY,
        address: Address | None = None,
        session: Any = None,
        acknowledged: bool = True,
        service_class: str | None = None,
        bounded: bool = False,
        exclusive: bool = False,
    ) -> None:
        self.database = database
        self.codec_options = codec_options
        self.reply_codec_options = reply_codec_options
        self.read_preference = read_preference
        self.address = address
        self.session = session
        self.acknowledged = acknowledged
        self.service_class = self.name if service_class is None else service_class
        self.bounded = bounded
        self.exclusive = exclusive

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """A new command document for a connection to such a server, without ``$db`` and the session's fields.

        :raises ConfigurationError: the server is too old for an option that was given; nothing was sent.
        """
        raise NotImplementedError

    def elements(self, description: StreamDescription) -> list[bytes] | None:
        """What :meth:`build` and :meth:`encode` make, ``$db`` included, as fields in BSON: for what is sent most often.

        Asked only with a :attr:`template`, of the first attempt, without a session of the application's, where nobody
        listens to commands.

        :returns: ``None`` to be asked for :meth:`build` after all.
        :raises InvalidDocument: bson's own error for a value that it cannot encode.
        """
        return None

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> ResultT:
        """The operation's result for a reply whose ``ok`` is 1; ``None`` for an unacknowledged one.

        :raises PyMongoError: what the reply says below its top level, such as write errors.
        """
        raise NotImplementedError

    def encode(self, command: dict[str, Any], description: StreamDescription) -> Msg:
        """The message for what :meth:`build` made and the executor completed; its ``wire`` is ready to be sent.

        :raises InvalidDocument: bson's own error for a value that it cannot encode.
        """
        body = bson.encode(command, False, self.codec_options)
        request_id = next_request_id()
        flags = 0 if self.acknowledged else MORE_TO_COME
        message = Msg(request_id, 0, body, flags)
        message.wire = encode_command(request_id, body, flags)
        message.user_fields = self.user_fields
        return message


#: ``Executor.execute`` as the fronts see it.
Execute = Callable[[Operation[ResultT]], "Deferred[ResultT]"]


def collation_document(collation: Collation | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The ``collation`` field of a command for what the caller gave.

    :raises TypeError: it is neither a :class:`~pymongo.collation.Collation` nor a mapping.
    """
    if collation is None:
        return None
    if isinstance(collation, Collation):
        return dict(collation.document)
    if isinstance(collation, Mapping):
        return dict(collation)
    raise TypeError(f"collation must be a Collation or a mapping, not {type(collation).__name__}")


def check_acknowledged_option(name: str, value: Any, acknowledged: bool) -> None:
    """Refuse an option that an unacknowledged write cannot carry.

    :raises ConfigurationError: ``value`` was given with ``w=0``.
    """
    if value is not None and not acknowledged:
        raise ConfigurationError(f"{name} is unsupported for unacknowledged writes")


def write_concern_document(write_concern: WriteConcern) -> dict[str, Any] | None:
    """The ``writeConcern`` field of a command; ``None`` when the server's default is meant."""
    return None if write_concern.is_server_default else write_concern.document


def write_service_class(name: str, write_concern: WriteConcern) -> str:
    """The key of the pool's moving average for a write: one for each kind of waiting that the server may do."""
    document = write_concern.document
    w = document.get("w", "default")
    return f"{name}:{w}:j" if document.get("j") else f"{name}:{w}"
