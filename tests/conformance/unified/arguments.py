"""Turns the arguments of the format into the driver's: names, and the values that are objects in Python. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pymongo import (
    CursorType,
    DeleteMany,
    DeleteOne,
    InsertOne,
    ReplaceOne,
    ReturnDocument,
    UpdateMany,
    UpdateOne,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import make_read_preference, read_pref_mode_from_name
from pymongo.write_concern import WriteConcern

from tests.conformance.unified.failures import FormatError

__all__ = [
    "convert",
    "convert_for_update",
    "hex_bytes",
    "read_concern",
    "read_preference",
    "snake_case",
    "take",
    "write_concern",
    "write_models",
]

WRITE_CONCERN = {"w": "w", "journal": "j", "wtimeoutMS": "wtimeout"}
CURSOR_TYPES = {
    "nonTailable": CursorType.NON_TAILABLE,
    "tailable": CursorType.TAILABLE,
    "tailableAwait": CursorType.TAILABLE_AWAIT,
}


def snake_case(name: str) -> str:
    """A camelCase name in PyMongo's spelling: ``maxTimeMS`` is ``max_time_ms``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def take(arguments: Mapping[str, Any], required: str = "", optional: str = "") -> dict[str, Any]:
    """The arguments, checked.

    :param required: names of those that must be there, separated by blanks.
    :param optional: names of those that may be.
    :raises FormatError: one is missing or unknown.
    """
    missing = [name for name in required.split() if name not in arguments]
    unknown = set(arguments) - set(required.split()) - set(optional.split())
    if missing or unknown:
        raise FormatError(f"missing arguments: {missing}; unknown arguments: {sorted(unknown)}")
    return dict(arguments)


def convert(name: str, value: Any) -> Any:
    """An argument's value as the driver takes it."""
    match name:
        case "readConcern":
            return read_concern(value)
        case "writeConcern":
            return write_concern(value)
        case "readPreference":
            return read_preference(value)
        case "keys":
            return list(value.items())
        case "sort" | "hint" | "min" | "max" if isinstance(value, Mapping):
            return list(value.items())
        case "returnDocument":
            return return_document(value)
        case "cursorType":
            return cursor_type(value)
        case "requests":
            return write_models(value)
        case "models":
            return write_models(value, with_namespace=True)
        case _:
            return value


def convert_for_update(name: str, value: Any) -> Any:
    """The same for updates and replacements, whose sort is a document."""
    return value if name == "sort" else convert(name, value)


def read_concern(value: Mapping[str, Any]) -> ReadConcern:
    """A read concern from its document."""
    return ReadConcern(**take(value, optional="level"))


def write_concern(value: Mapping[str, Any]) -> WriteConcern:
    """A write concern from its document."""
    return WriteConcern(**{WRITE_CONCERN[name]: one for name, one in take(value, "", " ".join(WRITE_CONCERN)).items()})


def read_preference(value: Mapping[str, Any]) -> Any:
    """A read preference from its document, whose mode some cases write with a capital."""
    options = take(value, "mode", "tagSets maxStalenessSeconds")
    mode = options["mode"][:1].lower() + options["mode"][1:]
    try:
        number = read_pref_mode_from_name(mode)
    except ValueError:
        raise FormatError(f"there is no read preference {mode!r}") from None
    return make_read_preference(number, options.get("tagSets"), options.get("maxStalenessSeconds", -1))


def return_document(value: str) -> bool:
    """ReturnDocument from ``Before`` or ``After``, in any case."""
    match value.lower():
        case "before":
            return ReturnDocument.BEFORE
        case "after":
            return ReturnDocument.AFTER
        case _:
            raise FormatError(f"returnDocument is {value!r}")


def cursor_type(value: str) -> int:
    """CursorType from the format's name of it."""
    if value not in CURSOR_TYPES:
        raise FormatError(f"cursorType is {value!r}")
    return CURSOR_TYPES[value]


def hex_bytes(value: Any) -> bytes:
    """Bytes from ``{"$$hexBytes": "12ab"}``."""
    try:
        if list(value) != ["$$hexBytes"]:
            raise ValueError(value)
        return bytes.fromhex(value["$$hexBytes"])
    except (ValueError, TypeError):
        raise FormatError(f"malformed bytes: {value!r}") from None


#: For each write model its class, what it must have and what it may have.
MODELS: dict[str, tuple[Any, str, str]] = {
    "insertOne": (InsertOne, "document", ""),
    "updateOne": (UpdateOne, "filter update", "upsert collation arrayFilters hint sort"),
    "updateMany": (UpdateMany, "filter update", "upsert collation arrayFilters hint"),
    "replaceOne": (ReplaceOne, "filter replacement", "upsert collation hint sort"),
    "deleteOne": (DeleteOne, "filter", "collation hint"),
    "deleteMany": (DeleteMany, "filter", "collation hint"),
}


def write_models(models: list[Mapping[str, Any]], *, with_namespace: bool = False) -> list[Any]:
    """The requests of a bulk write, of a collection or (`with_namespace`) of a client."""
    found = []
    for model in models:
        if len(model) != 1 or next(iter(model)) not in MODELS:
            raise FormatError(f"no write model: {model!r}")
        ((name, arguments),) = model.items()
        made, required, optional = MODELS[name]
        arguments = take(arguments, required + (" namespace" if with_namespace else ""), optional)
        found.append(made(**{snake_case(key): convert_for_update(key, value) for key, value in arguments.items()}))
    return found
