"""Prose tests of the MongoDB specifications that need a real server, a module for each specification.

A test's name ends with the number that the specification gives it. ``docs/conformance.rst`` says where the others are.
"""
