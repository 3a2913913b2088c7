"""Tests of the lists of cases that are skipped or run without pipelining."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance import bookkeeping
from tests.conformance.bookkeeping import Entry, features, reason_for, without_cases
from tests.unit.conformance.cases import make_case


class EntryTests(SynchronousTestCase):
    """Which cases an entry covers."""

    def test_patterns(self) -> None:
        """Suite, file and description have to match, each by any of its patterns."""
        case = make_case(key=("crud/unified", "find", "find [with] sort"))
        self.assertTrue(Entry(reason="x").covers(case))
        self.assertTrue(Entry(reason="x", suite="crud/*", file=["no", "fi?d"], description="find [with]*").covers(case))
        self.assertFalse(Entry(reason="x", suite="crud").covers(case))
        self.assertFalse(Entry(reason="x", suite="crud/*", file="insert*").covers(case))
        self.assertFalse(Entry(reason="x", description="find with sort").covers(case))

    def test_features(self) -> None:
        """An entry may be about what a case uses."""
        case = make_case(createEntities=[{"session": {"id": "s"}}])
        self.assertTrue(Entry(reason="x", uses=["entity:bucket", "entity:session"]).covers(case))
        self.assertFalse(Entry(reason="x", uses="entity:bucket").covers(case))
        self.assertFalse(Entry(reason="x", suite="other", uses="entity:session").covers(case))

    def test_query_analysis(self) -> None:
        """Commands of a client that encrypts have to be analysed, but for those on collections as a whole."""
        entry = Entry(reason="x", uses="query analysis")
        for options, operation, expected in (
            ({}, "insertOne", True),
            ({"bypassAutoEncryption": True}, "insertOne", False),
            ({"bypassQueryAnalysis": True}, "insertOne", False),
            ({}, "dropCollection", False),
        ):
            client = {"id": "c", "autoEncryptOpts": {"kmsProviders": {}, **options}}
            case = make_case({"operations": [{"name": operation, "object": "x"}]}, createEntities=[{"client": client}])
            self.assertEqual(entry.covers(case), expected, (options, operation))

    def test_first_reason(self) -> None:
        """The first entry that covers a case gives the reason."""
        entries = [Entry(reason="no", suite="other"), Entry(reason="one"), Entry(reason="two")]
        self.assertEqual(reason_for(make_case(), entries), "one")
        self.assertIsNone(reason_for(make_case(), entries[:1]))

    def test_idle(self) -> None:
        """Entries that cover no case are found."""
        idle = Entry(reason="no", suite="other")
        self.assertEqual(without_cases([idle, Entry(reason="one")], [make_case()]), [idle])


class FeatureTests(SynchronousTestCase):
    """What a case uses."""

    def test_everywhere(self) -> None:
        """Features are found in the file's entities, in those made by operations, and in nested operations."""
        inner = {"name": "insertOne", "object": "collection0", "arguments": {"document": {}}}
        operations = [
            {"name": "find", "object": "collection0", "arguments": {"timeoutMS": 5}},
            {"name": "createEntities", "object": "testRunner", "arguments": {"entities": [{"bucket": {"id": "b"}}]}},
            {"name": "withTransaction", "object": "session0", "arguments": {"callback": [inner]}},
            {
                "name": "runOnThread",
                "object": "testRunner",
                "arguments": {"operation": {"name": "drop", "object": "b"}},
            },
        ]
        client = {"id": "c", "uriOptions": {"w": 1}, "serverApi": {}}
        case = make_case({"operations": operations, "expectLogMessages": []}, createEntities=[{"client": client}])
        expected = {
            *("entity:client", "client:w", "client:serverApi", "client:id", "client:uriOptions", "entity:bucket"),
            *("operation:find", "argument:timeoutMS", "operation:createEntities", "operation:withTransaction"),
            *("argument:callback", "operation:insertOne", "argument:document", "operation:runOnThread"),
            *("operation:drop", "logs"),
        }
        self.assertEqual(features(case), expected)


class FileTests(SynchronousTestCase):
    """The files."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def write(self, name: str, text: str) -> None:
        """Write one of the files."""
        (self.folder / name).write_text(text, "utf-8")

    def test_skips(self) -> None:
        """An entry needs a reason and knows no other fields."""
        self.write("skips.toml", '[[skip]]\nsuite = "crud"\nreason = "later"\n')
        self.assertEqual(bookkeeping.skips(self.folder), [Entry(suite="crud", reason="later")])
        self.write("skips.toml", '[[skip]]\nsuite = "crud"\n')
        self.assertRaises(TypeError, bookkeeping.skips, self.folder)
        self.write("skips.toml", '[[skip]]\nreason = "later"\ncolour = "red"\n')
        self.assertRaises(TypeError, bookkeeping.skips, self.folder)

    def test_most_per_connection(self) -> None:
        """No more than thirty cases may run without pipelining."""
        self.write("one_per_connection.toml", '[[case]]\nreason = "x"\n' * 30)
        self.assertEqual(len(bookkeeping.one_per_connection(self.folder)), 30)
        self.write("one_per_connection.toml", '[[case]]\nreason = "x"\n' * 31)
        self.assertRaises(ValueError, bookkeeping.one_per_connection, self.folder)

    def test_floors(self) -> None:
        """The floors are numbers by suite."""
        self.write("floor.toml", '[ran]\n"crud/unified" = 5\n')
        self.assertEqual(bookkeeping.floors(self.folder), {"crud/unified": 5})

    def test_ours(self) -> None:
        """The project's own files can be read."""
        for read in (bookkeeping.skips, bookkeeping.one_per_connection, bookkeeping.floors):
            read()
