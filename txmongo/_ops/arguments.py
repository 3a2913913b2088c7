"""Checks of what a caller passed, shared by the methods of the fronts.

Each raises at the call, names the argument, and says what it takes; the types are those that PyMongo accepts. None of
them changes or copies a caller's document. Keys, sorts and hints are :mod:`txmongo._ops.keys`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from bson.raw_bson import RawBSONDocument
from bson.regex import Regex

__all__ = [
    "check_array_filters",
    "check_boolean",
    "check_document",
    "check_mapping",
    "check_optional_mapping",
    "check_replacement",
    "check_update",
    "is_id_equality",
    "projection_document",
]


def check_mapping(name: str, value: Any) -> None:
    """Refuse a filter or the like that is not a mapping.

    :raises TypeError: with ``name`` in its text.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping such as dict or bson.son.SON, not {type(value).__name__}")


def check_optional_mapping(name: str, value: Any) -> None:
    """Refuse an option that was given and is not a mapping.

    :raises TypeError: with ``name`` in its text.
    """
    if value is not None:
        check_mapping(name, value)


def check_document(name: str, value: Any) -> None:
    """Refuse what cannot be stored as a document.

    :raises TypeError: with ``name`` in its text.
    """
    if not isinstance(value, (MutableMapping, RawBSONDocument)):
        raise TypeError(
            f"{name} must be a mutable mapping such as dict or bson.son.SON, or a bson.raw_bson.RawBSONDocument, "
            f"not {type(value).__name__}"
        )


def check_replacement(replacement: Any) -> None:
    """Refuse a replacement that is not a whole document; an empty one is.

    :raises TypeError: it is not a mapping.
    :raises ValueError: it starts with an operator.
    """
    check_mapping("replacement", replacement)
    if replacement and not isinstance(replacement, RawBSONDocument) and next(iter(replacement)).startswith("$"):
        raise ValueError("replacement must be a whole document: it can not include $ operators")


def check_update(update: Any) -> None:
    """Refuse an update that is neither a document of operators nor a pipeline; the server looks at the rest of it.

    :raises TypeError: it is neither a mapping nor a list.
    :raises ValueError: it is empty, or a document whose first key is no operator.
    """
    if not isinstance(update, (Mapping, list)):
        raise TypeError(f"update must be a mapping of operators or a list of stages, not {type(update).__name__}")
    if not update:
        raise ValueError("update cannot be empty")
    if not isinstance(update, list) and not next(iter(update)).startswith("$"):
        raise ValueError("update only works with $ operators; use replace_one for a whole document")


def check_boolean(name: str, value: Any) -> None:
    """Refuse a flag that is not a bool, as PyMongo does.

    :raises TypeError: with ``name`` in its text.
    """
    if value is not True and value is not False:
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")


def check_array_filters(value: Any) -> None:
    """Refuse ``array_filters`` that are given and are not a list.

    :raises TypeError: names the argument.
    """
    if value is not None and not isinstance(value, list):
        raise TypeError(f"array_filters must be a list, not {type(value).__name__}")


def projection_document(
    projection: Mapping[str, Any] | Sequence[str] | AbstractSet[str] | None, name: str = "projection"
) -> Mapping[str, Any] | None:
    """The document for a projection; names alone mean that those fields are wanted.

    :raises TypeError: it is neither a mapping nor a collection of names.
    """
    if projection is None or isinstance(projection, Mapping):
        return projection
    if isinstance(projection, str) or not isinstance(projection, (Sequence, AbstractSet)):
        raise TypeError(f"{name} must be a mapping or a list of field names, not {type(projection).__name__}")
    fields: Iterable[Any] = projection
    if not all(isinstance(field, str) for field in fields):
        raise TypeError(f"{name} must be a list of field names, each a str")
    return dict.fromkeys(fields, 1)


def is_id_equality(query: Mapping[str, Any]) -> bool:
    """Whether a filter names one ``_id`` and nothing else: the server finds that at once, whatever the data."""
    if len(query) != 1:
        return False
    value = query.get("_id", query)
    return not isinstance(value, (Mapping, Regex, re.Pattern))
