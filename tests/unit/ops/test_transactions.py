"""``txmongo._ops.transactions``: the commands at the end of transactions and sessions."""

from __future__ import annotations

from typing import Any

from bson.int64 import Int64
from bson.min_key import MinKey
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import RetryKind
from txmongo._ops.transactions import (
    NO_SESSION,
    AbortNumbered,
    AbortTransaction,
    CommitTransaction,
    EndSessions,
    Supersede,
)
from txmongo.errors import WriteConcernError

SERVER = StreamDescription()
CONTEXT: Any = None


class EndingTests(SynchronousTestCase):
    """commitTransaction, abortTransaction, endSessions."""

    def test_commit(self) -> None:
        """A commit goes to the admin database, with a time limit if there is one."""
        commit = CommitTransaction("session", WriteConcern(w=2))
        self.assertEqual((commit.database, commit.session, commit.retry), ("admin", "session", RetryKind.WRITE))
        self.assertEqual(commit.service_class, "commitTransaction:2")
        self.assertEqual(commit.build(SERVER), {"commitTransaction": 1})
        limited = CommitTransaction("session", WriteConcern(), 500)
        self.assertEqual(limited.build(SERVER), {"commitTransaction": 1, "maxTimeMS": 500})

    def test_commit_reply(self) -> None:
        """A guarantee that the server could not give is an error."""
        commit = CommitTransaction("session", WriteConcern())
        commit.parse({"ok": 1}, CONTEXT)
        reply = {"ok": 1, "writeConcernError": {"code": 100, "errmsg": "no"}}
        self.assertRaises(WriteConcernError, commit.parse, reply, CONTEXT)

    def test_abort(self) -> None:
        """An abort asks for nothing; that other members do not know of it is an error, as it may be told again."""
        abort = AbortTransaction("session", WriteConcern())
        self.assertEqual((abort.database, abort.session, abort.retry), ("admin", "session", RetryKind.WRITE))
        self.assertEqual(abort.build(SERVER), {"abortTransaction": 1})
        abort.parse({"ok": 1}, CONTEXT)
        reply = {"ok": 1, "writeConcernError": {"code": 64, "errmsg": "x", "errorLabels": ["RetryableWriteError"]}}
        self.assertRaises(WriteConcernError, abort.parse, reply, CONTEXT)

    def test_supersede(self) -> None:
        """A transaction is superseded by a later one, which reads nothing and is aborted, at the same server."""
        lsid, number, address = {"id": 1}, Int64(5), ("a", 27017)
        fields = {"lsid": lsid, "txnNumber": 5, "autocommit": False}
        begin = Supersede(("db", "things"), lsid, number, address)
        abort = AbortNumbered(lsid, number, address)
        command = begin.build(SERVER)
        self.assertEqual((command.pop("find"), command.pop("filter")), ("things", {"_id": MinKey()}))
        self.assertEqual(command, {"limit": 1, "singleBatch": True, "startTransaction": True, **fields})
        self.assertEqual(abort.build(SERVER), {"abortTransaction": 1, **fields})
        self.assertEqual((begin.database, abort.database), ("db", "admin"))
        for operation in (begin, abort):
            self.assertEqual((operation.session, operation.address), (NO_SESSION, address))
            self.assertIs(operation.retry, RetryKind.NEVER)
            operation.parse({"ok": 1}, CONTEXT)

    def test_end_sessions(self) -> None:
        """endSessions names the sessions, without one of its own, to the primary if there is one."""
        end = EndSessions([{"id": 1}])
        self.assertIs(end.session, NO_SESSION)
        self.assertEqual(repr(NO_SESSION), "NO_SESSION")
        self.assertIs(end.read_preference, ReadPreference.PRIMARY_PREFERRED)
        self.assertEqual((end.database, end.retry), ("admin", RetryKind.NEVER))
        self.assertEqual(end.build(SERVER), {"endSessions": [{"id": 1}]})
        end.parse({"ok": 1}, CONTEXT)
