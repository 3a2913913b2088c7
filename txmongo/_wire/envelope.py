"""The envelope of commands and replies, put on and taken off without building what nobody asked for.

Every reply of a member of a replica set ends with the same fields, in the same bytes but for their values: ``ok``,
``$clusterTime`` and ``operationTime``. Decoding them costs more than a small reply itself, and of all that one number
is wanted: the cluster time, to compare it with the one that is known. :func:`take_times` finds them where they always
are, at the end. In a command ``lsid``, ``txnNumber`` and ``$clusterTime`` are the same: bytes that are known already,
which :func:`encode_elements` puts behind the fields of the operation. Kept: the OP_MSG and BSON specifications.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import bson

from txmongo._wire.header import OP_MSG

__all__ = ["LARGE", "Clock", "elements_of", "encode_elements", "encode_many_elements", "take_times"]

_OK: Final = b"\x01ok\0" + struct.pack("<d", 1.0)
_CLUSTER_TIME: Final = b"\x03$clusterTime\0"
#: ``{clusterTime: Timestamp, signature: {hash: 20 bytes, keyId: Int64}}`` up to the timestamp.
_TIMESTAMP: Final = struct.pack("<i", 88) + b"\x11clusterTime\0"
_SIGNATURE: Final = b"\x03signature\0" + struct.pack("<i", 51) + b"\x05hash\0" + struct.pack("<i", 20) + b"\0"
_OPERATION_TIME: Final = b"\x11operationTime\0"

_BEGINNING: Final = _OK + _CLUSTER_TIME + _TIMESTAMP
_TIMES_SIZE: Final = len(_OK) + len(_CLUSTER_TIME) + 88 + len(_OPERATION_TIME) + 8 + 1
_OPERATION_TIME_SIZE: Final = len(_OPERATION_TIME) + 8 + 1
_CLUSTER_TIME_AT: Final = len(_OK)

#: What the reply to a write has before ``ok``: ``electionId: ObjectId, opTime: {ts: Timestamp, t: Int64}``.
_ELECTION_ID: Final = b"\x07electionId\0"
_OP_TIME: Final = b"\x03opTime\0" + struct.pack("<i", 28) + b"\x11ts\0"
_OP_TIME_SIZE: Final = 8 + 28
_PLACE_SIZE: Final = len(_ELECTION_ID) + 12 + _OP_TIME_SIZE

#: Header, flag bits, kind of the first section, length of its document.
_FIELDS_AT: Final = 25
_SMALLEST: Final = _FIELDS_AT + _TIMES_SIZE
#: Bytes of a message above which a copy of it costs more than what it may save: cutting the end off a reply, for one.
LARGE: Final = 64 * 1024

#: Between those four stand the hash, ``keyId`` with the ends of two documents, and the operation time itself.
_unpack_times = struct.Struct(f"<{len(_BEGINNING)}sQ{len(_SIGNATURE)}s20x17x{len(_OPERATION_TIME)}s8xx").unpack_from
_pack_size = struct.Struct("<i").pack
#: Of a request, which answers none.
_pack_start = struct.Struct("<ii4x9si").pack
#: The opcode, no flag bits, and the kind of the first section.
_PLAIN: Final = struct.pack("<iIB", OP_MSG, 0, 0)
_join = b"".join


class Clock(Protocol):
    """What takes note of the cluster time.

    :ivar latest: the highest one known: a BSON timestamp as one number, the seconds in the upper half.
    """

    latest: int

    def take(self, cluster_time: int, element: bytes) -> None:
        """Keep a later one.

        :param element: the ``$clusterTime`` field as a command is to carry it: type, name and document in BSON.
        """


def take_times(frame: bytes, clock: Clock) -> bytes | None:
    """Take the times off a successful reply.

    :param frame: a whole message whose one section is a document.
    :param clock: is told of a later cluster time.
    :returns: what else the reply holds, in BSON and without ``ok``, which was 1; ``None`` if the reply does not end
        exactly as those of a replica set's members do: then it is to be decoded as a whole.
    """
    size = len(frame)
    end = size - _TIMES_SIZE
    if not _SMALLEST <= size <= LARGE:
        return None
    beginning, cluster_time, signature, operation_time = _unpack_times(frame, end)
    if beginning != _BEGINNING or signature != _SIGNATURE or operation_time != _OPERATION_TIME:
        return None
    if cluster_time > clock.latest:
        clock.take(cluster_time, frame[end + _CLUSTER_TIME_AT : size - _OPERATION_TIME_SIZE])
    if frame.startswith(_OP_TIME, end - _OP_TIME_SIZE) and frame.startswith(_ELECTION_ID, end - _PLACE_SIZE):
        end -= _PLACE_SIZE
    return _pack_size(end - _FIELDS_AT + 5) + frame[_FIELDS_AT:end] + b"\0"


def elements_of(document: Mapping[str, Any]) -> bytes:
    """The fields of a document in BSON, to be put together with others."""
    return bson.encode(document)[4:-1]


def encode_elements(request_id: int, elements: Sequence[bytes]) -> bytes:
    """A whole OP_MSG without flags, with one document.

    :param elements: the document's fields in BSON, any number of them in each piece.
    """
    content = _join(elements)
    size = len(content)
    return _pack_start(size + 26, request_id, _PLAIN, size + 5) + content + b"\0"


def encode_many_elements(request_id: int, elements: Sequence[bytes]) -> bytes:
    """:func:`encode_elements` for more than :data:`LARGE` bytes: slower, but they are copied once only."""
    size = sum(map(len, elements))
    return _join((_pack_start(size + 26, request_id, _PLAIN, size + 5), *elements, b"\0"))
