"""``txmongo._sessions.options``: options of sessions and transactions."""

from __future__ import annotations

from typing import Any

from bson.timestamp import Timestamp
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from txmongo._sessions.options import SessionOptions, TransactionOptions, given_options
from txmongo.errors import ConfigurationError


class OptionTests(SynchronousTestCase):
    """Options and their defaults."""

    def test_defaults(self) -> None:
        """A session is causally consistent unless it reads a snapshot."""
        options = SessionOptions()
        self.assertEqual(
            (options.causal_consistency, options.snapshot, options.default_transaction_options), (True, False, None)
        )
        self.assertFalse(SessionOptions(snapshot=True).causal_consistency)
        self.assertFalse(SessionOptions(False).causal_consistency)
        self.assertFalse(SessionOptions(snapshot=None).snapshot)
        self.assertEqual(SessionOptions(), SessionOptions(causal_consistency=True))

    def test_contradictions(self) -> None:
        """Snapshot and causal consistency exclude one another; a snapshot's time needs a snapshot."""
        self.assertRaises(ConfigurationError, SessionOptions, True, None, True)
        self.assertRaises(ConfigurationError, SessionOptions, snapshot_time=Timestamp(1, 1))
        options = SessionOptions(snapshot=True, snapshot_time=Timestamp(1, 1))
        self.assertEqual(options.snapshot_time, Timestamp(1, 1))

    def test_types(self) -> None:
        """Wrong types are told at the call."""
        for name, value in (
            ("default_transaction_options", {}),
            ("snapshot_time", 5),
            ("default_timeout_ms", "5"),
            ("default_timeout_ms", True),
        ):
            error = self.assertRaises(TypeError, SessionOptions, **{name: value})
            self.assertIn(name, str(error))
        self.assertRaises(ValueError, SessionOptions, default_timeout_ms=-1)
        for name, value in (
            ("read_concern", {}),
            ("write_concern", {}),
            ("read_preference", "primary"),
            ("max_commit_time_ms", 1.5),
        ):
            error = self.assertRaises(TypeError, TransactionOptions, **{name: value})
            self.assertIn(name, str(error))

    def test_unacknowledged(self) -> None:
        """A transaction cannot be committed without hearing of it."""
        error = self.assertRaises(ConfigurationError, TransactionOptions, write_concern=WriteConcern(w=0))
        self.assertIn("transactions do not support unacknowledged write concern", str(error))

    def test_order_of_26(self) -> None:
        """Positional arguments in the order of TxMongo 26.0 are understood."""
        write_concern = WriteConcern("majority")
        expected = TransactionOptions(write_concern=write_concern, max_commit_time_ms=5)
        self.assertEqual(TransactionOptions(write_concern, 5), expected)
        self.assertEqual(TransactionOptions(write_concern, max_commit_time_ms=5), expected)
        self.assertEqual(TransactionOptions(None, 5), TransactionOptions(max_commit_time_ms=5))
        wrong: Any = write_concern
        self.assertRaises(TypeError, TransactionOptions, wrong, wrong)
        self.assertRaises(TypeError, SessionOptions, expected, expected)
        options = SessionOptions(expected)
        self.assertEqual((options.default_transaction_options, options.causal_consistency), (expected, True))

    def test_order_of_pymongo(self) -> None:
        """So are those of PyMongo."""
        options = TransactionOptions(ReadConcern("local"), WriteConcern(1), ReadPreference.PRIMARY, 5)
        self.assertEqual(options.read_concern, ReadConcern("local"))
        self.assertEqual((options.write_concern, options.max_commit_time_ms), (WriteConcern(1), 5))

    def test_one_by_one(self) -> None:
        """Options come one by one, or in one object, in its own place or in that of the first; not both ways."""
        anything: Any = given_options
        nothing = (None, None, False, None, None)
        self.assertEqual(anything(None, *nothing), SessionOptions())
        self.assertEqual(anything(None, None, None, True, Timestamp(5, 1), 7).default_timeout_ms, 7)
        default = TransactionOptions(max_commit_time_ms=7)
        self.assertIs(anything(None, default, *nothing[1:]).default_transaction_options, default)
        options = SessionOptions(snapshot=True)
        self.assertIs(anything(options, *nothing), options)
        self.assertIs(anything(None, options, *nothing[1:]), options)
        self.assertRaises(TypeError, anything, {}, *nothing)
        for given in ((True, *nothing[1:]), (None, default, False, None, None), (None, None, True, None, None)):
            self.assertRaises(ConfigurationError, anything, options, *given)
        self.assertRaises(ConfigurationError, anything, None, options, default, *nothing[2:])
