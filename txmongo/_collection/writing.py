"""The methods of a collection that write documents. Kept: the CRUD specification, "Write"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collation import Collation
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from twisted.internet.defer import Deferred

from txmongo._collection.core import CollectionCore
from txmongo._legacy.arguments import takes_let_second
from txmongo._ops import find_and_modify, insert
from txmongo._ops.arguments import (
    check_array_filters,
    check_boolean,
    check_document,
    check_mapping,
    check_optional_mapping,
    check_replacement,
    check_update,
    hint_value,
    projection_document,
    sort_document,
)
from txmongo._ops.base import check_acknowledged_option, collation_document
from txmongo._ops.client_sessions import check_session, effective_write_concern
from txmongo._ops.delete import DeleteMany, DeleteOne, delete_statement
from txmongo._ops.timeouts import Timing, take_timing
from txmongo._ops.update import UpdateMany, UpdateOne, update_statement
from txmongo._ops.writes import WriteTarget, write_options
from txmongo.bulk import Bulk, documents_with_ids, insert_run, runs_of
from txmongo.errors import OperationFailure
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.types import IndexKeys, Pipeline

__all__ = ["WritingMethods"]


class WritingMethods(CollectionCore[DocumentType]):
    """What :class:`~txmongo.collection.Collection` inherits: inserting, updating, deleting, finding and changing."""

    @cached_property
    def _insert_template(self) -> tuple[bytes, bytes] | None:
        return insert.insert_template(self._target)

    @property
    def _target(self) -> WriteTarget:
        """What write operations need to know of this collection; made at the first one."""
        target = self._write_target
        if target is None:
            target = self._write_target = WriteTarget.create(
                self._database_name, self._name, self._codec_options, self._write_concern
            )
        return target

    def _target_in(self, session: Any) -> tuple[WriteTarget, Any]:
        """The target of a write in a session, and that session: the one that is bound, where none is given.

        In a transaction a write has no write concern of its own.

        :raises InvalidOperation: the session has ended or is another client's.
        :raises ValueError: it is no session, or the write is unacknowledged.
        """
        session = self._sessions.bound(session)
        if session is None:
            return self._target, None
        own = self._write_concern
        check_session(session, self._sessions, own.acknowledged)
        write_concern = effective_write_concern(session, own)
        if write_concern is own:
            return self._target, session
        return WriteTarget.create(self._database_name, self._name, self._codec_options, write_concern), session

    # --- inserting ---

    def insert_one(
        self,
        document: Any,
        bypass_document_validation: bool | None = None,
        session: Any = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[InsertOneResult]:
        """Store one document.

        :param document: a mutable mapping, which is given an ``_id`` if it has none, or raw BSON.
        :param bypass_document_validation: store it even if it fails the collection's validator.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with an :class:`~pymongo.results.InsertOneResult`. It fails with
            :class:`~txmongo.errors.DuplicateKeyError` if a unique index has such a key already,
            :class:`~txmongo.errors.WriteError` if the document is refused,
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was stored but
            the write concern could not be kept, and as every operation (see the class).
        """
        target = self._target if session is None else self._target_in(session)[0]
        # Asking an abstract class about every document would cost more than all that is done with most of them here.
        if type(document) is not dict:
            check_document("document", document)
        if (type(document) is dict or not isinstance(document, RawBSONDocument)) and "_id" not in document:
            document["_id"] = ObjectId()
        options = write_options(comment, None, bypass_document_validation)
        execute = self._begin(timing, session) if timing else self._execute
        return execute(
            insert.InsertOne(target, document, options, session, self._insert_template if options is None else None)
        )

    def insert_many(
        self,
        documents: Iterable[Any],
        ordered: bool = True,
        bypass_document_validation: bool | None = None,
        session: Any = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[InsertManyResult]:
        """Store documents, in as few commands as the server's limits allow.

        :param documents: as for :meth:`insert_one`; any iterable that is not empty.
        :param ordered: stop at the first document that is refused; else the others are stored all the same.
        :param bypass_document_validation: store them even if they fail the collection's validator.
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with an :class:`~pymongo.results.InsertManyResult`. It fails with
            :class:`~txmongo.errors.BulkWriteError`, whose ``details`` tell what was stored, if a document is refused or
            the write concern could not be kept, and as every operation (see the class).
        """
        target, session = self._target_in(session)
        inserted, ids = documents_with_ids(documents)
        bulk = Bulk(
            self._begin(timing, session),
            target,
            [insert_run(inserted)],
            ordered=ordered,
            comment=comment,
            bypass_document_validation=bypass_document_validation,
            session=session,
        )
        return bulk.send().addCallback(lambda result: InsertManyResult(ids, result is not None))

    # --- updating ---

    def replace_one(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        upsert: bool = False,
        bypass_document_validation: bool | None = None,
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        sort: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[UpdateResult]:
        """Replace one document that matches.

        :param filter: which document.
        :param replacement: the new document, without operators; ``_id`` stays the same.
        :param upsert: insert it if no document matches.
        :param sort: which document of those that match comes first (MongoDB 8.0).
        :param bypass_document_validation: and the other arguments: see :meth:`update_one`.
        :returns: a Deferred that fires, and fails, as that of :meth:`update_one`.
        """
        check_replacement(replacement)
        return self._update(
            UpdateOne,
            filter,
            replacement,
            session,
            comment,
            let,
            bypass_document_validation,
            timing,
            upsert=upsert,
            collation=collation,
            hint=hint,
            sort=sort,
        )

    def update_one(
        self,
        filter: Mapping[str, Any],
        update: Mapping[str, Any] | Pipeline,
        upsert: bool = False,
        bypass_document_validation: bool | None = None,
        collation: Collation | Mapping[str, Any] | None = None,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        sort: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[UpdateResult]:
        """Change one document that matches.

        :param filter: which document.
        :param update: operators such as ``{"$set": {...}}``, or a list of stages.
        :param upsert: insert a document made of ``filter`` and ``update`` if none matches.
        :param bypass_document_validation: do it even if the result fails the collection's validator.
        :param collation: the language's rules for comparing strings; not with ``w=0``.
        :param array_filters: which array elements ``$[name]`` stands for; not with ``w=0``.
        :param hint: the name or the keys of the index to use.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param sort: which document of those that match comes first (MongoDB 8.0).
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with an :class:`~pymongo.results.UpdateResult`. It fails with
            :class:`~txmongo.errors.DuplicateKeyError` if the result would break a unique index,
            :class:`~txmongo.errors.WriteError` if the update is refused,
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was carried out
            but the write concern could not be kept, and as every operation (see the class).
        """
        check_update(update)
        return self._update(
            UpdateOne,
            filter,
            update,
            session,
            comment,
            let,
            bypass_document_validation,
            timing,
            upsert=upsert,
            collation=collation,
            array_filters=array_filters,
            hint=hint,
            sort=sort,
        )

    def update_many(
        self,
        filter: Mapping[str, Any],
        update: Mapping[str, Any] | Pipeline,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        bypass_document_validation: bool | None = None,
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[UpdateResult]:
        """Change all documents that match; never retried, for it may have been carried out in part.

        :param filter: which documents.
        :param update: and the other arguments: see :meth:`update_one`.
        :returns: a Deferred that fires, and fails, as that of :meth:`update_one`.
        """
        check_update(update)
        return self._update(
            UpdateMany,
            filter,
            update,
            session,
            comment,
            let,
            bypass_document_validation,
            timing,
            upsert=upsert,
            collation=collation,
            array_filters=array_filters,
            hint=hint,
        )

    def _update(
        self,
        operation: type[UpdateMany],
        filter: Any,
        update: Any,
        session: Any,
        comment: Any,
        let: Any,
        bypass_document_validation: Any,
        timing: Timing,
        **options: Any,
    ) -> Deferred[UpdateResult]:
        target, session = self._target_in(session)
        check_optional_mapping("let", let)
        statement = update_statement(
            filter, update, multi=operation is UpdateMany, acknowledged=target.acknowledged, **options
        )
        fields = write_options(comment, let, bypass_document_validation)
        return self._begin(timing, session)(operation(target, statement, fields, session))

    # --- deleting ---

    @takes_let_second
    def delete_one(
        self,
        filter: Mapping[str, Any],
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[DeleteResult]:
        """Remove one document that matches.

        :param filter: which document.
        :param collation: the language's rules for comparing strings; not with ``w=0``.
        :param hint: the name or the keys of the index to use.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a :class:`~pymongo.results.DeleteResult`. It fails with
            :class:`~txmongo.errors.WriteError` if the server refuses it,
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was carried out
            but the write concern could not be kept, and as every operation (see the class).
        """
        return self._delete(DeleteOne, False, filter, collation, hint, session, let, comment, timing)

    @takes_let_second
    def delete_many(
        self,
        filter: Mapping[str, Any],
        collation: Collation | Mapping[str, Any] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **timing: Unpack[Timing],
    ) -> Deferred[DeleteResult]:
        """Remove all documents that match; never retried, for it may have been carried out in part.

        :param filter: which documents; ``{}`` removes them all.
        :param collation: and the other arguments: see :meth:`delete_one`.
        :returns: a Deferred that fires, and fails, as that of :meth:`delete_one`.
        """
        return self._delete(DeleteMany, True, filter, collation, hint, session, let, comment, timing)

    def _delete(
        self,
        operation: type[DeleteMany],
        multi: bool,
        filter: Any,
        collation: Any,
        hint: Any,
        session: Any,
        let: Any,
        comment: Any,
        timing: Timing,
    ) -> Deferred[DeleteResult]:
        target, session = self._target_in(session)
        check_optional_mapping("let", let)
        statement = delete_statement(
            filter, multi=multi, collation=collation, hint=hint, acknowledged=target.acknowledged
        )
        return self._begin(timing, session)(operation(target, statement, write_options(comment, let), session))

    # --- finding and changing in one step ---

    def find_one_and_delete(
        self,
        filter: Mapping[str, Any],
        projection: Mapping[str, Any] | Sequence[str] | None = None,
        sort: IndexKeys | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[DocumentType | None]:
        """Remove one document that matches, and get it.

        :param filter: which document.
        :param projection: which of its fields.
        :param sort: which document of those that match comes first.
        :param hint: the name or the keys of the index to use.
        :param let: variables for ``$$name`` in expressions (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the ``findAndModify`` command, such as ``collation`` and ``maxTimeMS``.
        :returns: a Deferred that fires with the document, or ``None`` if none matched or with ``w=0``. It fails with
            :class:`~txmongo.errors.WriteConcernError` (or :class:`~txmongo.errors.WTimeoutError`) if it was carried out
            but the write concern could not be kept, and as every operation (see the class).
        """
        timing = take_timing(kwargs)
        fields = {"remove": True, **kwargs}
        return self._find_and_modify(filter, fields, projection, sort, hint, session, let, comment, timing)

    def find_one_and_replace(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        projection: Mapping[str, Any] | Sequence[str] | None = None,
        sort: IndexKeys | None = None,
        upsert: bool = False,
        return_document: bool = False,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[DocumentType | None]:
        """Replace one document that matches, and get it.

        :param replacement: the new document, without operators; ``_id`` stays the same.
        :param upsert: insert it if no document matches.
        :param return_document: ``ReturnDocument.AFTER`` for the new document; the default is the old one.
        :param filter: and the other arguments: see :meth:`find_one_and_delete`.
        :returns: a Deferred that fires with the document, or ``None`` if none matched (with ``upsert`` and without
            ``AFTER``: if none was there before). It fails with :class:`~txmongo.errors.DuplicateKeyError` if the result
            would break a unique index, and as that of :meth:`find_one_and_delete`.
        """
        check_replacement(replacement)
        timing = take_timing(kwargs)
        fields = self._changing_fields(replacement, upsert, return_document, kwargs)
        return self._find_and_modify(filter, fields, projection, sort, hint, session, let, comment, timing)

    def find_one_and_update(
        self,
        filter: Mapping[str, Any],
        update: Mapping[str, Any] | Pipeline,
        projection: Mapping[str, Any] | Sequence[str] | None = None,
        sort: IndexKeys | None = None,
        upsert: bool = False,
        return_document: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        hint: IndexKeys | None = None,
        session: Any = None,
        let: Mapping[str, Any] | None = None,
        comment: Any = None,
        **kwargs: Any,
    ) -> Deferred[DocumentType | None]:
        """Change one document that matches, and get it.

        :param update: operators such as ``{"$inc": {"n": 1}}``, or a list of stages.
        :param upsert: insert a document made of ``filter`` and ``update`` if none matches.
        :param return_document: ``ReturnDocument.AFTER`` for the document after the change; the default is before.
        :param array_filters: which array elements ``$[name]`` stands for; not with ``w=0``.
        :param filter: and the other arguments: see :meth:`find_one_and_delete`.
        :returns: a Deferred that fires, and fails, as that of :meth:`find_one_and_replace`.
        """
        check_update(update)
        check_array_filters(array_filters)
        check_acknowledged_option("array_filters", array_filters, self._target_in(session)[0].acknowledged)
        timing = take_timing(kwargs)
        fields = self._changing_fields(update, upsert, return_document, kwargs)
        if array_filters is not None:
            fields["arrayFilters"] = array_filters
        return self._find_and_modify(filter, fields, projection, sort, hint, session, let, comment, timing)

    @staticmethod
    def _changing_fields(update: Any, upsert: Any, return_document: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        check_boolean("upsert", upsert)
        if not isinstance(return_document, bool):
            raise TypeError(
                "return_document must be ReturnDocument.BEFORE or ReturnDocument.AFTER, "
                f"not {type(return_document).__name__}"
            )
        return {"update": update, "new": return_document, "upsert": upsert, **kwargs}

    def _find_and_modify(
        self,
        filter: Any,
        fields: dict[str, Any],
        projection: Any,
        sort: Any,
        hint: Any,
        session: Any,
        let: Any,
        comment: Any,
        timing: dict[str, Any],
    ) -> Deferred[Any]:
        target, session = self._target_in(session)
        if session is not None:
            self._check_own_write_concern(session, fields)
        check_mapping("filter", filter)
        check_optional_mapping("let", let)
        given = {
            "fields": projection_document(projection),
            "sort": sort_document(sort),
            "hint": hint_value(hint),
            "let": let,
            "comment": comment,
            "collation": collation_document(fields.pop("collation", None)),
        }
        fields.update((name, value) for name, value in given.items() if value is not None)
        return self._begin(timing, session)(find_and_modify.FindAndModify(target, filter, fields, session))

    def _check_own_write_concern(self, session: Any, fields: dict[str, Any]) -> None:
        """Treat a ``writeConcern`` among the fields of a command as the collection's is treated in a session."""
        own = fields.get("writeConcern")
        if own is not None:
            check_session(session, self._sessions, own.get("w", 1) != 0)
            if session.transaction.active:
                del fields["writeConcern"]

    # --- many writes of several kinds ---

    def bulk_write(
        self,
        requests: Sequence[Any],
        ordered: bool = True,
        bypass_document_validation: bool | None = None,
        session: Any = None,
        comment: Any = None,
        let: Mapping[str, Any] | None = None,
        **timing: Unpack[Timing],
    ) -> Deferred[BulkWriteResult]:
        """Carry out writes of any kind in as few commands as their order and the server's limits allow.

        ::

            result = await collection.bulk_write([InsertOne({"_id": 1}), UpdateOne({"_id": 2}, {"$set": {"a": 1}})])

        :param requests: :class:`~pymongo.operations.InsertOne`, :class:`~pymongo.operations.UpdateOne`,
            :class:`~pymongo.operations.UpdateMany`, :class:`~pymongo.operations.ReplaceOne`,
            :class:`~pymongo.operations.DeleteOne` and :class:`~pymongo.operations.DeleteMany` objects.
        :param ordered: carry them out in this order and stop at the first that is refused; else the server may see them
            in another order, and all are tried.
        :param bypass_document_validation: do it even if documents fail the collection's validator; not with ``w=0``.
        :param let: variables for ``$$name`` in expressions of updates and deletes (MongoDB 5.0).
        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a :class:`~pymongo.results.BulkWriteResult`. It fails with
            :class:`~txmongo.errors.BulkWriteError`, whose ``details`` tell what was done and what was not, if a write
            is refused or the write concern could not be kept, and as every operation (see the class): also then earlier
            commands of it may have been carried out. What is known to have been done is the ``partial_result`` of such
            an error, a :class:`~pymongo.results.BulkWriteResult`.
        """
        target, session = self._target_in(session)
        check_optional_mapping("let", let)
        write_concern = effective_write_concern(session, self._write_concern)
        runs = runs_of(requests, ordered=ordered, write_concern=write_concern)
        if bypass_document_validation is not None and not write_concern.acknowledged:
            raise OperationFailure("bypass_document_validation cannot be set with an unacknowledged write concern")
        bulk = Bulk(
            self._begin(timing, session),
            target,
            runs,
            ordered=ordered,
            comment=comment,
            let=let,
            bypass_document_validation=bypass_document_validation,
            session=session,
        )
        return bulk.send().addCallback(lambda result: BulkWriteResult(result or {}, result is not None))
