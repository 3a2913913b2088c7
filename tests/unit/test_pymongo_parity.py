"""PyMongo's asynchronous API, name by name: what it has is here, under the same name, with the same arguments.

What is not, or is otherwise, stands here with the reason. What the calls do is tried on servers: ``tests/integration``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import attrs
import pymongo
from gridfs.asynchronous import grid_file
from pymongo import common
from pymongo.asynchronous import (
    change_stream,
    client_session,
    collection,
    command_cursor,
    cursor,
    database,
    encryption,
    mongo_client,
)
from pymongo.client_options import ClientOptions
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import txmongo.change_stream
import txmongo.collection
import txmongo.connection
import txmongo.cursor
import txmongo.database
import txmongo.encryption
import txmongo.gridfs
import txmongo.sessions
from txmongo import _options
from txmongo._settings import ClientSettings

#: PyMongo's version that was looked at: earlier ones have less, and what later ones have is yet to be looked at.
LOOKED_AT = (4, 20)

#: PyMongo's class, ours, and whether users make objects of it themselves.
CLASSES: list[tuple[type, type, bool]] = [
    (mongo_client.AsyncMongoClient, txmongo.connection.ConnectionPool, True),
    (database.AsyncDatabase, txmongo.database.Database, True),
    (collection.AsyncCollection, txmongo.collection.Collection, True),
    (cursor.AsyncCursor, txmongo.cursor.Cursor, True),
    (cursor.AsyncRawBatchCursor, txmongo.cursor.RawBatchCursor, True),
    (command_cursor.AsyncCommandCursor, txmongo.cursor.CommandCursor, False),
    (command_cursor.AsyncRawBatchCommandCursor, txmongo.cursor.RawBatchCommandCursor, False),
    (change_stream.AsyncChangeStream, txmongo.change_stream.ChangeStream, False),
    (client_session.AsyncClientSession, txmongo.sessions.ClientSession, False),
    (client_session.SessionOptions, txmongo.sessions.SessionOptions, True),
    (client_session.TransactionOptions, txmongo.sessions.TransactionOptions, True),
    (encryption.AsyncClientEncryption, txmongo.encryption.ClientEncryption, True),
    (ClientOptions, ClientSettings, False),
    (grid_file.AsyncGridFS, txmongo.gridfs.GridFS, True),
    (grid_file.AsyncGridFSBucket, txmongo.gridfs.GridFSBucket, True),
    (grid_file.AsyncGridIn, txmongo.gridfs.GridIn, True),
    (grid_file.AsyncGridOut, txmongo.gridfs.GridOut, True),
    (grid_file.AsyncGridOutCursor, txmongo.gridfs.GridOutCursor, False),
]

#: Of the names that Python gives a meaning.
SPECIAL = {
    "__aenter__",
    "__aexit__",
    "__aiter__",
    "__anext__",
    "__copy__",
    "__deepcopy__",
    "__getitem__",
}

#: What there is not, and why.
NOT_THERE = {
    "AsyncMongoClient.HOST": "an attribute of a client is a database",
    "AsyncMongoClient.PORT": "an attribute of a client is a database",
    "AsyncMongoClient.eq_props": "clients are equal if they are the same one",
    "AsyncMongoClient.next": "it raises TypeError; here an attribute of a client is a database",
    "AsyncDatabase.next": "it raises TypeError; here an attribute of a database is a collection",
    "AsyncCollection.next": "it raises TypeError; here an attribute of a collection is a subcollection",
    "AsyncCursor.__getitem__": "it raises IndexError; without it that is a TypeError",
    "AsyncRawBatchCursor.__getitem__": "it raises InvalidOperation; without it that is a TypeError",
    "AsyncRawBatchCommandCursor.__getitem__": "it raises InvalidOperation; without it that is a TypeError",
    "AsyncGridOutCursor.__getitem__": "it raises IndexError; without it that is a TypeError",
    "ClientOptions.connect": "no client connects before it is used",
}

#: Methods that lack a parameter, or have it in another place or with another default, and why.
OTHER_PARAMETERS = {
    "AsyncMongoClient.__init__": "TxMongo's order; all but the first are given by name",
    "AsyncDatabase.__init__": "TxMongo's order and name of the client: get_database takes PyMongo's",
    "AsyncCollection.__init__": "TxMongo's order: get_collection takes PyMongo's, create_collection creates one",
    "AsyncGridOut.__init__": "TxMongo's second argument is the document, which an _id can be told from",
    "AsyncGridOutCursor.add_option": "PyMongo has that it does not exist",
    "AsyncGridOutCursor.remove_option": "PyMongo has that it does not exist",
}

#: What is not waited for, and why.
NOT_AWAITED = {
    "AsyncCursor.add_option": "it sends nothing",
    "AsyncCursor.rewind": "it sends nothing that is to be waited for",
    "AsyncRawBatchCursor.add_option": "it sends nothing",
    "AsyncRawBatchCursor.rewind": "it sends nothing that is to be waited for",
    "AsyncGridOutCursor.rewind": "it sends nothing that is to be waited for",
}


@attrs.frozen
class Member:
    """Something that PyMongo has, and what is here in its place."""

    name: str
    theirs: Any
    ours: Any

    @property
    def is_property(self) -> bool:
        """Whether it is read, not called."""
        return not callable(self.theirs)


def members() -> Iterator[tuple[str, type, type, str]]:
    """Every public name of PyMongo's classes: what it is called here, both classes, and itself."""
    for theirs, ours, made_by_users in CLASSES:
        for name in sorted(dir(theirs)):
            if not name.startswith("_") or name in SPECIAL or (name == "__init__" and made_by_users):
                yield f"{theirs.__name__}.{name}", theirs, ours, name


def shared() -> Iterator[Member]:
    """Those that are there, as the classes have them."""
    for full_name, theirs, ours, name in members():
        if hasattr(ours, name):
            yield Member(full_name, getattr(theirs, name), getattr(ours, name))


def parameters(function: Any) -> list[inspect.Parameter]:
    """What it takes, without the object itself."""
    found = list(inspect.signature(function).parameters.values())
    return found[1:] if found and found[0].name in ("self", "cls") else found


def lost_parameters(theirs: Any, ours: Any) -> list[str]:
    """Parameters of PyMongo's that are not here, or elsewhere, or have another default."""
    here = parameters(ours)
    kinds = {each.kind for each in here}
    lost = []
    for place, each in enumerate(parameters(theirs)):
        if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            if each.kind not in kinds:
                lost.append(str(each))
            continue
        in_place = place < len(here) and here[place].name == each.name and here[place].default == each.default
        by_name = each.kind is each.KEYWORD_ONLY and any(
            (found.name, found.default) == (each.name, each.default) for found in here
        )
        if not in_place and not by_name:
            lost.append(each.name)
    return lost


def is_awaited(value: Any) -> bool:
    """Whether it is a coroutine function of PyMongo's, or a property that gives a coroutine."""
    return inspect.iscoroutinefunction(value.fget if isinstance(value, property) else value)


def can_be_awaited(value: Any) -> bool:
    """Whether what it returns can be, as its annotation says."""
    function = value.fget if isinstance(value, property) else value
    returned = str(inspect.signature(function).return_annotation)
    words = ("Deferred", "Cursor", "Context")
    return inspect.iscoroutinefunction(function) or any(word in returned for word in words)


class ParityTests(SynchronousTestCase):
    """Everything that PyMongo's asynchronous classes have."""

    def setUp(self) -> None:
        """Another PyMongo has another API."""
        if pymongo.version_tuple[:2] != LOOKED_AT:
            raise SkipTest(f"PyMongo {pymongo.version} was not looked at")

    def test_names(self) -> None:
        """Every method and property is there."""
        missing = {full_name for full_name, _, ours, name in members() if not hasattr(ours, name)}
        self.assertEqual(missing, set(NOT_THERE))

    def test_kinds(self) -> None:
        """What is read there is read here, what is called there is called."""
        other = [each.name for each in shared() if each.is_property == callable(each.ours)]
        self.assertEqual(other, [])

    def test_parameters(self) -> None:
        """Every parameter is there, in the same place and with the same default."""
        lost = {
            each.name: lost_parameters(each.theirs, each.ours)
            for each in shared()
            if not each.is_property and each.name.rpartition(".")[2] not in SPECIAL
        }
        self.assertEqual({name for name, names in lost.items() if names}, set(OTHER_PARAMETERS))

    def test_awaited(self) -> None:
        """What is awaited there can be awaited here."""
        statically = {
            full_name: (inspect.getattr_static(theirs, name), inspect.getattr_static(ours, name))
            for full_name, theirs, ours, name in members()
            if name not in SPECIAL and hasattr(ours, name)
        }
        plain = {name for name, (theirs, ours) in statically.items() if is_awaited(theirs) and not can_be_awaited(ours)}
        self.assertEqual(plain, set(NOT_AWAITED))

    def test_client_options(self) -> None:
        """Every keyword that PyMongo's client documents is known, and so are the names of its options in the URI."""
        documented = re.findall(r"^\s+- `(\w+)`", mongo_client.AsyncMongoClient.__init__.__doc__ or "", re.MULTILINE)
        self.assertGreater(len(documented), 40)
        known = (
            set(_options._KEYWORD_VALIDATORS)
            | set(_options._ALIASES)
            | set(inspect.signature(txmongo.connection.ConnectionPool).parameters)
        )
        names = {*documented, *common.URI_OPTIONS_VALIDATOR_MAP, *common.KW_VALIDATORS}
        self.assertEqual({name for name in names if name.lower() not in known}, set())

    def test_rules(self) -> None:
        """What is missing is found."""

        def theirs(self: Any, a: int, b: int = 1, *, c: int = 2, **kwargs: Any) -> None: ...

        def same(self: Any, a: int, b: int = 1, more: int = 3, *, c: int = 2, **kwargs: Any) -> None: ...

        def fewer(self: Any, b: int = 1, a: int = 1, *, c: int = 3) -> None: ...

        self.assertEqual(lost_parameters(theirs, same), [])
        self.assertEqual(lost_parameters(theirs, fewer), ["a", "b", "c", "**kwargs: 'Any'"])
        self.assertGreater(len(list(shared())), 300)
