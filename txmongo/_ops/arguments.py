"""Checks of what a caller passed, shared by the methods of the fronts.

Each raises at the call, names the argument, and says what it takes; the types are those that PyMongo accepts. None of
them changes or copies a caller's document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from bson.raw_bson import RawBSONDocument
from bson.regex import Regex

from txmongo._ops.base import collation_document
from txmongo.errors import InvalidName
from txmongo.filter import _QueryFilter

__all__ = [
    "check_array_filters",
    "check_boolean",
    "check_collection_name",
    "check_database_name",
    "check_document",
    "check_mapping",
    "check_optional_mapping",
    "check_replacement",
    "check_update",
    "hint_value",
    "index_document",
    "index_name",
    "is_id_equality",
    "projection_document",
    "read_fields",
    "sort_document",
    "with_comment",
]

_ASCENDING = 1
_FORBIDDEN_IN_DATABASE_NAMES = ' .$/\\\0"'


def check_collection_name(name: Any, argument: str = "name") -> None:
    """Refuse what no collection can be called.

    :raises TypeError: it is not a str.
    :raises InvalidName: it is empty, or has a character or a dot where the server allows none.
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a str, not {type(name).__name__}")
    if not name or ".." in name:
        raise InvalidName(f"{argument}: a collection's name cannot be empty, nor a part of it between dots")
    if "$" in name and not name.startswith(("oplog.$main", "$cmd")):
        raise InvalidName(f"{argument}: a collection's name must not contain '$': {name!r}")
    if name[0] == "." or name[-1] == ".":
        raise InvalidName(f"{argument}: a collection's name must not start or end with '.': {name!r}")
    if "\0" in name:
        raise InvalidName(f"{argument}: a collection's name must not contain the null character")


def check_database_name(name: Any, argument: str = "name") -> None:
    """Refuse what no database can be called.

    :raises TypeError: it is not a str.
    :raises InvalidName: it is empty or has a character that the server does not allow.
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a str, not {type(name).__name__}")
    if not name:
        raise InvalidName(f"{argument}: a database's name cannot be empty")
    if name != "$external":
        for character in _FORBIDDEN_IN_DATABASE_NAMES:
            if character in name:
                raise InvalidName(f"{argument}: a database's name cannot contain {character!r}: {name!r}")


def check_mapping(name: str, value: Any) -> None:
    """Refuse a filter or the like that is not a mapping.

    :raises TypeError: with ``name`` in its text.
    """
    # dict goes first: it is what nearly everybody passes, and the check of an abstract class costs ten times as much.
    if not isinstance(value, (dict, Mapping)):
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
    if not isinstance(value, (dict, MutableMapping, RawBSONDocument)):
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
    # To ask for the class of raw BSON, which is an abstract one, takes as long as all the rest.
    if type(replacement) is not dict and isinstance(replacement, RawBSONDocument):
        return
    if replacement and next(iter(replacement)).startswith("$"):
        raise ValueError("replacement must be a whole document: it can not include $ operators")


def check_update(update: Any) -> None:
    """Refuse an update that is neither a document of operators nor a pipeline; the server looks at the rest of it.

    :raises TypeError: it is neither a mapping nor a list.
    :raises ValueError: it is empty, or a document whose first key is no operator.
    """
    if not isinstance(update, (dict, list, Mapping)):
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


def index_document(name: str, keys: Any) -> dict[str, Any]:
    """The document for a sort order or for an index's keys.

    :param name: the argument's name, for errors.
    :param keys: a mapping, or a sequence of keys and ``(key, direction)`` pairs; a key alone is ascending. TxMongo's
        forms too: one pair as a tuple, and a filter of :mod:`txmongo.filter`.
    :raises TypeError: ``keys`` is neither, or a key or direction is of a type that no index has.
    :raises ValueError: there is no key at all.
    """
    if isinstance(keys, _QueryFilter):
        keys = _only(name, keys, "orderby")
    elif isinstance(keys, tuple) and _QueryFilter._is_pair(keys):
        keys = (keys,)
    if not isinstance(keys, (list, tuple, Mapping)):
        raise TypeError(f"{name} must be a mapping or a list of (key, direction) pairs, not {type(keys).__name__}")
    if not keys:
        raise ValueError(f"{name} must not be empty")
    if isinstance(keys, Mapping):
        pairs: Iterable[Any] = keys.items()
    else:
        pairs = ((item, _ASCENDING) if isinstance(item, str) else item for item in keys)
    document: dict[str, Any] = {}
    for key, direction in pairs:
        if not isinstance(key, str):
            raise TypeError(f"{name}: each key must be a str, not {type(key).__name__}")
        if not isinstance(direction, (str, int, Mapping)):
            raise TypeError(
                f"{name}: the direction of {key!r} must be 1, -1, or the name or document of another kind of index, "
                f"not {type(direction).__name__}"
            )
        document[key] = direction
    return document


def sort_document(sort: Any) -> dict[str, Any] | None:
    """The ``sort`` field of a command; ``None`` if no order is wanted.

    :raises TypeError: it is no order.
    :raises ValueError: it is empty keys, other than ``txmongo.filter.sort({})``.
    """
    if sort is None or (isinstance(sort, _QueryFilter) and not sort):
        return None
    return index_document("sort", sort)


def hint_value(hint: Any) -> str | dict[str, Any] | None:
    """The ``hint`` field of a command: an index's name, or its keys.

    :raises TypeError: it is neither.
    :raises ValueError: it is empty keys.
    """
    if isinstance(hint, _QueryFilter):
        hint = _only("hint", hint, "hint")
    return hint if hint is None or isinstance(hint, str) else index_document("hint", hint)


def _only(name: str, said: _QueryFilter, what: str) -> Any:
    """What a filter says that must say nothing else.

    :raises TypeError: it says something else.
    """
    if set(said) != {what}:
        wanted = "hint" if what == "hint" else "sort"
        raise TypeError(f"{name}: of the filters of txmongo.filter only {wanted} can be given here")
    return said[what]


def index_name(keys: Mapping[str, Any]) -> str:
    """The name that an index has when none is given, such as ``name_1_dob_-1``."""
    return "_".join(f"{key}_{direction}" for key, direction in keys.items())


def projection_document(
    projection: Mapping[str, Any] | Sequence[str] | AbstractSet[str] | None, name: str = "projection"
) -> Mapping[str, Any] | None:
    """The document for a projection; names alone mean that those fields are wanted, and no name that none is but _id.

    :raises TypeError: it is neither a mapping nor a collection of names.
    """
    if projection is None or isinstance(projection, Mapping):
        return projection
    if isinstance(projection, str) or not isinstance(projection, (Sequence, AbstractSet)):
        raise TypeError(f"{name} must be a mapping or a list of field names, not {type(projection).__name__}")
    fields: Iterable[Any] = projection
    if not all(isinstance(field, str) for field in fields):
        raise TypeError(f"{name} must be a list of field names, each a str")
    return dict.fromkeys(fields, 1) or {"_id": 1}


def is_id_equality(query: Mapping[str, Any]) -> bool:
    """Whether a filter names one ``_id`` and nothing else: the server finds that at once, whatever the data."""
    if len(query) != 1:
        return False
    value = query.get("_id", query)
    return not isinstance(value, (dict, Mapping, Regex, re.Pattern))


def read_fields(keywords: Mapping[str, Any], comment: Any = None) -> dict[str, Any]:
    """The fields of a command that reads, for keywords that are spelled as the server spells them.

    ``max_time_ms``, TxMongo's spelling, is taken too; what is ``None`` is left out.

    :raises TypeError: ``hint`` or ``collation`` is of another type than those can have.
    """
    fields = {**keywords, "comment": comment}
    if "max_time_ms" in fields:
        fields["maxTimeMS"] = fields.pop("max_time_ms")
    if "hint" in fields:
        fields["hint"] = hint_value(fields["hint"])
    if "collation" in fields:
        fields["collation"] = collation_document(fields["collation"])
    return {name: value for name, value in fields.items() if value is not None}


def with_comment(fields: dict[str, Any], comment: Any) -> dict[str, Any]:
    """The fields of a command and ``comment`` if there is one."""
    return fields if comment is None else {**fields, "comment": comment}
