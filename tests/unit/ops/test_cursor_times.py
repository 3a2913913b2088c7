"""``txmongo._ops.cursor_times``: how a cursor's time is dealt out to its commands."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._deferreds import Deadline
from txmongo._ops.cursor_times import CursorTimes, cursor_times
from txmongo._ops.timeouts import TimeLimit
from txmongo.errors import ConfigurationError, InvalidOperation


class Session:
    """A session in ``with_transaction``, or not."""

    time_limit: TimeLimit | None = None


class CursorTimesTests(SynchronousTestCase):
    """The limits that the commands of a cursor get."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limits: list[TimeLimit] = []

    def execute_within(self, operation: Any, limit: TimeLimit) -> Deferred[Any]:
        """As the executor's."""
        self.limits.append(limit)
        return Deferred()

    def times(self, inherited: float | None = None, mode: str | None = None, **options: Any) -> CursorTimes:
        """Those of a cursor; it must have some."""
        timing = {
            name: options.pop(name) for name in ("timeout_ms", "timeout", "deadline", "_deadline") if name in options
        }
        times = cursor_times(self, inherited, timing, mode, **options)
        assert times is not None
        return times

    def deadline(self, times: CursorTimes, *, whole: bool = False) -> float | None:
        """When the time of the next command is up."""
        times.execute(None, whole=whole)  # type: ignore[arg-type]
        return self.limits[-1].deadline.at

    def test_none(self) -> None:
        """A cursor that nothing limits has no times."""
        self.assertIsNone(cursor_times(self, None, {}))
        self.assertIsNone(cursor_times(self, None, {"timeout_ms": None, "deadline": None}))

    def test_lifetime(self) -> None:
        """All commands end at one time, counted from the first; the server is told."""
        times = self.times(2.0)
        self.clock.advance(5)
        self.assertEqual(self.deadline(times), 7)
        self.clock.advance(1)
        times.turn_over()
        self.assertEqual(self.deadline(times), 7)
        self.assertTrue(self.limits[0].sends_max_time)

    def test_iteration(self) -> None:
        """Each wait has its own time, with all the commands that it takes; the server is not told."""
        times = self.times(None, "iteration", timeout_ms=2000)
        self.assertEqual(self.deadline(times), 2)
        self.assertFalse(self.limits[0].sends_max_time)
        self.clock.advance(1)
        self.assertEqual(self.deadline(times), 2)
        times.turn_over()
        self.assertEqual(self.deadline(times), 3)

    def test_tailable(self) -> None:
        """A tailable cursor knows iteration only; the server is told of the first command's time if it awaits data."""
        self.assertEqual(self.deadline(self.times(2.0, tailable=True)), 2)
        self.assertFalse(self.limits[-1].sends_max_time)
        self.deadline(self.times(2.0, tailable=True, await_data=True))
        self.assertTrue(self.limits[-1].sends_max_time)
        times = self.times(2.0)
        times.iterate(False)
        self.deadline(times)
        self.assertFalse(self.limits[-1].sends_max_time)

    def test_endless(self) -> None:
        """timeoutMS=0 is no limit, and the rules of timeoutMS hold."""
        self.assertIsNone(self.deadline(self.times(0.0)))
        self.assertTrue(self.limits[0].csot)

    def test_timeout(self) -> None:
        """TxMongo's timeout is for all documents if somebody waits for them, else for each wait."""
        times = self.times(timeout=2)
        self.clock.advance(5)
        self.assertEqual(self.deadline(times), 7)
        self.clock.advance(1)
        times.turn_over()
        self.assertEqual(self.deadline(times), 8)
        self.assertEqual(self.deadline(times, whole=True), 7)
        self.assertFalse(self.limits[-1].csot)

    def test_deadline(self) -> None:
        """TxMongo's deadline ends everything, whatever timeoutMS says."""
        times = self.times(2.0, deadline=3)
        self.assertEqual(self.deadline(times), 2)
        self.assertEqual(self.deadline(self.times(_deadline=4)), 4)
        times = self.times(5.0, "iteration", deadline=3)
        self.assertEqual(self.deadline(times), 3)
        self.assertEqual(self.limits[-1].named, Deadline(3))

    def test_since(self) -> None:
        """A wait that began at a time of its own has all the time from then on, whatever was before."""
        times = self.times(2.0, deadline=9, tailable=True, await_data=True)
        self.assertEqual(self.deadline(times), 2)
        for began, expected in ((5.0, 7), (8.0, 9)):
            times.execute_since(None, began)  # type: ignore[arg-type]
            self.assertEqual(self.limits[-1].deadline.at, expected)
        self.clock.advance(7)
        self.assertEqual([times.is_over(began) for began in (4.0, 5.0, 5.5)], [True, True, False])
        self.times(timeout=2).execute_since(None, 5.0)  # type: ignore[arg-type]
        self.assertEqual((self.limits[-1].deadline.at, self.limits[-1].csot), (7, False))

    def test_session(self) -> None:
        """In with_transaction its limit takes the place of the cursor's timeoutMS."""
        session = Session()
        times = self.times(2.0, "iteration", session=session)
        session.time_limit = TimeLimit.after(self.clock, 1)
        self.assertEqual(self.deadline(times), 1)
        self.assertRaises(InvalidOperation, self.times, session=session, timeout_ms=5)

    def test_close(self) -> None:
        """To close the cursor there is the whole time again."""
        times = self.times(2.0)
        self.deadline(times)
        self.clock.advance(5)
        limit = times.limit_for_close()
        assert limit is not None
        self.assertEqual(limit.deadline.at, 7)
        self.assertIsNone(self.times(timeout=2).limit_for_close())

    def test_copy(self) -> None:
        """The times of a cursor that is started again begin again."""
        times = self.times(2.0)
        self.deadline(times)
        self.clock.advance(5)
        self.assertEqual(self.deadline(times.copy()), 7)

    def test_refused(self) -> None:
        """What does not go together is refused."""
        for options in (
            {"mode": "iteration"},
            {"mode": "cursorLifetime", "timeout": 5},
            {"inherited": 1.0, "mode": "for ever"},
            {"inherited": 1.0, "mode": "cursorLifetime", "tailable": True},
            {"inherited": 1.0, "mode": "iteration", "writes": True},
            {"inherited": 1.0, "max_await_time_ms": 1000},
        ):
            self.assertRaises(ConfigurationError, self.times, **options)
        self.times(0.0, max_await_time_ms=1000)
        self.times(1.0, max_await_time_ms=999)
