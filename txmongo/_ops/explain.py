"""The ``explain`` command: how the server would run a query, the plan of which is its reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from txmongo._ops.base import ReplyContext, RetryKind
from txmongo._ops.cursors import CursorBatch
from txmongo._ops.run_command import RunCommand, RunCursorCommand

__all__ = ["Explain", "ExplainFind", "Explanation", "explain_command"]


def explain_command(collection: str, fields: Mapping[str, Any], verbosity: str | None) -> dict[str, Any]:
    """The command that explains a ``find``.

    :param fields: those of the ``find`` after its first.
    :param verbosity: how much is wanted; ``None`` leaves it to the server.
    """
    explained: dict[str, Any] = {"find": collection, **fields}
    command: dict[str, Any] = {"explain": explained}
    if verbosity is not None:
        command["verbosity"] = verbosity
    if "maxTimeMS" in explained:
        # A limit of what runs, which is the explaining.
        command["maxTimeMS"] = explained.pop("maxTimeMS")
    return command


class Explanation(dict[str, Any]):
    """The server's plan for a query; ``plan[0]`` is the plan itself, which TxMongo 26.0 had in a list."""

    def __getitem__(self, key: Any) -> Any:
        return self if key == 0 else super().__getitem__(key)


class Explain(RunCommand):
    """How the server would run a read; the result is the plan."""

    __slots__ = ()

    retry = RetryKind.READ


class ExplainFind(RunCursorCommand):
    """How the server would run a query; the result is a batch of one document, the plan."""

    __slots__ = ()

    retry = RetryKind.READ
    user_fields = None

    def parse(self, reply: Mapping[str, Any] | None, context: ReplyContext) -> CursorBatch:
        """The plan as the only document of the only batch."""
        return CursorBatch([reply], 0, f"{self.database}.$cmd", context.address)
