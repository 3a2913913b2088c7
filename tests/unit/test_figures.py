"""Tests of how measurements become figures: ``benchmarks/figures.py``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.scripts import load

figures = load("benchmarks/figures.py")


class PercentileTests(SynchronousTestCase):
    """Percentiles by the specification's nearest rank."""

    def test_hundred(self) -> None:
        """Of a hundred values the p-th percentile is the p-th one, in whatever order they come."""
        values = [float(value) for value in range(100, 0, -1)]
        known = {"p10": 10.0, "p25": 25.0, "p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p98": 98.0, "p99": 99.0}
        self.assertEqual(figures.percentiles(values), known)

    def test_few(self) -> None:
        """Where the rank is before the first value it is the first value, not the last."""
        self.assertEqual(figures.percentile([3.0, 1.0, 2.0], 10), 1.0)
        self.assertEqual(figures.percentile([3.0, 1.0, 2.0], 99), 2.0)

    def test_none(self) -> None:
        """No values have no percentile."""
        self.assertRaises(ValueError, figures.percentile, [], 50)


class ScoreTests(SynchronousTestCase):
    """Scores of tasks and composite scores."""

    def test_score(self) -> None:
        """A score is the size divided by the median time."""
        self.assertEqual(figures.score(16.0, [9.0, 2.0, 4.0, 1.0]), 8.0)

    def test_composites(self) -> None:
        """ReadBench and WriteBench are averages of their tasks, DriverBench of the two."""
        scores = {"read": 10.0, "scan": 20.0, "write": 5.0, "run command": 99.0}
        self.assertEqual(
            figures.composites(scores, ("read", "scan"), ("write",)),
            {"ReadBench": 15.0, "WriteBench": 5.0, "DriverBench": 10.0},
        )

    def test_missing(self) -> None:
        """A composite whose tasks were not all done is none: it could not be compared."""
        self.assertEqual(
            figures.composites({"read": 10.0, "write": None}, ("read",), ("write",)),
            {"ReadBench": 10.0, "WriteBench": None, "DriverBench": None},
        )


class MedianTests(SynchronousTestCase):
    """Medians over the rounds."""

    def test_median(self) -> None:
        """Rounds without a measurement do not count."""
        self.assertEqual(figures.median([{"us": 3.0}, None, {"us": 1.0}, {"us": 2.0}], "us"), 2.0)
        self.assertIs(figures.median([None], "us"), None)

    def test_ratio(self) -> None:
        """A ratio is taken within each round, and the median of these counts, not the ratio of the medians."""
        ours = [{"us": 1.0}, {"us": 10.0}, {"us": 100.0}]
        theirs = [{"us": 2.0}, {"us": 50.0}, {"us": 100.0}]
        self.assertEqual(figures.ratio(ours, theirs, "us"), 0.5)
        self.assertEqual(figures.ratio(ours, [None, {"us": 5.0}, {"us": 0}], "us"), 2.0)
        self.assertIs(figures.ratio(ours, [None, None, None], "us"), None)


class TableTests(SynchronousTestCase):
    """How figures are shown."""

    def test_number(self) -> None:
        """A figure has the digits that mean something."""
        self.assertEqual(
            [figures.number(each) for each in (12345.6, 45.67, 0.123, None)], ["12,346", "45.7", "0.12", "-"]
        )

    def test_cell(self) -> None:
        """The ratio stands in brackets where there is one."""
        self.assertEqual((figures.cell(45.67, 1.5), figures.cell(45.67, None)), ("45.7 (1.50)", "45.7"))

    def test_text(self) -> None:
        """Columns are aligned for a terminal."""
        table = figures.text_table(["", "a", "b"], [["find", "1", "1,000"], ["x", "22", "3"]])
        self.assertEqual(table, "       a      b\nfind   1  1,000\nx     22      3\n")

    def test_rst(self) -> None:
        """A list-table has its title, and each row as a list."""
        table = figures.rst_table("Times", ["", "a"], [["find", "1"]])
        wanted = ".. list-table:: Times\n   :header-rows: 1\n\n   * -\n     - a\n   * - find\n     - 1\n"
        self.assertEqual(table, wanted)
