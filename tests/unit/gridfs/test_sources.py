"""What may be written to a file."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from txmongo._gridfs.sources import as_bytes, check_source, is_stream, read_from


class Source:
    """Gives what it is told to give."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def read(self, size: int) -> Any:
        """The data."""
        return self.data


class SourceTests(SynchronousTestCase):
    """The functions of txmongo._gridfs.sources."""

    def test_as_bytes(self) -> None:
        """Bytes stay what they are, what may change is copied, text is encoded."""
        data = b"abc"
        self.assertIs(as_bytes(data, None), data)
        self.assertEqual(as_bytes(bytearray(data), None), data)
        self.assertEqual(as_bytes(memoryview(data), None), data)
        self.assertEqual(as_bytes("é", "latin-1"), b"\xe9")

    def test_check_source(self) -> None:
        """Text without an encoding and what cannot be read are refused."""
        for wrong in (1, None, ["a"], object()):
            self.assertRaises(TypeError, check_source, wrong, "utf-8")
        error = self.assertRaises(TypeError, check_source, "text", None)
        self.assertIn("must specify an encoding", str(error))
        check_source("text", "utf-8")
        check_source(io.BytesIO(), None)

    def test_is_stream(self) -> None:
        """What has a read method is a stream."""
        self.assertTrue(is_stream(io.BytesIO()))
        for data in (b"", "", bytearray(), memoryview(b"")):
            self.assertFalse(is_stream(data))

    def test_read_from(self) -> None:
        """A stream gives bytes, or text, or a Deferred or coroutine of them."""

        async def later() -> bytes:
            return b"ab"

        for source, encoding in (
            (io.BytesIO(b"ab"), None),
            (io.StringIO("ab"), "utf-8"),
            (Source(succeed(b"ab")), None),
            (Source(later()), None),
        ):
            reading = Deferred.fromCoroutine(read_from(source, 10, encoding))
            self.assertEqual(self.successResultOf(reading), b"ab")

    def test_read_from_wrong(self) -> None:
        """A stream that gives something else is refused."""
        for given in (1, None, "text", io.BytesIO()):
            reading = Deferred.fromCoroutine(read_from(Source(given), 10, None))
            self.failureResultOf(reading, TypeError)
