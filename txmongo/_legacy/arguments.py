"""Arguments that other methods than ``find`` had under other names, in other places, or no longer have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from bson.int64 import Int64
from twisted.internet.defer import Deferred

from txmongo._legacy.deprecation import warn_deprecated
from txmongo._ops.arguments import index_document
from txmongo.filter import _QueryFilter

__all__ = ["also_named", "formerly", "index_arguments", "takes_full_response", "takes_let_second"]

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


def also_named(**names: str) -> Callable[[Callable[P, ResultT]], Callable[P, ResultT]]:
    """Give arguments of a method second names, by which they may be passed as well.

    :param names: for each second name the first.
    """

    def decorate(method: Callable[P, ResultT]) -> Callable[P, ResultT]:
        @functools.wraps(method)
        def renaming(*args: P.args, **kwargs: P.kwargs) -> ResultT:
            _rename(kwargs, names)
            return method(*args, **kwargs)

        return renaming

    return decorate


def formerly(**names: str) -> Callable[[Callable[P, ResultT]], Callable[P, ResultT]]:
    """As :func:`also_named`, for names that are deprecated."""

    def decorate(method: Callable[P, ResultT]) -> Callable[P, ResultT]:
        @functools.wraps(method)
        def renaming(*args: P.args, **kwargs: P.kwargs) -> ResultT:
            for old, new in _rename(kwargs, names).items():
                warn_deprecated(f"the argument {old} of {method.__qualname__}", new)
            return method(*args, **kwargs)

        return renaming

    return decorate


def _rename(keywords: dict[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Replace second names among the keywords of a call.

    :returns: those that were there, with their first names.
    :raises TypeError: an argument was given under both.
    """
    found = {old: new for old, new in names.items() if old in keywords}
    for old, new in found.items():
        if new in keywords:
            raise TypeError(f"{old} and {new} are the same argument under two names: give one")
        keywords[new] = keywords.pop(old)
    return found


def takes_let_second(delete: Callable[P, ResultT]) -> Callable[P, ResultT]:
    """Let ``delete_one`` and ``delete_many`` take ``let`` as their second argument, which in PyMongo is ``collation``.

    A mapping is a collation if it has a ``locale``, without which the server takes none.
    """

    @functools.wraps(delete)
    def sorting(*args: P.args, **kwargs: P.kwargs) -> ResultT:
        if len(args) == 3 and isinstance(args[2], Mapping) and "locale" not in args[2]:
            if "let" in kwargs:
                raise TypeError("let is given twice")
            kwargs["let"] = args[2]
            args = args[:2]  # type: ignore[assignment]  # self and the filter
        return delete(*args, **kwargs)

    return sorting


def takes_full_response(aggregate: Callable[P, ResultT]) -> Callable[P, ResultT]:
    """Let ``aggregate`` take ``full_response`` and ``initial_batch_size``, second and third if it has to be.

    With ``full_response`` its Deferred fires with a reply as servers gave it once: ``{"result": [...], "ok": 1.0}``.
    """

    @functools.wraps(aggregate)
    def translating(*args: P.args, **kwargs: P.kwargs) -> ResultT:
        if len(args) > 2 and isinstance(args[2], bool):
            given = dict(zip(("full_response", "initial_batch_size"), args[2:], strict=False))
            if len(args) > 4 or not given.keys().isdisjoint(kwargs):
                raise TypeError("aggregate() takes (pipeline, full_response, initial_batch_size), each once")
            kwargs.update(given)
            args = args[:2]  # type: ignore[assignment]  # self and the pipeline
        batch_size = kwargs.pop("initial_batch_size", None)
        if batch_size is not None:
            kwargs.setdefault("batchSize", batch_size)
        full_response = kwargs.pop("full_response", False)
        cursor = aggregate(*args, **kwargs)
        return cast(ResultT, _full_response(cursor)) if full_response else cursor

    return translating


def _full_response(cursor: Any) -> Deferred[dict[str, Any]]:
    whole: Deferred[list[Any]] = cursor.to_list()
    return whole.addCallback(lambda documents: {"result": documents, "ok": 1.0, "cursor": {"id": Int64(0)}})


def index_arguments(keys: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What ``create_index`` is given, in PyMongo's words; called by the method itself.

    :param keys: a sort order of :mod:`txmongo.filter`, or pairs in a tuple, or one pair, as well.
    :param options: ``drop_dups`` is taken out, with a warning; ``bucket_size`` gets the server's name.
    """
    found = [name for name in ("drop_dups", "dropDups") if options.pop(name, None) is not None]
    if found:
        warn_deprecated(
            f"the argument {found[0]} of Collection.create_index",
            "nothing in its place: servers ignore it since MongoDB 3.0",
            stacklevel=4,
        )
    if "bucket_size" in options:
        options["bucketSize"] = options.pop("bucket_size")
    if isinstance(keys, (_QueryFilter, tuple)):
        keys = index_document("keys", keys)
    return keys, options
