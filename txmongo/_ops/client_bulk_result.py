"""What the replies to ``bulkWrite`` commands add up to: the document that PyMongo's results and exceptions hold.

Pure. The document is that of ``ClientBulkWriteResult.bulk_api_result`` and of ``ClientBulkWriteException.details``.
Kept: the CRUD specification, "Bulk Write", "Handling the bulkWrite Server Response" and "Handling Errors".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo.results import DeleteResult, InsertOneResult, UpdateResult

from txmongo._ops.client_bulk_write import ClientWrite
from txmongo._ops.cursors import malformed
from txmongo._ops.retry import (
    NO_WRITES_PERFORMED,
    OVERLOADED,
    RETRYABLE,
    RETRYABLE_WRITE,
    TRANSIENT_TRANSACTION,
    UNKNOWN_COMMIT,
)
from txmongo.errors import ClientBulkWriteException, PyMongoError

__all__ = ["ClientBulkOutcome"]

_LABELS = (RETRYABLE_WRITE, TRANSIENT_TRANSACTION, UNKNOWN_COMMIT, NO_WRITES_PERFORMED, OVERLOADED, RETRYABLE)
_COUNTS = ("nInserted", "nUpserted", "nMatched", "nModified", "nDeleted")


class ClientBulkOutcome:
    """What is known of a bulk write so far.

    :ivar details: the document.
    :ivar verbose: with the result of each single write.
    :param writes: all of them.
    """

    def __init__(self, writes: Sequence[ClientWrite], *, ordered: bool, verbose: bool) -> None:
        self.verbose = verbose
        self.details: dict[str, Any] = {
            "error": None,
            "writeErrors": [],
            "writeConcernErrors": [],
            **dict.fromkeys(_COUNTS, 0),
            "insertResults": {},
            "updateResults": {},
            "deleteResults": {},
            "anySuccessful": False,
        }
        self._writes = writes
        self._ordered = ordered

    @property
    def has_write_errors(self) -> bool:
        """Whether a write was refused."""
        return bool(self.details["writeErrors"])

    @property
    def observed(self) -> bool:
        """Whether there is something to tell beside an error that ended it all."""
        details = self.details
        return bool(details["anySuccessful"] or details["writeErrors"] or details["writeConcernErrors"])

    def add_reply(self, reply: Mapping[str, Any], count: int) -> None:
        """Take the counts and the write concern error of a reply.

        :param count: how many writes its command held.
        """
        details = self.details
        for name in _COUNTS:
            details[name] += reply.get(name, 0)
        concern_error = reply.get("writeConcernError")
        if concern_error:
            labels = reply.get("errorLabels")
            details["writeConcernErrors"].append({**concern_error, "errorLabels": labels} if labels else concern_error)
        errors = reply.get("nErrors", 0)
        # In order, the one error says by its place whether something was done before it: that is with the results.
        if not errors or (not self._ordered and errors < count):
            details["anySuccessful"] = True

    def add_results(self, results: Iterable[Mapping[str, Any]], start: int) -> None:
        """Take results of single writes.

        :param start: the first write of their command.
        :raises ProtocolError: one is not such as a server gives.
        """
        try:
            for result in results:
                index = start + result["idx"]
                if result["ok"]:
                    self._add_success(index, result)
                else:
                    self._add_error(index, result)
        except (LookupError, TypeError):
            raise malformed("bulkWrite") from None

    def _add_error(self, index: int, result: Mapping[str, Any]) -> None:
        write = self._writes[index]
        # -1 is what stands there in PyMongo: the number is that of no use outside of the command.
        self.details["writeErrors"].append({**result, "idx": index, "op": write.document(-1)})
        if self._ordered and result["idx"]:
            self.details["anySuccessful"] = True

    def _add_success(self, index: int, result: Mapping[str, Any]) -> None:
        if not self.verbose:
            return
        details, write = self.details, self._writes[index]
        if write.kind == "insert":
            details["insertResults"][index] = InsertOneResult(write.stored.get("_id"), True)
        elif write.kind == "update":
            details["updateResults"][index] = UpdateResult(result, True, in_client_bulk=True)
        else:
            details["deleteResults"][index] = DeleteResult(result, True)

    def add_error(self, error: PyMongoError) -> None:
        """Take the error that ended it all."""
        self.details["error"] = error
        labels = [label for label in _LABELS if error.has_error_label(label)]
        if labels:
            self.details["errorLabels"] = labels

    def exception(self) -> ClientBulkWriteException | None:
        """What is to be raised in the end; ``None`` if all went well."""
        details = self.details
        if not (details["error"] or details["writeErrors"] or details["writeConcernErrors"]):
            return None
        details["writeErrors"].sort(key=lambda error: error["idx"])
        exception = ClientBulkWriteException(details, self.verbose)
        exception.__cause__ = details["error"]
        return exception
