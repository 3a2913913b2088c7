"""What a type checker must reject: mypy in strict mode complains of an ignored error that is none."""

from __future__ import annotations

from typing import Any

from txmongo import Collection, ConnectionPool
from txmongo.bulk import InsertOne
from txmongo.testing import Mongod, ReplicaSet

Dictionary = dict[str, Any]


async def wrong_arguments(books: Collection[Dictionary]) -> None:
    """Arguments of the wrong type."""
    books.insert_one()  # type: ignore[call-arg]
    books.insert_many(1)  # type: ignore[arg-type]
    books.update_one({}, "title")  # type: ignore[arg-type]
    books.delete_one()  # type: ignore[call-arg]
    books.bulk_write(InsertOne({}))  # type: ignore[arg-type]
    books.find_one_and_update({}, {"$set": {}}, upsert="yes")  # type: ignore[arg-type]
    books.create_search_index("all")  # type: ignore[arg-type]
    books.update_search_index("all")  # type: ignore[call-arg]


async def wrong_streams(books: Collection[Dictionary]) -> None:
    """Streams opened wrongly, or taken for open."""
    books.watch(pipeline=1)  # type: ignore[arg-type]
    books.watch(timeout_mode="iteration")  # type: ignore[call-arg]
    books.watch().next()  # type: ignore[attr-defined]
    async for change in books.watch():  # type: ignore[attr-defined]
        change["_id"]


async def wrong_results(books: Collection[Dictionary]) -> None:
    """Results taken for what they are not."""
    (await books.find_one())["title"]  # type: ignore[index]
    books.find_one()["title"]  # type: ignore[index]
    number: int = books.count_documents({})  # type: ignore[assignment]
    number += 1
    async for document in books.find():
        number += document.title  # type: ignore[attr-defined]


def wrong_clients(reactor: Any) -> None:
    """Clients and servers made of the wrong things."""
    ConnectionPool(27017)  # type: ignore[arg-type]
    Mongod()  # type: ignore[call-arg]
    ReplicaSet(reactor, "three")  # type: ignore[arg-type]
