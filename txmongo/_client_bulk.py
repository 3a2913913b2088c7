"""The bulk write of a client: reading the models that the caller lists, and sending one command after another.

What a command is, is :mod:`txmongo._ops.client_bulk_write`'s, what the replies add up to
:mod:`txmongo._ops.client_bulk_result`'s. Kept: the CRUD specification, "Bulk Write".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bson.codec_options import CodecOptions
from pymongo.operations import ReplaceOne
from pymongo.results import ClientBulkWriteResult
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred

from txmongo._cmap.pinning import Holder
from txmongo._ops.base import Operation
from txmongo._ops.bulk_write import BatchUnconfirmed, DeleteBatch, InsertBatch, WriteBatch
from txmongo._ops.client_bulk_result import ClientBulkOutcome
from txmongo._ops.client_bulk_write import BulkReply, ClientBulkOptions, ClientBulkWrite, ClientWrite
from txmongo._ops.client_sessions import effective_write_concern
from txmongo._ops.cursors import CursorBatch, GetMore
from txmongo._ops.leftovers import Leftovers
from txmongo._ops.session_state import SessionUse
from txmongo.bulk import give_ids, writes_of
from txmongo.errors import (
    ConnectionFailure,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

__all__ = ["ClientBulk", "bulk_write_concern", "client_writes"]

#: Before a command could be sent: nothing is known to have been done, and these say by themselves what happened.
_NOT_SENT = (ServerSelectionTimeoutError, WaitQueueTimeoutError)


def bulk_write_concern(
    given: WriteConcern | None, inherited: WriteConcern, session: Any, ordered: bool, verbose_results: bool
) -> WriteConcern:
    """The write concern of a client's bulk write.

    :raises TypeError: what was given is none.
    :raises InvalidOperation: it cannot be had with the other arguments.
    """
    if given is not None:
        if not isinstance(given, WriteConcern):
            raise TypeError(f"write_concern must be a WriteConcern, not {type(given).__name__}")
        if session is not None and effective_write_concern(session, given) is not given:
            raise InvalidOperation("write_concern: Cannot set write concern after starting a transaction")
    concern = effective_write_concern(session, inherited if given is None else given)
    if not concern.acknowledged and (ordered or verbose_results):
        what = "verbose results" if verbose_results else "ordered writes"
        raise InvalidOperation(f"Cannot request unacknowledged write concern and {what}")
    return concern


def client_writes(models: Any, *, write_concern: WriteConcern) -> list[ClientWrite]:
    """Check a list of models, each of which says what collection it is for.

    :raises TypeError: ``models`` or an element or an argument of one is not of the type that it must be.
    :raises ValueError: an update without operators, or a replacement with them.
    :raises InvalidOperation: there is nothing to do, or a model is for no collection.
    :raises ConfigurationError: an option of a model cannot be used with ``w=0``.
    """
    if not isinstance(models, (list, tuple)):
        raise TypeError(f"models must be a list, not {type(models).__name__}")
    if not models:
        raise InvalidOperation("models: no operations to execute")
    writes = list(_client_writes(models, write_concern.acknowledged))
    give_ids([write.stored for write in writes if write.kind == "insert"])
    return writes


def _client_writes(models: Sequence[Any], acknowledged: bool) -> Iterator[ClientWrite]:
    checked = writes_of(models, acknowledged, "models")
    for index, (model, (batch, statement, multi)) in enumerate(zip(models, checked, strict=True)):
        namespace = model._namespace
        if namespace is None:
            raise InvalidOperation(f"models[{index}] has no namespace")
        if not isinstance(namespace, str):
            raise TypeError(f"models[{index}]: namespace must be a str, not {type(namespace).__name__}")
        yield _client_write(model, namespace, batch, statement, multi)


def _client_write(model: Any, namespace: str, batch: type[WriteBatch], statement: Any, multi: bool) -> ClientWrite:
    """The write for a model, of the statement that it is for a collection's bulk write."""
    if batch is InsertBatch:
        return ClientWrite("insert", namespace, {"document": statement}, stored=statement)
    rest = {**statement}
    query = rest.pop("q")
    if batch is DeleteBatch:
        del rest["limit"]
        return ClientWrite("delete", namespace, {"filter": query, "multi": multi, **rest}, multi)
    mods = rest.pop("u")
    if model._upsert is None:
        rest.pop("upsert", None)
    stored = mods if isinstance(model, ReplaceOne) else None
    return ClientWrite("update", namespace, {"filter": query, "updateMods": mods, **rest}, multi, stored)


class ClientBulk:
    """One bulk write under way."""

    def __init__(
        self,
        execute: Callable[[Operation[Any]], Deferred[Any]],
        leftovers: Leftovers,
        writes: Sequence[ClientWrite],
        options: ClientBulkOptions,
        *,
        ordered: bool,
        verbose: bool,
        comment: Any = None,
        session: Any = None,
    ) -> None:
        """
        :param leftovers: take a cursor of results that is not read to its end.
        :param comment: of the commands that go on with that cursor.
        """
        self._execute = execute
        self._leftovers = leftovers
        self._writes = writes
        self._options = options
        self._ordered = ordered
        self._comment = comment
        self._session = session
        self._outcome = ClientBulkOutcome(writes, ordered=ordered, verbose=verbose)

    def send(self) -> Deferred[ClientBulkWriteResult]:
        """Send all commands; the first is written before this returns if a connection is ready.

        :returns: a Deferred that fires with the result. It fails with
            :class:`~txmongo.errors.ClientBulkWriteException`, or with the error that kept the first command from being
            sent. Cancelling it ends it with the command that is under way.
        """
        return Deferred.fromCoroutine(self._send())

    async def _send(self) -> ClientBulkWriteResult:
        outcome = self._outcome
        try:
            await self._send_all()
        except PyMongoError as error:
            told = isinstance(error, (OperationFailure, ConnectionFailure)) and not isinstance(error, _NOT_SENT)
            if not told and not outcome.observed:
                raise
            outcome.add_error(error)
        exception = outcome.exception()
        if exception is not None:
            raise exception from exception.__cause__
        return ClientBulkWriteResult(outcome.details, self._options.acknowledged, outcome.verbose)

    async def _send_all(self) -> None:
        start = 0
        while start < len(self._writes) and not (self._ordered and self._outcome.has_write_errors):
            command = ClientBulkWrite(self._writes, self._options, start, session=self._session)
            try:
                reply = await self._execute(command)
            except BatchUnconfirmed as error:
                reply = error.found
            if reply is not None:
                await self._read(command, reply)
            start = command.end

    async def _read(self, command: ClientBulkWrite, reply: BulkReply) -> None:
        """Take a reply and all results of single writes."""
        assert command.count is not None
        reading = _Reading(reply.results)
        try:
            self._outcome.add_reply(reply.document, command.count)
            self._outcome.add_results(reply.results.documents, command.start)
            while reading.cursor_id and not (self._ordered and self._outcome.has_write_errors):
                following = await self._execute(reading.next(command.reply_codec_options, self._comment))
                reading.cursor_id = following.cursor_id
                self._outcome.add_results(following.documents, command.start)
        finally:
            reading.end(self._leftovers)


class _Reading:
    """A cursor of results that has more of them.

    :ivar cursor_id: 0 once the server has no more.
    """

    def __init__(self, batch: CursorBatch) -> None:
        self.cursor_id = batch.cursor_id
        self._batch = batch

    def next(self, codec_options: CodecOptions[Any], comment: Any) -> GetMore:
        """What asks for more."""
        batch = self._batch
        database, _, collection = batch.namespace.partition(".")
        return GetMore(
            database,
            collection,
            self.cursor_id,
            batch.address,
            codec_options,
            comment=comment,
            session=batch.session,
            pin=batch.pin,
        )

    def end(self, leftovers: Leftovers) -> None:
        """Give back what it kept; if there is more that nobody wants, have the server forget it."""
        batch = self._batch
        if self.cursor_id:
            leftovers.drop(batch.namespace, self.cursor_id, batch.address, batch.session, batch.pin)
            return
        if isinstance(batch.session, SessionUse):
            batch.session.release()
        if batch.pin is not None:
            batch.pin.release(Holder.CURSOR)
