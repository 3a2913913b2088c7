"""The ``bulkWrite`` command of MongoDB 8.0, with writes to several collections in one. It is refused so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmongo._ops.base import Operation
from txmongo.errors import InvalidOperation

if TYPE_CHECKING:
    from txmongo._cmap.description import StreamDescription

__all__ = ["ClientBulkWrite"]

#: MongoDB 8.0.
_BULK_WRITE_WIRE_VERSION = 25


class ClientBulkWrite(Operation[Any]):
    """Says of the server that was selected why nothing is sent to it."""

    __slots__ = ()

    name = "bulkWrite"

    def __init__(self, session: Any = None) -> None:
        super().__init__("admin", session=session)

    def build(self, description: StreamDescription) -> dict[str, Any]:
        """Nothing.

        :raises InvalidOperation: always.
        """
        if description.max_wire_version < _BULK_WRITE_WIRE_VERSION:
            raise InvalidOperation("bulk_write of the client needs MongoDB 8.0; each collection has its own bulk_write")
        raise InvalidOperation("bulk_write of the client is not supported yet; each collection has its own bulk_write")
