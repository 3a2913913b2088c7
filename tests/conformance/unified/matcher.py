"""Compares expected with actual values ("Evaluating Matches" of the unified test format).

Pure: no driver, no server. Strict: arrays match in length, a document below the root has no extra key, a boolean is no
number, ``null`` is not a missing key.
"""

from __future__ import annotations

import datetime
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import bson
from bson import json_util
from bson.binary import Binary
from bson.code import Code
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from tests.conformance.unified.failures import FormatError, Mismatch

__all__ = ["UNSET", "EntityValues", "Matcher", "type_name"]


class _Unset:
    """The type of :data:`UNSET`."""

    def __repr__(self) -> str:
        return "<unset>"


#: Stands for a value that is not there at all.
UNSET: Final = _Unset()

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
NUMBERS = frozenset({"double", "int", "long"})


class EntityValues(Protocol):
    """What the matcher may ask of the entity map."""

    def bson_value(self, name: str) -> Any:
        """The BSON value saved under a name."""
        ...

    def session_id(self, name: str) -> Mapping[str, Any]:
        """The logical session id of a session entity."""
        ...


class Matcher:
    """Matches values; the operators that name an entity look it up in the map given."""

    def __init__(self, entities: EntityValues) -> None:
        self._entities = entities
        self._operators: dict[str, Callable[[Any, Any, str, bool], None]] = {
            "$$exists": self._exists,
            "$$unsetOrMatches": self._unset_or_matches,
            "$$type": self._type,
            "$$matchesEntity": self._matches_entity,
            "$$matchesHexBytes": self._matches_hex_bytes,
            "$$sessionLsid": self._session_lsid,
            "$$lte": self._lte,
            "$$matchAsDocument": self._match_as_document,
            "$$matchAsRoot": self._match_as_root,
        }

    def match(self, expected: Any, actual: Any, path: str = "value", *, root: bool = True) -> None:
        """Compare.

        :param path: where the value stands, for the message.
        :param root: whether a document here may hold more keys than are expected.
        :raises Mismatch: they differ.
        :raises FormatError: `expected` uses an operator that does not exist, or wrongly.
        """
        operator = _operator(expected)
        if operator is not None:
            self._apply(operator, expected, actual, path, root)
        elif actual is UNSET:
            raise Mismatch(f"{path} is not there, expected {expected!r}")
        elif isinstance(expected, Mapping):
            self._match_document(expected, actual, path, root)
        elif isinstance(expected, list):
            self.match_array(expected, actual, path, root=False)
        else:
            _match_scalar(expected, actual, path)

    def match_array(self, expected: list[Any], actual: Any, path: str = "value", *, root: bool) -> None:
        """Compare arrays, element by element; `root` says whether the elements are root-level documents."""
        if not _is_array(actual):
            raise Mismatch(f"{path} is {actual!r}, expected an array")
        if len(actual) != len(expected):
            raise Mismatch(f"{path} has {len(actual)} elements, expected {len(expected)}: {actual!r}")
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            if _operator(one) in ("$$exists", "$$unsetOrMatches"):
                raise FormatError(f"{path}[{index}]: {_operator(one)} is not for an array's element")
            self.match(one, other, f"{path}[{index}]", root=root)

    def _match_document(self, expected: Mapping[str, Any], actual: Any, path: str, root: bool) -> None:
        if not isinstance(actual, Mapping):
            raise Mismatch(f"{path} is {actual!r}, expected a document")
        for key, value in expected.items():
            self.match(value, actual.get(key, UNSET), f"{path}.{key}", root=False)
        extra = [key for key in actual if key not in expected]
        if extra and not root:
            raise Mismatch(f"{path} has keys that are not expected: {', '.join(extra)}; it is {actual!r}")

    def _apply(self, operator: str, expected: Mapping[str, Any], actual: Any, path: str, root: bool) -> None:
        apply = self._operators.get(operator)
        if apply is None:
            raise FormatError(f"{path}: there is no operator {operator}")
        apply(expected[operator], actual, path, root)

    def _exists(self, wanted: Any, actual: Any, path: str, root: bool) -> None:
        if not isinstance(wanted, bool):
            raise FormatError(f"{path}: $$exists takes a boolean")
        if wanted != (actual is not UNSET):
            raise Mismatch(f"{path} is {actual!r}, expected it {'to exist' if wanted else 'not to exist'}")

    def _unset_or_matches(self, expected: Any, actual: Any, path: str, root: bool) -> None:
        if actual is not UNSET:
            self.match(expected, actual, path, root=root)

    def _type(self, wanted: Any, actual: Any, path: str, root: bool) -> None:
        names = [wanted] if isinstance(wanted, str) else wanted
        unknown = [name for name in names if name not in TYPE_NAMES]
        if unknown or not names:
            raise FormatError(f"{path}: $$type of {wanted!r}")
        found = type_name(actual)
        if found not in names and not ("number" in names and found in NUMBERS | {"decimal"}):
            raise Mismatch(f"{path} is {actual!r} of type {found}, expected {' or '.join(names)}")

    def _matches_entity(self, name: Any, actual: Any, path: str, root: bool) -> None:
        self.match(self._entities.bson_value(name), actual, path, root=root)

    def _matches_hex_bytes(self, digits: Any, actual: Any, path: str, root: bool) -> None:
        try:
            expected = bytes.fromhex(digits)
        except (ValueError, TypeError):
            raise FormatError(f"{path}: $$matchesHexBytes of {digits!r}") from None
        if not isinstance(actual, bytes) or bytes(actual) != expected:
            raise Mismatch(f"{path} is {actual!r}, expected {expected!r}")

    def _session_lsid(self, name: Any, actual: Any, path: str, root: bool) -> None:
        self.match(self._entities.session_id(name), actual, path, root=False)

    def _lte(self, limit: Any, actual: Any, path: str, root: bool) -> None:
        if type_name(limit) not in NUMBERS:
            raise FormatError(f"{path}: $$lte of {limit!r}")
        if type_name(actual) not in NUMBERS or not actual <= limit:
            raise Mismatch(f"{path} is {actual!r}, expected at most {limit!r}")

    def _match_as_document(self, expected: Any, actual: Any, path: str, root: bool) -> None:
        if not isinstance(actual, str):
            raise Mismatch(f"{path} is {actual!r}, expected a string of extended JSON")
        try:
            document = json_util.loads(actual)
        except (ValueError, TypeError, bson.errors.BSONError) as error:
            raise Mismatch(f"{path} is no extended JSON ({error}): {actual!r}") from None
        if not isinstance(document, Mapping):
            raise Mismatch(f"{path} is extended JSON of {document!r}, expected a document")
        self.match(expected, document, path, root=False)

    def _match_as_root(self, expected: Any, actual: Any, path: str, root: bool) -> None:
        if not isinstance(expected, Mapping):
            raise FormatError(f"{path}: $$matchAsRoot of {expected!r}")
        self.match(expected, actual, path, root=True)


def _operator(expected: Any) -> str | None:
    """The special operator that an expected value is, if it is one."""
    if not isinstance(expected, Mapping) or len(expected) != 1:
        return None
    key: str = next(iter(expected))
    return key if key.startswith("$$") else None


def _is_array(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _match_scalar(expected: Any, actual: Any, path: str) -> None:
    wanted, found = type_name(expected), type_name(actual)
    if wanted in NUMBERS and found in NUMBERS:
        same = expected == actual or (math.isnan(expected) and math.isnan(actual))
    else:
        same = wanted == found and _plain(expected) == _plain(actual)
    if not same:
        raise Mismatch(f"{path} is {actual!r}, expected {expected!r}")


def _plain(value: Any) -> Any:
    """One form for values that BSON does not tell apart."""
    if isinstance(value, uuid.UUID):
        return 4, value.bytes
    if isinstance(value, Binary):
        return value.subtype, bytes(value)
    if isinstance(value, bytes):
        return 0, value
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    if isinstance(value, re.Pattern):
        return Regex.from_native(value)
    return value


def type_name(value: Any) -> str:
    """The name by which the ``$type`` query operator knows a value's BSON type.

    :raises FormatError: BSON has no such type.
    """
    if value is UNSET:
        return "unset"
    if isinstance(value, int) and not isinstance(value, (bool, Int64)):
        return "int" if INT32_MIN <= value <= INT32_MAX else "long"
    if isinstance(value, Code):
        return "javascript" if value.scope is None else "javascriptWithScope"
    for kinds, name in KINDS:
        if isinstance(value, kinds):
            return name
    if _is_array(value):
        return "array"
    raise FormatError(f"{value!r} is of no BSON type")


KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "bool"),
    (Int64, "long"),
    (float, "double"),
    (str, "string"),
    ((bytes, uuid.UUID), "binData"),
    (ObjectId, "objectId"),
    (datetime.datetime, "date"),
    (type(None), "null"),
    ((Regex, re.Pattern), "regex"),
    (Timestamp, "timestamp"),
    (Decimal128, "decimal"),
    (MinKey, "minKey"),
    (MaxKey, "maxKey"),
    ((Mapping, DBRef), "object"),
)

TYPE_NAMES = frozenset(name for _, name in KINDS) | {
    *("int", "array", "javascript", "javascriptWithScope", "number", "undefined", "dbPointer", "symbol")
}
