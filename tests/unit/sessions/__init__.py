"""Tests of :mod:`txmongo._sessions`."""
