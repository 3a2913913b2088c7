"""getLastError, the command by which clients heard of a write that was not answered.

It left the server in MongoDB 5.1, and before that told of the old opcodes alone. For write commands, which are
answered, the driver keeps what the last one on a connection was answered and says it in the old command's words.
Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from txmongo.errors import DuplicateKeyError, OperationFailure, write_error_from_reply

__all__ = ["NOT_ANSWERED", "check_last_error", "last_error"]

#: Stands for the reply to a write by an old opcode, of which only the server can tell.
NOT_ANSWERED: Final[Mapping[str, Any]] = MappingProxyType({})

_DUPLICATE_KEY_CODES = frozenset({11000, 11001, 12582})


def last_error(reply: Mapping[str, Any] | None) -> dict[str, Any]:
    """What getLastError would have said after a write.

    :param reply: to the write command; ``None`` if there has been none.
    :raises PyMongoError: as the write itself failed.
    """
    if reply is None:
        return {"ok": 1.0, "err": None, "n": 0}
    error = write_error_from_reply(reply)
    if error is not None:
        raise error
    outcome: dict[str, Any] = {"ok": 1.0, "err": None, "n": reply.get("n", 0)}
    if "updatedExisting" in reply:
        # findAndModify still says it in these words.
        outcome["updatedExisting"] = reply["updatedExisting"]
    elif "nModified" in reply:
        outcome["updatedExisting"] = bool(reply.get("n")) and not reply.get("upserted")
    upserted = reply.get("upserted")
    if upserted:
        outcome["upserted"] = upserted[-1]["_id"] if isinstance(upserted, list) else upserted
    return outcome


def check_last_error(document: dict[str, Any]) -> dict[str, Any]:
    """The reply to getLastError, unless it says of an error.

    :raises DuplicateKeyError: a unique index had the key already.
    :raises OperationFailure: another error.
    """
    error = document.get("err")
    if error is None:
        return document
    code = document.get("code")
    kind = DuplicateKeyError if code in _DUPLICATE_KEY_CODES else OperationFailure
    raise kind(str(error), code, document)
