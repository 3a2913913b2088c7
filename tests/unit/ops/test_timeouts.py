"""``txmongo._ops.timeouts``: what a limit of an operation's time means, without any operation."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import ADDRESS
from txmongo._deferreds import Deadline
from txmongo._ops.cursors import GetMore
from txmongo._ops.distinct import Distinct
from txmongo._ops.run_command import RunCommand
from txmongo._ops.timeouts import TimeLimit, check_timing, is_timeout, seconds_of, take_timing, time_limit
from txmongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    ServerSelectionTimeoutError,
    TimeExceeded,
)

READ = Distinct("test", "things", "x")
GET_MORE = GetMore("test", "things", 1, ADDRESS, READ.codec_options)


class ArgumentTests(SynchronousTestCase):
    """What a caller may give."""

    def test_taken(self) -> None:
        """The keywords of time are taken out of a call's; the others stay."""
        keywords = {"timeout_ms": 1, "deadline": None, "x": 2}
        self.assertEqual(take_timing(keywords), {"timeout_ms": 1, "deadline": None})
        self.assertEqual(keywords, {"x": 2})

    def test_refused(self) -> None:
        """What says no time is refused, with the keyword's name."""
        for timing, kind in (
            ({"timeout_ms": "5"}, TypeError),
            ({"timeout_ms": True}, TypeError),
            ({"timeout_ms": -1}, ValueError),
            ({"timeout_ms": float("nan")}, ValueError),
            ({"timeout": "5"}, TypeError),
            ({"deadline": []}, TypeError),
            ({"time_out": 5}, TypeError),
        ):
            error: Any = self.assertRaises(kind, check_timing, timing)
            self.assertIn(next(iter(timing)), str(error))

    def test_allowed(self) -> None:
        """No limit, nothing at all, and for TxMongo's timeout a time that is over are fine."""
        check_timing({"timeout_ms": 0, "timeout": -1, "deadline": None})

    def test_inherited(self) -> None:
        """Milliseconds become seconds; an object that was given none has those of the one above it."""
        self.assertEqual(seconds_of(1500, 3.0), 1.5)
        self.assertEqual(seconds_of(None, 3.0), 3.0)
        self.assertEqual(seconds_of(0, 3.0), 0.0)
        self.assertRaises(ValueError, seconds_of, -1, None)


class LimitTests(SynchronousTestCase):
    """Which limit a call has."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)

    def limit(self, inherited: float | None = None, session: TimeLimit | None = None, **timing: Any) -> TimeLimit:
        """That of a call; it must have one."""
        limit = time_limit(self.clock, inherited, timing, session)
        assert limit is not None
        return limit

    def test_none(self) -> None:
        """Where nothing is given or inherited there is no limit."""
        self.assertIsNone(time_limit(self.clock, None, {"timeout_ms": None, "timeout": None}))

    def test_timeout_ms(self) -> None:
        """The call's own milliseconds win over inherited ones; 0 is no limit, and yet the rules of timeoutMS hold."""
        self.assertEqual(self.limit(2.0).deadline.at, 102)
        self.assertEqual(self.limit(2.0, timeout_ms=500).deadline.at, 100.5)
        endless = self.limit(2.0, timeout_ms=0)
        self.assertEqual((endless.deadline, endless.csot), (Deadline.never, True))

    def test_named(self) -> None:
        """timeout and deadline limit the time and switch nothing else on; the earlier one counts."""
        for timing, at in (
            ({"timeout": 3}, 103),
            ({"deadline": 101}, 101),
            ({"timeout": 3, "deadline": 104}, 103),
            ({"_deadline": 102}, 102),
            ({"_deadline": 102, "deadline": 101}, 101),
        ):
            limit = self.limit(**timing)
            self.assertEqual((limit.deadline.at, limit.csot, limit.named), (at, False, limit.deadline))

    def test_both(self) -> None:
        """With timeoutMS too, the earlier one ends it."""
        self.assertEqual(self.limit(1.0, timeout=2).deadline.at, 101)
        limit = self.limit(3.0, timeout=2)
        self.assertEqual((limit.deadline.at, limit.csot), (102, True))

    def test_session(self) -> None:
        """In with_transaction its limit counts, and cannot be overridden but for an earlier end."""
        session = TimeLimit.after(self.clock, 5)
        self.assertIs(self.limit(1.0, session), session)
        self.assertEqual(self.limit(1.0, session, timeout=2).deadline.at, 102)
        self.assertRaises(InvalidOperation, self.limit, None, session, timeout_ms=100)


class CompleteTests(SynchronousTestCase):
    """What a limit puts into a command, and takes out."""

    def complete(self, command: dict[str, Any], limit: TimeLimit, operation: Any = READ) -> dict[str, Any]:
        """A command at second 10, with 100 ms to the server and back."""
        limit.complete(command, operation, 0.1, 10.0)
        return command

    def test_max_time(self) -> None:
        """The server is told what is left without the way to it and back; a maxTimeMS of old does not count."""
        command = self.complete({"distinct": "x", "maxTimeMS": 7}, TimeLimit(deadline=Deadline(12.0)))
        self.assertEqual(command, {"distinct": "x", "maxTimeMS": 1900})

    def test_never_zero(self) -> None:
        """Less than a millisecond is told as one, for 0 would be no limit."""
        self.assertEqual(self.complete({}, TimeLimit(deadline=Deadline(10.1004))), {"maxTimeMS": 1})

    def test_too_little(self) -> None:
        """A command that could not be answered in time is not sent."""
        for at in (10.1, 10.0, 9.0):
            error: Any = self.assertRaises(ExecutionTimeout, self.complete, {}, TimeLimit(deadline=Deadline(at)))
            self.assertTrue(error.timeout)
            self.assertIsNone(error.details)

    def test_endless(self) -> None:
        """With timeoutMS=0 no time is told, and one of old is not either."""
        self.assertEqual(self.complete({"maxTimeMS": 7}, TimeLimit(deadline=Deadline.never)), {})

    def test_not_told(self) -> None:
        """Where the cursor outlives its first command, the server is told no time for that."""
        limit = TimeLimit(deadline=Deadline(12.0), sends_max_time=False)
        self.assertEqual(self.complete({"maxTimeMS": 7}, limit), {})

    def test_get_more(self) -> None:
        """The maxTimeMS of a getMore, how long to wait for data, is left alone, unless that is longer than there is."""
        limit = TimeLimit(deadline=Deadline(12.0))
        self.assertEqual(self.complete({"maxTimeMS": 7}, limit, GET_MORE), {"maxTimeMS": 7})
        self.assertEqual(self.complete({"maxTimeMS": 1901}, limit, GET_MORE), {"maxTimeMS": 1900})
        self.assertEqual(self.complete({}, limit, GET_MORE), {})
        almost_over, endless = TimeLimit(deadline=Deadline(10.1004)), TimeLimit(deadline=Deadline.never)
        self.assertEqual(self.complete({"maxTimeMS": 7}, almost_over, GET_MORE), {"maxTimeMS": 1})
        self.assertEqual(self.complete({"maxTimeMS": 7}, endless, GET_MORE), {"maxTimeMS": 7})

    def test_wtimeout(self) -> None:
        """wtimeout does not count; the rest of a write concern does, and the caller's document stays as it was."""
        limit = TimeLimit(deadline=Deadline.never)
        concern = {"w": 2, "wtimeout": 5}
        self.assertEqual(self.complete({"writeConcern": concern}, limit), {"writeConcern": {"w": 2}})
        self.assertEqual(concern, {"w": 2, "wtimeout": 5})
        self.assertEqual(self.complete({"writeConcern": {"wtimeout": 5}}, limit), {})
        self.assertEqual(self.complete({"writeConcern": {"w": 2}}, limit), {"writeConcern": {"w": 2}})

    def test_written_by_the_application(self) -> None:
        """A command of run_command gets a maxTimeMS where there is one to tell; else nothing in it is touched."""
        operation = RunCommand("test", {"x": 1})
        command = {"maxTimeMS": 7, "writeConcern": {"wtimeout": 5}}
        self.assertEqual(self.complete(dict(command), TimeLimit(deadline=Deadline.never), operation), command)
        limited = self.complete(dict(command), TimeLimit(deadline=Deadline(12.0)), operation)
        self.assertEqual(limited, {**command, "maxTimeMS": 1900})

    def test_named(self) -> None:
        """timeout and deadline put nothing into a command; it is not sent when the time is over."""
        limit = TimeLimit(deadline=Deadline(10.05), csot=False, named=Deadline(10.05))
        command = {"maxTimeMS": 7, "writeConcern": {"wtimeout": 5}}
        self.assertEqual(self.complete(dict(command), limit), command)
        over = TimeLimit(deadline=Deadline(10.0), csot=False, named=Deadline(10.0))
        self.assertRaises(ExecutionTimeout, self.complete, {}, over)


class OutcomeTests(SynchronousTestCase):
    """What is raised in the end."""

    def test_other_error(self) -> None:
        """An error that has nothing to do with time comes out as it is, however late."""
        error = DuplicateKeyError("there", 11000)
        for limit in (TimeLimit(deadline=Deadline(1)), TimeLimit(deadline=Deadline(1), csot=False, named=Deadline(1))):
            self.assertIs(limit.outcome(error, error, 2.0, out_of_time=False), error)

    def test_timeout(self) -> None:
        """A timeout of the driver's own or of the server comes out as it is: its timeout is true."""
        for error in (NetworkTimeout("late"), ExecutionTimeout("late", 50), ServerSelectionTimeoutError("late")):
            self.assertTrue(is_timeout(error))
            self.assertIs(TimeLimit(deadline=Deadline(1)).outcome(error, error, 1.0, out_of_time=False), error)
        late_write = BulkWriteError({"writeErrors": [{"code": 50}]})
        self.assertTrue(is_timeout(late_write))

    def test_no_time_for_a_retry(self) -> None:
        """An error that would be met with a repetition, if there was time, comes as the cause of a timeout."""
        error = AutoReconnect("gone", {"errorLabels": ["RetryableWriteError"]})
        raised: Any = TimeLimit(deadline=Deadline(1)).outcome(error, error, 1.0, out_of_time=True)
        self.assertIsInstance(raised, NetworkTimeout)
        self.assertIs(raised.__cause__, error)
        self.assertIn("gone", str(raised))
        self.assertTrue(raised.has_error_label("RetryableWriteError"))

    def test_no_server_for_a_retry(self) -> None:
        """Where the last attempt found no server in time, the error of the one before comes as the timeout's cause."""
        first, last = AutoReconnect("gone"), ServerSelectionTimeoutError("none")
        raised = TimeLimit(deadline=Deadline(1)).outcome(first, last, 1.0, out_of_time=False)
        self.assertIsInstance(raised, NetworkTimeout)
        self.assertIs(raised.__cause__, first)

    def test_named(self) -> None:
        """When it is timeout or deadline that has ended it, TimeExceeded comes, with the timeout as its cause."""
        limit = TimeLimit(deadline=Deadline(1), csot=False, named=Deadline(1))
        late = NetworkTimeout("late", {"errorLabels": ["TransientTransactionError"]})
        raised: Any = limit.outcome(late, late, 1.0, out_of_time=False)
        self.assertIsInstance(raised, TimeExceeded)
        self.assertIs(raised.__cause__, late)
        self.assertTrue(raised.timeout and raised.has_error_label("TransientTransactionError"))
        gone = AutoReconnect("gone")
        raised = limit.outcome(gone, gone, 1.0, out_of_time=True)
        self.assertIsInstance(raised, TimeExceeded)
        self.assertTrue(is_timeout(raised.__cause__))
        self.assertIs(raised.__cause__.__cause__, gone)

    def test_named_but_not_over(self) -> None:
        """A timeout of another option, before the time given is over, stays what it is."""
        error = ServerSelectionTimeoutError("none")
        limit = TimeLimit(deadline=Deadline(5), csot=False, named=Deadline(5))
        self.assertIs(limit.outcome(error, error, 1.0, out_of_time=False), error)

    def test_both(self) -> None:
        """Where timeoutMS ended it first, it is a timeout of timeoutMS."""
        error = NetworkTimeout("late")
        limit = TimeLimit(deadline=Deadline(1), named=Deadline(5))
        self.assertIs(limit.outcome(error, error, 1.0, out_of_time=False), error)
