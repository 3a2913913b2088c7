"""The methods that a Collection has for TxMongo's sake, each made of the public methods of today.

Translating arguments and results is done by the pure functions of the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson.raw_bson import RawBSONDocument
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txmongo._legacy.deprecation import warn_deprecated
from txmongo._legacy.writes import (
    CONTINUE_ON_ERROR,
    SINGLE_REMOVE,
    UPDATE_MULTI,
    UPDATE_UPSERT,
    checked_flags,
    concern_for,
    delete_spec,
    error_of_insert,
    has_operators,
    outcome_of_delete,
    outcome_of_update,
)
from txmongo.errors import BulkWriteError, OperationFailure

__all__ = ["LegacyCollection"]

#: The server's own answer to an update of many documents by a whole one.
_MULTI_REPLACEMENT = "multi update is not supported for replacement-style update", 9


class LegacyCollection:
    """What :class:`~txmongo.collection.Collection` inherits."""

    if TYPE_CHECKING:

        @property
        def write_concern(self) -> WriteConcern: ...

        def with_options(self, *args: Any, **kwargs: Any) -> Any: ...

    # --- writing ---

    def insert(self, docs: Any, safe: bool | None = None, flags: int = 0, **kwargs: Any) -> Deferred[Any]:
        """Store one document or several.

        .. deprecated:: 26.12.0
            Use :meth:`insert_one` or :meth:`insert_many`.

        :param docs: a document, or a list of documents; each is given an ``_id`` if it has none.
        :param safe: whether to wait for the server's answer; the collection's write concern if it is not given.
        :param flags: ``txmongo.protocol.INSERT_CONTINUE_ON_ERROR`` to go on after a document that is refused.
        :param kwargs: ``w``, ``wtimeout``, ``j`` and ``fsync``: the write concern.
        :returns: a Deferred that fires with the ``_id``, or with the list of them if a list was given. It fails with
            :class:`~txmongo.errors.DuplicateKeyError` if a unique index has such a key already,
            :class:`~txmongo.errors.OperationFailure` if a document is refused, and as every operation (see the class).
        :raises TypeError: ``docs`` is neither, or another argument is not of its type.
        """
        warn_deprecated("Collection.insert", "insert_one or insert_many")
        return self._insert(docs, safe, flags, kwargs)

    def _insert(self, docs: Any, safe: Any, flags: Any, options: dict[str, Any]) -> Deferred[Any]:
        concern = concern_for("insert", safe, self.write_concern, options)
        ordered = not checked_flags(flags) & CONTINUE_ON_ERROR
        collection = self.with_options(write_concern=concern)
        if isinstance(docs, (Mapping, RawBSONDocument)):
            one: Deferred[Any] = collection.insert_one(docs)
            return one.addCallback(lambda result: result.inserted_id)
        if not isinstance(docs, list):
            raise TypeError(f"docs must be a document or a list of documents, not {type(docs).__name__}")
        many: Deferred[Any] = collection.insert_many(docs, ordered=ordered)
        return many.addCallbacks(lambda result: result.inserted_ids, _insert_failed)

    def update(
        self,
        spec: Mapping[str, Any],
        document: Mapping[str, Any],
        upsert: bool = False,
        multi: bool = False,
        safe: bool | None = None,
        flags: int = 0,
        **kwargs: Any,
    ) -> Deferred[dict[str, Any] | None]:
        """Change or replace documents that match.

        .. deprecated:: 26.12.0
            Use :meth:`update_one`, :meth:`update_many` or :meth:`replace_one`.

        :param spec: which documents.
        :param document: operators such as ``{"$set": {...}}``, or the whole document that takes the other's place.
        :param upsert: insert one if none matches.
        :param multi: change all that match, not only the first.
        :param safe: whether to wait for the server's answer; the collection's write concern if it is not given.
        :param flags: ``txmongo.protocol.UPDATE_UPSERT`` and ``UPDATE_MULTI``, as the arguments of these names.
        :param kwargs: ``w``, ``wtimeout``, ``j`` and ``fsync``: the write concern.
        :returns: a Deferred that fires with what the command getLastError used to say: a dict with ``ok``, ``n``,
            ``updatedExisting``, ``err`` (which is ``None``), and ``upserted``, the ``_id``, if a document was inserted;
            with ``None`` if no answer was waited for. It fails with :class:`~txmongo.errors.DuplicateKeyError` if the
            result would break a unique index, :class:`~txmongo.errors.OperationFailure` if the update is refused, and
            as every operation (see the class).
        :raises TypeError: an argument is not of its type.
        """
        warn_deprecated("Collection.update", "update_one, update_many or replace_one")
        return self._update_as_of_old(spec, document, upsert, multi, safe, flags, kwargs)

    def _update_as_of_old(
        self, spec: Any, document: Any, upsert: Any, multi: Any, safe: Any, flags: Any, options: dict[str, Any]
    ) -> Deferred[dict[str, Any] | None]:
        for name, value in (("spec", spec), ("document", document)):
            if not isinstance(value, (Mapping, RawBSONDocument)):
                raise TypeError(f"{name} must be a mapping, not {type(value).__name__}")
        for name, value in (("upsert", upsert), ("multi", multi)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
        upsert |= bool(checked_flags(flags) & UPDATE_UPSERT)
        multi |= bool(flags & UPDATE_MULTI)
        collection = self.with_options(write_concern=concern_for("update", safe, self.write_concern, options))
        if has_operators(document):
            method = collection.update_many if multi else collection.update_one
        elif multi:
            return fail(OperationFailure(*_MULTI_REPLACEMENT))
        else:
            method = collection.replace_one
        updated: Deferred[Any] = method(spec, document, upsert)
        return updated.addCallback(outcome_of_update)

    def save(self, doc: Any, safe: bool | None = None, **kwargs: Any) -> Deferred[Any]:
        """Store a document in the place of that with the same ``_id``; one that has no ``_id`` is inserted.

        .. deprecated:: 26.12.0
            Use :meth:`replace_one` with ``upsert=True``, or :meth:`insert_one`.

        :param doc: the document.
        :param safe: whether to wait for the server's answer; the collection's write concern if it is not given.
        :param kwargs: ``w``, ``wtimeout``, ``j`` and ``fsync``: the write concern.
        :returns: a Deferred as that of :meth:`update`, or for a document without ``_id`` as that of :meth:`insert`.
        :raises TypeError: an argument is not of its type.
        """
        warn_deprecated("Collection.save", "replace_one with upsert=True, or insert_one")
        if not isinstance(doc, Mapping):
            raise TypeError(f"doc must be a mapping, not {type(doc).__name__}")
        if "_id" not in doc:
            return self._insert(doc, safe, 0, kwargs)
        concern = concern_for("save", safe, self.write_concern, kwargs)
        saved: Deferred[Any] = self.with_options(write_concern=concern).replace_one({"_id": doc["_id"]}, doc, True)
        return saved.addCallback(outcome_of_update)

    def remove(
        self, spec: Any, safe: bool | None = None, single: bool = False, flags: int = 0, **kwargs: Any
    ) -> Deferred[dict[str, Any] | None]:
        """Remove documents that match.

        .. deprecated:: 26.12.0
            Use :meth:`delete_one` or :meth:`delete_many`.

        :param spec: which documents, ``{}`` for all; an ``ObjectId`` stands for the document of that ``_id``.
        :param safe: whether to wait for the server's answer; the collection's write concern if it is not given.
        :param single: remove one only.
        :param flags: ``txmongo.protocol.DELETE_SINGLE_REMOVE``, as ``single``.
        :param kwargs: ``w``, ``wtimeout``, ``j`` and ``fsync``: the write concern.
        :returns: a Deferred that fires with a dict of ``ok``, ``n`` (how many were removed) and ``err`` (``None``);
            with ``None`` if no answer was waited for. It fails with :class:`~txmongo.errors.OperationFailure` if the
            server refuses it, and as every operation (see the class).
        :raises TypeError: an argument is not of its type.
        """
        warn_deprecated("Collection.remove", "delete_one or delete_many")
        one = bool(single) or bool(checked_flags(flags) & SINGLE_REMOVE)
        collection = self.with_options(write_concern=concern_for("remove", safe, self.write_concern, kwargs))
        removed: Deferred[Any] = (collection.delete_one if one else collection.delete_many)(delete_spec(spec))
        return removed.addCallback(outcome_of_delete)


def _insert_failed(failure: Failure) -> Failure:
    error = failure.value
    if not isinstance(error, BulkWriteError):
        return failure
    raise error_of_insert(error) from error
