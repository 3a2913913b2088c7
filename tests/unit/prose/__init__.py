"""Prose tests of the MongoDB specifications for which scripted servers and a fake clock are the right tools.

A test's name ends with the number that the specification gives it. ``docs/conformance.rst`` says where the others are.
"""
