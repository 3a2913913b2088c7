"""Sort orders, hints, comments and explain as values that can be added: how TxMongo writes them.

::

    from txmongo import filter as qf

    await collection.find({"x": 1}, sort=qf.sort(qf.ASCENDING("y") + qf.DESCENDING("z")))
    await collection.find({"x": 1}, sort=qf.sort(qf.ASCENDING("y")) + qf.hint("y_1") + qf.comment("report"))
    await collection.create_index(qf.sort(qf.GEO2DSPHERE("place")))

They are taken wherever a sort order, a hint or the keys of an index are taken, and by ``find``, ``find_one`` and
``find_with_cursor`` all together, as ``sort``. Each is a dict, made of nothing but what was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

__all__ = [
    "ASCENDING",
    "DESCENDING",
    "GEO2D",
    "GEO2DSPHERE",
    "GEOHAYSTACK",
    "TEXT",
    "comment",
    "explain",
    "hint",
    "snapshot",
    "sort",
]

Keys = tuple[tuple[str, Any], ...]


def _direction(keys: str | Sequence[str], direction: int | str) -> Keys:
    """Pairs of each key and the direction.

    :raises TypeError: ``keys`` is neither a key nor a list of keys.
    """
    if isinstance(keys, str):
        return ((keys, direction),)
    if not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys):
        raise TypeError(f"keys must be a str or a list of str, not {type(keys).__name__}")
    return tuple((key, direction) for key in keys)


def ASCENDING(keys: str | Sequence[str]) -> Keys:
    """Ascending order.

    :param keys: a key or a list of keys.
    :returns: a tuple of pairs, which can be added to others.
    :raises TypeError: it is neither.
    """
    return _direction(keys, 1)


def DESCENDING(keys: str | Sequence[str]) -> Keys:
    """Descending order.

    :param keys: and the result: as of :func:`ASCENDING`.
    """
    return _direction(keys, -1)


def GEO2D(keys: str | Sequence[str]) -> Keys:
    """An index on positions in a plane.

    https://www.mongodb.com/docs/manual/core/indexes/index-types/geospatial/2d/

    :param keys: and the result: as of :func:`ASCENDING`.
    """
    return _direction(keys, "2d")


def GEO2DSPHERE(keys: str | Sequence[str]) -> Keys:
    """An index on positions and shapes on a sphere.

    https://www.mongodb.com/docs/manual/core/indexes/index-types/geospatial/2dsphere/

    :param keys: and the result: as of :func:`ASCENDING`.
    """
    return _direction(keys, "2dsphere")


def GEOHAYSTACK(keys: str | Sequence[str]) -> Keys:
    """An index on positions in buckets, for MongoDB 4.4: later servers refuse it.

    :param keys: and the result: as of :func:`ASCENDING`.
    """
    return _direction(keys, "geoHaystack")


def TEXT(keys: str | Sequence[str]) -> Keys:
    """An index on words.

    https://www.mongodb.com/docs/manual/core/indexes/index-types/index-text/

    :param keys: and the result: as of :func:`ASCENDING`.
    """
    return _direction(keys, "text")


class _QueryFilter(dict[str, Any]):
    """What is said of a query beside the query: a dict of ``orderby``, ``hint``, ``comment``, ``explain`` and
    ``snapshot``.

    ``a + b`` has what both say: sort orders one after the other; of the rest what ``b`` says.
    """

    #: What can stand as a direction beside documents such as ``{"$meta": "textScore"}``.
    ALLOWED_DIRECTIONS = frozenset({1, -1, "2d", "2dsphere", "geoHaystack", "text", "hashed"})

    def __add__(self, other: Mapping[str, Any]) -> Self:
        if not isinstance(other, Mapping):
            return NotImplemented
        together = type(self).__new__(type(self))
        together.update(self)
        for name, value in other.items():
            mine = self.get(name)
            both = isinstance(mine, tuple) and isinstance(value, tuple)
            together[name] = mine + value if both else value
        return together

    def __repr__(self) -> str:
        return f"<mongodb QueryFilter: {dict(self)!r}>"

    @classmethod
    def _is_pair(cls, item: Any) -> bool:
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[0], str):
            return False
        direction = item[1]
        if isinstance(direction, Mapping):
            return True
        return isinstance(direction, (int, str)) and direction in cls.ALLOWED_DIRECTIONS

    def _keys(self, name: str, keys: Any) -> Keys:
        """Pairs for a mapping, a list of pairs, or one pair.

        :raises TypeError: it is none of these, or there is no key.
        """
        if isinstance(keys, Mapping):
            keys = tuple(keys.items())
        elif isinstance(keys, tuple) and self._is_pair(keys):
            keys = (keys,)
        if not isinstance(keys, (list, tuple)) or not keys or not all(self._is_pair(pair) for pair in keys):
            raise TypeError(
                f"{name}: invalid list of keys: (key, direction) pairs are wanted, as qf.ASCENDING makes them"
            )
        return tuple((key, direction) for key, direction in keys)


class sort(_QueryFilter):
    """The order of the documents, or the keys of an index.

    :param key_list: (key, direction) pairs, as :func:`ASCENDING` and its like make them; a mapping, which may be empty
        for no order; or one pair.
    :raises TypeError: it is none of these.
    """

    def __init__(self, key_list: Any) -> None:
        super().__init__()
        if key_list or not isinstance(key_list, Mapping):
            self["orderby"] = self._keys("key_list", key_list)


class hint(_QueryFilter):
    """The index that the server uses.

    :param index_list_or_name: its name, or its keys as of :class:`sort`.
    :raises TypeError: it is neither.
    """

    def __init__(self, index_list_or_name: Any) -> None:
        super().__init__()
        by_name = isinstance(index_list_or_name, str)
        self["hint"] = index_list_or_name if by_name else self._keys("index_list_or_name", index_list_or_name)


class explain(_QueryFilter):
    """Get the server's plan for the query instead of the documents.

    :param verbosity: ``"queryPlanner"``, ``"executionStats"`` or ``"allPlansExecution"``, the server's default, in
        which it runs the query and all plans that it might have chosen.
    :raises TypeError: it is not a str.
    """

    def __init__(self, verbosity: str | None = None) -> None:
        super().__init__()
        if verbosity is not None and not isinstance(verbosity, str):
            raise TypeError(f"verbosity must be a str, not {type(verbosity).__name__}")
        self["explain"] = True if verbosity is None else verbosity


class snapshot(_QueryFilter):
    """See no document twice that changes meanwhile.

    No server of today knows it. What it did is done by going along the index on ``_id``: with no other hint this is
    that hint.
    """

    def __init__(self) -> None:
        super().__init__()
        self["snapshot"] = True


class comment(_QueryFilter):
    """A comment that the server shows in its log, profiler and ``currentOp``.

    :param comment: any value that BSON can hold.
    """

    def __init__(self, comment: Any) -> None:
        super().__init__()
        self["comment"] = comment
