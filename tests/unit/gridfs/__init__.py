"""Tests of :mod:`txmongo._gridfs` that need no server."""
