"""What the driver is to reach, beside its peers or by itself; judged by medians of ratios within one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import figures

OURS = "ours"


@dataclasses.dataclass(frozen=True)
class Goal:
    """One goal.

    :ivar task: by name, or the name of a composite score.
    :ivar metric: of the task.
    :ivar against: the driver that ours is divided by; ``None`` where the figure counts by itself.
    :ivar limit: that must not be passed.
    :ivar at_least: reach the limit, else stay within it.
    """

    task: str
    metric: str
    against: str | None
    limit: float
    at_least: bool = False

    def reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


GOALS = (
    Goal("find_one", "cpu_us", "pymongo_sync", 0.50),
    Goal("find_one", "per_second", "pymongo_sync", 1.4, at_least=True),
    Goal("find_one", "per_second", "pymongo_async", 1.75, at_least=True),
    Goal("find_one x100", "per_second", "pymongo_async", 2.8, at_least=True),
    Goal("find_one x100", "per_second", "txmongo26", 1.0, at_least=True),
    Goal("find_one x100", "cpu_us", "txmongo26", 0.85),
    Goal("find_one x100", "cpu_us", "pymongo_async", 0.28),
    Goal("insert_one x10", "per_second", "pymongo_async", 1.5, at_least=True),
    Goal("insert_one x100", "per_second", "pymongo_async", 1.5, at_least=True),
    Goal("insert_one", "cpu_us", "pymongo_sync", 0.50),
    Goal("find 10,000", "per_second", "pymongo_async", 1.15, at_least=True),
    Goal("insert_many 10,000", "per_second", "pymongo_sync", 1.0, at_least=True),
    Goal("GridFS upload", "mb_per_second", "pymongo_async", 1.1, at_least=True),
    Goal("GridFS download", "mb_per_second", "pymongo_async", 1.0, at_least=True),
    Goal("GridFS upload of 52 MB, streamed", "mb", None, 24.0),
    Goal("GridFS download of 52 MB, streamed", "mb", None, 24.0),
    Goal("10 readers beside a 2 s query", "p99_ratio", None, 3.0),
    Goal("10 readers beside a 2 s query", "max_ms", None, 150.0),
    Goal("42 MB reply in 16 KiB pieces", "ratio", None, 1.5),
    Goal("DriverBench", "score", "pymongo_async", 1.3, at_least=True),
)


def value(goal: Goal, results: figures.Results, scores: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The figure that a goal is judged by, ``None`` if it was not measured.

    :param scores: the composite scores of each driver.
    """
    if goal.task in scores[OURS]:
        ours, theirs = scores[OURS][goal.task], scores.get(goal.against or "", {}).get(goal.task)
        return ours / theirs if ours and theirs else None
    drivers = results.get(goal.task, {})
    if goal.against is None:
        return figures.median(drivers.get(OURS, ()), goal.metric)
    return figures.ratio(drivers.get(OURS, ()), drivers.get(goal.against, ()), goal.metric)
