"""Tests of :mod:`txmongo.encryption` that need no server."""
