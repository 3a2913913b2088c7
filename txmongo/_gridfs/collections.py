"""A bucket as its files see it: two collections, with the options that GridFS needs, and the state of their indexes."""

from __future__ import annotations

from typing import Any

import attrs
from pymongo.write_concern import WriteConcern

from txmongo._gridfs.indexes import BucketIndexes
from txmongo._ops.client_sessions import check_session
from txmongo.collection import Collection
from txmongo.errors import InvalidOperation

__all__ = ["BucketCollections"]


@attrs.frozen
class BucketCollections:
    """The collections of one bucket.

    :ivar disable_md5: no MD5 is computed unless a file asks for it.
    """

    files: Collection[Any]
    chunks: Collection[Any]
    indexes: BucketIndexes
    disable_md5: bool

    @classmethod
    def of(cls, root_collection: Any, *, disable_md5: bool = False) -> BucketCollections:
        """Those below a root collection.

        Chunks are plain dicts whatever the application wants its documents to be, and no type codec touches either.
        Writes are acknowledged: an unacknowledged one cannot tell that it failed, nor when there is room for more.

        :raises TypeError: it is no :class:`~txmongo.collection.Collection`.
        """
        if not isinstance(root_collection, Collection):
            raise TypeError(f"root_collection must be an instance of Collection, not {type(root_collection).__name__}")
        write_concern = root_collection.write_concern
        if not write_concern.acknowledged:
            write_concern = WriteConcern(w=1)
        options = root_collection.codec_options.with_options(type_registry=None)
        files = root_collection.files.with_options(options, write_concern=write_concern)
        chunks = root_collection.chunks.with_options(
            options.with_options(document_class=dict), write_concern=write_concern
        )
        return cls(files, chunks, BucketIndexes(files, chunks), disable_md5)

    def session_for(self, session: Any) -> Any:
        """The ``session`` argument of a call, or else the session that is bound.

        :raises ValueError: it is no session.
        :raises InvalidOperation: it has ended, is another client's, or is in a transaction.
        """
        sessions = self.files.database.client._executor.sessions
        session = sessions.bound(session)
        check_session(session, sessions)
        if session is not None and session.in_transaction:
            raise InvalidOperation("GridFS does not support multi-document transactions")
        return session
