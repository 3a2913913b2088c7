"""What the handshake told about one connection.

Only values live here: the limits and abilities that the server named in its ``hello`` reply (handshake specification).
What a *server* is, for server selection, is PyMongo's ``ServerDescription`` in ``txmongo._sdam``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs
from bson.objectid import ObjectId
from pymongo.hello import Hello

from txmongo._pymongo import SERVER_TYPE

__all__ = ["StreamDescription"]


@attrs.frozen(kw_only=True)
class StreamDescription:
    """The limits and abilities of one connection, as the server named them in its ``hello`` reply.

    :ivar server_type: one of PyMongo's ``SERVER_TYPE`` numbers.
    :ivar min_wire_version: lowest wire version that the server speaks.
    :ivar max_wire_version: highest wire version that the server speaks.
    :ivar max_bson_size: bytes that one document may have.
    :ivar max_message_size: bytes that one message may have, its header included.
    :ivar max_write_batch_size: statements that one write command may have.
    :ivar logical_session_timeout_minutes: minutes after which an unused session ends; ``None``: no sessions.
    :ivar load_balanced: whether the client was told that it speaks to a load balancer.
    :ivar compressor: name of the negotiated compressor, ``None`` for plain messages.
    :ivar server_connection_id: the server's own number for this connection, ``None`` if it told none.
    :ivar service_id: the service behind a load balancer that this connection ended at.
    :ivar topology_version: process and counter of the server's view of its state, ``None`` if it told none.
    :ivar hello: the whole reply document.
    """

    server_type: int = SERVER_TYPE.Standalone
    min_wire_version: int = 0
    max_wire_version: int = 0
    max_bson_size: int = 16 * 1024 * 1024
    max_message_size: int = 48_000_000
    max_write_batch_size: int = 100_000
    logical_session_timeout_minutes: int | None = None
    load_balanced: bool = False
    compressor: str | None = None
    server_connection_id: int | None = None
    service_id: ObjectId | None = None
    topology_version: Mapping[str, Any] | None = None
    hello: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    @property
    def is_mongos(self) -> bool:
        """Whether the other end is a mongos, directly or behind a load balancer."""
        return self.server_type == SERVER_TYPE.Mongos or self.hello.get("msg") == "isdbgrid"

    @property
    def is_standalone(self) -> bool:
        """Whether the other end is a mongod outside of a replica set."""
        return self.server_type == SERVER_TYPE.Standalone

    @classmethod
    def from_hello(
        cls, document: Mapping[str, Any], *, compressor: str | None = None, load_balanced: bool = False
    ) -> Self:
        """Read a ``hello`` reply.

        :param document: the reply, with ``ok: 1``.
        :param compressor: name of the compressor that was negotiated with it.
        :param load_balanced: whether the client was configured with ``loadBalanced=true``.
        """
        hello: Hello[Mapping[str, Any]] = Hello(document)
        return cls(
            server_type=hello.server_type,
            min_wire_version=hello.min_wire_version,
            max_wire_version=hello.max_wire_version,
            max_bson_size=hello.max_bson_size,
            max_message_size=hello.max_message_size,
            max_write_batch_size=hello.max_write_batch_size,
            logical_session_timeout_minutes=hello.logical_session_timeout_minutes,
            load_balanced=load_balanced,
            compressor=compressor,
            server_connection_id=hello.connection_id,
            service_id=hello.service_id,
            topology_version=hello.topology_version,
            hello=document,
        )
