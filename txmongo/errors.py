"""The exceptions that the driver raises, and how a server's reply becomes one.

PyMongo's classes are used wherever it has one, so that ``except`` clauses written for it hold; they are all reachable
from here. Labels and the reply document travel with the exception (``has_error_label``, ``details``). No text made here
repeats a command, a document or a credential: only what the server said.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ClientBulkWriteException,
    CollectionInvalid,
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    DocumentTooLarge,
    DuplicateKeyError,
    EncryptedCollectionError,
    EncryptionError,
    ExecutionTimeout,
    InvalidName,
    InvalidOperation,
    InvalidURI,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

__all__ = [
    "AutoReconnect",
    "BulkWriteError",
    "ClientBulkWriteException",
    "CollectionExists",
    "CollectionInvalid",
    "ConfigurationError",
    "ConnectionFailure",
    "CursorNotFound",
    "DocumentTooLarge",
    "DuplicateKeyError",
    "EncryptedCollectionError",
    "EncryptionError",
    "ExecutionTimeout",
    "InvalidName",
    "InvalidOperation",
    "InvalidURI",
    "NetworkTimeout",
    "NotPrimaryError",
    "OperationFailure",
    "ProtocolError",
    "PyMongoError",
    "ServerSelectionTimeoutError",
    "TimeExceeded",
    "WTimeoutError",
    "WaitQueueTimeoutError",
    "WriteConcernError",
    "WriteError",
    "error_from_reply",
    "write_concern_error_from_reply",
    "write_error_from_reply",
]

#: Codes by which a server says that it is not (or no longer) the primary: SDAM specification, "not writable primary".
NOT_PRIMARY_CODES = frozenset({10058, 10107, 13435})
#: Codes by which a server says that it is starting, stepping down or shutting down: SDAM, "node is recovering".
RECOVERING_CODES = frozenset({91, 189, 11600, 11602, 13436})

_DUPLICATE_KEY_CODES = frozenset({11000, 11001, 12582})
_MAX_TIME_EXPIRED = 50
_CURSOR_NOT_FOUND = 43
_INTERRUPTED_AT_WTIMEOUT = 64


class CollectionExists(CollectionInvalid, OperationFailure):
    """A collection is to be created that is there already: PyMongo's class for it and, as in TxMongo, the server's."""


class TimeExceeded(PyMongoError):
    """The time that the caller gave by ``timeout=`` or ``deadline=`` ran out before the operation ended."""

    @property
    def timeout(self) -> bool:
        """Always true: as PyMongo marks every error that is a timeout."""
        return True


def error_from_reply(
    reply: Mapping[str, Any], allowable_errors: Container[int | str] | None = None
) -> PyMongoError | None:
    """The exception for a reply whose ``ok`` is not 1, by the rules of the command's top level.

    :param reply: the reply document.
    :param allowable_errors: codes or messages that the caller wants as an ordinary reply.
    :returns: ``None`` when the command succeeded or its error is allowed; else :class:`NotPrimaryError`,
        :class:`DuplicateKeyError`, :class:`ExecutionTimeout`, :class:`CursorNotFound` or :class:`OperationFailure`.
    """
    if reply.get("ok"):
        return None
    code = reply.get("code")
    message = str(reply.get("errmsg", "the server answered with an error that has no message"))
    if allowable_errors is not None and (code in allowable_errors or message in allowable_errors):
        return None
    details = dict(reply)
    if code in NOT_PRIMARY_CODES or code in RECOVERING_CODES:
        return NotPrimaryError(message, details)
    if code is None and ("not master" in message or "node is recovering" in message):
        return NotPrimaryError(message, details)
    if code in _DUPLICATE_KEY_CODES:
        return DuplicateKeyError(message, code, details)
    if code == _MAX_TIME_EXPIRED:
        return ExecutionTimeout(message, code, details)
    if code == _CURSOR_NOT_FOUND:
        return CursorNotFound(message, code, details)
    return OperationFailure(message, code, details)


def write_concern_error_from_reply(reply: Mapping[str, Any]) -> PyMongoError | None:
    """The exception for the ``writeConcernError`` in an otherwise successful reply, or ``None``.

    :param reply: the server's reply.
    :returns: :class:`NotPrimaryError` when the code says that the primary stepped down, :class:`WTimeoutError` when
        ``wtimeout`` passed, else :class:`WriteConcernError`.
    """
    error = reply.get("writeConcernError")
    if not error:
        return None
    details = dict(error)
    labels = reply.get("errorLabels")
    if labels and "errorLabels" not in details:
        details["errorLabels"] = labels
    code = error.get("code")
    message = str(error.get("errmsg", "the write concern was not satisfied"))
    if code in NOT_PRIMARY_CODES or code in RECOVERING_CODES:
        return NotPrimaryError(message, dict(reply))
    if code == _INTERRUPTED_AT_WTIMEOUT or (error.get("errInfo") or {}).get("wtimeout"):
        return WTimeoutError(message, code, details)
    return WriteConcernError(message, code, details)


def write_error_from_reply(reply: Mapping[str, Any]) -> PyMongoError | None:
    """The exception for a write command with one statement: its last write error, else its write concern error.

    :param reply: the server's reply.
    :returns: :class:`DuplicateKeyError`, :class:`WriteError`, what :func:`write_concern_error_from_reply` gives, or
        ``None`` when the write succeeded.
    """
    errors = reply.get("writeErrors")
    if not errors:
        return write_concern_error_from_reply(reply)
    error = errors[-1]
    labels = reply.get("errorLabels")
    details = {**error, "errorLabels": labels} if labels else dict(error)
    code = error.get("code")
    message = str(error.get("errmsg", "the write was refused"))
    if code in _DUPLICATE_KEY_CODES:
        return DuplicateKeyError(message, code, details)
    return WriteError(message, code, details)
