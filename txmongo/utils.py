"""Small functions that TxMongo offers to applications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["get_err"]


def get_err(document: Mapping[str, Any], default: Any = None) -> Any:
    """What a reply of the server says went wrong.

    :param document: the reply to a command or to ``getLastError``.
    :param default: what to return if it says of no error.
    :returns: the text of the error, or its name if there is no text.
    """
    for field in ("err", "errmsg", "$err", "codeName"):
        error = document.get(field)
        if error:
            return error
    return default
