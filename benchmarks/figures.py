"""From measurements to figures: percentiles, scores, medians, ratios, tables. Pure functions, and only these.

*Results* are what :mod:`run` collects: for each task's name and each driver a list with one measurement a round, which
is a mapping of metric to number; ``None`` where a driver cannot do the task. A ratio is ours divided by theirs, taken
within each round, of which the median counts: what disturbs the machine for a while disturbs both.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Measurement = Mapping[str, Any]
Results = Mapping[str, Mapping[str, Sequence[Measurement | None]]]

#: Those that the driver benchmark specification wants recorded.
PERCENTILES = (10, 25, 50, 75, 90, 95, 98, 99)


def percentile(values: Sequence[float], p: float) -> float:
    """The value at ``int(N * p / 100) - 1`` of the sorted values, the specification's nearest rank.

    Where that is before the first one, for few values, it is the first one.

    :raises ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, int(len(values) * p / 100) - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """All that the specification wants, by ``"p50"`` and so on."""
    return {f"p{p}": percentile(values, p) for p in PERCENTILES}


def score(megabytes: float, times: Sequence[float]) -> float:
    """A task's score in MB/s: its size divided by the median of its iterations' times."""
    return megabytes / percentile(times, 50)


def composite(scores: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """The average of these tasks' scores; ``None`` if one of them is missing: a part is not comparable to the whole."""
    values = [scores.get(name) for name in names]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def composites(
    scores: Mapping[str, float | None], read: Sequence[str], write: Sequence[str]
) -> dict[str, float | None]:
    """ReadBench, WriteBench and their average, DriverBench."""
    read_bench, write_bench = composite(scores, read), composite(scores, write)
    both = {"ReadBench": read_bench, "WriteBench": write_bench}
    return both | {"DriverBench": composite(both, ("ReadBench", "WriteBench"))}


def median(runs: Sequence[Measurement | None], metric: str) -> float | None:
    """The median over the rounds, ``None`` if the driver has done none."""
    values = [run[metric] for run in runs if run is not None and run.get(metric) is not None]
    return statistics.median(values) if values else None


def ratio(ours: Sequence[Measurement | None], theirs: Sequence[Measurement | None], metric: str) -> float | None:
    """The median of the rounds' ratios of ours to theirs, ``None`` if there is no round that both have done."""
    ratios = []
    for one, two in zip(ours, theirs, strict=False):
        if one is not None and two is not None and one.get(metric) is not None and two.get(metric):
            ratios.append(one[metric] / two[metric])
    return statistics.median(ratios) if ratios else None


def number(value: float | None) -> str:
    """A figure with as many digits as mean something."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(value: float | None, ratio_to_ours: float | None) -> str:
    """A figure, and in brackets what ours is as a multiple of it."""
    text = number(value)
    return text if ratio_to_ours is None else f"{text} ({ratio_to_ours:.2f})"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned for a terminal: words to the left, the figures after them to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for first, *others in (header, *rows):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def rst_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A reStructuredText list-table."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in (header, *rows):
        for index, text in enumerate(row):
            lines.append(f"   {'* -' if not index else '  -'} {text}".rstrip())
    return "\n".join(lines) + "\n"
