"""The commands that end a transaction or a session: commitTransaction, abortTransaction, endSessions.

Their session fields, write concern and recovery token depend on what happened before and are added, as for every
command, by :mod:`txmongo._ops.session_state`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bson.int64 import Int64
from bson.min_key import MinKey
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from txmongo._ops.base import Operation, ReplyContext, RetryKind, write_service_class
from txmongo.errors import write_concern_error_from_reply

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription
    from txmongo.types import Address

__all__ = [
    "NO_SESSION",
    "NO_SUCH_TRANSACTION",
    "AbortNumbered",
    "AbortTransaction",
    "CommitTransaction",
    "EndSessions",
    "Supersede",
]

#: The server's error: it has no transaction of that number in progress.
NO_SUCH_TRANSACTION = 251


class _NoSession:
    """The type of :data:`NO_SESSION`."""

    time_limit: Final = None

    def __repr__(self) -> str:
        return "NO_SESSION"


#: The ``session`` of an operation whose command carries none, not even an implicit one.
NO_SESSION: Final = _NoSession()


class CommitTransaction(Operation[None]):
    """Commit the transaction of a session. It may be sent again, whatever ``retryWrites`` says."""

    __slots__ = ("max_time_ms",)

    name = "commitTransaction"
    retry = RetryKind.WRITE

    def __init__(self, session: Any, write_concern: WriteConcern, max_time_ms: int | None = None) -> None:
        """
        :param session: the session whose transaction it is.
        :param write_concern: the transaction's; a repetition waits for a majority in any case.
        :param max_time_ms: how long the server may take for one attempt; ``None`` for no limit.
        """
        super().__init__("admin", session=session, service_class=write_service_class(self.name, write_concern))
        self.max_time_ms = max_time_ms

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``commitTransaction`` command."""
        command: dict[str, Any] = {"commitTransaction": 1}
        if self.max_time_ms is not None:
            command["maxTimeMS"] = self.max_time_ms
        return command

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> None:
        """Nothing.

        :raises WriteConcernError: it was committed here, but not on as many members as asked for.
        """
        _check_write_concern(reply)


class AbortTransaction(Operation[None]):
    """Abort the transaction of a session. It may be sent again, whatever ``retryWrites`` says."""

    __slots__ = ()

    name = "abortTransaction"
    retry = RetryKind.WRITE

    def __init__(self, session: Any, write_concern: WriteConcern) -> None:
        """
        :param session: the session whose transaction it is.
        :param write_concern: the transaction's.
        """
        super().__init__("admin", session=session, service_class=write_service_class(self.name, write_concern))

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``abortTransaction`` command."""
        return {"abortTransaction": 1}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> None:
        """Nothing.

        :raises WriteConcernError: it was aborted here, but not on as many members as asked for. The server may want to
            be asked again; else that does no harm, and the application is not told of it.
        """
        _check_write_concern(reply)


class Supersede(Operation[None]):
    """Begin a transaction of a later number than one that is to be over, by a read that reads nothing.

    From then on the server refuses what still comes of the one before; what has come of it, it aborts.
    """

    __slots__ = ("_collection", "_fields")

    name = "find"

    def __init__(
        self, namespace: tuple[str, str], lsid: Mapping[str, Any], txn_number: Int64, address: Address | None
    ) -> None:
        """
        :param namespace: database and collection, which the application has used in the transaction before.
        :param address: the only server that will do, or ``None``.
        """
        database, self._collection = namespace
        super().__init__(database, address=address, session=NO_SESSION)
        self._fields = _fields(lsid, txn_number)

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``find`` command, with the session's fields."""
        nothing = {"filter": {"_id": MinKey()}, "limit": 1, "singleBatch": True}
        return {"find": self._collection, **nothing, **self._fields, "startTransaction": True}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> None:
        """Nothing."""


class AbortNumbered(Operation[None]):
    """Abort what :class:`Supersede` has begun."""

    __slots__ = ("_fields",)

    name = "abortTransaction"

    def __init__(self, lsid: Mapping[str, Any], txn_number: Int64, address: Address | None) -> None:
        super().__init__("admin", address=address, session=NO_SESSION)
        self._fields = _fields(lsid, txn_number)

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``abortTransaction`` command, with the session's fields."""
        return {"abortTransaction": 1, **self._fields}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> None:
        """Nothing."""


def _fields(lsid: Mapping[str, Any], txn_number: Int64) -> dict[str, Any]:
    return {"lsid": lsid, "txnNumber": txn_number, "autocommit": False}


class EndSessions(Operation[None]):
    """Have the servers forget sessions; that it fails does no harm: they forget them after half an hour anyway."""

    __slots__ = ("lsids",)

    name = "endSessions"

    def __init__(self, lsids: Sequence[Mapping[str, Any]]) -> None:
        """
        :param lsids: 10,000 at most.
        """
        super().__init__("admin", read_preference=ReadPreference.PRIMARY_PREFERRED, session=NO_SESSION, bounded=True)
        self.lsids = lsids

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """The ``endSessions`` command."""
        return {"endSessions": list(self.lsids)}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> None:
        """Nothing."""


def _check_write_concern(reply: Mapping[str, Any] | None) -> None:
    assert reply is not None
    error = write_concern_error_from_reply(reply)
    if error is not None:
        raise error
