"""What several tests of the wire protocol need.

Strategies for messages, a CRC-32C to compare with, and stand-ins for the compression libraries, which need not be
installed.
"""

from __future__ import annotations

import itertools
import types
import zlib
from typing import Any

import bson
from hypothesis import settings
from hypothesis import strategies as st

from txmongo._wire.decoder import Message
from txmongo._wire.op_legacy import Delete, GetMore, Insert, KillCursors, Query, Reply, Update
from txmongo._wire.op_msg import EXHAUST_ALLOWED, MORE_TO_COME, Msg

#: Half as many examples as there are by default.
brief = settings(max_examples=50)

int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
_values = int32s | int64s | st.floats(allow_nan=False) | st.booleans() | st.none() | st.binary(max_size=20) | st.text()
dicts: st.SearchStrategy[dict[str, Any]] = st.dictionaries(names, _values, max_size=4)
documents = dicts.map(bson.encode)
_document_lists = st.lists(documents, max_size=4)
_payloads = st.dictionaries(names, _document_lists, max_size=3)
_flag_bits = st.sampled_from([0, MORE_TO_COME, EXHAUST_ALLOWED, MORE_TO_COME | EXHAUST_ALLOWED])

msgs = st.builds(Msg, int32s, int32s, documents, _flag_bits, _payloads)
replies = st.builds(Reply, int32s, int32s, int32s, int64s, int32s, _document_lists)
queries = st.builds(Query, int32s, int32s, int32s, names, int32s, int32s, documents, documents | st.none())
updates = st.builds(Update, int32s, int32s, names, int32s, documents, documents)
inserts = st.builds(Insert, int32s, int32s, int32s, names, _document_lists)
get_mores = st.builds(GetMore, int32s, int32s, names, int32s, int64s)
deletes = st.builds(Delete, int32s, int32s, names, int32s, documents)
kill_cursors = st.builds(KillCursors, int32s, int32s, st.lists(int64s, max_size=4))
messages: st.SearchStrategy[Message] = st.one_of(
    msgs, replies, queries, updates, inserts, get_mores, deletes, kill_cursors
)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at the offsets in ``cuts``, each taken modulo its length."""
    offsets = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(offsets)]


def _crc32c_of_byte(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC32C_OF_BYTES = [_crc32c_of_byte(value) for value in range(256)]


def crc32c(value: int, data: bytes) -> int:
    """Extend a CRC-32C byte by byte: slow, and plain enough to be trusted."""
    value ^= 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _CRC32C_OF_BYTES[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def snappy_size(size: int) -> bytes:
    """Return the first bytes of a snappy block: the size of what it holds."""
    encoded = bytearray()
    while size >= 0x80:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


def _snappy_compress(data: bytes) -> bytes:
    literals = (data[start : start + 60] for start in range(0, len(data), 60))
    return snappy_size(len(data)) + b"".join(bytes([(len(literal) - 1) << 2]) + literal for literal in literals)


def _snappy_uncompress(data: bytes) -> bytes:
    position = next(index for index, byte in enumerate(data) if byte < 0x80) + 1
    found = b""
    while position < len(data):
        size = (data[position] >> 2) + 1
        found += data[position + 1 : position + 1 + size]
        position += 1 + size
    return found


#: The block format of snappy without its copies: blocks that the real library reads too.
stand_in_snappy = types.SimpleNamespace(compress=_snappy_compress, uncompress=_snappy_uncompress)

#: The interface of ``compression.zstd`` over zlib.
stand_in_zstd = types.SimpleNamespace(
    compress=zlib.compress,
    DecompressionParameter=types.SimpleNamespace(window_log_max=100),
    ZstdDecompressor=lambda options: zlib.decompressobj(),
)
