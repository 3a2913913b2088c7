"""The methods that a Collection has for TxMongo's sake, each made of the public methods of today.

Translating arguments and results is done by the pure functions of the modules beside this one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txmongo._legacy.deprecation import warn_deprecated
from txmongo._legacy.find import FindRequest, find_request
from txmongo._legacy.group import group_pipeline, group_result
from txmongo._legacy.pages import Page, first_page
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
from txmongo.filter import _QueryFilter

__all__ = ["LegacyCollection", "takes_old_arguments"]

P = ParamSpec("P")
CursorT = TypeVar("CursorT")

#: Arguments of ``find`` that today's does not know, and with them those that may mean something else to it.
_OLD_KEYWORDS = frozenset({"spec", "fields", "cursor", "as_class", "flags"})
_SUSPECT = _OLD_KEYWORDS | {"filter", "sort"}

#: The server's own answer to an update of many documents by a whole one.
_MULTI_REPLACEMENT = "multi update is not supported for replacement-style update", 9


def takes_old_arguments(find: Callable[P, CursorT]) -> Callable[P, CursorT]:
    """Make ``find`` take the arguments of TxMongo 15.2 and 26.0 too; see :mod:`txmongo._legacy.find`."""

    @functools.wraps(find)
    def translating(*args: P.args, **kwargs: P.kwargs) -> CursorT:
        if len(args) < 3 and (_SUSPECT.isdisjoint(kwargs) or _is_modern(len(args) > 1, kwargs)):
            return find(*args, **kwargs)
        collection: Any = args[0]
        return cast("CursorT", collection._find_as_asked(args[1:], kwargs))

    return translating


def _is_modern(with_query: bool, keywords: Mapping[str, Any]) -> bool:
    """Whether these keywords mean to today's ``find`` what they meant ever."""
    if not _OLD_KEYWORDS.isdisjoint(keywords) or (with_query and "filter" in keywords):
        return False
    return not isinstance(keywords.get("sort"), _QueryFilter) and not isinstance(keywords.get("filter"), _QueryFilter)


class LegacyCollection:
    """What :class:`~txmongo.collection.Collection` inherits."""

    if TYPE_CHECKING:

        @property
        def write_concern(self) -> WriteConcern: ...

        @property
        def codec_options(self) -> CodecOptions[Any]: ...

        @property
        def read_preference(self) -> Any: ...

        def with_options(self, *args: Any, **kwargs: Any) -> Any: ...

    # --- finding ---

    def _find_as_asked(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """A cursor, or page after page, for arguments of ``find``; called by what the user calls."""
        request = find_request("find", args, keywords)
        cursor = self._cursor_for(request, "find", 3)
        return first_page(cursor, request.tailable) if request.pages else cursor

    def _find_one_as_asked(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """The cursor for arguments of ``find_one``, whose first document is wanted; called by what the user calls."""
        request = find_request("find_one", args, keywords)
        spec = request.keywords.get("filter")
        if spec is not None and not isinstance(spec, Mapping):
            request.keywords["filter"] = {"_id": spec}
        return self._cursor_for(request, "find_one", 3)

    def find_with_cursor(self, *args: Any, **kwargs: Any) -> Deferred[Page]:
        """Find documents, and get them page after page.

        ::

            documents, next_page = await collection.find_with_cursor({"x": 1}, batch_size=100)
            while documents:
                ...
                documents, next_page = await next_page

        :param args: and ``kwargs``: ``(filter, projection, skip, limit, sort, batch_size)`` and the further arguments
            of :meth:`find`.
        :returns: a Deferred that fires with a tuple: the documents of a page, and a Deferred that fires with the next
            tuple; with ``([], None)`` when there are no more. A page is asked of the server when it is waited for. Who
            stops before the end just drops the Deferred: the cursor is then killed at the server. It fails as every
            operation (see the class).
        """
        request = find_request("find_with_cursor", args, kwargs)
        return first_page(self._cursor_for(request, "find_with_cursor", 2), request.tailable)

    def _cursor_for(self, request: FindRequest, method: str, stacklevel: int) -> Any:
        if request.deprecated:
            names, successors = (", ".join(each) for each in zip(*request.deprecated, strict=True))
            warn_deprecated(f"Collection.{method} with {names}", successors, stacklevel=stacklevel + 1)
        options: dict[str, Any] = {}
        if request.as_class is not None:
            options["codec_options"] = self.codec_options.with_options(document_class=request.as_class)
        if request.slave_ok and self.read_preference == ReadPreference.PRIMARY:
            options["read_preference"] = ReadPreference.SECONDARY_PREFERRED
        collection: Any = self.with_options(**options) if options else self
        cursor = collection.find(**request.keywords)
        if request.flags:
            cursor.add_option(request.flags)
        cursor._verbosity = request.explain
        return cursor

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
        :returns: a Deferred that fires, and fails, as that of :meth:`update`; for a document without ``_id`` as that of
            :meth:`insert`.
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

    # --- other commands ---

    def find_and_modify(
        self,
        query: Mapping[str, Any] | None = None,
        update: Any = None,
        upsert: bool = False,
        **kwargs: Any,
    ) -> Deferred[Any]:
        """Change or remove one document that matches, and get it.

        .. deprecated:: 26.12.0
            Use :meth:`find_one_and_update`, :meth:`find_one_and_replace` or :meth:`find_one_and_delete`.

        :param query: which document; any if it is not given.
        :param update: operators, stages, or the whole document that takes the other's place.
        :param upsert: insert one if none matches.
        :param kwargs: ``remove=True`` instead of ``update``; ``new=True`` for the document as it is then, not as it was
            before; ``fields``, which of its fields; ``sort``, a mapping or pairs: which document comes first; and
            further fields of the ``findAndModify`` command.
        :returns: a Deferred that fires with the document, or ``None``, and fails as that of
            :meth:`find_one_and_replace`.
        :raises ValueError: neither ``update`` nor ``remove`` is given, or both are.
        :raises TypeError: an argument is not of its type.
        """
        successors = "find_one_and_update, find_one_and_replace or find_one_and_delete"
        warn_deprecated("Collection.find_and_modify", successors)
        remove = kwargs.pop("remove", False)
        if not update and not remove:
            raise ValueError("find_and_modify: one of update and remove must be given")
        if update and remove:
            raise ValueError("find_and_modify: only one of update and remove can be given")
        collection: Any = self
        arguments: dict[str, Any] = {"projection": kwargs.pop("fields", None), "sort": kwargs.pop("sort", None) or None}
        query = {} if query is None else query
        if upsert or not remove:
            kwargs["upsert"] = upsert
        if remove:
            return collection.find_one_and_delete(query, **arguments, **kwargs)  # type: ignore[no-any-return]
        arguments["return_document"] = bool(kwargs.pop("new", False))
        whole = isinstance(update, Mapping) and not has_operators(update)
        change = collection.find_one_and_replace if whole else collection.find_one_and_update
        return change(query, update, **arguments, **kwargs)  # type: ignore[no-any-return]

    def group(
        self, keys: Any, initial: Mapping[str, Any], reduce: Any, condition: Any = None, finalize: Any = None
    ) -> Deferred[dict[str, Any]]:
        """Group documents, and compute a value for each group by functions in JavaScript.

        .. deprecated:: 26.12.0
            Use :meth:`aggregate`, whose stage ``$group`` needs no JavaScript.

        The command of this name left the server in MongoDB 4.2; an aggregation does the same, but for the order of the
        groups. It needs a server that runs JavaScript, and as the command it cannot be used with several shards.

        :param keys: the names of the fields by which to group, or a function that makes the keys of a document:
            ``"function(document) { return {year: document.date.getFullYear()}; }"``.
        :param initial: what each group's value starts from, beside the group's keys.
        :param reduce: changes the value for a document: ``"function(document, value) { value.count += 1; }"``.
        :param condition: which documents; all if it is not given.
        :param finalize: changes the value in the end, or returns another: ``"function(value) { ... }"``.
        :returns: a Deferred that fires with a dict of ``retval`` (the list of values), ``count`` (how many documents),
            ``keys`` (how many groups) and ``ok``. It fails as every operation (see the class).
        :raises TypeError: an argument is not of its type.
        :raises ValueError: a function has a scope.
        """
        warn_deprecated("Collection.group", "aggregate with $group")
        collection: Any = self
        groups: Deferred[Any] = collection.aggregate(
            group_pipeline(keys, initial, reduce, condition, finalize)
        ).to_list()
        return groups.addCallback(group_result)

    def filemd5(self, spec: Any, **kwargs: Any) -> Deferred[str]:
        """The MD5 of a file in GridFS, computed by the server.

        This collection is the bucket, such as ``database.fs``. Servers deprecate the command: have the client compute a
        hash of what it writes.

        :param spec: the file's ``_id``.
        :param kwargs: further arguments of :meth:`~txmongo.database.Database.command`.
        :returns: a Deferred that fires with the MD5 in hexadecimal. It fails with
            :class:`~txmongo.errors.OperationFailure` where the server has no such command, and as every operation (see
            the class).
        :raises TypeError: ``spec`` is no ``ObjectId``.
        """
        if not isinstance(spec, ObjectId):
            raise TypeError(f"spec must be an ObjectId, not {type(spec).__name__}")
        collection: Any = self
        reply: Deferred[Any] = collection.database.command("filemd5", spec, root=collection.name, **kwargs)
        return reply.addCallback(lambda document: document["md5"])


def _insert_failed(failure: Failure) -> Failure:
    error = failure.value
    if not isinstance(error, BulkWriteError):
        return failure
    raise error_of_insert(error) from error
