"""How the time of a file is dealt out."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._gridfs.times import UNLIMITED, Times
from txmongo.connection import ConnectionPool


class TimesTests(SynchronousTestCase):
    """Times."""

    def setUp(self) -> None:
        """A client on a clock of its own, which never connects."""
        self.clock = Clock()

    def begin(self, timeout: float | None = None, **timing: Any) -> Times:
        """The time of a call on a collection with such a timeoutMS."""
        client: ConnectionPool[Any] = ConnectionPool("mongodb://host", reactor=self.clock, connect=False)
        self.addCleanup(client.disconnect)
        files = client.get_database("db", timeout_ms=timeout).fs.files
        return Times.begin(files, timing)

    def test_unlimited(self) -> None:
        """Without a limit nothing is said to the operations."""
        self.assertIs(self.begin(), UNLIMITED)
        self.assertEqual(UNLIMITED.left(), {})
        self.assertEqual(self.begin(timeout=None, timeout_ms=None).left(), {})

    def test_what_is_left(self) -> None:
        """Each operation is given what is left of the call's own time, else of the collection's."""
        inherited, own = self.begin(500), self.begin(500, timeout_ms=2000)
        self.clock.advance(0.3)
        self.assertAlmostEqual(inherited.left()["timeout_ms"] or 0, 200)
        self.assertAlmostEqual(own.left()["timeout_ms"] or 0, 1700)

    def test_no_limit(self) -> None:
        """0 is no limit, and says so to each operation."""
        self.assertEqual(self.begin(500, timeout_ms=0).left(), {"timeout_ms": 0})

    def test_over(self) -> None:
        """When nothing is left an operation is given next to nothing, which is not 0."""
        times = self.begin(500)
        self.clock.advance(1)
        left = times.left()["timeout_ms"]
        assert left is not None
        self.assertTrue(0 < left < 0.001)

    def test_named(self) -> None:
        """timeout and deadline are a point of time for all operations, beside a timeoutMS."""
        self.clock.advance(10)
        self.assertEqual(self.begin(timeout=None, deadline=12.0).left(), {"deadline": 12.0})
        both = self.begin(5000, deadline=12.0)
        self.assertEqual(both.left(), {"timeout_ms": 2000, "deadline": 12.0})

    def test_refused(self) -> None:
        """What is no time is refused."""
        self.assertRaises(ValueError, self.begin, timeout_ms=-1)
        self.assertRaises(TypeError, self.begin, timeout_ms="1")
        self.assertRaises(TypeError, self.begin, colour="red")
