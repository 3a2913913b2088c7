"""A Deferred whose work begins when somebody waits for it, however they do.

What every way to wait has in common is that something is appended to the Deferred's list of callbacks: the property
that stands for this list (:data:`CALLBACKS`) is the one seam, and holds for ``addCallback`` as for being returned from
another callback, where Twisted calls no method at all.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["CALLBACKS", "LazyDeferred"]

ResultT = TypeVar("ResultT")

#: Where this Twisted keeps a Deferred's callbacks: ``callbacks`` up to 25.4, ``_callbacks`` since.
CALLBACKS = "_callbacks" if "_callbacks" in vars(Deferred()) else "callbacks"


class _FirstUse(list[Any]):
    """Stands for the list of callbacks of a Deferred that nobody waits for yet."""

    __slots__ = ("_deferred",)

    def __init__(self, deferred: LazyDeferred[Any]) -> None:
        super().__init__()
        self._deferred = deferred

    def append(self, item: Any, /) -> None:
        """Add the first callback, which is the first use; the Deferred may fire at once, for the callback is there."""
        self._deferred._callback_chain.append(item)
        self._deferred._used()


class LazyDeferred(Deferred[ResultT], Generic[ResultT]):
    """The base: a subclass says in :meth:`_begin` what there is to do."""

    #: Whether somebody waits.
    _begun = False
    _callback_chain: list[Any]

    def _begin(self) -> None:
        """Begin the work that the Deferred will fire with; it may fire at once."""
        raise NotImplementedError

    def _used(self) -> None:
        self._begun = True
        self._begin()

    def _get_callbacks(self) -> list[Any]:
        """The callbacks that were added, as Twisted keeps them."""
        return self._callback_chain if self._begun else _FirstUse(self)

    def _set_callbacks(self, callbacks: list[Any]) -> None:
        self._callback_chain = callbacks

    def __await__(self) -> Generator[Deferred[ResultT], None, ResultT]:
        """Begin before Twisted looks whether there is a result: one that is there at once it would take for None."""
        if not self._begun:
            self._used()
        # In older Twisted its own __await__ would come back here, by way of __iter__.
        return super().__iter__()

    def __iter__(self) -> Generator[Deferred[ResultT], None, ResultT]:
        """For ``yield from``; a ``for`` would go round and round, for a Deferred hands out itself until it has fired.

        :raises TypeError: the result is not there, and whoever has been given the Deferred did not wait for it.
        """
        waiting = self.__await__()
        if not self.called:
            yield self
            if not self.called:
                raise TypeError(f"a {type(self).__name__} has nothing before it is waited for: use async for, or await")
        # "yield from" would ask it for an iterator, and in older Twisted it is this Deferred itself.
        while True:
            try:
                waited = next(waiting)
            except StopIteration as end:
                result: ResultT = end.value
                return result
            yield waited


setattr(LazyDeferred, CALLBACKS, property(LazyDeferred._get_callbacks, LazyDeferred._set_callbacks))
