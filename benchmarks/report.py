"""What a run is shown as: ``python benchmarks/report.py benchmark.json [--docs]``.

Tables for the terminal, and with ``--docs`` those that ``docs/performance.rst`` includes, with the chart.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import budget
import figures
import goals
from peers import OURS, ROOT, TITLES
from tasks import PARTS, READ_BENCH, TASKS, WRITE_BENCH, Task

DOCS = ROOT / "docs"
HERE = pathlib.Path(__file__).resolve().parent

#: The layers of the driver, and what lies beside and below them, by the modules they consist of.
LAYERS = {
    "the fronts: collection, cursor": (
        "txmongo/collection",
        "txmongo/_collection",
        "txmongo/cursor",
        "txmongo/database",
        "txmongo/bulk",
    ),
    "_ops: operation, attempt, session": ("txmongo/_ops",),
    "_sdam: which server": ("txmongo/_sdam",),
    "_cmap: which connection": ("txmongo/_cmap",),
    "protocol: request and reply": ("txmongo/protocol",),
    "_wire: bytes": ("txmongo/_wire",),
    "bson, the part in Python": ("bson",),
    "Twisted: the Deferred": ("twisted",),
}

Table = tuple[list[str], list[list[str]]]


def scores(document: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The composite scores of each driver."""
    result = {}
    for driver in document["versions"]:
        single: dict[str, float | None] = {}
        for task in TASKS:
            runs = document["results"].get(task.name, {}).get(driver, ())
            times = [each for run in runs if run is not None for each in run.get("times", ())]
            if times:
                sizes = [run["megabytes"] for run in runs if run is not None]
                single[task.name] = figures.score(sizes[0], times)
        result[driver] = figures.composites(single, READ_BENCH, WRITE_BENCH)
    return result


def part_table(document: Mapping[str, Any], part: str) -> Table | None:
    """A part's figures, a column for each driver; in brackets ours as a multiple of the others'."""
    drivers = list(document["versions"])
    rows = [row for task in TASKS if task.part == part for row in _task_rows(document, task, drivers)]
    if part == "driverbench" and rows:
        rows += _score_rows(document, drivers)
    return (["", "", *(TITLES[name] for name in drivers)], rows) if rows else None


def _task_rows(document: Mapping[str, Any], task: Task, drivers: list[str]) -> Iterator[list[str]]:
    results = document["results"].get(task.name)
    if results is None:
        return
    problems = document["problems"].get(task.name, {})
    for metric in task.metrics:
        cells = []
        for name in drivers:
            median = figures.median(results[name], metric.key)
            ratio = None if name == OURS else figures.ratio(results[OURS], results[name], metric.key)
            failed = median is None and name in problems
            cells.append("cannot" if failed and "Error" not in problems[name] else figures.cell(median, ratio))
        yield [task.name, metric.unit, *cells]


def _score_rows(document: Mapping[str, Any], drivers: list[str]) -> Iterator[list[str]]:
    by_driver = scores(document)
    for name in ("ReadBench", "WriteBench", "DriverBench"):
        ours, cells = by_driver[OURS][name], []
        for driver in drivers:
            theirs = by_driver[driver][name]
            ratio = ours / theirs if driver != OURS and ours and theirs else None
            cells.append(figures.cell(theirs, ratio))
        yield [name, "MB/s", *cells]


def percentile_table(document: Mapping[str, Any]) -> Table | None:
    """Ours in the tasks of the specification: the iterations' times in ms."""
    rows = []
    for task in TASKS:
        runs = document["results"].get(task.name, {}).get(OURS, ())
        times = [each for run in runs if run is not None for each in run.get("times", ())]
        if times:
            known = figures.percentiles(times)
            rows.append([task.name, str(len(times)), *(figures.number(value * 1000) for value in known.values())])
    return (["", "iterations", *(f"p{p}" for p in figures.PERCENTILES)], rows) if rows else None


def goal_table(document: Mapping[str, Any]) -> Table:
    """What is to be reached and what was, of the tasks that were run."""
    rows, by_driver = [], scores(document)
    run = {*document["results"], *(("DriverBench",) if any(task in document["results"] for task in READ_BENCH) else ())}
    units = {(task.name, metric.key): metric.unit for task in TASKS for metric in task.metrics}
    for goal in goals.GOALS:
        if goal.task not in run:
            continue
        value = goals.value(goal, document["results"], by_driver)
        unit = units.get((goal.task, goal.metric), "MB/s")
        what = f"{goal.task}, {unit}" + (f", to {TITLES[goal.against]}'s" if goal.against else "")
        wanted = f"{'at least' if goal.at_least else 'at most'} {goal.limit:g}"
        verdict = "not measured" if value is None else "reached" if goal.reached(value) else "missed"
        rows.append([what, wanted, figures.number(value), verdict])
    return ["", "wanted", "measured", ""], rows


def layer_table() -> Table:
    """Where the opcodes of one find_one go."""
    rows, total = [], 0.0
    counts = budget.count("find_one")
    opcodes, c_calls = budget.by_module(counts.opcodes), budget.by_module(counts.c_calls)
    calls = budget.TASKS["find_one"][0]
    rest_opcodes, rest_calls = counts.opcodes.total(), counts.c_calls.total()
    total = counts.opcodes.total()
    for title, starts in LAYERS.items():
        mine = [sum(n for module, n in counter.items() if module.startswith(starts)) for counter in (opcodes, c_calls)]
        rest_opcodes, rest_calls = rest_opcodes - mine[0], rest_calls - mine[1]
        rows.append([title, f"{mine[0] / calls:,.0f}", f"{mine[0] / total:.0%}", f"{mine[1] / calls:.0f}"])
    rows.append(
        ["all else", f"{rest_opcodes / calls:,.0f}", f"{rest_opcodes / total:.0%}", f"{rest_calls / calls:.0f}"]
    )
    rows.append(["together", f"{total / calls:,.0f}", "", f"{counts.c_calls.total() / calls:.0f}"])
    return ["layer", "opcodes", "part", "calls into C"], rows


def headline(document: Mapping[str, Any]) -> str:
    """When and where it was measured, and with what."""
    versions = {name: number for each in document["versions"].values() for name, number in sorted(each.items())}
    ours = document["versions"].get(OURS, {})
    known = ", ".join(f"{name} {ours.get(name, number)}" for name, number in versions.items() if name != "txmongo")
    server = f"MongoDB {document['server']}, a replica set of one member on the same machine"
    rounds = f"{document['extent']['rounds']} rounds"
    when = f"{document['date']} UTC, revision {document['revision']}"
    return "; ".join((when, document["machine"], server, known, rounds)) + "."


def text(document: Mapping[str, Any]) -> str:
    """The whole report for a terminal."""
    parts = [headline(document)]
    for part, title in PARTS.items():
        table = part_table(document, part)
        if table is not None:
            parts.append(f"{title}\n{figures.text_table(*table)}")
    percentiles = percentile_table(document)
    if percentiles is not None:
        parts.append(f"Times of the iterations in ms, txmongo\n{figures.text_table(*percentiles)}")
    header, rows = goal_table(document)
    if rows:
        parts.append(f"Goals\n{figures.text_table(header, rows)}")
    for task, drivers in document["problems"].items():
        parts += [f"{task}, {TITLES[driver]}: {reason}" for driver, reason in drivers.items()]
    return "\n\n".join(parts)


def draw(results: pathlib.Path, chart: pathlib.Path) -> None:
    """Draw the chart; without matplotlib, say so."""
    done = subprocess.run([sys.executable, HERE / "chart.py", results, chart], check=False)
    if done.returncode:
        print(f"{chart} was not drawn: pip install matplotlib", file=sys.stderr)


def write_docs(document: Mapping[str, Any], results: pathlib.Path) -> None:
    """Write what docs/performance.rst includes: tables, chart, and where the opcodes of find_one go."""
    folder = DOCS / "performance"
    folder.mkdir(exist_ok=True)
    pieces = [headline(document) + "\n"]
    for part, title in PARTS.items():
        table = part_table(document, part)
        if table is not None:
            pieces.append(figures.rst_table(title, *table))
    percentiles = percentile_table(document)
    if percentiles is not None:
        pieces.append(figures.rst_table("Times of the specification's iterations in ms, txmongo", *percentiles))
    (folder / "figures.inc").write_text("\n".join(pieces))
    (folder / "goals.inc").write_text(figures.rst_table("Goals", *goal_table(document)))
    (folder / "layers.inc").write_text(figures.rst_table("One find_one by layer", *layer_table()))
    draw(results, DOCS / "_static" / "performance.png")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Show a run of the benchmarks.")
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--docs", action="store_true", help="write what docs/performance.rst includes")
    given = parser.parse_args()
    document = json.loads(given.results.read_text())
    print(text(document))
    if given.docs:
        write_docs(document, given.results)


if __name__ == "__main__":
    main()
