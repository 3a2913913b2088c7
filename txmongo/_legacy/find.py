"""What ``find`` and its like were called with: the arguments of TxMongo 15.2 and 26.0 in today's words.

15.2 had ``(spec, skip, limit, fields, filter, cursor)``, where ``filter`` says how to query; 26.0 has ``(filter,
projection, skip, limit, sort)``, where ``filter`` is the query and ``sort`` may say the rest too; PyMongo goes on
differently after ``limit``. They are told apart by types, and whatever cannot be told apart is refused. All of this is
decided here without doing anything: see :func:`find_request`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from txmongo.filter import _QueryFilter

__all__ = ["FindRequest", "find_request"]

#: PyMongo's order.
_MODERN = (
    "filter",
    "projection",
    "skip",
    "limit",
    "no_cursor_timeout",
    "cursor_type",
    "sort",
    "allow_partial_results",
    "oplog_replay",
    "batch_size",
    "collation",
    "hint",
    "max_scan",
    "max_time_ms",
    "max",
    "min",
    "return_key",
    "show_record_id",
    "snapshot",
    "comment",
    "session",
    "allow_disk_use",
    "let",
)
_OF_15 = ("filter", "skip", "limit", "projection", "modifiers", "cursor")
_OF_26 = ("filter", "projection", "skip", "limit", "sort", "batch_size")

#: What 15.2's filters, and the fields of an old query, are called today.
_MODIFIERS = {
    "orderby": "sort",
    "hint": "hint",
    "comment": "comment",
    "explain": "explain",
    "snapshot": "snapshot",
    "maxtimems": "max_time_ms",
    "maxscan": "max_scan",
    "max": "max",
    "min": "min",
    "returnkey": "return_key",
    "showdiskloc": "show_record_id",
    "showrecordid": "show_record_id",
}

SLAVE_OK = 4
TAILABLE = 2


@attrs.frozen
class FindRequest:
    """What a call asks for.

    :ivar keywords: arguments of today's ``find``.
    :ivar deprecated: what was used that is deprecated, each with what to use instead.
    :ivar flags: of the old query message, beside :attr:`slave_ok`.
    :ivar slave_ok: other members than the primary may be asked.
    :ivar as_class: what to make of the documents; ``None`` for the collection's class.
    :ivar explain: the verbosity of a plan that is wanted instead, ``True`` for the server's default.
    :ivar pages: whether page after page is wanted (``cursor=True``).
    """

    keywords: dict[str, Any]
    deprecated: tuple[tuple[str, str], ...] = ()
    flags: int = 0
    slave_ok: bool = False
    as_class: Any = None
    explain: Any = None
    pages: bool = False

    @property
    def tailable(self) -> bool:
        """Whether the cursor stays open at its end."""
        return bool(self.flags & TAILABLE or self.keywords.get("cursor_type", 0) & TAILABLE)


def find_request(method: str, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> FindRequest:
    """Take the arguments of a call apart.

    :param method: ``find``, ``find_one`` or ``find_with_cursor``.
    :raises TypeError: an argument is given twice or is of the wrong type, or there are too many.
    """
    deprecated: list[tuple[str, str]] = []
    given = _positional(method, args, deprecated)
    for name, value in keywords.items():
        name = "modifiers" if name == "filter" and _is_modifier(value, given, keywords) else name
        if name in given:
            raise TypeError(f"{method}() got multiple values for argument {name.replace('modifiers', 'filter')!r}")
        given[name] = value
    explain = _take_modifiers(given, deprecated)
    _rename(given, "spec", "filter", deprecated)
    _rename(given, "fields", "projection", deprecated)
    if isinstance(given.get("filter"), _QueryFilter):
        raise TypeError("filter: a query was expected; sort orders, hints and the like are given as sort")
    pages = False
    if method == "find" and "cursor" in given:
        pages = bool(given.pop("cursor"))
        deprecated.append(("cursor", "find_with_cursor"))
    as_class = given.pop("as_class", None)
    if as_class is not None:
        if not isinstance(as_class, type):
            raise TypeError(f"as_class must be a class of mappings, not {type(as_class).__name__}")
        deprecated.append(("as_class", "with_options(codec_options=CodecOptions(document_class=...))"))
    flags = given.pop("flags", 0)
    if not isinstance(flags, int) or isinstance(flags, bool):
        raise TypeError(f"flags must be an int, not {type(flags).__name__}")
    return FindRequest(given, tuple(deprecated), flags & ~SLAVE_OK, bool(flags & SLAVE_OK), as_class, explain, pages)


def _positional(method: str, args: tuple[Any, ...], deprecated: list[tuple[str, str]]) -> dict[str, Any]:
    """Positional arguments by name, in that of the orders which their types tell."""
    names: tuple[str, ...] = _MODERN
    if method == "find_one":
        if len(args) == 4 and not isinstance(args[3], int):
            names = (*_MODERN[:3], "sort")
    elif len(args) > 1 and isinstance(args[1], int):
        names = _OF_15 if method == "find" else _OF_15[:-1]
        deprecated.append(("the order (spec, skip, limit, fields, filter)", "(filter, projection, skip, limit, sort)"))
    elif method == "find_with_cursor" or (len(args) == 5 and not isinstance(args[4], bool)):
        names = _OF_26
    if len(args) > len(names):
        raise TypeError(f"{method}() takes at most {len(names)} positional arguments, and {len(args)} were given")
    return dict(zip(names, args, strict=False))


def _is_modifier(value: Any, given: Mapping[str, Any], keywords: Mapping[str, Any]) -> bool:
    """Whether the keyword ``filter`` says how to query: by its type, or because the query is given already."""
    return isinstance(value, _QueryFilter) or "filter" in given or "spec" in given or "spec" in keywords


def _take_modifiers(given: dict[str, Any], deprecated: list[tuple[str, str]]) -> Any:
    """Make keywords of what 15.2's filters say, as ``sort`` or as what 15.2 called ``filter``.

    :returns: the verbosity if the plan is wanted.
    :raises TypeError: they are no filters, say what no server knows, or what is said otherwise too.
    """
    found: dict[str, Any] = {}
    if isinstance(given.get("sort"), _QueryFilter):
        found = _keywords_of(given.pop("sort"))
    modifiers = given.pop("modifiers", None)
    if modifiers is not None:
        deprecated.append(("filter for anything but the query", "sort"))
        found = {**found, **_keywords_of(modifiers)}
    explain = found.pop("explain", None)
    if found.pop("snapshot", False) and given.get("hint") is None:
        # No server of today knows it. Going along the index on _id gives the same: each document once.
        found.setdefault("hint", {"_id": 1})
    for name, value in found.items():
        if given.get(name) is not None:
            raise TypeError(f"{name} is given twice: as an argument and in a filter")
        given[name] = value
    return explain or None


def _keywords_of(modifiers: Any) -> dict[str, Any]:
    """Today's keywords for the fields of a filter."""
    if not isinstance(modifiers, Mapping):
        raise TypeError(f"filter: a filter of txmongo.filter was expected, not {type(modifiers).__name__}")
    keywords = {}
    for name, value in modifiers.items():
        keyword = _MODIFIERS.get(str(name).lstrip("$").lower())
        if keyword is None:
            raise TypeError(f"filter: {name!r} is nothing that can be said of a query")
        keywords[keyword] = value
    return keywords


def _rename(given: dict[str, Any], old: str, new: str, deprecated: list[tuple[str, str]]) -> None:
    """Give an argument its name of today."""
    if old not in given:
        return
    if new in given:
        raise TypeError(f"{old} and {new} are the same argument under two names: give one")
    value = given.pop(old)
    given[new] = value
    deprecated.append((old, new))
