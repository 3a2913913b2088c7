"""The version of this package: the one place that states it."""

from __future__ import annotations

__version__ = "26.12.0.dev0"
