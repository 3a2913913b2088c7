"""The options of sessions and transactions, checked as they are given.

What a transaction inherits where an option is ``None`` is settled by :class:`~txmongo.sessions.ClientSession`.
Sessions, snapshot reads and transactions specifications.
"""

from __future__ import annotations

from typing import Any

import attrs
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from txmongo._pymongo import ServerMode
from txmongo.errors import ConfigurationError

__all__ = ["SessionOptions", "TransactionOptions", "check_acknowledged", "given_options"]


def _check_type(name: str, value: Any, expected: type) -> None:
    if value is not None and not isinstance(value, expected):
        raise TypeError(f"{name} must be an instance of {expected.__name__}, not {type(value).__name__}")


def _check_milliseconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value}")


@attrs.frozen(init=False)
class TransactionOptions:
    """Options of a transaction; each that is ``None`` is inherited: from the session's defaults, then from the client.

    Read and write concerns of collections and databases do not count in a transaction.

    :ivar read_concern: for all that the transaction reads.
    :ivar write_concern: for its commit.
    :ivar read_preference: for all that it reads; servers take only ``PRIMARY``.
    :ivar max_commit_time_ms: how many milliseconds the server may take for one attempt to commit.
    """

    read_concern: ReadConcern | None = None
    write_concern: WriteConcern | None = None
    read_preference: Any = None
    max_commit_time_ms: int | None = None

    def __init__(
        self,
        read_concern: ReadConcern | WriteConcern | None = None,
        write_concern: WriteConcern | int | None = None,
        read_preference: Any = None,
        max_commit_time_ms: int | None = None,
    ) -> None:
        """
        The order is PyMongo's. ``TransactionOptions(write_concern, max_commit_time_ms)``, as in TxMongo 26.0, is
        understood too.

        :raises ConfigurationError: the write concern is unacknowledged.
        :raises TypeError: an option has a value of the wrong type.
        """
        if isinstance(write_concern, int):
            # The second of TxMongo's order, after a write concern or none.
            max_commit_time_ms, write_concern = write_concern, None
        if isinstance(read_concern, WriteConcern):
            if write_concern is not None:
                raise TypeError("write_concern was given twice")
            read_concern, write_concern = None, read_concern
        _check_type("read_concern", read_concern, ReadConcern)
        _check_type("write_concern", write_concern, WriteConcern)
        if read_preference is not None and not isinstance(read_preference, ServerMode):
            raise TypeError(f"read_preference must be one of pymongo.read_preferences, not {read_preference!r}")
        _check_milliseconds("max_commit_time_ms", max_commit_time_ms)
        assert write_concern is None or isinstance(write_concern, WriteConcern)
        if write_concern is not None:
            check_acknowledged(write_concern)
        self.__attrs_init__(read_concern, write_concern, read_preference, max_commit_time_ms)


def check_acknowledged(write_concern: WriteConcern) -> None:
    if not write_concern.acknowledged:
        raise ConfigurationError(f"transactions do not support unacknowledged write concern: {write_concern!r}")


@attrs.frozen(init=False)
class SessionOptions:
    """Options of a session.

    :ivar causal_consistency: reads and writes of the session see what it has read and written before.
    :ivar default_transaction_options: for its transactions.
    :ivar snapshot: all reads see the data of one moment (MongoDB 5.0); only find, aggregate and distinct can be used
        then.
    :ivar snapshot_time: that moment; ``None`` for the time of the first read.
    :ivar default_timeout_ms: milliseconds for each commit, abort, ``with_transaction`` and the end of the session.
    """

    causal_consistency: bool = True
    default_transaction_options: TransactionOptions | None = None
    snapshot: bool = False
    snapshot_time: Timestamp | None = None
    default_timeout_ms: int | None = None

    def __init__(
        self,
        causal_consistency: bool | TransactionOptions | None = None,
        default_transaction_options: TransactionOptions | None = None,
        snapshot: bool | None = False,
        snapshot_time: Timestamp | None = None,
        default_timeout_ms: int | None = None,
    ) -> None:
        """
        The order is PyMongo's. ``SessionOptions(default_transaction_options)``, as in TxMongo 26.0, is understood too.

        :param causal_consistency: ``None`` for true, unless it is a snapshot session.
        :raises ConfigurationError: ``snapshot`` with ``causal_consistency``, ``snapshot_time`` without ``snapshot``.
        :raises TypeError: an option has a value of the wrong type.
        """
        if isinstance(causal_consistency, TransactionOptions):
            if default_transaction_options is not None:
                raise TypeError("default_transaction_options was given twice")
            default_transaction_options, causal_consistency = causal_consistency, None
        _check_type("default_transaction_options", default_transaction_options, TransactionOptions)
        _check_type("snapshot_time", snapshot_time, Timestamp)
        _check_milliseconds("default_timeout_ms", default_timeout_ms)
        if snapshot and causal_consistency:
            raise ConfigurationError("snapshot reads do not support causal_consistency=True")
        if snapshot_time is not None and not snapshot:
            raise ConfigurationError("snapshot_time is for snapshot sessions: snapshot=True is missing")
        causal = not snapshot if causal_consistency is None else bool(causal_consistency)
        self.__attrs_init__(causal, default_transaction_options, bool(snapshot), snapshot_time, default_timeout_ms)


def given_options(
    options: SessionOptions | None,
    causal_consistency: bool | SessionOptions | TransactionOptions | None,
    default_transaction_options: TransactionOptions | None,
    snapshot: bool | None,
    snapshot_time: Timestamp | None,
    default_timeout_ms: int | None,
) -> SessionOptions:
    """The options of a session that were given in one object, in the place of the first of them too, or one by one.

    :raises ConfigurationError: they were given both ways, or contradict one another.
    :raises TypeError: an option has a value of the wrong type.
    """
    if isinstance(causal_consistency, SessionOptions):
        options, causal_consistency = causal_consistency, None
    given = (causal_consistency, default_transaction_options, snapshot, snapshot_time, default_timeout_ms)
    if options is None:
        return SessionOptions(*given)
    if not isinstance(options, SessionOptions):
        raise TypeError(f"options must be a SessionOptions, not {type(options).__name__}")
    if any(each is not None and each is not False for each in given):
        raise ConfigurationError("options were given twice: in options and as arguments")
    return options
