"""The chart of a run: ``python benchmarks/chart.py benchmark.json chart.png``; needs matplotlib."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import figures
import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from peers import TITLES

#: What is drawn: task, metric, what the axis says. More is better in the first row, less in the second.
PANELS = (
    ("find_one", "per_second", "find_one, one at a time\noperations/s"),
    ("find_one x100", "per_second", "find_one, 100 at once\noperations/s"),
    ("find 10,000", "per_second", "find 10,000\ndocuments/s"),
    ("insert_many 10,000", "per_second", "insert_many 10,000\ndocuments/s"),
    ("find_one", "cpu_us", "find_one, one at a time\nus CPU each"),
    ("find_one x100", "cpu_us", "find_one, 100 at once\nus CPU each"),
    ("insert_one x100", "cpu_us", "insert_one, 100 at once\nus CPU each"),
    ("10 readers beside a 2 s query", "max_ms", "reads beside a 2 s query\nms the longest"),
)
COLOURS = ("#c0392b", "#2e86c1", "#5dade2", "#8e44ad", "#b2babb", "#e59866")


def draw(document: dict[str, Any], target: pathlib.Path) -> None:
    """Draw the panels into a PNG file."""
    drivers = list(document["versions"])
    figure, grid = pyplot.subplots(2, 4, figsize=(14, 6), layout="constrained")
    for axes, (task, metric, title) in zip(grid.flat, PANELS, strict=True):
        results = document["results"].get(task, {})
        values = [figures.median(results.get(name, ()), metric) or 0.0 for name in drivers]
        bars = axes.bar(range(len(drivers)), values, color=COLOURS[: len(drivers)])
        axes.bar_label(bars, [figures.number(value or None) for value in values], fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.margins(y=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS[: len(drivers)]]
    figure.legend(handles, [TITLES[name] for name in drivers], loc="outside lower center", ncols=len(drivers))
    figure.suptitle("Above: more is better. Below: less is better.", fontsize=10)
    figure.savefig(target, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    draw(json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2]))
