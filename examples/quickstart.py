"""The driver in one minute: insert, query, index, aggregate, write in bulk, and read a thousand times at once.

Runs on the server that $MONGODB_URI names, else on a throw-away mongod. It works in a database of its own, which it
drops again: txmongo_quickstart.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import defer, task

from txmongo import ConnectionPool
from txmongo.bulk import DeleteOne, InsertOne, UpdateMany
from txmongo.collection import Collection
from txmongo.testing import Mongod

DATABASE = "txmongo_quickstart"
READS = 1_000
BOOKS = [
    {"_id": 1, "title": "Dune", "author": "Frank Herbert", "year": 1965, "pages": 412},
    {"_id": 2, "title": "Ubik", "author": "Philip K. Dick", "year": 1969, "pages": 202},
    {"_id": 3, "title": "The Left Hand of Darkness", "author": "Ursula K. Le Guin", "year": 1969, "pages": 286},
    {"_id": 4, "title": "Solaris", "author": "Stanislaw Lem", "year": 1961, "pages": 204},
    {"_id": 5, "title": "The Dispossessed", "author": "Ursula K. Le Guin", "year": 1974, "pages": 341},
]


async def main(reactor: Any) -> None:
    """Take the tour on the server that there is, or on one that is started for it."""
    uri = os.environ.get("MONGODB_URI")
    if uri:
        await tour(reactor, uri)
        return
    print("$MONGODB_URI is not set: starting a throw-away mongod")
    mongod = await Mongod(reactor).start()
    try:
        await tour(reactor, mongod.uri)
    finally:
        await mongod.stop()
        print("The throw-away mongod is gone")


async def tour(reactor: Any, uri: str) -> None:
    """Connect, do everything once, clean up."""
    client: ConnectionPool[dict[str, Any]] = ConnectionPool(uri)
    try:
        info = await client.server_info()
        print(f"Connected to MongoDB {info['version']}")
        await client.drop_database(DATABASE)
        books = client[DATABASE].books
        await insert(books)
        await query(books)
        await index(books)
        await aggregate(books)
        await write_in_bulk(books)
        await read_at_once(reactor, books)
        await client.drop_database(DATABASE)
    finally:
        await client.disconnect()
    print("Disconnected")


async def insert(books: Collection[dict[str, Any]]) -> None:
    """Insert one document, then several."""
    one = await books.insert_one(BOOKS[0])
    many = await books.insert_many(BOOKS[1:])
    print(f"Inserted {one.inserted_id} and {many.inserted_ids}")


async def query(books: Collection[dict[str, Any]]) -> None:
    """Three ways to read: one document, all at once, one after another."""
    dune = await books.find_one({"title": "Dune"})
    assert dune is not None
    print(f"{dune['title']} is by {dune['author']}")
    of_1969 = await books.find({"year": 1969}, {"title": True}).sort("title", 1)
    print("Of 1969:", ", ".join(book["title"] for book in of_1969))
    async for book in books.find().sort("year", 1).limit(2):
        print(f"Among the oldest: {book['title']}, {book['year']}")


async def index(books: Collection[dict[str, Any]]) -> None:
    """Make an index and let the server explain that it uses it."""
    name = await books.create_index([("author", 1), ("year", -1)])
    find = {"find": books.name, "filter": {"author": "Ursula K. Le Guin"}}
    explained = await books.database.command("explain", find, verbosity="queryPlanner")
    plan = explained["queryPlanner"]["winningPlan"]
    print(f"Index {name}: the server plans a {plan['inputStage']['stage']} on {plan['inputStage']['indexName']}")


async def aggregate(books: Collection[dict[str, Any]]) -> None:
    """Let the server count pages by author."""
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": "$author", "pages": {"$sum": "$pages"}}},
        {"$sort": {"pages": -1}},
        {"$limit": 2},
    ]
    for author in await books.aggregate(pipeline):
        print(f"{author['_id']} wrote {author['pages']} pages")


async def write_in_bulk(books: Collection[dict[str, Any]]) -> None:
    """Send different writes together."""
    result = await books.bulk_write(
        [
            InsertOne({"_id": 6, "title": "Roadside Picnic", "author": "A. and B. Strugatsky", "year": 1972}),
            UpdateMany({"year": {"$lt": 1970}}, {"$set": {"vintage": True}}),
            DeleteOne({"title": "Ubik"}),
        ]
    )
    print(f"In bulk: {result.inserted_count} in, {result.modified_count} changed, {result.deleted_count} out")


async def read_at_once(reactor: Any, books: Collection[dict[str, Any]]) -> None:
    """Start many reads before the first is answered; the pool spreads them over its connections."""
    began = reactor.seconds()
    found = await defer.gatherResults([books.find_one({"_id": 1 + number % 6}) for number in range(READS)])
    seconds = reactor.seconds() - began
    hits = sum(book is not None for book in found)
    print(f"{READS} reads at once, {hits} hits: {seconds:.2f} s, {READS / seconds:,.0f} a second")


if __name__ == "__main__":
    task.react(main)
