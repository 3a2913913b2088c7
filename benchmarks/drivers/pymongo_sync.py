"""PyMongo's MongoClient: a thread for each operation in flight."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

from gridfs import GridFSBucket
from pymongo import MongoClient

from drivers import scripts
from drivers.driver import Bucket, Driver, Unsupported, failure, ready, requests, respond


class Done:
    """The result of a call that has blocked until it was there."""

    __slots__ = ("_result",)

    def __init__(self, result: Any) -> None:
        self._result = result

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._result
        yield


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that blocks instead of waiting."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a script waited for something")


class SyncBucket(Bucket):
    """GridFS by the specification's interface."""

    def __init__(self, bucket: GridFSBucket) -> None:
        self._bucket = bucket

    async def upload(self, name: str, content: bytes) -> Any:
        return self._bucket.upload_from_stream(name, content)

    async def download(self, file_id: Any) -> bytes:
        return self._bucket.open_download_stream(file_id).read()

    async def upload_from(self, name: str, source: Any) -> Any:
        return self._bucket.upload_from_stream(name, source)

    async def download_to(self, file_id: Any, target: Any) -> None:
        self._bucket.download_to_stream(file_id, target)


class PyMongoSync(Driver):
    """MongoClient."""

    threads = True

    def connect(self, uri: str, connections: int = 0) -> Any:
        client: Any = MongoClient(uri, minPoolSize=connections) if connections else MongoClient(uri)
        return client

    async def close(self, client: Any) -> None:
        client.close()

    def find_one(self, collection: Any, query: dict[str, Any]) -> Awaitable[Any]:
        return Done(collection.find_one(query))

    def insert_one(self, collection: Any, document: dict[str, Any]) -> Awaitable[Any]:
        return Done(collection.insert_one(document))

    def insert_many(self, collection: Any, documents: list[Any], ordered: bool = True) -> Awaitable[Any]:
        return Done(collection.insert_many(documents, ordered=ordered))

    def find_all(self, collection: Any, query: dict[str, Any]) -> Awaitable[list[Any]]:
        return Done(collection.find(query).to_list())

    async def open_cursor(self, collection: Any, batch_size: int) -> Any:
        cursor = collection.find({}, batch_size=batch_size)
        next(cursor)
        return cursor

    def bulk_write(self, collection: Any, requests: list[Any]) -> Awaitable[Any]:
        return Done(collection.bulk_write(requests))

    def command(self, database: Any, name: str, value: Any = 1, **fields: Any) -> Awaitable[Any]:
        return Done(database.command(name, value, **fields))

    def bucket(self, database: Any) -> Bucket:
        return SyncBucket(GridFSBucket(database))

    async def gather(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        results: list[Any] = [None] * len(works)
        errors: list[BaseException] = []

        def body(index: int, work: Coroutine[Any, Any, Any]) -> None:
            try:
                results[index] = run(work)
            except BaseException as error:
                errors.append(error)

        if len(works) == 1:
            return [await works[0]]
        threads = [threading.Thread(target=body, args=each) for each in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results

    async def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def start(self, awaitable: Awaitable[Any]) -> Any:
        raise Unsupported("a blocking call cannot be cancelled")

    def serve(self) -> None:
        """Serve the parent until standard input ends."""
        respond(ready())
        for request in requests():
            try:
                answer = run(scripts.run(self, request))
            except Exception as error:
                answer = failure(error)
            respond(answer)
        run(self.close_all())


if __name__ == "__main__":
    PyMongoSync().serve()
