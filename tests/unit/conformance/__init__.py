"""Tests of the conformance suite's own parts; none needs a server."""
