"""What is on the server before anything is measured; run once, by one driver."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import data
from gridfs import GridFSBucket

from drivers.driver import Driver

__all__ = ["fill"]

MICRO = "micro"
SPECIFICATION = "perftest"
DOWNLOADS = "perftest_downloads"
MANY = 10_000


async def fill(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Write what the tasks read; only PyMongo's blocking driver is asked for it.

    :returns: the versions of what answers.
    """
    client = driver.client(request["uri"])
    for part in request["parts"]:
        _FILLERS[part](client, request)
    return {"server": client.server_info()["version"]}


def _micro(client: Any, request: dict[str, Any]) -> None:
    database = client[MICRO]
    database.documents.insert_many([data.document(number) for number in range(1000)])
    database.many.insert_many([data.document(number) for number in range(MANY)])


def _specification(client: Any, request: dict[str, Any]) -> None:
    database, tweet = client[SPECIFICATION], data.tweet()
    database.by_id.insert_many([{**tweet, "_id": number} for number in range(1, request["tweets"] + 1)])
    database.all.insert_many([dict(tweet) for _ in range(request["tweets"])])
    lines = [data.line(number) for number in range(data.FILE_LINES)]
    ids = itertools.count()
    for _ in range(request["json_files"]):
        database.lines.insert_many([{**line, "_id": next(ids)} for line in lines], ordered=False)


def _downloads(client: Any, request: dict[str, Any]) -> None:
    folder = pathlib.Path(request["folder"])
    bucket = GridFSBucket(client[DOWNLOADS])
    bucket.upload_from_stream_with_id("large", "large", data.large_file(folder).read_bytes()[: request["gridfs_bytes"]])
    for number, file in enumerate(data.binary_files(folder, request["binary_files"])):
        bucket.upload_from_stream_with_id(number, file.name, file.read_bytes())


_FILLERS = {"micro": _micro, "specification": _specification, "downloads": _downloads}
