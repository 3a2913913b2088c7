"""What is public, name by name: a change here is a change that users see."""

from __future__ import annotations

import importlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txmongo

ROOT = Path(txmongo.__file__).parent

EXPORTS = {
    "txmongo": {
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
    },
    "txmongo.auth_oidc": {"OIDCCallback", "OIDCCallbackContext", "OIDCCallbackResult", "OIDCIdPInfo"},
    "txmongo.bulk": {
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
    },
    "txmongo.change_stream": {"ChangeStream"},
    "txmongo.collection": {"Collection"},
    "txmongo.connection": {
        "ConnectionPool",
        "MongoConnection",
        "MongoConnectionPool",
        "lazyMongoConnection",
        "lazyMongoConnectionPool",
    },
    "txmongo.cursor": {"CommandCursor", "Cursor", "CursorType", "RawBatchCommandCursor", "RawBatchCursor"},
    "txmongo.database": {"Database"},
    "txmongo.encryption": {
        "Algorithm",
        "AutoEncryptionOpts",
        "ClientEncryption",
        "QueryType",
        "RangeOpts",
        "RewrapManyDataKeyResult",
    },
    "txmongo.errors": {
        "AutoReconnect",
        "BulkWriteError",
        "ClientBulkWriteException",
        "CollectionExists",
        "CollectionInvalid",
        "ConfigurationError",
        "ConnectionFailure",
        "CursorNotFound",
        "DocumentTooLarge",
        "DuplicateKeyError",
        "EncryptedCollectionError",
        "EncryptionError",
        "ExecutionTimeout",
        "InvalidName",
        "InvalidOperation",
        "InvalidURI",
        "NetworkTimeout",
        "NotPrimaryError",
        "OperationFailure",
        "ProtocolError",
        "PyMongoError",
        "ServerSelectionTimeoutError",
        "TimeExceeded",
        "WTimeoutError",
        "WaitQueueTimeoutError",
        "WriteConcernError",
        "WriteError",
        "error_from_reply",
        "write_concern_error_from_reply",
        "write_error_from_reply",
    },
    "txmongo.filter": {
        "ASCENDING",
        "DESCENDING",
        "GEO2D",
        "GEO2DSPHERE",
        "GEOHAYSTACK",
        "TEXT",
        "comment",
        "explain",
        "hint",
        "snapshot",
        "sort",
    },
    "txmongo.gridfs": {
        "CorruptGridFile",
        "FileExists",
        "GridFS",
        "GridFSBucket",
        "GridFSError",
        "GridIn",
        "GridOut",
        "GridOutCursor",
        "GridOutIterator",
        "NoFile",
        "UnsupportedAPI",
        "errors",
        "grid_file",
    },
    "txmongo.protocol": {
        "DEFAULT_MAX_BSON_SIZE",
        "DEFAULT_MAX_MESSAGE_SIZE",
        "DEFAULT_MAX_WRITE_BATCH_SIZE",
        "DELETE_SINGLE_REMOVE",
        "Delete",
        "Getmore",
        "INSERT_CONTINUE_ON_ERROR",
        "INT_MAX",
        "Insert",
        "KillCursors",
        "MongoAuthenticationError",
        "MongoClientProtocol",
        "MongoDecoder",
        "MongoProtocol",
        "MongoReceiverProtocol",
        "MongoSenderProtocol",
        "MongoServerProtocol",
        "Msg",
        "OP_COMPRESSED",
        "OP_DELETE",
        "OP_GETMORE",
        "OP_INSERT",
        "OP_KILL_CURSORS",
        "OP_MSG",
        "OP_MSG_CHECKSUM_PRESENT",
        "OP_MSG_EXHAUST_ALLOWED",
        "OP_MSG_LEGACY",
        "OP_MSG_MORE_TO_COME",
        "OP_NAMES",
        "OP_QUERY",
        "OP_REPLY",
        "OP_UPDATE",
        "QUERY_AWAIT_DATA",
        "QUERY_EXHAUST",
        "QUERY_NO_CURSOR_TIMEOUT",
        "QUERY_OPLOG_REPLAY",
        "QUERY_PARTIAL",
        "QUERY_SLAVE_OK",
        "QUERY_TAILABLE_CURSOR",
        "Query",
        "REPLY_AWAIT_CAPABLE",
        "REPLY_CURSOR_NOT_FOUND",
        "REPLY_QUERY_FAILURE",
        "REPLY_SHARD_CONFIG_STALE",
        "Reply",
        "UPDATE_MULTI",
        "UPDATE_UPSERT",
        "BaseMessage",
        "Update",
    },
    "txmongo.sessions": {
        "BindingContext",
        "ClientSession",
        "SessionOptions",
        "TransactionContext",
        "TransactionOptions",
        "TransactionState",
        "TxnState",
    },
    "txmongo.testing": {
        "Answer",
        "Behaviour",
        "CertificateAuthority",
        "Direction",
        "FakeServer",
        "FaultProxy",
        "HELLO",
        "Mongod",
        "MongodFailed",
        "MongodNotFound",
        "NotInTime",
        "ReceivedCommand",
        "ReplicaSet",
        "TLSFiles",
        "find_mongod",
    },
    "txmongo.types": {"Address", "Document", "DocumentIn", "DocumentType", "IndexKeys", "Pipeline"},
    "txmongo.utils": {"check_deadline", "get_err", "timeout"},
}


def public_modules() -> set[str]:
    """Every module that no part of whose name starts with an underscore."""
    found = {"txmongo"}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            found.add(".".join(("txmongo", *parts)))
    return found


class ExportsTests(SynchronousTestCase):
    """``__all__`` of every public module."""

    def test_modules(self) -> None:
        """Every public module is listed here."""
        self.assertEqual(public_modules(), set(EXPORTS))

    def test_names(self) -> None:
        """Each offers exactly what is listed here, once."""
        for name, expected in EXPORTS.items():
            offered = importlib.import_module(name).__all__
            self.assertEqual(set(offered), expected, name)
            self.assertEqual(len(offered), len(expected), name)

    def test_pages(self) -> None:
        """Each has its page in the reference, and the index leads there."""
        reference = ROOT.parent / "docs" / "api"
        listed = set((reference / "index.rst").read_text().split())
        for name in set(EXPORTS) - {"txmongo"}:
            page = name.removeprefix("txmongo.")
            self.assertIn(f".. automodule:: {name}\n", (reference / f"{page}.rst").read_text())
            self.assertIn(page, listed)

    def test_there(self) -> None:
        """What is offered is there."""
        for name, expected in EXPORTS.items():
            module = importlib.import_module(name)
            self.assertEqual([missing for missing in sorted(expected) if not hasattr(module, missing)], [], name)
