"""The documents and files of the benchmarks: generated, the same every time; nothing here imports a driver.

The driver benchmark specification measures with data sets of certain sizes, which its scores are counted in. Ours are
made here in the same sizes and of the same kind (a tweet, a small and a large document of plain JSON types, files of
JSON lines, random bytes); nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import string
from typing import Any

#: Bytes of the specification's source files, one document as JSON each.
TWEET_BYTES = 1622
SMALL_BYTES = 275
LARGE_BYTES = 2_731_089
#: Of a line of its LDJSON files, and of the file that GridFS tasks move.
LINE_BYTES = 1130
GRIDFS_BYTES = 52_428_800
GRIDFS_FILE_BYTES = 5_242_880
FILE_LINES = 5_000


def document(number: int) -> dict[str, Any]:
    """A document of about 1.6 KB and 20 fields beside its ``_id``; the same for the same number."""
    source = random.Random(number)
    result: dict[str, Any] = {"_id": number}
    for field in range(12):
        result[f"text{field}"] = _letters(source, 100)
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


def tweet() -> dict[str, Any]:
    """A message with its author and what else a feed tells about it: TWEET of the specification."""
    source = random.Random(1)
    author = {
        "id": source.randrange(1 << 30),
        "name": "Somebody Else",
        "screen_name": "somebody",
        "followers_count": 120,
        "friends_count": 45,
        "verified": False,
        "location": "Springfield",
        "url": None,
        "description": _letters(source, 140),
        "created_at": "Mon Jan 04 05:06:07 +0000 2010",
    }
    result = {
        "text": _letters(source, 140),
        "in_reply_to_status_id": None,
        "retweet_count": None,
        "contributors": None,
        "created_at": "Thu Sep 02 18:11:25 +0000 2010",
        "geo": None,
        "source": "web",
        "coordinates": {"type": "Point", "coordinates": [source.random(), source.random()]},
        "in_reply_to_screen_name": None,
        "truncated": False,
        "entities": {
            "user_mentions": [{"indices": [3, 18], "screen_name": "somebody", "id": n} for n in range(4)],
            "urls": [],
            "hashtags": ["twisted", "deferred"],
        },
        "retweeted": False,
        "user": author,
        "favorited": False,
        "id": 22819398300,
    }
    return _padded(result, TWEET_BYTES)


def small() -> dict[str, Any]:
    """A few short strings: SMALL_DOC of the specification."""
    source = random.Random(2)
    return _padded({f"field{number}": _letters(source, 20) for number in range(6)}, SMALL_BYTES)


def large() -> dict[str, Any]:
    """Some thousand sub-documents of numbers and strings: LARGE_DOC of the specification."""
    source = random.Random(3)
    parts = []
    for number in range(9_500):
        part: dict[str, Any] = {"number": number, "factor": source.random(), "active": bool(number % 2)}
        for field in range(4):
            part[f"text{field}"] = _letters(source, 40)
        parts.append(part)
    return _padded({"parts": parts}, LARGE_BYTES)


def line(number: int) -> dict[str, Any]:
    """One document of the LDJSON files."""
    source = random.Random(number)
    result: dict[str, Any] = {"number": number, "active": bool(number % 2), "score": source.random()}
    for field in range(10):
        result[f"text{field}"] = _letters(source, 80)
    return _padded(result, LINE_BYTES - 1)


def big_reply_documents() -> list[dict[str, Any]]:
    """20,000 documents of 2.1 KB: more than a MongoDB server puts into one batch, less than a message may hold."""
    text = "".join(random.Random(4).choices(string.ascii_letters, k=104))
    return [{"_id": number, **{f"text{field}": text for field in range(18)}} for number in range(20_000)]


def json_files(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """``count`` files of 5,000 JSON lines each; they are made where they are not there."""
    first = folder / "documents.json"
    if not first.exists():
        _write(first, "".join(json.dumps(line(number)) + "\n" for number in range(FILE_LINES)).encode())
    return _copies(first, count)


def binary_files(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """``count`` files of 5 MB of random bytes each; they are made where they are not there."""
    first = folder / "photo.bin"
    if not first.exists():
        _write(first, random.Random(5).randbytes(GRIDFS_FILE_BYTES))
    return _copies(first, count)


def large_file(folder: pathlib.Path) -> pathlib.Path:
    """A file of 50 MB of random bytes; it is made where it is not there."""
    file = folder / "large.bin"
    if not file.exists():
        _write(file, random.Random(6).randbytes(GRIDFS_BYTES))
    return file


def _letters(source: random.Random, count: int) -> str:
    return "".join(source.choices(string.ascii_letters, k=count))


def _padded(result: dict[str, Any], size: int) -> dict[str, Any]:
    """The document with one more field, so that its JSON has exactly ``size`` bytes."""
    result["padding"] = ""
    missing = size - len(json.dumps(result))
    if missing < 0:
        raise ValueError(f"the document is {-missing} bytes too long already")
    result["padding"] = _letters(random.Random(size), missing)
    return result


def _write(file: pathlib.Path, content: bytes) -> None:
    """Write a file whole or not at all: an interrupted run must not leave half of it to the next."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, file)


def _copies(first: pathlib.Path, count: int) -> list[pathlib.Path]:
    """``count`` files with the content of the first one; links, as far as the disk is concerned."""
    files = [first.with_name(f"{first.stem}{number:03}{first.suffix}") for number in range(count)]
    for file in files:
        if not file.exists():
            os.link(first, file)
    return files
