"""Tests of the driver against real servers, on a real reactor.

Every server is started by the test that needs it, through :mod:`txmongo.testing`.
"""
