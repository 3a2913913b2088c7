"""Compares an error of the driver with ``expectError``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ClientBulkWriteException,
    EncryptionError,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
)

from tests.conformance.unified.arguments import take
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import UNSET, Matcher
from tests.conformance.unified.results import bulk_details_document, result_document

__all__ = ["is_driver_error", "match_error"]

ASSERTIONS = (
    "isError isClientError isTimeoutError errorContains errorCode errorCodeName errorLabelsContain errorLabelsOmit "
    "writeErrors writeConcernErrors errorResponse expectResult"
)

#: Numbers of the code names that the cases expect of bulk writes, whose write errors carry no name.
CODES = {
    "Interrupted": 11601,
    "MaxTimeMSExpired": 50,
    "NoSuchTransaction": 251,
    "UnknownReplWriteConcern": 79,
    "UnsatisfiableWriteConcern": 100,
    "WriteConflict": 112,
}


def is_driver_error(error: BaseException) -> bool:
    """Whether an exception is an error that a driver reports, rather than a hole in the driver or in the runner.

    A method or keyword that does not exist must never pass for an expected error.
    """
    if isinstance(error, TypeError):
        return not any(text in str(error) for text in ("unexpected keyword", "positional argument", "object is not"))
    return isinstance(error, (PyMongoError, ValueError, OverflowError)) or type(error).__module__.startswith("bson")


def match_error(matcher: Matcher, expected: Mapping[str, Any], error: Exception, path: str) -> None:
    """Compare.

    :raises Mismatch: the error is not as expected.
    :raises FormatError: `expected` is malformed.
    """
    take(expected, "", ASSERTIONS)
    if not expected or expected.get("isError") is False:
        raise FormatError(f"{path}: malformed expectError {expected!r}")
    try:
        _match_nature(expected, error)
        _match_server(matcher, expected, error)
        _match_labels(expected, error)
        _match_bulk(matcher, expected, error)
    except Mismatch as mismatch:
        raise Mismatch(f"{path}: {mismatch}; the error is {type(error).__name__}: {error}") from error


def _cause(error: Exception) -> Exception:
    """Of a client's bulk write, and of what encryption did, the error below it, if there is one."""
    below = error.cause if isinstance(error, EncryptionError) else getattr(error, "error", None)
    if isinstance(error, ClientBulkWriteException | EncryptionError) and isinstance(below, Exception):
        return below
    return error


def _details(error: Exception) -> Any:
    """The server's reply that an error comes from."""
    details = getattr(_cause(error), "details", None)
    return UNSET if details is None else details


def _is_client_error(error: Exception) -> bool:
    return not isinstance(_cause(error), (OperationFailure, NotPrimaryError))


def _match_nature(expected: Mapping[str, Any], error: Exception) -> None:
    if "isClientError" in expected and expected["isClientError"] != _is_client_error(error):
        raise Mismatch(f"expected isClientError to be {expected['isClientError']}")
    if "isTimeoutError" in expected and expected["isTimeoutError"] != bool(getattr(_cause(error), "timeout", False)):
        raise Mismatch(f"expected isTimeoutError to be {expected['isTimeoutError']}")
    text = expected.get("errorContains")
    if text is not None and text.lower() not in _message(error).lower():
        raise Mismatch(f"expected the message to contain {text!r}")


def _message(error: Exception) -> str:
    message = str(_cause(error))
    if isinstance(error, BulkWriteError):
        message += "".join(f", {one.get('errmsg')}" for one in _aggregated(error))
    return message


def _aggregated(error: BulkWriteError) -> list[Mapping[str, Any]]:
    """The write errors and write concern errors of a bulk write."""
    return [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]


def _match_server(matcher: Matcher, expected: Mapping[str, Any], error: Exception) -> None:
    if "errorCode" in expected and expected["errorCode"] not in _codes(error):
        raise Mismatch(f"expected code {expected['errorCode']}, found {_codes(error)}")
    name = expected.get("errorCodeName")
    if name is not None and not _has_code_name(name, error):
        raise Mismatch(f"expected code name {name}")
    if "errorResponse" in expected:
        matcher.match(expected["errorResponse"], _details(error), "errorResponse", root=True)


def _codes(error: Exception) -> list[Any]:
    """The code of an error; those of a bulk write are its aggregated errors'."""
    if isinstance(error, BulkWriteError):
        return [one.get("code") for one in _aggregated(error)]
    details = _details(error)
    if isinstance(details, Mapping) and "code" in details:
        return [details["code"]]
    return [getattr(_cause(error), "code", None)]


def _has_code_name(name: str, error: Exception) -> bool:
    documents = _aggregated(error) if isinstance(error, BulkWriteError) else [_details(error)]
    for document in documents:
        if not isinstance(document, Mapping):
            continue
        found = document.get("codeName", document.get("writeConcernError", {}).get("codeName"))
        if str(found).lower() == name.lower() or (found is None and document.get("code", UNSET) == CODES.get(name)):
            return True
    return isinstance(error, ExecutionTimeout) and name == "MaxTimeMSExpired"


def _match_labels(expected: Mapping[str, Any], error: Exception) -> None:
    has = getattr(error, "has_error_label", lambda _label: False)
    missing = [label for label in expected.get("errorLabelsContain", ()) if not has(label)]
    present = [label for label in expected.get("errorLabelsOmit", ()) if has(label)]
    if missing or present:
        raise Mismatch(f"labels missing: {missing}, labels that should not be there: {present}")


def _match_bulk(matcher: Matcher, expected: Mapping[str, Any], error: Exception) -> None:
    if "expectResult" in expected:
        matcher.match(expected["expectResult"], _partial_result(error), "expectResult", root=True)
    if "writeErrors" in expected:
        found = {str(one["idx"]): one for one in getattr(error, "write_errors", [])}
        if set(found) != set(expected["writeErrors"]):
            raise Mismatch(f"write errors at {sorted(found)}, expected {sorted(expected['writeErrors'])}")
        for index, one in expected["writeErrors"].items():
            matcher.match(one, found[index], f"writeErrors.{index}", root=True)
    if "writeConcernErrors" in expected:
        actual = [{**one, "message": one.get("errmsg")} for one in getattr(error, "write_concern_errors", [])]
        matcher.match_array(expected["writeConcernErrors"], actual, "writeConcernErrors", root=True)


def _partial_result(error: Exception) -> Any:
    if isinstance(error, BulkWriteError):
        return bulk_details_document(error.details)
    partial_result = getattr(error, "partial_result", None)
    return UNSET if partial_result is None else result_document(partial_result)
