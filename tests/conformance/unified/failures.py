"""The two ways in which a case fails for the runner: the driver did something else, or the case cannot be read."""

from __future__ import annotations

__all__ = ["FormatError", "Mismatch"]


class Mismatch(AssertionError):
    """The driver's doing differs from what the case expects (a *failure* in the format's words)."""


class FormatError(Exception):
    """The case asks for what the format or this runner does not know (an *error* in the format's words)."""
