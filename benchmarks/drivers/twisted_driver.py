"""What the Twisted drivers with TxMongo's interface have in common: ours and txmongo 26."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner

from drivers import scripts
from drivers.driver import Bucket, Driver, failure, ready, requests, respond
from txmongo.connection import ConnectionPool

#: How much of a file is held in memory where it is moved in pieces.
PIECE = 255 * 1024


class GridFSBucket(Bucket):
    """GridFS by TxMongo 15.2's interface."""

    def __init__(self, gridfs: Any) -> None:
        self._gridfs = gridfs

    async def upload(self, name: str, content: bytes) -> Any:
        return await self._gridfs.put(content, filename=name)

    async def download(self, file_id: Any) -> bytes:
        stream = await self._gridfs.get(file_id)
        content: bytes = await stream.read()
        return content

    async def upload_from(self, name: str, source: Any) -> Any:
        file = self._gridfs.new_file(filename=name)
        while piece := source.read(PIECE):
            await file.write(piece)
        await file.close()
        return file._id

    async def download_to(self, file_id: Any, target: Any) -> None:
        stream = await self._gridfs.get(file_id)
        while piece := await stream.read(PIECE):
            target.write(piece)


class TwistedDriver(Driver):
    """A driver whose calls are Deferreds.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self.clock = clock

    def connect(self, uri: str, connections: int = 0) -> Any:
        return ConnectionPool(uri, pool_size=connections) if connections else ConnectionPool(uri)

    async def close(self, client: Any) -> None:
        await client.disconnect()

    def find_all(self, collection: Any, query: dict[str, Any]) -> Awaitable[list[Any]]:
        result: Awaitable[list[Any]] = collection.find(query)
        return result

    async def gather(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        return list(await gatherResults([Deferred.fromCoroutine(work) for work in works], consumeErrors=True))

    async def sleep(self, seconds: float) -> None:
        await deferLater(self.clock, seconds)

    def start(self, awaitable: Awaitable[Any]) -> Any:
        call: Any = awaitable
        call.addErrback(lambda failure: None)
        return call

    async def serve(self) -> None:
        """Serve the parent until standard input ends."""
        respond(ready())
        lines = requests()
        while (request := await deferToThread(next, lines, None)) is not None:
            try:
                answer = await scripts.run(self, request)
            except Exception as error:
                answer = failure(error)
            respond(answer)
        await self.close_all()


def main(driver_class: type[TwistedDriver]) -> None:
    """Run a driver's process; what it logs is of no interest."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    react(lambda clock: Deferred.fromCoroutine(driver_class(clock).serve()))
