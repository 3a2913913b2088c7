"""The MongoDB driver for Twisted.

The usual way in is :class:`~txmongo.connection.ConnectionPool`. Importing this package makes its public modules
reachable and installs no reactor.
"""

from __future__ import annotations

from txmongo import (
    bulk,
    change_stream,
    collection,
    connection,
    cursor,
    database,
    errors,
    filter,
    gridfs,
    protocol,
    types,
    utils,
)
from txmongo._version import __version__
from txmongo.change_stream import ChangeStream
from txmongo.collection import Collection
from txmongo.connection import (
    ConnectionPool,
    MongoConnection,
    MongoConnectionPool,
    lazyMongoConnection,
    lazyMongoConnectionPool,
)
from txmongo.cursor import CommandCursor, Cursor
from txmongo.database import Database
from txmongo.protocol import MongoProtocol, Query

__all__ = [
    "ChangeStream",
    "Collection",
    "CommandCursor",
    "ConnectionPool",
    "Cursor",
    "Database",
    "MongoConnection",
    "MongoConnectionPool",
    "MongoProtocol",
    "Query",
    "__version__",
    "bulk",
    "change_stream",
    "collection",
    "connection",
    "cursor",
    "database",
    "errors",
    "filter",
    "gridfs",
    "lazyMongoConnection",
    "lazyMongoConnectionPool",
    "protocol",
    "types",
    "utils",
]
