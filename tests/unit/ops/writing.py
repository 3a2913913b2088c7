"""What the tests of write commands share: a server, a target, and running one operation without any I/O."""

from __future__ import annotations

from typing import Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo.write_concern import WriteConcern

from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation
from txmongo._ops.writes import WriteTarget

SERVER = StreamDescription(max_wire_version=17)


class Context:
    """Where a reply comes from."""

    address = ("db.example", 27017)
    description = SERVER
    connection = None


CONTEXT = Context()


def target(
    *, codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS, name: str = "things", **write_concern: Any
) -> WriteTarget:
    """The collection ``test.things`` with this write concern."""
    return WriteTarget.create("test", name, codec_options, WriteConcern(**write_concern))


def sent(operation: Operation[Any], server: StreamDescription = SERVER) -> dict[str, Any]:
    """The command as the server reads it."""
    command = operation.build(server)
    command["$db"] = operation.database
    message = operation.encode(command, server)
    assert message.wire is not None
    document: dict[str, Any] = message.to_dict()
    return document
