"""The keys of an index as PyMongo describes them and as TxMongo does, at once."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import Any, overload

from bson.son import SON

__all__ = ["KeyPairs"]


class KeyPairs(list[Any]):
    """A list of ``(key, direction)`` pairs that may also be read as the ordered mapping that it is in TxMongo.

    It is iterated over as a list. It is equal to a list of the same pairs, and to a mapping of them: in their order if
    that is a ``SON``.
    """

    @overload  # type: ignore[override]
    def __getitem__(self, index: int) -> tuple[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, Any]]: ...
    @overload
    def __getitem__(self, index: str) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        return dict(iter(self))[index] if isinstance(index, str) else super().__getitem__(index)

    def __contains__(self, item: object) -> bool:
        return any(item in (pair, pair[0]) for pair in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return bool(SON(list(self)) == other)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def get(self, key: str, default: Any = None) -> Any:
        """The direction of a key."""
        return dict(iter(self)).get(key, default)

    def keys(self) -> KeysView[str]:
        """The keys."""
        return dict(iter(self)).keys()

    def values(self) -> ValuesView[Any]:
        """The directions."""
        return dict(iter(self)).values()

    def items(self) -> ItemsView[str, Any]:
        """The pairs."""
        return dict(iter(self)).items()
