"""GridFS as TxMongo has always had it, and PyMongo's ``AsyncGridFS``: files by ``_id`` or by name and version.

The modern way, with the names of the GridFS specification, is :mod:`txmongo._gridfs.bucket`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.results import DeleteResult
from twisted.internet.defer import Deferred

from txmongo._gridfs.collections import BucketCollections
from txmongo._gridfs.finding import GridOutCursor, find_file, revision_order
from txmongo._gridfs.grid_in import GridIn, store
from txmongo._gridfs.grid_out import GridOut
from txmongo._gridfs.indexes import CHUNKS_INDEX, FILES_INDEX
from txmongo._gridfs.sources import check_source
from txmongo._gridfs.times import Times
from txmongo._ops.arguments import index_name
from txmongo.database import Database

__all__ = ["GridFS"]


class GridFS:
    """Files in a database: each has an ``_id``, and may have a name, of which there may be several versions.

    Every method that talks to the server returns a Deferred. Beside what its own description says, it can fail as those
    of :class:`~txmongo.collection.Collection`. Writes are acknowledged even if the database's write concern is not.
    Those that take ``session`` do what they do in that :class:`~txmongo.sessions.ClientSession`, and the file that they
    open too; it is refused as :class:`GridFSBucket` says.

    Before the first write through one object the bucket's two indexes are made, if it is empty.

    :param database: the :class:`~txmongo.database.Database`.
    :param collection: the bucket: the collection of which ``files`` and ``chunks`` are subcollections.
    :param disable_md5: compute no MD5 while writing.
    :raises TypeError: an argument is not of its type.
    """

    def __init__(self, database: Any, collection: str = "fs", disable_md5: bool = False) -> None:
        if not isinstance(database, Database):
            raise TypeError(f"database must be an instance of Database, not {type(database).__name__}")
        self._bucket = BucketCollections.of(database[collection], disable_md5=disable_md5)

    def indexes_created(self) -> Deferred[list[tuple[bool, str]]]:
        """Make the indexes now, if the bucket is empty and they are not there; else the first write does.

        :returns: a Deferred that fires with ``[(True, name), (True, name)]``, the names of the indexes on files and on
            chunks. It fails as every operation.
        """
        names = [(True, index_name(dict(keys))) for keys in (FILES_INDEX, CHUNKS_INDEX)]
        return self._bucket.indexes.ensure().addCallback(lambda _: names)

    # --- writing ---

    def new_file(self, **kwargs: Any) -> GridIn:
        """A new file to write to. It is there for others once it is closed.

        :param kwargs: fields of the file's document, as :class:`GridIn` takes them.
        :returns: the :class:`GridIn` itself; nothing is sent.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the chunk size is less than one byte.
        """
        return GridIn._in(self._bucket, kwargs.pop("session", None), kwargs)

    def put(self, data: Any, **kwargs: Any) -> Deferred[Any]:
        """Store a file.

        ::

            file_id = await fs.put(b"all of it", filename="small", content_type="text/plain")
            with open("large", "rb") as source:
                await fs.put(source, filename="large")

        :param data: bytes; or a str if ``encoding`` is given; or anything to read from, as :meth:`GridIn.write` says.
        :param kwargs: fields of the file's document, as :class:`GridIn` takes them.
        :returns: a Deferred that fires with the file's ``_id``. It fails as that of :meth:`GridIn.write`. If ``data``
            cannot be read to its end, or the Deferred is cancelled, what was stored is deleted.
        :raises TypeError: an argument is not of its type.
        :raises ValueError: the chunk size is less than one byte.
        """
        check_source(data, kwargs.get("encoding"))
        return Deferred.fromCoroutine(store(self.new_file(**kwargs), data))

    def delete(self, file_id: Any, session: Any = None) -> Deferred[list[tuple[bool, DeleteResult]]]:
        """Delete a file; that there is none is no error. Who is reading it meanwhile finds it corrupt.

        :param file_id: its ``_id``.
        :returns: a Deferred that fires with ``[(True, result), (True, result)]``, the
            :class:`~pymongo.results.DeleteResult` for the file's document and for its chunks. It fails as every
            operation (see the class).
        """
        return Deferred.fromCoroutine(self._delete(file_id, self._bucket.session_for(session)))

    async def _delete(self, file_id: Any, session: Any) -> list[tuple[bool, DeleteResult]]:
        bucket = self._bucket
        times = Times.begin(bucket.files, {})
        # In this order: a file without all its chunks is not to be seen.
        file = await bucket.files.delete_one({"_id": {"$eq": file_id}}, session=session, **times.left())
        chunks = await bucket.chunks.delete_many({"files_id": {"$eq": file_id}}, session=session, **times.left())
        return [(True, file), (True, chunks)]

    # --- reading ---

    def get(self, file_id: Any, session: Any = None) -> Deferred[GridOut]:
        """Open a file.

        :param file_id: its ``_id``.
        :returns: a Deferred that fires with the :class:`GridOut`. It fails with :class:`~txmongo._gridfs.errors.NoFile`
            if there is no such file.
        """
        return self._open({"_id": {"$eq": file_id}}, f"no file in gridfs with _id {file_id!r}", session)

    def get_version(
        self, filename: str | None = None, version: int = -1, session: Any = None, **kwargs: Any
    ) -> Deferred[GridOut]:
        """Open one of the files of a name.

        :param filename: the name; ``None`` for files without one, or with any where ``kwargs`` say which.
        :param version: 0 for the one that was stored first, 1 for the next; -1 for the one that was stored last, -2 for
            the one before.
        :param kwargs: further fields of the file's document, with their values.
        :returns: a Deferred that fires with the :class:`GridOut`. It fails with :class:`~txmongo._gridfs.errors.NoFile`
            if there is no such version.
        :raises TypeError: ``version`` is not an int.
        """
        order, skip = revision_order(version, "version")
        missing = f"no version {version} for filename {filename!r}"
        return self._open(_named(filename, kwargs), missing, session, sort=order, skip=skip)

    def get_last_version(self, filename: str | None = None, session: Any = None, **kwargs: Any) -> Deferred[GridOut]:
        """Open the file of a name that was stored last.

        :param filename: the name; ``None`` as of :meth:`get_version`.
        :param kwargs: further fields of the file's document, with their values.
        :returns: a Deferred that fires with the :class:`GridOut`. It fails with :class:`~txmongo._gridfs.errors.NoFile`
            if there is no file of that name.
        """
        missing = f"no file in gridfs with filename {filename!r}"
        return self._open(_named(filename, kwargs), missing, session, sort=[("uploadDate", -1)])

    def find(self, *args: Any, **kwargs: Any) -> GridOutCursor:
        """Find files.

        :param args: and ``kwargs``: as of :meth:`GridFSBucket.find`.
        :returns: a :class:`GridOutCursor`, which is a Deferred of a list of :class:`GridOut` and more; nothing is sent
            before it is used. It fails as every operation (see the class).
        """
        return GridOutCursor(self._bucket, *args, **kwargs)

    def find_one(self, filter: Any = None, session: Any = None, *args: Any, **kwargs: Any) -> Deferred[GridOut | None]:
        """Find one file.

        :param filter: which one, by the fields of its document; anything but a mapping is taken for an ``_id``.
        :param args: and ``kwargs``: further arguments of :meth:`find`.
        :returns: a Deferred that fires with the :class:`GridOut`, or ``None`` if there is none. It fails as every
            operation (see the class).
        """
        if filter is not None and not isinstance(filter, Mapping):
            filter = {"_id": {"$eq": filter}}
        found = self.find(filter, *args, session=session, **kwargs).limit(-1).to_list()
        return found.addCallback(lambda files: files[0] if files else None)

    def exists(self, document_or_id: Any = None, session: Any = None, **kwargs: Any) -> Deferred[bool]:
        """Whether there is such a file.

        ::

            await fs.exists(file_id)
            await fs.exists({"filename": "small"})
            await fs.exists(filename="small")

        :param document_or_id: an ``_id``, or fields of the file's document as a mapping; any file if neither this nor
            ``kwargs`` are given.
        :param kwargs: fields of the file's document, which then alone count.
        :returns: a Deferred that fires with a bool. It fails as every operation (see the class).
        """
        query = kwargs or ({} if document_or_id is None else document_or_id)
        if not isinstance(query, Mapping):
            query = {"_id": {"$eq": query}}
        found = self._bucket.files.find_one(query, ["_id"], session=self._bucket.session_for(session))
        return found.addCallback(lambda document: document is not None)

    def list(self, session: Any = None) -> Deferred[list[str]]:
        """The names of all files, each once.

        :returns: a Deferred that fires with the list of names. Files without one are not told of. It fails as every
            operation (see the class).
        """
        names = self._bucket.files.distinct("filename", session=self._bucket.session_for(session))
        return names.addCallback(lambda found: [name for name in found if name is not None])

    def count(self, filename: str | None) -> Deferred[int]:
        """How many files of a name there are.

        :param filename: the name.
        :returns: a Deferred that fires with the number. It fails as every operation (see the class).
        """
        return self._bucket.files.count_documents({"filename": filename})

    def _open(self, query: dict[str, Any], missing: str, session: Any, **options: Any) -> Deferred[GridOut]:
        return find_file(self._bucket, query, missing, Times.begin(self._bucket.files, {}), session, **options)


def _named(filename: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The query for the files of a name, of which other fields may be told as well."""
    return fields if fields and filename is None else {**fields, "filename": filename}
