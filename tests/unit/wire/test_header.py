"""Tests for :mod:`txmongo._wire.header`."""

from __future__ import annotations

import itertools

from pymongo.errors import ProtocolError
from twisted.trial.unittest import SynchronousTestCase

from txmongo._wire import header
from txmongo._wire.header import OP_MSG, OP_MSG_LEGACY, OP_NAMES, Opcode, check_header, next_request_id


class HeaderTests(SynchronousTestCase):
    def test_request_ids_rise(self) -> None:
        """Each request id is one more than the one before it."""
        first = next_request_id()
        self.assertEqual([next_request_id(), next_request_id()], [first + 1, first + 2])

    def test_request_ids_start_again(self) -> None:
        """After the largest int32 comes 1: no request id is 0 or negative."""
        self.patch(header, "_request_counter", itertools.count(2**31 - 3))
        self.assertEqual([next_request_id() for _ in range(4)], [2**31 - 2, 2**31 - 1, 1, 2])

    def test_opcode_is_a_number_and_a_method(self) -> None:
        """An opcode compares as a number and gives the same number when it is called."""
        opcode = Opcode(OP_MSG)
        self.assertEqual(opcode, 2013)
        self.assertEqual(opcode(), 2013)
        self.assertIs(type(opcode()), int)

    def test_correct_header(self) -> None:
        """A length from that of the header up to the maximum is taken."""
        check_header(16, OP_MSG, 100)
        check_header(100, OP_MSG, 100)

    def test_wrong_header(self) -> None:
        """A length below 16 or above the maximum, or an opcode that is not known, is a ProtocolError that names it."""
        for length, opcode, text in [
            (15, OP_MSG, "length 15 "),
            (-1, OP_MSG, "length -1 "),
            (101, OP_MSG, "length 101 "),
            (50, 2003, "opcode 2003"),
            (50, OP_MSG_LEGACY, "opcode 1000"),
        ]:
            error = self.assertRaises(ProtocolError, check_header, length, opcode, 100)
            self.assertIn(text, str(error))

    def test_every_known_opcode_has_a_name(self) -> None:
        """The names cover every opcode that may be received."""
        self.assertEqual(set(header.KNOWN_OPCODES) - set(OP_NAMES), set())
