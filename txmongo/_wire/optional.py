"""Libraries that speed up or extend the wire protocol where they are installed, and are never required."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

__all__ = ["first_importable"]


def first_importable(*names: str) -> ModuleType | None:
    """Return the first module of ``names`` that can be imported, or None.

    What a library warns of while it is imported (a missing C extension, say) is not the user's concern: they never
    asked for that library.
    """
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return importlib.import_module(name)
        except ImportError:
            continue
    return None
