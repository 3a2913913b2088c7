"""What a type checker must accept, and the types it must see."""

from __future__ import annotations

from typing import Any, TypedDict, assert_type

from bson.binary import Binary
from bson.raw_bson import RawBSONDocument
from pymongo.operations import SearchIndexModel
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult
from twisted.internet.defer import Deferred

from txmongo import ChangeStream, Collection, ConnectionPool, Cursor, Database
from txmongo.bulk import ClientBulkWriteResult, DeleteOne, InsertOne
from txmongo.encryption import ClientEncryption, RewrapManyDataKeyResult
from txmongo.sessions import ClientSession
from txmongo.testing import Mongod, ReplicaSet

Dictionary = dict[str, Any]


class Book(TypedDict):
    """A document with known fields."""

    title: str
    year: int


async def documents(client: ConnectionPool[Dictionary]) -> None:
    """A client whose documents are dicts."""
    database = client.library
    assert_type(database, Database[Dictionary])
    books = database["books"]
    assert_type(books, Collection[Dictionary])
    assert_type(books.find_one({"title": "Dune"}), Deferred[Dictionary | None])
    found = await books.find_one(1)
    if found is not None:
        assert_type(found["title"], Any)
    cursor = books.find({"year": {"$gt": 1966}}).sort("year", 1).limit(10)
    assert_type(cursor, Cursor[Dictionary])
    assert_type(await cursor, list[Dictionary])
    async for book in books.find():
        assert_type(book, Dictionary)
    assert_type(await books.aggregate([{"$limit": 1}]), list[Dictionary])


async def writes(books: Collection[Dictionary]) -> None:
    """Each write has a result of its own."""
    assert_type(await books.insert_one({"title": "Dune"}), InsertOneResult)
    assert_type(await books.insert_many([{"title": "Dune"}]), InsertManyResult)
    assert_type(await books.update_one({}, {"$set": {"year": 1965}}), UpdateResult)
    assert_type(await books.delete_many({}), DeleteResult)
    assert_type(await books.bulk_write([InsertOne({"_id": 1}), DeleteOne({"_id": 1})]), BulkWriteResult)
    assert_type(await books.count_documents({}), int)
    assert_type(await books.create_index([("year", 1), ("title", -1)]), str)
    assert_type(await books.create_search_index({"definition": {}}), str)
    assert_type(await books.create_search_indexes([SearchIndexModel({})]), list[str])


async def encryption(client: ConnectionPool[Dictionary], database: Database[Dictionary]) -> None:
    """Keys and values of client-side encryption."""
    encrypts = ClientEncryption({"local": {"key": b""}}, "a.keys", client, client.codec_options)
    assert_type(encrypts, ClientEncryption[Dictionary])
    key_id = await encrypts.create_data_key("local")
    assert_type(key_id, Binary)
    assert_type(encrypts.encrypt(1, "algorithm", key_id), Deferred[Binary])
    assert_type(await encrypts.decrypt(key_id), Any)
    assert_type(await encrypts.get_key(key_id), RawBSONDocument | None)
    assert_type(await encrypts.get_keys(), list[RawBSONDocument])
    assert_type(await encrypts.delete_key(key_id), DeleteResult)
    assert_type(await encrypts.rewrap_many_data_key({}), RewrapManyDataKeyResult)
    collection, _ = await encrypts.create_encrypted_collection(database, "cards", {"fields": []})
    assert_type(collection, Collection[Dictionary])


async def typed_documents(books: Collection[Book]) -> None:
    """A collection whose documents have known fields."""
    found = await books.find_one()
    if found is not None:
        assert_type(found["year"], int)
    assert_type(await books.find(), list[Book])


async def changes(client: ConnectionPool[Dictionary], books: Collection[Dictionary]) -> None:
    """Streams, whose changes are documents of the collection's type."""
    assert_type(client.watch(), Deferred[ChangeStream[Dictionary]])
    assert_type(await client.library.watch([{"$match": {}}]), ChangeStream[Dictionary])
    async with await books.watch(full_document="updateLookup", timeout_ms=5000) as stream:
        assert_type(stream, ChangeStream[Dictionary])
        async for change in stream:
            assert_type(change, Dictionary)
        assert_type(stream.next(), Deferred[Dictionary])
        assert_type(await stream.try_next(), Dictionary | None)
        assert_type(stream.close(), Deferred[None])


async def raw_documents(books: Collection[RawBSONDocument]) -> None:
    """A collection whose documents stay BSON."""
    async for document in books.find():
        assert_type(document, RawBSONDocument)


async def clients(reactor: Any) -> None:
    """A client, and servers for tests."""
    mongod = await Mongod(reactor, auth=True).start()
    assert_type(mongod, Mongod)
    client: ConnectionPool[Dictionary] = ConnectionPool(mongod.uri, maxPoolSize=5)
    assert_type(await client.list_database_names(), list[str])
    async with client.start_session().bind(end_session=False) as session:
        assert_type(session, ClientSession)
    moved = await client.bulk_write([InsertOne({"_id": 1}, namespace="library.lent")], ordered=False)
    assert_type(moved, ClientBulkWriteResult)
    assert_type(client.disconnect(), Deferred[None])
    replica_set = await ReplicaSet(reactor, 3).start()
    assert_type(await replica_set.step_down(), Mongod)
