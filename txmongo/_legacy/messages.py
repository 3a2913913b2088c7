"""The wire messages as TxMongo's two APIs know them, and the numbers that go with them.

TxMongo 15.2 had a named tuple for each opcode, 26 a dataclass for the few that are left. The classes here are both at
once over the values of :mod:`txmongo._wire.op_legacy`: they take the arguments of either, hold their documents as
``bson.BSON``, and may be read as the tuple that they used to be. :class:`Msg` stands for two messages that share a
name: OP_MSG, and the message of opcode 1000 that 15.2 called so. Nothing is sent here, and nothing received.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Self, overload

import attrs
import bson
from bson import BSON

from txmongo._wire import op_legacy, op_msg
from txmongo._wire.header import HEADER, HEADER_SIZE, OP_MSG_LEGACY, OP_REPLY, Opcode
from txmongo._wire.reader import to_cstring
from txmongo.errors import CursorNotFound, ProtocolError, error_from_reply

__all__ = [
    "DELETE_SINGLE_REMOVE",
    "INSERT_CONTINUE_ON_ERROR",
    "MESSAGE_TYPES",
    "OP_MSG_CHECKSUM_PRESENT",
    "OP_MSG_EXHAUST_ALLOWED",
    "OP_MSG_MORE_TO_COME",
    "QUERY_AWAIT_DATA",
    "QUERY_EXHAUST",
    "QUERY_NO_CURSOR_TIMEOUT",
    "QUERY_OPLOG_REPLAY",
    "QUERY_PARTIAL",
    "QUERY_SLAVE_OK",
    "QUERY_TAILABLE_CURSOR",
    "REPLY_AWAIT_CAPABLE",
    "REPLY_CURSOR_NOT_FOUND",
    "REPLY_QUERY_FAILURE",
    "REPLY_SHARD_CONFIG_STALE",
    "UPDATE_MULTI",
    "UPDATE_UPSERT",
    "BaseMessage",
    "Delete",
    "Getmore",
    "Insert",
    "KillCursors",
    "LegacyMsg",
    "Msg",
    "Query",
    "Reply",
    "Update",
    "check_reply",
]

DELETE_SINGLE_REMOVE: Final = 1 << 0
UPDATE_UPSERT: Final = 1 << 0
UPDATE_MULTI: Final = 1 << 1
INSERT_CONTINUE_ON_ERROR: Final = 1 << 0
QUERY_TAILABLE_CURSOR: Final = 1 << 1
QUERY_SLAVE_OK: Final = 1 << 2
QUERY_OPLOG_REPLAY: Final = 1 << 3
QUERY_NO_CURSOR_TIMEOUT: Final = 1 << 4
QUERY_AWAIT_DATA: Final = 1 << 5
QUERY_EXHAUST: Final = 1 << 6
QUERY_PARTIAL: Final = 1 << 7
REPLY_CURSOR_NOT_FOUND: Final = 1 << 0
REPLY_QUERY_FAILURE: Final = 1 << 1
REPLY_SHARD_CONFIG_STALE: Final = 1 << 2
REPLY_AWAIT_CAPABLE: Final = 1 << 3
OP_MSG_CHECKSUM_PRESENT: Final = op_msg.CHECKSUM_PRESENT
OP_MSG_MORE_TO_COME: Final = op_msg.MORE_TO_COME
OP_MSG_EXHAUST_ALLOWED: Final = op_msg.EXHAUST_ALLOWED

_HEADER_FIELDS = ("len", "request_id", "response_to", "opcode")


#: The fields called ``len`` hide it inside the classes.
_len = len


def _bson(document: Any) -> Any:
    """A document as ``bson.BSON``; it may be a mapping, or BSON already."""
    if document is None or isinstance(document, BSON):
        return document
    return BSON.encode(document) if isinstance(document, Mapping) else BSON(document)


class NamedTupleLike:
    """What a message has of the named tuple that it was: order, items, equality with tuples, ``_fields`` and so on.

    Unlike a tuple it can be changed, as 26's messages can.
    """

    __slots__ = ()

    _fields: ClassVar[tuple[str, ...]]

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return tuple(self)[index]

    def __contains__(self, value: object) -> bool:
        return value in tuple(self)

    def index(self, value: Any) -> int:
        """The place of the first field that has a value; as of a tuple.

        :param value: the value.
        """
        return tuple(self).index(value)

    def count(self, value: Any) -> int:
        """How many fields have a value; as of a tuple.

        :param value: the value.
        """
        return tuple(self).count(value)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Self:
        return cls(**dict(zip(cls._fields, values, strict=True)))

    def _replace(self, **changes: Any) -> Self:
        unknown = sorted(set(changes) - set(self._fields))
        if unknown:
            raise ValueError(f"{type(self).__name__} has no field {', '.join(unknown)}")
        return type(self)(**{**self._asdict(), **changes})


class _Message(NamedTupleLike, op_legacy.LegacyMessage):
    """The constructor and the comparison that the messages of the old opcodes share."""

    __slots__ = ()

    #: The fields that hold one document each, and the one that holds many.
    _documents: ClassVar[tuple[str, ...]] = ()
    _document_list: ClassVar[str | None] = None
    #: Fields of the tuple that follow from the others; what is given for them is not looked at.
    _derived: ClassVar[frozenset[str]] = frozenset({"zero"})

    len: int
    zero: ClassVar[int] = 0

    def __init__(self, *args: Any, **fields: Any) -> None:
        names = self._names_for(args)
        if _len(args) > _len(names):
            raise TypeError(f"{type(self).__name__}() takes {_len(names)} arguments at most, not {_len(args)}")
        for name, value in zip(names, args, strict=False):
            if name in fields:
                raise TypeError(f"{type(self).__name__}() got {name!r} twice")
            fields[name] = value
        unknown = sorted(set(fields) - set(self._fields))
        if unknown:
            raise TypeError(f"{type(self).__name__}() has no argument {unknown[0]!r}")
        opcode = fields.pop("opcode", self.opcode)
        if opcode != self.opcode:
            raise ValueError(f"the opcode of {type(self).__name__} is {self.opcode:d}, not {opcode!r}")
        length = fields.pop("len", 0)
        super().__init__(**self._in_bson(fields))
        self.len = length  # type: ignore[misc]  # a slot of each subclass

    @classmethod
    def _names_for(cls, args: Sequence[Any]) -> tuple[str, ...]:
        """What the positional arguments are called."""
        return cls._fields

    @classmethod
    def _in_bson(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields to be kept, documents in BSON; what is ``None`` keeps its default."""
        kept = {name: value for name, value in fields.items() if value is not None and name not in cls._derived}
        for name in cls._documents:
            if name in kept:
                kept[name] = _bson(kept[name])
            elif name != "fields":
                kept[name] = BSON(op_msg.EMPTY_DOCUMENT)
        if cls._document_list in kept:
            kept[cls._document_list] = [_bson(document) for document in kept[cls._document_list]]
        return kept

    @classmethod
    def decode(cls, request_id: int, response_to: int, opcode: int, message_data: bytes) -> Self:
        """Return the message in ``message_data``.

        :param request_id: and ``response_to``, ``opcode``: what the header says.
        :param message_data: all that follows the header.
        :raises ProtocolError: if it is not exactly one correct message of this opcode.
        """
        message = super().decode(request_id, response_to, opcode, message_data)
        message.len = HEADER_SIZE + _len(message_data)  # type: ignore[misc]
        return message

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple):
            return tuple(self) == other
        if type(other) is not type(self):
            return NotImplemented
        # How long a message was when it came says nothing of what it is.
        return tuple(self)[1:] == tuple(other)[1:]

    # It can be changed.
    __hash__ = None


@attrs.define(init=False, eq=False, repr=False)
class Reply(_Message, op_legacy.Reply):
    """OP_REPLY: documents in answer to an OP_QUERY or OP_GET_MORE, from servers up to 5.0; today to a first hello only.

    ``Reply(len, request_id, response_to, opcode, response_flags, cursor_id, starting_from, n_returned, documents)`` or
    ``Reply(request_id, response_to, response_flags, cursor_id, starting_from, documents)``, all of them optional. It is
    the first if the fourth is the opcode (1) or there are more than six, else the second; keywords are never in doubt.

    :ivar documents: a list of ``bson.BSON``; dicts are taken too.
    """

    _fields = (*_HEADER_FIELDS, "response_flags", "cursor_id", "starting_from", "n_returned", "documents")
    _new_order: ClassVar = ("request_id", "response_to", "response_flags", "cursor_id", "starting_from", "documents")
    _document_list = "documents"
    _derived = frozenset({"n_returned"})

    len: int = 0

    @classmethod
    def _names_for(cls, args: Sequence[Any]) -> tuple[str, ...]:
        if _len(args) > 5:
            is_new = _len(args) == 6 and not isinstance(args[5], int)
        else:
            is_new = _len(args) < 4 or args[3] != OP_REPLY
        return cls._new_order if is_new else cls._fields


@attrs.define(init=False, eq=False, repr=False)
class Query(_Message, op_legacy.Query):
    """OP_QUERY: a query, or a command on the collection ``$cmd``, to servers up to 5.0; today for a first hello only.

    ``Query(len, request_id, response_to, opcode, flags, collection, n_to_skip, n_to_return, query, fields)`` or
    ``Query(request_id, response_to, flags, collection, n_to_skip, n_to_return, query, fields)``, all of them optional.
    It is the first if the fourth is a number, else the second; keywords are never in doubt.

    :ivar query: a ``bson.BSON``; a dict is taken too.
    :ivar fields: the projection, as ``query``, or ``None``.
    """

    _fields = (*_HEADER_FIELDS, "flags", "collection", "n_to_skip", "n_to_return", "query", "fields")
    _new_order: ClassVar = (
        "request_id",
        "response_to",
        "flags",
        "collection",
        "n_to_skip",
        "n_to_return",
        "query",
        "fields",
    )
    _documents = ("query", "fields")

    len: int = 0

    @classmethod
    def _names_for(cls, args: Sequence[Any]) -> tuple[str, ...]:
        return cls._new_order if _len(args) < 4 or isinstance(args[3], str) else cls._fields


@attrs.define(init=False, eq=False, repr=False)
class Update(_Message, op_legacy.Update):
    """OP_UPDATE: change or replace documents, on servers up to 5.0; it is not answered.

    ``Update(len, request_id, response_to, opcode, zero, collection, flags, selector, update)``, all optional; selector
    and update are held as ``bson.BSON``, and may be given as dicts.
    """

    _fields = (*_HEADER_FIELDS, "zero", "collection", "flags", "selector", "update")
    _documents = ("selector", "update")

    len: int = 0


@attrs.define(init=False, eq=False, repr=False)
class Insert(_Message, op_legacy.Insert):
    """OP_INSERT: insert documents, on servers up to 5.0; it is not answered.

    ``Insert(len, request_id, response_to, opcode, flags, collection, documents)``, all optional; the documents are held
    as ``bson.BSON``, and may be given as dicts.
    """

    _fields = (*_HEADER_FIELDS, "flags", "collection", "documents")
    _document_list = "documents"

    len: int = 0


@attrs.define(init=False, eq=False, repr=False)
class Getmore(_Message, op_legacy.GetMore):
    """OP_GET_MORE: the next documents of a cursor, from servers up to 5.0.

    ``Getmore(len, request_id, response_to, opcode, zero, collection, n_to_return=-1, cursor_id=-1)``, all optional.
    """

    _fields = (*_HEADER_FIELDS, "zero", "collection", "n_to_return", "cursor_id")

    len: int = 0


@attrs.define(init=False, eq=False, repr=False)
class Delete(_Message, op_legacy.Delete):
    """OP_DELETE: remove documents, on servers up to 5.0; it is not answered.

    ``Delete(len, request_id, response_to, opcode, zero, collection, flags, selector)``, all optional; the selector is
    held as ``bson.BSON``, and may be given as a dict.
    """

    _fields = (*_HEADER_FIELDS, "zero", "collection", "flags", "selector")
    _documents = ("selector",)

    len: int = 0


@attrs.define(init=False, eq=False, repr=False)
class KillCursors(_Message, op_legacy.KillCursors):
    """OP_KILL_CURSORS: have a server up to 5.0 forget cursors; it is not answered.

    ``KillCursors(len, request_id, response_to, opcode, zero, n_cursors, cursors)``, all optional; ``cursors`` is a list
    of cursor ids.
    """

    _fields = (*_HEADER_FIELDS, "zero", "n_cursors", "cursors")
    _derived = frozenset({"zero", "n_cursors"})

    len: int = 0


class LegacyMsg(NamedTuple):
    """The message of opcode 1000, which TxMongo 15.2 called ``Msg``: a text. No server knows it any more."""

    len: int
    request_id: int
    response_to: int
    opcode: int
    message: Any

    def encode(self, request_id: int | None = None) -> bytes:
        """Return the whole message, header included.

        :param request_id: goes before the one of this message.
        """
        text = self.message.decode() if isinstance(self.message, bytes) else self.message
        content = to_cstring(text)
        number = self.request_id if request_id is None else request_id
        return HEADER.pack(HEADER_SIZE + _len(content), number, self.response_to, OP_MSG_LEGACY) + content


class _MsgType(type):
    """Makes :class:`Msg` stand for two classes."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        if cls is not Msg:
            return super().__call__(*args, **fields)
        if _is_old_msg(args, fields):
            given = dict(zip(LegacyMsg._fields, args, strict=False)) | fields
            return LegacyMsg(**{**given, "opcode": Opcode(given.get("opcode", OP_MSG_LEGACY))})
        msg = op_msg.Msg(*args, **fields)
        if not isinstance(msg.body, bytes):
            raise TypeError(f"body must be bytes, a document in BSON, not {type(msg.body).__name__}")
        return msg

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (cls is Msg and isinstance(instance, op_msg.Msg | LegacyMsg))


def _is_old_msg(args: Sequence[Any], fields: Mapping[str, Any]) -> bool:
    if fields.keys() & {"body", "flag_bits", "payload"} or (_len(args) > 2 and isinstance(args[2], bytes)):
        return False
    return bool(fields.keys() & {"len", "opcode", "message"}) or (_len(args) == 5 and isinstance(args[4], str | bytes))


class Msg(op_msg.Msg, metaclass=_MsgType):
    """OP_MSG, the message of every command and every reply: ``Msg(request_id, response_to, body, flag_bits, payload)``.

    The message of TxMongo 15.2 that had this name, ``Msg(len, request_id, response_to, opcode, message)``, is made if
    the fifth argument is a text or if ``len``, ``opcode`` or ``message`` is given by name. Instances of either are
    instances of this class; they are made and kept as what they are.

    :ivar request_id: the sender's number for this message.
    :ivar response_to: the request that this answers, or 0.
    :ivar body: the command or the reply, in BSON.
    :ivar flag_bits: of ``OP_MSG_CHECKSUM_PRESENT``, ``OP_MSG_MORE_TO_COME`` and ``OP_MSG_EXHAUST_ALLOWED``.
    :ivar payload: further documents in BSON, under the name of the command's argument.
    """

    __slots__ = ()

    @classmethod
    def create_flag_bits(cls, not_more_to_come: bool) -> int:
        """The flag bits of a command.

        :param not_more_to_come: whether it is to be answered: 0 then.
        """
        return 0 if not_more_to_come else op_msg.MORE_TO_COME


def check_reply(reply: Any) -> Reply:
    """Hand an OP_REPLY on unless its flags say that the query failed.

    :raises CursorNotFound: the cursor of an OP_GET_MORE is not known (any more).
    :raises OperationFailure: what the server says of a failed query; for some codes one of its subclasses, or
        :class:`~txmongo.errors.NotPrimaryError`.
    :raises ProtocolError: it is no OP_REPLY.
    """
    if not isinstance(reply, Reply):
        raise ProtocolError(f"an OP_QUERY was answered by {type(reply).__name__}")
    if reply.response_flags & REPLY_CURSOR_NOT_FOUND:
        raise CursorNotFound("the server does not know this cursor (any more)", 43)
    if reply.response_flags & REPLY_QUERY_FAILURE:
        said: dict[str, Any] = bson.decode(reply.documents[0]) if reply.documents else {}
        error = error_from_reply({"ok": 0, "errmsg": said.get("$err", "the query failed"), **said})
        assert error is not None
        raise error
    return reply


class BaseMessage(abc.ABC):
    """What all messages are instances of; their classes are registered with it and inherit nothing."""

    @abc.abstractmethod
    def encode(self, request_id: int | None = None) -> bytes:
        """Return the whole message, header included.

        :param request_id: goes before the one of the message.
        """


for _class in (op_msg.Msg, Msg, LegacyMsg, Reply, Query, Update, Insert, Getmore, Delete, KillCursors):
    BaseMessage.register(_class)

#: What a frame is decoded to, by opcode.
MESSAGE_TYPES: Final[dict[int, Any]] = {
    int(each.opcode): each for each in (op_msg.Msg, Reply, Query, Update, Insert, Getmore, Delete, KillCursors)
}
