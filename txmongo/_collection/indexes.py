"""The methods of a collection that manage its indexes.

Kept: the index management and enumerating indexes specifications.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from pymongo.operations import IndexModel, SearchIndexModel
from twisted.internet.defer import Deferred

from txmongo._collection.core import NAMESPACE_NOT_FOUND, CollectionCore, nothing
from txmongo._legacy.arguments import also_named, index_arguments
from txmongo._legacy.keys import KeyPairs
from txmongo._ops.arguments import check_mapping, index_document, index_name, read_fields, with_comment
from txmongo._ops.client_sessions import check_session
from txmongo._ops.cursor_times import cursor_times
from txmongo._ops.find import check_count
from txmongo._ops.indexes import CreateIndexes, DropIndexes, ListIndexes
from txmongo._ops.search_indexes import CreateSearchIndexes, DropSearchIndex, ListSearchIndexes, UpdateSearchIndex
from txmongo._ops.timeouts import Timing, take_timing
from txmongo.cursor import CommandCursor
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.types import IndexKeys

__all__ = ["IndexMethods"]


class IndexMethods(CollectionCore[DocumentType]):
    """What :class:`~txmongo.collection.Collection` inherits: creating, dropping and listing indexes."""

    # --- indexes ---

    @also_named(sort_fields="keys")
    def create_index(self, keys: IndexKeys, session: Any = None, comment: Any = None, **kwargs: Any) -> Deferred[str]:
        """Create an index; nothing is changed if there is such a one.

        ::

            await collection.create_index([("name", ASCENDING), ("age", DESCENDING)], unique=True)

        :param keys: a key, or a list of keys and ``(key, direction)`` pairs, or a mapping; or a sort order of
            :mod:`txmongo.filter`.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: ``name``, ``unique``, ``sparse``, ``expireAfterSeconds``, ``partialFilterExpression``,
            ``collation``, ``hidden``, ``wildcardProjection`` and what else the server has; ``maxTimeMS`` and
            ``commitQuorum`` are the command's.
        :returns: a Deferred that fires with the index's name. It fails with
            :class:`~txmongo.errors.WriteConcernError` if the write concern could not be kept, and as every operation
            (see the class).
        """
        options = {name: kwargs.pop(name) for name in ("maxTimeMS", "commitQuorum") if name in kwargs} | take_timing(
            kwargs
        )
        keys, kwargs = index_arguments(keys, kwargs)
        created = self.create_indexes([IndexModel(keys, **kwargs)], session, comment, **options)
        return created.addCallback(lambda names: names[0])

    ensure_index = create_index

    def create_indexes(
        self, indexes: Sequence[IndexModel], session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[list[str]]:
        """Create indexes in one command.

        :param indexes: :class:`~pymongo.operations.IndexModel` objects.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``commitQuorum`` and ``maxTimeMS``.
        :returns: a Deferred that fires with the list of their names. It fails as that of :meth:`create_index`.
        """
        check_session(session, self._sessions)
        if not isinstance(indexes, list):
            raise TypeError(f"indexes must be a list, not {type(indexes).__name__}")
        for index in indexes:
            if not isinstance(index, IndexModel):
                raise TypeError(f"indexes must be a list of IndexModel objects, not of {type(index).__name__}")
        timing = take_timing(kwargs)
        return self._begin(timing, session)(
            CreateIndexes(
                self._database_name,
                self._name,
                [index.document for index in indexes],
                with_comment(kwargs, comment),
                codec_options=self._codec_options,
                write_concern=self._write_concern,
                session=session,
            )
        )

    @also_named(index_identifier="index_or_name")
    def drop_index(
        self, index_or_name: IndexKeys, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[Mapping[str, Any]]:
        """Drop an index; that the collection does not exist is no error.

        :param index_or_name: the index's name, or its keys as given to :meth:`create_index` without a name.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with the server's reply. It fails with
            :class:`~txmongo.errors.OperationFailure` (code 27) if there is no such index, and as that of
            :meth:`create_index`.
        """
        check_session(session, self._sessions)
        name = index_or_name
        if not isinstance(name, str):
            name = index_name(index_document("index_or_name", name))
        timing = take_timing(kwargs)
        operation = DropIndexes(
            self._database_name,
            self._name,
            name,
            with_comment(kwargs, comment),
            write_concern=self._write_concern,
            session=session,
        )
        return self._execute_unless_missing(operation, timing)

    def drop_indexes(self, session: Any = None, comment: Any = None, **kwargs: Any) -> Deferred[Mapping[str, Any]]:
        """Drop all indexes but that on ``_id``; that the collection does not exist is no error.

        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with the server's reply. It fails as that of :meth:`create_index`.
        """
        return self.drop_index("*", session, comment, **kwargs)

    def list_indexes(
        self,
        session: Any = None,
        comment: Any = None,
        *,
        batch_size: int = 0,
        timeout_mode: str | None = None,
        **timing: Unpack[Timing],
    ) -> CommandCursor[MutableMapping[str, Any]]:
        """The indexes as the server describes them, as dicts; none if the collection does not exist.

        :param comment: any BSON value, for the server's log and profiler.
        :param batch_size: how many the server sends at once; 0 leaves it to the server.
        :param timeout_mode: as of :meth:`find`.
        :returns: a :class:`~txmongo.cursor.CommandCursor`, which is a Deferred of the list and more. It fails as every
            operation (see the class).
        :raises TypeError: ``batch_size`` is not an int.
        :raises ValueError: it is negative.
        """
        check_session(session, self._sessions)
        check_count("batch_size", batch_size)
        operation = ListIndexes(
            self._database_name,
            self._name,
            with_comment({}, comment),
            batch_size=batch_size or None,
            codec_options=self._codec_options.with_options(document_class=dict),
            session=session,
        )
        client = self._database.client
        times = cursor_times(client._executor, self._timeout, timing, timeout_mode, session=session)
        return CommandCursor(
            client, operation, batch_size=batch_size, comment=comment, empty_on=(NAMESPACE_NOT_FOUND,), times=times
        )

    def list_index_names(
        self, session: Any = None, comment: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[list[str]]:
        """The names of the indexes; none if the collection does not exist.

        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a list of str. It fails as every operation (see the class).
        """
        return self.list_indexes(session, comment, **timing).addCallback(_names)

    def index_information(
        self, session: Any = None, comment: Any = None, **timing: Unpack[Timing]
    ) -> Deferred[dict[str, Any]]:
        """The indexes by name, their keys as lists of ``(key, direction)`` pairs.

        A list of them may be read as the mapping of keys to directions that it is in TxMongo: ``keys["_id"]``.

        :param comment: any BSON value, for the server's log and profiler.
        :returns: a Deferred that fires with a dict such as ``{"_id_": {"v": 2, "key": [("_id", 1)], "name": "_id_"}}``.
            It fails as every operation (see the class).
        """
        return self.list_indexes(session, comment, **timing).addCallback(_information)

    # --- search indexes ---

    def create_search_index(
        self, model: Mapping[str, Any] | SearchIndexModel, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[str]:
        """Begin to build a search index (MongoDB Atlas, or a deployment with a search process, of MongoDB 7.0).

        ::

            name = await collection.create_search_index(SearchIndexModel({"mappings": {"dynamic": True}}, "all"))

        The server answers before the index is built: :meth:`list_search_indexes` shows when it can be used.

        :param model: a :class:`~pymongo.operations.SearchIndexModel`, or a mapping of its arguments: ``definition``,
            and perhaps ``name`` and ``type``.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with the index's name. It fails with :class:`~txmongo.errors.OperationFailure`
            if the server has no search or refuses the definition, and as every operation (see the class).
        """
        if isinstance(model, Mapping):
            model = SearchIndexModel(**model)
        elif not isinstance(model, SearchIndexModel):
            raise TypeError(f"model must be a SearchIndexModel or a mapping, not {type(model).__name__}")
        created = self.create_search_indexes([model], session, comment, **kwargs)
        return created.addCallback(lambda names: names[0])

    def create_search_indexes(
        self, models: Sequence[SearchIndexModel], session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[list[str]]:
        """Begin to build search indexes, in one command.

        :param models: :class:`~pymongo.operations.SearchIndexModel` objects.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with the list of their names. It fails as that of :meth:`create_search_index`.
        """
        check_session(session, self._sessions)
        if not isinstance(models, list):
            raise TypeError(f"models must be a list, not {type(models).__name__}")
        for model in models:
            if not isinstance(model, SearchIndexModel):
                raise TypeError(f"models must be a list of SearchIndexModel objects, not of {type(model).__name__}")
        arguments = {"indexes": [model.document for model in models]}
        return self._change_search(CreateSearchIndexes, arguments, session, comment, kwargs)

    def update_search_index(
        self, name: str, definition: Mapping[str, Any], session: Any = None, comment: Any = None, **kwargs: Any
    ) -> Deferred[None]:
        """Begin to rebuild a search index by another definition; until that is done the old one serves.

        :param name: the index's name.
        :param definition: the new definition, all of it.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with ``None``. It fails with :class:`~txmongo.errors.OperationFailure` also if
            there is no such index, and else as that of :meth:`create_search_index`.
        """
        check_session(session, self._sessions)
        _check_index_name(name)
        check_mapping("definition", definition)
        arguments = {"name": name, "definition": definition}
        return self._change_search(UpdateSearchIndex, arguments, session, comment, kwargs).addCallback(nothing)

    def drop_search_index(self, name: str, session: Any = None, comment: Any = None, **kwargs: Any) -> Deferred[None]:
        """Begin to remove a search index; that the collection does not exist is no error.

        :param name: the index's name.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: further fields of the command, such as ``maxTimeMS``.
        :returns: a Deferred that fires with ``None``. It fails as that of :meth:`update_search_index`.
        """
        check_session(session, self._sessions)
        _check_index_name(name)
        dropped = self._change_search(DropSearchIndex, {"name": name}, session, comment, kwargs, missing=True)
        return dropped.addCallback(nothing)

    def list_search_indexes(
        self, name: str | None = None, session: Any = None, comment: Any = None, **kwargs: Any
    ) -> CommandCursor[MutableMapping[str, Any]]:
        """The search indexes as the server describes them, with their ``status`` and whether they are ``queryable``.

        :param name: of the one that is wanted; all of them if it is not given.
        :param comment: any BSON value, for the server's log and profiler.
        :param kwargs: options of :meth:`aggregate`: ``batchSize``, ``maxTimeMS``, ``timeout_mode``.
        :returns: a :class:`~txmongo.cursor.CommandCursor`, which is a Deferred of the list and more. It fails with
            :class:`~txmongo.errors.OperationFailure` if the server has no search, and as every operation (see the
            class).
        """
        check_session(session, self._sessions)
        if name is not None:
            _check_index_name(name)
        timing, timeout_mode = take_timing(kwargs), kwargs.pop("timeout_mode", None)
        batch_size = kwargs.pop("batchSize", None)
        if batch_size is not None:
            check_count("batchSize", batch_size)
        operation = ListSearchIndexes(
            self._database_name,
            self._name,
            name,
            read_fields(kwargs, comment),
            batch_size=batch_size,
            codec_options=self._codec_options,
            read_preference=self._read_preference,
            session=session,
        )
        client = self._database.client
        times = cursor_times(client._executor, self._timeout, timing, timeout_mode, session=session)
        return CommandCursor(client, operation, batch_size=batch_size or 0, comment=comment, times=times)

    def _change_search(
        self,
        operation: type[CreateSearchIndexes | UpdateSearchIndex | DropSearchIndex],
        arguments: Mapping[str, Any],
        session: Any,
        comment: Any,
        kwargs: dict[str, Any],
        *,
        missing: bool = False,
    ) -> Deferred[Any]:
        """Run a command about search indexes.

        :param missing: it is as good if the collection does not exist.
        """
        timing = take_timing(kwargs)
        fields = with_comment(kwargs, comment)
        change = operation(
            self._database_name, self._name, arguments, fields, codec_options=self._codec_options, session=session
        )
        if missing:
            return self._execute_unless_missing(change, timing)
        return self._begin(timing, session)(change)


def _names(indexes: list[MutableMapping[str, Any]]) -> list[str]:
    return [index["name"] for index in indexes]


def _information(indexes: list[MutableMapping[str, Any]]) -> dict[str, Any]:
    return {index["name"]: {**index, "key": KeyPairs(index["key"].items())} for index in indexes}


def _check_index_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
