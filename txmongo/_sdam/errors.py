"""What an application's error says about the server that it came from: the pure rules.

:func:`decide` looks at one error and says what must become of the server's description, its pool and its monitor; the
topology carries it out. SDAM specification, "Application errors"; load balancer specification, "Error Handling".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from pymongo.server_description import ServerDescription

from txmongo._cmap.errors import PoolClearedError
from txmongo._sdam.description import compare_topology_versions
from txmongo.errors import (
    NOT_PRIMARY_CODES,
    RECOVERING_CODES,
    AutoReconnect,
    BulkWriteError,
    NetworkTimeout,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteError,
)

__all__ = ["IGNORE", "ErrorContext", "Verdict", "decide", "is_network_error"]

#: "Node is shutting down": of the recovering codes those after which no connection will work again.
SHUTDOWN_CODES = frozenset({91, 11600})
#: The first wire version (MongoDB 4.2) whose servers keep their connections when they step down.
_KEEPS_CONNECTIONS = 8
_OVERLOADED = "SystemOverloadedError"


@attrs.frozen
class ErrorContext:
    """Where an error happened.

    :ivar generation: the pool's generation when the connection in question was begun.
    :ivar pool_generation: the pool's generation now (that of the service, behind a load balancer).
    :ivar completed_handshake: whether the connection was established, authentication included.
    :ivar max_wire_version: what the connection's hello said, or ``None`` before there was one.
    :ivar load_balanced: whether the server is a load balancer.
    :ivar has_service: behind a load balancer, whether the hello already said which service it is.
    """

    generation: int
    pool_generation: int
    completed_handshake: bool
    max_wire_version: int | None = None
    load_balanced: bool = False
    has_service: bool = False


@attrs.frozen
class Verdict:
    """What to do about an error.

    :ivar mark_unknown: the server's type becomes Unknown.
    :ivar clear_pool: the pool is cleared (of one service's connections, behind a load balancer).
    :ivar request_check: the server lives but changed: look at it again as soon as allowed.
    :ivar cancel_check: the check in progress will not end well: end it and close its connection.
    """

    mark_unknown: bool = False
    clear_pool: bool = False
    request_check: bool = False
    cancel_check: bool = False


IGNORE = Verdict()


def decide(error: BaseException, server: ServerDescription, context: ErrorContext) -> Verdict:
    """What an error of an application's operation, or of opening a connection for one, means for its server.

    :param server: what is known of the server now.
    """
    if context.generation < context.pool_generation:
        return IGNORE
    found = _state_change_code(error)
    if found is not None:
        if compare_topology_versions(server.topology_version, _topology_version(error)) >= 0:
            return IGNORE
        return _state_changed(found, context)
    if not _server_is_lost(error, context):
        return IGNORE
    if context.load_balanced:
        return Verdict(clear_pool=True) if context.has_service else IGNORE
    return Verdict(mark_unknown=True, clear_pool=True, cancel_check=True)


def is_network_error(error: BaseException) -> bool:
    """Whether the network, or the time it took, is to blame, and not an answer of the server."""
    if isinstance(error, PoolClearedError | ServerSelectionTimeoutError):
        return False
    return isinstance(error, AutoReconnect) and _state_change_code(error) is None


def _state_changed(code: int, context: ErrorContext) -> Verdict:
    """Not primary, or recovering: the server answers, but is not what we took it for."""
    old = context.max_wire_version is not None and context.max_wire_version < _KEEPS_CONNECTIONS
    clear = code in SHUTDOWN_CODES or old
    if context.load_balanced:
        return Verdict(clear_pool=clear and context.has_service)
    return Verdict(mark_unknown=True, clear_pool=clear, request_check=True)


def _server_is_lost(error: BaseException, context: ErrorContext) -> bool:
    """Whether the error makes it likely that the server cannot be reached at all.

    A timeout on an established connection may only mean a slow operation. A server that does not take new connections,
    or does not answer their hello, may be overloaded: that says nothing about the connections that there are, and if it
    is gone the monitor finds out. Such errors carry the label ``SystemOverloadedError``.
    """
    if isinstance(error, PoolClearedError | ServerSelectionTimeoutError | WaitQueueTimeoutError):
        return False
    if context.completed_handshake:
        return isinstance(error, AutoReconnect) and not isinstance(error, NetworkTimeout)
    if isinstance(error, PyMongoError) and error.has_error_label(_OVERLOADED):
        return False
    return isinstance(error, AutoReconnect | OperationFailure | ProtocolError)


def _state_change_code(error: BaseException) -> int | None:
    """The code of a "not writable primary" or "node is recovering" error; 0 when only its message says so.

    An error of a single write (``writeErrors``) says nothing about the server and is never one.
    """
    if isinstance(error, WriteError | BulkWriteError) or not isinstance(error, AutoReconnect | OperationFailure):
        return None
    details = _details(error)
    nested = details.get("writeConcernError")
    if isinstance(nested, Mapping):
        found = _match(nested.get("code"), str(nested.get("errmsg", "")))
        if found is not None:
            return found
    code = details.get("code", getattr(error, "code", None))
    message = str(details.get("errmsg", ""))
    return _match(code, message)


def _match(code: Any, message: str) -> int | None:
    """A code decides alone; the words count only where there is none."""
    if code is not None:
        known = isinstance(code, int) and (code in NOT_PRIMARY_CODES or code in RECOVERING_CODES)
        return int(code) if known else None
    return 0 if "not master" in message or "node is recovering" in message else None


def _details(error: BaseException) -> Mapping[str, Any]:
    details = getattr(error, "details", None)
    return details if isinstance(details, Mapping) else {}


def _topology_version(error: BaseException) -> Mapping[str, Any] | None:
    version = _details(error).get("topologyVersion")
    return version if isinstance(version, Mapping) else None
