"""Tests of the matcher of the unified test format: what it accepts and, above all, what it refuses."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping
from typing import Any

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
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.matcher import UNSET, Matcher, type_name

LSID = {"id": Binary(b"0123456789abcdef", 4)}


class Values:
    """An entity map with one BSON value and one session."""

    def bson_value(self, name: str) -> Any:
        return {"saved": {"a": 1}}[name]

    def session_id(self, name: str) -> Mapping[str, Any]:
        return {"session0": LSID}[name]


class MatcherTestCase(SynchronousTestCase):
    """Two assertions over one matcher."""

    matcher = Matcher(Values())

    def accept(self, expected: Any, actual: Any, **options: Any) -> None:
        """They match."""
        self.matcher.match(expected, actual, **options)

    def refuse(self, expected: Any, actual: Any, **options: Any) -> None:
        """They differ."""
        self.assertRaises(Mismatch, self.matcher.match, expected, actual, **options)

    def malformed(self, expected: Any, actual: Any, **options: Any) -> None:
        """The expectation itself is wrong."""
        self.assertRaises(FormatError, self.matcher.match, expected, actual, **options)


class ScalarTests(MatcherTestCase):
    """Values that are neither documents nor arrays."""

    def test_numbers(self) -> None:
        """Numbers of 32 and 64 bits and floating point are equal where their values are."""
        self.accept(1, 1.0)
        self.accept(1, Int64(1))
        self.accept(1.5, 1.5)
        self.accept(float("nan"), float("nan"))
        self.refuse(1, 1.5)
        self.refuse(1, 2)

    def test_decimal(self) -> None:
        """A decimal equals only a decimal."""
        self.accept(Decimal128("1"), Decimal128("1"))
        self.refuse(1, Decimal128("1"))

    def test_boolean(self) -> None:
        """A boolean is no number, in either direction."""
        self.accept(True, True)
        self.refuse(1, True)
        self.refuse(True, 1)
        self.refuse(False, 0)
        self.refuse(False, None)

    def test_null(self) -> None:
        """Null matches null only: neither a missing value nor a falsy one."""
        self.accept(None, None)
        self.refuse(None, UNSET)
        self.refuse(None, 0)
        self.refuse(None, [])

    def test_text(self) -> None:
        """Text matches the same text; a number's text is not the number."""
        self.accept("a", "a")
        self.refuse("a", "A")
        self.refuse("1", 1)

    def test_binary(self) -> None:
        """Bytes are binary data of subtype 0, a UUID of subtype 4."""
        identifier = uuid.uuid4()
        self.accept(Binary(b"a", 0), b"a")
        self.accept(Binary(identifier.bytes, 4), identifier)
        self.refuse(Binary(b"a", 1), b"a")

    def test_dates(self) -> None:
        """A date with a time zone equals the same moment without one."""
        aware = datetime.datetime(2020, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        self.accept(datetime.datetime(2020, 1, 1), aware)
        self.refuse(datetime.datetime(2020, 1, 1, 1), aware)

    def test_regular_expressions(self) -> None:
        """A compiled pattern equals BSON's regular expression of the same text and flags."""
        self.accept(Regex("a", "u"), re.compile("a"))
        self.refuse(Regex("b", "u"), re.compile("a"))


class DocumentTests(MatcherTestCase):
    """Documents, at the root and below."""

    def test_extra_keys(self) -> None:
        """A root document may hold more keys than expected, one below may not."""
        self.accept({"x": 1}, {"x": 1, "y": 1})
        self.refuse({"x": 1}, {"x": 1, "y": 1}, root=False)
        self.refuse({"x": {"y": 1}}, {"x": {"y": 1, "z": 1}})
        self.refuse({}, {"y": 1}, root=False)

    def test_missing_key(self) -> None:
        """A missing key differs, even where null is expected."""
        self.refuse({"x": 1, "y": 1}, {"x": 1})
        self.refuse({"x": None}, {})

    def test_order(self) -> None:
        """The order of keys does not count."""
        self.accept({"x": 1, "y": 2}, {"y": 2, "x": 1}, root=False)

    def test_not_a_document(self) -> None:
        """A value of another type is no document."""
        for actual in (None, [], [{"x": 1}], "x", 1):
            self.refuse({}, actual)

    def test_query_operator(self) -> None:
        """A document whose only key starts with one dollar sign is compared as it is."""
        self.accept({"x": {"$gt": 1}}, {"x": {"$gt": 1}})
        self.refuse({"x": {"$gt": 1}}, {"x": {"$gt": 2}})

    def test_path(self) -> None:
        """The message says where the values differ."""
        error = self.assertRaises(Mismatch, self.matcher.match, {"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "command")
        self.assertIn("command.a[0].b is 2, expected 1", str(error))


class ArrayTests(MatcherTestCase):
    """Arrays."""

    def test_length(self) -> None:
        """Arrays match in length, in both directions, an empty one too."""
        self.accept([1, 2], [1, 2])
        self.refuse([1, 2], [1, 2, 3])
        self.refuse([1, 2, 3], [1, 2])
        self.refuse([], [1])
        self.accept([], [])
        self.accept([], ())

    def test_order(self) -> None:
        """The order of elements counts."""
        self.refuse([1, 2], [2, 1])

    def test_elements_are_not_roots(self) -> None:
        """Documents in an array hold no extra keys, unless the array is one of root documents."""
        self.refuse([{"x": 1}], [{"x": 1, "y": 1}])
        self.matcher.match_array([{"x": 1}], [{"x": 1, "y": 1}], root=True)
        self.assertRaises(Mismatch, self.matcher.match_array, [{"x": {}}], [{"x": {"y": 1}}], root=True)

    def test_not_an_array(self) -> None:
        """Text, bytes and documents are no arrays."""
        for actual in ("ab", b"ab", {"0": 1}, None):
            self.refuse([], actual)

    def test_operators_of_keys(self) -> None:
        """An element can neither be missing nor be tested for it."""
        self.malformed([{"$$exists": True}], [1])
        self.malformed([{"$$unsetOrMatches": 1}], [1])


class OperatorTests(MatcherTestCase):
    """The special operators."""

    def test_exists(self) -> None:
        """A key with any value exists, null too."""
        self.accept({"x": {"$$exists": True}}, {"x": None})
        self.refuse({"x": {"$$exists": True}}, {})
        self.accept({"x": {"$$exists": False}}, {})
        self.refuse({"x": {"$$exists": False}}, {"x": None})
        self.malformed({"x": {"$$exists": 1}}, {"x": 1})

    def test_exists_counts_as_expected(self) -> None:
        """A key that is tested for existence is no extra key."""
        self.accept({"a": {"x": {"$$exists": True}}}, {"a": {"x": 1}})

    def test_unset_or_matches(self) -> None:
        """A missing value passes; one that is there has to match, null too."""
        self.accept({"x": {"$$unsetOrMatches": 1}}, {})
        self.accept({"x": {"$$unsetOrMatches": 1}}, {"x": 1})
        self.refuse({"x": {"$$unsetOrMatches": 1}}, {"x": 2})
        self.refuse({"x": {"$$unsetOrMatches": 1}}, {"x": None})
        self.accept({"$$unsetOrMatches": {"x": 1}}, UNSET)

    def test_unset_or_matches_keeps_the_root(self) -> None:
        """The operator does not change whether a document is a root."""
        self.accept({"$$unsetOrMatches": {"x": 1}}, {"x": 1, "y": 1})
        self.refuse({"a": {"$$unsetOrMatches": {"x": 1}}}, {"a": {"x": 1, "y": 1}})

    def test_type(self) -> None:
        """A value is of one of the types named; a missing one of none."""
        self.accept({"x": {"$$type": "string"}}, {"x": "a"})
        self.accept({"x": {"$$type": ["int", "long"]}}, {"x": Int64(1)})
        self.refuse({"x": {"$$type": ["int", "long"]}}, {"x": 1.0})
        self.refuse({"x": {"$$type": "string"}}, {})
        self.refuse({"x": {"$$type": "int"}}, {"x": True})
        self.malformed({"x": {"$$type": "integer"}}, {"x": 1})
        self.malformed({"x": {"$$type": []}}, {"x": 1})

    def test_type_number(self) -> None:
        """The alias covers every numeric type, the decimal too."""
        for value in (1, Int64(1), 1.5, Decimal128("1")):
            self.accept({"$$type": "number"}, value)
        self.refuse({"$$type": "number"}, "1")

    def test_matches_entity(self) -> None:
        """The value equals a saved one, as a root only where it is one."""
        self.accept({"x": {"$$matchesEntity": "saved"}}, {"x": {"a": 1}})
        self.refuse({"x": {"$$matchesEntity": "saved"}}, {"x": {"a": 1, "b": 1}})
        self.accept({"$$matchesEntity": "saved"}, {"a": 1, "b": 1})

    def test_matches_hex_bytes(self) -> None:
        """Bytes equal those of the hexadecimal digits, in either case."""
        self.accept({"$$matchesHexBytes": "12aB"}, b"\x12\xab")
        self.accept({"$$matchesHexBytes": ""}, b"")
        self.refuse({"$$matchesHexBytes": ""}, b"\x00")
        self.refuse({"$$matchesHexBytes": "12"}, "\x12")
        self.malformed({"$$matchesHexBytes": "123"}, b"")
        self.malformed({"$$matchesHexBytes": 12}, b"")

    def test_session_lsid(self) -> None:
        """The value is the session's id and nothing more."""
        self.accept({"lsid": {"$$sessionLsid": "session0"}}, {"lsid": dict(LSID)})
        self.refuse({"lsid": {"$$sessionLsid": "session0"}}, {"lsid": {**LSID, "uid": b""}})
        self.refuse({"lsid": {"$$sessionLsid": "session0"}}, {})

    def test_lte(self) -> None:
        """A number at most as large matches; what is no number does not."""
        self.accept({"$$lte": 5}, 5)
        self.accept({"$$lte": 5}, 4.9)
        self.refuse({"$$lte": 5}, 5.1)
        self.refuse({"$$lte": 5}, "4")
        self.refuse({"$$lte": 5}, True)
        self.refuse({"x": {"$$lte": 5}}, {})
        self.malformed({"$$lte": "5"}, 4)

    def test_match_as_document(self) -> None:
        """Text of extended JSON is compared as the document that it is, without extra keys."""
        self.accept({"x": {"$$matchAsDocument": {"a": 1}}}, {"x": '{"a": {"$numberLong": "1"}}'})
        self.refuse({"$$matchAsDocument": {"a": 1}}, '{"a": 1, "b": 1}')
        self.refuse({"$$matchAsDocument": {"a": 1}}, "no JSON")
        self.refuse({"$$matchAsDocument": {"a": 1}}, "[1]")
        self.refuse({"$$matchAsDocument": {"a": 1}}, {"a": 1})

    def test_match_as_root(self) -> None:
        """A document below the root is allowed extra keys where the case says so."""
        self.accept({"x": {"$$matchAsRoot": {"a": 1}}}, {"x": {"a": 1, "b": 1}})
        self.accept({"$$matchAsDocument": {"$$matchAsRoot": {"a": 1}}}, '{"a": 1, "b": 1}')
        self.refuse({"x": {"$$matchAsRoot": {"a": 1}}}, {"x": {"b": 1}})
        self.malformed({"x": {"$$matchAsRoot": 1}}, {"x": 1})

    def test_unknown(self) -> None:
        """An operator that does not exist is an error of the case."""
        self.malformed({"x": {"$$no": 1}}, {"x": 1})
        self.malformed({"x": {"$$placeholder": 1}}, {"x": 1})


class TypeNameTests(SynchronousTestCase):
    """The names of BSON types."""

    def test_names(self) -> None:
        """Each value has the name that the $type operator knows."""
        names: list[tuple[Any, str]] = [
            (1, "int"),
            (2**31, "long"),
            (Int64(1), "long"),
            (1.0, "double"),
            (True, "bool"),
            ("a", "string"),
            (None, "null"),
            (b"", "binData"),
            (Binary(b"", 5), "binData"),
            (uuid.uuid4(), "binData"),
            ({}, "object"),
            (DBRef("a", 1), "object"),
            ([], "array"),
            ((), "array"),
            (ObjectId(), "objectId"),
            (datetime.datetime(2020, 1, 1), "date"),
            (re.compile("a"), "regex"),
            (Code("a"), "javascript"),
            (Code("a", {}), "javascriptWithScope"),
            (Timestamp(1, 1), "timestamp"),
            (Decimal128("1"), "decimal"),
            (MinKey(), "minKey"),
            (MaxKey(), "maxKey"),
        ]
        self.assertEqual([type_name(value) for value, _ in names], [name for _, name in names])

    def test_no_bson_type(self) -> None:
        """A value that BSON does not know is an error."""
        self.assertRaises(FormatError, type_name, object())
