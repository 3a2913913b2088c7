"""The work that every driver does in a benchmark, and its data; nothing here imports a driver.

A *task* is a name, how many operations are in flight, and how many operations count for one call. The same document and
the same calls are used for every driver: see ``drivers/``.
"""

from __future__ import annotations

import dataclasses
import random
import string
from typing import Any

DATABASE = "micro"
READ_COLLECTION = "documents"
MANY_COLLECTION = "many"
WRITE_COLLECTION = "written"
MANY = 10_000


@dataclasses.dataclass(frozen=True)
class Task:
    """One row of the table.

    :ivar kind: which call: ``find_one``, ``insert_one``, ``find_many`` or ``insert_many``.
    :ivar in_flight: how many calls run at once.
    :ivar documents: how many documents one call moves; operations per second are counted in these.
    """

    name: str
    kind: str
    in_flight: int = 1
    documents: int = 1


TASKS = (
    Task("find_one", "find_one"),
    Task("find_one x10", "find_one", 10),
    Task("find_one x100", "find_one", 100),
    Task("insert_one", "insert_one"),
    Task("insert_one x10", "insert_one", 10),
    Task("insert_one x100", "insert_one", 100),
    Task("find 10,000", "find_many", documents=MANY),
    Task("insert_many 10,000", "insert_many", documents=MANY),
)


def document(number: int) -> dict[str, Any]:
    """A document of about 1.6 KB and 20 fields beside its ``_id``; the same for the same number."""
    source = random.Random(number)
    result: dict[str, Any] = {"_id": number}
    for field in range(12):
        result[f"text{field}"] = "".join(source.choices(string.ascii_letters, k=100))
    for field in range(4):
        result[f"number{field}"] = source.randrange(1 << 40)
    result["price"] = source.random()
    result["active"] = bool(number % 2)
    result["tags"] = ["red", "green", "blue"]
    result["address"] = {"street": "Main Street", "number": number % 100, "city": "Springfield"}
    return result


def small_document(number: int) -> dict[str, Any]:
    """A document of about 100 bytes without an ``_id``."""
    return {"number": number, "name": "somebody", "active": True, "score": 0.5}
