"""OP_COMPRESSED: another message in a compressed wrapping, and the compressors.

:func:`compress` wraps, :func:`decompress` unwraps. What was announced as the size is the most that is ever inflated.
:func:`compress_command` leaves those commands as they are that must not be compressed. Kept: the Wire Compression
specification.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, ClassVar, Final, Protocol

import attrs

from txmongo._wire.header import HEADER, HEADER_SIZE, OP_COMPRESSED, ProtocolError, check_header
from txmongo._wire.optional import first_importable

__all__ = [
    "Compressor",
    "Noop",
    "Snappy",
    "Zlib",
    "Zstd",
    "compress",
    "compress_command",
    "compressor_named",
    "decompress",
]

#: originalOpcode, uncompressedSize, compressorId
_PREFIX: Final = struct.Struct("<iiB")
_CONTENT_OFFSET: Final = HEADER_SIZE + _PREFIX.size
#: 8 MB, the window that RFC 8878 asks every decoder to support.
_ZSTD_WINDOW_LOG: Final = 23

#: Where an OP_MSG has its command's name: after header, flags, section kind, the body's length and its first type.
_NAME_OFFSET: Final = 26

#: Commands whose messages are never compressed: OP_COMPRESSED specification, "Messages not allowed to be compressed".
_NEVER_COMPRESSED: Final = frozenset(
    {
        b"hello",
        b"isMaster",
        b"ismaster",
        b"saslStart",
        b"saslContinue",
        b"getnonce",
        b"authenticate",
        b"createUser",
        b"updateUser",
        b"copydbSaslStart",
        b"copydbgetnonce",
        b"copydb",
    }
)

_snappy: Any = first_importable("snappy")
_zstd: Any = first_importable("compression.zstd", "backports.zstd")


class Compressor(Protocol):
    """What :func:`compress` needs of a compressor. The compression contexts of PyMongo have it too."""

    @property
    def compressor_id(self) -> int:
        """The number that stands for the algorithm on the wire."""

    def compress(self, data: bytes) -> bytes:
        """Return ``data`` compressed."""


@attrs.frozen
class Noop:
    """No compression in the wrapping of one; for tests."""

    name: ClassVar[str] = "noop"
    compressor_id: ClassVar[int] = 0

    @staticmethod
    def available() -> bool:
        return True

    def compress(self, data: bytes) -> bytes:
        return data

    @staticmethod
    def decompress(data: memoryview, size: int) -> bytes:
        return bytes(data)


@attrs.frozen
class Snappy:
    """Snappy in its block format, by the ``python-snappy`` library."""

    name: ClassVar[str] = "snappy"
    compressor_id: ClassVar[int] = 1

    @staticmethod
    def available() -> bool:
        return _snappy is not None

    def compress(self, data: bytes) -> bytes:
        compressed: bytes = _snappy.compress(data)
        return compressed

    @staticmethod
    def decompress(data: memoryview, size: int) -> bytes:
        # The library allocates what the block announces, so that is looked at first.
        if _snappy_size(data) != size:
            raise ProtocolError("a snappy block does not hold the announced size")
        inflated: bytes = _snappy.uncompress(data)
        return inflated


@attrs.frozen
class Zlib:
    """zlib of the standard library.

    :ivar level: -1 (the default of zlib) to 9.
    """

    name: ClassVar[str] = "zlib"
    compressor_id: ClassVar[int] = 2

    level: int = -1

    @staticmethod
    def available() -> bool:
        return True

    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data, self.level)

    @staticmethod
    def decompress(data: memoryview, size: int) -> bytes:
        return _inflate(zlib.decompressobj(), data, size)


@attrs.frozen
class Zstd:
    """Zstandard, by ``compression.zstd`` of Python 3.14 or the ``backports.zstd`` library."""

    name: ClassVar[str] = "zstd"
    compressor_id: ClassVar[int] = 3

    @staticmethod
    def available() -> bool:
        return _zstd is not None

    def compress(self, data: bytes) -> bytes:
        compressed: bytes = _zstd.compress(data)
        return compressed

    @staticmethod
    def decompress(data: memoryview, size: int) -> bytes:
        # The window is memory too, and none larger than the message itself is needed.
        window_log = max(_ZSTD_WINDOW_LOG, size.bit_length())
        options = {_zstd.DecompressionParameter.window_log_max: window_log}
        return _inflate(_zstd.ZstdDecompressor(options=options), data, size)


_COMPRESSORS: Final = (Noop, Snappy, Zlib, Zstd)
_BY_ID: Final = {compressor.compressor_id: compressor for compressor in _COMPRESSORS}


def compressor_named(name: str, zlib_level: int = -1) -> Compressor | None:
    """Return the compressor that a handshake calls ``name``, or None if it is not known or not installed.

    :param zlib_level: -1 to 9; only zlib heeds it.
    """
    for compressor in _COMPRESSORS:
        if compressor.name == name and compressor.available():
            return Zlib(zlib_level) if compressor is Zlib else compressor()
    return None


def compress(message: bytes, compressor: Compressor) -> bytes:
    """Return ``message`` wrapped in an OP_COMPRESSED of the same request id.

    :param message: a whole message, header included.
    """
    _, request_id, response_to, opcode = HEADER.unpack_from(message)
    content = compressor.compress(message[HEADER_SIZE:])
    header = HEADER.pack(_CONTENT_OFFSET + len(content), request_id, response_to, OP_COMPRESSED)
    prefix = _PREFIX.pack(opcode, len(message) - HEADER_SIZE, compressor.compressor_id)
    return b"".join((header, prefix, content))


def compress_command(message: bytes, compressor: Compressor) -> bytes:
    """Return the message of a command wrapped by :func:`compress`, or as it is if its command must stay readable.

    :param message: a whole OP_MSG whose first section is the command.
    """
    name = message[_NAME_OFFSET : message.index(0, _NAME_OFFSET)]
    return message if name in _NEVER_COMPRESSED else compress(message, compressor)


def decompress(frame: bytes | bytearray, max_message_size: int) -> bytes:
    """Return the message inside an OP_COMPRESSED, with its own header before it.

    :param frame: a whole OP_COMPRESSED, header included.
    :param max_message_size: bytes that the result may have; a message that announces more is not inflated at all.
    :raises ProtocolError: if the message is truncated, corrupt, not of the announced size, or compressed twice; also
        for a compressor that is unknown or not installed.
    """
    if len(frame) < _CONTENT_OFFSET:
        raise ProtocolError("OP_COMPRESSED is truncated")
    _, request_id, response_to, _ = HEADER.unpack_from(frame)
    opcode, size, compressor_id = _PREFIX.unpack_from(frame, HEADER_SIZE)
    check_header(HEADER_SIZE + size, opcode, max_message_size)
    if opcode == OP_COMPRESSED:
        raise ProtocolError("OP_COMPRESSED inside OP_COMPRESSED")
    compressor = _BY_ID.get(compressor_id)
    if compressor is None:
        raise ProtocolError(f"unknown compressor {compressor_id}")
    if not compressor.available():
        raise ProtocolError(f"the library for compressor {compressor.name} is not installed")
    try:
        content = compressor.decompress(memoryview(frame)[_CONTENT_OFFSET:], size)
    except ProtocolError:
        raise
    except Exception as error:  # each library has exceptions of its own, none with a common base
        raise ProtocolError(f"a message compressed with {compressor.name} is corrupt") from error
    if len(content) != size:
        raise ProtocolError(f"a compressed message does not hold the {size} bytes announced")
    return HEADER.pack(HEADER_SIZE + size, request_id, response_to, opcode) + content


def _inflate(decompressor: Any, data: memoryview, size: int) -> bytes:
    """Inflate at most one byte more than ``size``, which is enough to tell that there is more."""
    content: bytes = decompressor.decompress(data, size + 1)
    if len(content) <= size and (decompressor.unused_data or not decompressor.eof):
        raise ProtocolError("a compressed message is truncated or has something behind it")
    return content


def _snappy_size(data: memoryview) -> int:
    """Return the size that a snappy block announces: its first bytes, seven bits each, the lowest first."""
    size = 0
    for index, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return size
    raise ProtocolError("a snappy block does not tell its size")
