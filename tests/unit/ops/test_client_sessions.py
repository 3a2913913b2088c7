"""``txmongo._ops.client_sessions`` and ``session_state``: what sessions put into commands, and when they are free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference, Secondary
from pymongo.server_type import SERVER_TYPE
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation, ReplyContext, RetryKind
from txmongo._ops.client_sessions import Sessions, check_session, effective_write_concern, in_transaction
from txmongo._ops.cursors import GetMore
from txmongo._ops.run_command import RunCommand
from txmongo._ops.search_indexes import CreateSearchIndexes, ListSearchIndexes
from txmongo._ops.session_state import SessionState, SessionUse
from txmongo._ops.transaction_state import Settled, TransactionState
from txmongo._ops.transactions import AbortTransaction, CommitTransaction, EndSessions
from txmongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidOperation,
    OperationFailure,
    WriteConcernError,
    error_from_reply,
)

A, B = ("a", 27017), ("b", 27017)


class Sample(Operation[Any]):
    """An operation that the tests set up."""

    __slots__ = ()
    name = "sample"

    def build(self, description: StreamDescription) -> dict[str, Any]:
        return {self.name: 1}

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> Any:
        return reply


class Find(Sample):
    """A read."""

    __slots__ = ()
    name = "find"
    retry = RetryKind.READ
    sends_read_preference = True


class Insert(Sample):
    """A retryable write."""

    __slots__ = ()
    name = "insert"
    retry = RetryKind.WRITE


class ListCollections(Sample):
    """A read that does not wait for a cluster time."""

    __slots__ = ()
    name = "listCollections"
    retry = RetryKind.READ


def server(kind: int = SERVER_TYPE.RSPrimary, **fields: Any) -> StreamDescription:
    """A connection's description."""
    return StreamDescription(
        **{"server_type": kind, "max_wire_version": 17, "logical_session_timeout_minutes": 30, **fields}
    )


def cluster_time(seconds: int) -> dict[str, Any]:
    """A ``$clusterTime`` document."""
    return {"clusterTime": Timestamp(seconds, 1), "signature": {"hash": b"", "keyId": 0}}


def failure(*labels: str, **fields: Any) -> OperationFailure:
    """An answer of the server that is an error."""
    error = error_from_reply({"ok": 0, "code": 1, "errmsg": "no", "errorLabels": list(labels), **fields})
    assert isinstance(error, OperationFailure)
    return error


class SessionsTestCase(SynchronousTestCase):
    """A client's sessions on a fake clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.sessions = Sessions(self.clock.seconds)
        self.command: dict[str, Any] = {}

    def session(self, *, causal: bool = True, snapshot: bool = False) -> SessionState:
        """A session of an application."""
        return SessionState(self.sessions, self.sessions.pool, causally_consistent=causal, reads_snapshot=snapshot)

    def begin(
        self,
        operation: Operation[Any],
        use: SessionUse | None = None,
        description: StreamDescription | None = None,
        address: tuple[str, int] = A,
        **fields: Any,
    ) -> SessionUse | None:
        """Begin an attempt; the command is :attr:`command`."""
        if operation.session is not None:
            self.sessions.route(operation)
        self.command = {operation.name: 1, **fields}
        return self.sessions.begin(operation, self.command, description or server(), address, use)

    def must_begin(self, operation: Operation[Any], use: SessionUse | None = None, **options: Any) -> SessionUse:
        """Begin an attempt that uses a session."""
        begun = self.begin(operation, use, **options)
        assert begun is not None
        return begun

    def run_through(self, operation: Operation[Any], reply: Mapping[str, Any] | None = None, **fields: Any) -> None:
        """An operation from its beginning to its end."""
        use = self.must_begin(operation, **fields)
        self.sessions.answered(use, reply or {"ok": 1})
        self.sessions.end(use)

    def started(self, session: SessionState | None = None, **options: Any) -> SessionState:
        """A session with a transaction that was started."""
        session = session or self.session()
        session.transaction.start(Settled(**options), session.server_session().next_txn_number())
        return session

    def under_way(self, **options: Any) -> SessionState:
        """A session with a transaction whose first command was answered."""
        session = self.started(**options)
        self.run_through(Insert("db", session=session))
        return session


class ImplicitTests(SessionsTestCase):
    """Operations without a session of the application's."""

    def test_read(self) -> None:
        """A read carries the id of a session, which is free again at its end, for the next."""
        use = self.must_begin(Find("db"))
        self.assertEqual(self.command, {"find": 1, "lsid": use.server_session.lsid})
        self.assertEqual(self.sessions.pool.in_use, 1)
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 1))
        self.assertIs(self.must_begin(Find("db")).server_session, use.server_session)

    def test_write(self) -> None:
        """A retryable write also carries a number that was never used with it."""
        self.run_through(Insert("db"))
        self.assertEqual(self.command["txnNumber"], 1)
        self.assertIsInstance(self.command["txnNumber"], Int64)
        self.run_through(Insert("db"))
        self.assertEqual(self.command["txnNumber"], 2)

    def test_no_number(self) -> None:
        """No number goes to a standalone, with retryWrites off, or with what is not retryable."""
        self.run_through(Insert("db"), description=server(SERVER_TYPE.Standalone))
        self.assertEqual(sorted(self.command), ["insert", "lsid"])
        self.run_through(Sample("db"))
        self.assertNotIn("txnNumber", self.command)
        self.sessions = Sessions(self.clock.seconds, retry_writes=False)
        self.run_through(Insert("db"))
        self.assertNotIn("txnNumber", self.command)

    def test_no_session(self) -> None:
        """No session is used by unacknowledged writes and by servers without; the cluster time goes along anyway."""
        self.sessions.cluster_clock.advance(cluster_time(5))
        for operation, description in (
            (Insert("db", acknowledged=False), server()),
            (Insert("db"), server(logical_session_timeout_minutes=None)),
        ):
            self.assertIsNone(self.begin(operation, description=description))
            self.assertEqual(self.command, {"insert": 1, "$clusterTime": cluster_time(5)})
        self.assertEqual(self.sessions.pool.in_use, 0)

    def test_end_sessions(self) -> None:
        """endSessions takes no session to tell of those that end."""
        self.assertIsNone(self.begin(EndSessions([])))
        self.assertEqual(self.command, {"endSessions": 1})
        self.sessions.failed(EndSessions([]), None, AutoReconnect("gone"))
        self.sessions.end(None)

    def test_load_balancer(self) -> None:
        """Behind a load balancer sessions do not grow old."""
        description = server(SERVER_TYPE.Mongos, load_balanced=True)
        use = self.must_begin(Find("db"), description=description)
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        self.clock.advance(1e6)
        self.assertIs(self.must_begin(Find("db"), description=description).server_session, use.server_session)

    def test_retry(self) -> None:
        """A retry carries the same id and number; as the first command may still run, the session is then forgotten."""
        operation = Insert("db")
        use = self.must_begin(operation)
        first = self.command
        self.sessions.failed(operation, use, AutoReconnect("lost"))
        self.clock.advance(1)
        self.assertIs(self.must_begin(operation, use), use)
        self.assertEqual(self.command, first)
        self.assertEqual(use.server_session.last_used, self.clock.seconds())
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        self.assertTrue(use.server_session.dirty)
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 0))

    def test_answered_error(self) -> None:
        """An error that the server answered leaves the session clean."""
        operation = Insert("db")
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, failure())
        self.sessions.end(use)
        self.assertEqual(len(self.sessions.pool), 1)

    def test_error_in_reply(self) -> None:
        """So does one that is found in a reply with ok: 1."""
        operation = Insert("db")
        use = self.must_begin(operation)
        self.sessions.answered(use, {"ok": 1, "writeErrors": [{}]})
        self.sessions.failed(operation, use, WriteConcernError("late", 64, {"code": 64}))
        self.sessions.end(use)
        self.assertEqual(len(self.sessions.pool), 1)

    def test_cancelled(self) -> None:
        """A session whose command was cancelled in flight is forgotten."""
        operation = Find("db")
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, CancelledError())
        self.sessions.end(use)
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 0))

    def test_cancelled_between_attempts(self) -> None:
        """What was not in flight leaves the session clean."""
        operation = Find("db")
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, failure())
        self.sessions.failed(operation, use, CancelledError())
        self.sessions.end(use)
        self.assertEqual(len(self.sessions.pool), 1)

    def test_second_copy(self) -> None:
        """While the answer to one of two copies is still to come, the session is not used for anything else."""
        operation = Insert("db")
        use = self.must_begin(operation)
        self.must_begin(operation, use)
        self.assertIn("2 in flight", repr(use))
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 0))

    def test_unsent(self) -> None:
        """A command that was not sent leaves the session clean."""
        use = self.must_begin(Insert("db"))
        self.sessions.unsent(use)
        self.sessions.end(use)
        self.assertEqual(len(self.sessions.pool), 1)
        self.sessions.unsent(None)

    def test_cursor(self) -> None:
        """A cursor keeps the session for its getMores until it is released, once."""
        use = self.must_begin(Find("db"))
        self.sessions.answered(use, {"ok": 1})
        kept = use.keep()
        self.sessions.end(use)
        self.assertEqual(self.sessions.pool.in_use, 1)
        more = GetMore("db", "c", 1, A, CodecOptions(), session=kept)
        self.assertEqual(self.sessions.route(more), (ReadPreference.PRIMARY, A))
        again = self.must_begin(more)
        self.assertEqual(self.command["lsid"], use.server_session.lsid)
        self.sessions.answered(again, {"ok": 1})
        self.sessions.end(again)
        self.assertEqual(self.sessions.pool.in_use, 1)
        kept.release()
        kept.release()
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 1))

    def test_cursor_cancelled(self) -> None:
        """Released while a getMore is in flight, it is forgotten."""
        use = self.must_begin(Find("db"))
        self.sessions.answered(use, {"ok": 1})
        kept = use.keep()
        self.must_begin(GetMore("db", "c", 1, A, CodecOptions(), session=kept))
        kept.release()
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 0))


class GossipTests(SessionsTestCase):
    """The cluster time."""

    def test_passed_on(self) -> None:
        """The highest time in any reply, an error's included, goes with the next command."""
        self.run_through(Find("db"), {"ok": 1, "$clusterTime": cluster_time(5)})
        self.run_through(Find("db"), {"ok": 1})
        self.assertEqual(self.command["$clusterTime"], cluster_time(5))
        operation = Find("db")
        use = self.must_begin(operation)
        error = failure(**{"$clusterTime": cluster_time(7)})
        self.sessions.failed(operation, use, error)
        self.run_through(Find("db"))
        self.assertEqual(self.command["$clusterTime"], cluster_time(7))
        self.assertIn("7:1", repr(self.sessions))

    def test_session_ahead(self) -> None:
        """A session that is ahead of the client sends its own time, and tells nobody else."""
        session = self.session()
        session.learn({"$clusterTime": cluster_time(9)})
        self.sessions.cluster_clock.advance(cluster_time(5))
        self.run_through(Find("db", session=session))
        self.assertEqual(self.command["$clusterTime"], cluster_time(9))
        self.run_through(Find("db"), {"ok": 1, "$clusterTime": cluster_time(6)})
        self.assertEqual(self.command["$clusterTime"], cluster_time(5))
        self.run_through(Find("db", session=session), {"ok": 1, "$clusterTime": cluster_time(10)})
        self.assertEqual(session.cluster_time, cluster_time(10))


class ExplicitTests(SessionsTestCase):
    """Operations with a session of the application's."""

    def test_same_session(self) -> None:
        """All its operations carry one id; the server's session comes back at its end."""
        session = self.session()
        self.run_through(Insert("db", session=session))
        first = self.command
        self.run_through(Insert("db", session=session))
        self.assertEqual((first["lsid"], first["txnNumber"]), (self.command["lsid"], 1))
        self.assertEqual(self.command["txnNumber"], 2)
        self.assertEqual(self.sessions.pool.in_use, 1)
        session.finish()
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 1))

    def test_never_used(self) -> None:
        """One that was never used has nothing to give back."""
        self.session().finish()
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 0))

    def test_number_of_each_operation(self) -> None:
        """A retry carries its operation's own number, even if another operation came in between."""
        session = self.session()
        one, two = Insert("db", session=session), Insert("db", session=session)
        use = self.must_begin(one)
        self.must_begin(two)
        self.sessions.failed(one, use, AutoReconnect("lost"))
        self.must_begin(one, use)
        self.assertEqual(self.command["txnNumber"], 1)

    def test_ended_while_under_way(self) -> None:
        """Ended with an operation under way, the server's session comes back with that operation's end."""
        session = self.session()
        use = self.must_begin(Find("db", session=session))
        session.finish()
        self.assertEqual(self.sessions.pool.in_use, 1)
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        self.assertEqual((self.sessions.pool.in_use, len(self.sessions.pool)), (0, 1))

    def test_dirty_at_once(self) -> None:
        """A lost connection makes it dirty at once and for good."""
        session = self.session()
        operation = Find("db", session=session)
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, AutoReconnect("lost"))
        self.assertTrue(session.server_session().dirty)
        self.must_begin(operation, use)
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        session.finish()
        self.assertEqual(len(self.sessions.pool), 0)

    def test_unanswered_copy(self) -> None:
        """So does the end of an operation one of whose copies was not answered."""
        session = self.session()
        operation = Find("db", session=session)
        use = self.must_begin(operation)
        self.must_begin(operation, use)
        self.sessions.answered(use, {"ok": 1})
        self.sessions.end(use)
        self.assertTrue(session.server_session().dirty)

    def test_cursor(self) -> None:
        """The cursor of an explicit session goes on with that session."""
        session = self.session()
        use = self.must_begin(Find("db", session=session))
        self.assertIs(use.keep(), session)
        self.assertFalse(use.kept)

    def test_selection_failed(self) -> None:
        """What fails before it has a connection leaves it clean."""
        session = self.session()
        self.sessions.failed(Find("db", session=session), None, AutoReconnect("no server"))
        self.assertFalse(session.server_session().dirty)

    def test_refused(self) -> None:
        """An ended session and another client's are refused, at the call and later."""
        ended, foreign = self.session(), Sessions(self.clock.seconds)
        ended.finish()
        for sessions, session, text in ((self.sessions, ended, "ended"), (foreign, self.session(), "client")):
            operation = Find("db", session=session)
            for call in (
                lambda sessions=sessions, session=session: check_session(session, sessions),
                lambda sessions=sessions, operation=operation: sessions.route(operation),
                lambda sessions=sessions, operation=operation: sessions.begin(operation, {}, server(), A),
            ):
                self.assertIn(text, str(self.assertRaises(InvalidOperation, call)))

    def test_not_supported(self) -> None:
        """A server without sessions is an error with a session of the application's."""
        operation = Find("db", session=self.session())
        description = server(logical_session_timeout_minutes=None)
        error = self.assertRaises(ConfigurationError, self.begin, operation, description=description)
        self.assertIn("Sessions are not supported by this MongoDB deployment", str(error))

    def test_check_session(self) -> None:
        """No session and a usable one pass; other things do not, nor does a session with an unacknowledged write."""
        session = self.session()
        check_session(None, self.sessions)
        check_session(None, self.sessions, False)
        check_session(session, self.sessions)
        self.assertRaises(ValueError, check_session, object(), self.sessions)
        self.assertRaises(ValueError, check_session, session, self.sessions, False)
        check_session(self.started(session), self.sessions, False)

    def test_write_concern(self) -> None:
        """An operation has its own write concern but in a transaction."""
        session, w0 = self.session(), WriteConcern(w=0)
        self.assertIs(effective_write_concern(None, w0), w0)
        self.assertIs(effective_write_concern(session, w0), w0)
        self.assertTrue(effective_write_concern(self.started(session), w0).acknowledged)

    def test_load_balancer(self) -> None:
        """Behind a load balancer its server's session does not grow old."""
        session = self.session()
        self.run_through(Find("db", session=session), description=server(load_balanced=True))
        self.assertEqual(self.sessions.pool._timeout_minutes, math.inf)


class CausalTests(SessionsTestCase):
    """Causal consistency."""

    def setUp(self) -> None:
        super().setUp()
        self.seen = self.session()
        self.run_through(Insert("db", session=self.seen), {"ok": 1, "operationTime": Timestamp(5, 1)})

    def read_concern(self, operation: Operation[Any], **options: Any) -> Any:
        """The read concern that an operation is sent with."""
        self.run_through(operation, **options)
        return self.command.get("readConcern")

    def test_first(self) -> None:
        """The first operation waits for nothing."""
        self.assertNotIn("readConcern", self.command)

    def test_waits(self) -> None:
        """Reads and writes then wait for what was seen, beside the level of their own."""
        after = {"afterClusterTime": Timestamp(5, 1)}
        self.assertEqual(self.read_concern(Find("db", session=self.seen)), after)
        self.assertEqual(self.read_concern(Insert("db", session=self.seen)), after)
        given = {"level": "majority"}
        self.assertEqual(self.read_concern(Find("db", session=self.seen), readConcern=given), {**given, **after})
        self.assertEqual(given, {"level": "majority"})

    def test_other_commands(self) -> None:
        """What cannot wait, and what the application wrote, is sent as it is."""
        for operation in (
            ListCollections("db", session=self.seen),
            RunCommand("db", {"find": "c"}, session=self.seen),
            GetMore("db", "c", 1, A, CodecOptions(), session=self.seen),
            CreateSearchIndexes("db", "c", {"indexes": []}, session=self.seen),
            ListSearchIndexes("db", "c", None, {}, session=self.seen),
        ):
            self.assertIsNone(self.read_concern(operation))

    def test_not_wanted(self) -> None:
        """Nothing waits in a session that is not causally consistent, or at a standalone."""
        self.assertIsNone(self.read_concern(Find("db", session=self.seen), description=server(SERVER_TYPE.Standalone)))
        session = self.session(causal=False)
        session.learn({"operationTime": Timestamp(5, 1)})
        self.assertIsNone(self.read_concern(Find("db", session=session)))

    def test_latest(self) -> None:
        """The latest time counts, an error's included, and what is no time does not."""
        operation = Find("db", session=self.seen)
        for time in (Timestamp(4, 1), "nonsense"):
            self.run_through(operation, {"ok": 1, "operationTime": time})
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, failure(operationTime=Timestamp(6, 1)))
        self.sessions.end(use)
        self.assertEqual(self.read_concern(operation), {"afterClusterTime": Timestamp(6, 1)})


class SnapshotTests(SessionsTestCase):
    """Snapshot reads."""

    def test_first_read_sets_the_time(self) -> None:
        """The time of the first find or aggregate is that of all that follow."""
        session = self.session(causal=False, snapshot=True)
        reply = {"ok": 1, "cursor": {"id": 0, "atClusterTime": Timestamp(5, 1)}, "operationTime": Timestamp(9, 1)}
        self.run_through(Find("db", session=session), reply, readConcern={"level": "majority"})
        self.assertEqual(self.command["readConcern"], {"level": "snapshot"})
        self.run_through(Find("db", session=session), {"ok": 1, "cursor": {"atClusterTime": Timestamp(7, 1)}})
        expected = {"level": "snapshot", "atClusterTime": Timestamp(5, 1)}
        self.assertEqual(self.command["readConcern"], expected)
        self.run_through(Insert("db", session=session))
        self.assertEqual(self.command["readConcern"], expected)
        self.run_through(RunCommand("db", {"listCollections": 1}, session=session))
        self.assertEqual(self.command["readConcern"], expected)

    def test_distinct(self) -> None:
        """A distinct tells it beside its values."""
        session = self.session(causal=False, snapshot=True)
        self.run_through(Find("db", session=session), {"ok": 1, "values": []})
        self.run_through(Find("db", session=session), {"ok": 1, "atClusterTime": Timestamp(5, 1)})
        self.run_through(Find("db", session=session))
        self.assertEqual(self.command["readConcern"]["atClusterTime"], Timestamp(5, 1))

    def test_get_more(self) -> None:
        """A getMore reads what its cursor reads."""
        session = self.session(causal=False, snapshot=True)
        self.run_through(GetMore("db", "c", 1, A, CodecOptions(), session=session))
        self.assertNotIn("readConcern", self.command)

    def test_old_server(self) -> None:
        """A server before 5.0 is an error, and nothing is sent."""
        operation = Find("db", session=self.session(snapshot=True))
        error = self.assertRaises(ConfigurationError, self.begin, operation, description=server(max_wire_version=12))
        self.assertIn("Snapshot reads require MongoDB 5.0 or later", str(error))


class TransactionTests(SessionsTestCase):
    """The commands of a transaction."""

    def test_fields(self) -> None:
        """The first command starts it, each carries its number, none a concern of its own."""
        session = self.started(read_concern=ReadConcern("snapshot"))
        concerns = {"writeConcern": {"w": 2}, "readConcern": {"level": "majority"}}
        self.run_through(Insert("db", session=session), **concerns)
        self.assertEqual(
            self.command,
            {
                "insert": 1,
                "lsid": session.server_session().lsid,
                "txnNumber": 1,
                "autocommit": False,
                "startTransaction": True,
                "readConcern": {"level": "snapshot"},
            },
        )
        self.run_through(Find("db", session=session), **concerns)
        self.assertEqual(
            self.command, {"find": 1, "lsid": session.server_session().lsid, "txnNumber": 1, "autocommit": False}
        )

    def test_default_read_concern(self) -> None:
        """Without a read concern of its own the first command carries none, whatever the collection's is."""
        self.run_through(Find("db", session=self.started()), readConcern={"level": "majority"})
        self.assertNotIn("readConcern", self.command)

    def test_causal(self) -> None:
        """The first command waits for what the session has seen, a write and one of any kind too; later ones do not."""
        session = self.session()
        session.learn({"operationTime": Timestamp(5, 1)})
        self.started(session, read_concern=ReadConcern("local"))
        self.run_through(ListCollections("db", session=session))
        self.assertEqual(self.command["readConcern"], {"level": "local", "afterClusterTime": Timestamp(5, 1)})
        self.run_through(Find("db", session=session))
        self.assertNotIn("readConcern", self.command)

    def test_written_command(self) -> None:
        """In a command that the application wrote nothing is changed."""
        session = self.started(read_concern=ReadConcern("snapshot"))
        operation = RunCommand("db", {"insert": "c"}, session=session)
        self.run_through(operation, writeConcern={"w": 1}, readConcern={"level": "local"})
        self.assertEqual((self.command["writeConcern"], self.command["readConcern"]), ({"w": 1}, {"level": "local"}))
        self.run_through(operation, readConcern={"level": "local"})
        self.assertEqual(self.command["readConcern"], {"level": "local"})
        self.run_through(RunCommand("db", {"insert": "c"}, session=self.started(read_concern=ReadConcern("local"))))
        self.assertEqual(self.command["readConcern"], {"level": "local"})

    def test_not_sent(self) -> None:
        """A first command that was not sent leaves it as it was; a later one too."""
        session = self.started()
        for state in (TransactionState.STARTING, TransactionState.IN_PROGRESS):
            use = self.must_begin(Insert("db", session=session))
            self.sessions.unsent(use)
            self.sessions.end(use)
            self.assertIs(session.transaction.state, state)
            self.run_through(Insert("db", session=session))

    def test_first_again(self) -> None:
        """The first command, sent again because of overload, is still the first."""
        session = self.started()
        operation = Insert("db", session=session)
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, failure("SystemOverloadedError", "RetryableError"))
        self.must_begin(operation, use)
        self.assertEqual((self.command["startTransaction"], self.command["txnNumber"]), (True, 1))
        self.assertIs(session.transaction.state, TransactionState.IN_PROGRESS)

    def test_failed(self) -> None:
        """A command that fails at the server is part of it as well."""
        session = self.started()
        operation = Insert("db", session=session)
        use = self.must_begin(operation)
        self.sessions.failed(operation, use, failure())
        self.sessions.end(use)
        self.assertIs(session.transaction.state, TransactionState.IN_PROGRESS)

    def test_in_transaction(self) -> None:
        """What belongs to one and what does not."""
        session = self.started()
        self.assertTrue(in_transaction(Insert("db", session=session)))
        self.assertFalse(in_transaction(Insert("db")))
        self.assertFalse(in_transaction(CommitTransaction(session, WriteConcern())))
        session.transaction.abort()
        self.assertFalse(in_transaction(Insert("db", session=session)))

    def test_afterwards(self) -> None:
        """After its end the next operation is outside of it, and a retryable write again."""
        session = self.under_way()
        session.transaction.commit()
        self.run_through(Insert("db", session=session))
        self.assertEqual(sorted(self.command), ["insert", "lsid", "txnNumber"])
        self.assertEqual(self.command["txnNumber"], 2)
        self.assertIs(session.transaction.state, TransactionState.NONE)


class RouteTests(SessionsTestCase):
    """Which server is asked."""

    def test_without_transaction(self) -> None:
        """Without a transaction an operation is sent where it says."""
        secondary = Secondary()
        for session in (None, self.session()):
            operation = Find("db", session=session, read_preference=secondary, address=B)
            self.assertEqual(self.sessions.route(operation), (secondary, B))
        self.assertEqual(self.sessions.route(EndSessions([]))[1], None)

    def test_reads(self) -> None:
        """The transaction's read preference takes the place of a read's own."""
        session = self.started()
        operation = Find("db", session=session, read_preference=Secondary())
        self.assertEqual(self.sessions.route(operation), (ReadPreference.PRIMARY, None))

    def test_not_primary(self) -> None:
        """A read in a transaction that prefers others than the primary is refused; a write is not."""
        session = self.started(read_preference=Secondary())
        for operation in (Find("db", session=session), RunCommand("db", {"find": "c"}, session=session)):
            error = self.assertRaises(InvalidOperation, self.sessions.route, operation)
            self.assertIn("read preference in a transaction must be primary", str(error))
        self.sessions.route(Insert("db", session=session))

    def test_written_command(self) -> None:
        """A read preference that came with a written command itself is not overridden."""
        session = self.started()
        operation = RunCommand("db", {"find": "c"}, session=session, read_preference=Secondary())
        self.assertRaises(InvalidOperation, self.sessions.route, operation)

    def test_pinned(self) -> None:
        """At a mongos all commands of a transaction go where the first went, until its session does other things."""
        mongos = server(SERVER_TYPE.Mongos)
        session = self.started()
        self.run_through(Insert("db", session=session), description=mongos, address=B)
        self.assertEqual(self.sessions.route(Insert("db", session=session))[1], B)
        self.run_through(Insert("db", session=session), description=mongos, address=A)
        self.assertEqual(session.transaction.pinned_address, B)
        session.transaction.commit()
        commit = CommitTransaction(session, WriteConcern())
        self.assertEqual(self.sessions.route(commit), (ReadPreference.PRIMARY, B))
        self.sessions.route(Find("db", session=session))
        self.assertIsNone(session.transaction.pinned_address)

    def test_not_pinned(self) -> None:
        """Nothing is pinned at a replica set, by a load balancer's connection, or by the commit itself."""
        for description in (server(), server(SERVER_TYPE.Mongos, load_balanced=True)):
            session = self.started()
            self.run_through(Insert("db", session=session), description=description)
            self.assertIsNone(session.transaction.pinned_address)
        session.transaction.commit()
        self.run_through(CommitTransaction(session, WriteConcern()), description=server(SERVER_TYPE.Mongos))
        self.assertIsNone(session.transaction.pinned_address)


class EndTests(SessionsTestCase):
    """Commit and abort."""

    def commit(self, session: SessionState, **options: Any) -> Operation[Any]:
        """Commit and begin the command."""
        session.transaction.commit()
        return CommitTransaction(session, session.transaction.options.write_concern, **options)

    def test_commit(self) -> None:
        """The commit carries number, write concern and recovery token, and starts nothing."""
        session = self.started(write_concern=WriteConcern(w=2))
        self.run_through(Insert("db", session=session), {"ok": 1, "recoveryToken": {"r": 1}})
        self.run_through(Insert("db", session=session))
        self.run_through(self.commit(session))
        self.assertEqual(
            self.command,
            {
                "commitTransaction": 1,
                "lsid": session.server_session().lsid,
                "txnNumber": 1,
                "autocommit": False,
                "writeConcern": {"w": 2},
                "recoveryToken": {"r": 1},
            },
        )

    def test_default_write_concern(self) -> None:
        """The server's default is not spelled out."""
        session = self.under_way()
        self.run_through(self.commit(session))
        self.assertNotIn("writeConcern", self.command)

    def test_commit_again(self) -> None:
        """Another commit, after success or failure, waits for a majority."""
        majority = {"w": "majority", "wtimeout": 10_000}
        session = self.under_way()
        self.run_through(self.commit(session))
        self.run_through(self.commit(session))
        self.assertEqual(self.command["writeConcern"], majority)
        for error in (AutoReconnect("lost"), failure(), CancelledError()):
            session = self.under_way()
            operation = self.commit(session)
            use = self.must_begin(operation)
            self.sessions.failed(operation, use, error)
            self.must_begin(operation, use)
            self.assertEqual(self.command["writeConcern"], majority)

    def test_commit_after_overload(self) -> None:
        """After an overloaded server's refusal nothing has changed, unless something else failed before."""
        session = self.under_way()
        operation = self.commit(session)
        use = self.must_begin(operation)
        overload = failure("SystemOverloadedError", "RetryableError")
        self.sessions.failed(operation, use, overload)
        self.must_begin(operation, use)
        self.assertNotIn("writeConcern", self.command)
        self.sessions.failed(operation, use, AutoReconnect("lost"))
        self.must_begin(operation, use)
        self.sessions.failed(operation, use, overload)
        self.must_begin(operation, use)
        self.assertEqual(self.command["writeConcern"]["w"], "majority")

    def test_abort(self) -> None:
        """The abort carries the transaction's write concern."""
        session = self.under_way(write_concern=WriteConcern("majority"))
        session.transaction.abort()
        self.run_through(AbortTransaction(session, WriteConcern("majority")))
        self.assertEqual(self.command["writeConcern"], {"w": "majority"})
        self.assertFalse(session.transaction.commit_uncertain)

    def test_unpinned(self) -> None:
        """It is unpinned by an abort that fails, a transient error, and a commit whose outcome is unknown."""
        session = self.under_way()
        cases: list[tuple[Operation[Any], BaseException, bool]] = [
            (AbortTransaction(session, WriteConcern()), AutoReconnect("lost"), False),
            (Insert("db", session=session), failure("TransientTransactionError"), False),
            (self.commit(session), failure("UnknownTransactionCommitResult"), False),
            (Insert("db", session=session), failure("UnknownTransactionCommitResult"), True),
            (Insert("db", session=session), CancelledError(), True),
        ]
        for operation, error, stays in cases:
            session.transaction.pin_to(A)
            self.sessions.failed(operation, None, error)
            self.assertEqual(session.transaction.pinned_address is not None, stays, operation)
