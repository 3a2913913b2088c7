"""``txmongo.utils``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo import utils
from txmongo.errors import TimeExceeded
from txmongo.utils import get_err


class GetErrTests(SynchronousTestCase):
    """What a reply says went wrong."""

    def test_error(self) -> None:
        """The text of the error is returned, or else its name."""
        self.assertEqual(
            get_err({"ok": 0, "errmsg": "no such command", "codeName": "CommandNotFound"}), "no such command"
        )
        self.assertEqual(get_err({"ok": 1, "err": "duplicate key", "code": 11000}), "duplicate key")
        self.assertEqual(get_err({"$err": "not primary"}), "not primary")
        self.assertEqual(get_err({"ok": 0, "codeName": "CommandNotFound"}), "CommandNotFound")

    def test_no_error(self) -> None:
        """Where nothing went wrong the default is returned."""
        self.assertIsNone(get_err({"ok": 1, "err": None}))
        self.assertEqual(get_err({}, "fine"), "fine")


class TimeoutTests(SynchronousTestCase):
    """``timeout`` and ``check_deadline``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.patch(utils, "_default_reactor", lambda: self.clock)
        self.deadlines: list[float | None] = []
        self.waiting: Deferred[Any] = Deferred()

    def work(self, _deadline: float | None = None) -> Deferred[Any]:
        """Takes as long as the test says."""
        self.deadlines.append(_deadline)
        return self.waiting

    def test_check(self) -> None:
        """A point in time that has passed is TimeExceeded; none at all never passes."""
        utils.check_deadline(None)
        utils.check_deadline(101.0)
        self.assertRaises(TimeExceeded, utils.check_deadline, 100.0)

    def test_in_time(self) -> None:
        """The function gets the earlier end, and its result comes through."""
        work = utils.timeout(self.work)
        running = work(timeout=5, deadline=103.0)
        self.waiting.callback("done")
        self.assertEqual(self.successResultOf(running), "done")
        self.assertEqual(self.deadlines, [103.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """What takes too long is cancelled and ends with TimeExceeded."""
        running = utils.timeout(self.work)(timeout=5)
        self.clock.advance(5)
        self.failureResultOf(running, TimeExceeded)

    def test_over(self) -> None:
        """Where the time is over at the call the function is not called."""
        self.failureResultOf(utils.timeout(self.work)(deadline=99.0), TimeExceeded)
        self.assertEqual(self.deadlines, [])

    def test_without(self) -> None:
        """Without a limit nothing ends it."""
        running = utils.timeout(self.work)()
        self.clock.advance(1000)
        self.assertNoResult(running)
        self.assertEqual(self.deadlines, [None])
