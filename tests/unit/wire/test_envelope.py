"""Commands put together from BSON, and the times at the end of replies."""

from __future__ import annotations

from typing import Any

import bson
from bson.binary import Binary
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmongo._wire.envelope import elements_of, encode_elements, encode_many_elements, take_times
from txmongo._wire.op_msg import encode_command

SEEN = Timestamp(1_700_000_000, 7)


class Noted:
    """A clock that keeps what it is told."""

    def __init__(self, latest: int = -1) -> None:
        self.latest = latest
        self.element = b""

    def take(self, cluster_time: int, element: bytes) -> None:
        self.latest = cluster_time
        self.element = element


def cluster_time(timestamp: Timestamp = SEEN) -> dict[str, Any]:
    return {"clusterTime": timestamp, "signature": {"hash": Binary(b"h" * 20), "keyId": Int64(5)}}


def times(timestamp: Timestamp = SEEN) -> dict[str, Any]:
    return {"ok": 1.0, "$clusterTime": cluster_time(timestamp), "operationTime": timestamp}


def frame(document: dict[str, Any]) -> bytes:
    return encode_command(3, bson.encode(document))


class TakeTimesTests(SynchronousTestCase):
    """The end of a reply as the members of a replica set send it."""

    def test_reply(self) -> None:
        """The rest of the reply comes back, and the clock is told of the time."""
        clock = Noted()
        content = take_times(frame({"cursor": {"firstBatch": [{"_id": 1}]}, **times()}), clock)
        assert content is not None
        self.assertEqual(bson.decode(content), {"cursor": {"firstBatch": [{"_id": 1}]}})
        self.assertEqual(clock.latest, SEEN.time << 32 | SEEN.inc)
        self.assertEqual(clock.element, elements_of({"$clusterTime": cluster_time()}))

    def test_reply_to_a_write(self) -> None:
        """What says where a write stands in the oplog is left out too."""
        place = {"electionId": ObjectId(), "opTime": {"ts": SEEN, "t": Int64(3)}}
        content = take_times(frame({"n": 1, **place, **times()}), Noted())
        assert content is not None
        self.assertEqual(bson.decode(content), {"n": 1})

    def test_half_of_a_place(self) -> None:
        """An opTime without an electionId before it stays."""
        place = {"electionIt": ObjectId(), "opTime": {"ts": SEEN, "t": Int64(3)}}
        content = take_times(frame({"n": 1, **place, **times()}), Noted())
        assert content is not None
        self.assertEqual(bson.decode(content), {"n": 1, **place})

    def test_known_time(self) -> None:
        """The clock is not told of a time that is not later than its own."""
        clock = Noted(SEEN.time << 32 | SEEN.inc)
        self.assertIsNotNone(take_times(frame({"n": 1, **times()}), clock))
        self.assertEqual(clock.element, b"")

    def test_other_ends(self) -> None:
        """A reply that ends in any other way is left alone."""
        longer = {**cluster_time(), "more": 1}
        unsigned = {"clusterTime": SEEN, "signature": {"keyId": Int64(5), "hash": Binary(b"h" * 20)}}
        for end in (
            {"ok": 1.0},
            {**times(), "ok": 0.0},
            {**times(), "more": 1},
            {"ok": 1, "$clusterTime": cluster_time(), "operationTime": SEEN},
            {"ok": 1.0, "operationTime": SEEN, "$clusterTime": cluster_time()},
            {**times(), "$clusterTime": longer},
            {**times(), "$clusterTime": unsigned},
            {**times(), "operationTime": 1.5},
        ):
            clock = Noted()
            self.assertIsNone(take_times(frame({"n": 1, "filling": "x" * 200, **end}), clock), end)
            self.assertEqual(clock.latest, -1)

    def test_sizes(self) -> None:
        """A reply that is too small to have times, or so large that a copy would cost more, is left alone."""
        self.assertIsNone(take_times(frame({}), Noted()))
        self.assertIsNone(take_times(frame({"filling": "x" * 70_000, **times()}), Noted()))
        self.assertEqual(take_times(frame(times()), Noted()), bson.encode({}))

    @given(
        st.dictionaries(
            st.text("abc$", min_size=1, max_size=12).filter(lambda name: name != "ok"),
            st.one_of(st.integers(-(2**31), 2**31 - 1), st.text(max_size=60), st.binary(max_size=60), st.none()),
            max_size=5,
        ),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )
    def test_any_reply(self, fields: dict[str, Any], seconds: int, increment: int) -> None:
        """Whatever a reply holds, exactly its times are taken off."""
        clock = Noted()
        content = take_times(frame({**fields, **times(Timestamp(seconds, increment))}), clock)
        assert content is not None
        self.assertEqual(bson.decode(content), fields)
        self.assertEqual(clock.latest, seconds << 32 | increment)


class EncodeElementsTests(SynchronousTestCase):
    """Commands from their fields."""

    def test_same_as_from_a_document(self) -> None:
        """The message is that of the document with all fields in their order."""
        wire = encode_elements(9, [elements_of({"find": "c"}), b"", elements_of({"limit": 1, "$db": "d"})])
        self.assertEqual(wire, encode_command(9, bson.encode({"find": "c", "limit": 1, "$db": "d"})))

    def test_large(self) -> None:
        """So is a large one."""
        large = {"insert": "c", "documents": [{"content": b"x" * 100_000}]}
        wire = encode_many_elements(9, [elements_of(large), elements_of({"$db": "d"})])
        self.assertEqual(wire, encode_command(9, bson.encode({**large, "$db": "d"})))
