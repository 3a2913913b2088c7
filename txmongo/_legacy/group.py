"""The command ``group``, which left the server in MongoDB 4.2, as an aggregation: nothing is sent here.

``$group`` finds the groups, ``$accumulator`` (MongoDB 4.4) calls the function in JavaScript. Unlike the command it has
no limit of 20,000 groups; as the command it cannot put together what several shards have found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bson.code import Code

__all__ = ["group_pipeline", "group_result"]

#: What a group's function is given, and changes: the keys with their values, and after them what was given as initial.
_ACCUMULATE = """function(state, document, names, values) {
    if (!state.begun) {
        for (let i = 0; i < names.length; i++) state.value[names[i]] = values[i];
        for (const name in state.initial) state.value[name] = state.initial[name];
        state.begun = true;
    }
    (%s)(document, state.value);
    return state;
}"""
_INIT = "function(initial) { return {begun: false, initial: initial, value: {}}; }"
_MERGE = "function() { throw new Error('group: parts of a group cannot be put together'); }"
_FINALIZE = """function(state) {
    const result = (%s)(state.value);
    return result === undefined ? state.value : result;
}"""
#: The names and the values of the keys that a function makes of a document.
_KEYS = "function(document) { const made = (%s)(document); return Object.%s(made); }"
_AS_IT_IS = "function(value) { return value; }"


def group_pipeline(keys: Any, initial: Any, reduce: Any, condition: Any = None, finalize: Any = None) -> list[Any]:
    """The stages for arguments of ``group``.

    :param keys: names of fields: a list, or a mapping; or a function that makes the keys of a document.
    :param initial: what a group's value starts from.
    :param reduce: changes the value for a document: ``function(document, value)``.
    :param condition: a query: which documents.
    :param finalize: changes the value, or returns another.
    :raises TypeError: an argument is of the wrong type.
    :raises ValueError: a function has a scope.
    """
    key, names, values = _key(keys)
    if not isinstance(initial, Mapping):
        raise TypeError(f"initial must be a mapping, not {type(initial).__name__}")
    accumulator = {
        "init": _INIT,
        "initArgs": [{"$literal": dict(initial)}],
        "accumulate": _ACCUMULATE % _source("reduce", reduce),
        "accumulateArgs": ["$$ROOT", names, values],
        "merge": _MERGE,
        "finalize": _FINALIZE % (_AS_IT_IS if finalize is None else _source("finalize", finalize)),
        "lang": "js",
    }
    stage = {"$group": {"_id": key, "value": {"$accumulator": accumulator}, "count": {"$sum": 1}}}
    if condition is None:
        return [stage]
    if not isinstance(condition, Mapping):
        raise TypeError(f"condition must be a mapping, not {type(condition).__name__}")
    return [{"$match": condition}, stage]


def group_result(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The command's reply for what the stages give."""
    return {
        "retval": [group["value"] for group in groups],
        "count": sum(group["count"] for group in groups),
        "keys": len(groups),
        "ok": 1.0,
    }


def _key(keys: Any) -> tuple[Any, Any, Any]:
    """What makes a group, and what its keys and their values are."""
    if isinstance(keys, Code) or (isinstance(keys, str) and keys.lstrip().startswith("function")):
        function = _source("keys", keys)
        of_keys, of_values = (_KEYS % (function, part) for part in ("keys", "values"))
        return _call(function), _call(of_keys), _call(of_values)
    fields = _names(keys)
    values = [{"$ifNull": [f"${field}", None]} for field in fields]
    key = {f"k{index}": value for index, value in enumerate(values)}
    return key or None, {"$literal": fields}, values


def _call(function: str) -> dict[str, Any]:
    """The expression that calls a function with the document."""
    return {"$function": {"body": function, "args": ["$$ROOT"], "lang": "js"}}


def _names(keys: Any) -> list[str]:
    names = [keys] if isinstance(keys, str) else list(keys) if isinstance(keys, (Mapping, list, tuple)) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f"keys must be a list of names of fields or a mapping, not {type(keys).__name__}")
    return names


def _source(name: str, function: Any) -> str:
    """The text of a function, which stands inside another one's."""
    if not isinstance(function, str):
        raise TypeError(f"{name} must be a str or a bson.code.Code, not {type(function).__name__}")
    if isinstance(function, Code) and function.scope:
        raise ValueError(f"{name} must have no scope: write its values into the function, or into initial")
    return str(function)
