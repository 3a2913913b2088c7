"""Bulk writes: reading the models that the caller lists, and sending their batches one after another.

The models are PyMongo's; they are here too for convenience: ``from txmongo.bulk import InsertOne, UpdateOne``. What a
batch is and what the replies add up to is :mod:`txmongo._ops.bulk_write`'s. Kept: the CRUD specification, "Bulk write".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.operations import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.results import BulkWriteResult, ClientBulkWriteResult
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmongo._ops.arguments import check_document, check_replacement, check_update
from txmongo._ops.base import Operation
from txmongo._ops.bulk_write import (
    BatchUnconfirmed,
    DeleteBatch,
    InsertBatch,
    Run,
    UpdateBatch,
    Write,
    WriteBatch,
    batch_template,
    empty_result,
    has_errors,
    merge_reply,
    ordered_runs,
    unordered_runs,
)
from txmongo._ops.delete import delete_statement
from txmongo._ops.update import update_statement
from txmongo._ops.writes import WriteTarget, write_options
from txmongo._pymongo import object_ids
from txmongo.errors import (
    BulkWriteError,
    ClientBulkWriteException,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
)

__all__ = [
    "BulkWriteError",
    "BulkWriteResult",
    "ClientBulkWriteException",
    "ClientBulkWriteResult",
    "DeleteMany",
    "DeleteOne",
    "InsertOne",
    "ReplaceOne",
    "UpdateMany",
    "UpdateOne",
]

Execute = Callable[[Operation[Any]], "Deferred[Any]"]

#: Statements of one command, on every server that is spoken to.
_USUAL_BATCH_SIZE = 100_000

_DICT = {dict}
_INSERT_ONE = {InsertOne}


class _NothingToInsert(InvalidOperation, TypeError):
    """There are no documents: TxMongo's class for that, and PyMongo's."""


def documents_with_ids(documents: Any) -> tuple[list[Any], list[Any]]:
    """The documents of an ``insert_many`` as a list, each with an ``_id``, and those ids (raw BSON's left out).

    :raises TypeError: ``documents`` is empty or no iterable of documents.
    """
    if not isinstance(documents, Iterable) or isinstance(documents, (Mapping, str, bytes)):
        raise TypeError(f"documents must be a non-empty list, not {type(documents).__name__}")
    inserted = list(documents)
    if not inserted:
        raise _NothingToInsert("documents must be a non-empty list, and it is empty")
    return inserted, [document["_id"] for document in give_ids(inserted)]


def give_ids(documents: list[Any]) -> list[Any]:
    """Give those documents an ``_id`` that have none, the caller's own objects, in their order.

    :returns: all that have an ``_id`` now that can be read: raw BSON stays as it is and is left out.
    :raises TypeError: one is no document.
    """
    # To ask each one for its class takes as long as all the rest.
    identified = documents if set(map(type, documents)) <= _DICT else _not_raw(documents)
    anonymous = [document for document in identified if "_id" not in document]
    for document, made in zip(anonymous, object_ids(len(anonymous)), strict=True):
        document["_id"] = made
    return identified


def _not_raw(documents: list[Any]) -> list[Any]:
    found = []
    for document in documents:
        if not isinstance(document, dict):
            check_document("document", document)
            if isinstance(document, RawBSONDocument):
                continue
        found.append(document)
    return found


def insert_run(documents: list[Any]) -> Run:
    """The one run of writes that only insert."""
    return Run(InsertBatch, documents, range(len(documents)))


def runs_of(requests: Any, *, ordered: bool, write_concern: WriteConcern) -> list[Run]:
    """Check a list of models and cut it into runs.

    :raises TypeError: ``requests`` or an element or an argument of one is not of the type that it must be.
    :raises ValueError: an update without operators, or a replacement with them.
    :raises InvalidOperation: there is nothing to do.
    :raises ConfigurationError: an option of a model cannot be used with ``w=0``.
    """
    if not isinstance(requests, Iterable) or isinstance(requests, (Mapping, str, bytes)):
        raise TypeError(f"requests must be a list, not {type(requests).__name__}")
    models = list(requests)
    if not models:
        raise InvalidOperation("requests: no operations to execute")
    if set(map(type, models)) == _INSERT_ONE:
        documents = [model._doc for model in models]
        give_ids(documents)
        return [insert_run(documents)]
    writes = writes_of(models, write_concern.acknowledged)
    runs = ordered_runs(writes) if ordered else unordered_runs(writes)
    give_ids([document for run in runs if run.batch is InsertBatch for document in run.statements])
    return runs


def writes_of(requests: Iterable[Any], acknowledged: bool, argument: str = "requests") -> Iterator[Write]:
    """Check models one after another, and say what each is. Documents are left to :func:`give_ids`.

    :param argument: how the caller calls ``requests``.
    :raises TypeError: and the others: as :func:`runs_of`.
    """
    for index, model in enumerate(requests):
        if isinstance(model, InsertOne):
            yield InsertBatch, model._doc, False
        elif isinstance(model, (UpdateOne, UpdateMany, ReplaceOne)):
            multi = isinstance(model, UpdateMany)
            yield UpdateBatch, _updated(model, multi, acknowledged), multi
        elif isinstance(model, (DeleteOne, DeleteMany)):
            multi = isinstance(model, DeleteMany)
            yield DeleteBatch, _deleted(model, multi, acknowledged), multi
        else:
            raise TypeError(
                f"{argument}[{index}] must be an InsertOne, UpdateOne, UpdateMany, ReplaceOne, DeleteOne or "
                f"DeleteMany, not {type(model).__name__}"
            )


# The models give their content away only by the attributes that they are made of. ``tests/unit/test_bulk.py`` holds
# every one of them, on the lowest and the newest PyMongo.


def _updated(model: Any, multi: bool, acknowledged: bool) -> dict[str, Any]:
    replaces = isinstance(model, ReplaceOne)
    if replaces:
        check_replacement(model._doc)
    else:
        check_update(model._doc)
    upsert = model._upsert
    if upsert is None and isinstance(model, UpdateOne):
        # The server's default all the same; but the statement is seen in errors, and there it is as PyMongo's.
        upsert = False
    return update_statement(
        model._filter,
        model._doc,
        multi=multi,
        upsert=upsert,
        collation=model._collation,
        array_filters=None if replaces else model._array_filters,
        hint=model._hint,
        sort=None if multi else model._sort,
        acknowledged=acknowledged,
    )


def _deleted(model: Any, multi: bool, acknowledged: bool) -> dict[str, Any]:
    return delete_statement(
        model._filter, multi=multi, collation=model._collation, hint=model._hint, acknowledged=acknowledged
    )


class Bulk:
    """One bulk write under way: what was sent, what came back, and what is next.

    One that fits one batch is one operation and its callbacks; only what follows the first batch is a coroutine.
    """

    def __init__(
        self,
        execute: Execute,
        target: WriteTarget,
        runs: list[Run],
        *,
        ordered: bool,
        comment: Any = None,
        let: Mapping[str, Any] | None = None,
        bypass_document_validation: bool | None = None,
        session: Any = None,
    ) -> None:
        self._execute = execute
        self._session = session
        self._target = target
        self._runs = runs
        self._ordered = ordered
        # No command takes all options: inserts know no variables, and deletes do not validate.
        self._options: dict[type[WriteBatch], dict[str, Any] | None] = {
            InsertBatch: write_options(comment, None, bypass_document_validation),
            UpdateBatch: write_options(comment, let, bypass_document_validation),
            DeleteBatch: write_options(comment, let),
        }
        self._template = batch_template(target)
        self._result = empty_result()
        self._run_number = 0
        self._start = 0
        self._done = False

    def send(self) -> Deferred[dict[str, Any] | None]:
        """Send all batches.

        :returns: a Deferred that fires with the result document, ``None`` for unacknowledged writes. It fails with
            :class:`BulkWriteError` if the server refused writes or could not give the guarantee, and with whatever an
            operation can fail with; batches that had not been sent then are not sent. Cancelling it ends it after the
            batch that is under way.
        """
        batch = self._next_batch()
        deferred: Deferred[Any] = self._execute(batch)
        deferred.addCallbacks(self._answered, self._first_failed, callbackArgs=(batch,), errbackArgs=(batch,))
        deferred.addCallback(self._after_first)
        return deferred

    def _first_failed(self, failure: Failure, batch: WriteBatch) -> Failure | None:
        return None if self._survives(failure.value, batch) else failure

    def _after_first(self, _: None) -> Any:
        return self._finish() if self._done else Deferred.fromCoroutine(self._send_rest())

    async def _send_rest(self) -> dict[str, Any] | None:
        while not self._done:
            batch = self._next_batch()
            try:
                reply = await self._execute(batch)
            except Exception as error:
                if not self._survives(error, batch):
                    raise
            else:
                self._answered(reply, batch)
        return self._finish()

    def _finish(self) -> dict[str, Any] | None:
        if not self._target.acknowledged:
            return None
        result = self._result
        if has_errors(result):
            result["writeErrors"].sort(key=lambda error: error["index"])
            raise BulkWriteError(result)
        return result

    def _next_batch(self) -> WriteBatch:
        run = self._runs[self._run_number]
        return run.batch(
            self._target,
            run.statements,
            self._start,
            ordered=self._ordered,
            retryable=run.retryable,
            acknowledged=self._target.acknowledged or self._must_be_known(run),
            options=self._options[run.batch],
            session=self._session,
            template=self._template,
        )

    def _must_be_known(self, run: Run) -> bool:
        """Whether an ordered but unacknowledged bulk write has to hear how this batch ended before it goes on."""
        more_runs = self._run_number + 1 < len(self._runs)
        return self._ordered and (more_runs or len(run.statements) - self._start > _USUAL_BATCH_SIZE)

    def _answered(self, reply: Mapping[str, Any] | None, batch: WriteBatch) -> None:
        run = self._runs[self._run_number]
        if reply is not None:
            merge_reply(self._result, run, self._start, reply)
        if self._ordered and self._result["writeErrors"]:
            self._done = True
        self._start = batch.end
        if self._start >= len(run.statements):
            self._run_number += 1
            self._start = 0
            self._done = self._done or self._run_number == len(self._runs)

    def _survives(self, error: Any, batch: WriteBatch) -> bool:
        """Note how a batch failed; whether the bulk write has a result all the same. Nothing follows in either case."""
        if isinstance(error, BatchUnconfirmed):
            # Retries are used up: what was done is told, and nothing more is tried.
            self._answered(error.reply, batch)
            self._done = True
            return True
        if isinstance(error, OperationFailure) and not self._target.acknowledged:
            self._done = True
            return True
        if isinstance(error, PyMongoError) and self._target.acknowledged:
            # Whatever ended it, the caller can see what the earlier batches did. No class of errors has a place for it.
            error.partial_result = BulkWriteResult(self._result, True)  # type: ignore[attr-defined]
        return False
