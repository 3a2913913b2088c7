"""Which sessions are bound where the program is now: those that operations take which were given none.

What is bound is part of the context (:mod:`contextvars`) that a coroutine runs in. Twisted runs every coroutine, and
every generator of ``inlineCallbacks``, in a copy of the context that it was started in; so a binding is seen by the
coroutine that makes it and by what that starts meanwhile, and by nobody else. Callbacks run in whatever context the
event came in: what an operation does after its first command has to know its session by then.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txmongo._ops.session_state import SessionState

__all__ = ["Binding", "bind", "bound_to", "unbind"]

#: The innermost last; those of several clients may be bound at once.
_BOUND: Final[ContextVar[tuple[SessionState, ...]]] = ContextVar("txmongo.bound_sessions", default=())

Binding = Token[tuple["SessionState", ...]]


def bind(session: SessionState) -> Binding:
    """Bind a session from here on.

    :returns: what :func:`unbind` takes.
    """
    return _BOUND.set((*_BOUND.get(), session))


def unbind(binding: Binding) -> None:
    """Have what was bound before."""
    # A coroutine that nobody finished is closed wherever the garbage collector finds it; nothing is bound there.
    with contextlib.suppress(ValueError):
        _BOUND.reset(binding)


def bound_to(owner: object) -> SessionState | None:
    """The session of a client that is bound here, the innermost; ``None`` if there is none.

    :param owner: what the sessions of that client have in common.
    """
    for session in reversed(_BOUND.get()):
        if session.belongs_to(owner):
            return session
    return None
