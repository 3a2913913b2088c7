"""The few operations that most changes are judged by: ``python benchmarks/micro.py``.

One read and one write, alone, 10 and 100 at once, and 10,000 documents in one call each way, beside PyMongo, its
``AsyncMongoClient`` and TxMongo 26: the same tasks, rounds and tables as of ``run.py``, in some three minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib

import report
from peers import OURS
from run import FULL, measured
from tasks import TASKS

NAMES = (
    "find_one",
    "find_one x10",
    "find_one x100",
    "insert_one",
    "insert_one x10",
    "insert_one x100",
    "find 10,000",
    "insert_many 10,000",
)
DRIVERS = (OURS, "pymongo_sync", "pymongo_async", "txmongo26")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare the most travelled ways of four drivers on one mongod.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each operation, each driver, each round")
    parser.add_argument("--task", action="append", choices=NAMES, help="only this; may be repeated")
    parser.add_argument("--against", metavar="REVISION", help="also ours as it was at this commit")
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("micro.json"), help="where it is kept")
    given = parser.parse_args()
    extent = dataclasses.replace(FULL, rounds=given.rounds, seconds=given.seconds)
    by_name = {task.name: task for task in TASKS}
    tasks = [by_name[name] for name in given.task or NAMES]
    document = measured(tasks, DRIVERS, extent, given.against)
    given.json.write_text(json.dumps(document, indent=1) + "\n")
    print(report.text(document))


if __name__ == "__main__":
    main()
