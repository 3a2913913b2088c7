"""Unit tests of ``txmongo._cmap``."""
