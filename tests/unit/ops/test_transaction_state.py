"""``txmongo._ops.transaction_state``: the states of a transaction."""

from __future__ import annotations

from typing import Any

from bson.int64 import Int64
from pymongo.write_concern import WriteConcern
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.pinning import Holder
from txmongo._ops.transaction_state import Settled, Transaction, TransactionState
from txmongo.errors import InvalidOperation

NONE, STARTING, IN_PROGRESS, COMMITTED, EMPTY, ABORTED = TransactionState
A, B = ("a", 1), ("b", 2)


def transaction(state: TransactionState) -> Transaction:
    """One in a state, pinned and with a token."""
    made = Transaction()
    made.state = state
    made.recovery_token = {"token": 1}
    made.pin_to(A)
    return made


class StateTests(SynchronousTestCase):
    """Every call in every state."""

    def test_start(self) -> None:
        """It can be started but for when it was already."""
        for state in (NONE, COMMITTED, EMPTY, ABORTED):
            one = transaction(state)
            one.commit_uncertain = True
            options = Settled(max_commit_time_ms=5)
            one.check_start()
            one.start(options, Int64(7))
            self.assertEqual((one.state, one.options, one.txn_number), (STARTING, options, 7))
            self.assertEqual((one.recovery_token, one.pinned_address, one.commit_uncertain), (None, None, False))
        for state in (STARTING, IN_PROGRESS):
            one = transaction(state)
            for call in (one.check_start, lambda one=one: one.start(Settled(), Int64(1))):
                error = self.assertRaises(InvalidOperation, call)
                self.assertIn("Transaction already in progress", str(error))
            self.assertEqual((one.state, one.pinned_address), (state, A))

    def test_commit(self) -> None:
        """It can be committed when it was started, and again; a command is sent if one was before."""
        for state, following, sent in (
            (STARTING, EMPTY, False),
            (IN_PROGRESS, COMMITTED, True),
            (COMMITTED, COMMITTED, True),
            (EMPTY, EMPTY, False),
        ):
            one = transaction(state)
            self.assertEqual((one.commit(), one.state, one.pinned_address), (sent, following, A))

    def test_commit_refused(self) -> None:
        """It cannot be committed without a start or after an abort."""
        for state, text in (
            (NONE, "No transaction started"),
            (ABORTED, "Cannot call commitTransaction after calling abortTransaction"),
        ):
            one = transaction(state)
            self.assertIn(text, str(self.assertRaises(InvalidOperation, one.commit)))
            self.assertIs(one.state, state)

    def test_abort(self) -> None:
        """It can be aborted when it was started; a command is sent if one was before, to where it is pinned."""
        one = transaction(STARTING)
        self.assertEqual((one.abort(), one.state, one.pinned_address), (False, ABORTED, None))
        one = transaction(IN_PROGRESS)
        self.assertEqual((one.abort(), one.state, one.pinned_address), (True, ABORTED, A))

    def test_abort_refused(self) -> None:
        """It cannot be aborted without a start, after a commit, or twice."""
        for state, text in (
            (NONE, "No transaction started"),
            (COMMITTED, "Cannot call abortTransaction after calling commitTransaction"),
            (EMPTY, "Cannot call abortTransaction after calling commitTransaction"),
            (ABORTED, "Cannot call abortTransaction twice"),
        ):
            one = transaction(state)
            self.assertIn(text, str(self.assertRaises(InvalidOperation, one.abort)))
            self.assertIs(one.state, state)

    def test_command(self) -> None:
        """The first command sets it going; a command after its end leaves it, with pin and token, behind."""
        one = transaction(STARTING)
        self.assertTrue(one.active)
        self.assertEqual((one.note_command(), one.state), (True, IN_PROGRESS))
        self.assertEqual((one.note_command(), one.state, one.pinned_address), (False, IN_PROGRESS, A))
        self.assertTrue(one.active)
        for state in (COMMITTED, EMPTY, ABORTED):
            one = transaction(state)
            self.assertFalse(one.active)
            self.assertEqual((one.note_command(), one.state), (False, NONE))
            self.assertEqual((one.recovery_token, one.pinned_address), (None, None))
        self.assertEqual((one.note_command(), one.state), (False, NONE))

    def test_first_command_retracted(self) -> None:
        """A first command that did not go out leaves it starting."""
        one = transaction(STARTING)
        one.note_command()
        one.retract_first()
        self.assertIs(one.state, STARTING)
        one = transaction(ABORTED)
        one.retract_first()
        self.assertIs(one.state, ABORTED)
        self.assertEqual(repr(one), "<Transaction 0 aborted>")


class CommitWriteConcernTests(SynchronousTestCase):
    """With which guarantee a commit is asked for."""

    def write_concern(self, write_concern: WriteConcern, uncertain: bool) -> object:
        """The field of the command."""
        one = Transaction()
        one.start(Settled(write_concern=write_concern), Int64(1))
        one.commit_uncertain = uncertain
        return one.commit_write_concern()

    def test_first(self) -> None:
        """The first time it is the transaction's own."""
        self.assertIsNone(self.write_concern(WriteConcern(), False))
        self.assertEqual(self.write_concern(WriteConcern(w=2), False), {"w": 2})

    def test_repeated(self) -> None:
        """A repetition waits for a majority, 10 s if no time was given; other fields stay."""
        self.assertEqual(self.write_concern(WriteConcern(), True), {"w": "majority", "wtimeout": 10_000})
        self.assertEqual(
            self.write_concern(WriteConcern(w=2, j=True, wtimeout=5), True),
            {"w": "majority", "j": True, "wtimeout": 5},
        )


class PinTests(SynchronousTestCase):
    """One server for all commands."""

    def test_release(self) -> None:
        """What was held for it is released once: when it is unpinned, or pinned elsewhere."""
        seen: list[Any] = []

        class Held:
            def hold(self, holder: Holder) -> Any:
                seen.append(("hold", holder))
                return self

            def release(self, holder: Holder) -> None:
                seen.append(("release", holder))

        pin: Any = Held()
        one = Transaction()
        one.pin_to(A, pin)
        self.assertIs(one.pin, pin)
        one.pin_to(B)
        held, released = ("hold", Holder.TRANSACTION), ("release", Holder.TRANSACTION)
        self.assertEqual((seen, one.pinned_address, one.pin), ([held, released], B, None))
        one.pin_to(A, pin)
        one.unpin()
        one.unpin()
        self.assertEqual((seen, one.pinned_address), ([held, released] * 2, None))
