"""How a name of old says that it is one.

What is deprecated are the names and arguments of TxMongo 15.2 that neither TxMongo 26.0 nor PyMongo has and that have a
successor. The warnings are ordinary ones: by Python's default filters each line of a program that uses such a name is
named once, and only in tests and ``__main__``.
"""

from __future__ import annotations

import warnings

__all__ = ["SINCE", "warn_deprecated"]

#: The release that warns of them first.
SINCE = "26.12.0"


def warn_deprecated(name: str, instead: str, *, stacklevel: int = 2) -> None:
    """Warn that ``name`` is deprecated.

    :param name: what was used, such as ``Collection.insert`` or ``the argument spec of Collection.find``.
    :param instead: what to use.
    :param stacklevel: as of :func:`warnings.warn`, counted from the caller of this function: 1 is its own line, 2 that
        of who called it.
    """
    text = f"{name} is deprecated since txmongo {SINCE}: use {instead}"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)
