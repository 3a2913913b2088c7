"""Tests of the translation of arguments."""

from __future__ import annotations

from pymongo import CursorType, InsertOne, ReturnDocument, UpdateOne
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference, Secondary
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.unified.arguments import convert, hex_bytes, snake_case, take, write_models
from tests.conformance.unified.failures import FormatError


class NameTests(SynchronousTestCase):
    """Names."""

    def test_snake_case(self) -> None:
        """Humps become underscores; a run of capitals is one word."""
        names = {"filter": "filter", "batchSize": "batch_size", "maxTimeMS": "max_time_ms", "timeoutMS": "timeout_ms"}
        self.assertEqual([snake_case(name) for name in names], list(names.values()))

    def test_take(self) -> None:
        """Missing and unknown arguments are errors of the case."""
        self.assertEqual(take({"a": 1, "b": 2}, "a", "b c"), {"a": 1, "b": 2})
        self.assertRaises(FormatError, take, {}, "a")
        self.assertRaises(FormatError, take, {"a": 1, "d": 1}, "a", "b")


class ValueTests(SynchronousTestCase):
    """Values that are objects in Python."""

    def test_concerns(self) -> None:
        """Read and write concerns become PyMongo's."""
        self.assertEqual(convert("readConcern", {"level": "majority"}), ReadConcern("majority"))
        concern = WriteConcern(2, wtimeout=5, j=True)
        self.assertEqual(convert("writeConcern", {"w": 2, "wtimeoutMS": 5, "journal": True}), concern)
        self.assertRaises(FormatError, convert, "writeConcern", {"fsync": True})

    def test_read_preference(self) -> None:
        """A read preference becomes PyMongo's, with tags and staleness."""
        self.assertEqual(convert("readPreference", {"mode": "primary"}), ReadPreference.PRIMARY)
        preference = convert(
            "readPreference", {"mode": "secondary", "tagSets": [{"a": "b"}], "maxStalenessSeconds": 90}
        )
        self.assertEqual(preference, Secondary([{"a": "b"}], 90))
        self.assertRaises(FormatError, convert, "readPreference", {"mode": "first"})

    def test_order(self) -> None:
        """Sorts, keys and hints of several keys keep their order."""
        self.assertEqual(convert("sort", {"b": 1, "a": -1}), [("b", 1), ("a", -1)])
        self.assertEqual(convert("hint", {"_id": 1}), [("_id", 1)])
        self.assertEqual(convert("hint", "_id_"), "_id_")

    def test_return_document(self) -> None:
        """Which document is returned may be written in any case; another word is an error."""
        self.assertEqual(convert("returnDocument", "after"), ReturnDocument.AFTER)
        self.assertEqual(convert("returnDocument", "Before"), ReturnDocument.BEFORE)
        self.assertRaises(FormatError, convert, "returnDocument", "Now")

    def test_cursor_type(self) -> None:
        """A cursor's type becomes PyMongo's flags."""
        self.assertEqual(convert("cursorType", "tailableAwait"), CursorType.TAILABLE_AWAIT)
        self.assertRaises(FormatError, convert, "cursorType", "endless")

    def test_others(self) -> None:
        """Other values stay as they are."""
        document = {"sort": {"a": 1}}
        self.assertIs(convert("filter", document), document)

    def test_write_models(self) -> None:
        """The requests of a bulk write become PyMongo's."""
        models = write_models(
            [
                {"insertOne": {"document": {"_id": 1}}},
                {"updateOne": {"filter": {}, "update": {"$set": {"a": 1}}, "arrayFilters": [{"x": 1}], "upsert": True}},
            ]
        )
        expected = [InsertOne({"_id": 1}), UpdateOne({}, {"$set": {"a": 1}}, upsert=True, array_filters=[{"x": 1}])]
        self.assertEqual(models, expected)

    def test_wrong_write_models(self) -> None:
        """An unknown request, an unknown argument, two requests in one are errors."""
        for model in ({"upsertOne": {}}, {"insertOne": {"document": {}, "filter": {}}}, {}, {"a": 1, "b": 2}):
            self.assertRaises(FormatError, write_models, [model])

    def test_hex_bytes(self) -> None:
        """Bytes are written in hexadecimal digits."""
        self.assertEqual(hex_bytes({"$$hexBytes": "12aB"}), b"\x12\xab")
        for malformed in ({"$$hexBytes": "1"}, {"$$hexBytes": 12}, {"hexBytes": "12"}, "12", 12):
            self.assertRaises(FormatError, hex_bytes, malformed)
